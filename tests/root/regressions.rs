//! Mistakes that other runtimes have made, each named after its report. The corpus is grouped by their causes in
//! other files too: signals and the umask in process.rs, hostile images in rootfs.rs, closed descriptors in run.rs.

use std::fs;

use serde_json::json;

use crate::common::config::mount;
use crate::common::program::{finish, guest, start};
use crate::common::{assert_has, host, mountinfo};
use crate::{container_test, skip_for_runc, skip_unless};

// crun 1.29.1: the mode of /proc and /sys was changed, /dev/shm could not be used.
container_test!(crun_1_29_1_modes_of_mount_points, |c| {
    let out =
        c.prints(&["all", "stat", "/proc", ",", "stat", "/sys", ",", "stat", "/dev/shm", ",", "stat", "/dev/pts"]);
    assert_has(&out, "/proc dir 555 ");
    assert_has(&out, "/sys dir 555 ");
    assert_has(&out, "/dev/shm dir 1777 ");
    assert_has(&out, "/dev/pts dir 755 ");
});

// crun 1.14.2: a newer specification made every config.json invalid.
container_test!(crun_1_14_2_version_of_the_specification, |c| {
    for version in ["1.0.0", "1.0.2-dev", "1.3.0", "1.9.0", "1.0.0-rc5"] {
        c.set("/ociVersion", version).args(&["exit", "4"]);
        c.run().exits(4);
    }
});

// runc#4543: two runtimes that make the same mount point in a shared rootfs: EEXIST.
container_test!(runc_4543_shared_rootfs, |c| {
    for i in 0..5 {
        c.push("/mounts", mount("tmpfs", "tmpfs", &format!("/a/deep/folder/of/{i}"), &[]));
    }
    c.remove("/linux/cgroupsPath");
    c.args(&["exit", "4"]);
    c.write_config();
    for round in 0..5 {
        let ids: Vec<String> =
            (0..6).map(|i| format!("tare-test-{}-{}-{round}-{i}", std::process::id(), c.id)).collect();
        let running: Vec<_> = ids.iter().map(|id| start(&mut c.command(&["run", id]), &c.dir)).collect();
        for one in running {
            one.wait().exits(4);
        }
        fs::remove_dir_all(c.rootfs().join("a")).unwrap();
    }
});

// runc#1980: a copy of the runtime in memory counted against the container's limit.
container_test!(runc_1980_low_memory_limit, |c| {
    skip_for_runc!(c, "runc 1.1 needs more than this");
    skip_unless!(c, host::has_controller("memory"), "no memory controller");
    c.set("/linux/resources/memory", json!({ "limit": 6_291_456 }));
    c.args(&["exit", "4"]);
    c.run().exits(4);
});

container_test!(few_descriptors_are_enough, |c| {
    skip_for_runc!(c, "runc 1.1 opens more after they are set");
    c.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 4, "hard": 4 }]));
    c.args(&["exit", "4"]);
    c.run().exits(4);
});

// crun @59cfa8b8: mounts of the container on the host. Every test looks for them at its end; this one while it runs.
container_test!(crun_59cfa8b8_no_mount_reaches_the_host, |c| {
    for propagation in ["rshared", "rslave", "rprivate"] {
        c.set("/linux/rootfsPropagation", propagation);
        c.args(&["sleep-forever"]);
        c.detach().ok();
        assert!(!host::mounts().contains(c.dir.to_str().unwrap()), "{propagation}");
        c.delete_force().ok();
    }
});

// crun#1200: kill of a container that had stopped hit whoever had its pid.
container_test!(crun_1200_kill_of_a_stopped_container, |c| {
    c.detach().ok();
    c.wait_status("stopped");
    c.kill(&["KILL"]).exits(1);
});

// runc#5208: a payload that ended before the signals were set up.
container_test!(runc_5208_short_lived_payload, |c| {
    c.args(&["true"]);
    c.write_config();
    let running: Vec<_> = (0..20)
        .map(|i| {
            let id = format!("{}-{i}", c.id);
            let mut config = c.config.clone();
            config["linux"]["cgroupsPath"] = json!(format!("{}/{id}", c.cgroup));
            fs::write(c.bundle().join("config.json"), config.to_string()).unwrap();
            start(&mut c.command(&["run", &id]), &c.dir).wait()
        })
        .collect();
    for one in running {
        one.ok();
    }
});

// runc#3952, #4971: the sticky bit, and a mode given twice.
container_test!(runc_3952_mode_of_a_tmpfs, |c| {
    fs::create_dir(c.rootfs().join("sticky")).unwrap();
    host::chmod(&c.rootfs().join("sticky"), 0o1777);
    c.push("/mounts", mount("tmpfs", "tmpfs", "/sticky", &["nosuid"]));
    c.push("/mounts", mount("tmpfs", "tmpfs", "/given", &["mode=0711"]));
    let out = c.prints(&["stat", "/sticky", "/given"]);
    assert_has(&out, "/sticky dir 1777 ");
    assert_has(&out, "/given dir 711 ");
});

// youki#3536: a read-only rootfs lost the other options of its file system's mount.
container_test!(youki_3536_read_only_root_keeps_options, |c| {
    let plain = mountinfo::at(&c.facts(), "/");
    c.set("/root/readonly", true);
    let read_only = mountinfo::at(&c.facts(), "/");
    let rest =
        |m: &mountinfo::Mount| m.options.iter().filter(|o| *o != "ro" && *o != "rw").cloned().collect::<Vec<_>>();
    assert_eq!(rest(&read_only), rest(&plain));
});

// crun: one process in the container that cannot be waited for (a zombie's parent sleeps) must not stop delete.
container_test!(zombies_inside_do_not_stop_delete, |c| {
    c.args(&["orphan-zombies", "10"]);
    c.detach().ok();
    c.delete_force().ok();
    c.assert_clean();
});

// The caller's own cgroup, priority and limits are its own after `create`.
container_test!(the_runtime_changes_nothing_of_its_caller, |c| {
    let before = fs::read_to_string("/proc/self/cgroup").unwrap();
    c.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 10 }]));
    c.set("/process/oomScoreAdj", 700);
    c.create().ok();
    assert_eq!(fs::read_to_string("/proc/self/cgroup").unwrap(), before);
});

// A caller that has blocked or ignored SIGCHLD must still get the exit status.
container_test!(a_caller_that_ignores_sigchld, |c| {
    skip_for_runc!(c, "Go resets it by itself");
    c.args(&["exit", "6"]);
    c.write_config();
    let prefix = [guest().to_str().unwrap(), "with", "ignore=17", "block=17", "--"];
    finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir).exits(6);
});

// youki#3484: is_dir() of a bind's source: a socket or a device got a folder as its target.
container_test!(youki_3484_target_of_a_device, |c| {
    c.push("/mounts", mount("bind", "/dev/zero", "/new/device", &["bind"]));
    assert_has(c.prints(&["stat", "/new/device"]), "/new/device c 666 ");
});

// runc#4688: HOME came from the host's passwd, or was empty.
container_test!(runc_4688_empty_home, |c| {
    c.push("/process/env", json!("HOME="));
    let facts = c.facts();
    let home: Vec<String> =
        crate::common::strings(&facts["env"]).into_iter().filter(|v| v.starts_with("HOME=")).collect();
    assert!(home == ["HOME=/"] || home == ["HOME="], "{home:?}");
});
