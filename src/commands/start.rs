//! `tare start`.

use anyhow::Result;

use crate::cli::{Global, StartArgs};
use crate::launch::delete::delete_after_failure;
use crate::launch::start::{Failure, start};
use crate::state::Folder;

pub(crate) fn run(global: &Global, args: StartArgs) -> Result<i32> {
    let folder = Folder::open(&global.root, args.id.as_str())?;
    let lock = folder.lock()?;
    let record = folder.record()?;
    match start(&folder, &record) {
        Ok(()) => Ok(0),
        Err(Failure::Start(error)) => Err(error),
        Err(Failure::Poststart(error)) => {
            delete_after_failure(folder, &record, lock);
            Err(error)
        }
    }
}
