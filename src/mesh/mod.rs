//! The mesh: a ring from every shard to every other, and a doorbell on each.
//!
//! A shard holds its [`Ports`]: the near ends of all its rings. Once per turn its event loop, in this order,
//!
//! 1. takes [`marks`](Ports::marks) after it took its bytes, and pops with [`take_next`](Ports::take_next) until `None`: all that
//!    was published before the marks and nothing after. This is what makes an ack a barrier (DESIGN, decision 4);
//! 2. gives the room back: [`release_all`](Ports::release_all);
//! 3. routes, with [`room`](Ports::room) and [`push`](Ports::push). What finds no room waits in the shard, which says
//!    so with [`await_room`](Ports::await_room);
//! 4. [`publish`](Ports::publish)es, before anything of this turn is sent to a client, and wakes those it is told;
//! 5. may sleep if [`announce_sleep`](Ports::announce_sleep) says so, and is [`awake`](Ports::awake) afterwards.
//!
//! Nothing here knows what a message is, how a thread sleeps, or how it is woken.
//!
//! The invariant: a shard sleeps only while its inbound rings are empty and no ring that it waits for has more room,
//! or somebody has been told to wake it. The argument for it is in [`doorbell`]; it holds for both kinds of news, since
//! publishing and releasing are each followed by a full fence and a look at the doorbell.

pub mod doorbell;
pub mod link;
pub mod ring;
mod sync;

use std::mem;

use crate::address::{SHARDS_MAX, ShardId, ShardSet};

use doorbell::Doorbell;
use ring::{Consumer, Mark, Producer, Room, ring};
use sync::Arc;

/// Connects `shards` shards with rings of so many entries and bytes each; the ports of shard `n` are at index `n`.
///
/// # Panics
/// If there are no shards or more than [`SHARDS_MAX`], or if `entries_max` is no power of two.
pub fn build<T: Send>(shards: usize, entries_max: usize, bytes_max: usize) -> Vec<Ports<T>> {
    assert!(
        (1..=SHARDS_MAX).contains(&shards),
        "a mesh of {shards} shards, not of 1 to {SHARDS_MAX}"
    );
    let doorbells: Vec<_> = (0..shards).map(|_| Arc::new(Doorbell::new())).collect();
    let mut ports: Vec<Ports<T>> = ShardSet::first(shards)
        .iter()
        .map(|shard| Ports {
            shard,
            entries_max,
            outbound: (0..shards).map(|_| None).collect(),
            inbound: (0..shards).map(|_| None).collect(),
            doorbells: doorbells.clone(),
            first: 0,
            drained: shards,
            pushed: ShardSet::EMPTY,
            released: ShardSet::EMPTY,
            awaited: ShardSet::EMPTY,
        })
        .collect();
    for source in 0..shards {
        for target in (0..shards).filter(|target| *target != source) {
            let (producer, consumer) = ring(entries_max, bytes_max);
            ports[source].outbound[target] = Some(producer);
            let mark = consumer.mark();
            ports[target].inbound[source] = Some(Inbound { consumer, mark });
        }
    }
    ports
}

/// All ends that one shard holds, for its own thread.
pub struct Ports<T> {
    shard: ShardId,
    /// Of each ring.
    entries_max: usize,
    /// By target; `None` for the shard itself.
    outbound: Vec<Option<Producer<T>>>,
    /// By source; `None` for the shard itself.
    inbound: Vec<Option<Inbound<T>>>,
    /// By owner.
    doorbells: Vec<Arc<Doorbell>>,
    /// The inbound ring that this turn's drain begins with.
    first: usize,
    /// How many inbound rings, from `first` on, are drained up to their marks.
    drained: usize,
    /// The targets of rings with entries that are not published.
    pushed: ShardSet,
    /// The sources of rings that were given room since the last `publish`.
    released: ShardSet,
    /// The targets of rings that this shard waits for room on.
    awaited: ShardSet,
}

struct Inbound<T> {
    consumer: Consumer<T>,
    mark: Mark,
}

impl<T: Send> Ports<T> {
    /// The shard that these ports belong to.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The entries that each ring holds: so much [`Room`] has an empty one.
    pub fn entries_max(&self) -> usize {
        self.entries_max
    }

    /// Remembers how far every inbound ring has been filled: `take_next` goes there, no further and no less far.
    pub fn marks(&mut self) {
        for source in 0..self.inbound.len() {
            self.mark(ShardId(source as u8)); // SHARDS_MAX fits
        }
        self.begin_drain();
    }

    /// The part of [`marks`](Ports::marks) that is about the ring from one shard. The others publish at any moment, so
    /// between two of these: the simulation calls them one by one.
    pub fn mark(&mut self, source: ShardId) {
        if let Some(inbound) = &mut self.inbound[source.index()] {
            inbound.mark = inbound.consumer.mark();
        }
    }

    /// The rest of [`marks`](Ports::marks).
    pub fn begin_drain(&mut self) {
        // Each ring is drained to its mark, so all get their turn; another begins each time, so that none is always
        // the one whose messages find full outboxes.
        self.first = (self.first + 1) % self.inbound.len();
        self.drained = 0;
    }

    /// The next message before the marks, and who sent it. Ring by ring; within a ring in the order pushed.
    pub fn take_next(&mut self) -> Option<(ShardId, T)> {
        let rings = self.inbound.len();
        while self.drained < rings {
            let source = (self.first + self.drained) % rings;
            if let Some(inbound) = &mut self.inbound[source]
                && let Some(item) = inbound.consumer.pop(inbound.mark)
            {
                return Some((ShardId(source as u8), item)); // SHARDS_MAX fits
            }
            self.drained += 1;
        }
        None
    }

    /// Gives back the room of all that was popped. Whoever waits for it is told by the next `publish`.
    pub fn release_all(&mut self) {
        for (source, inbound) in self.inbound.iter_mut().enumerate() {
            if let Some(inbound) = inbound
                && inbound.consumer.release()
            {
                self.released.insert(ShardId(source as u8));
            }
        }
    }

    /// Room on the ring to another shard; a lower bound that only grows until the next push there.
    ///
    /// # Panics
    /// If `to` is this shard, or none of this mesh; so do the others that name a shard.
    pub fn room(&mut self, to: ShardId) -> Room {
        self.to(to).room()
    }

    /// Adds a message that counts as `bytes` for another shard. It leaves with the next `publish`.
    ///
    /// # Errors
    /// Gives the message back if there is no room.
    pub fn push(&mut self, to: ShardId, item: T, bytes: usize) -> Result<(), T> {
        self.to(to).push(item, bytes)?;
        self.pushed.insert(to);
        Ok(())
    }

    /// Is this shard gone for good? Nobody will ever make room there.
    pub fn is_closed(&self, to: ShardId) -> bool {
        self.outbound[to.index()]
            .as_ref()
            .expect(NO_RING)
            .is_closed()
    }

    /// Says on which rings this shard waits for room, instead of what it said before. To be called with what it still
    /// waits for at the end of a turn, after it last looked at `room` or was refused by `push`.
    pub fn await_room(&mut self, on: ShardSet) {
        if on != self.awaited {
            let before = mem::replace(&mut self.awaited, on);
            for target in before
                .union(on)
                .iter()
                .filter(|target| before.contains(*target) != on.contains(*target))
            {
                self.to(target).await_room(on.contains(target));
            }
        }
    }

    /// Makes visible all that was pushed, and appends to `wake` the shards that sleep and have news: each once, and
    /// each told to nobody else, so the caller must wake it.
    ///
    /// All rings first and the doorbells after, so that a shard that is woken by one finds them all.
    pub fn publish(&mut self, wake: &mut Vec<ShardId>) {
        let pushed = mem::take(&mut self.pushed);
        for target in pushed.iter() {
            self.to(target).publish();
        }
        let mut news = pushed;
        for source in mem::take(&mut self.released).iter() {
            if self.inbound[source.index()]
                .as_ref()
                .expect(NO_RING)
                .consumer
                .is_room_awaited()
            {
                news.insert(source);
            }
        }
        wake.extend(
            news.iter()
                .filter(|shard| self.doorbells[shard.index()].ring()),
        );
    }

    /// Before sleeping: true if the shard may sleep, and from now on will be woken for any news.
    ///
    /// False if there is a message already, or more room on a ring that it waits for; then it is awake again. A caller
    /// with other inboxes, whose senders hold a [`Bell`], looks into them after this said true and before it sleeps.
    pub fn announce_sleep(&self) -> bool {
        assert!(
            self.pushed.is_empty() && self.released.is_empty(),
            "shard {} would sleep on what it has not published",
            self.shard
        );
        self.doorbell().announce_sleep();
        let has_messages = self
            .inbound
            .iter()
            .flatten()
            .any(|inbound| !inbound.consumer.is_empty());
        let has_news = has_messages
            || (self.awaited.iter()).any(|to| {
                self.outbound[to.index()]
                    .as_ref()
                    .expect(NO_RING)
                    .has_more_room()
            });
        if has_news {
            self.awake();
        }
        !has_news
    }

    /// After sleeping, however it ended, or instead of it.
    pub fn awake(&self) {
        self.doorbell().awake();
    }

    /// The doorbell of this shard, for those who are no shard.
    pub fn bell(&self) -> Bell {
        Bell(self.doorbell().clone())
    }

    fn doorbell(&self) -> &Arc<Doorbell> {
        &self.doorbells[self.shard.index()]
    }

    fn to(&mut self, target: ShardId) -> &mut Producer<T> {
        self.outbound[target.index()].as_mut().expect(NO_RING)
    }
}

/// What a bug says that routes to the shard it is on.
const NO_RING: &str = "a shard has no ring to itself";

/// The doorbell of one shard, for a thread that is no shard, such as the control plane.
#[derive(Clone, Default, Debug)]
pub struct Bell(Arc<Doorbell>);

impl Bell {
    /// After leaving something in an inbox of the shard: true if the shard sleeps and the caller must wake it.
    #[must_use = "the shard sleeps until it is woken"]
    pub fn ring(&self) -> bool {
        self.0.ring()
    }
}

#[cfg(all(test, not(pubsub_loom)))]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 100;

    fn mesh(shards: usize) -> Vec<Ports<u32>> {
        build(shards, 4, BYTES_MAX)
    }

    fn publish(ports: &mut Ports<u32>) -> Vec<u8> {
        let mut wake = Vec::new();
        ports.publish(&mut wake);
        wake.into_iter().map(|shard| shard.0).collect()
    }

    fn drain(ports: &mut Ports<u32>) -> Vec<(u8, u32)> {
        std::iter::from_fn(|| ports.take_next())
            .map(|(source, item)| (source.0, item))
            .collect()
    }

    #[test]
    fn every_shard_reaches_every_other() {
        for shards in [1, 2, 3, 7] {
            let mut mesh = mesh(shards);
            for (source, ports) in mesh.iter_mut().enumerate() {
                assert_eq!(ports.shard().index(), source);
                for target in (0..shards).filter(|target| *target != source) {
                    let to = ShardId(target as u8);
                    ports.push(to, (source * 10 + target) as u32, 1).unwrap();
                    assert_eq!(
                        ports.room(to),
                        Room {
                            entries: 3,
                            bytes: BYTES_MAX - 1
                        }
                    );
                    assert!(!ports.is_closed(to));
                }
                assert!(publish(ports).is_empty(), "nobody sleeps");
            }
            for (target, ports) in mesh.iter_mut().enumerate() {
                ports.marks();
                let mut got = drain(ports);
                got.sort_unstable();
                let sources = (0..shards).filter(|source| *source != target);
                let due: Vec<_> = sources
                    .map(|source| (source as u8, (source * 10 + target) as u32))
                    .collect();
                assert_eq!(got, due);
            }
        }
    }

    #[test]
    fn a_drain_goes_to_the_marks_and_begins_with_another_ring_each_turn() {
        let mut mesh = mesh(3);
        let [zero, one, two] = &mut mesh[..] else {
            unreachable!()
        };
        let mut first = Vec::new();
        for turn in 0..6 {
            for ports in [&mut *one, &mut *two] {
                ports.push(ShardId(0), turn, 1).unwrap();
                ports.push(ShardId(0), turn + 100, 1).unwrap();
                publish(ports);
            }
            assert_eq!(drain(zero), [], "no marks, no messages");
            zero.marks();
            one.push(ShardId(0), turn + 200, 1).unwrap();
            publish(one);
            let got = drain(zero);
            assert_eq!(
                got.len(),
                if turn == 0 { 4 } else { 5 },
                "what came after the marks comes in the next turn"
            );
            for source in [1, 2] {
                let of_source: Vec<u32> = got
                    .iter()
                    .filter(|got| got.0 == source)
                    .map(|got| got.1)
                    .collect();
                assert!(
                    of_source.ends_with(&[turn, turn + 100]),
                    "in order: {of_source:?}"
                );
            }
            first.push(got[0].0);
            zero.release_all();
            publish(zero);
        }
        assert!(first.contains(&1) && first.contains(&2), "{first:?}");
    }

    #[test]
    fn sleepers_are_woken_once() {
        let mut mesh = mesh(3);
        let [zero, one, two] = &mut mesh[..] else {
            unreachable!()
        };
        assert!(zero.announce_sleep());
        one.push(ShardId(0), 1, 1).unwrap();
        one.push(ShardId(0), 2, 1).unwrap();
        one.push(ShardId(2), 3, 1).unwrap();
        two.push(ShardId(0), 4, 1).unwrap();
        assert_eq!(publish(one), [0], "two is awake");
        assert!(publish(one).is_empty(), "nothing pushed since");
        assert!(publish(two).is_empty(), "one has rung");
        zero.awake();
        assert!(!zero.announce_sleep(), "there is work");
        one.push(ShardId(0), 5, 1).unwrap();
        assert!(publish(one).is_empty(), "it knows");
        zero.marks();
        assert_eq!(drain(zero).len(), 4);
        zero.release_all();
        assert!(publish(zero).is_empty(), "nobody waits for room");
        assert!(zero.announce_sleep());
        assert!(zero.bell().clone().ring(), "control threads ring too");
        assert!(!zero.bell().ring());
    }

    #[test]
    fn who_waits_for_room_is_woken_by_a_release() {
        let mut mesh = mesh(3);
        let [zero, one, _] = &mut mesh[..] else {
            unreachable!()
        };
        let to = ShardId(1);
        for item in 0..4 {
            zero.push(to, item, 1).unwrap();
        }
        assert_eq!(zero.push(to, 4, 1), Err(4));
        publish(zero);
        let waits: ShardSet = [to].into_iter().collect();

        // Without waiting for room: a release is no news.
        assert!(zero.announce_sleep());
        one.marks();
        one.take_next().unwrap();
        one.release_all();
        assert!(publish(one).is_empty());
        zero.awake();

        // Room that came before the announcement keeps the shard awake until it has looked.
        zero.await_room(waits);
        assert!(!zero.announce_sleep());
        zero.push(to, 4, 1).unwrap();
        assert_eq!(zero.push(to, 5, 1), Err(5));
        publish(zero);
        assert!(zero.announce_sleep());

        // Room that comes after it wakes the shard, once.
        one.take_next().unwrap();
        one.release_all();
        assert_eq!(publish(one), [0]);
        one.take_next().unwrap();
        one.release_all();
        assert!(publish(one).is_empty());
        zero.awake();

        assert_eq!(
            zero.room(to),
            Room {
                entries: 2,
                bytes: BYTES_MAX - 2
            }
        );
        zero.await_room(ShardSet::EMPTY);
        assert!(zero.announce_sleep());
        one.take_next().unwrap();
        one.release_all();
        assert!(publish(one).is_empty(), "nobody waits any more");
    }

    #[test]
    fn a_shard_that_is_gone_shows_as_closed() {
        let mut mesh = mesh(2);
        drop(mesh.pop());
        assert!(mesh[0].is_closed(ShardId(1)));
    }

    #[test]
    #[should_panic(expected = "shard 0 would sleep on what it has not published")]
    fn no_sleep_before_publish() {
        let mut mesh = mesh(2);
        mesh[0].push(ShardId(1), 1, 1).unwrap();
        mesh[0].announce_sleep();
    }

    #[test]
    #[should_panic(expected = "a shard has no ring to itself")]
    fn no_ring_to_itself() {
        mesh(2)[1].room(ShardId(1));
    }

    #[test]
    #[should_panic(expected = "a mesh of 129 shards")]
    fn shards_are_bounded() {
        mesh(SHARDS_MAX + 1);
    }
}

#[cfg(all(test, pubsub_loom))]
mod models {
    use loom::sync::{Condvar, Mutex};
    use loom::thread;

    use super::*;

    /// How threads of a model sleep: a wake-up is kept until the sleeper looks, as an eventfd or a ring message is.
    /// If one is missing, all threads end up waiting, which loom reports as a deadlock.
    #[derive(Default)]
    struct Beds(Vec<(Mutex<usize>, Condvar)>);

    impl Beds {
        fn new(count: usize) -> Arc<Beds> {
            Arc::new(Beds(
                (0..count)
                    .map(|_| (Mutex::new(0), Condvar::new()))
                    .collect(),
            ))
        }

        fn wake(&self, shards: Vec<ShardId>) {
            for shard in shards {
                let (woken, changed) = &self.0[shard.index()];
                *woken.lock().unwrap() += 1;
                changed.notify_one();
            }
        }

        fn sleep(&self, shard: ShardId) {
            let (woken, changed) = &self.0[shard.index()];
            let mut woken = woken.lock().unwrap();
            while *woken == 0 {
                woken = changed.wait(woken).unwrap();
            }
            *woken -= 1;
        }
    }

    fn turn_ends(ports: &mut Ports<u32>, beds: &Beds) {
        let mut wake = Vec::new();
        ports.publish(&mut wake);
        beds.wake(wake);
    }

    /// The loop of a shard that only receives, until it has `count` messages.
    fn receive(ports: &mut Ports<u32>, beds: &Beds, count: usize) -> Vec<(ShardId, u32)> {
        let mut got = Vec::new();
        loop {
            ports.marks();
            got.extend(std::iter::from_fn(|| ports.take_next()));
            ports.release_all();
            turn_ends(ports, beds);
            if got.len() == count {
                return got;
            }
            if ports.announce_sleep() {
                beds.sleep(ports.shard());
                ports.awake();
            }
        }
    }

    fn model(preemptions_max: usize, f: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(preemptions_max));
        builder.check(f);
    }

    #[test]
    fn a_receiver_is_woken_for_every_message() {
        model(4, || {
            let beds = Beds::new(2);
            let mut mesh: Vec<Ports<u32>> = build(2, 2, 100);
            let mut sender = mesh.pop().unwrap();
            let mut receiver = mesh.pop().unwrap();
            let thread = {
                let beds = beds.clone();
                thread::spawn(move || {
                    for item in 0..2 {
                        sender.push(ShardId(0), item, 1).unwrap();
                        turn_ends(&mut sender, &beds);
                    }
                    sender // its rings close after the receiver is done
                })
            };
            let got = receive(&mut receiver, &beds, 2);
            assert_eq!(got, [(ShardId(1), 0), (ShardId(1), 1)]);
            thread.join().unwrap();
        });
    }

    #[test]
    fn two_senders_wake_one_receiver() {
        model(3, || {
            let beds = Beds::new(3);
            let mut mesh: Vec<Ports<u32>> = build(3, 1, 100);
            let senders = mesh.split_off(1);
            let mut receiver = mesh.pop().unwrap();
            let threads: Vec<_> = senders
                .into_iter()
                .map(|mut sender| {
                    let beds = beds.clone();
                    thread::spawn(move || {
                        sender.push(ShardId(0), 7, 1).unwrap();
                        turn_ends(&mut sender, &beds);
                        sender
                    })
                })
                .collect();
            receive(&mut receiver, &beds, 2);
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }

    #[test]
    fn a_sender_without_room_is_woken_by_the_release() {
        model(4, || {
            let beds = Beds::new(2);
            let mut mesh: Vec<Ports<u32>> = build(2, 1, 100);
            let mut sender = mesh.pop().unwrap();
            let mut receiver = mesh.pop().unwrap();
            let thread = {
                let beds = beds.clone();
                thread::spawn(move || {
                    let mut item = 0;
                    while item < 2 {
                        let refused = sender.push(ShardId(0), item, 1).is_err();
                        item += u32::from(!refused);
                        let waits = if refused {
                            [ShardId(0)].into_iter().collect()
                        } else {
                            ShardSet::EMPTY
                        };
                        sender.await_room(waits);
                        turn_ends(&mut sender, &beds);
                        if refused && sender.announce_sleep() {
                            beds.sleep(sender.shard());
                            sender.awake();
                        }
                    }
                    sender
                })
            };
            receive(&mut receiver, &beds, 2);
            thread.join().unwrap();
        });
    }
}
