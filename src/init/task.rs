//! What every process of a container does to itself at the end, whether `create` or `exec` has brought it there.

use std::convert::Infallible;
use std::ffi::CString;

use anyhow::{Context as _, Result};
use nix::sys::stat::{Mode, umask};

use super::{exec, identity};
use crate::plan::task::Task;
use crate::sys::clone::CStrings;
use crate::sys::{self, process};

/// What waits at the gate.
#[derive(Debug)]
pub(super) struct Ready {
    file: CString,
    argv: CStrings,
    pub(super) envp: CStrings,
}

/// Becomes the program's user with its capabilities, and finds its file.
pub(super) fn assume(task: &Task) -> Result<Ready> {
    let identity = &task.identity;
    umask(Mode::from_bits_truncate(identity.umask));
    if let Some(name) = &task.keyring {
        identity::join_keyring(name, task.user_namespace)?;
    }
    if let Some(personality) = task.limits.personality {
        process::personality(personality).context("config.json: /linux/personality")?;
    }
    identity::own_stdio(identity.uid)?;
    if identity.no_new_privileges {
        process::set_no_new_privs()?;
    } else {
        // Without no_new_privs only a process with CAP_SYS_ADMIN may load a filter: now, while it has it.
        load_filter(task)?;
    }
    let envp = exec::environment(&task.program, identity.uid);
    let cwd = exec::enter_cwd(&task.program)?;
    if !task.user_namespace {
        // While the process still has the host's rights. With a user namespace the outside has them, and does it.
        set_rlimits(task)?;
    }
    identity::assume(identity, task.user_namespace)?;
    if cwd == exec::Cwd::AsUser {
        exec::enter_cwd_as_user(&task.program)?;
    }
    identity::set_capabilities(identity)?;
    Ok(Ready {
        file: exec::resolve(&task.program)?,
        argv: CStrings::new(task.program.args.clone()),
        envp: CStrings::new(envp),
    })
}

fn set_rlimits(task: &Task) -> Result<()> {
    for (index, limit) in task.limits.rlimits.iter().enumerate() {
        process::prlimit(0, limit.resource, limit.soft, limit.hard)
            .with_context(|| format!("config.json: /process/rlimits/{index}"))?;
    }
    Ok(())
}

fn load_filter(task: &Task) -> Result<()> {
    match &task.seccomp {
        Some(filter) => sys::seccomp::load(filter).context("config.json: /linux/seccomp"),
        None => Ok(()),
    }
}

/// Becomes the program. `announce` says that the next thing is execve.
pub(super) fn execute(task: &Task, ready: &Ready, announce: impl FnOnce() -> Result<()>) -> Result<Infallible> {
    reset_signals(task)?;
    for fd in 3..3 + task.preserve_fds {
        sys::fs::set_cloexec(fd.cast_signed(), false)?;
    }
    announce()?;
    if task.identity.no_new_privileges {
        // The very last step: a profile needs to allow nothing but execve for the runtime's sake.
        load_filter(task)?;
    }
    Err(exec::exec(&ready.file, &ready.argv, &ready.envp))
}

/// Signals that this process ignores or blocks would stay so over exec (crun#2058: SIGPIPE).
fn reset_signals(task: &Task) -> Result<()> {
    for signal in (1..=64).filter(|signal| task.ignored_signals >> (signal - 1) & 1 == 1) {
        process::signal_default(signal);
    }
    Ok(process::unblock_all()?)
}
