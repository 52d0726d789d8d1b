//! /proc, where the runtime writes what confines the process, and what covers its files.

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::stat::{Mode, SFlag, mknod};
use serde_json::json;

use crate::common::config::mount;
use crate::common::program::{finish, start};
use crate::common::{Container, assert_has, guest, rival};
use crate::{container_test, skip_for_runc};

#[track_caller]
fn refused(c: &Container, part: &str) {
    let output = c.run().exits(1);
    if rival().is_none() {
        assert_has(&output.stderr, part);
    }
    c.assert_clean();
}

/// The mounts but that of /proc.
fn without_proc(c: &mut Container) {
    c.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
}

// A volume or a tmpfs in the place of /proc would take the AppArmor or SELinux label.
container_test!(cve_2019_16884_nothing_but_proc_is_mounted_on_proc, |c| {
    fs::create_dir_all(c.path("fake/self/attr")).unwrap();
    let fake = c.path("fake");
    let fake = fake.to_str().unwrap();
    let all = c.config["mounts"].clone();
    for other in [mount("bind", fake, "/proc", &["bind"]), mount("tmpfs", "tmpfs", "/proc", &[])] {
        c.set("/mounts", all.clone());
        c.push("/mounts", other.clone());
        refused(c, "only");
        without_proc(c);
        c.push("/mounts", other);
        refused(c, "only");
    }
    // The host's own is a proc.
    without_proc(c);
    c.push("/mounts", mount("bind", "/proc", "/proc", &["rbind"]));
    c.run().ok();
});

// The same by a link of the image, which a path in config.json doesn't show.
container_test!(cve_2019_16884_no_link_leads_a_mount_onto_proc, |c| {
    let dir = c.path("fake");
    fs::create_dir_all(dir.join("attr")).unwrap();
    let file = c.path("file");
    fs::write(&file, "fake").unwrap();
    symlink("/proc/sys", c.rootfs().join("volume")).unwrap();
    symlink("../../proc/sys/kernel/../kernel/core_pattern", c.rootfs().join("file")).unwrap();
    symlink("proc", c.rootfs().join("parent")).unwrap();
    let all = c.config["mounts"].clone();
    let (dir, file) = (dir.to_str().unwrap(), file.to_str().unwrap());
    for made in [
        mount("bind", dir, "/volume", &["bind"]),
        mount("tmpfs", "tmpfs", "/volume", &[]),
        mount("tmpfs", "tmpfs", "/parent/sys", &[]),
        mount("bind", file, "/file", &["bind"]),
        mount("bind", file, "/parent/version", &["bind"]),
        mount("bind", file, "/volume/kernel/hostname", &["bind"]),
    ] {
        c.set("/mounts", all.clone());
        c.push("/mounts", made);
        refused(c, "onto proc");
    }
});

// A link that leads nowhere is followed by making what it leads to: by then it may lead elsewhere.
container_test!(cve_2019_16884_no_link_that_changes_leads_a_mount_onto_proc, |c| {
    skip_for_runc!(c, "it refuses any such link, or none");
    let volume = c.path("volume");
    fs::create_dir(&volume).unwrap();
    symlink("/proc/sys/kernel", volume.join("proc")).unwrap();
    symlink("/gone", volume.join("gone")).unwrap();
    c.push("/mounts", mount("bind", volume.to_str().unwrap(), "/volume", &["bind"]));
    c.push("/mounts", mount("tmpfs", "tmpfs", "/volume/gone", &[]));
    c.args(&["cat", "/proc/self/mountinfo"]);
    let flips = super::Flips::start(&volume.join("gone"), &volume.join("proc"));
    let mut mounted = 0;
    for _ in 0..150 {
        let output = c.run();
        assert!(!output.stdout.contains(" /proc/sys/kernel "), "{output}");
        mounted += u32::from(output.code == 0);
        let _ = fs::remove_dir(c.rootfs().join("gone"));
    }
    drop(flips);
    assert!(mounted > 0, "no container got so far");
});

// And of CVE-2023-27561, CVE-2023-28642, CVE-2025-62161: proc mounted elsewhere leaves the masks on nothing.
container_test!(cve_2019_19921_proc_and_sys_are_ordinary_directories, |c| {
    for name in ["proc", "sys"] {
        let path = c.rootfs().join(name);
        for target in ["/elsewhere", "elsewhere", "/tmp/../elsewhere", "/proc", "/missing"] {
            fs::create_dir_all(c.rootfs().join("elsewhere")).unwrap();
            fs::remove_dir(&path).unwrap();
            symlink(target, &path).unwrap();
            // runc's words, which engines look for.
            refused(
                c,
                &format!(
                    "filesystem \"{}\" must be mounted on ordinary directory",
                    if name == "proc" { "proc" } else { "sysfs" }
                ),
            );
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
        }
    }
});

// A volume that two containers share holds the directory, and is changed between the look and the mount.
container_test!(cve_2019_19921_proc_in_a_volume_that_changes, |c| {
    let volume = c.path("volume");
    fs::create_dir_all(volume.join("proc")).unwrap();
    fs::create_dir_all(c.rootfs().join("elsewhere")).unwrap();
    symlink("/elsewhere", volume.join("link")).unwrap();
    without_proc(c);
    c.push("/mounts", mount("bind", volume.to_str().unwrap(), "/volume", &["bind"]));
    c.push("/mounts", mount("proc", "proc", "/volume/proc", &[]));
    c.args(&["cat", "/volume/proc/self/mountinfo"]);
    let flips = super::Flips::start(&volume.join("proc"), &volume.join("link"));
    for _ in 0..60 {
        let output = c.run();
        assert!(!output.stdout.contains(" /elsewhere "), "{output}");
    }
    drop(flips);
});

// A masked file is covered with a null device; the image's may be anything.
container_test!(cve_2025_31133_masks_are_the_null_device, |c| {
    let dev = c.path("dev");
    fs::create_dir_all(dev.join("pts")).unwrap();
    fs::create_dir_all(dev.join("shm")).unwrap();
    fs::create_dir_all(dev.join("mqueue")).unwrap();
    fs::write(c.rootfs().join("secret"), "secret").unwrap();
    fs::write(c.rootfs().join("decoy"), "decoy").unwrap();
    let mut mounts = vec![mount("bind", dev.to_str().unwrap(), "/dev", &["rbind"])];
    mounts.extend(c.config["mounts"].as_array().unwrap().iter().filter(|m| m["destination"] != "/dev").cloned());
    c.set("/mounts", mounts);
    c.set("/linux/maskedPaths", json!(["/secret", "/proc/version"]));
    c.args(&["all", "cat", "/secret", ",", "cat", "/proc/version"]);
    let null = dev.join("null");
    let plant: [&dyn Fn(); 4] = [
        &|| symlink("/decoy", &null).unwrap(),
        &|| symlink("/proc/sys/kernel/core_pattern", &null).unwrap(),
        &|| fs::write(&null, "decoy").unwrap(),
        &|| mknod(&null, SFlag::S_IFCHR, Mode::all(), libc::makedev(1, 5)).unwrap(),
    ];
    for plant in plant {
        plant();
        assert_eq!(c.run().ok().stdout, "");
        c.assert_clean();
        // Without the mount API the container's own null device is the only one at hand.
        let probe = guest().to_str().unwrap();
        c.write_config();
        let output = finish(
            &mut c.command_by(
                &[probe, "with", "enosys=open_tree,move_mount,fsopen,mount_setattr", "--"],
                &["run", &c.id],
            ),
            &c.dir,
        );
        assert!(output.stdout.is_empty(), "{output}");
        fs::remove_file(&null).unwrap();
    }
});

// Root in the container owns what masks a file there as far as that may be written to: not the host's null device.
container_test!(masks_do_not_give_the_hosts_null_device_away, |c| {
    skip_for_runc!(c, "its masks are the node of the container, wherever that comes from");
    c.set("/linux/maskedPaths", json!(["/proc/version"]));
    c.args(&["chmod", "/proc/version", "0666"]);
    let changed = || {
        use std::os::unix::fs::MetadataExt;
        let null = fs::metadata("/dev/null").unwrap();
        (null.ctime(), null.ctime_nsec())
    };
    let before = changed();
    c.run().ok();
    assert_eq!(changed(), before, "with a tmpfs of its own on /dev");
    // The image's, or the host's own /dev.
    let dev = c.path("dev");
    for directory in ["pts", "shm", "mqueue"] {
        fs::create_dir_all(dev.join(directory)).unwrap();
    }
    let mut mounts = vec![mount("bind", dev.to_str().unwrap(), "/dev", &["rbind"])];
    mounts.extend(c.config["mounts"].as_array().unwrap().iter().filter(|m| m["destination"] != "/dev").cloned());
    c.set("/mounts", mounts);
    let output = c.run();
    assert!(output.stdout.contains("EROFS"), "{output}");
    assert_eq!(changed(), before, "with a directory of the host's on /dev");
});

// A mount namespace that is joined may have anything at /proc: a sysctl goes to the kernel or nowhere.
container_test!(cve_2025_52881_sysctls_reach_the_kernel_only, |c| {
    skip_for_runc!(c, "it writes to whatever is there");
    let fake = c.path("fake");
    fs::create_dir_all(fake.join("sys/net/ipv4")).unwrap();
    let trap = fake.join("sys/net/ipv4/ip_unprivileged_port_start");
    fs::write(&trap, "trapped\n").unwrap();
    let script =
        format!("mount -t proc proc /proc && mount --rbind {} /proc && echo ready && exec sleep 1000", fake.display());
    let mut other = start(std::process::Command::new("unshare").args(["-m", "sh", "-c", &script]), &c.dir);
    other.wait_for("ready");
    let path = format!("/proc/{}/ns/mnt", other.pid());
    c.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "mount");
    c.push("/linux/namespaces", json!({ "type": "mount", "path": path }));
    c.set("/linux/sysctl", json!({ "net.ipv4.ip_unprivileged_port_start": "81" }));
    let output = c.run();
    assert_eq!(fs::read_to_string(&trap).unwrap(), "trapped\n", "{output}");
    other.signal(nix::sys::signal::Signal::SIGKILL);
    drop(other.wait());
});

// Something covers the file in the runtime's own mount namespace, as in an outer container.
container_test!(cve_2025_52881_what_covers_a_sysctl_does_not_take_it, |c| {
    skip_for_runc!(c, "it writes to whatever is there");
    let trap = c.path("trap");
    fs::write(&trap, "trapped\n").unwrap();
    c.set("/linux/sysctl", json!({ "net.ipv4.ip_unprivileged_port_start": "81" }));
    c.args(&["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]);
    c.write_config();
    let script =
        format!("mount --bind {} /proc/sys/net/ipv4/ip_unprivileged_port_start && exec \"$@\"", trap.display());
    let output = finish(&mut c.command_by(&["unshare", "-m", "sh", "-c", &script, "sh"], &["run", &c.id]), &c.dir);
    assert_eq!(output.ok().stdout, "81\n");
    assert_eq!(fs::read_to_string(&trap).unwrap(), "trapped\n");
});
