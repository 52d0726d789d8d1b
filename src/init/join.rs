//! `exec`, inside: into the container's namespaces, and on to the program. The mirror of [`crate::launch::exec`].

use std::cell::RefCell;
use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result};
use nix::errno::Errno;

use super::identity::Hidden;
use super::paths::Root;
use super::{identity, task, terminal};
use crate::host::Hiding;
use crate::lsm::Attributes;
use crate::plan::exec::ExecPlan;
use crate::plan::namespaces::Kind;
use crate::sync::{Barrier, Inside};
use crate::sys::clone::{Cloned, clone_process, setns};
use crate::sys::fs::{CWD, openat2};
use crate::sys::{self, Context, process};

/// A plan and every descriptor that carrying it out takes.
#[derive(Debug)]
pub(crate) struct PreparedExec {
    pub(crate) plan: ExecPlan,
    /// What is joined.
    pub(crate) container: Namespaces,
    /// The root of a container that has no mount namespace.
    pub(crate) root: Option<OwnedFd>,
    /// Where the terminal goes; taken by the process that sends it.
    pub(crate) console: RefCell<Option<OwnedFd>>,
    /// The host's procfs, if labels are to be written; taken and closed by the final process.
    pub(crate) proc: RefCell<Option<OwnedFd>>,
    /// Whether a pid namespace is joined, which takes a bridge: what is born in it is seen in it at once, so everything else
    /// is joined before (CVE-2016-9962).
    pub(crate) bridge: bool,
    /// Whether the outside has something to do to the complete process.
    pub(crate) meets: bool,
}

impl PreparedExec {
    /// Whether the outside has something to do before the process joins the container: with a bridge that is the OOM score
    /// alone, as the process behind it waits for the rest.
    pub(crate) fn waits_before_it_joins(&self) -> bool {
        !self.bridge || self.plan.task.limits.oom_score_adj.is_some()
    }

    /// What the process that goes in holds, beside its end of the channel and what it takes.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let own = self.root.iter().map(AsFd::as_fd);
        self.container.descriptors().into_iter().chain(own).collect()
    }
}

/// The namespaces of a container's init, to be joined.
#[derive(Debug)]
pub(crate) enum Namespaces {
    /// All at once, by its pidfd (setns(2), Linux 5.8).
    Pidfd(OwnedFd),
    /// One by one, where pidfd_open(2) can't be made, by their files of /proc/PID/ns.
    Files(Vec<(Kind, OwnedFd)>),
}

impl Namespaces {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Pidfd(pidfd) => vec![pidfd.as_fd()],
            Self::Files(files) => files.iter().map(|(_, file)| file.as_fd()).collect(),
        }
    }

    /// Joins those of `flags`, CLONE_NEW*.
    pub(crate) fn join(&self, flags: i32) -> sys::Result<()> {
        let files = match self {
            Self::Pidfd(pidfd) => return setns(pidfd.as_fd(), flags),
            Self::Files(files) => files.iter().filter(|(kind, _)| kind.flag() & flags != 0),
        };
        // With the rights of the present user namespace as far as they go (the container may share namespaces that aren't
        // its own), and the rest with those of the container's.
        let (user, others): (Vec<_>, Vec<_>) = files.partition(|(kind, _)| *kind == Kind::User);
        let mut left = Vec::new();
        for (kind, file) in others {
            match setns(file.as_fd(), kind.flag()) {
                Err(error) if error.errno() == Errno::EPERM && !user.is_empty() => left.push((kind, file)),
                joined => joined?,
            }
        }
        user.iter()
            .map(|(kind, file)| (kind, file))
            .chain(left)
            .try_for_each(|(kind, file)| setns(file.as_fd(), kind.flag()))
    }
}

/// The first thing in the clone. A pid namespace takes effect for children only: then this process is a bridge, which
/// makes the final one as its sibling and ends.
pub(crate) fn enter(prepared: &PreparedExec, outside: &Inside) -> ! {
    sys::environment::wipe();
    let result = (|| -> Result<()> {
        if !prepared.bridge {
            // Before it goes in: what is the host's is given up as early as can be.
            let labels = open_labels(prepared)?;
            join(prepared, outside)?;
            let Err(error) = become_program(prepared, labels, outside);
            return Err(error);
        }
        join(prepared, outside)?;
        match clone_process(libc::CLONE_PARENT as u64)? {
            Cloned::Child => {
                // The bridge says who this is before this says anything.
                outside.wait(Barrier::Go)?;
                let Err(error) = become_program(prepared, open_labels(prepared)?, outside);
                Err(error)
            }
            Cloned::Parent { pid, pidfd } => outside.process(pid, pidfd.as_fd()),
        }
    })();
    if let Err(error) = &result {
        // If nobody listens any more, nobody is to be told.
        let _ = outside.fail(&format!("{error:#}"));
    }
    sys::exit(i32::from(result.is_err()))
}

fn join(prepared: &PreparedExec, outside: &Inside) -> Result<()> {
    if prepared.waits_before_it_joins() {
        outside.wait(Barrier::Go)?;
    }
    let namespaces = prepared.plan.namespaces;
    if prepared.plan.task.hiding == Hiding::WhenStarted {
        // Nothing in the container may look into this process while it still holds what is the host's (CVE-2016-9962).
        process::set_dumpable(false)?;
    }
    if namespaces != 0 {
        prepared.container.join(namespaces).context("join the container's namespaces")?;
    }
    if let Some(root) = &prepared.root {
        nix::unistd::fchdir(root).call("fchdir", "container root")?;
        nix::unistd::chroot(".").call("chroot", "container root")?;
    }
    if prepared.plan.joins(Kind::User) {
        identity::become_root(Hidden::Yes).context("user namespace")?;
    }
    Ok(())
}

/// In the final process: the kernel takes labels from who has opened the files.
fn open_labels(prepared: &PreparedExec) -> Result<Attributes> {
    let it = &prepared.plan.task;
    Attributes::open(prepared.proc.take(), &it.labels, it.identity.no_new_privileges)
}

fn become_program(prepared: &PreparedExec, labels: Attributes, outside: &Inside) -> Result<Infallible> {
    let it = &prepared.plan.task;
    process::setsid()?;
    if let (Some(size), Some(socket)) = (&it.terminal, prepared.console.take()) {
        let root = Root::new(openat2(CWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0, 0)?);
        terminal::set_up(&root, size, it.identity.uid, socket, false).context("terminal")?;
    }
    let mut ready = task::assume(it, labels, outside, false, Hidden::Yes)?;
    if prepared.meets {
        outside.meet(Barrier::Ready)?;
    }
    ready.listener = None;
    task::execute(it, &mut ready, outside, || outside.starting())
}
