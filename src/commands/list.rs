//! `tare list`. A container that can't be read is a row of its own and a warning, never the end of the list.

use anyhow::{Result, bail};
use serde::Serialize;

use crate::cli::{Global, ListArgs, ListFormat, output};
use crate::spec::State;
use crate::state::{self, Folder, Status};

/// The columns of the table, in order.
const HEADER: [&str; 6] = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];

/// What `list` knows of one container.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    state: State,
    /// For a person: more than the status says.
    #[serde(skip)]
    note: &'static str,
}

pub(crate) fn run(global: &Global, args: ListArgs) -> Result<i32> {
    if global.root_given && !global.root.is_dir() {
        bail!("--root {:?}: no such file or directory", global.root);
    }
    let mut rows = Vec::new();
    for name in state::names(&global.root)? {
        match Folder::open(&global.root, &name).and_then(|folder| row(&name, &folder)) {
            Ok(row) => rows.push(row),
            Err(error) if format!("{error:#}").contains(crate::error::phrase::DOES_NOT_EXIST) => {}
            Err(error) => log::warn!("container {name:?}: {error:#}"),
        }
    }
    let text = if args.quiet {
        rows.iter().fold(String::new(), |text, row| text + &row.state.id + "\n")
    } else {
        match args.format {
            ListFormat::Json => serde_json::to_string(&rows)? + "\n",
            ListFormat::Table => table(&rows),
        }
    };
    output(&text)?;
    Ok(0)
}

fn row(name: &str, folder: &Folder) -> Result<Row> {
    let Some(record) = folder.read()? else {
        let state = State {
            oci_version: crate::spec::OCI_VERSION,
            id: name.into(),
            pid: 0,
            status: Status::Creating.name(),
            bundle: std::path::PathBuf::new(),
            rootfs: std::path::PathBuf::new(),
            created: String::new(),
            annotations: std::collections::BTreeMap::new(),
            owner: String::new(),
        };
        return Ok(Row { state, note: creator_note(folder) });
    };
    let status = folder.status(&record)?;
    let note = if status == Status::Creating { creator_note(folder) } else { "" };
    let state = State { owner: owner(record.owner), ..record.state(status) };
    Ok(Row { state, note })
}

/// The creator holds the lock as long as it lives.
fn creator_note(folder: &Folder) -> &'static str {
    if matches!(folder.try_lock(), Ok(Some(_))) { " (creator gone)" } else { "" }
}

/// The name of a user of the host, or `#uid`: no NSS, only passwd(5).
fn owner(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

/// Columns at least 12 wide and 3 apart, as runc prints them.
fn table(rows: &[Row]) -> String {
    let cells = |row: &Row| {
        let State { id, pid, status, bundle, created, owner, .. } = &row.state;
        // A user's files say them, and a terminal obeys what they may hold.
        let shown = |text: &str| text.replace(char::is_control, "?");
        let status = format!("{status}{}", row.note);
        [shown(id), pid.to_string(), status, shown(&bundle.display().to_string()), shown(created), owner.clone()]
    };
    let lines: Vec<[String; 6]> = std::iter::once(HEADER.map(str::to_owned)).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0).max(9) + 3;
    let widths: Vec<usize> = (0..HEADER.len() - 1).map(width).collect();
    lines.iter().fold(String::new(), |mut text, line| {
        for (cell, width) in line.iter().zip(&widths) {
            text += &format!("{cell:width$}");
        }
        text + &line[HEADER.len() - 1] + "\n"
    })
}
