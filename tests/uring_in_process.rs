//! A broker in this process on the ring, so that AddressSanitizer sees both sides of every buffer (docs/io_uring.md says
//! how): fan-out, slow readers, resets, connections handed over, and a stop with all of it under way.

mod common;

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use common::client::parse;
use common::raw::connect_narrow;
use common::{Client, DEADLINE};
use pubsub::broker::{Broker, StartError};
use pubsub::config::{Config, Io, ListenAddr, Listener};
use pubsub::net::listener::Bound;
use serde_json::json;
use socket2::SockRef;

/// Two shards on rings, on a port and a path; none where there is no ring.
fn start(path: &Path) -> Option<(Broker, String)> {
    let tcp = ListenAddr::Tcp {
        host: "127.0.0.1".to_owned(),
        port: 0,
    };
    let listeners = [tcp, ListenAddr::Unix(path.to_owned())].map(Listener::new);
    let mut config = Config {
        listeners: listeners.into(),
        admin: None,
        shards: Some(2),
        io: Io::Uring,
        coalesce_us: 20,
        ..Config::default()
    };
    config.limits.outbox_bytes_max = 256 << 10;
    config.limits.outbox_bytes_soft = 64 << 10;
    config.limits.linger_ms = 100;
    let broker = match Broker::start(&config) {
        Ok(broker) => broker,
        Err(StartError::Usage(why)) if why.contains("io_uring") => {
            common::skip("uring_in_process", &why);
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let Bound::Tcp(address) = broker.listening[0] else {
        panic!("TCP was first");
    };
    Some((broker, address.to_string()))
}

fn connect(address: &str) -> Client {
    Client::connect_to(address, "/")
}

/// The connection ends by a reset, whatever was under way.
fn reset(client: &Client) {
    let socket = SockRef::from(client.stream());
    socket.set_linger(Some(Duration::ZERO)).expect("a socket");
}

/// One life of a broker.
fn live(round: u64) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("broker.sock");
    let Some((broker, address)) = start(&path) else {
        return false;
    };
    let mut readers: Vec<Client> = (0..12).map(|_| connect(&address)).collect();
    for reader in &mut readers {
        reader.subscribe("all");
    }
    let mut dealt = Vec::new();
    for _ in 0..6 {
        let stream = UnixStream::connect(&path).expect("the broker listens on its path");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let (mut socket, _) = tungstenite::client("ws://localhost/", stream).expect("a handshake");
        let subscribe = r#"{"type":"subscribe","topic":"all"}"#;
        socket.send(tungstenite::Message::text(subscribe)).unwrap();
        socket.read().expect("an ack");
        dealt.push(socket);
    }
    // They never read: their sends are stuck in the ring until they are closed, or until the end.
    let mut slow: Vec<Client> = (0..4)
        .map(|_| Client::over(connect_narrow(&address), &address, "/"))
        .collect();
    for client in &mut slow {
        client.subscribe("all");
    }
    let mut publisher = connect(&address);
    for number in 0..150_usize {
        let fill = "x".repeat([5, 900, 20_000, 60_000][number % 4]);
        publisher.publish("all", json!({"n": number, "fill": fill}));
        for reader in &mut readers {
            assert_eq!(reader.delivery()["message"]["n"], number);
        }
        for socket in &mut dealt {
            let text = socket.read().expect("a delivery");
            assert_eq!(parse(text.to_text().unwrap())["message"]["n"], number);
        }
        if number % 10 == 0 {
            // A subscriber that goes by a reset with deliveries on the way, and one within its handshake.
            let mut gone = connect(&address);
            gone.subscribe("all");
            reset(&gone);
            let mut half = TcpStream::connect(&address).expect("it listens");
            half.write_all(b"GET / HTTP/1.1\r\n").expect("it reads");
        }
    }
    if round.is_multiple_of(2) {
        broker.drain(Duration::ZERO, &|_| false);
    }
    broker.stop();
    drop(UnixStream::connect(&path).expect_err("nobody listens there"));
    true
}

#[test]
fn a_broker_lives_and_ends_in_this_process() {
    for round in 0..3 {
        if !live(round) {
            return;
        }
    }
}
