//! Architectures of the OCI specification: their audit tokens, and which of them one kernel can run.

/// One of `SCMP_ARCH_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arch {
    X86,
    X86_64,
    X32,
    Arm,
    Aarch64,
    Loongarch64,
    M68k,
    Mips,
    Mips64,
    Mips64n32,
    Mipsel,
    Mipsel64,
    Mipsel64n32,
    Ppc,
    Ppc64,
    Ppc64le,
    S390,
    S390x,
    Sh,
    Sheb,
    Parisc,
    Parisc64,
    Riscv64,
}

use Arch::{
    Aarch64, Arm, Loongarch64, M68k, Mips, Mips64, Mips64n32, Mipsel, Mipsel64, Mipsel64n32, Parisc, Parisc64, Ppc,
    Ppc64, Ppc64le, Riscv64, S390, S390x, Sh, Sheb, X32, X86, X86_64,
};

/// Every name of the specification, in its order.
pub(super) const ALL: [(&str, Arch); 23] = [
    ("SCMP_ARCH_X86", X86),
    ("SCMP_ARCH_X86_64", X86_64),
    ("SCMP_ARCH_X32", X32),
    ("SCMP_ARCH_ARM", Arm),
    ("SCMP_ARCH_AARCH64", Aarch64),
    ("SCMP_ARCH_LOONGARCH64", Loongarch64),
    ("SCMP_ARCH_M68K", M68k),
    ("SCMP_ARCH_MIPS", Mips),
    ("SCMP_ARCH_MIPS64", Mips64),
    ("SCMP_ARCH_MIPS64N32", Mips64n32),
    ("SCMP_ARCH_MIPSEL", Mipsel),
    ("SCMP_ARCH_MIPSEL64", Mipsel64),
    ("SCMP_ARCH_MIPSEL64N32", Mipsel64n32),
    ("SCMP_ARCH_PPC", Ppc),
    ("SCMP_ARCH_PPC64", Ppc64),
    ("SCMP_ARCH_PPC64LE", Ppc64le),
    ("SCMP_ARCH_S390", S390),
    ("SCMP_ARCH_S390X", S390x),
    ("SCMP_ARCH_SH", Sh),
    ("SCMP_ARCH_SHEB", Sheb),
    ("SCMP_ARCH_PARISC", Parisc),
    ("SCMP_ARCH_PARISC64", Parisc64),
    ("SCMP_ARCH_RISCV64", Riscv64),
];

/// `linux/audit.h`: set in the token of a 64-bit ABI, of a little-endian one, and of MIPS n32.
const BITS64: u32 = 0x8000_0000;
const LE: u32 = 0x4000_0000;
const N32: u32 = 0x2000_0000;

impl Arch {
    /// What this program was built for, and so what its own system calls look like.
    pub(super) fn native() -> Option<Self> {
        let little = cfg!(target_endian = "little");
        Some(match std::env::consts::ARCH {
            "x86_64" if cfg!(target_pointer_width = "32") => X32,
            "x86_64" => X86_64,
            "x86" => X86,
            "aarch64" if little => Aarch64,
            "arm" if little => Arm,
            "loongarch64" => Loongarch64,
            "mips" => {
                if little {
                    Mipsel
                } else {
                    Mips
                }
            }
            "mips64" => {
                if little {
                    Mipsel64
                } else {
                    Mips64
                }
            }
            "powerpc" => Ppc,
            "powerpc64" => {
                if little {
                    Ppc64le
                } else {
                    Ppc64
                }
            }
            "riscv64" => Riscv64,
            "s390x" => S390x,
            _ => return None,
        })
    }

    /// `AUDIT_ARCH_*`, as `seccomp_data.arch` holds it. x32 shares x86_64's and is told apart by number.
    pub(super) const fn token(self) -> u32 {
        match self {
            X86 => 3 | LE,
            X86_64 | X32 => 62 | BITS64 | LE,
            Arm => 40 | LE,
            Aarch64 => 183 | BITS64 | LE,
            Loongarch64 => 258 | BITS64 | LE,
            M68k => 4,
            Mips => 8,
            Mips64 => 8 | BITS64,
            Mips64n32 => 8 | BITS64 | N32,
            Mipsel => 8 | LE,
            Mipsel64 => 8 | BITS64 | LE,
            Mipsel64n32 => 8 | BITS64 | LE | N32,
            Ppc => 20,
            Ppc64 => 21 | BITS64,
            Ppc64le => 21 | BITS64 | LE,
            S390 => 22,
            S390x => 22 | BITS64,
            Sh => 42 | LE,
            Sheb => 42,
            Parisc => 15,
            Parisc64 => 15 | BITS64,
            Riscv64 => 243 | BITS64 | LE,
        }
    }

    /// Whether arguments are 64-bit registers.
    pub(super) const fn wide(self) -> bool {
        self.token() & BITS64 != 0
    }

    /// Whether a kernel that runs programs of `native` may get a system call of this one.
    ///
    /// A 32-bit program may well run on a 64-bit kernel, so families count in both directions.
    pub(super) fn runs_beside(self, native: Self) -> bool {
        self.family() == native.family()
    }

    const fn family(self) -> u8 {
        match self {
            X86 | X86_64 | X32 => 0,
            Arm | Aarch64 => 1,
            Loongarch64 => 2,
            M68k => 3,
            Mips | Mips64 | Mips64n32 => 4,
            Mipsel | Mipsel64 | Mipsel64n32 => 5,
            Ppc | Ppc64 | Ppc64le => 6,
            S390 | S390x => 7,
            Sh | Sheb => 8,
            Parisc | Parisc64 => 9,
            Riscv64 => 10,
        }
    }
}
