//! libseccomp, opened at run time: what our compiler of profiles is compared with. Of the tests only; the product knows
//! nothing of it.

// The types of the functions stand in `Library`.
#![allow(clippy::missing_transmute_annotations)]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::io::{Read, Seek};
use std::os::fd::AsRawFd;

use crate::seccomp::Insn;

/// `struct scmp_arg_cmp`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Comparison {
    pub(crate) index: c_uint,
    /// `enum scmp_compare`: 1 to 7 are NE, LT, LE, EQ, GE, GT, MASKED_EQ.
    pub(crate) op: c_int,
    pub(crate) value: u64,
    pub(crate) value_two: u64,
}

type Ctx = *mut c_void;

/// The functions that are needed, as seccomp.h declares them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Library {
    init: extern "C" fn(u32) -> Ctx,
    release: extern "C" fn(Ctx),
    arch_resolve_name: extern "C" fn(*const c_char) -> u32,
    arch_add: extern "C" fn(Ctx, u32) -> c_int,
    arch_remove: extern "C" fn(Ctx, u32) -> c_int,
    syscall_resolve_name: extern "C" fn(*const c_char) -> c_int,
    syscall_resolve_name_arch: extern "C" fn(u32, *const c_char) -> c_int,
    rule_add_array: extern "C" fn(Ctx, u32, c_int, c_uint, *const Comparison) -> c_int,
    export_bpf: extern "C" fn(Ctx, c_int) -> c_int,
}

/// `SCMP_ARCH_NATIVE`, and what resolving an unknown name returns (`__NR_SCMP_ERROR`).
const NATIVE: u32 = 0;
const UNKNOWN: c_int = -1;

impl Library {
    /// `None` where it isn't installed, or programs are linked statically and can't load anything.
    pub(crate) fn open() -> Option<Self> {
        // SAFETY: loading a library runs its constructors; libseccomp's does nothing.
        let handle = unsafe { libc::dlopen(c"libseccomp.so.2".as_ptr(), libc::RTLD_NOW) };
        if handle.is_null() {
            return None;
        }
        macro_rules! function {
            ($name:literal) => {{
                let name: &CStr = $name;
                // SAFETY: the handle is open and is never closed.
                let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
                if address.is_null() {
                    return None;
                }
                // SAFETY: the function has this type in seccomp.h, unchanged since 2.0.
                unsafe { std::mem::transmute::<*mut c_void, _>(address) }
            }};
        }
        Some(Self {
            init: function!(c"seccomp_init"),
            release: function!(c"seccomp_release"),
            arch_resolve_name: function!(c"seccomp_arch_resolve_name"),
            arch_add: function!(c"seccomp_arch_add"),
            arch_remove: function!(c"seccomp_arch_remove"),
            syscall_resolve_name: function!(c"seccomp_syscall_resolve_name"),
            syscall_resolve_name_arch: function!(c"seccomp_syscall_resolve_name_arch"),
            rule_add_array: function!(c"seccomp_rule_add_array"),
            export_bpf: function!(c"seccomp_export_bpf"),
        })
    }

    /// An architecture by its name in lower case ("x86_64"), if this version knows it.
    pub(crate) fn arch(&self, name: &str) -> Option<u32> {
        let name = CString::new(name).unwrap();
        Some((self.arch_resolve_name)(name.as_ptr())).filter(|token| *token != 0)
    }

    /// The number of a system call. Negative ones stand for calls that the architecture hasn't, or has by another.
    pub(crate) fn number(&self, arch: u32, name: &str) -> Option<i32> {
        let name = CString::new(name).unwrap();
        Some((self.syscall_resolve_name_arch)(arch, name.as_ptr())).filter(|number| *number != UNKNOWN)
    }

    /// A filter with this action where no rule matches, for these architectures; `None` if it doesn't take all of them
    /// together (byte orders don't mix).
    pub(crate) fn filter(&self, default: u32, archs: &[u32]) -> Option<Filter<'_>> {
        let ctx = (self.init)(default);
        assert!(!ctx.is_null(), "seccomp_init {default:#x}");
        let filter = Filter { library: self, ctx };
        assert_eq!((self.arch_remove)(ctx, NATIVE), 0);
        archs.iter().all(|arch| (self.arch_add)(ctx, *arch) == 0).then_some(filter)
    }
}

/// A filter in the making.
#[derive(Debug)]
pub(crate) struct Filter<'l> {
    library: &'l Library,
    ctx: Ctx,
}

impl Filter<'_> {
    /// Adds a rule about a call by its name; an unknown one is no rule, as in runc. The negative errno of a failure.
    pub(crate) fn rule(&self, action: u32, name: &str, tests: &[Comparison]) -> Result<(), i32> {
        let name = CString::new(name).unwrap();
        let number = (self.library.syscall_resolve_name)(name.as_ptr());
        if number == UNKNOWN {
            return Ok(());
        }
        let count = c_uint::try_from(tests.len()).unwrap();
        match (self.library.rule_add_array)(self.ctx, action, number, count, tests.as_ptr()) {
            0 => Ok(()),
            error => Err(error),
        }
    }

    /// Its program.
    pub(crate) fn program(&self) -> Vec<Insn> {
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!((self.library.export_bpf)(self.ctx, file.as_raw_fd()), 0, "seccomp_export_bpf");
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let insn = |raw: &[u8]| Insn {
            code: u16::from_ne_bytes([raw[0], raw[1]]),
            jt: raw[2],
            jf: raw[3],
            k: u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]),
        };
        bytes.chunks_exact(8).map(insn).collect()
    }
}

impl Drop for Filter<'_> {
    fn drop(&mut self) {
        (self.library.release)(self.ctx);
    }
}
