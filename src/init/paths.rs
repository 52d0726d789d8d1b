//! Paths inside the root file system, whose content is hostile: resolved with openat2(2) as if the root were `/`, through
//! no magic link, and used by descriptor from then on (CVE-2021-30465, CVE-2024-45310).
//!
//! What is missing is made one component at a time, each below the descriptor of the one before, following nothing: a
//! link that is put in place meanwhile is an error, never a way out.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, mkdirat};

use crate::sys::fs::{BENEATH_NO_LINKS, IN_ROOT, openat2};
use crate::sys::{Context, Error, Result};

/// The root of the container's file system, by descriptor.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

/// Whether links of the image are followed (inside the root).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    Follow,
    /// Any link on the way is an error: for /proc and /sys, which must be where they seem to be (CVE-2019-19921).
    Refuse,
}

impl Root {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Opens what is there.
    pub(crate) fn open(&self, path: &str, flags: i32, links: Links) -> Result<OwnedFd> {
        let resolve = match links {
            Links::Follow => IN_ROOT,
            Links::Refuse => IN_ROOT | libc::RESOLVE_NO_SYMLINKS,
        };
        openat2(self.as_fd(), &relative(path)?, flags, 0, resolve)
    }

    /// A handle (O_PATH) on a path, or `None` where it doesn't exist.
    pub(crate) fn find(&self, path: &str) -> Result<Option<OwnedFd>> {
        match self.open(path, libc::O_PATH, Links::Follow) {
            Ok(fd) => Ok(Some(fd)),
            Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A handle on a directory, made (0755) with its parents where it is missing.
    pub(crate) fn dir(&self, path: &str, links: Links) -> Result<OwnedFd> {
        match self.open(path, libc::O_PATH | libc::O_DIRECTORY, links) {
            Err(error) if error.errno() == Errno::ENOENT => {}
            found => return found,
        }
        let (parent, name) = self.parent(path)?;
        let Some(name) = name else { return Ok(parent) };
        match mkdirat(&parent, name.as_c_str(), Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno).call("mkdir", path),
        }
        openat2(parent.as_fd(), &name, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0, BENEATH_NO_LINKS)
    }

    /// A handle on anything but a directory, made as an empty file (0644) where it is missing.
    pub(crate) fn file(&self, path: &str) -> Result<OwnedFd> {
        match self.open(path, libc::O_PATH, Links::Follow) {
            Err(error) if error.errno() == Errno::ENOENT => {}
            found => return found,
        }
        let (parent, name) = self.parent(path)?;
        let Some(name) = name else { return Ok(parent) };
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_NOFOLLOW;
        match openat2(parent.as_fd(), &name, flags, 0o644, BENEATH_NO_LINKS) {
            Err(error) if error.errno() != Errno::EEXIST => return Err(error),
            _ => {}
        }
        openat2(parent.as_fd(), &name, libc::O_PATH | libc::O_NOFOLLOW, 0, BENEATH_NO_LINKS)
    }

    /// The directory that holds `path`, made where it is missing, and the last component; none for the root itself.
    pub(crate) fn parent(&self, path: &str) -> Result<(OwnedFd, Option<CString>)> {
        let path = path.trim_end_matches('/');
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name.is_empty() {
            return Ok((self.0.try_clone().call("dup", "root")?, None));
        }
        Ok((self.dir(parent, Links::Follow)?, Some(c(name)?)))
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// openat2 takes the root itself as ".".
fn relative(path: &str) -> Result<CString> {
    let path = path.trim_start_matches('/');
    c(if path.is_empty() { "." } else { path })
}

fn c(path: &str) -> Result<CString> {
    CString::new(path).map_err(|_| Error::new("open", format!("{path:?}"), Errno::EINVAL))
}

/// The kind of file behind a handle.
pub(crate) fn kind(fd: BorrowedFd<'_>) -> Result<SFlag> {
    let stat = nix::sys::stat::fstat(fd).call("fstat", "handle")?;
    Ok(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT)
}

/// A handle turned into a directory that can be listed.
pub(crate) fn listable(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    open_at(fd, c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

/// openat(2) of one component, following nothing.
pub(crate) fn open_at(dir: BorrowedFd<'_>, name: &CStr, flags: OFlag) -> Result<OwnedFd> {
    nix::fcntl::openat(dir, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()).call("open", name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let fd = nix::fcntl::open(dir.path(), OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        (dir, Root::new(fd))
    }

    #[test]
    fn missing_directories_and_files_are_made_inside() {
        let (dir, root) = root();
        root.dir("/a/b/c", Links::Follow).unwrap();
        root.file("/x/y").unwrap();
        assert!(dir.path().join("a/b/c").is_dir());
        assert!(dir.path().join("x/y").is_file());
        assert!(root.find("/nope").unwrap().is_none());
        root.dir("/", Links::Refuse).unwrap();
    }

    #[test]
    fn links_of_the_image_stay_inside() {
        let (dir, root) = root();
        std::fs::create_dir(dir.path().join("in")).unwrap();
        symlink("/in", dir.path().join("abs")).unwrap();
        symlink("../../../../in", dir.path().join("up")).unwrap();
        for link in ["abs", "up"] {
            root.dir(&format!("/{link}/{link}-made"), Links::Follow).unwrap();
            assert!(dir.path().join("in").join(format!("{link}-made")).is_dir());
            assert!(root.dir(&format!("/{link}"), Links::Refuse).is_err());
        }
    }

    #[test]
    fn a_dangling_link_is_an_error_not_a_way_out() {
        let (dir, root) = root();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path().join("new"), dir.path().join("link")).unwrap();
        assert!(root.file("/link").is_err());
        assert!(root.dir("/link", Links::Follow).is_err());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn magic_links_are_refused() {
        let fd = nix::fcntl::open("/", OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        assert!(Root::new(fd).find("/proc/self/root").is_err());
    }
}
