//! What a user namespace may not mount or change: fallbacks, flags that are locked, and the errors that say so.

use serde_json::json;

use crate::common::config::mount;
use crate::common::user::{mapping, uid};
use crate::common::{Container, assert_has, host, program, strings};
use crate::{skip_unless, user_test};

/// The line of mountinfo with a mount point; the last one is on top.
fn line(facts: &serde_json::Value, point: &str) -> String {
    let lines = strings(&facts["mountinfo"]);
    let found = lines.iter().rfind(|line| line.split(' ').nth(4) == Some(point));
    found.unwrap_or_else(|| panic!("no {point} in {lines:#?}")).clone()
}

/// Takes a namespace out of the configuration: it is shared with the runtime.
fn share(c: &mut Container, kind: &str) {
    let list = c.config["linux"]["namespaces"].as_array_mut().unwrap();
    list.retain(|namespace| namespace["type"] != kind);
}

user_test!(sysfs_of_a_shared_network_is_the_hosts_and_read_only, |c| {
    share(c, "network");
    c.remove("/mounts/5/options/3"); // ro
    let facts = c.facts();
    assert!(line(&facts, "/sys").contains(" ro,nosuid,nodev,noexec"), "{}", line(&facts, "/sys"));
    // All of it: the cgroups in it may be the user's to write (CVE-2023-25809).
    let below: Vec<String> =
        strings(&facts["mountinfo"]).into_iter().filter(|line| line.contains(" /sys/fs/cgroup")).collect();
    assert!(!below.is_empty());
    assert!(below.iter().all(|line| line.split(' ').nth(5).unwrap().starts_with("ro,")), "{below:#?}");
    assert_eq!(facts["ns"]["net"], host::namespace("self", "net"));
});

user_test!(mqueue_of_a_shared_ipc_namespace_is_the_hosts, |c| {
    share(c, "ipc");
    let mqueue = std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" /dev/mqueue ");
    c.args(&["facts"]);
    let output = c.run();
    if mqueue {
        assert_has(line(&output.ok().json(), "/dev/mqueue"), "mqueue");
    } else {
        output.fails(&["config.json: /mounts/4", "/dev/mqueue", "EPERM"]);
    }
});

user_test!(proc_of_a_shared_pid_namespace_is_the_hosts, |c| {
    share(c, "pid");
    // The host's own masks can't be put over it by path: they are there or not.
    c.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
    c.args(&["facts"]);
    let facts = c.run().ok().json();
    assert_eq!(facts["ns"]["pid"], host::namespace("self", "pid"));
    assert_has(line(&facts, "/proc"), " - proc ");
});

/// The runtime in namespaces that its user made, where something covers a part of /proc.
fn behind_masks(c: &Container) -> Vec<String> {
    let script = c.path("masked");
    let text = "#!/bin/sh\nexec unshare --user --mount --map-root-user sh -c \
        'mount --bind /dev/null /proc/cpuinfo && exec \"$@\"' sh \"$@\"\n";
    std::fs::write(&script, text).unwrap();
    host::chmod(&script, 0o755);
    vec![script.display().to_string()]
}

/// `run` by another program in front.
fn run_by(c: &Container, launch: &[String]) -> program::Output {
    c.write_config();
    let bundle = c.bundle();
    let prefix: Vec<&str> = launch.iter().map(String::as_str).collect();
    program::finish(&mut c.command_by(&prefix, &["run", "--bundle", bundle.to_str().unwrap(), &c.id]), &c.dir)
}

user_test!(proc_behind_masks_can_not_be_mounted_anew, |c| {
    let launch = behind_masks(c);
    c.set("/linux/uidMappings", mapping(0, 0, 1)).set("/linux/gidMappings", mapping(0, 0, 1));
    c.args(&["facts"]);
    run_by(c, &launch).fails(&[
        "config.json: /mounts/0: mount on \"/proc\"",
        "masked paths of an outer container",
        "share its pid namespace",
        "EPERM",
    ]);
    c.assert_clean();
    // Shared, it is bound with its masks.
    share(c, "pid");
    c.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
    let facts = run_by(c, &launch).ok().json();
    assert_has(line(&facts, "/proc/cpuinfo"), "/null");
});

/// The runtime as root of a user namespace with a mount whose flags are locked: they were set around it.
fn with_locked(c: &mut Container, flags: &str) -> Vec<String> {
    let user = uid(c);
    let own = c.user.take();
    let source = c.path("locked");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "text").unwrap();
    let drop = match own {
        Some(_) => format!(
            "setpriv --reuid {user} --regid {user} --clear-groups env -i XDG_RUNTIME_DIR={}",
            c.path("run").display()
        ),
        None => "env".into(),
    };
    let text = format!(
        "#!/bin/sh\nset -e\nif [ -z \"$TARE_TEST_PRIVATE\" ]; then\n\
         TARE_TEST_PRIVATE=1 exec unshare --mount --propagation private \"$0\" \"$@\"\nfi\n\
         mount -t tmpfs -o {flags} none {0}\n\
         exec {drop} unshare --user --mount --map-root-user \"$@\"\n",
        source.display()
    );
    let script = c.path("lock");
    std::fs::write(&script, text).unwrap();
    host::chmod(&script, 0o755);
    c.set("/linux/uidMappings", mapping(0, 0, 1)).set("/linux/gidMappings", mapping(0, 0, 1));
    c.args(&["facts"]);
    vec![script.display().to_string()]
}

fn bind(c: &mut Container, options: &[&str]) {
    let source = c.path("locked");
    let mut all = vec!["rbind"];
    all.extend(options);
    c.set("/mounts/6", json!({}));
    c.set("/mounts/6", mount("bind", source.to_str().unwrap(), "/data", &all));
}

const LOCKED: &str = "nosuid,nodev,noexec,noatime";

user_test!(locked_flags_are_kept, |c| {
    skip_unless!(c, c.user.is_some(), "not root: nobody to lock them");
    let launch = with_locked(c, LOCKED);
    c.push("/mounts", json!({}));
    for options in [&[][..], &["ro"], &["nosuid"], &["rprivate"], &["rro"], &["noatime", "ro"]] {
        bind(c, options);
        let line = line(&run_by(c, &launch).ok().json(), "/data");
        let flags = line.split(' ').nth(5).unwrap();
        for flag in LOCKED.split(',') {
            assert!(flags.split(',').any(|other| other == flag), "{options:?}: {line}");
        }
        let ro = options.iter().any(|option| option.ends_with("ro"));
        assert_eq!(flags.starts_with("ro"), ro, "{options:?}: {line}");
    }
});

user_test!(a_locked_flag_that_is_to_be_cleared_is_named, |c| {
    skip_unless!(c, c.user.is_some(), "not root: nobody to lock them");
    let launch = with_locked(c, &format!("ro,{LOCKED}"));
    c.push("/mounts", json!({}));
    for (option, flag) in
        [("suid", "nosuid"), ("dev", "nodev"), ("exec", "noexec"), ("rw", "ro"), ("relatime", "noatime")]
    {
        bind(c, &[option]);
        run_by(c, &launch).fails(&[
            "config.json: /mounts/6: mount on \"/data\": cannot clear locked flags of the source: ",
            &format!(": {flag} ("),
            "EPERM",
        ]);
        c.assert_clean();
    }
    // And of a tree.
    bind(c, &["rsuid", "rdev"]);
    run_by(c, &launch).fails(&["config.json: /mounts/6", "locked flags of the source: nosuid, nodev ("]);
});

// mount_namespaces(7): mounts that came into the namespace together can't be taken apart.
user_test!(a_tree_with_locked_mounts_is_bound_whole_or_says_so, |c| {
    c.push("/mounts", mount("bind", "/sys", "/tmp/sys", &["bind"]));
    c.run().fails(&["config.json: /mounts/6", "locked in this user namespace", "\"rbind\"", "EINVAL"]);
    c.assert_clean();
    c.set("/mounts/6/options/0", "rbind");
    c.run().ok();
});

user_test!(a_remount_keeps_locked_flags, |c| {
    skip_unless!(c, c.user.is_some(), "not root: nobody to lock them");
    let launch = with_locked(c, LOCKED);
    c.push("/mounts", json!({})).push("/mounts", mount("", "none", "/data", &["remount", "bind", "ro"]));
    bind(c, &[]);
    let line = line(&run_by(c, &launch).ok().json(), "/data");
    assert_has(&line, " ro,nosuid,nodev,noexec,noatime ");
    c.set("/mounts/7/options", json!(["remount", "bind", "ro", "exec"]));
    run_by(c, &launch).fails(&["config.json: /mounts/7", "cannot clear locked flags", "noexec"]);
});

user_test!(a_group_of_devpts_that_is_not_mapped_is_named, |c| {
    c.push("/mounts/2/options", json!("gid=5"));
    c.run().fails(&["config.json: /mounts/2/options/5", "\"gid=5\"", "not mapped"]);
    c.remove("/mounts/2/options/5");
    c.push("/mounts/3/options", json!("uid=7"));
    c.run().fails(&["config.json: /mounts/3/options/5", "\"uid=7\"", "not mapped"]);
    c.set("/mounts/3/options/5", "uid=0");
    c.run().ok();
});

user_test!(a_file_system_that_a_user_namespace_may_not_mount_is_named, |c| {
    c.push("/mounts", mount("ext4", "/dev/null", "/data", &[]));
    c.run().fails(&["config.json: /mounts/6: mount on \"/data\"", "user namespace", "EPERM"]);
});

user_test!(a_source_of_the_user_is_bound, |c| {
    std::fs::create_dir(c.path("data")).unwrap();
    std::fs::write(c.path("data/file"), "text").unwrap();
    let source = c.path("data");
    c.push("/mounts", mount("bind", source.to_str().unwrap(), "/data", &["rbind", "ro"]));
    assert_has(c.prints(&["cat", "/data/file"]), "text");
    c.set("/mounts/6/source", c.path("none").to_str().unwrap());
    c.run().fails(&["config.json: /mounts/6/source", "no such file or directory"]);
});

user_test!(a_source_that_the_user_may_not_reach_is_an_error, |c| {
    skip_unless!(c, c.user.is_some(), "not root: nobody to hide it");
    std::fs::create_dir_all(c.path("hidden/data")).unwrap();
    host::chmod(&c.path("hidden"), 0o700);
    let source = c.path("hidden/data");
    c.push("/mounts", mount("bind", source.to_str().unwrap(), "/data", &["rbind"]));
    c.run().fails(&["config.json: /mounts/6", "EACCES"]);
});

user_test!(the_cgroups_of_the_caller_are_bound_where_there_are_none, |c| {
    c.push("/mounts", mount("cgroup", "cgroup", "/sys/fs/cgroup", &["ro", "nosuid", "noexec", "nodev"]));
    let facts = c.facts();
    assert!(line(&facts, "/sys/fs/cgroup").contains(" ro,nosuid"));
    for writable in ["/sys/fs/cgroup/tare-test", "/sys/fs/cgroup/memory/tare-test"] {
        c.args(&["mkdir", writable]);
        let output = c.run().exits(1);
        assert!(["EROFS", "EACCES", "ENOENT"].iter().any(|errno| output.stdout.contains(errno)), "{output}");
    }
    c.push("/linux/namespaces", json!({ "type": "cgroup" }));
    let facts = c.facts();
    assert_ne!(facts["ns"]["cgroup"], host::namespace("self", "cgroup"));
    assert!(line(&facts, "/sys/fs/cgroup").contains(" ro,nosuid"));
});
