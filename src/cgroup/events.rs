//! What happens in a cgroup, as descriptors to poll: an out-of-memory kill, and the end of the last process.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::uio::pread;

use super::dir::{Dir, gone};
use super::group::Group;
use crate::sys::Context as _;
use crate::sys::poll;

/// A watched cgroup.
#[derive(Debug)]
pub(crate) struct Watch {
    oom: Option<Oom>,
    /// v2's cgroup.events.
    events: Option<OwnedFd>,
}

/// How out-of-memory kills are noticed.
#[derive(Debug)]
enum Oom {
    /// v1: the kernel counts in an eventfd (cgroup-v1/memory.rst, 9 and 10); and memory.oom_control.
    V1(EventFd, OwnedFd),
    /// v2: memory.events, and the kills that were seen in it.
    V2(OwnedFd, u64),
}

/// Begins to watch. What the host can't tell is never told.
pub(super) fn watch(group: &Group) -> Result<Watch> {
    let oom = match (group.with_controller("memory"), group.v2()) {
        (Some(dir), _) => register(dir).context("watch for out-of-memory kills")?,
        (None, Some(dir)) => open(dir, "memory.events")?.map(|file| {
            let seen = kills(&file);
            Oom::V2(file, seen)
        }),
        (None, None) => None,
    };
    let events = group.v2().map(|dir| open(dir, "cgroup.events")).transpose()?.flatten();
    Ok(Watch { oom, events })
}

fn open(dir: &Dir, file: &str) -> Result<Option<OwnedFd>> {
    match dir.open(file, OFlag::O_RDONLY) {
        Err(error) if gone(&error) => Ok(None),
        other => Ok(other.map(Some)?),
    }
}

/// cgroup.event_control takes the numbers of an eventfd and of memory.oom_control.
fn register(dir: &Dir) -> Result<Option<Oom>> {
    let Some(control) = open(dir, "memory.oom_control")? else { return Ok(None) };
    let eventfd = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).call("eventfd", "")?;
    let numbers = format!("{} {}", eventfd.as_fd().as_raw_fd(), control.as_raw_fd());
    match dir.write("cgroup.event_control", &numbers) {
        Err(error) if gone(&error) => Ok(None),
        written => Ok(written.map(|()| Some(Oom::V1(eventfd, control)))?),
    }
}

/// The `oom_kill` line of memory.events; nothing once the cgroup is gone.
fn kills(file: &OwnedFd) -> u64 {
    value(file, "oom_kill ").unwrap_or_default()
}

fn value(file: &OwnedFd, key: &str) -> Option<u64> {
    let mut text = [0; 512];
    let got = loop {
        match pread(file, &mut text, 0) {
            Err(Errno::EINTR) => (),
            other => break other.ok()?,
        }
    };
    let text = std::str::from_utf8(text.get(..got)?).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.parse().ok())
}

impl Watch {
    /// What to poll for: out-of-memory kills, and the end.
    pub(crate) fn interest(&self) -> [Option<(BorrowedFd<'_>, i16)>; 2] {
        let oom = self.oom.as_ref().map(|oom| match oom {
            Oom::V1(eventfd, _) => (eventfd.as_fd(), poll::IN),
            Oom::V2(file, _) => (file.as_fd(), poll::PRI),
        });
        [oom, self.events.as_ref().map(|file| (file.as_fd(), poll::PRI))]
    }

    /// Whether there was an out-of-memory kill since the last time.
    pub(crate) fn killed(&mut self) -> bool {
        match &mut self.oom {
            None => false,
            // The removal of the cgroup, whose files can't be read then, counts one.
            Some(Oom::V1(eventfd, control)) => {
                let count = eventfd.read().unwrap_or_default();
                count > u64::from(value(control, "under_oom ").is_none())
            }
            Some(Oom::V2(file, seen)) => {
                let now = kills(file);
                now > std::mem::replace(seen, now.max(*seen))
            }
        }
    }

    /// Whether no process is left, as far as the cgroup tells: none where it doesn't.
    pub(crate) fn empty(&self) -> Option<bool> {
        // A file of a removed cgroup can't be read.
        self.events.as_ref().map(|file| value(file, "populated ").is_none_or(|populated| populated == 0))
    }
}
