//! The codec of RESP: pipelined publications read and decoded, deliveries and replies written.
//!
//! A server of applications publishes over one connection, many commands to a packet; what comes in 16 KiB pieces is
//! read as an event loop would.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use pubsub::message::{Flags, Message, Payload, Targets};
use pubsub::protocol::resp::reader::{Reader, ReaderLimits};
use pubsub::protocol::resp::{Request, Version, decode, delivery_size, encode_delivery, reply};
use pubsub::topic::{Filter, Topic};

const LIMITS: ReaderLimits = ReaderLimits {
    bulk_bytes_max: 1_000_000,
    arguments_max: 1 << 20,
    command_bytes_max: 2_000_000,
    authenticated: true,
};
const CHANNEL: &[u8] = b"chat.room.lobby";
const PIECE_BYTES: usize = 16 * 1024;

fn publication(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    reply::write_array(3, &mut bytes);
    for word in [b"PUBLISH", CHANNEL, payload] {
        reply::write_bulk(word, &mut bytes);
    }
    bytes
}

/// Reads and decodes; the bytes of all payloads.
fn receive<'a>(reader: &mut Reader, pieces: impl Iterator<Item = &'a [u8]>) -> usize {
    let mut bytes = 0;
    for mut rest in pieces {
        while let (taken, Some(arguments)) = reader.next(LIMITS, rest).expect("no violation") {
            if let Ok(Request::Publish { payload, .. }) = decode(&arguments) {
                bytes += payload.len();
            }
            rest = &rest[taken..];
        }
    }
    bytes
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("resp/decode");
    for size in [64, 1024] {
        let count = 1000;
        let bytes = publication(&vec![b'x'; size]).repeat(count);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("pipelined PUBLISH", size), |bencher| {
            let mut reader = Reader::default();
            bencher.iter(|| receive(&mut reader, black_box(&bytes).chunks(PIECE_BYTES)));
        });
    }
    // What a slow network makes of a large message.
    let bytes = publication(&vec![b'x'; 1_000_000]);
    for piece in [1448, 64] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::new("1 MB in pieces of", piece), |bencher| {
            let mut reader = Reader::default();
            bencher.iter(|| receive(&mut reader, black_box(&bytes).chunks(piece)));
        });
    }
    group.finish();
}

fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("resp/encode");
    let topic = Topic::channel(Bytes::from_static(CHANNEL)).expect("it is a channel");
    for size in [64, 1024] {
        let message = Message {
            targets: Targets::default(),
            event: None,
            payload: Payload::binary(Bytes::from(vec![b'x'; size])),
            attachments: Vec::new(),
            origin: None,
            flags: Flags::default(),
            position: None,
            unix_ms: 0,
            envelope: None,
        };
        let pattern = Filter::glob(Bytes::from_static(b"chat.*")).expect("it is a pattern");
        let channel = Filter::exact(Bytes::from_static(CHANNEL)).expect("it is a channel");
        for (name, filter) in [("message", channel), ("pmessage", pattern)] {
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                let mut out = Vec::with_capacity(2 * size + 200);
                bencher.iter(|| {
                    out.clear();
                    let message = black_box(&message);
                    encode_delivery(Version::Three, message, &topic, &filter, &mut out);
                    delivery_size(Version::Three, message, &topic, &filter)
                });
            });
        }
    }
    group.bench_function("reply to PUBLISH", |bencher| {
        let mut out = Vec::with_capacity(64);
        bencher.iter(|| {
            out.clear();
            reply::write_integer(black_box(1234), &mut out);
        });
    });
    group.finish();
}

criterion_group!(benches, decoding, encoding);
criterion_main!(benches);
