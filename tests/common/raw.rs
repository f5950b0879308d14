//! A WebSocket client made of bytes: it can be wrong in every way that a test wants.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::{Broker, DEADLINE};

/// Opcodes (RFC 6455, 5.2).
pub const CONTINUATION: u8 = 0;
/// A text message.
pub const TEXT: u8 = 1;
/// A binary message.
pub const BINARY: u8 = 2;
/// The closing handshake.
pub const CLOSE: u8 = 8;
/// Are you there?
pub const PING: u8 = 9;
/// I am.
pub const PONG: u8 = 10;
/// The bit of a message's last frame.
pub const FIN: u8 = 0x80;

/// A frame of the broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// FIN, the reserved bits, and the opcode.
    pub first: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A whole text message's text.
    pub fn text(&self) -> &str {
        assert_eq!(self.first, FIN | TEXT, "{self:?} is no whole text message");
        std::str::from_utf8(&self.payload).expect("UTF-8")
    }

    /// A close frame's code.
    pub fn close_code(&self) -> Option<u16> {
        assert_eq!(self.first, FIN | CLOSE, "{self:?} is no close frame");
        self.payload
            .first_chunk()
            .map(|code| u16::from_be_bytes(*code))
    }
}

/// A TCP connection, before or after the handshake.
pub struct Raw {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Raw {
    /// Connects; says nothing.
    pub fn connect(address: &str) -> Raw {
        let stream = TcpStream::connect(address)
            .unwrap_or_else(|error| panic!("connect {address}: {error}"));
        Raw::over(stream)
    }

    /// Over a connection that is already there.
    pub fn over(stream: TcpStream) -> Raw {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Raw {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Connects and shakes hands.
    pub fn upgrade(broker: &Broker) -> Raw {
        Raw::connect(broker.listen()).upgraded(broker.listen())
    }

    /// Connects and shakes hands at this path, with its query.
    pub fn upgrade_at(broker: &Broker, path: &str) -> Raw {
        Raw::connect(broker.listen()).upgraded_at(broker.listen(), path)
    }

    /// The same with a small receive buffer: a reader that does not read soon stops its sender.
    pub fn upgrade_narrow(broker: &Broker) -> Raw {
        Raw::over(connect_narrow(broker.listen())).upgraded(broker.listen())
    }

    fn upgraded(self, host: &str) -> Raw {
        self.upgraded_at(host, "/")
    }

    /// Shakes hands at this path, with its query.
    pub fn upgraded_at(mut self, host: &str, path: &str) -> Raw {
        self.send(upgrade_head_at(path, host, &[]).as_bytes());
        let head = self.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        self
    }

    /// The socket below.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream
            .write_all(bytes)
            .unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// Sends bytes as they are, if the other side still takes them.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a whole text message.
    pub fn text(&mut self, text: &str) {
        self.send(&frame(FIN | TEXT, text.as_bytes()));
    }

    /// Reads a response's head.
    pub fn head(&mut self) -> String {
        loop {
            if let Some(at) = self
                .buffer
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                let head = self.buffer.drain(..at + 4).collect();
                return String::from_utf8(head).expect("a head is text");
            }
            assert!(
                self.fill().expect("a head can be read"),
                "the connection ended within a head: {:?}",
                String::from_utf8_lossy(&self.buffer)
            );
        }
    }

    /// The next frame, or none at the end of the connection.
    pub fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, size)) = parse_frame(&self.buffer) {
                self.buffer.drain(..size);
                return Some(frame);
            }
            match self.fill() {
                Ok(true) => {}
                Ok(false) => {
                    assert!(
                        self.buffer.is_empty(),
                        "cut within a frame: {:?}",
                        self.buffer
                    );
                    return None;
                }
                Err(error) => panic!("reset where a frame was waited for: {error}"),
            }
        }
    }

    /// The next frame, which is a whole text message; pings on the way are answered.
    pub fn next_text(&mut self) -> String {
        loop {
            let got = self.frame().expect("a text, not the end of the connection");
            if got.first == FIN | PING {
                self.send(&frame(FIN | PONG, &got.payload));
            } else {
                return got.text().to_owned();
            }
        }
    }

    /// Reads the close frame (past other frames) and then the end of the connection; gives the code.
    pub fn closed(&mut self) -> Option<u16> {
        let code = loop {
            let frame = self
                .frame()
                .expect("a close frame before the end of the connection");
            if frame.first == FIN | CLOSE {
                break frame.close_code();
            }
        };
        assert_eq!(self.frame(), None, "after a close frame");
        code
    }

    /// Reads to the end of the connection, orderly or by reset; gives what came.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill().unwrap_or(false) {}
        std::mem::take(&mut self.buffer)
    }

    /// Waits this long for bytes: `Some(true)` if some came, `Some(false)` at the end of the connection.
    pub fn fill_within(&mut self, within: Duration) -> Option<bool> {
        self.stream.set_read_timeout(Some(within)).unwrap();
        let mut chunk = [0; 4096];
        let result = match self.stream.read(&mut chunk) {
            Ok(0) => Some(false),
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Some(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                None
            }
            Err(_) => Some(false),
        };
        self.stream.set_read_timeout(Some(DEADLINE)).unwrap();
        result
    }

    /// One more read; false at the end. Silence for [`DEADLINE`] fails the test.
    fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 65536];
        match self.stream.read(&mut chunk) {
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(count > 0)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!(
                    "nothing came within {DEADLINE:?}; unread: {:?}",
                    String::from_utf8_lossy(&self.buffer)
                )
            }
            Err(error) => Err(error),
        }
    }
}

/// A connection whose receive buffer is as small as the kernel allows.
pub fn connect_narrow(address: &str) -> TcpStream {
    let address: SocketAddr = address.parse().expect("an address");
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    // Before connect: the window scale is agreed there.
    socket.set_recv_buffer_size(4096).expect("SO_RCVBUF");
    socket
        .connect(&address.into())
        .unwrap_or_else(|error| panic!("connect {address}: {error}"));
    socket.into()
}

/// A request head that asks for WebSocket, with further header fields.
pub fn upgrade_head(host: &str, headers: &[(&str, &str)]) -> String {
    upgrade_head_at("/", host, headers)
}

/// The same for this path.
pub fn upgrade_head_at(path: &str, host: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head + "\r\n"
}

/// A masked frame; `first` is FIN, the reserved bits, and the opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, payload.len() as u64);
    bytes.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

/// The header of a masked frame that declares this size; the mask is its end.
pub fn header(first: u8, size: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match size {
        0..=125 => bytes.push(0x80 | size as u8),
        126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((size as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(size.to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes
}

/// The payload of a close frame.
pub fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The first frame of these bytes and its size, if it is whole. A masked one is a failure.
fn parse_frame(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert_eq!(second & 0x80, 0, "a server's frame is not masked");
    let (size, start) = match second {
        126 => (
            u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)),
            4,
        ),
        127 => (u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?), 10),
        size => (u64::from(size), 2),
    };
    let end = start + usize::try_from(size).expect("a size that fits");
    let payload = bytes.get(start..end)?.to_vec();
    Some((Frame { first, payload }, end))
}
