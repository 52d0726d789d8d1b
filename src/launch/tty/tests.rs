use std::io::IoSlice;
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::termios::{InputFlags, LocalFlags};

use super::*;

/// A terminal, with a size to tell it by: master and slave.
pub(in crate::launch) fn pty(rows: u16) -> (OwnedFd, OwnedFd) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = open("/dev/ptmx", flags, Mode::empty()).unwrap();
    sys::tty::unlock(master.as_fd()).unwrap();
    let slave = sys::tty::peer(master.as_fd()).unwrap();
    set_size(master.as_fd(), libc::winsize { ws_row: rows, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    (master, slave)
}

fn rows(fd: &OwnedFd) -> u16 {
    size(fd.as_fd()).unwrap().ws_row
}

#[test]
fn a_terminal_arrives_and_leaves_newlines_alone() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (master, slave) = pty(41);
    send(theirs.into(), b"/dev/pts/ptmx", master.as_fd()).unwrap();
    let received = receive(ours.as_fd()).unwrap();
    drop(master);
    assert!(!tcgetattr(&slave).unwrap().output_flags.contains(OutputFlags::ONLCR));
    assert_eq!(rows(&received), rows(&slave));
    let flags = nix::fcntl::fcntl(&received, nix::fcntl::FcntlArg::F_GETFD).unwrap();
    assert_eq!(flags, libc::FD_CLOEXEC);
}

#[test]
fn what_is_not_one_terminal_is_refused() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (master, _slave) = pty(1);
    let fds = [master.as_raw_fd(), master.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(theirs.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None).unwrap();
    let text = receive(ours.as_fd()).unwrap_err().to_string();
    assert_eq!(text, "expected a terminal from the container process, got 1 bytes and 2 descriptors");
    let file = tempfile::tempfile().unwrap();
    send(theirs.try_clone().unwrap().into(), b"x", file.as_fd()).unwrap();
    let text = receive(ours.as_fd()).unwrap_err().to_string();
    assert!(text.ends_with("(ENOTTY)"), "{text}");
    drop(theirs);
    let text = receive(ours.as_fd()).unwrap_err().to_string();
    assert!(text.ends_with("got 0 bytes and 0 descriptors"), "{text}");
}

#[test]
fn sending_to_a_reader_that_is_gone_is_an_error_and_no_signal() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(ours);
    let (master, _slave) = pty(1);
    let text = send(theirs.try_clone().unwrap().into(), b"x", master.as_fd()).unwrap_err().to_string();
    assert!(text.contains("EPIPE"), "{text}");
    assert!(send(theirs.into(), b"", master.as_fd()).is_err());
}

#[test]
fn a_socket_is_reached_by_any_path() {
    let folder = tempfile::tempdir().unwrap();
    let deep = (0..10).fold(folder.path().to_owned(), |path, _| path.join("d".repeat(30)));
    std::fs::create_dir_all(&deep).unwrap();
    // A listener can't be bound by a long path: it is moved there.
    let listener = UnixListener::bind(folder.path().join("short")).unwrap();
    let (master, _slave) = pty(1);
    for name in ["s".to_owned(), "n".repeat(200)] {
        let path = deep.join(&name);
        std::fs::hard_link(folder.path().join("short"), &path).unwrap();
        for path in [folder.path().join("short"), path] {
            let socket = connect(&path).unwrap();
            send(socket, b"/dev/pts/ptmx", master.as_fd()).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            receive(accepted.as_fd()).unwrap();
        }
    }
}

#[test]
fn an_error_names_the_option_and_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let short = folder.path().join("none");
    let long = folder.path().join("n".repeat(200));
    for path in [&short, &long] {
        let text = format!("{:#}", connect(path).unwrap_err());
        assert!(text.starts_with(&format!("--console-socket: {path:?}: ")), "{text}");
        assert!(text.ends_with("no such file or directory (ENOENT)"), "{text}");
    }
    std::fs::write(&short, "").unwrap();
    let text = format!("{:#}", connect_for("--pidfd-socket", &short).unwrap_err());
    assert!(text.starts_with("--pidfd-socket: ") && text.contains("ECONNREFUSED"), "{text}");
}

#[test]
fn raw_mode_ends_with_its_guard() {
    let (_master, slave) = pty(1);
    let before = tcgetattr(&slave).unwrap();
    let guard = Raw::of(slave.as_fd()).unwrap().unwrap();
    let raw = tcgetattr(&slave).unwrap();
    assert!(!raw.local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG));
    assert!(!raw.input_flags.intersects(InputFlags::ICRNL | InputFlags::IXON));
    assert!(raw.output_flags.contains(OutputFlags::OPOST));
    drop(guard);
    assert_eq!(tcgetattr(&slave).unwrap(), before);
}

#[test]
fn what_is_no_terminal_stays_as_it_is() {
    assert!(Raw::of(tempfile::tempfile().unwrap().as_fd()).unwrap().is_none());
}
