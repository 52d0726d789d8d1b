//! The runtime's own writes to proc(5), by a descriptor of a procfs that is one (CVE-2025-52881): neither a file that
//! somebody mounted there, nor a link, takes them.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::paths::{PROC_SUPER_MAGIC, fs_type};
use crate::sys::fs::{BENEATH_NO_LINKS, CWD, openat2};
use crate::sys::mount::{fsconfig_create, fsmount, fsopen};
use crate::sys::{Context as _, Error, Result};

/// The root of a proc file system.
#[derive(Debug)]
pub(crate) struct Procfs(OwnedFd);

impl Procfs {
    /// The one that is mounted at /proc, before any namespace of the container's is entered.
    pub(crate) fn host() -> Result<Self> {
        let fd = openat2(CWD, c"/proc", libc::O_PATH | libc::O_DIRECTORY, 0, 0)?;
        verified(fd.as_fd(), "/proc")?;
        Ok(Self(fd))
    }

    /// The name of this process's directory: it isn't known to itself by the host's number. A link is no part of a path here.
    pub(crate) fn own(&self) -> Result<String> {
        let own = nix::fcntl::readlinkat(&self.0, c"self").call("readlink", "/proc/self")?;
        Ok(own.to_string_lossy().into_owned())
    }

    /// Opens one of the namespaces, which are magic links, of a directory. setns(2) checks that it is one.
    pub(crate) fn namespace(&self, directory: &str, name: &CStr) -> Result<OwnedFd> {
        let directory = open(self.0.as_fd(), directory, libc::O_PATH | libc::O_DIRECTORY)?;
        openat2(directory.as_fd(), name, libc::O_RDONLY, 0, 0)
    }

    /// Reads a file of a few bytes.
    ///
    /// # Errors
    ///
    /// Those of open(2) and read(2), and EXDEV where something is mounted over the file.
    pub(crate) fn read(&self, path: &str) -> Result<String> {
        let file = open(self.0.as_fd(), path, libc::O_RDONLY)?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::fs::File::from(file), &mut text)
            .call("read", format!("/proc/{path}"))?;
        Ok(text)
    }

    /// Writes a whole value to an existing file.
    ///
    /// # Errors
    ///
    /// Those of open(2) and write(2), and EXDEV where something is mounted over the file and no procfs without that can be
    /// had.
    pub(crate) fn write(&self, path: &str, value: &[u8]) -> Result<()> {
        let file = match open(self.0.as_fd(), path, libc::O_WRONLY) {
            // Something covers the file, or what it is in: an outer container's runtime may have done so (read-only
            // /proc/sys, lxcfs). What is meant is the kernel's own.
            Err(error) if error.errno() == Errno::EXDEV => match private() {
                Ok(procfs) => open(procfs.as_fd(), path, libc::O_WRONLY)?,
                Err(_) => return Err(error),
            },
            // What is mounted at /proc may have processes only (the option subset=pid).
            Err(error) if error.errno() == Errno::ENOENT && path.starts_with("sys/") && self.lacks_sys() => {
                let procfs = private().map_err(|cause| {
                    let what = format!("\"/proc/{path}\", as \"/proc\" is mounted with subset=pid ({cause})");
                    Error::new("open", what, Errno::ENOENT)
                })?;
                open(procfs.as_fd(), path, libc::O_WRONLY)?
            }
            // The look-up left neither the directory nor its mount, so the file is of the procfs that was verified.
            file => file?,
        };
        let mut file = std::fs::File::from(file);
        std::io::Write::write_all(&mut file, value).call("write", format!("/proc/{path}"))
    }
}

impl Procfs {
    fn lacks_sys(&self) -> bool {
        open(self.0.as_fd(), "sys", libc::O_PATH).is_err_and(|error| error.errno() == Errno::ENOENT)
    }
}

impl From<Procfs> for OwnedFd {
    fn from(procfs: Procfs) -> Self {
        procfs.0
    }
}

fn open(procfs: BorrowedFd<'_>, path: &str, flags: i32) -> Result<OwnedFd> {
    let named = |error: Error| Error::new("open", format!("{:?}", format!("/proc/{path}")), error.errno());
    let path = CString::new(path).map_err(|_| Error::new("open", format!("{path:?}"), Errno::EINVAL))?;
    openat2(procfs, &path, flags, 0, BENEATH_NO_LINKS | libc::RESOLVE_NO_XDEV).map_err(named)
}

impl AsFd for Procfs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A new mount of procfs in no mount namespace: nothing is ever mounted over its files.
fn private() -> Result<OwnedFd> {
    let context = fsopen(c"proc")?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), 0)
}

fn verified(fd: BorrowedFd<'_>, path: &str) -> Result<()> {
    match fs_type(fd)? {
        PROC_SUPER_MAGIC => Ok(()),
        _ => Err(Error::new("open", format!("{path:?}, which is not on a proc file system"), Errno::EXDEV)),
    }
}
