//! Descriptors: what comes in, what must not, and the sockets that get some.

use std::os::unix::net::UnixListener;

use serde_json::Value;

use crate::common::program::{finish, guest};
use crate::common::{Container, pty};
use crate::{container_test, skip_for_runc};

/// Runs the probe's `facts` under a runtime that inherits descriptors 3, 4, 5 and 9; returns those seen inside.
fn inherited(c: &mut Container, flags: &[&str]) -> Vec<String> {
    names(&inherited_output(c, flags).ok().json())
}

/// `FD:NAME` of the descriptors above 2.
pub(super) fn names(facts: &Value) -> Vec<String> {
    let fds = facts["fds"].as_object().unwrap();
    let above = fds.iter().filter(|(fd, _)| fd.parse::<i32>().unwrap() > 2);
    let mut names: Vec<String> =
        above.map(|(fd, link)| format!("{fd}:{}", link.as_str().unwrap().rsplit('/').next().unwrap())).collect();
    names.sort();
    names
}

container_test!(nothing_but_the_first_three_comes_in, |c| {
    assert_eq!(inherited(c, &[]), Vec::<String>::new());
});

container_test!(preserved_ones_keep_their_numbers, |c| {
    assert_eq!(inherited(c, &["--preserve-fds", "2"]), ["3:three", "4:four"]);
    assert_eq!(inherited(c, &["--preserve-fds=3"]), ["3:three", "4:four", "5:five"]);
    assert_eq!(inherited(c, &["--preserve-fds", "0"]), Vec::<String>::new());
});

container_test!(no_descriptor_of_the_runtime_is_handed_out, |c| {
    skip_for_runc!(c, "runc hands out its own where the caller's are missing");
    // 6 to 8 aren't open: whatever the runtime opens there is not for the container.
    // As Podman asks for descriptor 9 alone.
    assert_eq!(inherited(c, &["--preserve-fds", "7"]), ["3:three", "4:four", "5:five", "9:nine"]);
});

fn inherited_output(c: &mut Container, flags: &[&str]) -> crate::common::Output {
    c.args(&["facts"]);
    c.write_config();
    for name in ["three", "four", "five", "nine"] {
        std::fs::write(c.path(name), "").unwrap();
    }
    let option = |fd: i32, name: &str| format!("open={fd}:{}", c.path(name).display());
    let mut words = vec!["run"];
    words.extend(flags);
    words.push(&c.id);
    let options = [option(3, "three"), option(4, "four"), option(5, "five"), option(9, "nine")];
    let mut prefix = vec![guest().to_str().unwrap(), "with"];
    prefix.extend(options.iter().map(String::as_str));
    // What the test runner's own parents have left open is not this test's business.
    let close: Vec<String> = (6..9).chain(10..30).map(|fd| format!("close={fd}")).collect();
    prefix.extend(close.iter().map(String::as_str));
    prefix.push("--");
    finish(&mut c.command_by(&prefix, &words), &c.dir)
}

container_test!(the_standard_ones_are_the_callers_own, |c| {
    // Not a copy through a pipe of the runtime: an engine waits for the end of what it has given.
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let log = std::fs::read_link(format!("/proc/{}/fd/1", c.pid())).unwrap();
    assert!(log.starts_with(&c.dir), "{log:?}");
});

container_test!(a_folder_of_the_host_does_not_come_in, |c| {
    c.args(&["facts"]);
    c.write_config();
    let prefix = [guest().to_str().unwrap(), "with", "open=7:/", "open=8:/sys/fs/cgroup", "--"];
    let facts = finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir).ok().json();
    assert_eq!(names(&facts), Vec::<String>::new());
});

container_test!(a_created_container_holds_no_path_to_the_host, |c| {
    c.create().ok();
    // While it waits: descriptors that are folders could be used by a process that joins it.
    let folder = format!("/proc/{}/fd", c.pid());
    for entry in std::fs::read_dir(&folder).unwrap().flatten() {
        let meta = std::fs::metadata(entry.path());
        let link = std::fs::read_link(entry.path()).unwrap();
        assert!(!meta.is_ok_and(|m| m.is_dir()), "{link:?}");
    }
});

container_test!(the_pidfd_socket_gets_a_pidfd, |c| {
    skip_for_runc!(c, "runc has it since 1.2");
    c.args(&["sleep-forever"]);
    let listener = UnixListener::bind(c.path("pidfd")).unwrap();
    let socket = c.path("pidfd");
    c.create_with(&["--pidfd-socket", socket.to_str().unwrap()]).ok();
    let (_, fd) = pty::receive(&listener);
    use std::os::fd::AsRawFd;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).expect("a pidfd").trim().to_owned();
    assert_eq!(pid, c.pid().to_string());
});

container_test!(a_pidfd_socket_that_is_not_there_is_an_error, |c| {
    skip_for_runc!(c, "runc has it since 1.2");
    c.create_with(&["--pidfd-socket", "/no/such/socket"]).fails(&["/no/such/socket"]);
    c.assert_clean();
});

container_test!(sockets_of_systemd_come_in_with_their_variables, |c| {
    c.args(&["facts"]);
    c.write_config();
    std::fs::write(c.path("three"), "").unwrap();
    std::fs::write(c.path("four"), "").unwrap();
    let options = [("3", "three"), ("4", "four")].map(|(fd, name)| format!("open={fd}:{}", c.path(name).display()));
    let prefix = [guest().to_str().unwrap(), "with", &options[0], &options[1], "listen=1", "--"];
    let run = |words: &[&str]| finish(&mut c.command_by(&prefix, words), &c.dir).ok().json();
    let facts = run(&["run", &c.id]);
    assert_eq!(names(&facts), ["3:three"]);
    let env = facts["env"].to_string();
    assert!(env.contains("\"LISTEN_FDS=1\"") && env.contains("\"LISTEN_PID=1\""), "{env}");
    assert_eq!(names(&run(&["run", "--preserve-fds", "1", &c.id])), ["3:three", "4:four"]);
});

container_test!(variables_of_systemd_for_another_process_mean_nothing, |c| {
    c.args(&["facts"]);
    c.write_config();
    std::fs::write(c.path("three"), "").unwrap();
    let option = format!("open=3:{}", c.path("three").display());
    let mut command = c.command_by(&[guest().to_str().unwrap(), "with", &option, "--"], &["run", &c.id]);
    let facts = finish(command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1"), &c.dir).ok().json();
    assert_eq!(names(&facts), Vec::<String>::new());
    assert!(!facts["env"].to_string().contains("LISTEN_"), "{}", facts["env"]);
});

container_test!(sockets_of_systemd_come_in_by_every_command, |c| {
    skip_for_runc!(c, "runc 1.1 loses them between create and start");
    for name in ["three", "four"] {
        std::fs::write(c.path(name), "").unwrap();
    }
    let options = [("3", "three"), ("4", "four")].map(|(fd, name)| format!("open={fd}:{}", c.path(name).display()));
    let prefix = [guest().to_str().unwrap(), "with", &options[0], &options[1], "listen=2", "--"];
    let by_systemd = |words: &[&str]| finish(c.command_by(&prefix, words).env("LISTEN_FDNAMES", "a:b"), &c.dir).ok();
    let assert_told = |facts: &Value| {
        assert_eq!(names(facts), ["3:three", "4:four"]);
        let env = crate::common::strings(&facts["env"]);
        let told: Vec<_> = env.iter().filter(|entry| entry.starts_with("LISTEN_")).cloned().collect();
        // sd_listen_fds(3) takes none that are another process's.
        assert_eq!(told, ["LISTEN_FDS=2", "LISTEN_FDNAMES=a:b", &format!("LISTEN_PID={}", facts["pid"])]);
    };
    let mut config = c.config.clone();
    let write = |config: &Value| std::fs::write(c.bundle().join("config.json"), config.to_string()).unwrap();
    config["process"]["args"] = serde_json::json!(["/guest", "facts"]);
    write(&config);
    assert_told(&by_systemd(&["run", &c.id]).json());
    // The one that creates passes them: `start` may be another's.
    config["process"]["args"] = serde_json::json!(["/guest", "all", "facts", ",", "sleep-forever"]);
    write(&config);
    let mut create =
        crate::common::program::start(c.command_by(&prefix, &["create", &c.id]).env("LISTEN_FDNAMES", "a:b"), &c.dir);
    crate::common::eventually("created", || c.tare(&["state", &c.id]).stdout.contains("\"created\""));
    finish(c.command(&["start", &c.id]).env("LISTEN_FDNAMES", "not:these"), &c.dir).ok();
    crate::common::eventually("the payload has told", || create.printed().contains("ready"));
    assert_told(&serde_json::from_str(create.printed().lines().next().unwrap()).unwrap());
    assert_told(&by_systemd(&super::exec::line(c, &[], &["facts"])).json());
    // Without the variables it is an exec as any other.
    assert_eq!(names(&super::exec::facts(c, &[])), Vec::<String>::new());
});

container_test!(a_listener_finds_its_own_number, |c| {
    skip_for_runc!(c, "runc says 1");
    std::fs::write(c.path("three"), "").unwrap();
    let option = format!("open=3:{}", c.path("three").display());
    let prefix = [guest().to_str().unwrap(), "with", &option, "listen=1", "--"];
    let assert_own = |facts: &Value| {
        let own = format!("LISTEN_PID={}", facts["pid"]);
        let env = crate::common::strings(&facts["env"]);
        assert_eq!(env.iter().filter(|entry| entry.starts_with("LISTEN_PID=")).collect::<Vec<_>>(), [&own]);
        assert_eq!(names(facts), ["3:three"]);
        facts["pid"].as_i64().unwrap()
    };
    let run = |c: &Container, words: &[&str]| finish(&mut c.command_by(&prefix, words), &c.dir).ok().json();
    // What config.json says of it is another listener's.
    c.args(&["facts"]).push("/process/env", serde_json::json!("LISTEN_PID=77"));
    c.write_config();
    assert_eq!(assert_own(&run(c, &["run", &c.id])), 1);
    // In the pid namespace of the caller.
    c.set("/linux/namespaces", serde_json::json!([{ "type": "mount" }]));
    c.set("/linux/maskedPaths", serde_json::json!([])).set("/linux/readonlyPaths", serde_json::json!([]));
    c.write_config();
    assert!(assert_own(&run(c, &["run", &c.id])) > 1);
});

container_test!(an_exec_is_another_listener, |c| {
    super::exec::sleep(c);
    std::fs::write(c.path("three"), "").unwrap();
    let option = format!("open=3:{}", c.path("three").display());
    let prefix = [guest().to_str().unwrap(), "with", &option, "listen=1", "--"];
    let words = super::exec::line(c, &[], &["facts"]);
    let facts = finish(&mut c.command_by(&prefix, &words), &c.dir).ok().json();
    assert_ne!(facts["pid"], 1);
    assert!(facts["env"].to_string().contains(&format!("\"LISTEN_PID={}\"", facts["pid"])), "{}", facts["env"]);
});

/// A listening socket at an abstract address of this test's own.
fn abstract_listener(name: &str) -> UnixListener {
    use std::os::linux::net::SocketAddrExt;
    UnixListener::bind_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap()).unwrap()
}

container_test!(every_socket_may_be_abstract, |c| {
    skip_for_runc!(c, "1.1 has no pidfd socket");
    let name = |what: &str| format!("tare-test/{}/{what}", c.dir.display());
    let (console, pidfd) = (format!("@{}", name("console")), format!("@{}", name("pidfd")));
    let listeners = [abstract_listener(&name("console")), abstract_listener(&name("pidfd"))];
    let received = || {
        let [master, pidfd] = listeners.each_ref().map(|listener| pty::receive(listener).1);
        use std::os::fd::AsRawFd;
        let link = |fd: &std::os::fd::OwnedFd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        assert!(link(&master).ends_with("ptmx"), "{:?}", link(&master));
        assert!(link(&pidfd).to_string_lossy().contains("pidfd"), "{:?}", link(&pidfd));
        master
    };
    let agent = crate::common::agent::Agent::at_name(&name("agent"), |_| crate::common::agent::Answer::Value(4242));
    let seccomp = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": format!("@{}", name("agent")),
        "syscalls": [{ "names": ["getppid"], "action": "SCMP_ACT_NOTIFY" }],
    });
    c.set("/linux/seccomp", seccomp).set("/process/terminal", true).args(&["sleep-forever"]);
    let flags = ["--console-socket", &console, "--pidfd-socket", &pidfd];
    c.create_with(&flags).ok();
    let _master = received();
    c.start().ok();
    let words = [["exec", "-d", "--tty"].as_slice(), &flags, &[&c.id, "/guest", "sleep-forever"]].concat();
    c.tare(&words).ok();
    let _other = received();
    assert_eq!(agent.messages(2).len(), 2);
    c.delete_force().ok();
    // Nobody is there.
    c.create_with(&["--console-socket", "@tare-test/none"])
        .fails(&["--console-socket: \"@tare-test/none\": ", "ECONNREFUSED"]);
    c.create_with(&["--console-socket", &console, "--pidfd-socket", "@tare-test/none"])
        .fails(&["--pidfd-socket: \"@tare-test/none\": ", "ECONNREFUSED"]);
    c.set("/linux/seccomp/listenerPath", "@tare-test/none");
    c.create_with(&["--console-socket", &console])
        .fails(&["config.json: /linux/seccomp/listenerPath: \"@tare-test/none\": ", "ECONNREFUSED"]);
    c.assert_clean();
});
