//! SELinux labels, on a host that has it in permissive mode with a policy that knows these types (docs/testing.md says
//! how to get one): of the process, its keys, and the mounts of the container.

use std::fs;

use serde_json::json;

use crate::common::{Container, assert_has, guest, program};
use crate::{container_test, skip_for_runc, skip_unless};

const PROCESS: &str = "system_u:system_r:container_t:s0:c1,c2";
const OTHER: &str = "system_u:system_r:container_t:s0:c3";
const FILE: &str = "system_u:object_r:container_file_t:s0:c1,c2";

/// Whether a label means something, and does no harm: nothing of the test's own files has labels that fit.
fn usable() -> bool {
    let permissive = fs::read_to_string("/sys/fs/selinux/enforce").is_ok_and(|text| text.trim() == "0");
    // Without a policy every label is fine.
    let policy = fs::read("/proc/self/attr/current").is_ok_and(|label| label != b"kernel\0");
    permissive
        && policy
        && [PROCESS, OTHER, FILE].iter().all(|label| fs::write("/sys/fs/selinux/context", label).is_ok())
}

macro_rules! needs_selinux {
    ($c:expr) => {
        skip_unless!($c, usable(), "no SELinux in permissive mode with the types of containers");
    };
}

/// The label of the container's first process.
fn label(c: &Container) -> String {
    let text = fs::read_to_string(format!("/proc/{}/attr/current", c.pid())).unwrap();
    text.trim_end_matches(['\0', '\n']).to_owned()
}

fn own_label(c: &Container, options: &[&str]) -> String {
    let mut words = vec!["exec"];
    words.extend(options);
    words.extend([&c.id, "/guest", "cat", "/proc/self/attr/current"]);
    c.tare(&words).ok().stdout.trim_end_matches(['\0', '\n']).to_owned()
}

container_test!(a_process_has_its_label, |c| {
    needs_selinux!(c);
    c.args(&["sleep-forever"]).set("/process/selinuxLabel", PROCESS);
    for (no_new_privileges, uid) in [(true, 0), (false, 0), (true, 1000)] {
        c.set("/process/noNewPrivileges", no_new_privileges);
        c.set("/process/user", json!({ "uid": uid, "gid": uid }));
        c.create().ok();
        c.start().ok();
        assert_eq!(label(c), PROCESS, "{no_new_privileges} {uid}");
        assert_eq!(own_label(c, &[]), PROCESS);
        assert_eq!(own_label(c, &["--process-label", OTHER]), OTHER);
        c.delete_force().ok();
    }
});

container_test!(keys_have_the_label_of_the_process, |c| {
    needs_selinux!(c);
    c.set("/process/selinuxLabel", PROCESS);
    assert_eq!(c.prints(&["key-label"]).trim_end(), PROCESS);
    // Only those: the program's own are the policy's affair.
    assert_eq!(c.prints(&["cat", "/proc/self/attr/keycreate"]).trim_end_matches('\0'), "");
});

container_test!(mounts_have_the_mount_label, |c| {
    needs_selinux!(c);
    c.set("/linux/mountLabel", FILE);
    c.push(
        "/mounts",
        json!({ "destination": "/own", "type": "tmpfs", "source": "tmpfs",
        "options": [format!("context=\"{OTHER}\"")] }),
    );
    let paths = ["/dev", "/dev/shm", "/dev/pts", "/dev/mqueue", "/sys/firmware", "/own", "/proc"];
    let words = paths.map(|path| vec!["xattr", path, "security.selinux"]).join(&",");
    c.args(&[vec!["all"], words].concat());
    c.write_config();
    // With the mount API of 5.2, and by mount(2), whose options are one string with commas.
    for missing in [None, Some("enosys=fsopen,open_tree")] {
        let mut prefix = vec![guest().to_str().unwrap(), "with"];
        prefix.extend(missing);
        prefix.push("--");
        let output = program::finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir).ok();
        let seen: Vec<&str> = output.stdout.lines().collect();
        assert_eq!(seen[..5], [FILE; 5], "{missing:?} {paths:?}");
        assert_eq!(seen[5], OTHER, "{missing:?}");
        assert_ne!(seen[6], FILE, "{missing:?}");
    }
});

container_test!(a_label_that_the_policy_does_not_know, |c| {
    skip_for_runc!(c, "its words are others");
    needs_selinux!(c);
    let good = c.config.clone();
    c.set("/process/selinuxLabel", "no:such:label:s0");
    for output in [c.create(), c.run()] {
        output.fails(&["config.json: /process/selinuxLabel: \"no:such:label:s0\": not a valid context", "`/proc/"]);
        c.assert_clean();
    }
    c.config = good;
    c.set("/linux/mountLabel", "no:such:label:s0");
    let output = c.create().exits(1);
    assert_has(&output.stderr, "context=no:such:label:s0");
    c.assert_clean();
});
