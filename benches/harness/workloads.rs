//! What is measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use crate::bench::{Alive, Bench, path};
use crate::bundle;
use crate::contender::{Contender, Result, own_program, quiet, timed};
use crate::stats::{Sample, median, quantile, summary};
use crate::{counts, sys};

const HOST_MOUNTS: usize = 5000;
const WORKERS: usize = 64;

/// All that need no controller of cgroups, in this order; `chosen` says which.
pub fn without_controllers(bench: &mut Bench, chosen: impl Fn(&str) -> bool) -> Result<()> {
    type Workload = (&'static str, fn(&mut Bench) -> Result<()>);
    let all: [Workload; 11] = [
        ("run", run),
        ("lifecycle", lifecycle),
        ("exec", exec),
        ("state", state),
        ("heavy", heavy),
        ("env", env),
        ("parallel", parallel),
        ("alive", alive),
        ("memory", memory),
        ("counts", counts::count),
        // Last: it leaves its mounts until the process ends.
        ("host-mounts", host_mounts),
    ];
    for (name, workload) in all {
        if chosen(name) {
            workload(bench)?;
        }
    }
    Ok(())
}

fn run(bench: &mut Bench) -> Result<()> {
    let bundle = bench.bundle("run", |_| {})?;
    let rounds = bench.size.rounds;
    let title = "run of true with the engine bundle";
    bench.interleave(&[("run", title)], rounds, true, |bench, who, _| Ok(vec![bench.run(who, &bundle, "run", &[])?]));
    Ok(())
}

fn lifecycle(bench: &mut Bench) -> Result<()> {
    let bundle = bench.bundle("apart", |_| {})?;
    let rounds = bench.size.rounds;
    let together = ("lifecycle", "create, start and delete together");
    let names = [("create", "create"), ("start", "start"), ("delete", "delete of a stopped container"), together];
    bench.interleave(&names, rounds, false, |bench, who, _| {
        let [create, start, delete] = bench.lifecycle(who, &bundle, "apart")?;
        Ok(vec![create, start, delete, create + start + delete])
    });
    Ok(())
}

fn heavy(bench: &mut Bench) -> Result<()> {
    let rootfs = bench.rootfs();
    let bundle = bench.bundle("heavy", |config| bundle::heavy(config, &rootfs))?;
    let rounds = bench.size.rounds / 2;
    let (masked, mounts) = (bundle::MASKED.to_string(), bundle::MOUNTS.to_string());
    let title = "run with 60 masked paths and 300 mounts more";
    bench.interleave(&[("heavy", title)], rounds, true, |bench, who, _| {
        Ok(vec![bench.run(who, &bundle, "heavy", &[&masked, &mounts])?])
    });
    Ok(())
}

fn host_mounts(bench: &mut Bench) -> Result<()> {
    let folder = bench.dir.join("mounts");
    for number in 0..HOST_MOUNTS {
        let at = folder.join(number.to_string());
        let text = |error: std::io::Error| error.to_string();
        fs::create_dir_all(&at).map_err(text)?;
        sys::mount(path(&at), &at, "", libc::MS_BIND, "").map_err(text)?;
    }
    let bundle = bench.bundle("mounts", |_| {})?;
    let rounds = bench.size.rounds / 2;
    let title = "run with 5,000 mounts on the host";
    bench.interleave(&[("host-mounts", title)], rounds, true, |bench, who, _| {
        Ok(vec![bench.run(who, &bundle, "mounts", &[])?])
    });
    Ok(())
}

fn env(bench: &mut Bench) -> Result<()> {
    let bundle = bench.bundle("env", bundle::many_variables)?;
    let rounds = bench.size.rounds;
    let cgroup = bench.groups()[0].join("floor-env");
    bench.interleave(&[("env", "run with 5,000 environment variables")], rounds, true, |bench, who, _| {
        if !who.is_floor() {
            return Ok(vec![bench.run(who, &bundle, "env", &[])?]);
        }
        // The floor hands on its own environment.
        let mut command = quiet(&who.path);
        command.arg("run").arg(bench.rootfs()).arg(&cgroup).env_clear().envs(bundle::variables());
        Ok(vec![timed(&mut command, &bench.log("env"))?])
    });
    Ok(())
}

/// A container of each runtime that works, for the commands that need one.
pub fn one_alive_each(bench: &Bench, name: &str) -> Result<Vec<(Contender, Alive)>> {
    let mut all = Vec::new();
    for who in bench.contenders.iter().filter(|who| !who.is_floor()) {
        let id = format!("{name}-{}", who.name);
        let bundle = bench.bundle(&id, bundle::sleeping)?;
        match bench.start_alive(who, &bundle, &id) {
            Ok((_, alive)) => all.push((who.clone(), alive)),
            Err(error) => eprintln!("bench: {}: {error}", who.name),
        }
    }
    Ok(all)
}

pub fn end_all(bench: &Bench, all: &[(Contender, Alive)]) {
    for (who, alive) in all {
        if let Err(error) = bench.end(who, alive) {
            eprintln!("bench: {}: {error}", who.name);
        }
    }
}

pub fn of<'a>(all: &'a [(Contender, Alive)], who: &Contender) -> Result<&'a Alive> {
    let found = all.iter().find(|(it, _)| it.name == who.name);
    found.map(|(_, alive)| alive).ok_or_else(|| "it could not start the container".into())
}

fn exec(bench: &mut Bench) -> Result<()> {
    let all = one_alive_each(bench, "exec")?;
    let Some((_, any)) = all.first() else { return Err("no runtime can start a container".into()) };
    let (pid, group) = (any.pid.to_string(), bench.groups()[0].join(&any.id));
    let rounds = bench.size.rounds;
    for terminal in [false, true] {
        let names = if terminal {
            [("exec-tty", "exec of true with a terminal")]
        } else {
            [("exec", "exec of true in a running container")]
        };
        bench.interleave(&names, rounds, true, |bench, who, _| {
            let mut command = if who.is_floor() {
                let mut command = quiet(&who.path);
                command.args(["exec", &pid]).arg(&group).args(terminal.then_some("tty"));
                command
            } else {
                let id = &of(&all, who)?.id;
                let mut words = vec!["exec"];
                words.extend(terminal.then_some("--tty"));
                words.extend([id, "/bin/true"]);
                bench.command(who, &words)
            };
            let sample =
                if terminal { bench.on_terminal(command, "exec") } else { timed(&mut command, &bench.log("exec")) };
            Ok(vec![sample?])
        });
    }
    end_all(bench, &all);
    Ok(())
}

fn state(bench: &mut Bench) -> Result<()> {
    let all = one_alive_each(bench, "state")?;
    let rounds = bench.size.rounds;
    bench.interleave(&[("state", "state of a running container")], rounds, false, |bench, who, _| {
        Ok(vec![bench.step(who, &["state", &of(&all, who)?.id], "state")?])
    });
    end_all(bench, &all);
    Ok(())
}

/// Whole lifecycles, 64 at a time: how many a second, and how long each took.
fn parallel(bench: &mut Bench) -> Result<()> {
    const ROUNDS: usize = 3;
    let bundles: Vec<PathBuf> =
        (0..WORKERS).map(|number| bench.bundle(&format!("p{number}"), |_| {})).collect::<Result<_>>()?;
    let who = bench.contenders.clone();
    let mut taken: Vec<(Vec<f64>, Vec<f64>, Option<String>)> = vec![(Vec::new(), Vec::new(), None); who.len()];
    eprintln!("bench: parallel ({ROUNDS} rounds)");
    for _ in 0..ROUNDS {
        for index in bench.shuffle.order(who.len()) {
            let (rates, latencies, error) = &mut taken[index];
            if error.is_some() {
                continue;
            }
            match parallel_round(bench, &who[index], &bundles) {
                Ok((rate, times)) => {
                    rates.push(rate);
                    latencies.extend(times);
                }
                Err(message) => {
                    eprintln!("bench: {}: {message}", who[index].name);
                    *error = Some(message);
                }
            }
        }
    }
    let mut rows = Vec::new();
    for (it, (rates, latencies, error)) in who.iter().zip(taken) {
        let value = error.map_or_else(
            || json!({ "value": median(&rates), "low": quantile(&rates, 0.0), "high": quantile(&rates, 1.0), "p50_us": median(&latencies),
                "p99_us": quantile(&latencies, 0.99), "lifecycles": latencies.len() }),
            |error| json!({ "error": error }),
        );
        rows.push((it.name.into(), value));
    }
    bench.figures("parallel", "create, start, delete: 64 at a time", "containers/s", rows);
    Ok(())
}

fn parallel_round(bench: &Bench, who: &Contender, bundles: &[PathBuf]) -> Result<(f64, Vec<f64>)> {
    let (next, times, failure) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(None));
    let one = |worker: usize, bundle: &Path| -> Result<()> {
        let id = format!("p{worker}");
        while next.fetch_add(1, Ordering::Relaxed) < bench.size.lifecycles {
            let start = Instant::now();
            if who.is_floor() {
                bench.run(who, bundle, &id, &[])?;
            } else {
                bench.lifecycle(who, bundle, &id)?;
            }
            times.lock().expect("no thread panics").push(start.elapsed().as_secs_f64() * 1e6);
        }
        Ok(())
    };
    let start = Instant::now();
    std::thread::scope(|scope| {
        for (worker, bundle) in bundles.iter().enumerate() {
            let (one, failure) = (&one, &failure);
            scope.spawn(move || {
                if let Err(error) = one(worker, bundle) {
                    *failure.lock().expect("no thread panics") = Some(error);
                }
            });
        }
    });
    let elapsed = start.elapsed().as_secs_f64();
    if let Some(error) = failure.into_inner().expect("no thread panics") {
        for worker in 0..bundles.len() {
            let _ = bench.step(who, &["delete", "--force", &format!("p{worker}")], "parallel");
        }
        return Err(error);
    }
    let times = times.into_inner().expect("no thread panics");
    Ok((times.len() as f64 / elapsed, times))
}

/// What this process and all it starts are charged with, kernel memory included.
struct Meter {
    folder: PathBuf,
    file: PathBuf,
}

impl Meter {
    /// A memory cgroup of our own: of v1, wherever this view leaves it mounted, or of v2.
    fn new(bench: &Bench) -> Option<Self> {
        let name = format!("{}-meter", &bench.group[1..]);
        let v1 = bench.dir.join("memory-hierarchy");
        let root = match bench.hierarchies.iter().find(|root| root.ends_with("memory")) {
            Some(root) => root.clone(),
            None if fs::create_dir_all(&v1).is_ok() && sys::mount("cgroup", &v1, "cgroup", 0, "memory").is_ok() => v1,
            None => return None,
        };
        let folder = root.join(name);
        fs::create_dir(&folder).ok()?;
        let file = folder.join("memory.usage_in_bytes");
        fs::write(folder.join("cgroup.procs"), std::process::id().to_string()).ok()?;
        Some(Self { folder, file })
    }

    fn bytes(&self) -> f64 {
        // Caches that can go have gone.
        let _ = fs::write(self.folder.join("memory.force_empty"), "0");
        fs::read_to_string(&self.file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0.0)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let above = self.folder.parent().unwrap_or(Path::new("/")).join("cgroup.procs");
        let _ = fs::write(above, std::process::id().to_string());
        // Memory that is freed later keeps it for a moment.
        for _ in 0..50 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        eprintln!("bench: {:?} is left", self.folder);
    }
}

/// Many containers at once, of one runtime after the other: do the last take longer than the first, and what memory?
fn alive(bench: &mut Bench) -> Result<()> {
    let count = bench.size.alive;
    let tenth = (count / 10).max(1);
    let bundles: Vec<PathBuf> =
        (0..count).map(|number| bench.bundle(&format!("a{number}"), bundle::sleeping)).collect::<Result<_>>()?;
    let meter = Meter::new(bench);
    let (mut first, mut last, mut memory, mut list) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for who in bench.contenders.clone().iter().filter(|who| !who.is_floor()) {
        eprintln!("bench: {count} containers of {} alive", who.name);
        // What a first container costs once isn't what a further one costs.
        let before = {
            bench.lifecycle_quietly(who, &bundles[0]);
            meter.as_ref().map_or(0.0, Meter::bytes)
        };
        let (mut all, mut times, mut error) = (Vec::new(), Vec::new(), None);
        for (number, bundle) in bundles.iter().enumerate() {
            match bench.start_alive(who, bundle, &format!("a{number}")) {
                Ok((sample, alive)) => {
                    times.push(sample.wall);
                    all.push((who.clone(), alive));
                }
                Err(message) => {
                    eprintln!("bench: {}: {message}", who.name);
                    error = Some(message);
                    break;
                }
            }
        }
        let after = meter.as_ref().map_or(0.0, Meter::bytes);
        if let Some(error) = error {
            list.push((who.name.into(), json!({ "error": error })));
        } else {
            first.push((who.name.into(), figure(&times[..tenth])));
            last.push((who.name.into(), figure(&times[count - tenth..])));
            memory.push((who.name.into(), json!({ "value": ((after - before) / count as f64 / 1024.0).round() })));
            let lists: Result<Vec<Sample>> = (0..10).map(|_| bench.step(who, &["list"], "list")).collect();
            list.push((
                who.name.into(),
                lists.map_or_else(
                    |error| json!({ "error": error }),
                    |lists| figure(&lists.iter().map(|it| it.wall).collect::<Vec<_>>()),
                ),
            ));
        }
        end_all(bench, &all);
    }
    bench.figures("alive-first", &format!("create and start, the first {tenth} of {count} alive"), "us", first);
    bench.figures("alive-last", &format!("create and start, the last {tenth} of {count} alive"), "us", last);
    if meter.is_some() {
        bench.figures("alive-memory", &format!("memory for a further container, of {count}"), "KiB", memory);
    }
    bench.figures("list", &format!("list with {count} containers alive"), "us", list);
    Ok(())
}

fn figure(values: &[f64]) -> Value {
    let summary = summary(values);
    json!({ "value": summary["median"], "low": summary["p25"], "high": summary["p75"] })
}

/// The peak of the runtime's own memory: of its process, or the largest of them.
fn memory(bench: &mut Bench) -> Result<()> {
    let bundle = bench.bundle("memory", |_| {})?;
    let all = one_alive_each(bench, "rss")?;
    let floor = own_program("floor");
    for verb in ["run", "create", "exec", "state", "delete"] {
        let mut rows = Vec::new();
        for (who, alive) in &all {
            let mut peaks = Vec::new();
            let mut error = None;
            for _ in 0..5 {
                let words: Vec<&str> = match verb {
                    "run" | "create" => vec![verb, "--bundle", path(&bundle), "memory"],
                    "exec" => vec![verb, &alive.id, "/bin/true"],
                    "state" => vec![verb, &alive.id],
                    _ => vec![verb, "--force", "memory"],
                };
                if verb == "delete" {
                    bench.step(who, &["create", "--bundle", path(&bundle), "memory"], "memory")?;
                }
                match peak(bench, who, &floor, &words) {
                    Ok(peak) => peaks.push(peak),
                    Err(message) => error = Some(message),
                }
                if verb == "create" {
                    let _ = bench.step(who, &["delete", "--force", "memory"], "memory");
                }
            }
            reap();
            let value = error.map_or_else(|| figure(&peaks), |error| json!({ "error": error }));
            rows.push((who.name.to_owned(), value));
        }
        bench.figures(&format!("memory-{verb}"), &format!("peak memory of {verb}"), "KiB", rows);
    }
    end_all(bench, &all);
    Ok(())
}

/// Waits for what has ended and is nobody else's.
pub fn reap() {
    // SAFETY: no child of this process is waited for elsewhere at this moment.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

fn peak(bench: &Bench, who: &Contender, floor: &Path, words: &[&str]) -> Result<f64> {
    let inner = bench.command(who, words);
    let mut command = quiet(floor);
    command.arg("rusage").arg(inner.get_program()).args(inner.get_args());
    timed(&mut command, &bench.log("peak"))?;
    let said = fs::read_to_string(bench.log("peak")).unwrap_or_default();
    let peak = said.lines().find_map(|line| line.strip_prefix("maxrss ")?.parse().ok());
    peak.ok_or_else(|| format!("no peak in {said:?}"))
}

/// What needs controllers: memory charged before the program, and the lowest limits.
pub fn with_controllers(bench: &mut Bench, chosen: impl Fn(&str) -> bool) -> Result<()> {
    if chosen("charge") {
        charge(bench)?;
    }
    if chosen("limits") {
        limits(bench)?;
    }
    Ok(())
}

fn charge(bench: &mut Bench) -> Result<()> {
    let bundle =
        bench.bundle("charge", |config| config["linux"]["resources"]["memory"] = json!({ "limit": 1 << 30 }))?;
    let (mut peaks, mut kept) = (Vec::new(), Vec::new());
    for who in bench.contenders.clone().iter().filter(|who| !who.is_floor()) {
        let (mut peak, mut now, mut error) = (Vec::new(), Vec::new(), None);
        for _ in 0..5 {
            match bench.create(who, &bundle, "charge") {
                Ok((_, pid)) => {
                    peak.push(controller(bench, "charge", &["memory.max_usage_in_bytes", "memory.peak"]) / 1024.0);
                    now.push(controller(bench, "charge", &["memory.usage_in_bytes", "memory.current"]) / 1024.0);
                    let _ = bench.end(who, &Alive { id: "charge".into(), pid });
                }
                Err(message) => error = Some(message),
            }
        }
        let row = |values: &[f64]| error.as_ref().map_or_else(|| figure(values), |error| json!({ "error": error }));
        peaks.push((who.name.to_owned(), row(&peak)));
        kept.push((who.name.to_owned(), row(&now)));
    }
    bench.figures("charge-peak", "charged to the container's cgroup before exec, at most", "KiB", peaks);
    bench.figures("charge", "charged to the container's cgroup after create", "KiB", kept);
    Ok(())
}

/// A number from a file of the container's cgroup, whatever it is called here.
fn controller(bench: &Bench, id: &str, names: &[&str]) -> f64 {
    let groups = bench.groups();
    let paths = groups.iter().flat_map(|group| names.iter().map(move |name| group.join(id).join(name)));
    paths.into_iter().find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok()).unwrap_or(0.0)
}

/// The lowest limits under which `true` runs: with five successes in a row, as luck is no limit.
fn limits(bench: &mut Bench) -> Result<()> {
    const STEP: u64 = 64 << 10;
    const MOST: u64 = 1024;
    let (mut memory, mut pids) = (Vec::new(), Vec::new());
    for who in bench.contenders.clone().iter().filter(|who| !who.is_floor()) {
        let works = |bench: &Bench, key: &str, value: u64| -> Result<bool> {
            let bundle =
                bench.bundle("limits", |config| config["linux"]["resources"][key] = json!({ "limit": value }))?;
            Ok((0..5).all(|_| {
                let done = bench.run(who, &bundle, "limits", &[]).is_ok();
                if !done {
                    let _ = bench.step(who, &["delete", "--force", "limits"], "limits");
                }
                done
            }))
        };
        let (mut low, mut high) = (0, MOST);
        if !works(bench, "memory", high * STEP)? {
            let why = fs::read_to_string(bench.log("limits")).unwrap_or_default();
            memory.push((who.name.to_owned(), json!({ "error": format!("fails with 64 MiB: {}", why.trim()) })));
            continue;
        }
        while high - low > 1 {
            let middle = (low + high) / 2;
            if works(bench, "memory", middle * STEP)? { high = middle } else { low = middle }
        }
        memory.push((who.name.to_owned(), json!({ "value": high * STEP / 1024 })));
        let lowest = (1..40).find(|count| works(bench, "pids", *count).unwrap_or(false));
        pids.push((
            who.name.to_owned(),
            lowest.map_or(json!({ "error": "none below 40" }), |count| json!({ "value": count })),
        ));
    }
    bench.figures("limit-memory", "lowest memory limit that runs true", "KiB", memory);
    bench.figures("limit-pids", "lowest pids limit that runs true", "pids", pids);
    Ok(())
}

impl Bench {
    /// One container before those that are counted.
    fn lifecycle_quietly(&self, who: &Contender, bundle: &Path) {
        if let Ok((_, alive)) = self.start_alive(who, bundle, "first") {
            let _ = self.end(who, &alive);
        }
    }
}
