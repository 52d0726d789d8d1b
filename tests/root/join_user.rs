//! User namespaces joined by path, alone and with others, by root, by an ordinary user who owns them, and by root of a user
//! namespace around them; pods share those of their first container.

use serde_json::{Value, json};

use super::userns::map;
use crate::common::user::{give, launcher, map_ranges, mapping, ranges_available};
use crate::common::{Container, host, program};
use crate::{container_test, skip_unless, user_test};

/// A second container of the same owner, that sleeps.
fn first(c: &Container, change: impl FnOnce(&mut Container)) -> Container {
    let mut first = Container::new(&format!("{}::first", c.name));
    change(&mut first);
    first.args(&["sleep-forever"]);
    first.detach().ok();
    first
}

fn as_owner_of<'a>(c: &'a Container) -> impl FnOnce(&mut Container) + 'a {
    |first| {
        give(first);
        first.user = c.user;
        if let Some(uid) = c.user {
            crate::common::user::own(&first.dir, uid);
            first.set("/linux/uidMappings", mapping(0, uid, 1));
            first.set("/linux/gidMappings", mapping(0, uid, 1));
        }
    }
}

/// Makes the container join these namespaces of a process and have these of its own.
fn join(c: &mut Container, pid: i32, joined: &[&str], own: &[&str]) {
    let file = |name: &str| match name {
        "network" => "net".to_owned(),
        "mount" => "mnt".to_owned(),
        name => name.to_owned(),
    };
    let joined = joined.iter().map(|kind| json!({ "type": kind, "path": format!("/proc/{pid}/ns/{}", file(kind)) }));
    let own = own.iter().map(|kind| json!({ "type": kind }));
    c.set("/linux/namespaces", own.chain(joined).collect::<Vec<Value>>());
    if c.config["linux"].get("uidMappings").is_some() {
        c.remove("/linux/uidMappings").remove("/linux/gidMappings");
    }
}

/// The sets that are joined, and the rest; `shared` is of neither.
const CASES: &[(&[&str], &[&str])] = &[
    (&["user"], &["mount", "pid", "network", "ipc", "uts"]),
    (&["user"], &["mount", "network", "ipc", "uts", "cgroup"]),
    (&["user", "network", "ipc", "uts"], &["mount", "pid"]),
    (&["network", "ipc", "uts", "user"], &["mount", "pid", "cgroup"]),
    (&["pid", "user", "network"], &["mount", "ipc", "uts"]),
    (&["user", "network", "ipc", "uts", "pid"], &["mount"]),
];

fn check(c: &mut Container, first: &Container, joined: &[&str], own: &[&str]) {
    let pid = first.pid();
    join(c, pid, joined, own);
    // Without one of its own, proc and its masks are the runtime's.
    let shares_pid = !joined.contains(&"pid") && !own.contains(&"pid");
    let masks = if shares_pid { json!([]) } else { json!(["/proc/kcore", "/proc/timer_list"]) };
    c.set("/linux/maskedPaths", masks).set("/linux/readonlyPaths", json!([]));
    let facts = c.facts();
    for (list, same) in [(joined, true), (own, false)] {
        for kind in list {
            let name = kind.replace("network", "net").replace("mount", "mnt");
            let theirs = host::namespace(&pid.to_string(), &name);
            assert_eq!(facts["ns"][&name] == theirs, same, "{kind} of {joined:?}");
        }
    }
    assert_eq!(facts["status"]["Uid"], "0 0 0 0");
    assert_eq!(facts["status"]["CapEff"], facts["status"]["CapPrm"]);
    // Its devices are bound: no node can be made there.
    c.prints(&["open", "/dev/null", "rw"]);
}

user_test!(the_owner_joins_a_user_namespace, |c| {
    let mut first = first(c, as_owner_of(c));
    for (joined, own) in CASES {
        check(c, &first, joined, own);
    }
    first.finish();
});

container_test!(root_joins_a_user_namespace, |c| {
    let mut first = first(c, map);
    for name in ["", "proc", "sys", "dev", "tmp"] {
        std::os::unix::fs::chown(c.rootfs().join(name), Some(300_000), Some(300_000)).unwrap();
    }
    for (joined, own) in CASES {
        check(c, &first, joined, own);
    }
    first.finish();
});

// The network is the host's, as of a pod with the host's network.
container_test!(root_joins_namespaces_of_different_owners, |c| {
    let mut first = first(c, map);
    for name in ["", "proc", "sys", "dev", "tmp"] {
        std::os::unix::fs::chown(c.rootfs().join(name), Some(300_000), Some(300_000)).unwrap();
    }
    join(c, first.pid(), &["user", "ipc"], &["mount", "pid", "uts"]);
    c.push("/linux/namespaces", json!({ "type": "network", "path": "/proc/self/ns/net" }));
    let facts = c.facts();
    assert_eq!(facts["ns"]["net"], host::namespace("self", "net"));
    assert_eq!(facts["ns"]["ipc"], host::namespace(&first.pid().to_string(), "ipc"));
    first.finish();
});

// As containers of a rootless engine do that share one's user namespace, which is the engine's.
container_test!(the_runtimes_own_user_namespace_is_joined_already, |c| {
    let own = json!({ "type": "user", "path": "/proc/self/ns/user" });
    c.set("/linux/namespaces", json!([{ "type": "mount" }, { "type": "pid" }, own]));
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let facts = c.tare(&["exec", &c.id, "/guest", "facts"]).ok().json();
    assert_eq!(facts["ns"]["user"], host::namespace("self", "user"));
    assert_eq!(facts["ns"]["pid"], host::namespace(&c.pid().to_string(), "pid"));
    assert_eq!(facts["status"]["Uid"], "0 0 0 0");
});

user_test!(exec_into_a_container_that_joined, |c| {
    let mut first = first(c, as_owner_of(c));
    join(c, first.pid(), &["user", "network", "ipc", "uts"], &["mount", "pid"]);
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let facts = c.tare(&["exec", &c.id, "/guest", "facts"]).ok().json();
    for name in ["user", "net", "ipc", "uts"] {
        assert_eq!(facts["ns"][name], host::namespace(&first.pid().to_string(), name), "{name}");
    }
    c.kill(&["KILL"]).ok();
    c.wait_status("stopped");
    c.delete().ok();
    first.finish();
});

user_test!(a_limit_is_set_in_a_joined_user_namespace, |c| {
    let mut first = first(c, as_owner_of(c));
    join(c, first.pid(), &["user"], &["mount", "pid", "ipc", "uts", "network"]);
    c.set("/process/oomScoreAdj", 321);
    c.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]));
    let facts = c.facts();
    assert_eq!(facts["oom_score_adj"], 321);
    assert_eq!(facts["rlimits"]["RLIMIT_NOFILE"], json!([100, 200]));
    first.finish();
});

user_test!(another_users_user_namespace_is_refused, |c| {
    skip_unless!(c, c.user.is_some(), "not root");
    let other = c.user;
    let mut first = first(c, |first| {
        give(first);
        assert_ne!(first.user, other);
    });
    join(c, first.pid(), &["user"], &["mount", "pid"]);
    c.run().fails(&["config.json: /linux/namespaces/2/path", "EACCES"]);
    c.assert_clean();
    first.finish();
});

user_test!(additional_groups_of_a_joined_single_mapping_are_refused, |c| {
    let mut first = first(c, as_owner_of(c));
    join(c, first.pid(), &["user"], &["mount", "pid", "ipc", "uts", "network"]);
    c.set("/process/user/additionalGids", json!([0]));
    c.run().fails(&["config.json: /process/user/additionalGids", "setgroups(2) was given up"]);
    first.finish();
});

user_test!(root_of_another_user_namespace_shares_a_pod, |c| {
    if !ranges_available(c) {
        return;
    }
    // Both are made by root of the same user namespace, which has to stay: one shell makes them.
    const FIRST: u32 = 1_910_000_000;
    map_ranges(c, FIRST, 1000);
    let launch = launcher(
        c,
        &format!("tare-user:{FIRST}:1000\n"),
        "unshare --user --mount --map-root-user --map-auto -- sh -c 'exec \"$@\"' sh",
    );
    c.set("/linux/uidMappings", mapping(0, 1, 500)).set("/linux/gidMappings", mapping(0, 1, 500));
    for name in ["", "proc", "sys", "dev", "tmp"] {
        std::os::unix::fs::chown(c.rootfs().join(name), Some(FIRST), Some(FIRST)).unwrap();
    }
    c.args(&["sleep-forever"]);
    c.write_config();
    let second = c.path("second");
    std::fs::create_dir(&second).unwrap();
    let mut config = c.config.clone();
    config["process"]["args"] = json!(["/guest", "facts"]);
    config["root"]["path"] = json!(c.rootfs());
    let linux = config["linux"].as_object_mut().unwrap();
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    linux["namespaces"] = json!([
        { "type": "user", "path": "PID/user" }, { "type": "ipc", "path": "PID/ipc" },
        { "type": "network", "path": "PID/net" }, { "type": "uts", "path": "PID/uts" },
        { "type": "mount" }, { "type": "pid" }
    ]);
    std::fs::write(second.join("template"), config.to_string()).unwrap();
    let script = c.path("pod");
    let text = "#!/bin/sh\nset -e\nt=$1 root=$2 id=$3 bundle=$4 second=$5\n\
        $t --root $root run --detach --bundle $bundle $id </dev/null >/dev/null\n\
        pid=$($t --root $root state $id | sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p')\n\
        sed \"s,PID,/proc/$pid/ns,g\" $second/template >$RUN/config.json\n\
        readlink /proc/$pid/ns/user /proc/$pid/ns/net\n\
        $t --root $root run --bundle $RUN second </dev/null\n\
        $t --root $root delete --force $id\n";
    std::fs::write(&script, text.replace("$RUN", c.path("run").to_str().unwrap())).unwrap();
    host::chmod(&script, 0o755);
    let mut command = std::process::Command::new(&launch[0]);
    command.arg(&script).arg(crate::common::tare()).arg(c.path("state")).arg(&c.id).arg(c.bundle()).arg(&second);
    let output = program::finish(&mut command, &c.dir).ok();
    let mut lines = output.stdout.lines();
    let (user, net) = (lines.next().unwrap(), lines.next().unwrap());
    let facts: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!((facts["ns"]["user"].as_str().unwrap(), facts["ns"]["net"].as_str().unwrap()), (user, net));
    assert_eq!(facts["status"]["Uid"], "0 0 0 0");
});
