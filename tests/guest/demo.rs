//! `demo`: what this container isolates, for a human reader (`make run`).

use std::fs;

use crate::{Outcome, facts, sys};

const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// The namespaces of the host, which `make run` passes for comparison, as `HOST_NS=pid:[1],mnt:[2],...`.
const HOST: &str = "HOST_NS";

pub(crate) fn print(args: &[String]) -> Outcome {
    let status = facts::status();
    let get = |key: &str| status.get(key).map_or("?", String::as_str);
    title("Process");
    row("pid", &format!("{} (parent {})", std::process::id(), std::os::unix::process::parent_id()));
    row("program", &args.join(" "));
    row("uid, gid", &format!("{}, {}", first(get("Uid")), first(get("Gid"))));
    row("hostname", &facts::uname().0);
    row("working folder", &std::env::current_dir().map_or_else(|e| e.to_string(), |d| d.display().to_string()));
    row("open files", &format!("at most {}", limit_of_files()));
    title("Namespaces");
    let host = std::env::var(HOST).unwrap_or_default();
    for (name, link) in facts::namespaces() {
        let whose = if host.is_empty() {
            ""
        } else if host.split(',').any(|other| other == link) {
            "  the host's"
        } else {
            "  its own"
        };
        row(&name, &format!("{link}{whose}"));
    }
    row("loopback", facts::loopback());
    title("Privileges");
    row("capabilities", &capabilities(get("CapEff")));
    row("bounding set", &capabilities(get("CapBnd")));
    row("no_new_privs", if get("NoNewPrivs") == "1" { "yes" } else { "no" });
    row("seccomp", seccomp(get("Seccomp")));
    row("reboot(2)", &sys::syscall(libc::SYS_reboot, &[0, 0, 0]).map_or_else(|why| why, |_| "?!".into()));
    cgroup();
    title("Mounts");
    for line in fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let after = words.iter().position(|word| *word == "-").unwrap_or(0);
        let word = |i: usize| words.get(i).copied().unwrap_or_default();
        row(word(4), &format!("{:<9} {}", word(after + 1), word(5)));
    }
    Ok(0)
}

fn cgroup() {
    title("Cgroup");
    let lines = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    for line in lines.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        row(if names.is_empty() { "unified" } else { names }, path);
    }
    for path in ["memory/memory.limit_in_bytes", "pids/pids.max", "cpu/cpu.shares", "memory.max", "pids.max", "cpu.max"]
    {
        if let Ok(value) = fs::read_to_string(format!("/sys/fs/cgroup/{path}")) {
            row(path, value.trim());
        }
    }
}

fn title(text: &str) {
    println!("\n{text}");
}

fn row(name: &str, value: &str) {
    println!("  {name:<26} {value}");
}

fn first(ids: &str) -> &str {
    ids.split(' ').next().unwrap_or(ids)
}

fn limit_of_files() -> String {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    line.split_whitespace().nth(3).unwrap_or("?").to_owned()
}

fn capabilities(mask: &str) -> String {
    let mask = u64::from_str_radix(mask, 16).unwrap_or(0);
    let held: Vec<&str> =
        CAPABILITIES.iter().enumerate().filter(|(i, _)| mask & (1 << i) != 0).map(|(_, name)| *name).collect();
    match held.len() {
        0 => "none".into(),
        count if count > 20 => format!("{count} of {}", CAPABILITIES.len()),
        _ => held.join(" "),
    }
}

fn seccomp(mode: &str) -> &'static str {
    match mode {
        "0" => "no filter",
        "2" => "filtered",
        _ => "?",
    }
}
