//! How engines spell it. `spec` is the command, because it has no container and leaves a file.

use super::run_in;

#[test]
fn options_in_every_spelling() {
    for args in [
        &["spec", "--bundle", "b"][..],
        &["spec", "--bundle=b"],
        &["spec", "-bundle", "b"],
        &["spec", "-bundle=b"],
        &["spec", "-b", "b"],
        &["spec", "-b=b"],
        &["-root", "/r", "-debug=false", "--systemd-cgroup=true", "spec", "-b", "b"],
        &["spec", "-b", "b", "--root", "/r", "--debug=false"],
        &["--log=", "--rootless=auto", "--cgroup-manager=cgroupfs", "spec", "--bundle", "x", "--bundle", "b"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("b")).unwrap();
        assert_eq!(run_in(dir.path(), args).ok(), "", "{args:?}");
        assert!(dir.path().join("b/config.json").is_file(), "{args:?}");
        assert!(!dir.path().join("config.json").exists(), "{args:?}");
    }
}

#[test]
fn switches_take_a_boolean() {
    let dir = tempfile::tempdir().unwrap();
    let mappings = |value: &str| {
        run_in(dir.path(), &["spec", value]).ok();
        let path = dir.path().join("config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        text.contains("uidMappings")
    };
    for value in ["--rootless", "-rootless", "--rootless=true", "--rootless=1"] {
        assert!(mappings(value), "{value}");
    }
    for value in ["--rootless=false", "-rootless=0"] {
        assert!(!mappings(value), "{value}");
    }
}

#[test]
fn operands_after_two_dashes() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run_in(dir.path(), &["spec", "--", "--rootless"]);
    assert_eq!(ran.error(), "unknown option \"--rootless\"; see 'tare spec --help'");
    assert!(!dir.path().join("config.json").exists());
}
