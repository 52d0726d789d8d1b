//! Which unit a container is, pure: from `cgroupsPath` to a name, its slice and its cgroup.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::error::invalid;

/// A scope, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) slice: String,
    /// From the root of the manager's cgroups.
    pub(super) cgroup: PathBuf,
}

const POINTER: &str = "/linux/cgroupsPath";

/// The longest name of a unit (systemd.unit(5)).
const LONGEST: usize = 255;

/// `slice:prefix:name` as every engine writes it; the unit is `prefix-name.scope`. An empty slice is `default_slice`,
/// and no path at all stands for `:tare:<id>`, as runc has it under its own name.
pub(super) fn place(cgroups_path: &str, id: &str, default_slice: &str) -> Result<Place> {
    let parts: Vec<&str> = cgroups_path.split(':').collect();
    let (slice, prefix, name) = match parts.as_slice() {
        [""] => ("", "tare", id),
        [slice, prefix, name] => (*slice, *prefix, *name),
        _ => {
            // The words of runc, which people look for.
            let what = format!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {cgroups_path:?}"
            );
            return Err(invalid(POINTER, what));
        }
    };
    if name.ends_with(".slice") {
        let what = format!("{cgroups_path:?}: {name:?} is a slice, which holds units and no process: expected a name");
        return Err(invalid(POINTER, what));
    }
    let slice = if slice.is_empty() { default_slice } else { slice };
    let cgroup = slice_path(slice).ok_or_else(|| {
        let what = format!(
            "{cgroups_path:?}: slice {slice:?}, expected a name such as \"a.slice\" or \"a-b.slice\" (in a.slice)"
        );
        invalid(POINTER, what)
    })?;
    let unit = format!("{prefix}-{name}.scope");
    if name.is_empty() || !is_name(&unit) {
        let what = format!(
            "{cgroups_path:?}: unit {unit:?}, expected at most {LONGEST} letters, digits and \":-_.\\\" (systemd.unit(5))"
        );
        return Err(invalid(POINTER, what));
    }
    Ok(Place { cgroup: cgroup.join(escape(&unit)), name: unit, slice: slice.to_owned() })
}

/// systemd puts `_` before a name that cgroupfs may have a file of: those that begin with `_`, `.`, `cgroup.` or the
/// name of a controller.
fn escape(unit: &str) -> String {
    const TAKEN: [&str; 11] = [
        "cgroup",
        "cpu",
        "cpuacct",
        "cpuset",
        "io",
        "blkio",
        "memory",
        "devices",
        "pids",
        "bpf-firewall",
        "bpf-devices",
    ];
    let taken = unit.split_once('.').is_some_and(|(first, _)| TAKEN.contains(&first));
    if unit.starts_with(['_', '.']) || taken { format!("_{unit}") } else { unit.to_owned() }
}

fn is_name(unit: &str) -> bool {
    unit.len() <= LONGEST && unit.chars().all(|c| c.is_ascii_alphanumeric() || ":-_.\\".contains(c))
}

/// The cgroup of a slice: each dash is a level (`a-b.slice` is in `a.slice`), `-.slice` the top.
fn slice_path(slice: &str) -> Option<PathBuf> {
    let stem = slice.strip_suffix(".slice")?;
    let mut path = PathBuf::from("/");
    if stem == "-" {
        return Some(path);
    }
    if !is_name(slice) {
        return None;
    }
    let mut name = String::new();
    for part in stem.split('-') {
        if part.is_empty() {
            return None;
        }
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(part);
        path.push(escape(&format!("{name}.slice")));
    }
    Some(path)
}

/// Where a user's own manager has its cgroups (user@.service of systemd-logind).
pub(super) fn user_root(uid: u32) -> PathBuf {
    Path::new("/user.slice").join(format!("user-{uid}.slice")).join(format!("user@{uid}.service"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(path: &str) -> String {
        place(path, "id", "system.slice").unwrap().cgroup.display().to_string()
    }

    #[test]
    fn what_engines_write() {
        let docker = place("system.slice:docker:0123", "id", "system.slice").unwrap();
        assert_eq!((docker.name.as_str(), docker.slice.as_str()), ("docker-0123.scope", "system.slice"));
        assert_eq!(docker.cgroup, Path::new("/system.slice/docker-0123.scope"));
        let pod = "kubepods-burstable-pod1_2.slice:cri-containerd:c";
        assert_eq!(
            cgroup(pod),
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-c.scope"
        );
        assert_eq!(cgroup("user.slice:libpod:c"), "/user.slice/libpod-c.scope");
        assert_eq!(cgroup(""), "/system.slice/tare-id.scope");
        assert_eq!(cgroup(":p:n"), "/system.slice/p-n.scope");
        assert_eq!(cgroup("-.slice:p:n"), "/p-n.scope");
        assert_eq!(cgroup("::n"), "/system.slice/-n.scope");
        assert_eq!(place(":p:n", "id", "user.slice").unwrap().slice, "user.slice");
    }

    #[test]
    fn names_that_cgroupfs_has_are_escaped() {
        assert_eq!(cgroup("cpu.slice:_p:n"), "/_cpu.slice/__p-n.scope");
        assert_eq!(cgroup("a.slice:cgroup.x:n"), "/a.slice/_cgroup.x-n.scope");
        assert_eq!(cgroup("a.slice:cpux:n"), "/a.slice/cpux-n.scope");
    }

    #[test]
    fn nothing_leads_elsewhere() {
        let long = format!(":p:{}", "x".repeat(LONGEST));
        for bad in [
            "/a/b",
            "a",
            "a:b",
            "a.slice:b:c:d",
            "a:p:n",
            "a.slice:p:",
            "a.slice:p:n/m",
            "a.slice:../p:n",
            "a/b.slice:p:n",
            "a--b.slice:p:n",
            "-a.slice:p:n",
            "a-.slice:p:n",
            ".slice:p:n",
            "../a.slice:p:n",
            "a.slice:p:n m",
            "a.slice:p:n\n",
            "a.slice:p:x.slice",
            &long,
        ] {
            let error = place(bad, "id", "system.slice").unwrap_err().to_string();
            assert!(error.starts_with("config.json: /linux/cgroupsPath: "), "{bad}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
