//! Doing it, outside: what runs in the caller's namespaces.
//!
//! [`create`] is the order of it, the mirror of [`crate::init::enter`]; then [`start`], [`supervise`] and [`delete`].

mod cover;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod descriptors;
pub(crate) mod exec;
pub(crate) mod hooks;
mod idmapped;
mod idmaps;
mod listener;
pub(crate) mod lost;
pub(crate) mod notify;
pub(crate) mod prepare;
pub(crate) mod process;
pub(crate) mod start;
pub(crate) mod supervise;
pub(crate) mod tty;

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::sys::Context;

/// The end of the terminal's socket that goes into the container, and ours if the terminal comes to us.
fn terminal_sockets(wanted: bool, socket: Option<&Path>) -> anyhow::Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    if !wanted {
        return Ok((None, None));
    }
    if let Some(path) = socket {
        return Ok((Some(tty::connect(path)?), None));
    }
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
        .call("socketpair", "terminal")?;
    Ok((Some(theirs), Some(ours)))
}
