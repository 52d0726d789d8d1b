//! When the sources of bind mounts are opened, and by whom: on mounts of the same container, and very many of them.

use std::fs;

use serde_json::json;

use super::userns::map;
use crate::common::config::mount;
use crate::common::program::{Output, finish};
use crate::common::{Container, assert_has, mountinfo};
use crate::{container_test, skip_unless, user_test};

/// A volume at /vol, where the image has something else, and a second mount whose source is /vol on the host.
fn volume_twice(c: &mut Container, second: &str, options: &[&str]) {
    fs::create_dir_all(c.path("source/below")).unwrap();
    fs::write(c.path("source/file"), "of the volume").unwrap();
    c.push("/mounts", mount("bind", c.path("source").to_str().unwrap(), "/vol", &["bind", "ro"]));
    c.push("/mounts", mount("bind", second, "/again", options));
    c.args(&["all", "cat", "/again/file", ",", "facts"]);
}

/// What the second mount has, and its line of mountinfo.
fn seen(c: &Container) -> (String, mountinfo::Mount) {
    let output = c.run().ok().stdout;
    let (text, facts) = output.split_at(output.find('{').unwrap());
    (text.to_owned(), mountinfo::at(&serde_json::from_str(facts).unwrap(), "/again"))
}

fn is_the_volume(c: &mut Container) {
    let second = c.rootfs().join("vol").display().to_string();
    volume_twice(c, &second, &["bind", "nosuid"]);
    // Where the image lacks the folder, where it has a file of that name, and through a link of the host.
    for link in [false, false, true] {
        let (text, mount) = seen(c);
        assert_eq!(text, "of the volume");
        assert!(mount.has("nosuid"), "{mount:?}");
        fs::write(c.rootfs().join("vol/file"), "of the image").unwrap();
        if !link {
            let _ = std::os::unix::fs::symlink(c.bundle(), c.path("link"));
            let last = c.config["mounts"].as_array().unwrap().len() - 1;
            c.set(&format!("/mounts/{last}/source"), c.path("link/rootfs/vol").to_str().unwrap());
        }
    }
    c.assert_clean();
}

container_test!(a_source_on_an_earlier_mount, |c| {
    is_the_volume(c);
});

container_test!(a_source_on_an_earlier_mount_with_a_user_namespace, |c| {
    map(c);
    is_the_volume(c);
});

user_test!(rootless_a_source_on_an_earlier_mount, |c| {
    is_the_volume(c);
});

container_test!(an_id_mapped_source_on_an_earlier_mount, |c| {
    for user in [false, true] {
        if user {
            map(c);
            c.config["mounts"].as_array_mut().unwrap().truncate(6);
        }
        let second = c.rootfs().join("vol").display().to_string();
        volume_twice(c, &second, &["bind"]);
        let base = if user { 300_000 } else { 0 };
        let ids = json!([{ "containerID": 0, "hostID": base + 7, "size": 10 }]);
        c.set("/mounts/7/uidMappings", ids.clone()).set("/mounts/7/gidMappings", ids);
        c.args(&["stat", "/again/file"]);
        let output = c.run();
        skip_unless!(c, !output.stderr.contains("doesn't support it"), "no id-mapped mounts of this file system");
        assert_has(output.ok().stdout, "/again/file file 644 7 7 ");
    }
});

container_test!(a_missing_source_below_the_root_is_still_an_error, |c| {
    map(c);
    let second = c.rootfs().join("vol/none").display().to_string();
    volume_twice(c, &second, &["bind"]);
    c.run().fails(&["config.json: /mounts/7/source", "vol/none", "no such file or directory"]);
    c.assert_clean();
});

// The kernel doesn't lock what was mounted in the namespace itself.
container_test!(the_flags_of_a_mount_of_the_container_can_be_cleared, |c| {
    map(c);
    c.push("/mounts", mount("tmpfs", "tmpfs", "/vol", &["ro", "nosuid", "mode=777"]));
    c.push("/mounts", mount("bind", c.rootfs().join("vol").to_str().unwrap(), "/again", &["bind", "rw"]));
    let again = mountinfo::at(&c.facts(), "/again");
    assert!(again.has("rw") && !again.has("nosuid"), "{again:?}");
});

/// Runs the container with these limits of open files.
fn run_limited(c: &Container, soft: u32, hard: u32) -> Output {
    c.write_config();
    let limit = format!("--nofile={soft}:{hard}");
    finish(&mut c.command_by(&["prlimit", &limit, "--"], &["run", &c.id]), &c.dir)
}

fn many(c: &mut Container, count: usize) {
    let source = c.path("source");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("file"), "text\n").unwrap();
    c.config["mounts"].as_array_mut().unwrap().truncate(6);
    for at in 0..count {
        c.push("/mounts", mount("bind", source.to_str().unwrap(), &format!("/tmp/{at}"), &["rbind", "ro"]));
    }
    c.args(&["all", "cat", &format!("/tmp/{}/file", count - 1), ",", "cat", "/proc/self/limits"]);
}

fn are_all_mounted(c: &mut Container) {
    for (count, soft, hard) in [(30, 64, 64), (300, 256, 256), (300, 256, 4096)] {
        many(c, count);
        let output = run_limited(c, soft, hard).ok().stdout;
        assert!(output.starts_with("text\n"), "{output}");
        let limit = output.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let words: Vec<&str> = limit.split_whitespace().collect();
        assert_eq!(words[3..5], [soft.to_string(), hard.to_string()], "the limit is the caller's");
        c.assert_clean();
    }
}

container_test!(more_bind_mounts_than_open_files, |c| {
    are_all_mounted(c);
});

container_test!(more_bind_mounts_than_open_files_with_a_user_namespace, |c| {
    map(c);
    are_all_mounted(c);
    many(c, 300);
    c.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 50, "hard": 100 }]));
    let output = run_limited(c, 256, 4096).ok().stdout;
    let limit = output.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(limit.split_whitespace().collect::<Vec<_>>()[3..5], ["50", "100"]);
});

user_test!(rootless_more_bind_mounts_than_open_files, |c| {
    are_all_mounted(c);
});
