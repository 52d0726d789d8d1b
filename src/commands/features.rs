//! `tare features`: what this runtime knows, as JSON (features.md, features-linux.md).
//!
//! Only what is built is listed: engines switch user namespaces, recursive read-only mounts and more on by it.
//! It says what the program can do, not what this host can.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use crate::cli::{self, FeaturesArgs};
use crate::plan::{caps, options};
use crate::seccomp;
use crate::spec::OCI_VERSION;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: [&'static str; 6],
    mount_options: Vec<&'static str>,
    linux: Linux,
    annotations: BTreeMap<&'static str, &'static str>,
    potentially_unsafe_config_annotations: &'static [&'static str],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: [&'static str; 8],
    capabilities: Vec<String>,
    cgroup: Cgroup,
    seccomp: Seccomp,
    apparmor: Switch,
    selinux: Switch,
    intel_rdt: Switch,
    mount_extensions: MountExtensions,
    net_devices: Switch,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp {
    enabled: bool,
    actions: &'static [&'static str],
    operators: &'static [&'static str],
    archs: Vec<&'static str>,
    known_flags: &'static [&'static str],
    supported_flags: &'static [&'static str],
}

#[derive(Debug, Serialize)]
struct MountExtensions {
    idmap: Switch,
}

#[derive(Debug, Serialize)]
struct Switch {
    enabled: bool,
}

const HOOKS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

const OPERATORS: [&str; 7] =
    ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];

/// Those whose system call numbers the compiler has.
const KNOWN_FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// Prints it.
pub(crate) fn run(_args: &FeaturesArgs) -> Result<i32> {
    cli::output(&super::pretty(&features(), b"    ")?)?;
    Ok(0)
}

fn features() -> Features {
    let annotations = BTreeMap::from([
        ("org.opencontainers.tare.commit", cli::COMMIT),
        ("org.opencontainers.tare.version", cli::VERSION),
    ]);
    Features {
        oci_version_min: "1.0.0",
        oci_version_max: OCI_VERSION,
        hooks: HOOKS,
        mount_options: options::NAMES.to_vec(),
        linux: linux(),
        annotations,
        // Properties of the unit with `--systemd-cgroup`. A dot at the end stands for every name that begins so.
        potentially_unsafe_config_annotations: &["org.systemd.property."],
    }
}

fn linux() -> Linux {
    let not_yet = || Switch { enabled: false };
    Linux {
        namespaces: NAMESPACES,
        capabilities: caps::names(),
        cgroup: Cgroup { v1: true, v2: true, systemd: true, systemd_user: true, rdma: true },
        seccomp: Seccomp {
            enabled: true,
            actions: &ACTIONS,
            operators: &OPERATORS,
            archs: seccomp::architectures(),
            known_flags: &KNOWN_FLAGS,
            supported_flags: &KNOWN_FLAGS,
        },
        apparmor: Switch { enabled: true },
        selinux: Switch { enabled: true },
        intel_rdt: not_yet(),
        mount_extensions: MountExtensions { idmap: Switch { enabled: true } },
        net_devices: not_yet(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_hold_nothing_twice() {
        let features = features();
        let (options, archs) = (&features.mount_options[..], &features.linux.seccomp.archs[..]);
        for list in [options, archs, &NAMESPACES, &ACTIONS, &OPERATORS, &KNOWN_FLAGS] {
            assert!(list.is_sorted_by(|a, b| a < b), "{list:?}");
        }
    }
}
