//! Which process is meant, and whether it is alive.
//!
//! Alive is what the pidfd says: it can be read as soon as the last thread has ended. The letter of proc_pid_stat(5) is that
//! of the first thread, which may end long before the others; and a /proc that hides a process (`hidepid`) says nothing
//! about it. So a process counts as ended only where something shows that it is.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::sys::statfs::fstatfs;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::sys;
use crate::sys::Context as _;
use crate::sys::clone::{pidfd_open, pidfd_open_thread, signal_process};
use crate::sys::poll::{self, poll};

/// Of field 22 of /proc/PID/stat: the same on every architecture that tare is built for.
pub(crate) const TICKS_PER_SECOND: u64 = 100;

/// A process that can't be mistaken for a later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// Field 22 of /proc/PID/stat: clock ticks since boot. 0 if /proc hid the process from its creator.
    pub(crate) start_time: u64,
    /// The number of its pidfd's inode, which no other process has until the next boot (pidfs, Linux 6.9). For who can't
    /// see the process in /proc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) inode: Option<u64>,
}

/// A live process, held.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) pidfd: OwnedFd,
    /// The letter of its first thread's state (proc_pid_stat(5)); none where /proc hides the process.
    pub(crate) letter: Option<u8>,
}

impl Live {
    /// Whether its first thread has ended: what belongs to that thread, such as its namespaces, is gone.
    pub(crate) fn has_lost_its_first_thread(&self) -> bool {
        self.letter.is_some_and(is_dead)
    }

    /// A thread of the process `identity` that hasn't ended, and a pidfd of that thread; none when the process is over.
    pub(crate) fn another_thread(&self, identity: Identity) -> Result<Option<(i32, OwnedFd)>> {
        let threads = format!("/proc/{}/task", identity.pid);
        for entry in std::fs::read_dir(&threads).call("open", &threads)?.flatten() {
            let Some(tid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let letter = || parse_stat(&sys::read_small(format!("{threads}/{tid}/stat")).ok()?).map(|stat| stat.letter);
            if letter().is_none_or(is_dead) {
                continue;
            }
            let pidfd = match pidfd_open_thread(Pid::from_raw(tid)) {
                Err(error) if error.errno() == Errno::ESRCH => continue,
                Err(error) if error.errno() == Errno::EINVAL => {
                    bail!("the first thread of process {} has ended, and joining another takes Linux 6.9", identity.pid)
                }
                pidfd => pidfd?,
            };
            // The number may have gone to a stranger before the pidfd was open: then the process doesn't have it any more.
            if letter().is_some() && !has_ended(&self.pidfd)? {
                return Ok(Some((tid, pidfd)));
            }
        }
        Ok(None)
    }
}

/// What a look at a pid shows.
#[derive(Debug)]
enum Found {
    Live(Live),
    /// That very process has ended, whoever has its pid now.
    Ended,
    /// A process with that pid lives, and nothing tells whether it is that one.
    Hidden,
}

/// What /proc/PID/stat tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) letter: u8,
    /// PF_* of the kernel's include/linux/sched.h.
    pub(super) flags: u64,
    pub(super) threads: u64,
    pub(super) start_time: u64,
}

/// What is seen of a process that is alive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// None where /proc hides the process.
    stat: Option<Stat>,
}

impl Seen {
    /// Whether the process was made by fork(2) or the like and has not executed a program since; none where /proc hides it. A
    /// process that has can't get the flag back, and nothing that it, or another one in its container, holds open keeps it.
    pub(crate) fn has_not_executed(self) -> Option<bool> {
        const PF_FORKNOEXEC: u64 = 0x40;
        self.stat.map(|stat| stat.flags & PF_FORKNOEXEC != 0)
    }
}

fn is_dead(letter: u8) -> bool {
    matches!(letter, b'Z' | b'X')
}

impl Identity {
    /// The identity of a process that this one has just made and holds, and what is seen of it.
    pub(crate) fn of_new(pid: Pid, pidfd: BorrowedFd<'_>) -> Result<(Self, Seen)> {
        let stat = sys::read_once(format!("/proc/{pid}/stat")).ok().and_then(|stat| parse_stat(&stat));
        let inode = fstat(pidfd).call("fstat", "pidfd")?.st_ino;
        if stat.is_none() && !on_pidfs(pidfd)? {
            return Err(hidden(pid.as_raw()));
        }
        let start_time = stat.map_or(0, |stat| stat.start_time);
        Ok((Self { pid: pid.as_raw(), start_time, inode: Some(inode) }, Seen { stat }))
    }

    /// This process.
    pub(crate) fn own() -> Result<Self> {
        let stat = sys::read_once("/proc/self/stat")?;
        let parsed = || {
            let pid = stat.split(|byte| *byte == b' ').next()?;
            Some((std::str::from_utf8(pid).ok()?.parse().ok()?, parse_stat(&stat)?.start_time))
        };
        let (pid, start_time) = parsed().context("internal error: /proc/self/stat is of another form")?;
        Ok(Self { pid, start_time, inode: None })
    }

    /// Whether that very process is alive. One of which nothing shows that it has ended is.
    pub(crate) fn alive(self) -> bool {
        self.seen().is_some()
    }

    /// What is seen of that very process, if it is [alive](Self::alive).
    pub(crate) fn seen(self) -> Option<Seen> {
        let stat = self.stat();
        let lives = match stat {
            // Most are found so, with no need for a pidfd.
            Some(stat) if self.start_time != 0 && stat.start_time != self.start_time => false,
            Some(stat) if self.start_time != 0 && !is_dead(stat.letter) => true,
            _ => !matches!(self.find(sys::read_small), Ok(Found::Ended)),
        };
        lives.then(|| Seen { stat: stat.filter(|_| self.start_time != 0) })
    }

    /// A pidfd of that very process, or `None` when it has ended: the start time is compared after the pidfd is open, so a
    /// recycled pid is never acted on. ENOSYS where a sandbox around the runtime doesn't know pidfds.
    pub(crate) fn pidfd(self) -> Result<Option<OwnedFd>> {
        Ok(self.live()?.map(|live| live.pidfd))
    }

    /// [`Self::pidfd`], with the letter of the process's state.
    pub(crate) fn live(self) -> Result<Option<Live>> {
        // Once in the life of this process, or a few times: its descriptor is closed with others.
        match self.find(sys::read_once)? {
            Found::Live(live) => Ok(Some(live)),
            Found::Ended => Ok(None),
            Found::Hidden => Err(hidden(self.pid)),
        }
    }

    fn stat(self) -> Option<Stat> {
        self.stat_by(sys::read_small)
    }

    fn stat_by(self, read: fn(String) -> sys::Result<Vec<u8>>) -> Option<Stat> {
        parse_stat(&read(format!("/proc/{}/stat", self.pid)).ok()?)
    }

    /// Looks for that very process; `read` is how its file is read.
    fn find(self, read: fn(String) -> sys::Result<Vec<u8>>) -> Result<Found> {
        let pidfd = match pidfd_open(Pid::from_raw(self.pid)) {
            // There is none, or the pid is a thread's by now: not the process that this was.
            Err(error) if matches!(error.errno(), Errno::ESRCH | Errno::EINVAL | Errno::ENOENT) => {
                return Ok(Found::Ended);
            }
            Err(error) if error.errno() == Errno::ENOSYS => return self.find_by_pid(error),
            pidfd => pidfd?,
        };
        let stat = self.stat_by(read).filter(|_| self.start_time != 0);
        if stat.is_some_and(|stat| stat.start_time != self.start_time) {
            return Ok(Found::Ended);
        }
        let letter = stat.map(|stat| stat.letter);
        // Any other letter is that of a process which lives.
        if letter.is_none_or(is_dead) && has_ended(&pidfd)? {
            return Ok(Found::Ended);
        }
        // A later process with the same pid may have begun within the same tick of the clock.
        let same = match self.inode {
            Some(inode) => Some(fstat(&pidfd).call("fstat", "pidfd")?.st_ino == inode),
            None => None,
        };
        match (letter, same) {
            (_, Some(false)) if on_pidfs(pidfd.as_fd())? => Ok(Found::Ended),
            (Some(_), _) => Ok(Found::Live(Live { pidfd, letter })),
            (None, Some(true)) if on_pidfs(pidfd.as_fd())? => Ok(Found::Live(Live { pidfd, letter })),
            (None, _) => Ok(Found::Hidden),
        }
    }

    /// Without pidfds: the letter of that very process's state; none when it has ended, or its first thread has, or /proc
    /// hides it.
    pub(crate) fn letter(self) -> Option<u8> {
        let stat = self.stat().filter(|stat| self.start_time != 0 && stat.start_time == self.start_time)?;
        Some(stat.letter).filter(|letter| !is_dead(*letter))
    }

    /// Without pidfds, whose error this is, the number of threads tells whether one is left.
    fn find_by_pid(self, error: sys::Error) -> Result<Found> {
        let ended = match self.stat().filter(|_| self.start_time != 0) {
            Some(stat) => stat.start_time != self.start_time || is_dead(stat.letter) && stat.threads < 2,
            None => {
                let asked = sys::clone::kill(Pid::from_raw(self.pid), 0);
                if !asked.is_err_and(|error| error.errno() == Errno::ESRCH) {
                    return Ok(Found::Hidden);
                }
                true
            }
        };
        if ended { Ok(Found::Ended) } else { Err(error.into()) }
    }

    /// Sends a signal to that very process; false when it is gone.
    pub(crate) fn signal(self, signal: i32) -> Result<bool> {
        let pidfd = match self.pidfd() {
            Err(error) if is_enosys(&error) => return self.signal_by_pid(signal),
            pidfd => pidfd?,
        };
        let Some(pidfd) = pidfd else { return Ok(false) };
        // A pid that went to another process just now doesn't have the start time.
        match signal_process(Pid::from_raw(self.pid), Some(pidfd.as_fd()), signal) {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Errno::ESRCH => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Without pidfds: the start time is compared just before, which is all that can be done.
    fn signal_by_pid(self, signal: i32) -> Result<bool> {
        match self.stat() {
            Some(stat) if stat.start_time == self.start_time => {}
            Some(_) => return Ok(false),
            None if self.alive() => return Err(hidden(self.pid)),
            None => return Ok(false),
        }
        if !self.alive() {
            return Ok(false);
        }
        match sys::clone::kill(Pid::from_raw(self.pid), signal) {
            Err(error) if error.errno() == Errno::ESRCH => Ok(false),
            sent => sent.map(|()| true).map_err(Into::into),
        }
    }

    /// Waits until that very process has ended; false when it takes longer than `patience`.
    pub(crate) fn wait(self, patience: Duration) -> Result<bool> {
        let end = Instant::now() + patience;
        match self.pidfd() {
            Ok(None) => Ok(true),
            Ok(Some(pidfd)) => wait_readable(&pidfd, end),
            // Without pidfds the process of somebody else can only be looked at again and again.
            Err(error) if is_enosys(&error) => {
                while self.alive() {
                    if Instant::now() > end {
                        return Ok(false);
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// Kills the processes that this one has made and not reaped yet. For a creation that is to end: what it has made so
    /// far is its own children, and nobody else's.
    ///
    /// Only those that began `since` then, in clock ticks since the boot: a shell that became the runtime (exec) may have
    /// made others before. What began within that tick is the runtime's if it runs the same program.
    pub(crate) fn kill_children(self, since: u64) -> Result<()> {
        let Some(list) = sys::read_small(format!("/proc/{0}/task/{0}/children", self.pid)).ok() else { return Ok(()) };
        for pid in String::from_utf8_lossy(&list).split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let pidfd = match pidfd_open(Pid::from_raw(pid)) {
                Ok(pidfd) => Some(pidfd),
                // Then what /proc says just before is all there is to go by.
                Err(error) if error.errno() == Errno::ENOSYS => None,
                Err(_) => continue,
            };
            // The pid may have been recycled before the pidfd was open: its parent is then somebody else.
            let path = format!("/proc/{pid}/stat");
            let stat = sys::read_small(path).ok();
            let parent = stat.as_deref().and_then(parse_parent);
            let began = stat.as_deref().and_then(parse_stat).map_or(0, |stat| stat.start_time);
            let ours = began > since || began == since && self.runs_the_program_of(pid);
            if parent != Some(self.pid) || !ours || !self.alive() {
                continue;
            }
            match signal_process(Pid::from_raw(pid), pidfd.as_ref().map(AsFd::as_fd), libc::SIGKILL) {
                // A program with rights of its own (newuidmap), which ends by itself.
                Err(error) if matches!(error.errno(), Errno::ESRCH | Errno::EPERM) => {}
                sent => sent?,
            }
        }
        Ok(())
    }

    fn runs_the_program_of(self, other: i32) -> bool {
        let program =
            |pid: i32| nix::sys::stat::stat(format!("/proc/{pid}/exe").as_str()).map(|f| (f.st_dev, f.st_ino));
        program(other).is_ok_and(|theirs| program(self.pid) == Ok(theirs))
    }
}

/// Now, in clock ticks since the boot, as field 22 of /proc/PID/stat counts them.
pub(crate) fn now_in_ticks() -> u64 {
    let now = sys::process::since_boot();
    u64::try_from(now.as_millis()).unwrap_or_default() * TICKS_PER_SECOND / 1000
}

/// Whether the last thread of the process has ended.
fn has_ended(pidfd: &OwnedFd) -> Result<bool> {
    let [ended] = poll([Some((pidfd.as_fd(), poll::IN))], Some(Duration::ZERO))?;
    Ok(ended)
}

/// Whether a pidfd's inode is its process's own (Linux 6.9); before, all pidfds shared one.
fn on_pidfs(pidfd: BorrowedFd<'_>) -> Result<bool> {
    /// linux/magic.h.
    const PID_FS_MAGIC: i64 = 0x5049_4446;
    Ok(fstatfs(pidfd).call("fstatfs", "pidfd")?.filesystem_type().0 as i64 == PID_FS_MAGIC)
}

/// The letter of the state of a process that can't be another one's by now: a child that isn't reaped.
pub(crate) fn letter(child: Pid) -> Option<u8> {
    parse_stat(&sys::read_small(format!("/proc/{child}/stat")).ok()?).map(|stat| stat.letter)
}

fn hidden(pid: i32) -> anyhow::Error {
    anyhow!("process {pid} is hidden by /proc (hidepid), so that nothing tells whether it is the container's")
}

fn wait_readable(fd: &OwnedFd, end: Instant) -> Result<bool> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let [ended] = poll([Some((fd.as_fd(), poll::IN))], Some(left))?;
        if ended || left.is_zero() {
            return Ok(ended);
        }
    }
}

/// Whether a system call is to blame that this kernel lacks, or that a filter around the runtime denies.
pub(crate) fn is_enosys(error: &anyhow::Error) -> bool {
    error.downcast_ref::<sys::Error>().is_some_and(|error| error.errno() == Errno::ENOSYS)
}

/// The fields of /proc/PID/stat from the third on; the name in field 2 may hold anything.
fn fields(stat: &[u8]) -> Option<impl Iterator<Item = &str>> {
    let after = stat.iter().rposition(|byte| *byte == b')')?;
    Some(std::str::from_utf8(stat.get(after + 2..)?).ok()?.split(' '))
}

/// Fields 3, 9, 20 and 22.
pub(super) fn parse_stat(stat: &[u8]) -> Option<Stat> {
    let mut fields = fields(stat)?;
    let letter = *fields.next()?.as_bytes().first()?;
    let flags = fields.nth(5)?.parse().ok()?;
    let threads = fields.nth(10)?.parse().ok()?;
    Some(Stat { letter, flags, threads, start_time: fields.nth(1)?.parse().ok()? })
}

/// Field 4.
fn parse_parent(stat: &[u8]) -> Option<i32> {
    fields(stat)?.nth(1)?.parse().ok()
}
