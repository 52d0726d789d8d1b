//! tare: a low-level, daemonless OCI container runtime.
//!
//! A container goes through four stages, and each is a folder, in the order data flows:
//!
//! | stage | what it holds | may touch the host |
//! |---|---|---|
//! | [`spec`] | what was asked: the types of config.json, its defaults, its rules | reads the bundle |
//! | [`plan`] | what to do: everything decided before the first side effect | no: a pure function |
//! | [`launch`] | doing it, outside: runs in the caller's namespaces | yes |
//! | [`init`] | doing it, inside: runs in the cloned process and ends in `execve` | yes |
//!
//! At their side: [`cgroup`] (limits), [`seccomp`] (a compiler of profiles), [`lsm`] (AppArmor and SELinux labels),
//! [`state`] (the container on disk), [`sync`] (what the two processes say to each other), [`commands`] (one file a verb), and [`sys`], the only
//! folder with `unsafe`.
//!
//! A `create` is read side by side in [`launch::create`] (outside) and [`init`] (inside), an `exec` in [`launch::exec`]
//! and [`init::join`]; both end in `init::task`, what every process of a container does to itself before `execve`.
//!
//! The process stays single threaded: `setns` and `clone` depend on it. Nothing but [`log`]'s sink is global.

pub(crate) mod cgroup;
pub(crate) mod cli;
pub(crate) mod clock;
pub(crate) mod commands;
pub(crate) mod error;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
pub(crate) mod host;
pub(crate) mod init;
pub(crate) mod json;
pub(crate) mod launch;
pub(crate) mod log;
pub(crate) mod lsm;
pub(crate) mod plan;
pub(crate) mod seccomp;
pub(crate) mod signal;
pub(crate) mod spec;
pub(crate) mod state;
pub(crate) mod sync;
pub(crate) mod sys;

pub use sys::heap::Allocator;

/// Runs the command line, program name first, and leaves the process.
pub fn main(args: Vec<std::ffi::OsString>) -> ! {
    sys::fs::open_closed_stdio();
    sys::process::ignore_sigpipe();
    cli::main(args)
}
