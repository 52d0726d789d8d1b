//! A program that can't be executed: `run`, `create` and `start`, and `exec` say which of a dozen causes it is, and keep
//! the phrases by which engines tell "not found" (127) from "not executable" (126).

use std::fs;
use std::path::Path;

use super::exec::sleep;
use crate::common::host::chmod;
use crate::common::{Container, Output, assert_has, guest, rival};
use crate::container_test;

/// elf.h: e_machine, and the machine that is never this one.
const E_MACHINE: usize = 18;
const EM_PARISC: u8 = 15;
/// Offset of the first program header in a 64-bit ELF file with nothing before it.
const PHDR: usize = 64;

/// One way for a program not to be executable.
struct Cause {
    name: &'static str,
    /// Of the file /program.
    content: Vec<u8>,
    mode: u32,
    /// What engines look for, in any case.
    phrase: &'static str,
    /// What a user wants to know.
    says: &'static str,
}

impl Cause {
    fn new(name: &'static str, content: impl AsRef<[u8]>, phrase: &'static str, says: &'static str) -> Self {
        Self { name, content: content.as_ref().to_vec(), mode: 0o755, phrase, says }
    }
}

/// A 64-bit ELF program of this machine whose dynamic loader is `loader`.
fn elf(loader: &str) -> Vec<u8> {
    let mut file = fs::read(guest()).unwrap()[..PHDR].to_vec();
    let word = |at: usize, value: u64, size: usize, file: &mut Vec<u8>| {
        file[at..at + size].copy_from_slice(&value.to_ne_bytes()[..size]);
    };
    file.resize(PHDR + 56, 0);
    word(16, 2, 2, &mut file); // ET_EXEC
    word(32, PHDR as u64, 8, &mut file); // e_phoff
    word(54, 56, 2, &mut file);
    word(56, 1, 2, &mut file);
    let end = file.len() as u64;
    word(PHDR, 3, 4, &mut file); // PT_INTERP
    word(PHDR + 8, end, 8, &mut file);
    word(PHDR + 32, loader.len() as u64 + 1, 8, &mut file);
    file.extend(loader.as_bytes());
    file.push(0);
    file
}

fn causes() -> Vec<Cause> {
    let mut foreign = fs::read(guest()).unwrap();
    foreign[E_MACHINE] = EM_PARISC;
    foreign[E_MACHINE + 1] = 0;
    let not_executable =
        Cause { mode: 0o644, ..Cause::new("no x bit", "#!/guest true\n", "permission denied", "chmod +x") };
    vec![
        Cause::new("a foreign machine", foreign, "exec format error", "built for machine 15 (ELF), this host is"),
        Cause::new(
            "no ELF interpreter",
            elf("/lib/ld-none.so.1"),
            "no such file or directory",
            "\"/lib/ld-none.so.1\"",
        ),
        Cause::new("no script interpreter", "#!/bin/none -e\n", "no such file or directory", "\"/bin/none\""),
        Cause::new("CR LF", "#!/guest\r\nx\r\n", "no such file or directory", "Windows (CR LF)"),
        Cause::new("a plain interpreter", "#!/etc/plain\n", "permission denied", "\"/etc/plain\", can't be executed"),
        Cause::new("no #! line", "echo hello\n", "exec format error", "a script without #! line"),
        Cause::new("an empty file", "", "exec format error", "the file is empty"),
        Cause::new("noise", [1, 2, 3, 0, 9], "exec format error", "neither an ELF file nor a script"),
        not_executable,
    ]
}

fn put(rootfs: &Path, cause: &Cause) {
    fs::create_dir_all(rootfs.join("etc")).unwrap();
    fs::write(rootfs.join("etc/plain"), "").unwrap();
    chmod(&rootfs.join("etc/plain"), 0o644);
    fs::write(rootfs.join("program"), &cause.content).unwrap();
    chmod(&rootfs.join("program"), cause.mode);
}

#[track_caller]
fn says(output: &Output, cause: &Cause) {
    assert_has(output.stderr.to_lowercase(), cause.phrase);
    if rival().is_none() {
        assert_has(&output.stderr, cause.says);
        assert_has(&output.stderr, "/program");
        assert_eq!(output.stderr.lines().count(), 1, "{}: {output}", cause.name);
    }
}

container_test!(run_names_the_cause, |c| {
    c.set("/process/args", vec!["/program"]);
    for cause in causes() {
        put(&c.rootfs(), &cause);
        says(&c.run().exits(1), &cause);
        c.assert_clean();
    }
});

container_test!(create_or_start_names_the_cause, |c| {
    c.set("/process/args", vec!["/program"]);
    for cause in causes() {
        put(&c.rootfs(), &cause);
        let created = c.create();
        let output = if created.code == 0 { c.start() } else { created };
        says(&output.exits(1), &cause);
        c.delete_force();
        c.assert_clean();
    }
});

container_test!(exec_names_the_cause, |c| {
    sleep(c);
    for cause in causes() {
        put(&c.rootfs(), &cause);
        says(&c.tare(&["exec", &c.id, "/program"]).exits(255), &cause);
    }
    assert_eq!(c.status(), "running");
});

/// Every cause in one container test of its own: what isn't in a file.
fn each_way(c: &mut Container, phrase: &str, part: &str, env: &[&str]) {
    let check = |output: &Output| {
        assert_has(output.stderr.to_lowercase(), phrase);
        if rival().is_none() {
            assert_has(&output.stderr, part);
        }
    };
    check(&c.run().exits(1));
    let created = c.create();
    let output = if created.code == 0 { c.start() } else { created };
    check(&output.exits(1));
    c.delete_force();
    let program = c.config["process"]["args"][0].as_str().unwrap().to_owned();
    sleep(c);
    let mut words = vec!["exec"];
    words.extend(env.iter().flat_map(|pair| ["--env", pair]));
    words.extend([c.id.as_str(), &program]);
    check(&c.tare(&words).exits(255));
}

container_test!(a_mount_without_execution_is_named, |c| {
    let volume = c.path("volume");
    fs::create_dir(&volume).unwrap();
    fs::copy(guest(), volume.join("program")).unwrap();
    let options = ["bind", "noexec"];
    c.push("/mounts", crate::common::config::mount("bind", volume.to_str().unwrap(), "/volume", &options));
    c.set("/process/args", vec!["/volume/program"]);
    each_way(c, "permission denied", "mounted noexec", &[]);
});

// Engines exit with 126 for "permission denied", podman even if the other phrase is there, too; with 127 for runc's words.
container_test!(a_program_in_path_that_may_not_be_executed_is_not_found, |c| {
    fs::write(c.rootfs().join("program"), "").unwrap();
    chmod(&c.rootfs().join("program"), 0o644);
    c.set("/process/env", vec!["PATH=/nowhere:/"]);
    c.set("/process/args", vec!["program"]);
    each_way(c, "executable file not found in $path", "\"//program\": it has no execute permission", &["PATH=/"]);
    let output = c.tare(&["exec", "--env", "PATH=/", &c.id, "program"]);
    assert!(!output.stderr.to_lowercase().contains("permission denied"), "{output}");
});

container_test!(too_large_an_environment_is_named, |c| {
    // One string is larger than the kernel takes (MAX_ARG_STRLEN): 128 KiB.
    let large = format!("LARGE={}", "x".repeat(128 << 10));
    fs::copy(guest(), c.rootfs().join("program")).unwrap();
    c.push("/process/env", large.clone().into());
    c.set("/process/args", vec!["/program"]);
    let check = |output: Output| {
        assert_has(output.stderr.to_lowercase(), "argument list too long");
        if rival().is_none() {
            assert_has(output.stderr, "128 KiB each");
        }
    };
    check(c.run().exits(1));
    c.create().ok();
    check(c.start().exits(1));
    c.delete_force();
});

container_test!(a_program_that_somebody_writes_is_named, |c| {
    fs::copy(guest(), c.rootfs().join("program")).unwrap();
    c.set("/process/args", vec!["/program"]);
    let writer = fs::OpenOptions::new().append(true).open(c.rootfs().join("program")).unwrap();
    each_way(c, "text file busy", "open for writing", &[]);
    drop(writer);
});

container_test!(a_script_that_is_its_own_interpreter_is_named, |c| {
    fs::write(c.rootfs().join("program"), "#!/program\n").unwrap();
    chmod(&c.rootfs().join("program"), 0o755);
    c.set("/process/args", vec!["/program"]);
    each_way(c, "too many levels of symbolic links", "interpreter is a script", &[]);
});

// A profile that kills for what isn't on its list: the failure must be told, by a process that must not look for the
// cause, since that would be its end.
container_test!(a_deadly_seccomp_profile_keeps_its_error, |c| {
    put(&c.rootfs(), &Cause::new("", "echo hello\n", "", ""));
    c.set("/process/args", vec!["/program"]);
    let names = ["execve", "write", "sendto", "sendmsg", "exit_group", "exit", "mmap", "munmap", "brk", "mremap"];
    c.set(
        "/linux/seccomp",
        serde_json::json!({
            "defaultAction": "SCMP_ACT_KILL_PROCESS",
            "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }],
        }),
    );
    c.set("/process/noNewPrivileges", true);
    if rival().is_none() {
        assert_has(c.run().exits(1).stderr.to_lowercase(), "exec format error");
    }
});
