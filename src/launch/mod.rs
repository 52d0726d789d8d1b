//! Doing it, outside: what runs in the caller's namespaces.
//!
//! [`create`] is the order of it, the mirror of [`crate::init::enter`]; then [`start`], [`supervise`] and [`delete`].

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod descriptors;
pub(crate) mod hooks;
pub(crate) mod prepare;
pub(crate) mod process;
pub(crate) mod start;
pub(crate) mod supervise;
pub(crate) mod tty;
