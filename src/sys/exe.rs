//! Taking this process's own executable out of its address space and out of /proc/PID/exe.

use std::ffi::CStr;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;

use nix::errno::Errno;

use super::error::{Error, Result, check};
use super::newer;

kernel_struct! {
    /// linux/prctl.h, `struct prctl_mm_map`.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct MmMap {
        start_code: u64,
        end_code: u64,
        start_data: u64,
        end_data: u64,
        start_brk: u64,
        brk: u64,
        start_stack: u64,
        arg_start: u64,
        arg_end: u64,
        env_start: u64,
        env_end: u64,
        /// With size 0 the auxiliary vector stays.
        auxv: u64,
        auxv_size: u32,
        exe_fd: u32,
    }
}

/// elf(5), `Elf64_Phdr`.
#[repr(C)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    paddr: u64,
    filesz: u64,
    memsz: u64,
    align: u64,
}

const PT_LOAD: u32 = 1;
const PT_PHDR: u32 = 6;
const PT_GNU_RELRO: u32 = 0x6474_e552;
const PF_X: u32 = 1;
const PF_W: u32 = 2;

/// Makes `shown` what /proc/PID/exe leads to, from now on and in every process that is cloned from this one.
///
/// The kernel allows that only when nothing of the old executable is mapped (`replace_mm_exe_file`, EBUSY), and tells
/// files apart by mount and dentry: so what is read-only is mapped anew from `image`, the same file on another mount,
/// and what is written to (some tens of KiB) is copied. prctl(2), PR_SET_MM_MAP, needs CAP_CHECKPOINT_RESTORE or
/// CAP_SYS_ADMIN in the process's user namespace; EINVAL from a kernel without CONFIG_CHECKPOINT_RESTORE.
pub(crate) fn replace(image: BorrowedFd<'_>, shown: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: getauxval has no preconditions.
    let page = unsafe { libc::getauxval(libc::AT_PAGESZ) };
    let mut written = 0..0;
    for (segment, base) in segments().filter(|(segment, _)| segment.kind == PT_LOAD) {
        let start = (base + segment.vaddr) & !(page - 1);
        let range = start..(base + segment.vaddr + segment.filesz).next_multiple_of(page);
        if segment.flags & PF_W == 0 {
            map_again(segment, range, image, page)?;
        } else if written.end == range.start {
            written.end = range.end;
        } else {
            copy(&written)?;
            written = range;
        }
    }
    copy(&written)?;
    protect_relocated(page)?;
    let map = mm_map(shown);
    // SAFETY: `map` is a whole prctl_mm_map that describes this process as it is, and lives across the call.
    let ret = unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, &raw const map, size_of::<MmMap>(), 0) };
    check("prctl PR_SET_MM_MAP", ret.into(), String::new).map(drop)
}

/// The program headers of this program, as the kernel has mapped them, each with the load address.
fn segments() -> impl Iterator<Item = (&'static Segment, u64)> {
    // SAFETY: getauxval has no preconditions.
    let address = unsafe { libc::getauxval(libc::AT_PHDR) };
    // SAFETY: as above.
    let count = unsafe { libc::getauxval(libc::AT_PHNUM) };
    // SAFETY: the kernel passes where the program's own headers are mapped and how many there are; they are in a
    // read-only segment, and mapping it anew doesn't change its content.
    let headers = unsafe { std::slice::from_raw_parts(address as *const Segment, count as usize) };
    // Without it nothing is mapped anew, and PR_SET_MM_MAP refuses.
    let base = load_address(headers, address);
    headers.iter().filter_map(move |header| base.map(|base| (header, base)))
}

/// How far from where it was linked to a program is: 0 but for one that is position-independent. `address` is where the
/// kernel says that its headers are. A static one of musl's has no PT_PHDR, but its headers are on the file's first page.
fn load_address(headers: &[Segment], address: u64) -> Option<u64> {
    if let Some(own) = headers.iter().find(|header| header.kind == PT_PHDR) {
        return Some(address.wrapping_sub(own.vaddr));
    }
    let first = headers.iter().find(|header| header.kind == PT_LOAD && header.offset == 0)?;
    // What is mapped begins on a page, whatever the size of a page is: the ELF header is right before the others.
    Some((address - size_of::<libc::Elf64_Ehdr>() as u64).wrapping_sub(first.vaddr))
}

/// A read-only segment.
fn map_again(segment: &Segment, range: Range<u64>, image: BorrowedFd<'_>, page: u64) -> Result<()> {
    let prot = libc::PROT_READ | if segment.flags & PF_X != 0 { libc::PROT_EXEC } else { 0 };
    let offset = (segment.offset & !(page - 1)) as libc::off_t;
    let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
    let length = (range.end - range.start) as usize;
    // SAFETY: replaces the mapping of a read-only segment by one of the same bytes of the same file, in one step: the
    // code that runs here is on the next page fetch what it was before.
    let ret = unsafe { libc::mmap(range.start as *mut _, length, prot, flags, image.as_raw_fd(), offset) };
    mapped("mmap", ret)
}

/// Writable segments: a copy of what they hold now takes their place.
fn copy(range: &Range<u64>) -> Result<()> {
    let length = (range.end - range.start) as usize;
    if length == 0 {
        return Ok(());
    }
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let copy = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    mapped("mmap", copy)?;
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: both are mapped, `length` bytes long and apart.
    unsafe { std::ptr::copy_nonoverlapping(range.start as *const u8, copy.cast::<u8>(), length) };
    // SAFETY: the copy takes the original's place in one step. Since it was made nothing has written to static data: this
    // process has one thread, and libc's mremap has only errno to write, on failure, which is in the thread's own
    // block and not in a segment.
    let ret = unsafe { libc::mremap(copy, length, length, flags, range.start as *mut libc::c_void) };
    mapped("mremap", ret)
}

/// What the loader made read-only after relocation is so again.
fn protect_relocated(page: u64) -> Result<()> {
    for (segment, base) in segments().filter(|(segment, _)| segment.kind == PT_GNU_RELRO) {
        let start = (base + segment.vaddr) & !(page - 1);
        let end = (base + segment.vaddr + segment.memsz) & !(page - 1);
        if end > start {
            // SAFETY: the loader has made exactly this range read-only before main.
            let ret = unsafe { libc::mprotect(start as *mut _, (end - start) as usize, libc::PROT_READ) };
            check("mprotect", ret.into(), String::new)?;
        }
    }
    Ok(())
}

fn mapped(call: &'static str, address: *mut libc::c_void) -> Result<()> {
    if address == libc::MAP_FAILED { Err(Error::new(call, "executable", Errno::last())) } else { Ok(()) }
}

/// The process as it is (proc_pid_stat(5) tells most of that too, for three system calls). The heap is said to begin at
/// its present end: the process never shrinks it.
fn mm_map(shown: BorrowedFd<'_>) -> MmMap {
    let loads = || segments().filter(|(segment, _)| segment.kind == PT_LOAD);
    let ends = |executable: bool| {
        let chosen = loads().filter(move |(segment, _)| (segment.flags & PF_X != 0) == executable);
        let chosen = chosen.map(|(segment, base)| (base + segment.vaddr, base + segment.vaddr + segment.filesz));
        chosen.last().unwrap_or_default()
    };
    let (start_code, end_code) = ends(true);
    let (start_data, end_data) = ends(false);
    // SAFETY: an increment of zero only reports.
    let brk = unsafe { libc::sbrk(0) } as u64;
    // SAFETY: getauxval has no preconditions.
    let execfn = unsafe { libc::getauxval(libc::AT_EXECFN) };
    let (stack, arg_start, arg_end) = arguments().unwrap_or((execfn, execfn, execfn));
    MmMap {
        start_code,
        end_code,
        start_data,
        end_data,
        start_brk: brk,
        brk,
        start_stack: stack,
        arg_start,
        arg_end,
        // The kernel puts the strings side by side: arguments, environment, the program's path.
        env_start: arg_end,
        env_end: execfn,
        auxv: 0,
        auxv_size: 0,
        exe_fd: shown.as_raw_fd() as u32,
    }
}

/// Where the kernel put the arguments: the array of pointers, the first string, and the end of the last. The array is
/// below the environment's, with its count before it and a null behind it.
fn arguments() -> Option<(u64, u64, u64)> {
    unsafe extern "C" {
        static environ: *const *const libc::c_char;
    }
    // SAFETY: nobody writes to it: this program sets no variable.
    let envp = unsafe { environ };
    let mut count = 0_usize;
    loop {
        // SAFETY: below the environment are a null, the arguments and their count; the walk ends at the count.
        let word = unsafe { envp.wrapping_sub(count + 2).read() };
        if word as usize == count {
            break;
        }
        count += 1;
    }
    let argv = envp.wrapping_sub(count + 1);
    // SAFETY: `count` pointers of the kernel's, each to a string.
    let all = unsafe { std::slice::from_raw_parts(argv, count) };
    let (first, last) = (*all.first()?, *all.last()?);
    // SAFETY: a string of the kernel's.
    let length = unsafe { CStr::from_ptr(last) }.to_bytes_with_nul().len();
    Some((argv as u64, first as u64, last as u64 + length as u64))
}

/// memfd_create(2): an anonymous file with sealing, executable where sysctl `vm.memfd_noexec` leaves the choice.
pub(crate) fn memfd_create(name: &CStr) -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    /// Since Linux 6.3; before, every memfd is executable.
    const MFD_EXEC: u32 = 0x10;
    let create = |flags: u32| {
        // SAFETY: the name is a C string that lives across the call.
        let fd = unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), flags) };
        newer::MEMFD_CREATE.check(fd, || format!("{name:?}"))
    };
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let fd = create(flags | MFD_EXEC).or_else(|error| match error.errno() {
        Errno::EINVAL => create(flags),
        _ => Err(error),
    })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd as i32) })
}

/// fcntl(2), F_ADD_SEALS: nothing can be changed any more, not even the seals.
pub(crate) fn seal(memfd: BorrowedFd<'_>) -> Result<()> {
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: F_ADD_SEALS takes an integer.
    let ret = unsafe { libc::fcntl(memfd.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    check("fcntl F_ADD_SEALS", ret.into(), String::new).map(drop)
}

/// Whether a file is a memfd that can't be written to any more.
pub(crate) fn sealed(file: BorrowedFd<'_>) -> bool {
    // SAFETY: F_GET_SEALS takes no argument; a file without seals gives EINVAL.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    seals != -1 && seals & libc::F_SEAL_WRITE != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clone::{Cloned, Ended, fork, wait};
    use std::os::fd::AsFd;

    #[test]
    fn the_process_is_described_as_the_kernel_does() {
        let stat = String::from_utf8(crate::sys::read_small("/proc/self/stat").unwrap()).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_ascii_whitespace().collect();
        let field = |number: usize| fields[number - 3].parse::<u64>().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let map = mm_map(null.as_fd());
        assert_eq!((map.arg_start, map.arg_end), (field(48), field(49)));
        assert_eq!((map.env_start, map.env_end), (field(50), field(51)));
        assert_eq!(map.end_data, field(46));
        assert!(map.start_code < map.end_code && map.start_data < map.end_data);
    }

    #[test]
    fn the_load_address_is_known_without_a_header_of_the_headers() {
        let segment = |kind, offset, vaddr| Segment {
            kind,
            flags: 0,
            offset,
            vaddr,
            paddr: vaddr,
            filesz: 0x1000,
            memsz: 0x1000,
            align: 0x1000,
        };
        let (fixed, moved) = ([segment(PT_LOAD, 0, 0x40_0000)], [segment(PT_LOAD, 0, 0)]);
        assert_eq!(load_address(&fixed, 0x40_0040), Some(0));
        assert_eq!(load_address(&moved, 0x7f00_0000_0040), Some(0x7f00_0000_0000));
        let named = [segment(PT_PHDR, 0x40, 0x40), segment(PT_LOAD, 0, 0)];
        assert_eq!(load_address(&named, 0x7f00_0000_0040), Some(0x7f00_0000_0000));
        assert_eq!(load_address(&[segment(PT_LOAD, 0x1000, 0x1000)], 0x40), None);
    }

    #[test]
    fn a_sealed_file_says_so() {
        let file = memfd_create(c"x").unwrap();
        assert!(!sealed(file.as_fd()));
        nix::unistd::write(&file, b"x").unwrap();
        seal(file.as_fd()).unwrap();
        assert!(sealed(file.as_fd()));
        assert_eq!(nix::unistd::write(&file, b"x"), Err(Errno::EPERM));
    }

    #[test]
    fn a_file_that_is_mapped_can_not_be_replaced_without_another_mount() {
        match fork().unwrap() {
            Cloned::Child => {
                let exe = std::fs::File::open("/proc/self/exe");
                let same = exe.map(|exe| (replace(exe.as_fd(), exe.as_fd()), exe));
                let busy = same.is_ok_and(|(result, _)| result.is_err_and(|error| error.errno() == Errno::EBUSY));
                crate::sys::exit(if busy { 5 } else { 6 });
            }
            Cloned::Parent { pid, .. } => assert_eq!(wait(pid).unwrap(), Ended::Exited(5)),
        }
    }
}
