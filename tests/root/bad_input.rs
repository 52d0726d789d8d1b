//! Bad input: one line that names the property, what it holds and what was expected; the same in the JSON log; nothing
//! left behind. One test a kind of mistake.

use std::fs;

use serde_json::{Value, json};

use crate::common::{Container, assert_has, rival};
use crate::{container_test, skip_for_runc};

/// `create` must fail, and say each of the `parts` on its one line and in its one log entry.
#[track_caller]
fn refused(c: &Container, parts: &[&str]) {
    c.write_config();
    refused_as_it_is(c, parts);
}

/// The same, with the bundle as it is.
#[track_caller]
fn refused_as_it_is(c: &Container, parts: &[&str]) {
    let bundle = c.bundle();
    let bundle = bundle.to_str().unwrap();
    for verb in ["create", "run"] {
        refused_command(c, &[verb, "--bundle", bundle, &c.id], parts);
    }
}

#[track_caller]
fn refused_command(c: &Container, words: &[&str], parts: &[&str]) {
    let log = c.path("log.json");
    let _ = fs::remove_file(&log);
    let mut all = vec!["--log", log.to_str().unwrap(), "--log-format", "json"];
    all.extend(words);
    let output = c.tare(&all);
    if rival().is_some() {
        assert_ne!(output.code, 0, "{output}");
        c.assert_clean();
        return;
    }
    let output = output.fails(parts);
    let text = fs::read_to_string(&log).unwrap();
    let entry: Value =
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("one JSON value is expected: {e}\n{text}"));
    assert_eq!(entry["level"], "error", "{text}");
    let message = entry["msg"].as_str().unwrap();
    assert_has(&output.stderr, message);
    for part in parts {
        assert_has(message, part);
    }
    let time = entry["time"].as_str().unwrap();
    assert!(time.len() >= 20 && time.as_bytes()[10] == b'T', "RFC 3339 is expected: {time}");
    c.assert_clean();
}

container_test!(a_missing_config, |c| {
    refused_as_it_is(c, &["config.json", "no such file or directory"]);
});

container_test!(a_config_that_is_a_folder, |c| {
    fs::create_dir(c.bundle().join("config.json")).unwrap();
    refused_as_it_is(c, &["config.json"]);
});

container_test!(a_config_that_is_no_json, |c| {
    for text in ["", "{", "[]", "not json", "{\"ociVersion\": }", "\"text\""] {
        fs::write(c.bundle().join("config.json"), text).unwrap();
        refused_as_it_is(c, &["config.json"]);
    }
});

container_test!(a_property_of_the_wrong_type, |c| {
    for (pointer, value) in [
        ("/process/args", json!("sh")),
        ("/process/user/uid", json!("root")),
        ("/process/user/uid", json!(-1)),
        ("/process/user/gid", json!(4_294_967_296u64)),
        ("/process/terminal", json!("yes")),
        ("/mounts/0/options", json!("ro")),
        ("/linux/namespaces", json!({ "type": "pid" })),
        ("/linux/namespaces/0/type", json!(7)),
        ("/linux/resources/memory/limit", json!("1G")),
        ("/root", json!("rootfs")),
        ("/hooks/prestart/0/path", json!(1)),
    ] {
        let good = c.config.clone();
        if pointer.starts_with("/hooks") {
            c.set("/hooks", json!({ "prestart": [{ "path": "" }] }));
        }
        c.set(pointer, value);
        refused(c, &[pointer]);
        c.config = good;
    }
});

container_test!(an_unknown_namespace, |c| {
    c.push("/linux/namespaces", json!({ "type": "galaxy" }));
    refused(c, &["/linux/namespaces/5/type", "galaxy"]);
});

container_test!(a_namespace_without_a_type, |c| {
    c.push("/linux/namespaces", json!({ "path": "/proc/self/ns/net" }));
    refused(c, &["/linux/namespaces/5/type"]);
});

container_test!(a_duplicate_namespace, |c| {
    c.push("/linux/namespaces", json!({ "type": "pid" }));
    refused(c, &["/linux/namespaces/5", "pid"]);
});

container_test!(a_relative_namespace_path, |c| {
    skip_for_runc!(c, "runc 1.1 takes it");
    c.set("/linux/namespaces/1/path", "proc/self/ns/net");
    refused(c, &["/linux/namespaces/1/path", "proc/self/ns/net", "absolute"]);
});

container_test!(an_unknown_rlimit, |c| {
    c.set("/process/rlimits", json!([{ "type": "RLIMIT_PATIENCE", "soft": 1, "hard": 1 }]));
    refused(c, &["/process/rlimits/0/type", "RLIMIT_PATIENCE"]);
});

container_test!(a_duplicate_rlimit, |c| {
    skip_for_runc!(c, "runc 1.1 takes it");
    let limit = json!({ "type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024 });
    c.set("/process/rlimits", json!([limit, limit]));
    refused(c, &["/process/rlimits/1/type", "RLIMIT_NOFILE"]);
});

container_test!(a_soft_limit_above_the_hard_one, |c| {
    c.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 20, "hard": 10 }]));
    refused(c, &["/process/rlimits/0/soft", "20", "10"]);
});

container_test!(an_unknown_mount_option_of_a_bind, |c| {
    skip_for_runc!(c, "runc 1.1 drops it");
    c.push(
        "/mounts",
        json!({ "type": "bind", "source": "/sys", "destination": "/tmp/a", "options": ["bind", "quick"] }),
    );
    refused(c, &["/mounts/6", "quick"]);
});

container_test!(an_unknown_mount_option_of_a_file_system, |c| {
    c.push("/mounts", json!({ "type": "tmpfs", "source": "tmpfs", "destination": "/tmp/a", "options": ["quick"] }));
    refused(c, &["/tmp/a", "quick"]);
});

container_test!(a_mount_without_a_destination, |c| {
    c.push("/mounts", json!({ "type": "tmpfs", "source": "tmpfs" }));
    refused(c, &["/mounts/6/destination"]);
});

container_test!(an_unknown_rootfs_propagation, |c| {
    c.set("/linux/rootfsPropagation", "sideways");
    refused(c, &["/linux/rootfsPropagation", "sideways"]);
});

container_test!(an_unknown_architecture, |c| {
    c.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PDP11"] }));
    refused(c, &["/linux/seccomp/architectures/0", "SCMP_ARCH_PDP11"]);
});

container_test!(an_unknown_seccomp_action, |c| {
    c.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_MAYBE" }));
    refused(c, &["/linux/seccomp/defaultAction", "SCMP_ACT_MAYBE"]);
});

container_test!(an_unknown_personality, |c| {
    skip_for_runc!(c, "runc has it since 1.2");
    c.set("/linux/personality", json!({ "domain": "SOLARIS" }));
    refused(c, &["/linux/personality/domain", "SOLARIS"]);
});

container_test!(an_unknown_scheduler, |c| {
    skip_for_runc!(c, "runc has it since 1.2");
    c.set("/process/scheduler", json!({ "policy": "SCHED_SOMEDAY" }));
    refused(c, &["/process/scheduler/policy", "SCHED_SOMEDAY"]);
});

container_test!(an_unknown_io_priority, |c| {
    skip_for_runc!(c, "runc has it since 1.2");
    c.set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_VIP", "priority": 0 }));
    refused(c, &["/process/ioPriority/class", "IOPRIO_CLASS_VIP"]);
});

container_test!(an_unknown_device_type, |c| {
    c.set("/linux/devices", json!([{ "type": "x", "path": "/dev/x", "major": 1, "minor": 3 }]));
    refused(c, &["/linux/devices/0/type", "x"]);
});

container_test!(a_device_without_its_numbers, |c| {
    skip_for_runc!(c, "runc takes 0");
    for kind in ["c", "b", "u"] {
        for (device, missing) in [
            (json!({ "type": kind, "path": "/dev/x" }), "major"),
            (json!({ "type": kind, "path": "/dev/x", "minor": 3 }), "major"),
            (json!({ "type": kind, "path": "/dev/x", "major": null, "minor": 3 }), "major"),
            (json!({ "type": kind, "path": "/dev/x", "major": 1 }), "minor"),
        ] {
            c.set("/linux/devices", json!([{ "type": "p", "path": "/dev/fifo" }, device]));
            refused(c, &[&format!("/linux/devices/1/{missing}: "), "is not set"]);
        }
    }
});

container_test!(a_bad_device_rule, |c| {
    skip_for_runc!(c, "runc 1.1 takes it");
    c.set("/linux/resources/devices", json!([{ "allow": true, "type": "c", "access": "rx" }]));
    refused(c, &["/linux/resources/devices/0/access", "rx"]);
});

container_test!(a_relative_device_path, |c| {
    skip_for_runc!(c, "runc 1.1 takes it");
    c.set("/linux/devices", json!([{ "type": "c", "path": "dev/x", "major": 1, "minor": 3 }]));
    refused(c, &["/linux/devices/0/path", "dev/x", "absolute"]);
});

container_test!(a_relative_cwd, |c| {
    c.set("/process/cwd", "tmp");
    refused(c, &["/process/cwd", "tmp", "absolute"]);
});

container_test!(an_empty_cwd, |c| {
    c.set("/process/cwd", "");
    refused(c, &["/process/cwd"]);
});

container_test!(no_arguments, |c| {
    c.set("/process/args", json!([]));
    refused(c, &["/process/args"]);
    c.remove("/process/args");
    refused(c, &["/process/args"]);
});

container_test!(an_environment_entry_without_an_equals_sign, |c| {
    skip_for_runc!(c, "runc 1.1 drops it");
    c.set("/process/env", json!(["PATH=/", "NONSENSE"]));
    refused(c, &["/process/env/1", "NONSENSE"]);
});

container_test!(a_nul_in_a_string, |c| {
    skip_for_runc!(c, "runc 1.1 takes it");
    c.set("/process/args", json!(["/guest", "a\0b"]));
    refused(c, &["/process/args/1"]);
});

container_test!(no_process, |c| {
    c.remove("/process");
    c.write_config();
    let bundle = c.bundle();
    refused_command(c, &["run", "--bundle", bundle.to_str().unwrap(), &c.id], &["/process"]);
    // The specification wants a process only of `start`.
    if c.create().code == 0 {
        let _ = c.start().exits(1);
    }
});

container_test!(no_root, |c| {
    c.remove("/root");
    refused(c, &["/root"]);
});

container_test!(a_missing_rootfs, |c| {
    c.set("/root/path", "nowhere");
    refused(c, &["/root/path", "nowhere", "no such file or directory"]);
});

container_test!(mappings_without_a_user_namespace, |c| {
    skip_for_runc!(c, "runc 1.1 ignores them");
    c.set("/linux/uidMappings", json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]));
    refused(c, &["/linux/uidMappings"]);
});

container_test!(a_hostname_without_a_uts_namespace, |c| {
    c.remove("/linux/namespaces/3");
    c.set("/hostname", "inside");
    refused(c, &["/hostname"]);
});

container_test!(time_offsets_without_a_time_namespace, |c| {
    skip_for_runc!(c, "runc 1.1 ignores them");
    c.set("/linux/timeOffsets", json!({ "boottime": { "secs": 1 } }));
    refused(c, &["/linux/timeOffsets"]);
});

container_test!(a_sysctl_that_is_the_hosts, |c| {
    c.set("/linux/sysctl", json!({ "kernel.panic": "1" }));
    refused(c, &["/linux/sysctl/kernel.panic"]);
});

container_test!(a_bad_id, |c| {
    c.write_config();
    let bundle = c.bundle();
    let bundle = bundle.to_str().unwrap().to_owned();
    for id in ["a/b", "..", ".", "a b", "ä", "a:b", "/etc", "a\n"] {
        refused_command(c, &["create", "--bundle", &bundle, id], &[]);
    }
    assert!(!c.dir.join("a").exists());
    if rival().is_none() {
        for id in ["", ".hidden"] {
            refused_command(c, &["create", "--bundle", &bundle, id], &[]);
        }
    }
});

container_test!(every_character_that_an_id_may_have, |c| {
    c.write_config();
    for id in ["a", "0", "_x", "+x", "A.b-c_d+e", "1234567890-abcdefghijklmnopqrstuvwxyz"] {
        c.tare(&["run", id]).ok();
    }
});

container_test!(an_id_in_use, |c| {
    c.create().ok();
    let log = c.path("log.json");
    let words = ["--log", log.to_str().unwrap(), "--log-format=json", "create", &c.id];
    c.tare(&words).fails(&["container with given ID already exists"]);
    let entry: Value = serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
    assert_has(entry["msg"].as_str().unwrap(), "container with given ID already exists");
});

container_test!(a_command_that_is_not_there, |c| {
    c.set("/process/args", json!(["nosuchprogram"]));
    refused(c, &["nosuchprogram", "executable file not found in $PATH"]);
    c.set("/process/args", json!(["/no/such/program"]));
    refused(c, &["/no/such/program", "no such file or directory"]);
});

container_test!(a_command_that_is_not_executable, |c| {
    fs::write(c.rootfs().join("file"), "").unwrap();
    crate::common::host::chmod(&c.rootfs().join("file"), 0o644);
    c.set("/process/args", json!(["/file"]));
    refused(c, &["/file", "permission denied"]);
});

container_test!(unknown_properties_are_ignored, |c| {
    c.set("/unknown", json!({ "a": [1, 2] }));
    c.set("/process/unknown", 1).set("/linux/unknown", "x").set("/linux/resources/unknown/deeper", true);
    c.set("/windows", json!({ "layerFolders": [] }));
    c.args(&["exit", "4"]);
    let log = c.path("log.json");
    c.write_config();
    let output = c.tare(&["--log", log.to_str().unwrap(), "--log-format", "json", "run", &c.id]).exits(4);
    assert_eq!(output.stderr, "");
    assert_eq!(fs::read_to_string(&log).unwrap_or_default(), "");
});

container_test!(null_is_absent, |c| {
    for pointer in [
        "/hooks",
        "/annotations",
        "/hostname",
        "/process/rlimits",
        "/process/consoleSize",
        "/linux/resources",
        "/linux/sysctl",
        "/linux/seccomp",
        "/linux/devices",
        "/linux/maskedPaths",
        "/linux/readonlyPaths",
        "/mounts/0/options",
    ] {
        c.set(pointer, Value::Null);
    }
    c.args(&["exit", "4"]);
    c.run().exits(4);
});

container_test!(a_huge_config_is_read, |c| {
    for i in 0..2000 {
        c.push("/process/env", json!(format!("VARIABLE_{i}={}", "x".repeat(50))));
    }
    let long = "x".repeat(1 << 20);
    c.set("/annotations", json!({ "long": long }));
    c.args(&["exit", "4"]);
    c.run().exits(4);
});

container_test!(what_cannot_be_done_yet_is_not_ignored, |c| {
    skip_for_runc!(c, "runc does or ignores these");
    let good = c.config.clone();
    for (pointer, value) in [
        ("/linux/intelRdt", json!({ "closID": "x", "l3CacheSchema": "L3:0=f" })),
        ("/linux/netDevices", json!({ "nosuchdevice": { "name": "eth0" } })),
    ] {
        c.config = good.clone();
        c.set(pointer, value);
        refused(c, &[pointer]);
    }
});

container_test!(exec_cpu_affinity_is_for_exec_only, |c| {
    c.set("/process/execCPUAffinity", json!({ "initial": "0", "final": "0" }));
    let before = c.facts()["status"]["Cpus_allowed_list"].clone();
    c.config["process"].as_object_mut().unwrap().remove("execCPUAffinity");
    assert_eq!(c.facts()["status"]["Cpus_allowed_list"], before);
});
