//! From the bundle's config.json to a [`Spec`]. Reads one file; what it holds is judged by [`super::validate`].
//!
//! Text that can't be read is parsed a second time, by a deserializer that keeps track of where it is, so that the error
//! can name the property. All types' code is in the binary twice for that (docs/dependencies.md says what it saves).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use nix::fcntl::OFlag;
use serde_path_to_error::Segment;

use serde::de::DeserializeOwned;

use super::{Process, Resources, Spec};
use crate::error::invalid;
use crate::sys::{self, Context};

/// No real config comes near it; it keeps a mistaken path (a disk image) from filling the memory.
const MAX_SIZE: u64 = 64 << 20;

/// Reads `file`, or the bundle's config.json, and returns it parsed and as it stood.
pub(crate) fn load(bundle: &Path, file: Option<&Path>) -> Result<(Spec, Vec<u8>)> {
    let bytes = match file {
        Some(file) => {
            crate::log::name_config(file);
            read(file, Source::Named)?
        }
        None => read(&bundle.join("config.json"), Source::Bundle)?,
    };
    Ok((parse(&bytes)?, bytes))
}

/// Reads the process object of `exec --process`. Pointers in errors are those that it has in config.json.
pub(crate) fn load_process(file: &Path) -> Result<Process> {
    parse_as(&read(file, Source::Named)?, "/process")
}

/// Parses the text of a config.json.
pub(crate) fn parse(bytes: &[u8]) -> Result<Spec> {
    parse_as(bytes, "")
}

/// `linux.resources` from JSON that is parsed already. Pointers in errors are those that it has in config.json.
pub(crate) fn resources(json: &serde_json::Value) -> Result<Resources> {
    serde_path_to_error::deserialize(json)
        .map_err(|e| invalid(format_args!("/linux/resources{}", pointer(e.path())), e.inner()))
}

fn parse_as<T: DeserializeOwned>(bytes: &[u8], at: &str) -> Result<T> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        bail!("config.json: the file is empty, expected a JSON object");
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|e| anyhow!("config.json: not UTF-8: invalid byte at offset {}", e.valid_up_to()))?;
    serde_json::from_str(text).or_else(|_| parse_with_path(text, at))
}

/// As [`parse_as`], slower, with an error that names the property.
#[cold]
fn parse_with_path<T: DeserializeOwned>(text: &str, at: &str) -> Result<T> {
    let mut json = serde_json::Deserializer::from_str(text);
    let spec = serde_path_to_error::deserialize(&mut json).map_err(|e| match e.inner() {
        inner if inner.is_data() => invalid(format_args!("{at}{}", pointer(e.path())), words(inner)),
        inner => broken(inner),
    })?;
    json.end().map_err(|e| broken(&e))?;
    Ok(spec)
}

/// Who chose the file that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The bundle: whoever made it must not be able to make the runtime wait.
    Bundle,
    /// The command line, where it may be a pipe: `--process <(...)`.
    Named,
}

fn read(path: &Path, source: Source) -> Result<Vec<u8>> {
    // Non-blocking, so that a FIFO of the bundle is refused below instead of hanging the open.
    let patience = if source == Source::Bundle { OFlag::O_NONBLOCK } else { OFlag::empty() };
    let mut file = sys::fs::open_to_read(path, patience | OFlag::O_NOCTTY).call("open", path)?;
    let meta = file.metadata().call("fstat", path)?;
    if meta.is_dir() {
        bail!("{path:?} is a directory, expected the container's config.json");
    }
    if !meta.is_file() {
        return match source {
            Source::Bundle => bail!("{path:?} isn't a regular file, expected the container's config.json"),
            Source::Named => read_stream(file, path),
        };
    }
    if meta.len() > MAX_SIZE {
        bail!("{path:?} has {} bytes, expected a config.json of at most {MAX_SIZE}", meta.len());
    }
    let mut bytes = vec![0; usize::try_from(meta.len())?];
    let filled = fill(&mut file, &mut bytes).call("read", path)?;
    bytes.truncate(filled);
    sys::fs::leave(file.into());
    Ok(bytes)
}

/// What has no size beforehand, to its end.
fn read_stream(file: File, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes).call("read", path)?;
    if bytes.len() as u64 > MAX_SIZE {
        bail!("{path:?} has no end after {MAX_SIZE} bytes, expected a config.json of at most that many");
    }
    Ok(bytes)
}

/// One read for a regular file; `read_to_end` would need a second one to see the end.
fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

fn broken(error: &serde_json::Error) -> anyhow::Error {
    anyhow!("config.json: not valid JSON: {}", words(error))
}

/// serde_json's text, with the place moved into brackets at the end.
fn words(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let what = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
    format!("{what} (line {line} column {column})")
}

/// A JSON pointer; the whole document is "/" rather than RFC 6901's empty string, to be seen in a message.
fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut out = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => out.push_str(&format!("/{index}")),
            Segment::Map { key } => out.push_str(&format!("/{}", escape(key))),
            Segment::Enum { variant } => out.push_str(&format!("/{}", escape(variant))),
            Segment::Unknown => out.push_str("/?"),
        }
    }
    if out.is_empty() { "/".to_owned() } else { out }
}

/// A key as a JSON pointer spells it (RFC 6901, 3).
pub(crate) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests;
