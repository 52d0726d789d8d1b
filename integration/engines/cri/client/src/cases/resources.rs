//! Limits and what is told of them.

use std::fs;

use k8s_cri::v1::{ContainerStatsRequest, LinuxContainerResources, UpdateContainerResourcesRequest};

use crate::cgroups;
use crate::cri::{Container, Cri, Pod, within};

fn limited<'a>(pod: &'a Pod, name: &str, command: &[&str], limits: LinuxContainerResources) -> Container<'a> {
    let mut config = pod.config(name, command);
    config.linux.as_mut().expect("linux").resources = Some(limits);
    pod.start(config)
}

/// A file of the container's cgroup, named as on v1 and on v2.
fn value(pod: &Pod, container: &Container, controller: &str, v1: &str, v2: &str) -> String {
    let path = format!("{}/{}", pod.parent, container.id);
    cgroups::read(controller, &path, if cgroups::is_v2() { v2 } else { v1 })
}

fn check(pod: &Pod, container: &Container, memory: &str, quota: &str, v2_quota: &str) {
    assert_eq!(value(pod, container, "memory", "memory.limit_in_bytes", "memory.max"), memory);
    let expected = if cgroups::is_v2() { v2_quota } else { quota };
    assert_eq!(value(pod, container, "cpu", "cpu.cfs_quota_us", "cpu.max"), expected);
}

pub fn limits(cri: &Cri) {
    let pod = cri.pod("limits");
    let limits = LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 64 << 20,
        cpuset_cpus: "0".into(),
        ..Default::default()
    };
    let one = limited(&pod, "one", &["sleep", "1000"], limits);
    check(&pod, &one, "67108864", "50000", "50000 100000");
    assert_eq!(value(&pod, &one, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    if !cgroups::is_v2() {
        assert_eq!(value(&pod, &one, "cpu", "cpu.shares", ""), "512");
    }
    // Every process of the container is in there, an exec's as well.
    let procs = value(&pod, &one, "memory", "cgroup.procs", "cgroup.procs");
    assert_eq!(procs, one.pid().to_string());
    assert!(one.sh("cat /proc/self/cgroup") == one.sh("cat /proc/1/cgroup"));
    pod.remove();
}

pub fn update(cri: &Cri) {
    let pod = cri.pod("update");
    let limits = LinuxContainerResources { memory_limit_in_bytes: 64 << 20, cpu_shares: 512, ..Default::default() };
    let one = limited(&pod, "one", &["sleep", "1000"], limits);
    for (memory, quota) in [(128i64 << 20, 30_000i64), (48 << 20, 20_000)] {
        let linux = Some(LinuxContainerResources {
            memory_limit_in_bytes: memory,
            cpu_period: 100_000,
            cpu_quota: quota,
            ..Default::default()
        });
        let request = UpdateContainerResourcesRequest { container_id: one.id.clone(), linux, ..Default::default() };
        cri.call(async |api| api.update_container_resources(request).await).expect("UpdateContainerResources");
        check(&pod, &one, &memory.to_string(), &quota.to_string(), &format!("{quota} 100000"));
    }
    // A device is still denied, a limit that wasn't named as it was.
    assert!(one.sh("mknod /tmp/mem c 1 1; cat /tmp/mem").contains("Operation not permitted"));
    if !cgroups::is_v2() {
        assert_eq!(value(&pod, &one, "cpu", "cpu.shares", ""), "512");
    }
    pod.remove();
}

pub fn oom_killed(cri: &Cri) {
    let pod = cri.pod("oom");
    let limits = LinuxContainerResources { memory_limit_in_bytes: 16 << 20, ..Default::default() };
    let hungry = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"];
    let one = limited(&pod, "one", &hungry, limits);
    let status = one.wait();
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    pod.remove();
}

pub fn oom_score(cri: &Cri) {
    let pod = cri.pod("oom-score");
    let limits = LinuxContainerResources { oom_score_adj: 900, ..Default::default() };
    let one = limited(&pod, "one", &["sleep", "1000"], limits);
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", one.pid())).expect("oom_score_adj");
    assert_eq!(score.trim(), "900");
    assert_eq!(one.sh("cat /proc/self/oom_score_adj"), "900");
    pod.remove();
}

pub fn stats(cri: &Cri) {
    let pod = cri.pod("stats");
    let one = pod.start(pod.config("one", &["sh", "-c", "head -c 20000000 /dev/zero | md5sum; sleep 1000"]));
    within(10, "figures", || {
        let request = ContainerStatsRequest { container_id: one.id.clone() };
        let stats = cri.call(async |api| api.container_stats(request).await).expect("ContainerStats").stats?;
        let cpu = stats.cpu?.usage_core_nano_seconds?.value;
        let memory = stats.memory?.working_set_bytes?.value;
        (cpu > 1_000_000 && memory > 10_000).then_some(())
    });
    pod.remove();
}
