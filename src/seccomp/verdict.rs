//! Rules -> what each system call number gets, as runs of numbers with the same verdict.

use super::arch::Arch;
use super::names::{self, ARM_PRIVATE, Column, Row, X32_BIT};
use super::profile::{Profile, Rule, Test};

/// What a system call number gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Return(u32),
    /// What [`Decision::tests`] has here.
    Tests(u32),
    /// Of x32's numbers only: what x86_64's get.
    Same,
}

/// The first one that holds decides, else the default.
pub(super) type Clauses = Vec<Clause>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    pub(super) tests: Vec<Test>,
    pub(super) action: u32,
}

/// The verdict from this number on, until the next run.
#[derive(Debug, Clone, Copy)]
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
    /// If not empty: runs of the numbers from [`X32_BIT`] on, to be looked up without that bit. `runs` aren't theirs, then.
    pub(super) x32: Vec<Run>,
}

/// What a profile comes to.
pub(super) struct Decision<'p> {
    /// One for each token.
    pub(super) branches: Vec<Branch>,
    /// No two are equal.
    pub(super) tests: Vec<Clauses>,
    /// Names that no architecture knows.
    pub(super) unknown: Vec<&'p str>,
}

const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();

/// libseccomp's bad-arch action.
const FOREIGN: Verdict = Verdict::Return(libc::SECCOMP_RET_KILL_THREAD);

/// The first number past all.
const END: u64 = 1 << 32;

pub(super) fn decide<'p>(profile: &Profile<'p>) -> Decision<'p> {
    let mut archs: Vec<Calls> = profile.archs.iter().filter_map(|arch| Calls::new(*arch, profile)).collect();
    let mut unknown = Vec::new();
    for rule in &profile.rules {
        for name in rule.names {
            let row = profile.archs.first().and_then(|native| names::find(*native, name));
            let mut known = false;
            for calls in &mut archs {
                known |= row.is_some_and(|row| calls.mention(row, rule, profile.default));
            }
            if !known {
                unknown.push(name.as_str());
            }
        }
    }
    let mut tests = Vec::new();
    let mut branches: Vec<Branch> = Vec::with_capacity(archs.len());
    let mut x32 = None;
    for calls in archs {
        let arch = calls.arch;
        let runs = calls.runs(profile.default, &mut tests);
        if arch == Arch::X32 {
            x32 = Some(runs);
        } else {
            branches.push(Branch { token: arch.token(), wide: arch.wide(), runs, x32: Vec::new() });
        }
    }
    join_x32(&mut branches, x32, profile);
    Decision { branches, tests, unknown }
}

/// x86_64 and x32 share a token: what only one of them covers is foreign. Without this a list of what is denied
/// could be walked around with x32's numbers.
fn join_x32(branches: &mut Vec<Branch>, x32: Option<Vec<Run>>, profile: &Profile) {
    let token = Arch::X32.token();
    match (branches.iter_mut().find(|branch| branch.token == token), x32) {
        (Some(branch), Some(x32)) => branch.x32 = difference(&branch.runs, &x32),
        (Some(branch), None) => {
            branch.runs.push(Run { start: X32_BIT, verdict: FOREIGN });
            // A tracer skips a call by making its number -1; libseccomp exempts that from the check for x32.
            branch.runs.push(Run { start: u32::MAX, verdict: Verdict::Return(profile.default) });
        }
        (None, Some(x32)) => {
            let mut runs = vec![Run { start: 0, verdict: FOREIGN }];
            runs.extend(x32.into_iter().map(|run| Run { start: run.start | X32_BIT, ..run }));
            branches.push(Branch { token, wide: Arch::X32.wide(), runs, x32: Vec::new() });
        }
        (None, None) => {}
    }
}

/// x32's runs, but [`Verdict::Same`] where x86_64 has that verdict under the number without [`X32_BIT`].
fn difference(x86_64: &[Run], x32: &[Run]) -> Vec<Run> {
    let mut runs = Vec::with_capacity(x86_64.len() + x32.len());
    let (mut ours, mut theirs) = (x32.iter().peekable(), x86_64.iter().peekable());
    let (mut our, mut their) = (FOREIGN, FOREIGN);
    while let Some(start) = ours.peek().into_iter().chain(theirs.peek()).map(|run| run.start).min() {
        our = ours.next_if(|run| run.start == start).map_or(our, |run| run.verdict);
        their = theirs.next_if(|run| run.start == start).map_or(their, |run| run.verdict);
        push(&mut runs, start, if our == their { Verdict::Same } else { our });
    }
    runs
}

/// How many numbers from 0 on have a place of their own in [`Calls`].
const PLAIN: usize = 576;

/// What a profile says of the system calls of one architecture. Numbers of x32 are without [`X32_BIT`] here.
struct Calls<'a, 'p> {
    arch: Arch,
    column: Column,
    /// What all numbers have and none has here.
    base: u32,
    socketcall: Option<u32>,
    ipc: Option<u32>,
    /// The first number above all that are named, those private to ARM left out; 0 if none is.
    newer: u32,
    /// The actions of rules without conditions by number, the default where there is none: a rule with the default's
    /// action isn't one.
    plain: Vec<u32>,
    /// All other rules, in the order of the profile.
    mentions: Vec<Mention<'a, 'p>>,
}

/// A rule about one number.
struct Mention<'a, 'p> {
    number: u32,
    rule: &'a Rule<'p>,
    /// The first argument of `socketcall` or `ipc` that stands for the call: mask and value.
    mux: Option<(u32, u32)>,
}

impl<'a, 'p> Calls<'a, 'p> {
    /// None for an architecture without a table.
    fn new(arch: Arch, profile: &Profile) -> Option<Self> {
        Some(Self {
            arch,
            column: names::column(arch)?,
            base: if arch == Arch::X32 { X32_BIT } else { 0 },
            socketcall: names::number(arch, "socketcall"),
            ipc: names::number(arch, "ipc"),
            newer: 0,
            plain: vec![profile.default; PLAIN],
            mentions: Vec::new(),
        })
    }

    /// Takes note of a rule about a name. Returns whether this architecture has that name.
    fn mention(&mut self, row: &Row, rule: &'a Rule<'p>, default: u32) -> bool {
        let number = row.number(self.column).map(|number| number & !self.base);
        let mux = if row.is_carried() { self.mux(row) } else { None };
        if let Some(number) = number {
            if (self.newer..ARM_PRIVATE).contains(&number) {
                self.newer = number + 1;
            }
            let plain = self.plain.get_mut(number as usize).filter(|_| rule.alternatives.is_empty());
            match plain {
                _ if rule.action == default => {}
                // The first one counts.
                Some(action) if *action == default => *action = rule.action,
                Some(_) => {}
                None => self.mentions.push(Mention { number, rule, mux: None }),
            }
        }
        if let Some((number, mux)) = mux.filter(|_| rule.action != default) {
            self.mentions.push(Mention { number, rule, mux: Some(mux) });
        }
        number.is_some() || mux.is_some()
    }

    /// The number of the call that carries this one, and the first argument that tells which it is: mask and value.
    fn mux(&self, row: &Row) -> Option<(u32, (u32, u32))> {
        let socketcall = self.socketcall.and_then(|number| Some((number, row.socketcall()?)));
        socketcall.or_else(|| self.ipc.and_then(|number| Some((number, row.ipc()?))))
    }

    /// The verdicts of all numbers. Conditions go to `tests`.
    fn runs(mut self, default: u32, tests: &mut Vec<Clauses>) -> Vec<Run> {
        let newer = Some(u64::from(self.newer)).filter(|newer| *newer > 0 && refuses(default));
        if let (Arch::S390x, Some(_), Some(zero)) = (self.arch, newer, self.plain.first_mut()) {
            // Numbers too large for the instruction arrive as 0, which is no other call any more (runc does the same).
            *zero = ENOSYS;
        }
        // Stable: the order within one number stays that of the profile.
        self.mentions.sort_by_key(|mention| mention.number);
        let groups = self.mentions.chunk_by(|a, b| a.number == b.number);
        let mut decided = |(number, group): (u32, &[Mention])| (number, verdict(group, tests));
        let mut groups = groups.filter_map(|group| Some((group.first()?.number, group))).peekable();
        let mut runs = Runs { runs: Vec::with_capacity(128), default, newer: newer.unwrap_or(END) };
        let mut next: u32 = 0;
        for same in self.plain.chunk_by(|a, b| a == b) {
            let start = next;
            next += u32::try_from(same.len()).unwrap_or(u32::MAX);
            let Some(&action) = same.first() else { continue };
            let rules = std::iter::from_fn(|| groups.next_if(|(number, _)| *number < next));
            if action == default {
                runs.unnamed(start.into(), next.into(), rules.map(&mut decided));
            } else {
                // One without conditions beats them.
                rules.for_each(drop);
                runs.push(start, Verdict::Return(action));
            }
        }
        runs.unnamed(next.into(), END, groups.map(&mut decided));
        runs.runs
    }
}

/// Where the default lets calls through, the kernel's own ENOSYS does (runc's `isAllowAction`; a good tracer knows
/// new system calls).
fn refuses(default: u32) -> bool {
    use libc::{SECCOMP_RET_ACTION_FULL, SECCOMP_RET_ALLOW, SECCOMP_RET_LOG, SECCOMP_RET_TRACE};
    !matches!(default & SECCOMP_RET_ACTION_FULL, SECCOMP_RET_ALLOW | SECCOMP_RET_LOG | SECCOMP_RET_TRACE)
}

/// So many clauses are compared with each other.
const FEW: usize = 32;

fn verdict(mentions: &[Mention], known: &mut Vec<Clauses>) -> Verdict {
    let always = |mention: &&Mention| mention.mux.is_none() && mention.rule.alternatives.is_empty();
    if let Some(mention) = mentions.iter().find(always) {
        return Verdict::Return(mention.rule.action);
    }
    let mut clauses: Clauses = Vec::new();
    let mut add = |tests: Vec<Test>, action| {
        let clause = Clause { tests, action };
        // Podman's profile says one thing twice. Who says thousands gets them as they are.
        if clauses.len() > FEW || !clauses.contains(&clause) {
            clauses.push(clause);
        }
    };
    for Mention { rule, mux, .. } in mentions {
        let Some(mux) = mux.map(|(mask, value)| Test::masked(0, mask.into(), value.into())) else {
            rule.alternatives.iter().for_each(|tests| add(tests.clone(), rule.action));
            continue;
        };
        // The first argument now tells which call it is. The others are kept as libseccomp keeps them.
        let with_mux = |tests: &[Test]| {
            let others = tests.iter().filter(|test| test.index != 0);
            std::iter::once(&mux).chain(others).cloned().collect()
        };
        if rule.alternatives.is_empty() {
            add(with_mux(&[]), rule.action);
        }
        rule.alternatives.iter().for_each(|tests| add(with_mux(tests), rule.action));
    }
    let at = known.iter().position(|known| *known == clauses).unwrap_or(known.len());
    if at == known.len() {
        known.push(clauses);
    }
    // There are no more of them than numbers.
    Verdict::Tests(u32::try_from(at).unwrap_or(u32::MAX))
}

/// Runs in the making.
struct Runs {
    runs: Vec<Run>,
    default: u32,
    /// The first number that is newer than the profile.
    newer: u64,
}

impl Runs {
    /// Numbers without a rule of their own, but for those in between that are given.
    fn unnamed(&mut self, mut from: u64, until: u64, between: impl Iterator<Item = (u32, Verdict)>) {
        for (number, verdict) in between {
            self.fill(from, number.into());
            self.push(number, verdict);
            from = u64::from(number) + 1;
        }
        self.fill(from, until);
    }

    fn fill(&mut self, from: u64, until: u64) {
        for (from, until, action) in
            [(from, until.min(self.newer), self.default), (from.max(self.newer), until, ENOSYS)]
        {
            match u32::try_from(from) {
                Ok(start) if from < until => self.push(start, Verdict::Return(action)),
                _ => {}
            }
        }
    }

    fn push(&mut self, start: u32, verdict: Verdict) {
        push(&mut self.runs, start, verdict);
    }
}

/// Adds a run, joined with its neighbour if that has the same verdict.
fn push(runs: &mut Vec<Run>, start: u32, verdict: Verdict) {
    if runs.last().is_none_or(|last| last.verdict != verdict) {
        runs.push(Run { start, verdict });
    }
}
