//! Labels of security modules that the host hasn't: asked for, they are an error, never ignored. `apparmor.rs` has what
//! happens where there is one.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::common::{Container, assert_has};
use crate::{container_test, skip_for_runc, skip_unless};

const LABEL: &str = "system_u:system_r:container_t:s0:c1,c2";

pub(super) fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// The error of an `exec` that must fail, and leave the container as it is.
fn exec_fails(c: &Container, words: &[&str], part: &str) {
    let mut all = vec!["exec"];
    all.extend(words);
    let output = c.tare(&all).exits(255);
    assert_eq!((output.stdout.as_str(), output.stderr.lines().count()), ("", 1), "{output}");
    assert_has(&output.stderr, part);
    assert_eq!(c.status(), "running");
}

container_test!(an_apparmor_profile_needs_apparmor, |c| {
    skip_for_runc!(c, "its words are others");
    skip_unless!(c, !has_apparmor(), "this host has AppArmor");
    for profile in ["no-such-profile", "unconfined"] {
        c.set("/process/apparmorProfile", profile);
        for output in [c.create(), c.run()] {
            output.fails(&["config.json: /process/apparmorProfile: ", profile, "AppArmor is not enabled"]);
            c.assert_clean();
        }
    }
});

container_test!(an_selinux_label_needs_selinux, |c| {
    skip_for_runc!(c, "its words are others");
    skip_unless!(c, !has_selinux(), "this host has SELinux");
    let good = c.config.clone();
    for pointer in ["/process/selinuxLabel", "/linux/mountLabel"] {
        c.config = good.clone();
        c.set(pointer, LABEL);
        for output in [c.create(), c.run()] {
            output.fails(&[&format!("config.json: {pointer}: "), LABEL, "SELinux is not enabled"]);
            c.assert_clean();
        }
    }
});

container_test!(labels_of_exec_need_their_module_too, |c| {
    skip_for_runc!(c, "its words are others");
    c.args(&["sleep-forever"]);
    c.detach().ok();
    let mut process = c.config["process"].clone();
    process["args"] = json!(["/guest", "true"]);
    let file = c.path("process.json");
    let mut case = |option: &str, property: &str, label: &str, module: &str| {
        let part = format!("{option}: {label:?}: {module} is not enabled");
        exec_fails(c, &[option, label, &c.id, "/guest", "true"], &part);
        process[property] = json!(label);
        fs::write(&file, process.to_string()).unwrap();
        let part = format!("/process/{property}: {label:?}: {module} is not enabled");
        exec_fails(c, &["--process", file.to_str().unwrap(), &c.id], &part);
        process.as_object_mut().unwrap().remove(property);
        // An empty one asks for nothing.
        c.tare(&["exec", option, "", &c.id, "/guest", "true"]).ok();
    };
    if !has_apparmor() {
        case("--apparmor", "apparmorProfile", "no-such-profile", "AppArmor");
    }
    if !has_selinux() {
        case("--process-label", "selinuxLabel", LABEL, "SELinux");
    }
});
