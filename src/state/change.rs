//! What commands change about a container that exists: its config.json, and the mark of a pause that goes on.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, renameat};
use nix::sys::stat::{UtimensatFlags, fstatat, utimensat};
use nix::sys::time::TimeSpec;

use super::{CONFIG, Folder, Identity, Lock};
use crate::cgroup::Cgroup;
use crate::sys::Context as _;

pub(super) const NEW_CONFIG: &str = "config.json.new";
/// Who freezes the container at the moment; there only until it is frozen.
pub(super) const PAUSING: &str = "pausing";

impl Folder {
    /// config.json as it is kept.
    pub(crate) fn config_text(&self) -> Result<Vec<u8>> {
        Ok(self.read_file(CONFIG)?)
    }

    /// Keeps another config.json from now on: a reader sees the old one or the new one.
    ///
    /// Its time stays that of the creation, see [`Self::config_written`].
    pub(crate) fn replace_config(&self, bytes: &[u8]) -> Result<()> {
        let time = self.config_time()?;
        self.write_file(NEW_CONFIG, bytes)?;
        utimensat(&self.fd, NEW_CONFIG, &time, &time, UtimensatFlags::NoFollowSymlink)
            .call("utimensat", self.path().join(NEW_CONFIG))?;
        renameat(&self.fd, NEW_CONFIG, &self.fd, CONFIG).call("rename", self.path().join(CONFIG))?;
        Ok(())
    }

    /// When config.json was kept first, which is just before the container's first process is made.
    pub(crate) fn config_written(&self) -> Result<SystemTime> {
        Ok(SystemTime::UNIX_EPOCH + Duration::from(self.config_time()?))
    }

    fn config_time(&self) -> Result<TimeSpec> {
        let status = fstatat(&self.fd, CONFIG, AtFlags::AT_SYMLINK_NOFOLLOW).call("stat", self.path().join(CONFIG))?;
        Ok(TimeSpec::new(status.st_mtime, status.st_mtime_nsec))
    }

    /// Says that this process is about to freeze the container.
    pub(crate) fn mark_pausing(&self) -> Result<()> {
        self.write_file(PAUSING, &serde_json::to_vec(&Identity::own().ok())?)
    }

    /// The container is frozen, or isn't and won't be.
    pub(crate) fn clear_pausing(&self) -> Result<()> {
        Ok(self.unlink(PAUSING)?)
    }

    /// Thaws a frozen container if the `pause` that froze it was killed before it was done: nobody was told that it is
    /// paused. False if it is to stay frozen.
    ///
    /// With the lock, which a caller that has none takes for this: what is thawed must not be what another `pause` has
    /// frozen meanwhile.
    pub(super) fn thaw_half_paused(&self, cgroup: &dyn Cgroup, held: Option<&Lock>) -> bool {
        if !self.is_half_paused() {
            return false;
        }
        let taken = if held.is_none() { self.try_lock().ok().flatten() } else { None };
        if held.is_none() && taken.is_none() {
            // Whoever has it sees to it.
            return false;
        }
        if !self.is_half_paused() {
            return !cgroup.frozen().unwrap_or(false);
        }
        log::warn!("container {:?}: a pause was killed before all processes were frozen: they run again", self.name);
        let thawed = cgroup.thaw().and_then(|()| self.clear_pausing());
        thawed.inspect_err(|error| log::warn!("container {:?}: {error:#}", self.name)).is_ok()
    }

    /// Whether somebody began to freeze it who is gone.
    fn is_half_paused(&self) -> bool {
        let pauser = match self.read_file(PAUSING) {
            Err(error) if error.errno() == Errno::ENOENT => return false,
            Ok(bytes) => serde_json::from_slice::<Option<Identity>>(&bytes).unwrap_or_default(),
            // Not ours to look into; whose it is will see to it.
            Err(_) => return false,
        };
        !pauser.is_some_and(Identity::alive)
    }
}
