//! A container on disk: `<root>/<id>/` with `state.json`, the verbatim `config.json`, and the two FIFOs of `start`.
//!
//! The record is written before the first side effect (phase `creating`), again with the pid before the container
//! process may go on, and at the end (phase `created`); each time beside its place and renamed, so no reader sees half
//! of it. Whatever point a killed runtime stopped at, the record says what there may be to remove.
//!
//! No status is stored: it is derived from the process (alive, and the same by its start time), from who reads the gate
//! FIFO, and from the freezer. While `pause` freezes, the file `pausing` names the process that does: if it was killed
//! meanwhile, whoever asks for the status next thaws the container.
//!
//! A lock (flock on the folder) is held by every command that changes the container. The creator holds it from before
//! the record exists until it is done, so a free lock and phase `creating` mean that the creator is gone.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::error::phrase;
use crate::spec;
use crate::sys::clone::{pidfd_open, signal_process};
use crate::sys::{self, Context};

mod change;

/// A process that can't be mistaken for a later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// Field 22 of /proc/PID/stat: clock ticks since boot.
    pub(crate) start_time: u64,
}

/// How far `create` came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    Creating,
    Created,
}

/// state.json. Unknown fields are kept out of the way of older readers: they ignore them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    /// RFC 3339, UTC.
    pub(crate) created: String,
    /// The uid that created it.
    pub(crate) owner: u32,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) phase: Phase,
    /// The runtime that creates it.
    pub(crate) creator: Identity,
    pub(crate) init: Option<Identity>,
    /// Whether init is the first process of a pid namespace of its own: the kernel then kills the rest with it.
    pub(crate) own_pid_namespace: bool,
    pub(crate) cgroup: cgroup::Location,
    /// Whether it has a session keyring of its own (`--no-new-keyring`).
    pub(crate) keyring: bool,
    /// Whether config.json has poststart or poststop hooks: without them nobody needs to parse it again.
    pub(crate) poststart: bool,
    pub(crate) poststop: bool,
}

pub(crate) const VERSION: u32 = 1;

/// runtime.md, "State", with `paused` as every engine knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl Identity {
    /// The identity of a live process; `None` when it is gone or a zombie.
    pub(crate) fn of(pid: Pid) -> Option<Self> {
        Self::with_state(pid).map(|(identity, _)| identity)
    }

    /// The same, and the letter of its state (proc_pid_stat(5)).
    fn with_state(pid: Pid) -> Option<(Self, u8)> {
        Self::from_stat(pid, &sys::read_small(format!("/proc/{pid}/stat")).ok()?)
    }

    /// [`Self::of`] the one process that this one makes.
    pub(crate) fn of_new(pid: Pid) -> Option<Self> {
        Self::from_stat(pid, &sys::read_once(format!("/proc/{pid}/stat")).ok()?).map(|(identity, _)| identity)
    }

    fn from_stat(pid: Pid, stat: &[u8]) -> Option<(Self, u8)> {
        let (state, start_time) = parse_stat(stat)?;
        (!matches!(state, b'Z' | b'X')).then_some((Self { pid: pid.as_raw(), start_time }, state))
    }

    /// This process.
    pub(crate) fn own() -> Option<Self> {
        let stat = sys::read_once("/proc/self/stat").ok()?;
        let (_, start_time) = parse_stat(&stat)?;
        let pid = stat.split(|byte| *byte == b' ').next()?;
        Some(Self { pid: std::str::from_utf8(pid).ok()?.parse().ok()?, start_time })
    }

    /// The letter of the state of that very process; `None` when it is gone.
    pub(crate) fn state(self) -> Option<u8> {
        Self::with_state(Pid::from_raw(self.pid)).filter(|(identity, _)| *identity == self).map(|(_, state)| state)
    }

    /// Whether that very process is alive (a zombie is not).
    pub(crate) fn alive(self) -> bool {
        Self::of(Pid::from_raw(self.pid)) == Some(self)
    }

    /// A pidfd of that very process, or `None` when it is gone: the start time is compared after the pidfd is open, so
    /// a recycled pid is never acted on. ENOSYS where a sandbox around the runtime doesn't know pidfds.
    pub(crate) fn pidfd(self) -> Result<Option<OwnedFd>> {
        Ok(self.pidfd_and_state()?.map(|(pidfd, _)| pidfd))
    }

    /// [`Self::pidfd`], and the letter of the process's state.
    pub(crate) fn pidfd_and_state(self) -> Result<Option<(OwnedFd, u8)>> {
        let pid = Pid::from_raw(self.pid);
        match pidfd_open(pid) {
            Ok(pidfd) => match Self::with_state(pid) {
                Some((identity, state)) if identity == self => Ok(Some((pidfd, state))),
                _ => Ok(None),
            },
            Err(error) if error.errno() == Errno::ESRCH => Ok(None),
            // The pid is now a thread's: not the process that this was.
            Err(error) if error.errno() == Errno::EINVAL => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a signal to that very process; false when it is gone.
    pub(crate) fn signal(self, signal: i32) -> Result<bool> {
        let pidfd = match self.pidfd() {
            Err(error) if is_enosys(&error) => return self.signal_by_pid(signal),
            pidfd => pidfd?,
        };
        let Some(pidfd) = pidfd else { return Ok(false) };
        // A pid that went to another process just now doesn't have the start time.
        match signal_process(Pid::from_raw(self.pid), Some(pidfd.as_fd()), signal) {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Errno::ESRCH => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Without pidfds: the start time is compared just before, which is all that can be done.
    fn signal_by_pid(self, signal: i32) -> Result<bool> {
        if !self.alive() {
            return Ok(false);
        }
        match sys::clone::kill(Pid::from_raw(self.pid), signal) {
            Err(error) if error.errno() == Errno::ESRCH => Ok(false),
            sent => sent.map(|()| true).map_err(Into::into),
        }
    }

    /// Waits until that very process has ended; false when it takes longer than `patience`.
    pub(crate) fn wait(self, patience: Duration) -> Result<bool> {
        let end = Instant::now() + patience;
        match self.pidfd() {
            Ok(None) => Ok(true),
            Ok(Some(pidfd)) => wait_readable(&pidfd, end),
            // Without pidfds the process of somebody else can only be looked at again and again.
            Err(error) if is_enosys(&error) => {
                while self.alive() {
                    if Instant::now() > end {
                        return Ok(false);
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }
}

fn wait_readable(fd: &OwnedFd, end: Instant) -> Result<bool> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => {}
            result => return Ok(result.call("poll", "pidfd")? > 0),
        }
    }
}

/// Whether a system call is to blame that this kernel lacks, or that a filter around the runtime denies.
pub(crate) fn is_enosys(error: &anyhow::Error) -> bool {
    error.downcast_ref::<sys::Error>().is_some_and(|error| error.errno() == Errno::ENOSYS)
}

/// State letter and start time (fields 3 and 22) of /proc/PID/stat; the name in field 2 may hold anything.
fn parse_stat(stat: &[u8]) -> Option<(u8, u64)> {
    let after = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(after + 2..)?).ok()?;
    let mut fields = rest.split(' ');
    let state = *fields.next()?.as_bytes().first()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// The folder of one container, open.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    name: String,
    fd: OwnedFd,
}

/// What the container process writes into the result before execve; an error's text follows if that fails.
pub(crate) const STARTING: u8 = 0;

/// The lock of a container: released when the last copy of its descriptor closes, so a clone that holds one must drop
/// it, and dropping it there doesn't release the original.
#[derive(Debug)]
#[must_use]
pub(crate) struct Lock(OwnedFd);

/// A lock given back for a time, with its descriptor.
#[derive(Debug)]
pub(crate) struct Released(OwnedFd);

impl Lock {
    /// Gives the lock back, to take it again later.
    pub(crate) fn release(self) -> Result<Released> {
        sys::fs::flock(self.0.as_fd(), sys::fs::Flock::Unlock)?;
        Ok(Released(self.0))
    }
}

impl From<Lock> for OwnedFd {
    fn from(lock: Lock) -> Self {
        lock.0
    }
}

impl From<Folder> for OwnedFd {
    fn from(folder: Folder) -> Self {
        folder.fd
    }
}

impl Released {
    /// Waits for the lock again. A folder that was deleted meanwhile is a container that doesn't exist.
    pub(crate) fn take(self, folder: &Folder) -> Result<Lock> {
        sys::fs::flock(self.0.as_fd(), sys::fs::Flock::Wait)?;
        folder.still_there()?;
        Ok(Lock(self.0))
    }
}

/// Sticky, as in runc: cleaners of the runtime directory leave it alone (XDG Base Directory Specification).
fn make_root(root: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o1700).create(root);
    made.call("mkdir", root).map_err(|error| with_remedy(error, root))
}

/// An ordinary user has no place in /run but his own.
fn with_remedy(error: sys::Error, path: &Path) -> anyhow::Error {
    let denied = matches!(error.errno(), Errno::EACCES | Errno::EPERM | Errno::EROFS);
    if !denied || !path.starts_with("/run") {
        return error.into();
    }
    anyhow::Error::new(error).context("no place for the state of containers: set XDG_RUNTIME_DIR, or give --root")
}

const GATE: &str = "start";
const RESULT: &str = "result";
const CONFIG: &str = "config.json";
const STATE: &str = "state.json";
const NEW_STATE: &str = "state.json.new";
/// What a container that notifies a service manager gets to see of its folder.
const NOTIFY: &str = "notify";
pub(crate) const NOTIFY_SOCKET: &str = "notify/notify.sock";

impl Folder {
    /// Claims an id: makes its folder and takes the lock. The id is taken from here on.
    pub(crate) fn claim(root: &Path, id: &str) -> Result<(Self, Lock)> {
        let path = root.join(id);
        let mut made = nix::unistd::mkdir(&path, Mode::from_bits_truncate(0o711));
        if made == Err(Errno::ENOENT) {
            // Only its owner looks into it: the state tells where everything of every container is.
            make_root(root)?;
            made = nix::unistd::mkdir(&path, Mode::from_bits_truncate(0o711));
        }
        match made {
            Err(Errno::EEXIST) => bail!("{}: {id:?}", phrase::ALREADY_EXISTS),
            made => made.call("mkdir", &path).map_err(|error| with_remedy(error, &path))?,
        }
        let folder = Self::open(root, id)?;
        // Should it be deleted between the two, the record can't be written into it.
        let lock = folder.reopen()?;
        sys::fs::flock(lock.as_fd(), sys::fs::Flock::Wait)?;
        Ok((folder, Lock(lock)))
    }

    /// The folder of an existing container. The error has the phrase that engines look for.
    pub(crate) fn open(root: &Path, id: &str) -> Result<Self> {
        match Self::find(root, id)? {
            Some(folder) => Ok(folder),
            None => bail!("{}: {id:?}", phrase::DOES_NOT_EXIST),
        }
    }

    /// The folder of a container, if there is one.
    pub(crate) fn find(root: &Path, id: &str) -> Result<Option<Self>> {
        let path = root.join(id);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        match openat(sys::fs::CWD, &path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { root: root.into(), name: id.into(), fd })),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno).call("open", &path).map_err(Into::into),
        }
    }

    /// Waits for the lock. A folder that was deleted meanwhile is a container that doesn't exist.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let fd = self.reopen()?;
        sys::fs::flock(fd.as_fd(), sys::fs::Flock::Wait)?;
        self.still_there()?;
        Ok(Lock(fd))
    }

    /// Takes the lock if it is free.
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>> {
        let fd = self.reopen()?;
        match sys::fs::flock(fd.as_fd(), sys::fs::Flock::Try) {
            Ok(()) => self.still_there().map(|()| Some(Lock(fd))),
            Err(error) if error.errno() == Errno::EWOULDBLOCK => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// [`Self::try_lock`] for a caller to whom a deleted container is fine: `Some(None)` then.
    pub(crate) fn try_lock_existing(&self) -> Result<Option<Option<Lock>>> {
        self.try_lock().map(|lock| lock.map(Some)).or_else(|error| self.gone_or(error).map(|()| Some(None)))
    }

    /// [`Self::lock`] for a caller to whom a deleted container is fine: `None` then.
    pub(crate) fn lock_existing(&self) -> Result<Option<Lock>> {
        self.lock().map(Some).or_else(|error| self.gone_or(error).map(|()| None))
    }

    fn gone_or(&self, error: anyhow::Error) -> Result<()> {
        if self.still_there().is_err() { Ok(()) } else { Err(error) }
    }

    /// A lock needs an open file description of its own.
    fn reopen(&self) -> Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(openat(&self.fd, ".", flags, Mode::empty()).call("open", self.path())?)
    }

    fn still_there(&self) -> Result<()> {
        let link_count = fstat(&self.fd).call("fstat", self.path())?.st_nlink;
        if link_count == 0 {
            bail!("{}: {:?}", phrase::DOES_NOT_EXIST, self.name);
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    /// Writes the record: a reader sees the old one or the new one.
    pub(crate) fn write(&self, record: &Record) -> Result<()> {
        self.write_file(NEW_STATE, &serde_json::to_vec(record)?)?;
        renameat(&self.fd, NEW_STATE, &self.fd, STATE).call("rename", self.path().join(STATE))?;
        Ok(())
    }

    /// Keeps config.json as it was at create: later edits of the bundle change nothing.
    pub(crate) fn write_config(&self, bytes: &[u8]) -> Result<()> {
        self.write_file(CONFIG, bytes)
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        use std::io::Write;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let fd = openat(&self.fd, name, flags, Mode::from_bits_truncate(0o600)).call("open", self.path().join(name))?;
        let mut file = std::fs::File::from(fd);
        file.write_all(bytes).call("write", self.path().join(name))?;
        sys::fs::leave(file.into());
        Ok(())
    }

    fn read_file(&self, name: &str) -> sys::Result<Vec<u8>> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let fd = openat(&self.fd, name, flags, Mode::empty()).call("open", self.path().join(name))?;
        sys::read_whole(&fd).call("read", self.path().join(name))
    }

    /// The record. `None`: the creator was killed between making the folder and writing the first record.
    pub(crate) fn read(&self) -> Result<Option<Record>> {
        let bytes = match self.read_file(STATE) {
            Ok(bytes) => bytes,
            Err(error) if error.errno() == Errno::ENOENT => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let record: Record =
            serde_json::from_slice(&bytes).with_context(|| format!("{:?} is broken", self.path().join(STATE)))?;
        if record.version > VERSION {
            bail!("{:?} was written by a newer tare (version {})", self.path().join(STATE), record.version);
        }
        Ok(Some(record))
    }

    /// The record of a container that at least began to exist.
    pub(crate) fn record(&self) -> Result<Record> {
        match self.read()? {
            Some(record) => Ok(record),
            None => bail!(
                "{}: {:?} (a create that goes on, or was killed: delete --force removes what it left)",
                phrase::DOES_NOT_EXIST,
                self.name
            ),
        }
    }

    /// config.json as it was at create.
    pub(crate) fn config(&self) -> Result<spec::Spec> {
        spec::load::parse(&self.read_file(CONFIG)?)
    }

    /// Makes both FIFOs and opens them so that neither open blocks and neither needs /proc.
    pub(crate) fn make_gate(&self) -> Result<Gate> {
        for name in [GATE, RESULT] {
            nix::sys::stat::mknodat(&self.fd, name, nix::sys::stat::SFlag::S_IFIFO, Mode::from_bits_truncate(0o600), 0)
                .call("mkfifo", self.path().join(name))?;
        }
        let open = |name| self.open_fifo(name, OFlag::O_RDWR);
        Ok(Gate { gate: open(GATE)?, result: open(RESULT)? })
    }

    /// Where the folder of [`Self::make_notify`] will be.
    pub(crate) fn notify_path(root: &Path, id: &str) -> PathBuf {
        root.join(id).join(NOTIFY)
    }

    /// Makes the folder of the socket by which the container notifies; any user of the container may look into it.
    pub(crate) fn make_notify(&self) -> Result<()> {
        let (path, mode) = (self.path().join(NOTIFY), Mode::from_bits_truncate(0o755));
        nix::sys::stat::mkdirat(&self.fd, NOTIFY, mode).call("mkdir", &path)?;
        // Whatever the caller's umask.
        let follow = nix::sys::stat::FchmodatFlags::FollowSymlink;
        nix::sys::stat::fchmodat(&self.fd, NOTIFY, mode, follow).call("chmod", &path)?;
        Ok(())
    }

    fn open_fifo(&self, name: &str, flags: OFlag) -> sys::Result<OwnedFd> {
        let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        openat(&self.fd, name, flags, Mode::empty()).call("open", self.path().join(name))
    }

    /// The write side of the gate; `None` unless a container process waits behind it.
    pub(crate) fn open_gate(&self) -> Result<Option<OwnedFd>> {
        match self.open_fifo(GATE, OFlag::O_WRONLY | OFlag::O_NONBLOCK) {
            Ok(fd) => Ok(Some(fd)),
            Err(error) if matches!(error.errno(), Errno::ENXIO | Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The read side of the result: end-of-file means that the program runs, data is the error.
    pub(crate) fn open_result(&self) -> Result<OwnedFd> {
        Ok(self.open_fifo(RESULT, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?)
    }

    /// The status, derived from what is there now.
    pub(crate) fn status(&self, record: &Record) -> Result<Status> {
        let alive = record.init.is_some_and(Identity::alive);
        if record.phase == Phase::Creating {
            return Ok(Status::Creating);
        }
        if !alive {
            return Ok(Status::Stopped);
        }
        let cgroup = cgroup::open(&record.cgroup)?;
        if cgroup.frozen().unwrap_or(false) && !self.thaw_half_paused(&*cgroup) {
            return Ok(Status::Paused);
        }
        Ok(if self.open_gate()?.is_some() { Status::Created } else { Status::Running })
    }

    /// Removes the folder, in its place: whatever point a killed remover stopped at, the id is still taken and
    /// `delete --force` goes on with it. The record goes last.
    pub(crate) fn remove(self) -> Result<()> {
        for name in [CONFIG, STATE] {
            self.unlink(name)?;
        }
        let path = self.path();
        match nix::unistd::unlinkat(nix::fcntl::AT_FDCWD, &path, nix::unistd::UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {
                // A command removes one, and ends: the kernel closes it then.
                std::mem::forget(self);
                Ok(())
            }
            Err(Errno::ENOTEMPTY) => {
                // The FIFOs, which a run has none of, what a writer that was killed could not rename or remove, and a
                // socket.
                for name in [GATE, RESULT, NEW_STATE, change::NEW_CONFIG, change::PAUSING, NOTIFY_SOCKET] {
                    self.unlink(name)?;
                }
                match nix::unistd::unlinkat(&self.fd, NOTIFY, nix::unistd::UnlinkatFlags::RemoveDir) {
                    Ok(()) | Err(Errno::ENOENT) => {}
                    Err(errno) => return Err(errno).call("rmdir", path.join(NOTIFY)).map_err(Into::into),
                }
                std::fs::remove_dir(&path).call("rmdir", &path).map_err(Into::into)
            }
            Err(errno) => Err(errno).call("rmdir", &path).map_err(Into::into),
        }
    }

    fn unlink(&self, name: &str) -> sys::Result<()> {
        match nix::unistd::unlinkat(&self.fd, name, nix::unistd::UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno).call("unlink", self.path().join(name)),
        }
    }
}

/// Both FIFOs of `start`, as the container process holds them. Both close at exec.
#[derive(Debug)]
pub(crate) struct Gate {
    gate: OwnedFd,
    result: OwnedFd,
}

impl Gate {
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.gate.as_fd(), self.result.as_fd()]
    }

    /// Blocks until `start` opens the gate. `read` only: the seccomp filter is loaded.
    pub(crate) fn wait(&self) -> Result<()> {
        let mut byte = [0];
        loop {
            match nix::unistd::read(&self.gate, &mut byte) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).call("read", "start gate").map_err(Into::into),
            }
        }
    }

    /// Tells `start` that the next thing is execve: from here end-of-file means that the program runs.
    pub(crate) fn open(&self) -> Result<()> {
        nix::unistd::write(&self.result, &[STARTING]).map(drop).call("write", "start result").map_err(Into::into)
    }

    /// Tells `start` why the program doesn't run.
    pub(crate) fn fail(&self, text: &str) {
        // Nobody is left to tell when this fails too.
        let _ = nix::unistd::write(&self.result, &text.as_bytes()[..text.len().min(32 * 1024)]);
    }
}

/// Every container below `root`, by name; a root that isn't there has none. Broken ones are returned with their error.
pub(crate) fn list(root: &Path) -> Result<Vec<(String, Result<Folder>)>> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).call("open", root).map_err(Into::into),
    };
    let mut names: Vec<String> = Vec::new();
    for entry in entries {
        let entry = entry.call("read", root)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !name.starts_with('.') && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names.into_iter().map(|name| (name.clone(), Folder::open(root, &name))).collect())
}

/// For tests and for callers that only have a descriptor.
impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests;
