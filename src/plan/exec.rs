//! What `exec` does, decided: a further process of a container that exists.
//!
//! Everything about the container comes from its config.json as it was at create, never from the bundle.

use anyhow::{Result, bail};

use super::caps;
use super::id_maps::IdMaps;
use super::namespaces::{Kind, Namespaces};
use super::task::{Passed, Task};
use crate::error::invalid;
use crate::host::Host;
use crate::spec::{Capabilities, Process, Spec};

/// A further process, decided.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ExecPlan {
    pub(crate) task: Task,
    /// CLONE_NEW* of the namespaces to join: all that the container doesn't share with the runtime.
    pub(crate) namespaces: i32,
}

/// What the command line changes about the container's own process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    pub(crate) args: Vec<String>,
    pub(crate) terminal: bool,
    pub(crate) cwd: Option<String>,
    pub(crate) env: Vec<String>,
    pub(crate) user: Option<(u32, Option<u32>)>,
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) capabilities: Vec<String>,
    pub(crate) no_new_privileges: Option<bool>,
    pub(crate) apparmor: Option<String>,
    pub(crate) selinux: Option<String>,
}

/// The process to execute: that of a file, or the container's own with changes.
pub(crate) fn process(config: &Spec, file: Option<Process>, changes: Changes) -> Result<Process> {
    let mut own = config.process.clone().unwrap_or_default();
    let Some(mut process) = file else {
        relabel(&mut own, &changes);
        return changed(own, changes);
    };
    // What a process object leaves out is the container's, as in runc.
    if process.rlimits.is_empty() {
        process.rlimits = own.rlimits;
    }
    process.capabilities = process.capabilities.or(own.capabilities);
    process.oom_score_adj = process.oom_score_adj.or(own.oom_score_adj);
    process.user.umask = process.user.umask.or(own.user.umask);
    process.scheduler = process.scheduler.or(own.scheduler);
    process.io_priority = process.io_priority.or(own.io_priority);
    process.exec_cpu_affinity = process.exec_cpu_affinity.or(own.exec_cpu_affinity);
    // Without a label of its own it must not be freer than the container.
    if process.apparmor_profile.is_empty() {
        process.apparmor_profile = own.apparmor_profile;
    }
    if process.selinux_label.is_empty() {
        process.selinux_label = own.selinux_label;
    }
    relabel(&mut process, &changes);
    process.terminal |= changes.terminal;
    if process.args.is_empty() {
        return Err(invalid("/process/args", "args must not be empty"));
    }
    Ok(process)
}

/// The labels of the command line. An empty one asks for nothing, as in runc.
fn relabel(process: &mut Process, changes: &Changes) {
    let given = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
    if let Some(label) = given(&changes.apparmor) {
        process.apparmor_profile = label;
    }
    if let Some(label) = given(&changes.selinux) {
        process.selinux_label = label;
    }
}

fn changed(mut process: Process, changes: Changes) -> Result<Process> {
    if changes.args.is_empty() {
        return Err(anyhow::anyhow!("no command: expected one after the container's name, or --process FILE"));
    }
    process.args = changes.args;
    process.terminal = changes.terminal;
    process.env.extend(changes.env);
    process.no_new_privileges = changes.no_new_privileges.unwrap_or(process.no_new_privileges);
    if let Some(cwd) = changes.cwd {
        process.cwd = cwd;
    }
    if let Some((uid, gid)) = changes.user {
        process.user.uid = uid;
        process.user.gid = gid.unwrap_or(process.user.gid);
    }
    process.user.additional_gids.extend(changes.additional_gids);
    if let Some(what) = changes.capabilities.iter().find_map(|name| caps::unknown_name(name)) {
        bail!("--cap: {what}");
    }
    if !changes.capabilities.is_empty() {
        add(process.capabilities.get_or_insert_default(), &changes.capabilities);
    }
    Ok(process)
}

/// To every set but the inheritable one: a file's inheritable capabilities must not come to life by them (CVE-2022-29162).
/// Ambient are those alone that config.json makes inheritable, as in runc.
fn add(sets: &mut Capabilities, names: &[String]) {
    for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted, &mut sets.ambient] {
        set.extend_from_slice(names);
    }
}

impl ExecPlan {
    /// Decides. Errors name the property.
    pub(crate) fn new(config: &Spec, process: &Process, host: &Host, passed: &Passed) -> Result<Self> {
        let namespaces = Namespaces::new(&config.linux, host.privileged())?;
        IdMaps::of(&config.linux, &namespaces, host).map_or(Ok(()), |maps| maps.check_groups(process))?;
        let flags = Kind::ALL.into_iter().filter(|kind| namespaces.has(*kind));
        Ok(Self {
            task: Task::new(process, &config.linux, &namespaces, host, passed)?,
            namespaces: flags.fold(0, |sum, kind| sum | kind.flag()),
        })
    }

    pub(crate) fn joins(&self, kind: Kind) -> bool {
        self.namespaces & kind.flag() != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Spec {
        let mut spec = Spec::default();
        let process = spec.process.get_or_insert_default();
        process.env = vec!["A=1".into()];
        process.cwd = "/w".into();
        process.user.gid = 7;
        process.no_new_privileges = true;
        process.terminal = true;
        spec
    }

    #[test]
    fn the_command_line_changes_the_containers_process() {
        let changes = Changes {
            args: vec!["x".into()],
            env: vec!["B=2".into()],
            user: Some((5, None)),
            additional_gids: vec![9],
            capabilities: vec!["CAP_KILL".into()],
            ..Changes::default()
        };
        let process = process(&config(), None, changes).unwrap();
        assert_eq!((process.args, process.env), (vec!["x".to_owned()], vec!["A=1".to_owned(), "B=2".to_owned()]));
        assert_eq!((process.user.uid, process.user.gid, process.user.additional_gids), (5, 7, vec![9]));
        assert!(process.no_new_privileges && !process.terminal);
        let sets = process.capabilities.unwrap();
        assert_eq!((sets.permitted.len(), sets.inheritable.len(), sets.ambient.len()), (1, 0, 1));
    }

    #[test]
    fn labels_are_the_containers_unless_others_are_given() {
        let mut spec = config();
        let own = spec.process.get_or_insert_default();
        (own.apparmor_profile, own.selinux_label) = ("own".into(), "o:w:n".into());
        let args = vec!["x".to_owned()];
        let labels = |file: Option<Process>, option: Option<&str>| {
            let option = option.map(str::to_owned);
            let changes =
                Changes { args: args.clone(), apparmor: option.clone(), selinux: option, ..Changes::default() };
            let process = process(&spec, file, changes).unwrap();
            (process.apparmor_profile, process.selinux_label)
        };
        let file = |label: &str| {
            let (apparmor_profile, selinux_label) = (label.to_owned(), label.to_owned());
            Some(Process { args: args.clone(), apparmor_profile, selinux_label, ..Process::default() })
        };
        let both = |label: &str| (label.to_owned(), label.to_owned());
        let inherited = ("own".to_owned(), "o:w:n".to_owned());
        assert_eq!(labels(None, None), inherited);
        assert_eq!(labels(None, Some("")), inherited);
        assert_eq!(labels(None, Some("cli")), both("cli"));
        assert_eq!(labels(file(""), None), inherited);
        assert_eq!(labels(file("file"), None), both("file"));
        assert_eq!(labels(file("file"), Some("cli")), both("cli"));
    }

    #[test]
    fn a_command_is_needed() {
        assert!(process(&config(), None, Changes::default()).is_err());
        assert!(process(&config(), Some(Process::default()), Changes::default()).is_err());
    }

    #[test]
    fn a_file_stands_for_itself_but_for_what_it_leaves_out() {
        let mut spec = config();
        if let Some(own) = &mut spec.process {
            own.oom_score_adj = Some(100);
        }
        let file = Process { args: vec!["x".into()], ..Process::default() };
        let process = process(&spec, Some(file), Changes::default()).unwrap();
        assert_eq!((process.env.len(), process.oom_score_adj, process.no_new_privileges), (0, Some(100), false));
    }
}
