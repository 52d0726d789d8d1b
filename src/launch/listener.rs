//! The listener of a seccomp filter with SCMP_ACT_NOTIFY, handed to an agent (config-linux.md, "Seccomp"). Runs outside.
//!
//! The process says which descriptor the listener will be, then loads the filter; from there on any of its system calls
//! may wait for the agent, so it has no further part in this: the descriptor is copied out of it (pidfd_getfd(2)) and
//! sent by the runtime, which the filter doesn't bind. What can only be seen by looking again (whether the filter is
//! loaded yet) takes the time of one system call.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::Pid;
use serde::Serialize;

use super::tty;
use crate::plan::task::Task;
use crate::spec::{OCI_VERSION, State};
use crate::sync::Outside;
use crate::sys::clone::pidfd_getfd;
use crate::sys::{self, Context};

const POINTER: &str = "config.json: /linux/seccomp/listenerPath";

/// A connection to the agent, made before anything else is: that it isn't there is then an early error.
#[derive(Debug)]
pub(crate) struct Agent {
    socket: OwnedFd,
    metadata: String,
}

/// What the agent is told (config-linux.md, "The Container Process State").
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'a str,
    /// The names of the descriptors that come with it, in order.
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: &'a State,
}

impl Agent {
    /// Connects, if the filter needs an agent.
    pub(crate) fn connect(task: &Task) -> Result<Option<Self>> {
        let Some(listener) = &task.listener else { return Ok(None) };
        let socket = tty::connect_for(POINTER, &listener.path)?;
        Ok(Some(Self { socket, metadata: listener.metadata.clone() }))
    }

    /// Fetches the listener from the process when its filter is loaded, sends it, and closes the connection at once: an
    /// agent may read to its end before it answers the first notification, which the process may be waiting for.
    ///
    /// `number`: which of its descriptors. `channel`: says something when loading has failed, and the process waits
    /// at the next barrier or is gone.
    pub(crate) fn hand_over(
        self,
        channel: &Outside,
        (pid, pidfd): (Pid, BorrowedFd<'_>),
        number: i32,
        state: &State,
    ) -> Result<()> {
        // What the next message says is why there is none.
        let Some(listener) = fetch(channel, pidfd, number)? else { return Ok(()) };
        let state = ContainerProcessState {
            oci_version: OCI_VERSION,
            fds: ["seccompFd"],
            pid: pid.as_raw(),
            metadata: &self.metadata,
            state,
        };
        send(self.socket.as_fd(), &serde_json::to_vec(&state)?, listener.as_fd()).context(POINTER)
    }
}

/// The listener, or `None` if the process has none although it has come further.
fn fetch(channel: &Outside, pidfd: BorrowedFd<'_>, number: i32) -> Result<Option<OwnedFd>> {
    // In milliseconds; loading a filter takes some 10 to 100 microseconds.
    let mut timeout = PollTimeout::ZERO;
    loop {
        // First whether there is a message, then whether there is a listener: in this order none is overlooked.
        let said = match poll(&mut [PollFd::new(channel.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => false,
            result => result.call("poll", "sync channel")? > 0,
        };
        match pidfd_getfd(pidfd, number) {
            Err(error) if error.errno() == Errno::EBADF && !said => timeout = PollTimeout::from(1u8),
            Err(error) if matches!(error.errno(), Errno::EBADF | Errno::ESRCH) => return Ok(None),
            Err(error) if error.errno() == Errno::EPERM => {
                return Err(error).context("the seccomp listener can't be fetched without CAP_SYS_PTRACE");
            }
            listener => return Ok(Some(listener?)),
        }
    }
}

/// The descriptor goes with the first part of the text; a text longer than the socket's buffer goes in several.
fn send(socket: BorrowedFd<'_>, text: &[u8], fd: BorrowedFd<'_>) -> sys::Result<()> {
    let fds = [fd.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let mut sent = 0;
    while let Some(rest) = text.get(sent..).filter(|rest| !rest.is_empty()) {
        let rights = if sent == 0 { rights.as_slice() } else { &[] };
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(rest)], rights, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            length => sent += length.call("sendmsg", "seccomp listener")?,
        }
    }
    Ok(())
}
