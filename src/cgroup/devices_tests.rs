use proptest::prelude::*;

use super::*;

fn rule(allow: bool, kind: &str, major: Option<i64>, minor: Option<i64>, access: &str) -> DeviceRule {
    DeviceRule { allow, kind: kind.into(), major, minor, access: access.into() }
}

/// The definition: for each access the last rule that matches decides; nothing is allowed at first.
fn reference(rules: &[Rule], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
    let device = Rule { allow: true, kind: Some(kind), major: Some(major), minor: Some(minor), access };
    [READ, WRITE, MKNOD].into_iter().filter(|bit| access & bit != 0).all(|bit| {
        rules.iter().rev().find(|rule| rule.covers(&device) && rule.access & bit != 0).is_some_and(|rule| rule.allow)
    })
}

fn run(program: Option<&[Insn]>, kind: Kind, major: u32, minor: u32, access: u8) -> bool {
    let Some(program) = program else { return true };
    let bytes = program.concat();
    let vm = rbpf::EbpfVmRaw::new(Some(&bytes)).unwrap();
    let mut context = Vec::new();
    context.extend((u32::from(access) << 16 | kind as u32).to_ne_bytes());
    context.extend(major.to_ne_bytes());
    context.extend(minor.to_ne_bytes());
    vm.execute_program(&mut context).unwrap() == 1
}

/// The verifier refuses a program with an instruction that is never reached.
fn all_reachable(program: &[Insn]) -> bool {
    let mut reached = vec![false; program.len()];
    let mut todo = vec![0];
    while let Some(index) = todo.pop() {
        if std::mem::replace(&mut reached[index], true) {
            continue;
        }
        let [code, _, low, high, ..] = program[index];
        let jump = [JUMP_IF_ZERO, JUMP_IF_NOT, JUMP_IF_NOT_32, JUMP_IF_32, JUMP_IF_EQUAL, JUMP_UNLESS_EQUAL];
        if jump.contains(&code) {
            todo.push(index + 1 + usize::try_from(i16::from_ne_bytes([low, high])).unwrap());
        }
        if code == SET_LONG {
            reached[index + 1] = true;
            todo.push(index + 2);
        } else if code != EXIT {
            todo.push(index + 1);
        }
    }
    reached.iter().all(|reached| *reached)
}

/// What the kernel's v1 controller does with the writes (security/device_cgroup.c).
fn run_v1(writes: &[Write], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
    let (default, exceptions) = writes.split_first().unwrap();
    assert_eq!(default.rule, "a");
    let letter = if kind == Kind::Char { "c" } else { "b" };
    let fits = |text: &str, value: u32| text == "*" || text == value.to_string();
    let parts = exceptions.iter().map(|write| {
        let mut words = write.rule.split([' ', ':']);
        let matches =
            words.next() == Some(letter) && fits(words.next().unwrap(), major) && fits(words.next().unwrap(), minor);
        let bits = words.next().unwrap().chars().map(|c| {
            if c == 'r' {
                READ
            } else if c == 'w' {
                WRITE
            } else {
                MKNOD
            }
        });
        (matches, bits.fold(0, |all, bit| all | bit))
    });
    let parts: Vec<(bool, u8)> = parts.collect();
    if default.file == "devices.allow" {
        !parts.iter().any(|(matches, bits)| *matches && bits & access != 0)
    } else {
        // The kernel wants one exception with all of the access; opens ask for one at a time in our comparison.
        parts.iter().any(|(matches, bits)| *matches && access & !bits == 0)
    }
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let kind = prop_oneof![Just(None), Just(Some(Kind::Block)), Just(Some(Kind::Char))];
    let number = || prop_oneof![Just(None), (0_u32..3).prop_map(Some), Just(Some(u32::MAX))];
    let access = prop_oneof![3 => 1_u8..8, 2 => Just(RWM)];
    (any::<bool>(), kind, number(), number(), access).prop_map(|(allow, kind, major, minor, access)| Rule {
        allow,
        kind,
        major,
        minor,
        access,
    })
}

proptest! {
    #[test]
    fn program_agrees_with_the_definition(rules in prop::collection::vec(any_rule(), 0..8)) {
        let program = v2(&rules);
        prop_assert!(program.as_deref().is_none_or(all_reachable), "{:?}", program);
        for kind in [Kind::Block, Kind::Char] {
            for major in [0, 1, 2, 3, u32::MAX] {
                for minor in [0, 1, 2, 3, u32::MAX] {
                    for access in 1..8 {
                        let want = reference(&rules, kind, major, minor, access);
                        prop_assert_eq!(run(program.as_deref(), kind, major, minor, access), want,
                            "{:?} {}:{} {:03b}", kind, major, minor, access);
                    }
                }
            }
        }
    }

    #[test]
    fn writes_agree_with_the_definition_or_are_refused(rules in prop::collection::vec(any_rule(), 0..6)) {
        let Ok(writes) = v1(&rules) else { return Ok(()) };
        for kind in [Kind::Block, Kind::Char] {
            for major in [0, 1, 2, 3, u32::MAX] {
                for minor in [0, 1, 2, 3, u32::MAX] {
                    for access in [READ, WRITE, MKNOD] {
                        let want = reference(&rules, kind, major, minor, access);
                        prop_assert_eq!(run_v1(&writes, kind, major, minor, access), want,
                            "{:?} {}:{} {:03b}", kind, major, minor, access);
                    }
                }
            }
        }
    }
}

#[test]
fn default_list_in_writes() {
    let rules = rules(&[rule(false, "", None, None, "rwm")]).unwrap();
    let writes = v1(&rules).unwrap();
    let text: Vec<String> = writes.iter().map(|write| format!("{} {}", write.file, write.rule)).collect();
    assert_eq!(
        text,
        [
            "devices.deny a",
            "devices.allow c *:* m",
            "devices.allow b *:* m",
            "devices.allow c 1:3 rwm",
            "devices.allow c 1:8 rwm",
            "devices.allow c 1:7 rwm",
            "devices.allow c 5:0 rwm",
            "devices.allow c 1:5 rwm",
            "devices.allow c 1:9 rwm",
            "devices.allow c 136:* rwm",
            "devices.allow c 5:2 rwm",
            "devices.allow c 10:200 rwm",
        ]
    );
}

#[test]
fn rules_keep_their_order_and_wildcards() {
    let asked = [
        rule(false, "a", None, None, "rwm"),
        rule(true, "c", Some(195), Some(-1), "rw"),
        rule(true, "b", Some(8), Some(0), "r"),
    ];
    let parsed = rules(&asked).unwrap();
    let writes = v1(&parsed).unwrap();
    assert_eq!(writes[1].rule, "c 195:* rw");
    assert_eq!(writes[2].rule, "b 8:0 r");
    assert_eq!(writes.len(), 3 + DEFAULT.len());
    let program = v2(&parsed);
    assert!(run(program.as_deref(), Kind::Char, 195, 7, READ | WRITE));
    assert!(run(program.as_deref(), Kind::Char, 195, 7, READ | MKNOD));
    assert!(run(program.as_deref(), Kind::Block, 8, 0, READ));
    assert!(!run(program.as_deref(), Kind::Block, 8, 0, WRITE));
    assert!(run(program.as_deref(), Kind::Block, 8, 1, MKNOD));
    assert!(!run(program.as_deref(), Kind::Char, 1, 1, READ));
}

#[test]
fn a_later_denial_counts() {
    let asked = [rule(true, "c", Some(7), Some(7), "rwm"), rule(false, "c", Some(7), None, "rw")];
    let parsed = rules(&asked).unwrap();
    assert_eq!(v1(&parsed).unwrap()[1].rule, "c 7:7 m");
    assert!(!run(v2(&parsed).as_deref(), Kind::Char, 7, 7, READ));
}

#[test]
fn a_list_longer_than_a_jump_still_decides() {
    let many: Vec<_> = (0..3000).map(|minor| rule(true, "c", Some(7), Some(minor), "rw")).collect();
    let parsed = rules(&many).unwrap();
    let program = v2(&parsed);
    for (minor, access, want) in [(0, READ, true), (2999, WRITE, true), (3000, READ, false), (3000, MKNOD, true)] {
        assert_eq!(run(program.as_deref(), Kind::Char, 7, minor, access), want, "7:{minor} {access:03b}");
    }
    assert!(!run(program.as_deref(), Kind::Block, 7, 1, READ));
}

/// What it takes to load it grows with its length (docs/performance.md).
#[test]
fn an_engines_list_makes_a_short_program() {
    let mut asked = vec![rule(false, "", None, None, "rwm"), rule(true, "c", None, None, "m")];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)] {
        asked.push(rule(true, "c", Some(major), Some(minor), "rwm"));
    }
    asked.push(rule(true, "c", Some(136), None, "rwm"));
    let program = v2(&rules(&asked).unwrap());
    assert_eq!(program.as_ref().map(Vec::len), v2(&rules(&asked[..1]).unwrap()).as_ref().map(Vec::len));
    assert!(program.is_some_and(|program| program.len() <= 43));
}

#[test]
fn allow_all_needs_no_program() {
    let parsed = rules(&[rule(true, "a", None, None, "rwm")]).unwrap();
    assert_eq!(v2(&parsed), None);
    assert_eq!(v1(&parsed).unwrap(), [Write { file: "devices.allow", rule: "a".into() }]);
}

#[test]
fn holes_in_wildcards_are_refused_on_v1_only() {
    let asked = [rule(true, "c", Some(7), None, "rwm"), rule(false, "c", Some(7), Some(1), "w")];
    let parsed = rules(&asked).unwrap();
    let text = v1(&parsed).unwrap_err().to_string();
    assert_eq!(
        text,
        "config.json: /linux/resources/devices: rule \"c 7:1 w\" makes a hole in rule \"c 7:* rwm\", \
         which cgroup v1 can't express"
    );
    assert!(!run(v2(&parsed).as_deref(), Kind::Char, 7, 1, WRITE));
    assert!(run(v2(&parsed).as_deref(), Kind::Char, 7, 1, READ));
}

#[test]
fn errors_name_the_field() {
    for (bad, pointer) in [
        (rule(true, "c", None, None, ""), "/linux/resources/devices/1/access: empty"),
        (rule(true, "c", None, None, "rx"), "/linux/resources/devices/1/access: \"rx\""),
        (rule(true, "p", None, None, "r"), "/linux/resources/devices/1/type: \"p\""),
        (rule(true, "c", Some(-2), None, "r"), "/linux/resources/devices/1/major: -2"),
        (rule(true, "c", None, Some(1 << 40), "r"), "/linux/resources/devices/1/minor: 1099511627776"),
    ] {
        let error = rules(&[rule(false, "a", None, None, "rwm"), bad]).unwrap_err().to_string();
        assert!(error.contains(pointer), "{error}");
    }
}
