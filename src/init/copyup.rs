//! `tmpcopyup`: a tmpfs starts with what the directory below it holds. Runs inside, by descriptors, following no link.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat, mkdirat, mknodat};
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

use super::paths::{Slot, kind, listable, open_at};
use crate::sys::{Context, Error, Result};

/// Copies what a mount point holds into the tmpfs that will cover it.
pub(crate) fn copy(from: &Slot<'_>, to: BorrowedFd<'_>) -> Result<()> {
    match from.at() {
        (handle, name) if name.is_empty() => copy_entries(handle, to),
        (dir, name) => copy_entries(open_at(dir, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?.as_fd(), to),
    }
}

/// Copies the entries of one directory into another, with owners and modes.
fn copy_entries(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let mut entries = Dir::from_fd(listable(from)?).call("opendir", "tmpcopyup")?;
    for entry in entries.iter() {
        let entry = entry.call("readdir", "tmpcopyup")?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_one(from, to, name)?;
        }
    }
    Ok(())
}

fn copy_one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW).call("stat", name)?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    match kind {
        SFlag::S_IFDIR => {
            mkdirat(to, name, Mode::S_IRWXU).call("mkdir", name)?;
            let new = open_at(to, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
            let old = open_at(from, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
            copy_entries(old.as_fd(), new.as_fd())?;
        }
        SFlag::S_IFREG => copy_file(from, to, name)?,
        SFlag::S_IFLNK => {
            let target = readlinkat(from, name).call("readlink", name)?;
            symlinkat(target.as_os_str(), to, name).call("symlink", name)?;
        }
        _ => mknodat(to, name, kind, Mode::S_IRUSR, stat.st_rdev).call("mknod", name)?,
    }
    take_over(to, name, &stat, kind)
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    // Somebody who shares the directory may have put a FIFO in the file's place meanwhile: nothing waits for one.
    let old = open_at(from, name, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
    if kind(old.as_fd())? != SFlag::S_IFREG {
        return Err(Error::new("open", format!("{name:?}, which changes meanwhile"), Errno::ESTALE));
    }
    let mut old = std::fs::File::from(old);
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let new = nix::fcntl::openat(to, name, flags, Mode::S_IRUSR | Mode::S_IWUSR).call("open", name)?;
    std::io::copy(&mut old, &mut std::fs::File::from(new)).call("copy", name)?;
    Ok(())
}

/// Owner first: a change of owner clears the set-user-ID bit that the mode may hold.
fn take_over(to: BorrowedFd<'_>, name: &CStr, stat: &FileStat, kind: SFlag) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchownat(to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).call("chown", name)?;
    let mode = Mode::from_bits_truncate(stat.st_mode);
    match kind {
        SFlag::S_IFLNK => Ok(()),
        SFlag::S_IFDIR => fchmod(open_at(to, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?, mode).call("chmod", name),
        // This tmpfs is still detached: nothing else can have put a link in the place of what was just made.
        _ => nix::sys::stat::fchmodat(to, name, mode, nix::sys::stat::FchmodatFlags::FollowSymlink).call("chmod", name),
    }
}
