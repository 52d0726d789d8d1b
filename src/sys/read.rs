//! Small files of /proc and cgroupfs in three system calls: std's reader asks for the size first, which these files
//! don't have, and reads in many small steps.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::error::{Context, Result};

/// The content of a file that is meant to be read in one go. Of one that is longer than a read (/proc/self/status of a
/// process with thousands of groups) the rest is read, too.
pub(crate) fn read_small(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    read_and_keep(path.as_ref()).map(|(content, _)| content)
}

/// [`read_small`] of a file that is read once in the life of this process: its descriptor is closed with others.
pub(crate) fn read_once(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let (content, file) = read_and_keep(path.as_ref())?;
    super::fs::leave(file);
    Ok(content)
}

fn read_and_keep(path: &Path) -> Result<(Vec<u8>, OwnedFd)> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    const STEP: usize = 8 << 10;
    let file = nix::fcntl::openat(super::fs::CWD, path, flags, Mode::empty()).call("open", path)?;
    let mut content = Vec::new();
    loop {
        match append(&file, &mut content, STEP) {
            Ok(length) if length < STEP => return Ok((content, file)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).call("read", path),
        }
    }
}

/// The content of a regular file, which ends where a read comes back short. EFBIG if it is larger than `largest`.
pub(crate) fn read_whole(file: &OwnedFd, largest: usize) -> nix::Result<Vec<u8>> {
    const STEP: usize = 32 << 10;
    let mut content = Vec::new();
    loop {
        if content.len() > largest {
            return Err(Errno::EFBIG);
        }
        match append(file, &mut content, STEP) {
            Ok(length) if length < STEP => return Ok(content),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// One read(2) of up to `most` bytes, whose number is returned, to the end of `content`. Memory that nothing is read to
/// isn't touched: a page of it would be a page fault.
fn append(file: &OwnedFd, content: &mut Vec<u8>, most: usize) -> nix::Result<usize> {
    content.reserve(most);
    let spare = content.spare_capacity_mut();
    let room = spare.len().min(most);
    // SAFETY: `spare` is valid for writes of `room` bytes across the call.
    let read = unsafe { libc::read(file.as_raw_fd(), spare.as_mut_ptr().cast(), room) };
    let length = usize::try_from(Errno::result(read)?).unwrap_or_default();
    // SAFETY: the kernel has written `length` bytes, at most `room`, right behind those that there were.
    unsafe { content.set_len(content.len() + length) };
    Ok(length)
}
