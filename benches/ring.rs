//! The ring between two shards, beside rtrb and crossbeam-channel, and what the doorbell adds.
//!
//! Entries of 24 bytes, as large as a parcel's handle. *Turns* are what shards do: push some, make them visible
//! once, take them all, give the room back once. *Threads* moves entries between two threads that never sleep; run it
//! on two free cores (`taskset -c 0,1`). The others stay on one thread, so that they show instructions and not the
//! scheduler.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use pubsub::mesh::doorbell::Doorbell;
use pubsub::mesh::ring::ring;
use pubsub::net::waker::Waker;

type Entry = [u64; 3];

const ENTRIES: usize = 1024;

fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/turns");
    for batch in [1usize, 16, 256] {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::new("ours", batch), |bencher| {
            let (mut producer, mut consumer) = ring::<Entry>(ENTRIES, 1 << 20);
            bencher.iter(|| {
                for n in 0..batch {
                    producer.push([n as u64; 3], 24).expect("there is room");
                }
                producer.publish();
                let mark = consumer.mark();
                while let Some(entry) = consumer.pop(mark) {
                    black_box(entry);
                }
                consumer.release();
            });
        });
        group.bench_function(BenchmarkId::new("rtrb", batch), |bencher| {
            let (mut producer, mut consumer) = rtrb::RingBuffer::<Entry>::new(ENTRIES);
            bencher.iter(|| {
                for n in 0..batch {
                    producer.push([n as u64; 3]).expect("there is room");
                }
                while let Ok(entry) = consumer.pop() {
                    black_box(entry);
                }
            });
        });
        group.bench_function(BenchmarkId::new("rtrb chunks", batch), |bencher| {
            let (mut producer, mut consumer) = rtrb::RingBuffer::<Entry>::new(ENTRIES);
            bencher.iter(|| {
                let chunk = producer.write_chunk_uninit(batch).expect("there is room");
                chunk.fill_from_iter((0..batch).map(|n| [n as u64; 3]));
                let count = consumer.slots();
                for entry in consumer.read_chunk(count).expect("they are there") {
                    black_box(entry);
                }
            });
        });
        group.bench_function(BenchmarkId::new("crossbeam-channel", batch), |bencher| {
            let (sender, receiver) = crossbeam_channel::bounded::<Entry>(ENTRIES);
            bencher.iter(|| {
                for n in 0..batch {
                    sender.try_send([n as u64; 3]).expect("there is room");
                }
                while let Ok(entry) = receiver.try_recv() {
                    black_box(entry);
                }
            });
        });
    }
    group.finish();
}

fn threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/threads");
    group.throughput(Throughput::Elements(1));
    group.bench_function("ours", |bencher| {
        bencher.iter_custom(|count| {
            let (mut producer, mut consumer) = ring::<Entry>(ENTRIES, 1 << 20);
            timed(
                count,
                move |n| {
                    let is_taken = producer.push([n; 3], 24).is_ok();
                    if !is_taken || n.is_multiple_of(16) {
                        producer.publish();
                    }
                    // The last ones, too, must become visible.
                    if n + 1 == count {
                        producer.publish();
                    }
                    is_taken
                },
                move || {
                    let mark = consumer.mark();
                    let mut taken = 0;
                    while let Some(entry) = consumer.pop(mark) {
                        black_box(entry);
                        taken += 1;
                    }
                    consumer.release();
                    taken
                },
            )
        });
    });
    group.bench_function("rtrb", |bencher| {
        bencher.iter_custom(|count| {
            let (mut producer, mut consumer) = rtrb::RingBuffer::<Entry>::new(ENTRIES);
            timed(
                count,
                move |n| producer.push([n; 3]).is_ok(),
                move || {
                    std::iter::from_fn(|| consumer.pop().ok())
                        .map(black_box)
                        .count() as u64
                },
            )
        });
    });
    group.bench_function("crossbeam-channel", |bencher| {
        bencher.iter_custom(|count| {
            let (sender, receiver) = crossbeam_channel::bounded::<Entry>(ENTRIES);
            timed(
                count,
                move |n| sender.try_send([n; 3]).is_ok(),
                move || receiver.try_iter().map(black_box).count() as u64,
            )
        });
    });
    group.finish();
}

/// How long `count` entries take from one thread to another. `push` says whether entry n found room; `take` takes
/// what is there.
fn timed(
    count: u64,
    mut push: impl FnMut(u64) -> bool + Send + 'static,
    mut take: impl FnMut() -> u64,
) -> Duration {
    let start = Instant::now();
    let pusher = thread::spawn(move || {
        for n in 0..count {
            while !push(n) {
                // On one core, spinning would spend a whole slice of time.
                thread::yield_now();
            }
        }
        // Kept until the end: dropping it here would be timed, and differs.
        push
    });
    let mut taken = 0;
    while taken < count {
        match take() {
            0 => thread::yield_now(),
            more => taken += more,
        }
    }
    let passed = start.elapsed();
    drop(pusher.join());
    passed
}

fn doorbell(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("doorbell");
    let doorbell = Doorbell::new();
    // What every publishing turn pays, and what a turn pays that goes to sleep.
    group.bench_function("ring, nobody asleep", |bencher| {
        bencher.iter(|| black_box(&doorbell).ring());
    });
    group.bench_function("announce sleep, be rung, awake", |bencher| {
        bencher.iter(|| {
            doorbell.announce_sleep();
            let must_wake = black_box(&doorbell).ring();
            doorbell.awake();
            must_wake
        });
    });
    // What a publishing turn would pay without a doorbell: a system call that wakes, whether anybody sleeps or not.
    let waker = Waker::new().expect("there is a descriptor");
    group.bench_function("an eventfd instead", |bencher| {
        bencher.iter(|| black_box(&waker).wake());
    });
    group.finish();
}

criterion_group!(benches, turns, threads, doorbell);
criterion_main!(benches);
