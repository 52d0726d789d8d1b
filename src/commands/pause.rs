//! `tare pause`.
//!
//! Whatever ends it before every process is frozen thaws them again: a failure and a signal do so here; after a SIGKILL
//! the mark that is made first tells the next command that asks for the status to do it.

use std::os::fd::AsFd;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::cgroup;
use crate::cli::{Global, PauseArgs};
use crate::error::phrase;
use crate::state::{Folder, Status};
use crate::sys::Context as _;

pub(crate) fn run(global: &Global, args: PauseArgs) -> Result<i32> {
    let folder = Folder::open(&global.root, args.id.as_str())?;
    let lock = folder.lock()?;
    let record = folder.record()?;
    match folder.status_locked(&record, &lock)? {
        Status::Created | Status::Running => (),
        Status::Paused => bail!("{}: {:?} is paused already", phrase::NOT_RUNNING, record.id),
        other => bail!("{}: {:?} is {}", phrase::NOT_RUNNING, record.id, other.name()),
    }
    let signals = catch_endings()?;
    let cgroup = cgroup::open(&record.cgroup)?;
    folder.mark_pausing()?;
    let frozen = cgroup.freeze(signals.as_fd()).with_context(|| format!("pause container {:?}", record.id));
    folder.clear_pausing()?;
    frozen.map(|()| 0)
}

/// Blocks the signals that people and engines end a command with; the descriptor they are read from.
fn catch_endings() -> Result<SignalFd> {
    let endings = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGALRM];
    let set: SigSet = endings.into_iter().collect();
    set.thread_block().call("sigprocmask", "")?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).call("signalfd", "")?)
}
