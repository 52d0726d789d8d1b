//! `tare resume`.

use anyhow::{Context as _, Result, bail};

use crate::cgroup;
use crate::cli::{Global, ResumeArgs};
use crate::error::phrase;
use crate::state::{Folder, Status};

pub(crate) fn run(global: &Global, args: ResumeArgs) -> Result<i32> {
    let folder = Folder::open(&global.root, args.id.as_str())?;
    let lock = folder.lock()?;
    let record = folder.record()?;
    let status = folder.status_locked(&record, &lock)?;
    let cgroup = cgroup::open(&record.cgroup)?;
    if status == Status::Paused {
        cgroup.thaw().with_context(|| format!("resume container {:?}", record.id))?;
        return Ok(0);
    }
    let live = matches!(status, Status::Created | Status::Running);
    match cgroup.frozen_ancestor().filter(|_| live) {
        Some(path) => bail!(
            "{}: {:?} itself is {}, but cgroup {path:?} above it is frozen",
            phrase::NOT_PAUSED,
            record.id,
            status.name()
        ),
        None => bail!("{}: {:?} is {}", phrase::NOT_PAUSED, record.id, status.name()),
    }
}
