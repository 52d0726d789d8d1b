use super::run;

const COMMANDS: [&str; 15] = [
    "create", "start", "run", "exec", "state", "list", "kill", "pause", "resume", "ps", "events", "update", "delete",
    "spec", "features",
];

#[test]
fn version_has_the_three_lines_that_engines_parse() {
    for line in ["--version", "-v", "-version", "--debug --version", "--root / --version"] {
        let ran = run(line);
        let lines: Vec<&str> = ran.ok().lines().collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[0], concat!("tare version ", env!("CARGO_PKG_VERSION")));
        assert!(lines[1].strip_prefix("commit: ").is_some_and(|commit| !commit.is_empty()));
        assert_eq!(lines[2], "spec: 1.3.0");
    }
}

#[test]
fn no_command_is_help() {
    let ran = run("");
    let help = ran.ok();
    for command in COMMANDS {
        assert!(help.contains(&format!("  {command} ")), "{command}: {help}");
    }
    for option in ["--root", "--log", "--log-format", "--debug", "--systemd-cgroup", "--rootless", "--cgroup-manager"] {
        assert!(help.contains(option), "{option}: {help}");
    }
    assert!(run("--debug").ok().contains("Usage: tare"));
    assert!(run("--help").ok().contains("Usage: tare"));
    assert!(run("-h").ok().contains("Usage: tare"));
    assert!(run("help").ok().contains("Usage: tare"));
}

#[test]
fn every_command_has_help() {
    for command in COMMANDS {
        for line in [format!("{command} --help"), format!("{command} -h"), format!("help {command}")] {
            let ran = run(&line);
            assert!(ran.ok().contains(&format!("Usage: tare {command}")), "{line}: {}", ran.stdout);
        }
    }
}

#[test]
fn what_is_not_built_is_not_declared() {
    for command in ["checkpoint", "restore"] {
        // Podman asks by `checkpoint --help` whether there is one.
        for operand in ["a", "-h", "--help", "a --help"] {
            assert!(run(&format!("{command} {operand}")).error().starts_with(&format!("unknown command {command:?}")));
        }
    }
}
