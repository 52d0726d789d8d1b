//! `ps`: ps's own table with the container's rows, and the list of process ids.

use serde_json::json;

use crate::common::{assert_has, eventually, host};
use crate::{container_test, skip_unless};

container_test!(lists_the_processes_of_the_container_alone, |c| {
    skip_unless!(c, host::installed("ps"), "ps is missing");
    c.args(&["fork-tree", "2"]);
    c.detach().ok();
    let cgroup = format!("{}/{}", c.cgroup, c.id);
    eventually("three processes", || host::cgroup_pids(&cgroup).len() == 3);
    let text = c.tare(&["ps", &c.id]).ok().stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[0].split_whitespace().any(|title| title == "PID"), "{text}");
    for pid in host::cgroup_pids(&cgroup) {
        assert!(lines.iter().any(|line| line.split_whitespace().nth(1) == Some(&pid.to_string())), "{text}");
    }
    assert!(lines[1..].iter().all(|line| line.contains("/guest fork-tree 2")), "{text}");
});

container_test!(as_json_the_ids_that_the_host_uses, |c| {
    c.args(&["fork-tree", "2"]);
    c.detach().ok();
    let cgroup = format!("{}/{}", c.cgroup, c.id);
    eventually("three processes", || host::cgroup_pids(&cgroup).len() == 3);
    for words in [["ps", "--format", "json", &c.id], ["ps", "-f", "json", &c.id]] {
        let output = c.tare(&words).ok();
        let mut ids: Vec<i32> = serde_json::from_str(&output.stdout).unwrap();
        ids.sort_unstable();
        assert_eq!(ids, host::cgroup_pids(&cgroup));
        assert!(output.stdout.ends_with("]\n"), "{output}");
    }
});

container_test!(options_after_the_id_are_those_of_ps, |c| {
    skip_unless!(c, host::installed("ps"), "ps is missing");
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let text = c.tare(&["ps", &c.id, "-o", "pid,comm", "-A"]).ok().stdout;
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines, [vec!["PID", "COMMAND"], vec![&c.pid().to_string(), "guest"]]);
    assert_has(c.tare(&["ps", &c.id, "aux"]).ok().stdout, "USER ");
    c.tare(&["ps", &c.id, "-o", "comm"]).fails(&["couldn't find PID field in ps output"]);
    c.tare(&["ps", &c.id, "--no-such-option"]).exits(1);
});

container_test!(processes_below_in_sub_cgroups_count, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let path = format!("{}/{}", c.cgroup, c.id);
    for dir in host::cgroups(&path) {
        std::fs::create_dir(dir.join("sub")).unwrap();
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if dir.join(file).exists() && dir.to_str().unwrap().contains("cpuset") {
                std::fs::copy(dir.join(file), dir.join("sub").join(file)).unwrap();
            }
        }
        std::fs::write(dir.join("sub/cgroup.procs"), c.pid().to_string()).unwrap();
    }
    assert_eq!(c.tare(&["ps", "-f", "json", &c.id]).ok().json(), json!([c.pid()]));
});

container_test!(a_stopped_container_has_none, |c| {
    c.detach().ok();
    c.wait_status("stopped");
    let text = c.tare(&["ps", "-f", "json", &c.id]).ok().stdout;
    assert!(["[]\n", "null\n"].contains(&text.as_str()), "{text}");
    c.tare(&["ps", "nobody"]).fails(&["container does not exist"]);
    c.tare(&["ps", "-f", "xml", &c.id]).exits(1);
});

container_test!(a_ps_that_says_nothing_leaves_no_gap, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    std::fs::write(c.path("ps"), "#!/bin/sh\nexit 3\n").unwrap();
    host::chmod(&c.path("ps"), 0o755);
    let output = crate::common::program::finish(c.command(&["ps", &c.id]).env("PATH", &c.dir), &c.dir);
    output.fails(&["ps: exit status: 3\n"]);
});
