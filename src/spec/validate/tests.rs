use serde_json::{Value, json};

use super::{runnable, sysctl, validate};
use crate::plan::caps;
use crate::spec::load::parse;

/// A valid config with everything the rules below need, changed at the top level or in `process`/`linux`.
fn config(change: &Value) -> Value {
    let mut config = json!({
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["sh"]},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
    });
    for (key, value) in change.as_object().unwrap() {
        match (config.get_mut(key), value) {
            (Some(Value::Object(old)), Value::Object(new)) if key != "root" => old.extend(new.clone()),
            _ => config[key] = value.clone(),
        }
    }
    config
}

fn check(change: Value) -> anyhow::Result<Vec<String>> {
    validate(&parse(config(&change).to_string().as_bytes())?)
}

#[track_caller]
fn refused(change: Value, expected: &str) {
    match check(change.clone()) {
        Ok(_) => panic!("{change} is accepted, expected {expected}"),
        Err(error) => assert_eq!(format!("{error:#}"), format!("config.json: {expected}")),
    }
}

#[track_caller]
fn accepted(change: Value) {
    assert_eq!(check(change).unwrap(), [""; 0]);
}

#[test]
fn versions_of_the_specification() {
    for version in ["1.0.0", "1.0.2-dev", "1.3.0", "1.99.7+build.1", "0.5.0-dev", "1.2.0-rc.1"] {
        accepted(json!({"ociVersion": version}));
    }
    for (version, why) in [
        ("", "is empty"),
        ("1.0", "isn't a semantic version"),
        ("1.0.x", "isn't a semantic version"),
        ("v1.0.0", "isn't a semantic version"),
        ("2.0.0", "is of an unknown major version"),
    ] {
        let expected =
            format!("/ociVersion: {version:?} {why}, expected a version of the specification such as \"1.3.0\"");
        refused(json!({"ociVersion": version}), &expected);
    }
}

#[test]
fn the_root_is_required() {
    refused(json!({"root": null}), "/root: is missing, expected an object with the path of the root filesystem");
    refused(json!({"root": {}}), "/root/path: is empty, expected the path of the root filesystem");
    refused(json!({"root": {"path": "a\0b"}}), "/root/path: \"a\\0b\" has a NUL byte at offset 1, expected none");
    accepted(json!({"root": {"path": "/abs"}}));
}

#[test]
fn a_program_is_needed_only_to_run() {
    for (change, expected) in [
        (json!({"process": null}), "config.json: /process: process property must not be empty"),
        (json!({"process": {"args": []}}), "config.json: /process/args: args must not be empty"),
        (json!({"process": {"args": null}}), "config.json: /process/args: args must not be empty"),
    ] {
        let spec = parse(config(&change).to_string().as_bytes()).unwrap();
        assert!(validate(&spec).is_ok());
        assert_eq!(format!("{:#}", runnable(&spec).unwrap_err()), expected);
    }
    runnable(&parse(config(&json!({})).to_string().as_bytes()).unwrap()).unwrap();
}

#[test]
fn processes() {
    for (process, expected) in [
        (json!({"cwd": ""}), "cwd: is empty, expected an absolute path"),
        (json!({"cwd": "a/b"}), "cwd: \"a/b\" is relative, expected an absolute path"),
        (json!({"args": ["sh", "a\0"]}), "args/1: \"a\\0\" has a NUL byte at offset 1, expected none"),
        (json!({"env": ["A=1", "PATH"]}), "env/1: \"PATH\" has no '=', expected NAME=value"),
        (json!({"env": ["=x"]}), "env/0: \"=x\" has no name, expected NAME=value"),
        (json!({"env": ["A=\0"]}), "env/0: \"A=\\0\" has a NUL byte at offset 2, expected none"),
        (json!({"user": {"uid": u32::MAX}}), "user/uid: 4294967295 isn't an id, expected at most 4294967294"),
        (json!({"user": {"gid": u32::MAX}}), "user/gid: 4294967295 isn't an id, expected at most 4294967294"),
        (
            json!({"user": {"additionalGids": [5, u32::MAX]}}),
            "user/additionalGids/1: 4294967295 isn't an id, expected at most 4294967294",
        ),
        (json!({"user": {"umask": 512}}), "user/umask: 512 (0o1000), expected at most 511 (0o777)"),
        (json!({"oomScoreAdj": -1001}), "oomScoreAdj: -1001, expected -1000 to 1000"),
        (json!({"oomScoreAdj": 1001}), "oomScoreAdj: 1001, expected -1000 to 1000"),
        (
            json!({"rlimits": [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]}),
            "rlimits/0/soft: RLIMIT_CORE: 2 is above the hard limit, expected at most 1",
        ),
        (json!({"ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 8}}), "ioPriority/priority: 8, expected 0 to 7"),
        (json!({"scheduler": {"policy": "SCHED_OTHER", "nice": -21}}), "scheduler/nice: -21, expected -20 to 19"),
        (
            json!({"execCPUAffinity": {"initial": "0", "final": "1-"}}),
            "execCPUAffinity/final: \"1-\", expected a list of CPUs such as \"0-3,7\"",
        ),
        (json!({"apparmorProfile": "p\0"}), "apparmorProfile: \"p\\0\" has a NUL byte at offset 1, expected none"),
        (json!({"selinuxLabel": "a\0"}), "selinuxLabel: \"a\\0\" has a NUL byte at offset 1, expected none"),
        (
            json!({"capabilities": {"effective": ["CAP_KILL"]}}),
            "capabilities/effective/0: \"CAP_KILL\" isn't permitted, expected it in the permitted set too",
        ),
        (
            json!({"capabilities": {"bounding": ["CAP_KILL", "CAP_FLY"]}}),
            &format!(
                "capabilities/bounding/1: unknown capability \"CAP_FLY\", expected one of {}",
                caps::names().join(", ")
            ),
        ),
    ] {
        refused(json!({ "process": process }), &format!("/process/{expected}"));
    }
    accepted(json!({"process": {"env": ["A=", "B=c=d", "A=again"], "user": {"umask": 0o777}, "oomScoreAdj": -1000,
        "apparmorProfile": "", "capabilities": {"effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}}}));
}

#[test]
fn names_need_a_uts_namespace() {
    for key in ["hostname", "domainname"] {
        let expected = format!("/{key}: \"h\" needs a uts namespace, expected one in /linux/namespaces");
        refused(json!({key: "h"}), &expected);
        let uts = json!({"namespaces": [{"type": "uts"}]});
        accepted(json!({key: "h", "linux": uts}));
        accepted(json!({key: "h", "linux": {"namespaces": [{"type": "uts", "path": "/proc/1/ns/uts"}]}}));
        refused(json!({key: "h".repeat(65), "linux": uts}), &format!("/{key}: has 65 bytes, expected at most 64"));
    }
}

#[test]
fn namespaces() {
    for (list, expected) in [
        (
            json!([{"type": "pid"}, {"type": "net"}]),
            "1/type: unknown namespace \"net\", expected cgroup, ipc, mount, \
            network, pid, time, user or uts",
        ),
        (json!([{"type": "netwrok"}]), "0/type: unknown namespace \"netwrok\", did you mean \"network\"?"),
        (json!([{}]), "0/type: unknown namespace \"\", expected cgroup, ipc, mount, network, pid, time, user or uts"),
        (
            json!([{"type": "pid"}, {"type": "pid", "path": "/x"}]),
            "1/type: duplicate of \"pid\", expected one of a type",
        ),
        (
            json!([{"type": "pid", "path": "proc/1/ns/pid"}]),
            "0/path: \"proc/1/ns/pid\" is relative, expected an absolute path",
        ),
    ] {
        refused(json!({"linux": {"namespaces": list}}), &format!("/linux/namespaces/{expected}"));
    }
}

#[test]
fn time_offsets() {
    let new = json!([{"type": "time"}]);
    let offset = json!({"secs": 1, "nanosecs": 999_999_999});
    accepted(json!({"linux": {"namespaces": new, "timeOffsets": {"monotonic": offset, "boottime": {"secs": -5}}}}));
    // Go's types can't tell an empty path from an absent one.
    accepted(json!({"linux": {"namespaces": [{"type": "time", "path": ""}], "timeOffsets": {"monotonic": offset}}}));
    let error = check(json!({"linux": {"namespaces": [{"type": "user", "path": ""}]}})).unwrap_err().to_string();
    assert!(error.contains("/linux/uidMappings: is empty"), "{error}");
    refused(
        json!({"linux": {"timeOffsets": {"monotonic": offset}}}),
        "/linux/timeOffsets: offsets need a time namespace, expected a new one in /linux/namespaces",
    );
    refused(
        json!({"linux": {"namespaces": [{"type": "time", "path": "/x"}], "timeOffsets": {"monotonic": offset}}}),
        "/linux/timeOffsets: offsets can't be set in a joined time namespace, expected a new one in /linux/namespaces",
    );
    refused(
        json!({"linux": {"namespaces": new, "timeOffsets": {"real/time": offset}}}),
        "/linux/timeOffsets/real~1time: unknown clock \"real/time\", expected monotonic or boottime",
    );
    refused(
        json!({"linux": {"namespaces": new, "timeOffsets": {"boottime": {"nanosecs": 1_000_000_000}}}}),
        "/linux/timeOffsets/boottime/nanosecs: 1000000000, expected less than 1000000000",
    );
}

#[test]
fn id_mappings() {
    let map = |c: u32, h: u32, size: u32| json!({"containerID": c, "hostID": h, "size": size});
    let new = json!([{"type": "user"}]);
    let good = json!([map(0, 1000, 1)]);
    accepted(
        json!({"linux": {"namespaces": new, "uidMappings": [map(0, 1000, 10), map(10, 5, 995)], "gidMappings": good}}),
    );
    accepted(json!({"linux": {"namespaces": new, "uidMappings": [map(0, 0, u32::MAX)], "gidMappings": good}}));
    accepted(json!({"linux": {"namespaces": [{"type": "user", "path": "/x"}]}}));
    refused(
        json!({"linux": {"uidMappings": good}}),
        "/linux/uidMappings: mappings need a user namespace, expected one in /linux/namespaces",
    );
    refused(
        json!({"linux": {"namespaces": new, "uidMappings": good}}),
        "/linux/gidMappings: is empty, expected a mapping for the new user namespace, for example \
         [{\"containerID\": 0, \"hostID\": 100000, \"size\": 65536}]",
    );
    let many: Vec<Value> = (0..341).map(|i| map(i, i, 1)).collect();
    for (list, expected) in [
        (json!([map(0, 0, 1), map(1, 1, 0)]), "/1/size: 0, expected at least 1"),
        (
            json!([map(2, 4_294_967_294, 2)]),
            "/0/hostID: 4294967294 with a size of 2 goes beyond the largest id, 4294967294",
        ),
        (
            json!([map(0, 100, 10), map(9, 200, 2)]),
            "/1/containerID: 9 to 10 overlaps /linux/uidMappings/0, expected ranges apart",
        ),
        (
            json!([map(0, 100, 10), map(10, 50, 60)]),
            "/1/hostID: 50 to 109 overlaps /linux/uidMappings/0, expected ranges apart",
        ),
        (json!(many), ": has 341 entries, expected at most 340"),
    ] {
        let change = json!({"linux": {"namespaces": new, "uidMappings": list, "gidMappings": good}});
        refused(change, &format!("/linux/uidMappings{expected}"));
    }
}

#[test]
fn mounts() {
    let bind = |options: Value| json!({"destination": "/a", "type": "bind", "source": "/b", "options": options});
    accepted(json!({"mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev/shm", "type": "tmpfs", "options": ["nosuid", "mode=1777", "size=64m"]},
        {"destination": "/x", "source": "/y", "options": ["rbind", "ro"]},
        bind(json!(["rbind", "rprivate", "rro"])),
        bind(json!(null)),
        {"destination": "/", "options": ["remount", "ro"]},
    ]}));
    const FS_DATA: &str = "is an option of a file system, expected none for a bind mount";
    for (mount, expected) in [
        (json!({"type": "tmpfs"}), "destination: is empty, expected an absolute path".to_owned()),
        (
            json!({"destination": "/a\0", "type": "t"}),
            "destination: \"/a\\0\" has a NUL byte at offset 2, expected none".into(),
        ),
        (
            json!({"destination": "/a", "type": "t", "options": ["\0"]}),
            "options/0: \"\\0\" has a NUL byte at offset 0, expected none".into(),
        ),
        (
            json!({"destination": "/a", "source": "/b", "options": ["ro"]}),
            "type: is empty, expected a type of file system, or \"bind\" or \"rbind\" among the options".into(),
        ),
        (json!({"destination": "/a", "type": "bind"}), "source: is empty, expected the path to bind".into()),
        (bind(json!(["bind", "size=1"])), format!("options/1: \"size=1\" {FS_DATA}")),
        (bind(json!(["bidn"])), format!("options/0: \"bidn\" {FS_DATA}")),
    ] {
        refused(json!({"mounts": [bind(json!([])), mount]}), &format!("/mounts/1/{expected}"));
    }
    let warnings = check(json!({"mounts": [{"destination": "a/b", "type": "tmpfs"}]})).unwrap();
    assert_eq!(warnings, ["config.json: /mounts/0/destination: \"a/b\" is relative, taken as \"/a/b\""]);
}

#[test]
fn id_mapped_mounts() {
    let one = json!([{"containerID": 0, "hostID": 9, "size": 1}]);
    let mount = |options: Value, uids: &Value, gids: &Value| json!({"destination": "/a", "source": "/b", "options": options, "uidMappings": uids, "gidMappings": gids});
    let none = json!(null);
    let joined = json!([{"type": "user", "path": "/x"}]);
    accepted(json!({"mounts": [
        mount(json!(["bind"]), &one, &one),
        mount(json!(["rbind", "ridmap"]), &one, &one),
    ]}));
    accepted(json!({"mounts": [mount(json!(["rbind", "idmap"]), &none, &none)], "linux": {"namespaces": joined}}));
    const NOT_BIND: &str = "only a new bind mount can be id-mapped, expected \"bind\" or \"rbind\" in options";
    const NO_MAPPING: &str =
        "there is no mapping, expected uidMappings and gidMappings, or a user namespace in /linux/namespaces";
    for (mount, expected) in [
        (mount(json!(["bind", "idmap"]), &none, &none), format!("options/1: {NO_MAPPING}")),
        (mount(json!(["ridmap", "rbind"]), &json!([]), &json!([])), format!("options/0: {NO_MAPPING}")),
        (
            mount(json!(["bind"]), &one, &none),
            "gidMappings: is empty, expected a mapping, as /mounts/0/uidMappings has one".into(),
        ),
        (
            mount(json!(["bind"]), &json!([]), &one),
            "uidMappings: is empty, expected a mapping, as /mounts/0/gidMappings has one".into(),
        ),
        (mount(json!(["bind"]), &one, &json!([{"size": 0}])), "gidMappings/0/size: 0, expected at least 1".into()),
        (mount(json!(["remount", "bind"]), &one, &one), format!("uidMappings: {NOT_BIND}")),
        (json!({"destination": "/a", "type": "t", "options": ["ro", "idmap"]}), format!("options/1: {NOT_BIND}")),
        (json!({"destination": "/a", "type": "t", "gidMappings": one}), format!("gidMappings: {NOT_BIND}")),
    ] {
        refused(json!({"mounts": [mount]}), &format!("/mounts/0/{expected}"));
    }
}

#[test]
fn devices() {
    let device = |change: Value| {
        let mut device = json!({"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229});
        device.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        device
    };
    accepted(json!({"linux": {"devices": [
        device(json!({"fileMode": 0o7777})),
        // As st_mode has it.
        device(json!({"path": "/c", "fileMode": 0o27777})),
        device(json!({"type": "u", "path": "/u", "fileMode": 0o20600})),
        device(json!({"type": "b", "path": "/b2", "fileMode": 0o60600})),
        device(json!({"type": "p", "path": "/fifo3", "fileMode": 0o10600})),
        device(json!({"type": "p", "path": "/fifo", "major": -1, "minor": -1})),
        {"type": "p", "path": "/fifo2"},
        device(json!({"type": "b", "path": "/b", "major": 4095, "minor": 1_048_575})),
    ]}}));
    for (change, expected) in [
        (json!({"type": "x"}), "type: \"x\", expected c, b, u or p"),
        (json!({"path": "dev/fuse"}), "path: \"dev/fuse\" is relative, expected an absolute path"),
        (json!({"major": -1}), "major: -1, expected 0 to 4095"),
        (json!({"minor": -1}), "minor: -1, expected 0 to 1048575"),
        (json!({"type": "u", "minor": 1_048_576}), "minor: 1048576, expected 0 to 1048575"),
        (
            json!({"fileMode": 0o10600}),
            "fileMode: 0o10600, expected at most 0o7777, or that with the type of \"c\", 0o20000",
        ),
        (
            json!({"type": "b", "fileMode": 0o20600}),
            "fileMode: 0o20600, expected at most 0o7777, or that with the type of \"b\", 0o60000",
        ),
        (
            json!({"fileMode": 0o220_600}),
            "fileMode: 0o220600, expected at most 0o7777, or that with the type of \"c\", 0o20000",
        ),
        (json!({"uid": u32::MAX}), "uid: 4294967295 isn't an id"),
    ] {
        refused(json!({"linux": {"devices": [device(change)]}}), &format!("/linux/devices/0/{expected}"));
    }
}

#[test]
fn paths_and_propagation() {
    for key in ["maskedPaths", "readonlyPaths"] {
        let expected = format!("/linux/{key}/1: \"proc\" is relative, expected an absolute path");
        refused(json!({"linux": {key: ["/a", "proc"]}}), &expected);
    }
    for value in ["", "private", "slave", "shared", "unbindable", "rprivate", "rslave", "rshared", "runbindable"] {
        accepted(json!({"linux": {"rootfsPropagation": value}}));
    }
    refused(
        json!({"linux": {"rootfsPropagation": "rsalve"}}),
        "/linux/rootfsPropagation: unknown propagation \"rsalve\", did you mean \"rslave\"?",
    );
}

#[test]
fn what_is_not_supported_is_refused() {
    for (key, value, what) in [
        ("netDevices", json!({"eth0": {}}), "network devices are"),
        ("intelRdt", json!({}), "Intel RDT is"),
        ("memoryPolicy", json!({"mode": "MPOL_BIND"}), "memory policies are"),
    ] {
        refused(json!({"linux": {key: value}}), &format!("/linux/{key}: {what} not supported yet"));
        accepted(json!({"linux": {key: null}}));
    }
}

#[test]
fn sysctls_stay_within_the_containers_namespaces() {
    for (key, namespace) in [
        ("kernel.msgmax", "ipc"),
        ("kernel/shm_rmid_forced", "ipc"),
        ("fs.mqueue.msg_max", "ipc"),
        ("net.ipv4.ip_forward", "network"),
        ("net/ipv4/conf/eno1.100/forwarding", "network"),
        ("kernel.domainname", "uts"),
        ("user.max_user_namespaces", "user"),
    ] {
        let pointer = format!("/linux/sysctl/{}", key.replace('/', "~1"));
        let expected =
            format!("{pointer}: {key:?} would change the host, expected a {namespace} namespace in /linux/namespaces");
        refused(json!({"linux": {"sysctl": {key: "1"}}}), &expected);
        accepted(json!({"linux": {"namespaces": [{"type": namespace, "path": "/x"}], "sysctl": {key: "1"}}}));
    }
    let all = json!([{"type": "ipc"}, {"type": "network"}, {"type": "uts"}]);
    for (key, expected) in [
        ("kernel.hostname", "kernel.hostname: \"kernel.hostname\" conflicts with /hostname, expected the name there"),
        ("vm.swappiness", "vm.swappiness: \"vm.swappiness\" doesn't belong to a namespace, it would change the host"),
        (
            "kernel.msgmax2",
            "kernel.msgmax2: \"kernel.msgmax2\" doesn't belong to a namespace, it would change the host",
        ),
        ("", ": \"\" isn't the name of a sysctl, expected one like net.ipv4.ip_forward"),
        (
            "net/../kernel/core_pattern",
            "net~1..~1kernel~1core_pattern: \"net/../kernel/core_pattern\" isn't the name of a sysctl, \
             expected one like net.ipv4.ip_forward",
        ),
        (
            "net.//.kernel.core_pattern",
            "net.~1~1.kernel.core_pattern: \"net.//.kernel.core_pattern\" isn't the name of a sysctl, \
             expected one like net.ipv4.ip_forward",
        ),
    ] {
        refused(json!({"linux": {"namespaces": all, "sysctl": {key: "1"}}}), &format!("/linux/sysctl/{expected}"));
    }
}

#[test]
fn a_sysctl_is_a_file() {
    for (key, file) in [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eno1/100.forwarding", "net/ipv4/conf/eno1.100/forwarding"),
        ("net/ipv4/conf/eno1.100/forwarding", "net/ipv4/conf/eno1.100/forwarding"),
        ("kernel", "kernel"),
    ] {
        assert_eq!(sysctl::path(key), file);
    }
}

#[test]
fn hooks() {
    const KINDS: [&str; 6] =
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    for kind in KINDS {
        accepted(json!({"hooks": {kind: [{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 1}]}}));
        for (hook, expected) in [
            (json!({}), "path: is empty, expected an absolute path"),
            (json!({"path": "true"}), "path: \"true\" is relative, expected an absolute path"),
            (json!({"path": "/t", "env": ["A"]}), "env/0: \"A\" has no '=', expected NAME=value"),
            (json!({"path": "/t", "args": ["\0"]}), "args/0: \"\\0\" has a NUL byte at offset 0, expected none"),
            (json!({"path": "/t", "timeout": 0}), "timeout: 0, expected a number of seconds above 0"),
            (json!({"path": "/t", "timeout": -3}), "timeout: -3, expected a number of seconds above 0"),
        ] {
            refused(json!({"hooks": {kind: [{"path": "/a"}, hook]}}), &format!("/hooks/{kind}/1/{expected}"));
        }
    }
}

#[test]
fn annotations_have_keys() {
    accepted(json!({"annotations": {"a": ""}}));
    let expected = "/annotations/: the key of \"v\" is empty, expected a non-empty key";
    refused(json!({"annotations": {"": "v"}}), expected);
}

#[test]
fn the_examples_of_the_specification() {
    let minimal = parse(include_bytes!("../../../tests/data/runtime-spec/good/minimal-for-start.json")).unwrap();
    assert_eq!(validate(&minimal).unwrap(), [""; 0]);
    runnable(&minimal).unwrap();
    let full = parse(include_bytes!("../../../tests/data/runtime-spec/good/spec-example.json")).unwrap();
    assert_eq!(validate(&full).unwrap(), [""; 0]);
}
