//! systemd as the manager of cgroups (`--systemd-cgroup`): each container is a transient scope.
//!
//! systemd makes the cgroup and moves the process, once it is told of both by one call with every property
//! ([`properties`]); what it has no property for is written to the files, as without it. The container's process waits
//! at its first barrier meanwhile. A scope ends with its last process, so a runtime that is killed leaves none.
//!
//! Device rules are an eBPF program of ours beside systemd's, which it neither knows nor touches (`Delegate`): a
//! `DevicePolicy` would have to name each device in systemd's words, and what these can't name is denied from the next
//! `systemctl daemon-reload` on (nvidia-container-toolkit#48). So systemd is told of none.

mod annotations;
mod bus;
mod manager;
mod properties;
mod unit;
mod wire;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use self::manager::{Bus, Manager, pids};
use self::properties::Property;
use super::group::{self, Group};
use super::knobs::{self, Version};
use super::layout::cgroups_of;
use super::{Cgroup, Layout, Location, OutOfMemory, Stats, Watch, devices, update};
use crate::error::invalid;
use crate::host::uid_on_host;
use crate::spec::Resources;
use crate::sys;

/// The unit of a container; what the state keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unit {
    name: String,
    bus: Bus,
    /// Whose bus, of a user's: the one who made the container, as the host counts users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<u32>,
    /// Its description, until it has started: what a runtime that was killed meanwhile leaves behind may be another
    /// unit of the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expected: Option<String>,
}

/// What the unit is made with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    unit: Unit,
    properties: Vec<Property>,
}

/// What is asked of systemd for a container.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) cgroups_path: &'a str,
    pub(crate) id: &'a str,
    pub(crate) annotations: &'a BTreeMap<String, String>,
    /// The effective uid of a rootless runtime, which has its own user's manager; none is the system's.
    pub(crate) user: Option<u32>,
}

/// Decides the unit of a container. Errors name the property.
pub(crate) fn plan(asked: Asked<'_>, resources: &Resources, layout: &Layout) -> Result<super::Plan> {
    let Asked { cgroups_path, id, annotations, user } = asked;
    let (bus, slice) = if user.is_some() { (Bus::User, "user.slice") } else { (Bus::System, "system.slice") };
    let place = unit::place(cgroups_path, id, slice)?;
    // Where a user's manager is, only it knows for sure: the process's own cgroup tells afterwards.
    let root = user.map_or_else(|| Path::new("/").to_owned(), unit::user_root);
    let cgroup = root.join(place.cgroup.strip_prefix("/").unwrap_or(&place.cgroup));
    let Some(cgroup) = cgroup.to_str() else { return Err(invalid("/linux/cgroupsPath", "not a text")) };
    let mut plan = super::lay_out(super::Manager::Systemd, cgroup, id, resources, layout)?;
    let Some(leaf) = &mut plan.v2 else {
        bail!(
            "the systemd cgroup driver needs cgroup v2, alone or beside v1 (systemd.unified_cgroup_hierarchy), \
             which isn't mounted on this host; take --cgroup-manager=cgroupfs"
        );
    };
    // systemd resets v1's device lists when it reloads, v2's programs never.
    plan.v1.iter_mut().for_each(|leaf| leaf.devices.clear());
    leaf.program = match bus {
        Bus::System => devices::v2(&devices::rules(&resources.devices)?),
        // A user may not load one, and needs none: his containers can't make nodes.
        Bus::User => None,
    };
    let knobs = plan.v1.iter().flat_map(|leaf| &leaf.knobs).chain(plan.v2.iter().flat_map(|leaf| &leaf.knobs));
    let limits = properties::of_knobs(knobs);
    let mut properties = properties::of_scope(id, &place.slice);
    properties.extend(limits.clone());
    for (name, value) in annotations::properties(annotations)? {
        annotations::refuse_collision(&name, &value, &limits)?;
        properties::set(&mut properties, &name, value);
    }
    let description = properties.iter().find(|(name, _)| name == "Description").and_then(|(_, value)| value.text());
    let unit = Unit { name: place.name, bus, user, expected: description.map(str::to_owned) };
    plan.location.unit = Some(unit.clone());
    plan.optional = false;
    plan.unit = Some(Plan { unit, properties });
    Ok(plan)
}

/// A container's unit and, through the files of its cgroup, everything that needs no systemd.
#[derive(Debug)]
pub(super) struct Scope {
    unit: Unit,
    group: Group,
    /// What there is to be done for it to exist.
    begin: Option<(Manager, super::Plan)>,
    /// False as long as a unit of that name would be somebody else's.
    ours: bool,
}

/// Connects to the bus; the unit itself needs a process to begin with.
pub(super) fn create(plan: &super::Plan, unit: &Unit) -> Result<Scope> {
    let unit = Unit { user: unit.user.map(uid_on_host), ..unit.clone() };
    Ok(Scope { group: group::open(&plan.location), begin: Some((unit.connect()?, plan.clone())), unit, ours: false })
}

/// The unit of an existing container. Makes no system call.
pub(super) fn open(location: &Location, unit: &Unit) -> Scope {
    Scope { unit: unit.clone(), group: group::open(location), begin: None, ours: true }
}

impl Unit {
    fn connect(&self) -> Result<Manager> {
        Manager::connect(self.bus, self.user)
    }
}

impl Plan {
    pub(super) fn unit(&self) -> &Unit {
        &self.unit
    }
}

impl Scope {
    /// Starts the unit with the process in it, and sets what systemd doesn't.
    fn start(&mut self, mut manager: Manager, mut plan: super::Plan, pid: Pid) -> Result<()> {
        let mut properties = plan.unit.take().map(|unit| unit.properties).unwrap_or_default();
        properties::say_inexact(plan.v2.iter().flat_map(|leaf| &leaf.knobs));
        properties::set(&mut properties, "PIDs", pids(pid.as_raw().cast_unsigned()));
        // Even without an answer it may come to be.
        self.ours = true;
        if let Err(error) = manager.start(&self.unit.name, &properties) {
            self.ours = bus::fault(&error).is_none();
            return Err(error);
        }
        self.unit.expected = None;
        self.find(&mut plan, pid)?;
        self.group = group::adopt(&plan)?;
        let bfq = properties::for_bfq(plan.v2.iter().flat_map(|leaf| &leaf.knobs));
        if let Some(weight) = bfq.filter(|_| has_bfq(&self.group.location())) {
            manager.set_properties(&self.unit.name, &[weight])?;
        }
        self.group.add(pid)
    }

    /// Looks where the process is. Nothing may run outside of its unit (runc#3780), whatever systemd says.
    fn find(&self, plan: &mut super::Plan, pid: Pid) -> Result<()> {
        let own = cgroups_of(pid.as_raw())?;
        let (_, cgroup) = own.iter().find(|(names, _)| names.is_empty()).context("no cgroup v2 in /proc/PID/cgroup")?;
        let name = &self.unit.name;
        let last = cgroup.file_name().and_then(|last| last.to_str()).unwrap_or_default();
        if last != name && last.strip_prefix('_') != Some(name) {
            bail!("unit {name:?} was started, but process {pid} isn't in it: it is in cgroup {cgroup:?}");
        }
        let inside = super::exec::inside(&cgroup.to_string_lossy())
            .with_context(|| format!("unit {name:?}: cgroup {cgroup:?} is outside of this cgroup namespace"))?;
        for leaf in &mut plan.v1 {
            leaf.dir = leaf.mount.join(&inside);
        }
        if let Some(leaf) = &mut plan.v2 {
            leaf.dir = leaf.mount.join(&inside);
        }
        plan.location.v1 = plan.v1.iter().map(|leaf| (leaf.controllers.clone(), leaf.dir.clone())).collect();
        plan.location.v2 = plan.v2.as_ref().map(|leaf| leaf.dir.clone());
        Ok(())
    }

    fn stop(&self) -> Result<()> {
        self.unit.connect()?.stop(&self.unit.name)
    }

    /// Whether the unit of the name is this container's, or nobody's.
    fn is_ours(&self) -> Result<bool> {
        match (&self.unit.expected, self.ours) {
            (None, ours) => Ok(ours),
            (Some(_), false) => Ok(false),
            (Some(description), true) => self.unit.connect()?.is_free(&self.unit.name, description),
        }
    }
}

/// Tells systemd of limits, so that it keeps them when it reloads; the files of what isn't exact in its terms (a quota
/// of parts of a percent) must be written again after it.
fn set_limits(unit: &Unit, resources: &Resources, location: &Location) -> Result<()> {
    let on_v1 = |controller: &str| location.v1.iter().any(|(names, _)| super::v1::lists(names, controller));
    let home = |controller: &str| if on_v1(controller) { Version::V1 } else { Version::V2 };
    let mut knobs = knobs::knobs(resources, home)?;
    knobs.extend(knobs::unified(&resources.unified)?);
    properties::say_inexact(&knobs);
    let mut properties = properties::of_knobs(&knobs);
    if let Some((name, weight)) = properties::for_bfq(&knobs).filter(|_| has_bfq(location)) {
        properties::set(&mut properties, &name, weight);
    }
    if properties.is_empty() {
        return Ok(());
    }
    unit.connect()?.set_properties(&unit.name, &properties)
}

impl Cgroup for Scope {
    fn location(&self) -> Location {
        Location { unit: Some(self.unit.clone()), ..self.group.location() }
    }

    /// None before the unit is there.
    fn clone_fd(&self) -> Option<BorrowedFd<'_>> {
        if self.ours { self.group.clone_fd() } else { None }
    }

    fn add(&mut self, pid: Pid) -> Result<()> {
        self.group.add(pid)
    }

    fn add_all(&mut self, pid: Pid) -> Result<()> {
        if let Some((manager, plan)) = self.begin.take() {
            return self.start(manager, plan, pid);
        }
        match self.group.add_all(pid) {
            Err(error) if self.unit.bus == Bus::User && errno(&error) == Some(Errno::EACCES) => {
                self.unit.connect()?.attach(&self.unit.name, pid.as_raw().cast_unsigned())
            }
            added => added,
        }
    }

    fn frozen(&self) -> Result<bool> {
        self.group.frozen()
    }

    fn frozen_with(&self, state: Option<u8>) -> Result<bool> {
        self.group.frozen_with(state)
    }

    fn pids(&self) -> Result<Vec<Pid>> {
        if self.is_ours()? { self.group.pids() } else { Ok(Vec::new()) }
    }

    fn kill(&self) -> Result<()> {
        if self.is_ours()? { self.group.kill() } else { Ok(()) }
    }

    /// systemd first: it would take a cgroup that vanishes for one that still runs.
    fn remove(&mut self, when: super::Removal) -> Result<()> {
        if !self.is_ours()? {
            return self.group.remove(when);
        }
        // Nobody is left that systemd would have to kill, in its own time.
        self.group.wait_empty();
        if let Err(error) = self.stop() {
            // It ends an empty scope by itself. Without the cgroup it would never see that it is empty, and keep the name.
            if !self.group.wait_gone() {
                return Err(error.context(format!("the cgroup of unit {:?} is left to systemd", self.unit.name)));
            }
            log::debug!("systemd has ended unit {:?} by itself: {error:#}", self.unit.name);
        }
        self.group.remove(when)
    }

    fn frozen_to_signals(&self) -> Result<bool> {
        self.group.frozen_to_signals()
    }

    fn frozen_ancestor(&self) -> Option<PathBuf> {
        self.group.frozen_ancestor()
    }

    fn freeze(&self, stop: BorrowedFd<'_>) -> Result<()> {
        self.group.freeze(stop)
    }

    fn thaw(&self) -> Result<()> {
        self.group.thaw()
    }

    fn out_of_memory(&self) -> Option<OutOfMemory> {
        self.group.out_of_memory()
    }

    fn stats(&self) -> Stats {
        self.group.stats()
    }

    fn watch(&self) -> Result<Watch> {
        self.group.watch()
    }

    /// The files first: what they refuse, systemd isn't told. And again, with the exact quota beside systemd's.
    fn update(&mut self, change: &update::Change) -> Result<()> {
        let before = update::apply(&self.group, change)?;
        if let Err(error) = set_limits(&self.unit, &change.resources, &self.group.location()) {
            before.restore();
            return Err(error.context("the limits are as they were"));
        }
        self.group.update(change)
    }
}

/// Whether the kernel has weights of BFQ, whose module may be loaded at any time.
fn has_bfq(location: &Location) -> bool {
    location.v2.as_ref().is_some_and(|dir| dir.join("io.bfq.weight").exists())
}

fn errno(error: &anyhow::Error) -> Option<Errno> {
    error.downcast_ref::<sys::Error>().map(sys::Error::errno)
}

#[cfg(test)]
mod tests;
