//! Every promise under a seccomp filter around the runtime that denies openat2(2): the runtime then goes through paths
//! component by component.

use std::process::Command;

use crate::common::{DENIED, root};

/// Runs the tests of this crate once more, under a filter.
fn all_again(option: &str, cases: &str) {
    if !root("denied") || std::env::var_os(DENIED).is_some() {
        return;
    }
    let own = std::env::current_exe().unwrap();
    let mut tests = Command::new(own);
    tests.env(DENIED, option).env("TARE_FUZZ_CASES", cases).args(["--skip", "denied::", "--test-threads", "2"]);
    let output = tests.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains(" passed"), "{option}:\n{said}");
}

#[test]
fn without_openat2() {
    all_again("eperm=openat2", "200");
}

#[test]
fn without_any_newer_call() {
    all_again(
        "enosys=openat2,clone3,close_range,fsopen,fsconfig,fsmount,open_tree,open_tree_attr,move_mount,mount_setattr,\
         pidfd_open,pidfd_send_signal,statx,faccessat2",
        "100",
    );
}
