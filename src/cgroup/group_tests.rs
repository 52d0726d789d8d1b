//! On the host's own cgroups, below one parent of this test's; skipped without root.

#![allow(clippy::disallowed_methods)] // the tests are no runtime: they wait for what they start
use std::process::{Child, Command, Stdio};

use super::*;
use crate::cgroup::{Layout, Manager, create as create_boxed, plan};
use crate::spec::Resources;

/// The parent of one test's cgroups: removed at the end, whatever happens.
struct Scratch {
    layout: Layout,
    name: String,
}

impl Scratch {
    fn new(test: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: making cgroups needs root");
            return None;
        }
        let layout = Layout::probe().unwrap();
        if layout.v1.is_empty() && layout.v2.is_none() {
            eprintln!("skipped: the host has no cgroups");
            return None;
        }
        Some(Self { layout, name: format!("/tare-unit-{}-{test}", std::process::id()) })
    }

    fn plan(&self, json: serde_json::Value) -> Plan {
        let resources: Resources = serde_json::from_value(json).unwrap();
        plan(Manager::Cgroupfs, &format!("{}/ctr", self.name), "id", &resources, &self.layout).unwrap()
    }

    fn gone(&self, plan: &Plan) -> bool {
        let location = &plan.location;
        location.v1.iter().map(|(_, dir)| dir).chain(&location.v2).all(|dir| !dir.exists())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for hierarchy in self.layout.v1.iter().chain(&self.layout.v2) {
            let dir = hierarchy.mount.join(self.name.trim_start_matches('/'));
            drop(Dir::new(dir).remove(&mut || false));
        }
    }
}

fn sleeper() -> Child {
    Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap()
}

#[test]
fn limits_devices_members_and_removal() {
    let Some(scratch) = Scratch::new("life") else { return };
    let on_v1 = |name: &str| scratch.layout.v1.iter().any(|had| v1::lists(&had.controllers, name));
    let limits = if on_v1("memory") {
        serde_json::json!({"memory": {"limit": 67_108_864, "swap": 67_108_864}, "cpu": {"shares": 512, "quota": 50000}})
    } else {
        serde_json::json!({})
    };
    let plan = scratch.plan(limits);
    let mut cgroup = create_boxed(&plan).unwrap();
    let Location { claim: Claim::Taken(_), .. } = cgroup.location() else { panic!("{:?}", cgroup.location()) };
    assert_eq!(Location { claim: Claim::Planned, ..cgroup.location() }, plan.location);
    // What is only planned may be anybody's.
    let planned = open(&plan.location);
    let read = |controller: &str, file: &str| {
        let (_, dir) = plan.location.v1.iter().find(|(had, _)| v1::lists(had, controller)).unwrap();
        Dir::new(dir.clone()).read(file).unwrap().trim_end().to_owned()
    };
    if on_v1("memory") {
        assert_eq!(read("memory", "memory.limit_in_bytes"), "67108864");
        assert_eq!(read("cpu", "cpu.shares"), "512");
        assert_ne!(read("cpuset", "cpuset.cpus"), "");
        assert!(read("devices", "devices.list").starts_with("c *:* m\nb *:* m\nc 1:3 rwm\n"));
    }
    let mut child = sleeper();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    cgroup.add_all(pid).unwrap();
    assert_eq!((cgroup.pids().unwrap(), planned.pids().unwrap()), (vec![pid], vec![]));
    planned.kill().unwrap();
    assert!(!cgroup.frozen().unwrap());
    assert_eq!(cgroup.out_of_memory(), None);
    let busy = format!("{:#}", create_boxed(&plan).unwrap_err());
    assert!(busy.contains("container's cgroup is not empty: 1 process(es) found"), "{busy}");
    cgroup.kill().unwrap();
    child.wait().unwrap();
    cgroup.remove(Removal::Later).unwrap();
    assert!(scratch.gone(&plan));
    cgroup.remove(Removal::Later).unwrap();
}

/// A shell that waits for a line before it does `script`.
fn shell(script: &str) -> Child {
    let script = format!("read go; {script}");
    Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn device_rules_are_enforced() {
    let Some(scratch) = Scratch::new("devices") else { return };
    for json in [
        serde_json::json!({"devices": [{"allow": false, "access": "rwm"}]}),
        // v1 can't say this one; on a hybrid host v2 does.
        serde_json::json!({"devices": [
            {"allow": true, "type": "c", "major": 1, "access": "rwm"},
            {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rw"}
        ]}),
    ] {
        let plan = scratch.plan(json);
        let mut cgroup = create_boxed(&plan).unwrap();
        let programs = usize::from(plan.v2.as_ref().is_some_and(|leaf| leaf.program.is_some()));
        if let Some(fd) = cgroup.clone_fd() {
            assert_eq!(sys::bpf::device_programs(fd).unwrap().len(), programs);
        }
        let mut child = shell(": </dev/null >/dev/full && ! (: </dev/kmsg)");
        cgroup.add_all(Pid::from_raw(i32::try_from(child.id()).unwrap())).unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"go\n").unwrap();
        assert!(child.wait().unwrap().success());
        cgroup.remove(Removal::Later).unwrap();
    }
}

#[test]
fn frozen_processes_and_cgroups_below_are_killed_and_removed() {
    let Some(scratch) = Scratch::new("frozen") else { return };
    let plan = scratch.plan(serde_json::json!({}));
    let freezer = plan.location.v1.iter().find(|(had, _)| v1::lists(had, "freezer")).map(|(_, dir)| dir);
    // One by one is the way of v1 alone and of kernels without cgroup.kill.
    for one_by_one in [true, false] {
        let mut cgroup = create_boxed(&plan).unwrap();
        let mut child = sleeper();
        cgroup.add_all(Pid::from_raw(i32::try_from(child.id()).unwrap())).unwrap();
        for dir in plan.location.v1.iter().map(|(_, dir)| dir).chain(&plan.location.v2) {
            make(&dir.join("below/deeper"), &mut Vec::new()).unwrap();
        }
        if let Some(dir) = freezer {
            Dir::new(dir.clone()).write("freezer.state", "FROZEN").unwrap();
        } else if let Some(dir) = &plan.location.v2 {
            Dir::new(dir.clone()).write("cgroup.freeze", "1").unwrap();
        }
        assert!(cgroup.frozen().unwrap());
        let group = open(&cgroup.location());
        if one_by_one {
            v1::kill(group.main().unwrap(), || group.thaw_tree(), &mut BackOff::new(KILL_LIMIT)).unwrap();
        } else {
            group.kill().unwrap();
        }
        child.wait().unwrap();
        cgroup.remove(Removal::Later).unwrap();
        assert!(scratch.gone(&plan));
    }
}

#[test]
fn a_frozen_leaf_is_refused() {
    let Some(scratch) = Scratch::new("cold") else { return };
    let plan = scratch.plan(serde_json::json!({}));
    let mut cgroup = create_boxed(&plan).unwrap();
    let (dir, file, state) = match plan.location.v1.iter().find(|(had, _)| v1::lists(had, "freezer")) {
        Some((_, dir)) => (dir, "freezer.state", "FROZEN"),
        None => (plan.location.v2.as_ref().unwrap(), "cgroup.freeze", "1"),
    };
    Dir::new(dir.clone()).write(file, state).unwrap();
    let error = format!("{:#}", create_boxed(&plan).unwrap_err());
    assert!(error.contains("container's cgroup is unexpectedly frozen"), "{error}");
    cgroup.remove(Removal::Later).unwrap();
}

/// On the usual test host v2 has the hugetlb controller and no other.
#[test]
fn controllers_are_handed_down_on_v2() {
    let Some(scratch) = Scratch::new("hand") else { return };
    let Some(v2) = &scratch.layout.v2 else {
        eprintln!("skipped: no cgroup v2");
        return;
    };
    let offered = Dir::new(v2.mount.clone()).read("cgroup.controllers").unwrap();
    if !offered.contains("hugetlb") || !Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists() {
        eprintln!("skipped: cgroup v2 has no hugetlb controller here");
        return;
    }
    let plan = scratch.plan(serde_json::json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}));
    let mut cgroup = create_boxed(&plan).unwrap();
    let leaf = Dir::new(plan.location.v2.clone().unwrap());
    assert_eq!(leaf.read("hugetlb.2MB.max").unwrap(), "4194304\n");
    assert_eq!(leaf.read("hugetlb.2MB.rsvd.max").unwrap(), "4194304\n");
    cgroup.remove(Removal::Later).unwrap();

    // A parent with a process of its own can't hand it down.
    let parent = Dir::new(leaf.path().parent().unwrap().to_owned());
    std::fs::create_dir_all(parent.path()).unwrap();
    parent.write("cgroup.subtree_control", "-hugetlb").unwrap();
    let mut child = sleeper();
    parent.add(Pid::from_raw(i32::try_from(child.id()).unwrap())).unwrap();
    let error = format!("{:#}", create_boxed(&plan).unwrap_err());
    assert!(error.contains("/linux/resources/hugepageLimits/0: cgroup controller \"hugetlb\""), "{error}");
    assert!(error.contains("has processes of its own"), "{error}");
    assert!(scratch.gone(&plan));
    child.kill().unwrap();
    child.wait().unwrap();

    if !offered.contains("memory") && !scratch.layout.v1.iter().any(|had| had.controllers == "memory") {
        let plan = scratch.plan(serde_json::json!({"memory": {"limit": 1_000_000}}));
        let error = format!("{:#}", create_boxed(&plan).unwrap_err());
        assert!(
            error.contains("/linux/resources/memory/limit: cgroup controller \"memory\" is not available"),
            "{error}"
        );
        assert!(scratch.gone(&plan));
    }
}

#[test]
fn a_failure_leaves_nothing() {
    let Some(scratch) = Scratch::new("fail") else { return };
    let plan = scratch.plan(serde_json::json!({"cpu": {"cpus": "4000"}}));
    let error = format!("{:#}", create_boxed(&plan).unwrap_err());
    assert!(error.contains("/linux/resources/cpu/cpus"), "{error}");
    assert!(scratch.gone(&plan));
}
