//! Containers of a pod: their life, their logs and what runs in them besides.

use std::fs;
use std::path::Path;

use k8s_cri::v1::{
    AttachRequest, ContainerState, ExecRequest, KeyValue, ListContainersRequest, ReopenContainerLogRequest,
};
use tonic::Code;

use crate::cri::{Cri, within};
use crate::stream::Stream;

pub fn lifecycle(cri: &Cri) {
    let pod = cri.pod("life");
    let one = pod.create(pod.config("one", &["sleep", "1000"])).expect("CreateContainer");
    assert_eq!(one.status().state(), ContainerState::ContainerCreated);
    one.start().expect("StartContainer");
    let status = one.status();
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    assert!(status.started_at > 0);
    assert!(Path::new(&format!("/proc/{}", one.pid())).exists());
    let listed = cri.call(async |api| api.list_containers(ListContainersRequest::default()).await);
    assert!(listed.expect("ListContainers").containers.iter().any(|container| container.id == one.id));
    one.stop(0);
    let status = one.wait();
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    assert!(status.finished_at >= status.started_at);
    one.remove();
    one.remove();
    pod.remove();
}

pub fn stop(cri: &Cri) {
    let pod = cri.pod("stop-one");
    let obeys = "trap 'echo bye; exit 4' TERM; echo ready; while :; do sleep 0.1; done";
    let one = pod.start(pod.config("one", &["sh", "-c", obeys]));
    within(5, "the trap", || (one.logged("stdout") == "ready\n").then_some(()));
    one.stop(20);
    assert_eq!(one.wait().exit_code, 4);
    within(5, "the log", || (one.logged("stdout") == "ready\nbye\n").then_some(()));
    one.stop(20);
    let deaf = pod.start(pod.config("deaf", &["sh", "-c", "trap '' TERM; sleep 1000"]));
    deaf.stop(1);
    assert_eq!(deaf.wait().exit_code, 137);
    pod.remove();
}

pub fn restart(cri: &Cri) {
    let pod = cri.pod("restart");
    let mut config = pod.config("one", &["sh", "-c", "echo attempt; exit 3"]);
    for attempt in 0..3 {
        config.metadata.as_mut().expect("metadata").attempt = attempt;
        config.log_path = format!("one_{attempt}.log");
        let one = pod.start(config.clone());
        let status = one.wait();
        assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
        within(5, "the log", || (one.logged("stdout") == "attempt\n").then_some(()));
        // The kubelet keeps the last one for `kubectl logs --previous`.
        if attempt > 0 {
            one.remove();
        }
    }
    let (status, ..) = pod.run(pod.config("two", &["true"]));
    assert_eq!(status, 0);
    pod.remove();
}

pub fn removed_while_running(cri: &Cri) {
    let pod = cri.pod("removed");
    let one = pod.idle("one");
    let pid = one.pid();
    one.remove();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    pod.remove();
}

pub fn never_started(cri: &Cri) {
    let pod = cri.pod("never");
    let one = pod.create(pod.config("one", &["true"])).expect("CreateContainer");
    one.remove();
    let _kept = pod.create(pod.config("two", &["true"])).expect("CreateContainer");
    pod.remove();
}

pub fn start_errors(cri: &Cri) {
    let pod = cri.pod("errors");
    for (name, program, message, code) in [
        ("missing", "nonesuch", "exec: \"nonesuch\": executable file not found in $PATH", 128),
        ("absent", "/nonesuch", "/nonesuch: no such file or directory", 128),
        ("not-a-program", "/etc/passwd", "permission denied", 128),
    ] {
        let one = pod.create(pod.config(name, &[program])).expect("CreateContainer");
        let error = one.start().expect_err(program);
        let text = error.message().replace("\\\"", "\"").replace("\": no such", ": no such");
        assert!(text.contains(message), "{text}");
        assert!(!text.contains("unable to retrieve OCI runtime error"), "{text}");
        // What `kubectl describe` shows.
        let status = one.status();
        assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, code), "{status:?}");
        assert_eq!(status.reason, "StartError");
        assert_eq!(
            status.message,
            error
                .message()
                .split_once("failed to create")
                .map_or(String::new(), |(_, rest)| { format!("failed to create{rest}") })
        );
        one.remove();
    }
    pod.remove();
}

pub fn options(cri: &Cri) {
    let pod = cri.pod("options");
    let mut config = pod.config("one", &["sh", "-c"]);
    config.args = vec!["echo $A; pwd; echo $PATH".into()];
    config.envs = vec![KeyValue { key: "A".into(), value: "with = and space".into() }];
    config.working_dir = "/made/by/the/runtime".into();
    let (status, stdout, stderr) = pod.run(config);
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert_eq!(stdout, "with = and space\n/made/by/the/runtime\n/bin\n");
    pod.remove();
}

pub fn tty(cri: &Cri) {
    let pod = cri.pod("tty");
    let mut config = pod.config("one", &["sh", "-c", "tty; test -t 0 && test -t 2 && echo terminal"]);
    config.tty = true;
    let (status, stdout, _) = pod.run(config);
    assert_eq!((status, stdout.replace('\r', "").as_str()), (0, "/dev/pts/0\nterminal\n"));
    pod.remove();
}

pub fn logs(cri: &Cri) {
    let pod = cri.pod("logs");
    // What a program writes right before its end is in the log, too.
    let script = "echo one; echo two >&2; printf partial; printf more";
    for number in 0..5 {
        let (_, stdout, stderr) = pod.run(pod.config(&format!("n{number}"), &["sh", "-c", script]));
        assert_eq!((stdout.as_str(), stderr.as_str()), ("one\npartialmore", "two\n"));
    }
    pod.remove();
}

pub fn logs_reopened(cri: &Cri) {
    let pod = cri.pod("reopened");
    let one = pod.start(pod.config("one", &["sh", "-c", "while :; do echo tick; sleep 0.1; done"]));
    within(5, "a log", || one.logged("stdout").contains("tick").then_some(()));
    fs::rename(&one.log, one.log.with_extension("old")).expect("rotation");
    let request = ReopenContainerLogRequest { container_id: one.id.clone() };
    cri.call(async |api| api.reopen_container_log(request).await).expect("ReopenContainerLog");
    within(5, "a new log", || one.logged("stdout").contains("tick").then_some(()));
    pod.remove();
}

pub fn exec_sync(cri: &Cri) {
    let pod = cri.pod("exec");
    let mut config = pod.config("one", &["sleep", "1000"]);
    config.envs = vec![KeyValue { key: "A".into(), value: "b".into() }];
    config.working_dir = "/tmp".into();
    let one = pod.start(config);
    let (status, stdout, stderr) =
        one.try_exec(&["sh", "-c", "echo $A; pwd; echo err >&2; exit 6"], 10).expect("ExecSync");
    assert_eq!((status, stdout.as_str(), stderr.as_str()), (6, "b\n/tmp\n", "err\n"));
    // In the container's namespaces and cgroups.
    assert_eq!(one.sh("ps -o args | grep -c 'sleep 100[0]'"), "1");
    assert_eq!(one.sh("cat /proc/1/cgroup"), one.sh("cat /proc/self/cgroup"));
    let (status, ..) = one.try_exec(&["sh", "-c", "kill -9 $$"], 10).expect("ExecSync");
    assert_eq!(status, 137);
    let (_, large, _) = one.try_exec(&["sh", "-c", "yes | head -c 1000000"], 10).expect("ExecSync");
    assert_eq!(large.len(), 1_000_000);
    pod.remove();
}

pub fn exec_sync_timeout(cri: &Cri) {
    let pod = cri.pod("timeout");
    let one = pod.idle("one");
    let error = one.try_exec(&["sh", "-c", "sleep 777"], 1).expect_err("a timeout");
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    within(5, "its end", || one.sh("ps -o args | grep 'sleep 77[7]' || echo gone").ends_with("gone").then_some(()));
    assert_eq!(one.sh("echo alive"), "alive");
    pod.remove();
}

pub fn exec_sync_errors(cri: &Cri) {
    let pod = cri.pod("exec-errors");
    let one = pod.idle("one");
    let error = one.try_exec(&["nonesuch"], 5).expect_err("no such program");
    let text = error.message().replace("\\\"", "\"");
    assert!(text.contains("exec: \"nonesuch\": executable file not found in $PATH"), "{text}");
    one.stop(0);
    one.wait();
    let error = one.try_exec(&["true"], 5).expect_err("a stopped container");
    assert!(error.message().contains("is in CONTAINER_EXITED state"), "{error:?}");
    pod.remove();
}

pub fn exec_sync_many(cri: &Cri) {
    let pod = cri.pod("exec-many");
    let one = pod.idle("one");
    let before = fs::read_dir(format!("/proc/{}/task/{0}", one.pid())).map(Iterator::count).unwrap_or(0);
    assert!(before > 0);
    for number in 0..30 {
        assert_eq!(one.sh(&format!("echo {number}")), number.to_string());
    }
    // Probes leave no process behind: the program, and the three that look.
    assert_eq!(one.sh("ls -d /proc/[0-9]* | wc -l"), "4", "{}", one.sh("ps"));
    pod.remove();
}

pub fn exec_stream(cri: &Cri) {
    let pod = cri.pod("stream");
    let one = pod.idle("one");
    let exec = |command: &[&str], stdin: &[u8]| {
        let request = ExecRequest {
            container_id: one.id.clone(),
            cmd: command.iter().map(|&word| word.into()).collect(),
            tty: false,
            stdin: !stdin.is_empty(),
            stdout: true,
            stderr: true,
        };
        let url = cri.call(async |api| api.exec(request).await).expect("Exec").url;
        let mut stream = Stream::open(&url);
        stream.write(stdin);
        stream.to_the_end()
    };
    let seen = exec(&["sh", "-c", "echo out; echo err >&2"], b"");
    assert_eq!((seen.stdout.as_str(), seen.stderr.as_str()), ("out\n", "err\n"));
    assert!(seen.status.contains("Success"), "{}", seen.status);
    let seen = exec(&["sh", "-c", "read line; echo got $line; exit 12"], b"in\n");
    assert_eq!(seen.stdout, "got in\n");
    assert!(seen.status.contains("\"12\""), "{}", seen.status);
    pod.remove();
}

pub fn exec_stream_tty(cri: &Cri) {
    let pod = cri.pod("stream-tty");
    let one = pod.idle("one");
    let request = ExecRequest {
        container_id: one.id.clone(),
        cmd: vec!["sh".into()],
        tty: true,
        stdin: true,
        stdout: true,
        stderr: false,
    };
    let url = cri.call(async |api| api.exec(request).await).expect("Exec").url;
    let mut stream = Stream::open(&url);
    stream.resize(101, 33);
    stream.write(b"tty; sleep 1; stty size; exit 5\n");
    let seen = stream.to_the_end();
    assert!(seen.stdout.contains("/dev/pts/0"), "{}", seen.stdout);
    assert!(seen.stdout.contains("33 101"), "{}", seen.stdout);
    assert!(seen.status.contains("\"5\""), "{}", seen.status);
    pod.remove();
}

pub fn attach(cri: &Cri) {
    let pod = cri.pod("attach");
    let mut config = pod.config("one", &["sh", "-c", "read line; echo got $line"]);
    config.stdin = true;
    config.stdin_once = true;
    let one = pod.start(config);
    let request = AttachRequest { container_id: one.id.clone(), stdin: true, tty: false, stdout: true, stderr: true };
    let url = cri.call(async |api| api.attach(request).await).expect("Attach").url;
    let mut stream = Stream::open(&url);
    stream.write(b"in\n");
    assert_eq!(stream.to_the_end().stdout, "got in\n");
    assert_eq!(one.wait().exit_code, 0);
    pod.remove();
}
