//! Descriptors over sockets: unix(7), SCM_RIGHTS.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::error::{Error, Result};

/// recvmsg(2): how many bytes came, and the descriptors with them, close-on-exec. Zero bytes are the end of a stream.
pub(crate) fn receive_fds(socket: BorrowedFd<'_>, payload: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    // Room for two: one too many is seen and closed, what is beyond the kernel closes.
    let mut control = nix::cmsg_space!([RawFd; 2]);
    let failed = |errno| Error::new("recvmsg", "", errno);
    loop {
        let mut iov = [IoSliceMut::new(payload)];
        let message = match recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)
        {
            Err(Errno::EINTR) => continue,
            message => message.map_err(failed)?,
        };
        let rights = message.cmsgs().map_err(failed)?.filter_map(|part| match part {
            ControlMessageOwned::ScmRights(numbers) => Some(numbers),
            _ => None,
        });
        // SAFETY: the kernel has just installed these descriptors, and nobody else owns them.
        let fds = rights.flatten().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
        return Ok((message.bytes, fds));
    }
}
