//! What the guest of `make test-vm` is: if it weren't, the tests that need it would skip, and nobody would see.
//!
//! Those named `user_` run as the ordinary user, too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, clippy::disallowed_methods)]

use std::process::Command;

/// False, said aloud, on any other machine.
fn in_guest(test: &str) -> bool {
    if std::env::var("TARE_GUEST_VM").is_ok_and(|value| value == "1") {
        return true;
    }
    eprintln!("SKIP vm::{test}: not in the guest (make test-vm)");
    false
}

/// Declares a test that does nothing outside the guest.
macro_rules! guest_test {
    ($name:ident, $body:expr) => {
        #[test]
        fn $name() {
            if in_guest(stringify!($name)) {
                $body;
            }
        }
    };
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// What a program that must succeed prints.
#[track_caller]
fn prints(words: &[&str]) -> String {
    let output = Command::new(words.first().unwrap()).args(words.get(1..).unwrap()).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{words:?}: {}\n{stdout}{stderr}", output.status);
    stdout.trim().to_owned()
}

/// The same, as the ordinary user.
#[track_caller]
fn user_prints(words: &[&str]) -> String {
    let root = prints(&["id", "-u"]) == "0";
    prints(&[if root { &["as-user"][..] } else { &[] }, words].concat())
}

guest_test!(pid_1_is_systemd_and_no_unit_has_failed, {
    assert_eq!(read("/proc/1/comm"), "systemd\n");
    assert_eq!(prints(&["systemctl", "is-system-running", "--wait"]), "running");
});

guest_test!(there_is_only_cgroup_v2_with_its_controllers, {
    let mounts = read("/proc/self/mountinfo");
    assert!(mounts.contains(" /sys/fs/cgroup ") && mounts.contains(" - cgroup2 "), "{mounts}");
    assert!(!mounts.contains(" - cgroup "), "{mounts}");
    assert_eq!(read("/sys/fs/cgroup/cgroup.controllers"), "cpuset cpu io memory hugetlb pids rdma misc\n");
});

guest_test!(root_may_do_everything, {
    let status = read("/proc/self/status");
    let last: u32 = read("/proc/sys/kernel/cap_last_cap").trim().parse().unwrap();
    let all = format!("CapEff:\t{:016x}", (1u64 << (last + 1)) - 1);
    assert!(prints(&["id", "-u"]) != "0" || status.contains(&all), "{all} is not in\n{status}");
});

guest_test!(apparmor_takes_a_profile, {
    assert_eq!(read("/sys/module/apparmor/parameters/enabled"), "Y\n");
    let file = std::env::temp_dir().join("tare-vm-profile");
    std::fs::write(&file, "profile tare-vm-profile { file, }\n").unwrap();
    let file = file.to_str().unwrap();
    prints(&["apparmor_parser", "--replace", file]);
    assert!(read("/sys/kernel/security/apparmor/profiles").contains("tare-vm-profile (enforce)\n"));
    prints(&["apparmor_parser", "--remove", file]);
    std::fs::remove_file(file).unwrap();
});

guest_test!(criu_can_work, assert!(prints(&["criu", "check"]).ends_with("Looks good.")));

guest_test!(user_has_a_session_that_lingers, {
    assert_eq!(user_prints(&["id", "-u"]), "1000");
    assert_eq!(user_prints(&["systemctl", "--user", "is-system-running", "--wait"]), "running");
    assert_eq!(prints(&["loginctl", "show-user", "user", "--property=Linger"]), "Linger=yes");
});

guest_test!(user_has_a_cgroup_with_controllers, {
    let script =
        "cd /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup) && mkdir made && rmdir made && cat cgroup.controllers";
    assert_eq!(user_prints(&["sh", "-c", script]), "cpuset cpu io memory pids");
});

guest_test!(user_has_subordinate_ids, {
    let map = user_prints(&["unshare", "--map-root-user", "--map-auto", "cat", "/proc/self/uid_map"]);
    let words: Vec<&str> = map.split_whitespace().collect();
    // unshare(1) leaves out one for the id that it has mapped itself.
    assert_eq!(words, ["0", "1000", "1", "1", "100000", "65535"]);
});
