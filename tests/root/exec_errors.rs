//! What `exec` refuses: status 255, one line that says why, the same in the JSON log, nothing left behind.

use std::fs;

use serde_json::{Value, json};

use super::exec::{exec, exec_other, sleep};
use crate::common::host::{self, chmod};
use crate::common::{Container, assert_has, rival};
use crate::{container_test, skip_for_runc};

/// `exec WORDS` must fail with 255 and say each of the `parts` on its one line and in its one log entry.
#[track_caller]
fn refused(c: &Container, words: &[&str], parts: &[&str]) {
    let log = c.path("log.json");
    let _ = fs::remove_file(&log);
    let pid_file = c.path("refused-pid");
    let mut all = vec!["--log", log.to_str().unwrap(), "--log-format", "json", "exec"];
    all.extend(["--pid-file", pid_file.to_str().unwrap()]);
    all.extend(words);
    let output = c.tare(&all).exits(255);
    assert_eq!(output.stdout, "", "{output}");
    assert_eq!(output.stderr.lines().count(), 1, "one line of error is expected\n{output}");
    assert!(!pid_file.exists(), "a pid file of a process that never was");
    let text = fs::read_to_string(&log).unwrap();
    let entries: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {text}"))).collect();
    if rival().is_none() {
        assert_eq!(entries.len(), 1, "{text}");
    }
    let entry = entries.last().unwrap();
    assert_eq!(entry["level"], "error", "{text}");
    for part in parts {
        assert_has(&output.stderr, part);
        assert_has(entry["msg"].as_str().unwrap(), part);
    }
    let left = host::processes(c.dir.to_str().unwrap());
    assert!(left.len() <= 1, "only the container's own is expected: {left:?}");
}

/// The same; another runtime only has to fail, in its own words.
#[track_caller]
fn refused_in_our_words(c: &Container, words: &[&str], parts: &[&str]) {
    if rival().is_none() {
        return refused(c, words, parts);
    }
    let mut all = vec!["exec"];
    all.extend(words);
    let output = c.tare(&all);
    assert!(output.code == 255 || output.code == 1, "{output}");
}

container_test!(no_such_container, |c| {
    refused(c, &["nobody", "/guest", "true"], &["does not exist"]);
});

container_test!(a_bad_id, |c| {
    for id in ["../state", "a/b", ".", ".."] {
        refused_in_our_words(c, &[id, "/guest", "true"], &[]);
    }
});

container_test!(a_stopped_container, |c| {
    c.detach().ok();
    c.wait_status("stopped");
    refused(c, &[&c.id, "/guest", "true"], &["cannot exec in a stopped container"]);
    assert_eq!(c.status(), "stopped");
});

container_test!(no_program, |c| {
    sleep(c);
    refused_in_our_words(c, &[&c.id, ""], &[]);
    // What was never a command may be told as of any other command.
    for words in [vec!["exec"], vec!["exec", &c.id]] {
        let output = c.tare(&words);
        assert!(output.code == 1 || output.code == 255, "{output}");
    }
});

container_test!(an_unknown_flag, |c| {
    sleep(c);
    let output = exec(c, &["--no-such-flag"], &["true"]);
    assert_ne!(output.code, 0);
    assert_has(output.stderr, "no-such-flag");
});

container_test!(a_program_that_is_not_in_the_path, |c| {
    sleep(c);
    refused(c, &[&c.id, "nosuchprogram"], &["nosuchprogram", "executable file not found in $PATH"]);
    refused(c, &["-d", &c.id, "nosuchprogram"], &["nosuchprogram", "executable file not found in $PATH"]);
});

container_test!(a_program_that_is_not_there, |c| {
    sleep(c);
    refused(c, &[&c.id, "/no/such/program"], &["/no/such/program", "no such file or directory"]);
});

container_test!(a_program_that_is_not_executable, |c| {
    fs::write(c.rootfs().join("file"), "").unwrap();
    chmod(&c.rootfs().join("file"), 0o644);
    sleep(c);
    refused(c, &[&c.id, "/file"], &["/file", "permission denied"]);
});

container_test!(a_program_that_is_a_folder, |c| {
    sleep(c);
    let output = exec_other(c, &[], &["/tmp"]).exits(255);
    assert!(output.stderr.contains("is a directory") || output.stderr.contains("permission denied"), "{output}");
});

container_test!(a_program_that_the_user_may_not_execute, |c| {
    fs::create_dir(c.rootfs().join("secret")).unwrap();
    fs::copy(crate::common::guest(), c.rootfs().join("secret/guest")).unwrap();
    chmod(&c.rootfs().join("secret"), 0o700);
    sleep(c);
    refused(c, &["--user", "1000:1000", &c.id, "/secret/guest"], &["/secret/guest", "permission denied"]);
    // Root without CAP_DAC_OVERRIDE owns it.
    assert_eq!(exec_other(c, &[], &["/secret/guest", "echo", "x"]).ok().stdout, "x\n");
});

container_test!(a_program_whose_interpreter_is_missing, |c| {
    fs::write(c.rootfs().join("script"), "#!/no/such/interpreter\n").unwrap();
    chmod(&c.rootfs().join("script"), 0o755);
    sleep(c);
    // runc finds out when it's too late for its own status.
    let output = exec_other(c, &[], &["/script"]).exits(if rival().is_none() { 255 } else { 1 });
    assert_has(output.stderr.to_lowercase(), "no such file or directory");
});

container_test!(a_program_of_no_known_format, |c| {
    fs::write(c.rootfs().join("noise"), "\u{1}\u{2}\u{3} this is nothing").unwrap();
    chmod(&c.rootfs().join("noise"), 0o755);
    sleep(c);
    let output = exec_other(c, &[], &["/noise"]).exits(if rival().is_none() { 255 } else { 1 });
    assert_has(output.stderr.to_lowercase(), "exec format error");
});

container_test!(a_program_on_a_mount_without_exec, |c| {
    sleep(c);
    fs::copy(crate::common::guest(), format!("/proc/{}/root/dev/shm/guest", c.pid())).unwrap();
    let output = exec_other(c, &[], &["/dev/shm/guest"]).exits(255);
    assert_has(output.stderr.to_lowercase(), "permission denied");
});

container_test!(a_user_that_is_no_number, |c| {
    sleep(c);
    for user in ["foo", "1:", ":5", "1:foo", "1:2:3", ":", "1.5", "1 ", "root:root"] {
        refused_in_our_words(c, &["--user", user, &c.id, "/guest", "true"], &["user"]);
    }
});

container_test!(a_user_that_is_no_uid, |c| {
    skip_for_runc!(c, "runc 1.1 cuts the number to 32 bits");
    sleep(c);
    for user in
        ["4294967296", "4294967295", "-1", "+1", "0x10", "1:4294967296", "1:4294967295", "1:-1", "99999999999999999999"]
    {
        refused(c, &["--user", user, &c.id, "/guest", "true"], &["user", user]);
    }
});

container_test!(a_group_that_is_no_number, |c| {
    sleep(c);
    for group in ["foo", "1,2"] {
        refused_in_our_words(c, &["-g", group, &c.id, "/guest", "true"], &["gid"]);
    }
    if rival().is_none() {
        for group in ["-1", "4294967296", "4294967295"] {
            refused(c, &["-g", group, &c.id, "/guest", "true"], &["gid", group]);
        }
    }
});

container_test!(a_capability_that_is_none, |c| {
    skip_for_runc!(c, "runc 1.1 warns and goes on");
    sleep(c);
    refused(c, &["--cap", "CAP_NOTHING", &c.id, "/guest", "true"], &["--cap: ", "CAP_NOTHING", "CAP_CHOWN"]);
});

container_test!(an_environment_entry_without_an_equals_sign, |c| {
    skip_for_runc!(c, "runc 1.1 drops it");
    sleep(c);
    refused(c, &["-e", "NONSENSE", &c.id, "/guest", "true"], &["NONSENSE"]);
});

container_test!(a_missing_working_folder, |c| {
    sleep(c);
    refused(
        c,
        &["--cwd", "/no/such/folder", &c.id, "/guest", "true"],
        &["/no/such/folder", "no such file or directory"],
    );
    assert!(!c.rootfs().join("no").exists());
});

container_test!(a_relative_working_folder, |c| {
    sleep(c);
    refused_in_our_words(c, &["--cwd", "tmp", &c.id, "/guest", "true"], &["cwd", "tmp", "absolute"]);
});

container_test!(a_process_file_that_is_wrong, |c| {
    sleep(c);
    let path = c.path("process.json");
    let file = path.to_str().unwrap();
    refused(c, &["--process", file, &c.id], &[file, "no such file or directory"]);
    for text in ["", "{", "[]", "not json", "{\"args\": }"] {
        fs::write(&path, text).unwrap();
        refused_in_our_words(c, &["--process", file, &c.id], &[file]);
    }
    for (pointer, value) in [
        ("/args", json!([])),
        ("/args", Value::Null),
        ("/args", json!("sh")),
        ("/args/0", json!(7)),
        ("/cwd", json!("tmp")),
        ("/cwd", json!("")),
        ("/user/uid", json!("root")),
        ("/user/uid", json!(-1)),
        ("/user/gid", json!(4_294_967_296u64)),
        ("/terminal", json!("yes")),
        ("/rlimits", json!([{ "type": "RLIMIT_PATIENCE", "soft": 1, "hard": 1 }])),
    ] {
        let mut process = c.config["process"].clone();
        crate::common::config::set(&mut process, pointer, value);
        fs::write(&path, process.to_string()).unwrap();
        refused_in_our_words(c, &["--process", file, &c.id], &[pointer]);
    }
});

container_test!(a_pid_file_that_cannot_be_written, |c| {
    sleep(c);
    let output = exec(c, &["--pid-file", "/no/such/folder/pid"], &["sleep-forever"]).exits(255);
    assert_has(output.stderr, "/no/such/folder");
    // What was started is ended: nobody knows of it.
    crate::common::eventually("it is gone", || host::cgroup_pids(&format!("{}/{}", c.cgroup, c.id)) == [c.pid()]);
});

container_test!(a_detached_program_that_fails_is_an_error, |c| {
    sleep(c);
    let file = c.path("exec-pid");
    exec_other(c, &["-d", "--pid-file", file.to_str().unwrap()], &["/no/such/program"]).exits(255);
    assert!(!file.exists());
});
