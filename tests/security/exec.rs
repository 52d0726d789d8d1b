//! What joins a container, and what it starts with.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::sleep;
use crate::common::program::{finish, start};
use crate::common::{Container, assert_has, guest, host};
use crate::{container_test, skip_for_runc};

fn exec(c: &Container, flags: &[&str], words: &[&str]) -> crate::common::Output {
    let mut all = vec!["exec"];
    all.extend(flags);
    all.extend([c.id.as_str(), "/guest"]);
    all.extend(words);
    c.tare(&all)
}

fn status(facts: &Value, key: &str) -> String {
    facts["status"][key].as_str().unwrap().to_owned()
}

/// What a payload that may trace all sees of the processes that join its container.
fn watched(c: &mut Container, stop: &str) -> Vec<String> {
    c.args(&["watch", &format!("/{stop}")]);
    c.write_config();
    let mut watcher = start(&mut c.command(&["run", &c.id]), &c.dir);
    watcher.wait_for("ready");
    for _ in 0..50 {
        exec(c, &[], &["true"]).ok();
    }
    c.tare(&["exec", &c.id, "/no/such/program"]).exits(255);
    fs::write(c.rootfs().join(stop), "").unwrap();
    watcher.wait().ok().stdout.lines().skip(1).map(str::to_owned).collect()
}

container_test!(cve_2016_9962_what_joins_shows_nothing_of_the_host, |c| {
    assert_eq!(watched(c, "stop"), Vec::<String>::new());
});

container_test!(cve_2016_9962_nor_in_a_user_namespace_with_every_right, |c| {
    super::map(c);
    let caps = json!(["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]);
    c.set("/process/capabilities", json!({ "bounding": caps, "effective": caps, "permitted": caps }));
    assert_eq!(watched(c, "tmp/stop"), Vec::<String>::new());
});

/// What a payload sees of the namespaces of the processes that join its container, as soon as they are there.
fn views(c: &mut Container, stop: &str) -> Vec<String> {
    c.args(&["watch-views", &format!("/{stop}")]);
    c.write_config();
    let mut watcher = start(&mut c.command(&["run", &c.id]), &c.dir);
    watcher.wait_for("ready");
    for _ in 0..100 {
        exec(c, &[], &["true"]).ok();
    }
    fs::write(c.rootfs().join(stop), "").unwrap();
    let lines: Vec<String> = watcher.wait().ok().stdout.lines().skip(1).map(str::to_owned).collect();
    assert_ne!(lines[0], "0", "it has seen no process");
    lines[1..].to_vec()
}

container_test!(cve_2016_9962_what_joins_is_never_seen_in_the_hosts_namespaces, |c| {
    assert_eq!(views(c, "stop"), Vec::<String>::new());
});

container_test!(cve_2016_9962_nor_is_it_from_a_user_namespace, |c| {
    super::map(c);
    assert_eq!(views(c, "tmp/stop"), Vec::<String>::new());
});

container_test!(cve_2016_3697_a_user_is_a_number, |c| {
    fs::create_dir_all(c.rootfs().join("etc")).unwrap();
    fs::write(c.rootfs().join("etc/passwd"), "1000:x:0:0::/:/bin/sh\nroot:x:0:0::/:/bin/sh\n").unwrap();
    sleep(c);
    let facts = exec(c, &["--user", "1000:1000"], &["facts"]).ok().json();
    assert_eq!(status(&facts, "Uid"), "1000 1000 1000 1000");
    assert_eq!(exec(c, &["--user", "root"], &["facts"]).stdout, "");
});

container_test!(cve_2026_30892_what_is_no_uid_is_not_root, |c| {
    skip_for_runc!(c, "runc 1.1 cuts the number to 32 bits");
    c.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    sleep(c);
    for user in
        ["4294967296", "4294967295", "-1", "18446744073709551616", "foo", "1:", ":5", "1:4294967296", "0x0", "٣"]
    {
        let output = exec(c, &["--user", user], &["facts"]).exits(255);
        assert_has(output.stderr, "user");
    }
    c.delete_force().ok();
    for id in [4_294_967_295_u64, 4_294_967_296] {
        c.set("/process/user/uid", id);
        c.run().fails(&["/process/user/uid"]);
    }
});

// And CVE-2022-24769, CVE-2022-27650, CVE-2025-27612: inheritable capabilities are given to the owners of files.
container_test!(cve_2022_29162_exec_adds_nothing_inheritable, |c| {
    sleep(c);
    for flags in [&[][..], &["--cap", "CAP_NET_RAW"], &["--user", "1000:1000", "--cap", "CAP_NET_RAW"]] {
        let facts = exec(c, flags, &["facts"]).ok().json();
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(u64::from_str_radix(&status(&facts, set), 16).unwrap(), 0, "{flags:?}");
        }
    }
    let spec = c.path("spec");
    fs::create_dir(&spec).unwrap();
    c.tare(&["spec", "--bundle", spec.to_str().unwrap()]).ok();
    let config: Value = serde_json::from_str(&fs::read_to_string(spec.join("config.json")).unwrap()).unwrap();
    let capabilities = &config["process"]["capabilities"];
    assert!(capabilities["inheritable"].as_array().is_none_or(Vec::is_empty), "{capabilities}");
});

// And GHSA-xr7r: a descriptor of the runtime, or one that its caller has left open, that leads to the host.
container_test!(cve_2024_21626_no_descriptor_leads_out_of_run, |c| {
    let prefix = [guest().to_str().unwrap(), "with", "open=9:/", "--"];
    for fd in 3..30 {
        for path in [format!("/proc/self/fd/{fd}"), format!("/proc/self/fd/{fd}/../../..")] {
            c.set("/process/cwd", path.as_str());
            c.args(&["ls", "."]);
            c.write_config();
            let output = finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir);
            assert!(output.code != 0 && output.stdout.is_empty(), "{path}: {output}");
        }
        c.set("/process/cwd", "/");
        c.set("/process/args", json!([format!("/proc/self/fd/{fd}/bin/true")]));
        c.write_config();
        finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir).exits(1);
    }
});

container_test!(cve_2024_21626_no_descriptor_leads_out_of_exec, |c| {
    sleep(c);
    let prefix = [guest().to_str().unwrap(), "with", "open=9:/", "--"];
    for fd in 3..30 {
        for path in [format!("/proc/self/fd/{fd}"), format!("/proc/self/fd/{fd}/../..")] {
            let output =
                finish(&mut c.command_by(&prefix, &["exec", "--cwd", &path, &c.id, "/guest", "ls", "."]), &c.dir);
            assert!(output.code == 255 && output.stdout.is_empty(), "{path}: {output}");
        }
        let program = format!("/proc/self/fd/{fd}/bin/true");
        finish(&mut c.command_by(&prefix, &["exec", &c.id, program.as_str()]), &c.dir).exits(255);
    }
    let facts = finish(&mut c.command_by(&prefix, &["exec", &c.id, "/guest", "facts"]), &c.dir).ok().json();
    let mut fds: Vec<&String> = facts["fds"].as_object().unwrap().keys().collect();
    fds.sort();
    assert_eq!(fds, ["0", "1", "2"]);
});

// youki 0.7 forgets it.
container_test!(youki_exec_has_the_seccomp_filter, |c| {
    let rule = json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 });
    c.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] }));
    sleep(c);
    let output = exec(c, &[], &["mkdir", "/tmp/x"]);
    assert_ne!(output.code, 0);
    assert!(!c.rootfs().join("tmp/x").exists());
    assert_eq!(status(&exec(c, &[], &["facts"]).ok().json(), "Seccomp"), "2");
});

// A process of the container, or of another one that shares its pid namespace, may stop whatever joins it.
container_test!(nobody_stops_what_is_on_its_way_in, |c| {
    c.args(&["sleep-forever"]);
    c.create().ok();
    kill(Pid::from_raw(c.pid()), Signal::SIGSTOP).unwrap();
    c.start().ok();
    let (init, path) = (c.pid(), format!("{}/{}", c.cgroup, c.id));
    let done = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&done);
    let stopper = std::thread::spawn(move || {
        let mut stopped = std::collections::BTreeSet::new();
        while !seen.load(Ordering::Relaxed) {
            for pid in host::cgroup_pids(&path).into_iter().filter(|pid| *pid != init) {
                let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
                let signal = if program.ends_with("guest") {
                    Signal::SIGCONT
                } else if stopped.insert(pid) {
                    Signal::SIGSTOP
                } else {
                    continue;
                };
                let _ = kill(Pid::from_raw(pid), signal);
            }
        }
        stopped.len()
    });
    for _ in 0..20 {
        exec(c, &[], &["exit", "7"]).exits(7);
    }
    done.store(true, Ordering::Relaxed);
    assert_ne!(stopper.join().unwrap(), 0, "no process was seen on its way");
});

container_test!(exec_stays_in_the_containers_cgroup, |c| {
    sleep(c);
    for path in ["..", "../..", "a/../../..", "/../..", "memory:../..", "/proc"] {
        let output = exec(c, &["--cgroup", path], &["true"]).exits(255);
        assert_has(&output.stderr, "cgroup");
    }
});
