//! Runs -> instructions.
//!
//! Classic BPF jumps forwards only, so the program is written from its end: whatever an instruction jumps to stands
//! already, and every distance is known when it is needed. A label is an instruction's place counted from the end.

use super::Insn;
use super::profile::{Compare, Test};
use super::verdict::{Branch, Run, Verdict};

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

/// A return further away than this is repeated: cheaper than a jump to it.
const NEAR: usize = 200;

pub(super) fn generate(branches: &[Branch]) -> Vec<Insn> {
    let mut code = Code::default();
    // The native branch comes first in the program and in the dispatch, so it is written last.
    let entries: Vec<_> = branches.iter().rev().map(|branch| (branch.token, code.branch(branch))).collect();
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
#[derive(Default)]
struct Code {
    reversed: Vec<Insn>,
    /// Where each action is returned, the most recent place only.
    returns: Vec<(u32, Label)>,
}

impl Code {
    fn branch(&mut self, branch: &Branch) -> Label {
        let root = self.tree(&branch.runs, branch.wide);
        // A single run needs no number, and its leaf may stand anywhere; else the root is the jump just written.
        if branch.runs.len() < 2 { root } else { self.push(LD, NR) }
    }

    /// A balanced tree: as many comparisons for one number as for any other.
    fn tree(&mut self, runs: &[Run], wide: bool) -> Label {
        let (low, high) = runs.split_at(runs.len() / 2);
        match (low, high) {
            ([], []) => self.ret(libc::SECCOMP_RET_KILL_THREAD),
            ([], [run, ..]) => self.leaf(&run.verdict, wide),
            (low, [run, ..]) => {
                let above = self.tree(high, wide);
                let below = self.tree(low, wide);
                self.jump(JGE, run.start, above, below)
            }
            (low, []) => self.tree(low, wide),
        }
    }

    fn leaf(&mut self, verdict: &Verdict, wide: bool) -> Label {
        match verdict {
            Verdict::Return(action) => self.ret(*action),
            Verdict::Tests(clauses, default) => {
                let mut next = self.ret(*default);
                for clause in clauses.iter().rev() {
                    let matched = self.ret(clause.action);
                    let tests = clause.tests.iter().rev();
                    next = tests.fold(matched, |holds, test| self.test(test, wide, holds, next));
                }
                next
            }
        }
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
            let mut code = Code::default();
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
