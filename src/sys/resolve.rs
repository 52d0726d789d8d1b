//! What openat2(2) does with RESOLVE_*, component by component: for seccomp filters around the runtime that deny it.
//!
//! Each component is opened below the descriptor of the one before, following nothing. The text of a symbolic link is read
//! from the descriptor of the link itself, and its components take the same way. `..` goes back to the descriptor that
//! the walk came from: so nothing is ever opened but what is below the start, whatever is renamed or exchanged meanwhile.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::fstatfs;

use super::error::{Error, Result};
use super::newer;

/// As many as the kernel follows in one look-up (MAXSYMLINKS).
const MOST_LINKS: u32 = 40;
const PROC_SUPER_MAGIC: i64 = 0x9fa0;
/// Of the file system of AppArmor's policies, whose links are magic, too.
const AAFS_MAGIC: i64 = 0x5a3c_69f0;
/// statfs(2), of a mount that follows no links.
const ST_NOSYMFOLLOW: u64 = 0x2000;

/// openat2(2) by openat(2). O_CLOEXEC is always added; `mode` counts only with O_CREAT.
pub(super) fn open(dir: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32, resolve: u64) -> Result<OwnedFd> {
    let walk = Walk { start: dir, above: Vec::new(), resolve, links_left: MOST_LINKS, mount: None };
    let flags = OFlag::from_bits_retain(flags | libc::O_CLOEXEC);
    let mode = Mode::from_bits_truncate(mode);
    let opened = if resolve == 0 { openat(dir, path, flags, mode) } else { walk.open(path.to_bytes(), flags, mode) };
    opened.map_err(|errno| Error::new("openat", format!("{path:?}"), errno))
}

/// A look-up under way.
struct Walk<'a> {
    start: BorrowedFd<'a>,
    /// What the walk has gone through and is in, innermost last.
    above: Vec<OwnedFd>,
    /// RESOLVE_*.
    resolve: u64,
    links_left: u32,
    /// The mount that RESOLVE_NO_XDEV keeps the walk on.
    mount: Option<u64>,
}

impl Walk<'_> {
    fn open(mut self, path: &[u8], flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if self.has(libc::RESOLVE_NO_XDEV) {
            self.mount = Some(mount_id(self.start, self.start)?);
        }
        let mut rest = Vec::new();
        self.go_along(path, &mut rest)?;
        while let Some(name) = rest.pop() {
            match name.to_bytes() {
                b"." => self.in_directory()?,
                b".." => self.go_up()?,
                _ if rest.is_empty() && flags.contains(OFlag::O_CREAT) => {
                    return openat(self.current(), name.as_c_str(), flags | OFlag::O_NOFOLLOW, mode);
                }
                _ => {
                    let last = rest.is_empty();
                    let handle = self.step(&name)?;
                    let link = kind(&handle)? == SFlag::S_IFLNK;
                    if link && !(last && flags.contains(OFlag::O_NOFOLLOW)) {
                        self.go_along(&self.target(&handle)?, &mut rest)?;
                        self.links_left = self.links_left.checked_sub(1).ok_or(Errno::ELOOP)?;
                    } else if last {
                        return self.end(&name, handle, flags);
                    } else {
                        self.above.push(handle);
                    }
                }
            }
        }
        // The path ended in `.`, in `..` or at the root.
        openat(self.current(), c".", flags, mode)
    }

    fn has(&self, flag: u64) -> bool {
        self.resolve & flag != 0
    }

    fn current(&self) -> BorrowedFd<'_> {
        self.above.last().map_or(self.start, AsFd::as_fd)
    }

    /// Puts the components of a path before what is left, and goes to the start if it is absolute. A slash at the end counts
    /// as a `.` behind it.
    fn go_along(&mut self, path: &[u8], rest: &mut Vec<CString>) -> nix::Result<()> {
        if path.starts_with(b"/") {
            if !self.has(libc::RESOLVE_IN_ROOT) {
                return Err(Errno::EXDEV);
            }
            self.above.clear();
        }
        if path.ends_with(b"/") {
            rest.push(c".".into());
        }
        for name in path.rsplit(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            rest.push(CString::new(name).map_err(|_| Errno::EINVAL)?);
        }
        Ok(())
    }

    /// What `.` and `..` ask of where the walk is.
    fn in_directory(&self) -> nix::Result<()> {
        if kind(self.current())? == SFlag::S_IFDIR { Ok(()) } else { Err(Errno::ENOTDIR) }
    }

    fn go_up(&mut self) -> nix::Result<()> {
        self.in_directory()?;
        match self.above.pop() {
            None if !self.has(libc::RESOLVE_IN_ROOT) => Err(Errno::EXDEV),
            _ => Ok(()),
        }
    }

    /// A handle on one component; a link is the link itself.
    fn step(&self, name: &CStr) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let handle = openat(self.current(), name, flags, Mode::empty())?;
        self.on_the_mount(handle.as_fd())?;
        Ok(handle)
    }

    fn on_the_mount(&self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        match self.mount {
            Some(mount) if mount_id(self.start, fd)? != mount => Err(Errno::EXDEV),
            _ => Ok(()),
        }
    }

    /// Where a link leads to, unless it may not be followed.
    #[allow(clippy::unnecessary_cast)] // The widths depend on the target.
    fn target(&self, link: &OwnedFd) -> nix::Result<Vec<u8>> {
        let fs = fstatfs(link)?;
        if self.has(libc::RESOLVE_NO_SYMLINKS) || fs.flags().bits() as u64 & ST_NOSYMFOLLOW != 0 {
            return Err(Errno::ELOOP);
        }
        let target = std::os::unix::ffi::OsStringExt::into_vec(readlinkat(link, c"")?);
        // The text of a magic link is a description of where it leads: "/", "pipe:[7]", "net:[4026531840]". The ordinary
        // links of a procfs lead below itself: "7", "7/task/7", "self/mounts".
        let ordinary = target.first().is_some_and(u8::is_ascii_digit) || target.starts_with(b"self/");
        match fs.filesystem_type().0 as i64 {
            PROC_SUPER_MAGIC if !ordinary => Err(Errno::ELOOP),
            AAFS_MAGIC => Err(Errno::ELOOP),
            _ if target.is_empty() => Err(Errno::ENOENT),
            _ => Ok(target),
        }
    }

    /// Opens the last component, of which there is a handle.
    fn end(&self, name: &CStr, handle: OwnedFd, flags: OFlag) -> nix::Result<OwnedFd> {
        if flags.contains(OFlag::O_PATH) {
            let wrong = flags.contains(OFlag::O_DIRECTORY) && kind(&handle)? != SFlag::S_IFDIR;
            return if wrong { Err(Errno::ENOTDIR) } else { Ok(handle) };
        }
        // A link that has come in its place since is an error.
        let opened = openat(self.current(), name, flags | OFlag::O_NOFOLLOW, Mode::empty())?;
        self.on_the_mount(opened.as_fd())?;
        Ok(opened)
    }
}

fn kind(fd: impl AsFd) -> nix::Result<SFlag> {
    Ok(SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT)
}

/// The id of the mount that a descriptor is on: of statx(2), Linux 5.8, or as the procfs `proc` tells it. ENOSYS where the
/// walk doesn't start at a procfs: anybody may have written what is there.
#[allow(clippy::unnecessary_cast)] // The widths depend on the target.
fn mount_id(proc: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> nix::Result<u64> {
    if let Some(id) = statx_mount_id(fd)? {
        return Ok(id);
    }
    if fstatfs(proc)?.filesystem_type().0 as i64 != PROC_SUPER_MAGIC {
        return Err(Errno::ENOSYS);
    }
    let path = CString::new(format!("self/fdinfo/{}", fd.as_raw_fd())).map_err(|_| Errno::EINVAL)?;
    let file = openat(proc, path.as_c_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())?;
    let mut text = [0; 512];
    let length = nix::unistd::read(&file, &mut text)?;
    let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default()).into_owned();
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or(Errno::EXDEV)
}

/// The id of the mount that a descriptor is on, by statx(2) alone: `None` where that doesn't tell it.
pub(crate) fn statx_mount_id(fd: BorrowedFd<'_>) -> nix::Result<Option<u64>> {
    /// `struct statx` is 256 bytes long; where `stx_mnt_id` is in it, in units of eight.
    const MOUNT_ID: usize = 144 / 8;
    const STATX_MNT_ID: u32 = 0x1000;
    let mut answer = [0_u64; 32];
    // SAFETY: the path is an empty C string, and `answer` has room for a whole `struct statx` of the kernel's.
    let ret = unsafe {
        let place = answer.as_mut_ptr();
        libc::syscall(libc::SYS_statx, fd.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, STATX_MNT_ID, place)
    };
    match newer::STATX.check(ret, String::new) {
        // The answer begins with what is in it.
        Ok(_) if answer[0] as u32 & STATX_MNT_ID != 0 => Ok(Some(answer[MOUNT_ID])),
        Err(error) if error.errno() != Errno::ENOSYS => Err(error.errno()),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs::{BENEATH_NO_LINKS, CWD, IN_ROOT};
    use std::os::unix::fs::symlink;

    const BENEATH_NO_XDEV: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS | libc::RESOLVE_NO_XDEV;

    /// A tree with every kind of link.
    fn tree() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("in/deep")).unwrap();
        std::fs::write(at("in/file"), "inside").unwrap();
        for (target, link) in [
            ("/in", "absolute"),
            ("in", "relative"),
            ("../../../../in", "up"),
            ("in/file", "to-file"),
            ("in/", "slash"),
            ("loop", "loop"),
            ("missing", "dangling"),
            ("/", "root"),
            ("..", "parent"),
            ("/proc/self/root", "magic"),
            ("relative/../up/deep/..", "chain"),
        ] {
            symlink(target, at(link)).unwrap();
        }
        symlink("chain", at("in/deep/chain")).unwrap();
        let fd = openat(CWD, dir.path(), OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        (dir, fd)
    }

    /// What was found, as device and inode, or the error.
    fn found(result: Result<OwnedFd>) -> std::result::Result<(u64, u64, i32), Errno> {
        let fd = result.map_err(|error| error.errno())?;
        let flags = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_GETFL).unwrap() & (libc::O_ACCMODE | libc::O_PATH);
        fstat(&fd).map(|stat| (stat.st_dev, stat.st_ino, flags))
    }

    #[test]
    fn it_finds_what_openat2_finds() {
        let (_dir, fd) = tree();
        let names =
            [".", "in", "in/file", "absolute", "relative", "up", "to-file", "slash", "loop", "dangling", "root"];
        let names = names.into_iter().chain(["parent", "chain", "in/deep/chain", "missing", "in/missing", ""]);
        let ends = ["", "/", "/.", "/..", "/file", "/deep", "/deep/../file", "/../in/file", "/absolute", "/to-file/"];
        let opens = [
            libc::O_PATH,
            libc::O_PATH | libc::O_DIRECTORY,
            libc::O_PATH | libc::O_NOFOLLOW,
            libc::O_PATH | libc::O_NOFOLLOW | libc::O_DIRECTORY,
            libc::O_RDONLY,
            libc::O_RDONLY | libc::O_NOFOLLOW,
            libc::O_WRONLY,
        ];
        let resolves = [0, IN_ROOT, IN_ROOT | libc::RESOLVE_NO_SYMLINKS, BENEATH_NO_LINKS, libc::RESOLVE_BENEATH];
        let mut compared = 0;
        for path in names.flat_map(|name| ends.map(|end| format!("{name}{end}"))) {
            for (flags, resolve) in opens.into_iter().flat_map(|flags| resolves.map(|resolve| (flags, resolve))) {
                // The host's own tree, which is more than these links.
                if resolve == 0 && ["absolute", "up", "root", "parent", "chain"].iter().any(|out| path.contains(out)) {
                    continue;
                }
                let name = CString::new(path.as_str()).unwrap();
                let kernel = found(crate::sys::fs::openat2(fd.as_fd(), &name, flags, 0, resolve));
                let own = found(open(fd.as_fd(), &name, flags, 0, resolve));
                assert_eq!(own, kernel, "{path:?}, flags {flags:#o}, resolve {resolve:#x}");
                compared += 1;
            }
        }
        assert!(compared > 4000);
    }

    #[test]
    fn magic_links_are_refused_and_the_ordinary_ones_of_proc_are_not() {
        let proc = openat(CWD, c"/proc", OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        for path in
            [c"self/root", c"self/cwd/.", c"self/exe", c"self/fd/0", c"self/ns/net", c"thread-self/root/etc", c"1/root"]
        {
            let errno = |result: Result<OwnedFd>| result.unwrap_err().errno();
            let kernel = crate::sys::fs::openat2(proc.as_fd(), path, libc::O_PATH, 0, BENEATH_NO_XDEV);
            assert_eq!(errno(open(proc.as_fd(), path, libc::O_PATH, 0, BENEATH_NO_XDEV)), errno(kernel), "{path:?}");
        }
        for path in [c"self/stat", c"thread-self/attr/current", c"mounts", c"net/dev", c"self/task"] {
            found(open(proc.as_fd(), path, libc::O_RDONLY, 0, BENEATH_NO_XDEV)).unwrap();
        }
    }

    #[test]
    fn other_mounts_are_not_entered() {
        let root = openat(CWD, c"/", OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        let error = open(root.as_fd(), c"proc/self/stat", libc::O_RDONLY, 0, BENEATH_NO_XDEV).unwrap_err();
        assert_eq!(error.errno(), Errno::EXDEV);
    }

    #[test]
    fn files_are_made_below_and_through_no_link() {
        let (dir, fd) = tree();
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_NOFOLLOW;
        open(fd.as_fd(), c"new", flags, 0o640, BENEATH_NO_LINKS).unwrap();
        assert!(dir.path().join("new").is_file());
        for path in [c"dangling", c"absolute/new", c"../new", c"new"] {
            assert!(open(fd.as_fd(), path, flags, 0o640, BENEATH_NO_LINKS).is_err(), "{path:?}");
        }
        assert!(!dir.path().join("missing").exists());
    }
}
