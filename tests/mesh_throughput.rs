//! What an entry costs on its way through a ring. Run by hand, on a quiet machine:
//! `cargo test --release --test mesh_throughput -- --ignored --nocapture --test-threads 1`.

#![cfg(not(pubsub_loom))]

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use pubsub::limits::{RING_BYTES_MAX, RING_ENTRIES_MAX};
use pubsub::mesh::doorbell::Doorbell;
use pubsub::mesh::ring::ring;

const ITEMS: usize = if cfg!(debug_assertions) {
    200_000
} else {
    20_000_000
};
const RUNS: usize = 9;

/// Best and median of some runs, in ns per item.
fn report(name: &str, items: usize, mut run: impl FnMut() -> std::time::Duration) {
    let mut ns: Vec<f64> = (0..RUNS)
        .map(|_| run().as_nanos() as f64 / items as f64)
        .collect();
    ns.sort_by(f64::total_cmp);
    println!(
        "{name:60} best {:6.2} ns, median {:6.2} ns",
        ns[0],
        ns[RUNS / 2]
    );
}

fn on_one_thread<const WORDS: usize>(chunk: usize) {
    report(
        &format!("one thread, {} B, chunks of {chunk}", WORDS * 8),
        ITEMS,
        || {
            let (mut producer, mut consumer) = ring(RING_ENTRIES_MAX, RING_BYTES_MAX);
            let started = Instant::now();
            for number in 0..ITEMS / chunk {
                for _ in 0..chunk {
                    producer.push(black_box([number; WORDS]), 100).unwrap();
                }
                producer.publish();
                let mark = consumer.mark();
                while let Some(item) = consumer.pop(mark) {
                    black_box(item);
                }
                consumer.release();
            }
            started.elapsed()
        },
    );
}

/// The floor: what the same items cost in a queue that no other thread can see.
fn in_a_deque<const WORDS: usize>(chunk: usize) {
    report(
        &format!("VecDeque, {} B, chunks of {chunk}", WORDS * 8),
        ITEMS,
        || {
            let mut deque = VecDeque::with_capacity(RING_ENTRIES_MAX);
            let started = Instant::now();
            for number in 0..ITEMS / chunk {
                for _ in 0..chunk {
                    deque.push_back(black_box([number; WORDS]));
                }
                while let Some(item) = deque.pop_front() {
                    black_box(item);
                }
            }
            started.elapsed()
        },
    );
}

fn across_threads<const WORDS: usize>(chunk: usize) {
    report(
        &format!("two threads, {} B, chunks of {chunk}", WORDS * 8),
        ITEMS,
        || {
            let (mut producer, mut consumer) = ring(RING_ENTRIES_MAX, RING_BYTES_MAX);
            let start = Barrier::new(2);
            let cores = core_affinity::get_core_ids().unwrap_or_default();
            thread::scope(|scope| {
                let start = &start;
                let (first, last) = (cores.first().copied(), cores.last().copied());
                scope.spawn(move || {
                    first.map(core_affinity::set_for_current);
                    start.wait();
                    let mut sent = 0;
                    while sent < ITEMS {
                        for _ in 0..chunk {
                            if producer.push(black_box([sent; WORDS]), 100).is_err() {
                                break;
                            }
                            sent += 1;
                        }
                        if !producer.publish() {
                            std::hint::spin_loop();
                        }
                    }
                });
                let consuming = scope.spawn(move || {
                    last.map(core_affinity::set_for_current);
                    start.wait();
                    let started = Instant::now();
                    let mut received = 0;
                    while received < ITEMS {
                        let mark = consumer.mark();
                        let mut turn = 0;
                        while turn < chunk
                            && let Some(item) = consumer.pop(mark)
                        {
                            black_box(item);
                            turn += 1;
                        }
                        received += turn;
                        if !consumer.release() {
                            std::hint::spin_loop();
                        }
                    }
                    started.elapsed()
                });
                consuming.join().unwrap()
            })
        },
    );
}

#[test]
#[ignore = "a measurement"]
fn items_through_a_ring() {
    in_a_deque::<3>(64);
    in_a_deque::<8>(64);
    for chunk in [1, 16, 64] {
        on_one_thread::<3>(chunk);
        on_one_thread::<8>(chunk);
    }
    for chunk in [1, 64] {
        across_threads::<3>(chunk);
        across_threads::<8>(chunk);
    }
}

#[test]
#[ignore = "a measurement"]
fn a_look_at_the_doorbell_of_one_who_is_awake() {
    let doorbell = Doorbell::new();
    report("ring() of an awake shard, uncontended", ITEMS, || {
        let started = Instant::now();
        for _ in 0..ITEMS {
            black_box(black_box(&doorbell).ring());
        }
        started.elapsed()
    });
}
