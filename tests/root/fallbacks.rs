//! Older kernels: with system calls missing (answered ENOSYS by a filter), the same containers come out.

use crate::common::config::mount;
use crate::common::program::finish;
use crate::common::{Container, guest, mountinfo, strings};
use crate::{container_test, user_test};

/// Runs `facts` in a container with mounts of every sort, with and without the system calls: nothing may differ.
fn same_without(c: &mut Container, names: &str) {
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
    let with = c.run().ok().json();
    let option = format!("enosys={names}");
    let prefix = [guest().to_str().unwrap(), "with", &option, "--"];
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
    assert_eq!(shape(&without), shape(&with));
    for key in ["hostname", "env", "cwd", "loopback", "rlimits", "keyring"] {
        if key != "keyring" || names != "keyctl" {
            assert_eq!(without[key], with[key], "{key}");
        }
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
