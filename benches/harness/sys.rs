//! The system calls that the standard library lacks.

use std::ffi::{CString, c_int};
use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;
use std::ptr::null;
use std::sync::atomic::{AtomicI32, Ordering};

fn check(result: i64) -> Result<i64> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

fn c_string(text: &Path) -> CString {
    CString::new(text.as_os_str().as_encoded_bytes()).expect("a path without NUL")
}

/// The exit status (128 and the number for a signal), CPU time in microseconds, page faults.
pub fn wait4(pid: i32) -> Result<(i32, f64, f64)> {
    let mut status = 0;
    // SAFETY: rusage is plain numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both outlive the call.
        match check(unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) }.into()) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    let micros = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
    let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
    Ok((code, micros(usage.ru_utime) + micros(usage.ru_stime), usage.ru_minflt as f64))
}

/// Whether a child ends within this time; it is not waited for.
pub fn ends_within(pid: i32, limit: std::time::Duration) -> Result<bool> {
    // SAFETY: makes a descriptor.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: just opened, owned by nobody else.
    let fd = unsafe { File::from_raw_fd(fd as c_int) };
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: `poll` outlives the call.
    Ok(check(unsafe { libc::poll(&raw mut poll, 1, limit.as_millis() as c_int) }.into())? > 0)
}

pub fn kill(pid: i32) {
    // SAFETY: a process that this one is the parent or reaper of, not yet waited for.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// A mount namespace of this process's own, from which nothing gets out.
pub fn private_mounts() -> Result<()> {
    // SAFETY: this process has one thread yet.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into())?;
    mount("", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE, "")
}

pub fn mount(source: &str, target: &Path, kind: &str, flags: u64, data: &str) -> Result<()> {
    let (source, kind, data) = (c_string(source.as_ref()), c_string(kind.as_ref()), c_string(data.as_ref()));
    let data = if data.is_empty() { null() } else { data.as_ptr().cast() };
    // SAFETY: every string ends in NUL and outlives the call.
    let result = unsafe { libc::mount(source.as_ptr(), c_string(target).as_ptr(), kind.as_ptr(), flags, data) };
    check(result.into()).map(drop)
}

pub fn umount(target: &Path) -> Result<()> {
    // SAFETY: the path ends in NUL.
    check(unsafe { libc::umount2(c_string(target).as_ptr(), libc::MNT_DETACH) }.into()).map(drop)
}

/// Makes the containers' processes children of this one when their runtime leaves, so that it can wait for them.
pub fn become_subreaper() -> Result<()> {
    // SAFETY: changes this process only.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into()).map(drop)
}

static CHILD: AtomicI32 = AtomicI32::new(0);

extern "C" fn pass_on(_: c_int) {
    let child = CHILD.load(Ordering::Relaxed);
    if child > 0 {
        kill(child);
    }
}

/// SIGINT and SIGTERM kill that child from now on, and nobody else; of 0 they do nothing.
pub fn pass_interrupts_on(child: i32) {
    CHILD.store(child, Ordering::Relaxed);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler does no more than kill(2), which may be called in one.
        unsafe { libc::signal(signal, pass_on as *const () as usize) };
    }
}

pub fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives both calls.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max.min(65536);
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
}

/// Whether RLIMIT_MEMLOCK can be raised, as crun insists on before it loads a device program.
pub fn may_raise_memlock() -> bool {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` outlives the call.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) == 0 }
}

/// Answers "done" to whoever raises RLIMIT_MEMLOCK: for this process and all it starts. Since Linux 5.11 BPF programs
/// are charged to the cgroup and the limit means nothing to them.
pub fn pretend_memlock() -> Result<()> {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
    let insn = |code: u32, jt, jf, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    // Of another type in each libc.
    let memlock = u32::try_from(i64::from(libc::RLIMIT_MEMLOCK)).unwrap_or(u32::MAX);
    let load = |at| insn(BPF_LD | BPF_W | BPF_ABS, 0, 0, at);
    // struct seccomp_data: the number at 0, the second argument (the resource) at 24, the third (new limits) at 32.
    let mut program = [
        load(0),
        insn(BPF_JMP | BPF_JEQ | BPF_K, 0, 5, libc::SYS_prlimit64 as u32),
        load(24),
        insn(BPF_JMP | BPF_JEQ | BPF_K, 0, 3, memlock),
        load(32),
        insn(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 0),
        insn(BPF_RET | BPF_K, 0, 0, 0x0005_0000),
        insn(BPF_RET | BPF_K, 0, 0, 0x7fff_0000),
    ];
    let fprog = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program outlives the call.
    check(unsafe { libc::syscall(libc::SYS_seccomp, 1, 0, &raw const fprog) }).map(drop)
}

/// Both ends of a new terminal.
pub fn open_terminal() -> Result<(File, File)> {
    let (mut master, mut slave): (c_int, c_int) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: both numbers outlive the call, and nothing else is asked for.
    check(
        unsafe {
            libc::openpty(
                &raw mut master,
                &raw mut slave,
                none,
                null::<libc::termios>().cast_mut(),
                null::<libc::winsize>().cast_mut(),
            )
        }
        .into(),
    )?;
    // SAFETY: just opened, owned by nobody else.
    let (master, slave) = unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) };
    // SAFETY: descriptors of this process.
    check(unsafe { libc::fcntl(master.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(slave.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    Ok((master, slave))
}
