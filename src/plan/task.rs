//! One process of a container: the program that `create` or `exec` ends in, and who it is.

use std::ffi::CString;
use std::path::PathBuf;

use anyhow::Result;

use super::id_maps::is_mapped;
use super::labels::{self, Labels};
use super::namespaces::{Kind, Namespaces};
use super::program::Program;
use super::{c_string, caps, limits};
use crate::error::invalid;
use crate::host::{Hiding, Host};
use crate::seccomp;
use crate::spec::{self, ConsoleSize, IdMapping};

/// Everything about the process that isn't about the container.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Task {
    pub(crate) program: Program,
    pub(crate) identity: Identity,
    pub(crate) limits: Limits,
    pub(crate) labels: Labels,
    pub(crate) seccomp: Option<seccomp::Filter>,
    /// Who gets the listener of the filter, if that notifies.
    pub(crate) listener: Option<Listener>,
    /// Name of the session keyring.
    pub(crate) keyring: Option<CString>,
    /// Whether it is made, and not one that the container has.
    pub(crate) new_keyring: bool,
    pub(crate) terminal: Option<ConsoleSize>,
    /// Whether it runs on the CPUs that it was started on (`execCPUAffinity.initial`), and not on all of its cpuset's.
    pub(crate) keeps_affinity: bool,
    /// Whose standard streams it has.
    pub(crate) streams: Streams,
    /// Descriptors of the caller's that it keeps.
    pub(crate) preserved: Vec<i32>,
    /// Signals that the caller ignores, to be reset for the program.
    pub(crate) ignored_signals: u64,
    /// Whether it runs in a user namespace that the runtime isn't in.
    pub(crate) user_namespace: bool,
    pub(crate) hiding: Hiding,
}

impl Task {
    /// Whether something is to be done to the complete process that it can't do itself: its terminal is handed over, or
    /// the host's rights are needed.
    pub(crate) fn needs_the_outside(&self) -> bool {
        let limits = &self.limits;
        let of_user_namespace = self.user_namespace && !limits.rlimits.is_empty();
        self.terminal.is_some()
            || self.listener.is_some()
            || of_user_namespace
            || limits.scheduler.is_some()
            || limits.io_priority.is_some()
    }
}

/// An agent that decides about system calls (config-linux.md, "Seccomp").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Of a listening unix stream socket on the host: absolute, or @ and an abstract name.
    pub(crate) path: PathBuf,
    /// For the agent alone to understand.
    pub(crate) metadata: String,
}

/// Whose the standard streams are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Streams {
    /// Given away with the container: its user is to own them, as in runc.
    #[default]
    Containers,
    /// Of a command in the foreground: what else has a name on the host stays its owner's. runc passes pipes of its own.
    Callers,
}

/// What the command line says about it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Passed {
    /// The session keyring to make or join; none keeps the caller's.
    pub(crate) keyring: Option<String>,
    pub(crate) new_keyring: bool,
    /// Descriptors of the caller's, all above 2, that it keeps.
    pub(crate) preserved: Vec<i32>,
    /// Variables that the runtime adds: `LISTEN_FDS` and its kin when they are meant for this process, `NOTIFY_SOCKET`.
    pub(crate) environment: Vec<String>,
    /// Whether the program is to find its own pid in `LISTEN_PID`.
    pub(crate) listens: bool,
    pub(crate) streams: Streams,
    pub(crate) labels: labels::Options,
}

/// Who the program is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    /// None: it is so already.
    pub(crate) umask: Option<u32>,
    pub(crate) capabilities: caps::Masks,
    /// What may be in the bounding set when it is reduced: entering a user namespace fills it (user_namespaces(7)).
    pub(crate) bounding: u64,
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

impl Task {
    /// Decides. Errors name the property.
    pub(crate) fn new(
        process: &spec::Process,
        linux: &spec::Linux,
        namespaces: &Namespaces,
        host: &Host,
        passed: &Passed,
    ) -> Result<Self> {
        let seccomp = linux.seccomp.as_ref().map(compile).transpose()?;
        let notifies = linux.seccomp.as_ref().filter(|_| seccomp.as_ref().is_some_and(seccomp::Filter::notifies));
        let listener = notifies.map(|profile| Listener {
            path: profile.listener_path.clone().into(),
            metadata: profile.listener_metadata.clone(),
        });
        let keyring = passed.keyring.as_ref().map(|name| c_string(name.as_str(), "ID"));
        Ok(Self {
            program: Program { listens: passed.listens, ..Program::new(process, &passed.environment)? },
            identity: identity(process, linux, namespaces, host)?,
            limits: limits(process, linux)?,
            labels: Labels::new(process, host.modules, passed.labels)?,
            seccomp,
            listener,
            keyring: keyring.transpose()?,
            new_keyring: passed.new_keyring,
            terminal: process.terminal.then(|| process.console_size.clone().unwrap_or_default()),
            keeps_affinity: false,
            streams: passed.streams,
            preserved: passed.preserved.clone(),
            ignored_signals: host.ignored_signals,
            user_namespace: namespaces.has(Kind::User),
            hiding: host.hiding(),
        })
    }
}

fn compile(profile: &spec::Seccomp) -> Result<seccomp::Filter> {
    let (filter, notes) = seccomp::compile(profile)?;
    for note in notes {
        log::debug!("{note}");
    }
    Ok(filter)
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
    let sets = process.capabilities.as_ref();
    if let Some((set, i, name)) = sets.and_then(|sets| caps::first_of(host.missing_capabilities, sets)) {
        let pointer = format!("/process/capabilities/{set}/{i}");
        return Err(invalid(pointer, format_args!("{name} is newer than this kernel, expected one that it has")));
    }
    Ok(Identity {
        uid: user.uid,
        gid: user.gid,
        groups: user.additional_gids.clone(),
        umask: Some(limits::umask(user)).filter(|umask| host.umask != Some(*umask)),
        // Without the property there are none, as with an empty one.
        capabilities: process.capabilities.as_ref().map(caps::masks).unwrap_or_default(),
        bounding: host.bounding.filter(|_| !namespaces.has(Kind::User)).unwrap_or(u64::MAX),
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
    if is_mapped(id, mappings) {
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
    fn ids_outside_the_map_are_named() {
        let map = [IdMapping { container_id: 10, host_id: 1000, size: 5 }];
        for (id, fine) in [(9, false), (10, true), (14, true), (15, false)] {
            assert_eq!(mapped(id, &map, "/process/user/uid").is_ok(), fine, "{id}");
        }
    }
}
