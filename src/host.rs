//! Facts about this host and this process, read once per command, so that planning stays a pure function of them.

use anyhow::Result;
use nix::sys::stat::stat;

use crate::cgroup::Layout;
use crate::sys;

/// The inode of the initial user namespace (PROC_USER_INIT_INO). The look of uid_map can't tell: systemd 260 makes
/// identity maps in namespaces of its own.
const INITIAL_USER_NAMESPACE: u64 = 0xefff_fffd;

/// What planning needs to know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Host {
    /// Whether this process is in the initial user namespace: outside it no device node can be made.
    pub(crate) initial_user_namespace: bool,
    pub(crate) euid: u32,
    pub(crate) cgroups: Layout,
    /// Signals this process ignores, as a mask (bit n-1 is signal n): an ignored signal stays ignored over exec.
    pub(crate) ignored_signals: u64,
    /// The permitted capabilities of this process.
    pub(crate) capabilities: u64,
}

impl Host {
    pub(crate) fn probe() -> Result<Self> {
        let status = sys::read_small("/proc/self/status")?;
        let status = String::from_utf8_lossy(&status);
        Ok(Self {
            initial_user_namespace: in_initial_user_namespace(),
            euid: nix::unistd::geteuid().as_raw(),
            cgroups: Layout::probe()?,
            ignored_signals: mask(&status, "SigIgn:"),
            capabilities: mask(&status, "CapPrm:"),
        })
    }
}

/// Whether this process is in the initial user namespace.
pub(crate) fn in_initial_user_namespace() -> bool {
    stat("/proc/self/ns/user").is_ok_and(|user| user.st_ino == INITIAL_USER_NAMESPACE)
}

/// A hexadecimal mask of /proc/PID/status.
fn mask(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| u64::from_str_radix(value.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read_from_their_own_line() {
        let status = "Name:\tx\nSigIgn:\t0000000000001000\nCapPrm:\t000001fffeffffff\n";
        assert_eq!(mask(status, "SigIgn:"), 1 << 12);
        assert_eq!(mask(status, "CapPrm:"), 0x1ff_feff_ffff);
        assert_eq!(mask(status, "CapBnd:"), 0);
    }
}
