//! Writes the id maps of a new user namespace from outside: with the runtime's own rights, or by newuidmap(1) and
//! newgidmap(1), which may map what /etc/subuid and /etc/subgid give to an ordinary user.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::errno::Errno;
use nix::unistd::{Pid, getuid};

use super::process::write_proc;
use crate::plan::id_maps::{IdMap, IdMaps, Writer};
use crate::sys;

/// Where the helpers are looked for without a PATH, as by execvp(3) and with the folders that it leaves out.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One kind of ids.
struct Kind {
    /// Of /proc/PID.
    file: &'static str,
    property: &'static str,
    helper: &'static str,
    ranges: &'static str,
}

const UID: Kind = Kind { file: "uid_map", property: "uidMappings", helper: "newuidmap", ranges: "/etc/subuid" };
const GID: Kind = Kind { file: "gid_map", property: "gidMappings", helper: "newgidmap", ranges: "/etc/subgid" };

/// Writes both maps of the user namespace of `pid`, each at once: a second write is refused (user_namespaces(7)).
///
/// Errors name the property of config.json, which is in `at`, and hold what a helper said.
pub(crate) fn write(pid: Pid, maps: &IdMaps, at: &str) -> Result<()> {
    if maps.deny_setgroups {
        write_proc(pid, "setgroups", "deny")?;
    }
    write_one(pid, &maps.uid, &UID, at)?;
    write_one(pid, &maps.gid, &GID, at)
}

fn write_one(pid: Pid, map: &IdMap, kind: &Kind, at: &str) -> Result<()> {
    let written = match map.writer {
        Writer::Runtime => write_proc(pid, kind.file, &map.lines).map_err(|error| match error.errno() {
            // user_namespaces(7): what is mapped must be mapped in the parent's namespace.
            Errno::EPERM => {
                let what =
                    "every range of host ids must lie within one that is mapped in the runtime's own user namespace";
                anyhow::Error::new(error).context(what)
            }
            _ => error.into(),
        }),
        Writer::Helper => by_helper(pid, map, kind),
    };
    written.with_context(|| format!("config.json: {at}/{}", kind.property))
}

fn by_helper(pid: Pid, map: &IdMap, kind: &Kind) -> Result<()> {
    let Kind { helper, ranges, .. } = kind;
    let program = find(helper, std::env::var_os("PATH").as_deref()).with_context(|| {
        format!(
            "{helper}: executable file not found in $PATH: it maps ids other than one's own (package uidmap or \
             shadow-utils); without it an ordinary user can map one id, his own"
        )
    })?;
    let mut command = Command::new(&program);
    command.arg(pid.to_string()).args(map.lines.split_ascii_whitespace()).stdin(Stdio::null());
    let output = sys::process::output(&mut command).with_context(|| format!("{program:?}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stderr, output.stdout].concat();
    let said = one_line(&String::from_utf8_lossy(&said));
    let ended = output.status;
    let said = if said.is_empty() { ended.to_string() } else { format!("{said} ({ended})") };
    bail!("{helper}: {said}: does {ranges} give these ids to {}?", user());
}

/// Why no user namespace is made (user_namespaces(7), clone(2)).
pub(super) fn explain_clone(error: sys::Error) -> anyhow::Error {
    let why = match error.errno() {
        Errno::ENOSPC | Errno::EUSERS => "no more user namespaces are allowed (sysctl user.max_user_namespaces)",
        Errno::EPERM | Errno::EACCES => {
            "this host doesn't let this user make a user namespace (sysctl kernel.unprivileged_userns_clone, a profile of \
             seccomp or AppArmor, or a chroot around the runtime)"
        }
        _ => return error.into(),
    };
    anyhow::Error::new(error).context(why)
}

/// The program that execvp(3) would take.
fn find(name: &str, path: Option<&OsStr>) -> Result<PathBuf> {
    let path = path.filter(|path| !path.is_empty()).unwrap_or(DEFAULT_PATH.as_ref());
    let executable = |path: &Path| {
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    let found = std::env::split_paths(path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name));
    found.into_iter().find(|path| executable(path)).ok_or_else(|| anyhow!("searched in {path:?}"))
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Who calls, as the files of ranges may name him. Read by hand: libc's look-up loads shared libraries.
fn user() -> String {
    let uid = getuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    match name_of(&passwd, uid) {
        Some(name) => format!("user {name:?} (uid {uid})"),
        None => format!("uid {uid}, who has no name in /etc/passwd"),
    }
}

fn name_of(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_is_found_as_execvp_does() {
        let dir = tempfile::tempdir().unwrap();
        let (plain, program) = (dir.path().join("plain"), dir.path().join("program"));
        for (folder, mode) in [(&plain, 0o644), (&program, 0o755)] {
            std::fs::create_dir_all(folder.join("folder")).unwrap();
            let file = folder.join("newuidmap");
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let path = std::env::join_paths([Path::new("."), &plain, &program]).unwrap();
        assert_eq!(find("newuidmap", Some(&path)).unwrap(), program.join("newuidmap"));
        assert!(find("folder", Some(&path)).unwrap_err().to_string().contains("searched in"));
        assert_eq!(find("sh", None).unwrap().file_name().unwrap(), "sh");
        assert!(find("sh", Some(OsStr::new(""))).is_ok());
    }

    #[test]
    fn what_a_helper_says_becomes_one_line() {
        assert_eq!(one_line("a\n\n  b \n"), "a; b");
    }

    #[test]
    fn users_are_named_by_their_uid() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nme:x:1000:100::/:\nbroken\n";
        assert_eq!((name_of(passwd, 1000), name_of(passwd, 100)), (Some("me"), None));
    }
}
