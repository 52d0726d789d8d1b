//! Rules -> what each system call number gets, as runs of numbers with the same verdict.

use super::arch::Arch;
use super::names::{self, ARM_PRIVATE, Name, X32_BIT};
use super::profile::{Profile, Rule, Test};

/// What a system call number gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Return(u32),
    /// The first clause that holds decides, else the action.
    Tests(Vec<Clause>, u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    pub(super) tests: Vec<Test>,
    pub(super) action: u32,
}

/// The verdict from this number on, until the next run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) start: u32,
    pub(super) verdict: Verdict,
}

/// All that the kernel reports under one audit token: runs from 0 to the end of `u32`.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) token: u32,
    /// Arguments are compared at 64 bits.
    pub(super) wide: bool,
    pub(super) runs: Vec<Run>,
}

const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();

/// libseccomp's bad-arch action.
const FOREIGN: Verdict = Verdict::Return(libc::SECCOMP_RET_KILL_THREAD);

/// The first number past all.
const END: u64 = 1 << 32;

/// One branch for each token, and the names that no architecture knows.
pub(super) fn decide<'p>(profile: &Profile<'p>) -> (Vec<Branch>, Vec<&'p str>) {
    let named = profile.rules.iter().flat_map(|rule| rule.names.iter().map(move |name| (rule, Name::new(name))));
    let named: Vec<Named> = named.collect();
    let mut known = vec![false; named.len()];
    let mut branches: Vec<Branch> = Vec::new();
    for &arch in &profile.archs {
        let calls = Calls::of(profile, &named, arch, &mut known);
        let runs = runs(calls, profile.default, span(arch));
        match branches.iter_mut().find(|branch| branch.token == arch.token()) {
            Some(branch) => branch.runs.extend(runs),
            None => branches.push(Branch { token: arch.token(), wide: arch.wide(), runs }),
        }
    }
    if let Some(branch) = branches.iter_mut().find(|branch| branch.token == Arch::X32.token()) {
        close_gaps(branch, profile);
    }
    let unknown = named.iter().zip(known).filter(|(_, known)| !known);
    (branches, unknown.map(|((_, name), _)| name.text).collect())
}

/// The numbers that are this architecture's, out of those under its token.
fn span(arch: Arch) -> (u32, u64) {
    match arch {
        Arch::X86_64 => (0, X32_BIT.into()),
        Arch::X32 => (X32_BIT, END),
        _ => (0, END),
    }
}

/// x86_64 and x32 share a token: what only one of them covers is foreign. Without this a list of what is denied
/// could be walked around with x32's numbers.
fn close_gaps(branch: &mut Branch, profile: &Profile) {
    if !profile.archs.contains(&Arch::X86_64) {
        branch.runs.push(Run { start: 0, verdict: FOREIGN });
    }
    if !profile.archs.contains(&Arch::X32) {
        branch.runs.push(Run { start: X32_BIT, verdict: FOREIGN });
        // A tracer skips a call by making its number -1; libseccomp exempts that from the check for x32.
        branch.runs.push(Run { start: u32::MAX, verdict: Verdict::Return(profile.default) });
    }
    branch.runs.sort_by_key(|run| run.start);
}

/// The system calls of one architecture that a profile speaks of, in ascending order.
struct Calls {
    verdicts: Vec<(u32, Verdict)>,
    /// The first number that is newer than the profile, if those answer ENOSYS.
    newer: Option<u32>,
}

/// A name in a rule.
type Named<'a, 'p> = (&'a Rule<'p>, Name<'p>);

/// A rule about one number.
struct Mention<'a, 'p> {
    number: u32,
    rule: &'a Rule<'p>,
    /// The first argument of `socketcall` or `ipc` that stands for the call: mask and value.
    mux: Option<(u32, u32)>,
}

impl Calls {
    /// Marks each name that this architecture has in `known`, which is in the order of the profile.
    fn of(profile: &Profile, named: &[Named], arch: Arch, known: &mut [bool]) -> Self {
        let socketcall = names::number(arch, "socketcall");
        let ipc = names::number(arch, "ipc");
        let mut mentions: Vec<Mention> = Vec::with_capacity(known.len());
        let mut highest = None;
        for (&(rule, name), known) in named.iter().zip(known) {
            let number = name.number(arch);
            let socketcall = socketcall.and_then(|number| Some((number, names::socketcall(name.text)?)));
            let mux = socketcall.or_else(|| ipc.and_then(|number| Some((number, names::ipc(name.text)?))));
            *known |= number.is_some() || mux.is_some();
            highest = highest.max(number.filter(|number| arch != Arch::Arm || *number < ARM_PRIVATE));
            if rule.action == profile.default {
                continue;
            }
            mentions.extend(number.map(|number| Mention { number, rule, mux: None }));
            mentions.extend(mux.map(|(number, mux)| Mention { number, rule, mux: Some(mux) }));
        }
        // Stable: the order within one number stays that of the profile.
        mentions.sort_by_key(|mention| mention.number);
        let mut verdicts: Vec<_> = mentions
            .chunk_by(|a, b| a.number == b.number)
            .filter_map(|same| Some((same.first()?.number, verdict(same, profile.default))))
            .collect();
        let newer = highest.filter(|_| refuses(profile.default)).and_then(|highest| highest.checked_add(1));
        if arch == Arch::S390x && newer.is_some() {
            // Numbers too large for the instruction arrive as 0, which is no other call any more (runc does the same).
            verdicts.insert(0, (0, Verdict::Return(ENOSYS)));
        }
        Self { verdicts, newer }
    }
}

/// Where the default lets calls through, the kernel's own ENOSYS does (runc's `isAllowAction`; a good tracer knows
/// new system calls).
fn refuses(default: u32) -> bool {
    use libc::{SECCOMP_RET_ACTION_FULL, SECCOMP_RET_ALLOW, SECCOMP_RET_LOG, SECCOMP_RET_TRACE};
    !matches!(default & SECCOMP_RET_ACTION_FULL, SECCOMP_RET_ALLOW | SECCOMP_RET_LOG | SECCOMP_RET_TRACE)
}

fn verdict(mentions: &[Mention], default: u32) -> Verdict {
    let always = |mention: &&Mention| mention.mux.is_none() && mention.rule.alternatives.is_empty();
    if let Some(mention) = mentions.iter().find(always) {
        return Verdict::Return(mention.rule.action);
    }
    let mut clauses = Vec::new();
    for Mention { rule, mux, .. } in mentions {
        let action = rule.action;
        let Some(mux) = mux.map(|(mask, value)| Test::masked(0, mask.into(), value.into())) else {
            clauses.extend(rule.alternatives.iter().map(|tests| Clause { tests: tests.clone(), action }));
            continue;
        };
        // The first argument now tells which call it is. The others are kept as libseccomp keeps them.
        let others = |tests: &Vec<Test>| tests.iter().filter(|test| test.index != 0).cloned().collect::<Vec<_>>();
        let never = vec![Vec::new()];
        let alternatives = if rule.alternatives.is_empty() { &never } else { &rule.alternatives };
        clauses.extend(alternatives.iter().map(|tests| {
            let tests = std::iter::once(mux.clone()).chain(others(tests)).collect();
            Clause { tests, action }
        }));
    }
    Verdict::Tests(clauses, default)
}

/// Fills the gaps between calls, and joins neighbours with the same verdict.
fn runs(calls: Calls, default: u32, (first, end): (u32, u64)) -> Vec<Run> {
    let newer = calls.newer.map_or(END, u64::from);
    let mut runs = Runs(Vec::new());
    let mut next = u64::from(first);
    for (number, verdict) in calls.verdicts {
        runs.fill(next, newer.min(number.into()), default);
        runs.fill(next.max(newer), number.into(), ENOSYS);
        runs.push(number, verdict);
        next = u64::from(number) + 1;
    }
    runs.fill(next, newer.min(end), default);
    runs.fill(next.max(newer), end, ENOSYS);
    runs.0
}

struct Runs(Vec<Run>);

impl Runs {
    /// Numbers that no rule is about, if there are any.
    fn fill(&mut self, from: u64, until: u64, action: u32) {
        match u32::try_from(from) {
            Ok(start) if from < until => self.push(start, Verdict::Return(action)),
            _ => {}
        }
    }

    fn push(&mut self, start: u32, verdict: Verdict) {
        if self.0.last().is_none_or(|last| last.verdict != verdict) {
            self.0.push(Run { start, verdict });
        }
    }
}
