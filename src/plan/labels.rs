//! Labels of Linux security modules, as config.json or the command line asks for them (config.md, "Linux Process").

use std::ffi::{CStr, CString};

use anyhow::{Result, bail};

use super::c_string;
use crate::error::invalid;
use crate::spec;

/// Which security modules this kernel has switched on; looked up only if a label is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Modules {
    pub(crate) apparmor: bool,
    pub(crate) selinux: bool,
}

/// A label and who asked for it, as an error names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) text: CString,
    pub(crate) asked_by: &'static str,
}

/// What the process is confined by from its execve(2) on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    /// A profile's name, or "unconfined".
    pub(crate) apparmor: Option<Label>,
    pub(crate) selinux: Option<Label>,
}

/// Which labels are those of options of `exec`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) apparmor: bool,
    pub(crate) selinux: bool,
}

impl Labels {
    /// Decides. A label for a module that isn't there is an error, "unconfined" too: nobody would be confined by it.
    pub(crate) fn new(process: &spec::Process, modules: Modules, options: Options) -> Result<Self> {
        Ok(Self {
            apparmor: label(
                &process.apparmor_profile,
                if options.apparmor { "--apparmor" } else { "config.json: /process/apparmorProfile" },
                modules.apparmor,
                "AppArmor is not enabled on this host",
            )?,
            selinux: label(
                &process.selinux_label,
                if options.selinux { "--process-label" } else { "config.json: /process/selinuxLabel" },
                modules.selinux,
                "SELinux is not enabled on this host",
            )?,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.apparmor.is_none() && self.selinux.is_none()
    }
}

fn label(text: &str, asked_by: &'static str, enabled: bool, otherwise: &str) -> Result<Option<Label>> {
    if text.is_empty() {
        return Ok(None);
    }
    if !enabled {
        bail!("{asked_by}: {text:?}: {otherwise}");
    }
    let Ok(text) = CString::new(text) else { bail!("{asked_by}: {text:?}: holds a NUL byte") };
    Ok(Some(Label { text, asked_by }))
}

/// What linux.mountLabel gives to the mounts of the container.
pub(crate) fn mount_label(text: &str, modules: Modules) -> Result<Option<CString>> {
    const POINTER: &str = "/linux/mountLabel";
    match text {
        "" => Ok(None),
        _ if !modules.selinux => Err(invalid(POINTER, format!("{text:?}: SELinux is not enabled on this host"))),
        text => c_string(text, POINTER).map(Some),
    }
}

/// What is written to AppArmor's `exec` file. Under no_new_privs a confined process may not take another profile in the
/// place of its own, only one in addition (as crun): the container is then confined by both.
///
/// `current`: the label of the runtime itself, as the module's `current` file shows it.
pub(crate) fn apparmor_command(profile: &CStr, current: Option<&[u8]>) -> Vec<u8> {
    // Exactly these two: a profile may be named "unconfined_x" (crun 1.29.1).
    let unconfined = |label: &[u8]| label == b"unconfined" || label.ends_with(b" (unconfined)");
    let confined = current.map(<[u8]>::trim_ascii_end).is_some_and(|label| !label.is_empty() && !unconfined(label));
    let verb: &[u8] = if confined && profile != c"unconfined" { b"stack " } else { b"exec " };
    [verb, profile.to_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Modules = Modules { apparmor: true, selinux: true };

    fn process(apparmor: &str, selinux: &str) -> spec::Process {
        spec::Process { apparmor_profile: apparmor.into(), selinux_label: selinux.into(), ..Default::default() }
    }

    #[test]
    fn a_label_needs_its_module() {
        let new = |it: &spec::Process, modules| Labels::new(it, modules, Options::default());
        assert!(new(&process("", ""), Modules::default()).unwrap().is_empty());
        let labels = new(&process("p", "a:b:c:s0"), ALL).unwrap();
        assert_eq!(labels.apparmor.unwrap().text.as_c_str(), c"p");
        assert_eq!(labels.selinux.unwrap().text.as_c_str(), c"a:b:c:s0");
        for profile in ["p", "unconfined"] {
            let error = new(&process(profile, ""), Modules { apparmor: false, selinux: true }).unwrap_err().to_string();
            let expected = format!("config.json: /process/apparmorProfile: {profile:?}: AppArmor is not enabled");
            assert!(error.starts_with(&expected), "{error}");
        }
        let error = new(&process("", "a:b"), Modules { apparmor: true, selinux: false }).unwrap_err().to_string();
        assert!(error.starts_with("config.json: /process/selinuxLabel: \"a:b\": SELinux is not enabled"), "{error}");
    }

    #[test]
    fn an_option_is_named_by_its_own_name() {
        let options = Options { apparmor: true, selinux: true };
        let error = |it: &spec::Process| Labels::new(it, Modules::default(), options).unwrap_err().to_string();
        assert!(error(&process("p", "")).starts_with("--apparmor: \"p\": "));
        assert!(error(&process("", "l")).starts_with("--process-label: \"l\": "));
    }

    #[test]
    fn a_mount_label_needs_selinux() {
        assert_eq!(mount_label("", Modules::default()).unwrap(), None);
        assert_eq!(mount_label("a:b", ALL).unwrap(), Some(c"a:b".into()));
        let error = mount_label("a:b", Modules { apparmor: true, selinux: false }).unwrap_err().to_string();
        assert!(error.starts_with("config.json: /linux/mountLabel: \"a:b\": "), "{error}");
    }

    #[test]
    fn a_confined_runtime_adds_a_profile_and_never_leaves_its_own() {
        for (current, expected) in [
            (None, "exec p"),
            (Some("unconfined\n"), "exec p"),
            (Some("lxc-x (unconfined)\n"), "exec p"),
            (Some(""), "exec p"),
            (Some("outer (enforce)\n"), "stack p"),
            (Some("unconfined_x (enforce)"), "stack p"),
            (Some("unconfined_x"), "stack p"),
        ] {
            assert_eq!(apparmor_command(c"p", current.map(str::as_bytes)), expected.as_bytes(), "{current:?}");
        }
        // Said aloud by the kernel (EPERM), not turned into something else.
        assert_eq!(apparmor_command(c"unconfined", Some(b"outer (enforce)")), b"exec unconfined");
    }
}
