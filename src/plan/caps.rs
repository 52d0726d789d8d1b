//! The five sets of capabilities(7): names in, bit masks out. Pure.
//!
//! A name that isn't known is left out with a warning (config.md, "capabilities"); the warnings are [`warnings`], for
//! [`crate::spec::validate`] to hand on. An ambient one that the kernel would refuse is left out without: Buildah asks
//! for some at every step of a build, and nobody asked it to.

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

/// The masks of the sets. Unknown names are left out, and ambient capabilities that are not both permitted
/// and inheritable too: the kernel never lets those be raised.
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

/// The unknown names, which [`masks`] leaves out, in words.
pub(crate) fn warnings(sets: &Capabilities) -> Vec<String> {
    let mut warnings = Vec::new();
    for (set, names) in [
        ("bounding", &sets.bounding),
        ("effective", &sets.effective),
        ("inheritable", &sets.inheritable),
        ("permitted", &sets.permitted),
        ("ambient", &sets.ambient),
    ] {
        for (i, name) in names.iter().enumerate().filter(|(_, name)| bit(name).is_none()) {
            warnings.push(format!("config.json: /process/capabilities/{set}/{i}: unknown capability {name:?} ignored"));
        }
    }
    warnings
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
    let mut all: Vec<Capability> = caps::all().into_iter().collect();
    all.sort_by_key(Capability::index);
    all.iter().map(Capability::to_string).collect()
}

fn mask(names: &[String]) -> u64 {
    names.iter().filter_map(|name| bit(name)).fold(0, |sum, bit| sum | bit)
}

fn bit(name: &str) -> Option<u64> {
    name.parse::<Capability>().ok().map(|capability| capability.bitmask())
}

#[cfg(test)]
mod tests {
    use super::{Masks, masks, names, not_ambient, not_permitted, warnings};
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
        assert!(warnings(&sets).is_empty());
    }

    #[test]
    fn every_capability_of_the_kernel_has_its_number() {
        let names = names();
        assert_eq!((names.len(), names[0].as_str(), names[40].as_str()), (41, "CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"));
        for (i, name) in names.iter().enumerate() {
            let sets = Capabilities { bounding: vec![name.clone()], ..Capabilities::default() };
            assert_eq!(masks(&sets).bounding, 1 << i, "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_left_out_with_a_warning() {
        for name in ["CAP_TIME_TRAVEL", "chown", "cap_chown", "CHOWN", "", "__Nonexhaustive"] {
            let sets =
                Capabilities { bounding: vec!["CAP_CHOWN".to_owned(), name.to_owned()], ..Capabilities::default() };
            assert_eq!(masks(&sets).bounding, 1, "{name}");
            let expected =
                format!("config.json: /process/capabilities/bounding/1: unknown capability {name:?} ignored");
            assert_eq!(warnings(&sets), [expected]);
        }
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
        assert!(warnings(&sets).is_empty());
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
