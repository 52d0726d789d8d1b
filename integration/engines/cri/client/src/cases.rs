//! The cases: what a kubelet asks of a runtime, by way of containerd.

mod containers;
mod isolation;
mod pods;
mod resources;

use crate::cri::Cri;

/// Every case by its name, in the order in which they run.
pub const ALL: &[(&str, fn(&Cri))] = &[
    ("status", pods::status),
    ("unknown_handler", pods::unknown_handler),
    ("pod", pods::pod),
    ("pod_default_handler", pods::default_handler),
    ("pod_network", pods::network),
    ("pod_of_the_host_network", pods::host_network),
    ("pod_sysctls", pods::sysctls),
    ("pod_dns", pods::dns),
    ("pod_stop_ends_containers", pods::stop_ends_containers),
    ("pod_sandbox_killed", pods::sandbox_killed),
    ("pods_at_once", pods::at_once),
    ("container", containers::lifecycle),
    ("container_stop", containers::stop),
    ("container_restart", containers::restart),
    ("container_removed_while_running", containers::removed_while_running),
    ("container_never_started", containers::never_started),
    ("container_start_errors", containers::start_errors),
    ("container_options", containers::options),
    ("container_tty", containers::tty),
    ("logs", containers::logs),
    ("logs_reopened", containers::logs_reopened),
    ("exec_sync", containers::exec_sync),
    ("exec_sync_timeout", containers::exec_sync_timeout),
    ("exec_sync_errors", containers::exec_sync_errors),
    ("exec_sync_many", containers::exec_sync_many),
    ("exec_stream", containers::exec_stream),
    ("exec_stream_tty", containers::exec_stream_tty),
    ("attach", containers::attach),
    ("mounts", isolation::mounts),
    ("mount_propagation", isolation::mount_propagation),
    ("volume_of_two_containers", isolation::shared_volume),
    ("users", isolation::users),
    ("capabilities", isolation::capabilities),
    ("no_new_privileges", isolation::no_new_privileges),
    ("seccomp", isolation::seccomp),
    ("masked_paths", isolation::masked_paths),
    ("read_only_root", isolation::read_only_root),
    ("privileged", isolation::privileged),
    ("devices", isolation::devices),
    ("namespaces_of_the_pod", isolation::namespaces_of_the_pod),
    ("namespaces_of_the_host", isolation::namespaces_of_the_host),
    ("namespace_of_another_container", isolation::namespace_of_another_container),
    ("limits", resources::limits),
    ("update", resources::update),
    ("oom_killed", resources::oom_killed),
    ("oom_score", resources::oom_score),
    ("stats", resources::stats),
];
