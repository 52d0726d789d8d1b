//! `type: cgroup` of config.json's mounts: what is mounted for it depends on the host's hierarchies and on the namespaces.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::c_string;
use super::mounts::{self, Fallback, FileSystem, MountStep, What, clean, destination};
use super::namespaces::{Kind as Namespace, Namespaces};
use super::options::{Bind, Parsed, Propagation, Reach};
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

/// Whether a mount is one of these: `type: cgroup`; and `type: cgroup2` where that is the host's, too.
pub(super) fn decides(mount: &Mount, host: &Host, namespaces: &Namespaces) -> bool {
    let kind = match mount.kind.as_str() {
        "cgroup" => true,
        "cgroup2" => !namespaces.own(Namespace::Cgroup) && host.cgroups.v2.is_some(),
        _ => false,
    };
    let parsed = Parsed::of(mount);
    kind && parsed.bind == Bind::No && !parsed.remount
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
    let own_namespace = namespaces.own(Namespace::Cgroup);
    let base = MountStep {
        pointer: pointer.clone(),
        destination: destination.clone(),
        what: What::Remount { flags: 0, data: None },
        attrs: parsed.attrs,
        recursive: parsed.recursive,
        propagation: parsed.propagation.clone(),
        late_readonly: false,
        late_unbindable: Vec::new(),
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
    if host.cgroups.v1.is_empty() || mount.kind == "cgroup2" {
        let Some(v2) = &host.cgroups.v2 else {
            return Err(invalid(&pointer, "this host has no cgroup file system mounted"));
        };
        steps.push(match own_namespace {
            true => own_v2(base, mount, v2, cgroup)?,
            false => shared(base, &parsed, path(&v2.mount)?)?,
        });
        return Ok(());
    }
    no_options(&parsed, &pointer, "is of cgroup v1, whose hierarchies have their options")?;
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

/// cgroup2 as the container's cgroup namespace shows it.
fn own_v2(base: MountStep, mount: &Mount, v2: &cgroup::Hierarchy, cgroup: &cgroup::Location) -> Result<MountStep> {
    let path = |path: &Path| c_string(path.as_os_str().as_encoded_bytes(), &base.pointer);
    let made = mounts::file_system(mount, &Parsed::of(mount), &base.pointer)?;
    let mut paths = vec![path(&callers(v2))?, path(&v2.mount)?];
    if let Some(own) = &cgroup.v2 {
        paths.insert(0, path(own)?);
    }
    // What is bound has the options that it has.
    let fallback = made.data.is_empty().then_some(Fallback { paths, tree: Bind::One, attrs: 0 });
    let source = Some(c_string("cgroup", &base.pointer)?);
    let what = FileSystem { kind: c_string("cgroup2", &base.pointer)?, source, fallback, ..made };
    Ok(MountStep { what: What::FileSystem(what), ..base })
}

/// The flags of cgroup2 are those of its superblock, and a new mount sets them anew, for the host, unless it is made in a
/// cgroup namespace (cgroups(7)): what is the host's hierarchy is bound.
fn shared(base: MountStep, parsed: &Parsed, source: CString) -> Result<MountStep> {
    let why = "is the host's own cgroup2, which is only bound: new options take a cgroup namespace";
    no_options(parsed, &base.pointer, why)?;
    let mut propagation = vec![Propagation { kind: libc::MS_PRIVATE, reach: Reach::One }];
    propagation.extend(base.propagation);
    Ok(MountStep { what: What::Bind { source, tree: Bind::One, asked: base.attrs, idmap: None }, propagation, ..base })
}

fn no_options(parsed: &Parsed, pointer: &str, why: &str) -> Result<()> {
    match parsed.data.first() {
        Some(option) => {
            let option = option.to_string();
            Err(invalid(
                format!("{pointer}/options"),
                format!("{option:?} is an option of a file system, and this {why}"),
            ))
        }
        None => Ok(()),
    }
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
