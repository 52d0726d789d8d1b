//! `state`: the JSON that engines parse.

use serde_json::json;

use crate::common::{assert_json, host};
use crate::container_test;

container_test!(tells_every_property, |c| {
    c.args(&["sleep-forever"]);
    c.set("/annotations", json!({ "org.example.key": "value", "other": "ümlaut \"quoted\"" }));
    c.create().ok();
    let state = c.state();
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{state}");
    assert_json(&state["id"], c.id.as_str());
    assert_json(&state["status"], "created");
    assert_json(&state["bundle"], c.bundle().to_str().unwrap());
    assert_json(&state["rootfs"], c.rootfs().to_str().unwrap());
    assert_eq!(state["annotations"], json!({ "org.example.key": "value", "other": "ümlaut \"quoted\"" }));
    assert!(state["owner"].is_string(), "{state}");
    let created = state["created"].as_str().unwrap();
    assert!(created.len() >= 20 && created.as_bytes()[10] == b'T' && created.ends_with('Z'), "{created}");
    assert!(host::process_state(c.pid()).is_some());
});

container_test!(follows_the_life_of_the_container, |c| {
    c.args(&["sleep-forever"]);
    c.create().ok();
    assert_eq!(c.status(), "created");
    c.start().ok();
    assert_eq!(c.status(), "running");
    c.kill(&["KILL"]).ok();
    c.wait_status("stopped");
    assert_eq!(c.state()["pid"], 0);
});

container_test!(a_zombie_is_stopped, |c| {
    // The foreground runtime is stopped, so that nobody reaps the container's dead process.
    c.args(&["sleep-forever"]);
    c.write_config();
    let mut running = crate::common::program::start(&mut c.command(&["run", &c.id]), &c.dir);
    running.wait_for("ready");
    let pid = c.pid();
    running.signal(nix::sys::signal::SIGSTOP);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
    crate::common::eventually("a zombie", || host::process_state(pid) == Some('Z'));
    let state = c.state();
    assert_eq!((state["status"].as_str().unwrap(), state["pid"].as_i64().unwrap()), ("stopped", 0));
    running.signal(nix::sys::signal::SIGCONT);
    running.wait().exits(137);
});

container_test!(a_missing_container_is_an_error, |c| {
    c.tare(&["state", "nobody"]).fails(&["container does not exist"]);
});

container_test!(an_id_with_a_path_in_it_is_an_error, |c| {
    for id in ["../state", "a/b", "..", ""] {
        c.tare(&["state", id]).exits(1);
    }
});

container_test!(a_recycled_pid_is_not_the_container, |c| {
    // As if the process had ended and its pid had gone to another: the start time is not the recorded one.
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let pid = c.pid();
    let path = c.path("state").join(&c.id).join("state.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let start = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().to_owned();
    assert!(text.contains(&start), "the start time {start} should be in {text}");
    std::fs::write(&path, text.replace(&start, &(start.parse::<u64>().unwrap() - 1).to_string())).unwrap();
    assert_eq!(c.status(), "stopped");
    assert_eq!(c.state()["pid"], 0);
    c.kill(&["KILL"]).fails(&["container not running"]);
    assert_eq!(host::process_state(pid), Some('S'), "the other process should live");
    std::fs::write(&path, text).unwrap();
    assert_eq!(c.status(), "running");
});
