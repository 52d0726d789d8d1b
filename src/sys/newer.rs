//! System calls that are younger than some seccomp filters around the runtime (an engine's older profile, the hardening of
//! a systemd unit): such a filter answers EPERM or ENOSYS for whatever it doesn't know.
//!
//! EPERM may as well be the kernel's own refusal. So after an EPERM, and only then, the call is made once more with
//! arguments that the kernel rejects before it looks at anything: another answer than the kernel's is the filter's. The
//! error then has the number ENOSYS, as on a kernel that lacks the call, and takes the same way on.

use nix::errno::Errno;

use super::error::{Error, Result};

/// A system call, and what the kernel answers to arguments that can't be valid.
#[derive(Debug)]
pub(super) struct Newer {
    pub(super) name: &'static str,
    number: libc::c_long,
    /// Flags, descriptors and sizes that are wrong; pointers are null.
    wrong: [libc::c_long; 6],
    answer: Errno,
}

/// No flag, descriptor or command has all of these bits.
const BAD: libc::c_long = 0x7fff_ffff;
/// No descriptor.
const NONE: libc::c_long = -1;

macro_rules! newer {
    ($($constant:ident $name:literal $number:expr, $wrong:expr, $answer:ident;)*) => {
        $(pub(super) const $constant: Newer =
            Newer { name: $name, number: $number, wrong: $wrong, answer: Errno::$answer };)*
        #[cfg(test)]
        const ALL: &[&Newer] = &[$(&$constant),*];
    };
}

newer! {
    OPENAT2 "openat2" libc::SYS_openat2, [NONE, 0, 0, 0, 0, 0], EINVAL;
    CLONE3 "clone3" libc::SYS_clone3, [0, 0, 0, 0, 0, 0], EINVAL;
    CLOSE_RANGE "close_range" libc::SYS_close_range, [1, 0, 0, 0, 0, 0], EINVAL;
    OPEN_TREE "open_tree" libc::SYS_open_tree, [NONE, 0, BAD, 0, 0, 0], EINVAL;
    // Of these three the kernel asks for the right to mount first: without that mount(2) says the same.
    MOVE_MOUNT "move_mount" libc::SYS_move_mount, [NONE, 0, NONE, 0, BAD, 0], EINVAL;
    FSOPEN "fsopen" libc::SYS_fsopen, [0, BAD, 0, 0, 0, 0], EINVAL;
    FSMOUNT "fsmount" libc::SYS_fsmount, [NONE, BAD, 0, 0, 0, 0], EINVAL;
    FSCONFIG "fsconfig" libc::SYS_fsconfig, [NONE, BAD, 0, 0, 0, 0], EINVAL;
    MOUNT_SETATTR "mount_setattr" libc::SYS_mount_setattr, [NONE, 0, BAD, 0, 0, 0], EINVAL;
    MEMFD_CREATE "memfd_create" libc::SYS_memfd_create, [0, BAD, 0, 0, 0, 0], EINVAL;
    KEYCTL "keyctl" libc::SYS_keyctl, [BAD, 0, 0, 0, 0, 0], EOPNOTSUPP;
    ADD_KEY "add_key" libc::SYS_add_key, [0, 0, 0, 0, 0, 0], EFAULT;
    REQUEST_KEY "request_key" libc::SYS_request_key, [0, 0, 0, 0, 0, 0], EFAULT;
    PIDFD_OPEN "pidfd_open" libc::SYS_pidfd_open, [NONE, BAD, 0, 0, 0, 0], EINVAL;
    PIDFD_SEND_SIGNAL "pidfd_send_signal" libc::SYS_pidfd_send_signal, [NONE, 0, 0, BAD, 0, 0], EINVAL;
    PIDFD_GETFD "pidfd_getfd" libc::SYS_pidfd_getfd, [NONE, NONE, BAD, 0, 0, 0], EINVAL;
    STATX "statx" libc::SYS_statx, [NONE, 0, BAD, BAD, 0, 0], EINVAL;
    FACCESSAT2 "faccessat2" libc::SYS_faccessat2, [NONE, 0, BAD, 0, 0, 0], EINVAL;
    SECCOMP "seccomp" libc::SYS_seccomp, [BAD, 0, 0, 0, 0, 0], EINVAL;
}

impl Newer {
    /// Whether the call reaches the kernel.
    pub(super) fn reaches_the_kernel(&self) -> bool {
        let [a, b, c, d, e, f] = self.wrong;
        // SAFETY: every pointer is null, and what else there is the kernel rejects before it uses one.
        let ret = unsafe { libc::syscall(self.number, a, b, c, d, e, f) };
        ret < 0 && Errno::last() == self.answer
    }

    /// The result of this call, just made; `args` is evaluated only on failure.
    pub(super) fn check(&self, ret: libc::c_long, args: impl FnOnce() -> String) -> Result<libc::c_long> {
        if ret >= 0 {
            return Ok(ret);
        }
        let errno = Errno::last();
        if errno == Errno::ENOSYS || errno == Errno::EPERM && !self.reaches_the_kernel() {
            let error = Error::lacking(self.name, args(), errno);
            log::debug!("{error}");
            return Err(error);
        }
        Err(Error::new(self.name, args(), errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_rejects_every_wrong_call_as_expected() {
        // Not those that need rights first, unless the tests have them.
        let root = nix::unistd::geteuid().is_root();
        for call in ALL.iter().filter(|call| root || !["move_mount", "fsopen", "fsmount"].contains(&call.name)) {
            assert!(call.reaches_the_kernel(), "{}: {}", call.name, Errno::last());
        }
    }
}
