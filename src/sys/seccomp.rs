//! seccomp(2).

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::{Error, Result, newer};
use crate::seccomp::{Filter, Insn};

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Insn>() == size_of::<libc::sock_filter>());
    assert!(offset_of!(Insn, code) == offset_of!(libc::sock_filter, code));
    assert!(offset_of!(Insn, jt) == offset_of!(libc::sock_filter, jt));
    assert!(offset_of!(Insn, jf) == offset_of!(libc::sock_filter, jf));
    assert!(offset_of!(Insn, k) == offset_of!(libc::sock_filter, k));
};

kernel_struct! {
    /// `struct sock_fprog`.
    struct Program {
        len: u16,
        padding: [u8; size_of::<usize>() - size_of::<u16>()],
        filter: *const Insn,
    }
}

/// Installs a filter on the calling thread, for good. Returns its listener, close-on-exec, if the filter makes one.
///
/// Needs `CAP_SYS_ADMIN` in the thread's user namespace, or no_new_privs: that is the caller's to set, because a
/// container that wants neither is filtered before it drops its capabilities.
pub(crate) fn load(filter: &Filter) -> Result<Option<OwnedFd>> {
    let args = || format!("{} instructions, flags {:#x}", filter.program.len(), filter.flags);
    let too_large = |_| Error::new("seccomp", args(), Errno::EINVAL);
    let len = u16::try_from(filter.program.len()).map_err(too_large)?;
    let flags = libc::c_uint::try_from(filter.flags).map_err(too_large)?;
    let fprog = Program { len, padding: [0; size_of::<usize>() - size_of::<u16>()], filter: filter.program.as_ptr() };
    let fprog = &raw const fprog;
    // SAFETY: the kernel reads one `struct sock_fprog` and the `len` instructions it points to, which is the program whole, of
    // a type that is laid out alike, and alive until after the call, and copies them; it writes nothing.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, fprog) };
    let fd = newer::SECCOMP.check(ret, args)?;
    // SAFETY: with SECCOMP_FILTER_FLAG_NEW_LISTENER the call returns a new descriptor that nobody else owns.
    Ok(filter.notifies().then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    use super::load;
    use crate::seccomp::compile;

    /// Loads a profile in a child, which then makes a system call. The call's errno, or 0.
    fn errno_under(profile: &str, call: libc::c_long) -> i32 {
        let (filter, _) = compile(&serde_json::from_str(profile).unwrap()).unwrap();
        // SAFETY: the child runs plain code of its own thread and leaves by `_exit`.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
                WaitStatus::Exited(_, status) => status,
                status => panic!("{status:?}"),
            },
            ForkResult::Child => {
                let loaded = nix::sys::prctl::set_no_new_privs().is_ok() && load(&filter).is_ok();
                // SAFETY: the calls that the tests pass take no pointers.
                let failed = unsafe { libc::syscall(call, 0, 0, 0) } < 0;
                let status = if !loaded { 255 } else { i32::from(failed) * nix::errno::Errno::last_raw() };
                // SAFETY: ends this process, and nothing of it is needed any more.
                unsafe { libc::_exit(status) }
            }
        }
    }

    #[test]
    fn the_kernel_takes_a_filter_and_obeys() {
        let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW",
            "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
            "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}]}"#;
        assert_eq!(errno_under(profile, libc::SYS_getppid), 77);
        assert_eq!(errno_under(profile, libc::SYS_getpid), 0);
    }

    #[test]
    fn the_kernel_takes_the_docker_default() {
        let profile = include_str!("../../tests/data/seccomp/docker-default.json");
        assert_eq!(errno_under(profile, libc::SYS_getppid), 0);
        assert_eq!(errno_under(profile, libc::SYS_unshare), libc::EPERM);
        assert_eq!(errno_under(profile, 9999), libc::ENOSYS);
    }
}
