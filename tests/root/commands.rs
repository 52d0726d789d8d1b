//! The command line on real containers: what a person types, and files that aren't ordinary ones.

use std::fs;
use std::process::Stdio;

use nix::fcntl::OFlag;
use serde_json::json;

use super::exec::{exec, sleep};
use crate::common::program::finish;
use crate::common::{Container, Output, assert_has};
use crate::{container_test, skip_for_runc};

container_test!(joined_short_options_of_exec, |c| {
    skip_for_runc!(c, "it takes no joined options");
    sleep(c);
    exec(c, &["-du", "5:6"], &["true"]).ok();
    let facts = exec(c, &["-iu=5:6"], &["facts"]).ok().json();
    assert_eq!((&facts["status"]["Uid"], &facts["status"]["Gid"]), (&json!("5 5 5 5"), &json!("6 6 6 6")));
    exec(c, &["-ix"], &["true"]).exits(255).has("unknown option \"--ix\"");
});

/// Runs these words with standard input a pipe that holds `text` and ends.
fn with_pipe(c: &Container, words: &[&str], text: &str) -> Output {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    nix::unistd::write(&write, text.as_bytes()).unwrap();
    drop(write);
    finish(c.command(words).stdin(Stdio::from(read)), &c.dir)
}

container_test!(a_process_file_may_be_a_pipe, |c| {
    sleep(c);
    let process = json!({ "args": ["/guest", "exit", "7"], "cwd": "/", "user": { "uid": 0, "gid": 0 } }).to_string();
    with_pipe(c, &["exec", "--process", "/proc/self/fd/0", &c.id], &process).exits(7);
});

container_test!(a_config_file_may_be_a_pipe, |c| {
    skip_for_runc!(c, "it has no --config");
    c.args(&["exit", "7"]);
    with_pipe(c, &["run", "--config", "/proc/self/fd/0", &c.id], &c.config.to_string()).exits(7);
});

container_test!(errors_name_the_file_that_was_read, |c| {
    skip_for_runc!(c, "it has no --config");
    let file = c.path("prod.json");
    let file = file.to_str().unwrap();
    for (pointer, value) in [
        // Found when the file is checked, in the container's process, and by the runtime afterwards.
        ("/process/cwd", json!("relative")),
        ("/process/oomScoreAdj", json!(5000)),
        ("/linux/maskedPaths", json!(["relative"])),
    ] {
        let mut config = c.config.clone();
        crate::common::config::set(&mut config, pointer, value);
        fs::write(file, config.to_string()).unwrap();
        let output = c.run_with(&["--config", file]);
        let output = output.fails(&[&format!("{file}: {pointer}")]);
        assert!(!output.stderr.contains("config.json"), "{}", output.stderr);
    }
    fs::write(file, "{]").unwrap();
    c.run_with(&["--config", file]).fails(&[&format!("{file}: not valid JSON")]);
});

/// Makes stopped containers of these names.
fn stopped(c: &mut Container, names: &[&str]) {
    c.remove("/linux/cgroupsPath");
    c.write_config();
    for name in names {
        c.tare(&["run", "--keep", name]).ok();
    }
}

container_test!(delete_by_a_regular_expression, |c| {
    skip_for_runc!(c, "it has no --regex");
    c.args(&["true"]);
    let prefix = format!("tare-test-{}-{}-", std::process::id(), c.id);
    let names = ["web-1", "web-22", "db-1", "web-x"].map(|name| format!("{prefix}{name}"));
    stopped(c, &names.each_ref().map(String::as_str));
    c.tare(&["delete", "--regex", "web-[0-9]+$"]).ok();
    assert_eq!(c.tare(&["list", "--quiet"]).ok().stdout, format!("{}\n{}\n", names[2], names[3]));
    c.tare(&["delete", "--regex", "nothing"]).ok();
    c.tare(&["delete", "--regex", "a("]).fails(&["--regex \"a(\": "]);
    c.tare(&["delete", "-f", "-r", "."]).ok();
    assert_eq!(c.tare(&["list", "--quiet"]).ok().stdout, "");
});

container_test!(a_running_container_doesnt_keep_the_others_of_an_expression, |c| {
    skip_for_runc!(c, "it has no --regex");
    sleep(c);
    c.write_config();
    let other = format!("tare-test-{}-{}-z", std::process::id(), c.id);
    c.set("/process/args", json!(["/guest", "true"]));
    stopped(c, &[&other]);
    c.tare(&["delete", "--regex", "."]).fails(&["not stopped"]);
    assert_eq!(c.tare(&["list", "--quiet"]).ok().stdout, format!("{}\n", c.id));
});

container_test!(the_steps_of_a_create_and_an_exec_are_in_the_debug_log, |c| {
    skip_for_runc!(c, "its own words");
    let log = c.path("log");
    let flags = ["--debug", "--log", log.to_str().unwrap(), "--log-format", "json"];
    let read = || {
        let text = fs::read_to_string(&log).unwrap();
        fs::remove_file(&log).unwrap();
        text
    };
    c.args(&["sleep-forever"]);
    c.write_config();
    finish(c.command(&flags).args(["create", "--bundle", c.bundle().to_str().unwrap(), &c.id]), &c.dir).ok();
    let text = read();
    for step in ["config.json is valid", "state directory", "cgroup", "container process", "waits for its start"] {
        assert_has(&text, step);
    }
    finish(c.command(&flags).args(["start", &c.id]), &c.dir).ok();
    assert_has(read(), "started");
    finish(c.command(&flags).args(["exec", &c.id, "/guest", "true"]), &c.dir).ok();
    let text = read();
    for step in ["container process", "joined", "runs"] {
        assert_has(&text, step);
    }
    finish(c.command(&flags).args(["delete", "--force", &c.id]), &c.dir).ok();
    let text = read();
    assert_has(&text, "deleted");
    assert!(text.lines().all(|line| line.contains(r#""level":"debug""#)), "{text}");
});
