//! Running programs with a time limit, and what they said.

use std::fs;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::Instant;

use serde_json::Value;

use super::TIMEOUT;

/// The runtime under test: `$TARE_BIN`, else `bin/tare` if it was built, else cargo's.
pub fn tare() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("bin/tare");
        match std::env::var_os("TARE_BIN") {
            Some(path) => path.into(),
            None if built.exists() => built,
            None => env!("CARGO_BIN_EXE_tare").into(),
        }
    })
}

/// What may be added to a budget of system calls if the runtime is linked with glibc: its start and its allocator.
pub fn calls_of_glibc() -> usize {
    let binary = std::fs::read(tare()).unwrap();
    if binary.windows(14).any(|bytes| bytes == b"GLIBC_TUNABLES") { 9 } else { 0 }
}

/// The other runtime that the tests are checked against, if one is (`TARE_BIN=/usr/sbin/runc`).
pub fn rival() -> Option<&'static str> {
    tare().file_name().and_then(|name| name.to_str()).filter(|name| *name != "tare")
}

/// The probe: `$TARE_GUEST`, else the newest one beside the tests.
pub fn guest() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("TARE_GUEST") {
            return path.into();
        }
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
        let triples = fs::read_dir(&target).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut found: Vec<PathBuf> =
            triples.map(|dir| dir.join("release/examples/guest")).filter(|p| p.exists()).collect();
        found.sort_by_key(|path| fs::metadata(path).and_then(|m| m.modified()).ok());
        found.pop().expect("no probe: `make build-guest`, or set TARE_GUEST")
    })
}

/// How a program ended and what it printed.
#[derive(Debug, Clone)]
pub struct Output {
    pub what: String,
    /// The exit status; 128+n if signal n ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Asserts the exit status 1, nothing on standard output, and one line on standard error with these parts.
    #[track_caller]
    pub fn fails(self, parts: &[&str]) -> Self {
        assert_eq!(self.code, 1, "{self}");
        assert_eq!(self.stdout, "", "standard output should be empty\n{self}");
        assert_eq!(self.stderr.lines().count(), 1, "one line of error is expected\n{self}");
        // Nothing between two colons: a part that was empty, or brought a colon of its own. A number for "no error".
        for wrong in ["::", ": :", ":  ", "success", "UnknownErrno"] {
            assert!(!self.stderr.contains(wrong), "\"{wrong}\" is in the error\n{self}");
        }
        for part in parts {
            assert!(self.stderr.contains(part), "\"{part}\" isn't in the error\n{self}");
        }
        self
    }

    /// Asserts that the error has these words.
    #[track_caller]
    pub fn has(self, part: &str) -> Self {
        assert!(self.stderr.contains(part), "\"{part}\" isn't in the error\n{self}");
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not JSON: {e}\n{self}"))
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nstatus {}\nstdout: {}\nstderr: {}", self.what, self.code, self.stdout, self.stderr)
    }
}

/// A program that runs; its output goes to files, so that a payload it leaves behind keeps no pipe of ours open.
#[derive(Debug)]
pub struct Running {
    pub child: Child,
    what: String,
    stdout: fs::File,
    stderr: fs::File,
}

/// Starts a program with its output in unnamed files in `dir`.
pub fn start(command: &mut Command, dir: &Path) -> Running {
    // Two descriptions of one file each: the child appends, and reading doesn't move where it writes.
    let file = || {
        let named = tempfile::NamedTempFile::new_in(dir).unwrap();
        (named.reopen().unwrap(), fs::OpenOptions::new().append(true).open(named.path()).unwrap())
    };
    let ((stdout, out), (stderr, err)) = (file(), file());
    let child = command.stdout(out).stderr(err).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    Running { child, what: format!("{command:?}"), stdout, stderr }
}

impl Running {
    pub fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// What it has printed so far on standard output.
    pub fn printed(&mut self) -> String {
        text(&mut self.stdout)
    }

    /// Waits until standard output has a text.
    #[track_caller]
    pub fn wait_for(&mut self, part: &str) {
        let end = Instant::now() + TIMEOUT;
        while !self.printed().contains(part) {
            let over = self.child.try_wait().unwrap();
            let (out, err) = (text(&mut self.stdout), text(&mut self.stderr));
            assert!(
                (over.is_none() || out.contains(part)) && Instant::now() < end,
                "{}: no \"{part}\" ({over:?})\nstdout: {out}\nstderr: {err}",
                self.what
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Waits for its end; one that takes too long is killed and fails the test.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        use std::os::unix::process::ExitStatusExt;
        let end = Instant::now() + TIMEOUT;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > end {
                let _ = self.child.kill();
                let _ = self.child.wait();
                let (out, err) = (text(&mut self.stdout), text(&mut self.stderr));
                panic!("{} took longer than {TIMEOUT:?}\nstdout: {out}\nstderr: {err}", self.what);
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        };
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
        let (stdout, stderr) = (text(&mut self.stdout), text(&mut self.stderr));
        Output { what: std::mem::take(&mut self.what), code, stdout, stderr }
    }
}

impl Drop for Running {
    /// Nothing that a failed test has started goes on running.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a program to its end.
#[track_caller]
pub fn finish(command: &mut Command, dir: &Path) -> Output {
    start(command, dir).wait()
}

fn text(file: &mut fs::File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
