//! Nobody holds the runtime up: a hook that hangs, a hook that calls the runtime for its own container, a command that was
//! stopped half-way. `delete --force` ends every container, and the other commands answer.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::program::{Running, start};
use crate::common::{Container, assert_has, eventually, guest, host, tare};
use crate::{container_test, skip_for_runc};

/// What "at once" may take on a machine that is busy with everything else.
const SOON: Duration = Duration::from_secs(8);

/// A container whose hook of a kind says that it runs, and hangs.
fn hang(c: &mut Container, kind: &str) {
    // The container's own for startContainer, which runs inside.
    let (path, file) = match kind {
        "startContainer" => ("/guest".to_owned(), "/hanging".to_owned()),
        _ => (guest().display().to_string(), c.path("hanging").display().to_string()),
    };
    let env = [format!("TARE_TEST={}", c.dir.display())];
    let args = json!(["hook", "all", "write", file, "x", ",", "sleep-forever"]);
    c.set("/hooks", json!({ kind: [{ "path": path, "args": args, "env": env }] }));
    c.push("/hooks/poststop", json!({ "path": guest(), "args": ["hook", "write", c.path("stopped"), "x"] }));
    c.args(&["sleep-forever"]);
}

fn hangs(c: &Container) -> bool {
    c.path("hanging").exists() || c.rootfs().join("hanging").exists()
}

fn forget(c: &Container) {
    for path in [c.path("hanging"), c.rootfs().join("hanging"), c.path("stopped")] {
        let _ = std::fs::remove_file(path);
    }
}

/// Each kind of hook with the command that runs it.
const PHASES: [(&str, &str); 8] = [
    ("prestart", "create"),
    ("createRuntime", "create"),
    ("createContainer", "create"),
    ("startContainer", "start"),
    ("poststart", "start"),
    ("createRuntime", "run"),
    ("startContainer", "run"),
    ("poststart", "run"),
];

/// Brings a container to where its hook hangs; the command that waits for it.
fn held(c: &mut Container, kind: &str, verb: &str) -> Running {
    hang(c, kind);
    c.write_config();
    let id = c.id.clone();
    let words = match verb {
        "start" => {
            c.create().ok();
            vec!["start", &id]
        }
        "run" => vec!["run", "--detach", &id],
        _ => vec!["create", &id],
    };
    let running = start(&mut c.command(&words), &c.dir);
    eventually("the hook runs", || hangs(c));
    running
}

/// The command ends; the hooks of a program that has been started may go on as long as they like.
#[track_caller]
fn ends(c: &Container, kind: &str, waiting: Running) {
    if kind == "poststart" {
        host::kill_processes(c.dir.to_str().unwrap());
        waiting.wait();
    } else {
        waiting.wait().exits(1);
    }
}

#[track_caller]
fn assert_soon(begin: Instant, what: &str) {
    assert!(begin.elapsed() < SOON, "{what} took {:?}", begin.elapsed());
}

fn force_in_every_phase(c: &mut Container) {
    for (kind, verb) in PHASES {
        let waiting = held(c, kind, verb);
        let begin = Instant::now();
        c.delete_force().ok();
        assert_soon(begin, &format!("delete --force with a {kind} hook of {verb} that hangs"));
        assert!(!c.path("state").join(&c.id).exists(), "{kind} of {verb}: the state is left");
        ends(c, kind, waiting);
        c.assert_clean();
        eventually("the poststop hook has run", || c.path("stopped").exists());
        forget(c);
    }
}

container_test!(force_ends_a_container_whatever_hook_hangs, |c| {
    skip_for_runc!(c, "it waits for the hooks of create");
    force_in_every_phase(c);
});

container_test!(force_ends_it_without_a_pid_namespace, |c| {
    skip_for_runc!(c, "it waits for the hooks of create");
    c.remove("/linux/namespaces/0");
    force_in_every_phase(c);
});

container_test!(a_poststop_hook_that_hangs_holds_nobody_up, |c| {
    skip_for_runc!(c, "its delete --force waits for it");
    hang(c, "poststop");
    c.create().ok();
    let waiting = start(&mut c.command(&["delete", "--force", &c.id]), &c.dir);
    eventually("the hook runs", || hangs(c));
    let begin = Instant::now();
    c.delete_force().ok();
    c.tare(&["state", &c.id]).fails(&["does not exist"]);
    assert_soon(begin, "another delete --force");
    // Its id is free.
    c.remove("/hooks");
    c.create().ok();
    host::kill_processes(&format!("{}/hanging", c.dir.display()));
    waiting.wait().ok();
});

container_test!(every_command_answers_while_a_hook_hangs, |c| {
    skip_for_runc!(c, "commands of a container that is being created fail otherwise");
    for (kind, verb) in PHASES {
        let waiting = held(c, kind, verb);
        let id = c.id.clone();
        for words in [
            vec!["state", &id],
            vec!["list"],
            vec!["ps", &id],
            vec!["events", "--stats", &id],
            vec!["kill", &id, "0"],
            vec!["exec", &id, "/guest", "true"],
            vec!["pause", &id],
            vec!["resume", &id],
            vec!["update", "--pids-limit", "50", &id],
            vec!["delete", &id],
            vec!["start", &id],
        ] {
            let begin = Instant::now();
            let output = c.tare(&words);
            assert_soon(begin, &format!("{words:?} with a {kind} hook of {verb} that hangs"));
            let needs = matches!(words[0], "pause" | "resume" | "update" | "delete" | "start");
            if needs && kind != "poststart" {
                assert_eq!(output.code, 1, "{output}");
                let by = format!("process {}", waiting.pid());
                assert!(output.stderr.contains("is busy: ") && output.stderr.contains(&by), "{kind}: {output}");
                assert_has(&output.stderr, verb);
            }
        }
        c.delete_force().ok();
        ends(c, kind, waiting);
        forget(c);
    }
});

/// A hook that calls the runtime for its own container.
fn calling(c: &mut Container, kind: &str, words: &[&str]) {
    let mut args = vec!["tare".to_owned(), "--root".to_owned(), c.path("state").display().to_string()];
    args.extend(words.iter().map(|word| (*word).to_owned()));
    let env = [format!("TARE_TEST={}", c.dir.display())];
    c.set("/hooks", json!({ kind: [{ "path": tare(), "args": args, "env": env }] }));
}

container_test!(a_hook_may_call_the_runtime_for_its_own_container, |c| {
    skip_for_runc!(c, "it has no state before the hooks of create have run");
    c.args(&["sleep-forever"]);
    let id = c.id.clone();
    // Whether it works, by the kind of hook: nothing changes a container that is being created.
    for (words, outside, after) in [
        (vec!["state", id.as_str()], true, true),
        (vec!["kill", &id, "0"], true, true),
        (vec!["exec", &id, "/guest", "true"], false, true),
        (vec!["pause", &id], false, true),
        (vec!["update", "--pids-limit", "50", &id], false, true),
        (vec!["delete", &id], false, false),
    ] {
        for (kind, works) in [("prestart", outside), ("createRuntime", outside), ("poststart", after)] {
            calling(c, kind, &words);
            let begin = Instant::now();
            let output = c.detach();
            assert_soon(begin, &format!("{words:?} in a {kind} hook"));
            assert_eq!(output.code, i32::from(!works), "{words:?} in a {kind} hook: {output}");
            c.delete_force().ok();
            c.assert_clean();
        }
    }
});

container_test!(a_command_that_is_stopped_holds_up_nobody_but_those_that_say_so, |c| {
    skip_for_runc!(c, "it has no locks");
    c.args(&["sleep-forever"]);
    c.detach().ok();
    // Whoever has the container's folder locked is at work on it.
    let lock = format!("exec flock {} sleep 1000", c.path("state").join(&c.id).display());
    let mut holder = std::process::Command::new("sh");
    let holder = start(holder.args(["-c", &lock]), &c.dir);
    let locked = || std::fs::read_to_string("/proc/locks").unwrap().contains(&format!(" {} ", holder.pid()));
    eventually("it is locked", locked);
    let begin = Instant::now();
    c.tare(&["pause", &c.id]).fails(&["is busy: process", &holder.pid().to_string(), "flock"]);
    assert_soon(begin, "pause");
    // Its program is ended all the same.
    let pid = c.pid();
    let deleting = start(&mut c.command(&["delete", "--force", &c.id]), &c.dir);
    eventually("it is dead", || matches!(host::process_state(pid), None | Some('Z')));
    host::children(holder.pid()).into_iter().for_each(host::kill);
    holder.signal(Signal::SIGKILL);
    deleting.wait().ok();
    c.assert_clean();
});

container_test!(limits_from_a_pipe_without_an_end_hold_nobody_up, |c| {
    skip_for_runc!(c, "it has no locks");
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let pipe = c.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let update = start(&mut c.command(&["update", "--resources", pipe.to_str().unwrap(), &c.id]), &c.dir);
    eventually("it waits", || host::process_state(update.pid()) == Some('S'));
    c.tare(&["pause", &c.id]).ok();
    c.tare(&["resume", &c.id]).ok();
    c.delete_force().ok();
});
