//! `tare state`.

use anyhow::{Result, bail};

use crate::cli::{Global, StateArgs};

/// Runs the command; its exit status.
pub(crate) fn run(_global: &Global, _args: StateArgs) -> Result<i32> {
    bail!("not built yet")
}
