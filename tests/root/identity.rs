//! Ids, groups, capabilities and no_new_privs.

use serde_json::json;

use super::process::ids;
use crate::common::{Container, rival};
use crate::{container_test, skip_for_runc};

pub(super) const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

fn mask(names: &[&str]) -> String {
    let bits = names.iter().map(|name| ALL.iter().position(|other| other == name).unwrap());
    format!("{:016x}", bits.fold(0u64, |mask, bit| mask | 1 << bit))
}

fn capabilities(c: &mut Container, sets: [&[&str]; 5]) {
    let [bounding, effective, inheritable, permitted, ambient] = sets;
    c.set(
        "/process/capabilities",
        json!({
            "bounding": bounding, "effective": effective, "inheritable": inheritable,
            "permitted": permitted, "ambient": ambient,
        }),
    );
}

container_test!(user_and_group, |c| {
    c.set("/process/user", json!({ "uid": 1000, "gid": 2000 }));
    let facts = c.facts();
    assert_eq!(ids(&facts, "Uid"), ["1000"; 4]);
    assert_eq!(ids(&facts, "Gid"), ["2000"; 4]);
    assert_eq!(facts["status"]["Groups"], "", "none of the caller's groups");
});

container_test!(additional_groups, |c| {
    c.set("/process/user", json!({ "uid": 1000, "gid": 2000, "additionalGids": [10, 20, 2_000_000_000] }));
    assert_eq!(c.facts()["status"]["Groups"], "10 20 2000000000");
});

container_test!(the_last_id_is_not_root, |c| {
    // -1 means "leave it" to setresuid: crun and youki run the program as root.
    for key in ["uid", "gid"] {
        c.set("/process/user", json!({ "uid": 1, "gid": 1 }));
        c.set(&format!("/process/user/{key}"), u32::MAX);
        c.run().exits(1);
        c.assert_clean();
    }
});

container_test!(the_five_sets_for_root, |c| {
    let (a, b, d) = ("CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT");
    capabilities(c, [&[a, b, d], &[a, b], &[a, b], &[a, b], &[a]]);
    let facts = c.facts();
    let status = &facts["status"];
    assert_eq!(status["CapBnd"], mask(&[a, b, d]));
    assert_eq!(status["CapInh"], mask(&[a, b]));
    assert_eq!(status["CapAmb"], mask(&[a]));
    // no_new_privs: execve(2) gives root nothing that it didn't have.
    assert_eq!(status["CapPrm"], mask(&[a, b]));
    assert_eq!(status["CapEff"], mask(&[a, b]));
    c.set("/process/noNewPrivileges", false);
    let facts = c.facts();
    // Else root gets what is inheritable or in the bounding set.
    assert_eq!(facts["status"]["CapPrm"], mask(&[a, b, d]));
    assert_eq!(facts["status"]["CapEff"], mask(&[a, b, d]));
});

container_test!(the_five_sets_for_a_user, |c| {
    let (a, b, d) = ("CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT");
    c.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    capabilities(c, [&[a, b, d], &[a, b], &[a, b], &[a, b], &[a]]);
    let facts = c.facts();
    let status = &facts["status"];
    assert_eq!(status["CapBnd"], mask(&[a, b, d]));
    assert_eq!(status["CapInh"], mask(&[a, b]));
    // Of a program without file capabilities, only the ambient set survives execve(2).
    assert_eq!(status["CapPrm"], mask(&[a]));
    assert_eq!(status["CapEff"], mask(&[a]));
    assert_eq!(status["CapAmb"], mask(&[a]));
});

// Buildah asks for ambient capabilities without inheritable ones at each step of a build; runc 1.1 says nothing.
container_test!(ambient_capabilities_that_cannot_be_are_not_warned_of, |c| {
    let caps = json!(["CAP_CHOWN"]);
    c.set(
        "/process/capabilities",
        json!({ "bounding": caps, "effective": caps, "permitted": caps, "inheritable": [], "ambient": caps }),
    );
    c.args(&["cat", "/proc/self/status"]);
    let output = c.run().ok();
    assert_eq!(output.stderr, "");
    assert!(output.stdout.contains("CapAmb:\t0000000000000000\n"), "{}", output.stdout);
});

container_test!(a_user_without_ambient_capabilities_has_none, |c| {
    c.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let facts = c.facts();
    assert_eq!(facts["status"]["CapEff"], mask(&[]));
    assert_eq!(facts["status"]["CapPrm"], mask(&[]));
});

container_test!(empty_sets_leave_nothing, |c| {
    capabilities(c, [&[], &[], &[], &[], &[]]);
    let facts = c.facts();
    for set in ["CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(facts["status"][set], mask(&[]), "{set}");
    }
});

container_test!(every_capability_has_a_name, |c| {
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let bounding = own.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap().trim().to_owned();
    let bits = u64::from_str_radix(&bounding, 16).unwrap();
    let names: Vec<&str> =
        ALL.iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0).map(|(_, name)| *name).collect();
    capabilities(c, [&names, &names, &[], &names, &[]]);
    assert_eq!(c.facts()["status"]["CapBnd"], mask(&names));
});

container_test!(an_unknown_capability_is_an_error_with_all_there_are, |c| {
    skip_for_runc!(c, "it warns and goes on");
    for (i, set) in ["bounding", "effective", "inheritable", "permitted", "ambient"].into_iter().enumerate() {
        let mut sets = [[].as_slice(); 5];
        sets[i] = &["CAP_KILL", "CAP_NO_SUCH_THING"];
        capabilities(c, sets);
        let pointer = format!("config.json: /process/capabilities/{set}/1: unknown capability \"CAP_NO_SUCH_THING\", ");
        c.run().fails(&[&pointer, "CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"]);
    }
    c.assert_clean();
});

container_test!(no_new_privileges, |c| {
    assert_eq!(c.facts()["status"]["NoNewPrivs"], "1");
    c.set("/process/noNewPrivileges", false);
    assert_eq!(c.facts()["status"]["NoNewPrivs"], "0");
    c.remove("/process/noNewPrivileges");
    assert_eq!(c.facts()["status"]["NoNewPrivs"], "0");
});

container_test!(null_sets_are_empty, |c| {
    c.set("/process/capabilities", json!({ "bounding": null, "effective": null, "permitted": ["CAP_KILL"] }));
    if rival().is_some() {
        return;
    }
    assert_eq!(c.facts()["status"]["CapBnd"], mask(&[]));
});
