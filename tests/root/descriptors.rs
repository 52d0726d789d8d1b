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
    let output = inherited_output(c, &["--preserve-fds", "7"]);
    match output.code {
        0 => assert_eq!(names(&output.json()), ["3:three", "4:four", "5:five", "9:nine"]),
        _ => drop(output.fails(&["preserve-fds"])),
    }
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
        let told: Vec<_> = env.iter().filter(|entry| entry.starts_with("LISTEN_")).collect();
        assert_eq!(told, ["LISTEN_FDS=2", "LISTEN_PID=1", "LISTEN_FDNAMES=a:b"]);
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
