//! `tare start`.

use anyhow::{Result, bail};

use crate::cli::{Global, StartArgs};

/// Runs the command; its exit status.
pub(crate) fn run(_global: &Global, _args: StartArgs) -> Result<i32> {
    bail!("not built yet")
}
