//! One file a command: `run(&Global, Args)` does it and returns the exit status of the process.
//!
//! Nothing here prints an error: it is returned, and [`crate::cli`] reports it once.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod features;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod pause;
pub(crate) mod ps;
pub(crate) mod resume;
pub(crate) mod run;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod update;

pub(crate) use crate::json::pretty;
