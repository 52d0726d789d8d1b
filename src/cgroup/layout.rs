//! Which hierarchies the host has, where they are mounted, and where in them a container's cgroup goes.
//!
//! mountinfo is long on a busy host (a line for each mount of each container) and the kernel builds it under
//! a lock, so the usual mount points are asked first and it is read only when one of them isn't there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};

use super::dir;
use super::knobs::Version;
use super::{Hierarchy, Layout, v1};

const ROOT: &str = "/sys/fs/cgroup";

/// What kind of cgroup file system a directory is on, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    V1,
    V2,
}

/// Asks the kernel by statfs(2); a missing directory is none.
pub(super) fn kind_of(path: &Path) -> Option<Kind> {
    const V1: FsType = CGROUP_SUPER_MAGIC;
    const V2: FsType = CGROUP2_SUPER_MAGIC;
    match statfs(path).ok()?.filesystem_type() {
        V1 => Some(Kind::V1),
        V2 => Some(Kind::V2),
        _ => None,
    }
}

impl Layout {
    /// Reads /proc/self/cgroup and asks the usual mount points what they are (statfs). mountinfo is read only
    /// for a v1 hierarchy that isn't at its usual place.
    pub(crate) fn probe() -> Result<Self> {
        let own = match dir::read_path(Path::new("/proc/self/cgroup")) {
            // A kernel without cgroups.
            Err(error) if dir::gone(&error) => return Ok(Self::default()),
            other => other.context("the runtime's own cgroup")?,
        };
        let (layout, missing) = assemble(&own, kind_of);
        if !missing {
            return Ok(layout);
        }
        let mountinfo = dir::read_path(Path::new("/proc/self/mountinfo")).context("where cgroups are mounted")?;
        Ok(from_mountinfo(&own, &mountinfo))
    }

    /// Which version has a controller, by v1's name of it. What no hierarchy is known to have is v2's, if there is one.
    pub(super) fn home(&self, controller: &str) -> Version {
        let on_v1 = self.v1.iter().any(|had| v1::lists(&had.controllers, controller));
        if on_v1 || self.v2.is_none() { Version::V1 } else { Version::V2 }
    }

    /// Where on v2 a caller without rights over the host may make the cgroup of a container: beside its own cgroup, as that
    /// has a process, or below it. None if nothing has been delegated. A path below the mount.
    pub(crate) fn delegated(&self, id: &str) -> Option<String> {
        let v2 = self.v2.as_ref()?;
        let own = clean(&v2.own);
        let beside = own.parent().map(Path::to_owned);
        let places = [beside, Some(own)].into_iter().flatten();
        let mut usable = places.filter(|place| place != Path::new("") && is_writable(&v2.mount.join(place)));
        usable.next()?.join(clean(Path::new(id))).to_str().map(str::to_owned)
    }

    /// Whether the host has no cgroup file system at all.
    pub(super) fn is_empty(&self) -> bool {
        self.v1.is_empty() && self.v2.is_none()
    }
}

/// Whether cgroups can be made in one, and processes moved within it.
fn is_writable(dir: &Path) -> bool {
    use nix::unistd::{AccessFlags, faccessat};
    let flags = nix::fcntl::AtFlags::AT_EACCESS;
    let may = |path: &Path| faccessat(nix::fcntl::AT_FDCWD, path, AccessFlags::W_OK, flags).is_ok();
    may(dir) && may(&dir.join("cgroup.procs"))
}

/// Where a v1 hierarchy is mounted by habit: under its own name, or one of its controllers'.
fn usual_places(controllers: &str) -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if let Some(name) = controllers.strip_prefix("name=") {
        return vec![root.join(name)];
    }
    let mut names: Vec<String> = vec![controllers.to_owned()];
    if let Some((a, b)) = controllers.split_once(',') {
        // The kernel lists them in the order it was built with, distributions by their own taste.
        names.push(format!("{b},{a}"));
        names.extend(controllers.split(',').map(str::to_owned));
    }
    names.into_iter().map(|name| root.join(name)).collect()
}

/// The lines of /proc/self/cgroup (`id:controllers:path`) as hierarchies without a mount point.
fn own_cgroups(text: &[u8]) -> impl Iterator<Item = (String, PathBuf)> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        Some((std::str::from_utf8(controllers).ok()?.to_owned(), PathBuf::from(OsStr::from_bytes(path))))
    })
}

/// The cgroups of a process, as controllers and path.
pub(super) fn cgroups_of(pid: i32) -> Result<Vec<(String, PathBuf)>> {
    let text = dir::read_path(Path::new(&format!("/proc/{pid}/cgroup"))).context("the container's current cgroup")?;
    Ok(own_cgroups(&text).collect())
}

/// Puts the runtime's own cgroups and the usual mount points together; also says whether a v1 hierarchy, or
/// everything, is missing there. `kind_of` is the only question to the host.
fn assemble(own: &[u8], kind_of: impl Fn(&Path) -> Option<Kind>) -> (Layout, bool) {
    let root = PathBuf::from(ROOT);
    if kind_of(&root) == Some(Kind::V2) {
        // With v2 here no v1 hierarchy is in use, whatever else /proc/self/cgroup lists.
        let own = own_cgroups(own).find(|(controllers, _)| controllers.is_empty());
        let own = own.map_or_else(|| PathBuf::from("/"), |(_, own)| own);
        let v2 = Some(Hierarchy { controllers: String::new(), mount: root, own });
        return (Layout { v1: Vec::new(), v2 }, false);
    }
    let (mut layout, mut missing) = (Layout::default(), false);
    for (controllers, own) in own_cgroups(own) {
        if controllers.is_empty() {
            // Every kernel lists v2, most v1 hosts don't mount it: not a reason to read mountinfo.
            let mount = root.join("unified");
            if kind_of(&mount) == Some(Kind::V2) {
                layout.v2 = Some(Hierarchy { controllers, mount, own });
            }
            continue;
        }
        match usual_places(&controllers).into_iter().find(|place| kind_of(place) == Some(Kind::V1)) {
            Some(mount) => layout.v1.push(Hierarchy { controllers, mount, own }),
            None => missing = true,
        }
    }
    missing |= layout.is_empty();
    (layout, missing)
}

/// The slow way: every cgroup mount whose root is the hierarchy's root (a bind mount of a part isn't).
fn from_mountinfo(own: &[u8], mountinfo: &[u8]) -> Layout {
    let mounts: Vec<CgroupMount> = mountinfo.split(|byte| *byte == b'\n').filter_map(cgroup_mount).collect();
    let mut layout = Layout::default();
    for (controllers, own) in own_cgroups(own) {
        let wanted: Vec<&str> = controllers.split(',').filter(|name| !name.is_empty()).collect();
        let found = mounts.iter().find(|mount| match wanted.as_slice() {
            [] => mount.kind == Kind::V2,
            names => mount.kind == Kind::V1 && names.iter().all(|name| mount.options.iter().any(|had| had == name)),
        });
        let Some(found) = found else { continue };
        let is_v2 = wanted.is_empty();
        let hierarchy = Hierarchy { controllers, mount: found.point.clone(), own };
        if is_v2 { layout.v2 = Some(hierarchy) } else { layout.v1.push(hierarchy) }
    }
    layout
}

struct CgroupMount {
    kind: Kind,
    point: PathBuf,
    options: Vec<String>,
}

/// `36 35 0:31 / /sys/fs/cgroup/cpu rw,... shared:9 - cgroup cgroup rw,cpu`
fn cgroup_mount(line: &[u8]) -> Option<CgroupMount> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let kind = match *fields.get(dash + 1)? {
        b"cgroup" => Kind::V1,
        b"cgroup2" => Kind::V2,
        _ => return None,
    };
    if *fields.get(3)? != b"/" {
        return None;
    }
    let options = String::from_utf8_lossy(fields.get(dash + 3)?).split(',').map(str::to_owned).collect();
    Some(CgroupMount { kind, point: crate::sys::mount::unescape(fields.get(4)?), options })
}

/// Resolves `.` and `..` without looking at the host; `..` at the top stays at the top, so nothing escapes.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => drop(out.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => (),
        }
    }
    out
}

/// The container's directory in one hierarchy.
///
/// Absolute: below the mount. Relative: below the runtime's own cgroup on v1. On v2 that would put it below a
/// cgroup that has a process (the runtime), which can't hand out controllers ("no internal processes"), so there
/// it goes beside it, as runc does. Empty: `/<id>`.
pub(super) fn leaf(hierarchy: &Hierarchy, cgroups_path: &str, id: &str) -> PathBuf {
    let asked = Path::new(cgroups_path);
    let inside = if cgroups_path.is_empty() {
        clean(Path::new(id))
    } else if asked.is_absolute() {
        clean(asked)
    } else {
        let mut base = clean(&hierarchy.own);
        if hierarchy.controllers.is_empty() {
            base.pop();
        }
        base.join(clean(asked))
    };
    hierarchy.mount.join(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &[u8] = b"9:name=systemd:/\n4:memory:/a/b\n3:cpu,cpuacct:/c\n0::/own/cg\n";

    fn v1(controllers: &str, mount: &str, own: &str) -> Hierarchy {
        Hierarchy { controllers: controllers.into(), mount: mount.into(), own: own.into() }
    }

    fn host(v1: &[&str], v2: &[&str]) -> impl Fn(&Path) -> Option<Kind> {
        let v1: Vec<PathBuf> = v1.iter().map(PathBuf::from).collect();
        let v2: Vec<PathBuf> = v2.iter().map(PathBuf::from).collect();
        move |path| {
            let is = |list: &[PathBuf]| list.iter().any(|entry| entry == path);
            if is(&v1) { Some(Kind::V1) } else { is(&v2).then_some(Kind::V2) }
        }
    }

    #[test]
    fn hybrid_with_merged_controllers() {
        let kinds = host(
            &["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpuacct,cpu"],
            &["/sys/fs/cgroup/unified"],
        );
        let (layout, missing) = assemble(HYBRID, kinds);
        assert!(!missing);
        assert_eq!(
            layout.v1,
            [
                v1("name=systemd", "/sys/fs/cgroup/systemd", "/"),
                v1("memory", "/sys/fs/cgroup/memory", "/a/b"),
                v1("cpu,cpuacct", "/sys/fs/cgroup/cpuacct,cpu", "/c"),
            ]
        );
        assert_eq!(layout.v2, Some(v1("", "/sys/fs/cgroup/unified", "/own/cg")));
    }

    #[test]
    fn pure_v2_ignores_v1_lines() {
        let (layout, missing) = assemble(HYBRID, host(&[], &["/sys/fs/cgroup"]));
        assert!(!missing);
        assert_eq!(layout, Layout { v1: vec![], v2: Some(v1("", "/sys/fs/cgroup", "/own/cg")) });
    }

    #[test]
    fn v1_without_unified_needs_no_mountinfo() {
        let kinds = host(&["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu"], &[]);
        let (layout, missing) = assemble(HYBRID, kinds);
        assert!(!missing);
        assert_eq!(layout.v2, None);
        assert_eq!(layout.v1[2].mount, Path::new("/sys/fs/cgroup/cpu"));
    }

    #[test]
    fn nothing_mounted_is_an_empty_layout() {
        let (layout, missing) = assemble(HYBRID, |_| None);
        assert!(layout.is_empty() && missing);
        assert!(from_mountinfo(HYBRID, b"22 1 0:20 / / rw - ext4 /dev/vda rw\n").is_empty());
    }

    #[test]
    fn unusual_places_come_from_mountinfo() {
        let mountinfo = b"30 20 0:26 / /cg\\040x/cpu rw shared:9 - cgroup none rw,cpuacct,cpu\n\
            31 20 0:27 /part /cg/mem0 rw - cgroup none rw,memory\n\
            32 20 0:27 / /cg/mem rw - cgroup none rw,memory\n\
            33 20 0:28 / /cg/two rw - cgroup2 none rw,nsdelegate\n";
        let layout = from_mountinfo(HYBRID, mountinfo);
        assert_eq!(layout.v1, [v1("memory", "/cg/mem", "/a/b"), v1("cpu,cpuacct", "/cg x/cpu", "/c")]);
        assert_eq!(layout.v2, Some(v1("", "/cg/two", "/own/cg")));
    }

    #[test]
    fn leaf_of_each_kind_of_path() {
        let one = v1("memory", "/m", "/a/b");
        let two = v1("", "/u", "/own/cg");
        for (asked, on_v1, on_v2) in [
            ("", "/m/id", "/u/id"),
            ("/x/y", "/m/x/y", "/u/x/y"),
            ("x/y", "/m/a/b/x/y", "/u/own/x/y"),
            ("/../../x", "/m/x", "/u/x"),
            ("../../../x", "/m/a/b/x", "/u/own/x"),
            ("/x/./y/../z", "/m/x/z", "/u/x/z"),
        ] {
            assert_eq!(leaf(&one, asked, "id"), Path::new(on_v1), "{asked}");
            assert_eq!(leaf(&two, asked, "id"), Path::new(on_v2), "{asked}");
        }
        assert_eq!(leaf(&v1("memory", "/m", "/../.."), "x", "id"), Path::new("/m/x"));
    }
}
