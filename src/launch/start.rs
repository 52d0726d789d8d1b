//! `start`: opens the gate and learns whether the program runs.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;

use super::create::Created;
use super::hooks;
use super::notify::{Manager, Proxy, Sockets};
use super::supervise::Interrupt;
use crate::error::phrase;
use crate::state::{Folder, Identity, LONGEST_ERROR, Lock, Record, STARTING, STOPPED, Status};
use crate::sync::{Barrier, Heard};
use crate::sys::poll::{self, poll};
use crate::sys::{self, Context};

const DIED: &str = "unable to start container process: it died before its program was executed";

/// What is to be waited for after a start that a service manager has asked for.
#[derive(Debug)]
pub(crate) struct Notifying {
    proxy: Proxy,
    pidfd: OwnedFd,
}

impl Notifying {
    /// Waits until the container is ready, or has ended. Without the container's lock, as that may be for ever.
    pub(crate) fn wait(self) -> Result<()> {
        self.proxy.until_ready(self.pidfd.as_fd())
    }
}

/// Starts a container in whatever state it is. Returns when the program runs.
pub(crate) fn start(folder: &Folder, record: &Record, lock: &Lock) -> Result<Option<Notifying>> {
    let manager = Manager::connected()?;
    let gate = open_gate(folder, record, lock)?;
    let notifying = manager.map(|manager| notifying(manager, folder, record)).transpose()?;
    release(folder, record, gate).map(|()| notifying)
}

/// Before the program runs: what it says first must find a socket.
fn notifying(manager: Manager, folder: &Folder, record: &Record) -> Result<Notifying> {
    let sockets = Sockets::bind(manager, folder)?;
    let init = record.init.context(DIED)?;
    let pidfd = init.pidfd()?.context(DIED)?;
    Ok(Notifying { proxy: Proxy::new(sockets, init.pid.cast_unsigned()), pidfd })
}

/// [`start`] of a container that this very process has created: over the channel. Unless it is interrupted.
pub(crate) fn start_created(created: &Created, interrupt: Interrupt<'_>) -> Result<()> {
    let outside = &created.outside;
    outside.pass(Barrier::Start)?;
    let mut starting = false;
    // Nothing else lasts.
    if created.start_container {
        interrupt.wait(outside.as_fd())?;
    }
    loop {
        match outside.hear()? {
            Heard::Starting => starting = true,
            Heard::Closed if starting => return Ok(()),
            Heard::Closed => bail!(DIED),
            Heard::Failed(text) => bail!("unable to start container process: {text}"),
            other => bail!("internal error: unexpected message from the container process: {other:?}"),
        }
    }
}

fn open_gate(folder: &Folder, record: &Record, lock: &Lock) -> Result<OwnedFd> {
    let gate = match folder.status_locked(record, lock)? {
        Status::Created => folder.open_gate()?,
        Status::Stopped => bail!("{}: {:?}", phrase::START_STOPPED, record.id),
        Status::Running => None,
        other => bail!("cannot start a container in the {} state: {:?}", other.name(), record.id),
    };
    gate.with_context(|| format!("{}: {:?}", phrase::START_RUNNING, record.id))
}

/// Opens the gate and waits until the program runs; an error is why it doesn't.
fn release(folder: &Folder, record: &Record, gate: OwnedFd) -> Result<()> {
    let result = folder.open_result()?;
    nix::unistd::write(&gate, &[0]).call("write", "start gate")?;
    let said = await_exec(&result, record, &gate)?;
    match said.as_slice() {
        _ if said.as_slice() != [STARTING] && progress(record) == Progress::Executed => {
            log::debug!("the program runs, but somebody else has written to what tells how its start went");
        }
        [STARTING] => {}
        [] => bail!(DIED),
        [STARTING, rest @ ..] | rest => {
            let error = anyhow::anyhow!("{}", String::from_utf8_lossy(rest));
            return Err(error.context("unable to start container process"));
        }
    }
    if record.tells_execve { Ok(()) } else { await_closed(&gate) }
}

/// Waits until nobody reads the gate. execve closes it and the result one after the other, and where the kernel doesn't
/// tell of execve the status is derived from the gate: who asks after `start` shall not be told "created".
fn await_closed(gate: &OwnedFd) -> Result<()> {
    // No event but the one that is always told: POLLERR, when the last reader is gone.
    while poll([Some((gate.as_fd(), 0))], None)? == [false] {}
    Ok(())
}

/// How far the container's process has come, as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// It has not executed its program, or nothing tells whether it has.
    Waits,
    Executed,
    Gone,
}

fn progress(record: &Record) -> Progress {
    match record.init.and_then(Identity::seen) {
        None => Progress::Gone,
        Some(seen) if record.tells_execve && seen.has_not_executed() == Some(false) => Progress::Executed,
        Some(_) => Progress::Waits,
    }
}

/// Runs the poststart hooks, if there are any. If one fails, the container must be stopped and deleted (config.md, "Hooks").
///
/// Without the container's lock: they are programs of the host that may do anything, such as to call the runtime for
/// this very container, or take for ever.
pub(crate) fn poststart(folder: &Folder, record: &Record, interrupt: Interrupt<'_>) -> Result<()> {
    if !record.poststart {
        return Ok(());
    }
    let hooks = folder.config()?.hooks.poststart;
    let state = record.state(Status::Running);
    // A container that has ended meanwhile was started all the same.
    let until = hooks::Until { interrupt, container: None };
    hooks::run_until(until, hooks::Kind::Poststart, &hooks, &state, &sys::environment::own())
}

/// How often the process itself is looked at while nothing is heard from it.
const LOOK: Duration = Duration::from_millis(100);

/// Reads the result to its end: the process closes it by executing its program, or by dying. Returns what it has said.
///
/// A process in the container may have got hold of both FIFOs: it could keep the result open, and read what was written to
/// the gate. So the process is looked at, too, and the gate opened again. Before its program is executed a hook may run as
/// long as it wants to.
fn await_exec(result: &OwnedFd, record: &Record, gate: &OwnedFd) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    let mut now = Progress::Waits;
    loop {
        match nix::unistd::read(result, &mut buffer) {
            Ok(0) => return Ok(text),
            Ok(length) => text.extend_from_slice(&buffer[..length]),
            // Looked at before this read, so that nothing that the process has said is missed.
            Err(Errno::EAGAIN) if now == Progress::Executed => return Ok(vec![STARTING]),
            Err(Errno::EAGAIN) if now == Progress::Gone => return Ok(text),
            Err(Errno::EAGAIN) => {
                if poll([Some((result.as_fd(), poll::IN))], Some(LOOK))? == [false] {
                    now = progress(record);
                    // By somebody who shares its pid namespace.
                    if let Some(init) = record.init.filter(|init| init.letter() == Some(STOPPED)) {
                        init.signal(libc::SIGCONT)?;
                    }
                    // A full FIFO has been opened well enough.
                    let _ = nix::unistd::write(gate, &[0]);
                }
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).call("read", "start result").map_err(Into::into),
        }
        if text.len() > LONGEST_ERROR {
            return Ok(text);
        }
    }
}
