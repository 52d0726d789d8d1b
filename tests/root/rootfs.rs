//! The root file system: pivot, read-only, propagation, and paths that point out of it.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::common::config::mount;
use crate::common::program::finish;
use crate::common::{assert_has, mountinfo, rival};
use crate::{container_test, skip_for_runc};

container_test!(a_writable_root, |c| {
    c.prints(&["write", "/file", "text"]);
    assert_eq!(fs::read_to_string(c.rootfs().join("file")).unwrap(), "text");
});

container_test!(a_read_only_root, |c| {
    c.set("/root/readonly", true);
    c.args(&["write", "/file", "text"]);
    assert_has(c.run().exits(1).stdout, "EROFS");
    assert!(mountinfo::at(&c.facts(), "/").has("ro"));
    // What is mounted on it isn't.
    c.prints(&["write", "/dev/shm/file", "text"]);
});

container_test!(a_read_only_root_gets_its_targets_first, |c| {
    c.set("/root/readonly", true);
    c.push("/mounts", mount("tmpfs", "tmpfs", "/made/here", &[]));
    assert_eq!(mountinfo::at(&c.facts(), "/made/here").fstype, "tmpfs");
});

container_test!(an_absolute_root_path, |c| {
    let path = c.rootfs();
    c.set("/root/path", path.to_str().unwrap());
    c.args(&["true"]);
    c.run().ok();
});

container_test!(no_pivot, |c| {
    c.args(&["all", "ls", "/", ",", "write", "/file", "text"]);
    assert_has(c.run_with(&["--no-pivot"]).ok().stdout, "dev guest proc sys tmp\n");
    assert!(c.rootfs().join("file").exists());
});

container_test!(the_root_propagates_as_asked, |c| {
    if rival() == Some("runc") {
        return crate::common::skip(&c.name, "runc does so since 1.2");
    }
    // What is unbindable can't be the source of these.
    c.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
    for (value, kind) in
        [("shared", "shared"), ("rshared", "shared"), ("unbindable", "unbindable"), ("runbindable", "unbindable")]
    {
        c.set("/linux/rootfsPropagation", value);
        let facts = c.facts();
        let root = mountinfo::at(&facts, "/");
        assert!(root.propagates(kind), "{value}: {root:?}");
    }
    for value in ["private", "rprivate", "slave", "rslave"] {
        c.set("/linux/rootfsPropagation", value);
        let root = mountinfo::at(&c.facts(), "/");
        assert!(!root.propagates("shared") && !root.propagates("unbindable"), "{value}: {root:?}");
    }
});

// Docker's roots are overlays, and `-v /source:/target:rshared` makes them shared.
container_test!(a_shared_root_that_is_a_mount_point, |c| {
    c.set("/linux/rootfsPropagation", "shared");
    c.args(&["facts"]);
    c.write_config();
    let prepared = "mount --make-rshared /; mount --bind rootfs rootfs; \"$@\"; \
                    test $(grep -c \" $PWD/rootfs\" /proc/self/mountinfo) = 1 || { echo a mount came out >&2; exit 9; }";
    let prefix = ["unshare", "-m", "--propagation", "private", "sh", "-ec", prepared, "sh"];
    let facts = finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir).ok().json();
    if rival() != Some("runc") {
        assert!(mountinfo::at(&facts, "/").propagates("shared"));
    }
});

container_test!(a_mount_propagates_as_asked, |c| {
    c.push("/mounts", mount("tmpfs", "tmpfs", "/tmp/shared", &["shared"]));
    c.push("/mounts", mount("tmpfs", "tmpfs", "/tmp/private", &["private"]));
    c.push("/mounts", mount("tmpfs", "tmpfs", "/tmp/unbindable", &["unbindable"]));
    c.push("/mounts", mount("bind", "/sys", "/tmp/rshared", &["rbind", "rshared"]));
    let facts = c.facts();
    assert!(mountinfo::at(&facts, "/tmp/shared").propagates("shared"));
    assert!(mountinfo::at(&facts, "/tmp/private").propagation.is_empty());
    assert!(mountinfo::at(&facts, "/tmp/unbindable").propagates("unbindable"));
    for mount in mountinfo::all(&facts).iter().filter(|m| m.point.starts_with("/tmp/rshared")) {
        assert!(mount.propagates("shared"), "{mount:?}");
    }
});

container_test!(a_target_behind_a_symlink_stays_inside, |c| {
    let outside = c.path("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, c.rootfs().join("absolute")).unwrap();
    symlink("../../../../../../../..", c.rootfs().join("up")).unwrap();
    c.push("/mounts", mount("tmpfs", "tmpfs", "/absolute/a", &[]));
    c.push("/mounts", mount("tmpfs", "tmpfs", "/up/b", &[]));
    let facts = c.facts();
    assert_eq!(mountinfo::at(&facts, "/b").fstype, "tmpfs");
    let inside = format!("{}/a", outside.display());
    assert_eq!(mountinfo::at(&facts, &inside).fstype, "tmpfs", "the link is resolved inside the rootfs");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was made outside the rootfs");
});

container_test!(a_target_with_dots_stays_inside, |c| {
    c.push("/mounts", mount("tmpfs", "tmpfs", "/tmp/../../../../escape", &[]));
    let output = c.run();
    // A runtime may refuse such a target; what it may not do is leave the rootfs.
    assert!(output.code == 0 || output.code == 1, "{output}");
    assert!(!c.dir.join("escape").exists() && !c.bundle().join("escape").exists());
});

container_test!(a_missing_rootfs_is_an_error, |c| {
    c.set("/root/path", "nowhere");
    c.run().fails(&["nowhere"]);
    c.assert_clean();
});

container_test!(a_rootfs_that_is_a_file_is_an_error, |c| {
    fs::write(c.bundle().join("file"), "").unwrap();
    c.set("/root/path", "file");
    c.run().exits(1);
    c.assert_clean();
});

container_test!(masked_paths_are_empty, |c| {
    fs::create_dir(c.rootfs().join("secrets")).unwrap();
    fs::write(c.rootfs().join("secrets/key"), "secret").unwrap();
    fs::write(c.rootfs().join("secret"), "secret").unwrap();
    c.set("/linux/maskedPaths", json!(["/secrets", "/secret", "/no/such/path", "/proc/version"]));
    c.args(&[
        "all",
        "ls",
        "/secrets",
        ",",
        "cat",
        "/secret",
        ",",
        "stat",
        "/proc/version",
        ",",
        "write",
        "/secrets/new",
        "x",
    ]);
    let out = c.run().exits(1).stdout;
    assert_has(&out, "\n/proc/version c 666 0 0 0 1 3\n");
    assert!(!out.contains("secret\n") && !out.contains("key"), "{out}");
    assert_has(&out, "/secrets/new x: EROFS");
});

container_test!(many_masked_folders_share_one_empty_mount, |c| {
    if rival().is_some() {
        return crate::common::skip(&c.name, "runc 1.1 mounts a tmpfs for each");
    }
    let names: Vec<String> = (0..20).map(|i| format!("/masked{i}")).collect();
    for name in &names {
        fs::create_dir(c.rootfs().join(&name[1..])).unwrap();
    }
    c.set("/linux/maskedPaths", json!(names));
    // Field 3 of mountinfo is the device: one file system, many mounts.
    let facts = c.facts();
    let lines = crate::common::strings(&facts["mountinfo"]);
    let mut devices: Vec<&str> =
        lines.iter().filter(|l| l.contains(" /masked")).map(|l| l.split(' ').nth(2).unwrap()).collect();
    assert_eq!(devices.len(), 20);
    devices.dedup();
    assert_eq!(devices.len(), 1, "{devices:?}");
});

container_test!(read_only_paths_cannot_be_written, |c| {
    fs::create_dir(c.rootfs().join("config")).unwrap();
    fs::write(c.rootfs().join("config/file"), "text").unwrap();
    c.set("/linux/readonlyPaths", json!(["/config", "/no/such/path", "/proc/sys"]));
    c.args(&[
        "all",
        "cat",
        "/config/file",
        ",",
        "write",
        "/config/file",
        "x",
        ",",
        "write",
        "/proc/sys/kernel/hostname",
        "x",
    ]);
    let out = c.run().exits(1).stdout;
    assert_has(&out, "text");
    assert_has(&out, "/config/file x: EROFS");
    assert_has(&out, "/proc/sys/kernel/hostname x: EROFS");
});

container_test!(read_only_paths_keep_their_other_options, |c| {
    c.set("/mounts/0/options", json!(["nosuid", "noexec", "nodev"]));
    let mount = mountinfo::at(&c.facts(), "/proc/sys");
    for option in ["ro", "nosuid", "noexec", "nodev"] {
        assert!(mount.has(option), "{mount:?}");
    }
});

container_test!(the_root_may_be_behind_a_link, |c| {
    skip_for_runc!(c, "it refuses that");
    symlink(c.rootfs(), c.path("link")).unwrap();
    let link = c.path("link");
    c.set("/root/path", link.to_str().unwrap());
    assert_eq!(c.facts()["cwd"], "/");
});
