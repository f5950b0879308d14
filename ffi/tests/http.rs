//! `examples/c/http.c`: a host with an HTTP server of its own. Page, upload and upgrade over one connection.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{compile, has, root, skip};

mod common;

const DEADLINE: Option<Duration> = Some(Duration::from_secs(30));

struct Host(Child);

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program, and where it listens.
fn start(io: &str) -> (Host, String) {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("http");
    compile(&root().join("examples/c/http.c"), &program, &[]);
    let mut command = Command::new(program);
    command.arg("127.0.0.1:0").env("PUBSUB_IO", io);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    let output = child.stdout.take().expect("it is piped");
    BufReader::new(output).read_line(&mut line).expect("a line");
    let address = line
        .trim()
        .strip_prefix("listening on ")
        .expect("its address");
    let address = address.to_owned();
    (Host(child), address)
}

/// The status line, and the body that is as long as the head says.
fn answer(client: &mut TcpStream) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).expect("a head in time");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("UTF-8");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
    client.read_exact(&mut body).expect("a body in time");
    let status = head.lines().next().expect("a status line").to_owned();
    (status, String::from_utf8(body).expect("UTF-8"))
}

fn say(client: &mut TcpStream, text: &str) {
    client.write_all(text.as_bytes()).expect("it is sent");
}

/// A text frame, masked by zeros.
fn send(client: &mut TcpStream, text: &str) {
    let frame = [
        &[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0],
        text.as_bytes(),
    ]
    .concat();
    client.write_all(&frame).expect("it is sent");
}

/// The next text frame, a short one.
fn text(client: &mut TcpStream) -> String {
    let mut head = [0; 2];
    client.read_exact(&mut head).expect("a frame in time");
    let size = match head[1] {
        126 => {
            let mut size = [0; 2];
            client.read_exact(&mut size).expect("its size");
            usize::from(u16::from_be_bytes(size))
        }
        size => usize::from(size),
    };
    let mut text = vec![0; size];
    client.read_exact(&mut text).expect("its text");
    String::from_utf8(text).expect("UTF-8")
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn one_connection_has_a_page_an_upload_and_the_upgrade() {
    if !has("gcc") || !has("pkg-config") {
        return skip("http", "no gcc or no pkg-config");
    }
    for io in ["auto", "epoll"] {
        let (_host, address) = start(io);
        let connect = || {
            let client = TcpStream::connect(&address).expect("it listens");
            client.set_read_timeout(DEADLINE).expect("an option");
            client
        };
        let mut client = connect();
        say(&mut client, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        let (status, page) = answer(&mut client);
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(page.contains("<h1>Say something</h1>"), "{page}");
        say(
            &mut client,
            "GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        );
        assert_eq!(answer(&mut client).0, "HTTP/1.1 404 Not Found");
        say(&mut client, UPGRADE);
        assert_eq!(answer(&mut client).0, "HTTP/1.1 101 Switching Protocols");
        send(&mut client, r#"{"type":"subscribe","topic":"said"}"#);
        assert!(text(&mut client).contains(r#""action":"subscribe""#));

        // What another connection uploads arrives here.
        let mut other = connect();
        say(
            &mut other,
            "POST /say HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\nhello",
        );
        assert_eq!(answer(&mut other).0, "HTTP/1.1 202 Accepted");
        let delivery = text(&mut client);
        assert!(
            delivery.contains(r#""topic":"said","message":"hello""#),
            "{delivery}"
        );

        // In pieces, and past what the host takes: the end of that connection alone.
        for piece in [
            "POST /say HTTP/1.1\r\nHost: 127.0.0.1\r\nContent",
            "-Length: 2\r\n\r\nh",
            "i",
        ] {
            say(&mut other, piece);
        }
        assert_eq!(answer(&mut other).0, "HTTP/1.1 202 Accepted");
        assert!(text(&mut client).contains(r#""message":"hi""#));
        say(
            &mut other,
            "POST /say HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 70000\r\n\r\n",
        );
        assert_eq!(answer(&mut other).0, "HTTP/1.1 413 Content Too Large");
        assert_eq!(other.read(&mut [0]).expect("its end"), 0);
        send(&mut client, r#"{"type":"ping"}"#);
        assert_eq!(text(&mut client), r#"{"type":"pong"}"#);
    }
}
