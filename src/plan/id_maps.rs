//! The id maps of a new user namespace: their lines, and who may write them (user_namespaces(7), "Defining user and group
//! ID mappings").

use anyhow::Result;

use super::namespaces::{Kind, Namespaces};
use super::options::words;
use crate::error::invalid;
use crate::host::{CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN, Host};
use crate::spec::{IdMapping, Linux, Mount, Process};

/// Both maps of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdMaps {
    pub(crate) uid: IdMap,
    pub(crate) gid: IdMap,
    /// Whether setgroups(2) must be given up before the gid map may be written.
    pub(crate) deny_setgroups: bool,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdMap {
    /// The lines of the file.
    pub(crate) lines: String,
    pub(crate) writer: Writer,
}

/// Who writes a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writer {
    /// The runtime: it has the capability, or maps nothing but its own id.
    Runtime,
    /// newuidmap(1) or newgidmap(1), for ids that /etc/subuid or /etc/subgid gives to the user.
    Helper,
}

impl IdMaps {
    pub(crate) fn new(uids: &[IdMapping], gids: &[IdMapping], host: &Host) -> Self {
        let map = |mappings: &[IdMapping], own: u32, capability: u64| {
            let single = matches!(mappings, [only] if only.size == 1 && only.host_id == own);
            let runtime = single || host.capabilities & capability != 0;
            let line = |m: &IdMapping| format!("{} {} {}\n", m.container_id, m.host_id, m.size);
            IdMap {
                lines: mappings.iter().map(line).collect(),
                writer: if runtime { Writer::Runtime } else { Writer::Helper },
            }
        };
        let gid = map(gids, host.egid, CAP_SETGID);
        Self {
            uid: map(uids, host.euid, CAP_SETUID),
            // The helper decides by itself: it denies it for an own group alone (CVE-2018-7169).
            deny_setgroups: gid.writer == Writer::Runtime && host.capabilities & CAP_SETGID == 0,
            gid,
        }
    }

    /// Of the container's user namespace, if one is made.
    pub(crate) fn of(linux: &Linux, namespaces: &Namespaces, host: &Host) -> Option<Self> {
        namespaces.makes(Kind::User).then(|| Self::new(&linux.uid_mappings, &linux.gid_mappings, host))
    }

    /// With setgroups(2) given up nobody in the namespace can have further groups.
    pub(crate) fn check_groups(&self, process: &Process) -> Result<()> {
        if self.deny_setgroups && !process.user.additional_gids.is_empty() {
            let what = "cannot set additional groups with rootless single mapping: an ordinary user who maps his own \
                        group alone gives up setgroups(2), expected none, or gids of /etc/subgid in /linux/gidMappings";
            return Err(invalid("/process/user/additionalGids", what));
        }
        Ok(())
    }
}

/// Without CAP_SYS_ADMIN only a user namespace gives the right to anything of a container.
pub(crate) fn check_rights(linux: &Linux, namespaces: &Namespaces, host: &Host) -> Result<()> {
    if host.capabilities & CAP_SYS_ADMIN != 0 || namespaces.has(Kind::User) {
        return Ok(());
    }
    if host.euid == 0 && linux.namespaces.is_empty() {
        return Ok(());
    }
    let who = if host.euid == 0 { "root without CAP_SYS_ADMIN" } else { "an ordinary user" };
    let what = format!(
        "rootless container requires user namespaces: {who} needs one with uidMappings and gidMappings (`tare spec \
         --rootless` writes them)"
    );
    Err(invalid("/linux/namespaces", what))
}

/// The ids of a file system's options are those of the user namespace that it is mounted in: the group 5 that engines give
/// a devpts need not be mapped there.
pub(crate) fn check_options(mount: &Mount, pointer: &str, linux: &Linux) -> Result<()> {
    if !["devpts", "tmpfs"].contains(&mount.kind.as_str()) {
        return Ok(());
    }
    let options = mount.options.iter().enumerate();
    for (index, option) in options.flat_map(|(index, option)| words(option).map(move |word| (index, word))) {
        let (mappings, id) = match option.split_once('=') {
            Some(("uid", id)) => (&linux.uid_mappings, id),
            Some(("gid", id)) => (&linux.gid_mappings, id),
            _ => continue,
        };
        if let Ok(id) = id.parse::<u32>()
            && !is_mapped(id, mappings)
        {
            let what = format!(
                "{option:?}: {id} is not mapped in the container's user namespace, expected none or a mapped id"
            );
            return Err(invalid(format!("{pointer}/options/{index}"), what));
        }
    }
    Ok(())
}

/// Whether a user namespace with these mappings knows an id.
pub(crate) fn is_mapped(id: u32, mappings: &[IdMapping]) -> bool {
    mappings.iter().any(|m| id.checked_sub(m.container_id).is_some_and(|offset| offset < m.size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Namespace;

    fn maps(capabilities: u64, mappings: &[(u32, u32, u32)]) -> IdMaps {
        let mappings: Vec<IdMapping> = mappings
            .iter()
            .map(|(container_id, host_id, size)| IdMapping {
                container_id: *container_id,
                host_id: *host_id,
                size: *size,
            })
            .collect();
        IdMaps::new(&mappings, &mappings, &Host { euid: 1000, egid: 1000, capabilities, ..Host::default() })
    }

    #[test]
    fn an_own_id_alone_is_mapped_without_help_and_without_groups() {
        let maps = maps(0, &[(0, 1000, 1)]);
        assert_eq!((maps.uid.writer, maps.gid.writer), (Writer::Runtime, Writer::Runtime));
        assert!(maps.deny_setgroups);
        assert_eq!(maps.uid.lines, "0 1000 1\n");
    }

    #[test]
    fn other_ids_take_the_helpers() {
        for mappings in [&[(0, 1000, 1), (1, 100_000, 65_535)][..], &[(0, 100_000, 1)], &[(0, 1000, 2)]] {
            let maps = maps(0, mappings);
            assert_eq!((maps.uid.writer, maps.gid.writer), (Writer::Helper, Writer::Helper), "{mappings:?}");
            assert!(!maps.deny_setgroups);
        }
    }

    #[test]
    fn the_capabilities_decide_and_not_the_user() {
        let maps = maps(CAP_SETUID | CAP_SETGID, &[(0, 100_000, 65_536)]);
        assert_eq!((maps.uid.writer, maps.gid.writer), (Writer::Runtime, Writer::Runtime));
        assert!(!maps.deny_setgroups);
    }

    #[test]
    fn groups_need_setgroups() {
        let mut process = Process::default();
        let (single, helped) = (maps(0, &[(0, 1000, 1)]), maps(0, &[(0, 100_000, 10)]));
        assert!(single.check_groups(&process).is_ok());
        process.user.additional_gids = vec![5];
        assert!(single.check_groups(&process).unwrap_err().to_string().contains("/process/user/additionalGids"));
        assert!(helped.check_groups(&process).is_ok());
    }

    #[test]
    fn without_rights_a_user_namespace_is_needed() {
        let check = |capabilities, euid, kinds: &[&str]| {
            let namespaces = kinds.iter().map(|kind| Namespace { kind: (*kind).into(), path: None }).collect();
            let linux = Linux { namespaces, ..Linux::default() };
            let host = Host { euid, capabilities, ..Host::default() };
            check_rights(&linux, &Namespaces::new(&linux, false).unwrap(), &host)
        };
        assert!(check(0, 1000, &["mount", "user"]).is_ok());
        assert!(check(CAP_SYS_ADMIN, 0, &["mount"]).is_ok());
        assert!(check(0, 1000, &["mount"]).unwrap_err().to_string().contains("an ordinary user"));
        assert!(check(0, 0, &["mount"]).unwrap_err().to_string().contains("CAP_SYS_ADMIN"));
    }
}
