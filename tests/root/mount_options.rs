//! Options of mounts that other runtimes hand to mount(2): long ones, joined ones, and what a bind mount's flags start from.

use std::fmt::Write as _;
use std::fs;

use serde_json::json;

use super::userns::map;
use crate::common::config::mount;
use crate::common::program::{Output, finish};
use crate::common::{Container, assert_has, guest, mountinfo, rival};
use crate::{container_test, skip_unless};

/// Runs the container in a mount namespace that a script has prepared: the host's own has no mounts of the tests.
fn run_after(c: &Container, script: &str) -> Output {
    c.write_config();
    let script = format!("{script} exec \"$@\"");
    let prefix = ["unshare", "-m", "--propagation", "private", "sh", "-ec", &script, "sh"];
    finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir)
}

/// Runs the container without some system calls.
fn run_without(c: &Container, names: &str) -> Output {
    c.write_config();
    let option = format!("enosys={names}");
    finish(&mut c.command_by(&[guest().to_str().unwrap(), "with", &option, "--"], &["run", &c.id]), &c.dir)
}

/// The flags of the sources of the tables below, in the order of their columns.
const SOURCES: [&str; 4] = ["rw", "ro,nosuid,nodev,noexec,noatime,nodiratime", "noexec,nosymfollow", "strictatime"];

/// What bind mounts with these words have of each source: measured with runc 1.3.6.
const TABLE: [(&str, [&str; 4]); 25] = [
    ("", ["rw,relatime", "ro,nosuid,nodev,noexec,noatime,nodiratime", "rw,noexec,relatime,nosymfollow", "rw"]),
    ("rprivate", ["rw,relatime", "ro,nosuid,nodev,noexec,noatime,nodiratime", "rw,noexec,relatime,nosymfollow", "rw"]),
    ("sync", ["rw,relatime", "rw,noatime,nodiratime", "rw,relatime", "rw"]),
    ("async", ["rw,relatime", "rw,noatime,nodiratime", "rw,relatime", "rw"]),
    ("ro", ["ro,relatime", "ro,noatime,nodiratime", "ro,relatime", "ro"]),
    ("rw", ["rw,relatime", "rw,noatime,nodiratime", "rw,relatime", "rw"]),
    ("nosuid", ["rw,nosuid,relatime", "rw,nosuid,noatime,nodiratime", "rw,nosuid,relatime", "rw,nosuid"]),
    ("suid", ["rw,relatime", "rw,noatime,nodiratime", "rw,relatime", "rw"]),
    ("nodev", ["rw,nodev,relatime", "rw,nodev,noatime,nodiratime", "rw,nodev,relatime", "rw,nodev"]),
    ("dev", ["rw,relatime", "rw,noatime,nodiratime", "rw,relatime", "rw"]),
    ("noexec", ["rw,noexec,relatime", "rw,noexec,noatime,nodiratime", "rw,noexec,relatime", "rw,noexec"]),
    ("exec", ["rw,relatime", "rw,noatime,nodiratime", "rw,relatime", "rw"]),
    ("noatime", ["rw,noatime", "rw,noatime", "rw,noatime", "rw,noatime"]),
    ("atime", ["rw,relatime", "rw,noatime,nodiratime", "rw,relatime", "rw"]),
    ("relatime", ["rw,relatime", "rw,relatime", "rw,relatime", "rw,relatime"]),
    ("norelatime", ["rw,relatime", "rw,noatime,nodiratime", "rw,relatime", "rw"]),
    ("strictatime", ["rw", "rw", "rw", "rw"]),
    ("nostrictatime", ["rw,relatime", "rw,noatime,nodiratime", "rw,relatime", "rw"]),
    (
        "nodiratime",
        ["rw,nodiratime,relatime", "rw,nodiratime,relatime", "rw,nodiratime,relatime", "rw,nodiratime,relatime"],
    ),
    ("diratime", ["rw,relatime", "rw,noatime,nodiratime", "rw,relatime", "rw"]),
    (
        "nosymfollow",
        ["rw,relatime,nosymfollow", "rw,noatime,nodiratime,nosymfollow", "rw,relatime,nosymfollow", "rw,nosymfollow"],
    ),
    ("symfollow", ["rw,relatime", "rw,noatime,nodiratime", "rw,relatime", "rw"]),
    (
        "nosuid,nodev",
        [
            "rw,nosuid,nodev,relatime",
            "rw,nosuid,nodev,noatime,nodiratime",
            "rw,nosuid,nodev,relatime",
            "rw,nosuid,nodev",
        ],
    ),
    ("ro,noatime", ["ro,noatime", "ro,noatime", "ro,noatime", "ro,noatime"]),
    ("noatime,atime", ["rw,relatime", "rw,noatime,nodiratime", "rw,relatime", "rw"]),
];

/// In a user namespace the flags of the source are kept, and a word that would clear one is an error (`-`). This is runc,
/// but for nosymfollow, which it loses.
const IN_A_USER_NAMESPACE: [(&str, [&str; 4]); 25] = [
    ("", ["rw,relatime", "ro,nosuid,nodev,noexec,noatime,nodiratime", "rw,noexec,relatime,nosymfollow", "rw"]),
    ("rprivate", ["rw,relatime", "ro,nosuid,nodev,noexec,noatime,nodiratime", "rw,noexec,relatime,nosymfollow", "rw"]),
    ("sync", ["rw,relatime", "ro,nosuid,nodev,noexec,noatime,nodiratime", "rw,noexec,relatime,nosymfollow", "rw"]),
    ("async", ["rw,relatime", "ro,nosuid,nodev,noexec,noatime,nodiratime", "rw,noexec,relatime,nosymfollow", "rw"]),
    ("ro", ["ro,relatime", "ro,nosuid,nodev,noexec,noatime,nodiratime", "ro,noexec,relatime,nosymfollow", "ro"]),
    ("rw", ["rw,relatime", "-", "rw,noexec,relatime,nosymfollow", "rw"]),
    (
        "nosuid",
        [
            "rw,nosuid,relatime",
            "ro,nosuid,nodev,noexec,noatime,nodiratime",
            "rw,nosuid,noexec,relatime,nosymfollow",
            "rw,nosuid",
        ],
    ),
    ("suid", ["rw,relatime", "-", "rw,noexec,relatime,nosymfollow", "rw"]),
    (
        "nodev",
        [
            "rw,nodev,relatime",
            "ro,nosuid,nodev,noexec,noatime,nodiratime",
            "rw,nodev,noexec,relatime,nosymfollow",
            "rw,nodev",
        ],
    ),
    ("dev", ["rw,relatime", "-", "rw,noexec,relatime,nosymfollow", "rw"]),
    (
        "noexec",
        [
            "rw,noexec,relatime",
            "ro,nosuid,nodev,noexec,noatime,nodiratime",
            "rw,noexec,relatime,nosymfollow",
            "rw,noexec",
        ],
    ),
    ("exec", ["rw,relatime", "-", "-", "rw"]),
    ("noatime", ["-", "ro,nosuid,nodev,noexec,noatime,nodiratime", "-", "-"]),
    ("atime", ["rw,relatime", "ro,nosuid,nodev,noexec,noatime,nodiratime", "rw,noexec,relatime,nosymfollow", "rw"]),
    ("relatime", ["rw,relatime", "-", "rw,noexec,relatime,nosymfollow", "-"]),
    (
        "norelatime",
        ["rw,relatime", "ro,nosuid,nodev,noexec,noatime,nodiratime", "rw,noexec,relatime,nosymfollow", "rw"],
    ),
    ("strictatime", ["-", "-", "-", "rw"]),
    (
        "nostrictatime",
        ["rw,relatime", "ro,nosuid,nodev,noexec,noatime,nodiratime", "rw,noexec,relatime,nosymfollow", "rw"],
    ),
    ("nodiratime", ["-", "ro,nosuid,nodev,noexec,noatime,nodiratime", "-", "-"]),
    ("diratime", ["rw,relatime", "-", "rw,noexec,relatime,nosymfollow", "rw"]),
    (
        "nosymfollow",
        [
            "rw,relatime,nosymfollow",
            "ro,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow",
            "rw,noexec,relatime,nosymfollow",
            "rw,nosymfollow",
        ],
    ),
    ("symfollow", ["rw,relatime", "ro,nosuid,nodev,noexec,noatime,nodiratime", "rw,noexec,relatime", "rw"]),
    (
        "nosuid,nodev",
        [
            "rw,nosuid,nodev,relatime",
            "ro,nosuid,nodev,noexec,noatime,nodiratime",
            "rw,nosuid,nodev,noexec,relatime,nosymfollow",
            "rw,nosuid,nodev",
        ],
    ),
    ("ro,noatime", ["-", "ro,nosuid,nodev,noexec,noatime,nodiratime", "-", "-"]),
    (
        "noatime,atime",
        ["rw,relatime", "ro,nosuid,nodev,noexec,noatime,nodiratime", "rw,noexec,relatime,nosymfollow", "rw"],
    ),
];

/// Mounts the sources, and binds them with the words of each row whose cell passes.
fn sources(c: &Container) -> String {
    SOURCES.iter().enumerate().fold(String::new(), |mut script, (column, flags)| {
        let source = c.path(&format!("s{column}"));
        fs::create_dir_all(&source).unwrap();
        let _ = write!(script, "mount -t tmpfs -o {flags} none {};", source.display());
        script
    })
}

fn bind(c: &Container, column: usize, words: &str, destination: &str) -> serde_json::Value {
    let options: Vec<&str> = ["bind"].into_iter().chain(words.split(',').filter(|word| !word.is_empty())).collect();
    mount("bind", c.path(&format!("s{column}")).to_str().unwrap(), destination, &options)
}

fn has_the_flags_of(c: &mut Container, table: &[(&str, [&str; 4])]) {
    let script = sources(c);
    let before = c.config.clone();
    let cells = || {
        let rows = table.iter().enumerate();
        rows.flat_map(|(row, (words, cells))| cells.iter().enumerate().map(move |(at, cell)| (row, *words, at, *cell)))
    };
    for (row, words, column, _) in cells().filter(|(.., cell)| *cell != "-") {
        c.push("/mounts", bind(c, column, words, &format!("/tmp/{row}-{column}")));
    }
    c.args(&["facts"]);
    let facts = run_after(c, &script).ok().json();
    for (row, words, column, cell) in cells().filter(|(.., cell)| *cell != "-") {
        let mount = mountinfo::at(&facts, &format!("/tmp/{row}-{column}"));
        assert_eq!(mount.options.join(","), cell, "{words:?} of a source with {}", SOURCES[column]);
    }
    for (_, words, column, _) in cells().filter(|(.., cell)| *cell == "-") {
        c.config.clone_from(&before);
        c.push("/mounts", bind(c, column, words, "/tmp/x"));
        run_after(c, &script).fails(&["/tmp/x", "EPERM"]);
        c.assert_clean();
    }
}

container_test!(a_bind_mount_starts_without_flags_if_any_is_asked_for, |c| {
    has_the_flags_of(c, &TABLE);
});

container_test!(in_a_user_namespace_a_bind_mount_keeps_the_flags_of_its_source, |c| {
    map(c);
    has_the_flags_of(c, &IN_A_USER_NAMESPACE);
});

// runc and crun hand both to the kernel, where noatime wins over relatime and strictatime over both.
container_test!(of_contradictory_access_times_the_last_counts, |c| {
    skip_unless!(c, rival().is_none(), "as the kernel ranks them");
    for (at, (words, shown)) in [
        (["noatime", "relatime"], "relatime"),
        (["relatime", "noatime"], "noatime"),
        (["strictatime", "noatime"], "noatime"),
        (["noatime", "strictatime"], "rw"),
    ]
    .into_iter()
    .enumerate()
    {
        c.push("/mounts", mount("tmpfs", "tmpfs", &format!("/tmp/{at}"), &words));
        let facts = c.facts();
        let made = mountinfo::at(&facts, &format!("/tmp/{at}"));
        assert!(made.has(shown), "{words:?}: {made:?}");
        assert!(shown != "rw" || !made.has("noatime") && !made.has("relatime"), "{words:?}: {made:?}");
    }
});

const OLD: &str = "fsopen,fsconfig,fsmount,fspick,open_tree,move_mount,mount_setattr,open_tree_attr";

/// Layers whose list is longer than 255 bytes, on a tmpfs of their own in the container's folder.
fn layers(c: &Container, count: usize, length: usize) -> (String, String) {
    let mut list = Vec::new();
    let mut script = format!("mkdir -p {0}/layers; mount -t tmpfs none {0}/layers;", c.dir.display());
    for at in 0..count {
        // One name with what must be escaped.
        let (name, escaped) = if at == 1 { (r"b:c,d\e", r"b\:c\,d\\e") } else { ("plain", "plain") };
        let pad = "x".repeat(length);
        let folder = |name: &str| format!("{}/layers/{name}-{pad}{at}", c.dir.display());
        let _ = write!(script, "mkdir -p '{0}'; echo {at} > '{0}'/file{at};", folder(name));
        list.push(folder(escaped));
    }
    (list.join(":"), script)
}

fn overlay(c: &mut Container, length: usize, count: usize) -> String {
    let (list, mut script) = layers(c, count, length);
    assert!(list.len() > 255);
    let pad = "y".repeat(length);
    let folder = |name: &str| format!("{}/layers/{name}{pad}", c.dir.display());
    let _ = write!(script, "mkdir -p '{}' '{}';", folder("up,per"), folder("work"));
    let options =
        [format!("lowerdir={list}"), format!("upperdir={}", folder(r"up\,per")), format!("workdir={}", folder("work"))];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    c.set("/mounts/6", mount("overlay", "overlay", "/tmp/over", &options));
    let files: Vec<String> = (0..count).map(|at| format!("/tmp/over/file{at}")).collect();
    let mut words = vec!["all", "cat"];
    words.extend(files.iter().map(String::as_str));
    words.extend([",", "write", "/tmp/over/new", "x"]);
    c.args(&words);
    script
}

// fsconfig(2) takes strings of 255 bytes at most.
container_test!(an_overlay_of_a_long_list_of_layers, |c| {
    c.push("/mounts", json!({}));
    let numbers = "0\n1\n2\n3\n4\n";
    let script = overlay(c, 60, 5);
    assert_eq!(run_after(c, &script).ok().stdout, numbers);
    // As mount(2) has it, and with an upper directory that is too long by itself.
    let script = overlay(c, 200, 5);
    assert_eq!(run_after(c, &script).ok().stdout, numbers);
    let script = overlay(c, 60, 5);
    let prefix = format!("{script} exec {} with enosys={OLD} -- \"$@\"; ", guest().display());
    assert_eq!(run_after(c, &prefix).ok().stdout, numbers);
});

container_test!(more_layers_than_mount_2_takes, |c| {
    skip_unless!(c, rival().is_none(), "a page at most");
    c.push("/mounts", json!({}));
    let script = overlay(c, 60, 45);
    let output = run_after(c, &script);
    // `lowerdir+` is of Linux 6.7.
    if output.code != 0 {
        output.fails(&["config.json: /mounts/6", "mount(2) takes 4095 at most"]);
    }
    let prefix = format!("{script} exec {} with enosys={OLD} -- \"$@\"; ", guest().display());
    run_after(c, &prefix).fails(&["config.json: /mounts/6", "mount(2) takes 4095 at most"]);
    c.assert_clean();
});

container_test!(a_long_source, |c| {
    let source = "s".repeat(300);
    c.push("/mounts", mount("tmpfs", &source, "/tmp/a", &["size=64k"]));
    let facts = c.facts();
    let made = mountinfo::at(&facts, "/tmp/a");
    assert_eq!(made.source, source);
    assert!(made.super_has("size=64k"), "{made:?}");
});

container_test!(joined_options_are_split, |c| {
    c.push("/mounts", mount("tmpfs", "tmpfs", "/tmp/a", &["size=64k,mode=700"]));
    c.push("/mounts", mount("tmpfs", "tmpfs", "/tmp/b", &["nosuid", "nr_inodes=9,size=1m", ""]));
    for dir in ["lower", "upper", "work"] {
        fs::create_dir(c.path(dir)).unwrap();
    }
    fs::write(c.path("lower/file"), "lower").unwrap();
    let dir = |name: &str| c.path(name).display().to_string();
    let joined = format!("lowerdir={},upperdir={},workdir={}", dir("lower"), dir("upper"), dir("work"));
    c.push("/mounts", mount("overlay", "overlay", "/tmp/over", &[&joined]));
    let facts = c.facts();
    let (a, b) = (mountinfo::at(&facts, "/tmp/a"), mountinfo::at(&facts, "/tmp/b"));
    assert!(a.super_has("size=64k") && a.super_has("mode=700"), "{a:?}");
    assert!(b.has("nosuid") && b.super_has("nr_inodes=9") && b.super_has("size=1024k"), "{b:?}");
    assert_eq!(c.prints(&["cat", "/tmp/over/file"]), "lower");
});

// A mistyped word in the middle is as much of an error as one alone.
container_test!(a_joined_option_that_a_bind_mount_lacks_is_an_error, |c| {
    skip_unless!(c, rival().is_none(), "dropped");
    c.push("/mounts", mount("bind", "/tmp", "/tmp/a", &["bind", "ro,nosiud"]));
    c.run().fails(&["config.json: /mounts/6/options/1"]);
});

container_test!(a_tmpfs_where_the_image_has_nothing_has_its_own_mode, |c| {
    c.push("/mounts", mount("tmpfs", "tmpfs", "/new", &[]));
    c.push("/mounts", mount("tmpfs", "tmpfs", "/dev/new", &[]));
    c.push("/mounts", mount("tmpfs", "tmpfs", "/deep/new", &["tmpcopyup"]));
    let paths = ["/new", "/dev/new", "/deep/new"];
    let words: Vec<&str> = ["stat"].into_iter().chain(paths).collect();
    let all = |text: &str| paths.iter().all(|path| text.contains(&format!("{path} dir 1777 ")));
    let text = c.prints(&words);
    assert!(all(&text), "{text}");
    for path in ["new", "deep/new"] {
        fs::remove_dir(c.rootfs().join(path)).unwrap();
    }
    c.remove("/mounts/8");
    c.args(&["stat", "/new", "/dev/new"]);
    let text = run_without(c, OLD).ok().stdout;
    assert_has(&text, "/new dir 1777 ");
    assert_has(&text, "/dev/new dir 1777 ");
});

// runc strips it, crun doesn't. The specification: a path inside the container.
container_test!(a_destination_that_begins_with_the_root_on_the_host_is_inside, |c| {
    skip_unless!(c, rival() != Some("runc"), "stripped");
    let inside = format!("{}/a", c.rootfs().display());
    c.push("/mounts", mount("tmpfs", "tmpfs", &inside, &[]));
    assert_eq!(mountinfo::at(&c.facts(), &inside).fstype, "tmpfs");
    assert!(!c.rootfs().join("a").exists());
});

container_test!(a_mount_on_the_root_says_what_to_use, |c| {
    c.push("/mounts", mount("bind", "/tmp", "/", &["bind"]));
    c.run().fails(&["config.json: /mounts/6/destination", "/root/path"]);
    c.assert_clean();
});
