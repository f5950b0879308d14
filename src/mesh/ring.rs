//! A bounded single-producer single-consumer ring: the way from one shard to one other.
//!
//! This file is a home of `unsafe`: a slot is written by one thread and read by another without a lock, which no
//! safe type of the standard library offers at this price. Nobody but this file knows how it works.
//!
//! The plain version: slots in a circle, and two positions that only count up (and wrap around the integer);
//! position `p` means slot `p mod entries_max`. `published` says how far the producer has filled the slots,
//! `released` how far the consumer has emptied them. Each is written by one side and read by the other:
//! what is before `published` the consumer may read, what is before `released + entries_max` the producer may write.
//!
//! ```text
//! released ≤ head ≤ published ≤ tail ≤ released + entries_max
//! ```
//!
//! Three departures, each so that the two sides touch each other's cache lines once per turn and not once per entry:
//!
//! - Each side runs ahead of what it has told the other: the producer to `tail`, the consumer to `head`. `publish`
//!   and `release` tell it, with one store.
//! - Each side remembers what it last read from the other and reads again only when that is used up.
//! - `published` and `released` are on lines of their own.
//!
//! **Bytes** are counted by the producer alone. It notes for each slot how many bytes had been pushed before that
//! entry, so `released` also tells which bytes wait: all pushed, less those before the oldest entry that is not
//! released. One shared number answers both bounds, so there are no two that could disagree, and the consumer need
//! not know sizes. (A shared byte counter beside `released` is a second store per turn and a second load, and gives a
//! moment in which one of the two is old.)

#![allow(unsafe_code)]

use std::marker::PhantomData;

use crossbeam_utils::CachePadded;

use super::sync::{Arc, AtomicBool, AtomicUsize, Ordering, Slots, fence};

/// Room that is left: a lower bound, which only grows until the next push.
///
/// `entries` equals the ring's `entries_max` exactly if the ring is empty, and then it takes one entry whatever its
/// bytes. Otherwise an entry fits if `entries` is not 0 and it has no more than `bytes`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// So many entries.
    pub entries: usize,
    /// So many bytes.
    pub bytes: usize,
}

/// How far a ring had been filled at some moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark(usize);

/// The side that pushes.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// Where the next entry goes.
    tail: usize,
    /// The value of `shared.published`, which only this side stores.
    published: usize,
    /// The value of `shared.released` when last read.
    released: usize,
    /// The value of `released` when the caller last learned of room or was refused.
    released_seen: usize,
    /// All bytes ever pushed, wrapping.
    bytes_pushed: usize,
    /// All bytes before position `released`, wrapping.
    bytes_released: usize,
    /// By slot: `bytes_pushed` before its entry. Grows during the first lap, so that its memory too is touched late.
    bytes_before: Vec<usize>,
    bytes_max: usize,
}

/// The side that pops.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    /// The position of the next entry.
    head: usize,
    /// The value of `shared.released`, which only this side stores.
    released: usize,
    /// The value of `shared.published` when last read.
    published: usize,
}

/// A ring with no entries. `entries_max` is a power of two; `bytes_max` bounds the sum of what `push` is told.
///
/// # Panics
/// If `entries_max` is no power of two.
pub fn ring<T: Send>(entries_max: usize, bytes_max: usize) -> (Producer<T>, Consumer<T>) {
    ring_from(0, entries_max, bytes_max)
}

/// A ring whose positions begin at `start`, a multiple of `entries_max`.
fn ring_from<T: Send>(
    start: usize,
    entries_max: usize,
    bytes_max: usize,
) -> (Producer<T>, Consumer<T>) {
    assert!(
        entries_max.is_power_of_two(),
        "a ring of {entries_max} entries: not a power of two"
    );
    let shared = Arc::new(Shared {
        slots: Slots::uninit(entries_max),
        by_producer: CachePadded::new(ByProducer {
            published: AtomicUsize::new(start),
            room_awaited: AtomicBool::new(false),
        }),
        by_consumer: CachePadded::new(ByConsumer {
            released: AtomicUsize::new(start),
            closed: AtomicBool::new(false),
        }),
        entries: PhantomData,
    });
    let producer = Producer {
        shared: shared.clone(),
        tail: start,
        published: start,
        released: start,
        released_seen: start,
        bytes_pushed: 0,
        bytes_released: 0,
        bytes_before: Vec::with_capacity(entries_max),
        bytes_max,
    };
    (
        producer,
        Consumer {
            shared,
            head: start,
            released: start,
            published: start,
        },
    )
}

impl<T: Send> Producer<T> {
    /// Room that is left, refreshed from the consumer's side; only grows until the next push.
    pub fn room(&mut self) -> Room {
        self.refresh();
        self.released_seen = self.released;
        self.room_known()
    }

    /// Adds an entry that counts as `bytes`. An empty ring always takes one entry, whatever its size. Not visible to
    /// the consumer before [`publish`](Producer::publish).
    ///
    /// # Errors
    /// Gives the item back if there is no room.
    pub fn push(&mut self, item: T, bytes: usize) -> Result<(), T> {
        if !self.takes(bytes) {
            self.refresh();
            if !self.takes(bytes) {
                self.released_seen = self.released;
                return Err(item);
            }
        }
        debug_assert!(self.tail.wrapping_sub(self.released) < self.shared.slots.count());
        // SAFETY: `Shared::write` wants a position that is the producer's, `published ≤ tail < released + entries_max`:
        // `takes` saw an entry's room before `released`, which `refresh` read with Acquire. There is one `Producer`,
        // and it is borrowed mutably, so nobody else writes.
        unsafe { self.shared.write(self.tail, item) };
        let slot = self.shared.slot(self.tail);
        if slot == self.bytes_before.len() {
            self.bytes_before.push(self.bytes_pushed);
        } else {
            self.bytes_before[slot] = self.bytes_pushed;
        }
        self.bytes_pushed = self.bytes_pushed.wrapping_add(bytes);
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// Makes all pushed entries visible; true if there were any.
    pub fn publish(&mut self) -> bool {
        let any = self.published != self.tail;
        if any {
            self.published = self.tail;
            // Release: who reads this position with Acquire also sees what was written into the slots before it.
            self.shared
                .by_producer
                .published
                .store(self.tail, Ordering::Release);
        }
        any
    }

    /// Is the consumer gone? What is pushed now will never be popped.
    pub fn is_closed(&self) -> bool {
        self.shared.by_consumer.closed.load(Ordering::Acquire)
    }

    /// Says whether this side waits for room, and so wants its doorbell rung by the consumer after a release.
    ///
    /// Takes effect with the full fence of [`Doorbell::announce_sleep`](super::doorbell::Doorbell::announce_sleep);
    /// after that fence ask [`has_more_room`](Producer::has_more_room), then sleep. It is the same argument as for the
    /// doorbell, with `released` as the work: [`Consumer::is_room_awaited`] is the other side.
    pub fn await_room(&mut self, awaited: bool) {
        self.shared
            .by_producer
            .room_awaited
            .store(awaited, Ordering::Relaxed);
    }

    /// Has anything been released since `room` was last asked or `push` last refused?
    pub fn has_more_room(&self) -> bool {
        self.shared.by_consumer.released.load(Ordering::Acquire) != self.released_seen
    }

    /// True if an entry of so many bytes fits by what is known of the consumer.
    fn takes(&self, bytes: usize) -> bool {
        let room = self.room_known();
        room.entries == self.shared.slots.count() || (room.entries > 0 && bytes <= room.bytes)
    }

    fn room_known(&self) -> Room {
        let entries_waiting = self.tail.wrapping_sub(self.released);
        let bytes_waiting = self.bytes_pushed.wrapping_sub(self.bytes_released);
        Room {
            entries: self.shared.slots.count() - entries_waiting,
            // The one entry that an empty ring always takes may exceed the bound.
            bytes: self.bytes_max.saturating_sub(bytes_waiting),
        }
    }

    fn refresh(&mut self) {
        // Acquire: the consumer has moved its entries out of all slots before this position.
        let released = self.shared.by_consumer.released.load(Ordering::Acquire);
        if released != self.released {
            self.released = released;
            // The entry at `released` is not overwritten before it is itself released, so its note stands.
            self.bytes_released = if released == self.tail {
                self.bytes_pushed
            } else {
                self.bytes_before[self.shared.slot(released)]
            };
        }
    }
}

impl<T> Drop for Producer<T> {
    /// Drops what was not published; what was is the consumer's still.
    fn drop(&mut self) {
        while self.tail != self.published {
            self.tail = self.tail.wrapping_sub(1);
            // SAFETY: `Shared::read` wants a position that holds an entry which only the caller can reach and which
            // is not read again: it is at or after `published`, so the consumer does not touch it, and neither does
            // `Shared::drop`; and `tail` no longer covers it, even if the entry's own drop panics.
            drop(unsafe { self.shared.read(self.tail) });
        }
    }
}

impl<T: Send> Consumer<T> {
    /// Acquire-reads the tail: how far the producer has published.
    pub fn mark(&self) -> Mark {
        Mark(self.shared.by_producer.published.load(Ordering::Acquire))
    }

    /// The next entry before `mark`.
    pub fn pop(&mut self, mark: Mark) -> Option<T> {
        // An old mark is behind `head`, which shows as a distance that no ring has.
        let distance = mark.0.wrapping_sub(self.head);
        if distance == 0 || distance > self.shared.slots.count() {
            return None;
        }
        self.pop_published()
    }

    /// Gives the room of popped entries back to the producer (call once per turn); true if there were any.
    pub fn release(&mut self) -> bool {
        let any = self.released != self.head;
        if any {
            self.released = self.head;
            // Release: the entries before this position were moved out before the producer can see it.
            self.shared
                .by_consumer
                .released
                .store(self.head, Ordering::Release);
        }
        any
    }

    /// Is everything popped that was published so far?
    pub fn is_empty(&self) -> bool {
        self.mark().0 == self.head
    }

    /// After [`release`](Consumer::release), with a full fence: does the producer wait for room? Then ring its doorbell.
    pub fn is_room_awaited(&self) -> bool {
        fence(Ordering::SeqCst);
        self.shared.by_producer.room_awaited.load(Ordering::Relaxed)
    }
}

impl<T> Consumer<T> {
    /// The next entry, if one is published. A mark only limits this and is trusted for nothing: whatever mark `pop`
    /// is given, of this ring or another, no slot is read that this side has not itself seen published.
    fn pop_published(&mut self) -> Option<T> {
        if self.published == self.head {
            self.published = self.shared.by_producer.published.load(Ordering::Acquire);
            if self.published == self.head {
                return None;
            }
        }
        let position = self.head;
        self.head = position.wrapping_add(1);
        // SAFETY: `Shared::read` wants a position that holds an entry which only the caller can reach and which is
        // not read again: it is before `published`, read with Acquire, so the entry is written and the producer has
        // left it; the producer does not write there before it is released; and `head` has passed it.
        Some(unsafe { self.shared.read(position) })
    }
}

impl<T> Drop for Consumer<T> {
    /// Drops what is left at once, since nobody will come for it and the producer may live long.
    fn drop(&mut self) {
        self.shared
            .by_consumer
            .closed
            .store(true, Ordering::Release);
        loop {
            let entry = self.pop_published();
            // Before the entry drops: if that panics, `Shared::drop` must not find it again.
            self.shared
                .by_consumer
                .released
                .store(self.head, Ordering::Release);
            if entry.is_none() {
                break;
            }
        }
    }
}

/// What the two sides have in common. The one that goes last drops the entries between `released` and `published`.
struct Shared<T> {
    slots: Slots<T>,
    by_producer: CachePadded<ByProducer>,
    by_consumer: CachePadded<ByConsumer>,
    entries: PhantomData<T>,
}

/// Written by the producer, read by the consumer.
struct ByProducer {
    published: AtomicUsize,
    room_awaited: AtomicBool,
}

/// Written by the consumer, read by the producer.
struct ByConsumer {
    released: AtomicUsize,
    closed: AtomicBool,
}

// SAFETY: entries go from one thread to another and are dropped on any of them, hence `T: Send`. No `&T` is ever
// given out, so `T: Sync` is not needed. Which thread touches which slot, and when, is settled by the two positions:
// see `write` and `read`, the only ways in.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, position: usize) -> usize {
        position & (self.slots.count() - 1)
    }

    /// Puts an entry into its slot.
    ///
    /// # Safety
    /// The slot is empty, and no other thread touches it until the caller publishes the position.
    unsafe fn write(&self, position: usize, item: T) {
        self.slots.with(self.slot(position), |place| {
            // SAFETY: `place` is valid and aligned for a `T`, being a slot; nobody else is there, says the caller.
            unsafe { place.write(item) }
        });
    }

    /// Moves an entry out of its slot.
    ///
    /// # Safety
    /// The slot holds an entry, its writing happened before, no other thread touches it until the caller releases the
    /// position, and it is not read again before it is written again.
    unsafe fn read(&self, position: usize) -> T {
        self.slots.with(self.slot(position), |place| {
            // SAFETY: `place` holds an initialised `T` that is moved out only here, says the caller.
            unsafe { place.read() }
        })
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let mut position = self.by_consumer.released.load(Ordering::Relaxed);
        let published = self.by_producer.published.load(Ordering::Relaxed);
        while position != published {
            // SAFETY: both sides are gone, and their last stores happened before this (the count of the `Arc` is
            // acquired). The consumer's drop released all it popped, the producer's dropped all it did not publish.
            // So `released..published` are entries nobody else can reach. A panic here leaves the rest undropped.
            drop(unsafe { self.read(position) });
            position = position.wrapping_add(1);
        }
    }
}

#[cfg(all(test, not(pubsub_loom)))]
mod tests {
    use std::collections::VecDeque;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::AtomicUsize as Count;

    use proptest::prelude::*;

    use super::*;

    fn popped<T: Send>(consumer: &mut Consumer<T>) -> Vec<T> {
        let mark = consumer.mark();
        std::iter::from_fn(|| consumer.pop(mark)).collect()
    }

    #[test]
    fn nothing_shows_before_publish_and_no_room_returns_before_release() {
        let (mut producer, mut consumer) = ring(2, 100);
        assert_eq!(producer.push('a', 10), Ok(()));
        assert!(consumer.is_empty());
        assert_eq!(popped(&mut consumer), []);
        assert!(producer.publish());
        assert!(!producer.publish(), "nothing new");
        assert!(!consumer.is_empty());
        assert_eq!(producer.push('b', 10), Ok(()));
        assert_eq!(producer.push('c', 10), Err('c'), "entries are full");
        assert_eq!(popped(&mut consumer), ['a']);
        assert!(consumer.is_empty());
        assert_eq!(
            producer.room(),
            Room {
                entries: 0,
                bytes: 80
            }
        );
        assert!(consumer.release());
        assert!(!consumer.release(), "nothing new");
        assert_eq!(
            producer.room(),
            Room {
                entries: 1,
                bytes: 90
            }
        );
        assert_eq!(producer.push('c', 91), Err('c'), "bytes are full");
        assert_eq!(producer.push('c', 90), Ok(()));
        assert_eq!(
            producer.room(),
            Room {
                entries: 0,
                bytes: 0
            }
        );
        producer.publish();
        assert_eq!(popped(&mut consumer), ['b', 'c']);
        consumer.release();
        assert_eq!(
            producer.room(),
            Room {
                entries: 2,
                bytes: 100
            }
        );
    }

    #[test]
    fn an_empty_ring_takes_one_entry_of_any_size() {
        for bytes in [11, usize::MAX / 2 + 1, usize::MAX] {
            let (mut producer, mut consumer) = ring(4, 10);
            for lap in 0..9 {
                assert_eq!(producer.push(lap, bytes), Ok(()));
                assert_eq!(
                    producer.room(),
                    Room {
                        entries: 3,
                        bytes: 0
                    }
                );
                assert_eq!(
                    producer.push(lap, 1),
                    Err(lap),
                    "not empty, and above its bytes"
                );
                assert_eq!(
                    producer.push(lap, 0),
                    Ok(()),
                    "what has no bytes is bound by entries alone"
                );
                producer.publish();
                assert_eq!(popped(&mut consumer), [lap, lap]);
                assert_eq!(producer.push(lap, bytes), Err(lap), "not released");
                consumer.release();
            }
        }
    }

    #[test]
    fn a_mark_bounds_a_drain_and_an_old_or_foreign_one_is_harmless() {
        let (mut producer, mut consumer) = ring(4, 100);
        let none = consumer.mark();
        producer.push(1, 1).unwrap();
        producer.publish();
        let one = consumer.mark();
        producer.push(2, 1).unwrap();
        producer.publish();
        assert_eq!(consumer.pop(none), None);
        assert_eq!(consumer.pop(one), Some(1));
        assert_eq!(consumer.pop(one), None, "what came after the mark stays");
        assert_eq!(consumer.pop(none), None, "behind the head");
        let foreign = Mark(consumer.mark().0 + 2);
        assert_eq!(consumer.pop(foreign), Some(2));
        assert_eq!(
            consumer.pop(foreign),
            None,
            "nothing is there, whatever the mark says"
        );
        assert_eq!(consumer.pop(Mark(usize::MAX)), None);
    }

    #[test]
    fn closed_when_the_consumer_is_gone() {
        let (mut producer, consumer) = ring(2, 100);
        assert!(!producer.is_closed());
        drop(consumer);
        assert!(producer.is_closed());
        assert_eq!(producer.push(1, 1), Ok(()));
        assert_eq!(producer.push(2, 1), Ok(()));
        assert_eq!(producer.push(3, 1), Err(3), "bounded still");
        producer.publish();
    }

    #[test]
    fn what_is_published_outlives_the_producer() {
        let (mut producer, mut consumer) = ring(4, 100);
        producer.push(1, 1).unwrap();
        producer.publish();
        producer.push(2, 1).unwrap();
        drop(producer);
        assert_eq!(popped(&mut consumer), [1]);
    }

    #[test]
    fn more_room_is_what_came_since_the_last_look() {
        let (mut producer, mut consumer) = ring(2, 100);
        assert!(!consumer.is_room_awaited());
        producer.push(1, 60).unwrap();
        producer.push(2, 40).unwrap();
        assert_eq!(producer.push(3, 40), Err(3));
        producer.publish();
        producer.await_room(true);
        assert!(!producer.has_more_room());
        let mark = consumer.mark();
        consumer.pop(mark).unwrap();
        assert!(!producer.has_more_room(), "popped, not released");
        consumer.release();
        assert!(consumer.is_room_awaited());
        assert!(producer.has_more_room());
        producer.push(3, 10).unwrap();
        assert!(
            producer.has_more_room(),
            "the push read it, its caller did not"
        );
        producer.room();
        assert!(!producer.has_more_room());
        producer.await_room(false);
        assert!(!consumer.is_room_awaited());
    }

    /// Counts its drops.
    struct Dropped<'a>(&'a Count);

    impl Drop for Dropped<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn every_entry_is_dropped_once_whoever_goes_first() {
        for producer_first in [true, false] {
            // 3 popped of which 2 released, 2 published, 2 only pushed; the ring has wrapped.
            let count = Count::new(0);
            let (mut producer, mut consumer) = ring_from(usize::MAX - 7, 8, 100);
            for _ in 0..5 {
                producer.push(Dropped(&count), 1).ok().unwrap();
            }
            producer.publish();
            for _ in 0..2 {
                consumer.pop(consumer.mark()).unwrap();
            }
            consumer.release();
            consumer.pop(consumer.mark()).unwrap();
            for _ in 0..2 {
                producer.push(Dropped(&count), 1).ok().unwrap();
            }
            assert_eq!(count.load(Ordering::Relaxed), 3);
            if producer_first {
                drop(producer);
                assert_eq!(
                    count.load(Ordering::Relaxed),
                    5,
                    "the producer drops what it has not published"
                );
                drop(consumer);
            } else {
                drop(consumer);
                assert_eq!(
                    count.load(Ordering::Relaxed),
                    5,
                    "the consumer drops what was published, at once"
                );
                producer.publish();
                drop(producer);
            }
            assert_eq!(count.load(Ordering::Relaxed), 7);
        }
    }

    #[test]
    fn an_entry_that_panics_while_dropping_is_not_dropped_twice() {
        struct Bomb<'a>(&'a Count);
        impl Drop for Bomb<'_> {
            fn drop(&mut self) {
                if self.0.fetch_add(1, Ordering::Relaxed) == 0 {
                    panic!("the first to drop");
                }
            }
        }
        for published in [true, false] {
            let count = Count::new(0);
            let (mut producer, consumer) = ring(4, 100);
            for _ in 0..3 {
                producer.push(Bomb(&count), 1).ok().unwrap();
            }
            if published {
                producer.publish();
            }
            let ends = catch_unwind(AssertUnwindSafe(|| drop(consumer)));
            assert_eq!(ends.is_err(), published);
            let ends = catch_unwind(AssertUnwindSafe(|| drop(producer)));
            assert_eq!(ends.is_err(), !published);
            // Published: the rest is left to the last drop. Not published: a panic leaks the rest.
            assert_eq!(count.load(Ordering::Relaxed), if published { 3 } else { 1 });
        }
    }

    #[test]
    fn a_ring_of_nothing_and_a_ring_of_one() {
        let (mut producer, mut consumer) = ring(1, 0);
        for _ in 0..5 {
            producer.push((), 9).unwrap();
            assert!(producer.push((), 0).is_err());
            producer.publish();
            assert_eq!(popped(&mut consumer), [()]);
            consumer.release();
        }
    }

    #[test]
    #[should_panic(expected = "a ring of 3 entries: not a power of two")]
    fn entries_max_is_a_power_of_two() {
        ring::<u8>(3, 10);
    }

    /// The ring as one would tell it: three queues, in the words of the contract.
    #[derive(Default)]
    struct Twin {
        pushed: VecDeque<(u32, usize)>,
        published: VecDeque<(u32, usize)>,
        popped: VecDeque<(u32, usize)>,
    }

    impl Twin {
        fn waiting(&self) -> impl Iterator<Item = &(u32, usize)> {
            self.popped
                .iter()
                .chain(&self.published)
                .chain(&self.pushed)
        }

        fn room(&self, entries_max: usize, bytes_max: usize) -> Room {
            let bytes: usize = self.waiting().map(|entry| entry.1).sum();
            Room {
                entries: entries_max - self.waiting().count(),
                bytes: bytes_max.saturating_sub(bytes),
            }
        }

        fn takes(&self, bytes: usize, entries_max: usize, bytes_max: usize) -> bool {
            let room = self.room(entries_max, bytes_max);
            self.waiting().count() == 0 || (room.entries > 0 && bytes <= room.bytes)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Publish,
        Pop,
        Release,
        Room,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0usize..40).prop_map(Step::Push),
            2 => Just(Step::Publish),
            5 => Just(Step::Pop),
            2 => Just(Step::Release),
            1 => Just(Step::Room),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_its_twin(
            steps in prop::collection::vec(step(), 0..200),
            entries_log in 0u32..4,
            bytes_max in 0usize..100,
            laps_to_wrap in 0usize..3,
        ) {
            let entries_max = 1 << entries_log;
            let start = 0usize.wrapping_sub(laps_to_wrap * entries_max);
            let (mut producer, mut consumer) = ring_from(start, entries_max, bytes_max);
            let mut twin = Twin::default();
            for (number, step) in (0u32..).zip(steps) {
                match step {
                    Step::Push(bytes) => {
                        let took = producer.push(number, bytes).is_ok();
                        prop_assert_eq!(took, twin.takes(bytes, entries_max, bytes_max));
                        if took {
                            twin.pushed.push_back((number, bytes));
                        }
                    }
                    Step::Publish => {
                        prop_assert_eq!(producer.publish(), !twin.pushed.is_empty());
                        twin.published.append(&mut twin.pushed);
                    }
                    Step::Pop => {
                        let entry = twin.published.pop_front();
                        prop_assert_eq!(consumer.pop(consumer.mark()), entry.map(|entry| entry.0));
                        twin.popped.extend(entry);
                    }
                    Step::Release => {
                        prop_assert_eq!(consumer.release(), !twin.popped.is_empty());
                        twin.popped.clear();
                    }
                    Step::Room => prop_assert_eq!(producer.room(), twin.room(entries_max, bytes_max)),
                }
                prop_assert_eq!(consumer.is_empty(), twin.published.is_empty());
            }
        }
    }
}

#[cfg(all(test, pubsub_loom))]
mod models {
    use loom::sync::Arc as Entry; // its leak check tells if an entry is not dropped, its count if dropped twice
    use loom::thread;

    use super::*;

    /// Pushes `count` numbers in batches of two, through whatever room there is, and gives up if nobody listens.
    fn produce(mut producer: Producer<Entry<usize>>, count: usize, bytes: usize) {
        let mut number = 0;
        while number < count && !producer.is_closed() {
            for _ in 0..2 {
                if number < count && producer.push(Entry::new(number), bytes).is_ok() {
                    number += 1;
                }
            }
            if !producer.publish() {
                thread::yield_now();
            }
        }
    }

    fn consume(consumer: &mut Consumer<Entry<usize>>, count: usize, at_once_max: usize) {
        let mut number = 0;
        while number < count {
            let mark = consumer.mark();
            let before = number;
            while let Some(entry) = consumer.pop(mark) {
                assert_eq!(*entry, number, "in order");
                number += 1;
            }
            assert!(
                number - before <= at_once_max,
                "more at once than the ring may hold"
            );
            if !consumer.release() {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn entries_arrive_in_order_around_the_ring() {
        loom::model(|| {
            let (producer, mut consumer) = ring_from(usize::MAX - 1, 2, 100);
            let thread = thread::spawn(move || produce(producer, 4, 1));
            consume(&mut consumer, 4, 2);
            thread.join().unwrap();
            assert!(consumer.is_empty());
        });
    }

    #[test]
    fn the_byte_bound_holds() {
        loom::model(|| {
            // Four slots, bytes for one: never two at once.
            let (producer, mut consumer) = ring(4, 10);
            let thread = thread::spawn(move || produce(producer, 3, 6));
            consume(&mut consumer, 3, 1);
            thread.join().unwrap();
        });
    }

    #[test]
    fn room_only_grows_until_the_next_push() {
        loom::model(|| {
            let (mut producer, mut consumer) = ring(2, 10);
            producer.push(Entry::new(0), 4).unwrap();
            producer.push(Entry::new(1), 5).unwrap();
            producer.publish();
            let thread = thread::spawn(move || {
                for _ in 0..2 {
                    consumer.pop(consumer.mark()).unwrap();
                    consumer.release();
                }
            });
            let first = producer.room();
            let second = producer.room();
            let states = [(0, 1), (1, 5), (2, 10)].map(|(entries, bytes)| Room { entries, bytes });
            let at = |room| {
                states
                    .iter()
                    .position(|state| *state == room)
                    .expect("entries and bytes agree")
            };
            assert!(at(first) <= at(second));
            thread.join().unwrap();
            assert_eq!(producer.room(), states[2]);
        });
    }

    #[test]
    fn a_consumer_that_goes_drops_all_and_is_missed() {
        loom::model(|| {
            let (producer, mut consumer) = ring(2, 100);
            let thread = thread::spawn(move || produce(producer, 4, 1));
            consumer.pop(consumer.mark());
            drop(consumer);
            thread.join().unwrap();
        });
    }

    #[test]
    fn a_producer_that_goes_leaves_what_it_published() {
        loom::model(|| {
            let (mut producer, mut consumer) = ring(2, 100);
            let thread = thread::spawn(move || {
                producer.push(Entry::new(0), 1).unwrap();
                producer.publish();
                producer.push(Entry::new(1), 1).unwrap();
            });
            let early = consumer.pop(consumer.mark());
            thread.join().unwrap();
            let entry = early.or_else(|| consumer.pop(consumer.mark()));
            assert_eq!(entry.as_deref(), Some(&0));
            assert!(consumer.pop(consumer.mark()).is_none());
        });
    }
}
