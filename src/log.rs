//! The sink of the `log` facade: `--log`, `--log-format`, `--debug`; standard error otherwise.
//!
//! Engines read the file: containerd takes the last `error` of it, Podman parses the *whole* of it as one JSON
//! value. Hence JSON at the default verbosity holds exactly one line, the error that ended the process
//! ([`fatal`]), and nothing on success. One write a line, in append mode: several processes share the file.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::clock;
use crate::sys::{self, Context as _};

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Debug)]
struct Sink {
    /// None without `--log`: everything goes to standard error.
    file: Option<File>,
    format: Format,
}

static SINK: OnceLock<Sink> = OnceLock::new();

/// What stands for "config.json" at the head of a message, where the command line named another file.
static CONFIG: OnceLock<String> = OnceLock::new();

/// Has messages about properties name this file in place of config.json.
pub(crate) fn name_config(path: &Path) {
    let _ = CONFIG.set(path.display().to_string());
}

/// The message with the file that was read. Both the runtime's processes write pointers as "config.json: /process/...".
fn attributed<'a>(message: &'a str, config: Option<&str>) -> Cow<'a, str> {
    match config {
        Some(name) => message.replace("config.json: ", &format!("{name}: ")).into(),
        None => message.into(),
    }
}

/// Opens the log. Called once, before anything can fail.
pub(crate) fn init(path: Option<PathBuf>, format: Format, debug: bool) -> Result<()> {
    let opened = match path {
        // std sets O_CLOEXEC.
        Some(path) => OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o644)
            .open(&path)
            .call("open", &path)
            .context("--log")
            .map(Some),
        None => Ok(None),
    };
    let (file, error) = match opened {
        Ok(file) => (file, None),
        Err(error) => (None, Some(error)),
    };
    // Even when the file can't be opened: the error itself is printed through the sink.
    let _ = SINK.set(Sink { file, format });
    log::set_max_level(match (debug, format) {
        (true, _) => LevelFilter::Trace,
        (false, Format::Text) => LevelFilter::Warn,
        (false, Format::Json) => LevelFilter::Off,
    });
    let _ = log::set_logger(&Facade);
    error.map_or(Ok(()), Err)
}

/// The file of `--log`, for a process on its way into a container, which has nothing but debug messages to log.
pub(crate) fn descriptor_inside() -> Option<BorrowedFd<'static>> {
    if log::max_level() < LevelFilter::Debug {
        return None;
    }
    SINK.get()?.file.as_ref().map(AsFd::as_fd)
}

/// In a process on its way into a container: closes the file, and nothing is logged from here on. The file is the host's,
/// and from here on the process can wait for long, or run programs of the image.
pub(crate) fn close_inside() {
    if let Some(file) = descriptor_inside() {
        log::set_max_level(LevelFilter::Off);
        sys::fs::close_borrowed(file);
    }
}

/// The error that ends the process: to the log, and readable to standard error, which engines capture.
pub(crate) fn fatal(message: &str) {
    let message = &*attributed(message, CONFIG.get().map(String::as_str));
    match SINK.get() {
        Some(Sink { file: Some(file), format }) => {
            write(file, &line(*format, Level::Error, message));
            write(std::io::stderr(), &format!("tare: {}\n", flat(message)));
        }
        Some(Sink { file: None, format: Format::Json }) => {
            write(std::io::stderr(), &line(Format::Json, Level::Error, message));
        }
        _ => write(std::io::stderr(), &format!("tare: {}\n", flat(message))),
    }
}

struct Facade;

impl Log for Facade {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (level, message) = (record.level(), record.args().to_string());
        let message = attributed(&message, CONFIG.get().map(String::as_str));
        match SINK.get() {
            Some(Sink { file: Some(file), format }) => write(file, &line(*format, level, &message)),
            Some(Sink { file: None, format: Format::Json }) => {
                write(std::io::stderr(), &line(Format::Json, level, &message));
            }
            _ => write(std::io::stderr(), &format!("tare: {}: {}\n", name(level), flat(&message))),
        }
    }

    fn flush(&self) {}
}

/// One write(2). A log that can't be written is no reason to fail: standard error still has the message.
fn write(mut to: impl Write, line: &str) {
    let _ = to.write_all(line.as_bytes());
}

fn line(format: Format, level: Level, message: &str) -> String {
    let (level, time) = (name(level), clock::rfc3339_now());
    let mut line = String::with_capacity(message.len() + 80);
    let _ = match format {
        Format::Text => writeln!(line, "time=\"{time}\" level={level} msg={}", Quoted(message)),
        Format::Json => writeln!(line, r#"{{"level":"{level}","msg":{},"time":"{time}"}}"#, Quoted(message)),
    };
    line
}

/// A JSON string; Go's `%q`, which logrus uses in text, differs only in rare escapes.
struct Quoted<'a>(&'a str);

impl std::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&serde_json::to_string(self.0).map_err(|_| std::fmt::Error)?)
    }
}

/// logrus' names.
fn name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// A message is one line on a terminal, whatever a path or a hook's stderr holds.
fn flat(message: &str) -> String {
    message.trim_end().replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_line_has_three_keys_and_one_line() {
        let line = line(Format::Json, Level::Error, "open \"/x\":\nno such file\u{1}");
        assert!(line.starts_with(r#"{"level":"error","msg":"open \"/x\":\nno such file\u0001","time":"2"#), "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["msg"], "open \"/x\":\nno such file\u{1}");
        assert_eq!(value.as_object().unwrap().len(), 3);
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn text_line_is_logrus() {
        let line = line(Format::Text, Level::Warn, "unknown capability \"CAP_X\"");
        assert!(line.starts_with("time=\"2"), "{line}");
        assert!(line.ends_with("Z\" level=warning msg=\"unknown capability \\\"CAP_X\\\"\"\n"), "{line}");
    }

    #[test]
    fn the_file_that_was_read_is_named() {
        let message = "unable to start: config.json: /process/cwd: \"config.json\"";
        assert_eq!(attributed(message, None), message);
        let named = attributed(message, Some("/b/prod.json"));
        assert_eq!(named, "unable to start: /b/prod.json: /process/cwd: \"config.json\"");
    }

    #[test]
    fn terminal_gets_one_line() {
        assert_eq!(flat("a\nb\n"), "a\\nb");
    }
}
