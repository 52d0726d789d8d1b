//! `start`: opens the gate and learns whether the program runs.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{delete, hooks};
use crate::error::phrase;
use crate::init::own_environment;
use crate::state::{Folder, Lock, Record, STARTING, Status};
use crate::sys::Context;

/// Starts a created container and runs its poststart hooks. Returns when the program runs.
///
/// A program that can't be executed is an error with its reason; the container is stopped then, as it is after a
/// poststart hook that failed (config.md, "Hooks").
pub(crate) fn start(folder: &Folder, record: &Record, lock: &Lock) -> Result<()> {
    let gate = match folder.status(record)? {
        Status::Created => folder.open_gate()?,
        Status::Stopped => bail!("{}: {:?}", phrase::START_STOPPED, record.id),
        Status::Running => None,
        other => bail!("cannot start a container in the {} state: {:?}", other.name(), record.id),
    };
    let Some(gate) = gate else { bail!("{}: {:?}", phrase::START_RUNNING, record.id) };
    let result = folder.open_result()?;
    nix::unistd::write(&gate, &[0]).call("write", "start gate")?;
    drop(gate);
    await_exec(&result)?;
    if record.poststart {
        let config = folder.config()?;
        let state = record.state(Status::Running);
        if let Err(error) = hooks::run(hooks::Kind::Poststart, &config.hooks.poststart, &state, &own_environment()) {
            delete::stop(record)?;
            return Err(error);
        }
    }
    let _ = lock;
    Ok(())
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
        [] => bail!("unable to start container process: it died before its program was executed"),
        [STARTING, rest @ ..] | rest => {
            Err(anyhow::anyhow!("{}", String::from_utf8_lossy(rest))).context("unable to start container process")
        }
    }
}
