//! openat2(2), close_range(2) and what else of files nix lacks.

use std::cell::RefCell;
use std::ffi::CStr;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::error::{Context as _, Result, check};
use super::newer;
use super::resolve as by_component;
pub(crate) use super::resolve::statx_mount_id;

/// RESOLVE_* of openat2(2).
pub(crate) const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
/// Neither leaves the directory nor follows any symbolic link.
pub(crate) const BENEATH_NO_LINKS: u64 =
    libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;

/// How often a look-up is tried again: far more than chance takes, and an attack by renaming ends with an error.
const RENAMES_SURVIVED: u32 = 10_000;

/// openat2(2), or what it does by openat(2) where it can't be made. O_CLOEXEC is always added; `mode` counts only with
/// O_CREAT.
pub(crate) fn openat2(dir: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32, resolve: u64) -> Result<OwnedFd> {
    // SAFETY: an all-zero open_how is a valid value; the struct is non-exhaustive, so it can't be written out.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.mode = if flags & libc::O_CREAT != 0 { mode.into() } else { 0 };
    how.resolve = resolve;
    let mut tries = RENAMES_SURVIVED;
    loop {
        // SAFETY: `path` is a C string and `how` a valid open_how of the size given; both live across the call.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        };
        match newer::OPENAT2.check(ret, || format!("{path:?}")) {
            // SAFETY: a new descriptor that nobody else owns.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
            Err(error) if error.errno() == Errno::ENOSYS => return by_component::open(dir, path, flags, mode, resolve),
            // A rename raced with the look-up below the root (openat2(2), EAGAIN): ask again.
            Err(error) if error.errno() == Errno::EAGAIN && tries > 0 => tries -= 1,
            Err(error) => return Err(error),
        }
    }
}

/// Marks every descriptor from `first` on close-on-exec (close_range(2), 5.11). Nothing is closed by number.
pub(crate) fn cloexec_from(first: u32) -> Result<()> {
    // SAFETY: only flags of descriptors change.
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    match newer::CLOSE_RANGE.check(ret, String::new) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.errno(), Errno::ENOSYS | Errno::EINVAL) => cloexec_one_by_one(first),
        Err(error) => Err(error),
    }
}

/// For kernels before 5.11, and sandboxes that don't know close_range.
fn cloexec_one_by_one(first: u32) -> Result<()> {
    for fd in open_descriptors()?.into_iter().filter(|fd| *fd >= first.cast_signed()) {
        // SAFETY: F_SETFD takes an integer; a descriptor that is gone gives EBADF, which is fine.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// The numbers of this process's descriptors, in no order; that by which they were listed is closed again.
pub(crate) fn open_descriptors() -> Result<Vec<i32>> {
    const PATH: &str = "/proc/self/fd";
    let entries = std::fs::read_dir(PATH).call("open", PATH)?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Whether `fd` came from the caller: open and not close-on-exec, which everything is that this process opens.
pub(crate) fn inherited(fd: i32) -> bool {
    // SAFETY: F_GETFD takes no memory and changes nothing.
    unsafe { libc::fcntl(fd, libc::F_GETFD) == 0 }
}

/// Sets or clears close-on-exec on a descriptor that the caller of the runtime passed.
pub(crate) fn set_cloexec(fd: i32, on: bool) -> Result<()> {
    // SAFETY: F_SETFD takes an integer.
    let ret = unsafe { libc::fcntl(fd, libc::F_SETFD, if on { libc::FD_CLOEXEC } else { 0 }) };
    check("fcntl F_SETFD", ret.into(), || fd.to_string()).map(drop)
}

/// dup2(2) onto one of the standard streams, which then stays open over exec.
pub(crate) fn dup_onto(fd: BorrowedFd<'_>, number: i32) -> Result<()> {
    // SAFETY: replacing a standard stream is what the caller asks for; no Rust object owns 0 to 2.
    let ret = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    check("dup2", ret.into(), || number.to_string()).map(drop)
}

/// The standard stream or passed descriptor with this number, borrowed.
pub(crate) fn borrow(number: i32) -> BorrowedFd<'static> {
    // SAFETY: callers pass numbers below the runtime's own descriptors (0 to 2 and the preserved ones), which nothing
    // in this process closes.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// open(2) for reading, as a [`std::fs::File`]. O_CLOEXEC is always added. By openat(2): after open(2) musl makes a
/// further call for the sake of kernels before 2.6.23.
pub(crate) fn open_to_read(path: &std::path::Path, flags: OFlag) -> nix::Result<std::fs::File> {
    nix::fcntl::openat(CWD, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC | flags, Mode::empty()).map(Into::into)
}

/// What [`flock`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flock {
    /// EWOULDBLOCK rather than waiting, which nothing would end.
    Try,
    Unlock,
}

/// Opens the null device on each standard stream that the caller left closed: else the runtime's own files would take
/// their numbers and be handed to the container.
pub(crate) fn open_closed_stdio() {
    let mut fds = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: the array is valid for reads and writes across the call; nothing is waited for.
    unsafe { libc::poll(fds.as_mut_ptr(), 3, 0) };
    for _ in fds.iter().filter(|fd| fd.revents & libc::POLLNVAL != 0) {
        // SAFETY: the path is a C string; open takes the lowest free number, which is the closed stream's.
        unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
    }
}

thread_local! {
    // Without a destructor, which would have to be registered first: the kernel closes them in the end.
    static LEFT: RefCell<ManuallyDrop<Vec<OwnedFd>>> = const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

/// Leaves a descriptor open that nobody needs any more, for [`close_left`] or the end of the process, which close many at
/// once. Only for the few that making one container takes.
pub(crate) fn leave(fd: OwnedFd) {
    LEFT.with_borrow_mut(|left| left.push(fd));
}

/// Closes what was left open. For a process that stays.
pub(crate) fn close_left() {
    close_all(LEFT.with_borrow_mut(|left| std::mem::take(&mut **left)));
}

/// Closes many descriptors with one call for each run of consecutive numbers (close_range(2), 5.9).
pub(crate) fn close_all(fds: Vec<OwnedFd>) {
    let mut numbers: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    numbers.sort_unstable();
    for run in numbers.chunk_by(|a, b| a + 1 == *b) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        // SAFETY: exactly the descriptors that `fds` owns; they are given up below or closed there.
        if unsafe { libc::syscall(libc::SYS_close_range, *first, *last, 0) } != 0 {
            return drop(fds);
        }
    }
    fds.into_iter().for_each(std::mem::forget);
}

/// Closes every descriptor from `first` on but those to keep (close_range(2), 5.9), in a clone that never returns to
/// whoever owns them: what it holds is then what it was given on purpose.
pub(crate) fn close_all_but(first: i32, keep: &[BorrowedFd<'_>]) {
    let mut keep: Vec<i32> = keep.iter().map(AsRawFd::as_raw_fd).filter(|fd| *fd >= first).collect();
    keep.sort_unstable();
    let mut next = first;
    for end in keep.iter().copied().chain([i32::MAX]) {
        if next < end {
            // SAFETY: no frame that owns one of these descriptors runs again in this process.
            let ret = unsafe { libc::syscall(libc::SYS_close_range, next, end - 1, 0) };
            if ret < 0 {
                return close_one_by_one(next, &keep);
            }
        }
        next = end.saturating_add(1);
    }
}

/// For sandboxes that don't know close_range. Without /proc it is left to close-on-exec.
fn close_one_by_one(first: i32, keep: &[i32]) {
    for fd in open_descriptors().unwrap_or_default().into_iter().filter(|fd| *fd >= first && !keep.contains(fd)) {
        // SAFETY: no frame that owns one of these descriptors runs again in this process.
        unsafe { libc::close(fd) };
    }
}

/// Whether the effective ids and capabilities of this process let it execute a file: faccessat2(2), AT_EACCESS. access(2)
/// goes by the real ids, and by no capability of an ordinary user. ENOSYS where the call can't be made.
pub(crate) fn may_execute(path: &CStr) -> std::result::Result<(), Errno> {
    // SAFETY: `path` is a C string that lives across the call.
    let ret =
        unsafe { libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) };
    newer::FACCESSAT2.check(ret, String::new).map(drop).map_err(|error| error.errno())
}

/// close(2) of a descriptor whose owner is neither used nor dropped in this process any more.
pub(crate) fn close_borrowed(fd: BorrowedFd<'_>) {
    // SAFETY: the caller's promise.
    unsafe { libc::close(fd.as_raw_fd()) };
}

/// Closes descriptors that the caller passed for the container, once its process has them: whoever is at their other end
/// may wait for the container to close them.
pub(crate) fn close_passed(numbers: &[i32]) {
    for fd in numbers {
        // SAFETY: what was inherited from 3 on is owned by nothing in this process, and none of it is used after this.
        unsafe { libc::close(*fd) };
    }
}

/// Closes some descriptors in a clone that never returns to whoever owns them.
pub(crate) fn close_in_clone<'a>(fds: impl Iterator<Item = &'a OwnedFd>) {
    for fd in fds {
        // SAFETY: no frame that owns this descriptor runs again in this process.
        unsafe { libc::close(fd.as_raw_fd()) };
    }
}

/// flock(2), exclusive. The lock belongs to the open file description: it ends when its last descriptor closes.
pub(crate) fn flock(fd: BorrowedFd<'_>, what: Flock) -> Result<()> {
    let operation = match what {
        Flock::Try => libc::LOCK_EX | libc::LOCK_NB,
        Flock::Unlock => libc::LOCK_UN,
    };
    loop {
        // SAFETY: no memory is passed.
        let ret = unsafe { libc::flock(fd.as_raw_fd(), operation) };
        match check("flock", ret.into(), String::new) {
            Err(error) if error.errno() == Errno::EINTR => {}
            result => return result.map(drop),
        }
    }
}

/// setxattr(2). The link at the end is followed: paths here are those of descriptors in /proc.
pub(crate) fn setxattr(path: &CStr, name: &CStr, value: &[u8]) -> Result<()> {
    // SAFETY: both strings and the `value.len()` bytes of `value` live across the call, which only reads them.
    let ret = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check("setxattr", ret.into(), || format!("{path:?} {}", name.to_string_lossy())).map(drop)
}

/// getxattr(2) of a short attribute; none if there isn't one, or can't be any.
pub(crate) fn getxattr(path: &CStr, name: &CStr) -> Result<Option<Vec<u8>>> {
    let mut value = vec![0; 64];
    // SAFETY: both strings and the `value.len()` bytes to write to live across the call.
    let ret = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    match check("getxattr", ret as libc::c_long, || format!("{path:?} {}", name.to_string_lossy())) {
        Err(error) if matches!(error.errno(), Errno::ENODATA | Errno::EOPNOTSUPP | Errno::ENOENT) => Ok(None),
        length => {
            value.truncate(usize::try_from(length?).unwrap_or_default());
            Ok(Some(value))
        }
    }
}

/// The current directory.
pub(crate) const CWD: BorrowedFd<'static> = nix::fcntl::AT_FDCWD;
