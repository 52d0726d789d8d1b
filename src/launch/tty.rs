//! Terminals from the outside: the console socket, raw mode of the caller's terminal, the window's size.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Result, bail};

/// Connects to the `--console-socket`.
pub(crate) fn connect(path: &Path) -> Result<OwnedFd> {
    connect_for("--console-socket", path)
}

/// Connects to a listening AF_UNIX stream socket; an error names the option it was given by.
pub(crate) fn connect_for(option: &str, path: &Path) -> Result<OwnedFd> {
    bail!("{option} {path:?}: not implemented")
}

/// Sends one descriptor with a payload, which must not be empty, and waits for nothing.
pub(crate) fn send(socket: BorrowedFd<'_>, payload: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
    let _ = (socket, payload, fd);
    bail!("not implemented")
}

/// Receives the terminal that [`send`] sent.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    let _ = socket;
    bail!("not implemented")
}
