//! `tare create`.

use anyhow::{Result, bail};

use crate::cli::{CreateArgs, Global};

/// Runs the command; its exit status.
pub(crate) fn run(_global: &Global, _args: CreateArgs) -> Result<i32> {
    bail!("not built yet")
}
