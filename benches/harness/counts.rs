//! What doesn't depend on how busy the machine is: system calls, processes, programs, user instructions.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::bench::{Alive, Bench, path};
use crate::contender::{Contender, Result, quiet, timed};
use crate::step;
use crate::workloads::{end_all, of, one_alive_each, reap};

/// A process of a trace.
#[derive(Debug, Default, PartialEq)]
struct Process {
    calls: u64,
    threads: u64,
    execs: u64,
    clones: u64,
}

/// Each thread's own trace, by its id: what its process did. Threads count as the process that they are of.
fn processes(traces: &BTreeMap<i32, String>) -> Vec<Process> {
    let mut leader: BTreeMap<i32, i32> = BTreeMap::new();
    for (parent, text) in traces {
        for line in text.lines().filter(|line| line.contains("CLONE_THREAD")) {
            // `... = TID`, and of clone3 `... => {parent_tid=[TID]}, 88) = TID`.
            if let Some(tid) = line.rsplit("= ").next().and_then(|text| text.trim().parse().ok()) {
                leader.insert(tid, *parent);
            }
        }
    }
    let of = |mut tid: i32| {
        while let Some(above) = leader.get(&tid) {
            tid = *above;
        }
        tid
    };
    let mut found: BTreeMap<i32, Process> = BTreeMap::new();
    for (tid, text) in traces {
        let process = found.entry(of(*tid)).or_default();
        process.threads += 1;
        for line in text.lines().filter(|line| !line.starts_with("---") && !line.starts_with("+++")) {
            let Some((name, rest)) = line.split_once('(') else { continue };
            process.calls += u64::from(!name.starts_with("<... "));
            let done = !rest.contains("= -1 ");
            process.execs += u64::from(name.starts_with("execve") && done);
            let clones = ["clone", "clone3", "fork", "vfork"].contains(&name) && !rest.contains("CLONE_THREAD");
            process.clones += u64::from(clones && done);
        }
    }
    found.into_values().collect()
}

fn trace(bench: &Bench, inner: &Command, who: &str) -> Result<Value> {
    let folder = bench.dir.join("trace");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).map_err(|error| error.to_string())?;
    let mut command = quiet(Path::new("strace"));
    command.args(["-qq", "-ff", "-o"]).arg(folder.join("t")).arg(inner.get_program()).args(inner.get_args());
    timed(&mut command, &bench.log(who))?;
    read(&folder)
}

fn read(folder: &Path) -> Result<Value> {
    let mut traces = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|error| error.to_string())?.flatten() {
        let name = entry.file_name();
        let Some(tid) = name.to_str().and_then(|name| name.rsplit('.').next()?.parse().ok()) else { continue };
        traces.insert(tid, String::from_utf8_lossy(&fs::read(entry.path()).unwrap_or_default()).into_owned());
    }
    let all = processes(&traces);
    let sum = |of: fn(&Process) -> u64| all.iter().map(of).sum::<u64>();
    Ok(json!({
        "value": sum(|it| it.calls),
        "by_process": all.iter().map(|it| it.calls).collect::<Vec<_>>(),
        "clones": sum(|it| it.clones), "execs": sum(|it| it.execs),
        "threads": sum(|it| it.threads),
    }))
}

/// The command of each verb that is counted. `create` and `start` are one, as a tracer stays with the container.
pub fn commands(
    bench: &Bench,
    who: &Contender,
    bundle: &Path,
    alive: Result<&Alive>,
) -> Result<Vec<(&'static str, Command)>> {
    if who.is_floor() {
        let mut command = quiet(&who.path);
        command.arg("run").arg(bench.rootfs()).arg(bench.groups()[0].join("counted"));
        return Ok(vec![("run", command)]);
    }
    let id = alive?.id.as_str();
    Ok(vec![
        ("run", bench.command(who, &["run", "--bundle", path(bundle), "counted"])),
        ("exec", bench.command(who, &["exec", id, "/bin/true"])),
        ("state", bench.command(who, &["state", id])),
    ])
}

pub fn count(bench: &mut Bench) -> Result<()> {
    let bundle = bench.bundle("counted", |_| {})?;
    let all = one_alive_each(bench, "counts")?;
    let mut calls: BTreeMap<&str, Vec<(String, Value)>> = BTreeMap::new();
    let mut steps: BTreeMap<&str, Vec<(String, Value)>> = BTreeMap::new();
    eprintln!("bench: counts");
    for who in bench.contenders.clone() {
        let commands = match commands(bench, &who, &bundle, of(&all, &who)) {
            Ok(commands) => commands,
            Err(error) => {
                calls.entry("run").or_default().push((who.name.into(), json!({ "error": error })));
                continue;
            }
        };
        for (verb, mut command) in commands {
            let counted = trace(bench, &command, who.name).unwrap_or_else(|error| json!({ "error": error }));
            calls.entry(verb).or_default().push((who.name.into(), counted));
            if verb == "run" {
                end_counted(bench, &who);
            }
            eprintln!("bench: instructions of {} {verb}", who.name);
            let counted = instructions(bench, &who, &mut command).unwrap_or_else(|error| json!({ "error": error }));
            steps.entry(verb).or_default().push((who.name.into(), counted));
            if verb == "run" {
                end_counted(bench, &who);
            }
        }
    }
    end_all(bench, &all);
    for (verb, rows) in calls {
        bench.figures(
            &format!("calls-{verb}"),
            &format!("system calls of {verb}, the program's included"),
            "calls",
            rows,
        );
    }
    for (verb, rows) in steps {
        bench.figures(&format!("instructions-{verb}"), &format!("user instructions of {verb}"), "instructions", rows);
    }
    Ok(())
}

/// User instructions, from the processor's counters; where these are out of reach, one by one for the programs that are
/// few enough of them: a step takes 50 us here.
fn instructions(bench: &Bench, who: &Contender, command: &mut Command) -> Result<Value> {
    let file = bench.dir.join("perf");
    let mut counted = quiet(Path::new("perf"));
    counted.args(["stat", "-x,", "-e", "instructions:u", "-o"]).arg(&file);
    counted.arg(command.get_program()).args(command.get_args());
    let by_perf = timed(&mut counted, &bench.log("perf")).ok().and_then(|_| {
        let text = fs::read_to_string(&file).ok()?;
        text.lines().find_map(|line| line.split(',').next()?.parse::<u64>().ok())
    });
    match by_perf {
        Some(count) => Ok(json!({ "value": count })),
        None if who.is_floor() || who.name == "tare" => step::instructions(command),
        None => Err("no counters on this host, and too many to count one by one".into()),
    }
}

/// What a `run` that was given up has left.
fn end_counted(bench: &Bench, who: &Contender) {
    if !who.is_floor() {
        let _ = bench.step(who, &["delete", "--force", "counted"], "counts");
    }
    let _ = fs::remove_dir(bench.groups()[0].join("counted"));
    reap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_a_part_of_its_process() {
        let main = "execve(\"/bin/x\", [\"x\"], 0x7 /* 1 var */) = 0\n\
            clone3({flags=CLONE_VM|CLONE_THREAD, exit_signal=0} => {parent_tid=[11]}, 88) = 11\n\
            clone(child_stack=NULL, flags=SIGCHLD) = 12\n--- SIGCHLD {si_signo=SIGCHLD} ---\n+++ exited with 0 +++\n";
        let child = "execve(\"/no\", [\"no\"], 0x7) = -1 ENOENT (No such file or directory)\nexit_group(0) = ?\n";
        let traces = [(10, main), (11, "read(0, \"\", 1) = 0\n"), (12, child)];
        let traces = traces.into_iter().map(|(tid, text)| (tid, text.to_owned())).collect();
        let expected = [
            Process { calls: 4, threads: 2, execs: 1, clones: 1 },
            Process { calls: 2, threads: 1, execs: 0, clones: 0 },
        ];
        assert_eq!(processes(&traces), expected);
    }
}
