use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use super::{finish, tare};

/// The write end of something that nobody reads any more.
fn unread() -> Stdio {
    let (_reader, writer) = UnixStream::pair().unwrap();
    OwnedFd::from(writer).into()
}

#[test]
fn reader_that_went_away_is_a_silent_failure() {
    for line in ["--version", "features", "--help", "create --help"] {
        let ran = finish(tare().args(line.split(' ')).stdout(unread()));
        assert_eq!((ran.status, ran.stderr.as_str()), (1, ""), "{line}");
    }
}

#[test]
fn full_disk_is_an_error() {
    let ran = finish(tare().arg("features").stdout(File::create("/dev/full").unwrap()));
    assert_eq!(ran.status, 1);
    assert_eq!(ran.stderr, "tare: write \"standard output\": no space left on device (ENOSPC)\n");
}

#[test]
fn stderr_that_nobody_reads_changes_nothing() {
    assert_eq!(tare().arg("bogus").stderr(unread()).status().unwrap().code(), Some(1));
}

#[test]
fn closed_descriptors_change_nothing() {
    let program = tare().get_program().to_owned();
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(&program).stdin(Stdio::null());
        finish(&mut command)
    };
    assert_eq!(shell("\"$1\" --version >&- 2>&- <&-").status, 0);
    assert_eq!(shell("\"$1\" bogus >&- 2>&- <&-").status, 1);
    assert_eq!(shell("\"$1\" bogus 2>&-").stdout, "");
}
