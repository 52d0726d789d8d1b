//! What every process of a container does to itself at the end, whether `create` or `exec` has brought it there.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};

use super::identity::Hidden;
use super::{exec, identity};
use crate::launch::process::limit_refused;
use crate::lsm::Attributes;
use crate::plan::task::Task;
use crate::sync::Inside;
use crate::sys::clone::CStrings;
use crate::sys::{self, Context, process};

/// What waits at the gate.
#[derive(Debug)]
pub(super) struct Ready {
    file: CString,
    argv: CStrings,
    pub(super) envp: CStrings,
    /// Whether the filter is loaded.
    filtered: bool,
    /// What the outside fetches on the way to the barrier after this, and nobody needs later.
    pub(super) listener: Option<OwnedFd>,
}

/// Becomes the program's user with its capabilities, and finds its file.
///
/// `early`: a program that can't be executed is an error now, and not only when it is.
pub(super) fn assume(
    task: &Task,
    mut labels: Attributes,
    outside: &Inside,
    early: bool,
    hidden: Hidden,
) -> Result<Ready> {
    let identity = &task.identity;
    if let Some(mask) = identity.umask {
        umask(Mode::from_bits_truncate(mask));
    }
    // The caller may be pinned (systemd's CPUAffinity): the container is bound by its cpuset alone, as in runc.
    if !task.keeps_affinity
        && let Err(error) = process::sched_setaffinity(0, &[u64::MAX; 128])
    {
        log::debug!("CPU affinity stays the caller's: {error}");
    }
    // Nothing is logged from here on, and a filter may not let the log be closed later.
    crate::log::close_inside();
    if let Some(name) = &task.keyring {
        let new = task.new_keyring.then_some(task.user_namespace);
        labels.for_keys(&task.labels, || identity::join_keyring(name, new))?;
    }
    if let Some(personality) = task.limits.personality {
        process::personality(personality).context("config.json: /linux/personality")?;
    }
    identity::own_stdio(identity.uid, task.streams)?;
    labels.set(&task.labels)?;
    if identity.no_new_privileges {
        process::set_no_new_privs()?;
    }
    let envp = exec::environment(&task.program, identity.uid)?;
    let cwd = exec::enter_cwd(&task.program)?;
    if !task.user_namespace {
        // While the process still has the host's rights. With a user namespace the outside has them, and does it.
        set_rlimits(task)?;
    }
    identity::assume(identity, task.user_namespace, hidden)?;
    if cwd == exec::Cwd::AsUser {
        exec::enter_cwd_as_user(&task.program)?;
    }
    let order = Order::of(task);
    if order == Order::BeforeCapabilities {
        identity::set_capabilities_to_filter(identity)?;
    } else {
        identity::set_capabilities(identity)?;
    }
    let file = match task.program.args.first() {
        Some(path) if !early && path.to_bytes().contains(&b'/') => path.clone(),
        _ => exec::resolve(&task.program)?,
    };
    let argv = CStrings::new(task.program.args.clone());
    reset_signals(task)?;
    let mut listener = None;
    match order {
        Order::BeforeCapabilities => {
            listener = load_filter(task, outside)?;
            identity::give_up_filtering(identity)?;
        }
        // Not as late as without a listener: whoever hands that over may be gone when the program is started.
        Order::AtLast if task.listener.is_some() => listener = load_filter(task, outside)?,
        Order::AtLast => {}
    }
    let filtered = task.seccomp.is_some() && (order != Order::AtLast || task.listener.is_some());
    Ok(Ready { file, argv, envp: CStrings::new(envp), filtered, listener })
}

/// When the filter is loaded. A profile needs to allow nothing for the runtime's sake that could have been done before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// With no_new_privs no right is needed for it.
    AtLast,
    /// Without, it takes CAP_SYS_ADMIN, which the process keeps until then and gives up right after.
    BeforeCapabilities,
}

impl Order {
    fn of(task: &Task) -> Self {
        if task.identity.no_new_privileges || task.seccomp.is_none() { Self::AtLast } else { Self::BeforeCapabilities }
    }
}

fn set_rlimits(task: &Task) -> Result<()> {
    for (index, limit) in task.limits.rlimits.iter().enumerate() {
        process::prlimit(0, limit.resource, limit.soft, limit.hard)
            .map_err(|error| limit_refused(error, limit))
            .with_context(|| format!("config.json: /process/rlimits/{index}"))?;
    }
    Ok(())
}

/// Whether the filter lets this process look for the cause of a failure: one that might end it would take the message
/// with it.
fn may_look(task: &Task) -> bool {
    !task.seccomp.as_ref().is_some_and(|filter| filter.deadly)
}

/// Loads the filter. Its listener, if it has one, is fetched from this process by the outside: handing it over takes no
/// system call from here, so that a profile may notify about any.
fn load_filter(task: &Task, outside: &Inside) -> Result<Option<OwnedFd>> {
    let Some(filter) = &task.seccomp else { return Ok(None) };
    let number = if filter.notifies() { Some(next_descriptor()?) } else { None };
    if let Some(number) = number {
        outside.listener(number)?;
    }
    let loaded = sys::seccomp::load(filter);
    let listener = match loaded {
        Err(error) if error.errno() == Errno::EINVAL && filter.waits_killable() => {
            Err(error).context("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs Linux 5.19")
        }
        loaded => loaded.map_err(Into::into),
    }
    .context("config.json: /linux/seccomp")?;
    if listener.as_ref().map(AsRawFd::as_raw_fd) != number {
        bail!("internal error: the seccomp listener is another descriptor than was told");
    }
    Ok(listener)
}

/// The number that the next new descriptor of this process has: the lowest that is free.
fn next_descriptor() -> Result<i32> {
    let probe = nix::unistd::dup(sys::fs::borrow(0)).call("dup", "standard input")?;
    Ok(probe.as_raw_fd())
}

/// Loads the filter, unless it is loaded already.
pub(super) fn filter(task: &Task, ready: &mut Ready, outside: &Inside) -> Result<()> {
    if !ready.filtered {
        load_filter(task, outside)?;
        ready.filtered = true;
    }
    Ok(())
}

/// Becomes the program. `announce` says that the next thing is execve.
pub(super) fn execute(
    task: &Task,
    ready: &mut Ready,
    outside: &Inside,
    announce: impl FnOnce() -> Result<()>,
) -> Result<Infallible> {
    for fd in &task.preserved {
        sys::fs::set_cloexec(*fd, false)?;
    }
    announce()?;
    // The very last step: a profile needs to allow nothing but execve for the runtime's sake.
    filter(task, ready, outside)?;
    Err(exec::exec(&ready.file, &ready.argv, &ready.envp, may_look(task)))
}

/// Signals that this process ignores or blocks would stay so over exec (crun#2058: SIGPIPE). From here on the end of the
/// runtime may end this process by SIGPIPE, which then has nothing more to do.
fn reset_signals(task: &Task) -> Result<()> {
    for signal in (1..=64).filter(|signal| task.ignored_signals >> (signal - 1) & 1 == 1) {
        process::signal_default(signal);
    }
    Ok(process::unblock_all()?)
}
