//! The lock of a container: flock(2) on its folder, held by every command that changes it.
//!
//! Nobody waits for it for ever: whoever has it may be stopped, or wait for something that never comes. What runs programs
//! of others gives it back for that time if it can, and `delete --force` ends what others wait for before it asks for it.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::Pid;

use super::Folder;
use crate::sys::clone::pidfd_open;
use crate::sys::{self, Context as _, fs::Flock, poll};

/// How long a command waits before it says that the container is busy.
const PATIENCE: Duration = Duration::from_millis(1500);
/// The same of a command that removes what it has made, or was told to use force: longer than any command takes that isn't
/// held up itself.
pub(crate) const LONG_PATIENCE: Duration = Duration::from_secs(15);

/// The lock of a container: released when the last copy of its descriptor closes, so a clone that holds one must drop
/// it, and dropping it there doesn't release the original.
#[derive(Debug)]
#[must_use]
pub(crate) struct Lock(OwnedFd);

/// A lock given back for a time, with its descriptor.
#[derive(Debug)]
pub(crate) struct Released(OwnedFd);

impl Lock {
    /// Gives the lock back when the process ends, or closes what it has left open.
    pub(crate) fn leave(self) {
        sys::fs::leave(self.0);
    }

    /// Gives the lock back, to take it again later.
    pub(crate) fn release(self) -> Result<Released> {
        sys::fs::flock(self.0.as_fd(), Flock::Unlock)?;
        Ok(Released(self.0))
    }
}

impl Released {
    /// Waits for the lock again. A folder that was deleted meanwhile is a container that doesn't exist.
    pub(crate) fn take(self, folder: &Folder) -> Result<Lock> {
        folder.take(self.0, LONG_PATIENCE)
    }
}

impl Folder {
    /// Takes the lock, soon, or says who has it. A folder that was deleted meanwhile is a container that doesn't exist.
    pub(crate) fn lock(&self) -> Result<Lock> {
        self.lock_within(PATIENCE)
    }

    pub(crate) fn lock_within(&self, patience: Duration) -> Result<Lock> {
        self.take(self.reopen()?, patience)
    }

    /// Takes the lock if it is free.
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>> {
        let fd = self.reopen()?;
        if is_taken(&fd)? { self.still_there().map(|()| Some(Lock(fd))) } else { Ok(None) }
    }

    /// [`Self::try_lock`] for a caller to whom a deleted container is fine: `Some(None)` then.
    pub(crate) fn try_lock_existing(&self) -> Result<Option<Option<Lock>>> {
        self.try_lock().map(|lock| lock.map(Some)).or_else(|error| self.gone_or(error).map(|()| Some(None)))
    }

    /// [`Self::lock_within`] for a caller to whom a deleted container is fine: `None` then.
    pub(crate) fn lock_existing(&self, patience: Duration) -> Result<Option<Lock>> {
        self.lock_within(patience).map(Some).or_else(|error| self.gone_or(error).map(|()| None))
    }

    /// What a lock is taken with later.
    pub(crate) fn unlocked(&self) -> Result<Released> {
        self.reopen().map(Released)
    }

    /// The lock of a folder that this process has just made: it is free, as a rule, and nothing is lost if it was deleted.
    pub(super) fn lock_new(&self) -> Result<Lock> {
        let fd = self.reopen()?;
        if is_taken(&fd)? { Ok(Lock(fd)) } else { self.take(fd, LONG_PATIENCE) }
    }

    fn take(&self, fd: OwnedFd, patience: Duration) -> Result<Lock> {
        let end = Instant::now() + patience;
        while !is_taken(&fd)? {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.busy());
            }
            self.wait_for_holder(left)?;
        }
        self.still_there().map(|()| Lock(fd))
    }

    /// Waits a little for the lock: flock(2) itself has no time limit. Most commands give it back by ending, which is seen
    /// at once.
    pub(crate) fn wait_for_holder(&self, left: Duration) -> Result<()> {
        const PAUSE: Duration = Duration::from_millis(20);
        let holder = self.holder().and_then(|pid| pidfd_open(Pid::from_raw(pid)).ok());
        let ends = holder.as_ref().map(|holder| (holder.as_fd(), poll::IN));
        poll::poll([ends], Some(PAUSE.min(left)))?;
        Ok(())
    }

    fn gone_or(&self, error: anyhow::Error) -> Result<()> {
        if self.still_there().is_err() { Ok(()) } else { Err(error) }
    }

    /// A lock needs an open file description of its own.
    fn reopen(&self) -> Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(openat(&self.fd, ".", flags, Mode::empty()).call("open", self.path())?)
    }

    /// Says with what the container is busy.
    fn busy(&self) -> anyhow::Error {
        let holder = self.holder();
        let by = holder.map_or_else(|| "another command is at work on it".to_owned(), at_work);
        anyhow!("container {:?} is busy: {by}", self.name)
    }

    /// Who has the lock, as far as proc_locks(5) tells.
    fn holder(&self) -> Option<i32> {
        let stat = fstat(&self.fd).ok()?;
        let (major, minor) = (nix::sys::stat::major(stat.st_dev), nix::sys::stat::minor(stat.st_dev));
        let file = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        locks.lines().find_map(|line| holder_in(line, &file))
    }
}

/// The process of a line of /proc/locks that has this file, unless it only waits for it.
fn holder_in(line: &str, file: &str) -> Option<i32> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, "FLOCK", _, _, pid, locked, ..] = fields.as_slice() else { return None };
    if *locked != file {
        return None;
    }
    pid.parse().ok().filter(|pid| *pid > 0)
}

fn at_work(pid: i32) -> String {
    const LONGEST: usize = 200;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let mut line: String = words.join(" ").trim_end().replace(char::is_control, " ");
    if let Some((end, _)) = line.char_indices().nth(LONGEST) {
        line.truncate(end);
        line += "...";
    }
    format!("process {pid} is at work on it ({line:?})")
}

/// Takes the lock of an open folder if it is free.
fn is_taken(fd: &OwnedFd) -> Result<bool> {
    match sys::fs::flock(fd.as_fd(), Flock::Try) {
        Ok(()) => Ok(true),
        Err(error) if error.errno() == Errno::EWOULDBLOCK => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_in_the_kernels_list() {
        let file = "00:1b:77";
        for (line, pid) in [
            ("1: FLOCK  ADVISORY  WRITE 12 00:1b:77 0 EOF", Some(12)),
            ("1: FLOCK  ADVISORY  WRITE 12 00:1b:777 0 EOF", None),
            ("1: POSIX  ADVISORY  WRITE 12 00:1b:77 0 EOF", None),
            // Somebody who waits, and a process of another pid namespace.
            ("1: -> FLOCK  ADVISORY  WRITE 13 00:1b:77 0 EOF", None),
            ("1: FLOCK  ADVISORY  WRITE 0 00:1b:77 0 EOF", None),
            ("", None),
        ] {
            assert_eq!(holder_in(line, file), pid, "{line}");
        }
    }

    #[test]
    fn whoever_waits_is_told_who_has_it() {
        let root = tempfile::tempdir().unwrap();
        let (_folder, lock) = Folder::claim(root.path(), "x").unwrap();
        let other = Folder::open(root.path(), "x").unwrap();
        let begin = Instant::now();
        let error = other.lock().unwrap_err().to_string();
        assert!(begin.elapsed() >= PATIENCE && error.contains("\"x\" is busy"), "{error}");
        let own = std::process::id();
        // Some file systems number their devices otherwise in that list.
        assert!(error.contains(&format!("process {own} ")) || error.contains("another command"), "{error}");
        drop(lock);
        drop(other.lock().unwrap());
    }
}
