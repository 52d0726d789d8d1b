//! The container's file system as a list of steps: what config.json's mounts, devices, masked and read-only paths come
//! to, with every option turned into bits.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};

use anyhow::Result;
use libc::c_ulong;

use super::cgroup_mounts::CgroupV1;
use super::labels::mount_label;
use super::namespaces::{Kind as Namespace, Namespaces};
use super::options::{Attrs, Bind, IdMap, Parsed, Propagation, Reach, attr};
use super::{IdMaps, Request, c_string, cgroup_mounts, id_maps};
use crate::cgroup;
use crate::error::invalid;
use crate::host::Host;
use crate::spec::{Device, Mount, Spec};

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
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    Bind {
        source: CString,
        tree: Bind,
        idmap: Option<IdMapped>,
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
    /// A tmpfs without `mode=` takes over the mode of the directory it covers.
    pub(crate) copy_mode: bool,
    pub(crate) copy_up: bool,
    pub(crate) fallback: Option<Fallback>,
    /// An SELinux label for its root, where the file system takes none as an option.
    pub(crate) root_label: Option<CString>,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Absolute and clean, in the container.
    pub(crate) path: String,
    /// S_IFCHR, S_IFBLK or S_IFIFO.
    pub(crate) kind: u32,
    pub(crate) mode: u32,
    pub(crate) dev: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bound from the host where mknod(2) isn't permitted (user namespaces).
    pub(crate) bind: bool,
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
        let mut steps = Vec::new();
        for (index, mount) in spec.mounts.iter().enumerate() {
            let pointer = format!("/mounts/{index}");
            if mount.kind == "cgroup" && Parsed::of(mount).bind == Bind::No {
                cgroup_mounts::steps(&mut steps, mount, pointer, host, namespaces, cgroup)?;
            } else {
                if namespaces.makes(Namespace::User) {
                    id_maps::check_options(mount, &pointer, linux)?;
                }
                let containers = IdMaps::of(linux, namespaces, host);
                let idmap = id_mapped(mount, containers.as_ref(), host);
                let mut step = step(mount, pointer, &request.bundle, idmap)?;
                if let (What::FileSystem(fs), true) = (&mut step.what, in_user_namespace) {
                    fs.fallback = fallback(&mount.kind, namespaces);
                }
                steps.push(step);
            }
        }
        steps.extend(request.notify.as_deref().map(|folder| notify(folder, namespaces)).transpose()?);
        let mount_label = mount_label(&linux.mount_label, host.modules)?;
        if let Some(label) = &mount_label {
            steps.iter_mut().for_each(|step| step.label(label));
        }
        let own_dev = !steps.iter().any(binds_dev);
        let rootfs = Self {
            path: request.bundle.join(&root.path),
            readonly: root.readonly,
            propagation: propagation(&linux.rootfs_propagation)?,
            pivot: match (namespaces.has(Namespace::Mount), request.no_pivot) {
                (false, _) => Pivot::Chroot,
                (true, true) => Pivot::Move,
                (true, false) => Pivot::Root,
            },
            steps,
            sources: sources(namespaces, host),
            nodes: if own_dev { nodes(&linux.devices, in_user_namespace)? } else { Vec::new() },
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

/// The options of SELinux (mount(8), "SELinux context").
const CONTEXTS: [&CStr; 4] = [c"context", c"fscontext", c"defcontext", c"rootcontext"];

impl MountStep {
    /// Gives what is made here the label of linux.mountLabel, as runc: not the kernel's own file systems, and not what
    /// has a label of its own.
    fn label(&mut self, label: &CStr) {
        let (What::FileSystem(fs) | What::CgroupV1 { tmpfs: fs, .. }) = &mut self.what else { return };
        match fs.kind.to_bytes() {
            b"proc" | b"sysfs" | b"cgroup" | b"cgroup2" => {}
            // It has labels, but takes none as an option.
            b"mqueue" => fs.root_label = Some(label.into()),
            _ if fs.data.iter().any(|(key, _)| CONTEXTS.contains(&key.as_c_str())) => {}
            _ => fs.data.push((c"context".into(), Some(label.into()))),
        }
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

fn step(mount: &Mount, pointer: String, bundle: &Path, idmap: Option<IdMapped>) -> Result<MountStep> {
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
        What::Bind { source, tree: parsed.bind, idmap }
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
    Ok(MountStep {
        what: What::Bind { source, tree: Bind::One, idmap: None },
        ..step(&mount, POINTER.into(), folder, None)?
    })
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
        return refuse("the root file system itself can't be mounted over");
    }
    // A faked /proc would take the writes that confine the process (CVE-2019-16884).
    if clean.starts_with("/proc/") && !PROC_FILES.contains(&clean.as_str()) {
        return refuse("nothing may be mounted inside /proc");
    }
    Ok(clean)
}

fn file_system(mount: &Mount, parsed: &Parsed, pointer: &str) -> Result<FileSystem> {
    let mut data = Vec::new();
    let c = |text: &str| c_string(text, &format!("{pointer}/options"));
    // Every devpts has been an instance of its own since Linux 4.7: the word means nothing.
    let means_nothing = |key: &str| mount.kind == "devpts" && key == "newinstance";
    for word in parsed.data.iter().filter(|word| !means_nothing(&word.key)) {
        // Quotes keep the commas of a context together in mount(2)'s one string; fsconfig(2) takes them literally.
        let value = word.value.as_deref().map(|value| {
            if CONTEXTS.iter().any(|key| key.to_bytes() == word.key.as_bytes()) {
                value.trim_matches('"')
            } else {
                value
            }
        });
        data.push((c(&word.key)?, value.map(c).transpose()?));
    }
    for word in parsed.superblock.fsconfig() {
        data.push((c(word)?, None));
    }
    // A file system on a device or of layers must know that it won't be written; for the kernel's own the mount's flag
    // is enough, and their superblocks may be shared.
    let own = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"].contains(&mount.kind.as_str());
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

/// config-linux.md, "Default Devices"; the console is a step of its own.
const DEFAULT_NODES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// config.json's devices and the default ones that it doesn't name.
fn nodes(devices: &[Device], bind: bool) -> Result<Vec<Node>> {
    let mut nodes = Vec::with_capacity(devices.len() + DEFAULT_NODES.len());
    for (index, device) in devices.iter().enumerate() {
        nodes.push(node(device, index, bind)?);
    }
    for (path, major, minor) in DEFAULT_NODES {
        if !nodes.iter().any(|node| node.path == path) {
            let dev = libc::makedev(major, minor);
            let path = path.into();
            nodes.push(Node { path, kind: libc::S_IFCHR, mode: 0o666, dev, uid: 0, gid: 0, bind });
        }
    }
    Ok(nodes)
}

fn node(device: &Device, index: usize, bind: bool) -> Result<Node> {
    let kind = match device.kind.as_str() {
        "c" | "u" => libc::S_IFCHR,
        "b" => libc::S_IFBLK,
        "p" => libc::S_IFIFO,
        other => {
            let what = format!("{other:?} is not a device type: expected c, b, u or p");
            return Err(invalid(format!("/linux/devices/{index}/type"), what));
        }
    };
    let number = |name: &str, value: Option<i64>| {
        value.and_then(|value| u32::try_from(value).ok()).ok_or_else(|| {
            invalid(format!("/linux/devices/{index}/{name}"), format!("{value:?} is not a device number"))
        })
    };
    let fifo = kind == libc::S_IFIFO;
    let dev = if fifo { 0 } else { libc::makedev(number("major", device.major)?, number("minor", device.minor)?) };
    Ok(Node {
        path: clean(&device.path),
        kind,
        mode: device.file_mode.unwrap_or(0o666) & 0o7777,
        dev,
        uid: device.uid,
        gid: device.gid,
        // A FIFO can be made in any user namespace.
        bind: bind && !fifo,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_never_leave_the_root() {
        for (path, want) in
            [("/a/b", "/a/b"), ("a//b/", "/a/b"), ("/../..", "/"), ("/a/../../b/./c", "/b/c"), ("", "/")]
        {
            assert_eq!(clean(path), want, "{path:?}");
        }
    }

    #[test]
    fn default_nodes_give_way_to_those_of_the_config() {
        let null = Device {
            kind: "c".into(),
            path: "/dev/null".into(),
            major: Some(1),
            minor: Some(3),
            uid: 5,
            ..Device::default()
        };
        let nodes = nodes(&[null], false).unwrap();
        assert_eq!(nodes.len(), 6);
        assert_eq!((nodes[0].path.as_str(), nodes[0].uid, nodes[0].mode), ("/dev/null", 5, 0o666));
    }

    #[test]
    fn mounts_inside_proc_and_over_the_root_are_refused() {
        for path in ["/proc/sys", "/", "/proc/self/attr", "/x/../proc/sys/kernel"] {
            let mount = Mount { destination: path.into(), ..Mount::default() };
            assert!(destination(&mount, "/mounts/0").is_err(), "{path}");
        }
        for path in ["/proc", "/proc/cpuinfo", "/procfs/x"] {
            let mount = Mount { destination: path.into(), ..Mount::default() };
            assert!(destination(&mount, "/mounts/0").is_ok(), "{path}");
        }
    }

    #[test]
    fn a_read_only_tmpfs_becomes_read_only_late() {
        let mount = Mount {
            destination: "/tmp".into(),
            kind: "tmpfs".into(),
            options: vec!["ro".into(), "size=1k".into()],
            ..Mount::default()
        };
        let step = step(&mount, "/mounts/0".into(), Path::new("/b"), None).unwrap();
        assert!(step.late_readonly);
        assert_eq!(step.attrs.set & attr::RDONLY, 0);
        let What::FileSystem(fs) = step.what else { panic!("not a file system") };
        assert!(fs.copy_mode);
        assert_eq!(fs.data, [(c"size".into(), Some(c"1k".into()))]);
    }

    #[test]
    fn a_mapping_is_the_mounts_own_or_the_containers() {
        use crate::spec::IdMapping;
        let ids = |host_id| vec![IdMapping { container_id: 0, host_id, size: 10 }];
        let containers = IdMaps::new(&ids(1000), &ids(2000), &Host::default());
        let other = IdMaps::new(&ids(1000), &ids(1000), &Host::default());
        let (one, tree) = (Reach::One, Reach::Tree);
        for (options, mappings, expected) in [
            (vec!["bind"], None, None),
            (vec!["bind", "idmap"], None, Some((one, None))),
            (vec!["bind", "ridmap"], None, Some((tree, None))),
            (vec!["bind"], Some((1000, 2000)), Some((one, None))),
            (vec!["rbind", "ridmap"], Some((1000, 2000)), Some((tree, None))),
            (vec!["rbind"], Some((1000, 1000)), Some((one, Some(other.clone())))),
            (vec!["rbind", "ridmap"], Some((1000, 1000)), Some((tree, Some(other)))),
        ] {
            let mut mount = Mount { options: options.into_iter().map(Into::into).collect(), ..Mount::default() };
            if let Some((uid, gid)) = mappings {
                (mount.uid_mappings, mount.gid_mappings) = (ids(uid), ids(gid));
            }
            let expected = expected.map(|(reach, own)| IdMapped { reach, own });
            assert_eq!(id_mapped(&mount, Some(&containers), &Host::default()), expected, "{mount:?}");
        }
    }

    #[test]
    fn the_mount_label_goes_on_what_is_made_and_can_take_it() {
        let labelled = |kind: &str, options: &[&str]| {
            let options = options.iter().map(|option| (*option).to_owned()).collect();
            let mount = Mount { destination: "/x".into(), kind: kind.into(), options, ..Mount::default() };
            let mut step = step(&mount, "/mounts/0".into(), Path::new("/b"), None).unwrap();
            step.label(c"u:r:t:s0:c1,c2");
            let What::FileSystem(fs) = step.what else { panic!("not a file system") };
            (
                fs.data.into_iter().filter(|(key, _)| CONTEXTS.contains(&key.as_c_str())).collect::<Vec<_>>(),
                fs.root_label,
            )
        };
        let context = |label: &CStr| vec![(CString::from(c"context"), Some(CString::from(label)))];
        for kind in ["tmpfs", "overlay", "devpts"] {
            assert_eq!(labelled(kind, &["mode=755"]), (context(c"u:r:t:s0:c1,c2"), None), "{kind}");
        }
        assert_eq!(labelled("mqueue", &[]), (vec![], Some(c"u:r:t:s0:c1,c2".into())));
        for kind in ["proc", "sysfs", "cgroup2"] {
            assert_eq!(labelled(kind, &[]), (vec![], None), "{kind}");
        }
        assert_eq!(labelled("tmpfs", &["context=\"a:b:c:s0:c3,c4\""]), (context(c"a:b:c:s0:c3,c4"), None));
        let mut bind = step(
            &Mount { destination: "/x".into(), source: "/y".into(), options: vec!["bind".into()], ..Mount::default() },
            "/mounts/0".into(),
            Path::new("/b"),
            None,
        )
        .unwrap();
        let before = bind.clone();
        bind.label(c"a:b");
        assert_eq!(bind, before);
    }

    #[test]
    fn a_relative_bind_source_is_below_the_bundle() {
        let mount = Mount {
            destination: "/x".into(),
            source: "data".into(),
            options: vec!["rbind".into(), "ro".into()],
            ..Mount::default()
        };
        let step = step(&mount, "/mounts/0".into(), Path::new("/bundle"), None).unwrap();
        assert_eq!(step.what, What::Bind { source: c"/bundle/data".into(), tree: Bind::Tree, idmap: None });
        assert_eq!(step.attrs.set, attr::RDONLY);
    }
}
