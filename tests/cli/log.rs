use std::path::Path;

use serde_json::Value;

use super::{run, run_in};

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn failure_is_exactly_one_json_value_and_a_line_on_stderr() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.json");
    // A mistake on the command line and one after it.
    for args in [&["create", "--bogus"][..], &["state", "a/b"], &["spec", "--bundle", "missing"]] {
        let ran = run_in(dir.path(), &[&["--log", "log.json", "--log-format", "json"], args].concat());
        let logged = lines(&path);
        assert_eq!(logged.len(), 1, "{logged:?}");
        let value = logged[0].as_object().unwrap();
        assert_eq!(value.keys().collect::<Vec<_>>(), ["level", "msg", "time"]);
        assert_eq!(value["level"], "error");
        assert_eq!(value["msg"], ran.error());
        let time = value["time"].as_str().unwrap();
        assert!(time.len() == 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn success_logs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    run_in(dir.path(), &["--log", "log.json", "--log-format", "json", "spec"]).ok();
    assert!(lines(&dir.path().join("log.json")).is_empty());
}

#[test]
fn log_is_appended_to_and_readable_by_all() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        run_in(dir.path(), &["--log=log.json", "--log-format=json", "bogus"]).error();
    }
    assert_eq!(lines(&dir.path().join("log.json")).len(), 3);
    let mode = std::fs::metadata(dir.path().join("log.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o600, 0o600);
    assert_eq!(mode & 0o133, 0);
}

#[test]
fn text_is_what_logrus_writes() {
    let dir = tempfile::tempdir().unwrap();
    run_in(dir.path(), &["--log", "log", "bogus"]).error();
    let text = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(text.starts_with("time=\"2"), "{text}");
    assert!(text.ends_with("Z\" level=error msg=\"unknown command \\\"bogus\\\"; see 'tare --help'\"\n"), "{text}");
}

#[test]
fn without_a_file_json_goes_to_stderr_once() {
    let ran = run("--log-format json bogus");
    assert_eq!((ran.status, ran.stdout.as_str()), (1, ""));
    let value: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(value["level"], "error");
}

#[test]
fn log_that_cannot_be_opened_is_an_error() {
    let ran = run("--log /proc/nonexistent/log list");
    assert_eq!(ran.error(), "--log: open \"/proc/nonexistent/log\": no such file or directory (ENOENT)");
}
