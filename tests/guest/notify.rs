//! What a service says to its manager: sd_notify(3), by hand.

use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::Outcome;
use crate::sys::{self, check, why};

/// `notify TEXT [PATH...]`: one datagram to $NOTIFY_SOCKET, `|` being a new line, with these files as descriptors.
pub(crate) fn notify(words: &[&str]) -> Outcome {
    let (text, paths) = words.split_first().ok_or("a text is expected")?;
    let files =
        paths.iter().map(|path| std::fs::File::open(path).map_err(|e| why(&e))).collect::<Result<Vec<_>, _>>()?;
    let fds: Vec<i32> = files.iter().map(AsRawFd::as_raw_fd).collect();
    send(&text.replace('|', "\n"), &fds)?;
    Ok(0)
}

/// `notify-barrier`: says BARRIER=1, and `released` when the manager has closed the descriptor that goes with it.
pub(crate) fn barrier() -> Outcome {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for both ends.
    check(i64::from(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }))?;
    send("BARRIER=1", &[ends[1]])?;
    // SAFETY: it is ours, and the message has its own.
    unsafe { libc::close(ends[1]) };
    println!("sent");
    sys::flush();
    let mut end = libc::pollfd { fd: ends[0], events: 0, revents: 0 };
    // SAFETY: one pollfd, which lives across the call.
    let ready = check(i64::from(unsafe { libc::poll(&raw mut end, 1, 20_000) }))?;
    println!("{}", if ready == 1 { "released" } else { "still held" });
    Ok(0)
}

/// `notify-linger SECONDS`: STATUS=lingers, with a connection whose last close takes as long, as nobody reads what is in it.
pub(crate) fn linger(seconds: i32) -> Outcome {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|e| why(&e))?;
    let address = listener.local_addr().map_err(|e| why(&e))?;
    // The other end lives as long as this process.
    std::mem::forget(listener);
    // By a child: the end of a process doesn't linger, should its descriptor be the last one.
    // SAFETY: this process has one thread.
    let child = unsafe { libc::fork() };
    check(i64::from(child))?;
    if child == 0 {
        let code = i32::from(send_lingering(address, seconds).is_err());
        // SAFETY: nothing of this process is used any more.
        unsafe { libc::_exit(code) }
    }
    let mut status = 0;
    // SAFETY: `status` has room for one, and lives across the call.
    check(i64::from(unsafe { libc::waitpid(child, &raw mut status, 0) }))?;
    Ok(libc::WEXITSTATUS(status))
}

fn send_lingering(address: std::net::SocketAddr, seconds: i32) -> Result<(), String> {
    let stream = std::mem::ManuallyDrop::new(std::net::TcpStream::connect(address).map_err(|e| why(&e))?);
    stream.set_nonblocking(true).map_err(|e| why(&e))?;
    while std::io::Write::write(&mut &*stream, &[0; 65_536]).is_ok() {}
    stream.set_nonblocking(false).map_err(|e| why(&e))?;
    const SIZE: libc::socklen_t = 8;
    const _: () = assert!(size_of::<libc::linger>() == 8);
    let linger = libc::linger { l_onoff: 1, l_linger: seconds };
    // SAFETY: `linger` is a whole struct of that option and lives across the call.
    let set = unsafe {
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), SIZE)
    };
    check(i64::from(set))?;
    send("STATUS=lingers", &[stream.as_raw_fd()])
}

fn send(text: &str, fds: &[i32]) -> Result<(), String> {
    let path = std::env::var("NOTIFY_SOCKET").map_err(|_| "no NOTIFY_SOCKET")?;
    let socket = UnixDatagram::unbound().map_err(|e| why(&e))?;
    socket.connect(path).map_err(|e| why(&e))?;
    let rights = [ControlMessage::ScmRights(fds)];
    let rights = if fds.is_empty() { &[] } else { &rights[..] };
    let text = [IoSlice::new(text.as_bytes())];
    sendmsg::<()>(socket.as_raw_fd(), &text, rights, MsgFlags::MSG_NOSIGNAL, None)
        .map(drop)
        .map_err(|errno| sys::name(errno as i32))
}
