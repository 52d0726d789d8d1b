//! memcpy(3) and memmove(3) for musl on x86_64, whose own is `rep movsq` for whatever length: that takes some thirty cycles to get going,
//! and most copies here are short. Included by `main.rs`, and by the library for its tests alone, under another name.

#![allow(unsafe_code)]

use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_storeu_si128};

/// From here on the processor's own loop is faster (ERMS).
const LONG: usize = 512;

/// memcpy(3).
///
/// # Safety
/// As for memcpy(3): `count` bytes can be read at `from` and written at `to`, and the two don't overlap.
// LLVM makes calls of memcpy from loops that copy, except in a function of this name.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[allow(clippy::multiple_unsafe_ops_per_block)]
pub(crate) unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise; every access below is within `count` bytes of `from` and `to`.
    unsafe {
        match count {
            0 => {}
            1 => to.write(from.read()),
            2..4 => ends::<u16>(to, from, count),
            4..8 => ends::<u32>(to, from, count),
            8..16 => ends::<u64>(to, from, count),
            16..LONG => {
                let mut at = 0;
                while at < count - 16 {
                    _mm_storeu_si128(to.add(at).cast::<__m128i>(), _mm_loadu_si128(from.add(at).cast::<__m128i>()));
                    at += 16;
                }
                let last = count - 16;
                _mm_storeu_si128(to.add(last).cast::<__m128i>(), _mm_loadu_si128(from.add(last).cast::<__m128i>()));
            }
            _ => {
                forwards(to, from, count);
            }
        }
    }
    to
}

/// memmove(3): musl's is part of its memcpy, so both have to be here.
///
/// # Safety
/// As for memmove(3): `count` bytes can be read at `from` and written at `to`.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= count {
        // Going forwards each byte is read before it is written; `memcpy` takes its last steps in another order.
        let clear = from.addr().wrapping_sub(to.addr()) >= count;
        // SAFETY: the caller's promise.
        return if clear { unsafe { memcpy(to, from, count) } } else { unsafe { forwards(to, from, count) } };
    }
    let last = count - 1;
    // SAFETY: from the last byte to the first; the direction flag is as it was afterwards. `count` isn't 0 here.
    unsafe {
        std::arch::asm!(
            "std",
            "rep movsb",
            "cld",
            inout("rcx") count => _,
            inout("rdi") to.wrapping_add(last) => _,
            inout("rsi") from.wrapping_add(last) => _,
            options(nostack)
        );
    }
    to
}

/// Byte by byte as far as anybody can tell.
unsafe fn forwards(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise, which is that of memmove(3).
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") count => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags)
        );
    }
    to
}

/// Copies the first and the last bytes, as many as `T` has, which may overlap.
#[inline(always)]
#[allow(clippy::multiple_unsafe_ops_per_block)]
unsafe fn ends<T>(to: *mut u8, from: *const u8, count: usize) {
    let last = count - size_of::<T>();
    // SAFETY: `count` is at least the size of `T`, and that many bytes are there.
    unsafe {
        let (head, tail) = (from.cast::<T>().read_unaligned(), from.add(last).cast::<T>().read_unaligned());
        to.cast::<T>().write_unaligned(head);
        to.add(last).cast::<T>().write_unaligned(tail);
    }
}

#[cfg(test)]
#[path = "memory/tests.rs"]
mod tests;
