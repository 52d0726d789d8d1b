//! Every promise under a seccomp filter around the runtime that denies openat2(2): the runtime then goes through paths
//! component by component.

use std::process::Command;

use crate::common::{DENIED, root, skip};

/// Runs the tests of this crate once more, under a filter.
///
/// `skip`: those about what the runtime then does in another way.
fn all_again(option: &str, cases: &str, skip: &[&str]) {
    if !root("denied") || std::env::var_os(DENIED).is_some() {
        return;
    }
    if std::env::var_os("TARE_GUEST_VM").is_some() {
        return crate::common::skip("denied", "in emulation it takes too long; a filter is the same there");
    }
    let own = std::env::current_exe().unwrap();
    let mut tests = Command::new(own);
    tests.env(DENIED, option).env("TARE_FUZZ_CASES", cases).args(["--skip", "denied::", "--test-threads", "2"]);
    tests.args(skip.iter().flat_map(|name| ["--skip", name]));
    let output = tests.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains(" passed"), "{option}:\n{said}");
}

#[test]
fn without_openat2() {
    all_again("eperm=openat2", "50", &[]);
}

/// Whether the long suites are asked for, too (`make test-denied`); says so if not.
fn is_long(name: &str) -> bool {
    let asked = std::env::var_os("TARE_TEST_LONG").is_some();
    if !asked {
        skip(&format!("denied::{name}"), "a run of minutes: make test-denied");
    }
    asked
}

#[test]
fn without_nearly_any_newer_call() {
    if !is_long("without_nearly_any_newer_call") {
        return;
    }
    let calls = "openat2,clone3,close_range,fsopen,fsconfig,fsmount,open_tree_attr,move_mount,pidfd_open,pidfd_send_signal,\
                 statx,faccessat2";
    all_again(&format!("enosys={calls}"), "100", &[]);
}

// The runtime is a sealed copy of itself then, masks with the container's null device or not at all, and can't set the access
// time of a source outside of the container's user namespace, which is an error.
// What is mounted in a shared volume without pivot_root(2) does not come to the host then: a gap of the way by mount(2).
#[test]
fn without_open_tree_and_openat2() {
    if !is_long("without_open_tree_and_openat2") {
        return;
    }
    let skip = [
        "cve_2019_5736::",
        "cve_2025_31133_",
        "masks_do_not_give_",
        "locked_flags_of_a_source_stay",
        "a_shared_volume_propagates",
    ];
    all_again("eperm=openat2,open_tree,open_tree_attr,mount_setattr", "100", &skip);
}
