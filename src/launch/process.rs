//! What is done to the container's process from outside, with the host's rights: limits, pid file.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use nix::errno::Errno;
use nix::unistd::Pid;

use crate::init::procfs::Procfs;
use crate::plan::limits::Limit;
use crate::plan::task::{Limits, Task};
use crate::sys::process::{SchedAttr, ioprio_set, prlimit, sched_setattr};
use crate::sys::{self, Context};

pub(super) fn write_proc(pid: Pid, file: &str, text: &str) -> sys::Result<()> {
    Procfs::host()?.write(&format!("{pid}/{file}"), text.as_bytes())
}

/// Before the process allocates anything.
pub(crate) fn set_oom_score_adj(pid: Pid, limits: &Limits) -> Result<()> {
    let Some(value) = limits.oom_score_adj else { return Ok(()) };
    let written = write_proc(pid, "oom_score_adj", &value.to_string());
    written
        .map_err(|error| match error.errno() {
            // proc_pid_oom_score_adj(5). Not in words: "permission denied" is about the program, for engines (126).
            errno @ (Errno::EACCES | Errno::EPERM) => {
                anyhow!("{value}: lowering it takes CAP_SYS_RESOURCE on the host ({errno:?})")
            }
            _ => anyhow::Error::new(error).context(value),
        })
        .context("config.json: /process/oomScoreAdj")
}

/// When the process is otherwise complete: low limits would hinder the way there. With the host's rights, so that hard
/// limits may be raised for a user namespace too.
pub(crate) fn set_limits(pid: Pid, task: &Task) -> Result<()> {
    let limits = &task.limits;
    // Without a user namespace the process has set them itself, before it became its user: on another user's process
    // that takes CAP_SYS_RESOURCE, which root in a container may not have.
    let rlimits = if task.user_namespace { limits.rlimits.as_slice() } else { &[] };
    for (index, limit) in rlimits.iter().enumerate() {
        prlimit(pid.as_raw(), limit.resource, limit.soft, limit.hard)
            .map_err(|error| limit_refused(error, limit))
            .with_context(|| format!("config.json: /process/rlimits/{index}"))?;
    }
    if let Some(it) = limits.scheduler {
        let attr = SchedAttr {
            size: 0,
            policy: it.policy,
            flags: it.flags,
            nice: it.nice,
            priority: it.priority,
            runtime: it.runtime,
            deadline: it.deadline,
            period: it.period,
        };
        sched_setattr(pid.as_raw(), &attr).map_err(scheduler_refused).context("config.json: /process/scheduler")?;
    }
    if let Some(value) = limits.io_priority {
        ioprio_set(pid.as_raw(), value).context("config.json: /process/ioPriority")?;
    }
    Ok(())
}

/// sched(7), "Privileges and resource limits", and "Limiting the CPU usage of real-time and deadline processes".
fn scheduler_refused(error: sys::Error) -> anyhow::Error {
    match error.errno() {
        Errno::EPERM => anyhow::Error::new(error).context(
            "a real-time or deadline policy, or a lower nice value, takes CAP_SYS_NICE on the host, and where the \
             kernel shares out real-time CPU time among cgroups, some of it in the container's",
        ),
        Errno::EBUSY => {
            anyhow::Error::new(error).context("the host's CPUs have not enough time left for this deadline")
        }
        _ => error.into(),
    }
}

/// Why prlimit(2) was refused. The process is ours, so it can only be that the hard limit is above the present one, or
/// that of descriptors above the host's sysctl, which no capability changes.
pub(crate) fn limit_refused(error: sys::Error, limit: &Limit) -> anyhow::Error {
    if error.errno() != Errno::EPERM {
        return error.into();
    }
    if u64::from(limit.resource) == libc::RLIMIT_NOFILE as u64
        && let Some(most) = most_descriptors()
        && limit.hard > most
    {
        return anyhow::Error::new(error).context(format!("the host allows at most {most} (sysctl fs.nr_open)"));
    }
    anyhow::Error::new(error).context("raising a hard limit takes CAP_SYS_RESOURCE on the host")
}

/// proc_sys_fs(5), /proc/sys/fs/nr_open.
fn most_descriptors() -> Option<u64> {
    std::fs::read_to_string("/proc/sys/fs/nr_open").ok()?.trim().parse().ok()
}

/// The pid in decimal, without newline, all of it or nothing.
pub(crate) fn write_pid_file(path: &Path, pid: Pid) -> Result<()> {
    let name = path.file_name().with_context(|| format!("--pid-file {path:?} is not the path of a file"))?;
    let mut new = std::ffi::OsString::from(".");
    new.push(name);
    new.push(format!(".{}", std::process::id()));
    let new = path.with_file_name(new);
    let write = || -> sys::Result<()> {
        let flags = libc::O_CLOEXEC | libc::O_NOFOLLOW;
        let mut options = std::fs::OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(0o666).custom_flags(flags).open(&new).call("open", &new)?;
        file.write_all(pid.to_string().as_bytes()).call("write", &new)?;
        std::fs::rename(&new, path).call("rename", path)
    };
    let written = write();
    if written.as_ref().is_err_and(|error| error.errno() != Errno::EEXIST) {
        let _ = std::fs::remove_file(&new);
    }
    written.with_context(|| format!("--pid-file {path:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_replaced_whole_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        std::fs::write(&path, "older and longer").unwrap();
        write_pid_file(&path, Pid::from_raw(42)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "42");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_pid_file(&dir.path().join("no/pid"), Pid::from_raw(1)).is_err());
    }
}
