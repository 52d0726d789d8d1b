//! `exec` and the container around it: its cgroups, paused ones, and what the container sees of the one that joins it.

use std::fs;
use std::path::PathBuf;

use super::exec::{begin, detached, exec, facts, sleep};
use crate::common::{Container, assert_has, eventually, host, rival, strings};
use crate::{container_test, skip_for_runc, skip_unless};

fn path(c: &Container) -> String {
    format!("{}/{}", c.cgroup, c.id)
}

/// The container's cgroups of a process, without those of hierarchies that aren't mounted.
fn cgroups_of(pid: i32) -> Vec<String> {
    host::mounted_lines(&fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap())
}

/// Makes a cgroup below the container's in every hierarchy, ready for processes.
fn make_below(c: &Container, name: &str) {
    for dir in host::cgroups(&path(c)) {
        fs::create_dir(dir.join(name)).unwrap();
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(text) = fs::read_to_string(dir.join(file)) {
                let _ = fs::write(dir.join(name).join(file), text.trim());
            }
        }
    }
}

/// The file that freezes the container, and the words for frozen and thawed.
fn freezer(c: &Container) -> Option<(PathBuf, &'static str, &'static str)> {
    let relative = path(c);
    let relative = relative.trim_start_matches('/');
    let found = match host::v1("freezer") {
        Some(root) => (root.join(relative).join("freezer.state"), "FROZEN", "THAWED"),
        None => (PathBuf::from("/sys/fs/cgroup").join(relative).join("cgroup.freeze"), "1", "0"),
    };
    found.0.exists().then_some(found)
}

/// Thaws also when a test fails, so that what is left can be killed.
struct Frozen(PathBuf, &'static str);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = fs::write(&self.0, self.1);
    }
}

fn freeze(c: &Container) -> Option<Frozen> {
    let (file, frozen, thawed) = freezer(c)?;
    fs::write(&file, frozen).unwrap();
    let guard = Frozen(file, thawed);
    if frozen == "FROZEN" {
        eventually("frozen", || fs::read_to_string(&guard.0).unwrap().trim() == frozen);
    }
    Some(guard)
}

container_test!(every_cgroup_is_that_of_the_first_process, |c| {
    sleep(c);
    let pid = detached(c, &[]);
    assert_eq!(cgroups_of(pid), cgroups_of(c.pid()));
    let mut both = vec![pid, c.pid()];
    both.sort_unstable();
    for dir in host::cgroups(&path(c)).iter().filter(|dir| !dir.starts_with("/sys/fs/cgroup/unified")) {
        let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap();
        let mut pids: Vec<i32> = text.lines().map(|line| line.parse().unwrap()).collect();
        pids.sort_unstable();
        assert_eq!(pids, both, "{}", dir.display());
    }
});

container_test!(the_limits_of_the_container_hold, |c| {
    skip_unless!(c, host::has_controller("pids"), "no pids controller");
    c.set("/linux/resources/pids", serde_json::json!({ "limit": 20 }));
    sleep(c);
    let mut running = begin(c, &[], &["fork-tree", "100"]);
    running.wait_for("EAGAIN");
    c.kill(&["KILL"]).ok();
    assert_ne!(running.wait().code, 0);
});

container_test!(the_device_rules_of_the_container_hold, |c| {
    let caps = serde_json::json!(["CAP_MKNOD"]);
    c.set("/process/capabilities", serde_json::json!({ "bounding": caps, "effective": caps, "permitted": caps }));
    sleep(c);
    assert_eq!(exec(c, &[], &["open-dev", "c", "1", "3", "rw"]).ok().stdout, "open: ok\n");
    let out = exec(c, &[], &["open-dev", "b", "8", "0", "r"]).ok().stdout;
    assert!(!out.contains("ok"), "{out}");
});

container_test!(a_cgroup_below, |c| {
    sleep(c);
    make_below(c, "sub");
    let pid = detached(c, &["--cgroup", "sub"]);
    for (line, own) in cgroups_of(pid).iter().zip(cgroups_of(c.pid())) {
        assert_eq!(*line, format!("{own}/sub"));
    }
    // A leading slash is the container's own.
    let pid = detached(c, &["--cgroup", "/sub"]);
    assert!(cgroups_of(pid).iter().all(|line| line.ends_with("/sub")));
    let pid = detached(c, &["--cgroup", "/"]);
    assert_eq!(cgroups_of(pid), cgroups_of(c.pid()));
    c.delete_force().ok();
});

container_test!(a_cgroup_below_of_some_controllers, |c| {
    skip_unless!(c, host::v1("memory").is_some() && host::v1("pids").is_some(), "not cgroup v1");
    sleep(c);
    make_below(c, "sub");
    let below = |pid: i32| {
        let lines = cgroups_of(pid).into_iter().filter(|line| line.ends_with("/sub"));
        let mut names: Vec<String> = lines.map(|line| line.split(':').nth(1).unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(below(detached(c, &["--cgroup", "memory:sub"])), ["memory"]);
    assert_eq!(below(detached(c, &["--cgroup", "memory,pids:sub"])), ["memory", "pids"]);
    assert_eq!(below(detached(c, &["--cgroup", "memory:sub", "--cgroup", "pids:sub"])), ["memory", "pids"]);
    for bad in ["nosuch:sub", "memory:../..", "a:b:c"] {
        assert_eq!(exec(c, &["--cgroup", bad], &["true"]).code, 255, "{bad}");
    }
});

container_test!(a_cgroup_that_is_not_below_is_refused, |c| {
    sleep(c);
    make_below(c, "sub");
    for bad in ["..", "../..", "sub/../..", "/..", "/../../..", "nosuch", "sub/nosuch"] {
        let output = exec(c, &["--cgroup", bad], &["echo", "ran"]);
        assert_eq!((output.code, output.stdout.as_str()), (255, ""), "{bad}: {output}");
    }
    assert_eq!(host::cgroup_pids(&path(c)), [c.pid()]);
});

container_test!(a_cgroup_that_the_first_process_has_left_is_followed, |c| {
    // systemd in a container does so: a cgroup of v2 with controllers for those below holds no process.
    let v2 = host::v1("memory").is_none() && PathBuf::from("/sys/fs/cgroup/cgroup.controllers").exists();
    skip_unless!(c, v2 && host::has_controller("pids"), "not cgroup v2 alone, or no controller");
    sleep(c);
    let dir = host::cgroups(&path(c)).remove(0);
    fs::create_dir(dir.join("init.scope")).unwrap();
    fs::write(dir.join("init.scope/cgroup.procs"), c.pid().to_string()).unwrap();
    fs::write(dir.join("cgroup.subtree_control"), "+pids").unwrap();
    let pid = detached(c, &[]);
    assert_eq!(cgroups_of(pid), cgroups_of(c.pid()));
});

container_test!(a_cgroup_namespace_is_joined, |c| {
    c.push("/linux/namespaces", serde_json::json!({ "type": "cgroup" }));
    sleep(c);
    let facts = facts(c, &[]);
    assert_eq!(facts["ns"]["cgroup"], host::namespace(&c.pid().to_string(), "cgroup"));
    for line in host::mounted_lines(&strings(&facts["cgroup"]).join("\n")) {
        assert_eq!(line.splitn(3, ':').nth(2).unwrap(), "/", "{line}");
    }
});

container_test!(every_namespace_is_that_of_the_first_process, |c| {
    c.push("/linux/namespaces", serde_json::json!({ "type": "cgroup" }));
    super::userns::map(c);
    sleep(c);
    let pid = detached(c, &[]);
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "user", "uts"] {
        let of = |pid: i32| host::namespace(&pid.to_string(), name);
        assert_eq!(of(pid), of(c.pid()), "{name}");
    }
    for link in ["root", "cwd"] {
        let of =
            |pid: i32| fs::metadata(format!("/proc/{pid}/{link}")).map(|m| std::os::unix::fs::MetadataExt::ino(&m));
        assert_eq!(of(pid).unwrap(), of(c.pid()).unwrap(), "{link}");
    }
});

container_test!(a_paused_container_is_refused, |c| {
    sleep(c);
    let frozen = freeze(c);
    skip_unless!(c, frozen.is_some(), "no freezer");
    let output = exec(c, &[], &["true"]).exits(255);
    assert_has(output.stderr, "paused");
    drop(frozen);
    exec(c, &[], &["exit", "7"]).exits(7);
});

container_test!(a_paused_container_if_asked, |c| {
    sleep(c);
    let frozen = freeze(c);
    skip_unless!(c, frozen.is_some(), "no freezer");
    // It waits, frozen with the container, until that runs on.
    let mut running = begin(c, &["--ignore-paused"], &["exit", "7"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(running.child.try_wait().unwrap().is_none(), "it ran in a frozen container");
    drop(frozen);
    running.wait().exits(7);
});

container_test!(the_program_is_dumpable_again, |c| {
    skip_for_runc!(c, "execve makes it so");
    sleep(c);
    let pid = detached(c, &["--user", "1000:1000"]);
    // A process that isn't belongs to root in /proc.
    use std::os::unix::fs::MetadataExt;
    eventually("it is the user's", || fs::metadata(format!("/proc/{pid}/fd")).is_ok_and(|m| m.uid() == 1000));
    assert!(rival().is_none());
});
