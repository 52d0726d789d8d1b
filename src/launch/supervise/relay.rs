//! Copies between the caller's standard streams and the master of the payload's terminal.
//!
//! Both directions have one buffer and read no more until it is written: a reader that stalls costs no memory and no
//! CPU, and the payload feels it, as on a real terminal. Nothing ever blocks in a read or write, so signals and the
//! payload's end are always seen.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::stat::{Mode, SFlag, fstat, major, minor};
use nix::unistd::{read, write};

use crate::launch::tty;
use crate::sys::poll;
use crate::sys::tty::peer;
use crate::sys::{Context as _, fs};

/// Large enough to make system calls cheap; a terminal hands out 4 KiB at a time.
const BUFFER: usize = 64 * 1024;

/// More than the kernel holds of a terminal's output (64 KiB, and a page): what comes after it is written by somebody
/// who outlived the payload and may never stop.
const LEFTOVERS: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Relay {
    master: OwnedFd,
    /// A slave of our own: without one, a payload that closes its terminal and later opens it again would leave a
    /// master that is hung up for a while, which poll can't wait out.
    slave: Option<OwnedFd>,
    /// Whether the master still gives output.
    open: bool,
    /// `None` after its end.
    input: Option<Stream>,
    /// `None` when its reader is gone: what comes is discarded, so that the payload doesn't stall.
    output: Option<Stream>,
    to_master: Buffer,
    to_output: Buffer,
    leftovers: usize,
}

impl Relay {
    /// Between standard input, standard output and the master.
    pub(super) fn new(master: OwnedFd) -> Result<Self> {
        tty::copy_size(master.as_fd());
        Self::between(fs::borrow(0), fs::borrow(1), master)
    }

    pub(super) fn between(input: BorrowedFd<'static>, output: BorrowedFd<'static>, master: OwnedFd) -> Result<Self> {
        // The master is ours alone: the container process closed its own at exec.
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).call("fcntl F_SETFL", "terminal of the container")?;
        let slave = peer(master.as_fd()).ok();
        Ok(Self {
            master,
            slave,
            open: true,
            input: Some(Stream::new(input, OFlag::O_RDONLY)),
            output: Some(Stream::new(output, OFlag::O_WRONLY)),
            to_master: Buffer::new(),
            to_output: Buffer::new(),
            leftovers: LEFTOVERS,
        })
    }

    pub(super) fn master(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }

    /// What to poll for, in the order of [`Relay::turn`]: input, output, master. A descriptor that nothing is wanted
    /// from is left out, because poll reports errors and hang-ups unasked, again and again.
    pub(super) fn interest(&self) -> [Option<(BorrowedFd<'_>, i16)>; 3] {
        let input = self.input.as_ref().filter(|_| self.to_master.is_empty());
        let output = self.output.as_ref().filter(|_| !self.to_output.is_empty());
        let read = if self.open && self.to_output.is_empty() { poll::IN } else { 0 };
        let write = if self.to_master.is_empty() { 0 } else { poll::OUT };
        [
            input.map(|stream| (stream.fd(), poll::IN)),
            output.map(|stream| (stream.fd(), poll::OUT)),
            Some((self.master.as_fd(), read | write)).filter(|(_, events)| *events != 0),
        ]
    }

    /// Moves what can be moved now.
    pub(super) fn turn(&mut self, [input, output, master]: [bool; 3]) {
        if input {
            self.read_input();
        }
        if master && self.to_output.is_empty() {
            self.read_master();
        }
        self.write_output(output);
        self.write_master();
    }

    /// After the payload's end: moves what its terminal still holds. True while there is output that waits for its
    /// reader, false when all is done.
    pub(super) fn drain(&mut self) -> bool {
        // Not needed any more, and the end of the terminal shows without it.
        self.slave = None;
        loop {
            self.write_output(false);
            if !self.to_output.is_empty() {
                return true;
            }
            if !self.open || self.leftovers == 0 {
                return false;
            }
            self.read_master();
            if self.to_output.is_empty() {
                return false;
            }
            self.leftovers = self.leftovers.saturating_sub(self.to_output.len());
        }
    }

    fn read_input(&mut self) {
        let Some(stream) = &self.input else { return };
        match self.to_master.fill(|buffer| stream.read(buffer)) {
            Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            // As in runc, the end of the input isn't passed on: a terminal's end-of-file character is only that in
            // canonical mode.
            Ok(0) | Err(_) => self.input = None,
        }
    }

    /// Reads until the buffer is full or nothing is there: the fewer and larger the writes, the better.
    fn read_master(&mut self) {
        while self.to_output.has_room() {
            match self.to_output.fill(|buffer| read(&self.master, buffer)) {
                Ok(1..) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                // EIO: every slave is closed, and ours hung up (vhangup(2)).
                Ok(0) | Err(_) => {
                    self.open = false;
                    return;
                }
            }
        }
    }

    fn write_output(&mut self, ready: bool) {
        let Some(stream) = &self.output else { return self.to_output.clear() };
        let mut may_write = ready || stream.never_blocks();
        while may_write && !self.to_output.is_empty() {
            match self.to_output.flush(|bytes| stream.write(bytes)) {
                Ok(()) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                // The reader is gone (EPIPE), the terminal hung up (EIO), the disk full.
                Err(_) => {
                    self.to_output.clear();
                    self.output = None;
                    return;
                }
            }
            may_write = stream.never_blocks();
        }
    }

    fn write_master(&mut self) {
        while !self.to_master.is_empty() {
            match self.to_master.flush(|bytes| write(&self.master, bytes)) {
                Ok(()) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => {
                    self.to_master.clear();
                    self.input = None;
                }
            }
        }
    }
}

/// One of the caller's streams. Its open file description belongs to others too, so O_NONBLOCK is never set on it.
#[derive(Debug)]
enum Stream {
    /// The same terminal or pipe, opened once more, non-blocking.
    Reopened(OwnedFd),
    Socket(BorrowedFd<'static>),
    /// A file, a plain device, or what can't be opened again: at most so many bytes at a time, and only after poll.
    Blocking(BorrowedFd<'static>, usize),
}

impl Stream {
    /// What fits into a pipe that poll calls writable (pipe(7), PIPE_BUF).
    const PIPE_BUF: usize = 4096;
    /// A terminal that poll calls writable has room for a few characters at least.
    const TERMINAL: usize = 64;

    fn new(fd: BorrowedFd<'static>, access: OFlag) -> Self {
        let Ok(status) = fstat(fd) else { return Self::Blocking(fd, BUFFER) };
        let reopen = || {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let flags = access | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
            open(path.as_str(), flags, Mode::empty()).ok().map(Self::Reopened)
        };
        match SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFSOCK => Self::Socket(fd),
            SFlag::S_IFIFO => reopen().unwrap_or(Self::Blocking(fd, Self::PIPE_BUF)),
            SFlag::S_IFCHR if nix::unistd::isatty(fd).unwrap_or(false) => {
                // Opening /dev/ptmx (5:2) again makes another terminal.
                let ptmx = major(status.st_rdev) == 5 && minor(status.st_rdev) == 2;
                let again = if ptmx { None } else { reopen() };
                again.unwrap_or(Self::Blocking(fd, Self::TERMINAL))
            }
            _ => Self::Blocking(fd, BUFFER),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Reopened(fd) => fd.as_fd(),
            Self::Socket(fd) | Self::Blocking(fd, _) => *fd,
        }
    }

    fn never_blocks(&self) -> bool {
        !matches!(self, Self::Blocking(..))
    }

    fn read(&self, buffer: &mut [u8]) -> nix::Result<usize> {
        match self {
            Self::Reopened(fd) => read(fd, buffer),
            Self::Socket(fd) => recv(fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT),
            Self::Blocking(fd, _) => read(fd, buffer),
        }
    }

    fn write(&self, bytes: &[u8]) -> nix::Result<usize> {
        match self {
            Self::Reopened(fd) => write(fd, bytes),
            Self::Socket(fd) => send(fd.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL),
            Self::Blocking(fd, most) => write(fd, &bytes[..bytes.len().min(*most)]),
        }
    }
}

/// Filled from one side until full, then emptied from the other.
#[derive(Debug)]
struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: vec![0; BUFFER].into_boxed_slice(), start: 0, end: 0 }
    }

    fn len(&self) -> usize {
        self.end - self.start
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn has_room(&self) -> bool {
        self.end < self.bytes.len()
    }

    fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Appends what `read` puts into the room that is left; zero is the end of what is read.
    fn fill(&mut self, read: impl FnOnce(&mut [u8]) -> nix::Result<usize>) -> nix::Result<usize> {
        let length = read(&mut self.bytes[self.end..])?;
        self.end += length;
        Ok(length)
    }

    /// Removes what `write` takes.
    fn flush(&mut self, write: impl FnOnce(&[u8]) -> nix::Result<usize>) -> nix::Result<()> {
        self.start += write(&self.bytes[self.start..self.end])?;
        if self.is_empty() {
            self.clear();
        }
        Ok(())
    }
}
