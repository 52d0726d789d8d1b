//! config.json's process: what the program starts with. Ids and privileges are in identity.rs.

use std::fs;

use serde_json::{Value, json};

use crate::common::host::chmod;
use crate::common::program::{finish, guest};
use crate::common::{Container, assert_has, rival, strings};
use crate::{container_test, skip_for_runc};

container_test!(arguments_are_passed_verbatim, |c| {
    let words = ["facts", "", "two words", "--flag=x", "ümlaut", "$HOME", "\"", "\n"];
    c.args(&words);
    let facts = c.run().ok().json();
    assert_eq!(strings(&facts["argv"])[1..], words);
});

container_test!(the_environment_is_the_configs_in_its_order, |c| {
    c.set("/process/env", json!(["B=2", "A=1", "EMPTY=", "PATH=/", "EQUALS=a=b=c", "HOME=/h"]));
    let facts = c.facts();
    assert_eq!(strings(&facts["env"]), ["B=2", "A=1", "EMPTY=", "PATH=/", "EQUALS=a=b=c", "HOME=/h"]);
});

container_test!(the_last_of_two_equal_names_wins, |c| {
    c.set("/process/env", json!(["A=1", "PATH=/", "A=2"]));
    let facts = c.facts();
    let found: Vec<String> = strings(&facts["env"]).into_iter().filter(|v| v.starts_with("A=")).collect();
    assert_eq!(found.last().unwrap(), "A=2");
    if rival().is_none() {
        assert_eq!(found.len(), 1);
    }
});

container_test!(nothing_of_the_callers_environment_comes_in, |c| {
    c.args(&["facts"]);
    c.write_config();
    let mut command = c.command(&["run", &c.id]);
    let facts = finish(command.env("LEAKED", "yes"), &c.dir).ok().json();
    assert!(
        !strings(&facts["env"]).iter().any(|v| v.starts_with("LEAKED") || v.starts_with("_LIBCONTAINER")),
        "{facts}"
    );
});

container_test!(home_is_looked_up_in_the_containers_passwd, |c| {
    fs::create_dir(c.rootfs().join("etc")).unwrap();
    fs::write(
        c.rootfs().join("etc/passwd"),
        "root:x:0:0::/root-home:/bin/sh\n# a comment\nbroken line\nuser:x:1000:1000:,,,:/home/user:/bin/sh\n",
    )
    .unwrap();
    assert!(strings(&c.facts()["env"]).contains(&"HOME=/root-home".to_owned()));
    c.set("/process/user/uid", 1000);
    assert!(strings(&c.facts()["env"]).contains(&"HOME=/home/user".to_owned()));
    c.set("/process/user/uid", 4242);
    assert!(strings(&c.facts()["env"]).contains(&"HOME=/".to_owned()), "a user without an entry");
});

container_test!(home_of_the_config_stays, |c| {
    c.push("/process/env", json!("HOME=/chosen"));
    assert_eq!(
        strings(&c.facts()["env"]).iter().filter(|v| v.starts_with("HOME=")).collect::<Vec<_>>(),
        ["HOME=/chosen"]
    );
});

container_test!(the_program_is_looked_up_in_the_containers_path, |c| {
    fs::create_dir_all(c.rootfs().join("opt/bin")).unwrap();
    fs::copy(guest(), c.rootfs().join("opt/bin/prog")).unwrap();
    c.set("/process/env", json!(["PATH=/no/such:/opt/bin"]));
    c.set("/process/args", json!(["prog", "echo", "found"]));
    assert_eq!(c.run().ok().stdout, "found\n");
});

container_test!(a_relative_program_is_relative_to_cwd, |c| {
    fs::create_dir_all(c.rootfs().join("work/bin")).unwrap();
    fs::copy(guest(), c.rootfs().join("work/bin/prog")).unwrap();
    c.set("/process/cwd", "/work");
    for name in ["./bin/prog", "bin/prog"] {
        c.set("/process/args", json!([name, "echo", "found"]));
        assert_eq!(c.run().ok().stdout, "found\n");
    }
});

container_test!(a_program_that_is_not_in_the_path, |c| {
    c.set("/process/args", json!(["nosuchprogram"]));
    c.create().fails(&["nosuchprogram", "executable file not found in $PATH"]);
    c.assert_clean();
});

container_test!(a_program_that_is_not_there, |c| {
    c.set("/process/args", json!(["/no/such/program"]));
    c.create().fails(&["/no/such/program", "no such file or directory"]);
    c.assert_clean();
});

container_test!(a_program_that_is_not_executable, |c| {
    fs::write(c.rootfs().join("file"), "").unwrap();
    chmod(&c.rootfs().join("file"), 0o644);
    c.set("/process/args", json!(["/file"]));
    c.create().fails(&["/file", "permission denied"]);
    c.assert_clean();
});

container_test!(a_program_that_is_a_folder, |c| {
    c.set("/process/args", json!(["/tmp"]));
    let output = c.create().exits(1);
    assert!(output.stderr.contains("is a directory") || output.stderr.contains("permission denied"), "{output}");
    c.assert_clean();
});

container_test!(a_program_whose_interpreter_is_missing, |c| {
    fs::write(c.rootfs().join("script"), "#!/no/such/interpreter\n").unwrap();
    chmod(&c.rootfs().join("script"), 0o755);
    c.set("/process/args", json!(["/script"]));
    assert_has(c.run().exits(1).stderr.to_lowercase(), "no such file or directory");
});

container_test!(the_working_folder, |c| {
    fs::create_dir(c.rootfs().join("work")).unwrap();
    c.set("/process/cwd", "/work");
    assert_eq!(c.facts()["cwd"], "/work");
});

container_test!(a_missing_working_folder_is_made, |c| {
    c.set("/process/cwd", "/made/for/this");
    assert_eq!(c.facts()["cwd"], "/made/for/this");
    assert!(c.rootfs().join("made/for/this").is_dir());
});

container_test!(a_working_folder_that_only_the_user_may_enter, |c| {
    fs::create_dir(c.rootfs().join("private")).unwrap();
    std::os::unix::fs::chown(c.rootfs().join("private"), Some(1000), Some(1000)).unwrap();
    chmod(&c.rootfs().join("private"), 0o700);
    c.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    c.set("/process/cwd", "/private");
    assert_eq!(c.facts()["cwd"], "/private");
});

container_test!(the_umask_is_0022_whatever_the_callers, |c| {
    c.args(&["facts"]);
    c.write_config();
    let probe = guest().to_str().unwrap();
    let facts = finish(&mut c.command_by(&[probe, "with", "umask=077", "--"], &["run", &c.id]), &c.dir).ok().json();
    assert_eq!(facts["status"]["Umask"], "0022");
});

container_test!(the_umask_of_the_config, |c| {
    c.set("/process/user/umask", 0o27);
    assert_eq!(c.facts()["status"]["Umask"], "0027");
});

// On another user's process setting limits takes CAP_SYS_RESOURCE, which this host may lack.
container_test!(rlimits_of_an_ordinary_user, |c| {
    c.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    c.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 50, "hard": 60 }]));
    let facts = c.facts();
    assert_eq!(facts["rlimits"]["RLIMIT_NOFILE"], json!([50, 60]));
    assert!(facts["status"]["Uid"].as_str().unwrap().starts_with("1000"), "{facts}");
});

container_test!(rlimits, |c| {
    c.set(
        "/process/rlimits",
        json!([
            { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            { "type": "RLIMIT_NPROC", "soft": 1000, "hard": 2000 },
            { "type": "RLIMIT_MSGQUEUE", "soft": 1, "hard": 2 },
            { "type": "RLIMIT_RTTIME", "soft": 5, "hard": u64::MAX },
        ]),
    );
    let limits = c.facts()["rlimits"].clone();
    assert_eq!(limits["RLIMIT_NOFILE"], json!([100, 200]));
    assert_eq!(limits["RLIMIT_CORE"], json!([0, 0]));
    assert_eq!(limits["RLIMIT_NPROC"], json!([1000, 2000]));
    assert_eq!(limits["RLIMIT_MSGQUEUE"], json!([1, 2]));
    assert_eq!(limits["RLIMIT_RTTIME"], json!([5, u64::MAX]));
});

container_test!(every_rlimit_has_a_name, |c| {
    let facts = c.facts();
    let names: Vec<String> = facts["rlimits"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(names.len(), 16);
    let limits: Vec<Value> = names
        .iter()
        .map(|name| json!({ "type": name, "soft": facts["rlimits"][name][0], "hard": facts["rlimits"][name][1] }))
        .collect();
    c.set("/process/rlimits", json!(limits));
    assert_eq!(c.facts()["rlimits"], facts["rlimits"]);
});

container_test!(oom_score_adj, |c| {
    c.set("/process/oomScoreAdj", 321);
    assert_eq!(c.facts()["oom_score_adj"], 321);
});

// "permission denied" is about the program, for Docker: it would exit with 126, not with 125 as for runc.
container_test!(oom_score_adj_takes_a_capability_to_lower, |c| {
    c.set("/process/oomScoreAdj", -999);
    c.write_config();
    let prefix = ["setpriv", "--bounding-set", "-sys_resource"];
    let output = finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir);
    assert!(!output.exits(1).stderr.to_lowercase().contains("permission denied"));
    if rival().is_none() {
        finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir)
            .fails(&["/process/oomScoreAdj: -999: ", "CAP_SYS_RESOURCE"]);
    }
});

container_test!(oom_score_adj_is_left_alone_without_a_value, |c| {
    let mine: i64 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    assert_eq!(c.facts()["oom_score_adj"], mine);
});

container_test!(oom_score_adj_of_the_caller_is_left_alone, |c| {
    let mine = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    c.set("/process/oomScoreAdj", 500);
    c.run().ok();
    assert_eq!(fs::read_to_string("/proc/self/oom_score_adj").unwrap(), mine);
});

container_test!(personality, |c| {
    if rival() == Some("runc") || !cfg!(target_arch = "x86_64") {
        return crate::common::skip(&c.name, "runc has it since 1.2; LINUX32 is told apart on x86_64");
    }
    c.set("/linux/personality", json!({ "domain": "LINUX32" }));
    let facts = c.facts();
    assert_eq!((&facts["personality"], &facts["machine"]), (&json!(8), &json!("i686")));
    c.set("/linux/personality", json!({ "domain": "LINUX" }));
    assert_eq!(c.facts()["personality"], 0);
});

container_test!(scheduler, |c| {
    skip_for_runc!(c, "runc has it since 1.2");
    c.set("/process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 5 }));
    assert_eq!(c.facts()["scheduler"], json!({ "policy": 3, "priority": 0, "nice": 5 }));
    c.set("/process/scheduler", json!({ "policy": "SCHED_IDLE" }));
    assert_eq!(c.facts()["scheduler"]["policy"], 5);
});

container_test!(real_time_scheduler, |c| {
    skip_for_runc!(c, "runc has it since 1.2");
    // Then a new cgroup has no real-time budget, and the kernel refuses.
    let budget = crate::common::host::v1("cpu").is_some_and(|root| root.join("cpu.rt_runtime_us").exists());
    crate::skip_unless!(c, !budget, "the kernel schedules real-time tasks by cgroup");
    c.set("/process/scheduler", json!({ "policy": "SCHED_FIFO", "priority": 7 }));
    assert_eq!(c.facts()["scheduler"], json!({ "policy": 1, "priority": 7, "nice": 0 }));
});

container_test!(io_priority, |c| {
    skip_for_runc!(c, "runc has it since 1.2");
    for (class, priority, expected) in
        [("IOPRIO_CLASS_BE", 3, 2 << 13 | 3), ("IOPRIO_CLASS_RT", 1, 1 << 13 | 1), ("IOPRIO_CLASS_IDLE", 0, 3 << 13)]
    {
        c.set("/process/ioPriority", json!({ "class": class, "priority": priority }));
        assert_eq!(c.facts()["ioprio"], expected, "{class}");
    }
});

container_test!(the_session_keyring_is_new, |c| {
    let name = c.facts()["keyring"].as_str().unwrap().to_owned();
    assert!(name.contains(&format!("_ses.{}", c.id)), "{name}");
});

container_test!(the_session_keyring_is_the_callers_if_asked, |c| {
    c.args(&["facts"]);
    let new = c.run().ok().json()["keyring"].as_str().unwrap().to_owned();
    let kept = c.run_with(&["--no-new-keyring"]).ok().json()["keyring"].as_str().unwrap().to_owned();
    assert_ne!(new, kept);
    assert!(!kept.contains(&c.id), "{kept}");
});

container_test!(the_program_leads_a_session_of_its_own, |c| {
    let facts = c.facts();
    assert_eq!(facts["sid"], facts["pid"]);
});

container_test!(no_signal_is_blocked_or_ignored, |c| {
    skip_for_runc!(c, "runc 1.1 keeps what its caller blocks");
    c.args(&["facts"]);
    c.write_config();
    let probe = guest().to_str().unwrap();
    let prefix = [probe, "with", "block=10", "block=15", "--"];
    let facts = finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir).ok().json();
    assert_eq!(facts["status"]["SigBlk"], "0000000000000000");
    assert_eq!(facts["status"]["SigIgn"], "0000000000000000");
});

container_test!(signals_that_the_caller_ignores_are_not_ignored, |c| {
    skip_for_runc!(c, "runc keeps what its caller ignores");
    c.args(&["facts"]);
    c.write_config();
    let probe = guest().to_str().unwrap();
    let prefix = [probe, "with", "ignore=13", "ignore=1", "ignore=17", "--"];
    let facts = finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir).ok().json();
    assert_eq!(facts["status"]["SigIgn"], "0000000000000000");
});

container_test!(sysctls_are_set, |c| {
    c.set(
        "/linux/sysctl",
        json!({ "net.ipv4.ip_forward": "1", "kernel.msgmax": "65000", "net/ipv4/ip_default_ttl": "77" }),
    );
    if rival() == Some("runc") {
        c.set(
            "/linux/sysctl",
            json!({ "net.ipv4.ip_forward": "1", "kernel.msgmax": "65000", "net.ipv4.ip_default_ttl": "77" }),
        );
    }
    let before = fs::read_to_string("/proc/sys/kernel/msgmax").unwrap();
    let out = c.prints(&[
        "cat",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/kernel/msgmax",
        "/proc/sys/net/ipv4/ip_default_ttl",
    ]);
    assert_eq!(out, "1\n65000\n77\n");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/msgmax").unwrap(), before, "the host's value should be as it was");
});

container_test!(a_sysctl_of_the_host_is_an_error, |c| {
    c.set("/linux/sysctl", json!({ "vm.swappiness": "1" }));
    c.run().fails(&["vm.swappiness"]);
    c.assert_clean();
});

container_test!(a_sysctl_of_a_namespace_that_is_the_hosts_is_an_error, |c| {
    c.remove("/linux/namespaces/1");
    c.remove("/mounts/5");
    c.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    c.run().fails(&["net.ipv4.ip_forward"]);
    c.assert_clean();
});

// `docker run --network host --sysctl net.ipv4.ip_forward=0` names the host's namespace by its path.
container_test!(a_sysctl_of_a_joined_namespace_that_is_the_hosts_is_an_error, |c| {
    c.set("/linux/namespaces/1/path", "/proc/self/ns/net");
    c.remove("/mounts/5");
    let value = fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").unwrap();
    c.set("/linux/sysctl", json!({ "net.ipv4.ip_default_ttl": value.trim() }));
    c.run().exits(1).has("not allowed in host network namespace");
    c.assert_clean();
    // Those of the namespaces that are its own are set.
    c.set("/linux/sysctl", json!({ "kernel.msgmax": "65000" }));
    assert_eq!(c.prints(&["cat", "/proc/sys/kernel/msgmax"]), "65000\n");
    if rival().is_none() {
        c.set("/linux/namespaces/2/path", "/proc/self/ns/ipc");
        c.run().fails(&["/linux/sysctl", "not allowed in host ipc namespace"]);
    }
});

/// The words of one line of the probe's status.
pub(super) fn ids(facts: &Value, key: &str) -> Vec<String> {
    facts["status"][key].as_str().unwrap().split(' ').map(str::to_owned).collect()
}

/// Makes every folder of the rootfs open to any user.
pub(super) fn open_up(c: &Container) {
    chmod(&c.rootfs().join("tmp"), 0o1777);
}
