//! `delete --force` of a container whose record can't be read: a power cut or a full disk may leave an empty file.
//!
//! The lock tells that nobody is at work on it. What may be left of it is where its config.json puts it, in a cgroup, which
//! may be somebody else's by now. It is the container's if its first process began when the config.json had just been
//! written: that is when this container's did.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use nix::unistd::{Pid, geteuid};

use crate::cgroup::{self, Cgroup, Claim, Layout, Location, Manager};
use crate::spec::{Resources, Spec};
use crate::state::{self, Folder, Lock, TICKS_PER_SECOND};
use crate::sys;

/// From the moment when config.json is kept to the clone of the container's process: what is connected to, opened and
/// made meanwhile.
const LONGEST_WAY: Duration = Duration::from_secs(30);
/// How exactly the beginning of a process is known.
const INACCURACY: Duration = Duration::from_secs(1);

/// Removes what is known to be the container's, and its folder.
pub(crate) fn delete_lost(root: &Path, folder: Folder, lock: Lock, why: &anyhow::Error) -> Result<()> {
    let id = folder.name().to_owned();
    log::warn!("container {id:?}: {why:#}: what its config.json and its cgroup tell of it is removed");
    match folder.config() {
        Ok(config) => {
            match end(root, &folder, &config).with_context(|| format!("container {id:?}: its cgroup is left"))? {
                Cgroups::Gone => {}
                Cgroups::Anothers(other) => {
                    log::warn!("container {id:?}: its cgroup is left: container {other:?} has the same");
                }
            }
            if !config.hooks.poststop.is_empty() {
                log::warn!("container {id:?}: its poststop hooks are not run: there is no state to tell them");
            }
        }
        Err(error) => log::warn!("container {id:?}: its processes and cgroup, if any, are left: {error:#}"),
    }
    folder.remove()?;
    drop(lock);
    Ok(())
}

/// What became of the cgroup.
enum Cgroups {
    Gone,
    Anothers(String),
}

/// Kills what is in the container's cgroup, and removes that. An error if something is left that may be the container's.
fn end(root: &Path, folder: &Folder, config: &Spec) -> Result<Cgroups> {
    let location = locate(folder.name(), config)?;
    let mut cgroup = cgroup::open(&location)?;
    if let Some(other) = claimed(root, folder.name(), &location)? {
        return Ok(Cgroups::Anothers(other));
    }
    if !cgroup.pids()?.is_empty() {
        check_beginning(&*cgroup, folder.config_written()?)?;
        cgroup.kill()?;
    }
    cgroup.remove(cgroup::Removal::Later)?;
    Ok(Cgroups::Gone)
}

/// Where config.json puts the cgroup. Which manager made it shows in the form of the path.
fn locate(id: &str, config: &Spec) -> Result<Location> {
    let (path, layout) = (config.linux.cgroups_path.as_str(), Layout::probe()?);
    let plan = if path.split(':').count() == 3 && !path.starts_with('/') {
        let user = (!geteuid().is_root()).then(|| geteuid().as_raw());
        let asked = cgroup::systemd::Asked { cgroups_path: path, id, annotations: &config.annotations, user };
        cgroup::systemd::plan(asked, &Resources::default(), &layout)?
    } else {
        cgroup::plan(Manager::Cgroupfs, path, id, &Resources::default(), &layout)?
    };
    // Whose it is, [`end`] finds out.
    Ok(Location { claim: Claim::Unknown, ..plan.location })
}

/// Another container below the same root whose record names the same cgroup, or whose config.json does where there is no
/// record that can be read. An error where neither can be.
fn claimed(root: &Path, id: &str, location: &Location) -> Result<Option<String>> {
    let shares = |other: &Location| {
        (other.v2.is_some() && other.v2 == location.v2) || other.v1.iter().any(|leaf| location.v1.contains(leaf))
    };
    for name in state::names(root)?.into_iter().filter(|name| name != id) {
        let unknown = || format!("container {name:?} may have the same, and can't be read");
        let Some(folder) = Folder::find(root, &name).with_context(unknown)? else { continue };
        let other = match folder.read() {
            Ok(Some(record)) => record.cgroup,
            // It is being made, and takes no cgroup that isn't empty.
            Ok(None) => continue,
            Err(_) => folder.config_by_itself().and_then(|config| locate(&name, &config)).with_context(unknown)?,
        };
        if shares(&other) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// An error unless the first process began when this container's did.
fn check_beginning(cgroup: &dyn Cgroup, written: SystemTime) -> Result<()> {
    let booted = booted()?;
    let first = cgroup.pids()?.into_iter().filter_map(beginning).min();
    let first = booted + first.context("its processes are gone")?;
    let (earliest, latest) = (written - INACCURACY, written + LONGEST_WAY);
    anyhow::ensure!(
        (earliest..=latest).contains(&first),
        "its processes began at another time than this container's: kill them, and remove it"
    );
    Ok(())
}

/// When a process began, since the boot.
fn beginning(pid: Pid) -> Option<Duration> {
    let stat = sys::read_small(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // Field 3 is the first after the name.
    let ticks: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

fn booted() -> Result<SystemTime> {
    let uptime = sys::read_small("/proc/uptime")?;
    let uptime = String::from_utf8_lossy(&uptime);
    let seconds: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).context("/proc/uptime")?;
    Ok(SystemTime::now() - Duration::from_secs_f64(seconds))
}
