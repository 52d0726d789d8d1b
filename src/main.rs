//! The binary: everything is in the library, see `lib.rs`.

#![no_main]

#[path = "sys/entry.rs"]
mod entry;
#[cfg(all(target_env = "musl", target_arch = "x86_64"))]
#[path = "sys/memory.rs"]
mod memory;

#[global_allocator]
static ALLOCATOR: tare::Allocator = tare::Allocator;
