//! What systemd is told of a unit's limits, pure.
//!
//! systemd writes the files of a unit's cgroup again when it reloads, from what it knows of the unit; a limit that only
//! the file has would be gone then. So every knob that a property stands for is told as one, besides being written:
//! the file's value is the exact one. What systemd has no property for it leaves alone.

use anyhow::Result;

use super::wire::Value;
use crate::cgroup::knobs::{Knob, Missing};

/// A property of a unit, as systemd's D-Bus interface has it (org.freedesktop.systemd1(5)).
pub(crate) type Property = (String, Value);

/// "No limit", to systemd.
const INFINITY: u64 = u64::MAX;

/// The weight to tell where BFQ is there: systemd writes one of its own making to BFQ's file.
pub(crate) fn for_bfq<'a>(knobs: impl IntoIterator<Item = &'a Knob>) -> Option<Property> {
    let weight = |knob: &Knob| knob.value.parse().ok().filter(|_| knob.file == "io.bfq.weight");
    let weight = knobs.into_iter().filter_map(weight).last()?;
    Some(("IOWeight".to_owned(), Value::U64(as_bfq(weight))))
}

/// The properties that stand for knobs. What a later knob says of one counts.
pub(crate) fn of_knobs<'a>(knobs: impl IntoIterator<Item = &'a Knob>) -> Vec<Property> {
    let mut found: Vec<Property> = Vec::new();
    let (mut quota, mut period) = (None, None);
    for knob in knobs {
        match knob.file.as_str() {
            "cpu.max" => (quota, period) = cpu_max(&knob.value, period),
            "cpu.cfs_quota_us" => quota = Some(knob.value.parse().unwrap_or(INFINITY)),
            "cpu.cfs_period_us" => period = knob.value.parse().ok(),
            file => {
                if let Some((name, value)) = of_knob(file, knob) {
                    set(&mut found, name, value);
                }
            }
        }
    }
    if let Some(period) = period {
        set(&mut found, "CPUQuotaPeriodUSec", Value::U64(period));
    }
    if let Some(quota) = quota.or(period.map(|_| INFINITY)) {
        set(&mut found, "CPUQuotaPerSecUSec", Value::U64(per_second(quota, period)));
    }
    found
}

fn of_knob(file: &str, knob: &Knob) -> Option<(&'static str, Value)> {
    let value = knob.value.as_str();
    Some(match file {
        "memory.max" => ("MemoryMax", bytes(value)?),
        "memory.high" => ("MemoryHigh", bytes(value)?),
        "memory.low" => ("MemoryLow", bytes(value)?),
        "memory.min" => ("MemoryMin", bytes(value)?),
        "memory.zswap.max" => ("MemoryZSwapMax", bytes(value)?),
        "memory.zswap.writeback" => ("MemoryZSwapWriteback", flag(value)?),
        // It writes the file with every reload, by the unit's policy.
        "memory.oom.group" => (OOM_POLICY, Value::str(if value == "1" { "kill" } else { "continue" })),
        "memory.swap.max" => ("MemorySwapMax", bytes(value)?),
        "memory.limit_in_bytes" => ("MemoryLimit", bytes(value)?),
        "pids.max" => ("TasksMax", bytes(value)?),
        "cpu.weight" => ("CPUWeight", number(value)?),
        "cpu.weight.nice" => ("CPUWeight", weight_of_nice(value)?),
        "cpu.shares" => ("CPUShares", number(value)?),
        // Since systemd 252, which writes it again; an older one doesn't know the file (see `Manager::start`).
        "cpu.idle" if value == "1" => (IDLE.0, IDLE.1),
        "cpuset.cpus" => ("AllowedCPUs", cpus(value)?),
        "cpuset.mems" => ("AllowedMemoryNodes", cpus(value)?),
        "blkio.weight" => ("BlockIOWeight", number(value)?),
        "io.weight" => ("IOWeight", number(value.strip_prefix("default ").unwrap_or(value))?),
        // systemd makes BFQ's weight of its own, of which the file is written again with what was asked.
        "io.bfq.weight" => match &knob.missing {
            Missing::Instead { value, .. } => ("IOWeight", number(value)?),
            _ => ("IOWeight", Value::U64(as_bfq(value.strip_prefix("default ").unwrap_or(value).parse().ok()?))),
        },
        _ => return None,
    })
}

/// The property of an idle group.
pub(super) const IDLE: (&str, Value) = ("CPUWeight", Value::U64(0));

/// What is done when the kernel kills for lack of memory.
pub(super) const OOM_POLICY: &str = "OOMPolicy";

fn flag(text: &str) -> Option<Value> {
    match text {
        "0" => Some(Value::Bool(false)),
        "1" => Some(Value::Bool(true)),
        _ => None,
    }
}

/// The weight that the kernel has for a nice value: a step is a quarter (sched_prio_to_weight, where 0 has 1024), and
/// `cpu.weight` has 100 for 0.
fn weight_of_nice(text: &str) -> Option<Value> {
    #[rustfmt::skip]
    const WEIGHTS: [u64; 40] = [
        88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916,
        9548, 7620, 6100, 4904, 3906, 3121, 2501, 1991, 1586, 1277,
        1024, 820, 655, 526, 423, 335, 272, 215, 172, 137,
        110, 87, 70, 56, 45, 36, 29, 23, 18, 15,
    ];
    let nice: i64 = text.parse().ok()?;
    let weight = WEIGHTS.get(usize::try_from(nice.checked_add(20)?).ok()?)?;
    Some(Value::U64((weight * 100 + 512) / 1024))
}

/// The weight of which systemd makes this one of BFQ (its BFQ_WEIGHT).
fn as_bfq(weight: u64) -> u64 {
    if weight <= 100 { weight } else { 100 + (weight - 100) * 11 }
}

/// Sets one of a list, in place of what is there.
pub(super) fn set(list: &mut Vec<Property>, name: &str, value: Value) {
    match list.iter_mut().find(|(had, _)| had == name) {
        Some((_, had)) => *had = value,
        None => list.push((name.to_owned(), value)),
    }
}

fn number(text: &str) -> Option<Value> {
    text.parse().ok().map(Value::U64)
}

/// A number as the kernel reads it: `max`, -1, or with a suffix (memparse).
fn bytes(text: &str) -> Option<Value> {
    if text == "max" || text == "-1" {
        return Some(Value::U64(INFINITY));
    }
    let shift = match text.bytes().last()?.to_ascii_uppercase() {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        b'T' => 40,
        b'P' => 50,
        b'E' => 60,
        _ => return number(text),
    };
    let value: u64 = text.get(..text.len() - 1)?.parse().ok()?;
    value.checked_mul(1 << shift).map(Value::U64)
}

/// `QUOTA [PERIOD]`; without a period the one before stays.
fn cpu_max(text: &str, before: Option<u64>) -> (Option<u64>, Option<u64>) {
    let mut words = text.split_ascii_whitespace();
    let quota = words.next().and_then(|word| if word == "max" { Some(INFINITY) } else { word.parse().ok() });
    (quota, words.next().and_then(|word| word.parse().ok()).or(before))
}

/// A percent of a CPU, in microseconds of a second.
const PERCENT: u128 = 10_000;

fn exactly(quota: u64, period: Option<u64>) -> u128 {
    u128::from(quota) * 1_000_000 / u128::from(period.unwrap_or(100_000).max(1))
}

/// Microseconds of a second. systemd keeps whole percents of a CPU (10 ms of a second) over a reload, and cuts off the
/// rest; rounded up, a quota never gets less than it was given.
fn per_second(quota: u64, period: Option<u64>) -> u64 {
    if quota == INFINITY {
        return INFINITY;
    }
    u64::try_from(exactly(quota, period).div_ceil(PERCENT) * PERCENT).unwrap_or(INFINITY)
}

/// Says what a reload of systemd makes of a quota that isn't whole percents; loudly where that is a tenth or more.
pub(super) fn say_inexact<'a>(knobs: impl IntoIterator<Item = &'a Knob>) {
    let cpu_max = knobs.into_iter().filter(|knob| knob.file == "cpu.max").last();
    let Some((knob, (Some(quota), period))) = cpu_max.map(|knob| (knob, cpu_max_of(knob))) else { return };
    let (exact, kept) = (exactly(quota, period), u128::from(per_second(quota, period)));
    let level = match kept {
        _ if quota == INFINITY || kept == exact => return,
        _ if kept * 10 >= exact * 11 => log::Level::Warn,
        _ => log::Level::Debug,
    };
    log::log!(
        level,
        "/linux/resources/{}: systemd keeps whole percents of a CPU: when it reloads, the quota of {exact} becomes {kept} \
         microseconds of a second",
        knob.property
    );
}

fn cpu_max_of(knob: &Knob) -> (Option<u64>, Option<u64>) {
    cpu_max(&knob.value, None)
}

/// `0-3,7` as a mask, the first CPU the lowest bit of the first byte. None for what systemd can't be told.
fn cpus(list: &str) -> Option<Value> {
    /// More than any kernel has (CONFIG_NR_CPUS).
    const MOST: usize = 65536;
    let mut mask: Vec<u8> = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= MOST || first > last {
            return None;
        }
        mask.resize(mask.len().max(last / 8 + 1), 0);
        for cpu in first..=last {
            if let Some(byte) = mask.get_mut(cpu / 8) {
                *byte |= 1 << (cpu % 8);
            }
        }
    }
    Some(Value::Array("y".into(), mask.into_iter().map(Value::Byte).collect()))
}

/// What every scope is told, whatever its limits.
pub(super) fn of_scope(id: &str, slice: &str) -> Vec<Property> {
    let mut list = Vec::new();
    set(&mut list, "Description", Value::Str(format!("tare container {id}")));
    set(&mut list, "Slice", Value::str(slice));
    // The cgroup is the container's to divide; systemd keeps out of it, and lets others attach eBPF programs.
    set(&mut list, "Delegate", Value::Bool(true));
    for controller in ["Memory", "CPU", "IO", "Tasks"] {
        set(&mut list, &format!("{controller}Accounting"), Value::Bool(true));
    }
    // Without: a shutdown would stop the container before the engine that runs it.
    set(&mut list, "DefaultDependencies", Value::Bool(false));
    list
}

/// Checks the name that an annotation gives a property: letters, as all of systemd's are.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.len() >= 3 && name.chars().all(|c| c.is_ascii_alphabetic()) {
        Ok(())
    } else {
        Err("expected the name of a property of systemd, at least three letters")
    }
}

#[cfg(test)]
#[path = "properties_tests.rs"]
mod tests;
