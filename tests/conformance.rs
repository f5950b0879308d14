//! The conformance broker (`examples/conformance.rs`) from outside: it echoes on `/echo` whatever RFC 6455 allows,
//! and everywhere else it is the broker.

mod common;

use std::env;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use common::broker::run_command_within;
use common::raw::{
    BINARY, CONTINUATION, FIN, Frame, PING, PONG, TEXT, close_payload, frame, header, upgrade_head,
};
use common::{Broker, Client, DEADLINE, Raw, admin};
use serde_json::json;
use tungstenite::client::client_with_config;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// The largest message that is echoed.
const ECHO_BYTES_MAX: usize = 64 * MIB;

/// The example's binary. Cargo builds no example for `--test conformance`, so it is built here; most often that
/// finds nothing to do.
static BINARY_PATH: LazyLock<PathBuf> = LazyLock::new(|| {
    let profile_folder = Path::new(env!("CARGO_BIN_EXE_pubsub"))
        .parent()
        .expect("a binary lies in a folder");
    let profile = match profile_folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args([
            "build",
            "--quiet",
            "--example",
            "conformance",
            "--profile",
            profile,
        ])
        .arg("--target-dir")
        .arg(
            profile_folder
                .parent()
                .expect("and that in the target folder"),
        )
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    // Where everything must be compiled first, this is no matter of seconds.
    let built = run_command_within(&mut cargo, 60 * DEADLINE);
    assert_eq!(built.code, Some(0), "{}", built.stderr);
    profile_folder.join("examples/conformance")
});

fn start() -> Broker {
    Broker::start_binary(&BINARY_PATH, &[])
}

/// A client on somebody else's WebSocket library.
fn echo_client(broker: &Broker) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(broker.listen()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    let config = WebSocketConfig::default()
        .max_message_size(None)
        .max_frame_size(None);
    let url = format!("ws://{}/echo", broker.listen());
    client_with_config(url, stream, Some(config)).unwrap().0
}

/// The same by hand.
fn raw_echo(broker: &Broker) -> Raw {
    let mut raw = Raw::connect(broker.listen());
    let head = upgrade_head(broker.listen(), &[]).replacen("GET / ", "GET /echo ", 1);
    raw.send(head.as_bytes());
    let head = raw.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    raw
}

#[track_caller]
fn expect_frame(raw: &mut Raw, first: u8, payload: &[u8]) {
    let frame = raw.frame().expect("a frame, not the end of the connection");
    assert_eq!((frame.first, frame.payload.len()), (first, payload.len()));
    assert!(frame.payload == payload, "another payload came back");
}

/// Bytes without a period that a buffer could have.
fn noise(size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(size as u64);
    let mut bytes = vec![0; size];
    random.fill(&mut bytes);
    bytes
}

#[test]
fn a_client_gets_its_messages_back() {
    let broker = start();
    let mut client = echo_client(&broker);
    let texts = [
        "",
        "text",
        "καλημέρα 😀",
        &"x".repeat(125),
        &"y".repeat(126),
        &"z".repeat(65_536),
    ];
    let mut messages: Vec<Message> = texts.iter().map(|text| Message::text(*text)).collect();
    for size in [0, 1, 125, 126, 65_535, 65_536, MIB, 16 * MIB] {
        messages.push(Message::binary(noise(size)));
    }
    messages.push(Message::text("€".repeat(MIB)));
    for message in messages {
        client.send(message.clone()).unwrap();
        let answer = client.read().unwrap();
        let same = answer == message;
        assert!(
            same,
            "{} bytes came back for {}",
            answer.len(),
            message.len()
        );
    }
    client.close(None).unwrap();
    assert!(matches!(client.read(), Ok(Message::Close(None))));
    assert!(matches!(
        client.read(),
        Err(tungstenite::Error::ConnectionClosed)
    ));
}

#[test]
fn many_messages_come_back_in_order() {
    let broker = start();
    let mut raw = raw_echo(&broker);
    let count = 5_000_u32;
    std::thread::scope(|scope| {
        let mut writer = Raw::over(raw.stream().try_clone().unwrap());
        let sending = scope.spawn(move || {
            let mut bytes = 0;
            for number in 0..count {
                // Some long, so that the broker is behind and stops to read now and then.
                let size = if number % 100 == 0 { 300_000 } else { 20 };
                let mut payload = vec![b'.'; size];
                payload[..4].copy_from_slice(&number.to_be_bytes());
                writer.send(&frame(FIN | BINARY, &payload));
                bytes += payload.len();
            }
            bytes
        });
        let mut received = 0;
        for number in 0..count {
            let frame = raw.frame().expect("an echo");
            assert_eq!(frame.first, FIN | BINARY);
            assert_eq!(frame.payload[..4], number.to_be_bytes());
            received += frame.payload.len();
        }
        assert_eq!(sending.join().unwrap(), received);
    });
    assert_eq!(broker.sum("closed_slow"), 0);
}

#[test]
fn fragments_are_joined_however_many_they_are() {
    let broker = start();
    let mut raw = raw_echo(&broker);
    for (opcode, size) in [(TEXT, 1), (BINARY, 16)] {
        let count = 65_536;
        let piece = vec![b'a'; size];
        let mut bytes = frame(opcode, &piece);
        for number in 1..count {
            let fin = if number == count - 1 { FIN } else { 0 };
            bytes.extend(frame(fin | CONTINUATION, &piece));
        }
        raw.send(&bytes);
        expect_frame(&mut raw, FIN | opcode, &vec![b'a'; size * count]);
    }
    // Empty ones, and a character in pieces.
    for bytes in [
        frame(TEXT, b""),
        frame(CONTINUATION, b"\xE2"),
        frame(CONTINUATION, b""),
        frame(CONTINUATION, b"\x82"),
        frame(FIN | CONTINUATION, b"\xAC"),
    ] {
        raw.send(&bytes);
    }
    expect_frame(&mut raw, FIN | TEXT, "€".as_bytes());
}

#[test]
fn pings_between_fragments_are_answered_at_once() {
    let broker = start();
    let mut raw = raw_echo(&broker);
    raw.send(&frame(BINARY, b"0"));
    for number in 0..100_u8 {
        raw.send(&frame(FIN | PING, &[number]));
        expect_frame(&mut raw, FIN | PONG, &[number]);
        raw.send(&frame(FIN | PONG, b"unasked"));
        raw.send(&frame(CONTINUATION, b"x"));
    }
    raw.send(&frame(FIN | CONTINUATION, b""));
    let expected = [b"0".to_vec(), vec![b'x'; 100]].concat();
    expect_frame(&mut raw, FIN | BINARY, &expected);
}

#[test]
fn the_largest_message_comes_back_and_one_byte_more_is_refused() {
    let broker = start();
    let mut raw = raw_echo(&broker);
    // A mask of zeros: the payload as it is.
    let mut bytes = header(FIN | BINARY, ECHO_BYTES_MAX as u64);
    let mask = bytes.len() - 4;
    bytes[mask..].fill(0);
    let payload = noise(ECHO_BYTES_MAX);
    raw.send(&bytes);
    raw.send(&payload);
    expect_frame(&mut raw, FIN | BINARY, &payload);
    raw.send(&header(FIN | BINARY, ECHO_BYTES_MAX as u64 + 1));
    assert_eq!(raw.closed(), Some(1009));

    let mut fragments = raw_echo(&broker);
    fragments.send(&frame(BINARY, b"x"));
    fragments.send(&header(FIN | CONTINUATION, ECHO_BYTES_MAX as u64));
    assert_eq!(fragments.closed(), Some(1009));
    broker.stats_at_rest();
}

#[test]
fn violations_end_an_echo_as_they_end_everything() {
    let broker = start();
    let check = |bytes: &[u8], code: u16| {
        let mut raw = raw_echo(&broker);
        raw.send(bytes);
        assert_eq!(raw.closed(), Some(code), "{bytes:?}");
    };
    check(&frame(FIN | TEXT, b"\xFF"), 1007);
    check(&frame(TEXT, b"\xF4\x90"), 1007);
    check(&frame(FIN | 3, b""), 1002);
    check(&frame(FIN | CONTINUATION, b""), 1002);
    check(&frame(FIN | 8, &close_payload(1005, b"")), 1002);
    check(&frame(FIN | 8, &close_payload(3999, b"bye")), 3999);
}

#[test]
fn everywhere_else_it_is_the_broker() {
    let broker = start();
    for path in ["/", "/echo/", "/Echo", "/echoes"] {
        let mut client = Client::connect_to(broker.listen(), path);
        let mut publisher = Client::connect(&broker);
        client.subscribe("a.b");
        publisher.publish("a.b", json!(path));
        assert_eq!(client.delivery()["message"], path);
        client.send_binary(b"x");
        client.expect_close(1003);
    }
    // Its limits are the broker's, not the echo's.
    let mut raw = Raw::upgrade(&broker);
    raw.send(&header(FIN | TEXT, 64 * KIB as u64 + 1));
    assert_eq!(raw.closed(), Some(1009));
    // A query does not make it another path; without an upgrade it wants one.
    let mut query = Client::connect_to(broker.listen(), "/echo?case=1");
    query.send(r#"{"type":"ping"}"#);
    assert_eq!(query.next_text(), r#"{"type":"ping"}"#);
    assert_eq!(admin::get(broker.listen(), "/echo").status, 426);
}

#[test]
fn the_broker_itself_echoes_nothing() {
    let broker = Broker::start(&[]);
    let mut raw = raw_echo(&broker);
    raw.send(&frame(FIN | TEXT, br#"{"type":"ping"}"#));
    let answer = Frame {
        first: FIN | TEXT,
        payload: br#"{"type":"pong"}"#.to_vec(),
    };
    assert_eq!(raw.frame(), Some(answer));
    assert_eq!(admin::get(broker.listen(), "/echo").status, 404);
}
