//! `run`: create, start, wait, delete; or `--detach`.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::program::{finish, guest, start};
use crate::common::{assert_has, eventually, host};
use crate::container_test;

container_test!(passes_the_exit_status_on, |c| {
    for code in ["0", "1", "7", "137", "255"] {
        c.args(&["exit", code]);
        c.run().exits(code.parse().unwrap());
        c.assert_clean();
    }
});

container_test!(a_signal_gives_128_and_its_number, |c| {
    // Pid 1 of a pid namespace is immune to its own signals, so this payload lives in the host's.
    c.remove("/linux/namespaces/0");
    for signal in [2, 6, 9, 15] {
        c.args(&["kill-self", &signal.to_string()]);
        c.run().exits(128 + signal);
    }
});

container_test!(a_kill_from_outside_gives_128_and_its_number, |c| {
    c.args(&["sleep-forever"]);
    c.write_config();
    let mut running = start(&mut c.command(&["run", &c.id]), &c.dir);
    running.wait_for("ready");
    c.kill(&["KILL"]).ok();
    running.wait().exits(137);
    c.assert_clean();
});

container_test!(a_fault_gives_139, |c| {
    c.args(&["kill-self", "11"]);
    c.run().exits(139);
});

container_test!(passes_output_through_and_adds_nothing, |c| {
    c.args(&["all", "echo", "out", ",", "err", "oops"]);
    let output = c.run().ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "oops\n"));
});

container_test!(passes_input_through, |c| {
    fs::write(c.path("input"), "some input\n").unwrap();
    c.args(&["pass-input"]);
    c.write_config();
    let mut command = c.command(&["run", &c.id]);
    let output = finish(command.stdin(fs::File::open(c.path("input")).unwrap()), &c.dir).ok();
    assert_eq!(output.stdout, "SOME INPUT\n");
});

container_test!(detach_returns_while_the_program_runs, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    assert_eq!(c.status(), "running");
    c.delete().exits(1);
    c.kill(&["KILL"]).ok();
    c.wait_status("stopped");
    c.delete().ok();
});

container_test!(detach_keeps_a_stopped_container, |c| {
    c.args(&["exit", "3"]);
    c.detach().ok();
    c.wait_status("stopped");
    assert_eq!(c.state()["pid"], 0);
});

container_test!(detach_passes_nothing_of_the_exit_status_on, |c| {
    c.args(&["exit", "9"]);
    c.run_with(&["-d"]).ok();
});

container_test!(detach_writes_the_pid_file, |c| {
    c.args(&["sleep-forever"]);
    let file = c.path("pid");
    c.run_with(&["--detach", "--pid-file", file.to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), c.pid().to_string());
});

container_test!(keep_leaves_the_stopped_container, |c| {
    c.args(&["exit", "5"]);
    let output = c.run_with(&["--keep"]);
    if output.stderr.contains("not defined") {
        return crate::common::skip(&c.name, "this runtime has no --keep");
    }
    output.exits(5);
    assert_eq!(c.status(), "stopped");
    assert!(!host::cgroups(&format!("{}/{}", c.cgroup, c.id)).is_empty(), "its cgroup should be kept");
    c.delete().ok();
});

container_test!(forwards_signals, |c| {
    let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGQUIT];
    for signal in signals {
        let number = (signal as i32).to_string();
        c.args(&["catch", "42", &number]);
        c.write_config();
        let mut running = start(&mut c.command(&["run", &c.id]), &c.dir);
        running.wait_for("ready");
        running.signal(signal);
        let output = running.wait().exits(42);
        assert_has(output.stdout, &format!("got {number}\n"));
    }
});

// libc may keep it for itself (musl), and mustn't keep it from being forwarded.
container_test!(forwards_the_first_real_time_signal, |c| {
    c.args(&["catch", "42", "34"]);
    c.write_config();
    let mut running = start(&mut c.command(&["run", &c.id]), &c.dir);
    running.wait_for("ready");
    let pid = running.pid().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "RTMIN", &pid]).status().unwrap().success());
    assert_has(running.wait().exits(42).stdout, "got 34\n");
});

container_test!(a_payload_that_ends_at_once_is_not_missed, |c| {
    for _ in 0..20 {
        c.args(&["exit", "4"]);
        c.run().exits(4);
    }
});

container_test!(a_killed_payload_leaves_no_zombie, |c| {
    c.args(&["orphan-zombies", "5"]);
    c.write_config();
    let mut running = start(&mut c.command(&["run", &c.id]), &c.dir);
    running.wait_for("ready");
    let pid = c.pid();
    c.kill(&["KILL"]).ok();
    running.wait().exits(137);
    eventually("the init is reaped", || host::process_state(pid).is_none());
});

container_test!(a_missing_container_process_is_an_error, |c| {
    c.set("/process/args", json!(["nosuchprogram"]));
    c.run().exits(1);
    c.assert_clean();
});

container_test!(closed_standard_descriptors_are_no_problem, |c| {
    c.args(&["write", "/ran", "yes"]);
    c.write_config();
    let probe = guest().to_str().unwrap();
    for closed in [vec!["close=0"], vec!["close=1"], vec!["close=2"], vec!["close=0", "close=1", "close=2"]] {
        let mut prefix = vec![probe, "with"];
        prefix.extend(&closed);
        prefix.push("--");
        finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir).ok();
        assert_eq!(fs::read_to_string(c.rootfs().join("ran")).unwrap(), "yes", "{closed:?}");
        fs::remove_file(c.rootfs().join("ran")).unwrap();
    }
});

container_test!(a_closed_output_is_not_kept_open, |c| {
    // A caller that reads a pipe to its end must not wait for anyone but the payload.
    c.args(&["exit", "0"]);
    c.write_config();
    let mut child = c.command(&["run", "--detach", &c.id]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || std::io::Read::read_to_end(&mut pipe, &mut Vec::new()).unwrap());
    child.wait().unwrap();
    c.wait_status("stopped");
    eventually("the pipe ends", || reader.is_finished());
});

container_test!(a_container_deleted_meanwhile_still_passes_its_status_on, |c| {
    c.args(&["sleep-forever"]);
    c.write_config();
    let running = crate::common::program::start(&mut c.command(&["run", &c.id]), &c.dir);
    crate::common::eventually("running", || c.tare(&["state", &c.id]).stdout.contains("\"running\""));
    c.delete_force().ok();
    running.wait().exits(137);
    c.assert_clean();
});
