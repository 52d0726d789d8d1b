//! Small containers: what the runtime itself needs doesn't count against their limits, or hardly.

use serde_json::json;

use crate::common::{assert_has, host};
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
