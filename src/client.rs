//! The commands `pubsub pub` and `pubsub sub`: a native JSON client on a blocking WebSocket (DESIGN 5.1, 5.3).
//!
//! It knows the protocol from the outside, as any client does, and nothing of the broker's modules. Messages pass
//! through it as the text that came: no number is rounded, no key reordered. Whatever the server sends is a value
//! or an error, never a panic.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use socket2::{SockRef, TcpKeepalive};
use tungstenite::error::ProtocolError;
use tungstenite::http::Uri;
use tungstenite::{HandshakeError, Message, WebSocket};

/// From the first packet to the end of the WebSocket handshake.
pub const CONNECT_TIME: Duration = Duration::from_secs(10);
/// What a publish waits for its acknowledgement.
pub const ACK_TIME: Duration = Duration::from_secs(30);
/// What the goodbye may take.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum ClientError {
    /// The URL is none, or of a kind that is not spoken here.
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody there, or no WebSocket.
    Connect {
        /// As given.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The broker answered with an error object.
    Refused {
        /// Its code, such as `bad_topic`.
        code: String,
        /// Its sentence.
        reason: String,
    },
    /// The broker closed the connection.
    Closed {
        /// The close code (RFC 6455, 7.4); 1005 if it gave none.
        code: u16,
        /// The text with it.
        reason: String,
    },
    /// The connection broke, or what came was no native JSON.
    Lost {
        /// What went wrong.
        reason: String,
    },
    /// The acknowledgement did not come within [`ACK_TIME`].
    Timeout,
    /// The output could not be written.
    Output(io::Error),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Url { url, reason } => write!(f, "{url}: {reason}"),
            ClientError::Connect { url, reason } => write!(f, "cannot connect to {url}: {reason}"),
            ClientError::Refused { code, reason } => write!(f, "refused: {code}: {reason}"),
            ClientError::Closed { code, reason } if reason.is_empty() => {
                write!(f, "the broker closed the connection: {code}")
            }
            ClientError::Closed { code, reason } => {
                write!(f, "the broker closed the connection: {code} {reason}")
            }
            ClientError::Lost { reason } => write!(f, "the connection is lost: {reason}"),
            ClientError::Timeout => {
                write!(f, "no acknowledgement within {} s", ACK_TIME.as_secs())
            }
            ClientError::Output(error) => write!(f, "cannot write the output: {error}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// Publishes once and waits for the acknowledgement. `message` is JSON if it parses, else a string.
///
/// `url` is `ws://host[:port]/[path]` or `unix:/path`.
///
/// # Errors
/// [`ClientError`]; the message may have been published if it is `Lost`, `Closed` or `Timeout`.
pub fn publish(url: &str, topic: &str, message: &str) -> Result<(), ClientError> {
    let mut socket = connect(url)?;
    let command = format!(
        r#"{{"type":"publish","topic":{},"message":{}}}"#,
        json_string(topic),
        json_message(message)
    );
    send(&mut socket, command)?;
    let deadline = Instant::now() + ACK_TIME;
    loop {
        // Of the whole wait, not of each read: pings would renew it for ever.
        let rest = deadline.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Err(ClientError::Timeout);
        }
        let timed = socket.get_ref().set_read_timeout(Some(rest));
        timed.map_err(|error| lost(&error))?;
        match receive(&mut socket)? {
            Incoming::Ack { action, .. } if action == "publish" => break,
            Incoming::Refused { code, reason } => {
                return Err(ClientError::Refused { code, reason });
            }
            Incoming::Ack { .. }
            | Incoming::Delivery { .. }
            | Incoming::Gap { .. }
            | Incoming::Other => {}
        }
    }
    say_goodbye(socket);
    Ok(())
}

/// Subscribes and writes what comes to `out`, one line each: topic, tab, message as JSON. Subscriptions and gaps
/// go to `err`. Runs until the connection ends; ends well only when the reader of `out` has gone away.
///
/// # Errors
/// [`ClientError`]; an end of the connection is one too.
pub fn subscribe(
    url: &str,
    topics: &[String],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), ClientError> {
    let mut socket = connect(url)?;
    for topic in topics {
        let command = format!(r#"{{"type":"subscribe","topic":{}}}"#, json_string(topic));
        send(&mut socket, command)?;
    }
    loop {
        // Reading alone answers pings: each read flushes the pong that the last one owed, then waits.
        let written = match receive(&mut socket)? {
            Incoming::Delivery { topic, message } => {
                write_line(out, format_args!("{}\t{message}", printable(&topic)))
            }
            Incoming::Ack { action, topic } if action == "subscribe" => {
                write_line(err, format_args!("subscribed {}", printable(&topic)))
            }
            Incoming::Gap { topic, count } => {
                write_line(err, format_args!("gap {} {count}", printable(&topic)))
            }
            Incoming::Refused { code, reason } => {
                return Err(ClientError::Refused { code, reason });
            }
            Incoming::Ack { .. } | Incoming::Other => Ok(()),
        };
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(ClientError::Output(error)),
        }
    }
}

/// One write per line, so that lines of several processes in one pipe stay whole.
fn write_line(out: &mut dyn Write, line: fmt::Arguments<'_>) -> io::Result<()> {
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}

/// What the broker says, as far as these commands care.
#[derive(PartialEq, Debug)]
enum Incoming {
    Ack { action: String, topic: String },
    Delivery { topic: String, message: String },
    Gap { topic: String, count: u64 },
    Refused { code: String, reason: String },
    Other,
}

impl Incoming {
    fn parse(text: &str) -> Result<Incoming, serde_json::Error> {
        // Into a map, not a struct: a delivery is its publisher's object, which may name a key twice.
        let fields: HashMap<String, &RawValue> = serde_json::from_str(text)?;
        let string = |name: &str| -> String {
            let field = fields.get(name).map(|raw| raw.get());
            field
                .and_then(|raw| serde_json::from_str(raw).ok())
                .unwrap_or_default()
        };
        let topic = string("topic");
        Ok(match string("type").as_str() {
            "publish" => Incoming::Delivery {
                topic,
                message: fields
                    .get("message")
                    .map_or_else(|| "null".to_owned(), |raw| one_line(raw.get())),
            },
            "ack" => Incoming::Ack {
                action: string("action"),
                topic,
            },
            "gap" => Incoming::Gap {
                topic,
                count: fields
                    .get("count")
                    .and_then(|raw| raw.get().parse().ok())
                    .unwrap_or_default(),
            },
            "error" => Incoming::Refused {
                code: printable(&string("code")),
                reason: match (string("reason"), topic) {
                    (reason, topic) if topic.is_empty() => printable(&reason),
                    (reason, topic) => printable(&format!("{reason} ({topic})")),
                },
            },
            _ => Incoming::Other,
        })
    }
}

/// JSON text without its line breaks and tabs: outside of strings they are white space, inside they cannot be.
fn one_line(json: &str) -> String {
    json.chars()
        .filter(|char| !matches!(char, '\n' | '\r' | '\t'))
        .collect()
}

/// Text that cannot steer a terminal or end a line.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// `message` itself if it is JSON, else as a JSON string.
fn json_message(message: &str) -> String {
    match serde_json::from_str::<IgnoredAny>(message) {
        Ok(_) => message.to_owned(),
        Err(_) => json_string(message),
    }
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn send(socket: &mut WebSocket<Stream>, command: String) -> Result<(), ClientError> {
    // A broken connection shows its reason, if there is one, to the next read: a close frame, perhaps.
    match socket.send(Message::text(command)) {
        Ok(()) => Ok(()),
        Err(error) => Err(match receive(socket) {
            Err(closed @ ClientError::Closed { .. }) => closed,
            Ok(_) | Err(_) => end(error),
        }),
    }
}

/// What the broker says next. The pong to a ping goes out with the next call.
fn receive(socket: &mut WebSocket<Stream>) -> Result<Incoming, ClientError> {
    match socket.read().map_err(end)? {
        Message::Text(text) => Incoming::parse(&text).map_err(|error| ClientError::Lost {
            reason: format!("the server does not speak native JSON: {error}"),
        }),
        Message::Close(frame) => {
            // Answers the close frame; the end is the same if that fails.
            drop(socket.flush());
            let (code, reason) = match frame {
                Some(frame) => (frame.code.into(), printable(&frame.reason)),
                None => (1005, String::new()),
            };
            Err(ClientError::Closed { code, reason })
        }
        Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
            Ok(Incoming::Other)
        }
    }
}

fn end(error: tungstenite::Error) -> ClientError {
    match error {
        tungstenite::Error::Io(error) => lost(&error),
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            ClientError::Lost {
                reason: "it ended without a close frame".into(),
            }
        }
        error => ClientError::Lost {
            reason: error.to_string(),
        },
    }
}

fn lost(error: &io::Error) -> ClientError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => ClientError::Timeout,
        _ => ClientError::Lost {
            reason: error.to_string(),
        },
    }
}

/// The closing handshake, for as long as it is no trouble: the publish is acknowledged already.
fn say_goodbye(mut socket: WebSocket<Stream>) {
    if socket.get_ref().set_read_timeout(Some(CLOSE_TIME)).is_ok() && socket.close(None).is_ok() {
        while socket.read().is_ok() {}
    }
}

/// Connects and shakes hands within [`CONNECT_TIME`].
fn connect(url: &str) -> Result<WebSocket<Stream>, ClientError> {
    let failed = |reason: String| ClientError::Connect {
        url: url.to_owned(),
        reason,
    };
    let (stream, request) = match url.strip_prefix("unix:") {
        Some(path) => {
            let stream = UnixStream::connect(path).map_err(|error| failed(error.to_string()))?;
            (Stream::Unix(stream), Uri::from_static("ws://localhost/"))
        }
        None => {
            let (uri, host, port) = parse_url(url).map_err(|reason| ClientError::Url {
                url: url.to_owned(),
                reason,
            })?;
            let stream = connect_tcp(&host, port).map_err(|error| failed(error.to_string()))?;
            (Stream::Tcp(stream), uri)
        }
    };
    let timed = |time| stream.set_read_timeout(time);
    timed(Some(CONNECT_TIME)).map_err(|error| failed(error.to_string()))?;
    let (socket, _response) = tungstenite::client(request, stream).map_err(|error| {
        failed(match error {
            HandshakeError::Failure(tungstenite::Error::Http(response)) => {
                format!("the server answered {}", response.status())
            }
            HandshakeError::Failure(tungstenite::Error::Io(error)) => error.to_string(),
            HandshakeError::Failure(error) => error.to_string(),
            // What a blocking socket says when its time is over.
            HandshakeError::Interrupted(_) => "no WebSocket handshake in time".into(),
        })
    })?;
    socket
        .get_ref()
        .set_read_timeout(None)
        .map_err(|error| failed(error.to_string()))?;
    Ok(socket)
}

/// The URL, and where it leads.
fn parse_url(url: &str) -> Result<(Uri, String, u16), String> {
    const FORMS: &str = "expected ws://host:port/ or unix:/path";
    let uri: Uri = url.parse().map_err(|_| FORMS.to_owned())?;
    match uri.scheme_str() {
        Some("ws") => {}
        Some("wss") => return Err(format!("wss is not spoken here, {FORMS}")),
        _ => return Err(FORMS.to_owned()),
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or(FORMS)?;
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let port = uri.port_u16().unwrap_or(80);
    Ok((uri, host, port))
}

/// The first of the host's addresses that answers.
fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = None;
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIME) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                // A subscriber only reads: without this it would never notice that the other machine is gone.
                let keepalive = TcpKeepalive::new()
                    .with_time(Duration::from_secs(30))
                    .with_interval(Duration::from_secs(10))
                    .with_retries(3);
                SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other("the name has no address")))
}

/// What carries the WebSocket.
#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_read_timeout(time),
            Stream::Unix(stream) => stream.set_read_timeout(time),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.flush(),
            Stream::Unix(stream) => stream.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    use tungstenite::protocol::CloseFrame;
    use tungstenite::protocol::frame::coding::CloseCode;

    use super::*;

    type Server = WebSocket<TcpStream>;

    /// A server for one connection, and its URL.
    fn serve<T: Send + 'static>(
        play: impl FnOnce(&mut Server) -> T + Send + 'static,
    ) -> (String, JoinHandle<T>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        let thread = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            play(&mut tungstenite::accept(stream).unwrap())
        });
        (url, thread)
    }

    fn text(server: &mut Server) -> String {
        server.read().unwrap().into_text().unwrap().to_string()
    }

    fn answer(server: &mut Server, text: &str) {
        server.send(Message::text(text)).unwrap();
    }

    fn close(server: &mut Server, code: u16, reason: &'static str) {
        let code = CloseCode::from(code);
        let reason = reason.into();
        server.close(Some(CloseFrame { code, reason })).unwrap();
        while server.read().is_ok() {}
    }

    #[test]
    fn a_publish_is_one_command_and_ends_with_its_ack() {
        for (message, expected) in [
            ("hello", r#""hello""#),
            (r#"{"b":1, "a":1.0}"#, r#"{"b":1, "a":1.0}"#),
            ("18446744073709551616123", "18446744073709551616123"),
            ("1 2", r#""1 2""#),
            ("NaN", r#""NaN""#),
            ("", r#""""#),
            ("say \"hi\"\n", r#""say \"hi\"\n""#),
        ] {
            let (url, server) = serve(|server| {
                let command = text(server);
                answer(server, r#"{"type":"pong"}"#);
                answer(
                    server,
                    r#"{"type":"ack","action":"publish","timestamp":"","topic":"a.b"}"#,
                );
                let goodbye = server.read().unwrap();
                while server.read().is_ok() {}
                (command, goodbye.is_close())
            });
            publish(&url, "a.b", message).unwrap();
            let command = format!(r#"{{"type":"publish","topic":"a.b","message":{expected}}}"#);
            assert_eq!(server.join().unwrap(), (command, true));
        }
    }

    #[test]
    fn an_error_object_is_an_error_with_code_and_reason() {
        let (url, server) = serve(|server| {
            text(server);
            answer(
                server,
                r#"{"type":"error","action":"publish","code":"bad_topic","reason":"an empty level","topic":"a..b"}"#,
            );
        });
        let error = publish(&url, "a..b", "1").unwrap_err();
        assert_eq!(
            error.to_string(),
            "refused: bad_topic: an empty level (a..b)"
        );
        server.join().unwrap();
    }

    #[test]
    fn a_close_is_an_error_with_code_and_reason() {
        let (url, server) = serve(|server| close(server, 1001, "going away"));
        let error = publish(&url, "a", "1").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the broker closed the connection: 1001 going away"
        );
        server.join().unwrap();
        let (url, server) = serve(|server| drop(server.read()));
        let error = publish(&url, "a", "1").unwrap_err();
        assert!(matches!(error, ClientError::Lost { .. }), "{error}");
        server.join().unwrap();
    }

    #[test]
    fn a_subscriber_prints_lines_tells_gaps_and_answers_pings() {
        let (url, server) = serve(|server| {
            for topic in ["news", "=a.*"] {
                assert_eq!(
                    text(server),
                    format!(r#"{{"type":"subscribe","topic":"{topic}"}}"#)
                );
                answer(
                    server,
                    &format!(r#"{{"type":"ack","action":"subscribe","topic":"{topic}"}}"#),
                );
            }
            server
                .send(Message::Ping(tungstenite::Bytes::from_static(b"here?")))
                .unwrap();
            let pong = server.read().unwrap();
            for delivery in [
                r#"{"type":"publish","topic":"news.uk","message":{"z":1.0,"a":"\t"},"context":"news"}"#,
                "{\"type\":\"publish\",\"message\":1,\"topic\":\"news\",\"message\":[\n\t1,\r\n2]}",
                r#"{"type":"publish","topic":"news"}"#,
                r#"{"type":"publish","topic":"a\u001b[2J\tb","message":0}"#,
                r#"{"type":"gap","topic":"news","count":17}"#,
                r#"{"type":"news from the future"}"#,
                "{}",
            ] {
                answer(server, delivery);
            }
            close(server, 4008, "too slow");
            pong
        });
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let topics = ["news".to_owned(), "=a.*".to_owned()];
        let error = subscribe(&url, &topics, &mut out, &mut err).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the broker closed the connection: 4008 too slow"
        );
        assert_eq!(
            server.join().unwrap(),
            Message::Pong(tungstenite::Bytes::from_static(b"here?"))
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "news.uk\t{\"z\":1.0,\"a\":\"\\t\"}\nnews\t[1,2]\nnews\tnull\na\u{fffd}[2J\u{fffd}b\t0\n"
        );
        assert_eq!(
            String::from_utf8(err).unwrap(),
            "subscribed news\nsubscribed =a.*\ngap news 17\n"
        );
    }

    #[test]
    fn a_subscriber_ends_with_a_refusal_or_with_nonsense() {
        for (sent, expected) in [
            (
                r#"{"type":"error","action":"subscribe","code":"not_allowed","reason":"no"}"#,
                "refused: not_allowed: no",
            ),
            (
                "hello",
                "the connection is lost: the server does not speak native JSON",
            ),
            (
                "[1]",
                "the connection is lost: the server does not speak native JSON",
            ),
        ] {
            let (url, server) = serve(move |server| answer(server, sent));
            let topics = ["a".to_owned()];
            let error = subscribe(&url, &topics, &mut Vec::new(), &mut Vec::new()).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
            server.join().unwrap();
        }
    }

    /// A writer whose reader is gone.
    struct Gone(ErrorKind);

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_left_is_a_quiet_end_and_a_full_disk_is_not() {
        for (kind, quiet) in [
            (ErrorKind::BrokenPipe, true),
            (ErrorKind::StorageFull, false),
        ] {
            let (url, server) = serve(|server| {
                answer(server, r#"{"type":"publish","topic":"a","message":1}"#);
                while server.read().is_ok() {}
            });
            let end = subscribe(&url, &["a".to_owned()], &mut Gone(kind), &mut Vec::new());
            assert_eq!(end.is_ok(), quiet, "{end:?}");
            server.join().unwrap();
        }
    }

    #[test]
    fn a_unix_socket_is_an_address() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut server = tungstenite::accept(stream).unwrap();
            server.read().unwrap();
            server
                .send(Message::text(
                    r#"{"type":"ack","action":"publish","topic":"a"}"#,
                ))
                .unwrap();
            while server.read().is_ok() {}
        });
        publish(&format!("unix:{}", path.display()), "a", "1").unwrap();
        server.join().unwrap();
    }

    #[test]
    fn urls() {
        for (url, expected) in [
            ("ws://127.0.0.1:8000/", Some(("127.0.0.1", 8000))),
            ("ws://localhost", Some(("localhost", 80))),
            ("ws://[::1]:9/path?v=1", Some(("::1", 9))),
            ("wss://example.org/", None),
            ("http://127.0.0.1:8000/", None),
            ("127.0.0.1:8000", None),
            ("/tmp/socket", None),
            ("ws://", None),
            ("", None),
        ] {
            let parsed = parse_url(url).ok();
            let parsed = parsed.as_ref().map(|(_, host, port)| (&**host, *port));
            assert_eq!(parsed, expected, "{url}");
        }
    }

    #[test]
    fn nobody_there_is_one_line_with_the_url() {
        let free = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            format!("ws://{}/", listener.local_addr().unwrap())
        };
        let error = publish(&free, "a", "1").unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot connect to {free}: ")),
            "{error}"
        );
        assert!(
            error.contains("refused") && !error.contains('\n'),
            "{error}"
        );
        let error = publish("wss://example.org/", "a", "1").unwrap_err();
        assert!(error.to_string().contains("wss://example.org/"), "{error}");
    }

    #[test]
    fn a_server_that_refuses_the_handshake_is_quoted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            stream
                .write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
        });
        let error = publish(&url, "a", "1").unwrap_err().to_string();
        assert_eq!(
            error,
            format!("cannot connect to {url}: the server answered 503 Service Unavailable")
        );
        server.join().unwrap();
    }
}
