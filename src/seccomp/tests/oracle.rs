//! libseccomp as an oracle: the same profile compiled by both, driven as runc drives it; both programs run by the
//! interpreter over the same calls.
//!
//! What may differ, each checked to be just that ([`explained`]):
//!
//! - A number above all that the profile names is ENOSYS with us, the default with libseccomp (runc patches its
//!   program to the same effect).
//! - Where several conditional rules with different actions match a call, ours is the first one's, libseccomp's that of
//!   any: it sorts by argument, not by the profile.
//! - Of several sets of conditions on one call, one of them with a comparison other than for equality, libseccomp 2.5
//!   entangles them: "< 0 or < 2^32" doesn't match 1 there, ">= 2^32 or < 0" matches 2^32 - 1. Ours is then compared
//!   with the naive reading of the profile only (`program_and_reference_agree`).
//! - x32 has 64-bit registers, and is compared at 64 bits; libseccomp looks at the low half only.
//! - Names that only one of the two knows are left out: which call is newest depends on their ages. So are, from random
//!   profiles, names that an architecture has only as a part of another call: where such a one comes first, libseccomp
//!   2.5 compares the number of the call without having loaded it.
//!
//! Big-endian architectures are left out: the places of the halves of an argument are this machine's in our programs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use proptest::test_runner::{Config, TestCaseError, TestRunner};
use proptest::{collection, sample};

use super::{ENOSYS, NAMES, OPERATORS, X32, action, all_hold, calls, holds, muxed, profiles, run};
use crate::seccomp::arch::{self, Arch};
use crate::seccomp::{Insn, compile_for, names};
use crate::spec::{Seccomp, SyscallRule};
use crate::sys::libseccomp_for_tests::{Comparison, Library};

const NATIVE: [Arch; 9] = [
    Arch::X86_64,
    Arch::X86_64,
    Arch::X86,
    Arch::X32,
    Arch::Aarch64,
    Arch::Arm,
    Arch::Riscv64,
    Arch::Ppc64le,
    Arch::Mipsel64,
];

/// False, said aloud, where there is no libseccomp.
fn library() -> Option<Library> {
    use std::io::Write;
    let library = Library::open();
    if library.is_none() {
        let _ = writeln!(std::io::stderr(), "SKIP seccomp::oracle: libseccomp.so.2 is missing or can't be loaded");
    }
    library
}

fn name_of(arch: Arch) -> &'static str {
    arch::ALL.iter().find(|(_, known)| *known == arch).unwrap().0
}

fn token(library: &Library, arch: Arch) -> Option<u32> {
    library.arch(&name_of(arch).trim_start_matches("SCMP_ARCH_").to_lowercase())
}

/// Those that our program has branches for.
fn archs(profile: &Seccomp, native: Arch) -> Vec<Arch> {
    let named = arch::ALL.iter().filter(|(name, _)| profile.architectures.iter().any(|asked| asked == name));
    let mut all = vec![native];
    all.extend(named.map(|(_, arch)| *arch).filter(|arch| arch.runs_beside(native) && *arch != native));
    all.retain(|arch| names::known(*arch));
    all
}

/// As runc's InitSeccomp. `None` if libseccomp refuses the profile or lacks an architecture.
fn theirs(library: &Library, profile: &Seccomp, native: Arch) -> Option<Vec<Insn>> {
    let tokens: Vec<u32> =
        archs(profile, native).into_iter().map(|arch| token(library, arch)).collect::<Option<_>>()?;
    let default = action(&profile.default_action, profile.default_errno_ret);
    let filter = library.filter(default, &tokens)?;
    for rule in &profile.syscalls {
        let action = action(&rule.action, rule.errno_ret);
        if action == default {
            continue;
        }
        let tests: Vec<Comparison> = rule.args.iter().map(comparison).collect();
        let twice = tests.iter().any(|a| tests.iter().filter(|b| a.index == b.index).count() > 1);
        let alternatives: Vec<&[Comparison]> = if twice { tests.chunks(1).collect() } else { vec![tests.as_slice()] };
        for name in &rule.names {
            for tests in &alternatives {
                match filter.rule(action, name, tests) {
                    // The call has an unconditional rule, or this very one.
                    Ok(()) | Err(-17) => {}
                    Err(_) => return None,
                }
            }
        }
    }
    Some(filter.program())
}

fn comparison(arg: &crate::spec::SyscallArg) -> Comparison {
    let op = OPERATORS.iter().position(|op| *op == arg.op).unwrap() + 1;
    Comparison { index: arg.index, op: i32::try_from(op).unwrap(), value: arg.value, value_two: arg.value_two }
}

/// What a profile says about a call.
struct Said {
    /// The actions of the rules that match, none twice.
    actions: Vec<u32>,
    /// Whether some rule is about the number.
    mentioned: bool,
    /// Whether there are several sets of conditions, and one compares otherwise than for equality.
    entangled: bool,
}

fn said(profile: &Seccomp, arch: Arch, nr: u32, args: [u64; 6]) -> Said {
    let default = action(&profile.default_action, profile.default_errno_ret);
    let is = |name: &String| names::number(arch, name) == Some(nr);
    let effective = || profile.syscalls.iter().filter(|rule| action(&rule.action, rule.errno_ret) != default);
    let about = |rule: &&SyscallRule| rule.names.iter().any(|name| is(name) || muxed(arch, name, nr, args[0]));
    let holds_for = |rule: &SyscallRule| {
        rule.names.iter().any(|name| {
            (is(name) && all_hold(rule, |arg| holds(arg, args, arch)))
                || (muxed(arch, name, nr, args[0]) && all_hold(rule, |arg| arg.index == 0 || holds(arg, args, arch)))
        })
    };
    let mut actions: Vec<u32> =
        effective().filter(|rule| holds_for(rule)).map(|rule| action(&rule.action, rule.errno_ret)).collect();
    actions.sort_unstable();
    actions.dedup();
    let tests = || effective().filter(about).flat_map(|rule| &rule.args);
    Said {
        actions,
        mentioned: effective().any(|rule| rule.names.iter().any(is)),
        entangled: tests().count() > 1 && tests().any(|test| !test.op.ends_with("EQ")),
    }
}

/// Why the verdicts may differ; `None` if they may not.
fn explained(
    profile: &Seccomp,
    arch: Arch,
    (nr, args): (u32, [u64; 6]),
    (ours, theirs): (u32, u32),
) -> Option<&'static str> {
    let default = action(&profile.default_action, profile.default_errno_ret);
    let numbers = profile.syscalls.iter().flat_map(|rule| &rule.names).filter_map(|name| names::number(arch, name));
    let newest = numbers.filter(|nr| arch != Arch::Arm || *nr < names::ARM_PRIVATE).max();
    let Said { actions, mentioned, entangled } = said(profile, arch, nr, args);
    if ours == ENOSYS && theirs == default && !mentioned && newest.is_some_and(|newest| nr > newest) {
        return Some("newer than the profile");
    }
    if actions.len() > 1 && [ours, theirs].iter().all(|verdict| actions.contains(verdict)) {
        return Some("several rules match");
    }
    if entangled {
        return Some("several sets of conditions");
    }
    let wide = |value: u64| value > u64::from(u32::MAX);
    let values = profile.syscalls.iter().flat_map(|rule| &rule.args).flat_map(|arg| [arg.value, arg.value_two]);
    if arch == Arch::X32 && (args.into_iter().any(wide) || values.into_iter().any(wide)) {
        return Some("x32 at 64 bits");
    }
    None
}

/// Compares both programs on a call: why they may differ, if they do.
fn compare(
    profile: &Seccomp,
    (ours, theirs): (&[Insn], &[Insn]),
    (asked, nr, args): (Arch, u32, [u64; 6]),
) -> Result<Option<&'static str>, String> {
    let token = asked.token();
    let (mine, other) = (run(ours, token, nr, args).0, run(theirs, token, nr, args).0);
    if mine == other {
        return Ok(None);
    }
    // As the kernel would find it.
    let by_number = |arch| match (arch, nr >= X32) {
        (Arch::X86_64 | Arch::X32, true) => Arch::X32,
        (Arch::X86_64 | Arch::X32, false) => Arch::X86_64,
        _ => arch,
    };
    let arch = by_number(asked);
    match explained(profile, arch, (nr, args), (mine, other)) {
        Some(why) => Ok(Some(why)),
        None => Err(format!("{arch:?} {nr:#x} {args:x?}: ours {mine:#x}, libseccomp's {other:#x}\n{profile:#?}")),
    }
}

/// Names that both know, by the same number or not at all on each architecture of `archs`.
fn known_to_both(library: &Library, archs: &[Arch], name: &str) -> bool {
    archs.iter().all(|arch| {
        let Some(token) = token(library, *arch) else { return false };
        let theirs = library.number(token, name).and_then(|number| u32::try_from(number).ok());
        theirs == names::number(*arch, name)
    })
}

/// Names with a number of their own on each architecture.
fn keep_own_numbers(profile: &mut Seccomp, native: Arch) {
    let archs = archs(profile, native);
    for rule in &mut profile.syscalls {
        rule.names.retain(|name| archs.iter().all(|arch| names::number(*arch, name).is_some()));
    }
    profile.syscalls.retain(|rule| !rule.names.is_empty());
}

fn keep_common_names(library: &Library, profile: &mut Seccomp, native: Arch) {
    let archs = archs(profile, native);
    for rule in &mut profile.syscalls {
        rule.names.retain(|name| known_to_both(library, &archs, name));
    }
    profile.syscalls.retain(|rule| !rule.names.is_empty());
}

#[test]
fn random_profiles_get_the_verdicts_of_libseccomp() {
    let Some(library) = library() else { return };
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(400) });
    let cases = (profiles(), sample::select(NATIVE.to_vec()), collection::vec(calls(), 150));
    let (compared, tally) = (Cell::new(0), RefCell::new(BTreeMap::<_, u32>::new()));
    let outcome = runner.run(&cases, |(mut profile, native, calls)| {
        keep_common_names(&library, &mut profile, native);
        keep_own_numbers(&mut profile, native);
        let Some(theirs) = theirs(&library, &profile, native) else { return Ok(()) };
        let (filter, _) = compile_for(&profile, native).unwrap();
        compared.set(compared.get() + 1);
        for (arch, nr, args) in calls {
            for arch in [arch, native] {
                let why = compare(&profile, (&filter.program, &theirs), (arch, nr, args));
                *tally.borrow_mut().entry(why.map_err(TestCaseError::fail)?).or_default() += 1;
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        // Not the whole input: its calls, most of which don't matter, come by the hundred.
        panic!("{}", error.to_string().split("minimal failing input").next().unwrap_or_default());
    }
    let (profiles, tally) = (compared.get(), tally.into_inner());
    println!("{profiles} profiles: {tally:?}");
    assert!(profiles > 200, "libseccomp took only {profiles} of 400 profiles");
    let differ: u32 = tally.iter().filter(|(why, _)| why.is_some()).map(|(_, count)| count).sum();
    // A tenth is usual, nearly all of it calls newer than the profile; a fifth is out of a lottery's reach.
    assert!(differ * 5 < tally[&None], "too much is explained away: {tally:?}");
}

/// Every number up to 600 on each architecture of a profile, with arguments that its conditions speak of.
fn compare_whole(library: &Library, profile: &mut Seccomp, native: Arch) {
    keep_common_names(library, profile, native);
    let Some(theirs) = theirs(library, profile, native) else { panic!("libseccomp refuses the profile on {native:?}") };
    let (filter, _) = compile_for(profile, native).unwrap();
    let mut values: Vec<u64> = profile.syscalls.iter().flat_map(|rule| &rule.args).map(|arg| arg.value).collect();
    values.extend([0, 1, 2, 3, u64::from(u32::MAX)]);
    let near: Vec<u64> =
        values.iter().flat_map(|value| [value.wrapping_sub(1), *value, value.wrapping_add(1)]).collect();
    for arch in archs(profile, native) {
        let base = if arch == Arch::X32 { X32 } else { 0 };
        for nr in (base..base + 600).chain([u32::MAX, names::ARM_PRIVATE + 2]) {
            // Where no condition is about the number, two calls show as much as a hundred.
            let samples = if conditional(profile, arch, nr) { near.len() } else { 2 };
            for (index, value) in near.iter().enumerate().take(samples) {
                let mut args = [0; 6];
                args[0] = if arch.wide() { *value } else { *value & u64::from(u32::MAX) };
                args[2] = near[(index * 7 + 3) % near.len()] & u64::from(u32::MAX);
                compare(profile, (&filter.program, &theirs), (arch, nr, args)).unwrap_or_else(|why| panic!("{why}"));
            }
        }
    }
}

fn conditional(profile: &Seccomp, arch: Arch, nr: u32) -> bool {
    let mut rules = profile.syscalls.iter().filter(|rule| !rule.args.is_empty());
    let multiplexed = ["socketcall", "ipc"].iter().any(|name| names::number(arch, name) == Some(nr));
    multiplexed || rules.any(|rule| rule.names.iter().any(|name| names::number(arch, name) == Some(nr)))
}

#[test]
fn dockers_profile_gets_the_verdicts_of_libseccomp() {
    let Some(library) = library() else { return };
    let text = include_str!("../../../tests/data/seccomp/docker-default.json");
    for native in [Arch::X86_64, Arch::Aarch64, Arch::Ppc64le, Arch::Riscv64] {
        compare_whole(&library, &mut serde_json::from_str(text).unwrap(), native);
    }
}

/// The profile that Podman, Buildah and CRI-O ship. Which of its rules apply is the engine's decision (includes and
/// excludes): here those of a container without and with capabilities.
#[test]
fn the_containers_profile_gets_the_verdicts_of_libseccomp() {
    let Some(library) = library() else { return };
    let Ok(text) = std::fs::read_to_string("/usr/share/containers/seccomp.json") else {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "SKIP seccomp::oracle: no profile of containers-common on this host");
        return;
    };
    let text: serde_json::Value = serde_json::from_str(&text).unwrap();
    for capable in [false, true] {
        let applies = |rule: &&serde_json::Value| {
            let of = |key: &str| rule[key]["caps"].as_array().is_some_and(|caps| !caps.is_empty());
            if capable { !of("excludes") } else { !of("includes") }
        };
        let rules: Vec<_> = text["syscalls"].as_array().unwrap().iter().filter(applies).cloned().collect();
        let profile = serde_json::json!({
            "defaultAction": text["defaultAction"],
            "defaultErrnoRet": text["defaultErrnoRet"],
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM"],
            "syscalls": rules,
        });
        for native in [Arch::X86_64, Arch::Aarch64] {
            compare_whole(&library, &mut serde_json::from_value(profile.clone()).unwrap(), native);
        }
    }
}

/// The tables: what both know has one number.
#[test]
fn system_calls_have_the_numbers_of_libseccomp() {
    let Some(library) = library() else { return };
    for arch in arch::ALL.map(|(_, arch)| arch).into_iter().filter(|arch| names::known(*arch)) {
        let Some(token) = token(&library, arch) else { continue };
        let mut both = 0;
        for call in syscalls::x86_64::Sysno::iter().map(|call| call.name()).chain(NAMES) {
            let theirs = library.number(token, call).and_then(|number| u32::try_from(number).ok());
            if let (Some(theirs), Some(ours)) = (theirs, names::number(arch, call)) {
                assert_eq!(ours, theirs, "{call} on {arch:?}");
                both += 1;
            }
        }
        assert!(both > 200, "{arch:?}: only {both} in common");
    }
}
