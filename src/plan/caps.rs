//! The five sets of capabilities(7): names in, bit masks out. Pure.
//!
//! A name that isn't known is an error, as for crun (runc warns): whoever asks for it doesn't get what was meant. An
//! ambient one that the kernel would refuse is left out without a word but with --debug: Buildah asks for some at every
//! step of a build, and nobody asked it to.

use caps::Capability;

use crate::spec::Capabilities;

/// A bit for each capability, numbered as in the kernel's include/uapi/linux/capability.h.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Masks {
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) inheritable: u64,
    pub(crate) permitted: u64,
    pub(crate) ambient: u64,
}

/// The masks of the sets. Ambient capabilities that are not both permitted and inheritable are left out: the kernel never
/// lets those be raised.
pub(crate) fn masks(sets: &Capabilities) -> Masks {
    let (permitted, inheritable) = (mask(&sets.permitted), mask(&sets.inheritable));
    Masks {
        bounding: mask(&sets.bounding),
        effective: mask(&sets.effective),
        inheritable,
        permitted,
        ambient: mask(&sets.ambient) & permitted & inheritable,
    }
}

/// The first name that isn't a capability's: its set, its place there, and what is wrong with it.
pub(crate) fn unknown(sets: &Capabilities) -> Option<(&'static str, usize, String)> {
    each(sets).find_map(|(set, i, name)| unknown_name(name).map(|what| (set, i, what)))
}

/// What is wrong with a name that isn't a capability's.
pub(crate) fn unknown_name(name: &str) -> Option<String> {
    if bit(name).is_some() {
        return None;
    }
    Some(format!("unknown capability {name:?}, expected one of {}", names().join(", ")))
}

/// The first of some capabilities that is asked for: its set, its place there, and its name.
pub(crate) fn first_of(mask: u64, sets: &Capabilities) -> Option<(&'static str, usize, &str)> {
    each(sets).find(|(_, _, name)| bit(name).is_some_and(|bit| bit & mask != 0))
}

/// The newest of [`all`].
const NEWEST: Capability = Capability::CAP_CHECKPOINT_RESTORE;

/// Those that the kernel doesn't have: `knows` is asked about one, unless the newest is in a `bounding` set. A kernel has
/// all up to its last one.
pub(crate) fn missing(bounding: u64, knows: impl Fn(Capability) -> bool) -> u64 {
    // Nearly always; the rest is too dear for each start of a container.
    if bounding & NEWEST.bitmask() != 0 {
        return 0;
    }
    all().into_iter().rev().take_while(|capability| !knows(*capability)).fold(0, |mask, cap| mask | cap.bitmask())
}

/// Every capability, in the kernel's order.
fn all() -> Vec<Capability> {
    let mut all: Vec<Capability> = caps::all().into_iter().collect();
    all.sort_by_key(Capability::index);
    all
}

fn each(sets: &Capabilities) -> impl Iterator<Item = (&'static str, usize, &str)> {
    let sets = [
        ("bounding", &sets.bounding),
        ("effective", &sets.effective),
        ("inheritable", &sets.inheritable),
        ("permitted", &sets.permitted),
        ("ambient", &sets.ambient),
    ];
    sets.into_iter().flat_map(|(set, names)| names.iter().enumerate().map(move |(i, name)| (set, i, name.as_str())))
}

/// The ambient capabilities that [`masks`] leaves out, in words.
pub(crate) fn not_ambient(sets: &Capabilities) -> impl Iterator<Item = String> {
    let allowed = mask(&sets.permitted) & mask(&sets.inheritable);
    let refused = move |name: &str| bit(name).is_some_and(|bit| bit & allowed == 0);
    sets.ambient.iter().enumerate().filter(move |(_, name)| refused(name)).map(|(i, name)| {
        format!(
            "config.json: /process/capabilities/ambient/{i}: {name:?} ignored: it isn't both permitted and inheritable"
        )
    })
}

/// The first effective capability that isn't permitted, with its index: capset(2) would fail with EPERM.
pub(crate) fn not_permitted(sets: &Capabilities) -> Option<(usize, &str)> {
    let permitted = mask(&sets.permitted);
    let mut names = sets.effective.iter().enumerate();
    names.find(|(_, name)| bit(name).is_some_and(|bit| bit & permitted == 0)).map(|(i, name)| (i, name.as_str()))
}

/// Every capability by name, in the kernel's order: what `features` lists.
pub(crate) fn names() -> Vec<String> {
    all().iter().map(Capability::to_string).collect()
}

fn mask(names: &[String]) -> u64 {
    names.iter().filter_map(|name| bit(name)).fold(0, |sum, bit| sum | bit)
}

fn bit(name: &str) -> Option<u64> {
    name.parse::<Capability>().ok().map(|capability| capability.bitmask())
}

#[cfg(test)]
mod tests {
    use super::{Masks, NEWEST, first_of, masks, missing, names, not_ambient, not_permitted, unknown};
    use crate::spec::Capabilities;

    fn list(names: &str) -> Vec<String> {
        names.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn names_become_bits() {
        let sets = Capabilities {
            bounding: list("CAP_CHOWN CAP_SYS_ADMIN CAP_CHECKPOINT_RESTORE"),
            effective: list("CAP_KILL"),
            permitted: list("CAP_KILL CAP_KILL CAP_DAC_OVERRIDE"),
            ..Capabilities::default()
        };
        let expected = Masks {
            bounding: 1 << 40 | 1 << 21 | 1,
            effective: 1 << 5,
            permitted: 1 << 5 | 1 << 1,
            ..Masks::default()
        };
        assert_eq!(masks(&sets), expected);
        assert_eq!(unknown(&sets), None);
    }

    #[test]
    fn every_capability_of_the_kernel_has_its_number() {
        let names = names();
        assert_eq!((names.len(), names[0].as_str(), names[40].as_str()), (41, "CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"));
        assert_eq!(names[40], NEWEST.to_string());
        for (i, name) in names.iter().enumerate() {
            let sets = Capabilities { bounding: vec![name.clone()], ..Capabilities::default() };
            assert_eq!(masks(&sets).bounding, 1 << i, "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_found() {
        for name in ["CAP_TIME_TRAVEL", "chown", "cap_chown", "CHOWN", "", "__Nonexhaustive"] {
            let sets =
                Capabilities { ambient: vec!["CAP_CHOWN".to_owned(), name.to_owned()], ..Capabilities::default() };
            let (set, i, what) = unknown(&sets).unwrap();
            assert_eq!((set, i), ("ambient", 1));
            let start = format!("unknown capability {name:?}, expected one of CAP_CHOWN, CAP_DAC_OVERRIDE, ");
            assert!(what.starts_with(&start) && what.ends_with(", CAP_CHECKPOINT_RESTORE"), "{what}");
        }
    }

    #[test]
    fn one_that_the_kernel_does_not_have_is_found() {
        assert_eq!(missing(0, |_| true), 0);
        let of_5_7 = missing(0, |capability| capability.index() <= 37);
        assert_eq!(missing(NEWEST.bitmask(), |_| false), 0);
        assert_eq!(of_5_7, 0b111 << 38);
        let sets = Capabilities { permitted: list("CAP_CHOWN CAP_BPF"), ..Capabilities::default() };
        assert_eq!(first_of(0, &sets), None);
        assert_eq!(first_of(of_5_7, &sets), Some(("permitted", 1, "CAP_BPF")));
    }

    #[test]
    fn ambient_needs_permitted_and_inheritable() {
        let sets = Capabilities {
            permitted: list("CAP_CHOWN CAP_KILL"),
            inheritable: list("CAP_CHOWN CAP_SETUID"),
            ambient: list("CAP_CHOWN CAP_KILL CAP_SETUID"),
            ..Capabilities::default()
        };
        assert_eq!(masks(&sets).ambient, 1);
        assert_eq!(unknown(&sets), None);
        let warnings: Vec<String> = not_ambient(&sets).collect();
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].contains("/process/capabilities/ambient/1: \"CAP_KILL\" ignored"), "{warnings:?}");
        assert!(warnings[1].contains("/process/capabilities/ambient/2: \"CAP_SETUID\" ignored"), "{warnings:?}");
    }

    #[test]
    fn effective_needs_permitted() {
        let sets = Capabilities {
            effective: list("CAP_CHOWN CAP_KILL"),
            permitted: list("CAP_CHOWN"),
            ..Capabilities::default()
        };
        assert_eq!(not_permitted(&sets), Some((1, "CAP_KILL")));
        let unknown = Capabilities { effective: list("CAP_NONE"), ..Capabilities::default() };
        assert_eq!(not_permitted(&unknown), None);
    }
}
