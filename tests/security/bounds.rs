//! Numbers and names of the caller's: nothing is cut short, nothing leaves the folder of the state.

use std::fs;

use serde_json::{Value, json};

use crate::common::strings;
use crate::container_test;

/// `count` mappings of one id each.
fn mappings(count: u32) -> Value {
    (0..count).map(|i| json!({ "containerID": i, "hostID": 300_000 + 2 * i, "size": 1 })).collect()
}

// More bytes of mappings than a netlink attribute's 16-bit length holds.
container_test!(cve_2021_43784_mappings_are_whole_or_an_error, |c| {
    super::map(c);
    // The kernel takes 340, in less than a page of text.
    let most = mappings(300);
    c.set("/linux/uidMappings", most.clone()).set("/linux/gidMappings", most);
    let facts = c.facts();
    assert_eq!(strings(&facts["uid_map"]).len(), 300);
    assert_eq!(strings(&facts["gid_map"]).len(), 300);
    for count in [341, 5000, 70_000] {
        let many = mappings(count);
        c.set("/linux/uidMappings", many.clone()).set("/linux/gidMappings", many);
        c.run().fails(&["/linux/uidMappings", "340"]);
        c.assert_clean();
    }
});

container_test!(ids_are_no_paths, |c| {
    let above = c.path("above");
    fs::create_dir(&above).unwrap();
    c.write_config();
    for id in ["../above/x", "a/b", "", ".", "..", "/", "a\nb", "a b", "x\u{301}"] {
        for command in ["run", "create"] {
            let output = c.tare(&[command, "--bundle", c.bundle().to_str().unwrap(), id]);
            assert_eq!(output.code, 1, "{id:?}: {output}");
        }
        let output = c.tare(&["delete", "--force", id]);
        assert!(output.code == 1 || output.code == 0, "{id:?}: {output}");
    }
    assert_eq!(fs::read_dir(&above).unwrap().count(), 0);
    c.assert_clean();
});

// A cgroup mount without a cgroup namespace shows the host's tree: nothing in it may be written from a user namespace.
container_test!(cve_2023_25809_cgroups_of_the_host_are_not_writable, |c| {
    super::map(c);
    c.push(
        "/mounts",
        crate::common::config::mount("cgroup", "cgroup", "/sys/fs/cgroup", &["rprivate", "nosuid", "noexec"]),
    );
    c.args(&["all", "ls", "/sys/fs/cgroup", ",", "cat", "/proc/self/cgroup"]);
    let output = c.run().ok();
    let own = output.stdout.lines().filter_map(|line| line.splitn(3, ':').nth(2)).next_back().unwrap().to_owned();
    let mut folders: Vec<String> = output.stdout.lines().filter(|l| !l.contains(':')).map(str::to_owned).collect();
    // On v1 the folder of the hierarchies is a tmpfs of the container's.
    if folders.iter().any(|name| name == "cgroup.procs") {
        folders.push(String::new());
    }
    for folder in folders {
        for path in [format!("/sys/fs/cgroup/{folder}/made"), format!("/sys/fs/cgroup/{folder}{own}/made")] {
            c.args(&["mkdir", &path]);
            assert_ne!(c.run().code, 0, "{path} could be made");
        }
    }
});
