//! `pause` and `resume`: all processes stop, all go on, and nothing is ever left half frozen.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

use crate::common::program::start;
use crate::common::{Container, assert_has, eventually, host, rival, skip};
use crate::{container_test, skip_for_runc};

/// The file of a cgroup that freezes it, and what it holds: (file, frozen, thawed).
fn switch(path: &str) -> (PathBuf, &'static str, &'static str) {
    let kinds = [("freezer.state", "FROZEN", "THAWED"), ("cgroup.freeze", "1", "0")];
    let dirs = host::cgroups(path);
    kinds
        .into_iter()
        .find_map(|(file, on, off)| Some((dirs.iter().map(|dir| dir.join(file)).find(|path| path.exists())?, on, off)))
        .unwrap()
}

fn own(c: &Container) -> String {
    format!("{}/{}", c.cgroup, c.id)
}

/// Whether the kernel has it frozen, all of it.
pub(super) fn frozen(c: &Container) -> bool {
    let (file, on, _) = switch(&own(c));
    let events = fs::read_to_string(file.with_file_name("cgroup.events")).unwrap_or_default();
    let text = fs::read_to_string(file).unwrap();
    text.trim() == on && (on == "FROZEN" || events.contains("frozen 1"))
}

/// Whether nothing asks for it to be frozen.
pub(super) fn thawed(c: &Container) -> bool {
    let (file, _, off) = switch(&own(c));
    fs::read_to_string(file).unwrap().trim() == off
}

/// CPU time that a process has used, in ticks.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

container_test!(a_paused_container_does_nothing_until_it_is_resumed, |c| {
    c.args(&["spin"]);
    c.detach().ok();
    let pid = c.pid();
    eventually("it runs", || ticks(pid) > 0);
    let output = c.tare(&["pause", &c.id]).ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    assert!(frozen(c), "pause returned before all was frozen");
    assert_eq!(c.status(), "paused");
    assert_has(c.tare(&["list"]).ok().stdout, " paused ");
    let before = ticks(pid);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(ticks(pid), before);
    let output = c.tare(&["resume", &c.id]).ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    assert!(thawed(c));
    assert_eq!(c.status(), "running");
    eventually("it runs again", || ticks(pid) > before);
});

container_test!(every_process_is_paused, |c| {
    c.args(&["fork-tree", "5"]);
    c.detach().ok();
    eventually("six processes", || host::cgroup_pids(&own(c)).len() == 6);
    for _ in 0..20 {
        c.tare(&["pause", &c.id]).ok();
        assert!(frozen(c));
        c.tare(&["resume", &c.id]).ok();
        assert!(thawed(c));
    }
});

container_test!(a_created_container_can_be_paused, |c| {
    c.args(&["sleep-forever"]);
    c.create().ok();
    c.tare(&["pause", &c.id]).ok();
    assert_eq!(c.status(), "paused");
    c.start().fails(&["cannot start a container in the paused state"]);
    c.tare(&["resume", &c.id]).ok();
    assert_eq!(c.status(), "created");
    c.start().ok();
    assert_eq!(c.status(), "running");
});

container_test!(only_what_runs_is_paused_and_only_what_is_paused_resumed, |c| {
    c.tare(&["pause", &c.id]).fails(&["container does not exist"]);
    c.tare(&["resume", &c.id]).fails(&["container does not exist"]);
    c.args(&["sleep-forever"]);
    c.detach().ok();
    c.tare(&["resume", &c.id]).fails(&["container not paused"]);
    c.tare(&["pause", &c.id]).ok();
    c.tare(&["pause", &c.id]).fails(&["container not running"]);
    assert!(frozen(c), "the second pause has thawed it");
    super::exec::exec(c, &[], &["true"]).exits(255).has("cannot exec in a paused container");
    c.tare(&["resume", &c.id]).ok();
    super::exec::exec(c, &[], &["true"]).ok();
    c.kill(&["KILL"]).ok();
    c.wait_status("stopped");
    c.tare(&["pause", &c.id]).fails(&["container not running"]);
    c.tare(&["resume", &c.id]).fails(&["container not paused"]);
});

container_test!(killed_and_deleted_while_paused, |c| {
    c.args(&["fork-tree", "3"]);
    c.detach().ok();
    c.tare(&["pause", &c.id]).ok();
    let begin = Instant::now();
    c.kill(&["KILL"]).ok();
    c.wait_status("stopped");
    c.delete().ok();
    c.detach().ok();
    c.tare(&["pause", &c.id]).ok();
    c.delete_force().ok();
    c.assert_clean();
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
});

container_test!(a_frozen_cgroup_that_the_container_made_stands_in_nobodys_way, |c| {
    skip_for_runc!(c, "runc#2105");
    let id = c.id.clone();
    for words in [["kill", &id, "KILL"], ["delete", "--force", &id]] {
        c.args(&["fork-tree", "2"]);
        c.detach().ok();
        eventually("three processes", || host::cgroup_pids(&own(c)).len() == 3);
        let (file, on, _) = switch(&own(c));
        let below = file.with_file_name("below");
        fs::create_dir(&below).unwrap();
        let one = host::cgroup_pids(&own(c)).into_iter().find(|pid| *pid != c.pid()).unwrap();
        fs::write(below.join("cgroup.procs"), one.to_string()).unwrap();
        fs::write(below.join(file.file_name().unwrap()), on).unwrap();
        let begin = Instant::now();
        c.tare(&words).ok();
        eventually("all are gone", || host::cgroup_pids(&own(c)).is_empty());
        assert!(begin.elapsed() < Duration::from_secs(3), "{words:?}: {:?}", begin.elapsed());
        c.delete_force().ok();
    }
});

container_test!(a_frozen_parent_is_told_apart, |c| {
    skip_for_runc!(c, "it says nothing of it");
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let parent = c.cgroup.clone();
    let (file, on, off) = switch(&parent);
    fs::write(&file, on).unwrap();
    // Its own state is what `pause` and `resume` change.
    assert_eq!(c.status(), "running");
    let error = c.tare(&["resume", &c.id]).fails(&["container not paused", "above it is frozen"]);
    assert_has(&error.stderr, file.parent().unwrap().to_str().unwrap());
    c.tare(&["pause", &c.id]).ok();
    assert_eq!(c.status(), "paused");
    let error = c.tare(&["resume", &c.id]).fails(&["thawed, but", "above it is frozen"]);
    assert_has(&error.stderr, file.parent().unwrap().to_str().unwrap());
    assert_eq!(c.status(), "running");
    // v1's freezer keeps even what was killed; the one who froze it is needed.
    let begin = Instant::now();
    let killed = c.kill(&["KILL"]);
    if on == "FROZEN" {
        killed.fails(&["above the container's is frozen: thaw it"]);
        c.delete_force().fails(&["above the container's is frozen: thaw it"]);
    } else {
        killed.ok();
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    fs::write(&file, off).unwrap();
    c.wait_status("stopped");
});

/// A process that no freezer can reach: it waits, uninterruptibly, for the lock of a folder that another process holds,
/// which waits for a file system whose server never answers.
struct Stuck {
    holder: Child,
    child: Child,
    mount: PathBuf,
    /// The container's cgroup.
    cgroup: String,
    _server: fs::File,
}

impl Stuck {
    /// None where the host mounts no such file system.
    fn new(c: &Container) -> Option<Self> {
        use std::os::fd::AsRawFd;
        let server = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").ok()?;
        let point = c.path("never-answers");
        fs::create_dir(&point).unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        mount(Some("fuse"), &point, Some("fuse"), MsFlags::empty(), Some(options.as_str())).ok()?;
        let spawn = |program: &str, name: &str| {
            let mut command = Command::new(program);
            command.arg(point.join(name)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap()
        };
        // Not only for a moment, as one that reads its program from a busy disk.
        let asleep = |child: &Child| {
            (0..5).all(|_| {
                std::thread::sleep(Duration::from_millis(10));
                host::process_state(child.id().try_into().unwrap()) == Some('D')
            })
        };
        let holder = spawn("stat", "x");
        eventually("the holder of the lock is stuck", || asleep(&holder));
        let child = spawn("mkdir", "y");
        eventually("the other is stuck", || asleep(&child));
        Some(Self { holder, child, mount: point, cgroup: own(c), _server: server })
    }

    fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    fn join(&self) {
        for dir in host::cgroups(&self.cgroup) {
            fs::write(dir.join("cgroup.procs"), self.pid().to_string()).unwrap();
        }
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        // What is frozen can't be killed on v1.
        if !host::cgroups(&self.cgroup).is_empty() {
            let (file, _, off) = switch(&self.cgroup);
            let _ = fs::write(file, off);
        }
        let _ = self.child.kill();
        let _ = self.holder.kill();
        let end = Instant::now() + Duration::from_secs(5);
        for child in [&mut self.holder, &mut self.child] {
            while Instant::now() < end && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let _ = umount2(&self.mount, MntFlags::MNT_DETACH);
    }
}

/// Starts a container with such a process in its cgroup; none, said aloud, where there can't be one.
fn stuck_in(c: &mut Container, payload: &str) -> Option<Stuck> {
    c.args(&[payload]);
    c.detach().ok();
    let stuck = Stuck::new(c);
    match &stuck {
        Some(stuck) => stuck.join(),
        None => skip(&c.name, "no FUSE file system can be mounted"),
    }
    stuck
}

container_test!(what_cannot_be_frozen_is_named_and_all_run_again, |c| {
    let Some(stuck) = stuck_in(c, "spin") else { return };
    let begin = Instant::now();
    let output = c.tare(&["pause", &c.id]).fails(&["unable to freeze"]);
    if rival().is_none() {
        assert_has(
            &output.stderr,
            &format!("process {} (\"mkdir\") is in state D (uninterruptible sleep", stuck.pid()),
        );
        assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    }
    assert!(thawed(c));
    assert_eq!(c.status(), "running");
    let before = ticks(c.pid());
    eventually("it runs", || ticks(c.pid()) > before);
    drop(stuck);
    c.tare(&["pause", &c.id]).ok();
});

container_test!(a_signal_ends_a_pause_with_all_running, |c| {
    skip_for_runc!(c, "it dies where it is");
    let Some(_stuck) = stuck_in(c, "sleep-forever") else { return };
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let running = start(&mut c.command(&["pause", &c.id]), &c.dir);
        eventually("it is freezing", || !thawed(c));
        running.signal(signal);
        running.wait().exits(1).has("interrupted by a signal");
        assert!(thawed(c));
        assert_eq!(c.status(), "running");
    }
});

container_test!(a_pause_that_was_killed_half_way_is_undone_by_the_next_command, |c| {
    skip_for_runc!(c, "runc#4481");
    let Some(stuck) = stuck_in(c, "sleep-forever") else { return };
    let running = start(&mut c.command(&["pause", &c.id]), &c.dir);
    eventually("it is freezing", || !thawed(c));
    running.signal(Signal::SIGKILL);
    running.wait().exits(137);
    assert!(!thawed(c), "nobody has thawed it yet");
    assert_eq!(c.status(), "running");
    assert!(thawed(c));
    c.tare(&["resume", &c.id]).fails(&["container not paused"]);
    drop(stuck);
    c.tare(&["pause", &c.id]).ok();
    assert_eq!(c.status(), "paused");
});

container_test!(pausing_while_processes_come_and_go, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let c = &*c;
    struct Over(std::sync::atomic::AtomicBool);
    struct End<'a>(&'a Over);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let over = Over(std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Also after a failure: else nothing would ever end.
        let _end = End(&over);
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.0.load(std::sync::atomic::Ordering::Relaxed) {
                    // Refused while it is paused, or held up by a pause that came a moment later.
                    let _ = super::exec::exec(c, &[], &["true"]);
                }
            });
        }
        for _ in 0..15 {
            c.tare(&["pause", &c.id]).ok();
            // On v1 it is "FREEZING" again for a moment when a process comes in.
            assert_eq!(c.status(), "paused");
            c.tare(&["resume", &c.id]).ok();
        }
    });
    assert_eq!(c.status(), "running");
});

container_test!(without_a_cgroup_there_is_nothing_to_pause, |c| {
    skip_for_runc!(c, "it has no such manager");
    c.args(&["sleep-forever"]);
    c.write_config();
    c.tare(&["--cgroup-manager=disabled", "run", "--detach", &c.id]).ok();
    c.tare(&["pause", &c.id]).fails(&["no cgroup of its own"]);
    c.tare(&["ps", &c.id]).fails(&["no cgroup of its own"]);
    c.tare(&["update", "--pids-limit", "5", &c.id]).fails(&["no cgroup of its own"]);
    c.tare(&["events", "--stats", &c.id]).ok();
});

container_test!(asking_for_the_status_never_thaws_what_a_pause_has_frozen, |c| {
    skip_for_runc!(c, "it has no half pauses");
    if !crate::common::trace::available(c) {
        return;
    }
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let (file, on, off) = switch(&own(c));
    for words in [vec!["list"], vec!["state", c.id.as_str()], vec!["ps", c.id.as_str()]] {
        // A pause that was killed half-way has left this.
        fs::write(c.path("state").join(&c.id).join("pausing"), "{\"pid\":1,\"start_time\":1}").unwrap();
        fs::write(&file, on).unwrap();
        // Slow where it thaws, so that others have done much since it looked.
        let prefix = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=write", "-P", file.to_str().unwrap()];
        let delay = ["-e", "inject=write:delay_enter=1500000"];
        let asking = start(&mut c.command_by(&[prefix.as_slice(), &delay].concat(), &words), &c.dir);
        std::thread::sleep(Duration::from_millis(700));
        // Meanwhile the container is resumed, paused, and whoever did that was told so.
        let paused = c.tare(&["pause", &c.id]);
        let paused = if paused.code == 0 { paused } else { c.tare(&["pause", &c.id]) };
        asking.wait().ok();
        if paused.code == 0 {
            assert!(frozen(c), "{words:?} has thawed what was paused");
        }
        let _ = fs::write(&file, off);
        let _ = fs::remove_file(c.path("state").join(&c.id).join("pausing"));
    }
});
