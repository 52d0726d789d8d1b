//! The system calls that std does not have, and names for errors and signals.

use std::ffi::CString;
use std::io::Write;

pub(crate) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// -1 becomes the name of the error.
pub(crate) fn check(result: i64) -> Result<i64, String> {
    if result == -1 { Err(name(errno())) } else { Ok(result) }
}

/// The name of an error as errno(3) writes it.
pub(crate) fn name(errno: i32) -> String {
    let known = match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::EIO => "EIO",
        libc::ENXIO => "ENXIO",
        libc::EBADF => "EBADF",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::ENODEV => "ENODEV",
        libc::ENOTDIR => "ENOTDIR",
        libc::EISDIR => "EISDIR",
        libc::EINVAL => "EINVAL",
        libc::ENOTTY => "ENOTTY",
        libc::ENOSPC => "ENOSPC",
        libc::EROFS => "EROFS",
        libc::ENOSYS => "ENOSYS",
        libc::ELOOP => "ELOOP",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        _ => return format!("errno {errno}"),
    };
    known.into()
}

/// An error of std as its name.
pub(crate) fn why(error: &std::io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), name)
}

pub(crate) fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("a number is expected, not {word}"))
}

pub(crate) fn cstring(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| "a NUL in an argument".to_owned())
}

/// syscall(2) with up to six arguments.
pub(crate) fn syscall(nr: i64, args: &[i64]) -> Result<i64, String> {
    let arg = |i: usize| args.get(i).copied().unwrap_or(0);
    // SAFETY: the callers pass numbers, or pointers to values that outlive the call.
    check(unsafe { libc::syscall(nr, arg(0), arg(1), arg(2), arg(3), arg(4), arg(5)) })
}

pub(crate) fn flush() {
    let _ = std::io::stdout().flush();
    let _ = std::io::stderr().flush();
}

/// Leaves without running anything more.
pub(crate) fn exit(code: i32) -> ! {
    flush();
    // SAFETY: no memory is touched.
    unsafe { libc::_exit(code) }
}

/// fork(2): the child runs `child` and never returns.
pub(crate) fn fork(child: impl FnOnce() -> i32) -> Result<i32, String> {
    flush();
    // SAFETY: the process has one thread.
    match unsafe { libc::fork() } {
        -1 => Err(name(errno())),
        0 => exit(child()),
        pid => Ok(pid),
    }
}

/// Sleeps until a signal ends the process.
pub(crate) fn sleep() -> ! {
    flush();
    loop {
        // SAFETY: no memory is touched.
        unsafe { libc::pause() };
    }
}

/// execvp(3); returns only on failure.
pub(crate) fn exec(words: &[&str]) -> Result<i32, String> {
    let words = words.iter().map(|word| cstring(word)).collect::<Result<Vec<_>, _>>()?;
    let mut argv: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    argv.push(std::ptr::null());
    let program = words.first().ok_or("a program is expected")?;
    flush();
    // SAFETY: `argv` is an array of C strings that ends in a null pointer; both outlive the call.
    unsafe { libc::execvp(program.as_ptr(), argv.as_ptr()) };
    Err(name(errno()))
}

/// A signal set of the given numbers.
pub(crate) fn sigset(signals: &[i32]) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: `set` is a valid place for a signal set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in signals {
        // SAFETY: the set was initialized above.
        unsafe { libc::sigaddset(set.as_mut_ptr(), *signal) };
    }
    // SAFETY: sigemptyset initialized it.
    unsafe { set.assume_init() }
}

/// Clears every flag of a mount.
pub(crate) fn remount(path: &str) -> Result<(), String> {
    let path = CString::new(path).map_err(|e| e.to_string())?;
    // SAFETY: the path ends in NUL and outlives the call; the others may be null in a bind remount.
    let done = unsafe {
        libc::mount(
            std::ptr::null(),
            path.as_ptr(),
            std::ptr::null(),
            libc::MS_REMOUNT | libc::MS_BIND,
            std::ptr::null(),
        )
    };
    if done == 0 { Ok(()) } else { Err(why(&std::io::Error::last_os_error())) }
}

pub(crate) fn umount(path: &str) -> Result<(), String> {
    let path = CString::new(path).map_err(|e| e.to_string())?;
    // SAFETY: the path ends in NUL and outlives the call.
    let done = unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    if done == 0 { Ok(()) } else { Err(why(&std::io::Error::last_os_error())) }
}
