//! One file a command: `run(&Global, Args)` does it and returns the exit status of the process.
//!
//! Nothing here prints an error: it is returned, and [`crate::cli`] reports it once.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod features;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod run;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod state;

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

/// JSON for people, on several lines, with a line feed at its end.
pub(crate) fn pretty(value: &impl Serialize, indent: &[u8]) -> serde_json::Result<String> {
    let mut text = Vec::with_capacity(4096);
    value.serialize(&mut Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(indent)))?;
    text.push(b'\n');
    // serde_json writes UTF-8, so nothing is ever replaced.
    Ok(String::from_utf8_lossy(&text).into_owned())
}
