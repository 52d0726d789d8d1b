//! Descriptors over sockets: unix(7), SCM_RIGHTS.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use super::error::{Error, Result};

/// The most descriptors that one message carries (unix(7), SCM_MAX_FD).
const MOST_FDS: usize = 253;

/// What came with one recvmsg(2); the descriptors are close-on-exec.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) length: usize,
    /// Whether all of a datagram found room.
    pub(crate) whole: bool,
    pub(crate) fds: Vec<OwnedFd>,
}

/// sendmsg(2) of a payload, which may not be empty, with descriptors.
pub(crate) fn send_fds(socket: BorrowedFd<'_>, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let iov = [IoSlice::new(payload)];
    let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &iov, &rights, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            result => return result.map(drop).map_err(|errno| Error::new("sendmsg", "descriptor", errno)),
        }
    }
}

/// recvmsg(2): how many bytes came, and the descriptors with them. Zero bytes are the end of a stream.
pub(crate) fn receive_fds(socket: BorrowedFd<'_>, payload: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    // Room for two: one too many is seen and closed, what is beyond the kernel closes.
    let mut control = nix::cmsg_space!([RawFd; 2]);
    receive(socket, payload, &mut control).map(|received| (received.length, received.fds))
}

/// recvmsg(2) of one datagram with every descriptor that it brings; EAGAIN from a non-blocking socket that has none.
pub(crate) fn receive_datagram(socket: BorrowedFd<'_>, payload: &mut [u8]) -> Result<Received> {
    let mut control = nix::cmsg_space!([RawFd; MOST_FDS]);
    receive(socket, payload, &mut control)
}

fn receive(socket: BorrowedFd<'_>, payload: &mut [u8], control: &mut [u8]) -> Result<Received> {
    let failed = |errno| Error::new("recvmsg", "", errno);
    loop {
        let mut iov = [IoSliceMut::new(payload)];
        let message = match recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(control), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => continue,
            message => message.map_err(failed)?,
        };
        let rights = message.cmsgs().map_err(failed)?.filter_map(|part| match part {
            ControlMessageOwned::ScmRights(numbers) => Some(numbers),
            _ => None,
        });
        // SAFETY: the kernel has just installed these descriptors, and nobody else owns them.
        let fds = rights.flatten().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
        return Ok(Received { length: message.bytes, whole: !message.flags.contains(MsgFlags::MSG_TRUNC), fds });
    }
}
