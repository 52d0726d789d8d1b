//! What the container's mounts change for the host: nothing. The host is a stand-in, a mount namespace whose mounts are
//! shared among themselves and with nobody else.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::common::config::mount;
use crate::common::program::finish;
use crate::common::{Container, Output, mountinfo, rival};
use crate::{container_test, skip_for_runc};

/// A mount namespace of its own, private to this machine, then shared with what is made from it.
const STAND_IN: [&str; 6] = ["unshare", "-m", "--propagation", "private", "sh", "-ec"];

/// Runs `run` of the container below a script, which says "$@" where it is to run.
fn run_in(c: &Container, script: &str) -> Output {
    c.write_config();
    let prefix: Vec<&str> = STAND_IN.into_iter().chain([script, "sh"]).collect();
    finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir)
}

const VALUES: [&str; 9] =
    ["", "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"];

// systemd makes the host's mounts shared: what isn't cut off from them is the host's.
container_test!(propagation_of_every_kind_leaves_the_hosts_mounts, |c| {
    // It failed in the guest once, for a reason that isn't known yet.
    if std::env::var_os("TARE_GUEST_VM").is_some() {
        return crate::common::skip(&c.name, "not understood in the guest yet");
    }
    skip_for_runc!(c, "it leaves mounts on the host, and unmounts the host's own");
    let dir = c.dir.clone();
    c.set("/linux/maskedPaths", json!(["/proc/version"])).set("/linux/readonlyPaths", json!([]));
    fs::create_dir_all(dir.join("volume")).unwrap();
    c.push("/mounts", mount("bind", dir.join("volume").to_str().unwrap(), "/volume", &["rbind", "rshared"]));
    c.args(&["ls", "/proc/self/ns"]);
    // A root on the file system of /tmp, one that is a mount point, one below a mount point, and links to that.
    let rootfs = c.rootfs();
    let mut places = vec![("plain", rootfs.clone())];
    for name in ["own", "outer"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    symlink(dir.join("outer/nested"), dir.join("link")).unwrap();
    symlink(dir.join("outer"), dir.join("above")).unwrap();
    places.push(("mount point", dir.join("own")));
    places.push(("below one", dir.join("outer/nested")));
    places.push(("a link", dir.join("link")));
    places.push(("below a link", dir.join("above/nested")));
    // That flag is of the one superblock of cgroup2, which other tests on this machine mount anew.
    let mut script = format!(
        "cd {0}; mount --make-rshared /; mount --bind bundle/rootfs own; mount -t tmpfs tmpfs outer; mkdir outer/nested; \
         mount --bind bundle/rootfs outer/nested; umount outer/nested; cp -a bundle/rootfs/. outer/nested\n\
         look() {{ sed s/,memory_recursiveprot// /proc/self/mountinfo; }}\n\
         try() {{ look > before; shift 0; status=0; {1} --root state run --bundle bundle \
         --config $1 $2 c$$ > out 2>&1 < /dev/null || status=$?; look > after; \
         cmp -s before after || {{ echo \"MOUNTS $3\"; diff before after || true; exit 1; }}; \
         test $status = $4 || {{ echo \"STATUS $status $3\"; cat out; exit 1; }}; }}\n",
        dir.display(),
        c.launcher().display()
    );
    for (place, path) in &places {
        for value in VALUES {
            let name = format!("{}-{value}.json", place.replace(' ', "-"));
            c.set("/root/path", path.to_str().unwrap()).set("/linux/rootfsPropagation", value);
            if value.is_empty() {
                c.remove("/linux/rootfsPropagation");
            }
            fs::write(dir.join(&name), serde_json::to_vec(&c.config).unwrap()).unwrap();
            writeln!(script, "try {name} '' '{value}, {place}' 0").unwrap();
            let status = i32::from(value.ends_with("private"));
            writeln!(script, "try {name} --no-pivot '{value} without pivot, {place}' {status}").unwrap();
        }
    }
    let output = run_in(c, &script);
    assert!(output.code == 0 && output.stdout.is_empty(), "{output}");
});

container_test!(a_private_root_without_pivot_is_refused, |c| {
    for value in ["private", "rprivate"] {
        c.set("/linux/rootfsPropagation", value);
        c.run_with(&["--no-pivot"]).fails(&["not safe without pivot_root"]);
        c.assert_clean();
    }
});

// What is shared on purpose still is: a mount that the container's side makes in a volume comes to the host.
container_test!(a_shared_volume_propagates_with_and_without_pivot, |c| {
    skip_for_runc!(c, "without pivot it unmounts the host's proc");
    let volume = c.path("volume");
    fs::create_dir(&volume).unwrap();
    c.push("/mounts", mount("bind", volume.to_str().unwrap(), "/volume", &["rbind", "rshared"]));
    let hook = format!("mount -t tmpfs tmpfs {}/volume/x", c.rootfs().display());
    c.set("/hooks/createContainer", json!([{ "path": "/bin/sh", "args": ["sh", "-c", hook] }]));
    c.set("/linux/rootfsPropagation", "rshared");
    for flag in ["", "--no-pivot"] {
        let script = format!(
            "mount -t tmpfs tmpfs {0}; mkdir {0}/x; mount --make-rshared /; {1} --root {2} run {flag} {3}; grep -q ' {0}/x ' /proc/self/mountinfo",
            volume.display(),
            c.launcher().display(),
            c.path("state").display(),
            c.id
        );
        let output = run_in(c, &script);
        assert_eq!(output.code, 0, "{flag:?}: {output}");
    }
});

/// cgroup v2 alone, its mount marked with a flag that only a bind takes over.
const V2: &str = "umount -l /sys/fs/cgroup; mount -t cgroup2 -o memory_recursiveprot none /sys/fs/cgroup; \
                  mount -o remount,bind,nodiratime /sys/fs/cgroup; mount | grep -q ' /sys/fs/cgroup .*memory_rec' || exit 77;";

/// What cgroup2 is mounted in a container whose cgroup namespace is the caller's.
fn shares_cgroup2(c: &Container) {
    // Others on this host mount cgroup2, too, and take the flag away: one try of these will be alone.
    for _ in 0..20 {
        let check = "\"$@\"; grep -q ' /sys/fs/cgroup .*memory_recursiveprot' /proc/self/mountinfo || exit 78";
        let output = run_in(c, &format!("{V2} {check}"));
        if [77, 78].contains(&output.code) {
            continue;
        }
        let facts = output.ok().json();
        let mount = mountinfo::at(&facts, "/sys/fs/cgroup");
        assert!(mount.fstype == "cgroup2" && mount.has("nodiratime") && mount.has("ro"), "{mount:?}");
        assert!(mount.propagation.is_empty(), "{mount:?}");
        return;
    }
    panic!("the host's cgroup2 loses its flags");
}

// Its flags are those of the superblock, and a new mount that isn't made in a cgroup namespace sets them anew (runc#5258).
container_test!(the_hosts_cgroup2_keeps_its_flags, |c| {
    skip_for_runc!(c, "it mounts cgroup2 anew");
    c.args(&["facts"]);
    let standard = c.config["mounts"].clone();
    for kind in ["cgroup", "cgroup2"] {
        c.set("/mounts", standard.clone());
        c.push("/mounts", mount(kind, "cgroup", "/sys/fs/cgroup", &["ro", "nosuid"]));
        shares_cgroup2(c);
    }
    // A joined one that is the caller's is none of its own.
    c.push("/linux/namespaces", json!({ "type": "cgroup", "path": "/proc/self/ns/cgroup" }));
    shares_cgroup2(c);
});

container_test!(options_of_cgroup2_are_never_dropped, |c| {
    skip_for_runc!(c, "1.1 mounts cgroup2 anew");
    let at = c.config["mounts"].as_array().unwrap().len();
    let options = format!("/mounts/{at}/options");
    c.push("/mounts", mount("cgroup", "cgroup", "/sys/fs/cgroup", &["ro", "nsdelegate"]));
    run_in(c, &format!("{V2} \"$@\"")).fails(&[&options, "nsdelegate", "cgroup namespace"]);
    c.assert_clean();
    c.push("/linux/namespaces", json!({ "type": "cgroup" }));
    run_in(c, &format!("{V2} \"$@\"")).ok();
    c.set(&options, json!(["ro", "nonsense"]));
    run_in(c, &format!("{V2} \"$@\"")).fails(&[&format!("/mounts/{at}"), "nonsense"]);
    c.assert_clean();
});

// A network namespace of a stand-in has one sysfs for all who are in it.
container_test!(a_remount_changes_the_container_alone, |c| {
    skip_for_runc!(c, "it remounts the superblock");
    let namespaces = c.config["linux"]["namespaces"].as_array().unwrap().clone();
    let others: Vec<_> = namespaces.into_iter().filter(|namespace| namespace["type"] != "network").collect();
    c.set("/linux/namespaces", json!(others));
    c.set("/mounts/5/options", json!(["nosuid"]));
    c.push("/mounts", mount("sysfs", "sysfs", "/sys", &["remount", "ro", "nosuid"]));
    c.args(&["facts"]);
    c.write_config();
    let script = "mount --make-rprivate /; mkdir own-sys; mount -t sysfs sysfs own-sys; \"$@\"; \
                  grep -q 'own-sys .* - sysfs sysfs rw' /proc/self/mountinfo || { echo read-only >&2; exit 9; }";
    let output =
        finish(&mut c.command_by(&["unshare", "-m", "-n", "sh", "-ec", script, "sh"], &["run", &c.id]), &c.dir);
    assert!(mountinfo::at(&output.ok().json(), "/sys").has("ro"));
});

// Links of the image and of a volume lead a remount to that volume: its file system is the host's.
container_test!(a_remount_that_links_lead_to_a_volume_changes_the_mount_alone, |c| {
    let host = c.path("host");
    fs::create_dir(&host).unwrap();
    fs::create_dir_all(c.rootfs().join("x/a")).unwrap();
    symlink("/x/a", c.rootfs().join("a")).unwrap();
    c.push("/mounts", mount("tmpfs", "tmpfs", "/a", &[]));
    c.push("/mounts", mount("bind", host.join("volume").to_str().unwrap(), "/x", &["rbind"]));
    c.push("/mounts", json!({}));
    let at = host.display();
    let script = format!(
        "mount -t tmpfs none {at}; mkdir {at}/volume; ln -s /x {at}/volume/a; \"$@\" || test $? = 1; touch {at}/written"
    );
    for option in ["ro", "size=4k"] {
        c.set("/mounts/8", mount("tmpfs", "tmpfs", "/a", &["remount", option]));
        let output = run_in(c, &script).ok();
        if option != "ro" && rival().is_none() {
            assert!(output.stderr.contains("/mounts/8/options"), "{output}");
        }
        c.assert_clean();
    }
    // Its own is remounted as it was asked for.
    for at in 6..9 {
        c.set(&format!("/mounts/{at}"), mount("tmpfs", "tmpfs", "/tmp", if at > 6 { &["remount", "ro"] } else { &[] }));
    }
    let mount = mountinfo::at(&c.facts(), "/tmp");
    assert!(mount.has("ro") && mount.super_has("ro"), "{mount:?}");
});

// Where the root alone is cut off from the host, what is mounted on a volume becomes shared as that is.
container_test!(a_mount_that_is_to_be_private_is_on_a_shared_volume, |c| {
    let host = c.path("host");
    fs::create_dir(&host).unwrap();
    let at = host.display();
    let script = format!("mount -t tmpfs none {at}; mount --make-shared {at}; mkdir -p {at}/volume/sub; \"$@\"");
    c.push("/mounts", mount("bind", host.join("volume").to_str().unwrap(), "/volume", &["rbind"]));
    c.push("/mounts", mount("tmpfs", "tmpfs", "/volume/sub", &["private"]));
    c.args(&["facts"]);
    for propagation in ["private", "slave", "unbindable"] {
        c.set("/linux/rootfsPropagation", propagation);
        let seen = mountinfo::at(&run_in(c, &script).ok().json(), "/volume/sub");
        assert!(!seen.propagates("shared"), "{propagation}: {seen:?}");
    }
});

// The table of mounts writes blanks and backslashes in octal.
container_test!(without_pivot_odd_names_are_what_they_are, |c| {
    skip_for_runc!(c, "it unmounts the container's proc");
    let folder = c.path("a b\\c");
    fs::create_dir_all(folder.join("proc")).unwrap();
    fs::rename(c.rootfs(), folder.join("rootfs")).unwrap();
    symlink(folder.join("rootfs"), c.rootfs()).unwrap();
    c.set("/root/path", folder.join("rootfs").to_str().unwrap());
    c.args(&["ls", "/proc/self/ns"]).write_config();
    let script = "mount -t proc proc \"$0/proc\"; exec \"$@\"";
    let prefix: Vec<&str> = STAND_IN.into_iter().chain([script, folder.to_str().unwrap()]).collect();
    let output = finish(&mut c.command_by(&prefix, &["run", "--no-pivot", &c.id]), &c.dir).ok();
    assert!(output.stdout.contains("mnt"), "{output}");
});

// What is the caller's own isn't the container's to change.
container_test!(a_joined_namespace_that_is_the_callers_is_not_renamed, |c| {
    let namespaces = c.config["linux"]["namespaces"].clone();
    let without = |kind: &str| -> Vec<serde_json::Value> {
        namespaces.as_array().unwrap().iter().filter(|namespace| namespace["type"] != kind).cloned().collect()
    };
    c.set("/linux/namespaces", json!(without("uts")));
    c.push("/linux/namespaces", json!({ "type": "uts", "path": "/proc/self/ns/uts" }));
    // In a uts namespace that takes the harm, should there be any.
    let script = "hostname stand-in; exec \"$@\"";
    let in_uts = |c: &Container| {
        c.write_config();
        finish(&mut c.command_by(&["unshare", "-u", "sh", "-ec", script, "sh"], &["run", &c.id]), &c.dir)
    };
    in_uts(c).ok();
    for name in ["hostname", "domainname"] {
        if rival() == Some("runc") && name == "domainname" {
            continue;
        }
        let pointer = format!("/{name}");
        c.set(&pointer, "renamed");
        let output = in_uts(c).exits(1);
        if rival().is_none() {
            assert!(output.stderr.contains(&pointer) && output.stderr.contains("host uts namespace"), "{output}");
        }
        c.assert_clean();
        c.remove(&pointer);
    }
});

container_test!(the_callers_mount_namespace_is_not_pivoted, |c| {
    skip_for_runc!(c, "it changes the root of whoever is in there");
    let all = c.config["linux"]["namespaces"].as_array().unwrap().clone();
    let others: Vec<_> = all.into_iter().filter(|namespace| namespace["type"] != "mount").collect();
    c.set("/linux/namespaces", json!(others));
    let index = c.config["linux"]["namespaces"].as_array().unwrap().len();
    let inside = "mount --make-rprivate /; \"$@\"; exit $?";
    c.push("/linux/namespaces", json!({ "type": "mount", "path": "/proc/self/ns/mnt" }));
    run_in(c, inside).fails(&[&format!("/linux/namespaces/{index}/path"), "mount namespace"]);
    c.assert_clean();
});
