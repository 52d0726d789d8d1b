//! Opens, in the caller's namespaces, every descriptor that a plan takes.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat, stat};

use super::idmapped;
use crate::error::{Invalid, invalid};
use crate::init::mount::{missing_source, open_source};
use crate::plan::Plan;
use crate::plan::mounts::{MountStep, Rootfs, Sources, What};
use crate::plan::namespaces::{Join, Kind};
use crate::plan::options::{Bind, Propagation, Reach};
use crate::spec::Linux;
use crate::spec::validate::sysctl;
use crate::sync::{self, Namespaces};
use crate::sys::clone::{Cloned, clone_process, wait};
use crate::sys::mount::{Tree, mount_setattr};
use crate::sys::process::{self, Limit};
use crate::sys::{self, Context as _};

/// The namespaces to join, each verified to be of its kind.
pub(crate) fn joins(plan: &Plan) -> Result<Vec<OwnedFd>> {
    let open = |join| {
        let namespace = open_namespace(join)?;
        keep_own_sysctls(plan, join, &namespace)?;
        Ok(namespace)
    };
    plan.namespaces.joins.iter().map(open).collect()
}

/// The namespaces that config.json names by a path and that this process is in already, as CLONE_NEW* flags. For a mount
/// namespace that of the first process counts, too.
pub(crate) fn callers_namespaces(linux: &Linux) -> i32 {
    let id = |path: &Path| stat(path).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    let mut flags = 0;
    for namespace in &linux.namespaces {
        let (Some(path), Some(kind)) = (namespace.joined(), Kind::parse(&namespace.kind)) else { continue };
        let Some(joined) = id(path) else { continue };
        let of = |process: &str| id(Path::new(&format!("/proc/{process}/ns/{}", kind.file()))) == Some(joined);
        if of("self") || kind == Kind::Mount && of("1") {
            flags |= kind.flag();
        }
    }
    flags
}

/// A sysctl is a setting of the container. Engines name the host's namespace by a path, too (`docker run --network
/// host`), and there it would be one of the host.
fn keep_own_sysctls(plan: &Plan, join: &Join, namespace: &OwnedFd) -> Result<()> {
    let name = join.kind.name();
    let Some((path, _)) = plan.sysctl.iter().find(|(path, _)| sysctl::namespace(path) == Some(name)) else {
        return Ok(());
    };
    let own = format!("/proc/self/ns/{}", join.kind.file());
    let (own, joined) = (stat(own.as_str()).call("stat", &own)?, fstat(namespace).call("fstat", &join.path)?);
    if (own.st_dev, own.st_ino) == (joined.st_dev, joined.st_ino) {
        // runc's words.
        let what = format!("sysctl {path:?} not allowed in host {name} namespace, which {:?} is", join.path);
        return Err(invalid("/linux/sysctl", what));
    }
    Ok(())
}

fn open_namespace(join: &Join) -> Result<OwnedFd> {
    let wrong = |what: String| invalid(&join.pointer, format!("{:?}: {what}", join.path));
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let lower = |errno: Errno| format!("{} ({errno:?})", sys::words(errno));
    let fd = nix::fcntl::openat(sys::fs::CWD, &join.path, flags, Mode::empty()).map_err(|errno| wrong(lower(errno)))?;
    let Ok(kind) = sys::clone::ns_get_nstype(fd.as_fd()) else {
        return Err(wrong("not a namespace".into()));
    };
    if kind != join.kind.flag() {
        let is = Kind::ALL.into_iter().find(|other| other.flag() == kind).map_or("other", Kind::name);
        return Err(wrong(format!("expected a {} namespace, this is a {is} namespace", join.kind.name())));
    }
    Ok(fd)
}

/// The source of a step that is a bind mount.
#[derive(Debug)]
pub(crate) enum Source {
    /// The container's process opens it, or there is none.
    Inside,
    Early(OwnedFd),
    /// It is asked for when its turn comes: it lies on the container's file system, on which earlier steps mount, or there
    /// are too many to have them all open, or the kernel locks what a user namespace must not change of it only if it is
    /// copied in the container's mount namespace.
    Late,
}

/// The sources of all steps.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    pub(crate) sources: Vec<Source>,
    /// What RLIMIT_NOFILE was, if it had to be raised.
    pub(crate) limit: Option<Limit>,
}

impl Opened {
    /// The trees that are open.
    pub(crate) fn trees(&self) -> impl Iterator<Item = &OwnedFd> {
        self.sources.iter().filter_map(|source| if let Source::Early(tree) = source { Some(tree) } else { None })
    }
}

/// Trees of the bind mounts, by step: all of them where root of the user namespace may not reach them, else those whose
/// ids are to be mapped, which takes rights that only the outside has.
pub(crate) fn sources(plan: &Plan) -> Result<Opened> {
    match plan.rootfs.sources {
        // A copy made in the caller's mount namespace has none of the locks that root of a user namespace must not undo:
        // on flags such as "ro", and on what is mounted below (mount_namespaces(7)).
        Sources::Outside if plan.namespaces.has(Kind::User) => {
            let late = |step: &MountStep| match step.what {
                What::Bind { .. } => Source::Late,
                _ => Source::Inside,
            };
            Ok(Opened { sources: plan.rootfs.steps.iter().map(late).collect(), limit: None })
        }
        Sources::Outside => open_some(&plan.rootfs, propagation(plan.rootfs.propagation, false), |_| true),
        Sources::Inside | Sources::AsCaller => {
            open_some(&plan.rootfs, propagation(plan.rootfs.propagation, false), MountStep::is_idmapped)
        }
    }
}

/// Opened by whoever calls it, with the rights of this moment, and attached inside, in a user namespace.
pub(crate) fn open_sources(rootfs: &Rootfs) -> Result<Opened> {
    open_some(rootfs, propagation(rootfs.propagation, true), |_| true)
}

fn open_some(rootfs: &Rootfs, propagation: u64, wanted: impl Fn(&MountStep) -> bool) -> Result<Opened> {
    let mut opened = Opened { sources: Vec::with_capacity(rootfs.steps.len()), limit: None };
    let mut room = Room::new();
    let mut own = Own { path: &rootfs.path, device: None };
    for (index, step) in rootfs.steps.iter().enumerate() {
        let source = match &step.what {
            What::Bind { .. } if wanted(step) && room.is_full(&mut opened.limit)? => Source::Late,
            What::Bind { source: path, .. } if wanted(step) => match source(step, propagation) {
                // What isn't there may be on an earlier mount.
                Err(error) if index > 0 && error.is::<Invalid>() && own.may_have(path) => Source::Late,
                Err(error) => return Err(error),
                Ok(Some(tree)) if index > 0 && own.has(&tree, path)? => Source::Late,
                Ok(Some(tree)) => {
                    room.last = tree.as_raw_fd();
                    Source::Early(tree)
                }
                Ok(None) => Source::Inside,
            },
            _ => Source::Inside,
        };
        opened.sources.push(source);
    }
    Ok(opened)
}

/// The container's file system on the host, on which its mounts are made.
struct Own<'a> {
    path: &'a Path,
    /// Of stat(2), when it was needed.
    device: Option<u64>,
}

impl Own<'_> {
    /// Whether an open source lies on it. One look at its device is enough for most.
    fn has(&mut self, source: &OwnedFd, path: &CStr) -> Result<bool> {
        let device = match self.device {
            Some(device) => device,
            None => *self.device.insert(stat(self.path).call("stat", self.path)?.st_dev),
        };
        Ok(fstat(source).call("fstat", path)?.st_dev == device && self.may_have(path))
    }

    /// Whether a source would lie on it, if it was there.
    fn may_have(&self, path: &CStr) -> bool {
        std::fs::canonicalize(self.path).is_ok_and(|real| lies_below(path, &real))
    }
}

/// Whether a path, as far as it is there, leads below a directory.
fn lies_below(path: &CStr, directory: &Path) -> bool {
    let path = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
    path.ancestors().find_map(|path| std::fs::canonicalize(path).ok()).is_some_and(|real| real.starts_with(directory))
}

/// How many descriptors may yet be opened (getrlimit(2), RLIMIT_NOFILE).
struct Room {
    /// The highest descriptor of a source.
    last: i32,
    /// From here on the limit is looked at; then the highest number that is left to sources.
    most: i32,
    looked: bool,
}

impl Room {
    fn new() -> Self {
        Self { last: 0, most: 24, looked: false }
    }

    /// Raises the soft limit to the hard one before sources take more than a quarter of it.
    fn is_full(&mut self, old: &mut Option<Limit>) -> Result<bool> {
        if self.last >= self.most && !self.looked {
            let limit = process::open_files()?;
            if limit.soft < limit.hard && process::set_open_files(Limit { soft: limit.hard, ..limit }).is_ok() {
                *old = Some(limit);
            }
            let most = if old.is_some() { limit.hard } else { limit.soft } / 4;
            self.most = i32::try_from(most).unwrap_or(i32::MAX);
            self.looked = true;
        }
        Ok(self.last >= self.most)
    }
}

/// Opens the source of a step as the container's mounts are now, in a process of its own, and answers the container's
/// process itself. Where the runtime has no rights over the mounts but in the container's user namespace it goes there.
pub(super) fn open_late(plan: &Plan, outside: BorrowedFd<'_>, index: usize, namespaces: &Namespaces) -> Result<()> {
    match clone_process(0)? {
        Cloned::Parent { pid, .. } => Ok(wait(pid).map(drop)?),
        Cloned::Child => {
            sys::fs::close_all_but(3, &[outside, namespaces.mount.as_fd(), namespaces.user.as_fd()]);
            let answered = sync::answer(outside, late_source(plan, index, namespaces));
            sys::exit(i32::from(answered.is_err()))
        }
    }
}

/// `None` where the kernel lacks open_tree(2): the container's process binds the source by mount(2).
fn late_source(plan: &Plan, index: usize, namespaces: &Namespaces) -> Result<Option<OwnedFd>> {
    // Nothing of the container may look into this process.
    process::set_dumpable(false)?;
    let step = plan.rootfs.steps.get(index).context("internal error: no such step")?;
    let What::Bind { source, tree, idmap, .. } = &step.what else { anyhow::bail!("internal error: not a bind mount") };
    let mapping = idmap.as_ref().map(|idmap| idmapped::namespace(idmap, &namespaces.user, step)).transpose()?;
    if plan.rootfs.sources == Sources::AsCaller {
        match sys::clone::setns(namespaces.user.as_fd(), libc::CLONE_NEWUSER) {
            // It is in there already.
            Err(error) if error.errno() == Errno::EINVAL => {}
            joined => joined?,
        }
    }
    sys::clone::setns(namespaces.mount.as_fd(), libc::CLONE_NEWNS)?;
    // The file system of a source may let it wait for ever, and a change of rights has reset this.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).call("prctl", "PR_SET_PDEATHSIG")?;
    let reach = if *tree == Bind::Tree { Tree::Recursive } else { Tree::One };
    let opened = match open_source(source, reach) {
        Err(error) if error.errno() == Errno::ENOSYS && idmap.is_some() => return Err(idmapped::lacking(step, &error)),
        Err(error) if error.errno() == Errno::ENOSYS => return Ok(None),
        opened => opened.map_err(|error| match missing_source(step, source, reach, error) {
            error if error.is::<Invalid>() => error,
            error => error.context(step.asked_by()),
        })?,
    };
    if let Some(mapping) = mapping {
        idmapped::map_one(plan, step, &opened, mapping.as_fd())?;
    }
    Ok(Some(opened))
}

fn source(step: &MountStep, propagation: u64) -> Result<Option<OwnedFd>> {
    let What::Bind { source, tree, idmap, .. } = &step.what else { return Ok(None) };
    let error = match open_tree(source, *tree, propagation) {
        Ok(tree) => return Ok(Some(tree)),
        Err(error) => error,
    };
    match error.errno() {
        Errno::ENOENT => Err(invalid(format!("{}/source", step.pointer), format!("bind source {source:?}: {error}"))),
        Errno::ENOSYS if idmap.is_some() => Err(idmapped::lacking(step, &error)),
        // Before Linux 5.12, and in sandboxes, it is left to root of the user namespace.
        Errno::ENOSYS => Ok(None),
        // open_tree(2) takes CAP_SYS_ADMIN in the user namespace that owns the mounts.
        Errno::EPERM if idmap.is_some() => {
            Err(invalid(&step.pointer, format!("mapping ids takes CAP_SYS_ADMIN on the host: {error}")))
        }
        _ => {
            let reach = if *tree == Bind::Tree { Tree::Recursive } else { Tree::One };
            Err(missing_source(step, source, reach, error).context(step.asked_by()))
        }
    }
}

/// What a tree would be in the container's mount namespace, as one of MS_*, or 0: as it is. A copy of a host mount that
/// is a peer of the host's would carry the container's mounts out: unless that was asked for, it becomes a slave. The
/// kernel allows nothing else in a user namespace.
fn propagation(root: Propagation, user_namespace: bool) -> u64 {
    match (root.kind, root.reach) {
        (libc::MS_SHARED, _) if !user_namespace => 0,
        (libc::MS_PRIVATE | libc::MS_UNBINDABLE, Reach::Tree) => libc::MS_PRIVATE,
        _ => libc::MS_SLAVE,
    }
}

fn open_tree(source: &CString, tree: Bind, propagation: u64) -> sys::Result<OwnedFd> {
    let fd = open_source(source, if tree == Bind::Tree { Tree::Recursive } else { Tree::One })?;
    if propagation != 0 {
        mount_setattr(fd.as_fd(), Tree::Recursive, 0, 0, propagation)?;
    }
    Ok(fd)
}
