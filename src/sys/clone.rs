//! clone3(2), pidfds, and the end of a process.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::error::{Error, Result, check};
use super::newer;

/// linux/sched.h; libc's constant of that name has lost its one bit to a 32-bit type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What clone3(2) is asked for.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct CloneArgs<'a> {
    /// `CLONE_*`; CLONE_PIDFD is always added.
    pub(crate) flags: u64,
    /// With CLONE_INTO_CGROUP (5.7): the v2 cgroup the child starts in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
}

/// What a clone returns, in each of the two processes.
#[derive(Debug)]
pub(crate) enum Cloned {
    Parent { pid: Pid, pidfd: OwnedFd },
    Child,
}

/// Clones this process, copy on write, like fork(2). The child must leave by `exec` or [`exit`], never by return
/// to `main`.
///
/// The process is single threaded (no code of this crate starts a thread), so the child may allocate and lock;
/// what it must not do is use libc calls that trust a cached thread id (raise, abort): see architecture, "Fork safety".
pub(crate) fn clone3(args: CloneArgs<'_>) -> Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    let mut raw = libc::clone_args {
        flags: args.flags | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        child_tid: 0,
        parent_tid: 0,
        // With CLONE_PARENT the child takes the caller's own exit signal and the field must be zero.
        exit_signal: if args.flags & libc::CLONE_PARENT as u64 != 0 { 0 } else { libc::SIGCHLD as u64 },
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    if let Some(fd) = args.cgroup {
        raw.flags |= CLONE_INTO_CGROUP;
        raw.cgroup = fd.as_raw_fd() as u64;
    }
    // SAFETY: `raw` is a valid clone_args and lives across the call; without CLONE_VM the child gets its own copy
    // of this stack and of all memory, as after fork.
    let ret = unsafe { libc::syscall(libc::SYS_clone3, &raw const raw, size_of::<libc::clone_args>()) };
    match newer::CLONE3.check(ret, || format!("flags {:#x}", raw.flags))? {
        0 => Ok(Cloned::Child),
        pid => {
            // SAFETY: the kernel stored a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid: Pid::from_raw(pid as i32), pidfd })
        }
    }
}

/// Like fork(2), with a pidfd. By clone(2), which has CLONE_PIDFD since 5.2: inside a container the payload's own seccomp
/// filter may deny clone3(2), by an error or by death, as it can't look into its arguments.
pub(crate) fn fork() -> Result<Cloned> {
    hear_of_children();
    clone(0)
}

/// [`fork`] in a process that has heard of children before: one system call, and no other.
pub(crate) fn fork_again() -> Result<Cloned> {
    clone(0)
}

/// [`clone3`] where it can be made, else clone(2).
pub(crate) fn clone_process(flags: u64) -> Result<Cloned> {
    match clone3(CloneArgs { flags, cgroup: None }) {
        Err(error) if error.errno() == Errno::ENOSYS => clone(flags),
        result => result,
    }
}

/// clone3(2) into a cgroup as far as the kernel allows it. The second value says whether the child is in the cgroup.
///
/// A kernel or a sandbox without clone3 gets clone(2); a cgroup that takes no process this way (EBUSY: it has
/// controllers for its children; EOPNOTSUPP: it is not valid in a threaded subtree; EACCES: rootless) is left to the
/// caller, whose own attempt says why.
pub(crate) fn clone_into(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<(Cloned, bool)> {
    super::heap::settle();
    hear_of_children();
    match clone3(CloneArgs { flags, cgroup }) {
        Err(error) if error.errno() == Errno::ENOSYS => Ok((clone(flags)?, false)),
        Err(error) if cgroup.is_some() && matches!(error.errno(), Errno::EBUSY | Errno::EOPNOTSUPP | Errno::EACCES) => {
            Ok((clone3(CloneArgs { flags, cgroup: None })?, false))
        }
        result => Ok((result?, cgroup.is_some())),
    }
}

/// Before the first child is made: where the caller has SIGCHLD ignored, which a program inherits, the kernel reaps children
/// by itself, and waiting for one is an error (ECHILD) that says nothing of how it ended. What is executed in the end gets
/// the default as well.
pub(crate) fn hear_of_children() {
    super::process::signal_default(libc::SIGCHLD);
}

/// clone(2) without a stack of its own. CLONE_PIDFD is always added.
fn clone(flags: u64) -> Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    let parent = flags & libc::CLONE_PARENT as u64 != 0;
    let flags = flags | libc::CLONE_PIDFD as u64 | if parent { 0 } else { libc::SIGCHLD as u64 };
    // SAFETY: with CLONE_PIDFD the third argument (on every architecture but s390) is where the descriptor goes, and
    // lives across the call; without CLONE_VM and with a null stack the child goes on as after fork.
    let ret = unsafe { libc::syscall(libc::SYS_clone, flags, 0_i64, &raw mut pidfd, 0_i64, 0_i64) };
    match check("clone", ret, || format!("flags {flags:#x}"))? {
        0 => Ok(Cloned::Child),
        pid => {
            // SAFETY: the kernel stored a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent { pid: Pid::from_raw(pid as i32), pidfd })
        }
    }
}

/// pidfd_open(2), close-on-exec by birth.
pub(crate) fn pidfd_open(pid: Pid) -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = newer::PIDFD_OPEN.check(ret, || pid.to_string())?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A pidfd of one thread of a process (PIDFD_THREAD, Linux 6.9): EINVAL before.
pub(crate) fn pidfd_open_thread(tid: Pid) -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_open, tid.as_raw(), libc::O_EXCL) };
    let fd = newer::PIDFD_OPEN.check(ret, || format!("PIDFD_THREAD {tid}"))?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// pidfd_send_signal(2).
fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: a null siginfo is allowed: the kernel fills one in as kill(2) does.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, 0, 0) };
    newer::PIDFD_SEND_SIGNAL.check(ret, || format!("signal {signal}")).map(drop)
}

/// pidfd_getfd(2), Linux 5.6: a copy of another process's descriptor, close-on-exec. EBADF if it has none with that
/// number.
pub(crate) fn pidfd_getfd(pidfd: BorrowedFd<'_>, number: i32) -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    let fd = newer::PIDFD_GETFD.check(ret, || number.to_string())?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends a signal by a pidfd, if there is one and pidfd_send_signal(2) can be made, else by kill(2): to whoever has the pid.
pub(crate) fn signal_process(pid: Pid, pidfd: Option<BorrowedFd<'_>>, signal: i32) -> Result<()> {
    match pidfd.map(|pidfd| pidfd_send_signal(pidfd, signal)) {
        Some(Err(error)) if error.errno() == Errno::ENOSYS => kill(pid, signal),
        Some(sent) => sent,
        None => kill(pid, signal),
    }
}

/// [`signal_process`] of a child of this process, which isn't reaped yet: its pid is nobody else's.
pub(crate) fn signal_child(pid: Pid, pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    signal_process(pid, Some(pidfd), signal)
}

/// kill(2), where pidfds are not to be had.
pub(crate) fn kill(pid: Pid, signal: i32) -> Result<()> {
    // SAFETY: no memory is passed.
    let ret = unsafe { libc::kill(pid.as_raw(), signal) };
    check("kill", ret.into(), || format!("{pid}, signal {signal}")).map(drop)
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Exited(i32),
    Signaled(i32),
}

/// Waits for a child and reaps it. By wait4(2), which every seccomp filter knows: until then its pid is nobody else's.
pub(crate) fn wait(pid: Pid) -> Result<Ended> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for writes across the call.
        let ret = unsafe { libc::waitpid(pid.as_raw(), &raw mut status, 0) };
        match check("wait4", ret.into(), || pid.to_string()) {
            Ok(_) => break,
            Err(error) if error.errno() == Errno::EINTR => {}
            Err(error) => return Err(error),
        }
    }
    let exited = libc::WIFEXITED(status);
    Ok(if exited { Ended::Exited(libc::WEXITSTATUS(status)) } else { Ended::Signaled(libc::WTERMSIG(status)) })
}

/// Reaps whatever child has ended, as a subreaper must; `None` when none has, or there is none.
pub(crate) fn reap_any() -> Option<Pid> {
    let mut status = 0;
    // SAFETY: `status` is valid for writes across the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then(|| Pid::from_raw(pid))
}

/// A child that has ended, left unreaped; `None` when none has, or there is none.
pub(crate) fn peek_ended() -> Option<Pid> {
    // SAFETY: an all-zero siginfo_t is a valid value of plain integers.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is valid for writes across the call.
    let ret = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) };
    if ret != 0 {
        return None;
    }
    // SAFETY: waitid succeeded, so the SIGCHLD part of the union is filled in, or still zero when no child has ended.
    let pid = unsafe { info.si_pid() };
    (pid > 0).then(|| Pid::from_raw(pid))
}

/// Reaps one child that has ended.
pub(crate) fn reap(pid: Pid) {
    let mut status = 0;
    // SAFETY: `status` is valid for writes across the call; a pid that is no ended child changes nothing.
    unsafe { libc::waitpid(pid.as_raw(), &raw mut status, libc::WNOHANG) };
}

/// setns(2).
pub(crate) fn setns(fd: BorrowedFd<'_>, kind: i32) -> Result<()> {
    // SAFETY: no memory is passed.
    let ret = unsafe { libc::setns(fd.as_raw_fd(), kind) };
    check("setns", ret.into(), String::new).map(drop)
}

/// unshare(2).
pub(crate) fn unshare(flags: i32) -> Result<()> {
    // SAFETY: no memory is passed; the process is single threaded.
    let ret = unsafe { libc::unshare(flags) };
    check("unshare", ret.into(), || format!("{flags:#x}")).map(drop)
}

/// The type of a namespace as its CLONE_NEW* flag (ioctl_nsfs(2), NS_GET_NSTYPE).
pub(crate) fn ns_get_nstype(fd: BorrowedFd<'_>) -> Result<i32> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: this request takes no argument.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE as _) };
    check("ioctl NS_GET_NSTYPE", ret.into(), String::new).map(|kind| kind as i32)
}

/// execve(2) with arrays made beforehand; returns only on failure.
pub(crate) fn execve(path: &CStr, argv: &CStrings, envp: &CStrings) -> Error {
    let errno = execve_errno(path, argv, envp);
    Error::new("execve", format!("{path:?}"), errno)
}

/// [`execve`] without an allocation, for a clone of a process that may have threads (the tests').
pub(crate) fn execve_errno(path: &CStr, argv: &CStrings, envp: &CStrings) -> Errno {
    // SAFETY: the path is a C string and both arrays end in null and point to C strings that live in `CStrings`.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    Errno::last()
}

/// A null-terminated array of C strings, as execve(2) wants it.
#[derive(Debug)]
pub(crate) struct CStrings {
    pointers: Vec<*const libc::c_char>,
    /// Owns what `pointers` point to; the heap blocks of the strings don't move with the vector.
    #[allow(dead_code)]
    strings: Vec<std::ffi::CString>,
}

impl CStrings {
    pub(crate) fn new(strings: Vec<std::ffi::CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Self { pointers, strings }
    }

    /// Of strings that are nobody's to free.
    pub(crate) fn of_static(strings: impl Iterator<Item = &'static CStr>) -> Self {
        let pointers = strings.map(CStr::as_ptr).chain([std::ptr::null()]).collect();
        Self { pointers, strings: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn both_ways_to_fork_give_a_pidfd() {
        for way in [fork, || clone_process(0)] {
            match way().unwrap() {
                Cloned::Child => crate::sys::exit(5),
                Cloned::Parent { pid, pidfd } => {
                    crate::sys::poll::poll([Some((pidfd.as_fd(), crate::sys::poll::IN))], None).unwrap();
                    assert_eq!(wait(pid).unwrap(), Ended::Exited(5));
                    assert!(std::fs::exists(format!("/proc/{pid}")).is_ok_and(|there| !there));
                }
            }
        }
    }
}
