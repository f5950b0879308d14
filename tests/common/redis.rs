//! A client of RESP made of bytes: it sends what a test writes, and keeps what comes exactly.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::thread::{self, JoinHandle};

use socket2::{Domain, SockAddr, Socket, Type};

use super::raw::connect_narrow;
use super::{Broker, DEADLINE};

/// A value of either version. As text it is as a server writes it, without lengths and with blanks for line ends:
/// `+OK`, `:1`, `-ERR no`, `*3 message a x`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// `+`
    Simple(String),
    /// `-`
    Error(String),
    /// `:`
    Integer(i64),
    /// `$`, any bytes.
    Bulk(Vec<u8>),
    /// `$-1`
    NullBulk,
    /// `_`
    Null,
    /// `=`, with its kind.
    Verbatim(String),
    /// `*`
    Array(Vec<Value>),
    /// `>`
    Push(Vec<Value>),
    /// `%`, keys and values in turn.
    Map(Vec<Value>),
}

impl Value {
    /// A bulk string's bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Value::Bulk(bytes) => bytes,
            other => panic!("{other} is no bulk string"),
        }
    }

    /// A number.
    pub fn integer(&self) -> i64 {
        match self {
            Value::Integer(number) => *number,
            other => panic!("{other} is no number"),
        }
    }

    /// A bulk or verbatim string's text.
    pub fn text(&self) -> &str {
        match self {
            Value::Bulk(bytes) => std::str::from_utf8(bytes).expect("text"),
            Value::Verbatim(text) => text.strip_prefix("txt:").expect("a text"),
            other => panic!("{other} is no text"),
        }
    }

    /// The elements of an array or push.
    pub fn elements(&self) -> &[Value] {
        match self {
            Value::Array(elements) | Value::Push(elements) => elements,
            other => panic!("{other} has no elements"),
        }
    }

    /// A message to a subscriber?
    fn is_delivery(&self) -> bool {
        let (Value::Array(elements) | Value::Push(elements)) = self else {
            return false;
        };
        let words: [&[u8]; 3] = [b"message", b"pmessage", b"smessage"];
        matches!(elements.first(), Some(Value::Bulk(word)) if words.contains(&&word[..]))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, elements, count) = match self {
            Value::Simple(text) => return write!(f, "+{text}"),
            Value::Error(text) => return write!(f, "-{text}"),
            Value::Integer(number) => return write!(f, ":{number}"),
            Value::Bulk(bytes) => return bytes.escape_ascii().fmt(f),
            Value::NullBulk => return f.write_str("$-1"),
            Value::Null => return f.write_str("_"),
            Value::Verbatim(text) => return write!(f, "={text}"),
            Value::Array(elements) => ('*', elements, elements.len()),
            Value::Push(elements) => ('>', elements, elements.len()),
            Value::Map(elements) => ('%', elements, elements.len() / 2),
        };
        write!(f, "{sign}{count}")?;
        elements
            .iter()
            .try_for_each(|element| write!(f, " {element}"))
    }
}

/// A connection to a RESP listener.
pub struct Redis {
    socket: Socket,
    buffer: Vec<u8>,
    /// Where in the buffer the next value begins.
    start: usize,
    /// Deliveries that came while an answer was waited for.
    kept: VecDeque<Vec<u8>>,
}

impl Redis {
    /// To the broker's RESP listener.
    pub fn connect(broker: &Broker) -> Redis {
        Redis::connect_to(broker.resp())
    }

    /// To an address, or `unix:PATH`.
    pub fn connect_to(address: &str) -> Redis {
        let (domain, to) = match address.strip_prefix("unix:") {
            Some(path) => (Domain::UNIX, SockAddr::unix(path).expect("a path")),
            None => {
                let address: std::net::SocketAddr = address.parse().expect("an address");
                (Domain::for_address(address), address.into())
            }
        };
        let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
        socket
            .connect(&to)
            .unwrap_or_else(|error| panic!("connect {address}: {error}"));
        if domain != Domain::UNIX {
            socket.set_tcp_nodelay(true).expect("TCP_NODELAY");
        }
        Redis::over(socket)
    }

    /// One whose socket takes little before its sender has to wait: for those that will not read.
    pub fn connect_narrow(broker: &Broker) -> Redis {
        Redis::over(connect_narrow(broker.resp()).into())
    }

    /// One that speaks this version.
    pub fn connect_speaking(broker: &Broker, version: u8) -> Redis {
        let mut client = Redis::connect(broker);
        if version != 2 {
            client.ask(&format!("HELLO {version}"));
        }
        client
    }

    fn over(socket: Socket) -> Redis {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        Redis {
            socket,
            buffer: Vec::new(),
            start: 0,
            kept: VecDeque::new(),
        }
    }

    /// The socket below.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Its own end, as the broker sees it.
    pub fn address(&self) -> String {
        let address = self.socket.local_addr().expect("an address");
        address.as_socket().expect("an IP address").to_string()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes)
            .unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// Sends bytes as they are, if the other side still takes them.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        (&self.socket).write_all(bytes)
    }

    /// Sends bytes from a thread of its own, so that answers can be read meanwhile. Were all taken?
    pub fn send_beside(&self, bytes: Vec<u8>) -> JoinHandle<bool> {
        let mut socket = self.socket.try_clone().expect("a second handle");
        thread::spawn(move || socket.write_all(&bytes).is_ok())
    }

    /// Sends a command, the words of this line.
    pub fn say(&mut self, line: &str) {
        self.send(&command_of(line));
    }

    /// Sends a command, the words of this line; its reply as text.
    pub fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.reply().to_string()
    }

    /// Publishes; to how many.
    pub fn publish(&mut self, channel: &[u8], payload: &[u8]) -> i64 {
        self.send(&command(&[b"PUBLISH", channel, payload]));
        self.reply().integer()
    }

    /// Subscribes to a channel and reads the confirmation.
    pub fn subscribe(&mut self, channel: &[u8]) {
        self.subscription(b"SUBSCRIBE", channel);
    }

    /// Ends a subscription to a channel and reads the confirmation.
    pub fn unsubscribe(&mut self, channel: &[u8]) {
        self.subscription(b"UNSUBSCRIBE", channel);
    }

    fn subscription(&mut self, word: &[u8], channel: &[u8]) {
        self.send(&command(&[word, channel]));
        let reply = self.reply();
        let elements = reply.elements();
        assert_eq!(
            (elements[0].bytes(), elements[1].bytes()),
            (&word.to_ascii_lowercase()[..], channel),
            "{reply}"
        );
    }

    /// The next value, whatever it is.
    pub fn value(&mut self) -> Value {
        self.try_value()
            .expect("a value, not the end of the connection")
    }

    /// The next value, or the end of the connection, orderly or not.
    pub fn try_value(&mut self) -> Option<Value> {
        self.try_value_bytes().map(|(_, value)| value)
    }

    fn try_value_bytes(&mut self) -> Option<(Vec<u8>, Value)> {
        loop {
            if let Some((value, size)) = parse(&self.buffer[self.start..]) {
                let end = self.start + size;
                let bytes = self.buffer[self.start..end].to_vec();
                self.start = end;
                return Some((bytes, value));
            }
            if !self.fill().unwrap_or(false) {
                return None;
            }
        }
    }

    /// The next reply; deliveries before it are kept.
    pub fn reply(&mut self) -> Value {
        loop {
            let (bytes, value) = self
                .try_value_bytes()
                .expect("a reply, not the end of the connection");
            if !value.is_delivery() {
                return value;
            }
            self.kept.push_back(bytes);
        }
    }

    /// The next delivery.
    pub fn delivery(&mut self) -> Value {
        let bytes = self.delivery_bytes();
        parse(&bytes).expect("a whole value").0
    }

    /// The next delivery as it came.
    pub fn delivery_bytes(&mut self) -> Vec<u8> {
        if let Some(bytes) = self.kept.pop_front() {
            return bytes;
        }
        let (bytes, value) = self
            .try_value_bytes()
            .expect("a delivery, not the end of the connection");
        assert!(value.is_delivery(), "waited for a delivery, got {value}");
        bytes
    }

    /// After this, whatever was published and answered before is kept.
    pub fn settle(&mut self) {
        let pong = self.ask("PING settled");
        assert!(pong.ends_with("settled"), "{pong}");
    }

    /// Takes what has been kept.
    pub fn take_kept(&mut self) -> Vec<Value> {
        let kept = self.kept.drain(..);
        kept.map(|bytes| parse(&bytes).expect("a whole value").0)
            .collect()
    }

    /// Everything that was published and answered before has been taken: nothing else is due.
    pub fn expect_nothing(&mut self) {
        self.settle();
        assert_eq!(self.take_kept(), [], "nothing was due");
    }

    /// Reads to the end of the connection; what came as text, and whether the end was orderly.
    pub fn read_to_end(&mut self) -> (String, bool) {
        let is_orderly = loop {
            match self.fill() {
                Ok(true) => {}
                Ok(false) => break true,
                Err(_) => break false,
            }
        };
        let rest = self.buffer.split_off(self.start);
        self.buffer.clear();
        self.start = 0;
        (rest.escape_ascii().to_string(), is_orderly)
    }

    /// These are the last words, and then the connection ends.
    #[track_caller]
    pub fn expect_end(&mut self, words: &str) {
        let expected = words.as_bytes().escape_ascii().to_string();
        assert_eq!(self.read_to_end(), (expected, true));
    }

    /// One more read; false at the end. Silence for [`DEADLINE`] fails the test.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let mut chunk = [0; 65536];
        match (&self.socket).read(&mut chunk) {
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(count > 0)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!(
                    "nothing came within {DEADLINE:?}; unread: {}",
                    self.buffer.escape_ascii()
                )
            }
            Err(error) => Err(error),
        }
    }
}

/// A command as clients write it.
pub fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A command of the words of this line.
pub fn command_of(line: &str) -> Vec<u8> {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    command(&words)
}

/// The first value of these bytes and its size, if it is whole.
fn parse(bytes: &[u8]) -> Option<(Value, usize)> {
    let end = bytes.windows(2).position(|window| window == b"\r\n")?;
    let line = &bytes[1..end];
    let text = || String::from_utf8_lossy(line).into_owned();
    let number = || -> i64 {
        text()
            .parse()
            .unwrap_or_else(|_| panic!("no number: {}", bytes[..end].escape_ascii()))
    };
    let start = end + 2;
    let value = match bytes[0] {
        b'+' => Value::Simple(text()),
        b'-' => Value::Error(text()),
        b':' => Value::Integer(number()),
        b'_' => {
            assert!(line.is_empty(), "{}", line.escape_ascii());
            Value::Null
        }
        b'$' if line == b"-1" => Value::NullBulk,
        kind @ (b'$' | b'=') => {
            let size = usize::try_from(number()).expect("a size");
            let rest = bytes.get(start..start + size + 2)?;
            let (content, line_end) = rest.split_at(size);
            assert_eq!(line_end, b"\r\n");
            let value = if kind == b'$' {
                Value::Bulk(content.to_vec())
            } else {
                Value::Verbatim(String::from_utf8(content.to_vec()).expect("text"))
            };
            return Some((value, start + size + 2));
        }
        kind @ (b'*' | b'>' | b'%') => {
            let count = usize::try_from(number()).expect("a count");
            let count = if kind == b'%' { 2 * count } else { count };
            let mut elements = Vec::with_capacity(count);
            let mut position = start;
            for _ in 0..count {
                let (element, size) = parse(&bytes[position..])?;
                elements.push(element);
                position += size;
            }
            let value = match kind {
                b'*' => Value::Array(elements),
                b'>' => Value::Push(elements),
                _ => Value::Map(elements),
            };
            return Some((value, position));
        }
        _ => panic!("no RESP: {}", bytes.escape_ascii()),
    };
    Some((value, start))
}
