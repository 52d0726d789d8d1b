//! `exec`: further programs in a container.

use std::fs;

use serde_json::{Value, json};

use crate::common::program::{finish, start};
use crate::common::{Container, assert_has, assert_json, eventually, guest, host, pty, strings, trace};
use crate::{container_test, skip_for_runc};

/// A container that runs, to execute something in.
fn running(c: &mut Container) {
    c.args(&["sleep-forever"]);
    c.detach().ok();
}

/// `exec FLAGS ID /guest WORDS`.
fn words<'a>(c: &'a Container, flags: &[&'a str], program: &[&'a str]) -> Vec<&'a str> {
    [&["exec"], flags, &[c.id.as_str(), "/guest"], program].concat()
}

fn facts(c: &Container, flags: &[&str]) -> Value {
    c.tare(&words(c, flags, &["facts"])).ok().json()
}

container_test!(passes_the_exit_status_on, |c| {
    running(c);
    for status in ["0", "7", "200"] {
        let output = c.tare(&words(c, &[], &["exit", status]));
        assert_eq!(output.code, status.parse::<i32>().unwrap(), "{output}");
    }
    assert_eq!(c.tare(&words(c, &[], &["kill-self", "9"])).code, 137);
    assert_eq!(c.status(), "running");
});

container_test!(what_follows_the_id_belongs_to_the_program, |c| {
    running(c);
    let facts: Value = c.tare(&words(c, &[], &["facts", "--tty", "-e", "--", "--help"])).ok().json();
    assert_eq!(strings(&facts["argv"]), ["/guest", "facts", "--tty", "-e", "--", "--help"]);
});

// Nothing differs from the container's own process but what flags ask for.
container_test!(is_in_every_way_like_the_containers_own_process, |c| {
    c.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]));
    c.set("/process/oomScoreAdj", 300).set("/process/user/umask", 0o027);
    c.set("/process/env", json!(["PATH=/", "A=1", "A=2"])).set("/process/cwd", "/tmp");
    c.push("/process/env", json!(format!("TARE_TEST={}", c.dir.display())));
    c.set("/linux/personality", json!({ "domain": "LINUX32" }));
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["reboot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5 }] });
    c.set("/linux/seccomp", profile);
    for (uid, no_new_privileges) in [(0, true), (1000, true), (0, false), (1000, false)] {
        c.set("/process/user/uid", uid).set("/process/user/gid", uid);
        c.set("/process/user/additionalGids", json!([5, 6])).set("/process/noNewPrivileges", no_new_privileges);
        let own = c.facts();
        running(c);
        let other = facts(c, &[]);
        for key in [
            "env",
            "cwd",
            "umask",
            "rlimits",
            "oom_score_adj",
            "personality",
            "scheduler",
            "ioprio",
            "hostname",
            "loopback",
        ] {
            assert_eq!(other[key], own[key], "{key}");
        }
        for key in [
            "Uid",
            "Gid",
            "Groups",
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
        ] {
            assert_eq!(other["status"][key], own["status"][key], "{key}");
        }
        assert_eq!(other["cgroup"], own["cgroup"]);
        assert_eq!(other["fds"].as_object().map(|fds| fds.len()), own["fds"].as_object().map(|fds| fds.len()));
        c.delete_force().ok();
    }
});

container_test!(joins_every_namespace_and_cgroup, |c| {
    c.push("/linux/namespaces", json!({ "type": "cgroup" }));
    running(c);
    let init = c.pid();
    let mut command = c.command(&words(c, &["--detach"], &["sleep-forever"]));
    finish(&mut command, &c.dir).ok();
    let pids = host::cgroup_pids(c.config["linux"]["cgroupsPath"].as_str().unwrap());
    let other = *pids.iter().find(|pid| **pid != init).unwrap();
    for name in ["pid", "mnt", "net", "ipc", "uts", "cgroup", "user", "time"] {
        assert_eq!(host::namespace(&other.to_string(), name), host::namespace(&init.to_string(), name), "{name}");
    }
    let cgroup = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(cgroup(other), cgroup(init));
});

container_test!(the_bundle_may_have_changed, |c| {
    c.set("/process/env", json!(["PATH=/", "A=create"]));
    c.push("/process/env", json!(format!("TARE_TEST={}", c.dir.display())));
    running(c);
    c.set("/process/env", json!(["A=later"])).set("/process/noNewPrivileges", false);
    c.write_config();
    let facts = facts(c, &[]);
    assert!(strings(&facts["env"]).contains(&"A=create".to_owned()));
    assert_eq!(facts["status"]["NoNewPrivs"], "1");
});

container_test!(flags_change_the_process, |c| {
    running(c);
    let facts = facts(c, &["--user", "5:6", "-g", "7", "-g", "8", "--env", "B=1", "-e", "PATH=/x", "--cwd", "/tmp"]);
    assert_eq!(facts["status"]["Uid"], "5 5 5 5");
    assert_eq!(facts["status"]["Gid"], "6 6 6 6");
    assert_eq!(facts["status"]["Groups"], "7 8");
    assert_eq!(facts["cwd"], "/tmp");
    let env = strings(&facts["env"]);
    assert!(env.contains(&"B=1".to_owned()) && env.contains(&"PATH=/x".to_owned()), "{env:?}");
});

container_test!(a_user_is_digits_and_never_root_by_mistake, |c| {
    running(c);
    for user in ["1:", ":5", "foo", "4294967296", "4294967295", "-1", "1:2:3", "0x0", "+0", " 0", "1:-1"] {
        let flag = format!("--user={user}");
        let output = c.tare(&words(c, &[&flag], &["facts"]));
        assert_ne!(output.code, 0, "{user}: {output}");
        assert!(output.stdout.is_empty(), "{user}: {output}");
    }
});

container_test!(an_added_capability_is_never_inheritable, |c| {
    running(c);
    let before = facts(c, &[]);
    let after = facts(c, &["--cap", "CAP_SYS_TIME"]);
    let bits = |facts: &Value, set: &str| u64::from_str_radix(facts["status"][set].as_str().unwrap(), 16).unwrap();
    for set in ["CapBnd", "CapPrm", "CapEff"] {
        assert_eq!(bits(&after, set), bits(&before, set) | 1 << 25, "{set}");
    }
    assert_eq!((bits(&after, "CapInh"), bits(&after, "CapAmb")), (0, 0));
});

container_test!(a_file_gives_the_whole_process, |c| {
    running(c);
    let file = c.path("process.json");
    let text = json!({ "args": ["/guest", "facts"], "cwd": "/tmp", "env": ["C=3"], "user": { "uid": 9, "gid": 9 } });
    fs::write(&file, text.to_string()).unwrap();
    let facts = c.tare(&["exec", "--process", file.to_str().unwrap(), &c.id]).ok().json();
    assert_eq!((&facts["cwd"], &facts["status"]["Uid"]), (&json!("/tmp"), &json!("9 9 9 9")));
    assert_eq!(strings(&facts["env"]), ["C=3", "HOME=/"]);
    skip_for_runc!(c, "it has other words");
    for (text, part) in [
        (json!({ "args": [], "cwd": "/" }), "/args"),
        (json!({ "args": ["x"], "cwd": "relative" }), "/cwd"),
        (json!({ "args": ["x"], "cwd": "/", "user": { "uid": "a" } }), "/user/uid"),
    ] {
        fs::write(&file, text.to_string()).unwrap();
        let output = c.tare(&["exec", "--process", file.to_str().unwrap(), &c.id]).exits(255);
        assert_has(&output.stderr, part);
        assert_eq!(output.stderr.lines().count(), 1, "{output}");
    }
});

container_test!(failures_of_the_runtime_are_255_with_the_words_of_engines, |c| {
    running(c);
    fs::write(c.rootfs().join("plain"), "").unwrap();
    for (program, part) in [
        ("nonesuch", "executable file not found in $PATH"),
        ("/nonesuch", "no such file or directory"),
        ("/plain", "permission denied"),
        ("/tmp", "permission denied"),
    ] {
        let output = c.tare(&["exec", &c.id, program]).exits(255);
        if crate::common::rival().is_none() || program != "/tmp" {
            assert_has(&output.stderr, part);
        }
    }
    let pid_file = c.path("pid");
    c.tare(&["exec", "--pid-file", pid_file.to_str().unwrap(), &c.id, "/nonesuch"]).exits(255);
    assert!(!pid_file.exists());
    c.kill(&["KILL"]).ok();
    c.wait_status("stopped");
    assert_has(&c.tare(&["exec", &c.id, "/guest"]).exits(255).stderr, "cannot exec in a stopped container");
    c.delete().ok();
    assert_has(&c.tare(&["exec", &c.id, "/guest"]).exits(255).stderr, "does not exist");
});

container_test!(works_in_a_created_container, |c| {
    c.args(&["sleep-forever"]);
    c.create().ok();
    c.tare(&words(c, &[], &["exit", "3"])).exits(3);
    assert_eq!(c.status(), "created");
    c.start().ok();
});

container_test!(a_frozen_container_is_refused_unless_asked, |c| {
    running(c);
    let path = c.config["linux"]["cgroupsPath"].as_str().unwrap().to_owned();
    let freezer = host::cgroups(&path).into_iter().find_map(|dir| {
        [("freezer.state", "FROZEN", "THAWED"), ("cgroup.freeze", "1", "0")]
            .into_iter()
            .find(|(file, ..)| dir.join(file).exists())
            .map(|(file, on, off)| (dir.join(file), on, off))
    });
    let (file, on, off) = freezer.unwrap();
    fs::write(&file, on).unwrap();
    eventually("paused", || c.status() == "paused");
    assert_has(&c.tare(&words(c, &[], &["exit", "0"])).exits(255).stderr, "paused");
    let mut waiting = start(&mut c.command(&words(c, &["--ignore-paused"], &["exit", "4"])), &c.dir);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(waiting.child.try_wait().unwrap().is_none());
    fs::write(&file, off).unwrap();
    waiting.wait().exits(4);
});

container_test!(detached_it_goes_on_and_its_pid_is_written, |c| {
    running(c);
    let file = c.path("pid");
    c.tare(&words(c, &["--detach", "--pid-file", file.to_str().unwrap()], &["sleep-forever"])).ok();
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.ends_with('\n'));
    let pid: i32 = text.parse().unwrap();
    assert_ne!(pid, c.pid());
    assert_eq!(fs::read_link(format!("/proc/{pid}/exe")).unwrap().file_name().unwrap(), "guest");
    assert_ne!(host::process_state(pid), Some('Z'));
});

container_test!(a_detached_terminal_goes_to_the_console_socket, |c| {
    running(c);
    let socket = c.path("console");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let flags = ["--tty", "--detach", "--console-socket", socket.to_str().unwrap()];
    c.tare(&words(c, &flags, &["facts"])).ok();
    let (_, fd) = pty::receive(&listener);
    let master = pty::Master::new(fd.into());
    master.wait_for("\"tty\"");
    skip_for_runc!(c, "it has other words");
    c.tare(&words(c, &["--tty", "--detach"], &["facts"])).exits(255).has("--console-socket");
});

container_test!(a_terminal_in_the_foreground_is_the_callers, |c| {
    running(c);
    let output = c.tare(&words(c, &["--tty"], &["facts"])).ok();
    assert_has(&output.stdout, "/dev/pts/0");
});

container_test!(descriptors_are_the_standard_streams_and_what_is_asked, |c| {
    running(c);
    let open = [guest().to_str().unwrap(), "with", "open=3:/etc/hostname", "open=9:/", "--"];
    let fds = |flags: &[&str]| {
        let facts = finish(&mut c.command_by(&open, &words(c, flags, &["facts"])), &c.dir).ok().json();
        facts["fds"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(fds(&[]), ["0", "1", "2"]);
    assert_eq!(fds(&["--preserve-fds", "1"]), ["0", "1", "2", "3"]);
});

container_test!(a_working_directory_outside_is_refused, |c| {
    running(c);
    for fd in 3..12 {
        let cwd = format!("/proc/self/fd/{fd}");
        let output = c.tare(&words(c, &["--cwd", &cwd], &["facts"]));
        assert_ne!(output.code, 0, "{output}");
    }
});

container_test!(a_sub_cgroup_must_exist_and_be_inside, |c| {
    skip_for_runc!(c, "runc 1.1 on v1 wants controllers");
    running(c);
    let path = c.config["linux"]["cgroupsPath"].as_str().unwrap().to_owned();
    for asked in ["..", "../..", "nonesuch"] {
        c.tare(&words(c, &["--cgroup", asked], &["exit", "0"])).exits(255).has("--cgroup");
    }
    for dir in host::cgroups(&path) {
        let _ = fs::create_dir(dir.join("sub"));
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(text) = fs::read_to_string(dir.join(file)) {
                let _ = fs::write(dir.join("sub").join(file), text.trim());
            }
        }
    }
    c.tare(&words(c, &["--cgroup", "sub", "--detach"], &["sleep-forever"])).ok();
    assert_eq!(host::cgroup_pids(&format!("{path}/sub")).len(), 1);
});

container_test!(signals_reach_it_in_the_foreground, |c| {
    running(c);
    let mut foreground = start(&mut c.command(&words(c, &[], &["catch", "0", "15"])), &c.dir);
    foreground.wait_for("ready");
    foreground.signal(nix::sys::signal::Signal::SIGTERM);
    assert_has(foreground.wait().ok().stdout, "got 15");
});

container_test!(it_works_in_a_user_namespace, |c| {
    c.push("/linux/namespaces", json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    c.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    host::chmod(&c.rootfs().join("tmp"), 0o777);
    running(c);
    let facts = facts(c, &["--user", "5:5"]);
    assert_eq!(facts["status"]["Uid"], "5 5 5 5");
    assert_json(&facts["status"]["CapInh"], "0000000000000000");
});

container_test!(many_leave_nothing, |c| {
    running(c);
    let before = host::cgroup_pids(c.config["linux"]["cgroupsPath"].as_str().unwrap());
    let count = if std::env::var_os("TARE_TEST_LONG").is_some() { 1000 } else { 100 };
    for _ in 0..count {
        c.tare(&words(c, &[], &["exit", "0"])).ok();
        c.tare(&["exec", &c.id, "/nonesuch"]).exits(255);
    }
    assert_eq!(host::cgroup_pids(c.config["linux"]["cgroupsPath"].as_str().unwrap()), before);
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", c.pid())).unwrap();
    assert_eq!(children, "");
});

container_test!(it_makes_two_processes_at_most, |c| {
    skip_for_runc!(c, "it makes more");
    if !trace::available(c) {
        return;
    }
    running(c);
    let (output, calls) = trace::record(c, true, &words(c, &[], &["true"]));
    output.ok();
    let clones = calls.iter().filter(|call| ["clone", "clone3", "fork", "vfork"].contains(&call.name.as_str())).count();
    assert!(clones <= 2, "{clones}");
    assert!(calls.iter().all(|call| !call.text.contains("/mountinfo") || call.text.contains("/proc/self/maps")));
    println!("{} system calls", calls.len());
});
