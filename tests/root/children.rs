//! Children of the runtime: whatever the caller does about SIGCHLD, and whenever they end.

use serde_json::json;

use crate::common::program::{finish, start};
use crate::common::{Container, Output, assert_has, eventually, guest, host, skip, trace, user};
use crate::{container_test, skip_for_runc, user_test};

/// A command of the runtime by a caller that ignores SIGCHLD, as programs inherit it.
fn careless(c: &Container, words: &[&str]) -> Output {
    c.write_config();
    let prefix = [guest().to_str().unwrap(), "with", "ignore=17", "--"];
    finish(&mut c.command_by(&prefix, words), &c.dir)
}

container_test!(a_caller_that_ignores_sigchld_loses_nothing, |c| {
    let id = c.id.clone();
    c.args(&["exit", "3"]);
    careless(c, &["run", &id]).exits(3);
    c.args(&["sleep-forever"]);
    careless(c, &["create", &id]).ok();
    careless(c, &["start", &id]).ok();
    careless(c, &["exec", &id, "/guest", "exit", "4"]).exits(4);
    careless(c, &["exec", "--detach", &id, "/guest", "true"]).ok();
    if host::installed("ps") {
        assert_has(careless(c, &["ps", &id]).ok().stdout, "sleep-forever");
    }
    careless(c, &["delete", "--force", &id]).ok();
    c.assert_clean();
});

container_test!(its_failed_create_is_cleaned_up, |c| {
    let id = c.id.clone();
    // Each fails in another place: in the container's process, in a hook outside, in one inside.
    let hook = |status: &str| json!([{ "path": guest(), "args": ["hook", "exit", status] }]);
    for (pointer, value) in [
        ("/process/args", json!(["/nonesuch"])),
        ("/hooks/createRuntime", hook("5")),
        ("/hooks/createContainer", hook("5")),
    ] {
        c.set(pointer, value);
        for verb in ["create", "run"] {
            let output = careless(c, &[verb, &id]).exits(1);
            assert!(!output.stderr.contains("ECHILD") && !output.stderr.contains("clean up"), "{output}");
            c.assert_clean();
        }
        let _ = c.config.as_object_mut().unwrap().remove("hooks");
        c.args(&["true"]);
    }
});

container_test!(its_bridges_are_waited_for, |c| {
    // A pid namespace is joined through a process of its own, by create and by exec.
    let holder = start(std::process::Command::new("unshare").args(["--pid", "--fork", "sleep", "1000"]), &c.dir);
    eventually("the holder", || !host::children(holder.pid()).is_empty());
    let pid = host::children(holder.pid())[0];
    c.set("/linux/namespaces/0", json!({ "type": "pid", "path": format!("/proc/{pid}/ns/pid") }));
    let id = c.id.clone();
    c.args(&["exit", "6"]);
    careless(c, &["run", &id]).exits(6);
    c.args(&["sleep-forever"]);
    careless(c, &["run", "--detach", &id]).ok();
    careless(c, &["exec", &id, "/guest", "exit", "7"]).exits(7);
    c.delete_force().ok();
    host::kill(pid);
    holder.wait();
});

user_test!(rootless_helpers_are_waited_for, |c| {
    skip_for_runc!(c, "another order");
    if !user::ranges_available(c) {
        return;
    }
    let (first, count) = (300_000_000, 10);
    user::map_ranges(c, first, count);
    let name = "tare-user";
    let lines = format!("{name}:{first}:{count}\n");
    let with = format!("{} with ignore=17 --", guest().display());
    let launcher = user::launcher(c, &lines, &with);
    let prefix: Vec<&str> = launcher.iter().map(String::as_str).collect();
    c.args(&["exit", "8"]);
    c.write_config();
    let output = finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir);
    if output.stderr.contains("newuidmap") && !output.stderr.contains("CHILD") {
        return skip(&c.name, &output.stderr);
    }
    output.exits(8);
});

/// A poststop hook that notes the end.
fn noted(c: &mut Container) {
    let hook = json!({ "path": guest(), "args": ["hook", "write", c.path("stopped"), "x"] });
    c.push("/hooks/poststop", hook);
}

container_test!(an_init_that_dies_without_a_word_is_cleaned_up_all_the_same, |c| {
    skip_for_runc!(c, "it has other stages");
    if !trace::available(c) {
        return;
    }
    noted(c);
    // What it leaves behind is in the container's cgroup, and in no pid namespace that ends with it.
    let script = "sleep 1000 >/dev/null 2>&1 & exit 0";
    let env = [format!("TARE_TEST={}", c.dir.display()), "PATH=/usr/bin:/bin".to_owned()];
    c.push("/hooks/createContainer", json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": env }));
    for pid_namespace in ["of its own", "the host's"] {
        if pid_namespace == "the host's" {
            c.remove("/linux/namespaces/0");
        }
        for verb in ["create", "run"] {
            c.write_config();
            let point = "inject=pivot_root:signal=SIGKILL:when=1";
            let output = trace::killed_at(c, true, point, &[verb, &c.id]).wait().exits(1);
            assert_has(&output.stderr, "SIGKILL");
            c.assert_clean();
            assert!(
                c.path("stopped").exists(),
                "the poststop hook has not run ({verb}, pid namespace {pid_namespace})"
            );
            std::fs::remove_file(c.path("stopped")).unwrap();
        }
    }
});

container_test!(an_init_that_dies_while_hooks_run_ends_them, |c| {
    skip_for_runc!(c, "it waits for the hook");
    noted(c);
    for kind in ["prestart", "createRuntime"] {
        let kill = json!(["sh", "-c", "kill -9 $(grep -o '\"pid\":[0-9]*' | cut -d: -f2); exec sleep 1000"]);
        let env = [format!("TARE_TEST={}", c.dir.display()), "PATH=/usr/bin:/bin".to_owned()];
        c.set(&format!("/hooks/{kind}"), json!([{ "path": "/bin/sh", "args": kill, "env": env }]));
        let output = c.create();
        output.fails(&[&format!("{kind} hook #0"), "process has ended"]);
        c.assert_clean();
        assert!(c.path("stopped").exists(), "the poststop hook has not run");
        std::fs::remove_file(c.path("stopped")).unwrap();
        c.remove(&format!("/hooks/{kind}"));
    }
});

container_test!(a_bridge_that_dies_without_a_word_is_an_error, |c| {
    skip_for_runc!(c, "it has other stages");
    if !trace::available(c) {
        return;
    }
    let holder = start(std::process::Command::new("unshare").args(["--pid", "--fork", "sleep", "1000"]), &c.dir);
    eventually("the holder", || !host::children(holder.pid()).is_empty());
    let pid = host::children(holder.pid())[0];
    c.set("/linux/namespaces/0", json!({ "type": "pid", "path": format!("/proc/{pid}/ns/pid") }));
    c.args(&["sleep-forever"]);
    c.write_config();
    // Of the bridge this is the clone of the container's process; the runtime's own comes first, in another process.
    for point in ["inject=clone3:signal=SIGKILL:when=1", "inject=setns:signal=SIGKILL:when=1"] {
        let running = trace::killed_at(c, true, point, &["create", &c.id]);
        running.wait();
        c.delete_force().ok();
        c.assert_clean();
    }
    host::kill(pid);
    holder.wait();
});
