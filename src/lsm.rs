//! Labels of Linux security modules: looked up by the outside, written by the process that will execute the program.
//!
//! A label that is written to the wrong file confines nobody (CVE-2019-16884, CVE-2019-19921), and does damage where it
//! is written (CVE-2025-52881). So no path of the container is ever used: the outside opens the host's procfs and makes
//! sure that it is one; the process opens its own files below that descriptor, crossing no mount and following no magic
//! link, before it goes anywhere. The kernel takes a label only from the very task, and the memory map, that opened it.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs, statfs};

use crate::plan::labels::{Label, Labels, Modules, apparmor_command};
use crate::spec;
use crate::sys::fs::{BENEATH_NO_LINKS, CWD, openat2};
use crate::sys::{self, Context, read_small};

/// The inode of a procfs's root (PROC_ROOT_INO): of a bind mount of a part of one it is another.
const PROC_ROOT_INO: u64 = 1;
const SELINUX_MAGIC: i64 = 0xf97c_ff8c;

/// Which modules are switched on, of those that a label is asked of.
pub(crate) fn modules(process: Option<&spec::Process>, mount_label: &str) -> Modules {
    let asks = |label: fn(&spec::Process) -> &String| process.is_some_and(|process| !label(process).is_empty());
    let selinux = asks(|process| &process.selinux_label) || !mount_label.is_empty();
    Modules { apparmor: asks(|process| &process.apparmor_profile) && apparmor(), selinux: selinux && self::selinux() }
}

fn apparmor() -> bool {
    read_small("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

/// As libselinux: its file system is mounted, and a policy is loaded (before that everything is "kernel").
fn selinux() -> bool {
    #[allow(clippy::unnecessary_cast)] // Its width depends on the target.
    let mounted = statfs("/sys/fs/selinux").is_ok_and(|fs| fs.filesystem_type().0 as i64 == SELINUX_MAGIC);
    let label = || read_small("/proc/thread-self/attr/current");
    mounted && label().is_ok_and(|label| !matches!(label.as_slice(), b"" | b"kernel" | b"kernel\0"))
}

/// The host's procfs, verified; `None` if no label is asked for. Runs outside, in the caller's mount namespace.
pub(crate) fn host_proc(labels: &Labels) -> Result<Option<OwnedFd>> {
    if labels.is_empty() {
        return Ok(None);
    }
    let proc = openat2(CWD, c"/proc", libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0, 0)?;
    verify_proc(proc.as_fd())?;
    Ok(Some(proc))
}

fn verify_proc(proc: BorrowedFd<'_>) -> Result<()> {
    let kind = fstatfs(proc).call("fstatfs", "/proc")?.filesystem_type();
    let inode = nix::sys::stat::fstat(proc).call("fstat", "/proc")?.st_ino;
    ensure!(
        kind == PROC_SUPER_MAGIC && inode == PROC_ROOT_INO,
        "\"/proc\" is not a proc file system: a label written there would confine nobody"
    );
    Ok(())
}

/// The files of this very task that take labels, open. All are closed before anything of the container is looked at.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    apparmor: Option<(OwnedFd, Vec<u8>)>,
    selinux: Option<OwnedFd>,
    keys: Option<OwnedFd>,
}

impl Attributes {
    /// Opens what the labels need below the host's procfs, which is given up. The first thing in the final process.
    ///
    /// `no_new_privileges`: whether they will be set before the program is executed.
    pub(crate) fn open(proc: Option<OwnedFd>, labels: &Labels, no_new_privileges: bool) -> Result<Self> {
        let Some(proc) = proc else { return Ok(Self::default()) };
        let open = |path: &CStr, flags| open(proc.as_fd(), path, flags);
        let mut attributes = Self::default();
        if let Some(label) = &labels.apparmor {
            let file = match open(c"thread-self/attr/apparmor/exec", libc::O_WRONLY) {
                // Kernels without a folder of its own for each module.
                Err(error) if error.errno() == Errno::ENOENT && labels.selinux.is_none() => {
                    open(c"thread-self/attr/exec", libc::O_WRONLY)
                }
                file => file,
            };
            let file = file.context(label.asked_by)?;
            let current = if no_new_privileges { read_current(proc.as_fd()) } else { None };
            attributes.apparmor = Some((file, apparmor_command(&label.text, current.as_deref())));
        }
        if let Some(label) = &labels.selinux {
            attributes.selinux = Some(open(c"thread-self/attr/exec", libc::O_WRONLY).with_context(|| label.asked_by)?);
            attributes.keys =
                Some(open(c"thread-self/attr/keycreate", libc::O_WRONLY).with_context(|| label.asked_by)?);
        }
        Ok(attributes)
    }

    /// Runs what makes keys, with the label that they are to have.
    pub(crate) fn for_keys<T>(&mut self, labels: &Labels, make: impl FnOnce() -> Result<T>) -> Result<T> {
        let (Some(file), Some(label)) = (self.keys.take(), &labels.selinux) else { return make() };
        write(&file, "keycreate", label.text.to_bytes()).map_err(|error| selinux_error(label, &error))?;
        let made = make()?;
        // Nothing is the default: later keys are the program's own affair.
        write(&file, "keycreate", b"").map_err(|error| selinux_error(label, &error))?;
        Ok(made)
    }

    /// Says what the next execve(2) of this task makes it. As in runc before no_new_privs is set, which AppArmor minds,
    /// and before a seccomp filter is loaded.
    ///
    /// A hook of startContainer that this process forks afterwards is confined in the same way.
    pub(crate) fn set(self, labels: &Labels) -> Result<()> {
        if let (Some((file, command)), Some(label)) = (&self.apparmor, &labels.apparmor) {
            write(file, "apparmor/exec", command).map_err(|error| apparmor_error(label, &error))?;
        }
        if let (Some(file), Some(label)) = (&self.selinux, &labels.selinux) {
            write(file, "exec", label.text.to_bytes()).map_err(|error| selinux_error(label, &error))?;
        }
        Ok(())
    }
}

/// thread-self is an ordinary link to a relative path; a mount over any part of it is an error (EXDEV).
fn open(proc: BorrowedFd<'_>, path: &CStr, flags: i32) -> sys::Result<OwnedFd> {
    let resolve = (BENEATH_NO_LINKS & !libc::RESOLVE_NO_SYMLINKS) | libc::RESOLVE_NO_XDEV;
    openat2(proc, path, flags | libc::O_NOCTTY, 0, resolve)
}

/// Without an answer the runtime counts as unconfined, and the kernel refuses what it may not do.
fn read_current(proc: BorrowedFd<'_>) -> Option<Vec<u8>> {
    let file = open(proc, c"thread-self/attr/apparmor/current", libc::O_RDONLY).ok()?;
    let mut text = vec![0; 4096];
    let length = nix::unistd::read(&file, &mut text).ok()?;
    text.truncate(length);
    Some(text)
}

/// The kernel takes a label whole, in one write of at most a page.
fn write(file: &OwnedFd, name: &str, text: &[u8]) -> std::result::Result<(), (String, Errno)> {
    // In these quotes: Podman tells the failure of a label by them.
    let failed = |errno| (format!("write `/proc/thread-self/attr/{name}`"), errno);
    match nix::unistd::write(file, text) {
        Ok(length) if length == text.len() => Ok(()),
        Ok(_) => Err(failed(Errno::ENAMETOOLONG)),
        Err(errno) => Err(failed(errno)),
    }
}

fn apparmor_error(label: &Label, (call, errno): &(String, Errno)) -> anyhow::Error {
    let why = match errno {
        Errno::ENOENT => "no such profile is loaded: load it with \"apparmor_parser -r FILE\"",
        Errno::EPERM | Errno::EACCES => "the profile that the runtime runs under doesn't allow the change to it",
        Errno::EINVAL => "not a name of a profile",
        _ => "AppArmor doesn't take it",
    };
    refused(label, why, call, *errno)
}

fn selinux_error(label: &Label, (call, errno): &(String, Errno)) -> anyhow::Error {
    let why = match errno {
        Errno::EINVAL => "not a valid context in the policy that is loaded",
        Errno::EPERM | Errno::EACCES => "the policy doesn't allow the runtime to set it",
        _ => "SELinux doesn't take it",
    };
    refused(label, why, call, *errno)
}

fn refused(label: &Label, why: &str, call: &str, errno: Errno) -> anyhow::Error {
    anyhow!("{}: {:?}: {why}: {call}: {} ({errno:?})", label.asked_by, label.text, errno.desc().to_lowercase())
}

/// For file systems that take no `context=` (mqueue): the label of the root of a mount.
pub(crate) fn label_file(path: &CStr, label: &CStr) -> Result<()> {
    match sys::fs::setxattr(path, c"security.selinux", label.to_bytes_with_nul()) {
        Err(error) if error.errno() == Errno::EOPNOTSUPP => bail!("config.json: /linux/mountLabel: {error}"),
        result => result.context("config.json: /linux/mountLabel"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_root_of_a_procfs_will_do() {
        let at = |path: &CStr| openat2(CWD, path, libc::O_PATH | libc::O_DIRECTORY, 0, 0).unwrap();
        verify_proc(at(c"/proc").as_fd()).unwrap();
        for path in [c"/tmp", c"/", c"/proc/self", c"/proc/sys", c"/sys"] {
            let error = verify_proc(at(path).as_fd()).unwrap_err().to_string();
            assert!(error.contains("is not a proc file system"), "{path:?}: {error}");
        }
    }

    #[test]
    fn files_are_found_below_the_procfs_and_nowhere_else() {
        let proc = openat2(CWD, c"/proc", libc::O_PATH | libc::O_DIRECTORY, 0, 0).unwrap();
        open(proc.as_fd(), c"thread-self/attr/current", libc::O_RDONLY).unwrap();
        for (path, errno) in [(c"self/root/etc", Errno::ELOOP), (c"/etc", Errno::EXDEV), (c"../etc", Errno::EXDEV)] {
            let found = open(proc.as_fd(), path, libc::O_RDONLY).unwrap_err();
            assert_eq!(found.errno(), errno, "{path:?}");
        }
    }

    #[test]
    fn an_error_says_what_to_do_and_has_the_words_that_podman_looks_for() {
        let label = Label { text: c"x".into(), asked_by: "--apparmor" };
        let error = apparmor_error(&label, &("write `/proc/thread-self/attr/apparmor/exec`".into(), Errno::ENOENT));
        assert_eq!(
            error.to_string(),
            "--apparmor: \"x\": no such profile is loaded: load it with \"apparmor_parser -r FILE\": write \
             `/proc/thread-self/attr/apparmor/exec`: no such file or directory (ENOENT)"
        );
    }
}
