//! One test for each class of flaw that a container runtime has had, named after its CVE. SECURITY.md lists them all.
//!
//! Each says how it was seen to fail: against a build with that defence taken out, or against a rival that lacks it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    dead_code
)]

mod common;

mod security {
    mod cve_2019_5736;
}
