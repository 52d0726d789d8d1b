//! Older kernels, and seccomp filters around the runtime: with system calls missing (a filter answers ENOSYS, or EPERM), the
//! same containers come out.

use serde_json::Value;

use crate::common::config::mount;
use crate::common::program::finish;
use crate::common::{Container, guest, mountinfo, strings};
use crate::{container_test, skip_unless, user_test};

/// The system calls of the runtime that are younger than some filters.
const NEWER: [&str; 16] = [
    "openat2",
    "clone3",
    "close_range",
    "fsopen",
    "fsconfig",
    "fsmount",
    "open_tree",
    "open_tree_attr",
    "move_mount",
    "mount_setattr",
    "memfd_create",
    "keyctl",
    "pidfd_open",
    "pidfd_send_signal",
    "faccessat2",
    "statx",
];

/// What a filter may answer, as options of the probe's `with`.
const ANSWERS: [&str; 2] = ["enosys", "eperm"];

/// Each call alone, and all at once, with each answer.
fn denials() -> Vec<(String, String)> {
    let all = NEWER.join(",");
    let names = NEWER.iter().map(|name| (*name).to_owned()).chain([all]);
    names.flat_map(|name| ANSWERS.map(|answer| (format!("{answer}={name}"), name.clone()))).collect()
}

/// Runs `facts` in a container with mounts of every sort, with and without the system calls: nothing may differ.
fn same_without(c: &mut Container, names: &str) {
    prepare(c, names);
    same(c, &format!("enosys={names}"), names);
}

/// A container with mounts of every sort.
fn prepare(c: &mut Container, names: &str) {
    std::fs::create_dir(c.path("source")).unwrap();
    let source = c.path("source");
    let source = source.to_str().unwrap();
    c.push("/mounts", mount("bind", source, "/tmp/bind", &["rbind", "ro", "nosuid", "nodev"]));
    c.push("/mounts", mount("bind", source, "/tmp/one", &["bind", "ro", "rprivate"]));
    c.push("/mounts", mount("bind", source, "/tmp/slave", &["bind", "slave"]));
    // What may be on a shared mount has its propagation settled later.
    let propagation = if names == "open_tree_attr" { "rprivate" } else { "shared" };
    c.push("/mounts", mount("tmpfs", "tmpfs", "/tmp/tmpfs", &["size=100k", "noexec", "noatime", propagation]));
    c.set("/root/readonly", true);
    std::fs::create_dir(c.rootfs().join("masked")).unwrap();
    c.push("/linux/maskedPaths", serde_json::json!("/masked"));
    c.args(&["facts"]);
    c.write_config();
}

/// `option`: of the probe's `with`; the calls that it denies are `names`.
fn same(c: &Container, option: &str, names: &str) {
    let with = c.run().ok().json();
    let prefix = [guest().to_str().unwrap(), "with", option, "--"];
    let without = finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir).ok().json();
    let shape = |facts| {
        let mut shape: Vec<(String, String, Vec<String>, Vec<String>)> = mountinfo::all(facts)
            .into_iter()
            // Masked files, which kernel has which: covered by the null device of the host or of the container.
            .filter(|m| !(m.point.starts_with("/proc/") && ["devtmpfs", "tmpfs"].contains(&m.fstype.as_str())))
            .map(|m| {
                let mut options = m.options.clone();
                options.sort();
                (
                    m.point,
                    m.fstype,
                    options,
                    m.propagation.iter().map(|p| p.split(':').next().unwrap().to_owned()).collect(),
                )
            })
            .collect();
        // The order of the tree's making, which differs; what is on the same place stays in order.
        shape.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        shape
    };
    assert_eq!(shape(&without), shape(&with), "{option}");
    for key in ["hostname", "env", "cwd", "loopback", "rlimits"] {
        assert_eq!(without[key], with[key], "{option}: {key}");
    }
    if !names.contains("keyctl") {
        // The end of its name is one that nobody can foresee.
        let ring = |facts: &Value| facts["keyring"].as_str().unwrap().rsplit_once('.').unwrap().0.to_owned();
        assert_eq!(ring(&without), ring(&with), "{option}");
    }
    assert_eq!(strings(&without["argv"]), strings(&with["argv"]));
}

container_test!(without_the_new_mount_calls, |c| {
    same_without(c, "fsopen,fsconfig,fsmount,fspick,open_tree,move_mount,mount_setattr,open_tree_attr");
});

container_test!(without_open_tree_attr, |c| {
    same_without(c, "open_tree_attr");
});

container_test!(without_mount_setattr, |c| {
    same_without(c, "mount_setattr");
});

container_test!(without_fsopen, |c| {
    same_without(c, "fsopen");
});

container_test!(without_open_tree, |c| {
    same_without(c, "open_tree");
});

container_test!(without_clone3, |c| {
    same_without(c, "clone3");
});

container_test!(without_close_range, |c| {
    same_without(c, "close_range");
});

container_test!(without_keyrings, |c| {
    same_without(c, "keyctl");
});

container_test!(without_pidfds, |c| {
    same_without(c, "pidfd_open,pidfd_send_signal");
});

container_test!(a_recursive_option_without_mount_setattr_is_honoured_or_an_error, |c| {
    c.push("/mounts", mount("bind", "/sys", "/tmp/sys", &["rbind", "rro"]));
    c.args(&["facts"]);
    c.write_config();
    let prefix = [guest().to_str().unwrap(), "with", "enosys=mount_setattr", "--"];
    let output = finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir);
    if output.code == 0 {
        let facts = output.json();
        let mut below = mountinfo::all(&facts).into_iter().filter(|m| m.point.starts_with("/tmp/sys"));
        assert!(below.all(|m| m.has("ro")), "silently dropped");
    }
});

container_test!(a_lifecycle_by_hand_without_pidfds, |c| {
    c.args(&["sleep-forever"]);
    c.write_config();
    let prefix = [guest().to_str().unwrap(), "with", "enosys=pidfd_open,pidfd_send_signal,clone3", "--"];
    for words in [["create", &c.id].as_slice(), &["start", &c.id], &["kill", &c.id, "KILL"]] {
        finish(&mut c.command_by(&prefix, words), &c.dir).ok();
    }
    c.wait_status("stopped");
    finish(&mut c.command_by(&prefix, &["delete", "--force", &c.id]), &c.dir).ok();
    c.assert_clean();
});

container_test!(user_namespaces_without_the_new_mount_calls, |c| {
    super::userns::map(c);
    same_without(c, "fsopen,fsconfig,fsmount,fspick,open_tree,move_mount,mount_setattr");
});

container_test!(user_namespaces_without_mount_setattr, |c| {
    super::userns::map(c);
    same_without(c, "mount_setattr");
});

user_test!(rootless_without_mount_setattr, |c| {
    same_without(c, "mount_setattr");
});

user_test!(rootless_without_the_new_mount_calls, |c| {
    same_without(c, "fsopen,fsconfig,fsmount,fspick,open_tree,move_mount,mount_setattr");
});

user_test!(rootless_without_clone3, |c| {
    same_without(c, "clone3");
});

container_test!(each_newer_call_denied, |c| {
    prepare(c, "");
    for (option, names) in denials() {
        same(c, &option, &names);
    }
});

container_test!(each_newer_call_denied_with_a_user_namespace, |c| {
    super::userns::map(c);
    prepare(c, "open_tree_attr");
    for (option, names) in denials() {
        same(c, &option, &names);
    }
});

container_test!(each_newer_call_denied_with_a_device_of_the_image, |c| {
    // Without a tmpfs of its own on /dev, what masks is the host's null device.
    std::fs::create_dir_all(c.rootfs().join("dev/pts")).unwrap();
    std::fs::create_dir_all(c.rootfs().join("dev/shm")).unwrap();
    std::fs::create_dir_all(c.rootfs().join("dev/mqueue")).unwrap();
    c.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
    std::fs::write(c.rootfs().join("secret"), "secret").unwrap();
    c.push("/linux/maskedPaths", "/secret".into());
    c.args(&["all", "cat", "/secret", ",", "echo", "end"]);
    c.write_config();
    for (option, _) in denials() {
        let prefix = [guest().to_str().unwrap(), "with", &option, "--"];
        assert_eq!(finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir).ok().stdout, "end\n", "{option}");
    }
});

/// Every command of a container's life with system calls denied, and what each shows.
fn whole_life(c: &Container, option: &str) {
    let prefix = [guest().to_str().unwrap(), "with", option, "--"];
    let tare = |words: &[&str]| finish(&mut c.command_by(&prefix, words), &c.dir);
    let id = c.id.as_str();
    tare(&["create", id]).ok();
    assert_eq!(tare(&["state", id]).ok().json()["status"], "created", "{option}");
    tare(&["start", id]).ok();
    let pid = c.pid().to_string();
    let facts = tare(&["exec", id, "/guest", "facts"]).ok().json();
    for (kind, own) in facts["ns"].as_object().unwrap() {
        let init = crate::common::host::namespace(&pid, kind);
        assert_eq!(own, &init, "{option}: {kind}");
    }
    let fds = facts["fds"].as_object().unwrap();
    assert!(fds.keys().all(|fd| fd.parse::<i32>().unwrap() < 3), "{option}: {fds:?}");
    let listed = tare(&["list", "--format", "json"]).ok().stdout;
    assert!(listed.contains(id) && listed.contains("running"), "{option}: {listed}");
    tare(&["kill", id, "CONT"]).ok();
    tare(&["kill", id, "KILL"]).ok();
    c.wait_status("stopped");
    tare(&["delete", id]).ok();
    c.assert_clean();
    // And what runs yet.
    tare(&["run", "--detach", id]).ok();
    tare(&["delete", "--force", id]).ok();
    c.assert_clean();
}

container_test!(whole_lives_with_each_newer_call_denied, |c| {
    c.args(&["sleep-forever"]);
    c.write_config();
    for (option, _) in denials() {
        whole_life(c, &option);
    }
});

container_test!(whole_lives_in_a_user_namespace_with_each_newer_call_denied, |c| {
    super::userns::map(c);
    c.args(&["sleep-forever"]);
    c.write_config();
    for (option, _) in denials() {
        whole_life(c, &option);
    }
});

// Then its processes are found by the cgroup.
container_test!(whole_lives_without_a_pid_namespace, |c| {
    c.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    c.args(&["fork-tree", "3"]);
    c.write_config();
    for answer in ANSWERS {
        whole_life(c, &format!("{answer}=pidfd_open,pidfd_send_signal"));
        whole_life(c, &format!("{answer}={}", NEWER.join(",")));
    }
});

// The bridge's final process is its sibling, whose pidfd comes over the channel.
container_test!(a_bridge_with_each_newer_call_denied, |c| {
    let mut other = Container::new(&format!("{}-other", c.name));
    other.args(&["sleep-forever"]);
    other.detach().ok();
    c.set("/linux/namespaces/0/path", format!("/proc/{}/ns/pid", other.pid()));
    c.args(&["sleep-forever"]);
    c.write_config();
    for answer in ANSWERS {
        for names in ["clone3", "pidfd_open", &NEWER.join(",")] {
            whole_life(c, &format!("{answer}={names}"));
        }
    }
    other.finish();
});

container_test!(a_terminal_with_each_newer_call_denied, |c| {
    c.set("/process/terminal", true);
    c.args(&["facts"]);
    c.write_config();
    for (option, _) in denials() {
        let prefix = [guest().to_str().unwrap(), "with", &option, "--"];
        let output = finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir).ok();
        assert!(output.stdout.contains("/dev/pts/0"), "{option}: {output}");
    }
});

// What the container keeps must not be what the runtime had open.
container_test!(descriptors_are_closed_without_close_range, |c| {
    c.args(&["sleep-forever"]);
    c.write_config();
    let mut before = None;
    for option in ["umask=22", "enosys=close_range", "eperm=close_range"] {
        let prefix = [guest().to_str().unwrap(), "with", "open=7:/etc", option, "--"];
        finish(&mut c.command_by(&prefix, &["create", &c.id]), &c.dir).ok();
        let fds = std::fs::read_dir(format!("/proc/{}/fd", c.pid())).unwrap().flatten();
        let links: Vec<_> = fds.map(|fd| std::fs::read_link(fd.path()).unwrap().display().to_string()).collect();
        assert!(!links.iter().any(|link| link == "/etc"), "{option}: {links:?}");
        assert_eq!(*before.get_or_insert(links.len()), links.len(), "{option}: {links:?}");
        c.delete_force().ok();
    }
});

// An EPERM of the kernel's stays what it is.
container_test!(a_real_refusal_is_no_filter, |c| {
    c.push("/mounts", mount("tmpfs", "tmpfs", "/tmp/x", &["nonesuch=1"]));
    let error = c.run().exits(1).stderr;
    assert!(!error.contains("filter"), "{error}");
    c.config["mounts"].as_array_mut().unwrap().pop();
    let source = c.path("source");
    std::fs::create_dir(&source).unwrap();
    let idmap = serde_json::json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
    let mut bind = mount("bind", "/proc", "/tmp/x", &["bind"]);
    bind["uidMappings"] = idmap.clone();
    bind["gidMappings"] = idmap;
    c.push("/mounts", bind);
    let error = c.run().exits(1).stderr;
    assert!(!error.contains("filter") && error.contains("id-mapped"), "{error}");
});

// What has no other way says which call is denied.
container_test!(what_has_no_other_way_names_the_call, |c| {
    let source = c.path("source");
    std::fs::create_dir(&source).unwrap();
    let idmap = serde_json::json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
    let mut bind = mount("bind", source.to_str().unwrap(), "/tmp/x", &["bind"]);
    bind["uidMappings"] = idmap.clone();
    bind["gidMappings"] = idmap;
    c.push("/mounts", bind);
    c.write_config();
    for (option, says) in [
        ("eperm=open_tree", "a seccomp filter around the runtime denies open_tree(2)"),
        ("enosys=open_tree", "a seccomp filter around the runtime denies it"),
        ("eperm=mount_setattr", "a seccomp filter around the runtime denies mount_setattr(2)"),
    ] {
        let prefix = [guest().to_str().unwrap(), "with", option, "--"];
        let output = finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir);
        output.fails(&["/mounts/6", says]);
        c.assert_clean();
    }
});

container_test!(keys_that_stay_within_reach_are_told_of, |c| {
    c.args(&["true"]);
    c.write_config();
    for answer in ANSWERS {
        for (names, warned) in [("keyctl", true), ("keyctl,add_key,request_key", false)] {
            let option = format!("{answer}={names}");
            let prefix = [guest().to_str().unwrap(), "with", &option, "--"];
            let error = finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir).ok().stderr;
            assert_eq!(error.contains("session keyring"), warned, "{option}: {error}");
        }
    }
});

// As systemd's RestrictAddressFamilies= does it.
container_test!(loopback_without_sockets_of_a_family, |c| {
    for families in [[libc::AF_INET].as_slice(), &[libc::AF_INET, libc::AF_NETLINK], &[libc::AF_INET, libc::AF_UNIX]] {
        let options: Vec<String> = families.iter().map(|family| format!("nosocket={family}")).collect();
        let mut prefix = vec![guest().to_str().unwrap(), "with"];
        prefix.extend(options.iter().map(String::as_str));
        prefix.push("--");
        // The probe asks by a socket of AF_INET itself, so it is executed without the filter.
        c.args(&["sleep-forever"]);
        c.write_config();
        finish(&mut c.command_by(&prefix, &["run", "--detach", &c.id]), &c.dir).ok();
        let facts = c.tare(&["exec", &c.id, "/guest", "facts"]).ok().json();
        assert_eq!(facts["loopback"], "up", "{families:?}");
        c.delete_force().ok();
    }
});

// vm.memfd_noexec=2 holds for a pid namespace and those below it, Linux 6.3.
container_test!(no_memfd_may_be_executed, |c| {
    let script = "echo 2 > /proc/sys/vm/memfd_noexec && exec \"$@\"";
    let prefix = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script, "sh"];
    skip_unless!(c, std::fs::exists("/proc/sys/vm/memfd_noexec").unwrap(), "no vm.memfd_noexec");
    c.args(&["echo", "hello"]);
    c.write_config();
    assert_eq!(finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir).ok().stdout, "hello\n");
    c.args(&["sleep-forever"]);
    c.write_config();
    // In one pid namespace, whose numbers the state has.
    let script = format!(
        "{} && t=$1 r=$3 && $t --root $r run --detach {id} && $t --root $r exec {id} /guest echo in && $t --root $r delete -f {id}",
        "echo 2 > /proc/sys/vm/memfd_noexec",
        id = c.id
    );
    let prefix = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", &script, "sh"];
    let output = finish(&mut c.command_by(&prefix, &[]), &c.dir);
    assert!(output.stdout.contains("in\n"), "{output}");
    output.ok();
});

// A procfs of processes only, as a sandbox may have it.
container_test!(sysctls_with_a_procfs_of_processes_only, |c| {
    c.set("/linux/sysctl", serde_json::json!({ "net.ipv4.ip_unprivileged_port_start": "81" }));
    c.args(&["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]);
    c.write_config();
    let script = "mount -t proc -o subset=pid proc /proc && exec \"$@\"";
    let prefix = ["unshare", "--mount", "sh", "-c", script, "sh"];
    let output = finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir);
    assert_eq!(output.ok().stdout, "81\n");
    // One that doesn't exist still is an error of its own.
    c.set("/linux/sysctl", serde_json::json!({ "net.nonesuch": "1" }));
    c.write_config();
    finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir).fails(&["/linux/sysctl", "net/nonesuch"]);
});
