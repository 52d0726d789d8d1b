//! Paths inside the root file system, whose content is hostile: resolved with openat2(2) as if the root were `/`, through
//! no magic link, and used by descriptor from then on (CVE-2021-30465, CVE-2024-45310).
//!
//! What is missing is made one component at a time, each below the descriptor of the one before, following nothing: a
//! link that is put in place meanwhile is an error, never a way out.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat, mknodat};

use crate::sys::fs::{BENEATH_NO_LINKS, IN_ROOT, close_all, openat2, statx_mount_id};
use crate::sys::{Context, Error, Result};

/// The root of the container's file system, by descriptor.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
    /// File systems just mounted whose content is ours or the kernel's, by the path they were mounted on. One name
    /// directly below such a root can't be a trap, so it needs no look-up: most mounts, nodes and masks are there.
    known: Vec<(String, OwnedFd, Content)>,
    /// Those that something was mounted over since.
    covered: Vec<(String, OwnedFd, Content)>,
    /// Where the link led that the last place was found by, if it was found by one.
    by_link: Cell<Option<Led>>,
    /// Whether a mount may be anywhere, whatever its path says.
    strayed: Cell<bool>,
    links_left: Cell<u32>,
    /// How many directories are being made, each for the one before it.
    depth: Cell<u32>,
    /// Which file system (stat(2)) was mounted anew at a path, if remounts are to come.
    made: RefCell<Option<Vec<(String, u64)>>>,
    /// Descriptors that are done with, closed many at a time.
    done: RefCell<Vec<OwnedFd>>,
    done_at_most: usize,
}

/// statfs(2).
pub(crate) const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// How many descriptors are kept to be closed together: the usual limit is 1024, and a low one must do.
const DONE_AT_MOST: usize = 96;

/// The same for a container with more mounts than [`FEW_MOUNTS`], whose sources may be open all the while.
const DONE_OF_MANY: usize = 16;
const FEW_MOUNTS: usize = 24;

/// As many directories as one path can name (PATH_MAX).
const DEEPEST: u32 = 2048;

/// Where a link of the image or of a volume leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Led {
    /// To something on the root's own mount. Its file system may be that of volumes, too.
    OnRoot,
    Elsewhere,
}

/// How a path came to be the one that is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Via {
    Name,
    /// It is what a link held.
    Link,
}

/// What a known file system holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// A tmpfs that only this process has written to: what is missing can be made.
    Ours,
    /// proc or sysfs.
    Kernels,
}

/// A place to attach a mount to.
#[derive(Debug)]
pub(crate) enum Slot<'a> {
    /// A handle on the place itself.
    Handle(OwnedFd),
    /// A name directly below the root of a known file system.
    Below(BorrowedFd<'a>, CString),
    /// The root itself. Nothing that is mounted on it is ever seen: the root of the process stays below.
    Root(BorrowedFd<'a>),
}

/// A place for a directory.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) slot: Slot<'a>,
    pub(crate) was: Was,
}

/// What was at a place before this process needed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Was {
    There,
    Missing,
}

impl Slot<'_> {
    /// As directory and name, for calls that take both; an empty name is the directory itself.
    pub(crate) fn at(&self) -> (BorrowedFd<'_>, &CStr) {
        match self {
            Self::Handle(fd) => (fd.as_fd(), c""),
            Self::Below(dir, name) => (*dir, name),
            Self::Root(fd) => (*fd, c""),
        }
    }

    /// What kind of file is there, if anything is; a link is a link.
    pub(crate) fn kind(&self) -> Result<Option<SFlag>> {
        let (dir, name) = self.at();
        match fstatat(dir, name, AtFlags::AT_EMPTY_PATH | AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => Ok(None),
            stat => Ok(Some(SFlag::from_bits_truncate(stat.call("fstatat", name)?.st_mode & libc::S_IFMT))),
        }
    }

    /// Through /proc, for calls that know paths only.
    pub(crate) fn path(&self) -> CString {
        let (dir, name) = self.at();
        let path = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name.to_bytes()].concat();
        let path = if name.is_empty() { &path[..path.len() - 1] } else { &path };
        CString::new(path).unwrap_or_default()
    }
}

/// Whether links of the image are followed (inside the root).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    Follow,
    /// Any link on the way is an error: for /proc and /sys, which must be where they seem to be (CVE-2019-19921).
    Refuse,
}

impl Root {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            known: Vec::new(),
            covered: Vec::new(),
            by_link: Cell::new(None),
            strayed: Cell::new(false),
            links_left: Cell::new(256),
            depth: Cell::new(0),
            made: RefCell::default(),
            done: RefCell::default(),
            done_at_most: DONE_AT_MOST,
        }
    }

    /// Keeps fewer descriptors open if there are many mounts to come.
    pub(crate) fn prepare_for(&mut self, mounts: usize) {
        if mounts > FEW_MOUNTS {
            self.done_at_most = DONE_OF_MANY;
        }
    }

    /// Remembers the new file systems from now on.
    pub(crate) fn expect_remounts(&self) {
        *self.made.borrow_mut() = Some(Vec::new());
    }

    pub(crate) fn expects_remounts(&self) -> bool {
        self.made.borrow().is_some()
    }

    /// Notes a new file system, mounted at `path`.
    pub(crate) fn made(&self, path: &str, mount: BorrowedFd<'_>) -> Result<()> {
        if let Some(made) = self.made.borrow_mut().as_mut() {
            made.push((path.to_owned(), nix::sys::stat::fstat(mount).call("fstat", path)?.st_dev));
        }
        Ok(())
    }

    /// Whether what is at a place is the file system that was last mounted anew at `path`: links of the image, and mounts
    /// on the way, may lead elsewhere.
    pub(crate) fn has_made(&self, path: &str, place: BorrowedFd<'_>) -> Result<bool> {
        let made = self.made.borrow();
        let last = made.iter().flatten().rfind(|(at, _)| at == path);
        Ok(last.map(|(_, device)| *device) == Some(nix::sys::stat::fstat(place).call("fstat", path)?.st_dev))
    }

    /// Closes a descriptor, some time: every mount leaves two or three behind, and one call closes many.
    pub(crate) fn done(&self, fd: OwnedFd) {
        let mut done = self.done.borrow_mut();
        done.push(fd);
        if done.len() >= self.done_at_most {
            close_all(std::mem::take(&mut done));
        }
    }

    /// [`Self::done`] for a place.
    pub(crate) fn done_with(&self, slot: Slot<'_>) {
        if let Slot::Handle(fd) = slot {
            self.done(fd);
        }
    }

    /// Notes that something was mounted at `path`: what was known there or below is covered. A path that had a link in it
    /// says little about where that is.
    pub(crate) fn mounted(&mut self, path: &str, fs: Option<(OwnedFd, Content)>) {
        let is_at =
            |known: &str, path: &str| known == path || known.strip_prefix(path).is_some_and(|r| r.starts_with('/'));
        let by_link = self.by_link.take();
        let tops: Vec<String> =
            self.known.iter().map(|(known, ..)| known.clone()).filter(|k| k.rfind('/') == Some(0)).collect();
        let covers = |known: &str| match by_link {
            None => is_at(known, path),
            // Above what is mounted on a directory of the root, and all that is in it, is only the root.
            Some(Led::OnRoot) => is_at(known, path) || !tops.iter().any(|top| is_at(known, top)),
            Some(Led::Elsewhere) => true,
        };
        self.covered.extend(self.known.extract_if(.., |(known, ..)| covers(known)));
        match fs {
            Some((fd, content)) if by_link.is_none() => self.known.push((path.to_owned(), fd, content)),
            // What is at that path may be something else, now or later.
            Some((fd, _)) => self.done(fd),
            None => {}
        }
    }

    /// Nothing is known any more: somebody else may have mounted something anywhere.
    pub(crate) fn forget(&mut self) {
        self.covered.append(&mut self.known);
        self.strayed.set(true);
    }

    /// A mount has brought others with it.
    pub(crate) fn stray(&self) {
        self.strayed.set(true);
    }

    /// Whether a mount may be anywhere, whatever its path says.
    pub(crate) fn strayed(&self) -> bool {
        self.strayed.get()
    }

    /// The known file system directly above a path, and the name in it.
    fn below(&self, path: &str) -> Result<Option<(BorrowedFd<'_>, CString, Content)>> {
        let Some((parent, name)) = path.rsplit_once('/') else { return Ok(None) };
        match self.known.iter().find(|(known, ..)| known == parent) {
            Some((_, fd, content)) if !name.is_empty() => Ok(Some((fd.as_fd(), c(name)?, *content))),
            _ => Ok(None),
        }
    }

    /// A place for a directory, made where it is missing.
    pub(crate) fn dir_slot(&self, path: &str, links: Links) -> Result<Slot<'_>> {
        self.dir_place(path, links).map(|place| place.slot)
    }

    /// [`Self::dir_slot`] that tells whether the directory had to be made.
    pub(crate) fn dir_place(&self, path: &str, links: Links) -> Result<Place<'_>> {
        if let Some((dir, name, Content::Ours)) = self.below(path)? {
            let was = match mkdirat(dir, name.as_c_str(), Mode::from_bits_truncate(0o755)) {
                Ok(()) => Was::Missing,
                Err(Errno::EEXIST) => Was::There,
                Err(errno) => return Err(errno).call("mkdir", path),
            };
            return Ok(Place { slot: Slot::Below(dir, name), was });
        }
        self.by_link.set(None);
        let (handle, was) = match self.place(path, libc::O_DIRECTORY, links) {
            Err(error) if error.errno() == Errno::ENOENT => (self.make_dir(path, links, Via::Name)?, Was::Missing),
            found => (found?, Was::There),
        };
        if self.by_link.get().is_some() && self.is_itself(handle.as_fd())? {
            // Nothing that is mounted there would ever be seen.
            let what = format!("{path:?}, which a symbolic link of the image leads onto the root itself");
            return Err(Error::new("mount", what, Errno::EPERM));
        }
        Ok(Place { slot: Slot::Handle(handle), was })
    }

    /// A place for anything but a directory, made where it is missing.
    pub(crate) fn file_slot(&self, path: &str) -> Result<Slot<'_>> {
        if let Some((dir, name, Content::Ours)) = self.below(path)? {
            return match mknodat(dir, name.as_c_str(), SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0) {
                Ok(()) | Err(Errno::EEXIST) => Ok(Slot::Below(dir, name)),
                Err(errno) => Err(errno).call("mknod", path),
            };
        }
        self.by_link.set(None);
        self.file(path).map(Slot::Handle)
    }

    /// [`Self::file_slot`] that no link of the image is at.
    pub(crate) fn file_slot_no_link(&self, path: &str) -> Result<Slot<'_>> {
        if let Some((.., Content::Ours)) = self.below(path)? {
            return self.file_slot(path);
        }
        let (parent, name) = self.parent(path)?;
        let Some(name) = name else { return Ok(Slot::Handle(parent)) };
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_NOFOLLOW;
        match openat2(parent.as_fd(), &name, flags, 0o644, BENEATH_NO_LINKS) {
            Err(error) if error.errno() == Errno::EEXIST => {}
            made => drop(made?),
        }
        let found = openat2(parent.as_fd(), &name, libc::O_PATH | libc::O_NOFOLLOW, 0, BENEATH_NO_LINKS)?;
        // With O_PATH the link itself is opened.
        if kind(found.as_fd())? == SFlag::S_IFLNK {
            return Err(Error::new("open", format!("{path:?}, a symbolic link of the image"), Errno::ELOOP));
        }
        Ok(Slot::Handle(found))
    }

    /// A place that may be there or not: one below a known file system is not looked up.
    pub(crate) fn slot(&self, path: &str) -> Result<Option<Slot<'_>>> {
        if let Some((dir, name, _)) = self.below(path)? {
            return Ok(Some(Slot::Below(dir, name)));
        }
        if path == "/" {
            return Ok(Some(Slot::Root(self.as_fd())));
        }
        self.by_link.set(None);
        let found = match self.open(path, libc::O_PATH, Links::Refuse) {
            Err(error) if error.errno() == Errno::ELOOP => self.find(path)?,
            Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            found => return Ok(Some(Slot::Handle(found?))),
        };
        let Some(found) = found else { return Ok(None) };
        self.led_to(found.as_fd())?;
        let itself = self.is_itself(found.as_fd())?;
        Ok(Some(if itself { Slot::Root(self.as_fd()) } else { Slot::Handle(found) }))
    }

    /// The root of a file system that only this process has written to.
    pub(crate) fn ours(&self, path: &str) -> Option<BorrowedFd<'_>> {
        ours(&self.known, path)
    }

    /// The same, whether something has been mounted over it or not.
    pub(crate) fn ours_or_covered(&self, path: &str) -> Option<BorrowedFd<'_>> {
        ours(&self.known, path).or_else(|| ours(&self.covered, path))
    }

    /// Notes where a link has led to.
    fn led_to(&self, place: BorrowedFd<'_>) -> Result<()> {
        let root = statx_mount_id(self.as_fd()).ok().flatten();
        let on_root = root.is_some() && root == statx_mount_id(place).ok().flatten();
        let led = if on_root { Led::OnRoot } else { Led::Elsewhere };
        if led == Led::Elsewhere {
            self.strayed.set(true);
        }
        // A place is found in steps: the first link that leads elsewhere counts.
        if self.by_link.get() != Some(Led::Elsewhere) {
            self.by_link.set(Some(led));
        }
        Ok(())
    }

    fn is_itself(&self, place: BorrowedFd<'_>) -> Result<bool> {
        let stat = |fd| nix::sys::stat::fstat(fd).call("fstat", "handle");
        let (root, place) = (stat(self.as_fd())?, stat(place)?);
        Ok((root.st_dev, root.st_ino) == (place.st_dev, place.st_ino))
    }

    /// Opens what is there.
    pub(crate) fn open(&self, path: &str, flags: i32, links: Links) -> Result<OwnedFd> {
        let resolve = match links {
            Links::Follow => IN_ROOT,
            Links::Refuse => IN_ROOT | libc::RESOLVE_NO_SYMLINKS,
        };
        openat2(self.as_fd(), &relative(path)?, flags, 0, resolve)
    }

    /// A handle on what is there already, to mount on. A link of the image doesn't lead onto proc: what covers a file there
    /// decides what is masked, and takes the writes that confine the process (CVE-2019-16884, CVE-2025-52881).
    pub(crate) fn place(&self, path: &str, flags: i32, links: Links) -> Result<OwnedFd> {
        self.place_via(path, flags, links, Via::Name)
    }

    /// `via`: a path that a link held is as little to be trusted as the link.
    fn place_via(&self, path: &str, flags: i32, links: Links, via: Via) -> Result<OwnedFd> {
        let found = match self.open(path, libc::O_PATH | flags, Links::Refuse) {
            Err(error) if error.errno() == Errno::ELOOP && links == Links::Follow => {
                self.open(path, libc::O_PATH | flags, links)?
            }
            found if via == Via::Name => return found,
            found => found?,
        };
        if fs_type(found.as_fd())? == PROC_SUPER_MAGIC {
            let what = format!("{path:?}, which a symbolic link of the image leads onto proc");
            return Err(Error::new("mount", what, Errno::EPERM));
        }
        self.led_to(found.as_fd())?;
        Ok(found)
    }

    /// A handle (O_PATH) on a path, or `None` where it doesn't exist.
    pub(crate) fn find(&self, path: &str) -> Result<Option<OwnedFd>> {
        match self.open(path, libc::O_PATH, Links::Follow) {
            Ok(fd) => Ok(Some(fd)),
            Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A handle on a directory, made (0755) with its parents where it is missing.
    pub(crate) fn dir(&self, path: &str, links: Links) -> Result<OwnedFd> {
        self.dir_via(path, links, Via::Name)
    }

    fn dir_via(&self, path: &str, links: Links, via: Via) -> Result<OwnedFd> {
        match self.place_via(path, libc::O_DIRECTORY, links, via) {
            Err(error) if error.errno() == Errno::ENOENT => {
                // Each directory above it that is missing, too, takes a call of this within this one, and links that lead
                // nowhere add theirs.
                let depth = self.depth.get();
                if depth == DEEPEST {
                    return Err(Error::new("mkdir", "a path with too many directories and links", Errno::ELOOP));
                }
                self.depth.set(depth + 1);
                let made = self.make_dir(path, links, via);
                self.depth.set(depth);
                made
            }
            found => found,
        }
    }

    fn make_dir(&self, path: &str, links: Links, via: Via) -> Result<OwnedFd> {
        let (parent, name) = self.parent_via(path, via)?;
        let Some(name) = name else { return Ok(parent) };
        match mkdirat(&parent, name.as_c_str(), Mode::from_bits_truncate(0o755)) {
            // It is there but leads nowhere: what it leads to is made.
            Err(Errno::EEXIST) if links == Links::Follow => {
                if let Some(target) = self.behind_link(path, parent.as_fd(), &name)? {
                    return self.dir_via(&target, links, Via::Link);
                }
            }
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno).call("mkdir", path),
        }
        openat2(parent.as_fd(), &name, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0, BENEATH_NO_LINKS)
    }

    /// A handle on anything but a directory, made as an empty file (0644) where it is missing.
    pub(crate) fn file(&self, path: &str) -> Result<OwnedFd> {
        self.file_via(path, Via::Name)
    }

    fn file_via(&self, path: &str, via: Via) -> Result<OwnedFd> {
        match self.place_via(path, 0, Links::Follow, via) {
            Err(error) if error.errno() == Errno::ENOENT => {}
            found => return found,
        }
        let (parent, name) = self.parent_via(path, via)?;
        let Some(name) = name else { return Ok(parent) };
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_NOFOLLOW;
        match openat2(parent.as_fd(), &name, flags, 0o644, BENEATH_NO_LINKS) {
            Err(error) if error.errno() == Errno::EEXIST => {
                if let Some(target) = self.behind_link(path, parent.as_fd(), &name)? {
                    return self.file_via(&target, Via::Link);
                }
            }
            made => drop(made?),
        }
        openat2(parent.as_fd(), &name, libc::O_PATH | libc::O_NOFOLLOW, 0, BENEATH_NO_LINKS)
    }

    /// The path that a dangling link leads to, still to be resolved inside the root; `None` for anything else. The kernel
    /// finds loops; this count ends those that somebody keeps changing meanwhile.
    fn behind_link(&self, path: &str, parent: BorrowedFd<'_>, name: &CStr) -> Result<Option<String>> {
        let target = match nix::fcntl::readlinkat(parent, name) {
            Ok(target) => target,
            Err(Errno::EINVAL) => return Ok(None),
            Err(errno) => return Err(errno).call("readlink", path),
        };
        let target = target.into_string().map_err(|_| Error::new("readlink", format!("{path:?}"), Errno::EILSEQ))?;
        let directory = path.trim_end_matches('/').rsplit_once('/').map_or("", |(directory, _)| directory);
        let target = if target.starts_with('/') { target } else { format!("{directory}/{target}") };
        self.links_left.set(self.links_left.get().saturating_sub(1));
        if self.links_left.get() == 0 {
            return Err(Error::new("readlink", format!("{path:?}"), Errno::ELOOP));
        }
        Ok(Some(target))
    }

    /// The directory that holds `path`, made where it is missing, and the last component; none for the root itself.
    pub(crate) fn parent(&self, path: &str) -> Result<(OwnedFd, Option<CString>)> {
        self.parent_via(path, Via::Name)
    }

    fn parent_via(&self, path: &str, via: Via) -> Result<(OwnedFd, Option<CString>)> {
        let path = path.trim_end_matches('/');
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name.is_empty() {
            return Ok((self.fd.try_clone().call("dup", "root")?, None));
        }
        Ok((self.dir_via(parent, Links::Follow, via)?, Some(c(name)?)))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let mut done = self.done.take();
        done.extend(self.known.drain(..).chain(self.covered.drain(..)).map(|(_, fd, _)| fd));
        close_all(done);
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn ours<'a>(list: &'a [(String, OwnedFd, Content)], path: &str) -> Option<BorrowedFd<'a>> {
    let ours = |(known, _, content): &&(String, OwnedFd, Content)| known == path && *content == Content::Ours;
    list.iter().find(ours).map(|(_, fd, _)| fd.as_fd())
}

/// openat2 takes the root itself as ".".
fn relative(path: &str) -> Result<CString> {
    let path = path.trim_start_matches('/');
    c(if path.is_empty() { "." } else { path })
}

fn c(path: &str) -> Result<CString> {
    CString::new(path).map_err(|_| Error::new("open", format!("{path:?}"), Errno::EINVAL))
}

/// The type of the file system that a handle is on, one of statfs(2)'s numbers.
#[allow(clippy::unnecessary_cast)] // Its width depends on the target.
pub(crate) fn fs_type(fd: BorrowedFd<'_>) -> Result<i64> {
    Ok(nix::sys::statfs::fstatfs(fd).call("fstatfs", "handle")?.filesystem_type().0 as i64)
}

/// The kind of file behind a handle.
pub(crate) fn kind(fd: BorrowedFd<'_>) -> Result<SFlag> {
    let stat = nix::sys::stat::fstat(fd).call("fstat", "handle")?;
    Ok(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT)
}

/// A handle turned into a directory that can be listed.
pub(crate) fn listable(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    open_at(fd, c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

/// openat(2) of one component, following nothing.
pub(crate) fn open_at(dir: BorrowedFd<'_>, name: &CStr, flags: OFlag) -> Result<OwnedFd> {
    nix::fcntl::openat(dir, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()).call("open", name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let fd = nix::fcntl::open(dir.path(), OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        (dir, Root::new(fd))
    }

    #[test]
    fn missing_directories_and_files_are_made_inside() {
        let (dir, root) = root();
        root.dir("/a/b/c", Links::Follow).unwrap();
        root.file("/x/y").unwrap();
        assert!(dir.path().join("a/b/c").is_dir());
        assert!(dir.path().join("x/y").is_file());
        assert!(root.find("/nope").unwrap().is_none());
        root.dir("/", Links::Refuse).unwrap();
    }

    #[test]
    fn links_of_the_image_stay_inside() {
        let (dir, root) = root();
        std::fs::create_dir(dir.path().join("in")).unwrap();
        symlink("/in", dir.path().join("abs")).unwrap();
        symlink("../../../../in", dir.path().join("up")).unwrap();
        for link in ["abs", "up"] {
            root.dir(&format!("/{link}/{link}-made"), Links::Follow).unwrap();
            assert!(dir.path().join("in").join(format!("{link}-made")).is_dir());
            assert!(root.dir(&format!("/{link}"), Links::Refuse).is_err());
        }
    }

    #[test]
    fn what_a_dangling_link_leads_to_is_made_inside() {
        let (dir, root) = root();
        let outside = tempfile::tempdir().unwrap();
        let absolute = outside.path().join("new");
        symlink(&absolute, dir.path().join("link")).unwrap();
        symlink("../../new/deep", dir.path().join("chain")).unwrap();
        symlink("later", dir.path().join("new")).unwrap();
        root.file("/link/below").unwrap();
        root.dir("/chain/x", Links::Follow).unwrap();
        assert!(dir.path().join(absolute.strip_prefix("/").unwrap()).join("below").is_file());
        assert!(dir.path().join("later/deep/x").is_dir());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(root.dir("/link2", Links::Refuse).is_ok());
    }

    #[test]
    fn a_loop_of_links_is_an_error() {
        let (dir, root) = root();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        assert!(root.dir("/a/x", Links::Follow).is_err());
        assert!(root.file("/a").is_err());
    }

    #[test]
    fn a_known_file_system_is_forgotten_when_it_is_covered() {
        let (dir, mut root) = root();
        std::fs::create_dir(dir.path().join("dev")).unwrap();
        let fd = || std::fs::File::open(dir.path().join("dev")).unwrap().into();
        root.mounted("/dev", Some((fd(), Content::Ours)));
        assert!(matches!(root.dir_slot("/dev/pts", Links::Follow).unwrap(), Slot::Below(..)));
        assert!(dir.path().join("dev/pts").is_dir());
        assert!(matches!(root.dir_slot("/dev/a/b", Links::Follow).unwrap(), Slot::Handle(_)));
        root.mounted("/devices", None);
        assert!(root.ours("/dev").is_some());
        root.mounted("/dev", None);
        assert!(root.ours("/dev").is_none());
        root.mounted("/dev/x", Some((fd(), Content::Kernels)));
        assert!(root.ours("/dev/x").is_none());
        root.mounted("/dev", None);
        assert!(root.slot("/dev/x/y").unwrap().is_none());
    }

    #[test]
    fn magic_links_are_refused() {
        let fd = nix::fcntl::open("/", OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        assert!(Root::new(fd).find("/proc/self/root").is_err());
    }
}
