//! The container's file system as a list of steps: what config.json's mounts, devices, masked and read-only paths come
//! to, with every option turned into bits.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};

use anyhow::Result;
use libc::c_ulong;

use super::cgroup_mounts::CgroupV1;
use super::labels::mount_label;
use super::namespaces::{Kind as Namespace, Namespaces};
use super::nodes::{self, Node};
use super::options::{Attrs, Bind, CONTEXTS, IdMap, Parsed, Propagation, Reach, attr};
use super::{IdMaps, Request, c_string, cgroup_mounts, id_maps};
use crate::cgroup;
use crate::error::invalid;
use crate::host::Host;
use crate::spec::{Mount, Spec};

/// Everything about the root file system.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rootfs {
    /// Absolute, on the host.
    pub(crate) path: PathBuf,
    pub(crate) readonly: bool,
    /// Given to "/" before anything is mounted.
    pub(crate) propagation: Propagation,
    pub(crate) pivot: Pivot,
    /// In the order of config.json.
    pub(crate) steps: Vec<MountStep>,
    pub(crate) sources: Sources,
    pub(crate) nodes: Vec<Node>,
    /// Whether /dev is the container's own and gets the default nodes and links.
    pub(crate) own_dev: bool,
    pub(crate) masked: Vec<String>,
    pub(crate) readonly_paths: Vec<String>,
    /// linux.mountLabel, for what is mounted beside the steps.
    pub(crate) mount_label: Option<CString>,
}

/// Where a container finds the socket by which it notifies, as in runc.
pub(crate) const NOTIFY_FOLDER: &str = "/run/notify";

/// How the root of the process is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pivot {
    Root,
    /// `--no-pivot`: move the mount onto / and chroot.
    Move,
    /// Without a mount namespace: chroot alone, nothing is mounted.
    Chroot,
}

/// Who opens the sources of bind mounts, which root of a user namespace may not reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sources {
    /// The container's process: there is no user namespace, or nothing is lost by it.
    Inside,
    /// The runtime, with its rights.
    Outside,
    /// The container's process, in its mount namespace but before it becomes root of its user namespace: open_tree(2)
    /// takes CAP_SYS_ADMIN, which an ordinary user has nowhere else, and the files take his own id.
    AsCaller,
}

/// One mount.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MountStep {
    /// The property that asks for it.
    pub(crate) pointer: String,
    /// Absolute and clean, in the container.
    pub(crate) destination: String,
    pub(crate) what: What,
    /// The mount alone, then the tree.
    pub(crate) attrs: Attrs,
    pub(crate) recursive: Attrs,
    pub(crate) propagation: Vec<Propagation>,
    /// Made read-only only when everything else is in place, for mount points and nodes are made in it.
    pub(crate) late_readonly: bool,
    /// The end of `propagation`, where that would keep it out of a read-only path's copy.
    pub(crate) late_unbindable: Vec<Propagation>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    Bind {
        source: CString,
        tree: Bind,
        idmap: Option<IdMapped>,
        /// Beside [`MountStep::attrs`], which start from no flags: what the words themselves change, where the source
        /// keeps its other flags.
        asked: Attrs,
    },
    FileSystem(FileSystem),
    Remount {
        flags: c_ulong,
        data: Option<CString>,
    },
    /// A tmpfs with a directory for each v1 hierarchy.
    CgroupV1 {
        tmpfs: FileSystem,
        hierarchies: Vec<CgroupV1>,
        links: Vec<(CString, CString)>,
    },
}

/// The mapping of an id-mapped mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdMapped {
    pub(crate) reach: Reach,
    /// `None`: as the container's user namespace, new or joined.
    pub(crate) own: Option<IdMaps>,
}

/// What is bound where a user namespace may not mount a file system anew.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fallback {
    /// The first that exists is taken.
    pub(crate) paths: Vec<CString>,
    pub(crate) tree: Bind,
    /// For the whole tree, beside what the mount asks for.
    pub(crate) attrs: u64,
}

/// A new mount of a file system.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FileSystem {
    pub(crate) kind: CString,
    pub(crate) source: Option<CString>,
    pub(crate) data: Vec<(CString, Option<CString>)>,
    /// For mount(2), where the kernel lacks fsopen(2) or fsopen can't say it (iversion).
    pub(crate) flags: c_ulong,
    pub(crate) only_mount2: bool,
    /// A tmpfs without `mode=` takes over the mode of the directory it covers, if the image has one.
    pub(crate) copy_mode: bool,
    pub(crate) copy_up: bool,
    pub(crate) fallback: Option<Fallback>,
    /// An SELinux label for its root, where the file system takes none as an option.
    pub(crate) root_label: Option<CString>,
}

impl MountStep {
    pub(crate) fn is_idmapped(&self) -> bool {
        matches!(self.what, What::Bind { idmap: Some(_), .. })
    }

    /// What asks for it, as an error calls it: a property, or a variable of the caller's environment.
    pub(crate) fn asked_by(&self) -> String {
        if self.pointer.starts_with('/') { format!("config.json: {}", self.pointer) } else { self.pointer.clone() }
    }
}

impl Rootfs {
    pub(crate) fn new(
        spec: &Spec,
        host: &Host,
        request: &Request,
        namespaces: &Namespaces,
        cgroup: &cgroup::Location,
    ) -> Result<Self> {
        let root = spec.root.clone().unwrap_or_default();
        let linux = &spec.linux;
        let in_user_namespace = namespaces.has(Namespace::User) || !host.initial_user_namespace;
        let pivot = match (namespaces.has(Namespace::Mount), request.no_pivot) {
            (false, _) => Pivot::Chroot,
            (true, true) => Pivot::Move,
            (true, false) => Pivot::Root,
        };
        let propagation = propagation(&linux.rootfs_propagation)?;
        if pivot == Pivot::Move && propagation.kind == libc::MS_PRIVATE {
            // runc's words.
            let what = format!("{:?} is not safe without pivot_root (--no-pivot)", linux.rootfs_propagation);
            return Err(invalid("/linux/rootfsPropagation", what));
        }
        let sources = match (pivot, propagation.kind) {
            // Inside they are no peers of the host's any more when the steps begin.
            (Pivot::Move, libc::MS_SHARED) if !namespaces.has(Namespace::User) => Sources::Outside,
            _ => sources(namespaces, host),
        };
        let mut steps = Vec::new();
        for (index, mount) in spec.mounts.iter().enumerate() {
            let pointer = format!("/mounts/{index}");
            if cgroup_mounts::decides(mount, host, namespaces) {
                cgroup_mounts::steps(&mut steps, mount, pointer, host, namespaces, cgroup)?;
            } else {
                if namespaces.makes(Namespace::User) {
                    id_maps::check_options(mount, &pointer, linux)?;
                }
                let containers = IdMaps::of(linux, namespaces, host);
                let idmap = id_mapped(mount, containers.as_ref(), host);
                let mut step = step(mount, pointer, &request.bundle, idmap)?;
                step.remount_alone(&steps)?;
                // What is bound has the options that it has.
                if let What::FileSystem(fs) = &mut step.what
                    && in_user_namespace
                    && fs.data.is_empty()
                {
                    fs.fallback = fallback(&mount.kind, namespaces);
                }
                steps.push(step);
            }
        }
        steps.extend(request.notify.as_deref().map(|folder| notify(folder, namespaces)).transpose()?);
        let mount_label = mount_label(&linux.mount_label, host.modules)?;
        if let Some(label) = &mount_label {
            let own_ipc = if namespaces.own(Namespace::Ipc) { Ipc::Own } else { Ipc::Host };
            steps.iter_mut().for_each(|step| step.label(label, own_ipc));
        }
        if !linux.readonly_paths.is_empty() {
            steps.iter_mut().for_each(MountStep::unbindable_late);
        }
        let own_dev = !steps.iter().any(binds_dev);
        let rootfs = Self {
            path: request.bundle.join(&root.path),
            readonly: root.readonly,
            propagation,
            pivot,
            steps,
            sources,
            nodes: if own_dev { nodes::of(&linux.devices, in_user_namespace)? } else { Vec::new() },
            own_dev,
            masked: linux.masked_paths.clone(),
            readonly_paths: linux.readonly_paths.clone(),
            mount_label,
        };
        if rootfs.pivot == Pivot::Chroot {
            rootfs.needs_no_mount_namespace()?;
        }
        Ok(rootfs)
    }

    /// What "/" is given first of all, with what the host has mounted on it.
    pub(crate) fn first_propagation(&self) -> Propagation {
        match (self.pivot, self.propagation) {
            // The host's mounts stay, and some of them are unmounted: not on the host.
            (Pivot::Move, _) => Propagation { kind: libc::MS_SLAVE, reach: Reach::Tree },
            // An unbindable root couldn't be bound onto itself: it becomes so when everything is in place.
            (_, Propagation { kind: libc::MS_UNBINDABLE, reach }) => Propagation { kind: libc::MS_PRIVATE, reach },
            (_, propagation) => propagation,
        }
    }

    /// Without a mount namespace every mount would be the host's: what needs one is refused.
    fn needs_no_mount_namespace(&self) -> Result<()> {
        let asked = [
            (!self.steps.is_empty(), "/mounts"),
            (!self.masked.is_empty(), "/linux/maskedPaths"),
            (!self.readonly_paths.is_empty(), "/linux/readonlyPaths"),
            (self.readonly, "/root/readonly"),
        ];
        match asked.into_iter().find(|(asked, _)| *asked) {
            Some((_, pointer)) => Err(invalid(pointer, "needs a mount namespace: add one to /linux/namespaces")),
            None => Ok(()),
        }
    }
}

/// Whether an option of a file system is one of SELinux, whose value may have commas.
pub(crate) fn is_context(key: &CStr) -> bool {
    CONTEXTS.iter().any(|context| context.as_bytes() == key.to_bytes())
}

impl MountStep {
    /// Gives what is made here the label of linux.mountLabel, as runc: not the kernel's own file systems, and not what
    /// has a label of its own.
    ///
    /// `own_ipc`: whether the container's ipc namespace isn't the caller's. The root of mqueue is one for all of a namespace.
    fn label(&mut self, label: &CStr, own_ipc: Ipc) {
        let (What::FileSystem(fs) | What::CgroupV1 { tmpfs: fs, .. }) = &mut self.what else { return };
        match fs.kind.to_bytes() {
            b"proc" | b"sysfs" | b"cgroup" | b"cgroup2" => {}
            // It has labels, but takes none as an option.
            b"mqueue" if own_ipc == Ipc::Host => {}
            b"mqueue" => fs.root_label = Some(label.into()),
            _ if fs.data.iter().any(|(key, _)| is_context(key)) => {}
            _ => fs.data.push((c"context".into(), Some(label.into()))),
        }
    }
}

/// Whose ipc namespace it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ipc {
    Own,
    Host,
}

impl MountStep {
    /// A remount without "bind" is one of the superblock, for all who have that mounted: of what isn't the container's own
    /// alone only the mount is changed.
    fn remount_alone(&mut self, earlier: &[Self]) -> Result<()> {
        const OWN: [&CStr; 6] = [c"tmpfs", c"ramfs", c"overlay", c"proc", c"devpts", c"hugetlbfs"];
        let What::Remount { flags, data } = &mut self.what else { return Ok(()) };
        let is_mount =
            |step: &&Self| step.destination == self.destination && !matches!(step.what, What::Remount { .. });
        let own = match earlier.iter().rfind(is_mount).map(|step| &step.what) {
            Some(What::FileSystem(fs)) => OWN.contains(&fs.kind.as_c_str()),
            Some(What::CgroupV1 { .. }) => true,
            _ => false,
        };
        if own || *flags & libc::MS_BIND != 0 {
            return Ok(());
        }
        if let Some(data) = data {
            let what =
                format!("{data:?} would change a file system that isn't the container's alone, expected \"bind\"");
            return Err(invalid(format!("{}/options", self.pointer), what));
        }
        *flags |= libc::MS_BIND;
        Ok(())
    }

    /// A copy of a tree leaves out what is unbindable: it becomes so when all copies are made.
    fn unbindable_late(&mut self) {
        let bindable = self.propagation.iter().rposition(|change| change.kind != libc::MS_UNBINDABLE);
        self.late_unbindable = self.propagation.split_off(bindable.map_or(0, |last| last + 1));
    }
}

fn sources(namespaces: &Namespaces, host: &Host) -> Sources {
    let user = namespaces.has(Namespace::User);
    match (user && namespaces.has(Namespace::Mount), host.privileged()) {
        (false, _) => Sources::Inside,
        (true, true) => Sources::Outside,
        (true, false) if namespaces.makes(Namespace::Mount) => Sources::AsCaller,
        (true, false) => Sources::Inside,
    }
}

/// Absolute, without `.`, `..`, or double slashes: what a path means if nothing in it is a link.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The mapping that a mount asks for. One that is the same as the container's user namespace's needs no other namespace.
fn id_mapped(mount: &Mount, containers: Option<&IdMaps>, host: &Host) -> Option<IdMapped> {
    let asked = Parsed::of(mount).idmap;
    let own = (!mount.uid_mappings.is_empty()).then(|| IdMaps::new(&mount.uid_mappings, &mount.gid_mappings, host));
    if asked == IdMap::No && own.is_none() {
        return None;
    }
    let reach = if asked == IdMap::Tree { Reach::Tree } else { Reach::One };
    Some(IdMapped { reach, own: own.filter(|own| containers != Some(own)) })
}

pub(super) fn step(mount: &Mount, pointer: String, bundle: &Path, idmap: Option<IdMapped>) -> Result<MountStep> {
    let parsed = Parsed::of(mount);
    let destination = destination(mount, &pointer)?;
    let mut attrs = parsed.attrs;
    let what = if parsed.remount {
        let data = parsed.data_string();
        What::Remount {
            flags: parsed.ms_flags() | parsed.bind.ms_flags() | libc::MS_REMOUNT,
            data: if data.is_empty() { None } else { Some(c_string(data, &pointer)?) },
        }
    } else if parsed.bind != Bind::No {
        let source = c_string(bundle.join(&mount.source).into_os_string().into_encoded_bytes(), &pointer)?;
        let asked = attrs;
        if parsed.flagged {
            attrs = asked.of_bind();
        }
        What::Bind { source, tree: parsed.bind, idmap, asked }
    } else {
        // A bind is looked at when its source is open.
        if destination == "/proc" && mount.kind != "proc" {
            let what = format!("{:?} can't be mounted on /proc, only proc (CVE-2019-16884)", mount.kind);
            return Err(invalid(format!("{pointer}/type"), what));
        }
        What::FileSystem(file_system(mount, &parsed, &pointer)?)
    };
    let is_new = matches!(what, What::FileSystem(_));
    let late_readonly = is_new && attrs.set & attr::RDONLY != 0 && (mount.kind == "tmpfs" || destination == "/dev");
    if late_readonly {
        attrs.set &= !attr::RDONLY;
    }
    Ok(MountStep {
        pointer,
        destination,
        what,
        attrs,
        recursive: parsed.recursive,
        propagation: parsed.propagation,
        late_readonly,
        late_unbindable: Vec::new(),
    })
}

/// The folder with the socket by which the container notifies. Read-only, it can still be connected to.
fn notify(folder: &Path, namespaces: &Namespaces) -> Result<MountStep> {
    const POINTER: &str = "NOTIFY_SOCKET";
    if !namespaces.has(Namespace::Mount) {
        anyhow::bail!("{POINTER}: needs a mount namespace: add one to /linux/namespaces");
    }
    let mount = Mount {
        destination: NOTIFY_FOLDER.into(),
        options: ["bind", "nosuid", "noexec", "nodev", "ro"].map(Into::into).into(),
        ..Mount::default()
    };
    let source = c_string(folder.as_os_str().as_encoded_bytes(), POINTER)?;
    let mut step = step(&mount, POINTER.into(), folder, None)?;
    if let What::Bind { source: path, .. } = &mut step.what {
        *path = source;
    }
    Ok(step)
}

/// Files of /proc that may be covered: those that lxcfs provides.
const PROC_FILES: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

pub(super) fn destination(mount: &Mount, pointer: &str) -> Result<String> {
    let clean = clean(&mount.destination);
    let refuse =
        |what: &str| Err(invalid(format!("{pointer}/destination"), format!("{:?}: {what}", mount.destination)));
    if clean == "/" {
        return refuse(
            "the root file system itself can't be mounted over: set /root/path to the folder that is to be \"/\"",
        );
    }
    // A faked /proc would take the writes that confine the process (CVE-2019-16884).
    if clean.starts_with("/proc/") && !PROC_FILES.contains(&clean.as_str()) {
        return refuse("nothing may be mounted inside /proc");
    }
    Ok(clean)
}

/// File systems that the kernel makes up, some of them with one superblock for the whole host: flags and options that it
/// were given would be everybody's.
const KERNELS: [&str; 18] = [
    "proc",
    "sysfs",
    "tmpfs",
    "devpts",
    "mqueue",
    "cgroup",
    "cgroup2",
    "bpf",
    "debugfs",
    "tracefs",
    "securityfs",
    "configfs",
    "pstore",
    "efivarfs",
    "binfmt_misc",
    "selinuxfs",
    "fusectl",
    "rpc_pipefs",
];

pub(super) fn file_system(mount: &Mount, parsed: &Parsed, pointer: &str) -> Result<FileSystem> {
    let mut data = Vec::new();
    let c = |text: &str| c_string(text, &format!("{pointer}/options"));
    // Every devpts has been an instance of its own since Linux 4.7: the word means nothing.
    let means_nothing = |key: &str| mount.kind == "devpts" && key == "newinstance";
    for word in parsed.data.iter().filter(|word| !means_nothing(&word.key)) {
        // Quotes keep the commas of a context together in mount(2)'s one string; fsconfig(2) takes them literally.
        let value = word
            .value
            .as_deref()
            .map(|value| if CONTEXTS.contains(&word.key.as_str()) { value.trim_matches('"') } else { value });
        data.push((c(&word.key)?, value.map(c).transpose()?));
    }
    for word in parsed.superblock.fsconfig() {
        data.push((c(word)?, None));
    }
    // A file system on a device or of layers must know that it won't be written; for the kernel's own the mount's flag
    // is enough, and their superblocks may be shared.
    let own = KERNELS.contains(&mount.kind.as_str());
    if parsed.attrs.set & attr::RDONLY != 0 && !own {
        data.push((c("ro")?, None));
    }
    let tmpfs = mount.kind == "tmpfs";
    Ok(FileSystem {
        kind: c_string(mount.kind.as_str(), &format!("{pointer}/type"))?,
        source: (!mount.source.is_empty()).then(|| c_string(mount.source.as_str(), pointer)).transpose()?,
        data,
        flags: parsed.ms_flags(),
        only_mount2: parsed.superblock.needs_mount2(),
        copy_mode: tmpfs && !parsed.data.iter().any(|word| word.key == "mode"),
        copy_up: tmpfs && parsed.tmpcopyup,
        fallback: None,
        root_label: None,
    })
}

/// These file systems show a namespace, and are mounted with rights over it: what the container shares with the runtime
/// can only be bound. And of proc and sysfs a user namespace may not see more than is seen around it
/// (mount_namespaces(7)).
fn fallback(kind: &str, namespaces: &Namespaces) -> Option<Fallback> {
    let (path, tree, attrs) = match kind {
        // The host's: nothing in it is the container's to write, whatever its uid may.
        "sysfs" => (c"/sys", Bind::Tree, attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC),
        // With a pid namespace of its own the runtime's proc would show other processes than its own.
        "proc" if !namespaces.has(Namespace::Pid) => (c"/proc", Bind::Tree, 0),
        "mqueue" if !namespaces.has(Namespace::Ipc) => (c"/dev/mqueue", Bind::One, 0),
        _ => return None,
    };
    Some(Fallback { paths: vec![path.into()], tree, attrs })
}

fn binds_dev(step: &MountStep) -> bool {
    matches!(step, MountStep { destination, what: What::Bind { .. }, .. } if destination == "/dev")
}

fn propagation(name: &str) -> Result<Propagation> {
    let reach = |recursive: bool| if recursive { Reach::Tree } else { Reach::One };
    let (kind, recursive) = match name {
        "" | "rslave" => (libc::MS_SLAVE, true),
        "slave" => (libc::MS_SLAVE, false),
        "private" => (libc::MS_PRIVATE, false),
        "rprivate" => (libc::MS_PRIVATE, true),
        "shared" => (libc::MS_SHARED, false),
        "rshared" => (libc::MS_SHARED, true),
        "unbindable" => (libc::MS_UNBINDABLE, false),
        "runbindable" => (libc::MS_UNBINDABLE, true),
        other => return Err(invalid("/linux/rootfsPropagation", format!("{other:?} is not a propagation type"))),
    };
    Ok(Propagation { kind, reach: reach(recursive) })
}

#[cfg(test)]
mod tests;
