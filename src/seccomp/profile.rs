//! The strings of a profile, read once: actions, conditions, architectures, flags.

use std::fmt::{Arguments, Display};

use anyhow::Result;

use super::arch::{self, Arch};
use super::names;
use crate::error::invalid;
use crate::spec;

/// A profile with nothing left to refuse.
pub(super) struct Profile<'p> {
    /// What the kernel returns where no rule matches (`SECCOMP_RET_*` and its data).
    pub(super) default: u32,
    /// Those this kernel can run and whose table is known; the native one first, none twice.
    pub(super) archs: Vec<Arch>,
    pub(super) flags: u64,
    pub(super) rules: Vec<Rule<'p>>,
    pub(super) warnings: Vec<String>,
}

impl Profile<'_> {
    /// Whether an action is neither to allow nor to return an error.
    pub(super) fn is_deadly(&self) -> bool {
        let harmless = [libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_LOG, libc::SECCOMP_RET_ERRNO];
        let mut actions = self.rules.iter().map(|rule| rule.action).chain([self.default]);
        actions.any(|action| !harmless.contains(&(action & libc::SECCOMP_RET_ACTION_FULL)))
    }
}

/// One entry of `syscalls`.
pub(super) struct Rule<'p> {
    pub(super) names: &'p [String],
    pub(super) action: u32,
    /// Matches if all tests of any of these hold. Without any it always matches.
    pub(super) alternatives: Vec<Vec<Test>>,
}

/// One comparison of an argument. The seven operators are three and their negations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) index: u32,
    pub(super) compare: Compare,
    pub(super) value: u64,
    /// The test holds if the comparison doesn't.
    pub(super) negated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    /// `arg & mask == value`; `value` has no bit outside of the mask.
    Masked(u64),
    AtLeast,
    Above,
}

/// Arguments of a system call.
const MAX_ARGS: u32 = 6;

pub(super) fn parse(profile: &spec::Seccomp, native: Arch) -> Result<Profile<'_>> {
    let mut warnings = Vec::new();
    let default = action("/linux/seccomp/defaultAction", &profile.default_action)?
        .with("/linux/seccomp/defaultErrnoRet", profile.default_errno_ret)?;
    if default == libc::SECCOMP_RET_USER_NOTIF {
        // The runtime's own calls up to execve would wait for the agent.
        return Err(invalid("/linux/seccomp/defaultAction", "SCMP_ACT_NOTIFY cannot be used as default action"));
    }
    let archs = archs(profile, native, &mut warnings)?;
    let mut rules = Vec::with_capacity(profile.syscalls.len());
    for (i, entry) in profile.syscalls.iter().enumerate() {
        rules.push(rule(format_args!("/linux/seccomp/syscalls/{i}"), entry)?);
    }
    let notifies = rules.iter().any(|rule| rule.action == libc::SECCOMP_RET_USER_NOTIF);
    listener(profile, notifies, &mut warnings)?;
    let flags = flags(profile, notifies, &mut warnings)?;
    Ok(Profile { default, archs, flags, rules, warnings })
}

/// An action and whether it takes an errno.
struct Action {
    ret: u32,
    name: &'static str,
    takes_errno: bool,
}

impl Action {
    /// The largest number that it takes; a tracer may be told any.
    fn largest(&self) -> u32 {
        if self.ret == libc::SECCOMP_RET_ERRNO { 4095 } else { 0xffff }
    }

    /// The return value of a filter. `pointer` is where the errno would be.
    fn with(&self, pointer: impl Display, errno: Option<u32>) -> Result<u32> {
        match errno {
            None if self.takes_errno => Ok(self.ret | libc::EPERM.unsigned_abs()),
            None => Ok(self.ret),
            Some(errno) if !self.takes_errno => {
                let what =
                    format!("{errno} has no meaning with {}, expected SCMP_ACT_ERRNO or SCMP_ACT_TRACE", self.name);
                Err(invalid(pointer, what))
            }
            // The kernel keeps 16 bits for it, of which an errno has 12 (MAX_ERRNO): the kernel makes 4095 of more.
            Some(errno) if errno > self.largest() => {
                Err(invalid(pointer, format!("{errno} is too large, expected at most {}", self.largest())))
            }
            Some(errno) => Ok(self.ret | errno),
        }
    }
}

const ACTIONS: [(&str, u32); 9] = [
    ("SCMP_ACT_KILL", libc::SECCOMP_RET_KILL_THREAD),
    ("SCMP_ACT_KILL_PROCESS", libc::SECCOMP_RET_KILL_PROCESS),
    ("SCMP_ACT_KILL_THREAD", libc::SECCOMP_RET_KILL_THREAD),
    ("SCMP_ACT_TRAP", libc::SECCOMP_RET_TRAP),
    ("SCMP_ACT_ERRNO", libc::SECCOMP_RET_ERRNO),
    ("SCMP_ACT_TRACE", libc::SECCOMP_RET_TRACE),
    ("SCMP_ACT_ALLOW", libc::SECCOMP_RET_ALLOW),
    ("SCMP_ACT_LOG", libc::SECCOMP_RET_LOG),
    ("SCMP_ACT_NOTIFY", libc::SECCOMP_RET_USER_NOTIF),
];

fn action(pointer: impl Display, name: &str) -> Result<Action> {
    let Some(&(name, ret)) = ACTIONS.iter().find(|(known, _)| *known == name) else {
        return Err(unknown(pointer, "action", name, ACTIONS.iter().map(|(known, _)| *known)));
    };
    let takes_errno = matches!(ret, libc::SECCOMP_RET_ERRNO | libc::SECCOMP_RET_TRACE);
    Ok(Action { ret, name, takes_errno })
}

fn archs(profile: &spec::Seccomp, native: Arch, warnings: &mut Vec<String>) -> Result<Vec<Arch>> {
    // runc includes the native architecture too: Docker's profile for ppc64le names none at all.
    let mut archs = vec![native];
    for (i, name) in profile.architectures.iter().enumerate() {
        let Some(&(_, arch)) = arch::ALL.iter().find(|(known, _)| known == name) else {
            let pointer = format!("/linux/seccomp/architectures/{i}");
            return Err(unknown(&pointer, "architecture", name, arch::ALL.iter().map(|(known, _)| *known)));
        };
        if !arch.runs_beside(native) || archs.contains(&arch) {
            continue;
        }
        if names::known(arch) {
            archs.push(arch);
        } else {
            // Stricter than asked for, never weaker. An error would refuse Docker's own profile on s390x.
            warnings.push(format!("seccomp: no system call numbers known for {name}: its programs will be killed"));
        }
    }
    Ok(archs)
}

/// Who is notified. A path that nobody needs is left alone, as in runc: it belongs to a profile used for many.
fn listener(profile: &spec::Seccomp, notifies: bool, warnings: &mut Vec<String>) -> Result<()> {
    let path = &profile.listener_path;
    if path.is_empty() {
        return match (notifies, profile.listener_metadata.is_empty()) {
            (true, _) => Err(invalid("/linux/seccomp/listenerPath", "is not set, SCMP_ACT_NOTIFY needs a listener")),
            // config-linux.md: MUST NOT.
            (false, false) => Err(invalid("/linux/seccomp/listenerMetadata", "is set without a listenerPath")),
            (false, true) => Ok(()),
        };
    }
    if !path.starts_with(['/', '@']) || path.contains('\0') {
        let what = format!("{path:?}, expected the absolute path of a unix socket, or @ and an abstract name");
        return Err(invalid("/linux/seccomp/listenerPath", what));
    }
    if !notifies {
        warnings.push(format!("seccomp: listenerPath {path:?} has no effect without SCMP_ACT_NOTIFY"));
    }
    Ok(())
}

/// `SECCOMP_FILTER_FLAG_*`; libc's are as wide as a machine word.
const LOG: u64 = 1 << 1;
const SPEC_ALLOW: u64 = 1 << 2;
pub(super) const NEW_LISTENER: u64 = 1 << 3;
pub(super) const WAIT_KILLABLE_RECV: u64 = 1 << 5;

const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

fn flags(profile: &spec::Seccomp, notifies: bool, warnings: &mut Vec<String>) -> Result<u64> {
    let mut flags = if notifies { NEW_LISTENER } else { 0 };
    let Some(names) = &profile.flags else { return Ok(flags | SPEC_ALLOW) };
    for (i, name) in names.iter().enumerate() {
        flags |= match name.as_str() {
            // As in runc: the process that loads the filter has one thread.
            "SECCOMP_FILTER_FLAG_TSYNC" => 0,
            "SECCOMP_FILTER_FLAG_LOG" => LOG,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => SPEC_ALLOW,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" if notifies => WAIT_KILLABLE_RECV,
            // The kernel answers EINVAL to it without a listener, and there is none without SCMP_ACT_NOTIFY.
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => {
                warnings.push(format!("seccomp: {name} has no effect without SCMP_ACT_NOTIFY"));
                0
            }
            _ => return Err(unknown(format_args!("/linux/seccomp/flags/{i}"), "flag", name, FLAGS.into_iter())),
        };
    }
    Ok(flags)
}

/// `pointer` is where the rule is; it is put together for an error only, as are those within.
fn rule<'p>(pointer: Arguments, entry: &'p spec::SyscallRule) -> Result<Rule<'p>> {
    let action = action(format_args!("{pointer}/action"), &entry.action)?;
    let action = action.with(format_args!("{pointer}/errnoRet"), entry.errno_ret)?;
    if let Some(i) = entry.names.iter().position(String::is_empty) {
        return Err(invalid(format!("{pointer}/names/{i}"), "\"\" is empty, expected the name of a system call"));
    }
    let mut tests = Vec::with_capacity(entry.args.len());
    for (i, arg) in entry.args.iter().enumerate() {
        tests.push(test(format_args!("{pointer}/args/{i}"), arg)?);
    }
    let twice = |test: &Test| tests.iter().filter(|other| other.index == test.index).count() > 1;
    let alternatives = match tests.len() {
        0 => Vec::new(),
        _ if tests.iter().any(twice) => tests.into_iter().map(|test| vec![test]).collect(),
        _ => vec![tests],
    };
    Ok(Rule { names: &entry.names, action, alternatives })
}

const OPERATORS: [(&str, Option<Compare>, bool); 7] = [
    ("SCMP_CMP_NE", Some(Compare::Masked(u64::MAX)), true),
    ("SCMP_CMP_LT", Some(Compare::AtLeast), true),
    ("SCMP_CMP_LE", Some(Compare::Above), true),
    ("SCMP_CMP_EQ", Some(Compare::Masked(u64::MAX)), false),
    ("SCMP_CMP_GE", Some(Compare::AtLeast), false),
    ("SCMP_CMP_GT", Some(Compare::Above), false),
    // The mask is the argument's own.
    ("SCMP_CMP_MASKED_EQ", None, false),
];

fn test(pointer: Arguments, arg: &spec::SyscallArg) -> Result<Test> {
    let Some(&(_, compare, negated)) = OPERATORS.iter().find(|(known, ..)| *known == arg.op) else {
        let known = OPERATORS.iter().map(|(known, ..)| *known);
        return Err(unknown(format_args!("{pointer}/op"), "operator", &arg.op, known));
    };
    if arg.index >= MAX_ARGS {
        return Err(invalid(format!("{pointer}/index"), format!("{} is no argument, expected 0 to 5", arg.index)));
    }
    Ok(match compare {
        Some(compare) => Test { index: arg.index, compare, value: arg.value, negated },
        None => Test::masked(arg.index, arg.value, arg.value_two),
    })
}

impl Test {
    /// `arg & mask == value & mask`.
    pub(super) fn masked(index: u32, mask: u64, value: u64) -> Self {
        Self { index, compare: Compare::Masked(mask), value: value & mask, negated: false }
    }
}

fn unknown(pointer: impl Display, kind: &str, name: &str, known: impl Iterator<Item = &'static str>) -> anyhow::Error {
    let known: Vec<_> = known.collect();
    invalid(pointer, format!("{kind} {name:?} is unknown, expected one of {}", known.join(", ")))
}
