//! The command line: from the arguments of the process to a command and back to its exit status.
//!
//! Errors come up to [`main`] as values and are reported there, once, on one line.

mod args;
mod duration;
mod fail;
mod id;
mod normalise;
mod root;
mod size;

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, CommandFactory, FromArgMatches};

pub(crate) use args::{
    CreateArgs, DeleteArgs, EventsArgs, ExecArgs, FeaturesArgs, KillArgs, Limits, ListArgs, ListFormat, PauseArgs,
    PsArgs, ResumeArgs, Rootless, RunArgs, SpecArgs, StartArgs, StateArgs, UpdateArgs,
};
pub(crate) use id::Id;

use crate::cgroup::Manager;
use crate::error::Interrupted;
use crate::host::Host;
use crate::sys::Context as _;
use crate::{commands, log, spec, sys};
use args::{Cli, Command, CreateCommand, Options};
use normalise::Normalised;

/// The version of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it is built from, as `build.rs` found it.
pub(crate) const COMMIT: &str = match option_env!("TARE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// What holds for every command.
#[derive(Debug)]
pub(crate) struct Global {
    /// Where containers are kept; absolute. Only commands that write make it.
    pub(crate) root: PathBuf,
    /// Whether `--root` was given: `list` forgives a missing directory only when it wasn't.
    pub(crate) root_given: bool,
    pub(crate) manager: Manager,
    pub(crate) rootless: Rootless,
}

/// Runs the command line and leaves the process.
pub(crate) fn main(args: Vec<OsString>) -> ! {
    fail::hook_panics();
    sys::exit(run(args.into_iter()))
}

/// Prints on stdout. Commands print through it alone: a reader that went away is an exit status, not a panic.
pub(crate) fn output(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(fail::ReaderGone.into()),
        done => Ok(done.call("write", "standard output")?),
    }
}

/// Does what the command line says; the exit status, with the error reported.
fn run(args: impl Iterator<Item = OsString>) -> i32 {
    let words: Vec<OsString> = args.skip(1).collect();
    // Whatever comes of it but a command to run is said by the whole definition.
    let mut definition = brief(&words);
    let normalised = normalise::normalise(&definition, words.iter().cloned());
    let arguments = normalised.args.clone();
    let parsed = parse(&mut definition, arguments).ok().filter(|cli| cli.options.version || cli.command.is_some());
    let (normalised, parsed) = match parsed {
        Some(cli) => (normalised, Some(cli)),
        None => (normalise::normalise(&Cli::command(), words.into_iter()), None),
    };
    // Engines tell a failure of the runtime from the program's own by it.
    let failure = if normalised.command.as_deref() == Some("exec") { 255 } else { 1 };
    act(parsed, normalised).unwrap_or_else(|error| {
        // As if the signal had ended the program, which didn't come so far.
        let interrupted = error.downcast_ref::<Interrupted>().map(|interrupted| 128 + interrupted.signal);
        fail::report(&error, interrupted.unwrap_or(failure))
    })
}

/// Adds to a command what it takes.
type Augment = fn(clap::Command) -> clap::Command;

/// The commands and what they take.
const COMMANDS: [(&str, Augment); 15] = [
    ("create", CreateCommand::augment_args),
    ("start", StartArgs::augment_args),
    ("run", RunArgs::augment_args),
    ("exec", ExecArgs::augment_args),
    ("state", StateArgs::augment_args),
    ("list", ListArgs::augment_args),
    ("kill", KillArgs::augment_args),
    ("pause", PauseArgs::augment_args),
    ("resume", ResumeArgs::augment_args),
    ("ps", PsArgs::augment_args),
    ("events", EventsArgs::augment_args),
    ("update", UpdateArgs::augment_args),
    ("delete", DeleteArgs::augment_args),
    ("spec", SpecArgs::augment_args),
    ("features", FeaturesArgs::augment_args),
];

/// The definition without the commands that no word names: to make all of them takes longer than to parse.
fn brief(words: &[OsString]) -> clap::Command {
    let base = clap::Command::new("tare").disable_help_subcommand(true).disable_version_flag(true);
    let base = Options::augment_args(base.args_override_self(true));
    let named = COMMANDS.iter().filter(|(name, _)| words.iter().any(|word| word == name));
    named.fold(base, |base, (name, augment)| base.subcommand(augment(clap::Command::new(*name))))
}

fn parse(definition: &mut clap::Command, args: Vec<OsString>) -> Result<Cli, clap::Error> {
    let mut matches = definition.try_get_matches_from_mut(std::iter::once("tare".into()).chain(args))?;
    Cli::from_arg_matches_mut(&mut matches)
}

/// `parsed`: where the brief definition could tell.
fn act(parsed: Option<Cli>, normalised: Normalised) -> Result<i32> {
    // First thing, so that a mistake on the command line reaches the log as well.
    let (path, format, debug) = normalise::log_options(&normalised.args);
    log::init(path, format, debug)?;

    let parsed = parsed.map_or_else(|| parse(&mut Cli::command(), normalised.args), Ok);
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return fail::usage(&error, normalised.command.as_deref()),
    };
    if cli.options.version {
        output(&version())?;
        return Ok(0);
    }
    let Some(command) = cli.command else {
        output(&Cli::command().render_help().to_string())?;
        return Ok(0);
    };
    dispatch(cli.options, command)
}

fn dispatch(options: Options, command: Command) -> Result<i32> {
    // These two answer whatever the state of the host is, so they resolve no root.
    let command = match command {
        Command::Spec(args) => return commands::spec::run(&args),
        Command::Features(args) => return commands::features::run(&args),
        command => command,
    };
    let global = Global::new(options)?;
    match command {
        Command::Create(args) => commands::create::run(&global, args.create),
        Command::Start(args) => commands::start::run(&global, args),
        Command::Run(args) => commands::run::run(&global, args),
        Command::Exec(args) => commands::exec::run(&global, &args),
        Command::State(args) => commands::state::run(&global, args),
        Command::List(args) => commands::list::run(&global, args),
        Command::Kill(args) => commands::kill::run(&global, args),
        Command::Pause(args) => commands::pause::run(&global, args),
        Command::Resume(args) => commands::resume::run(&global, args),
        Command::Ps(args) => commands::ps::run(&global, args),
        Command::Events(args) => commands::events::run(&global, args),
        Command::Update(args) => commands::update::run(&global, args),
        Command::Delete(args) => commands::delete::run(&global, args),
        Command::Spec(_) | Command::Features(_) => Ok(0),
    }
}

impl Global {
    fn new(options: Options) -> Result<Self> {
        let manager = match (options.systemd_cgroup, options.cgroup_manager) {
            (true, Some(manager)) if manager != Manager::Systemd => {
                bail!("--systemd-cgroup contradicts --cgroup-manager: expected one of them");
            }
            (true, _) => Manager::Systemd,
            (false, manager) => manager.unwrap_or(Manager::Cgroupfs),
        };
        Ok(Self {
            root_given: options.root.is_some(),
            root: root::resolve(options.root)?,
            manager,
            rootless: options.rootless,
        })
    }

    /// Whether a cgroup that can't be made is forgiven: what `--rootless` says, else whether we are root of the host.
    pub(crate) fn is_rootless(&self, host: &Host) -> bool {
        match self.rootless {
            Rootless::True => true,
            Rootless::False => false,
            Rootless::Auto => host.euid != 0 || !host.initial_user_namespace,
        }
    }
}

/// Engines parse these three lines.
fn version() -> String {
    format!("tare version {VERSION}\ncommit: {COMMIT}\nspec: {}\n", spec::OCI_VERSION)
}

#[cfg(test)]
mod tests;
