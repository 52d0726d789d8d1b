//! Terminals and descriptors of what `exec` starts.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;

use nix::sys::termios::{LocalFlags, tcgetattr};
use serde_json::{Value, json};

use super::exec::{exec, exec_other, line, sleep};
use super::terminal::{facts, resize};
use crate::common::program::{Running, finish, guest, start};
use crate::common::{Container, assert_has, eventually, pty, rival};
use crate::{container_test, skip_for_runc};

/// `exec --tty --detach` of the probe with these words; returns the master that was sent.
fn with_socket(c: &Container, flags: &[&str], words: &[&str]) -> pty::Master {
    let socket = c.path("console");
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    let mut all = vec!["--tty", "--detach", "--console-socket", socket.to_str().unwrap()];
    all.extend(flags);
    exec(c, &all, words).ok();
    pty::Master::new(File::from(pty::receive(&listener).1))
}

/// `exec --tty` in the foreground with a terminal as its caller's.
fn on_terminal(c: &Container, name: &str, words: &[&str]) -> Running {
    let tty = format!("tty={name}");
    let prefix = [guest().to_str().unwrap(), "with", &tty, "--"];
    start(&mut c.command_by(&prefix, &line(c, &["-t"], words)), &c.dir)
}

container_test!(the_socket_gets_the_master, |c| {
    sleep(c);
    let master = with_socket(c, &[], &["facts"]);
    master.wait_for("}\r\n");
    let facts = facts(&master.text());
    for fd in ["0", "1", "2"] {
        let tty = &facts["tty"][fd];
        assert_eq!((&tty["controlling"], &tty["name"]), (&json!(true), &json!("/dev/pts/0")), "{tty}");
    }
    assert_eq!(facts["sid"], facts["pid"]);
    assert_eq!(facts["fds"].as_object().unwrap().len(), 3, "{}", facts["fds"]);
});

container_test!(a_detached_terminal_takes_input, |c| {
    sleep(c);
    let mut master = with_socket(c, &[], &["pass-input"]);
    master.write("some text\n");
    master.wait_for("SOME TEXT\r\n");
});

container_test!(several_terminals_at_once, |c| {
    sleep(c);
    let mut masters: Vec<_> = (0..4).map(|_| with_socket(c, &[], &["pass-input"])).collect();
    for (i, master) in masters.iter_mut().enumerate() {
        master.write(&format!("number {i}\n"));
    }
    for (i, master) in masters.iter().enumerate() {
        master.wait_for(&format!("NUMBER {i}\r\n"));
    }
});

container_test!(the_terminal_belongs_to_the_user, |c| {
    sleep(c);
    let master =
        with_socket(c, &["--user", "1000:1000"], &["all", "stat", "/dev/pts/0", ",", "open", "/dev/pts/0", "rw"]);
    master.wait_for("ok\r\n");
    assert_has(master.text(), "/dev/pts/0 c 620 1000 5 ");
});

container_test!(a_terminal_of_a_process_file, |c| {
    skip_for_runc!(c, "runc 1.1 ignores its consoleSize");
    sleep(c);
    let mut process = c.config["process"].clone();
    process["args"] = json!(["/guest", "facts"]);
    process["terminal"] = json!(true);
    process["consoleSize"] = json!({ "height": 33, "width": 77 });
    let (path, socket) = (c.path("process.json"), c.path("console"));
    std::fs::write(&path, process.to_string()).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    let flags = ["-p", path.to_str().unwrap(), "-d", "--console-socket", socket.to_str().unwrap()];
    exec_other(c, &flags, &[]).ok();
    let master = pty::Master::new(File::from(pty::receive(&listener).1));
    master.wait_for("}\r\n");
    let tty = facts(&master.text())["tty"]["0"].clone();
    assert_eq!((&tty["rows"], &tty["columns"]), (&json!(33), &json!(77)));
});

container_test!(a_terminal_of_the_container_is_not_that_of_exec, |c| {
    // Without --tty there is none, whatever the container's own program has.
    let socket = c.path("console");
    let listener = UnixListener::bind(&socket).unwrap();
    c.set("/process/terminal", true).args(&["sleep-forever"]);
    c.run_with(&["--detach", "--console-socket", socket.to_str().unwrap()]).ok();
    let _master = pty::receive(&listener).1;
    assert_eq!(exec(c, &[], &["facts"]).ok().json()["tty"]["1"], Value::Null);
});

container_test!(a_socket_without_a_terminal_is_an_error, |c| {
    sleep(c);
    let socket = c.path("console");
    let _listener = UnixListener::bind(&socket).unwrap();
    assert_has(exec(c, &["--console-socket", socket.to_str().unwrap(), "-d"], &["true"]).exits(255).stderr, "console");
});

container_test!(a_detached_terminal_without_a_socket_is_an_error, |c| {
    sleep(c);
    assert_has(exec(c, &["-t", "-d"], &["true"]).exits(255).stderr, "console");
});

container_test!(a_socket_that_is_not_there_is_an_error, |c| {
    sleep(c);
    let output = exec(c, &["-t", "-d", "--console-socket", "/no/such/socket"], &["true"]).exits(255);
    assert_has(output.stderr, "/no/such/socket");
});

container_test!(the_foreground_uses_the_callers_terminal, |c| {
    sleep(c);
    let (mut master, slave, name) = pty::open(40, 100);
    let before = tcgetattr(slave.as_fd()).unwrap();
    let running = on_terminal(c, &name, &["pass-input"]);
    eventually("raw mode", || !tcgetattr(slave.as_fd()).unwrap().local_flags.contains(LocalFlags::ICANON));
    assert!(!tcgetattr(slave.as_fd()).unwrap().local_flags.contains(LocalFlags::ECHO));
    master.write("hello\n");
    master.wait_for("HELLO\r\n");
    master.write("\u{4}");
    running.wait().ok();
    let after = tcgetattr(slave.as_fd()).unwrap();
    assert_eq!(after.local_flags, before.local_flags, "the terminal should be as it was");
    assert_eq!((after.input_flags, after.output_flags), (before.input_flags, before.output_flags));
});

container_test!(the_foreground_passes_the_exit_status_on, |c| {
    sleep(c);
    let (_master, _slave, name) = pty::open(40, 100);
    on_terminal(c, &name, &["exit", "7"]).wait().exits(7);
    on_terminal(c, &name, &["kill-self", "9"]).wait().exits(137);
});

container_test!(the_terminals_size_is_passed_on, |c| {
    sleep(c);
    let (master, _slave, name) = pty::open(41, 101);
    let running = on_terminal(c, &name, &["winsize-on-signal"]);
    master.wait_for(if rival().is_none() { "size 41x101\r\n" } else { "size " });
    resize(&master, 42, 102);
    master.wait_for("size 42x102\r\n");
    running.wait().ok();
});

container_test!(the_terminals_last_words_are_not_lost, |c| {
    sleep(c);
    for _ in 0..10 {
        let (master, slave, _) = pty::open(24, 80);
        // Not its controlling terminal: the end of a session's leader throws away what nobody has read yet.
        let copy = || std::process::Stdio::from(slave.try_clone().unwrap());
        let mut command = c.command(&line(c, &["-t"], &["echo", "the last words"]));
        let status = command.stdin(copy()).stdout(copy()).stderr(copy()).status().unwrap();
        assert!(status.success(), "{}", master.text());
        master.wait_for("the last words\r\n");
    }
});

container_test!(control_c_reaches_the_program, |c| {
    sleep(c);
    let (mut master, slave, name) = pty::open(24, 80);
    let before = tcgetattr(slave.as_fd()).unwrap();
    let running = on_terminal(c, &name, &["sleep-forever"]);
    master.wait_for("ready");
    master.write("\u{3}");
    running.wait().exits(130);
    assert_eq!(tcgetattr(slave.as_fd()).unwrap().local_flags, before.local_flags);
    assert_eq!(c.status(), "running");
});

container_test!(the_terminal_is_restored_when_the_container_is_killed, |c| {
    sleep(c);
    let (master, slave, name) = pty::open(24, 80);
    let before = tcgetattr(slave.as_fd()).unwrap();
    let running = on_terminal(c, &name, &["sleep-forever"]);
    master.wait_for("ready");
    c.kill(&["KILL"]).ok();
    running.wait().exits(137);
    assert_eq!(tcgetattr(slave.as_fd()).unwrap().local_flags, before.local_flags);
});

container_test!(a_terminal_in_the_foreground_needs_one_of_the_callers, |c| {
    skip_for_runc!(c, "its words are others");
    sleep(c);
    // A new session without a terminal.
    let output = exec(c, &["-t"], &["facts"]);
    match output.code {
        0 => assert_ne!(facts(&output.stdout)["tty"]["0"], Value::Null),
        _ => assert_has(output.exits(255).stderr, "terminal"),
    }
});

/// The facts of a process that an `exec` starts which inherits descriptors 3, 4, 5 and 9.
fn inherited(c: &Container, flags: &[&str]) -> crate::common::Output {
    for name in ["three", "four", "five", "nine"] {
        std::fs::write(c.path(name), "").unwrap();
    }
    let open = |fd: i32, name: &str| format!("open={fd}:{}", c.path(name).display());
    let mut options = vec![open(3, "three"), open(4, "four"), open(5, "five"), open(9, "nine")];
    options.extend((6..9).chain(10..30).map(|fd| format!("close={fd}")));
    let mut prefix = vec![guest().to_str().unwrap(), "with"];
    prefix.extend(options.iter().map(String::as_str));
    prefix.push("--");
    finish(&mut c.command_by(&prefix, &line(c, flags, &["facts"])), &c.dir)
}

container_test!(nothing_but_the_first_three_comes_in, |c| {
    sleep(c);
    let facts = inherited(c, &[]).ok().json();
    assert_eq!(super::descriptors::names(&facts), Vec::<String>::new());
    let prefix = [guest().to_str().unwrap(), "with", "open=7:/", "open=8:/sys/fs/cgroup", "--"];
    let facts = finish(&mut c.command_by(&prefix, &line(c, &[], &["facts"])), &c.dir).ok().json();
    assert_eq!(super::descriptors::names(&facts), Vec::<String>::new());
});

container_test!(preserved_ones_keep_their_numbers, |c| {
    sleep(c);
    let names = |flags: &[&str]| super::descriptors::names(&inherited(c, flags).ok().json());
    assert_eq!(names(&["--preserve-fds", "2"]), ["3:three", "4:four"]);
    assert_eq!(names(&["--preserve-fds=3"]), ["3:three", "4:four", "5:five"]);
    assert_eq!(names(&["--preserve-fds", "0"]), Vec::<String>::new());
});

container_test!(no_descriptor_of_the_runtime_is_handed_out, |c| {
    skip_for_runc!(c, "runc hands out its own where the caller's are missing");
    sleep(c);
    let facts = inherited(c, &["--preserve-fds", "7"]).ok().json();
    assert_eq!(super::descriptors::names(&facts), ["3:three", "4:four", "5:five", "9:nine"]);
});

container_test!(the_standard_ones_are_the_callers_own, |c| {
    sleep(c);
    let pid = super::exec::detached(c, &[]);
    let out = std::fs::read_link(format!("/proc/{pid}/fd/1")).unwrap();
    assert!(out.starts_with(&c.dir), "{out:?}");
});

container_test!(the_pidfd_socket_gets_a_pidfd, |c| {
    skip_for_runc!(c, "runc has it since 1.2");
    sleep(c);
    let socket = c.path("pidfd");
    let listener = UnixListener::bind(&socket).unwrap();
    let pid = super::exec::detached(c, &["--pidfd-socket", socket.to_str().unwrap()]);
    let (_, fd) = pty::receive(&listener);
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
    let named = info.lines().find_map(|line| line.strip_prefix("Pid:")).expect("a pidfd").trim().to_owned();
    assert_eq!(named, pid.to_string());
    let output = exec(c, &["--pidfd-socket", "/no/such/socket"], &["true"]).exits(255);
    assert_has(output.stderr, "/no/such/socket");
});
