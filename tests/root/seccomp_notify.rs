//! SCMP_ACT_NOTIFY: an agent gets the listener of each process and answers in the kernel's place.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::namespaces::{finish, sleeping};
use crate::common::agent::{Agent, Answer};
use crate::common::{Container, assert_has, eventually};
use crate::{container_test, skip_for_runc};

/// A profile that notifies the agent at `agent` about these calls.
fn notify(c: &mut Container, names: &[&str]) {
    let path = c.path("agent");
    c.set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": path,
            "listenerMetadata": "some \"words\"",
            "syscalls": [{ "names": names, "action": "SCMP_ACT_NOTIFY" }],
        }),
    );
}

/// Answers what the tests ask; mkdir is said to have worked and hasn't.
fn answers(nr: i64) -> Answer {
    match nr {
        libc::SYS_getppid => Answer::Value(4242),
        libc::SYS_uname => Answer::Errno(libc::EBUSY),
        libc::SYS_mkdir | libc::SYS_mkdirat => Answer::Value(0),
        _ => Answer::Continue,
    }
}

fn agent(c: &Container) -> Agent {
    Agent::start(&c.path("agent"), answers)
}

fn look() -> Vec<String> {
    let words =
        format!("/guest all syscall {} , syscall {} 0 , mkdir /tmp/made , ls /tmp", libc::SYS_getppid, libc::SYS_uname);
    words.split(' ').map(str::to_owned).collect()
}

const SEEN: &str = "4242\nEBUSY\n\n";

container_test!(an_agent_answers_for_the_kernel, |c| {
    skip_for_runc!(c, "1.1 panics: its own calls are answered too");
    let agent = agent(c);
    notify(c, &["getppid", "uname", "mkdir", "mkdirat"]);
    c.set("/process/args", json!(look()));
    for (runs, (no_new_privileges, uid)) in [(true, 0), (false, 0), (true, 1000), (false, 1000)].into_iter().enumerate()
    {
        c.set("/process/noNewPrivileges", no_new_privileges);
        c.set("/process/user", json!({ "uid": uid, "gid": uid }));
        let output = c.run().ok();
        assert_eq!(output.stdout, SEEN, "{no_new_privileges} {uid}");
        assert_eq!(agent.messages(runs + 1).len(), runs + 1);
    }
});

container_test!(the_agent_is_told_whose_listener_it_is, |c| {
    skip_for_runc!(c, "1.1 sends less");
    let agent = agent(c);
    notify(c, &["getppid"]);
    c.set("/annotations", json!({ "a": "b" })).args(&["sleep-forever"]);
    c.create().ok();
    // Before `create` returns, so that nothing that starts the container needs to know of agents.
    let messages = agent.messages(1);
    let [(message, listener)] = messages.as_slice() else { panic!("{messages:?}") };
    assert_eq!(listener, "anon_inode:seccomp notify");
    let pid = c.pid();
    let get = |pointer: &str| message.pointer(pointer).cloned().unwrap_or(Value::Null);
    assert_eq!((get("/ociVersion"), get("/fds")), (json!("1.3.0"), json!(["seccompFd"])));
    assert_eq!((get("/pid"), get("/metadata")), (json!(pid), json!("some \"words\"")));
    assert_eq!((get("/state/id"), get("/state/status")), (json!(c.id), json!("creating")));
    assert_eq!((get("/state/pid"), get("/state/bundle")), (json!(pid), json!(c.bundle())));
    assert_eq!((get("/state/ociVersion"), get("/state/annotations/a")), (json!("1.3.0"), json!("b")));
    c.start().ok();

    let pid_file = c.path("pid");
    let words =
        ["exec", "--pid-file", pid_file.to_str().unwrap(), &c.id, "/guest", "syscall", &libc::SYS_getppid.to_string()];
    assert_eq!(c.tare(&words).ok().stdout, "4242\n");
    let (message, listener) = agent.messages(2).pop().unwrap();
    let get = |pointer: &str| message.pointer(pointer).cloned().unwrap_or(Value::Null);
    let exec_pid: i32 = fs::read_to_string(pid_file).unwrap().parse().unwrap();
    assert_ne!(exec_pid, pid);
    assert_eq!(listener, "anon_inode:seccomp notify");
    assert_eq!((get("/pid"), get("/state/pid")), (json!(exec_pid), json!(pid)));
    assert_eq!((get("/state/id"), get("/state/status")), (json!(c.id), json!("running")));
    assert_eq!(agent.messages(2).len(), 2);
});

container_test!(exec_is_answered_too, |c| {
    skip_for_runc!(c, "1.1 panics: its own calls are answered too");
    let agent = agent(c);
    notify(c, &["getppid", "uname", "mkdir", "mkdirat"]);
    for no_new_privileges in [true, false] {
        c.args(&["sleep-forever"]).set("/process/noNewPrivileges", no_new_privileges);
        c.create().ok();
        c.start().ok();
        for options in [[].as_slice(), &["--user", "1000"], &["--tty"]] {
            let mut words: Vec<String> = ["exec"].iter().chain(options).map(|word| (*word).to_owned()).collect();
            words.push(c.id.clone());
            words.extend(look());
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            assert_eq!(c.tare(&words).ok().stdout.replace('\r', ""), SEEN, "{no_new_privileges} {options:?}");
        }
        c.delete_force().ok();
    }
    drop(agent);
});

container_test!(through_a_joined_pid_namespace, |c| {
    let (agent, other) = (agent(c), sleeping(&c.name, |_| ()));
    c.set("/linux/namespaces/0/path", format!("/proc/{}/ns/pid", other.pid()));
    notify(c, &["getppid"]);
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let words = ["exec", &c.id, "/guest", "syscall", &libc::SYS_getppid.to_string()];
    assert_eq!(c.tare(&words).ok().stdout, "4242\n");
    let pids: Vec<Value> = agent.messages(2).into_iter().map(|(message, _)| message["pid"].clone()).collect();
    assert_eq!((pids.len(), &pids[0]), (2, &json!(c.pid())));
    finish(other);
});

container_test!(in_a_user_namespace, |c| {
    let agent = agent(c);
    c.push("/linux/namespaces", json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    c.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    notify(c, &["getppid", "uname", "mkdir", "mkdirat"]);
    c.set("/process/args", json!(look()));
    assert_eq!(c.run().ok().stdout, SEEN);
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let look = look();
    let words: Vec<&str> = ["exec", &c.id].into_iter().chain(look.iter().map(String::as_str)).collect();
    assert_eq!(c.tare(&words).ok().stdout, SEEN);
    assert_eq!(agent.messages(3).len(), 3);
});

// Handing over the listener takes no system call of the process: whatever is notified, nothing waits for itself.
container_test!(every_call_on_the_way_to_the_program_may_be_notified, |c| {
    skip_for_runc!(c, "it refuses write");
    let agent = agent(c);
    notify(
        c,
        &[
            "write",
            "read",
            "sendmsg",
            "sendto",
            "recvmsg",
            "connect",
            "socket",
            "close",
            "close_range",
            "dup",
            "fcntl",
            "openat",
            "openat2",
            "fstat",
            "newfstatat",
            "statx",
            "rt_sigaction",
            "rt_sigprocmask",
            "prctl",
            "capset",
            "setresuid",
            "setresgid",
            "setgroups",
            "chdir",
            "getcwd",
            "access",
            "faccessat",
            "ioctl",
            "brk",
            "mmap",
            "munmap",
            "poll",
            "ppoll",
            "pidfd_getfd",
            "seccomp",
            "getppid",
            "execve",
            "umask",
            "futex",
            "exit_group",
        ],
    );
    for no_new_privileges in [true, false] {
        c.set("/process/noNewPrivileges", no_new_privileges).set("/process/user", json!({ "uid": 7, "gid": 7 }));
        c.args(&["syscall", &libc::SYS_getppid.to_string()]);
        assert_eq!(c.run().ok().stdout, "4242\n");
        c.args(&["sleep-forever"]);
        c.create().ok();
        c.start().ok();
        let words = ["exec", &c.id, "/guest", "syscall", &libc::SYS_getppid.to_string()];
        assert_eq!(c.tare(&words).ok().stdout, "4242\n");
        c.delete_force().ok();
    }
    assert_eq!(agent.count(libc::SYS_execve), 6);
});

container_test!(an_agent_that_leaves_is_enosys, |c| {
    let agent = Agent::start(&c.path("agent"), |_| Answer::Leave);
    notify(c, &["getppid"]);
    c.args(&["all", "syscall", &libc::SYS_getppid.to_string(), ",", "syscall", &libc::SYS_getppid.to_string()]);
    assert_eq!(c.run().ok().stdout, "ENOSYS\nENOSYS\n");
    assert_eq!(agent.count(libc::SYS_getppid), 1);
});

container_test!(the_program_holds_no_listener, |c| {
    let agent = agent(c);
    notify(c, &["getppid"]);
    let facts = c.facts();
    assert_eq!(facts["fds"].as_object().unwrap().len(), 3, "{}", facts["fds"]);
    assert_eq!((&facts["status"]["Seccomp"], agent.messages(1).len()), (&json!("2"), 1));
});

// The process keeps no listener of its own: it would wait for an answer of nobody.
container_test!(an_agent_that_is_gone_when_the_program_is_executed, |c| {
    skip_for_runc!(c, "start succeeds, and the container is stopped");
    let first = agent(c);
    notify(c, &["execve"]);
    c.create().ok();
    drop(first);
    c.start().exits(1).has("ENOSYS");
});

container_test!(no_agent, |c| {
    skip_for_runc!(c, "its words are others");
    notify(c, &["getppid"]);
    fs::write(c.path("file"), "").unwrap();
    for (name, why) in [("agent", "ENOENT"), ("file", "ECONNREFUSED")] {
        let path = c.path(name);
        c.set("/linux/seccomp/listenerPath", json!(path));
        for output in [c.create(), c.run()] {
            output.fails(&["config.json: /linux/seccomp/listenerPath: ", path.to_str().unwrap(), why]);
            c.assert_clean();
        }
    }
    // Gone when `exec` needs it; the container stays as it is.
    c.set("/linux/seccomp/listenerPath", json!(c.path("agent"))).args(&["sleep-forever"]);
    let agent = agent(c);
    c.detach().ok();
    drop(agent);
    c.tare(&["exec", &c.id, "/guest", "true"]).exits(255).has("/linux/seccomp/listenerPath").has("ENOENT");
    assert_eq!(c.status(), "running");
});

container_test!(what_cannot_be_notified_is_an_error, |c| {
    skip_for_runc!(c, "its words are others");
    let agent = agent(c);
    notify(c, &["getppid"]);
    let good = c.config.clone();
    for (pointer, value, part) in [
        ("/linux/seccomp/defaultAction", json!("SCMP_ACT_NOTIFY"), "cannot be used as default action"),
        ("/linux/seccomp/listenerPath", json!(""), "is not set"),
        ("/linux/seccomp/listenerPath", json!("agent"), "expected the absolute path"),
        ("/linux/seccomp/syscalls/0/errnoRet", json!(1), "has no meaning with SCMP_ACT_NOTIFY"),
    ] {
        c.config = good.clone();
        c.set(pointer, value);
        c.create().fails(&[&format!("config.json: {pointer}: "), part]);
        c.assert_clean();
    }
    c.config = good.clone();
    c.set("/linux/seccomp/syscalls/0/action", "SCMP_ACT_LOG").remove("/linux/seccomp/listenerPath");
    c.create().fails(&["config.json: /linux/seccomp/listenerMetadata: "]);
    assert_eq!(agent.messages(0).len(), 0);
});

container_test!(a_listener_that_nothing_needs_is_left_alone, |c| {
    notify(c, &["getppid"]);
    c.set("/linux/seccomp/syscalls/0/action", "SCMP_ACT_ERRNO");
    assert_eq!(c.prints(&["syscall", &libc::SYS_getppid.to_string()]), "EPERM\n");
});

// Stopping a process interrupts its system call, and the agent is asked anew; not with this flag.
container_test!(a_call_that_waits_killable_is_asked_once, |c| {
    skip_for_runc!(c, "1.1 knows no flags");
    let mut asked = |flags: Value| {
        let go = Arc::new(AtomicBool::new(false));
        let gone = go.clone();
        let agent = Agent::start(&c.path("agent"), move |nr| {
            // Not for ever, should the test fail meanwhile.
            let end = Instant::now() + Duration::from_secs(10);
            while nr == libc::SYS_getppid && !gone.load(Ordering::Relaxed) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(2));
            }
            answers(nr)
        });
        notify(c, &["getppid"]);
        c.set("/linux/seccomp/flags", flags).args(&["syscall", &libc::SYS_getppid.to_string()]);
        c.detach().ok();
        eventually("the agent is asked", || agent.count(libc::SYS_getppid) == 1);
        let pid = c.pid();
        kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
        // With the flag the signal waits until the call is answered.
        std::thread::sleep(Duration::from_millis(100));
        kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        go.store(true, Ordering::Relaxed);
        c.wait_status("stopped");
        c.delete().ok();
        agent.count(libc::SYS_getppid)
    };
    assert_eq!(asked(json!([])), 2);
    assert_eq!(asked(json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])), 1);
});

container_test!(a_hook_that_runs_inside_is_answered, |c| {
    skip_for_runc!(c, "1.1 needs write allowed");
    let agent = agent(c);
    notify(c, &["getppid"]);
    let args = ["guest", "syscall", &libc::SYS_getppid.to_string()];
    c.set("/hooks", json!({ "startContainer": [{ "path": "/guest", "args": args }] }));
    c.args(&["true"]);
    c.run().ok();
    assert_eq!((agent.count(libc::SYS_getppid), agent.messages(1).len()), (1, 1));
});

container_test!(a_large_state_is_sent_whole, |c| {
    skip_for_runc!(c, "1.1 sends no annotations");
    let agent = agent(c);
    notify(c, &["getppid"]);
    let text = "x".repeat(400_000);
    c.set("/annotations", json!({ "large": text })).args(&["syscall", &libc::SYS_getppid.to_string()]);
    assert_has(c.run().ok().stdout, "4242");
    assert_eq!(agent.messages(1).pop().unwrap().0["state"]["annotations"]["large"], text);
});
