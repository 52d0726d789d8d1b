//! `update`: only what is given changes, all of it or nothing, and it stays.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::common::program::Output;
use crate::common::{Container, assert_has, eventually, host, rival};
use crate::{container_test, skip_for_runc, skip_unless};

/// One of the container's files by its name on v1 or on v2, whichever is there.
pub(super) fn find(c: &Container, names: [&str; 2]) -> Option<PathBuf> {
    let dirs = host::cgroups(&format!("{}/{}", c.cgroup, c.id));
    names.iter().find_map(|name| dirs.iter().map(|dir| dir.join(name)).find(|path| path.exists()))
}

#[track_caller]
fn holds(c: &Container, names: [&str; 2], values: [&str; 2]) {
    let path = find(c, names).unwrap_or_else(|| panic!("{names:?} isn't there"));
    let which = usize::from(!path.ends_with(names[0]));
    // Where both versions have one name, the value tells nothing of the version.
    let expected =
        if names[0] == names[1] && host::v1(names[0].split('.').next().unwrap()).is_none() { 1 } else { which };
    assert_eq!(fs::read_to_string(&path).unwrap().trim(), values[expected], "{}", path.display());
}

pub(super) fn update(c: &Container, words: &[&str]) -> Output {
    let mut all = vec!["update"];
    all.extend(words);
    all.push(&c.id);
    c.tare(&all)
}

/// `update --resources -` with this on standard input.
pub(super) fn update_from_stdin(c: &Container, json: &Value) -> Output {
    feed(c, &["update", "--resources", "-", &c.id], json.to_string().as_bytes())
}

fn feed(c: &Container, words: &[&str], text: &[u8]) -> Output {
    let mut command = c.command(words);
    let mut running = crate::common::program::start(command.stdin(Stdio::piped()), &c.dir);
    running.child.stdin.take().unwrap().write_all(text).unwrap();
    running.wait()
}

/// What `--resources` of the container are kept.
fn kept(c: &Container, pointer: &str) -> Value {
    let bytes = fs::read(c.path("state").join(&c.id).join("config.json")).unwrap();
    let config: Value = serde_json::from_slice(&bytes).unwrap();
    config.pointer(&format!("/linux/resources/{pointer}")).cloned().unwrap_or_default()
}

const MEMORY: [&str; 2] = ["memory.limit_in_bytes", "memory.max"];
const PIDS: [&str; 2] = ["pids.max", "pids.max"];

container_test!(each_option_sets_its_file, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    /// Controller, options, files, values.
    type Row<'a> = (&'a str, &'a [&'a str], [&'a str; 2], [&'a str; 2]);
    let rows: [Row<'_>; 13] = [
        ("memory", &["--memory", "64m"], MEMORY, ["67108864"; 2]),
        ("memory", &["--memory=67112960"], MEMORY, ["67112960"; 2]),
        ("memory", &["--memory-reservation", "32M"], ["memory.soft_limit_in_bytes", "memory.low"], ["33554432"; 2]),
        (
            "memory",
            &["--memory-swap", "-1"],
            ["memory.memsw.limit_in_bytes", "memory.swap.max"],
            ["9223372036854771712", "max"],
        ),
        ("memory", &["--memory", "-1"], MEMORY, ["9223372036854771712", "max"]),
        ("pids", &["--pids-limit", "10"], PIDS, ["10"; 2]),
        ("pids", &["--pids-limit", "-1"], PIDS, ["max"; 2]),
        ("cpu", &["--cpu-share", "2048"], ["cpu.shares", "cpu.weight"], ["2048", "174"]),
        (
            "cpu",
            &["--cpu-period", "50000", "--cpu-quota", "20000"],
            ["cpu.cfs_quota_us", "cpu.max"],
            ["20000", "20000 50000"],
        ),
        ("cpu", &["--cpu-burst", "5000"], ["cpu.cfs_burst_us", "cpu.max.burst"], ["5000"; 2]),
        ("cpu", &["--cpu-quota", "-1", "--cpu-burst", "0"], ["cpu.cfs_quota_us", "cpu.max"], ["-1", "max 50000"]),
        ("cpuset", &["--cpuset-cpus", "0"], ["cpuset.cpus", "cpuset.cpus"], ["0"; 2]),
        ("cpuset", &["--cpuset-mems", "0"], ["cpuset.mems", "cpuset.mems"], ["0"; 2]),
    ];
    for (controller, words, names, values) in rows {
        if !host::has_controller(controller) || find(c, names).is_none() {
            crate::common::skip(&c.name, &format!("{words:?}: no {controller} controller, or not its file"));
            continue;
        }
        if rival() == Some("runc") && words.contains(&"--cpu-burst") {
            continue;
        }
        let output = update(c, words).ok();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""), "{words:?}");
        holds(c, names, values);
    }
});

container_test!(the_idle_class_comes_and_goes, |c| {
    skip_for_runc!(c, "since 1.2");
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let idle = ["cpu.idle", "cpu.idle"];
    skip_unless!(c, find(c, idle).is_some(), "no cpu controller, or a kernel before 5.15");
    update(c, &["--cpu-idle", "1"]).ok();
    holds(c, idle, ["1"; 2]);
    // The kernel refuses shares to an idle group, so it matters which is written first.
    update(c, &["--cpu-idle", "0", "--cpu-share", "2048"]).ok();
    holds(c, idle, ["0"; 2]);
    holds(c, ["cpu.shares", "cpu.weight"], ["2048", "174"]);
});

container_test!(only_what_is_given_changes, |c| {
    skip_for_runc!(c, "1.1 takes a limit of processes that isn't given for none");
    skip_unless!(c, host::has_controller("memory") && host::has_controller("pids"), "no memory or pids controller");
    c.set(
        "/linux/resources",
        json!({ "memory": { "limit": 67_108_864, "reservation": 33_554_432 }, "pids": { "limit": 9 } }),
    );
    c.args(&["sleep-forever"]);
    c.detach().ok();
    update(c, &["--pids-limit", "11"]).ok();
    holds(c, MEMORY, ["67108864"; 2]);
    holds(c, PIDS, ["11"; 2]);
    update_from_stdin(c, &json!({ "memory": { "limit": 134_217_728, "swap": null }, "cpu": { "shares": 0 } })).ok();
    holds(c, MEMORY, ["134217728"; 2]);
    holds(c, ["memory.soft_limit_in_bytes", "memory.low"], ["33554432"; 2]);
    holds(c, PIDS, ["11"; 2]);
    update(c, &[]).ok();
    holds(c, MEMORY, ["134217728"; 2]);
});

container_test!(what_is_set_is_kept_with_the_container, |c| {
    skip_for_runc!(c, "it keeps it elsewhere");
    skip_unless!(c, host::has_controller("memory") && host::has_controller("cpu"), "no memory or cpu controller");
    c.set("/linux/resources/memory/limit", 67_108_864);
    c.set("/linux/resources/cpu", json!({ "quota": 20_000, "period": 50_000 }));
    c.args(&["sleep-forever"]);
    c.detach().ok();
    update(c, &["--memory", "128m"]).ok();
    assert_eq!(kept(c, "memory/limit"), 134_217_728);
    update(c, &["--cpu-quota", "30000"]).ok();
    assert_eq!((kept(c, "memory/limit"), kept(c, "cpu/quota")), (json!(134_217_728), json!(30_000)));
    holds(c, ["cpu.cfs_quota_us", "cpu.max"], ["30000", "30000 50000"]);
    // Nothing else of config.json is touched, and an exec goes on reading it.
    assert_eq!(kept(c, "cpu/period"), 50_000);
    super::exec::exec(c, &[], &["true"]).ok();
    update(c, &["--memory", "-1"]).ok();
    assert_eq!((kept(c, "memory/limit"), kept(c, "memory/swap")), (json!(-1), json!(-1)));
});

container_test!(resources_from_a_file, |c| {
    skip_unless!(c, host::has_controller("pids"), "no pids controller");
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let path = c.path("resources.json");
    fs::write(&path, r#"{ "pids": { "limit": 13 }, "unknown": 1 }"#).unwrap();
    let option = format!("--resources={}", path.display());
    update(c, &[&option]).ok();
    holds(c, PIDS, ["13"; 2]);
    let output = update(c, &["-r", path.to_str().unwrap(), "--pids-limit", "99"]).ok();
    holds(c, PIDS, ["13"; 2]);
    if rival().is_none() {
        assert_has(&output.stderr, "the limits on the command line are ignored");
    }
});

container_test!(a_failure_in_the_middle_changes_nothing, |c| {
    skip_for_runc!(c, "it may leave a part");
    skip_unless!(c, ["pids", "cpuset", "memory"].iter().all(|name| host::has_controller(name)), "not all controllers");
    c.set("/linux/resources", json!({ "memory": { "limit": 67_108_864 }, "pids": { "limit": 9 } }));
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let words = ["--pids-limit", "11", "--memory", "128m", "--cpu-share", "512", "--cpuset-cpus", "4000"];
    update(c, &words).fails(&["update: /cpu/cpus: set cpuset.cpus to \"4000\""]);
    holds(c, PIDS, ["9"; 2]);
    holds(c, MEMORY, ["67108864"; 2]);
    holds(c, ["cpu.shares", "cpu.weight"], ["1024", "100"]);
    assert_eq!((kept(c, "pids/limit"), kept(c, "cpu")), (json!(9), Value::Null));
});

container_test!(what_is_wrong_is_said_and_changes_nothing, |c| {
    skip_for_runc!(c, "other words, and some of it is taken");
    c.args(&["sleep-forever"]);
    c.detach().ok();
    for (words, part) in [
        (&["--memory", "2x"][..], "invalid size"),
        (&["--cpu-quota", "x"], "cpu-quota"),
        (&["--memory-swap", "5m"], "/memory/swap: 5242880 without memory.limit"),
        (&["--blkio-weight", "1001"], "/blockIO/weight: 1001, expected 1 to 1000"),
        (&["--l3-cache-schema", "L3:0=f"], "Intel RDT/CAT: l3 cache schema is not enabled"),
        (&["--mem-bw-schema", "MB:0=20"], "Intel RDT/MBA: memory bandwidth schema is not enabled"),
        (&["-r", "/no/such/file"], "/no/such/file"),
    ] {
        update(c, words).fails(&[part]);
    }
    for (text, part) in [
        ("{", "--resources \"-\": not valid JSON"),
        ("[]", "expected an object"),
        (r#"{"memory": {"limit": "1g"}}"#, "--resources \"-\": /memory/limit: invalid type: string \"1g\""),
        (r#"{"unified": {"../x.max": "1"}}"#, "--resources \"-\": /unified/..~1x.max: expected the plain name"),
    ] {
        feed(c, &["update", "-r", "-", &c.id], text.as_bytes()).fails(&[part]);
    }
    assert_eq!(kept(c, "memory"), Value::Null);
});

container_test!(only_a_container_that_is_there_is_updated, |c| {
    update(c, &["--pids-limit", "5"]).fails(&["container does not exist"]);
    c.detach().ok();
    c.wait_status("stopped");
    update(c, &["--pids-limit", "5"]).fails(&["container not running"]);
});

container_test!(created_and_paused_containers_are_updated, |c| {
    skip_unless!(c, host::has_controller("pids"), "no pids controller");
    c.args(&["sleep-forever"]);
    c.create().ok();
    update(c, &["--pids-limit", "7"]).ok();
    holds(c, PIDS, ["7"; 2]);
    c.start().ok();
    c.tare(&["pause", &c.id]).ok();
    update(c, &["--pids-limit", "8"]).ok();
    holds(c, PIDS, ["8"; 2]);
    assert_eq!(c.status(), "paused");
});

container_test!(kernel_memory_is_accepted_and_ignored, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let output = update(c, &["--kernel-memory", "5m"]).ok();
    assert!(output.stderr.contains("ignored"), "{output}");
});

/// Starts a container that has and keeps 50 MiB; the limit is 100.
fn holder(c: &mut Container) -> i32 {
    c.set("/linux/resources/memory", json!({ "limit": 104_857_600, "swap": 104_857_600 }));
    c.args(&["hold-mem", "50"]);
    c.detach().ok();
    let usage = find(c, ["memory.usage_in_bytes", "memory.current"]).unwrap();
    eventually("it has its memory", || fs::read_to_string(&usage).unwrap().trim().parse::<u64>().unwrap() > 50 << 20);
    c.pid()
}

container_test!(a_memory_limit_below_what_is_used_is_refused, |c| {
    skip_unless!(c, host::has_controller("memory"), "no memory controller");
    let pid = holder(c);
    let words = ["--memory", "20m", "--memory-swap", "20m"];
    let v2 = host::v1("memory").is_none();
    if rival() == Some("runc") && v2 {
        return crate::common::skip(&c.name, "it kills the container");
    }
    let output = update(c, &words).exits(1);
    for part in ["unable to set memory limit to 20971520 (current usage: ", "peak usage: "] {
        assert_has(&output.stderr, part);
    }
    if v2 {
        assert_has(&output.stderr, "--allow-oom");
    }
    let usage: u64 = output.stderr.split_once("current usage: ").unwrap().1.split(',').next().unwrap().parse().unwrap();
    assert!(usage > 50 << 20, "{output}");
    assert_eq!(c.status(), "running");
    assert_ne!(host::process_state(pid), None);
    holds(c, MEMORY, ["104857600"; 2]);
    update(c, &["--memory", "90m", "--memory-swap", "90m"]).ok();
    holds(c, MEMORY, ["94371840"; 2]);
});

container_test!(a_memory_limit_below_what_is_used_kills_if_that_is_wanted, |c| {
    skip_for_runc!(c, "it has no such option");
    skip_unless!(
        c,
        host::has_controller("memory") && host::v1("memory").is_none(),
        "the memory controller isn't on v2"
    );
    holder(c);
    // What config.json asks for weighs more than the option.
    let words = ["update", "--allow-oom", "-r", "-", &c.id];
    let check = br#"{"memory": {"limit": 20971520, "swap": 20971520, "checkBeforeUpdate": true}}"#;
    feed(c, &words, check).fails(&["unable to set memory limit"]);
    assert_eq!(c.status(), "running");
    update(c, &["--allow-oom", "--memory", "20m", "--memory-swap", "20m"]).ok();
    c.wait_status("stopped");
});

container_test!(page_cache_is_no_reason_to_refuse, |c| {
    skip_for_runc!(c, "it doesn't look");
    skip_unless!(c, host::has_controller("memory"), "no memory controller");
    c.set("/linux/resources/memory/limit", 104_857_600);
    // A file of 40 MiB that was written is in the cache, and on its way to the disk, but not in use.
    c.args(&["all", "fill", "/big", "40", ",", "sleep-forever"]);
    c.detach().ok();
    let big = c.rootfs().join("big");
    eventually("it is written", || fs::metadata(&big).is_ok_and(|meta| meta.len() == 40 << 20));
    nix::unistd::sync();
    let usage = find(c, ["memory.usage_in_bytes", "memory.current"]).unwrap();
    let used = fs::read_to_string(usage).unwrap().trim().parse::<u64>().unwrap();
    skip_unless!(c, used > 30 << 20, "the file system of the bundle doesn't keep its cache in the container's cgroup");
    update(c, &["--memory", "20m"]).ok();
    holds(c, MEMORY, ["20971520"; 2]);
    assert_eq!(c.status(), "running");
});
