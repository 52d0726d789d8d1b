//! bpf(2) for programs of type BPF_PROG_TYPE_CGROUP_DEVICE: load, attach to a cgroup, ask what is attached, replace, detach.
//!
//! Neither libc nor nix declares `union bpf_attr`; the structs here are the members that these commands read,
//! from include/uapi/linux/bpf.h. The kernel takes a shorter attribute than its own and reads the rest as zero.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::Result;
use super::error::check;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// The cgroup keeps what others attached to it or to its ancestors (systemd does); all of them must agree.
const BPF_F_ALLOW_MULTI: u32 = 2;
/// In place of one that is attached, at once (since Linux 5.6).
const BPF_F_REPLACE: u32 = 4;
/// What ours are called.
const NAME: &[u8; 16] = b"tare_devices\0\0\0\0";

/// As the kernel wants the text of the licence; no helper that is for GPL programs only is called.
const LICENSE: &std::ffi::CStr = c"Apache-2.0";

/// `struct bpf_insn`, eight bytes in the machine's byte order.
pub(crate) type Insn = [u8; 8];

kernel_struct! {
    struct ProgLoad {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
    }
}

kernel_struct! {
    struct ProgAttach {
        target_fd: u32,
        attach_bpf_fd: u32,
        attach_type: u32,
        attach_flags: u32,
        replace_bpf_fd: u32,
    }
}

kernel_struct! {
    struct ProgQuery {
        target_fd: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        prog_cnt: u32,
        padding: u32,
    }
}

kernel_struct! {
    struct GetFdById {
        prog_id: u32,
        next_id: u32,
        open_flags: u32,
    }
}

kernel_struct! {
    struct GetInfo {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
}

kernel_struct! {
    /// The head of `struct bpf_prog_info`, up to the name.
    #[derive(Default)]
    struct ProgInfo {
        prog_type: u32,
        id: u32,
        tag: [u8; 8],
        jited_prog_len: u32,
        xlated_prog_len: u32,
        jited_prog_insns: u64,
        xlated_prog_insns: u64,
        load_time: u64,
        created_by_uid: u32,
        nr_map_ids: u32,
        map_ids: u64,
        name: [u8; 16],
    }
}

/// bpf(2) with an attribute struct of one of the commands above.
fn bpf<T>(
    name: &'static str,
    command: libc::c_long,
    attr: &mut T,
    args: impl FnOnce() -> String,
) -> Result<libc::c_long> {
    let size = std::mem::size_of::<T>();
    // SAFETY: `attr` is a `repr(C)` prefix of `union bpf_attr` of `size` bytes, borrowed mutably for the call, and
    // the buffers whose addresses it holds outlive the call in each function below.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size) };
    check(name, ret, args)
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX)
}

/// Loads a device program; the descriptor is close-on-exec by birth.
///
/// RLIMIT_MEMLOCK isn't raised: since Linux 5.11 programs are charged to the memory cgroup.
pub(crate) fn load_device_program(insns: &[Insn]) -> Result<OwnedFd> {
    let mut attr = ProgLoad {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(insns.len()).unwrap_or(u32::MAX),
        insns: insns.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *NAME,
    };
    let ret = bpf("bpf", BPF_PROG_LOAD, &mut attr, || format!("PROG_LOAD of {} instructions", insns.len()))?;
    #[allow(clippy::cast_possible_truncation)] // a descriptor is an int
    let fd = ret as libc::c_int;
    // SAFETY: BPF_PROG_LOAD returned a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a device program to the cgroup v2 directory behind `cgroup` (O_PATH is enough), beside what is there.
pub(crate) fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    attach(cgroup, program, None)
}

/// Attaches one in the place of `old`, which is attached: there is no moment in which neither decides.
pub(crate) fn replace_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    old: BorrowedFd<'_>,
) -> Result<()> {
    attach(cgroup, program, Some(old))
}

fn attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, old: Option<BorrowedFd<'_>>) -> Result<()> {
    let mut attr = ProgAttach {
        target_fd: raw(cgroup),
        attach_bpf_fd: raw(program),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: if old.is_some() { BPF_F_ALLOW_MULTI | BPF_F_REPLACE } else { BPF_F_ALLOW_MULTI },
        replace_bpf_fd: old.map_or(0, raw),
    };
    bpf("bpf", BPF_PROG_ATTACH, &mut attr, || "PROG_ATTACH, BPF_CGROUP_DEVICE".into()).map(drop)
}

/// Detaches one.
pub(crate) fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attr = ProgAttach {
        target_fd: raw(cgroup),
        attach_bpf_fd: raw(program),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: 0,
        replace_bpf_fd: 0,
    };
    bpf("bpf", BPF_PROG_DETACH, &mut attr, || "PROG_DETACH, BPF_CGROUP_DEVICE".into()).map(drop)
}

/// Those of the attached device programs that this program (any run of it) has loaded.
pub(crate) fn own_device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    let mut own = Vec::new();
    for id in device_programs(cgroup)? {
        let program = program_of(id)?;
        if name_of(program.as_fd())? == *NAME {
            own.push(program);
        }
    }
    Ok(own)
}

fn program_of(id: u32) -> Result<OwnedFd> {
    let mut attr = GetFdById { prog_id: id, next_id: 0, open_flags: 0 };
    let ret = bpf("bpf", BPF_PROG_GET_FD_BY_ID, &mut attr, || format!("PROG_GET_FD_BY_ID {id}"))?;
    #[allow(clippy::cast_possible_truncation)] // a descriptor is an int
    let fd = ret as libc::c_int;
    // SAFETY: BPF_PROG_GET_FD_BY_ID returned a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn name_of(program: BorrowedFd<'_>) -> Result<[u8; 16]> {
    let mut info = ProgInfo::default();
    let mut attr = GetInfo {
        bpf_fd: raw(program),
        info_len: u32::try_from(size_of::<ProgInfo>()).unwrap_or(u32::MAX),
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf("bpf", BPF_OBJ_GET_INFO_BY_FD, &mut attr, || "OBJ_GET_INFO_BY_FD".into())?;
    Ok(info.name)
}

/// The ids of the device programs that are attached to the cgroup itself (not those it inherits).
pub(crate) fn device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<u32>> {
    // The kernel allows 64 programs of a type on one cgroup (BPF_CGROUP_MAX_PROGS).
    let mut ids = vec![0_u32; 64];
    let mut attr = ProgQuery {
        target_fd: raw(cgroup),
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        padding: 0,
    };
    bpf("bpf", BPF_PROG_QUERY, &mut attr, || "PROG_QUERY, BPF_CGROUP_DEVICE".into())?;
    ids.truncate(attr.prog_cnt as usize);
    Ok(ids)
}
