//! Which code `run`, `exec` and `state` execute, for the order in which it is linked (`scripts/order`).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::bench::Bench;
use crate::contender::Result;
use crate::counts;
use crate::step;
use crate::workloads::{end_all, of, one_alive_each};

/// Millions of steps, of 30 us.
const LIMIT: Duration = Duration::from_secs(600);
/// Functions are aligned to as many bytes.
const GRANULE: u64 = 16;

/// Writes the addresses that tare executes, each once, one a line: those of the processes that enter a container first,
/// as they have these pages mapped anew, then those of the others, each in the order of its first time.
pub fn order(bench: &mut Bench, file: &Path) -> Result<()> {
    bench.contenders.retain(|who| who.name == "tare");
    let bundle = bench.bundle("counted", |_| {})?;
    let all = one_alive_each(bench, "order")?;
    let (mut entering, mut outside) = (Addresses::default(), Addresses::default());
    for who in &bench.contenders.clone() {
        for (verb, mut command) in counts::commands(bench, who, &bundle, of(&all, who))? {
            eprintln!("bench: the code of {verb}");
            let mut first = None;
            // The program that is executed in the container is linked to other addresses.
            let done = step::each(&mut command, LIMIT, |pid| {
                let mine = *first.get_or_insert(pid) == pid;
                if let Some(address) = step::program_counter(pid) {
                    if mine { outside.add(address) } else { entering.add(address) }
                }
            })?;
            if let Some(error) = done.get("error").and_then(Value::as_str) {
                return Err(error.into());
            }
        }
    }
    end_all(bench, &all);
    let lines: String =
        entering.order.iter().chain(&outside.order).map(|address| format!("{address:016x}\n")).collect();
    if lines.is_empty() {
        return Err("no code was seen: is this processor known to step.rs?".into());
    }
    fs::write(file, lines).map_err(|error| format!("{file:?}: {error}"))
}

#[derive(Default)]
struct Addresses {
    seen: BTreeSet<u64>,
    order: Vec<u64>,
}

impl Addresses {
    fn add(&mut self, address: u64) {
        if self.seen.insert(address / GRANULE) {
            self.order.push(address);
        }
    }
}
