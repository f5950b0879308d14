//! A client that comes over any stream, behind any bytes and with any headers: as through a proxy, or as one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use socket2::{Domain, Socket, Type};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::HandshakeError;
use tungstenite::http::HeaderName;
use tungstenite::{Error, Message, WebSocket};

use super::DEADLINE;
use super::client::parse;

/// A client that was let in; or the answer's status and Retry-After.
pub type Entered<S> = Result<WebSocket<S>, (u16, Option<String>)>;

/// Sends `preface`, then a request with these headers (a `Host` in place of ours).
pub fn enter<S: Read + Write>(
    mut stream: S,
    preface: &[u8],
    headers: &[(&str, &str)],
) -> Entered<S> {
    stream.write_all(preface).expect("it is taken");
    let mut request = "ws://127.0.0.1/".into_client_request().expect("a request");
    for (name, value) in headers {
        let name: HeaderName = name.parse().expect("a name");
        let value = value.parse().expect("a value");
        if name == "host" {
            request.headers_mut().insert(name, value);
        } else {
            request.headers_mut().append(name, value);
        }
    }
    match tungstenite::client(request, stream) {
        Ok((socket, _)) => Ok(socket),
        Err(HandshakeError::Failure(Error::Http(response))) => {
            let retry_after = response.headers().get("retry-after");
            let retry_after = retry_after.map(|value| value.to_str().expect("text").to_owned());
            Err((response.status().as_u16(), retry_after))
        }
        Err(error) => panic!("neither in nor refused: {error}"),
    }
}

/// A connection from one address of this machine (all of 127/8 is here) to another.
pub fn connect_from(source: &str, address: &str) -> TcpStream {
    let to: SocketAddr = address.parse().expect("an address");
    let from: SocketAddr = format!("{source}:0").parse().expect("an address");
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    socket.bind(&from.into()).expect("it is of this machine");
    socket
        .connect(&to.into())
        .unwrap_or_else(|error| panic!("connect {address}: {error}"));
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.into()
}

/// A connection to a Unix socket.
pub fn connect_path(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path)
        .unwrap_or_else(|error| panic!("connect {}: {error}", path.display()));
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// The id of this session.
pub fn whoami<S: Read + Write>(client: &mut WebSocket<S>) -> String {
    client
        .send(Message::text(r#"{"type":"whoami"}"#))
        .expect("it is open");
    let answer = client.read().expect("an answer");
    let answer = parse(answer.to_text().expect("a text"));
    answer["session"].as_str().expect("an id").to_owned()
}
