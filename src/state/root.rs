//! The directory that holds the containers, and whose state is trusted.
//!
//! What is in there is done: its processes are killed, its hooks are run. So it must be the caller's own, or root's, and
//! nobody else may have put or exchanged anything on the way to it. Root that looks at a user's state acts as that user
//! from then on: whatever the state says, nothing is done that the user couldn't do.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstat, lstat, stat};
use nix::unistd::{getegid, geteuid};

use crate::host::in_user_namespace;
use crate::sys::{self, Context as _, process};

/// What the kernel shows for ids that a user namespace doesn't map: on the way there that is the host's root, as a rule.
const OVERFLOW_ID: u32 = 65534;

/// Who may write besides the owner, in a mode.
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
/// Only its owner may rename or remove an entry of such a directory.
const STICKY: u32 = 0o1000;

/// What a command is about to do below the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To look for containers: root becomes the user whose they are.
    Look,
    /// To make one, which is the caller's.
    Make,
}

/// Opens the root; none that isn't there. An error if what is in it can't be trusted.
pub(super) fn open(root: &Path, purpose: Purpose) -> Result<Option<OwnedFd>> {
    let untrusted = || format!("--root {root:?} is not to be trusted");
    let Some(way) = check_way(root).with_context(untrusted)? else { return Ok(None) };
    let Some(fd) = open_last(root).with_context(untrusted)? else { return Ok(None) };
    let status = fstat(&fd).call("fstat", root)?;
    check_mode(root, &status).with_context(untrusted)?;
    let foreign = !is_trusted(status.st_uid);
    if way.owner.is_some_and(|owner| !foreign || owner != status.st_uid) {
        // Whoever has a directory on the way can exchange what is in it, for what is somebody else's as well.
        bail!("--root {root:?} is not to be trusted: a directory on the way to it belongs to somebody else");
    }
    if foreign {
        if purpose == Purpose::Make || !geteuid().is_root() {
            return Err(belongs(root, status.st_uid)).with_context(untrusted);
        }
        become_owner(&status).with_context(|| format!("become the user whose state is in --root {root:?}"))?;
    }
    Ok(Some(fd))
}

/// Makes the root. Sticky, as in runc: cleaners of the runtime directory leave it alone (XDG Base Directory Specification).
pub(super) fn make(root: &Path) -> Result<()> {
    // Only its owner looks into it: the state tells where everything of every container is.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o1700).create(root);
    made.call("mkdir", root).map_err(|error| with_remedy(error, root))
}

/// An ordinary user has no place in /run but his own.
pub(super) fn with_remedy(error: sys::Error, path: &Path) -> anyhow::Error {
    let denied = matches!(error.errno(), Errno::EACCES | Errno::EPERM | Errno::EROFS);
    if !denied || !path.starts_with("/run") {
        return error.into();
    }
    anyhow::Error::new(error).context("no place for the state of containers: set XDG_RUNTIME_DIR, or give --root")
}

/// An error unless the folder of a container is the caller's, or root's, and nobody else may write to it.
pub(super) fn check_entry(path: &Path, status: &FileStat) -> Result<()> {
    if !is_trusted(status.st_uid) {
        return Err(belongs(path, status.st_uid));
    }
    if status.st_mode & OTHERS_WRITE != 0 || group_writes(status) {
        bail!("{path:?} may be written to by others than its owner: its mode is {:o}", status.st_mode & 0o7777);
    }
    Ok(())
}

/// What is known of the directories above the root.
#[derive(Debug, Default)]
struct Way {
    /// Somebody else whose one of them is: the first such.
    owner: Option<u32>,
}

/// Looks at the directories above, from the top, so that each is known to stay what it is when the next is looked at.
fn check_way(root: &Path) -> Result<Option<Way>> {
    let mut way = Way::default();
    let above: Vec<&Path> = root.ancestors().skip(1).collect();
    for path in above.into_iter().rev().filter(|path| path.parent().is_some()) {
        let mut status = match lstat(path) {
            Err(Errno::ENOENT) => return Ok(None),
            status => status.call("stat", path)?,
        };
        if status.st_mode & libc::S_IFMT == libc::S_IFLNK {
            check_link(path, &status)?;
            status = stat(path).call("stat", path)?;
        }
        if is_foreign(status.st_uid) {
            way.owner = way.owner.or(Some(status.st_uid));
        }
        if status.st_mode & OTHERS_WRITE != 0 && status.st_mode & STICKY == 0 {
            bail!("anybody may exchange what is in {path:?}: its mode is {:o}", status.st_mode & 0o7777);
        }
    }
    Ok(Some(way))
}

/// No link of somebody else's is followed: it may lead to what is trusted because it is the caller's.
fn check_link(path: &Path, status: &FileStat) -> Result<()> {
    if is_foreign(status.st_uid) {
        return Err(belongs(path, status.st_uid)).context("a link on the way");
    }
    Ok(())
}

/// Opens the root itself, which may be a link.
fn open_last(root: &Path) -> Result<Option<OwnedFd>> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let opened = match openat(sys::fs::CWD, root, flags | OFlag::O_NOFOLLOW, Mode::empty()) {
        Err(Errno::ENOTDIR | Errno::ELOOP) => {
            check_link(root, &lstat(root).call("stat", root)?)?;
            openat(sys::fs::CWD, root, flags, Mode::empty())
        }
        opened => opened,
    };
    match opened {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno).call("open", root).map_err(|error| with_remedy(error, root)),
    }
}

fn check_mode(root: &Path, status: &FileStat) -> Result<()> {
    let open = status.st_mode & OTHERS_WRITE != 0 || group_writes(status);
    if open && status.st_mode & STICKY == 0 {
        bail!("others may exchange what is in {root:?}: its mode is {:o}", status.st_mode & 0o7777);
    }
    Ok(())
}

/// A group of the caller's own counts as the caller: where every user has one, umask 002 is common.
fn group_writes(status: &FileStat) -> bool {
    status.st_mode & GROUP_WRITES != 0 && status.st_gid != 0 && status.st_gid != getegid().as_raw()
}

fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

/// Somebody else, as far as directories on the way are concerned.
fn is_foreign(uid: u32) -> bool {
    !is_trusted(uid) && !is_hosts_root(uid)
}

/// Asked of directories on the way only: in a user namespace nothing else is known of the host's.
fn is_hosts_root(uid: u32) -> bool {
    uid == OVERFLOW_ID && in_user_namespace()
}

fn belongs(path: &Path, uid: u32) -> anyhow::Error {
    let own = geteuid();
    // The errno that the kernel would have: callers look for it.
    anyhow::anyhow!("{path:?} belongs to user {uid}, and this is user {own} (EPERM)")
}

/// Gives up every right but those of the state's owner, for good.
fn become_owner(status: &FileStat) -> Result<()> {
    log::debug!("the state is user {}'s: going on as that user", status.st_uid);
    match process::leave_session_keyring() {
        // The keys of the caller's session are root's.
        Err(_) if !process::keys_are_within_reach() => {}
        Err(error) if matches!(error.errno(), Errno::ENOSYS | Errno::EOPNOTSUPP) => {}
        left => left?,
    }
    process::act_for_another();
    process::setgroups(&[])?;
    process::setresgid(status.st_gid)?;
    process::setresuid(status.st_uid)?;
    Ok(())
}

/// The containers below the root by name, as far as they have the names of containers.
pub(super) fn names(root: &Path) -> Result<Vec<String>> {
    let Some(fd) = open(root, Purpose::Look)? else { return Ok(Vec::new()) };
    // Of that very directory, and readable, which a descriptor of its path alone is not.
    let path = PathBuf::from(root);
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let mut dir = nix::dir::Dir::openat(fd.as_fd(), ".", flags, Mode::empty()).call("open", &path)?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry.call("read", &path)?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if !name.starts_with('.') && is_directory(&fd, &entry) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn is_directory(root: &OwnedFd, entry: &nix::dir::Entry) -> bool {
    use nix::fcntl::AtFlags;
    match entry.file_type() {
        Some(kind) => kind == nix::dir::Type::Directory,
        // Some file systems don't tell.
        None => nix::sys::stat::fstatat(root, entry.file_name(), AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|status| status.st_mode & libc::S_IFMT == libc::S_IFDIR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_root_that_anybody_may_write_to_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().join("root");
        assert!(open(&root, Purpose::Look).unwrap().is_none());
        std::fs::create_dir(&root).unwrap();
        for (mode, trusted) in [(0o700, true), (0o755, true), (0o1777, true), (0o777, false), (0o702, false)] {
            set_mode(&root, mode);
            assert_eq!(open(&root, Purpose::Look).is_ok(), trusted, "{mode:o}");
            assert_eq!(open(&root, Purpose::Make).is_ok(), trusted, "{mode:o}");
        }
        set_mode(&root, 0o700);
        set_mode(base.path(), 0o777);
        let error = format!("{:#}", open(&root, Purpose::Look).unwrap_err());
        assert!(error.contains("not to be trusted") && error.contains("777"), "{error}");
        set_mode(base.path(), 0o700);
    }

    #[test]
    fn an_entry_is_its_owners_alone() {
        let base = tempfile::tempdir().unwrap();
        for (mode, trusted) in [(0o711, true), (0o755, true), (0o713, false), (0o1777, false)] {
            set_mode(base.path(), mode);
            assert_eq!(check_entry(base.path(), &stat(base.path()).unwrap()).is_ok(), trusted, "{mode:o}");
        }
        set_mode(base.path(), 0o700);
    }
}
