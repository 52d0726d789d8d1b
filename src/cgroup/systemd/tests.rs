use super::*;
use crate::cgroup::{Hierarchy, Manager as Kind};

fn hierarchy(controllers: &str, mount: &str) -> Hierarchy {
    Hierarchy { controllers: controllers.into(), mount: mount.into(), own: "/own".into() }
}

fn layout(v1: &[&str], v2: bool) -> Layout {
    Layout {
        v1: v1.iter().map(|name| hierarchy(name, &format!("/cg/{name}"))).collect(),
        v2: v2.then(|| hierarchy("", "/cg/unified")),
    }
}

fn planned(user: Option<u32>, annotations: &[(&str, &str)], layout: &Layout) -> Result<super::super::Plan> {
    let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let asked = Asked { cgroups_path: "a-b.slice:p:n", id: "id", annotations: &annotations, user };
    let resources = serde_json::json!({
        "pids": {"limit": 5}, "devices": [{"allow": true, "type": "c", "major": 195, "access": "rw"}]
    });
    plan(asked, &serde_json::from_value(resources).unwrap(), layout)
}

fn properties_of(plan: &super::super::Plan) -> Vec<String> {
    plan.unit.as_ref().unwrap().properties.iter().map(|(name, value)| format!("{name}={value:?}")).collect()
}

#[test]
fn a_system_unit() {
    let plan = planned(None, &[], &layout(&[], true)).unwrap();
    let unit =
        Unit { name: "p-n.scope".into(), bus: Bus::System, user: None, expected: Some("tare container id".into()) };
    let v2 = Some("/cg/unified/a.slice/a-b.slice/p-n.scope".into());
    assert_eq!(
        plan.location,
        Location { manager: Kind::Systemd, v1: vec![], v2, claim: crate::cgroup::Claim::Planned, unit: Some(unit) }
    );
    assert!(!plan.optional);
    let properties = properties_of(&plan);
    assert!(properties.contains(&"TasksMax=U64(5)".to_owned()), "{properties:?}");
    assert!(properties.contains(&"Slice=Str(\"a-b.slice\")".to_owned()), "{properties:?}");
    // The rules are ours alone.
    assert!(!properties.iter().any(|property| property.starts_with("Device")), "{properties:?}");
    assert!(plan.v2.unwrap().program.is_some());
}

#[test]
fn a_user_unit_is_below_his_manager() {
    let plan = planned(Some(1000), &[], &layout(&[], true)).unwrap();
    let below = "/cg/unified/user.slice/user-1000.slice/user@1000.service/a.slice/a-b.slice/p-n.scope";
    assert_eq!(plan.location.v2.as_deref(), Some(Path::new(below)));
    assert_eq!(plan.location.unit.unwrap().bus, Bus::User);
    assert_eq!(plan.v2.unwrap().program, None);
}

#[test]
fn on_a_hybrid_host_rules_are_where_systemd_leaves_them() {
    let plan = planned(None, &[], &layout(&["devices", "pids"], true)).unwrap();
    assert!(plan.v1.iter().all(|leaf| leaf.devices.is_empty()));
    assert!(plan.v2.as_ref().unwrap().program.is_some());
    assert_eq!(plan.location.v1[1].1, Path::new("/cg/pids/a.slice/a-b.slice/p-n.scope"));
    assert!(properties_of(&plan).contains(&"TasksMax=U64(5)".to_owned()));
    let error = planned(None, &[], &layout(&["devices", "pids"], false)).unwrap_err().to_string();
    assert!(error.starts_with("the systemd cgroup driver needs cgroup v2"), "{error}");
}

#[test]
fn annotations_have_the_last_word() {
    let annotations =
        [("org.systemd.property.DefaultDependencies", "true"), ("org.systemd.property.TimeoutStopSec", "3")];
    let properties = properties_of(&planned(None, &annotations, &layout(&[], true)).unwrap());
    assert!(properties.contains(&"DefaultDependencies=Bool(true)".to_owned()), "{properties:?}");
    assert!(properties.contains(&"TimeoutStopUSec=U64(3000000)".to_owned()), "{properties:?}");
    assert_eq!(properties.iter().filter(|property| property.starts_with("DefaultDependencies")).count(), 1);
}

#[test]
fn annotations_that_collide() {
    // The limit in config.json is 5: the same word twice is no collision.
    planned(None, &[("org.systemd.property.TasksMax", "uint64 5")], &layout(&[], true)).unwrap();
    for (name, value) in
        [("TasksMax", "uint64 9"), ("PIDs", "[uint32 1]"), ("Slice", "'b.slice'"), ("Delegate", "false")]
    {
        let annotations = [(format!("org.systemd.property.{name}"), value)];
        let annotations: Vec<(&str, &str)> = annotations.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let error = planned(None, &annotations, &layout(&[], true)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("config.json: /annotations/org.systemd.property.{name}: ")), "{error}");
    }
    let both = [("org.systemd.property.TimeoutStopSec", "3"), ("org.systemd.property.TimeoutStopUSec", "uint64 3")];
    let error = planned(None, &both, &layout(&[], true)).unwrap_err().to_string();
    assert!(error.contains("TimeoutStopUSec is given as well"), "{error}");
}

#[test]
fn the_state_tells_what_to_stop() {
    let unit = Unit { name: "p-n.scope".into(), bus: Bus::User, user: None, expected: None };
    let json = serde_json::to_value(&unit).unwrap();
    assert_eq!(json, serde_json::json!({"name": "p-n.scope", "bus": "user"}));
    // States of before know no unit.
    let old: Location = serde_json::from_str(r#"{"manager":"cgroupfs","v1":[],"v2":null}"#).unwrap();
    assert_eq!(old.unit, None);
}
