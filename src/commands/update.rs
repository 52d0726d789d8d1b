//! `tare update`: changes limits of a container that exists.
//!
//! What is given is merged into the resources that are kept with the container, as JSON; the result goes through the
//! same rules as config.json at create. It is kept once the kernel has all of it.

use std::io::Read;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Map, Value, json};

use crate::cgroup::update::BelowUsage;
use crate::cgroup::{self, Layout};
use crate::cli::{Global, Limits, UpdateArgs};
use crate::error::{Invalid, phrase};
use crate::spec::{Resources, load};
use crate::state::{Folder, Status};
use crate::sys::Context as _;

/// As of config.json.
const MAX_SIZE: u64 = 64 << 20;

pub(crate) fn run(global: &Global, args: UpdateArgs) -> Result<i32> {
    let folder = Folder::open(&global.root, args.id.as_str())?;
    // Before the lock is taken: a pipe may have no end.
    let given = match &args.resources {
        Some(path) => from_file(path, &args.limits),
        None => Ok(from_options(&args.limits)),
    };
    let lock = folder.lock()?;
    let record = folder.record()?;
    let status = folder.status_locked(&record, &lock)?;
    if !matches!(status, Status::Created | Status::Running | Status::Paused) {
        bail!("{}: {:?} is {}", phrase::NOT_RUNNING, record.id, status.name());
    }
    refuse_rdt(&args.limits)?;
    let given = given?;
    let below_usage = if args.allow_oom { BelowUsage::Allow } else { BelowUsage::Refuse };
    let source = args.resources.as_deref();
    let update = || -> Result<()> {
        let mut config: Value = serde_json::from_slice(&folder.config_text()?)?;
        let old = resources_of(&config)?;
        if merge_into(&mut config, &given) {
            let new = resources_of(&config)?;
            let asked = |property: &str| mentions(&given, property);
            let change = cgroup::update::plan(&record.cgroup, &Layout::probe()?, [&old, &new], asked, below_usage)?;
            change.warnings().for_each(|warning| log::warn!("{warning}"));
            let mut cgroup = cgroup::open(&record.cgroup)?;
            cgroup.update(&change)?;
            folder
                .replace_config(&serde_json::to_vec(&config)?)
                .context("the limits are set, but could not be kept")?;
        }
        Ok(())
    };
    update().map_err(|error| named(error, source)).map(|()| 0)
}

/// The container has no Intel RDT group: config.json is refused with one.
fn refuse_rdt(limits: &Limits) -> Result<()> {
    for (option, value, what) in [
        ("--l3-cache-schema", &limits.l3_cache_schema, "Intel RDT/CAT: l3 cache schema is not enabled"),
        ("--mem-bw-schema", &limits.mem_bw_schema, "Intel RDT/MBA: memory bandwidth schema is not enabled"),
    ] {
        if value.is_some() {
            bail!("{option}: {what}");
        }
    }
    Ok(())
}

/// The pointer of an error is that of config.json; here it was given elsewhere.
fn named(error: anyhow::Error, source: Option<&Path>) -> anyhow::Error {
    match error.downcast::<Invalid>() {
        Ok(Invalid { pointer, what }) => {
            let property = pointer.strip_prefix("/linux/resources").unwrap_or(&pointer);
            match source {
                Some(path) => anyhow!("--resources {path:?}: {property}: {what}"),
                None => anyhow!("update: {property}: {what}"),
            }
        }
        Err(error) => error,
    }
}

/// The limits of the command line, as config.json would have them.
fn from_options(limits: &Limits) -> Value {
    for (option, value) in
        [("--kernel-memory", &limits.kernel_memory), ("--kernel-memory-tcp", &limits.kernel_memory_tcp)]
    {
        if value.is_some() {
            log::warn!("{option} is ignored: the kernel has no such limit any more");
        }
    }
    let mut given = Map::new();
    let mut set = |object: &str, property: &str, value: Option<Value>| {
        if let Some(value) = value {
            let object = given.entry(object).or_insert_with(|| json!({}));
            object[property] = value;
        }
    };
    set("blockIO", "weight", limits.blkio_weight.map(Value::from));
    set("cpu", "period", limits.cpu_period.map(Value::from));
    set("cpu", "quota", limits.cpu_quota.map(Value::from));
    set("cpu", "burst", limits.cpu_burst.map(Value::from));
    set("cpu", "shares", limits.cpu_share.map(Value::from));
    set("cpu", "realtimePeriod", limits.cpu_rt_period.map(Value::from));
    set("cpu", "realtimeRuntime", limits.cpu_rt_runtime.map(Value::from));
    set("cpu", "idle", limits.cpu_idle.map(Value::from));
    set("cpu", "cpus", limits.cpuset_cpus.clone().map(Value::from));
    set("cpu", "mems", limits.cpuset_mems.clone().map(Value::from));
    set("memory", "limit", limits.memory.map(Value::from));
    set("memory", "reservation", limits.memory_reservation.map(Value::from));
    set("memory", "swap", limits.memory_swap.map(Value::from));
    set("pids", "limit", limits.pids_limit.map(Value::from));
    Value::Object(given)
}

/// A file, or standard input, with an object as config.json has it in `linux.resources`.
fn from_file(path: &Path, limits: &Limits) -> Result<Value> {
    if from_options(limits) != json!({}) {
        log::warn!("--resources {path:?} is given: the limits on the command line are ignored");
    }
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_SIZE).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_SIZE).read_to_end(&mut bytes))
    };
    read.call("read", path).with_context(|| format!("--resources {path:?}"))?;
    let given: Value =
        serde_json::from_slice(&bytes).map_err(|error| anyhow!("--resources {path:?}: not valid JSON: {error}"))?;
    if !given.is_object() {
        bail!("--resources {path:?}: expected an object, as linux.resources of config.json");
    }
    // By itself, so that a mistake is said even where nothing comes of it.
    load::resources(&given).map_err(|error| named(error, Some(path)))?;
    Ok(given)
}

fn resources_of(config: &Value) -> Result<Resources> {
    match config.pointer("/linux/resources") {
        None | Some(Value::Null) => Ok(Resources::default()),
        Some(resources) => load::resources(resources),
    }
}

/// Merges into config.json's `linux.resources`; false if nothing was given.
fn merge_into(config: &mut Value, given: &Value) -> bool {
    let mut given = given.clone();
    // As runc: unlimited memory is unlimited memory and swap, unless swap is said.
    if given.pointer("/memory/limit") == Some(&json!(-1)) && !mentions(&given, "memory/swap") {
        given["memory"]["swap"] = json!(-1);
    }
    if !config["linux"].is_object() {
        config["linux"] = json!({});
    }
    merge(&mut config["linux"]["resources"], &given, "")
}

/// Values where zero isn't "not set".
const ZERO_COUNTS: [&str; 4] = ["/pids/limit", "/cpu/burst", "/cpu/idle", "/memory/swappiness"];

/// Objects are merged, everything else is replaced. What stands for "not set" (null, zero, nothing) changes nothing: Go's
/// engines send every field.
fn merge(old: &mut Value, given: &Value, at: &str) -> bool {
    let unset = match given {
        Value::Null => true,
        // -1 of an unsigned number, as engines written in C send it.
        Value::Number(number) if number.as_u64() == Some(u64::MAX) => true,
        Value::Number(number) => number.as_f64() == Some(0.0) && !ZERO_COUNTS.contains(&at),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    if unset {
        return false;
    }
    let Value::Object(given) = given else {
        *old = given.clone();
        return true;
    };
    let mut changed = false;
    for (key, value) in given {
        let at = format!("{at}/{key}");
        let mut place = old.get(key).cloned().unwrap_or_default();
        if merge(&mut place, value, &at) {
            if !old.is_object() {
                *old = json!({});
            }
            old[key] = place;
            changed = true;
        }
    }
    changed
}

/// Whether what was given has a property (`memory/limit`, `hugepageLimits/0`).
fn mentions(given: &Value, property: &str) -> bool {
    let mut place = given;
    for key in property.split('/') {
        match place {
            Value::Object(object) => match object.get(key) {
                None | Some(Value::Null) => return false,
                Some(value) => place = value,
            },
            // A list is given whole.
            _ => return true,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(old: Value, given: Value) -> Value {
        let mut config = json!({ "linux": { "resources": old, "x": 1 } });
        merge_into(&mut config, &given);
        assert_eq!(config["linux"]["x"], 1);
        config["linux"]["resources"].clone()
    }

    #[test]
    fn only_given_values_change() {
        let old = json!({"memory": {"limit": 5, "swap": 9}, "pids": {"limit": 3}, "devices": [{"allow": false}]});
        assert_eq!(
            merged(old.clone(), json!({"memory": {"limit": 7}})),
            json!({"memory": {"limit": 7, "swap": 9}, "pids": {"limit": 3}, "devices": [{"allow": false}]})
        );
        // As Go's engines send it.
        let empty = json!({
            "memory": {"limit": 0, "swap": null}, "cpu": {"shares": 0, "cpus": ""}, "pids": null, "devices": [],
            "blockIO": {"weight": 0}, "unified": {}
        });
        assert_eq!(merged(old.clone(), empty), old);
        assert_eq!(merged(json!(null), json!({"cpu": {"cpus": "0"}})), json!({"cpu": {"cpus": "0"}}));
        assert_eq!(merged(json!({}), json!({"cpu": {"idle": 0}})), json!({"cpu": {"idle": 0}}));
    }

    #[test]
    fn unlimited_memory_takes_swap_along() {
        let old = json!({"memory": {"limit": 5, "swap": 9}});
        assert_eq!(merged(old.clone(), json!({"memory": {"limit": -1}})), json!({"memory": {"limit": -1, "swap": -1}}));
        let both = json!({"memory": {"limit": -1, "swap": 7}});
        assert_eq!(merged(old, both.clone()), both);
    }

    #[test]
    fn properties_that_were_given() {
        let given = json!({"memory": {"limit": 1, "swap": null}, "hugepageLimits": [{"limit": 1}]});
        assert!(mentions(&given, "memory/limit") && mentions(&given, "hugepageLimits/0"));
        assert!(!mentions(&given, "memory/swap") && !mentions(&given, "cpu/shares"));
    }
}
