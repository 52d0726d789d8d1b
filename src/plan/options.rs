//! The algebra of mount options (config.md, "Linux mount options"): a list of words in, sets of bits out.
//!
//! Pure: nothing is mounted here. Words apply in order and the later one wins; a word that isn't known is
//! data for the file system, in order. What is set and what is *explicitly cleared* are kept apart, as a
//! bind mount keeps whatever wasn't mentioned.

use libc::c_ulong;

use crate::spec::Mount;

/// The attributes of mount_setattr(2) and fsmount(2), from the kernel's include/uapi/linux/mount.h
/// (the libc crate has none of them for Linux).
pub(crate) mod attr {
    pub(crate) const RDONLY: u64 = 0x0000_0001;
    pub(crate) const NOSUID: u64 = 0x0000_0002;
    pub(crate) const NODEV: u64 = 0x0000_0004;
    pub(crate) const NOEXEC: u64 = 0x0000_0008;
    /// The mask of the three values below, of which exactly one holds.
    pub(crate) const ATIME: u64 = 0x0000_0070;
    pub(crate) const RELATIME: u64 = 0x0000_0000;
    pub(crate) const NOATIME: u64 = 0x0000_0010;
    pub(crate) const STRICTATIME: u64 = 0x0000_0020;
    pub(crate) const NODIRATIME: u64 = 0x0000_0080;
    pub(crate) const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// What a list of options comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// For the mount itself.
    pub(crate) attrs: Attrs,
    /// For the mount and everything below it (`AT_RECURSIVE`), to be applied after [`Self::attrs`].
    pub(crate) recursive: Attrs,
    /// For the superblock: of no meaning to a bind mount.
    pub(crate) superblock: Superblock,
    /// In the order given; each is a call of its own.
    pub(crate) propagation: Vec<Propagation>,
    pub(crate) bind: Bind,
    pub(crate) remount: bool,
    pub(crate) tmpcopyup: bool,
    /// Whether any word speaks of the flags of the one mount, even if it comes to nothing: a bind mount starts from none then.
    pub(crate) flagged: bool,
    pub(crate) idmap: IdMap,
    /// For the file system, in the order given.
    pub(crate) data: Vec<Data>,
}

/// Two disjoint sets of [`attr`] bits, except that [`attr::ATIME`] in `clear` goes with the value in `set`:
/// mount_setattr wants it so for any change of the access time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Attrs {
    pub(crate) set: u64,
    pub(crate) clear: u64,
}

/// Superblock flags as mount(2) spells them (`MS_SYNCHRONOUS` and so on), set and explicitly cleared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) set: c_ulong,
    pub(crate) clear: c_ulong,
}

/// One change of the propagation type (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Propagation {
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or `MS_UNBINDABLE`: also the value for mount_setattr.
    pub(crate) kind: c_ulong,
    pub(crate) reach: Reach,
}

/// How far a word reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    One,
    Tree,
}

/// Whether the mount is a bind mount. `bind` after `rbind` stays recursive, as in runc.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Bind {
    #[default]
    No,
    One,
    Tree,
}

/// Whether the mount is to be id-mapped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum IdMap {
    #[default]
    No,
    One,
    Tree,
}

/// One word for the file system: `key` or `key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Data {
    pub(crate) key: String,
    pub(crate) value: Option<String>,
}

/// What a word means.
#[derive(Clone, Copy)]
enum Word {
    Nothing,
    Set(Reach, u64),
    Clear(Reach, u64),
    /// One of the three values of the access time, chosen or taken back.
    Time(Reach, u64),
    NoTime(Reach, u64),
    SetSuper(c_ulong),
    ClearSuper(c_ulong),
    Propagate(Reach, c_ulong),
    Bind(Reach),
    Remount,
    CopyUp,
    IdMap(Reach),
}

use Reach::{One, Tree};
use Word::{Clear, ClearSuper, NoTime, Propagate, Set, SetSuper, Time};

/// Every word known, sorted.
const WORDS: &[(&str, Word)] = &[
    ("async", ClearSuper(libc::MS_SYNCHRONOUS)),
    ("atime", NoTime(One, attr::NOATIME)),
    ("bind", Word::Bind(One)),
    ("defaults", Word::Nothing),
    ("dev", Clear(One, attr::NODEV)),
    ("diratime", Clear(One, attr::NODIRATIME)),
    ("dirsync", SetSuper(libc::MS_DIRSYNC)),
    ("exec", Clear(One, attr::NOEXEC)),
    ("idmap", Word::IdMap(One)),
    ("iversion", SetSuper(libc::MS_I_VERSION)),
    ("lazytime", SetSuper(libc::MS_LAZYTIME)),
    ("loud", ClearSuper(libc::MS_SILENT)),
    ("mand", SetSuper(libc::MS_MANDLOCK)),
    ("noatime", Time(One, attr::NOATIME)),
    ("nodev", Set(One, attr::NODEV)),
    ("nodiratime", Set(One, attr::NODIRATIME)),
    ("noexec", Set(One, attr::NOEXEC)),
    ("noiversion", ClearSuper(libc::MS_I_VERSION)),
    ("nolazytime", ClearSuper(libc::MS_LAZYTIME)),
    ("nomand", ClearSuper(libc::MS_MANDLOCK)),
    ("norelatime", NoTime(One, attr::RELATIME)),
    ("nostrictatime", NoTime(One, attr::STRICTATIME)),
    ("nosuid", Set(One, attr::NOSUID)),
    ("nosymfollow", Set(One, attr::NOSYMFOLLOW)),
    ("private", Propagate(One, libc::MS_PRIVATE)),
    ("ratime", NoTime(Tree, attr::NOATIME)),
    ("rbind", Word::Bind(Tree)),
    ("rdev", Clear(Tree, attr::NODEV)),
    ("rdiratime", Clear(Tree, attr::NODIRATIME)),
    ("relatime", Time(One, attr::RELATIME)),
    ("remount", Word::Remount),
    ("rexec", Clear(Tree, attr::NOEXEC)),
    ("ridmap", Word::IdMap(Tree)),
    ("rnoatime", Time(Tree, attr::NOATIME)),
    ("rnodev", Set(Tree, attr::NODEV)),
    ("rnodiratime", Set(Tree, attr::NODIRATIME)),
    ("rnoexec", Set(Tree, attr::NOEXEC)),
    ("rnorelatime", NoTime(Tree, attr::RELATIME)),
    ("rnostrictatime", NoTime(Tree, attr::STRICTATIME)),
    ("rnosuid", Set(Tree, attr::NOSUID)),
    ("rnosymfollow", Set(Tree, attr::NOSYMFOLLOW)),
    ("ro", Set(One, attr::RDONLY)),
    ("rprivate", Propagate(Tree, libc::MS_PRIVATE)),
    ("rrelatime", Time(Tree, attr::RELATIME)),
    ("rro", Set(Tree, attr::RDONLY)),
    ("rrw", Clear(Tree, attr::RDONLY)),
    ("rshared", Propagate(Tree, libc::MS_SHARED)),
    ("rslave", Propagate(Tree, libc::MS_SLAVE)),
    ("rstrictatime", Time(Tree, attr::STRICTATIME)),
    ("rsuid", Clear(Tree, attr::NOSUID)),
    ("rsymfollow", Clear(Tree, attr::NOSYMFOLLOW)),
    ("runbindable", Propagate(Tree, libc::MS_UNBINDABLE)),
    ("rw", Clear(One, attr::RDONLY)),
    ("shared", Propagate(One, libc::MS_SHARED)),
    ("silent", SetSuper(libc::MS_SILENT)),
    ("slave", Propagate(One, libc::MS_SLAVE)),
    ("strictatime", Time(One, attr::STRICTATIME)),
    ("suid", Clear(One, attr::NOSUID)),
    ("symfollow", Clear(One, attr::NOSYMFOLLOW)),
    ("sync", SetSuper(libc::MS_SYNCHRONOUS)),
    ("tmpcopyup", Word::CopyUp),
    ("unbindable", Propagate(One, libc::MS_UNBINDABLE)),
];

/// Every option that isn't data for the file system, sorted: what `features` lists.
pub(crate) const NAMES: &[&str] = &{
    let mut names = [""; WORDS.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = WORDS[i].0;
        i += 1;
    }
    names
};

/// Adds up a mount's options.
pub(crate) fn parse(options: &[String]) -> Parsed {
    let mut parsed = Parsed::default();
    // An empty word comes from engines that split an empty string at commas.
    for option in options.iter().flat_map(|option| words(option)).filter(|word| !word.is_empty()) {
        match WORDS.binary_search_by_key(&option, |(name, _)| name) {
            Ok(at) => parsed.apply(WORDS[at].1),
            Err(_) => parsed.data.push(Data::new(option)),
        }
    }
    parsed
}

/// The options of SELinux (mount(8), "SELinux context"), whose values may have commas.
pub(crate) const CONTEXTS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// One option as mount(2) splits it: at each comma, but not in the quotes of a context, nor before its categories
/// (`c1,c2`), nor after a backslash, by which overlayfs escapes it. The backslash stays.
pub(crate) fn words(option: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(option);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = end_of_word(text);
        rest = text.get(end + 1..);
        text.get(..end)
    })
}

fn end_of_word(text: &str) -> usize {
    let context = text.split_once('=').is_some_and(|(key, _)| CONTEXTS.contains(&key));
    let category =
        |rest: &str| rest.strip_prefix('c').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' if context => quoted = !quoted,
            b',' if quoted || context && text.get(at + 1..).is_some_and(category) => {}
            b',' => return at,
            _ => {}
        }
    }
    text.len()
}

impl Parsed {
    /// The options of a mount. The type "bind" counts as the option, as engines write either.
    pub(crate) fn of(mount: &Mount) -> Self {
        let mut parsed = parse(&mount.options);
        if mount.kind == "bind" && parsed.bind == Bind::No {
            parsed.bind = Bind::One;
        }
        parsed
    }

    fn apply(&mut self, word: Word) {
        let (Set(reach, _) | Clear(reach, _) | Time(reach, _) | NoTime(reach, _)) = word else {
            self.flagged |= matches!(word, SetSuper(_) | ClearSuper(_));
            return self.apply_other(word);
        };
        self.flagged |= reach == One;
        match word {
            Set(_, bit) => self.attrs_of(reach).set(bit),
            Clear(_, bit) => self.attrs_of(reach).clear(bit),
            Time(_, value) => self.attrs_of(reach).time(value),
            NoTime(_, value) => self.attrs_of(reach).no_time(reach, value),
            _ => {}
        }
    }

    fn apply_other(&mut self, word: Word) {
        match word {
            Word::Nothing | Set(..) | Clear(..) | Time(..) | NoTime(..) => {}
            SetSuper(flag) => self.superblock = self.superblock.with(flag),
            ClearSuper(flag) => self.superblock = self.superblock.without(flag),
            Propagate(reach, kind) => self.propagation.push(Propagation { kind, reach }),
            Word::Bind(Tree) => self.bind = Bind::Tree,
            Word::Bind(One) if self.bind == Bind::Tree => {}
            Word::Bind(One) => self.bind = Bind::One,
            Word::Remount => self.remount = true,
            Word::CopyUp => self.tmpcopyup = true,
            Word::IdMap(One) => self.idmap = IdMap::One,
            Word::IdMap(Tree) => self.idmap = IdMap::Tree,
        }
    }

    fn attrs_of(&mut self, reach: Reach) -> &mut Attrs {
        match reach {
            One => &mut self.attrs,
            Tree => &mut self.recursive,
        }
    }

    /// The `data` argument of mount(2).
    pub(crate) fn data_string(&self) -> String {
        let words: Vec<String> = self.data.iter().map(Data::to_string).collect();
        words.join(",")
    }

    /// The flags of mount(2) for a new mount of a file system: attributes and superblock flags.
    pub(crate) fn ms_flags(&self) -> c_ulong {
        self.attrs.ms_flags() | self.superblock.set
    }
}

impl Attrs {
    fn set(&mut self, bit: u64) {
        self.set |= bit;
        self.clear &= !bit;
    }

    fn clear(&mut self, bit: u64) {
        self.set &= !bit;
        self.clear |= bit;
    }

    fn time(&mut self, value: u64) {
        self.set = (self.set & !attr::ATIME) | value;
        self.clear |= attr::ATIME;
    }

    /// Takes back the value, if it was chosen: what was there before stays, and a new mount has relatime. Of a tree
    /// mount_setattr(2) can't clear one value alone: `rnostrictatime` and `ratime` choose the kernel's default, relatime.
    fn no_time(&mut self, reach: Reach, value: u64) {
        let chosen = (self.clear & attr::ATIME != 0).then_some(self.set & attr::ATIME);
        match chosen {
            Some(chosen) if chosen != value => {}
            _ if reach == Tree && value != attr::RELATIME => self.time(attr::RELATIME),
            Some(_) => {
                self.set &= !attr::ATIME;
                self.clear &= !attr::ATIME;
            }
            None => {}
        }
    }

    /// The flags of a bind mount for which some are asked, as mount(2) has them on MS_REMOUNT|MS_BIND: what isn't asked
    /// for is cleared, but the access time and `nodiratime` stay, unless one of these is asked for.
    pub(crate) fn of_bind(self) -> Self {
        const PLAIN: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::NOSYMFOLLOW;
        let clear = self.clear | PLAIN & !self.set;
        let time = self.clear & attr::ATIME != 0 || self.set & attr::NODIRATIME != 0;
        match time {
            true => Self { clear: clear | attr::ATIME | attr::NODIRATIME & !self.set, ..self },
            false => Self { clear: clear & !attr::NODIRATIME, ..self },
        }
    }

    /// True if there is nothing to apply.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The flags of mount(2) for what is set.
    pub(crate) fn ms_flags(&self) -> c_ulong {
        let plain = MS.iter().filter(|(bit, _)| self.set & bit != 0).fold(0, |sum, (_, ms)| sum | ms);
        plain | self.ms_time().unwrap_or(0)
    }

    /// The flags of mount(2) for a bind remount of a mount that has `current` (in `MS_` bits): it keeps what
    /// isn't mentioned, where mount(2) would clear it.
    pub(crate) fn ms_flags_over(&self, current: c_ulong) -> c_ulong {
        let cleared = MS.iter().filter(|(bit, _)| self.clear & bit != 0).fold(0, |sum, (_, ms)| sum | ms);
        let kept = match self.ms_time() {
            Some(_) => current & !MS_TIME,
            None => current,
        };
        (kept & !cleared) | self.ms_flags()
    }

    /// The words that ask for something else than a mount that has `current` (in `MS_` bits) does.
    pub(crate) fn refused(&self, current: c_ulong) -> Vec<&'static str> {
        let words = MS.iter().zip(["ro", "nosuid", "nodev", "noexec", "nodiratime", "nosymfollow"]);
        let mut words: Vec<&str> =
            words.filter(|((bit, ms), _)| self.clear & bit != 0 && current & ms != 0).map(|(_, word)| word).collect();
        let time = match current & (libc::MS_NOATIME | libc::MS_RELATIME) {
            0 => libc::MS_STRICTATIME,
            time => time,
        };
        if self.ms_time().is_some_and(|asked| asked != time) {
            words.push(if time == libc::MS_NOATIME { "noatime" } else { "its access time" });
        }
        words
    }

    /// The access time asked for, if any.
    fn ms_time(&self) -> Option<c_ulong> {
        (self.clear & attr::ATIME != 0).then_some(match self.set & attr::ATIME {
            attr::NOATIME => libc::MS_NOATIME,
            attr::STRICTATIME => libc::MS_STRICTATIME,
            _ => libc::MS_RELATIME,
        })
    }
}

const MS_TIME: c_ulong = libc::MS_NOATIME | libc::MS_STRICTATIME | libc::MS_RELATIME;

/// Attributes of mount_setattr(2) and their names in mount(2).
const MS: &[(u64, c_ulong)] = &[
    (attr::RDONLY, libc::MS_RDONLY),
    (attr::NOSUID, libc::MS_NOSUID),
    (attr::NODEV, libc::MS_NODEV),
    (attr::NOEXEC, libc::MS_NOEXEC),
    (attr::NODIRATIME, libc::MS_NODIRATIME),
    (attr::NOSYMFOLLOW, libc::MS_NOSYMFOLLOW),
];

impl Superblock {
    fn with(self, flag: c_ulong) -> Self {
        Self { set: self.set | flag, clear: self.clear & !flag }
    }

    fn without(self, flag: c_ulong) -> Self {
        Self { set: self.set & !flag, clear: self.clear | flag }
    }

    /// The words for fsconfig(2)'s `FSCONFIG_SET_FLAG` (the kernel's fs/fs_context.c, common_set_sb_flag).
    /// `MS_SILENT` only mutes the kernel's log and has none.
    pub(crate) fn fsconfig(self) -> impl Iterator<Item = &'static str> {
        const SET: &[(c_ulong, &str)] = &[
            (libc::MS_SYNCHRONOUS, "sync"),
            (libc::MS_DIRSYNC, "dirsync"),
            (libc::MS_MANDLOCK, "mand"),
            (libc::MS_LAZYTIME, "lazytime"),
        ];
        SET.iter().filter(move |(flag, _)| self.set & flag != 0).map(|(_, word)| *word)
    }

    /// `iversion` has no word of its own in the new mount API: only mount(2) can honour it.
    pub(crate) fn needs_mount2(self) -> bool {
        self.set & libc::MS_I_VERSION != 0
    }
}

impl Propagation {
    /// Whether nothing done to mounts that this was given reaches those that they were peers of.
    pub(crate) fn cuts_off(self) -> bool {
        self.reach == Tree && self.kind != libc::MS_SHARED
    }

    /// The flags of mount(2).
    pub(crate) fn ms_flags(self) -> c_ulong {
        match self.reach {
            One => self.kind,
            Tree => self.kind | libc::MS_REC,
        }
    }
}

impl Bind {
    /// The flags of mount(2) that make the bind; zero if it is none.
    pub(crate) fn ms_flags(self) -> c_ulong {
        match self {
            Self::No => 0,
            Self::One => libc::MS_BIND,
            Self::Tree => libc::MS_BIND | libc::MS_REC,
        }
    }
}

impl Data {
    fn new(option: &str) -> Self {
        match option.split_once('=') {
            Some((key, value)) => Self { key: key.to_owned(), value: Some(value.to_owned()) },
            None => Self { key: option.to_owned(), value: None },
        }
    }
}

impl std::fmt::Display for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.key),
            None => f.write_str(&self.key),
        }
    }
}

#[cfg(test)]
mod tests;
