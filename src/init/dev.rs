//! Device nodes and links of /dev (config-linux.md, "Default Devices"; runtime-linux.md, "Dev symbolic links").
//! Runs inside, below the container's root by descriptor (CVE-2026-41579: an image's /dev may be a link).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, mknodat};
use nix::unistd::{Gid, Uid};

use super::mount::bind_file;
use super::paths::{Links, Root};
use crate::plan::mounts::{Node, Rootfs};
use crate::sys::{self, Context, fs::CWD};

const LINKS: [(&str, &CStr); 5] = [
    ("fd", c"/proc/self/fd"),
    ("stdin", c"/proc/self/fd/0"),
    ("stdout", c"/proc/self/fd/1"),
    ("stderr", c"/proc/self/fd/2"),
    ("ptmx", c"pts/ptmx"),
];

/// Makes the nodes and links, unless /dev is the host's.
pub(crate) fn populate(root: &Root, plan: &Rootfs) -> Result<()> {
    if !plan.own_dev {
        return Ok(());
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
        make(root, dev, node).with_context(|| format!("device {:?}", node.path))?;
    }
    for (name, target) in LINKS {
        let name = CString::new(name)?;
        // An image may bring its own ptmx, as a node or a file: only ours leads to the container's own devpts.
        if !ours && name.as_c_str() == c"ptmx" {
            remove(dev, &name)?;
        }
        link(dev, &name, target)?;
    }
    Ok(())
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

fn make(root: &Root, dev: BorrowedFd<'_>, node: &Node) -> Result<()> {
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
        return bind(root, node);
    }
    let kind = SFlag::from_bits_truncate(node.kind);
    match mknodat(dir, name.as_c_str(), kind, Mode::from_bits_truncate(node.mode), node.dev) {
        // A node of the image, or of an earlier container on the same root file system: fine if it is that device.
        Err(Errno::EEXIST) => same(dir, &name, node)?,
        made => made.call("mknod", &node.path)?,
    }
    if node.uid != 0 || node.gid != 0 {
        let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
        let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        nix::unistd::fchownat(dir, name.as_c_str(), Some(uid), Some(gid), flags).call("chown", &node.path)?;
    }
    Ok(())
}

fn same(dir: BorrowedFd<'_>, name: &CStr, node: &Node) -> Result<()> {
    let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    let stat = nix::sys::stat::fstatat(dir, name, flags).call("stat", &node.path)?;
    if stat.st_mode & libc::S_IFMT != node.kind || stat.st_rdev != node.dev {
        anyhow::bail!("the root file system has something else there");
    }
    Ok(())
}

/// mknod(2) isn't permitted in a user namespace: the host's node is bound onto an empty file.
fn bind(root: &Root, node: &Node) -> Result<()> {
    let host = host_node(node)?;
    let slot = root.file_slot(&node.path)?;
    Ok(bind_file(host.as_fd(), &slot)?)
}

/// The host's node, which must be the device that is asked for.
fn host_node(node: &Node) -> Result<OwnedFd> {
    let path = CString::new(node.path.as_str())?;
    let handle = sys::fs::openat2(CWD, &path, libc::O_PATH | libc::O_NOFOLLOW, 0, 0).context("on the host")?;
    let stat = nix::sys::stat::fstat(&handle).call("fstat", &node.path)?;
    if stat.st_mode & libc::S_IFMT != node.kind || stat.st_rdev != node.dev {
        anyhow::bail!("the host has another device there, and in a user namespace none can be made");
    }
    Ok(handle)
}
