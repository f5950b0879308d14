//! The mesh on real threads: order, counts, bounds and wake-ups under load.
//!
//! Loom proves small cases; this runs big ones, on the real memory system and under AddressSanitizer:
//! `RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address cargo test --target x86_64-unknown-linux-gnu --test mesh_stress`.
//! `MESH_SEED=n` repeats the random choices of a run, though not its interleavings.

#![cfg(not(pubsub_loom))]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use pubsub::address::{ShardId, ShardSet};
use pubsub::mesh::ring::ring;
use pubsub::mesh::{Ports, build};

/// Few enough for a debug build to be quick, many in release.
const ITEMS: u64 = if cfg!(debug_assertions) {
    200_000
} else {
    5_000_000
};

fn seed() -> u64 {
    let seed =
        std::env::var("MESH_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("MESH_SEED={seed}");
    seed
}

/// An entry that owns memory, counts itself, and weighs what its number says.
struct Item {
    number: Box<u64>,
    alive: Arc<AtomicUsize>,
}

impl Item {
    fn new(number: u64, alive: &Arc<AtomicUsize>) -> Item {
        alive.fetch_add(1, Ordering::Relaxed);
        Item {
            number: Box::new(number),
            alive: alive.clone(),
        }
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn a_ring_keeps_order_count_and_bounds() {
    const ENTRIES_MAX: usize = 64;
    const BYTES_MAX: usize = 1000;
    const BYTES_OF_ONE_MAX: usize = 1100; // some exceed the bound alone
    let mut random = fastrand::Rng::with_seed(seed());
    let mut consumer_random = random.fork();
    let (mut producer, mut consumer) = ring::<(Item, usize)>(ENTRIES_MAX, BYTES_MAX);
    let alive = Arc::new(AtomicUsize::new(0));
    // Written by the consumer just before it releases, so never behind what the producer may know.
    let released = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);

    let consuming = {
        let released = released.clone();
        thread::spawn(move || {
            let (mut number, mut bytes) = (0, 0);
            while number < ITEMS {
                let mark = consumer.mark();
                let mut popped = 0;
                while let Some((item, item_bytes)) = consumer.pop(mark) {
                    assert_eq!(*item.number, number);
                    number += 1;
                    bytes += item_bytes;
                    popped += 1;
                    if consumer_random.u8(..) < 8 {
                        break; // a turn need not be whole
                    }
                }
                assert!(popped <= ENTRIES_MAX);
                released[0].store(number as usize, Ordering::SeqCst);
                released[1].store(bytes, Ordering::SeqCst);
                if !consumer.release() {
                    thread::yield_now();
                }
            }
            assert!(consumer.is_empty());
            bytes
        })
    };

    let (mut number, mut bytes, mut refused) = (0, 0, 0u64);
    let mut oversized = None; // the last entry that came into an empty ring although it exceeds the bound
    while number < ITEMS {
        for _ in 0..random.u64(1..100).min(ITEMS - number) {
            let item_bytes = match random.u8(..) {
                0 => random.usize(..=BYTES_OF_ONE_MAX),
                _ => random.usize(..30),
            };
            let room = producer.room();
            assert!(room.entries <= ENTRIES_MAX && room.bytes <= BYTES_MAX);
            let item = (Item::new(number, &alive), item_bytes);
            if producer.push(item, item_bytes).is_err() {
                refused += 1;
                break;
            }
            if item_bytes > BYTES_MAX {
                oversized = Some(number as usize);
            }
            number += 1;
            bytes += item_bytes;
            let entries_released = released[0].load(Ordering::SeqCst);
            let entries_waiting = number as usize - entries_released;
            let bytes_waiting = bytes - released[1].load(Ordering::SeqCst);
            assert!(entries_waiting <= ENTRIES_MAX, "{entries_waiting} entries");
            let bound = match oversized {
                Some(oversized) if oversized >= entries_released => BYTES_OF_ONE_MAX,
                _ => BYTES_MAX,
            };
            assert!(bytes_waiting <= bound, "{bytes_waiting} bytes");
        }
        if !producer.publish() {
            thread::yield_now();
        }
    }
    assert_eq!(consuming.join().unwrap(), bytes);
    assert!(producer.is_closed());
    drop(producer);
    assert_eq!(alive.load(Ordering::Relaxed), 0, "all dropped, once");
    println!("{number} items, {bytes} bytes, refused {refused} times");
}

#[test]
fn either_side_may_leave_at_any_time() {
    let mut random = fastrand::Rng::with_seed(seed());
    for _ in 0..ITEMS / 2000 {
        let alive = Arc::new(AtomicUsize::new(0));
        let (mut producer, mut consumer) = ring(8, 1000);
        let (pushes, pops) = (random.u64(..40), random.usize(..40));
        let consuming = thread::spawn(move || {
            for _ in 0..pops {
                consumer.pop(consumer.mark());
                consumer.release();
            }
        });
        for number in 0..pushes {
            let _ = producer.push(Item::new(number, &alive), 1);
            if random.bool() {
                producer.publish();
            }
        }
        drop(producer);
        consuming.join().unwrap();
        assert_eq!(alive.load(Ordering::Relaxed), 0);
    }
}

/// The loop of a shard as the mesh's docs tell it, with `park` for a driver: it keeps a wake-up until the sleeper looks.
struct Loop {
    ports: Ports<(ShardId, u64)>,
    threads: Arc<Vec<OnceLock<Thread>>>,
    sleeps: u64,
    wakes: u64,
}

impl Loop {
    fn run(&mut self, items: u64, random: &mut fastrand::Rng) {
        let me = self.ports.shard();
        let shards = self.threads.len();
        let others: Vec<ShardId> = ShardSet::first(shards)
            .iter()
            .filter(|shard| *shard != me)
            .collect();
        let mut sent = vec![0; shards];
        let mut received = vec![0; shards];
        let mut wake = Vec::new();
        loop {
            self.ports.marks();
            while let Some((source, (author, number))) = self.ports.take_next() {
                assert_eq!(source, author);
                assert_eq!(
                    number,
                    received[source.index()],
                    "order from {source} to {me}"
                );
                received[source.index()] += 1;
            }
            self.ports.release_all();

            let mut waiting = ShardSet::EMPTY;
            let burst = random.u64(1..80);
            for to in &others {
                let sent = &mut sent[to.index()];
                let end = items.min(*sent + burst);
                while *sent < end {
                    if self
                        .ports
                        .push(*to, (me, *sent), random.usize(..200))
                        .is_err()
                    {
                        waiting.insert(*to);
                        break;
                    }
                    *sent += 1;
                }
            }
            self.ports.await_room(waiting);
            self.ports.publish(&mut wake);
            for shard in wake.drain(..) {
                assert_ne!(shard, me);
                self.wakes += 1;
                self.threads[shard.index()].get().unwrap().unpark();
            }

            let has_all =
                |counts: &[u64]| others.iter().all(|other| counts[other.index()] == items);
            if has_all(&sent) && has_all(&received) {
                return;
            }
            let can_send = others
                .iter()
                .any(|to| sent[to.index()] < items && !waiting.contains(*to));
            if !can_send && self.ports.announce_sleep() {
                self.sleeps += 1;
                let asleep_from = Instant::now();
                thread::park_timeout(Duration::from_secs(60));
                assert!(
                    asleep_from.elapsed() < Duration::from_secs(60),
                    "{me} slept through its wake-up: {received:?}"
                );
                self.ports.awake();
            }
        }
    }
}

#[test]
fn shards_that_sleep_whenever_they_can_lose_nothing() {
    let mut random = fastrand::Rng::with_seed(seed());
    for (shards, entries_max, bytes_max) in
        [(2, 1, 1000), (2, 64, 4000), (3, 8, 1000), (4, 256, 1 << 14)]
    {
        let items = ITEMS / 20 * (entries_max as u64).min(16) / 16 / shards as u64;
        let threads: Arc<Vec<OnceLock<Thread>>> =
            Arc::new((0..shards).map(|_| OnceLock::new()).collect());
        let start = Arc::new(Barrier::new(shards));
        let loops: Vec<_> = build(shards, entries_max, bytes_max)
            .into_iter()
            .map(|ports| {
                let (threads, start, mut random) = (threads.clone(), start.clone(), random.fork());
                thread::spawn(move || {
                    threads[ports.shard().index()]
                        .set(thread::current())
                        .unwrap();
                    start.wait();
                    let mut shard = Loop {
                        ports,
                        threads,
                        sleeps: 0,
                        wakes: 0,
                    };
                    shard.run(items, &mut random);
                    (shard.sleeps, shard.wakes)
                })
            })
            .collect();
        let counts: Vec<_> = loops
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        let sleeps: u64 = counts.iter().map(|count| count.0).sum();
        let wakes: u64 = counts.iter().map(|count| count.1).sum();
        println!(
            "{shards} shards, {entries_max} entries: {items} items a ring, {sleeps} sleeps, {wakes} wakes"
        );
    }
}

#[test]
fn a_ring_costs_its_pages_only_when_used() {
    fn resident_bytes() -> usize {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }
    const SLOTS_BYTES: usize = 1 << 28;
    let before = resident_bytes();
    let (mut producer, mut consumer) = ring::<[u8; 4096]>(SLOTS_BYTES / 4096, 1 << 20);
    producer.push([7; 4096], 4096).unwrap();
    producer.publish();
    assert_eq!(consumer.pop(consumer.mark()), Some([7; 4096]));
    let touched = resident_bytes().saturating_sub(before);
    assert!(
        touched < SLOTS_BYTES / 4,
        "{touched} bytes resident of {SLOTS_BYTES}"
    );
}
