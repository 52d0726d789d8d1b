//! `NOTIFY_SOCKET`: what a container says to the service manager that has started the runtime (sd_notify(3)).
//!
//! The container gets a socket of its own, in a folder of its state that is mounted at [`mounts::NOTIFY_FOLDER`]; the
//! runtime passes on what comes through it. A foreground `run` does so for its whole life, a `start` or detached `run`
//! until the container is ready. Everything is said in the runtime's own name: it is the process that the manager knows
//! (`NotifyAccess=main`).
//!
//! That gives it the rights of the service, so it says no more than a container may: [`is_allowed`] is the whole list.
//! `NOTIFYACCESS=` would widen who may speak, `WATCHDOG=trigger` fail the service, and `FDSTORE=1` keep descriptors of
//! the container's in the manager and hand them to the service's next start.
//!
//! The pid of the main process is put right, for the container numbers its processes otherwise: the runtime's own in the
//! foreground, where the service ends with it, else that of the container's init. The one descriptor that goes on is the
//! pipe of `BARRIER=1`, which the manager closes when it has heard everything before.

mod receiver;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, sendmsg, socket,
};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{UnlinkatFlags, pipe2, unlinkat};

use self::receiver::{Receiver, Taken};
use super::tty;
use crate::plan::mounts;
use crate::state::{Folder, NOTIFY_SOCKET};
use crate::sys::poll::{self, poll};
use crate::sys::{self, Context as _};

/// What systemd takes of one message (NOTIFY_BUFFER_MAX).
const LONGEST: usize = 4096;

/// How many messages a socket queues at most, with systemd's own net.unix.max_dgram_qlen: after the container's end
/// there are no more.
const QUEUED: usize = 512;

/// How long the manager may take to say that it has heard everything, as in runc.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same for the last words of a container whose end the caller waits for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The service manager's socket.
#[derive(Debug)]
pub(crate) struct Manager {
    name: OsString,
    /// None: nothing is said from here.
    socket: Option<OwnedFd>,
}

impl Manager {
    /// The one that the runtime's environment names, not connected; a name of an unknown form is an error.
    pub(crate) fn named() -> Result<Option<Self>> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(None) };
        if !name.as_bytes().starts_with(b"/") && !name.as_bytes().starts_with(b"@") {
            bail!("NOTIFY_SOCKET={name:?}: expected an absolute path, or @ and an abstract name");
        }
        Ok(Some(Self { name, socket: None }))
    }

    /// The same, connected: one that can't be reached is an error.
    pub(crate) fn connected() -> Result<Option<Self>> {
        let Some(mut manager) = Self::named()? else { return Ok(None) };
        manager.connect().with_context(|| format!("NOTIFY_SOCKET={:?}", manager.name))?;
        Ok(Some(manager))
    }

    fn connect(&mut self) -> sys::Result<()> {
        let (_at, address) = tty::address(Path::new(&self.name))?;
        let socket = datagram_socket()?;
        connect(socket.as_raw_fd(), &address).call("connect", &self.name)?;
        self.socket = Some(socket);
        Ok(())
    }

    /// Says something, without waiting. EAGAIN: there is no room now.
    fn send(&mut self, message: &Message) -> sys::Result<()> {
        match self.try_send(message) {
            // It was started again, with a new socket of the same name.
            Err(Errno::ECONNREFUSED | Errno::ENOTCONN) => {
                self.connect()?;
                self.try_send(message)
            }
            sent => sent,
        }
        .call("sendmsg", &self.name)
    }

    fn try_send(&self, message: &Message) -> nix::Result<()> {
        let Some(socket) = &self.socket else { return Err(Errno::ENOTCONN) };
        let fds: Vec<_> = message.fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &[] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        loop {
            match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&message.text)], rights, flags, None) {
                Err(Errno::EINTR) => {}
                sent => return sent.map(drop),
            }
        }
    }
}

fn datagram_socket() -> sys::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Datagram, flags, None).call("socket", "unix datagram")
}

/// One datagram.
#[derive(Debug)]
struct Message {
    text: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// Both ends: the container's socket, bound, and the manager's.
#[derive(Debug)]
pub(crate) struct Sockets {
    container: OwnedFd,
    manager: Manager,
}

impl Sockets {
    /// Binds the container's socket, in the folder that was mounted when the container was made.
    pub(crate) fn bind(manager: Manager, folder: &Folder) -> Result<Self> {
        let container = datagram_socket()?;
        // Left by a start that was killed; the caller holds the lock, so it is nobody's.
        match unlinkat(folder, NOTIFY_SOCKET, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno).call("unlink", NOTIFY_SOCKET).map_err(Into::into),
        }
        // By the folder's descriptor: its path may be longer than sockaddr_un holds.
        let path = format!("/proc/self/fd/{}/{NOTIFY_SOCKET}", folder.as_fd().as_raw_fd());
        let address = UnixAddr::new(path.as_str()).call("bind", NOTIFY_SOCKET)?;
        match bind(container.as_raw_fd(), &address) {
            Err(Errno::ENOENT) => {
                bail!("NOTIFY_SOCKET: the container was created without it, so it has no way to notify")
            }
            bound => bound.call("bind", folder.path().join(NOTIFY_SOCKET))?,
        }
        // Whoever the container's user is; nobody else gets into the folder.
        let mode = Mode::from_bits_truncate(0o777);
        fchmodat(folder, NOTIFY_SOCKET, mode, FchmodatFlags::FollowSymlink).call("chmod", NOTIFY_SOCKET)?;
        Ok(Self { container, manager })
    }
}

/// Passes on what the container says.
#[derive(Debug)]
pub(crate) struct Proxy {
    receiver: Receiver,
    manager: Manager,
    /// As the host numbers it; none after its end.
    main: Option<u32>,
    ready: bool,
    /// Whether the manager has heard anything.
    heard: bool,
    /// What the manager has no room for yet: nothing more is received meanwhile.
    queue: VecDeque<Message>,
    left_out: LeftOut,
}

/// What didn't go on. Each kind is logged once, and counted from then on: a container may say as much as it likes.
#[derive(Debug, Default)]
struct LeftOut {
    too_long: u64,
    unsent: u64,
    not_allowed: u64,
}

impl LeftOut {
    /// Whether this is the first of its kind.
    fn first(count: &mut u64) -> bool {
        *count += 1;
        *count == 1
    }

    /// Says how many there were, where that was more than what is logged already.
    fn summary(&self) {
        for (count, what) in [(self.too_long, "too long"), (self.unsent, "not taken by the service manager")] {
            if count > 1 {
                log::warn!("NOTIFY_SOCKET: {count} messages were {what}");
            }
        }
    }
}

impl Proxy {
    /// `main`: the service's main process, as the host numbers it.
    pub(crate) fn new(sockets: Sockets, main: u32) -> Self {
        let Sockets { container, manager } = sockets;
        Self {
            receiver: Receiver::new(container),
            manager,
            main: Some(main),
            ready: false,
            heard: false,
            queue: VecDeque::new(),
            left_out: LeftOut::default(),
        }
    }

    /// What to poll for before [`Proxy::turn`].
    pub(crate) fn interest(&self) -> (BorrowedFd<'_>, i16) {
        match &self.manager.socket {
            Some(manager) if !self.queue.is_empty() => (manager.as_fd(), poll::OUT),
            _ => self.receiver.interest(),
        }
    }

    /// Moves what can be moved now: one message at most, so that a container that never stops talking stops nothing
    /// else. True if there was one.
    pub(crate) fn turn(&mut self) -> bool {
        self.flush();
        if !self.queue.is_empty() {
            return false;
        }
        let more = self.receive();
        self.flush();
        more
    }

    /// After the container's end: what it said last, as far as the manager listens.
    pub(crate) fn finish(&mut self) {
        self.drain(LAST_WORDS);
        self.left_out.summary();
    }

    fn drain(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        for _ in 0..QUEUED {
            if !self.turn() && !self.wait(deadline) {
                return;
            }
        }
    }

    /// Waits until the container is ready, or has ended, and the manager knows. `pidfd` is the container's init.
    pub(crate) fn until_ready(mut self, pidfd: BorrowedFd<'_>) -> Result<()> {
        while !self.ready {
            let [ended, _] = poll([Some((pidfd, poll::IN)), Some(self.interest())], None)?;
            if ended {
                // Its number may soon be another's.
                self.main = None;
                self.drain(PATIENCE);
                break;
            }
            self.turn();
        }
        if !self.ready {
            log::warn!("the container has ended without notifying that it is ready");
        }
        self.left_out.summary();
        if self.heard || !self.queue.is_empty() { self.barrier() } else { Ok(()) }
    }

    /// Waits until the manager has heard everything: it would not know whose words they are once this process is gone
    /// (sd_notify_barrier(3)).
    fn barrier(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let (closed, end) = pipe2(OFlag::O_CLOEXEC).call("pipe", "barrier")?;
        self.queue.push_back(Message { text: BARRIER.into(), fds: vec![end] });
        self.flush();
        while !self.queue.is_empty() && self.wait(deadline) {
            self.flush();
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let [closed] = poll([Some((closed.as_fd(), poll::IN))], Some(left))?;
        if !closed {
            log::warn!("NOTIFY_SOCKET: the service manager took no notice for {} s", PATIENCE.as_secs());
        }
        Ok(())
    }

    /// Waits for room for what is to be said, or for a message that is on its way; false if there is neither.
    fn wait(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        (!self.queue.is_empty() || self.receiver.is_busy())
            && poll([Some(self.interest())], Some(left)).is_ok_and(|[room]| room)
    }

    fn flush(&mut self) {
        while let Some(message) = self.queue.front() {
            match self.manager.send(message) {
                Err(error) if error.errno() == Errno::EAGAIN => return,
                Err(error) if LeftOut::first(&mut self.left_out.unsent) => log::warn!("NOTIFY_SOCKET: {error}"),
                Err(_) => {}
                Ok(()) => self.heard = true,
            }
            self.queue.pop_front();
        }
    }

    /// Takes the next message; false if there is none.
    fn receive(&mut self) -> bool {
        let (text, barrier) = match self.receiver.take() {
            Ok(Taken::Message(text, barrier)) => (text, barrier),
            Ok(Taken::Nothing | Taken::Later) => return false,
            Ok(Taken::TooLong) => {
                if LeftOut::first(&mut self.left_out.too_long) {
                    log::warn!("NOTIFY_SOCKET: a message of more than {LONGEST} bytes is left out");
                }
                return true;
            }
            Err(error) => {
                log::warn!("NOTIFY_SOCKET: {error:#}");
                return false;
            }
        };
        let said = Said::new(&text, self.main, barrier.is_some());
        if let Some(line) = &said.left_out
            && LeftOut::first(&mut self.left_out.not_allowed)
        {
            log::debug!("NOTIFY_SOCKET: not passed on, and no more is said of the like: {line}");
        }
        if !said.text.is_empty() {
            let fds = barrier.into_iter().filter(|_| said.barrier).collect();
            self.queue.push_back(Message { text: said.text, fds });
        }
        if said.ready && !self.ready {
            self.ready = true;
            // After it: the message before comes from the process that is the main one until then.
            let main = self.main.map(|pid| Message { text: format!("MAINPID={pid}").into(), fds: Vec::new() });
            self.queue.extend(main);
        }
        true
    }
}

/// A message of the container's in the host's terms.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    text: Vec<u8>,
    ready: bool,
    /// Whether it is a barrier, which is alone in its message.
    barrier: bool,
    /// The first line of those that don't go on.
    left_out: Option<String>,
}

impl Said {
    /// `pipe`: whether a barrier's descriptor came with it.
    fn new(text: &[u8], main: Option<u32>, pipe: bool) -> Self {
        let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        if lines == [BARRIER] && pipe {
            return Self { text: BARRIER.into(), ready: false, barrier: true, left_out: None };
        }
        let reloading = lines.contains(&b"RELOADING=1".as_slice());
        let mut kept: Vec<Vec<u8>> = Vec::new();
        let mut left_out = None;
        for line in lines {
            let (name, value) = field(line);
            match name {
                b"MAINPID" => kept.extend(main.map(|pid| format!("MAINPID={pid}").into())),
                b"MONOTONIC_USEC" if reloading && is_number(value) => kept.push(line.into()),
                name if is_allowed(name, value) => kept.push(line.into()),
                _ => {
                    left_out.get_or_insert_with(|| line[..line.len().min(SHOWN)].escape_ascii().to_string());
                }
            }
        }
        let ready = kept.iter().any(|line| line == b"READY=1");
        Self { text: kept.join(&b'\n'), ready, barrier: false, left_out }
    }
}

const BARRIER: &[u8] = b"BARRIER=1";

/// How much of a line that is left out is logged.
const SHOWN: usize = 80;

/// What goes on as it came (sd_notify(3)). `MAINPID`, `MONOTONIC_USEC` and `BARRIER` have rules of their own.
fn is_allowed(name: &[u8], value: &[u8]) -> bool {
    match name {
        b"READY" | b"RELOADING" | b"STOPPING" | b"WATCHDOG" => value == b"1",
        b"STATUS" | b"EXIT_STATUS" => std::str::from_utf8(value).is_ok(),
        b"ERRNO" | b"EXTEND_TIMEOUT_USEC" => is_number(value),
        _ => false,
    }
}

fn field(line: &[u8]) -> (&[u8], &[u8]) {
    match line.iter().position(|byte| *byte == b'=') {
        Some(at) => (&line[..at], &line[at + 1..]),
        // Not an assignment: of no field.
        None => (&[], &[]),
    }
}

fn is_number(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(u8::is_ascii_digit)
}

/// The variable that tells the program.
pub(crate) fn variable() -> String {
    format!("NOTIFY_SOCKET={}/notify.sock", mounts::NOTIFY_FOLDER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str, main: Option<u32>, pipe: bool) -> (String, bool, bool) {
        let Said { text, ready, barrier, .. } = Said::new(text.as_bytes(), main, pipe);
        (String::from_utf8(text).unwrap(), ready, barrier)
    }

    #[test]
    fn only_the_main_process_is_put_right() {
        for (text, main, want, ready) in [
            ("READY=1", Some(7), "READY=1", true),
            ("STATUS=a b\nREADY=1\n", Some(7), "STATUS=a b\nREADY=1", true),
            ("MAINPID=1", Some(7), "MAINPID=7", false),
            ("MAINPID=1\nSTATUS=z", None, "STATUS=z", false),
            ("MAINPIDFD=1\nMAINPIDFDID=99\nMAINPID=1\nREADY=1", Some(7), "MAINPID=7\nREADY=1", true),
            ("MAINPIDFDID=99", Some(7), "", false),
            ("READY=0\nREADY=11\nSTATUS=READY=1", Some(7), "STATUS=READY=1", false),
            ("", Some(7), "", false),
        ] {
            assert_eq!(said(text, main, false), (want.into(), ready, false), "{text:?}");
        }
    }

    /// Every field of sd_notify(3), and what was never one.
    #[test]
    fn nothing_goes_on_but_what_is_allowed() {
        for kept in [
            "READY=1",
            "RELOADING=1",
            "STOPPING=1",
            "STATUS=",
            "STATUS=a=b",
            "ERRNO=2",
            "EXIT_STATUS=7",
            "WATCHDOG=1",
            "EXTEND_TIMEOUT_USEC=5000000",
            "RELOADING=1\nMONOTONIC_USEC=77",
            "MONOTONIC_USEC=77\nRELOADING=1",
        ] {
            assert_eq!(said(kept, None, false).0, kept);
            assert_eq!(said(&format!("X=1\n{kept}\nFDSTORE=1"), None, true).0, kept);
        }
        for dropped in [
            "READY=0",
            "READY",
            "READY=1 ",
            " READY=1",
            "ready=1",
            "RELOADING=0",
            "STOPPING=2",
            "STATUS",
            "ERRNO=",
            "ERRNO=-2",
            "MONOTONIC_USEC=77",
            "NOTIFYACCESS=all",
            "NOTIFYACCESS=none",
            "WATCHDOG=trigger",
            "WATCHDOG=11",
            "WATCHDOG_USEC=1",
            "EXTEND_TIMEOUT_USEC=x",
            "FDSTORE=1",
            "FDSTOREREMOVE=1",
            "FDNAME=x",
            "FDPOLL=0",
            "BUSERROR=a.b",
            "VARLINKERROR=a.b",
            "RESTART_RESET=1",
            "MAINPIDFD=1",
            "MAINPIDFDID=5",
            "X_OWN=1",
            "BARRIER=1",
            "BARRIER=0",
            "RELOADED=1",
            "=",
            "=1",
            "\0READY=1",
            "READY=1\0",
        ] {
            assert_eq!(said(dropped, None, false).0, "", "{dropped:?}");
            assert_eq!(said(&format!("{dropped}\nSTATUS=x"), None, true).0, "STATUS=x", "{dropped:?}");
        }
        assert_eq!(said("MONOTONIC_USEC=x\nRELOADING=1", None, false).0, "RELOADING=1");
        assert!(Said::new(b"STATUS=\xff", None, false).text.is_empty());
    }

    #[test]
    fn a_barrier_is_alone_and_brings_a_pipe() {
        assert_eq!(said("BARRIER=1", None, true), ("BARRIER=1".into(), false, true));
        assert_eq!(said("BARRIER=1\n", None, true), ("BARRIER=1".into(), false, true));
        for (text, pipe, want) in
            [("BARRIER=1", false, ""), ("STATUS=x\nBARRIER=1", true, "STATUS=x"), ("BARRIER=2", true, "")]
        {
            assert_eq!(said(text, None, pipe), (want.into(), false, false), "{text:?}");
        }
    }

    #[test]
    fn a_barriers_descriptor_is_one_pipe() {
        let pipe = || pipe2(OFlag::O_CLOEXEC).unwrap();
        let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        assert!(receiver::barrier_of(&[pipe().1]).is_some());
        for others in
            [vec![], vec![file()], vec![datagram_socket().unwrap()], vec![pipe().0, pipe().1], vec![pipe().1, file()]]
        {
            assert!(receiver::barrier_of(&others).is_none());
        }
    }
}
