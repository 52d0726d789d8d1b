//! One test for each class of flaw that a container runtime has had, named after its CVE. SECURITY.md lists them all.
//!
//! Each says how it was seen to fail: against a build with that defence taken out, or against a rival that lacks it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    dead_code
)]

mod common;

mod security {
    mod bounds;
    mod cleanup;
    mod covers;
    mod cve_2019_5736;
    mod denied;
    mod dev;
    mod exec;
    mod gate;
    mod handed;
    mod host_mounts;
    mod hostile;
    mod mounts;
    mod proc;
    mod trust;

    use std::fs::File;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::JoinHandle;

    use serde_json::json;

    use crate::common::Container;

    /// Starts the container with a payload that sleeps.
    fn sleep(c: &mut Container) {
        c.args(&["sleep-forever"]);
        c.detach().ok();
    }

    /// A user namespace, and a root file system that its root owns.
    fn map(c: &mut Container) {
        const BASE: u32 = 300_000;
        c.push("/linux/namespaces", json!({ "type": "user" }));
        let mapping = json!([{ "containerID": 0, "hostID": BASE, "size": 65536 }]);
        c.set("/linux/uidMappings", mapping.clone()).set("/linux/gidMappings", mapping);
        for name in ["", "proc", "sys", "dev", "tmp"] {
            std::os::unix::fs::chown(c.rootfs().join(name), Some(BASE), Some(BASE)).unwrap();
        }
    }

    /// Somebody who exchanges two files all the time, until this is dropped.
    struct Flips {
        stop: Arc<AtomicBool>,
        thread: Option<JoinHandle<()>>,
    }

    impl Flips {
        fn start(one: &Path, other: &Path) -> Self {
            // Held open, and no link on the way: a planted one may lead to the host's own files.
            let places = [one, other].map(|path| {
                let (parent, name) = (path.parent().unwrap(), path.file_name().unwrap());
                assert_eq!(parent.canonicalize().unwrap(), parent, "a link on the way to {}", path.display());
                (File::open(parent).unwrap(), PathBuf::from(name))
            });
            let stop = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&stop);
            let exchange = move || {
                let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                let [(one_dir, one), (other_dir, other)] = places;
                while !seen.load(Ordering::Relaxed) {
                    nix::fcntl::renameat2(&one_dir, &one, &other_dir, &other, flags).unwrap();
                }
            };
            Self { stop, thread: Some(std::thread::spawn(exchange)) }
        }
    }

    impl Drop for Flips {
        fn drop(&mut self) {
            self.stop.store(true, Ordering::Relaxed);
            let _ = self.thread.take().map(JoinHandle::join);
        }
    }
}
