//! `tare spec`: writes a config.json to start from.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Result, bail};
use nix::unistd::{getegid, geteuid};

use crate::cgroup;
use crate::cli::SpecArgs;
use crate::spec::template::{Cgroups, Kind, template};
use crate::sys::Context as _;

/// Writes the file, unless there is one.
pub(crate) fn run(args: &SpecArgs) -> Result<i32> {
    let kind =
        if args.rootless { Kind::Rootless { uid: geteuid().as_raw(), gid: getegid().as_raw() } } else { Kind::Root };
    let cgroups = if cgroup::is_v2(Path::new("/sys/fs/cgroup")) { Cgroups::V2 } else { Cgroups::V1OrHybrid };
    let text = template(kind, cgroups)?;

    let path = args.bundle.join("config.json");
    // O_EXCL doesn't follow a link either.
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{path:?} exists: remove it first, it is never overwritten")
        }
        opened => opened.call("open", &path)?,
    };
    if let Err(error) = file.write_all(text.as_bytes()) {
        // Half a file would stand in the way of the next try.
        let _ = fs::remove_file(&path);
        return Err(error).call("write", &path).map_err(Into::into);
    }
    Ok(0)
}
