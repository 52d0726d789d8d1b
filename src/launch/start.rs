//! `start`: opens the gate and learns whether the program runs.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::create::Created;
use super::hooks;
use crate::error::phrase;
use crate::init::own_environment;
use crate::state::{Folder, Record, STARTING, Status};
use crate::sync::{Barrier, Heard};
use crate::sys::Context;

const DIED: &str = "unable to start container process: it died before its program was executed";

/// What kept a container from being started.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It wasn't there to be started, or its program can't be executed: it is as it is, or stopped.
    Start(anyhow::Error),
    /// A poststart hook failed: the container must be stopped and deleted (config.md, "Hooks").
    Poststart(anyhow::Error),
}

/// Starts a container in whatever state it is, with its poststart hooks. Returns when the program runs.
pub(crate) fn start(folder: &Folder, record: &Record) -> Result<(), Failure> {
    open_gate(folder, record).and_then(|gate| release(folder, gate)).map_err(Failure::Start)?;
    poststart(folder, record).map_err(Failure::Poststart)
}

/// [`start`] of a container that this very process has created: over the channel.
pub(crate) fn start_created(created: &Created) -> Result<()> {
    let Created { folder, record, outside, .. } = created;
    outside.pass(Barrier::Start)?;
    let mut starting = false;
    loop {
        match outside.hear()? {
            Heard::Starting => starting = true,
            Heard::Closed if starting => break,
            Heard::Closed => bail!(DIED),
            Heard::Failed(text) => bail!("unable to start container process: {text}"),
            other => bail!("internal error: unexpected message from the container process: {other:?}"),
        }
    }
    poststart(folder, record)
}

fn open_gate(folder: &Folder, record: &Record) -> Result<OwnedFd> {
    let gate = match folder.status(record)? {
        Status::Created => folder.open_gate()?,
        Status::Stopped => bail!("{}: {:?}", phrase::START_STOPPED, record.id),
        Status::Running => None,
        other => bail!("cannot start a container in the {} state: {:?}", other.name(), record.id),
    };
    gate.with_context(|| format!("{}: {:?}", phrase::START_RUNNING, record.id))
}

/// Opens the gate and waits until the program runs; an error is why it doesn't.
fn release(folder: &Folder, gate: OwnedFd) -> Result<()> {
    let result = folder.open_result()?;
    nix::unistd::write(&gate, &[0]).call("write", "start gate")?;
    drop(gate);
    await_exec(&result)
}

fn poststart(folder: &Folder, record: &Record) -> Result<()> {
    if !record.poststart {
        return Ok(());
    }
    let hooks = folder.config()?.hooks.poststart;
    hooks::run(hooks::Kind::Poststart, &hooks, &record.state(Status::Running), &own_environment())
}

/// Reads the result to its end: the process closes it by executing its program, or by dying.
fn await_exec(result: &OwnedFd) -> Result<()> {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match nix::unistd::read(result, &mut buffer) {
            Ok(0) => break,
            Ok(length) => text.extend_from_slice(&buffer[..length]),
            Err(Errno::EAGAIN) => {
                let mut fds = [PollFd::new(result.as_fd(), PollFlags::POLLIN)];
                match poll(&mut fds, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno).call("poll", "start result").map_err(Into::into),
                }
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).call("read", "start result").map_err(Into::into),
        }
    }
    match text.as_slice() {
        [STARTING] => Ok(()),
        [] => bail!(DIED),
        [STARTING, rest @ ..] | rest => {
            Err(anyhow::anyhow!("{}", String::from_utf8_lossy(rest))).context("unable to start container process")
        }
    }
}
