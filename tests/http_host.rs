//! A host with an HTTP server of its own on the broker's port: page, upload and upgrade over one connection.

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use common::server::{blocks, replaced};
use common::{Client, DEADLINE, Server};
use pubsub::broker::Broker;
use pubsub::config::{Config, Io, ListenAddr, Listener};
use pubsub::link::{Answer, Event, HttpConnection, Link, Watch};
use pubsub::net::listener::Bound;

/// A broker, and its host: one thread that answers one request at a time.
struct House {
    broker: Broker,
    address: String,
    host: JoinHandle<usize>,
    is_over: Arc<AtomicBool>,
}

impl House {
    fn start(shards: usize, io: Io) -> House {
        let tcp = ListenAddr::Tcp {
            host: "127.0.0.1".to_owned(),
            port: 0,
        };
        let config = Config {
            listeners: vec![Listener::new(tcp)],
            shards: Some(shards),
            io,
            ..Config::embedded()
        };
        let broker = Broker::start(&config).expect("a broker starts");
        let Bound::Tcp(address) = broker.listening[0] else {
            panic!("it was TCP");
        };
        let link = Link::open(&broker, "web").expect("a link opens");
        link.watch(Watch::HTTP, Answer::Wanted).expect("a call");
        assert!(matches!(
            link.next(Some(DEADLINE)),
            Some(Event::Done { .. })
        ));
        let is_over = Arc::new(AtomicBool::new(false));
        let host = std::thread::spawn({
            let is_over = is_over.clone();
            move || {
                let mut taken = 0;
                while let Some(event) = link.next(None) {
                    match event {
                        Event::Http(connection) => {
                            taken += 1;
                            serve(&link, *connection);
                        }
                        Event::Stopped => break,
                        other => panic!("{other:?}"),
                    }
                }
                assert!(
                    is_over.load(Ordering::Acquire),
                    "the broker has stopped by itself"
                );
                taken
            }
        });
        House {
            broker,
            address: address.to_string(),
            host,
            is_over,
        }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(&self.address).expect("a connection");
        client.set_read_timeout(Some(DEADLINE)).expect("an option");
        client
    }

    /// How many connections the host was given.
    fn stop(self) -> usize {
        self.is_over.store(true, Ordering::Release);
        self.broker.stop();
        self.host.join().expect("the host does not panic")
    }
}

/// Serves a connection until it asks for an upgrade, which is the broker's, or ends.
fn serve(link: &Link, connection: HttpConnection) {
    let HttpConnection {
        socket,
        listener,
        address,
        mut bytes,
    } = connection;
    let mut socket = TcpStream::from(socket);
    assert_eq!(address, socket.peer_addr().expect("a peer").to_string());
    socket.set_nonblocking(false).expect("an option");
    loop {
        let head = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !receive(&mut socket, &mut bytes) {
                return;
            }
        };
        let text = String::from_utf8(bytes[..head].to_vec()).expect("UTF-8");
        if text.contains("Upgrade: websocket") {
            let socket = OwnedFd::from(socket);
            return link.adopt(listener, socket, bytes).expect("it is taken");
        }
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let body = length.map_or(0, |length| length.parse().expect("a number"));
        while bytes.len() < head + body {
            assert!(receive(&mut socket, &mut bytes), "a body ends early");
        }
        let body: Vec<u8> = bytes.drain(..head + body).skip(head).collect();
        let line = text.lines().next().expect("a request line");
        let said = format!("{line} +{}", body.len());
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}",
            said.len()
        );
        socket.write_all(answer.as_bytes()).expect("it is sent");
    }
}

fn receive(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> bool {
    let mut piece = [0; 4096];
    let size = socket.read(&mut piece).unwrap_or(0);
    bytes.extend_from_slice(&piece[..size]);
    size > 0
}

/// The next answer's body, whose length is in its head.
fn answer(client: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "));
            let length: usize = length.expect("a length").parse().expect("a number");
            if body.len() == length {
                return body.to_owned();
            }
        }
        let mut byte = [0];
        client.read_exact(&mut byte).expect("an answer in time");
        bytes.push(byte[0]);
    }
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// `{"type":"ping"}`, masked by zeros.
fn ping() -> Vec<u8> {
    let text = br#"{"type":"ping"}"#;
    [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], &text[..]].concat()
}

fn pong(client: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).expect("a head in time");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    let mut frame = [0; 17];
    client.read_exact(&mut frame).expect("a frame in time");
    assert_eq!(&frame[2..], br#"{"type":"pong"}"#);
}

#[test]
fn page_upload_and_upgrade_go_over_one_connection() {
    for (io, shards) in [(Io::Auto, 1), (Io::Auto, 2), (Io::Epoll, 1), (Io::Epoll, 2)] {
        let house = House::start(shards, io);
        // One connection per request to the host, so that several shards are met.
        for number in 0..8 {
            let mut client = house.connect();
            let page = format!("GET /page/{number} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
            client.write_all(page.as_bytes()).expect("it is sent");
            assert_eq!(
                answer(&mut client),
                format!("GET /page/{number} HTTP/1.1 +0")
            );
            let body = "x".repeat(100_000);
            let upload = format!(
                "POST /up HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            client.write_all(upload.as_bytes()).expect("it is sent");
            assert_eq!(answer(&mut client), "POST /up HTTP/1.1 +100000");
            // The host reads on until the upgrade, which goes back with what came behind it.
            client
                .write_all(&[UPGRADE.as_bytes(), &ping()].concat())
                .expect("it is sent");
            pong(&mut client);
        }
        // Everything at once: the first request decides whose it is, the host gets the rest.
        let mut client = house.connect();
        let page = "GET /a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
        let all = [
            page.as_bytes(),
            page.as_bytes(),
            UPGRADE.as_bytes(),
            &ping(),
        ]
        .concat();
        client.write_all(&all).expect("it is sent");
        assert_eq!(answer(&mut client), "GET /a HTTP/1.1 +0");
        assert_eq!(answer(&mut client), "GET /a HTTP/1.1 +0");
        pong(&mut client);
        // A connection that begins with an upgrade is never the host's.
        let mut client = house.connect();
        client
            .write_all(&[UPGRADE.as_bytes(), &ping()].concat())
            .expect("it is sent");
        pong(&mut client);
        assert_eq!(house.stop(), 9);
    }
}

/// nginx by the block of `docs/proxies.md`, as that page says for a host with a server of its own.
fn nginx(upstream: &str) -> Option<Server> {
    let configure = |port: u16, folder: &Path| {
        let block = blocks("proxies.md", "nginx").remove(0);
        let keeping = format!("server {upstream};\n    keepalive 16;");
        let block = replaced(
            block,
            &[
                ("server 127.0.0.1:8000;", &keeping),
                ("''      close;", "''      '';"),
                ("listen 443 ssl;", &format!("listen 127.0.0.1:{port};")),
                ("ssl_certificate ", "# "),
                ("ssl_certificate_key ", "# "),
            ],
        );
        let folder = folder.display().to_string();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("    {name}_temp_path {folder}/{name};\n"))
            .concat();
        let whole = format!(
            "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n\
             http {{\n    access_log off;\n{temporary}{block}}}\n"
        );
        let path = format!("{folder}/nginx.conf");
        std::fs::write(&path, whole).expect("it can be written");
        ["-p", &folder, "-c", &path, "-e", "stderr"]
            .map(str::to_owned)
            .to_vec()
    };
    let nginx = Server::start("nginx", configure);
    if nginx.is_none() {
        common::skip(
            "nginx",
            "there is no nginx: run cargo xtask test --only setup",
        );
    }
    nginx
}

#[test]
fn behind_nginx_one_kept_connection_has_pages_and_then_the_upgrade() {
    for io in [Io::Auto, Io::Epoll] {
        let house = House::start(2, io);
        let Some(nginx) = nginx(&house.address) else {
            house.stop();
            return;
        };
        for round in 0..3 {
            // Different clients of nginx, one connection of its own to the host: each waits for its answer.
            for number in 0..5 {
                let mut client = TcpStream::connect(&nginx.address).expect("a connection");
                client.set_read_timeout(Some(DEADLINE)).expect("an option");
                let body = "x".repeat(20_000);
                let upload = format!(
                    "POST /up/{number} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                client.write_all(upload.as_bytes()).expect("it is sent");
                let said = answer(&mut client);
                assert_eq!(
                    said,
                    format!("POST /up/{number} HTTP/1.1 +20000"),
                    "{round}"
                );
            }
            let mut client = Client::connect_to(&nginx.address, "/");
            assert!(!client.whoami().is_empty());
        }
        // Each upgrade took the kept connection with it.
        assert_eq!(house.stop(), 3);
    }
}
