//! The socket of a service manager, and what comes to it.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::sockopt::{PassCred, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials, bind, recvmsg,
    setsockopt, socket,
};
use nix::sys::time::TimeVal;

use super::TIMEOUT;

/// The socket of a service manager, as systemd listens.
#[derive(Debug)]
pub struct Manager {
    socket: OwnedFd,
    pub name: String,
}

/// What a manager hears.
#[derive(Debug)]
pub struct Heard {
    pub text: String,
    /// Who says it, as the kernel knows.
    pub pid: i32,
    pub fds: Vec<OwnedFd>,
}

impl Manager {
    pub fn at(path: &Path) -> Self {
        Self::bind(&UnixAddr::new(path).unwrap(), path.to_str().unwrap())
    }

    pub fn bind(address: &UnixAddr, name: &str) -> Self {
        let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(socket.as_raw_fd(), address).unwrap();
        setsockopt(&socket, PassCred, &true).unwrap();
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(TIMEOUT.as_secs().cast_signed(), 0)).unwrap();
        Self { socket, name: name.into() }
    }

    /// The next message.
    #[track_caller]
    pub fn hear(&self) -> Heard {
        self.try_hear(MsgFlags::empty()).expect("a message in time")
    }

    /// The next message, if there is one.
    pub fn waiting(&self) -> Option<Heard> {
        self.try_hear(MsgFlags::MSG_DONTWAIT)
    }

    fn try_hear(&self, flags: MsgFlags) -> Option<Heard> {
        let mut buffer = [0; 8192];
        let mut parts = [std::io::IoSliceMut::new(&mut buffer)];
        let mut space = nix::cmsg_space!([i32; 16], UnixCredentials);
        let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut space), flags).ok()?;
        let (mut pid, mut fds) = (0, Vec::new());
        for control in message.cmsgs().unwrap() {
            match control {
                ControlMessageOwned::ScmCredentials(credentials) => pid = credentials.pid(),
                ControlMessageOwned::ScmRights(rights) => fds.extend(rights),
                other => panic!("{other:?}"),
            }
        }
        // SAFETY: the kernel has just made these descriptors for us.
        let fds = fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
        let length = message.bytes;
        Some(Heard { text: String::from_utf8(buffer[..length].to_vec()).unwrap(), pid, fds })
    }

    /// Asserts what the next message is, and returns who says it.
    #[track_caller]
    pub fn hears(&self, text: &str) -> i32 {
        let heard = self.hear();
        assert_eq!((heard.text.as_str(), heard.fds.len()), (text, 0));
        heard.pid
    }
}
