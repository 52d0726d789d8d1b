//! Opens, in the caller's namespaces, every descriptor that a plan takes.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat, stat};

use super::idmapped;
use crate::error::invalid;
use crate::init::mount::{missing_source, open_source};
use crate::plan::Plan;
use crate::plan::mounts::{MountStep, Rootfs, Sources, What};
use crate::plan::namespaces::{Join, Kind};
use crate::plan::options::{Bind, Propagation, Reach};
use crate::spec::validate::sysctl;
use crate::sys::mount::{Tree, mount_setattr};
use crate::sys::{self, Context as _};

/// The namespaces to join, each verified to be of its kind.
pub(crate) fn joins(plan: &Plan) -> Result<Vec<OwnedFd>> {
    let open = |join| {
        let namespace = open_namespace(join)?;
        keep_own_sysctls(plan, join, &namespace)?;
        Ok(namespace)
    };
    plan.namespaces.joins.iter().map(open).collect()
}

/// A sysctl is a setting of the container. Engines name the host's namespace by a path, too (`docker run --network
/// host`), and there it would be one of the host.
fn keep_own_sysctls(plan: &Plan, join: &Join, namespace: &OwnedFd) -> Result<()> {
    let name = join.kind.name();
    let Some((path, _)) = plan.sysctl.iter().find(|(path, _)| sysctl::namespace(path) == Some(name)) else {
        return Ok(());
    };
    let own = format!("/proc/self/ns/{}", if join.kind == Kind::Network { "net" } else { name });
    let (own, joined) = (stat(own.as_str()).call("stat", &own)?, fstat(namespace).call("fstat", &join.path)?);
    if (own.st_dev, own.st_ino) == (joined.st_dev, joined.st_ino) {
        // runc's words.
        let what = format!("sysctl {path:?} not allowed in host {name} namespace, which {:?} is", join.path);
        return Err(invalid("/linux/sysctl", what));
    }
    Ok(())
}

fn open_namespace(join: &Join) -> Result<OwnedFd> {
    let wrong = |what: String| invalid(&join.pointer, format!("{:?}: {what}", join.path));
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let lower = |errno: Errno| format!("{} ({errno:?})", sys::words(errno));
    let fd = nix::fcntl::openat(sys::fs::CWD, &join.path, flags, Mode::empty()).map_err(|errno| wrong(lower(errno)))?;
    let Ok(kind) = sys::clone::ns_get_nstype(fd.as_fd()) else {
        return Err(wrong("not a namespace".into()));
    };
    if kind != join.kind.flag() {
        let is = Kind::ALL.into_iter().find(|other| other.flag() == kind).map_or("other", Kind::name);
        return Err(wrong(format!("expected a {} namespace, this is a {is} namespace", join.kind.name())));
    }
    Ok(fd)
}

/// Trees of the bind mounts, by step: all of them where root of the user namespace may not reach them, else those whose
/// ids are to be mapped, which takes rights that only the outside has.
pub(crate) fn sources(plan: &Plan) -> Result<Vec<Option<OwnedFd>>> {
    match plan.rootfs.sources {
        Sources::Outside => open_sources(&plan.rootfs),
        Sources::Inside | Sources::AsCaller => {
            let propagation = propagation(plan.rootfs.propagation, false);
            let open = |step: &MountStep| match step.what {
                What::Bind { idmap: Some(_), .. } => source(step, propagation),
                _ => Ok(None),
            };
            plan.rootfs.steps.iter().map(open).collect()
        }
    }
}

/// Opened by whoever calls it, with the rights of this moment, and attached inside, in a user namespace.
pub(crate) fn open_sources(rootfs: &Rootfs) -> Result<Vec<Option<OwnedFd>>> {
    let propagation = propagation(rootfs.propagation, true);
    rootfs.steps.iter().map(|step| source(step, propagation)).collect()
}

fn source(step: &MountStep, propagation: u64) -> Result<Option<OwnedFd>> {
    let What::Bind { source, tree, idmap, .. } = &step.what else { return Ok(None) };
    let error = match open_tree(source, *tree, propagation) {
        Ok(tree) => return Ok(Some(tree)),
        Err(error) => error,
    };
    match error.errno() {
        Errno::ENOENT => Err(invalid(format!("{}/source", step.pointer), format!("bind source {source:?}: {error}"))),
        Errno::ENOSYS if idmap.is_some() => Err(idmapped::lacking(step, &error)),
        // Before Linux 5.12, and in sandboxes, it is left to root of the user namespace.
        Errno::ENOSYS => Ok(None),
        // open_tree(2) takes CAP_SYS_ADMIN in the user namespace that owns the mounts.
        Errno::EPERM if idmap.is_some() => {
            Err(invalid(&step.pointer, format!("mapping ids takes CAP_SYS_ADMIN on the host: {error}")))
        }
        _ => {
            let reach = if *tree == Bind::Tree { Tree::Recursive } else { Tree::One };
            Err(missing_source(step, source, reach, error).context(step.asked_by()))
        }
    }
}

/// What a tree would be in the container's mount namespace, as one of MS_*, or 0: as it is. A copy of a host mount that
/// is a peer of the host's would carry the container's mounts out: unless that was asked for, it becomes a slave. The
/// kernel allows nothing else in a user namespace.
fn propagation(root: Propagation, user_namespace: bool) -> u64 {
    match (root.kind, root.reach) {
        (libc::MS_SHARED, _) if !user_namespace => 0,
        (libc::MS_PRIVATE | libc::MS_UNBINDABLE, Reach::Tree) => libc::MS_PRIVATE,
        _ => libc::MS_SLAVE,
    }
}

fn open_tree(source: &CString, tree: Bind, propagation: u64) -> sys::Result<OwnedFd> {
    let fd = open_source(source, if tree == Bind::Tree { Tree::Recursive } else { Tree::One })?;
    if propagation != 0 {
        mount_setattr(fd.as_fd(), Tree::Recursive, 0, 0, propagation)?;
    }
    Ok(fd)
}
