//! `delete`: stops what is left, removes the cgroup and the folder, runs the poststop hooks.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::hooks;
use crate::cgroup;
use crate::init::own_environment;
use crate::spec::Hook;
use crate::state::{Folder, Identity, Lock, Record, Status};
use crate::sys::Context;

/// How long a killed process may take to end: it may be in an uninterruptible system call.
const PATIENCE_MS: u16 = 10_000;

/// Kills every process of a container and waits until its init is gone.
pub(crate) fn stop(record: &Record) -> Result<()> {
    if let Some(init) = record.init {
        kill_and_wait(init)?;
    }
    // Without a pid namespace of its own the rest of the container doesn't die with its init.
    if !record.own_pid_namespace || record.init.is_none() {
        cgroup::open(&record.cgroup)?.kill()?;
    }
    Ok(())
}

fn kill_and_wait(init: Identity) -> Result<()> {
    let Some(pidfd) = init.pidfd()? else { return Ok(()) };
    match crate::sys::clone::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL) {
        Err(error) if error.errno() == Errno::ESRCH => return Ok(()),
        result => result?,
    }
    if !wait_for(&pidfd)? {
        bail!("container init (process {}) is still there {} s after SIGKILL", init.pid, PATIENCE_MS / 1000);
    }
    Ok(())
}

/// Waits until a process has ended; false when it takes too long.
pub(crate) fn wait_for(pidfd: &OwnedFd) -> Result<bool> {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, PollTimeout::from(PATIENCE_MS)) {
            Err(Errno::EINTR) => {}
            result => return Ok(result.call("poll", "pidfd")? > 0),
        }
    }
}

/// Removes a container whose processes are gone or may be killed. The lock is held by the caller.
pub(crate) fn delete(folder: Folder, record: &Record, lock: Lock) -> Result<()> {
    stop(record)?;
    let poststop: Vec<Hook> = if record.poststop { poststop(&folder) } else { Vec::new() };
    cgroup::open(&record.cgroup)?.remove()?;
    folder.remove()?;
    drop(lock);
    // As the specification says: a failing hook is a warning, and never keeps a container alive.
    hooks::run_poststop(&poststop, &record.state(Status::Stopped), &own_environment());
    Ok(())
}

fn poststop(folder: &Folder) -> Vec<Hook> {
    match folder.config() {
        Ok(config) => config.hooks.poststop,
        Err(error) => {
            log::warn!("poststop hooks are not run: {error:#}");
            Vec::new()
        }
    }
}
