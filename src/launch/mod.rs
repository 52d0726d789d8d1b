//! Doing it, outside: what runs in the caller's namespaces.

pub(crate) mod hooks;
pub(crate) mod supervise;
pub(crate) mod tty;
