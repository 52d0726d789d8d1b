//! Control groups: where a container's cgroup is, which limits it gets, and what is done to it.
//!
//! Deciding ([`plan`]) is pure; [`Cgroup`] does. The managers behind it: v1 and hybrid ([`v1`]), v2 ([`v2`]),
//! and none at all (`--cgroup-manager=disabled`).

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::spec::Resources;

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
}

/// Where and with which limits: decided, not done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) location: Location,
}

impl Layout {
    /// Reads /proc/self/cgroup and asks the usual mount points what they are (statfs); never reads mountinfo.
    pub(crate) fn probe() -> Result<Self> {
        Ok(Self::default())
    }
}

/// Decides the cgroup of container `id`. Errors name the property.
pub(crate) fn plan(
    manager: Manager,
    cgroups_path: &str,
    id: &str,
    resources: &Resources,
    layout: &Layout,
) -> Result<Plan> {
    let _ = (cgroups_path, id, resources, layout);
    Ok(Plan { location: Location { manager, v1: Vec::new(), v2: None } })
}

/// Makes the cgroup of a plan with its limits, before any process is inside. What a failure made is removed.
pub(crate) fn create(plan: &Plan) -> Result<Box<dyn Cgroup>> {
    open(&plan.location)
}

/// The cgroup of an existing container; it may be gone already, in part or whole.
pub(crate) fn open(location: &Location) -> Result<Box<dyn Cgroup>> {
    let _ = location;
    anyhow::bail!("not built yet")
}

/// A container's cgroup.
pub(crate) trait Cgroup: std::fmt::Debug {
    /// For CLONE_INTO_CGROUP (v2 without v1); none where a process can't be cloned into it.
    fn clone_fd(&self) -> Option<BorrowedFd<'_>>;
    /// Moves a process into every hierarchy that `clone_fd` hasn't already put it in.
    fn add(&mut self, pid: Pid) -> Result<()>;
    /// Whether it is frozen.
    fn frozen(&self) -> Result<bool>;
    /// Every process in it and below.
    fn pids(&self) -> Result<Vec<Pid>>;
    /// Kills every process in it and below and waits until they are gone (bounded).
    fn kill(&self) -> Result<()>;
    /// Removes it and what the container made below, in every hierarchy; one that is gone is fine.
    fn remove(&mut self) -> Result<()>;
    /// How many processes the memory controller has killed in it; 0 where it can't be known.
    fn oom_kills(&self) -> u64;
}

/// Whether a directory is on a cgroup file system, by its statfs magic.
pub(crate) fn is_v2(dir: &Path) -> bool {
    let _ = dir;
    false
}
