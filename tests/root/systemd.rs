//! `--systemd-cgroup` where systemd runs: scopes that come and go, limits and device rules that hold when it reloads,
//! what is said when a unit doesn't start, and a runtime that is killed at any moment.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::crash::killed_everywhere;
use crate::common::program::{Output, start};
use crate::common::{Container, assert_has, eventually, host, trace};
use crate::{container_test, skip_for_runc, skip_unless};

pub(super) const DRIVER: &str = "--systemd-cgroup";

/// Declares a test that runs where systemd is the host's first process.
macro_rules! systemd_test {
    ($name:ident, |$c:ident, $unit:ident| $body:expr) => {
        container_test!($name, |$c| {
            skip_unless!($c, Path::new("/run/systemd/system").exists(), "systemd doesn't run here");
            let $unit = scope($c);
            $body;
            if $c.path("state").join(&$c.id).exists() {
                $c.delete_force().ok();
            }
            assert_gone(&$unit);
        });
    };
}

pub(super) use systemd_test;

/// Gives the container a scope of its own in system.slice.
pub(super) fn scope(c: &mut Container) -> String {
    let name = c.cgroup.trim_start_matches('/').to_owned();
    c.set("/linux/cgroupsPath", format!(":test:{name}"));
    format!("test-{name}.scope")
}

pub(super) fn systemctl(words: &[&str]) -> String {
    let output = Command::new("systemctl").args(words).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

pub(super) fn show(unit: &str, property: &str) -> String {
    systemctl(&["show", "-P", property, unit])
}

#[track_caller]
pub(super) fn assert_gone(unit: &str) {
    eventually(&format!("{unit} is forgotten"), || show(unit, "LoadState") == "not-found");
    assert_eq!(host::cgroups(&format!("system.slice/{unit}")), [] as [std::path::PathBuf; 0], "the cgroup is left");
}

fn run(c: &Container) -> Output {
    verb(c, &["run", "--detach"])
}

fn verb(c: &Container, words: &[&str]) -> Output {
    c.write_config();
    let mut all = vec![DRIVER];
    all.extend(words);
    all.push(&c.id);
    c.tare(&all)
}

/// The files of the scope's cgroup and of systemd's notion of it.
fn file(unit: &str, name: &str) -> String {
    let path = format!("/sys/fs/cgroup{}/{name}", show(unit, "ControlGroup"));
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")).trim_end().to_owned()
}

systemd_test!(a_container_is_a_scope, |c, unit| {
    c.args(&["sleep-forever"]);
    c.set(
        "/annotations",
        json!({
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
            "org.systemd.property.TimeoutStopSec": "7",
            "org.systemd.property.After": "['basic.target']"
        }),
    );
    run(c).ok();
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    assert!(cgroup.ends_with(&format!("/system.slice/{unit}\n")), "{cgroup}");
    for (property, value) in [
        ("ActiveState", "active"),
        ("Slice", "system.slice"),
        ("Delegate", "yes"),
        ("DefaultDependencies", "no"),
        ("MemoryAccounting", "yes"),
        ("TasksAccounting", "yes"),
        ("CollectMode", "inactive-or-failed"),
        ("TimeoutStopUSec", "7s"),
        ("DevicePolicy", "auto"),
    ] {
        assert_eq!(show(&unit, property), value, "{property}");
    }
    assert_has(show(&unit, "After"), "basic.target");
});

systemd_test!(a_foreground_run_leaves_no_unit, |c, unit| {
    c.args(&["exit", "7"]);
    verb(c, &["run"]).exits(7);
    assert_gone(&unit);
});

systemd_test!(exec_goes_into_the_unit, |c, unit| {
    c.args(&["sleep-forever"]);
    run(c).ok();
    let pid = c.path("exec.pid");
    c.tare(&["exec", "--detach", "--pid-file", pid.to_str().unwrap(), &c.id, "/guest", "sleep-forever"]).ok();
    let pid = fs::read_to_string(pid).unwrap();
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(cgroup.ends_with(&format!("/{unit}\n")), "{cgroup}");
});

systemd_test!(a_path_of_its_own_is_not_needed, |c, unit| {
    let _ = &unit;
    c.args(&["sleep-forever"]);
    c.set("/linux/cgroupsPath", "");
    run(c).ok();
    let own = format!("tare-{}.scope", c.id);
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    assert!(cgroup.ends_with(&format!("/system.slice/{own}\n")), "{cgroup}");
    c.delete_force().ok();
    assert_gone(&own);
});

systemd_test!(limits_of_v1_hold_when_systemd_reloads, |c, unit| {
    skip_unless!(c, host::v1("cpu").is_some(), "no cgroup v1");
    c.args(&["sleep-forever"]);
    c.set(
        "/linux/resources",
        json!({
            "cpu": { "shares": 512, "quota": 20_000, "period": 50_000 }, "pids": { "limit": 77 }
        }),
    );
    run(c).ok();
    let expected = [
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "20000"),
        ("cpu", "cpu.cfs_period_us", "50000"),
        ("pids", "pids.max", "77"),
    ];
    for when in ["before", "after"] {
        for line in host::mounted_lines(&fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap()) {
            assert!(line.ends_with(&format!(":/system.slice/{unit}")), "{line}, {when} the reload");
        }
        for (controller, name, value) in expected {
            let path = host::v1(controller).unwrap().join("system.slice").join(&unit).join(name);
            assert_eq!(fs::read_to_string(&path).unwrap().trim_end(), value, "{name}, {when} the reload");
        }
        systemctl(&["daemon-reload"]);
    }
});

systemd_test!(limits_hold_when_systemd_reloads, |c, unit| {
    skip_unless!(c, host::v1("cpu").is_none(), "cgroup v1");
    c.args(&["sleep-forever"]);
    c.set(
        "/linux/resources",
        json!({
            "memory": { "limit": 104_857_600, "swap": 104_857_600, "reservation": 52_428_800 },
            "cpu": { "shares": 512, "quota": 20_000, "period": 50_000, "cpus": "0", "mems": "0" },
            "pids": { "limit": 77 },
            "unified": { "memory.high": "90M", "memory.min": "8192" }
        }),
    );
    run(c).ok();
    let expected = [
        ("memory.max", "104857600"),
        ("memory.swap.max", "0"),
        ("memory.low", "52428800"),
        ("memory.high", "94371840"),
        ("memory.min", "8192"),
        ("cpu.weight", "59"),
        ("cpu.max", "20000 50000"),
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
        ("pids.max", "77"),
    ];
    for when in ["before", "after"] {
        for (name, value) in expected {
            assert_eq!(file(&unit, name), value, "{name}, {when} the reload");
        }
        systemctl(&["daemon-reload"]);
    }
    assert_eq!(show(&unit, "TasksMax"), "77");
});

systemd_test!(updated_limits_hold_when_systemd_reloads, |c, unit| {
    skip_unless!(c, host::v1("cpu").is_none(), "cgroup v1");
    c.args(&["sleep-forever"]);
    c.set("/linux/resources", json!({ "memory": { "limit": 104_857_600 }, "pids": { "limit": 77 } }));
    run(c).ok();
    let words = ["--pids-limit=33", "--memory=209715200", "--cpu-quota=20500", "--cpu-period=50000", "--cpu-share=512"];
    let mut all = vec!["update"];
    all.extend(words);
    all.push(&c.id);
    c.tare(&all).ok();
    // The exact quota beside systemd's whole percents, which it goes back to.
    for (when, quota) in [("before", "20500 50000"), ("after", "20500 50000")] {
        for (name, value) in [("pids.max", "33"), ("memory.max", "209715200"), ("cpu.max", quota), ("cpu.weight", "59")]
        {
            assert_eq!(file(&unit, name), value, "{name}, {when} the reload");
        }
        systemctl(&["daemon-reload"]);
    }
    assert_eq!(show(&unit, "TasksMax"), "33");
    assert_eq!(show(&unit, "CPUQuotaPerSecUSec"), "410ms");
});

/// What every file of the scope's cgroup that can be written to has in it.
fn files(unit: &str) -> BTreeMap<String, String> {
    // A systemd that is busy with others may not answer at once.
    eventually("the unit has a cgroup", || !show(unit, "ControlGroup").is_empty());
    let dir = format!("/sys/fs/cgroup{}", show(unit, "ControlGroup"));
    let entries = fs::read_dir(dir).unwrap().flatten();
    let writable = entries.filter(|entry| entry.metadata().unwrap().permissions().mode() & 0o222 != 0);
    let text = |path: std::path::PathBuf| fs::read_to_string(path).ok();
    let pressure = |name: &str| name.ends_with(".pressure");
    writable
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, text(entry.path())?)))
        .filter(|(name, _)| !pressure(name))
        .collect()
}

/// The major version of systemd.
fn version() -> u32 {
    let text = systemctl(&["--version"]);
    text.split_whitespace().nth(1).unwrap().split(['.', '-', '~']).next().unwrap().parse().unwrap()
}

systemd_test!(every_file_has_its_value_when_systemd_reloads, |c, unit| {
    skip_unless!(c, host::v1("cpu").is_none(), "cgroup v1");
    c.args(&["sleep-forever"]);
    let memory = json!({
        "memory.max": "100M", "memory.high": "90M", "memory.low": "8M", "memory.min": "4M", "memory.swap.max": "50M",
        "memory.swap.high": "40M", "memory.oom.group": "1", "memory.zswap.max": "1M", "memory.zswap.writeback": "0"
    });
    let cpu = json!({
        "cpu.max": "30000 60000", "cpu.max.burst": "1000", "cpu.weight.nice": "7", "cpuset.cpus": "0", "cpuset.mems": "0",
        "cpu.uclamp.min": "10.00", "cpu.uclamp.max": "90.00"
    });
    let others = json!({
        "pids.max": "77", "io.weight": "default 222", "io.bfq.weight": "500", "hugetlb.2MB.max": "4194304",
        "hugetlb.2MB.rsvd.max": "4194304", "cgroup.max.depth": "5", "cgroup.max.descendants": "50", "misc.max": ""
    });
    // Those that this kernel has, all at once.
    let parent = Path::new("/sys/fs/cgroup/system.slice");
    let asked: serde_json::Map<String, Value> = [memory, cpu, others]
        .into_iter()
        .flat_map(|group| group.as_object().unwrap().clone())
        .filter(|(file, value)| parent.join(file).exists() && value != "")
        .collect();
    assert!(asked.len() > 10, "{asked:?}");
    c.set("/linux/resources/unified", asked.clone());
    let output = run(c).ok();
    let before = files(&unit);
    systemctl(&["daemon-reload"]);
    let after = files(&unit);
    let differs = |name: &&String| before.get(*name) != after.get(*name);
    let mut changed: Vec<&String> = before.keys().filter(differs).collect();
    if version() < 253 {
        // It has no word for it, and resets it: that is said.
        changed.retain(|name| *name != "memory.oom.group");
        if asked.contains_key("memory.oom.group") {
            assert_has(&output.stderr, "sets memory.oom.group back to 0 when it reloads");
        }
    }
    let told: Vec<_> = changed.iter().map(|name| (name, &before[*name], after.get(*name))).collect();
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(before["cpu.weight.nice"], "7\n");
});

systemd_test!(a_quota_that_systemd_rounds_is_named, |c, unit| {
    skip_for_runc!(c, "it says nothing");
    skip_unless!(c, host::v1("cpu").is_none(), "cgroup v1");
    c.args(&["sleep-forever"]);
    run(c).ok();
    // Not from the start: what makes the container would take a minute by that.
    let output = c.tare(&["update", "--cpu-quota=1000", "--cpu-period=1000000", &c.id]).ok();
    assert_has(&output.stderr, "/linux/resources/cpu/quota: systemd keeps whole percents");
    assert_eq!(file(&unit, "cpu.max"), "1000 1000000");
    systemctl(&["daemon-reload"]);
    assert_eq!(file(&unit, "cpu.max"), "10000 1000000", "as the warning says");
    // A hundredth more or less is no news.
    let output = c.tare(&["update", "--cpu-quota=33300", "--cpu-period=100000", &c.id]).ok();
    assert!(!output.stderr.contains("percents"), "{output}");
});

systemd_test!(weights_of_bfq_hold_when_systemd_reloads, |c, unit| {
    skip_unless!(c, host::v1("blkio").is_none(), "cgroup v1");
    let _ = Command::new("modprobe").arg("bfq").status();
    skip_unless!(c, Path::new("/sys/fs/cgroup/system.slice/io.bfq.weight").exists(), "no BFQ");
    c.args(&["sleep-forever"]);
    c.set("/linux/resources/blockIO", json!({ "weight": 500 }));
    run(c).ok();
    for when in ["before", "after"] {
        assert_eq!(file(&unit, "io.bfq.weight"), "default 500", "{when} the reload");
        systemctl(&["daemon-reload"]);
    }
    c.tare(&["update", "--blkio-weight=9", &c.id]).ok();
    for when in ["before", "after"] {
        assert_eq!(file(&unit, "io.bfq.weight"), "default 9", "{when} the reload");
        systemctl(&["daemon-reload"]);
    }
});

systemd_test!(a_weight_of_a_device_that_bfq_does_not_serve, |c, unit| {
    skip_unless!(c, host::v1("blkio").is_none(), "cgroup v1");
    let _ = Command::new("modprobe").arg("bfq").status();
    let disks: Vec<String> = fs::read_dir("/sys/block")
        .unwrap()
        .flatten()
        .filter(|disk| disk.file_name().to_string_lossy().starts_with("nvme"))
        .map(|disk| fs::read_to_string(disk.path().join("dev")).unwrap().trim().to_owned())
        .collect();
    let slice = Path::new("/sys/fs/cgroup/system.slice");
    skip_unless!(c, !disks.is_empty() && slice.join("io.bfq.weight").exists(), "no BFQ, or no disk");
    // The io.weight of a device needs the iocost controller there.
    skip_unless!(
        c,
        fs::write("/sys/fs/cgroup/io.cost.qos", format!("{} enable=1", disks[0])).is_ok(),
        "no iocost controller"
    );
    let (major, minor) = disks[0].split_once(':').unwrap();
    let number = |text: &str| text.parse::<u32>().unwrap();
    c.args(&["sleep-forever"]);
    let device = json!([{ "major": number(major), "minor": number(minor), "weight": 500 }]);
    c.set("/linux/resources/blockIO", json!({ "weightDevice": device }));
    run(c).ok();
    assert_has(file(&unit, "io.weight"), &format!("{} 4950", disks[0]));
});

systemd_test!(a_delete_without_the_bus_leaves_no_unit, |c, unit| {
    c.args(&["sleep-forever"]);
    run(c).ok();
    let mut command = c.command(&["delete", "--force", &c.id]);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/bus");
    crate::common::program::finish(&mut command, &c.dir).ok();
    assert_gone(&unit);
    run(c).ok();
});

systemd_test!(an_update_that_systemd_is_not_told_of_changes_nothing, |c, unit| {
    skip_unless!(c, host::v1("pids").is_none(), "cgroup v1");
    c.args(&["sleep-forever"]);
    c.set("/linux/resources/pids/limit", 77);
    run(c).ok();
    let mut command = c.command(&["update", "--pids-limit=33", &c.id]);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/bus");
    crate::common::program::finish(&mut command, &c.dir).fails(&["the limits are as they were", "/nowhere/bus"]);
    assert_eq!(file(&unit, "pids.max"), "77");
});

systemd_test!(a_paused_container_is_deleted_with_its_unit, |c, unit| {
    c.args(&["sleep-forever"]);
    run(c).ok();
    c.tare(&["pause", &c.id]).ok();
    c.wait_status("paused");
    systemctl(&["daemon-reload"]);
    assert_eq!(c.status(), "paused");
    c.delete_force().ok();
    assert_gone(&unit);
});

systemd_test!(device_access_holds_when_systemd_reloads, |c, unit| {
    let _ = &unit;
    c.args(&["sleep-forever"]);
    let node =
        |path: &str, major: u32, minor: u32| json!({ "type": "c", "path": path, "major": major, "minor": minor });
    // Nobody drives these numbers: where the rules let it through, an open ends with ENXIO.
    c.set(
        "/linux/devices",
        json!([
            node("/dev/gpu0", 195, 0),
            node("/dev/gpu1", 195, 1),
            node("/dev/gpuctl", 195, 255),
            node("/dev/uvm", 511, 7)
        ]),
    );
    c.set(
        "/linux/resources/devices",
        json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 195, "minor": 0, "access": "rw" },
            { "allow": true, "type": "c", "major": 195, "minor": 255, "access": "r" },
            { "allow": true, "type": "c", "major": 511, "access": "rw" }
        ]),
    );
    run(c).ok();
    let mut words = vec!["exec", &c.id, "/guest", "all"];
    let mut expected = Vec::new();
    for (path, mode, result) in [
        ("/dev/gpu0", "r", "ENXIO"),
        ("/dev/gpu0", "w", "ENXIO"),
        ("/dev/gpu1", "r", "EPERM"),
        ("/dev/gpu1", "w", "EPERM"),
        ("/dev/gpuctl", "r", "ENXIO"),
        ("/dev/gpuctl", "w", "EPERM"),
        ("/dev/uvm", "r", "ENXIO"),
        ("/dev/null", "w", "ok"),
    ] {
        words.extend(["open", path, mode, ","]);
        expected.push((path, mode, result));
    }
    words.pop();
    let look = || {
        let output = c.tare(&words);
        for (path, mode, result) in &expected {
            if *result != "ok" {
                assert_has(&output.stdout, &format!("open {path} {mode}: {result}"));
            }
        }
        assert!(!output.stdout.contains("/dev/null"), "{output}");
        output.stdout
    };
    let before = look();
    for _ in 0..10 {
        systemctl(&["daemon-reload"]);
        assert_eq!(look(), before);
    }
    systemctl(&["daemon-reexec"]);
    assert_eq!(look(), before);
});

/// A unit file that is there for the time of a test.
struct UnitFile(String);

impl UnitFile {
    fn new(name: &str, text: &str) -> Self {
        fs::create_dir_all("/run/systemd/system").unwrap();
        fs::write(format!("/run/systemd/system/{name}"), text).unwrap();
        systemctl(&["daemon-reload"]);
        Self(name.to_owned())
    }
}

impl Drop for UnitFile {
    fn drop(&mut self) {
        systemctl(&["stop", &self.0]);
        systemctl(&["reset-failed", &self.0]);
        let _ = fs::remove_file(format!("/run/systemd/system/{}", self.0));
        systemctl(&["daemon-reload"]);
    }
}

systemd_test!(a_unit_that_fails_says_why_and_who_knows_more, |c, unit| {
    skip_for_runc!(c, "it says less");
    let needed = format!("needed-{unit}").replace(".scope", ".service");
    let _file = UnitFile::new(&needed, "[Service]\nType=oneshot\nExecStart=/bin/false\n");
    for key in ["Requires", "After"] {
        c.set(&format!("/annotations/org.systemd.property.{key}"), format!("['{needed}']"));
    }
    verb(c, &["create"]).fails(&[
        &format!("unit \"{unit}\": its start job ended as \"dependency\""),
        &format!("journalctl -u {unit}"),
        &format!("systemctl status {unit}"),
    ]);
    c.assert_clean();
});

systemd_test!(what_systemd_refuses_is_told, |c, unit| {
    skip_for_runc!(c, "other words");
    c.set("/annotations/org.systemd.property.NoSuchThing", "true");
    verb(c, &["create"]).fails(&[&format!("start unit \"{unit}\" over D-Bus"), "NoSuchThing"]);
    c.assert_clean();
    c.set("/annotations", json!({ "org.systemd.property.TasksMax": "'many'" }));
    verb(c, &["create"]).fails(&[&format!("start unit \"{unit}\" over D-Bus")]);
    c.assert_clean();
});

systemd_test!(a_unit_of_the_name_that_runs_is_left_alone, |c, unit| {
    skip_for_runc!(c, "1.1 joins the other one");
    c.args(&["sleep-forever"]);
    // Without a pid namespace of its own a failed create would kill by the cgroup.
    let namespaces = json!([{ "type": "mount" }]);
    c.set("/linux/namespaces", namespaces);
    c.remove("/linux/maskedPaths");
    run(c).ok();
    let words = [DRIVER, "create", "other"];
    c.tare(&words).fails(&[&format!("start unit \"{unit}\" over D-Bus"), "UnitExists"]);
    assert_eq!(c.status(), "running");
    assert_eq!(show(&unit, "ActiveState"), "active");
});

systemd_test!(what_a_killed_create_leaves_takes_no_other_unit_along, |c, unit| {
    skip_for_runc!(c, "1.1 joins the other one");
    if !trace::available(c) {
        return;
    }
    c.args(&["sleep-forever"]);
    run(c).ok();
    // Killed on its way to the bus, and when it was just refused.
    for point in ["inject=connect:signal=SIGKILL:when=1", "inject=wait4:signal=SIGKILL:when=1"] {
        trace::killed_at(c, false, point, &[DRIVER, "create", "other"]).wait();
        assert_has(c.tare(&["list"]).ok().stdout, "other");
        c.tare(&["delete", "--force", "other"]).ok();
        assert_eq!(c.status(), "running", "{point}");
        assert_eq!(show(&unit, "ActiveState"), "active", "{point}");
    }
});

systemd_test!(sixteen_at_once, |c, unit| {
    let _ = &unit;
    let all: Vec<(Container, String)> = (0..16)
        .map(|_| {
            let mut one = Container::new(&c.name);
            let unit = scope(&mut one);
            one.args(&["exit", "7"]);
            one.write_config();
            (one, unit)
        })
        .collect();
    let running: Vec<_> =
        all.iter().map(|(one, _)| start(&mut one.command(&[DRIVER, "run", &one.id]), &one.dir)).collect();
    for one in running {
        one.wait().exits(7);
    }
    for (mut one, unit) in all {
        assert_gone(&unit);
        one.finish();
    }
});

systemd_test!(a_failed_unit_of_the_name_is_cleared_away, |c, unit| {
    let started = Command::new("systemd-run")
        .args(["--scope", "--quiet", &format!("--unit={unit}"), "-p", "RuntimeMaxSec=1s", "sleep", "100"])
        .status()
        .unwrap();
    assert!(!started.success());
    eventually("it has failed", || show(&unit, "ActiveState") == "failed");
    c.args(&["exit", "7"]);
    verb(c, &["run"]).exits(7);
});

systemd_test!(a_hundred_containers_leave_no_scope, |c, unit| {
    c.args(&["exit", "7"]);
    let count = if std::env::var("TARE_TEST_LONG").is_ok_and(|v| v == "1") { 1000 } else { 100 };
    for _ in 0..count {
        verb(c, &["run"]).exits(7);
    }
    assert_gone(&unit);
    assert!(!systemctl(&["list-units", "--all", "--plain", "--no-legend"]).contains(&unit));
});

systemd_test!(a_stop_by_systemd_is_an_end_like_any_other, |c, unit| {
    c.args(&["sleep-forever"]);
    run(c).ok();
    systemctl(&["kill", "--signal=KILL", &unit]);
    c.wait_status("stopped");
    c.delete().ok();
    assert_gone(&unit);
});

systemd_test!(a_run_that_is_killed_anywhere_leaves_no_unit, |c, unit| {
    skip_for_runc!(c, "runc leaves what it made");
    let id = c.id.clone();
    killed_everywhere(c, &[DRIVER, "run", &id], || assert_gone(&unit));
});

systemd_test!(killed_anywhere_leaves_no_unit, |c, unit| {
    skip_for_runc!(c, "runc leaves what it made");
    c.args(&["sleep-forever"]);
    c.set("/linux/resources", json!({ "pids": { "limit": 20 } }));
    let id = c.id.clone();
    killed_everywhere(c, &[DRIVER, "create", &id], || assert_gone(&unit));
    assert_gone(&unit);
    killed_everywhere(c, &["delete", "--force", &id], || {
        assert_gone(&unit);
        verb(c, &["run", "--detach"]).ok();
    });
});

container_test!(a_bus_that_is_not_there, |c| {
    skip_for_runc!(c, "other words");
    c.set("/linux/cgroupsPath", "a.slice:b:c");
    c.write_config();
    let mut command = c.command(&[DRIVER, "create", &c.id]);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/bus");
    let output = crate::common::program::finish(&mut command, &c.dir);
    output.fails(&["the systemd cgroup driver needs the system bus", "/nowhere/bus", "--cgroup-manager=cgroupfs"]);
    c.assert_clean();
    let mut command = c.command(&[DRIVER, "--rootless=true", "create", &c.id]);
    command.env_remove("DBUS_SESSION_BUS_ADDRESS").env("XDG_RUNTIME_DIR", "/nowhere");
    let output = crate::common::program::finish(&mut command, &c.dir);
    output.fails(&["the user's bus", "/nowhere/bus", "/run/user/0/bus", "XDG_RUNTIME_DIR", "loginctl enable-linger"]);
    c.assert_clean();
});

container_test!(paths_that_name_no_unit, |c| {
    skip_for_runc!(c, "other words");
    for path in ["/a/b", "a.slice:b", "a--b.slice:p:n", "../a.slice:p:n", "a.slice:../p:n", ":p:x.slice"] {
        c.set("/linux/cgroupsPath", path);
        verb(c, &["create"]).fails(&["config.json: /linux/cgroupsPath: ", path]);
    }
    c.set("/linux/cgroupsPath", "a.slice:p:n");
    c.set("/annotations", json!({ "org.systemd.property.TimeoutStopSec": "soon" }));
    verb(c, &["create"]).fails(&["config.json: /annotations/org.systemd.property.TimeoutStopSec: \"soon\""]);
    c.assert_clean();
});
