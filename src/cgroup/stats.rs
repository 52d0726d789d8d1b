//! What a container uses, read from its cgroup's files, in the shape that `runc events` prints: engines parse it.
//!
//! Units are runc's: bytes, nanoseconds, and for v2 the values that stand for v1's (swap includes memory; 0 processes is
//! no limit). What the kernel or the host doesn't have is left out, or zero, as there.

use std::collections::BTreeMap;

use serde::Serialize;

use super::dir::Dir;
use super::group::Group;

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn zero(value: &u64) -> bool {
    *value == 0
}

/// The `data` of an event of type `stats`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Stats {
    cpu: Cpu,
    cpuset: CpuSet,
    memory: Memory,
    pids: Pids,
    blkio: Blkio,
    hugetlb: BTreeMap<String, Hugetlb>,
    /// Nothing, as long as Intel RDT isn't supported.
    intel_rdt: BTreeMap<String, ()>,
    /// runc has those of interfaces that it made; config.json knows none.
    network_interfaces: Option<()>,
}

/// Pressure stall information (the kernel's accounting/psi.rst).
#[derive(Debug, Default, Serialize)]
struct Psi {
    some: PsiLine,
    full: PsiLine,
}

#[derive(Debug, Default, Serialize)]
struct PsiLine {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    total: u64,
}

#[derive(Debug, Default, Serialize)]
struct Cpu {
    usage: CpuUsage,
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

/// Nanoseconds.
#[derive(Debug, Default, Serialize)]
struct CpuUsage {
    #[serde(skip_serializing_if = "zero")]
    total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_user: Vec<u64>,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "zero")]
    periods: u64,
    #[serde(skip_serializing_if = "zero")]
    throttled_periods: u64,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "zero")]
    throttled_time: u64,
}

#[derive(Debug, Default, Serialize)]
struct CpuSet {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cpus: Vec<u16>,
    cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mems: Vec<u16>,
    mem_hardwall: u64,
    mem_exclusive: u64,
    memory_migrate: u64,
    memory_spread_page: u64,
    memory_spread_slab: u64,
    memory_pressure: u64,
    sched_load_balance: u64,
    sched_relax_domain_level: i64,
}

#[derive(Debug, Default, Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "zero")]
    cache: u64,
    usage: MemoryEntry,
    swap: MemoryEntry,
    kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: MemoryEntry,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Clone, Default, Serialize)]
struct MemoryEntry {
    limit: u64,
    #[serde(skip_serializing_if = "zero")]
    usage: u64,
    #[serde(skip_serializing_if = "zero")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Default, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "zero")]
    current: u64,
    #[serde(skip_serializing_if = "zero")]
    limit: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_queue_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_wait_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_merged_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sectors_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct BlkioEntry {
    #[serde(skip_serializing_if = "zero")]
    major: u64,
    #[serde(skip_serializing_if = "zero")]
    minor: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    op: String,
    #[serde(skip_serializing_if = "zero")]
    value: u64,
}

#[derive(Debug, Default, Serialize)]
struct Hugetlb {
    #[serde(skip_serializing_if = "zero")]
    usage: u64,
    #[serde(skip_serializing_if = "zero")]
    max: u64,
    failcnt: u64,
}

/// Reads all of it; each controller from the hierarchy that has it.
pub(super) fn read(group: &Group) -> Stats {
    let mut stats = Stats::default();
    let on_v1 = |controller: &str| group.with_controller(controller);
    if let Some(dir) = on_v1("cpuacct") {
        stats.cpu.usage = cpu_usage_v1(dir);
    }
    if let Some(dir) = on_v1("cpu") {
        stats.cpu.throttling = throttling(dir, "throttled_time", 1);
    }
    if let Some(dir) = on_v1("cpuset") {
        stats.cpuset = cpuset_v1(dir);
    }
    if let Some(dir) = on_v1("memory") {
        stats.memory = memory_v1(dir);
    }
    if let Some(dir) = on_v1("blkio") {
        stats.blkio = blkio_v1(dir);
    }
    if let Some(dir) = on_v1("pids").or(group.v2()) {
        stats.pids = pids(dir);
    }
    if let Some(dir) = on_v1("hugetlb") {
        stats.hugetlb = hugetlb(dir, "usage_in_bytes");
    }
    let Some(dir) = group.v2() else { return stats };
    if on_v1("cpu").is_none() && on_v1("cpuacct").is_none() {
        stats.cpu = cpu_v2(dir);
    }
    if on_v1("memory").is_none() {
        stats.memory = memory_v2(dir);
    }
    if on_v1("blkio").is_none() {
        stats.blkio = blkio_v2(dir);
    }
    if on_v1("hugetlb").is_none() {
        stats.hugetlb = hugetlb(dir, "current");
    }
    stats
}

/// A file with one number; `max` is the largest.
fn number(dir: &Dir, file: &str) -> Option<u64> {
    let text = dir.read(file).ok()?;
    match text.trim_end() {
        "max" => Some(u64::MAX),
        text => text.parse().ok(),
    }
}

/// A file of `key value` lines.
fn flat(dir: &Dir, file: &str) -> BTreeMap<String, u64> {
    let text = dir.read(file).unwrap_or_default();
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// One of v2's `.pressure` files; none without them, or with `psi=0`.
fn psi(dir: &Dir, file: &str) -> Option<Psi> {
    let text = dir.read(file).ok()?;
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut words = line.split(' ');
        let place = match words.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => place.avg10 = value.parse().unwrap_or_default(),
                "avg60" => place.avg60 = value.parse().unwrap_or_default(),
                "avg300" => place.avg300 = value.parse().unwrap_or_default(),
                "total" => place.total = value.parse().unwrap_or_default(),
                _ => (),
            }
        }
    }
    Some(psi)
}

fn cpu_usage_v1(dir: &Dir) -> CpuUsage {
    /// USER_HZ is 100 on every architecture that tare is built for.
    const NANOSECONDS_PER_TICK: u64 = 10_000_000;
    let ticks = flat(dir, "cpuacct.stat");
    let ticks = |key: &str| ticks.get(key).copied().unwrap_or_default() * NANOSECONDS_PER_TICK;
    let words = |text: String| text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let mut usage = CpuUsage {
        total: number(dir, "cpuacct.usage").unwrap_or_default(),
        percpu: dir.read("cpuacct.usage_percpu").map(words).unwrap_or_default(),
        kernel: ticks("system"),
        user: ticks("user"),
        ..CpuUsage::default()
    };
    // `cpu user system`, then a line for each.
    for line in dir.read("cpuacct.usage_all").unwrap_or_default().lines().skip(1) {
        let fields: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        if let [_, user, system] = fields[..] {
            usage.percpu_user.push(user);
            usage.percpu_kernel.push(system);
        }
    }
    usage
}

/// `unit`: nanoseconds in one of `time`.
fn throttling(dir: &Dir, time: &str, unit: u64) -> Throttling {
    let stat = flat(dir, "cpu.stat");
    let get = |key: &str| stat.get(key).copied().unwrap_or_default();
    Throttling {
        periods: get("nr_periods"),
        throttled_periods: get("nr_throttled"),
        throttled_time: get(time).saturating_mul(unit),
    }
}

fn cpu_v2(dir: &Dir) -> Cpu {
    let stat = flat(dir, "cpu.stat");
    let nanoseconds = |key: &str| stat.get(key).copied().unwrap_or_default().saturating_mul(1000);
    Cpu {
        usage: CpuUsage {
            total: nanoseconds("usage_usec"),
            kernel: nanoseconds("system_usec"),
            user: nanoseconds("user_usec"),
            ..CpuUsage::default()
        },
        throttling: throttling(dir, "throttled_usec", 1000),
        psi: psi(dir, "cpu.pressure"),
    }
}

fn cpuset_v1(dir: &Dir) -> CpuSet {
    let get = |file: &str| number(dir, file).unwrap_or_default();
    let list = |file: &str| dir.read(file).map(|text| numbers(text.trim_end())).unwrap_or_default();
    let level = dir.read("cpuset.sched_relax_domain_level").ok();
    CpuSet {
        cpus: list("cpuset.cpus"),
        cpu_exclusive: get("cpuset.cpu_exclusive"),
        mems: list("cpuset.mems"),
        mem_hardwall: get("cpuset.mem_hardwall"),
        mem_exclusive: get("cpuset.mem_exclusive"),
        memory_migrate: get("cpuset.memory_migrate"),
        memory_spread_page: get("cpuset.memory_spread_page"),
        memory_spread_slab: get("cpuset.memory_spread_slab"),
        memory_pressure: get("cpuset.memory_pressure"),
        sched_load_balance: get("cpuset.sched_load_balance"),
        sched_relax_domain_level: level.and_then(|text| text.trim_end().parse().ok()).unwrap_or_default(),
    }
}

/// A list of the kernel's, `0-2,7`, one by one.
fn numbers(list: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

fn memory_v1(dir: &Dir) -> Memory {
    let raw = flat(dir, "memory.stat");
    let entry = |name: &str| {
        let get = |file: &str| number(dir, &format!("memory.{name}{file}")).unwrap_or_default();
        MemoryEntry {
            limit: get("limit_in_bytes"),
            usage: get("usage_in_bytes"),
            max: get("max_usage_in_bytes"),
            failcnt: get("failcnt"),
        }
    };
    Memory {
        cache: raw.get("cache").copied().unwrap_or_default(),
        usage: entry(""),
        swap: entry("memsw."),
        kernel: entry("kmem."),
        kernel_tcp: entry("kmem.tcp."),
        raw,
        psi: None,
    }
}

fn memory_v2(dir: &Dir) -> Memory {
    let raw = flat(dir, "memory.stat");
    let entry = |name: &str| {
        let usage = number(dir, &format!("{name}.current"))?;
        let get = |file: &str| number(dir, &format!("{name}.{file}")).unwrap_or_default();
        // memory.peak since Linux 5.19, memory.swap.peak since 6.5.
        Some(MemoryEntry { limit: get("max"), usage, max: get("peak"), failcnt: 0 })
    };
    let usage = entry("memory").unwrap_or_default();
    let mut swap = entry("memory.swap").unwrap_or_default();
    swap.usage = swap.usage.saturating_add(usage.usage);
    swap.limit = swap.limit.saturating_add(usage.limit);
    // The peaks of the two weren't at one time.
    swap.max = 0;
    Memory {
        cache: raw.get("file").copied().unwrap_or_default(),
        usage,
        swap,
        raw,
        psi: psi(dir, "memory.pressure"),
        ..Memory::default()
    }
}

fn pids(dir: &Dir) -> Pids {
    let limit = number(dir, "pids.max").filter(|limit| *limit != u64::MAX);
    // Without the controller the processes are counted, as runc does.
    let count = || dir.pids().ok()?.len().try_into().ok();
    let current = number(dir, "pids.current").or_else(count);
    Pids { current: current.unwrap_or_default(), limit: limit.unwrap_or_default() }
}

/// From the first scheduler's files that tell anything, in runc's order.
fn blkio_v1(dir: &Dir) -> Blkio {
    let list = |file: &str| dir.read(file).map(|text| entries(&text)).unwrap_or_default();
    for prefix in ["blkio.bfq.", "blkio."] {
        let serviced = list(&format!("{prefix}io_serviced_recursive"));
        if serviced.is_empty() {
            continue;
        }
        let list = |name: &str| list(&format!("{prefix}{name}_recursive"));
        return Blkio {
            io_service_bytes_recursive: list("io_service_bytes"),
            io_serviced_recursive: serviced,
            io_queue_recursive: list("io_queued"),
            io_service_time_recursive: list("io_service_time"),
            io_wait_time_recursive: list("io_wait_time"),
            io_merged_recursive: list("io_merged"),
            io_time_recursive: list("time"),
            sectors_recursive: list("sectors"),
            psi: None,
        };
    }
    let either = |name: &str| {
        let recursive = list(&format!("blkio.throttle.{name}_recursive"));
        if recursive.is_empty() { list(&format!("blkio.throttle.{name}")) } else { recursive }
    };
    Blkio {
        io_service_bytes_recursive: either("io_service_bytes"),
        io_serviced_recursive: either("io_serviced"),
        ..Blkio::default()
    }
}

/// `8:0 Read 1282048` or `8:0 6792` lines; the sum at the end isn't one.
fn entries(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let (op, value) = rest.split_once(' ').unwrap_or(("", rest));
        Some(BlkioEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_owned(),
            value: value.trim().parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

/// io.stat, `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`, as v1's two tables.
fn blkio_v2(dir: &Dir) -> Blkio {
    let mut blkio = Blkio { psi: psi(dir, "io.pressure"), ..Blkio::default() };
    for line in dir.read("io.stat").unwrap_or_default().lines() {
        let Some((device, rest)) = line.split_once(' ') else { continue };
        for (key, value) in rest.split(' ').filter_map(|word| word.split_once('=')) {
            let (op, table) = match key {
                "rbytes" => ("Read", &mut blkio.io_service_bytes_recursive),
                "wbytes" => ("Write", &mut blkio.io_service_bytes_recursive),
                "rios" => ("Read", &mut blkio.io_serviced_recursive),
                "wios" => ("Write", &mut blkio.io_serviced_recursive),
                _ => continue,
            };
            table.extend(entries(&format!("{device} {op} {value}")));
        }
    }
    blkio
}

/// A page size is a file: `hugetlb.2MB.current`, on v1 `hugetlb.2MB.usage_in_bytes`.
fn hugetlb(dir: &Dir, usage_file: &str) -> BTreeMap<String, Hugetlb> {
    let names = std::fs::read_dir(dir.path()).into_iter().flatten().flatten();
    let sizes = names.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(usage_file)?.strip_suffix('.')?;
        (!size.contains('.')).then(|| size.to_owned())
    });
    let read = |size: String| {
        let get = |file: &str| number(dir, &format!("hugetlb.{size}.{file}"));
        let failures = get("failcnt").or_else(|| dir.count(&format!("hugetlb.{size}.events"), "max"));
        let usage = Hugetlb {
            usage: get(usage_file).unwrap_or_default(),
            max: get("max_usage_in_bytes").unwrap_or_default(),
            failcnt: failures.unwrap_or_default(),
        };
        (size, usage)
    };
    sizes.map(read).collect()
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
