//! What `fuzz/` calls (cfg(fuzzing), and the unit tests): each takes any bytes, and must neither panic nor loop; what it
//! makes of them must hold what the code that follows relies on.

use crate::cgroup::Manager;
use crate::host::Host;
use crate::init;
use crate::plan::options::Parsed;
use crate::plan::task::Passed;
use crate::plan::{Plan, Request};
use crate::spec::{self, IdMapping, Linux, Mount, Spec};

/// A whole config.json: parsed, checked, and planned as root on a host without cgroups.
pub fn config(data: &[u8]) {
    let Ok(spec) = spec::load::parse(data) else { return };
    let known = spec::validate::validate(&spec).and_then(|_| spec::validate::runnable(&spec));
    if known.is_ok() {
        let host = Host { initial_user_namespace: true, capabilities: u64::MAX, all_root: true, ..Host::default() };
        let request = Request {
            id: "fuzz".into(),
            bundle: "/bundle".into(),
            manager: Manager::Disabled,
            rootless: false,
            no_pivot: false,
            delegated: None,
            passed: Passed::default(),
            notify: Some("/run/notify".into()),
        };
        let _ = Plan::new(&spec, &host, &request);
    }
}

/// A seccomp profile: what it compiles to is a program that the kernel takes.
pub fn seccomp(data: &[u8]) {
    let Ok(profile) = serde_json::from_slice::<spec::Seccomp>(data) else { return };
    let Ok((filter, _)) = crate::seccomp::compile(&profile) else { return };
    let program = &filter.program;
    // BPF_MAXINSNS; seccomp(2).
    assert!((1..=4096).contains(&program.len()), "{} instructions", program.len());
    const JUMP: u16 = 0x05;
    const RETURN: u16 = 0x06;
    for (at, insn) in program.iter().enumerate() {
        let class = insn.code & 0x07;
        let left = program.len() - at - 1;
        match (class, insn.code & 0xf0) {
            (JUMP, 0) => assert!((insn.k as usize) < left, "instruction {at} jumps behind the end"),
            (JUMP, _) => assert!((insn.jt.max(insn.jf) as usize) < left, "instruction {at} jumps behind the end"),
            (RETURN, _) => {}
            _ => assert!(left > 0, "the program doesn't end in a return"),
        }
    }
}

/// Mount options, one a line.
pub fn options(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mount = Mount {
        destination: "/a".into(),
        source: "/b".into(),
        kind: "tmpfs".into(),
        options: text.lines().map(str::to_owned).collect(),
        ..Mount::default()
    };
    let parsed = Parsed::of(&mount);
    let _ = (parsed.data_string(), parsed.ms_flags());
    assert_eq!(parsed.attrs.set & parsed.attrs.clear & !0x70, 0, "an attribute is both set and cleared");
}

/// Ranges, twelve bytes each: what is accepted neither overflows nor overlaps.
pub fn idmaps(data: &[u8]) {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
    let mappings: Vec<IdMapping> = data
        .chunks_exact(12)
        .map(|entry| {
            let (container_id, rest) = entry.split_at(4);
            let (host_id, size) = rest.split_at(4);
            IdMapping { container_id: number(container_id), host_id: number(host_id), size: number(size) }
        })
        .collect();
    let namespaces = vec![spec::Namespace { kind: "user".into(), ..spec::Namespace::default() }];
    let linux =
        Linux { uid_mappings: mappings.clone(), gid_mappings: mappings.clone(), namespaces, ..Linux::default() };
    let spec = Spec { oci_version: "1.0.2".into(), linux, ..Spec::default() };
    if spec::validate::validate(&spec).is_err() {
        return;
    }
    for first in [|mapping: &IdMapping| mapping.container_id, |mapping: &IdMapping| mapping.host_id] {
        let mut ranges: Vec<(u64, u64)> =
            mappings.iter().map(|m| (u64::from(first(m)), u64::from(first(m)) + u64::from(m.size))).collect();
        ranges.sort_unstable();
        assert!(ranges.iter().all(|(start, end)| start < end && *end <= u64::from(u32::MAX)), "{ranges:?}");
        assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{ranges:?}");
    }
}

/// /etc/passwd of an image.
pub fn passwd(data: &[u8]) {
    for uid in [0, 1000, u32::MAX - 1] {
        assert_ne!(init::home_in(data, uid), Some(Vec::new()), "an empty home");
    }
}

/// Signals, and names of containers: what is accepted is one path component.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(signal) = crate::signal::parse(text) {
        assert!((0..=64).contains(&signal), "{signal}");
        let name = crate::signal::name(signal);
        assert!(name == format!("signal {signal}") || crate::signal::parse(&name).ok() == Some(signal), "{name}");
    }
    if text.parse::<crate::cli::Id>().is_ok() {
        let mut components = std::path::Path::new(text).components();
        assert!(matches!(components.next(), Some(std::path::Component::Normal(_))) && components.next().is_none());
        assert!(text.len() <= 1024 && !text.contains(['/', '\0', '\n']));
    }
}

#[cfg(test)]
mod tests {
    // Also keeps what only `fuzz/` uses compiling.
    #[test]
    fn the_corpus_is_fine() {
        /// What is called with each seed.
        type Target = fn(&[u8]);
        let targets: [(&str, Target); 6] = [
            ("config", super::config),
            ("seccomp", super::seccomp),
            ("options", super::options),
            ("idmaps", super::idmaps),
            ("passwd", super::passwd),
            ("names", super::names),
        ];
        for (name, target) in targets {
            let seeds = std::fs::read_dir(format!("{}/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
            let seeds: Vec<_> = seeds.map(|seed| std::fs::read(seed.unwrap().path()).unwrap()).collect();
            assert!(!seeds.is_empty(), "{name}");
            seeds.iter().for_each(|seed| target(seed));
        }
    }
}
