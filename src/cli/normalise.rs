//! The dialect of engines, made into one that clap reads.
//!
//! Engines were written against runc's Go flags: `-log x`, `--log=x`, `--debug=false`, global options before the
//! command, a command's options before or after its operands. Here every option that the definition knows becomes
//! `--name` or `--name=value`, in its place before the operands. What it doesn't know goes through for clap to refuse.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::{Arg, ArgAction, Command};

use crate::log::Format;

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Value,
    /// A value after `=`, or none.
    Optional,
    Nothing,
}

/// A command line that clap reads, without the program's name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Normalised {
    pub(super) args: Vec<OsString>,
    /// The command, if it is one: hints name it.
    pub(super) command: Option<String>,
}

/// The words of a command line by what they are.
#[derive(Debug, Default)]
struct Words {
    globals: Vec<OsString>,
    command: Option<OsString>,
    options: Vec<OsString>,
    operands: Vec<OsString>,
}

/// `args` are those after the program's name.
pub(super) fn normalise(definition: &Command, mut args: impl Iterator<Item = OsString>) -> Normalised {
    let mut words = Words::default();
    while let Some(arg) = args.next() {
        if arg == "--" {
            words.operands.extend(args.by_ref());
        } else if arg.len() > 1 && arg.as_bytes().starts_with(b"-") {
            words.option(definition, &arg, &mut args);
        } else if words.command.is_none() {
            words.command = Some(arg);
        } else {
            words.operands.push(arg);
            // What follows the container's name belongs to the program, or to ps.
            if words.command.as_ref().is_some_and(|command| command == "exec" || command == "ps") {
                words.operands.extend(args.by_ref());
            }
        }
    }
    let known = words.chosen(definition).map(|command| command.get_name().to_owned());
    Normalised { args: words.assemble(), command: known }
}

impl Words {
    fn chosen<'a>(&self, definition: &'a Command) -> Option<&'a Command> {
        self.command.as_ref().and_then(|name| definition.find_subcommand(name))
    }

    /// A command's own option, else a global one, wherever it stands.
    fn option(&mut self, definition: &Command, arg: &OsStr, rest: &mut impl Iterator<Item = OsString>) {
        if let Some(letters) = self.joined(definition, arg) {
            return letters.iter().for_each(|letter| self.option(definition, letter, rest));
        }
        let own = self.chosen(definition).and_then(|command| find(command, arg.as_bytes()));
        let global = own.is_none();
        // `frobnicate --help` asks about a command that there isn't: the main help would hide that.
        let unknown = self.command.as_ref().is_some_and(|name| name != "help") && self.chosen(definition).is_none();
        let (list, found) = match own {
            Some(_) => (&mut self.options, own),
            None => match find(definition, arg.as_bytes()) {
                Some((flag, takes)) if unknown && flag == "--help" => (&mut self.options, Some((flag, takes))),
                found => (&mut self.globals, found),
            },
        };
        let Some((flag, takes)) = found else {
            let list = if self.command.is_some() { &mut self.options } else { &mut self.globals };
            return list.push(double_dash(arg));
        };
        match (takes, value_of(arg.as_bytes())) {
            (Takes::Nothing, value) => switch(list, flag, value),
            (Takes::Optional, None) => list.push(flag),
            (Takes::Optional, Some(value)) => {
                let value = boolean(value).map_or(value, |on| if on { b"true" } else { b"false" });
                give(list, &flag, value);
            }
            (Takes::Value, Some(value)) => give(list, &flag, value),
            (Takes::Value, None) => match rest.next() {
                Some(value) => give(list, &flag, value.as_bytes()),
                // It is the last word. What follows it in the new order would pass for its value.
                None => {
                    list.push(flag);
                    self.operands.clear();
                    self.command = self.command.take().filter(|_| !global);
                }
            },
        }
    }

    /// The letters of `-it`, each as an option of its own, if `arg` is short options joined in one word. All are known, and
    /// none but the last takes a value: `-bogus` is a mistake, not `--bundle ogus`.
    fn joined(&self, definition: &Command, arg: &OsStr) -> Option<Vec<OsString>> {
        let found =
            |arg: &[u8]| self.chosen(definition).and_then(|own| find(own, arg)).or_else(|| find(definition, arg));
        let text = arg.to_str()?;
        let word = text.strip_prefix('-').filter(|word| !word.starts_with('-'))?;
        let letters = word.split('=').next()?;
        if letters.chars().count() < 2 || found(text.as_bytes()).is_some() {
            return None;
        }
        let (last, _) = letters.char_indices().next_back()?;
        let switches = letters.get(..last)?.chars().map(|letter| format!("-{letter}"));
        let last = format!("-{}", word.get(last..)?);
        let switches: Vec<String> = switches.collect();
        let all_known = found(last.as_bytes()).is_some()
            && switches.iter().all(|letter| matches!(found(letter.as_bytes()), Some((_, Takes::Nothing))));
        all_known.then(|| switches.into_iter().chain([last]).map(OsString::from).collect())
    }

    fn assemble(self) -> Vec<OsString> {
        let mut args = self.globals;
        match self.command {
            // `help`, `help create`: the same as the option.
            Some(name) if name == "help" => {
                args.extend(self.operands.into_iter().take(1));
                args.push("--help".into());
            }
            Some(name) => {
                args.push(name);
                args.extend(self.options);
                if !self.operands.is_empty() {
                    args.push("--".into());
                    args.extend(self.operands);
                }
            }
            None => {}
        }
        args
    }
}

/// Adds an option that is there or not.
fn switch(list: &mut Vec<OsString>, flag: OsString, value: Option<&[u8]>) {
    match value.map(boolean) {
        None | Some(Some(true)) => list.push(flag),
        Some(Some(false)) => list.retain(|earlier| *earlier != flag),
        // clap says what is wrong.
        Some(None) => give(list, &flag, value.unwrap_or_default()),
    }
}

/// Adds an option with its value. In Go's flags an empty one is an option that wasn't given.
fn give(list: &mut Vec<OsString>, flag: &OsStr, value: &[u8]) {
    if !value.is_empty() {
        list.push(OsString::from_vec([flag.as_bytes(), b"=", value].concat()));
    }
}

/// The option that `arg` spells in `command`, as `--name`, if it has one.
fn find(command: &Command, arg: &[u8]) -> Option<(OsString, Takes)> {
    let name = bare(arg).split(|byte| *byte == b'=').next().unwrap_or_default();
    let name = std::str::from_utf8(name).ok()?;
    if matches!(name, "help" | "h") {
        return Some(("--help".into(), Takes::Nothing));
    }
    let named = |option: &&Arg| {
        option.get_long() == Some(name) || option.get_short().is_some_and(|short| name.chars().eq([short]))
    };
    let option = command.get_arguments().filter(|option| !option.is_positional()).find(named)?;
    let takes = match option.get_action() {
        ArgAction::SetTrue => Takes::Nothing,
        _ if option.get_num_args().is_some_and(|values| values.min_values() == 0) => Takes::Optional,
        _ => Takes::Value,
    };
    Some((format!("--{}", option.get_long()?).into(), takes))
}

/// `arg` without its one or two dashes.
fn bare(arg: &[u8]) -> &[u8] {
    arg.strip_prefix(b"--").or_else(|| arg.strip_prefix(b"-")).unwrap_or(arg)
}

fn value_of(arg: &[u8]) -> Option<&[u8]> {
    let equals = arg.iter().position(|byte| *byte == b'=')?;
    arg.get(equals + 1..)
}

/// An unknown `-option` must not reach clap as joined short ones: `-bogus` isn't `--bundle ogus`.
fn double_dash(arg: &OsStr) -> OsString {
    match bare(arg.as_bytes()) {
        [_] => arg.to_owned(),
        name => OsString::from_vec([b"--", name].concat()),
    }
}

/// Go's strconv.ParseBool.
fn boolean(value: &[u8]) -> Option<bool> {
    match value {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Some(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Some(false),
        _ => None,
    }
}

/// `--log`, `--log-format` and `--debug` of a normalised command line that may be wrong elsewhere.
pub(super) fn log_options(args: &[OsString]) -> (Option<PathBuf>, Format, bool) {
    let (mut path, mut format, mut debug) = (None, Format::Text, false);
    for arg in args.iter().map(|arg| arg.as_bytes()).take_while(|arg| arg.starts_with(b"--")) {
        if let Some(value) = arg.strip_prefix(b"--log=") {
            path = Some(PathBuf::from(OsStr::from_bytes(value)));
        } else if let Some(value) = arg.strip_prefix(b"--log-format=") {
            format = if value == b"json" { Format::Json } else { Format::Text };
        } else if arg == b"--debug" {
            debug = true;
        }
    }
    (path, format, debug)
}

#[cfg(test)]
mod tests;
