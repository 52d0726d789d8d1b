//! `linux.resources` as files and values, pure: one table for v1, one for v2.
//!
//! Zero and absent are "not set" and write nothing, as in runc (zero of pids, burst, idle and swappiness is a value), and
//! so is -1 of an unsigned number, as engines written in C send it. `kernel` is ignored (the kernel dropped it; old
//! engines still send it), and so are, on v2, `kernelTCP` and the tunings that it doesn't have (swappiness,
//! disableOOMKiller): see [`ignored`]. A limit that can't be set is an error.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::error::invalid;
use crate::spec::{BlockIo, Cpu, HugepageLimit, Memory, Network, Pids, Rdma, Resources, ThrottleDevice};

/// A file of a cgroup and what to write to it, in one write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Knob {
    /// As its hierarchy calls it (`blkio` on v1, `io` on v2).
    pub(crate) controller: String,
    pub(crate) file: String,
    pub(crate) value: String,
    /// The property that asks for it, as a JSON pointer below `/linux/resources`.
    pub(crate) property: String,
    pub(crate) missing: Missing,
}

/// What to do when the file, or its controller, isn't there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The limit can't be kept.
    Fail,
    /// It makes no difference: unlimited, or a default.
    Skip,
    /// The kernel may know it by another name.
    Instead { file: &'static str, value: String },
    /// It can't be kept, and runc does without: a warning.
    Warn,
}

/// -1 of an unsigned number is "not set": engines written in C have no other word for it.
fn given<T: PartialEq + From<u8> + std::ops::Not<Output = T> + Copy>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != !T::from(0))
}

/// The same, where zero is "not set" too.
fn set<T: PartialEq + From<u8> + std::ops::Not<Output = T> + Copy>(value: Option<T>) -> Option<T> {
    given(value).filter(|value| *value != T::from(0))
}

impl Knob {
    fn new(file: impl Into<String>, value: impl ToString, property: impl Into<String>) -> Self {
        let file = file.into();
        let controller = file.split('.').next().unwrap_or_default().to_owned();
        Self { controller, file, value: value.to_string(), property: property.into(), missing: Missing::Fail }
    }

    /// May be left out where the kernel doesn't have it, if `harmless`.
    fn skippable(mut self, harmless: bool) -> Self {
        if harmless {
            self.missing = Missing::Skip;
        }
        self
    }

    /// Whether a container can't do without its controller.
    pub(super) fn is_needed(&self) -> bool {
        !matches!(self.missing, Missing::Skip | Missing::Warn)
    }

    fn or(mut self, file: &'static str, value: impl ToString) -> Self {
        self.missing = Missing::Instead { file, value: value.to_string() };
        self
    }
}

/// The version of cgroups that a controller is to be had from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// Every knob of `resources`, in the order to write them. `home` says for each of v1's controller names which
/// version has it (on a hybrid host each controller is in one of the two).
pub(crate) fn knobs(resources: &Resources, home: impl Fn(&str) -> Version) -> Result<Vec<Knob>> {
    let mut out = Vec::new();
    if let Some(pids) = &resources.pids {
        self::pids(pids, &mut out);
    }
    if let Some(memory) = &resources.memory {
        check_memory(memory)?;
        match home("memory") {
            Version::V1 => memory_v1(memory, &mut out)?,
            Version::V2 => memory_v2(memory, &mut out),
        }
    }
    if let Some(io) = &resources.block_io {
        check_io(io)?;
        match home("blkio") {
            Version::V1 => io_v1(io, &mut out)?,
            Version::V2 => io_v2(io, &mut out)?,
        }
    }
    if let Some(cpu) = &resources.cpu {
        match home("cpu") {
            Version::V1 => cpu_v1(cpu, &mut out)?,
            Version::V2 => cpu_v2(cpu, &mut out)?,
        }
        cpuset(cpu, &mut out);
    }
    hugetlb(&resources.hugepage_limits, home("hugetlb"), &mut out)?;
    rdma(&resources.rdma, &mut out);
    if let Some(network) = &resources.network {
        self::network(network, home, &mut out)?;
    }
    Ok(out)
}

fn pids(pids: &Pids, out: &mut Vec<Knob>) {
    let Some(limit) = pids.limit else { return };
    // 0 becomes 1, which is as hard: the container has one process already (systemd doesn't take 0).
    let value = if limit < 0 { "max".to_owned() } else { limit.max(1).to_string() };
    out.push(Knob::new("pids.max", value, "pids/limit").skippable(limit < 0));
}

fn check_memory(memory: &Memory) -> Result<()> {
    let (limit, swap) = (memory.limit.unwrap_or(0), memory.swap.unwrap_or(0));
    let pointer = |name: &str| format!("/linux/resources/memory/{name}");
    for (name, value) in [("limit", limit), ("swap", swap), ("reservation", memory.reservation.unwrap_or(0))] {
        if value < -1 {
            return Err(invalid(pointer(name), format!("{value}, expected bytes or -1")));
        }
    }
    if swap > 0 && limit == 0 {
        return Err(invalid(pointer("swap"), format!("{swap} without memory.limit (it is memory and swap together)")));
    }
    if swap > 0 && limit > swap {
        let what = format!("{swap} is less than memory.limit {limit} (it is memory and swap together)");
        return Err(invalid(pointer("swap"), what));
    }
    Ok(())
}

/// What of `resources` has no effect, in words. What runc passes over without a word is a debug line only.
pub(crate) fn ignored(resources: &Resources, home: impl Fn(&str) -> Version) -> Vec<String> {
    let mut words = Vec::new();
    let Some(memory) = &resources.memory else { return words };
    let asked = |value: Option<i64>| value.is_some_and(|value| value != 0 && value != -1);
    if asked(memory.kernel) {
        words.push("/linux/resources/memory/kernel is ignored: the kernel has no such limit any more".to_owned());
    }
    if home("memory") == Version::V1 {
        return words;
    }
    if asked(memory.kernel_tcp) {
        let what = "/linux/resources/memory/kernelTCP is ignored: cgroup v2 counts it as memory and has no such limit";
        words.push(what.to_owned());
    }
    if given(memory.swappiness).is_some() || memory.disable_oom_killer == Some(true) {
        log::debug!("memory.swappiness and memory.disableOOMKiller are ignored: cgroup v2 has neither");
    }
    words
}

/// A warning where a limit leaves a program with one process.
pub(crate) fn alone(resources: &Resources) -> Option<String> {
    let limit = resources.pids.as_ref()?.limit.filter(|limit| (0..=1).contains(limit))?;
    let meant = if limit == 0 { " (0 is a limit as hard as 1)" } else { "" };
    Some(format!(
        "/linux/resources/pids/limit is {limit}{meant}: the program can start no other process or thread; -1 is no limit"
    ))
}

fn memory_v1(memory: &Memory, out: &mut Vec<Knob>) -> Result<()> {
    let limit = memory.limit.unwrap_or(0);
    let mut swap = memory.swap.unwrap_or(0);
    // Unlimited memory means unlimited memory and swap; the file isn't there without swap accounting.
    let implied = limit == -1 && swap == 0;
    if implied {
        swap = -1;
    }
    // A new cgroup is unlimited, so the smaller limit goes first; with an old one's limits the writer turns round.
    if limit != 0 {
        out.push(Knob::new("memory.limit_in_bytes", limit, "memory/limit").skippable(limit < 0));
    }
    if swap != 0 {
        out.push(Knob::new("memory.memsw.limit_in_bytes", swap, "memory/swap").skippable(swap < 0));
    }
    if let Some(low) = memory.reservation.filter(|low| *low != 0) {
        out.push(Knob::new("memory.soft_limit_in_bytes", low, "memory/reservation").skippable(low < 0));
    }
    if memory.disable_oom_killer == Some(true) {
        out.push(Knob::new("memory.oom_control", 1, "memory/disableOOMKiller"));
    }
    if let Some(tcp) = memory.kernel_tcp.filter(|tcp| *tcp != 0) {
        let mut knob = Knob::new("memory.kmem.tcp.limit_in_bytes", tcp, "memory/kernelTCP").skippable(tcp < 0);
        if tcp > 0 {
            knob.missing = Missing::Warn;
        }
        out.push(knob);
    }
    if let Some(swappiness) = given(memory.swappiness) {
        if swappiness > 100 {
            let what = format!("{swappiness}, expected 0 to 100");
            return Err(invalid("/linux/resources/memory/swappiness", what));
        }
        out.push(Knob::new("memory.swappiness", swappiness, "memory/swappiness"));
    }
    Ok(())
}

/// A number, or `max` for -1.
fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

fn memory_v2(memory: &Memory, out: &mut Vec<Knob>) {
    let (limit, swap) = (memory.limit.unwrap_or(0), memory.swap.unwrap_or(0));
    // config.json counts memory and swap together, v2 swap alone. Equal limits mean no swap at all.
    let alone = match (limit, swap) {
        (-1, 0) | (_, -1) => Some("max".to_owned()),
        (_, 0) => None,
        (-1, swap) => Some(swap.to_string()),
        (limit, swap) => Some((swap - limit).to_string()),
    };
    if let Some(value) = alone {
        // Without swap in the kernel there is nothing to limit, and nothing that "no swap" would forbid.
        let harmless = value == "max" || value == "0";
        out.push(Knob::new("memory.swap.max", value, "memory/swap").skippable(harmless));
    }
    if limit != 0 {
        out.push(Knob::new("memory.max", or_max(limit), "memory/limit").skippable(limit < 0));
    }
    if let Some(low) = memory.reservation.filter(|low| *low != 0) {
        out.push(Knob::new("memory.low", or_max(low), "memory/reservation"));
    }
}

const SHARES_MIN: u64 = 2;
const SHARES_MAX: u64 = 262_144;

fn cpu_v1(cpu: &Cpu, out: &mut Vec<Knob>) -> Result<()> {
    if let Some(shares) = set(cpu.shares) {
        // The kernel would clamp it and say nothing.
        if !(SHARES_MIN..=SHARES_MAX).contains(&shares) {
            let what = format!("{shares}, expected {SHARES_MIN} to {SHARES_MAX}");
            return Err(invalid("/linux/resources/cpu/shares", what));
        }
        out.push(Knob::new("cpu.shares", shares, "cpu/shares"));
    }
    let number = |name: &str, value: Option<u64>, file: &str, out: &mut Vec<Knob>| {
        if let Some(value) = set(value) {
            out.push(Knob::new(file, value, name));
        }
    };
    number("cpu/period", cpu.period, "cpu.cfs_period_us", out);
    if let Some(quota) = cpu.quota.filter(|quota| *quota != 0) {
        out.push(Knob::new("cpu.cfs_quota_us", quota, "cpu/quota").skippable(quota < 0));
    }
    burst(cpu, "cpu.cfs_burst_us", out);
    idle(cpu, out);
    number("cpu/realtimePeriod", cpu.realtime_period, "cpu.rt_period_us", out);
    if let Some(runtime) = cpu.realtime_runtime.filter(|runtime| *runtime != 0) {
        out.push(Knob::new("cpu.rt_runtime_us", runtime, "cpu/realtimeRuntime"));
    }
    Ok(())
}

/// Zero is written as well: an update takes the burst away with it.
fn burst(cpu: &Cpu, file: &str, out: &mut Vec<Knob>) {
    if let Some(burst) = given(cpu.burst) {
        out.push(Knob::new(file, burst, "cpu/burst").skippable(burst == 0));
    }
}

/// After shares or weight, which the kernel refuses to an idle group. Zero is written as well: an update makes the group
/// an ordinary one again.
fn idle(cpu: &Cpu, out: &mut Vec<Knob>) {
    if let Some(idle) = cpu.idle {
        out.push(Knob::new("cpu.idle", idle, "cpu/idle").skippable(idle == 0));
    }
}

fn cpu_v2(cpu: &Cpu, out: &mut Vec<Knob>) -> Result<()> {
    if cpu.realtime_runtime.is_some_and(|value| value != 0) || set(cpu.realtime_period).is_some() {
        let what = "real-time limits need the cpu controller of cgroup v1, this host has it on v2";
        return Err(invalid("/linux/resources/cpu/realtimeRuntime", what));
    }
    if let Some(shares) = set(cpu.shares) {
        out.push(Knob::new("cpu.weight", weight(shares), "cpu/shares"));
    }
    let (quota, period) = (cpu.quota.unwrap_or(0), set(cpu.period).unwrap_or(0));
    if quota != 0 || period != 0 {
        let period = if period == 0 { 100_000 } else { period };
        let limit = if quota > 0 { quota.to_string() } else { "max".to_owned() };
        let name = if quota == 0 { "cpu/period" } else { "cpu/quota" };
        out.push(Knob::new("cpu.max", format!("{limit} {period}"), name).skippable(quota <= 0));
    }
    burst(cpu, "cpu.max.burst", out);
    idle(cpu, out);
    Ok(())
}

/// v1's shares (2 to 262144, default 1024) as v2's weight (1 to 10000, default 100): a quadratic curve through
/// the logarithms of these three points, as runc 1.3.2 and crun 1.23 have it. The former linear one made 39 of
/// the default.
fn weight(shares: u64) -> u64 {
    if shares <= SHARES_MIN {
        return 1;
    }
    if shares >= SHARES_MAX {
        return 10_000;
    }
    #[allow(clippy::cast_precision_loss)] // less than 2^18
    let l = (shares as f64).log2();
    let exact = 10_f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0);
    // Rounded up; what libm adds in the last digits must not make 101 of the 100 that 1024 stands for.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 1 to 10000
    let rounded = (exact - 1e-9).ceil() as u64;
    rounded
}

fn cpuset(cpu: &Cpu, out: &mut Vec<Knob>) {
    for (file, value, name) in [("cpuset.cpus", &cpu.cpus, "cpu/cpus"), ("cpuset.mems", &cpu.mems, "cpu/mems")] {
        if !value.is_empty() {
            out.push(Knob::new(file, value, name));
        }
    }
}

fn check_io(io: &BlockIo) -> Result<()> {
    let check = |pointer: &str, weight: Option<u16>| match weight {
        // CFQ's, gone since Linux 5.0, began at 10.
        None | Some(0..=1000 | u16::MAX) => Ok(()),
        Some(weight) => {
            Err(invalid(format!("/linux/resources/blockIO/{pointer}"), format!("{weight}, expected 1 to 1000")))
        }
    };
    check("weight", io.weight)?;
    check("leafWeight", io.leaf_weight)?;
    for (index, device) in io.weight_device.iter().enumerate() {
        check(&format!("weightDevice/{index}/weight"), device.weight)?;
        check(&format!("weightDevice/{index}/leafWeight"), device.leaf_weight)?;
    }
    Ok(())
}

/// The four lists of throttles: config.json's name, v1's file, v2's key in io.max.
fn throttles(io: &BlockIo) -> [(&'static str, &'static str, &'static str, &[ThrottleDevice]); 4] {
    [
        ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps", &io.throttle_read_bps_device),
        ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps", &io.throttle_write_bps_device),
        ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops", &io.throttle_read_iops_device),
        ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops", &io.throttle_write_iops_device),
    ]
}

fn io_v1(io: &BlockIo, out: &mut Vec<Knob>) -> Result<()> {
    // Files without a scheduler's name were CFQ's; since Linux 5.0 only BFQ has weights.
    if let Some(weight) = set(io.weight) {
        out.push(Knob::new("blkio.weight", weight, "blockIO/weight").or("blkio.bfq.weight", weight));
    }
    if let Some(weight) = set(io.leaf_weight) {
        out.push(Knob::new("blkio.leaf_weight", weight, "blockIO/leafWeight"));
    }
    for (index, device) in io.weight_device.iter().enumerate() {
        let name = |field: &str| format!("blockIO/weightDevice/{index}/{field}");
        if let Some(weight) = set(device.weight) {
            let value = format!("{}:{} {weight}", device.major, device.minor);
            let knob = Knob::new("blkio.weight_device", &value, name("weight"));
            out.push(knob.or("blkio.bfq.weight_device", value));
        }
        if let Some(weight) = set(device.leaf_weight) {
            let value = format!("{}:{} {weight}", device.major, device.minor);
            out.push(Knob::new("blkio.leaf_weight_device", value, name("leafWeight")));
        }
    }
    for (name, file, _, list) in throttles(io) {
        for (index, device) in list.iter().enumerate() {
            // The kernel keeps 32 bits of these and cuts off the others: 2^32 would be no limit, one more a stop.
            if file.contains("iops") && device.rate > u64::from(u32::MAX) {
                let pointer = format!("/linux/resources/blockIO/{name}/{index}/rate");
                return Err(invalid(pointer, format!("{}, expected at most {} on cgroup v1", device.rate, u32::MAX)));
            }
            let value = format!("{}:{} {}", device.major, device.minor, device.rate);
            out.push(Knob::new(file, value, format!("blockIO/{name}/{index}")));
        }
    }
    Ok(())
}

fn io_v2(io: &BlockIo, out: &mut Vec<Knob>) -> Result<()> {
    // BFQ keeps v1's scale, io.weight (the iocost controller) has 1 to 10000.
    let wide = |weight: u16| 1 + u64::from(weight).saturating_sub(10) * 9999 / 990;
    let leaf = io.weight_device.iter().any(|device| set(device.leaf_weight).is_some());
    if leaf || set(io.leaf_weight).is_some() {
        return Err(invalid("/linux/resources/blockIO", "leafWeight exists on cgroup v1 only, this host has v2"));
    }
    if let Some(weight) = set(io.weight) {
        let knob = Knob::new("io.bfq.weight", weight, "blockIO/weight");
        out.push(knob.or("io.weight", wide(weight)));
    }
    for (index, device) in io.weight_device.iter().enumerate() {
        if let Some(weight) = set(device.weight) {
            let (major, minor) = (device.major, device.minor);
            let name = format!("blockIO/weightDevice/{index}/weight");
            let knob = Knob::new("io.bfq.weight", format!("{major}:{minor} {weight}"), name);
            out.push(knob.or("io.weight", format!("{major}:{minor} {}", wide(weight))));
        }
    }
    for (name, _, key, list) in throttles(io) {
        for (index, device) in list.iter().enumerate() {
            // v1 takes 0 as "no limit", v2 refuses it.
            let rate = if device.rate == 0 { "max".to_owned() } else { device.rate.to_string() };
            let value = format!("{}:{} {key}={rate}", device.major, device.minor);
            out.push(Knob::new("io.max", value, format!("blockIO/{name}/{index}")));
        }
    }
    Ok(())
}

fn hugetlb(limits: &[HugepageLimit], version: Version, out: &mut Vec<Knob>) -> Result<()> {
    for (index, HugepageLimit { page_size, limit }) in limits.iter().enumerate() {
        if page_size.is_empty() || page_size.contains(['/', '.', '\0']) {
            let pointer = format!("/linux/resources/hugepageLimits/{index}/pageSize");
            return Err(invalid(pointer, format!("{page_size:?}, expected a size as the kernel spells it (\"2MB\")")));
        }
        let suffix = if version == Version::V1 { "limit_in_bytes" } else { "max" };
        let name = format!("hugepageLimits/{index}");
        out.push(Knob::new(format!("hugetlb.{page_size}.{suffix}"), limit, &name));
        // What is reserved counts as well, where the kernel can (since 5.7).
        out.push(Knob::new(format!("hugetlb.{page_size}.rsvd.{suffix}"), limit, name).skippable(true));
    }
    Ok(())
}

fn rdma(devices: &BTreeMap<String, Rdma>, out: &mut Vec<Knob>) {
    for (device, limit) in devices {
        let mut value = device.clone();
        if let Some(handles) = given(limit.hca_handles) {
            value.push_str(&format!(" hca_handle={handles}"));
        }
        if let Some(objects) = given(limit.hca_objects) {
            value.push_str(&format!(" hca_object={objects}"));
        }
        if value.len() > device.len() {
            out.push(Knob::new("rdma.max", value, format!("rdma/{device}")));
        }
    }
}

fn network(network: &Network, home: impl Fn(&str) -> Version, out: &mut Vec<Knob>) -> Result<()> {
    let only_v1 = |controller: &str, name: &str| match home(controller) {
        Version::V1 => Ok(()),
        Version::V2 => {
            let what = format!("needs the {controller} controller of cgroup v1, which this host doesn't have");
            Err(invalid(format!("/linux/resources/network/{name}"), what))
        }
    };
    if let Some(class) = set(network.class_id) {
        only_v1("net_cls", "classID")?;
        out.push(Knob::new("net_cls.classid", class, "network/classID"));
    }
    for (index, interface) in network.priorities.iter().enumerate() {
        only_v1("net_prio", "priorities")?;
        let value = format!("{} {}", interface.name, interface.priority);
        out.push(Knob::new("net_prio.ifpriomap", value, format!("network/priorities/{index}")));
    }
    Ok(())
}

/// v2's files by name, to be written after everything else, a write for each line. They reach the kernel as they
/// are, so a name must not leave the cgroup.
pub(crate) fn unified(files: &BTreeMap<String, String>) -> Result<Vec<Knob>> {
    let mut out = Vec::new();
    for (file, value) in files {
        let pointer = || format!("/linux/resources/unified/{}", file.replace('~', "~0").replace('/', "~1"));
        if file.contains(['/', '\0']) || file.contains("..") {
            return Err(invalid(pointer(), "expected the plain name of a file of the cgroup"));
        }
        if !file.split_once('.').is_some_and(|(controller, rest)| !controller.is_empty() && !rest.is_empty()) {
            return Err(invalid(pointer(), "expected a name of the form CONTROLLER.PARAMETER"));
        }
        for line in value.lines().filter(|line| !line.is_empty()) {
            out.push(Knob::new(file, line, format!("unified/{file}")));
        }
    }
    Ok(out)
}

#[cfg(test)]
#[path = "knobs_tests.rs"]
mod tests;
