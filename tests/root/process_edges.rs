//! Where the properties of a process meet: sets of capabilities and those of `exec`, sysctls that veto each other, limits
//! that the host doesn't allow, a large passwd file.

use std::fs;
use std::io::Write;

use serde_json::json;

use super::budget::linux;
use super::exec::{exec, facts, sleep};
use super::hooks::{only, record};
use crate::common::{Container, rival};
use crate::{container_test, skip_for_runc};

const X: &str = "CAP_NET_RAW";
const Y: &str = "CAP_KILL";

/// Which of `X` and `Y` are in the sets bounding, effective, inheritable, permitted and ambient of a process.
fn sets(facts: &serde_json::Value) -> [String; 5] {
    ["CapBnd", "CapEff", "CapInh", "CapPrm", "CapAmb"].map(|set| {
        let mask = u64::from_str_radix(facts["status"][set].as_str().unwrap(), 16).unwrap();
        let names = [("x", 13), ("y", 5)].into_iter().filter(|(_, bit)| mask >> bit & 1 == 1);
        names.map(|(name, _)| name).collect()
    })
}

container_test!(the_sets_of_exec_with_a_capability_more, |c| {
    // (inheritable and ambient of config.json, the option, what exec's process has)
    let rows: [(&[&str], &[&str], [&str; 5]); 5] = [
        (&[], &[], ["y", "y", "", "y", ""]),
        (&[], &["--cap", X], ["xy", "xy", "", "xy", ""]),
        (&[X], &["--cap", X], ["xy", "xy", "x", "xy", "x"]),
        (&[X, Y], &["--cap", X], ["xy", "xy", "xy", "xy", "xy"]),
        (&[Y], &["--cap", X], ["xy", "xy", "y", "xy", "y"]),
    ];
    for (inherited, option, expected) in rows {
        let ambient: Vec<&str> = inherited.iter().copied().filter(|name| *name == Y).collect();
        // capset(2) takes as inheritable only what is in the bounding set.
        let bounding: Vec<&str> = [X, Y].into_iter().filter(|name| *name == Y || inherited.contains(name)).collect();
        // What is inheritable must be permitted to become ambient; X becomes that by the option alone.
        c.set(
            "/process/capabilities",
            json!({ "bounding": bounding, "effective": [Y], "permitted": [Y], "inheritable": inherited, "ambient": ambient }),
        );
        sleep(c);
        assert_eq!(sets(&facts(c, option)), expected, "{inherited:?} {option:?}");
        c.delete_force().ok();
    }
});

container_test!(a_process_file_without_limits_has_the_containers, |c| {
    skip_for_runc!(c, "it gives the caller's");
    c.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 78 }]));
    sleep(c);
    let file = c.path("process.json");
    let process = json!({ "args": ["/guest", "facts"], "cwd": "/", "user": { "uid": 0, "gid": 0 } });
    fs::write(&file, process.to_string()).unwrap();
    let facts = c.tare(&["exec", "--process", file.to_str().unwrap(), &c.id]).ok().json();
    assert_eq!(facts["rlimits"]["RLIMIT_NOFILE"], json!([77, 78]));
});

container_test!(home_is_found_at_the_end_of_a_large_passwd_file, |c| {
    fs::create_dir(c.rootfs().join("etc")).unwrap();
    let mut file = fs::File::create(c.rootfs().join("etc/passwd")).unwrap();
    file.write_all(&b"nobody:x:65534:65534:somebody else:/nowhere:/bin/false\n".repeat(140_000)).unwrap();
    file.write_all(b"user:x:1000:1000::/home/user:/bin/sh\n").unwrap();
    assert!(file.metadata().unwrap().len() > 7_000_000);
    c.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    c.set("/process/env", json!(["PATH=/bin"]));
    assert_eq!(c.facts()["env"], json!(["PATH=/bin", "HOME=/home/user"]));
});

container_test!(a_passwd_file_without_end_is_an_error_that_says_what_to_do, |c| {
    skip_for_runc!(c, "it reads all of it");
    fs::create_dir(c.rootfs().join("etc")).unwrap();
    // A hole, which costs the image nothing.
    fs::File::create(c.rootfs().join("etc/passwd")).unwrap().set_len(1 << 40).unwrap();
    c.set("/process/env", json!(["PATH=/bin"]));
    c.args(&["true"]).run().fails(&["/process/env: HOME is looked up", "256 MiB", "expected HOME in the environment"]);
    c.set("/process/env", json!(["PATH=/bin", "HOME=/root"]));
    c.run().ok();
});

container_test!(sysctls_that_veto_each_other, |c| {
    let read = |c: &mut Container| {
        let files = ["/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/net/ipv4/ip_local_port_range"];
        files.map(|file| c.prints(&["cat", file]).split_whitespace().collect::<Vec<_>>().join(" "))
    };
    // Each takes another order: the first pair the name that sorts last, the second the one that sorts first.
    for (start, range) in [("0", "1000 2000"), ("30000", "40000 50000")] {
        if rival().is_some() && start == "0" {
            continue; // It goes by the names.
        }
        let sysctls = json!({ "net.ipv4.ip_unprivileged_port_start": start, "net.ipv4.ip_local_port_range": range });
        c.set("/linux/sysctl", sysctls);
        assert_eq!(read(c), [start, range]);
    }
});

container_test!(of_refused_sysctls_the_first_is_named, |c| {
    skip_for_runc!(c, "it goes by the names");
    c.set(
        "/linux/sysctl",
        json!({ "net.ipv4.ip_forward": "1", "net.ipv4.no_such_thing": "1", "net.ipv4.none_either": "1" }),
    );
    c.args(&["true"]).run().fails(&["/linux/sysctl: \"net/ipv4/no_such_thing\" to \"1\"", "ENOENT"]);
});

container_test!(the_largest_pid_belongs_to_the_pid_namespace, |c| {
    skip_for_runc!(c, "it refuses this");
    let before = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    c.set("/linux/sysctl", json!({ "kernel.pid_max": "1000" }));
    if linux() >= [6, 14] {
        assert_eq!(c.prints(&["cat", "/proc/sys/kernel/pid_max"]), "1000\n");
    } else {
        c.args(&["true"]).run().fails(&["/linux/sysctl: \"kernel/pid_max\": on this kernel it is the host's"]);
    }
    // The host's by its name, and by its path.
    let namespaces = c.config["linux"]["namespaces"].clone();
    let without: Vec<_> = namespaces.as_array().unwrap().iter().filter(|n| n["type"] != "pid").cloned().collect();
    c.set("/linux/namespaces", json!(without)).args(&["true"]);
    c.run().fails(&["/linux/sysctl/kernel.pid_max", "would change the host"]);
    c.push("/linux/namespaces", json!({ "type": "pid", "path": "/proc/self/ns/pid" }));
    c.run().fails(&["/linux/sysctl", "kernel/pid_max", "not allowed in host pid namespace"]);
    assert_eq!(fs::read_to_string("/proc/sys/kernel/pid_max").unwrap(), before);
});

container_test!(more_descriptors_than_the_host_allows, |c| {
    skip_for_runc!(c, "its own words");
    let most: u64 = fs::read_to_string("/proc/sys/fs/nr_open").unwrap().trim().parse().unwrap();
    c.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": most + 1 }]));
    c.args(&["true"]);
    let output = c.run().fails(&["/process/rlimits/0", &format!("at most {most} (sysctl fs.nr_open)"), "EPERM"]);
    assert!(!output.stderr.contains("CAP_SYS_RESOURCE"), "{output}");
});

container_test!(each_hook_has_its_working_directory, |c| {
    c.args(&["true"]);
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let hook = record(c, kind);
        c.push(&format!("/hooks/{kind}"), hook);
    }
    c.run().ok();
    let bundle = c.bundle();
    let rootfs = c.rootfs();
    for (kind, expected) in [
        ("prestart", &bundle),
        ("createRuntime", &bundle),
        ("createContainer", &rootfs),
        ("poststart", &bundle),
        ("poststop", &bundle),
    ] {
        assert_eq!(only(c, kind)["facts"]["cwd"], expected.to_str().unwrap(), "{kind}");
    }
});

container_test!(exec_takes_what_it_is_given_and_nothing_more, |c| {
    c.set("/process/capabilities", json!({ "bounding": [Y], "effective": [Y], "permitted": [Y] }));
    sleep(c);
    exec(c, &["--cap", "CAP_NONE"], &["true"]).exits(255);
    assert_eq!(sets(&facts(c, &[])), ["y", "y", "", "y", ""]);
});
