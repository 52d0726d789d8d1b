//! The command line as its callers see it: what needs no container and no root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

#[path = "cli/bad_input.rs"]
mod bad_input;
#[path = "cli/dialect.rs"]
mod dialect;
#[path = "cli/features.rs"]
mod features;
#[path = "cli/help.rs"]
mod help;
#[path = "cli/log.rs"]
mod log;
#[path = "cli/output.rs"]
mod output;
#[path = "cli/spec.rs"]
mod spec;
#[path = "cli/update.rs"]
mod update;

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// What a run of the program left.
struct Ran {
    status: i32,
    stdout: String,
    stderr: String,
}

/// The program with an empty environment: Podman calls it with hardly more.
fn tare() -> Command {
    let program = std::env::var_os("TARE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tare").into());
    let mut command = Command::new(program);
    command.env_clear();
    command
}

fn finish(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        status: output.status.code().expect("ended by a signal"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the words of `line`.
fn run(line: &str) -> Ran {
    finish(tare().args(line.split_whitespace()))
}

/// Runs `args` in `dir`.
fn run_in(dir: &Path, args: &[impl AsRef<OsStr>]) -> Ran {
    finish(tare().current_dir(dir).args(args))
}

impl Ran {
    /// It worked and said nothing on standard error.
    #[track_caller]
    fn ok(&self) -> &str {
        assert_eq!((self.status, self.stderr.as_str()), (0, ""), "{}", self.stdout);
        &self.stdout
    }

    /// It failed with one line on standard error and nothing on standard output.
    #[track_caller]
    fn error(&self) -> &str {
        assert_eq!((self.status, self.stdout.as_str()), (1, ""), "{}", self.stderr);
        let message = self.stderr.strip_prefix("tare: ").unwrap_or_else(|| panic!("{:?}", self.stderr));
        let message = message.strip_suffix('\n').expect("a line");
        assert!(!message.contains('\n'), "{message:?}");
        message
    }
}
