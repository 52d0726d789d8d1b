//! Where tare is stricter or more lenient than its peers on purpose: the rows of docs/compatibility.md that no other file
//! tests.

use serde_json::{Value, json};

use crate::common::config;
use crate::common::host;
use crate::{container_test, skip_for_runc};

container_test!(what_the_peers_take_is_an_error, |c| {
    skip_for_runc!(c, "it takes most of it");
    let device = json!({ "type": "c", "path": "/dev/mine", "major": 1, "minor": 3, "uid": 4_294_967_295_u32 });
    let bind = json!({ "type": "bind", "source": "", "destination": "/tmp", "options": ["bind"] });
    let rows: &[(&str, Value, &str)] = &[
        ("/ociVersion", json!("1"), "/ociVersion: \"1\" isn't a semantic version"),
        ("/ociVersion", json!("1.x"), "/ociVersion: \"1.x\" isn't a semantic version"),
        ("/ociVersion", json!("v1.0.0"), "/ociVersion: \"v1.0.0\" isn't a semantic version"),
        ("/ociVersion", json!(""), "/ociVersion: \"\" is empty"),
        ("/process/user/umask", json!(0o1777), "/process/user/umask: 1023 (0o1777), expected at most 511 (0o777)"),
        ("/process/args", json!(["/guest", null]), "/process/args/1: invalid type: null"),
        ("/linux/maskedPaths", json!(["proc/kcore"]), "/linux/maskedPaths/0: \"proc/kcore\" is relative"),
        ("/linux/maskedPaths", json!([""]), "/linux/maskedPaths/0: is empty, expected an absolute path"),
        ("/linux/readonlyPaths", json!(["sys"]), "/linux/readonlyPaths/0: \"sys\" is relative"),
        ("/linux/readonlyPaths", json!([""]), "/linux/readonlyPaths/0: is empty, expected an absolute path"),
        (
            "/linux/resources/devices",
            json!([{ "allow": true, "access": "rwx" }]),
            "/linux/resources/devices/0/access: \"rwx\", expected letters of \"rwm\"",
        ),
        ("/linux/devices", json!([device]), "/linux/devices/0/uid: 4294967295 isn't an id"),
        ("/mounts", json!([bind]), "/mounts/0/source: is empty"),
        ("/hooks/poststop", json!([{ "path": "/bin/true", "timeout": 0 }]), "/hooks/poststop/0/timeout: 0, expected"),
    ];
    for (pointer, value, expected) in rows {
        let good = c.config.clone();
        config::set(&mut c.config, pointer, value.clone());
        c.create().fails(&[expected]);
        c.assert_clean();
        c.config = good;
    }
    c.remove("/ociVersion").create().fails(&["/ociVersion"]);
});

container_test!(a_read_only_root_needs_a_mount_namespace, |c| {
    skip_for_runc!(c, "it drops this");
    c.set("/linux/namespaces", json!([{ "type": "pid" }])).set("/mounts", json!([]));
    c.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([])).set("/root/readonly", true);
    c.create().fails(&["/root/readonly", "mount namespace"]);
});

container_test!(what_the_peers_refuse_starts, |c| {
    skip_for_runc!(c, "it refuses this");
    std::fs::write(c.rootfs().join("file"), "").unwrap();
    for (pointer, value) in [
        // There is nothing to hide, and nothing can appear there.
        ("/linux/maskedPaths", json!(["/file/below"])),
        ("/linux/timeOffsets", json!({})),
        // The runtime needs more, but takes it before the limit is set.
        ("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 5, "hard": 5 }])),
    ] {
        let good = c.config.clone();
        c.set(pointer, value).args(&["exit", "4"]);
        c.run().exits(4);
        c.config = good;
    }
});

container_test!(of_contradictory_seccomp_rules_the_first_counts, |c| {
    let error = json!({ "names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5 });
    let kill = json!({ "names": ["getppid"], "action": "SCMP_ACT_KILL_PROCESS" });
    let profile = |rules: [&Value; 2]| json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules });
    // Facts ask for the parent, and a killed process prints none.
    c.set("/linux/seccomp", profile([&error, &kill]));
    c.args(&["facts"]).run().ok();
    c.set("/linux/seccomp", profile([&kill, &error]));
    let code = c.args(&["facts"]).run().code;
    assert_eq!(code, 128 + 31, "SIGSYS is expected");
});

container_test!(a_device_keeps_the_set_id_bits_of_its_mode, |c| {
    skip_for_runc!(c, "it drops them");
    let device = json!({ "type": "c", "path": "/dev/mine", "major": 1, "minor": 3, "fileMode": 0o6640 });
    c.set("/linux/devices", json!([device]));
    assert_eq!(c.prints(&["stat", "/dev/mine"]), "/dev/mine c 6640 0 0 0 1 3\n");
});

container_test!(a_hook_leads_a_process_group_of_its_own, |c| {
    skip_for_runc!(c, "its hooks stay in its own group");
    let out = c.path("group");
    let script = format!("read _ _ _ _ group _ </proc/$$/stat; echo $$ $group >{}", out.display());
    c.set("/hooks/prestart", json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]));
    c.args(&["true"]).run().ok();
    let text = std::fs::read_to_string(&out).unwrap();
    let (pid, group) = text.trim().split_once(' ').unwrap();
    assert_eq!(pid, group);
    assert!(host::process_state(pid.parse().unwrap()).is_none(), "the hook is still there");
});
