//! What stands in the way of a container's cgroup is named, with what helps against it.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;

use serde_json::json;

use crate::common::program::finish;
use crate::common::{Container, Output, assert_has, host};
use crate::{container_test, skip_for_runc, skip_unless};

/// Where cgroup v2 is mounted, on a hybrid host as well.
fn v2() -> Option<PathBuf> {
    let mounts = host::mounts();
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    Some(line.split(' ').nth(4)?.into())
}

fn run_by(c: &Container, prefix: &[&str]) -> Output {
    c.write_config();
    finish(&mut c.command_by(prefix, &["run", &c.id]), &c.dir)
}

container_test!(a_threaded_subtree, |c| {
    skip_for_runc!(c, "it says EOPNOTSUPP");
    skip_unless!(c, v2().is_some(), "no cgroup v2");
    let parent = v2().unwrap().join(c.cgroup.trim_start_matches('/'));
    fs::create_dir(&parent).unwrap();
    fs::write(parent.join("cgroup.type"), "threaded").unwrap();
    c.run().fails(&["threaded subtree", "choose a cgroupsPath outside"]);
    c.assert_clean();
});

container_test!(a_read_only_cgroup_file_system, |c| {
    skip_for_runc!(c, "it says EROFS");
    skip_unless!(c, host::installed("unshare") && host::installed("mount"), "util-linux is missing");
    let mounts: Vec<String> =
        host::hierarchies().iter().map(|root| format!("mount -o remount,bind,ro {}", root.display())).collect();
    let script = format!("{}; exec \"$@\"", mounts.join("; "));
    let output = run_by(c, &["unshare", "--mount", "sh", "-c", &script, "sh"]);
    output.fails(&["mounted read-only", "remount,rw", "--cgroup-manager=disabled"]);
    c.assert_clean();
});

container_test!(no_right_to_make_a_cgroup, |c| {
    skip_for_runc!(c, "it says permission denied");
    skip_unless!(c, host::installed("setpriv"), "util-linux is missing");
    const USER: u32 = 54_321;
    for dir in ["", "state", "bundle", "bundle/rootfs"] {
        chown(c.path(dir), Some(USER), Some(USER)).unwrap();
    }
    c.push("/linux/namespaces", json!({ "type": "user" }));
    let own = json!([{ "containerID": 0, "hostID": USER, "size": 1 }]);
    c.set("/linux/uidMappings", own.clone()).set("/linux/gidMappings", own);
    c.remove("/mounts/2/options/5"); // gid=5 isn't mapped
    c.set("/linux/resources", json!({ "memory": { "limit": 67_108_864 } }));
    let user = USER.to_string();
    let output = run_by(c, &["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups", "--"]);
    output.fails(&["is not this user's to change", "Delegate=yes"]);
    c.assert_clean();
});

container_test!(a_real_time_process_on_v1, |c| {
    skip_for_runc!(c, "it says EINVAL");
    let file = host::v1("cpu").map(|root| root.join("cpu.rt_runtime_us"));
    skip_unless!(c, file.is_some_and(|file| file.exists()), "the cpu controller of v1 has no real-time groups");
    let may = std::process::Command::new("chrt").args(["--fifo", "1", "true"]).status().is_ok_and(|s| s.success());
    skip_unless!(c, may, "chrt is missing, or may not");
    let output = run_by(c, &["chrt", "--fifo", "1"]);
    let output = output.fails(&["has the real-time policy SCHED_FIFO", "linux.resources.cpu.realtimeRuntime"]);
    assert_has(&output.stderr, "(\"tare");
    c.assert_clean();
});

container_test!(a_parent_with_processes_hands_nothing_down, |c| {
    skip_for_runc!(c, "it says EBUSY");
    let root = v2();
    skip_unless!(c, root.is_some(), "no cgroup v2");
    let root = root.unwrap();
    let offered = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    let choices = [
        ("memory", json!({ "memory": { "limit": 67_108_864 } }), "/memory/limit"),
        ("hugetlb", json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }] }), "/hugepageLimits/0"),
    ];
    let choice = choices.into_iter().find(|(name, ..)| offered.split_whitespace().any(|other| other == *name));
    skip_unless!(c, choice.is_some(), "cgroup v2 offers neither memory nor hugetlb");
    let (controller, resources, pointer) = choice.unwrap();
    let parent = root.join(c.cgroup.trim_start_matches('/'));
    fs::create_dir(&parent).unwrap();
    let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    fs::write(parent.join("cgroup.procs"), sleeper.id().to_string()).unwrap();
    c.set("/linux/resources", resources);
    let output = c.run();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    let controller = format!("cgroup controller \"{controller}\" is not available");
    output.fails(&[pointer, &controller, "has processes of its own", "(\"sleep\")", "move them"]);
    c.assert_clean();
});

// As in a container, or a user's part of the tree: whoever manages the cgroups above has not handed the controller down.
container_test!(a_controller_that_is_not_delegated, |c| {
    skip_for_runc!(c, "it says ENOENT");
    skip_unless!(c, v2().is_some(), "no cgroup v2");
    skip_unless!(c, host::installed("unshare"), "util-linux is missing");
    let own = v2().unwrap().join(c.cgroup.trim_start_matches('/')).join("above/own");
    fs::create_dir_all(&own).unwrap();
    let cgroup = format!("/{}", c.id);
    c.set("/linux/cgroupsPath", cgroup);
    c.set("/linux/resources", json!({ "memory": { "limit": 67_108_864 } }));
    let mount = "umount -l /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec \"$@\"";
    let script =
        format!("echo $$ >{}/cgroup.procs && exec unshare --cgroup --mount sh -c '{mount}' sh \"$@\"", own.display());
    let output = run_by(c, &["sh", "-c", &script, "sh"]);
    output.fails(&["/linux/resources/memory", "controller \"memory\" isn't delegated", "cgroup.controllers has only"]);
    assert!(!own.join(&c.id).exists());
});
