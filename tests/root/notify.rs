//! NOTIFY_SOCKET: the container's words reach the service manager that has started the runtime, and `start` waits.

use std::process::Command;
use std::time::Duration;

use nix::sys::socket::UnixAddr;
use serde_json::json;

use super::exec::line;
use crate::common::manager::Manager;
use crate::common::program::{Output, Running, finish, start};
use crate::common::{Container, assert_has, eventually, host, mountinfo, strings};
use crate::{container_test, skip_for_runc};

/// What ends a start: READY=1, the process that lives on, and a barrier, which is answered.
#[track_caller]
fn hears_ready(manager: &Manager, c: &Container, ready: &str, running: &mut Running) {
    let teller = manager.hears(ready);
    assert_eq!(teller, running.pid(), "the manager knows the runtime only");
    assert_eq!(manager.hears(&format!("MAINPID={}", c.pid())), teller);
    let barrier = manager.hear();
    assert_eq!((barrier.text.as_str(), barrier.fds.len(), barrier.pid), ("BARRIER=1", 1, teller));
    assert_goes_on(running);
}

/// It takes no step without us.
#[track_caller]
pub(super) fn assert_goes_on(running: &mut Running) {
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(running.child.try_wait().unwrap(), None);
}

/// A command of the runtime as a manager starts it.
pub(super) fn command(c: &Container, manager: &str, words: &[&str]) -> Command {
    let mut command = c.command(words);
    command.env("NOTIFY_SOCKET", manager);
    command
}

pub(super) fn by(c: &Container, manager: &str, words: &[&str]) -> Output {
    c.write_config();
    finish(&mut command(c, manager, words), &c.dir)
}

pub(super) fn begin(c: &Container, manager: &str, words: &[&str]) -> Running {
    c.write_config();
    start(&mut command(c, manager, words), &c.dir)
}

/// Lets `wait-file /tmp/go` of the payload go on.
fn go(c: &Container) {
    std::fs::write(c.rootfs().join("tmp/go"), "").unwrap();
}

const PATIENT: [&str; 10] =
    ["all", "notify", "STATUS=early", ",", "wait-file", "/tmp/go", ",", "notify", "STATUS=up|READY=1", ","];

container_test!(start_waits_until_the_container_is_ready, |c| {
    skip_for_runc!(c, "runc passes on neither what comes before nor READY=1 on a second line");
    let manager = Manager::at(&c.path("manager"));
    c.args(&[PATIENT.as_slice(), &["sleep-forever"]].concat());
    by(c, &manager.name, &["create", &c.id]).ok();
    let mut running = begin(c, &manager.name, &["start", &c.id]);
    assert_eq!(manager.hears("STATUS=early"), running.pid());
    assert_goes_on(&mut running);
    assert_eq!(c.status(), "running");
    go(c);
    hears_ready(&manager, c, "STATUS=up\nREADY=1", &mut running);
    // The barrier was let go.
    let output = running.wait().ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    assert!(manager.waiting().is_none());
});

container_test!(a_detached_run_waits_until_the_container_is_ready, |c| {
    skip_for_runc!(c, "runc passes on neither what comes before nor READY=1 on a second line");
    let manager = Manager::at(&c.path("manager"));
    c.args(&[PATIENT.as_slice(), &["sleep-forever"]].concat());
    let mut running = begin(c, &manager.name, &["run", "--detach", &c.id]);
    manager.hears("STATUS=early");
    assert_goes_on(&mut running);
    // Whoever waits keeps nobody out.
    assert_eq!(c.status(), "running");
    go(c);
    hears_ready(&manager, c, "STATUS=up\nREADY=1", &mut running);
    running.wait().ok();
    assert_eq!(c.status(), "running");
});

container_test!(the_manager_says_when_it_has_heard_everything, |c| {
    skip_for_runc!(c, "runc has it since 1.2");
    let manager = Manager::at(&c.path("manager"));
    c.args(&["all", "notify", "READY=1", ",", "sleep-forever"]);
    let mut running = begin(c, &manager.name, &["run", "-d", &c.id]);
    let heard = [manager.hear(), manager.hear(), manager.hear()];
    assert_eq!(heard[2].text, "BARRIER=1");
    assert_goes_on(&mut running);
    drop(heard);
    running.wait().ok();
});

container_test!(a_foreground_run_passes_everything_on, |c| {
    skip_for_runc!(c, "runc passes nothing on after the first message");
    let manager = Manager::at(&c.path("manager"));
    let said =
        ["STATUS=a", "RELOADING=1|MONOTONIC_USEC=5", "WATCHDOG=1", "ERRNO=2|EXIT_STATUS=3", "EXTEND_TIMEOUT_USEC=7"];
    let mut words = vec!["all", "notify", "READY=1", ","];
    said.iter().for_each(|text| words.extend(["notify", text, ","]));
    words.extend(["notify", "READY=1", ",", "notify", "STOPPING=1|STATUS=bye", ",", "exit", "3"]);
    c.args(&words);
    let running = begin(c, &manager.name, &["run", &c.id]);
    let pid = running.pid();
    assert_eq!(manager.hears("READY=1"), pid);
    // The service is this very process, whatever it is that has started it.
    assert_eq!(manager.hears(&format!("MAINPID={pid}")), pid);
    for text in said {
        assert_eq!(manager.hears(&text.replace('|', "\n")), pid);
    }
    manager.hears("READY=1");
    running.wait().exits(3);
    // The very last words, too.
    manager.hears("STOPPING=1\nSTATUS=bye");
    assert!(manager.waiting().is_none());
});

container_test!(the_containers_own_numbers_are_put_right, |c| {
    skip_for_runc!(c, "runc drops them");
    let manager = Manager::at(&c.path("manager"));
    c.args(&["all", "notify", "MAINPID=1|MAINPIDFDID=5|STATUS=x", ",", "notify", "MAINPID=77"]);
    let running = begin(c, &manager.name, &["run", &c.id]);
    let pid = running.pid();
    manager.hears(&format!("MAINPID={pid}\nSTATUS=x"));
    manager.hears(&format!("MAINPID={pid}"));
    running.wait().ok();
});

container_test!(a_barrier_of_the_containers_is_the_managers_to_lift, |c| {
    skip_for_runc!(c, "runc drops it");
    let manager = Manager::at(&c.path("manager"));
    c.args(&["all", "notify", "STATUS=x", ",", "notify-barrier"]);
    let mut running = begin(c, &manager.name, &["run", &c.id]);
    manager.hears("STATUS=x");
    let barrier = manager.hear();
    assert_eq!((barrier.text.as_str(), barrier.fds.len()), ("BARRIER=1", 1));
    running.wait_for("sent");
    std::thread::sleep(Duration::from_millis(100));
    assert!(!running.printed().contains("released"));
    drop(barrier);
    assert_has(running.wait().ok().stdout, "released");
});

container_test!(the_socket_is_one_of_its_own, |c| {
    let manager = Manager::at(&c.path("manager"));
    c.push("/process/env", json!("NOTIFY_SOCKET=/of/the/config"));
    let look = ["all", "facts", ",", "stat", "/run/notify/notify.sock", ",", "ls", "/run/notify"];
    // runc waits for ever for one that ends without a word.
    c.args(&[look.as_slice(), &[",", "notify", "READY=1"]].concat());
    let output = by(c, &manager.name, &["run", &c.id]).ok();
    let facts: serde_json::Value = serde_json::from_str(output.stdout.lines().next().unwrap()).unwrap();
    let told: Vec<String> =
        strings(&facts["env"]).into_iter().filter(|entry| entry.starts_with("NOTIFY_SOCKET")).collect();
    assert_eq!(told.last().unwrap(), "NOTIFY_SOCKET=/run/notify/notify.sock");
    let mount = mountinfo::at(&facts, "/run/notify");
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(mount.has(option), "{mount:?}");
    }
    assert_has(&output.stdout, "/run/notify/notify.sock sock 777 ");
    assert_has(&output.stdout, "\nnotify.sock\n");
});

container_test!(any_user_of_a_read_only_container_reaches_it, |c| {
    skip_for_runc!(c, "runc 1.1 has no barrier");
    let manager = Manager::at(&c.path("manager"));
    super::userns::map(c);
    c.set("/root/readonly", true);
    c.set("/process/user", json!({ "uid": 1000, "gid": 1000, "umask": 0o77 }));
    c.args(&["notify", "READY=1"]);
    let prefix = [crate::common::guest().to_str().unwrap(), "with", "umask=077", "--"];
    c.write_config();
    let mut command = c.command_by(&prefix, &["run", &c.id]);
    finish(command.env("NOTIFY_SOCKET", &manager.name), &c.dir).ok();
    manager.hears("READY=1");
});

container_test!(the_managers_socket_may_be_abstract, |c| {
    let name = format!("tare-test/{}", c.dir.display());
    let manager = Manager::bind(&UnixAddr::new_abstract(name.as_bytes()).unwrap(), &format!("@{name}"));
    c.args(&["notify", "READY=1"]);
    by(c, &manager.name, &["run", &c.id]).ok();
    assert_eq!(manager.hear().text.trim_end(), "READY=1");
});

container_test!(the_managers_path_may_be_long, |c| {
    skip_for_runc!(c, "its path must fit");
    let folder = c.path(&"long".repeat(40));
    std::fs::create_dir(&folder).unwrap();
    let manager = Manager::at(&c.path("manager"));
    std::fs::rename(c.path("manager"), folder.join("manager")).unwrap();
    c.args(&["notify", "READY=1"]);
    by(c, folder.join("manager").to_str().unwrap(), &["run", &c.id]).ok();
    manager.hears("READY=1");
});

container_test!(a_manager_that_starts_again_is_found_again, |c| {
    skip_for_runc!(c, "runc passes on one message");
    let manager = Manager::at(&c.path("manager"));
    c.args(&["all", "notify", "STATUS=1", ",", "wait-file", "/tmp/go", ",", "notify", "STATUS=2"]);
    let running = begin(c, &manager.name, &["run", &c.id]);
    manager.hears("STATUS=1");
    drop(manager);
    std::fs::remove_file(c.path("manager")).unwrap();
    let manager = Manager::at(&c.path("manager"));
    go(c);
    manager.hears("STATUS=2");
    running.wait().ok();
});

container_test!(a_manager_that_does_not_listen_stops_nothing, |c| {
    skip_for_runc!(c, "runc passes on one message");
    // More than fit into both sockets: the payload waits, the runtime doesn't.
    let manager = Manager::at(&c.path("manager"));
    let mut words = vec!["all"];
    (0..60).for_each(|_| words.extend(["notify", "STATUS=x", ","]));
    words.push("sleep-forever");
    c.args(&words);
    let running = begin(c, &manager.name, &["run", &c.id]);
    eventually("it runs", || c.tare(&["state", &c.id]).stdout.contains("\"running\""));
    // When everything that finds room has been passed on.
    eventually("no busy loop", || {
        let before = host::cpu_time(running.pid());
        std::thread::sleep(Duration::from_millis(200));
        host::cpu_time(running.pid()) - before < Duration::from_millis(50)
    });
    c.kill(&["KILL"]).ok();
    let begin = std::time::Instant::now();
    running.wait().exits(137);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    manager.hears("STATUS=x");
});

container_test!(exec_has_nothing_to_notify, |c| {
    let manager = Manager::at(&c.path("manager"));
    c.args(&["all", "notify", "READY=1", ",", "sleep-forever"]);
    hear_all(&manager, &mut begin(c, &manager.name, &["run", "-d", &c.id]));
    for flags in [["--env", "A=1"], ["--user", "0"]] {
        let facts =
            finish(command(c, &manager.name, &line(c, &flags, &["facts"])).env("LEAK", "1"), &c.dir).ok().json();
        assert!(!facts["env"].to_string().contains("NOTIFY"), "{}", facts["env"]);
    }
    finish(&mut command(c, &manager.name, &line(c, &["-d"], &["true"])), &c.dir).ok();
    assert!(manager.waiting().is_none());
});

/// Hears whatever is said until a command has ended.
fn hear_all(manager: &Manager, running: &mut Running) {
    eventually("the command ends", || {
        drop(manager.waiting());
        running.child.try_wait().unwrap().is_some()
    });
    while manager.waiting().is_some() {}
}

container_test!(nothing_is_there_without_a_manager, |c| {
    c.args(&["all", "facts", ",", "ls", "/run"]);
    for empty in [None, Some("")] {
        c.write_config();
        let mut command = c.command(&["run", &c.id]);
        command.envs(empty.map(|value| ("NOTIFY_SOCKET", value)));
        let output = finish(&mut command, &c.dir);
        assert!(!output.stdout.contains("otify"), "{output}");
        assert_has(&output.stdout, "ls /run: ENOENT");
        assert!(!c.rootfs().join("run").exists());
    }
});

container_test!(a_start_without_a_manager_does_not_wait, |c| {
    // As runc: the folder is there, the socket isn't.
    let manager = Manager::at(&c.path("manager"));
    c.args(&["all", "ls", "/run/notify", ",", "notify", "READY=1", ",", "sleep-forever"]);
    c.write_config();
    let mut create = start(&mut command(c, &manager.name, &["create", &c.id]), &c.dir);
    eventually("created", || create.child.try_wait().unwrap().is_some());
    c.start().ok();
    eventually("it has tried", || create.printed().contains("notify READY=1: ENOENT"));
    assert!(manager.waiting().is_none());
});

container_test!(its_socket_closes_when_the_container_is_ready, |c| {
    let manager = Manager::at(&c.path("manager"));
    c.args(&["all", "notify", "READY=1", ",", "wait-file", "/tmp/go", ",", "notify", "STATUS=x", ",", "sleep-forever"]);
    let mut running = begin(c, &manager.name, &["run", "-d", &c.id]);
    hear_all(&manager, &mut running);
    go(c);
    // ECONNREFUSED: a payload whose words nobody passes on is told so.
    eventually("it has tried", || running.printed().contains("notify STATUS=x: errno 111"));
    assert!(manager.waiting().is_none());
});
