//! The bundle that `spec` makes, with busybox as its root file system.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use crate::common::{Container, assert_has, program, skip};
use crate::container_test;

/// Makes the bundle as a user would, or says why not.
fn bundle(c: &mut Container) -> bool {
    let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists()) else {
        skip(&c.name, "busybox isn't installed");
        return false;
    };
    let bin = c.rootfs().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy(busybox, bin.join("busybox")).unwrap();
    for name in ["sh", "true", "false", "id", "sleep", "cat", "ls", "hostname", "ps"] {
        symlink("busybox", bin.join(name)).unwrap();
    }
    fs::remove_file(c.rootfs().join("guest")).unwrap();
    let folder = c.bundle();
    c.tare(&["spec", "--bundle", folder.to_str().unwrap()]).ok();
    let cgroup = c.config["linux"]["cgroupsPath"].clone();
    c.config = serde_json::from_slice(&fs::read(c.bundle().join("config.json")).unwrap()).unwrap();
    assert_eq!(c.config["process"]["args"], json!(["sh"]));
    c.set("/linux/cgroupsPath", cgroup).set("/process/terminal", false);
    c.push("/process/env", json!(format!("TARE_TEST={}", c.dir.display())));
    true
}

fn shell(c: &mut Container, script: &str) {
    c.set("/process/args", json!(["sh", "-c", script]));
}

container_test!(exit_codes_of_sh, |c| {
    if !bundle(c) {
        return;
    }
    for (script, code) in
        [("true", 0), ("exit 7", 7), ("false", 1), ("no-such-command", 127), ("kill -9 $$ & wait; exit 3", 3)]
    {
        shell(c, script);
        c.run().exits(code);
        c.assert_clean();
    }
});

container_test!(what_sh_sees, |c| {
    if !bundle(c) {
        return;
    }
    shell(c, "id -u; echo $$; echo $HOME; hostname; ls /; cat /proc/1/comm; echo x > /file");
    let output = c.run().exits(1);
    assert_eq!(
        output.stdout,
        format!("0\n1\n/\n{}\nbin\ndev\nproc\nsys\ntmp\nsh\n", c.config["hostname"].as_str().unwrap())
    );
    assert_has(output.stderr, "Read-only file system");
});

container_test!(pipelines_end, |c| {
    if !bundle(c) {
        return;
    }
    // SIGPIPE must be at its default, or this goes on for ever.
    shell(c, "while :; do echo y; done | { read line; echo $line; }");
    assert_eq!(c.run().ok().stdout, "y\n");
});

container_test!(in_the_foreground_detached_and_by_hand, |c| {
    if !bundle(c) {
        return;
    }
    shell(c, "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done");
    c.write_config();
    let mut running = program::start(&mut c.command(&["run", &c.id]), &c.dir);
    running.wait_for("ready");
    c.kill(&["TERM"]).ok();
    running.wait().exits(5);

    c.detach().ok();
    assert_eq!(c.status(), "running");
    c.delete_force().ok();

    c.create().ok();
    assert_eq!(c.status(), "created");
    c.start().ok();
    assert_eq!(c.status(), "running");
    c.kill(&["KILL"]).ok();
    c.wait_status("stopped");
    c.delete().ok();
    c.assert_clean();
});

container_test!(the_bundle_is_never_overwritten, |c| {
    if !bundle(c) {
        return;
    }
    fs::write(c.bundle().join("config.json"), "precious").unwrap();
    c.tare(&["spec"]).exits(1);
    assert_eq!(fs::read_to_string(c.bundle().join("config.json")).unwrap(), "precious");
});
