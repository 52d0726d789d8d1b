//! The binary's allocator, made for a process of one thread that lives for milliseconds. `main.rs` alone makes it the global
//! one: the library's tests have threads.
//!
//! Blocks come in classes of size, each with a list of free ones. What no list has is carved off a piece of memory, the
//! first of which is part of the program: most commands never ask the kernel for more. What was carved last can grow in
//! place, and is given back when it is freed. Blocks are never merged and pieces never returned, so what is held
//! is at most the sum of each class's peak; blocks above [`LARGEST`] have mappings of their own, and are returned.
//!
//! A clone shares the memory there is with its parent, page by page until either of the two writes to one: that costs a
//! fault, a copy, and in the container's process a page of its memory limit. So what was allocated before
//! [`settle`] is never written to by the allocator again, and both go on in pages that are new.
//!
//! libc's allocator, which libc itself goes on using, was measured against it: docs/performance.md.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::{Cell, UnsafeCell};
use std::ptr::{self, NonNull};

/// What every block is aligned to; a request for more gets a mapping.
const ALIGN: usize = 16;
/// Up to here classes are `ALIGN` apart, above there are four to each doubling.
const FINE: usize = 512;
/// The largest class, in bytes.
const LARGEST: usize = 32 << 10;
/// What a mapping is aligned to at least, in bytes: the smallest pages Linux has.
const PAGE: usize = 4096;
const CLASSES: usize = class(LARGEST) + 1;
/// The first piece: bytes of the program's zeroed memory, which cost nothing until they are touched.
const FIRST: usize = 512 << 10;
/// Each piece after the first.
const PIECE: usize = 1 << 20;

/// The class of a request of 1 to `LARGEST` bytes.
const fn class(size: usize) -> usize {
    if size <= FINE {
        return size.div_ceil(ALIGN);
    }
    let log = (size - 1).ilog2() as usize;
    FINE / ALIGN + 1 + (log - FINE.ilog2() as usize) * 4 + (((size - 1) >> (log - 2)) & 3)
}

/// How many bytes a block has for a request of 1 to `LARGEST` bytes: the largest that has the same class.
const fn rounded(size: usize) -> usize {
    let step = if size <= FINE { ALIGN } else { 1 << ((size - 1).ilog2() - 2) };
    (size + step - 1) & !(step - 1)
}

/// A free block: its first bytes hold the next one of its class.
struct Free {
    next: Option<NonNull<Free>>,
}

#[repr(C, align(16))]
struct First(UnsafeCell<[u8; FIRST]>);

/// An allocator. At most one thread may use it at a time.
// In this order the lists share their page with the first blocks.
#[repr(C)]
struct Heap {
    /// What is left of the current piece: addresses, `end` not included. Both 0 before the first allocation.
    next: Cell<*mut u8>,
    end: Cell<*mut u8>,
    free: [Cell<Option<NonNull<Free>>>; CLASSES],
    /// How many bytes of the first piece are settled. What is in later pieces never is.
    settled: Cell<usize>,
    first: First,
}

static HEAP: Heap = Heap::new();

/// The global allocator. Only for a program of one thread.
#[derive(Debug)]
pub struct Allocator;

// SAFETY: as for `Heap`, of which there is one behind it.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { HEAP.alloc(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { HEAP.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { HEAP.realloc(block, layout, size) }
    }
}

/// Called before a clone that shares this process's memory until one of the two writes to it. What there is by now isn't
/// reused when it is freed.
pub(crate) fn settle() {
    HEAP.settle();
}

// SAFETY: the binary has one thread (`setns` and `clone` depend on it, tests/layering.rs sees to it) and no signal
// handler, so no two calls overlap. A clone without CLONE_VM has a copy of its own.
unsafe impl Sync for Heap {}

impl Heap {
    const fn new() -> Heap {
        let (next, end) = (Cell::new(ptr::null_mut()), Cell::new(ptr::null_mut()));
        let first = First(UnsafeCell::new([0; FIRST]));
        Heap { next, end, free: [const { Cell::new(None) }; CLASSES], settled: Cell::new(0), first }
    }

    /// Only reads a heap that nobody uses, as that of a test's process.
    fn settle(&self) {
        let used = self.next.get().addr().wrapping_sub(self.first.0.get().addr());
        if used <= FIRST {
            self.settled.set(used);
            self.free.iter().for_each(|list| list.set(None));
        }
    }

    /// Whether a block was there when the heap was settled.
    #[inline]
    fn is_settled(&self, block: *mut u8) -> bool {
        block.addr().wrapping_sub(self.first.0.get().addr()) < self.settled.get()
    }

    /// Takes `size` bytes, a multiple of `ALIGN` up to `LARGEST`, off the current piece.
    #[inline]
    fn carve(&self, size: usize) -> *mut u8 {
        let block = self.next.get();
        if self.end.get().addr() - block.addr() < size {
            return self.refill(size);
        }
        self.next.set(block.wrapping_add(size));
        block
    }

    /// Goes on to another piece. What is left of the last is given up: less than `LARGEST` bytes of at least `FIRST`.
    #[cold]
    fn refill(&self, size: usize) -> *mut u8 {
        let (start, length) =
            if self.end.get().is_null() { (self.first.0.get().cast(), FIRST) } else { (map(PIECE), PIECE) };
        if start.is_null() {
            return start;
        }
        self.next.set(start.wrapping_add(size));
        self.end.set(start.wrapping_add(length));
        start
    }

    /// Whether a block of `size` bytes is the one that was carved last.
    #[inline]
    fn is_last(&self, block: *mut u8, size: usize) -> bool {
        block.wrapping_add(size) == self.next.get()
    }
}

/// Whether a request gets a mapping of its own.
#[inline]
fn apart(size: usize, align: usize) -> bool {
    size > LARGEST || align > ALIGN
}

// SAFETY: a block is carved off memory that nothing else has, or comes from its class's list, which `dealloc` alone fills,
// so no two live blocks overlap; all are multiples of `ALIGN` in a piece that is aligned to it, or mappings of their own.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if apart(layout.size(), layout.align()) {
            return map_block(layout);
        }
        let list = &self.free[class(layout.size())];
        let Some(block) = list.get() else { return self.carve(rounded(layout.size())) };
        // SAFETY: what is on a list is free and was written by `dealloc`.
        list.set(unsafe { block.as_ref() }.next);
        block.as_ptr().cast()
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if apart(layout.size(), layout.align()) {
            return unmap(block, layout.size());
        }
        if self.is_settled(block) {
            return;
        }
        if self.is_last(block, rounded(layout.size())) {
            return self.next.set(block);
        }
        let list = &self.free[class(layout.size())];
        let free = block.cast::<Free>();
        // SAFETY: the block is the caller's to give, has at least `ALIGN` bytes and is aligned to as many.
        unsafe { free.write(Free { next: list.get() }) };
        list.set(NonNull::new(free));
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (old, align) = (layout.size(), layout.align());
        match (apart(old, align), apart(size, align)) {
            (false, false) => {
                let (has, wants) = (rounded(old), rounded(size));
                if has == wants {
                    return block;
                }
                // Not while there is a free one of the new class: their number would have no bound.
                let room = self.is_last(block, has) && self.end.get().addr() - block.addr() >= wants;
                if room && self.free[class(size)].get().is_none() {
                    self.next.set(block.wrapping_add(wants));
                    return block;
                }
            }
            (true, true) => return remap(block, old, size),
            _ => {}
        }
        // SAFETY: the caller's promise: `size` isn't 0, and doesn't overflow when rounded up to `align`.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, align) };
        // SAFETY: as above.
        let moved = unsafe { self.alloc(wanted) };
        if !moved.is_null() {
            // SAFETY: both have that many bytes, and are two blocks.
            unsafe { ptr::copy_nonoverlapping(block, moved, old.min(size)) };
            // SAFETY: the caller gave the block with its layout, and gets another.
            unsafe { self.dealloc(block, layout) };
        }
        moved
    }
}

/// mmap(2) of zeroed memory; null when there is none. A multiple of the page size isn't needed.
fn map(size: usize) -> *mut u8 {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, at a place of the kernel's choice, replaces nothing.
    let memory = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
    if memory == libc::MAP_FAILED { ptr::null_mut() } else { memory.cast() }
}

/// A mapping for one block; null when there is no memory, or to be aligned to more than a page, which nobody asks for.
#[cold]
fn map_block(layout: Layout) -> *mut u8 {
    if layout.align() > PAGE { ptr::null_mut() } else { map(layout.size()) }
}

/// mremap(2), wherever there is room; null when there is none.
#[cold]
fn remap(block: *mut u8, old: usize, size: usize) -> *mut u8 {
    // SAFETY: the block is a mapping of its own of `old` bytes, and the caller's to move.
    let memory = unsafe { libc::mremap(block.cast(), old, size, libc::MREMAP_MAYMOVE) };
    if memory == libc::MAP_FAILED { ptr::null_mut() } else { memory.cast() }
}

#[cold]
fn unmap(block: *mut u8, size: usize) {
    // SAFETY: the block is a mapping of its own of that size, and nobody's any more.
    unsafe { libc::munmap(block.cast(), size) };
}

#[cfg(test)]
#[path = "heap/tests.rs"]
mod tests;
