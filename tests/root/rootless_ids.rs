//! Further ids of an ordinary user by newuidmap and newgidmap, and the runtime as root of another user namespace, which is
//! how rootless engines call it.

use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::common::user::{launcher, map_ranges, mapping, own, ranges_available, uid};
use crate::common::{Container, assert_has, host, program, strings};
use crate::{skip_unless, user_test};

/// Ids that no host gives to anybody.
const FIRST: u32 = 1_900_000_000;

fn run(c: &Container, launch: &[String], flags: &[&str]) -> program::Output {
    c.write_config();
    let bundle = c.bundle();
    let mut words = vec!["run", "--bundle", bundle.to_str().unwrap()];
    words.extend(flags);
    words.push(&c.id);
    by(c, launch, &words)
}

fn by(c: &Container, launch: &[String], words: &[&str]) -> program::Output {
    let prefix: Vec<&str> = launch.iter().map(String::as_str).collect();
    program::finish(&mut c.command_by(&prefix, words), &c.dir)
}

fn words(text: &str) -> Vec<u32> {
    text.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

user_test!(ranges_are_mapped_by_the_helpers, |c| {
    if !ranges_available(c) {
        return;
    }
    map_ranges(c, FIRST, 1000);
    let own = uid(c);
    let launch = launcher(c, &format!("tare-user:{FIRST}:1000\n"), "");
    c.set("/process/user", json!({ "uid": 7, "gid": 8, "additionalGids": [9, 10] }));
    host::chmod(&c.rootfs().join("tmp"), 0o777);
    c.args(&["all", "facts", ",", "write", "/tmp/mine", ""]);
    let output = run(c, &launch, &[]).ok();
    let facts: serde_json::Value = serde_json::from_str(output.stdout.lines().next().unwrap()).unwrap();
    for map in ["uid_map", "gid_map"] {
        let lines: Vec<_> = strings(&facts[map]).iter().map(|line| words(line)).collect();
        assert_eq!(lines, [[0, own, 1], [1, FIRST, 1000]], "{map}");
    }
    assert_eq!(facts["status"]["Uid"], "7 7 7 7");
    assert_eq!(facts["status"]["Groups"], "9 10");
    // The ranges give the right to drop groups.
    assert_eq!(facts["setgroups"], "allow");
    let meta = std::fs::metadata(c.rootfs().join("tmp/mine")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (FIRST + 6, FIRST + 7));
});

user_test!(a_helper_that_refuses_is_quoted, |c| {
    if !ranges_available(c) {
        return;
    }
    map_ranges(c, FIRST, 1000);
    let launch = launcher(c, &format!("tare-user:{FIRST}:999\n"), "");
    run(c, &launch, &[]).fails(&[
        "config.json: /linux/uidMappings: newuidmap: ",
        "not allowed",
        "exit status: 1",
        "/etc/subuid",
        "user \"tare-user\"",
    ]);
    c.assert_clean();
});

user_test!(exec_into_mapped_ids, |c| {
    if !ranges_available(c) {
        return;
    }
    map_ranges(c, FIRST, 1000);
    let launch = launcher(c, &format!("tare-user:{FIRST}:1000\n"), "");
    c.args(&["sleep-forever"]);
    c.set("/process/user/uid", 7);
    run(c, &launch, &["--detach"]).ok();
    let facts =
        by(c, &launch, &["exec", "--user", "3:4", "--additional-gids", "5", &c.id, "/guest", "facts"]).ok().json();
    assert_eq!(facts["status"]["Uid"], "3 3 3 3");
    assert_eq!(facts["status"]["Gid"], "4 4 4 4");
    assert_eq!(facts["status"]["Groups"], "5");
    by(c, &launch, &["kill", &c.id, "KILL"]).ok();
    c.wait_status("stopped");
    by(c, &launch, &["delete", &c.id]).ok();
});

// Root of the container can't reach what belongs to its user alone; the user can.
user_test!(sources_that_only_the_user_reaches_are_mounted, |c| {
    if !ranges_available(c) {
        return;
    }
    let own = uid(c);
    c.set("/linux/uidMappings", mapping(0, FIRST, 1000));
    c.set("/linux/gidMappings", mapping(0, FIRST, 1000));
    std::fs::create_dir_all(c.path("private/data")).unwrap();
    std::fs::write(c.path("private/data/file"), "reached").unwrap();
    for folder in ["private", "private/data"] {
        std::os::unix::fs::chown(c.path(folder), Some(own), Some(own)).unwrap();
    }
    host::chmod(&c.path("private"), 0o700);
    host::chmod(&c.path("private/data/file"), 0o644);
    for name in ["", "proc", "sys", "dev", "tmp"] {
        std::os::unix::fs::chown(c.rootfs().join(name), Some(FIRST), Some(FIRST)).unwrap();
    }
    let source = c.path("private/data");
    c.push("/mounts", json!({ "destination": "/data", "source": source, "options": ["rbind", "ro", "nosuid"] }));
    let launch = launcher(c, &format!("tare-user:{FIRST}:1000\n"), "");
    c.args(&["all", "cat", "/data/file", ",", "facts"]);
    let output = run(c, &launch, &[]).ok();
    assert!(output.stdout.starts_with("reached"), "{output}");
    let line = output.stdout.split('"').find(|text| text.contains(" /data ")).unwrap().to_owned();
    assert!(line.contains(" ro,nosuid"), "{line}");
});

/// The runtime as root of a user namespace that its user made, with 1000 more ids.
fn inside(c: &mut Container) -> Option<Vec<String>> {
    if !ranges_available(c) {
        return None;
    }
    let then = "unshare --user --mount --map-root-user --map-auto --";
    let launch = launcher(c, &format!("tare-user:{FIRST}:1000\n"), then);
    c.remove("/linux/uidMappings").remove("/linux/gidMappings").remove("/linux/namespaces/5");
    Some(launch)
}

user_test!(root_of_another_user_namespace_needs_none_of_its_own, |c| {
    let Some(launch) = inside(c) else { return };
    c.args(&[
        "all",
        "facts",
        ",",
        "open",
        "/dev/null",
        "rw",
        ",",
        "stat",
        "/dev/full",
        ",",
        "mknod",
        "/tmp/x",
        "p",
        "0",
        "0",
    ]);
    let output = run(c, &launch, &[]).ok();
    assert!(output.stdout.contains("\nok\n/dev/full c 666 "), "{output}");
    let facts: serde_json::Value = serde_json::from_str(output.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(facts["status"]["Uid"], "0 0 0 0");
    assert_eq!(strings(&facts["uid_map"]).len(), 2);
    assert!(strings(&facts["mountinfo"]).iter().any(|line| line.contains(" /null /dev/null ")));
});

user_test!(root_of_another_user_namespace_makes_a_further_one, |c| {
    let Some(launch) = inside(c) else { return };
    c.push("/linux/namespaces", json!({ "type": "user" }));
    c.set("/linux/uidMappings", mapping(0, 100, 500)).set("/linux/gidMappings", mapping(0, 100, 500));
    for name in ["", "proc", "sys", "dev", "tmp"] {
        std::os::unix::fs::chown(c.rootfs().join(name), Some(FIRST + 99), Some(FIRST + 99)).unwrap();
    }
    c.set("/process/user", json!({ "uid": 1, "gid": 1, "additionalGids": [2] }));
    c.args(&["facts"]);
    let facts = run(c, &launch, &[]).ok().json();
    // Seen from inside: ids of the namespace around it.
    assert_eq!(words(&strings(&facts["uid_map"])[0]), [0, 100, 500]);
    assert_eq!(facts["status"]["Groups"], "2");
    assert_eq!(facts["setgroups"], "allow");
    // What isn't mapped around it can't be mapped inside.
    c.set("/linux/uidMappings", mapping(0, 5000, 5));
    run(c, &launch, &[]).fails(&["config.json: /linux/uidMappings", "runtime's own user namespace", "EPERM"]);
});

user_test!(state_of_root_of_another_user_namespace_is_the_users, |c| {
    let Some(launch) = inside(c) else { return };
    c.args(&["sleep-forever"]);
    c.write_config();
    let prefix: Vec<&str> = launch.iter().map(String::as_str).collect();
    let tare = crate::common::tare().to_str().unwrap();
    let run = |words: &[&str]| {
        let mut command = std::process::Command::new(prefix[0]);
        command.arg(tare).args(words).current_dir(c.bundle()).stdin(std::process::Stdio::null());
        program::finish(&mut command, &c.dir)
    };
    run(&["run", "--detach", &c.id]).ok();
    assert!(c.path("run/tare").join(&c.id).exists());
    assert_has(run(&["list"]).ok().stdout, "running");
    run(&["delete", "--force", &c.id]).ok();
});

// systemd 260 maps every id onto itself: the look of the map says nothing (crun 1.29).
user_test!(a_user_namespace_is_known_by_its_inode, |c| {
    skip_unless!(c, c.user.is_some() && host::installed("unshare"), "not root, or no unshare");
    c.user = None;
    // Root makes no container where another user keeps his.
    own(&c.path(""), 0);
    c.remove("/linux/uidMappings").remove("/linux/gidMappings").remove("/linux/namespaces/5");
    let script = c.path("identity");
    let text = "#!/bin/sh\nset -e\nd=$(mktemp -d)\nmkfifo $d/in $d/out\n\
        unshare --user --mount sh -c 'echo >\"$0/in\"; read x <\"$0/out\"; rm -r \"$0\"; exec \"$@\"' $d \"$@\" &\n\
        read x <$d/in\necho 0 0 4294967295 >/proc/$!/uid_map\necho 0 0 4294967295 >/proc/$!/gid_map\n\
        echo >$d/out\nwait $!\n";
    std::fs::write(&script, text).unwrap();
    host::chmod(&script, 0o755);
    let launch = [script.display().to_string()];
    c.args(&["facts"]);
    let facts = run(c, &launch, &[]).ok().json();
    assert_eq!(words(&strings(&facts["uid_map"])[0]), [0, 0, u32::MAX]);
    assert!(strings(&facts["mountinfo"]).iter().any(|line| line.contains(" /null /dev/null ")));
});

user_test!(a_host_that_allows_no_user_namespaces_is_named, |c| {
    let script = c.path("none");
    let text = "#!/bin/sh\nexec unshare --user --mount --map-root-user sh -c \
        'echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"' sh \"$@\"\n";
    std::fs::write(&script, text).unwrap();
    host::chmod(&script, 0o755);
    c.set("/linux/uidMappings", mapping(0, 0, 1)).set("/linux/gidMappings", mapping(0, 0, 1));
    run(c, &[script.display().to_string()], &[]).fails(&["ENOSPC", "user.max_user_namespaces"]);
    c.assert_clean();
});
