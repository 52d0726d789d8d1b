//! System call numbers by name.
//!
//! The numbers are those of the crate `syscalls`; its `FromStr` compares with one name after the other, so a hash index
//! is built at compile time. One table holds what a name means on all architectures that one kernel can run: a name of
//! a profile is hashed and compared once. Only the table that the target's kernel can need is in the binary, and in the
//! tests all of them.

use super::arch::Arch;

/// Set in every number of x32 (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// `__ARM_NR_BASE`: calls private to ARM start here, far above the others.
pub(super) const ARM_PRIVATE: u32 = 0x000f_0000;

/// Twice as many slots as the longest table has rows, so that a look-up takes one or two probes.
const SLOTS: usize = 1024;
const EMPTY: u16 = u16::MAX;

/// In place of a number that there isn't.
const NONE: u32 = u32::MAX;

/// What a name means on the architectures of one kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    name: &'static str,
    /// By [`column`]; [`NONE`] where an architecture has no such call.
    numbers: [u32; COLUMNS],
    /// The first argument by which `socketcall` and `ipc` mean this call, 0 if they never do.
    socketcall: u8,
    ipc: u8,
}

/// Where the numbers of an architecture are in a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column(usize);

/// No kernel runs programs of more architectures with a table.
const COLUMNS: usize = 3;

impl Row {
    /// The number of this system call. None where the architecture has no such call.
    pub(super) fn number(&self, column: Column) -> Option<u32> {
        self.numbers.get(column.0).copied().filter(|number| *number != NONE)
    }

    /// Whether `socketcall` or `ipc` may carry it.
    pub(super) fn is_carried(&self) -> bool {
        self.socketcall | self.ipc > 0
    }

    /// The first argument by which `socketcall` means this call: its mask (the kernel takes an int) and its value.
    pub(super) fn socketcall(&self) -> Option<(u32, u32)> {
        (self.socketcall > 0).then_some((0xffff_ffff, self.socketcall.into()))
    }

    /// The same for `ipc`, whose upper 16 bits are a version that the kernel splits off.
    pub(super) fn ipc(&self) -> Option<(u32, u32)> {
        (self.ipc > 0).then_some((0xffff, self.ipc.into()))
    }
}

/// Rows, and where they are by the hash of their name, with linear probing. `N` is at most [`SLOTS`].
struct Table<const N: usize> {
    rows: [Row; N],
    used: u16,
    slots: [u16; SLOTS],
}

/// Eight bytes at a time, as most names are two words long. Returns a slot.
const fn hash(name: &str) -> usize {
    /// 2^64 divided by the golden ratio: the upper bits of a product depend on all bits of the factor.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut rest = name.as_bytes();
    let mut hash: u64 = 0;
    while let Some((word, after)) = rest.split_first_chunk() {
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(FACTOR);
        rest = after;
    }
    let mut word: u64 = 0;
    while let Some((byte, after)) = rest.split_first() {
        word = word << 8 | *byte as u64;
        rest = after;
    }
    hash = (hash.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    let [high, low, ..] = hash.to_be_bytes();
    (u16::from_be_bytes([high, low]) >> (u16::BITS - SLOTS.ilog2())) as usize
}

/// `==`, which no constant function has, and which with musl compares byte by byte.
const fn same(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    while let (Some((first, a_after)), Some((second, b_after))) = (a.split_first_chunk(), b.split_first_chunk()) {
        if u64::from_ne_bytes(*first) != u64::from_ne_bytes(*second) {
            return false;
        }
        (a, b) = (a_after, b_after);
    }
    while let (Some((first, a_after)), Some((second, b_after))) = (a.split_first(), b.split_first()) {
        if *first != *second {
            return false;
        }
        (a, b) = (a_after, b_after);
    }
    true
}

impl<const N: usize> Table<N> {
    const fn new() -> Self {
        let none = Row { name: "", numbers: [NONE; COLUMNS], socketcall: 0, ipc: 0 };
        Self { rows: [none; N], used: 0, slots: [EMPTY; SLOTS] }
    }

    /// Sets the number of a name on one architecture.
    const fn add(&mut self, name: &'static str, arch: Arch, number: u32) {
        let Some(Column(column)) = column(arch) else { return };
        let row = self.row(name);
        self.rows[row].numbers[column] = number;
    }

    /// Adds x32's numbers to those of x86_64 that are there.
    const fn add_x32(&mut self) {
        let (Some(Column(from)), Some(Column(to))) = (column(Arch::X86_64), column(Arch::X32)) else { return };
        let mut row = 0;
        while row < self.used as usize {
            let Row { name, numbers, .. } = &mut self.rows[row];
            if numbers[from] != NONE {
                numbers[to] = x32(name, numbers[from]);
            }
            row += 1;
        }
    }

    const fn add_extra(&mut self, arch: Arch) {
        let mut i = 0;
        while i < EXTRA.len() {
            let (of, name, number) = EXTRA[i];
            if of as u8 == arch as u8 {
                self.add(name, arch, number);
            }
            i += 1;
        }
    }

    /// Adds the calls that `socketcall` and `ipc` carry. Some exist in no other way.
    const fn add_carried(&mut self) {
        let mut i = 0;
        while i < SOCKETCALLS.len() {
            let row = self.row(SOCKETCALLS[i].0);
            self.rows[row].socketcall = SOCKETCALLS[i].1;
            i += 1;
        }
        i = 0;
        while i < IPC_CALLS.len() {
            let row = self.row(IPC_CALLS[i].0);
            self.rows[row].ipc = IPC_CALLS[i].1;
            i += 1;
        }
    }

    /// The row of a name, a new one if there is none.
    const fn row(&mut self, name: &'static str) -> usize {
        let mut slot = hash(name);
        while self.slots[slot] != EMPTY {
            if same(self.rows[self.slots[slot] as usize].name, name) {
                return self.slots[slot] as usize;
            }
            slot = (slot + 1) % SLOTS;
        }
        let row = self.used as usize;
        self.rows[row].name = name;
        self.slots[slot] = self.used;
        self.used += 1;
        row
    }

    fn find(&'static self, name: &str) -> Option<&'static Row> {
        let mut slot = hash(name);
        loop {
            // EMPTY is above every row, which ends the search.
            let row = self.rows.get(usize::from(*self.slots.get(slot)?))?;
            if same(row.name, name) {
                return Some(row);
            }
            slot = (slot + 1) % SLOTS;
        }
    }
}

/// The table of the architectures named, in the order of their columns, out of modules of `syscalls`.
macro_rules! table {
    ($($arch:ident in $module:ident),*) => {{
        const fn build<const N: usize>() -> Table<N> {
            let mut table = Table::new();
            $(
                // By number and not by `Sysno::next`, which never returns the last one (syscalls 0.8.1).
                let (mut found, mut number): (usize, u32) = (0, 0);
                while found < syscalls::$module::Sysno::count() {
                    if let Some(call) = syscalls::$module::Sysno::new(number as usize) {
                        table.add(call.name(), Arch::$arch, number);
                        found += 1;
                    }
                    number += 1;
                }
            )*
            table.add_carried();
            $(
                table.add_extra(Arch::$arch);
                if Arch::$arch as u8 == Arch::X86_64 as u8 {
                    table.add_x32();
                }
            )*
            table
        }
        const ROWS: usize = build::<SLOTS>().used as usize;
        static TABLE: Table<ROWS> = build();
        &TABLE
    }};
}

/// What a name means, whichever of the architectures beside `native` knows it.
pub(super) fn find(native: Arch, name: &str) -> Option<&'static Row> {
    match native {
        #[cfg(any(test, target_arch = "x86_64", target_arch = "x86"))]
        Arch::X86_64 | Arch::X32 | Arch::X86 => table!(X86_64 in x86_64, X86 in x86).find(name),
        #[cfg(any(test, target_arch = "aarch64", target_arch = "arm"))]
        Arch::Aarch64 | Arch::Arm => table!(Aarch64 in aarch64, Arm in arm).find(name),
        #[cfg(any(test, target_arch = "riscv64"))]
        Arch::Riscv64 => table!(Riscv64 in riscv64).find(name),
        #[cfg(any(test, target_arch = "loongarch64"))]
        Arch::Loongarch64 => table!(Loongarch64 in loongarch64).find(name),
        #[cfg(any(test, target_arch = "s390x"))]
        Arch::S390x => table!(S390x in s390x).find(name),
        #[cfg(any(test, target_arch = "powerpc", target_arch = "powerpc64"))]
        Arch::Ppc | Arch::Ppc64 | Arch::Ppc64le => table!(Ppc64 in powerpc64, Ppc in powerpc).find(name),
        #[cfg(any(test, target_arch = "mips", target_arch = "mips64"))]
        Arch::Mips | Arch::Mipsel | Arch::Mips64 | Arch::Mipsel64 => table!(Mips64 in mips64, Mips in mips).find(name),
        _ => None,
    }
}

/// The number of a name on one architecture.
pub(super) fn number(arch: Arch, name: &str) -> Option<u32> {
    find(arch, name)?.number(column(arch)?)
}

/// How `socketcall` carries a call, on whatever architecture.
#[cfg(test)]
pub(super) fn socketcall(name: &str) -> Option<(u32, u32)> {
    find(Arch::X86, name)?.socketcall()
}

/// How `ipc` carries a call, on whatever architecture.
#[cfg(test)]
pub(super) fn ipc(name: &str) -> Option<(u32, u32)> {
    find(Arch::X86, name)?.ipc()
}

/// Whether there is a table at all. The crate lacks those of a few old ABIs.
pub(super) fn known(arch: Arch) -> bool {
    column(arch).is_some()
}

/// None for an architecture without a table.
pub(super) const fn column(arch: Arch) -> Option<Column> {
    let column = match arch {
        #[cfg(any(test, target_arch = "x86_64", target_arch = "x86"))]
        Arch::X86_64 => 0,
        #[cfg(any(test, target_arch = "x86_64", target_arch = "x86"))]
        Arch::X86 => 1,
        #[cfg(any(test, target_arch = "x86_64", target_arch = "x86"))]
        Arch::X32 => 2,
        #[cfg(any(test, target_arch = "aarch64", target_arch = "arm"))]
        Arch::Aarch64 => 0,
        #[cfg(any(test, target_arch = "aarch64", target_arch = "arm"))]
        Arch::Arm => 1,
        #[cfg(any(test, target_arch = "riscv64"))]
        Arch::Riscv64 => 0,
        #[cfg(any(test, target_arch = "loongarch64"))]
        Arch::Loongarch64 => 0,
        #[cfg(any(test, target_arch = "s390x"))]
        Arch::S390x => 0,
        #[cfg(any(test, target_arch = "powerpc", target_arch = "powerpc64"))]
        Arch::Ppc64 | Arch::Ppc64le => 0,
        #[cfg(any(test, target_arch = "powerpc", target_arch = "powerpc64"))]
        Arch::Ppc => 1,
        #[cfg(any(test, target_arch = "mips", target_arch = "mips64"))]
        Arch::Mips64 | Arch::Mipsel64 => 0,
        #[cfg(any(test, target_arch = "mips", target_arch = "mips64"))]
        Arch::Mips | Arch::Mipsel => 1,
        _ => return None,
    };
    Some(Column(column))
}

/// What the crate's tables lack or call otherwise than the kernel's own do (syscalls 0.8.1).
const EXTRA: [(Arch, &str, u32); 9] = [
    (Arch::Aarch64, "newfstatat", 79),
    (Arch::Loongarch64, "newfstatat", 79),
    (Arch::Mips64, "set_mempolicy_home_node", 5450),
    (Arch::Arm, "breakpoint", ARM_PRIVATE + 1),
    (Arch::Arm, "cacheflush", ARM_PRIVATE + 2),
    (Arch::Arm, "usr26", ARM_PRIVATE + 3),
    (Arch::Arm, "usr32", ARM_PRIVATE + 4),
    (Arch::Arm, "set_tls", ARM_PRIVATE + 5),
    (Arch::Arm, "get_tls", ARM_PRIVATE + 6),
];

/// x32 has x86_64's numbers, but its own for calls with pointers in their structures, and lacks the oldest
/// (the kernel's `syscall_64.tbl`, column abi: "64" isn't x32's, "x32" is its own).
const fn x32(name: &str, number: u32) -> u32 {
    let number = match name.as_bytes() {
        b"uselib" | b"_sysctl" | b"create_module" | b"get_kernel_syms" | b"query_module" | b"nfsservctl"
        | b"set_thread_area" | b"get_thread_area" | b"epoll_ctl_old" | b"epoll_wait_old" | b"vserver"
        | b"uretprobe" | b"uprobe" | b"map_shadow_stack" => return NONE,
        b"rt_sigaction" => 512,
        b"rt_sigreturn" => 513,
        b"ioctl" => 514,
        b"readv" => 515,
        b"writev" => 516,
        b"recvfrom" => 517,
        b"sendmsg" => 518,
        b"recvmsg" => 519,
        b"execve" => 520,
        b"ptrace" => 521,
        b"rt_sigpending" => 522,
        b"rt_sigtimedwait" => 523,
        b"rt_sigqueueinfo" => 524,
        b"sigaltstack" => 525,
        b"timer_create" => 526,
        b"mq_notify" => 527,
        b"kexec_load" => 528,
        b"waitid" => 529,
        b"set_robust_list" => 530,
        b"get_robust_list" => 531,
        b"vmsplice" => 532,
        b"move_pages" => 533,
        b"preadv" => 534,
        b"pwritev" => 535,
        b"rt_tgsigqueueinfo" => 536,
        b"recvmmsg" => 537,
        b"sendmmsg" => 538,
        b"process_vm_readv" => 539,
        b"process_vm_writev" => 540,
        b"setsockopt" => 541,
        b"getsockopt" => 542,
        b"io_setup" => 543,
        b"io_submit" => 544,
        b"execveat" => 545,
        b"preadv2" => 546,
        b"pwritev2" => 547,
        _ => number,
    };
    X32_BIT | number
}

/// The calls that `socketcall` carries, and the first argument that means them.
const SOCKETCALLS: [(&str, u8); 20] = [
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

/// The same for `ipc`.
const IPC_CALLS: [(&str, u8); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

#[cfg(test)]
mod tests {
    use super::{EXTRA, NONE, number, x32};
    use crate::seccomp::arch::Arch;

    #[test]
    fn every_name_of_the_crate_has_its_number() {
        macro_rules! tables {
            ($($arch:ident in $module:ident),*) => {
                [$((Arch::$arch, syscalls::$module::Sysno::iter().map(|call| (call.name(), call.id().cast_unsigned())).collect())),*]
            };
        }
        let tables: [(Arch, Vec<(&str, u32)>); 11] = tables!(
            X86_64 in x86_64, X86 in x86, Aarch64 in aarch64, Arm in arm, Riscv64 in riscv64, Loongarch64 in loongarch64,
            S390x in s390x, Ppc64le in powerpc64, Ppc in powerpc, Mipsel64 in mips64, Mips in mips);
        for (arch, calls) in tables {
            assert!(calls.len() > 250, "{arch:?}");
            for (name, expected) in calls {
                assert_eq!(number(arch, name), Some(expected), "{arch:?} {name}");
                if arch == Arch::X86_64 {
                    let expected = Some(x32(name, expected)).filter(|number| *number != NONE);
                    assert_eq!(number(Arch::X32, name), expected, "x32 {name}");
                }
            }
        }
        for (arch, name, expected) in EXTRA {
            assert_eq!(number(arch, name), Some(expected), "{arch:?} {name}");
        }
    }
}
