//! Every property of `linux.resources`, as the files of a running container have it: the table in tests/resources.json,
//! which the unit tests hold the planning to as well.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::common::{Container, assert_has, host, rival, skip};
use crate::container_test;

/// The table, with a disk of this host in it.
fn table() -> Vec<Value> {
    let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let numbers = disks.filter_map(|disk| fs::read_to_string(disk.path().join("dev")).ok());
    let disk =
        numbers.map(|text| text.trim().to_owned()).find(|text| !text.starts_with("1:") && !text.starts_with("7:"));
    let disk = disk.unwrap_or_else(|| "8:0".into());
    let (major, minor) = disk.split_once(':').unwrap();
    let text = include_str!("../resources.json").replace("MAJOR", major).replace("MINOR", minor);
    serde_json::from_str(&text).unwrap()
}

/// The container's folder in the hierarchy that has a file's controller, if there is one.
fn folder(c: &Container, file: &str) -> Option<PathBuf> {
    let controller = file.split('.').next().unwrap();
    let inside = format!("{}/{}", c.cgroup, c.id);
    let inside = inside.trim_start_matches('/');
    if let Some(root) = host::v1(controller) {
        return Some(root.join(inside));
    }
    let roots = host::hierarchies().into_iter();
    let has = |root: &PathBuf| {
        let list = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        list.split_whitespace().any(|name| name == controller)
    };
    roots.filter(has).map(|root| root.join(inside)).next()
}

/// The version that has the controllers of a row: that of its first file. None where none has.
fn version(row: &Value) -> Option<&'static str> {
    let first = |key: &str| row[key].as_array()?.first()?[0].as_str();
    let controller = |file: &str| file.split('.').next().unwrap().to_owned();
    if first("v1").is_some_and(|file| host::v1(&controller(file)).is_some()) {
        return Some("v1");
    }
    match first("v2") {
        Some(file) => {
            let offers = |root: PathBuf| {
                let list = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
                list.split_whitespace().any(|name| name == controller(file))
            };
            let only_there = host::v1(&controller(file)).is_none();
            (only_there && host::hierarchies().into_iter().any(offers)).then_some("v2")
        }
        // Ignored or refused there, whatever it offers.
        None => (row.get("v2").is_some() && !host::mounts().contains(" - cgroup ")).then_some("v2"),
    }
}

/// Compares what a file has with a row's entry: `[file, written]` or `[file, written, read]`.
fn check(c: &Container, entry: &Value, resources: &Value) {
    let word = |index: usize| entry[index].as_str();
    let names: Vec<&str> = word(0).unwrap().trim_end_matches('?').split('|').collect();
    let values: Vec<&str> = word(2).or(word(1)).unwrap().split('|').collect();
    for (name, value) in names.iter().zip(values) {
        let Some(path) = folder(c, name).map(|dir| dir.join(name)).filter(|path| path.exists()) else { continue };
        let text = fs::read_to_string(&path).unwrap();
        let whole = text.trim() == value;
        assert!(
            whole || text.lines().any(|line| line == value),
            "{resources}: {}: {text:?}, not {value:?}",
            path.display()
        );
        return;
    }
    assert!(word(0).unwrap().ends_with('?'), "{resources}: {names:?} isn't there");
}

/// Real-time CPU time is handed down: the parent needs some to give.
fn give_real_time(c: &Container) {
    let Some(root) = host::v1("cpu") else { return };
    let parent = root.join(c.cgroup.trim_start_matches('/'));
    fs::create_dir_all(&parent).unwrap();
    fs::write(parent.join("cpu.rt_runtime_us"), "5000").unwrap();
}

container_test!(every_property_is_in_its_file, |c| {
    c.args(&["sleep-forever"]);
    let mut compared = 0;
    for row in table() {
        let resources = &row["resources"];
        let Some(version) = version(&row) else {
            if row["v1"].as_array().is_none_or(|files| !files.is_empty()) {
                skip(&c.name, &format!("{resources}: the host has no such controller"));
            }
            continue;
        };
        // runc 1.1 knows neither of these, nor that 0 is a number of processes.
        let newer = ["/cpu/idle", "/cpu/burst"].iter().any(|pointer| resources.pointer(pointer).is_some())
            || resources["pids"]["limit"] == 0;
        if rival().is_some() && newer {
            continue;
        }
        if resources.pointer("/cpu/realtimeRuntime").is_some() && version == "v1" {
            give_real_time(c);
        }
        c.set("/linux/resources", resources.clone());
        let Some(files) = row[version].as_array() else {
            if rival().is_none() {
                assert_has(c.create().exits(1).stderr, row[version].as_str().unwrap());
            }
            continue;
        };
        let output = c.create();
        // The kernel may lack the file of a controller that it has: CFQ's weights, real-time groups, a device's driver.
        if output.code != 0 && rival().is_none() {
            let lacks = ["ENOENT", "ENODEV", "EOPNOTSUPP"].iter().any(|errno| output.stderr.contains(errno));
            let known = ["blockIO", "rdma", "network", "hugepageLimits"].iter().any(|key| resources.get(key).is_some());
            let rt = resources.pointer("/cpu/realtimeRuntime").is_some();
            assert!(lacks && (known || rt), "{resources}: {output}");
            skip(&c.name, &format!("{resources}: the kernel has no such file: {}", output.stderr.trim_end()));
            c.delete_force().ok();
            continue;
        }
        if output.code == 0 {
            files.iter().for_each(|entry| check(c, entry, resources));
            compared += 1;
        }
        c.delete_force().ok();
    }
    println!("{compared} rows compared");
    let any = ["memory", "pids", "cpu"].iter().any(|name| host::has_controller(name));
    assert!(compared > 15 || !any, "only {compared} rows were compared");
});

container_test!(an_update_writes_the_same_files, |c| {
    if rival().is_some() {
        return skip(&c.name, "its update knows a part of them only");
    }
    c.args(&["sleep-forever"]);
    let mut compared = 0;
    for row in table() {
        let resources = &row["resources"];
        let (Some(version), None) = (version(&row), resources.pointer("/cpu/realtimeRuntime")) else { continue };
        let Some(files) = row[version].as_array() else { continue };
        c.set("/linux/resources", serde_json::json!({}));
        c.create().ok();
        let output = super::update::update_from_stdin(c, resources);
        if output.code == 0 && !files.is_empty() {
            let zero =
                ["{\"cpu\":{\"burst\":0", "\"kernelTCP\""].iter().any(|part| resources.to_string().contains(part));
            if !zero {
                files.iter().for_each(|entry| check(c, entry, resources));
                compared += 1;
            }
        } else if output.code != 0 {
            let lacks = ["ENOENT", "ENODEV", "EOPNOTSUPP"].iter().any(|errno| output.stderr.contains(errno));
            assert!(lacks, "{resources}: {output}");
        }
        c.delete_force().ok();
    }
    let any = ["memory", "pids", "cpu"].iter().any(|name| host::has_controller(name));
    assert!(compared > 15 || !any, "only {compared} rows were compared");
});
