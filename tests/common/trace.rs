//! strace: what system calls a command makes, and being killed at one of them.

use std::collections::HashMap;
use std::fs;

use super::program::{self, Output};
use super::{Container, host};

/// One system call of a trace.
#[derive(Debug, Clone)]
pub struct Call {
    pub name: String,
    /// Its arguments and result, as strace shows them.
    pub text: String,
}

/// False, said aloud, where strace is missing or may not trace.
pub fn available(c: &Container) -> bool {
    let works = host::installed("strace")
        && std::process::Command::new("strace")
            .args(["-o", "/dev/null", "true"])
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
    if !works {
        super::skip(&c.name, "strace is missing or may not trace");
    }
    works
}

/// Runs a command of the runtime under strace: with the processes it makes, or alone.
pub fn record(c: &Container, follow: bool, words: &[&str]) -> (Output, Vec<Call>) {
    let file = c.path("trace");
    let mut prefix = vec!["strace", "-qq", "-o", file.to_str().unwrap()];
    if follow {
        prefix.push("-f");
    }
    let output = program::finish(&mut c.command_by(&prefix, words), &c.dir);
    let text = fs::read_to_string(&file).unwrap();
    (output, text.lines().filter_map(parse).collect())
}

/// A line is `[PID ]NAME(ARGUMENTS) = RESULT`; a call that another process interrupts has a second, `resumed` line.
fn parse(line: &str) -> Option<Call> {
    let line = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
    if line.starts_with("---") || line.starts_with("+++") || line.starts_with("<...") {
        return None;
    }
    let (name, text) = line.split_once('(')?;
    Some(Call { name: name.into(), text: text.into() })
}

/// Every point of a trace, as the arguments that make strace kill the command there.
pub fn points(calls: &[Call]) -> Vec<String> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    calls
        .iter()
        .map(|call| {
            let nth = seen.entry(&call.name).or_default();
            *nth += 1;
            format!("inject={}:signal=SIGKILL:when={nth}", call.name)
        })
        // The first is strace's own start of the command.
        .skip(1)
        .collect()
}

/// Starts a command that is killed at a point.
pub fn killed_at(c: &Container, follow: bool, point: &str, words: &[&str]) -> program::Running {
    let name = point.trim_start_matches("inject=").split(':').next().unwrap();
    let trace = format!("trace={name}");
    let mut prefix = vec!["strace", "-qq", "-o", "/dev/null", "-e", &trace, "-e", point];
    if follow {
        prefix.push("-f");
    }
    program::start(&mut c.command_by(&prefix, words), &c.dir)
}
