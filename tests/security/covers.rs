//! What is mounted later doesn't uncover what was mounted earlier, nor is anything mounted where it isn't seen: masks,
//! read-only paths and mounts in every order and nesting, also by links of the image.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use crate::common::config::mount;
use crate::common::{Container, mountinfo};
use crate::{container_test, skip_for_runc};

container_test!(a_mask_below_a_read_only_path_stays, |c| {
    c.set("/linux/maskedPaths", json!(["/proc/sys/kernel/core_pattern", "/proc/sys/vm"]));
    c.set("/linux/readonlyPaths", json!(["/proc/sys"]));
    c.args(&["all", "cat", "/proc/sys/kernel/core_pattern", ",", "ls", "/proc/sys/vm"]);
    assert_eq!(c.run().ok().stdout.trim(), "");
});

// The masks were laid on the file systems that the runtime itself had mounted.
container_test!(masks_cover_what_a_hook_has_mounted, |c| {
    skip_for_runc!(c, "1.1 knows its hooks by other means");
    let script = format!("mount -t proc proc {0}/proc && mount --bind {0}/sys {0}/sys", c.rootfs().display());
    c.set("/hooks/createContainer", json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]));
    c.set("/linux/maskedPaths", json!(["/proc/version", "/sys/kernel"]));
    c.set("/linux/readonlyPaths", json!(["/proc/sys"]));
    c.args(&["all", "cat", "/proc/version", ",", "ls", "/sys/kernel"]);
    let all = c.run().ok().stdout;
    assert_eq!(all.trim(), "");
    c.args(&["write", "/proc/sys/kernel/hostname", "x"]);
    assert!(c.run().exits(1).stdout.contains("EROFS"));
});

// A mount that a link leads onto a file system of the runtime's own covers that, and the masks go on top.
container_test!(masks_cover_what_a_link_leads_a_mount_onto, |c| {
    skip_for_runc!(c, "it doesn't know what it has mounted");
    let volume = c.path("volume");
    fs::create_dir_all(volume.join("firmware")).unwrap();
    fs::write(volume.join("firmware/secret"), "secret").unwrap();
    symlink("/sys", c.rootfs().join("link")).unwrap();
    c.push("/mounts", mount("bind", volume.to_str().unwrap(), "/link", &["bind"]));
    c.set("/linux/maskedPaths", json!(["/sys/firmware"]));
    c.args(&["ls", "/sys/firmware"]);
    assert_eq!(c.run().ok().stdout.trim(), "");
});

// The same for a read-only path: it is a copy of what is there, mounts that a link has led there included.
container_test!(a_read_only_path_keeps_what_a_link_led_there, |c| {
    let volume = c.path("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("f"), "mine").unwrap();
    symlink("/sys", c.rootfs().join("link")).unwrap();
    c.push("/mounts", mount("bind", volume.to_str().unwrap(), "/link/kernel/mm", &["bind"]));
    c.set("/linux/readonlyPaths", json!(["/sys/kernel"]));
    c.prints(&["cat", "/sys/kernel/mm/f"]);
});

// A read-only path is a copy over what was known below it, which by then is seen no more.
container_test!(what_is_below_a_read_only_path_is_masked_and_read_only, |c| {
    let volume = c.path("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("f"), "SECRET").unwrap();
    c.push("/mounts", mount("tmpfs", "tmpfs", "/run", &[]));
    c.push("/mounts", mount("tmpfs", "tmpfs", "/run/x", &[]));
    for name in ["masked", "read-only"] {
        c.push("/mounts", mount("bind", volume.to_str().unwrap(), &format!("/run/x/{name}"), &["rbind"]));
    }
    c.push("/mounts", mount("tmpfs", "tmpfs", "/host", &[]));
    c.push("/mounts", mount("proc", "proc", "/host/proc", &[]));
    c.set("/linux/maskedPaths", json!(["/run/x/masked", "/host/proc/version"]));
    c.set("/linux/readonlyPaths", json!(["/run/x", "/run/x/read-only", "/host/proc"]));
    let seen = c.prints(&["all", "ls", "/run/x/masked", ",", "cat", "/host/proc/version"]);
    assert_eq!(seen.trim(), "");
    c.args(&["write", "/run/x/read-only/new", "text"]);
    assert!(c.run().exits(1).stdout.contains("EROFS"));
});

// What a link has led elsewhere may be covered by what comes to be there, whatever its path says.
container_test!(what_a_link_has_led_elsewhere_is_looked_up, |c| {
    let (volume, secrets) = (c.path("volume"), c.path("secrets"));
    for name in ["secrets", "masked", "read-only"] {
        fs::create_dir_all(volume.join("run").join(name)).unwrap();
        fs::write(volume.join("run").join(name).join("f"), "VOLUME").unwrap();
    }
    fs::create_dir(&secrets).unwrap();
    fs::write(secrets.join("f"), "CALLER").unwrap();
    symlink("/data/run", c.rootfs().join("run")).unwrap();
    c.push("/mounts", mount("tmpfs", "tmpfs", "/run", &[]));
    c.push("/mounts", mount("bind", volume.to_str().unwrap(), "/data", &["rbind"]));
    c.push("/mounts", mount("bind", secrets.to_str().unwrap(), "/run/secrets", &["bind"]));
    c.set("/linux/maskedPaths", json!(["/run/masked"])).set("/linux/readonlyPaths", json!(["/run/read-only"]));
    let seen = c.prints(&["all", "cat", "/run/secrets/f", ",", "ls", "/run/masked"]);
    assert_eq!(seen.trim(), "CALLER");
    c.args(&["write", "/run/read-only/f", "text"]);
    assert!(c.run().exits(1).stdout.contains("EROFS"));
});

// A volume may lie on the file system of the root: that a link leads there doesn't make it the root.
container_test!(masks_cover_a_volume_of_the_roots_file_system, |c| {
    let (first, second) = (c.path("first"), c.path("second"));
    for volume in [&first, &second] {
        fs::create_dir_all(volume.join("t/secret")).unwrap();
        fs::write(volume.join("t/secret/f"), "SECRET").unwrap();
    }
    symlink("/run/v", c.rootfs().join("link")).unwrap();
    c.push("/mounts", mount("tmpfs", "tmpfs", "/run", &[]));
    c.push("/mounts", mount("bind", first.to_str().unwrap(), "/run/v", &["rbind"]));
    c.push("/mounts", mount("tmpfs", "tmpfs", "/run/v/t", &[]));
    c.push("/mounts", mount("bind", second.to_str().unwrap(), "/link", &["rbind"]));
    c.set("/linux/maskedPaths", json!(["/run/v/t/secret"]));
    assert_eq!(c.prints(&["ls", "/run/v/t/secret"]).trim(), "");
});

// A recursive bind leaves out what is unbindable.
container_test!(a_read_only_path_keeps_what_is_unbindable, |c| {
    skip_for_runc!(c, "its copy leaves that out");
    let volume = c.path("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("f"), "mine").unwrap();
    fs::create_dir_all(c.rootfs().join("config/volume")).unwrap();
    c.push("/mounts", mount("bind", volume.to_str().unwrap(), "/config/volume", &["bind", "unbindable"]));
    c.set("/linux/readonlyPaths", json!(["/config"]));
    c.prints(&["cat", "/config/volume/f"]);
    let facts = c.facts();
    assert!(mountinfo::at(&facts, "/config/volume").propagates("unbindable"));
});

container_test!(the_root_among_the_read_only_paths_is_read_only, |c| {
    symlink("..", c.rootfs().join("up")).unwrap();
    for path in ["/", "/./", "/up", "/tmp/.."] {
        if crate::common::rival() == Some("runc") && path != "/" {
            continue;
        }
        c.set("/linux/readonlyPaths", json!(["/proc/sys", path]));
        c.args(&["write", "/file", "text"]);
        assert!(c.run().exits(1).stdout.contains("EROFS"), "{path}");
        assert!(mountinfo::at(&c.facts(), "/").has("ro"), "{path}");
        c.prints(&["write", "/dev/shm/file", "text"]);
    }
});

// Whatever is mounted on the root itself is never seen.
container_test!(the_root_is_neither_masked_nor_mounted_over, |c| {
    skip_for_runc!(c, "it mounts what nobody sees");
    symlink("..", c.rootfs().join("up")).unwrap();
    for path in ["/", "/up"] {
        c.set("/linux/maskedPaths", json!([path]));
        c.run().fails(&["/linux/maskedPaths/0", "root"]);
        c.assert_clean();
    }
    c.set("/linux/maskedPaths", json!([]));
    c.push("/mounts", mount("tmpfs", "tmpfs", "/up", &[]));
    c.run().fails(&["\"/up\"", "root itself"]);
    c.assert_clean();
});

container_test!(a_path_that_is_listed_twice_is_mounted_on_once, |c| {
    c.set("/linux/maskedPaths", json!(["/proc/version", "/sys/firmware", "/proc/version", "/sys/firmware/"]));
    c.set("/linux/readonlyPaths", json!(["/proc/sys", "/proc/bus", "/proc/sys"]));
    let facts = c.facts();
    for point in ["/proc/version", "/sys/firmware", "/proc/sys"] {
        let all = mountinfo::all(&facts);
        assert_eq!(all.iter().filter(|mount| mount.point == point).count(), 1, "{point}");
    }
});

/// xorshift: the same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

/// Where a path of the generator is, its links followed.
fn place(path: &str) -> String {
    let path = path.replace("/m", "/b").replace("/lb", "/a/b").replace("/la", "/a").replace("/ls", "/sys");
    path.replace("/lp", "/proc")
}

fn covers(above: &str, path: &str) -> bool {
    Path::new(&place(path)).starts_with(place(above))
}

/// `a/b/c` with files, and links between them.
fn lay_out(dir: &Path, text: &str) {
    for below in ["", "b", "b/c"] {
        fs::create_dir_all(dir.join(below)).unwrap();
        fs::write(dir.join(below).join("f"), text).unwrap();
    }
    let _ = symlink("b", dir.join("m"));
}

const DIRECTORIES: [&str; 11] =
    ["/a", "/a/b", "/a/b/c", "/la", "/la/b", "/lb", "/lb/c", "/a/m/c", "/la/m", "/sys/kernel", "/ls/kernel"];
const READ_ONLY: [&str; 17] = [
    "/a",
    "/a/b",
    "/a/b/c",
    "/la",
    "/la/b",
    "/lb",
    "/a/m/c",
    "/sys/kernel",
    "/ls/kernel",
    "/sys",
    "/ls",
    "/proc/sys",
    "/lp/sys",
    "/proc",
    "/proc/sys/kernel",
    "/",
    "/a/b/f",
];
const MASKED: [&str; 15] = [
    "/a/b",
    "/a/b/c",
    "/la/b",
    "/lb/c",
    "/a/f",
    "/la/b/f",
    "/lb/f",
    "/a/m",
    "/proc/sys/kernel/core_pattern",
    "/lp/sys/kernel/core_pattern",
    "/proc/sys/kernel",
    "/proc/version",
    "/lp/version",
    "/sys/kernel",
    "/ls/kernel",
];

/// Asks the container for everything that holds whatever was mounted in whichever order.
fn check(c: &mut Container, mounts: &[&str], readonly: &[&str], masked: &[&str]) {
    let case = format!("mounts {mounts:?}, read-only {readonly:?}, masked {masked:?}");
    let mut words: Vec<String> = vec!["all".into()];
    let mut expected = Vec::new();
    let mut ask = |name: String, command: &[&str], test: Box<dyn Fn(&str) -> bool>| {
        words.extend(["echo", &format!("#{name}"), ","].map(Into::into));
        words.extend(command.iter().map(|word| (*word).into()));
        words.push(",".into());
        expected.push((name, test));
    };
    let gone = |text: &str| text.contains("ENOENT") || text.contains("ENOTDIR");
    for path in masked {
        let empty = move |text: &str| text.is_empty() || gone(text) || text.contains("EISDIR");
        ask(format!("masked file {path}"), &["cat", path], Box::new(empty));
        let empty = move |text: &str| text.is_empty() || gone(text);
        ask(format!("masked directory {path}"), &["ls", path], Box::new(empty));
    }
    for path in readonly {
        let new = format!("{}/new", path.trim_end_matches('/'));
        ask(format!("read-only {path}"), &["write", &new, "x"], Box::new(|text| text.contains(": E")));
    }
    for (index, path) in mounts.iter().enumerate() {
        let file = format!("{path}/f");
        let hidden = mounts[index + 1..].iter().chain(masked).any(|later| covers(later, path))
            || masked.iter().any(|mask| place(mask) == place(&file));
        if !hidden {
            let text = format!("mount {index}");
            ask(format!("mount {path}"), &["cat", &file], Box::new(move |found| found == text));
        }
    }
    words.push("true".into());
    c.args(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let output = c.run();
    let parts: Vec<(&str, &str)> =
        output.stdout.split('#').skip(1).map(|part| part.split_once('\n').unwrap_or((part, ""))).collect();
    assert_eq!(parts.len(), expected.len(), "{case}: {output}");
    for ((name, found), (asked, test)) in parts.into_iter().zip(&expected) {
        assert_eq!(name, asked, "{case}");
        assert!(test(found.trim()), "{name}: {found:?}; {case}");
    }
}

container_test!(generated_covers_hold_in_every_order, |c| {
    skip_for_runc!(c, "it mounts on what nobody sees");
    lay_out(&c.rootfs().join("a"), "image");
    for (link, target) in [("la", "a"), ("lb", "/a/b"), ("ls", "/sys"), ("lp", "proc")] {
        symlink(target, c.rootfs().join(link)).unwrap();
    }
    let standard = c.config["mounts"].clone();
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    for round in 0..80 {
        let mut pick = |list: &[&'static str], most: usize| -> Vec<&'static str> {
            (0..random.below(most + 1)).map(|_| random.of(list)).collect()
        };
        let (mounts, readonly, masked) = (pick(&DIRECTORIES, 4), pick(&READ_ONLY, 4), pick(&MASKED, 4));
        c.set("/mounts", standard.clone());
        for (index, path) in mounts.iter().enumerate() {
            let source = c.path(&format!("volume-{index}"));
            if round == 0 || !source.exists() {
                lay_out(&source, &format!("mount {index}"));
            }
            let propagation = random.of(&["rprivate", "rslave", "unbindable", "shared"]);
            c.push("/mounts", mount("bind", source.to_str().unwrap(), path, &["rbind", propagation]));
        }
        c.set("/linux/maskedPaths", json!(masked)).set("/linux/readonlyPaths", json!(readonly));
        check(c, &mounts, &readonly, &masked);
    }
});
