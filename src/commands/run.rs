//! `tare run`.

use anyhow::{Result, bail};

use crate::cli::{Global, RunArgs};

/// Runs the command; its exit status.
pub(crate) fn run(_global: &Global, _args: RunArgs) -> Result<i32> {
    bail!("not built yet")
}
