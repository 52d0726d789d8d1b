//! One view of the host's cgroups, and what all workloads need in it: bundles, containers, rounds.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

use crate::bundle;
use crate::contender::{Contender, Result, own_program, quiet, timed};
use crate::stats::{Sample, Shuffle, paired_ratio, summary};
use crate::sys;

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub rounds: usize,
    /// Containers alive at once.
    pub alive: usize,
    /// Lifecycles of a round of the parallel workload, 64 at a time.
    pub lifecycles: usize,
}

#[derive(Debug)]
pub struct Bench {
    /// A file system in memory that ends with this process.
    pub dir: PathBuf,
    /// The cgroup above all containers, from the root of each hierarchy.
    pub group: String,
    /// Where the hierarchies are: of v1 with memory and pids, or v2.
    pub hierarchies: Vec<PathBuf>,
    pub contenders: Vec<Contender>,
    pub size: Size,
    pub shuffle: Shuffle,
    /// The report so far.
    pub results: Vec<Value>,
}

/// A running container of the payload.
#[derive(Debug)]
pub struct Alive {
    pub id: String,
    pub pid: i32,
}

impl Bench {
    pub fn new(dir: &Path, hierarchies: Vec<PathBuf>, contenders: Vec<Contender>, size: Size) -> Result<Self> {
        let text = |error: std::io::Error| error.to_string();
        fs::create_dir_all(dir).map_err(text)?;
        sys::mount("tmpfs", dir, "tmpfs", 0, "mode=755").map_err(text)?;
        for folder in ["state", "bundles", "rootfs"] {
            fs::create_dir(dir.join(folder)).map_err(text)?;
        }
        bundle::make_rootfs(&dir.join("rootfs"), &own_program("payload")).map_err(text)?;
        let group = format!("/tare-bench-{}", std::process::id());
        let bench = Self {
            dir: dir.into(),
            group,
            hierarchies,
            contenders,
            size,
            shuffle: Shuffle(0x5eed_1234_5678),
            results: Vec::new(),
        };
        for folder in bench.groups() {
            fs::create_dir(&folder).map_err(|error| format!("{folder:?}: {error}"))?;
        }
        Ok(bench)
    }

    pub fn groups(&self) -> Vec<PathBuf> {
        self.hierarchies.iter().map(|root| root.join(&self.group[1..])).collect()
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// A bundle of the engine's, changed.
    pub fn bundle(&self, name: &str, change: impl FnOnce(&mut Value)) -> Result<PathBuf> {
        let mut config = bundle::engine(&self.rootfs(), &format!("{}/{name}", self.group));
        change(&mut config);
        bundle::write(&self.dir.join("bundles").join(name), &config).map_err(|error| error.to_string())
    }

    pub fn log(&self, id: &str) -> PathBuf {
        self.dir.join(format!("log-{id}"))
    }

    /// A command of a runtime, with its own folder for state.
    pub fn command(&self, who: &Contender, words: &[&str]) -> Command {
        let mut command = quiet(&who.path);
        command.arg("--root").arg(self.dir.join("state").join(who.name)).args(words);
        command
    }

    pub fn step(&self, who: &Contender, words: &[&str], id: &str) -> Result<Sample> {
        timed(&mut self.command(who, words), &self.log(id))
    }

    /// `run` in the foreground; the floor has no bundle, and is told what of it differs.
    pub fn run(&self, who: &Contender, bundle: &Path, id: &str, floor: &[&str]) -> Result<Sample> {
        if who.is_floor() {
            let cgroup = self.groups()[0].join(format!("floor-{id}"));
            let mut command = quiet(&who.path);
            command.arg("run").arg(self.rootfs()).arg(cgroup).args(floor);
            return timed(&mut command, &self.log(id));
        }
        self.step(who, &["run", "--bundle", path(bundle), id], id)
    }

    /// `create`: what it took, the part of the container's process included, and that process.
    pub fn create(&self, who: &Contender, bundle: &Path, id: &str) -> Result<(Sample, i32)> {
        let file = self.dir.join(format!("pid-{id}"));
        let mut sample = self.step(who, &["create", "--bundle", path(bundle), "--pid-file", path(&file), id], id)?;
        let text = fs::read_to_string(&file).map_err(|error| format!("pid file: {error}"))?;
        let pid = text.trim().parse().map_err(|_| format!("pid file: {text:?}"))?;
        // Nanoseconds on a processor, as the scheduler counts them.
        let stat = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
        sample.cpu += stat.split(' ').next().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0) / 1000.0;
        Ok((sample, pid))
    }

    /// `create`, `start`, the end of the program, `delete`: what each of the three took.
    pub fn lifecycle(&self, who: &Contender, bundle: &Path, id: &str) -> Result<[Sample; 3]> {
        let (create, pid) = self.create(who, bundle, id)?;
        let start = self.step(who, &["start", id], id)?;
        sys::wait4(pid).map_err(|error| format!("wait for {pid}: {error}"))?;
        let delete = self.step(who, &["delete", id], id)?;
        Ok([create, start, delete])
    }

    pub fn start_alive(&self, who: &Contender, bundle: &Path, id: &str) -> Result<(Sample, Alive)> {
        let (create, pid) = self.create(who, bundle, id)?;
        let start = self.step(who, &["start", id], id)?;
        Ok((create + start, Alive { id: id.into(), pid }))
    }

    pub fn end(&self, who: &Contender, alive: &Alive) -> Result<()> {
        sys::kill(alive.pid);
        let _ = sys::wait4(alive.pid);
        self.step(who, &["delete", &alive.id], &alive.id).map(drop)
    }

    /// A command on a new terminal, which must say nothing: nobody reads it.
    pub fn on_terminal(&self, mut command: Command, id: &str) -> Result<Sample> {
        let (master, slave) = sys::open_terminal().map_err(|error| error.to_string())?;
        let copy = || slave.try_clone().map(Stdio::from).map_err(|error| error.to_string());
        command.stdin(copy()?).stdout(copy()?);
        let sample = timed(&mut command, &self.log(id));
        debug_assert!(master.as_raw_fd() > 2);
        sample
    }

    /// Everybody once a round, in a new order each time; who fails is out. Each name is a row of what `one` returns.
    pub fn interleave(
        &mut self,
        names: &[(&str, &str)],
        rounds: usize,
        floor: bool,
        mut one: impl FnMut(&Self, &Contender, usize) -> Result<Vec<Sample>>,
    ) {
        const WARM_UP: usize = 2;
        let who: Vec<Contender> = self.contenders.iter().filter(|it| floor || !it.is_floor()).cloned().collect();
        let mut samples: Vec<Vec<Vec<Sample>>> = vec![vec![Vec::new(); who.len()]; names.len()];
        let mut errors: Vec<Option<String>> = vec![None; who.len()];
        eprintln!("bench: {} ({rounds} rounds)", names.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "));
        for round in 0..rounds + WARM_UP {
            for index in self.shuffle.order(who.len()) {
                if errors[index].is_some() {
                    continue;
                }
                match one(self, &who[index], round) {
                    Err(error) => {
                        eprintln!("bench: {}: {error}", who[index].name);
                        errors[index] = Some(error);
                    }
                    Ok(taken) if round >= WARM_UP => {
                        for (row, sample) in taken.into_iter().enumerate() {
                            samples[row][index].push(sample);
                        }
                    }
                    Ok(_) => {}
                }
            }
        }
        for ((name, title), samples) in names.iter().zip(&samples) {
            self.results.push(workload(name, title, &who, samples, &errors));
        }
    }

    /// A row of figures that isn't about time: contender, value.
    pub fn figures(&mut self, name: &str, title: &str, unit: &str, rows: Vec<(String, Value)>) {
        let rows: Vec<Value> =
            rows.into_iter().map(|(who, value)| json!({ "contender": who, "value": value })).collect();
        self.results.push(json!({ "name": name, "title": title, "unit": unit, "figures": rows }));
    }
}

pub fn path(path: &Path) -> &str {
    path.to_str().expect("paths of the bench are its own")
}

fn column(samples: &[Sample], of: fn(&Sample) -> f64) -> Vec<f64> {
    samples.iter().map(of).collect()
}

fn workload(name: &str, title: &str, who: &[Contender], samples: &[Vec<Sample>], errors: &[Option<String>]) -> Value {
    let wall: fn(&Sample) -> f64 = |it| it.wall;
    let cpu: fn(&Sample) -> f64 = |it| it.cpu;
    let at = |name: &str| who.iter().position(|it| it.name == name).filter(|at| errors[*at].is_none());
    let results = who.iter().enumerate().map(|(index, it)| {
        if let Some(error) = &errors[index] {
            return json!({ "contender": it.name, "error": error });
        }
        let own = &samples[index];
        let mut row = json!({
            "contender": it.name, "wall": summary(&column(own, wall)), "cpu": summary(&column(own, cpu)),
            "faults": summary(&column(own, |it| it.faults)), "walls": column(own, wall),
        });
        for (key, other) in [("crun", at("crun")), ("floor", at("floor"))] {
            let Some(other) = other else { continue };
            let mut ratios = Map::new();
            for (word, of) in [("wall", wall), ("cpu", cpu)] {
                ratios.insert(word.into(), json!(paired_ratio(&column(own, of), &column(&samples[other], of))));
            }
            row[format!("to_{key}")] = ratios.into();
        }
        row
    });
    json!({ "name": name, "title": title, "unit": "us", "results": results.collect::<Vec<_>>() })
}
