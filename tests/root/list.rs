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

/// A command that may have no more than so many descriptors.
fn with_few_descriptors(c: &crate::common::Container, most: u32, words: &[&str]) -> crate::common::Output {
    let limit = format!("ulimit -n {most} && exec \"$@\"");
    crate::common::program::finish(&mut c.command_by(&["sh", "-c", &limit, "sh"], words), &c.dir)
}

container_test!(more_containers_than_descriptors_are_listed_and_deleted, |c| {
    crate::skip_for_runc!(c, "it has another record");
    c.detach().ok();
    c.wait_status("stopped");
    let own = c.path("state").join(&c.id);
    let copies = 60;
    for number in 0..copies {
        let copy = c.path("state").join(format!("copy{number}"));
        std::fs::create_dir(&copy).unwrap();
        for file in ["state.json", "config.json"] {
            std::fs::copy(own.join(file), copy.join(file)).unwrap();
        }
    }
    let listed = with_few_descriptors(c, 40, &["list", "--quiet"]).ok();
    assert_eq!((listed.stdout.lines().count(), listed.stderr.as_str()), (copies + 1, ""));
    with_few_descriptors(c, 40, &["delete", "--regex", "copy.*"]).ok();
    assert_eq!(c.tare(&["list", "--quiet"]).ok().stdout.lines().count(), 1);
});

container_test!(an_id_is_free_again_where_descriptors_ran_out, |c| {
    c.write_config();
    for most in 3..12 {
        let output = with_few_descriptors(c, most, &["create", &c.id]);
        assert!(!output.stderr.contains("internal error"), "{most}: {output}");
        if output.code == 0 {
            c.delete_force().ok();
        }
        assert!(!c.path("state").join(&c.id).exists(), "{most}: {output}");
    }
});

container_test!(the_table_holds_no_control_characters, |c| {
    crate::skip_for_runc!(c, "it has another record");
    c.detach().ok();
    c.wait_status("stopped");
    let state = c.path("state").join(&c.id).join("state.json");
    let text = std::fs::read_to_string(&state).unwrap();
    let mut record: Value = serde_json::from_str(&text).unwrap();
    record["bundle"] = Value::from("/a\u{1b}[2Jb\nc");
    std::fs::write(&state, record.to_string()).unwrap();
    let table = c.tare(&["list"]).ok().stdout;
    assert_has(&table, "/a?[2Jb?c");
});
