//! /dev: the image's may be a link, and hold anything.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, mknod};
use serde_json::json;

use crate::common::config::mount;
use crate::common::{Container, rival};
use crate::{container_test, skip_for_runc};

/// The image's own /dev is the container's.
fn own_dev(c: &mut Container) {
    c.config["mounts"].as_array_mut().unwrap().retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
}

/// `create` with a terminal, of a payload that says "in".
fn with_terminal(c: &mut Container) -> String {
    let socket = c.path("console");
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    c.set("/process/terminal", true);
    c.args(&["echo", "in"]);
    let output = c.create_with(&["--console-socket", socket.to_str().unwrap()]);
    drop(listener);
    c.delete_force();
    output.stderr
}

// The terminal is bound onto /dev/console, and comes from /dev/pts/ptmx: both may be links, or something else.
container_test!(cve_2025_52565_the_console_of_the_image_is_no_way_out, |c| {
    own_dev(c);
    c.push("/mounts", mount("devpts", "devpts", "/dev/pts", &["newinstance", "ptmxmode=0666"]));
    let victim = c.path("victim");
    fs::write(&victim, "precious").unwrap();
    fs::write(c.rootfs().join("inside"), "precious").unwrap();
    let console = c.rootfs().join("dev/console");
    for target in
        [victim.to_str().unwrap(), "../../../../../../../../../../etc/passwd", "/inside", "/missing", "/proc/version"]
    {
        symlink(target, &console).unwrap();
        let error = with_terminal(c);
        assert!(error.contains("ELOOP") || rival().is_some(), "{error}");
        assert!(!victim.with_file_name("missing").exists() && !c.rootfs().join("missing").exists());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_to_string(c.rootfs().join("inside")).unwrap(), "precious");
        fs::remove_file(&console).unwrap();
    }
});

container_test!(cve_2025_52565_a_terminal_is_of_a_devpts, |c| {
    skip_for_runc!(c, "1.1 opens what is there");
    own_dev(c);
    let pts = c.rootfs().join("dev/pts");
    fs::create_dir(&pts).unwrap();
    let ptmx = pts.join("ptmx");
    let victim = c.path("victim");
    fs::write(&victim, "precious").unwrap();
    let plant: [&dyn Fn(); 5] = [
        &|| fs::write(&ptmx, "").unwrap(),
        &|| symlink("/dev/tty", &ptmx).unwrap(),
        &|| symlink(&victim, &ptmx).unwrap(),
        &|| nix::unistd::mkfifo(&ptmx, Mode::all()).unwrap(),
        // The host's own multiplexer: a terminal of the host's.
        &|| mknod(&ptmx, SFlag::S_IFCHR, Mode::all(), libc::makedev(5, 2)).unwrap(),
    ];
    for plant in plant {
        plant();
        let error = with_terminal(c);
        assert!(error.contains("devpts"), "{error}");
        fs::remove_file(&ptmx).unwrap();
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
});

// And CVE-2026-47766: nodes and links are made through it.
container_test!(cve_2026_41579_a_dev_that_is_a_link_leads_nowhere, |c| {
    let outside = c.path("outside");
    fs::create_dir(&outside).unwrap();
    let dev = c.rootfs().join("dev");
    let mounts = c.config["mounts"].clone();
    fs::remove_dir_all(&dev).unwrap();
    for own in [false, true] {
        c.set("/mounts", mounts.clone());
        if own {
            own_dev(c);
        }
        for target in [outside.to_str().unwrap().to_owned(), format!("../../../../../../../..{}", outside.display())] {
            symlink(&target, &dev).unwrap();
            let _ = c.run();
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was made outside: {target}");
            c.assert_clean();
            fs::remove_file(&dev).unwrap();
        }
    }
});

// What is there already under the name of a device is that device, or an error.
container_test!(a_device_of_the_image_is_what_it_is_called, |c| {
    skip_for_runc!(c, "1.1 takes what is there");
    own_dev(c);
    let null = c.rootfs().join("dev/null");
    let plant: [&dyn Fn(&Path); 3] =
        [&|at| fs::write(at, "").unwrap(), &|at| symlink("/dev/zero", at).unwrap(), &|at| {
            mknod(at, SFlag::S_IFBLK, Mode::all(), libc::makedev(7, 0)).unwrap()
        }];
    for plant in plant {
        let _ = fs::remove_file(&null);
        plant(&null);
        c.run().fails(&["/dev/null", "something else"]);
        c.assert_clean();
    }
    fs::remove_file(&null).unwrap();
    c.run().ok();
    assert!(fs::metadata(&null).unwrap().file_type().is_char_device());
});

// The list holds for whatever is executed later as well.
container_test!(devices_that_are_not_allowed_can_be_made_but_not_opened, |c| {
    let caps = json!(["CAP_MKNOD"]);
    c.set("/process/capabilities", json!({ "bounding": caps, "effective": caps, "permitted": caps }));
    c.set("/linux/resources/devices", json!([{ "allow": false, "access": "rwm" }]));
    let words = ["open-dev", "b", "7", "0", "rw"];
    assert_eq!(c.prints(&words), "open: EPERM\n");
    super::sleep(c);
    let mut all = vec!["exec", &c.id, "/guest"];
    all.extend(words);
    assert_eq!(c.tare(&all).ok().stdout, "open: EPERM\n");
    assert!(rival().is_none() || rival() == Some("runc"));
});

// Root without CAP_MKNOD gets the host's nodes, and as root it could give them another mode.
container_test!(a_bound_node_of_the_host_keeps_its_mode, |c| {
    let mode = || fs::metadata("/dev/null").unwrap().permissions().mode();
    let before = mode();
    // The mode that it has, so that nothing comes of it if it is permitted.
    c.args(&["chmod", "/dev/null", &format!("{:o}", before & 0o7777)]);
    c.write_config();
    let prefix = ["setpriv", "--bounding-set=-mknod", "--"];
    let output = crate::common::program::finish(&mut c.command_by(&prefix, &["run", &c.id]), &c.dir).exits(1);
    assert!(rival().is_some() || output.stdout.contains("EROFS"), "{output}");
    assert_eq!(mode(), before);
});
