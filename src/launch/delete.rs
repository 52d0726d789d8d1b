//! `delete`: stops what is left, removes the cgroup and the folder, runs the poststop hooks.

use std::time::Duration;

use anyhow::{Result, bail};

use super::hooks;
use crate::cgroup::{self, Removal};
use crate::spec::Hook;
use crate::state::{Folder, Identity, LONG_PATIENCE, Lock, Phase, Record, Status};
use crate::sys::environment;

/// How long a killed process may take to end: it may be in an uninterruptible system call.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Kills every process of a container and waits until its init is gone.
pub(crate) fn stop(record: &Record) -> Result<()> {
    let cgroup = cgroup::open(&record.cgroup)?;
    // On cgroup v1 nothing in a frozen cgroup, the container's or one that it made, dies before it is thawed, which
    // killing all of it does.
    if record.init.is_some_and(Identity::alive) && cgroup.frozen_to_signals()? {
        cgroup.kill()?;
    }
    match record.init {
        Some(init) => kill_and_wait(init)?,
        // Not known yet: the creation that goes on is ended by the end of what it has made.
        None if record.phase == Phase::Creating && record.creator.alive() => {
            record.creator.kill_children(record.made)?
        }
        None => {}
    }
    // Without a pid namespace of its own the rest of the container doesn't die with its init.
    if !record.own_pid_namespace || record.init.is_none() {
        cgroup.kill()?;
    }
    Ok(())
}

fn kill_and_wait(init: Identity) -> Result<()> {
    if init.signal(libc::SIGKILL)? && !init.wait(PATIENCE)? {
        bail!("container init (process {}) is still there {} s after SIGKILL", init.pid, PATIENCE.as_secs());
    }
    Ok(())
}

/// Removes a container whose processes are gone or may be killed. The lock is held by the caller.
pub(crate) fn delete(folder: Folder, record: &Record, lock: Lock) -> Result<()> {
    stop(record)?;
    remove(folder, record, lock, Removal::Later)
}

/// [`delete`] of a container whose init this process has reaped.
pub(crate) fn delete_ended(folder: Folder, record: &Record, lock: Lock) -> Result<()> {
    if !record.own_pid_namespace {
        cgroup::open(&record.cgroup)?.kill()?;
    }
    remove(folder, record, lock, Removal::AtItsEnd)
}

fn remove(folder: Folder, record: &Record, lock: Lock, when: Removal) -> Result<()> {
    let poststop: Vec<Hook> = if record.poststop { poststop(&folder) } else { Vec::new() };
    let removed = cgroup::open(&record.cgroup).and_then(|mut cgroup| cgroup.remove(when));
    let removed = match removed {
        Ok(()) => folder.remove(),
        // The container has ended all the same, and what its hooks clean up is not to wait for another attempt. That one
        // doesn't run them again.
        Err(error) if !poststop.is_empty() => {
            Err(folder.write(&Record { poststop: false, ..record.clone() }).err().unwrap_or(error))
        }
        Err(error) => Err(error),
    };
    if poststop.is_empty() {
        // The command ends with it, as a rule, and the kernel closes it then.
        lock.leave();
        return removed;
    }
    drop(lock);
    // As the specification says: a failing hook is a warning, and never keeps a container alive.
    hooks::run_poststop(&poststop, &record.state(Status::Stopped), &environment::own());
    removed
}

/// [`delete`] of a container that failed: the failure is what the caller is told.
pub(crate) fn delete_after_failure(folder: Folder, record: &Record, lock: Lock) {
    if let Err(error) = delete(folder, record, lock) {
        log::warn!("container {:?}: clean up after the failure: {error:#}", record.id);
    }
}

/// [`delete_after_failure`] of a container that others may have changed meanwhile, or deleted.
pub(crate) fn delete_failed(folder: Folder, record: &Record) {
    match folder.lock_existing(LONG_PATIENCE) {
        Ok(Some(lock)) => delete_after_failure(folder, record, lock),
        Ok(None) => {}
        Err(error) => log::warn!("container {:?}: clean up after the failure: {error:#}", record.id),
    }
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
