//! Device rules, pure: config.json's list to writes for v1's device controller and to an eBPF program for v2.
//!
//! Meaning of a list: nothing is allowed at first; then, for each of read, write and mknod, the last rule that
//! matches the device decides. v1 keeps a default and a set of exceptions, which can't say everything that a list
//! can; what it can't is an error, not an approximation (runc's emulator is as strict about holes in wildcards,
//! and leaves in place an exception that a later and wider rule takes back; here it is taken back).

use anyhow::Result;

use crate::error::invalid;
use crate::spec::DeviceRule;

/// Bits of access, as the kernel numbers them (BPF_DEVCG_ACC_*).
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const RWM: u8 = READ | WRITE | MKNOD;

/// BPF_DEVCG_DEV_*.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Block = 1,
    Char = 2,
}

/// A rule; `None` is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    allow: bool,
    kind: Option<Kind>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

const fn allow(kind: Kind, major: Option<u32>, minor: Option<u32>, access: u8) -> Rule {
    Rule { allow: true, kind: Some(kind), major, minor, access }
}

/// Everything is allowed: what a v1 cgroup holds when an eBPF program does the work.
pub(crate) const ANYTHING: Rule = Rule { allow: true, kind: None, major: None, minor: None, access: RWM };

/// What every container may use, whatever its rules say. runc's list, in its order and, as there, after the rules
/// of config.json, so that they can't take it away: mknod of anything, null, random, full, tty, zero, urandom,
/// pts, ptmx, and tun (taken out in runc 1.2.0, put back in 1.2.4 because too much broke).
const DEFAULT: [Rule; 11] = [
    allow(Kind::Char, None, None, MKNOD),
    allow(Kind::Block, None, None, MKNOD),
    allow(Kind::Char, Some(1), Some(3), RWM),
    allow(Kind::Char, Some(1), Some(8), RWM),
    allow(Kind::Char, Some(1), Some(7), RWM),
    allow(Kind::Char, Some(5), Some(0), RWM),
    allow(Kind::Char, Some(1), Some(5), RWM),
    allow(Kind::Char, Some(1), Some(9), RWM),
    allow(Kind::Char, Some(136), None, RWM),
    allow(Kind::Char, Some(5), Some(2), RWM),
    allow(Kind::Char, Some(10), Some(200), RWM),
];

/// config.json's rules and the default ones after them.
pub(crate) fn rules(asked: &[DeviceRule]) -> Result<Vec<Rule>> {
    let asked = asked.iter().enumerate().map(|(index, rule)| {
        parse(rule).map_err(|(field, what)| invalid(format!("/linux/resources/devices/{index}/{field}"), what))
    });
    asked.chain(DEFAULT.iter().copied().map(Ok)).collect()
}

fn parse(rule: &DeviceRule) -> Result<Rule, (&'static str, String)> {
    let kind = match rule.kind.as_str() {
        "" | "a" => None,
        "b" => Some(Kind::Block),
        "c" => Some(Kind::Char),
        other => return Err(("type", format!("{other:?}, expected \"a\", \"b\" or \"c\""))),
    };
    let mut access = 0;
    for letter in rule.access.chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => return Err(("access", format!("{:?}, expected letters of \"rwm\"", rule.access))),
        };
    }
    if access == 0 {
        return Err(("access", "empty, expected letters of \"rwm\"".into()));
    }
    Ok(Rule {
        allow: rule.allow,
        kind,
        major: number("major", rule.major)?,
        minor: number("minor", rule.minor)?,
        access,
    })
}

fn number(field: &'static str, value: Option<i64>) -> Result<Option<u32>, (&'static str, String)> {
    match value {
        None | Some(-1) => Ok(None),
        Some(value) => {
            u32::try_from(value).map(Some).map_err(|_| (field, format!("{value}, expected a number of 32 bits or -1")))
        }
    }
}

impl Rule {
    /// Every device and every access: what comes before it in a list has no effect.
    fn is_reset(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access == RWM
    }

    /// Whether nothing is left to decide for `earlier` in the same list.
    fn decides(&self, earlier: &Rule) -> bool {
        self.covers(earlier) && earlier.access & !self.access == 0
    }

    fn overlaps(&self, other: &Rule) -> bool {
        fn meet<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        meet(self.kind, other.kind) && meet(self.major, other.major) && meet(self.minor, other.minor)
    }

    /// Whether it matches every device that `other` does.
    fn covers(&self, other: &Rule) -> bool {
        fn holds<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
            a.is_none() || a == b
        }
        holds(self.kind, other.kind) && holds(self.major, other.major) && holds(self.minor, other.minor)
    }

    /// As v1 spells it: `c 1:3 rwm`.
    fn text(&self) -> String {
        let kind = match self.kind {
            None => 'a',
            Some(Kind::Block) => 'b',
            Some(Kind::Char) => 'c',
        };
        let number = |value: Option<u32>| value.map_or_else(|| "*".to_owned(), |value| value.to_string());
        let mut text = format!("{kind} {}:{} ", number(self.major), number(self.minor));
        let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
        text.extend(letters.iter().filter(|(bit, _)| self.access & bit != 0).map(|(_, letter)| letter));
        text
    }
}

/// A write to v1's device controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    /// `devices.allow` or `devices.deny`.
    pub(crate) file: &'static str,
    pub(crate) rule: String,
}

/// The fewest writes that make a v1 cgroup, whatever it holds, enforce the list: the default, then the exceptions.
/// The kernel takes one rule a write. Equal neighbours of `file` can share a descriptor.
pub(crate) fn v1(rules: &[Rule]) -> Result<Vec<Write>> {
    let List { default_allow, exceptions } = List::new(rules)?;
    let mut writes = vec![Write { file: file(default_allow), rule: "a".into() }];
    writes.extend(exceptions.iter().map(|rule| Write { file: file(!default_allow), rule: rule.text() }));
    Ok(writes)
}

/// The writes that make a v1 cgroup which enforces `old` enforce `new`, while processes run in it: what either list
/// forbids is never allowed on the way, and what both allow is never forbidden, but where the default changes to
/// forbidding. An error if there is no such way.
pub(crate) fn v1_change(old: &[Rule], new: &[Rule]) -> Result<Vec<Write>> {
    let (before, after) = (List::new(old)?, List::new(new)?);
    if before.default_allow != after.default_allow {
        if after.default_allow && !after.exceptions.is_empty() {
            let what = "a list that allows everything but some: on cgroup v1 a running container can't change to it \
                        without a moment in which everything is allowed";
            return Err(invalid("/linux/resources/devices", what));
        }
        return v1(new);
    }
    let part = |from: &List, other: &List| -> Vec<Rule> {
        let left = from.exceptions.iter().map(|rule| {
            let had = other.exceptions.iter().find(|had| had.covers(rule) && rule.covers(had));
            Rule { access: rule.access & !had.map_or(0, |had| had.access), ..*rule }
        });
        left.filter(|rule| rule.access != 0).collect()
    };
    let default = after.default_allow;
    let write = |rule: &Rule, allow: bool| Write { file: file(allow), rule: rule.text() };
    let added = part(&after, &before);
    let removed = part(&before, &after);
    Ok(added.iter().map(|rule| write(rule, !default)).chain(removed.iter().map(|rule| write(rule, default))).collect())
}

fn file(allow: bool) -> &'static str {
    if allow { "devices.allow" } else { "devices.deny" }
}

/// A list as v1 keeps it.
struct List {
    default_allow: bool,
    /// With a kind each, none twice.
    exceptions: Vec<Rule>,
}

impl List {
    fn new(rules: &[Rule]) -> Result<Self> {
        let mut default_allow = false;
        let mut exceptions: Vec<Rule> = Vec::new();
        for rule in rules {
            if rule.is_reset() {
                default_allow = rule.allow;
                exceptions.clear();
                continue;
            }
            // To the kernel a rule of type `a` is always "everything", so one that isn't becomes two.
            let kinds = rule.kind.map_or_else(|| vec![Kind::Char, Kind::Block], |kind| vec![kind]);
            for kind in kinds {
                let rule = Rule { kind: Some(kind), ..*rule };
                if rule.allow == default_allow {
                    take_back(&mut exceptions, &rule)?
                } else {
                    add(&mut exceptions, rule)
                }
            }
        }
        Ok(Self { default_allow, exceptions })
    }
}

fn add(exceptions: &mut Vec<Rule>, rule: Rule) {
    match exceptions.iter_mut().find(|had| had.covers(&rule) && rule.covers(had)) {
        Some(had) => had.access |= rule.access,
        None => exceptions.push(rule),
    }
}

fn take_back(exceptions: &mut Vec<Rule>, rule: &Rule) -> Result<()> {
    for had in exceptions.iter_mut().filter(|had| rule.overlaps(had) && had.access & rule.access != 0) {
        if !rule.covers(had) {
            let (new, old) = (rule.text(), had.text());
            let what = format!("rule \"{new}\" makes a hole in rule \"{old}\", which cgroup v1 can't express");
            return Err(invalid("/linux/resources/devices", what));
        }
        had.access &= !rule.access;
    }
    exceptions.retain(|had| had.access != 0);
    Ok(())
}

// eBPF: registers and opcodes (include/uapi/linux/bpf.h).
const R0: u8 = 0;
const R1: u8 = 1;
const TYPE: u8 = 2;
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
/// Major and minor in one.
const DEVICE: u8 = 6;
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const SET: u8 = 0xb7;
const AND: u8 = 0x57;
const OR: u8 = 0x4f;
const SHIFT_LEFT: u8 = 0x67;
const SHIFT_RIGHT: u8 = 0x77;
/// Of 64 bits: the upper half is that of an instruction of its own.
const SET_LONG: u8 = 0x18;
const JUMP_IF_ZERO: u8 = 0x15;
const JUMP_IF_NOT: u8 = 0x55;
const JUMP_IF_NOT_32: u8 = 0x56;
const JUMP_IF_32: u8 = 0x16;
const JUMP_IF_EQUAL: u8 = 0x1d;
const JUMP_UNLESS_EQUAL: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// One eBPF instruction, as the kernel lays it out.
pub(crate) type Insn = [u8; 8];

fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
    let registers = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
    let (off, imm) = (off.to_ne_bytes(), imm.to_ne_bytes());
    [code, registers, off[0], off[1], imm[0], imm[1], imm[2], imm[3]]
}

/// So many rules share a test of the type at most: a jump over them, 8 instructions each, has 16 bits.
const GROUP: usize = 1000;

/// Up to so many rules share the end of the program, for the same reason.
const SHARED: usize = 4000;

/// A program of type BPF_PROG_TYPE_CGROUP_DEVICE that enforces the list; none if it allows everything.
///
/// It goes through the rules from the last to the first and keeps in a register which accesses no rule has decided
/// yet: a rule that denies one of them ends it, a rule that allows strikes its own out, and it's done when none is
/// left. What it takes to load it is the verifier's time, which grows with the conditional jumps: rules that later ones
/// make idle are left out, neighbours of one type share its test, those that decide all share where they do, and the two
/// numbers are compared as one.
pub(crate) fn v2(rules: &[Rule]) -> Option<Vec<Insn>> {
    let last_reset = rules.iter().rposition(Rule::is_reset);
    let reset_allows = last_reset.and_then(|index| rules.get(index)).is_some_and(|rule| rule.allow);
    let backwards = effective(rules.get(last_reset.map_or(0, |index| index + 1)..).unwrap_or_default());
    if reset_allows && backwards.iter().all(|rule| rule.allow) {
        return None;
    }
    // struct bpf_cgroup_dev_ctx: access << 16 | type, major, minor.
    let mut program = vec![
        insn(LOAD_WORD, TYPE, R1, 0, 0),
        insn(MOVE, WANTED, TYPE, 0, 0),
        insn(SHIFT_RIGHT, WANTED, 0, 0, 16),
        insn(AND, TYPE, 0, 0, 0xffff),
        insn(LOAD_WORD, MAJOR, R1, 4, 0),
        insn(LOAD_WORD, MINOR, R1, 8, 0),
        insn(MOVE, DEVICE, MAJOR, 0, 0),
        insn(SHIFT_LEFT, DEVICE, 0, 0, 32),
        insn(OR, DEVICE, MINOR, 0, 0),
    ];
    let shared = (backwards.len() <= SHARED).then_some(!reset_allows);
    let mut to_end = Vec::new();
    for group in backwards.chunk_by(|a, b| a.kind == b.kind).flat_map(|same| same.chunks(GROUP)) {
        let kind = group.first().and_then(|rule| rule.kind);
        let first = program.len() + usize::from(kind.is_some());
        let mut steps = Vec::new();
        for rule in group {
            let whole = rule.access == RWM && shared == Some(rule.allow);
            match whole.then(|| decide(rule)).flatten() {
                Some(jump) => {
                    steps.extend(jump);
                    to_end.push(first + steps.len() - 1);
                }
                None => steps.extend(self::steps(rule)),
            }
        }
        program.extend(kind.map(|kind| insn(JUMP_IF_NOT_32, TYPE, 0, distance(&steps), kind as i32)));
        program.extend(steps);
    }
    program.extend(verdict(reset_allows));
    let end = program.len();
    for index in to_end.iter().copied() {
        if let Some(jump) = program.get_mut(index) {
            let over = i16::try_from(end - index - 1).unwrap_or(i16::MAX);
            jump[2..4].copy_from_slice(&over.to_ne_bytes());
        }
    }
    if !to_end.is_empty() {
        program.extend(verdict(!reset_allows));
    }
    Some(program)
}

/// The rules that decide something, from the last to the first; two that differ in nothing but the type are one.
fn effective(rules: &[Rule]) -> Vec<Rule> {
    let mut backwards: Vec<Rule> = Vec::with_capacity(rules.len());
    for rule in rules.iter().rev() {
        if backwards.iter().any(|later| later.decides(rule)) {
            continue;
        }
        match backwards.last_mut() {
            // One of every access would leave nothing to decide to what comes after it, and the verifier refuses that.
            Some(last) if last.access != RWM && Rule { kind: rule.kind, ..*last } == *rule => last.kind = None,
            _ => backwards.push(*rule),
        }
    }
    backwards
}

fn verdict(allow: bool) -> [Insn; 2] {
    [insn(SET, R0, 0, 0, i32::from(allow)), insn(EXIT, 0, 0, 0, 0)]
}

/// A jump for a device that the rule is about, its distance to be written; none if it's about all of its type.
fn decide(rule: &Rule) -> Option<Vec<Insn>> {
    Some(match (rule.major.map(u32::cast_signed), rule.minor.map(u32::cast_signed)) {
        (Some(major), Some(minor)) => {
            vec![insn(SET_LONG, R1, 0, 0, minor), insn(0, 0, 0, 0, major), insn(JUMP_IF_EQUAL, DEVICE, R1, 0, 0)]
        }
        (Some(major), None) => vec![insn(JUMP_IF_32, MAJOR, 0, 0, major)],
        (None, Some(minor)) => vec![insn(JUMP_IF_32, MINOR, 0, 0, minor)],
        (None, None) => return None,
    })
}

/// What a rule decides about a device of its type.
fn steps(rule: &Rule) -> Vec<Insn> {
    let mut then = Vec::with_capacity(5);
    if rule.access != RWM && rule.allow {
        then.push(insn(AND, WANTED, 0, 0, !i32::from(rule.access)));
        then.push(insn(JUMP_IF_NOT, WANTED, 0, 2, 0));
    } else if rule.access != RWM {
        then.push(insn(MOVE, R1, WANTED, 0, 0));
        then.push(insn(AND, R1, 0, 0, i32::from(rule.access)));
        then.push(insn(JUMP_IF_ZERO, R1, 0, 2, 0));
    }
    then.extend(verdict(rule.allow));
    let over = distance(&then);
    let mut steps = Vec::with_capacity(8);
    match (rule.major.map(u32::cast_signed), rule.minor.map(u32::cast_signed)) {
        (Some(major), Some(minor)) => steps.extend([
            insn(SET_LONG, R1, 0, 0, minor),
            insn(0, 0, 0, 0, major),
            insn(JUMP_UNLESS_EQUAL, DEVICE, R1, over, 0),
        ]),
        // The 32-bit comparison doesn't extend the sign.
        (Some(major), None) => steps.push(insn(JUMP_IF_NOT_32, MAJOR, 0, over, major)),
        (None, Some(minor)) => steps.push(insn(JUMP_IF_NOT_32, MINOR, 0, over, minor)),
        (None, None) => {}
    }
    steps.extend(then);
    steps
}

/// To jump over these.
fn distance(steps: &[Insn]) -> i16 {
    i16::try_from(steps.len()).unwrap_or(i16::MAX)
}

#[cfg(test)]
#[path = "devices_tests.rs"]
mod tests;
