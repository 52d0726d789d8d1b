//! `tare ps`: the host's ps(1), with the rows of the container's processes.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::unistd::Pid;

use crate::cgroup;
use crate::cli::{Global, ListFormat, PsArgs, output};
use crate::state::Folder;
use crate::sys::{self, Context as _};

pub(crate) fn run(global: &Global, args: PsArgs) -> Result<i32> {
    let folder = Folder::open(&global.root, args.id.as_str())?;
    let record = folder.record()?;
    let location = &record.cgroup;
    if location.v1.is_empty() && location.v2.is_none() {
        bail!("container {:?} has no cgroup of its own, which alone tells its processes from others", record.id);
    }
    let pids = cgroup::open(location)?.pids()?;
    let text = match args.format {
        ListFormat::Json => {
            let numbers: Vec<i32> = pids.iter().map(|pid| pid.as_raw()).collect();
            serde_json::to_string(&numbers)? + "\n"
        }
        ListFormat::Table => rows(&table(&args.args)?, &pids)?,
    };
    output(&text)?;
    Ok(0)
}

/// What ps prints of all processes.
fn table(args: &[OsString]) -> Result<String> {
    let mut command = Command::new("ps");
    if args.is_empty() {
        command.arg("-ef");
    }
    let done = sys::process::output(command.args(args).stdin(Stdio::null())).call("execve", "ps")?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr).trim().replace('\n', " ");
        if said.is_empty() {
            bail!("ps: {}", done.status);
        }
        bail!("ps: {}: {said}", done.status);
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// The header, and the rows whose PID is one of `pids`.
fn rows(table: &str, pids: &[Pid]) -> Result<String> {
    let mut lines = table.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|title| title == "PID");
    let column = column.context("couldn't find PID field in ps output: its options must ask for that column")?;
    let mut out = format!("{header}\n");
    for line in lines.filter(|line| !line.is_empty()) {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok()).map(Pid::from_raw);
        let pid = pid.with_context(|| format!("no process id in column {} of ps's line {line:?}", column + 1))?;
        if pids.contains(&pid) {
            out += line;
            out.push('\n');
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "UID   PID  PPID CMD\nroot    1     0 init\nme     12     1 a 13\nme     13    12 b\n\n";

    #[test]
    fn only_rows_of_the_container() {
        let text = rows(TABLE, &[Pid::from_raw(13), Pid::from_raw(7)]).unwrap();
        assert_eq!(text, "UID   PID  PPID CMD\nme     13    12 b\n");
    }

    #[test]
    fn a_column_pid_is_needed() {
        let error = rows("COMMAND\nx\n", &[]).unwrap_err().to_string();
        assert!(error.contains("couldn't find PID field in ps output"), "{error}");
        assert!(rows("PID\nx\n", &[]).unwrap_err().to_string().contains("line \"x\""));
    }
}
