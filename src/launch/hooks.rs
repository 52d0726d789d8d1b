//! Hooks: other people's programs, run at fixed points of a container's life with its state on standard input.
//!
//! Runs outside for `prestart`, `createRuntime`, `poststart` and `poststop`, and inside, in the cloned process, for
//! `createContainer` and `startContainer`: hence no thread, and a clone of its own instead of libc's fork.
//!
//! A hook is over when its process is. What it left behind (a daemon that holds its pipes) is never waited for.

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, pipe2, read, setpgid, write};

use super::supervise::Interrupt;
use crate::spec::{Hook, State};
use crate::sys::clone::{CStrings, Cloned, Ended, execve_errno, fork, fork_again, signal_child, wait};
use crate::sys::poll::{self, poll};
use crate::sys::{self, Context as _, fs, process};

#[cfg(test)]
mod tests;

/// The six points of config.md, "POSIX-platform Hooks".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Kind {
    fn manners(self) -> Manners {
        if self == Self::StartContainer { Manners::Frugal } else { Manners::Thorough }
    }

    /// The name in config.json.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

/// How much is done on the way to a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// Whatever this process has inherited or made is put right.
    Thorough,
    /// The container's seccomp filter may be loaded, which may deny any system call, or end the process for it. This process
    /// has put itself right before: its signals are at their defaults, its descriptors close on exec.
    Frugal,
}

/// What a hook isn't waited for any longer after: then it is killed. The default is nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Until<'a> {
    pub(crate) interrupt: Interrupt<'a>,
    /// The end of the container's process, where there is nothing to be done for a container that has none.
    pub(crate) container: Option<BorrowedFd<'a>>,
}

/// Runs hooks in order; the first that fails ends it. `environment` is for hooks that name none of their own.
pub(crate) fn run(kind: Kind, hooks: &[Hook], state: &State, environment: &CStrings) -> Result<()> {
    run_until(Until::default(), kind, hooks, state, environment)
}

/// [`run`] until something else comes before its end.
pub(crate) fn run_until(
    until: Until<'_>,
    kind: Kind,
    hooks: &[Hook],
    state: &State,
    environment: &CStrings,
) -> Result<()> {
    for_each(kind, hooks, state, (environment, until), Err)
}

/// Runs every poststop hook: the container is gone, so a failure is a warning and the next one runs all the same.
pub(crate) fn run_poststop(hooks: &[Hook], state: &State, environment: &CStrings) {
    let warn = |error: anyhow::Error| {
        log::warn!("{error:#}");
        Ok(())
    };
    if let Err(error) = for_each(Kind::Poststop, hooks, state, (environment, Until::default()), warn) {
        log::warn!("{error:#}");
    }
}

fn for_each(
    kind: Kind,
    hooks: &[Hook],
    state: &State,
    (environment, until): (&CStrings, Until<'_>),
    mut failed: impl FnMut(anyhow::Error) -> Result<()>,
) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    // serde_json is compact, keeps the struct's order of keys and leaves "/" alone: hooks broke over less (crun 1.29).
    let state = serde_json::to_vec(state).context("state for hooks")?;
    let manners = kind.manners();
    for (index, hook) in hooks.iter().enumerate() {
        let result = run_one(hook, &state, environment, (until, manners));
        let named = result.with_context(|| {
            let kind = kind.name();
            format!("config.json: /hooks/{kind}/{index}: error running {kind} hook #{index} ({:?})", hook.path)
        });
        named.or_else(&mut failed)?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &[u8], environment: &CStrings, (until, manners): (Until<'_>, Manners)) -> Result<()> {
    let program = Program::of(hook, environment)?;
    let timeout = hook.timeout.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    let mut running = Running::start(&program, manners, timeout)?;
    let end = running.attend(state, timeout, until)?;
    running.stdout.drain();
    running.stderr.drain();
    match (end, running.exec_failure()) {
        (_, Some(errno)) => bail!("{}", lower_case(errno)),
        (End::Ended(Ended::Exited(0)), None) => Ok(()),
        (end, None) => bail!("{end}, stdout: {}, stderr: {}", running.stdout, running.stderr),
    }
}

/// What engines grep for: Go's words, and the name of the errno.
fn lower_case(errno: Errno) -> String {
    format!("{} ({errno:?})", sys::words(errno))
}

/// What to execute, complete before the clone.
#[derive(Debug)]
struct Program<'a> {
    path: CString,
    argv: CStrings,
    /// The hook's own, if it has one.
    envp: Option<CStrings>,
    environment: &'a CStrings,
}

impl<'a> Program<'a> {
    fn of(hook: &Hook, environment: &'a CStrings) -> Result<Self> {
        let path = CString::new(hook.path.as_os_str().as_bytes()).context("path with a NUL byte")?;
        let argv = match hook.args.as_slice() {
            [] => vec![path.clone()],
            args => strings(args).context("argument with a NUL byte")?,
        };
        let envp = hook.env.as_deref().map(strings).transpose().context("environment with a NUL byte")?;
        Ok(Self { path, argv: CStrings::new(argv), envp: envp.map(CStrings::new), environment })
    }

    fn envp(&self) -> &CStrings {
        self.envp.as_ref().unwrap_or(self.environment)
    }
}

fn strings(list: &[String]) -> Result<Vec<CString>, std::ffi::NulError> {
    list.iter().map(|string| CString::new(string.as_bytes())).collect()
}

/// A hook's process, seen from its parent.
#[derive(Debug)]
struct Running {
    pid: Pid,
    pidfd: OwnedFd,
    stdin: Option<Stdin>,
    stdout: Tail,
    stderr: Tail,
    /// Holds the errno when the program couldn't be executed. Closes at exec.
    failure: OwnedFd,
}

#[derive(Debug)]
struct Stdin {
    writer: OwnedFd,
    /// Kept open so that a hook that closes its standard input never makes a write fail or raise SIGPIPE.
    _reader: OwnedFd,
}

/// How a hook's process ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Ended(Ended),
    TimedOut(u64),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(Ended::Exited(status)) => write!(f, "exit status {status}"),
            Self::Ended(Ended::Signaled(signal)) => write!(f, "killed by {}", crate::signal::name(*signal)),
            Self::TimedOut(1) => f.write_str("timed out after 1 second"),
            Self::TimedOut(seconds) => write!(f, "timed out after {seconds} seconds"),
        }
    }
}

impl Running {
    fn start(program: &Program<'_>, manners: Manners, timeout: Option<u64>) -> Result<Self> {
        let pipe = || pipe2(OFlag::O_CLOEXEC).call("pipe", "hook");
        let ((reader, writer), (stdout, out), (stderr, err)) = (pipe()?, pipe()?, pipe()?);
        let (failure, failed) = pipe()?;
        for ours in [&writer, &stdout, &stderr, &failure] {
            fcntl(ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).call("fcntl F_SETFL", "hook pipe")?;
        }
        let cloned = if manners == Manners::Frugal { fork_again()? } else { fork()? };
        let Cloned::Parent { pid, pidfd } = cloned else {
            become_hook(program, [reader.as_fd(), out.as_fd(), err.as_fd()], failed.as_fd(), (manners, timeout));
        };
        // The child does the same: whoever comes first, the group exists before it may have to be killed. After the
        // child's exec this is refused, which is fine.
        if own_group(manners, timeout) && !process::acts_for_another() {
            let _ = setpgid(pid, pid);
        }
        let stdin = Some(Stdin { writer, _reader: reader });
        Ok(Self { pid, pidfd, stdin, stdout: Tail::of(stdout), stderr: Tail::of(stderr), failure })
    }

    /// Feeds and hears the hook until its process ends or its time is up.
    fn attend(&mut self, state: &[u8], timeout: Option<u64>, until: Until<'_>) -> Result<End> {
        // A time beyond the clock's range is no limit.
        let deadline = timeout.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        let mut left = state;
        loop {
            if left.is_empty() {
                self.stdin = None;
            }
            let remaining = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if remaining == Some(Duration::ZERO) {
                return self.kill().map(|()| End::TimedOut(timeout.unwrap_or(0)));
            }
            let [interrupted, orphaned, ended, stdin, stdout, stderr] = poll(
                [
                    until.interrupt.interest(),
                    until.container.map(|container| (container, poll::IN)),
                    Some((self.pidfd.as_fd(), poll::IN)),
                    self.stdin.as_ref().map(|stdin| (stdin.writer.as_fd(), poll::OUT)),
                    self.stdout.interest(),
                    self.stderr.interest(),
                ],
                remaining,
            )?;
            if interrupted && let Err(error) = until.interrupt.check() {
                self.kill()?;
                return Err(error);
            }
            if orphaned && !ended {
                self.kill()?;
                bail!("the container's process has ended meanwhile");
            }
            if ended {
                return Ok(End::Ended(wait(self.pid)?));
            }
            if let Some(Stdin { writer, .. }) = self.stdin.as_ref().filter(|_| stdin) {
                left = feed(writer.as_fd(), left);
            }
            if stdout {
                self.stdout.read();
            }
            if stderr {
                self.stderr.read();
            }
        }
    }

    /// Kills the hook's group, and the hook itself should it have left the group, then reaps it. The group goes first:
    /// until the reaping nobody else can have its number.
    fn kill(&self) -> Result<()> {
        let _ = killpg(self.pid, Signal::SIGKILL);
        let _ = signal_child(self.pid, self.pidfd.as_fd(), libc::SIGKILL);
        wait(self.pid)?;
        Ok(())
    }

    /// Why the program couldn't be executed. Asked after the process is gone, so that the answer is there.
    fn exec_failure(&self) -> Option<Errno> {
        let mut number = [0; size_of::<i32>()];
        let length = read(&self.failure, &mut number).ok()?;
        (length == number.len()).then(|| Errno::from_raw(i32::from_ne_bytes(number)))
    }
}

/// Writes what fits, and returns what is left.
fn feed<'a>(writer: BorrowedFd<'_>, left: &'a [u8]) -> &'a [u8] {
    match write(writer, left) {
        Ok(length) => &left[length..],
        Err(Errno::EAGAIN | Errno::EINTR) => left,
        // The hook reads no more, which is its right.
        Err(_) => &[],
    }
}

/// Runs in the clone, which shares nothing but must not allocate either: it may be a clone of a process with threads
/// (the tests'), whose locks it can't trust.
fn become_hook(
    program: &Program<'_>,
    streams: [BorrowedFd<'_>; 3],
    failed: BorrowedFd<'_>,
    (manners, timeout): (Manners, Option<u64>),
) -> ! {
    let errno = match prepare_hook(streams, manners, timeout) {
        Ok(()) => execve_errno(&program.path, &program.argv, program.envp()),
        Err(error) => error.errno(),
    };
    let _ = write(failed, &(errno as i32).to_ne_bytes());
    sys::exit(127)
}

/// A group of its own, so that a timeout gets its children too.
fn own_group(manners: Manners, timeout: Option<u64>) -> bool {
    manners == Manners::Thorough || timeout.is_some()
}

fn prepare_hook(streams: [BorrowedFd<'_>; 3], manners: Manners, timeout: Option<u64>) -> sys::Result<()> {
    if process::acts_for_another() {
        // The caller's terminal and directory are root's: a user's program could type into the one (TIOCSTI) and look
        // around in the other.
        process::setsid()?;
        nix::unistd::chdir("/").call("chdir", "/")?;
    } else if own_group(manners, timeout) {
        let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    }
    for (number, stream) in (0..).zip(streams) {
        fs::dup_onto(stream, number)?;
    }
    if manners == Manners::Frugal {
        return Ok(());
    }
    // Also what the engine passes to the container (--preserve-fds): no business of a hook's.
    fs::cloexec_from(3)?;
    // Ignored signals (Rust's runtime ignores SIGPIPE) and the mask would pass through exec.
    for signal in 1..=64 {
        process::signal_default(signal);
    }
    process::unblock_all()
}

/// The last of what comes through a pipe.
#[derive(Debug)]
struct Tail {
    /// `None` after its end.
    pipe: Option<OwnedFd>,
    kept: Vec<u8>,
    /// Whether there was more before what is kept.
    cut: bool,
}

impl Tail {
    /// How much is kept of each stream.
    const LONGEST: usize = 4096;
    /// What a pipe holds unless it was enlarged: after the hook's end there can't be more of its own in there. A
    /// daemon of its making may write on for ever.
    const PIPE_SIZE: usize = 64 * 1024;

    fn of(pipe: OwnedFd) -> Self {
        Self { pipe: Some(pipe), kept: Vec::new(), cut: false }
    }

    fn interest(&self) -> Option<(BorrowedFd<'_>, i16)> {
        self.pipe.as_ref().map(|pipe| (pipe.as_fd(), poll::IN))
    }

    /// Reads once; returns how much there was.
    fn read(&mut self) -> usize {
        let mut buffer = [0; 8192];
        let Some(pipe) = &self.pipe else { return 0 };
        match read(pipe, &mut buffer) {
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            Ok(0) | Err(_) => {
                self.pipe = None;
                0
            }
            Ok(length) => {
                self.kept.extend_from_slice(&buffer[..length]);
                let excess = self.kept.len().saturating_sub(Self::LONGEST);
                self.kept.drain(..excess);
                self.cut |= excess > 0;
                length
            }
        }
    }

    /// Reads what is there now, without waiting for the end.
    fn drain(&mut self) {
        let mut total = 0;
        while total < Self::PIPE_SIZE {
            match self.read() {
                0 => break,
                length => total += length,
            }
        }
    }
}

/// On one line, and without what would move a terminal's cursor.
impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.kept);
        let line = text.trim().replace("\r\n", "\n").replace('\n', "; ");
        let line = line.replace(char::is_control, " ");
        write!(f, "{}{line}", if self.cut { "..." } else { "" })
    }
}
