//! Why the kernel refused something about a cgroup, found out by looking: what it says itself is an EINVAL or an ENOENT.
//!
//! Asked only after a failure. Each answer names the cause and the remedy; none where nothing is found.

use std::path::Path;

use nix::errno::Errno;

use super::dir::Dir;
use crate::host::in_user_namespace;
use crate::sys;

/// What was tried on the cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried<'a> {
    /// To make it.
    Make,
    /// To enable a controller for what is below it.
    Enable(&'a str),
    /// To move a process into it.
    Move(i32),
}

/// The cause of `errno`, and what helps.
pub(super) fn cause(path: &Path, tried: Tried<'_>, errno: Errno) -> Option<String> {
    match (errno, tried) {
        (Errno::EROFS, _) => Some(read_only(path)),
        (Errno::EACCES | Errno::EPERM, Tried::Enable(controller)) => Some(not_delegated(path, controller)),
        (Errno::EACCES | Errno::EPERM, _) => Some(not_ours(path)),
        (Errno::ENOENT, Tried::Enable(controller)) => Some(not_offered(path, controller)),
        (Errno::EBUSY, Tried::Enable(_)) => Some(inner_processes(path)),
        (Errno::EBUSY, Tried::Move(_)) => Some(hands_down(path)),
        (Errno::EOPNOTSUPP | Errno::EINVAL, Tried::Enable(controller)) => {
            threaded(path).or_else(|| (controller == "cpu").then(|| real_time_below(path)).flatten())
        }
        (Errno::EOPNOTSUPP | Errno::EINVAL, Tried::Move(pid)) => threaded(path).or_else(|| real_time(path, pid)),
        (Errno::EAGAIN, Tried::Make) => Some(format!(
            "a limit on the number of cgroups is reached (cgroup.max.descendants or cgroup.max.depth above {path:?})"
        )),
        _ => None,
    }
}

fn read_only(path: &Path) -> String {
    format!(
        "{path:?} is on a file system that is mounted read-only: mount it read-write \
         (mount -o remount,rw), or do without a cgroup (--cgroup-manager=disabled, no limits)"
    )
}

fn not_ours(path: &Path) -> String {
    let owner = if in_user_namespace() { "this user namespace" } else { "this user" };
    // The first words are runc's: engines know them.
    format!(
        "rootless needs no limits + no cgrouppath when no permission is granted for cgroups: {path:?} is not {owner}'s to \
         change; have one delegated by systemd (--systemd-cgroup, or systemd-run --user --scope -p Delegate=yes), leave \
         out /linux/resources and /linux/cgroupsPath, or use --cgroup-manager=disabled"
    )
}

const DELEGATE: &str = "\"Delegate=cpu cpuset io memory pids\" in a drop-in of user@.service for a user's containers";

fn not_delegated(path: &Path, controller: &str) -> String {
    format!("controller {controller:?} isn't delegated, {path:?} is not ours to change: {DELEGATE}")
}

/// ENOENT: the parent's cgroup.controllers doesn't have it.
pub(super) fn not_offered(path: &Path, controller: &str) -> String {
    let offered = Dir::new(path.to_owned()).read("cgroup.controllers").unwrap_or_default();
    format!(
        "controller {controller:?} isn't delegated: {path:?}/cgroup.controllers has only \"{}\"; \
         whoever manages that cgroup must enable it ({DELEGATE})",
        offered.trim_end()
    )
}

fn inner_processes(path: &Path) -> String {
    let text = Dir::new(path.to_owned()).read("cgroup.procs").unwrap_or_default();
    let first = text.lines().next().map(|pid| format!(", such as {}", process(pid))).unwrap_or_default();
    format!(
        "{path:?} has processes of its own{first} and so can't hand controllers down (\"no internal processes\"): \
         move them into a cgroup beside the container's, or choose another cgroupsPath"
    )
}

/// EBUSY of a move: the target hands controllers down, so it takes no processes.
fn hands_down(path: &Path) -> String {
    let enabled = Dir::new(path.to_owned()).read("cgroup.subtree_control").unwrap_or_default();
    format!(
        "{path:?} hands controllers down (cgroup.subtree_control has \"{}\") and so takes no processes itself",
        enabled.trim_end()
    )
}

/// cgroup.type tells; `domain invalid` is a domain below a threaded one.
fn threaded(path: &Path) -> Option<String> {
    for path in path.ancestors() {
        let kind = Dir::new(path.to_owned()).read("cgroup.type").ok()?;
        let kind = kind.trim_end();
        if kind == "threaded" || kind == "domain invalid" {
            return Some(format!(
                "{path:?} is a threaded cgroup (cgroup.type is \"{kind}\"), which holds threads, not containers: \
                 choose a cgroupsPath outside the threaded subtree"
            ));
        }
        if kind == "domain threaded" {
            return Some(format!(
                "{path:?} is the root of a threaded subtree (cgroup.type is \"{kind}\"), which can't hand memory and \
                 I/O limits down: choose a cgroupsPath outside of it"
            ));
        }
    }
    None
}

/// With CONFIG_RT_GROUP_SCHED a real-time process needs a share of real-time CPU time, which new cgroups have none of.
fn real_time(path: &Path, pid: i32) -> Option<String> {
    let policy = policy(pid)?;
    let file = path.join("cpu.rt_runtime_us");
    if file.exists() {
        return Some(format!(
            "{} has the real-time policy {policy}, and {file:?} gives it no CPU time: \
             set linux.resources.cpu.realtimeRuntime (and that of the cgroups above), or start it with an ordinary policy",
            process(&pid.to_string())
        ));
    }
    Some(format!(
        "{} has the real-time policy {policy}, which the cpu controller of this kernel doesn't take \
         (CONFIG_RT_GROUP_SCHED): start it with an ordinary policy",
        process(&pid.to_string())
    ))
}

/// Enabling the cpu controller moves what is in the cgroups below; a real-time process can't be.
fn real_time_below(path: &Path) -> Option<String> {
    let pids = Dir::new(path.to_owned()).pids().unwrap_or_default();
    let (pid, policy) = pids.into_iter().find_map(|pid| Some((pid, policy(pid.as_raw())?)))?;
    Some(format!(
        "{} below {path:?} has the real-time policy {policy}, and this kernel (CONFIG_RT_GROUP_SCHED) doesn't enable \
         the cpu controller over one: give it an ordinary policy (chrt --other -p 0 {pid}) or move it to the root cgroup",
        process(&pid.to_string())
    ))
}

/// SCHED_FIFO or SCHED_RR, by proc_pid_stat(5)'s field 41.
fn policy(pid: i32) -> Option<&'static str> {
    let stat = sys::read_small(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // Field 3 is the first after the name.
    match stat.rsplit_once(") ")?.1.split(' ').nth(38)? {
        "1" => Some("SCHED_FIFO"),
        "2" => Some("SCHED_RR"),
        _ => None,
    }
}

fn process(pid: &str) -> String {
    let name = sys::read_small(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("process {pid} ({:?})", String::from_utf8_lossy(&name).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like a cgroup.
    fn fake(files: &[(&str, &str)]) -> tempfile::TempDir {
        let base = tempfile::tempdir().unwrap();
        for (file, text) in files {
            std::fs::write(base.path().join(file), text).unwrap();
        }
        base
    }

    #[track_caller]
    fn says(base: &tempfile::TempDir, tried: Tried<'_>, errno: Errno, parts: &[&str]) {
        let text = cause(base.path(), tried, errno).unwrap();
        for part in parts {
            assert!(text.contains(part), "{part:?} isn't in {text:?}");
        }
        assert!(!text.contains('\n'));
    }

    #[test]
    fn each_cause_has_its_own_words() {
        let own = std::process::id().to_string();
        let plain = fake(&[("cgroup.type", "domain\n"), ("cgroup.controllers", "cpu pids\n")]);
        let threads = fake(&[("cgroup.type", "threaded\n")]);
        let invalid = fake(&[("cgroup.type", "domain invalid\n")]);
        let root = fake(&[("cgroup.type", "domain threaded\n")]);
        let inner = fake(&[("cgroup.type", "domain\n"), ("cgroup.procs", &format!("{own}\n"))]);
        let down = fake(&[("cgroup.type", "domain\n"), ("cgroup.subtree_control", "memory\n")]);
        says(&plain, Tried::Make, Errno::EROFS, &["read-only", "remount,rw"]);
        says(&plain, Tried::Make, Errno::EACCES, &["to change", "Delegate=yes"]);
        says(&plain, Tried::Make, Errno::EAGAIN, &["cgroup.max.descendants"]);
        says(
            &plain,
            Tried::Enable("memory"),
            Errno::ENOENT,
            &["\"memory\" isn't delegated", "only \"cpu pids\"", "Delegate="],
        );
        says(&plain, Tried::Enable("memory"), Errno::EACCES, &["isn't delegated", "not ours", "user@.service"]);
        says(&inner, Tried::Enable("memory"), Errno::EBUSY, &["has processes of its own", &format!("process {own} (")]);
        says(&down, Tried::Move(1), Errno::EBUSY, &["takes no processes", "\"memory\""]);
        for tried in [Tried::Enable("memory"), Tried::Move(1)] {
            says(&threads, tried, Errno::EOPNOTSUPP, &["threaded cgroup", "\"threaded\"", "outside"]);
            says(&invalid, tried, Errno::EOPNOTSUPP, &["\"domain invalid\"", "outside"]);
            says(&root, tried, Errno::EOPNOTSUPP, &["root of a threaded subtree"]);
        }
        assert_eq!(cause(plain.path(), Tried::Move(1), Errno::EIO), None);
    }

    #[test]
    fn an_ordinary_process_is_not_blamed_for_its_policy() {
        assert_eq!(policy(i32::try_from(std::process::id()).unwrap()), None);
    }
}
