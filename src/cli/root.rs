//! Where containers are kept when nobody says: a pure function of the environment, the same for every command,
//! because engines give `--root` to some of them only.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::host::in_user_namespace;

/// The directory for `--root`, or the default; absolute, never `/`.
pub(super) fn resolve(given: Option<PathBuf>) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path,
        None => default(
            std::env::var_os("XDG_RUNTIME_DIR"),
            std::env::var_os("USER"),
            || geteuid().is_root(),
            in_user_namespace,
        ),
    };
    let absolute = clean(&std::path::absolute(&path).with_context(|| format!("--root {path:?}"))?);
    if absolute == Path::new("/") {
        bail!("--root {path:?}: expected a directory of tare's own, not the root of the file system");
    }
    Ok(absolute)
}

/// runc's rule: the user's runtime directory, unless this is root of the host or says it is root.
fn default(
    xdg: Option<OsString>,
    user: Option<OsString>,
    root: impl Fn() -> bool,
    inside: impl Fn() -> bool,
) -> PathBuf {
    match xdg.filter(|dir| !dir.is_empty()) {
        Some(dir) if !root() || (user.as_deref() != Some("root".as_ref()) && inside()) => Path::new(&dir).join("tare"),
        _ => PathBuf::from("/run/tare"),
    }
}

/// Removes `.` and `..` by their text, as Go's filepath.Clean does.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(xdg: &str, user: Option<&str>, root: bool, inside: bool) -> String {
        let xdg = Some(OsString::from(xdg));
        default(xdg, user.map(OsString::from), || root, || inside).display().to_string()
    }

    #[test]
    fn default_follows_the_rule_of_runc() {
        assert_eq!(chosen("/run/user/0", Some("root"), true, false), "/run/tare");
        assert_eq!(chosen("/run/user/0", None, true, false), "/run/tare");
        assert_eq!(chosen("/run/user/0", Some("root"), true, true), "/run/tare");
        assert_eq!(chosen("/run/user/0", Some("me"), true, true), "/run/user/0/tare");
        assert_eq!(chosen("/run/user/0", None, true, true), "/run/user/0/tare");
        assert_eq!(chosen("/run/user/7", Some("me"), false, false), "/run/user/7/tare");
        assert_eq!(chosen("/run/user/7", Some("root"), false, true), "/run/user/7/tare");
        assert_eq!(chosen("", Some("me"), false, true), "/run/tare");
        assert_eq!(default(None, None, || false, || true), Path::new("/run/tare"));
    }

    #[test]
    fn root_is_absolute_and_never_the_file_systems() {
        let resolve = |path: &str| resolve(Some(path.into()));
        assert_eq!(resolve("/a/./b/../c/").unwrap(), Path::new("/a/c"));
        assert_eq!(resolve("x").unwrap(), std::env::current_dir().unwrap().join("x"));
        for path in ["/", "//", "/.", "/a/..", "/../.."] {
            assert!(resolve(path).unwrap_err().to_string().contains(&format!("--root {path:?}")));
        }
    }
}
