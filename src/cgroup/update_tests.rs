use serde_json::json;

use super::*;
use crate::cgroup::Manager;

fn resources(json: serde_json::Value) -> Resources {
    serde_json::from_value(json).unwrap()
}

fn location(v1: &[&str], v2: bool) -> Location {
    Location {
        manager: Manager::Cgroupfs,
        v1: v1.iter().map(|name| ((*name).to_owned(), format!("/cg/{name}/c").into())).collect(),
        v2: v2.then(|| "/cg/unified/c".into()),
        claim: crate::cgroup::Claim::Unknown,
        unit: None,
    }
}

fn change(location: &Location, old: serde_json::Value, new: serde_json::Value, asked: &[&str]) -> Change {
    let [old, new] = [resources(old), resources(new)];
    let asked = |property: &str| asked.contains(&property);
    plan(location, &Layout::default(), [&old, &new], asked, BelowUsage::Refuse).unwrap()
}

fn text(knobs: &[Knob]) -> String {
    knobs.iter().map(|knob| format!("{}={}", knob.file, knob.value)).collect::<Vec<_>>().join("; ")
}

fn v2_text(old: serde_json::Value, new: serde_json::Value, asked: &[&str]) -> String {
    text(&change(&location(&[], true), old, new, asked).v2.unwrap().knobs)
}

#[test]
fn only_what_differs_or_was_asked_for_is_written() {
    let old = json!({"memory": {"limit": 100, "swap": 300}, "pids": {"limit": 5}, "cpu": {"quota": 7, "period": 9}});
    assert_eq!(v2_text(old.clone(), old.clone(), &[]), "");
    assert_eq!(v2_text(old.clone(), old.clone(), &["pids/limit"]), "pids.max=5");
    // Memory alone changes swap too, because config.json counts both together.
    let more = json!({"memory": {"limit": 200, "swap": 300}, "pids": {"limit": 5}, "cpu": {"quota": 7, "period": 9}});
    assert_eq!(v2_text(old.clone(), more, &["memory/limit"]), "memory.swap.max=100; memory.max=200");
    let slower = json!({"memory": {"limit": 100, "swap": 300}, "pids": {"limit": 5}, "cpu": {"quota": 8, "period": 9}});
    assert_eq!(v2_text(old, slower, &["cpu/quota"]), "cpu.max=8 9");
}

#[test]
fn each_controller_in_its_own_hierarchy() {
    let new = json!({"memory": {"limit": 100}, "pids": {"limit": 5}, "unified": {"memory.high": "9"}});
    let change = change(&location(&["memory", "cpu,cpuacct"], true), json!({}), new, &[]);
    let v1: Vec<String> = change.v1.iter().map(|(leaf, _)| text(&leaf.knobs)).collect();
    assert_eq!(v1, ["memory.limit_in_bytes=100", ""]);
    assert_eq!(text(&change.v2.unwrap().knobs), "pids.max=5; memory.high=9");
}

#[test]
fn what_no_hierarchy_has_is_refused() {
    let new = resources(json!({"pids": {"limit": 5}}));
    let none =
        plan(&location(&[], false), &Layout::default(), [&Resources::default(), &new], |_| true, BelowUsage::Allow);
    assert!(none.unwrap_err().to_string().contains("no cgroup of its own"));
    let old = Resources::default();
    let missing = plan(&location(&["memory"], false), &Layout::default(), [&old, &new], |_| true, BelowUsage::Allow);
    let error = missing.unwrap_err().to_string();
    assert!(error.contains("/linux/resources/pids/limit: cgroup controller \"pids\" is not available"), "{error}");
}

fn writes(change: &Change) -> Vec<String> {
    change.v1.iter().flat_map(|(_, writes)| writes).map(|write| format!("{} {}", write.file, write.rule)).collect()
}

/// Deny all, then these.
fn list(rules: &[(&str, i64, i64, &str)]) -> serde_json::Value {
    let mut all = vec![json!({"allow": false, "access": "rwm"})];
    all.extend(rules.iter().map(|(kind, major, minor, access)| {
        json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": access})
    }));
    json!({ "devices": all })
}

#[test]
fn devices_of_v1_change_by_their_difference() {
    let place = location(&["devices"], true);
    let old = list(&[("c", 10, 229, "rwm"), ("b", 7, 0, "rw")]);
    let new = list(&[("b", 7, 0, "r"), ("c", 10, 200, "rwm"), ("c", 4, 64, "r")]);
    let change = change(&place, old.clone(), new, &[]);
    // What is new before what goes: nothing that both allow is forbidden for a moment. 10:200 is allowed anyway.
    assert_eq!(writes(&change), ["devices.allow c 4:64 r", "devices.deny c 10:229 rwm", "devices.deny b 7:0 w"]);
    assert_eq!(change.program, None);
    let same = super::tests::change(&place, old.clone(), old, &[]);
    assert!(writes(&same).is_empty() && same.program.is_none());
}

#[test]
fn devices_of_v2_are_one_program_for_another() {
    let place = location(&[], true);
    let (old, new) = (list(&[("c", 10, 229, "rwm")]), list(&[]));
    let rules = devices::rules(&resources(new.clone()).devices).unwrap();
    assert_eq!(change(&place, old.clone(), new.clone(), &[]).program, Some(devices::v2(&rules)));
    assert_eq!(change(&place, old.clone(), old, &[]).program, None);
    let all = json!({"devices": [{"allow": true, "access": "rwm"}]});
    assert_eq!(change(&place, new, all, &[]).program, Some(None));
}

#[test]
fn what_v1_cannot_say_goes_to_v2_and_back() {
    let place = location(&["devices"], true);
    let plain = list(&[]);
    let hole = json!({"devices": [
        {"allow": true, "type": "c", "major": 7, "access": "rwm"},
        {"allow": false, "type": "c", "major": 7, "minor": 1, "access": "rw"}
    ]});
    let there = change(&place, plain.clone(), hole.clone(), &[]);
    assert!(matches!(there.program, Some(Some(_))));
    assert_eq!(writes(&there), ["devices.allow a"]);
    let back = change(&place, hole, plain, &[]);
    assert_eq!(back.program, Some(None));
    assert_eq!(writes(&back)[0], "devices.deny a");
}

#[test]
fn v1_never_allows_everything_on_the_way() {
    let most = resources(json!({"devices": [
        {"allow": true, "access": "rwm"}, {"allow": false, "type": "b", "major": 8, "access": "w"}
    ]}));
    let old = resources(list(&[]));
    let place = location(&["devices"], false);
    let error = plan(&place, &Layout::default(), [&old, &most], |_| true, BelowUsage::Refuse).unwrap_err().to_string();
    assert!(error.contains("/linux/resources/devices: ") && error.contains("everything is allowed"), "{error}");
}

#[test]
fn old_values_are_what_the_files_hold() {
    let base = tempfile::tempdir().unwrap();
    let dir = Dir::new(base.path().to_owned());
    for (file, text) in [
        ("memory.max", "max\n"),
        ("cpu.max", "5000 100000\n"),
        ("io.max", "8:0 rbps=1 wbps=max riops=max wiops=max\n8:16 rbps=5\n"),
        ("io.weight", "default 100\n8:0 50\n"),
        ("blkio.throttle.read_bps_device", ""),
        ("net_prio.ifpriomap", "lo 0\neth0 7\n"),
    ] {
        std::fs::write(base.path().join(file), text).unwrap();
    }
    let old = |file: &str, value: &str, missing: Missing| {
        let knob =
            Knob { controller: "x".into(), file: file.into(), value: value.into(), property: "x".into(), missing };
        present(&dir, &knob).map(|knob| format!("{}={}", knob.file, knob.value))
    };
    let fail = |file, value| old(file, value, Missing::Fail).unwrap();
    assert_eq!(fail("memory.max", "5"), "memory.max=max");
    assert_eq!(fail("cpu.max", "max 7"), "cpu.max=5000 100000");
    assert_eq!(fail("io.max", "8:16 rbps=9"), "io.max=8:16 rbps=5");
    assert_eq!(fail("io.max", "8:32 rbps=9"), "io.max=8:32 rbps=max wbps=max riops=max wiops=max");
    assert_eq!(fail("blkio.throttle.read_bps_device", "8:0 9"), "blkio.throttle.read_bps_device=8:0 0");
    assert_eq!(fail("net_prio.ifpriomap", "eth0 1"), "net_prio.ifpriomap=eth0 7");
    assert_eq!(old("none", "1", Missing::Skip), None);
    let instead = Missing::Instead { file: "io.weight", value: "8:0 7".into() };
    assert_eq!(old("io.bfq.weight", "8:0 7", instead).unwrap(), "io.weight=8:0 50");
}
