//! The config.json that `tare spec` writes: a strict container around `sh`, the same as runc's.
//!
//! Pure. Its own types, because the order of the keys is what a person reads first: the process.

use serde::Serialize;

use super::OCI_VERSION;

/// What the host decides about the template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// For root.
    Root,
    /// For the user with these effective ids, who becomes root of a user namespace.
    Rootless { uid: u32, gid: u32 },
}

/// Which control groups the host has: only a pure v2 one is worth a namespace by default, as in runc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cgroups {
    V1OrHybrid,
    V2,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    oci_version: &'static str,
    process: Process,
    root: Root,
    hostname: &'static str,
    mounts: Vec<Mount>,
    linux: Linux,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    terminal: bool,
    user: User,
    args: [&'static str; 1],
    env: [&'static str; 2],
    cwd: &'static str,
    capabilities: Capabilities,
    rlimits: [Rlimit; 1],
    no_new_privileges: bool,
}

#[derive(Debug, Serialize)]
struct User {
    uid: u32,
    gid: u32,
}

#[derive(Debug, Serialize)]
struct Capabilities {
    bounding: [&'static str; 3],
    effective: [&'static str; 3],
    permitted: [&'static str; 3],
}

#[derive(Debug, Serialize)]
struct Rlimit {
    r#type: &'static str,
    hard: u64,
    soft: u64,
}

#[derive(Debug, Serialize)]
struct Root {
    path: &'static str,
    readonly: bool,
}

#[derive(Debug, Serialize)]
struct Mount {
    destination: &'static str,
    r#type: &'static str,
    source: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    options: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Resources>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    uid_mappings: Vec<IdMapping>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gid_mappings: Vec<IdMapping>,
    namespaces: Vec<Namespace>,
    masked_paths: [&'static str; 11],
    readonly_paths: [&'static str; 5],
}

#[derive(Debug, Serialize)]
struct Resources {
    devices: [DeviceRule; 1],
}

#[derive(Debug, Serialize)]
struct DeviceRule {
    allow: bool,
    access: &'static str,
}

#[derive(Debug, Serialize)]
struct IdMapping {
    #[serde(rename = "containerID")]
    container_id: u32,
    #[serde(rename = "hostID")]
    host_id: u32,
    size: u32,
}

#[derive(Debug, Serialize)]
struct Namespace {
    r#type: &'static str,
}

/// Enough to log, to end its own children and to serve a port below 1024.
const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

/// What tells about the host or reaches its hardware.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
    "/sys/devices/virtual/tpm",
];

/// What configures the kernel.
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The text of the file.
pub(crate) fn template(kind: Kind, cgroups: Cgroups) -> serde_json::Result<String> {
    let config = Config {
        oci_version: OCI_VERSION,
        process: process(),
        root: Root { path: "rootfs", readonly: true },
        hostname: "tare",
        mounts: mounts(kind),
        linux: linux(kind, cgroups),
    };
    crate::json::pretty(&config, b"\t")
}

fn process() -> Process {
    Process {
        terminal: true,
        user: User { uid: 0, gid: 0 },
        args: ["sh"],
        env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
        cwd: "/",
        capabilities: Capabilities { bounding: CAPABILITIES, effective: CAPABILITIES, permitted: CAPABILITIES },
        rlimits: [Rlimit { r#type: "RLIMIT_NOFILE", hard: 1024, soft: 1024 }],
        no_new_privileges: true,
    }
}

fn mounts(kind: Kind) -> Vec<Mount> {
    let mount = |destination, r#type, source, options: &[&'static str]| Mount {
        destination,
        r#type,
        source,
        options: options.to_vec(),
    };
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    let sys = match kind {
        Kind::Root => {
            // The group tty: not mapped in a user namespace of one id.
            pts.push("gid=5");
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
        }
        // A new sysfs needs a network namespace of one's own.
        Kind::Rootless { .. } => mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]),
    };
    vec![
        mount("/proc", "proc", "proc", &[]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &pts),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        sys,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}

fn linux(kind: Kind, cgroups: Cgroups) -> Linux {
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount"];
    if cgroups == Cgroups::V2 {
        namespaces.push("cgroup");
    }
    let mut resources = Some(Resources { devices: [DeviceRule { allow: false, access: "rwm" }] });
    let (mut uid_mappings, mut gid_mappings) = (Vec::new(), Vec::new());
    if let Kind::Rootless { uid, gid } = kind {
        // An ordinary user may not write limits, nor give a namespace a network.
        resources = None;
        namespaces.retain(|name| *name != "network");
        namespaces.push("user");
        let own = |host_id| vec![IdMapping { container_id: 0, host_id, size: 1 }];
        (uid_mappings, gid_mappings) = (own(uid), own(gid));
    }
    Linux {
        resources,
        uid_mappings,
        gid_mappings,
        namespaces: namespaces.into_iter().map(|r#type| Namespace { r#type }).collect(),
        masked_paths: MASKED,
        readonly_paths: READONLY,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Spec;
    use super::*;

    fn read(kind: Kind, cgroups: Cgroups) -> Spec {
        serde_json::from_str(&template(kind, cgroups).unwrap()).unwrap()
    }

    fn namespaces(spec: &Spec) -> Vec<&str> {
        spec.linux.namespaces.iter().map(|namespace| namespace.kind.as_str()).collect()
    }

    #[test]
    fn for_root() {
        let spec = read(Kind::Root, Cgroups::V1OrHybrid);
        assert_eq!(spec.oci_version, "1.3.0");
        let process = spec.process.as_ref().unwrap();
        assert!(process.terminal && process.no_new_privileges);
        assert_eq!(process.args, ["sh"]);
        let capabilities = process.capabilities.as_ref().unwrap();
        assert_eq!(capabilities.bounding, CAPABILITIES);
        assert_eq!(capabilities.effective, CAPABILITIES);
        assert_eq!(capabilities.permitted, CAPABILITIES);
        assert!(capabilities.inheritable.is_empty() && capabilities.ambient.is_empty());
        assert_eq!(namespaces(&spec), ["pid", "network", "ipc", "uts", "mount"]);
        assert_eq!(spec.linux.resources.devices[0].access, "rwm");
        assert!(!spec.linux.resources.devices[0].allow);
        assert!(spec.linux.uid_mappings.is_empty());
        assert_eq!(spec.mounts[2].options.last().unwrap(), "gid=5");
        assert_eq!(spec.mounts[5].kind, "sysfs");
    }

    #[test]
    fn cgroup_namespace_only_on_pure_v2() {
        let spec = read(Kind::Root, Cgroups::V2);
        assert_eq!(namespaces(&spec), ["pid", "network", "ipc", "uts", "mount", "cgroup"]);
    }

    #[test]
    fn for_an_ordinary_user() {
        let spec = read(Kind::Rootless { uid: 1000, gid: 100 }, Cgroups::V2);
        assert_eq!(namespaces(&spec), ["pid", "ipc", "uts", "mount", "cgroup", "user"]);
        let (uid, gid) = (&spec.linux.uid_mappings[0], &spec.linux.gid_mappings[0]);
        assert_eq!((uid.container_id, uid.host_id, uid.size), (0, 1000, 1));
        assert_eq!((gid.container_id, gid.host_id, gid.size), (0, 100, 1));
        assert!(spec.linux.resources.devices.is_empty());
        assert!(!spec.mounts.iter().flat_map(|mount| &mount.options).any(|option| option.starts_with("gid=")));
        assert_eq!((spec.mounts[5].source.as_str(), spec.mounts[5].options[0].as_str()), ("/sys", "rbind"));
    }

    #[test]
    fn is_indented_by_tabs() {
        let text = template(Kind::Root, Cgroups::V2).unwrap();
        assert!(text.starts_with("{\n\t\"ociVersion\": \"1.3.0\",\n\t\"process\": {\n\t\t\"terminal\": true,"));
        assert!(text.ends_with("}\n"));
    }
}
