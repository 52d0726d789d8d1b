//! `tare events`: what a container uses, and its out-of-memory kills, one line of JSON each.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;

use crate::cgroup::{self, Cgroup, Stats};
use crate::cli::{EventsArgs, Global, output};
use crate::state::{Folder, Record, Status};
use crate::sys::poll::{self, poll};

/// In runc's shape.
#[derive(Debug, Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats>,
}

pub(crate) fn run(global: &Global, args: EventsArgs) -> Result<i32> {
    let folder = Folder::open(&global.root, args.id.as_str())?;
    let record = folder.record()?;
    if !matches!(folder.status(&record)?, Status::Created | Status::Running | Status::Paused) {
        bail!("container with id {} is not running", record.id);
    }
    let cgroup = cgroup::open(&record.cgroup)?;
    if args.stats {
        stats(&record, &*cgroup)?;
    } else {
        stream(&record, &*cgroup, args.interval)?;
    }
    Ok(0)
}

fn print(event: &Event<'_>) -> Result<()> {
    output(&(serde_json::to_string(event)? + "\n"))
}

fn stats(record: &Record, cgroup: &dyn Cgroup) -> Result<()> {
    print(&Event { kind: "stats", id: &record.id, data: Some(cgroup.stats()) })
}

/// Until the container has ended.
fn stream(record: &Record, cgroup: &dyn Cgroup, interval: Duration) -> Result<()> {
    let mut watch = cgroup.watch()?;
    let Some(init) = record.init else { return Ok(()) };
    let Some(pidfd) = init.pidfd()? else { return Ok(()) };
    let mut next = Instant::now().checked_add(interval);
    loop {
        let [oom, populated] = watch.interest();
        // Where the cgroup tells when its last process has left, that is the end, else that of the first process.
        let init = watch.empty().is_none().then(|| (pidfd.as_fd(), poll::IN));
        let left = next.map(|next| next.saturating_duration_since(Instant::now()));
        let [_, _, ended] = poll([oom, populated, init], left)?;
        let ended = ended || watch.empty() == Some(true);
        if watch.killed() {
            print(&Event { kind: "oom", id: &record.id, data: None })?;
        }
        if ended {
            return Ok(());
        }
        if next.is_some_and(|next| next <= Instant::now()) {
            stats(record, cgroup)?;
            next = Instant::now().checked_add(interval);
        }
    }
}
