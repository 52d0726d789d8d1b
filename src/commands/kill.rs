//! `tare kill`.

use anyhow::{Result, bail};

use crate::cli::{Global, KillArgs};

/// Runs the command; its exit status.
pub(crate) fn run(_global: &Global, _args: KillArgs) -> Result<i32> {
    bail!("not built yet")
}
