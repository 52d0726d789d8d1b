//! Limits at their edges: a limit of one process, numbers that stand for "not set", what has no effect, and whom the
//! cgroup belongs to.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::namespaces::{finish, sleeping};
use super::userns::{BASE, map};
use crate::common::{Container, assert_has, config, host};
use crate::{container_test, skip_for_runc, skip_unless};

fn file(c: &Container, name: &str) -> Option<PathBuf> {
    let dirs = host::cgroups(&format!("{}/{}", c.cgroup, c.id));
    dirs.into_iter().map(|dir| dir.join(name)).find(|path| path.exists())
}

container_test!(nobody_but_the_program_counts_against_a_limit_of_one, |c| {
    skip_unless!(c, host::has_controller("pids"), "no pids controller");
    let other = sleeping(&c.name, |_| ());
    c.set("/linux/namespaces/0/path", format!("/proc/{}/ns/pid", other.pid()));
    c.set("/linux/resources/pids/limit", 1);
    let facts = c.facts();
    assert_eq!(facts["ns"]["pid"], host::namespace(&other.pid().to_string(), "pid"));
    finish(other);
});

container_test!(a_process_that_was_bridged_is_in_every_hierarchy, |c| {
    let other = sleeping(&c.name, |_| ());
    c.set("/linux/namespaces/0/path", format!("/proc/{}/ns/pid", other.pid()));
    c.push("/linux/namespaces", json!({ "type": "cgroup" }));
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let path = format!("{}/{}", c.cgroup, c.id);
    for line in host::mounted_lines(&fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap()) {
        assert_eq!(line.splitn(3, ':').nth(2).unwrap(), path, "{line}");
    }
    // Its cgroup namespace has its own cgroup at the top.
    let inside = c.tare(&["exec", &c.id, "/guest", "cat", "/proc/self/cgroup"]).ok().stdout;
    host::mounted_lines(&inside).iter().for_each(|line| assert!(line.ends_with(":/"), "{line}"));
    c.delete_force().ok();
    finish(other);
});

container_test!(a_limit_that_leaves_one_process_is_named, |c| {
    skip_for_runc!(c, "it says nothing");
    skip_unless!(c, host::has_controller("pids"), "no pids controller");
    c.args(&["exit", "0"]);
    for (limit, named) in [(0, true), (1, true), (2, false), (-1, false)] {
        c.set("/linux/resources/pids/limit", limit);
        let output = c.run().ok();
        assert_eq!(output.stderr.contains("/linux/resources/pids/limit is"), named, "{limit}: {output}");
    }
    c.set("/linux/resources/pids/limit", 5).args(&["sleep-forever"]);
    c.detach().ok();
    let output = c.tare(&["update", "--pids-limit", "0", &c.id]).ok();
    assert_has(&output.stderr, "the program can start no other process or thread");
    assert!(c.tare(&["update", "--pids-limit", "7", &c.id]).ok().stderr.is_empty());
    assert_eq!(fs::read_to_string(file(c, "pids.max").unwrap()).unwrap(), "7\n");
});

container_test!(minus_one_of_an_unsigned_number_is_not_set, |c| {
    skip_for_runc!(c, "it takes -1 for swappiness alone");
    let all = u64::MAX;
    let mut resources = json!({
        "memory": { "swappiness": all }, "cpu": { "shares": all, "period": all, "burst": all, "realtimePeriod": all },
        "blockIO": { "weight": u16::MAX }, "network": { "classID": u32::MAX }
    });
    c.set("/linux/resources", resources.clone());
    c.args(&["sleep-forever"]);
    c.detach().ok();
    // An update changes nothing by them.
    resources["pids"] = json!({ "limit": 9 });
    let path = c.path("update.json");
    fs::write(&path, resources.to_string()).unwrap();
    if host::has_controller("pids") {
        c.tare(&["update", "--resources", path.to_str().unwrap(), &c.id]).ok();
    }
});

container_test!(iops_that_the_kernel_would_cut_off, |c| {
    skip_for_runc!(c, "it lets them be cut off");
    skip_unless!(c, host::v1("blkio").is_some(), "no blkio controller of cgroup v1");
    let device = |rate: u64| json!([{ "major": 7, "minor": 0, "rate": rate }]);
    c.set("/linux/resources/blockIO", json!({ "throttleReadIOPSDevice": device((1 << 32) + 5) }));
    c.create().fails(&["/linux/resources/blockIO/throttleReadIOPSDevice/0/rate", "4294967301", "at most 4294967295"]);
    c.assert_clean();
});

container_test!(weights_from_1_on_and_errnos_up_to_4095, |c| {
    skip_for_runc!(c, "its library cuts errnos off");
    let rule = |errno: u32| {
        json!({ "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno }] })
    };
    c.set("/linux/seccomp", rule(4096));
    c.create().fails(&["/linux/seccomp/syscalls/0/errnoRet", "4096 is too large, expected at most 4095"]);
    c.set("/linux/seccomp", rule(4095)).args(&["exit", "0"]);
    c.run().ok();
    c.set("/linux/resources/blockIO", json!({ "weight": 1001 }));
    c.create().fails(&["/linux/resources/blockIO/weight", "expected 1 to 1000"]);
    // Where the kernel has weights it takes it, and where it hasn't the file is what is missing.
    c.set("/linux/resources/blockIO", json!({ "weight": 1 }));
    let output = c.run();
    assert!(!output.stderr.contains("expected"), "{output}");
    assert!(output.code == 0 || output.stderr.contains("weight"), "{output}");
});

container_test!(memory_of_the_network_is_set_or_named, |c| {
    skip_for_runc!(c, "it names it");
    skip_unless!(c, host::has_controller("memory"), "no memory controller");
    c.set("/linux/resources/memory", json!({ "kernelTCP": 1_048_576, "kernel": 1_048_576 }));
    c.args(&["sleep-forever"]);
    let output = c.detach().ok();
    assert_has(&output.stderr, "/linux/resources/memory/kernel is ignored");
    match file(c, "memory.kmem.tcp.limit_in_bytes").map(|path| fs::read_to_string(path).unwrap()) {
        Some(text) if text == "1048576\n" => assert!(!output.stderr.contains("kernelTCP"), "{output}"),
        _ => assert_eq!(output.stderr.matches("/linux/resources/memory/kernelTCP is").count(), 1, "{output}"),
    }
});

container_test!(processes_are_counted_without_the_controller, |c| {
    skip_unless!(c, !host::has_controller("pids"), "there is a pids controller");
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let event: Value = c.tare(&["events", "--stats", &c.id]).ok().json();
    assert_eq!(event["data"]["pids"], json!({ "current": 1 }));
});

/// The owners of the container's cgroup and of what is in it, by name.
fn owners(c: &Container) -> Vec<(String, u32)> {
    let dir = Path::new("/sys/fs/cgroup").join(format!("{}/{}", c.cgroup, c.id).trim_start_matches('/'));
    let entries = fs::read_dir(&dir).unwrap().flatten();
    let mut found: Vec<(String, u32)> =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().uid())).collect();
    found.push((".".into(), fs::metadata(&dir).unwrap().uid()));
    found
}

/// A cgroup namespace, and the cgroup file system with this option.
fn with_cgroup(c: &mut Container, option: &str) {
    c.push("/linux/namespaces", json!({ "type": "cgroup" }));
    c.push("/mounts", config::mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", option]));
    c.args(&["sleep-forever"]);
}

container_test!(a_writable_cgroup_is_the_containers_roots, |c| {
    skip_unless!(c, host::v1("freezer").is_none() && host::hierarchies().len() == 1, "cgroup v1");
    map(c);
    with_cgroup(c, "rw");
    c.detach().ok();
    let delegated = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap();
    let given = |name: &str| name == "." || delegated.lines().any(|file| file == name);
    for (name, uid) in owners(c) {
        assert_eq!(uid, if given(&name) { BASE } else { 0 }, "{name}");
    }
    // As systemd does: a cgroup of its own, and itself in it.
    c.tare(&["exec", &c.id, "/guest", "mkdir", "/sys/fs/cgroup/init.scope"]).ok();
    c.tare(&["exec", &c.id, "/guest", "write", "/sys/fs/cgroup/init.scope/cgroup.procs", "1"]).ok();
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    assert!(cgroup.ends_with("/init.scope\n"), "{cgroup}");
    c.delete_force().ok();
    c.assert_clean();
});

container_test!(any_other_cgroup_is_the_callers, |c| {
    skip_unless!(c, host::v1("freezer").is_none() && host::hierarchies().len() == 1, "cgroup v1");
    map(c);
    let before = c.config.clone();
    with_cgroup(c, "ro");
    c.detach().ok();
    assert!(owners(c).iter().all(|(_, uid)| *uid == 0), "read-only: {:?}", owners(c));
    c.delete_force().ok();
    c.config = before.clone();
    with_cgroup(c, "rw");
    c.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "cgroup");
    c.detach().ok();
    assert!(owners(c).iter().all(|(_, uid)| *uid == 0), "the host's namespace: {:?}", owners(c));
    c.delete_force().ok();
    c.config = before;
    c.push("/linux/namespaces", json!({ "type": "cgroup" })).args(&["sleep-forever"]);
    c.detach().ok();
    assert!(owners(c).iter().all(|(_, uid)| *uid == 0), "not mounted: {:?}", owners(c));
});

container_test!(annotations_that_collide_with_the_runtimes_own, |c| {
    skip_for_runc!(c, "the later one counts");
    c.set("/linux/cgroupsPath", "a.slice:p:n");
    for (name, value) in
        [("PIDs", "[uint32 1]"), ("Slice", "'b.slice'"), ("Delegate", "false"), ("TasksMax", "uint64 9")]
    {
        c.set("/linux/resources/pids/limit", 5);
        let key = format!("org.systemd.property.{name}");
        c.set("/annotations", json!({ key.as_str(): value }));
        c.write_config();
        let output = c.tare(&["--systemd-cgroup", "create", &c.id]);
        output.fails(&[&format!("config.json: /annotations/{key}: the runtime sets this property")]);
        c.assert_clean();
    }
});

container_test!(cgroups_above_the_containers_stay, |c| {
    c.set("/linux/cgroupsPath", format!("{}/above/below", c.cgroup));
    c.args(&["exit", "0"]);
    c.run().ok();
    let top = c.cgroup.clone();
    let left = |path: &str| host::cgroups(&format!("{top}{path}")).len();
    assert_eq!(left("/above/below"), 0, "the container's own");
    let above = left("/above");
    host::remove_cgroup(&format!("{}/above", c.cgroup));
    assert_ne!(above, 0, "what others may have made their own by now");
    // One that fails takes along what it made.
    c.set("/process/args", json!(["/no-such-program"]));
    assert_ne!(c.run().code, 0);
    assert_eq!(left("/above"), 0, "a failure leaves nothing");
});
