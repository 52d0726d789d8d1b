use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::run_in;

fn made(args: &[&str]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run_in(dir.path(), &[&["spec"], args].concat()).ok(), "");
    let text = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    assert!(text.starts_with("{\n\t\"ociVersion\": \"1.3.0\""), "{text}");
    serde_json::from_str(&text).unwrap()
}

fn types(spec: &Value) -> Vec<&str> {
    let list = spec["linux"]["namespaces"].as_array().unwrap();
    list.iter().map(|namespace| namespace["type"].as_str().unwrap()).filter(|kind| *kind != "cgroup").collect()
}

#[test]
fn default_is_runcs() {
    let spec = made(&[]);
    let process = &spec["process"];
    assert_eq!(process["terminal"], true);
    assert_eq!(process["args"], json!(["sh"]));
    assert_eq!(process["cwd"], "/");
    assert_eq!(process["noNewPrivileges"], true);
    assert_eq!(process["rlimits"], json!([{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}]));
    let three = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    assert_eq!(process["capabilities"], json!({"bounding": three, "effective": three, "permitted": three}));
    assert_eq!(spec["root"], json!({"path": "rootfs", "readonly": true}));
    assert_eq!(spec["hostname"], "tare");
    let mounts = spec["mounts"].as_array().unwrap();
    let destinations: Vec<&str> = mounts.iter().map(|mount| mount["destination"].as_str().unwrap()).collect();
    assert_eq!(destinations, ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"]);
    assert_eq!(types(&spec), ["pid", "network", "ipc", "uts", "mount"]);
    assert_eq!(spec["linux"]["resources"], json!({"devices": [{"allow": false, "access": "rwm"}]}));
    assert_eq!(spec["linux"]["maskedPaths"].as_array().unwrap().len(), 11);
    assert_eq!(spec["linux"]["readonlyPaths"].as_array().unwrap().len(), 5);
}

#[test]
fn rootless_maps_the_caller() {
    let spec = made(&["--rootless"]);
    let linux = &spec["linux"];
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    assert_eq!(linux["uidMappings"], json!([{"containerID": 0, "hostID": uid, "size": 1}]));
    assert_eq!(linux["gidMappings"], json!([{"containerID": 0, "hostID": gid, "size": 1}]));
    assert_eq!(types(&spec), ["pid", "ipc", "uts", "mount", "user"]);
    assert!(linux.get("resources").is_none());
    let text = spec.to_string();
    assert!(!text.contains("gid=5"));
    assert_eq!(spec["mounts"][5]["source"], "/sys");
    assert_eq!(spec["mounts"][5]["options"], json!(["rbind", "nosuid", "noexec", "nodev", "ro"]));
}

#[test]
fn never_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, "mine").unwrap();
    let error = "\"./config.json\" exists: remove it first, it is never overwritten";
    assert_eq!(run_in(dir.path(), &["spec"]).error(), error);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");

    std::fs::remove_file(&path).unwrap();
    symlink("elsewhere", &path).unwrap();
    assert_eq!(run_in(dir.path(), &["spec"]).error(), error);
    assert!(!dir.path().join("elsewhere").exists());
}

#[test]
fn bundle_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        run_in(dir.path(), &["spec", "-b", "nowhere"]).error(),
        "open \"nowhere/config.json\": no such file or directory (ENOENT)"
    );
}
