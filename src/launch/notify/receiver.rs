//! Who takes the container's messages: a process of its own, made for the first one.
//!
//! A message may bring any descriptor, and closing one may take as long as the container likes: a file of its own FUSE file
//! system, a connection with SO_LINGER. Not to ask for them doesn't help, as the kernel closes them then in whoever
//! receives the message. So that is a process which holds nothing else, and for which nobody waits.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;

use super::LONGEST;
use crate::sys::clone::{Cloned, fork, signal_child, wait};
use crate::sys::poll::{self, poll};
use crate::sys::socket::{receive_datagram, receive_fds, send_fds};
use crate::sys::{self, Context as _};

/// How long the answer is waited for at once: after that it is polled for.
const AT_ONCE: Duration = Duration::from_millis(100);

/// The first byte of an answer.
const WHOLE: u8 = b'w';
const TOO_LONG: u8 = b'l';
const NOTHING: u8 = b'n';

/// What comes of asking for a message.
#[derive(Debug)]
pub(super) enum Taken {
    /// With the descriptor of a barrier, if it brought that.
    Message(Vec<u8>, Option<OwnedFd>),
    /// Longer than any manager takes.
    TooLong,
    Nothing,
    /// The answer comes later.
    Later,
}

/// The container's socket, and the process that reads it.
#[derive(Debug)]
pub(super) struct Receiver {
    container: OwnedFd,
    process: Option<Process>,
    /// The process is gone: nothing is received any more.
    failed: bool,
}

#[derive(Debug)]
struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    channel: OwnedFd,
    asked: bool,
}

impl Receiver {
    pub(super) fn new(container: OwnedFd) -> Self {
        Self { container, process: None, failed: false }
    }

    /// Whether an answer is still to come.
    pub(super) fn is_busy(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.asked)
    }

    /// What to poll for before [`Receiver::take`].
    pub(super) fn interest(&self) -> (BorrowedFd<'_>, i16) {
        match &self.process {
            Some(process) if process.asked => (process.channel.as_fd(), poll::IN),
            _ => (self.container.as_fd(), if self.failed { 0 } else { poll::IN }),
        }
    }

    /// Takes the next message, if there is one.
    pub(super) fn take(&mut self) -> Result<Taken> {
        if self.failed {
            return Ok(Taken::Nothing);
        }
        let taken = self.ask();
        if taken.is_err() {
            self.failed = true;
            self.process = None;
        }
        taken
    }

    fn ask(&mut self) -> Result<Taken> {
        if self.process.is_none() {
            if poll([Some((self.container.as_fd(), poll::IN))], Some(Duration::ZERO))? == [false] {
                return Ok(Taken::Nothing);
            }
            self.process = Some(Process::start(self.container.as_fd())?);
        }
        match &mut self.process {
            Some(process) => process.ask(),
            None => Ok(Taken::Nothing),
        }
    }
}

impl Process {
    fn start(container: BorrowedFd<'_>) -> Result<Self> {
        let (channel, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .call("socketpair", "seqpacket")?;
        match fork()? {
            Cloned::Child => {
                // None of the streams either: whoever reads them waits for their end.
                sys::fs::close_all_but(0, &[container, theirs.as_fd()]);
                serve(container, theirs.as_fd())
            }
            Cloned::Parent { pid, pidfd } => Ok(Self { pid, pidfd, channel, asked: false }),
        }
    }

    fn ask(&mut self) -> Result<Taken> {
        if !self.asked {
            nix::unistd::write(&self.channel, &[0]).call("write", "receiver")?;
            self.asked = true;
        }
        if poll([Some((self.channel.as_fd(), poll::IN))], Some(AT_ONCE))? == [false] {
            return Ok(Taken::Later);
        }
        let mut answer = [0; LONGEST + 1];
        let (length, fds) = receive_fds(self.channel.as_fd(), &mut answer)?;
        self.asked = false;
        Ok(match answer[..length].split_first() {
            Some((&WHOLE, text)) => Taken::Message(text.to_vec(), fds.into_iter().next()),
            Some((&TOO_LONG, _)) => Taken::TooLong,
            Some(_) => Taken::Nothing,
            None => bail!("the process that receives messages has ended"),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = signal_child(self.pid, self.pidfd.as_fd(), libc::SIGKILL);
        if poll([Some((self.pidfd.as_fd(), poll::IN))], Some(AT_ONCE)).is_ok_and(|[ended]| ended) {
            let _ = wait(self.pid);
        }
    }
}

/// Answers each question with one message, until nobody asks any more.
fn serve(container: BorrowedFd<'_>, channel: BorrowedFd<'_>) -> ! {
    loop {
        match nix::unistd::read(channel, &mut [0]) {
            Err(Errno::EINTR) => continue,
            Ok(1) => {}
            _ => sys::exit(0),
        }
        let mut answer = [0; LONGEST + 1];
        let (length, fds) = match receive_datagram(container, &mut answer[1..]) {
            Ok(datagram) => {
                answer[0] = if datagram.whole { WHOLE } else { TOO_LONG };
                (if datagram.whole { datagram.length } else { 0 }, datagram.fds)
            }
            Err(_) => {
                answer[0] = NOTHING;
                (0, Vec::new())
            }
        };
        let barrier: Vec<_> = barrier_of(&fds).into_iter().collect();
        if send_fds(channel, &answer[..=length], &barrier).is_err() {
            sys::exit(1)
        }
        // This may take for ever.
        drop(fds);
    }
}

/// The descriptor of a barrier: one, and a pipe's, as sd_notify_barrier(3) sends it. What else a container may send is
/// not handed on: closing a file of a FUSE file system or a socket may take as long as its other end likes.
pub(super) fn barrier_of(fds: &[OwnedFd]) -> Option<BorrowedFd<'_>> {
    let [fd] = fds else { return None };
    // The one question that only a pipe answers, and that asks no file system.
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETPIPE_SZ).is_ok().then(|| fd.as_fd())
}
