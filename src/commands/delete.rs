//! `tare delete`.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::cli::{DeleteArgs, Global};
use crate::launch::delete::{PATIENCE, delete, stop};
use crate::launch::lost::delete_lost;
use crate::state::{Folder, Kept, Lock, Phase, Status};

pub(crate) fn run(global: &Global, args: DeleteArgs) -> Result<i32> {
    let id = args.id.as_str();
    if !args.force {
        let folder = Folder::open(&global.root, id)?;
        let lock = folder.lock()?;
        let record = folder.record()?;
        return match folder.status_locked(&record, &lock)? {
            // As every runtime: a container that was never started needs no force.
            Status::Stopped | Status::Created => delete(folder, &record, lock).map(|()| 0),
            other => bail!("cannot delete container {id:?} that is not stopped: {}", other.name()),
        };
    }
    let Some(folder) = Folder::find(&global.root, id)? else { return Ok(0) };
    let Some(lock) = lock_by_force(&folder)? else { return Ok(0) };
    match folder.kept()? {
        Kept::Record(record) => delete(folder, &record, lock)?,
        Kept::Nothing => folder.remove()?,
        Kept::Lost(why) => delete_lost(&global.root, folder, lock, &why)?,
    }
    Ok(0)
}

/// The lock; `None` when the container is deleted meanwhile.
///
/// Whoever has it may wait for a hook, or for the program: what is left of the container is killed first, which ends that.
/// A creator that doesn't end then is killed as well, and what it has made is known by its record.
fn lock_by_force(folder: &Folder) -> Result<Option<Lock>> {
    let end = Instant::now() + PATIENCE;
    let mut stopped = None;
    loop {
        if let Some(lock) = folder.try_lock_existing()? {
            return Ok(lock);
        }
        // One that can't be read says nothing of what there is.
        let record = folder.read().ok().flatten();
        // It may be made at this moment, so that there is more of it a little later.
        if record != stopped {
            record.as_ref().map_or(Ok(()), stop)?;
            stopped = record;
        }
        if Instant::now() > end {
            break;
        }
        folder.wait_for_holder(PATIENCE)?;
    }
    if let Some(record) = stopped.filter(|record| record.phase == Phase::Creating) {
        log::warn!("container {:?}: process {} still creates it, and is killed", record.id, record.creator.pid);
        record.creator.signal(libc::SIGKILL)?;
    }
    folder.lock_existing(PATIENCE)
}
