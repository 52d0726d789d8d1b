//! `tare delete`.

use anyhow::{Context as _, Result, bail};

use crate::cli::{DeleteArgs, Global, Id};
use crate::launch::delete::{PATIENCE, delete, stop};
use crate::state::{self, Folder, Lock, Phase, Record, Status};
use crate::sys::regex::Regex;

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
    for (name, _) in state::list(&global.root)?.into_iter().filter(|(name, _)| regex.matches(name)) {
        if let Err(error) = delete_one(global, &name, force)
            && let Some(earlier) = failure.replace(error)
        {
            log::warn!("{earlier:#}");
        }
    }
    failure.map_or(Ok(0), Err)
}

fn delete_one(global: &Global, id: &str, force: bool) -> Result<i32> {
    if !force {
        let folder = Folder::open(&global.root, id)?;
        let lock = folder.lock()?;
        let record = folder.record()?;
        return match folder.status(&record)? {
            // As every runtime: a container that was never started needs no force.
            Status::Stopped | Status::Created => delete(folder, &record, lock).map(|()| deleted(id)),
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
    Ok(deleted(id))
}

fn deleted(id: &str) -> i32 {
    log::debug!("{id}: deleted");
    0
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
