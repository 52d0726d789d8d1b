//! Rules of `mounts` (config.md, "Mounts").

use anyhow::Result;

use super::linux::{has_namespace, id_mappings};
use super::no_nul;
use crate::error::invalid;
use crate::plan::options::{self, Bind, IdMap, Parsed};
use crate::spec::{Linux, Mount};

/// Returns warnings.
pub(super) fn mounts(mounts: &[Mount], linux: &Linux) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for (i, mount) in mounts.iter().enumerate() {
        let at = format!("/mounts/{i}");
        strings(&at, mount)?;
        warnings.extend(destination(&at, mount)?);
        let parsed = Parsed::of(mount);
        kind(&at, mount, &parsed)?;
        bind(&at, mount, &parsed)?;
        id_mapped(&at, mount, &parsed, linux)?;
    }
    Ok(warnings)
}

fn strings(at: &str, mount: &Mount) -> Result<()> {
    for (property, value) in [("destination", &mount.destination), ("type", &mount.kind), ("source", &mount.source)] {
        no_nul(format_args!("{at}/{property}"), value)?;
    }
    for (i, option) in mount.options.iter().enumerate() {
        no_nul(format_args!("{at}/options/{i}"), option)?;
    }
    Ok(())
}

/// Older specifications allowed a relative destination; it is taken from the root, as runc does.
fn destination(at: &str, mount: &Mount) -> Result<Option<String>> {
    let path = &mount.destination;
    if path.is_empty() {
        return Err(invalid(format_args!("{at}/destination"), "is empty, expected an absolute path"));
    }
    let relative = !path.starts_with('/');
    Ok(relative.then(|| format!("config.json: {at}/destination: {path:?} is relative, taken as \"/{path}\"")))
}

fn kind(at: &str, mount: &Mount, parsed: &Parsed) -> Result<()> {
    if mount.kind.is_empty() && parsed.bind == Bind::No && !parsed.remount {
        let what = "is empty, expected a type of file system, or \"bind\" or \"rbind\" among the options";
        return Err(invalid(format_args!("{at}/type"), what));
    }
    Ok(())
}

/// A bind mount has a source, and its file system is mounted already: data for it would go nowhere (runc
/// refuses it too).
fn bind(at: &str, mount: &Mount, parsed: &Parsed) -> Result<()> {
    if parsed.bind == Bind::No {
        return Ok(());
    }
    if mount.source.is_empty() {
        return Err(invalid(format_args!("{at}/source"), "is empty, expected the path to bind"));
    }
    match position(mount, |alone| !alone.data.is_empty()) {
        Some((i, option)) => Err(invalid(
            format!("{at}/options/{i}"),
            format_args!("{option:?} is an option of a file system, expected none for a bind mount"),
        )),
        None => Ok(()),
    }
}

/// config.md, "Linux mount options", `idmap`. Mappings without the option are honoured, as in runc.
fn id_mapped(at: &str, mount: &Mount, parsed: &Parsed, linux: &Linux) -> Result<()> {
    let lists = [("uidMappings", &mount.uid_mappings), ("gidMappings", &mount.gid_mappings)];
    let option = position(mount, |alone| alone.idmap != IdMap::No).map(|(i, _)| format!("{at}/options/{i}"));
    let own = lists.iter().find(|(_, list)| !list.is_empty()).map(|(name, _)| format!("{at}/{name}"));
    let Some(asked) = own.clone().or(option) else { return Ok(()) };
    if parsed.bind == Bind::No || parsed.remount {
        return Err(invalid(
            asked,
            "only a new bind mount can be id-mapped, expected \"bind\" or \"rbind\" in options",
        ));
    }
    if own.is_none() {
        return match has_namespace(linux, "user") {
            true => Ok(()),
            false => Err(invalid(
                asked,
                "there is no mapping, expected uidMappings and gidMappings, or a user namespace in /linux/namespaces",
            )),
        };
    }
    for (name, list) in lists {
        let at = format!("{at}/{name}");
        if list.is_empty() {
            return Err(invalid(at, format_args!("is empty, expected a mapping, as {asked} has one")));
        }
        id_mappings(&at, list)?;
    }
    Ok(())
}

/// The first option that, alone, does what the test asks for.
fn position(mount: &Mount, test: impl Fn(&Parsed) -> bool) -> Option<(usize, &str)> {
    let mut options = mount.options.iter().enumerate();
    options.find(|(_, option)| test(&options::parse(std::slice::from_ref(option)))).map(|(i, o)| (i, o.as_str()))
}
