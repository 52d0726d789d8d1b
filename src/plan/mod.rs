//! What to do: everything that can be decided is decided here, before the first side effect, by a pure function of what
//! was asked ([`Spec`], [`Request`]) and where ([`Host`]).
//!
//! After this stage no property of config.json is looked at again: `launch` and `init` carry out what the plan holds.
//! The container process inherits the plan with the clone, so nothing is parsed twice or sent.

pub(crate) mod caps;
pub(crate) mod cgroup_mounts;
pub(crate) mod exec;
pub(crate) mod id_maps;
pub(crate) mod labels;
pub(crate) mod limits;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod nodes;
pub(crate) mod options;
pub(crate) mod program;
pub(crate) mod task;

use std::ffi::CString;
use std::path::PathBuf;

use anyhow::Result;

use crate::cgroup::{self, Manager};
use crate::error::invalid;
use crate::host::Host;
use crate::spec::{self, Hooks, Spec};
pub(crate) use id_maps::IdMaps;
use mounts::Rootfs;
use namespaces::Namespaces;
use task::{Passed, Task};

/// What the command line asked for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) id: String,
    /// Absolute.
    pub(crate) bundle: PathBuf,
    pub(crate) manager: Manager,
    /// A cgroup that can't be made, and that nothing needs, is forgiven.
    pub(crate) rootless: bool,
    pub(crate) no_pivot: bool,
    /// The folder with the socket by which the container notifies (NOTIFY_SOCKET).
    pub(crate) notify: Option<PathBuf>,
    pub(crate) passed: Passed,
    /// Where the caller may make a cgroup, if config.json doesn't say: a path below the hierarchy's mount, the container's
    /// name last.
    pub(crate) delegated: Option<String>,
}

/// Everything that creating this container takes, decided.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) namespaces: Namespaces,
    /// Of a new user namespace.
    pub(crate) id_maps: Option<IdMaps>,
    /// The lines of /proc/self/timens_offsets.
    pub(crate) time_offsets: String,
    pub(crate) cgroup: cgroup::Plan,
    pub(crate) rootfs: Rootfs,
    /// Below /proc/sys.
    pub(crate) sysctl: Vec<(String, String)>,
    pub(crate) hostname: String,
    pub(crate) domainname: String,
    pub(crate) task: Task,
    pub(crate) hooks: Hooks,
}

impl Plan {
    /// Decides. Errors name the property.
    pub(crate) fn new(spec: &Spec, host: &Host, request: &Request) -> Result<Self> {
        let (process, linux) = (spec.process.clone().unwrap_or_default(), &spec.linux);
        let namespaces = Namespaces { callers: host.callers_namespaces, ..Namespaces::new(linux, host.privileged())? };
        namespaces.check_callers(spec)?;
        id_maps::check_rights(linux, &namespaces, host)?;
        let id_maps = IdMaps::of(linux, &namespaces, host);
        id_maps.as_ref().map_or(Ok(()), |maps| maps.check_groups(&process))?;
        let mut cgroup = match request.manager {
            Manager::Systemd => {
                let asked = cgroup::systemd::Asked {
                    cgroups_path: &linux.cgroups_path,
                    id: &request.id,
                    annotations: &spec.annotations,
                    user: request.rootless.then_some(host.euid),
                };
                cgroup::systemd::plan(asked, &linux.resources, &host.cgroups)?
            }
            manager => {
                let id = request.delegated.as_deref().unwrap_or(&request.id);
                cgroup::plan(manager, &linux.cgroups_path, id, &linux.resources, &host.cgroups)?
            }
        };
        cgroup.give_to(cgroup_mounts::owner(spec, &namespaces, host));
        cgroup.optional &= request.rootless;
        Ok(Self {
            id: request.id.clone(),
            bundle: request.bundle.clone(),
            id_maps,
            time_offsets: time_offsets(linux),
            rootfs: Rootfs::new(spec, host, request, &namespaces, &cgroup.location)?,
            cgroup,
            sysctl: sysctl(linux),
            hostname: spec.hostname.clone(),
            domainname: spec.domainname.clone(),
            task: Task::new(&process, linux, &namespaces, host, &request.passed)?,
            hooks: spec.hooks.clone(),
            namespaces,
        })
    }

    /// Whether the process on its way in writes to proc(5).
    pub(crate) fn writes_to_proc(&self) -> bool {
        !self.sysctl.is_empty() || self.namespaces.makes(namespaces::Kind::Time)
    }
}

/// A C string of a property; a NUL byte in it is an error that names the property.
pub(crate) fn c_string(text: impl Into<Vec<u8>>, pointer: &str) -> Result<CString> {
    CString::new(text).map_err(|_| invalid(pointer, "holds a NUL byte"))
}

fn time_offsets(linux: &spec::Linux) -> String {
    linux
        .time_offsets
        .iter()
        .fold(String::new(), |lines, (clock, offset)| lines + &format!("{clock} {} {}\n", offset.secs, offset.nanosecs))
}

fn sysctl(linux: &spec::Linux) -> Vec<(String, String)> {
    linux.sysctl.iter().map(|(key, value)| (spec::validate::sysctl::path(key), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_keys_become_paths() {
        let mut linux = spec::Linux::default();
        linux.sysctl.insert("net.ipv4.ip_forward".into(), "1".into());
        linux.sysctl.insert("net/ipv4/conf/eno1.100/rp_filter".into(), "2".into());
        let paths: Vec<String> = sysctl(&linux).into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["net/ipv4/ip_forward", "net/ipv4/conf/eno1.100/rp_filter"]);
    }

    #[test]
    fn time_offsets_are_lines_of_the_kernel() {
        let mut linux = spec::Linux::default();
        linux.time_offsets.insert("boottime".into(), spec::TimeOffset { secs: -7, nanosecs: 5 });
        assert_eq!(time_offsets(&linux), "boottime -7 5\n");
    }
}
