//! proc(5) mountinfo, as the probe reports it.

use serde_json::Value;

use super::strings;

/// One mount.
#[derive(Debug, Clone)]
pub struct Mount {
    pub root: String,
    pub point: String,
    pub options: Vec<String>,
    /// `shared:1`, `master:2`, `unbindable`.
    pub propagation: Vec<String>,
    pub fstype: String,
    pub source: String,
    pub super_options: Vec<String>,
}

impl Mount {
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|have| have == option)
    }

    pub fn super_has(&self, option: &str) -> bool {
        self.super_options.iter().any(|have| have == option)
    }

    /// `shared`, `slave`, `unbindable`, or nothing: private.
    pub fn propagates(&self, kind: &str) -> bool {
        self.propagation.iter().any(|have| have.starts_with(kind))
    }
}

fn parse(line: &str) -> Mount {
    let words: Vec<&str> = line.split(' ').collect();
    let dash = words.iter().position(|word| *word == "-").unwrap();
    let list = |text: &str| text.split(',').map(str::to_owned).collect();
    Mount {
        root: words[3].into(),
        point: words[4].into(),
        options: list(words[5]),
        propagation: words[6..dash].iter().map(|word| (*word).to_owned()).collect(),
        fstype: words[dash + 1].into(),
        source: words[dash + 2].into(),
        super_options: list(words[dash + 3]),
    }
}

/// All mounts of the probe's facts.
pub fn all(facts: &Value) -> Vec<Mount> {
    strings(&facts["mountinfo"]).iter().map(|line| parse(line)).collect()
}

/// The topmost mount at a path.
#[track_caller]
pub fn at(facts: &Value, point: &str) -> Mount {
    let found = all(facts).into_iter().rfind(|mount| mount.point == point);
    found.unwrap_or_else(|| panic!("nothing is mounted at {point}:\n{}", strings(&facts["mountinfo"]).join("\n")))
}
