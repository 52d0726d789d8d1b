//! `tare list`.

use anyhow::{Result, bail};

use crate::cli::{Global, ListArgs};

/// Runs the command; its exit status.
pub(crate) fn run(_global: &Global, _args: ListArgs) -> Result<i32> {
    bail!("not built yet")
}
