//! A foreground `run` that is asked to end before its program runs: it ends, and nothing of the container is left.

use nix::sys::signal::Signal;
use nix::sys::termios::tcgetattr;
use serde_json::json;

use crate::common::program::{Running, start};
use crate::common::{Container, assert_has, eventually, guest, pty};
use crate::{container_test, skip_for_runc};

/// A hook that says that it runs, and hangs.
fn hang(c: &mut Container, kind: &str) {
    // The container's own for startContainer, which runs inside.
    let (path, file) = match kind {
        "startContainer" => ("/guest".to_owned(), "/hanging".to_owned()),
        _ => (guest().display().to_string(), c.path("hanging").display().to_string()),
    };
    let mark = c.dir.display().to_string();
    // Its environment names the test's folder: a hook that goes on is found.
    let args = json!(["hook", "all", "write", file, "x", ",", "sleep-forever"]);
    let hook = json!({ "path": path, "args": args, "env": [format!("TARE_TEST={mark}")] });
    c.set("/hooks", json!({ kind: [hook] }));
    c.push("/hooks/poststop", stopped(c));
    c.args(&["write", "/ran", "yes"]);
}

/// A hook that notes the container's end.
fn stopped(c: &Container) -> serde_json::Value {
    json!({ "path": guest(), "args": ["hook", "write", c.path("stopped"), "x"] })
}

fn hangs(c: &Container) -> bool {
    c.path("hanging").exists() || c.rootfs().join("hanging").exists()
}

/// `run` in the foreground up to the hook that hangs.
fn run_into(c: &mut Container, kind: &str) -> Running {
    hang(c, kind);
    c.write_config();
    let running = start(&mut c.command(&["run", &c.id]), &c.dir);
    eventually("the hook runs", || hangs(c));
    running
}

/// Everything is undone, and no program has run.
#[track_caller]
fn assert_undone(c: &Container) {
    c.assert_clean();
    assert!(!c.rootfs().join("ran").exists());
    assert!(c.path("stopped").exists(), "the poststop hook has not run");
}

container_test!(any_signal_that_asks_ends_it, |c| {
    skip_for_runc!(c, "runc waits for the hook");
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        let running = run_into(c, "prestart");
        running.signal(signal);
        let output = running.wait().exits(128 + signal as i32);
        assert_has(&output.stderr, &format!("interrupted by {}", signal.as_str()));
        assert_eq!((output.stdout.as_str(), output.stderr.lines().count()), ("", 1), "{output}");
        assert_undone(c);
        for name in ["hanging", "stopped"] {
            std::fs::remove_file(c.path(name)).unwrap();
        }
    }
});

container_test!(in_any_hook_outside, |c| {
    skip_for_runc!(c, "runc waits for the hook");
    let running = run_into(c, "createRuntime");
    running.signal(Signal::SIGINT);
    assert_has(running.wait().exits(130).stderr, "createRuntime hook #0");
    assert_undone(c);
});

container_test!(in_a_hook_of_the_containers_process, |c| {
    skip_for_runc!(c, "runc waits for the hook");
    for kind in ["createContainer", "startContainer"] {
        let running = run_into(c, kind);
        running.signal(Signal::SIGTERM);
        running.wait().exits(143);
        assert_undone(c);
        let _ = std::fs::remove_file(c.path("hanging"));
    }
});

container_test!(in_a_hook_of_a_process_without_a_pid_namespace, |c| {
    skip_for_runc!(c, "runc waits for the hook");
    // Nothing of it dies with its first process.
    c.remove("/linux/namespaces/0");
    let running = run_into(c, "createContainer");
    running.signal(Signal::SIGTERM);
    running.wait().exits(143);
    assert_undone(c);
});

container_test!(when_the_program_has_just_been_started, |c| {
    skip_for_runc!(c, "runc waits for the hook");
    let running = run_into(c, "poststart");
    running.signal(Signal::SIGINT);
    running.wait().exits(130);
    c.assert_clean();
    assert!(c.path("stopped").exists());
});

container_test!(by_control_c_on_its_terminal, |c| {
    skip_for_runc!(c, "runc waits for the hook");
    let (mut master, slave, name) = pty::open(24, 80);
    let before = tcgetattr(&slave).unwrap();
    hang(c, "createRuntime");
    c.set("/process/terminal", true);
    c.write_config();
    let tty = format!("tty={name}");
    let prefix = [guest().to_str().unwrap(), "with", &tty, "--"];
    let running = start(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir);
    eventually("the hook runs", || hangs(c));
    master.write("\u{3}");
    running.wait().exits(130);
    master.wait_for("interrupted by SIGINT");
    assert_undone(c);
    assert_eq!(tcgetattr(&slave).unwrap().local_flags, before.local_flags);
});

/// A hook that waits for `go`, before a program that ends with 7.
fn pause(c: &mut Container) {
    let args = json!(["hook", "all", "write", c.path("hanging"), "x", ",", "wait-file", c.path("go")]);
    c.set("/hooks/prestart", json!([{ "path": guest(), "args": args }]));
    c.args(&["exit", "7"]);
    c.write_config();
}

container_test!(a_signal_that_asks_for_nothing_is_kept, |c| {
    // It is forwarded once there is a program; this one ignores it.
    pause(c);
    let mut running = start(&mut c.command(&["run", &c.id]), &c.dir);
    eventually("the hook runs", || hangs(c));
    for signal in [Signal::SIGUSR1, Signal::SIGWINCH, Signal::SIGCHLD, Signal::SIGPIPE] {
        running.signal(signal);
    }
    super::notify::assert_goes_on(&mut running);
    std::fs::write(c.path("go"), "").unwrap();
    running.wait().exits(7);
});

container_test!(what_the_caller_ignores_does_not_end_it, |c| {
    // nohup(1), or a shell's job in the background.
    pause(c);
    let prefix = [guest().to_str().unwrap(), "with", "ignore=1", "ignore=2", "ignore=3", "--"];
    let mut running = start(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir);
    eventually("the hook runs", || hangs(c));
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        running.signal(signal);
    }
    super::notify::assert_goes_on(&mut running);
    std::fs::write(c.path("go"), "").unwrap();
    running.wait().exits(7);
});
