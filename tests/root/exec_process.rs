//! What a program starts with that `exec` executes: all that the container's own has, but for what flags change.

use std::fs;

use serde_json::{Value, json};

use super::exec::{begin, detached, exec, exec_other, facts, line, sleep, status};
use super::process::{ids, open_up};
use crate::common::program::{finish, guest, start};
use crate::common::{Container, assert_has, host, rival, strings};
use crate::{container_test, skip_for_runc, skip_unless};

/// Lines of /proc/PID/status that are the same in every process of a container.
const SAME: [&str; 18] = [
    "Uid",
    "Gid",
    "Groups",
    "Umask",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "SigBlk",
    "SigIgn",
    "SigCgt",
    "Cpus_allowed",
    "Mems_allowed",
    "CoreDumping",
];

const CAP_NET_RAW: u64 = 1 << 13;

fn cap(facts: &Value, set: &str) -> u64 {
    u64::from_str_radix(facts["status"][set].as_str().unwrap(), 16).unwrap()
}

/// The resource limits; Go raises the soft one of open files by itself, so a runtime in Go passes that on.
fn rlimits(facts: &Value) -> Value {
    let mut limits = facts["rlimits"].clone();
    if rival().is_some() {
        limits.as_object_mut().unwrap().remove("RLIMIT_NOFILE");
    }
    limits
}

/// Everything that may be set of a process, in one container.
fn unusual(c: &mut Container) {
    c.set("/process/user", json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o27 }));
    let caps = json!(["CAP_NET_BIND_SERVICE", "CAP_KILL"]);
    c.set(
        "/process/capabilities",
        json!({ "bounding": caps, "effective": caps, "permitted": caps, "inheritable": caps, "ambient": caps }),
    );
    c.set(
        "/process/rlimits",
        json!([
            { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            { "type": "RLIMIT_STACK", "soft": 1 << 22, "hard": 1 << 23 },
        ]),
    );
    c.set("/process/oomScoreAdj", 321);
    c.set("/process/cwd", "/tmp");
    c.set("/hostname", "inside");
    c.push("/process/env", json!("ODD=a=b=c"));
    c.set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["swapon"], "action": "SCMP_ACT_ERRNO" }],
        }),
    );
    if rival() != Some("runc") {
        c.set("/process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 5 }));
        c.set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 3 }));
        c.push("/linux/namespaces", json!({ "type": "time" }));
    }
    c.push("/linux/namespaces", json!({ "type": "cgroup" }));
    open_up(c);
}

/// Asserts that a process that `exec` starts has what the container's first has.
fn compare(c: &mut Container) {
    c.args(&["all", "facts", ",", "sleep-forever"]);
    c.write_config();
    let mut running = start(&mut c.command(&["run", &c.id]), &c.dir);
    running.wait_for("ready");
    let first: Value = serde_json::from_str(running.printed().lines().next().unwrap()).unwrap();
    let second = facts(c, &[]);
    for key in SAME {
        // runc 1.1 forgets the umask.
        if key == "Umask" && rival() == Some("runc") {
            continue;
        }
        assert_eq!(second["status"][key], first["status"][key], "{key}");
    }
    for key in [
        "ns",
        "env",
        "cwd",
        "hostname",
        "domainname",
        "machine",
        "mountinfo",
        "cgroup",
        "oom_score_adj",
        "personality",
        "scheduler",
        "ioprio",
        "timens_offsets",
        "loopback",
        "uid_map",
        "gid_map",
        "setgroups",
    ] {
        assert_eq!(second[key], first[key], "{key}");
    }
    assert_eq!(rlimits(&second), rlimits(&first));
    // Its permissions may differ, its name may not.
    let keyring = |facts: &Value| facts["keyring"].as_str().unwrap().rsplit(';').next().unwrap().to_owned();
    assert_eq!(keyring(&second), keyring(&first));
    let numbers = |facts: &Value| facts["fds"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!((numbers(&first), numbers(&second)), (numbers(&second), vec!["0".into(), "1".into(), "2".into()]));
    assert_eq!(second["sid"], second["pid"], "it leads a session of its own");
    c.kill(&["KILL"]).ok();
    running.wait().exits(137);
}

container_test!(nothing_differs_from_the_first_process, |c| compare(c));

container_test!(nothing_differs_from_an_unusual_first_process, |c| {
    unusual(c);
    compare(c);
});

container_test!(nothing_differs_in_a_user_namespace, |c| {
    super::userns::map(c);
    compare(c);
});

container_test!(the_filter_of_the_container_applies, |c| {
    c.set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 16 }],
        }),
    );
    for no_new_privileges in [true, false] {
        c.set("/process/noNewPrivileges", no_new_privileges);
        sleep(c);
        let words = ["syscall", &libc_getpriority(), "0", "0"];
        assert_eq!(exec(c, &[], &words).ok().stdout, "EBUSY\n");
        assert_eq!(exec(c, &["--user", "1000:1000"], &words).ok().stdout, "EBUSY\n");
        c.delete_force().ok();
    }
});

fn libc_getpriority() -> String {
    nix::libc::SYS_getpriority.to_string()
}

container_test!(values_are_those_of_create, |c| {
    skip_for_runc!(c, "runc reads config.json again");
    c.push("/process/env", json!("AGE=old"));
    sleep(c);
    let good = c.config.clone();
    c.set("/process/env", json!(["AGE=new"])).set("/process/cwd", "/tmp").set("/process/user/uid", 5);
    c.set("/process/noNewPrivileges", false).set("/process/capabilities", json!({}));
    c.write_config();
    let now = facts(c, &[]);
    assert_has(now["env"].to_string(), "\"AGE=old\"");
    assert_eq!((&now["cwd"], &now["status"]["Uid"]), (&json!("/"), &json!("0 0 0 0")));
    assert_eq!(now["status"]["NoNewPrivs"], "1");
    assert_ne!(cap(&now, "CapEff"), 0);
    fs::remove_file(c.bundle().join("config.json")).unwrap();
    exec(c, &[], &["exit", "7"]).exits(7);
    c.config = good;
});

container_test!(the_environment_is_the_containers_and_what_is_given, |c| {
    c.set("/process/env", json!(["PATH=/usr/bin:/bin", "A=container", "B=container", "HOME=/h"]));
    sleep(c);
    let env = strings(&facts(c, &["-e", "A=given", "-e", "NEW=x=y", "-e", "EMPTY="])["env"]);
    let last = |name: &str| env.iter().rfind(|entry| entry.starts_with(&format!("{name}="))).cloned();
    assert_eq!(last("A").unwrap(), "A=given");
    assert_eq!(last("B").unwrap(), "B=container");
    assert_eq!(last("NEW").unwrap(), "NEW=x=y");
    assert_eq!(last("EMPTY").unwrap(), "EMPTY=");
    assert_eq!(last("HOME").unwrap(), "HOME=/h");
    if rival().is_none() {
        assert_eq!(env.len(), 6, "each name once: {env:?}");
    }
    let env = strings(&facts(c, &["-e", "A=1", "-e", "A=2"])["env"]);
    assert_eq!(env.iter().rfind(|entry| entry.starts_with("A=")).unwrap(), "A=2");
});

container_test!(nothing_of_the_callers_environment_comes_in, |c| {
    sleep(c);
    let mut command = c.command(&line(c, &[], &["facts"]));
    let env = finish(command.env("LEAKED", "yes"), &c.dir).ok().json()["env"].to_string();
    assert!(!env.contains("LEAKED") && !env.contains("_LIBCONTAINER"), "{env}");
});

container_test!(a_large_environment, |c| {
    sleep(c);
    let entries: Vec<String> = (0..2000).map(|i| format!("VARIABLE_{i}={}", "x".repeat(30))).collect();
    let flags: Vec<&str> = entries.iter().flat_map(|entry| ["-e", entry]).collect();
    let env = strings(&facts(c, &flags)["env"]);
    assert_eq!(env.iter().filter(|entry| entry.starts_with("VARIABLE_")).count(), 2000);
});

container_test!(home_is_that_of_the_user_inside, |c| {
    fs::create_dir(c.rootfs().join("etc")).unwrap();
    fs::write(
        c.rootfs().join("etc/passwd"),
        "root:x:0:0::/root-home:/bin/sh\nbroken line\n1234:x:0:0::/trap:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
    )
    .unwrap();
    sleep(c);
    let home = |flags: &[&str]| {
        let env = strings(&facts(c, flags)["env"]);
        env.iter().rfind(|entry| entry.starts_with("HOME=")).cloned().unwrap_or_default()
    };
    assert_eq!(home(&[]), "HOME=/root-home");
    assert_eq!(home(&["--user", "1000"]), "HOME=/home/user");
    assert_eq!(home(&["--user", "4242"]), "HOME=/");
    assert_eq!(home(&["--user", "1000", "-e", "HOME=/given"]), "HOME=/given");
    // CVE-2016-3697: a name that is a number is a name.
    assert_eq!(facts(c, &["--user", "1234"])["status"]["Uid"], "1234 1234 1234 1234");
});

container_test!(the_working_folder, |c| {
    fs::create_dir(c.rootfs().join("work")).unwrap();
    c.set("/process/cwd", "/work");
    sleep(c);
    assert_eq!(facts(c, &[])["cwd"], "/work");
    assert_eq!(facts(c, &["--cwd", "/tmp"])["cwd"], "/tmp");
    // A relative program is relative to it.
    fs::copy(guest(), c.rootfs().join("tmp/prog")).unwrap();
    assert_eq!(exec_other(c, &["--cwd", "/tmp"], &["./prog", "echo", "found"]).ok().stdout, "found\n");
});

container_test!(a_working_folder_that_only_the_user_may_enter, |c| {
    fs::create_dir(c.rootfs().join("private")).unwrap();
    std::os::unix::fs::chown(c.rootfs().join("private"), Some(1000), Some(1000)).unwrap();
    host::chmod(&c.rootfs().join("private"), 0o700);
    sleep(c);
    assert_eq!(facts(c, &["--user", "1000:1000", "--cwd", "/private"])["cwd"], "/private");
});

container_test!(the_program_is_looked_up_in_the_path_it_gets, |c| {
    fs::create_dir_all(c.rootfs().join("opt/bin")).unwrap();
    fs::copy(guest(), c.rootfs().join("opt/bin/prog")).unwrap();
    sleep(c);
    exec_other(c, &[], &["prog", "true"]).exits(255);
    assert_eq!(exec_other(c, &["-e", "PATH=/no:/opt/bin"], &["prog", "echo", "found"]).ok().stdout, "found\n");
});

container_test!(the_user, |c| {
    c.set("/process/user", json!({ "uid": 7, "gid": 8, "additionalGids": [9] }));
    sleep(c);
    for (user, uid, gid) in
        [("1", "1", "8"), ("1:2", "1", "2"), ("0", "0", "8"), ("0:0", "0", "0"), ("65534:65533", "65534", "65533")]
    {
        let facts = facts(c, &["--user", user]);
        assert_eq!(ids(&facts, "Uid"), [uid; 4], "{user}");
        assert_eq!(ids(&facts, "Gid"), [gid; 4], "{user}");
    }
    if rival() == Some("runc") {
        return; // half of them
    }
    // The largest there is.
    assert_eq!(ids(&facts(c, &["-u", "4294967294:4294967294"]), "Uid"), ["4294967294"; 4]);
});

container_test!(additional_groups, |c| {
    c.set("/process/user", json!({ "uid": 0, "gid": 0, "additionalGids": [9] }));
    sleep(c);
    assert_eq!(ids(&facts(c, &[]), "Groups"), ["9"]);
    let groups = ids(&facts(c, &["-g", "1002", "-g", "1003"]), "Groups");
    assert!(groups.ends_with(&["1002".into(), "1003".into()]), "{groups:?}");
});

container_test!(capabilities_are_added_where_they_are_safe, |c| {
    sleep(c);
    let before = facts(c, &[]);
    let after = facts(c, &["--cap", "CAP_NET_RAW", "--cap", "CAP_CHOWN"]);
    for set in ["CapBnd", "CapEff", "CapPrm"] {
        assert_eq!(cap(&before, set) & CAP_NET_RAW, 0, "{set}");
        assert_eq!(cap(&after, set), cap(&before, set) | CAP_NET_RAW | 1, "{set}");
    }
    // CVE-2022-29162: inheritable ones are given to files' owners.
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(cap(&after, set), 0, "{set}");
    }
    let user = facts(c, &["--user", "1000:1000", "--cap", "CAP_NET_RAW"]);
    assert_eq!((cap(&user, "CapEff"), cap(&user, "CapInh"), cap(&user, "CapAmb")), (0, 0, 0));
    assert_eq!(cap(&user, "CapBnd") & CAP_NET_RAW, CAP_NET_RAW);
    // The next one has none of it.
    assert_eq!(cap(&facts(c, &[]), "CapEff"), cap(&before, "CapEff"));
});

container_test!(another_user_holds_no_capability, |c| {
    sleep(c);
    let facts = facts(c, &["--user", "1000:1000"]);
    assert_eq!((cap(&facts, "CapEff"), cap(&facts, "CapPrm")), (0, 0));
    assert_ne!(cap(&facts, "CapBnd"), 0);
});

container_test!(no_new_privileges_has_three_states, |c| {
    for config in [true, false] {
        c.set("/process/noNewPrivileges", config);
        sleep(c);
        let have = |flags: &[&str]| facts(c, flags)["status"]["NoNewPrivs"] == "1";
        assert_eq!(have(&[]), config);
        assert!(have(&["--no-new-privs"]));
        assert!(!have(&["--no-new-privs=false"]));
        c.delete_force().ok();
    }
});

/// A file for `--process`: the container's own process, changed.
fn process_file(c: &Container, change: impl FnOnce(&mut Value)) -> String {
    let mut process = c.config["process"].clone();
    process["args"] = json!(["/guest", "facts"]);
    change(&mut process);
    let path = c.path("process.json");
    fs::write(&path, process.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

container_test!(a_process_file_is_the_whole_process, |c| {
    sleep(c);
    let path = process_file(c, |process| {
        process["user"] = json!({ "uid": 5, "gid": 6, "additionalGids": [7, 8], "umask": 0o77 });
        process["env"].as_array_mut().unwrap().push(json!("FROM=file"));
        process["cwd"] = json!("/tmp");
        process["noNewPrivileges"] = json!(false);
        process["rlimits"] = json!([{ "type": "RLIMIT_NPROC", "soft": 50, "hard": 60 }]);
        process["capabilities"] = json!({ "bounding": ["CAP_NET_RAW"] });
        process["oomScoreAdj"] = json!(444);
    });
    let facts = exec_other(c, &["--process", &path], &[]).ok().json();
    assert_eq!(ids(&facts, "Uid"), ["5"; 4]);
    assert_eq!(ids(&facts, "Gid"), ["6"; 4]);
    assert_eq!(ids(&facts, "Groups"), ["7", "8"]);
    assert_eq!(facts["cwd"], "/tmp");
    assert_has(facts["env"].to_string(), "\"FROM=file\"");
    assert_eq!(facts["status"]["NoNewPrivs"], "0");
    assert_eq!(facts["rlimits"]["RLIMIT_NPROC"], json!([50, 60]));
    assert_eq!(cap(&facts, "CapBnd"), CAP_NET_RAW);
    if rival() != Some("runc") {
        // runc 1.1 keeps the container's.
        assert_eq!(facts["oom_score_adj"], 444);
        assert_eq!(facts["status"]["Umask"], "0077");
    }
    exec_other(c, &["-p", &path, "-d"], &[]).ok();
});

container_test!(a_relative_process_file_is_the_callers, |c| {
    sleep(c);
    let path = process_file(c, |process| process["args"] = json!(["/guest", "exit", "7"]));
    fs::copy(path, c.bundle().join("here.json")).unwrap();
    exec_other(c, &["-p", "here.json"], &[]).exits(7);
});

container_test!(what_a_process_file_leaves_out_is_the_containers, |c| {
    c.set("/process/rlimits", json!([{ "type": "RLIMIT_CORE", "soft": 5, "hard": 6 }]));
    c.set("/process/oomScoreAdj", 321);
    sleep(c);
    let path = process_file(c, |process| {
        for key in ["capabilities", "rlimits", "oomScoreAdj"] {
            process.as_object_mut().unwrap().remove(key);
        }
    });
    let (own, file) = (facts(c, &[]), exec_other(c, &["--process", &path], &[]).ok().json());
    if rival() != Some("runc") {
        // runc 1.1 leaves its own limits.
        assert_eq!(file["rlimits"], own["rlimits"]);
        assert_eq!(file["rlimits"]["RLIMIT_CORE"], json!([5, 6]));
    }
    assert_eq!(file["oom_score_adj"], 321);
    for set in ["CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(file["status"][set], own["status"][set], "{set}");
    }
});

container_test!(the_umask_is_not_the_callers, |c| {
    skip_for_runc!(c, "runc 1.1 leaves the caller's");
    sleep(c);
    let prefix = [guest().to_str().unwrap(), "with", "umask=077", "--"];
    let facts = finish(&mut c.command_by(&prefix, &line(c, &[], &["facts"])), &c.dir).ok().json();
    assert_eq!(facts["status"]["Umask"], "0022");
});

container_test!(limits_and_adjustments_of_the_caller_do_not_count, |c| {
    c.set("/process/rlimits", json!([{ "type": "RLIMIT_NPROC", "soft": 100, "hard": 200 }]));
    c.set("/process/oomScoreAdj", 500);
    sleep(c);
    let pid = detached(c, &[]);
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap(), "500\n");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max processes")).unwrap();
    assert_eq!(line.split_whitespace().skip(2).take(2).collect::<Vec<_>>(), ["100", "200"]);
});

container_test!(sigpipe_is_at_its_default, |c| {
    sleep(c);
    let facts = facts(c, &[]);
    assert_eq!(facts["status"]["SigBlk"], "0000000000000000");
    assert_eq!(cap(&facts, "SigIgn") & (1 << 12), 0);
    exec(c, &[], &["kill-self", "13"]).exits(128 + 13);
});

container_test!(signals_of_the_caller_are_neither_blocked_nor_ignored, |c| {
    skip_for_runc!(c, "runc keeps what its caller ignores");
    sleep(c);
    let options = ["ignore=13", "ignore=1", "ignore=17", "block=10", "block=15"];
    let mut prefix = vec![guest().to_str().unwrap(), "with"];
    prefix.extend(options);
    prefix.push("--");
    let facts = finish(&mut c.command_by(&prefix, &line(c, &[], &["facts"])), &c.dir).ok().json();
    assert_eq!(
        (&facts["status"]["SigBlk"], &facts["status"]["SigIgn"]),
        (&json!("0000000000000000"), &json!("0000000000000000"))
    );
});

container_test!(personality, |c| {
    if rival() == Some("runc") || !cfg!(target_arch = "x86_64") {
        return crate::common::skip(&c.name, "runc has it since 1.2; LINUX32 is told apart on x86_64");
    }
    c.set("/linux/personality", json!({ "domain": "LINUX32" }));
    sleep(c);
    assert_eq!(facts(c, &[])["personality"], 8);
});

container_test!(the_processors_of_exec, |c| {
    skip_for_runc!(c, "runc has it since 1.3");
    c.set("/process/execCPUAffinity", json!({ "initial": "0", "final": "0" }));
    sleep(c);
    assert_eq!(facts(c, &[])["status"]["Cpus_allowed_list"], "0");
    let mut running = begin(c, &[], &["sleep-forever"]);
    running.wait_for("ready");
    assert_ne!(status(c.pid(), "Cpus_allowed_list"), "");
});

// By config.json, and by a process file: whatever the caller itself runs on.
container_test!(the_first_processors_of_exec_hold, |c| {
    skip_for_runc!(c, "runc has it since 1.3");
    for initial in ["0", "1"] {
        c.set("/process/execCPUAffinity", json!({ "initial": initial }));
        sleep(c);
        let all = status(c.pid(), "Cpus_allowed_list");
        skip_unless!(c, all != "0", "one processor");
        assert_eq!(facts(c, &[])["status"]["Cpus_allowed_list"], initial);
        for (given, want) in
            [(Value::Null, initial), (json!({ "initial": "0" }), "0"), (json!({ "initial": "0", "final": "1" }), "1")]
        {
            let mut process = c.config["process"].clone();
            process["args"] = json!(["/guest", "facts"]);
            process["execCPUAffinity"] = given;
            let file = c.path("process.json");
            std::fs::write(&file, process.to_string()).unwrap();
            let output = c.tare(&["exec", "--process", file.to_str().unwrap(), &c.id]).ok();
            assert_eq!(output.json()["status"]["Cpus_allowed_list"], want);
        }
        c.delete_force().ok();
    }
});
