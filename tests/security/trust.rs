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
    record["init"]["pid"] = json!(pid);
    record["init"]["start_time"] = json!(start);
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
