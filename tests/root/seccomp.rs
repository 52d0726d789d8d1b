//! linux.seccomp: the filter is there, decides as the profile says, and nothing of it is dropped silently.

use serde_json::{Value, json};

use crate::common::{Container, rival};
use crate::container_test;

fn profile(c: &mut Container, default: &str, syscalls: Value) {
    c.set("/linux/seccomp", json!({ "defaultAction": default, "syscalls": syscalls }));
}

/// What the probe prints for a system call: its result or the name of its error.
fn syscall(c: &mut Container, number: i64, args: &[&str]) -> String {
    let number = number.to_string();
    let mut words = vec!["syscall", &number];
    words.extend(args);
    c.prints(&words)
}

container_test!(a_filter_is_loaded, |c| {
    assert_eq!(c.facts()["status"]["Seccomp"], "0");
    profile(c, "SCMP_ACT_ALLOW", json!([{ "names": ["swapon"], "action": "SCMP_ACT_ERRNO" }]));
    let facts = c.facts();
    assert_eq!(facts["status"]["Seccomp"], "2");
    if rival().is_none() {
        assert_eq!(facts["status"]["Seccomp_filters"], "1");
    }
});

container_test!(an_error_is_eperm_or_the_one_given, |c| {
    profile(
        c,
        "SCMP_ACT_ALLOW",
        json!([
            { "names": ["getpriority"], "action": "SCMP_ACT_ERRNO" },
            { "names": ["getppid", "sched_yield"], "action": "SCMP_ACT_ERRNO", "errnoRet": 16 },
        ]),
    );
    assert_eq!(syscall(c, libc::SYS_getpriority, &["0", "0"]), "EPERM\n");
    assert_eq!(syscall(c, libc::SYS_getppid, &[]), "EBUSY\n");
    assert_eq!(syscall(c, libc::SYS_sched_yield, &[]), "EBUSY\n");
    assert_eq!(syscall(c, libc::SYS_getpid, &[]), "1\n");
});

container_test!(arguments_are_compared, |c| {
    let arg = |op: &str, value: u64| json!([{ "index": 0, "value": value, "op": op }]);
    for (op, value, refused, allowed) in [
        ("SCMP_CMP_EQ", 8, "8", "0"),
        ("SCMP_CMP_NE", 8, "0", "8"),
        ("SCMP_CMP_GT", 100, "131072", "0"),
        ("SCMP_CMP_LT", 8, "0", "8"),
        ("SCMP_CMP_GE", 8, "8", "0"),
        ("SCMP_CMP_LE", 0, "0", "8"),
    ] {
        profile(
            c,
            "SCMP_ACT_ALLOW",
            json!([{ "names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": arg(op, value) }]),
        );
        assert_eq!(syscall(c, libc::SYS_personality, &[refused]), "EPERM\n", "{op}");
        assert_eq!(syscall(c, libc::SYS_personality, &[allowed]), "0\n", "{op}");
    }
    let masked = json!([{ "index": 0, "value": 0xff00u64, "valueTwo": 0x1200u64, "op": "SCMP_CMP_MASKED_EQ" }]);
    profile(c, "SCMP_ACT_ALLOW", json!([{ "names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": masked }]));
    assert_eq!(syscall(c, libc::SYS_personality, &["4660"]), "EPERM\n");
    assert_eq!(syscall(c, libc::SYS_personality, &["8"]), "0\n");
});

container_test!(a_kill_ends_the_program, |c| {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD"] {
        profile(c, "SCMP_ACT_ALLOW", json!([{ "names": ["getppid"], "action": action }]));
        c.args(&["syscall", &libc::SYS_getppid.to_string()]);
        c.run().exits(128 + libc::SIGSYS);
    }
});

container_test!(a_trap_is_a_signal, |c| {
    // As pid 1 of a namespace: the kernel forces SIGSYS upon it.
    profile(c, "SCMP_ACT_ALLOW", json!([{ "names": ["getppid"], "action": "SCMP_ACT_TRAP" }]));
    c.args(&["syscall", &libc::SYS_getppid.to_string()]);
    c.run().exits(128 + libc::SIGSYS);
});

container_test!(without_no_new_privileges_too, |c| {
    c.set("/process/noNewPrivileges", false);
    profile(c, "SCMP_ACT_ALLOW", json!([{ "names": ["getpriority"], "action": "SCMP_ACT_ERRNO" }]));
    assert_eq!(syscall(c, libc::SYS_getpriority, &["0", "0"]), "EPERM\n");
    let facts = c.facts();
    assert_eq!((&facts["status"]["NoNewPrivs"], &facts["status"]["Seccomp"]), (&json!("0"), &json!("2")));
});

container_test!(an_ordinary_user_too, |c| {
    for no_new_privileges in [true, false] {
        c.set("/process/noNewPrivileges", no_new_privileges);
        c.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
        profile(c, "SCMP_ACT_ALLOW", json!([{ "names": ["getpriority"], "action": "SCMP_ACT_ERRNO" }]));
        assert_eq!(syscall(c, libc::SYS_getpriority, &["0", "0"]), "EPERM\n");
    }
});

container_test!(a_list_of_what_is_allowed, |c| {
    // Everything the probe needs, and what any runtime needs between the filter and execve.
    c.set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"],
            "syscalls": [{ "names": [
                "read", "write", "close", "execve", "exit", "exit_group", "brk", "mmap", "munmap", "mprotect", "mremap",
                "arch_prctl", "set_tid_address", "set_robust_list", "rseq", "prlimit64", "readlinkat", "readlink",
                "getrandom", "rt_sigaction", "rt_sigprocmask", "sigaltstack", "futex", "fstat", "newfstatat", "poll",
                "openat", "fcntl", "uname", "getpid", "clone3_no_such_call", "ppoll", "sched_getaffinity", "gettid",
                "capset", "capget", "prctl", "setuid", "setgid", "setgroups", "setresuid", "setresgid", "chdir",
                "getcwd", "epoll_ctl", "epoll_pwait", "nanosleep", "close_range", "fstatfs", "statx", "stat", "lstat",
                "tgkill", "rt_sigreturn", "getdents64", "lseek", "clone", "clone3", "getuid", "getppid", "openat2",
                "faccessat2", "faccessat", "access", "setsid", "dup", "dup2", "dup3", "ioctl", "fchdir", "getegid",
                "geteuid", "getgid", "pipe2", "eventfd2", "madvise", "epoll_create1", "unlinkat", "umask", "kill",
                "sendmsg", "recvmsg", "seccomp", "wait4", "pidfd_open", "sched_yield", "tkill", "restart_syscall"
            ], "action": "SCMP_ACT_ALLOW" }],
        }),
    );
    assert_eq!(syscall(c, libc::SYS_getpid, &[]), "1\n");
    assert_eq!(syscall(c, libc::SYS_personality, &["4294967295"]), "ENOSYS\n");
    assert_eq!(syscall(c, libc::SYS_getpriority, &["0", "0"]), "ENOSYS\n");
});

container_test!(unknown_system_calls_are_skipped, |c| {
    profile(c, "SCMP_ACT_ALLOW", json!([{ "names": ["no_such_system_call", "getppid"], "action": "SCMP_ACT_ERRNO" }]));
    assert_eq!(syscall(c, libc::SYS_getppid, &[]), "EPERM\n");
});

container_test!(the_hosts_abi_cannot_be_left_by_the_x32_numbers, |c| {
    if !cfg!(target_arch = "x86_64") {
        return crate::common::skip(&c.name, "x32 is an ABI of x86_64");
    }
    c.set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{ "names": ["getppid"], "action": "SCMP_ACT_ERRNO" }],
        }),
    );
    // The kernel may lack x32; what it may not do is to answer.
    let out = syscall(c, 0x4000_0000 + libc::SYS_getppid, &[]);
    assert!(out == "EPERM\n" || out == "ENOSYS\n", "{out}");
});

container_test!(what_cannot_be_honoured_is_an_error, |c| {
    for (pointer, value) in [
        ("/linux/seccomp/defaultAction", "SCMP_ACT_NOTHING"),
        ("/linux/seccomp/architectures/0", "SCMP_ARCH_PDP11"),
        ("/linux/seccomp/syscalls/0/action", "SCMP_ACT_NOTHING"),
        ("/linux/seccomp/flags/0", "SECCOMP_FILTER_FLAG_NOTHING"),
        ("/linux/seccomp/syscalls/0/args/0/op", "SCMP_CMP_NOTHING"),
    ] {
        c.set(
            "/linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64"],
                "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                "syscalls": [{
                    "names": ["getppid"], "action": "SCMP_ACT_ERRNO",
                    "args": [{ "index": 0, "value": 0, "op": "SCMP_CMP_EQ" }],
                }],
            }),
        );
        if rival() == Some("runc") {
            c.remove("/linux/seccomp/flags"); // runc 1.1 refuses every flag
        }
        if pointer.ends_with("/0") {
            c.set(pointer.trim_end_matches("/0"), json!([value]));
        } else {
            c.set(pointer, value);
        }
        let output = c.create().exits(1);
        if rival().is_none() {
            output.fails(&[pointer, value]);
        }
        c.assert_clean();
    }
});
