//! The binary: everything is in the library, see `lib.rs`.

#![no_main]

#[path = "sys/entry.rs"]
mod entry;
#[path = "sys/heap.rs"]
mod heap;

#[global_allocator]
static HEAP: heap::Heap = heap::Heap::new();
