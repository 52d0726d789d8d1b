//! `exec`: a further program in a container. What it starts with is in exec_process.rs, what goes wrong in
//! exec_errors.rs.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::namespaces::{finish as end, sleeping};
use crate::common::program::{Running, calls_of_glibc, finish, guest, start};
use crate::common::{Container, Output, assert_has, eventually, host, trace};
use crate::{container_test, skip_for_runc};

/// System calls of a whole `exec` of the probe's `true`, those of the payload included, on a host with nine v1
/// hierarchies (two calls each). The goal is 150; 38 of these drop one capability each.
const SYSTEM_CALLS_OF_EXEC: usize = 156;
const CLONES_OF_EXEC: usize = 3;

/// The words of `exec FLAGS ID /guest WORDS`.
pub(super) fn line<'a>(c: &'a Container, flags: &[&'a str], words: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["exec"];
    all.extend(flags);
    all.extend([c.id.as_str(), "/guest"]);
    all.extend(words);
    all
}

/// Runs `exec FLAGS ID /guest WORDS` to its end.
pub(super) fn exec(c: &Container, flags: &[&str], words: &[&str]) -> Output {
    c.tare(&line(c, flags, words))
}

/// The same with the words of a program that is not the probe, or none.
pub(super) fn exec_other(c: &Container, flags: &[&str], words: &[&str]) -> Output {
    let mut all = vec!["exec"];
    all.extend(flags);
    all.push(&c.id);
    all.extend(words);
    c.tare(&all)
}

/// The facts of a process that `exec` has started with these flags.
pub(super) fn facts(c: &Container, flags: &[&str]) -> Value {
    exec(c, flags, &["facts"]).ok().json()
}

/// Starts `exec` in the foreground.
pub(super) fn begin(c: &Container, flags: &[&str], words: &[&str]) -> Running {
    start(&mut c.command(&line(c, flags, words)), &c.dir)
}

/// Starts the container with a payload that sleeps.
pub(super) fn sleep(c: &mut Container) {
    c.args(&["sleep-forever"]);
    c.detach().ok();
}

/// Starts a sleeper in the container by `exec --detach` and returns its pid on the host.
pub(super) fn detached(c: &Container, flags: &[&str]) -> i32 {
    let file = c.path("exec-pid");
    let mut all = vec!["--detach", "--pid-file", file.to_str().unwrap()];
    all.extend(flags);
    exec(c, &all, &["sleep-forever"]).ok();
    fs::read_to_string(&file).unwrap().parse().unwrap()
}

/// A line of /proc/PID/status.
pub(super) fn status(pid: i32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {key} of {pid}")).trim().to_owned()
}

container_test!(runs_a_program_beside_the_first, |c| {
    sleep(c);
    let facts = facts(c, &[]);
    assert_ne!(facts["pid"], 1);
    // Its parent is not of the container.
    assert_eq!(facts["ppid"], 0);
    assert_eq!(facts["argv"], json!(["/guest", "facts"]));
    assert_eq!(c.status(), "running");
});

container_test!(runs_in_a_created_container, |c| {
    c.args(&["write", "/ran", "yes"]);
    c.create().ok();
    assert_eq!(exec(c, &[], &["echo", "early"]).ok().stdout, "early\n");
    assert_eq!(c.status(), "created");
    assert!(!c.rootfs().join("ran").exists(), "the container's own program ran before start");
    c.start().ok();
    c.wait_status("stopped");
    assert!(c.rootfs().join("ran").exists());
});

container_test!(all_after_the_id_is_the_commands, |c| {
    sleep(c);
    let words = ["echo", "-la", "--user", "x", "--", "-t", "--help", "", "two words", "$HOME"];
    assert_eq!(exec(c, &[], &words).ok().stdout, "-la --user x -- -t --help  two words $HOME\n");
    assert_eq!(exec(c, &["--"], &["echo", "--", "x"]).ok().stdout, "-- x\n");
});

container_test!(flags_have_the_forms_of_go, |c| {
    sleep(c);
    let env = |flags: &[&str]| facts(c, flags)["env"].to_string();
    for flags in [["-e", "A=1"].as_slice(), &["--env", "A=1"], &["--env=A=1"], &["-env", "A=1"], &["-e=A=1"]] {
        assert_has(env(flags), "\"A=1\"");
    }
    exec(c, &["--detach=false", "-t=false"], &["exit", "5"]).exits(5);
});

container_test!(passes_the_exit_status_on, |c| {
    sleep(c);
    for code in ["0", "1", "7", "126", "137", "255"] {
        let output = exec(c, &[], &["exit", code]).exits(code.parse().unwrap());
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""), "nothing is added");
    }
});

container_test!(a_signal_gives_128_and_its_number, |c| {
    sleep(c);
    for signal in [2, 6, 9, 11, 13, 15] {
        exec(c, &[], &["kill-self", &signal.to_string()]).exits(128 + signal);
    }
});

container_test!(output_and_errors_are_kept_apart, |c| {
    sleep(c);
    let output = exec(c, &[], &["all", "echo", "out", ",", "err", "oops"]).ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "oops\n"));
});

container_test!(input_is_passed_through, |c| {
    sleep(c);
    // More than a pipe holds.
    let text = "some input\n".repeat(20_000);
    fs::write(c.path("input"), &text).unwrap();
    let mut command = c.command(&line(c, &["--env", "X=1"], &["pass-input"]));
    let output = finish(command.stdin(fs::File::open(c.path("input")).unwrap()), &c.dir).ok();
    assert_eq!(output.stdout, text.to_uppercase());
});

container_test!(the_end_of_a_pipe_arrives, |c| {
    use std::io::{Read, Write};
    use std::process::Stdio;
    sleep(c);
    let mut command = c.command(&line(c, &[], &["pass-input"]));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through a pipe").unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(text, "THROUGH A PIPE");
});

container_test!(closed_standard_descriptors_are_no_problem, |c| {
    sleep(c);
    for closed in [vec!["close=0"], vec!["close=1"], vec!["close=2"], vec!["close=0", "close=1", "close=2"]] {
        let mut prefix = vec![guest().to_str().unwrap(), "with"];
        prefix.extend(&closed);
        prefix.push("--");
        finish(&mut c.command_by(&prefix, &line(c, &[], &["write", "/ran", "yes"])), &c.dir).ok();
        fs::remove_file(c.rootfs().join("ran")).unwrap();
    }
});

container_test!(detach_returns_while_the_program_runs, |c| {
    sleep(c);
    let pid = detached(c, &[]);
    assert_eq!(status(pid, "NSpid").split_whitespace().next().unwrap(), pid.to_string());
    assert_eq!(host::namespace(&pid.to_string(), "pid"), host::namespace(&c.pid().to_string(), "pid"));
    // No helper stays; whoever adopts orphans on the host has adopted it.
    eventually("two processes", || {
        let mut have = host::processes(c.dir.to_str().unwrap());
        have.sort_unstable();
        let mut want = vec![c.pid(), pid];
        want.sort_unstable();
        have == want
    });
    let parent = status(pid, "PPid");
    let command = fs::read_to_string(format!("/proc/{parent}/cmdline")).unwrap_or_default();
    assert!(!command.contains(c.dir.to_str().unwrap()), "its parent is {command}");
});

container_test!(detach_passes_nothing_of_the_exit_status_on, |c| {
    sleep(c);
    exec(c, &["-d"], &["exit", "9"]).ok();
});

container_test!(a_detached_program_keeps_no_pipe_but_its_own, |c| {
    sleep(c);
    let mut command = c.command(&line(c, &["-d"], &["exit", "0"]));
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || std::io::Read::read_to_end(&mut pipe, &mut Vec::new()).unwrap());
    assert!(child.wait().unwrap().success());
    eventually("the pipe ends", || reader.is_finished());
});

container_test!(the_pid_file_is_atomic_and_has_no_newline, |c| {
    sleep(c);
    let file = c.path("exec-pid");
    fs::write(&file, "an old and much longer text").unwrap();
    let old = fs::File::open(&file).unwrap();
    let before = fs::metadata(&file).unwrap().ino();
    let pid = detached(c, &[]);
    assert_eq!(fs::read_to_string(&file).unwrap(), pid.to_string());
    assert_ne!(fs::metadata(&file).unwrap().ino(), before, "written in place");
    assert_eq!(std::io::read_to_string(old).unwrap(), "an old and much longer text");
    let mut left: Vec<_> = fs::read_dir(&c.dir).unwrap().flatten().map(|e| e.file_name()).collect();
    left.sort();
    assert_eq!(left, ["bundle", "exec-pid", "state"], "nothing temporary");
    let name = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert!(name.ends_with("guest"), "{name:?}");
});

container_test!(the_pid_file_is_written_in_the_foreground_too, |c| {
    sleep(c);
    let file = c.path("exec-pid");
    let mut running = begin(c, &["--pid-file", file.to_str().unwrap()], &["catch", "42", "10"]);
    running.wait_for("ready");
    // Written when the program runs, which may speak before.
    eventually("the pid file", || file.exists());
    let pid: i32 = fs::read_to_string(&file).unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGUSR1).unwrap();
    running.wait().exits(42);
});

container_test!(a_relative_pid_file_is_the_callers, |c| {
    sleep(c);
    exec(c, &["--pid-file", "pid-here"], &["true"]).ok();
    assert!(c.bundle().join("pid-here").exists(), "relative to the caller's working folder");
});

container_test!(forwards_signals, |c| {
    sleep(c);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGQUIT] {
        let number = (signal as i32).to_string();
        let mut running = begin(c, &[], &["catch", "42", &number]);
        running.wait_for("ready");
        running.signal(signal);
        let output = running.wait().exits(42);
        assert_has(output.stdout, &format!("got {number}\n"));
    }
    assert_eq!(c.status(), "running", "the container's own program gets none");
});

container_test!(a_forwarded_signal_that_kills, |c| {
    sleep(c);
    let mut running = begin(c, &[], &["sleep-forever"]);
    running.wait_for("ready");
    running.signal(Signal::SIGTERM);
    running.wait().exits(128 + 15);
});

container_test!(the_container_ends_while_it_runs, |c| {
    sleep(c);
    let mut running = begin(c, &[], &["sleep-forever"]);
    running.wait_for("ready");
    c.kill(&["KILL"]).ok();
    running.wait().exits(137);
    c.wait_status("stopped");
    c.delete().ok();
    c.assert_clean();
});

container_test!(delete_takes_what_exec_has_started_along, |c| {
    sleep(c);
    let pids = [detached(c, &[]), detached(c, &[])];
    c.delete_force().ok();
    eventually("both are gone", || pids.iter().all(|pid| host::process_state(*pid).is_none_or(|state| state == 'Z')));
    c.assert_clean();
});

container_test!(an_exec_that_is_killed_leaves_the_container_running, |c| {
    sleep(c);
    let mut running = begin(c, &[], &["sleep-forever"]);
    running.wait_for("ready");
    running.signal(Signal::SIGKILL);
    running.wait().exits(137);
    assert_eq!(c.status(), "running");
    exec(c, &[], &["exit", "3"]).exits(3);
});

container_test!(a_callers_ignored_sigchld_is_no_problem, |c| {
    skip_for_runc!(c, "Go resets it by itself");
    sleep(c);
    let prefix = [guest().to_str().unwrap(), "with", "ignore=17", "block=17", "--"];
    finish(&mut c.command_by(&prefix, &line(c, &[], &["exit", "6"])), &c.dir).exits(6);
});

container_test!(works_with_an_empty_environment, |c| {
    sleep(c);
    let mut command = c.command(&line(c, &[], &["exit", "6"]));
    finish(command.env_clear(), &c.dir).exits(6);
});

container_test!(in_a_user_namespace, |c| {
    super::userns::map(c);
    sleep(c);
    let (seen, pid) = (facts(c, &[]), c.pid().to_string());
    assert_eq!(seen["ns"]["user"], host::namespace(&pid, "user"));
    assert_eq!(seen["ns"]["mnt"], host::namespace(&pid, "mnt"));
    assert_eq!((&seen["status"]["Uid"], &seen["status"]["Gid"]), (&json!("0 0 0 0"), &json!("0 0 0 0")));
    let seen = facts(c, &["--user", "1000:1001", "-g", "1002"]);
    assert_eq!(seen["status"]["Uid"], "1000 1000 1000 1000");
    assert_eq!((&seen["status"]["Gid"], &seen["status"]["Groups"]), (&json!("1001 1001 1001 1001"), &json!("1002")));
    let pid = detached(c, &["--user", "1000:1001"]);
    assert_eq!(status(pid, "Uid").split_whitespace().next(), Some("301000"));
    // An id that has no mapping.
    assert_ne!(exec(c, &["--user", "70000"], &["true"]).code, 0);
});

container_test!(in_joined_namespaces, |c| {
    let other = sleeping(&c.name, |_| ());
    let theirs = other.pid().to_string();
    c.set("/linux/namespaces/0/path", format!("/proc/{theirs}/ns/pid"));
    c.set("/linux/namespaces/1/path", format!("/proc/{theirs}/ns/net"));
    sleep(c);
    let seen = facts(c, &[]);
    for name in ["pid", "net"] {
        assert_eq!(seen["ns"][name], host::namespace(&theirs, name), "{name}");
    }
    for name in ["mnt", "ipc", "uts"] {
        assert_eq!(seen["ns"][name], host::namespace(&c.pid().to_string(), name), "{name}");
    }
    exec(c, &[], &["exit", "7"]).exits(7);
    c.delete_force().ok();
    end(other);
});

container_test!(in_the_hosts_pid_namespace, |c| {
    c.remove("/linux/namespaces/0");
    sleep(c);
    let pid = detached(c, &[]);
    assert_eq!(host::namespace(&pid.to_string(), "pid"), host::namespace("self", "pid"));
    exec(c, &[], &["exit", "7"]).exits(7);
    c.kill(&["--all", "KILL"]).ok();
    eventually("the sleeper is gone", || host::process_state(pid).is_none_or(|state| state == 'Z'));
});

container_test!(a_hundred_leave_nothing, |c| {
    leaves_nothing(c, std::env::var("TARE_TEST_EXECS").map_or(100, |n| n.parse().unwrap()));
});

fn leaves_nothing(c: &mut Container, count: usize) {
    sleep(c);
    exec(c, &[], &["exit", "7"]).exits(7);
    let path = format!("{}/{}", c.cgroup, c.id);
    let look = |c: &Container| {
        let fds = fs::read_dir(format!("/proc/{}/fd", c.pid())).unwrap().count();
        let state = fs::read_dir(c.path("state").join(&c.id)).unwrap().count();
        let below: usize = host::cgroups(&path)
            .iter()
            .map(|dir| fs::read_dir(dir).unwrap().flatten().filter(|e| e.file_type().unwrap().is_dir()).count())
            .sum();
        (fds, state, below, host::mounts())
    };
    let before = look(c);
    for _ in 0..count {
        exec(c, &[], &["exit", "7"]).exits(7);
    }
    assert_eq!(look(c), before, "descriptors, state files, cgroups below, mounts");
    assert_eq!(host::cgroup_pids(&path), [c.pid()]);
    assert_eq!(host::processes(c.dir.to_str().unwrap()), [c.pid()]);
    // In the container's pid namespace: no zombie either.
    let names = exec(c, &[], &["ls", "/proc"]).ok().stdout;
    let pids = names.split_whitespace().filter(|name| name.parse::<u32>().is_ok()).count();
    assert_eq!(pids, 2, "the first and the one that looks: {names}");
}

container_test!(failed_ones_leave_nothing, |c| {
    sleep(c);
    for _ in 0..20 {
        exec_other(c, &[], &["/no/such/program"]).exits(255);
        exec(c, &["--cwd", "/no/such/folder"], &["true"]).exits(255);
    }
    let names = exec(c, &[], &["ls", "/proc"]).ok().stdout;
    let pids = names.split_whitespace().filter(|name| name.parse::<u32>().is_ok()).count();
    assert_eq!(pids, 2, "a zombie in the pid namespace would hold up its end: {names}");
    assert_eq!(host::processes(c.dir.to_str().unwrap()), [c.pid()]);
});

container_test!(thirty_two_at_once, |c| {
    sleep(c);
    let all: Vec<_> = (0..32).map(|i| (i, begin(c, &[], &["exit", &i.to_string()]))).collect();
    for (i, running) in all {
        running.wait().exits(i);
    }
    assert_eq!(host::cgroup_pids(&format!("{}/{}", c.cgroup, c.id)), [c.pid()]);
});

container_test!(while_the_container_is_being_deleted, |c| {
    for _ in 0..3 {
        sleep(c);
        let all: Vec<_> = (0..4).map(|_| begin(c, &[], &["exit", "7"])).collect();
        c.delete_force().ok();
        for running in all {
            let output = running.wait();
            assert!([7, 137, 255].contains(&output.code), "{output}");
        }
        c.assert_clean();
    }
});

container_test!(system_calls_of_exec, |c| {
    skip_for_runc!(c, "it makes thousands");
    if !trace::available(c) {
        return;
    }
    sleep(c);
    let (output, calls) = trace::record(c, true, &line(c, &[], &["true"]));
    output.ok();
    let count = |names: &[&str]| calls.iter().filter(|call| names.contains(&call.name.as_str())).count();
    let mut names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
    names.sort_unstable();
    let table: Vec<String> = names.chunk_by(|a, b| a == b).map(|same| format!("{} {}", same.len(), same[0])).collect();
    let table = table.join(", ");
    assert!(calls.len() > 20, "strace has seen too little: {table}");
    assert!(calls.len() <= SYSTEM_CALLS_OF_EXEC + calls_of_glibc(), "{} system calls: {table}", calls.len());
    assert!(count(&["clone", "clone3", "fork", "vfork"]) <= CLONES_OF_EXEC, "{table}");
    assert_eq!(count(&["nanosleep", "clock_nanosleep"]), 0, "it sleeps");
    assert_eq!(count(&["mount", "umount2", "move_mount", "pivot_root"]), 0, "init systems watch the mount table");
    assert!(!calls.iter().any(|call| call.text.contains("/mountinfo")), "it reads the mount table");
    println!("{} system calls", calls.len());
});
