//! `tare kill`.

use std::os::fd::AsFd;

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::unistd::Pid;

use crate::cgroup;
use crate::cli::{Global, KillArgs};
use crate::error::phrase;
use crate::state::{Folder, Record};
use crate::sys::clone::{pidfd_open, signal_process};

pub(crate) fn run(global: &Global, args: KillArgs) -> Result<i32> {
    let folder = Folder::open(&global.root, args.id.as_str())?;
    let record = folder.record()?;
    // Without a pid namespace of its own, killing init alone would leave the rest behind (shared pid namespaces).
    let everyone = args.all || (args.signal == libc::SIGKILL && !record.own_pid_namespace);
    let mut reached = false;
    if everyone {
        reached = signal_all(&record, args.signal)?;
    }
    if !reached && let Some(init) = record.init {
        reached = init.signal(args.signal)?;
    }
    if reached && args.signal == libc::SIGKILL {
        thaw_the_killed(&record)?;
    }
    if !reached && !args.all {
        bail!("{}: {:?}", phrase::NOT_RUNNING, record.id);
    }
    Ok(0)
}

/// On cgroup v1 a killed process in a frozen cgroup stays until it is thawed, which killing all of it does (as runc).
fn thaw_the_killed(record: &Record) -> Result<()> {
    let cgroup = cgroup::open(&record.cgroup)?;
    if cgroup.frozen_to_signals()? { cgroup.kill() } else { Ok(()) }
}

/// Signals every process in the container's cgroup; false when there is none.
fn signal_all(record: &Record, signal: i32) -> Result<bool> {
    let cgroup = cgroup::open(&record.cgroup)?;
    let pids = cgroup.pids()?;
    if signal == libc::SIGKILL && !pids.is_empty() {
        cgroup.kill()?;
        return Ok(true);
    }
    let mut reached = false;
    for pid in pids {
        reached |= signal_one(&*cgroup, pid, signal)?;
    }
    Ok(reached)
}

/// The pid may have been recycled since the list was read: it counts only if it is still in the cgroup once the pidfd
/// is open.
fn signal_one(cgroup: &dyn cgroup::Cgroup, pid: Pid, signal: i32) -> Result<bool> {
    let pidfd = match pidfd_open(pid) {
        // A threaded cgroup lists threads: the process they are of is in the list above them.
        Err(error) if matches!(error.errno(), Errno::ESRCH | Errno::EINVAL | Errno::ENOENT) => return Ok(false),
        // Then the list is all there is to go by.
        Err(error) if error.errno() == Errno::ENOSYS => None,
        pidfd => Some(pidfd?),
    };
    if !cgroup.pids()?.contains(&pid) {
        return Ok(false);
    }
    match signal_process(pid, pidfd.as_ref().map(AsFd::as_fd), signal) {
        Err(error) if error.errno() == Errno::ESRCH => Ok(false),
        sent => sent.map(|()| true).map_err(Into::into),
    }
}
