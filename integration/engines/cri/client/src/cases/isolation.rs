//! What separates a container from the host and joins it to its pod.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use k8s_cri::v1::security_profile::ProfileType;
use k8s_cri::v1::{
    Capability, ContainerConfig, Device, Int64Value, LinuxContainerSecurityContext, Mount, MountPropagation,
    NamespaceMode, NamespaceOption, PodSandboxConfig, SecurityProfile,
};

use crate::cgroups;
use crate::cri::{Container, Cri, Pod, within};

/// The container's security context.
fn context(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.as_mut().and_then(|linux| linux.security_context.as_mut()).expect("a context")
}

/// A container that waits, with a context that `change` changes.
fn idle_with<'a>(pod: &'a Pod, name: &str, change: impl FnOnce(&mut LinuxContainerSecurityContext)) -> Container<'a> {
    let mut config = pod.config(name, &["sleep", "1000"]);
    change(context(&mut config));
    pod.start(config)
}

fn pod_namespaces(config: &mut PodSandboxConfig) -> &mut NamespaceOption {
    let context = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut()).expect("a context");
    context.namespace_options.as_mut().expect("namespaces")
}

fn namespace(process: &str, kind: &str) -> String {
    fs::read_link(format!("/proc/{process}/ns/{kind}")).expect("a namespace").to_string_lossy().into_owned()
}

fn mount(host: &Path, container: &str) -> Mount {
    Mount { host_path: host.to_string_lossy().into_owned(), container_path: container.into(), ..Default::default() }
}

pub fn mounts(cri: &Cri) {
    let volume = cri.world.join("volume");
    fs::create_dir_all(volume.join("inner")).expect("a volume");
    fs::write(volume.join("file"), "from the host").expect("a file");
    let pod = cri.pod("mounts");
    let mut config = pod.config("one", &["sleep", "1000"]);
    config.mounts = vec![
        mount(&volume, "/data"),
        Mount { readonly: true, ..mount(&volume, "/ro") },
        mount(&volume.join("file"), "/etc/one-file"),
    ];
    let one = pod.start(config);
    assert_eq!(one.sh("cat /data/file /etc/one-file"), "from the hostfrom the host");
    assert_eq!(one.sh("echo x > /ro/new"), "sh: can't create /ro/new: Read-only file system");
    assert_eq!(one.sh("echo made > /data/made; stat -c %u /data/made"), "0");
    assert_eq!(fs::read_to_string(volume.join("made")).expect("the container's file"), "made\n");
    // What a container has without asking.
    assert_eq!(one.sh("stat -f -c %T /proc /dev /dev/shm | tr '\\n' ' '"), "proc tmpfs tmpfs");
    assert_ne!(one.sh("grep -c ' /sys/fs/cgroup' /proc/1/mountinfo"), "0");
    let inner = if cgroups::is_v2() { "/sys/fs/cgroup/x" } else { "/sys/fs/cgroup/memory/x" };
    assert_eq!(
        one.sh(&format!("mkdir {inner}")),
        format!("mkdir: can't create directory '{inner}': Read-only file system")
    );
    // A source that isn't there: containerd makes it, as kubelets expect.
    let mut config = pod.config("absent", &["stat", "/absent"]);
    config.mounts = vec![mount(&cri.world.join("absent"), "/absent")];
    assert_eq!(pod.run(config).0, 0);
    pod.remove();
}

pub fn mount_propagation(cri: &Cri) {
    let volume = cri.world.join("shared-volume");
    fs::create_dir_all(volume.join("from-host")).expect("a volume");
    fs::create_dir_all(volume.join("from-container")).expect("a volume");
    let run = |args: &[&str]| assert!(Command::new("mount").args(args).status().expect("mount").success(), "{args:?}");
    let at = volume.to_str().expect("a path of our own");
    run(&["--bind", at, at]);
    run(&["--make-shared", at]);
    let pod = cri.pod("propagation");
    let start = |name: &str, propagation: MountPropagation, privileged| {
        let mut config = pod.config(name, &["sleep", "1000"]);
        config.mounts = vec![Mount { propagation: propagation.into(), ..mount(&volume, "/v") }];
        context(&mut config).privileged = privileged;
        pod.start(config)
    };
    let private = start("private", MountPropagation::PropagationPrivate, false);
    let slave = start("slave", MountPropagation::PropagationHostToContainer, false);
    run(&["-t", "tmpfs", "tmpfs", &format!("{at}/from-host")]);
    fs::write(volume.join("from-host/seen"), "").expect("a file");
    assert_eq!(slave.sh("ls /v/from-host"), "seen");
    assert_eq!(private.sh("ls /v/from-host"), "");
    let umount = |at: &str| assert!(Command::new("umount").arg(at).status().expect("umount").success(), "{at}");
    umount(&format!("{at}/from-host"));
    assert_eq!(slave.sh("ls /v/from-host"), "");
    umount(at);
    pod.remove();
}

pub fn shared_volume(cri: &Cri) {
    let volume = cri.world.join("empty-dir");
    fs::create_dir_all(&volume).expect("a volume");
    let pod = cri.pod("volume");
    let start = |name: &str| {
        let mut config = pod.config(name, &["sleep", "1000"]);
        config.mounts = vec![mount(&volume, "/v")];
        pod.start(config)
    };
    let (one, two) = (start("one"), start("two"));
    assert_eq!(one.sh("echo hello > /v/file"), "");
    assert_eq!(two.sh("cat /v/file"), "hello");
    // Both share the pod's shared memory.
    assert_eq!(one.sh("echo shared > /dev/shm/file"), "");
    assert_eq!(two.sh("cat /dev/shm/file"), "shared");
    pod.remove();
}

pub fn users(cri: &Cri) {
    let pod = cri.pod("users");
    let one = idle_with(&pod, "one", |context| {
        context.run_as_user = Some(Int64Value { value: 1234 });
        context.run_as_group = Some(Int64Value { value: 2345 });
        context.supplemental_groups = vec![3456, 4567];
    });
    let seen = one.sh("id -u; id -g; id -G");
    assert!(seen.starts_with("1234\n2345\n2345 ") && seen.contains("3456 4567"), "{seen}");
    assert_eq!(one.sh("grep CapEff /proc/self/status"), "CapEff:\t0000000000000000");
    let named = idle_with(&pod, "named", |context| context.run_as_username = "user".into());
    assert_eq!(named.sh("id -u"), "1000");
    assert_eq!(named.sh("touch /etc/x"), "touch: /etc/x: Permission denied");
    pod.remove();
}

fn effective(container: &Container) -> u64 {
    let bits = container.sh("grep CapEff /proc/1/status | cut -f2");
    u64::from_str_radix(&bits, 16).unwrap_or_else(|_| panic!("{bits}"))
}

pub fn capabilities(cri: &Cri) {
    let pod = cri.pod("capabilities");
    let one = idle_with(&pod, "one", |context| {
        context.capabilities = Some(Capability {
            add_capabilities: vec!["SYS_PTRACE".into()],
            drop_capabilities: vec!["CHOWN".into()],
            ..Default::default()
        });
    });
    let bits = effective(&one);
    assert_eq!((bits & 1, bits >> 19 & 1), (0, 1), "{bits:x}");
    assert_eq!(one.sh("touch /tmp/x; chown 1 /tmp/x"), "chown: /tmp/x: Operation not permitted");
    // Runc's set is an exec's, too.
    assert_eq!(one.sh("grep CapEff /proc/self/status"), one.sh("grep CapEff /proc/1/status"));
    let none = idle_with(&pod, "none", |context| {
        let drop_capabilities = vec!["ALL".into()];
        context.capabilities = Some(Capability { drop_capabilities, ..Default::default() });
    });
    assert_eq!(effective(&none), 0);
    pod.remove();
}

pub fn no_new_privileges(cri: &Cri) {
    let pod = cri.pod("privileges");
    for value in [false, true] {
        let one = idle_with(&pod, &format!("is-{value}"), |context| context.no_new_privs = value);
        assert_eq!(one.sh("grep NoNewPrivs /proc/1/status"), format!("NoNewPrivs:\t{}", u8::from(value)));
    }
    pod.remove();
}

pub fn seccomp(cri: &Cri) {
    let pod = cri.pod("seccomp");
    let start = |name: &str, profile: ProfileType, path: &str| {
        let profile = SecurityProfile { profile_type: profile.into(), localhost_ref: path.into() };
        idle_with(&pod, name, |context| context.seccomp = Some(profile))
    };
    let default = start("default", ProfileType::RuntimeDefault, "");
    assert_eq!(default.sh("grep Seccomp: /proc/1/status"), "Seccomp:\t2");
    assert!(default.sh("unshare -U true").contains("Operation not permitted"));
    let unconfined = start("unconfined", ProfileType::Unconfined, "");
    assert_eq!(unconfined.sh("grep Seccomp: /proc/1/status"), "Seccomp:\t0");
    let file = cri.world.join("localhost.json");
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}"#;
    fs::write(&file, profile).expect("a profile");
    let own = start("own", ProfileType::Localhost, &file.to_string_lossy());
    assert!(own.sh("mkdir /tmp/x").contains("supported"), "{}", own.sh("mkdir /tmp/x"));
    pod.remove();
}

pub fn masked_paths(cri: &Cri) {
    let pod = cri.pod("masked");
    let one = idle_with(&pod, "one", |context| {
        context.masked_paths = vec!["/proc/version".into(), "/etc/passwd".into(), "/home".into(), "/nonesuch".into()];
        context.readonly_paths = vec!["/proc/sys".into(), "/tmp".into(), "/nonesuch".into()];
    });
    assert_eq!(one.sh("cat /etc/passwd; ls /home; head -c 1 /proc/version"), "");
    assert_eq!(one.sh("touch /tmp/x"), "touch: /tmp/x: Read-only file system");
    assert!(one.sh("echo 1 > /proc/sys/kernel/shm_rmid_forced").contains("Read-only file system"));
    pod.remove();
}

pub fn read_only_root(cri: &Cri) {
    let pod = cri.pod("read-only");
    let one = idle_with(&pod, "one", |context| context.readonly_rootfs = true);
    assert_eq!(one.sh("touch /tmp/x"), "touch: /tmp/x: Read-only file system");
    assert_eq!(one.sh("echo x > /dev/shm/x && cat /dev/shm/x"), "x");
    pod.remove();
}

pub fn privileged(cri: &Cri) {
    let mut config = cri.config("privileged");
    let linux = config.linux.as_mut().expect("linux");
    linux.security_context.as_mut().expect("a context").privileged = true;
    let pod = cri.run(config).expect("RunPodSandbox");
    let one = idle_with(&pod, "one", |context| context.privileged = true);
    assert_eq!(one.sh("mount -t tmpfs none /mnt && grep -c ' /mnt ' /proc/mounts"), "1");
    assert_eq!(one.sh("grep Seccomp: /proc/1/status"), "Seccomp:\t0");
    assert_eq!(one.sh("test -w /sys/fs/cgroup && echo yes"), "yes");
    pod.remove();
}

pub fn devices(cri: &Cri) {
    let pod = cri.pod("devices");
    let node = "/dev/fuse";
    let Ok(metadata) = fs::metadata(node) else {
        println!("no {node}");
        std::process::exit(77);
    };
    let mut config = pod.config("one", &["sleep", "1000"]);
    config.devices =
        vec![Device { host_path: node.into(), container_path: "/dev/given".into(), permissions: "r".into() }];
    let one = pod.start(config);
    let number = format!("{:x}:{:x}", metadata.rdev() >> 8, metadata.rdev() & 0xff);
    assert_eq!(one.sh("stat -c %t:%T /dev/given"), number);
    assert_eq!(one.sh("exec 3< /dev/given && echo read"), "read");
    assert_eq!(one.sh("exec 3> /dev/given"), "sh: can't create /dev/given: Operation not permitted");
    // And no other, even if its node can be made.
    assert!(one.sh("mknod /tmp/mem c 1 1; cat /tmp/mem").contains("Operation not permitted"));
    assert_eq!(one.sh("echo x > /dev/null; head -c 3 /dev/zero | wc -c"), "3");
    pod.remove();
}

pub fn namespaces_of_the_pod(cri: &Cri) {
    let mut config = cri.config("shared-pid");
    pod_namespaces(&mut config).pid = NamespaceMode::Pod.into();
    let pod = cri.run(config).expect("RunPodSandbox");
    let (one, two) = (pod.idle("one"), pod.start(pod.config("two", &["sleep", "2000"])));
    let (first, second) = (one.pid().to_string(), two.pid().to_string());
    for kind in ["net", "ipc", "uts", "pid"] {
        assert_eq!(namespace(&first, kind), namespace(&second, kind), "{kind}");
        assert_ne!(namespace(&first, kind), namespace("self", kind), "{kind}");
    }
    assert_ne!(namespace(&first, "mnt"), namespace(&second, "mnt"));
    // Neither is the first process of the pid namespace; both see each other, and exec works.
    assert_eq!(one.sh("ps -o args | grep -c 'sleep [12]000'"), "2");
    assert_ne!(one.sh("cat /proc/1/cmdline"), "");
    // The end of one kills all of its own, and none of the other's.
    assert_eq!(one.sh("sleep 3333 >/dev/null 2>&1 & sleep 0.2; ps -o args | grep -c '^sleep 3333$'"), "1");
    one.stop(0);
    one.wait();
    assert_eq!(two.sh("ps -o args | grep '^sleep 3333$'"), "");
    assert_eq!(two.sh("echo alive"), "alive");
    pod.remove();
}

pub fn namespaces_of_the_host(cri: &Cri) {
    let mut config = cri.config("host");
    config.hostname = String::new();
    let node = NamespaceMode::Node.into();
    *pod_namespaces(&mut config) = NamespaceOption { network: node, pid: node, ipc: node, ..Default::default() };
    let pod = cri.run(config).expect("RunPodSandbox");
    let one = pod.idle("one");
    for kind in ["net", "ipc", "pid", "uts"] {
        assert_eq!(one.sh(&format!("readlink /proc/self/ns/{kind}")), namespace("self", kind), "{kind}");
    }
    assert_eq!(one.sh("sleep 4444 >/dev/null 2>&1 & sleep 0.1"), "");
    one.stop(0);
    one.wait();
    let gone = || !Command::new("pgrep").args(["-f", "^sleep 4444"]).status().expect("pgrep").success();
    within(5, "the end of what it started", || gone().then_some(()));
    pod.remove();
}

pub fn namespace_of_another_container(cri: &Cri) {
    // `kubectl debug --target`.
    let pod = cri.pod("target");
    let one = pod.idle("one");
    let debugger = idle_with(&pod, "debugger", |context| {
        let options = context.namespace_options.as_mut().expect("namespaces");
        options.pid = NamespaceMode::Target.into();
        options.target_id = one.id.clone();
    });
    assert_eq!(namespace(&debugger.pid().to_string(), "pid"), namespace(&one.pid().to_string(), "pid"));
    assert_eq!(debugger.sh("tr '\\0' ' ' < /proc/1/cmdline").trim_end(), "sleep 1000");
    pod.remove();
}
