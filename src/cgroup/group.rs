//! A container's cgroup in every hierarchy that it is in.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::unistd::Pid;

use super::dir::{BackOff, Dir, gone, make};
use super::freeze::Freezer;
use super::trouble::{Tried, cause};
use super::update::Change;
use super::{
    Cgroup, Claim, Location, Manager, OutOfMemory, Plan, Removal, Stats, Watch, events, stats, update, v1, v2,
};
use crate::host::is_rootless;
use crate::sys;

/// How long `kill` waits for processes to end. SIGKILL can't be refused, only delayed (disk, a core dump).
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// The same where an ancestor is frozen, which only its owner can change.
const HELD_LIMIT: Duration = Duration::from_millis(100);
/// How long what `cgroup.kill` has reached may take, before the rest is signalled one by one.
const UNHEARD: Duration = Duration::from_millis(100);
/// How long `wait_gone` waits: systemd needs some milliseconds, on a busy host more.
const GONE_LIMIT: Duration = Duration::from_secs(5);
/// How long `remove` waits for tasks that are on their way out.
const REMOVE_LIMIT: Duration = Duration::from_secs(5);

/// Both versions at once: a hybrid host has processes in all v1 hierarchies and in v2.
#[derive(Debug)]
pub(super) struct Group {
    manager: Manager,
    v1: Vec<(String, Dir)>,
    v2: Option<Dir>,
    claim: Claim,
    /// Cgroups above the leaves that this process has made. A container that comes to be leaves them to whoever else is below.
    parents: Vec<PathBuf>,
    origin: Origin,
}

/// Where what is known of a cgroup comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// This process has made or taken over its directories for a container that comes to be.
    Made,
    /// The record of a container.
    Record,
}

/// Whose a cgroup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Container,
    /// Somebody, who may be nobody.
    Other,
    /// There is none.
    Nobody,
}

/// Makes the leaves, then sets limits and device rules, all before any process is inside.
pub(super) fn create(plan: &Plan) -> Result<Group> {
    let mut made = Vec::new();
    match make_all(plan, &mut made) {
        Ok(mut group) => {
            made.retain(|path| group.dirs().all(|dir| dir.path() != path));
            group.parents = made;
            Ok(group)
        }
        Err(error) => {
            remove_unused(&made);
            Err(error)
        }
    }
}

/// Removes cgroups, the last made first. What can't be removed is somebody's by now.
fn remove_unused(made: &[PathBuf]) {
    for path in made.iter().rev() {
        let _ = nix::unistd::unlinkat(nix::fcntl::AT_FDCWD, path, nix::unistd::UnlinkatFlags::RemoveDir);
    }
}

fn make_all(plan: &Plan, made: &mut Vec<PathBuf>) -> Result<Group> {
    let mut group =
        Group { v1: Vec::new(), v2: None, claim: Claim::Planned, origin: Origin::Made, ..open(&plan.location) };
    for leaf in &plan.v1 {
        if make_leaf(plan, &leaf.dir, made)? {
            group.v1.push((leaf.controllers.clone(), Dir::new(leaf.dir.clone())));
        }
    }
    if let Some(leaf) = &plan.v2
        && make_leaf(plan, &leaf.dir, made)?
    {
        group.v2 = Some(Dir::new(leaf.dir.clone()));
    }
    prepare(plan, &group)?;
    group.take()?;
    group.mark_unless_made(made);
    Ok(group)
}

/// Takes over the leaves that another manager has made, makes those that it left out, and sets limits and device rules
/// with the process already inside.
pub(super) fn adopt(plan: &Plan) -> Result<Group> {
    let mut group = Group { origin: Origin::Made, ..open(&plan.location) };
    let mut others = Vec::new();
    for (controllers, dir) in std::mem::take(&mut group.v1) {
        let limited = plan.v1.iter().any(|leaf| leaf.controllers == controllers && !leaf.knobs.is_empty());
        match make(dir.path(), &mut Vec::new()) {
            // An ordinary user's systemd has v2 and its own hierarchy alone; what nothing is asked of isn't missed.
            Err(error) if error.errno() == Errno::EACCES && !limited && is_rootless() => {
                log::debug!("the container gets no cgroup of its own in {controllers:?}: {error}");
            }
            Err(error) => {
                return Err(explained(error, dir.path(), Tried::Make)).context("make the container's cgroup");
            }
            Ok(_) => others.push((controllers, dir)),
        }
    }
    group.v1 = others;
    if let Some(dir) = &group.v2 {
        make(dir.path(), &mut Vec::new()).context("make the container's cgroup")?;
    }
    prepare(plan, &group)?;
    group.take()?;
    Ok(group)
}

fn prepare(plan: &Plan, group: &Group) -> Result<()> {
    for (controllers, dir) in &group.v1 {
        if let Some(leaf) = plan.v1.iter().find(|leaf| &leaf.controllers == controllers) {
            v1::prepare(leaf, dir)?;
        }
    }
    if let (Some(leaf), Some(dir)) = (&plan.v2, &group.v2) {
        v2::prepare(leaf, dir, plan.v1.is_empty())?;
    }
    Ok(())
}

/// Makes one leaf; false where the container does without one.
fn make_leaf(plan: &Plan, path: &Path, made: &mut Vec<PathBuf>) -> Result<bool> {
    match make(path, made) {
        Ok(true) => Ok(true),
        Ok(false) if plan.optional && !is_ours(path) => {
            log::debug!("the container gets no cgroup of its own: {path:?} is somebody else's");
            Ok(false)
        }
        Ok(false) => check_unused(path).map(|()| true),
        Err(error) if matches!(error.errno(), Errno::EACCES | Errno::EPERM | Errno::EROFS) => {
            if plan.optional {
                log::debug!("the container gets no cgroup of its own: {error}");
                return Ok(false);
            }
            Err(explained(error, path, Tried::Make)).context("make the container's cgroup")
        }
        Err(error) => Err(explained(error, path, Tried::Make)).context("make the container's cgroup"),
    }
}

/// The error with its cause, if one is found.
fn explained(error: sys::Error, path: &Path, tried: Tried<'_>) -> anyhow::Error {
    let cause = cause(path, tried, error.errno());
    let error = anyhow::Error::new(error);
    match cause {
        Some(cause) => error.context(cause),
        None => error,
    }
}

/// Whether processes may be moved into a cgroup that is there already.
fn is_ours(path: &Path) -> bool {
    use nix::unistd::{AccessFlags, faccessat};
    let flags = nix::fcntl::AtFlags::AT_EACCESS;
    faccessat(nix::fcntl::AT_FDCWD, &path.join("cgroup.procs"), AccessFlags::W_OK, flags).is_ok()
}

/// A leaf that somebody left, or made in advance with limits of his own, is fine if nothing lives in it.
fn check_unused(path: &Path) -> Result<()> {
    let dir = Dir::new(path.to_owned());
    let processes = dir.pids()?.len();
    if processes != 0 {
        bail!("container's cgroup is not empty: {processes} process(es) found in {path:?}");
    }
    if v1::frozen(&dir)? || v2::frozen(&dir)? {
        bail!("container's cgroup is unexpectedly frozen: {path:?}");
    }
    Ok(())
}

pub(super) fn open(location: &Location) -> Group {
    Group {
        manager: location.manager,
        v1: location.v1.iter().map(|(controllers, dir)| (controllers.clone(), Dir::new(dir.clone()))).collect(),
        v2: location.v2.clone().map(Dir::new),
        claim: location.claim,
        parents: Vec::new(),
        origin: Origin::Record,
    }
}

impl Group {
    fn dirs(&self) -> impl Iterator<Item = &Dir> {
        self.v1.iter().map(|(_, dir)| dir).chain(&self.v2)
    }

    pub(super) fn v2(&self) -> Option<&Dir> {
        self.v2.as_ref()
    }

    pub(super) fn with_controller(&self, controller: &str) -> Option<&Dir> {
        self.v1.iter().find(|(controllers, _)| v1::lists(controllers, controller)).map(|(_, dir)| dir)
    }

    /// The hierarchy to look for processes in: they are in all.
    fn main(&self) -> Option<&Dir> {
        self.v2.as_ref().or_else(|| self.with_controller("freezer")).or_else(|| self.v1.first().map(|(_, dir)| dir))
    }

    fn freezer(&self) -> Option<Freezer<'_>> {
        self.with_controller("freezer").map(Freezer::V1).or_else(|| self.v2.as_ref().map(Freezer::V2))
    }

    /// Lets processes that v1's freezer holds see their SIGKILL; v2's frozen ones do anyway.
    fn thaw_tree(&self) -> Result<()> {
        self.with_controller("freezer").map_or(Ok(()), v1::thaw)
    }

    /// Notes by what the cgroup is known from here on.
    fn take(&mut self) -> Result<()> {
        if let Some(dir) = self.main() {
            let inode = dir.inode()?.with_context(|| format!("{:?} was removed meanwhile", dir.path()))?;
            self.claim = Claim::Taken(inode);
        }
        Ok(())
    }

    /// Marks a cgroup that was there before: whoever made it may have its inode in a record, too.
    fn mark_unless_made(&mut self, made: &[PathBuf]) {
        let Some(dir) = self.main().filter(|dir| made.iter().all(|made| made != dir.path())) else { return };
        let Claim::Taken(inode) = self.claim else { return };
        match dir.mark() {
            Ok(mark) => self.claim = Claim::Marked { inode, mark },
            // An ordinary user's container could mark its own, so his aren't. And not every v1 hierarchy keeps attributes.
            Err(error) => log::debug!("the cgroup isn't marked as taken over: {error}"),
        }
    }

    /// Whether nobody else has taken it over.
    fn is_last_taken_by_us(&self) -> Result<bool> {
        let mark = match self.claim {
            Claim::Marked { mark, .. } => Some(mark),
            Claim::Taken(_) => None,
            Claim::Unknown | Claim::Planned | Claim::Vacant => return Ok(true),
        };
        self.main().map_or(Ok(true), |dir| Ok(dir.marked()? == mark))
    }

    /// Whether what runs in it is the container's.
    fn is_ours(&self) -> Result<bool> {
        Ok(self.owner()? == Owner::Container && self.is_last_taken_by_us()?)
    }

    /// Whether there is nothing yet.
    pub(super) fn is_vacant(&self) -> bool {
        self.main().is_some_and(|dir| matches!(dir.inode(), Ok(None)))
    }

    fn owner(&self) -> Result<Owner> {
        let Some(dir) = self.main() else { return Ok(Owner::Nobody) };
        let inode = match self.claim {
            Claim::Unknown => return Ok(Owner::Container),
            Claim::Planned | Claim::Vacant => return Ok(Owner::Other),
            Claim::Taken(inode) | Claim::Marked { inode, .. } => inode,
        };
        Ok(match dir.inode()? {
            Some(found) if found == inode => Owner::Container,
            Some(_) => Owner::Other,
            None => Owner::Nobody,
        })
    }

    /// What a creation that was killed may have made, without a process in it that isn't about to end.
    fn remove_vacant(&self) {
        let mut time = BackOff::new(REMOVE_LIMIT);
        for dir in self.dirs() {
            let mut removed = dir.remove_empty();
            while removed == Err(Errno::EBUSY) && time.pause() {
                removed = dir.remove_empty();
            }
            if let Err(errno) = removed {
                log::warn!("cgroup {:?} stays, as somebody else may use it: {}", dir.path(), sys::words(errno));
            }
        }
    }

    /// Waits (bounded) until the last process has left, where the kernel tells.
    pub(super) fn wait_empty(&self) {
        if let Some(Err(error)) = self.v2.as_ref().map(|dir| v2::wait_empty(dir, REMOVE_LIMIT)) {
            log::debug!("wait for the cgroup to be empty: {error:#}");
        }
    }

    /// Waits (bounded) until another manager has removed it, and says whether it has.
    pub(super) fn wait_gone(&self) -> bool {
        let Some(dir) = &self.v2 else { return false };
        let mut time = BackOff::new(GONE_LIMIT);
        while dir.path().exists() {
            if !time.pause() {
                return false;
            }
        }
        true
    }

    fn kill_within(&self, limit: Duration) -> Result<()> {
        let mut time = BackOff::new(limit);
        if let Some(dir) = &self.v2 {
            // Since Linux 5.14; kills what is forked meanwhile, too. Where it isn't there, one by one.
            if dir.write("cgroup.kill", "1").is_ok() {
                self.thaw_tree()?;
                if v2::wait_empty(dir, UNHEARD.min(limit))? {
                    return Ok(());
                }
            }
        }
        // cgroup.kill signals first threads only: a process whose first thread has ended doesn't hear it.
        self.main().map_or(Ok(()), |dir| v1::kill(dir, || self.thaw_tree(), &mut time))
    }

    /// v2 goes first: it tells when the last task has left, and a task leaves all hierarchies at once. v1 tells
    /// nobody, so there (and for what dies without being counted as live) the wait is a growing pause.
    fn remove_all(&self) -> Result<()> {
        let mut time = BackOff::new(REMOVE_LIMIT);
        let mut first_error = Ok(());
        if let Some(dir) = &self.v2 {
            let mut asked = false;
            first_error = dir.remove(&mut || {
                if std::mem::replace(&mut asked, true) {
                    time.pause()
                } else {
                    v2::wait_empty(dir, time.left()).unwrap_or(false)
                }
            });
        }
        for (_, dir) in &self.v1 {
            // One that can't be removed is no reason to leave the others.
            first_error = first_error.and(dir.remove(&mut || time.pause()));
        }
        first_error
    }

    fn add_to<'a>(&'a self, dirs: impl Iterator<Item = &'a Dir>, pid: Pid) -> Result<()> {
        let add = |dir: &Dir| {
            dir.add(pid).map_err(|error| {
                let moving = format!("move process {pid} into its cgroup");
                explained(error, dir.path(), Tried::Move(pid.as_raw())).context(moving)
            })
        };
        let files: Result<Vec<OwnedFd>> = dirs.map(add).collect();
        // The process goes on without them, and the kernel closes them at its end: they pin nothing.
        files.map(std::mem::forget).or_else(|error| {
            let missing = error.downcast_ref::<sys::Error>().is_some_and(gone);
            // A container that was created without the right to make cgroups has none anywhere. Those that this process
            // has just made or taken over have the limits: without them nothing may run.
            let none = || missing && self.origin == Origin::Record && self.dirs().all(|dir| !dir.path().exists());
            if none() { Ok(()) } else { Err(error) }
        })
    }
}

impl Cgroup for Group {
    fn location(&self) -> Location {
        let path = |dir: &Dir| dir.path().to_owned();
        Location {
            manager: self.manager,
            v1: self.v1.iter().map(|(controllers, dir)| (controllers.clone(), path(dir))).collect(),
            v2: self.v2.as_ref().map(path),
            claim: self.claim,
            unit: None,
        }
    }

    fn clone_fd(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref()?.fd().ok()
    }

    fn add(&mut self, pid: Pid) -> Result<()> {
        let v2 = if self.clone_fd().is_some() { None } else { self.v2.as_ref() };
        self.add_to(self.v1.iter().map(|(_, dir)| dir).chain(v2), pid)
    }

    fn add_all(&mut self, pid: Pid) -> Result<()> {
        self.add_to(self.dirs(), pid)
    }

    fn frozen(&self) -> Result<bool> {
        match self.freezer() {
            Some(Freezer::V1(dir)) => v1::self_frozen(dir),
            Some(Freezer::V2(dir)) => v2::frozen(dir),
            None => Ok(false),
        }
    }

    fn frozen_with(&self, state: Option<u8>) -> Result<bool> {
        match self.freezer() {
            // Before Linux 6.1 a frozen process may still be shown as one that sleeps.
            Some(Freezer::V1(_)) if state == Some(b'R') => Ok(false),
            Some(Freezer::V1(dir)) => v1::frozen_by(dir.read_once("freezer.state")),
            Some(Freezer::V2(dir)) => v2::frozen_by(dir.read_once("cgroup.freeze")),
            None => Ok(false),
        }
    }

    fn frozen_to_signals(&self) -> Result<bool> {
        self.with_controller("freezer").map_or(Ok(false), v1::any_frozen)
    }

    fn frozen_ancestor(&self) -> Option<PathBuf> {
        self.freezer()?.frozen_ancestor()
    }

    fn freeze(&self, stop: BorrowedFd<'_>) -> Result<()> {
        let Some(freezer) = self.freezer() else { bail!("the container has no cgroup of its own to freeze") };
        freezer.freeze(stop)
    }

    fn thaw(&self) -> Result<()> {
        let Some(freezer) = self.freezer() else { bail!("the container has no cgroup of its own to thaw") };
        freezer.thaw()
    }

    fn pids(&self) -> Result<Vec<Pid>> {
        match self.main() {
            Some(dir) if self.is_ours()? => dir.pids(),
            _ => Ok(Vec::new()),
        }
    }

    fn kill(&self) -> Result<()> {
        if !self.is_ours()? {
            return Ok(());
        }
        // Nothing that an ancestor holds in v1's freezer dies; the signal reaches it when that is thawed.
        let above = self.with_controller("freezer").and_then(|dir| Freezer::V1(dir).frozen_ancestor());
        let killed = self.kill_within(if above.is_some() { HELD_LIMIT } else { KILL_LIMIT });
        match above {
            Some(path) => killed.with_context(|| format!("cgroup {path:?} above the container's is frozen: thaw it")),
            None => killed,
        }
    }

    fn remove(&mut self, when: Removal) -> Result<()> {
        match (self.owner()?, self.claim) {
            (Owner::Other, Claim::Vacant) => {
                self.remove_vacant();
                return Ok(());
            }
            (Owner::Other, _) => {
                log::debug!("the cgroup at {:?} isn't this container's and stays", self.main().map(Dir::path));
                return Ok(());
            }
            // Who has taken it over since then relies on it, even while nothing runs in it yet: it's his to remove.
            (Owner::Container, _) if when == Removal::Later && !self.is_last_taken_by_us()? => {
                log::debug!("the cgroup at {:?} was taken over and stays", self.main().map(Dir::path));
                return Ok(());
            }
            (Owner::Container | Owner::Nobody, _) => {}
        }
        let removed = self.remove_all();
        remove_unused(&self.parents);
        // The same, if that was done meanwhile.
        if removed.is_err() && !self.is_last_taken_by_us()? { Ok(()) } else { removed }
    }

    fn out_of_memory(&self) -> Option<OutOfMemory> {
        let (dir, file, limit, peak) = match (self.with_controller("memory"), &self.v2) {
            (Some(dir), _) => (dir, "memory.oom_control", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
            (None, Some(dir)) => (dir, "memory.events", "memory.max", "memory.peak"),
            (None, None) => return None,
        };
        let kills = dir.count(file, "oom_kill").filter(|kills| *kills > 0)?;
        let bytes = |file: &str| dir.read(file).ok()?.trim_end().parse().ok();
        Some(OutOfMemory { file, kills, limit: bytes(limit), peak: bytes(peak) })
    }

    fn stats(&self) -> Stats {
        stats::read(self)
    }

    fn watch(&self) -> Result<Watch> {
        events::watch(self)
    }

    fn update(&mut self, change: &Change) -> Result<()> {
        update::apply(self, change).map(drop)
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
