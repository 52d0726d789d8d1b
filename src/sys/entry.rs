//! The C entry point, included by `main.rs` alone.
//!
//! Rust's own start-up makes about seventeen system calls (a stack guard read from /proc/self/maps, an alternate signal
//! stack) of which this program needs two: standard streams that are open, and SIGPIPE ignored. A run makes about 350.

#![allow(unsafe_code)]

use std::ffi::{CStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;

/// What the C library calls.
// SAFETY: no other symbol of this name is linked in: the crate is `no_main`.
#[unsafe(no_mangle)]
pub extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: the C library passes `argc` pointers, which live as long as the process; a caller may pass none at all.
    let pointers = unsafe { std::slice::from_raw_parts(argv, usize::try_from(argc).unwrap_or(0)) };
    let argument = |pointer: &*const c_char| {
        // SAFETY: each points to a C string that lives as long as the process.
        let text = unsafe { CStr::from_ptr(*pointer) };
        OsString::from_vec(text.to_bytes().to_vec())
    };
    tare::main(pointers.iter().map(argument).collect())
}
