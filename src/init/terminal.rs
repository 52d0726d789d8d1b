//! The container's terminal: from its own devpts, handed out over the console socket. Runs inside, after the root is
//! changed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;
use nix::unistd::Uid;

use super::mount::bind_file;
use super::paths::{Links, Root, fs_type, open_at};
use crate::launch::tty;
use crate::spec::ConsoleSize;
use crate::sys::fs::{BENEATH_NO_LINKS, openat2};
use crate::sys::{self, Context, tty as ioctl};

const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// Makes the terminal, sends its master, and makes the slave the standard streams and the controlling terminal.
pub(crate) fn set_up(root: &Root, size: &ConsoleSize, uid: u32, socket: OwnedFd, own_mounts: bool) -> Result<()> {
    let master = open_master(root)?;
    ioctl::unlock(master.as_fd())?;
    let slave = ioctl::peer(master.as_fd())?;
    if size.height != 0 || size.width != 0 {
        let size = libc::winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
        ioctl::set_size(master.as_fd(), size)?;
    }
    if uid != 0 {
        nix::unistd::fchown(&slave, Some(Uid::from_raw(uid)), None).call("chown", "terminal")?;
    }
    if own_mounts {
        console(root, slave.as_fd()).context("\"/dev/console\"")?;
    }
    tty::send(socket, b"/dev/pts/ptmx", master.as_fd()).context("console socket")?;
    ioctl::set_controlling(slave.as_fd())?;
    for number in 0..3 {
        sys::fs::dup_onto(slave.as_fd(), number)?;
    }
    Ok(())
}

/// The multiplexer of the container's own devpts: an image can put anything there (CVE-2025-52565).
fn open_master(root: &Root) -> Result<OwnedFd> {
    let directory = root
        .open("/dev/pts", libc::O_PATH | libc::O_DIRECTORY, Links::Refuse)
        .context("a terminal needs a devpts mount at /dev/pts")?;
    // Before anything in it is opened: to open a device can be an effect of its own.
    if fs_type(directory.as_fd())? != DEVPTS_SUPER_MAGIC {
        bail!("\"/dev/pts\" is not a devpts file system: a terminal needs one mounted at /dev/pts");
    }
    // Of that very mount: a process in the container may have mounted something else on the file.
    let (flags, resolve) = (libc::O_RDWR | libc::O_NOCTTY, BENEATH_NO_LINKS | libc::RESOLVE_NO_XDEV);
    openat2(directory.as_fd(), c"ptmx", flags, 0, resolve).or_else(|error| match error.errno() {
        Errno::EXDEV => bail!(COVERED),
        Errno::ENOSYS => master_by_number(directory.as_fd()),
        _ => Err(error.into()),
    })
}

const COVERED: &str = "\"/dev/pts/ptmx\" is not the terminal multiplexer: something is mounted on it";

/// Where nothing tells mounts apart the multiplexer is known by the numbers of its file system, which is the container's
/// devpts alone, and of its device.
fn master_by_number(devpts: BorrowedFd<'_>) -> Result<OwnedFd> {
    let instance = fstat(devpts).call("fstat", "/dev/pts")?.st_dev;
    let look = |fd: &OwnedFd| -> Result<()> {
        let stat = fstat(fd).call("fstat", "ptmx")?;
        let wanted = (instance, libc::S_IFCHR, libc::makedev(5, 2));
        ensure!((stat.st_dev, stat.st_mode & libc::S_IFMT, stat.st_rdev) == wanted, COVERED);
        Ok(())
    };
    // Before it is opened: to open a device can be an effect of its own.
    look(&open_at(devpts, c"ptmx", OFlag::O_PATH)?)?;
    let master = open_at(devpts, c"ptmx", OFlag::O_RDWR | OFlag::O_NOCTTY)?;
    look(&master).map(|()| master)
}

/// The slave by its descriptor onto a file that is no link (runtime-linux.md; CVE-2025-52565).
fn console(root: &Root, slave: BorrowedFd<'_>) -> Result<()> {
    Ok(bind_file(slave, &root.file_slot_no_link("/dev/console")?)?)
}
