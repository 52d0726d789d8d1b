//! Many containers, one after the other and at once: nothing is left, and nobody sees a half-made one.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::program::start;
use crate::common::{Container, assert_has, eventually, host};
use crate::container_test;

container_test!(two_hundred_one_after_the_other, |c| {
    c.args(&["exit", "7"]);
    c.write_config();
    for _ in 0..200 {
        c.tare(&["run", &c.id]).exits(7);
    }
    c.assert_clean();
});

container_test!(sixty_four_runs_at_once, |c| {
    let all: Vec<Container> = (0..64)
        .map(|_| {
            let mut one = Container::new(&c.name);
            one.args(&["exit", "7"]);
            one.write_config();
            one
        })
        .collect();
    let running: Vec<_> = all.iter().map(|one| start(&mut one.command(&["run", &one.id]), &one.dir)).collect();
    for one in running {
        one.wait().exits(7);
    }
    for mut one in all {
        one.finish();
    }
});

container_test!(sixty_four_lifecycles_at_once, |c| {
    let name = c.name.clone();
    let pids: Vec<i32> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..64)
            .map(|_| {
                scope.spawn(|| {
                    let mut one = Container::new(&name);
                    one.args(&["sleep-forever"]);
                    one.create().ok();
                    let pid = one.pid();
                    one.start().ok();
                    one.kill(&["KILL"]).ok();
                    one.wait_status("stopped");
                    one.delete().ok();
                    one.finish();
                    pid
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // Whoever adopts them, here the host's first process, reaps them in its own time.
    eventually("no process is left, alive or dead", || pids.iter().all(|pid| host::process_state(*pid).is_none()));
});

container_test!(one_state_root_for_all, |c| {
    // One root, one parent cgroup, one rootfs: what a pod or a build gives them.
    c.args(&["sleep-forever"]);
    c.config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    let ids: Vec<String> = (0..16).map(|i| format!("tare-test-{}-{}-{i}", std::process::id(), c.id)).collect();
    c.push("/mounts", crate::common::config::mount("tmpfs", "tmpfs", "/made/by/the/first", &[]));
    c.write_config();
    let running: Vec<_> = ids.iter().map(|id| start(&mut c.command(&["run", "--detach", id]), &c.dir)).collect();
    for one in running {
        one.wait().ok();
    }
    let listed = c.tare(&["list", "--quiet"]).ok().stdout;
    for id in &ids {
        assert_has(&listed, id);
    }
    let running: Vec<_> = ids.iter().map(|id| start(&mut c.command(&["delete", "--force", id]), &c.dir)).collect();
    for one in running {
        one.wait().ok();
    }
    assert_eq!(c.tare(&["list", "--quiet"]).ok().stdout, "");
    for id in &ids {
        assert!(host::cgroups(&format!("/{id}")).is_empty(), "{id}");
    }
});

container_test!(one_of_many_creates_with_one_id_succeeds, |c| {
    c.args(&["sleep-forever"]);
    c.write_config();
    let running: Vec<_> = (0..8).map(|_| start(&mut c.command(&["create", &c.id]), &c.dir)).collect();
    let outputs: Vec<_> = running.into_iter().map(|one| one.wait()).collect();
    assert_eq!(outputs.iter().filter(|output| output.code == 0).count(), 1, "{outputs:?}");
    for output in outputs.iter().filter(|output| output.code != 0) {
        assert_has(&output.stderr, "container with given ID already exists");
    }
    assert_eq!(c.status(), "created");
});

container_test!(nobody_sees_a_half_made_container, |c| {
    c.args(&["sleep-forever"]);
    c.write_config();
    let over = AtomicBool::new(false);
    let c = &*c;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..15 {
                c.tare(&["run", "--detach", &c.id]).ok();
                c.delete_force().ok();
            }
            over.store(true, Ordering::Relaxed);
        });
        while !over.load(Ordering::Relaxed) {
            let state = c.tare(&["state", &c.id]);
            if state.code == 0 {
                let status = state.json()["status"].as_str().unwrap().to_owned();
                assert!(["creating", "created", "running", "stopped"].contains(&status.as_str()), "{status}");
            } else if crate::common::rival().is_none() {
                assert_has(&state.stderr, "does not exist");
            }
            c.tare(&["list", "--format", "json"]).ok().json();
        }
    });
});

container_test!(deletes_at_once_do_not_hurt_each_other, |c| {
    for _ in 0..5 {
        c.args(&["sleep-forever"]);
        c.detach().ok();
        let words = ["delete", "--force", c.id.as_str()];
        let running: Vec<_> = (0..4).map(|_| start(&mut c.command(&words), &c.dir)).collect();
        let codes: Vec<i32> = running.into_iter().map(|one| one.wait().code).collect();
        if crate::common::rival().is_none() {
            assert_eq!(codes, [0; 4]);
        }
        c.delete_force().ok();
        c.assert_clean();
    }
});

container_test!(any_commands_at_once_leave_nothing_frozen, |c| {
    crate::skip_for_runc!(c, "it has no lock for them");
    c.args(&["sleep-forever"]);
    c.write_config();
    let c = &*c;
    let commands: [&[&str]; 10] = [
        &["run", "--detach"],
        &["pause"],
        &["resume"],
        &["state"],
        &["ps", "--format", "json"],
        &["update", "--cpu-share", "512"],
        &["events", "--stats"],
        &["run", "--detach"],
        &["delete", "--force"],
        &["resume"],
    ];
    std::thread::scope(|scope| {
        for first in 0..6_usize {
            scope.spawn(move || {
                for step in 0..25 {
                    // Each thread in an order of its own.
                    let mut words = commands[(first * 3 + step * (2 * first + 1)) % commands.len()].to_vec();
                    words.push(&c.id);
                    let output = c.tare(&words);
                    assert!([0, 1].contains(&output.code), "{output}");
                    let bad = ["internal error", "ESRCH", "ENODEV", "inconsistent", "nor to thaw"];
                    assert!(!bad.iter().any(|words| output.stderr.contains(words)), "{output}");
                }
            });
        }
    });
    c.tare(&["run", "--detach", &c.id]);
    if c.status() == "paused" {
        c.tare(&["resume", &c.id]).ok();
    }
    assert_eq!(c.status(), "running");
    super::exec::exec(c, &[], &["true"]).ok();
});
