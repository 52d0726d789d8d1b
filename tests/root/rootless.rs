//! Containers of an ordinary user: the life of one, the state, and what such a user may and may not have.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::json;

use crate::common::user::{become_user, gid, mapping, uid};
use crate::common::{assert_has, eventually, host, program, rival, strings, tare};
use crate::{skip_for_runc, skip_unless, user_test};

user_test!(runs_with_a_single_mapping, |c| {
    let facts = c.facts();
    assert_eq!(facts["status"]["Uid"], "0 0 0 0");
    assert_eq!(facts["status"]["Gid"], "0 0 0 0");
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&strings(&facts["uid_map"])[0]), ["0", &uid(c).to_string(), "1"]);
    assert_eq!(words(&strings(&facts["gid_map"])[0]), ["0", &gid(c).to_string(), "1"]);
    // Or the groups that deny something to the user could be dropped (CVE-2014-8989).
    assert_eq!(facts["setgroups"], "deny");
    for name in ["user", "mnt", "pid", "net", "ipc", "uts"] {
        assert_ne!(facts["ns"][name], host::namespace("self", name), "{name}");
    }
    assert_eq!(facts["pid"], 1);
    assert_eq!(facts["loopback"], "up");
});

user_test!(files_made_inside_are_the_users, |c| {
    c.prints(&["write", "/tmp/mine", "text"]);
    let meta = std::fs::metadata(c.rootfs().join("tmp/mine")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (uid(c), gid(c)));
});

user_test!(devices_are_the_hosts, |c| {
    let lines = c.prints(&[
        "all",
        "open",
        "/dev/null",
        "rw",
        ",",
        "open",
        "/dev/zero",
        "r",
        ",",
        "stat",
        "/dev/null",
        "/dev/tty",
        ",",
        "readlink",
        "/dev/fd",
    ]);
    assert!(lines.starts_with("ok\nok\n/dev/null c 666 "), "{lines}");
    let facts = c.facts();
    let mounted = strings(&facts["mountinfo"]);
    assert!(mounted.iter().any(|line| line.contains(" /null /dev/null ")), "{mounted:?}");
});

user_test!(a_device_that_the_host_lacks_is_named, |c| {
    c.push("/linux/devices", json!({ "type": "c", "path": "/dev/tare-none", "major": 1, "minor": 3 }));
    c.run().fails(&["device \"/dev/tare-none\"", "on the host", "no such file or directory (ENOENT)"]);
});

user_test!(a_device_that_is_another_on_the_host_is_refused, |c| {
    c.push("/linux/devices", json!({ "type": "c", "path": "/dev/null", "major": 1, "minor": 5 }));
    c.run().fails(&["device \"/dev/null\"", "another device"]);
});

user_test!(lifecycle_by_hand, |c| {
    c.args(&["sleep-forever"]);
    c.create().ok();
    assert_eq!(c.status(), "created");
    c.start().ok();
    assert_eq!(c.status(), "running");
    assert_eq!(c.state()["rootfs"], c.rootfs().to_str().unwrap());
    let list = c.tare(&["list", "--format", "json"]).ok().json();
    assert_eq!(list[0]["id"], c.id);
    assert_eq!(list[0]["status"], "running");
    c.delete().fails(&["running"]);
    c.kill(&["KILL"]).ok();
    c.wait_status("stopped");
    c.delete().ok();
});

user_test!(exec_joins_everything, |c| {
    c.args(&["sleep-forever"]);
    c.set("/process/oomScoreAdj", 400);
    c.detach().ok();
    let pid = c.pid().to_string();
    let facts = c.tare(&["exec", &c.id, "/guest", "facts"]).ok().json();
    for name in ["user", "mnt", "pid", "net", "ipc", "uts"] {
        let link = host::namespace(&pid, name);
        assert_eq!(facts["ns"][name], link, "{name}");
    }
    assert_eq!(facts["status"]["Uid"], "0 0 0 0");
    assert_eq!(facts["status"]["NoNewPrivs"], "1");
    assert_eq!(facts["oom_score_adj"], 400);
    c.tare(&["exec", "--user", "5", &c.id, "/guest", "true"]).exits(255).has("not mapped");
    c.tare(&["exec", "--additional-gids", "0", &c.id, "/guest", "true"]).exits(255).has("additional groups");
});

user_test!(root_of_the_host_handles_it_too, |c| {
    skip_unless!(c, c.user.is_some(), "not root");
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let user = c.user.take();
    let facts = c.tare(&["exec", &c.id, "/guest", "facts"]).ok().json();
    assert_eq!(facts["ns"]["user"], host::namespace(&c.pid().to_string(), "user"));
    assert_eq!(facts["status"]["Uid"], "0 0 0 0");
    // Its groups were given up when it was made, whoever asks for them.
    c.tare(&["exec", "--additional-gids", "0", &c.id, "/guest", "true"]).exits(255).has("setgroups");
    let owner = c.tare(&["list", "--format", "json"]).ok().json();
    assert_eq!(owner[0]["owner"], format!("#{}", user.unwrap()));
    c.kill(&["KILL"]).ok();
    c.wait_status("stopped");
    c.delete().ok();
});

user_test!(another_user_has_no_way_to_it, |c| {
    skip_unless!(c, c.user.is_some(), "not root");
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let owner = c.user.replace(699_999_999);
    for words in [&["state"][..], &["kill"], &["delete", "--force"], &["exec"]] {
        let mut all = words.to_vec();
        all.extend([c.id.as_str(), "/guest", "true"].iter().take(if words == ["exec"] { 3 } else { 1 }));
        let output = c.tare(&all);
        assert_ne!(output.code, 0, "{output}");
        assert!(output.stderr.contains("EACCES") || output.stderr.contains("EPERM"), "{output}");
    }
    c.user = owner;
    assert_eq!(c.status(), "running");
});

user_test!(state_is_below_the_runtime_directory, |c| {
    skip_unless!(c, c.user.is_some(), "not root: the runtime directory is the user's own");
    c.args(&["sleep-forever"]);
    c.write_config();
    let run = |words: &[&str]| {
        let mut command = std::process::Command::new(tare());
        command.args(words).current_dir(c.bundle()).stdin(std::process::Stdio::null());
        become_user(&mut command, uid(c), c);
        program::finish(&mut command, &c.dir)
    };
    // Neither HOME nor USER nor PATH is there.
    run(&["run", "--detach", &c.id]).ok();
    let root = c.path("run").join("tare");
    let meta = std::fs::metadata(&root).unwrap();
    // Sticky: cleaners of the runtime directory leave it alone (XDG Base Directory Specification).
    assert_eq!((meta.permissions().mode() & 0o7777, meta.uid()), (0o1700, uid(c)));
    assert!(root.join(&c.id).join("state.json").exists());
    assert_has(run(&["list", "--quiet"]).ok().stdout, &c.id);
    run(&["delete", "--force", &c.id]).ok();
    assert!(!root.join(&c.id).exists());
});

user_test!(without_a_runtime_directory_the_error_says_what_to_do, |c| {
    skip_unless!(c, c.user.is_some(), "not root");
    c.write_config();
    let mut command = std::process::Command::new(tare());
    command.args(["run", &c.id]).current_dir(c.bundle()).stdin(std::process::Stdio::null());
    become_user(&mut command, uid(c), c);
    command.env_clear();
    program::finish(&mut command, &c.dir).fails(&["/run/tare", "EACCES", "XDG_RUNTIME_DIR", "--root"]);
});

user_test!(a_user_namespace_is_needed, |c| {
    c.remove("/linux/namespaces/5").remove("/linux/uidMappings").remove("/linux/gidMappings");
    c.run().fails(&[
        "config.json: /linux/namespaces",
        "rootless container requires user namespaces",
        "an ordinary user",
        "spec --rootless",
    ]);
});

user_test!(additional_groups_need_more_than_a_single_mapping, |c| {
    c.set("/process/user/additionalGids", json!([0]));
    c.run().fails(&["config.json: /process/user/additionalGids", "cannot set additional groups", "/etc/subgid"]);
});

user_test!(the_template_runs, |c| {
    std::fs::remove_file(c.bundle().join("config.json")).unwrap_or(());
    c.tare(&["spec", "--rootless"]).ok();
    let text = std::fs::read(c.bundle().join("config.json")).unwrap();
    c.config = serde_json::from_slice(&text).unwrap();
    c.set("/process/terminal", false);
    let facts = c.facts();
    assert_eq!(facts["status"]["Uid"], "0 0 0 0");
    assert_eq!(facts["hostname"], if rival().is_some() { "runc" } else { "tare" });
    assert_eq!(facts["rlimits"]["RLIMIT_NOFILE"], json!([1024, 1024]));
    // CVE-2023-25809: the host's cgroups are not the container's to write.
    for path in ["/sys/fs/cgroup/tare-test", "/sys/tare-test"] {
        c.args(&["mkdir", path]);
        let output = c.run().exits(1);
        assert!(output.stdout.contains("EROFS") || output.stdout.contains("EACCES"), "{output}");
    }
});

user_test!(a_terminal_in_the_foreground, |c| {
    c.set("/process/terminal", true);
    c.args(&["facts"]);
    c.write_config();
    let bundle = c.bundle();
    let (master, slave, _) = crate::common::pty::open(24, 80);
    let mut command = c.command(&["run", "--bundle", bundle.to_str().unwrap(), &c.id]);
    command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
    assert_eq!(command.spawn().unwrap().wait().unwrap().code(), Some(0), "{}", master.text());
    master.wait_for("\"/dev/pts/0\"");
});

user_test!(limits_that_a_user_can_have_are_set, |c| {
    use nix::sys::resource::{Resource, getrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE).unwrap();
    c.set("/process/oomScoreAdj", 500);
    c.set(
        "/process/rlimits",
        json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }, { "type": "RLIMIT_CORE", "soft": 0, "hard": hard }]),
    );
    let facts = c.facts();
    assert_eq!(facts["oom_score_adj"], 500);
    assert_eq!(facts["rlimits"]["RLIMIT_NOFILE"], json!([100, 200]));
    assert_eq!(facts["rlimits"]["RLIMIT_CORE"], json!([0, hard]));
});

user_test!(limits_that_take_more_rights_are_errors, |c| {
    use nix::sys::resource::{Resource, getrlimit};
    c.set("/process/oomScoreAdj", -900);
    c.run().fails(&["config.json: /process/oomScoreAdj", "-900", "CAP_SYS_RESOURCE"]);
    c.remove("/process/oomScoreAdj");
    // Not of open files, which the host bounds for everybody (fs.nr_open).
    let (_, hard) = getrlimit(Resource::RLIMIT_MSGQUEUE).unwrap();
    c.set("/process/rlimits", json!([{ "type": "RLIMIT_MSGQUEUE", "soft": 5, "hard": hard + 1 }]));
    c.run().fails(&["config.json: /process/rlimits/0", "EPERM", "CAP_SYS_RESOURCE"]);
});

user_test!(the_session_keyring_is_its_own, |c| {
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let ring = |output: program::Output| output.ok().json()["keyring"].as_str().unwrap().to_owned();
    let first = ring(c.tare(&["exec", &c.id, "/guest", "facts"]));
    assert_has(&first, &format!("_ses.{}", c.id));
    assert_eq!(ring(c.tare(&["exec", &c.id, "/guest", "facts"])), first);
});

user_test!(names_and_sysctls_of_its_own_namespaces, |c| {
    c.set("/hostname", "box").set("/domainname", "here");
    c.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1", "net.ipv4.ping_group_range": "0 0" }));
    c.args(&["all", "facts", ",", "cat", "/proc/sys/net/ipv4/ip_forward"]);
    let output = c.run().ok();
    assert_has(&output.stdout, "\"hostname\":\"box\"");
    assert_has(&output.stdout, "\"domainname\":\"here\"");
    assert!(output.stdout.ends_with("1\n"), "{output}");
});

user_test!(hooks_run_as_the_user, |c| {
    let log = c.path("run/hook");
    let hook = json!([{ "path": program::guest(), "args": ["guest", "write", log, "ran"] }]);
    c.set("/hooks", json!({ "createRuntime": hook }));
    c.args(&["true"]);
    c.run().ok();
    let meta = std::fs::metadata(&log).unwrap();
    assert_eq!(meta.uid(), uid(c));
});

user_test!(a_program_that_fails_leaves_nothing, |c| {
    c.set("/process/args", json!(["/none"]));
    c.run().exits(1).has("no such file or directory");
    c.assert_clean();
    c.args(&["exit", "7"]);
    c.run().exits(7);
    c.assert_clean();
});

user_test!(a_user_who_is_not_mapped_is_an_error, |c| {
    c.set("/process/user/uid", 1000);
    c.run().fails(&["config.json: /process/user/uid", "1000 is not mapped"]);
});

user_test!(an_id_that_is_not_the_users_is_not_mapped, |c| {
    skip_unless!(c, c.user.is_some() && host::installed("newuidmap"), "not root, or newuidmap is missing");
    c.set("/linux/uidMappings", mapping(0, 0, 1));
    // newuidmap doesn't know a user without a name; with one it would look at the ranges.
    c.run().fails(&["config.json: /linux/uidMappings: newuidmap: ", "/etc/subuid", &uid(c).to_string()]);
    c.assert_clean();
});

user_test!(without_the_helper_the_error_names_it, |c| {
    skip_unless!(c, c.user.is_some(), "not root");
    c.set(
        "/linux/uidMappings",
        json!([
            { "containerID": 0, "hostID": uid(c), "size": 1 }, { "containerID": 1, "hostID": 100_000, "size": 10 }
        ]),
    );
    c.write_config();
    let bundle = c.bundle();
    let mut command = c.command(&["run", "--bundle", bundle.to_str().unwrap(), &c.id]);
    command.env("PATH", c.path("run"));
    program::finish(&mut command, &c.dir)
        .fails(&["config.json: /linux/uidMappings: newuidmap: executable file not found in $PATH", "package uidmap"]);
    c.assert_clean();
});

user_test!(a_cgroup_that_nothing_needs_is_done_without, |c| {
    let facts = c.facts();
    let own = |line: &str| line.rsplit(':').next().unwrap().to_owned();
    let callers = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let theirs = strings(&facts["cgroup"]);
    // Where one is delegated to the user, as his systemd does, the container gets it.
    let given = format!("/{}", c.id);
    let expected = |a: &str, b: &str| own(a) == own(b) || own(a).ends_with(&given);
    assert!(theirs.iter().zip(callers.lines()).all(|(a, b)| expected(a, b)), "{theirs:?}\n{callers}");
});

user_test!(a_cgroup_of_the_same_name_that_belongs_to_another_is_left_alone, |c| {
    skip_unless!(c, c.user.is_some(), "not root");
    c.id = format!("{}-taken", c.cgroup.trim_start_matches('/'));
    let theirs: Vec<_> = host::hierarchies().into_iter().map(|root| root.join(&c.id)).collect();
    for dir in &theirs {
        std::fs::create_dir(dir).unwrap();
    }
    c.args(&["true"]);
    let output = c.run();
    let left = theirs.iter().filter(|dir| std::fs::remove_dir(dir).is_ok()).count();
    output.ok();
    assert_eq!(left, theirs.len());
});

user_test!(a_cgroup_that_is_asked_for_and_not_to_be_had_is_an_error, |c| {
    skip_unless!(c, c.user.is_some(), "not root: this user may have a delegated cgroup");
    for (pointer, value) in [
        ("/linux/cgroupsPath", json!(format!("{}/x", c.cgroup))),
        ("/linux/resources", json!({ "pids": { "limit": 10 } })),
    ] {
        c.set(pointer, value);
        let output = c.run().fails(&["make the container's cgroup", "EACCES", "delegat", "--cgroup-manager=disabled"]);
        assert_has(output.stderr, "rootless needs no limits + no cgrouppath when no permission is granted for cgroups");
        c.assert_clean();
        c.remove(pointer);
    }
});

user_test!(a_cgroup_that_is_delegated_is_used, |c| {
    skip_unless!(c, c.user.is_some(), "not root: nobody delegates");
    c.set("/linux/cgroupsPath", format!("{}/{}", c.cgroup, c.id));
    let launch = crate::common::user::delegate(c);
    let limit = host::has_controller("pids");
    if limit {
        c.set("/linux/resources", json!({ "pids": { "limit": 33 } }));
    }
    c.args(&["sleep-forever"]);
    c.write_config();
    let bundle = c.bundle();
    let words = ["run", "--detach", "--bundle", bundle.to_str().unwrap(), &c.id];
    let mut command = c.command_by(&[&launch], &words);
    program::finish(&mut command, &c.dir).ok();
    let pid = c.pid();
    let path = format!("{}/{}", c.cgroup, c.id);
    assert!(host::cgroup_pids(&path).contains(&pid), "not in its cgroup");
    if limit {
        let max = host::cgroups(&path).into_iter().find_map(|dir| std::fs::read_to_string(dir.join("pids.max")).ok());
        assert_eq!(max.unwrap().trim(), "33");
    }
    // Moving a process into it takes being below the same delegated cgroup (cgroups(7)).
    program::finish(&mut c.command_by(&[&launch], &["exec", &c.id, "/guest", "true"]), &c.dir).ok();
    program::finish(&mut c.command_by(&[&launch], &["delete", "--force", &c.id]), &c.dir).ok();
    eventually("the cgroup is gone", || host::cgroups(&path).is_empty());
});

user_test!(a_cgroup_that_is_delegated_is_found, |c| {
    skip_for_runc!(c, "it looks beside its own cgroup only");
    skip_unless!(c, c.user.is_some(), "not root: nobody delegates");
    c.set("/linux/cgroupsPath", "");
    let launch = crate::common::user::delegate(c);
    c.args(&["sleep-forever"]);
    let limit = host::has_controller("pids");
    // Beside his own cgroup; and in it, where that is all he has got, which can hand no limits down.
    for (place, beside) in [("", true), ("/launcher", false)] {
        if beside && limit {
            c.set("/linux/resources", json!({ "pids": { "limit": 33 } }));
        } else {
            c.set("/linux/resources", json!({}));
        }
        for top in host::cgroups(&c.cgroup).into_iter().filter(|_| !beside) {
            std::os::unix::fs::chown(top, Some(0), Some(0)).unwrap();
        }
        c.write_config();
        let bundle = c.bundle();
        let words = ["run", "--detach", "--bundle", bundle.to_str().unwrap(), &c.id];
        program::finish(&mut c.command_by(&[&launch], &words), &c.dir).ok();
        let path = format!("{}{place}/{}", c.cgroup, c.id);
        assert!(host::cgroup_pids(&path).contains(&c.pid()), "not in {path}");
        if beside && limit {
            let max =
                host::cgroups(&path).into_iter().find_map(|dir| std::fs::read_to_string(dir.join("pids.max")).ok());
            assert_eq!(max.unwrap().trim(), "33");
        }
        program::finish(&mut c.command_by(&[&launch], &["delete", "--force", &c.id]), &c.dir).ok();
        eventually("the cgroup is gone", || host::cgroups(&path).is_empty());
    }
});

// A binary that the user may write is one that a container of his may: the command starts again from a sealed copy
// (CVE-2019-5736), and all of it works from there.
user_test!(a_binary_of_the_users_own, |c| {
    c.args(&["sleep-forever"]);
    c.write_config();
    let own = c.path("run/tare");
    std::fs::copy(tare(), &own).unwrap();
    std::os::unix::fs::chown(&own, Some(uid(c)), Some(gid(c))).unwrap();
    let run = |words: &[&str]| {
        let mut command = std::process::Command::new(&own);
        command.args(["--root", c.path("state").to_str().unwrap()]).args(words);
        command.current_dir(c.bundle()).stdin(std::process::Stdio::null());
        become_user(&mut command, uid(c), c);
        program::finish(&mut command, &c.dir)
    };
    run(&["run", "--detach", &c.id]).ok();
    run(&["exec", &c.id, "/guest", "true"]).ok();
    assert_has(run(&["exec", &c.id, "/guest", "readlink", "/proc/self/exe"]).ok().stdout, "/guest");
    run(&["delete", "--force", &c.id]).ok();
});

user_test!(a_runtime_that_was_killed_is_cleaned_up_by_its_user, |c| {
    c.args(&["sleep-forever"]);
    c.write_config();
    if !crate::common::trace::available(c) {
        return;
    }
    let bundle = c.bundle();
    let words = ["run", "--detach", "--bundle", bundle.to_str().unwrap(), &c.id];
    // As the maps are written, and as the container is on its way.
    for point in ["inject=write:signal=SIGKILL:when=3", "inject=renameat:signal=SIGKILL:when=2"] {
        let killed = crate::common::trace::killed_at(c, false, point, &words).wait();
        assert_ne!(killed.code, 0, "{killed}");
        c.delete_force().ok();
        c.assert_clean();
    }
});

user_test!(a_helper_that_says_nothing_leaves_no_gap, |c| {
    skip_unless!(c, c.user.is_some(), "not root");
    c.set(
        "/linux/uidMappings",
        json!([
            { "containerID": 0, "hostID": uid(c), "size": 1 }, { "containerID": 1, "hostID": 100_000, "size": 10 }
        ]),
    );
    c.write_config();
    let (bundle, helper) = (c.bundle(), c.path("run").join("newuidmap"));
    for (script, says) in [
        ("exit 3", "newuidmap: exit status: 3: does "),
        ("echo no >&2; exit 3", "newuidmap: no (exit status: 3): does "),
    ] {
        std::fs::write(&helper, format!("#!/bin/sh\n{script}\n")).unwrap();
        host::chmod(&helper, 0o755);
        let mut command = c.command(&["run", "--bundle", bundle.to_str().unwrap(), &c.id]);
        command.env("PATH", c.path("run"));
        program::finish(&mut command, &c.dir).fails(&[&format!("config.json: /linux/uidMappings: {says}")]);
        c.assert_clean();
    }
});
