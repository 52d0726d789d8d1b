//! `tare exec`.

use std::os::fd::AsFd;

use anyhow::Result;

use crate::cli::{ExecArgs, Global};
use crate::launch::exec::{Running, exec};
use crate::launch::supervise::{Foreground, block_signals, exit_status, supervise};

pub(crate) fn run(global: &Global, args: &ExecArgs) -> Result<i32> {
    if args.detach {
        exec(global, args)?;
        return Ok(0);
    }
    // Before the clone: a program that ends at once must not be missed.
    let signals = block_signals()?;
    let Running { pid, pidfd, master } = exec(global, args)?;
    let ended = supervise(Foreground { pidfd: pidfd.as_fd(), pid, signals, master, subreaper: false, notify: None })?;
    // The process ends here, and the kernel closes what is left.
    std::mem::forget(pidfd);
    Ok(exit_status(ended))
}
