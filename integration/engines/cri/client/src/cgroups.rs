//! The kubelet's part in cgroups, by the cgroupfs driver: it makes a pod's and removes it.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

pub fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// The mount point of every hierarchy.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.filter(|fields| fields[2] == "cgroup" || fields[2] == "cgroup2").map(|fields| fields[1].into()).collect()
}

pub fn make(parent: &str) {
    for at in hierarchies() {
        fs::create_dir_all(within(&at, parent)).expect("a pod's cgroup");
    }
}

pub fn remove(parent: &str) {
    for at in hierarchies() {
        let _ = fs::remove_dir(within(&at, parent));
        // The last pod takes the parent of all along.
        let _ = fs::remove_dir(at.join("kubepods"));
    }
}

/// The cgroups in `parent`, which are its containers'.
pub fn below(parent: &str) -> Vec<PathBuf> {
    let found = hierarchies().into_iter().filter_map(|at| fs::read_dir(within(&at, parent)).ok());
    found.flatten().filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// What `file` of the hierarchy `controller` (v1) or of the only one holds, for cgroup `path`.
pub fn read(controller: &str, path: &str, file: &str) -> String {
    let at = if is_v2() { PathBuf::from(ROOT) } else { Path::new(ROOT).join(controller) };
    let file = within(&at, path).join(file);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).trim_end().to_owned()
}

fn within(at: &Path, cgroup: &str) -> PathBuf {
    at.join(cgroup.trim_start_matches('/'))
}
