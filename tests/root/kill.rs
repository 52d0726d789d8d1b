//! `kill`: signals by any of their names.

use crate::common::program::start;
use crate::common::{assert_has, eventually, host, rival};
use crate::container_test;

container_test!(knows_a_signal_by_any_name, |c| {
    for name in ["USR1", "SIGUSR1", "usr1", "sigusr1", "SigUsr1", "10"] {
        c.args(&["catch", "0", "10"]);
        c.write_config();
        let mut running = start(&mut c.command(&["run", &c.id]), &c.dir);
        running.wait_for("ready");
        c.kill(&[name]).ok();
        assert_has(running.wait().ok().stdout, "got 10\n");
    }
});

container_test!(defaults_to_sigterm, |c| {
    c.args(&["catch", "0", "15"]);
    c.write_config();
    let mut running = start(&mut c.command(&["run", &c.id]), &c.dir);
    running.wait_for("ready");
    c.kill(&[]).ok();
    assert_has(running.wait().ok().stdout, "got 15\n");
});

container_test!(sends_real_time_signals, |c| {
    for (name, number) in [("34", 34), ("37", 37), ("64", 64), ("RTMIN", 34), ("SIGRTMIN+3", 37), ("rtmax-1", 63)] {
        // runc knows them by number only.
        if !name.as_bytes()[0].is_ascii_digit() && rival() == Some("runc") {
            continue;
        }
        c.args(&["catch", "0", &number.to_string()]);
        c.write_config();
        let mut running = start(&mut c.command(&["run", &c.id]), &c.dir);
        running.wait_for("ready");
        c.kill(&[name]).ok();
        assert_has(running.wait().ok().stdout, &format!("got {number}\n"));
    }
});

container_test!(an_unknown_signal_is_an_error, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    for name in ["SIGNONE", "TERMINATE", "-x", "RTMIN+99"] {
        c.tare(&["kill", &c.id, name]).exits(1);
    }
    assert_eq!(c.status(), "running");
});

container_test!(signal_0_asks_whether_it_runs, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    c.kill(&["0"]).ok();
    assert_eq!(c.status(), "running");
});

container_test!(a_stopped_container_is_not_running, |c| {
    c.detach().ok();
    c.wait_status("stopped");
    c.kill(&["KILL"]).fails(&["container not running"]);
    c.kill(&["TERM"]).fails(&["container not running"]);
});

container_test!(all_is_fine_with_a_stopped_container, |c| {
    c.detach().ok();
    c.wait_status("stopped");
    c.kill(&["--all", "KILL"]).ok();
    c.kill(&["-a"]).ok();
});

container_test!(all_reaches_every_process, |c| {
    c.args(&["fork-tree", "3"]);
    c.remove("/linux/namespaces/0");
    c.detach().ok();
    let cgroup = format!("{}/{}", c.cgroup, c.id);
    eventually("four processes", || host::cgroup_pids(&cgroup).len() == 4);
    c.kill(&["--all", "KILL"]).ok();
    eventually("no process", || host::cgroup_pids(&cgroup).is_empty());
    c.wait_status("stopped");
});

container_test!(sigkill_without_a_pid_namespace_reaches_every_process, |c| {
    c.args(&["fork-tree", "3"]);
    c.remove("/linux/namespaces/0");
    c.detach().ok();
    let cgroup = format!("{}/{}", c.cgroup, c.id);
    eventually("four processes", || host::cgroup_pids(&cgroup).len() == 4);
    c.kill(&["KILL"]).ok();
    // runc does so since 1.2.
    if rival().is_none() {
        eventually("no process", || host::cgroup_pids(&cgroup).is_empty());
    }
});

container_test!(a_created_container_can_be_killed, |c| {
    c.create().ok();
    c.kill(&["KILL"]).ok();
    c.wait_status("stopped");
});

container_test!(a_missing_container_is_an_error, |c| {
    c.kill(&["KILL"]).fails(&["container does not exist"]);
});

/// The file that freezes a container, and what is written into it.
fn freeze(c: &crate::common::Container) {
    let path = c.config["linux"]["cgroupsPath"].as_str().unwrap();
    let files = [("freezer.state", "FROZEN"), ("cgroup.freeze", "1")];
    let found = host::cgroups(path).into_iter().find_map(|dir| {
        files.into_iter().find(|(file, _)| dir.join(file).exists()).map(|(file, on)| (dir.join(file), on))
    });
    let (file, on) = found.unwrap();
    std::fs::write(file, on).unwrap();
    eventually("paused", || c.status() == "paused");
}

container_test!(a_paused_container_can_be_killed, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    freeze(c);
    c.kill(&["KILL"]).ok();
    c.wait_status("stopped");
    c.delete().ok();
});

container_test!(a_paused_container_can_be_deleted_by_force, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    freeze(c);
    let begin = std::time::Instant::now();
    c.delete_force().ok();
    assert!(begin.elapsed() < std::time::Duration::from_secs(5), "{:?}", begin.elapsed());
    c.assert_clean();
});
