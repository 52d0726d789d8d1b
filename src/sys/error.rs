//! The error of a system call: which call, on what, and the errno.

use std::fmt;

use nix::errno::Errno;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A failed system call. Prints as `openat2 "/proc/x": no such file or directory (ENOENT)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Error {
    call: &'static str,
    args: String,
    errno: Errno,
    /// Of a call that can't be made here: what was answered in the kernel's place.
    answered: Option<Errno>,
    /// Of a failure that has no number: a file that ends too early, text that isn't UTF-8. `errno` is then the unknown.
    words: Option<String>,
}

impl Error {
    /// `args` names the object, quoted where it is a path; it may be empty.
    pub(crate) fn new(call: &'static str, args: impl Into<String>, errno: Errno) -> Self {
        Self { call, args: args.into(), errno, answered: None, words: None }
    }

    /// A call that this kernel lacks, or that a filter around the runtime denies by the error number `answered`.
    pub(super) fn lacking(call: &'static str, args: String, answered: Errno) -> Self {
        Self { call, args, errno: Errno::ENOSYS, answered: Some(answered), words: None }
    }

    /// The call's own error number; ENOSYS if a filter around the runtime denies the call, whatever it answers.
    pub(crate) fn errno(&self) -> Errno {
        self.errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = if self.args.is_empty() { "" } else { " " };
        write!(f, "{}{space}{}: ", self.call, self.args)?;
        let errno = self.answered.unwrap_or(self.errno);
        match &self.words {
            Some(words) => f.write_str(words)?,
            None => write!(f, "{} ({errno:?})", words(errno))?,
        }
        match self.answered {
            None => Ok(()),
            Some(Errno::ENOSYS) => {
                write!(f, ": this kernel lacks {}(2), or a seccomp filter around the runtime denies it", self.call)
            }
            Some(_) => write!(f, ": a seccomp filter around the runtime denies {}(2)", self.call),
        }
    }
}

impl std::error::Error for Error {}

/// strerror(3)'s words in lower case, as Go's errors are: engines match "no such file or directory" and the like.
pub(crate) fn words(errno: Errno) -> String {
    if let Some(words) = glibc(errno) {
        return words.to_owned();
    }
    let text = std::io::Error::from(errno).to_string();
    let text = text.rsplit_once(" (os error").map_or(text.as_str(), |(words, _)| words);
    let mut letters = text.chars();
    letters.next().map(|letter| letter.to_ascii_lowercase()).into_iter().chain(letters).collect()
}

/// glibc's words where musl has others: what is printed must not depend on what the binary is linked with.
fn glibc(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::EIO => "input/output error",
        Errno::ECHILD => "no child processes",
        Errno::ENOMEM => "cannot allocate memory",
        Errno::EBUSY => "device or resource busy",
        Errno::EXDEV => "invalid cross-device link",
        Errno::EMFILE => "too many open files",
        Errno::ENOTTY => "inappropriate ioctl for device",
        Errno::ESPIPE => "illegal seek",
        Errno::EDOM => "numerical argument out of domain",
        Errno::ERANGE => "numerical result out of range",
        Errno::EDEADLK => "resource deadlock avoided",
        Errno::ENAMETOOLONG => "file name too long",
        Errno::ELOOP => "too many levels of symbolic links",
        Errno::ETIME => "timer expired",
        Errno::EOVERFLOW => "value too large for defined data type",
        Errno::EREMOTE => "object is remote",
        Errno::ELIBACC => "can not access a needed shared library",
        Errno::ELIBBAD => "accessing a corrupted shared library",
        Errno::ELIBMAX => "attempting to link in too many shared libraries",
        Errno::ELIBEXEC => "cannot exec a shared library directly",
        Errno::EILSEQ => "invalid or incomplete multibyte or wide character",
        Errno::ERESTART => "interrupted system call should be restarted",
        Errno::EUSERS => "too many users",
        Errno::ENOTSOCK => "socket operation on non-socket",
        Errno::EMSGSIZE => "message too long",
        Errno::EOPNOTSUPP => "operation not supported",
        Errno::EADDRINUSE => "address already in use",
        Errno::EADDRNOTAVAIL => "cannot assign requested address",
        Errno::ENETUNREACH => "network is unreachable",
        Errno::ENETRESET => "network dropped connection on reset",
        Errno::ECONNABORTED => "software caused connection abort",
        Errno::EISCONN => "transport endpoint is already connected",
        Errno::ENOTCONN => "transport endpoint is not connected",
        Errno::ESHUTDOWN => "cannot send after transport endpoint shutdown",
        Errno::ETOOMANYREFS => "too many references: cannot splice",
        Errno::ETIMEDOUT => "connection timed out",
        Errno::EHOSTUNREACH => "no route to host",
        Errno::EINPROGRESS => "operation now in progress",
        Errno::EUCLEAN => "structure needs cleaning",
        Errno::EDQUOT => "disk quota exceeded",
        Errno::EOWNERDEAD => "owner died",
        Errno::ERFKILL => "operation not possible due to RF-kill",
        Errno::EHWPOISON => "memory page has hardware error",
        Errno::ENOPKG => "package not installed",
        Errno::ENONET => "machine is not on the network",
        _ => return None,
    })
}

/// Names the call that an errno came from: `open(..).call("open", path)?`.
pub(crate) trait Context<T> {
    /// `object` is printed quoted; it is evaluated only on failure.
    fn call(self, name: &'static str, object: impl fmt::Debug) -> Result<T>;
}

impl<T> Context<T> for nix::Result<T> {
    fn call(self, name: &'static str, object: impl fmt::Debug) -> Result<T> {
        self.map_err(|errno| Error::new(name, format!("{object:?}"), errno))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn call(self, name: &'static str, object: impl fmt::Debug) -> Result<T> {
        self.map_err(|error| {
            let (errno, words) = match error.raw_os_error() {
                Some(number) => (Errno::from_raw(number), None),
                None => (Errno::UnknownErrno, Some(error.to_string())),
            };
            Error { words, ..Error::new(name, format!("{object:?}"), errno) }
        })
    }
}

/// The result of a raw system call as a `Result`; `args` is evaluated only on failure.
pub(super) fn check(call: &'static str, ret: libc::c_long, args: impl FnOnce() -> String) -> Result<libc::c_long> {
    if ret < 0 { Err(Error::new(call, args(), Errno::last())) } else { Ok(ret) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever std makes up by itself, and a number that it takes from the kernel.
    #[test]
    fn a_failure_without_a_number_says_what_it_is() {
        use std::io::{Error, ErrorKind};
        for error in [
            Error::from(ErrorKind::UnexpectedEof),
            Error::new(ErrorKind::InvalidData, "stream did not contain valid UTF-8"),
            Error::other("words of its own"),
        ] {
            let want = format!("read \"/x\": {error}");
            let error = Err::<(), _>(error).call("read", "/x").unwrap_err();
            assert_eq!((error.to_string(), error.errno()), (want, Errno::UnknownErrno));
        }
        let error = Err::<(), _>(Error::from_raw_os_error(2)).call("read", "/x").unwrap_err();
        assert_eq!(error.to_string(), "read \"/x\": no such file or directory (ENOENT)");
    }

    #[test]
    fn words_are_those_of_glibc() {
        let mut own = 0;
        for errno in (1..134).map(Errno::from_raw).filter(|errno| *errno != Errno::UnknownErrno) {
            let Some(words) = glibc(errno) else { continue };
            own += 1;
            // Elsewhere libc has words of its own: the reason for the table.
            if cfg!(target_env = "gnu") {
                let text = std::io::Error::from(errno).to_string();
                let (text, _) = text.rsplit_once(" (os error").unwrap();
                assert!(text[..1].eq_ignore_ascii_case(&words[..1]) && text[1..] == words[1..], "{words}, not {text}");
            }
        }
        assert!(own > 30);
        assert_eq!(words(Errno::ELOOP), "too many levels of symbolic links");
        assert_eq!(words(Errno::ENOENT), "no such file or directory");
    }
}
