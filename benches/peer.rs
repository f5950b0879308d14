//! The codec of the peer protocol: calls written, cut out of pipelined bytes and decoded; deliveries written and read.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use smallvec::smallvec;

use pubsub::address::Address;
use pubsub::message::{Flags, Message, Payload, Targets};
use pubsub::protocol::Command;
use pubsub::protocol::peer::call::Call;
use pubsub::protocol::peer::event::Told;
use pubsub::protocol::peer::reader::Reader;
use pubsub::protocol::peer::{decode, delivery_size, encode_delivery, read_event, write_call};
use pubsub::topic::{Filter, Topic};

const FRAME_BYTES_MAX: usize = 1 << 20;
const PIECE_BYTES: usize = 16 * 1024;

fn topic() -> Topic {
    Topic::dotted(Bytes::from_static(b"chat.room.lobby")).expect("it is a topic")
}

/// Of this many bytes, by kind.
fn payload(kind: &str, size: usize) -> Payload {
    match kind {
        "JSON" => Payload::json(Bytes::from(format!("\"{}\"", "x".repeat(size - 2)))),
        _ => Payload::binary(Bytes::from(vec![b'x'; size])),
    }
}

fn publication(kind: &str, size: usize, ticket: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let publish = Call::Publish {
        ticket,
        topic: &topic(),
        payload: &payload(kind, size),
        echo: true,
    };
    write_call(&publish, &mut bytes);
    bytes
}

/// Cuts and decodes; how many commands there were.
fn receive<'a>(reader: &mut Reader, pieces: impl Iterator<Item = &'a [u8]>) -> usize {
    let mut count = 0;
    for mut rest in pieces {
        while !rest.is_empty() {
            let (taken, frame) = reader
                .next(FRAME_BYTES_MAX, rest)
                .expect("a size that a frame has");
            if let Some(frame) = frame {
                let command = decode(frame, 0).expect("a call");
                count += usize::from(!matches!(black_box(command), Command::Ping { .. }));
            }
            rest = &rest[taken..];
        }
    }
    count
}

fn calls(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("peer/call");
    for (kind, size) in [
        ("binary", 64),
        ("binary", 1024),
        ("JSON", 64),
        ("JSON", 1024),
    ] {
        let count = 1000;
        let bytes = publication(kind, size, 0).repeat(count);
        group.throughput(Throughput::Elements(count as u64));
        let id = BenchmarkId::new(format!("pipelined PUBLISH, {kind}"), size);
        group.bench_function(id, |bencher| {
            let mut reader = Reader::default();
            bencher.iter(|| receive(&mut reader, black_box(&bytes).chunks(PIECE_BYTES)));
        });
    }
    group.throughput(Throughput::Elements(1));
    let frame = publication("binary", 64, 7);
    group.bench_function("decode PUBLISH with a ticket", |bencher| {
        bencher.iter(|| decode(black_box(&frame[4..]), 0).expect("a call"));
    });
    let (topic, payload) = (topic(), payload("binary", 64));
    let mut out = Vec::new();
    group.bench_function("write PUBLISH", |bencher| {
        bencher.iter(|| {
            out.clear();
            let publish = Call::Publish {
                ticket: 7,
                topic: black_box(&topic),
                payload: black_box(&payload),
                echo: true,
            };
            write_call(&publish, &mut out);
            out.len()
        });
    });
    let mut request = Vec::new();
    let call = Call::Request {
        ticket: 7,
        to: &Address::Service(Bytes::from_static(b"sum")),
        event: b"sum",
        payload: &Payload::json(Bytes::from_static(b"[1,2]")),
        timeout_ms: 0,
    };
    write_call(&call, &mut request);
    group.bench_function("decode REQUEST", |bencher| {
        bencher.iter(|| decode(black_box(&request[4..]), 0).expect("a call"));
    });
    group.finish();
}

fn deliveries(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("peer/delivery");
    let topic = topic();
    let filter = Filter::dotted(Bytes::from_static(b"chat.*.lobby")).expect("it is a filter");
    for size in [64, 1024] {
        let message = Message {
            targets: Targets {
                topics: smallvec![topic.clone()],
                ..Targets::default()
            },
            event: None,
            payload: payload("binary", size),
            attachments: Vec::new(),
            origin: None,
            flags: Flags::default(),
            position: None,
            unix_ms: 0,
            envelope: None,
        };
        let mut out = Vec::with_capacity(delivery_size(&message, &topic, &filter));
        group.bench_function(BenchmarkId::new("encode", size), |bencher| {
            bencher.iter(|| {
                out.clear();
                encode_delivery(black_box(&message), &topic, &filter, &mut out);
                out.len()
            });
        });
        group.bench_function(BenchmarkId::new("read", size), |bencher| {
            bencher.iter(|| match read_event(black_box(&out[4..])) {
                Ok(Told::Message { payload, .. }) => payload.bytes.len(),
                told => panic!("{told:?}"),
            });
        });
    }
    group.finish();
}

criterion_group!(benches, calls, deliveries);
criterion_main!(benches);
