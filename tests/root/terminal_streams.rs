//! What `run` and `exec` do with the caller's streams and terminal when the caller is slow, gone, or sends a signal.

use std::io::Read;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, tcgetattr};
use serde_json::json;

use super::exec::line;
use super::terminal::{facts, resize};
use crate::common::program::{finish, guest, start};
use crate::common::{Container, assert_has, eventually, host, pty};
use crate::{container_test, skip_for_runc};

/// More than a terminal, a pipe and the runtime's buffers hold together.
const WORDS: usize = 8;
const WORD: usize = 100_000;

/// The payload: much text, and a last word.
fn much(word: &str) -> Vec<&str> {
    let mut all = vec!["all"];
    (0..WORDS).for_each(|_| all.extend(["echo", word, ","]));
    all.extend(["echo", "the end"]);
    all
}

/// Both ways to get a program with a terminal in the foreground; the container exists for `exec`.
fn ways(c: &mut Container, words: &[&str]) -> [Vec<String>; 2] {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    // For the run, a second container of the same bundle.
    c.set("/process/terminal", true).args(words);
    let cgroup = format!("{}/{}-run", c.cgroup, c.id);
    c.set("/linux/cgroupsPath", cgroup);
    c.write_config();
    let owned = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect();
    [owned(vec!["run", "another"]), owned(line(c, &["-t"], words))]
}

/// Started with a pipe as its output, which the test has the other end of.
fn piped(mut command: Command) -> (std::process::Child, ChildStdout) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let pipe = child.stdout.take().unwrap();
    (child, pipe)
}

container_test!(a_reader_that_pauses_costs_nothing_and_loses_nothing, |c| {
    skip_for_runc!(c, "runc needs a terminal");
    let word = "x".repeat(WORD);
    for words in ways(c, &much(&word)) {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        let (mut child, mut pipe) = piped(c.command(&words));
        let mut first = [0; 1];
        pipe.read_exact(&mut first).unwrap();
        // All buffers are full now.
        std::thread::sleep(Duration::from_millis(300));
        let before = host::cpu_time(child.id().cast_signed());
        std::thread::sleep(Duration::from_millis(300));
        let spent = host::cpu_time(child.id().cast_signed()) - before;
        assert!(spent < Duration::from_millis(30), "{}: {spent:?}", words[0]);
        let mut rest = String::new();
        pipe.read_to_string(&mut rest).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(rest.bytes().filter(|byte| *byte == b'x').count() + 1, WORDS * WORD, "{}", words[0]);
        assert_has(rest, "the end");
    }
});

container_test!(a_reader_that_is_gone_hangs_nobody, |c| {
    skip_for_runc!(c, "runc needs a terminal");
    let word = "x".repeat(WORD);
    for words in ways(c, &much(&word)) {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        let (mut child, pipe) = piped(c.command(&words));
        drop(pipe);
        eventually("it ends", || child.try_wait().unwrap().is_some());
        assert!(child.wait().unwrap().success(), "{}: the program's own status", words[0]);
    }
});

container_test!(the_callers_terminal_is_restored_after_a_signal, |c| {
    let words = ["all", "catch", "42", "15", "1"];
    for words in ways(c, &words) {
        for signal in [Signal::SIGTERM, Signal::SIGHUP] {
            let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
            let (master, slave, name) = pty::open(24, 80);
            let before = tcgetattr(&slave).unwrap();
            let tty = format!("tty={name}");
            let prefix = [guest().to_str().unwrap(), "with", &tty, "--"];
            let running = start(&mut c.command_by(&prefix, &words), &c.dir);
            master.wait_for("ready");
            eventually("raw mode", || !tcgetattr(&slave).unwrap().local_flags.contains(LocalFlags::ICANON));
            running.signal(signal);
            running.wait().exits(42);
            let after = tcgetattr(&slave).unwrap();
            assert_eq!((after.local_flags, after.input_flags), (before.local_flags, before.input_flags), "{words:?}");
            assert_eq!(after.output_flags, before.output_flags, "{words:?}");
        }
    }
});

container_test!(the_terminal_is_one_of_the_containers_own, |c| {
    skip_for_runc!(c, "its console has another number");
    c.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    for words in ways(c, &["all", "facts", ",", "stat", "/dev/pts/0"]) {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        let (master, _slave, name) = pty::open(24, 80);
        let tty = format!("tty={name}");
        let prefix = [guest().to_str().unwrap(), "with", &tty, "--"];
        let running = start(&mut c.command_by(&prefix, &words), &c.dir);
        master.wait_for("/dev/pts/0 c 620 1000 5 ");
        running.wait().ok();
        let facts = facts(&master.text());
        for fd in ["0", "1", "2"] {
            let tty = &facts["tty"][fd];
            assert!(tty["name"] == "/dev/pts/0" || tty["name"] == "/dev/console", "{tty}");
            assert_eq!(tty["controlling"], true, "{tty}");
        }
    }
});

container_test!(a_detached_terminal_is_resized_by_its_holder, |c| {
    let socket = c.path("console");
    let listen = || {
        let _ = std::fs::remove_file(&socket);
        std::os::unix::net::UnixListener::bind(&socket).unwrap()
    };
    let listener = listen();
    c.set("/process/terminal", true).args(&["all", "winsize-on-signal", ",", "sleep-forever"]);
    c.run_with(&["--detach", "--console-socket", socket.to_str().unwrap()]).ok();
    let of_run = pty::receive(&listener).1;
    let listener = listen();
    let flags = ["--tty", "--detach", "--console-socket", socket.to_str().unwrap()];
    super::exec::exec(c, &flags, &["winsize-on-signal"]).ok();
    for fd in [of_run, pty::receive(&listener).1] {
        let master = pty::Master::new(std::fs::File::from(fd));
        master.wait_for("size ");
        resize(&master, 43, 103);
        master.wait_for("size 43x103\r\n");
    }
});

container_test!(create_keeps_none_of_the_callers_streams, |c| {
    // Once the container is gone there is nobody left who could write: not even a helper of the runtime's.
    c.args(&["sleep-forever"]);
    c.write_config();
    let mut command = c.command(&["create", &c.id]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    assert!(child.wait().unwrap().success());
    c.start().ok();
    let readers = [
        std::thread::spawn(move || out.read_to_end(&mut Vec::new()).unwrap()),
        std::thread::spawn(move || err.read_to_end(&mut Vec::new()).unwrap()),
    ];
    std::thread::sleep(Duration::from_millis(50));
    assert!(!readers.iter().any(std::thread::JoinHandle::is_finished), "the container has them");
    c.kill(&["KILL"]).ok();
    c.wait_status("stopped");
    eventually("both end", || readers.iter().all(std::thread::JoinHandle::is_finished));
});

container_test!(no_command_needs_an_environment, |c| {
    c.args(&["sleep-forever"]);
    c.write_config();
    for words in [
        vec!["create", c.id.as_str()],
        vec!["start", &c.id],
        line(c, &[], &["true"]),
        vec!["state", &c.id],
        vec!["kill", &c.id, "KILL"],
        vec!["delete", "--force", &c.id],
        vec!["run", "--detach", &c.id],
    ] {
        finish(c.command(&words).env_clear(), &c.dir).ok();
    }
    c.delete_force().ok();
    c.args(&["exit", "3"]);
    c.write_config();
    finish(c.command(&["run", &c.id]).env_clear(), &c.dir).exits(3);
});
