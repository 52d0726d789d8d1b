//! A seccomp agent: takes listeners from a runtime over a unix socket and answers their notifications.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::Value;

/// What a system call gets in the kernel's place.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    Value(i64),
    Errno(i32),
    /// The kernel's own answer.
    Continue,
    /// The agent closes the listener.
    Leave,
}

#[derive(Debug, Default)]
struct Seen {
    /// The text that came with each listener, and what the listener is.
    messages: Vec<(Value, String)>,
    /// How often each system call was notified.
    calls: BTreeMap<i32, u32>,
}

/// Serves until it is dropped.
#[derive(Debug)]
pub struct Agent {
    pub path: PathBuf,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// `answer` decides by the number of the system call.
    pub fn start(path: &Path, answer: impl Fn(i64) -> Answer + Send + Sync + 'static) -> Self {
        Self::serve(path, UnixListener::bind(path).unwrap(), answer)
    }

    /// At an address of the abstract namespace.
    pub fn at_name(name: &str, answer: impl Fn(i64) -> Answer + Send + Sync + 'static) -> Self {
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
        Self::serve(Path::new(name), UnixListener::bind_addr(&address).unwrap(), answer)
    }

    fn serve(path: &Path, listener: UnixListener, answer: impl Fn(i64) -> Answer + Send + Sync + 'static) -> Self {
        listener.set_nonblocking(true).unwrap();
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let (into, until, answer) = (seen.clone(), stop.clone(), Arc::new(answer));
        let accept = move || {
            let mut served = Vec::new();
            while !until.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                let (into, until, answer) = (into.clone(), until.clone(), answer.clone());
                served.push(std::thread::spawn(move || {
                    // A runtime that fails before it has a listener just hangs up.
                    let Some(fd) = receive(&stream, &into) else { return };
                    serve(&fd, &into, &until, &*answer);
                }));
            }
            served.into_iter().for_each(|thread| thread.join().unwrap());
        };
        Self { path: path.into(), seen, stop, thread: Some(std::thread::spawn(accept)) }
    }

    /// All messages; waits until there are as many as must have been sent by now.
    pub fn messages(&self, count: usize) -> Vec<(Value, String)> {
        let all = || self.seen.lock().unwrap().messages.clone();
        super::eventually(&format!("{count} listeners"), || all().len() >= count);
        all()
    }

    /// How often a system call was notified.
    pub fn count(&self, nr: libc::c_long) -> u32 {
        self.seen.lock().unwrap().calls.get(&i32::try_from(nr).unwrap()).copied().unwrap_or(0)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        let _ = std::fs::remove_file(&self.path);
        assert!(ended.is_ok() || std::thread::panicking(), "the agent has failed");
    }
}

/// The one message of a connection: its text up to the end, and the one descriptor.
fn receive(stream: &UnixStream, seen: &Mutex<Seen>) -> Option<OwnedFd> {
    let (mut text, mut fds) = (Vec::new(), Vec::new());
    loop {
        let mut buffer = vec![0u8; 65536];
        let mut space = nix::cmsg_space!([i32; 4]);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), flags).unwrap();
        for control in message.cmsgs().unwrap() {
            let ControlMessageOwned::ScmRights(rights) = control else { panic!("{control:?}") };
            // SAFETY: the kernel has just made these descriptors for us.
            fds.extend(rights.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
        let length = message.bytes;
        text.extend_from_slice(&buffer[..length]);
        // To its end, before anything is answered: a runtime closes it when it has said everything.
        if length == 0 {
            break;
        }
    }
    if text.is_empty() {
        return None;
    }
    assert_eq!(fds.len(), 1, "one descriptor is expected");
    let kind = std::fs::read_link(format!("/proc/self/fd/{}", fds[0].as_raw_fd())).unwrap();
    let kind = kind.to_string_lossy().into_owned();
    seen.lock().unwrap().messages.push((serde_json::from_slice(&text).unwrap(), kind));
    fds.pop()
}

fn serve(fd: &OwnedFd, seen: &Mutex<Seen>, stop: &AtomicBool, answer: &(impl Fn(i64) -> Answer + ?Sized)) {
    while !stop.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, 20u8).unwrap();
        let events = fds[0].revents().unwrap_or(PollFlags::empty());
        if events.contains(PollFlags::POLLIN) {
            // SAFETY: the kernel demands zeroes, which are a valid value of plain integers.
            let mut request: libc::seccomp_notif = unsafe { std::mem::zeroed() };
            // SAFETY: RECV fills in one seccomp_notif.
            if unsafe { libc::ioctl(fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, &raw mut request) } != 0 {
                continue; // the process was interrupted meanwhile
            }
            *seen.lock().unwrap().calls.entry(request.data.nr).or_default() += 1;
            let answer = answer(request.data.nr.into());
            let (val, error, flags) = match answer {
                Answer::Value(value) => (value, 0, 0),
                Answer::Errno(errno) => (0, -errno, 0),
                Answer::Continue => (0, 0, 1),
                Answer::Leave => return,
            };
            let response = libc::seccomp_notif_resp { id: request.id, val, error, flags };
            // SAFETY: SEND reads one seccomp_notif_resp. That the process is gone is no failure.
            unsafe { libc::ioctl(fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND as _, &raw const response) };
        } else if events.contains(PollFlags::POLLHUP) {
            return; // no process has the filter any more
        }
    }
}
