//! The program: its arguments, environment and directory.

use std::ffi::CString;

use anyhow::Result;

use super::c_string;
use crate::spec;

/// What is executed at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) args: Vec<CString>,
    pub(crate) env: Vec<CString>,
    pub(crate) cwd: CString,
    /// HOME is to be looked up in the container's /etc/passwd.
    pub(crate) wants_home: bool,
    /// LISTEN_PID is to be the program's own pid, which nobody knows yet (sd_listen_fds(3)).
    pub(crate) listens: bool,
}

impl Program {
    pub(crate) fn new(process: &spec::Process, added: &[String]) -> Result<Self> {
        let args = process.args.iter().enumerate();
        let args = args.map(|(index, arg)| c_string(arg.as_str(), &format!("/process/args/{index}")));
        let added = added.iter().map(String::as_str);
        let kept = last_of_each(process.env.iter().map(String::as_str).chain(added));
        // As runc: an empty HOME is looked up too.
        let has_home = kept.iter().any(|entry| entry.strip_prefix("HOME=").is_some_and(|home| !home.is_empty()));
        let env = kept.into_iter().filter(|entry| has_home || *entry != "HOME=");
        Ok(Self {
            args: args.collect::<Result<_>>()?,
            env: env.map(|entry| c_string(entry, "/process/env")).collect::<Result<_>>()?,
            cwd: c_string(process.cwd.as_str(), "/process/cwd")?,
            wants_home: !has_home,
            listens: false,
        })
    }

    /// The directories of PATH as the program will see it.
    pub(crate) fn path(&self) -> Option<&[u8]> {
        self.env.iter().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="))
    }
}

/// Of entries for the same name the last one counts, at its own place.
fn last_of_each<'a>(entries: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let entries: Vec<&str> = entries.collect();
    let name = |entry: &'a str| entry.split_once('=').map_or(entry, |(name, _)| name);
    // Sorted rather than hashed: a hash map asks the kernel for a seed.
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by_key(|index| (name(entries[*index]), *index));
    let mut last: Vec<usize> =
        order.chunk_by(|a, b| name(entries[*a]) == name(entries[*b])).filter_map(|same| same.last().copied()).collect();
    last.sort_unstable();
    last.into_iter().map(|index| entries[index]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entry_of_a_name_wins_and_order_is_kept() {
        let entries = ["A=1", "B=2", "A=3", "C=", "B=2"];
        assert_eq!(last_of_each(entries.into_iter()), ["A=3", "C=", "B=2"]);
    }
}
