//! Rules of `linux.sysctl`: only what belongs to one of the container's own namespaces, as in runc. Anything
//! else would be a setting of the host.

use anyhow::Result;

use super::linux::has_namespace;
use super::{keyed, no_nul};
use crate::error::invalid;
use crate::spec::Linux;

const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shm_rmid_forced",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
];

pub(super) fn sysctl(linux: &Linux) -> Result<()> {
    for (key, value) in &linux.sysctl {
        let at = keyed("/linux/sysctl", key);
        no_nul(&at, key)?;
        no_nul(&at, value)?;
        let path = path(key);
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(invalid(
                at,
                format_args!("{key:?} isn't the name of a sysctl, expected one like net.ipv4.ip_forward"),
            ));
        }
        if path == "kernel/hostname" {
            return Err(invalid(at, format_args!("{key:?} conflicts with /hostname, expected the name there")));
        }
        let Some(namespace) = namespace(&path) else {
            return Err(invalid(at, format_args!("{key:?} doesn't belong to a namespace, it would change the host")));
        };
        if !has_namespace(linux, namespace) {
            let what = format!("{key:?} would change the host, expected a {namespace} namespace in /linux/namespaces");
            return Err(invalid(at, what));
        }
    }
    Ok(())
}

/// The namespace that a sysctl belongs to, by the file below /proc/sys.
pub(crate) fn namespace(path: &str) -> Option<&'static str> {
    match path {
        "kernel/domainname" => Some("uts"),
        // Before Linux 6.14 the host's: the container's process looks before it writes.
        "kernel/pid_max" => Some("pid"),
        _ if IPC.contains(&path) || path.starts_with("fs/mqueue/") => Some("ipc"),
        _ if path.starts_with("net/") => Some("network"),
        _ if path.starts_with("user/") => Some("user"),
        _ => None,
    }
}

/// The file below /proc/sys. A name is written with dots or with slashes, whichever comes first separates
/// and the other is part of a name (sysctl.d(5)): "net.ipv4.conf.eno1/100.forwarding" is about eno1.100.
pub(crate) fn path(key: &str) -> String {
    match key.find(['.', '/']).and_then(|at| key.get(at..=at)) {
        Some(".") => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => key.to_owned(),
    }
}
