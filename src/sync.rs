//! What the two processes of a create say to each other, over one SOCK_SEQPACKET pair.
//!
//! ```text
//! outside                          inside
//! pass(Go)            ---------->            id maps, cgroup and limits are in place; not if there is nothing to wait for
//!                     <----------  process   only with a bridge: the pid of the final process, and its pidfd
//!                     <----------  reached(RuntimeHooks)
//!                     <----------  source    for each bind source that lies on a mount of the container, before the hooks
//! (a descriptor)      ---------->            its tree, opened in the container's mount namespace
//! pass(RuntimeHooks)  ---------->            only with prestart or createRuntime hooks
//!                     <----------  listener  only with seccomp notification: the filter is loaded next
//!                     <----------  reached(Ready)
//! pass(Ready)         ---------->            the state is on disk; of a run only with seccomp notification
//! pass(Start)         ---------->            of a run, with its state on disk; `start` has the FIFOs of the folder for it
//!                     <----------  starting  the next thing is execve: from here end-of-file means that it worked
//!                     <----------  failed    at any point
//! ```
//! Both hold the same plan, so both know which barriers come. A process that dies closes its end, and the other reads
//! end-of-file at the next barrier: inside, that is the end of it (nothing passes `Ready`, or `Start`, before the state is on disk).
//!
//! After the seccomp filter is loaded the inside uses `read` and `write` only, so that strict profiles work.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair};
use nix::sys::stat::Mode;
use nix::sys::time::TimeVal;
use nix::unistd::Pid;

use crate::sys::Context as _;
use crate::sys::socket::{receive_fds, send_fds};

/// A meeting point: the inside has reached it and waits until the outside has done its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Barrier {
    Go = b'g',
    RuntimeHooks = b'h',
    Ready = b'r',
    Start = b's',
}

impl Barrier {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Go, Self::RuntimeHooks, Self::Ready, Self::Start].into_iter().find(|barrier| *barrier as u8 == byte)
    }
}

/// What the outside hears.
#[derive(Debug)]
pub(crate) enum Heard {
    Reached(Barrier),
    /// The final process, as the bridge saw it.
    Process(Pid, OwnedFd),
    /// The next thing is the loading of the seccomp filter, whose listener will be this descriptor.
    Listener(i32),
    /// The source of this step is to be opened in these namespaces of the container.
    Source(usize, Namespaces),
    /// The next thing is execve.
    Starting,
    /// The inside failed; the text names what and why.
    Failed(String),
    /// The inside has closed its end: it died, or it became the program.
    Closed,
}

/// The namespaces in which the container's process builds its file system.
#[derive(Debug)]
pub(crate) struct Namespaces {
    pub(crate) mount: OwnedFd,
    pub(crate) user: OwnedFd,
}

/// A message is at most this long; a longer text is cut.
const LONGEST: usize = 8 * 1024;

/// The end of the process that stays in the caller's namespaces.
#[derive(Debug)]
pub(crate) struct Outside(OwnedFd);

/// The end of the process that becomes the container.
#[derive(Debug)]
pub(crate) struct Inside(OwnedFd);

/// Makes both ends. After the clone each process keeps one and drops the other.
pub(crate) fn channel() -> Result<(Outside, Inside)> {
    // In this order the inside's is, in an exec, next to the only other descriptor that stays open there.
    let (inside, outside) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .call("socketpair", "seqpacket")?;
    Ok((Outside(outside), Inside(inside)))
}

fn read(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let mut buffer = vec![0; LONGEST + 1];
    loop {
        match nix::unistd::read(fd, &mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::EINTR) => {}
            // A peer that died with unread data in its queue resets the connection: it is gone all the same.
            Err(Errno::ECONNRESET) => return Ok(Vec::new()),
            Err(errno) => return Err(errno).call("read", "sync channel").map_err(Into::into),
        }
    }
}

fn write(fd: BorrowedFd<'_>, tag: u8, text: &[u8]) -> Result<()> {
    let mut message = Vec::with_capacity(1 + text.len());
    message.push(tag);
    message.extend_from_slice(&text[..text.len().min(LONGEST)]);
    loop {
        match nix::unistd::write(fd, &message) {
            Err(Errno::EINTR) => {}
            result => return result.map(drop).call("write", "sync channel").map_err(Into::into),
        }
    }
}

/// A message with descriptors.
fn send(fd: BorrowedFd<'_>, tag: u8, text: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    send_fds(fd, &[&[tag], text].concat(), fds).context("sync channel")
}

/// A message with the descriptors that came with it; none at all is the other end's end.
fn receive(fd: BorrowedFd<'_>) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buffer = vec![0; LONGEST + 1];
    match receive_fds(fd, &mut buffer) {
        Ok((length, fds)) => {
            buffer.truncate(length);
            Ok((buffer, fds))
        }
        Err(error) if error.errno() == Errno::ECONNRESET => Ok((Vec::new(), Vec::new())),
        Err(error) => Err(error.into()),
    }
}

/// In the clone the other end must be closed, or it would never see the runtime's end.
impl From<Outside> for OwnedFd {
    fn from(outside: Outside) -> Self {
        outside.0
    }
}

impl AsFd for Outside {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Outside {
    /// From here on [`Outside::hear`] fails with EAGAIN when nothing comes for so long.
    pub(crate) fn limit_patience(&self, patience: TimeVal) -> Result<()> {
        setsockopt(&self.0, ReceiveTimeout, &patience).call("setsockopt", "SO_RCVTIMEO").map_err(Into::into)
    }

    /// Waits for the next message.
    pub(crate) fn hear(&self) -> Result<Heard> {
        let (message, fds) = receive(self.0.as_fd())?;
        let Some((tag, text)) = message.split_first() else { return Ok(Heard::Closed) };
        let string = || String::from_utf8_lossy(text).into_owned();
        Ok(match (*tag, text) {
            (b'p', _) => {
                let pid = string().parse().map_err(|_| anyhow!("internal error: bad pid"))?;
                let pidfd = fds.into_iter().next().context("internal error: no pidfd")?;
                Heard::Process(Pid::from_raw(pid), pidfd)
            }
            (b'l', _) => Heard::Listener(string().parse().map_err(|_| anyhow!("internal error: bad descriptor"))?),
            (b'f', _) => Heard::Failed(string()),
            (b'o', _) => match (string().parse(), <[OwnedFd; 2]>::try_from(fds)) {
                (Ok(step), Ok([mount, user])) => Heard::Source(step, Namespaces { mount, user }),
                _ => bail!("internal error: bad request for a source"),
            },
            (b'x', []) => Heard::Starting,
            (byte, []) => match Barrier::from_byte(byte) {
                Some(barrier) => Heard::Reached(barrier),
                None => bail!("internal error: unknown message {byte:#x} from the container process"),
            },
            _ => bail!("internal error: unknown message from the container process"),
        })
    }

    /// Lets the inside pass a barrier. That it is gone already shows at the next [`Outside::hear`].
    pub(crate) fn pass(&self, barrier: Barrier) -> Result<()> {
        match write(self.0.as_fd(), barrier as u8, &[]) {
            Err(error) if is_gone(&error) => Ok(()),
            result => result,
        }
    }
}

/// Answers a request for a source; `None` is for the inside to bind itself.
pub(crate) fn answer(outside: BorrowedFd<'_>, source: Result<Option<OwnedFd>>) -> Result<()> {
    match source {
        Ok(None) => write(outside, b'n', &[]),
        Ok(Some(tree)) => send(outside, b'o', &[], &[tree.as_fd()]),
        Err(error) => write(outside, b'f', format!("{error:#}").as_bytes()),
    }
}

/// SIGPIPE is ignored or blocked in the runtime: a peer that is gone shows as an error.
fn is_gone(error: &anyhow::Error) -> bool {
    let errno = error.downcast_ref::<crate::sys::Error>().map(crate::sys::Error::errno);
    matches!(errno, Some(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN))
}

impl AsFd for Inside {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Inside {
    /// Waits until the outside passes a barrier. Its death is an error that nobody will read.
    pub(crate) fn wait(&self, barrier: Barrier) -> Result<()> {
        match read(self.0.as_fd())?.as_slice() {
            [byte] if *byte == barrier as u8 => Ok(()),
            [] => bail!("the runtime is gone"),
            other => bail!("internal error: waiting for {barrier:?}, got {other:?}"),
        }
    }

    /// Says that a barrier is reached and waits to pass it.
    pub(crate) fn meet(&self, barrier: Barrier) -> Result<()> {
        self.reached(barrier)?;
        self.wait(barrier)
    }

    /// Says that a barrier is reached which the outside needn't pass.
    pub(crate) fn reached(&self, barrier: Barrier) -> Result<()> {
        write(self.0.as_fd(), barrier as u8, &[])
    }

    /// Names the final process. Its pidfd goes along: a filter around the runtime may deny pidfd_open(2).
    pub(crate) fn process(&self, pid: Pid, pidfd: BorrowedFd<'_>) -> Result<()> {
        send(self.0.as_fd(), b'p', pid.to_string().as_bytes(), &[pidfd])
    }

    pub(crate) fn listener(&self, number: i32) -> Result<()> {
        write(self.0.as_fd(), b'l', number.to_string().as_bytes())
    }

    /// Has the source of a step opened outside, where the rights for it are, but as this process's mounts are now.
    /// `None` where the kernel lacks the calls for it.
    pub(crate) fn source(&self, step: usize) -> Result<Option<OwnedFd>> {
        let open =
            |path: &str| nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).call("open", path);
        let (mount, user) = (open("/proc/self/ns/mnt")?, open("/proc/self/ns/user")?);
        send(self.0.as_fd(), b'o', step.to_string().as_bytes(), &[mount.as_fd(), user.as_fd()])?;
        let (message, mut fds) = receive(self.0.as_fd())?;
        match (message.split_first(), fds.pop()) {
            (Some((b'o', _)), Some(tree)) => Ok(Some(tree)),
            (Some((b'n', _)), None) => Ok(None),
            (Some((b'f', text)), _) => bail!("{}", String::from_utf8_lossy(text)),
            (None, _) => bail!("the runtime is gone"),
            _ => bail!("internal error: waiting for a source, got {message:?}"),
        }
    }

    pub(crate) fn starting(&self) -> Result<()> {
        write(self.0.as_fd(), b'x', &[])
    }

    pub(crate) fn fail(&self, text: &str) -> Result<()> {
        write(self.0.as_fd(), b'f', text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_and_in_order() {
        let (outside, inside) = channel().unwrap();
        inside.starting().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        inside.process(Pid::from_raw(77), null.as_fd()).unwrap();
        inside.listener(9).unwrap();
        inside.fail("a\nb").unwrap();
        assert!(matches!(outside.hear().unwrap(), Heard::Starting));
        let Heard::Process(pid, fd) = outside.hear().unwrap() else { panic!("not the process") };
        assert_eq!(pid.as_raw(), 77);
        assert_eq!(nix::sys::stat::fstat(fd).unwrap().st_rdev, libc::makedev(1, 3));
        assert!(matches!(outside.hear().unwrap(), Heard::Listener(9)));
        assert!(matches!(outside.hear().unwrap(), Heard::Failed(text) if text == "a\nb"));
        drop(inside);
        assert!(matches!(outside.hear().unwrap(), Heard::Closed));
        outside.pass(Barrier::Go).unwrap();
    }

    #[test]
    fn a_barrier_out_of_order_is_an_error_that_names_it() {
        let (outside, inside) = channel().unwrap();
        outside.pass(Barrier::Ready).unwrap();
        let error = inside.wait(Barrier::Go).unwrap_err().to_string();
        assert!(error.contains("waiting for Go"), "{error}");
    }

    #[test]
    fn the_inside_notices_that_the_outside_is_gone() {
        let (outside, inside) = channel().unwrap();
        drop(outside);
        assert!(inside.wait(Barrier::Go).is_err());
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // the asker is a thread of the test
    fn a_source_is_asked_for_and_comes_or_says_why_not() {
        let (outside, inside) = channel().unwrap();
        let asker = std::thread::spawn(move || (inside.source(7), inside.source(8)));
        let Heard::Source(7, namespaces) = outside.hear().unwrap() else { panic!("no request") };
        answer(outside.as_fd(), Ok(Some(namespaces.mount))).unwrap();
        let Heard::Source(8, _) = outside.hear().unwrap() else { panic!("no request") };
        answer(outside.as_fd(), Err(anyhow!("not there"))).unwrap();
        let (first, second) = asker.join().unwrap();
        assert!(first.unwrap().is_some());
        assert_eq!(second.unwrap_err().to_string(), "not there");
    }

    #[test]
    fn a_long_text_is_cut_not_lost() {
        let (outside, inside) = channel().unwrap();
        inside.fail(&"x".repeat(LONGEST * 2)).unwrap();
        let Heard::Failed(text) = outside.hear().unwrap() else { panic!("not a failure") };
        assert_eq!(text.len(), LONGEST);
    }
}
