//! CVE-2019-5736: the container executes, or opens, the runtime's own binary and overwrites it.
//!
//! Seen to fail without `Cover::draw`: the program `/proc/self/exe` runs the host's tare, and what joins shows its path.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use nix::unistd::Pid;
use serde_json::json;

use crate::common::program::{finish, guest, start};
use crate::common::{Container, assert_has, tare};
use crate::{container_test, skip_for_runc};

/// Every way in which an image can have its runtime executed, as a path of the image.
fn traps(c: &Container) -> [&'static str; 3] {
    symlink("/proc/self/exe", c.rootfs().join("link")).unwrap();
    let script = c.rootfs().join("script");
    fs::write(&script, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    ["/link", "/script", "/proc/self/exe"]
}

container_test!(as_the_program_of_run, |c| {
    let before = fs::read(tare()).unwrap();
    for trap in traps(c) {
        c.set("/process/args", json!([trap, "--version"]));
        let output = c.run();
        assert!(output.code != 0 && !output.stdout.contains("tare"), "{trap}: {output}");
        assert_has(&output.stderr, "ENOEXEC");
        c.assert_clean();
    }
    assert!(fs::read(tare()).unwrap() == before);
});

container_test!(as_the_program_of_create_and_exec, |c| {
    let traps = traps(c);
    for trap in traps {
        c.set("/process/args", json!([trap, "--version"]));
        c.create().ok();
        assert_has(c.start().exits(1).stderr, "ENOEXEC");
        c.delete_force().ok();
    }
    c.args(&["sleep-forever"]);
    c.detach().ok();
    for trap in traps {
        assert_has(c.tare(&["exec", &c.id, trap, "--version"]).exits(255).stderr, "ENOEXEC");
    }
});

/// It can't be opened for writing while it is executed, and is sealed besides.
fn unchangeable(exe: &str) {
    if let Ok(file) = fs::OpenOptions::new().write(true).open(exe) {
        assert_eq!(nix::unistd::write(&file, b"x"), Err(nix::errno::Errno::EPERM));
        assert!(file.set_len(10).is_err());
    }
}

/// What can be had of the runtime by /proc/PID/exe, with every right of the host: nothing to read, nothing to change.
fn out_of_reach(pid: i32) {
    let exe = format!("/proc/{pid}/exe");
    assert_eq!(fs::read(&exe).unwrap(), b"");
    unchangeable(&exe);
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    assert!(!maps.contains(tare().to_str().unwrap()), "{maps}");
    for map in maps.lines().filter(|line| line.ends_with(" /")) {
        let range = map.split(' ').next().unwrap();
        let range = range.split('-').map(|end| end.trim_start_matches('0')).collect::<Vec<_>>().join("-");
        let mapped = fs::File::open(format!("/proc/{pid}/map_files/{range}")).unwrap();
        let flags = nix::sys::statvfs::fstatvfs(&mapped).unwrap().flags();
        assert!(flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY), "{map}");
    }
}

container_test!(while_a_container_waits_for_its_start, |c| {
    skip_for_runc!(c, "its file is a copy");
    c.args(&["exit", "4"]);
    c.create().ok();
    out_of_reach(c.pid());
    c.start().ok();
    c.wait_status("stopped");
});

container_test!(while_a_container_with_a_bridge_waits, |c| {
    skip_for_runc!(c, "its file is a copy");
    let mut other = Container::new(&format!("{}-other", c.name));
    other.args(&["sleep-forever"]);
    other.detach().ok();
    c.set("/linux/namespaces/0/path", format!("/proc/{}/ns/pid", other.pid()));
    c.args(&["exit", "4"]);
    c.create().ok();
    out_of_reach(c.pid());
    c.delete_force().ok();
    other.finish();
});

// With CAP_SYS_PTRACE being non-dumpable is no protection: the links of what joins can be read.
container_test!(what_joins_has_given_up_its_file, |c| {
    skip_for_runc!(c, "its file is a copy");
    let caps = json!(["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"]);
    c.set("/process/capabilities", json!({ "bounding": caps, "effective": caps, "permitted": caps }));
    c.args(&["watch", "/stop"]);
    c.write_config();
    let mut watcher = start(&mut c.command(&["run", &c.id]), &c.dir);
    watcher.wait_for("ready");
    for _ in 0..100 {
        c.tare(&["exec", &c.id, "/guest", "true"]).ok();
    }
    fs::write(c.rootfs().join("stop"), "").unwrap();
    let seen = watcher.wait().ok().stdout;
    let programs: Vec<&str> = seen.lines().filter(|line| line.starts_with("exe ")).collect();
    assert!(programs.iter().all(|line| *line == "exe /memfd:tare (deleted)"), "{programs:?}");
    // It opens; no write gets through the seals, as `out_of_reach` shows.
    let writable = seen.lines().filter(|line| line.starts_with("writable") && !line.contains("/memfd:tare"));
    assert_eq!(writable.collect::<Vec<_>>(), Vec::<&str>::new());
});

// A sandbox that doesn't permit it: the command starts again from a sealed copy, and says so in the log.
container_test!(without_the_right_to_give_it_up, |c| {
    skip_for_runc!(c, "another way");
    let before = fs::read(tare()).unwrap();
    let log = c.path("log");
    c.args(&["sleep-forever"]);
    c.write_config();
    let prefix = [guest().to_str().unwrap(), "with", "enosys=open_tree,open_tree_attr", "--"];
    let mut command = c.command_by(&prefix, &["--debug", "--log", log.to_str().unwrap(), "create", &c.id]);
    finish(&mut command, &c.dir).ok();
    let exe = format!("/proc/{}/exe", Pid::from_raw(c.pid()));
    assert_eq!(fs::read_link(&exe).unwrap().to_str().unwrap(), "/memfd:tare (deleted)");
    unchangeable(&exe);
    assert_has(fs::read_to_string(log).unwrap(), "starting again from a sealed copy");
    assert!(fs::read(tare()).unwrap() == before);
});
