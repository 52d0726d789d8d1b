//! Id-mapped mounts (mount_setattr(2), MOUNT_ATTR_IDMAP), outside: they take rights over the file system and over the
//! user namespace whose mapping they get.
//!
//! The trees are detached copies whose descriptors the container's process has too: it attaches what was mapped here.
//! The container's own mapping is taken from its user namespace; each other one costs a namespace of its own, which needs
//! a process only while its maps are written.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat};
use nix::unistd::Pid;

use super::idmaps;
use super::prepare::Source;
use crate::error::invalid;
use crate::host::INITIAL_USER_NAMESPACE;
use crate::init::Prepared;
use crate::plan::id_maps::{IdMap, Writer};
use crate::plan::mounts::{IdMapped, MountStep, What};
use crate::plan::namespaces::Kind;
use crate::plan::options::{Bind, Reach};
use crate::plan::{IdMaps, Plan};
use crate::sys::clone::{Cloned, clone_into, wait};
use crate::sys::mount::{self as api, Tree};
use crate::sys::{self, Context};

/// Maps every mount that asks for it. `pid` is the container's process, whose user namespace has its maps.
pub(super) fn map(prepared: &Prepared, pid: Pid) -> Result<()> {
    let plan = &prepared.plan;
    let mut namespaces: Vec<(Option<&IdMaps>, Rc<OwnedFd>)> = Vec::new();
    for (step, source) in plan.rootfs.steps.iter().zip(&prepared.opened.sources) {
        let What::Bind { idmap: Some(idmap), .. } = &step.what else { continue };
        let tree = match source {
            Source::Early(tree) => tree,
            Source::Late => continue,
            Source::Inside => bail!("internal error: an id-mapped mount without its tree"),
        };
        let own = idmap.own.as_ref();
        let namespace = match namespaces.iter().find(|(maps, _)| *maps == own) {
            Some((_, namespace)) => Rc::clone(namespace),
            None => {
                let namespace = match own {
                    Some(maps) => user_namespace(maps, &step.pointer)?,
                    None => of_container(prepared, pid)?,
                };
                let namespace = Rc::new(namespace);
                namespaces.push((own, Rc::clone(&namespace)));
                namespace
            }
        };
        map_one(plan, step, tree, namespace.as_fd())?;
    }
    Ok(())
}

/// Maps one mount that asks for it.
pub(super) fn map_one(plan: &Plan, step: &MountStep, tree: &OwnedFd, namespace: BorrowedFd<'_>) -> Result<()> {
    let What::Bind { idmap: Some(idmap), .. } = &step.what else { return Ok(()) };
    api::idmap(tree.as_fd(), reach(idmap), namespace).map_err(|error| refused(plan, step, namespace, error))
}

/// The user namespace whose mapping a mount asks for, of a container that is in its own already.
pub(super) fn namespace(idmap: &IdMapped, containers: &OwnedFd, step: &MountStep) -> Result<OwnedFd> {
    match &idmap.own {
        Some(maps) => user_namespace(maps, &step.pointer),
        None => Ok(containers.try_clone().call("dup", "user namespace")?),
    }
}

fn reach(idmap: &IdMapped) -> Tree {
    if idmap.reach == Reach::Tree { Tree::Recursive } else { Tree::One }
}

/// The container's user namespace. One that is joined may not have been joined yet.
fn of_container(prepared: &Prepared, pid: Pid) -> Result<OwnedFd> {
    let mut joins = prepared.plan.namespaces.joins.iter().zip(&prepared.joins);
    match joins.find(|(join, _)| join.kind == Kind::User) {
        Some((_, fd)) => Ok(fd.try_clone().call("dup", "user namespace")?),
        None => Ok(open_namespace(pid)?),
    }
}

fn open_namespace(pid: Pid) -> sys::Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/user");
    nix::fcntl::open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).call("open", &path)
}

/// A new user namespace with these maps. Its one process waits for this one to write them, or to end however it may.
fn user_namespace(maps: &IdMaps, at: &str) -> Result<OwnedFd> {
    let (theirs, ours) = nix::unistd::pipe2(OFlag::O_CLOEXEC).call("pipe2", "id map")?;
    let cloned = clone_into(libc::CLONE_NEWUSER as u64, None)
        .with_context(|| format!("config.json: {at}: user namespace for the mapping"))?;
    match cloned.0 {
        Cloned::Child => {
            drop(ours);
            // Locks and the channel to the container are the creator's alone: they must end with it.
            sys::fs::close_all_but(0, &[theirs.as_fd()]);
            let _ = nix::unistd::read(&theirs, &mut [0]);
            sys::exit(0)
        }
        Cloned::Parent { pid, .. } => {
            let made = idmaps::write(pid, maps, at).and_then(|()| Ok(open_namespace(pid)?));
            drop(ours);
            wait(pid)?;
            made
        }
    }
}

/// What id-mapped mounts need and this kernel, or a sandbox around the runtime, lacks.
pub(super) fn lacking(step: &MountStep, error: &sys::Error) -> anyhow::Error {
    invalid(&step.pointer, format!("id-mapped mounts need the mount calls of Linux 5.12: {error}"))
}

/// Why a mount can't be mapped: mount_setattr(2) has two errnos for it, and says nothing of which mount of a tree it was.
/// Each is tried alone to find out.
fn refused(plan: &Plan, step: &MountStep, namespace: BorrowedFd<'_>, error: sys::Error) -> anyhow::Error {
    if error.errno() == Errno::ENOSYS {
        return lacking(step, &error);
    }
    let joined = plan.namespaces.joins(Kind::User);
    let What::Bind { source, tree, idmap: Some(idmap), .. } = &step.what else { return error.into() };
    if joined && idmap.own.is_none() && fstat(namespace).is_ok_and(|stat| stat.st_ino == INITIAL_USER_NAMESPACE) {
        return invalid(
            &step.pointer,
            format!("the joined user namespace is the initial one, which maps no id: {error}"),
        );
    }
    let whole = *tree == Bind::Tree && idmap.reach == Reach::Tree;
    let culprit = mounts_of(source, whole).into_iter().find_map(|(path, mount)| {
        // In a user namespace mounts below it may be locked to it.
        let open = |reach| api::open_tree(sys::fs::CWD, &path, reach);
        let copy = open(Tree::One).or_else(|_| open(Tree::Recursive)).ok()?;
        let error = api::idmap(copy.as_fd(), Tree::One, namespace).err()?;
        Some((path, mount, copy, error))
    });
    let Some((path, Listed { kind, idmapped, .. }, copy, error)) = culprit else {
        return anyhow::Error::from(error).context(format!("config.json: {}", step.pointer));
    };
    let blamed = match error.errno() {
        Errno::EPERM if idmapped => format!("{path:?} is id-mapped already"),
        Errno::EPERM => format!(
            "{path:?} can't be id-mapped: that takes CAP_SYS_ADMIN in the user namespace that mounted its file \
             system, {kind:?}"
        ),
        Errno::EINVAL if joined && idmap.own.is_none() && maps_elsewhere(&copy) => {
            let what = format!("the joined user namespace has no mapping, or it has mounted {path:?} itself: {error}");
            return invalid(&step.pointer, what);
        }
        Errno::EINVAL => {
            format!("{path:?} can't be id-mapped: its file system, {kind:?}, doesn't support it on this kernel")
        }
        _ => format!("{path:?} can't be id-mapped"),
    };
    invalid(format!("{}/source", step.pointer), format!("{blamed}: {error}"))
}

/// Whether a mount can be mapped as in some other user namespace.
fn maps_elsewhere(mount: &OwnedFd) -> bool {
    let root = IdMap { lines: "0 0 1\n".into(), writer: Writer::Runtime };
    let one = IdMaps { uid: root.clone(), gid: root, deny_setgroups: true };
    user_namespace(&one, "").is_ok_and(|namespace| api::idmap(mount.as_fd(), Tree::One, namespace.as_fd()).is_ok())
}

/// A line of /proc/PID/mountinfo (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Listed {
    id: u64,
    point: PathBuf,
    idmapped: bool,
    kind: String,
}

/// The mount that a path is on, and with `whole` those below the path, each with a path to it. Best effort, as this is
/// only asked when something has failed.
fn mounts_of(source: &CStr, whole: bool) -> Vec<(CString, Listed)> {
    let list = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let real = std::fs::canonicalize(Path::new(std::ffi::OsStr::from_bytes(source.to_bytes()))).unwrap_or_default();
    let own = mount_id(source);
    let mut found = Vec::new();
    for mount in list.split(|byte| *byte == b'\n').filter_map(Listed::parse) {
        if own == Some(mount.id) {
            found.insert(0, (source.to_owned(), mount));
        } else if whole && mount.point.starts_with(&real) {
            let path = CString::new(mount.point.as_os_str().as_bytes());
            found.extend(path.ok().map(|path| (path, mount)));
        }
    }
    found
}

fn mount_id(path: &CStr) -> Option<u64> {
    let fd = nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

impl Listed {
    fn parse(line: &[u8]) -> Option<Self> {
        let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let dash = words.iter().position(|word| *word == b"-")?;
        Some(Self {
            id: text(words.first()?).parse().ok()?,
            point: api::unescape(words.get(4)?),
            idmapped: words.get(5)?.split(|byte| *byte == b',').any(|option| option == b"idmapped"),
            kind: text(words.get(dash + 1)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo() {
        let line = br"36 35 98:0 /mnt1 /a\040b\134 rw,noatime,idmapped master:1 shared:7 - ext3 /dev/root rw";
        let expected = Listed { id: 36, point: PathBuf::from(r"/a b\"), idmapped: true, kind: "ext3".into() };
        assert_eq!(Listed::parse(line), Some(expected));
        let plain = Listed::parse(b"1 0 0:5 / / rw - fuse.sshfs host:/ rw").unwrap();
        assert_eq!((plain.idmapped, plain.kind.as_str()), (false, "fuse.sshfs"));
        assert_eq!(Listed::parse(b""), None);
    }
}
