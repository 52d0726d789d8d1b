//! `tare run`: create and start; in the foreground also wait, delete, and pass the program's status on.

use std::os::fd::AsFd;

use anyhow::Result;

use crate::cli::{Global, RunArgs};
use crate::launch::create::{Created, Stay, create};
use crate::launch::delete::{delete_after_failure, delete_ended, delete_failed};
use crate::launch::notify::Proxy;
use crate::launch::start::{poststart, start_created};
use crate::launch::supervise::{Foreground, Interrupt, block_signals_but_to_end, exit_status, hear_all, supervise};
use crate::state::Lock;
use crate::sys::fs::close_left;
use crate::sys::process::set_child_subreaper;

pub(crate) fn run(global: &Global, args: RunArgs) -> Result<i32> {
    if args.detach {
        let never = Interrupt::default();
        let created = begin(create(global, &args.create, Stay::Detached, never)?, never)?;
        let Created { lock, pid, pidfd, notify, .. } = created;
        if let Some(sockets) = notify {
            // Whoever stops the container meanwhile needs it.
            drop(lock);
            Proxy::new(sockets, pid.as_raw().cast_unsigned()).until_ready(pidfd.as_fd())?;
        }
        return Ok(0);
    }
    // Before the clone: a program that ends at once must not be missed.
    let mut signals = block_signals_but_to_end()?;
    let subreaper = !args.no_subreaper;
    if subreaper {
        set_child_subreaper(true)?;
    }
    let interrupt = Interrupt::by(&signals);
    let created = begin(create(global, &args.create, Stay::Foreground, interrupt)?, interrupt)?;
    hear_all(&mut signals)?;
    let Created { folder, record, lock, pid, pidfd, outside, master, notify, .. } = created;
    let released = lock.map_or_else(|| folder.unlocked(), Lock::release)?;
    close_left();
    // The service ends with this process, which stays its main one.
    let notify = notify.map(|sockets| Proxy::new(sockets, std::process::id()));
    let ended = supervise(Foreground { pidfd: pidfd.as_fd(), pid, signals, master, subreaper, notify })?;
    if !args.keep {
        // The program has ended, and its status is what the caller waits for, whatever becomes of the rest.
        let deleted = released.take(&folder).and_then(|lock| delete_ended(folder, &record, lock));
        if let Err(error) = deleted {
            log::warn!("container {:?}: delete it after its end: {error:#}", record.id);
        }
    }
    // The process ends here, and the kernel closes what is left.
    std::mem::forget((pidfd, outside));
    Ok(exit_status(ended))
}

/// Starts; a container that can't be started is removed again.
fn begin(mut created: Created, interrupt: Interrupt<'_>) -> Result<Created> {
    let mut begun = start_created(&created, interrupt);
    if begun.is_ok() && created.record.poststart {
        drop(created.lock.take());
        begun = poststart(&created.folder, &created.record, interrupt);
    }
    let Err(error) = begun else { return Ok(created) };
    let Created { folder, record, lock, .. } = created;
    match lock {
        Some(lock) => delete_after_failure(folder, &record, lock),
        None => delete_failed(folder, &record),
    }
    Err(error)
}
