//! A publish through one shard, without sockets: frames in, slices to send out.
//!
//! What a turn costs in user space when W publications of one session meet S subscribers: read, decode, match, encode
//! once, append to the turn log, one outbox after the other, and one `transmit` for each. All that the kernel does
//! is missing, which is most of it when W is small; so this shows what we can change, and `pubsub bench` what it is
//! worth.
//!
//! Beside it the plain way with libraries: tungstenite, serde_json, a map from topics to subscribers, and a copy of each
//! frame for each of them. It knows no filters, rights, limits or acks.

use std::collections::HashMap;
use std::hint::black_box;
use std::io::Cursor;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::Value;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::{Role, WebSocket};

use pubsub::address::proxies::TrustedProxies;
use pubsub::address::{RemoteAddress, SessionId, ShardId};
use pubsub::limits::Limits;
use pubsub::shard::auth::Access;
use pubsub::shard::settings::{Admission, ListenerSettings, Settings};
use pubsub::shard::slow::SlowRules;
use pubsub::shard::{Now, Shard};
use pubsub::ws::origin::OriginRules;

const HANDSHAKE: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const NOW: Now = Now {
    ms: 1000,
    unix_ms: 1_518_741_097_123,
};

fn settings() -> Settings {
    Settings {
        broker: 1,
        shards: 1,
        limits: Limits {
            outbox_total_bytes_max: 1 << 30,
            ..Limits::default()
        },
        access: Access::new(Vec::new()),
        slow: SlowRules::new(Vec::new()),
        listeners: vec![ListenerSettings {
            native: true,
            native_path: None,
            echo_path: None,
            http: false,
            trust_peer_flag: false,
            client_services: false,
            origins: OriginRules::default(),
            dealt: false,
        }],
        trusted: TrustedProxies::default(),
        admission: Admission::Open,
        echo_limits: Limits::default(),
        fault: pubsub::shard::fault::Fault::default(),
    }
}

fn masked(text: &str) -> Vec<u8> {
    let mut frame = Frame::message(text.as_bytes().to_vec(), OpCode::Data(Data::Text), true);
    frame.header_mut().mask = Some([0x37, 0xfa, 0x21, 0x3d]);
    let mut bytes = Vec::new();
    frame.format(&mut bytes).expect("a vector takes it");
    bytes
}

fn session(slot: usize) -> SessionId {
    SessionId {
        slot: slot as u32,
        generation: 1,
    }
}

/// A shard with a publisher (session 0) and so many subscribers of one topic.
fn shard(subscribers: usize) -> Shard {
    let mut shard = Shard::new(ShardId(0), Arc::new(settings()), NOW);
    let subscribe = masked(r#"{"type":"subscribe","topic":"chat.room.lobby"}"#);
    for slot in 0..=subscribers {
        let id = session(slot);
        shard.accept(id, 0, RemoteAddress::known("127.0.0.1:1"), false);
        turn(&mut shard, id, HANDSHAKE);
        if slot > 0 {
            turn(&mut shard, id, &subscribe);
        }
    }
    shard
}

/// One turn of the event loop with these bytes. Gives the bytes and the sends that came out.
fn turn(shard: &mut Shard, from: SessionId, bytes: &[u8]) -> (usize, usize) {
    shard.begin_turn(NOW);
    shard.receive(from, &mut bytes.to_vec());
    shard.fire_timers();
    let (mut size, mut sends) = (0, 0);
    for id in shard.take_dirty() {
        if let Some(chunks) = shard.transmit(id) {
            size += chunks
                .iter()
                .map(|chunk| black_box(chunk).len())
                .sum::<usize>();
            sends += 1;
        }
        shard.flushed(id);
        shard.sent(id);
    }
    shard.end_turn();
    shard.take_effects();
    (size, sends)
}

/// What the shard could have been.
struct Plain {
    subscribers: HashMap<String, Vec<usize>>,
    outboxes: Vec<Vec<u8>>,
}

impl Plain {
    fn new(subscribers: usize) -> Plain {
        Plain {
            subscribers: HashMap::from([(
                "chat.room.lobby".to_owned(),
                (0..subscribers).collect(),
            )]),
            outboxes: vec![Vec::new(); subscribers],
        }
    }

    /// As [`turn`]: the bytes of so many publications in, one piece for each subscriber out. Gives their bytes.
    fn turn(&mut self, bytes: &[u8], window: usize) -> usize {
        let nobody = Cursor::new(Vec::new());
        let mut socket = WebSocket::from_partially_read(nobody, bytes.to_vec(), Role::Server, None);
        for _ in 0..window {
            let message = socket.read().expect("the frame is whole");
            let text = message.to_text().expect("text");
            let mut publication: Value = serde_json::from_str(text).expect("it is JSON");
            publication["timestamp"] = Value::from("2018-02-16T00:31:37.123Z");
            let topic = publication["topic"].as_str().expect("it has a topic");
            let Some(subscribers) = self.subscribers.get(topic) else {
                continue;
            };
            let payload = publication.to_string().into_bytes();
            let mut frame = Vec::new();
            let delivery = Frame::message(payload, OpCode::Data(Data::Text), true);
            delivery.format(&mut frame).expect("a vector takes it");
            for &subscriber in subscribers {
                self.outboxes[subscriber].extend_from_slice(&frame);
            }
        }
        let outboxes = self.outboxes.iter_mut();
        outboxes
            .map(|outbox| {
                let size = black_box(&*outbox).len();
                outbox.clear();
                size
            })
            .sum()
    }
}

fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shard/fan-out");
    for subscribers in [1, 100, 1000] {
        for window in [1, 16, 64] {
            let message = "x".repeat(128);
            let publication = masked(&format!(
                r#"{{"type":"publish","topic":"chat.room.lobby","message":"{message}"}}"#
            ));
            let bytes = publication.repeat(window);
            let mut shard = shard(subscribers);
            let (size, sends) = turn(&mut shard, session(0), &bytes);
            assert_eq!(sends, subscribers + 1, "all of them, and the acks");
            assert!(size > window * subscribers * message.len());
            group.throughput(Throughput::Elements((subscribers * window) as u64));
            let id = BenchmarkId::new(format!("ours, window {window}"), subscribers);
            group.bench_function(id, |bencher| {
                bencher.iter(|| turn(&mut shard, session(0), &bytes));
            });
            let mut plain = Plain::new(subscribers);
            assert!(plain.turn(&bytes, window) > window * subscribers * message.len());
            let id = BenchmarkId::new(format!("plain, window {window}"), subscribers);
            group.bench_function(id, |bencher| {
                bencher.iter(|| plain.turn(&bytes, window));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
