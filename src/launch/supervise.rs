//! `run` in the foreground: forwards signals, relays a terminal, reaps, and learns how the payload ended.
//!
//! One poll loop over the payload's pidfd, a signalfd and the relay's streams: nothing here wakes up without a cause.
//! Every signal is blocked from before the clone, so none is lost and none ends the runtime with the terminal raw.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::notify::Proxy;
use crate::error::Interrupted;
use crate::sys::Context as _;
use crate::sys::clone::{Ended, peek_ended, reap, reap_any, signal_child, wait};
use crate::sys::poll::{self, poll};
use crate::sys::process::{every_signal, signal_ignored, signals_pending};

use super::tty::{self, Raw};
use relay::Relay;

mod relay;
#[cfg(test)]
mod tests;

/// Blocks every signal and returns the descriptor they are read from. Called before the clone, which inherits the mask:
/// the container process empties it before it executes anything.
pub(crate) fn block_signals() -> Result<SignalFd> {
    block_and_hear(&every_signal())
}

/// [`block_signals`], but only those that ask the runtime to end can be read, until [`hear_all`].
pub(crate) fn block_signals_but_to_end() -> Result<SignalFd> {
    block_and_hear(&TO_END.into_iter().collect())
}

/// Lets every signal be read: those that came before, too.
pub(crate) fn hear_all(signals: &mut SignalFd) -> Result<()> {
    Ok(signals.set_mask(&every_signal()).call("signalfd", "all")?)
}

fn block_and_hear(set: &SigSet) -> Result<SignalFd> {
    every_signal().thread_block().call("sigprocmask", "all")?;
    Ok(SignalFd::with_flags(set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).call("signalfd", "all")?)
}

/// The signals that ask a program to end.
const TO_END: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// Whether a foreground `run` was asked to end while it still makes the container. The default is never.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Interrupt<'a>(Option<&'a SignalFd>);

impl<'a> Interrupt<'a> {
    /// By signals that [`block_signals_but_to_end`] returned.
    pub(crate) fn by(signals: &'a SignalFd) -> Self {
        Self(Some(signals))
    }

    /// What to poll for.
    pub(crate) fn interest(self) -> Option<(BorrowedFd<'a>, i16)> {
        self.0.map(|signals| (signals.as_fd(), poll::IN))
    }

    /// An error if it has come. What the caller ignores (nohup(1), a shell's job in the background) is none: blocked, it
    /// is queued all the same.
    pub(crate) fn check(self) -> Result<()> {
        let received = self.0.map(pending).unwrap_or_default();
        match received.into_iter().find(|received| !signal_ignored(received.number)) {
            Some(Received { number, .. }) => Err(Interrupted { signal: number }.into()),
            None => Ok(()),
        }
    }

    /// Waits until a descriptor can be read; an error if that takes until the interrupt comes.
    pub(crate) fn wait(self, fd: BorrowedFd<'_>) -> Result<()> {
        while self.0.is_some() {
            match poll([self.interest(), Some((fd, poll::IN))], None)? {
                [true, _] => self.check()?,
                [_, true] => break,
                _ => {}
            }
        }
        Ok(())
    }
}

impl Interrupt<'_> {
    /// [`Self::wait`] for what a process may say; false if it ends without a word.
    pub(crate) fn wait_unless_ended(self, fd: BorrowedFd<'_>, process: BorrowedFd<'_>) -> Result<bool> {
        loop {
            // In this order: what it said before its end is there when the end is.
            let wanted = [self.interest(), Some((process, poll::IN)), Some((fd, poll::IN))];
            let [interrupted, ended, said] = poll(wanted, None)?;
            if interrupted {
                self.check()?;
            }
            if said || ended {
                return Ok(said);
            }
        }
    }
}

/// An error if a blocked signal waits that asks this process to end. Nothing is taken: who supervises reads all of them.
pub(crate) fn asked_to_end() -> Result<()> {
    let waiting = signals_pending()?;
    match TO_END.into_iter().find(|signal| waiting.contains(*signal) && !signal_ignored(*signal as i32)) {
        Some(signal) => Err(Interrupted { signal: signal as i32 }.into()),
        None => Ok(()),
    }
}

/// A container process, a child of this one, and what `run` holds for it.
#[derive(Debug)]
pub(crate) struct Foreground<'a> {
    pub(crate) pidfd: BorrowedFd<'a>,
    pub(crate) pid: Pid,
    pub(crate) signals: SignalFd,
    /// The terminal's master from [`tty::receive`], with `process.terminal`.
    pub(crate) master: Option<OwnedFd>,
    /// Whether the container's orphans become children of this process.
    pub(crate) subreaper: bool,
    /// Passes on what the container says to the service manager.
    pub(crate) notify: Option<Proxy>,
}

/// Stays with the container process until it ends, reaps it, and returns how it ended. Other children (a subreaper's
/// orphans) are reaped on the way; those that are still alive at the end stay.
pub(crate) fn supervise(foreground: Foreground<'_>) -> Result<Ended> {
    let Foreground { pidfd, pid, signals, master, subreaper, mut notify } = foreground;
    let terminal = master.is_some();
    let mut relay = master.map(Relay::new).transpose()?;
    // Restored by its drop on every way out of here.
    let _raw = if terminal { Raw::stdin()? } else { None };
    loop {
        let [input, output, master] = relay.as_ref().map_or([None; 3], Relay::interest);
        let fixed = [(pidfd, poll::IN), (signals.as_fd(), poll::IN)].map(Some);
        let said = notify.as_ref().map(Proxy::interest);
        let [ended, signal, said, streams @ ..] = poll([fixed[0], fixed[1], said, input, output, master], None)?;
        // At the end nothing is left to forward to, and what is to be reaped is reaped below.
        if signal && !ended {
            for signal in pending(&signals) {
                handle(signal, pidfd, pid, relay.as_ref());
            }
        }
        if ended {
            break;
        }
        if let Some(relay) = &mut relay {
            relay.turn(streams);
        }
        if let Some(notify) = notify.as_mut().filter(|_| said) {
            notify.turn();
        }
    }
    let ended = wait(pid)?;
    notify.iter_mut().for_each(Proxy::finish);
    // The payload's status is safe: what is left are orphans.
    while subreaper && reap_any().is_some() {}
    if let Some(relay) = &mut relay {
        finish(relay, &signals)?;
    }
    // The process is about to end, and the kernel closes what is left.
    std::mem::forget(signals);
    Ok(ended)
}

/// A signal that came, and the process that caused it (as this one numbers it).
#[derive(Debug, Clone, Copy)]
struct Received {
    number: i32,
    sender: u32,
}

/// What has come so far. A read that doesn't fill the buffer has taken all.
fn pending(signals: &SignalFd) -> Vec<Received> {
    /// `struct signalfd_siginfo`: its size, and where the signal's number and the sender's pid are (signalfd(2)).
    const SIZE: usize = 128;
    const SENDER: usize = 12;
    let mut found = Vec::new();
    loop {
        let mut buffer = [0; 8 * SIZE];
        let length = nix::unistd::read(signals, &mut buffer).unwrap_or(0);
        for info in buffer[..length].chunks_exact(SIZE) {
            let field =
                |at: usize| info.get(at..at + 4).and_then(|bytes| Some(u32::from_ne_bytes(bytes.try_into().ok()?)));
            if let (Some(number), Some(sender)) = (field(0), field(SENDER)) {
                found.push(Received { number: number.cast_signed(), sender });
            }
        }
        if length < buffer.len() {
            return found;
        }
    }
}

/// As runc does: all go to the payload but the few that are about this process itself.
fn handle(signal: Received, pidfd: BorrowedFd<'_>, init: Pid, relay: Option<&Relay>) {
    match signal.number {
        libc::SIGCHLD => reap_orphans(init),
        libc::SIGWINCH => {
            if let Some(relay) = relay {
                tty::copy_size(relay.master());
            }
        }
        // Go's runtime sends SIGURG to its own threads, and runc forwards none since; nobody relies on it.
        libc::SIGURG => {}
        // Of a write of ours: a blocked signal is queued even when it is ignored.
        libc::SIGPIPE if signal.sender == std::process::id() => {}
        number => match signal_child(init, pidfd, number) {
            Err(error) if error.errno() != Errno::ESRCH => log::warn!("forward a signal to the container: {error}"),
            _ => {}
        },
    }
}

/// Reaps what has ended, except the container process, which its pidfd reports.
fn reap_orphans(init: Pid) {
    while let Some(pid) = peek_ended().filter(|pid| *pid != init) {
        reap(pid);
    }
}

/// Writes out what the terminal still holds. A reader that stalls is waited for, as any program would that writes to
/// it, until somebody asks the runtime to end.
fn finish(relay: &mut Relay, signals: &SignalFd) -> Result<()> {
    while relay.drain() {
        let [_, output, _] = relay.interest();
        let [signal, output] = poll([Some((signals.as_fd(), poll::IN)), output], None)?;
        if signal && pending(signals).into_iter().any(asks_to_end) {
            return Ok(());
        }
        relay.turn([false, output, false]);
    }
    Ok(())
}

fn asks_to_end(signal: Received) -> bool {
    TO_END.into_iter().any(|asks| asks as i32 == signal.number)
}

/// The exit status of a foreground `run`: the payload's own, or 128 and the signal's number.
pub(crate) fn exit_status(ended: Ended) -> i32 {
    match ended {
        Ended::Exited(status) => status,
        Ended::Signaled(signal) => 128 + signal,
    }
}
