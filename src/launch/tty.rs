//! Terminals from the outside: the console socket, raw mode of the caller's terminal, the window's size.
//!
//! The container process opens the terminal in its own devpts and sends the master; with `--console-socket` it goes to
//! the engine, without (`run` in the foreground) to the runtime, which relays it (see [`super::supervise`]).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect as connect_socket, socket};
use nix::sys::stat::Mode;
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::sys::socket::{receive_fds, send_fds};
use crate::sys::tty::{set_size, size};
use crate::sys::{self, Context as _, fs};

#[cfg(test)]
pub(super) mod tests;

/// Connects to the `--console-socket`.
pub(crate) fn connect(path: &Path) -> Result<OwnedFd> {
    connect_for("--console-socket", path)
}

/// Connects to a listening AF_UNIX stream socket; an error names the option it was given by.
pub(crate) fn connect_for(option: &str, path: &Path) -> Result<OwnedFd> {
    connect_stream(path).with_context(|| format!("{option}: {path:?}"))
}

fn connect_stream(path: &Path) -> sys::Result<OwnedFd> {
    let socket =
        socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).call("socket", "unix stream")?;
    let (_at, address) = address(path)?;
    loop {
        match connect_socket(socket.as_raw_fd(), &address) {
            Err(Errno::EINTR) => {}
            result => return result.call("connect", path).map(|()| socket),
        }
    }
}

/// Whether a name is that of an abstract socket (unix(7)), as Go's net.Dial, and so runc, reads it: `@` and the name.
pub(crate) fn is_abstract(path: &Path) -> bool {
    path.as_os_str().as_bytes().starts_with(b"@")
}

/// The address of a socket, abstract or in the file system, and what it must not outlive.
pub(super) fn address(path: &Path) -> sys::Result<(Option<OwnedFd>, UnixAddr)> {
    if let Some(name) = path.as_os_str().as_bytes().strip_prefix(b"@") {
        return Ok((None, UnixAddr::new_abstract(name).call("connect", path)?));
    }
    match UnixAddr::new(path) {
        Ok(address) => Ok((None, address)),
        // Longer than sockaddr_un holds (youki#2915), as a state folder below a test's temporary folder easily is.
        Err(Errno::ENAMETOOLONG) => {
            let at = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).call("open", path)?;
            let short = format!("/proc/self/fd/{}", at.as_raw_fd());
            let address = UnixAddr::new(short.as_str()).call("connect", path)?;
            Ok((Some(at), address))
        }
        Err(errno) => Err(errno).call("connect", path),
    }
}

/// Sends one descriptor with a payload, which must not be empty (a stream carries no descriptor without a byte), and
/// closes the connection: whoever reads to its end waits for nothing else. Waits for no answer: go-runc accepts the
/// connection only after `create` has returned.
pub(crate) fn send(socket: OwnedFd, payload: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
    ensure!(!payload.is_empty(), "internal error: a descriptor sent without a payload");
    Ok(send_fds(socket.as_fd(), payload, &[fd])?)
}

/// Receives the master that [`send`] sent and makes it ready for the relay, before the payload can write to it.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    // As long as go-runc takes from any runtime.
    let mut payload = [0; 4096];
    let (length, fds) = receive_fds(socket, &mut payload)?;
    let count = fds.len();
    let Ok([master]) = <[OwnedFd; 1]>::try_from(fds) else {
        bail!("expected a terminal from the container process, got {length} bytes and {count} descriptors");
    };
    leave_newlines_alone(master.as_fd())?;
    copy_size(master.as_fd());
    Ok(master)
}

/// The caller's terminal makes CR LF of a newline already (see [`Raw`]), and a pipe wants what the payload wrote.
fn leave_newlines_alone(master: BorrowedFd<'_>) -> sys::Result<()> {
    // The attributes asked of a master are those of its slave (ioctl_tty(2)).
    let mut termios = tcgetattr(master).call("tcgetattr", "terminal of the container")?;
    termios.output_flags.remove(OutputFlags::ONLCR);
    tcsetattr(master, SetArg::TCSANOW, &termios).call("tcsetattr", "terminal of the container")
}

/// Gives the master the size of the caller's terminal, should one of the standard streams be one that has a size.
pub(crate) fn copy_size(master: BorrowedFd<'_>) {
    let host = (0..=2).find_map(|number| size(fs::borrow(number)).filter(|size| size.ws_row > 0 && size.ws_col > 0));
    if let Some(host) = host {
        // The terminal may be hung up meanwhile: then nobody looks at it.
        let _ = set_size(master, host);
    }
}

/// The caller's terminal in raw mode. Dropping it restores what was.
#[derive(Debug)]
pub(crate) struct Raw<'a> {
    tty: BorrowedFd<'a>,
    saved: Termios,
}

impl Raw<'static> {
    /// Standard input, if it is a terminal.
    pub(crate) fn stdin() -> Result<Option<Self>> {
        Raw::of(fs::borrow(0))
    }
}

impl<'a> Raw<'a> {
    fn of(tty: BorrowedFd<'a>) -> Result<Option<Self>> {
        let saved = match tcgetattr(tty) {
            Ok(saved) => saved,
            // ENOTTY of nearly everything; a terminal that is gone answers EIO, a few devices EINVAL.
            Err(_) => return Ok(None),
        };
        let mut raw = saved.clone();
        cfmakeraw(&mut raw);
        // As containerd's console package, and so runc, has it: lines end as they did before (-ONLCR in the container).
        raw.output_flags.insert(OutputFlags::OPOST);
        // Not TCSADRAIN: output that is stopped (^S) would hang the runtime.
        tcsetattr(tty, SetArg::TCSANOW, &raw).call("tcsetattr", "standard input")?;
        Ok(Some(Self { tty, saved }))
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(self.tty, SetArg::TCSANOW, &self.saved);
    }
}
