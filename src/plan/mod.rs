//! What to do: everything that can be decided is decided here, before the first side effect, by a pure function of what
//! was asked ([`Spec`], [`Request`]) and where ([`Host`]).
//!
//! After this stage no property of config.json is looked at again: `launch` and `init` carry out what the plan holds.
//! The container process inherits the plan with the clone, so nothing is parsed twice or sent.

pub(crate) mod caps;
pub(crate) mod limits;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod options;
pub(crate) mod program;

use std::ffi::CString;
use std::path::PathBuf;

use anyhow::Result;

use crate::cgroup::{self, Manager};
use crate::error::invalid;
use crate::host::Host;
use crate::seccomp;
use crate::spec::{self, ConsoleSize, Hooks, IdMapping, Spec};
use mounts::Rootfs;
use namespaces::{Kind, Namespaces};
use program::Program;

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
    pub(crate) no_new_keyring: bool,
    /// Descriptors from 3 on that the container's process keeps.
    pub(crate) preserve_fds: u32,
    /// `LISTEN_FDS` and `LISTEN_FDNAMES`, when they are meant for this process.
    pub(crate) listen: Vec<String>,
}

/// Everything that creating this container takes, decided.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) namespaces: Namespaces,
    /// The lines of uid_map and gid_map of a new user namespace.
    pub(crate) id_maps: Option<IdMaps>,
    /// The lines of /proc/self/timens_offsets.
    pub(crate) time_offsets: String,
    pub(crate) cgroup: cgroup::Plan,
    pub(crate) rootfs: Rootfs,
    /// Below /proc/sys.
    pub(crate) sysctl: Vec<(String, String)>,
    pub(crate) hostname: String,
    pub(crate) domainname: String,
    pub(crate) identity: Identity,
    pub(crate) limits: Limits,
    pub(crate) seccomp: Option<seccomp::Filter>,
    /// Name of the new session keyring.
    pub(crate) keyring: Option<CString>,
    pub(crate) terminal: Option<ConsoleSize>,
    pub(crate) program: Program,
    pub(crate) hooks: Hooks,
    pub(crate) preserve_fds: u32,
    /// Signals that the caller ignores, to be reset for the program.
    pub(crate) ignored_signals: u64,
}

/// user_namespaces(7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdMaps {
    pub(crate) uid: String,
    pub(crate) gid: String,
    /// Whether setgroups(2) must be given up before the gid map may be written.
    pub(crate) deny_setgroups: bool,
}

/// Who the program is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) umask: u32,
    /// `None` keeps what the runtime has.
    pub(crate) capabilities: Option<caps::Masks>,
    pub(crate) no_new_privileges: bool,
    /// The runtime has these very ids already, and no groups.
    pub(crate) same_ids: bool,
}

/// What is set on the process beside its ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) rlimits: Vec<limits::Limit>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) scheduler: Option<limits::SchedAttr>,
    pub(crate) io_priority: Option<i32>,
    pub(crate) personality: Option<u64>,
}

impl Plan {
    /// Decides. Errors name the property.
    pub(crate) fn new(spec: &Spec, host: &Host, request: &Request) -> Result<Self> {
        let (process, linux) = (spec.process.clone().unwrap_or_default(), &spec.linux);
        let namespaces = Namespaces::new(linux, host.euid == 0)?;
        let seccomp = match &linux.seccomp {
            Some(profile) => {
                let (filter, notes) = seccomp::compile(profile)?;
                for note in notes {
                    log::debug!("{note}");
                }
                Some(filter)
            }
            None => None,
        };
        let mut cgroup =
            cgroup::plan(request.manager, &linux.cgroups_path, &request.id, &linux.resources, &host.cgroups)?;
        cgroup.optional &= request.rootless;
        Ok(Self {
            id: request.id.clone(),
            bundle: request.bundle.clone(),
            id_maps: id_maps(linux, &namespaces, host),
            time_offsets: time_offsets(linux),
            rootfs: Rootfs::new(spec, host, request, &namespaces, &cgroup.location)?,
            cgroup,
            sysctl: sysctl(linux),
            hostname: spec.hostname.clone(),
            domainname: spec.domainname.clone(),
            identity: identity(&process, linux, &namespaces, host)?,
            limits: limits(&process, linux)?,
            seccomp,
            keyring: (!request.no_new_keyring).then(|| c_string(format!("_ses.{}", request.id), "ID")).transpose()?,
            terminal: process.terminal.then(|| process.console_size.clone().unwrap_or_default()),
            program: Program::new(&process, request)?,
            hooks: spec.hooks.clone(),
            preserve_fds: request.preserve_fds,
            ignored_signals: host.ignored_signals,
            namespaces,
        })
    }
}

/// A C string of a property; a NUL byte in it is an error that names the property.
pub(crate) fn c_string(text: impl Into<Vec<u8>>, pointer: &str) -> Result<CString> {
    CString::new(text).map_err(|_| invalid(pointer, "holds a NUL byte"))
}

fn id_maps(linux: &spec::Linux, namespaces: &Namespaces, host: &Host) -> Option<IdMaps> {
    let lines = |mappings: &[IdMapping]| {
        mappings
            .iter()
            .fold(String::new(), |lines, m| lines + &format!("{} {} {}\n", m.container_id, m.host_id, m.size))
    };
    // CAP_SETGID in the parent user namespace is what lifts the need (user_namespaces(7)).
    let cap_setgid = 1 << 6;
    namespaces.makes(Kind::User).then(|| IdMaps {
        uid: lines(&linux.uid_mappings),
        gid: lines(&linux.gid_mappings),
        deny_setgroups: host.capabilities & cap_setgid == 0,
    })
}

fn time_offsets(linux: &spec::Linux) -> String {
    linux
        .time_offsets
        .iter()
        .fold(String::new(), |lines, (clock, offset)| lines + &format!("{clock} {} {}\n", offset.secs, offset.nanosecs))
}

/// Keys with slashes are paths already (an interface name may hold dots); otherwise every dot is a slash.
fn sysctl(linux: &spec::Linux) -> Vec<(String, String)> {
    let path = |key: &str| if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    linux.sysctl.iter().map(|(key, value)| (path(key), value.clone())).collect()
}

fn identity(process: &spec::Process, linux: &spec::Linux, namespaces: &Namespaces, host: &Host) -> Result<Identity> {
    let user = &process.user;
    // Only a map that is made here is known here; the kernel judges the rest.
    if namespaces.makes(Kind::User) {
        mapped(user.uid, &linux.uid_mappings, "/process/user/uid")?;
        mapped(user.gid, &linux.gid_mappings, "/process/user/gid")?;
        for (index, gid) in user.additional_gids.iter().enumerate() {
            mapped(*gid, &linux.gid_mappings, &format!("/process/user/additionalGids/{index}"))?;
        }
    }
    Ok(Identity {
        uid: user.uid,
        gid: user.gid,
        groups: user.additional_gids.clone(),
        umask: limits::umask(user),
        capabilities: process.capabilities.as_ref().map(caps::masks),
        no_new_privileges: process.no_new_privileges,
        same_ids: host.all_root
            && !host.groups
            && user.additional_gids.is_empty()
            && !namespaces.has(Kind::User)
            && user.uid == 0
            && user.gid == 0,
    })
}

fn mapped(id: u32, mappings: &[IdMapping], pointer: &str) -> Result<()> {
    let inside = |m: &IdMapping| id.checked_sub(m.container_id).is_some_and(|offset| offset < m.size);
    if mappings.iter().any(inside) {
        return Ok(());
    }
    Err(invalid(pointer, format!("{id} is not mapped in the container's user namespace")))
}

fn limits(process: &spec::Process, linux: &spec::Linux) -> Result<Limits> {
    Ok(Limits {
        rlimits: limits::rlimits(&process.rlimits)?,
        oom_score_adj: process.oom_score_adj,
        scheduler: process.scheduler.as_ref().map(limits::scheduler).transpose()?,
        io_priority: process.io_priority.as_ref().map(limits::io_priority).transpose()?,
        personality: linux.personality.as_ref().map(limits::personality).transpose()?,
    })
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
    fn ids_outside_the_map_are_named() {
        let map = [IdMapping { container_id: 10, host_id: 1000, size: 5 }];
        for (id, fine) in [(9, false), (10, true), (14, true), (15, false)] {
            assert_eq!(mapped(id, &map, "/process/user/uid").is_ok(), fine, "{id}");
        }
    }

    #[test]
    fn time_offsets_are_lines_of_the_kernel() {
        let mut linux = spec::Linux::default();
        linux.time_offsets.insert("boottime".into(), spec::TimeOffset { secs: -7, nanosecs: 5 });
        assert_eq!(time_offsets(&linux), "boottime -7 5\n");
    }
}
