//! `events`: what a container uses, and its out-of-memory kills, in runc's JSON.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::program::start;
use crate::common::{Container, assert_has, eventually, host, rival};
use crate::{container_test, skip_for_runc, skip_unless};

fn stats(c: &Container) -> Value {
    let output = c.tare(&["events", "--stats", &c.id]).ok();
    assert_eq!(output.stdout.lines().count(), 1, "{output}");
    output.json()
}

/// A file of the container's cgroup, in whichever hierarchy has it.
fn file(c: &Container, names: &[&str]) -> Option<u64> {
    let dirs = host::cgroups(&format!("{}/{}", c.cgroup, c.id));
    let path = names.iter().find_map(|name| dirs.iter().map(|dir| dir.join(name)).find(|path| path.exists()))?;
    Some(fs::read_to_string(path).unwrap().trim().parse().unwrap())
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

container_test!(stats_have_runcs_shape_and_the_files_values, |c| {
    let memory = host::has_controller("memory");
    if memory {
        c.set("/linux/resources/memory/limit", 67_108_864);
    }
    if host::has_controller("pids") {
        c.set("/linux/resources/pids/limit", 20);
    }
    c.args(&["hold-mem", "4"]);
    c.detach().ok();
    eventually("it has its memory", || {
        file(c, &["memory.usage_in_bytes", "memory.current"]).is_none_or(|n| n > 4 << 20)
    });
    let event = stats(c);
    assert_eq!(keys(&event), ["data", "id", "type"]);
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(c.id)));
    let data = &event["data"];
    let all = ["blkio", "cpu", "cpuset", "hugetlb", "intel_rdt", "memory", "network_interfaces", "pids"];
    assert_eq!(keys(data), all);
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    assert!(keys(&data["cpu"]["usage"]).contains(&"kernel") && keys(&data["cpu"]).contains(&"throttling"));
    if host::has_controller("pids") {
        assert_eq!(data["pids"], json!({ "current": 1, "limit": 20 }));
    }
    if memory {
        assert_eq!(data["memory"]["usage"]["limit"], 67_108_864);
        let used = data["memory"]["usage"]["usage"].as_u64().unwrap();
        let now = file(c, &["memory.usage_in_bytes", "memory.current"]).unwrap();
        assert!(used.abs_diff(now) < 1 << 20, "{used} {now}");
        assert!(data["memory"]["usage"]["max"].as_u64().unwrap() >= used);
        for entry in ["swap", "kernel", "kernelTCP"] {
            assert!(keys(&data["memory"][entry]).contains(&"failcnt"), "{entry}");
        }
        let raw = data["memory"]["raw"].as_object().unwrap();
        assert!(raw.contains_key("pgfault") && raw.len() > 10);
    }
    if host::v1("cpuset").is_some() {
        assert!(!data["cpuset"]["cpus"].as_array().unwrap().is_empty());
        assert_eq!(data["cpuset"]["mems"][0], 0);
    }
    if host::v1("cpuacct").is_some() {
        assert_eq!(
            data["cpu"]["usage"]["percpu"].as_array().unwrap().len(),
            data["cpu"]["usage"]["percpu_user"].as_array().unwrap().len()
        );
    }
});

container_test!(pressure_is_told_where_v2_has_it, |c| {
    let here = |c: &Container| file_exists(c, "cpu.pressure") && host::v1("cpu").is_none();
    c.args(&["sleep-forever"]);
    c.detach().ok();
    skip_unless!(c, here(c), "the cpu controller isn't on cgroup v2, or no pressure stall information");
    let data = &stats(c)["data"];
    for resource in ["cpu", "memory", "blkio"] {
        for line in ["some", "full"] {
            let line = &data[resource]["psi"][line];
            assert!(line["avg10"].is_number() && line["avg300"].is_number() && line["total"].is_u64(), "{data}");
        }
    }
});

fn file_exists(c: &Container, name: &str) -> bool {
    host::cgroups(&format!("{}/{}", c.cgroup, c.id)).iter().any(|dir| fs::read(dir.join(name)).is_ok())
}

container_test!(a_line_now_and_then_until_the_container_has_ended, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let mut running = start(&mut c.command(&["events", "--interval=100ms", &c.id]), &c.dir);
    eventually("three lines", || running.printed().lines().count() >= 3);
    c.kill(&["KILL"]).ok();
    // On v1 runc waits until the cgroup is gone.
    if rival().is_some() {
        c.delete_force().ok();
    }
    let begin = Instant::now();
    let output = running.wait().ok();
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    for line in output.stdout.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["type"], "stats");
    }
});

container_test!(a_container_that_is_removed_was_not_out_of_memory, |c| {
    skip_for_runc!(c, "it may take the one for the other");
    c.args(&["sleep-forever"]);
    for _ in 0..5 {
        c.detach().ok();
        let mut running = start(&mut c.command(&["events", "--interval", "10ms", &c.id]), &c.dir);
        running.wait_for("stats");
        // It is held up until the cgroup is gone.
        running.signal(nix::sys::signal::Signal::SIGSTOP);
        c.delete_force().ok();
        // v1 tells of the removal a little later.
        std::thread::sleep(Duration::from_millis(200));
        running.signal(nix::sys::signal::Signal::SIGCONT);
        let output = running.wait().ok();
        assert!(!output.stdout.contains("oom\""), "{output}");
    }
});

container_test!(the_first_line_comes_after_the_interval, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let begin = Instant::now();
    let mut running = start(&mut c.command(&["events", "--interval", "1s", &c.id]), &c.dir);
    eventually("a line", || !running.printed().is_empty());
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.wait().exits(143);
});

container_test!(an_out_of_memory_kill_is_an_event, |c| {
    skip_unless!(c, host::has_controller("memory"), "no memory controller");
    c.set("/linux/resources/memory", json!({ "limit": 33_554_432, "swap": 33_554_432 }));
    c.args(&["eat-mem", "200"]);
    c.create().ok();
    let mut running = start(&mut c.command(&["events", "--interval", "50ms", &c.id]), &c.dir);
    // It watches from before its first line.
    eventually("it watches", || running.printed().contains("stats"));
    c.start().ok();
    if rival().is_some() {
        c.wait_status("stopped");
        c.delete_force().ok();
    }
    let output = running.wait().ok();
    let oom = format!("{{\"type\":\"oom\",\"id\":\"{}\"}}\n", c.id);
    assert_has(&output.stdout, &oom);
});

container_test!(what_does_not_run_has_no_events, |c| {
    c.tare(&["events", &c.id]).fails(&["container does not exist"]);
    c.detach().ok();
    c.wait_status("stopped");
    for words in [&["events", c.id.as_str()][..], &["events", "--stats", &c.id]] {
        c.tare(words).fails(&["is not running"]);
    }
});

container_test!(the_interval_is_a_duration_greater_than_zero, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    for interval in ["0", "0s", "-1s"] {
        let interval = format!("--interval={interval}");
        c.tare(&["events", &interval, &c.id]).fails(&["duration interval must be greater than 0"]);
    }
    c.tare(&["events", "--interval=soon", &c.id]).exits(1);
    c.tare(&["events", "-interval", "1m30s", "-stats", &c.id]).ok();
});
