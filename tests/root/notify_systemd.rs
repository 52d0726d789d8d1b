//! Containers as services of a real service manager: `Type=notify`, and the process that it takes for the main one.

use std::process::Command;

use crate::common::program::{Output, finish};
use crate::common::{Container, eventually, tare};
use crate::{container_test, skip_unless};

/// A transient service; stopped and forgotten at the end.
struct Service<'a> {
    c: &'a Container,
    name: String,
}

impl<'a> Service<'a> {
    /// Starts it with these words of the runtime; returns when the manager calls it started, or failed.
    fn start(c: &'a Container, words: &[&str]) -> (Self, Output) {
        let service = Self { c, name: format!("tare-test-{}-{}", std::process::id(), c.id) };
        c.write_config();
        let root = c.path("state");
        let mut command = Command::new("systemd-run");
        command.args(["--quiet", "--unit", &service.name, "--property=Type=notify", "--property=TimeoutStartSec=60"]);
        command.args(["--property=TimeoutStopSec=20", "--property=CollectMode=inactive-or-failed"]);
        command.arg(tare()).args(["--root", root.to_str().unwrap()]).args(words).arg(&c.id);
        let output = finish(command.current_dir(&c.dir), &c.dir);
        (service, output)
    }

    fn shows(&self, property: &str) -> String {
        let words = ["show", "--value", "--property", property, &self.name];
        finish(Command::new("systemctl").args(words), &self.c.dir).ok().stdout.trim().to_owned()
    }

    fn stop(&self) {
        finish(Command::new("systemctl").args(["stop", &self.name]), &self.c.dir).ok();
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        let mut stop = Command::new("systemctl");
        let _ = stop.args(["--quiet", "stop", &self.name]).stderr(std::process::Stdio::null()).status();
    }
}

/// Ready after it has said something else, and ended by SIGTERM.
const SERVICE: [&str; 12] = [
    "all",
    "notify",
    "STATUS=early",
    ",",
    "notify",
    "STATUS=up|READY=1",
    ",",
    "notify",
    "STATUS=later",
    ",",
    "catch",
    "0",
];

/// False where there is no systemd to start services.
fn systemd() -> bool {
    std::path::Path::new("/run/systemd/system").exists()
}

container_test!(a_foreground_run_is_the_service, |c| {
    skip_unless!(c, systemd(), "systemd isn't the host's first process");
    c.args(&[SERVICE.as_slice(), &["15"]].concat());
    let bundle = c.bundle();
    let (service, output) = Service::start(c, &["run", "--bundle", bundle.to_str().unwrap()]);
    output.ok();
    assert_eq!(service.shows("ActiveState"), "active");
    // Words that come after READY=1 arrive, too.
    eventually("the last status", || service.shows("StatusText") == "later");
    let main: i32 = service.shows("MainPID").parse().unwrap();
    assert_ne!(main, c.pid());
    let program = std::fs::read_to_string(format!("/proc/{main}/cmdline")).unwrap();
    assert!(program.contains("\0run\0"), "{program}");
    service.stop();
    c.assert_clean();
});

container_test!(the_container_of_a_detached_run_is_the_service, |c| {
    skip_unless!(c, systemd(), "systemd isn't the host's first process");
    c.args(&[SERVICE.as_slice(), &["15"]].concat());
    let bundle = c.bundle();
    let (service, output) = Service::start(c, &["run", "--detach", "--bundle", bundle.to_str().unwrap()]);
    output.ok();
    assert_eq!((service.shows("ActiveState"), service.shows("StatusText")), ("active".into(), "up".into()));
    assert_eq!(service.shows("MainPID"), c.pid().to_string());
    service.stop();
    c.wait_status("stopped");
});

container_test!(a_container_that_never_notifies_is_a_service_that_failed, |c| {
    skip_unless!(c, systemd(), "systemd isn't the host's first process");
    c.args(&["exit", "0"]);
    let bundle = c.bundle();
    let (_service, output) = Service::start(c, &["run", "--detach", "--bundle", bundle.to_str().unwrap()]);
    assert_ne!(output.code, 0, "{output}");
});
