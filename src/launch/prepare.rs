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
use crate::plan::mounts::{MountStep, What};
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

/// Trees of bind mounts. In a user namespace the container's root may not reach their sources: they are opened here,
/// with the host's rights, and attached inside.
pub(crate) fn sources(plan: &Plan) -> Result<Vec<Option<OwnedFd>>> {
    let outside = plan.namespaces.has(Kind::User) && plan.namespaces.has(Kind::Mount);
    let open = |step: &MountStep| match outside {
        true => source(step).with_context(|| step.asked_by()),
        false => Ok(None),
    };
    plan.rootfs.steps.iter().map(open).collect()
}

fn source(step: &MountStep) -> Result<Option<OwnedFd>> {
    let What::Bind { source, tree } = &step.what else { return Ok(None) };
    let tree = open_tree(source, *tree).map_err(|error| {
        if error.errno() == Errno::ENOENT {
            return invalid(format!("{}/source", step.pointer), format!("bind source {source:?}: {error}"));
        }
        error.into()
    })?;
    Ok(Some(tree))
}

/// A copy of a host mount that is a peer of the host's would carry the container's mounts out: it becomes a slave.
fn open_tree(source: &CString, tree: Bind) -> sys::Result<OwnedFd> {
    let fd = open_source(source, if tree == Bind::Tree { Tree::Recursive } else { Tree::One })?;
    mount_setattr(fd.as_fd(), Tree::Recursive, 0, 0, libc::MS_SLAVE)?;
    Ok(fd)
}
