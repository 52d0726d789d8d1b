//! One cgroup directory: its files read and written, its processes listed, its removal.
//!
//! A file is opened relative to the directory's descriptor where one is held (v2), else by the full path (v1,
//! where most directories see one write and a descriptor would cost two more system calls each). Both are safe:
//! a cgroup file system has no symbolic links, and the last component is opened with O_NOFOLLOW.

use std::cell::OnceCell;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use super::tree;
use crate::sys;
use crate::sys::Context as _;

/// The extended attribute of a cgroup that was taken over.
const MARK: &CStr = c"trusted.tare.taken";

/// A cgroup's directory; it need not exist.
#[derive(Debug)]
pub(super) struct Dir {
    path: PathBuf,
    fd: OnceCell<OwnedFd>,
}

impl Dir {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, fd: OnceCell::new() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// An O_PATH descriptor of it, opened on the first call and kept.
    pub(super) fn fd(&self) -> sys::Result<BorrowedFd<'_>> {
        let fd = match self.fd.get() {
            Some(fd) => fd,
            None => {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let fd = openat(AT_FDCWD, &self.path, flags, Mode::empty()).call("open", &self.path)?;
                self.fd.get_or_init(|| fd)
            }
        };
        Ok(fd.as_fd())
    }

    pub(super) fn open(&self, file: &str, flags: OFlag) -> sys::Result<OwnedFd> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | unless_trusted();
        let opened = match self.fd.get() {
            Some(fd) => openat(fd, file, flags, Mode::empty()),
            None => openat(AT_FDCWD, &self.path.join(file), flags, Mode::empty()),
        };
        opened.call("open", self.path.join(file))
    }

    pub(super) fn read(&self, file: &str) -> sys::Result<String> {
        let fd = self.open(file, OFlag::O_RDONLY)?;
        self.read_from(&fd, file)
    }

    /// [`Self::read`] of a file that is read once in the life of this process: its descriptor is closed with others.
    pub(super) fn read_once(&self, file: &str) -> sys::Result<String> {
        let fd = self.open(file, OFlag::O_RDONLY)?;
        let text = self.read_from(&fd, file);
        sys::fs::leave(fd);
        text
    }

    fn read_from(&self, fd: &OwnedFd, file: &str) -> sys::Result<String> {
        let bytes = read_all(fd).call("read", self.path.join(file))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(super) fn write(&self, file: &str, value: &str) -> sys::Result<()> {
        let fd = self.open(file, OFlag::O_WRONLY)?;
        self.write_to(&fd, file, value)
    }

    /// [`Self::write`], as [`Self::read_once`].
    pub(super) fn write_once(&self, file: &str, value: &str) -> sys::Result<()> {
        let fd = self.open(file, OFlag::O_WRONLY)?;
        let written = self.write_to(&fd, file, value);
        sys::fs::leave(fd);
        written
    }

    /// Writes to a file of this directory that is open already. One write is one request to the kernel.
    pub(super) fn write_to(&self, fd: &OwnedFd, file: &str, value: &str) -> sys::Result<()> {
        retry(|| nix::unistd::write(fd, value.as_bytes())).call("write", self.path.join(file)).map(drop)
    }

    /// Makes a uid the owner of one of its files, or with "." of itself.
    pub(super) fn give(&self, file: &str, owner: u32) -> sys::Result<()> {
        let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        nix::unistd::fchownat(self.fd()?, file, Some(nix::unistd::Uid::from_raw(owner)), None, flags)
            .call("chown", self.path.join(file))
    }

    /// Moves a process into it. The file is given back, to be closed together with those of other hierarchies.
    pub(super) fn add(&self, pid: Pid) -> sys::Result<OwnedFd> {
        let fd = self.open("cgroup.procs", OFlag::O_WRONLY)?;
        self.write_to(&fd, "cgroup.procs", &pid.to_string())?;
        Ok(fd)
    }

    /// The processes in it and below; those of other pid namespaces (0) are left out, a missing directory has none.
    pub(super) fn pids(&self) -> Result<Vec<Pid>> {
        let mut found: Vec<i32> = Vec::new();
        self.each(&mut |cgroup| {
            let text = match read_at(cgroup, "cgroup.procs") {
                // A threaded v2 cgroup lists threads only.
                Err(error) if error.errno() == Errno::EOPNOTSUPP => read_at(cgroup, "cgroup.threads"),
                other => other,
            };
            match text {
                Err(error) if gone(&error) => Ok(()),
                text => {
                    found.extend(text?.lines().filter_map(|line| line.parse().ok()).filter(|pid: &i32| *pid > 0));
                    Ok(())
                }
            }
        })?;
        // A process that moved while we read is seen twice.
        found.sort_unstable();
        found.dedup();
        Ok(found.into_iter().map(Pid::from_raw).collect())
    }

    /// Calls `look` with a descriptor of it and of each cgroup below, as far as they are there.
    pub(super) fn each(&self, look: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>) -> Result<()> {
        match tree::open(&self.path)? {
            Some(top) => tree::walk(top, &mut tree::Each(look)),
            None => Ok(()),
        }
    }

    /// The number of its inode, by which the kernel tells it from another of the same path; none if it isn't there.
    pub(super) fn inode(&self) -> sys::Result<Option<u64>> {
        let stat = match self.fd.get() {
            Some(fd) => nix::sys::stat::fstat(fd),
            None => nix::sys::stat::lstat(&self.path),
        };
        match stat {
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
            stat => stat.call("stat", &self.path).map(|stat| Some(stat.st_ino)),
        }
    }

    /// The count after `key` in a file of `key value` lines; none when file or key isn't there.
    pub(super) fn count(&self, file: &str, key: &str) -> Option<u64> {
        let text = self.read(file).ok()?;
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// Marks it as taken over at this moment, in a way that no container can: these attributes take CAP_SYS_ADMIN on the host.
    pub(super) fn mark(&self) -> sys::Result<u64> {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let mark = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        sys::fs::setxattr(&self.c_path()?, MARK, mark.to_string().as_bytes())?;
        Ok(mark)
    }

    /// The mark of who has taken it over last.
    pub(super) fn marked(&self) -> sys::Result<Option<u64>> {
        let value = sys::fs::getxattr(&self.c_path()?, MARK)?;
        Ok(value.and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok()))
    }

    fn c_path(&self) -> sys::Result<CString> {
        CString::new(self.path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL).call("open", &self.path)
    }

    /// Removes it and everything below, deepest first. EBUSY means that tasks are dying (or alive) inside: `wait`
    /// is called until it says that waiting is over.
    pub(super) fn remove(&self, wait: &mut dyn FnMut() -> bool) -> Result<()> {
        loop {
            let errno = match rmdir(AT_FDCWD, &self.path) {
                Ok(()) | Err(Errno::ENOENT) => return Ok(()),
                Err(errno) => errno,
            };
            // A read-only mount answers EROFS before it looks whether there is anything to remove.
            let Some(top) = tree::open(&self.path)? else { return Ok(()) };
            tree::walk(top, &mut Remove)?;
            match rmdir(AT_FDCWD, &self.path) {
                Ok(()) | Err(Errno::ENOENT) => return Ok(()),
                Err(Errno::EBUSY) if errno == Errno::EBUSY && wait() => (),
                Err(Errno::EBUSY) => {
                    let left = self.pids()?.len();
                    return Err(Errno::EBUSY)
                        .call("rmdir", &self.path)
                        .with_context(|| format!("remove the cgroup: {left} process(es) are still in it"));
                }
                Err(errno) => return Err(errno).call("rmdir", &self.path).context("remove the cgroup"),
            }
        }
    }

    /// Removes it if nothing is in it or below.
    pub(super) fn remove_empty(&self) -> nix::Result<()> {
        match rmdir(AT_FDCWD, &self.path) {
            Err(Errno::ENOENT) => Ok(()),
            removed => removed,
        }
    }
}

/// Removes what is below a cgroup, as far as it is empty: what isn't keeps those above it.
struct Remove;

impl tree::Visitor for Remove {
    fn leave(&mut self, above: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        match rmdir(above, name) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENODEV | Errno::EBUSY) => Ok(()),
            Err(errno) => Err(errno).call("rmdir", name).context("remove a cgroup that the container made"),
        }
    }
}

/// A file of an open cgroup.
pub(super) fn read_at(cgroup: BorrowedFd<'_>, file: &str) -> sys::Result<String> {
    let fd = open_at(cgroup, file, OFlag::O_RDONLY)?;
    let bytes = read_all(&fd).call("read", file)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) fn write_at(cgroup: BorrowedFd<'_>, file: &str, value: &str) -> sys::Result<()> {
    let fd = open_at(cgroup, file, OFlag::O_WRONLY)?;
    retry(|| nix::unistd::write(&fd, value.as_bytes())).call("write", file).map(drop)
}

fn open_at(cgroup: BorrowedFd<'_>, file: &str, flags: OFlag) -> sys::Result<OwnedFd> {
    openat(cgroup, file, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | unless_trusted(), Mode::empty())
        .call("open", file)
}

/// A user's record may lead to his own FIFO after all, exchanged at the right moment: it isn't waited for. Not in general:
/// a limit on memory that is written so doesn't reclaim any (Linux 6.16).
fn unless_trusted() -> OFlag {
    if sys::process::acts_for_another() { OFlag::O_NONBLOCK } else { OFlag::empty() }
}

/// Whether the error says that the cgroup isn't there (any more). ENODEV comes from a file of a removed one.
pub(super) fn gone(error: &sys::Error) -> bool {
    matches!(error.errno(), Errno::ENOENT | Errno::ENODEV)
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => (),
            other => return other,
        }
    }
}

/// Reads to the end. The files are made of short lines and the kernel hands out as many whole ones as fit, so a
/// read that leaves half of the buffer empty was the last: that saves the read that returns 0.
fn read_all(fd: &OwnedFd) -> nix::Result<Vec<u8>> {
    const CHUNK: usize = 4096;
    let mut out = Vec::new();
    loop {
        let had = out.len();
        out.resize(had + CHUNK, 0);
        let got = retry(|| nix::unistd::read(fd, &mut out[had..]))?;
        out.truncate(had + got);
        if got < CHUNK / 2 {
            return Ok(out);
        }
    }
}

/// Reads a file of /proc whole.
pub(super) fn read_path(path: &Path) -> sys::Result<Vec<u8>> {
    let fd = openat(AT_FDCWD, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).call("open", path)?;
    let mut out = Vec::new();
    let mut chunk = vec![0; 32 << 10];
    loop {
        let got = retry(|| nix::unistd::read(&fd, &mut chunk)).call("read", path)?;
        out.extend_from_slice(&chunk[..got]);
        // As in `read_all`; a line of mountinfo is a few pages long at most.
        if got < chunk.len() / 2 && !path.ends_with("mountinfo") || got == 0 {
            sys::fs::leave(fd);
            return Ok(out);
        }
    }
}

/// mkdir -p; says whether the last one was made by this call, and adds all that were made to `made`.
pub(super) fn make(path: &Path, made: &mut Vec<PathBuf>) -> sys::Result<bool> {
    match nix::unistd::mkdir(path, Mode::from_bits_truncate(0o755)) {
        Ok(()) => {
            made.push(path.to_owned());
            Ok(true)
        }
        Err(Errno::EEXIST) => Ok(false),
        Err(Errno::ENOENT) => {
            // A leaf's parents usually exist; they are looked at only when they don't.
            let parent = path.parent().ok_or(Errno::ENOENT).call("mkdir", path)?;
            make(parent, made)?;
            match nix::unistd::mkdir(path, Mode::from_bits_truncate(0o755)) {
                Err(Errno::EEXIST) => Ok(false),
                other => other.call("mkdir", path).map(|()| {
                    made.push(path.to_owned());
                    true
                }),
            }
        }
        Err(errno) => Err(errno).call("mkdir", path),
    }
}

fn rmdir<P: nix::NixPath + ?Sized>(above: BorrowedFd<'_>, name: &P) -> nix::Result<()> {
    retry(|| nix::unistd::unlinkat(above, name, nix::unistd::UnlinkatFlags::RemoveDir))
}

/// Growing pauses until a deadline, for what the kernel gives no event about: a task that leaves a v1 cgroup.
#[derive(Debug)]
pub(super) struct BackOff {
    until: Instant,
    pause: Duration,
}

impl BackOff {
    pub(super) fn new(limit: Duration) -> Self {
        Self { until: Instant::now() + limit, pause: Duration::from_micros(100) }
    }

    /// Sleeps a little; false when the time is up.
    pub(super) fn pause(&mut self) -> bool {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(self.pause.min(left));
        self.pause = (self.pause * 2).min(Duration::from_millis(50));
        true
    }

    pub(super) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn make_reports_what_it_made() {
        let base = tempfile::tempdir().unwrap();
        let mut made = Vec::new();
        assert!(make(&base.path().join("a/b"), &mut made).unwrap());
        assert_eq!(made, [base.path().join("a"), base.path().join("a/b")]);
        assert!(!make(&base.path().join("a/b"), &mut made).unwrap());
        assert_eq!(made.len(), 2);
    }

    #[test]
    fn count_finds_the_key_and_not_its_prefix() {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join("e"), "oom 1\noom_kill_disable 0\noom_kill 7\n").unwrap();
        let dir = Dir::new(base.path().to_owned());
        assert_eq!(dir.count("e", "oom_kill"), Some(7));
        assert_eq!(dir.count("e", "x"), None);
        assert_eq!(dir.count("none", "x"), None);
    }

    #[test]
    fn a_missing_cgroup_has_no_processes_and_is_removed() {
        let dir = Dir::new("/sys/fs/cgroup/tare-is-not-there".into());
        assert!(dir.pids().unwrap().is_empty());
        dir.remove(&mut || false).unwrap();
    }

    #[test]
    fn links_are_not_followed() {
        let base = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", base.path().join("memory.max")).unwrap();
        let error = Dir::new(base.path().to_owned()).write("memory.max", "1").unwrap_err();
        assert_eq!(error.errno(), Errno::ELOOP);
    }
}
