//! Why a file can't be executed, in words: execve(2) has one errno for a dozen causes. Looked into only after it failed.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{SFlag, stat};
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::sys::fs::may_execute;

/// The kernel reads this much of a file to find out what it is (BINPRM_BUF_SIZE).
const HEAD: usize = 256;
/// elf(5): where the machine is, and the offsets of the 64-bit header's fields.
const E_MACHINE: usize = 18;
const PT_INTERP: u32 = 3;

/// The cause of an errno of execve(2) or access(2), if it can be told.
pub(super) fn cause(path: &CStr, errno: Errno) -> Option<String> {
    let file = Path::new(OsStr::from_bytes(path.to_bytes()));
    match errno {
        Errno::EACCES => access_denied(path).or_else(|| interpreter(file)),
        Errno::ENOENT | Errno::ENOTDIR => interpreter(file),
        Errno::ENOEXEC => format(file).or_else(|| interpreter(file)),
        Errno::ELOOP => Some("too many symbolic links, or a #! line whose interpreter is a script, and so on".into()),
        Errno::ETXTBSY => Some("somebody has it open for writing".into()),
        Errno::EINVAL => Some("an ELF file with more than one interpreter".into()),
        Errno::E2BIG => Some(
            "the arguments and the environment are larger than the kernel takes, a quarter of \
                              RLIMIT_STACK in all and 128 KiB each"
                .into(),
        ),
        Errno::EPERM => Some(
            "a program with file capabilities, which the container's bounding set lacks, or a security \
                              module or the seccomp profile forbids it"
                .into(),
        ),
        _ => None,
    }
}

/// Of the file itself.
fn access_denied(path: &CStr) -> Option<String> {
    let mode = match stat(path) {
        Ok(stat) => stat.st_mode,
        Err(Errno::EACCES) => return Some("a directory on the way can't be searched by this user".into()),
        Err(_) => return None,
    };
    if SFlag::from_bits_truncate(mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Some("not a regular file".into());
    }
    if mode & 0o111 == 0 {
        return Some("it has no execute permission (chmod +x)".into());
    }
    if statvfs(path).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOEXEC)) {
        return Some("its file system is mounted noexec".into());
    }
    if may_execute(path) == Err(Errno::EACCES) {
        return Some(format!("this user may not execute it (mode {:o})", mode & 0o7777));
    }
    None
}

/// What the kernel starts in the file's place.
fn interpreter(path: &Path) -> Option<String> {
    let file = open(path)?;
    let head = read(&file, 0, HEAD)?;
    let (what, name) = match head.strip_prefix(b"#!") {
        Some(line) => ("the interpreter of its #! line", script_interpreter(line)?),
        None => ("its ELF interpreter (dynamic loader)", elf_interpreter(&file, &head)?),
    };
    let shown = OsStr::from_bytes(&name);
    let name = CString::new(name.as_slice()).ok()?;
    match may_execute(&name) {
        Err(Errno::ENOENT) if name.to_bytes().ends_with(b"\r") => {
            Some(format!("{what}, {shown:?}, does not exist: its lines end as in Windows (CR LF)"))
        }
        Err(Errno::ENOENT | Errno::ENOTDIR) => Some(format!("{what}, {shown:?}, does not exist in the container")),
        // Nothing can be told.
        Err(Errno::ENOSYS) => None,
        Err(errno) => {
            let why = access_denied(&name).unwrap_or_else(|| crate::sys::words(errno));
            Some(format!("{what}, {shown:?}, can't be executed: {why}"))
        }
        Ok(()) => None,
    }
}

/// `#! interpreter [argument]`.
fn script_interpreter(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.split(|byte| *byte == b'\n').next()?;
    let start = line.iter().position(|byte| !matches!(byte, b' ' | b'\t'))?;
    let name = line.get(start..)?.split(|byte| matches!(byte, b' ' | b'\t' | 0)).next()?;
    (!name.is_empty()).then(|| name.to_vec())
}

/// The content of PT_INTERP, of an ELF file with this machine's byte order.
fn elf_interpreter(file: &File, head: &[u8]) -> Option<Vec<u8>> {
    let wide = class(head)? == 2;
    // Offset, size and number of program headers; in each its type, its offset in the file, and its size there.
    let (phoff, phentsize, phnum) = if wide {
        (number(head, 32, 8)?, number(head, 54, 2)?, number(head, 56, 2)?)
    } else {
        (number(head, 28, 4)?, number(head, 42, 2)?, number(head, 44, 2)?)
    };
    for index in 0..phnum.min(64) {
        let header = read(file, phoff.checked_add(index * phentsize)?, if wide { 56 } else { 32 })?;
        if number(&header, 0, 4)? != u64::from(PT_INTERP) {
            continue;
        }
        let (offset, size) = if wide {
            (number(&header, 8, 8)?, number(&header, 32, 8)?)
        } else {
            (number(&header, 4, 4)?, number(&header, 16, 4)?)
        };
        let name = read(file, offset, usize::try_from(size.min(4096)).ok()?)?;
        return Some(name.split(|byte| *byte == 0).next()?.to_vec());
    }
    None
}

/// A file that the kernel doesn't know how to execute.
fn format(path: &Path) -> Option<String> {
    let head = read(&open(path)?, 0, HEAD)?;
    if head.is_empty() {
        return Some("the file is empty".into());
    }
    if let Some(line) = head.strip_prefix(b"#!") {
        return match script_interpreter(line) {
            None => Some("its #! line names no interpreter".into()),
            Some(_) if head.len() == HEAD && !line.contains(&b'\n') => {
                Some(format!("its #! line is longer than the kernel reads ({HEAD} bytes)"))
            }
            Some(_) => None,
        };
    }
    if class(&head).is_none() {
        let text = head.iter().all(|byte| !byte.is_ascii_control() || byte.is_ascii_whitespace());
        return Some(if text { "a script without #! line" } else { "neither an ELF file nor a script" }.into());
    }
    let (built, native) = (number(&head, E_MACHINE, 2)?, u64::from(native()?));
    if built != native {
        return Some(format!("built for {}, this host is {}", machine(built), machine(native)));
    }
    Some("a damaged ELF file, or one that isn't an executable".into())
}

/// 1 for 32 bits, 2 for 64, none if the file isn't ELF of this machine's byte order.
fn class(head: &[u8]) -> Option<u8> {
    let order = if cfg!(target_endian = "little") { 1 } else { 2 };
    (head.starts_with(b"\x7fELF") && head.get(5) == Some(&order)).then(|| head.get(4).copied()).flatten()
}

/// The machine this program was built for, from its own kind: elf.h's EM_*.
fn native() -> Option<u16> {
    MACHINES.iter().find(|(_, name)| *name == std::env::consts::ARCH).map(|(number, _)| *number)
}

/// elf.h's EM_*, with the names that uname(2) and Rust have for them.
const MACHINES: [(u16, &str); 10] = [
    (3, "x86"),
    (8, "mips"),
    (20, "powerpc"),
    (21, "powerpc64"),
    (22, "s390x"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv64"),
    (258, "loongarch64"),
];

fn machine(number: u64) -> String {
    let known = MACHINES.iter().find(|(known, _)| u64::from(*known) == number);
    known.map_or_else(|| format!("machine {number} (ELF)"), |(_, name)| (*name).to_owned())
}

fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let mut wide = [0; 8];
    let bytes = bytes.get(at..at.checked_add(size)?)?;
    if cfg!(target_endian = "little") {
        wide.get_mut(..size)?.copy_from_slice(bytes);
    } else {
        wide.get_mut(8 - size..)?.copy_from_slice(bytes);
    }
    Some(u64::from_ne_bytes(wide))
}

/// The image's own file: nothing waits for it, and only a regular one is read.
fn open(path: &Path) -> Option<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}

/// What is there of so many bytes.
fn read(file: &File, offset: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    let length = file.read_at(&mut bytes, offset).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(content: &[u8]) -> (tempfile::TempDir, CString) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = CString::new(path.to_str().unwrap()).unwrap();
        (dir, path)
    }

    fn cause_of(content: &[u8], errno: Errno) -> String {
        let (_dir, path) = file(content);
        cause(&path, errno).unwrap_or_default()
    }

    #[test]
    fn scripts() {
        let missing = "the interpreter of its #! line, \"/no/sh\", does not exist in the container";
        for line in ["#!/no/sh\n", "#! \t/no/sh -e\n", "#!/no/sh"] {
            assert_eq!(cause_of(line.as_bytes(), Errno::ENOENT), missing, "{line:?}");
        }
        assert!(cause_of(b"#!/bin/sh\r\nx", Errno::ENOENT).contains("Windows"));
        assert!(cause_of(b"#!/etc/passwd\n", Errno::EACCES).contains("no execute permission"));
        assert_eq!(cause_of(b"#!\n", Errno::ENOEXEC), "its #! line names no interpreter");
        let long = [b"#!/".as_slice(), &[b'a'; 400]].concat();
        assert!(cause_of(&long, Errno::ENOEXEC).contains("longer"));
        assert_eq!(cause_of(b"echo hello\n", Errno::ENOEXEC), "a script without #! line");
        assert_eq!(cause_of(b"", Errno::ENOEXEC), "the file is empty");
        assert_eq!(cause_of(b"\x01\x02", Errno::ENOEXEC), "neither an ELF file nor a script");
    }

    #[test]
    fn elf_files() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let mut other = own.clone();
        other[E_MACHINE] = 183;
        assert_eq!(
            cause_of(&other, Errno::ENOEXEC),
            format!("built for aarch64, this host is {}", std::env::consts::ARCH)
        );
        other[E_MACHINE] = 250;
        assert!(cause_of(&other, Errno::ENOEXEC).contains("machine 250"));
        // The tests are linked dynamically: their loader, under another name.
        let loader = elf_interpreter(&File::open("/proc/self/exe").unwrap(), &own[..HEAD]).unwrap();
        let at = own.windows(loader.len()).position(|window| window == loader).unwrap();
        let mut broken = own;
        broken[at + 1] = b'#';
        assert!(cause_of(&broken, Errno::ENOENT).starts_with("its ELF interpreter (dynamic loader), \"/#"));
    }

    #[test]
    fn permissions() {
        let (_dir, path) = file(b"x");
        std::fs::set_permissions(path.to_str().unwrap(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(cause(&path, Errno::EACCES).unwrap(), "it has no execute permission (chmod +x)");
        assert_eq!(cause(c"/dev/null", Errno::EACCES).unwrap(), "not a regular file");
        assert!(cause(c"/no/such/file", Errno::EACCES).is_none());
    }

    /// The first bytes of a program of this machine.
    static PROGRAM: std::sync::LazyLock<Vec<u8>> =
        std::sync::LazyLock::new(|| std::fs::read("/proc/self/exe").unwrap()[..HEAD].to_vec());

    proptest::proptest! {
        #[test]
        fn no_file_makes_it_fail(mut content: Vec<u8>, elf: bool) {
            if elf {
                let keep = content.len().min(HEAD);
                content.splice(..keep, PROGRAM[..HEAD - keep].to_vec());
            }
            for errno in [Errno::ENOEXEC, Errno::ENOENT, Errno::EACCES] {
                cause_of(&content, errno);
            }
        }
    }
}
