//! Crash safety: whatever system call the runtime is killed at, `list` works and `delete --force` removes all of it.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

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
fn killed_everywhere(c: &Container, words: &[&str], prepare: impl Fn()) {
    if !trace::available(c) {
        return;
    }
    c.write_config();
    prepare();
    let (_, calls) = trace::record(c, false, words);
    c.delete_force().ok();
    for point in trace::points(&calls) {
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

container_test!(either_process_killed_anywhere, |c| {
    skip_for_runc!(c, "runc leaves what it made");
    if !trace::available(c) {
        return;
    }
    c.write_config();
    let words = ["run", c.id.as_str()];
    let (_, calls) = trace::record(c, true, &words);
    // strace counts in each process of its own, so a point may be met by the one or the other.
    for point in trace::points(&calls) {
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
});

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
