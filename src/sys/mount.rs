//! The mount API of 5.2 and 5.12 (open_tree, move_mount, fsopen, fsconfig, fsmount, mount_setattr), and mount(2),
//! umount2(2) and pivot_root(2) beside it.

use std::ffi::{CStr, CString, OsString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::ptr::null;

use nix::errno::Errno;
use nix::sys::stat::{fstat, stat};

use super::error::{Context as _, Error, Result, check};
use super::newer;

const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;

/// A descriptor that the kernel has just made.
fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the caller passes a fresh descriptor from a system call; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// How much of a mount [`open_tree`] copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tree {
    One,
    Recursive,
}

/// open_tree(2): a detached copy of the mount at `path`, below `dir` (an empty path is `dir` itself). A symbolic
/// link at the end is followed, as mount(2) does.
pub(crate) fn open_tree(dir: BorrowedFd<'_>, path: &CStr, tree: Tree) -> Result<OwnedFd> {
    open_tree_with(dir, path, tree, 0)
}

/// [`open_tree`] that follows no link at the end.
pub(crate) fn open_tree_nofollow(dir: BorrowedFd<'_>, path: &CStr, tree: Tree) -> Result<OwnedFd> {
    open_tree_with(dir, path, tree, libc::AT_SYMLINK_NOFOLLOW)
}

/// [`open_tree`] for a caller to whom every failure is the same: after EPERM, which ordinary users get each time, nobody
/// asks whose it is.
pub(crate) fn try_open_tree(dir: BorrowedFd<'_>, path: &CStr, tree: Tree) -> Result<OwnedFd> {
    let ret = open_tree_call(dir, path, tree, 0);
    check("open_tree", ret, || format!("{path:?}")).map(owned)
}

fn open_tree_with(dir: BorrowedFd<'_>, path: &CStr, tree: Tree, flags: i32) -> Result<OwnedFd> {
    let ret = open_tree_call(dir, path, tree, flags);
    newer::OPEN_TREE.check(ret, || format!("{path:?}")).map(owned)
}

fn open_tree_call(dir: BorrowedFd<'_>, path: &CStr, tree: Tree, flags: i32) -> libc::c_long {
    let mut flags = flags | libc::OPEN_TREE_CLONE as i32 | libc::OPEN_TREE_CLOEXEC as i32 | libc::AT_EMPTY_PATH;
    if tree == Tree::Recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: `path` is a C string that lives across the call.
    unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) }
}

/// [`open_tree_nofollow`], or with `follow` [`open_tree`], of one mount whose copy has other attributes: open_tree_attr(2),
/// Linux 6.15. Where that can't be had, an error, and nothing is left of it.
pub(crate) fn open_tree_attr(
    dir: BorrowedFd<'_>,
    path: &CStr,
    link: Link,
    set: u64,
    clear: u64,
    propagation: u64,
) -> Result<OwnedFd> {
    /// The same on every architecture that this runs on.
    const SYS_OPEN_TREE_ATTR: libc::c_long = 467;
    let link = if link == Link::Follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    let flags = link | libc::OPEN_TREE_CLONE as i32 | libc::OPEN_TREE_CLOEXEC as i32 | libc::AT_EMPTY_PATH;
    let attr = libc::mount_attr { attr_set: set, attr_clr: clear, propagation, userns_fd: 0 };
    // SAFETY: `path` is a C string and `attr` a valid mount_attr of the size given; both live across the call.
    let ret = unsafe {
        libc::syscall(
            SYS_OPEN_TREE_ATTR,
            dir.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    check("open_tree_attr", ret, || format!("{path:?}")).map(owned)
}

/// Whether a symbolic link at the end of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Follow,
    Refuse,
}

/// move_mount(2) onto `name` below `to`, or onto `to` itself when the name is empty. A link at the end is not followed.
pub(crate) fn move_mount(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | if name.is_empty() { MOVE_MOUNT_T_EMPTY_PATH } else { 0 };
    // SAFETY: both paths are C strings that live across the call.
    let ret = unsafe {
        libc::syscall(libc::SYS_move_mount, from.as_raw_fd(), c"".as_ptr(), to.as_raw_fd(), name.as_ptr(), flags)
    };
    match newer::MOVE_MOUNT.check(ret, || if name.is_empty() { String::new() } else { format!("{name:?}") }) {
        Err(error) if error.errno() == Errno::ENOSYS => {
            let to = path_of(to, name).map_err(|_| error.clone())?;
            move_by_mount2(from, &to, error)
        }
        moved => moved.map(drop),
    }
}

/// mount(2), MS_MOVE, takes a detached mount, too, by the link to its descriptor in /proc. Where there is none, the error is
/// `lacking`.
fn move_by_mount2(from: BorrowedFd<'_>, to: &CStr, lacking: Error) -> Result<()> {
    let from = path_of(from, c"").map_err(|_| lacking)?;
    mount(Some(&from), to, None, libc::MS_MOVE, None)
}

/// mount(2), MS_BIND, of a file onto `name` below `to`, or onto `to` itself when the name is empty.
pub(crate) fn bind(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    mount(Some(&path_of(from, c"")?), &path_of(to, name)?, None, libc::MS_BIND, None)
}

/// A path that means exactly this descriptor, or a name in it that is no link, for calls that know paths only. An error
/// where what is mounted at /proc can't be trusted with it.
fn path_of(dir: BorrowedFd<'_>, name: &CStr) -> Result<CString> {
    let own = fstat(dir).call("fstat", "mount point")?;
    let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
    let seen = stat(path.as_str()).call("stat", &path)?;
    if (own.st_dev, own.st_ino) != (seen.st_dev, seen.st_ino) {
        return Err(Error::new("stat", format!("{path:?}, which is another file"), Errno::EXDEV));
    }
    let slash = if name.is_empty() { "" } else { "/" };
    let path = [path.as_bytes(), slash.as_bytes(), name.to_bytes()].concat();
    CString::new(path).map_err(|_| Error::new("stat", String::new(), Errno::EINVAL))
}

/// move_mount(2) onto a path, following links.
pub(crate) fn move_mount_following(from: BorrowedFd<'_>, path: &CStr) -> Result<()> {
    const MOVE_MOUNT_T_SYMLINKS: u32 = 0x10;
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS;
    // SAFETY: both paths are C strings that live across the call.
    let ret = unsafe {
        libc::syscall(libc::SYS_move_mount, from.as_raw_fd(), c"".as_ptr(), libc::AT_FDCWD, path.as_ptr(), flags)
    };
    match newer::MOVE_MOUNT.check(ret, || format!("{path:?}")) {
        Err(error) if error.errno() == Errno::ENOSYS => move_by_mount2(from, path, error),
        moved => moved.map(drop),
    }
}

/// fsopen(2).
pub(crate) fn fsopen(kind: &CStr) -> Result<OwnedFd> {
    // SAFETY: `kind` is a C string that lives across the call.
    let ret = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) };
    newer::FSOPEN.check(ret, || format!("{kind:?}")).map(owned)
}

/// How many bytes fsconfig(2) takes as a string.
pub(crate) const FSCONFIG_LONGEST: usize = 255;

/// fsconfig(2), FSCONFIG_SET_STRING, or FSCONFIG_SET_FLAG for a key without value. A string that is too long for it is
/// ENOSYS, as if there were no such call: mount(2) takes longer ones.
pub(crate) fn fsconfig_set(fs: BorrowedFd<'_>, key: &CStr, value: Option<&CStr>) -> Result<()> {
    if [Some(key), value].into_iter().flatten().any(|text| text.to_bytes().len() > FSCONFIG_LONGEST) {
        let what = format!("{:.40}..., longer than {FSCONFIG_LONGEST} bytes", key.to_string_lossy());
        return Err(Error::new("fsconfig", what, Errno::ENOSYS));
    }
    let command = if value.is_some() { FSCONFIG_SET_STRING } else { FSCONFIG_SET_FLAG };
    let value_ptr = value.map_or(null(), CStr::as_ptr);
    // SAFETY: `key` and `value` are C strings that live across the call; a flag's value must be null.
    let ret = unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), command, key.as_ptr(), value_ptr, 0) };
    newer::FSCONFIG
        .check(ret, || match value {
            Some(value) => format!("{}={}", key.to_string_lossy(), value.to_string_lossy()),
            None => key.to_string_lossy().into_owned(),
        })
        .map(drop)
}

/// fsconfig(2), FSCONFIG_CMD_CREATE: makes the superblock.
pub(crate) fn fsconfig_create(fs: BorrowedFd<'_>) -> Result<()> {
    let none = null::<libc::c_char>();
    // SAFETY: the command takes neither key nor value.
    let ret = unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0) };
    newer::FSCONFIG.check(ret, || "create".into()).map(drop)
}

/// fsmount(2): a detached mount of the superblock, with `MOUNT_ATTR_*`.
pub(crate) fn fsmount(fs: BorrowedFd<'_>, attributes: u64) -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let ret = unsafe { libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) };
    newer::FSMOUNT.check(ret, || format!("attributes {attributes:#x}")).map(owned)
}

/// mount_setattr(2) on a mount's own descriptor. `propagation` is one MS_* flag or 0.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, tree: Tree, set: u64, clear: u64, propagation: u64) -> Result<()> {
    set_attr(mount, tree, &libc::mount_attr { attr_set: set, attr_clr: clear, propagation, userns_fd: 0 }, || {
        format!("set {set:#x}, clear {clear:#x}, propagation {propagation:#x}")
    })
}

/// mount_setattr(2), MOUNT_ATTR_IDMAP: ids of the detached mount are mapped as in a user namespace.
pub(crate) fn idmap(mount: BorrowedFd<'_>, tree: Tree, user_namespace: BorrowedFd<'_>) -> Result<()> {
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    let userns_fd = user_namespace.as_raw_fd() as u64;
    let attr = libc::mount_attr { attr_set: MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd };
    set_attr(mount, tree, &attr, || "MOUNT_ATTR_IDMAP".into())
}

fn set_attr(mount: BorrowedFd<'_>, tree: Tree, attr: &libc::mount_attr, args: impl FnOnce() -> String) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if tree == Tree::Recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string and `attr` a valid mount_attr of the size given.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    newer::MOUNT_SETATTR.check(ret, args).map(drop)
}

/// mount(2).
pub(crate) fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: u64,
    data: Option<&CStr>,
) -> Result<()> {
    let text = |s: Option<&CStr>| s.map_or(null(), CStr::as_ptr);
    // SAFETY: every pointer is null or a C string that lives across the call.
    let ret = unsafe { libc::mount(text(source), target.as_ptr(), text(kind), flags, text(data).cast()) };
    let options = || data.filter(|data| !data.is_empty()).map(|data| format!(", options {data:?}")).unwrap_or_default();
    check("mount", ret.into(), || format!("{target:?}, flags {flags:#x}{}", options())).map(drop)
}

/// umount2(2).
pub(crate) fn umount2(target: &CStr, flags: i32) -> Result<()> {
    // SAFETY: `target` is a C string that lives across the call.
    let ret = unsafe { libc::umount2(target.as_ptr(), flags) };
    check("umount2", ret.into(), || format!("{target:?}")).map(drop)
}

/// pivot_root(2) with the current directory as both new and old root, which leaves the old root mounted on top of
/// the new one.
pub(crate) fn pivot_root_here() -> Result<()> {
    // SAFETY: both paths are C strings.
    let ret = unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) };
    check("pivot_root", ret, String::new).map(drop)
}

/// mountinfo writes blank, tab, newline and backslash as `\` and three octal digits.
pub(crate) fn unescape(field: &[u8]) -> PathBuf {
    let (mut out, mut rest) = (Vec::with_capacity(field.len()), field);
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                rest = after;
                Some(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'))
            }
            _ => None,
        };
        out.push(escaped.unwrap_or_else(|| {
            rest = tail;
            *first
        }));
    }
    PathBuf::from(OsString::from_vec(out))
}
