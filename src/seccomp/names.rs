//! System call numbers by name.
//!
//! The tables are those of the crate `syscalls`; its `FromStr` compares with one name after the other, so a hash
//! index over each table is built at compile time. Only tables that the target's kernel can need are in the binary,
//! and in the tests all of them.

use super::arch::Arch;

/// Set in every number of x32 (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// `__ARM_NR_BASE`: calls private to ARM start here, far above the others.
pub(super) const ARM_PRIVATE: u32 = 0x000f_0000;

/// Twice as many slots as the longest table has rows, so that a look-up takes one or two probes.
const SLOTS: usize = 1024;
const MASK: u32 = 1023;
const EMPTY: u16 = u16::MAX;

struct Table {
    rows: &'static [(&'static str, u32)],
    /// Rows by hash of their name, linear probing.
    slots: &'static [u16; SLOTS],
}

/// FNV-1a.
const fn hash(name: &str) -> u32 {
    let bytes = name.as_bytes();
    let mut hash: u32 = 0x811c_9dc5;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    // The low bits alone are the weakest.
    hash ^ (hash >> 15)
}

const fn index(rows: &[(&str, u32)]) -> [u16; SLOTS] {
    let mut slots = [EMPTY; SLOTS];
    let mut row: u16 = 0;
    while (row as usize) < rows.len() {
        let mut slot = hash(rows[row as usize].0) & MASK;
        while slots[slot as usize] != EMPTY {
            slot = (slot + 1) & MASK;
        }
        slots[slot as usize] = row;
        row += 1;
    }
    slots
}

macro_rules! table {
    ($arch:ident) => {{
        use syscalls::$arch::Sysno;
        // By number and not by `Sysno::next`, which never returns the last one (syscalls 0.8.1).
        static ROWS: [(&str, u32); Sysno::count()] = {
            let mut rows = [("", 0); Sysno::count()];
            let (mut found, mut number): (usize, u32) = (0, 0);
            while found < rows.len() {
                if let Some(call) = Sysno::new(number as usize) {
                    rows[found] = (call.name(), number);
                    found += 1;
                }
                number += 1;
            }
            rows
        };
        static INDEX: [u16; SLOTS] = index(&ROWS);
        Some(Table { rows: &ROWS, slots: &INDEX })
    }};
}

/// A name that is looked up in several tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'a> {
    pub(super) text: &'a str,
    hash: u32,
}

impl<'a> Name<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, hash: hash(text) }
    }

    /// The number of this system call in this architecture's table. None where it has no such call, or no table.
    pub(super) fn number(self, arch: Arch) -> Option<u32> {
        extra(arch, self.text).or_else(|| {
            let number = find(&table(arch)?, self)?;
            if arch == Arch::X32 { x32(self.text, number) } else { Some(number) }
        })
    }
}

/// [`Name::number`] of a name that is looked up once.
pub(super) fn number(arch: Arch, name: &str) -> Option<u32> {
    Name::new(name).number(arch)
}

/// Whether there is a table at all. The crate lacks those of a few old ABIs.
pub(super) fn known(arch: Arch) -> bool {
    table(arch).is_some()
}

fn find(table: &Table, name: Name<'_>) -> Option<u32> {
    let mut slot = name.hash & MASK;
    loop {
        // EMPTY is above every row, which ends the search.
        let row = usize::from(*table.slots.get(slot as usize)?);
        let &(found, number) = table.rows.get(row)?;
        if found == name.text {
            return Some(number);
        }
        slot = (slot + 1) & MASK;
    }
}

fn table(arch: Arch) -> Option<Table> {
    match arch {
        #[cfg(any(test, target_arch = "x86_64", target_arch = "x86"))]
        Arch::X86_64 | Arch::X32 => table!(x86_64),
        #[cfg(any(test, target_arch = "x86_64", target_arch = "x86"))]
        Arch::X86 => table!(x86),
        #[cfg(any(test, target_arch = "aarch64", target_arch = "arm"))]
        Arch::Aarch64 => table!(aarch64),
        #[cfg(any(test, target_arch = "aarch64", target_arch = "arm"))]
        Arch::Arm => table!(arm),
        #[cfg(any(test, target_arch = "riscv64"))]
        Arch::Riscv64 => table!(riscv64),
        #[cfg(any(test, target_arch = "loongarch64"))]
        Arch::Loongarch64 => table!(loongarch64),
        #[cfg(any(test, target_arch = "s390x"))]
        Arch::S390x => table!(s390x),
        #[cfg(any(test, target_arch = "powerpc", target_arch = "powerpc64"))]
        Arch::Ppc => table!(powerpc),
        #[cfg(any(test, target_arch = "powerpc", target_arch = "powerpc64"))]
        Arch::Ppc64 | Arch::Ppc64le => table!(powerpc64),
        #[cfg(any(test, target_arch = "mips", target_arch = "mips64"))]
        Arch::Mips | Arch::Mipsel => table!(mips),
        #[cfg(any(test, target_arch = "mips", target_arch = "mips64"))]
        Arch::Mips64 | Arch::Mipsel64 => table!(mips64),
        _ => None,
    }
}

/// What the crate's tables lack or call otherwise than the kernel's own do (syscalls 0.8.1).
fn extra(arch: Arch, name: &str) -> Option<u32> {
    Some(match (arch, name) {
        (Arch::Aarch64 | Arch::Loongarch64, "newfstatat") => 79,
        (Arch::Mips64 | Arch::Mipsel64, "set_mempolicy_home_node") => 5450,
        (Arch::Arm, "breakpoint") => ARM_PRIVATE + 1,
        (Arch::Arm, "cacheflush") => ARM_PRIVATE + 2,
        (Arch::Arm, "usr26") => ARM_PRIVATE + 3,
        (Arch::Arm, "usr32") => ARM_PRIVATE + 4,
        (Arch::Arm, "set_tls") => ARM_PRIVATE + 5,
        (Arch::Arm, "get_tls") => ARM_PRIVATE + 6,
        _ => return None,
    })
}

/// x32 has x86_64's numbers, but its own for calls with pointers in their structures, and lacks the oldest
/// (the kernel's `syscall_64.tbl`, column abi: "64" isn't x32's, "x32" is its own).
fn x32(name: &str, number: u32) -> Option<u32> {
    let number = match name {
        "uselib" | "_sysctl" | "create_module" | "get_kernel_syms" | "query_module" | "nfsservctl"
        | "set_thread_area" | "get_thread_area" | "epoll_ctl_old" | "epoll_wait_old" | "vserver" | "uretprobe"
        | "uprobe" | "map_shadow_stack" => return None,
        "rt_sigaction" => 512,
        "rt_sigreturn" => 513,
        "ioctl" => 514,
        "readv" => 515,
        "writev" => 516,
        "recvfrom" => 517,
        "sendmsg" => 518,
        "recvmsg" => 519,
        "execve" => 520,
        "ptrace" => 521,
        "rt_sigpending" => 522,
        "rt_sigtimedwait" => 523,
        "rt_sigqueueinfo" => 524,
        "sigaltstack" => 525,
        "timer_create" => 526,
        "mq_notify" => 527,
        "kexec_load" => 528,
        "waitid" => 529,
        "set_robust_list" => 530,
        "get_robust_list" => 531,
        "vmsplice" => 532,
        "move_pages" => 533,
        "preadv" => 534,
        "pwritev" => 535,
        "rt_tgsigqueueinfo" => 536,
        "recvmmsg" => 537,
        "sendmmsg" => 538,
        "process_vm_readv" => 539,
        "process_vm_writev" => 540,
        "setsockopt" => 541,
        "getsockopt" => 542,
        "io_setup" => 543,
        "io_submit" => 544,
        "execveat" => 545,
        "preadv2" => 546,
        "pwritev2" => 547,
        _ => number,
    };
    Some(X32_BIT | number)
}

/// The first argument by which `socketcall` means this call: its mask (the kernel takes an int) and its value.
pub(super) fn socketcall(name: &str) -> Option<(u32, u32)> {
    let call = match name {
        "socket" => 1,
        "bind" => 2,
        "connect" => 3,
        "listen" => 4,
        "accept" => 5,
        "getsockname" => 6,
        "getpeername" => 7,
        "socketpair" => 8,
        "send" => 9,
        "recv" => 10,
        "sendto" => 11,
        "recvfrom" => 12,
        "shutdown" => 13,
        "setsockopt" => 14,
        "getsockopt" => 15,
        "sendmsg" => 16,
        "recvmsg" => 17,
        "accept4" => 18,
        "recvmmsg" => 19,
        "sendmmsg" => 20,
        _ => return None,
    };
    Some((0xffff_ffff, call))
}

/// The same for `ipc`, whose upper 16 bits are a version that the kernel splits off.
pub(super) fn ipc(name: &str) -> Option<(u32, u32)> {
    let call = match name {
        "semop" => 1,
        "semget" => 2,
        "semctl" => 3,
        "semtimedop" => 4,
        "msgsnd" => 11,
        "msgrcv" => 12,
        "msgget" => 13,
        "msgctl" => 14,
        "shmat" => 21,
        "shmdt" => 22,
        "shmget" => 23,
        "shmctl" => 24,
        _ => return None,
    };
    Some((0xffff, call))
}
