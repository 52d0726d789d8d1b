//! Writes knobs to the files of a cgroup.

use std::os::fd::OwnedFd;

use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::dir::{Dir, gone};
use super::knobs::{Knob, Missing};
use crate::sys;

/// Writes them in order, the knobs of config.json: an error names the property.
pub(super) fn apply(dir: &Dir, knobs: &[Knob]) -> Result<()> {
    write_all(dir, knobs).map_err(|(knob, error)| {
        let (file, value) = (&knob.file, &knob.value);
        let what = format!("config.json: /linux/resources/{}: set {file} to {value:?}", knob.property);
        anyhow::Error::new(error).context(what)
    })
}

/// Writes them in order; an error comes with its knob. One that the kernel finds invalid is tried again after the others:
/// limits that bound each other (memory and memsw, quota and burst, quota and period) may each be refused while the
/// other has its old value, and which comes first depends on whether they grow or shrink.
pub(super) fn write_all<'a>(dir: &Dir, knobs: &'a [Knob]) -> Result<(), (&'a Knob, sys::Error)> {
    let mut files = Files { dir, open: None };
    let mut again = Vec::new();
    for knob in knobs {
        match files.set(knob) {
            Err(error) if error.errno() == Errno::EINVAL => again.push(knob),
            other => other.map_err(|error| (knob, error))?,
        }
    }
    again.into_iter().try_for_each(|knob| files.set(knob).map_err(|error| (knob, error)))
}

/// Keeps the last file open: lists of devices go to one file, a write each.
struct Files<'a> {
    dir: &'a Dir,
    open: Option<(String, OwnedFd)>,
}

impl Files<'_> {
    fn set(&mut self, knob: &Knob) -> sys::Result<()> {
        match (self.write(&knob.file, &knob.value), &knob.missing) {
            (Err(error), Missing::Skip) if gone(&error) => Ok(()),
            (Err(error), Missing::Warn) if gone(&error) || error.errno() == Errno::EOPNOTSUPP => {
                log::warn!("/linux/resources/{} is not set, the kernel doesn't have it: {error}", knob.property);
                Ok(())
            }
            // BFQ has no weight of a device that another scheduler serves.
            (Err(error), Missing::Instead { file, value }) if gone(&error) || error.errno() == Errno::EOPNOTSUPP => {
                self.write(file, value)
            }
            (other, _) => other,
        }
    }

    fn write(&mut self, file: &str, value: &str) -> sys::Result<()> {
        let fd = match self.open.take() {
            Some((open, fd)) if open == file => fd,
            _ => self.dir.open(file, OFlag::O_WRONLY)?,
        };
        let result = self.dir.write_to(&fd, file, value);
        self.open = Some((file.to_owned(), fd));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knob(file: &str, missing: Missing) -> Knob {
        let (controller, property) = ("memory".into(), "memory/limit".into());
        Knob { controller, file: file.into(), value: "1".into(), property, missing }
    }

    #[test]
    fn missing_files() {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join("there"), "").unwrap();
        let dir = Dir::new(base.path().to_owned());
        let instead = Missing::Instead { file: "there", value: "2".into() };
        apply(&dir, &[knob("none", Missing::Skip), knob("none", instead)]).unwrap();
        assert_eq!(std::fs::read_to_string(base.path().join("there")).unwrap(), "2");
        let error = format!("{:#}", apply(&dir, &[knob("none", Missing::Fail)]).unwrap_err());
        let path = base.path().join("none");
        assert_eq!(
            error,
            format!(
                "config.json: /linux/resources/memory/limit: set none to \"1\": \
                 open {path:?}: no such file or directory (ENOENT)"
            )
        );
    }
}
