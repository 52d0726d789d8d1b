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
pub(crate) const CAP_SETGID: u64 = 1 << 6;
pub(crate) const CAP_SETUID: u64 = 1 << 7;
pub(crate) const CAP_SYS_ADMIN: u64 = 1 << 21;

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

    /// What `exec` needs.
    pub(crate) fn process() -> Result<Self> {
        let status = sys::read_once("/proc/self/status")?;
        let status = String::from_utf8_lossy(&status);
        let bounding = mask(&status, "CapBnd:");
        Ok(Self {
            initial_user_namespace: false,
            umask: status.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("Umask:")?.trim(), 8).ok()),
            euid: ids(&status, "Uid:").nth(1).unwrap_or(u32::MAX),
            egid: ids(&status, "Gid:").nth(1).unwrap_or(u32::MAX),
            groups: status.lines().any(|line| line.strip_prefix("Groups:").is_some_and(|list| !list.trim().is_empty())),
            cgroups: Layout::default(),
            ignored_signals: mask(&status, "SigIgn:"),
            capabilities: mask(&status, "CapPrm:"),
            bounding: Some(bounding).filter(|_| status.contains("CapBnd:")),
            missing_capabilities: crate::plan::caps::missing(bounding, |capability| {
                ::caps::has_cap(None, ::caps::CapSet::Bounding, capability).is_ok()
            }),
            all_root: all_root(&status),
            modules: Modules::default(),
        })
    }
}

/// Whether this process is in a user namespace that isn't the host's. Without /proc nothing says so.
pub(crate) fn in_user_namespace() -> bool {
    stat("/proc/self/ns/user").is_ok_and(|user| user.st_ino != INITIAL_USER_NAMESPACE)
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

/// A hexadecimal mask of /proc/PID/status.
fn mask(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| u64::from_str_radix(value.trim(), 16).ok()).unwrap_or(0)
}

/// Real, effective, saved and file system ids, of user and group.
fn all_root(status: &str) -> bool {
    let ids: Vec<u32> = ids(status, "Uid:").chain(ids(status, "Gid:")).collect();
    ids == [0; 8]
}

fn ids<'a>(status: &'a str, name: &str) -> impl Iterator<Item = u32> + 'a {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_ascii_whitespace().filter_map(|id| id.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_counts() {
        assert!(all_root("Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n"));
        assert!(!all_root("Uid:\t0\t0\t0\t0\nGid:\t0\t5\t0\t0\n"));
        assert!(!all_root("Uid:\t0\t0\t0\t0\n"));
    }

    #[test]
    fn masks_are_read_from_their_own_line() {
        let status = "Name:\tx\nSigIgn:\t0000000000001000\nCapPrm:\t000001fffeffffff\n";
        assert_eq!(mask(status, "SigIgn:"), 1 << 12);
        assert_eq!(mask(status, "CapPrm:"), 0x1ff_feff_ffff);
        assert_eq!(mask(status, "CapBnd:"), 0);
    }
}
