//! `tare state`.

use anyhow::Result;

use super::pretty;
use crate::cli::{Global, StateArgs, output};
use crate::state::Folder;

pub(crate) fn run(global: &Global, args: StateArgs) -> Result<i32> {
    let folder = Folder::open(&global.root, args.id.as_str())?;
    let record = folder.record()?;
    let state = record.state(folder.status(&record)?);
    output(&pretty(&state, b"  ")?)?;
    Ok(0)
}
