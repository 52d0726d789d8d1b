//! What only v1 needs: cpusets that start empty, the device controller's files, the freezer, and killing one by one.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use super::apply::apply;
use super::devices;
use super::dir::{BackOff, Dir, gone, read_at, write_at};
use super::knobs::Knob;
use crate::host::is_rootless;
use crate::sys;
use crate::sys::clone::{pidfd_open, signal_process};

/// What to make in one v1 hierarchy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Leaf {
    pub(crate) controllers: String,
    pub(crate) mount: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) knobs: Vec<Knob>,
    pub(crate) devices: Vec<devices::Write>,
}

/// Whether a list of controllers (`cpu,cpuacct`) has one.
pub(super) fn lists(controllers: &str, controller: &str) -> bool {
    controllers.split(',').any(|name| name == controller)
}

/// Sets the limits of a leaf that exists and has no process.
pub(super) fn prepare(leaf: &Leaf, dir: &Dir) -> Result<()> {
    if lists(&leaf.controllers, "cpuset") {
        inherit_cpuset(leaf, dir)?;
    }
    apply(dir, &leaf.knobs)?;
    apply_devices(dir, &leaf.devices)
}

/// A cgroup takes no process while its cpuset is empty, as a new one's is, so it gets its parent's where
/// config.json has none of its own.
fn inherit_cpuset(leaf: &Leaf, dir: &Dir) -> Result<()> {
    let Some(parent) = leaf.dir.parent().filter(|parent| parent.starts_with(&leaf.mount)) else { return Ok(()) };
    let parent = Dir::new(parent.to_owned());
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let inherited = filled(&parent, file, &leaf.mount)?;
        if !leaf.knobs.iter().any(|knob| knob.file == file) {
            dir.write_once(file, &inherited)?;
        }
    }
    Ok(())
}

/// The value of a cpuset's file; an empty one is filled from its parent first.
fn filled(dir: &Dir, file: &str, mount: &Path) -> Result<String> {
    let value = dir.read_once(file)?;
    let value = value.trim_end();
    let above = dir.path().parent().filter(|parent| parent.starts_with(mount));
    match above {
        Some(parent) if value.is_empty() => {
            let value = filled(&Dir::new(parent.to_owned()), file, mount)?;
            dir.write(file, &value)?;
            Ok(value)
        }
        _ => Ok(value.to_owned()),
    }
}

pub(super) fn apply_devices(dir: &Dir, writes: &[devices::Write]) -> Result<()> {
    let mut open: Option<(&str, OwnedFd)> = None;
    for write in writes {
        let fd = match open.take() {
            Some((file, fd)) if file == write.file => fd,
            _ => dir.open(write.file, OFlag::O_WRONLY).context("device rules")?,
        };
        match dir.write_to(&fd, write.file, &write.rule) {
            // The kernel lets nobody but root of the host change device rules. runc leaves them out for others, too:
            // their processes can make no nodes, and the nodes of the host keep their owners.
            Err(error) if error.errno() == Errno::EPERM && is_rootless() => {
                log::debug!("device rules aren't applied: not permitted without the rights of the host");
                return Ok(());
            }
            Err(error) if error.errno() == Errno::EPERM => {
                let what = format!("device rule \"{}\": the parent cgroup's rules don't permit it", write.rule);
                return Err(anyhow::Error::new(error).context(what));
            }
            other => other.with_context(|| format!("device rule \"{}\"", write.rule))?,
        }
        open = Some((write.file, fd));
    }
    Ok(())
}

/// Whether the freezer, by itself or by an ancestor, holds its processes.
pub(super) fn frozen(dir: &Dir) -> Result<bool> {
    frozen_by(dir.read("freezer.state"))
}

/// [`frozen`], as the file says.
pub(super) fn frozen_by(read: sys::Result<String>) -> Result<bool> {
    match read {
        Err(error) if gone(&error) => Ok(false),
        state => Ok(state?.trim_end() != "THAWED"),
    }
}

/// Whether it was asked to freeze, by itself and not by an ancestor.
pub(super) fn self_frozen(dir: &Dir) -> Result<bool> {
    // Most are thawed, and then one file is enough.
    if !frozen(dir)? {
        return Ok(false);
    }
    match dir.read("freezer.self_freezing") {
        Err(error) if gone(&error) => Ok(false),
        state => Ok(state?.trim_end() == "1"),
    }
}

/// Whether the freezer holds anything in it or below.
pub(super) fn any_frozen(dir: &Dir) -> Result<bool> {
    let mut found = false;
    dir.each(&mut |cgroup| {
        found |= match read_at(cgroup, "freezer.state") {
            Err(error) if gone(&error) => false,
            state => state?.trim_end() != "THAWED",
        };
        Ok(())
    })?;
    Ok(found)
}

/// Thaws it and everything below. What the kernel refuses shows as processes that don't die.
pub(super) fn thaw(dir: &Dir) -> Result<()> {
    dir.each(&mut |cgroup| {
        if let Err(error) = write_at(cgroup, "freezer.state", "THAWED") {
            log::debug!("thaw: {error}");
        }
        Ok(())
    })
}

/// Kills each process in `dir` and below, over and over until none is left, as they may fork meanwhile.
pub(super) fn kill(dir: &Dir, thaw: impl Fn() -> Result<()>, time: &mut BackOff) -> Result<()> {
    loop {
        let seen = dir.pids()?;
        if seen.is_empty() {
            return Ok(());
        }
        let opened: Vec<(Pid, Option<OwnedFd>)> = seen.iter().filter_map(|pid| open(*pid)).collect();
        // A pid may have gone to a stranger between the list and the open; then the next list doesn't have it.
        let still = dir.pids()?;
        let victims: Vec<(Pid, Option<OwnedFd>)> = opened.into_iter().filter(|(pid, _)| still.contains(pid)).collect();
        for (pid, pidfd) in &victims {
            if let Err(error) = signal_process(*pid, pidfd.as_ref().map(AsFd::as_fd), libc::SIGKILL)
                && error.errno() != Errno::ESRCH
            {
                return Err(anyhow::Error::new(error).context("kill a process of the container"));
            }
        }
        // Signals first: thawed before, they would run a little.
        thaw()?;
        let pidfds: Vec<OwnedFd> = victims.into_iter().filter_map(|(_, pidfd)| pidfd).collect();
        let more_time = if pidfds.is_empty() { time.pause() } else { wait_for(&pidfds, time)? };
        if !more_time {
            bail!("{} process(es) are still in cgroup {:?} after SIGKILL", dir.pids()?.len(), dir.path());
        }
    }
}

/// A process with its pidfd, or without where pidfd_open(2) can't be made; `None` if it is gone.
fn open(pid: Pid) -> Option<(Pid, Option<OwnedFd>)> {
    match pidfd_open(pid) {
        Ok(pidfd) => Some((pid, Some(pidfd))),
        Err(error) if error.errno() == Errno::ENOSYS => Some((pid, None)),
        Err(_) => None,
    }
}

/// Waits until all have ended; false when the time is up.
fn wait_for(pidfds: &[OwnedFd], time: &BackOff) -> Result<bool> {
    for pidfd in pidfds {
        loop {
            let left = PollTimeout::try_from(time.left()).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, left) {
                Ok(0) => return Ok(false),
                Ok(_) => break,
                Err(Errno::EINTR) => (),
                Err(errno) => return Err(errno).context("poll a pidfd"),
            }
        }
    }
    Ok(true)
}
