//! config.json of the tests: the default one, and edits by JSON pointer.

use std::path::Path;

use serde_json::{Map, Value, json};

/// A container with the usual namespaces and mounts, the probe as payload, few capabilities, and its own cgroup.
pub fn default(cgroup: &str, dir: &Path) -> Value {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/guest", "true"],
            // The folder in the environment is how a process that was left behind is recognized.
            "env": ["PATH=/usr/bin:/bin", format!("TARE_TEST={}", dir.display())],
            "cwd": "/",
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": false },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] }
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }
            ],
            "maskedPaths": ["/proc/kcore", "/proc/timer_list", "/proc/scsi", "/sys/firmware", "/no/such/path"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/no/such"]
        }
    })
}

/// Sets what `pointer` names, making the objects above it.
pub fn set(config: &mut Value, pointer: &str, value: Value) {
    let mut place = config;
    for key in pointer.split('/').skip(1) {
        place = match place {
            Value::Array(list) => list.get_mut(key.parse::<usize>().unwrap()).unwrap(),
            Value::Object(map) => map.entry(key).or_insert(Value::Null),
            other => {
                *other = Value::Object(Map::new());
                other.as_object_mut().unwrap().entry(key).or_insert(Value::Null)
            }
        };
    }
    *place = value;
}

/// A mount as config.json has it.
pub fn mount(kind: &str, source: &str, destination: &str, options: &[&str]) -> Value {
    json!({ "type": kind, "source": source, "destination": destination, "options": options })
}
