//! seccomp: a pure compiler from an OCI profile to a classic BPF program.
//!
//! [`compile`] touches nothing of the host; `sys::seccomp::load` installs what it returns.
//!
//! | file | step |
//! |---|---|
//! | `profile` | strings of config.json -> actions, conditions, flags; every error names its property |
//! | `arch` | architectures: audit tokens, which of them one kernel can run |
//! | `names` | name -> its numbers, an index over the tables of the crate `syscalls` |
//! | `verdict` | rules -> what each system call number gets, as runs of equal verdict |
//! | `code` | runs -> instructions, a tree of JGE with chains of JEQ at its ends |
//!
//! # What is whose
//!
//! Numbers and names come from `syscalls`, constants from `libc`; everything else is ours, instructions of argument
//! conditions included: `docs/dependencies.md` says why `seccompiler` doesn't serve here.
//!
//! # Semantics
//!
//! The contract is what runc with libseccomp 2.5 does, which is what profiles are written for. `tests/oracle.rs` compares
//! the two and lists where they differ.
//!
//! - A rule whose action (errno included) equals the default is skipped, before anything else is decided.
//! - Unconditional rules beat conditional ones wherever they stand; among several the first one counts.
//! - Among conditional rules the first match counts. libseccomp orders these by its own tree, not by the profile, so
//!   no profile can depend on more than that.
//! - Conditions of a rule are ANDed, unless two look at the same argument: then each becomes a rule of its own.
//! - `SCMP_CMP_MASKED_EQ`: `arg & value == valueTwo & value`.
//! - 32-bit architectures have 32-bit arguments: values are cut to that, so that -1 written as 2^64-1 matches.
//!   x32 passes 64-bit registers and is compared at 64 bits, where libseccomp looks at the low half only.
//! - `socketcall` and `ipc` carry other calls; a rule about `socket` is also one about `socketcall(SYS_SOCKET, ..)`.
//!   Its conditions on the first argument can't be tested there and count as true; libseccomp does the same.
//! - Where the default refuses, numbers above the highest one that the profile names answer ENOSYS, so that libc
//!   falls back (runc's patchbpf). Not where the default is ALLOW, LOG or TRACE.
//! - SCMP_ACT_NOTIFY makes a listener, which the outside hands to an agent (`launch::listener`); not as the default.
//! - An architecture that the profile doesn't name, x32 included, is killed (libseccomp's bad-arch action). The
//!   native one is always named. Architectures this kernel can't run are left out: their branch could never be taken.

mod arch;
mod code;
mod names;
mod profile;
#[cfg(test)]
mod tests;
mod verdict;

use anyhow::{Context, Result};

use self::arch::Arch;
use crate::error::invalid;
use crate::spec;

/// The kernel's `BPF_MAXINSNS`.
const MAX_INSNS: usize = 4096;

/// One instruction of a classic BPF program: `struct sock_filter`, and laid out as that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Insn {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

/// A compiled profile, ready to install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) program: Vec<Insn>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub(crate) flags: u64,
    /// Whether some system call may end the process, or make it wait for somebody.
    pub(crate) deadly: bool,
}

impl Filter {
    /// Whether loading it makes a listener, which somebody must get.
    pub(crate) fn notifies(&self) -> bool {
        self.flags & profile::NEW_LISTENER != 0
    }

    /// Whether it needs Linux 5.19: the kernel's own answer doesn't tell.
    pub(crate) fn waits_killable(&self) -> bool {
        self.flags & profile::WAIT_KILLABLE_RECV != 0
    }
}

/// The architectures whose system calls are known by name, sorted.
pub(crate) fn architectures() -> Vec<&'static str> {
    let known = arch::ALL.iter().filter(|(_, arch)| names::known(*arch)).map(|(name, _)| *name);
    let mut sorted: Vec<&str> = known.collect();
    sorted.sort_unstable();
    sorted
}

/// Compiles a profile for this machine. Errors name the property by its path; warnings are returned, and belong at
/// debug level: names that only newer or other machines know are common in good profiles.
pub(crate) fn compile(profile: &spec::Seccomp) -> Result<(Filter, Vec<String>)> {
    compile_for(profile, Arch::native().context("seccomp isn't supported on this architecture")?)
}

fn compile_for(profile: &spec::Seccomp, native: Arch) -> Result<(Filter, Vec<String>)> {
    let mut profile = profile::parse(profile, native)?;
    let decision = verdict::decide(&profile);
    let program = code::generate(&decision, profile.default);
    if program.len() > MAX_INSNS {
        let what = format!("needs {} BPF instructions, the kernel takes at most {MAX_INSNS}", program.len());
        return Err(invalid("/linux/seccomp/syscalls", what));
    }
    if !decision.unknown.is_empty() {
        let text = format!("seccomp: unknown system calls, skipped: {}", decision.unknown.join(" "));
        profile.warnings.push(text);
    }
    let deadly = profile.is_deadly();
    Ok((Filter { program, flags: profile.flags, deadly }, profile.warnings))
}
