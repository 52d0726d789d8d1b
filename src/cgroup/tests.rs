use super::*;

fn resources(json: serde_json::Value) -> Resources {
    serde_json::from_value(json).unwrap()
}

fn hierarchy(controllers: &str, mount: &str) -> Hierarchy {
    Hierarchy { controllers: controllers.into(), mount: mount.into(), own: "/own".into() }
}

/// memory, devices and cpu on v1; v2 beside them.
fn hybrid() -> Layout {
    let v1 = ["memory", "devices", "cpu,cpuacct", "blkio"];
    Layout {
        v1: v1.iter().map(|name| hierarchy(name, &format!("/cg/{name}"))).collect(),
        v2: Some(hierarchy("", "/cg/unified")),
    }
}

fn only_v1() -> Layout {
    Layout { v2: None, ..hybrid() }
}

fn only_v2() -> Layout {
    Layout { v1: vec![], v2: Some(hierarchy("", "/cg")) }
}

fn error(json: serde_json::Value, layout: &Layout, manager: Manager) -> String {
    plan(manager, "", "id", &resources(json), layout).unwrap_err().to_string()
}

#[test]
fn every_hierarchy_gets_a_leaf() {
    let plan = plan(Manager::Cgroupfs, "/pod/ctr", "id", &Resources::default(), &hybrid()).unwrap();
    let dirs: Vec<&str> = plan.location.v1.iter().map(|(_, dir)| dir.to_str().unwrap()).collect();
    assert_eq!(dirs, ["/cg/memory/pod/ctr", "/cg/devices/pod/ctr", "/cg/cpu,cpuacct/pod/ctr", "/cg/blkio/pod/ctr"]);
    assert_eq!(plan.location.v2.as_deref(), Some(Path::new("/cg/unified/pod/ctr")));
    assert!(!plan.optional);
}

#[test]
fn a_limit_goes_where_its_controller_is() {
    let all = resources(serde_json::json!({
        "memory": {"limit": 10}, "pids": {"limit": 5}, "cpu": {"shares": 4}, "blockIO": {"weight": 10},
        "unified": {"memory.high": "9"}
    }));
    let mixed = plan(Manager::Cgroupfs, "", "id", &all, &hybrid()).unwrap();
    let files = |knobs: &[Knob]| knobs.iter().map(|knob| knob.file.clone()).collect::<Vec<_>>().join(" ");
    assert_eq!(files(&mixed.v1[0].knobs), "memory.limit_in_bytes");
    assert_eq!(files(&mixed.v1[2].knobs), "cpu.shares");
    assert_eq!(files(&mixed.v1[3].knobs), "blkio.weight");
    assert_eq!(files(&mixed.v2.unwrap().knobs), "pids.max memory.high");
    let pure = plan(Manager::Cgroupfs, "", "id", &all, &only_v2()).unwrap();
    assert_eq!(files(&pure.v2.unwrap().knobs), "pids.max memory.max io.bfq.weight cpu.weight memory.high");
}

#[test]
fn optional_only_without_limits_and_path() {
    let none = Resources::default();
    let unlimited = resources(serde_json::json!({"memory": {"limit": -1}, "pids": {"limit": -1}}));
    let limited = resources(serde_json::json!({"memory": {"limit": 1}}));
    let optional = |path, resources| plan(Manager::Cgroupfs, path, "id", resources, &only_v2()).unwrap().optional;
    assert!(optional("", &none) && optional("", &unlimited));
    assert!(!optional("/x", &none) && !optional("", &limited));
}

#[test]
fn a_limit_without_its_controller_is_refused() {
    let pids = serde_json::json!({"pids": {"limit": 5}});
    assert_eq!(
        error(pids.clone(), &only_v1(), Manager::Cgroupfs),
        "config.json: /linux/resources/pids/limit: cgroup controller \"pids\" is not available: it isn't mounted, \
         this host has v1 hierarchies for memory, devices, cpu,cpuacct, blkio only"
    );
    assert_eq!(
        error(pids.clone(), &Layout::default(), Manager::Cgroupfs),
        "config.json: /linux/resources/pids/limit: cgroup controller \"pids\" is not available: \
         no cgroup file system is mounted at /sys/fs/cgroup or elsewhere"
    );
    assert_eq!(
        error(pids, &hybrid(), Manager::Disabled),
        "config.json: /linux/resources/pids/limit: a limit, but cgroups are disabled (--cgroup-manager=disabled)"
    );
    assert!(
        error(serde_json::json!({"unified": {"memory.high": "1"}}), &only_v1(), Manager::Cgroupfs)
            .contains("/linux/resources/unified/memory.high: cgroup controller \"memory\" is not available: cgroup v2")
    );
}

#[test]
fn no_limits_need_no_cgroups() {
    let engine = resources(serde_json::json!({
        "devices": [{"allow": false, "access": "rwm"}], "memory": {"limit": -1}, "pids": {"limit": 0 - 1}
    }));
    for (manager, layout) in [(Manager::Cgroupfs, Layout::default()), (Manager::Disabled, hybrid())] {
        let plan = plan(manager, "/x", "id", &engine, &layout).unwrap();
        assert_eq!(
            plan.location,
            Location { manager, v1: vec![], v2: None, claim: crate::cgroup::Claim::Planned, unit: None }
        );
        let mut cgroup = create(&plan).unwrap();
        assert!(cgroup.clone_fd().is_none() && cgroup.pids().unwrap().is_empty());
        cgroup.add_all(Pid::this()).unwrap();
        cgroup.kill().unwrap();
        cgroup.remove(Removal::Later).unwrap();
    }
}

#[test]
fn device_rules_go_to_one_place() {
    let plain = resources(serde_json::json!({"devices": [{"allow": false, "access": "rwm"}]}));
    let mixed = plan(Manager::Cgroupfs, "", "id", &plain, &hybrid()).unwrap();
    assert_eq!(mixed.v1[1].devices.len(), 12);
    assert_eq!(mixed.v2.unwrap().program, None);
    let hole = resources(serde_json::json!({"devices": [
        {"allow": true, "type": "c", "major": 7, "access": "rwm"},
        {"allow": false, "type": "c", "major": 7, "minor": 1, "access": "rw"}
    ]}));
    let mixed = plan(Manager::Cgroupfs, "", "id", &hole, &hybrid()).unwrap();
    assert!(mixed.v1[1].devices.is_empty() && mixed.v2.unwrap().program.is_some());
    assert!(plan(Manager::Cgroupfs, "", "id", &hole, &only_v1()).is_err());
    let mut none = only_v1();
    none.v1.remove(1);
    let text = plan(Manager::Cgroupfs, "", "id", &plain, &none).unwrap_err().to_string();
    assert!(text.starts_with("config.json: /linux/resources/devices: neither"), "{text}");
}
