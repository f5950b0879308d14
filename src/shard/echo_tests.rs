//! The echo protocol, and limits that belong to a protocol.

use std::sync::Arc;

use crate::address::{RemoteAddress, SessionId, ShardId};
use crate::limits::{KIB, Limits, MIB};
use crate::shard::auth::Access;
use crate::shard::settings::{Admission, ListenerSettings, Settings};
use crate::shard::slow::SlowRules;
use crate::shard::{Effect, Now, Shard};
use crate::ws::frame::{self, Opcode};
use crate::ws::origin::OriginRules;

const NOW: Now = Now { ms: 1, unix_ms: 1 };
const ECHO_BYTES_MAX: usize = MIB;
const NO_ORDERS: [bool; 0] = [];

/// A shard alone, which echoes messages of at most a MiB on `/echo`.
fn shard() -> Shard {
    let limits = Limits {
        outbox_total_bytes_max: usize::MAX,
        ..Limits::default()
    };
    let settings = Settings {
        broker: 1,
        shards: 1,
        echo_limits: Limits {
            message_bytes_max: ECHO_BYTES_MAX,
            outbox_bytes_max: 2 * ECHO_BYTES_MAX,
            outbox_bytes_soft: 2 * ECHO_BYTES_MAX,
            ..limits.clone()
        },
        limits,
        access: Access::new(Vec::new()),
        slow: SlowRules::default(),
        listeners: vec![ListenerSettings {
            native: true,
            native_path: None,
            echo_path: Some("/echo".to_owned()),
            http: false,
            trust_peer_flag: false,
            client_services: false,
            origins: OriginRules::new(&[], true).unwrap(),
            dealt: false,
        }],
        trusted: Default::default(),
        admission: Admission::Open,
        fault: crate::shard::fault::Fault::default(),
    };
    let mut shard = Shard::new(ShardId(0), Arc::new(settings), NOW);
    shard.begin_turn(NOW);
    shard
}

fn connect(shard: &mut Shard, slot: u32, path: &str) -> SessionId {
    let id = SessionId {
        slot,
        generation: 0,
    };
    shard.accept(id, 0, RemoteAddress::known("somewhere"), false);
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    shard.receive(id, &mut head.into_bytes());
    let response = read_all(shard, id);
    assert!(response.starts_with(b"HTTP/1.1 101 "), "{path}");
    id
}

/// One send, read at once; its bytes.
fn read_one(shard: &mut Shard, id: SessionId) -> Option<Vec<u8>> {
    let chunks = shard.transmit(id)?;
    shard.sent(id);
    Some(chunks.concat())
}

fn read_all(shard: &mut Shard, id: SessionId) -> Vec<u8> {
    std::iter::from_fn(|| read_one(shard, id))
        .collect::<Vec<_>>()
        .concat()
}

/// As a client sends it, with a mask of zeros.
fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = server_frame(first, payload);
    bytes[1] |= 0x80;
    let header_size = frame::header_size(payload.len());
    bytes.splice(header_size..header_size, [0; 4]);
    bytes
}

fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode_header(Opcode::Text, payload.len(), &mut bytes);
    bytes[0] = first;
    bytes.extend_from_slice(payload);
    bytes
}

/// The orders about reading since the last call: does the driver read?
fn reading_orders(shard: &mut Shard) -> Vec<bool> {
    let effects = shard.take_effects();
    let orders = effects.iter().filter_map(|effect| match effect {
        Effect::PauseReading(_) => Some(false),
        Effect::ResumeReading(_) => Some(true),
        _ => None,
    });
    orders.collect()
}

#[test]
fn echo_sends_back_what_came() {
    let check = |frames: &[(u8, &[u8])], expected: &[(u8, &[u8])]| {
        let mut shard = shard();
        let id = connect(&mut shard, 0, "/echo");
        let bytes = |frames: &[(u8, &[u8])], one: fn(u8, &[u8]) -> Vec<u8>| {
            let frames = frames.iter().map(|(first, payload)| one(*first, payload));
            frames.collect::<Vec<_>>().concat()
        };
        shard.receive(id, &mut bytes(frames, client_frame));
        assert_eq!(read_all(&mut shard, id), bytes(expected, server_frame));
    };
    check(&[(0x81, b"text")], &[(0x81, b"text")]);
    check(&[(0x82, b"\xFF\x00")], &[(0x82, b"\xFF\x00")]);
    check(&[(0x81, b""), (0x82, b"")], &[(0x81, b""), (0x82, b"")]);
    check(
        &[(0x01, b"a"), (0x89, b"?"), (0x00, b""), (0x80, b"b")],
        &[(0x8A, b"?"), (0x81, b"ab")],
    );
    check(&[(0x82, &[7; 70_000])], &[(0x82, &[7; 70_000])]);
    check(&[(0x8A, b"")], &[]);
    check(&[(0x88, b"\x03\xE8")], &[(0x88, b"\x03\xE8")]);
    check(
        &[(0x81, b"\xFF")],
        &[(0x88, b"\x03\xEFtext that is not UTF-8")],
    );
}

#[test]
fn each_protocol_has_its_limits() {
    let check = |path: &str, size: usize, is_too_big: bool| {
        let mut shard = shard();
        let id = connect(&mut shard, 0, path);
        shard.receive(id, &mut client_frame(0x81, &vec![b' '; size]));
        let answer = read_all(&mut shard, id);
        assert_eq!(
            answer.starts_with(b"\x88") && answer[2..4] == 1009_u16.to_be_bytes(),
            is_too_big,
            "{size} bytes at {path}"
        );
    };
    check("/", 64 * KIB, false);
    check("/", 64 * KIB + 1, true);
    check("/echo", 64 * KIB + 1, false);
    check("/echo", ECHO_BYTES_MAX, false);
    check("/echo", ECHO_BYTES_MAX + 1, true);
    check("/echo/", 64 * KIB + 1, true);
}

#[test]
fn nothing_is_taken_before_an_echo_is_read() {
    let mut shard = shard();
    let id = connect(&mut shard, 0, "/echo");
    assert_eq!(reading_orders(&mut shard), NO_ORDERS);
    let message = client_frame(0x82, &vec![7; ECHO_BYTES_MAX]);
    for piece in message.chunks(64 * KIB) {
        assert_eq!(reading_orders(&mut shard), NO_ORDERS);
        shard.receive(id, &mut piece.to_vec());
    }
    assert_eq!(reading_orders(&mut shard), [false]);
    // What was taken before the pause took effect waits, and the shard does not turn for it.
    shard.receive(id, &mut client_frame(0x81, b"next"));
    shard.take_dirty();
    let mut left = frame::SERVER_HEADER_BYTES_MAX + ECHO_BYTES_MAX;
    while left >= 64 * KIB {
        shard.begin_turn(NOW);
        shard.resume();
        assert!(!shard.has_leftovers, "{left} bytes unread");
        assert_eq!(reading_orders(&mut shard), NO_ORDERS, "{left} bytes unread");
        left -= read_one(&mut shard, id)
            .expect("the rest of the echo")
            .len();
        shard.take_dirty();
    }
    // It is read but for a little: the next turn goes on.
    assert!(shard.has_work());
    shard.begin_turn(NOW);
    shard.resume();
    assert_eq!(reading_orders(&mut shard), [true]);
    let rest = read_all(&mut shard, id);
    assert!(rest.ends_with(&server_frame(0x81, b"next")));
    assert_eq!(shard.stats().outbox_bytes, 0);
    assert_eq!(shard.stats().closed_slow, 0);
}

#[test]
fn an_echo_session_is_nobody_that_can_be_asked() {
    let mut shard = shard();
    let asker = connect(&mut shard, 0, "/");
    let echo = connect(&mut shard, 1, "/echo");
    let request = format!(
        r#"{{"type":"request","event":"e","data":1,"id":1,"to":"client:{}"}}"#,
        shard.client_id(echo)
    );
    shard.receive(asker, &mut client_frame(0x81, request.as_bytes()));
    let answer = read_all(&mut shard, asker);
    let answer = String::from_utf8_lossy(&answer[2..]);
    assert!(answer.contains("no_handler"), "{answer}");
    assert_eq!(read_all(&mut shard, echo), b"");
}
