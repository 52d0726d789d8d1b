//! Doing it, inside: what runs in the cloned process, from the clone to `execve`.
//!
//! [`enter`] is the order of it; each step names itself for the error. The process has the plan and every descriptor it
//! needs from the clone. It leaves by exec or [`sys::exit`], and whatever fails is told to the outside, which prints it.

mod attributes;
mod copyup;
mod dev;
mod diagnose;
mod exec;
mod identity;
pub(crate) mod join;
pub(crate) mod mount;
mod overlay;
mod paths;
pub(crate) mod procfs;
mod rootfs;
mod task;
mod terminal;

#[cfg(any(fuzzing, test))]
pub(crate) use exec::home_in;

use std::cell::RefCell;
use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::unistd::Pid;

use self::identity::Hidden;
use self::procfs::Procfs;
use crate::host::{Hiding, is_own_user_namespace};
use crate::launch::hooks;
use crate::launch::prepare::{self, Opened};
use crate::lsm;
use crate::plan::Plan;
use crate::plan::mounts::{MountStep, Pivot, Sources};
use crate::plan::namespaces::Kind;
use crate::spec;
use crate::state::{Gate, Status};
use crate::sync::{Barrier, Inside};
use crate::sys::clone::{CStrings, Cloned, clone_process};
use crate::sys::{self, Context, environment, process};

/// A plan and every descriptor that carrying it out takes, opened in the caller's namespaces.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) plan: Plan,
    /// Of `plan.namespaces.joins`, in order.
    pub(crate) joins: Vec<OwnedFd>,
    /// Of `plan.rootfs.steps`: sources of bind mounts that only the outside may open.
    pub(crate) opened: Opened,
    /// The host's, where something is to be written: a mount namespace that is joined may have anything at /proc.
    pub(crate) procfs: Option<Procfs>,
    /// Of a create; a run is started over the channel.
    pub(crate) gate: Option<Gate>,
    /// Where the terminal goes, with `plan.task.terminal`; taken by the process that sends it.
    pub(crate) console: RefCell<Option<OwnedFd>>,
    /// The host's procfs, if labels are to be written; taken and closed by the final process.
    pub(crate) proc: RefCell<Option<OwnedFd>>,
    /// For the hooks that run inside.
    pub(crate) state: spec::State,
}

/// Whether the clone waits for [`Barrier::Go`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Go {
    Wait,
    /// It was born where it belongs, and what the outside does meanwhile it needs at [`Barrier::Ready`] only.
    AtOnce,
}

impl Prepared {
    /// Whether the clone may go at once if it is in its cgroup already. Hooks and terminals reach out of the container: not
    /// before the state names who makes them.
    pub(crate) fn go_at_once(&self) -> Go {
        let plan = &self.plan;
        let maps = plan.id_maps.is_some() || plan.rootfs.steps.iter().any(MountStep::is_idmapped);
        let reaches_out = !plan.hooks.create_container.is_empty() || self.plan.task.terminal.is_some();
        let waits = maps || reaches_out || plan.namespaces.bridge() || plan.task.limits.oom_score_adj.is_some();
        if waits { Go::Wait } else { Go::AtOnce }
    }

    /// Whether the outside passes [`Barrier::Ready`]: of a run it passes [`Barrier::Start`] soon after, and that will do. A
    /// seccomp listener is held open until the outside has fetched it.
    pub(crate) fn meets_ready(&self) -> bool {
        self.gate.is_some() || self.plan.task.listener.is_some()
    }

    /// For the outside, when all is done. What it planned isn't freed: that would write to pages that the container's process
    /// shares until it executes its program, each a copy and a page fault.
    pub(crate) fn close(self) {
        let Self { plan, joins, opened, procfs, gate, console, proc, state } = self;
        std::mem::forget((plan, state));
        if let Some(procfs) = procfs {
            sys::fs::leave(procfs.into());
        }
        drop((joins, opened, gate, console, proc));
    }

    /// What the process that goes in holds, beside its end of the channel and what it takes.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let gate = self.gate.iter().flat_map(Gate::descriptors);
        let others = self.joins.iter().chain(self.opened.trees());
        others.map(AsFd::as_fd).chain(self.procfs.as_ref().map(AsFd::as_fd)).chain(gate).collect()
    }
}

/// The first thing in the clone: becomes the container's process, or says why not and ends.
///
/// `go`: whether the outside has something to do before anything is done here.
pub(crate) fn enter(prepared: &Prepared, outside: &Inside, go: Go) -> ! {
    if prepared.plan.hooks.create_container.is_empty() {
        environment::wipe();
    }
    let mut ready = match create(prepared, outside, go) {
        Ok(ready) => ready,
        Err(error) => {
            // If nobody listens any more, nobody is to be told.
            let _ = outside.fail(&format!("{error:#}"));
            sys::exit(1)
        }
    };
    let Err(error) = start(prepared, &mut ready, outside);
    let text = format!("{error:#}");
    match &prepared.gate {
        Some(gate) => gate.fail(&text),
        None => drop(outside.fail(&text)),
    }
    sys::exit(1)
}

/// The bridge: joins what must be joined before the final clone, makes that clone as its sibling, and ends.
pub(crate) fn bridge(prepared: &Prepared, outside: &Inside) -> ! {
    let result = (|| -> Result<()> {
        outside.wait(Barrier::Go)?;
        join(prepared)?;
        let flags = prepared.plan.namespaces.clone_flags() | libc::CLONE_PARENT as u64;
        match clone_process(flags)? {
            Cloned::Child => enter(prepared, outside, Go::Wait),
            Cloned::Parent { pid, pidfd } => outside.process(pid, pidfd.as_fd()),
        }
    })();
    if let Err(error) = &result {
        let _ = outside.fail(&format!("{error:#}"));
    }
    sys::exit(i32::from(result.is_err()))
}

fn join(prepared: &Prepared) -> Result<()> {
    if !prepared.joins.is_empty() && prepared.plan.task.hiding == Hiding::WhenStarted {
        // Nothing in a joined namespace may look into this process (CVE-2016-9962).
        process::set_dumpable(false)?;
    }
    for (join, fd) in prepared.plan.namespaces.joins.iter().zip(&prepared.joins) {
        match sys::clone::setns(fd.as_fd(), join.kind.flag()) {
            // setns(2) doesn't let a process reenter its own, which is all that was asked for: a container that shares
            // the user namespace of another, which is that of a rootless engine.
            Err(error) if error.errno() == Errno::EINVAL && join.kind == Kind::User && is_own(fd) => {}
            joined => joined.with_context(|| format!("config.json: {}: join {:?}", join.pointer, join.path))?,
        }
    }
    Ok(())
}

/// Whether this process is non-dumpable once it has joined what it joins.
fn hidden(prepared: &Prepared) -> Hidden {
    let since_the_clone = prepared.plan.task.hiding == Hiding::FromTheClone;
    if since_the_clone || !prepared.joins.is_empty() { Hidden::Yes } else { Hidden::No }
}

fn is_own(user_namespace: &OwnedFd) -> bool {
    nix::sys::stat::fstat(user_namespace).is_ok_and(|stat| is_own_user_namespace(&stat))
}

/// Everything up to the gate.
fn create(prepared: &Prepared, outside: &Inside, go: Go) -> Result<task::Ready> {
    let plan = &prepared.plan;
    if go == Go::Wait {
        outside.wait(Barrier::Go)?;
    }
    let labels = &plan.task.labels;
    let labels = lsm::Attributes::open(prepared.proc.take(), labels, plan.task.identity.no_new_privileges)?;
    process::setsid()?;
    let opened = namespaces(prepared)?;
    let sources = opened.as_ref().unwrap_or(&prepared.opened);
    // Modes of what is made here are exact.
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    identity::names(plan)?;
    if let Some(procfs) = &prepared.procfs {
        identity::sysctls(plan, procfs)?;
    }
    let mut built = rootfs::build(&plan.rootfs, &sources.sources, outside)?;
    if let Some(limit) = sources.limit {
        // Below the limit nothing more could be opened as long as these are.
        if opened.is_none() {
            sys::fs::close_in_clone(prepared.opened.trees());
        }
        drop(opened);
        process::set_open_files(limit)?;
    }
    if !plan.hooks.prestart.is_empty() || !plan.hooks.create_runtime.is_empty() {
        outside.meet(Barrier::RuntimeHooks)?;
    }
    if !plan.hooks.create_container.is_empty() {
        // As in runc: hooks find the container's files without asking for the bundle.
        nix::unistd::fchdir(&built.root).call("fchdir", &plan.rootfs.path)?;
        run_hooks(hooks::Kind::CreateContainer, &plan.hooks.create_container, prepared, &environment::own())?;
        environment::wipe();
    }
    rootfs::enter(&built, &plan.rootfs)?;
    exec::make_cwd(&built.root, &plan.task.program)?;
    if let (Some(size), Some(socket)) = (&plan.task.terminal, prepared.console.take()) {
        let own_mounts = plan.rootfs.pivot != Pivot::Chroot;
        terminal::set_up(&built.root, size, plan.task.identity.uid, socket, own_mounts).context("terminal")?;
    }
    let hooks = [&plan.hooks.prestart, &plan.hooks.create_runtime, &plan.hooks.create_container];
    let hooks = if hooks.iter().all(|list| list.is_empty()) { rootfs::Hooks::None } else { rootfs::Hooks::Some };
    rootfs::seal(&mut built, &plan.rootfs, hooks)?;
    built.close();
    let mut ready = task::assume(&plan.task, labels, outside, true, hidden(prepared))?;
    if prepared.meets_ready() {
        outside.meet(Barrier::Ready)?;
    } else {
        outside.reached(Barrier::Ready)?;
    }
    // As long as it is open here too, nothing tells that the agent is gone.
    ready.listener = None;
    Ok(ready)
}

/// Root of a user namespace may make mount namespaces: only a security module takes that right from it.
const RESTRICTED: &str = "the user namespace gives no rights on this host: for ordinary users AppArmor may withhold them \
                          (sysctl kernel.apparmor_restrict_unprivileged_userns)";

/// Enters the namespaces that the clone has not entered already. Returns the trees of bind mounts if it was the only time
/// to open them.
fn namespaces(prepared: &Prepared) -> Result<Option<Opened>> {
    let namespaces = &prepared.plan.namespaces;
    // Before the ids change: afterwards the offsets may no longer be written.
    if let (true, Some(procfs)) = (namespaces.makes(Kind::Time), &prepared.procfs) {
        identity::enter_time_namespace(&prepared.plan.time_offsets, procfs).context("time namespace")?;
    }
    if !namespaces.bridge() {
        join(prepared)?;
    }
    let mut flags = namespaces.unshare_flags();
    let mut sources = None;
    if namespaces.has(Kind::User) {
        if prepared.plan.rootfs.sources == Sources::AsCaller {
            sys::clone::unshare(libc::CLONE_NEWNS).context(RESTRICTED).context("new mount namespace")?;
            flags &= !libc::CLONE_NEWNS;
            sources = Some(prepare::open_sources(&prepared.plan.rootfs)?);
        }
        identity::become_root(hidden(prepared)).context("user namespace")?;
    }
    if flags != 0 {
        sys::clone::unshare(flags).context("new namespaces")?;
    }
    if namespaces.makes(Kind::Network) {
        loopback_up().context("loopback interface")?;
    }
    Ok(sources)
}

/// The request is the same on a socket of any family. A filter around the runtime may deny some of them (systemd's
/// RestrictAddressFamilies=), and a kernel may be built without IPv4.
fn loopback_up() -> sys::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let up = |family| {
        let what = format!("{family:?}");
        let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).call("socket", what)?;
        process::loopback_up(socket.as_fd())?;
        // It is of the container's own network, and closes on exec.
        std::mem::forget(socket);
        Ok(())
    };
    let others = [AddressFamily::Unix, AddressFamily::Netlink];
    up(AddressFamily::Inet).or_else(|error| others.into_iter().find_map(|family| up(family).ok()).ok_or(error))
}

/// Waits at the gate, then becomes the program.
fn start(prepared: &Prepared, ready: &mut task::Ready, outside: &Inside) -> Result<Infallible> {
    let plan = &prepared.plan;
    match &prepared.gate {
        Some(gate) => gate.wait()?,
        None => outside.wait(Barrier::Start)?,
    }
    if !plan.hooks.start_container.is_empty() {
        if hidden(prepared) == Hidden::No {
            process::set_dumpable(false)?;
        }
        // Programs of the image: they are confined as its program is, and so is this process, which some of them may trace.
        task::filter(&plan.task, ready, outside)?;
        run_hooks(hooks::Kind::StartContainer, &plan.hooks.start_container, prepared, &ready.envp)?;
    }
    task::execute(&plan.task, ready, outside, || match &prepared.gate {
        Some(gate) => gate.open(),
        None => outside.starting(),
    })
}

fn run_hooks(kind: hooks::Kind, list: &[spec::Hook], prepared: &Prepared, environment: &CStrings) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    // Inside its own pid namespace the process knows itself as 1.
    let status = if kind == hooks::Kind::StartContainer { Status::Created } else { Status::Creating };
    let state = spec::State { pid: Pid::this().as_raw(), status: status.name(), ..prepared.state.clone() };
    hooks::run(kind, list, &state, environment)
}
