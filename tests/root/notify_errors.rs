//! NOTIFY_SOCKET, when something goes wrong: a name that means nothing, a container or a runtime that ends early.

use nix::sys::signal::Signal;
use serde_json::json;

use super::notify::{assert_goes_on, begin, by, command};
use crate::common::manager::Manager;
use crate::common::program::{finish, start};
use crate::common::{Container, assert_has, trace};
use crate::{container_test, skip_for_runc};

container_test!(a_name_of_another_kind_is_an_error, |c| {
    skip_for_runc!(c, "its words are others");
    for name in ["relative/path", "vsock:2:1234", "x"] {
        by(c, name, &["run", &c.id]).fails(&["NOTIFY_SOCKET", name]);
        by(c, name, &["create", &c.id]).fails(&["NOTIFY_SOCKET", name]);
        c.assert_clean();
    }
});

container_test!(a_manager_that_is_not_there_is_an_error, |c| {
    skip_for_runc!(c, "runc finds out when the program runs");
    for name in ["/no/such/manager", "@no-such-manager"] {
        for words in [["run", c.id.as_str()].as_slice(), &["run", "--detach", &c.id]] {
            by(c, name, words).fails(&["NOTIFY_SOCKET", name]);
            c.assert_clean();
        }
    }
    // One that nobody listens to any more, too.
    drop(Manager::at(&c.path("manager")));
    by(c, c.path("manager").to_str().unwrap(), &["run", &c.id]).fails(&["NOTIFY_SOCKET", "ECONNREFUSED"]);
    c.assert_clean();
});

container_test!(start_says_that_the_manager_is_not_there, |c| {
    skip_for_runc!(c, "runc finds out when the program runs");
    let manager = Manager::at(&c.path("manager"));
    c.args(&["all", "notify", "READY=1", ",", "sleep-forever"]);
    by(c, &manager.name, &["create", &c.id]).ok();
    by(c, "/no/such/manager", &["start", &c.id]).fails(&["NOTIFY_SOCKET", "/no/such/manager"]);
    assert_eq!(c.status(), "created");
    // And it can be started all the same.
    let running = begin(c, &manager.name, &["start", &c.id]);
    manager.hears("READY=1");
    manager.hears(&format!("MAINPID={}", c.pid()));
    drop(manager.hear());
    running.wait().ok();
});

container_test!(a_container_that_was_created_without_it_cannot_notify, |c| {
    let manager = Manager::at(&c.path("manager"));
    c.args(&["sleep-forever"]);
    c.create().ok();
    by(c, &manager.name, &["start", &c.id]).fails(&["notify"]);
    assert_eq!(c.status(), "created");
    c.start().ok();
});

container_test!(without_a_mount_namespace_there_is_no_way_in, |c| {
    skip_for_runc!(c, "runc drops it");
    let manager = Manager::at(&c.path("manager"));
    c.set("/linux/namespaces", json!([{ "type": "pid" }]));
    c.set("/mounts", json!([])).set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
    by(c, &manager.name, &["run", &c.id]).fails(&["NOTIFY_SOCKET", "mount namespace"]);
    c.assert_clean();
});

container_test!(a_container_that_ends_is_not_waited_for, |c| {
    skip_for_runc!(c, "runc waits for ever, for it doesn't reap it");
    let manager = Manager::at(&c.path("manager"));
    c.args(&["exit", "7"]);
    by(c, &manager.name, &["create", &c.id]).ok();
    let output = by(c, &manager.name, &["start", &c.id]).ok();
    c.wait_status("stopped");
    assert_has(output.stderr, "without notifying");
    c.delete().ok();
    by(c, &manager.name, &["run", "-d", &c.id]).ok();
    assert!(manager.waiting().is_none());
});

container_test!(a_container_that_is_ready_and_gone_at_once, |c| {
    skip_for_runc!(c, "runc looks for its end first");
    let manager = Manager::at(&c.path("manager"));
    c.args(&["notify", "READY=1"]);
    for _ in 0..5 {
        let running = begin(c, &manager.name, &["run", "-d", &c.id]);
        manager.hears("READY=1");
        // Its number is said only while it is its own.
        let next = manager.hear();
        let barrier = if next.text.starts_with("MAINPID=") { manager.hear() } else { next };
        assert_eq!(barrier.text, "BARRIER=1");
        drop(barrier);
        assert_eq!(running.wait().ok().stderr, "");
        c.delete_force().ok();
    }
});

container_test!(a_container_that_is_deleted_meanwhile, |c| {
    let manager = Manager::at(&c.path("manager"));
    c.args(&["sleep-forever"]);
    by(c, &manager.name, &["create", &c.id]).ok();
    let mut running = begin(c, &manager.name, &["start", &c.id]);
    crate::common::eventually("it runs", || c.status() == "running");
    assert_goes_on(&mut running);
    c.delete_force().ok();
    running.wait().ok();
    c.assert_clean();
});

container_test!(a_start_that_is_killed_leaves_the_container_running, |c| {
    let manager = Manager::at(&c.path("manager"));
    c.args(&["sleep-forever"]);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        by(c, &manager.name, &["create", &c.id]).ok();
        let mut running = begin(c, &manager.name, &["start", &c.id]);
        crate::common::eventually("it runs", || c.status() == "running");
        assert_goes_on(&mut running);
        running.signal(signal);
        running.wait().exits(128 + signal as i32);
        assert_eq!(c.status(), "running");
        c.delete_force().ok();
        c.assert_clean();
    }
});

container_test!(a_second_start_takes_nothing_from_the_first, |c| {
    skip_for_runc!(c, "runc binds the socket first");
    let manager = Manager::at(&c.path("manager"));
    c.args(&["all", "wait-file", "/tmp/go", ",", "notify", "READY=1", ",", "sleep-forever"]);
    by(c, &manager.name, &["create", &c.id]).ok();
    let running = begin(c, &manager.name, &["start", &c.id]);
    crate::common::eventually("it runs", || c.status() == "running");
    by(c, &manager.name, &["start", &c.id]).fails(&["cannot start an already running container"]);
    std::fs::write(c.rootfs().join("tmp/go"), "").unwrap();
    manager.hears("READY=1");
    while manager.hear().text != "BARRIER=1" {}
    running.wait().ok();
});

/// Kills a command of a service manager's at each of these system calls.
fn killed(c: &Container, words: &[&str], calls: &[&str], prepare: impl Fn(&Manager)) {
    if !trace::available(c) {
        return;
    }
    for call in calls {
        for nth in 1..4 {
            let path = c.path("manager");
            let _ = std::fs::remove_file(&path);
            let manager = Manager::at(&path);
            prepare(&manager);
            let (point, trace) = (format!("inject={call}:signal=SIGKILL:when={nth}"), format!("trace={call}"));
            let prefix = ["strace", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &point];
            let mut command = c.command_by(&prefix, words);
            let running = start(command.env("NOTIFY_SOCKET", &manager.name), &c.dir);
            crate::common::eventually("it ends", || {
                drop(manager.waiting());
                crate::common::host::process_state(running.pid()).is_none_or(|state| state == 'Z')
            });
            drop(running);
            c.delete_force().ok();
            c.assert_clean();
        }
    }
}

container_test!(create_and_start_can_be_killed_anywhere, |c| {
    skip_for_runc!(c, "runc leaves what it made");
    c.args(&["all", "notify", "READY=1", ",", "sleep-forever"]);
    c.write_config();
    let id = c.id.clone();
    killed(c, &["create", &id], &["mkdirat", "fchmodat", "mknodat", "clone3", "renameat"], |_| ());
    let create = |manager: &Manager| drop(finish(&mut command(c, &manager.name, &["create", &id]), &c.dir).ok());
    killed(c, &["start", &id], &["bind", "fchmodat", "write", "recvmsg", "sendmsg", "pipe2"], create);
    killed(c, &["run", "-d", &id], &["mkdirat", "bind", "fchmodat", "recvmsg", "sendmsg"], |_| ());
});
