//! config.json's mounts: file systems, binds, and every option as the kernel shows it inside.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::common::config::mount;
use crate::common::{Container, assert_has, host, mountinfo, rival};
use crate::container_test;

/// A folder of the host with one file, to bind.
fn source(c: &Container) -> String {
    let dir = c.path("source");
    fs::create_dir_all(dir.join("below")).unwrap();
    fs::write(dir.join("file"), "text").unwrap();
    dir.to_str().unwrap().to_owned()
}

container_test!(the_default_mounts_are_what_they_say, |c| {
    let facts = c.facts();
    for (point, fstype) in [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
    ] {
        assert_eq!(mountinfo::at(&facts, point).fstype, fstype, "{point}");
    }
    let sys = mountinfo::at(&facts, "/sys");
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(sys.has(option), "{sys:?}");
    }
    let dev = mountinfo::at(&facts, "/dev");
    assert!(
        dev.has("nosuid") && !dev.has("relatime") && dev.super_has("mode=755") && dev.super_has("size=65536k"),
        "{dev:?}"
    );
    let pts = mountinfo::at(&facts, "/dev/pts");
    assert!(pts.super_has("gid=5") && pts.super_has("mode=620") && pts.super_has("ptmxmode=666"), "{pts:?}");
});

container_test!(nothing_of_the_host_is_visible, |c| {
    let facts = c.facts();
    let dir = c.dir.to_str().unwrap();
    for mount in mountinfo::all(&facts) {
        assert!(!mount.point.contains(dir), "{mount:?}");
    }
    // Exactly one root, and the host's tree is not below it or above it.
    assert_eq!(mountinfo::all(&facts).iter().filter(|mount| mount.point == "/").count(), 1);
    let names = c.prints(&["ls", "/.."]);
    assert_eq!(names, "dev guest proc sys tmp\n");
});

container_test!(each_plain_option_is_on_a_tmpfs, |c| {
    let cases: [(&str, &str, bool); 12] = [
        ("ro", "ro", true),
        ("rw", "rw", true),
        ("nosuid", "nosuid", true),
        ("nodev", "nodev", true),
        ("noexec", "noexec", true),
        ("noatime", "noatime", true),
        ("nodiratime", "nodiratime", true),
        ("relatime", "relatime", true),
        ("strictatime", "relatime", false),
        ("suid", "nosuid", false),
        ("dev", "nodev", false),
        ("exec", "noexec", false),
    ];
    for (option, _, _) in cases {
        c.push("/mounts", mount("tmpfs", "tmpfs", &format!("/tmp/{option}"), &[option]));
    }
    let facts = c.facts();
    for (option, shown, expected) in cases {
        let mount = mountinfo::at(&facts, &format!("/tmp/{option}"));
        assert_eq!(mount.has(shown), expected, "{option}: {mount:?}");
    }
});

container_test!(each_plain_option_is_on_a_bind, |c| {
    let source = source(c);
    let cases = ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"];
    let cases: Vec<&str> = cases.into_iter().filter(|o| rival().is_none() || *o != "nosymfollow").collect();
    for option in &cases {
        c.push("/mounts", mount("bind", &source, &format!("/tmp/{option}"), &["rbind", option]));
    }
    let facts = c.facts();
    for option in cases {
        let mount = mountinfo::at(&facts, &format!("/tmp/{option}"));
        assert!(mount.has(option), "{option}: {mount:?}");
    }
});

container_test!(options_of_the_superblock, |c| {
    c.push("/mounts", mount("tmpfs", "tmpfs", "/tmp/a", &["sync", "dirsync", "mode=1700", "size=100k", "nr_inodes=7"]));
    c.push(
        "/mounts",
        mount(
            "tmpfs",
            "tmpfs",
            "/tmp/b",
            if rival().is_some() { &["sync", "async"] } else { &["sync", "async", "defaults"] },
        ),
    );
    let facts = c.facts();
    let a = mountinfo::at(&facts, "/tmp/a");
    for option in ["sync", "dirsync", "mode=1700", "size=100k", "nr_inodes=7"] {
        assert!(a.super_has(option), "{option}: {a:?}");
    }
    assert!(!mountinfo::at(&facts, "/tmp/b").super_has("sync"));
});

container_test!(a_later_option_wins, |c| {
    c.push("/mounts", mount("tmpfs", "tmpfs", "/tmp/a", &["ro", "nosuid", "noexec", "rw", "suid"]));
    let a = mountinfo::at(&c.facts(), "/tmp/a");
    assert!(a.has("rw") && !a.has("nosuid") && a.has("noexec"), "{a:?}");
});

container_test!(bind_is_chosen_by_option_or_type, |c| {
    let source = source(c);
    c.push("/mounts", mount("bind", &source, "/tmp/a", &["bind"]));
    c.push("/mounts", mount("none", &source, "/tmp/b", &["rbind"]));
    c.push("/mounts", json!({ "source": source, "destination": "/tmp/c", "options": ["bind", "ro"] }));
    c.push("/mounts", mount("tmpfs", &source, "/tmp/d", &["bind"]));
    if rival().is_none() {
        c.push("/mounts", json!({ "type": "bind", "source": source, "destination": "/tmp/e" }));
    }
    let mut words = vec!["cat", "/tmp/a/file", "/tmp/b/file", "/tmp/c/file", "/tmp/d/file"];
    if rival().is_none() {
        words.push("/tmp/e/file");
    }
    assert_eq!(c.prints(&words), "text".repeat(words.len() - 1));
});

container_test!(a_bind_is_writable_or_not, |c| {
    let source = source(c);
    c.push("/mounts", mount("bind", &source, "/tmp/ro", &["bind", "ro"]));
    c.push("/mounts", mount("bind", &source, "/tmp/rw", &["bind", "rw"]));
    c.args(&["all", "write", "/tmp/rw/new", "text", ",", "write", "/tmp/ro/other", "text"]);
    assert_has(c.run().exits(1).stdout, "/tmp/ro/other text: EROFS");
    assert!(c.path("source/new").exists());
});

container_test!(a_relative_bind_source_is_in_the_bundle, |c| {
    fs::create_dir(c.bundle().join("data")).unwrap();
    fs::write(c.bundle().join("data/file"), "from the bundle").unwrap();
    c.push("/mounts", mount("bind", "data", "/tmp/a", &["bind"]));
    assert_eq!(c.prints(&["cat", "/tmp/a/file"]), "from the bundle");
});

container_test!(a_bind_source_may_be_a_symlink, |c| {
    let source = source(c);
    std::os::unix::fs::symlink(&source, c.path("link")).unwrap();
    let link = c.path("link");
    c.push("/mounts", mount("bind", link.to_str().unwrap(), "/tmp/a", &["bind"]));
    assert_eq!(c.prints(&["cat", "/tmp/a/file"]), "text");
});

container_test!(a_file_is_bound_and_its_target_made, |c| {
    let file = format!("{}/file", source(c));
    c.push("/mounts", mount("bind", &file, "/etc/deep/hosts", &["bind", "ro"]));
    assert_eq!(c.prints(&["cat", "/etc/deep/hosts"]), "text");
    assert!(c.rootfs().join("etc/deep/hosts").is_file());
});

container_test!(sockets_and_devices_can_be_bound, |c| {
    let socket = c.path("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    c.push("/mounts", mount("bind", socket.to_str().unwrap(), "/tmp/socket", &["bind"]));
    c.push("/mounts", mount("bind", "/dev/null", "/tmp/null", &["bind"]));
    let lines = c.prints(&["stat", "/tmp/socket", "/tmp/null"]);
    assert_has(&lines, "/tmp/socket sock ");
    assert_has(&lines, "/tmp/null c 666 0 0 0 1 3");
});

container_test!(missing_targets_are_made, |c| {
    c.push("/mounts", mount("tmpfs", "tmpfs", "/a/b/c", &["mode=700"]));
    assert_eq!(mountinfo::at(&c.facts(), "/a/b/c").fstype, "tmpfs");
    assert_eq!(fs::metadata(c.rootfs().join("a/b")).unwrap().permissions().mode() & 0o777, 0o755);
});

container_test!(a_tmpfs_takes_the_mode_of_its_target, |c| {
    fs::create_dir(c.rootfs().join("open")).unwrap();
    host::chmod(&c.rootfs().join("open"), 0o1777);
    c.push("/mounts", mount("tmpfs", "tmpfs", "/open", &[]));
    assert_has(c.prints(&["stat", "/open"]), "/open dir 1777 ");
});

container_test!(tmpcopyup_brings_the_content_along, |c| {
    fs::create_dir_all(c.rootfs().join("etc/sub")).unwrap();
    fs::write(c.rootfs().join("etc/file"), "content").unwrap();
    fs::write(c.rootfs().join("etc/sub/file"), "deeper").unwrap();
    host::chmod(&c.rootfs().join("etc/file"), 0o604);
    std::os::unix::fs::chown(c.rootfs().join("etc/file"), Some(7), Some(8)).unwrap();
    std::os::unix::fs::symlink("file", c.rootfs().join("etc/link")).unwrap();
    c.push("/mounts", mount("tmpfs", "tmpfs", "/etc", &["tmpcopyup"]));
    c.args(&[
        "all",
        "cat",
        "/etc/file",
        "/etc/sub/file",
        ",",
        "stat",
        "/etc/file",
        ",",
        "readlink",
        "/etc/link",
        ",",
        "write",
        "/etc/new",
        "x",
    ]);
    let out = c.run().ok().stdout;
    assert_has(&out, "contentdeeper");
    assert_has(&out, "/etc/file file 604 7 8 ");
    assert_has(&out, "file\n");
    assert!(!c.rootfs().join("etc/new").exists(), "written through to the rootfs");
});

container_test!(a_read_only_tmpfs_can_hold_later_mounts, |c| {
    c.push("/mounts", mount("tmpfs", "tmpfs", "/run", &["ro"]));
    c.push("/mounts", mount("tmpfs", "tmpfs", "/run/lock", &[]));
    let facts = c.facts();
    assert!(mountinfo::at(&facts, "/run").has("ro"));
    assert!(mountinfo::at(&facts, "/run/lock").has("rw"));
});

container_test!(a_relative_target_is_relative_to_the_root, |c| {
    // Deprecated by the specification, and still sent by old tools.
    c.set("/process/cwd", "/tmp");
    c.push("/mounts", mount("tmpfs", "tmpfs", "a/b", &[]));
    assert_eq!(mountinfo::at(&c.facts(), "/a/b").fstype, "tmpfs");
});

container_test!(mounts_are_made_in_order, |c| {
    let source = source(c);
    c.push("/mounts", mount("tmpfs", "tmpfs", "/tmp/a", &[]));
    c.push("/mounts", mount("bind", &source, "/tmp/a/b", &["bind"]));
    c.push("/mounts", mount("tmpfs", "tmpfs", "/tmp/a/b/below", &[]));
    let facts = c.facts();
    let points: Vec<String> =
        mountinfo::all(&facts).into_iter().map(|m| m.point).filter(|p| p.starts_with("/tmp/a")).collect();
    assert_eq!(points, ["/tmp/a", "/tmp/a/b", "/tmp/a/b/below"]);
});

container_test!(an_overlay, |c| {
    for dir in ["lower", "upper", "work"] {
        fs::create_dir(c.path(dir)).unwrap();
    }
    fs::write(c.path("lower/file"), "lower").unwrap();
    let option = |name: &str, dir: &str| format!("{name}={}", c.path(dir).display());
    let options = [option("lowerdir", "lower"), option("upperdir", "upper"), option("workdir", "work")];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let overlay = mount("overlay", "overlay", "/tmp/over", &options);
    c.push("/mounts", overlay);
    c.args(&["all", "cat", "/tmp/over/file", ",", "write", "/tmp/over/new", "x"]);
    assert_eq!(c.run().ok().stdout, "lower");
    assert!(c.path("upper/new").exists());
});

container_test!(cgroups_inside, |c| {
    c.push("/linux/namespaces", json!({ "type": "cgroup" }));
    c.push("/mounts", mount("cgroup", "cgroup", "/sys/fs/cgroup", &["ro", "nosuid", "noexec", "nodev"]));
    let facts = c.facts();
    let mounts = mountinfo::all(&facts);
    let found: Vec<_> = mounts.iter().filter(|m| m.fstype == "cgroup" || m.fstype == "cgroup2").collect();
    assert!(!found.is_empty(), "{mounts:?}");
    for mount in &found {
        assert!(mount.has("ro"), "{mount:?}");
    }
    if host::v1("pids").is_some() {
        let procs = c.prints(&["cat", "/sys/fs/cgroup/pids/cgroup.procs"]);
        assert_eq!(procs, "1\n", "the container's own cgroup is expected at its root");
    }
});

container_test!(cgroups_inside_without_a_cgroup_namespace, |c| {
    c.push("/mounts", mount("cgroup", "cgroup", "/sys/fs/cgroup", &["ro", "nosuid", "noexec", "nodev"]));
    if host::v1("pids").is_none() {
        return crate::common::skip(&c.name, "no v1 hierarchy");
    }
    assert_eq!(c.prints(&["cat", "/sys/fs/cgroup/pids/cgroup.procs"]), "1\n");
});

container_test!(recursive_options_reach_mounts_below, |c| {
    let source = source(c);
    // The submount is made in the container's own tree: a tmpfs first, then a bind of it.
    let proc_below =
        [("rro", "ro"), ("rnosuid", "nosuid"), ("rnodev", "nodev"), ("rnoexec", "noexec"), ("rnoatime", "noatime")];
    if rival() == Some("runc") {
        return crate::common::skip(&c.name, "runc 1.1 has only rro, and it needs a host mount");
    }
    let _ = source;
    for (option, _) in proc_below {
        c.push("/mounts", mount("bind", "/sys", &format!("/tmp/{option}"), &["rbind", option]));
    }
    let facts = c.facts();
    for (option, shown) in proc_below {
        let point = format!("/tmp/{option}");
        let below: Vec<_> = mountinfo::all(&facts).into_iter().filter(|m| m.point.starts_with(&point)).collect();
        assert!(below.len() > 1, "the host's /sys has mounts below it: {below:?}");
        assert!(below.iter().all(|m| m.has(shown)), "{option}: {below:?}");
    }
});

container_test!(a_plain_option_of_rbind_is_for_the_top_only, |c| {
    c.push("/mounts", mount("bind", "/sys", "/tmp/sys", &["rbind", "ro"]));
    let facts = c.facts();
    assert!(mountinfo::at(&facts, "/tmp/sys").has("ro"));
    let below: Vec<_> = mountinfo::all(&facts).into_iter().filter(|m| m.point.starts_with("/tmp/sys/")).collect();
    assert!(below.iter().any(|m| m.has("rw")), "{below:?}");
});

container_test!(bind_brings_no_mounts_along, |c| {
    c.push("/mounts", mount("bind", "/sys", "/tmp/sys", &["bind"]));
    let facts = c.facts();
    let below: Vec<_> = mountinfo::all(&facts).into_iter().filter(|m| m.point.starts_with("/tmp/sys/")).collect();
    assert!(below.is_empty(), "{below:?}");
});

container_test!(a_missing_bind_source_is_an_error_that_names_it, |c| {
    c.push("/mounts", mount("bind", "/no/such/source", "/tmp/a", &["bind"]));
    c.run().fails(&["/no/such/source"]);
    c.assert_clean();
});

container_test!(an_unknown_file_system_is_an_error, |c| {
    c.push("/mounts", mount("nosuchfs", "none", "/tmp/a", &[]));
    c.run().fails(&["/tmp/a"]);
    c.assert_clean();
});

container_test!(a_bad_value_of_a_file_system_is_an_error_that_names_the_target, |c| {
    c.push("/mounts", mount("tmpfs", "tmpfs", "/tmp/a", &["size=lots"]));
    c.run().fails(&["/tmp/a"]);
    c.assert_clean();
});

// Docker finds "not a directory" in the error and adds what to do.
container_test!(a_file_does_not_cover_a_directory, |c| {
    let file = format!("{}/file", source(c));
    fs::create_dir_all(c.rootfs().join("directory")).unwrap();
    c.push("/mounts", mount("bind", &file, "/directory", &["bind"]));
    c.run().fails(&["config.json: /mounts/", "\"/directory\"", "not a directory"]);
});

container_test!(a_directory_does_not_cover_a_file, |c| {
    let folder = source(c);
    fs::write(c.rootfs().join("file"), "").unwrap();
    c.push("/mounts", mount("bind", &folder, "/file", &["bind"]));
    c.run().fails(&["config.json: /mounts/", "\"/file\"", "not a directory"]);
});

// What std refuses to read as text has no errno, and needs none.
container_test!(a_mount_of_the_host_with_a_name_that_is_no_text, |c| {
    let make = "d=$(printf 'odd\\377') && mkdir \"$d\" && mount -t tmpfs none \"$d\" && exec \"$@\"";
    c.args(&["true"]);
    c.write_config();
    let prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", make, "sh"];
    crate::common::program::finish(&mut c.command_by(&prefix, &["run", "--no-pivot", &c.id]), &c.dir).ok();
});
