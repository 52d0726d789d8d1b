//! What other processes' files of /proc show of the namespaces that those are in.

use std::collections::BTreeSet;
use std::fs;

use crate::Outcome;
use crate::sys;

/// `watch-views STOP`: looks at each new process of this pid namespace as early as it can, until the file is there. Says how
/// many it saw, and what these show of mounts and sockets that this process's own namespaces don't have.
pub(crate) fn watch(stop: &str) -> Outcome {
    println!("ready");
    sys::flush();
    // How far ahead the next process is looked for: not each number is given to one that is seen.
    const AHEAD: u32 = 12;
    let own = [lines("self", "mountinfo"), lines("self", "net/unix")];
    let (mut next, mut count, mut turn) = (std::process::id() + 1, 0_u32, 0_u32);
    let mut seen = BTreeSet::new();
    loop {
        turn = turn.wrapping_add(1);
        if turn.is_multiple_of(64) && fs::symlink_metadata(stop).is_ok() {
            break;
        }
        let pid = if turn.is_multiple_of(2) { next } else { next + turn / 2 % AHEAD };
        let Ok(mounts) = fs::read_to_string(format!("/proc/{pid}/mountinfo")) else { continue };
        let theirs = [mounts.lines().map(str::to_owned).collect(), lines(&pid.to_string(), "net/unix")];
        for (name, (theirs, own)) in ["mountinfo", "net/unix"].into_iter().zip(theirs.iter().zip(&own)) {
            seen.extend(theirs.difference(own).map(|line| format!("{name} {line}")));
        }
        (next, count) = (pid + 1, count + 1);
    }
    println!("{count}");
    seen.iter().take(10).for_each(|line| println!("{line}"));
    Ok(0)
}

fn lines(pid: &str, file: &str) -> BTreeSet<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default().lines().map(str::to_owned).collect()
}
