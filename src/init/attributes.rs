//! Attributes and propagation of a mount, by its descriptor: with mount_setattr(2), and with mount(2) before Linux 5.12.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use crate::plan::options::{Attrs, Propagation, Reach};
use crate::sys::mount::{self as api, Tree};
use crate::sys::{self, Context};

/// A path that means exactly this descriptor, for calls that know paths only.
pub(super) fn by_fd(fd: BorrowedFd<'_>) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default()
}

/// Sets attributes, or others where these aren't permitted.
pub(super) fn over_locked([attrs, asked]: [Attrs; 2], set: impl Fn(Attrs) -> sys::Result<()>) -> sys::Result<()> {
    let set = |attrs: Attrs| if attrs.is_empty() { Ok(()) } else { set(attrs) };
    match set(attrs) {
        Err(error) if error.errno() == Errno::EPERM && asked != attrs => set(asked),
        done => done,
    }
}

pub(super) fn attributes(mount: BorrowedFd<'_>, attrs: Attrs, recursive: Attrs) -> sys::Result<()> {
    if !attrs.is_empty() {
        set_attrs(mount, Tree::One, attrs)?;
    }
    if !recursive.is_empty() {
        set_attrs(mount, Tree::Recursive, recursive)?;
    }
    Ok(())
}

/// mount_setattr(2); before 5.12 a bind remount of the one mount, which keeps what isn't mentioned.
pub(crate) fn set_attrs(mount: BorrowedFd<'_>, tree: Tree, attrs: Attrs) -> sys::Result<()> {
    match api::mount_setattr(mount, tree, attrs.set, attrs.clear, 0) {
        Err(error) if error.errno() == Errno::ENOSYS && tree == Tree::One => {
            let current = nix::sys::statfs::fstatfs(mount).call("fstatfs", "mount")?.flags();
            let flags = attrs.ms_flags_over(ms_of(current.bits()));
            api::mount(None, &by_fd(mount), None, libc::MS_REMOUNT | libc::MS_BIND | flags, None)
        }
        result => result,
    }
}

/// statfs(2) spells most flags as mount(2) does.
pub(super) fn ms_of(st: libc::c_ulong) -> libc::c_ulong {
    const ST_RELATIME: libc::c_ulong = 0x1000;
    const ST_NOSYMFOLLOW: libc::c_ulong = 0x2000;
    let same = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let same = same | libc::MS_NOATIME | libc::MS_NODIRATIME;
    let relatime = if st & ST_RELATIME != 0 { libc::MS_RELATIME } else { 0 };
    let nosymfollow = if st & ST_NOSYMFOLLOW != 0 { libc::MS_NOSYMFOLLOW } else { 0 };
    (st & same) | relatime | nosymfollow
}

/// Propagation types, each a change of its own, in order.
pub(crate) fn propagate(mount: BorrowedFd<'_>, list: &[Propagation]) -> sys::Result<()> {
    for change in list {
        let tree = if change.reach == Reach::Tree { Tree::Recursive } else { Tree::One };
        match api::mount_setattr(mount, tree, 0, 0, change.kind) {
            Err(error) if error.errno() == Errno::ENOSYS => {
                api::mount(None, &by_fd(mount), None, change.ms_flags(), None)?;
            }
            result => result?,
        }
    }
    Ok(())
}
