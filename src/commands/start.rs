//! `tare start`.

use anyhow::Result;

use crate::cli::{Global, StartArgs};
use crate::launch::start::start;
use crate::state::Folder;

pub(crate) fn run(global: &Global, args: StartArgs) -> Result<i32> {
    let folder = Folder::open(&global.root, args.id.as_str())?;
    let lock = folder.lock()?;
    start(&folder, &folder.record()?, &lock)?;
    Ok(0)
}
