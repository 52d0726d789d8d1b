//! The only folder with `unsafe`: thin wrappers of system calls that nix lacks or wraps in a way that
//! doesn't suit a process without libc's threads.
//!
//! Each is named as its man page is, sets `O_CLOEXEC` and friends itself, takes borrowed descriptors,
//! returns owned ones, and fails with [`Error`], which prints as the call that failed.

#![allow(unsafe_code)]
// Kernel and libc types differ in sign and width; each conversion here is of a small constant or a descriptor.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

/// A struct that the kernel is given, laid out as C has it. What lies between two fields would be whatever was in memory
/// before, and newer kernels may have given it a meaning: padding is a field of its own, or this doesn't build.
macro_rules! kernel_struct {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        $vis struct $name { $($(#[$field_meta])* $field_vis $field: $type,)* }
        const _: () = assert!(size_of::<$name>() == 0 $(+ size_of::<$type>())*);
    };
}

pub(crate) mod bpf;
pub(crate) mod clone;
pub(crate) mod environment;
mod error;
pub(crate) mod exe;
mod exit;
pub(crate) mod fs;
pub(crate) mod heap;
#[cfg(test)]
pub(crate) mod libseccomp_for_tests;
#[cfg(all(test, target_arch = "x86_64"))]
mod memory;
pub(crate) mod mount;
mod newer;
pub(crate) mod poll;
pub(crate) mod process;
mod read;
pub(crate) mod regex;
mod resolve;
pub(crate) mod seccomp;
pub(crate) mod socket;
pub(crate) mod tty;

pub(crate) use error::{Context, Error, Result, words};
pub(crate) use exit::exit;
pub(crate) use read::{read_once, read_small, read_whole};
