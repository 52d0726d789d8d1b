use nix::unistd::Pid;

use super::identity::{Stat, parse_stat};
use super::*;
use crate::sys::clone::pidfd_open;

#[test]
fn stat_is_read_after_the_last_parenthesis() {
    let stat = b"12 (a) S (b)) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21";
    assert_eq!(parse_stat(stat), Some(Stat { letter: b'Z', flags: 6, threads: 17, start_time: 4242 }));
    assert_eq!(parse_stat(b""), None);
    assert_eq!(parse_stat(b"1 (x"), None);
}

#[test]
fn this_process_is_alive_and_another_start_time_is_not() {
    let pidfd = pidfd_open(Pid::this()).unwrap();
    let (me, _) = Identity::of_new(Pid::this(), pidfd.as_fd()).unwrap();
    let own = Identity::own().unwrap();
    assert_eq!((own.pid, own.start_time), (me.pid, me.start_time));
    assert!(me.alive());
    let recycled = Identity { start_time: me.start_time + 1, ..me };
    assert!(!recycled.alive());
    assert!(recycled.pidfd().unwrap().is_none());
    assert!(!recycled.signal(0).unwrap());
    assert!(me.signal(0).unwrap());
}

#[test]
fn whether_a_program_was_executed_is_told() {
    use crate::sys::clone::{CStrings, Cloned, execve_errno, fork};
    assert_eq!(Identity::own().unwrap().seen().unwrap().has_not_executed(), Some(false));
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let (argv, none) = (CStrings::new(vec![c"sleep".into(), c"1000".into()]), CStrings::new(Vec::new()));
    match fork().unwrap() {
        Cloned::Child => {
            drop(writer);
            let _ = nix::unistd::read(&reader, &mut [0]);
            execve_errno(c"/bin/sleep", &argv, &none);
            sys::exit(1)
        }
        Cloned::Parent { pid, pidfd } => {
            let (identity, seen) = Identity::of_new(pid, pidfd.as_fd()).unwrap();
            assert_eq!(seen.has_not_executed(), Some(true));
            drop((reader, writer));
            while identity.seen().unwrap().has_not_executed() == Some(true) {}
            identity.signal(libc::SIGKILL).unwrap();
            sys::clone::wait(pid).unwrap();
            assert!(identity.seen().is_none());
        }
    }
}

#[test]
fn an_id_is_claimed_once_and_removed_whole() {
    let root = tempfile::tempdir().unwrap();
    let (folder, lock) = Folder::claim(root.path(), "one").unwrap();
    let again = Folder::claim(root.path(), "one").unwrap_err().to_string();
    assert!(again.contains(phrase::ALREADY_EXISTS), "{again}");
    assert!(Folder::open(root.path(), "one").unwrap().try_lock().unwrap().is_none());
    drop(lock);
    assert!(folder.read().unwrap().is_none());
    let gate = folder.make_gate().unwrap();
    assert!(folder.open_gate().unwrap().is_some());
    drop(gate);
    assert!(folder.open_gate().unwrap().is_none());
    folder.remove().unwrap();
    assert!(Folder::find(root.path(), "one").unwrap().is_none());
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn a_lock_on_a_removed_folder_says_that_it_does_not_exist() {
    let root = tempfile::tempdir().unwrap();
    let (folder, lock) = Folder::claim(root.path(), "x").unwrap();
    let other = Folder::open(root.path(), "x").unwrap();
    drop(lock);
    folder.remove().unwrap();
    let error = other.lock().unwrap_err().to_string();
    assert!(error.contains(phrase::DOES_NOT_EXIST), "{error}");
}
