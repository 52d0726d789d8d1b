//! How the process fails: one line, once, exit status 1.

use std::error::Error as _;
use std::fmt;

use anyhow::{Error, Result, anyhow};
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::output;
use crate::{log, sys};

/// The reader of standard output went away: nobody is left to tell, so the exit status says it alone.
#[derive(Debug)]
pub(super) struct ReaderGone;

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads standard output")
    }
}

impl std::error::Error for ReaderGone {}

/// Reports the error that ends the process; its exit status.
pub(super) fn report(error: &Error, status: i32) -> i32 {
    if !error.is::<ReaderGone>() {
        log::fatal(&format!("{error:#}"));
    }
    status
}

/// What clap has to say: help is an answer, everything else an error with a hint.
pub(super) fn usage(error: &clap::Error, command: Option<&str>) -> Result<i32> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output(&error.render().to_string())?;
            Ok(0)
        }
        _ => {
            let help = command.map_or_else(|| "tare --help".to_owned(), |command| format!("tare {command} --help"));
            Err(anyhow!("{}; see '{help}'", explain(error)))
        }
    }
}

/// clap's error on one line, in our words: engines show it as it is.
fn explain(error: &clap::Error) -> String {
    let context = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    let suggestion = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand]
        .into_iter()
        .find_map(|kind| error.get(kind).and_then(first))
        .map(|close| format!(", did you mean {close}?"))
        .unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            format!("unknown command {:?}{suggestion}", context(ContextKind::InvalidSubcommand))
        }
        ErrorKind::UnknownArgument => {
            let arg = context(ContextKind::InvalidArg);
            let kind = if arg.starts_with('-') { "unknown option" } else { "unexpected argument" };
            format!("{kind} {arg:?}{suggestion}")
        }
        ErrorKind::MissingRequiredArgument => format!("missing {}", context(ContextKind::InvalidArg)),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => value(error),
        // The only options that get a value too many are those that take none.
        ErrorKind::TooManyValues => format!(
            "{}: {:?} is unknown: expected true or false",
            context(ContextKind::InvalidArg),
            context(ContextKind::InvalidValue)
        ),
        _ => flat(&error.render().to_string()),
    }
}

/// A value that its option or operand refuses.
fn value(error: &clap::Error) -> String {
    let context = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    let (arg, given) = (context(ContextKind::InvalidArg), context(ContextKind::InvalidValue));
    // Our own parsers name the thing and the value already.
    if let (Some(source), true) = (error.source(), arg.starts_with(['<', '['])) {
        return source.to_string();
    }
    let option = arg.split(' ').next().unwrap_or_default();
    if let Some(source) = error.source() {
        return format!("{option}: {given:?}: {source}");
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) if !given.is_empty() => {
            format!("{option}: {given:?} is unknown: expected {}", valid.join(" or "))
        }
        _ => format!("{option} needs a value"),
    }
}

fn first(value: &ContextValue) -> Option<String> {
    match value {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => texts.first().cloned(),
        _ => None,
    }
}

/// clap's own text up to its usage block.
fn flat(text: &str) -> String {
    let message = text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let words: Vec<&str> = message.map(str::trim).filter(|line| !line.is_empty()).collect();
    words.join(" ").trim_start_matches("error: ").to_owned()
}

/// A panic is a defect of ours: it is said on one line, in the log as well, and never ends in a core dump.
pub(super) fn hook_panics() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        let what = text.replace('\n', " ");
        match info.location() {
            Some(at) => log::fatal(&format!("internal error: {what} (at {}:{})", at.file(), at.line())),
            None => log::fatal(&format!("internal error: {what}")),
        }
        sys::exit(1)
    }));
}
