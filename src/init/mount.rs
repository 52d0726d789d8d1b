//! Carries out the mounts of a plan, by descriptors, with the mount API of 5.2; mount(2) where the kernel, or a sandbox
//! around the runtime, lacks it. Runs inside, before the root is changed: the host's /proc is still there.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};

use super::attributes::{attributes, by_fd, ms_of, over_locked, propagate, set_attrs};
use super::paths::{Content, Links, PROC_SUPER_MAGIC, Place, Root, Slot, Was, fs_type, kind};
use super::{copyup, dev, overlay};
use crate::error::{Invalid, invalid};
use crate::host::in_user_namespace;
use crate::lsm;
use crate::plan::cgroup_mounts::{CgroupSource, CgroupV1};
use crate::plan::mounts::{Fallback, FileSystem, MountStep, Rootfs, What, is_context};
use crate::plan::options::{Attrs, Bind, Propagation, attr};
use crate::sys::mount::{self as api, Link, Tree};
use crate::sys::{self, Context};

/// A mount that is made read-only when everything else is in place.
#[derive(Debug)]
pub(crate) struct Late(OwnedFd);

/// Whether a mount may come to be on one that is shared, which makes it shared, too: its propagation is settled after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Around {
    Shared,
    NotShared,
}

impl Around {
    pub(crate) fn of(plan: &Rootfs) -> Self {
        let steps = plan.steps.iter().flat_map(|step| &step.propagation);
        let shared = steps.chain([&plan.propagation]).any(|change| change.kind == libc::MS_SHARED);
        // The mounts of the host keep what they are where only the root's propagation is changed.
        let cut = plan.first_propagation().cuts_off();
        if shared || !cut { Self::Shared } else { Self::NotShared }
    }

    /// What is left to change of a new mount's propagation, which is private.
    fn left(self, changes: &[Propagation]) -> &[Propagation] {
        let private = changes.iter().all(|change| change.kind == libc::MS_PRIVATE);
        if self == Self::NotShared && private { &[] } else { changes }
    }
}

/// The tree of a bind mount's source.
#[derive(Debug, Clone, Copy)]
pub(crate) enum BindTree<'a> {
    /// Still to be opened, by this process.
    Inside,
    /// Opened, or id-mapped, outside, before anything was mounted.
    Early(&'a OwnedFd),
    /// Opened with the rights of the outside in this process's mount namespace.
    Late(&'a OwnedFd),
}

/// Carries out one step.
pub(crate) fn step(root: &mut Root, step: &MountStep, source: BindTree<'_>, around: Around) -> Result<Option<Late>> {
    let mounted = match &step.what {
        What::Bind { source: path, tree, asked, .. } => {
            let wanted = Wanted { path, tree: *tree, asked: *asked };
            bind(root, step, &wanted, source, around).map(Some)
        }
        What::FileSystem(fs) => {
            at_once(root, step, fs, around).map(Ok).unwrap_or_else(|| file_system(root, step, fs, around).map(Some))
        }
        What::Remount { flags, data } => remount(root, step, *flags, data.as_deref()).map(Some),
        What::CgroupV1 { tmpfs, hierarchies, links } => cgroup_v1(root, step, tmpfs, hierarchies, links).map(Some),
    };
    let mount = mounted.map_err(|error| match error.is::<Invalid>() {
        // It names its property already.
        true => error,
        false => error.context(format!("{}: mount on {:?}", step.asked_by(), step.destination)),
    })?;
    let Some(mount) = mount else {
        root.mounted(&step.destination, None);
        return Ok(None);
    };
    let late = if step.late_readonly { Some(Late(mount.try_clone().call("dup", "mount")?)) } else { None };
    let known = match &step.what {
        What::FileSystem(fs) if fs.kind.as_c_str() == c"tmpfs" && !fs.copy_up => Some((mount, Content::Ours)),
        What::FileSystem(fs) if [c"proc", c"sysfs"].contains(&fs.kind.as_c_str()) => Some((mount, Content::Kernels)),
        _ => {
            root.done(mount);
            None
        }
    };
    root.mounted(&step.destination, known);
    Ok(late)
}

impl From<Late> for OwnedFd {
    fn from(late: Late) -> Self {
        late.0
    }
}

impl Late {
    pub(crate) fn make_readonly(&self) -> Result<()> {
        Ok(set_attrs(self.0.as_fd(), Tree::One, Attrs { set: attr::RDONLY, clear: 0 })?)
    }
}

/// What a bind mount is made of.
struct Wanted<'a> {
    path: &'a CStr,
    tree: Bind,
    asked: Attrs,
}

fn bind(root: &Root, step: &MountStep, wanted: &Wanted<'_>, opened: BindTree<'_>, around: Around) -> Result<OwnedFd> {
    let (path, tree) = (wanted.path, wanted.tree);
    if let BindTree::Inside = opened
        && let Some(source) = open_changed(step, path, tree, around)
    {
        only_proc_on_proc(step, path, source.as_fd())?;
        let target = bind_target(root, step, kind(source.as_fd())?)?;
        match attach(source.as_fd(), &target) {
            Err(error) if error.errno() == Errno::ENOSYS => {}
            attached => {
                root.done_with(target);
                return Ok(attached.map(|()| source)?);
            }
        }
    }
    let reach = if tree == Bind::Tree { Tree::Recursive } else { Tree::One };
    let source = match opened {
        BindTree::Early(fd) | BindTree::Late(fd) => fd.try_clone().call("dup", "bind source")?,
        BindTree::Inside => match open_source(path, reach) {
            Err(error) if error.errno() == Errno::ENOSYS => return bind_by_mount2(root, step, wanted, reach),
            source => source.map_err(|error| missing_source(step, path, reach, error))?,
        },
    };
    only_proc_on_proc(step, path, source.as_fd())?;
    let target = bind_target(root, step, kind(source.as_fd())?)?;
    // The kernel doesn't lock nosymfollow: a source that is opened for a user namespace keeps it.
    let kept = if matches!(opened, BindTree::Late(_)) { attr::NOSYMFOLLOW & !wanted.asked.clear } else { 0 };
    let attrs = Attrs { set: step.attrs.set, clear: step.attrs.clear & !kept };
    attach_over(source.as_fd(), &target, [attrs, wanted.asked], step.recursive)
        .map_err(|error| not_bound(error, step, path, source.as_fd(), &target))?;
    root.done_with(target);
    propagate(source.as_fd(), &step.propagation)?;
    Ok(source)
}

fn cannot_clear(words: &[&str]) -> String {
    format!("cannot clear locked flags of the source: {} (set outside of this user namespace)", words.join(", "))
}

/// The source of a bind mount with all that is to be changed about it, in one call. `None` where that can't be had, or
/// isn't all, or isn't permitted: then each change is made by itself, which tells what is wrong with it.
fn open_changed(step: &MountStep, path: &CStr, tree: Bind, around: Around) -> Option<OwnedFd> {
    let kind = match step.propagation.as_slice() {
        [] => 0,
        [change] if around == Around::NotShared && [libc::MS_PRIVATE, libc::MS_SLAVE].contains(&change.kind) => {
            change.kind
        }
        _ => return None,
    };
    let Attrs { set, clear } = step.attrs;
    if tree == Bind::Tree || !step.recursive.is_empty() || set == 0 && clear == 0 && kind == 0 {
        return None;
    }
    api::open_tree_attr(sys::fs::CWD, path, Link::Follow, set, clear, kind).ok()
}

/// A faked /proc would take the writes that confine the process.
fn only_proc_on_proc(step: &MountStep, path: &CStr, source: BorrowedFd<'_>) -> Result<()> {
    if step.destination == "/proc" && fs_type(source)? != PROC_SUPER_MAGIC {
        bail!("{path:?} is not a proc file system, and only that can be on /proc (CVE-2019-16884)");
    }
    Ok(())
}

/// A detached copy of a mount, to be attached in the container.
pub(crate) fn open_source(path: &CStr, reach: Tree) -> sys::Result<OwnedFd> {
    api::open_tree(sys::fs::CWD, path, reach)
}

/// Why a source can't be opened.
pub(crate) fn missing_source(step: &MountStep, path: &CStr, reach: Tree, error: sys::Error) -> anyhow::Error {
    if error.errno() == Errno::EINVAL && reach == Tree::One && open_source(path, Tree::Recursive).is_ok() {
        // mount_namespaces(7): mounts that came into a user namespace together can't be taken apart in it.
        return anyhow::Error::new(error).context(
            "the source has mounts below it that are locked in this user namespace and can't be left out: use \"rbind\"",
        );
    }
    if error.errno() != Errno::ENOENT {
        return error.into();
    }
    let what = format!("bind source {path:?}: no such file or directory (ENOENT)");
    invalid(format!("{}/source", step.pointer), what)
}

fn bind_target<'a>(root: &'a Root, step: &MountStep, source: SFlag) -> Result<Slot<'a>> {
    let destination = &step.destination;
    if ["/proc", "/sys"].contains(&destination.as_str()) {
        // As for a new one of these file systems: whatever is there decides what the masks cover.
        return root.dir_slot(destination, Links::Refuse).map_err(|error| match error.errno() {
            Errno::ELOOP | Errno::ENOTDIR => {
                anyhow!("{destination:?} must be an ordinary directory, not a link: {error}")
            }
            _ => error.into(),
        });
    }
    Ok(match source {
        SFlag::S_IFDIR => root.dir_slot(destination, Links::Follow)?,
        _ => root.file_slot(destination)?,
    })
}

/// move_mount(2) says EINVAL for a file on a directory, for which mount(2) says ENOTDIR, in words that engines explain.
fn not_bound(
    error: sys::Error,
    step: &MountStep,
    path: &CStr,
    source: BorrowedFd<'_>,
    target: &Slot<'_>,
) -> anyhow::Error {
    let is_directory = |fd, name| {
        let stat = fstatat(fd, name, AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH);
        stat.is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
    };
    let (dir, name) = target.at();
    if error.errno() == Errno::EINVAL && !is_directory(source, c"") && is_directory(dir, name) {
        return anyhow!("what is there is a directory, and the source {path:?} is not a directory (ENOTDIR)");
    }
    let What::Bind { asked, .. } = step.what else { return error.into() };
    locked(error, source, [asked, step.recursive])
}

/// Attaches a detached mount.
pub(crate) fn attach(mount: BorrowedFd<'_>, slot: &Slot<'_>) -> sys::Result<()> {
    let (dir, name) = slot.at();
    api::move_mount(mount, dir, name)
}

/// Binds one file, by its descriptor, onto a place.
pub(crate) fn bind_file(file: BorrowedFd<'_>, slot: &Slot<'_>) -> sys::Result<()> {
    match api::open_tree(file, c"", Tree::One) {
        Ok(copy) => attach(copy.as_fd(), slot),
        Err(error) if error.errno() == Errno::ENOSYS => {
            let (dir, name) = slot.at();
            api::bind(file, dir, name)
        }
        Err(error) => Err(error),
    }
}

fn bind_by_mount2(root: &Root, step: &MountStep, wanted: &Wanted<'_>, reach: Tree) -> Result<OwnedFd> {
    let path = wanted.path;
    let stat = nix::sys::stat::stat(path).call("stat", path)?;
    only_proc_on_proc(step, path, sys::fs::openat2(sys::fs::CWD, path, libc::O_PATH, 0, 0)?.as_fd())?;
    let target = bind_target(root, step, SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT)?;
    let recursive = if reach == Tree::Recursive { libc::MS_REC } else { 0 };
    api::mount(Some(path), &target.path(), None, libc::MS_BIND | recursive, None).map_err(|error| {
        let tree = reach == Tree::One && error.errno() == Errno::EINVAL;
        let hint = "mounts below the source that are locked in this user namespace can't be left out: use \"rbind\"";
        let error = anyhow::Error::new(error);
        if tree && in_user_namespace() { error.context(hint) } else { error }
    })?;
    let mount = reopen(root, step)?;
    over_locked([step.attrs, wanted.asked], |attrs| attributes(mount.as_fd(), attrs, Attrs::default()))
        .and_then(|()| attributes(mount.as_fd(), Attrs::default(), step.recursive))
        .map_err(|error| locked(error, mount.as_fd(), [wanted.asked, step.recursive]))?;
    propagate(mount.as_fd(), &step.propagation)?;
    Ok(mount)
}

/// A new mount in one call, mount(2), of what nothing else is to be done to and nothing is looked up in: `Some(None)`, for
/// it has no descriptor. `None` if it is not such a one, or fails: then by the mount API, which says why.
fn at_once(root: &Root, step: &MountStep, fs: &FileSystem, around: Around) -> Option<Option<OwnedFd>> {
    let simple = [c"devpts", c"mqueue"].contains(&fs.kind.as_c_str()) && fs.root_label.is_none() && !step.late_readonly;
    let simple = simple && !root.expects_remounts();
    if !simple || !step.recursive.is_empty() || !around.left(&step.propagation).is_empty() {
        return None;
    }
    let target = root.dir_slot(&step.destination, Links::Follow).ok()?;
    let done = mount2(fs, &target, 0, None).ok();
    root.done_with(target);
    done.map(|()| None)
}

fn file_system(root: &Root, step: &MountStep, fs: &FileSystem, around: Around) -> Result<OwnedFd> {
    // Where these two are decides what the masks cover and where labels are written.
    let links = if [c"proc", c"sysfs"].contains(&fs.kind.as_c_str()) { Links::Refuse } else { Links::Follow };
    let Place { slot: target, was } = match root.dir_place(&step.destination, links) {
        Err(error) if links == Links::Refuse && matches!(error.errno(), Errno::ELOOP | Errno::ENOTDIR) => {
            // runc's words, which engines look for.
            bail!("filesystem {:?} must be mounted on ordinary directory, not on a link: {error}", fs.kind)
        }
        place => place?,
    };
    // A directory that was made just now has no mode of the image's.
    let mode = if fs.copy_mode && was == Was::There { Some(mode_of(&target)?) } else { None };
    let made = if fs.only_mount2 { Err(lacking()) } else { new_mount(root, step, fs, &target, mode.as_deref()) };
    let mounted = match made {
        Ok(mount) => attach(mount.as_fd(), &target).map(|()| mount).map_err(Into::into),
        Err(error) if has_errno(&error, &[Errno::ENOSYS]) => mount_by_mount2(root, step, fs, &target, mode.as_deref()),
        Err(error) => Err(error),
    };
    let new = mounted.is_ok();
    let mount = match (mounted, &fs.fallback) {
        (Err(error), Some(fallback)) if has_errno(&error, &[Errno::EPERM, Errno::EBUSY]) => {
            fall_back(root, step, fallback, &target, error)?
        }
        (Err(error), _) => return Err(in_this_user_namespace(error, fs)),
        (Ok(mount), _) => mount,
    };
    // What was bound in its place is somebody else's.
    if let (Some(label), true) = (&fs.root_label, new) {
        lsm::label_file(&by_fd(mount.as_fd()), label)?;
    }
    root.done_with(target);
    if new {
        root.made(&step.destination, mount.as_fd())?;
    }
    if !step.recursive.is_empty() {
        set_attrs(mount.as_fd(), Tree::Recursive, step.recursive)?;
    }
    // What was bound in its place is not new.
    let changes = if new { around.left(&step.propagation) } else { &step.propagation };
    propagate(mount.as_fd(), changes)?;
    Ok(mount)
}

/// Binds what is there already in the place of a new mount that isn't permitted.
fn fall_back(
    root: &Root,
    step: &MountStep,
    fallback: &Fallback,
    target: &Slot<'_>,
    refused: anyhow::Error,
) -> Result<OwnedFd> {
    let reach = if fallback.tree == Bind::Tree { Tree::Recursive } else { Tree::One };
    let recursive = Attrs { set: step.recursive.set | fallback.attrs, ..step.recursive };
    for path in &fallback.paths {
        let mount = match open_source(path, reach) {
            Err(error) if error.errno() == Errno::ENOENT => continue,
            Err(error) if error.errno() == Errno::ENOSYS => {
                root.stray();
                let wanted = Wanted { path, tree: fallback.tree, asked: step.attrs };
                return bind_by_mount2(root, &MountStep { recursive, ..step.clone() }, &wanted, reach);
            }
            // What can't be bound either says less than the mount that was asked for.
            Err(_) => return Err(refused),
            Ok(mount) => mount,
        };
        log::debug!("mount on {:?}: bound {path:?} instead: {refused:#}", step.destination);
        attach_with(mount.as_fd(), target, step.attrs, recursive)
            .map_err(|error| locked(error, mount.as_fd(), [step.attrs, recursive]))?;
        root.stray();
        return Ok(mount);
    }
    Err(refused)
}

/// Why a mount that root of the host may make isn't made in a user namespace.
fn in_this_user_namespace(error: anyhow::Error, fs: &FileSystem) -> anyhow::Error {
    if !in_user_namespace() {
        return error;
    }
    let ids = fs.data.iter().any(|(key, _)| [c"uid", c"gid"].contains(&key.as_c_str()));
    match fs.kind.to_bytes() {
        _ if ids && has_errno(&error, &[Errno::EINVAL]) => {
            error.context("the ids among its options must be mapped in this user namespace")
        }
        _ if !has_errno(&error, &[Errno::EPERM]) => error,
        b"proc" => error.context(
            "a user namespace may mount proc only for a pid namespace of its own, and only where nothing covers parts of \
             the /proc around it (masked paths of an outer container: unmask them there, or share its pid namespace)",
        ),
        _ => error.context("not permitted in this user namespace"),
    }
}

/// Says which attributes the kernel won't take from a mount: they were set around the user namespace that it came into,
/// and are locked there (mount_namespaces(7)).
fn locked(error: sys::Error, mount: BorrowedFd<'_>, asked: [Attrs; 2]) -> anyhow::Error {
    let current = match nix::sys::statfs::fstatfs(mount) {
        Ok(stat) if error.errno() == Errno::EPERM => ms_of(stat.flags().bits()),
        _ => return error.into(),
    };
    let words: Vec<&str> = asked.iter().flat_map(|attrs| attrs.refused(current)).collect();
    if words.is_empty() {
        return error.into();
    }
    anyhow::Error::new(error).context(cannot_clear(&words))
}

/// The attributes go on the whole tree at its end: the links and directories are made in it before.
fn cgroup_v1(
    root: &Root,
    step: &MountStep,
    tmpfs: &FileSystem,
    hierarchies: &[CgroupV1],
    links: &[(CString, CString)],
) -> Result<OwnedFd> {
    // By mount(2) it must not be read-only from the start either.
    let plain = MountStep { attrs: Attrs::default(), recursive: Attrs::default(), late_readonly: true, ..step.clone() };
    let base = file_system(root, &plain, tmpfs, Around::Shared)?;
    for CgroupV1 { name, source } in hierarchies {
        mkdirat(&base, name.as_c_str(), Mode::from_bits_truncate(0o755)).call("mkdir", name)?;
        let slot = Slot::Below(base.as_fd(), name.clone());
        // Without attributes: the whole tree gets them below.
        if let CgroupSource::New(fs) = source
            && mount2(fs, &slot, u64::MAX, None).is_ok()
        {
            continue;
        }
        let mount = match source {
            CgroupSource::New(fs) => new_mount(root, &plain, fs, &slot, None),
            CgroupSource::Bind(paths) => match open_first(paths) {
                Err(error) if error.errno() == Errno::ENOSYS => {
                    bind_first(paths, &slot).with_context(|| format!("hierarchy {name:?}"))?;
                    continue;
                }
                opened => opened.map_err(Into::into),
            },
        };
        let mount = mount.with_context(|| format!("hierarchy {name:?}"))?;
        attach(mount.as_fd(), &slot)?;
        root.done(mount);
    }
    for (name, target) in links {
        dev::link(base.as_fd(), name, target)?;
    }
    match api::mount_setattr(base.as_fd(), Tree::Recursive, step.attrs.set, step.attrs.clear, 0) {
        Err(error) if error.errno() == Errno::ENOSYS => {
            for CgroupV1 { name, .. } in hierarchies {
                let below = sys::fs::openat2(base.as_fd(), name, libc::O_PATH, 0, 0)?;
                set_attrs(below.as_fd(), Tree::One, step.attrs)?;
            }
            set_attrs(base.as_fd(), Tree::One, step.attrs)?;
        }
        result => result?,
    }
    attributes(base.as_fd(), Attrs::default(), step.recursive)?;
    Ok(base)
}

/// The first of these directories that exists.
fn open_first(paths: &[CString]) -> sys::Result<OwnedFd> {
    let mut missing = Err(sys::Error::new("open_tree", "", Errno::ENOENT));
    for path in paths {
        missing = match open_source(path, Tree::One) {
            Err(error) if error.errno() == Errno::ENOENT => Err(error),
            opened => return opened,
        };
    }
    missing
}

/// The first of these directories that exists, bound by mount(2).
fn bind_first(paths: &[CString], slot: &Slot<'_>) -> sys::Result<()> {
    let mut missing = Err(sys::Error::new("mount", "", Errno::ENOENT));
    for path in paths {
        missing = match api::mount(Some(path), &slot.path(), None, libc::MS_BIND, None) {
            Err(error) if error.errno() == Errno::ENOENT => Err(error),
            bound => return bound,
        };
    }
    missing
}

fn lacking() -> anyhow::Error {
    sys::Error::new("fsopen", "", Errno::ENOSYS).into()
}

/// The root cause of an error of this module is a system call's.
fn has_errno(error: &anyhow::Error, list: &[Errno]) -> bool {
    error.downcast_ref::<sys::Error>().is_some_and(|error| list.contains(&error.errno()))
}

/// A detached mount of a new superblock.
///
/// `mode`: of its root, if that isn't among the file system's options.
fn new_mount(
    root: &Root,
    step: &MountStep,
    fs: &FileSystem,
    target: &Slot<'_>,
    mode: Option<&CStr>,
) -> Result<OwnedFd> {
    let context = api::fsopen(&fs.kind)?;
    let configure = || -> sys::Result<OwnedFd> {
        if let Some(source) = &fs.source {
            api::fsconfig_set(context.as_fd(), c"source", Some(source))?;
        }
        if mode.is_some() {
            api::fsconfig_set(context.as_fd(), c"mode", mode)?;
        }
        for (key, value) in &fs.data {
            match value {
                Some(layers) if overlay::is_long(fs, key, layers) => overlay::add_layers(context.as_fd(), layers)?,
                value => api::fsconfig_set(context.as_fd(), key, value.as_deref())?,
            }
        }
        api::fsconfig_create(context.as_fd())?;
        api::fsmount(context.as_fd(), step.attrs.set)
    };
    let mount = configure().map_err(|error| explain(error, context.as_fd()))?;
    root.done(context);
    if fs.copy_up {
        copyup::copy(target, mount.as_fd()).context("tmpcopyup")?;
    }
    Ok(mount)
}

/// The mode of the directory that a tmpfs covers, in octal.
fn mode_of(directory: &Slot<'_>) -> sys::Result<CString> {
    let (dir, name) = directory.at();
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH;
    let mode = fstatat(dir, name, flags).call("fstatat", "mount point")?.st_mode & 0o7777;
    Ok(CString::new(format!("{mode:o}")).unwrap_or_default())
}

/// Adds the kernel's own words, which wait on the context's descriptor: "tmpfs: Bad value for 'size'".
fn explain(error: sys::Error, context: BorrowedFd<'_>) -> anyhow::Error {
    let mut text = [0; 512];
    match nix::unistd::read(context, &mut text) {
        // A message begins with its level: e, w or i.
        Ok(length) if length > 2 => {
            let text = String::from_utf8_lossy(&text[2..length]).trim().to_owned();
            anyhow::Error::new(error).context(text)
        }
        _ => error.into(),
    }
}

fn mount_by_mount2(
    root: &Root,
    step: &MountStep,
    fs: &FileSystem,
    target: &Slot<'_>,
    mode: Option<&CStr>,
) -> Result<OwnedFd> {
    if fs.copy_up {
        bail!("tmpcopyup needs fsopen(2), Linux 5.2");
    }
    mount2(fs, target, if step.late_readonly { libc::MS_RDONLY } else { 0 }, mode)?;
    reopen(root, step)
}

/// mount(2) of a new superblock, without some of its flags.
fn mount2(fs: &FileSystem, target: &Slot<'_>, without: u64, mode: Option<&CStr>) -> Result<()> {
    let mut words: Vec<Vec<u8>> = Vec::new();
    if let Some(mode) = mode {
        words.push([b"mode=", mode.to_bytes()].concat());
    }
    // Superblock flags of mount(2) travel in `flags`; the new API has them as words.
    let flag_words = [c"sync", c"dirsync", c"lazytime", c"mand", c"ro"];
    for (key, value) in fs.data.iter().filter(|(key, _)| !flag_words.contains(&key.as_c_str())) {
        words.push(match value {
            // The context of SELinux has commas. Elsewhere they are escaped.
            Some(value) if is_context(key) && value.as_bytes().contains(&b',') => {
                [key.as_bytes(), b"=\"", value.as_bytes(), b"\""].concat()
            }
            Some(value) => [key.as_bytes(), b"=", value.as_bytes()].concat(),
            None => key.as_bytes().to_vec(),
        });
    }
    let data = CString::new(words.join(&b',')).context("mount options")?;
    if data.as_bytes_with_nul().len() > page_size() {
        // The kernel would cut them off without a word.
        bail!("the options have {} bytes, and mount(2) takes {} at most", data.as_bytes().len(), page_size() - 1);
    }
    Ok(api::mount(fs.source.as_deref(), &target.path(), Some(&fs.kind), fs.flags & !without, Some(&data))?)
}

fn page_size() -> usize {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| size.try_into().ok()).unwrap_or(4096)
}

fn remount(root: &Root, step: &MountStep, flags: u64, data: Option<&CStr>) -> Result<OwnedFd> {
    let target = root.place(&step.destination, 0, Links::Follow)?;
    let flags = if root.has_made(&step.destination, target.as_fd())? {
        flags
    } else if data.is_some() && flags & libc::MS_BIND == 0 {
        let what = format!("{data:?} would change a file system that isn't the container's alone, expected \"bind\"");
        return Err(invalid(format!("{}/options", step.pointer), what));
    } else {
        flags | libc::MS_BIND
    };
    let done = match api::mount(None, &by_fd(target.as_fd()), None, flags, data) {
        // mount(2) takes what isn't mentioned for cleared, and what is locked can't be.
        Err(error) if error.errno() == Errno::EPERM => keep_locked(target.as_fd(), step.attrs, flags, data),
        done => done,
    };
    done.map_err(|error| locked(error, target.as_fd(), [step.attrs, Attrs::default()]))?;
    propagate(target.as_fd(), &step.propagation)?;
    Ok(target)
}

/// A remount that changes nothing but what it mentions.
fn keep_locked(target: BorrowedFd<'_>, attrs: Attrs, flags: u64, data: Option<&CStr>) -> sys::Result<()> {
    let current = nix::sys::statfs::fstatfs(target).call("fstatfs", "mount")?.flags();
    api::mount(None, &by_fd(target), None, flags | attrs.ms_flags_over(ms_of(current.bits())), data)
}

/// After mount(2) the old handle is below the mount: look again to be on it.
fn reopen(root: &Root, step: &MountStep) -> Result<OwnedFd> {
    Ok(root.open(&step.destination, libc::O_PATH, Links::Follow)?)
}

/// Attaches a detached mount with attributes. They go on first, so that it is never seen without them; but mount(2),
/// which sets them where mount_setattr(2) is lacking, knows attached mounts only.
pub(crate) fn attach_with(mount: BorrowedFd<'_>, slot: &Slot<'_>, attrs: Attrs, recursive: Attrs) -> sys::Result<()> {
    attach_over(mount, slot, [attrs; 2], recursive)
}

/// [`attach_with`] the first of these attributes, or the second where the first would clear flags that are locked.
fn attach_over(mount: BorrowedFd<'_>, slot: &Slot<'_>, attrs: [Attrs; 2], recursive: Attrs) -> sys::Result<()> {
    if attrs[0].is_empty() && recursive.is_empty() {
        return attach(mount, slot);
    }
    let early = over_locked(attrs, |attrs| api::mount_setattr(mount, Tree::One, attrs.set, attrs.clear, 0));
    match early {
        Err(error) if error.errno() == Errno::ENOSYS => {
            attach(mount, slot)?;
            over_locked(attrs, |attrs| set_attrs(mount, Tree::One, attrs))?;
            attributes(mount, Attrs::default(), recursive)
        }
        Err(error) => Err(error),
        Ok(()) => {
            attributes(mount, Attrs::default(), recursive)?;
            attach(mount, slot)
        }
    }
}
