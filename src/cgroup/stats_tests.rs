use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::cgroup::{Location, Manager};

/// A group whose hierarchies are plain folders with these files.
fn group(base: &Path, v1: &[&str], v2: bool, files: &[(&str, &str)]) -> Group {
    for (path, text) in files {
        let path = base.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    super::super::group::open(&Location {
        manager: Manager::Cgroupfs,
        v1: v1.iter().map(|name| ((*name).to_owned(), base.join(name))).collect(),
        v2: v2.then(|| base.join("v2")),
        claim: crate::cgroup::Claim::Unknown,
        unit: None,
    })
}

fn json_of(group: &Group) -> Value {
    serde_json::to_value(read(group)).unwrap()
}

#[test]
fn v1_as_runc_prints_it() {
    let base = tempfile::tempdir().unwrap();
    let files = [
        ("cpu,cpuacct/cpuacct.usage", "30\n"),
        ("cpu,cpuacct/cpuacct.usage_percpu", "10 20 \n"),
        ("cpu,cpuacct/cpuacct.usage_all", "cpu user system\n0 1 2\n1 3 4\n"),
        ("cpu,cpuacct/cpuacct.stat", "user 5\nsystem 7\n"),
        ("cpu,cpuacct/cpu.stat", "nr_periods 8\nnr_throttled 3\nthrottled_time 900\n"),
        ("cpuset/cpuset.cpus", "0-1,3\n"),
        ("cpuset/cpuset.mems", "0\n"),
        ("cpuset/cpuset.sched_load_balance", "1\n"),
        ("cpuset/cpuset.sched_relax_domain_level", "-1\n"),
        ("memory/memory.stat", "cache 11\nrss 12\n"),
        ("memory/memory.usage_in_bytes", "100\n"),
        ("memory/memory.max_usage_in_bytes", "200\n"),
        ("memory/memory.limit_in_bytes", "300\n"),
        ("memory/memory.failcnt", "4\n"),
        ("memory/memory.kmem.usage_in_bytes", "9\n"),
        ("pids/pids.current", "3\n"),
        ("pids/pids.max", "max\n"),
        ("blkio/blkio.throttle.io_serviced_recursive", "8:0 Read 2\n8:0 Total 2\nTotal 2\n"),
        ("blkio/blkio.throttle.io_service_bytes", "8:16 Write 512\nTotal 512\n"),
        ("hugetlb/hugetlb.2MB.usage_in_bytes", "0\n"),
        ("hugetlb/hugetlb.2MB.rsvd.usage_in_bytes", "5\n"),
        ("hugetlb/hugetlb.2MB.failcnt", "6\n"),
    ];
    let v1 = ["cpu,cpuacct", "cpuset", "memory", "pids", "blkio", "hugetlb"];
    let none = json!({ "limit": 0, "failcnt": 0 });
    let expected = json!({
        "cpu": {
            "usage": {
                "total": 30, "percpu": [10, 20], "percpu_kernel": [2, 4], "percpu_user": [1, 3],
                "kernel": 70_000_000, "user": 50_000_000
            },
            "throttling": { "periods": 8, "throttledPeriods": 3, "throttledTime": 900 }
        },
        "cpuset": {
            "cpus": [0, 1, 3], "cpu_exclusive": 0, "mems": [0], "mem_hardwall": 0, "mem_exclusive": 0,
            "memory_migrate": 0, "memory_spread_page": 0, "memory_spread_slab": 0, "memory_pressure": 0,
            "sched_load_balance": 1, "sched_relax_domain_level": -1
        },
        "memory": {
            "cache": 11, "raw": { "cache": 11, "rss": 12 },
            "usage": { "limit": 300, "usage": 100, "max": 200, "failcnt": 4 },
            "swap": none, "kernel": { "limit": 0, "usage": 9, "failcnt": 0 }, "kernelTCP": none
        },
        "pids": { "current": 3 },
        "blkio": {
            "ioServiceBytesRecursive": [{ "major": 8, "minor": 16, "op": "Write", "value": 512 }],
            "ioServicedRecursive": [
                { "major": 8, "op": "Read", "value": 2 }, { "major": 8, "op": "Total", "value": 2 }
            ]
        },
        "hugetlb": { "2MB": { "failcnt": 6 } },
        "intel_rdt": {},
        "network_interfaces": null
    });
    assert_eq!(json_of(&group(base.path(), &v1, false, &files)), expected);
}

#[test]
fn v2_as_runc_maps_it_to_v1() {
    let base = tempfile::tempdir().unwrap();
    let pressure = "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
    let files = [
        ("v2/cpu.stat", "usage_usec 9\nuser_usec 4\nsystem_usec 5\nnr_periods 1\nnr_throttled 1\nthrottled_usec 2\n"),
        ("v2/cpu.pressure", pressure),
        ("v2/memory.stat", "anon 7\nfile 8\n"),
        ("v2/memory.current", "1000\n"),
        ("v2/memory.peak", "1500\n"),
        ("v2/memory.max", "2000\n"),
        ("v2/memory.swap.current", "30\n"),
        ("v2/memory.swap.max", "max\n"),
        ("v2/pids.current", "1\n"),
        ("v2/pids.max", "20\n"),
        ("v2/io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
        ("v2/hugetlb.2MB.current", "4096\n"),
        ("v2/hugetlb.2MB.events", "max 2\n"),
    ];
    let got = json_of(&group(base.path(), &[], true, &files));
    let psi = json!({
        "some": { "avg10": 1.5, "avg60": 0.25, "avg300": 0.0, "total": 77 },
        "full": { "avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 5 }
    });
    assert_eq!(
        got["cpu"],
        json!({
            "usage": { "total": 9000, "kernel": 5000, "user": 4000 },
            "throttling": { "periods": 1, "throttledPeriods": 1, "throttledTime": 2000 },
            "psi": psi
        })
    );
    assert_eq!(got["memory"]["usage"], json!({ "limit": 2000, "usage": 1000, "max": 1500, "failcnt": 0 }));
    assert_eq!(got["memory"]["swap"], json!({ "limit": u64::MAX, "usage": 1030, "failcnt": 0 }));
    assert_eq!(got["memory"]["cache"], 8);
    assert_eq!(got["pids"], json!({ "current": 1, "limit": 20 }));
    let entry = |op: &str, value: u64| json!({ "major": 8, "op": op, "value": value });
    assert_eq!(got["blkio"]["ioServiceBytesRecursive"], json!([entry("Read", 1), entry("Write", 2)]));
    assert_eq!(got["blkio"]["ioServicedRecursive"], json!([entry("Read", 3), entry("Write", 4)]));
    assert_eq!(got["hugetlb"], json!({ "2MB": { "usage": 4096, "failcnt": 2 } }));
    assert_eq!(got["cpuset"]["sched_relax_domain_level"], 0);
}

#[test]
fn a_missing_cgroup_is_all_zero() {
    let base = tempfile::tempdir().unwrap();
    let got = json_of(&group(base.path(), &["memory"], true, &[]));
    assert_eq!(got["memory"]["usage"], json!({ "limit": 0, "failcnt": 0 }));
    assert_eq!(got["cpu"]["usage"], json!({ "kernel": 0, "user": 0 }));
}
