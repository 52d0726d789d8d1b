//! poll(2).

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;

use super::error::{Result, check};

pub(crate) const IN: i16 = libc::POLLIN;
pub(crate) const OUT: i16 = libc::POLLOUT;
/// An event of a cgroup's file.
pub(crate) const PRI: i16 = libc::POLLPRI;

/// Waits until one of the descriptors is ready (or in error, or hung up), and says which are. `None` leaves a place out;
/// without a timeout it waits for ever, and with one of zero not at all. A signal ends it early with nothing ready.
pub(crate) fn poll<const N: usize>(
    wanted: [Option<(BorrowedFd<'_>, i16)>; N],
    timeout: Option<Duration>,
) -> Result<[bool; N]> {
    // The kernel passes over negative descriptors.
    let mut fds = wanted.map(|place| match place {
        Some((fd, events)) => libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 },
        None => libc::pollfd { fd: -1, events: 0, revents: 0 },
    });
    // Rounded up: a caller with a deadline would spin through the last millisecond.
    let milliseconds = match timeout {
        None => -1,
        Some(Duration::ZERO) => 0,
        Some(left) => i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX),
    };
    // SAFETY: pointer and length describe an array that lives across the call.
    let ret = unsafe { libc::poll(fds.as_mut_ptr(), N as libc::nfds_t, milliseconds) };
    match check("poll", ret.into(), String::new) {
        Err(error) if error.errno() == Errno::EINTR => Ok([false; N]),
        result => result.map(|_| fds.map(|fd| fd.revents != 0)),
    }
}
