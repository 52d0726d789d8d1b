//! AppArmor profiles, on a host that has it: in force from the first instruction of the program, for `run`,
//! `create` and `exec`, whatever the image puts where the label is written.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;

use super::lsm::has_apparmor;
use super::namespaces::{finish, sleeping};
use crate::common::{Container, assert_has, host, program, rival};
use crate::{container_test, skip_for_runc, skip_unless};

/// A profile that is loaded as long as the value lives.
struct Profile {
    name: String,
    file: PathBuf,
}

impl Profile {
    fn load(c: &Container, rules: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("tare-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let file = c.path(&name);
        let all = "file, capability, network, mount, umount, pivot_root, signal, ptrace, unix,";
        fs::write(&file, format!("profile {name} flags=(attach_disconnected) {{ {all} {rules} }}\n")).unwrap();
        parser("-r", &file);
        Self { name, file }
    }

    /// As the kernel shows the label of a process.
    fn enforced(&self) -> String {
        format!("{} (enforce)\n", self.name)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        parser("-R", &self.file);
    }
}

fn parser(action: &str, file: &PathBuf) {
    let output = Command::new("apparmor_parser").args(["--skip-cache", action]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A profile that denies the reading of /secret, and the file.
fn secret(c: &mut Container) -> Profile {
    for name in ["secret", "other"] {
        fs::write(c.rootfs().join(name), "text").unwrap();
        host::chmod(&c.rootfs().join(name), 0o644);
    }
    Profile::load(c, "deny /secret r,")
}

const LOOK: [&str; 12] =
    ["/guest", "all", "cat", "/proc/self/attr/current", ",", "open", "/secret", "r", ",", "open", "/other", "r"];

fn seen(profile: &Profile) -> String {
    format!("{}open /secret r: EACCES\nok\n", profile.enforced())
}

/// The label of the container's first process, which needs no /proc of the container's to be told.
fn label(c: &Container) -> String {
    fs::read_to_string(format!("/proc/{}/attr/apparmor/current", c.pid())).unwrap()
}

macro_rules! needs_apparmor {
    ($c:expr) => {
        skip_unless!($c, has_apparmor(), "AppArmor is not enabled");
        skip_unless!($c, host::installed("apparmor_parser"), "apparmor_parser is missing");
    };
}

container_test!(a_profile_is_in_force, |c| {
    needs_apparmor!(c);
    let profile = secret(c);
    c.set("/process/args", json!(LOOK));
    assert_eq!(c.run().exits(0).stdout, "unconfined\nok\nok\n");
    c.set("/process/apparmorProfile", profile.name.as_str());
    for no_new_privileges in [true, false] {
        for uid in [0, 1000] {
            c.set("/process/noNewPrivileges", no_new_privileges);
            c.set("/process/user", json!({ "uid": uid, "gid": uid }));
            assert_eq!(c.run().stdout, seen(&profile), "{no_new_privileges} {uid}");
        }
    }
});

container_test!(a_profile_with_a_seccomp_filter_that_denies_the_writing_of_labels, |c| {
    needs_apparmor!(c);
    let profile = secret(c);
    c.set("/process/args", json!(["/guest", "exit", "7"]));
    c.set("/process/apparmorProfile", profile.name.as_str());
    let rules = json!([{ "names": ["openat2", "pwrite64", "writev"], "action": "SCMP_ACT_ERRNO" }]);
    c.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules }));
    for no_new_privileges in [true, false] {
        c.set("/process/noNewPrivileges", no_new_privileges);
        c.run().exits(7);
    }
});

container_test!(unconfined_is_a_profile, |c| {
    needs_apparmor!(c);
    c.set("/process/apparmorProfile", "unconfined");
    assert_eq!(c.prints(&["cat", "/proc/self/attr/current"]), "unconfined\n");
});

container_test!(in_a_user_namespace, |c| {
    needs_apparmor!(c);
    let profile = secret(c);
    c.push("/linux/namespaces", json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    c.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    c.set("/process/args", json!(LOOK));
    c.set("/process/apparmorProfile", profile.name.as_str());
    assert_eq!(c.run().stdout, seen(&profile));
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let mut words = vec!["exec", c.id.as_str()];
    words.extend(LOOK);
    assert_eq!(c.tare(&words).stdout, seen(&profile));
});

container_test!(through_joined_namespaces, |c| {
    needs_apparmor!(c);
    let (profile, other) = (secret(c), sleeping(&c.name, |_| ()));
    for (index, name) in [(0, "pid"), (1, "net")] {
        c.set(&format!("/linux/namespaces/{index}/path"), format!("/proc/{}/ns/{name}", other.pid()));
    }
    c.set("/process/apparmorProfile", profile.name.as_str()).args(&["sleep-forever"]);
    c.detach().ok();
    assert_eq!(label(c), profile.enforced());
    let mut words = vec!["exec", c.id.as_str()];
    words.extend(LOOK);
    assert_eq!(c.tare(&words).stdout, seen(&profile));
    finish(other);
});

container_test!(create_start_and_exec, |c| {
    needs_apparmor!(c);
    let (profile, other) = (secret(c), Profile::load(c, "deny /other r,"));
    c.args(&["sleep-forever"]).set("/process/apparmorProfile", profile.name.as_str());
    c.create().ok();
    c.start().ok();
    assert_eq!(label(c), profile.enforced());

    let exec = |options: &[&str]| {
        let mut words = vec!["exec"];
        words.extend(options);
        words.push(&c.id);
        words.extend(LOOK);
        c.tare(&words).stdout
    };
    assert_eq!(exec(&[]), seen(&profile));
    assert_eq!(exec(&["--user", "1000"]), seen(&profile));
    assert_eq!(exec(&["--apparmor", ""]), seen(&profile));
    assert_eq!(exec(&["--apparmor", &other.name]), format!("{}ok\nopen /other r: EACCES\n", other.enforced()));
    assert_eq!(exec(&["--apparmor", &profile.name]), seen(&profile));
    assert_eq!(exec(&["--apparmor", "unconfined"]), "unconfined\nok\nok\n");

    let file = c.path("process.json");
    let mut process = c.config["process"].clone();
    process["args"] = json!(LOOK);
    let words = ["exec", "--process", file.to_str().unwrap(), &c.id];
    // A file without a profile has the container's; the option counts beside the file, too.
    for (name, shown) in [(&other.name, other.enforced()), (&String::new(), profile.enforced())] {
        process["apparmorProfile"] = json!(name);
        fs::write(&file, process.to_string()).unwrap();
        assert_has(c.tare(&words).stdout, &shown);
        let words = ["exec", "--apparmor", &other.name, "--process", file.to_str().unwrap(), &c.id];
        assert_has(c.tare(&words).stdout, &other.enforced());
    }
});

container_test!(a_profile_that_is_not_loaded, |c| {
    skip_for_runc!(c, "its words are others");
    needs_apparmor!(c);
    c.set("/process/apparmorProfile", "no-such-profile");
    for output in [c.create(), c.run()] {
        output.fails(&[
            "config.json: /process/apparmorProfile: \"no-such-profile\": no such profile is loaded",
            "apparmor_parser -r",
            "`/proc/thread-self/attr/apparmor/exec`",
        ]);
        c.assert_clean();
    }
    // One that was unloaded after create.
    let profile = secret(c);
    c.set("/process/apparmorProfile", profile.name.as_str()).args(&["sleep-forever"]);
    c.detach().ok();
    drop(profile);
    for (options, part) in
        [(vec![], "/process/apparmorProfile: "), (vec!["--apparmor", "nix"], "--apparmor: \"nix\": ")]
    {
        let words: Vec<&str> = ["exec"].into_iter().chain(options).chain([c.id.as_str(), "/guest", "true"]).collect();
        c.tare(&words).exits(255).has(part).has("no such profile is loaded");
    }
});

// CVE-2019-16884, CVE-2019-19921, CVE-2025-52881: an image, or a mount, that has files of its own where labels are
// written. The label goes to the kernel all the same, and none of those files is touched.
container_test!(a_fake_proc_takes_no_label, |c| {
    needs_apparmor!(c);
    let profile = secret(c);
    c.args(&["sleep-forever"]).set("/process/apparmorProfile", profile.name.as_str());
    c.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
    c.remove("/mounts/0");
    let without = c.config.clone();
    let fakes: Vec<PathBuf> =
        ["self", "thread-self", "1"].iter().map(|task| c.rootfs().join("proc").join(task)).collect();
    for fake in &fakes {
        fs::create_dir_all(fake.join("attr/apparmor")).unwrap();
        for file in ["attr/exec", "attr/apparmor/exec"] {
            fs::write(fake.join(file), "untouched").unwrap();
        }
    }
    let tmpfs = json!({ "destination": "/proc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"] });
    let source = c.rootfs().join("proc");
    let bind = json!({ "destination": "/proc", "type": "bind", "source": source, "options": ["rbind"] });
    let mut confined = 0;
    for mount in [None, Some(tmpfs), Some(bind)] {
        c.config = without.clone();
        if let Some(mount) = &mount {
            c.push("/mounts", mount.clone());
        }
        // To refuse such a container is as good.
        if c.detach().code == 0 {
            confined += 1;
            assert_eq!(label(c), profile.enforced(), "{mount:?}");
            let words = ["exec", &c.id, "/guest", "open", "/secret", "r"];
            assert_has(c.tare(&words).stdout, "EACCES");
        }
        c.delete_force();
        for file in fakes.iter().flat_map(|fake| [fake.join("attr/exec"), fake.join("attr/apparmor/exec")]) {
            assert_eq!(fs::read_to_string(&file).unwrap(), "untouched", "{}", file.display());
        }
    }
    assert!(confined > 0 || rival().is_some());
});

// A runtime whose own /proc only looks like one.
container_test!(a_fake_proc_of_the_host_is_refused, |c| {
    skip_for_runc!(c, "its words are others");
    needs_apparmor!(c);
    let profile = secret(c);
    c.set("/process/apparmorProfile", profile.name.as_str());
    c.write_config();
    let real = c.path("real");
    fs::create_dir(&real).unwrap();
    // Everything leads to the real one, but for the folder that labels are written below.
    let script = r#"
        mount -t proc proc "$1" && mount -t tmpfs tmpfs /proc || exit 99
        for entry in "$1"/*; do ln -s "$entry" "/proc/${entry##*/}"; done
        rm /proc/thread-self && mkdir -p /proc/thread-self/attr/apparmor && : >/proc/thread-self/attr/apparmor/exec
        shift; exec "$@""#;
    let prefix = ["unshare", "--mount", "sh", "-c", script, "sh", real.to_str().unwrap()];
    let output = program::finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir);
    output.fails(&["\"/proc\" is not a proc file system"]);
    c.assert_clean();
});

// Under no_new_privs a confined process may not take another profile: the container gets both (as with crun).
container_test!(a_confined_runtime, |c| {
    skip_for_runc!(c, "the kernel refuses it");
    needs_apparmor!(c);
    skip_unless!(c, host::installed("aa-exec"), "aa-exec is missing");
    let (inner, outer) = (secret(c), Profile::load(c, "change_profile,"));
    c.set("/process/apparmorProfile", inner.name.as_str()).set("/process/args", json!(LOOK));
    for (no_new_privileges, labels) in [(true, vec![&inner, &outer]), (false, vec![&inner])] {
        c.set("/process/noNewPrivileges", no_new_privileges);
        c.write_config();
        let prefix = ["aa-exec", "-p", outer.name.as_str(), "--"];
        let output = program::finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir);
        let first = output.stdout.lines().next().unwrap_or_default();
        for label in &labels {
            assert!(first.contains(&label.name), "{output}");
        }
        assert_eq!(first.contains(&outer.name), labels.len() == 2, "{output}");
        assert_has(&output.stdout, "open /secret r: EACCES");
    }
});
