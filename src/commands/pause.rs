//! `tare pause`.
//!
//! Whatever ends it before every process is frozen thaws them again: a failure and a signal do so here; after a SIGKILL
//! the mark that is made first tells the next command that asks for the status to do it.

use std::os::fd::AsFd;

use anyhow::{Context as _, Result, bail};

use crate::cgroup;
use crate::cli::{Global, PauseArgs};
use crate::error::phrase;
use crate::launch::supervise::block_signals;
use crate::state::{Folder, Status};

pub(crate) fn run(global: &Global, args: PauseArgs) -> Result<i32> {
    let folder = Folder::open(&global.root, args.id.as_str())?;
    let _lock = folder.lock()?;
    let record = folder.record()?;
    match folder.status(&record)? {
        Status::Created | Status::Running => (),
        Status::Paused => bail!("{}: {:?} is paused already", phrase::NOT_RUNNING, record.id),
        other => bail!("{}: {:?} is {}", phrase::NOT_RUNNING, record.id, other.name()),
    }
    let signals = block_signals()?;
    let cgroup = cgroup::open(&record.cgroup)?;
    folder.mark_pausing()?;
    let frozen = cgroup.freeze(signals.as_fd()).with_context(|| format!("pause container {:?}", record.id));
    folder.clear_pausing()?;
    frozen.map(|()| 0)
}
