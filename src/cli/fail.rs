//! How the process fails: one line, once, exit status 1.

use std::fmt;

use anyhow::{Error, Result, anyhow};
use clap::error::ErrorKind;

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
pub(super) fn report(error: &Error) -> i32 {
    if !error.is::<ReaderGone>() {
        log::fatal(&format!("{error:#}"));
    }
    1
}

/// What clap has to say: help is an answer, everything else an error with a hint.
pub(super) fn usage(error: &clap::Error, definition: &clap::Command) -> Result<i32> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output(&error.render().to_string())?;
            Ok(0)
        }
        _ => Err(anyhow!("{}", one_line(error, definition))),
    }
}

/// clap's message without its usage block, on one line; engines show it as it is.
fn one_line(error: &clap::Error, _definition: &clap::Command) -> String {
    let text = error.render().to_string();
    let message = text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let words: Vec<&str> = message.map(str::trim).filter(|line| !line.is_empty()).collect();
    let line = words.join(" ");
    // clap's usage line is the only place where it says which command was meant.
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or_default();
    let command: Vec<&str> =
        usage.split(' ').take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase())).collect();
    let command = if command.is_empty() { "tare".to_owned() } else { command.join(" ") };
    format!("{}; see '{command} --help'", line.trim_start_matches("error: "))
}

/// A panic is a defect of ours: it is said on one line, in the log as well, and never ends in a core dump.
pub(super) fn hook_panics() {
    std::panic::set_hook(Box::new(|info| {
        let what = info.payload_as_str().unwrap_or("no message").replace('\n', " ");
        match info.location() {
            Some(at) => log::fatal(&format!("internal error: {what} (at {}:{})", at.file(), at.line())),
            None => log::fatal(&format!("internal error: {what}")),
        }
        sys::exit(1)
    }));
}
