//! Ordinary users. `user_test!(name, |c| { ... })` makes a test whose container belongs to one: to whoever runs the tests,
//! or, as root, to a user of the test's own, who has a uid that nobody else has and no entry anywhere.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{getegid, geteuid};
use serde_json::{Value, json};

use super::{Container, config, host, with_prepared_container};

/// Declares a test whose container belongs to an ordinary user.
#[macro_export]
macro_rules! user_test {
    ($(#[$meta:meta])* $name:ident, |$c:ident| $body:expr) => {
        $(#[$meta])*
        #[test]
        fn $name() {
            let name = concat!(module_path!(), "::", stringify!($name));
            $crate::common::user::with_user(name, |$c| $body);
        }
    };
}

/// Runs a test's body with a container of an ordinary user, then checks that nothing is left of it.
pub fn with_user(name: &str, body: impl FnOnce(&mut Container)) {
    let name = name.trim_start_matches("root::").trim_start_matches("security::");
    if !user_namespaces() {
        return super::skip(name, "ordinary users may not make user namespaces on this host");
    }
    with_prepared_container(name, |c| {
        give(c);
        body(c);
    });
}

fn user_namespaces() -> bool {
    let off = |file: &str, value: &str| fs::read_to_string(file).is_ok_and(|text| text.trim() == value);
    !off("/proc/sys/user/max_user_namespaces", "0")
        && !off("/proc/sys/kernel/unprivileged_userns_clone", "0")
        && !off("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1")
}

/// Makes a container an ordinary user's: its folder, and a configuration that such a user can have.
pub fn give(c: &mut Container) {
    let number: u32 = c.id.trim_start_matches('c').parse().unwrap();
    if geteuid().is_root() {
        c.user = Some(700_000_000 + std::process::id() % 1_000_000 * 1000 + number);
    }
    fs::create_dir(c.path("run")).unwrap();
    host::chmod(&c.path("run"), 0o700);
    own(&c.dir, uid(c));
    c.remove("/linux/cgroupsPath");
    // gid=5 of devpts: the group tty isn't mapped.
    c.remove("/mounts/2/options/5");
    c.push("/linux/namespaces", json!({ "type": "user" }));
    c.set("/linux/uidMappings", mapping(0, uid(c), 1));
    c.set("/linux/gidMappings", mapping(0, gid(c), 1));
}

/// One entry of uidMappings or gidMappings.
pub fn mapping(inside: u32, outside: u32, size: u32) -> Value {
    json!([{ "containerID": inside, "hostID": outside, "size": size }])
}

/// Of the user whose container this is.
pub fn uid(c: &Container) -> u32 {
    c.user.unwrap_or_else(|| geteuid().as_raw())
}

pub fn gid(c: &Container) -> u32 {
    c.user.unwrap_or_else(|| getegid().as_raw())
}

/// Gives a folder and all that is in it to a user, but for the probe, which is linked from elsewhere.
pub fn own(path: &Path, uid: u32) {
    if !geteuid().is_root() {
        return;
    }
    let metadata = fs::symlink_metadata(path).unwrap();
    if metadata.is_dir() {
        chown(path, Some(uid), Some(uid)).unwrap();
        fs::read_dir(path).unwrap().flatten().for_each(|entry| own(&entry.path(), uid));
    }
}

/// Lets a command be run by an ordinary user, who has nothing in his environment but what he can't do without.
pub fn become_user(command: &mut Command, uid: u32, c: &Container) {
    command.uid(uid).gid(uid).env_clear().env("XDG_RUNTIME_DIR", c.path("run"));
}

/// A program that becomes the container's user, whose name and ranges it puts in a private /etc, and then executes
/// `then` and its arguments. It is root's to start: from here on the container's own commands are root's too.
pub fn launcher(c: &mut Container, lines: &str, then: &str) -> Vec<String> {
    let uid = c.user.take().expect("root, and a container of user_test");
    let file = |name: &str, text: String| {
        let path = c.path(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let passwd =
        file("passwd", fs::read_to_string("/etc/passwd").unwrap() + &format!("tare-user:x:{uid}:{uid}::/:/bin/sh\n"));
    let ranges = file("ranges", lines.to_owned());
    let run = c.path("run");
    let script = format!(
        "#!/bin/sh\nset -e\nif [ -z \"$TARE_TEST_PRIVATE\" ]; then\n\
         TARE_TEST_PRIVATE=1 exec unshare --mount --propagation private \"$0\" \"$@\"\nfi\n\
         mount --bind {passwd} /etc/passwd\nmount --bind {ranges} /etc/subuid\nmount --bind {ranges} /etc/subgid\n\
         exec setpriv --reuid {uid} --regid {uid} --clear-groups --inh-caps=-all --ambient-caps=-all \
         env -i XDG_RUNTIME_DIR={} {then} \"$@\"\n",
        run.display()
    );
    let script = file("launch", script);
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    vec![script]
}

/// False, said aloud, where a container's user can't be given further ids.
pub fn ranges_available(c: &Container) -> bool {
    let lacks = if c.user.is_none() {
        "not root: the files of ranges can't be private"
    } else if !["newuidmap", "newgidmap", "setpriv", "unshare"].iter().all(|program| host::installed(program)) {
        "newuidmap (package uidmap), setpriv or unshare is missing"
    } else if !["/etc/subuid", "/etc/subgid"].iter().all(|file| Path::new(file).exists()) {
        "no /etc/subuid"
    } else {
        return true;
    };
    super::skip(&c.name, lacks);
    false
}

/// Sets the container's maps: the user as root, and further ids behind.
pub fn map_ranges(c: &mut Container, first: u32, count: u32) {
    let own = uid(c);
    let maps = json!([
        { "containerID": 0, "hostID": own, "size": 1 }, { "containerID": 1, "hostID": first, "size": count }
    ]);
    config::set(&mut c.config, "/linux/uidMappings", maps.clone());
    config::set(&mut c.config, "/linux/gidMappings", maps);
}

/// Delegates a cgroup in every hierarchy to the container's user; the program that is returned puts itself below it, and
/// becomes him. It is root's to start, as with [`launcher`].
pub fn delegate(c: &mut Container) -> String {
    let uid = c.user.take().expect("root, and a container of user_test");
    let mut join = String::new();
    for hierarchy in host::hierarchies() {
        let top = hierarchy.join(c.cgroup.trim_start_matches('/'));
        let own = top.join("launcher");
        fs::create_dir_all(&own).unwrap();
        for dir in [&top, &own] {
            // A new cpuset takes no process before it has CPUs (cpuset(7)).
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let above = fs::read_to_string(dir.parent().unwrap().join(file)).unwrap_or_default();
                let _ = fs::write(dir.join(file), above);
            }
            chown(dir, Some(uid), Some(uid)).unwrap();
            for file in ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "tasks"] {
                let _ = chown(dir.join(file), Some(uid), Some(uid));
            }
        }
        join += &format!("echo $$ > {}/cgroup.procs\n", own.display());
    }
    let script = format!(
        "#!/bin/sh\nset -e\n{join}exec setpriv --reuid {uid} --regid {uid} --clear-groups --inh-caps=-all \
         env -i XDG_RUNTIME_DIR={} \"$@\"\n",
        c.path("run").display()
    );
    let path = c.path("launch");
    fs::write(&path, script).unwrap();
    host::chmod(&path, 0o755);
    path.display().to_string()
}
