//! `tare start`.

use anyhow::Result;

use crate::cli::{Global, StartArgs};
use crate::launch::delete::delete_after_failure;
use crate::launch::start::{Failure, Notifying, start};
use crate::state::Folder;

pub(crate) fn run(global: &Global, args: StartArgs) -> Result<i32> {
    let folder = Folder::open(&global.root, args.id.as_str())?;
    let lock = folder.lock()?;
    let record = folder.record()?;
    match start(&folder, &record) {
        Ok(notifying) => {
            log::debug!("{}: started: the program runs", record.id);
            // Whoever stops the container meanwhile needs it.
            drop(lock);
            notifying.map_or(Ok(()), Notifying::wait).map(|()| 0)
        }
        Err(Failure::Start(error)) => Err(error),
        Err(Failure::Poststart(error)) => {
            delete_after_failure(folder, &record, lock);
            Err(error)
        }
    }
}
