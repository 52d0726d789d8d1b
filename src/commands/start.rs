//! `tare start`.

use anyhow::Result;

use crate::cli::{Global, StartArgs};
use crate::launch::delete::delete_failed;
use crate::launch::start::{Notifying, poststart, start};
use crate::launch::supervise::Interrupt;
use crate::state::Folder;

pub(crate) fn run(global: &Global, args: StartArgs) -> Result<i32> {
    let folder = Folder::open(&global.root, args.id.as_str())?;
    let lock = folder.lock()?;
    let record = folder.record()?;
    let notifying = start(&folder, &record, &lock)?;
    log::debug!("{}: started: the program runs", record.id);
    // Whoever stops the container meanwhile needs it.
    drop(lock);
    if let Err(error) = poststart(&folder, &record, Interrupt::default()) {
        delete_failed(folder, &record);
        return Err(error);
    }
    notifying.map_or(Ok(()), Notifying::wait).map(|()| 0)
}
