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
use crate::host::{Hiding, Host};
use crate::init::procfs::Procfs;
use crate::init::{self, Go, Prepared};
use crate::lsm;
use crate::plan::labels;
use crate::plan::namespaces::Kind;
use crate::plan::task::{Passed, Streams};
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
    /// None once it was given back for hooks that run on the host.
    pub(crate) lock: Option<Lock>,
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
    passed.environment.extend(manager.as_ref().map(|_| notify::variable()));
    let paths = Paths::new(args)?;
    let bundle = enter_bundle(&args.bundle)?;
    let (spec, config) = spec::load::load(&bundle, paths.config.as_deref())?;
    for warning in spec::validate::validate(&spec)? {
        log::warn!("{warning}");
    }
    spec::validate::runnable(&spec)?;
    check_terminal(&spec, &paths, stay)?;
    let modules = lsm::modules(spec.process.as_ref(), &spec.linux.mount_label);
    let host = Host { modules, callers_namespaces: prepare::callers_namespaces(&spec.linux), ..Host::probe()? };
    let request = Request {
        id: args.id.as_str().into(),
        bundle,
        manager: global.manager,
        rootless: global.is_rootless(&host),
        delegated: delegated(global, args, &spec, &host),
        no_pivot: args.no_pivot,
        notify: manager.as_ref().map(|_| Folder::notify_path(&global.root, args.id.as_str())),
        passed: Passed {
            keyring: (!args.no_new_keyring).then(|| keyring_name(args.id.as_str())),
            new_keyring: true,
            preserved: passed.numbers,
            environment: passed.environment,
            listens: passed.listens,
            streams: if stay == Stay::Foreground { Streams::Callers } else { Streams::Containers },
            labels: labels::Options::default(),
        },
    };
    let plan = decide(&spec, &host, &request)?;
    log::debug!("{}: config.json is valid, root file system {:?}", plan.id, plan.rootfs.path);

    let record = record(&plan, &spec, &host)?;
    let (folder, lock) = Folder::claim(&global.root, &plan.id)?;
    let mut undo = Undo::new(Claimed { folder, lock }, record, plan.hooks.clone(), interrupt);
    undo.folder()?.write(&undo.record)?;
    undo.folder()?.write_config(&config)?;
    let notify = manager.map(|manager| prepare_notify(manager, undo.folder()?, stay)).transpose()?.flatten();
    let (console, terminal) = terminal_sockets(plan.task.terminal.is_some(), paths.console_socket.as_deref())?;
    let pidfd_socket =
        paths.pidfd_socket.as_deref().map(|path| tty::connect_for("--pidfd-socket", path)).transpose()?;
    let agent = Agent::connect(&plan.task)?;
    let prepared = Prepared {
        joins: prepare::joins(&plan)?,
        opened: prepare::sources(&plan)?,
        procfs: if plan.writes_to_proc() { Some(Procfs::host()?) } else { None },
        gate: if stay == Stay::Created { Some(undo.folder()?.make_gate()?) } else { None },
        console: RefCell::new(console),
        proc: RefCell::new(lsm::host_proc(&plan.task.labels)?),
        state: undo.record.state(Status::Creating),
        plan,
    };
    let cgroup = cgroup::create(&prepared.plan.cgroup)?;
    // Without rights some of it may not have been made, and may be somebody else's.
    undo.record.cgroup = cgroup.location();
    undo.cgroup = Some(cgroup);
    let (outside, go) = spawn(&mut undo, &prepared, channel()?)?;
    converse(&mut undo, &prepared, (&outside, go), agent, |pid, pidfd| {
        if let Some(socket) = pidfd_socket {
            tty::send(socket, b"standard", pidfd).context("--pidfd-socket")?;
        }
        paths.pid_file.as_deref().map_or(Ok(()), |path| process::write_pid_file(path, pid))
    })?;
    let master = terminal.map(|socket| tty::receive(socket.as_fd())).transpose()?;
    let start_container = !prepared.plan.hooks.start_container.is_empty();
    let (Claimed { folder, lock }, record, (pid, pidfd)) = undo.keep()?;
    prepared.close();
    std::mem::forget((spec, config, host, request));
    Ok(Created { folder, record, lock: Some(lock), pid, pidfd, outside, master, notify, start_container })
}

impl Paths {
    fn new(args: &CreateArgs) -> Result<Self> {
        let absolute = |path: &Option<PathBuf>| path.as_deref().map(std::path::absolute).transpose();
        let socket = |path: &Option<PathBuf>| match path {
            Some(name) if tty::is_abstract(name) => Ok(Some(name.clone())),
            path => absolute(path),
        };
        Ok(Self {
            config: absolute(&args.config)?,
            pid_file: absolute(&args.pid_file)?,
            console_socket: socket(&args.console_socket)?,
            pidfd_socket: socket(&args.pidfd_socket)?,
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

/// Where an ordinary user may have a cgroup made, if config.json doesn't say.
fn delegated(global: &Global, args: &CreateArgs, spec: &Spec, host: &Host) -> Option<String> {
    let unnamed = spec.linux.cgroups_path.is_empty() && global.manager == cgroup::Manager::Cgroupfs;
    if unnamed && global.is_rootless(host) { host.cgroups.delegated(args.id.as_str()) } else { None }
}

/// What to do, and in words what of the limits isn't done or may be meant otherwise.
fn decide(spec: &Spec, host: &Host, request: &Request) -> Result<Plan> {
    let plan = Plan::new(spec, host, request)?;
    check_rootfs(&plan)?;
    cgroup::warnings(&spec.linux.resources, &host.cgroups).iter().for_each(|warning| log::warn!("{warning}"));
    Ok(plan)
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
        creator: Identity::own()?,
        made: crate::state::now_in_ticks(),
        init: None,
        own_pid_namespace: plan.namespaces.makes(Kind::Pid),
        cgroup: cgroup::planned(&plan.cgroup),
        tells_execve: false,
        keyring: plan.task.keyring.is_some(),
        keyring_name: plan.task.keyring.as_ref().map(|name| name.to_string_lossy().into_owned()),
        poststart: !spec.hooks.poststart.is_empty(),
        poststop: !spec.hooks.poststop.is_empty(),
    })
}

/// Whoever has the same uid may make a session keyring of any name, and this container would take it, with its maker in it: so
/// the name is one that nobody can foresee.
fn keyring_name(id: &str) -> String {
    format!("_ses.{id}.{:016x}", sys::process::unforeseeable())
}

/// Clones the container's process, or the bridge to it. The clone never returns from here.
fn spawn(undo: &mut Undo<'_>, prepared: &Prepared, (outside, inside): (Outside, Inside)) -> Result<(Outside, Go)> {
    log::debug!("{}: state directory and cgroup made: {:?}", undo.record.id, undo.record.cgroup);
    if prepared.plan.task.hiding == Hiding::FromTheClone {
        // What is cloned inherits it. This process has no need to be seen, either.
        sys::process::set_dumpable(false)?;
    }
    let bridge = prepared.plan.namespaces.bridge();
    let flags = if bridge { 0 } else { prepared.plan.namespaces.clone_flags() };
    // The bridge stays outside: as long as it is there it would count against the container's limits.
    let cgroup = undo.cgroup.as_ref().filter(|_| !bridge).and_then(|cgroup| cgroup.clone_fd());
    let makes_user = prepared.plan.namespaces.makes(Kind::User);
    let (cloned, placed) = clone_into(flags, cgroup)
        .map_err(|error| if makes_user { idmaps::explain_clone(error) } else { error.into() })?;
    let in_place = placed && undo.cgroup.as_ref().is_some_and(|cgroup| cgroup.location().v1.is_empty());
    let go = if in_place { prepared.go_at_once() } else { Go::Wait };
    match cloned {
        Cloned::Child => {
            // The lock is the creator's: it must end with it. End-of-file must be seen. And nothing that waits in the
            // container may hold a folder of the host.
            let (proc, console) = (prepared.proc.borrow(), prepared.console.borrow());
            let mut keep = prepared.descriptors();
            keep.extend(proc.iter().chain(&*console).map(AsFd::as_fd));
            keep.push(inside.as_fd());
            keep.extend(crate::log::descriptor_inside());
            keep.extend(descriptors::kept(&prepared.plan.task.preserved));
            sys::fs::close_all_but(3, &keep);
            drop((proc, console));
            if bridge { init::bridge(prepared, &inside) } else { init::enter(prepared, &inside, go) }
        }
        Cloned::Parent { pid, pidfd } => {
            undo.process = Some((pid, pidfd));
            undo.begun = true;
            // The process has them: whoever is at their other ends may wait for them to be closed.
            drop(prepared.console.take());
            sys::fs::close_passed(&prepared.plan.task.preserved);
            if !bridge {
                undo.confine(pid, if placed { Born::Inside } else { Born::Outside })?;
            }
            Ok((outside, go))
        }
    }
}

/// Takes the process through its barriers. `announce` is the last thing before it may go to the gate.
fn converse(
    undo: &mut Undo<'_>,
    prepared: &Prepared,
    (outside, go): (&Outside, Go),
    mut agent: Option<Agent>,
    announce: impl FnOnce(Pid, std::os::fd::BorrowedFd<'_>) -> Result<()>,
) -> Result<()> {
    let plan = &prepared.plan;
    // Inherited from the bridge: once that has joined a user namespace its files of /proc are root's (proc(5)).
    process::set_oom_score_adj(undo.process()?.0, &plan.task.limits)?;
    if plan.namespaces.bridge() {
        outside.pass(Barrier::Go)?;
        cross_bridge(undo, outside)?;
    }
    let (pid, pidfd) = undo.process()?;
    let pid = *pid;
    log::debug!("{}: container process {pid} cloned", undo.record.id);
    let (init, seen) = Identity::of_new(pid, pidfd.as_fd())?;
    undo.record.init = Some(init);
    undo.record.tells_execve = seen.has_not_executed() == Some(true);
    // One that goes at once ends without the runtime, unless a hook or the gate keeps it: then it must be known.
    let Hooks { prestart, create_runtime, create_container, .. } = &plan.hooks;
    let kept = [prestart, create_runtime, create_container].iter().any(|hooks| !hooks.is_empty());
    if go == Go::Wait || kept || prepared.gate.is_some() {
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
                let environment = sys::environment::own();
                let (_, pidfd) = undo.process()?;
                let until = hooks::Until { interrupt: undo.interrupt, container: Some(pidfd.as_fd()) };
                let run = |kind, list| hooks::run_until(until, kind, list, &state, &environment);
                run(hooks::Kind::Prestart, &plan.hooks.prestart)?;
                run(hooks::Kind::CreateRuntime, &plan.hooks.create_runtime)?;
                outside.pass(Barrier::RuntimeHooks)?;
            }
            Heard::Source(step, namespaces) => prepare::open_late(plan, outside.as_fd(), step, &namespaces)?,
            Heard::Listener(number) => {
                let agent = agent.take().context("internal error: a seccomp listener for nobody")?;
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
    // The process behind it holds the other end of the channel, too, and tells nothing of the bridge's end.
    let (_, bridge) = undo.process()?;
    if !undo.interrupt.wait_unless_ended(outside.as_fd(), bridge.as_fd())? {
        bail!("unable to start container process: {}", undo.post_mortem());
    }
    let Heard::Process(pid, pidfd) = hear(undo, outside)? else {
        bail!("internal error: no pid from the bridge process")
    };
    if let Some((bridge, _)) = undo.process.replace((pid, pidfd)) {
        wait(bridge)?;
    }
    undo.confine(pid, Born::Outside)
}

/// Where the clone has put a process: v2's cgroup of the container, or the runtime's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Born {
    Inside,
    Outside,
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

/// The folder of a container that is being made, with its lock.
struct Claimed {
    folder: Folder,
    lock: Lock,
}

/// What has been made so far; dropped before [`Undo::keep`], it is unmade, newest first.
struct Undo<'a> {
    interrupt: Interrupt<'a>,
    /// Given back when the folder is gone, and not before: whoever has it next may rely on that.
    folder: Option<Claimed>,
    record: Record,
    hooks: Hooks,
    cgroup: Option<Box<dyn Cgroup>>,
    process: Option<(Pid, OwnedFd)>,
    /// Whether there was a process, which may have ended by itself since.
    begun: bool,
}

impl<'a> Undo<'a> {
    fn new(folder: Claimed, record: Record, hooks: Hooks, interrupt: Interrupt<'a>) -> Self {
        Self { interrupt, folder: Some(folder), record, hooks, cgroup: None, process: None, begun: false }
    }

    fn folder(&self) -> Result<&Folder> {
        self.folder.as_ref().map(|claimed| &claimed.folder).context("internal error: no folder")
    }

    fn process(&self) -> Result<&(Pid, OwnedFd)> {
        self.process.as_ref().context("internal error: no process")
    }

    /// Moves the process that becomes the container's into its cgroup, in every hierarchy.
    fn confine(&mut self, pid: Pid, born: Born) -> Result<()> {
        let cgroup = self.cgroup.as_mut().context("internal error: no cgroup")?;
        match born {
            Born::Inside => cgroup.add(pid)?,
            Born::Outside => cgroup.add_all(pid)?,
        }
        // Where systemd has put it.
        self.record.cgroup = cgroup.location();
        Ok(())
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
    fn keep(mut self) -> Result<(Claimed, Record, (Pid, OwnedFd))> {
        let process = self.process.take().context("internal error: no process")?;
        // Its descriptor pins nothing, and what is left of it is closed with this process.
        std::mem::forget(self.cgroup.take());
        let folder = self.folder.take().context("internal error: no folder")?;
        Ok((folder, self.record.clone(), process))
    }

    fn undo(&mut self) -> Result<()> {
        if let Some((pid, pidfd)) = self.process.take() {
            // It may have ended by itself; it is a child of this process, so it is reaped either way.
            let _ = signal_child(pid, pidfd.as_fd(), libc::SIGKILL);
            wait(pid)?;
        }
        let removed = self.cgroup.take().map_or(Ok(()), |mut cgroup| {
            // Of a bridge that was killed there may be a process that nobody has heard of.
            if self.begun && (!self.record.own_pid_namespace || self.record.init.is_none()) {
                cgroup.kill()?;
            }
            cgroup.remove(cgroup::Removal::Later)
        });
        let Some(Claimed { folder, lock }) = self.folder.take() else { return removed };
        let removed = match removed {
            Ok(()) => folder.remove(),
            // What is left is known by the record. The hooks run now, and not again.
            Err(error) => {
                self.record.poststop &= !self.begun;
                Err(folder.write(&self.record).err().unwrap_or(error))
            }
        };
        // Whoever waits for it doesn't wait for hooks.
        drop(lock);
        if self.begun {
            hooks::run_poststop(&self.hooks.poststop, &self.record.state(Status::Stopped), &sys::environment::own());
        }
        removed
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
