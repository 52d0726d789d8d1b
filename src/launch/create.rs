//! `create`, outside: from the bundle to a process that waits at the gate.
//!
//! Each thing that is made is undone when a later step fails ([`Undo`]); and before the first of them the record says
//! what there may be, so that `delete --force` can undo it after a runtime that was killed.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::unistd::Pid;

use super::listener::Agent;
use super::notify::{Manager, Sockets};
use super::supervise::Interrupt;
use super::{cover, descriptors, hooks, idmapped, idmaps, notify, prepare, process, terminal_sockets, tty};
use crate::cgroup::{self, Cgroup};
use crate::cli::{CreateArgs, Global};
use crate::host::Host;
use crate::init::procfs::Procfs;
use crate::init::{self, Go, Prepared, own_environment};
use crate::lsm;
use crate::plan::labels;
use crate::plan::namespaces::Kind;
use crate::plan::task::Passed;
use crate::plan::{Plan, Request};
use crate::spec::{self, Hooks, Spec};
use crate::state::{Folder, Identity, Lock, Phase, Record, Status, VERSION};
use crate::sync::{Barrier, Heard, Inside, Outside, channel};
use crate::sys::clone::{Cloned, Ended, clone_into, signal_child, wait};
use crate::sys::{self, Context};
use crate::{clock, signal};

/// Who takes the terminal, and whether the runtime stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    /// `run`: the terminal is the caller's.
    Foreground,
    /// `run --detach`.
    Detached,
    /// `create`: another process starts the container.
    Created,
}

/// A container that waits for its start.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) folder: Folder,
    pub(crate) record: Record,
    pub(crate) lock: Lock,
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) outside: Outside,
    /// The terminal's master, of a foreground run.
    pub(crate) master: Option<OwnedFd>,
    /// Of a run that was started by a service manager.
    pub(crate) notify: Option<Sockets>,
    /// Whether hooks run in the container before its program does.
    pub(crate) start_container: bool,
}

/// Files and sockets of the command line, absolute: the bundle becomes the current directory.
#[derive(Debug)]
struct Paths {
    config: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    console_socket: Option<PathBuf>,
    pidfd_socket: Option<PathBuf>,
}

/// Creates a container, unless it is interrupted.
pub(crate) fn create(global: &Global, args: &CreateArgs, stay: Stay, interrupt: Interrupt<'_>) -> Result<Created> {
    cover::draw()?;
    let mut passed = descriptors::settle(args.preserve_fds)?;
    let manager = if stay == Stay::Created { Manager::named()? } else { Manager::connected()? };
    passed.listen.extend(manager.as_ref().map(|_| notify::variable()));
    let paths = Paths::new(args)?;
    let bundle = enter_bundle(&args.bundle)?;
    let (spec, config) = spec::load::load(&bundle, paths.config.as_deref())?;
    for warning in spec::validate::validate(&spec)? {
        log::warn!("{warning}");
    }
    spec::validate::runnable(&spec)?;
    check_terminal(&spec, &paths, stay)?;
    let modules = lsm::modules(spec.process.as_ref(), &spec.linux.mount_label);
    let host = Host { modules, ..Host::probe()? };
    let request = Request {
        id: args.id.as_str().into(),
        bundle,
        manager: global.manager,
        rootless: global.is_rootless(&host),
        no_pivot: args.no_pivot,
        notify: manager.as_ref().map(|_| Folder::notify_path(&global.root, args.id.as_str())),
        passed: Passed {
            keyring: (!args.no_new_keyring).then(|| format!("_ses.{}", args.id)),
            new_keyring: true,
            preserve_fds: passed.count,
            listen: passed.listen,
            labels: labels::Options::default(),
        },
    };
    let plan = Plan::new(&spec, &host, &request)?;
    check_rootfs(&plan)?;
    log::debug!("{}: config.json is valid, root file system {:?}", plan.id, plan.rootfs.path);

    let record = record(&plan, &spec, &host)?;
    let (folder, lock) = Folder::claim(&global.root, &plan.id)?;
    let mut undo = Undo::new(folder, record, plan.hooks.clone(), interrupt);
    undo.folder()?.write(&undo.record)?;
    undo.folder()?.write_config(&config)?;
    let notify = manager.map(|manager| prepare_notify(manager, undo.folder()?, stay)).transpose()?.flatten();
    let (console, terminal) = terminal_sockets(plan.task.terminal.is_some(), paths.console_socket.as_deref())?;
    let pidfd_socket =
        paths.pidfd_socket.as_deref().map(|path| tty::connect_for("--pidfd-socket", path)).transpose()?;
    let agent = Agent::connect(&plan.task)?;
    let prepared = Prepared {
        joins: prepare::joins(&plan)?,
        sources: prepare::sources(&plan)?,
        procfs: if plan.writes_to_proc() { Some(Procfs::host()?) } else { None },
        gate: if stay == Stay::Created { Some(undo.folder()?.make_gate()?) } else { None },
        console,
        proc: RefCell::new(lsm::host_proc(&plan.task.labels)?),
        state: undo.record.state(Status::Creating),
        plan,
    };
    let cgroup = cgroup::create(&prepared.plan.cgroup)?;
    // Without rights some of it may not have been made, and may be somebody else's.
    undo.record.cgroup = cgroup.location();
    undo.cgroup = Some(cgroup);
    let (lock, outside, go) = spawn(&mut undo, &prepared, channel()?, lock)?;
    converse(&mut undo, &prepared, (&outside, go), agent.as_ref(), |pid, pidfd| {
        if let Some(socket) = &pidfd_socket {
            tty::send(socket.as_fd(), b"standard", pidfd).context("--pidfd-socket")?;
        }
        paths.pid_file.as_deref().map_or(Ok(()), |path| process::write_pid_file(path, pid))
    })?;
    let master = terminal.map(|socket| tty::receive(socket.as_fd())).transpose()?;
    let start_container = !prepared.plan.hooks.start_container.is_empty();
    let (folder, record, (pid, pidfd)) = undo.keep()?;
    prepared.close();
    std::mem::forget((spec, config, host, request));
    Ok(Created { folder, record, lock, pid, pidfd, outside, master, notify, start_container })
}

impl Paths {
    fn new(args: &CreateArgs) -> Result<Self> {
        let absolute = |path: &Option<PathBuf>| path.as_deref().map(std::path::absolute).transpose();
        Ok(Self {
            config: absolute(&args.config)?,
            pid_file: absolute(&args.pid_file)?,
            console_socket: absolute(&args.console_socket)?,
            pidfd_socket: absolute(&args.pidfd_socket)?,
        })
    }
}

/// The bundle becomes the current directory, as hooks expect; its path is absolute and without links from here.
fn enter_bundle(bundle: &Path) -> Result<PathBuf> {
    nix::unistd::chdir(bundle).call("chdir", bundle).context("--bundle")?;
    Ok(nix::unistd::getcwd().call("getcwd", bundle)?)
}

fn check_terminal(spec: &Spec, paths: &Paths, stay: Stay) -> Result<()> {
    let terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
    match (terminal, &paths.console_socket, stay) {
        (true, None, Stay::Detached | Stay::Created) => {
            bail!("config.json: /process/terminal: a terminal that nobody holds needs --console-socket")
        }
        (false, Some(path), _) => {
            bail!("--console-socket {path:?}: config.json asks for no terminal (/process/terminal)")
        }
        (true, Some(path), Stay::Foreground) => {
            bail!("--console-socket {path:?}: only with --detach: in the foreground the terminal is the caller's")
        }
        _ => Ok(()),
    }
}

/// Makes what is mounted for the container to notify by, and the socket unless `start` does so.
fn prepare_notify(manager: Manager, folder: &Folder, stay: Stay) -> Result<Option<Sockets>> {
    folder.make_notify()?;
    if stay == Stay::Created { Ok(None) } else { Sockets::bind(manager, folder).map(Some) }
}

/// Looked at early, so that the error comes before any side effect.
fn check_rootfs(plan: &Plan) -> Result<()> {
    let path = &plan.rootfs.path;
    let stat = nix::sys::stat::stat(path).call("stat", path).context("config.json: /root/path")?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFDIR {
        return Err(crate::error::invalid("/root/path", format!("{path:?} is not a directory")));
    }
    Ok(())
}

/// What there may be from here on, whatever happens to this process.
fn record(plan: &Plan, spec: &Spec, host: &Host) -> Result<Record> {
    Ok(Record {
        version: VERSION,
        id: plan.id.clone(),
        bundle: plan.bundle.clone(),
        rootfs: plan.rootfs.path.clone(),
        created: clock::rfc3339_now_nanos(),
        owner: host.euid,
        annotations: spec.annotations.clone(),
        phase: Phase::Creating,
        creator: Identity::own().context("internal error: no /proc/self/stat")?,
        init: None,
        own_pid_namespace: plan.namespaces.makes(Kind::Pid),
        cgroup: plan.cgroup.location.clone(),
        keyring: plan.task.keyring.is_some(),
        poststart: !spec.hooks.poststart.is_empty(),
        poststop: !spec.hooks.poststop.is_empty(),
    })
}

/// Clones the container's process, or the bridge to it. The clone never returns from here.
fn spawn(
    undo: &mut Undo<'_>,
    prepared: &Prepared,
    (outside, inside): (Outside, Inside),
    lock: Lock,
) -> Result<(Lock, Outside, Go)> {
    log::debug!("{}: state directory and cgroup made: {:?}", undo.record.id, undo.record.cgroup);
    let bridge = prepared.plan.namespaces.bridge();
    let flags = if bridge { 0 } else { prepared.plan.namespaces.clone_flags() };
    let cgroup = undo.cgroup.as_ref().and_then(|cgroup| cgroup.clone_fd());
    let makes_user = prepared.plan.namespaces.makes(Kind::User);
    let (cloned, placed) = clone_into(flags, cgroup)
        .map_err(|error| if makes_user { idmaps::explain_clone(error) } else { error.into() })?;
    let in_place = placed && undo.cgroup.as_ref().is_some_and(|cgroup| cgroup.location().v1.is_empty());
    let go = if in_place { prepared.go_at_once() } else { Go::Wait };
    match cloned {
        Cloned::Child => {
            // The lock is the creator's: it must end with it. End-of-file must be seen. And nothing that waits in the
            // container may hold a folder of the host.
            let proc = prepared.proc.borrow();
            let mut keep = prepared.descriptors();
            keep.extend(proc.iter().map(AsFd::as_fd));
            keep.push(inside.as_fd());
            keep.extend(crate::log::descriptor());
            sys::fs::close_all_but(3 + prepared.plan.task.preserve_fds.cast_signed(), &keep);
            drop(proc);
            if bridge { init::bridge(prepared, &inside) } else { init::enter(prepared, &inside, go) }
        }
        Cloned::Parent { pid, pidfd } => {
            undo.process = Some((pid, pidfd));
            let cgroup = undo.cgroup.as_mut().context("internal error: no cgroup")?;
            if placed {
                cgroup.add(pid)?
            } else {
                cgroup.add_all(pid)?
            }
            // Where systemd has put it.
            undo.record.cgroup = cgroup.location();
            Ok((lock, outside, go))
        }
    }
}

/// Takes the process through its barriers. `announce` is the last thing before it may go to the gate.
fn converse(
    undo: &mut Undo<'_>,
    prepared: &Prepared,
    (outside, go): (&Outside, Go),
    agent: Option<&Agent>,
    announce: impl FnOnce(Pid, std::os::fd::BorrowedFd<'_>) -> Result<()>,
) -> Result<()> {
    let plan = &prepared.plan;
    // Inherited from the bridge: once that has joined a user namespace its files of /proc are root's (proc(5)).
    process::set_oom_score_adj(undo.process()?.0, &plan.task.limits)?;
    if plan.namespaces.bridge() {
        outside.pass(Barrier::Go)?;
        cross_bridge(undo, outside)?;
    }
    let (pid, _) = undo.process()?;
    let pid = *pid;
    log::debug!("{}: container process {pid} cloned", undo.record.id);
    undo.record.init = Identity::of_new(pid);
    // One that goes at once is in a cgroup of its own, by which it is found after a crash; it ends without the runtime.
    let asked_for = !plan.hooks.prestart.is_empty() || !plan.hooks.create_runtime.is_empty();
    if go == Go::Wait || asked_for {
        undo.folder()?.write(&undo.record)?;
    }
    if let Some(maps) = &plan.id_maps {
        idmaps::write(pid, maps, "/linux")?;
    }
    idmapped::map(prepared, pid)?;
    if go == Go::Wait {
        outside.pass(Barrier::Go)?;
    }
    // While the container's process is busy.
    sys::fs::close_left();
    loop {
        match hear(undo, outside)? {
            Heard::Reached(Barrier::RuntimeHooks) => {
                let state = undo.record.state(Status::Creating);
                let environment = own_environment();
                let run = |kind, list| hooks::run_unless(undo.interrupt, kind, list, &state, &environment);
                run(hooks::Kind::Prestart, &plan.hooks.prestart)?;
                run(hooks::Kind::CreateRuntime, &plan.hooks.create_runtime)?;
                outside.pass(Barrier::RuntimeHooks)?;
            }
            Heard::Listener(number) => {
                let agent = agent.context("internal error: a seccomp listener for nobody")?;
                let (pid, pidfd) = undo.process()?;
                let state = undo.record.state(Status::Creating);
                agent.hand_over(outside, (*pid, pidfd.as_fd()), number, &state)?;
            }
            Heard::Reached(Barrier::Ready) => break,
            other => bail!("internal error: unexpected message from the container process: {other:?}"),
        }
    }
    process::set_limits(pid, &plan.task)?;
    undo.record.phase = Phase::Created;
    undo.folder()?.write(&undo.record)?;
    log::debug!("{}: container process {pid} is set up and waits for its start", undo.record.id);
    let (_, pidfd) = undo.process()?;
    announce(pid, pidfd.as_fd())?;
    if prepared.meets_ready() { outside.pass(Barrier::Ready) } else { Ok(()) }
}

/// Learns the pid of the final process; the bridge has done its part and is reaped.
fn cross_bridge(undo: &mut Undo<'_>, outside: &Outside) -> Result<()> {
    let Heard::Process(pid, pidfd) = hear(undo, outside)? else {
        bail!("internal error: no pid from the bridge process")
    };
    if let Some((bridge, _)) = undo.process.replace((pid, pidfd)) {
        wait(bridge)?;
    }
    Ok(())
}

/// The next message that isn't a failure. A failure inside reads as if it had happened here.
fn hear(undo: &mut Undo<'_>, outside: &Outside) -> Result<Heard> {
    undo.interrupt.wait(outside.as_fd())?;
    match outside.hear()? {
        Heard::Failed(text) => bail!("unable to start container process: {text}"),
        Heard::Closed => bail!("unable to start container process: {}", undo.post_mortem()),
        other => Ok(other),
    }
}

/// What has been made so far; dropped before [`Undo::keep`], it is unmade, newest first.
struct Undo<'a> {
    interrupt: Interrupt<'a>,
    folder: Option<Folder>,
    record: Record,
    hooks: Hooks,
    cgroup: Option<Box<dyn Cgroup>>,
    process: Option<(Pid, OwnedFd)>,
}

impl<'a> Undo<'a> {
    fn new(folder: Folder, record: Record, hooks: Hooks, interrupt: Interrupt<'a>) -> Self {
        Self { interrupt, folder: Some(folder), record, hooks, cgroup: None, process: None }
    }

    fn folder(&self) -> Result<&Folder> {
        self.folder.as_ref().context("internal error: no folder")
    }

    fn process(&self) -> Result<&(Pid, OwnedFd)> {
        self.process.as_ref().context("internal error: no process")
    }

    /// How the process ended, when it ended without a word.
    fn post_mortem(&mut self) -> String {
        let Some((pid, _)) = self.process.take() else { return "it is gone".into() };
        let how = match wait(pid) {
            Ok(Ended::Exited(status)) => format!("it exited with status {status}"),
            Ok(Ended::Signaled(number)) => format!("it was killed by {}", signal::name(number)),
            Err(error) => format!("it is gone ({error})"),
        };
        match self.cgroup.as_ref().and_then(|cgroup| cgroup.out_of_memory()) {
            None => how,
            // The words before the bracket are runc's.
            Some(oom) => format!("{how}: container init was OOM-killed (memory limit too low?): {oom}"),
        }
    }

    /// Everything stays.
    fn keep(mut self) -> Result<(Folder, Record, (Pid, OwnedFd))> {
        let process = self.process.take().context("internal error: no process")?;
        // Its descriptor pins nothing, and what is left of it is closed with this process.
        std::mem::forget(self.cgroup.take());
        let folder = self.folder.take().context("internal error: no folder")?;
        Ok((folder, self.record.clone(), process))
    }

    fn undo(&mut self) -> Result<()> {
        let had_process = self.process.is_some();
        if let Some((pid, pidfd)) = self.process.take() {
            // It may have ended by itself; it is a child of this process, so it is reaped either way.
            let _ = signal_child(pid, pidfd.as_fd(), libc::SIGKILL);
            wait(pid)?;
        }
        if let Some(mut cgroup) = self.cgroup.take() {
            if had_process && !self.record.own_pid_namespace {
                cgroup.kill()?;
            }
            cgroup.remove()?;
        }
        let Some(folder) = self.folder.take() else { return Ok(()) };
        folder.remove()?;
        if had_process {
            hooks::run_poststop(&self.hooks.poststop, &self.record.state(Status::Stopped), &own_environment());
        }
        Ok(())
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            log::warn!("container {:?}: clean up after the failure: {error:#}", self.record.id);
        }
    }
}

impl Record {
    /// The state that hooks and `state` see. A stopped container has no pid.
    pub(crate) fn state(&self, status: Status) -> spec::State {
        let pid = self.init.filter(|_| status != Status::Stopped).map_or(0, |init| init.pid);
        spec::State {
            oci_version: spec::OCI_VERSION,
            id: self.id.clone(),
            pid,
            status: status.name(),
            bundle: self.bundle.clone(),
            rootfs: self.rootfs.clone(),
            created: self.created.clone(),
            annotations: self.annotations.clone(),
            owner: String::new(),
        }
    }
}
