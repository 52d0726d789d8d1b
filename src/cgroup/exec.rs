//! Which cgroup a further process of a container goes into.

use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail};

use super::layout::cgroups_of;
use super::{Claim, Layout, Location};

/// `--cgroup [CONTROLLER[,CONTROLLER]:]PATH`: existing cgroups below the container's. A path without controllers counts
/// for every hierarchy. Nothing leads out of the container's own.
pub(crate) fn below(location: &Location, asked: &[String]) -> Result<Location> {
    let mut found = location.clone();
    if !asked.is_empty() {
        found.claim = Claim::Unknown;
    }
    for asked in asked {
        let (controllers, path) = match asked.split_once(':') {
            Some((controllers, path)) => (Some(controllers), path),
            None => (None, asked.as_str()),
        };
        let inside = inside(path).ok_or_else(|| anyhow::anyhow!("--cgroup {asked:?}: leads out of the container's"))?;
        match controllers {
            Some(controllers) => in_hierarchies(&mut found, location, controllers, &inside, asked)?,
            None => {
                found.v1 = location.v1.iter().map(|(name, dir)| (name.clone(), dir.join(&inside))).collect();
                found.v2 = location.v2.as_ref().map(|dir| dir.join(&inside));
            }
        }
    }
    let dirs = found.v1.iter().map(|(_, dir)| dir).chain(&found.v2);
    match dirs.into_iter().find(|dir| !asked.is_empty() && !dir.is_dir()) {
        Some(dir) => bail!("--cgroup: {dir:?}: no such file or directory"),
        None => Ok(found),
    }
}

fn in_hierarchies(
    found: &mut Location,
    location: &Location,
    controllers: &str,
    inside: &Path,
    asked: &str,
) -> Result<()> {
    for controller in controllers.split(',') {
        let holds = |(names, _): &&(String, PathBuf)| names.split(',').any(|name| name == controller);
        let Some((names, dir)) = location.v1.iter().find(holds) else {
            bail!("--cgroup {asked:?}: no cgroup v1 hierarchy of controller {controller:?}");
        };
        for (other, target) in &mut found.v1 {
            if other == names {
                *target = dir.join(inside);
            }
        }
    }
    Ok(())
}

/// A path without any way up.
pub(super) fn inside(path: &str) -> Option<PathBuf> {
    let mut inside = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(inside)
}

/// The cgroups that a process is in at this moment.
pub(crate) fn current(pid: i32) -> Result<Location> {
    let layout = Layout::probe()?;
    let own = cgroups_of(pid)?;
    let dir = |mount: &Path, controllers: &str| {
        let (_, path) = own.iter().find(|(names, _)| names == controllers)?;
        Some(mount.join(inside(path.to_str()?)?))
    };
    let v1 = layout.v1.iter().filter_map(|h| Some((h.controllers.clone(), dir(&h.mount, &h.controllers)?)));
    Ok(Location {
        manager: super::Manager::Cgroupfs,
        v1: v1.collect(),
        v2: layout.v2.as_ref().and_then(|h| dir(&h.mount, "")),
        claim: Claim::Unknown,
        unit: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Manager;

    fn location() -> Location {
        let v1 = [("cpu,cpuacct", "/m/cpu/c"), ("memory", "/m/memory/c")];
        let v1 = v1.map(|(names, dir)| (names.to_owned(), PathBuf::from(dir))).to_vec();
        Location { manager: Manager::Cgroupfs, v1, v2: Some("/m/u/c".into()), claim: Claim::Unknown, unit: None }
    }

    #[test]
    fn nothing_asked_is_the_containers_own() {
        assert_eq!(below(&location(), &[]).unwrap(), location());
    }

    #[test]
    fn no_way_leads_out() {
        for asked in ["..", "a/../../b", "memory:../x", "/../x"] {
            let error = below(&location(), &[asked.into()]).unwrap_err().to_string();
            assert!(error.contains("leads out"), "{error}");
        }
    }

    #[test]
    fn unknown_controllers_and_missing_cgroups_are_named() {
        let error = |asked: &str| below(&location(), &[asked.into()]).unwrap_err().to_string();
        assert!(error("pids:x").contains("\"pids\""), "{}", error("pids:x"));
        assert!(error("memory:/x").contains("/m/cpu/c") || error("memory:/x").contains("/m/memory/c/x"));
    }
}
