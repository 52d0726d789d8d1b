//! `tare delete`.

use anyhow::{Result, bail};

use crate::cli::{DeleteArgs, Global};
use crate::launch::delete::{PATIENCE, delete, stop};
use crate::state::{Folder, Lock, Phase, Record, Status};

pub(crate) fn run(global: &Global, args: DeleteArgs) -> Result<i32> {
    let id = args.id.as_str();
    if !args.force {
        let folder = Folder::open(&global.root, id)?;
        let lock = folder.lock()?;
        let record = folder.record()?;
        return match folder.status(&record)? {
            // As every runtime: a container that was never started needs no force.
            Status::Stopped | Status::Created => delete(folder, &record, lock).map(|()| 0),
            other => bail!("cannot delete container {id:?} that is not stopped: {}", other.name()),
        };
    }
    let Some(folder) = Folder::find(&global.root, id)? else { return Ok(0) };
    let Some(lock) = lock_by_force(&folder)? else { return Ok(0) };
    match folder.read()? {
        Some(record) => delete(folder, &record, lock)?,
        // The creator was killed before it could make anything else.
        None => folder.remove()?,
    }
    Ok(0)
}

/// The lock; `None` when the container is deleted meanwhile. A creation that is still going on is ended: its container
/// process is killed, and the creator cleans up.
fn lock_by_force(folder: &Folder) -> Result<Option<Lock>> {
    if let Some(lock) = folder.try_lock_existing()? {
        return Ok(lock);
    }
    if let Some(record) = folder.read()?.filter(|record| record.phase == Phase::Creating) {
        stop(&record)?;
        wait_for_creator(&record)?;
    }
    folder.lock_existing()
}

fn wait_for_creator(record: &Record) -> Result<()> {
    if !record.creator.wait(PATIENCE)? {
        bail!("container {:?} is still being created by process {}", record.id, record.creator.pid);
    }
    Ok(())
}
