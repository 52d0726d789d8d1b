//! Runs -> instructions.
//!
//! Classic BPF jumps forwards only, so the program is written from its end: whatever an instruction jumps to stands
//! already, and every distance is known when it is needed. A label is an instruction's place counted from the end.

use super::Insn;
use super::names::X32_BIT;
use super::profile::{Compare, Test};
use super::verdict::{Branch, Clause, Clauses, Decision, Run, Verdict};

/// `linux/bpf_common.h`.
const LD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JA: u16 = 0x05; // BPF_JMP | BPF_JA
const JEQ: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const RET: u16 = 0x06; // BPF_RET | BPF_K

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// What stands further away than this is repeated: cheaper than a jump to it.
const NEAR: usize = 200;

/// Room for the instructions of an engine's default profile.
const USUAL: usize = 384;

pub(super) fn generate(decision: &Decision, default: u32) -> Vec<Insn> {
    let mut code = Code::new(&decision.tests, default);
    // The native branch comes first in the program and in the dispatch, so it is written last.
    let branches = decision.branches.iter().rev();
    let entries: Vec<_> = branches.map(|branch| (branch.token, code.branch(branch))).collect();
    let mut next = code.ret(libc::SECCOMP_RET_KILL_THREAD);
    for (token, entry) in entries {
        next = code.jump(JEQ, token, entry, next);
    }
    code.push(LD, ARCH);
    code.reversed.reverse();
    code.reversed
}

type Label = usize;

/// A program in the making, last instruction first.
struct Code<'d> {
    tests: &'d [Clauses],
    /// What a call gets for which no clause holds.
    default: u32,
    reversed: Vec<Insn>,
    /// Where each action is returned, the most recent place only.
    returns: Vec<(u32, Label)>,
    /// The same of conditions: which, at 64 bits or not, and where.
    tested: Vec<((u32, bool), Label)>,
    /// What [`Verdict::Same`] means.
    x86_64: Label,
}

impl<'d> Code<'d> {
    fn new(tests: &'d [Clauses], default: u32) -> Self {
        let reversed = Vec::with_capacity(USUAL);
        Self { tests, default, reversed, returns: Vec::new(), tested: Vec::new(), x86_64: 0 }
    }

    fn branch(&mut self, branch: &Branch) -> Label {
        let root = self.tree(&spans(&branch.runs), branch.wide);
        if branch.x32.is_empty() {
            if branch.runs.len() < 2 {
                // It needs no number.
                return root;
            }
            self.next_is(root);
            return self.push(LD, NR);
        }
        self.x86_64 = root;
        let x32 = self.tree(&spans(&branch.x32), branch.wide);
        self.next_is(x32);
        let x32 = self.push(AND, !X32_BIT);
        self.jump(JGE, X32_BIT, x32, root);
        self.push(LD, NR)
    }

    /// Looks for the number's run. Comparisons halve what is left until few numbers differ from the rest, which are then
    /// compared one after the other: that takes one instruction a number, and not the two of both ends of a run.
    fn tree(&mut self, spans: &[Span], wide: bool) -> Label {
        if let Some(usual) = usual(spans) {
            let mut next = self.leaf(usual, wide);
            for span in spans.iter().rev().filter(|span| span.verdict != usual) {
                for offset in (0..span.width).rev() {
                    let unusual = self.leaf(span.verdict, wide);
                    next = self.jump(JEQ, span.start + offset, unusual, next);
                }
            }
            return next;
        }
        let (low, high) = spans.split_at(middle(spans));
        let Some(first) = high.first().filter(|_| !low.is_empty()) else {
            return self.ret(libc::SECCOMP_RET_KILL_THREAD);
        };
        let above = self.tree(high, wide);
        let below = self.tree(low, wide);
        self.jump(JGE, first.start, above, below)
    }

    fn leaf(&mut self, verdict: Verdict, wide: bool) -> Label {
        let at = match verdict {
            Verdict::Return(action) => return self.ret(action),
            Verdict::Same => return self.x86_64,
            Verdict::Tests(at) => at,
        };
        let here = self.reversed.len();
        let near = |&&(known, label): &&((u32, bool), Label)| known == (at, wide) && here - label < NEAR;
        if let Some(&(_, label)) = self.tested.iter().find(near) {
            return label;
        }
        let mut next = self.ret(self.default);
        let mut clauses = self.tests.get(at as usize).map_or(&[][..], Vec::as_slice);
        while let Some((last, before)) = clauses.split_last() {
            if let Some(word) = sole_word(last) {
                let alike = clauses.iter().rev().take_while(|clause| sole_word(clause) == Some(word)).count();
                let (before, alike) = clauses.split_at(clauses.len() - alike);
                next = self.any_of(alike, wide, next);
                clauses = before;
                continue;
            }
            let matched = self.ret(last.action);
            let tests = last.tests.iter().rev();
            next = tests.fold(matched, |holds, test| self.test(test, wide, holds, next));
            clauses = before;
        }
        self.tested.retain(|(known, _)| *known != (at, wide));
        self.tested.push(((at, wide), next));
        next
    }

    /// Clauses that compare the same argument, whose upper half is the same in all: each half is loaded once.
    fn any_of(&mut self, clauses: &[Clause], wide: bool, fails: Label) -> Label {
        let mut next = fails;
        let mut upper = None;
        for clause in clauses.iter().rev() {
            if let [Test { index, compare: Compare::Masked(mask), value, .. }] = clause.tests.as_slice() {
                let matched = self.ret(clause.action);
                next = self.jump(JEQ, halves(*value).1, matched, next);
                upper = Some((*index, halves(*mask).0, halves(*value).0));
            }
        }
        let Some((index, mask, value)) = upper else { return fails };
        let (at_high, at_low) = offsets(index);
        let label = self.push(LD, at_low);
        if wide { self.word(at_high, mask, value, label, fails) } else { label }
    }

    fn test(&mut self, test: &Test, wide: bool, holds: Label, fails: Label) -> Label {
        let (holds, fails) = if test.negated { (fails, holds) } else { (holds, fails) };
        let (high, low) = halves(test.value);
        let (at_high, at_low) = offsets(test.index);
        let op = match test.compare {
            Compare::Masked(mask) => {
                let (mask_high, mask_low) = halves(mask);
                let label = self.word(at_low, mask_low, low, holds, fails);
                return if wide { self.word(at_high, mask_high, high, label, fails) } else { label };
            }
            Compare::AtLeast => JGE,
            Compare::Above => JGT,
        };
        self.jump(op, low, holds, fails);
        let label = self.push(LD, at_low);
        if !wide {
            return label;
        }
        let equal = self.jump(JEQ, high, label, fails);
        self.jump(JGT, high, holds, equal);
        self.push(LD, at_high)
    }

    /// Half an argument under a mask against a value under the same mask.
    fn word(&mut self, at: u32, mask: u32, value: u32, holds: Label, fails: Label) -> Label {
        if mask == 0 {
            return holds;
        }
        self.jump(JEQ, value, holds, fails);
        if mask != u32::MAX {
            self.push(AND, mask);
        }
        self.push(LD, at)
    }

    fn ret(&mut self, action: u32) -> Label {
        let here = self.reversed.len();
        if let Some(&(_, label)) = self.returns.iter().find(|&&(known, label)| known == action && here - label < NEAR) {
            return label;
        }
        self.returns.retain(|&(known, _)| known != action);
        self.returns.push((action, here));
        self.push(RET, action)
    }

    /// Sees to it that what is pushed next goes on with `label`.
    fn next_is(&mut self, label: Label) {
        let between = self.reversed.len() - label - 1;
        if between > 0 {
            self.push(JA, u32::try_from(between).unwrap_or(u32::MAX));
        }
    }

    fn jump(&mut self, code: u16, k: u32, then: Label, otherwise: Label) -> Label {
        let (then, otherwise) = (self.reach(then), self.reach(otherwise));
        let here = self.reversed.len();
        self.reversed.push(Insn { code, jt: distance(here, then), jf: distance(here, otherwise), k });
        here
    }

    /// A label that the next conditional jump can reach, even if one more instruction comes in between: the same
    /// one, or an unconditional jump to it. Offsets of conditional jumps have 8 bits.
    fn reach(&mut self, label: Label) -> Label {
        let here = self.reversed.len();
        if here - label <= usize::from(u8::MAX) {
            return label;
        }
        // Programs over 4,096 instructions are refused later; a distance over 32 bits can't be.
        self.push(JA, u32::try_from(here - label - 1).unwrap_or(u32::MAX))
    }

    fn push(&mut self, code: u16, k: u32) -> Label {
        self.reversed.push(Insn { code, jt: 0, jf: 0, k });
        self.reversed.len() - 1
    }
}

/// At most this many numbers are compared one after the other.
const CHAIN: u32 = 12;
/// The widest run whose numbers are compared so.
const NARROW: u32 = 2;
/// What the numbers of a chain are worth, times the comparisons above two that each takes. When a filter is loaded the
/// kernel runs it for each number it has (`seccomp_cache_prepare`), and a chain's jumps are those that are foreseen.
const PATIENCE: u32 = 200;
/// The kernel has some hundred numbers, so that is what the last of all runs, of all numbers to come, is worth at most.
const WIDE: u32 = 64;
/// What it costs to split beside a run of a single number, which could be compared in a chain.
const ALONE: u32 = 10;

/// A run and how many numbers it has.
struct Span {
    start: u32,
    width: u32,
    verdict: Verdict,
}

fn spans(runs: &[Run]) -> Vec<Span> {
    let ends = runs.iter().skip(1).map(|run| run.start);
    let widths = runs.iter().zip(ends).map(|(run, end)| end - run.start);
    let last = runs.last().map(|last| (u32::MAX - last.start).saturating_add(1));
    let span = |(run, width): (&Run, u32)| Span { start: run.start, width, verdict: run.verdict };
    runs.iter().zip(widths.chain(last)).map(span).collect()
}

/// How many numbers of the kernel's a span may have.
fn weight(span: &Span) -> u32 {
    span.width.min(WIDE)
}

/// The verdict of all but a few of these numbers, if the few can be compared one after the other.
fn usual(spans: &[Span]) -> Option<Verdict> {
    let first = spans.first()?;
    if spans.len() > 2 * CHAIN as usize + 1 {
        return None;
    }
    let widest = spans.iter().fold(first, |widest, span| if span.width > widest.width { span } else { widest });
    let (mut all, mut unusual) = (0, 0);
    for span in spans {
        all += weight(span);
        if span.verdict != widest.verdict {
            if span.width > NARROW {
                return None;
            }
            unusual += span.width;
        }
    }
    (unusual <= 2 || (unusual <= CHAIN && all * (unusual - 2) < PATIENCE)).then_some(widest.verdict)
}

/// Where to split so that both sides have about the same weight: at least one span each, of at least two.
fn middle(spans: &[Span]) -> usize {
    let all: u32 = spans.iter().map(weight).sum();
    let alone = |span: &Span| if span.width == 1 { 2 * ALONE } else { 0 };
    let (mut below, mut best) = (0, (u32::MAX, 0));
    for (at, pair) in spans.windows(2).enumerate() {
        if let [low, high] = pair {
            below += weight(low);
            let uneven = all.abs_diff(2 * below);
            best = best.min((uneven + alone(low) + alone(high), at + 1));
            if 2 * below > all && uneven > best.0 {
                break;
            }
        }
    }
    best.1
}

/// If a clause is that an argument's lower half equals something and its upper half, under a mask, something else: which
/// argument, that mask, and that something else.
fn sole_word(clause: &Clause) -> Option<(u32, u32, u32)> {
    let [Test { index, compare: Compare::Masked(mask), value, negated: false }] = clause.tests.as_slice() else {
        return None;
    };
    let ((mask, low), (value, _)) = (halves(*mask), halves(*value));
    (low == u32::MAX).then_some((*index, mask, value))
}

/// Instructions to skip. `reach` has seen to it that they fit.
fn distance(here: Label, target: Label) -> u8 {
    u8::try_from(here - target - 1).unwrap_or(u8::MAX)
}

/// The upper and the lower 32 bits.
fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

/// Where the halves of an argument are, in this machine's byte order.
const fn offsets(index: u32) -> (u32, u32) {
    let at = ARGS + 8 * index;
    if cfg!(target_endian = "little") { (at + 4, at) } else { (at, at + 4) }
}

#[cfg(test)]
mod tests {
    use super::{Code, Insn, JEQ, RET};

    #[test]
    fn jumps_arrive_on_both_sides_of_their_limit() {
        for gap in 250..260 {
            let mut code = Code::new(&[], 0);
            let (no, yes) = (code.push(RET, 0), code.push(RET, 1));
            for _ in 0..gap {
                code.push(RET, 9);
            }
            code.jump(JEQ, 0, yes, no);
            // `jump` may have put unconditional ones below itself; the conditional one is first.
            let program: Vec<_> = code.reversed.into_iter().rev().collect();
            for holds in [true, false] {
                let Insn { jt, jf, .. } = program[0];
                let mut at = 1 + usize::from(if holds { jt } else { jf });
                if program[at].code != RET {
                    at += 1 + program[at].k as usize;
                }
                assert_eq!(program[at].k, u32::from(holds), "{holds} over {gap} instructions");
            }
        }
    }
}
