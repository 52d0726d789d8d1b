//! `exec`, outside: a further process in a container that runs.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::time::TimeVal;
use nix::unistd::Pid;

use super::listener::Agent;
use super::supervise::{Interrupt, asked_to_end};
use super::{cover, descriptors, process, terminal_sockets, tty};
use crate::cgroup::{self, Cgroup, Location};
use crate::cli::{ExecArgs, Global};
use crate::error::{Invalid, phrase};
use crate::host::{Hiding, Host, is_own_user_namespace};
use crate::init::join::{self, Namespaces, PreparedExec};
use crate::lsm;
use crate::plan::exec::{Changes, ExecPlan};
use crate::plan::labels;
use crate::plan::limits::cpu_mask;
use crate::plan::namespaces::Kind;
use crate::plan::task::{Passed, Streams};
use crate::spec::{self, Process, Spec, State};
use crate::state::{Folder, Identity, Phase, Record, STOPPED, Status, is_enosys, letter};
use crate::sync::{Barrier, Heard, Outside, channel};
use crate::sys::clone::{Cloned, clone_into, signal_child, wait};
use crate::sys::poll::{self, poll};
use crate::sys::process::sched_setaffinity;
use crate::sys::{self, Context};

/// A process that runs in the container, a child of this one.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// The terminal's master, in the foreground.
    pub(crate) master: Option<OwnedFd>,
}

/// Executes; returns when the program runs.
pub(crate) fn exec(global: &Global, args: &ExecArgs) -> Result<Running> {
    cover::draw()?;
    let passed = descriptors::settle(args.preserve_fds)?;
    let folder = Folder::open(&global.root, args.id.as_str())?;
    let record = folder.record()?;
    let (target, container) = target(&record, args)?;
    let config = folder.config()?;
    let process = process_of(&config, args)?;
    let passed = Passed {
        keyring: record.keyring.then(|| record.keyring_name.clone().unwrap_or_else(|| format!("_ses.{}", record.id))),
        new_keyring: false,
        preserved: passed.numbers,
        environment: passed.environment,
        listens: passed.listens,
        streams: if args.detach { Streams::Containers } else { Streams::Callers },
        labels: labels::Options { apparmor: is_given(&args.apparmor), selinux: is_given(&args.process_label) },
    };
    let host = Host { modules: lsm::modules(Some(&process), ""), ..Host::process()? };
    let mut plan = ExecPlan::new(&config, &process, &host, &passed)?;
    if plan.joins(Kind::User) && shares_user_namespace(target, &container)? {
        plan.namespaces &= !Kind::User.flag();
    }
    let socket = args.console_socket.as_deref();
    if socket.is_some() && !(args.detach && process.terminal) {
        bail!("--console-socket: only with --detach and a terminal");
    }
    if process.terminal && args.detach && socket.is_none() {
        bail!("a terminal that nobody holds needs --console-socket");
    }
    let (console, terminal) = terminal_sockets(plan.task.terminal.is_some(), socket)?;
    let pidfd_socket = args.pidfd_socket.as_deref().map(|path| tty::connect_for("--pidfd-socket", path)).transpose()?;
    let root = (!plan.joins(Kind::Mount)).then(|| open_root(target, &container)).transpose()?;
    let affinity = affinity(&process)?;
    plan.task.keeps_affinity = affinity.first.is_some();
    if plan.task.hiding == Hiding::FromTheClone {
        // What is cloned inherits it (CVE-2016-9962).
        sys::process::set_dumpable(false)?;
    }
    let bridge = plan.joins(Kind::Pid);
    let meets = affinity.last.is_some() || plan.task.needs_the_outside();
    let agent = Agent::connect(&plan.task)?.map(|agent| (agent, record.state(Status::Running)));
    let proc = RefCell::new(lsm::host_proc(&plan.task.labels)?);
    let prepared = PreparedExec { plan, container, root, console: RefCell::new(console), proc, bridge, meets };
    let mut child = spawn(prepared, &record, target, args, &affinity)?;
    log::debug!("{}: container process cloned, to join process {}", record.id, target.tid);
    let master = child.converse(&affinity.last, terminal.as_ref(), agent)?;
    // Until all of that is done the process is killed with an error: nobody would know of it.
    let (pid, pidfd) = child.process()?;
    if let Some(socket) = pidfd_socket {
        tty::send(socket, b"setns", pidfd.as_fd()).context("--pidfd-socket")?;
    }
    if let Some(path) = &args.pid_file {
        process::write_pid_file(path, *pid)?;
    }
    let (pid, pidfd) = child.finish()?;
    log::debug!("{}: container process {pid} has joined the container and runs its program", record.id);
    // The command ends with the program, and the kernel closes it then.
    std::mem::forget(folder);
    Ok(Running { pid, pidfd, master })
}

fn is_given(label: &Option<String>) -> bool {
    label.as_ref().is_some_and(|label| !label.is_empty())
}

fn stopped(record: &Record) -> String {
    format!("cannot exec in a stopped container: {:?} ({})", record.id, phrase::NOT_RUNNING)
}

/// Whose namespaces are joined.
#[derive(Debug, Clone, Copy)]
struct Target {
    init: Identity,
    /// Its own number, or that of another thread of it.
    tid: i32,
}

impl Target {
    /// Says that what was just found below /proc by its number was its own.
    fn still_has(self, container: &Namespaces) -> Result<()> {
        match container {
            Namespaces::Pidfd(pidfd) => still_alive(pidfd.as_fd()),
            Namespaces::Files(_) => self.init.letter().map(drop).ok_or_else(just_ended),
        }
    }
}

/// The container's init, if it can be joined now; another thread of it where the first has ended and has no namespaces any
/// more.
fn target(record: &Record, args: &ExecArgs) -> Result<(Target, Namespaces)> {
    if record.phase == Phase::Creating {
        bail!("cannot exec in a container that is being created: {:?}", record.id);
    }
    let init = record.init.with_context(|| stopped(record))?;
    let live = match init.live() {
        Err(error) if is_enosys(&error) => {
            // Opened before the process is looked at once more: they are of that very process.
            let files = namespaces_of(init);
            let letter = init.letter().with_context(|| stopped(record))?;
            check_not_paused(record, args, Some(letter))?;
            return Ok((Target { init, tid: init.pid }, Namespaces::Files(files?)));
        }
        live => live?.with_context(|| stopped(record))?,
    };
    check_not_paused(record, args, live.letter)?;
    if !live.has_lost_its_first_thread() {
        return Ok((Target { init, tid: init.pid }, Namespaces::Pidfd(live.pidfd)));
    }
    let (tid, pidfd) = live.another_thread(init)?.with_context(|| stopped(record))?;
    Ok((Target { init, tid }, Namespaces::Pidfd(pidfd)))
}

fn check_not_paused(record: &Record, args: &ExecArgs, letter: Option<u8>) -> Result<()> {
    if !args.ignore_paused
        && cgroup::open(&record.cgroup)?.frozen_with(letter).context("whether the container is paused")?
    {
        bail!("cannot exec in a paused container (use --ignore-paused to override): {:?}", record.id);
    }
    Ok(())
}

/// The files of all namespaces of a process that this kernel has.
fn namespaces_of(init: Identity) -> Result<Vec<(Kind, OwnedFd)>> {
    let mut files = Vec::new();
    for kind in Kind::ALL {
        let path = format!("/proc/{}/ns/{}", init.pid, kind.file());
        match nix::fcntl::openat(sys::fs::CWD, path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(file) => files.push((kind, file)),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno).call("open", &path).map_err(Into::into),
        }
    }
    Ok(files)
}

/// A container may have joined the user namespace that this process is in, which can't be joined again (setns(2)).
fn shares_user_namespace(target: Target, container: &Namespaces) -> Result<bool> {
    let path = format!("/proc/{}/ns/user", target.tid);
    let shares = nix::sys::stat::stat(path.as_str()).is_ok_and(|stat| is_own_user_namespace(&stat));
    target.still_has(container).map(|()| shares)
}

/// Says that what was just found below /proc by the number of a process was that process's: until it has ended nobody
/// else can have its number.
fn still_alive(pidfd: BorrowedFd<'_>) -> Result<()> {
    match poll([Some((pidfd, poll::IN))], Some(Duration::ZERO))? {
        [true] => Err(just_ended()),
        [false] => Ok(()),
    }
}

fn just_ended() -> anyhow::Error {
    anyhow!("cannot exec in a stopped container: its first process has just ended ({})", phrase::NOT_RUNNING)
}

/// What is to be executed, checked by the rules of config.json.
fn process_of(config: &Spec, args: &ExecArgs) -> Result<Process> {
    let changes = Changes {
        args: args
            .command
            .iter()
            .skip(usize::from(args.command.first().is_some_and(|arg| arg == "--")))
            .cloned()
            .collect(),
        terminal: args.tty,
        cwd: args.cwd.clone(),
        env: args.env.clone(),
        user: args.user,
        additional_gids: args.additional_gids.clone(),
        capabilities: args.cap.clone(),
        no_new_privileges: args.no_new_privs,
        apparmor: args.apparmor.clone(),
        selinux: args.process_label.clone(),
    };
    let Some(path) = &args.process else {
        let process = crate::plan::exec::process(config, None, changes)?;
        spec::validate::process(&process)?;
        return Ok(process);
    };
    let load = || -> Result<Process> {
        let process = crate::plan::exec::process(config, Some(spec::load::load_process(path)?), changes)?;
        spec::validate::process(&process)?;
        Ok(process)
    };
    load().map_err(|error| in_file(error, path))
}

/// The pointer is one of the file's own, not of config.json.
fn in_file(error: anyhow::Error, path: &Path) -> anyhow::Error {
    match error.downcast::<Invalid>() {
        Ok(Invalid { pointer, what }) => {
            let pointer = pointer.strip_prefix("/process").unwrap_or(&pointer);
            let pointer = if pointer.is_empty() { String::new() } else { format!("{pointer}: ") };
            anyhow::anyhow!("--process {path:?}: {pointer}{what}")
        }
        Err(error) => error.context(format!("--process {path:?}")),
    }
}

fn open_root(target: Target, container: &Namespaces) -> Result<OwnedFd> {
    let path = PathBuf::from(format!("/proc/{}/root", target.tid));
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = nix::fcntl::openat(sys::fs::CWD, &path, flags, Mode::empty()).call("open", &path)?;
    target.still_has(container).map(|()| root)
}

/// config.md, "execCPUAffinity": before the process is in the container's cgroup, and after.
struct Affinity {
    first: Option<Vec<u64>>,
    last: Option<Vec<u64>>,
}

fn affinity(process: &Process) -> Result<Affinity> {
    let asked = process.exec_cpu_affinity.clone().unwrap_or_default();
    let mask = |name: &str, list: &str| {
        (!list.is_empty()).then(|| cpu_mask(&format!("/process/execCPUAffinity/{name}"), list)).transpose()
    };
    Ok(Affinity { first: mask("initial", &asked.initial)?, last: mask("final", &asked.r#final)? })
}

/// The process on its way to the program; killed and reaped if it doesn't get there.
struct Child {
    cgroup: Location,
    prepared: PreparedExec,
    outside: Outside,
    process: Option<(Pid, OwnedFd)>,
}

/// Clones into the container's cgroup. The clone never returns from here.
fn spawn(
    prepared: PreparedExec,
    record: &Record,
    target: Target,
    args: &ExecArgs,
    affinity: &Affinity,
) -> Result<Child> {
    if let Some(mask) = &affinity.first {
        sched_setaffinity(0, mask).context("config.json: /process/execCPUAffinity/initial")?;
    }
    let location = cgroup::exec::below(&record.cgroup, &args.cgroup)?;
    let cgroup = cgroup::open(&location)?;
    let (outside, inside) = channel()?;
    // The bridge stays outside: as long as it is there it would count against the container's limits.
    let into = if prepared.bridge { None } else { cgroup.clone_fd() };
    let (cloned, placed) = match clone_into(0, into) {
        // systemd in the container has moved itself and removed what was there.
        Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::ENODEV) => clone_into(0, None)?,
        cloned => cloned?,
    };
    match cloned {
        Cloned::Child => {
            let (proc, console) = (prepared.proc.borrow(), prepared.console.borrow());
            let mut keep = prepared.descriptors();
            keep.extend(proc.iter().chain(&*console).map(AsFd::as_fd));
            keep.push(inside.as_fd());
            keep.extend(crate::log::descriptor_inside());
            keep.extend(descriptors::kept(&prepared.plan.task.preserved));
            sys::fs::close_all_but(3, &keep);
            drop((proc, console));
            join::enter(&prepared, &inside)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(inside);
            // The process has them: whoever is at their other ends may wait for them to be closed.
            drop(prepared.console.take());
            sys::fs::close_passed(&prepared.plan.task.preserved);
            let bridge = prepared.bridge;
            outside.limit_patience(LOOK)?;
            let mut child = Child { cgroup: location, prepared, outside, process: Some((pid, pidfd)) };
            if bridge {
                if child.prepared.waits_before_it_joins() {
                    // Inherited from the bridge: once that has joined a user namespace its files of /proc are root's (proc(5)).
                    process::set_oom_score_adj(pid, &child.prepared.plan.task.limits)?;
                    child.outside.pass(Barrier::Go)?;
                }
                let pid = child.cross_bridge()?;
                place(cgroup, pid, false)
                    .or_else(|error| follow(error, pid, (target, &child.prepared.container), args))?;
                return Ok(child);
            }
            place(cgroup, pid, placed)
                .or_else(|error| follow(error, pid, (target, &child.prepared.container), args))?;
            process::set_oom_score_adj(pid, &child.prepared.plan.task.limits)?;
            Ok(child)
        }
    }
}

fn place(mut cgroup: Box<dyn Cgroup>, pid: Pid, placed: bool) -> Result<()> {
    if placed {
        cgroup.add(pid)?
    } else {
        cgroup.add_all(pid)?
    }
    // The command ends with the program, and the kernel closes what it holds then.
    std::mem::forget(cgroup);
    Ok(())
}

/// Where the container's cgroup takes no process, or is gone, its init's own of this moment does (runc#2416): a systemd
/// inside has moved it.
fn follow(error: anyhow::Error, pid: Pid, (target, container): (Target, &Namespaces), args: &ExecArgs) -> Result<()> {
    let errno = error.downcast_ref::<sys::Error>().map(sys::Error::errno);
    if !args.cgroup.is_empty() || !matches!(errno, Some(Errno::ENOENT | Errno::EBUSY | Errno::EOPNOTSUPP)) {
        return Err(error);
    }
    let location: Location = cgroup::exec::current(target.tid)?;
    target.still_has(container)?;
    cgroup::open(&location)?.add_all(pid)
}

impl Child {
    /// Learns the final process, which waits then.
    fn cross_bridge(&mut self) -> Result<Pid> {
        // The process behind it holds the other end of the channel, too, and tells nothing of the bridge's end.
        if !Interrupt::default().wait_unless_ended(self.outside.as_fd(), self.process()?.1.as_fd())? {
            return Err(self.died());
        }
        let Heard::Process(pid, pidfd) = self.hear()? else { bail!("internal error: no pid from the bridge process") };
        if let Some((bridge, _)) = self.process.replace((pid, pidfd)) {
            wait(bridge)?;
        }
        Ok(pid)
    }

    /// Takes it through its barriers, up to the program.
    ///
    /// The terminal comes to us before the program has it: it is set up for being relayed.
    fn converse(
        &mut self,
        affinity: &Option<Vec<u64>>,
        terminal: Option<&OwnedFd>,
        agent: Option<(Agent, State)>,
    ) -> Result<Option<OwnedFd>> {
        self.outside.pass(Barrier::Go)?;
        if let Some((agent, state)) = agent {
            let Heard::Listener(number) = self.hear()? else {
                bail!("internal error: no seccomp listener of the process in the container")
            };
            let (pid, pidfd) = self.process()?;
            agent.hand_over(&self.outside, (*pid, pidfd.as_fd()), number, &state)?;
        }
        let master = if self.prepared.meets { self.meet(affinity, terminal)? } else { None };
        let Heard::Starting = self.hear()? else { bail!("internal error: no start of the process in the container") };
        match self.hear_any()? {
            Heard::Closed => Ok(master),
            Heard::Failed(text) => bail!("{FAILED}: {text}"),
            other => bail!("internal error: unexpected message from the process in the container: {other:?}"),
        }
    }

    /// Does what only the outside can do to the process, when that is otherwise complete.
    fn meet(&mut self, affinity: &Option<Vec<u64>>, terminal: Option<&OwnedFd>) -> Result<Option<OwnedFd>> {
        let Heard::Reached(Barrier::Ready) = self.hear()? else {
            bail!("internal error: unexpected message from the process in the container")
        };
        let master = terminal.map(|socket| tty::receive(socket.as_fd())).transpose()?;
        let (pid, _) = self.process()?;
        process::set_limits(*pid, &self.prepared.plan.task)?;
        if let Some(mask) = affinity {
            sched_setaffinity(pid.as_raw(), mask).context("config.json: /process/execCPUAffinity/final")?;
        }
        self.outside.pass(Barrier::Ready)?;
        Ok(master)
    }

    fn hear(&mut self) -> Result<Heard> {
        match self.hear_any()? {
            Heard::Failed(text) => bail!("{FAILED}: {text}"),
            Heard::Closed => Err(self.died()),
            other => Ok(other),
        }
    }

    /// Waits for the next message. A process of the container may stop this one by a signal: then it is told to go on, and
    /// whoever wants the command to end needn't wait for it.
    fn hear_any(&self) -> Result<Heard> {
        loop {
            match self.outside.hear() {
                Err(error) if is_eagain(&error) => {}
                heard => return heard,
            }
            asked_to_end()?;
            let (pid, pidfd) = self.process()?;
            // It isn't reaped yet, so the number is its own.
            if letter(*pid) == Some(STOPPED) {
                signal_child(*pid, pidfd.as_fd(), libc::SIGCONT)?;
            }
        }
    }

    fn died(&self) -> anyhow::Error {
        match cgroup::open(&self.cgroup).map(|cgroup| cgroup.out_of_memory()) {
            Ok(Some(oom)) => {
                anyhow!("{FAILED}: it died before its program was executed; {oom} in the container so far")
            }
            _ => anyhow!("{FAILED}: it died before its program was executed"),
        }
    }

    fn process(&self) -> Result<&(Pid, OwnedFd)> {
        self.process.as_ref().context("internal error: no process")
    }

    fn finish(mut self) -> Result<(Pid, OwnedFd)> {
        let process = self.process.take().context("internal error: no process");
        // The command ends with the program, and the kernel closes them then.
        std::mem::forget(self);
        process
    }
}

/// How long nothing is heard of the process before it is looked at.
const LOOK: TimeVal = TimeVal::new(0, 100_000);

fn is_eagain(error: &anyhow::Error) -> bool {
    error.downcast_ref::<sys::Error>().is_some_and(|error| error.errno() == Errno::EAGAIN)
}

const FAILED: &str = "exec failed: unable to start container process";

impl Drop for Child {
    fn drop(&mut self) {
        if let Some((pid, pidfd)) = self.process.take() {
            // An unreaped process would keep the container's pid namespace from ending.
            let _ = signal_child(pid, pidfd.as_fd(), libc::SIGKILL);
            let _ = wait(pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clone::fork;

    #[test]
    fn what_was_found_by_the_number_of_a_process_that_has_ended_is_not_taken() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        match fork().unwrap() {
            Cloned::Child => {
                drop(writer);
                let _ = nix::unistd::read(&reader, &mut [0]);
                sys::exit(0)
            }
            Cloned::Parent { pid, pidfd } => {
                still_alive(pidfd.as_fd()).unwrap();
                drop((reader, writer));
                // Not reaped: nobody can have its number yet, and it counts as gone all the same.
                poll([Some((pidfd.as_fd(), poll::IN))], None).unwrap();
                let error = still_alive(pidfd.as_fd()).unwrap_err().to_string();
                assert!(error.contains(phrase::NOT_RUNNING), "{error}");
                wait(pid).unwrap();
            }
        }
    }
}
