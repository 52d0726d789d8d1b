//! The last steps: home, directory, the program's file, and execve(2). Runs inside, as the program's user.

use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, stat};

use super::diagnose;
use super::paths::{Links, Root};
use crate::error::{invalid, phrase};
use crate::plan::mounts::clean;
use crate::plan::program::Program;
use crate::sys::clone::{CStrings, execve};
use crate::sys::fs::may_execute;
use crate::sys::{self, Context};

/// Makes the working directory where it is missing, while the root file system may still be written.
pub(crate) fn make_cwd(root: &Root, program: &Program) -> Result<()> {
    let path = program.cwd.to_string_lossy();
    if path != "/" {
        let make = || -> sys::Result<()> {
            let path = clean(&path);
            if root.find(&path)?.is_none() {
                root.dir(&path, Links::Follow)?;
            }
            Ok(())
        };
        make().with_context(|| format!("config.json: /process/cwd: {path:?}"))?;
    }
    Ok(())
}

/// Whether the directory is entered already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cwd {
    Entered,
    /// Only the program's user may enter it (root squash, a home of mode 0700 without CAP_DAC_OVERRIDE).
    AsUser,
}

/// Enters the working directory as root, or says that the user must try.
pub(crate) fn enter_cwd(program: &Program) -> Result<Cwd> {
    // Where the change of root has left the process.
    if program.cwd.as_c_str() == c"/" {
        return Ok(Cwd::Entered);
    }
    match nix::unistd::chdir(program.cwd.as_c_str()) {
        Err(Errno::EACCES | Errno::EPERM) => Ok(Cwd::AsUser),
        result => {
            result.call("chdir", &program.cwd).map_err(cwd_error)?;
            verify_cwd(program)?;
            Ok(Cwd::Entered)
        }
    }
}

/// Enters the working directory as the program's user.
pub(crate) fn enter_cwd_as_user(program: &Program) -> Result<()> {
    nix::unistd::chdir(program.cwd.as_c_str()).call("chdir", &program.cwd).map_err(cwd_error)?;
    verify_cwd(program)
}

fn cwd_error(error: sys::Error) -> anyhow::Error {
    invalid("/process/cwd", error)
}

/// A directory outside the container, reached through a leaked descriptor, has no path in it (CVE-2024-21626).
fn verify_cwd(program: &Program) -> Result<()> {
    match nix::unistd::getcwd() {
        Ok(path) if path.as_os_str().as_bytes().starts_with(b"/") => Ok(()),
        _ => Err(invalid("/process/cwd", format!("{:?} is outside the container", program.cwd))),
    }
}

/// The program's environment, complete: HOME of the user, as the container's /etc/passwd has it, or "/"; and the pid that
/// this process has where the program will ask for its own.
pub(crate) fn environment(program: &Program, uid: u32) -> Result<Vec<CString>> {
    let mut env = program.env.clone();
    if program.wants_home {
        let home = home(uid)?.unwrap_or_else(|| b"/".to_vec());
        env.extend(CString::new([b"HOME=".as_slice(), &home].concat()));
    }
    if program.listens {
        env.retain(|entry| !entry.to_bytes().starts_with(b"LISTEN_PID="));
        env.extend(CString::new(format!("LISTEN_PID={}", nix::unistd::getpid())));
    }
    Ok(env)
}

/// passwd(5): name, password, uid, gid, comment, home, shell. The file is the image's: nothing in it is trusted but
/// the one field, it is read only if it is a regular file, and the image can't make the runtime read for ever.
fn home(uid: u32) -> Result<Option<Vec<u8>>> {
    const LARGEST: u64 = 256 << 20;
    let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_NOCTTY;
    let Ok(file) = sys::fs::open_to_read(std::path::Path::new("/etc/passwd"), flags) else { return Ok(None) };
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Ok(None);
    }
    match home_from(&file, uid, LARGEST) {
        Ok(Search::Ended(home)) => Ok(home),
        // As with a file that can't be opened.
        Err(_) => Ok(None),
        Ok(Search::TooLong) => Err(invalid(
            "/process/env",
            format!(
                "HOME is looked up in the container's /etc/passwd, and there is no uid {uid} in the first {} MiB of it, \
                 expected HOME in the environment",
                LARGEST >> 20
            ),
        )),
    }
}

/// What came of looking for a line.
#[derive(Debug, PartialEq, Eq)]
enum Search {
    /// It was found, or the file has ended.
    Ended(Option<Vec<u8>>),
    TooLong,
}

/// Looks for the line of a uid, a piece of the file at a time.
fn home_from(mut file: impl Read, uid: u32, largest: u64) -> std::io::Result<Search> {
    // No line of a passwd file is nearly as long.
    const PIECE: usize = 64 << 10;
    let mut piece = Vec::new();
    let mut total = 0;
    loop {
        let room = PIECE - piece.len();
        let length = file.by_ref().take(room as u64).read_to_end(&mut piece)?;
        total += length as u64;
        let ended = length < room;
        // The last line may go on in the next piece.
        let lines =
            if ended { piece.len() } else { piece.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1) };
        let home = home_in(piece.get(..lines).unwrap_or_default(), uid);
        if ended || home.is_some() {
            return Ok(Search::Ended(home));
        }
        if total >= largest {
            return Ok(Search::TooLong);
        }
        // A line as long as a piece is none of passwd(5).
        piece.drain(..if lines == 0 { piece.len() } else { lines });
    }
}

pub(crate) fn home_in(passwd: &[u8], uid: u32) -> Option<Vec<u8>> {
    passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':').skip(2);
        let found = std::str::from_utf8(fields.next()?).ok()?.parse() == Ok(uid);
        let home = fields.nth(2)?;
        (found && !home.is_empty()).then(|| home.to_vec())
    })
}

/// The file to execute: the path itself if it has a slash, else the first match in PATH. The phrases are those that
/// engines turn into exit status 127 and 126.
pub(crate) fn resolve(program: &Program) -> Result<CString> {
    let Some(name) = program.args.first() else { bail!("config.json: /process/args: args must not be empty") };
    if name.to_bytes().contains(&b'/') {
        return executable(name).map(|()| name.clone()).map_err(|errno| refused(name, name, errno, true));
    }
    // Nothing is invented: without PATH no program is found by name, as in runc.
    let mut denied = None;
    for directory in program.path().unwrap_or_default().split(|byte| *byte == b':') {
        let directory = if directory.is_empty() { b".".as_slice() } else { directory };
        let Ok(candidate) = CString::new([directory, b"/", name.to_bytes()].concat()) else { continue };
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::EACCES) => denied = denied.or(Some(candidate)),
            Err(_) => {}
        }
    }
    // Like runc, this says nothing of a permission that is denied: engines give 126 for that, and 127 for the phrase.
    let cause = denied.and_then(|path| Some((diagnose::cause(&path, Errno::EACCES)?, path)));
    let cause = cause.map(|(cause, path)| format!(": {path:?}: {cause}")).unwrap_or_default();
    bail!("exec: {:?}: {}{cause}", name.to_string_lossy(), phrase::NOT_IN_PATH)
}

/// A file that isn't there, or may not be executed. `look`: whether it may be looked into for the cause.
fn refused(name: &CStr, path: &CStr, errno: Errno, look: bool) -> anyhow::Error {
    let shown = name.to_string_lossy();
    let cause = if look { diagnose::cause(path, errno) } else { None };
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    match errno {
        Errno::EISDIR => anyhow::anyhow!("exec: {shown:?}: is a directory: permission denied"),
        Errno::EACCES => anyhow::anyhow!("exec: {shown:?}: permission denied{cause}"),
        errno => anyhow::anyhow!("exec: {shown:?}: stat {shown}: {}{cause}", sys::words(errno)),
    }
}

/// Whether this process may execute a file, with the rights that it has: the access alone says yes to directories, and
/// root may execute nothing that has no x bit at all.
fn executable(path: &CStr) -> std::result::Result<(), Errno> {
    let stat = stat(path)?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    match may_execute(path) {
        // A strict seccomp profile: the mode must do, and the rest is left to execve(2).
        Err(Errno::ENOSYS | Errno::EPERM) => {
            let any = Mode::S_IXUSR | Mode::S_IXGRP | Mode::S_IXOTH;
            if Mode::from_bits_truncate(stat.st_mode).intersects(any) { Ok(()) } else { Err(Errno::EACCES) }
        }
        result => result,
    }
}

/// Becomes the program; returns only the error. `look`: whether the file may be looked into for its cause.
pub(crate) fn exec(path: &CStr, argv: &CStrings, envp: &CStrings, look: bool) -> anyhow::Error {
    let errno = execve(path, argv, envp).errno();
    let shown = path.to_string_lossy();
    // Not looked for before: the file isn't there, isn't a file, or may not be executed.
    if look && let Err(errno) = executable(path) {
        return refused(path, path, errno, look);
    }
    let cause = if look { diagnose::cause(path, errno) } else { None };
    let cause = cause.unwrap_or_else(|| match errno {
        Errno::ENOEXEC => "built for another architecture, or a script without #! line".into(),
        Errno::ENOENT => "the file is there, but its interpreter (dynamic loader or #! line) is not".into(),
        _ => String::new(),
    });
    let colon = if cause.is_empty() { "" } else { ": " };
    anyhow::anyhow!("exec: {shown:?}: {} ({errno:?}){colon}{cause}", sys::words(errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_the_sixth_field_of_the_line_with_the_uid() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nbroken\n1000:x:0:0::/trap:/bin/sh\nu:x:1000:1000::/home/u:\n";
        assert_eq!(home_in(passwd, 0).unwrap(), b"/root");
        assert_eq!(home_in(passwd, 1000).unwrap(), b"/home/u");
        assert_eq!(home_in(passwd, 7), None);
        assert_eq!(home_in(b"", 0), None);
        assert_eq!(home_in(b"a:x:5:5:::/bin/sh", 5), None);
    }

    #[test]
    fn the_line_is_found_wherever_it_is() {
        let line = b"u:x:1000:1000::/home/u:\n";
        for before in [0, 65_510, 65_520, 65_536, 65_537, 300_000, 9_000_000] {
            // Lines, and one that is longer than what is read at a time.
            for filler in
                [b"n:x:5:5::/n:/s\n".repeat(before / 15 + 1), [b"#".repeat(before).as_slice(), b"\n"].concat()]
            {
                let text = [filler.as_slice(), line, b"a:x:1:1::/a:\n"].concat();
                let found = home_from(text.as_slice(), 1000, u64::MAX).unwrap();
                assert_eq!(found, Search::Ended(Some(b"/home/u".to_vec())), "{before}");
                assert_eq!(home_from(text.as_slice(), 7, u64::MAX).unwrap(), Search::Ended(None));
            }
        }
        assert_eq!(home_from(b"\n".repeat(200_000).as_slice(), 0, 100_000).unwrap(), Search::TooLong);
    }

    fn program(name: &str, path: &str) -> Program {
        Program {
            args: vec![CString::new(name).unwrap()],
            env: vec![CString::new(format!("PATH={path}")).unwrap()],
            cwd: c"/".into(),
            wants_home: false,
            listens: false,
        }
    }

    #[test]
    fn programs_are_found_and_the_phrases_of_engines_are_kept() {
        assert_eq!(resolve(&program("sh", "/nope:/bin")).unwrap().as_c_str(), c"/bin/sh");
        assert_eq!(resolve(&program("/bin/sh", "")).unwrap().as_c_str(), c"/bin/sh");
        for (name, path, phrase) in [
            ("nonesuch", "/bin", "exec: \"nonesuch\": executable file not found in $PATH"),
            ("/nonesuch", "/bin", "exec: \"/nonesuch\": stat /nonesuch: no such file or directory"),
            ("/etc/passwd", "/bin", "exec: \"/etc/passwd\": permission denied"),
            ("/etc", "/bin", "permission denied"),
            (
                "passwd",
                "/nope:/etc",
                "exec: \"passwd\": executable file not found in $PATH: \"/etc/passwd\": it has no",
            ),
        ] {
            let error = resolve(&program(name, path)).unwrap_err().to_string();
            assert!(error.contains(phrase), "{name}: {error}");
        }
    }
}
