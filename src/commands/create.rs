//! `tare create`.

use anyhow::Result;

use crate::cli::{CreateArgs, Global};
use crate::launch::create::{Stay, create};

pub(crate) fn run(global: &Global, args: CreateArgs) -> Result<i32> {
    create(global, &args, Stay::Detached)?;
    Ok(0)
}
