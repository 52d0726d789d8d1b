//! `tare delete`.

use anyhow::{Result, bail};

use crate::cli::{DeleteArgs, Global};

/// Runs the command; its exit status.
pub(crate) fn run(_global: &Global, _args: DeleteArgs) -> Result<i32> {
    bail!("not built yet")
}
