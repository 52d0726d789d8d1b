//! linux.namespaces: new, inherited, joined by path; user namespaces are in userns.rs.

use std::fs;

use serde_json::{Value, json};

use crate::common::{Container, assert_has, host, rival};
use crate::{container_test, skip_for_runc};

/// What /proc calls the namespaces of config.json.
const KINDS: [(&str, &str); 7] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

/// runc 1.1 knows no time namespaces.
fn has_time() -> bool {
    rival() != Some("runc")
}

container_test!(new_ones_differ_from_the_hosts, |c| {
    c.push("/linux/namespaces", json!({ "type": "cgroup" }));
    if has_time() {
        c.push("/linux/namespaces", json!({ "type": "time" }));
    }
    let facts = c.facts();
    for (kind, name) in KINDS.into_iter().filter(|(kind, _)| has_time() || *kind != "time") {
        assert_ne!(facts["ns"][name], host::namespace("self", name), "{kind} should be new");
    }
    assert_eq!(facts["ns"]["user"], host::namespace("self", "user"));
});

container_test!(absent_ones_are_the_hosts, |c| {
    c.set("/linux/namespaces", json!([{ "type": "mount" }]));
    c.remove("/mounts/5"); // sysfs can't be mounted, or is the host's, without a network namespace
    let facts = c.facts();
    for (kind, name) in KINDS.into_iter().filter(|(kind, _)| *kind != "mount") {
        assert_eq!(facts["ns"][name], host::namespace("self", name), "{kind} should be the host's");
    }
});

container_test!(the_first_process_is_pid_1, |c| {
    let facts = c.facts();
    assert_eq!((&facts["pid"], &facts["ppid"]), (&json!(1), &json!(0)));
});

container_test!(without_a_pid_namespace_the_pid_is_the_hosts, |c| {
    c.remove("/linux/namespaces/0");
    c.args(&["sleep-forever"]);
    c.detach().ok();
    assert_eq!(host::namespace(&c.pid().to_string(), "pid"), host::namespace("self", "pid"));
});

container_test!(a_new_network_has_its_loopback_up, |c| {
    let facts = c.facts();
    assert_eq!(facts["loopback"], "up");
    let devices = c.prints(&["cat", "/proc/self/net/dev"]);
    assert_has(&devices, "lo:");
    assert_eq!(devices.lines().skip(2).filter(|line| line.contains("eth")).count(), 0, "{devices}");
});

container_test!(a_joined_network_is_left_alone, |c| {
    let other = sleeping(&c.name, |_| ());
    c.set("/linux/namespaces/1/path", format!("/proc/{}/ns/net", other.pid()));
    let facts = c.facts();
    assert_eq!(facts["ns"]["net"], host::namespace(&other.pid().to_string(), "net"));
    finish(other);
});

container_test!(joins_each_kind_by_path, |c| {
    let other = sleeping(&c.name, |other| {
        other.push("/linux/namespaces", json!({ "type": "cgroup" }));
    });
    let pid = other.pid();
    for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup"), ("pid", "pid")] {
        let mut namespaces = json!([{ "type": "mount" }, { "type": "network" }]);
        if kind == "network" {
            namespaces.as_array_mut().unwrap().pop();
        }
        namespaces.as_array_mut().unwrap().push(json!({ "type": kind, "path": format!("/proc/{pid}/ns/{name}") }));
        c.set("/linux/namespaces", namespaces);
        let facts = c.facts();
        assert_eq!(facts["ns"][name], host::namespace(&pid.to_string(), name), "{kind} should be joined");
        c.assert_clean();
    }
    finish(other);
});

container_test!(joins_several_at_once, |c| {
    let other = sleeping(&c.name, |_| ());
    let pid = other.pid();
    let path = |name: &str| format!("/proc/{pid}/ns/{name}");
    c.set(
        "/linux/namespaces",
        json!([
            { "type": "mount" },
            { "type": "pid", "path": path("pid") },
            { "type": "uts", "path": path("uts") },
            { "type": "ipc", "path": path("ipc") },
            { "type": "network", "path": path("net") },
        ]),
    );
    let facts = c.facts();
    for name in ["pid", "uts", "ipc", "net"] {
        assert_eq!(facts["ns"][name], host::namespace(&pid.to_string(), name), "{name}");
    }
    finish(other);
});

container_test!(a_joined_pid_namespace_can_be_killed_and_deleted, |c| {
    let other = sleeping(&c.name, |_| ());
    c.set("/linux/namespaces/0/path", format!("/proc/{}/ns/pid", other.pid()));
    c.args(&["sleep-forever"]);
    c.detach().ok();
    assert_eq!(c.status(), "running");
    c.kill(&["KILL"]).ok();
    c.wait_status("stopped");
    c.delete().ok();
    assert_eq!(other.status(), "running", "the owner of the namespace should be untouched");
    finish(other);
});

container_test!(the_exit_status_comes_through_a_joined_pid_namespace, |c| {
    let other = sleeping(&c.name, |_| ());
    c.set("/linux/namespaces/0/path", format!("/proc/{}/ns/pid", other.pid()));
    c.args(&["exit", "23"]);
    c.run().exits(23);
    finish(other);
});

container_test!(a_joined_namespace_may_be_a_bind_mounted_file, |c| {
    // A copy of the mount table of our own, so that the host's isn't touched.
    let other = sleeping(&c.name, |_| ());
    let link = c.path("netns");
    std::os::unix::fs::symlink(format!("/proc/{}/ns/net", other.pid()), &link).unwrap();
    c.set("/linux/namespaces/1/path", link.to_str().unwrap());
    let facts = c.facts();
    assert_eq!(facts["ns"]["net"], host::namespace(&other.pid().to_string(), "net"));
    finish(other);
});

container_test!(a_missing_path_is_an_error_that_names_it, |c| {
    c.set("/linux/namespaces/1/path", "/proc/self/ns/nothing");
    c.run().fails(&["/proc/self/ns/nothing"]);
    c.assert_clean();
});

container_test!(a_file_that_is_no_namespace_is_an_error_that_names_it, |c| {
    let file = c.path("file");
    fs::write(&file, "").unwrap();
    c.set("/linux/namespaces/1/path", file.to_str().unwrap());
    c.run().fails(&[file.to_str().unwrap()]);
    c.assert_clean();
});

container_test!(the_wrong_type_is_an_error_that_names_it, |c| {
    c.set("/linux/namespaces/1/path", "/proc/self/ns/ipc");
    c.run().fails(&["/proc/self/ns/ipc"]);
    c.assert_clean();
});

container_test!(a_cgroup_namespace_has_the_container_as_its_root, |c| {
    c.push("/linux/namespaces", json!({ "type": "cgroup" }));
    let lines = c.facts()["cgroup"].clone();
    for line in crate::common::strings(&lines) {
        assert!(line.ends_with(":/"), "{line}");
    }
});

container_test!(time_offsets_move_the_clocks, |c| {
    if !has_time() {
        return crate::common::skip(&c.name, "this runtime has no time namespaces");
    }
    c.push("/linux/namespaces", json!({ "type": "time" }));
    let before = c.facts();
    c.set(
        "/linux/timeOffsets",
        json!({ "monotonic": { "secs": 100_000 }, "boottime": { "secs": 200_000, "nanosecs": 5 } }),
    );
    let facts = c.facts();
    let moved = |clock: &str| facts[clock].as_i64().unwrap() - before[clock].as_i64().unwrap();
    assert!((100_000..100_100).contains(&moved("monotonic")), "{}", moved("monotonic"));
    assert!((200_000..200_100).contains(&moved("boottime")), "{}", moved("boottime"));
});

container_test!(time_offsets_work_with_a_user_namespace, |c| {
    if !has_time() {
        return crate::common::skip(&c.name, "this runtime has no time namespaces");
    }
    c.push("/linux/namespaces", json!({ "type": "time" }));
    super::userns::map(c);
    let before = c.facts();
    c.set("/linux/timeOffsets", json!({ "boottime": { "secs": 300_000 } }));
    let facts = c.facts();
    let moved = facts["boottime"].as_i64().unwrap() - before["boottime"].as_i64().unwrap();
    assert!((300_000..300_100).contains(&moved), "{moved}");
});

container_test!(hostname_and_domainname_are_the_containers, |c| {
    let mine = nix::sys::utsname::uname().unwrap().nodename().to_owned();
    c.set("/hostname", "inside.example");
    if has_time() {
        c.set("/domainname", "domain.example");
    }
    let facts = c.facts();
    assert_eq!(facts["hostname"], "inside.example");
    if has_time() {
        assert_eq!(facts["domainname"], "domain.example");
    }
    assert_eq!(nix::sys::utsname::uname().unwrap().nodename(), mine, "the host's name should be as it was");
});

container_test!(namespaces_may_be_null, |c| {
    c.set("/linux/namespaces", json!([{ "type": "mount", "path": "" }, { "type": "pid", "path": Value::Null }]));
    c.remove("/mounts/5");
    let facts = c.facts();
    assert_ne!(facts["ns"]["pid"], host::namespace("self", "pid"));
});

/// Another container that runs and whose namespaces can be joined.
pub(super) fn sleeping(name: &str, edit: impl FnOnce(&mut Container)) -> Container {
    let mut other = Container::new(name);
    other.args(&["sleep-forever"]);
    edit(&mut other);
    other.detach().ok();
    other
}

pub(super) fn finish(mut other: Container) {
    other.finish();
}

container_test!(without_a_mount_namespace_nothing_can_be_mounted_or_masked, |c| {
    skip_for_runc!(c, "it drops them without a word");
    let namespaces: Vec<serde_json::Value> = c.config["linux"]["namespaces"].as_array().unwrap().clone();
    let others: Vec<serde_json::Value> = namespaces.into_iter().filter(|n| n["type"] != "mount").collect();
    c.set("/linux/namespaces", serde_json::Value::from(others));
    c.run().fails(&["/mounts", "mount namespace"]);
    c.set("/mounts", serde_json::json!([]));
    c.set("/linux/maskedPaths", serde_json::json!(["/proc/kcore"])).set("/linux/readonlyPaths", serde_json::json!([]));
    c.run().fails(&["/linux/maskedPaths", "mount namespace"]);
    c.set("/linux/maskedPaths", serde_json::json!([])).set("/root/readonly", true);
    c.run().fails(&["/root/readonly", "mount namespace"]);
    c.assert_clean();
});

// Go's types can't tell an empty path from an absent one: it is a new namespace for every rule.
container_test!(an_empty_path_is_a_new_namespace_for_its_offsets, |c| {
    skip_for_runc!(c, "1.1 has no time namespaces");
    c.push("/linux/namespaces", json!({ "type": "time", "path": "" }));
    c.set("/linux/timeOffsets", json!({ "monotonic": { "secs": 100 } }));
    c.args(&["cat", "/proc/self/timens_offsets"]);
    let offsets = c.run().ok().stdout;
    assert!(offsets.lines().next().unwrap().contains(" 100 "), "{offsets}");
});
