//! The harness of the root tests: a bundle, the commands of the runtime under test, and what must be left afterwards.
//!
//! `container_test!(name, |c| { ... })` makes a test with a [`Container`] of its own: own folder, state root and
//! cgroup, so tests run side by side. When its body returns, the container is deleted with `--force` and nothing of it
//! may be left on the host; when it panics, the same is cleaned up by hand.

#[allow(unsafe_code)]
pub mod agent;
pub mod config;
pub mod host;
#[allow(unsafe_code)]
pub mod manager;
pub mod mountinfo;
pub mod program;
#[allow(unsafe_code)]
pub mod pty;
pub mod trace;
pub mod user;

use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::statvfs::{FsFlags, statvfs};
use serde_json::{Value, json};

pub use program::{Output, guest, rival, tare};

/// An environment variable with an option of the probe's `with`, such as `eperm=openat2`: every command of the runtime runs
/// with it, under a filter that denies system calls.
pub const DENIED: &str = "TARE_TEST_DENIED";

/// No command of a test takes longer; one that does has hung.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Declares a test that gets a container of its own.
#[macro_export]
macro_rules! container_test {
    ($(#[$meta:meta])* $name:ident, |$c:ident| $body:expr) => {
        $(#[$meta])*
        #[test]
        fn $name() {
            $crate::common::with_container(concat!(module_path!(), "::", stringify!($name)), |$c| $body);
        }
    };
}

/// Leaves a test body early, visibly: the host lacks something that the test needs.
#[macro_export]
macro_rules! skip_unless {
    ($c:expr, $cond:expr, $reason:expr) => {
        if !$cond {
            $crate::common::skip(&$c.name, $reason);
            return;
        }
    };
}

/// Leaves a test body early under runc 1.1, which lacks what is tested.
#[macro_export]
macro_rules! skip_for_runc {
    ($c:expr, $reason:expr) => {
        if $crate::common::rival() == Some("runc") {
            return $crate::common::skip(&$c.name, $reason);
        }
    };
}

/// Runs a test's body with a fresh container, then checks that nothing is left of it.
pub fn with_container(name: &str, body: impl FnOnce(&mut Container)) {
    // A crate of tests and its folder have one name.
    let name = name.trim_start_matches("root::").trim_start_matches("security::");
    if root(name) {
        with_prepared_container(name, body);
    }
}

fn with_prepared_container(name: &str, body: impl FnOnce(&mut Container)) {
    let mut container = Container::new(name);
    body(&mut container);
    container.finish();
}

/// False, said aloud, if this process isn't root and the caller of the tests accepts that.
pub fn root(name: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var("TARE_TEST_SKIP_ROOT").is_ok_and(|v| v == "1"), "needs root (or TARE_TEST_SKIP_ROOT=1)");
    skip(name, "not root");
    false
}

/// Says that a test did not run. Not by `println!`, which the test runner swallows.
pub fn skip(name: &str, reason: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIP {name}: {reason}");
}

/// One bundle and the container made from it.
#[derive(Debug)]
pub struct Container {
    pub name: String,
    pub id: String,
    /// Holds everything of this container: `bundle`, `state`, logs.
    pub dir: PathBuf,
    /// config.json; written to the bundle before each command.
    pub config: Value,
    /// The folder that holds the container's cgroup, from the root of each hierarchy.
    pub cgroup: String,
    /// Who runs the commands, if not the one who runs the tests: an ordinary user (see [`user`]).
    pub user: Option<u32>,
    finished: bool,
}

/// Where tests keep their bundles: a folder whose file system takes devices, programs and set-user-ID bits. A distribution's
/// /tmp may be a tmpfs that refuses them.
fn place() -> PathBuf {
    let refused = FsFlags::ST_NODEV | FsFlags::ST_NOEXEC | FsFlags::ST_NOSUID;
    let fits = |dir: &PathBuf| statvfs(dir).is_ok_and(|fs| !fs.flags().intersects(refused | FsFlags::ST_RDONLY));
    let candidates = [std::env::temp_dir(), "/var/tmp".into(), env!("CARGO_TARGET_TMPDIR").into()];
    candidates.into_iter().find(fits).unwrap_or_else(std::env::temp_dir)
}

impl Container {
    pub fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let unique = format!("tare-test-{}-{number}", std::process::id());
        let dir = place().join(&unique);
        for folder in ["state", "bundle/rootfs/proc", "bundle/rootfs/sys", "bundle/rootfs/dev", "bundle/rootfs/tmp"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        let inside = dir.join("bundle/rootfs/guest");
        fs::hard_link(guest(), &inside).or_else(|_| fs::copy(guest(), &inside).map(drop)).unwrap();
        for folder in ["", "bundle", "bundle/rootfs"] {
            host::chmod(&dir.join(folder), 0o755);
        }
        let cgroup = format!("/{unique}");
        let id = format!("c{number}");
        let config = config::default(&format!("{cgroup}/{id}"), &dir);
        Self { name: name.into(), id, dir, config, cgroup, user: None, finished: false }
    }

    /// Sets what a JSON pointer names, making the objects above it.
    pub fn set(&mut self, pointer: &str, value: impl Into<Value>) -> &mut Self {
        config::set(&mut self.config, pointer, value.into());
        self
    }

    /// Removes what a JSON pointer names.
    pub fn remove(&mut self, pointer: &str) -> &mut Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match self.config.pointer_mut(parent).unwrap() {
            Value::Object(map) => drop(map.remove(key).unwrap()),
            Value::Array(list) => drop(list.remove(key.parse().unwrap())),
            other => panic!("{parent} is {other}"),
        }
        self
    }

    /// Appends to the array that a JSON pointer names.
    pub fn push(&mut self, pointer: &str, value: Value) -> &mut Self {
        if self.config.pointer(pointer).is_none() {
            self.set(pointer, json!([]));
        }
        self.config.pointer_mut(pointer).unwrap().as_array_mut().unwrap().push(value);
        self
    }

    /// The payload: the probe with these words (see tests/guest).
    pub fn args(&mut self, words: &[&str]) -> &mut Self {
        let mut all = vec!["/guest"];
        all.extend(words);
        self.set("/process/args", json!(all))
    }

    pub fn bundle(&self) -> PathBuf {
        self.dir.join("bundle")
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("bundle/rootfs")
    }

    /// A path in this container's own folder, for pid files, logs and sockets.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn write_config(&self) {
        fs::write(self.dir.join("bundle/config.json"), serde_json::to_vec_pretty(&self.config).unwrap()).unwrap();
    }

    /// A command of the runtime, with this container's state root, ready to be changed before it is started.
    pub fn command(&self, words: &[&str]) -> Command {
        self.command_by(&[], words)
    }

    /// The same, started by another program (`prefix`), such as strace.
    pub fn command_by(&self, prefix: &[&str], words: &[&str]) -> Command {
        let runtime = tare();
        let root = self.path("state");
        let mut all: Vec<&str> = prefix.to_vec();
        let denied = std::env::var(DENIED).ok();
        if let Some(denied) = &denied {
            all.extend([guest().to_str().unwrap(), "with", denied, "--"]);
        }
        all.extend([runtime.to_str().unwrap(), "--root", root.to_str().unwrap()]);
        all.extend(words);
        let mut command = Command::new(all.first().unwrap());
        command.args(all.get(1..).unwrap()).current_dir(self.bundle()).stdin(Stdio::null());
        if let Some(uid) = self.user {
            user::become_user(&mut command, uid, self);
        }
        command
    }

    /// A script that starts the runtime as [`Self::command`] does, for scripts that choose its arguments.
    pub fn launcher(&self) -> PathBuf {
        let file = self.path("launcher");
        let denied = std::env::var(DENIED).ok().map(|denied| format!("'{}' with '{denied}' -- ", guest().display()));
        let text = format!("#!/bin/sh\nexec {}'{}' \"$@\"\n", denied.unwrap_or_default(), tare().display());
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        file
    }

    /// Runs a command of the runtime to its end.
    pub fn tare(&self, words: &[&str]) -> Output {
        program::finish(&mut self.command(words), &self.dir)
    }

    /// `run` in the foreground.
    pub fn run(&self) -> Output {
        self.run_with(&[])
    }

    pub fn run_with(&self, flags: &[&str]) -> Output {
        self.verb("run", flags)
    }

    pub fn create(&self) -> Output {
        self.create_with(&[])
    }

    pub fn create_with(&self, flags: &[&str]) -> Output {
        self.verb("create", flags)
    }

    fn verb(&self, verb: &str, flags: &[&str]) -> Output {
        self.write_config();
        let bundle = self.bundle();
        let mut words = vec![verb, "--bundle", bundle.to_str().unwrap()];
        words.extend(flags);
        words.push(&self.id);
        self.tare(&words)
    }

    pub fn start(&self) -> Output {
        self.tare(&["start", &self.id])
    }

    pub fn kill(&self, words: &[&str]) -> Output {
        let mut all = vec!["kill"];
        all.extend(words.iter().filter(|word| word.starts_with('-')));
        all.push(&self.id);
        all.extend(words.iter().filter(|word| !word.starts_with('-')));
        self.tare(&all)
    }

    pub fn delete(&self) -> Output {
        self.tare(&["delete", &self.id])
    }

    pub fn delete_force(&self) -> Output {
        self.tare(&["delete", "--force", &self.id])
    }

    /// The state as JSON; the container must exist.
    pub fn state(&self) -> Value {
        self.tare(&["state", &self.id]).ok().json()
    }

    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// The container's first process, as the host numbers it.
    pub fn pid(&self) -> i32 {
        self.state()["pid"].as_i64().unwrap().try_into().unwrap()
    }

    /// Waits until the container has a status.
    pub fn wait_status(&self, status: &str) {
        eventually(&format!("status {status}"), || self.status() == status);
    }

    /// Runs the probe's `facts` in the foreground and returns them.
    pub fn facts(&mut self) -> Value {
        self.args(&["facts"]);
        self.run().ok().json()
    }

    /// Runs the probe with these words in the foreground, which must succeed, and returns what it printed.
    pub fn prints(&mut self, words: &[&str]) -> String {
        self.args(words);
        self.run().ok().stdout
    }

    /// Starts the payload detached; its output is at `log`.
    pub fn detach(&self) -> Output {
        self.run_with(&["--detach"])
    }

    /// Deletes the container, whatever its state, and asserts that the host is as it was.
    pub fn finish(&mut self) {
        if self.path("state").join(&self.id).exists() {
            self.delete_force().ok();
        }
        self.assert_clean();
        self.finished = true;
        drop(fs::remove_dir_all(&self.dir));
        host::remove_cgroup(&self.cgroup);
    }

    /// No state, cgroup, mount or process of this container is on the host.
    pub fn assert_clean(&self) {
        let left: Vec<_> = fs::read_dir(self.path("state")).into_iter().flatten().flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "state is left: {left:?}");
        let dir = self.dir.to_str().unwrap();
        let mounts = host::mounts();
        assert!(!mounts.contains(dir), "mounts are left on the host:\n{mounts}");
        // A killed process takes a moment to go.
        eventually("no process left", || host::processes(dir).is_empty());
        let left = host::cgroups(&format!("{}/{}", self.cgroup, self.id));
        assert!(left.is_empty(), "cgroups are left: {left:?}");
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let _ = self.command(&["delete", "--force", &self.id]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        host::kill_processes(self.dir.to_str().unwrap());
        host::remove_cgroup(&self.cgroup);
        host::remove_cgroups_named(&format!("tare-test-{}-{}-", std::process::id(), self.id));
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Waits for something that takes a moment, within the time of a command.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Asserts that a text has a part, and shows the text if not.
#[track_caller]
pub fn assert_has(text: impl AsRef<str>, part: &str) {
    let text = text.as_ref();
    assert!(text.contains(part), "\"{part}\" isn't in:\n{text}");
}

/// The strings of a JSON array.
pub fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

/// Asserts equality of a JSON value with what is expected, and names it.
#[track_caller]
pub fn assert_json<T: Into<Value> + Debug>(value: &Value, expected: T) {
    assert_eq!(*value, expected.into());
}
