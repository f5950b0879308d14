//! Frames and masking, beside tungstenite and the plain loop.
//!
//! A buffer as one read brings it: 64 masked text frames, to be found, unmasked and checked. Each pass has a fresh
//! copy, which is not timed. tungstenite masks behind its reads only, so masking by itself is beside the plain loop.

use std::hint::black_box;
use std::io::Cursor;

use bytes::BytesMut;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};
use tungstenite::protocol::{Role, WebSocket};

use pubsub::ws::frame::{self, Opcode};
use pubsub::ws::mask::unmask;

const FRAMES: usize = 64;
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frames, written by tungstenite.
fn masked(payload_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..FRAMES {
        let payload = vec![b'x'; payload_bytes];
        let mut frame = Frame::message(payload, OpCode::Data(Data::Text), true);
        frame.header_mut().mask = Some(KEY);
        frame.format(&mut bytes).expect("a vector takes it");
    }
    bytes
}

fn reading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frames/read");
    for size in [64, 512, 4096] {
        let bytes = masked(size);
        group.throughput(Throughput::Elements(FRAMES as u64));
        group.bench_function(BenchmarkId::new("ours", size), |bencher| {
            bencher.iter_batched_ref(
                || bytes.clone(),
                |bytes| {
                    let (mut at, mut count) = (0, 0);
                    while let Ok(Some(header)) = frame::decode_header(&bytes[at..]) {
                        let key_at = at + header.mask_offset;
                        let key = *bytes[key_at..].first_chunk().expect("the frame is whole");
                        let end = key_at + 4 + header.payload_size as usize;
                        unmask(&mut bytes[key_at + 4..end], key, 0);
                        black_box(std::str::from_utf8(&bytes[key_at + 4..end])).expect("text");
                        (at, count) = (end, count + 1);
                    }
                    assert_eq!(count, FRAMES);
                },
                BatchSize::SmallInput,
            );
        });
        group.bench_function(BenchmarkId::new("tungstenite", size), |bencher| {
            bencher.iter_batched(
                || {
                    let nobody = Cursor::new(Vec::new());
                    WebSocket::from_partially_read(nobody, bytes.clone(), Role::Server, None)
                },
                |mut socket| {
                    for _ in 0..FRAMES {
                        let message = socket.read().expect("the frame is whole");
                        black_box(message.to_text().expect("text"));
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn masking(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frames/unmask");
    for size in [16, 128, 1024, 16_384] {
        group.throughput(Throughput::Bytes(size as u64));
        let mut payload = vec![b'x'; size];
        group.bench_function(BenchmarkId::new("ours", size), |bencher| {
            bencher.iter(|| unmask(black_box(&mut payload), KEY, 1));
        });
        group.bench_function(BenchmarkId::new("plain loop", size), |bencher| {
            bencher.iter(|| {
                for (at, byte) in black_box(&mut payload).iter_mut().enumerate() {
                    *byte ^= KEY[(at + 1) & 3];
                }
            });
        });
    }
    group.finish();
}

fn writing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frames/write");
    let payload = [b'x'; 512];
    group.bench_function("ours", |bencher| {
        let mut out = Vec::with_capacity(1024);
        bencher.iter(|| {
            out.clear();
            frame::encode_header(Opcode::Text, payload.len(), &mut out);
            out.extend_from_slice(black_box(&payload));
        });
    });
    group.bench_function("tungstenite", |bencher| {
        let mut out = Vec::with_capacity(1024);
        let payload = BytesMut::from(&payload[..]).freeze();
        let header = FrameHeader {
            opcode: OpCode::Data(Data::Text),
            ..FrameHeader::default()
        };
        bencher.iter(|| {
            out.clear();
            let frame = Frame::from_payload(header.clone(), black_box(&payload).clone());
            frame.format(&mut out).expect("a vector takes it");
        });
    });
    group.finish();
}

criterion_group!(benches, reading, masking, writing);
criterion_main!(benches);
