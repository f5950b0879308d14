//! Opening connections: some at a time, each with its handshake, before anything is measured.
//!
//! Sockets block here. A batch connects, then all of it asks for its upgrade, then all answers are read: a listen
//! queue never sees more than a batch, and ten thousand connections do not take ten thousand round trips. Where the
//! broker is on this machine the connections come from several addresses of the loopback network, since one address
//! has only some 28 000 ports to one target, those of a run before still waiting among them.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

use crate::dialect::{Carriage, Dialect};
use crate::frame::{self, Opcode};
use crate::target::{Endpoint, Target};

/// For each step of the way to an open connection.
const STEP_TIME: Duration = Duration::from_secs(10);
/// Connections from one address before the next one is used.
const PER_SOURCE: usize = 1000;
/// 127.0.0.1 and so on.
const SOURCES: usize = 32;
/// An answer to a handshake that is longer is none, and neither is a greeting.
const HEAD_MAX: usize = 16 * 1024;

/// An open connection that no longer blocks.
pub struct Opened {
    /// The socket.
    pub socket: Socket,
    /// What came behind the answer to the handshake, and behind the greeting.
    pub rest: Vec<u8>,
}

/// How a connection is to be opened.
pub struct Way<'a> {
    /// To whom.
    pub target: &'a Target,
    /// What is spoken there.
    pub dialect: &'a Dialect,
    /// What it says first.
    pub opening: Vec<u8>,
}

/// Opens connection number `index` and those after it, `count` in all, each on its way.
///
/// # Errors
/// Which target did not answer as it should, and how.
pub fn open<'a>(
    index: usize,
    count: usize,
    way: impl Fn(usize) -> Way<'a>,
) -> Result<Vec<Opened>, String> {
    let ways: Vec<Way> = (index..index + count).map(way).collect();
    let sockets: Vec<Socket> = ways
        .iter()
        .zip(index..)
        .map(|(way, index)| connect(way.target, index).map_err(|error| failure(way.target, &error)))
        .collect::<Result<_, _>>()?;
    let mut keys = Vec::new();
    for (way, socket) in ways.iter().zip(&sockets) {
        let is_websocket = way.dialect.carriage != Carriage::Stream;
        let key = is_websocket.then(generate_key);
        if let Some(key) = &key {
            ask(socket, way.target, key).map_err(|error| failure(way.target, &error))?;
        }
        keys.push(key);
    }
    let mut opened = Vec::with_capacity(count);
    for ((way, socket), key) in ways.iter().zip(sockets).zip(keys) {
        let target = way.target;
        let answer = |reason: String| format!("{target}: {reason}");
        let mut rest = match key {
            Some(key) => upgraded(&socket, &key).map_err(answer)?,
            None => Vec::new(),
        };
        if way.dialect.is_greeted() {
            rest = greeted(&socket, way.dialect, rest).map_err(answer)?;
        }
        (&socket)
            .write_all(&way.opening)
            .and_then(|()| socket.set_nonblocking(true))
            .map_err(|error| failure(target, &error))?;
        opened.push(Opened { socket, rest });
    }
    Ok(opened)
}

fn failure(target: &Target, error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("{target}: no answer in time"),
        _ => format!("{target}: {error}"),
    }
}

fn connect(target: &Target, index: usize) -> std::io::Result<Socket> {
    let socket = match &target.endpoint {
        Endpoint::Tcp(address) => {
            let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
            socket.set_tcp_nodelay(true)?;
            if let Some(source) = source(*address, index) {
                socket.bind(&SocketAddr::new(source, 0).into())?;
            }
            socket.connect_timeout(&(*address).into(), STEP_TIME)?;
            socket
        }
        Endpoint::Unix(path) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_write_timeout(Some(STEP_TIME))?;
            socket.connect(&SockAddr::unix(path)?)?;
            socket
        }
    };
    socket.set_read_timeout(Some(STEP_TIME))?;
    socket.set_write_timeout(Some(STEP_TIME))?;
    Ok(socket)
}

/// Where connection number `index` comes from; none leaves it to the kernel.
fn source(target: SocketAddr, index: usize) -> Option<IpAddr> {
    let IpAddr::V4(ip) = target.ip() else {
        return None;
    };
    let which = index / PER_SOURCE % SOURCES;
    (ip.is_loopback() && which > 0).then(|| Ipv4Addr::new(127, 0, 0, 1 + which as u8).into())
}

/// Asks for the upgrade (RFC 6455, 4.1).
fn ask(mut socket: &Socket, target: &Target, key: &str) -> std::io::Result<()> {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n",
        target.path, target.host
    );
    socket.write_all(request.as_bytes())
}

/// Reads the answer, and gives what came behind it.
fn upgraded(socket: &Socket, key: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    loop {
        read_more(socket, &mut bytes)?;
        if let Some(head) = accepted(&bytes, key)? {
            return Ok(bytes.split_off(head));
        }
        if bytes.len() > HEAD_MAX {
            return Err("an answer without an end".to_owned());
        }
    }
}

/// Reads what the server says first, of which some may have come, and gives what came behind it.
fn greeted(socket: &Socket, dialect: &Dialect, mut bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    loop {
        if let Some(frame) = frame::read(&bytes, HEAD_MAX)? {
            if frame.opcode == Opcode::Close {
                let reason = frame::close_reason(&bytes[frame.payload]);
                return Err(format!("closed in place of a greeting: {reason}"));
            }
            dialect.hear_greeting(&bytes[frame.payload.clone()])?;
            return Ok(bytes.split_off(frame.payload.end));
        }
        read_more(socket, &mut bytes)?;
    }
}

fn read_more(mut socket: &Socket, bytes: &mut Vec<u8>) -> Result<(), String> {
    let mut piece = [0; 1024];
    loop {
        match socket.read(&mut piece) {
            Ok(0) => return Err("closed during the handshake".to_owned()),
            Ok(size) => {
                bytes.extend_from_slice(&piece[..size]);
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("no answer to the handshake: {error}")),
        }
    }
}

/// Is this the answer that `key` wants? Its size, or none if it is not all there yet.
fn accepted(bytes: &[u8], key: &str) -> Result<Option<usize>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let size = match response.parse(bytes) {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("no HTTP: {error}")),
    };
    let (code, reason) = (response.code.unwrap_or(0), response.reason.unwrap_or(""));
    if code != 101 {
        return Err(format!("no upgrade: {code} {reason}").trim_end().to_owned());
    }
    let expected = derive_accept_key(key.as_bytes());
    let is_right = response.headers.iter().any(|header| {
        header.name.eq_ignore_ascii_case("sec-websocket-accept")
            && header.value == expected.as_bytes()
    });
    if is_right {
        Ok(Some(size))
    } else {
        Err("the upgrade has a wrong Sec-WebSocket-Accept".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_handshakes_are_read() {
        // RFC 6455, 1.3.
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        let good =
            format!("HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: {accept}\r\n\r\n");
        assert_eq!(accepted(good.as_bytes(), key), Ok(Some(good.len())));
        let more = format!("{good}\u{1}x");
        assert_eq!(accepted(more.as_bytes(), key), Ok(Some(good.len())));
        for cut in 0..good.len() {
            assert_eq!(accepted(&good.as_bytes()[..cut], key), Ok(None));
        }
        let check = |text: &str, reason: &str| {
            let refusal = accepted(text.as_bytes(), key).unwrap_err();
            assert!(refusal.contains(reason), "{refusal}");
        };
        check("HTTP/1.1 503 Busy\r\n\r\n", "503 Busy");
        check("HTTP/1.1 101 Yes\r\n\r\n", "wrong");
        check(&good.replace("s3p", "s3q"), "wrong");
        check("-ERR unknown command\r\n", "no HTTP");
    }

    #[test]
    fn sources_change_on_loopback_only() {
        let check = |target: &str, index, expected: Option<&str>| {
            let expected = expected.map(|ip| ip.parse().unwrap());
            assert_eq!(source(target.parse().unwrap(), index), expected);
        };
        check("127.0.0.1:1", 0, None);
        check("127.0.0.1:1", 999, None);
        check("127.0.0.1:1", 1000, Some("127.0.0.2"));
        check("127.0.0.1:1", 31_999, Some("127.0.0.32"));
        check("127.0.0.1:1", 32_000, None);
        check("[::1]:1", 5000, None);
        check("10.0.0.1:1", 5000, None);
    }
}
