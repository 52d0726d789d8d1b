//! A container on disk: `<root>/<id>/` with `state.json`, the verbatim `config.json`, and the two FIFOs of `start`.
//!
//! The record is written before the first side effect (phase `creating`), again with the pid before the container
//! process may go on, and at the end (phase `created`); each time beside its place and renamed, so no reader sees half
//! of it. Whatever point a killed runtime stopped at, the record says what there may be to remove.
//!
//! Nothing is synced to disk. On tmpfs, where state belongs (/run), that would change nothing; on a disk it costs 8 ms
//! (fdatasync(2) on ext4) for each of up to three writes, more than a whole `run`, and is of use only after a power cut,
//! when every process is gone. What that leaves, an empty record, `delete --force` removes ([`crate::launch::lost`]).
//!
//! No status is stored: it is derived from the process (alive, the same by its start time, and whether it has executed a
//! program yet, which the kernel tells), and from the freezer. While `pause` freezes, the file `pausing` names the process
//! that does: if it was killed
//! meanwhile, whoever asks for the status next thaws the container.
//!
//! A lock (flock on the folder) is held by every command that changes the container. The creator holds it from before
//! the record exists until it is done, so a free lock and phase `creating` mean that the creator is gone.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstat};
use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::error::phrase;
use crate::spec;
use crate::sys::{self, Context};

mod change;
mod identity;
mod lock;
mod root;

pub(crate) use self::lock::{LONG_PATIENCE, Lock};
use self::root::Purpose;

pub(crate) use self::identity::{Identity, TICKS_PER_SECOND, is_enosys, letter, now_in_ticks};

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
    /// When this record was made, in clock ticks since the boot: what the creator has made for the container is younger.
    #[serde(default)]
    pub(crate) made: u64,
    pub(crate) init: Option<Identity>,
    /// Whether init is the first process of a pid namespace of its own: the kernel then kills the rest with it.
    pub(crate) own_pid_namespace: bool,
    pub(crate) cgroup: cgroup::Location,
    /// Whether the kernel tells of init that it has not executed a program yet ([`identity::Seen::has_not_executed`]). Some sandboxes
    /// tell nothing: then it counts as created as long as somebody has the gate open for reading.
    #[serde(default)]
    pub(crate) tells_execve: bool,
    /// Whether it has a session keyring of its own (`--no-new-keyring`).
    pub(crate) keyring: bool,
    /// By which name `exec` finds it. A container of an older version has none: there it follows from the ID.
    #[serde(default)]
    pub(crate) keyring_name: Option<String>,
    /// Whether config.json has poststart or poststop hooks: without them nobody needs to parse it again.
    pub(crate) poststart: bool,
    pub(crate) poststop: bool,
}

pub(crate) const VERSION: u32 = 1;

/// The letter of a process that a signal has stopped (proc_pid_stat(5)).
pub(crate) const STOPPED: u8 = b'T';

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

/// The folder of one container, open.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    name: String,
    /// Of the root, where it is to be removed from.
    parent: OwnedFd,
    fd: OwnedFd,
}

/// What the container process writes into the result before execve; an error's text follows if that fails.
pub(crate) const STARTING: u8 = 0;

/// A longer text is cut.
pub(crate) const LONGEST_ERROR: usize = 32 * 1024;

impl From<Folder> for OwnedFd {
    fn from(folder: Folder) -> Self {
        folder.fd
    }
}

const FOLDER: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC).union(OFlag::O_NOFOLLOW);
/// No file of a folder is larger, unless somebody has put it there who wants to be in the way.
const LARGEST_FILE: usize = 16 << 20;
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
        let parent = match root::open(root, Purpose::Make)? {
            Some(parent) => parent,
            None => {
                root::make(root)?;
                // Somebody else may have been faster.
                root::open(root, Purpose::Make)?.with_context(|| format!("{root:?} is gone again"))?
            }
        };
        // Nobody else gets through it, whoever gets through the root: the container's way to notify is in it, and
        // open to every user of the container.
        let mode = Mode::from_bits_truncate(0o700);
        match nix::sys::stat::mkdirat(&parent, id, mode) {
            Err(Errno::EEXIST) => bail!("{}: {id:?}", phrase::ALREADY_EXISTS),
            made => made.call("mkdir", &path).map_err(|error| root::with_remedy(error, &path))?,
        }
        // Nobody else can have exchanged it: the root is the caller's, or sticky.
        let opened = openat(&parent, id, FOLDER, Mode::empty()).call("open", &path);
        let fd = opened.inspect_err(|_| give_up(&parent, id))?;
        let folder = Self { root: root.into(), name: id.into(), parent, fd };
        // Should it be deleted between the two, the record can't be written into it.
        let lock = folder.lock_new().inspect_err(|_| give_up(&folder.parent, id))?;
        Ok((folder, lock))
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
        let Some(parent) = root::open(root, Purpose::Look)? else { return Ok(None) };
        let fd = match openat(&parent, id, FOLDER, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(None),
            fd => fd.call("open", &path)?,
        };
        root::check_entry(&path, &fstat(&fd).call("fstat", &path)?)
            .with_context(|| format!("container {id:?} is not to be trusted"))?;
        Ok(Some(Self { root: root.into(), name: id.into(), parent, fd }))
    }

    /// An error if the container has been deleted.
    fn still_there(&self) -> Result<()> {
        let link_count = fstat(&self.fd).call("fstat", self.path())?.st_nlink;
        if link_count == 0 {
            bail!("{}: {:?}", phrase::DOES_NOT_EXIST, self.name);
        }
        Ok(())
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
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
        let flags = flags | OFlag::O_NONBLOCK;
        let fd = openat(&self.fd, name, flags, Mode::from_bits_truncate(0o600)).call("open", self.path().join(name))?;
        let mut file = std::fs::File::from(fd);
        file.write_all(bytes).call("write", self.path().join(name))?;
        sys::fs::leave(file.into());
        Ok(())
    }

    /// [`Self::read_file`] of a file that is read once in the life of this process: its descriptor is closed with others.
    fn read_once(&self, name: &str) -> sys::Result<Vec<u8>> {
        let fd = self.open_file(name)?;
        let bytes = sys::read_whole(&fd, LARGEST_FILE).call("read", self.path().join(name));
        sys::fs::leave(fd);
        bytes
    }

    /// What a user may have put there instead of a regular file, a FIFO, is not waited for: nothing comes of it.
    fn open_file(&self, name: &str) -> sys::Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        openat(&self.fd, name, flags, Mode::empty()).call("open", self.path().join(name))
    }

    fn read_file(&self, name: &str) -> sys::Result<Vec<u8>> {
        let fd = self.open_file(name)?;
        sys::read_whole(&fd, LARGEST_FILE).call("read", self.path().join(name))
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

    /// What is kept of a container that is to be removed whatever there is. A newer tare's record is an error all the
    /// same: there may be more to remove than this one knows of.
    pub(crate) fn kept(&self) -> Result<Kept> {
        let error = match self.read() {
            Ok(record) => return Ok(record.map_or(Kept::Nothing, |record| Kept::Record(Box::new(record)))),
            Err(error) => error,
        };
        let readable = self.read_file(STATE).is_ok_and(|bytes| {
            let version = serde_json::from_slice(&bytes).map(|value: serde_json::Value| value["version"].as_u64());
            version.is_ok_and(|version| version > Some(VERSION.into()))
        });
        if readable { Err(error) } else { Ok(Kept::Lost(error)) }
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
        spec::load::parse(&self.read_once(CONFIG)?)
    }

    /// [`Self::config`] of one container of many: nothing is left open.
    pub(crate) fn config_by_itself(&self) -> Result<spec::Spec> {
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
        self.derive_status(record, None)
    }

    /// [`Self::status`] for a caller that has the lock.
    pub(crate) fn status_locked(&self, record: &Record, lock: &Lock) -> Result<Status> {
        self.derive_status(record, Some(lock))
    }

    fn derive_status(&self, record: &Record, held: Option<&Lock>) -> Result<Status> {
        let init = record.init.and_then(Identity::seen);
        if record.phase == Phase::Creating {
            return Ok(Status::Creating);
        }
        let Some(init) = init else { return Ok(Status::Stopped) };
        let cgroup = cgroup::open(&record.cgroup)?;
        if cgroup.frozen().context("whether the container is paused")? && !self.thaw_half_paused(&*cgroup, held) {
            return Ok(Status::Paused);
        }
        // What a container holds open decides nothing: it may have got hold of the gate.
        let told = init.has_not_executed().filter(|_| record.tells_execve);
        let waits = told.map_or_else(|| self.open_gate().map(|gate| gate.is_some()), Ok)?;
        Ok(if waits { Status::Created } else { Status::Running })
    }

    /// Removes the folder, in its place: whatever point a killed remover stopped at, the id is still taken and
    /// `delete --force` goes on with it. The record goes last.
    pub(crate) fn remove(self) -> Result<()> {
        for name in [CONFIG, STATE] {
            self.unlink(name)?;
        }
        let path = self.path();
        let rmdir = || nix::unistd::unlinkat(&self.parent, self.name.as_str(), nix::unistd::UnlinkatFlags::RemoveDir);
        match rmdir() {
            Ok(()) | Err(Errno::ENOENT) => {
                // A command removes one, as a rule, and ends: the kernel closes it then.
                sys::fs::leave(self.parent);
                sys::fs::leave(self.fd);
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
                rmdir().call("rmdir", &path).map_err(Into::into)
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

/// What `delete --force` finds.
#[derive(Debug)]
pub(crate) enum Kept {
    /// The creator was killed before it could make anything else.
    Nothing,
    Record(Box<Record>),
    /// A record that can't be read, and why.
    Lost(anyhow::Error),
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
        let _ = nix::unistd::write(&self.result, &text.as_bytes()[..text.len().min(LONGEST_ERROR)]);
    }
}

/// An id that was claimed in vain is free again.
fn give_up(root: &OwnedFd, id: &str) {
    let removed = nix::unistd::unlinkat(root, id, nix::unistd::UnlinkatFlags::RemoveDir);
    if let Err(errno) = removed {
        log::warn!("the folder of container {id:?} is left: {}", sys::words(errno));
    }
}

/// The name of every container below `root`; a root that isn't there has none. To be opened one by one: there may be
/// more than this process may have descriptors.
pub(crate) fn names(root: &Path) -> Result<Vec<String>> {
    root::names(root)
}

/// For tests and for callers that only have a descriptor.
impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests;
