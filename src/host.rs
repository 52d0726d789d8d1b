//! Facts about this host and this process, read once per command, so that planning stays a pure function of them.

use anyhow::Result;
use nix::sys::stat::stat;

use crate::cgroup::Layout;
use crate::plan::labels::Modules;
use crate::sys;

/// The inode of the initial user namespace (PROC_USER_INIT_INO). The look of uid_map can't tell: systemd 260 makes
/// identity maps in namespaces of its own.
pub(crate) const INITIAL_USER_NAMESPACE: u64 = 0xefff_fffd;

/// Bits of [`Host::capabilities`] (capabilities(7)).
pub(crate) const CAP_DAC_OVERRIDE: u64 = 1 << 1;
pub(crate) const CAP_SETGID: u64 = 1 << 6;
pub(crate) const CAP_SETUID: u64 = 1 << 7;
pub(crate) const CAP_SYS_PTRACE: u64 = 1 << 19;
pub(crate) const CAP_SYS_ADMIN: u64 = 1 << 21;

/// When a process of a container becomes non-dumpable, which ends with execve(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hiding {
    /// Before its first instruction.
    FromTheClone,
    /// When it joins a namespace, and before hooks run in the container.
    WhenStarted,
}

/// What planning needs to know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Host {
    /// Whether this process is in the initial user namespace: outside it no device node can be made.
    pub(crate) initial_user_namespace: bool,
    pub(crate) euid: u32,
    pub(crate) egid: u32,
    /// The file mode creation mask that the program would inherit, if it is known.
    pub(crate) umask: Option<u32>,
    pub(crate) cgroups: Layout,
    /// Signals this process ignores, as a mask (bit n-1 is signal n): an ignored signal stays ignored over exec.
    pub(crate) ignored_signals: u64,
    /// The permitted capabilities of this process.
    pub(crate) capabilities: u64,
    /// Its bounding set, if it is known.
    pub(crate) bounding: Option<u64>,
    /// The capabilities that are newer than this kernel.
    pub(crate) missing_capabilities: u64,
    /// Whether every id of this process, real to file system, is 0.
    pub(crate) all_root: bool,
    /// Whether this process has supplementary groups.
    pub(crate) groups: bool,
    /// The security modules that labels are asked of (`lsm::modules`).
    pub(crate) modules: Modules,
    /// CLONE_NEW* of the namespaces that are to be joined and that are this process's own already
    /// (`launch::prepare::callers_namespaces`).
    pub(crate) callers_namespaces: i32,
}

impl Host {
    pub(crate) fn probe() -> Result<Self> {
        let initial_user_namespace = !in_user_namespace();
        Ok(Self { cgroups: Layout::probe()?, initial_user_namespace, umask: None, ..Self::process()? })
    }

    /// Whether this process may mount and join what its own user namespace owns. Root may lack it (a container's), and
    /// what it has reaches no further than that namespace.
    pub(crate) fn privileged(&self) -> bool {
        self.capabilities & CAP_SYS_ADMIN != 0
    }

    /// When a process of a container becomes non-dumpable. The files of such a process below /proc are root's (proc(5)),
    /// and to look into it, to fetch a descriptor of it and to join its namespaces takes CAP_SYS_PTRACE: a runtime without
    /// that couldn't map its ids or `exec` beside it, nor could an ordinary user's own tools (slirp4netns) reach it.
    pub(crate) fn hiding(&self) -> Hiding {
        let reaches_it = self.euid == 0 && self.capabilities & CAP_SYS_PTRACE != 0;
        if reaches_it { Hiding::FromTheClone } else { Hiding::WhenStarted }
    }

    /// What `exec` needs.
    pub(crate) fn process() -> Result<Self> {
        let status = sys::read_once("/proc/self/status")?;
        let mut process = Self::of_status(&String::from_utf8_lossy(&status));
        process.missing_capabilities = crate::plan::caps::missing(process.bounding.unwrap_or_default(), |capability| {
            ::caps::has_cap(None, ::caps::CapSet::Bounding, capability).is_ok()
        });
        Ok(process)
    }

    /// What /proc/PID/status tells (proc_pid_status(5)).
    fn of_status(status: &str) -> Self {
        let mut process = Self { euid: u32::MAX, egid: u32::MAX, ..Self::default() };
        let (mut users, mut groups) = (false, false);
        for (name, value) in status.lines().filter_map(|line| line.split_once(":\t")) {
            let value = value.trim();
            let mask = || u64::from_str_radix(value, 16).ok();
            match name {
                "Umask" => process.umask = u32::from_str_radix(value, 8).ok(),
                "Uid" => users = ids(value, &mut process.euid),
                "Gid" => groups = ids(value, &mut process.egid),
                "Groups" => process.groups = !value.is_empty(),
                "SigIgn" => process.ignored_signals = mask().unwrap_or_default(),
                "CapPrm" => process.capabilities = mask().unwrap_or_default(),
                "CapBnd" => process.bounding = mask(),
                _ => {}
            }
        }
        Self { all_root: users && groups, ..process }
    }
}

/// Real, effective, saved and file system id. Returns whether each is root's.
fn ids(value: &str, effective: &mut u32) -> bool {
    let ids = || value.split_ascii_whitespace().map(str::parse::<u32>);
    *effective = ids().nth(1).and_then(Result::ok).unwrap_or(u32::MAX);
    ids().count() == 4 && ids().all(|id| id == Ok(0))
}

/// Whether this process is in a user namespace that isn't the host's. Without /proc nothing says so.
pub(crate) fn in_user_namespace() -> bool {
    stat("/proc/self/ns/user").is_ok_and(|user| user.st_ino != INITIAL_USER_NAMESPACE)
}

/// A uid of this process's user namespace as the one around it has it; on the host, itself.
pub(crate) fn uid_on_host(uid: u32) -> u32 {
    if !in_user_namespace() {
        return uid;
    }
    let map = sys::read_once("/proc/self/uid_map").unwrap_or_default();
    mapped(&String::from_utf8_lossy(&map), uid).unwrap_or(uid)
}

/// user_namespaces(7): a line has the first id inside, the first outside, and how many.
fn mapped(map: &str, uid: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().map(|word| word.parse::<u32>().ok());
        let (inside, outside, count) = (words.next()??, words.next()??, words.next()??);
        let offset = uid.checked_sub(inside).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    })
}

/// Whether a user namespace is the one that this process is in.
pub(crate) fn is_own_user_namespace(of: &nix::sys::stat::FileStat) -> bool {
    stat("/proc/self/ns/user").is_ok_and(|own| (own.st_dev, own.st_ino) == (of.st_dev, of.st_ino))
}

/// Whether this process has no rights over the host: an ordinary user, or root of a user namespace. Asked only after the
/// kernel refused something.
pub(crate) fn is_rootless() -> bool {
    !nix::unistd::geteuid().is_root() || in_user_namespace()
}

/// Whether this is Linux `major`.`minor` or newer: for what no system call can be asked about. A release that can't be read
/// is taken for an older one.
pub(crate) fn is_linux(major: u32, minor: u32) -> bool {
    let Ok(name) = nix::sys::utsname::uname() else { return false };
    release(&name.release().to_string_lossy()).is_some_and(|release| release >= (major, minor))
}

/// The first two numbers of a release, such as "6.12.63+deb13-amd64".
fn release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_counts() {
        let all_root = |status| Host::of_status(status).all_root;
        assert!(all_root("Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n"));
        assert!(!all_root("Uid:\t0\t0\t0\t0\nGid:\t0\t5\t0\t0\n"));
        assert!(!all_root("Uid:\t0\t0\t0\t0\n"));
        assert!(!all_root(""));
        let host = Host::of_status("Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n");
        assert_eq!((host.euid, host.egid, host.groups), (2, 6, true));
        assert_eq!(Host::of_status("Groups:\t \n").euid, u32::MAX, "unknown is nobody's");
    }

    #[test]
    fn a_release_begins_with_two_numbers() {
        assert_eq!(release("6.12.63+deb13-amd64"), Some((6, 12)));
        assert_eq!(release("7.2-rc1"), Some((7, 2)));
        assert_eq!((release("six"), release("6"), release("")), (None, None, None));
        assert!(is_linux(5, 10) && !is_linux(1000, 0));
    }

    #[test]
    fn ids_of_the_host() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!([0, 1, 65536, 65537].map(|uid| mapped(map, uid)), [Some(1000), Some(100_000), Some(165_535), None]);
        assert_eq!(mapped("", 0), None);
    }

    #[test]
    fn masks_are_read_from_their_own_line() {
        let status = "Name:\tCapBnd:\t1\nUmask:\t0022\nSigIgn:\t0000000000001000\nCapPrm:\t000001fffeffffff\n";
        let host = Host::of_status(status);
        assert_eq!(host.ignored_signals, 1 << 12);
        assert_eq!(host.capabilities, 0x1ff_feff_ffff);
        assert_eq!(host.umask, Some(0o22));
        assert_eq!(host.bounding, None);
    }
}
