//! What the specification forbids and what tare can't honour: one small function a rule, each error naming
//! the property by its JSON pointer, the value and what was expected.
//!
//! Pure: looks at nothing but the [`Spec`]. Seccomp profiles and resources are judged by their compilers.
//! Nothing is ignored in silence: what isn't supported is an error, what the specification wants ignored
//! is a warning, returned for the caller to log.

pub(crate) mod hint;
mod linux;
mod mounts;
mod process;
pub(crate) mod sysctl;

use std::fmt::Display;
use std::path::Path;

use anyhow::Result;

use super::load::escape;
use super::{Hook, Hooks, Spec};
use crate::error::invalid;

pub(crate) use process::process;

/// Checks all of config.json but what only starting a program needs ([`runnable`]). Returns warnings.
pub(crate) fn validate(spec: &Spec) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    oci_version(&spec.oci_version)?;
    root(spec)?;
    if let Some(it) = &spec.process {
        process(it)?;
    }
    uts_name(spec, "/hostname", &spec.hostname)?;
    uts_name(spec, "/domainname", &spec.domainname)?;
    warnings.extend(mounts::mounts(&spec.mounts, &spec.linux)?);
    hooks(&spec.hooks)?;
    annotations(spec)?;
    linux::linux(&spec.linux)?;
    sysctl::sysctl(&spec.linux)?;
    Ok(warnings)
}

/// What `create` and `run` need beyond a valid config: a program. The words are runc's.
pub(crate) fn runnable(spec: &Spec) -> Result<()> {
    let Some(process) = &spec.process else {
        return Err(invalid("/process", "process property must not be empty"));
    };
    if process.args.is_empty() {
        return Err(invalid("/process/args", "args must not be empty"));
    }
    Ok(())
}

/// config.md, "Specification version": SemVer. Any 0.x and 1.x will do, however new: a minor version adds
/// properties, and unknown ones are ignored.
fn oci_version(version: &str) -> Result<()> {
    let wrong = |why: &str| {
        let what =
            format!("{version:?} {why}, expected a version of the specification such as {:?}", super::OCI_VERSION);
        Err(invalid("/ociVersion", what))
    };
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<&str> = core.split('.').collect();
    let [major, minor, patch] = numbers.as_slice() else {
        return wrong(if version.is_empty() { "is empty" } else { "isn't a semantic version" });
    };
    let numeric = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
    if ![major, minor, patch].into_iter().all(|n| numeric(n)) {
        return wrong("isn't a semantic version");
    }
    if !matches!(*major, "0" | "1") {
        return wrong("is of an unknown major version");
    }
    Ok(())
}

/// config.md, "Root": required on Linux, and so is its path.
fn root(spec: &Spec) -> Result<()> {
    let Some(root) = &spec.root else {
        return Err(invalid("/root", "is missing, expected an object with the path of the root filesystem"));
    };
    if root.path.as_os_str().is_empty() {
        return Err(invalid("/root/path", "is empty, expected the path of the root filesystem"));
    }
    no_nul("/root/path", &root.path.to_string_lossy())
}

/// config.md, "Hostname": in the caller's uts namespace it would rename the host.
fn uts_name(spec: &Spec, pointer: &str, name: &str) -> Result<()> {
    // The kernel's __NEW_UTS_LEN.
    const MAX: usize = 64;
    if name.is_empty() {
        return Ok(());
    }
    if !linux::has_namespace(&spec.linux, "uts") {
        return Err(invalid(
            pointer,
            format_args!("{name:?} needs a uts namespace, expected one in /linux/namespaces"),
        ));
    }
    if name.len() > MAX {
        return Err(invalid(pointer, format_args!("has {} bytes, expected at most {MAX}", name.len())));
    }
    no_nul(pointer, name)
}

/// config.md, "POSIX-platform Hooks".
fn hooks(hooks: &Hooks) -> Result<()> {
    for (kind, list) in [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ] {
        for (i, hook) in list.iter().enumerate() {
            self::hook(&format!("/hooks/{kind}/{i}"), hook)?;
        }
    }
    Ok(())
}

fn hook(at: &str, hook: &Hook) -> Result<()> {
    absolute(format_args!("{at}/path"), &hook.path)?;
    for (i, arg) in hook.args.iter().enumerate() {
        no_nul(format_args!("{at}/args/{i}"), arg)?;
    }
    environment(&format!("{at}/env"), hook.env.as_deref().unwrap_or_default())?;
    match hook.timeout {
        Some(timeout) if timeout <= 0 => {
            Err(invalid(format_args!("{at}/timeout"), format_args!("{timeout}, expected a number of seconds above 0")))
        }
        _ => Ok(()),
    }
}

/// config.md, "Annotations": keys must not be empty.
fn annotations(spec: &Spec) -> Result<()> {
    match spec.annotations.get("") {
        Some(value) => {
            Err(invalid("/annotations/", format_args!("the key of {value:?} is empty, expected a non-empty key")))
        }
        None => Ok(()),
    }
}

/// Entries of an environment; runc refuses the same ones, crun drops them.
fn environment(at: &str, entries: &[String]) -> Result<()> {
    for (i, entry) in entries.iter().enumerate() {
        no_nul(format_args!("{at}/{i}"), entry)?;
        let lacks = match entry.split_once('=') {
            None => "'='",
            Some(("", _)) => "name",
            Some(_) => continue,
        };
        return Err(invalid(format_args!("{at}/{i}"), format_args!("{entry:?} has no {lacks}, expected NAME=value")));
    }
    Ok(())
}

/// No system call takes a string with a NUL byte: it would be cut short.
fn no_nul(pointer: impl Display, value: &str) -> Result<()> {
    match value.find('\0') {
        Some(at) => Err(invalid(pointer, format_args!("{value:?} has a NUL byte at offset {at}, expected none"))),
        None => Ok(()),
    }
}

fn absolute(pointer: impl Display, path: &Path) -> Result<()> {
    if path.is_absolute() {
        return no_nul(pointer, &path.to_string_lossy());
    }
    let what = if path.as_os_str().is_empty() { "is empty".to_owned() } else { format!("{path:?} is relative") };
    Err(invalid(pointer, format_args!("{what}, expected an absolute path")))
}

fn unsupported(pointer: &str, what: &str) -> anyhow::Error {
    invalid(pointer, format_args!("{what} not supported yet"))
}

/// `/linux/sysctl/net.ipv4~1x` and the like.
fn keyed(at: &str, key: &str) -> String {
    format!("{at}/{}", escape(key))
}

#[cfg(test)]
mod tests;
