//! Changes the limits of a cgroup that has processes in it: decided by [`plan`], done by [`apply`].
//!
//! Both lists of limits, the one from before and the new one, go through the same tables as at create; what is written
//! is what was asked for and what follows from it. Each file is read first, and gets its value back when a later write
//! fails. Device rules come last and are replaced, never taken away and set again.

use anyhow::{Result, bail};
use nix::errno::Errno;

use super::apply::write_all;
use super::devices::{self, Insn, Write};
use super::dir::{Dir, gone};
use super::group::Group;
use super::knobs::{Knob, Missing};
use super::{Hierarchy, Layout, Location, place, v1, v2};
use crate::error::invalid;
use crate::spec::Resources;

/// Whether a memory limit may be set that the kernel can only keep by killing processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BelowUsage {
    Refuse,
    Allow,
}

/// What to change, decided.
#[derive(Debug)]
pub(crate) struct Change {
    /// All limits from now on: for a manager that keeps a list of its own.
    pub(crate) resources: Resources,
    warnings: Vec<String>,
    below_usage: BelowUsage,
    v1: Vec<(v1::Leaf, Vec<Write>)>,
    v2: Option<v2::Leaf>,
    /// The device program of v2, if it changes: another one, or none.
    program: Option<Option<Vec<Insn>>>,
}

/// Decides. `asked` tells whether a property (as `memory/limit`) was given, which is then written even if it had that
/// value before. Errors name the property.
pub(crate) fn plan(
    location: &Location,
    host: &Layout,
    [old, new]: [&Resources; 2],
    asked: impl Fn(&str) -> bool,
    below_usage: BelowUsage,
) -> Result<Change> {
    if location.v1.is_empty() && location.v2.is_none() {
        bail!("the container has no cgroup of its own, so it can't have limits");
    }
    let layout = layout_of(location, host);
    let (before_v1, before_v2) = leaves(location, &layout, old)?;
    let (mut v1, mut v2) = leaves(location, &layout, new)?;
    let changed = |old: &[Knob], new: &mut Vec<Knob>| new.retain(|knob| asked(&knob.property) || !old.contains(knob));
    for (new, old) in v1.iter_mut().zip(&before_v1) {
        changed(&old.knobs, &mut new.knobs);
    }
    if let (Some(new), Some(old)) = (&mut v2, &before_v2) {
        changed(&old.knobs, &mut new.knobs);
    }
    let mut change = Change {
        resources: new.clone(),
        warnings: warnings(new, &layout, asked),
        below_usage,
        v1: v1.into_iter().map(|leaf| (leaf, Vec::new())).collect(),
        v2,
        program: None,
    };
    if old.devices != new.devices {
        plan_devices(&mut change, location, &old.devices, &new.devices)?;
    }
    Ok(change)
}

impl Change {
    /// What of it isn't done, or may be meant otherwise, in words.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = &String> {
        self.warnings.iter()
    }
}

/// Those of what was given.
fn warnings(new: &Resources, layout: &Layout, asked: impl Fn(&str) -> bool) -> Vec<String> {
    let mut given = super::warnings(new, layout);
    given.retain(|warning| {
        let property = warning.strip_prefix("/linux/resources/").and_then(|rest| rest.split(' ').next());
        property.is_some_and(&asked)
    });
    given
}

/// The hierarchies that the container is in, for what is decided by where a controller is.
fn layout_of(location: &Location, host: &Layout) -> Layout {
    let hierarchy = |controllers: &str, mount| Hierarchy { controllers: controllers.into(), mount, own: "/".into() };
    let v2_mount = host.v2.as_ref().map_or_else(|| "/sys/fs/cgroup".into(), |v2| v2.mount.clone());
    Layout {
        // A mount of v1 is of no use here.
        v1: location.v1.iter().map(|(controllers, dir)| hierarchy(controllers, dir.clone())).collect(),
        v2: location.v2.as_ref().map(|_| hierarchy("", v2_mount)),
    }
}

fn leaves(location: &Location, layout: &Layout, resources: &Resources) -> Result<(Vec<v1::Leaf>, Option<v2::Leaf>)> {
    let mut v1: Vec<v1::Leaf> = location
        .v1
        .iter()
        .map(|(controllers, dir)| v1::Leaf {
            controllers: controllers.clone(),
            mount: dir.clone(),
            dir: dir.clone(),
            knobs: Vec::new(),
            devices: Vec::new(),
        })
        .collect();
    let mut v2 = location.v2.as_ref().zip(layout.v2.as_ref()).map(|(dir, hierarchy)| v2::Leaf {
        mount: hierarchy.mount.clone(),
        dir: dir.clone(),
        knobs: Vec::new(),
        program: None,
        owner: None,
    });
    place(resources, layout, &mut v1, &mut v2)?;
    Ok((v1, v2))
}

/// As at create, v1's controller has them if it is there and can say them, else v2's program; the other allows anything.
fn plan_devices(
    change: &mut Change,
    location: &Location,
    old: &[crate::spec::DeviceRule],
    new: &[crate::spec::DeviceRule],
) -> Result<()> {
    let (old, new) = (devices::rules(old)?, devices::rules(new)?);
    let on_v1 = |rules: &[devices::Rule]| devices::v1(rules).is_ok();
    // systemd resets v1's lists.
    let by_files = location.unit.is_none();
    let leaf = change.v1.iter_mut().find(|(leaf, _)| by_files && v1::lists(&leaf.controllers, "devices"));
    let (Some((_, writes)), has_v2) = (leaf, change.v2.is_some()) else {
        if change.v2.is_none() {
            let what = "the container is in no cgroup that device rules could be set for";
            return Err(invalid("/linux/resources/devices", what));
        }
        change.program = Some(devices::v2(&new));
        return Ok(());
    };
    let anything = [devices::ANYTHING];
    let (was_v1, is_v1) = (on_v1(&old), on_v1(&new));
    if !is_v1 && !has_v2 {
        devices::v1(&new)?;
    }
    let (from, to) = (if was_v1 { &old[..] } else { &anything }, if is_v1 { &new[..] } else { &anything });
    *writes = devices::v1_change(from, to)?;
    if !(was_v1 && is_v1) {
        change.program = Some(if is_v1 { None } else { devices::v2(&new) });
    }
    Ok(())
}

/// What files had in them before a change.
#[derive(Debug, Default)]
pub(super) struct Before(Vec<(Dir, Vec<Knob>)>);

impl Before {
    /// Gives every file its old value again, as far as the kernel lets.
    pub(super) fn restore(&self) {
        for (dir, knobs) in self.0.iter().rev() {
            if let Err((knob, error)) = write_all(dir, knobs) {
                log::warn!("setting {} back to {:?}: {error}", knob.file, knob.value);
            }
        }
    }
}

/// Does it. After an error every file has its old value again.
pub(super) fn apply(group: &Group, change: &Change) -> Result<Before> {
    let mut before = Before::default();
    match apply_all(group, change, &mut before.0) {
        Ok(()) => Ok(before),
        Err(error) => {
            before.restore();
            Err(error)
        }
    }
}

fn apply_all(group: &Group, change: &Change, undo: &mut Vec<(Dir, Vec<Knob>)>) -> Result<()> {
    for (leaf, _) in &change.v1 {
        apply_knobs(change, &Dir::new(leaf.dir.clone()), &leaf.knobs, undo)?;
    }
    if let Some(leaf) = &change.v2 {
        let dir = Dir::new(leaf.dir.clone());
        v2::enable(leaf, &dir)?;
        apply_knobs(change, &dir, &leaf.knobs, undo)?;
    }
    // A stricter side comes before the other one opens.
    let replace = |program: Option<&[Insn]>| group.v2().map_or(Ok(()), |dir| v2::replace(dir, program));
    if let Some(Some(program)) = &change.program {
        replace(Some(program))?;
    }
    for (leaf, writes) in &change.v1 {
        v1::apply_devices(&Dir::new(leaf.dir.clone()), writes)?;
    }
    if change.program == Some(None) {
        replace(None)?;
    }
    Ok(())
}

fn apply_knobs(change: &Change, dir: &Dir, knobs: &[Knob], undo: &mut Vec<(Dir, Vec<Knob>)>) -> Result<()> {
    if knobs.is_empty() {
        return Ok(());
    }
    let check = change.resources.memory.as_ref().is_some_and(|memory| memory.check_before_update == Some(true));
    if check || change.below_usage == BelowUsage::Refuse {
        knobs.iter().filter(|knob| knob.file == "memory.max").try_for_each(|knob| refuse_to_kill(dir, knob))?;
    }
    let old: Vec<Knob> = knobs.iter().filter_map(|knob| present(dir, knob)).collect();
    undo.push((Dir::new(dir.path().to_owned()), old));
    write_all(dir, knobs).map_err(|(knob, error)| {
        let what = if knob.file == "memory.limit_in_bytes" && error.errno() == Errno::EBUSY {
            below_usage(dir, &knob.value, ["memory.usage_in_bytes", "memory.max_usage_in_bytes"])
        } else {
            format!("set {} to {:?}: {error}", knob.file, knob.value)
        };
        invalid(format!("/linux/resources/{}", knob.property), what)
    })
}

/// v2 keeps a limit below what is in use by killing. What it can take back without is taken back first.
fn refuse_to_kill(dir: &Dir, knob: &Knob) -> Result<()> {
    let Ok(limit) = knob.value.parse::<u64>() else { return Ok(()) };
    let usage = || Some(dir.read("memory.current").ok()?.trim_end().parse::<u64>().ok()?.saturating_sub(limit));
    let Some(excess) = usage().filter(|excess| *excess > 0) else { return Ok(()) };
    // Since Linux 5.19; EAGAIN if it wasn't enough.
    if let Err(error) = dir.write("memory.reclaim", &excess.to_string()) {
        log::debug!("{error}");
    }
    if usage().is_none_or(|excess| excess == 0) {
        return Ok(());
    }
    let what = below_usage(dir, &knob.value, ["memory.current", "memory.peak"]);
    let remedy = "the kernel would kill processes for it (--allow-oom lets it)";
    Err(invalid(format!("/linux/resources/{}", knob.property), format!("{what}: {remedy}")))
}

/// runc's words.
fn below_usage(dir: &Dir, limit: &str, [usage, peak]: [&str; 2]) -> String {
    let read = |file: &str| dir.read(file).map_or_else(|_| "unknown".to_owned(), |text| text.trim_end().to_owned());
    format!("unable to set memory limit to {limit} (current usage: {}, peak usage: {})", read(usage), read(peak))
}

/// A knob that sets what `knob` is about to change to what it is now; none where it isn't there.
fn present(dir: &Dir, knob: &Knob) -> Option<Knob> {
    let (file, text) = match (dir.read(&knob.file), &knob.missing) {
        (Err(error), Missing::Instead { file, .. }) if gone(&error) => (*file, dir.read(file).ok()?),
        (text, _) => (knob.file.as_str(), text.ok()?),
    };
    let value = match key(&knob.value) {
        None => text.trim_end().to_owned(),
        Some(key) => {
            let had = text.lines().find(|line| line.split(' ').next() == Some(key));
            had.map_or_else(|| format!("{key} {}", unset(file)), str::to_owned)
        }
    };
    let property = knob.property.clone();
    Some(Knob { controller: knob.controller.clone(), file: file.into(), value, property, missing: Missing::Skip })
}

/// The device or interface that a value is about, in a file with a line for each.
fn key(value: &str) -> Option<&str> {
    let (first, _) = value.split_once(' ')?;
    first.contains(|c: char| !c.is_ascii_digit()).then_some(first).filter(|first| *first != "max")
}

/// What such a file takes for "no limit".
fn unset(file: &str) -> &'static str {
    match file {
        "io.max" => "rbps=max wbps=max riops=max wiops=max",
        "rdma.max" => "hca_handle=max hca_object=max",
        "io.weight" | "io.bfq.weight" => "default",
        _ => "0",
    }
}

#[cfg(test)]
#[path = "update_tests.rs"]
mod tests;
