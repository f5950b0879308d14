//! What a host of the broker pays on its own threads: a publish that nobody hears, one that a shard takes, and an event
//! that is drained. The shard has a thread of its own; only the host's calls are timed.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use pubsub::config::{Config, Io, ListenAddr, Listener};
use pubsub::message::Payload;
use pubsub::net::process::Process;
use pubsub::topic::{Filter, Topic};
use pubsub::{Answer, Broker, Event, Link, LinkError};

/// Messages between two looks at the clock.
const BATCH: u64 = 512;

fn start() -> Broker {
    let address = ListenAddr::Tcp {
        host: "127.0.0.1".to_owned(),
        port: 0,
    };
    let config = Config {
        listeners: vec![Listener::new(address)],
        io: Io::Auto,
        ..Config::embedded()
    };
    Broker::start(&config).expect("a broker starts")
}

fn done(link: &Link, ticket: Result<pubsub::Ticket, LinkError>) {
    let ticket = ticket.expect("room");
    loop {
        match link.next(None).expect("an event") {
            Event::Done { ticket: of, .. } if of == ticket => return,
            _ => {}
        }
    }
}

fn host(criterion: &mut Criterion) {
    let broker = start();
    let [one, two] = ["one", "two"].map(|name| Link::open(&broker, name).expect("a link"));
    let topic = |name: &'static str| Topic::dotted(Bytes::from_static(name.as_bytes()));
    let (silent, heard) = (
        topic("silent").expect("a topic"),
        topic("heard.much").expect("a topic"),
    );
    let filter = Filter::dotted(Bytes::from_static(b"heard")).expect("a filter");
    done(&two, two.subscribe(&filter, Answer::Wanted));
    let payload = Payload::json(Bytes::from(format!("\"{}\"", "x".repeat(98))));
    let publish = |topic, answer| {
        while one.publish(topic, &payload, true, answer) == Err(LinkError::Full) {
            std::thread::yield_now();
        }
    };

    let mut group = criterion.benchmark_group("host");
    group.throughput(Throughput::Elements(1));
    let process = Process::this();
    group.bench_function("is this the process?", |bencher| {
        bencher.iter(|| black_box(process).is_this());
    });
    group.bench_function("what the kernel would say", |bencher| {
        bencher.iter(|| black_box(rustix::process::getpid()));
    });
    group.bench_function("publish to nobody", |bencher| {
        bencher.iter(|| publish(&silent, Answer::Unwanted));
    });
    let mut events = Vec::new();
    // Batches: what is published is drained before the next.
    let run = |times: u64, is_drain_timed: bool, events: &mut Vec<Event>| {
        let mut time = Duration::ZERO;
        let mut left = times;
        while left > 0 {
            let count = left.min(BATCH);
            let begun = Instant::now();
            for _ in 0..count {
                publish(&heard, Answer::Unwanted);
            }
            let published = begun.elapsed();
            // Behind them all: a turn later they wait for the other Link.
            done(&one, one.publish(&heard, &payload, true, Answer::Wanted));
            let begun = Instant::now();
            let mut heard = two.drain(events, usize::MAX) as u64;
            let drained = begun.elapsed().mul_f64(count as f64 / heard.max(1) as f64);
            time += if is_drain_timed { drained } else { published };
            events.clear();
            while heard < count + 1 {
                two.wait(None);
                heard += two.drain(events, usize::MAX) as u64;
                events.clear();
            }
            left -= count;
        }
        time
    };
    group.bench_function("publish to a shard", |bencher| {
        bencher.iter_custom(|times| run(times, false, &mut events));
    });
    group.bench_function("drain a message", |bencher| {
        bencher.iter_custom(|times| run(times, true, &mut events));
    });
    group.finish();
    drop((one, two));
    broker.stop();
}

criterion_group!(benches, host);
criterion_main!(benches);
