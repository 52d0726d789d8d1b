//! What is handed over: descriptors, words to the service manager, files of the caller's; and what is not.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::common::agent::{Agent, Answer};
use crate::common::manager::Manager;
use crate::common::program::{finish, guest, start};
use crate::common::{Container, eventually, pty};
use crate::container_test;

const NOBODY: u32 = 65_534;

/// Runs the probe in the foreground, started by a service manager, and waits for its end.
fn run_by(c: &Container, manager: &Manager) {
    c.write_config();
    finish(c.command(&["run", &c.id]).env("NOTIFY_SOCKET", &manager.name), &c.dir).ok();
}

// Whoever may speak for a service may also end it, keep it from being watched, or leave things for its next start.
container_test!(a_container_says_no_more_to_the_manager_than_it_may, |c| {
    let manager = Manager::at(&c.path("manager"));
    let hostile = [
        "NOTIFYACCESS=all",
        "NOTIFYACCESS=none",
        "WATCHDOG=trigger",
        "WATCHDOG_USEC=1",
        "FDSTORE=1",
        "FDSTOREREMOVE=1|FDNAME=x",
        "BUSERROR=a.b",
        "VARLINKERROR=a.b",
        "RESTART_RESET=1",
        "MAINPIDFD=1",
        "MAINPIDFDID=1",
        "X_OWN=1",
        "BARRIER=1",
        "MONOTONIC_USEC=1",
        "READY=2",
    ];
    let mut words = vec!["all"];
    hostile.iter().for_each(|text| words.extend(["notify", text, ","]));
    // Whether what goes before or after it is allowed.
    words.extend(["notify", "STATUS=a|FDSTORE=1|NOTIFYACCESS=all", ",", "notify", "WATCHDOG=trigger|STATUS=b"]);
    c.args(&words);
    run_by(c, &manager);
    manager.hears("STATUS=a");
    manager.hears("STATUS=b");
    assert!(manager.waiting().is_none());
});

container_test!(no_descriptor_of_a_container_reaches_the_manager, |c| {
    let manager = Manager::at(&c.path("manager"));
    std::fs::write(c.rootfs().join("file"), "").unwrap();
    let words = [
        "all",
        "notify",
        "STATUS=a",
        "/file",
        ",",
        "notify",
        "BARRIER=1",
        "/file",
        ",",
        "notify",
        "READY=1",
        "/file",
        "/file",
    ];
    c.args(&[words.as_slice(), &[",", "notify", "STATUS=b|BARRIER=1", "/file"]].concat());
    run_by(c, &manager);
    // `hears` counts the descriptors.
    let runtime = manager.hears("STATUS=a");
    manager.hears("READY=1");
    manager.hears(&format!("MAINPID={runtime}"));
    manager.hears("STATUS=b");
    assert!(manager.waiting().is_none());
});

// Whoever closes the last descriptor of such a connection waits for as long as the container likes.
container_test!(no_descriptor_of_a_container_holds_up_the_runtime, |c| {
    let manager = Manager::at(&c.path("manager"));
    c.args(&["all", "notify-linger", "600", ",", "notify-linger", "600", ",", "catch", "42", "15"]);
    c.write_config();
    let mut running = start(c.command(&["run", &c.id]).env("NOTIFY_SOCKET", &manager.name), &c.dir);
    running.wait_for("ready");
    manager.hears("STATUS=lingers");
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.wait().exits(42);
});

container_test!(no_descriptor_of_a_container_holds_up_its_start, |c| {
    let manager = Manager::at(&c.path("manager"));
    c.args(&[
        "all",
        "notify-linger",
        "600",
        ",",
        "notify-linger",
        "600",
        ",",
        "notify",
        "READY=1",
        ",",
        "sleep-forever",
    ]);
    c.write_config();
    let bundle = c.bundle().display().to_string();
    finish(c.command(&["create", "--bundle", &bundle, &c.id]).env("NOTIFY_SOCKET", &manager.name), &c.dir).ok();
    let running = start(c.command(&["start", &c.id]).env("NOTIFY_SOCKET", &manager.name), &c.dir);
    manager.hears("STATUS=lingers");
    // Its lock isn't held either.
    c.delete_force().ok();
    // What was sent before may still come.
    while manager.hear().text != "BARRIER=1" {}
    running.wait().ok();
});

container_test!(a_container_does_not_fill_the_log, |c| {
    let manager = Manager::at(&c.path("manager"));
    let long = "STATUS=".to_owned() + &"x".repeat(5000);
    let mut words = vec!["all"];
    (0..20).for_each(|_| words.extend(["notify", &long, ",", "notify", "X_OWN=1", ","]));
    words.push("true");
    c.args(&words);
    c.write_config();
    let output = finish(c.command(&["--debug", "run", &c.id]).env("NOTIFY_SOCKET", &manager.name), &c.dir).ok();
    let lines: Vec<&str> = output.stderr.lines().filter(|line| line.contains("NOTIFY_SOCKET: ")).collect();
    assert_eq!(lines.len(), 3, "one of each kind, and how many there were: {lines:?}");
    assert!(lines.iter().any(|line| line.contains("20 messages")), "{lines:?}");
    assert!(manager.waiting().is_none());
});

// The folder of the state may be anywhere, with any mode: an engine makes it.
container_test!(nobody_but_the_container_reaches_its_way_to_notify, |c| {
    let manager = Manager::at(&c.path("manager"));
    std::fs::set_permissions(c.path("state"), std::fs::Permissions::from_mode(0o755)).unwrap();
    c.args(&["all", "notify", "READY=1", ",", "sleep-forever"]);
    c.write_config();
    let running = start(c.command(&["run", &c.id]).env("NOTIFY_SOCKET", &manager.name), &c.dir);
    manager.hears("READY=1");
    let socket = c.path("state").join(&c.id).join("notify/notify.sock");
    assert!(UnixDatagram::unbound().unwrap().connect(&socket).is_ok(), "root reaches it: the path is right");
    let stat = |path: &std::path::Path| {
        Command::new("stat")
            .arg(path)
            .uid(NOBODY)
            .gid(NOBODY)
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap()
    };
    assert!(stat(&c.path("state")).success(), "nobody gets as far as the state");
    assert!(!stat(&socket).success());
    c.kill(&["KILL"]).ok();
    running.wait().exits(137);
});

// An agent that reads to the end of what it is sent, before it answers: the process waits for the answer.
container_test!(nothing_is_held_open_that_an_agent_waits_for, |c| {
    let agent = Agent::start(&c.path("agent"), |_| Answer::Continue);
    for names in [["write"], ["close"], ["openat"], ["capset"], ["prctl"]] {
        for no_new_privileges in [true, false] {
            c.set("/process/noNewPrivileges", no_new_privileges);
            c.set(
                "/linux/seccomp",
                json!({
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "listenerPath": agent.path,
                    "syscalls": [{ "names": names, "action": "SCMP_ACT_NOTIFY" }],
                }),
            );
            c.args(&["true"]);
            c.run().ok();
            c.args(&["sleep-forever"]);
            c.create().ok();
            c.start().ok();
            c.tare(&["exec", &c.id, "/guest", "true"]).ok();
            c.delete_force().ok();
        }
    }
});

/// Reads a connection to its end, which must come soon; returns what it brought.
fn read_to_end(listener: &UnixListener) -> OwnedFd {
    let mut stream = None;
    eventually("a connection", || {
        stream = listener.accept().ok();
        stream.is_some()
    });
    let (mut stream, _) = stream.unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (_, fd) = pty::receive_from(&stream);
    assert_eq!(stream.read_to_end(&mut Vec::new()).expect("the end of the connection"), 0);
    fd
}

// Whoever takes the terminal or the pidfd may wait for the end of the connection before anything is started.
container_test!(nothing_is_held_open_that_an_engine_waits_for, |c| {
    let listeners = ["console", "pidfd"].map(|name| UnixListener::bind(c.path(name)).unwrap());
    listeners.iter().for_each(|listener| listener.set_nonblocking(true).unwrap());
    let [console, pidfd] = ["console", "pidfd"].map(|name| c.path(name).display().to_string());
    c.set("/process/terminal", true).args(&["sleep-forever"]);
    c.create_with(&["--console-socket", &console, "--pidfd-socket", &pidfd]).ok();
    let _held = listeners.each_ref().map(read_to_end);
    assert_eq!(c.status(), "created");
    c.start().ok();
    let flags = ["exec", "-d", "--tty", "--console-socket", &console, "--pidfd-socket", &pidfd];
    c.tare(&[flags.as_slice(), &[&c.id, "/guest", "sleep-forever"]].concat()).ok();
    let _held = listeners.each_ref().map(read_to_end);
});

// The other end sees that the container has closed it, although the runtime stays.
container_test!(nothing_is_held_open_that_was_passed, |c| {
    let held = |c: &Container, pid: i32| {
        let links = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .flatten()
            .filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links.filter(|link| *link == c.path("passed")).count()
    };
    std::fs::write(c.path("passed"), "").unwrap();
    let open = format!("open=3:{}", c.path("passed").display());
    let prefix = [guest().to_str().unwrap(), "with", &open, "--"];
    c.args(&["sleep-forever"]);
    c.write_config();
    let mut run = start(&mut c.command_by(&prefix, &["run", "--preserve-fds", "1", &c.id]), &c.dir);
    run.wait_for("ready");
    let mut exec =
        start(&mut c.command_by(&prefix, &["exec", "--preserve-fds", "1", &c.id, "/guest", "sleep-forever"]), &c.dir);
    exec.wait_for("ready");
    assert_eq!((held(c, c.pid()), held(c, run.pid()), held(c, exec.pid())), (1, 0, 0));
    c.kill(&["KILL"]).ok();
    run.wait().exits(137);
    exec.wait().exits(137);
});

// Descriptors that the caller doesn't have are numbers that the runtime's own files take.
container_test!(no_descriptor_of_the_runtime_fills_a_hole, |c| {
    std::fs::write(c.path("five"), "").unwrap();
    let mut options: Vec<String> = vec![format!("open=5:{}", c.path("five").display())];
    options.extend([3, 4].into_iter().chain(6..300).map(|fd| format!("close={fd}")));
    let mut prefix = vec![guest().to_str().unwrap(), "with"];
    prefix.extend(options.iter().map(String::as_str));
    prefix.push("--");
    let above = |facts: &serde_json::Value| -> Vec<String> {
        facts["fds"].as_object().unwrap().keys().filter(|fd| fd.parse::<i32>().unwrap() > 2).cloned().collect()
    };
    c.args(&["facts"]);
    c.write_config();
    for count in ["3", "20", "4294967295"] {
        let output = finish(&mut c.command_by(&prefix, &["run", "--preserve-fds", count, &c.id]), &c.dir).ok();
        assert_eq!(above(&output.json()), ["5"]);
    }
    c.args(&["sleep-forever"]);
    c.detach().ok();
    for count in ["3", "20", "4294967295"] {
        let words = ["exec", "--preserve-fds", count, &c.id, "/guest", "facts"];
        assert_eq!(above(&finish(&mut c.command_by(&prefix, &words), &c.dir).ok().json()), ["5"]);
    }
    // What waits at the gate holds none either.
    c.delete_force().ok();
    let pid_file = c.path("pid");
    let words = ["create", "--preserve-fds", "20", "--pid-file", pid_file.to_str().unwrap(), &c.id];
    let create = start(&mut c.command_by(&prefix, &words), &c.dir);
    eventually("created", || c.tare(&["state", &c.id]).stdout.contains("\"status\": \"created\""));
    let folders = std::fs::read_dir(format!("/proc/{}/fd", c.pid())).unwrap().flatten();
    assert_eq!(folders.filter(|entry| entry.path().metadata().is_ok_and(|meta| meta.is_dir())).count(), 0);
    c.delete_force().ok();
    drop(create.wait());
});

// In the foreground a stream is the caller's own file; runc gives the program pipes.
container_test!(files_of_the_caller_keep_their_owner, |c| {
    c.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let owner = |path: &std::path::Path| path.metadata().unwrap().uid();
    let files = ["file", "fifo"].map(|name| c.path(name));
    std::fs::write(&files[0], "").unwrap();
    nix::unistd::mkfifo(&files[1], nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let (_master, _slave, tty) = pty::open(24, 80);
    let files = [files[0].clone(), files[1].clone(), tty.into()];
    let open = |path: &std::path::Path| File::options().read(true).write(true).open(path).unwrap();
    let run = |c: &Container, words: &[&str], path: &std::path::Path| {
        let mut command = c.command(words);
        assert!(
            command.stdin(open(path)).stdout(open(path)).stderr(open(path)).status().unwrap().success(),
            "{words:?}"
        );
    };
    c.args(&["true"]);
    c.write_config();
    for path in &files {
        run(c, &["run", &c.id], path);
        assert_eq!(owner(path), 0, "{path:?}");
    }
    // A pipe without a name, and a socket, are the program's to open again.
    let again = finish(c.command_by(&["sh", "-c", "\"$@\" | cat", "sh"], &["run", &c.id]).stdin(Stdio::null()), &c.dir);
    again.ok();
    c.args(&["sleep-forever"]);
    c.write_config();
    c.detach().ok();
    for path in &files {
        run(c, &["exec", &c.id, "/guest", "true"], path);
        assert_eq!(owner(path), 0, "{path:?}");
    }
});
