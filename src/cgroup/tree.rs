//! A cgroup and those below it, walked by descriptors.
//!
//! A container may nest cgroups in its own deeper than a path can say (PATH_MAX), and deeper than there are descriptors. So
//! each is opened by its name in the one above, and the way back is `..`, which can't lead anywhere else: a cgroup never
//! gets another parent.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::Result;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

use crate::sys;
use crate::sys::Context as _;

/// What is done on the way.
pub(super) trait Visitor {
    /// At each cgroup, before those below it.
    fn visit(&mut self, _cgroup: BorrowedFd<'_>) -> Result<()> {
        Ok(())
    }

    /// After all below a cgroup, given the one above and its name there.
    fn leave(&mut self, _above: BorrowedFd<'_>, _name: &CStr) -> Result<()> {
        Ok(())
    }
}

/// Only visits.
pub(super) struct Each<F>(pub(super) F);

impl<F: FnMut(BorrowedFd<'_>) -> Result<()>> Visitor for Each<F> {
    fn visit(&mut self, cgroup: BorrowedFd<'_>) -> Result<()> {
        (self.0)(cgroup)
    }
}

/// A cgroup's directory to walk from; none where there is no such cgroup.
pub(super) fn open(path: &Path) -> sys::Result<Option<OwnedFd>> {
    match open_below(AT_FDCWD, path) {
        Err(errno) if is_gone(errno) => Ok(None),
        opened => opened.call("open", path).map(Some),
    }
}

fn open_below<P: nix::NixPath + ?Sized>(above: BorrowedFd<'_>, name: &P) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(above, name, flags, Mode::empty())
}

/// Whether the error says that the cgroup isn't there (any more). ENODEV comes from what was in a removed one.
fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENODEV)
}

/// A cgroup on the way down, and which of those below it are still to be seen.
struct Level {
    name: CString,
    below: Vec<CString>,
}

/// Walks `top` and every cgroup below it, holding a few descriptors however deep that is. What vanishes meanwhile is passed
/// over; what can't be looked into is an error.
pub(super) fn walk(top: OwnedFd, visitor: &mut dyn Visitor) -> Result<()> {
    visitor.visit(top.as_fd())?;
    let mut levels = vec![Level { name: CString::default(), below: below(top.as_fd())? }];
    let mut here = top;
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.below.pop() {
            let next = match open_below(here.as_fd(), name.as_c_str()) {
                Err(errno) if is_gone(errno) => continue,
                opened => opened.call("open", &name)?,
            };
            visitor.visit(next.as_fd())?;
            levels.push(Level { name, below: below(next.as_fd())? });
            here = next;
            continue;
        }
        let Some(done) = levels.pop() else { break };
        if !levels.is_empty() {
            here = open_below(here.as_fd(), "..").call("open", "..")?;
            visitor.leave(here.as_fd(), &done.name)?;
        }
    }
    Ok(())
}

/// The names of the cgroups directly below.
fn below(cgroup: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let mut found = Vec::new();
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut dir = match Dir::openat(cgroup, ".", flags, Mode::empty()) {
        Err(errno) if is_gone(errno) => return Ok(found),
        opened => opened.call("open", "cgroup")?,
    };
    for entry in dir.iter() {
        let entry = match entry {
            Err(errno) if is_gone(errno) => break,
            entry => entry.call("getdents64", "cgroup")?,
        };
        let name = entry.file_name();
        if entry.file_type() == Some(Type::Directory) && name != c"." && name != c".." {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Record(Vec<String>);

    impl Visitor for Record {
        fn visit(&mut self, cgroup: BorrowedFd<'_>) -> Result<()> {
            self.0.push(format!("at {}", below(cgroup)?.len()));
            Ok(())
        }

        fn leave(&mut self, _above: BorrowedFd<'_>, name: &CStr) -> Result<()> {
            self.0.push(format!("left {}", name.to_str()?));
            Ok(())
        }
    }

    #[test]
    fn the_deepest_are_left_first() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(base.path().join("a/b/c")).unwrap();
        std::fs::write(base.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("/", base.path().join("link")).unwrap();
        let mut record = Record(Vec::new());
        walk(open(base.path()).unwrap().unwrap(), &mut record).unwrap();
        assert_eq!(record.0, ["at 1", "at 1", "at 1", "at 0", "left c", "left b", "left a"]);
        assert!(open(&base.path().join("none")).unwrap().is_none());
    }

    #[test]
    fn what_can_not_be_seen_is_an_error_and_not_empty() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(open(&file).is_err());
    }
}
