//! Opens, in the caller's namespaces, every descriptor that a plan takes.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::error::invalid;
use crate::init::mount::open_source;
use crate::plan::Plan;
use crate::plan::mounts::{MountStep, Rootfs, Sources, What};
use crate::plan::namespaces::{Join, Kind};
use crate::plan::options::Bind;
use crate::sys;
use crate::sys::mount::{Tree, mount_setattr};

/// The namespaces to join, each verified to be of its kind.
pub(crate) fn joins(plan: &Plan) -> Result<Vec<OwnedFd>> {
    plan.namespaces.joins.iter().map(open_namespace).collect()
}

fn open_namespace(join: &Join) -> Result<OwnedFd> {
    let wrong = |what: String| invalid(&join.pointer, format!("{:?}: {what}", join.path));
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let lower = |errno: Errno| format!("{} ({errno:?})", errno.desc().to_lowercase());
    let fd = nix::fcntl::open(&join.path, flags, Mode::empty()).map_err(|errno| wrong(lower(errno)))?;
    let Ok(kind) = sys::clone::ns_get_nstype(fd.as_fd()) else {
        return Err(wrong("not a namespace".into()));
    };
    if kind != join.kind.flag() {
        let is = Kind::ALL.into_iter().find(|other| other.flag() == kind).map_or("other", Kind::name);
        return Err(wrong(format!("expected a {} namespace, this is a {is} namespace", join.kind.name())));
    }
    Ok(fd)
}

/// Trees of the bind mounts, by step.
pub(crate) fn sources(plan: &Plan) -> Result<Vec<Option<OwnedFd>>> {
    match plan.rootfs.sources {
        Sources::Outside => open_sources(&plan.rootfs),
        Sources::Inside | Sources::AsCaller => Ok(plan.rootfs.steps.iter().map(|_| None).collect()),
    }
}

/// Opened by whoever calls it, with the rights of this moment, and attached inside.
pub(crate) fn open_sources(rootfs: &Rootfs) -> Result<Vec<Option<OwnedFd>>> {
    let open = |step: &MountStep| source(step).with_context(|| format!("config.json: {}", step.pointer));
    rootfs.steps.iter().map(open).collect()
}

fn source(step: &MountStep) -> Result<Option<OwnedFd>> {
    let What::Bind { source, tree } = &step.what else { return Ok(None) };
    match open_tree(source, *tree) {
        Ok(tree) => Ok(Some(tree)),
        // Before Linux 5.12, and in sandboxes, it is left to root of the user namespace.
        Err(error) if error.errno() == Errno::ENOSYS => Ok(None),
        Err(error) if error.errno() == Errno::ENOENT => {
            Err(invalid(format!("{}/source", step.pointer), format!("bind source {source:?}: {error}")))
        }
        Err(error) => Err(error.into()),
    }
}

/// A copy of a host mount that is a peer of the host's would carry the container's mounts out: it becomes a slave.
fn open_tree(source: &CString, tree: Bind) -> sys::Result<OwnedFd> {
    let fd = open_source(source, if tree == Bind::Tree { Tree::Recursive } else { Tree::One })?;
    mount_setattr(fd.as_fd(), Tree::Recursive, 0, 0, libc::MS_SLAVE)?;
    Ok(fd)
}
