//! Terminals: --console-socket, consoleSize, and `run` in the foreground on the caller's terminal.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use nix::sys::termios::{LocalFlags, tcgetattr};
use serde_json::{Value, json};

use crate::common::program::{guest, start};
use crate::common::{Container, assert_has, eventually, mountinfo, pty, rival};
use crate::{container_test, skip_for_runc};

/// A container with a terminal and a socket to send it to.
fn with_socket(c: &mut Container) -> UnixListener {
    c.set("/process/terminal", true);
    UnixListener::bind(c.path("console")).unwrap()
}

/// The probe's facts out of what a terminal has shown.
pub(super) fn facts(text: &str) -> Value {
    let line = text.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no facts in {text}"));
    serde_json::from_str(line.trim()).unwrap()
}

container_test!(create_sends_the_master, |c| {
    let listener = with_socket(c);
    c.set("/process/consoleSize", json!({ "height": 33, "width": 77 }));
    c.args(&["facts"]);
    let socket = c.path("console");
    // Nobody accepts yet: go-runc does so only after create has returned.
    c.create_with(&["--console-socket", socket.to_str().unwrap()]).ok();
    let (_, fd) = pty::receive(&listener);
    let master = pty::Master::new(File::from(fd));
    c.start().ok();
    master.wait_for("}\r\n");
    let facts = facts(&master.text());
    for fd in ["0", "1", "2"] {
        let tty = &facts["tty"][fd];
        assert_eq!((&tty["rows"], &tty["columns"]), (&json!(33), &json!(77)), "{tty}");
        assert_eq!(tty["controlling"], true, "{tty}");
        assert!(tty["name"] == "/dev/pts/0" || tty["name"] == "/dev/console", "{tty}");
    }
    assert_eq!(facts["sid"], 1);
    assert_eq!(mountinfo::at(&facts, "/dev/console").fstype, "devpts");
});

container_test!(run_detached_sends_the_master, |c| {
    let listener = with_socket(c);
    c.args(&["pass-input"]);
    let socket = c.path("console");
    c.run_with(&["--detach", "--console-socket", socket.to_str().unwrap()]).ok();
    let (_, fd) = pty::receive(&listener);
    let mut master = pty::Master::new(File::from(fd));
    master.write("some text\n");
    master.wait_for("SOME TEXT\r\n");
});

container_test!(the_console_belongs_to_the_user, |c| {
    let listener = with_socket(c);
    c.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    c.args(&["all", "stat", "/dev/pts/0", ",", "stat", "/dev/console", ",", "open", "/dev/console", "rw"]);
    let socket = c.path("console");
    c.create_with(&["--console-socket", socket.to_str().unwrap()]).ok();
    let (_, fd) = pty::receive(&listener);
    let master = pty::Master::new(File::from(fd));
    c.start().ok();
    master.wait_for("ok\r\n");
    assert_has(master.text(), "/dev/pts/0 c 620 1000 5 ");
    assert_has(master.text(), "/dev/console c 620 1000 5 ");
});

container_test!(a_socket_that_is_not_there_is_an_error, |c| {
    c.set("/process/terminal", true);
    c.create_with(&["--console-socket", "/no/such/socket"]).fails(&["/no/such/socket"]);
    c.assert_clean();
});

container_test!(a_terminal_without_a_socket_is_an_error, |c| {
    c.set("/process/terminal", true);
    assert_has(c.create().exits(1).stderr, "console");
    assert_has(c.detach().exits(1).stderr, "console");
    c.assert_clean();
});

container_test!(a_socket_without_a_terminal_is_an_error, |c| {
    let _listener = UnixListener::bind(c.path("console")).unwrap();
    let socket = c.path("console");
    c.create_with(&["--console-socket", socket.to_str().unwrap()]).fails(&["console"]);
    c.assert_clean();
});

container_test!(run_in_the_foreground_uses_the_callers_terminal, |c| {
    let (mut master, slave, name) = pty::open(40, 100);
    let before = tcgetattr(slave.as_fd()).unwrap();
    c.set("/process/terminal", true);
    c.args(&["pass-input"]);
    c.write_config();
    let tty = format!("tty={name}");
    let prefix = [guest().to_str().unwrap(), "with", &tty, "--"];
    let running = start(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir);
    eventually("raw mode", || !tcgetattr(slave.as_fd()).unwrap().local_flags.contains(LocalFlags::ICANON));
    assert!(!tcgetattr(slave.as_fd()).unwrap().local_flags.contains(LocalFlags::ECHO));
    eventually("it runs", || c.tare(&["state", &c.id]).stdout.contains("running"));
    master.write("hello\n");
    master.wait_for("HELLO\r\n");
    // End of file, as a user types it; it is the container's terminal that makes it of the character.
    master.write("\x04");
    running.wait().ok();
    let after = tcgetattr(slave.as_fd()).unwrap();
    assert_eq!(after.local_flags, before.local_flags, "the terminal should be as it was");
    assert_eq!((after.input_flags, after.output_flags), (before.input_flags, before.output_flags));
});

container_test!(the_terminals_size_is_passed_on, |c| {
    let (master, _slave, name) = pty::open(41, 101);
    c.set("/process/terminal", true);
    c.args(&["winsize-on-signal"]);
    c.write_config();
    let tty = format!("tty={name}");
    let prefix = [guest().to_str().unwrap(), "with", &tty, "--"];
    let running = start(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir);
    if rival().is_none() {
        master.wait_for("size 41x101\r\n");
    } else {
        master.wait_for("size ");
    }
    resize(&master, 42, 102);
    master.wait_for("size 42x102\r\n");
    running.wait().ok();
});

/// The slave's session gets SIGWINCH.
#[allow(unsafe_code)]
pub(super) fn resize(master: &pty::Master, rows: u16, columns: u16) {
    use std::os::fd::AsRawFd;
    let size = nix::libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a winsize, and `size` is one.
    let result = unsafe { nix::libc::ioctl(master.file.as_raw_fd(), nix::libc::TIOCSWINSZ, &raw const size) };
    assert_eq!(result, 0);
}

container_test!(the_terminal_is_restored_when_the_program_is_killed, |c| {
    let (master, slave, name) = pty::open(24, 80);
    let before = tcgetattr(slave.as_fd()).unwrap();
    c.set("/process/terminal", true);
    c.args(&["sleep-forever"]);
    c.write_config();
    let tty = format!("tty={name}");
    let prefix = [guest().to_str().unwrap(), "with", &tty, "--"];
    let running = start(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir);
    master.wait_for("ready");
    c.kill(&["KILL"]).ok();
    running.wait().exits(137);
    assert_eq!(tcgetattr(slave.as_fd()).unwrap().local_flags, before.local_flags);
});

container_test!(the_terminals_last_words_are_not_lost, |c| {
    c.set("/process/terminal", true);
    c.args(&["echo", "the last words"]);
    c.write_config();
    for _ in 0..10 {
        let (master, _slave, name) = pty::open(24, 80);
        let tty = format!("tty={name}");
        let prefix = [guest().to_str().unwrap(), "with", &tty, "--"];
        start(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir).wait().ok();
        master.wait_for("the last words\r\n");
    }
});

container_test!(a_foreground_terminal_has_the_size_of_the_config_without_a_terminal_to_copy, |c| {
    skip_for_runc!(c, "runc needs a terminal");
    c.set("/process/terminal", true);
    c.set("/process/consoleSize", json!({ "height": 11, "width": 22 }));
    c.args(&["facts"]);
    let output = c.run();
    // Without a terminal of the caller's, a runtime may refuse; if it runs, the size is the config's.
    if output.code == 0 {
        let facts = facts(&output.stdout);
        assert_eq!(facts["tty"]["0"]["rows"], 11);
    } else {
        output.fails(&["terminal"]);
    }
});
