//! `list`: the table, JSON and ids.

use serde_json::Value;

use crate::common::assert_has;
use crate::container_test;

container_test!(an_empty_root_has_an_empty_list, |c| {
    let json = c.tare(&["list", "--format", "json"]).ok().json();
    assert!(json.is_null() || json.as_array().is_some_and(Vec::is_empty), "{json}");
    assert_eq!(c.tare(&["list", "--quiet"]).ok().stdout, "");
    let table = c.tare(&["list"]).ok().stdout;
    assert_eq!(table.split_whitespace().collect::<Vec<_>>(), ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
});

container_test!(the_table_has_a_row_a_container, |c| {
    c.create().ok();
    let table = c.tare(&["list"]).ok().stdout;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 2, "{table}");
    let state = c.state();
    let pid = state["pid"].to_string();
    let bundle = c.bundle();
    let expected = [&c.id, &pid, "created", bundle.to_str().unwrap(), state["created"].as_str().unwrap(), "root"];
    assert_eq!(rows[1], expected);
});

container_test!(json_has_the_state_of_each, |c| {
    c.create().ok();
    let second = format!("{}-b", c.id);
    c.set("/linux/cgroupsPath", format!("{}/b", c.cgroup));
    c.write_config();
    c.tare(&["create", &second]).ok();
    let json = c.tare(&["list", "-f", "json"]).ok().json();
    let list = json.as_array().unwrap();
    assert_eq!(list.len(), 2, "{json}");
    let find = |id: &str| list.iter().find(|item| item["id"] == id).unwrap();
    let mut state = c.state();
    state["owner"] = "root".into();
    assert_eq!(*find(&c.id), state);
    assert_eq!(find(&second)["status"], "created");
    c.tare(&["delete", "--force", &second]).ok();
});

container_test!(quiet_has_ids_only, |c| {
    c.create().ok();
    for flag in ["--quiet", "-q"] {
        assert_eq!(c.tare(&["list", flag]).ok().stdout, format!("{}\n", c.id));
    }
});

container_test!(a_stopped_container_has_pid_0, |c| {
    c.detach().ok();
    c.wait_status("stopped");
    let json = c.tare(&["list", "--format=json"]).ok().json();
    assert_eq!((&json[0]["status"], &json[0]["pid"]), (&Value::from("stopped"), &Value::from(0)));
});

container_test!(something_else_in_the_root_does_not_break_it, |c| {
    c.create().ok();
    std::fs::create_dir(c.path("state/empty")).unwrap();
    std::fs::write(c.path("state/file"), "").unwrap();
    assert_has(c.tare(&["list"]).ok().stdout, &c.id);
    std::fs::remove_dir(c.path("state/empty")).unwrap();
    std::fs::remove_file(c.path("state/file")).unwrap();
});

container_test!(an_unknown_format_is_an_error, |c| {
    let output = c.tare(&["list", "--format", "yaml"]).exits(1);
    assert_has(output.stderr, "format");
});
