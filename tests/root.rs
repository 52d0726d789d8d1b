//! The black-box suite: drives the built binary as root against real bundles.
//!
//! The binary is `$TARE_BIN`, else `bin/tare`; another runtime may be put there to check the tests themselves.

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

mod root {
    mod apparmor;
    mod bad_input;
    mod bind_sources;
    mod budget;
    mod busybox;
    mod cgroup_edges;
    mod cgroup_table;
    mod cgroup_trouble;
    mod cgroups;
    mod children;
    mod commands;
    mod crash;
    mod create;
    mod delete;
    mod descriptors;
    mod deviations;
    mod devices;
    mod diagnosis;
    mod events;
    mod exec;
    mod exec_cgroup;
    mod exec_errors;
    mod exec_many;
    mod exec_process;
    mod exec_terminal;
    mod fallbacks;
    #[cfg(target_arch = "x86_64")]
    mod filtered;
    mod first_thread;
    mod hold;
    mod hooks;
    mod identity;
    mod idmap;
    mod interrupt;
    mod join_user;
    mod kill;
    mod list;
    mod lost;
    mod lsm;
    mod mount_options;
    mod mounts;
    mod namespaces;
    mod nested;
    mod notify;
    mod notify_errors;
    mod notify_systemd;
    mod pause;
    mod process;
    mod process_edges;
    mod ps;
    mod regressions;
    mod rootfs;
    mod rootless;
    mod rootless_ids;
    mod rootless_mounts;
    mod run;
    mod seccomp;
    mod seccomp_notify;
    mod selinux;
    mod small;
    mod start;
    mod state;
    mod stress;
    mod systemd;
    mod systemd_user;
    mod terminal;
    mod terminal_streams;
    mod update;
    mod update_devices;
    mod userns;
}
