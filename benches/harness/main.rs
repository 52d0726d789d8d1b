//! `make bench`: what a container costs, by our runtime, by its peers, and by the floor.
//!
//! The workloads run in a child with a mount namespace of its own, once for each view of the host's cgroups: v2 alone for
//! all that is timed, and v1 (or v2 with controllers) for limits. `docs/performance.md` says how to read the report.
//!
//! | file | what it holds |
//! |---|---|
//! | `contender` | who runs, and how one command is measured |
//! | `bundle` | the engine bundle and its variants |
//! | `bench` | rounds in which everybody takes a turn |
//! | `workloads`, `counts`, `step` | what is measured |
//! | `order` | which code is executed, for `make order` |
//! | `report`, `svg` | tables, JSON, pictures |

#![allow(clippy::disallowed_methods)]

mod bench;
mod bundle;
mod contender;
mod counts;
mod order;
mod report;
mod stats;
mod step;
mod svg;
mod sys;
mod workloads;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::{Value, json};

use crate::bench::{Bench, Size};

const USAGE: &str =
    "usage: bench [--out FOLDER] [--rounds N] [--alive N] [--lifecycles N] [--only NAME,NAME] [--report FILE] [--order FILE]
workloads: run lifecycle exec state heavy env parallel alive memory counts host-mounts charge limits
variables: TARE_BIN CRUN RUNC YOUKI name the programs";

#[derive(Debug)]
struct Options {
    out: PathBuf,
    size: Size,
    only: Option<String>,
    /// Set for the child that does the work: `v2` or `controllers`.
    view: Option<String>,
    report: Option<PathBuf>,
    /// Instead of all workloads: where to write what code tare executes.
    order: Option<PathBuf>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        out: "build/bench".into(),
        size: Size { rounds: 60, alive: 500, lifecycles: 192 },
        only: None,
        view: None,
        report: None,
        order: None,
    };
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or(USAGE)?;
        let number = || {
            value
                .parse::<usize>()
                .ok()
                .filter(|number| *number > 0)
                .ok_or(format!("{word} {value}: not a number above 0"))
        };
        match word.as_str() {
            "--out" => options.out = value.into(),
            "--rounds" => options.size.rounds = number()?,
            "--alive" => options.size.alive = number()?,
            "--lifecycles" => options.size.lifecycles = number()?,
            "--only" => options.only = Some(value),
            "--view" => options.view = Some(value),
            "--order" => options.order = Some(value.into()),
            "--report" => options.report = Some(value.into()),
            _ => return Err(USAGE.into()),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let done = options().and_then(|options| match (&options.view, &options.report) {
        (Some(view), _) => work(&options, view),
        (None, Some(file)) => report_again(&options, file),
        (None, None) if options.order.is_some() => alone(),
        (None, None) => lead(&options),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// A report of figures that were taken earlier.
fn report_again(options: &Options, file: &Path) -> Result<(), String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{file:?}: {error}"))?;
    let report = serde_json::from_str(&text).map_err(|error| format!("{file:?}: {error}"))?;
    report::write(&report, &options.out)
}

/// No report, only the child that does the work.
fn alone() -> Result<(), String> {
    let mut command = Command::new(env::current_exe().map_err(|error| error.to_string())?);
    command.args(env::args_os().skip(1)).args(["--view", "v2"]);
    if follow(command)? { Ok(()) } else { Err("the code that is executed isn't known, see above".into()) }
}

fn lead(options: &Options) -> Result<(), String> {
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } != 0 {
        return Err("the bench makes containers and mounts: it needs root".into());
    }
    fs::create_dir_all(&options.out).map_err(|error| format!("{:?}: {error}", options.out))?;
    let mut results = Vec::new();
    let who: Vec<Value> = contender::all()?.iter().map(contender::Contender::describe).collect();
    let load_before = load();
    let (mut pretended, mut failed) = (false, false);
    for view in ["v2", "controllers"] {
        let file = options.out.join(format!("{view}.json"));
        let _ = fs::remove_file(&file);
        let me = env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(me);
        command.args(env::args_os().skip(1)).args(["--view", view]);
        let ended = follow(command)?;
        failed |= !ended;
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let _ = fs::remove_file(&file);
        let part: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        pretended |= part["memlock_pretended"] == true;
        results.extend(part["workloads"].as_array().cloned().unwrap_or_default());
    }
    let host = json!({
        "kernel": read("/proc/sys/kernel/osrelease"), "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "cpu": read("/proc/cpuinfo").lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("").trim_start_matches([' ', '\t', ':']).to_owned(),
        "load_before": load_before, "load_after": load(), "memlock_pretended": pretended,
    });
    let report = json!({ "host": host, "contenders": who, "workloads": results });
    report::write(&report, &options.out)?;
    if failed { Err("a part of the bench failed, see above".into()) } else { Ok(()) }
}

/// Waits for the child that does the work, and ends what it leaves if it is killed or interrupted.
fn follow(mut command: Command) -> Result<bool, String> {
    let text = |error: std::io::Error| error.to_string();
    sys::become_subreaper().map_err(text)?;
    let mut child = command.spawn().map_err(text)?;
    sys::pass_interrupts_on(child.id() as i32);
    let status = child.wait().map_err(text)?;
    sys::pass_interrupts_on(0);
    let name = format!("tare-bench-{}", child.id());
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    // Of the containers, and that of what `alive` measures.
    let names = [name.clone(), format!("{name}-meter")];
    let of = |path: PathBuf| names.clone().map(|name| path.join(name));
    let groups: Vec<PathBuf> = hierarchies.chain([root.into()]).flat_map(of).collect();
    for _ in 0..3 {
        groups.iter().for_each(|group| kill_all(group));
        std::thread::sleep(std::time::Duration::from_millis(20));
        workloads::reap();
    }
    for group in groups.iter().filter(|group| group.exists()) {
        remove_group(group);
    }
    let _ = fs::remove_dir(env::temp_dir().join(name));
    match status.code() {
        Some(code) => Ok(code == 0),
        None => Err("interrupted".into()),
    }
}

/// Kills the processes of a cgroup and of those below it.
fn kill_all(group: &Path) {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).for_each(sys::kill);
    for entry in fs::read_dir(group).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        kill_all(&entry.path());
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn load() -> String {
    read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// The mounted hierarchies after this process's own view of them is arranged; none if this host hasn't got that view.
fn arrange(view: &str) -> Result<Vec<PathBuf>, String> {
    let root = Path::new("/sys/fs/cgroup");
    let text = |error: std::io::Error| format!("{root:?}: {error}");
    sys::private_mounts().map_err(text)?;
    let pure = root.join("cgroup.controllers").exists();
    if view == "v2" {
        if !pure {
            sys::umount(root).map_err(text)?;
            sys::mount("cgroup2", root, "cgroup2", 0, "").map_err(text)?;
        }
        return Ok(vec![root.into()]);
    }
    if pure {
        let has = read("/sys/fs/cgroup/cgroup.subtree_control");
        return Ok(if has.contains("memory") && has.contains("pids") { vec![root.into()] } else { Vec::new() });
    }
    // crun refuses the hybrid layout: what is left is v1.
    let _ = sys::umount(&root.join("unified"));
    let mut found: Vec<PathBuf> = fs::read_dir(root).map_err(text)?.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.is_dir() && path.join("cgroup.procs").exists());
    let has = |name: &str| found.iter().any(|path| path.ends_with(name));
    let limits = has("memory") && has("pids");
    Ok(if limits { found } else { Vec::new() })
}

/// What is left of a cgroup and those below it.
fn remove_group(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove_group(&entry.path());
    }
    for _ in 0..50 {
        if !path.exists() || fs::remove_dir(path).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    eprintln!("bench: {path:?} is left");
}

fn work(options: &Options, view: &str) -> Result<(), String> {
    let hierarchies = arrange(view)?;
    if hierarchies.is_empty() {
        eprintln!("bench: no controllers for memory and pids here: nothing is said about limits");
        return Ok(());
    }
    sys::raise_open_files();
    sys::become_subreaper().map_err(|error| error.to_string())?;
    let pretended = !sys::may_raise_memlock();
    if pretended {
        sys::pretend_memlock().map_err(|error| format!("seccomp: {error}"))?;
    }
    let dir = env::temp_dir().join(format!("tare-bench-{}", std::process::id()));
    let mut bench = Bench::new(&dir, hierarchies, contender::all()?, options.size)?;
    let only = options.only.clone();
    let chosen = move |name: &str| only.as_ref().is_none_or(|only| only.split(',').any(|it| it == name));
    let result = if let Some(file) = &options.order {
        order::order(&mut bench, file)
    } else if view == "v2" {
        workloads::without_controllers(&mut bench, chosen)
    } else {
        workloads::with_controllers(&mut bench, chosen)
    };
    end_what_is_left(&bench);
    for group in bench.groups() {
        remove_group(&group);
    }
    let part = json!({ "memlock_pretended": pretended, "workloads": bench.results });
    fs::write(options.out.join(format!("{view}.json")), part.to_string()).map_err(|error| error.to_string())?;
    // The mount ends with this process, its folder is the host's.
    let _ = sys::umount(&dir);
    let _ = fs::remove_dir(&dir);
    result
}

/// Containers that a failed command has left.
fn end_what_is_left(bench: &Bench) {
    for who in bench.contenders.iter().filter(|who| !who.is_floor()) {
        let folder = bench.dir.join("state").join(who.name);
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            let _ = bench.step(who, &["delete", "--force", &id], "left");
        }
    }
    workloads::reap();
}
