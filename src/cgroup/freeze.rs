//! Freezing and thawing: v2's `cgroup.freeze`, or v1's freezer where a host has that.
//!
//! What can't be frozen within [`LIMIT`] is thawed again: nothing is ever left half frozen. An ancestor that is frozen is
//! told apart: only whoever froze it can thaw what is below.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::uio::pread;

use super::dir::{Dir, gone};
use crate::sys::poll::{self, poll};
use crate::sys::{self, Context as _};

/// How long all processes may take to freeze; runc's.
const LIMIT: Duration = Duration::from_secs(10);
/// v1 gives no event, and a group that keeps forking may never get there unless it is thawed now and then (as runc
/// found: the kernel's documentation asks to try again).
const PAUSE: Duration = Duration::from_millis(1);
const ROUNDS_BETWEEN_THAWS: u32 = 50;

/// The hierarchy whose freezer holds the container.
#[derive(Debug, Clone, Copy)]
pub(super) enum Freezer<'a> {
    V1(&'a Dir),
    V2(&'a Dir),
}

/// Why not everything froze.
enum Hindered {
    /// Told to stop.
    Interrupted,
    TimeUp,
    Kernel(sys::Error),
}

impl From<sys::Error> for Hindered {
    fn from(error: sys::Error) -> Self {
        Self::Kernel(error)
    }
}

impl Freezer<'_> {
    fn dir(&self) -> &Dir {
        match self {
            Self::V1(dir) | Self::V2(dir) => dir,
        }
    }

    fn write(&self, on: bool) -> sys::Result<()> {
        match self {
            Self::V1(dir) => dir.write("freezer.state", if on { "FROZEN" } else { "THAWED" }),
            Self::V2(dir) => dir.write("cgroup.freeze", if on { "1" } else { "0" }),
        }
    }

    /// Freezes every process and waits until all are. Ended early when `stop` can be read. After a failure all run again.
    pub(super) fn freeze(&self, stop: BorrowedFd<'_>) -> Result<()> {
        let done = match self {
            Self::V1(dir) => self.freeze_v1(dir, stop),
            Self::V2(dir) => self.freeze_v2(dir, stop),
        };
        let Err(hindered) = done else { return Ok(()) };
        let why = match hindered {
            Hindered::Interrupted => anyhow::anyhow!("interrupted by a signal"),
            Hindered::TimeUp => {
                anyhow::anyhow!("not frozen after {} s: {}", LIMIT.as_secs(), stuck(self.dir()))
            }
            // Nothing to thaw in a cgroup that isn't there.
            Hindered::Kernel(error) if gone(&error) => return Err(error.into()),
            Hindered::Kernel(error) => error.into(),
        };
        match self.write(false) {
            Ok(()) => Err(why.context("unable to freeze (all processes run again)")),
            Err(error) => Err(why.context(format!("unable to freeze, nor to thaw again ({error})"))),
        }
    }

    fn freeze_v1(&self, dir: &Dir, stop: BorrowedFd<'_>) -> Result<(), Hindered> {
        let until = Instant::now() + LIMIT;
        for round in 1.. {
            self.write(true)?;
            if dir.read("freezer.state")?.trim_end() == "FROZEN" {
                return Ok(());
            }
            if round % ROUNDS_BETWEEN_THAWS == 0 {
                self.write(false)?;
            }
            if Instant::now() >= until {
                break;
            }
            let [stopped] = poll([Some((stop, poll::IN))], Some(PAUSE))?;
            if stopped {
                return Err(Hindered::Interrupted);
            }
        }
        Err(Hindered::TimeUp)
    }

    fn freeze_v2(&self, dir: &Dir, stop: BorrowedFd<'_>) -> Result<(), Hindered> {
        let until = Instant::now() + LIMIT;
        let events = dir.open("cgroup.events", OFlag::O_RDONLY)?;
        self.write(true)?;
        loop {
            let mut text = [0; 256];
            let got = match pread(&events, &mut text, 0) {
                Err(Errno::EINTR) => continue,
                other => other.call("read", dir.path().join("cgroup.events"))?,
            };
            if text.get(..got).is_some_and(|text| text.split(|byte| *byte == b'\n').any(|line| line == b"frozen 1")) {
                return Ok(());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Hindered::TimeUp);
            }
            // An event that came since the read is still pending.
            let [_, stopped] = poll([Some((events.as_fd(), poll::PRI)), Some((stop, poll::IN))], Some(left))?;
            if stopped {
                return Err(Hindered::Interrupted);
            }
        }
    }

    /// Thaws it; an error if an ancestor keeps it frozen all the same.
    pub(super) fn thaw(&self) -> Result<()> {
        self.write(false)?;
        match self.frozen_ancestor() {
            None => Ok(()),
            Some(path) => bail!("thawed, but cgroup {path:?} above it is frozen and keeps it so: thaw that one"),
        }
    }

    /// The nearest ancestor that is frozen by itself.
    pub(super) fn frozen_ancestor(&self) -> Option<PathBuf> {
        let file = match self {
            Self::V1(_) => "freezer.self_freezing",
            Self::V2(_) => "cgroup.freeze",
        };
        for path in self.dir().path().ancestors().skip(1) {
            // The root of a hierarchy has none.
            let text = Dir::new(path.to_owned()).read(file).ok()?;
            if text.trim_end() == "1" {
                return Some(path.to_owned());
            }
        }
        None
    }
}

/// Which threads keep a cgroup from being frozen: those that aren't where the kernel keeps frozen ones.
fn stuck(dir: &Dir) -> String {
    const SHOWN: usize = 3;
    let pids = dir.pids().unwrap_or_default();
    let mut found: Vec<String> = Vec::new();
    for pid in pids {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        found.extend(tasks.filter_map(|task| unfrozen(&task.path())));
    }
    match found.len() {
        0 => "every process looks frozen, the kernel doesn't say so".to_owned(),
        more if more > SHOWN => format!("{} and {} more", found[..SHOWN].join(", "), more - SHOWN),
        _ => found.join(", "),
    }
}

/// A thread that isn't frozen: its id, name, state and what it waits for, as far as the kernel tells.
fn unfrozen(task: &std::path::Path) -> Option<String> {
    let stat = sys::read_small(task.join("stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (name, rest) = stat.rsplit_once(") ")?;
    let (id, name) = name.split_once(" (")?;
    let state = rest.chars().next()?;
    let wchan = sys::read_small(task.join("wchan")).unwrap_or_default();
    let wchan = String::from_utf8_lossy(&wchan).into_owned();
    let frozen = ["refrigerator", "freezer_trap", "get_signal", "cgroup_enter_frozen"];
    if matches!(state, 'Z' | 'X') || frozen.iter().any(|place| wchan.contains(place)) {
        return None;
    }
    let waits = if matches!(wchan.as_str(), "" | "0") { String::new() } else { format!(", in {wchan}") };
    let meaning = match state {
        'D' => "uninterruptible sleep",
        'R' => "running",
        'S' => "sleeping",
        _ => "stopped",
    };
    Some(format!("process {id} ({name:?}) is in state {state} ({meaning}{waits})"))
}
