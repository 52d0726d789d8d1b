//! The dialect of engines, made into one that clap reads.
//!
//! Engines were written against runc's Go flags: `-log x`, `--log=x`, `--debug=false`, global options before the
//! command, a command's options before or after its operands. Here every option that the definition knows becomes
//! `--name` or `--name=value`, in its place before the operands. What it doesn't know goes through for clap to refuse.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::{Arg, ArgAction, Command};

use crate::log::Format;

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Value,
    Nothing,
}

/// `args` without the program's name; the result neither.
pub(super) fn normalise(definition: &Command, args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args;
    let mut command: Option<OsString> = None;
    let (mut globals, mut options, mut operands) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(arg) = args.next() {
        let bytes = arg.as_bytes();
        if bytes == b"--" {
            operands.extend(args.by_ref());
        } else if bytes.len() < 2 || bytes[0] != b'-' {
            if command.is_none() {
                command = Some(arg);
            } else {
                operands.push(arg);
            }
        } else {
            let chosen = command.as_ref().and_then(|name| definition.find_subcommand(name));
            let (list, name, takes) = match (find(chosen, bytes), find(Some(definition), bytes)) {
                (Some((name, takes)), _) => (&mut options, name, takes),
                (None, Some((name, takes))) => (&mut globals, name, takes),
                (None, None) => {
                    let list = if command.is_some() { &mut options } else { &mut globals };
                    list.push(double_dash(&arg));
                    continue;
                }
            };
            add(list, &name, takes, value_of(bytes), &mut args);
        }
    }
    assemble(globals, command, options, operands)
}

fn assemble(
    mut args: Vec<OsString>,
    command: Option<OsString>,
    options: Vec<OsString>,
    operands: Vec<OsString>,
) -> Vec<OsString> {
    match command {
        // `help`, `help create`: the same as the option.
        Some(name) if name == "help" => {
            args.extend(operands.into_iter().take(1));
            args.push("--help".into());
        }
        Some(name) => {
            args.push(name);
            args.extend(options);
            if !operands.is_empty() {
                args.push("--".into());
                args.extend(operands);
            }
        }
        None => {}
    }
    args
}

/// Adds a known option in the form that clap reads.
fn add(
    list: &mut Vec<OsString>,
    name: &str,
    takes: Takes,
    given: Option<&[u8]>,
    rest: &mut impl Iterator<Item = OsString>,
) {
    let flag = OsString::from(format!("--{name}"));
    let with = |value: &[u8]| OsString::from_vec([flag.as_bytes(), b"=", value].concat());
    match (takes, given) {
        (Takes::Nothing, None) => list.push(flag),
        (Takes::Nothing, Some(value)) => match boolean(value) {
            Some(true) => list.push(flag),
            Some(false) => list.retain(|earlier| *earlier != flag),
            None => list.push(with(value)),
        },
        // In Go's flags an empty string is an option that wasn't given.
        (Takes::Value, Some(b"")) => {}
        (Takes::Value, Some(value)) => list.push(with(value)),
        (Takes::Value, None) => match rest.next() {
            Some(value) if value.is_empty() => {}
            Some(value) => list.push(with(value.as_bytes())),
            None => list.push(flag),
        },
    }
}

/// The long name of the option that `arg` spells in `command`, if it has one.
fn find(command: Option<&Command>, arg: &[u8]) -> Option<(String, Takes)> {
    let name = bare(arg);
    let name = name.split(|byte| *byte == b'=').next().unwrap_or_default();
    let name = std::str::from_utf8(name).ok()?;
    let command = command?;
    if matches!(name, "help" | "h") {
        return Some(("help".to_owned(), Takes::Nothing));
    }
    let named = |option: &&Arg| {
        option.get_long() == Some(name) || option.get_short().is_some_and(|short| name.chars().eq([short]))
    };
    let option = command.get_arguments().filter(|option| !option.is_positional()).find(named)?;
    let takes = if matches!(option.get_action(), ArgAction::SetTrue) { Takes::Nothing } else { Takes::Value };
    Some((option.get_long()?.to_owned(), takes))
}

/// `arg` without its one or two dashes.
fn bare(arg: &[u8]) -> &[u8] {
    arg.strip_prefix(b"--").or_else(|| arg.strip_prefix(b"-")).unwrap_or(arg)
}

fn value_of(arg: &[u8]) -> Option<&[u8]> {
    let equals = arg.iter().position(|byte| *byte == b'=')?;
    arg.get(equals + 1..)
}

/// An unknown `-option` must not reach clap as a cluster of short ones: `-bogus` isn't `--bundle ogus`.
fn double_dash(arg: &OsStr) -> OsString {
    OsString::from_vec([b"--", bare(arg.as_bytes())].concat())
}

/// Go's strconv.ParseBool.
fn boolean(value: &[u8]) -> Option<bool> {
    match value {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Some(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Some(false),
        _ => None,
    }
}

/// `--log`, `--log-format` and `--debug` of a normalised command line that may be wrong elsewhere.
pub(super) fn log_options(args: &[OsString]) -> (Option<PathBuf>, Format, bool) {
    let (mut path, mut format, mut debug) = (None, Format::Text, false);
    for arg in args.iter().map(|arg| arg.as_bytes()).take_while(|arg| arg.starts_with(b"--")) {
        if let Some(value) = arg.strip_prefix(b"--log=") {
            path = Some(PathBuf::from(OsStr::from_bytes(value)));
        } else if let Some(value) = arg.strip_prefix(b"--log-format=") {
            format = if value == b"json" { Format::Json } else { Format::Text };
        } else if arg == b"--debug" {
            debug = true;
        }
    }
    (path, format, debug)
}

#[cfg(test)]
mod tests;
