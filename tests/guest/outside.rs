//! Commands for the host's side of a test.

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;

use crate::json::Json;
use crate::sys::{self, number, why};
use crate::{Outcome, facts};

/// `with OPTION... -- COMMAND`: changes what a child inherits, then executes COMMAND.
///
/// `ignore=SIG`, `block=SIG`, `close=FD`, `open=FD:PATH`, `umask=OCTAL`, `chdir=DIR`, `tty=PATH` (a new session with
/// it as the controlling terminal), `listen=N` (LISTEN_FDS and LISTEN_PID as systemd sets them), `enosys=NAME,...` and
/// `eperm=NAME,...` (those system calls answer ENOSYS or EPERM from here on), `nosocket=FAMILY` (socket(2) of that family, a
/// number, answers EAFNOSUPPORT).
pub(crate) fn with(words: &[&str]) -> Outcome {
    let split = words.iter().position(|word| *word == "--").ok_or("-- is expected before the command")?;
    let (options, command) = words.split_at(split);
    for option in options {
        let (key, value) = option.split_once('=').ok_or_else(|| format!("{option}: KEY=VALUE is expected"))?;
        apply(key, value).map_err(|why| format!("{option}: {why}"))?;
    }
    sys::exec(command.get(1..).unwrap_or_default())
}

fn apply(key: &str, value: &str) -> Result<(), String> {
    match key {
        "ignore" => {
            // SAFETY: SIG_IGN is not a function of ours.
            unsafe { libc::signal(number(value)?, libc::SIG_IGN) };
        }
        "block" => {
            let set = sys::sigset(&[number(value)?]);
            // SAFETY: the set is initialized; the old mask isn't asked for.
            unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        }
        "close" => {
            // SAFETY: nothing in this process uses the descriptor any more.
            unsafe { libc::close(number(value)?) };
        }
        "open" => {
            let (fd, path) = value.split_once(':').ok_or("FD:PATH is expected")?;
            open_as(number(fd)?, path)?;
        }
        "umask" => {
            let mask = u32::from_str_radix(value, 8).map_err(|e| e.to_string())?;
            // SAFETY: no memory is touched.
            unsafe { libc::umask(mask) };
        }
        "listen" => {
            // SAFETY: the process has one thread.
            unsafe { std::env::set_var("LISTEN_FDS", value) };
            // SAFETY: as above; execve keeps the pid.
            unsafe { std::env::set_var("LISTEN_PID", std::process::id().to_string()) };
        }
        "chdir" => std::env::set_current_dir(value).map_err(|e| why(&e))?,
        "tty" => {
            sys::syscall(libc::SYS_setsid, &[])?;
            for fd in 0..3 {
                open_as(fd, value)?;
            }
            // SAFETY: TIOCSCTTY takes a number.
            sys::check(i64::from(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }))?;
        }
        "enosys" => deny(value, libc::ENOSYS)?,
        "eperm" => deny(value, libc::EPERM)?,
        "nosocket" => deny_family(number(value)?)?,
        _ => return Err("no such option".into()),
    }
    Ok(())
}

/// Opens `path` (a folder read-only) as descriptor `fd`, inherited by children.
fn open_as(fd: i32, path: &str) -> Result<(), String> {
    let name = sys::cstring(path)?;
    let flags = if fs::metadata(path).is_ok_and(|m| m.is_dir()) { libc::O_RDONLY } else { libc::O_RDWR };
    // SAFETY: `name` is a C string that outlives the call.
    let new = unsafe { libc::open(name.as_ptr(), flags | libc::O_NOCTTY) };
    sys::check(i64::from(new))?;
    if new != fd {
        // SAFETY: `new` was opened above; the caller names `fd` to be replaced.
        sys::check(i64::from(unsafe { libc::dup2(new, fd) }))?;
        // SAFETY: `new` is ours.
        unsafe { libc::close(new) };
    }
    Ok(())
}

fn syscall_number(name: &str) -> Result<u32, String> {
    let nr = match name {
        // The same on every architecture that has it.
        "open_tree_attr" => 467,
        "fsopen" => libc::SYS_fsopen,
        "fsconfig" => libc::SYS_fsconfig,
        "fsmount" => libc::SYS_fsmount,
        "fspick" => libc::SYS_fspick,
        "open_tree" => libc::SYS_open_tree,
        "move_mount" => libc::SYS_move_mount,
        "mount_setattr" => libc::SYS_mount_setattr,
        "openat2" => libc::SYS_openat2,
        "clone3" => libc::SYS_clone3,
        "close_range" => libc::SYS_close_range,
        "pidfd_open" => libc::SYS_pidfd_open,
        "pidfd_send_signal" => libc::SYS_pidfd_send_signal,
        "pidfd_getfd" => libc::SYS_pidfd_getfd,
        "keyctl" => libc::SYS_keyctl,
        "add_key" => libc::SYS_add_key,
        "request_key" => libc::SYS_request_key,
        "memfd_create" => libc::SYS_memfd_create,
        "faccessat2" => libc::SYS_faccessat2,
        "fchmodat2" => 452,
        "epoll_pwait2" => libc::SYS_epoll_pwait2,
        "waitid" => libc::SYS_waitid,
        "copy_file_range" => libc::SYS_copy_file_range,
        "getrandom" => libc::SYS_getrandom,
        "name_to_handle_at" => libc::SYS_name_to_handle_at,
        "statx" => libc::SYS_statx,
        "seccomp" => libc::SYS_seccomp,
        "renameat2" => libc::SYS_renameat2,
        _ => number(name)?,
    };
    u32::try_from(nr).map_err(|e| e.to_string())
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap_or(0), jt: 0, jf: 0, k }
}

/// Loads a filter that answers an error to the given system calls of this machine's own ABI.
fn deny(names: &str, errno: i32) -> Result<(), String> {
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for nr in names.split(',').map(syscall_number).collect::<Result<Vec<_>, _>>()? {
        program.push(libc::sock_filter { jf: 1, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, nr) });
        let refuse = libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
        program.push(statement(libc::BPF_RET | libc::BPF_K, refuse));
    }
    load(program)
}

/// Loads a filter that knows no sockets of a family.
fn deny_family(family: u32) -> Result<(), String> {
    let socket = u32::try_from(libc::SYS_socket).map_err(|e| e.to_string())?;
    let load_word = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    load(vec![
        statement(load_word, 0),
        libc::sock_filter { jf: 3, ..statement(equal, socket) },
        // The first argument's low half, on machines that store it first.
        statement(load_word, 16),
        libc::sock_filter { jf: 1, ..statement(equal, family) },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT.unsigned_abs()),
    ])
}

/// Loads a filter that allows what these statements leave.
fn load(mut program: Vec<libc::sock_filter>) -> Result<(), String> {
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    let length = u16::try_from(program.len()).map_err(|e| e.to_string())?;
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SECCOMP_SET_MODE_FILTER without no_new_privs: root has CAP_SYS_ADMIN. Others can't do without.
    let place = (&raw const filter).expose_provenance() as i64;
    let load = || sys::syscall(libc::SYS_seccomp, &[1, 0, place]);
    load().or_else(|_| {
        sys::syscall(libc::SYS_prctl, &[libc::PR_SET_NO_NEW_PRIVS.into(), 1, 0, 0, 0])?;
        load()
    })?;
    Ok(())
}

/// `rusage COMMAND`: prints what the command used, as JSON on the last line of standard error, and passes its status on.
pub(crate) fn rusage(command: &[&str]) -> Outcome {
    let pid = sys::fork(|| {
        sys::exec(command).unwrap_or_else(|why| {
            eprintln!("{}: {why}", command.join(" "));
            127
        })
    })?;
    let mut status = 0;
    // SAFETY: all zeroes is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both places are valid for the answer.
    sys::check(i64::from(unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) }))?;
    eprintln!("{}", Json::map([("maxrss_kib", Json::num(usage.ru_maxrss))]));
    let status = std::process::ExitStatus::from_raw(status);
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

/// `hook FILE [WORD...]`: appends what a hook gets to FILE, as one JSON object on one line.
///
/// With the word `look` it also lists the folder it was started in.
pub(crate) fn hook(args: &[String], words: &[&str]) -> Outcome {
    let (path, extra) = words.split_first().ok_or("a file is expected")?;
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).map_err(|e| why(&e))?;
    let names = fs::read_dir(".").map(|folder| {
        let names = folder.filter_map(Result::ok).map(|e| e.file_name().to_string_lossy().into_owned());
        Json::list(names.map(|name| Json::str(&name)))
    });
    let record = Json::map([
        ("words", Json::list(extra.iter().map(|word| Json::str(word)))),
        ("stdin", Json::str(&input)),
        ("folder", names.unwrap_or_else(|_| Json::null())),
        ("facts", facts::collect(args)),
    ]);
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).map_err(|e| why(&e))?;
    std::io::Write::write_all(&mut file, format!("{record}\n").as_bytes()).map_err(|e| why(&e))?;
    Ok(0)
}
