//! `tare create`.

use anyhow::Result;

use crate::cli::{CreateArgs, Global};
use crate::launch::create::{Stay, create};
use crate::launch::supervise::Interrupt;

pub(crate) fn run(global: &Global, args: CreateArgs) -> Result<i32> {
    create(global, &args, Stay::Created, Interrupt::default())?;
    Ok(0)
}
