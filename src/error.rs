//! The few kinds of error that a caller matches on, and the phrases that engines grep for.
//!
//! Everything else is an `anyhow` chain, printed once by [`crate::cli`].

use std::fmt::Display;

/// Phrases that engines look for in a runtime's message (features.md 3.1: containerd, podman, moby).
/// They are part of the interface: a test pins each.
pub(crate) mod phrase {
    /// containerd maps it to "not found".
    pub(crate) const DOES_NOT_EXIST: &str = "container does not exist";
    /// containerd maps it to "not found" on kill.
    pub(crate) const NOT_RUNNING: &str = "container not running";
    /// runc's words for `resume` of what isn't paused.
    pub(crate) const NOT_PAUSED: &str = "container not paused";
    /// runc's words for an id that is taken.
    pub(crate) const ALREADY_EXISTS: &str = "container with given ID already exists";
    /// runc's words for `start` after the end.
    pub(crate) const START_STOPPED: &str = "cannot start a container that has stopped";
    /// runc's words for a second `start`.
    pub(crate) const START_RUNNING: &str = "cannot start an already running container";
    /// podman and docker map it to exit status 127.
    pub(crate) const NOT_IN_PATH: &str = "executable file not found in $PATH";
}

/// A property of config.json that can't be honoured: its path, what it holds, what was expected.
#[derive(Debug)]
pub(crate) struct Invalid {
    /// JSON pointer (RFC 6901).
    pub(crate) pointer: String,
    /// What is wrong and what was expected, on one line.
    pub(crate) what: String,
}

impl Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "config.json: {}: {}", self.pointer, self.what)
    }
}

impl std::error::Error for Invalid {}

/// A foreground `run` was asked to end while it made the container.
#[derive(Debug)]
pub(crate) struct Interrupted {
    pub(crate) signal: i32,
}

impl Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "interrupted by {}", crate::signal::name(self.signal))
    }
}

impl std::error::Error for Interrupted {}

/// An error that names a property of config.json by its JSON pointer.
pub(crate) fn invalid(pointer: impl Display, what: impl Display) -> anyhow::Error {
    Invalid { pointer: pointer.to_string(), what: what.to_string() }.into()
}
