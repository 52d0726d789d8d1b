//! Small containers: what the runtime itself needs doesn't count against their limits, or hardly.

use serde_json::json;

use crate::common::{assert_has, host, trace};
use crate::{container_test, skip_for_runc, skip_unless};

/// Bytes that a static program must be able to start with.
const ENOUGH: u64 = 512 << 10;

container_test!(half_a_megabyte_and_one_process_are_enough, |c| {
    skip_for_runc!(c, "it needs about 7 MB");
    skip_unless!(c, host::has_controller("memory"), "no memory controller");
    c.set("/linux/resources/memory", json!({ "limit": ENOUGH, "swap": ENOUGH }));
    if host::has_controller("pids") {
        c.set("/linux/resources/pids/limit", 1);
    }
    c.args(&["exit", "6"]);
    for _ in 0..5 {
        c.run().exits(6);
    }
    c.args(&["sleep-forever"]);
    c.detach().ok();
    assert_eq!(c.status(), "running");
});

container_test!(too_little_memory_is_said, |c| {
    skip_for_runc!(c, "it guesses");
    skip_unless!(c, host::has_controller("memory"), "no memory controller");
    // One page: not even the page tables of a process fit.
    c.set("/linux/resources/memory", json!({ "limit": 4096, "swap": 4096 }));
    let output = c.run();
    assert_eq!(output.code, 1, "{output}");
    c.assert_clean();
    let file = if host::v1("memory").is_some() { "memory.oom_control" } else { "memory.events" };
    for part in ["OOM-killed (memory limit too low?)", file, "limit 4096 bytes", "peak "] {
        assert_has(&output.stderr, part);
    }
});

container_test!(an_exec_that_dies_on_its_way_tells_of_memory_kills, |c| {
    skip_for_runc!(c, "it doesn't look");
    skip_unless!(c, host::has_controller("memory"), "no memory controller");
    if !trace::available(c) {
        return;
    }
    c.set("/linux/resources/memory", json!({ "limit": 16 << 20, "swap": 16 << 20 }));
    c.args(&["sleep-forever"]);
    c.detach().ok();
    // Only the process inside makes this call.
    let words = super::exec::line(c, &[], &["true"]);
    let die = || trace::killed_at(c, true, "inject=capset:signal=SIGKILL:when=1", &words).wait().exits(255);
    let before = die();
    assert_has(&before.stderr, "it died before its program was executed\n");
    super::exec::exec(c, &[], &["eat-mem", "50"]).exits(137);
    let after = die();
    for part in
        ["it died before its program was executed; memory.", "killed for lack of memory", "limit 16777216 bytes"]
    {
        assert_has(&after.stderr, part);
    }
    assert_eq!(c.status(), "running");
});
