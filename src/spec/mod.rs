//! What was asked: the types of config.json (runtime-spec 1.3) as the rest of the code sees them.
//!
//! Pure data. Unknown properties are ignored, `null` means absent (Go engines write it), and closed sets
//! of names (namespace types, actions, flags) stay strings here: [`validate`] and `plan` turn them into
//! values and name the property's path when one is wrong. Numbers are as wide as the specification's.
//!
//! `Option` is used only where absent and empty mean different things; each such field says how.

pub(crate) mod load;
pub(crate) mod template;
pub(crate) mod validate;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

/// The version of the runtime specification that tare implements.
pub(crate) const OCI_VERSION: &str = "1.3.0";

/// `null` reads as the type's default.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Makes serde's structs accept a JSON object only. As derived they take an array too, field by field in
/// the order of declaration, and `"user": []` (as some generators write an empty object) would be root.
struct ObjectOnly<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for ObjectOnly<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Declares a struct whose every field may be absent or `null`, with the specification's camelCase names.
macro_rules! object {
    ($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, Deserialize)]
        #[serde(rename_all = "camelCase", default, expecting = "an object", remote = "Self")]
        pub(crate) struct $name {
            $($(#[$fmeta])* #[serde(deserialize_with = "or_default")] pub(crate) $field: $ty,)*
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // The function that `remote` derives, not the trait's.
                Self::deserialize(ObjectOnly(deserializer))
            }
        }
    };
}

object! {
    /// config.json, whole (config.md).
    Spec {
        oci_version: String,
        root: Option<Root>,
        /// Absent: the container can be created only as far as the specification says, never started.
        process: Option<Process>,
        hostname: String,
        domainname: String,
        mounts: Vec<Mount>,
        hooks: Hooks,
        annotations: BTreeMap<String, String>,
        linux: Linux,
    }
}

object! {
    /// config.md, "Root".
    Root { path: PathBuf, readonly: bool }
}

object! {
    /// config.md, "Process".
    Process {
        terminal: bool,
        console_size: Option<ConsoleSize>,
        user: User,
        args: Vec<String>,
        env: Vec<String>,
        cwd: String,
        /// Absent keeps the runtime's full set, as runc does; present and empty drops all.
        capabilities: Option<Capabilities>,
        rlimits: Vec<Rlimit>,
        no_new_privileges: bool,
        apparmor_profile: String,
        /// Absent leaves the caller's value alone.
        oom_score_adj: Option<i32>,
        selinux_label: String,
        scheduler: Option<Scheduler>,
        io_priority: Option<IoPriority>,
        #[serde(rename = "execCPUAffinity")]
        exec_cpu_affinity: Option<CpuAffinity>,
    }
}

object! {
    /// Rows and columns of the terminal; zero is "unset".
    ConsoleSize { height: u16, width: u16 }
}

object! {
    /// config.md, "POSIX-platform User".
    User {
        uid: u32,
        gid: u32,
        /// Absent is 0022, as every runtime that engines use does.
        umask: Option<u32>,
        additional_gids: Vec<u32>,
    }
}

object! {
    /// The five sets of capabilities(7), by name.
    Capabilities {
        bounding: Vec<String>,
        effective: Vec<String>,
        inheritable: Vec<String>,
        permitted: Vec<String>,
        ambient: Vec<String>,
    }
}

object! {
    /// setrlimit(2); `u64::MAX` is RLIM_INFINITY.
    Rlimit { #[serde(rename = "type")] kind: String, soft: u64, hard: u64 }
}

object! {
    /// sched_setattr(2).
    Scheduler {
        policy: String,
        nice: i32,
        priority: i32,
        flags: Vec<String>,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
}

object! {
    /// ioprio_set(2).
    IoPriority { class: String, priority: i32 }
}

object! {
    /// CPU lists for exec ("0-3,7").
    CpuAffinity { initial: String, r#final: String }
}

object! {
    /// config.md, "Mounts".
    Mount {
        destination: String,
        #[serde(rename = "type")] kind: String,
        source: String,
        options: Vec<String>,
        uid_mappings: Vec<IdMapping>,
        gid_mappings: Vec<IdMapping>,
    }
}

object! {
    /// user_namespaces(7), one line of uid_map or gid_map.
    IdMapping {
        #[serde(rename = "containerID")] container_id: u32,
        #[serde(rename = "hostID")] host_id: u32,
        size: u32,
    }
}

object! {
    /// config.md, "POSIX-platform Hooks".
    Hooks {
        prestart: Vec<Hook>,
        create_runtime: Vec<Hook>,
        create_container: Vec<Hook>,
        start_container: Vec<Hook>,
        poststart: Vec<Hook>,
        poststop: Vec<Hook>,
    }
}

object! {
    /// One program to run at a point of the lifecycle.
    Hook {
        path: PathBuf,
        args: Vec<String>,
        /// Absent inherits the environment (the runtime's, or the container's for startContainer);
        /// an empty list is an empty environment.
        env: Option<Vec<String>>,
        /// Seconds; absent is no limit.
        timeout: Option<i64>,
    }
}

object! {
    /// config-linux.md.
    Linux {
        namespaces: Vec<Namespace>,
        uid_mappings: Vec<IdMapping>,
        gid_mappings: Vec<IdMapping>,
        time_offsets: BTreeMap<String, TimeOffset>,
        devices: Vec<Device>,
        net_devices: BTreeMap<String, serde_json::Value>,
        cgroups_path: String,
        resources: Resources,
        intel_rdt: Option<serde_json::Value>,
        memory_policy: Option<serde_json::Value>,
        sysctl: BTreeMap<String, String>,
        seccomp: Option<Seccomp>,
        rootfs_propagation: String,
        masked_paths: Vec<String>,
        readonly_paths: Vec<String>,
        mount_label: String,
        personality: Option<Personality>,
    }
}

object! {
    /// One namespace, new or (with `path`) joined.
    Namespace { #[serde(rename = "type")] kind: String, path: Option<PathBuf> }
}

impl Namespace {
    /// Where the namespace is that is to be joined. An empty path is a new one: Go's types can't tell it from an absent one.
    pub(crate) fn joined(&self) -> Option<&std::path::Path> {
        self.path.as_deref().filter(|path| !path.as_os_str().is_empty())
    }
}

object! {
    /// time_namespaces(7).
    TimeOffset { secs: i64, nanosecs: u32 }
}

object! {
    /// A device node to make.
    Device {
        #[serde(rename = "type")] kind: String,
        path: String,
        /// Both are absent of a fifo only.
        major: Option<i64>,
        minor: Option<i64>,
        /// Absent is 0666. With or without the bits of the type.
        file_mode: Option<u32>,
        uid: u32,
        gid: u32,
    }
}

object! {
    /// personality(2).
    Personality { domain: String, flags: Vec<String> }
}

object! {
    /// config-linux.md, "Control groups". Absent numbers are not set.
    Resources {
        devices: Vec<DeviceRule>,
        memory: Option<Memory>,
        cpu: Option<Cpu>,
        pids: Option<Pids>,
        #[serde(rename = "blockIO")] block_io: Option<BlockIo>,
        hugepage_limits: Vec<HugepageLimit>,
        network: Option<Network>,
        rdma: BTreeMap<String, Rdma>,
        unified: BTreeMap<String, String>,
    }
}

object! {
    /// One rule of the device controller.
    DeviceRule {
        allow: bool,
        #[serde(rename = "type")] kind: String,
        major: Option<i64>,
        minor: Option<i64>,
        access: String,
    }
}

object! {
    /// Bytes; -1 is unlimited.
    Memory {
        limit: Option<i64>,
        reservation: Option<i64>,
        swap: Option<i64>,
        kernel: Option<i64>,
        #[serde(rename = "kernelTCP")] kernel_tcp: Option<i64>,
        swappiness: Option<u64>,
        #[serde(rename = "disableOOMKiller")] disable_oom_killer: Option<bool>,
        use_hierarchy: Option<bool>,
        check_before_update: Option<bool>,
    }
}

object! {
    /// Times in microseconds.
    Cpu {
        shares: Option<u64>,
        quota: Option<i64>,
        burst: Option<u64>,
        period: Option<u64>,
        realtime_runtime: Option<i64>,
        realtime_period: Option<u64>,
        cpus: String,
        mems: String,
        idle: Option<i64>,
    }
}

object! {
    /// -1 is unlimited.
    Pids { limit: Option<i64> }
}

object! {
    /// Weights 10 to 1000; rates in bytes or operations a second.
    BlockIo {
        weight: Option<u16>,
        leaf_weight: Option<u16>,
        weight_device: Vec<WeightDevice>,
        throttle_read_bps_device: Vec<ThrottleDevice>,
        throttle_write_bps_device: Vec<ThrottleDevice>,
        #[serde(rename = "throttleReadIOPSDevice")] throttle_read_iops_device: Vec<ThrottleDevice>,
        #[serde(rename = "throttleWriteIOPSDevice")] throttle_write_iops_device: Vec<ThrottleDevice>,
    }
}

object! {
    /// A weight for one block device.
    WeightDevice { major: i64, minor: i64, weight: Option<u16>, leaf_weight: Option<u16> }
}

object! {
    /// A rate for one block device.
    ThrottleDevice { major: i64, minor: i64, rate: u64 }
}

object! {
    /// Page size as the kernel spells it ("2MB"); limit in bytes.
    HugepageLimit { page_size: String, limit: u64 }
}

object! {
    /// net_cls and net_prio.
    Network { #[serde(rename = "classID")] class_id: Option<u32>, priorities: Vec<InterfacePriority> }
}

object! {
    /// A priority for one network interface.
    InterfacePriority { name: String, priority: u32 }
}

object! {
    /// RDMA limits of one device.
    Rdma { hca_handles: Option<u32>, hca_objects: Option<u32> }
}

object! {
    /// config-linux.md, "Seccomp".
    Seccomp {
        default_action: String,
        default_errno_ret: Option<u32>,
        architectures: Vec<String>,
        /// Absent means SPEC_ALLOW as in runc; an empty list means none.
        flags: Option<Vec<String>>,
        listener_path: String,
        listener_metadata: String,
        syscalls: Vec<SyscallRule>,
    }
}

object! {
    /// One entry of `linux.seccomp.syscalls`.
    SyscallRule {
        names: Vec<String>,
        action: String,
        errno_ret: Option<u32>,
        args: Vec<SyscallArg>,
    }
}

object! {
    /// One comparison of a system call's argument.
    SyscallArg { index: u32, value: u64, value_two: u64, op: String }
}

/// The container's state as `state`, hooks and engines see it (runtime.md, "State").
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    pub(crate) oci_version: &'static str,
    pub(crate) id: String,
    /// Host pid; 0 when stopped.
    pub(crate) pid: i32,
    pub(crate) status: &'static str,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    /// RFC 3339, UTC.
    pub(crate) created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) owner: String,
}
