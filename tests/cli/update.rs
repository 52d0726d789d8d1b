//! Values on the command lines of `update` and `events`: what is wrong is said before any container is looked for.

use super::run;

#[test]
fn values_that_are_none() {
    for (line, error) in [
        (
            "update --memory 2x a",
            "--memory: \"2x\": invalid size: expected bytes with or without a suffix k, m, g, t or p, or -1",
        ),
        (
            "update --memory-swap=-2 a",
            "--memory-swap: \"-2\": invalid size: expected bytes with or without a suffix k, m, g, t or p, or -1",
        ),
        ("update --cpu-quota x a", "--cpu-quota: \"x\": invalid digit found in string"),
        ("update --cpu-share -1 a", "--cpu-share: \"-1\": invalid digit found in string"),
        ("update --blkio-weight 70000 a", "--blkio-weight: \"70000\": 70000 is not in 0..=65535"),
        ("events --interval 0 a", "--interval: \"0\": duration interval must be greater than 0"),
        ("events --interval 5 a", "--interval: \"5\": expected a duration such as 300ms, 5s or 1m30s"),
        ("ps --format xml a", "--format: \"xml\" is unknown: expected table or json"),
    ] {
        let ran = run(line);
        let command = line.split(' ').next().unwrap();
        assert_eq!(ran.error(), format!("{error}; see 'tare {command} --help'"), "{line}");
    }
}

#[test]
fn every_option_of_runc_is_known() {
    for option in [
        "resources",
        "blkio-weight",
        "cpu-period",
        "cpu-quota",
        "cpu-burst",
        "cpu-share",
        "cpu-rt-period",
        "cpu-rt-runtime",
        "cpuset-cpus",
        "cpuset-mems",
        "kernel-memory",
        "kernel-memory-tcp",
        "memory",
        "cpu-idle",
        "memory-reservation",
        "memory-swap",
        "pids-limit",
        "l3-cache-schema",
        "mem-bw-schema",
    ] {
        for dashes in ["-", "--"] {
            let ran = run(&format!("--root /no/such/root update {dashes}{option}=1 a"));
            assert!(ran.error().starts_with("container does not exist"), "{option}: {}", ran.stderr);
        }
    }
}

#[test]
fn a_container_is_needed() {
    for command in ["pause", "resume", "ps", "events", "update"] {
        assert!(run(command).error().starts_with("missing <ID>"), "{command}");
        let ran = run(&format!("--root /no/such/root {command} a"));
        assert!(ran.error().starts_with("container does not exist"), "{command}");
    }
}
