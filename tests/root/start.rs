//! `start`: releases the program, once.

use serde_json::json;

use crate::common::assert_has;
use crate::common::program::finish;
use crate::container_test;

container_test!(releases_the_program, |c| {
    c.args(&["sleep-forever"]);
    c.create().ok();
    let pid = c.pid();
    let output = c.start().ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    assert_eq!((c.status(), c.pid()), ("running".into(), pid), "the same process runs the program");
});

container_test!(a_running_container_is_not_started_again, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    c.start().fails(&["cannot start an already running container"]);
    assert_eq!(c.status(), "running");
});

container_test!(a_stopped_container_is_not_started_again, |c| {
    c.detach().ok();
    c.wait_status("stopped");
    c.start().fails(&["cannot start a container that has stopped"]);
});

container_test!(a_container_killed_before_start_is_stopped, |c| {
    c.create().ok();
    c.kill(&["KILL"]).ok();
    c.wait_status("stopped");
    c.start().fails(&["cannot start a container that has stopped"]);
});

container_test!(a_missing_container_is_an_error, |c| {
    c.start().fails(&["container does not exist"]);
});

container_test!(one_of_two_starts_at_once_succeeds, |c| {
    c.args(&["sleep-forever"]);
    c.create().ok();
    let words = ["start", c.id.as_str()];
    let both: Vec<_> = (0..2).map(|_| crate::common::program::start(&mut c.command(&words), &c.dir)).collect();
    let codes: Vec<i32> = both.into_iter().map(|one| one.wait().code).collect();
    assert!(codes.contains(&0), "{codes:?}");
    assert_eq!(c.status(), "running");
});

container_test!(says_that_the_program_has_no_known_format, |c| {
    std::fs::write(c.rootfs().join("bad"), "this is no program").unwrap();
    crate::common::host::chmod(&c.rootfs().join("bad"), 0o755);
    c.set("/process/args", serde_json::json!(["/bad"]));
    let output = c.run().exits(1);
    assert_has(output.stderr.to_lowercase(), "exec format error");
});

// Executing the program closes what `start` waits for and what tells "created" from "running" one after the other, and a
// process that gets little of a processor stands between the two for milliseconds. Engines ask for the status then.
container_test!(returns_when_the_status_is_running, |c| {
    c.args(&["sleep-forever"]);
    // Beside everything else, not beside the tests' cgroups alone.
    let cgroup = format!("/{}", c.id);
    c.set("/linux/cgroupsPath", cgroup).set("/linux/resources/cpu", json!({ "shares": 2 }));
    let on_one_processor = |words: &[&str]| finish(&mut c.command_by(&["taskset", "-c", "0"], words), &c.dir).ok();
    let bundle = c.bundle();
    c.write_config();
    for _ in 0..20 {
        on_one_processor(&["create", "--bundle", bundle.to_str().unwrap(), &c.id]);
        on_one_processor(&["start", &c.id]);
        assert_eq!(on_one_processor(&["state", &c.id]).json()["status"], "running");
        c.delete_force().ok();
    }
});
