//! JSON as people read it.

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
