//! `tare delete`.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::cli::{DeleteArgs, Global, Id};
use crate::launch::delete::{PATIENCE, delete, stop};
use crate::launch::lost::delete_lost;
use crate::state::{self, Folder, Kept, Lock, Phase, Status};
use crate::sys::{self, regex::Regex};

pub(crate) fn run(global: &Global, args: DeleteArgs) -> Result<i32> {
    if args.regex {
        return delete_matching(global, &args.id, args.force);
    }
    delete_one(global, args.id.parse::<Id>()?.as_str(), args.force)
}

/// Every container whose name matches. One that can't be deleted doesn't keep the others; the last failure is the error.
fn delete_matching(global: &Global, pattern: &str, force: bool) -> Result<i32> {
    let regex = Regex::new(pattern).with_context(|| format!("--regex {pattern:?}"))?;
    let mut failure = None;
    for name in state::names(&global.root)?.into_iter().filter(|name| regex.matches(name)) {
        if let Err(error) = delete_one(global, &name, force)
            && let Some(earlier) = failure.replace(error)
        {
            log::warn!("{earlier:#}");
        }
        // What one deletion leaves open adds up.
        sys::fs::close_left();
    }
    failure.map_or(Ok(0), Err)
}

fn delete_one(global: &Global, id: &str, force: bool) -> Result<i32> {
    if !force {
        let folder = Folder::open(&global.root, id)?;
        let lock = folder.lock()?;
        let record = folder.record()?;
        return match folder.status_locked(&record, &lock)? {
            // As every runtime: a container that was never started needs no force.
            Status::Stopped | Status::Created => delete(folder, &record, lock).map(|()| deleted(id)),
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
    Ok(deleted(id))
}

fn deleted(id: &str) -> i32 {
    log::debug!("{id}: deleted");
    0
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
