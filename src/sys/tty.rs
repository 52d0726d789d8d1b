//! Pseudoterminals: ioctl_tty(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::error::{Result, check};

/// Unlocks the slave of a master.
pub(crate) fn unlock(master: BorrowedFd<'_>) -> Result<()> {
    let off: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const off) };
    check("ioctl TIOCSPTLCK", ret.into(), String::new).map(drop)
}

/// Opens the slave of a master without any path (TIOCGPTPEER, 4.13): nothing in the container can stand in for it.
pub(crate) fn peer(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags as an integer.
    let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    let fd = check("ioctl TIOCGPTPEER", ret.into(), String::new)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Makes a terminal the controlling terminal of this session.
pub(crate) fn set_controlling(slave: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    let ret = unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) };
    check("ioctl TIOCSCTTY", ret.into(), String::new).map(drop)
}

/// A terminal's size, or none where the descriptor isn't a terminal.
pub(crate) fn size(tty: BorrowedFd<'_>) -> Option<libc::winsize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ fills in one winsize.
    let ret = unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (ret == 0).then_some(size)
}

/// Sets a terminal's size.
pub(crate) fn set_size(tty: BorrowedFd<'_>, size: libc::winsize) -> Result<()> {
    // SAFETY: TIOCSWINSZ reads one winsize.
    let ret = unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    check("ioctl TIOCSWINSZ", ret.into(), String::new).map(drop)
}
