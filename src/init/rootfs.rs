//! The container's file system, built by the plan's steps. Runs inside, in the container's mount namespace.
//!
//! Everything is attached at the root file system's place on the host first (hooks look there), then the root of the
//! process is changed.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::stat::SFlag;

use super::attributes;
use super::dev::{self, Nodes};
use super::mount::{self, Around, BindTree, Late};
use super::paths::{Links, Root, Slot, kind};
use crate::error::invalid;
use crate::host::in_user_namespace;
use crate::launch::prepare::Source;
use crate::plan::mounts::{MountStep, Pivot, Rootfs, What, clean};
use crate::plan::options::{Attrs, attr};
use crate::sync::Inside;
use crate::sys::mount::{self as api, Link, Tree};
use crate::sys::{self, Context, fs::CWD};

/// The built file system: its root, and what is still to be closed off.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) root: Root,
    late: Vec<Late>,
    null: Null,
}

/// The null device that masks files. One that the container may change must not be the host's: its mode and owner would be.
#[derive(Debug)]
enum Null {
    /// The container's own node, just made on a tmpfs of its own.
    Own,
    /// The host's, as a detached mount, read-only.
    Hosts(OwnedFd),
    /// Nothing is masked, or the kernel has no open_tree(2) or mount_setattr(2).
    None,
}

impl Built {
    /// Closes all that it took.
    pub(crate) fn close(self) {
        let Self { root, late, null } = self;
        let null = if let Null::Hosts(null) = null { Some(null) } else { None };
        late.into_iter().map(OwnedFd::from).chain(null).for_each(|fd| root.done(fd));
    }
}

/// Makes the root a mount of its own and carries out the steps.
///
/// `sources`: of each step; `outside` opens what has to wait for the steps before.
pub(crate) fn build(plan: &Rootfs, sources: &[Source], outside: &Inside) -> Result<Built> {
    if plan.pivot == Pivot::Chroot {
        let flags = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(&plan.path, flags, nix::sys::stat::Mode::empty()).call("open", &plan.path)?;
        let built = Built { root: Root::new(fd), late: Vec::new(), null: Null::None };
        dev::populate(&built.root, plan)?;
        return Ok(built);
    }
    let mut root = attach_root(plan)?;
    root.prepare_for(plan.steps.len());
    if plan.steps.iter().any(|step| matches!(step.what, What::Remount { .. })) {
        root.expect_remounts();
    }
    let own_null = plan.own_dev && plan.nodes.iter().any(|node| node.path == "/dev/null" && !node.bind);
    let tmpfs = plan.steps.iter().any(|step| {
        step.destination == "/dev" && matches!(&step.what, What::FileSystem(fs) if fs.kind.as_c_str() == c"tmpfs")
    });
    // Before anything of the container is in the way: the host's own device, verified.
    let mut null = if plan.masked.is_empty() || own_null && tmpfs { Null::None } else { host_null()? };
    let mut late = Vec::new();
    let around = Around::of(plan);
    for (index, (step, source)) in plan.steps.iter().zip(sources).enumerate() {
        let fetched;
        let tree = match source {
            Source::Inside => BindTree::Inside,
            Source::Early(tree) => BindTree::Early(tree),
            Source::Late => {
                fetched = outside.source(index)?;
                fetched.as_ref().map_or(BindTree::Inside, BindTree::Late)
            }
        };
        late.extend(mount::step(&mut root, step, tree, around)?);
    }
    let nodes = dev::populate(&root, plan)?;
    if !plan.masked.is_empty() && own_null && tmpfs {
        // Something else may have come to be on /dev since, and the host's nodes.
        let own = root.ours("/dev").is_some() && nodes == Nodes::Planned;
        null = if own { Null::Own } else { host_null()? };
    }
    Ok(Built { root, late, null })
}

/// Gives "/" its propagation and binds the root file system onto itself.
fn attach_root(plan: &Rootfs) -> Result<Root> {
    let first = plan.first_propagation();
    api::mount(None, c"/", None, first.ms_flags(), None).context("propagation of \"/\"")?;
    let path = CString::new(plan.path.as_os_str().as_encoded_bytes())?;
    if !first.cuts_off() {
        make_parent_private(&path)?;
    }
    let missing = |error: sys::Error| {
        if error.errno() == Errno::ENOENT {
            return invalid("/root/path", format!("{:?}: no such file or directory (ENOENT)", plan.path));
        }
        let denied = error.errno() == Errno::EACCES;
        let error = anyhow::Error::from(error);
        // The sources of bind mounts are opened outside, but this path is mounted on, which takes reaching it inside.
        let error = if denied && in_user_namespace() { error.context(UNREACHABLE) } else { error };
        error.context("config.json: /root/path")
    };
    match api::open_tree(CWD, &path, Tree::Recursive) {
        Ok(tree) => {
            // A path of the host's, and the same one twice: links on the way are the caller's business.
            api::move_mount_following(tree.as_fd(), &path)?;
            Ok(Root::new(tree))
        }
        Err(error) if error.errno() == Errno::ENOSYS => {
            api::mount(Some(&path), &path, None, libc::MS_BIND | libc::MS_REC, None)?;
            Ok(Root::new(sys::fs::openat2(CWD, &path, libc::O_PATH | libc::O_DIRECTORY, 0, 0)?))
        }
        Err(error) => Err(missing(error)),
    }
}

const UNREACHABLE: &str = "root of the container's user namespace must be able to reach it: each directory on the way needs to be searchable by it";

/// What is mounted on a shared mount comes to be on the host's, too; and pivot_root(2) refuses a new root whose parent
/// mount is shared. The root is bound onto itself, so its parent is what is mounted on its own path (an engine's overlay),
/// or the next mount upwards. It is found by trying each directory from there up, whatever names and links led to the
/// first: the kernel says EINVAL for what isn't a mount point, and no mount table is read.
fn make_parent_private(path: &CStr) -> Result<()> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let mut directory = sys::fs::openat2(CWD, path, flags, 0, 0).context("config.json: /root/path")?;
    loop {
        match make_private(directory.as_fd()) {
            Err(error) if error.errno() == Errno::EINVAL => {}
            result => return Ok(result?),
        }
        let above = sys::fs::openat2(directory.as_fd(), c"..", flags, 0, 0)?;
        let id = |fd: &OwnedFd| nix::sys::stat::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).call("fstat", path);
        if id(&above)? == id(&directory)? {
            anyhow::bail!("config.json: /root/path: no mount point is above it that could be made private");
        }
        directory = above;
    }
}

fn make_private(mount: BorrowedFd<'_>) -> sys::Result<()> {
    match api::mount_setattr(mount, Tree::One, 0, 0, libc::MS_PRIVATE) {
        Err(error) if error.errno() == Errno::ENOSYS => {
            api::mount(None, &attributes::by_fd(mount), None, libc::MS_PRIVATE, None)
        }
        result => result,
    }
}

/// What covers masked files is the host's null device by number, not whatever an image calls /dev/null
/// (CVE-2025-31133). Read-only, so that whoever may write to the mask doesn't own or permit the host's device.
fn host_null() -> Result<Null> {
    match api::open_tree_nofollow(CWD, c"/dev/null", Tree::One) {
        Err(error) if error.errno() == Errno::ENOSYS => Ok(Null::None),
        tree => {
            let tree = tree?;
            verify_null(&tree)?;
            match api::mount_setattr(tree.as_fd(), Tree::One, attr::RDONLY, 0, 0) {
                Err(error) if error.errno() == Errno::ENOSYS => Ok(Null::None),
                done => Ok(done.map(|()| Null::Hosts(tree))?),
            }
        }
    }
}

fn verify_null(null: &OwnedFd) -> Result<()> {
    let stat = nix::sys::stat::fstat(null).call("fstat", "/dev/null")?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != libc::makedev(1, 3) {
        anyhow::bail!("/dev/null is not the null device: masked paths can't be covered with it");
    }
    Ok(())
}

/// Changes the root of the process. The old root is gone afterwards.
pub(crate) fn enter(built: &Built, plan: &Rootfs) -> Result<()> {
    nix::unistd::fchdir(&built.root).call("fchdir", &plan.path)?;
    match plan.pivot {
        // The current directory is the new root's all the while (pivot_root(2)).
        Pivot::Root => return pivot(plan),
        Pivot::Move => move_root()?,
        Pivot::Chroot => nix::unistd::chroot(".").call("chroot", &plan.path)?,
    }
    Ok(nix::unistd::chdir("/").call("chdir", "/")?)
}

/// pivot_root(2) onto itself leaves the old root on top of the new one, and `.` below both: unmounting `.` takes the old
/// root off.
fn pivot(plan: &Rootfs) -> Result<()> {
    if plan.first_propagation().cuts_off() {
        api::pivot_root_here()?;
    } else {
        // The host's mounts in the old root may still be peers of the host's own: unmounting them would reach the host.
        let old = sys::fs::openat2(CWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0, 0)?;
        api::pivot_root_here()?;
        nix::unistd::fchdir(&old).call("fchdir", "old root")?;
        api::mount(None, c".", None, libc::MS_SLAVE | libc::MS_REC, None)?;
        api::umount2(c".", libc::MNT_DETACH)?;
        return Ok(nix::unistd::chdir("/").call("chdir", "/")?);
    }
    Ok(api::umount2(c".", libc::MNT_DETACH)?)
}

/// `--no-pivot`: the host's mounts stay in the namespace below the new root, so the file systems that control the host
/// are taken out of it first (runc: msMoveRoot). None of them is a peer of the host's own any more
/// ([`Rootfs::first_propagation`]). This is the one place that reads the mount table.
fn move_root() -> Result<()> {
    let own = nix::unistd::getcwd().call("getcwd", "root file system")?;
    let table = std::fs::read("/proc/self/mountinfo").call("read", "/proc/self/mountinfo")?;
    let points: Vec<PathBuf> =
        table.split(|byte| *byte == b'\n').rev().filter_map(|line| control_mount(line, &own)).collect();
    for point in points {
        let point = CString::new(point.into_os_string().into_vec())?;
        match api::umount2(&point, libc::MNT_DETACH) {
            Err(error) if matches!(error.errno(), Errno::EINVAL | Errno::EPERM) => {
                // Locked or busy: cover it.
                api::mount(Some(c"tmpfs"), &point, Some(c"tmpfs"), libc::MS_RDONLY, None)?;
            }
            result => result?,
        }
    }
    api::mount(Some(c"."), c"/", None, libc::MS_MOVE, None)?;
    nix::unistd::chroot(".").call("chroot", ".")?;
    Ok(())
}

/// The mount point of a line of mountinfo that is a whole proc or sysfs outside the container.
fn control_mount(line: &[u8], own: &Path) -> Option<PathBuf> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let kind: &[u8] = fields.get(dash + 1)?;
    let control = *fields.get(3)? == b"/" && [&b"proc"[..], b"sysfs"].contains(&kind);
    let point = api::unescape(fields.get(4)?);
    (control && !point.starts_with(own)).then_some(point)
}

/// Closes off what the container may not see or write. The last step: mount points and nodes were made before.
///
/// What is mounted later doesn't uncover what was mounted earlier: a read-only path is a copy of all that is there by then,
/// and masks come after those. `hooks`: whether some have run that may have mounted something.
pub(crate) fn seal(built: &mut Built, plan: &Rootfs, hooks: Hooks) -> Result<()> {
    for late in &built.late {
        late.make_readonly().context("read-only tmpfs")?;
    }
    if hooks == Hooks::Some {
        built.root.forget();
    }
    let mut readonly = plan.readonly;
    for (index, path) in once(&plan.readonly_paths) {
        let what = || format!("config.json: /linux/readonlyPaths/{index}: {path:?}");
        let clean = clean(path);
        // On a new mount of the kernel's, to which no link has led, nothing else is below than what is named so.
        let below = |step: &MountStep| Path::new(&step.destination).starts_with(&clean);
        let kernels = ["/proc/", "/sys/"].iter().any(|kernels| clean.starts_with(kernels));
        let empty = kernels && !built.root.strayed() && !plan.steps.iter().any(below);
        let tree = if empty { Tree::One } else { Tree::Recursive };
        match make_readonly(&built.root, &clean, tree).with_context(what)? {
            Sealed::Nothing => {}
            // The copy covers what is known below it: masks and read-only paths there belong on the copy.
            Sealed::Below | Sealed::Place => built.root.mounted(&clean, None),
            Sealed::Root => readonly = true,
        }
    }
    lay_masks(built, plan)?;
    if readonly {
        let attrs = Attrs { set: attr::RDONLY, clear: 0 };
        attributes::set_attrs(built.root.as_fd(), Tree::One, attrs).context("config.json: /root/readonly")?;
    }
    if plan.pivot != Pivot::Chroot && [libc::MS_SHARED, libc::MS_UNBINDABLE].contains(&plan.propagation.kind) {
        // The root was made private on the way here; and what is unbindable can't be covered by a bind of itself.
        attributes::propagate(built.root.as_fd(), &[plan.propagation])
            .context("config.json: /linux/rootfsPropagation")?;
    }
    let unbindable = plan.steps.iter().filter(|step| !step.late_unbindable.is_empty());
    unbindable.into_iter().try_for_each(|step| make_unbindable(&built.root, step))
}

fn lay_masks(built: &Built, plan: &Rootfs) -> Result<()> {
    let mut masks = Masks { null: &built.null, empty: None, label: plan.mount_label.as_deref() };
    for (index, path) in once(&plan.masked) {
        masks.cover(&built.root, path).with_context(|| format!("config.json: /linux/maskedPaths/{index}: {path:?}"))?;
    }
    masks.empty.into_iter().for_each(|fd| built.root.done(fd));
    Ok(())
}

/// Each path once, with its place in the list.
fn once(paths: &[String]) -> impl Iterator<Item = (usize, &String)> {
    let is_new = move |(index, path): &(usize, &String)| {
        let earlier = paths.get(..*index).unwrap_or_default();
        !earlier.iter().any(|other| other.trim_end_matches('/') == path.trim_end_matches('/'))
    };
    paths.iter().enumerate().filter(is_new)
}

/// A copy leaves out what is unbindable: for a read-only path that would uncover what is below it. What has been covered
/// since needs nothing: nobody sees it.
fn make_unbindable(root: &Root, step: &MountStep) -> Result<()> {
    let what = || format!("{}: propagation of {:?}", step.asked_by(), step.destination);
    let Some(mount) = root.find(&step.destination).with_context(what)? else { return Ok(()) };
    match attributes::propagate(mount.as_fd(), &step.late_unbindable) {
        Err(error) if error.errno() == Errno::EINVAL => Ok(()),
        done => done.with_context(what),
    }
}

/// Whether hooks have run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hooks {
    None,
    Some,
}

/// Where a path that was made read-only is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sealed {
    /// There is none.
    Nothing,
    /// Directly below a file system that is known.
    Below,
    /// Somewhere else.
    Place,
    /// It is the root itself, which can't be covered: it is still to be made read-only.
    Root,
}

/// A path made read-only with everything else of it kept: a bind of itself. What isn't there needs nothing.
///
/// `tree`: one mount if nothing was mounted below it and it is on a new mount of the kernel's.
fn make_readonly(root: &Root, path: &str, tree: Tree) -> Result<Sealed> {
    let Some(slot) = root.slot(path)? else { return Ok(Sealed::Nothing) };
    let sealed = match slot {
        Slot::Root(_) => return Ok(Sealed::Root),
        Slot::Below(..) => Sealed::Below,
        Slot::Handle(_) => Sealed::Place,
    };
    let attrs = Attrs { set: attr::RDONLY, clear: 0 };
    let (dir, name) = slot.at();
    if tree == Tree::One && sealed == Sealed::Below {
        match api::open_tree_attr(dir, name, Link::Refuse, attr::RDONLY, 0, 0) {
            Ok(tree) => match mount::attach(tree.as_fd(), &slot) {
                Err(error) if error.errno() == Errno::ENOSYS => {}
                attached => {
                    root.done(tree);
                    return Ok(attached.map(|()| sealed)?);
                }
            },
            Err(error) if error.errno() == Errno::ENOENT => return Ok(Sealed::Nothing),
            // Before Linux 6.15, or in a sandbox: in two steps.
            Err(_) => {}
        }
    }
    match api::open_tree_nofollow(dir, name, Tree::Recursive) {
        Ok(tree) => {
            mount::attach_with(tree.as_fd(), &slot, attrs, Attrs::default())?;
            root.done(tree);
            root.done_with(slot);
        }
        Err(error) if error.errno() == Errno::ENOENT => return Ok(Sealed::Nothing),
        Err(error) if error.errno() == Errno::ENOSYS => {
            let Some(_) = root.find(path)? else { return Ok(Sealed::Nothing) };
            api::mount(Some(&slot.path()), &slot.path(), None, libc::MS_BIND | libc::MS_REC, None)?;
            let mounted = root.open(path, libc::O_PATH, Links::Follow)?;
            attributes::set_attrs(mounted.as_fd(), Tree::One, attrs)?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(sealed)
}

/// What masked paths are covered with: one null device and one empty directory, however many paths there are (one
/// superblock a mask costs Kubernetes nodes dearly: runc#5275).
struct Masks<'a> {
    null: &'a Null,
    /// Attached somewhere.
    empty: Option<OwnedFd>,
    /// Of SELinux, for the empty directory.
    label: Option<&'a CStr>,
}

impl Masks<'_> {
    /// What is there is looked at before: a copy that finds no place is unmounted when it is closed, for which the kernel
    /// waits for a grace period.
    fn cover(&mut self, root: &Root, path: &str) -> Result<()> {
        let path = clean(path);
        let Some(slot) = root.slot(&path)? else { return Ok(()) };
        if matches!(slot, Slot::Root(_)) {
            anyhow::bail!("a link leads from there to the root itself, which can't be masked");
        }
        match slot.kind()? {
            None => return Ok(()),
            Some(SFlag::S_IFDIR) => self.cover_directory(root, &slot)?,
            Some(_) => match self.copy_of_null(root, &slot)? {
                None => return mask_by_mount2(root, &path, &slot, self.label),
                Some(copy) => {
                    mount::attach(copy.as_fd(), &slot)?;
                    root.done(copy);
                }
            },
        }
        root.done_with(slot);
        Ok(())
    }

    /// `None` where the kernel lacks what it takes.
    fn copy_of_null(&self, root: &Root, slot: &Slot<'_>) -> Result<Option<OwnedFd>> {
        let copy = match (self.null, root.ours_or_covered("/dev")) {
            (Null::Own, Some(dev)) => api::open_tree_nofollow(dev, c"null", Tree::One),
            (Null::Hosts(null), _) => match api::open_tree(null.as_fd(), c"", Tree::One) {
                // Linux before 6.15 can't copy a detached mount: the original itself is attached first, and copied from
                // there ever after.
                Err(error) if error.errno() == Errno::EINVAL => null.try_clone().call("dup", slot.path()),
                copy => copy,
            },
            _ => return Ok(None),
        };
        match copy {
            Err(error) if error.errno() == Errno::ENOSYS => Ok(None),
            copy => Ok(Some(copy?)),
        }
    }

    fn cover_directory(&mut self, root: &Root, slot: &Slot<'_>) -> sys::Result<()> {
        if let Some(empty) = &self.empty {
            let copy = match api::open_tree(empty.as_fd(), c"", Tree::One) {
                Err(error) if error.errno() == Errno::ENOSYS => return empty_by_mount2(slot, self.label),
                copy => copy?,
            };
            mount::attach(copy.as_fd(), slot)?;
            root.done(copy);
            return Ok(());
        }
        let empty = match self.new_empty(root) {
            Err(error) if error.errno() == Errno::ENOSYS => return empty_by_mount2(slot, self.label),
            made => made?,
        };
        mount::attach(empty.as_fd(), slot)?;
        self.empty = Some(empty);
        Ok(())
    }

    fn new_empty(&self, root: &Root) -> sys::Result<OwnedFd> {
        let context = api::fsopen(c"tmpfs")?;
        api::fsconfig_set(context.as_fd(), c"nr_inodes", Some(c"1"))?;
        if let Some(label) = self.label {
            api::fsconfig_set(context.as_fd(), c"context", Some(label))?;
        }
        api::fsconfig_create(context.as_fd())?;
        let empty = api::fsmount(context.as_fd(), attr::RDONLY)?;
        root.done(context);
        Ok(empty)
    }
}

/// For kernels and sandboxes without open_tree(2). The container's /dev/null is one that this process made, or one
/// that is refused: it must be the null device.
fn mask_by_mount2(root: &Root, path: &str, slot: &Slot<'_>, label: Option<&CStr>) -> Result<()> {
    let Some(target) = root.find(path)? else { return Ok(()) };
    if kind(target.as_fd())? == SFlag::S_IFDIR {
        return Ok(empty_by_mount2(slot, label)?);
    }
    let null = root.open("/dev/null", libc::O_PATH | libc::O_NOFOLLOW, Links::Follow)?;
    verify_null(&null)?;
    Ok(api::mount(Some(&Slot::Handle(null).path()), &slot.path(), None, libc::MS_BIND, None)?)
}

fn empty_by_mount2(slot: &Slot<'_>, label: Option<&CStr>) -> sys::Result<()> {
    let context = label.map(|label| format!(",context=\"{}\"", label.to_string_lossy())).unwrap_or_default();
    let data = CString::new(format!("nr_inodes=1{context}")).unwrap_or_default();
    api::mount(Some(c"tmpfs"), &slot.path(), Some(c"tmpfs"), libc::MS_RDONLY, Some(&data))
}
