//! Where mounts go: the image's links and whoever shares a volume with the container decide nothing outside it.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use super::Flips;
use crate::common::config::mount;
use crate::common::{Container, mountinfo};
use crate::{container_test, skip_for_runc};

/// A volume with `d`, a directory, and `l`, a link to a directory of the host, which somebody exchanges all the time.
/// Returns the directory of the host.
fn contested_volume(c: &mut Container) -> (std::path::PathBuf, Flips) {
    let (volume, outside) = (c.path("volume"), c.path("outside"));
    fs::create_dir_all(volume.join("d")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    symlink(&outside, volume.join("l")).unwrap();
    c.push("/mounts", mount("bind", volume.to_str().unwrap(), "/volume", &["bind"]));
    let flips = Flips::start(&volume.join("d"), &volume.join("l"));
    (outside, flips)
}

// The hook sees the container's mount namespace while the host's tree is still in it.
container_test!(cve_2021_30465_no_mount_leaves_a_volume_that_changes, |c| {
    let (outside, flips) = contested_volume(c);
    fs::create_dir(outside.join("x")).unwrap();
    let seen = c.path("seen");
    let script = format!("cat /proc/self/mountinfo >> {}", seen.display());
    c.set("/hooks/createContainer", json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]));
    for _ in 0..8 {
        c.push("/mounts", mount("tmpfs", "tmpfs", "/volume/d/x", &[]));
    }
    for _ in 0..60 {
        let _ = c.run();
        c.assert_clean();
    }
    drop(flips);
    let outside = format!(" {}/", outside.display());
    let seen = fs::read_to_string(&seen).unwrap();
    assert!(seen.lines().count() > 100, "no container got so far");
    let wrong: Vec<&str> = seen.lines().filter(|line| line.contains(&outside)).collect();
    assert_eq!(wrong, Vec::<&str>::new());
});

container_test!(cve_2024_45310_nothing_is_made_outside_a_volume_that_changes, |c| {
    let (outside, flips) = contested_volume(c);
    fs::write(c.path("file"), "").unwrap();
    let file = c.path("file");
    for i in 0..10 {
        c.push("/mounts", mount("tmpfs", "tmpfs", &format!("/volume/d/{i}/made"), &[]));
        c.push("/mounts", mount("bind", file.to_str().unwrap(), &format!("/volume/d/{i}-file"), &["bind"]));
    }
    for _ in 0..60 {
        let _ = c.run();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was made outside the root file system");
        // To be made again.
        for name in ["d", "l"] {
            for i in 0..10 {
                let _ = fs::remove_dir_all(c.path("volume").join(name).join(i.to_string()));
                let _ = fs::remove_file(c.path("volume").join(name).join(format!("{i}-file")));
            }
        }
    }
    drop(flips);
});

container_test!(cve_2019_18837_links_are_resolved_inside, |c| {
    let outside = c.path("outside");
    fs::create_dir(&outside).unwrap();
    let file = c.path("file");
    fs::write(&file, "").unwrap();
    let links = [
        ("absolute", outside.to_str().unwrap().to_owned()),
        ("up", format!("../../../../../../..{}", outside.display())),
        ("chain", "absolute/../absolute".to_owned()),
        ("self", "/absolute/.".to_owned()),
    ];
    for (name, target) in &links {
        symlink(target, c.rootfs().join(name)).unwrap();
        c.push("/mounts", mount("tmpfs", "tmpfs", &format!("/{name}/{name}-dir"), &[]));
        c.push("/mounts", mount("bind", file.to_str().unwrap(), &format!("/{name}/{name}-file"), &["bind"]));
    }
    let facts = c.facts();
    let points: Vec<String> = mountinfo::all(&facts).into_iter().map(|mount| mount.point).collect();
    let made = points.iter().filter(|point| point.ends_with("-dir") || point.ends_with("-file")).count();
    assert_eq!(made, 2 * links.len(), "{points:?}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
});

// A name in config.json that leads out of the container's cgroup, or of the cgroup file systems.
container_test!(ghsa_5g49_cgroup_files_are_names, |c| {
    skip_for_runc!(c, "1.1 ignores what a v1 host doesn't have");
    for (pointer, value, what) in [
        ("/linux/resources/unified", json!({ "../cgroup.procs": "1" }), "plain name"),
        ("/linux/resources/unified", json!({ "a/b.c": "1" }), "plain name"),
        ("/linux/resources/hugepageLimits", json!([{ "pageSize": "../../2MB", "limit": 1 }]), "../../2MB"),
    ] {
        c.set(pointer, value);
        c.run().fails(&[pointer, what]);
        c.assert_clean();
        c.remove(pointer);
    }
});

// Where these two are decides what the masks cover, also if they are bound.
container_test!(no_link_leads_a_bind_of_proc_or_sys, |c| {
    skip_for_runc!(c, "it follows the link");
    for (name, at) in [("proc", 0), ("sys", 5)] {
        let before = c.config.clone();
        let place = c.rootfs().join(name);
        fs::remove_dir(&place).unwrap();
        symlink("/elsewhere", &place).unwrap();
        fs::create_dir_all(c.rootfs().join("elsewhere")).unwrap();
        c.set(&format!("/mounts/{at}"), mount("bind", &format!("/{name}"), &format!("/{name}"), &["rbind"]));
        let wanted = [&format!("/mounts/{at}"), "ordinary directory"];
        c.run().fails(&wanted);
        c.assert_clean();
        // By mount(2), too.
        let guest = crate::common::guest();
        let prefix = [guest.to_str().unwrap(), "with", "enosys=open_tree,open_tree_attr,move_mount", "--"];
        c.write_config();
        crate::common::program::finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir).fails(&wanted);
        c.assert_clean();
        fs::remove_file(&place).unwrap();
        fs::create_dir(&place).unwrap();
        c.config = before;
    }
});

// Each directory that is missing takes a call within a call: links that lead nowhere must not add up to the whole stack.
container_test!(links_that_lead_nowhere_end_in_an_error, |c| {
    skip_for_runc!(c, "it resolves them in another way");
    let long = "x/".repeat(2000);
    for link in 0..12 {
        symlink(format!("/link{}/{long}", link + 1), c.rootfs().join(format!("link{link}"))).unwrap();
    }
    c.push("/mounts", mount("tmpfs", "tmpfs", "/link0", &[]));
    c.run().fails(&["/mounts/6", "ELOOP"]);
    c.assert_clean();
});

// What is mounted over a part of a source hides it, and its flags bind, also for a root that may mount (a copy that is made
// in the caller's mount namespace has none of these locks).
container_test!(root_of_a_user_namespace_undoes_nothing_of_a_source, |c| {
    skip_for_runc!(c, "1.1 makes no tree of it");
    let source = c.path("source");
    let at = source.to_str().unwrap().to_owned();
    fs::create_dir_all(source.join("sub")).unwrap();
    fs::write(source.join("sub/hidden"), "HIDDEN").unwrap();
    super::map(c);
    for set in ["bounding", "effective", "permitted"] {
        c.set(&format!("/process/capabilities/{set}"), json!(["CAP_SYS_ADMIN"]));
    }
    let script = format!(
        "mount --bind {at} {at}; mount -t tmpfs none {at}/sub; mount -o remount,bind,ro,nosuid,nodev {at}; exec \"$@\""
    );
    let prefix = ["unshare", "-m", "--propagation", "private", "sh", "-ec", &script, "sh"];
    let acts = ["all", "remount", "/tmp/a", ",", "umount", "/tmp/a/sub", ",", "ls", "/tmp/a/sub"];
    c.push("/mounts", json!({}));
    for options in [&["rbind"][..], &["rbind", "ro"], &["rbind", "rslave"], &["rbind", "idmap"], &["rbind", "ridmap"]] {
        c.args(&acts);
        c.set("/mounts/6", mount("bind", &at, "/tmp/a", options));
        c.write_config();
        let output = crate::common::program::finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir);
        let lines: Vec<&str> = output.stdout.lines().collect();
        let refused = |line: usize, errno: &str| lines.get(line).is_some_and(|line| line.contains(errno));
        assert!(refused(0, "EPERM") && refused(1, "EINVAL"), "{options:?}: {output}");
        assert!(!output.stdout.contains("hidden"), "{options:?}: {output}");
    }
    for options in [["rbind", "rrw"], ["rbind", "rsuid"], ["rbind", "rdev"]] {
        c.args(&["true"]);
        c.set("/mounts/6", mount("bind", &at, "/tmp/a", &options));
        c.write_config();
        let output = crate::common::program::finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir);
        output.fails(&["/mounts/6", "cannot clear locked flags"]);
        c.assert_clean();
    }
});

// The kernel locks them in the container's mount namespace, but not those of a source that root opens outside.
container_test!(locked_flags_of_a_source_stay, |c| {
    skip_for_runc!(c, "1.1 clears them");
    let source = c.path("source");
    fs::create_dir(&source).unwrap();
    c.push("/linux/namespaces", json!({ "type": "user" }));
    let mapping = json!([{ "containerID": 0, "hostID": 300_000, "size": 65536 }]);
    c.set("/linux/uidMappings", mapping.clone()).set("/linux/gidMappings", mapping);
    for name in ["", "proc", "sys", "dev", "tmp"] {
        std::os::unix::fs::chown(c.rootfs().join(name), Some(300_000), Some(300_000)).unwrap();
    }
    let script = format!("mount -t tmpfs -o ro,nosuid,nodev,noexec none {}; exec \"$@\"", source.display());
    let prefix = ["unshare", "-m", "--propagation", "private", "sh", "-ec", &script, "sh"];
    c.args(&["facts"]);
    c.push("/mounts", json!({}));
    for (option, passes) in
        [("noatime", false), ("nosuid", true), ("rw", false), ("suid", false), ("dev", false), ("exec", false)]
    {
        c.set("/mounts/6", mount("bind", source.to_str().unwrap(), "/tmp/a", &["bind", option]));
        c.write_config();
        let output = crate::common::program::finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir);
        if passes {
            let made = mountinfo::at(&output.ok().json(), "/tmp/a");
            assert!(["ro", "nosuid", "nodev", "noexec"].iter().all(|flag| made.has(flag)), "{option}: {made:?}");
        } else {
            output.exits(1);
        }
    }
});
