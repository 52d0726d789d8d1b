//! What the kernel tells of a process.

use nix::unistd::Pid;

use super::Identity;

/// What is of interest in /proc/PID/stat (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Field 3, a letter.
    pub(super) state: u8,
    /// Field 9, PF_* of the kernel's include/linux/sched.h.
    pub(super) flags: u64,
    /// Field 22.
    pub(super) start_time: u64,
}

impl Stat {
    /// Whether the process was made by fork(2) or the like and has not executed a program since. A process that has can't
    /// get the flag back, and nothing that it, or another one in its container, holds open keeps it.
    pub(crate) fn has_not_executed(self) -> bool {
        const PF_FORKNOEXEC: u64 = 0x40;
        self.flags & PF_FORKNOEXEC != 0
    }

    /// Whose this is; `None` of a zombie.
    pub(super) fn identity(self, pid: Pid) -> Option<Identity> {
        (!matches!(self.state, b'Z' | b'X')).then_some(Identity { pid: pid.as_raw(), start_time: self.start_time })
    }
}

/// The name in field 2 may hold anything.
pub(super) fn parse_stat(stat: &[u8]) -> Option<Stat> {
    let after = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(after + 2..)?).ok()?;
    let mut fields = rest.split(' ');
    let state = *fields.next()?.as_bytes().first()?;
    let flags = fields.nth(5)?.parse().ok()?;
    Some(Stat { state, flags, start_time: fields.nth(12)?.parse().ok()? })
}
