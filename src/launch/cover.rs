//! Keeps this program's file out of reach of containers (CVE-2019-5736).
//!
//! A process that is on its way into a container executes what the container brings: `/proc/self/exe` as a program, or as
//! the interpreter of one, would be the host's `tare`, and what holds it by `/proc/PID/exe` can write to it once nobody
//! executes it. The peers run each command a second time from a copy or a read-only mount of their binary, which costs
//! an execve (0.5 ms here). This program does without: the process that goes in gives up its file. Its code is mapped anew from
//! the same file on a detached, read-only mount, which is in no mount namespace and of which no descriptor stays open,
//! and `/proc/PID/exe` becomes an empty, sealed file. Nothing in the container has a way to the binary then:
//! - `/proc/self/exe` and `/proc/PID/exe`, executed, opened, or kept for later, are the empty file;
//! - `/proc/PID/map_files` opens only with CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the *initial* user namespace, and
//!   gives a file on a read-only mount even then;
//! - the runtime's other processes never enter the container, and are out of reach of a process with less than their
//!   rights (ptrace(2), "Ptrace access mode checking").
//!
//! Where the kernel or a sandbox around the runtime doesn't permit that, the command starts again from a sealed memfd, a
//! copy of the binary. Where no memfd can be executed (sysctl `vm.memfd_noexec=2`), both are temporary files without a name:
//! nothing that is executed later is ever in one of them. An ordinary user's containers need neither if the file belongs to somebody else: no process in them has
//! an id that may write it.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::plan::options::attr;
use crate::sys::clone::{CStrings, execve};
use crate::sys::fs::{CWD, leave};
use crate::sys::mount::{Link, Tree, mount_setattr, open_tree_attr, try_open_tree};
use crate::sys::{self, Context, exe};

const EXE: &std::ffi::CStr = c"/proc/self/exe";

/// Gives the file up, in this process and all that it clones. Called before the first side effect: where it isn't
/// permitted, the whole command starts again.
pub(crate) fn draw() -> Result<()> {
    let Err(error) = give_up() else { return Ok(()) };
    if is_nobodys()? || belongs_to_another()? {
        return Ok(());
    }
    log::debug!("starting again from a sealed copy of this program: {error}");
    let Err(failure) = restart();
    Err(failure.context(format!("protect this program's file from the container (CVE-2019-5736): {error}")))
}

fn give_up() -> sys::Result<()> {
    let empty = Nameless::new()?.finish()?;
    // In one call since Linux 6.15.
    let mount = open_tree_attr(CWD, EXE, Link::Follow, attr::RDONLY, 0, 0).or_else(|_| -> sys::Result<OwnedFd> {
        let mount = try_open_tree(CWD, EXE, Tree::One)?;
        mount_setattr(mount.as_fd(), Tree::One, attr::RDONLY, 0, 0).map(|()| mount)
    })?;
    let image = reopen(&mount)?;
    exe::replace(image.as_fd(), empty.as_fd())?;
    // A clone that goes in closes what it doesn't need. To let go of a mount takes a grace period, so this process does it
    // when it has nothing else to do.
    [image, empty, mount].into_iter().for_each(leave);
    Ok(())
}

/// Whether this program is a copy that nobody else executes: sealed, or without a name.
fn is_nobodys() -> sys::Result<bool> {
    let own = open(EXE)?;
    Ok(exe::sealed(own.as_fd()) || nix::sys::stat::fstat(&own).call("fstat", EXE)?.st_nlink == 0)
}

/// A file without a name that can be executed.
#[derive(Debug)]
enum Nameless {
    Memfd(OwnedFd),
    /// It can't be sealed.
    Temporary(OwnedFd),
}

impl Nameless {
    fn new() -> sys::Result<Self> {
        match exe::memfd_create(c"tare") {
            Ok(memfd) => Ok(Self::Memfd(memfd)),
            // vm.memfd_noexec=2, or a filter around the runtime.
            Err(error) if matches!(error.errno(), Errno::EACCES | Errno::ENOSYS) => {
                temporary_file().map(Self::Temporary).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    fn file(&self) -> &OwnedFd {
        match self {
            Self::Memfd(file) | Self::Temporary(file) => file,
        }
    }

    /// Opens it anew, read-only: what is executed must not be open for writing.
    fn finish(self) -> sys::Result<OwnedFd> {
        if let Self::Memfd(memfd) = &self {
            exe::seal(memfd.as_fd())?;
        }
        reopen(self.file())
    }
}

/// A file that is in no directory and can't be linked into one (O_TMPFILE with O_EXCL), where programs may be executed.
fn temporary_file() -> Option<OwnedFd> {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let usual = ["/run", "/tmp", "/var/tmp", "/dev/shm", "/var/lib"].map(PathBuf::from);
    let flags = OFlag::O_TMPFILE | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let files =
        own.into_iter().chain(usual).flat_map(|directory| nix::fcntl::openat(CWD, &directory, flags, Mode::S_IRWXU));
    files.into_iter().find(|file| fstatvfs(file).is_ok_and(|fs| !fs.flags().contains(FsFlags::ST_NOEXEC)))
}

/// Whether no id that an ordinary user's containers can have (its own and those of /etc/subuid) may write this file.
fn belongs_to_another() -> sys::Result<bool> {
    if nix::unistd::geteuid().as_raw() == 0 {
        return Ok(false);
    }
    let stat = nix::sys::stat::stat(EXE).call("stat", EXE)?;
    Ok(stat.st_uid == 0 && stat.st_mode & 0o022 == 0)
}

fn open(path: &std::ffi::CStr) -> sys::Result<OwnedFd> {
    nix::fcntl::openat(CWD, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).call("open", path)
}

fn reopen(fd: &OwnedFd) -> sys::Result<OwnedFd> {
    open(&CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default())
}

/// Executes a sealed copy of this program with the same arguments.
fn restart() -> Result<std::convert::Infallible> {
    let copy = Nameless::new()?;
    let mut to = std::fs::File::from(copy.file().try_clone().call("dup", EXE)?);
    std::io::copy(&mut std::fs::File::from(open(EXE)?), &mut to).call("copy", EXE)?;
    drop(to);
    let program = copy.finish()?;
    let arguments = std::fs::read("/proc/self/cmdline").call("read", "/proc/self/cmdline")?;
    let arguments = arguments
        .split_inclusive(|byte| *byte == 0)
        .filter_map(|argument| CString::new(argument.strip_suffix(&[0]).unwrap_or(argument)).ok());
    let path = CString::new(format!("/proc/self/fd/{}", program.as_raw_fd()))?;
    let environment = sys::environment::own();
    Err(execve(&path, &CStrings::new(arguments.collect()), &environment).into())
}
