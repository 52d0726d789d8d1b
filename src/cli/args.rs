//! The types of the command line: what each command takes. No logic; the help texts are the manual.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::Id;
use crate::cgroup::Manager;
use crate::log::Format;

/// A low-level, daemonless OCI container runtime
#[derive(Debug, Parser)]
#[command(
    name = "tare",
    disable_help_subcommand = true,
    disable_version_flag = true,
    args_override_self = true,
    after_help = "See 'tare COMMAND --help' for a command's options."
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) options: Options,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// The global options as they were given; [`super::Global`] is what they mean.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Where the state of containers is kept [default: /run/tare, or $XDG_RUNTIME_DIR/tare when rootless]
    #[arg(long, value_name = "DIR")]
    pub(super) root: Option<PathBuf>,
    /// Append messages to this file; the error is printed on stderr as well
    #[arg(long, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
    /// How messages are written
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(super) log_format: Format,
    /// Log everything, not only warnings and errors
    #[arg(long)]
    pub(super) debug: bool,
    /// The same as --cgroup-manager=systemd
    #[arg(long)]
    pub(super) systemd_cgroup: bool,
    /// What manages cgroups [default: cgroupfs]
    #[arg(long, value_enum, value_name = "MANAGER")]
    pub(super) cgroup_manager: Option<Manager>,
    /// Whether cgroups that can't be written are ignored
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    pub(super) rootless: Rootless,
    /// Print the version
    #[arg(long, short = 'v')]
    pub(super) version: bool,
}

/// `--rootless`: whether failing to write cgroups is fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rootless {
    /// When not root, or root of a user namespace that isn't the initial one.
    Auto,
    True,
    False,
}

impl ValueEnum for Manager {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Cgroupfs, Self::Systemd, Self::Disabled]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        let name = match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
            Self::Disabled => "disabled",
        };
        Some(clap::builder::PossibleValue::new(name))
    }
}

#[derive(Debug, Subcommand)]
#[command(args_override_self = true)]
pub(super) enum Command {
    Create(CreateCommand),
    Start(StartArgs),
    Run(RunArgs),
    Exec(ExecArgs),
    State(StateArgs),
    List(ListArgs),
    Kill(KillArgs),
    Pause(PauseArgs),
    Resume(ResumeArgs),
    Ps(PsArgs),
    Events(EventsArgs),
    Update(UpdateArgs),
    Delete(DeleteArgs),
    Spec(SpecArgs),
    Features(FeaturesArgs),
}

/// Create a container: everything up to the execution of its program, which `start` releases
///
/// Returns when the container's process is ready and waits for `tare start ID`.
#[derive(Debug, Args)]
#[command(after_help = "Example: tare create --bundle /srv/web web && tare start web")]
pub(super) struct CreateCommand {
    #[command(flatten)]
    pub(super) create: CreateArgs,
    /// Accepted for the sake of callers that send it with `run`; create never becomes a subreaper.
    #[arg(long, hide = true)]
    no_subreaper: bool,
}

/// What `create` and `run` have in common.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Directory that holds config.json
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// Read this file in place of the bundle's config.json
    #[arg(long, short = 'f', value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Unix socket that receives the descriptor of the container's terminal
    #[arg(long, value_name = "PATH")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Unix socket that receives a pidfd of the container's process
    #[arg(long, value_name = "PATH")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Write the process id of the container here
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Don't use pivot_root: needed when the root file system is an initramfs
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// Pass N descriptors after stdio and those of $LISTEN_FDS
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Name of the container, unique on this host
    pub(crate) id: Id,
}

/// Create and start a container
///
/// In the foreground: waits, forwards signals, deletes the container at its end and exits with its status
/// (128+n when signal n killed it).
#[derive(Debug, Args)]
#[command(after_help = "Example: tare run --bundle /srv/web web")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) create: CreateArgs,
    /// Return as soon as the container runs
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Don't delete the container when it ends
    #[arg(long)]
    pub(crate) keep: bool,
    /// Don't become the reaper of the container's orphans
    #[arg(long)]
    pub(crate) no_subreaper: bool,
}

/// Execute a further program in a container
///
/// Waits and exits with its status (128+n when signal n killed it); a failure of tare itself is 255.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: tare exec --tty web sh\nOptions stand before the container's name: what follows it belongs to the program."
)]
pub(crate) struct ExecArgs {
    /// Take the whole process from this file (the process object of config.json)
    #[arg(long, short, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    /// Give it a terminal
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// Accepted for people who type -it; standard input is passed on in any case.
    #[arg(long, short, hide = true)]
    interactive: bool,
    /// Return as soon as it runs
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Unix socket that receives the descriptor of the terminal
    #[arg(long, value_name = "PATH")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Unix socket that receives a pidfd of the process
    #[arg(long, value_name = "PATH")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Write the process id here
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// Set a variable, beside those of the container
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Numeric user, and group
    #[arg(long, short, value_name = "UID[:GID]", value_parser = user)]
    pub(crate) user: Option<(u32, Option<u32>)>,
    /// Add a supplementary group
    #[arg(long, short = 'g', value_name = "GID", value_parser = group)]
    pub(crate) additional_gids: Vec<u32>,
    /// Add a capability to the bounding, effective and permitted sets
    #[arg(long, short, value_name = "CAP")]
    pub(crate) cap: Vec<String>,
    /// Whether it may never gain privileges by execve [default: as the container]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) no_new_privs: Option<bool>,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    pub(crate) process_label: Option<String>,
    /// Run in an existing cgroup below the container's
    #[arg(long, value_name = "[CONTROLLER[,CONTROLLER]:]PATH")]
    pub(crate) cgroup: Vec<String>,
    /// Pass N descriptors after stdio and those of $LISTEN_FDS
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Go on although the container is paused
    #[arg(long)]
    pub(crate) ignore_paused: bool,
    /// Accepted for the sake of callers that send it
    #[arg(long, hide = true)]
    no_subreaper: bool,
    /// Name of the container
    pub(crate) id: Id,
    /// The program and its arguments
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// A numeric id, digits only: nothing is ever looked up by name, and nothing that isn't a number is 0 (CVE-2026-30892).
fn group(text: &str) -> anyhow::Result<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(id) if digits && id != u32::MAX => Ok(id),
        _ => anyhow::bail!("{text:?} is not an id: expected a number from 0 to 4294967294"),
    }
}

fn user(text: &str) -> anyhow::Result<(u32, Option<u32>)> {
    match text.split_once(':') {
        Some((uid, gid)) => Ok((group(uid)?, Some(group(gid)?))),
        None => Ok((group(text)?, None)),
    }
}

/// Execute the program of a created container
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Name of the container
    pub(crate) id: Id,
}

/// Print the state of a container as JSON
#[derive(Debug, Args)]
pub(crate) struct StateArgs {
    /// Name of the container
    pub(crate) id: Id,
}

/// List the containers
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// How to print them
    #[arg(long, short, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: ListFormat,
    /// Print only names
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// `list --format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    Table,
    Json,
}

/// Send a signal to a container
#[derive(Debug, Args)]
#[command(after_help = "Example: tare kill web KILL")]
pub(crate) struct KillArgs {
    /// Send it to every process of the container; succeeds if there is none
    #[arg(long, short)]
    pub(crate) all: bool,
    /// Name of the container
    pub(crate) id: Id,
    /// Name with or without SIG, or number
    #[arg(default_value = "TERM", value_parser = crate::signal::parse)]
    pub(crate) signal: i32,
}

/// Freeze every process of a container
///
/// Returns when all are frozen; if some can't be, all run again and it fails.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// Name of the container
    pub(crate) id: Id,
}

/// Let the processes of a paused container run again
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// Name of the container
    pub(crate) id: Id,
}

/// List the processes of a container
#[derive(Debug, Args)]
#[command(
    after_help = "Example: tare ps web -o pid,comm\nOptions stand before the container's name: what follows it belongs to ps."
)]
pub(crate) struct PsArgs {
    /// How to print them: ps's table, or a list of process ids as the host numbers them
    #[arg(long, short, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: ListFormat,
    /// Name of the container
    pub(crate) id: Id,
    /// Options of ps; its output must have a column PID [default: -ef]
    #[arg(value_name = "PS-ARGS")]
    pub(crate) args: Vec<std::ffi::OsString>,
}

/// Print what a container uses, and its out-of-memory kills, as JSON
///
/// A line now and then until the container has ended.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Time between two lines, such as 300ms, 5s or 1m30s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = super::duration::parse)]
    pub(crate) interval: std::time::Duration,
    /// Print one line and end
    #[arg(long)]
    pub(crate) stats: bool,
    /// Name of the container
    pub(crate) id: Id,
}

/// Change the limits of a container
///
/// What isn't given stays as it is. Sizes take a suffix (k, m, g, t, p); -1 is unlimited.
#[derive(Debug, Args)]
#[command(after_help = "Example: tare update --memory 512m --pids-limit 100 web\n\
    With --resources the other limits on the command line are ignored.")]
pub(crate) struct UpdateArgs {
    /// Read them from this file, or standard input (-), as config.json has them in linux.resources
    #[arg(long, short, value_name = "FILE")]
    pub(crate) resources: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) limits: Limits,
    /// Set a memory limit below what is in use even if processes are killed for it
    #[arg(long)]
    pub(crate) allow_oom: bool,
    /// Name of the container
    pub(crate) id: Id,
}

/// The limits of `update`'s command line.
#[derive(Debug, Args)]
pub(crate) struct Limits {
    /// Weight of its block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub(crate) blkio_weight: Option<u16>,
    /// Length of a period of CPU time, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_period: Option<u64>,
    /// CPU time allowed in a period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// CPU time that may be saved up for a burst, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_burst: Option<u64>,
    /// CPU shares, relative to other containers
    #[arg(long, value_name = "SHARES")]
    pub(crate) cpu_share: Option<u64>,
    /// Length of a period of real-time CPU time, in microseconds (cgroup v1)
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_rt_period: Option<u64>,
    /// Real-time CPU time allowed in a period, in microseconds (cgroup v1)
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    pub(crate) cpu_rt_runtime: Option<i64>,
    /// 1: run only when nothing else wants to (SCHED_IDLE); 0: as usual
    #[arg(long, value_name = "0|1", allow_negative_numbers = true)]
    pub(crate) cpu_idle: Option<i64>,
    /// CPUs to run on, such as 0-2,7
    #[arg(long, value_name = "CPUS")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes to allocate from, such as 0-1
    #[arg(long, value_name = "NODES")]
    pub(crate) cpuset_mems: Option<String>,
    /// Memory limit
    #[arg(long, value_name = "BYTES", value_parser = super::size::parse)]
    pub(crate) memory: Option<i64>,
    /// Soft limit of memory
    #[arg(long, value_name = "BYTES", value_parser = super::size::parse)]
    pub(crate) memory_reservation: Option<i64>,
    /// Limit of memory and swap together
    #[arg(long, value_name = "BYTES", value_parser = super::size::parse)]
    pub(crate) memory_swap: Option<i64>,
    /// Number of processes
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Intel RDT: cache
    #[arg(long, value_name = "SCHEMA")]
    pub(crate) l3_cache_schema: Option<String>,
    /// Intel RDT: memory bandwidth
    #[arg(long, value_name = "SCHEMA")]
    pub(crate) mem_bw_schema: Option<String>,
    /// The kernel has no such limit any more.
    #[arg(long, hide = true)]
    pub(crate) kernel_memory: Option<String>,
    /// The same.
    #[arg(long, hide = true)]
    pub(crate) kernel_memory_tcp: Option<String>,
}

/// Remove what is left of a stopped or created container
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Kill it first; succeeds if there is no such container
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Take ID as an extended regular expression, and delete every container whose name it matches
    #[arg(long, short)]
    pub(crate) regex: bool,
    /// Name of the container, or with --regex an expression
    pub(crate) id: String,
}

/// Write a default config.json
///
/// An existing file is never overwritten.
#[derive(Debug, Args)]
#[command(after_help = "Example: mkdir -p web/rootfs && tare spec --bundle web")]
pub(crate) struct SpecArgs {
    /// Directory to write it to
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// Make one that the calling user can run
    #[arg(long)]
    pub(crate) rootless: bool,
}

/// Print what this runtime supports as JSON
#[derive(Debug, Args)]
pub(crate) struct FeaturesArgs {}
