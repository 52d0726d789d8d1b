use super::*;

fn resources(json: serde_json::Value) -> Resources {
    serde_json::from_value(json).unwrap()
}

/// `file=value`, with `?` for one that may be missing, `!` if that is worth a warning, and `|` before the alternative.
fn text(json: serde_json::Value, version: Version) -> Result<String, String> {
    let resources = resources(json);
    let both =
        knobs(&resources, |_| version).and_then(|knobs| Ok([knobs, super::unified(&resources.unified)?].concat()));
    let knobs = both.map_err(|error| error.to_string())?;
    let text = knobs.iter().map(|knob| {
        let tail = match &knob.missing {
            Missing::Fail => String::new(),
            Missing::Skip => "?".into(),
            Missing::Warn => "!".into(),
            Missing::Instead { file, value } => format!("|{file}={value}"),
        };
        format!("{}={}{tail}", knob.file, knob.value)
    });
    Ok(text.collect::<Vec<_>>().join("; "))
}

macro_rules! table {
    ($($json:tt => $v1:expr, $v2:expr;)*) => {$(
        let json = serde_json::json!($json);
        assert_eq!(text(json.clone(), Version::V1).as_deref().unwrap_or_else(|error| error), $v1, "v1 {json}");
        assert_eq!(text(json.clone(), Version::V2).as_deref().unwrap_or_else(|error| error), $v2, "v2 {json}");
    )*};
}

/// The table that the tests in containers compare the kernel's files with.
#[test]
fn the_table_of_all_properties() {
    let table = include_str!("../../tests/resources.json").replace("MAJOR", "8").replace("MINOR", "0");
    let rows: Vec<serde_json::Value> = serde_json::from_str(&table).unwrap();
    for row in &rows {
        for (key, version) in [("v1", Version::V1), ("v2", Version::V2)] {
            let Some(expected) = row.get(key) else { continue };
            let got = text(row["resources"].clone(), version);
            let Some(files) = expected.as_array() else {
                let error = got.unwrap_err();
                assert!(error.contains(expected.as_str().unwrap()), "{key} {}: {error}", row["resources"]);
                continue;
            };
            let file = |entry: &serde_json::Value| {
                let word = |index: usize| entry[index].as_str().unwrap();
                match (word(0).split_once('|'), word(1).split_once('|'), word(0).strip_suffix('?')) {
                    (Some((one, other)), Some((first, second)), _) => format!("{one}={first}|{other}={second}"),
                    (_, _, Some(name)) => format!("{name}={}?", word(1)),
                    _ => format!("{}={}", word(0), word(1)),
                }
            };
            let files: Vec<String> = files.iter().map(file).collect();
            assert_eq!(got.unwrap(), files.join("; "), "{key} {}", row["resources"]);
        }
    }
    // Every property of linux.resources has a row.
    for property in ["memory", "cpu", "pids", "blockIO", "hugepageLimits", "network", "rdma", "unified"] {
        assert!(rows.iter().any(|row| row["resources"].get(property).is_some()), "{property}");
    }
}

#[test]
fn memory() {
    table! {
        {"memory": {}} => "", "";
        {"memory": {"limit": 0, "swap": 0, "reservation": 0, "disableOOMKiller": false}} => "", "";
        {"memory": {"limit": 4096}} => "memory.limit_in_bytes=4096", "memory.max=4096";
        {"memory": {"limit": -1}} =>
            "memory.limit_in_bytes=-1?; memory.memsw.limit_in_bytes=-1?", "memory.swap.max=max?; memory.max=max?";
        {"memory": {"limit": 100, "swap": 100}} =>
            "memory.limit_in_bytes=100; memory.memsw.limit_in_bytes=100", "memory.swap.max=0?; memory.max=100";
        {"memory": {"limit": 100, "swap": 300}} =>
            "memory.limit_in_bytes=100; memory.memsw.limit_in_bytes=300", "memory.swap.max=200; memory.max=100";
        {"memory": {"limit": 100, "swap": -1}} =>
            "memory.limit_in_bytes=100; memory.memsw.limit_in_bytes=-1?", "memory.swap.max=max?; memory.max=100";
        {"memory": {"limit": -1, "swap": 300}} =>
            "memory.limit_in_bytes=-1?; memory.memsw.limit_in_bytes=300", "memory.swap.max=300; memory.max=max?";
        {"memory": {"reservation": 50}} => "memory.soft_limit_in_bytes=50", "memory.low=50";
        {"memory": {"reservation": -1}} => "memory.soft_limit_in_bytes=-1?", "memory.low=max";
        {"memory": {"kernel": 5, "kernelTCP": -1, "useHierarchy": true}} => "memory.kmem.tcp.limit_in_bytes=-1?", "";
        {"memory": {"kernelTCP": 4096}} => "memory.kmem.tcp.limit_in_bytes=4096!", "";
        {"memory": {"swappiness": 0}} => "memory.swappiness=0", "";
        {"memory": {"swappiness": 101}} =>
            "config.json: /linux/resources/memory/swappiness: 101, expected 0 to 100", "";
        {"memory": {"disableOOMKiller": true}} => "memory.oom_control=1", "";
    }
}

#[test]
fn swap_includes_memory() {
    for version in [Version::V1, Version::V2] {
        let less = text(serde_json::json!({"memory": {"limit": 100, "swap": 99}}), version).unwrap_err();
        let pointer = "config.json: /linux/resources/memory/swap: ";
        assert_eq!(less, format!("{pointer}99 is less than memory.limit 100 (it is memory and swap together)"));
        let alone = text(serde_json::json!({"memory": {"swap": 99}}), version).unwrap_err();
        assert_eq!(alone, format!("{pointer}99 without memory.limit (it is memory and swap together)"));
        let odd = text(serde_json::json!({"memory": {"limit": -2}}), version).unwrap_err();
        assert_eq!(odd, "config.json: /linux/resources/memory/limit: -2, expected bytes or -1");
    }
}

#[test]
fn cpu() {
    let v2_has_no_rt = "config.json: /linux/resources/cpu/realtimeRuntime: real-time limits need the cpu controller \
        of cgroup v1, this host has it on v2";
    table! {
        {"cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": ""}} => "", "";
        {"cpu": {"burst": 0, "idle": 0}} => "cpu.cfs_burst_us=0?; cpu.idle=0?", "cpu.max.burst=0?; cpu.idle=0?";
        {"cpu": {"shares": 1024}} => "cpu.shares=1024", "cpu.weight=100";
        {"cpu": {"shares": 1}} =>
            "config.json: /linux/resources/cpu/shares: 1, expected 2 to 262144", "cpu.weight=1";
        {"cpu": {"quota": 50000}} => "cpu.cfs_quota_us=50000", "cpu.max=50000 100000";
        {"cpu": {"quota": 5000, "period": 20000}} =>
            "cpu.cfs_period_us=20000; cpu.cfs_quota_us=5000", "cpu.max=5000 20000";
        {"cpu": {"quota": -1, "period": 20000}} =>
            "cpu.cfs_period_us=20000; cpu.cfs_quota_us=-1?", "cpu.max=max 20000?";
        {"cpu": {"period": 20000}} => "cpu.cfs_period_us=20000", "cpu.max=max 20000?";
        {"cpu": {"quota": 5000, "burst": 100}} =>
            "cpu.cfs_quota_us=5000; cpu.cfs_burst_us=100", "cpu.max=5000 100000; cpu.max.burst=100";
        {"cpu": {"shares": 2, "idle": 1}} => "cpu.shares=2; cpu.idle=1", "cpu.weight=1; cpu.idle=1";
        {"cpu": {"cpus": "0-1", "mems": "0"}} => "cpuset.cpus=0-1; cpuset.mems=0", "cpuset.cpus=0-1; cpuset.mems=0";
        {"cpu": {"realtimeRuntime": 950, "realtimePeriod": 1000}} =>
            "cpu.rt_period_us=1000; cpu.rt_runtime_us=950", v2_has_no_rt;
    }
}

#[test]
fn shares_to_weight() {
    let expected = [
        (1, 1),
        (2, 1),
        (3, 2),
        (10, 4),
        (100, 17),
        (512, 59),
        (1024, 100),
        (2048, 174),
        (10240, 639),
        (262_144, 10_000),
    ];
    for (shares, want) in expected {
        assert_eq!(weight(shares), want, "{shares}");
    }
    assert_eq!(weight(u64::MAX), 10_000);
    assert!((2..262_144).all(|shares| weight(shares) <= weight(shares + 1)));
}

#[test]
fn pids_hugepages_rdma() {
    let slash = "config.json: /linux/resources/hugepageLimits/0/pageSize: \"../2MB\", \
        expected a size as the kernel spells it (\"2MB\")";
    table! {
        {"pids": {}} => "", "";
        {"pids": {"limit": -1}} => "pids.max=max?", "pids.max=max?";
        {"pids": {"limit": 0}} => "pids.max=1", "pids.max=1";
        {"pids": {"limit": 7}} => "pids.max=7", "pids.max=7";
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]} =>
            "hugetlb.2MB.limit_in_bytes=0; hugetlb.2MB.rsvd.limit_in_bytes=0?",
            "hugetlb.2MB.max=0; hugetlb.2MB.rsvd.max=0?";
        {"hugepageLimits": [{"pageSize": "../2MB", "limit": 0}]} => slash, slash;
        {"rdma": {"mlx5_0": {"hcaHandles": 3, "hcaObjects": 4}, "mlx5_1": {"hcaObjects": 5}, "mlx5_2": {}}} =>
            "rdma.max=mlx5_0 hca_handle=3 hca_object=4; rdma.max=mlx5_1 hca_object=5",
            "rdma.max=mlx5_0 hca_handle=3 hca_object=4; rdma.max=mlx5_1 hca_object=5";
    }
}

#[test]
fn block_io() {
    let range = "config.json: /linux/resources/blockIO/weight: 1001, expected 1 to 1000";
    let leaf = "config.json: /linux/resources/blockIO: leafWeight exists on cgroup v1 only, this host has v2";
    table! {
        {"blockIO": {"weight": 0}} => "", "";
        {"blockIO": {"weight": 1001}} => range, range;
        {"blockIO": {"weight": 1}} => "blkio.weight=1|blkio.bfq.weight=1", "io.bfq.weight=1|io.weight=1";
        {"blockIO": {"weight": 9}} => "blkio.weight=9|blkio.bfq.weight=9", "io.bfq.weight=9|io.weight=1";
        {"blockIO": {"weight": 10}} => "blkio.weight=10|blkio.bfq.weight=10", "io.bfq.weight=10|io.weight=1";
        {"blockIO": {"weight": 1000}} =>
            "blkio.weight=1000|blkio.bfq.weight=1000", "io.bfq.weight=1000|io.weight=10000";
        {"blockIO": {"leafWeight": 20}} => "blkio.leaf_weight=20", leaf;
        {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 500, "leafWeight": 300}]}} =>
            "blkio.weight_device=8:0 500|blkio.bfq.weight_device=8:0 500; blkio.leaf_weight_device=8:0 300", leaf;
        {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 500}]}} =>
            "blkio.weight_device=8:0 500|blkio.bfq.weight_device=8:0 500",
            "io.bfq.weight=8:0 500|io.weight=8:0 4950";
        {"blockIO": {
            "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
            "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 2}],
            "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 3}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 0}]
        }} =>
            "blkio.throttle.read_bps_device=8:0 1; blkio.throttle.write_bps_device=8:0 2; \
             blkio.throttle.read_iops_device=8:0 3; blkio.throttle.write_iops_device=8:16 0",
            "io.max=8:0 rbps=1; io.max=8:0 wbps=2; io.max=8:0 riops=3; io.max=8:16 wiops=max";
    }
}

#[test]
fn network() {
    let class = "config.json: /linux/resources/network/classID: needs the net_cls controller of cgroup v1, \
        which this host doesn't have";
    table! {
        {"network": {"classID": 0, "priorities": []}} => "", "";
        {"network": {"classID": 1_048_577}} => "net_cls.classid=1048577", class;
        {"network": {"priorities": [{"name": "eth0", "priority": 5}]}} => "net_prio.ifpriomap=eth0 5",
            "config.json: /linux/resources/network/priorities: needs the net_prio controller of cgroup v1, \
             which this host doesn't have";
    }
}

#[test]
fn unified() {
    let want = "memory.high=9; rdma.max=a; rdma.max=b";
    let slash = "config.json: /linux/resources/unified/..~1memory.max: expected the plain name of a file of the cgroup";
    let form = "config.json: /linux/resources/unified/memory: expected a name of the form CONTROLLER.PARAMETER";
    table! {
        {"unified": {"memory.high": "9", "rdma.max": "a\nb\n", "pids.max": ""}} => want, want;
        {"unified": {"../memory.max": "1"}} => slash, slash;
        {"unified": {"memory": "1"}} => form, form;
    }
    assert!(text(serde_json::json!({"unified": {"..": "1"}}), Version::V2).is_err());
}

#[test]
fn knobs_know_controller_and_property() {
    let all = knobs(&resources(serde_json::json!({"memory": {"limit": 1}, "cpu": {"mems": "0"}})), |_| Version::V2);
    let all = all.unwrap();
    assert_eq!((all[0].controller.as_str(), all[0].property.as_str()), ("memory", "memory/limit"));
    assert_eq!((all[1].controller.as_str(), all[1].property.as_str()), ("cpuset", "cpu/mems"));
}

/// Engines written in C have no other word for "not set".
#[test]
fn minus_one_of_an_unsigned_number_is_not_set() {
    let all = u64::MAX;
    table! {
        {"memory": {"swappiness": all}} => "", "";
        {"cpu": {"shares": all, "period": all, "burst": all, "realtimePeriod": all}} => "", "";
        {"blockIO": {"weight": u16::MAX}} => "", "";
        {"network": {"classID": u32::MAX}} => "", "";
        {"rdma": {"mlx5_1": {"hcaHandles": u32::MAX, "hcaObjects": u32::MAX}}} => "", "";
    }
}

#[test]
fn iops_that_v1_would_cut_off() {
    let at = "config.json: /linux/resources/blockIO/throttleWriteIOPSDevice/0/rate";
    let json = |rate: u64| serde_json::json!({"blockIO": {"throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": rate}]}});
    let error = text(json(1 << 32), Version::V1).unwrap_err();
    assert_eq!(error, format!("{at}: 4294967296, expected at most 4294967295 on cgroup v1"));
    assert_eq!(text(json((1 << 32) - 1), Version::V1).unwrap(), "blkio.throttle.write_iops_device=8:0 4294967295");
    assert_eq!(text(json(1 << 32), Version::V2).unwrap(), "io.max=8:0 wiops=4294967296");
}

#[test]
fn what_has_no_effect_is_said() {
    let said = |json, version| ignored(&resources(json), |_| version);
    let memory = serde_json::json!({"memory": {"kernel": 5, "kernelTCP": 6, "swappiness": 7}});
    assert_eq!(said(memory.clone(), Version::V1).len(), 1);
    assert_eq!(said(memory, Version::V2).len(), 2);
    assert_eq!(said(serde_json::json!({"memory": {"kernel": -1, "kernelTCP": 0}}), Version::V2), [""; 0]);
    let alone = |limit: i64| alone(&resources(serde_json::json!({"pids": {"limit": limit}})));
    assert!(alone(0).unwrap().contains("is 0 (0 is a limit as hard as 1)"));
    assert!(alone(1).is_some() && alone(2).is_none() && alone(-1).is_none());
}
