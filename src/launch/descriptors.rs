//! Which of the caller's descriptors the container's process keeps: `--preserve-fds` and `LISTEN_FDS` (sd_listen_fds(3)).

use anyhow::{Result, bail};

use crate::sys::fs::{cloexec_from, inherited};

/// Descriptors from 3 on that are passed, and the environment that tells the program about those of LISTEN_FDS.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    pub(crate) count: u32,
    pub(crate) listen: Vec<String>,
}

/// Settles it, and marks every other descriptor close-on-exec (CVE-2024-21626): nothing of the caller's that wasn't
/// asked for reaches a hook or the container.
pub(crate) fn settle(preserve: u32) -> Result<Passed> {
    // Meant for us only if it carries our pid; an engine's own leftovers are not.
    let ours = variable("LISTEN_PID").and_then(|pid| pid.parse().ok()) == Some(std::process::id());
    let listen = variable("LISTEN_FDS").filter(|_| ours).and_then(|count| count.parse::<u32>().ok()).unwrap_or(0);
    let count = listen.saturating_add(preserve);
    // An inherited descriptor isn't close-on-exec; one of the runtime's own is, and must not pass for it.
    if let Some(missing) = (3..3_u32.saturating_add(count)).find(|fd| !inherited(fd.cast_signed())) {
        bail!("--preserve-fds={preserve}: descriptor {missing} is not open");
    }
    // Marking all is right even for those that are passed: they are unmarked just before the program is executed.
    cloexec_from(3)?;
    let mut passed = Passed { count, listen: Vec::new() };
    if listen > 0 {
        passed.listen = vec![format!("LISTEN_FDS={listen}"), "LISTEN_PID=1".into()];
        passed.listen.extend(variable("LISTEN_FDNAMES").map(|names| format!("LISTEN_FDNAMES={names}")));
    }
    Ok(passed)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
