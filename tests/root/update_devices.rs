//! `update` of device rules: replaced in a running container, without a moment in which nothing is enforced.

use serde_json::{Value, json};

use super::update::update_from_stdin;
use crate::common::program::start;
use crate::common::{Container, eventually};
use crate::{container_test, skip_for_runc, skip_unless};

/// Nothing but the defaults and these: (major, minor, access).
fn rules(allowed: &[(i64, i64, &str)]) -> Value {
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    rules.extend(allowed.iter().map(|(major, minor, access)| {
        json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": access })
    }));
    json!({ "devices": rules })
}

/// A container with a node that may be written only.
fn with_nodes(c: &mut Container) {
    c.set(
        "/linux/devices",
        json!([{ "type": "c", "path": "/dev/fuse", "major": 10, "minor": 229, "fileMode": 0o666 }]),
    );
    c.set("/linux/resources", rules(&[(10, 229, "w")]));
    c.args(&["sleep-forever"]);
    c.detach().ok();
}

/// Whether the cgroup lets a process of the container open it.
fn opens(c: &Container, path: &str, mode: &str) -> bool {
    !super::exec::exec(c, &[], &["open", path, mode]).stdout.contains("EPERM")
}

container_test!(rules_are_replaced_in_a_running_container, |c| {
    skip_for_runc!(c, "it never changes them");
    with_nodes(c);
    assert_eq!((opens(c, "/dev/fuse", "w"), opens(c, "/dev/fuse", "r")), (true, false));
    update_from_stdin(c, &rules(&[(10, 229, "rw")])).ok();
    assert_eq!((opens(c, "/dev/fuse", "w"), opens(c, "/dev/fuse", "r")), (true, true));
    update_from_stdin(c, &rules(&[])).ok();
    assert_eq!((opens(c, "/dev/fuse", "w"), opens(c, "/dev/fuse", "r")), (false, false));
    // The defaults stay, and other limits don't touch devices.
    assert!(opens(c, "/dev/null", "rw"));
    super::update::update(c, &[]).ok();
    assert!(!opens(c, "/dev/fuse", "w"));
    update_from_stdin(c, &json!({ "devices": [{ "allow": true, "access": "rwm" }] })).ok();
    assert!(opens(c, "/dev/fuse", "w"));
    update_from_stdin(c, &rules(&[(10, 229, "w")])).ok();
    assert_eq!((opens(c, "/dev/fuse", "w"), opens(c, "/dev/fuse", "r")), (true, false));
});

container_test!(what_both_lists_forbid_is_never_open_and_what_both_allow_never_closed, |c| {
    skip_for_runc!(c, "it never changes them");
    with_nodes(c);
    let begin = |words: &[&str]| start(&mut c.command(&super::exec::line(c, &[], words)), &c.dir);
    let mut forbidden = begin(&["opens-until", "/tmp/stop", "/dev/fuse", "r"]);
    let mut allowed = begin(&["opens-until", "/tmp/stop", "/dev/fuse", "w"]);
    forbidden.wait_for("ready");
    allowed.wait_for("ready");
    for _ in 0..30 {
        update_from_stdin(c, &rules(&[(10, 229, "w"), (10, 228, "rw"), (4, 64, "r")])).ok();
        update_from_stdin(c, &rules(&[(10, 229, "w")])).ok();
    }
    std::fs::write(c.rootfs().join("tmp/stop"), "").unwrap();
    let (forbidden, allowed) = (forbidden.wait().ok().stdout, allowed.wait().ok().stdout);
    assert!(forbidden.contains("opened 0 refused "), "{forbidden}");
    assert!(allowed.contains(" refused 0"), "{allowed}");
    eventually("one process", || crate::common::host::cgroup_pids(&format!("{}/{}", c.cgroup, c.id)).len() == 1);
});

container_test!(rules_that_v1_cannot_say_and_back, |c| {
    skip_for_runc!(c, "it never changes them");
    with_nodes(c);
    let hole = json!({ "devices": [
        { "allow": true, "type": "c", "major": 10, "access": "rwm" },
        { "allow": false, "type": "c", "major": 10, "minor": 229, "access": "r" },
    ] });
    let v2 = crate::common::host::mounts().contains(" - cgroup2 ");
    skip_unless!(c, v2, "no cgroup v2 for an eBPF program");
    update_from_stdin(c, &hole).ok();
    assert_eq!((opens(c, "/dev/fuse", "w"), opens(c, "/dev/fuse", "r")), (true, false));
    update_from_stdin(c, &rules(&[(10, 229, "r")])).ok();
    assert_eq!((opens(c, "/dev/fuse", "w"), opens(c, "/dev/fuse", "r")), (false, true));
});

container_test!(a_bad_rule_changes_nothing, |c| {
    skip_for_runc!(c, "it never changes them");
    with_nodes(c);
    let bad = json!({ "devices": [{ "allow": true, "type": "c", "major": 10, "minor": 229, "access": "x" }] });
    update_from_stdin(c, &bad).fails(&["--resources \"-\": /devices/0/access: \"x\", expected letters of \"rwm\""]);
    assert_eq!((opens(c, "/dev/fuse", "w"), opens(c, "/dev/fuse", "r")), (true, false));
});
