//! The runtime in containers that it made itself: two levels deep, privileged and with user namespaces.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::identity::ALL;
use super::userns::{BASE, map};
use crate::common::config::mount;
use crate::common::user::{launcher, map_ranges, mapping, ranges_available, uid};
use crate::common::{Container, assert_has, guest, host, program, strings, tare};
use crate::{container_test, user_test};

/// Every capability that this process has: more can't be given.
fn all_caps() -> Value {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    let mask = u64::from_str_radix(line.trim(), 16).unwrap();
    let own = ALL.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1);
    own.map(|(_, name)| *name).collect()
}

/// A folder that holds a root file system with the probe, the runtime, and the bundle of the next level.
fn rootfs(path: &Path) {
    for name in ["proc", "sys", "dev", "tmp", "run", "inner"] {
        fs::create_dir_all(path.join(name)).unwrap();
    }
    for (name, from) in [("guest", guest()), ("tare", tare())] {
        let to = path.join(name);
        if !to.exists() {
            fs::hard_link(from, &to).or_else(|_| fs::copy(from, &to).map(drop)).unwrap();
        }
    }
}

/// What a container needs for another inside: every capability, no masks, cgroups to write.
fn privileged(config: &mut Value) {
    let caps = all_caps();
    config["process"]["capabilities"] = json!({ "bounding": caps, "effective": caps, "permitted": caps });
    config["process"]["noNewPrivileges"] = json!(false);
    config["linux"]["maskedPaths"] = json!([]);
    config["linux"]["readonlyPaths"] = json!([]);
    config["mounts"][5]["options"] = json!(["nosuid", "noexec", "nodev"]);
    if host::v1("pids").is_none() {
        // As engines do on v2: else the whole hierarchy is mounted, and the levels meet at its root.
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "cgroup" }));
    }
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.push(mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev"]));
}

/// The words that run the container of the next level.
const RUN: [&str; 7] = ["/tare", "--root", "/run/tare", "run", "--bundle", "/inner", "inner"];

/// Two more levels below a container: what they run is `args`, the second of them with `last` changed.
fn nest(c: &mut Container, edit: impl Fn(&mut Value, u32), args: &[&str]) {
    let mut config = c.config.clone();
    config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    privileged(&mut c.config);
    c.set("/process/args", json!(RUN));
    let mut folder = c.rootfs();
    for level in 1..=2 {
        rootfs(&folder);
        folder = folder.join("inner/rootfs");
        rootfs(&folder);
        let mut inner = config.clone();
        if level == 1 {
            privileged(&mut inner);
            inner["process"]["args"] = json!(RUN);
        } else {
            let mut words = vec!["/guest"];
            words.extend(args);
            inner["process"]["args"] = json!(words);
        }
        edit(&mut inner, level);
        fs::write(folder.join("../config.json"), inner.to_string()).unwrap();
    }
}

/// Gives the writable folders of all levels to a user.
fn own(c: &Container, uid: u32) {
    crate::common::user::own(&c.rootfs(), uid);
}

container_test!(privileged_two_levels_deep, |c| {
    nest(c, |_, _| (), &["all", "facts", ",", "open", "/dev/null", "rw"]);
    let output = c.run().ok();
    let facts: Value = serde_json::from_str(output.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(facts["pid"], 1);
    // Processes are numbered once a level.
    assert_eq!(facts["status"]["NSpid"], "1");
    assert_eq!(facts["ns"]["user"], host::namespace("self", "user"));
    // Its cgroup is below those of the levels above.
    for line in host::mounted_lines(&strings(&facts["cgroup"]).join("\n")) {
        assert!(line.ends_with("/inner/inner") || line.ends_with(":/inner"), "{line}");
        // A cgroup namespace doesn't show them.
        assert!(host::v1("pids").is_none() || line.contains(&c.cgroup), "{line}");
    }
    assert!(output.stdout.ends_with("ok\n"), "{output}");
});

container_test!(the_life_of_a_container_in_a_container, |c| {
    nest(c, |inner, _| inner["process"]["args"] = json!(["/guest", "sleep-forever"]), &[]);
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let inside = |words: &[&str]| {
        let mut all = vec!["exec", c.id.as_str(), "/tare", "--root", "/run/tare"];
        all.extend(words);
        c.tare(&all)
    };
    inside(&["create", "--bundle", "/inner", "inner"]).ok();
    assert_eq!(inside(&["state", "inner"]).ok().json()["status"], "created");
    inside(&["start", "inner"]).ok();
    assert_eq!(inside(&["state", "inner"]).ok().json()["status"], "running");
    let facts = inside(&["exec", "inner", "/guest", "facts"]).ok().json();
    assert_ne!(facts["ns"]["pid"], host::namespace(&c.pid().to_string(), "pid"));
    assert_has(inside(&["list"]).ok().stdout, "running");
    inside(&["kill", "inner", "KILL"]).ok();
    crate::common::eventually("it stops", || inside(&["state", "inner"]).ok().json()["status"] == "stopped");
    inside(&["delete", "inner"]).ok();
    assert!(!inside(&["state", "inner"]).exits(1).stderr.is_empty());
});

/// Each level has a user namespace of its own with half of the ids above.
fn user_namespace(inner: &mut Value, level: u32) {
    let size = 1000 >> level;
    inner["linux"]["uidMappings"] = mapping(0, 0, size);
    inner["linux"]["gidMappings"] = mapping(0, 0, size);
    inner["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "user");
    inner["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
}

container_test!(user_namespaces_two_levels_deep, |c| {
    nest(c, user_namespace, &["facts"]);
    map(c);
    own(c, BASE);
    let facts = c.run().ok().json();
    let words: Vec<u32> = strings(&facts["uid_map"])[0].split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert_eq!(words, [0, 0, 250]);
    assert_eq!(facts["pid"], 1);
    assert!(strings(&facts["mountinfo"]).iter().any(|line| line.contains(" /null /dev/null ")));
});

// The outer one has one; what is inside shares it.
container_test!(privileged_in_a_user_namespace, |c| {
    nest(c, |_, _| (), &["facts"]);
    map(c);
    own(c, BASE);
    let facts = c.run().ok().json();
    assert_has(&strings(&facts["uid_map"])[0], "300000");
    assert_eq!(facts["status"]["Uid"], "0 0 0 0");
});

// What the outer one masks, a further user namespace may not see.
container_test!(in_a_container_with_masks, |c| {
    nest(c, user_namespace, &["facts"]);
    map(c);
    own(c, BASE);
    c.set("/linux/maskedPaths", json!(["/proc/timer_list", "/proc/cpuinfo", "/sys/firmware"]));
    c.run().fails(&["config.json: /mounts/0: mount on \"/proc\"", "masked paths of an outer container"]);
});

user_test!(containers_of_ordinary_users_two_levels_deep, |c| {
    nest(c, user_namespace, &["facts"]);
    c.remove("/mounts/6"); // nothing is delegated to write to
    // Every level has the one id.
    let (first, second) = ("bundle/rootfs/inner/config.json", "bundle/rootfs/inner/rootfs/inner/config.json");
    for path in [first, second] {
        let mut config: Value = serde_json::from_slice(&fs::read(c.path(path)).unwrap()).unwrap();
        config["linux"]["uidMappings"] = mapping(0, 0, 1);
        config["linux"]["gidMappings"] = mapping(0, 0, 1);
        config["mounts"].as_array_mut().unwrap().truncate(6);
        fs::write(c.path(path), config.to_string()).unwrap();
    }
    own(c, uid(c));
    let facts = c.run().ok().json();
    assert_eq!(facts["status"]["Uid"], "0 0 0 0");
    assert_eq!(facts["pid"], 1);
});

user_test!(below_root_of_another_user_namespace, |c| {
    if !ranges_available(c) {
        return;
    }
    let own_uid = uid(c);
    map_ranges(c, 1_920_000_000, 1000);
    nest(
        c,
        |inner, level| {
            user_namespace(inner, level);
            inner["linux"]["uidMappings"] = mapping(0, 0, 1);
            inner["linux"]["gidMappings"] = mapping(0, 0, 1);
            inner["mounts"].as_array_mut().unwrap().truncate(6);
        },
        &["facts"],
    );
    c.remove("/mounts/6");
    own(c, own_uid);
    let launch = launcher(c, "tare-user:1920000000:1000\n", "");
    c.write_config();
    let bundle = c.bundle();
    let words = ["run", "--bundle", bundle.to_str().unwrap(), &c.id];
    let facts = program::finish(&mut c.command_by(&[&launch[0]], &words), &c.dir).ok().json();
    assert_eq!(facts["pid"], 1);
});
