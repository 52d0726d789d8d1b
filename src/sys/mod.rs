//! The only folder with `unsafe`: thin wrappers of system calls that nix lacks or wraps in a way that
//! doesn't suit a process without libc's threads.
//!
//! Each is named as its man page is, sets `O_CLOEXEC` and friends itself, takes borrowed descriptors,
//! returns owned ones, and fails with [`Error`], which prints as the call that failed.

#![allow(unsafe_code)]

pub(crate) mod bpf;
mod error;
pub(crate) mod pidfd;

pub(crate) use error::{Context, Error, Result};
