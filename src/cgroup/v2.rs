//! What only v2 needs: handing controllers down, the eBPF device program, events.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::apply::apply;
use super::devices::Insn;
use super::dir::{Dir, gone};
use super::knobs::Knob;
use super::trouble::{Tried, cause, not_offered};
use crate::host::is_rootless;
use crate::sys::{self, bpf};

/// What to make in the v2 hierarchy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Leaf {
    pub(crate) mount: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) knobs: Vec<Knob>,
    pub(crate) program: Option<Vec<Insn>>,
    /// Whom it is given to (config-linux.md, "Cgroup ownership").
    pub(crate) owner: Option<u32>,
}

/// Sets the limits of a leaf that exists and has no process. `alone`: there is no v1 hierarchy beside it.
pub(super) fn prepare(leaf: &Leaf, dir: &Dir, alone: bool) -> Result<()> {
    dir.fd()?;
    enable(leaf, dir)?;
    if alone {
        hand_down_all(leaf, dir).unwrap_or_else(|error| log::debug!("not every cgroup controller is enabled: {error}"));
    }
    apply(dir, &leaf.knobs)?;
    leaf.owner.map_or(Ok(()), |owner| give(dir, owner))?;
    match &leaf.program {
        Some(program) => attach(dir, program),
        None => Ok(()),
    }
}

/// Gives a user the directory and the files that the kernel names for it, none of which sets a limit.
fn give(dir: &Dir, owner: u32) -> Result<()> {
    /// What a kernel without that list has (before Linux 4.15).
    const FILES: &str = "cgroup.procs\ncgroup.threads\ncgroup.subtree_control\n";
    let listed = std::fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_else(|_| FILES.to_owned());
    for file in [".", "cgroup.procs"].into_iter().chain(listed.lines().filter(|file| *file != "cgroup.procs")) {
        match dir.give(file, owner) {
            Err(error) if gone(&error) => (),
            // A user who isn't root can give nothing away but to himself, and his container did without so far.
            Err(error) if matches!(error.errno(), Errno::EPERM | Errno::EINVAL) && is_rootless() => {
                log::debug!("the container's cgroup stays the caller's: {error}");
                return Ok(());
            }
            given => given.context("give the container its cgroup")?,
        }
    }
    Ok(())
}

/// The controllers that the limits can't do without, each with a property that asks for it.
fn needed(knobs: &[Knob]) -> Vec<(&str, &str)> {
    let mut out: Vec<(&str, &str)> = Vec::new();
    for knob in knobs.iter().filter(|knob| knob.is_needed() && knob.controller != "cgroup") {
        if !out.iter().any(|(controller, _)| *controller == knob.controller) {
            out.push((&knob.controller, &knob.property));
        }
    }
    out
}

fn has(list: &str, controller: &str) -> bool {
    list.split_whitespace().any(|name| name == controller)
}

/// Enables the needed controllers from the nearest ancestor that has them down to the leaf's parent.
pub(super) fn enable(leaf: &Leaf, dir: &Dir) -> Result<()> {
    let needed = needed(&leaf.knobs);
    if needed.is_empty() {
        return Ok(());
    }
    let there = dir.read("cgroup.controllers")?;
    let wanted: Vec<(&str, &str)> = needed.into_iter().filter(|(name, _)| !has(&there, name)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let above = |path: &Path| path.parent().filter(|parent| parent.starts_with(&leaf.mount)).map(Path::to_owned);
    // The ancestors that lack one, nearest first, and then one that has all, or the mount.
    let mut path = above(&leaf.dir);
    let mut down = Vec::new();
    while let Some(current) = path {
        let list = Dir::new(current.clone()).read("cgroup.controllers")?;
        let complete = wanted.iter().all(|(name, _)| has(&list, name));
        path = above(&current);
        if path.is_none()
            && let Some((name, property)) = wanted.iter().find(|(name, _)| !has(&list, name))
        {
            // The root of all has no type; one that has is that of a cgroup namespace.
            let why = match Dir::new(current.clone()).read("cgroup.type") {
                Ok(_) => not_offered(&current, name),
                Err(_) => format!(
                    "not in {current:?}/cgroup.controllers (the kernel doesn't offer it on cgroup v2: switched off, or in \
                     use by a v1 hierarchy)"
                ),
            };
            bail!(unavailable(name, property, &why));
        }
        down.push(current);
        if complete {
            break;
        }
    }
    down.into_iter().rev().try_for_each(|path| hand_down(&Dir::new(path), &wanted))
}

/// Enables whatever else the host offers, as runc does: engines read usage and OOM events of containers without limits
/// too. What can't be had isn't missed.
fn hand_down_all(leaf: &Leaf, dir: &Dir) -> sys::Result<()> {
    let offered = Dir::new(leaf.mount.clone()).read_once("cgroup.controllers")?;
    let there = dir.read_once("cgroup.controllers")?;
    let missing: Vec<&str> = offered.split_whitespace().filter(|name| !has(&there, name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let above: Vec<&Path> = leaf.dir.ancestors().skip(1).take_while(|path| path.starts_with(&leaf.mount)).collect();
    for path in above.into_iter().rev() {
        let parent = Dir::new(path.to_owned());
        // The "no internal processes" rule of cgroups(7): a cgroup with processes takes those controllers that know
        // threads, but then its children take no process any more. The root alone (it has no type) is free of it.
        if !parent.read_once("cgroup.procs")?.is_empty() && parent.read("cgroup.type").is_ok() {
            log::debug!("cgroup controllers aren't enabled in {path:?}: it has processes of its own");
            return Ok(());
        }
        let enabled = parent.read_once("cgroup.subtree_control")?;
        for name in missing.iter().filter(|name| !has(&enabled, name)) {
            if let Err(error) = parent.write("cgroup.subtree_control", &format!("+{name}")) {
                log::debug!("cgroup controller {name:?} isn't enabled in {path:?}: {error}");
            }
        }
    }
    Ok(())
}

fn hand_down(dir: &Dir, wanted: &[(&str, &str)]) -> Result<()> {
    let enabled = dir.read("cgroup.subtree_control")?;
    // One at a time: the kernel takes all of a write or none, and the error should name the one.
    for (name, property) in wanted.iter().filter(|(name, _)| !has(&enabled, name)) {
        if let Err(error) = dir.write("cgroup.subtree_control", &format!("+{name}")) {
            let why = cause(dir.path(), Tried::Enable(name), error.errno());
            let why = why.unwrap_or_else(|| "the kernel refused".to_owned());
            return Err(anyhow::Error::new(error).context(unavailable(name, property, &why)));
        }
    }
    Ok(())
}

fn unavailable(controller: &str, property: &str, why: &str) -> String {
    format!("config.json: /linux/resources/{property}: cgroup controller \"{controller}\" is not available: {why}")
}

/// Loads and attaches the device program.
fn attach(dir: &Dir, program: &[Insn]) -> Result<()> {
    let done = load_and_attach(dir, program);
    match done {
        // As runc decides: bpf(2) needs the host's root, and in a user namespace nobody can make nodes anyway.
        Err(error) if error.errno() == Errno::EPERM && is_rootless() => {
            log::debug!("device rules aren't applied: not permitted without the rights of the host ({error})");
            Ok(())
        }
        Err(error) if error.errno() == Errno::ENOSYS => {
            Err(anyhow::Error::new(error).context("device rules need a kernel with CONFIG_CGROUP_BPF"))
        }
        other => other.context("device rules"),
    }
}

/// Puts another device program, or none, in the place of the one that is there; at no moment is neither enforced.
pub(super) fn replace(dir: &Dir, program: Option<&[Insn]>) -> Result<()> {
    let done = load_and_replace(dir, program);
    match done {
        Err(error) if error.errno() == Errno::EPERM && is_rootless() => {
            log::debug!("device rules aren't applied: not permitted without the rights of the host ({error})");
            Ok(())
        }
        other => other.context("device rules"),
    }
}

fn load_and_replace(dir: &Dir, program: Option<&[Insn]>) -> sys::Result<()> {
    let cgroup = dir.fd()?;
    let mut old = bpf::own_device_programs(cgroup)?.into_iter();
    if let Some(program) = program {
        let program = bpf::load_device_program(program)?;
        match old.next() {
            Some(old) => bpf::replace_device_program(cgroup, program.as_fd(), old.as_fd())?,
            None => bpf::attach_device_program(cgroup, program.as_fd())?,
        }
    }
    old.try_for_each(|old| bpf::detach_device_program(cgroup, old.as_fd()))
}

fn load_and_attach(dir: &Dir, program: &[Insn]) -> sys::Result<()> {
    let program = bpf::load_device_program(program)?;
    bpf::attach_device_program(dir.fd()?, program.as_fd())?;
    sys::fs::leave(program);
    Ok(())
}

/// Whether it was asked to freeze (by itself, not by an ancestor).
pub(super) fn frozen(dir: &Dir) -> Result<bool> {
    frozen_by(dir.read("cgroup.freeze"))
}

/// [`frozen`], as the file says.
pub(super) fn frozen_by(read: sys::Result<String>) -> Result<bool> {
    match read {
        Err(error) if gone(&error) => Ok(false),
        state => Ok(state?.trim_end() == "1"),
    }
}

/// Waits, woken by the kernel, until no live process is in it or below; false when the time is up.
pub(super) fn wait_empty(dir: &Dir, limit: Duration) -> Result<bool> {
    let until = Instant::now() + limit;
    let events = match dir.open("cgroup.events", OFlag::O_RDONLY) {
        Err(error) if gone(&error) => return Ok(true),
        other => other?,
    };
    let mut text = [0; 256];
    loop {
        // Read before each poll: an event that came between the two is then still pending.
        let got = match nix::sys::uio::pread(&events, &mut text, 0) {
            Err(Errno::ENODEV) => return Ok(true),
            other => other.with_context(|| format!("read {:?}/cgroup.events", dir.path()))?,
        };
        let text = text.get(..got).ok_or_else(|| anyhow!("read of cgroup.events is longer than its buffer"))?;
        if text.split(|byte| *byte == b'\n').any(|line| line == b"populated 0") {
            return Ok(true);
        }
        let left = PollTimeout::try_from(until.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], left) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(Errno::EINTR) => (),
            Err(errno) => return Err(errno).context("poll cgroup.events"),
        }
    }
}
