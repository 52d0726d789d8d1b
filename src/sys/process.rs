//! Ids, capabilities, signals, scheduling and the like, each for the calling thread, by raw system call: libc's
//! wrappers would signal every thread that they believe in.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;

use super::error::{Context, Result, check};
use super::newer;

/// A raw system call without memory arguments, named for its error.
macro_rules! plain {
    ($name:literal, $number:expr, $($arg:expr),* ; $($fmt:tt)*) => {{
        // SAFETY: no argument is a pointer; the call changes only this process's own attributes.
        let ret = unsafe { libc::syscall($number, $($arg),*) };
        check($name, ret, || format!($($fmt)*)).map(drop)
    }};
}

/// setresuid(2), all three.
pub(crate) fn setresuid(uid: u32) -> Result<()> {
    plain!("setresuid", libc::SYS_setresuid, uid, uid, uid; "{uid}")
}

/// setresgid(2), all three.
pub(crate) fn setresgid(gid: u32) -> Result<()> {
    plain!("setresgid", libc::SYS_setresgid, gid, gid, gid; "{gid}")
}

/// setgroups(2).
pub(crate) fn setgroups(groups: &[u32]) -> Result<()> {
    // SAFETY: pointer and length describe a slice that lives across the call.
    let ret = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    check("setgroups", ret, || format!("{groups:?}")).map(drop)
}

/// prctl(2) with integer arguments.
fn prctl(name: &'static str, option: i32, a: u64, b: u64) -> Result<i32> {
    // SAFETY: only called with options that take integers.
    let ret = unsafe { libc::syscall(libc::SYS_prctl, option, a, b, 0, 0) };
    check(name, ret, || format!("{a}")).map(|value| value as i32)
}

/// Drops one capability from the bounding set.
pub(crate) fn capbset_drop(cap: u32) -> Result<()> {
    prctl("prctl PR_CAPBSET_DROP", libc::PR_CAPBSET_DROP, cap.into(), 0).map(drop)
}

/// Keeps the permitted set over a change of uid.
pub(crate) fn set_keepcaps(on: bool) -> Result<()> {
    prctl("prctl PR_SET_KEEPCAPS", libc::PR_SET_KEEPCAPS, on.into(), 0).map(drop)
}

/// no_new_privs.
pub(crate) fn set_no_new_privs() -> Result<()> {
    prctl("prctl PR_SET_NO_NEW_PRIVS", libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// Raises one ambient capability.
pub(crate) fn ambient_raise(cap: u32) -> Result<()> {
    prctl("prctl PR_CAP_AMBIENT_RAISE", libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, cap.into()).map(drop)
}

/// Clears the ambient set.
pub(crate) fn ambient_clear() -> Result<()> {
    prctl("prctl PR_CAP_AMBIENT_CLEAR_ALL", libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0).map(drop)
}

/// Makes this process the reaper of its orphaned descendants.
pub(crate) fn set_child_subreaper(on: bool) -> Result<()> {
    prctl("prctl PR_SET_CHILD_SUBREAPER", libc::PR_SET_CHILD_SUBREAPER, on.into(), 0).map(drop)
}

/// Whether other processes may attach to this one and look into its /proc directory (CVE-2016-9962).
pub(crate) fn set_dumpable(on: bool) -> Result<()> {
    prctl("prctl PR_SET_DUMPABLE", libc::PR_SET_DUMPABLE, on.into(), 0).map(drop)
}

/// capset(2), version 3: the three sets of the calling thread.
pub(crate) fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    kernel_struct! {
        struct Header {
            version: u32,
            pid: i32,
        }
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let half = |set: u64, shift: u32| (set >> shift & 0xffff_ffff) as u32;
    let data = [0, 32].map(|s| [half(effective, s), half(permitted, s), half(inheritable, s)]);
    // SAFETY: header and data have the layout of linux/capability.h's version 3 and live across the call.
    let ret = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    check("capset", ret, || format!("effective {effective:#x}, permitted {permitted:#x}")).map(drop)
}

/// prlimit(2) on another process.
pub(crate) fn prlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    // The kernel's struct rlimit64, which not every C library has.
    let limit = [soft, hard];
    let old = std::ptr::null_mut::<u64>();
    // SAFETY: `limit` is a whole rlimit64 and lives across the call; no old value is asked for.
    let ret = unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, limit.as_ptr(), old) };
    check("prlimit", ret, || format!("soft {soft}, hard {hard}")).map(drop)
}

kernel_struct! {
    /// The scheduling attributes of sched_setattr(2), in the kernel's layout (SCHED_ATTR_SIZE_VER0).
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(crate) struct SchedAttr {
        pub(crate) size: u32,
        pub(crate) policy: u32,
        pub(crate) flags: u64,
        pub(crate) nice: i32,
        pub(crate) priority: u32,
        pub(crate) runtime: u64,
        pub(crate) deadline: u64,
        pub(crate) period: u64,
    }
}

/// RLIMIT_NOFILE (getrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// How many files this process may have open.
pub(crate) fn open_files() -> Result<Limit> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).call("getrlimit", "RLIMIT_NOFILE")?;
    Ok(Limit { soft, hard })
}

pub(crate) fn set_open_files(limit: Limit) -> Result<()> {
    setrlimit(Resource::RLIMIT_NOFILE, limit.soft, limit.hard).call("setrlimit", "RLIMIT_NOFILE")
}

/// sched_setattr(2) on a process, 0 being this one.
pub(crate) fn sched_setattr(pid: i32, attr: &SchedAttr) -> Result<()> {
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..*attr };
    // SAFETY: `attr` has the kernel's layout, says its own size and lives across the call.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const attr, 0) };
    check("sched_setattr", ret, String::new).map(drop)
}

/// sched_setaffinity(2) on a process, 0 being this one; the mask is as long as needed (hosts above 1024 CPUs).
pub(crate) fn sched_setaffinity(pid: i32, mask: &[u64]) -> Result<()> {
    // SAFETY: pointer and length in bytes describe a slice that lives across the call.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(mask), mask.as_ptr()) };
    check("sched_setaffinity", ret, String::new).map(drop)
}

/// ioprio_set(2) on one process.
pub(crate) fn ioprio_set(pid: i32, value: i32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    plain!("ioprio_set", libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, pid, value; "{value:#x}")
}

/// personality(2).
pub(crate) fn personality(persona: u64) -> Result<()> {
    plain!("personality", libc::SYS_personality, persona; "{persona:#x}")
}

/// How long ago the system was booted. Read without a system call (vdso(7)).
pub(crate) fn since_boot() -> std::time::Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` lives across the call.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    let seconds = std::time::Duration::from_secs(now.tv_sec.unsigned_abs());
    seconds + std::time::Duration::from_nanos(now.tv_nsec.unsigned_abs())
}

/// keyctl(2), KEYCTL_JOIN_SESSION_KEYRING: a new (or the existing) session keyring of that name.
pub(crate) fn join_session_keyring(name: &CStr) -> Result<i32> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: `name` is a C string that lives across the call.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    newer::KEYCTL.check(ret, || format!("JOIN_SESSION_KEYRING {name:?}")).map(|key| key as i32)
}

/// keyctl(2), KEYCTL_JOIN_SESSION_KEYRING: a new session keyring without a name, so that nobody else joins it.
pub(crate) fn leave_session_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: no name is allowed.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, none) };
    newer::KEYCTL.check(ret, || "JOIN_SESSION_KEYRING".into()).map(drop)
}

static ACTS_FOR_ANOTHER: AtomicBool = AtomicBool::new(false);

/// Notes that this process does from here on what a user's files say, and that root has called it.
pub(crate) fn act_for_another() {
    ACTS_FOR_ANOTHER.store(true, Ordering::Relaxed);
}

/// Whether this process does what the files of another user than its caller say.
pub(crate) fn acts_for_another() -> bool {
    ACTS_FOR_ANOTHER.load(Ordering::Relaxed)
}

/// Bits that nobody can foresee, without a system call: the kernel gives each program 16 bytes of them (getauxval(3),
/// AT_RANDOM). Mixed, as the C library takes its own secrets from there.
pub(crate) fn unforeseeable() -> u64 {
    use std::hash::Hasher as _;
    // SAFETY: getauxval has no preconditions.
    let address = unsafe { libc::getauxval(libc::AT_RANDOM) } as *const [u8; 16];
    let mut hasher = std::hash::DefaultHasher::new();
    if !address.is_null() {
        // SAFETY: the kernel has put 16 bytes there, which stay for the life of the program.
        hasher.write(unsafe { &*address });
    }
    hasher.finish()
}

/// keyctl(2), KEYCTL_SETPERM: what a new session keyring permits (security/keys/process_keys.c), and to be found by
/// name: by its owner, or from a user namespace by others.
pub(crate) fn make_key_searchable(key: i32, by_others: bool) -> Result<()> {
    const KEYCTL_SETPERM: i32 = 5;
    const POSSESSOR_ALL: u32 = 0x3f00_0000;
    const USER_VIEW_READ_LINK: u32 = 0x0013_0000;
    const USER_SEARCH: u32 = 0x0008_0000;
    const OTHERS_SEARCH: u32 = 0x0000_0008;
    let search = if by_others { OTHERS_SEARCH } else { USER_SEARCH };
    let mask = POSSESSOR_ALL | USER_VIEW_READ_LINK | search;
    plain!("keyctl SETPERM", libc::SYS_keyctl, KEYCTL_SETPERM, key, mask; "{key}")
}

/// Whether this process, without keyctl(2), has other ways to the keys of its session: add_key(2) and request_key(2).
pub(crate) fn keys_are_within_reach() -> bool {
    newer::ADD_KEY.reaches_the_kernel() || newer::REQUEST_KEY.reaches_the_kernel()
}

/// sethostname(2).
pub(crate) fn sethostname(name: &str) -> Result<()> {
    // SAFETY: pointer and length describe a string that lives across the call.
    let ret = unsafe { libc::syscall(libc::SYS_sethostname, name.as_ptr(), name.len()) };
    check("sethostname", ret, || format!("{name:?}")).map(drop)
}

/// setdomainname(2).
pub(crate) fn setdomainname(name: &str) -> Result<()> {
    // SAFETY: pointer and length describe a string that lives across the call.
    let ret = unsafe { libc::syscall(libc::SYS_setdomainname, name.as_ptr(), name.len()) };
    check("setdomainname", ret, || format!("{name:?}")).map(drop)
}

/// Sets a signal's disposition to the default, by raw rt_sigaction(2): libc's refuses the signals it keeps for itself
/// (32 and 33), and they too may have been inherited as ignored.
pub(crate) fn signal_default(signal: i32) {
    // The kernel's struct sigaction: handler (SIG_DFL is zero), flags, restorer and mask, in whatever order.
    let default = [0_u64; 4];
    let old = std::ptr::null_mut::<u64>();
    // SAFETY: `default` is a whole kernel sigaction that installs no code and lives across the call; a signal that
    // can't be changed gives EINVAL, which is fine.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), old, size_of::<u64>()) };
}

/// Runs a program of the host to its end, whatever the caller does about SIGCHLD.
pub(crate) fn output(command: &mut std::process::Command) -> std::io::Result<std::process::Output> {
    super::clone::hear_of_children();
    #[allow(clippy::disallowed_methods)]
    command.output()
}

/// Every signal there is. sigfillset(3) leaves out what its libc keeps for itself, which is 32 and 33 of glibc, and 34 of
/// musl, too: others may send that one, as SIGRTMIN.
pub(crate) fn every_signal() -> SigSet {
    let mut set = SigSet::empty().as_ref().to_owned();
    // SAFETY: any bits make a set, of which the kernel takes the first 64; there is room for one.
    unsafe { (&raw mut set).write_bytes(0xff, 1) };
    // SAFETY: as above.
    unsafe { SigSet::from_sigset_t_unchecked(set) }
}

/// Whether a signal is ignored.
pub(crate) fn signal_ignored(signal: i32) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: no action is set; `now` has room for the old one.
    let ret = unsafe { libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr()) };
    // SAFETY: all zeroes is a valid value, and the call wrote a whole one, if anything.
    let now = unsafe { now.assume_init() };
    ret == 0 && now.sa_sigaction == libc::SIG_IGN
}

/// rt_sigpending(2): the signals that are blocked and wait.
pub(crate) fn signals_pending() -> Result<SigSet> {
    let mut set = SigSet::empty().as_ref().to_owned();
    // SAFETY: `set` has room for a whole set and lives across the call.
    let ret = unsafe { libc::sigpending(&raw mut set) };
    check("rt_sigpending", ret.into(), String::new)?;
    // SAFETY: the kernel has filled it in.
    Ok(unsafe { SigSet::from_sigset_t_unchecked(set) })
}

/// A peer that went away shows as EPIPE: the runtime must live to clean up. The program gets the default back.
pub(crate) fn ignore_sigpipe() {
    // SAFETY: SIG_IGN installs no code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Empties the signal mask.
pub(crate) fn unblock_all() -> Result<()> {
    set_mask(libc::SIG_SETMASK, 0)
}

/// rt_sigprocmask(2) on the kernel's own 64-bit set: libc's leaves out the signals it keeps for itself.
fn set_mask(how: i32, mask: u64) -> Result<()> {
    let old = std::ptr::null_mut::<u64>();
    // SAFETY: `mask` is the kernel's sigset of eight bytes and lives across the call.
    let ret = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const mask, old, size_of::<u64>()) };
    check("rt_sigprocmask", ret, String::new).map(drop)
}

/// setsid(2).
pub(crate) fn setsid() -> Result<()> {
    plain!("setsid", libc::SYS_setsid, ; "")
}

/// Brings the loopback interface of the current network namespace up (netdevice(7), SIOCSIFFLAGS).
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: an all-zero ifreq is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: `request` is a valid ifreq and lives across the call.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    check("ioctl SIOCSIFFLAGS", ret.into(), || "\"lo\"".into()).map(drop)
}
