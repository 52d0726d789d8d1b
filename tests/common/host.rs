//! The host as the tests see it: mounts, cgroup hierarchies, processes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The mounts of this mount namespace.
pub fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

/// The mount points of the cgroup hierarchies, v1 and v2.
pub fn hierarchies() -> Vec<PathBuf> {
    let is_cgroup = |line: &&str| line.contains(" - cgroup ") || line.contains(" - cgroup2 ");
    mounts().lines().filter(is_cgroup).filter_map(|line| Some(PathBuf::from(line.split(' ').nth(4)?))).collect()
}

/// The folder of a v1 controller's hierarchy, if the host has it.
pub fn v1(controller: &str) -> Option<PathBuf> {
    let has = |line: &&str| line.contains(" - cgroup ") && line.rsplit(',').any(|word| word == controller);
    mounts().lines().find(has).map(|line| PathBuf::from(line.split(' ').nth(4).unwrap()))
}

/// Whether the host can limit with a controller, by v1 or v2.
pub fn has_controller(name: &str) -> bool {
    let v2 = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    v1(name).is_some() || v2.split_whitespace().any(|other| other == name)
}

/// The lines of a /proc/PID/cgroup whose hierarchy is mounted and must hold the container: each v1 one, or v2's alone.
pub fn mounted_lines(text: &str) -> Vec<String> {
    let any_v1 = mounts().contains(" - cgroup ");
    let held = |line: &&str| match line.split(':').nth(1) {
        Some("") | None => !any_v1,
        Some(names) => names.split(',').any(|name| v1(name).is_some()),
    };
    text.lines().filter(held).map(str::to_owned).collect()
}

/// The folders of a cgroup that exist, one a hierarchy.
pub fn cgroups(path: &str) -> Vec<PathBuf> {
    hierarchies().into_iter().map(|root| root.join(path.trim_start_matches('/'))).filter(|dir| dir.exists()).collect()
}

/// The processes in a cgroup, in whichever hierarchy, with those of the cgroups below it.
pub fn cgroup_pids(path: &str) -> Vec<i32> {
    let mut pids: Vec<i32> = cgroups(path).iter().flat_map(|dir| folders(dir)).flat_map(|dir| pids_of(&dir)).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn pids_of(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// A folder and those below it, the deepest first.
fn folders(dir: &Path) -> Vec<PathBuf> {
    let below = fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    let mut all: Vec<_> = below.flat_map(|entry| folders(&entry.path())).collect();
    all.push(dir.to_owned());
    all
}

/// Kills what is in a cgroup and removes it from every hierarchy.
pub fn remove_cgroup(path: &str) {
    cgroup_pids(path).into_iter().for_each(kill);
    for _ in 0..200 {
        let dirs = cgroups(path);
        if dirs.is_empty() {
            return;
        }
        dirs.iter().flat_map(|dir| folders(dir)).for_each(|dir| drop(fs::remove_dir(dir)));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// The same for every cgroup at the top whose name starts so: those of containers without a `cgroupsPath`.
pub fn remove_cgroups_named(prefix: &str) {
    let entries = hierarchies().into_iter().filter_map(|root| fs::read_dir(root).ok()).flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    for name in names.filter(|name| name.starts_with(prefix)) {
        remove_cgroup(&format!("/{name}"));
    }
}

/// The processes, zombies apart, whose command line or environment has a text.
pub fn processes(text: &str) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| *pid != i32::try_from(std::process::id()).unwrap())
        .filter(|pid| {
            ["cmdline", "environ"].iter().any(|file| {
                let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                String::from_utf8_lossy(&bytes).contains(text)
            })
        })
        .collect()
}

pub fn kill_processes(text: &str) {
    processes(text).into_iter().for_each(kill);
}

/// The children of a process of one thread.
pub fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

pub fn kill(pid: i32) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
}

/// The letter of a process's state, if there is such a process.
pub fn process_state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The CPU time of a process so far.
pub fn cpu_time(pid: i32) -> std::time::Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    std::time::Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// A namespace of a process, as `pid:[4026531836]`.
pub fn namespace(pid: &str, name: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap().to_string_lossy().into_owned()
}

/// Whether a program is installed.
pub fn installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|dir| Path::new(dir).join(program).exists())
}

/// Whether nobody has a file open for writing: it can be leased then (fcntl(2)).
#[allow(unsafe_code)]
pub fn nobody_writes(path: &Path) -> bool {
    use std::os::fd::AsRawFd;
    let file = fs::File::open(path).unwrap();
    // SAFETY: three numbers; the lease ends with the descriptor.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) == 0 }
}
