//! Rules of `process` (config.md, "Process"): also for the process of `exec`.

use std::fmt::Display;
use std::path::Path;

use anyhow::Result;

use super::{absolute, environment, no_nul};
use crate::error::invalid;
use crate::plan::{caps, limits};
use crate::spec::{Capabilities, CpuAffinity, Process, User};

/// Checks a process. Whether there is a program to run is [`super::runnable`]'s affair.
pub(crate) fn process(process: &Process) -> Result<()> {
    for (i, arg) in process.args.iter().enumerate() {
        no_nul(format_args!("/process/args/{i}"), arg)?;
    }
    environment("/process/env", &process.env)?;
    absolute("/process/cwd", Path::new(&process.cwd))?;
    user(&process.user)?;
    limits::rlimits(&process.rlimits)?;
    oom_score_adj(process.oom_score_adj)?;
    process.scheduler.as_ref().map(limits::scheduler).transpose()?;
    process.io_priority.as_ref().map(limits::io_priority).transpose()?;
    cpu_affinity(process.exec_cpu_affinity.as_ref())?;
    no_nul("/process/apparmorProfile", &process.apparmor_profile)?;
    no_nul("/process/selinuxLabel", &process.selinux_label)?;
    process.capabilities.as_ref().map_or(Ok(()), capabilities)
}

/// config.md, "User". The largest id is "leave as it is" to setresuid(2): the program would stay root.
fn user(user: &User) -> Result<()> {
    id("/process/user/uid", user.uid)?;
    id("/process/user/gid", user.gid)?;
    for (i, gid) in user.additional_gids.iter().enumerate() {
        id(format_args!("/process/user/additionalGids/{i}"), *gid)?;
    }
    match user.umask {
        Some(umask) if umask > 0o777 => {
            Err(invalid("/process/user/umask", format_args!("{umask} ({umask:#o}), expected at most 511 (0o777)")))
        }
        _ => Ok(()),
    }
}

fn id(pointer: impl Display, id: u32) -> Result<()> {
    if id == u32::MAX {
        return Err(invalid(pointer, format_args!("{id} isn't an id, expected at most {}", u32::MAX - 1)));
    }
    Ok(())
}

/// An effective capability that isn't permitted is what capset(2) refuses.
fn capabilities(sets: &Capabilities) -> Result<()> {
    if let Some((set, i, what)) = caps::unknown(sets) {
        return Err(invalid(format_args!("/process/capabilities/{set}/{i}"), what));
    }
    if let Some((i, name)) = caps::not_permitted(sets) {
        let pointer = format!("/process/capabilities/effective/{i}");
        return Err(invalid(pointer, format_args!("{name:?} isn't permitted, expected it in the permitted set too")));
    }
    for note in caps::not_ambient(sets) {
        log::debug!("{note}");
    }
    Ok(())
}

/// proc(5), /proc/pid/oom_score_adj.
fn oom_score_adj(score: Option<i32>) -> Result<()> {
    match score {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(invalid("/process/oomScoreAdj", format_args!("{score}, expected -1000 to 1000")))
        }
        _ => Ok(()),
    }
}

/// config.md, "execCPUAffinity": of use to `exec` only, wrong for everyone.
fn cpu_affinity(affinity: Option<&CpuAffinity>) -> Result<()> {
    let Some(CpuAffinity { initial, r#final }) = affinity else { return Ok(()) };
    for (property, list) in [("initial", initial), ("final", r#final)].into_iter().filter(|(_, l)| !l.is_empty()) {
        limits::cpu_mask(&format!("/process/execCPUAffinity/{property}"), list)?;
    }
    Ok(())
}
