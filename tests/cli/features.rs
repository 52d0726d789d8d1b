use serde_json::{Value, json};

use super::run;

fn features() -> Value {
    serde_json::from_str(run("features").ok()).unwrap()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn versions_and_hooks() {
    let features = features();
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert_eq!(features["ociVersionMax"], "1.3.0");
    let hooks = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    assert_eq!(strings(&features["hooks"]), hooks);
    assert_eq!(features["annotations"]["org.opencontainers.tare.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(features["potentiallyUnsafeConfigAnnotations"], json!(["org.systemd.property."]));
}

#[test]
fn mount_options_switch_on_recursive_read_only_and_id_mapping() {
    let features = features();
    let options = strings(&features["mountOptions"]);
    assert!(options.is_sorted());
    for option in ["rro", "ro", "rbind", "rslave", "tmpcopyup", "rnosymfollow", "ratime", "idmap", "ridmap"] {
        assert!(options.contains(&option), "{option}");
    }
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
}

#[test]
fn linux_has_the_types_of_the_schema() {
    let features = features();
    let linux = &features["linux"];
    let namespaces = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];
    assert_eq!(strings(&linux["namespaces"]), namespaces);
    let capabilities = strings(&linux["capabilities"]);
    assert_eq!(capabilities.len(), 41);
    assert!(capabilities.iter().all(|name| {
        name.strip_prefix("CAP_").is_some_and(|rest| rest.bytes().all(|byte| byte == b'_' || byte.is_ascii_uppercase()))
    }));
    for key in ["v1", "v2", "systemd", "systemdUser", "rdma"] {
        assert!(linux["cgroup"][key].is_boolean(), "{key}");
    }
    for part in ["apparmor", "selinux", "intelRdt", "netDevices", "seccomp"] {
        assert!(linux[part]["enabled"].is_boolean(), "{part}");
    }
    let starts = [
        ("actions", "SCMP_ACT_"),
        ("operators", "SCMP_CMP_"),
        ("archs", "SCMP_ARCH_"),
        ("knownFlags", "SECCOMP_FILTER_FLAG_"),
        ("supportedFlags", "SECCOMP_FILTER_FLAG_"),
    ];
    for (list, start) in starts {
        assert!(strings(&linux["seccomp"][list]).iter().all(|name| name.starts_with(start)), "{list}");
    }
    assert!(strings(&linux["seccomp"]["actions"]).contains(&"SCMP_ACT_NOTIFY"));
}
