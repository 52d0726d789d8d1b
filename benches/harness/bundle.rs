//! The engine bundle: what Podman gives its runtime by default, and what the workloads make of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

const CAPABILITIES: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];
const PROFILE: &str = "/usr/share/containers/seccomp.json";
/// Masked files and folders, and mounts, of the heavy bundle; numbers that the floor is told too.
pub const MASKED: usize = 60;
pub const MOUNTS: usize = 300;
pub const VARIABLES: usize = 5000;

/// A root file system with the payload as its only program.
pub fn make_rootfs(root: &Path, payload: &Path) -> std::io::Result<()> {
    for folder in ["bin", "proc", "sys", "dev", "etc", "m", "masked", "srv"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy(payload, root.join("bin/true"))?;
    for file in ["hosts", "resolv.conf"] {
        fs::write(root.join("etc").join(file), "")?;
    }
    for number in 0..MOUNTS {
        fs::create_dir(root.join(format!("m/{number}")))?;
    }
    for number in 0..MASKED {
        if number % 2 == 0 {
            fs::write(root.join(format!("masked/f{number}")), "secret")?;
        } else {
            fs::create_dir(root.join(format!("masked/d{number}")))?;
        }
    }
    symlink("true", root.join("bin/sleep"))
}

/// The profile that Podman would pass: the containers-common file with its conditions decided.
fn seccomp() -> Value {
    let text = fs::read_to_string(PROFILE).unwrap_or_default();
    let Ok(profile) = serde_json::from_str::<Value>(&text) else {
        return serde_json::from_str(include_str!("../../tests/data/seccomp/docker-default.json"))
            .expect("our own file");
    };
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let has = |names: Vec<String>| names.iter().any(|name| CAPABILITIES.contains(&name.as_str()));
    let taken = |rule: &&Value| {
        let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
        let caps = strings(&includes["caps"]);
        let arches = strings(&includes["arches"]);
        (caps.is_empty() || has(caps))
            && (arches.is_empty() || arches.iter().any(|name| name == arch))
            && !has(strings(&excludes["caps"]))
            && !strings(&excludes["arches"]).iter().any(|name| name == arch)
    };
    let convert = |rule: &Value| {
        let mut kept = json!({ "names": rule["names"], "action": rule["action"] });
        if let Some(errno) = rule["errnoRet"].as_u64() {
            kept["errnoRet"] = errno.into();
        }
        let arguments: Vec<Value> = rule["args"].as_array().cloned().unwrap_or_default();
        if !arguments.is_empty() {
            kept["args"] = arguments.into();
        }
        kept
    };
    let rules: Vec<Value> = profile["syscalls"].as_array().into_iter().flatten().filter(taken).map(convert).collect();
    let native = if cfg!(target_arch = "x86_64") { "SCMP_ARCH_X86_64" } else { "SCMP_ARCH_AARCH64" };
    let map = profile["archMap"].as_array().into_iter().flatten().find(|entry| entry["architecture"] == native);
    let mut architectures = vec![native.to_owned()];
    architectures.extend(map.into_iter().flat_map(|entry| strings(&entry["subArchitectures"])));
    let errno = profile["defaultErrnoRet"].as_u64().unwrap_or(1);
    json!({ "defaultAction": profile["defaultAction"], "defaultErrnoRet": errno, "architectures": architectures, "syscalls": rules })
}

/// config.json of a container whose cgroup is `cgroup`.
pub fn engine(rootfs: &Path, cgroup: &str) -> Value {
    let device = |major: Option<u32>, minor: Option<u32>, access: &str| {
        let mut rule = json!({ "allow": true, "type": "c", "access": access });
        for (key, number) in [("major", major), ("minor", minor)] {
            if let Some(number) = number {
                rule[key] = number.into();
            }
        }
        rule
    };
    let mut devices = vec![json!({ "allow": false, "access": "rwm" }), device(None, None, "m")];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)] {
        devices.push(device(Some(major), Some(minor), "rwm"));
    }
    devices.push(device(Some(136), None, "rwm"));
    let locked = json!(["nosuid", "noexec", "nodev"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0, "umask": 18 },
            "args": ["/bin/true"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "container=podman", "HOME=/root", "HOSTNAME=bench"],
            "cwd": "/",
            "capabilities": { "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }]
        },
        "root": { "path": rootfs },
        "hostname": "bench",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": locked },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": locked },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/etc/hosts", "type": "bind", "source": "/etc/hosts", "options": ["bind", "private"] },
            { "destination": "/etc/resolv.conf", "type": "bind", "source": "/etc/resolv.conf", "options": ["bind", "private"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }
        ],
        "annotations": { "io.container.manager": "libpod", "org.opencontainers.image.stopSignal": "15" },
        "linux": {
            "resources": { "devices": devices },
            "cgroupsPath": cgroup,
            "namespaces": [{ "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "cgroup" }],
            "seccomp": seccomp(),
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/fs/selinux", "/sys/dev/block"],
            "readonlyPaths": ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

fn push(config: &mut Value, pointer: &str, value: Value) {
    config.pointer_mut(pointer).and_then(Value::as_array_mut).expect("a list of the engine bundle").push(value);
}

/// 60 masked paths and 300 mounts more.
pub fn heavy(config: &mut Value, rootfs: &Path) {
    for number in 0..MASKED {
        let name = if number % 2 == 0 { "f" } else { "d" };
        push(config, "/linux/maskedPaths", json!(format!("/masked/{name}{number}")));
    }
    for number in 0..MOUNTS {
        let mount = json!({ "destination": format!("/m/{number}"), "type": "bind", "source": rootfs.join("srv"),
            "options": ["rbind", "ro", "nosuid", "nodev"] });
        push(config, "/mounts", mount);
    }
}

/// The environment of the `env` workload, without what the bundle has.
pub fn variables() -> impl Iterator<Item = (String, String)> {
    (0..VARIABLES).map(|number| (format!("VARIABLE_{number}"), format!("value of {number}")))
}

pub fn many_variables(config: &mut Value) {
    for (name, value) in variables() {
        push(config, "/process/env", json!(format!("{name}={value}")));
    }
}

/// The payload waits for ever.
pub fn sleeping(config: &mut Value) {
    config["process"]["args"] = json!(["/bin/sleep", "infinity"]);
}

pub fn write(folder: &Path, config: &Value) -> std::io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("config.json"), config.to_string())?;
    Ok(folder.to_owned())
}
