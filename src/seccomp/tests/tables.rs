//! Expected verdicts written out, one test a promise, and the budgets of size, depth and time.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{ALLOW, ENOSYS, KILL, X32, X86_64, action, check, errno, reference, run};
use crate::error::Invalid;
use crate::seccomp::arch::Arch;
use crate::seccomp::{Insn, compile, compile_for, names};
use crate::spec::Seccomp;

const I386: u32 = 0x4000_0003;

fn parse(json: serde_json::Value) -> Seccomp {
    serde_json::from_value(json).unwrap()
}

/// The verdict on x86_64 for a machine of that kind.
fn decide(profile: &Seccomp, nr: u32, args: [u64; 6]) -> u32 {
    on(profile, X86_64, nr, args)
}

fn on(profile: &Seccomp, token: u32, nr: u32, args: [u64; 6]) -> u32 {
    let (filter, _) = compile_for(profile, Arch::X86_64).unwrap();
    check(&filter.program);
    run(&filter.program, token, nr, args).0
}

fn first(arg: u64) -> [u64; 6] {
    [arg, 0, 0, 0, 0, 0]
}

const NONE: [u64; 6] = [0; 6];

#[test]
fn each_action_has_its_return_value() {
    let table = [
        ("SCMP_ACT_KILL", None, 0),
        ("SCMP_ACT_KILL_THREAD", None, 0),
        ("SCMP_ACT_KILL_PROCESS", None, 0x8000_0000),
        ("SCMP_ACT_TRAP", None, 0x0003_0000),
        ("SCMP_ACT_ERRNO", None, 0x0005_0001),
        ("SCMP_ACT_ERRNO", Some(38), 0x0005_0026),
        ("SCMP_ACT_ERRNO", Some(0), 0x0005_0000),
        ("SCMP_ACT_TRACE", None, 0x7ff0_0001),
        ("SCMP_ACT_TRACE", Some(7), 0x7ff0_0007),
        ("SCMP_ACT_LOG", None, 0x7ffc_0000),
        ("SCMP_ACT_ALLOW", None, 0x7fff_0000),
    ];
    for (action, number, expected) in table {
        let rule = parse(json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 99,
            "syscalls": [{"names": ["write"], "action": action, "errnoRet": number}]}));
        assert_eq!(decide(&rule, 1, NONE), expected, "{action} {number:?}");
        assert_eq!(decide(&rule, 0, NONE), errno(99));
        let default = parse(json!({"defaultAction": action, "defaultErrnoRet": number}));
        assert_eq!(decide(&default, 1, NONE), expected, "default {action} {number:?}");
    }
}

#[test]
fn each_operator_compares_64_bits() {
    let five = (5 << 32) + 5;
    let (below, above, low_only) = ((5 << 32) + 4, (5 << 32) + 6, 5);
    let table = [
        ("SCMP_CMP_EQ", vec![five], vec![below, above, low_only, 5 << 32]),
        ("SCMP_CMP_NE", vec![below, above, low_only, 5 << 32], vec![five]),
        ("SCMP_CMP_LT", vec![below, (4 << 32) + 9, 0], vec![five, above, 6 << 32, u64::MAX]),
        ("SCMP_CMP_LE", vec![below, five, (4 << 32) + 9, 0], vec![above, 6 << 32, u64::MAX]),
        ("SCMP_CMP_GE", vec![five, above, 6 << 32, u64::MAX], vec![below, (4 << 32) + 9, 0]),
        ("SCMP_CMP_GT", vec![above, 6 << 32, u64::MAX], vec![five, below, (4 << 32) + 9, 0]),
    ];
    for (op, holding, failing) in table {
        for index in 0..6 {
            let profile = parse(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                {"names": ["mmap"], "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": index, "value": five, "op": op}]}]}));
            let with = |value| {
                let mut args = NONE;
                args[index] = value;
                args
            };
            for value in &holding {
                assert_eq!(decide(&profile, 9, with(*value)), ALLOW, "{value:#x} {op} argument {index}");
            }
            for value in &failing {
                assert_eq!(decide(&profile, 9, with(*value)), errno(1), "{value:#x} {op} argument {index}");
            }
        }
    }
}

#[test]
fn masked_eq_has_the_mask_in_value_and_the_datum_in_value_two() {
    let mask = |mask: u64, datum: u64| {
        parse(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["mmap"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": mask, "valueTwo": datum, "op": "SCMP_CMP_MASKED_EQ"}]}]}))
    };
    let table = [
        (0x7e02_0000, 0, 0x11, ALLOW),
        (0x7e02_0000, 0, 0x1000_0000, errno(1)),
        (0xf0, 0x30, 0xffff_0000_0000_0f3f, ALLOW),
        (0xf0, 0x30, 0x40, errno(1)),
        (0xf_0000_0000, 0x5_0000_0000, 0xf5_1234_5678, ALLOW),
        (0xf_0000_0000, 0x5_0000_0000, 0xf6_1234_5678, errno(1)),
        (0x1_0000_0001, 0x1_0000_0001, 1, errno(1)),
        // libseccomp masks the datum too.
        (0xf0, 0xff, 0xf0, ALLOW),
        (0, 7, 3, ALLOW),
    ];
    for (bits, datum, arg, expected) in table {
        assert_eq!(decide(&mask(bits, datum), 9, first(arg)), expected, "{arg:#x} & {bits:#x} == {datum:#x}");
    }
}

#[test]
fn values_of_one_argument_are_told_apart_by_both_halves() {
    let high = 1 << 32;
    let rule = |errno: u32, value: u64| {
        json!({"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno,
            "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]})
    };
    // Two upper halves, one of them twice, and a rule that is there twice.
    let rules = [rule(5, 8), rule(6, 9), rule(7, high + 8), rule(5, 8), rule(8, 10), rule(9, 8)];
    let profile = parse(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}));
    let table =
        [(8, errno(5)), (9, errno(6)), (10, errno(8)), (high + 8, errno(7)), (high + 9, ALLOW), (high + 10, ALLOW)];
    for (value, expected) in table {
        assert_eq!(decide(&profile, 135, first(value)), expected, "{value:#x}");
    }
    assert_eq!(decide(&profile, 135, first(11)), ALLOW);
    assert_eq!(decide(&profile, 135, first(2 * high + 8)), ALLOW);
}

#[test]
fn conditions_are_anded_but_split_over_one_argument() {
    let eq = |index: u32, value: u64| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
    let profile = |args: &[serde_json::Value]| {
        parse(json!({"defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["mmap"], "action": "SCMP_ACT_ALLOW", "args": args}]}))
    };
    let both = profile(&[eq(0, 1), eq(1, 2)]);
    assert_eq!(decide(&both, 9, [1, 2, 0, 0, 0, 0]), ALLOW);
    assert_eq!(decide(&both, 9, [1, 3, 0, 0, 0, 0]), errno(1));
    assert_eq!(decide(&both, 9, [0, 2, 0, 0, 0, 0]), errno(1));
    let split = profile(&[eq(0, 1), eq(0, 2), eq(1, 3)]);
    for args in [[1, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0], [0, 3, 0, 0, 0, 0]] {
        assert_eq!(decide(&split, 9, args), ALLOW, "{args:?}");
    }
    assert_eq!(decide(&split, 9, NONE), errno(1));
}

#[test]
fn unconditional_rules_win_and_else_the_first_match() {
    let rule = |number: u32, args: serde_json::Value| json!({"names": ["mmap"], "action": "SCMP_ACT_ERRNO", "errnoRet": number, "args": args});
    let one = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]);
    let any = json!([{"index": 0, "value": 0, "op": "SCMP_CMP_GE"}]);
    let profile = |rules: &[serde_json::Value]| parse(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}));
    let none = serde_json::Value::Array(Vec::new());
    let last = profile(&[rule(5, one.clone()), rule(6, none.clone()), rule(7, none)]);
    assert_eq!(decide(&last, 9, first(1)), errno(6));
    let ordered = profile(&[rule(5, one.clone()), rule(6, any.clone())]);
    assert_eq!(decide(&ordered, 9, first(1)), errno(5));
    assert_eq!(decide(&ordered, 9, first(2)), errno(6));
    let reverse = profile(&[rule(6, any), rule(5, one.clone())]);
    assert_eq!(decide(&reverse, 9, first(1)), errno(6));
    // A rule with the default's action isn't there at all.
    let default = parse(json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 2, "syscalls": [
        {"names": ["mmap"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2},
        {"names": ["mmap"], "action": "SCMP_ACT_ALLOW", "args": one}]}));
    assert_eq!(decide(&default, 9, first(1)), ALLOW);
}

#[test]
fn x32_and_foreign_architectures_are_killed_unless_named() {
    let deny = |archs: &[&str]| {
        parse(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": archs,
            "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_ERRNO"}]}))
    };
    let native = deny(&[]);
    assert_eq!(decide(&native, 59, NONE), errno(1));
    assert_eq!(decide(&native, X32 | 520, NONE), KILL);
    assert_eq!(decide(&native, X32, NONE), KILL);
    assert_eq!(decide(&native, 0x8000_0000, NONE), KILL);
    assert_eq!(decide(&native, X32 - 1, NONE), ALLOW);
    assert_eq!(decide(&native, u32::MAX, NONE), ALLOW);
    assert_eq!(on(&native, I386, 11, NONE), KILL);
    let all = deny(&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    assert_eq!(decide(&all, 59, NONE), errno(1));
    assert_eq!(decide(&all, X32 | 520, NONE), errno(1));
    assert_eq!(decide(&all, X32, NONE), ALLOW);
    assert_eq!(on(&all, I386, 11, NONE), errno(1));
    assert_eq!(on(&all, I386, 59, NONE), ALLOW);
}

#[test]
fn arguments_are_32_bits_wide_on_32_bit_architectures() {
    let profile = parse(json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": u64::MAX, "op": "SCMP_CMP_EQ"}]}]}));
    assert_eq!(on(&profile, I386, 136, first(0xffff_ffff)), ALLOW);
    assert_eq!(decide(&profile, 135, first(0xffff_ffff)), errno(1));
    assert_eq!(decide(&profile, 135, first(u64::MAX)), ALLOW);
    assert_eq!(decide(&profile, X32 | 135, first(0xffff_ffff)), errno(1));
}

#[test]
fn multiplexed_calls_follow_the_rules_of_what_they_carry() {
    let deny = parse(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
        {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 9,
            "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]},
        {"names": ["bind"], "action": "SCMP_ACT_ERRNO", "errnoRet": 6,
            "args": [{"index": 1, "value": 5, "op": "SCMP_CMP_EQ"}]},
        {"names": ["accept", "shmget"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7}]}));
    // (i386 number, arguments, verdict): direct, then through socketcall (102) and ipc (117).
    let table = [
        (359, [40, 0], errno(9)),
        (359, [41, 0], ALLOW),
        (361, [0, 5], errno(6)),
        (395, [0, 0], errno(7)),
        (102, [1, 40], errno(9)),
        (102, [2, 5], errno(6)),
        (102, [2, 6], ALLOW),
        (102, [3, 0], ALLOW),
        (102, [5, 0], errno(7)),
        (117, [23, 0], errno(7)),
        (117, [0x1_0017, 0], errno(7)),
        (117, [21, 0], ALLOW),
    ];
    for (nr, [a, b], expected) in table {
        assert_eq!(on(&deny, I386, nr, [a, b, 0, 0, 0, 0]), expected, "{nr}({a}, {b})");
    }
    let allow = parse(json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
        {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 9},
        {"names": ["socketcall"], "action": "SCMP_ACT_ALLOW"}]}));
    assert_eq!(on(&allow, I386, 102, first(1)), ALLOW);
}

#[test]
fn calls_newer_than_the_profile_answer_enosys() {
    let profile = |default: &str| {
        parse(json!({"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
            "syscalls": [
                {"names": ["read", "statx"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["rseq"], "action": default}]}))
    };
    for default in ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        let profile = profile(default);
        let refused = action(default, None);
        // rseq is 334; what is skipped for having the default's action counts all the same, as in runc.
        let table = [(0, ALLOW), (1, refused), (332, ALLOW), (334, refused), (335, ENOSYS), (435, ENOSYS)];
        for (nr, expected) in table {
            assert_eq!(decide(&profile, nr, NONE), expected, "{default} {nr}");
            assert_eq!(decide(&profile, X32 | nr, NONE), expected, "{default} x32 {nr}");
            // Without x32's bit they are those of calls, but there is another bit.
            for high in [0x8000_0000, 0xc000_0000] {
                assert_eq!(decide(&profile, high | nr, NONE), ENOSYS, "{default} {high:#x} + {nr}");
            }
        }
    }
    for default in ["SCMP_ACT_LOG", "SCMP_ACT_TRACE"] {
        assert_eq!(decide(&profile(default), 435, NONE), action(default, None));
    }
    let empty = parse(json!({"defaultAction": "SCMP_ACT_ERRNO"}));
    assert_eq!(decide(&empty, 435, NONE), errno(1));
}

#[test]
fn numbers_are_those_of_the_kernel() {
    let table = [
        (Arch::X86_64, "read", 0),
        (Arch::X86_64, "file_setattr", 469),
        (Arch::X86, "execve", 11),
        (Arch::X32, "execve", X32 | 520),
        (Arch::X32, "read", X32),
        (Arch::Aarch64, "openat", 56),
        (Arch::Aarch64, "newfstatat", 79),
        (Arch::Arm, "set_tls", 0x000f_0005),
        (Arch::Arm, "arm_sync_file_range", 341),
        (Arch::Riscv64, "riscv_flush_icache", 259),
        (Arch::Loongarch64, "clone3", 435),
        (Arch::S390x, "clone", 120),
        (Arch::Ppc64le, "swapcontext", 249),
        (Arch::Ppc, "recv", 336),
        (Arch::Mips, "open", 4005),
        (Arch::Mipsel64, "open", 5002),
    ];
    for (arch, name, number) in table {
        assert_eq!(names::number(arch, name), Some(number), "{arch:?} {name}");
    }
    assert_eq!(names::number(Arch::X32, "uselib"), None);
    assert_eq!(names::number(Arch::X86_64, "socketcall"), None);
    assert_eq!(names::number(Arch::X86_64, ""), None);
    assert_eq!(names::number(Arch::S390, "read"), None);
}

/// The pointer and the text of the error that a profile gives.
fn refused(json: serde_json::Value) -> (String, String) {
    let error = compile_for(&parse(json), Arch::X86_64).unwrap_err();
    let invalid = error.downcast_ref::<Invalid>().unwrap();
    (invalid.pointer.clone(), invalid.what.clone())
}

/// Checks where an error points and how it starts.
fn assert_refused(table: &[(serde_json::Value, &str, &str)]) {
    for (json, pointer, text) in table {
        let (at, what) = refused(json.clone());
        assert_eq!(at, *pointer, "{json}");
        assert!(what.starts_with(text), "{json}: {what}");
    }
}

#[test]
fn errors_name_the_property_and_what_was_expected() {
    assert_refused(&[
        (
            json!({"defaultAction": "SCMP_ACT_DENY"}),
            "/linux/seccomp/defaultAction",
            "action \"SCMP_ACT_DENY\" is unknown, expected one of SCMP_ACT_KILL, ",
        ),
        (json!({}), "/linux/seccomp/defaultAction", "action \"\" is unknown"),
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/run/agent"}),
            "/linux/seccomp/defaultAction",
            "SCMP_ACT_NOTIFY cannot be used as default action",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 1}),
            "/linux/seccomp/defaultErrnoRet",
            "1 has no meaning with SCMP_ACT_KILL",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_KILL", "architectures": ["SCMP_ARCH_X86", "x86"]}),
            "/linux/seccomp/architectures/1",
            "architecture \"x86\" is unknown, expected one of SCMP_ARCH_X86, ",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_KILL", "flags": ["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}),
            "/linux/seccomp/flags/0",
            "flag \"SECCOMP_FILTER_FLAG_NEW_LISTENER\" is unknown, expected one of SECCOMP_FILTER_FLAG_TSYNC, ",
        ),
    ]);
}

#[test]
fn errors_in_rules_name_the_property_too() {
    let rule = |rule: serde_json::Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    let with = |action: &str, errno: Option<u32>| rule(json!({"names": ["read"], "action": action, "errnoRet": errno}));
    let arg = |index: u32, op: &str| {
        let args = [json!({"index": index, "value": 1, "op": op})];
        rule(json!({"names": ["read"], "action": "SCMP_ACT_KILL", "args": args}))
    };
    let empty = rule(json!({"names": ["read", ""], "action": "SCMP_ACT_KILL"}));
    let at = |property: &str| format!("/linux/seccomp/syscalls/0/{property}");
    assert_refused(&[
        (with("SCMP_ACT_NOTIFY", None), "/linux/seccomp/listenerPath", "is not set, SCMP_ACT_NOTIFY needs a listener"),
        (with("SCMP_ACT_NOTIFY", Some(3)), &at("errnoRet"), "3 has no meaning with SCMP_ACT_NOTIFY"),
        (with("ALLOW", None), &at("action"), "action \"ALLOW\" is unknown"),
        (
            with("SCMP_ACT_TRAP", Some(3)),
            &at("errnoRet"),
            "3 has no meaning with SCMP_ACT_TRAP, expected SCMP_ACT_ERRNO or SCMP_ACT_TRACE",
        ),
        (with("SCMP_ACT_ERRNO", Some(4096)), &at("errnoRet"), "4096 is too large, expected at most 4095"),
        (with("SCMP_ACT_TRACE", Some(65536)), &at("errnoRet"), "65536 is too large, expected at most 65535"),
        (empty, &at("names/1"), "\"\" is empty"),
        (arg(0, "EQ"), &at("args/0/op"), "operator \"EQ\" is unknown, expected one of SCMP_CMP_NE, "),
        (arg(6, "SCMP_CMP_EQ"), &at("args/0/index"), "6 is no argument, expected 0 to 5"),
    ]);
}

#[test]
fn flags_default_to_spec_allow() {
    let flags = |json: serde_json::Value| {
        let profile = parse(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": json}));
        compile_for(&profile, Arch::X86_64).map(|(filter, warnings)| (filter.flags, warnings.len())).unwrap()
    };
    assert_eq!(flags(serde_json::Value::Null), (4, 0));
    assert_eq!(flags(json!([])), (0, 0));
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_TSYNC"])), (0, 0));
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"])), (6, 0));
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])), (0, 1));
}

#[test]
fn a_rule_that_notifies_asks_for_a_listener() {
    let filter = |flags: serde_json::Value| {
        let profile = parse(json!({"defaultAction": "SCMP_ACT_ERRNO", "flags": flags, "listenerPath": "/a",
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}));
        compile_for(&profile, Arch::X86_64).unwrap()
    };
    let (it, warnings) = filter(serde_json::Value::Null);
    assert_eq!((it.flags, it.notifies(), it.waits_killable(), it.deadly, warnings.len()), (12, true, false, true, 0));
    assert_eq!(run(&it.program, Arch::X86_64.token(), 0, NONE).0, 0x7fc0_0000);
    let (it, warnings) = filter(json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]));
    assert_eq!((it.flags, it.notifies(), it.waits_killable(), warnings.len()), (40, true, true, 0));
}

#[test]
fn a_listener_without_a_rule_is_told_of_and_metadata_without_a_listener_refused() {
    let parse = |more: serde_json::Value| {
        let mut json = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        compile_for(&parse(json), Arch::X86_64)
    };
    let (filter, warnings) = parse(json!({"listenerPath": "/a", "listenerMetadata": "m"})).unwrap();
    assert_eq!((filter.notifies(), warnings.len()), (false, 1));
    for (more, pointer) in [
        (json!({"listenerMetadata": "m"}), "/linux/seccomp/listenerMetadata: is set without"),
        (json!({"listenerPath": "a"}), "/linux/seccomp/listenerPath: \"a\", expected the absolute"),
        (json!({"listenerPath": "/a\0"}), "/linux/seccomp/listenerPath: \"/a\\0\", expected the absolute"),
    ] {
        let error = parse(more).unwrap_err().to_string();
        assert!(error.contains(pointer), "{error}");
    }
}

#[test]
fn unknown_names_and_architectures_without_a_table_are_told_of() {
    let profile =
        parse(json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_S390", "SCMP_ARCH_X86"],
        "syscalls": [{"names": ["read", "socketcall", "frobnicate"], "action": "SCMP_ACT_ALLOW"}]}));
    let (_, warnings) = compile_for(&profile, Arch::X86_64).unwrap();
    assert_eq!(warnings, ["seccomp: unknown system calls, skipped: frobnicate"]);
    let (filter, warnings) = compile_for(&profile, Arch::S390x).unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_eq!(run(&filter.program, Arch::S390.token(), 3, NONE).0, KILL);
}

/// `count` rules about one call, each with its own errno.
fn many(count: u32) -> Seccomp {
    let rules: Vec<_> = (0..count)
        .map(|i| {
            json!({"names": ["mmap"], "action": "SCMP_ACT_ERRNO", "errnoRet": i + 2, "args": [
                {"index": 0, "value": i, "op": "SCMP_CMP_EQ"}, {"index": 5, "value": 7, "op": "SCMP_CMP_LT"}]})
        })
        .collect();
    parse(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": rules}))
}

#[test]
fn jumps_beyond_255_instructions() {
    let profile = many(200);
    let (filter, _) = compile_for(&profile, Arch::X86_64).unwrap();
    check(&filter.program);
    assert!(filter.program.len() > 2000);
    assert!(filter.program.iter().any(|insn| insn.code == 0x05 && insn.k > 255), "no long jump");
    for i in 0..200 {
        assert_eq!(run(&filter.program, X86_64, 9, first(i.into())).0, errno(i + 2));
        assert_eq!(run(&filter.program, I386, 90, first(i.into())).0, errno(i + 2));
        assert_eq!(run(&filter.program, X86_64, 9, [i.into(), 0, 0, 0, 0, 7]).0, ALLOW);
    }
    for nr in [0, 8, 10, 400, X32 - 1] {
        assert_eq!(run(&filter.program, X86_64, nr, NONE).0, ALLOW);
    }
}

#[test]
fn more_than_4096_instructions_are_an_error() {
    let error = compile_for(&many(600), Arch::X86_64).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("config.json: /linux/seccomp/syscalls: needs "), "{text}");
    assert!(text.ends_with("BPF instructions, the kernel takes at most 4096"), "{text}");
}

/// Written for these tests in the shape of Docker's default profile, and about as long.
fn docker() -> Seccomp {
    serde_json::from_str(include_str!("../../../tests/data/seccomp/docker-default.json")).unwrap()
}

#[test]
fn docker_default_is_small_shallow_and_right() {
    let profile = docker();
    let (filter, _) = compile_for(&profile, Arch::X86_64).unwrap();
    check(&filter.program);
    let mut deepest = 0;
    for token in [X86_64, I386] {
        for nr in (0..700).chain(X32..X32 + 700).chain([X32 - 1, u32::MAX - 1, u32::MAX]) {
            for arg in [0, 1, 8, 40, 0xffff_ffff, 0x7e02_0000, u64::MAX] {
                let (verdict, steps) = run(&filter.program, token, nr, first(arg));
                assert_eq!(
                    verdict,
                    reference(&profile, Arch::X86_64, token, nr, first(arg)),
                    "{token:#x} {nr:#x} {arg:#x}"
                );
                let tested = ["clone", "socket", "personality"].iter().any(|name| {
                    [Arch::X86_64, Arch::X86, Arch::X32].iter().any(|arch| names::number(*arch, name) == Some(nr))
                });
                deepest = if tested { deepest } else { deepest.max(steps) };
            }
        }
    }
    let loading = loading(&filter.program);
    println!("{} instructions, {deepest} deep, {loading} steps to load", filter.program.len());
    assert!(filter.program.len() < 1200, "{} instructions", filter.program.len());
    assert!(deepest <= 24, "{deepest} deep");
    // What loading it costs (docs/performance.md): 225 and 11,100 when this was written.
    assert!(filter.program.len() <= 240, "{} instructions", filter.program.len());
    assert!(loading <= 11_500, "{loading} steps to load");
}

/// The instructions that the kernel interprets when it loads a program: `seccomp_cache_prepare` runs it for each number
/// of the native and of the compat architecture, 470 each in Linux 6.18, to learn which are allowed at once.
fn loading(program: &[Insn]) -> usize {
    [X86_64, I386].iter().flat_map(|token| (0..470).map(|nr| run(program, *token, nr, NONE).1)).sum()
}

/// Optimised builds only (`cargo test --release`): the promise is about those.
#[test]
fn docker_default_compiles_in_200_microseconds() {
    let profile = docker();
    let best = (0..50).map(|_| {
        let start = Instant::now();
        compile(&profile).unwrap();
        start.elapsed()
    });
    let best = best.min().unwrap();
    println!("compiled in {best:?}");
    assert!(cfg!(debug_assertions) || best < Duration::from_micros(200), "{best:?}");
}
