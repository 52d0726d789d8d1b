//! Whose state is trusted: nobody else's, whatever he puts where the runtime looks for it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::program::finish;
use crate::common::{Container, Output, assert_has, eventually, guest, host, tare};
use crate::container_test;

/// Somebody who has no rights over what the tests make.
const STRANGER: u32 = 799_999_999;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn give_to(path: &Path, uid: u32) {
    chown(path, Some(uid), Some(uid)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        fs::read_dir(path).unwrap().flatten().for_each(|entry| give_to(&entry.path(), uid));
    }
}

/// A command with another root.
fn at(c: &Container, root: &Path, words: &[&str]) -> Output {
    let mut command = std::process::Command::new(tare());
    command.arg("--root").arg(root).args(words).current_dir(c.bundle());
    finish(&mut command, &c.dir)
}

/// A stopped container below `root`, whose poststop hook leaves a mark, made by whoever could write there.
fn plant(c: &mut Container, root: &Path) -> PathBuf {
    let mark = c.path("mark");
    let open = json!(["hook", "write", mark, "x"]);
    c.set("/hooks/poststop", json!([{ "path": guest(), "args": open }]));
    c.write_config();
    // Made where it is the caller's own, and moved.
    let own = c.path("own");
    let id = c.id.clone();
    at(c, &own, &["run", "--detach", &id]).ok();
    eventually("it ends", || at(c, &own, &["state", &id]).ok().json()["status"] == "stopped");
    fs::create_dir_all(root).unwrap();
    fs::rename(own.join(&id), root.join(&id)).unwrap();
    mark
}

/// Each command that an existing container is given to.
fn commands(id: &str) -> [Vec<&str>; 6] {
    [
        vec!["state", id],
        vec!["kill", id, "KILL"],
        vec!["pause", id],
        vec!["exec", id, "/guest", "true"],
        vec!["delete", id],
        vec!["delete", "--force", id],
    ]
}

#[track_caller]
fn assert_refused(c: &Container, root: &Path, mark: &Path, why: &str) {
    for words in commands(&c.id) {
        let output = at(c, root, &words);
        assert_ne!(output.code, 0, "{why}: {output}");
        assert_has(&output.stderr, "not to be trusted");
    }
    let listed = at(c, root, &["list", "--quiet"]);
    assert!(!listed.stdout.contains(&c.id), "{why}: {listed}");
    assert!(!mark.exists(), "{why}: a planted hook has run");
    assert!(root.join(&c.id).exists(), "{why}: it was removed");
}

container_test!(a_planted_container_is_refused, |c| {
    let root = c.path("planted");
    let mark = plant(c, &root);
    let entry = root.join(&c.id);
    give_to(&entry, STRANGER);
    // Everybody may put something there, and nobody exchange what is another's.
    set_mode(&root, 0o1777);
    assert_refused(c, &root, &mark, "an entry of somebody else's");
    give_to(&entry, 0);
    for mode in [0o733, 0o777, 0o1777] {
        set_mode(&entry, mode);
        assert_refused(c, &root, &mark, &format!("an entry of mode {mode:o}"));
    }
    set_mode(&entry, 0o711);
    for mode in [0o777, 0o703] {
        set_mode(&root, mode);
        assert_refused(c, &root, &mark, &format!("a root of mode {mode:o}"));
    }
    set_mode(&root, 0o1777);
    let id = c.id.clone();
    at(c, &root, &["delete", &id]).ok();
    assert!(mark.exists());
});

container_test!(a_root_below_a_directory_that_anybody_may_change_is_refused, |c| {
    let open = c.path("open");
    let root = open.join("state");
    let mark = plant(c, &root);
    set_mode(&open, 0o777);
    assert_refused(c, &root, &mark, "a parent of mode 777");
    let id = c.id.clone();
    at(c, &root, &["run", &id]).exits(1).has("not to be trusted");
    // A directory on the way that somebody else has made in one of everybody's, and a link of his.
    set_mode(&open, 0o1777);
    let (theirs, link) = (open.join("theirs"), open.join("link"));
    fs::create_dir(&theirs).unwrap();
    fs::rename(&root, theirs.join("state")).unwrap();
    chown(&theirs, Some(STRANGER), Some(STRANGER)).unwrap();
    assert_refused(c, &theirs.join("state"), &mark, "a parent of somebody else's in a directory of everybody's");
    symlink(theirs.join("state"), &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(STRANGER), Some(STRANGER)).unwrap();
    let output = at(c, &link, &["delete", "--force", &id]);
    assert!(output.code != 0 && !mark.exists() && theirs.join("state").join(&id).exists(), "{output}");
    chown(&theirs, Some(0), Some(0)).unwrap();
    at(c, &theirs.join("state"), &["delete", &id]).ok();
});

// The directory that a user's environment names is the default root's.
container_test!(a_default_root_of_somebody_else_is_refused, |c| {
    let place = c.path("place");
    let mark = plant(c, &place.join("tare"));
    give_to(&place, STRANGER);
    let id = c.id.clone();
    for words in [vec!["state", &id], vec!["delete", &id], vec!["delete", "--force", &id]] {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", "799999998", "--regid", "799999998", "--clear-groups"]);
        command.arg(tare()).args(&words).current_dir(c.bundle());
        let output = finish(command.env_clear().env("XDG_RUNTIME_DIR", &place), &c.dir);
        assert_ne!(output.code, 0, "{output}");
        assert_has(&output.stderr, "not to be trusted");
    }
    assert!(!mark.exists());
    give_to(&place, 0);
    at(c, &place.join("tare"), &["delete", &id]).ok();
});

container_test!(root_acts_on_a_users_state_as_that_user, |c| {
    let root = c.path("theirs");
    let mark = plant(c, &root);
    host::remove_cgroup(&format!("{}/{}", c.cgroup, c.id));
    give_to(&root, STRANGER);
    // Its hook runs, and can write only where its owner can.
    let place = c.path("place");
    fs::create_dir(&place).unwrap();
    give_to(&place, STRANGER);
    let config = root.join(&c.id).join("config.json");
    let mut text: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    let hook = |path: &Path| json!({ "path": guest(), "args": ["hook", "write", path, "x"] });
    text["hooks"]["poststop"] = json!([hook(&mark), hook(&place.join("mark"))]);
    fs::write(&config, text.to_string()).unwrap();
    let id = c.id.clone();
    assert_has(at(c, &root, &["list", "--quiet"]).ok().stdout, &id);
    // A process that is root's, whatever the state says.
    let victim = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = i32::try_from(victim.id()).unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let start: u64 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse().unwrap();
    let state = root.join(&id).join("state.json");
    let before = fs::read(&state).unwrap();
    let mut record: Value = serde_json::from_slice(&before).unwrap();
    record["init"] = json!({ "pid": pid, "start_time": start });
    fs::write(&state, record.to_string()).unwrap();
    for words in [vec!["kill", &id, "KILL"], vec!["delete", "--force", &id]] {
        assert_ne!(at(c, &root, &words).code, 0);
        assert_eq!(host::process_state(pid), Some('S'), "{words:?} has killed a process of root's");
    }
    host::kill(pid);
    let _ = { victim }.wait();
    fs::write(&state, before).unwrap();
    at(c, &root, &["run", &id]).exits(1).has("not to be trusted");
    at(c, &root, &["delete", &id]).ok();
    assert!(!mark.exists() && place.join("mark").exists(), "the hook has run as root");
    assert!(!root.join(&id).exists());
});

/// A command of root's at a user's root, with variables and a session of root's own.
fn script(c: &mut Container, root: &Path, text: &str) {
    let config = root.join(&c.id).join("config.json");
    let mut config_json: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    config_json["hooks"]["poststop"] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", text] }]);
    fs::write(&config, config_json.to_string()).unwrap();
}

container_test!(a_users_hook_gets_nothing_of_roots, |c| {
    let root = c.path("theirs");
    plant(c, &root);
    let place = c.path("place");
    fs::create_dir(&place).unwrap();
    let out = place.join("out");
    let text = "tr '\\0' '\\n' </proc/$$/environ; echo session $(cut -d' ' -f6 /proc/$$/stat) $$; echo in $(pwd)";
    script(c, &root, &format!("({text}) >{} 2>&1", out.display()));
    give_to(&root, STRANGER);
    give_to(&place, STRANGER);
    host::remove_cgroup(&format!("{}/{}", c.cgroup, c.id));
    let traced = c.path("traced");
    let mut command = std::process::Command::new("strace");
    command.args(["-qq", "-f", "-e", "trace=keyctl,setresuid", "-o"]).arg(&traced).arg(tare());
    command.arg("--root").arg(&root).args(["delete", &c.id]).current_dir(c.bundle()).env("SECRET", "x");
    if !crate::common::trace::available(c) {
        return;
    }
    finish(&mut command, &c.dir).ok();
    let said = fs::read_to_string(&out).unwrap();
    let variables: Vec<&str> = said.lines().filter(|line| line.contains('=')).collect();
    assert!(matches!(variables.as_slice(), [path] if path.starts_with("PATH=")), "{said}");
    let session = said.lines().find_map(|line| line.strip_prefix("session ")).unwrap();
    let (session, own) = session.split_once(' ').unwrap();
    assert_eq!(session, own, "it is in root's session: {said}");
    assert_has(&said, "in /\n");
    let calls = fs::read_to_string(&traced).unwrap();
    let joined = calls.find("KEYCTL_JOIN_SESSION_KEYRING, NULL").unwrap_or(usize::MAX);
    assert!(joined < calls.find("setresuid").unwrap(), "it has root's keys: {calls}");
});

container_test!(a_users_directory_leads_to_nothing_of_roots, |c| {
    let (theirs, ours) = (c.path("theirs"), c.path("ours"));
    let mark = plant(c, &ours.join("run"));
    fs::create_dir(&theirs).unwrap();
    give_to(&theirs, STRANGER);
    let id = c.id.clone();
    let link = |name: &str, to: &Path, owner: u32| {
        symlink(to, theirs.join(name)).unwrap();
        std::os::unix::fs::lchown(theirs.join(name), Some(owner), Some(owner)).unwrap();
        theirs.join(name)
    };
    let links = [
        link("run", &ours.join("run"), STRANGER),
        link("up", &ours, STRANGER).join("run"),
        // Root's link, in a place where the user may put another one.
        link("roots", &ours.join("run"), 0),
    ];
    for root in links {
        for words in commands(&id) {
            let output = at(c, &root, &words);
            assert_ne!(output.code, 0, "{root:?}: {output}");
            assert_has(&output.stderr, "not to be trusted");
        }
        assert!(!mark.exists() && ours.join("run").join(&id).exists(), "{root:?}");
    }
    at(c, &ours.join("run"), &["delete", &id]).ok();
});

/// Runs a command that must end by itself, and soon.
#[track_caller]
fn soon(c: &Container, root: &Path, words: &[&str]) -> Output {
    let mut command = std::process::Command::new("timeout");
    command.args(["-s", "KILL", "20"]).arg(tare()).arg("--root").arg(root).args(words).current_dir(c.bundle());
    let output = finish(&mut command, &c.dir);
    assert!(output.code != 137 && output.code != 124, "{words:?} hangs: {output}");
    output
}

container_test!(what_a_user_plants_hangs_nobody, |c| {
    let root = c.path("theirs");
    plant(c, &root);
    host::remove_cgroup(&format!("{}/{}", c.cgroup, c.id));
    let id = c.id.clone();
    let state = root.join(&id).join("state.json");
    let before = fs::read(&state).unwrap();
    let fifo = |path: &Path| {
        let _ = fs::remove_file(path);
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    };
    fifo(&state);
    give_to(&root, STRANGER);
    assert_has(soon(c, &root, &["list"]).ok().stderr, "is broken");
    assert_ne!(soon(c, &root, &["state", &id]).code, 0);
    // Larger than anybody has memory for, and sparse.
    fs::remove_file(&state).unwrap();
    fs::File::create(&state).unwrap().set_len(3 << 30).unwrap();
    give_to(&root, STRANGER);
    assert_has(soon(c, &root, &["list"]).ok().stderr, "EFBIG");
    // Recorded as a cgroup, with a process that lives.
    let cgroup = c.path("cgroup");
    fs::create_dir(&cgroup).unwrap();
    for file in ["freezer.state", "cgroup.freeze", "cgroup.procs", "cgroup.events", "freezer.self_freezing"] {
        fifo(&cgroup.join(file));
    }
    give_to(&cgroup, STRANGER);
    let mut record: Value = serde_json::from_slice(&before).unwrap();
    let victim = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = i32::try_from(victim.id()).unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let start: u64 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse().unwrap();
    record["init"] = json!({ "pid": pid, "start_time": start });
    record["cgroup"]["v1"] = json!([["freezer", cgroup]]);
    record["cgroup"]["v2"] = Value::Null;
    fs::write(&state, record.to_string()).unwrap();
    assert_has(soon(c, &root, &["list"]).stderr, "no cgroup");
    assert_ne!(soon(c, &root, &["state", &id]).code, 0);
    for words in [["pause", &id].as_slice(), &["kill", &id, "KILL"], &["delete", "--force", &id]] {
        soon(c, &root, words);
    }
    host::kill(pid);
    let _ = { victim }.wait();
});
