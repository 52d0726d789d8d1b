//! The six kinds of hook: where they run, what they get, and what happens when one fails.

use std::fs;

use serde_json::{Value, json};

use crate::common::{Container, assert_has, guest, host, rival};
use crate::{container_test, skip_for_runc};

const OUTSIDE: [&str; 2] = ["prestart", "createRuntime"];
const ALL: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that appends what it gets to `records` (inside the container for startContainer), named by its kind.
pub(super) fn record(c: &Container, kind: &str) -> Value {
    // The container's own probe: another path, which createContainer sees as well, before the pivot.
    let (path, file) = if kind == "startContainer" {
        ("/guest".to_owned(), "/records".to_owned())
    } else {
        (guest().to_str().unwrap().to_owned(), c.path("records").to_str().unwrap().to_owned())
    };
    json!({ "path": path, "args": ["hook-name", "hook", file, kind], "env": ["PATH=/bin", format!("KIND={kind}")] })
}

/// What the recording hooks of a kind wrote.
fn records(c: &Container, kind: &str) -> Vec<Value> {
    let path = if kind == "startContainer" { c.rootfs().join("records") } else { c.path("records") };
    let text = fs::read_to_string(path).unwrap_or_default();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|record| record["words"][0] == kind).collect()
}

pub(super) fn only(c: &Container, kind: &str) -> Value {
    let mut found = records(c, kind);
    assert_eq!(found.len(), 1, "{kind} should have run once: {found:?}");
    found.remove(0)
}

fn state(record: &Value) -> Value {
    serde_json::from_str(record["stdin"].as_str().unwrap()).unwrap()
}

container_test!(each_kind_runs_in_its_place, |c| {
    for kind in ALL {
        let hook = record(c, kind);
        c.push(&format!("/hooks/{kind}"), hook);
    }
    c.args(&["sleep-forever"]);
    c.create().ok();
    for kind in ["prestart", "createRuntime", "createContainer"] {
        assert_eq!(records(c, kind).len(), 1, "{kind} runs at create");
    }
    assert_eq!((records(c, "startContainer").len(), records(c, "poststop").len()), (0, 0));
    if rival().is_none() {
        assert_eq!(records(c, "poststart").len(), 0, "poststart runs at start");
    }
    c.start().ok();
    crate::common::eventually("startContainer ran", || records(c, "startContainer").len() == 1);
    assert_eq!(records(c, "poststart").len(), 1);
    assert_eq!(records(c, "poststop").len(), 0);
    c.kill(&["KILL"]).ok();
    c.wait_status("stopped");
    c.delete().ok();
    assert_eq!(records(c, "poststop").len(), 1);
});

container_test!(run_in_the_foreground_runs_them_all, |c| {
    for kind in ALL {
        let hook = record(c, kind);
        c.push(&format!("/hooks/{kind}"), hook);
    }
    c.args(&["exit", "3"]);
    c.run().exits(3);
    for kind in ALL {
        assert_eq!(records(c, kind).len(), 1, "{kind}");
    }
});

container_test!(they_run_in_the_order_of_the_list, |c| {
    let path = guest().to_str().unwrap().to_owned();
    let file = c.path("records");
    for i in 0..4 {
        let args = ["hook-name", "hook", file.to_str().unwrap(), "createRuntime", &i.to_string()];
        c.push("/hooks/createRuntime", json!({ "path": path, "args": args }));
    }
    c.run().ok();
    let order: Vec<Value> = records(c, "createRuntime").iter().map(|r| r["words"][1].clone()).collect();
    assert_eq!(order, ["0", "1", "2", "3"]);
});

container_test!(they_get_the_state_on_stdin, |c| {
    c.set("/annotations", json!({ "key": "value" }));
    for kind in ALL {
        let hook = record(c, kind);
        c.push(&format!("/hooks/{kind}"), hook);
    }
    c.args(&["sleep-forever"]);
    c.create().ok();
    let pid = c.pid();
    c.start().ok();
    c.delete_force().ok();
    let statuses = ["creating", "creating", "creating", "created", "running", "stopped"];
    for (kind, status) in ALL.into_iter().zip(statuses) {
        let state = state(&only(c, kind));
        assert!(state["ociVersion"].is_string(), "{kind}: {state}");
        assert_eq!(state["id"], c.id, "{kind}");
        assert_eq!(state["bundle"], c.bundle().to_str().unwrap(), "{kind}");
        assert_eq!(state["annotations"]["key"], "value", "{kind}");
        if rival().is_none() || !["startContainer", "poststart"].contains(&kind) {
            assert_eq!(state["status"], status, "{kind}");
        }
        if OUTSIDE.contains(&kind) || kind == "poststart" {
            assert_eq!(state["pid"], pid, "{kind}");
        }
    }
});

container_test!(they_get_their_own_arguments_and_environment, |c| {
    let hook = record(c, "createRuntime");
    c.push("/hooks/createRuntime", hook);
    c.run().ok();
    let facts = only(c, "createRuntime")["facts"].clone();
    assert_eq!(facts["argv"][0], "hook-name");
    assert_eq!(facts["env"], json!(["PATH=/bin", "KIND=createRuntime"]));
});

container_test!(without_an_environment_they_get_the_callers, |c| {
    let mut hook = record(c, "createRuntime");
    hook.as_object_mut().unwrap().remove("env");
    c.push("/hooks/createRuntime", hook);
    c.args(&["true"]);
    c.write_config();
    let mut command = c.command(&["run", &c.id]);
    crate::common::program::finish(command.env("FROM_THE_CALLER", "yes"), &c.dir).ok();
    let env = only(c, "createRuntime")["facts"]["env"].to_string();
    assert_has(env, "FROM_THE_CALLER=yes");
});

container_test!(they_run_in_the_right_namespaces, |c| {
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let hook = record(c, kind);
        c.push(&format!("/hooks/{kind}"), hook);
    }
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let pid = c.pid().to_string();
    let inside = ["mnt", "net", "uts"].map(|name| host::namespace(&pid, name));
    c.delete_force().ok();
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        let record = only(c, kind);
        for name in ["mnt", "net", "uts", "pid"] {
            assert_eq!(record["facts"]["ns"][name], host::namespace("self", name), "{kind} runs outside: {name}");
        }
    }
    let record = only(c, "createContainer");
    for (name, inode) in ["mnt", "net", "uts"].into_iter().zip(inside) {
        assert_eq!(record["facts"]["ns"][name], inode, "createContainer runs inside: {name}");
    }
});

container_test!(create_container_runs_before_the_pivot_with_the_mounts_made, |c| {
    let hook = record(c, "createContainer");
    c.push("/hooks/createContainer", hook);
    c.args(&["true"]);
    c.run().ok();
    let record = only(c, "createContainer");
    let mounts = record["facts"]["mountinfo"].to_string();
    assert_has(mounts, &format!("{}/dev/shm", c.rootfs().display()));
});

container_test!(start_container_runs_inside, |c| {
    c.set("/process/user", json!({ "uid": 0, "gid": 0 }));
    let hook = record(c, "startContainer");
    c.push("/hooks/startContainer", hook);
    let facts = c.facts();
    let record = only(c, "startContainer");
    assert_eq!(record["facts"]["ns"], facts["ns"]);
    assert_has(record["folder"].to_string(), "guest");
});

container_test!(a_failing_hook_fails_create_and_says_which, |c| {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        c.set("/hooks", json!({}));
        let first = record(c, kind);
        c.push(&format!("/hooks/{kind}"), first);
        let path = guest().to_str().unwrap().to_owned();
        c.push(&format!("/hooks/{kind}"), json!({ "path": path, "args": ["x", "fail", "3", "the reason"] }));
        let output = c.create().exits(1);
        assert_has(&output.stderr, "the reason");
        if rival().is_none() {
            output.fails(&[kind, "hook #1", &path, "status 3", "the reason"]);
        }
        c.assert_clean();
    }
});

container_test!(a_failing_start_container_hook_fails_start, |c| {
    c.push("/hooks/startContainer", json!({ "path": "/guest", "args": ["x", "fail", "3", "the reason"] }));
    c.args(&["write", "/ran", ""]);
    c.create().ok();
    let output = c.start();
    if rival().is_none() {
        output.fails(&["startContainer", "hook #0", "/guest", "status 3", "the reason"]);
    }
    c.wait_status("stopped");
    assert!(!c.rootfs().join("ran").exists());
});

container_test!(a_failing_poststart_hook_stops_and_deletes, |c| {
    skip_for_runc!(c, "runc 1.1 runs it at create");
    let path = guest().to_str().unwrap();
    c.push("/hooks/poststart", json!({ "path": path, "args": ["x", "fail", "3", "the reason"] }));
    c.args(&["sleep-forever"]);
    c.create().ok();
    c.start().fails(&["poststart", "hook #0", "status 3", "the reason"]);
    c.assert_clean();
});

container_test!(a_failing_poststop_hook_is_no_obstacle, |c| {
    skip_for_runc!(c, "runc stops at the first that fails");
    let path = guest().to_str().unwrap().to_owned();
    c.push("/hooks/poststop", json!({ "path": path, "args": ["x", "fail", "3", "the reason"] }));
    let second = record(c, "poststop");
    c.push("/hooks/poststop", second);
    c.detach().ok();
    c.wait_status("stopped");
    c.delete().ok();
    c.assert_clean();
    assert_eq!(records(c, "poststop").len(), 1, "the next hook should run all the same");
});

container_test!(a_signal_that_ends_a_hook_is_named, |c| {
    let path = guest().to_str().unwrap();
    c.push("/hooks/createRuntime", json!({ "path": path, "args": ["x", "kill-self", "9"] }));
    let output = c.create().exits(1);
    let text = output.stderr.to_lowercase();
    assert!(text.contains("signal") || text.contains("sigkill") || text.contains("killed"), "{output}");
    c.assert_clean();
});

container_test!(a_hook_that_takes_too_long_is_ended, |c| {
    let path = guest().to_str().unwrap().to_owned();
    for kind in ["createRuntime", "createContainer"] {
        c.set("/hooks", json!({}));
        c.push(&format!("/hooks/{kind}"), json!({ "path": path, "args": ["x", "sleep-forever"], "timeout": 1 }));
        let begin = std::time::Instant::now();
        let output = c.create().exits(1);
        assert!(begin.elapsed().as_secs() < 5, "{:?}", begin.elapsed());
        let text = output.stderr.to_lowercase();
        assert!(text.contains("timeout") || text.contains("timed out"), "{output}");
        c.assert_clean();
    }
});

container_test!(a_missing_hook_is_an_error_that_names_it, |c| {
    c.push("/hooks/createRuntime", json!({ "path": "/no/such/hook" }));
    c.create().fails(&["/no/such/hook"]);
    c.assert_clean();
});

container_test!(a_relative_hook_path_is_an_error, |c| {
    skip_for_runc!(c, "runc 1.1 looks for it");
    c.push("/hooks/poststop", json!({ "path": "bin/hook" }));
    c.create().fails(&["/hooks/poststop/0/path", "bin/hook", "absolute"]);
    c.assert_clean();
});

container_test!(a_hook_need_not_read_its_input, |c| {
    let path = guest().to_str().unwrap().to_owned();
    c.set("/annotations", json!({ "long": "x".repeat(200_000) }));
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        c.push(&format!("/hooks/{kind}"), json!({ "path": path, "args": ["x", "true"] }));
    }
    c.args(&["exit", "8"]);
    c.run().exits(8);
});

container_test!(a_prestart_hook_sees_the_network_namespace, |c| {
    // What CNI-like hooks do: find the namespaces by the pid of the state.
    let hook = record(c, "createRuntime");
    c.push("/hooks/createRuntime", hook);
    c.args(&["sleep-forever"]);
    c.create().ok();
    let pid = state(&only(c, "createRuntime"))["pid"].clone();
    assert_eq!(pid, c.pid());
    assert_ne!(host::namespace(&pid.to_string(), "net"), host::namespace("self", "net"));
});
