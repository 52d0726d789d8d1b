//! A process whose first thread has ended lives in its others, though /proc shows a zombie: the container runs, and whatever
//! is done to it reaches it.

use serde_json::json;

use crate::common::program::finish;
use crate::common::{Container, Output, eventually, host};
use crate::{container_test, skip_for_runc, skip_unless};

/// A prefix that runs a command where cgroup v2 is all there is.
const ON_V2: [&str; 6] = [
    "unshare",
    "--mount",
    "sh",
    "-ec",
    "umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec \"$@\"",
    "sh",
];

/// The host's own cgroups, and v2 alone.
const HOSTS: [&[&str]; 2] = [&[], &ON_V2];

fn by(c: &Container, prefix: &[&str], words: &[&str]) -> Output {
    finish(&mut c.command_by(prefix, words), &c.dir)
}

fn cgroup(c: &Container) -> String {
    format!("{}/{}", c.cgroup, c.id)
}

/// Starts the payload, and waits until its first thread has ended.
fn detach(c: &Container, prefix: &[&str]) -> i32 {
    c.write_config();
    by(c, prefix, &["run", "--detach", &c.id]).ok();
    let pid = c.pid();
    eventually("the first thread has ended", || host::process_state(pid) == Some('Z'));
    pid
}

/// A poststop hook that writes a line to a file, and how many have run.
fn poststop(c: &mut Container) {
    let script = format!("echo ran >> {}", c.path("poststop").display());
    c.push("/hooks/poststop", json!({ "path": "/bin/sh", "args": ["sh", "-c", script] }));
}

fn hooks_run(c: &Container) -> usize {
    std::fs::read_to_string(c.path("poststop")).unwrap_or_default().lines().count()
}

container_test!(the_container_runs_on_without_its_first_thread, |c| {
    skip_for_runc!(c, "it takes the container for stopped");
    poststop(c);
    c.args(&["leave-first-thread"]);
    for (round, prefix) in HOSTS.into_iter().enumerate() {
        let pid = detach(c, prefix);
        assert_eq!(c.status(), "running");
        let list = c.tare(&["list", "--format", "json"]).ok().json();
        assert_eq!((list[0]["status"].as_str(), list[0]["pid"].as_i64()), (Some("running"), Some(pid.into())));
        let processes = by(c, prefix, &["ps", "--format", "json", &c.id]).ok().json();
        assert_eq!(processes, json!([pid]));
        let said = by(c, prefix, &["exec", &c.id, "/guest", "echo", "hello"]).ok();
        assert_eq!(said.stdout, "hello\n");
        by(c, prefix, &["pause", &c.id]).ok();
        assert_eq!(by(c, prefix, &["state", &c.id]).ok().json()["status"], "paused");
        by(c, prefix, &["exec", &c.id, "/guest", "true"]).exits(255);
        by(c, prefix, &["resume", &c.id]).ok();
        if prefix.is_empty() && host::has_controller("pids") {
            c.tare(&["update", "--pids-limit", "20", &c.id]).ok();
        }
        c.kill(&["0"]).ok();
        by(c, prefix, &["delete", &c.id]).fails(&["not stopped"]);
        by(c, prefix, &["kill", &c.id, "KILL"]).ok();
        eventually("stopped", || c.status() == "stopped");
        assert_eq!(hooks_run(c), 2 * round);
        by(c, prefix, &["delete", &c.id]).ok();
        assert_eq!(hooks_run(c), 2 * round + 1);
        detach(c, prefix);
        by(c, prefix, &["delete", "--force", &c.id]).ok();
        assert_eq!(hooks_run(c), 2 * round + 2);
        c.assert_clean();
    }
});

container_test!(the_container_is_joined_where_it_has_no_namespaces_of_its_own, |c| {
    skip_for_runc!(c, "it takes the container for stopped");
    c.args(&["leave-first-thread"]);
    c.set("/linux/namespaces", json!([{ "type": "mount" }]));
    detach(c, &[]);
    assert_eq!(c.tare(&["exec", &c.id, "/guest", "echo", "hello"]).ok().stdout, "hello\n");
    c.delete_force().ok();
    c.assert_clean();
});

/// Four processes, of which three have ended their first thread.
fn leavers(c: &mut Container, prefix: &[&str]) {
    c.args(&["fork-leavers", "3"]);
    c.write_config();
    by(c, prefix, &["run", "--detach", &c.id]).ok();
    let ended = |pid: &i32| host::process_state(*pid) == Some('Z');
    eventually("three have ended their first thread", || {
        host::cgroup_pids(&cgroup(c)).iter().filter(|pid| ended(pid)).count() == 3
    });
}

container_test!(every_process_is_killed_though_its_first_thread_has_ended, |c| {
    skip_for_runc!(c, "it trusts cgroup.kill");
    // The kernel would kill them with the first process of a pid namespace.
    c.remove("/linux/namespaces/0");
    for prefix in HOSTS {
        for words in [["kill", "--all", &c.id.clone(), "KILL"].as_slice(), &["kill", &c.id.clone(), "KILL"]] {
            leavers(c, prefix);
            by(c, prefix, words).ok();
            eventually("no process", || host::cgroup_pids(&cgroup(c)).is_empty());
            by(c, prefix, &["delete", &c.id]).ok();
            c.assert_clean();
        }
        leavers(c, prefix);
        by(c, prefix, &["kill", "--all", &c.id, "TERM"]).ok();
        eventually("no process", || host::cgroup_pids(&cgroup(c)).is_empty());
        by(c, prefix, &["delete", &c.id]).ok();
        leavers(c, prefix);
        by(c, prefix, &["delete", "--force", &c.id]).ok();
        assert!(host::cgroup_pids(&cgroup(c)).is_empty());
        c.assert_clean();
    }
});

container_test!(what_an_ended_run_leaves_is_killed_though_its_first_thread_has_ended, |c| {
    skip_for_runc!(c, "it trusts cgroup.kill");
    c.remove("/linux/namespaces/0");
    for prefix in HOSTS {
        c.args(&["all", "fork", "leave-first-thread", ",", "exit", "3"]);
        c.write_config();
        by(c, prefix, &["run", &c.id]).exits(3);
        c.assert_clean();
    }
});

/// A prefix that runs a command as a root that may not look at processes of others in a /proc that hides them (from all but
/// a group that nobody is in).
const HIDDEN: [&str; 6] = [
    "unshare",
    "--mount",
    "sh",
    "-ec",
    "mount -t proc -o hidepid=2,gid=4242 proc /proc; exec setpriv --bounding-set -sys_ptrace \"$@\"",
    "sh",
];

container_test!(a_container_that_proc_hides_has_not_ended, |c| {
    skip_for_runc!(c, "it takes the container for stopped");
    skip_unless!(c, host::installed("setpriv"), "setpriv is missing");
    c.args(&["sleep-forever"]);
    c.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    for creator in [[].as_slice(), &HIDDEN] {
        c.write_config();
        by(c, creator, &["run", "--detach", &c.id]).ok();
        let pid = c.pid();
        let state = by(c, &HIDDEN, &["state", &c.id]).ok().json();
        assert_eq!((state["status"].as_str(), state["pid"].as_i64()), (Some("running"), Some(pid.into())));
        by(c, &HIDDEN, &["delete", &c.id]).fails(&["not stopped"]);
        assert_eq!((c.status().as_str(), c.pid()), ("running", pid));
        // What it is known by is no word of /proc: it is reached by the very same command.
        by(c, &HIDDEN, &["kill", &c.id, "KILL"]).ok();
        c.wait_status("stopped");
        assert_eq!(by(c, &HIDDEN, &["state", &c.id]).ok().json()["status"], "stopped");
        by(c, &HIDDEN, &["delete", &c.id]).ok();
        c.assert_clean();
    }
});

container_test!(a_hidden_process_that_nothing_tells_apart_is_not_signalled, |c| {
    skip_for_runc!(c, "its state is another");
    skip_unless!(c, host::installed("setpriv"), "setpriv is missing");
    c.args(&["sleep-forever"]);
    c.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    c.detach().ok();
    // As a kernel before 6.9, or a tare of before, leaves it.
    let file = c.path("state").join(&c.id).join("state.json");
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    record["init"].as_object_mut().unwrap().remove("inode");
    std::fs::write(&file, record.to_string()).unwrap();
    by(c, &HIDDEN, &["kill", &c.id, "KILL"]).fails(&["hidepid"]);
    by(c, &HIDDEN, &["delete", "--force", &c.id]).fails(&["hidepid"]);
    assert_eq!(c.status(), "running");
    c.delete_force().ok();
});
