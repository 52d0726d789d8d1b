//! The streams of `kubectl exec` and `attach`: a WebSocket (RFC 6455) with the protocol `v4.channel.k8s.io`, whose
//! messages begin with the number of a channel.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;

pub struct Stream(TcpStream);

/// What came until the server closed.
#[derive(Default)]
pub struct Seen {
    pub stdout: String,
    pub stderr: String,
    /// JSON: `metav1.Status`.
    pub status: String,
}

impl Stream {
    /// Opens what `Exec` or `Attach` answered with.
    pub fn open(url: &str) -> Self {
        let (host, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("an address");
        let mut stream = TcpStream::connect(host).unwrap_or_else(|error| panic!("{host}: {error}"));
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        write!(
            stream,
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: v4.channel.k8s.io\r\nOrigin: http://{host}\r\n\r\n"
        )
        .expect("a request");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        Self(stream)
    }

    pub fn write(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.send(STDIN, bytes);
        }
    }

    pub fn resize(&mut self, width: u16, height: u16) {
        self.send(RESIZE, format!("{{\"Width\":{width},\"Height\":{height}}}").as_bytes());
    }

    /// A final binary frame, masked with zeros: a client's has to be masked.
    fn send(&mut self, channel: u8, bytes: &[u8]) {
        let length = u8::try_from(bytes.len() + 1).ok().filter(|&length| length < 126).expect("a short message");
        let mut frame = vec![0x82, 0x80 | length, 0, 0, 0, 0, channel];
        frame.extend(bytes);
        self.0.write_all(&frame).expect("a frame");
    }

    pub fn to_the_end(mut self) -> Seen {
        let mut seen = Seen::default();
        while let Some((opcode, message)) = self.frame() {
            // Close, ping: nothing of ours.
            if opcode == 8 {
                break;
            }
            let Some((&channel, rest)) = message.split_first() else { continue };
            let text = String::from_utf8_lossy(rest);
            match channel {
                STDOUT => seen.stdout += &text,
                STDERR => seen.stderr += &text,
                STATUS => seen.status += &text,
                _ => panic!("channel {channel}: {text}"),
            }
        }
        seen
    }

    /// A frame's kind and payload; nothing at the end.
    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).ok()?;
        let length = match head[1] & 0x7f {
            126 => {
                let mut length = [0; 2];
                self.0.read_exact(&mut length).ok()?;
                usize::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                self.0.read_exact(&mut length).ok()?;
                usize::try_from(u64::from_be_bytes(length)).ok()?
            }
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).ok()?;
        Some((head[0] & 0xf, payload))
    }
}
