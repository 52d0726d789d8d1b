//! Which of the caller's descriptors the container's process keeps: `--preserve-fds` and `LISTEN_FDS` (sd_listen_fds(3)).

use std::os::fd::BorrowedFd;

use anyhow::Result;

use crate::sys::fs::{borrow, cloexec_from, inherited};

/// Descriptors from 3 on that are passed, and the environment that tells the program about those of LISTEN_FDS.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    pub(crate) numbers: Vec<i32>,
    pub(crate) environment: Vec<String>,
    /// Whether the program is to find its own pid in LISTEN_PID.
    pub(crate) listens: bool,
}

/// Settles it, and marks every other descriptor close-on-exec (CVE-2024-21626): nothing of the caller's that wasn't
/// asked for reaches a hook or the container.
pub(crate) fn settle(preserve: u32) -> Result<Passed> {
    // Meant for us only if it carries our pid; an engine's own leftovers are not.
    let ours = variable("LISTEN_PID").is_some_and(|pid| pid.parse() == Ok(std::process::id()));
    let listen = variable("LISTEN_FDS").filter(|_| ours).and_then(|count| count.parse::<u32>().ok()).unwrap_or(0);
    let numbers = among(listen.saturating_add(preserve))?;
    // Marking all is right even for those that are passed: they are unmarked just before the program is executed.
    cloexec_from(3)?;
    let mut passed = Passed { numbers, environment: Vec::new(), listens: listen > 0 };
    if listen > 0 {
        passed.environment = vec![format!("LISTEN_FDS={listen}")];
        passed.environment.extend(variable("LISTEN_FDNAMES").map(|names| format!("LISTEN_FDNAMES={names}")));
    }
    Ok(passed)
}

/// Those of the first `count` descriptors from 3 on that came from the caller. What isn't open leaves a hole, which an
/// engine that passes one high number relies on (`podman run --preserve-fd 5`); the runtime's own take such numbers.
fn among(count: u32) -> Result<Vec<i32>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let asked = 3..3_i32.saturating_add_unsigned(count);
    // By what there is, not number by number: the count may be as large as it likes. An inherited descriptor isn't
    // close-on-exec; one of the runtime's own is, and must not pass for it.
    let open = crate::sys::fs::open_descriptors()?;
    Ok(open.into_iter().filter(|fd| asked.contains(fd) && inherited(*fd)).collect())
}

/// What is passed, for a clone to keep.
pub(crate) fn kept(numbers: &[i32]) -> impl Iterator<Item = BorrowedFd<'_>> {
    numbers.iter().map(|fd| borrow(*fd))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
