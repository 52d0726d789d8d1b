use super::*;

/// What libsystemd (busctl 252) sends for the same calls, as strace saw it.
const HELLO: &[u8] =
    b"l\x01\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00m\x00\x00\x00\x01\x01o\x00\x15\x00\x00\x00/org/freedesktop/\
    DBus\x00\x00\x00\x03\x01s\x00\x05\x00\x00\x00Hello\x00\x00\x00\x02\x01s\x00\x14\x00\x00\x00org.freedeskt\
    op.DBus\x00\x00\x00\x00\x06\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00";
const STOP_UNIT: &[u8] =
    b"l\x01\x04\x01\x18\x00\x00\x00\x02\x00\x00\x00\xa0\x00\x00\x00\x01\x01o\x00\x19\x00\x00\x00/org/freedeskt\
    op/systemd1\x00\x00\x00\x00\x00\x00\x00\x03\x01s\x00\x08\x00\x00\x00StopUnit\x00\x00\x00\x00\x00\x00\x00\
    \x00\x02\x01s\x00 \x00\x00\x00org.freedesktop.systemd1.Manager\x00\x00\x00\x00\x00\x00\x00\x00\x06\x01s\
    \x00\x18\x00\x00\x00org.freedesktop.systemd1\x00\x00\x00\x00\x00\x00\x00\x00\x08\x01g\x00\x02ss\x00\x07\
    \x00\x00\x00a.scope\x00\x07\x00\x00\x00replace\x00";
const START_TRANSIENT_UNIT: &[u8] =
    b"l\x01\x04\x01\xb0\x00\x00\x00\x02\x00\x00\x00\xb6\x00\x00\x00\x01\x01o\x00\x19\x00\x00\x00/org/freedeskt\
    op/systemd1\x00\x00\x00\x00\x00\x00\x00\x03\x01s\x00\x12\x00\x00\x00StartTransientUnit\x00\x00\x00\x00\
    \x00\x00\x02\x01s\x00 \x00\x00\x00org.freedesktop.systemd1.Manager\x00\x00\x00\x00\x00\x00\x00\x00\x06\
    \x01s\x00\x18\x00\x00\x00org.freedesktop.systemd1\x00\x00\x00\x00\x00\x00\x00\x00\x08\x01g\x00\x10ssa(sv\
    )a(sa(sv))\x00\x00\x00\x07\x00\x00\x00a.scope\x00\x04\x00\x00\x00fail\x00\x00\x00\x00\x8a\x00\x00\x00\
    \x00\x00\x00\x00\x0b\x00\x00\x00Description\x00\x01s\x00\x00\x03\x00\x00\x00a b\x00\x00\x00\x00\x00\x08\
    \x00\x00\x00Delegate\x00\x01b\x00\x01\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00PIDs\x00\x02au\x00\x00\
    \x00\x00\x04\x00\x00\x00?B\x0f\x00\x09\x00\x00\x00MemoryMax\x00\x01t\x00\x00\x00\x00\x00\x00\x00\x00@B\
    \x0f\x00\x00\x00\x00\x00\x0b\x00\x00\x00AllowedCPUs\x00\x02ay\x00\x02\x00\x00\x00\x03\x01\x00\x00\x00\
    \x00\x00\x00";

fn property(name: &str, value: Value) -> Value {
    Value::Struct(vec![Value::str(name), Value::Variant(Box::new(value))])
}

fn manager(member: &str, body: Vec<Value>) -> Message {
    Message {
        serial: 2,
        path: "/org/freedesktop/systemd1".into(),
        interface: "org.freedesktop.systemd1.Manager".into(),
        member: member.into(),
        destination: "org.freedesktop.systemd1".into(),
        body,
        ..Message::default()
    }
}

fn start() -> Message {
    let cpus = vec![Value::Byte(3), Value::Byte(1)];
    let properties = vec![
        property("Description", Value::str("a b")),
        property("Delegate", Value::Bool(true)),
        property("PIDs", Value::Array("u".into(), vec![Value::U32(999_999)])),
        property("MemoryMax", Value::U64(1_000_000)),
        property("AllowedCPUs", Value::Array("y".into(), cpus)),
    ];
    let properties = Value::Array("(sv)".into(), properties);
    let auxiliary = Value::Array("(sa(sv))".into(), Vec::new());
    manager("StartTransientUnit", vec![Value::str("a.scope"), Value::str("fail"), properties, auxiliary])
}

/// With the flag that busctl sets: that it would wait for a password.
fn interactive(message: &Message) -> Vec<u8> {
    let mut bytes = message.encode();
    bytes[2] = 4;
    bytes
}

#[test]
fn what_is_sent_is_what_libsystemd_sends() {
    let hello = Message {
        serial: 1,
        path: "/org/freedesktop/DBus".into(),
        interface: "org.freedesktop.DBus".into(),
        member: "Hello".into(),
        destination: "org.freedesktop.DBus".into(),
        ..Message::default()
    };
    assert_eq!(hello.encode(), HELLO);
    let stop = manager("StopUnit", vec![Value::str("a.scope"), Value::str("replace")]);
    assert_eq!(interactive(&stop), STOP_UNIT);
    assert_eq!(interactive(&start()), START_TRANSIENT_UNIT);
}

#[test]
fn what_libsystemd_sends_is_understood() {
    assert_eq!(Message::length(START_TRANSIENT_UNIT).unwrap(), Some(START_TRANSIENT_UNIT.len()));
    assert_eq!(Message::decode(START_TRANSIENT_UNIT).unwrap(), start());
}

#[test]
fn every_type_survives() {
    let message = Message {
        kind: Kind::Signal,
        serial: 7,
        reply_serial: 9,
        path: "/a".into(),
        error_name: "a.b".into(),
        sender: ":1.5".into(),
        body: vec![
            Value::Byte(1),
            Value::I16(-2),
            Value::U16(3),
            Value::I32(-4),
            Value::I64(-5),
            Value::F64(0.5),
            Value::Bool(true),
            Value::Signature("a(sv)".into()),
            Value::Array("t".into(), vec![]),
            Value::Array("{sv}".into(), vec![]),
            Value::Array("as".into(), vec![Value::Array("s".into(), vec![Value::str("x"), Value::str("")])]),
            Value::Variant(Box::new(Value::Struct(vec![Value::Byte(1), Value::U64(2)]))),
            Value::Path("/x".into()),
        ],
        ..Message::default()
    };
    assert_eq!(Message::decode(&message.encode()).unwrap(), message);
}

#[test]
fn big_endian_is_read() {
    let bytes = b"B\x04\0\x01\0\0\0\x0c\0\0\0\x05\0\0\0\x08\x08\x01g\0\x02us\0\0\0\0\x07\0\0\0\x03abc\0";
    let message = Message::decode(bytes).unwrap();
    assert_eq!((message.kind, message.serial), (Kind::Signal, 5));
    assert_eq!(message.body, [Value::U32(7), Value::str("abc")]);
}

#[test]
fn half_a_message_waits_for_the_rest() {
    assert_eq!(Message::length(b"").unwrap(), None);
    assert_eq!(Message::length(&HELLO[..15]).unwrap(), None);
    assert_eq!(Message::length(&HELLO[..16]).unwrap(), Some(HELLO.len()));
}

#[test]
fn nonsense_is_an_error() {
    assert!(Message::length(b"HTTP/1.1 400 Bad").is_err());
    assert!(Message::length(b"l\x01\0\x01\xff\xff\xff\xff\x01\0\0\0\0\0\0\0").is_err());
    // Whatever one byte is changed to: an error or another message, never a panic or an endless loop.
    for at in 0..START_TRANSIENT_UNIT.len() {
        for byte in [0, 1, 8, 0x28, 0x61, 0x76, 0x7f, 0xff] {
            let mut bytes = START_TRANSIENT_UNIT.to_vec();
            bytes[at] = byte;
            let _ = Message::decode(&bytes);
            let _ = Message::decode(&bytes[..at]);
        }
    }
    let deep = Message { body: vec![(0..200).fold(Value::Byte(1), |v, _| Value::Variant(Box::new(v)))], ..start() };
    assert!(Message::decode(&deep.encode()).is_err());
}

#[test]
fn signatures_are_split_at_complete_types() {
    assert_eq!(split("a(sv)u").unwrap(), ("a(sv)", "u"));
    assert_eq!(split("aas").unwrap(), ("aas", ""));
    assert_eq!(split("(y(s))x").unwrap(), ("(y(s))", "x"));
    for bad in ["", "a", "(", "(s", ")", "z", "a)"] {
        assert!(split(bad).is_err(), "{bad}");
    }
}
