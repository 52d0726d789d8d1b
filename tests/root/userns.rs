//! User namespaces: mappings written by the parent, ids, and what root inside may do.

use std::os::unix::fs::MetadataExt;

use serde_json::json;

use super::namespaces::{finish, sleeping};
use crate::common::{Container, host, rival, strings};
use crate::container_test;

pub(super) const BASE: u32 = 300_000;

/// A user namespace whose ids 0 to 65535 are the host's from [`BASE`] on, and a rootfs that they may enter.
pub(super) fn map(c: &mut Container) {
    c.push("/linux/namespaces", json!({ "type": "user" }));
    let mapping = json!([{ "containerID": 0, "hostID": BASE, "size": 65536 }]);
    c.set("/linux/uidMappings", mapping.clone());
    c.set("/linux/gidMappings", mapping);
    for name in ["", "proc", "sys", "dev", "tmp"] {
        let path = c.rootfs().join(name);
        std::os::unix::fs::chown(path, Some(BASE), Some(BASE)).unwrap();
    }
}

container_test!(root_inside_is_nobody_special_outside, |c| {
    map(c);
    c.args(&["all", "facts", ",", "write", "/tmp/mine", "text"]);
    let output = c.run().ok();
    let facts: serde_json::Value = serde_json::from_str(output.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(facts["status"]["Uid"], "0 0 0 0");
    assert_eq!(facts["status"]["Gid"], "0 0 0 0");
    assert_ne!(facts["ns"]["user"], host::namespace("self", "user"));
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&strings(&facts["uid_map"])[0]), ["0", "300000", "65536"]);
    assert_eq!(words(&strings(&facts["gid_map"])[0]), ["0", "300000", "65536"]);
    let meta = std::fs::metadata(c.rootfs().join("tmp/mine")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (BASE, BASE));
});

container_test!(several_mappings_are_written_in_order, |c| {
    map(c);
    let mappings = json!([
        { "containerID": 0, "hostID": 300_000, "size": 10 },
        { "containerID": 10, "hostID": 400_000, "size": 5 },
        { "containerID": 1000, "hostID": 500_000, "size": 1 },
    ]);
    c.set("/linux/uidMappings", mappings.clone()).set("/linux/gidMappings", mappings);
    c.remove("/mounts/2/options/5"); // gid=5 of devpts is mapped, so this is for clarity only
    let facts = c.facts();
    let map: Vec<Vec<u32>> = strings(&facts["uid_map"])
        .iter()
        .map(|line| line.split_whitespace().map(|word| word.parse().unwrap()).collect())
        .collect();
    assert_eq!(map, [[0, 300_000, 10], [10, 400_000, 5], [1000, 500_000, 1]]);
});

container_test!(another_user_inside_has_its_own_id_outside, |c| {
    map(c);
    c.set("/process/user", json!({ "uid": 1000, "gid": 1001, "additionalGids": [1002, 1003] }));
    host::chmod(&c.rootfs().join("tmp"), 0o777);
    c.args(&["all", "facts", ",", "write", "/tmp/mine", ""]);
    let output = c.run().ok();
    let facts: serde_json::Value = serde_json::from_str(output.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(facts["status"]["Uid"], "1000 1000 1000 1000");
    assert_eq!(facts["status"]["Groups"], "1002 1003");
    let meta = std::fs::metadata(c.rootfs().join("tmp/mine")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (BASE + 1000, BASE + 1001));
});

container_test!(an_unmapped_user_is_an_error, |c| {
    map(c);
    c.set("/process/user/uid", 70_000);
    let output = c.run().exits(1);
    assert!(output.stderr.contains("70000") || output.stderr.contains("unmapped"), "{output}");
    c.assert_clean();
});

container_test!(devices_work_inside, |c| {
    map(c);
    let lines = c.prints(&["all", "open", "/dev/null", "rw", ",", "open", "/dev/zero", "r", ",", "stat", "/dev/null"]);
    assert!(lines.starts_with("ok\nok\n/dev/null c 666 "), "{lines}");
});

container_test!(rlimits_are_set_with_the_hosts_rights, |c| {
    map(c);
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    c.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": hard, "hard": hard }]));
    assert_eq!(c.facts()["rlimits"]["RLIMIT_NOFILE"], json!([hard, hard]));
});

container_test!(the_payload_holds_its_capabilities_there_only, |c| {
    map(c);
    c.args(&["all", "keyring", ",", "mknod", "/tmp/device", "c", "1", "3"]);
    let output = c.run().exits(1);
    assert!(output.stdout.contains("EPERM"), "{output}");
});

container_test!(joins_a_user_namespace_with_the_namespaces_it_owns, |c| {
    let other = sleeping(&c.name, map);
    let pid = other.pid();
    let path = |name: &str| format!("/proc/{pid}/ns/{name}");
    c.set(
        "/linux/namespaces",
        json!([
            { "type": "mount" },
            { "type": "pid" },
            { "type": "user", "path": path("user") },
            { "type": "network", "path": path("net") },
            { "type": "ipc", "path": path("ipc") },
            { "type": "uts", "path": path("uts") },
        ]),
    );
    for name in ["", "proc", "sys", "dev", "tmp"] {
        std::os::unix::fs::chown(c.rootfs().join(name), Some(BASE), Some(BASE)).unwrap();
    }
    if rival() == Some("runc") {
        // runc 1.1 wants the mappings repeated; newer ones read them from the namespace.
        c.set("/linux/uidMappings", other.config["linux"]["uidMappings"].clone());
        c.set("/linux/gidMappings", other.config["linux"]["gidMappings"].clone());
    }
    let facts = c.facts();
    for name in ["user", "net", "ipc", "uts"] {
        assert_eq!(facts["ns"][name], host::namespace(&pid.to_string(), name), "{name}");
    }
    assert_eq!(facts["status"]["Uid"], "0 0 0 0");
    assert_eq!(facts["pid"], 1);
    finish(other);
});

// Volumes below folders that are another's alone, as Kubernetes has them.
container_test!(sources_that_only_the_host_reaches_are_mounted, |c| {
    map(c);
    for (name, owner) in [("roots", 0), ("others", 777)] {
        let folder = c.path(name);
        std::fs::create_dir_all(folder.join("data")).unwrap();
        std::fs::write(folder.join("data/file"), name).unwrap();
        std::os::unix::fs::chown(&folder, Some(owner), Some(owner)).unwrap();
        host::chmod(&folder, 0o700);
        let (source, destination) = (folder.join("data"), format!("/{name}"));
        c.push("/mounts", json!({ "destination": destination, "source": source, "options": ["rbind", "ro"] }));
    }
    let text = c.prints(&["all", "cat", "/roots/file", ",", "cat", "/others/file"]);
    assert!(text.contains("roots") && text.contains("others"), "{text}");
    let mounts = host::mounts();
    assert!(!mounts.contains(c.dir.to_str().unwrap()), "{mounts}");
});

container_test!(with_and_without_a_network_namespace, |c| {
    map(c);
    let facts = c.facts();
    assert_eq!(facts["loopback"], "up");
    // The host's root may drop groups.
    assert_eq!(facts["setgroups"], "allow");
    assert_ne!(facts["ns"]["net"], host::namespace("self", "net"));
    let kinds = c.config["linux"]["namespaces"].as_array_mut().unwrap();
    kinds.retain(|namespace| namespace["type"] != "network");
    let facts = c.facts();
    assert_eq!(facts["ns"]["net"], host::namespace("self", "net"));
    // No sysfs of that namespace may be mounted: it is the host's.
    let mounts = strings(&facts["mountinfo"]);
    let sys = mounts.iter().find(|line| line.split(' ').nth(4) == Some("/sys")).unwrap();
    assert!(sys.contains(" ro,nosuid,nodev,noexec"), "{sys}");
});

container_test!(a_root_file_system_that_its_root_can_not_reach_is_an_error, |c| {
    map(c);
    host::chmod(&c.bundle(), 0o700);
    let output = c.run().fails(&["config.json: /root/path", "EACCES", "root of the container's user namespace"]);
    assert!(output.stderr.contains(c.rootfs().to_str().unwrap()), "{output}");
    host::chmod(&c.bundle(), 0o755);
});

container_test!(a_user_namespace_without_mappings_is_an_error, |c| {
    map(c);
    c.remove("/linux/uidMappings").remove("/linux/gidMappings");
    c.run().exits(1);
    c.assert_clean();
});

container_test!(lifecycle_by_hand, |c| {
    map(c);
    c.args(&["sleep-forever"]);
    c.create().ok();
    assert_eq!(c.status(), "created");
    c.start().ok();
    assert_eq!(c.status(), "running");
    c.kill(&["KILL"]).ok();
    c.wait_status("stopped");
    c.delete().ok();
});

container_test!(the_hosts_dev_null_keeps_its_owner, |c| {
    if rival() == Some("runc") {
        return crate::common::skip(&c.name, "runc 1.1 changes it");
    }
    map(c);
    c.args(&["true"]);
    c.run().ok();
    let meta = std::fs::metadata("/dev/null").unwrap();
    assert_eq!((meta.uid(), meta.gid()), (0, 0));
});
