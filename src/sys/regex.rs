//! POSIX extended regular expressions (regex(7)), by the C library that is linked anyway.

use std::ffi::CString;
use std::fmt;
use std::mem::MaybeUninit;

use anyhow::{Result, anyhow};

/// A compiled expression.
pub(crate) struct Regex(libc::regex_t);

impl Regex {
    /// Compiles an expression (regcomp(3) with `REG_EXTENDED`). The error says what is wrong with it.
    pub(crate) fn new(pattern: &str) -> Result<Self> {
        let pattern = CString::new(pattern)?;
        let mut compiled = MaybeUninit::<libc::regex_t>::zeroed();
        // SAFETY: `compiled` is valid for writes of a regex_t, and `pattern` ends in NUL; both live across the call.
        let code =
            unsafe { libc::regcomp(compiled.as_mut_ptr(), pattern.as_ptr(), libc::REG_EXTENDED | libc::REG_NOSUB) };
        if code != 0 {
            return Err(anyhow!("{}", message(code)));
        }
        // SAFETY: regcomp(3) has succeeded, so it has initialised the whole of it.
        Ok(Self(unsafe { compiled.assume_init() }))
    }

    /// Whether the expression matches anywhere in the text. A text with a NUL matches nothing.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let Ok(text) = CString::new(text) else { return false };
        // SAFETY: `self.0` was compiled and is freed by drop alone, `text` ends in NUL, and no places of matches are asked for.
        unsafe { libc::regexec(&raw const self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Regex")
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: it was compiled by regcomp(3), and nothing uses it after this.
        unsafe { libc::regfree(&raw mut self.0) }
    }
}

/// The words of an error code, in lower case.
fn message(code: i32) -> String {
    let mut buffer = [0_u8; 128];
    // SAFETY: `buffer` is valid for writes of its length; a null expression is allowed when only the words are wanted.
    unsafe { libc::regerror(code, std::ptr::null(), buffer.as_mut_ptr().cast(), buffer.len()) };
    let text = buffer.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_expressions_match_anywhere() {
        let matches = |pattern, text| Regex::new(pattern).unwrap().matches(text);
        assert!(matches("^web-[0-9]+$", "web-12"));
        assert!(!matches("^web-[0-9]+$", "web-12b"));
        assert!(matches("b|x", "abc") && matches("", "anything") && !matches("^$", "a"));
        assert!(!matches("a", "a\0"));
    }

    #[test]
    fn a_broken_expression_is_named() {
        assert!(!Regex::new("a(").unwrap_err().to_string().is_empty());
        assert!(Regex::new("[").is_err() && Regex::new("a\0").is_err());
    }
}
