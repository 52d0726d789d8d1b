//! `type: cgroup` of config.json's mounts: what is mounted for it depends on the host's hierarchies and on the namespaces.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::c_string;
use super::mounts::{Fallback, FileSystem, MountStep, What, clean, destination};
use super::namespaces::{Kind as Namespace, Namespaces};
use super::options::{Bind, Parsed};
use crate::cgroup;
use crate::error::invalid;
use crate::host::Host;
use crate::spec::{Mount, Spec};

/// One v1 hierarchy in the container.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CgroupV1 {
    pub(crate) name: CString,
    pub(crate) source: CgroupSource,
}

/// What is mounted for a v1 hierarchy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum CgroupSource {
    /// The hierarchy as the container's cgroup namespace shows it.
    New(FileSystem),
    /// The first of these directories that exists: the container's part; the runtime's own cgroup where the container had
    /// to do without one; what is mounted where that is no more than an outer container's part.
    Bind(Vec<CString>),
}

/// `type: cgroup`: the one v2 hierarchy, or every v1 hierarchy below a tmpfs, as the host has it.
pub(super) fn steps(
    steps: &mut Vec<MountStep>,
    mount: &Mount,
    pointer: String,
    host: &Host,
    namespaces: &Namespaces,
    cgroup: &cgroup::Location,
) -> Result<()> {
    let parsed = Parsed::of(mount);
    let destination = destination(mount, &pointer)?;
    let own_namespace = namespaces.has(Namespace::Cgroup);
    let base = MountStep {
        pointer: pointer.clone(),
        destination: destination.clone(),
        what: What::Remount { flags: 0, data: None },
        attrs: parsed.attrs,
        recursive: parsed.recursive,
        propagation: parsed.propagation.clone(),
        late_readonly: false,
    };
    let file_system = |kind: &str, data: Vec<(&str, Option<&str>)>| -> Result<FileSystem> {
        let data = data.into_iter().map(|(key, value)| {
            Ok((c_string(key, &pointer)?, value.map(|value| c_string(value, &pointer)).transpose()?))
        });
        Ok(FileSystem {
            kind: c_string(kind, &pointer)?,
            source: Some(c_string(if kind == "tmpfs" { "tmpfs" } else { "cgroup" }, &pointer)?),
            data: data.collect::<Result<_>>()?,
            flags: parsed.ms_flags(),
            only_mount2: false,
            copy_mode: false,
            copy_up: false,
            fallback: None,
            root_label: None,
        })
    };
    let path = |path: &Path| c_string(path.as_os_str().as_encoded_bytes(), &pointer);
    if host.cgroups.v1.is_empty() {
        let Some(v2) = &host.cgroups.v2 else {
            return Err(invalid(&pointer, "this host has no cgroup file system mounted"));
        };
        let mut what = file_system("cgroup2", Vec::new())?;
        let paths = match (own_namespace, &cgroup.v2) {
            (true, Some(own)) => vec![path(own)?, path(&callers(v2))?, path(&v2.mount)?],
            (true, None) => vec![path(&callers(v2))?, path(&v2.mount)?],
            (false, _) => vec![path(&v2.mount)?],
        };
        what.fallback = Some(Fallback { paths, tree: Bind::One, attrs: 0 });
        steps.push(MountStep { what: What::FileSystem(what), ..base });
        return Ok(());
    }
    let mut hierarchies = Vec::new();
    let mut links = Vec::new();
    for hierarchy in &host.cgroups.v1 {
        let Some(name) = hierarchy.mount.file_name().and_then(|name| name.to_str()) else { continue };
        let source = if own_namespace {
            CgroupSource::New(file_system("cgroup", v1_data(&hierarchy.controllers))?)
        } else {
            let own = cgroup.v1.iter().find(|(controllers, _)| *controllers == hierarchy.controllers);
            let own = own.map_or(&hierarchy.mount, |(_, dir)| dir);
            CgroupSource::Bind(vec![path(own)?, path(&callers(hierarchy))?, path(&hierarchy.mount)?])
        };
        hierarchies.push(CgroupV1 { name: c_string(name, &pointer)?, source });
        // Hierarchies of several controllers are known by each of their names too.
        for controller in hierarchy.controllers.split(',').filter(|c| *c != name && !c.starts_with("name=")) {
            links.push((c_string(controller, &pointer)?, c_string(name, &pointer)?));
        }
    }
    let tmpfs = file_system("tmpfs", vec![("mode", Some("755"))])?;
    steps.push(MountStep { what: What::CgroupV1 { tmpfs, hierarchies, links }, ..base });
    Ok(())
}

/// Whom the container's cgroup is given to, a uid of the host, by the rules of config-linux.md, "Cgroup ownership": a
/// cgroup namespace is made for it, and it is mounted to be written to.
pub(super) fn owner(spec: &Spec, namespaces: &Namespaces, host: &Host) -> Option<u32> {
    let mounted = |mount: &&Mount| {
        matches!(mount.kind.as_str(), "cgroup" | "cgroup2") && clean(&mount.destination) == "/sys/fs/cgroup"
    };
    let mount = spec.mounts.iter().rfind(mounted).filter(|_| namespaces.makes(Namespace::Cgroup))?;
    if mount.options.iter().any(|option| ["ro", "rro"].contains(&option.as_str())) {
        return None;
    }
    let uid = spec.process.as_ref()?.user.uid;
    let owner = if namespaces.has(Namespace::User) {
        spec.linux.uid_mappings.iter().find_map(|mapping| {
            let offset = uid.checked_sub(mapping.container_id).filter(|offset| *offset < mapping.size)?;
            mapping.host_id.checked_add(offset)
        })?
    } else {
        uid
    };
    // What the caller makes is the caller's.
    (owner != host.euid).then_some(owner)
}

/// The runtime's own cgroup in a hierarchy.
fn callers(hierarchy: &cgroup::Hierarchy) -> PathBuf {
    hierarchy.mount.join(clean(&hierarchy.own.to_string_lossy()).trim_start_matches('/'))
}

/// What a v1 mount is asked for: its controllers, or none and a name.
fn v1_data(controllers: &str) -> Vec<(&str, Option<&str>)> {
    match controllers.strip_prefix("name=") {
        Some(name) => vec![("none", None), ("name", Some(name))],
        None => controllers.split(',').map(|controller| (controller, None)).collect(),
    }
}
