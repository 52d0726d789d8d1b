//! Small files of /proc and cgroupfs in three system calls: std's reader asks for the size first, which these files
//! don't have, and reads in many small steps.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::error::{Context, Result};

/// The content of a file that is meant to be read in one go, up to 8 KiB of it.
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
    let file = nix::fcntl::openat(super::fs::CWD, path, flags, Mode::empty()).call("open", path)?;
    let mut buffer = vec![0; 8192];
    loop {
        match nix::unistd::read(&file, &mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok((buffer, file));
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).call("read", path),
        }
    }
}

/// The content of a regular file, which ends where a read comes back short.
pub(crate) fn read_whole(file: &OwnedFd) -> nix::Result<Vec<u8>> {
    const STEP: usize = 32 << 10;
    let mut content = Vec::new();
    loop {
        let filled = content.len();
        content.resize(filled + STEP, 0);
        match nix::unistd::read(file, &mut content[filled..]) {
            Ok(length) => {
                content.truncate(filled + length);
                if length < STEP {
                    return Ok(content);
                }
            }
            Err(Errno::EINTR) => content.truncate(filled),
            Err(errno) => return Err(errno),
        }
    }
}
