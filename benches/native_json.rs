//! The codec of native JSON, beside serde_json.
//!
//! Decoding a publication checks all of it and keeps the payload as it came; serde_json does the same work when it is
//! told to keep the message raw (`RawValue`), and more when it builds a `Value`, as most servers do.

use std::borrow::Cow;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use pubsub::protocol::Command;
use pubsub::protocol::native::{Stamp, decode, encode_delivery};
use pubsub::topic::Topic;

#[derive(Deserialize)]
struct Publication<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    message: &'a RawValue,
}

/// Publications with a message of about so many bytes: a string, and an object with members of all kinds.
fn publications(bytes: usize) -> [(&'static str, String); 2] {
    let text = format!(r#""{}""#, "x".repeat(bytes - 2));
    let member =
        r#"{"id":12345,"name":"Åse \"A\" N.","tags":["a","b"],"ok":true,"at":1.5e3,"none":null}"#;
    let members = vec![member; bytes.div_ceil(member.len())].join(",");
    [("string", text), ("object", format!("[{members}]"))].map(|(name, message)| {
        let topic = "chat.room.lobby";
        (
            name,
            format!(r#"{{"type":"publish","topic":"{topic}","message":{message}}}"#),
        )
    })
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("native_json/decode");
    let stamp = Stamp::new(1_518_741_097_123);
    for bytes in [64, 1024, 16_384] {
        for (name, text) in publications(bytes) {
            group.throughput(Throughput::Bytes(text.len() as u64));
            let text = text.as_bytes();
            group.bench_function(
                BenchmarkId::new(format!("ours, {name}"), bytes),
                |bencher| {
                    bencher.iter(|| decode(black_box(text), &stamp, false).is_ok());
                },
            );
            group.bench_function(
                BenchmarkId::new(format!("serde raw, {name}"), bytes),
                |bencher| {
                    bencher.iter(|| {
                        let publication: Publication<'_> =
                            serde_json::from_slice(black_box(text)).expect("it is JSON");
                        let size = publication.message.get().len();
                        (publication.kind.len(), publication.topic.len(), size)
                    });
                },
            );
            group.bench_function(
                BenchmarkId::new(format!("serde value, {name}"), bytes),
                |bencher| {
                    bencher.iter(|| -> Value {
                        serde_json::from_slice(black_box(text)).expect("it is JSON")
                    });
                },
            );
        }
    }
    group.finish();
}

fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("native_json/delivery");
    let stamp = Stamp::new(1_518_741_097_123);
    let topic = Topic::dotted(Bytes::from_static(b"chat.room.lobby")).expect("it is a topic");
    for bytes in [64, 1024] {
        for (name, text) in publications(bytes) {
            let Ok(Command::Publish { message, .. }) = decode(text.as_bytes(), &stamp, false)
            else {
                unreachable!("it is a publication")
            };
            group.bench_function(
                BenchmarkId::new(format!("ours, {name}"), bytes),
                |bencher| {
                    let mut out = Vec::with_capacity(2 * text.len() + 200);
                    bencher.iter(|| {
                        out.clear();
                        encode_delivery(black_box(&message), &topic, b"chat.room", &mut out);
                    });
                },
            );
            group.bench_function(
                BenchmarkId::new(format!("serde value, {name}"), bytes),
                |bencher| {
                    let mut out = Vec::with_capacity(2 * text.len() + 200);
                    let mut object: Value = serde_json::from_str(&text).expect("it is JSON");
                    bencher.iter(|| {
                        out.clear();
                        object["timestamp"] = Value::from("2018-02-16T00:31:37.123Z");
                        object["context"] = Value::from("chat.room");
                        serde_json::to_writer(&mut out, black_box(&object))
                            .expect("a vector takes it");
                    });
                },
            );
        }
    }
    group.finish();
}

criterion_group!(benches, decoding, encoding);
criterion_main!(benches);
