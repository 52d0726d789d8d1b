//! Promises with numbers. Each may only get better: lower it when it is met with room to spare, never raise it.

use std::fs;

use serde_json::json;

use crate::common::config::mount;
use crate::common::program::{calls_of_glibc, finish};
use crate::common::{Container, guest, host, tare, trace};
use crate::{container_test, skip_for_runc, skip_unless};

/// System calls of a whole foreground `run` of the bundle that `spec` makes, those of the payload included. Of a binary linked
/// with musl; [`calls_of_glibc`] says what another may have more. Four of them make sure whose the state root is: two directories
/// above it, and the root itself, by descriptor.
const SYSTEM_CALLS_OF_RUN: usize = 362;
/// The same of an engine's bundle where cgroup v2 is all there is. Four of them tell the container's process and cgroup from
/// others' later on: whether the cgroup's path is free, its inode and the pidfd's, and its inode again at the end.
const SYSTEM_CALLS_OF_RUN_ON_V2: usize = 275;
/// Peak resident memory of `create`, of a binary linked with musl.
const MEMORY_OF_CREATE_KIB: u64 = 2304;
/// What may be added with glibc, whose functions aren't linked in the order in which they are executed.
const MEMORY_OF_GLIBC_KIB: u64 = 768;
const SIZE_OF_BINARY: u64 = 4 << 20;
/// The memory limit under which a static program of one page runs, in bytes. What the runtime's own process takes of it
/// before the program is executed counts, too.
#[cfg(target_arch = "x86_64")]
const MEMORY_LIMIT: u64 = 256 << 10;

/// The bundle that `spec` makes, with the probe as its program and without a terminal.
fn default_bundle(c: &mut Container) {
    let _ = fs::remove_file(c.bundle().join("config.json"));
    c.tare(&["spec"]).ok();
    let cgroup = c.config["linux"]["cgroupsPath"].clone();
    c.config = serde_json::from_slice(&fs::read(c.bundle().join("config.json")).unwrap()).unwrap();
    c.set("/linux/cgroupsPath", cgroup).set("/process/terminal", false);
    c.push("/process/env", json!(format!("TARE_TEST={}", c.dir.display())));
    c.args(&["true"]);
    c.write_config();
}

/// What Podman makes of its defaults: six namespaces, nine mounts, device rules, a seccomp profile, a sysctl.
fn engine_bundle(c: &mut Container) {
    default_bundle(c);
    for file in ["hosts", "hostname"] {
        fs::write(c.path(file), "").unwrap();
        let target = format!("/etc/{file}");
        c.push("/mounts", mount("bind", c.path(file).to_str().unwrap(), &target, &["bind", "rprivate"]));
    }
    let seccomp = include_str!("../data/seccomp/docker-default.json");
    let keep = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETUID"];
    let keep = keep.map(|name| format!("CAP_{name}"));
    c.set("/linux/seccomp", serde_json::from_str::<serde_json::Value>(seccomp).unwrap())
        .set("/linux/sysctl", json!({"net.ipv4.ping_group_range": "0 0"}))
        .set("/process/capabilities", json!({"bounding": keep, "effective": keep, "permitted": keep}));
    // On pure cgroup v2 it is there already.
    let namespaces = c.config["linux"]["namespaces"].as_array().unwrap();
    if !namespaces.iter().any(|namespace| namespace["type"] == "cgroup") {
        c.push("/linux/namespaces", json!({"type": "cgroup"}));
    }
    c.write_config();
}

/// A prefix that runs a command where cgroup v2 is all there is.
const ON_V2: [&str; 6] = [
    "unshare",
    "--mount",
    "sh",
    "-ec",
    "umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec \"$@\"",
    "sh",
];

/// The first two numbers of the kernel's release.
pub(super) fn linux() -> [u32; 2] {
    let name = nix::sys::utsname::uname().unwrap();
    let numbers: Vec<u32> = name.release().to_str().unwrap().split(['.', '-']).flat_map(str::parse).collect();
    [numbers[0], numbers[1]]
}

/// What it takes to do without open_tree_attr(2), which Linux 6.15 has.
fn calls_of_older_kernels() -> usize {
    if linux() < [6, 15] { 23 } else { 0 }
}

container_test!(system_calls_of_run_on_v2_with_the_bundle_of_an_engine, |c| {
    skip_for_runc!(c, "it makes thousands");
    if !trace::available(c) {
        return;
    }
    engine_bundle(c);
    finish(&mut c.command_by(&ON_V2, &["run", &c.id]), &c.dir).ok();
    let file = c.path("trace-v2");
    let strace = ["strace", "-qq", "-f", "-o", file.to_str().unwrap()];
    let prefix = [ON_V2.as_slice(), &strace].concat();
    finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir).ok();
    let text = fs::read_to_string(&file).unwrap();
    let calls = text.lines().filter(|line| !line.contains("resumed>") && line.contains('(')).count();
    assert!(calls > 50, "strace has seen too little:\n{text}");
    let budget = SYSTEM_CALLS_OF_RUN_ON_V2 + calls_of_glibc() + calls_of_older_kernels();
    assert!(calls <= budget, "{calls} system calls of {budget}:\n{text}");
    println!("{calls} system calls");
});

fn count(calls: &[trace::Call], names: &[&str]) -> usize {
    calls.iter().filter(|call| names.contains(&call.name.as_str())).count()
}

container_test!(system_calls_of_run, |c| {
    skip_for_runc!(c, "it makes about 4000");
    if !trace::available(c) {
        return;
    }
    default_bundle(c);
    // The test's own state root and the parents of its cgroup are made by the first run.
    c.run().ok();
    let (output, calls) = trace::record(c, true, &["run", &c.id]);
    output.ok();
    let mut names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
    names.sort_unstable();
    let table: Vec<String> = names.chunk_by(|a, b| a == b).map(|same| format!("{} {}", same.len(), same[0])).collect();
    assert!(calls.len() > 50, "strace has seen too little: {table:?}");
    assert!(
        calls.len() <= SYSTEM_CALLS_OF_RUN + calls_of_glibc(),
        "{} system calls: {}",
        calls.len(),
        table.join(", ")
    );
    assert_eq!(count(&calls, &["nanosleep", "clock_nanosleep"]), 0, "it sleeps");
    println!("{} system calls", calls.len());
});

container_test!(create_and_start_make_one_process_read_no_mounts_and_do_not_sleep, |c| {
    skip_for_runc!(c, "it does all of that");
    if !trace::available(c) {
        return;
    }
    default_bundle(c);
    c.args(&["exit", "0"]);
    c.write_config();
    let file = c.path("trace-create");
    // The container outlives `create`, so the tracer would wait for it: it is killed, and lets it go.
    let prefix = ["strace", "-qq", "-f", "-o", file.to_str().unwrap()];
    let tracer = crate::common::program::start(&mut c.command_by(&prefix, &["create", &c.id]), &c.dir);
    crate::common::eventually("created", || c.tare(&["state", &c.id]).stdout.contains("\"created\""));
    let (output, start) = trace::record(c, false, &["start", &c.id]);
    output.ok();
    tracer.wait().ok();
    let text = fs::read_to_string(&file).unwrap();
    let clones = text.lines().filter(|line| is_call(line, &["clone", "clone3", "fork", "vfork"])).count();
    assert_eq!((clones, count(&start, &["clone", "clone3", "fork", "vfork"])), (1, 0));
    let start: String = start.iter().map(|call| format!("{}({}\n", call.name, call.text)).collect();
    for (verb, text) in [("create", text), ("start", start)] {
        assert!(!text.contains("/mountinfo"), "{verb} reads the mount table");
        assert!(!text.contains("nanosleep("), "{verb} sleeps");
    }
});

fn is_call(line: &str, names: &[&str]) -> bool {
    let line = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
    names.iter().any(|name| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('(')))
}

container_test!(no_command_of_the_lifecycle_sleeps, |c| {
    skip_for_runc!(c, "it does");
    if !trace::available(c) {
        return;
    }
    default_bundle(c);
    c.args(&["sleep-forever"]);
    c.run_with(&["--detach"]).ok();
    for words in [["state", c.id.as_str()].as_slice(), &["kill", &c.id, "KILL"], &["delete", "--force", &c.id]] {
        let (output, calls) = trace::record(c, true, words);
        output.ok();
        assert_eq!(count(&calls, &["nanosleep", "clock_nanosleep"]), 0, "{words:?}");
    }
});

container_test!(memory_of_create, |c| {
    skip_for_runc!(c, "it needs some 15 MiB");
    default_bundle(c);
    let prefix = [guest().to_str().unwrap(), "rusage"];
    let output = finish(&mut c.command_by(&prefix, &["create", &c.id]), &c.dir).ok();
    let usage: serde_json::Value = serde_json::from_str(output.stderr.lines().last().unwrap()).unwrap();
    let peak = usage["maxrss_kib"].as_u64().unwrap();
    println!("{peak} KiB");
    let allowed = if calls_of_glibc() == 0 { MEMORY_OF_CREATE_KIB } else { MEMORY_OF_CREATE_KIB + MEMORY_OF_GLIBC_KIB };
    assert!(peak < allowed, "{peak} KiB of {allowed}");
});

/// A static program of one page that ends at once: ELF64, one segment at 0x200000, `exit_group(0)`.
#[cfg(target_arch = "x86_64")]
pub(super) fn smallest_program() -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let code = [0x31, 0xff, 0xb8, 0xe7, 0, 0, 0, 0x0f, 0x05];
    let size = 120 + code.len() as u64;
    // e_type, e_machine, e_version; e_entry, e_phoff, e_shoff; e_flags, then sizes and numbers of headers.
    file.extend([2_u16, 62, 1, 0].iter().flat_map(|field| field.to_le_bytes()));
    file.extend([0x20_0078_u64, 64, 0].iter().flat_map(|field| field.to_le_bytes()));
    file.extend([0_u16, 0, 64, 56, 1, 0, 0, 0].iter().flat_map(|field| field.to_le_bytes()));
    // PT_LOAD, readable and executable: offset, addresses, sizes, alignment.
    file.extend([1_u32, 5].iter().flat_map(|field| field.to_le_bytes()));
    file.extend([0, 0x20_0000, 0x20_0000, size, size, 4096].iter().flat_map(|field: &u64| field.to_le_bytes()));
    file.extend(code);
    file
}

#[cfg(target_arch = "x86_64")]
container_test!(a_static_program_runs_with_little_memory, |c| {
    use std::os::unix::fs::PermissionsExt;

    skip_for_runc!(c, "it needs some 4 MiB");
    skip_unless!(c, host::has_controller("memory"), "no memory controller");
    engine_bundle(c);
    let program = c.rootfs().join("smallest");
    fs::write(&program, smallest_program()).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    c.set("/process/args", json!(["/smallest"])).set("/linux/resources/memory", json!({ "limit": MEMORY_LIMIT }));
    for _ in 0..3 {
        c.run().ok();
    }
});

container_test!(the_binary_is_small_and_static, |c| {
    skip_for_runc!(c, "it is neither");
    let bytes = fs::read(tare()).unwrap();
    assert!((bytes.len() as u64) < SIZE_OF_BINARY, "{} bytes", bytes.len());
    // ELF64: e_phoff at 32, e_phentsize at 54, e_phnum at 56; PT_INTERP is 3.
    let u16_at = |at: usize| usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()));
    let offset = usize::try_from(u64::from_le_bytes(bytes[32..40].try_into().unwrap())).unwrap();
    let kinds = (0..u16_at(56)).map(|i| offset + i * u16_at(54)).map(|at| &bytes[at..at + 4]);
    assert!(!kinds.into_iter().any(|kind| kind == [3, 0, 0, 0]), "it asks for an interpreter");
});
