//! The floor: what the kernel itself needs for a container, and so the least that any runtime can take.
//!
//! The fixed sequence of the engine bundle (`harness/bundle.rs`) with everything precomputed: nothing is parsed, nothing
//! is kept for later commands, no mistake is explained. It protects nobody from a hostile root file system.
//!
//!     floor run ROOTFS CGROUP [MASKED MOUNTS]   one container, its program is /bin/true
//!     floor exec PID CGROUP [tty]               /bin/true in the container of that process
//!     floor rusage PROGRAM [ARGUMENTS]          runs it and prints its peak memory in KiB on standard error
//!
//! `rusage` is here because a process inherits the peak of whoever executes it: of this one, it is small.

#![no_main]

use std::ffi::{CStr, CString, c_char, c_int, c_long};
use std::mem::zeroed;
use std::ptr::null;

use libc::{
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS, MS_BIND, MS_NODEV, MS_NOEXEC,
    MS_NOSUID, MS_RDONLY, MS_REC, MS_REMOUNT, MS_SLAVE, MS_STRICTATIME,
};

/// The default capabilities of Podman.
const CAPABILITIES: u64 = 0x8004_05fb;
const LAST_CAPABILITY: u32 = 40;
const NAMESPACES: c_int = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const SECCOMP_RET_ALLOW: u32 = 0x7fff_0000;
const SECCOMP_RET_ERRNO: u32 = 0x0005_0000;
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

/// System calls up to this number are told apart, in as many runs of equal verdict as Podman's profile has.
const NUMBERS: u32 = 470;
const RUNS: u32 = 64;
const FILTER: ([libc::sock_filter; 160], usize) = filter();

const fn insn(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

const fn filter() -> ([libc::sock_filter; 160], usize) {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
    let mut program = [insn(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | 1); 160];
    program[0] = insn(BPF_LD | BPF_W | BPF_ABS, 0, 0, 4);
    program[1] = insn(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, AUDIT_ARCH);
    program[3] = insn(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0);
    let end = tree(&mut program, 4, 0, RUNS);
    (program, end)
}

/// A balanced tree of JGE over the runs `low..high`, written from `at` on; returns where it ends.
const fn tree(program: &mut [libc::sock_filter; 160], at: usize, low: u32, high: u32) -> usize {
    use libc::{BPF_JGE, BPF_JMP, BPF_K, BPF_RET};
    if high - low == 1 {
        let verdict = if low.is_multiple_of(2) { SECCOMP_RET_ALLOW } else { SECCOMP_RET_ERRNO | 38 };
        // The programs that are run here may only meet an allowed one: short runs are the refused ones.
        program[at] = insn(BPF_RET | BPF_K, 0, 0, verdict);
        return at + 1;
    }
    let middle = (low + high) / 2;
    let right = tree(program, at + 1, low, middle);
    // Run 2n begins at n/32 of the numbers; run 2n+1 is the last number before the next.
    let pair = middle / 2 * NUMBERS / (RUNS / 2);
    let next = (middle / 2 + 1) * NUMBERS / (RUNS / 2);
    let first = if middle.is_multiple_of(2) { pair } else { next - 1 };
    program[at] = insn(BPF_JMP | BPF_JGE | BPF_K, (right - at - 1) as u8, 0, first);
    tree(program, right, middle, high)
}

fn die(what: &str) -> ! {
    eprintln!("floor: {what}: {}", std::io::Error::last_os_error());
    // SAFETY: ends this process.
    unsafe { libc::_exit(9) }
}

fn check(result: c_long, what: &str) -> c_long {
    if result < 0 {
        die(what)
    }
    result
}

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: u64, data: Option<&CStr>) -> c_int {
    let data = data.map_or(null(), |data| data.as_ptr().cast());
    // SAFETY: all strings end in NUL and outlive the call.
    unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data) }
}

fn must_mount(source: &CStr, target: &CStr, kind: &CStr, flags: u64, data: Option<&CStr>) {
    check(mount(source, target, kind, flags, data).into(), target.to_str().unwrap_or("mount"));
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

fn clone3(flags: u64, cgroup: c_int) -> libc::pid_t {
    let args = CloneArgs {
        flags: flags | CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: cgroup as u64,
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM this is fork(2) of a process with one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    check(pid, "clone3") as libc::pid_t
}

fn open(path: &CStr, flags: c_int) -> c_int {
    // SAFETY: the path ends in NUL.
    check(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) }.into(), "open") as c_int
}

/// A device program that allows, with as many comparisons as the list of the bundle has.
fn attach_devices(cgroup: c_int) {
    // r2 = access and type, r3 = major, r4 = minor of struct bpf_cgroup_dev_ctx; then one comparison each; r0 = 1.
    let mut program: Vec<u64> = vec![0x0000_0000_0000_1261, 0x0000_0000_0004_1361, 0x0000_0000_0008_1461];
    let rules = 10;
    for rule in 0..rules {
        // if r4 == rule goto the end; the end is `r0 = 1; exit`.
        let over: u64 = 2 * (rules - rule - 1) + 1;
        program.push(0x0000_0000_0000_0455 | (1 << 16) | (rule + 100) << 32);
        program.push(0x0000_0000_0000_0005 | (over - 1) << 16);
    }
    program.extend([0x0000_0001_0000_00b7, 0x0000_0000_0000_0095]);
    #[repr(C)]
    struct Load {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        rest: [u64; 12],
    }
    let load = Load {
        prog_type: 15, // BPF_PROG_TYPE_CGROUP_DEVICE
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        rest: [0; 12],
    };
    // SAFETY: the attributes and what they point to outlive the call. 5 is BPF_PROG_LOAD.
    let fd = check(unsafe { libc::syscall(libc::SYS_bpf, 5, &raw const load, size_of::<Load>()) }, "BPF_PROG_LOAD");
    // target_fd, attach_bpf_fd, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI
    let attach = [cgroup as u32, fd as u32, 6, 2];
    // SAFETY: as above. 8 is BPF_PROG_ATTACH.
    check(unsafe { libc::syscall(libc::SYS_bpf, 8, &raw const attach, size_of_val(&attach)) }, "BPF_PROG_ATTACH");
}

/// Capabilities, the filter, the program: what every process of the container does to itself.
fn become_program() -> ! {
    // SAFETY: plain system calls on this process; every pointer outlives its call.
    unsafe {
        let (mut program, length) = FILTER;
        let fprog = libc::sock_fprog { len: length as u16, filter: program.as_mut_ptr() };
        check(libc::syscall(libc::SYS_seccomp, 1, 0, &raw const fprog), "seccomp");
        for capability in (0..=LAST_CAPABILITY).filter(|bit| CAPABILITIES >> bit & 1 == 0) {
            libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
        }
        let header = [0x2008_0522_u32, 0];
        let (low, high) = (CAPABILITIES as u32, (CAPABILITIES >> 32) as u32);
        let sets = [low, low, 0, high, high, 0];
        check(libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()), "capset");
        let arguments = [c"/bin/true".as_ptr(), null()];
        unsafe extern "C" {
            static environ: *const *const c_char;
        }
        libc::execve(arguments[0], arguments.as_ptr(), environ);
    }
    die("execve")
}

fn wait_for(pid: libc::pid_t) -> c_int {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    check(unsafe { libc::waitpid(pid, &raw mut status, 0) }.into(), "waitpid");
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}

fn run(root: &CStr, cgroup: &CStr, masked: u32, mounts: u32) -> c_int {
    // SAFETY: the path ends in NUL.
    check(unsafe { libc::mkdir(cgroup.as_ptr(), 0o755) }.into(), "mkdir of the cgroup");
    let fd = open(cgroup, libc::O_RDONLY | libc::O_DIRECTORY);
    attach_devices(fd);
    let pid = clone3(NAMESPACES as u64, fd);
    if pid == 0 {
        inside(root, masked, mounts);
    }
    let status = wait_for(pid);
    // SAFETY: the path ends in NUL.
    check(unsafe { libc::rmdir(cgroup.as_ptr()) }.into(), "rmdir of the cgroup");
    status
}

fn inside(root: &CStr, masked: u32, mounts: u32) -> ! {
    const NOTHING: u64 = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    // SAFETY: plain system calls of a process with one thread; every string ends in NUL and every pointer outlives its call.
    unsafe {
        libc::setsid();
        let socket = check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0).into(), "socket");
        let mut request: libc::ifreq = zeroed();
        request.ifr_name[0] = b'l' as c_char;
        request.ifr_name[1] = b'o' as c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        check(libc::ioctl(socket as c_int, libc::SIOCSIFFLAGS as _, &raw const request).into(), "SIOCSIFFLAGS");
        must_mount(c"", c"/", c"", MS_REC | MS_SLAVE, None);
        must_mount(root, root, c"", MS_BIND | MS_REC, None);
        check(libc::chdir(root.as_ptr()).into(), "chdir");
        must_mount(c"proc", c"proc", c"proc", NOTHING, None);
        must_mount(c"tmpfs", c"dev", c"tmpfs", MS_NOSUID | MS_STRICTATIME, Some(c"mode=755,size=65536k"));
        for folder in [c"dev/pts", c"dev/shm", c"dev/mqueue"] {
            libc::mkdir(folder.as_ptr(), 0o755);
        }
        must_mount(c"sysfs", c"sys", c"sysfs", NOTHING | MS_RDONLY, None);
        let options = c"newinstance,ptmxmode=0666,mode=0620,gid=5";
        must_mount(c"devpts", c"dev/pts", c"devpts", MS_NOSUID | MS_NOEXEC, Some(options));
        must_mount(c"mqueue", c"dev/mqueue", c"mqueue", NOTHING, None);
        must_mount(c"shm", c"dev/shm", c"tmpfs", NOTHING, Some(c"mode=1777,size=65536k"));
        must_mount(c"cgroup", c"sys/fs/cgroup", c"cgroup2", NOTHING | MS_RDONLY, None);
        for file in [c"etc/hosts", c"etc/resolv.conf"] {
            must_mount(&CString::from_vec_unchecked([b"/", file.to_bytes()].concat()), file, c"", MS_BIND, None);
        }
        libc::umask(0);
        let devices = [(c"dev/null", 1, 3), (c"dev/zero", 1, 5), (c"dev/full", 1, 7), (c"dev/random", 1, 8)];
        for (path, major, minor) in devices.into_iter().chain([(c"dev/urandom", 1, 9), (c"dev/tty", 5, 0)]) {
            let mode = libc::S_IFCHR | 0o666;
            check(libc::mknod(path.as_ptr(), mode, libc::makedev(major, minor)).into(), "mknod");
        }
        let links = [(c"/proc/self/fd", c"dev/fd"), (c"/proc/self/fd/0", c"dev/stdin"), (c"pts/ptmx", c"dev/ptmx")];
        let streams = [(c"/proc/self/fd/1", c"dev/stdout"), (c"/proc/self/fd/2", c"dev/stderr")];
        for (target, path) in links.into_iter().chain(streams) {
            libc::symlink(target.as_ptr(), path.as_ptr());
        }
        libc::umask(0o022);
        libc::sethostname(c"bench".as_ptr(), 5);
        if mounts > 0 {
            // The first gets its flags by a second call, the others are copies of it.
            must_mount(c"srv", c"m/0", c"", MS_BIND, None);
            must_mount(c"", c"m/0", c"", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, None);
        }
        for number in 1..mounts {
            let target = CString::from_vec_unchecked(format!("m/{number}").into());
            must_mount(c"m/0", &target, c"", MS_BIND, None);
        }
        // What isn't there isn't masked: an error is a path that this kernel lacks.
        for file in [c"proc/kcore", c"proc/keys", c"proc/timer_list"] {
            mount(c"/dev/null", file, c"", MS_BIND, None);
        }
        must_mount(c"tmpfs", c"proc/acpi", c"tmpfs", MS_RDONLY, None);
        for folder in [c"proc/scsi", c"sys/firmware", c"sys/fs/selinux", c"sys/dev/block"] {
            mount(c"proc/acpi", folder, c"", MS_BIND, None);
        }
        for number in 0..masked {
            let (source, name) = if number % 2 == 0 { (c"/dev/null", "f") } else { (c"proc/acpi", "d") };
            let target = CString::from_vec_unchecked(format!("masked/{name}{number}").into());
            must_mount(source, &target, c"", MS_BIND, None);
        }
        let paths = [c"proc/bus", c"proc/fs", c"proc/irq", c"proc/sys", c"proc/sysrq-trigger"];
        for path in paths {
            if mount(path, path, c"", MS_BIND | MS_REC, None) == 0 {
                must_mount(c"", path, c"", MS_BIND | MS_REMOUNT | MS_RDONLY | NOTHING, None);
            }
        }
        check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()), "pivot_root");
        must_mount(c"", c".", c"", MS_SLAVE | MS_REC, None);
        check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH).into(), "umount2");
        check(libc::chdir(c"/".as_ptr()).into(), "chdir");
    }
    become_program()
}

fn exec(pid: libc::pid_t, cgroup: &CStr, tty: bool) -> c_int {
    let fd = open(cgroup, libc::O_RDONLY | libc::O_DIRECTORY);
    // SAFETY: plain system calls; every pointer outlives its call.
    unsafe {
        let target = check(libc::syscall(libc::SYS_pidfd_open, pid, 0), "pidfd_open");
        check(libc::setns(target as c_int, NAMESPACES).into(), "setns");
        let master = tty.then(|| {
            let master = open(c"/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY);
            check(libc::ioctl(master, libc::TIOCSPTLCK, &raw const ZERO).into(), "TIOCSPTLCK");
            master
        });
        let pid = clone3(0, fd);
        if pid == 0 {
            libc::setsid();
            if let Some(master) = master {
                let terminal = libc::ioctl(master, libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY);
                check(terminal.into(), "TIOCGPTPEER");
                check(libc::ioctl(terminal, libc::TIOCSCTTY, 0).into(), "TIOCSCTTY");
                for stream in 0..3 {
                    libc::dup2(terminal, stream);
                }
                libc::close(terminal);
            }
            become_program();
        }
        if let Some(master) = master {
            let mut buffer = [0_u8; 4096];
            // EIO: nobody has the other side open any more. It may not have been opened yet.
            while libc::read(master, buffer.as_mut_ptr().cast(), buffer.len()) > 0 {}
        }
        wait_for(pid)
    }
}

static ZERO: c_int = 0;

fn rusage(arguments: *const *const c_char) -> c_int {
    // SAFETY: the arguments are a part of argv, which ends in a null pointer; the child only executes them.
    unsafe {
        let pid = check(libc::fork().into(), "fork") as libc::pid_t;
        if pid == 0 {
            libc::execvp(*arguments, arguments);
            die("execvp");
        }
        let (mut status, mut usage) = (0, zeroed::<libc::rusage>());
        check(libc::wait4(pid, &raw mut status, 0, &raw mut usage).into(), "wait4");
        eprintln!("maxrss {}", usage.ru_maxrss);
        if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
    }
}

/// What the C library calls.
// SAFETY: no other symbol of this name is linked in: the crate is `no_main`.
#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    let argument = |index: usize| {
        if index >= argc as usize {
            return c"";
        }
        // SAFETY: the C library passes `argc` pointers to strings that live as long as the process.
        unsafe { CStr::from_ptr(*argv.add(index)) }
    };
    let number = |index: usize| argument(index).to_str().ok().and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    match argument(1).to_bytes() {
        b"run" => run(argument(2), argument(3), number(4), number(5)),
        b"exec" => exec(number(2) as libc::pid_t, argument(3), argument(4) == c"tty"),
        // SAFETY: argv ends in a null pointer, and argc is at least 3.
        b"rusage" if argc > 2 => rusage(unsafe { argv.add(2) }),
        _ => {
            eprintln!("usage: floor run ROOTFS CGROUP [MASKED MOUNTS] | exec PID CGROUP [tty] | rusage PROGRAM...");
            2
        }
    }
}
