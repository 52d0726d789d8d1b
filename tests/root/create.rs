//! `create`: ready to exec, waiting, and everything it was asked to leave.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::{assert_has, host};
use crate::container_test;

container_test!(waits_before_the_program, |c| {
    c.args(&["write", "/ran", "yes"]);
    let output = c.create().ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    assert_eq!(c.status(), "created");
    assert!(!c.rootfs().join("ran").exists(), "the program ran before start");
    c.start().ok();
    c.wait_status("stopped");
    assert_eq!(fs::read_to_string(c.rootfs().join("ran")).unwrap(), "yes");
});

container_test!(the_bundle_defaults_to_the_working_folder, |c| {
    c.write_config();
    c.tare(&["create", &c.id]).ok();
    assert_eq!(c.state()["bundle"], c.bundle().to_str().unwrap());
});

container_test!(a_relative_bundle_is_recorded_as_absolute, |c| {
    c.write_config();
    c.tare(&["create", "-b", "../bundle", &c.id]).ok();
    assert_eq!(c.state()["bundle"], c.bundle().to_str().unwrap());
});

container_test!(writes_the_pid_file_without_a_newline, |c| {
    c.args(&["sleep-forever"]);
    let file = c.path("pid");
    c.create_with(&["--pid-file", file.to_str().unwrap()]).ok();
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text, c.pid().to_string());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    let left: Vec<_> = fs::read_dir(&c.dir).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 3, "bundle, pid and state are expected, nothing temporary: {left:?}");
});

container_test!(replaces_the_pid_file_atomically, |c| {
    let file = c.path("pid");
    fs::write(&file, "an old and much longer text").unwrap();
    let old = fs::File::open(&file).unwrap();
    c.create_with(&["--pid-file", file.to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), c.pid().to_string());
    assert_eq!(std::io::read_to_string(old).unwrap(), "an old and much longer text", "written in place");
});

container_test!(writes_no_pid_file_when_it_fails, |c| {
    c.set("/process/args", serde_json::json!(["/no/such/program"]));
    let file = c.path("pid");
    c.create_with(&["--pid-file", file.to_str().unwrap()]).exits(1);
    assert!(!file.exists());
});

container_test!(an_id_in_use_is_refused, |c| {
    c.create().ok();
    let pid = c.pid();
    c.create().fails(&["container with given ID already exists"]);
    assert_eq!((c.status(), c.pid()), ("created".into(), pid), "the first container should be untouched");
});

container_test!(the_id_of_a_stopped_container_is_in_use, |c| {
    c.detach().ok();
    c.wait_status("stopped");
    c.create().fails(&["container with given ID already exists"]);
});

container_test!(later_edits_of_the_bundle_have_no_effect, |c| {
    c.args(&["write", "/first", ""]);
    c.create().ok();
    c.args(&["write", "/second", ""]);
    c.write_config();
    c.start().ok();
    c.wait_status("stopped");
    assert!(c.rootfs().join("first").exists());
    assert!(!c.rootfs().join("second").exists());
});

container_test!(the_container_is_no_child_of_the_runtime, |c| {
    c.args(&["sleep-forever"]);
    c.create().ok();
    let status = fs::read_to_string(format!("/proc/{}/status", c.pid())).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim();
    let command = fs::read_to_string(format!("/proc/{parent}/cmdline")).unwrap_or_default();
    assert!(!command.contains(c.dir.to_str().unwrap()), "its parent is {command}");
    assert_eq!(host::processes(c.dir.to_str().unwrap()), [c.pid()], "one process and no helper");
});

container_test!(works_with_an_empty_environment, |c| {
    c.write_config();
    let mut command = c.command(&["create", &c.id]);
    crate::common::program::finish(command.env_clear(), &c.dir).ok();
    assert_eq!(c.status(), "created");
});

container_test!(a_folder_that_is_no_bundle_is_an_error, |c| {
    let missing = c.path("nowhere");
    let output = c.tare(&["create", "--bundle", missing.to_str().unwrap(), &c.id]).exits(1);
    assert_has(output.stderr, missing.to_str().unwrap());
});
