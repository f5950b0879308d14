//! The two queues between the threads of a host and one shard: calls go in, items come out.
//!
//! *Calls* are bytes. Any thread of the host appends whole frames to one buffer, under a lock that is held for no more
//! than that; the shard takes the whole buffer by a swap. It never waits for the lock: when somebody has it, the shard
//! goes on, since whoever had the lock rings afterwards, whatever became of the call. *Items* are entries of a
//! [`ring`](mod@super::ring): the shard pushes, and one thread of the host at a time pops.
//!
//! Four doorbells' worth of news, two bells: the shard's, by which its other news comes too (a call, room for items,
//! the host's end), and the host's (an item, the shard's end). Each is rung by the rules of [`super::doorbell`]; how a
//! thread is woken is not known here, so whoever may have to do it passes a closure.
//!
//! **The lock and the doorbell.** The owner announces sleep, and after the fence looks: *is there a call, and can I have
//! the lock?* If the lock is taken, it may sleep, though there is a call. Whoever has the lock gives it back before its
//! own fence and its look at the doorbell. If the owner's fence stands first, that look finds it asleep. If the other's
//! does, the owner has seen the lock given back, so it is yet another thread that has it now; and of these the last one
//! finds the owner asleep.

use std::sync::{PoisonError, TryLockError};

use super::Bell;
use super::doorbell::Doorbell;
use super::ring::{Consumer, Producer, ring};
use super::sync::{Arc, AtomicBool, Mutex, MutexGuard, Ordering};

/// The bounds of a link.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of calls that wait. An empty buffer takes whatever one call writes.
    pub calls_bytes_max: usize,
    /// Items that wait, a power of two.
    pub entries_max: usize,
    /// What they count together. An empty ring takes any one item.
    pub bytes_max: usize,
}

/// Why a call was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallError {
    /// Too much waits already; later there may be room.
    Full,
    /// Nobody is there to take it.
    Closed,
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            CallError::Full => "too many calls wait",
            CallError::Closed => "the link is closed",
        })
    }
}

impl std::error::Error for CallError {}

/// The host's end; its threads share it.
pub struct Host<T> {
    shared: Arc<Shared>,
    items: Mutex<Items<T>>,
}

/// The other end, for one thread: a shard, or whoever stands for one.
pub struct Far<T> {
    shared: Arc<Shared>,
    items: Producer<T>,
    /// An item found no room.
    is_waiting: bool,
}

struct Items<T> {
    consumer: Consumer<T>,
    /// Popped, and their room not given back yet.
    popped: usize,
    /// So many popped entries are given back together.
    popped_max: usize,
}

struct Shared {
    calls: Mutex<Vec<u8>>,
    calls_bytes_max: usize,
    /// Is anything in `calls`? Changes under the lock.
    has_calls: AtomicBool,
    is_host_gone: AtomicBool,
    is_far_gone: AtomicBool,
    /// Rung for the far end, with other news of its thread.
    far_bell: Bell,
    host_bell: Doorbell,
}

/// A link whose far end belongs to the thread with this doorbell. The host's threads count as asleep.
pub fn link<T: Send>(bounds: Bounds, far_bell: Bell) -> (Host<T>, Far<T>) {
    let (producer, consumer) = ring(bounds.entries_max, bounds.bytes_max);
    let shared = Arc::new(Shared {
        calls: Mutex::new(Vec::new()),
        calls_bytes_max: bounds.calls_bytes_max,
        has_calls: AtomicBool::new(false),
        is_host_gone: AtomicBool::new(false),
        is_far_gone: AtomicBool::new(false),
        far_bell,
        host_bell: Doorbell::new(),
    });
    shared.host_bell.announce_sleep();
    let host = Host {
        shared: shared.clone(),
        items: Mutex::new(Items {
            consumer,
            popped: 0,
            popped_max: (bounds.entries_max / 4).max(1),
        }),
    };
    let far = Far {
        shared,
        items: producer,
        is_waiting: false,
    };
    (host, far)
}

impl<T: Send> Host<T> {
    /// Appends what `write` writes: all of it or, if there is no room, nothing. `wake` is called if the far end's
    /// thread sleeps, also when the call is not taken: it may have found the lock taken.
    ///
    /// # Errors
    /// [`CallError`]. What is taken may still be lost with the far end.
    pub fn call(
        &self,
        write: impl FnOnce(&mut Vec<u8>),
        wake: impl FnOnce(),
    ) -> Result<(), CallError> {
        let called = self.append(write);
        if self.shared.far_bell.ring() {
            wake();
        }
        called
    }

    fn append(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), CallError> {
        let mut calls = Appending::begin(lock(&self.shared.calls));
        if self.shared.is_far_gone.load(Ordering::Acquire) {
            return Err(CallError::Closed);
        }
        if calls.before >= self.shared.calls_bytes_max {
            return Err(CallError::Full);
        }
        write(&mut calls.buffer);
        if calls.before > 0 && calls.buffer.len() > self.shared.calls_bytes_max {
            return Err(CallError::Full);
        }
        calls.before = calls.buffer.len();
        let has_calls = calls.before > 0;
        // Release, for a far end that sees the host gone and must not miss its last call.
        self.shared.has_calls.store(has_calls, Ordering::Release);
        Ok(())
    }

    /// The next item, in order. `wake` as in [`Host::call`]: the far end may wait for the room.
    pub fn next(&self, wake: impl FnOnce()) -> Option<T> {
        let mut items = lock(&self.items);
        let mark = items.consumer.mark();
        let item = items.consumer.pop(mark);
        items.popped += usize::from(item.is_some());
        // Not for each: a far end that waits for room is to find enough of it to be worth the waking.
        if item.is_none() || items.popped >= items.popped_max {
            items.popped = 0;
            if items.consumer.release()
                && items.consumer.is_room_awaited()
                && self.shared.far_bell.ring()
            {
                wake();
            }
        }
        item
    }

    /// Before sleeping: true if the host's threads may sleep, and will be woken for the next item or the far end's
    /// close. `clear` makes a sleep possible: what was told before it is forgotten. False if there is news already; then
    /// nobody will wake them for it.
    pub fn announce_sleep(&self, clear: impl FnOnce()) -> bool {
        let items = lock(&self.items);
        clear();
        self.shared.host_bell.announce_sleep();
        let has_news =
            !items.consumer.is_empty() || self.shared.is_far_gone.load(Ordering::Acquire);
        if has_news {
            self.shared.host_bell.awake();
        }
        !has_news
    }

    /// Is the far end gone? Items that it sent may be left to take.
    pub fn is_far_gone(&self) -> bool {
        self.shared.is_far_gone.load(Ordering::Acquire)
    }

    /// Is the far end gone, and everything taken that it sent?
    pub fn is_closed(&self) -> bool {
        // In this order: what was sent before the close is seen by whoever sees the close.
        self.shared.is_far_gone.load(Ordering::Acquire) && lock(&self.items).consumer.is_empty()
    }

    /// Says that this end is gone; calls made so far count. `wake` as in [`Host::call`].
    pub fn close(&self, wake: impl FnOnce()) {
        self.shared.is_host_gone.store(true, Ordering::Release);
        if self.shared.far_bell.ring() {
            wake();
        }
    }

    /// Says that the far end is gone, in the name of its thread, which may have ended. `wake` wakes the host.
    pub fn close_far(&self, wake: impl FnOnce()) {
        self.shared.close_far(wake);
    }
}

impl<T: Send> Far<T> {
    /// Takes all calls that wait, if nobody has the lock; `into` must be empty, and becomes the next buffer. True if
    /// there were any.
    pub fn take(&mut self, into: &mut Vec<u8>) -> bool {
        debug_assert!(into.is_empty(), "what was taken before is lost");
        let Some(mut calls) = self.shared.try_calls() else {
            return false;
        };
        std::mem::swap(&mut *calls, into);
        self.shared.has_calls.store(false, Ordering::Relaxed);
        true
    }

    /// Could [`Far::take`] take something now? To be asked between the announcement of sleep and the sleep.
    pub fn has_calls(&self) -> bool {
        self.shared.try_calls().is_some()
    }

    /// Adds an item that counts as `bytes`, not visible to the host before [`Far::publish`]. After a refusal the host
    /// rings when there is room.
    ///
    /// # Errors
    /// Gives the item back if there is no room.
    pub fn push(&mut self, item: T, bytes: usize) -> Result<(), T> {
        let pushed = self.items.push(item, bytes);
        let is_waiting = pushed.is_err();
        if is_waiting != self.is_waiting {
            self.is_waiting = is_waiting;
            self.items.await_room(is_waiting);
        }
        pushed
    }

    /// Shows the host what was pushed; `wake` is called if it sleeps.
    pub fn publish(&mut self, wake: impl FnOnce()) {
        if self.items.publish() && self.shared.host_bell.ring() {
            wake();
        }
    }

    /// Did the last push find no room, and has some come since? As [`Far::has_calls`].
    pub fn has_more_room(&self) -> bool {
        self.is_waiting && self.items.has_more_room()
    }

    /// Is the host gone? Calls may be left to take.
    pub fn is_host_gone(&self) -> bool {
        self.shared.is_host_gone.load(Ordering::Acquire)
    }

    /// Has this end been closed, by [`Far::close`] or in its name?
    pub fn is_closed(&self) -> bool {
        self.shared.is_far_gone.load(Ordering::Acquire)
    }

    /// Says that this end is gone, after what was published. `wake` as in [`Far::publish`].
    pub fn close(&self, wake: impl FnOnce()) {
        self.shared.close_far(wake);
    }

    /// Before sleeping, for a thread that has no other way to be woken: as [`Host::announce_sleep`].
    pub fn announce_sleep(&self, clear: impl FnOnce()) -> bool {
        clear();
        let doorbell = &self.shared.far_bell.0;
        doorbell.announce_sleep();
        let has_news = self.has_calls() || self.has_more_room() || self.is_host_gone();
        if has_news {
            doorbell.awake();
        }
        !has_news
    }
}

impl Shared {
    /// The calls, if there are any and nobody else is at them.
    fn try_calls(&self) -> Option<MutexGuard<'_, Vec<u8>>> {
        // Without the lock first: nearly always there are none. Acquire, for the end of a host: see `append`.
        if !self.has_calls.load(Ordering::Acquire) {
            return None;
        }
        let calls = match self.calls.try_lock() {
            Ok(calls) => calls,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        (!calls.is_empty()).then_some(calls)
    }

    fn close_far(&self, wake: impl FnOnce()) {
        self.is_far_gone.store(true, Ordering::Release);
        if self.host_bell.ring() {
            wake();
        }
    }
}

/// An append under way: undone unless `before` is moved on, so that half a frame is never left, not even by a panic.
struct Appending<'a> {
    buffer: MutexGuard<'a, Vec<u8>>,
    before: usize,
}

impl Appending<'_> {
    fn begin(buffer: MutexGuard<'_, Vec<u8>>) -> Appending<'_> {
        let before = buffer.len();
        Appending { buffer, before }
    }
}

impl Drop for Appending<'_> {
    fn drop(&mut self) {
        self.buffer.truncate(self.before);
    }
}

/// Nothing behind these locks can be left half done by a panic.
fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, not(pubsub_loom)))]
mod tests {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    const BOUNDS: Bounds = Bounds {
        calls_bytes_max: 4,
        entries_max: 4,
        bytes_max: 10,
    };

    fn never() {
        panic!("nobody sleeps");
    }

    fn taken<T: Send>(far: &mut Far<T>) -> Vec<u8> {
        let mut calls = Vec::new();
        assert_eq!(far.take(&mut calls), !calls.is_empty());
        calls
    }

    fn call<T: Send>(host: &Host<T>, bytes: &[u8]) -> Result<(), CallError> {
        host.call(|calls| calls.extend_from_slice(bytes), never)
    }

    #[test]
    fn calls_are_whole_or_not_there() {
        let (host, mut far) = link::<u8>(BOUNDS, Bell::default());
        assert!(!far.has_calls() && taken(&mut far).is_empty());
        assert_eq!(call(&host, b"123456"), Ok(()), "an empty buffer takes it");
        assert_eq!(call(&host, b"7"), Err(CallError::Full));
        assert!(far.has_calls());
        assert_eq!(taken(&mut far), b"123456");
        assert_eq!(call(&host, b"12"), Ok(()));
        assert_eq!(call(&host, b"345"), Err(CallError::Full));
        assert_eq!(call(&host, b"34"), Ok(()));
        assert_eq!(taken(&mut far), b"1234", "the refused one left nothing");
        assert_eq!(call(&host, b""), Ok(()));
        assert!(!far.has_calls());
        let panicking = || {
            host.call(
                |calls| {
                    calls.push(1);
                    panic!("in the middle of a frame");
                },
                never,
            )
        };
        assert!(catch_unwind(AssertUnwindSafe(panicking)).is_err());
        assert!(!far.has_calls());
        assert_eq!(call(&host, b"5"), Ok(()));
        assert_eq!(taken(&mut far), b"5");
    }

    #[test]
    fn a_taken_lock_is_waited_for_by_nobody() {
        let (host, mut far) = link::<u8>(BOUNDS, Bell::default());
        assert_eq!(call(&host, b"1"), Ok(()));
        let woken = Cell::new(0);
        let within = |_: &mut Vec<u8>| {
            let mut calls = Vec::new();
            assert!(!far.has_calls() && !far.take(&mut calls));
            assert!(far.announce_sleep(|| {}), "it will be rung");
        };
        assert_eq!(host.call(within, || woken.set(1)), Ok(()));
        assert_eq!(woken.get(), 1, "though nothing was called");
        assert_eq!(taken(&mut far), b"1");
    }

    #[test]
    fn items_come_in_order_and_wake_a_sleeper_once() {
        let (host, mut far) = link::<u8>(BOUNDS, Bell::default());
        let woken = Cell::new(0);
        let wake = || woken.set(woken.get() + 1);
        for item in 0..4 {
            assert_eq!(far.push(item, 1), Ok(()));
            far.publish(wake);
        }
        assert_eq!(woken.get(), 1);
        assert_eq!(far.push(4, 1), Err(4));
        assert!(!host.announce_sleep(|| {}), "there are items");
        far.publish(never);
        assert!(!far.has_more_room());
        assert!(far.announce_sleep(|| {}));
        let got: Vec<u8> = std::iter::from_fn(|| host.next(wake)).collect();
        assert_eq!(got, [0, 1, 2, 3]);
        assert_eq!(woken.get(), 2, "the far end waits for room");
        assert!(far.has_more_room() && !far.announce_sleep(|| {}));
        assert_eq!(far.push(4, 11), Ok(()), "an empty ring takes it");
        assert!(!far.has_more_room());
        assert!(host.announce_sleep(|| {}), "it is not published");
        far.publish(wake);
        assert_eq!((woken.get(), host.next(never)), (3, Some(4)));
        assert_eq!(host.next(never), None);
    }

    #[test]
    fn each_end_sees_the_other_go_behind_what_it_left() {
        let (host, mut far) = link::<u8>(BOUNDS, Bell::default());
        let woken = Cell::new(0);
        let wake = || woken.set(woken.get() + 1);
        assert!(far.announce_sleep(|| {}));
        assert!(host.call(|calls| calls.push(1), wake).is_ok());
        host.close(wake);
        assert_eq!(woken.get(), 1, "it had been rung");
        assert!(far.is_host_gone());
        assert_eq!(taken(&mut far), [1]);
        assert!(!far.announce_sleep(|| {}), "a host that is gone is news");

        far.push(7, 1).unwrap();
        far.publish(|| {});
        assert!(!host.is_closed() && !far.is_closed());
        far.close(wake);
        assert!(far.is_closed() && !host.is_closed(), "an item is left");
        assert_eq!(call(&host, b"x"), Err(CallError::Closed));
        assert_eq!(host.next(never), Some(7));
        assert!(host.is_closed() && !host.announce_sleep(|| {}));
    }

    #[test]
    fn what_nobody_took_is_dropped() {
        let item = Arc::new(());
        let (host, mut far) = link(BOUNDS, Bell::default());
        for _ in 0..3 {
            far.push(item.clone(), 1).unwrap();
        }
        far.publish(|| {});
        drop(host.next(never));
        drop(far);
        assert_eq!(Arc::strong_count(&item), 3, "they are the host's");
        drop(host);
        assert_eq!(Arc::strong_count(&item), 1);
        let (host, mut far) = link(BOUNDS, Bell::default());
        drop(host);
        far.push(item.clone(), 1).unwrap();
        far.publish(|| {});
        drop(far);
        assert_eq!(Arc::strong_count(&item), 1);
    }
}

#[cfg(all(test, pubsub_loom))]
mod models {
    use loom::sync::{Condvar, Mutex};
    use loom::thread;

    use super::*;

    /// What a thread waits on: readable from a wake to the next clearing, as an eventfd is. If a wake is missing, all
    /// threads end up waiting, which loom reports as a deadlock.
    #[derive(Default)]
    struct Readable(Mutex<bool>, Condvar);

    impl Readable {
        fn wake(&self) {
            *self.0.lock().unwrap() = true;
            self.1.notify_one();
        }

        fn clear(&self) {
            *self.0.lock().unwrap() = false;
        }

        fn wait(&self) {
            let mut readable = self.0.lock().unwrap();
            while !*readable {
                readable = self.1.wait(readable).unwrap();
            }
        }
    }

    struct Ends {
        host: Arc<Host<u32>>,
        far: Far<u32>,
        host_fd: Arc<Readable>,
        far_fd: Arc<Readable>,
    }

    fn ends(entries_max: usize) -> Ends {
        let bounds = Bounds {
            calls_bytes_max: 2,
            entries_max,
            bytes_max: 100,
        };
        let (host, far) = link(bounds, Bell::default());
        Ends {
            host: Arc::new(host),
            far,
            host_fd: Arc::default(),
            far_fd: Arc::default(),
        }
    }

    /// The loop of a far end until it has `count` bytes, or the host is gone.
    fn take(far: &mut Far<u32>, fd: &Readable, count: usize) -> Vec<u8> {
        take_looking(far, fd, count, || {})
    }

    /// The same, which looks at something before it takes.
    fn take_looking(far: &mut Far<u32>, fd: &Readable, count: usize, look: impl Fn()) -> Vec<u8> {
        let mut got = Vec::new();
        loop {
            let mut calls = Vec::new();
            // In this order: see `Far::is_host_gone`.
            let is_gone = far.is_host_gone();
            look();
            far.take(&mut calls);
            let is_idle = calls.is_empty();
            got.append(&mut calls);
            if got.len() >= count || is_gone && is_idle {
                return got;
            }
            if is_idle && far.announce_sleep(|| fd.clear()) {
                fd.wait();
            }
        }
    }

    /// The loop of a host until it has `count` items, or the far end is gone.
    fn read(host: &Host<u32>, fd: &Readable, far_fd: &Readable, count: usize) -> Vec<u32> {
        let mut got = Vec::new();
        loop {
            while let Some(item) = host.next(|| far_fd.wake()) {
                got.push(item);
            }
            if got.len() == count || host.is_closed() {
                return got;
            }
            if !host.announce_sleep(|| fd.clear()) {
                fd.wake();
            }
            fd.wait();
        }
    }

    fn model(preemptions_max: usize, f: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(preemptions_max));
        builder.check(f);
    }

    #[test]
    fn the_far_end_is_woken_for_every_call() {
        model(3, || {
            let mut ends = ends(1);
            let threads: Vec<_> = (0..2u8)
                .map(|caller| {
                    let (host, fd) = (ends.host.clone(), ends.far_fd.clone());
                    thread::spawn(move || {
                        let write = |calls: &mut Vec<u8>| calls.push(caller);
                        host.call(write, || fd.wake()).unwrap();
                    })
                })
                .collect();
            let mut got = take(&mut ends.far, &ends.far_fd, 2);
            got.sort_unstable();
            assert_eq!(got, [0, 1]);
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }

    #[test]
    fn calls_of_one_thread_keep_their_order() {
        model(4, || {
            let mut ends = ends(1);
            let (host, fd) = (ends.host.clone(), ends.far_fd.clone());
            let thread = thread::spawn(move || {
                let call = |byte| host.call(|calls| calls.push(byte), || fd.wake());
                (call(0).unwrap(), call(1).unwrap());
            });
            assert_eq!(take(&mut ends.far, &ends.far_fd, 2), [0, 1]);
            thread.join().unwrap();
        });
    }

    /// To loom the end of a lock is no step of its own. So that it tries the far end in the middle of the refused call, that
    /// call does something there which the far end looks at.
    #[test]
    fn a_refused_call_rings_for_the_lock_that_it_had() {
        model(4, || {
            let mut ends = ends(1);
            let (host, fd) = (ends.host.clone(), ends.far_fd.clone());
            let writes = Arc::new(AtomicBool::new(false));
            let has_written = writes.clone();
            let thread = thread::spawn(move || {
                host.call(|calls| calls.push(b'a'), || fd.wake()).unwrap();
                let write = |calls: &mut Vec<u8>| {
                    calls.extend_from_slice(b"bc");
                    writes.store(true, Ordering::Relaxed);
                };
                // Refused or not, by what the far end has taken.
                let _ = host.call(write, || fd.wake());
            });
            let look = || {
                let _ = has_written.load(Ordering::Relaxed);
            };
            assert_eq!(take_looking(&mut ends.far, &ends.far_fd, 1, look)[0], b'a');
            thread.join().unwrap();
        });
    }

    #[test]
    fn a_host_is_woken_for_every_item_and_the_far_end_for_room() {
        model(3, || {
            let ends = ends(1);
            let (host_fd, far_fd) = (ends.host_fd.clone(), ends.far_fd.clone());
            let mut far = ends.far;
            let thread = thread::spawn(move || {
                let mut item = 0;
                while item < 2 {
                    let pushed = far.push(item, 1).is_ok();
                    item += u32::from(pushed);
                    far.publish(|| host_fd.wake());
                    if !pushed && far.announce_sleep(|| far_fd.clear()) {
                        far_fd.wait();
                    }
                }
                far
            });
            let got = read(&ends.host, &ends.host_fd, &ends.far_fd, 2);
            assert_eq!(got, [0, 1]);
            thread.join().unwrap();
        });
    }

    #[test]
    fn a_host_takes_all_that_a_far_end_leaves() {
        model(4, || {
            let ends = ends(2);
            let host_fd = ends.host_fd.clone();
            let mut far = ends.far;
            let thread = thread::spawn(move || {
                far.push(7, 1).unwrap();
                far.publish(|| host_fd.wake());
                far.close(|| host_fd.wake());
            });
            let got = read(&ends.host, &ends.host_fd, &ends.far_fd, usize::MAX);
            assert_eq!(got, [7]);
            thread.join().unwrap();
        });
    }

    #[test]
    fn a_far_end_takes_all_that_a_host_leaves() {
        model(4, || {
            let mut ends = ends(1);
            let (host, fd) = (ends.host, ends.far_fd.clone());
            let thread = thread::spawn(move || {
                host.call(|calls| calls.push(7), || fd.wake()).unwrap();
                host.close(|| fd.wake());
            });
            assert_eq!(take(&mut ends.far, &ends.far_fd, usize::MAX), [7]);
            thread.join().unwrap();
        });
    }
}
