//! What the runtime itself does under the container's seccomp filter: as little as can be, so that a profile has to allow
//! nothing for its sake. Every system call that it makes on the whole way is denied in turn, by errors and by death.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::budget::smallest_program;
use crate::common::{Container, trace};
use crate::{container_test, skip_for_runc};

/// What can't be done before: the barriers and the gate, the last step of capabilities, and the program's start.
const LEFT: [&str; 5] = ["read", "write", "close", "capset", "execve"];
/// And for a hook: its pipes, its process, and its end.
const LEFT_FOR_HOOKS: [&str; 9] = ["pipe2", "fcntl", "clone", "poll", "wait4", "dup2", "dup3", "ppoll", "getpid"];

/// The smallest program there is as the container's, and as its hook: it makes one system call, exit_group(2).
fn small(c: &mut Container) {
    let program = c.rootfs().join("smallest");
    fs::write(&program, smallest_program()).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    c.set("/process/args", json!(["/smallest"]));
}

/// Everything that takes a system call on the way to the program.
fn much(c: &mut Container, uid: u32, no_new_privileges: bool) {
    small(c);
    let caps = json!(["CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let all = json!({ "bounding": caps, "effective": caps, "permitted": caps, "inheritable": caps, "ambient": caps });
    fs::create_dir_all(c.rootfs().join("work")).unwrap();
    c.set("/process/capabilities", all)
        .set("/process/user", json!({ "uid": uid, "gid": uid, "additionalGids": [7, 8], "umask": 23 }))
        .set("/process/noNewPrivileges", no_new_privileges)
        .set("/process/cwd", "/work")
        .set("/process/rlimits", json!([{ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }]))
        .set("/linux/personality", json!({ "domain": "LINUX" }))
        .set("/linux/sysctl", json!({ "net.ipv4.ip_unprivileged_port_start": "81" }));
}

/// Denies system calls; `with` is the rest of the rule.
fn deny(c: &mut Container, names: &[&str], with: &Value) {
    let mut rule = with.clone();
    rule["names"] = json!(names);
    c.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] }));
    c.write_config();
}

/// The calls of each process between the loading of its filter and its program.
fn under_the_filter(trace: &str) -> Vec<String> {
    let mut found = Vec::new();
    let pid = |line: &str| line.split(' ').next().unwrap().to_owned();
    let call = |line: &str| {
        let text = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start().to_owned();
        text.split_once('(').map(|(name, _)| name.to_owned()).filter(|name| !name.contains(['<', '-', '+']))
    };
    let lines: Vec<&str> = trace.lines().collect();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.contains(" seccomp(SECCOMP_SET_MODE_FILTER")) {
        let own = lines[at + 1..].iter().filter(|other| pid(other) == pid(line)).filter_map(|line| call(line));
        found.extend(own.take_while(|name| name != "execve"));
    }
    found
}

/// Runs under strace; the names of all calls, and of those under the filter.
fn traced(c: &Container) -> (BTreeSet<String>, Vec<String>) {
    let (output, calls) = trace::record(c, true, &["run", &c.id]);
    output.ok();
    let text = fs::read_to_string(c.path("trace")).unwrap();
    (calls.into_iter().map(|call| call.name).collect(), under_the_filter(&text))
}

container_test!(little_is_left_for_the_filter, |c| {
    skip_for_runc!(c, "it does much");
    if !trace::available(c) {
        return;
    }
    for (uid, no_new_privileges) in [(0, false), (0, true), (1000, false), (1000, true)] {
        much(c, uid, no_new_privileges);
        deny(c, &["swapon"], &json!({ "action": "SCMP_ACT_ERRNO" }));
        let (_, calls) = traced(c);
        let more: Vec<&String> = calls.iter().filter(|name| !LEFT.contains(&name.as_str())).collect();
        assert!(more.is_empty() && calls.len() <= 4, "uid {uid}, noNewPrivileges {no_new_privileges}: {calls:?}");
        c.set("/hooks/startContainer", json!([{ "path": "/smallest" }]));
        c.write_config();
        let (_, calls) = traced(c);
        let left: Vec<&str> = LEFT.into_iter().chain(LEFT_FOR_HOOKS).collect();
        let more: Vec<&String> = calls.iter().filter(|name| !left.contains(&name.as_str())).collect();
        assert!(more.is_empty(), "uid {uid}, noNewPrivileges {no_new_privileges}, hooks: {calls:?}");
        c.remove("/hooks");
    }
});

/// Denies each call in turn that the runtime makes.
fn one_by_one(c: &mut Container, no_new_privileges: bool, hooks: bool) {
    if !trace::available(c) {
        return;
    }
    much(c, 1000, no_new_privileges);
    let mut left: Vec<&str> = LEFT.to_vec();
    if hooks {
        c.set("/hooks/startContainer", json!([{ "path": "/smallest" }]));
        left.extend(LEFT_FOR_HOOKS);
    }
    deny(c, &["swapon"], &json!({ "action": "SCMP_ACT_ERRNO" }));
    let (mut names, _) = traced(c);
    // And what others make in their place.
    let others = ["stat", "lstat", "access", "faccessat", "faccessat2", "open", "clone3", "waitid", "setuid", "statx"];
    names.extend(others.map(str::to_owned));
    assert!(names.len() > 40, "{names:?}");
    let mut failed = Vec::new();
    for name in names.iter().filter(|name| !left.contains(&name.as_str()) && *name != "exit_group") {
        for rule in [
            json!({ "action": "SCMP_ACT_ERRNO" }),
            json!({ "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOENT }),
            json!({ "action": "SCMP_ACT_KILL_PROCESS" }),
        ] {
            deny(c, &[name], &rule);
            let output = c.run();
            if output.code != 0 {
                failed.push(format!("{name} {rule}: {}", output.stderr));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

container_test!(each_call_denied, |c| {
    skip_for_runc!(c, "it needs many");
    c.set("/hooks", json!({}));
    one_by_one(c, true, false);
});

container_test!(each_call_denied_without_no_new_privileges, |c| {
    skip_for_runc!(c, "it needs many");
    c.set("/hooks", json!({}));
    one_by_one(c, false, false);
});

container_test!(each_call_denied_with_a_hook, |c| {
    skip_for_runc!(c, "it needs many");
    c.set("/hooks", json!({}));
    one_by_one(c, true, true);
});

container_test!(each_call_denied_with_a_hook_without_no_new_privileges, |c| {
    skip_for_runc!(c, "it needs many");
    c.set("/hooks", json!({}));
    one_by_one(c, false, true);
});

// The rights that are used are the effective ones, as execve(2) goes by them: access(2) goes by others.
container_test!(a_program_that_a_capability_lets_a_user_execute, |c| {
    let program = c.rootfs().join("guest");
    let copy = c.rootfs().join("only-roots");
    fs::copy(&program, &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o744)).unwrap();
    let caps = json!(["CAP_DAC_OVERRIDE"]);
    c.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let sets = ["bounding", "effective", "permitted", "inheritable", "ambient"];
    for set in sets {
        c.set(&format!("/process/capabilities/{set}"), caps.clone());
    }
    for name in ["/only-roots", "only-roots"] {
        c.set("/process/args", json!([name, "echo", "runs"])).set("/process/env/0", "PATH=/bin:/");
        for filter in [false, true] {
            if filter {
                deny(c, &["swapon"], &json!({ "action": "SCMP_ACT_ERRNO" }));
            }
            for no_new_privileges in [false, true] {
                c.set("/process/noNewPrivileges", no_new_privileges);
                assert_eq!(c.run().ok().stdout, "runs\n", "{name}, filter {filter}, {no_new_privileges}");
            }
        }
        c.set("/linux/seccomp", Value::Null);
    }
    // Not without it.
    for set in sets {
        c.set(&format!("/process/capabilities/{set}"), json!([]));
    }
    c.run().exits(1).has("may not execute it");
});

// What the runtime keeps for the loading of the filter is given up: the program has what was asked for.
container_test!(the_right_to_filter_is_given_up, |c| {
    deny(c, &["swapon"], &json!({ "action": "SCMP_ACT_ERRNO" }));
    c.set("/process/noNewPrivileges", false);
    for uid in [0, 1000] {
        c.set("/process/user", json!({ "uid": uid, "gid": uid }));
        for caps in [json!([]), json!(["CAP_KILL"]), json!(["CAP_KILL", "CAP_DAC_OVERRIDE"])] {
            let sets = json!({ "bounding": caps, "effective": caps, "permitted": caps });
            c.set("/process/capabilities", sets);
            let facts = c.facts();
            let want = match caps.as_array().unwrap().len() {
                0 => "0000000000000000",
                1 => "0000000000000020",
                _ => "0000000000000022",
            };
            // A program that a user executes has what is ambient.
            let effective = if uid == 0 { want } else { "0000000000000000" };
            assert_eq!(facts["status"]["CapBnd"], want, "{uid} {caps}");
            assert_eq!(facts["status"]["CapEff"], effective, "{uid} {caps}");
            assert_eq!(facts["status"]["Seccomp"], "2");
        }
    }
});
