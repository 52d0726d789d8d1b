//! cgroups: where the container is put, and the limits in the kernel's files.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::common::{Container, assert_has, eventually, host, strings};
use crate::{container_test, skip_for_runc, skip_unless};

/// The container's folder in a controller's hierarchy: v1's own, or v2's one.
fn folder(c: &Container, controller: &str) -> PathBuf {
    let relative = format!("{}/{}", c.cgroup, c.id);
    let root = host::v1(controller).unwrap_or_else(|| PathBuf::from("/sys/fs/cgroup"));
    root.join(relative.trim_start_matches('/'))
}

/// The text of one of its files, v1's name or v2's.
fn value(c: &Container, controller: &str, v1: &str, v2: &str) -> String {
    let file = if host::v1(controller).is_some() { v1 } else { v2 };
    let path = folder(c, controller).join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

/// What differs between the versions: v1's text, v2's text.
fn either(controller: &str, v1: &str, v2: &str) -> String {
    if host::v1(controller).is_some() { v1.into() } else { v2.into() }
}

container_test!(an_absolute_path_is_from_the_root_of_the_hierarchy, |c| {
    c.args(&["sleep-forever"]);
    c.create().ok();
    let pid = c.pid();
    let path = format!("{}/{}", c.cgroup, c.id);
    let lines = host::mounted_lines(&fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap());
    assert!(!lines.is_empty());
    for line in lines {
        assert_eq!(line.splitn(3, ':').nth(2).unwrap(), path, "{line}");
    }
    assert_eq!(host::cgroup_pids(&path), [pid]);
});

container_test!(every_hierarchy_holds_the_container, |c| {
    c.args(&["sleep-forever"]);
    c.create().ok();
    let count = host::hierarchies().iter().filter(|root| !root.ends_with("unified")).count();
    let found = host::cgroups(&format!("{}/{}", c.cgroup, c.id));
    assert!(found.len() >= count, "{found:?}");
});

container_test!(without_a_path_the_id_is_the_name, |c| {
    c.remove("/linux/cgroupsPath");
    c.args(&["sleep-forever"]);
    // Nothing of another test may be met at the top.
    let old = std::mem::replace(&mut c.id, format!("tare-test-{}-top", std::process::id()));
    c.create().ok();
    let pid = c.pid();
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_has(&text, &format!("/{}\n", c.id));
    c.delete_force().ok();
    assert_eq!(host::cgroups(&format!("/{}", c.id)), Vec::<PathBuf>::new());
    c.id = old;
});

container_test!(a_relative_path, |c| {
    let name = format!("{}/relative", c.cgroup.trim_start_matches('/'));
    c.set("/linux/cgroupsPath", name.as_str());
    c.args(&["sleep-forever"]);
    c.create().ok();
    let text = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    assert_has(&text, &format!("/{name}\n"));
    c.delete_force().ok();
    assert_eq!(host::cgroups(&format!("/{name}")), Vec::<PathBuf>::new());
    // Where the caller has a cgroup of its own, it is below that, with the parent that was made for it.
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    for path in paths.filter(|path| path.ends_with(&format!("/{name}"))) {
        assert_eq!(host::cgroups(path), Vec::<PathBuf>::new());
        host::remove_cgroup(path.trim_end_matches("/relative"));
    }
});

container_test!(a_path_with_dots_stays_below_the_root, |c| {
    c.set("/linux/cgroupsPath", format!("/../../..{}/dots", c.cgroup));
    c.args(&["sleep-forever"]);
    if c.create().code == 0 {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
        assert_has(&text, &format!("{}/dots\n", c.cgroup));
        c.delete_force().ok();
    }
    assert_eq!(host::cgroups(&format!("{}/dots", c.cgroup)), Vec::<PathBuf>::new());
});

container_test!(memory, |c| {
    skip_unless!(c, host::has_controller("memory"), "no memory controller");
    c.set("/linux/resources/memory", json!({ "limit": 67_108_864, "reservation": 33_554_432 }));
    c.create().ok();
    assert_eq!(value(c, "memory", "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(value(c, "memory", "memory.soft_limit_in_bytes", "memory.low"), "33554432");
});

container_test!(memory_without_swap, |c| {
    skip_unless!(c, host::has_controller("memory"), "no memory controller");
    c.set("/linux/resources/memory", json!({ "limit": 67_108_864, "swap": 67_108_864 }));
    c.create().ok();
    let file = either("memory", "memory.memsw.limit_in_bytes", "memory.swap.max");
    if !folder(c, "memory").join(&file).exists() {
        return crate::common::skip(&c.name, "no accounting of swap");
    }
    assert_eq!(value(c, "memory", &file, &file), either("memory", "67108864", "0"));
});

container_test!(unlimited_memory, |c| {
    skip_unless!(c, host::has_controller("memory"), "no memory controller");
    c.set("/linux/resources/memory", json!({ "limit": -1, "swap": -1 }));
    c.create().ok();
    assert_eq!(
        value(c, "memory", "memory.limit_in_bytes", "memory.max"),
        either("memory", "9223372036854771712", "max")
    );
});

container_test!(the_memory_limit_holds, |c| {
    skip_unless!(c, host::has_controller("memory"), "no memory controller");
    c.set("/linux/resources/memory", json!({ "limit": 33_554_432, "swap": 33_554_432 }));
    c.args(&["eat-mem", "200"]);
    c.run().exits(137);
});

container_test!(cpu, |c| {
    skip_unless!(c, host::has_controller("cpu"), "no cpu controller");
    c.set("/linux/resources/cpu", json!({ "shares": 2048, "quota": 50_000, "period": 200_000 }));
    c.create().ok();
    if host::v1("cpu").is_some() {
        assert_eq!(value(c, "cpu", "cpu.shares", ""), "2048");
        assert_eq!(value(c, "cpu", "cpu.cfs_quota_us", ""), "50000");
        assert_eq!(value(c, "cpu", "cpu.cfs_period_us", ""), "200000");
    } else {
        assert_eq!(value(c, "cpu", "", "cpu.max"), "50000 200000");
        assert_ne!(value(c, "cpu", "", "cpu.weight"), "100");
    }
});

container_test!(cpuset, |c| {
    skip_unless!(c, host::has_controller("cpuset"), "no cpuset controller");
    c.set("/linux/resources/cpu", json!({ "cpus": "0", "mems": "0" }));
    let facts = c.facts();
    assert_eq!(facts["status"]["Cpus_allowed_list"], "0");
    c.create().ok();
    assert_eq!(value(c, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(value(c, "cpuset", "cpuset.mems", "cpuset.mems"), "0");
});

container_test!(pids, |c| {
    skip_unless!(c, host::has_controller("pids"), "no pids controller");
    for (limit, expected) in [(5, "5"), (-1, "max")] {
        c.set("/linux/resources/pids/limit", limit);
        c.create().ok();
        assert_eq!(value(c, "pids", "pids.max", "pids.max"), expected);
        c.delete_force().ok();
    }
});

container_test!(the_pids_limit_holds, |c| {
    skip_unless!(c, host::has_controller("pids"), "no pids controller");
    c.set("/linux/resources/pids/limit", 4);
    c.args(&["fork-tree", "10"]);
    assert_has(c.run().exits(1).stdout, "EAGAIN");
});

container_test!(a_limit_of_one_process_is_enough_to_start, |c| {
    skip_unless!(c, host::has_controller("pids"), "no pids controller");
    if crate::common::rival() == Some("runc") {
        return crate::common::skip(&c.name, "runc needs more while it starts");
    }
    c.set("/linux/resources/pids/limit", 1);
    c.args(&["exit", "6"]);
    c.run().exits(6);
});

container_test!(null_and_zero_limits_are_no_limits, |c| {
    c.set(
        "/linux/resources",
        json!({ "memory": { "limit": null }, "cpu": { "shares": 0, "quota": 0, "period": 0 }, "pids": null, "devices": null }),
    );
    c.args(&["true"]);
    c.run().ok();
});

container_test!(the_limits_hold_before_the_program_runs, |c| {
    skip_unless!(c, host::has_controller("pids"), "no pids controller");
    c.set("/linux/resources/pids/limit", 9);
    c.create().ok();
    assert_eq!(value(c, "pids", "pids.max", "pids.max"), "9");
    assert!(host::cgroup_pids(&format!("{}/{}", c.cgroup, c.id)).contains(&c.pid()));
});

container_test!(a_bad_value_is_an_error_that_names_the_file, |c| {
    skip_unless!(c, host::has_controller("cpuset"), "no cpuset controller");
    c.set("/linux/resources/cpu/cpus", "4000");
    assert_has(c.run().exits(1).stderr, "cpuset.cpus");
    c.assert_clean();
});

container_test!(two_containers_with_one_parent_do_not_meet, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let mut other = Container::new(&c.name);
    other.set("/linux/cgroupsPath", format!("{}/other", c.cgroup));
    other.args(&["sleep-forever"]);
    other.detach().ok();
    other.finish();
    assert_eq!(c.status(), "running");
    assert_eq!(host::cgroup_pids(&format!("{}/{}", c.cgroup, c.id)).len(), 1);
});

container_test!(a_cgroup_with_a_process_in_it_is_not_taken_over_silently, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let mut other = Container::new(&c.name);
    other.config["linux"]["cgroupsPath"] = c.config["linux"]["cgroupsPath"].clone();
    other.args(&["sleep-forever"]);
    let _ = other.create();
    other.finish();
    // Whether it was let in or not: the end of the one is not the end of the other.
    if crate::common::rival().is_none() {
        assert_eq!(c.status(), "running");
    }
});

container_test!(the_probe_sees_its_cgroup, |c| {
    let facts = c.facts();
    for line in host::mounted_lines(&strings(&facts["cgroup"]).join("\n")) {
        assert!(line.ends_with(&format!(":{}/{}", c.cgroup, c.id)), "{line}");
    }
    eventually("the cgroup is gone", || host::cgroups(&format!("{}/{}", c.cgroup, c.id)).is_empty());
});

container_test!(without_cgroups_a_container_is_where_its_caller_is, |c| {
    skip_for_runc!(c, "it has no such option");
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    c.args(&["cat", "/proc/self/cgroup"]);
    c.set("/linux/resources/devices", json!([{ "allow": false, "access": "rwm" }]));
    c.write_config();
    let output = c.tare(&["--cgroup-manager=disabled", "run", &c.id]).ok();
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    assert_eq!(lines(&output.stdout), lines(&own));
    // crun drops a limit without a word.
    c.set("/linux/resources/pids/limit", 5);
    c.write_config();
    c.tare(&["--cgroup-manager=disabled", "run", &c.id])
        .fails(&["config.json: /linux/resources/pids/limit: a limit, but cgroups are disabled"]);
    c.assert_clean();
});
