//! Rules of `linux` (config-linux.md), sysctls aside.

use std::path::Path;

use anyhow::Result;

use super::{absolute, hint, keyed, no_nul, unsupported};
use crate::error::invalid;
use crate::plan::limits;
use crate::spec::{Device, IdMapping, Linux};

const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

/// The values of rootfsPropagation, and the recursive forms that engines send.
const PROPAGATIONS: [&str; 8] =
    ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"];

pub(super) fn linux(linux: &Linux) -> Result<()> {
    namespaces(linux)?;
    time_offsets(linux)?;
    user_mappings(linux)?;
    devices(&linux.devices)?;
    paths("/linux/maskedPaths", &linux.masked_paths)?;
    paths("/linux/readonlyPaths", &linux.readonly_paths)?;
    rootfs_propagation(&linux.rootfs_propagation)?;
    linux.personality.as_ref().map(limits::personality).transpose()?;
    not_yet(linux)
}

/// True if there is an entry of this type, new or joined.
pub(super) fn has_namespace(linux: &Linux, kind: &str) -> bool {
    linux.namespaces.iter().any(|n| n.kind == kind)
}

/// True if a namespace of this type is to be made.
fn is_new(linux: &Linux, kind: &str) -> bool {
    linux.namespaces.iter().any(|n| n.kind == kind && n.joined().is_none())
}

/// config-linux.md, "Namespaces".
fn namespaces(linux: &Linux) -> Result<()> {
    for (i, namespace) in linux.namespaces.iter().enumerate() {
        let (at, kind) = (format!("/linux/namespaces/{i}"), namespace.kind.as_str());
        if !NAMESPACES.contains(&kind) {
            return Err(hint::unknown(&format!("{at}/type"), "namespace", kind, NAMESPACES.into_iter()));
        }
        if linux.namespaces.iter().take(i).any(|n| n.kind == kind) {
            return Err(invalid(
                format_args!("{at}/type"),
                format_args!("duplicate of {kind:?}, expected one of a type"),
            ));
        }
        if let Some(path) = namespace.joined() {
            absolute(format_args!("{at}/path"), path)?;
        }
    }
    Ok(())
}

/// config-linux.md, "Offset for Time Namespace": a joined namespace has its offsets already.
fn time_offsets(linux: &Linux) -> Result<()> {
    const AT: &str = "/linux/timeOffsets";
    if linux.time_offsets.is_empty() {
        return Ok(());
    }
    if !is_new(linux, "time") {
        let what = if has_namespace(linux, "time") { "can't be set in a joined" } else { "need a" };
        return Err(invalid(
            AT,
            format_args!("offsets {what} time namespace, expected a new one in /linux/namespaces"),
        ));
    }
    for (clock, offset) in &linux.time_offsets {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(hint::unknown(&keyed(AT, clock), "clock", clock, ["monotonic", "boottime"].into_iter()));
        }
        if offset.nanosecs >= 1_000_000_000 {
            let pointer = format!("{}/nanosecs", keyed(AT, clock));
            return Err(invalid(pointer, format_args!("{}, expected less than 1000000000", offset.nanosecs)));
        }
    }
    Ok(())
}

/// config-linux.md, "User namespace mappings"; the arithmetic is user_namespaces(7)'s.
fn user_mappings(linux: &Linux) -> Result<()> {
    for (at, mappings) in [("/linux/uidMappings", &linux.uid_mappings), ("/linux/gidMappings", &linux.gid_mappings)] {
        if !mappings.is_empty() && !has_namespace(linux, "user") {
            return Err(invalid(at, "mappings need a user namespace, expected one in /linux/namespaces"));
        }
        if mappings.is_empty() && is_new(linux, "user") {
            let what = "is empty, expected a mapping for the new user namespace, for example \
                        [{\"containerID\": 0, \"hostID\": 100000, \"size\": 65536}]";
            return Err(invalid(at, what));
        }
        id_mappings(at, mappings)?;
    }
    Ok(())
}

/// Lines of a uid_map or gid_map.
pub(super) fn id_mappings(at: &str, mappings: &[IdMapping]) -> Result<()> {
    // The kernel's UID_GID_MAP_MAX_EXTENTS.
    const MAX: usize = 340;
    if mappings.len() > MAX {
        return Err(invalid(at, format_args!("has {} entries, expected at most {MAX}", mappings.len())));
    }
    for (i, mapping) in mappings.iter().enumerate() {
        if mapping.size == 0 {
            return Err(invalid(format_args!("{at}/{i}/size"), "0, expected at least 1"));
        }
        for (property, first, of) in [
            ("containerID", mapping.container_id, (|m| m.container_id) as fn(&IdMapping) -> u32),
            ("hostID", mapping.host_id, |m| m.host_id),
        ] {
            let Some(end) = first.checked_add(mapping.size) else {
                let what =
                    format!("{first} with a size of {} goes beyond the largest id, {}", mapping.size, u32::MAX - 1);
                return Err(invalid(format_args!("{at}/{i}/{property}"), what));
            };
            // The earlier ones are known not to overflow.
            let overlaps = |other: &IdMapping| first < of(other).saturating_add(other.size) && of(other) < end;
            if let Some(other) = mappings.iter().take(i).position(overlaps) {
                let what = format!("{first} to {} overlaps {at}/{other}, expected ranges apart", end - 1);
                return Err(invalid(format_args!("{at}/{i}/{property}"), what));
            }
        }
    }
    Ok(())
}

/// config-linux.md, "Devices".
fn devices(devices: &[Device]) -> Result<()> {
    for (i, device) in devices.iter().enumerate() {
        self::device(&format!("/linux/devices/{i}"), device)?;
    }
    Ok(())
}

fn device(at: &str, device: &Device) -> Result<()> {
    if !matches!(device.kind.as_str(), "c" | "b" | "u" | "p") {
        return Err(invalid(format_args!("{at}/type"), format_args!("{:?}, expected c, b, u or p", device.kind)));
    }
    absolute(format_args!("{at}/path"), Path::new(&device.path))?;
    // The kernel packs both into 32 bits (include/linux/kdev_t.h); a fifo has neither.
    for (property, number, max) in [("major", device.major, 0xfff), ("minor", device.minor, 0xf_ffff)] {
        let pointer = format_args!("{at}/{property}");
        match number {
            _ if device.kind == "p" => {}
            None => return Err(invalid(pointer, format_args!("is not set, expected 0 to {max}"))),
            Some(number) if !(0..=max).contains(&number) => {
                return Err(invalid(pointer, format_args!("{number}, expected 0 to {max}")));
            }
            Some(_) => {}
        }
    }
    // Podman hands on the whole of st_mode (inode(7)), type included.
    let file_type: u32 = match device.kind.as_str() {
        "b" => 0o60_000,
        "p" => 0o10_000,
        _ => 0o20_000,
    };
    if let Some(mode) = device.file_mode.filter(|mode| ![0, file_type].contains(&(mode & !0o7777))) {
        let kind = &device.kind;
        return Err(invalid(
            format_args!("{at}/fileMode"),
            format_args!("{mode:#o}, expected at most 0o7777, or that with the type of {kind:?}, {file_type:#o}"),
        ));
    }
    for (property, id) in [("uid", device.uid), ("gid", device.gid)] {
        if id == u32::MAX {
            return Err(invalid(format_args!("{at}/{property}"), format_args!("{id} isn't an id")));
        }
    }
    Ok(())
}

fn paths(at: &str, paths: &[String]) -> Result<()> {
    for (i, path) in paths.iter().enumerate() {
        absolute(format_args!("{at}/{i}"), Path::new(path))?;
    }
    Ok(())
}

fn rootfs_propagation(value: &str) -> Result<()> {
    if value.is_empty() || PROPAGATIONS.contains(&value) {
        return Ok(());
    }
    Err(hint::unknown("/linux/rootfsPropagation", "propagation", value, PROPAGATIONS.into_iter()))
}

/// Parts of the specification that would be ignored without these errors.
fn not_yet(linux: &Linux) -> Result<()> {
    no_nul("/linux/mountLabel", &linux.mount_label)?;
    for (there, pointer, what) in [
        (!linux.net_devices.is_empty(), "/linux/netDevices", "network devices are"),
        (linux.intel_rdt.is_some(), "/linux/intelRdt", "Intel RDT is"),
        (linux.memory_policy.is_some(), "/linux/memoryPolicy", "memory policies are"),
    ] {
        if there {
            return Err(unsupported(pointer, what));
        }
    }
    Ok(())
}
