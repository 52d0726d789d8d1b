//! Control groups: where a container's cgroup is, which limits it gets, and what is done to it.
//!
//! Deciding ([`plan`], with the tables in [`knobs`] and [`devices`]) is pure; [`Cgroup`] does ([`group`], and what
//! only one version needs in [`v1`] and [`v2`]; with systemd in between, [`systemd`]). A container without a cgroup (`--cgroup-manager=disabled`) is one
//! that is in no hierarchy.

mod apply;
mod devices;
mod dir;
mod events;
pub(crate) mod exec;
mod freeze;
mod group;
mod knobs;
mod layout;
mod stats;
pub(crate) mod systemd;
mod tree;
mod trouble;
pub(crate) mod update;
mod v1;
mod v2;

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

pub(crate) use self::events::Watch;
use self::knobs::{Knob, Missing, Version};
pub(crate) use self::stats::Stats;
use crate::error::invalid;
use crate::spec::Resources;
use crate::sys::Context as _;

/// Which manager the command line chose. Kept in the state: engines pass it to `create` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Manager {
    Cgroupfs,
    Systemd,
    Disabled,
}

/// One cgroup hierarchy of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// v1 controllers as /proc/self/cgroup lists them (`cpu,cpuacct`, `name=systemd`); empty for v2.
    pub(crate) controllers: String,
    /// Where it is mounted.
    pub(crate) mount: PathBuf,
    /// The runtime's own cgroup in it, as /proc/self/cgroup says.
    pub(crate) own: PathBuf,
}

/// The host's cgroup hierarchies: only v2 (one entry), only v1, or hybrid (v1 and v2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) v1: Vec<Hierarchy>,
    pub(crate) v2: Option<Hierarchy>,
}

/// Where a container's cgroup is; what the state keeps. Directories, absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Location {
    pub(crate) manager: Manager,
    /// (controllers of the v1 hierarchy, directory).
    pub(crate) v1: Vec<(String, PathBuf)>,
    pub(crate) v2: Option<PathBuf>,
    /// How it is known that the cgroup is the container's.
    #[serde(default)]
    pub(crate) claim: Claim,
    /// The unit that systemd made it for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<systemd::Unit>,
}

/// What tells a container's cgroup from another's at the same path. Nothing is ever killed or removed because a path was
/// *planned*: as long as it isn't known whether the cgroup is unused, it may be somebody else's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Claim {
    /// The record of a runtime that didn't note it, or no record's.
    #[default]
    Unknown,
    /// It is to be taken, and somebody's directory may have been there before.
    Planned,
    /// It is to be made: there was nothing at the path when that was written down.
    Vacant,
    /// It was taken: the number of its directory's inode, in the hierarchy where processes are looked for.
    Taken(u64),
    /// It was taken over from who had it before, and marked: who made it may still have its inode written down.
    Marked { inode: u64, mark: u64 },
}

/// Where and with which limits: decided, not done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) location: Location,
    /// Nothing needs it, so a rootless caller without the right to make cgroups goes without.
    pub(crate) optional: bool,
    v1: Vec<v1::Leaf>,
    v2: Option<v2::Leaf>,
    unit: Option<systemd::Plan>,
}

impl Plan {
    /// Has v2's cgroup belong to a uid of the host, whose processes may divide it then. Not where v1 is in use, where nothing
    /// can be delegated safely.
    pub(crate) fn give_to(&mut self, owner: Option<u32>) {
        if let (Some(leaf), true) = (&mut self.v2, self.v1.is_empty()) {
            leaf.owner = owner;
        }
    }
}

/// Decides the cgroup of container `id`. Errors name the property.
///
/// `cgroups_path`: absolute is below the hierarchies' mounts, relative below the runtime's own cgroup (on v2
/// beside it), empty is `/<id>`.
pub(crate) fn plan(
    manager: Manager,
    cgroups_path: &str,
    id: &str,
    resources: &Resources,
    layout: &Layout,
) -> Result<Plan> {
    match manager {
        Manager::Cgroupfs => lay_out(manager, cgroups_path, id, resources, layout),
        Manager::Systemd => bail!("internal error: a unit is planned by systemd::plan"),
        Manager::Disabled => {
            devices::rules(&resources.devices)?;
            without_cgroup(resources)
        }
    }
}

/// The cgroup at a path, in every hierarchy, with its limits.
fn lay_out(manager: Manager, cgroups_path: &str, id: &str, resources: &Resources, layout: &Layout) -> Result<Plan> {
    let rules = devices::rules(&resources.devices)?;
    let (mut v1, mut v2) = leaves(layout, cgroups_path, id);
    let limits = place(resources, layout, &mut v1, &mut v2)?;
    place_devices(&rules, resources, &mut v1, v2.as_mut())?;
    let location = Location {
        manager,
        v1: v1.iter().map(|leaf| (leaf.controllers.clone(), leaf.dir.clone())).collect(),
        v2: v2.as_ref().map(|leaf| leaf.dir.clone()),
        claim: Claim::Planned,
        unit: None,
    };
    Ok(Plan { location, optional: cgroups_path.is_empty() && !limits, v1, v2, unit: None })
}

/// What of `resources` has no effect here, or may be meant otherwise, in words.
pub(crate) fn warnings(resources: &Resources, layout: &Layout) -> Vec<String> {
    let home = |controller: &str| layout.home(controller);
    knobs::ignored(resources, home).into_iter().chain(knobs::alone(resources)).collect()
}

/// Gives each limit to the leaf whose hierarchy has its controller; whether there is any that makes a difference.
fn place(resources: &Resources, layout: &Layout, v1: &mut [v1::Leaf], v2: &mut Option<v2::Leaf>) -> Result<bool> {
    let home = |controller: &str| layout.home(controller);
    let mut limits = false;
    for knob in knobs::knobs(resources, home)? {
        limits |= knob.is_needed();
        let v1_name = if knob.controller == "io" { "blkio" } else { &knob.controller };
        match (home(v1_name), &mut *v2) {
            (Version::V2, Some(v2)) => v2.knobs.push(knob),
            _ => match v1.iter_mut().find(|leaf| v1::lists(&leaf.controllers, &knob.controller)) {
                Some(leaf) => leaf.knobs.push(knob),
                None => refuse_missing(&knob, layout)?,
            },
        }
    }
    for knob in knobs::unified(&resources.unified)? {
        limits = true;
        match &mut *v2 {
            Some(v2) => v2.knobs.push(knob),
            None => refuse_missing(&knob, layout)?,
        }
    }
    Ok(limits)
}

/// A leaf in every hierarchy, with nothing set yet.
fn leaves(layout: &Layout, cgroups_path: &str, id: &str) -> (Vec<v1::Leaf>, Option<v2::Leaf>) {
    let v1 = layout.v1.iter().map(|had| v1::Leaf {
        controllers: had.controllers.clone(),
        mount: had.mount.clone(),
        dir: layout::leaf(had, cgroups_path, id),
        knobs: Vec::new(),
        devices: Vec::new(),
    });
    let v2 = layout.v2.as_ref().map(|had| v2::Leaf {
        mount: had.mount.clone(),
        dir: layout::leaf(had, cgroups_path, id),
        knobs: Vec::new(),
        program: None,
        owner: None,
    });
    (v1.collect(), v2)
}

/// `--cgroup-manager=disabled`: no cgroup, hence no limits, as the caller wants it; device rules aren't counted as
/// limits because every engine sends some.
fn without_cgroup(resources: &Resources) -> Result<Plan> {
    let mut knobs = knobs::knobs(resources, |_| Version::V1)?;
    knobs.extend(knobs::unified(&resources.unified)?);
    if let Some(knob) = knobs.iter().find(|knob| knob.is_needed()) {
        let pointer = format!("/linux/resources/{}", knob.property);
        return Err(invalid(pointer, "a limit, but cgroups are disabled (--cgroup-manager=disabled)"));
    }
    let location = Location { manager: Manager::Disabled, v1: Vec::new(), v2: None, claim: Claim::Planned, unit: None };
    Ok(Plan { location, optional: true, v1: Vec::new(), v2: None, unit: None })
}

/// A knob that no hierarchy has: an error, unless it makes no difference.
fn refuse_missing(knob: &Knob, layout: &Layout) -> Result<()> {
    if knob.missing == Missing::Warn {
        log::warn!("/linux/resources/{} is not set: this host has no such controller", knob.property);
    }
    if !knob.is_needed() {
        return Ok(());
    }
    let why = if layout.is_empty() {
        "no cgroup file system is mounted at /sys/fs/cgroup or elsewhere".to_owned()
    } else if knob.property.starts_with("unified/") {
        "cgroup v2 isn't mounted on this host".to_owned()
    } else {
        let had: Vec<&str> = layout.v1.iter().map(|had| had.controllers.as_str()).collect();
        format!("it isn't mounted, this host has v1 hierarchies for {} only", had.join(", "))
    };
    let what = format!("cgroup controller \"{}\" is not available: {why}", knob.controller);
    Err(invalid(format!("/linux/resources/{}", knob.property), what))
}

/// v1's controller if it is mounted and can express the rules, else an eBPF program on v2; on a hybrid host the
/// kernel asks both.
fn place_devices(
    rules: &[devices::Rule],
    resources: &Resources,
    v1: &mut [v1::Leaf],
    v2: Option<&mut v2::Leaf>,
) -> Result<()> {
    let any_v1 = !v1.is_empty();
    let leaf = v1.iter_mut().find(|leaf| v1::lists(&leaf.controllers, "devices"));
    match (leaf, v2) {
        (Some(leaf), v2) => match (devices::v1(rules), v2) {
            (Ok(writes), _) => leaf.devices = writes,
            (Err(_), Some(v2)) => v2.program = devices::v2(rules),
            (Err(error), None) => return Err(error),
        },
        (None, Some(v2)) => v2.program = devices::v2(rules),
        (None, None) if !any_v1 => log::debug!("device rules aren't applied: the host has no cgroups"),
        (None, None) if resources.devices.is_empty() => (),
        (None, None) => {
            let what = "neither the devices controller of cgroup v1 nor cgroup v2 is mounted";
            return Err(invalid("/linux/resources/devices", what));
        }
    }
    Ok(())
}

/// Makes the cgroup of a plan with its limits, before any process is inside. What a failure made is removed.
pub(crate) fn create(plan: &Plan) -> Result<Box<dyn Cgroup>> {
    match &plan.unit {
        Some(unit) => Ok(Box::new(systemd::create(plan, unit.unit())?)),
        None => Ok(Box::new(group::create(plan)?)),
    }
}

/// The location of a plan as it is written down before anything is done: with whether there is nothing yet.
pub(crate) fn planned(plan: &Plan) -> Location {
    let claim = if group::open(&plan.location).is_vacant() { Claim::Vacant } else { Claim::Planned };
    Location { claim, ..plan.location.clone() }
}

/// The cgroup of an existing container; it may be gone already, in part or whole. Makes no system call, unless the
/// record is a user's and root has called.
pub(crate) fn open(location: &Location) -> Result<Box<dyn Cgroup>> {
    if crate::sys::process::acts_for_another() {
        check_file_systems(location)?;
    }
    match &location.unit {
        Some(unit) => Ok(Box::new(systemd::open(location, unit))),
        None => Ok(Box::new(group::open(location))),
    }
}

/// An error unless what a user's record names as cgroups are such: what else there is may hang whoever opens it.
fn check_file_systems(location: &Location) -> Result<()> {
    use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC};
    for dir in location.v1.iter().map(|(_, dir)| dir).chain(&location.v2) {
        match nix::sys::statfs::statfs(dir) {
            Err(nix::errno::Errno::ENOENT) => {}
            Ok(found) if [CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC].contains(&found.filesystem_type()) => {}
            Ok(_) => bail!("{dir:?} in the container's state is no cgroup"),
            Err(errno) => return Err(errno).call("statfs", dir).map_err(Into::into),
        }
    }
    Ok(())
}

/// Processes that were killed because the memory limit was reached, as the memory controller tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutOfMemory {
    /// The file that says so.
    pub(crate) file: &'static str,
    pub(crate) kills: u64,
    /// Bytes; none where the kernel doesn't tell.
    pub(crate) limit: Option<u64>,
    pub(crate) peak: Option<u64>,
}

impl std::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} counts {} process(es) killed for lack of memory", self.file, self.kills)?;
        for (name, value) in [("limit", self.limit), ("peak", self.peak)] {
            match value {
                Some(bytes) => write!(f, ", {name} {bytes} bytes")?,
                None => write!(f, ", {name} unknown")?,
            }
        }
        Ok(())
    }
}

/// When a cgroup is removed, of which a container that has ended is the owner until somebody else takes it over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// As soon as the container has ended, seen by who removes it.
    AtItsEnd,
    /// At any time after that: the kernel is asked who has taken it over.
    Later,
}

/// A container's cgroup.
pub(crate) trait Cgroup: std::fmt::Debug {
    /// The directories that it really has, for the state: after `create` without the right to make cgroups, none,
    /// though the plan names some (which may be another user's by now).
    fn location(&self) -> Location;
    /// For CLONE_INTO_CGROUP: v2's directory, on a hybrid host as well; none without v2. Where clone3 refuses it
    /// (EBUSY, EOPNOTSUPP) clone without and call `add_all`.
    fn clone_fd(&self) -> Option<BorrowedFd<'_>>;
    /// Moves a process into every hierarchy that `clone_fd` hasn't already put it in.
    fn add(&mut self, pid: Pid) -> Result<()>;
    /// Moves a process into every hierarchy: for one that wasn't cloned into `clone_fd`.
    fn add_all(&mut self, pid: Pid) -> Result<()>;
    /// Whether it is frozen by itself, not only by an ancestor.
    fn frozen(&self) -> Result<bool>;
    /// Whether something in it or below would not see a SIGKILL before it is thawed: v1's freezer does that.
    fn frozen_to_signals(&self) -> Result<bool>;
    /// The ancestor that keeps it frozen, if one does.
    fn frozen_ancestor(&self) -> Option<PathBuf>;
    /// Freezes every process in it and below and waits until they are (bounded), or until `stop` can be read. After an
    /// error nothing is frozen.
    fn freeze(&self, stop: BorrowedFd<'_>) -> Result<()>;
    /// Thaws it. An error says so if an ancestor keeps it frozen.
    fn thaw(&self) -> Result<()>;
    /// Whether it is frozen, by itself or an ancestor, given the state of a process in it (the letter of proc_pid_stat(5), if that is known):
    /// one that runs isn't.
    fn frozen_with(&self, state: Option<u8>) -> Result<bool>;
    /// Every process in it and below; none of a cgroup that isn't the container's.
    fn pids(&self) -> Result<Vec<Pid>>;
    /// Kills every process in it and below and waits until they are gone (bounded). Nothing in a cgroup that isn't the
    /// container's.
    fn kill(&self) -> Result<()>;
    /// Removes it and what the container made below, in every hierarchy; one that is gone is fine, and one that isn't the
    /// container's stays.
    fn remove(&mut self, when: Removal) -> Result<()>;
    /// What the memory controller has killed in it, if it has.
    fn out_of_memory(&self) -> Option<OutOfMemory>;
    /// What it uses.
    fn stats(&self) -> Stats;
    /// Watches for out-of-memory kills and the end.
    fn watch(&self) -> Result<Watch>;
    /// Changes limits. After an error they are as they were.
    fn update(&mut self, change: &update::Change) -> Result<()>;
}

/// Whether a directory is on a cgroup v2 file system, by its statfs magic.
pub(crate) fn is_v2(dir: &Path) -> bool {
    layout::kind_of(dir) == Some(layout::Kind::V2)
}

#[cfg(test)]
mod tests;
