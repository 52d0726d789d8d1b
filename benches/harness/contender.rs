//! Who is compared: our runtime, its peers, and the floor.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stats::Sample;
use crate::sys;

pub type Result<T> = std::result::Result<T, String>;

/// No command takes longer; one that does has hung, and is out of the workload.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct Contender {
    pub name: &'static str,
    pub path: PathBuf,
    pub version: String,
}

impl Contender {
    pub fn is_floor(&self) -> bool {
        self.name == "floor"
    }

    pub fn describe(&self) -> Value {
        json!({ "name": self.name, "version": self.version, "bytes": fs::metadata(&self.path).map(|meta| meta.len()).unwrap_or(0) })
    }
}

/// A program named by a variable, which must work then, or of this name on PATH.
fn find(name: &'static str, variable: &str) -> Result<Option<Contender>> {
    let folders = format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default());
    let on_path = || folders.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    let named = env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let Some(path) = named.or_else(on_path) else { return Ok(None) };
    let output = quiet(&path).arg("--version").stdout(Stdio::piped()).output();
    let output = output.map_err(|error| format!("{name} ({variable}): {}: {error}", path.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().find(|line| line.contains("version")).unwrap_or("unknown version");
    Ok(Some(Contender { name, version: version.into(), path }))
}

/// Everybody who is here; the floor is last.
pub fn all() -> Result<Vec<Contender>> {
    let mut found = Vec::new();
    for (name, variable) in [("tare", "TARE_BIN"), ("crun", "CRUN"), ("runc", "RUNC"), ("youki", "YOUKI")] {
        found.extend(find(name, variable)?);
    }
    let path = own_program("floor");
    found.push(Contender { name: "floor", path, version: "the same system calls, precomputed".into() });
    Ok(found)
}

/// A program that was built beside this one.
pub fn own_program(name: &str) -> PathBuf {
    env::current_exe().unwrap_or_default().with_file_name(name)
}

/// Runs a command to its end.
pub fn timed(command: &mut Command, log: &Path) -> Result<Sample> {
    let arguments: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    let words = format!("{} {}", command.get_program().to_string_lossy(), arguments.join(" "));
    let file = File::create(log).map_err(|error| error.to_string())?;
    command.stderr(Stdio::from(file));
    let start = Instant::now();
    let child = command.spawn().map_err(|error| format!("{words}: {error}"))?;
    let ended = sys::ends_within(child.id() as i32, LIMIT).map_err(|error| error.to_string())?;
    if !ended {
        sys::kill(child.id() as i32);
        let _ = sys::wait4(child.id() as i32);
        return Err(format!("{words}: hangs (no end within {} s)", LIMIT.as_secs()));
    }
    let (code, cpu, faults) = sys::wait4(child.id() as i32).map_err(|error| error.to_string())?;
    let wall = start.elapsed().as_secs_f64() * 1e6;
    if code == 0 {
        return Ok(Sample { wall, cpu, faults });
    }
    let said = fs::read_to_string(log).unwrap_or_default();
    Err(format!("{words}: status {code}: {}", said.trim().lines().last().unwrap_or("nothing said")))
}

/// A command with no input and no output. No engine asks for backtraces, which cost each error milliseconds.
pub fn quiet(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_remove("RUST_BACKTRACE").stdin(Stdio::null()).stdout(Stdio::null());
    command
}
