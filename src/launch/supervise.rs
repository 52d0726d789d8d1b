//! `run` in the foreground: forwards signals, relays a terminal, reaps, and learns how the payload ended.

use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::{Result, bail};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;

use crate::sys::clone::Ended;

/// Blocks every signal and returns the descriptor they are read from. Called before the clone.
pub(crate) fn block_signals() -> Result<SignalFd> {
    bail!("not implemented")
}

/// A container process, a child of this one, and what `run` holds for it.
#[derive(Debug)]
pub(crate) struct Foreground<'a> {
    pub(crate) pidfd: BorrowedFd<'a>,
    pub(crate) pid: Pid,
    pub(crate) signals: SignalFd,
    /// The terminal's master, with `process.terminal`.
    pub(crate) master: Option<OwnedFd>,
}

/// Stays with the container process until it ends, reaps it, and returns how it ended.
pub(crate) fn supervise(foreground: Foreground<'_>) -> Result<Ended> {
    let _ = foreground;
    bail!("not implemented")
}

/// The exit status of a foreground `run`: the payload's own, or 128 and the signal's number.
pub(crate) fn exit_status(ended: Ended) -> i32 {
    match ended {
        Ended::Exited(status) => status,
        Ended::Signaled(signal) => 128 + signal,
    }
}
