use super::*;
use crate::cgroup::knobs::{self, Version};
use crate::spec::Resources;

fn mask(bytes: &[u8]) -> Value {
    Value::Array("y".into(), bytes.iter().map(|byte| Value::Byte(*byte)).collect())
}

/// The properties of config.json's resources.
fn of(version: Version, json: serde_json::Value) -> Vec<(String, Value)> {
    let resources: Resources = serde_json::from_value(json).unwrap();
    let mut knobs = knobs::knobs(&resources, |_| version).unwrap();
    knobs.extend(knobs::unified(&resources.unified).unwrap());
    of_knobs(&knobs)
}

fn list<const N: usize>(expected: [(&str, Value); N]) -> Vec<(String, Value)> {
    expected.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[test]
fn limits_of_v2() {
    // What `systemctl show` says of a scope of runc 1.1 for the same resources, but for the newer curve of weights.
    let json = serde_json::json!({
        "memory": {"limit": 100_000_000, "swap": 150_000_000, "reservation": 50_000_000},
        "cpu": {"shares": 512, "quota": 12345, "period": 50000, "cpus": "0-1", "mems": "0"},
        "pids": {"limit": 77},
        "unified": {"memory.high": "90000000"}
    });
    let expected = list([
        ("TasksMax", Value::U64(77)),
        ("MemorySwapMax", Value::U64(50_000_000)),
        ("MemoryMax", Value::U64(100_000_000)),
        ("MemoryLow", Value::U64(50_000_000)),
        ("CPUWeight", Value::U64(59)),
        ("AllowedCPUs", mask(&[3])),
        ("AllowedMemoryNodes", mask(&[1])),
        ("MemoryHigh", Value::U64(90_000_000)),
        ("CPUQuotaPeriodUSec", Value::U64(50_000)),
        ("CPUQuotaPerSecUSec", Value::U64(250_000)),
    ]);
    assert_eq!(of(Version::V2, json), expected);
}

#[test]
fn limits_of_v1() {
    let json = serde_json::json!({
        "memory": {"limit": 1000, "swap": 2000}, "cpu": {"shares": 512, "quota": -1, "period": 50000},
        "blockIO": {"weight": 500}, "pids": {"limit": -1}
    });
    let expected = list([
        ("TasksMax", Value::U64(INFINITY)),
        ("MemoryLimit", Value::U64(1000)),
        ("BlockIOWeight", Value::U64(500)),
        ("CPUShares", Value::U64(512)),
        ("CPUQuotaPeriodUSec", Value::U64(50_000)),
        ("CPUQuotaPerSecUSec", Value::U64(INFINITY)),
    ]);
    assert_eq!(of(Version::V1, json), expected);
}

#[test]
fn no_swap_and_no_limit() {
    let json = serde_json::json!({"memory": {"limit": 4096, "swap": 4096}});
    assert_eq!(of(Version::V2, json), list([("MemorySwapMax", Value::U64(0)), ("MemoryMax", Value::U64(4096))]));
    let json = serde_json::json!({"memory": {"limit": -1}});
    let unlimited = list([("MemorySwapMax", Value::U64(INFINITY)), ("MemoryMax", Value::U64(INFINITY))]);
    assert_eq!(of(Version::V2, json), unlimited);
}

#[test]
fn quotas_are_rounded_up_to_whole_percents() {
    let quota = |quota: i64, period: u64| {
        let mut found = of(Version::V2, serde_json::json!({"cpu": {"quota": quota, "period": period}}));
        found.pop().unwrap().1
    };
    // runc's table, cgroups/systemd.
    assert_eq!(quota(6000, 10_000), Value::U64(600_000));
    assert_eq!(quota(1, 100_000), Value::U64(10_000));
    assert_eq!(quota(12_345, 50_000), Value::U64(250_000));
    assert_eq!(quota(200_000, 100_000), Value::U64(2_000_000));
    assert_eq!(quota(5000, 0), Value::U64(50_000));
    assert_eq!(quota(-1, 50_000), Value::U64(INFINITY));
    assert_eq!(quota(i64::MAX, 1), Value::U64(INFINITY));
}

#[test]
fn unified_files_that_systemd_knows() {
    let one = |file: &str, value: &str| of(Version::V2, serde_json::json!({"unified": {file: value}}));
    assert_eq!(one("memory.min", "1G"), list([("MemoryMin", Value::U64(1 << 30))]));
    assert_eq!(one("memory.swap.max", "max"), list([("MemorySwapMax", Value::U64(INFINITY))]));
    assert_eq!(one("cpu.idle", "1"), list([("CPUWeight", Value::U64(0))]));
    assert_eq!(one("cpu.weight", "7"), list([("CPUWeight", Value::U64(7))]));
    assert_eq!(one("io.weight", "default 7"), list([("IOWeight", Value::U64(7))]));
    assert_eq!(one("cpuset.cpus", "0,2-3,9"), list([("AllowedCPUs", mask(&[0b1101, 0b10]))]));
    for (nice, weight) in [("0", 100), ("-20", 8668), ("19", 1), ("5", 33)] {
        assert_eq!(one("cpu.weight.nice", nice), list([("CPUWeight", Value::U64(weight))]), "{nice}");
    }
    assert_eq!(one("cpu.weight.nice", "20"), []);
    assert_eq!(one("memory.oom.group", "1"), list([("OOMPolicy", Value::str("kill"))]));
    assert_eq!(one("memory.oom.group", "0"), list([("OOMPolicy", Value::str("continue"))]));
    assert_eq!(one("memory.zswap.max", "4096"), list([("MemoryZSwapMax", Value::U64(4096))]));
    assert_eq!(one("memory.zswap.writeback", "0"), list([("MemoryZSwapWriteback", Value::Bool(false))]));
    assert_eq!(one("io.bfq.weight", "101"), list([("IOWeight", Value::U64(111))]));
    let quota = list([("CPUQuotaPeriodUSec", Value::U64(10_000)), ("CPUQuotaPerSecUSec", Value::U64(500_000))]);
    assert_eq!(one("cpu.max", "5000 10000"), quota);
    assert_eq!(one("cpu.max", "max"), list([("CPUQuotaPerSecUSec", Value::U64(INFINITY))]));
    // What it doesn't know, or what the kernel is to refuse.
    for (file, value) in [
        ("io.weight", "8:0 100"),
        ("io.max", "8:0 rbps=1"),
        ("hugetlb.2MB.max", "0"),
        ("memory.max", "much"),
        ("cpuset.cpus", "3-1"),
        ("cpuset.cpus", "0-99999999"),
        ("pids.max", ""),
    ] {
        assert_eq!(one(file, value), [], "{file}={value}");
    }
}

#[test]
fn the_later_knob_counts() {
    let json = serde_json::json!({"pids": {"limit": 5}, "unified": {"pids.max": "6"}});
    assert_eq!(of(Version::V2, json), list([("TasksMax", Value::U64(6))]));
}

#[test]
fn weights_of_io() {
    let json = serde_json::json!({"blockIO": {"weight": 10}});
    assert_eq!(of(Version::V2, json), list([("IOWeight", Value::U64(1))]));
    // systemd's BFQ_WEIGHT gives back what was asked.
    let bfq = |told: u64| if told <= 100 { told } else { 100 + (told - 100) * 900 / 9900 };
    assert!((1..=1000).all(|weight| bfq(as_bfq(weight)) == weight));
}

#[test]
fn every_scope() {
    let names: Vec<String> = of_scope("c1", "a.slice").into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names.join(" "),
        "Description Slice Delegate MemoryAccounting CPUAccounting IOAccounting TasksAccounting DefaultDependencies"
    );
}
