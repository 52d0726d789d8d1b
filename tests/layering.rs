//! The walls between the stages, which `lib.rs` describes: what only decides never reaches for what acts, `unsafe` has one
//! address, and no file grows beyond what one wants to live in.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Every Rust file below a folder.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "{folder} is empty");
    found
}

fn is_test(path: &Path) -> bool {
    let in_tests = path.components().any(|part| part.as_os_str() == "tests");
    in_tests || path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"))
}

/// The code of a file: no comments, and nothing from its tests on.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_decides_does_not_act() {
    let mut pure = files("src/plan");
    pure.extend(files("src/seccomp"));
    pure.extend(files("src/spec"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    pure.extend(["src/cgroup/knobs.rs", "src/cgroup/devices.rs"].map(|file| root.join(file)));
    let systemd = ["unit", "properties", "annotations", "wire"];
    pure.extend(systemd.map(|file| root.join(format!("src/cgroup/systemd/{file}.rs"))));
    for path in pure.iter().filter(|path| !is_test(path)) {
        let code = code(path);
        // The one stage that reads: the bundle's file.
        let reads = path.ends_with("spec/load.rs");
        for acting in ["crate::sys", "crate::launch", "crate::init", "crate::state", "crate::commands", "std::fs"] {
            assert!(reads || !code.contains(acting), "{} uses {acting}", path.display());
        }
    }
}

#[test]
fn unsafe_has_one_address() {
    for path in files("src") {
        let inside = path.components().any(|part| part.as_os_str() == "sys");
        let word = |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
        assert!(inside || !code(&path).lines().any(word), "{}", path.display());
    }
}

#[test]
fn the_process_stays_single_threaded() {
    // `setns` and `clone` depend on it, and so does the allocator (src/sys/heap.rs).
    for path in files("src") {
        for word in ["thread::spawn", "thread::scope", "thread::Builder", "CLONE_VM", "pthread_create"] {
            assert!(is_test(&path) || !code(&path).contains(word), "{}: {word}", path.display());
        }
    }
}

#[test]
fn no_file_is_one_that_nobody_wants_to_live_in() {
    for path in files("src").into_iter().chain(files("tests")) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 650, "{}: {lines} lines", path.display());
    }
}

#[test]
fn nothing_is_left_for_later() {
    for path in files("src") {
        let code = code(&path);
        for word in ["todo!(", "unimplemented!(", ".unwrap()", ".expect("] {
            assert!(is_test(&path) || !code.contains(word), "{}: {word}", path.display());
        }
    }
}
