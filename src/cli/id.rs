//! A container's name, checked once.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Error, bail};
use serde::{Deserialize, Serialize};

/// Longest name accepted, as in runc.
const MAX_LEN: usize = 1024;
/// What a name must look like; `.` and `..` can't match it, so a name is always one path component.
const PATTERN: &str = "[A-Za-z0-9_+-][A-Za-z0-9_+.-]*";

/// The name of a container: safe as a file name, in a cgroup's path and in messages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Id(String);

impl Id {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Id {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_LEN {
            bail!("container id of {} characters is too long: expected at most {MAX_LEN}", text.len());
        }
        let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'+' | b'-' | b'.');
        if text.is_empty() || text.starts_with('.') || !text.bytes().all(inner) {
            bail!("container id {text:?} is not valid: expected {PATTERN}, at most {MAX_LEN} characters");
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Id {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl AsRef<Path> for Id {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_engines_send() {
        let longest = "a".repeat(MAX_LEN);
        for text in ["a", "-a", "_", "+x", "a.b", "0a1b2c", "k8s_POD-1+2.3", "a..b", longest.as_str()] {
            assert_eq!(text.parse::<Id>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn refuses_what_could_leave_the_state_directory() {
        for text in ["", ".", "..", ".a", "a/b", "/", "a b", "a\n", "é", "a\0b", "a:b"] {
            let error = text.parse::<Id>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
            assert!(error.contains(PATTERN) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn refuses_a_name_that_is_too_long_without_repeating_it() {
        let error = "a".repeat(MAX_LEN + 1).parse::<Id>().unwrap_err().to_string();
        assert_eq!(error, "container id of 1025 characters is too long: expected at most 1024");
    }
}
