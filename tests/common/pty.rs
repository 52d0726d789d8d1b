//! Terminals made by the tests, and the descriptors that a runtime sends.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::eventually;

/// The master side of a terminal; what comes out of it is collected in the background.
#[derive(Debug)]
pub struct Master {
    pub file: File,
    text: Arc<Mutex<String>>,
}

impl Master {
    pub fn new(file: File) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let (mut reader, sink) = (file.try_clone().unwrap(), text.clone());
        std::thread::spawn(move || {
            let mut buffer = [0u8; 4096];
            // EIO: the last slave is closed.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                sink.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Self { file, text }
    }

    pub fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    #[track_caller]
    pub fn wait_for(&self, part: &str) {
        eventually(&format!("\"{part}\" on the terminal"), || self.text().contains(part));
    }

    pub fn write(&mut self, text: &str) {
        self.file.write_all(text.as_bytes()).unwrap();
    }
}

/// A terminal: its master, and its slave with the name of it.
pub fn open(rows: u16, columns: u16) -> (Master, OwnedFd, String) {
    let size = nix::pty::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(Some(&size), None).unwrap();
    let name = nix::unistd::ttyname(&pty.slave).unwrap().to_str().unwrap().to_owned();
    (Master::new(File::from(pty.master)), pty.slave, name)
}

/// Accepts a connection and receives the one message with the one descriptor that it must bring.
pub fn receive(listener: &UnixListener) -> (Vec<u8>, OwnedFd) {
    listener.set_nonblocking(true).unwrap();
    let mut stream = None;
    eventually("a connection", || {
        stream = listener.accept().ok();
        stream.is_some()
    });
    let (stream, _) = stream.unwrap();
    stream.set_nonblocking(false).unwrap();
    receive_from(&stream)
}

/// The message of a connection, which must bring one descriptor.
pub fn receive_from(stream: &UnixStream) -> (Vec<u8>, OwnedFd) {
    let mut buffer = [0u8; 4096];
    let mut space = nix::cmsg_space!([i32; 4]);
    let (count, fds) = {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), flags).unwrap();
        let mut fds = Vec::new();
        for control in message.cmsgs().unwrap() {
            let ControlMessageOwned::ScmRights(rights) = control else { panic!("{control:?}") };
            fds.extend(rights);
        }
        (message.bytes, fds)
    };
    assert!(count > 0, "the message should not be empty");
    assert_eq!(fds.len(), 1, "one descriptor is expected");
    // SAFETY: the kernel has just made this descriptor for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fds[0]) };
    (buffer[..count].to_vec(), fd)
}
