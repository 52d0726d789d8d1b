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
}

impl Error {
    /// `args` names the object, quoted where it is a path; it may be empty.
    pub(crate) fn new(call: &'static str, args: impl Into<String>, errno: Errno) -> Self {
        Self { call, args: args.into(), errno }
    }

    /// The call's own error number.
    pub(crate) fn errno(&self) -> Errno {
        self.errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = if self.args.is_empty() { "" } else { " " };
        write!(f, "{}{space}{}: {} ({:?})", self.call, self.args, words(self.errno), self.errno)
    }
}

impl std::error::Error for Error {}

/// strerror(3)'s words in lower case, as Go's errors are: engines match "no such file or directory" and the like.
pub(crate) fn words(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.rsplit_once(" (os error").map_or(text.as_str(), |(words, _)| words);
    let mut letters = text.chars();
    letters.next().map(|letter| letter.to_ascii_lowercase()).into_iter().chain(letters).collect()
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
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
            Error::new(name, format!("{object:?}"), errno)
        })
    }
}

/// The result of a raw system call as a `Result`; `args` is evaluated only on failure.
pub(super) fn check(call: &'static str, ret: libc::c_long, args: impl FnOnce() -> String) -> Result<libc::c_long> {
    if ret < 0 { Err(Error::new(call, args(), Errno::last())) } else { Ok(ret) }
}
