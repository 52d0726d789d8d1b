//! A record that can't be read: an empty file after a power cut, half a file, somebody's edit.

use std::fs;

use serde_json::json;

use crate::common::{Container, assert_has, eventually, host};
use crate::{container_test, skip_for_runc};

/// What may be found in the place of a record.
const BROKEN: [&str; 4] = ["", "\0\0\0\0", "{\"version\":1", "[]"];

fn record(c: &Container) -> std::path::PathBuf {
    c.path("state").join(&c.id).join("state.json")
}

fn own(c: &Container) -> String {
    format!("{}/{}", c.cgroup, c.id)
}

container_test!(force_removes_what_has_a_broken_record, |c| {
    skip_for_runc!(c, "it leaves the processes");
    c.args(&["fork-tree", "3"]);
    for namespace in ["of its own", "the host's"] {
        for broken in BROKEN {
            c.detach().ok();
            eventually("all processes", || host::cgroup_pids(&own(c)).len() == 4);
            fs::write(record(c), broken).unwrap();
            c.delete().exits(1);
            let output = c.delete_force().ok();
            assert_has(&output.stderr, "state.json");
            assert!(host::cgroup_pids(&own(c)).is_empty(), "{broken:?}, pid namespace {namespace}");
            c.assert_clean();
            c.delete_force().ok();
        }
        if namespace == "of its own" {
            c.remove("/linux/namespaces/0");
        }
    }
});

container_test!(force_removes_what_was_created_or_stopped_or_updated, |c| {
    skip_for_runc!(c, "it leaves the processes");
    c.args(&["sleep-forever"]);
    c.create().ok();
    fs::write(record(c), "").unwrap();
    c.delete_force().ok();
    c.assert_clean();
    c.detach().ok();
    c.tare(&["update", "--pids-limit", "50", &c.id]).ok();
    fs::write(record(c), "").unwrap();
    c.delete_force().ok();
    c.assert_clean();
    c.detach().ok();
    c.kill(&["KILL"]).ok();
    c.wait_status("stopped");
    fs::write(record(c), "").unwrap();
    c.delete_force().ok();
    c.assert_clean();
});

container_test!(without_a_configuration_its_folder_goes, |c| {
    c.args(&["true"]);
    c.create().ok();
    let pid = c.pid();
    for file in ["state.json", "config.json"] {
        fs::write(c.path("state").join(&c.id).join(file), "").unwrap();
    }
    assert_has(c.delete_force().ok().stderr, "are left");
    assert!(!c.path("state").join(&c.id).exists());
    host::kill(pid);
    host::remove_cgroup(&c.cgroup);
});

container_test!(what_may_be_another_containers_stays, |c| {
    skip_for_runc!(c, "it has no such record");
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let pid = c.pid();
    // Another one below the same root that names this cgroup.
    let other = c.path("state").join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("state.json"), "").unwrap();
    fs::copy(c.path("state").join(&c.id).join("config.json"), other.join("config.json")).unwrap();
    assert_has(c.tare(&["delete", "--force", "other"]).ok().stderr, "has the same");
    assert_eq!(host::process_state(pid), Some('S'));
    assert!(!other.exists());
    // One whose configuration is older than the process: another root's container is in that cgroup.
    let root = c.path("elsewhere");
    let entry = root.join(&c.id);
    fs::create_dir_all(&entry).unwrap();
    fs::write(entry.join("state.json"), "").unwrap();
    fs::copy(c.path("state").join(&c.id).join("config.json"), entry.join("config.json")).unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    fs::File::options().write(true).open(entry.join("config.json")).unwrap().set_modified(old).unwrap();
    let mut command = std::process::Command::new(crate::common::tare());
    command.arg("--root").arg(&root).args(["delete", "--force", &c.id]);
    let output = crate::common::program::finish(&mut command, &c.dir).exits(1);
    assert_has(&output.stderr, "another time");
    // As long as nobody knows whose they are, what tells of them stays.
    assert!(entry.exists());
    assert_eq!((host::process_state(pid), c.status().as_str()), (Some('S'), "running"));
});

container_test!(a_newer_record_is_left_alone, |c| {
    skip_for_runc!(c, "it has another record");
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let before = fs::read(record(c)).unwrap();
    fs::write(record(c), json!({ "version": 1000 }).to_string()).unwrap();
    assert_eq!(c.delete_force().code, 1);
    fs::write(record(c), before).unwrap();
    c.delete_force().ok();
});

container_test!(what_another_container_that_can_not_be_read_may_have_stays, |c| {
    skip_for_runc!(c, "it has no such record");
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let pid = c.pid();
    let kept = fs::read(record(c)).unwrap();
    let other = c.path("state").join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("state.json"), "").unwrap();
    fs::copy(c.path("state").join(&c.id).join("config.json"), other.join("config.json")).unwrap();
    // Neither has a record by now: the configuration of each names the cgroup.
    fs::write(record(c), "").unwrap();
    assert_has(c.tare(&["delete", "--force", "other"]).ok().stderr, "has the same");
    assert_eq!(host::process_state(pid), Some('S'));
    fs::create_dir(&other).unwrap();
    fs::write(other.join("state.json"), "").unwrap();
    fs::copy(c.path("state").join(&c.id).join("config.json"), other.join("config.json")).unwrap();
    let config = c.path("state").join(&c.id).join("config.json");
    let text = fs::read(&config).unwrap();
    fs::write(&config, "").unwrap();
    assert_has(c.tare(&["delete", "--force", "other"]).exits(1).stderr, "can't be read");
    assert!(other.exists());
    assert_eq!(host::process_state(pid), Some('S'));
    fs::write(record(c), kept).unwrap();
    fs::write(&config, text).unwrap();
    c.tare(&["delete", "--force", "other"]).ok();
    assert_eq!(c.status(), "running");
});
