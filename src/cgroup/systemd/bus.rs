//! A connection to a message bus: blocking, each wait with an end, no thread.
//!
//! Authentication is EXTERNAL with an empty identity: the bus takes the uid that the kernel tells it. That is right in
//! a user namespace as well, where this process knows itself under another uid than the bus does.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket};

use super::wire::{Kind, Message, Value};
use crate::sys::Context as _;
use crate::sys::poll;

/// An answer that says no.
#[derive(Debug)]
pub(super) struct Fault {
    /// Such as `org.freedesktop.systemd1.NoSuchUnit`.
    pub(super) name: String,
    pub(super) text: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.text.trim_end_matches('.'), self.name)
    }
}

impl std::error::Error for Fault {}

/// The name of the error, if it is an answer that says no.
pub(super) fn fault(error: &anyhow::Error) -> Option<&str> {
    error.downcast_ref::<Fault>().map(|fault| fault.name.as_str())
}

#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    /// What came and isn't a whole message yet.
    input: Vec<u8>,
    serial: u32,
    /// Signals that came while an answer was waited for.
    signals: VecDeque<Message>,
}

impl Connection {
    /// Connects to the first address of a list that answers, and says hello. `wanted` are match rules of signals.
    pub(super) fn open(addresses: &str, wanted: &[&str], until: Instant) -> Result<Self> {
        let mut failed = anyhow!("{addresses:?} is no address of a bus");
        for address in addresses.split(';').filter(|address| !address.is_empty()) {
            match reach(address, until) {
                Ok(socket) => return Self::greet(socket, wanted, until),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// All of it in one write: the bus takes it in order.
    pub(super) fn greet(socket: OwnedFd, wanted: &[&str], until: Instant) -> Result<Self> {
        let mut bus = Self { socket, input: Vec::new(), serial: 0, signals: VecDeque::new() };
        let mut output = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n".to_vec();
        let mut calls = vec![bus.number(to_bus("Hello", Vec::new()))];
        for rule in wanted {
            calls.push(bus.number(to_bus("AddMatch", vec![Value::str(*rule)])));
        }
        calls.iter().for_each(|call| output.extend(call.encode()));
        bus.write(&output, until)?;
        for expected in ["DATA", "OK"] {
            let line = bus.line(until)?;
            if line.split(' ').next() != Some(expected) {
                bail!("the bus refuses this user: it answers {line:?} to AUTH EXTERNAL");
            }
        }
        for call in calls {
            bus.answer(&call, until)?;
        }
        Ok(bus)
    }

    /// Calls a method and waits for the answer. One that says no is a [`Fault`].
    pub(super) fn call(&mut self, message: Message, until: Instant) -> Result<Vec<Value>> {
        let message = self.number(message);
        self.write(&message.encode(), until)?;
        self.answer(&message, until)
    }

    fn number(&mut self, message: Message) -> Message {
        self.serial += 1;
        Message { serial: self.serial, ..message }
    }

    fn answer(&mut self, call: &Message, until: Instant) -> Result<Vec<Value>> {
        loop {
            let message = self.next(until).with_context(|| format!("no answer to {}", call.member))?;
            match message.kind {
                Kind::Signal => self.signals.push_back(message),
                Kind::Return if message.reply_serial == call.serial => return Ok(message.body),
                Kind::Error if message.reply_serial == call.serial => {
                    let text = message.body.first().and_then(Value::text).unwrap_or("no reason given").to_owned();
                    return Err(Fault { name: message.error_name, text }.into());
                }
                _ => (),
            }
        }
    }

    /// The next signal; those that came earlier first.
    pub(super) fn signal(&mut self, until: Instant) -> Result<Message> {
        if let Some(signal) = self.signals.pop_front() {
            return Ok(signal);
        }
        loop {
            let message = self.next(until)?;
            if message.kind == Kind::Signal {
                return Ok(message);
            }
        }
    }

    fn next(&mut self, until: Instant) -> Result<Message> {
        loop {
            if let Some(length) = Message::length(&self.input)?
                && let Some(bytes) = self.input.get(..length)
            {
                let message = Message::decode(bytes);
                self.input.drain(..length);
                return message;
            }
            self.read(until)?;
        }
    }

    fn line(&mut self, until: Instant) -> Result<String> {
        /// D-Bus's lines of authentication are short.
        const LONGEST: usize = 16384;
        loop {
            if let Some(end) = self.input.windows(2).position(|two| two == b"\r\n") {
                let line = self.input.drain(..end + 2).take(end).collect::<Vec<u8>>();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.input.len() > LONGEST {
                bail!("what answers is no message bus");
            }
            self.read(until)?;
        }
    }

    fn read(&mut self, until: Instant) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) | Err(Errno::ECONNRESET) => bail!("the bus closed the connection"),
                Ok(length) => {
                    self.input.extend(buffer.get(..length).unwrap_or_default());
                    return Ok(());
                }
                Err(Errno::EINTR) => (),
                Err(Errno::EAGAIN) => self.wait(poll::IN, until)?,
                Err(errno) => return Err(errno).call("recv", "bus").map_err(Into::into),
            }
        }
    }

    fn write(&self, mut bytes: &[u8], until: Instant) -> Result<()> {
        while !bytes.is_empty() {
            match send(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
                Err(Errno::EINTR) => (),
                Err(Errno::EAGAIN) => self.wait(poll::OUT, until)?,
                Err(Errno::EPIPE | Errno::ECONNRESET) => bail!("the bus closed the connection"),
                Err(errno) => return Err(errno).call("send", "bus").map_err(Into::into),
            }
        }
        Ok(())
    }

    fn wait(&self, events: i16, until: Instant) -> Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Late.into());
        }
        poll::poll([Some((self.socket.as_fd(), events))], Some(left))?;
        Ok(())
    }
}

/// The time is up.
#[derive(Debug)]
pub(super) struct Late;

impl std::fmt::Display for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the time is up")
    }
}

impl std::error::Error for Late {}

fn to_bus(member: &str, body: Vec<Value>) -> Message {
    Message {
        path: "/org/freedesktop/DBus".into(),
        interface: "org.freedesktop.DBus".into(),
        member: member.into(),
        destination: "org.freedesktop.DBus".into(),
        body,
        ..Message::default()
    }
}

/// Connects to one address, `unix:path=...` or `unix:abstract=...` (D-Bus specification, "Server Addresses").
fn reach(address: &str, until: Instant) -> Result<OwnedFd> {
    let (path, abstract_) = parse(address).with_context(|| format!("{address:?}: expected unix:path=... of a bus"))?;
    let to = if abstract_ { UnixAddr::new_abstract(&path) } else { UnixAddr::new(OsStr::from_bytes(&path)) };
    let name = String::from_utf8_lossy(&path).into_owned();
    let to = to.call("connect", &name)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None).call("socket", "AF_UNIX")?;
    let mut pause = Duration::from_millis(1);
    loop {
        match connect(socket.as_raw_fd(), &to) {
            Ok(()) => return Ok(socket),
            // More wait for the bus than it has room for: AF_UNIX has no way to wait for a place.
            Err(Errno::EAGAIN) if Instant::now() < until => std::thread::sleep(pause),
            Err(Errno::EINTR) => (),
            Err(errno) => return Err(errno).call("connect", &name).map_err(Into::into),
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// The socket of an address, and whether it is an abstract one.
fn parse(address: &str) -> Option<(Vec<u8>, bool)> {
    let (mut path, mut found) = (None, None);
    for pair in address.strip_prefix("unix:")?.split(',') {
        match pair.split_once('=')? {
            ("path", value) => path = Some(value),
            ("abstract", value) => found = Some(value),
            _ => (),
        }
    }
    let unescape = |text: &str| {
        let (mut out, mut bytes) = (Vec::new(), text.bytes());
        while let Some(byte) = bytes.next() {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            out.push(if byte == b'%' { digit(bytes.next())? << 4 | digit(bytes.next())? } else { byte });
        }
        Some(out)
    };
    match (path, found) {
        (Some(path), None) => Some((unescape(path)?, false)),
        (None, Some(name)) => Some((unescape(name)?, true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let path = |text: &str| Some((text.as_bytes().to_vec(), false));
        assert_eq!(parse("unix:path=/run/user/1000/bus,guid=00"), path("/run/user/1000/bus"));
        assert_eq!(parse("unix:path=/a%20b%2c"), path("/a b,"));
        assert_eq!(parse("unix:abstract=/tmp/x"), Some((b"/tmp/x".to_vec(), true)));
        for bad in ["tcp:host=x", "unix:runtime=yes", "unix:path=/a%2", "unix:path=/a,abstract=b", "unix:"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_list_is_tried_in_order_and_the_last_failure_is_told() {
        let until = Instant::now() + Duration::from_secs(1);
        let error = Connection::open("unix:path=/nowhere/a;unix:path=/nowhere/b", &[], until).unwrap_err();
        assert_eq!(format!("{error:#}"), "connect \"/nowhere/b\": no such file or directory (ENOENT)");
        assert!(Connection::open("", &[], until).is_err());
    }
}
