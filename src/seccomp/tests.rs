//! Programs are run by an interpreter of classic BPF and compared with a naive reading of the profile.

mod oracle;
mod tables;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use proptest::{collection, option, sample};

use super::arch::{self, Arch};
use super::{Insn, compile_for, names};
use crate::spec::{Seccomp, SyscallArg, SyscallRule};

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_THREAD;
const ENOSYS: u32 = errno(38);
const X86_64: u32 = 0xc000_003e;
const X32: u32 = 0x4000_0000;

const fn errno(number: u32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number
}

/// Runs a program as the kernel does. Returns its verdict and the instructions it took.
fn run(program: &[Insn], arch: u32, nr: u32, args: [u64; 6]) -> (u32, usize) {
    let mut data = [nr.to_ne_bytes(), arch.to_ne_bytes()].concat();
    data.extend([0; 8]);
    data.extend(args.iter().flat_map(|arg| arg.to_ne_bytes()));
    let (mut a, mut pc, mut steps) = (0u32, 0usize, 0);
    loop {
        let Insn { code, jt, jf, k } = program[pc];
        let branch = |holds: bool| usize::from(if holds { jt } else { jf });
        (pc, steps) = (pc + 1, steps + 1);
        match code {
            0x20 => a = u32::from_ne_bytes(data[k as usize..][..4].try_into().unwrap()),
            0x54 => a &= k,
            0x05 => pc += k as usize,
            0x15 => pc += branch(a == k),
            0x25 => pc += branch(a > k),
            0x35 => pc += branch(a >= k),
            0x06 => return (k, steps),
            _ => panic!("instruction {code:#x} at {}", pc - 1),
        }
    }
}

/// What the kernel's `bpf_check_classic` and `seccomp_check_filter` demand.
fn check(program: &[Insn]) {
    assert!((1..=4096).contains(&program.len()));
    assert_eq!(program.last().unwrap().code, 0x06);
    for (pc, insn) in program.iter().enumerate() {
        let left = program.len() - pc - 1;
        match insn.code {
            0x20 => assert!(insn.k % 4 == 0 && insn.k < 64, "load of {}", insn.k),
            0x05 => assert!((insn.k as usize) < left),
            0x15 | 0x25 | 0x35 => assert!(usize::from(insn.jt.max(insn.jf)) < left),
            0x54 | 0x06 => {}
            code => panic!("instruction {code:#x}"),
        }
    }
}

/// The same verdict by reading the profile afresh for each call.
fn reference(profile: &Seccomp, native: Arch, token: u32, nr: u32, args: [u64; 6]) -> u32 {
    let named = |arch: Arch| {
        let (name, _) = arch::ALL.iter().find(|(_, known)| *known == arch).unwrap();
        arch == native || profile.architectures.iter().any(|a| a == name)
    };
    let default = action(&profile.default_action, profile.default_errno_ret);
    let is_x32 = token == X86_64 && nr >= X32;
    let with_token = arch::ALL.iter().map(|(_, arch)| *arch).filter(|arch| arch.token() == token);
    let arch = with_token.filter(|arch| (*arch == Arch::X32) == is_x32).find(|arch| named(*arch));
    let Some(arch) = arch.filter(|arch| arch.runs_beside(native) && names::known(*arch)) else {
        let skipped = nr == u32::MAX && token == X86_64 && Arch::X86_64.runs_beside(native);
        let has_branch = skipped && (named(Arch::X86_64) || named(Arch::X32));
        return if has_branch { default } else { KILL };
    };
    let numbers = profile.syscalls.iter().flat_map(|rule| &rule.names).filter_map(|name| names::number(arch, name));
    let highest = numbers.filter(|nr| arch != Arch::Arm || *nr < 0xf0000).max();
    let refuses = !["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"].contains(&profile.default_action.as_str());
    if arch == Arch::S390x && nr == 0 && refuses && highest.is_some() {
        return ENOSYS;
    }
    let rules = || profile.syscalls.iter().map(|rule| (rule, action(&rule.action, rule.errno_ret)));
    let effective = || rules().filter(|(_, verdict)| *verdict != default);
    let is = |name: &String| names::number(arch, name) == Some(nr);
    if let Some((_, verdict)) = effective().find(|(rule, _)| rule.args.is_empty() && rule.names.iter().any(is)) {
        return verdict;
    }
    let newer = refuses && highest.is_some_and(|highest| nr > highest) && !mentioned(profile, arch, nr, default);
    let matching = effective().find(|(rule, _)| {
        rule.names.iter().any(|name| {
            (is(name) && all_hold(rule, |arg| holds(arg, args, arch)))
                || (muxed(arch, name, nr, args[0]) && all_hold(rule, |arg| arg.index == 0 || holds(arg, args, arch)))
        })
    });
    matching.map_or(if newer { ENOSYS } else { default }, |(_, verdict)| verdict)
}

/// AND, but OR where one argument is looked at twice.
fn all_hold(rule: &SyscallRule, holds: impl FnMut(&SyscallArg) -> bool) -> bool {
    let split = (0..6).any(|i| rule.args.iter().filter(|arg| arg.index == i).count() > 1);
    if split { rule.args.iter().any(holds) } else { rule.args.iter().all(holds) }
}

/// Whether some rule is about this number, so that it isn't newer than the profile.
fn mentioned(profile: &Seccomp, arch: Arch, nr: u32, default: u32) -> bool {
    let rules = profile.syscalls.iter().filter(|rule| action(&rule.action, rule.errno_ret) != default);
    rules.flat_map(|rule| &rule.names).any(|name| {
        let mux = [("socketcall", names::socketcall(name)), ("ipc", names::ipc(name))];
        names::number(arch, name) == Some(nr)
            || mux.iter().any(|(mux, call)| call.is_some() && names::number(arch, mux) == Some(nr))
    })
}

fn muxed(arch: Arch, name: &str, nr: u32, first: u64) -> bool {
    let low = first & 0xffff_ffff;
    (names::number(arch, "socketcall") == Some(nr)
        && names::socketcall(name).is_some_and(|(_, call)| low == u64::from(call)))
        || (names::number(arch, "ipc") == Some(nr)
            && names::ipc(name).is_some_and(|(_, call)| low & 0xffff == u64::from(call)))
}

fn action(name: &str, number: Option<u32>) -> u32 {
    match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 | number.unwrap_or(1),
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | number.unwrap_or(1),
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        _ => panic!("action {name}"),
    }
}

fn holds(test: &SyscallArg, args: [u64; 6], arch: Arch) -> bool {
    let cut = |value: u64| if arch.token() & 0x8000_0000 == 0 { value & 0xffff_ffff } else { value };
    let (arg, value, two) = (cut(args[test.index as usize]), cut(test.value), cut(test.value_two));
    match test.op.as_str() {
        "SCMP_CMP_NE" => arg != value,
        "SCMP_CMP_LT" => arg < value,
        "SCMP_CMP_LE" => arg <= value,
        "SCMP_CMP_EQ" => arg == value,
        "SCMP_CMP_GE" => arg >= value,
        "SCMP_CMP_GT" => arg > value,
        "SCMP_CMP_MASKED_EQ" => arg & value == two & value,
        op => panic!("operator {op}"),
    }
}

const ACTIONS: [&str; 8] = [
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
];
const OPERATORS: [&str; 7] =
    ["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"];
/// One of each family, and the host of most users more often.
const NATIVE: [Arch; 10] = [
    Arch::X86_64,
    Arch::X86_64,
    Arch::X86,
    Arch::X32,
    Arch::Aarch64,
    Arch::Riscv64,
    Arch::S390x,
    Arch::Ppc64le,
    Arch::Mips64,
    Arch::Loongarch64,
];
const NAMES: [&str; 26] = [
    "read",
    "write",
    "open",
    "openat",
    "socket",
    "socketcall",
    "connect",
    "sendmsg",
    "accept",
    "ipc",
    "shmget",
    "semop",
    "personality",
    "clone",
    "clone3",
    "ioctl",
    "execve",
    "execveat",
    "newfstatat",
    "set_tls",
    "rt_sigaction",
    "uselib",
    "exit_group",
    "openat2",
    "no_such_call",
    "preadv2",
];

/// Values around the borders of halves, and few enough that tests and arguments meet.
fn value() -> impl Strategy<Value = u64> {
    let borders =
        vec![0, 1, 2, 5, 11, 0xffff_fffe, 0xffff_ffff, 1 << 32, (1 << 32) + 1, (5 << 32) + 5, 1 << 63, u64::MAX];
    prop_oneof![5 => sample::select(borders), 1 => any::<u64>()]
}

fn verdicts() -> impl Strategy<Value = (String, Option<u32>)> {
    (sample::select(ACTIONS.to_vec()), option::of(0u32..100)).prop_map(|(action, number)| {
        let number = number.filter(|_| ["SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"].contains(&action));
        (action.to_owned(), number)
    })
}

fn profiles() -> impl Strategy<Value = Seccomp> {
    let arg = (0u32..6, value(), value(), sample::select(OPERATORS.to_vec()))
        .prop_map(|(index, value, value_two, op)| SyscallArg { index: index / 2, value, value_two, op: op.to_owned() });
    let names = collection::vec(sample::select(NAMES.to_vec()).prop_map(str::to_owned), 1..6);
    let args = prop_oneof![2 => Just(Vec::new()), 3 => collection::vec(arg, 1..4)];
    let rule = (names, verdicts(), args).prop_map(|(names, (action, errno_ret), args)| SyscallRule {
        names,
        action,
        errno_ret,
        args,
    });
    let archs = sample::subsequence(arch::ALL.map(|(name, _)| name.to_owned()).to_vec(), 0..=23);
    (verdicts(), archs, collection::vec(rule, 0..12)).prop_map(
        |((default_action, default_errno_ret), architectures, syscalls)| Seccomp {
            default_action,
            default_errno_ret,
            architectures,
            syscalls,
            ..Seccomp::default()
        },
    )
}

/// A call: its architecture, its number (by name, or any), its arguments.
fn calls() -> impl Strategy<Value = (Arch, u32, [u64; 6])> {
    let archs = arch::ALL.map(|(_, arch)| arch).to_vec();
    let nr = prop_oneof![
        6 => (sample::select(NAMES.to_vec()), 0u32..4).prop_map(|(name, beside)| (Some(name), beside)),
        1 => (0u32..600).prop_map(|nr| (None, nr)),
        1 => prop_oneof![any::<u32>(), Just(u32::MAX), Just(X32 - 1), Just(X32)].prop_map(|nr| (None, nr)),
    ];
    (sample::select(archs), nr, [value(), value(), value(), value(), value(), value()]).prop_map(
        |(arch, (name, nr), args)| {
            let by_name = name.and_then(|name| names::number(arch, name)).map(|number| number.wrapping_add(nr / 3));
            (arch, by_name.unwrap_or(nr), args)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn program_and_reference_agree(
        profile in profiles(),
        native in sample::select(NATIVE.to_vec()),
        calls in collection::vec(calls(), 200),
    ) {
        let (filter, _) = compile_for(&profile, native).unwrap();
        check(&filter.program);
        for (arch, nr, args) in calls {
            for arch in [arch, native] {
                let token = arch.token();
                let expected = reference(&profile, native, token, nr, args);
                prop_assert_eq!(run(&filter.program, token, nr, args).0, expected, "{:?} {:#x} {:x?}", arch, nr, args);
            }
        }
    }
}
