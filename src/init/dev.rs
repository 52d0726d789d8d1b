//! Device nodes and links of /dev (config-linux.md, "Default Devices"; runtime-linux.md, "Dev symbolic links").
//! Runs inside, below the container's root by descriptor (CVE-2026-41579: an image's /dev may be a link).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, mknodat};
use nix::unistd::{Gid, Uid};

use super::attributes::set_attrs;
use super::mount::{attach_with, bind_file};
use super::paths::{Links, Root};
use crate::plan::mounts::Rootfs;
use crate::plan::nodes::Node;
use crate::plan::options::{Attrs, attr};
use crate::sys::mount::{Tree, open_tree};
use crate::sys::{self, Context, fs::CWD};

const LINKS: [(&str, &CStr); 5] = [
    ("fd", c"/proc/self/fd"),
    ("stdin", c"/proc/self/fd/0"),
    ("stdout", c"/proc/self/fd/1"),
    ("stderr", c"/proc/self/fd/2"),
    ("ptmx", c"pts/ptmx"),
];

/// Where the nodes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nodes {
    /// As planned.
    Planned,
    /// mknod(2) was refused to a root without CAP_MKNOD: some are the host's.
    Bound,
}

/// Makes the nodes and links, unless /dev is the host's.
pub(crate) fn populate(root: &Root, plan: &Rootfs) -> Result<Nodes> {
    let mut made = Nodes::Planned;
    if !plan.own_dev {
        return Ok(made);
    }
    let opened;
    let (dev, ours) = match root.ours("/dev") {
        Some(dev) => (dev, true),
        None => {
            opened = root.dir("/dev", Links::Follow)?;
            (opened.as_fd(), false)
        }
    };
    for node in &plan.nodes {
        if make(root, dev, node).with_context(|| format!("device {:?}", node.path))? == Nodes::Bound {
            made = Nodes::Bound;
        }
    }
    for (name, target) in LINKS {
        let name = CString::new(name)?;
        // An image may bring its own ptmx, as a node or a file: only ours leads to the container's own devpts.
        if !ours && name.as_c_str() == c"ptmx" {
            remove(dev, &name)?;
        }
        link(dev, &name, target)?;
    }
    Ok(made)
}

fn remove(dir: BorrowedFd<'_>, name: &CStr) -> sys::Result<()> {
    match nix::unistd::unlinkat(dir, name, nix::unistd::UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno).call("unlink", name),
    }
}

/// A symbolic link; whatever is there already stays.
pub(crate) fn link(dir: BorrowedFd<'_>, name: &CStr, target: &CStr) -> sys::Result<()> {
    match nix::unistd::symlinkat(target, dir, name) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno).call("symlink", name),
    }
}

fn make(root: &Root, dev: BorrowedFd<'_>, node: &Node) -> Result<Nodes> {
    let other;
    let (dir, name) = match node.path.strip_prefix("/dev/") {
        Some(name) if !name.contains('/') => (dev, CString::new(name)?),
        _ => {
            let (parent, Some(name)) = root.parent(&node.path)? else { anyhow::bail!("not a path of a file") };
            other = parent;
            (other.as_fd(), name)
        }
    };
    if node.bind {
        // Nobody in a user namespace can change the host's node: its owner isn't mapped, or is the caller.
        return bind(root, node, Attrs::default()).map(|()| Nodes::Planned);
    }
    let kind = SFlag::from_bits_truncate(node.kind);
    match mknodat(dir, name.as_c_str(), kind, Mode::from_bits_truncate(node.mode), node.dev) {
        // A node of the image, or of an earlier container on the same root file system: fine if it is that device.
        Err(Errno::EEXIST) => same(dir, &name, node)?,
        // Root without CAP_MKNOD. As root it could give the host's node another mode or owner, so the mount is read-only,
        // which says nothing about what is written to the device.
        Err(Errno::EPERM) if node.kind != libc::S_IFIFO => {
            return bind(root, node, Attrs { set: attr::RDONLY, clear: 0 }).map(|()| Nodes::Bound);
        }
        made => made.call("mknod", &node.path)?,
    }
    if node.uid != 0 || node.gid != 0 {
        let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
        let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        nix::unistd::fchownat(dir, name.as_c_str(), Some(uid), Some(gid), flags).call("chown", &node.path)?;
    }
    Ok(Nodes::Planned)
}

fn same(dir: BorrowedFd<'_>, name: &CStr, node: &Node) -> Result<()> {
    let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    let stat = nix::sys::stat::fstatat(dir, name, flags).call("stat", &node.path)?;
    if stat.st_mode & libc::S_IFMT != node.kind || stat.st_rdev != node.dev {
        anyhow::bail!("the root file system has something else there");
    }
    Ok(())
}

/// mknod(2) isn't permitted in a user namespace, nor without CAP_MKNOD: the host's node is bound onto an empty file.
fn bind(root: &Root, node: &Node, attrs: Attrs) -> Result<()> {
    let host = host_node(node)?;
    let slot = root.file_slot(&node.path)?;
    match open_tree(host.as_fd(), c"", Tree::One) {
        Ok(tree) => attach_with(tree.as_fd(), &slot, attrs, Attrs::default())?,
        Err(error) if error.errno() == Errno::ENOSYS => {
            bind_file(host.as_fd(), &slot)?;
            if !attrs.is_empty() {
                let mount = root.open(&node.path, libc::O_PATH, Links::Follow)?;
                set_attrs(mount.as_fd(), Tree::One, attrs)?;
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// The host's node, which must be the device that is asked for.
fn host_node(node: &Node) -> Result<OwnedFd> {
    let path = CString::new(node.path.as_str())?;
    let handle = sys::fs::openat2(CWD, &path, libc::O_PATH | libc::O_NOFOLLOW, 0, 0).context("on the host")?;
    let stat = nix::sys::stat::fstat(&handle).call("fstat", &node.path)?;
    if stat.st_mode & libc::S_IFMT != node.kind || stat.st_rdev != node.dev {
        anyhow::bail!("the host has another device there, and none can be made without CAP_MKNOD on the host");
    }
    if let Some(wish) = &node.wish {
        let mode = wish.mode.filter(|mode| stat.st_mode & 0o7777 != *mode);
        let owner = (node.uid, node.gid) != (0, 0) && (node.uid, node.gid) != (stat.st_uid, stat.st_gid);
        if mode.is_some() || owner {
            log::warn!(
                "config.json: {}: {:?} is bound from the host, as no device can be made here: it keeps the host's mode and \
                 owner, {:o} {}:{}",
                wish.pointer,
                node.path,
                stat.st_mode & 0o7777,
                stat.st_uid,
                stat.st_gid
            );
        }
    }
    Ok(handle)
}
