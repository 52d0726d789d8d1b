//! Names of limits and of scheduling, as the numbers that system calls take (config.md, "POSIX process" and
//! "Linux Process"; config-linux.md, "Personality").
//!
//! Pure. What can't be honoured is an error that names the property; [`crate::spec::validate`] asks these
//! functions, so that a plan never meets one.

use anyhow::Result;
use nix::sys::resource::Resource;

use crate::error::invalid;
use crate::spec::validate::hint;
use crate::spec::{IoPriority, Personality, Rlimit, Scheduler, User};

/// The resources of setrlimit(2), sorted.
const RLIMITS: &[(&str, Resource)] = &[
    ("RLIMIT_AS", Resource::RLIMIT_AS),
    ("RLIMIT_CORE", Resource::RLIMIT_CORE),
    ("RLIMIT_CPU", Resource::RLIMIT_CPU),
    ("RLIMIT_DATA", Resource::RLIMIT_DATA),
    ("RLIMIT_FSIZE", Resource::RLIMIT_FSIZE),
    ("RLIMIT_LOCKS", Resource::RLIMIT_LOCKS),
    ("RLIMIT_MEMLOCK", Resource::RLIMIT_MEMLOCK),
    ("RLIMIT_MSGQUEUE", Resource::RLIMIT_MSGQUEUE),
    ("RLIMIT_NICE", Resource::RLIMIT_NICE),
    ("RLIMIT_NOFILE", Resource::RLIMIT_NOFILE),
    ("RLIMIT_NPROC", Resource::RLIMIT_NPROC),
    ("RLIMIT_RSS", Resource::RLIMIT_RSS),
    ("RLIMIT_RTPRIO", Resource::RLIMIT_RTPRIO),
    ("RLIMIT_RTTIME", Resource::RLIMIT_RTTIME),
    ("RLIMIT_SIGPENDING", Resource::RLIMIT_SIGPENDING),
    ("RLIMIT_STACK", Resource::RLIMIT_STACK),
];

/// The kernel's include/uapi/linux/sched.h; libc has no `SCHED_ISO` and `SCHED_DEADLINE` for Linux.
const POLICIES: &[(&str, u32)] = &[
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

/// The same header; a bit each.
const SCHED_FLAGS: &[(&str, u64)] = &[
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

/// The kernel's include/uapi/linux/ioprio.h.
const IO_CLASSES: &[(&str, i32)] = &[("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];
const IO_CLASS_SHIFT: i32 = 13;

/// The kernel's include/uapi/linux/personality.h: `PER_LINUX` and `PER_LINUX32`.
const PERSONALITIES: &[(&str, u64)] = &[("LINUX", 0x0000), ("LINUX32", 0x0008)];

/// One call of prlimit(2); `u64::MAX` is `RLIM_INFINITY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) resource: u32,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// What sched_setattr(2) is given, `size` aside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SchedAttr {
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

/// Resource limits, in the order given. Unknown and doubled types are errors (config.md, "rlimits").
pub(crate) fn rlimits(list: &[Rlimit]) -> Result<Vec<Limit>> {
    let mut limits: Vec<Limit> = Vec::with_capacity(list.len());
    for (i, rlimit) in list.iter().enumerate() {
        let at = format!("/process/rlimits/{i}");
        let resource = number(&format!("{at}/type"), &rlimit.kind, RLIMITS, "resource limit")? as u32;
        if limits.iter().any(|l| l.resource == resource) {
            return Err(invalid(format!("{at}/type"), format_args!("duplicate of {:?}", rlimit.kind)));
        }
        if rlimit.soft > rlimit.hard {
            let what =
                format!("{}: {} is above the hard limit, expected at most {}", rlimit.kind, rlimit.soft, rlimit.hard);
            return Err(invalid(format!("{at}/soft"), what));
        }
        limits.push(Limit { resource, soft: rlimit.soft, hard: rlimit.hard });
    }
    Ok(limits)
}

/// What runc checks, and the range of the real-time priority, which the kernel only answers with EINVAL.
pub(crate) fn scheduler(scheduler: &Scheduler) -> Result<SchedAttr> {
    let at = "/process/scheduler";
    let policy = number(&format!("{at}/policy"), &scheduler.policy, POLICIES, "scheduling policy")?;
    let name = scheduler.policy.as_str();
    let realtime = matches!(name, "SCHED_FIFO" | "SCHED_RR");

    if !(-20..=19).contains(&scheduler.nice) {
        return Err(invalid(format!("{at}/nice"), format_args!("{}, expected -20 to 19", scheduler.nice)));
    }
    let priority = match u32::try_from(scheduler.priority) {
        Ok(0) if !realtime => 0,
        Ok(priority @ 1..=99) if realtime => priority,
        _ => {
            let expected = if realtime { "1 to 99" } else { "none: only SCHED_FIFO and SCHED_RR have one" };
            let what = format!("{} with {name}, expected {expected}", scheduler.priority);
            return Err(invalid(format!("{at}/priority"), what));
        }
    };
    let (runtime, deadline, period) = (scheduler.runtime, scheduler.deadline, scheduler.period);
    for (property, value) in [("runtime", runtime), ("deadline", deadline), ("period", period)] {
        if value != 0 && name != "SCHED_DEADLINE" {
            let what = format!("{value} with {name}, expected none: only SCHED_DEADLINE has one");
            return Err(invalid(format!("{at}/{property}"), what));
        }
    }
    let mut flags = 0;
    for (i, flag) in scheduler.flags.iter().enumerate() {
        flags |= number(&format!("{at}/flags/{i}"), flag, SCHED_FLAGS, "scheduling flag")?;
    }
    Ok(SchedAttr { policy, flags, nice: scheduler.nice, priority, runtime, deadline, period })
}

/// The value of ioprio_set(2).
pub(crate) fn io_priority(io: &IoPriority) -> Result<i32> {
    let class = number("/process/ioPriority/class", &io.class, IO_CLASSES, "I/O scheduling class")?;
    if !(0..=7).contains(&io.priority) {
        return Err(invalid("/process/ioPriority/priority", format_args!("{}, expected 0 to 7", io.priority)));
    }
    Ok(class << IO_CLASS_SHIFT | io.priority)
}

/// The value of personality(2).
pub(crate) fn personality(personality: &Personality) -> Result<u64> {
    let at = "/linux/personality";
    if let Some(flag) = personality.flags.first() {
        return Err(invalid(format!("{at}/flags/0"), format_args!("{flag:?}: flags are not supported, expected none")));
    }
    number(&format!("{at}/domain"), &personality.domain, PERSONALITIES, "execution domain")
}

/// A list of CPUs as cpuset(7) writes it ("0-3,7"), as the mask that sched_setaffinity(2) takes.
pub(crate) fn cpu_mask(pointer: &str, list: &str) -> Result<Vec<u64>> {
    // The kernel's largest NR_CPUS.
    const MAX: usize = 8192;
    let wrong = || invalid(pointer, format_args!("{list:?}, expected a list of CPUs such as \"0-3,7\""));
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|n: &usize| digits && *n < MAX)
    };
    let mut mask = Vec::new();
    for range in list.split(',').map(str::trim) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Some(first), Some(last)) = (number(first), number(last)) else { return Err(wrong()) };
        if first > last {
            return Err(wrong());
        }
        mask.resize(mask.len().max(last / 64 + 1), 0);
        for cpu in first..=last {
            mask[cpu / 64] |= 1 << (cpu % 64);
        }
    }
    Ok(mask)
}

/// The umask; without one it is 0022 and not the caller's, as engines rely on.
pub(crate) fn umask(user: &User) -> u32 {
    user.umask.unwrap_or(0o022)
}

/// The number behind a name from a closed set.
fn number<T: Copy>(pointer: &str, name: &str, table: &[(&str, T)], noun: &str) -> Result<T> {
    match table.iter().find(|(known, _)| *known == name) {
        Some((_, number)) => Ok(*number),
        None => Err(hint::unknown(pointer, noun, name, table.iter().map(|(known, _)| *known))),
    }
}

#[cfg(test)]
mod tests;
