//! The systemd driver for containers of an ordinary user, whose scopes are his own systemd's.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::systemd::{DRIVER, assert_gone, scope, show, systemctl, systemd_test};
use crate::common::{Container, Output, eventually, host};
use crate::{container_test, skip_unless};

/// A user of the host with a systemd of his own, as long as this lives.
struct User {
    uid: u32,
    name: String,
    started: bool,
}

impl User {
    fn any() -> Option<Self> {
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let (name, uid) = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, uid) = (fields.next()?, fields.nth(1)?.parse().ok()?);
            (1000..60000).contains(&uid).then(|| (name.to_owned(), uid))
        })?;
        let service = format!("user@{uid}.service");
        let started = show(&service, "ActiveState") != "active";
        systemctl(&["start", &service]);
        let user = Self { uid, name, started };
        (Path::new(&user.runtime_dir()).join("bus").exists()).then_some(user)
    }

    fn runtime_dir(&self) -> String {
        format!("/run/user/{}", self.uid)
    }

    /// A program as this user, knowing where his bus is by one of the two ways.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        let (uid, name) = (self.uid.to_string(), &self.name);
        command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "--inh-caps=-all"]).args(words);
        command.env("XDG_RUNTIME_DIR", self.runtime_dir()).env_remove("DBUS_SESSION_BUS_ADDRESS").env("USER", name);
        command
    }

    fn show(&self, unit: &str, property: &str) -> String {
        let output = self.command(&["systemctl", "--user", "show", "-P", property, unit]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if self.started {
            systemctl(&["stop", &format!("user@{}.service", self.uid)]);
        }
    }
}

/// Runs a command of the runtime as the user.
fn by_user(c: &Container, user: &User, words: &[&str]) -> Output {
    by_user_in(c, user, Some(&user.runtime_dir()), words)
}

/// The same, with a word about where his bus is, or none.
fn by_user_in(c: &Container, user: &User, runtime_dir: Option<&str>, words: &[&str]) -> Output {
    let (runtime, root) = (crate::common::tare().to_str().unwrap().to_owned(), c.path("state").display().to_string());
    let mut all = vec![runtime.as_str(), "--root", &root];
    all.extend(words);
    let mut command = user.command(&all);
    match runtime_dir {
        Some(dir) => command.env("XDG_RUNTIME_DIR", dir),
        None => command.env_remove("XDG_RUNTIME_DIR"),
    };
    crate::common::program::finish(command.current_dir(c.bundle()), &c.dir)
}

systemd_test!(a_users_container_is_a_scope_of_his, |c, unit| {
    let _ = &unit;
    let Some(user) = User::any() else { return crate::common::skip(&c.name, "no user has a bus of his own") };
    c.args(&["sleep-forever"]);
    let name = c.cgroup.trim_start_matches('/').to_owned();
    c.set("/linux/cgroupsPath", format!("user.slice:test:{name}"));
    let ids = json!([{ "containerID": 0, "hostID": user.uid, "size": 1 }]);
    c.set("/linux/uidMappings", ids.clone()).set("/linux/gidMappings", ids);
    c.set(
        "/linux/namespaces",
        json!([
            { "type": "user" }, { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }
        ]),
    );
    // What a user may not mount.
    c.set("/mounts", json!([{ "destination": "/proc", "type": "proc", "source": "proc" }]));
    c.set("/linux/resources", json!({ "memory": { "limit": 104_857_600 }, "pids": { "limit": 77 } }));
    c.write_config();
    let chown = |path: std::path::PathBuf| std::os::unix::fs::chown(path, Some(user.uid), Some(user.uid)).unwrap();
    ["", "state", "bundle", "bundle/rootfs", "bundle/rootfs/dev", "bundle/rootfs/proc"]
        .into_iter()
        .for_each(|dir| chown(c.path(dir)));
    let hybrid = host::v1("pids").is_some();
    if hybrid {
        // There systemd gives a user no part of the v1 hierarchies: limits are an error, and without them it works.
        let limits = by_user(c, &user, &[DRIVER, "run", "--detach", &c.id]);
        limits.fails(&["is not this user's to change", "leave out /linux/resources"]);
        c.remove("/linux/resources").write_config();
    }
    by_user(c, &user, &[DRIVER, "run", "--detach", &c.id]).ok();
    let cgroup = |pid: &str| fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).unwrap();
    let below = format!("/user.slice/user-{0}.slice/user@{0}.service/user.slice/{unit}\n", user.uid);
    let own = cgroup(&c.pid().to_string());
    assert!(own.ends_with(&below), "{own}");
    assert_eq!(user.show(&unit, "ActiveState"), "active");
    if !hybrid {
        assert_eq!(user.show(&unit, "MemoryMax"), "104857600");
        assert_eq!(user.show(&unit, "TasksMax"), "77");
    }
    // This command is outside of the user's cgroups, from where only systemd can move a process in.
    let pid_file = c.path("state").join("exec.pid");
    by_user(
        c,
        &user,
        &["exec", "--detach", "--pid-file", pid_file.to_str().unwrap(), &c.id, "/guest", "sleep-forever"],
    )
    .ok();
    let own = cgroup(&fs::read_to_string(&pid_file).unwrap());
    assert!(own.ends_with(&below), "{own}");
    fs::remove_file(&pid_file).unwrap();
    // From cron, or by way of su and sudo, nothing or something false says where his bus is.
    for dir in [None, Some("/run/user/0")] {
        let words = ["exec", "--detach", "--pid-file", pid_file.to_str().unwrap(), &c.id, "/guest", "sleep-forever"];
        by_user_in(c, &user, dir, &words).ok();
        let own = cgroup(&fs::read_to_string(&pid_file).unwrap());
        assert!(own.ends_with(&below), "{dir:?}: {own}");
        fs::remove_file(&pid_file).unwrap();
    }
    if !hybrid {
        // Root's own bus knows nothing of it.
        c.tare(&["update", "--pids-limit=55", &c.id]).ok();
        assert_eq!(user.show(&unit, "TasksMax"), "55");
    }
    by_user_in(c, &user, None, &["delete", "--force", &c.id]).ok();
    eventually("it is forgotten", || user.show(&unit, "LoadState") == "not-found");
});
