//! pidfd_open(2) and pidfd_send_signal(2): signals that can't reach a stranger who got the pid since.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::unistd::Pid;

use super::Result;
use super::error::check;

/// pidfd_open(2), close-on-exec by birth.
pub(crate) fn pidfd_open(pid: Pid) -> Result<OwnedFd> {
    // SAFETY: takes two integers.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let ret = check("pidfd_open", ret, || pid.to_string())?;
    #[allow(clippy::cast_possible_truncation)] // a descriptor is an int
    let fd = ret as libc::c_int;
    // SAFETY: pidfd_open returned a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// pidfd_send_signal(2).
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: a null siginfo makes the kernel fill it in as kill(2) does; the rest are integers.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, 0, 0) };
    check("pidfd_send_signal", ret, || format!("signal {signal}")).map(drop)
}
