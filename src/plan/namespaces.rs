//! Which namespaces are made and which are joined, by whom, and in which order.
//!
//! One rule decides on the extra process ("bridge"): some joins take effect, or are permitted, only *before* the final
//! clone. A pid namespace takes effect for children only; a user namespace must own the pid namespace made with it (or
//! /proc can't be mounted); and once inside a new user namespace the right to join others is gone.

use std::path::PathBuf;

use crate::error::invalid;
use crate::spec::{Linux, Spec};

/// The kinds of namespaces(7), with the names of config.json.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    User,
    Pid,
    Network,
    Ipc,
    Uts,
    Mount,
    Cgroup,
    Time,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] =
        [Self::User, Self::Pid, Self::Network, Self::Ipc, Self::Uts, Self::Mount, Self::Cgroup, Self::Time];

    /// As config.json calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Pid => "pid",
            Self::Network => "network",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Mount => "mount",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }

    /// The CLONE_NEW* flag.
    pub(crate) fn flag(self) -> i32 {
        match self {
            Self::User => libc::CLONE_NEWUSER,
            Self::Pid => libc::CLONE_NEWPID,
            Self::Network => libc::CLONE_NEWNET,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Uts => libc::CLONE_NEWUTS,
            Self::Mount => libc::CLONE_NEWNS,
            Self::Cgroup => libc::CLONE_NEWCGROUP,
            Self::Time => libc::CLONE_NEWTIME,
        }
    }

    /// As /proc/PID/ns calls it.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Network => "net",
            Self::Mount => "mnt",
            other => other.name(),
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A namespace to join by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Join {
    pub(crate) kind: Kind,
    pub(crate) path: PathBuf,
    /// The property that asks for it.
    pub(crate) pointer: String,
}

/// The container's namespaces. What is neither made nor joined is the caller's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Namespaces {
    /// CLONE_NEW* of all that are made.
    pub(crate) new: i32,
    /// In the order to join them.
    pub(crate) joins: Vec<Join>,
    /// CLONE_NEW* of those among them that are the caller's own.
    pub(crate) callers: i32,
}

impl Namespaces {
    /// `privileged`: joining with the rights of the host first, the user namespace last. An unprivileged caller gets
    /// the right to join the others only from the user namespace.
    pub(crate) fn new(linux: &Linux, privileged: bool) -> anyhow::Result<Self> {
        let mut namespaces = Self::default();
        for (index, namespace) in linux.namespaces.iter().enumerate() {
            let pointer = format!("/linux/namespaces/{index}");
            let Some(kind) = Kind::parse(&namespace.kind) else {
                return Err(invalid(format!("{pointer}/type"), format!("{:?} is not a namespace", namespace.kind)));
            };
            match namespace.joined() {
                Some(path) => {
                    let pointer = format!("{pointer}/path");
                    namespaces.joins.push(Join { kind, path: path.to_owned(), pointer });
                }
                None => namespaces.new |= kind.flag(),
            }
        }
        namespaces.joins.sort_by_key(|join| (join.kind == Kind::User) == privileged);
        Ok(namespaces)
    }

    pub(crate) fn makes(&self, kind: Kind) -> bool {
        self.new & kind.flag() != 0
    }

    pub(crate) fn joins(&self, kind: Kind) -> bool {
        self.joins.iter().any(|join| join.kind == kind)
    }

    /// Made or joined.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.makes(kind) || self.joins(kind)
    }

    /// Made, or joined and not the caller's: what is done to it isn't done to the caller's.
    pub(crate) fn own(&self, kind: Kind) -> bool {
        self.has(kind) && self.callers & kind.flag() == 0
    }

    /// What would be changed of the caller's own namespaces: each is refused, as its sysctls are.
    pub(crate) fn check_callers(&self, spec: &Spec) -> anyhow::Result<()> {
        for join in self.joins.iter().filter(|join| self.callers & join.kind.flag() != 0) {
            let names = [("/hostname", &spec.hostname), ("/domainname", &spec.domainname)];
            match (join.kind, names.into_iter().find(|(_, name)| !name.is_empty())) {
                (Kind::Uts, Some((pointer, name))) => {
                    let what = format!("{name:?} not allowed in host uts namespace, which {:?} is", join.path);
                    return Err(invalid(pointer, what));
                }
                (Kind::Mount, _) => {
                    let what = format!("{:?} is the host's mount namespace: its root would be changed", join.path);
                    return Err(invalid(&join.pointer, what));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether an intermediate process must do the joins and make the final clone.
    pub(crate) fn bridge(&self) -> bool {
        self.joins(Kind::Pid)
            || (self.joins(Kind::User) && self.makes(Kind::Pid))
            || (self.makes(Kind::User) && !self.joins.is_empty())
    }

    /// Flags of the final clone. The rest is unshared afterwards: by then the process is in its cgroup (the root of its
    /// cgroup namespace), and the ids of a user namespace are mapped (or /dev/mqueue would belong to nobody). What is made by
    /// the clone is the runtime's memory: of the container's limit it would take 100 KiB, of which no program has any use.
    pub(crate) fn clone_flags(&self) -> u64 {
        u64::from(self.cloned().cast_unsigned())
    }

    fn cloned(&self) -> i32 {
        let first = libc::CLONE_NEWUSER | libc::CLONE_NEWPID;
        let others = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        self.new & if self.has(Kind::User) || self.bridge() { first } else { first | others }
    }

    /// Flags of the unshare after the clone; the time namespace has a step of its own.
    pub(crate) fn unshare_flags(&self) -> i32 {
        self.new & !(self.cloned() | libc::CLONE_NEWTIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Namespace;

    fn namespaces(list: &[(&str, Option<&str>)], privileged: bool) -> Namespaces {
        let namespaces =
            list.iter().map(|(kind, path)| Namespace { kind: (*kind).into(), path: path.map(Into::into) }).collect();
        Namespaces::new(&Linux { namespaces, ..Linux::default() }, privileged).unwrap()
    }

    #[test]
    fn only_new_namespaces_need_one_clone() {
        let all = namespaces(&[("pid", None), ("mount", None), ("network", None), ("time", None)], true);
        assert!(!all.bridge());
        assert_eq!(all.clone_flags(), (libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWNET) as u64);
        assert_eq!(all.unshare_flags(), 0);
        let cgroup = namespaces(&[("uts", None), ("cgroup", None)], true);
        assert_eq!(
            cgroup.unshare_flags(),
            libc::CLONE_NEWCGROUP,
            "before it is in its cgroup it would have another root"
        );
        let user = namespaces(&[("user", None), ("ipc", None)], true);
        assert_eq!(user.clone_flags(), libc::CLONE_NEWUSER as u64);
        assert_eq!(user.unshare_flags(), libc::CLONE_NEWIPC);
        assert!(namespaces(&[("user", None), ("pid", None)], true).clone_flags() & libc::CLONE_NEWUSER as u64 != 0);
    }

    #[test]
    fn a_bridge_is_needed_where_the_final_clone_comes_too_late() {
        for (list, bridge) in [
            (vec![("pid", Some("/p"))], true),
            (vec![("network", Some("/p")), ("pid", None)], false),
            (vec![("user", Some("/p")), ("pid", None)], true),
            (vec![("user", Some("/p"))], false),
            (vec![("user", None), ("network", Some("/p"))], true),
            (vec![("user", None), ("network", None)], false),
        ] {
            assert_eq!(namespaces(&list, true).bridge(), bridge, "{list:?}");
        }
    }

    #[test]
    fn the_user_namespace_is_joined_last_with_rights_and_first_without() {
        let list = [("user", Some("/u")), ("network", Some("/n")), ("ipc", Some("/i"))];
        let order = |privileged| namespaces(&list, privileged).joins.iter().map(|j| j.kind).collect::<Vec<_>>();
        assert_eq!(order(true), [Kind::Network, Kind::Ipc, Kind::User]);
        assert_eq!(order(false), [Kind::User, Kind::Network, Kind::Ipc]);
    }

    #[test]
    fn what_is_the_callers_is_not_the_containers_own() {
        let flags = Kind::Cgroup.flag();
        let joined = Namespaces { callers: flags, ..namespaces(&[("cgroup", Some("/c")), ("ipc", Some("/i"))], true) };
        assert!(
            joined.has(Kind::Cgroup) && !joined.own(Kind::Cgroup) && joined.own(Kind::Ipc) && !joined.own(Kind::Uts)
        );
    }

    #[test]
    fn an_empty_path_is_a_new_namespace() {
        assert!(namespaces(&[("uts", Some(""))], true).makes(Kind::Uts));
    }
}
