//! The binary: everything is in the library, see `lib.rs`.

#![no_main]

#[path = "sys/entry.rs"]
mod entry;
