#![allow(clippy::disallowed_methods)] // the scripted bus is a thread of the test

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use super::*;

/// What the scripted bus does with the next call of a method.
enum Answer {
    Return(Vec<Value>),
    Fault(&'static str),
    /// Signals first, then the answer: a job may be over before its answer is read.
    After(Vec<Message>, Vec<Value>),
    Silence,
    HangUp,
}
use Answer::{After, HangUp, Return, Silence};

const JOB: &str = "/org/freedesktop/systemd1/job/7";

/// A bus with a script: which calls come, in this order, and what is done then. It ends with the connection.
struct Server {
    thread: JoinHandle<Vec<Message>>,
}

impl Server {
    fn start(script: Vec<(&'static str, Answer, Vec<Message>)>) -> (Manager, Self) {
        let (client, server) = UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || serve(server, script));
        let until = Instant::now() + Duration::from_secs(5);
        let connection = Connection::greet(client.into(), &[JOB_REMOVED], until).unwrap();
        (Manager::new(connection, Bus::User, Duration::from_millis(300)), Self { thread })
    }

    /// The calls that came, when the client has closed.
    fn calls(self, manager: Manager) -> Vec<Message> {
        drop(manager);
        self.thread.join().unwrap()
    }
}

fn serve(mut stream: UnixStream, script: Vec<(&'static str, Answer, Vec<Message>)>) -> Vec<Message> {
    let (mut input, mut calls) = (Vec::new(), Vec::new());
    let mut buffer = [0; 4096];
    let greeting = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";
    while input.len() < greeting.len() {
        let length = stream.read(&mut buffer).unwrap();
        input.extend(&buffer[..length]);
    }
    assert_eq!(input.drain(..greeting.len()).collect::<Vec<u8>>(), greeting);
    stream.write_all(b"DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n").unwrap();
    let hello = [("Hello", Return(vec![Value::str(":1.7")]), vec![]), ("AddMatch", Return(vec![]), vec![])];
    for (expected, answer, signals) in hello.into_iter().chain(script) {
        let call = loop {
            if let Some(length) = Message::length(&input).unwrap().filter(|length| *length <= input.len()) {
                break Message::decode(&input.drain(..length).collect::<Vec<u8>>()).unwrap();
            }
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return calls,
                Ok(length) => input.extend(&buffer[..length]),
            }
        };
        assert_eq!(call.member, expected);
        let reply = Message { serial: 99, reply_serial: call.serial, ..Message::default() };
        let mut send = |message: Message| stream.write_all(&message.encode()).unwrap();
        match answer {
            Return(body) => send(Message { kind: Kind::Return, body, ..reply }),
            Answer::Fault(name) => {
                let (error_name, body) = (name.to_owned(), vec![Value::str("No way.")]);
                send(Message { kind: Kind::Error, error_name, body, ..reply });
            }
            After(first, body) => {
                first.into_iter().for_each(&mut send);
                send(Message { kind: Kind::Return, body, ..reply });
            }
            Silence => (),
            HangUp => return calls,
        }
        signals.into_iter().for_each(&mut send);
        calls.push(call);
    }
    // The last thing is to see the client go.
    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
    calls
}

fn job_removed(job: &str, result: &str) -> Message {
    let body = vec![Value::U32(7), Value::Path(job.into()), Value::str("a.scope"), Value::str(result)];
    Message {
        kind: Kind::Signal,
        serial: 5,
        path: "/x".into(),
        member: "JobRemoved".into(),
        body,
        ..Message::default()
    }
}

fn path() -> Answer {
    Return(vec![Value::Path(JOB.into())])
}

fn text(text: &str) -> Answer {
    Return(vec![Value::Variant(Box::new(Value::str(text)))])
}

fn wanted() -> Vec<Property> {
    vec![("Delegate".into(), Value::Bool(true))]
}

#[track_caller]
fn fails(script: Vec<(&'static str, Answer, Vec<Message>)>) -> String {
    let (mut manager, server) = Server::start(script);
    let error = format!("{:#}", manager.start("a.scope", &wanted()).unwrap_err());
    server.calls(manager);
    error
}

#[test]
fn one_call_carries_everything() {
    // Jobs of others end, too.
    let signals = vec![job_removed("/other", "failed"), job_removed(JOB, "done")];
    let (mut manager, server) = Server::start(vec![("StartTransientUnit", path(), signals)]);
    manager.start("a.scope", &wanted()).unwrap();
    let calls = server.calls(manager);
    assert_eq!(calls.len(), 3);
    assert_eq!(calls[1].body, [Value::str(JOB_REMOVED)]);
    let property = Value::Struct(vec![Value::str("Delegate"), Value::Variant(Box::new(Value::Bool(true)))]);
    let properties = Value::Array("(sv)".into(), vec![property]);
    let auxiliary = Value::Array("(sa(sv))".into(), vec![]);
    assert_eq!(calls[2].body, [Value::str("a.scope"), Value::str("replace"), properties, auxiliary]);
}

#[test]
fn a_job_that_is_over_before_its_answer() {
    let answer = After(vec![job_removed(JOB, "done")], vec![Value::Path(JOB.into())]);
    let (mut manager, server) = Server::start(vec![("StartTransientUnit", answer, vec![])]);
    manager.start("a.scope", &wanted()).unwrap();
    server.calls(manager);
}

#[test]
fn a_job_that_fails_tells_all_that_is_known() {
    let error = fails(vec![
        ("StartTransientUnit", path(), vec![job_removed(JOB, "failed")]),
        ("Get", text("resources"), vec![]),
    ]);
    assert_eq!(
        error,
        "unit \"a.scope\": its start job ended as \"failed\", the unit's result is \"resources\": \
         see journalctl --user -u a.scope and systemctl --user status a.scope"
    );
}

#[test]
fn a_job_that_never_ends() {
    let begin = Instant::now();
    let error = fails(vec![
        ("StartTransientUnit", path(), vec![]),
        ("Get", text("activating"), vec![]),
        ("Get", text("success"), vec![]),
    ]);
    assert!(error.starts_with("unit \"a.scope\": its start job isn't done after 0 s: see journalctl"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_job_whose_end_nobody_told() {
    let script = vec![("StartTransientUnit", path(), vec![]), ("Get", text("active"), vec![])];
    let (mut manager, server) = Server::start(script);
    manager.start("a.scope", &wanted()).unwrap();
    server.calls(manager);
}

#[test]
fn no_reply() {
    let error = fails(vec![("StartTransientUnit", Silence, vec![])]);
    assert_eq!(error, "start unit \"a.scope\" over D-Bus: no answer to StartTransientUnit: the time is up");
}

#[test]
fn a_bus_that_goes_away() {
    let error = fails(vec![("StartTransientUnit", HangUp, vec![])]);
    assert_eq!(
        error,
        "start unit \"a.scope\" over D-Bus: no answer to StartTransientUnit: the bus closed the connection"
    );
    let error = fails(vec![("StartTransientUnit", path(), vec![]), ("Get", HangUp, vec![])]);
    assert!(error.contains("its start job isn't done"), "{error}");
}

#[test]
fn a_refusal_is_told_and_is_no_unit_of_ours() {
    let (mut manager, server) = Server::start(vec![(
        "StartTransientUnit",
        Answer::Fault("org.freedesktop.DBus.Error.PropertyReadOnly"),
        vec![],
    )]);
    let error = manager.start("a.scope", &wanted()).unwrap_err();
    assert_eq!(fault(&error), Some("org.freedesktop.DBus.Error.PropertyReadOnly"));
    assert_eq!(
        format!("{error:#}"),
        "start unit \"a.scope\" over D-Bus: No way (org.freedesktop.DBus.Error.PropertyReadOnly)"
    );
    server.calls(manager);
}

#[test]
fn a_failed_unit_of_the_name_is_cleared_away() {
    let (mut manager, server) = Server::start(vec![
        ("StartTransientUnit", Answer::Fault(UNIT_EXISTS), vec![]),
        ("Get", text("failed"), vec![]),
        ("ResetFailedUnit", Return(vec![]), vec![]),
        ("StartTransientUnit", path(), vec![job_removed(JOB, "done")]),
    ]);
    manager.start("a.scope", &wanted()).unwrap();
    server.calls(manager);
}

#[test]
fn a_running_unit_of_the_name_is_left_alone() {
    let (mut manager, server) = Server::start(vec![
        ("StartTransientUnit", Answer::Fault(UNIT_EXISTS), vec![]),
        ("Get", text("active"), vec![]),
    ]);
    let error = manager.start("a.scope", &wanted()).unwrap_err();
    assert_eq!(fault(&error), Some(UNIT_EXISTS));
    let calls = server.calls(manager);
    assert_eq!(calls.last().unwrap().path, "/org/freedesktop/systemd1/unit/a_2escope");
}

#[test]
fn an_idle_group_is_told_to_who_knows_the_word() {
    for (version, told) in [("252.39-1~deb12u1", true), ("v255", true), ("251.4", false)] {
        let signals = vec![job_removed(JOB, "done")];
        let script = vec![("Get", text(version), vec![]), ("StartTransientUnit", path(), signals)];
        let (mut manager, server) = Server::start(script);
        manager.start("a.scope", &[(IDLE.0.to_owned(), IDLE.1)]).unwrap();
        let body = format!("{:?}", server.calls(manager).last().unwrap().body);
        assert_eq!(body.contains("CPUWeight"), told, "{version}");
    }
}

#[test]
fn what_is_newer_than_a_systemd_is_not_told_to_it() {
    let all: Vec<Property> = vec![
        (OOM_POLICY.into(), Value::str("kill")),
        ("MemoryZSwapMax".into(), Value::U64(1)),
        ("MemoryZSwapWriteback".into(), Value::Bool(false)),
        ("TasksMax".into(), Value::U64(5)),
    ];
    for (version, told) in [("252.39", 1), ("253", 3), ("256~rc1", 4)] {
        let signals = vec![job_removed(JOB, "done")];
        let script = vec![("Get", text(version), vec![]), ("StartTransientUnit", path(), signals)];
        let (mut manager, server) = Server::start(script);
        manager.start("a.scope", &all).unwrap();
        let body = format!("{:?}", server.calls(manager).last().unwrap().body);
        assert_eq!(all.iter().filter(|(name, _)| body.contains(&format!("\"{name}\""))).count(), told, "{version}");
    }
    // A unit that runs has its policy for good.
    let script = vec![
        ("Get", text("256"), vec![]),
        ("SetUnitProperties", Return(vec![]), vec![]),
        ("Get", text("active"), vec![]),
    ];
    let (mut manager, server) = Server::start(script);
    manager.set_properties("a.scope", &all).unwrap();
    let bodies = format!("{:?}", server.calls(manager));
    assert!(!bodies.contains(OOM_POLICY) && bodies.contains("MemoryZSwapWriteback"), "{bodies}");
}

#[test]
fn stop_waits_and_forgets_the_failure() {
    let (mut manager, server) = Server::start(vec![
        ("StopUnit", path(), vec![job_removed(JOB, "done")]),
        ("ResetFailedUnit", Answer::Fault(NO_SUCH_UNIT), vec![]),
    ]);
    manager.stop("a.scope").unwrap();
    assert_eq!(server.calls(manager).len(), 4);
}

#[test]
fn a_unit_that_is_gone_is_stopped() {
    let (mut manager, server) = Server::start(vec![("StopUnit", Answer::Fault(NO_SUCH_UNIT), vec![])]);
    manager.stop("a.scope").unwrap();
    server.calls(manager);
}

#[test]
fn a_stop_that_fails_says_so() {
    let (mut manager, server) =
        Server::start(vec![("StopUnit", path(), vec![job_removed(JOB, "timeout")]), ("Get", text("success"), vec![])]);
    let error = manager.stop("a.scope").unwrap_err().to_string();
    assert!(error.starts_with("unit \"a.scope\": its stop job ended as \"timeout\": see"), "{error}");
    server.calls(manager);
}

#[test]
fn a_unit_is_known_by_its_description() {
    for (answers, free) in
        [(vec!["mine"], true), (vec!["other", "loaded"], false), (vec!["a.scope", "not-found"], true)]
    {
        let script = answers.into_iter().map(|answer| ("Get", text(answer), vec![])).collect();
        let (mut manager, server) = Server::start(script);
        assert_eq!(manager.is_free("a.scope", "mine").unwrap(), free);
        server.calls(manager);
    }
}

#[test]
fn a_systemd_that_is_starting_anew_is_asked_again() {
    let lost = || Answer::Fault(NO_REPLY);
    let script = vec![
        ("Get", lost(), vec![]),
        ("Get", lost(), vec![]),
        ("Get", text("mine"), vec![]),
        ("StopUnit", lost(), vec![]),
        ("StopUnit", path(), vec![job_removed(JOB, "done")]),
        ("ResetFailedUnit", lost(), vec![]),
        ("ResetFailedUnit", Return(vec![]), vec![]),
    ];
    let (mut manager, server) = Server::start(script);
    assert!(manager.is_free("a.scope", "mine").unwrap());
    manager.stop("a.scope").unwrap();
    server.calls(manager);
}

#[test]
fn a_stop_whose_end_nobody_told() {
    let script = vec![
        ("StopUnit", path(), vec![]),
        ("Get", text("inactive"), vec![]),
        ("ResetFailedUnit", Return(vec![]), vec![]),
    ];
    let (mut manager, server) = Server::start(script);
    manager.stop("a.scope").unwrap();
    server.calls(manager);
}

#[test]
fn properties_are_changed_until_the_unit_stops() {
    let script = vec![
        ("SetUnitProperties", Return(vec![]), vec![]),
        ("Get", text("active"), vec![]),
        ("AttachProcessesToUnit", Return(vec![]), vec![]),
    ];
    let (mut manager, server) = Server::start(script);
    manager.set_properties("a.scope", &wanted()).unwrap();
    manager.attach("a.scope", 5).unwrap();
    let calls = server.calls(manager);
    assert_eq!(calls[2].body[1], Value::Bool(true));
    assert_eq!(calls[4].body, [Value::str("a.scope"), Value::str(""), pids(5)]);
}

#[test]
fn a_bus_that_refuses_this_user() {
    let (client, mut server) = UnixStream::pair().unwrap();
    server.write_all(b"DATA\r\nREJECTED EXTERNAL\r\n").unwrap();
    let error = Connection::greet(client.into(), &[], Instant::now() + Duration::from_secs(5)).unwrap_err();
    assert_eq!(error.to_string(), "the bus refuses this user: it answers \"REJECTED EXTERNAL\" to AUTH EXTERNAL");
}

#[test]
fn what_is_no_bus_at_all() {
    let (client, server) = UnixStream::pair().unwrap();
    let until = Instant::now() + Duration::from_millis(100);
    let error = Connection::greet(client.try_clone().unwrap().into(), &[], until).unwrap_err();
    assert!(error.is::<Late>(), "{error:#}");
    drop(server);
    let error = Connection::greet(client.into(), &[], until).unwrap_err();
    assert_eq!(error.to_string(), "the bus closed the connection");
}

#[test]
fn where_a_bus_listens() {
    let with = |bus, set: &[(&str, &str)]| {
        let value = |name: &str| set.iter().find(|(had, _)| *had == name).map(|(_, value)| (*value).to_owned());
        addresses(bus, 7, value)
    };
    assert_eq!(with(Bus::System, &[]), "unix:path=/run/dbus/system_bus_socket");
    assert_eq!(with(Bus::System, &[("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/x")]), "unix:path=/x");
    // What su leaves may be another user's.
    let user = [("XDG_RUNTIME_DIR", "/run/user/0 x")];
    assert_eq!(with(Bus::User, &user), "unix:path=/run/user/0%20x/bus;unix:path=/run/user/7/bus");
    let both = [user[0], ("DBUS_SESSION_BUS_ADDRESS", "unix:abstract=/y")];
    assert_eq!(with(Bus::User, &both), "unix:abstract=/y;unix:path=/run/user/7/bus");
    assert_eq!(with(Bus::User, &[]), "unix:path=/run/user/7/bus");
    assert_eq!(with(Bus::User, &[("XDG_RUNTIME_DIR", "/run/user/7")]), "unix:path=/run/user/7/bus");
}

#[test]
fn units_as_objects() {
    assert_eq!(object_path("a-1.scope"), "/org/freedesktop/systemd1/unit/a_2d1_2escope");
    assert_eq!(object_path("1.scope"), "/org/freedesktop/systemd1/unit/_31_2escope");
}
