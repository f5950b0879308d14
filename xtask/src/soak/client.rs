//! A client of native JSON in a page: what a load generator needs of WebSocket, and no more.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long anything may take before it counts as missing.
pub const DEADLINE: Duration = Duration::from_secs(30);

const PING: u8 = 0x89;
const PONG: u8 = 0x8A;
const CLOSE: u8 = 0x88;

/// A connected client.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
}

/// What came.
pub enum Got {
    /// A text message.
    Text(String),
    /// A close frame's code, 1005 if it has none.
    Close(u16),
}

impl Client {
    /// Connects and shakes hands.
    pub fn connect(address: &str) -> io::Result<Client> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(head(address, "").as_bytes())?;
        let mut client = Client {
            stream,
            buffer: Vec::new(),
            start: 0,
        };
        loop {
            let end = client.buffer.windows(4).position(|end| end == b"\r\n\r\n");
            if let Some(end) = end {
                if !client.buffer.starts_with(b"HTTP/1.1 101") {
                    return Err(io::Error::other("the handshake was refused"));
                }
                client.start = end + 4;
                return Ok(client);
            }
            client.fill()?;
        }
    }

    /// Connects, shakes hands, subscribes and waits for the ack.
    pub fn subscribed(address: &str, topic: &str) -> io::Result<Client> {
        let mut client = Client::connect(address)?;
        client.send(&format!(r#"{{"type":"subscribe","topic":"{topic}"}}"#))?;
        client.next()?;
        Ok(client)
    }

    /// A second handle on the socket, for a writer of its own.
    pub fn writer(&self) -> TcpStream {
        self.stream.try_clone().expect("a descriptor more")
    }

    /// Sends a text.
    pub fn send(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(&frame(0x81, text.as_bytes()))
    }

    /// Publishes without waiting for the ack.
    pub fn publish(&mut self, topic: &str, message: &str) -> io::Result<()> {
        self.send(&publish(topic, message))
    }

    /// The next message or close frame; pings on the way are answered.
    pub fn next(&mut self) -> io::Result<Got> {
        loop {
            if let Some((first, payload)) = self.take_frame() {
                match first {
                    PING => self.stream.write_all(&frame(PONG, &payload))?,
                    PONG => {}
                    CLOSE => {
                        let code = payload
                            .first_chunk()
                            .map_or(1005, |c| u16::from_be_bytes(*c));
                        return Ok(Got::Close(code));
                    }
                    _ => return Ok(Got::Text(String::from_utf8_lossy(&payload).into_owned())),
                }
            } else {
                self.fill()?;
            }
        }
    }

    /// The next text; a close is an error.
    pub fn text(&mut self) -> io::Result<String> {
        match self.next()? {
            Got::Text(text) => Ok(text),
            Got::Close(code) => Err(io::Error::other(format!("closed with {code}"))),
        }
    }

    /// The next text that is a delivery, past acks.
    pub fn delivery(&mut self) -> io::Result<String> {
        loop {
            let text = self.text()?;
            if text.contains(r#""type":"publish""#) {
                return Ok(text);
            }
        }
    }

    /// Reads and forgets until the end.
    pub fn drain(&mut self) {
        while self.next().is_ok() {}
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let bytes = &self.buffer[self.start..];
        let (&first, &second) = (bytes.first()?, bytes.get(1)?);
        let (size, start) = match second & 0x7F {
            126 => (
                usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)),
                4,
            ),
            127 => (
                u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize,
                10,
            ),
            size => (usize::from(size), 2),
        };
        let payload = bytes.get(start..start + size)?.to_vec();
        self.start += start + size;
        Some((first, payload))
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let mut chunk = [0; 65_536];
        match self.stream.read(&mut chunk)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(())
            }
        }
    }
}

/// A request head that asks for WebSocket.
pub fn head(host: &str, more: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// The text of a publish; `message` is JSON.
pub fn publish(topic: &str, message: &str) -> String {
    format!(r#"{{"type":"publish","topic":"{topic}","message":{message}}}"#)
}

/// A frame masked with zeros: allowed, and the payload stays readable.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        size @ 0..=125 => bytes.push(0x80 | size as u8),
        size @ 126..=0xFFFF => {
            bytes.push(0x80 | 126);
            bytes.extend((size as u16).to_be_bytes());
        }
        size => {
            bytes.push(0x80 | 127);
            bytes.extend((size as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

/// The number behind `"message":` in a delivery.
pub fn number_of(delivery: &str) -> Option<u64> {
    let at = delivery.find(r#""message":"#)? + 10;
    let digits = delivery[at..].trim_start_matches('[');
    let end = digits.find(|c: char| !c.is_ascii_digit())?;
    digits[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_their_sizes() {
        for (size, header) in [(0, 6), (125, 6), (126, 8), (65_535, 8), (65_536, 14)] {
            assert_eq!(frame(0x81, &vec![7; size]).len(), header + size);
        }
    }

    #[test]
    fn numbers_are_found() {
        let check = |text: &str, expected| assert_eq!(number_of(text), expected, "{text}");
        check(r#"{"type":"publish","message":12,"context":"t"}"#, Some(12));
        check(r#"{"message":[3,"x"]}"#, Some(3));
        check(r#"{"type":"ack"}"#, None);
    }
}
