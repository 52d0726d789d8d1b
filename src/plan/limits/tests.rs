use super::{Limit, RLIMITS, SchedAttr, cpu_mask, io_priority, personality, rlimits, scheduler, umask};
use crate::spec::{IoPriority, Personality, Rlimit, Scheduler, User};

fn rlimit(kind: &str, soft: u64, hard: u64) -> Rlimit {
    Rlimit { kind: kind.to_owned(), soft, hard }
}

fn text<T: std::fmt::Debug>(result: anyhow::Result<T>) -> String {
    format!("{:#}", result.unwrap_err())
}

#[test]
fn all_sixteen_resources_have_the_kernels_number() {
    const KERNEL: [&str; 16] = [
        "CPU",
        "FSIZE",
        "DATA",
        "STACK",
        "CORE",
        "RSS",
        "NPROC",
        "NOFILE",
        "MEMLOCK",
        "AS",
        "LOCKS",
        "SIGPENDING",
        "MSGQUEUE",
        "NICE",
        "RTPRIO",
        "RTTIME",
    ];
    assert_eq!(RLIMITS.len(), KERNEL.len());
    for (number, name) in (0..).zip(KERNEL) {
        let list = [rlimit(&format!("RLIMIT_{name}"), 1, u64::MAX)];
        assert_eq!(rlimits(&list).unwrap(), [Limit { resource: number, soft: 1, hard: u64::MAX }], "{name}");
    }
}

#[test]
fn bad_rlimits_are_named() {
    assert_eq!(
        text(rlimits(&[rlimit("RLIMIT_CPU", 1, 1), rlimit("RLIMIT_NOFILES", 1, 1)])),
        "config.json: /process/rlimits/1/type: unknown resource limit \"RLIMIT_NOFILES\", did you mean \"RLIMIT_NOFILE\"?"
    );
    assert!(text(rlimits(&[rlimit("", 1, 1)])).starts_with(
        "config.json: /process/rlimits/0/type: unknown resource limit \"\", expected RLIMIT_AS, RLIMIT_CORE, "
    ));
    assert_eq!(
        text(rlimits(&[rlimit("RLIMIT_CPU", 1, 1), rlimit("RLIMIT_AS", 1, 1), rlimit("RLIMIT_CPU", 2, 2)])),
        "config.json: /process/rlimits/2/type: duplicate of \"RLIMIT_CPU\""
    );
    assert_eq!(
        text(rlimits(&[rlimit("RLIMIT_CPU", 3, 2)])),
        "config.json: /process/rlimits/0/soft: RLIMIT_CPU: 3 is above the hard limit, expected at most 2"
    );
}

fn sched(policy: &str) -> Scheduler {
    Scheduler { policy: policy.to_owned(), ..Scheduler::default() }
}

#[test]
fn schedulers() {
    let other = Scheduler { nice: -5, ..sched("SCHED_OTHER") };
    assert_eq!(scheduler(&other).unwrap(), SchedAttr { nice: -5, ..SchedAttr::default() });
    let fifo = Scheduler { priority: 10, flags: vec!["SCHED_FLAG_RESET_ON_FORK".to_owned()], ..sched("SCHED_FIFO") };
    assert_eq!(scheduler(&fifo).unwrap(), SchedAttr { policy: 1, priority: 10, flags: 1, ..SchedAttr::default() });
    let flags = ["SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN"].map(str::to_owned).to_vec();
    let deadline = Scheduler { runtime: 1, deadline: 2, period: 3, flags, ..sched("SCHED_DEADLINE") };
    let expected = SchedAttr { policy: 6, flags: 6, runtime: 1, deadline: 2, period: 3, ..SchedAttr::default() };
    assert_eq!(scheduler(&deadline).unwrap(), expected);
    for (policy, number) in [("SCHED_BATCH", 3), ("SCHED_ISO", 4), ("SCHED_IDLE", 5)] {
        assert_eq!(scheduler(&sched(policy)).unwrap().policy, number);
    }
}

#[test]
fn bad_schedulers_are_named() {
    let flag = vec!["SCHED_FLAG_RECLAIM".to_owned(), "x".to_owned()];
    for (bad, expected) in [
        (sched("SCHED_FIF"), "policy: unknown scheduling policy \"SCHED_FIF\", did you mean \"SCHED_FIFO\"?"),
        (Scheduler { nice: 20, ..sched("SCHED_OTHER") }, "nice: 20, expected -20 to 19"),
        (sched("SCHED_RR"), "priority: 0 with SCHED_RR, expected 1 to 99"),
        (Scheduler { priority: -1, ..sched("SCHED_RR") }, "priority: -1 with SCHED_RR, expected 1 to 99"),
        (
            Scheduler { priority: 1, ..sched("SCHED_BATCH") },
            "priority: 1 with SCHED_BATCH, expected none: only SCHED_FIFO and SCHED_RR have one",
        ),
        (
            Scheduler { deadline: 7, ..sched("SCHED_OTHER") },
            "deadline: 7 with SCHED_OTHER, expected none: only SCHED_DEADLINE has one",
        ),
        (
            Scheduler { flags: flag, ..sched("SCHED_OTHER") },
            "flags/1: unknown scheduling flag \"x\", expected SCHED_FLAG_RESET_ON_FORK, SCHED_FLAG_RECLAIM, \
             SCHED_FLAG_DL_OVERRUN, SCHED_FLAG_KEEP_POLICY, SCHED_FLAG_KEEP_PARAMS, SCHED_FLAG_UTIL_CLAMP_MIN or \
             SCHED_FLAG_UTIL_CLAMP_MAX",
        ),
    ] {
        assert_eq!(text(scheduler(&bad)), format!("config.json: /process/scheduler/{expected}"));
    }
}

#[test]
fn io_priorities() {
    let io = |class: &str, priority| io_priority(&IoPriority { class: class.to_owned(), priority });
    assert_eq!(io("IOPRIO_CLASS_RT", 0).unwrap(), 0x2000);
    assert_eq!(io("IOPRIO_CLASS_BE", 4).unwrap(), 0x4004);
    assert_eq!(io("IOPRIO_CLASS_IDLE", 7).unwrap(), 0x6007);
    for priority in [-1, 8] {
        let expected = format!("config.json: /process/ioPriority/priority: {priority}, expected 0 to 7");
        assert_eq!(text(io("IOPRIO_CLASS_BE", priority)), expected);
    }
    assert_eq!(
        text(io("BE", 1)),
        "config.json: /process/ioPriority/class: unknown I/O scheduling class \"BE\", expected IOPRIO_CLASS_RT, \
         IOPRIO_CLASS_BE or IOPRIO_CLASS_IDLE"
    );
}

#[test]
fn personalities() {
    let domain = |domain: &str| Personality { domain: domain.to_owned(), flags: Vec::new() };
    assert_eq!(personality(&domain("LINUX")).unwrap(), 0);
    assert_eq!(personality(&domain("LINUX32")).unwrap(), 8);
    assert_eq!(
        text(personality(&domain("PER_BSD"))),
        "config.json: /linux/personality/domain: unknown execution domain \"PER_BSD\", expected LINUX or LINUX32"
    );
    let flags = Personality { flags: vec!["ADDR_NO_RANDOMIZE".to_owned()], ..domain("LINUX") };
    assert_eq!(
        text(personality(&flags)),
        "config.json: /linux/personality/flags/0: \"ADDR_NO_RANDOMIZE\": flags are not supported, expected none"
    );
}

#[test]
fn the_umask_is_0022_unless_given() {
    assert_eq!(umask(&User::default()), 0o022);
    assert_eq!(umask(&User { umask: Some(0), ..User::default() }), 0);
}

#[test]
fn cpu_lists_become_masks() {
    for (list, expected) in [
        ("0", vec![1]),
        ("0-3,7", vec![0b1000_1111]),
        ("7, 0-1,1", vec![0b1000_0011]),
        ("63-64", vec![1 << 63, 1]),
        ("128", vec![0, 0, 1]),
    ] {
        assert_eq!(cpu_mask("/x", list).unwrap(), expected, "{list}");
    }
    for list in ["", ",", "0,", "3-1", "-1", "1-", "a", "+1", "8192", "0-99999999999999999999", "0:2"] {
        let expected = format!("config.json: /x: {list:?}, expected a list of CPUs such as \"0-3,7\"");
        assert_eq!(text(cpu_mask("/x", list)), expected);
    }
}
