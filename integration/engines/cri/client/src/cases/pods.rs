//! Pod sandboxes.

use std::fs;
use std::process::Command;

use k8s_cri::v1::{
    DnsConfig, ListPodSandboxRequest, NamespaceMode, PodSandboxConfig, PodSandboxFilter, PodSandboxState,
    StatusRequest, VersionRequest,
};

use crate::cri::{Cri, Pod, within};

pub fn status(cri: &Cri) {
    let version = cri.call(async |api| api.version(VersionRequest::default()).await).expect("Version");
    assert_eq!(version.runtime_name, "containerd");
    let answer = cri.call(async |api| api.status(StatusRequest { verbose: true }).await).expect("Status");
    for condition in answer.status.expect("a status").conditions {
        assert!(condition.status, "{condition:?}");
    }
    assert!(answer.info["config"].contains("\"tare\""), "{:?}", answer.info);
}

pub fn unknown_handler(cri: &Cri) {
    let error = cri.run_with(cri.config("unknown"), "nonesuch").err().expect("an unknown handler");
    assert!(error.message().contains("no runtime for \"nonesuch\" is configured"), "{error:?}");
}

pub fn pod(cri: &Cri) {
    let pod = cri.pod("pod");
    let status = pod.status().expect("PodSandboxStatus");
    assert_eq!(status.state(), PodSandboxState::SandboxReady);
    assert_eq!(status.runtime_handler, crate::cri::HANDLER);
    let listed = || {
        let filter = Some(PodSandboxFilter { id: pod.id.clone(), ..Default::default() });
        let request = ListPodSandboxRequest { filter };
        cri.call(async |api| api.list_pod_sandbox(request).await).expect("ListPodSandbox").items.len()
    };
    assert_eq!(listed(), 1);
    is_of_the_runtime_under_test(&pod);
    pod.stop();
    assert_eq!(pod.state(), PodSandboxState::SandboxNotready);
    pod.remove();
    assert_eq!(listed(), 0);
    // The same name again.
    cri.pod("pod").remove();
}

/// It was the runtime under test that made it: its state is there, in its own form.
fn is_of_the_runtime_under_test(pod: &Pod) {
    let runtime = std::env::var("RUNTIME").expect("RUNTIME");
    let state = Command::new(runtime).args(["--root", "/run/containerd/runc/k8s.io", "state", &pod.id]).output();
    let state = String::from_utf8(state.expect("the runtime").stdout).expect("UTF-8");
    assert!(state.contains("\"running\""), "{state}");
}

pub fn default_handler(cri: &Cri) {
    let pod = cri.run_with(cri.config("default"), "").expect("RunPodSandbox");
    is_of_the_runtime_under_test(&pod);
    pod.remove();
}

pub fn network(cri: &Cri) {
    let (one, two) = (cri.pod("net-one"), cri.pod("net-two"));
    let address = |pod: &Pod| pod.status().expect("status").network.expect("a network").ip;
    assert!(address(&one).starts_with("10.77.0."), "{}", address(&one));
    let server = one.start(one.config("server", &["nc", "-l", "-p", "80", "-e", "echo", "from one"]));
    let client = two.idle("client");
    assert!(client.sh("ip addr show lo").contains("127.0.0.1/8"), "{}", client.sh("ip addr"));
    let heard = within(5, "an answer over the network", || {
        let heard = client.sh(&format!("nc -w 2 {} 80", address(&one)));
        (!heard.is_empty() && !heard.contains("refused")).then_some(heard)
    });
    assert_eq!(heard, "from one");
    server.wait();
    one.remove();
    two.remove();
}

/// The pod with another network.
fn on_the_host(cri: &Cri, name: &str) -> PodSandboxConfig {
    let mut config = cri.config(name);
    config.hostname = String::new();
    let context = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut()).expect("a context");
    context.namespace_options.as_mut().expect("namespaces").network = NamespaceMode::Node.into();
    config
}

pub fn host_network(cri: &Cri) {
    let pod = cri.run(on_the_host(cri, "host-net")).expect("RunPodSandbox");
    let own = fs::read_link("/proc/self/ns/net").expect("our network namespace");
    assert_eq!(pod.idle("one").sh("readlink /proc/self/ns/net"), own.to_string_lossy());
    pod.remove();
}

pub fn sysctls(cri: &Cri) {
    let mut config = cri.config("sysctls");
    let linux = config.linux.as_mut().expect("linux");
    linux.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "80".into());
    linux.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
    let pod = cri.run(config).expect("RunPodSandbox");
    let seen = pod.idle("one").sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced");
    assert_eq!(seen, "80\n1");
    pod.remove();
    // One of the whole host is refused, and the pod gone.
    let mut config = cri.config("sysctls");
    config.linux.as_mut().expect("linux").sysctls.insert("kernel.panic".into(), "10".into());
    let error = cri.run(config).err().expect("a sysctl of the host");
    assert!(error.message().contains("kernel.panic"), "{error:?}");
}

pub fn dns(cri: &Cri) {
    let mut config = cri.config("dns");
    let servers = vec!["10.0.0.10".into()];
    config.dns_config = Some(DnsConfig { servers, searches: vec!["svc.test".into()], options: vec!["ndots:5".into()] });
    let pod = cri.run(config).expect("RunPodSandbox");
    let one = pod.idle("one");
    assert_eq!(one.sh("cat /etc/resolv.conf"), "search svc.test\nnameserver 10.0.0.10\noptions ndots:5");
    assert_eq!(one.sh("hostname; cat /etc/hostname"), "dns\ndns");
    pod.remove();
}

pub fn stop_ends_containers(cri: &Cri) {
    let pod = cri.pod("stop");
    let (one, two) = (pod.idle("one"), pod.start(pod.config("two", &["sh", "-c", "trap '' TERM; sleep 1000"])));
    pod.stop();
    assert_eq!(one.wait().exit_code, 137);
    assert_eq!(two.wait().exit_code, 137);
    pod.remove();
}

pub fn sandbox_killed(cri: &Cri) {
    let pod = cri.pod("killed");
    // What holds the pod's namespaces.
    let cgroup = format!("{}/{}", pod.parent, pod.id);
    let pids = crate::cgroups::read("pids", &cgroup, "cgroup.procs");
    let first = pids.lines().next().expect("a process");
    assert!(Command::new("kill").args(["-9", first]).status().expect("kill").success());
    within(10, "the sandbox is not ready", || (pod.state() == PodSandboxState::SandboxNotready).then_some(()));
    pod.remove();
}

pub fn at_once(cri: &Cri) {
    std::thread::scope(|scope| {
        for number in 0..6 {
            let cri = cri.again();
            scope.spawn(move || {
                let pod = cri.pod(&format!("at-once-{number}"));
                let (status, stdout, _) = pod.run(pod.config("one", &["echo", "done"]));
                assert_eq!((status, stdout.as_str()), (0, "done\n"));
                pod.remove();
            });
        }
    });
}
