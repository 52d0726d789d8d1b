//! Many `exec` in one container, one after the other and at once: each leaves nothing, in the container or on disk.

use std::fs;
use std::path::Path;

use super::exec::{begin, detached, exec, exec_other, sleep};
use crate::common::{Container, eventually, host, pty};
use crate::container_test;

/// How many: `TARE_TEST_EXECS`, else a thousand, which take a few seconds.
fn execs() -> usize {
    std::env::var("TARE_TEST_EXECS").map_or(1000, |count| count.parse().expect("TARE_TEST_EXECS is a number"))
}

/// All that an `exec` might leave behind.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    /// In the container, dead or alive, and what each of them holds.
    processes: Vec<(i32, Vec<String>)>,
    cgroups: Vec<String>,
    /// Files of its state, with what is in them.
    state: Vec<(String, String)>,
}

fn left(c: &Container) -> Left {
    let cgroup = format!("{}/{}", c.cgroup, c.id);
    let mut cgroups: Vec<String> = host::cgroups(&cgroup).iter().flat_map(|dir| folders(dir)).collect();
    cgroups.sort();
    let mut state: Vec<_> = fs::read_dir(c.path("state").join(&c.id)).unwrap().flatten().map(|e| e.path()).collect();
    state.sort();
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    Left {
        processes: in_namespace(c.pid()).into_iter().map(|pid| (pid, descriptors(pid))).collect(),
        cgroups,
        state: state.into_iter().map(|path| (path.display().to_string(), text(&path))).collect(),
    }
}

fn folders(dir: &Path) -> Vec<String> {
    let below = fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    let mut all: Vec<String> = below.flat_map(|entry| folders(&entry.path())).collect();
    all.push(dir.display().to_string());
    all
}

/// The processes that share a process's pid namespace, zombies too.
fn in_namespace(init: i32) -> Vec<i32> {
    let own = fs::read_link(format!("/proc/{init}/ns/pid")).unwrap();
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut pids: Vec<i32> =
        pids.filter(|pid: &i32| fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|ns| ns == own)).collect();
    // A zombie has no namespaces any more: those are known by their cgroup.
    let cgroup = fs::read_to_string(format!("/proc/{init}/cgroup")).unwrap();
    let zombies = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.extend(zombies.filter(|pid: &i32| {
        host::process_state(*pid) == Some('Z')
            && fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text == cgroup)
    }));
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn descriptors(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let name = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut all: Vec<String> =
        entries.map(|e| format!("{} {}", name(&e), fs::read_link(e.path()).unwrap_or_default().display())).collect();
    all.sort();
    all
}

/// As it was before; what was detached is reaped by whoever adopted it, in its own time.
#[track_caller]
fn assert_nothing_left(c: &Container, before: &Left) {
    eventually("no process is left", || in_namespace(c.pid()).len() == before.processes.len());
    assert_eq!(left(c), *before);
}

container_test!(one_after_the_other, |c| {
    sleep(c);
    // A process that an exec has left on purpose, too, holds nothing of later ones.
    detached(c, &[]);
    let before = left(c);
    assert_eq!(before.processes.len(), 2);
    for i in 0..execs() {
        match i % 10 {
            3 => drop(exec(c, &["--detach"], &["true"]).ok()),
            5 => drop(exec_other(c, &[], &["/no/such/command"]).exits(255)),
            7 => drop(exec(c, &["--user", "1000", "--cwd", "/tmp"], &["exit", "5"]).exits(5)),
            9 => drop(exec(c, &["--cwd", "/proc/self/fd/3"], &["true"]).exits(255)),
            _ => drop(exec(c, &[], &["true"]).ok()),
        }
    }
    assert_nothing_left(c, &before);
});

container_test!(sixteen_at_once, |c| {
    sleep(c);
    let before = left(c);
    for round in 0..(execs() / 100).clamp(2, 50) {
        let names: Vec<String> = (0..16).map(|i| format!("number {round} {i}")).collect();
        let running: Vec<_> = names.iter().map(|name| begin(c, &[], &["echo", name])).collect();
        for (one, name) in running.into_iter().zip(&names) {
            assert_eq!(one.wait().ok().stdout, format!("{name}\n"));
        }
    }
    assert_nothing_left(c, &before);
});

container_test!(terminals_one_after_the_other, |c| {
    sleep(c);
    let before = left(c);
    let socket = c.path("console");
    for _ in 0..(execs() / 50).max(1) {
        let _ = fs::remove_file(&socket);
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        exec(c, &["--tty", "--detach", "--console-socket", socket.to_str().unwrap()], &["echo", "words"]).ok();
        let master = pty::Master::new(fs::File::from(pty::receive(&listener).1));
        master.wait_for("words\r\n");
    }
    // Each terminal has ended with its program: the next one has the first number again.
    eventually("no terminal is left", || exec(c, &[], &["ls", "/dev/pts"]).ok().stdout == "ptmx\n");
    assert_nothing_left(c, &before);
});
