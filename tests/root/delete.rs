//! `delete`: all of it, whatever state it's in.

use crate::common::{eventually, host};
use crate::container_test;

container_test!(removes_a_stopped_container, |c| {
    c.detach().ok();
    c.wait_status("stopped");
    let output = c.delete().ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    c.assert_clean();
    c.delete().fails(&["container does not exist"]);
});

container_test!(refuses_a_running_container, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    c.delete().fails(&["not stopped"]);
    assert_eq!(c.status(), "running");
});

container_test!(force_ends_a_running_container, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let pid = c.pid();
    c.delete_force().ok();
    assert!(matches!(host::process_state(pid), None | Some('Z')), "it should be dead when delete returns");
    c.assert_clean();
});

container_test!(force_ends_a_created_container, |c| {
    c.create().ok();
    c.tare(&["delete", "-f", &c.id]).ok();
    c.assert_clean();
});

container_test!(force_of_a_missing_container_is_silent_success, |c| {
    for _ in 0..2 {
        let output = c.delete_force().ok();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    }
});

container_test!(force_twice_succeeds, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    c.delete_force().ok();
    c.delete_force().ok();
});

container_test!(force_ends_every_process_without_a_pid_namespace, |c| {
    c.args(&["fork-tree", "3"]);
    c.remove("/linux/namespaces/0");
    c.detach().ok();
    let cgroup = format!("{}/{}", c.cgroup, c.id);
    eventually("four processes", || host::cgroup_pids(&cgroup).len() == 4);
    c.delete_force().ok();
    c.assert_clean();
});

container_test!(removes_cgroups_that_the_container_made, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let own = host::cgroups(&format!("{}/{}", c.cgroup, c.id));
    assert!(!own.is_empty());
    for dir in &own {
        std::fs::create_dir_all(dir.join("below/deeper")).unwrap();
    }
    c.delete_force().ok();
    c.assert_clean();
});

container_test!(the_id_can_be_used_again, |c| {
    for _ in 0..3 {
        c.args(&["sleep-forever"]);
        c.detach().ok();
        c.delete_force().ok();
    }
});

container_test!(works_when_the_bundle_is_gone, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    std::fs::remove_dir_all(c.bundle()).unwrap();
    let mut command = c.command(&["delete", "--force", &c.id]);
    crate::common::program::finish(command.current_dir("/"), &c.dir).ok();
    c.assert_clean();
});
