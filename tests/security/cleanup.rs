//! What clean-up reaches: the container and what it made, all of it, and nothing of anybody else's.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde_json::json;

use crate::common::{Container, eventually, host, trace};
use crate::{container_test, skip_for_runc};

fn cgroup(c: &Container) -> String {
    c.config["linux"]["cgroupsPath"].as_str().unwrap().to_owned()
}

/// A container whose processes its cgroup alone tells.
fn without_pid_namespace(c: &mut Container) {
    c.set("/linux/namespaces", json!([{ "type": "mount" }]));
}

/// A second container that names the cgroup of the first.
fn namesake(c: &Container) -> Container {
    let mut other = Container::new(&c.name);
    other.config["linux"]["cgroupsPath"] = c.config["linux"]["cgroupsPath"].clone();
    without_pid_namespace(&mut other);
    other.args(&["sleep-forever"]);
    other.write_config();
    other
}

/// The points of a create from the first record on to where it finds that the cgroup is in use.
fn points(other: &Container) -> Vec<String> {
    let (output, calls) = trace::record(other, false, &["create", &other.id]);
    output.fails(&["not empty"]);
    let first = calls.iter().position(|call| call.name == "rename" || call.name == "renameat").unwrap();
    trace::points(&calls).into_iter().skip(first).collect()
}

container_test!(a_creation_that_was_killed_spares_the_owner_of_its_cgroup, |c| {
    skip_for_runc!(c, "it leaves what it made");
    if !trace::available(c) {
        return;
    }
    without_pid_namespace(c);
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let pid = c.pid();
    let mut other = namesake(c);
    for point in points(&other) {
        trace::killed_at(&other, false, &point, &["create", &other.id]).wait();
        for words in [["kill", "--all", &other.id, "KILL"].as_slice(), &["delete", "--force", &other.id]] {
            let output = other.tare(words);
            assert!(
                output.code == 0 || output.stderr.contains("does not exist"),
                "killed at {point}: {words:?}: {output}"
            );
            let state = host::process_state(pid);
            assert!(
                matches!(state, Some('S' | 'R')),
                "killed at {point}: {words:?} has killed another container: {state:?}"
            );
        }
        assert!(!other.path("state").join(&other.id).exists(), "killed at {point}");
    }
    assert_eq!((c.status().as_str(), c.pid()), ("running", pid));
    finish(&mut other, c);
});

container_test!(a_creation_that_hangs_spares_the_owner_of_its_cgroup, |c| {
    skip_for_runc!(c, "it leaves what it made");
    if !trace::available(c) {
        return;
    }
    without_pid_namespace(c);
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let pid = c.pid();
    let mut other = namesake(c);
    // The first is the cgroup's; that of the state is made by mkdirat(2).
    let point = "inject=mkdir:delay_enter=3s:when=1";
    let creating = trace::killed_at(&other, false, point, &["create", &other.id]);
    let record = other.path("state").join(&other.id).join("state.json");
    eventually("it is being created", || record.exists());
    other.tare(&["kill", "--all", &other.id, "KILL"]);
    other.delete_force();
    let state = host::process_state(pid);
    assert!(matches!(state, Some('S' | 'R')), "another container was killed: {state:?}");
    creating.wait();
    other.delete_force().ok();
    assert_eq!((c.status().as_str(), c.pid()), ("running", pid));
    finish(&mut other, c);
});

container_test!(a_creation_that_was_killed_leaves_the_cgroup_that_was_there, |c| {
    skip_for_runc!(c, "it leaves what it made");
    if !trace::available(c) {
        return;
    }
    c.detach().ok();
    c.wait_status("stopped");
    let there = host::cgroups(&cgroup(c));
    let mut other = namesake(c);
    trace::killed_at(&other, false, "inject=mkdir:signal=SIGKILL:when=1", &["create", &other.id]).wait();
    other.delete_force().ok();
    assert_eq!(host::cgroups(&cgroup(c)), there);
    finish(&mut other, c);
});

container_test!(a_stopped_container_spares_who_has_its_cgroups_path_by_now, |c| {
    skip_for_runc!(c, "it kills them");
    without_pid_namespace(c);
    c.detach().ok();
    c.wait_status("stopped");
    for dir in host::cgroups(&cgroup(c)) {
        std::fs::remove_dir(dir).unwrap();
    }
    let mut other = namesake(c);
    other.detach().ok();
    let pid = other.pid();
    c.kill(&["--all", "KILL"]).ok();
    c.delete_force().ok();
    let state = host::process_state(pid);
    assert!(matches!(state, Some('S' | 'R')), "another container was killed: {state:?}");
    assert_eq!(other.status(), "running");
    other.delete_force().ok();
    finish(&mut other, c);
});

container_test!(a_stopped_container_spares_who_has_taken_its_cgroup_over, |c| {
    skip_for_runc!(c, "it kills them");
    without_pid_namespace(c);
    c.detach().ok();
    c.wait_status("stopped");
    let mut other = namesake(c);
    other.detach().ok();
    let pid = other.pid();
    c.kill(&["--all", "KILL"]).ok();
    c.delete_force().ok();
    let state = host::process_state(pid);
    assert!(matches!(state, Some('S' | 'R')), "another container was killed: {state:?}");
    other.delete_force().ok();
    finish(&mut other, c);
});

/// The clean-up of a second container, whose cgroup is the first one's.
fn finish(other: &mut Container, c: &Container) {
    other.config["linux"]["cgroupsPath"] = c.config["linux"]["cgroupsPath"].clone();
    other.finish();
}

/// Cgroups nested so deep that no path says them; whatever is left of them goes with this.
struct Nest(PathBuf);

/// Longer than PATH_MAX together.
const DEPTH: usize = 20;

fn name() -> String {
    "n".repeat(250)
}

fn directory(above: Option<&OwnedFd>, name: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    match above {
        Some(above) => openat(above, name, flags, Mode::empty()),
        None => open(name, flags, Mode::empty()),
    }
}

impl Nest {
    /// Makes them, and returns the deepest.
    fn make(dir: &Path) -> (Self, OwnedFd) {
        let nest = Self(dir.to_owned());
        let mut here = directory(None, dir).unwrap();
        for _ in 0..DEPTH {
            nix::sys::stat::mkdirat(&here, name().as_str(), Mode::from_bits_truncate(0o755)).unwrap();
            here = directory(Some(&here), Path::new(&name())).unwrap();
        }
        (nest, here)
    }
}

impl Drop for Nest {
    fn drop(&mut self) {
        let Ok(mut here) = directory(None, &self.0) else { return };
        let mut depth = 0;
        while let Ok(below) = directory(Some(&here), Path::new(&name())) {
            here = below;
            depth += 1;
        }
        while depth > 0 {
            let text = read(&here, "cgroup.procs");
            text.lines().filter_map(|line| line.parse().ok()).for_each(host::kill);
            let _ = write(&here, "freezer.state", "THAWED");
            here = directory(Some(&here), Path::new("..")).unwrap();
            let remove = || unlinkat(&here, name().as_str(), UnlinkatFlags::RemoveDir);
            for _ in 0..200 {
                if remove() != Err(Errno::EBUSY) {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            depth -= 1;
        }
    }
}

fn read(dir: &OwnedFd, file: &str) -> String {
    use std::io::Read;
    let mut text = String::new();
    if let Ok(fd) = openat(dir, file, OFlag::O_RDONLY, Mode::empty()) {
        let _ = std::fs::File::from(fd).read_to_string(&mut text);
    }
    text
}

fn write(dir: &OwnedFd, file: &str, text: &str) -> nix::Result<usize> {
    nix::unistd::write(openat(dir, file, OFlag::O_WRONLY, Mode::empty())?, text.as_bytes())
}

/// Moves a process of the container into the deepest of cgroups that no path reaches, in every hierarchy.
fn nest(c: &Container, pid: i32) -> Vec<(Nest, OwnedFd)> {
    let nests: Vec<_> = host::cgroups(&cgroup(c)).iter().map(|dir| Nest::make(dir)).collect();
    for (_, deepest) in &nests {
        // A cpuset that nobody has filled takes no process.
        let _ = write(deepest, "cgroup.procs", &pid.to_string());
    }
    nests
}

container_test!(cgroups_beyond_path_max_are_no_hiding_place, |c| {
    skip_for_runc!(c, "it can't remove them");
    c.args(&["fork-tree", "1"]);
    without_pid_namespace(c);
    for (freeze, words) in [
        (false, ["kill", "--all", &c.id.clone(), "KILL"].as_slice()),
        (false, &["kill", "--all", &c.id.clone(), "TERM"]),
        (true, &["kill", "--all", &c.id.clone(), "KILL"]),
        (true, &["delete", "--force", &c.id.clone()]),
    ] {
        c.detach().ok();
        let first = c.pid();
        eventually("two processes", || host::cgroup_pids(&cgroup(c)).len() == 2);
        let hidden = host::cgroup_pids(&cgroup(c)).into_iter().find(|pid| *pid != first).unwrap();
        let nests = nest(c, hidden);
        if freeze {
            for (_, deepest) in &nests {
                let _ = write(deepest, "freezer.state", "FROZEN");
            }
        }
        let listed = c.tare(&["ps", "--format", "json", &c.id]).ok().json();
        assert!(listed.as_array().unwrap().contains(&json!(hidden)), "{listed} lacks {hidden}");
        c.tare(words).ok();
        eventually("no process", || {
            [first, hidden].map(host::process_state).iter().all(|s| matches!(s, None | Some('Z')))
        });
        c.delete_force().ok();
        c.assert_clean();
    }
});

container_test!(a_frozen_cgroup_beyond_path_max_holds_nothing_up, |c| {
    skip_for_runc!(c, "it can't remove them");
    c.args(&["sleep-forever"]);
    for words in [["kill", &c.id.clone(), "KILL"].as_slice(), &["delete", "--force", &c.id.clone()]] {
        c.detach().ok();
        let pid = c.pid();
        let nests = nest(c, pid);
        for (_, deepest) in &nests {
            let _ = write(deepest, "freezer.state", "FROZEN");
        }
        c.tare(words).ok();
        eventually("it has ended", || matches!(host::process_state(pid), None | Some('Z')));
        c.delete_force().ok();
        c.assert_clean();
    }
});

/// A process of the host's.
struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

container_test!(poststop_hooks_run_once_though_the_cgroup_can_not_be_removed, |c| {
    skip_for_runc!(c, "it doesn't run them");
    let script = format!("echo ran >> {}", c.path("poststop").display());
    c.push("/hooks/poststop", json!({ "path": "/bin/sh", "args": ["sh", "-c", script] }));
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let sleeper = Sleeper(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap());
    for dir in host::cgroups(&cgroup(c)) {
        std::fs::write(dir.join("cgroup.procs"), sleeper.0.id().to_string()).unwrap();
    }
    let output = c.delete_force();
    assert_eq!(output.code, 1, "{output}");
    let ran = || std::fs::read_to_string(c.path("poststop")).unwrap_or_default();
    assert_eq!(ran(), "ran\n");
    drop(sleeper);
    c.delete_force().ok();
    assert_eq!(ran(), "ran\n");
    c.assert_clean();
});

container_test!(a_process_without_its_first_thread_is_no_stopped_container, |c| {
    skip_for_runc!(c, "it is one");
    c.args(&["leave-first-thread"]);
    c.detach().ok();
    let pid = c.pid();
    eventually("the first thread has ended", || host::process_state(pid) == Some('Z'));
    c.delete().fails(&["not stopped"]);
    c.kill(&["KILL"]).ok();
    c.wait_status("stopped");
});

container_test!(processes_without_their_first_thread_are_killed, |c| {
    skip_for_runc!(c, "it trusts cgroup.kill");
    without_pid_namespace(c);
    c.args(&["fork-leavers", "3"]);
    c.detach().ok();
    eventually("three have ended their first thread", || {
        host::cgroup_pids(&cgroup(c)).iter().filter(|pid| host::process_state(**pid) == Some('Z')).count() == 3
    });
    c.kill(&["--all", "KILL"]).ok();
    eventually("no process", || host::cgroup_pids(&cgroup(c)).is_empty());
});

/// A prefix that runs a command as a root to whom /proc doesn't show the processes of others.
const HIDDEN: [&str; 6] = [
    "unshare",
    "--mount",
    "sh",
    "-ec",
    "mount -t proc -o hidepid=2,gid=4242 proc /proc; exec setpriv --bounding-set -sys_ptrace \"$@\"",
    "sh",
];

container_test!(a_hidden_process_is_no_stopped_container, |c| {
    skip_for_runc!(c, "it is one");
    crate::skip_unless!(c, host::installed("setpriv"), "setpriv is missing");
    c.args(&["sleep-forever"]);
    c.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    c.detach().ok();
    let pid = c.pid();
    let output = crate::common::program::finish(&mut c.command_by(&HIDDEN, &["delete", &c.id]), &c.dir);
    output.fails(&["not stopped"]);
    assert_eq!((c.status().as_str(), c.pid()), ("running", pid));
});

/// Whether a process is in a cgroup of that path in each hierarchy that has `dirs`.
fn is_confined(pid: i32, cgroup: &str) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines().any(|line| line.ends_with(&format!(":{cgroup}")))
}

container_test!(what_a_stopped_container_shared_is_its_successors, |c| {
    skip_for_runc!(c, "it removes the cgroup");
    if !trace::available(c) {
        return;
    }
    for joins in [false, true] {
        c.args(&["true"]);
        c.detach().ok();
        c.wait_status("stopped");
        let mut other = namesake(c);
        let sleeper = Sleeper(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap());
        if joins {
            let path = format!("/proc/{}/ns/pid", sleeper.0.id());
            other.set("/linux/namespaces", json!([{ "type": "mount" }, { "type": "pid", "path": path }]));
            other.write_config();
        }
        let there = host::cgroups(&cgroup(c));
        // It has taken the cgroup over, and nothing is in it yet.
        let creating = trace::killed_at(&other, false, "inject=clone3:delay_enter=1500000", &["create", &other.id]);
        let record = other.path("state").join(&other.id).join("config.json");
        eventually("it is being created", || record.exists());
        std::thread::sleep(std::time::Duration::from_millis(700));
        c.delete().ok();
        assert_eq!(host::cgroups(&cgroup(c)), there, "the stopped one has removed its successor's cgroup");
        creating.wait().ok();
        assert!(is_confined(other.pid(), &cgroup(c)), "it runs in no cgroup of its own");
        other.delete_force().ok();
        finish(&mut other, c);
    }
});

container_test!(a_creation_whose_cgroup_vanishes_fails, |c| {
    skip_for_runc!(c, "its steps come in another order");
    if !trace::available(c) {
        return;
    }
    let sleeper = Sleeper(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap());
    let path = format!("/proc/{}/ns/pid", sleeper.0.id());
    for namespaces in [json!([{ "type": "mount" }]), json!([{ "type": "mount" }, { "type": "pid", "path": path }])] {
        c.set("/linux/namespaces", namespaces);
        c.args(&["sleep-forever"]);
        c.write_config();
        let creating = trace::killed_at(c, false, "inject=clone3:delay_enter=1500000", &["create", &c.id]);
        eventually("its cgroup is there", || !host::cgroups(&cgroup(c)).is_empty());
        std::thread::sleep(std::time::Duration::from_millis(700));
        host::remove_cgroup(&cgroup(c));
        let output = creating.wait();
        assert_eq!(output.code, 1, "a container without limits was made: {output}");
        c.assert_clean();
    }
});

container_test!(a_creation_that_is_ended_spares_what_its_shell_has_made, |c| {
    skip_for_runc!(c, "it has no such record");
    if !trace::available(c) {
        return;
    }
    c.args(&["true"]);
    c.write_config();
    // It hangs before its first process is made.
    let script = "sleep 1000 & echo $! >sleeper; exec \"$@\"";
    let strace = ["-qq", "-D", "-o", "/dev/null", "-e", "trace=clone3", "-e", "inject=clone3:delay_enter=4s"];
    let prefix: Vec<&str> = ["strace"].into_iter().chain(strace).chain(["sh", "-c", script, "sh"]).collect();
    let creating = crate::common::program::start(&mut c.command_by(&prefix, &["create", &c.id]), &c.dir);
    let config = c.path("state").join(&c.id).join("config.json");
    eventually("it is being created", || config.exists());
    let sleeper = std::fs::read_to_string(c.bundle().join("sleeper")).unwrap().trim().parse().unwrap();
    c.delete_force();
    let state = host::process_state(sleeper);
    host::kill(sleeper);
    assert!(matches!(state, Some('S' | 'R')), "a child of the shell was killed: {state:?}");
    creating.wait();
    c.delete_force().ok();
});

container_test!(another_process_with_the_pid_and_the_time_is_not_the_container, |c| {
    skip_for_runc!(c, "it has no such record");
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let pid = c.pid();
    let file = c.path("state").join(&c.id).join("state.json");
    let kept = std::fs::read(&file).unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    let inode = record["init"]["inode"].as_u64().unwrap();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let numbers: Vec<u32> = release.split(['.', '-']).take(2).filter_map(|number| number.parse().ok()).collect();
    crate::skip_unless!(c, numbers >= vec![6, 9], "all pidfds have one inode before Linux 6.9");
    record["init"]["inode"] = json!(inode + 1);
    std::fs::write(&file, record.to_string()).unwrap();
    c.kill(&["KILL"]);
    let state = host::process_state(pid);
    std::fs::write(&file, kept).unwrap();
    assert!(matches!(state, Some('S' | 'R')), "another process was killed: {state:?}");
});
