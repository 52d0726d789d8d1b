//! `tare spec`.

use anyhow::{Result, bail};

use crate::cli::SpecArgs;

/// Runs the command; its exit status.
pub(crate) fn run(_args: &SpecArgs) -> Result<i32> {
    bail!("not built yet")
}
