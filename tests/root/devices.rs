//! /dev: default nodes and links, linux.devices, and the device rules of the cgroup as seen from inside.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::common::config::mount;
use crate::common::{Container, assert_has, mountinfo, strings};
use crate::container_test;

/// The default set of capabilities with CAP_MKNOD.
fn may_mknod(c: &mut Container) {
    let caps = json!(["CAP_MKNOD", "CAP_KILL"]);
    c.set("/process/capabilities", json!({ "bounding": caps, "effective": caps, "permitted": caps }));
}

container_test!(the_default_nodes, |c| {
    let nodes = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
    let mut words = vec!["stat"];
    words.extend(nodes);
    let out = c.prints(&words);
    let expected = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0)];
    for (node, (major, minor)) in nodes.iter().zip(expected) {
        assert_has(&out, &format!("{node} c 666 0 0 0 {major} {minor}\n"));
    }
});

container_test!(the_default_nodes_work, |c| {
    c.args(&[
        "all",
        "write",
        "/dev/null",
        "x",
        ",",
        "write",
        "/dev/full",
        "x",
        ",",
        "open",
        "/dev/zero",
        "r",
        ",",
        "open",
        "/dev/urandom",
        "r",
    ]);
    let out = c.run().exits(1).stdout;
    assert_eq!(out, "write /dev/full x: ENOSPC\nok\nok\n");
});

container_test!(the_links, |c| {
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd\n"),
        ("/dev/stdin", "/proc/self/fd/0\n"),
        ("/dev/stdout", "/proc/self/fd/1\n"),
        ("/dev/stderr", "/proc/self/fd/2\n"),
        ("/dev/ptmx", "pts/ptmx\n"),
    ] {
        assert_eq!(c.prints(&["readlink", link]), target, "{link}");
    }
});

container_test!(there_is_no_console_without_a_terminal, |c| {
    c.args(&["stat", "/dev/console"]);
    assert_has(c.run().exits(1).stdout, "ENOENT");
});

container_test!(devices_of_the_config, |c| {
    c.set(
        "/linux/devices",
        json!([
            { "type": "c", "path": "/dev/mine", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 5, "gid": 6 },
            { "type": "c", "path": "/dev/deep/er", "major": 1, "minor": 5 },
            { "type": "b", "path": "/dev/disk", "major": 8, "minor": 1, "fileMode": 0o600 },
            { "type": "p", "path": "/dev/fifo", "fileMode": 0o644 },
            { "type": "u", "path": "/dev/unbuffered", "major": 1, "minor": 8, "fileMode": 0o666 },
            { "type": "c", "path": "/node", "major": 1, "minor": 7, "fileMode": 0o666 },
        ]),
    );
    let out = c.prints(&["stat", "/dev/mine", "/dev/deep/er", "/dev/disk", "/dev/fifo", "/dev/unbuffered", "/node"]);
    assert_has(&out, "/dev/mine c 640 5 6 0 1 3\n");
    assert_has(&out, "/dev/deep/er c ");
    assert_has(&out, "/dev/disk b 600 0 0 0 8 1\n");
    assert_has(&out, "/dev/fifo p 644 0 0 0 0 0\n");
    assert_has(&out, "/dev/unbuffered c 666 0 0 0 1 8\n");
    assert_has(&out, "/node c 666 0 0 0 1 7\n");
    let _ = fs::remove_file(c.rootfs().join("node"));
});

// Podman hands on st_mode whole, for `--device` and `--privileged`.
container_test!(a_file_mode_may_carry_the_type_as_stat_tells_it, |c| {
    c.set(
        "/linux/devices",
        json!([
            { "type": "c", "path": "/dev/mine", "major": 1, "minor": 3, "fileMode": 0o20640 },
            { "type": "b", "path": "/dev/disk", "major": 8, "minor": 1, "fileMode": 0o60600 },
            { "type": "p", "path": "/dev/fifo", "fileMode": 0o10644 },
        ]),
    );
    let out = c.prints(&["stat", "/dev/mine", "/dev/disk", "/dev/fifo"]);
    assert_has(&out, "/dev/mine c 640 0 0 0 1 3\n");
    assert_has(&out, "/dev/disk b 600 0 0 0 8 1\n");
    assert_has(&out, "/dev/fifo p 644 0 0 0 0 0\n");
});

container_test!(a_device_of_the_config_replaces_a_default_one, |c| {
    c.set(
        "/linux/devices",
        json!([{ "type": "c", "path": "/dev/zero", "major": 1, "minor": 5, "fileMode": 0o600, "uid": 3, "gid": 4 }]),
    );
    assert_eq!(c.prints(&["stat", "/dev/zero"]), "/dev/zero c 600 3 4 0 1 5\n");
});

container_test!(the_callers_umask_does_not_reach_the_nodes, |c| {
    c.args(&["stat", "/dev/null", "/dev/shm"]);
    c.write_config();
    let probe = crate::common::guest().to_str().unwrap();
    let mut command = c.command_by(&[probe, "with", "umask=077", "--"], &["run", &c.id]);
    let out = crate::common::program::finish(&mut command, &c.dir).ok().stdout;
    assert_has(&out, "/dev/null c 666 ");
    assert_has(&out, "/dev/shm dir 1777 ");
});

container_test!(a_dev_of_the_host_is_left_alone, |c| {
    let before = names("/dev");
    c.set("/mounts/1", mount("bind", "/dev", "/dev", &["rbind"]));
    c.config["mounts"].as_array_mut().unwrap().drain(2..5);
    c.args(&["ls", "/dev"]);
    let inside = c.run().ok().stdout;
    assert_eq!(inside.split_whitespace().collect::<Vec<_>>(), before);
    assert_eq!(names("/dev"), before);
});

fn names(dir: &str) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

container_test!(rules_let_through_what_they_allow, |c| {
    may_mknod(c);
    c.set(
        "/linux/resources/devices",
        json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 10, "minor": 200, "access": "rwm" },
            { "allow": true, "type": "c", "major": 4, "minor": 64, "access": "m" },
            { "allow": true, "type": "b", "major": 7, "access": "rm" },
        ]),
    );
    // A device without a driver is refused by the kernel (ENXIO, ENODEV) only after the cgroup has let it pass.
    let probe = |c: &mut Container, words: &[&str]| {
        let mut all = vec!["open-dev"];
        all.extend(words);
        c.prints(&all)
    };
    assert!(!probe(c, &["c", "10", "200", "rw"]).contains("EPERM"));
    assert_eq!(probe(c, &["c", "4", "64", "r"]), "open: EPERM\n");
    assert!(!probe(c, &["b", "7", "250", "r"]).contains("EPERM"));
    assert_eq!(probe(c, &["b", "7", "250", "rw"]), "open: EPERM\n");
    assert_eq!(probe(c, &["b", "8", "0", "r"]), "open: EPERM\n");
    // The defaults stay usable whatever the rules say.
    assert_eq!(c.prints(&["open", "/dev/null", "rw"]), "ok\n");
    assert_eq!(c.prints(&["open", "/dev/urandom", "r"]), "ok\n");
});

container_test!(without_rules_only_the_defaults_can_be_used, |c| {
    may_mknod(c);
    c.set("/linux/resources/devices", json!([{ "allow": false, "access": "rwm" }]));
    assert_eq!(c.prints(&["open-dev", "c", "1", "3", "rw"]), "open: ok\n");
    assert_eq!(c.prints(&["open-dev", "c", "1", "1", "r"]), "open: EPERM\n");
    // Nodes of any device may be made, though not opened.
    assert_eq!(c.prints(&["open-dev", "b", "253", "77", "r"]), "open: EPERM\n");
});

container_test!(a_rule_for_all_devices_allows_them, |c| {
    may_mknod(c);
    c.set("/linux/resources/devices", json!([{ "allow": false, "access": "rwm" }, { "allow": true, "access": "rwm" }]));
    assert!(!c.prints(&["open-dev", "b", "253", "77", "r"]).contains("EPERM"));
});

container_test!(a_device_twice_is_made_once_unless_the_two_contradict, |c| {
    let device = |mode: u32| json!({ "type": "c", "path": "/dev/mine", "major": 1, "minor": 3, "fileMode": mode });
    c.set("/linux/devices", json!([device(0o640), device(0o640), device(0o20640)]));
    assert_eq!(c.prints(&["stat", "/dev/mine"]), "/dev/mine c 640 0 0 0 1 3\n");
    c.set("/linux/devices", json!([device(0o640), device(0o600)]));
    if crate::common::rival().is_none() {
        c.run().fails(&["config.json: /linux/devices/1/path", "/dev/mine"]);
    }
});

/// Runs the container as root without CAP_MKNOD.
fn run_without_mknod(c: &Container) -> crate::common::Output {
    c.write_config();
    let prefix = ["setpriv", "--bounding-set=-mknod", "--"];
    crate::common::program::finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir)
}

container_test!(without_the_right_to_make_nodes_those_of_the_host_are_bound, |c| {
    let mode = || fs::metadata("/dev/null").unwrap().mode();
    let before = mode();
    c.args(&["all", "stat", "/dev/null", "/dev/tty", ",", "write", "/dev/null", "x", ",", "facts"]);
    let output = run_without_mknod(c).ok().stdout;
    assert_has(&output, "/dev/null c 666 0 0 0 1 3\n");
    assert_has(&output, "/dev/tty c 666 ");
    let facts = serde_json::from_str(&output[output.find('{').unwrap()..]).unwrap();
    let masked = strings(c.config.pointer("/linux/maskedPaths").unwrap_or(&json!([])));
    let points = masked.iter().map(String::as_str).chain(["/dev/null"]);
    let nulls: Vec<_> = mountinfo::all(&facts)
        .into_iter()
        .filter(|mount| mount.root.ends_with("/null") && points.clone().any(|point| mount.point == point))
        .collect();
    assert!(!nulls.is_empty());
    // Root inside may not give the host's node another mode.
    assert!(crate::common::rival().is_some() || nulls.iter().all(|mount| mount.has("ro")), "{nulls:#?}");
    if crate::common::rival().is_none() {
        c.args(&["chmod", "/dev/null", &format!("{:o}", before & 0o7777)]);
        assert_has(run_without_mknod(c).exits(1).stdout, "EROFS");
    }
    assert_eq!(mode(), before);
    // One that the host lacks can't be had.
    c.set("/linux/devices", json!([{ "type": "c", "path": "/dev/tare-none", "major": 1, "minor": 3 }]));
    run_without_mknod(c).fails(&["/dev/tare-none"]);
});

// Nothing is dropped without a word.
container_test!(a_mode_that_a_bound_device_does_not_get_is_told, |c| {
    super::userns::map(c);
    let device = |mode: u32| json!({ "type": "c", "path": "/dev/null", "major": 1, "minor": 3, "fileMode": mode });
    let host = fs::metadata("/dev/null").unwrap().mode() & 0o7777;
    c.set("/linux/devices", json!([device(host)]));
    assert_eq!(c.run().ok().stderr, "");
    c.set("/linux/devices", json!([device(0o600)]));
    c.run().ok().has("/linux/devices/0");
    c.set("/linux/devices/0", json!({ "type": "c", "path": "/dev/null", "major": 1, "minor": 3, "uid": 5 }));
    c.run().ok().has("/linux/devices/0");
});
