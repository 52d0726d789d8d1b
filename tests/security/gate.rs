//! What the container's process is, holds and has in its memory between the clone and execve, most of all while it waits for
//! `start`; and what is in force when the first program of the image runs.

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;

use nix::sys::stat::{Mode, mknod};
use serde_json::json;

use crate::common::config::mount;
use crate::common::program::{finish, start};
use crate::common::{Container, DENIED, assert_has, eventually, guest, trace};
use crate::{container_test, skip_for_runc, skip_unless, user_test};

/// Something in the environment of the runtime's caller that a container must never see.
const SECRET: &str = "tare-test-secret-of-the-caller";

/// `create`, by a caller with [`SECRET`] in its environment. Returns the process's number on the host.
fn create(c: &Container, options: &[&str]) -> i32 {
    c.write_config();
    let bundle = c.bundle();
    let mut words = options.to_vec();
    words.extend(["create", "--bundle", bundle.to_str().unwrap(), &c.id]);
    finish(c.command(&words).env("SECRET", SECRET), &c.dir).ok();
    c.pid()
}

/// Where the memory of a process that may be written to has a text.
fn memory_has(pid: i32, text: &str) -> bool {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let writable = maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|flags| flags.starts_with("rw")));
    writable.into_iter().any(|line| {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [start, end] = [start, end].map(|number| u64::from_str_radix(number, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        let length = memory.read_at(&mut bytes, start).unwrap_or_default();
        bytes[..length].windows(text.len()).any(|window| window == text.as_bytes())
    })
}

/// What each descriptor of a process is.
fn descriptors(pid: i32) -> Vec<(i32, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(Result::unwrap);
    let mut all: Vec<_> = entries
        .map(|entry| {
            let target = fs::read_link(entry.path()).unwrap().to_string_lossy().into_owned();
            (entry.file_name().to_str().unwrap().parse().unwrap(), target)
        })
        .collect();
    all.sort();
    all
}

/// A hook of the caller's that brings no environment of its own.
fn plain_hook() -> serde_json::Value {
    json!({ "path": guest().to_str().unwrap(), "args": ["guest", "true"] })
}

// Each process of the container has the rights of the one that waits: nothing but its dumpability keeps them apart.
container_test!(the_process_at_the_gate_is_not_to_be_looked_into, |c| {
    skip_for_runc!(c, "it can be traced");
    let own = c.config["linux"]["namespaces"].clone();
    let of_the_host = json!(own.as_array().unwrap().iter().filter(|it| it["type"] != "pid").collect::<Vec<_>>());
    for namespaces in [own, of_the_host] {
        let own_pids = namespaces.as_array().unwrap().len() == 5;
        c.set("/linux/namespaces", namespaces);
        let pid = create(c, &[]);
        let pid = if own_pids { "1".to_owned() } else { pid.to_string() };
        for file in ["environ", "maps", "auxv", "mem"] {
            let path = format!("/proc/{pid}/{file}");
            let output = c.tare(&["exec", &c.id, "/guest", "open", &path, "r"]);
            assert_has(&output.stdout, "EACCES");
        }
        let exec = |words: &[&str]| c.tare(&[&["exec", c.id.as_str(), "/guest"], words].concat()).stdout;
        for link in ["exe", "cwd", "root", "ns/mnt", "fd/0", "fd/3"] {
            assert_has(exec(&["readlink", &format!("/proc/{pid}/{link}")]), "EACCES");
        }
        // PTRACE_SEIZE.
        assert_eq!(exec(&["syscall", &libc::SYS_ptrace.to_string(), "16902", &pid, "0", "0"]), "EPERM\n");
        c.delete_force().ok();
    }
});

// A core dump of it would take the runtime's memory into the container's directory.
container_test!(the_process_at_the_gate_dumps_no_core, |c| {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    skip_unless!(c, !pattern.starts_with(['|', '/', '@']), "core dumps don't go to the directory of the process");
    // The first process of a pid namespace ignores the signal.
    c.remove("/linux/namespaces/0");
    let unlimited = u64::MAX;
    c.set("/process/rlimits", json!([{ "type": "RLIMIT_CORE", "soft": unlimited, "hard": unlimited }]));
    let pid = create(c, &[]);
    let before = fs::read_dir(c.rootfs()).unwrap().count();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGABRT).unwrap();
    c.wait_status("stopped");
    assert_eq!(fs::read_dir(c.rootfs()).unwrap().count(), before, "there is a core dump");
});

container_test!(the_callers_environment_is_wiped, |c| {
    skip_for_runc!(c, "Go keeps copies");
    for hook in [false, true] {
        if hook {
            c.push("/hooks/createContainer", plain_hook());
        }
        let pid = create(c, &[]);
        assert!(memory_has(pid, "TARE_TEST="), "the program's own environment isn't found");
        assert!(!memory_has(pid, SECRET), "with a hook: {hook}");
        c.delete_force().ok();
    }
});

// The hook gets the whole of it.
container_test!(a_hook_gets_the_callers_environment, |c| {
    let records = c.path("records");
    let words = ["guest", "hook", records.to_str().unwrap(), "createContainer"];
    c.push("/hooks/createContainer", json!({ "path": guest().to_str().unwrap(), "args": words }));
    create(c, &[]);
    assert_has(fs::read_to_string(records).unwrap(), SECRET);
});

container_test!(only_the_gate_is_held_at_the_gate, |c| {
    skip_for_runc!(c, "it holds more");
    let log = c.path("log");
    let log = log.to_str().unwrap();
    for options in
        [&[][..], &["--log", log], &["--log", log, "--debug"], &["--log", log, "--log-format", "json", "--debug"]]
    {
        let pid = create(c, options);
        let held: Vec<_> = descriptors(pid).into_iter().filter(|(number, _)| *number > 2).collect();
        let state = c.path("state").join(&c.id);
        let gate = ["start", "result"].map(|name| state.join(name).to_str().unwrap().to_owned());
        // The end of the channel to the runtime that is gone, and what has brought up the container's own network.
        let (of_gate, others): (Vec<_>, Vec<_>) = held.iter().partition(|(_, target)| gate.contains(target));
        assert_eq!((of_gate.len(), others.len()), (2, 2), "{options:?}: {held:?}");
        assert!(others.iter().all(|(_, target)| target.starts_with("socket:")), "{options:?}: {held:?}");
        assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/"));
        assert_has(fs::read_link(format!("/proc/{pid}/exe")).unwrap().to_string_lossy(), "memfd:tare");
        c.delete_force().ok();
    }
});

// fs.suid_dumpable may be 1: then each change of ids makes a process dumpable.
container_test!(each_change_of_ids_is_followed_by_hiding, |c| {
    skip_for_runc!(c, "it isn't traced");
    if !trace::available(c) {
        return;
    }
    for user_namespace in [false, true] {
        c.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
        if user_namespace {
            super::map(c);
        }
        c.write_config();
        let (output, calls) = trace::record(c, true, &["run", &c.id]);
        output.ok();
        let changes = |name: &str| ["setresuid", "setresgid"].contains(&name);
        let dumpable = |call: &trace::Call| call.name == "prctl" && call.text.starts_with("PR_SET_DUMPABLE");
        let clone = calls.iter().position(|call| call.name.starts_with("clone")).unwrap();
        let hidden = calls.iter().position(dumpable).unwrap();
        assert!(hidden < clone, "it is cloned while it is dumpable");
        let told: Vec<_> = calls.iter().filter(|call| changes(&call.name) || dumpable(call)).collect();
        assert!(told.iter().filter(|call| changes(&call.name)).count() >= 2, "{told:?}");
        for (index, call) in told.iter().enumerate() {
            let next = told.get(index + 1);
            let followed = next.is_some_and(|next| next.text.starts_with("PR_SET_DUMPABLE, SUID_DUMP_DISABLE"));
            assert!(!changes(&call.name) || followed, "{call:?}, then {next:?}");
        }
    }
});

// Whatever runs in the container next finds a process with the rights of the program, and no more.
container_test!(restrictions_are_in_force_at_the_gate, |c| {
    skip_for_runc!(c, "it orders them in another way");
    c.set("/process/user", json!({ "uid": 1000, "gid": 1000, "umask": 0o27 }));
    c.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 100 }]));
    c.set("/process/capabilities", json!({ "bounding": ["CAP_KILL"] }));
    c.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW" }));
    for no_new_privileges in [true, false] {
        c.set("/process/noNewPrivileges", no_new_privileges);
        let pid = create(c, &[]);
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.unwrap_or_else(|| panic!("no {key} in {text}")).trim().replace('\t', " ")
        };
        for (key, expected) in [
            ("Uid", "1000 1000 1000 1000"),
            ("Gid", "1000 1000 1000 1000"),
            ("Groups", ""),
            ("Umask", "0027"),
            ("CapInh", "0000000000000000"),
            ("CapPrm", "0000000000000000"),
            ("CapEff", "0000000000000000"),
            ("CapBnd", "0000000000000020"),
            ("CapAmb", "0000000000000000"),
            ("NoNewPrivs", if no_new_privileges { "1" } else { "0" }),
            // With no_new_privs it is loaded last, so that a profile needs to allow nothing for the runtime's sake.
            ("Seccomp", if no_new_privileges && std::env::var_os(DENIED).is_none() { "0" } else { "2" }),
        ] {
            assert_eq!(value(key), expected, "{key}");
        }
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let files: Vec<&str> =
            limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().collect();
        assert_eq!(files[3..5], ["100", "100"]);
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert!(cgroup.contains(&c.cgroup), "{cgroup}");
        c.delete_force().ok();
    }
});

container_test!(the_session_keyring_is_the_containers_at_the_gate, |c| {
    skip_for_runc!(c, "exec joins another in 1.1");
    create(c, &[]);
    let ring = |c: &Container| c.tare(&["exec", &c.id, "/guest", "keyring"]).ok().stdout;
    let before = ring(c);
    assert_has(&before, &format!("_ses.{}", c.id));
    c.args(&["sleep-forever"]);
    c.start().ok();
});

// Whoever has the same uid on the host may have prepared one, to read the container's keys.
container_test!(no_session_keyring_of_anybody_else_is_taken, |c| {
    let name = format!("_ses.{}", c.id);
    let mut squatter = start(std::process::Command::new(guest()).args(["squat-keyring", &name]), &c.dir);
    squatter.wait_for("ready");
    let number = libc::SYS_keyctl.to_string();
    // KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING.
    let own = ["syscall", &number, "0", "-3", "0"];
    c.args(&own);
    let first = c.run().ok().stdout;
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let exec = c.tare(&[&["exec", c.id.as_str(), "/guest"], own.as_slice()].concat()).ok().stdout;
    squatter.signal(nix::sys::signal::Signal::SIGKILL);
    let theirs = squatter.wait().stdout;
    assert!(first.trim().parse::<i32>().is_ok_and(|key| key > 0), "{first}");
    for own in [first, exec] {
        assert!(!theirs.contains(own.trim()), "{own} is theirs: {theirs}");
    }
});

container_test!(limits_are_set_before_a_filter_that_denies_it, |c| {
    let names = ["prlimit64", "setrlimit"];
    let rule = json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 77 });
    c.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] }));
    c.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 100 }]));
    for no_new_privileges in [true, false] {
        c.set("/process/noNewPrivileges", no_new_privileges);
        c.args(&["sleep-forever"]);
        c.detach().ok();
        let limits = fs::read_to_string(format!("/proc/{}/limits", c.pid())).unwrap();
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["100", "100"]);
        c.tare(&["exec", &c.id, "/guest", "true"]).ok();
        c.delete_force().ok();
    }
});

container_test!(hooks_of_the_image_are_filtered, |c| {
    let rule = json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 });
    c.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] }));
    let words =
        ["guest", "all", "mkdir", "/tmp/made", ",", "cat", "/proc/1/status", "/proc/self/status", ",", "exit", "3"];
    c.push("/hooks/startContainer", json!({ "path": "/guest", "args": words }));
    for no_new_privileges in [true, false] {
        c.set("/process/noNewPrivileges", no_new_privileges);
        let output = c.run().exits(1);
        assert!(!c.rootfs().join("tmp/made").exists(), "the hook has made a folder that the filter denies");
        // Of the hook, and of the process that runs it.
        assert_eq!(output.stderr.matches("Seccomp: 2").count(), 2, "{output}");
    }
});

/// A container whose processes may trace each other, and one in it that has everything open which the process at the gate has,
/// and reads from it.
fn with_a_holder(c: &mut Container) {
    let own_pids = c.config["linux"]["namespaces"].as_array().unwrap().len() == 5;
    let caps = json!(["CAP_SYS_PTRACE"]);
    c.set("/process/capabilities", json!({ "bounding": caps, "effective": caps, "permitted": caps }));
    c.args(&["sleep-forever"]);
    let pid = create(c, &[]);
    let folder = format!("/proc/{}/fd", if own_pids { 1 } else { pid });
    c.tare(&["exec", "--detach", &c.id, "/guest", "hold", &folder, "/tmp/held"]).ok();
    eventually("the gate is held", || c.rootfs().join("tmp/held").exists());
    let held: u32 = fs::read_to_string(c.rootfs().join("tmp/held")).unwrap().parse().unwrap();
    assert!(held >= 2, "{held} files are held");
}

container_test!(who_holds_the_gate_does_not_hold_up_start, |c| {
    skip_for_runc!(c, "its gate is another");
    with_a_holder(c);
    assert_eq!(c.status(), "created");
    c.start().ok();
    assert_eq!(c.status(), "running");
    c.start().fails(&["cannot start an already running container"]);
    c.delete().fails(&["running"]);
    assert_eq!(c.status(), "running");
});

container_test!(who_holds_the_gate_does_not_hold_up_a_start_that_fails, |c| {
    skip_for_runc!(c, "its gate is another");
    let emulated = std::env::var_os("TARE_GUEST_VM").is_some();
    skip_unless!(c, !emulated, "two processes race for each byte of the gate, which may take an emulated machine long");
    // Else the holder would end with the first process.
    c.remove("/linux/namespaces/0");
    with_a_holder(c);
    fs::remove_file(c.rootfs().join("guest")).unwrap();
    // It may have read the error, too.
    let _ = c.start();
    c.wait_status("stopped");
});

// A process in the container may have mounted anything on the file.
container_test!(a_terminal_is_of_the_multiplexer_of_its_devpts, |c| {
    skip_for_runc!(c, "1.1 opens what is there");
    let victim = c.path("victim");
    mknod(&victim, nix::sys::stat::SFlag::S_IFCHR, Mode::all(), libc::makedev(5, 2)).unwrap();
    fs::write(c.path("file"), "precious").unwrap();
    for source in [victim, c.path("file"), "/dev/pts/ptmx".into()] {
        let at = c.config["mounts"].as_array().unwrap().len();
        c.push("/mounts", mount("bind", source.to_str().unwrap(), "/dev/pts/ptmx", &["bind"]));
        c.args(&["sleep-forever"]);
        c.detach().ok();
        let socket = c.path("console");
        let listener = UnixListener::bind(&socket).unwrap();
        let words =
            ["exec", "--tty", "--detach", "--console-socket", socket.to_str().unwrap(), &c.id, "/guest", "true"];
        c.tare(&words).exits(255).has("multiplexer");
        drop(listener);
        fs::remove_file(&socket).unwrap();
        c.delete_force().ok();
        c.remove(&format!("/mounts/{at}"));
    }
});

container_test!(without_the_property_there_are_no_capabilities, |c| {
    c.remove("/process/capabilities");
    c.args(&["facts"]);
    let of_run = c.run().ok().json();
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let of_exec = c.tare(&["exec", &c.id, "/guest", "facts"]).ok().json();
    let file = c.path("process.json");
    let process = json!({ "args": ["/guest", "facts"], "cwd": "/", "user": { "uid": 0, "gid": 0 }, "env": [] });
    fs::write(&file, process.to_string()).unwrap();
    let of_file = c.tare(&["exec", "--process", file.to_str().unwrap(), &c.id]).ok().json();
    for facts in [of_run, of_exec, of_file] {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(facts["status"][set], "0000000000000000", "{set}");
        }
    }
});

// The groups come before the capabilities in /proc/self/status, which is read at once.
container_test!(a_caller_of_many_groups_is_known_as_who_it_is, |c| {
    let groups: Vec<String> = (0..2000).map(|number| (4_000_000 + number).to_string()).collect();
    let groups = groups.join(",");
    c.args(&["facts"]);
    c.write_config();
    let facts = finish(&mut c.command_by(&["setpriv", "--groups", &groups], &["run", &c.id]), &c.dir).ok().json();
    assert_eq!(facts["status"]["Groups"], "");
    assert_ne!(facts["status"]["CapBnd"], "000001ffffffffff");
});

// The runtime of an ordinary user has no right to look into a process that isn't dumpable: neither `exec` beside it nor
// its user's own tools for networks would work. The caller's environment and log are no more in it than elsewhere.
user_test!(an_ordinary_users_process_at_the_gate_can_be_joined, |c| {
    skip_for_runc!(c, "Go keeps copies");
    c.args(&["sleep-forever"]);
    let log = c.path("log");
    let pid = create(c, &["--debug", "--log", log.to_str().unwrap()]);
    assert!(!memory_has(pid, SECRET));
    assert!(!descriptors(pid).iter().any(|(_, target)| target.ends_with("/log")), "{:?}", descriptors(pid));
    c.tare(&["exec", &c.id, "/guest", "true"]).ok();
    c.start().ok();
    assert_eq!(c.status(), "running");
});

user_test!(an_ordinary_users_hooks_of_the_image_see_nothing, |c| {
    let words = ["guest", "all", "cat", "/proc/1/environ", ",", "ls", "/proc/1/fd", ",", "exit", "3"];
    c.push("/hooks/startContainer", json!({ "path": "/guest", "args": words }));
    let output = c.run().exits(1);
    assert_eq!(output.stderr.matches("EACCES").count(), 2, "{output}");
});

// What is left open by accident, and what the runtime ignores or blocks, stays with the runtime.
container_test!(signals_are_at_their_default_in_a_hook_of_the_image, |c| {
    let prefix = [guest().to_str().unwrap(), "with", "ignore=2", "--"];
    let words = ["guest", "all", "cat", "/proc/self/status", ",", "exit", "3"];
    c.push("/hooks/startContainer", json!({ "path": "/guest", "args": words }));
    c.write_config();
    let output = finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir).exits(1);
    for line in ["SigBlk: 0000000000000000", "SigIgn: 0000000000000000"] {
        assert_has(&output.stderr, line);
    }
});
