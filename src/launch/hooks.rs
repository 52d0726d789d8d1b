//! Hooks: other people's programs, run at fixed points of a container's life with its state on standard input.
//!
//! Runs outside for `prestart`, `createRuntime`, `poststart` and `poststop`, and inside, in the cloned process, for
//! `createContainer` and `startContainer`: hence no thread and no libc fork.

use std::ffi::CString;

use anyhow::{Result, bail};

use crate::spec::{Hook, State};

/// The six points of config.md, "POSIX-platform Hooks".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Kind {
    /// The name in config.json.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

/// Runs hooks in order; the first that fails ends it. `environment` is for hooks that name none of their own.
pub(crate) fn run(kind: Kind, hooks: &[Hook], state: &State, environment: &[CString]) -> Result<()> {
    let _ = (state, environment);
    if !hooks.is_empty() {
        bail!("{} hooks are not implemented", kind.name());
    }
    Ok(())
}

/// Runs every poststop hook: the container is gone, so a failure is a warning and the next one runs all the same.
pub(crate) fn run_poststop(hooks: &[Hook], state: &State, environment: &[CString]) {
    if let Err(error) = run(Kind::Poststop, hooks, state, environment) {
        log::warn!("{error:#}");
    }
}
