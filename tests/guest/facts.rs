//! `facts`: everything the kernel tells a process about itself, as one JSON object on one line.

use std::collections::BTreeMap;
use std::fs;

use crate::json::Json;
use crate::{Outcome, sys};

const RLIMITS: [(&str, u32); 16] = [
    ("RLIMIT_AS", 9),
    ("RLIMIT_CORE", 4),
    ("RLIMIT_CPU", 0),
    ("RLIMIT_DATA", 2),
    ("RLIMIT_FSIZE", 1),
    ("RLIMIT_LOCKS", 10),
    ("RLIMIT_MEMLOCK", 8),
    ("RLIMIT_MSGQUEUE", 12),
    ("RLIMIT_NICE", 13),
    ("RLIMIT_NOFILE", 7),
    ("RLIMIT_NPROC", 6),
    ("RLIMIT_RSS", 5),
    ("RLIMIT_RTPRIO", 14),
    ("RLIMIT_RTTIME", 15),
    ("RLIMIT_SIGPENDING", 11),
    ("RLIMIT_STACK", 3),
];

pub(crate) fn print(args: &[String]) -> Outcome {
    println!("{}", collect(args));
    Ok(0)
}

pub(crate) fn collect(args: &[String]) -> Json {
    let strings = |lines: &[String]| Json::list(lines.iter().map(|line| Json::str(line)));
    Json::map([
        ("argv", strings(args)),
        ("env", strings(&environment())),
        ("pid", Json::num(std::process::id())),
        ("ppid", Json::num(std::os::unix::process::parent_id())),
        ("sid", Json::num(sys::syscall(libc::SYS_getsid, &[0]).unwrap_or(-1))),
        ("cwd", std::env::current_dir().map_or_else(|e| Json::str(&sys::why(&e)), |d| Json::str(&d.to_string_lossy()))),
        ("hostname", Json::str(uname().0.as_str())),
        ("domainname", Json::str(uname().1.as_str())),
        ("machine", Json::str(uname().2.as_str())),
        ("status", Json::map(status().into_iter().map(|(key, value)| (key, Json::str(&value))))),
        ("ns", Json::map(namespaces().into_iter().map(|(key, value)| (key, Json::str(&value))))),
        ("fds", Json::map(fds().into_iter().map(|(key, value)| (key.to_string(), Json::str(&value))))),
        ("rlimits", Json::map(RLIMITS.iter().map(|(name, which)| (*name, rlimit(*which))))),
        ("mountinfo", strings(&lines("/proc/self/mountinfo"))),
        ("cgroup", strings(&lines("/proc/self/cgroup"))),
        ("oom_score_adj", Json::num(line("/proc/self/oom_score_adj", "0"))),
        ("personality", Json::num(sys::syscall(libc::SYS_personality, &[0xffff_ffff]).unwrap_or(-1))),
        ("scheduler", scheduler()),
        ("ioprio", Json::num(sys::syscall(libc::SYS_ioprio_get, &[1, 0]).unwrap_or(-1))),
        ("monotonic", Json::num(clock(libc::CLOCK_MONOTONIC))),
        ("boottime", Json::num(clock(libc::CLOCK_BOOTTIME))),
        ("timens_offsets", strings(&lines("/proc/self/timens_offsets"))),
        ("keyring", Json::str(&keyring().unwrap_or_else(|why| why))),
        ("tty", Json::map((0..3).map(|fd| (fd.to_string(), tty(fd))))),
        ("loopback", Json::str(loopback())),
        ("uid_map", strings(&lines("/proc/self/uid_map"))),
        ("gid_map", strings(&lines("/proc/self/gid_map"))),
        ("setgroups", Json::str(&line("/proc/self/setgroups", ""))),
    ])
}

fn environment() -> Vec<String> {
    let vars = std::env::vars_os();
    vars.map(|(key, value)| format!("{}={}", key.to_string_lossy(), value.to_string_lossy())).collect()
}

fn lines(path: &str) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn line(path: &str, default: &str) -> String {
    lines(path).into_iter().next().unwrap_or_else(|| default.to_owned())
}

/// Host name, domain name and machine.
pub(crate) fn uname() -> (String, String, String) {
    // SAFETY: all zeroes is a valid utsname.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `name` is a valid place for the answer.
    unsafe { libc::uname(&raw mut name) };
    let text = |field: &[libc::c_char]| {
        let bytes: Vec<u8> = field.iter().take_while(|c| **c != 0).flat_map(|c| c.to_ne_bytes()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    (text(&name.nodename), text(&name.domainname), text(&name.machine))
}

/// /proc/self/status by key.
pub(crate) fn status() -> BTreeMap<String, String> {
    lines("/proc/self/status")
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect()
}

pub(crate) fn namespaces() -> BTreeMap<String, String> {
    ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), fs::read_link(format!("/proc/self/ns/{name}")).ok()?)))
        .map(|(name, link)| (name, link.to_string_lossy().into_owned()))
        .collect()
}

/// Open descriptors and what they are, without the one that lists them.
fn fds() -> BTreeMap<i32, String> {
    let Ok(folder) = fs::read_dir("/proc/self/fd") else { return BTreeMap::new() };
    folder
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, fs::read_link(entry.path()).ok()?)))
        .map(|(fd, link): (i32, _)| (fd, link.to_string_lossy().into_owned()))
        .filter(|(_, link)| !link.starts_with("/proc/") || !link.ends_with("/fd"))
        .collect()
}

fn rlimit(which: u32) -> Json {
    let mut pair = [0u64; 2];
    let place = pair.as_mut_ptr().expose_provenance() as i64;
    match sys::syscall(libc::SYS_prlimit64, &[0, i64::from(which), 0, place]) {
        Ok(_) => Json::list(pair.iter().map(Json::num)),
        Err(_) => Json::null(),
    }
}

fn scheduler() -> Json {
    let policy = sys::syscall(libc::SYS_sched_getscheduler, &[0]).unwrap_or(-1);
    let mut priority = 0i32;
    let place = (&raw mut priority).expose_provenance() as i64;
    let _ = sys::syscall(libc::SYS_sched_getparam, &[0, place]);
    // The raw system call answers 20 - nice.
    let nice = 20 - sys::syscall(libc::SYS_getpriority, &[0, 0]).unwrap_or(20);
    Json::map([("policy", Json::num(policy)), ("priority", Json::num(priority)), ("nice", Json::num(nice))])
}

fn clock(which: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer.
    unsafe { libc::clock_gettime(which, &raw mut time) };
    time.tv_sec
}

/// The description of the session keyring: `keyring;UID;GID;PERM;NAME`.
pub(crate) fn keyring() -> Result<String, String> {
    let mut buffer = [0u8; 256];
    let place = buffer.as_mut_ptr().expose_provenance() as i64;
    // KEYCTL_DESCRIBE of KEY_SPEC_SESSION_KEYRING; the length counts the NUL.
    let length = sys::syscall(libc::SYS_keyctl, &[6, -3, place, 256])?;
    let length = usize::try_from(length).unwrap_or(1) - 1;
    Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned())
}

/// The label that a security module has given to the session keyring (KEYCTL_GET_SECURITY).
pub(crate) fn key_label() -> Result<String, String> {
    let mut buffer = [0u8; 256];
    let place = buffer.as_mut_ptr().expose_provenance() as i64;
    sys::syscall(libc::SYS_keyctl, &[17, -3, place, 256])?;
    Ok(text_of(&buffer))
}

/// An extended attribute as text.
pub(crate) fn xattr(path: &str, name: &str) -> Result<String, String> {
    let (path, name, mut buffer) = (sys::cstring(path)?, sys::cstring(name)?, [0u8; 256]);
    let place = buffer.as_mut_ptr().expose_provenance() as i64;
    let (path, name) = (path.as_ptr().expose_provenance() as i64, name.as_ptr().expose_provenance() as i64);
    sys::syscall(libc::SYS_getxattr, &[path, name, place, 256])?;
    Ok(text_of(&buffer))
}

/// Up to the first NUL.
fn text_of(buffer: &[u8]) -> String {
    String::from_utf8_lossy(buffer.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// Rows and columns of a terminal.
pub(crate) fn winsize(fd: i32) -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ fills a winsize, and `size` is one.
    let result = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size) };
    (result == 0).then_some((size.ws_row, size.ws_col))
}

fn tty(fd: i32) -> Json {
    let Some((rows, columns)) = winsize(fd) else { return Json::null() };
    let name = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    let mut foreground = 0i32;
    // SAFETY: TIOCGPGRP fills a pid_t, and `foreground` is one; it works only on the controlling terminal.
    let controlling = unsafe { libc::ioctl(fd, libc::TIOCGPGRP, &raw mut foreground) } == 0;
    Json::map([
        ("rows", Json::num(rows)),
        ("columns", Json::num(columns)),
        ("name", Json::str(&name.to_string_lossy())),
        ("controlling", Json::bool(controlling)),
    ])
}

/// `up`, `down` or `none`.
pub(crate) fn loopback() -> &'static str {
    // SAFETY: plain numbers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    let mut request = [0u8; 40];
    request[..2].copy_from_slice(b"lo");
    // SAFETY: SIOCGIFFLAGS reads the name and writes the flags of an ifreq of 40 bytes.
    let result = unsafe { libc::ioctl(socket, libc::SIOCGIFFLAGS as _, request.as_mut_ptr()) };
    // SAFETY: the descriptor is ours.
    unsafe { libc::close(socket) };
    let flags = u16::from_ne_bytes([request[16], request[17]]);
    match (result, flags & 1) {
        (0, 1) => "up",
        (0, _) => "down",
        _ => "none",
    }
}
