//! A generator of hostile root filesystems: at every path that the runtime touches by itself an image may have links,
//! FIFOs, devices, sockets, loops, and somebody who exchanges two of them all the time. Whatever it is, the runtime ends
//! in time with 0 or 1, leaves nothing of the container, and writes to nothing outside the root filesystem.
//!
//! `make fuzz` runs 10,000 cases; TARE_FUZZ_CASES, TARE_FUZZ_SEED and TARE_FUZZ_SECONDS choose others. Seen to fail
//! without openat2's RESOLVE_IN_ROOT within the first cases (scripts/check-defences).

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::{Mode, SFlag, mknod};
use serde_json::{Value, json};

use super::Flips;
use crate::common::config::mount;
use crate::common::host::nobody_writes;
use crate::common::program::guest;
use crate::common::{Container, eventually};
use crate::container_test;

/// What the runtime opens, makes, mounts on, executes or reads inside, asked for or not.
const TOUCHED: [&str; 40] = [
    "proc",
    "sys",
    "dev",
    "dev/pts",
    "dev/pts/ptmx",
    "dev/shm",
    "dev/mqueue",
    "dev/null",
    "dev/zero",
    "dev/full",
    "dev/random",
    "dev/urandom",
    "dev/tty",
    "dev/console",
    "dev/ptmx",
    "dev/fd",
    "dev/stdin",
    "dev/stdout",
    "dev/stderr",
    "dev/core",
    "etc",
    "etc/passwd",
    "etc/group",
    "tmp",
    "run",
    "work",
    "work/deep",
    "guest",
    "bin",
    "bin/sh",
    "volume",
    "volume/dir",
    "volume/file",
    "copied",
    "copied/a",
    "copied/b",
    "masked",
    "readonly",
    "sys/fs",
    "sys/fs/cgroup",
];

/// A sequence of numbers that a seed decides (xorshift64*).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % end
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// The host's tree that nothing may change: it looks as a root filesystem does.
struct Outside {
    dir: PathBuf,
    before: String,
    watch: Inotify,
}

impl Outside {
    fn new(dir: PathBuf) -> Self {
        let watch = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
        for folder in ["", "etc", "dev", "dev/pts", "proc", "proc/self", "sys", "tmp", "dir"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        for file in ["file", "etc/passwd", "etc/group", "dev/null", "dev/console", "dev/ptmx", "dev/pts/ptmx", "guest"]
        {
            fs::write(dir.join(file), "precious").unwrap();
            // Another thread that forked meanwhile has it open, too, until it executes.
            eventually("nobody writes to it", || nobody_writes(&dir.join(file)));
        }
        for folder in ["", "etc", "dev", "dev/pts", "proc", "proc/self", "sys", "tmp", "dir"] {
            let flags = AddWatchFlags::IN_MODIFY
                | AddWatchFlags::IN_ATTRIB
                | AddWatchFlags::IN_CLOSE_WRITE
                | AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_DELETE
                | AddWatchFlags::IN_MOVE;
            watch.add_watch(&dir.join(folder), flags).unwrap();
        }
        let before = tree(&dir);
        Self { dir, before, watch }
    }

    /// What was done to it, if anything.
    fn touched(&self) -> Option<String> {
        let events = self.watch.read_events().unwrap_or_default();
        let after = tree(&self.dir);
        (!events.is_empty() || after != self.before).then(|| format!("{events:?}\n{}\n{after}", self.before))
    }
}

/// Every file with what can be changed of it.
fn tree(dir: &Path) -> String {
    let mut text = String::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<PathBuf> = fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for path in entries {
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_file() { fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
            let (mode, uid, gid) = (meta.mode(), meta.uid(), meta.gid());
            let changed = (meta.ctime(), meta.ctime_nsec());
            writeln!(text, "{} {mode:o} {uid}:{gid} {changed:?} {content}", path.display()).unwrap();
            if meta.is_dir() {
                folders.push(path);
            }
        }
    }
    text
}

/// Whether something on the way from the root file system to a path is no directory.
fn link_above(rootfs: &Path, path: &Path) -> bool {
    let mut above = path.ancestors().skip(1).take_while(|above| above.starts_with(rootfs));
    above.any(|above| above.symlink_metadata().is_ok_and(|meta| !meta.is_dir()))
}

/// Puts something at a path of the image, and says what.
fn plant(dice: &mut Dice, rootfs: &Path, outside: &Path, name: &str) -> String {
    let path = rootfs.join(name);
    // This generator follows no link that it has planted.
    if link_above(rootfs, &path) {
        return format!("{name}: as it is");
    }
    let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let link = |target: &str| symlink(target, &path).map(|()| format!("link to {target}"));
    let node = |kind, dev| mknod(&path, kind, Mode::all(), dev).map(|()| format!("node {dev:x}")).map_err(Into::into);
    let done: std::io::Result<String> = match dice.below(12) {
        0 => fs::create_dir(&path).map(|()| {
            let mode = *dice.pick(&[0o755, 0o000, 0o1777, 0o7777]);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            format!("directory {mode:o}")
        }),
        1 => fs::write(&path, dice.pick(&["", "x", "root:x:0:0::/:/bin/sh\n", "#!/guest\n"])).map(|()| "file".into()),
        2 => Ok("nothing".into()),
        3..=6 => {
            let below =
                dice.pick(&["", "/dir", "/file", "/etc", "/etc/passwd", "/dev", "/dev/null", "/new", "/new/er"]);
            let up = if dice.one_in(2) { "../".repeat(20) } else { String::new() };
            let target = format!("{up}{}{below}", outside.to_str().unwrap());
            link(if up.is_empty() { &target } else { target.trim_start_matches('/') })
        }
        7 => {
            let inside = [
                "/proc/self/exe",
                "/proc/self/fd/3",
                "/proc/self/root",
                "/proc/1/root",
                "/proc/self/cwd",
                "/proc/sys/kernel/core_pattern",
                "/proc/sysrq-trigger",
                "/proc",
                "/sys",
                "/dev/pts/0",
                "/dev/tty",
                "/",
                "..",
                "/etc",
                "/missing",
                "/missing/deeper",
                "/tmp",
                ".",
            ];
            link(inside[dice.below(inside.len())])
        }
        // Itself, or each other.
        8 => link(&format!("/{}", if dice.one_in(2) { name } else { dice.pick(&TOUCHED) })),
        9 => nix::unistd::mkfifo(&path, Mode::all()).map(|()| "FIFO".into()).map_err(Into::into),
        10 => {
            let (kind, major, minor) = *dice.pick(&[
                (SFlag::S_IFCHR, 1, 3),
                (SFlag::S_IFCHR, 1, 5),
                (SFlag::S_IFCHR, 5, 0),
                (SFlag::S_IFCHR, 5, 2),
                (SFlag::S_IFCHR, 0, 0),
                (SFlag::S_IFBLK, 7, 0),
            ]);
            node(kind, libc::makedev(major, minor))
        }
        _ => UnixListener::bind(&path).map(|_| "socket".into()),
    };
    format!("{name}: {}", done.unwrap_or_else(|error| error.to_string()))
}

/// What the caller asks for: the image is hostile, config.json isn't.
fn configure(dice: &mut Dice, c: &mut Container, base: &Value) -> String {
    c.config = base.clone();
    let mut said = Vec::new();
    let mut on = |name: &'static str, yes: bool| {
        if yes {
            said.push(name);
        }
        yes
    };
    if on("the image's /dev", dice.one_in(2)) {
        c.config["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/dev");
        if on("without devpts", dice.one_in(3)) {
            c.config["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/dev/pts");
        }
    }
    if on("read-only root", dice.one_in(4)) {
        c.set("/root/readonly", true);
    }
    if on("a volume and a file", dice.one_in(2)) {
        let (dir, file) = (c.path("given"), c.path("given-file"));
        c.push("/mounts", mount("bind", dir.to_str().unwrap(), "/volume/dir", &["rbind", "ro"]));
        c.push("/mounts", mount("bind", file.to_str().unwrap(), "/volume/file", &["bind"]));
        c.push("/mounts", mount("bind", file.to_str().unwrap(), "/etc/passwd", &["bind", "ro"]));
    }
    if on("tmpcopyup", dice.one_in(4)) {
        c.push("/mounts", mount("tmpfs", "tmpfs", "/copied", &["tmpcopyup", "size=1m"]));
    }
    if on("cgroup", dice.one_in(4)) {
        c.push("/mounts", mount("cgroup", "cgroup", "/sys/fs/cgroup", &["ro"]));
    }
    if on("masks", dice.one_in(2)) {
        c.set("/linux/maskedPaths", json!(["/masked", "/proc/kcore", "/etc/group", "/dev/core"]));
        c.set("/linux/readonlyPaths", json!(["/readonly", "/proc/sys", "/etc", "/volume"]));
    }
    if on("cwd", dice.one_in(3)) {
        c.set("/process/cwd", "/work/deep");
    }
    if on("user", dice.one_in(3)) {
        c.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    }
    if on("by name", dice.one_in(4)) {
        c.set("/process/args", json!(["guest", "true"]));
        c.push("/process/env", "PATH=/bin:/tmp:/".into());
    }
    let script = format!("cat /proc/self/mountinfo >> {}", c.path("mounts").display());
    if on("hook", dice.one_in(4)) {
        c.set("/hooks/createContainer", json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]));
    }
    if on("terminal", dice.one_in(4)) {
        c.set("/process/terminal", true);
    }
    said.join(", ")
}

fn one_case(c: &mut Container, base: &Value, outside: &Outside, seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let rootfs = c.rootfs();
    let _ = fs::remove_dir_all(&rootfs);
    for name in ["", "proc", "sys", "dev", "tmp", "copied", "etc", "work"] {
        fs::create_dir_all(rootfs.join(name)).unwrap();
    }
    fs::hard_link(guest(), rootfs.join("guest"))
        .or_else(|_| fs::copy(guest(), rootfs.join("guest")).map(drop))
        .unwrap();
    let mut story = configure(&mut dice, c, base);
    let mut planted = Vec::new();
    for _ in 0..=dice.below(8) {
        let name = *dice.pick(&TOUCHED);
        write!(story, "\n  {}", plant(&mut dice, &rootfs, &outside.dir, name)).unwrap();
        planted.push(name);
    }
    // A link that came later may lead out of it, to the host's own files.
    planted.retain(|name| {
        let path = rootfs.join(name);
        !link_above(&rootfs, &path) && path.symlink_metadata().is_ok()
    });
    // Somebody else who shares the file system changes it meanwhile.
    let flips = (!planted.is_empty() && dice.one_in(3)).then(|| {
        let name = *dice.pick(&planted);
        write!(story, "\n  exchanged with evil: {name}").unwrap();
        let _ = fs::remove_file(rootfs.join("evil"));
        symlink(&outside.dir, rootfs.join("evil")).unwrap();
        Flips::start(&rootfs.join(name), &rootfs.join("evil"))
    });
    let socket = c.path("console");
    let _ = fs::remove_file(&socket);
    let output = if c.config["process"]["terminal"] == true {
        let listener = UnixListener::bind(&socket).unwrap();
        let output = c.create_with(&["--console-socket", socket.to_str().unwrap()]);
        drop(listener);
        if output.code == 0 {
            let _ = c.start();
            c.delete_force().ok();
        }
        output
    } else {
        c.run()
    };
    drop(flips);
    let case = || format!("TARE_FUZZ_SEED={seed} TARE_FUZZ_CASES=1: {story}\n{output}");
    if std::env::var_os("TARE_FUZZ_SHOW").is_some() {
        eprintln!("{seed}: {} {}", output.code, output.stderr.trim());
    }
    // 2 and more are the payload's own, or the end by a signal.
    assert!(output.code < 2, "{}", case());
    if let Some(what) = outside.touched() {
        panic!("{}\nthe host's tree was touched: {what}", case());
    }
    let mounts = fs::read_to_string(c.path("mounts")).unwrap_or_default();
    let _ = fs::remove_file(c.path("mounts"));
    let prefix = format!(" {}", outside.dir.display());
    // The fifth field is the mount point.
    let escaped = mounts
        .lines()
        .find(|line| line.splitn(5, ' ').nth(4).is_some_and(|rest| format!(" {rest}").starts_with(&prefix)));
    assert_eq!(escaped, None, "{}", case());
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device(), "{}", case());
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Every second case of the sequence, beside the test that runs the others.
fn cases(c: &mut Container, half: u64) {
    let outside = Outside::new(c.path("outside"));
    fs::create_dir(c.path("given")).unwrap();
    fs::write(c.path("given-file"), "").unwrap();
    let base = c.config.clone();
    let first = number("TARE_FUZZ_SEED", 1);
    let count = number("TARE_FUZZ_CASES", 200);
    let end = Instant::now() + Duration::from_secs(number("TARE_FUZZ_SECONDS", 3000));
    let mut done = 0;
    for seed in (first..first + count).filter(|seed| seed % 2 == half) {
        one_case(c, &base, &outside, seed);
        done += 1;
        if done % 50 == 0 {
            c.assert_clean();
        }
        if Instant::now() > end {
            eprintln!("{done} cases until the time was over");
            break;
        }
    }
    let _ = fs::remove_dir_all(c.rootfs());
}

container_test!(hostile_root_filesystems_even, |c| cases(c, 0));
container_test!(hostile_root_filesystems_odd, |c| cases(c, 1));
