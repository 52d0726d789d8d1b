//! `tare features`.

use anyhow::{Result, bail};

use crate::cli::FeaturesArgs;

/// Runs the command; its exit status.
pub(crate) fn run(_args: &FeaturesArgs) -> Result<i32> {
    bail!("not built yet")
}
