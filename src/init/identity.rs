//! Who the process is: names of the host, keyring, groups, ids, capabilities. Runs inside.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context as _, Result};
use nix::errno::Errno;

use super::paths::fs_type;
use super::procfs::Procfs;
use crate::error::invalid;
use crate::host::{self, CAP_DAC_OVERRIDE, CAP_SYS_ADMIN};
use crate::plan::Plan;
use crate::plan::namespaces::Kind;
use crate::plan::task::{Identity, Streams};
use crate::sys::process;
use crate::sys::{self, Context};

/// The sysctl, below /proc/sys, that belongs to the pid namespace since Linux 6.14, and to the host before.
const PID_MAX: &str = "kernel/pid_max";
/// The kernel's PID_MAX_LIMIT, on 64 bits.
const LARGEST_PID_MAX: &str = "4194304";

/// Whether this process is non-dumpable. A change of its ids makes it what fs.suid_dumpable says (proc_sys_fs(5)), so it
/// has to be made non-dumpable once more after each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hidden {
    Yes,
    No,
}

impl Hidden {
    fn keep(self) -> Result<()> {
        match self {
            Self::Yes => Ok(process::set_dumpable(false)?),
            Self::No => Ok(()),
        }
    }
}

/// The user of a new or joined user namespace is nobody until it takes an id that is mapped.
pub(crate) fn become_root(hidden: Hidden) -> Result<()> {
    // With setgroups(2) given up (user_namespaces(7)) the caller's groups stay; nothing can be done about that here.
    match process::setgroups(&[]) {
        Err(error) if error.errno() == Errno::EPERM => {}
        result => result?,
    }
    process::setresgid(0).context("id 0 must be mapped in /linux/gidMappings")?;
    hidden.keep()?;
    process::setresuid(0).context("id 0 must be mapped in /linux/uidMappings")?;
    hidden.keep()
}

/// Offsets first, entry second: the namespace takes them as long as nobody is inside (time_namespaces(7)).
pub(crate) fn enter_time_namespace(offsets: &str, procfs: &Procfs) -> Result<()> {
    sys::clone::unshare(libc::CLONE_NEWTIME)?;
    let own = procfs.own()?;
    if !offsets.is_empty() {
        procfs
            .write(&format!("{own}/timens_offsets"), offsets.as_bytes())
            .with_context(|| format!("config.json: /linux/timeOffsets: {:?}", offsets.trim_end()))?;
    }
    let namespace = procfs.namespace(&format!("{own}/ns"), c"time_for_children")?;
    Ok(sys::clone::setns(namespace.as_fd(), libc::CLONE_NEWTIME)?)
}

/// Host and domain name.
pub(crate) fn names(plan: &Plan) -> Result<()> {
    if !plan.hostname.is_empty() {
        process::sethostname(&plan.hostname).context("config.json: /hostname")?;
    }
    if !plan.domainname.is_empty() {
        process::setdomainname(&plan.domainname).context("config.json: /domainname")?;
    }
    Ok(())
}

/// The namespaces that this process is in decide whose value is written.
///
/// Some values veto each other (net.ipv4.ip_unprivileged_port_start and ip_local_port_range), so no order fits all: what was
/// refused is tried again after the others, as long as that gets any further.
pub(crate) fn sysctls(plan: &Plan, procfs: &Procfs) -> Result<()> {
    let mut left: Vec<&(String, String)> = plan.sysctl.iter().collect();
    while !left.is_empty() {
        let mut refused = Vec::new();
        let mut first = None;
        for sysctl in &left {
            if let Err(error) = write_sysctl(plan, procfs, sysctl) {
                first.get_or_insert(error);
                refused.push(*sysctl);
            }
        }
        match first {
            Some(error) if refused.len() == left.len() => return Err(error),
            _ => left = refused,
        }
    }
    Ok(())
}

fn write_sysctl(plan: &Plan, procfs: &Procfs, (path, value): &(String, String)) -> Result<()> {
    let what = || format!("config.json: /linux/sysctl: {path:?} to {value:?}");
    if path == PID_MAX && !has_own_pid_max(plan, procfs).with_context(what)? {
        let cause = "on this kernel it is the host's: a pid namespace has its own since Linux 6.14";
        return Err(invalid("/linux/sysctl", format!("{path:?}: {cause}")));
    }
    procfs.write(&format!("sys/{path}"), value.as_bytes()).with_context(what)
}

/// Whether the limit of pids is one of the pid namespace's, which this process is in. The value that it reads is that of its
/// own namespace, and a new one begins with the largest there is (the kernel's create_pid_namespace()).
fn has_own_pid_max(plan: &Plan, procfs: &Procfs) -> Result<bool> {
    let at_its_begin = || -> Result<bool> { Ok(procfs.read(&format!("sys/{PID_MAX}"))?.trim() == LARGEST_PID_MAX) };
    Ok(host::is_linux(6, 14) && (!plan.namespaces.makes(Kind::Pid) || at_its_begin()?))
}

/// A session keyring of the container's own: keys of the caller's session stay with it.
///
/// By its name a later `exec` finds it, if its user may search it; in a user namespace that user is another one.
///
/// `new`: it is made, and is to be searchable; in a user namespace or not.
pub(crate) fn join_keyring(name: &std::ffi::CStr, new: Option<bool>) -> Result<()> {
    match (process::join_session_keyring(name), new) {
        (Ok(_), None) => Ok(()),
        // This process is in it already: that of a container of the same name around the runtime.
        (Ok(0), _) => Ok(()),
        // A keyring that was there already, and isn't ours to change, is as it should be.
        (Ok(key), Some(user_namespace)) => match process::make_key_searchable(key, user_namespace) {
            Err(error) if error.errno() == Errno::EACCES => Ok(()),
            done => Ok(done?),
        },
        // A kernel without keys has none to leak, and a filter around the runtime binds the container, too.
        (Err(error), _) if error.errno() == Errno::ENOSYS => {
            if process::keys_are_within_reach() {
                log::warn!("the container keeps the session keyring of its caller, as far as it gets to it: {error}");
            } else {
                log::debug!("no session keyring: {error}");
            }
            Ok(())
        }
        (Err(error), _) if error.errno() == Errno::EDQUOT => {
            Err(error).context("too many keys (kernel.keys.maxkeys): raise the limit or use --no-new-keyring")
        }
        (Err(error), _) => Err(error.into()),
    }
}

/// Standard streams that belong to somebody else can't be opened again through /proc/self/fd: they are given to the
/// program's user, unless they are the null device or on a file system that doesn't do it (as runc). The caller's own
/// keep their owner, but for pipes and sockets, which nobody else can find.
pub(crate) fn own_stdio(uid: u32, streams: Streams) -> Result<()> {
    for number in 0..3 {
        let fd = sys::fs::borrow(number);
        let Ok(stat) = nix::sys::stat::fstat(fd) else { continue };
        let null = stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == libc::makedev(1, 3);
        if stat.st_uid == uid || null || (streams == Streams::Callers && has_name(fd, &stat)) {
            continue;
        }
        match nix::unistd::fchown(fd, Some(uid.into()), None) {
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS | Errno::ENOSYS) => {}
            Err(errno) => return Err(errno).call("chown", format!("standard stream {number}")).map_err(Into::into),
        }
    }
    Ok(())
}

/// Whether a stream is a file that others can open by its name. sockfs has the inode of every socket, pipefs that of a
/// pipe without a name.
fn has_name(fd: BorrowedFd<'_>, stat: &libc::stat) -> bool {
    const PIPEFS_MAGIC: i64 = 0x5049_5045;
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFSOCK => false,
        libc::S_IFIFO => !fs_type(fd).is_ok_and(|kind| kind == PIPEFS_MAGIC),
        _ => true,
    }
}

/// Everything but the last step of capabilities: bounding set, groups, ids.
pub(crate) fn assume(identity: &Identity, in_user_namespace: bool, hidden: Hidden) -> Result<()> {
    drop_bounding(identity.bounding & !identity.capabilities.bounding)?;
    if identity.same_ids {
        return Ok(());
    }
    match process::setgroups(&identity.groups) {
        // Given up for the right to map ids: fine as long as no group is asked for.
        Err(error) if error.errno() == Errno::EPERM && in_user_namespace && identity.groups.is_empty() => {}
        Err(error) if error.errno() == Errno::EPERM && in_user_namespace => {
            return Err(error)
                .context("setgroups(2) was given up for this user namespace's single mapping (user_namespaces(7))")
                .context("config.json: /process/user/additionalGids");
        }
        result => result.context("config.json: /process/user/additionalGids")?,
    }
    process::set_keepcaps(true)?;
    process::setresgid(identity.gid).context("config.json: /process/user/gid")?;
    hidden.keep()?;
    process::setresuid(identity.uid).context("config.json: /process/user/uid")?;
    hidden.keep()?;
    // What was kept is taken back by execve(2) (capabilities(7), SECBIT_KEEP_CAPS).
    Ok(())
}

fn drop_bounding(drop: u64) -> Result<()> {
    for cap in (0..u64::BITS).filter(|cap| drop >> cap & 1 == 1) {
        match process::capbset_drop(cap) {
            // Past the last capability that the kernel knows.
            Err(error) if error.errno() == Errno::EINVAL => break,
            result => result?,
        }
    }
    Ok(())
}

/// The capabilities of the program. Ambient ones are raised one by one; one that isn't possible is left out, as runc
/// does: the kernel allows it only for what is permitted and inheritable.
pub(crate) fn set_capabilities(identity: &Identity) -> Result<()> {
    set_capabilities_and(identity, 0)
}

/// [`set_capabilities`], but that the right to load a seccomp filter stays: [`give_up_filtering`] ends that. One step less
/// for root, if the program may do with files what this process may: its look at the program is the same.
pub(crate) fn set_capabilities_to_filter(identity: &Identity) -> Result<()> {
    let sets = &identity.capabilities;
    if identity.uid == 0 && sets.inheritable == 0 && sets.effective & CAP_DAC_OVERRIDE != 0 {
        return Ok(());
    }
    // Without that right the filter's own error says so.
    set_capabilities_and(identity, CAP_SYS_ADMIN).or_else(|_| set_capabilities(identity))
}

/// The last step to the program's capabilities, with the filter loaded.
pub(crate) fn give_up_filtering(identity: &Identity) -> Result<()> {
    let sets = &identity.capabilities;
    process::capset(sets.effective, sets.permitted, sets.inheritable).context("config.json: /process/capabilities")
}

fn set_capabilities_and(identity: &Identity, kept: u64) -> Result<()> {
    let sets = &identity.capabilities;
    let (effective, permitted) = (sets.effective | kept, sets.permitted | kept);
    process::capset(effective, permitted, sets.inheritable).context("config.json: /process/capabilities")?;
    if sets.inheritable != 0 {
        process::ambient_clear()?;
    }
    for cap in (0..u64::BITS).filter(|cap| sets.ambient >> cap & 1 == 1) {
        process::ambient_raise(cap).context("config.json: /process/capabilities/ambient")?;
    }
    Ok(())
}
