use super::{run, run_in};

#[test]
fn unknown_command_names_a_close_one() {
    assert_eq!(run("creat a").error(), "unknown command \"creat\", did you mean create?; see 'tare --help'");
    assert_eq!(run("frobnicate").error(), "unknown command \"frobnicate\"; see 'tare --help'");
    for line in ["help frobnicate", "frobnicate -h", "frobnicate --help", "--debug frobnicate a -help"] {
        assert_eq!(run(line).error(), "unknown command \"frobnicate\"; see 'tare --help'");
    }
}

#[test]
fn unknown_option_names_a_close_one() {
    assert_eq!(
        run("create --bundel /x a").error(),
        "unknown option \"--bundel\", did you mean --bundle?; see 'tare create --help'"
    );
    assert_eq!(run("create -bogus a").error(), "unknown option \"--bogus\"; see 'tare create --help'");
    assert_eq!(run("--bogus").error(), "unknown option \"--bogus\"; see 'tare --help'");
    assert_eq!(run("kill a -9").error(), "unknown option \"-9\"; see 'tare kill --help'");
    assert_eq!(run("start --detach a").error(), "unknown option \"--detach\"; see 'tare start --help'");
}

#[test]
fn operands_are_counted() {
    for command in ["create", "start", "run", "state", "kill", "delete"] {
        assert_eq!(run(command).error(), format!("missing <ID>; see 'tare {command} --help'"));
    }
    for line in ["create a b", "start a b", "run a b", "state a b", "kill a TERM b", "delete a b", "list b", "spec b"] {
        let command = line.split(' ').next().unwrap();
        assert_eq!(run(line).error(), format!("unexpected argument \"b\"; see 'tare {command} --help'"));
    }
    assert_eq!(run("features b").error(), "unexpected argument \"b\"; see 'tare features --help'");
}

#[test]
fn values_are_checked() {
    for (line, message) in [
        ("list -f xml", "--format: \"xml\" is unknown: expected table or json; see 'tare list --help'"),
        ("--log-format xml list", "--log-format: \"xml\" is unknown: expected text or json; see 'tare list --help'"),
        (
            "--cgroup-manager x list",
            "--cgroup-manager: \"x\" is unknown: expected cgroupfs or systemd or disabled; see 'tare list --help'",
        ),
        ("--rootless x list", "--rootless: \"x\" is unknown: expected auto or true or false; see 'tare list --help'"),
        ("delete --force=x a", "--force: \"x\" is unknown: expected true or false; see 'tare delete --help'"),
        ("create a --bundle", "--bundle needs a value; see 'tare create --help'"),
    ] {
        assert_eq!(run(line).error(), message);
    }
    assert!(run("create --preserve-fds x a").error().starts_with("--preserve-fds: \"x\": invalid digit"));
    assert!(run("create --preserve-fds=-1 a").error().starts_with("--preserve-fds: \"-1\": -1 is not in"));
    assert!(run("start a --log").error().starts_with("--log needs a value"));
}

#[test]
fn ids_are_checked() {
    for id in [".", "..", "../a", "a/b", "a:b", "é", ".hidden"] {
        for command in ["create", "start", "run", "state", "kill", "delete", "delete --force"] {
            let ran = run(&format!("{command} {id}"));
            let start = format!("container id {id:?} is not valid: expected [A-Za-z0-9_+-][A-Za-z0-9_+.-]*");
            assert!(ran.error().starts_with(&start), "{}", ran.stderr);
        }
    }
    assert!(run(&format!("state {}", "a".repeat(1025))).error().contains("1025 characters is too long"));
    let dir = tempfile::tempdir().unwrap();
    assert!(run_in(dir.path(), &["state", ""]).error().starts_with("container id \"\" is not valid"));
    assert!(run_in(dir.path(), &["state", "a\nb"]).error().starts_with("container id \"a\\nb\" is not valid"));
}

#[test]
fn signals_are_checked() {
    for signal in ["FOO", "65", "9x", "RTMIN+31", "SIG"] {
        let start = format!("signal {signal:?} is unknown: expected a name such as TERM");
        assert!(run(&format!("kill a {signal}")).error().starts_with(&start));
    }
}

#[test]
fn root_is_never_the_file_systems() {
    for root in ["/", "//", "/tmp/.."] {
        assert!(run(&format!("--root {root} list")).error().starts_with(&format!("--root {root:?}: expected")));
    }
}

#[test]
fn cgroup_managers_do_not_contradict() {
    assert_eq!(
        run("--systemd-cgroup --cgroup-manager=disabled list").error(),
        "--systemd-cgroup contradicts --cgroup-manager: expected one of them"
    );
}
