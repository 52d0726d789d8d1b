//! Crash safety: whatever system call the runtime is killed at, `list` works and `delete --force` removes all of it.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::config::mount;
use crate::common::program::start;
use crate::common::{Container, host, trace};
use crate::{container_test, skip_for_runc};

/// After a kill: what is there can be listed and deleted, twice, and then nothing is there.
#[track_caller]
fn recovers(c: &Container, point: &str) {
    let ids = c.tare(&["list", "--quiet"]).ok().stdout;
    assert!(ids.is_empty() || ids == format!("{}\n", c.id), "{point}: {ids}");
    let state = c.tare(&["state", &c.id]);
    // What is half made has no state to show; what to do about it is said, and it is in the list.
    let half = state.stderr.contains("delete --force") && !ids.is_empty();
    assert!(state.code == 0 || half || state.stderr.contains("does not exist"), "{point}: {ids}{state}");
    for _ in 0..2 {
        let output = c.delete_force();
        assert_eq!(output.code, 0, "killed at {point}: {output}");
    }
    let here = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| c.assert_clean()));
    assert!(here.is_ok(), "killed at {point}");
}

/// Kills `words` at each of its system calls, with the container prepared anew for each by `prepare`.
pub(super) fn killed_everywhere(c: &Container, words: &[&str], prepare: impl Fn()) {
    killed_at_some(c, words, prepare, trace::points);
}

fn killed_at_some(c: &Container, words: &[&str], prepare: impl Fn(), points: impl Fn(&[trace::Call]) -> Vec<String>) {
    if !trace::available(c) {
        return;
    }
    c.write_config();
    prepare();
    let (_, calls) = trace::record(c, false, words);
    c.delete_force().ok();
    for point in points(&calls) {
        prepare();
        trace::killed_at(c, false, &point, words).wait();
        recovers(c, &point);
    }
}

container_test!(create_killed_anywhere, |c| {
    skip_for_runc!(c, "runc leaves what it made");
    c.set("/linux/resources", serde_json::json!({ "pids": { "limit": 20 }, "memory": { "limit": 50_000_000 } }));
    let id = c.id.clone();
    killed_everywhere(c, &["create", &id], || ());
});

/// Two mounts with mappings of their own: each costs a process that ends before the container starts.
fn id_mapped(c: &mut Container) {
    for host_id in [7, 8] {
        let mapping = serde_json::json!([{ "containerID": 0, "hostID": host_id, "size": 1 }]);
        let mut mount = mount("bind", c.path("").to_str().unwrap(), "/tmp/a", &["bind"]);
        (mount["uidMappings"], mount["gidMappings"]) = (mapping.clone(), mapping);
        c.push("/mounts", mount);
    }
}

/// The points of a trace from the first to the last of the system calls for that; the others are those of any create.
fn mapping(calls: &[trace::Call]) -> Vec<String> {
    let pipes = calls.iter().enumerate().filter(|(_, call)| call.name == "pipe2").map(|(at, _)| at);
    let (first, last) = (pipes.clone().min().unwrap(), pipes.max().unwrap());
    assert!(first < last, "one process for each mapping");
    trace::points(calls).into_iter().skip(first - 1).take(last - first + 30).collect()
}

container_test!(a_create_that_maps_ids_killed_while_it_does, |c| {
    skip_for_runc!(c, "runc leaves what it made");
    id_mapped(c);
    let id = c.id.clone();
    killed_at_some(c, &["create", &id], || (), mapping);
});

container_test!(start_killed_anywhere, |c| {
    skip_for_runc!(c, "runc leaves what it made");
    c.args(&["sleep-forever"]);
    let id = c.id.clone();
    killed_everywhere(c, &["start", &id], || drop(c.create().ok()));
});

container_test!(delete_killed_anywhere, |c| {
    skip_for_runc!(c, "runc leaves what it made");
    c.args(&["sleep-forever"]);
    let id = c.id.clone();
    killed_everywhere(c, &["delete", "--force", &id], || drop(c.detach().ok()));
});

container_test!(run_killed_anywhere, |c| {
    skip_for_runc!(c, "runc leaves what it made");
    let id = c.id.clone();
    killed_everywhere(c, &["run", &id], || ());
});

container_test!(kill_killed_anywhere, |c| {
    skip_for_runc!(c, "runc leaves what it made");
    c.args(&["sleep-forever"]);
    let id = c.id.clone();
    killed_everywhere(c, &["kill", &id, "TERM"], || drop(c.detach().ok()));
});

/// Kills `words` at each of their system calls, with a running container, and looks at it before it is removed.
fn running_killed_everywhere(c: &mut Container, words: &[&str], before: &[&str]) {
    if !trace::available(c) {
        return;
    }
    c.args(&["sleep-forever"]);
    c.write_config();
    let prepare = |c: &Container| {
        c.detach().ok();
        if !before.is_empty() {
            c.tare(before).ok();
        }
    };
    prepare(c);
    let (_, calls) = trace::record(c, false, words);
    for point in trace::points(&calls) {
        c.delete_force().ok();
        prepare(c);
        trace::killed_at(c, false, &point, words).wait();
        // Asking for the status is enough to undo half a pause.
        let status = c.status();
        let thawed = super::pause::thawed(c);
        match status.as_str() {
            "running" => assert!(thawed, "killed at {point}: running, but frozen"),
            "paused" => {
                assert!(super::pause::frozen(c), "killed at {point}: paused, but not all of it");
                c.tare(&["resume", &c.id]).ok();
            }
            other => panic!("killed at {point}: {other}"),
        }
        super::exec::exec(c, &[], &["true"]).ok();
        let begin = Instant::now();
        c.delete_force().ok();
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(8), "killed at {point}: delete took {took:?}");
        recovers(c, &point);
    }
}

container_test!(pause_killed_anywhere, |c| {
    skip_for_runc!(c, "runc#4481");
    let id = c.id.clone();
    running_killed_everywhere(c, &["pause", &id], &[]);
});

container_test!(resume_killed_anywhere, |c| {
    skip_for_runc!(c, "runc#4481");
    let id = c.id.clone();
    running_killed_everywhere(c, &["resume", &id], &["pause", &id]);
});

container_test!(update_killed_anywhere, |c| {
    skip_for_runc!(c, "runc leaves what it made");
    let id = c.id.clone();
    let has = ["pids", "memory", "cpu"].iter().all(|name| host::has_controller(name));
    crate::skip_unless!(c, has, "no pids, memory or cpu controller");
    running_killed_everywhere(c, &["update", "--pids-limit", "20", "--memory", "50m", "--cpu-share", "512", &id], &[]);
});

container_test!(either_process_killed_anywhere, |c| {
    skip_for_runc!(c, "runc leaves what it made");
    any_process_killed(c, trace::points);
});

container_test!(either_process_killed_while_ids_are_mapped, |c| {
    skip_for_runc!(c, "runc leaves what it made");
    id_mapped(c);
    any_process_killed(c, mapping);
});

fn any_process_killed(c: &Container, points: impl Fn(&[trace::Call]) -> Vec<String>) {
    if !trace::available(c) {
        return;
    }
    c.write_config();
    let words = ["run", c.id.as_str()];
    let (_, calls) = trace::record(c, true, &words);
    // strace counts in each process of its own, so a point may be met by the one or the other.
    for point in points(&calls) {
        let mut running = trace::killed_at(c, true, &point, &words);
        // A container that survives in `created` would be traced for ever.
        let end = Instant::now() + Duration::from_millis(700);
        while running.child.try_wait().unwrap().is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        // On a slow machine the runtime may still be at it; without strace it would go on behind our back.
        host::children(running.pid()).into_iter().for_each(host::kill);
        drop(running);
        recovers(c, &point);
    }
}

container_test!(create_killed_after_any_time, |c| {
    skip_for_runc!(c, "runc leaves what it made");
    c.write_config();
    let begin = Instant::now();
    c.create().ok();
    let usual = begin.elapsed();
    c.delete_force().ok();
    for i in 0..100 {
        let running = start(&mut c.command(&["create", &c.id]), &c.dir);
        std::thread::sleep(usual * i / 80);
        // It may have ended by itself: then it's a zombie of ours, and the signal does nothing.
        running.signal(Signal::SIGKILL);
        running.wait();
        recovers(c, &format!("{i}/80 of the usual time"));
    }
});

container_test!(an_init_killed_during_create_is_an_error, |c| {
    if !trace::available(c) {
        return;
    }
    skip_for_runc!(c, "its helper stages are killed as well");
    c.write_config();
    // Only the process inside makes this call.
    let output = trace::killed_at(c, true, "inject=pivot_root:signal=SIGKILL:when=1", &["run", &c.id]).wait();
    assert_eq!(output.code, 1, "{output}");
    assert!(output.stderr.contains("SIGKILL") || output.stderr.contains("killed"), "{output}");
    c.assert_clean();
});

container_test!(a_container_whose_creator_was_killed_can_be_made_again, |c| {
    skip_for_runc!(c, "runc leaves what it made");
    if !trace::available(c) {
        return;
    }
    c.write_config();
    trace::killed_at(c, false, "inject=clone3:signal=SIGKILL:when=1", &["create", &c.id]).wait();
    c.delete_force().ok();
    c.args(&["exit", "3"]);
    c.run().exits(3);
});
