//! The driver around a driver: it adds the sessions of Links, whose connections are queues in memory.
//!
//! Their slots begin at [`LINK_SLOTS`]; whatever is about another slot is passed on. A Link needs no system call while
//! the shard is awake: each [`Linked::take`] looks into its queues. Before a sleep it does so after the sleep was
//! announced, so whoever comes later rings, and the waker of the inner driver ends the wait.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::address::{LINK_SLOTS, SessionId, ShardId};
use crate::limits::{HTTP_WAITING_MAX, TURN_BYTES_MAX};
use crate::shard::outbox::Chunks;
use crate::shard::{Ending, Now};

use super::links::{HttpConnection, ShardEnd};
use super::{Buffer, Driver, Sending, Taken};

/// Where buffers of Links begin: at a number that no place in another driver's memory has.
const BUFFERS: usize = 1 << (usize::BITS - 1);

/// A driver, and Links beside its connections.
pub struct Linked<D> {
    driver: D,
    slots: Vec<Slot>,
    /// Those of nobody.
    free: Vec<usize>,
    /// How many Links there are.
    count: usize,
    /// What one turn takes at most of one Link, as of one connection.
    turn_bytes_max: usize,
    /// The slot that this turn looks at first: another each time, since a turn takes so much in all.
    first: usize,
    /// What this turn took: of which slot, from where to where in its calls.
    buffers: Vec<(usize, Range<usize>)>,
}

struct Slot {
    generation: u32,
    link: Option<Link>,
}

struct Link {
    end: ShardEnd,
    /// Calls that were taken from the end,
    calls: Vec<u8>,
    /// and how much of them the shard has got.
    given: usize,
    /// What is left of the send under way, in reverse order.
    sending: Chunks,
    /// Connections for the host that found no room.
    waiting: VecDeque<Box<HttpConnection>>,
    is_reading: bool,
    /// Its end has been told.
    is_ended: bool,
}

impl Link {
    fn has_unread(&self) -> bool {
        self.given < self.calls.len() || self.end.has_calls()
    }

    /// Does something wait for room?
    fn is_stuck(&self) -> bool {
        !self.sending.is_empty() || !self.waiting.is_empty()
    }

    /// Has it ended, with nothing left to be read before that is told?
    fn is_over(&self) -> bool {
        self.end.is_closed() || self.end.is_host_gone() && !self.has_unread()
    }

    /// Would a turn find something?
    fn has_news(&self) -> bool {
        self.is_reading && self.has_unread()
            || self.is_stuck() && (self.end.has_more_room() || self.end.is_host_gone())
            || !self.is_ended && self.is_over()
    }

    /// Goes on with the send under way; true if that is done.
    fn send(&mut self) -> bool {
        if self.end.is_host_gone() || self.end.is_closed() {
            // Nobody will read it; but what the host said before it went counts, with all that is answered.
            self.sending.clear();
            self.waiting.clear();
        }
        self.send_connections();
        self.end.send(&mut self.sending)
    }
}

impl Link {
    fn send_connections(&mut self) {
        while let Some(connection) = self.waiting.pop_front() {
            if let Err(connection) = self.end.send_connection(connection) {
                self.waiting.push_front(connection);
                return;
            }
        }
    }
}

impl<D> Linked<D> {
    /// Around this driver. A turn takes at most `turn_bytes_max` of one Link.
    pub fn new(driver: D, turn_bytes_max: usize) -> Linked<D> {
        Linked {
            driver,
            slots: Vec::new(),
            free: Vec::new(),
            count: 0,
            turn_bytes_max: turn_bytes_max.min(TURN_BYTES_MAX),
            first: 0,
            buffers: Vec::new(),
        }
    }

    fn find(&mut self, session: SessionId) -> Option<&mut Link> {
        let index = session.slot.checked_sub(LINK_SLOTS)? as usize;
        let slot = self.slots.get_mut(index)?;
        let is_same = slot.generation == session.generation;
        slot.link.as_mut().filter(|_| is_same)
    }

    fn has_news(&self) -> bool {
        self.links().any(Link::has_news)
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        self.slots.iter().filter_map(|slot| slot.link.as_ref())
    }

    /// Sends that wait for room, as far as it goes.
    fn settle_links<S>(&mut self, sent: &mut Vec<Taken<S>>) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let session = session(index, slot.generation);
            if let Some(link) = &mut slot.link
                && link.is_stuck()
            {
                let is_sending = !link.sending.is_empty();
                if link.send() && is_sending {
                    sent.push(Taken::Sent { session });
                }
            }
        }
    }

    fn take_links<S>(&mut self, taken: &mut Vec<Taken<S>>) {
        self.settle_links(taken);
        let count = self.slots.len();
        self.first = (self.first + 1) % count.max(1);
        let mut bytes_left = TURN_BYTES_MAX;
        for index in (self.first..count).chain(0..self.first) {
            let slot = &mut self.slots[index];
            let session = session(index, slot.generation);
            let Some(link) = &mut slot.link else {
                continue;
            };
            if link.is_reading {
                if link.given == link.calls.len() {
                    link.calls.clear();
                    link.given = 0;
                    link.end.take(&mut link.calls);
                }
                let size = (link.calls.len() - link.given)
                    .min(self.turn_bytes_max)
                    .min(bytes_left);
                if size > 0 {
                    let buffer = Buffer {
                        start: BUFFERS + self.buffers.len(),
                        size,
                    };
                    self.buffers.push((index, link.given..link.given + size));
                    link.given += size;
                    bytes_left -= size;
                    taken.push(Taken::Received { session, buffer });
                }
            }
            if !link.is_ended && link.is_over() {
                link.is_ended = true;
                let ending = Ending::EndOfInput;
                taken.push(Taken::Ended { session, ending });
            }
        }
    }
}

fn session(index: usize, generation: u32) -> SessionId {
    SessionId {
        slot: LINK_SLOTS + index as u32, // as many as there are descriptors, one each
        generation,
    }
}

impl<D: Driver> Driver for Linked<D> {
    type Socket = D::Socket;

    fn take(
        &mut self,
        wait: Option<Duration>,
        taken: &mut Vec<Taken<D::Socket>>,
    ) -> io::Result<()> {
        self.buffers.clear();
        if self.count == 0 {
            return self.driver.take(wait, taken);
        }
        let is_waiting = wait != Some(Duration::ZERO);
        let wait = if is_waiting && self.has_news() {
            Some(Duration::ZERO)
        } else {
            wait
        };
        self.driver.take(wait, taken)?;
        self.take_links(taken);
        Ok(())
    }

    fn bytes(&mut self, buffer: Buffer) -> &mut [u8] {
        if buffer.start < BUFFERS {
            return self.driver.bytes(buffer);
        }
        let (index, range) = self.buffers[buffer.start - BUFFERS].clone();
        match &mut self.slots[index].link {
            Some(link) => &mut link.calls[range],
            None => &mut [],
        }
    }

    fn send(&mut self, session: SessionId, mut chunks: Chunks) -> Sending {
        if session.slot < LINK_SLOTS {
            return self.driver.send(session, chunks);
        }
        let Some(link) = self.find(session) else {
            return Sending::Failed;
        };
        debug_assert!(
            link.sending.is_empty(),
            "at most one send is under way per session"
        );
        chunks.reverse();
        link.sending = chunks;
        if link.send() {
            Sending::Done
        } else {
            Sending::Pending
        }
    }

    fn settle(&mut self, sent: &mut Vec<Taken<D::Socket>>) -> io::Result<()> {
        self.settle_links(sent);
        self.driver.settle(sent)
    }

    fn submit(&mut self) -> io::Result<()> {
        self.driver.submit()
    }

    fn set_reading(&mut self, session: SessionId, reading: bool) {
        if session.slot < LINK_SLOTS {
            self.driver.set_reading(session, reading);
        } else if let Some(link) = self.find(session) {
            link.is_reading = reading;
        }
    }

    fn shutdown_write(&mut self, session: SessionId) {
        if session.slot < LINK_SLOTS {
            self.driver.shutdown_write(session);
        } else if let Some(link) = self.find(session) {
            // There is no reset that could overtake the last words, so nothing is waited for.
            link.end.close();
        }
    }

    fn close(&mut self, session: SessionId, reset: bool) {
        if session.slot < LINK_SLOTS {
            self.driver.close(session, reset);
        } else if self.find(session).is_some() {
            let index = (session.slot - LINK_SLOTS) as usize;
            let slot = &mut self.slots[index];
            slot.link = None;
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(index);
            self.count -= 1;
        }
    }

    fn detach(&mut self, session: SessionId, to: ShardId) {
        debug_assert!(session.slot < LINK_SLOTS, "a Link is not dealt");
        self.driver.detach(session, to);
    }

    fn release(&mut self, session: SessionId) {
        debug_assert!(session.slot < LINK_SLOTS, "a Link has no descriptor");
        self.driver.release(session);
    }

    fn adopt(&mut self, number: u32, socket: OwnedFd) {
        self.driver.adopt(number, socket);
    }

    fn attach(&mut self, socket: D::Socket) -> Option<SessionId> {
        self.driver.attach(socket)
    }

    fn attach_link(&mut self, end: ShardEnd) -> Option<SessionId> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                link: None,
            });
            self.slots.len() - 1
        });
        let slot = &mut self.slots[index];
        slot.link = Some(Link {
            end,
            calls: Vec::new(),
            given: 0,
            sending: Chunks::new(),
            waiting: VecDeque::new(),
            is_reading: true,
            is_ended: false,
        });
        self.count += 1;
        Some(session(index, slot.generation))
    }

    fn give(&mut self, link: SessionId, connection: Box<HttpConnection>) -> bool {
        let Some(link) = self.find(link).filter(|link| !link.is_over()) else {
            return false;
        };
        if link.waiting.len() >= HTTP_WAITING_MAX {
            return false;
        }
        link.waiting.push_back(connection);
        link.send_connections();
        true
    }

    fn stop_accepting(&mut self) {
        self.driver.stop_accepting();
    }

    fn wake(&mut self, shard: ShardId) {
        self.driver.wake(shard);
    }

    fn overflows(&self) -> u64 {
        self.driver.overflows()
    }

    fn now(&self) -> Now {
        self.driver.now()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::limits::LINK_BYTES_MAX;
    use crate::mesh::Bell;

    use super::super::links::{CallError, Door, HostEnd, Item};
    use super::super::waker::Waker;
    use super::*;

    /// A driver without connections, which remembers how long it was to wait.
    #[derive(Default)]
    struct Inner {
        wait: Option<Duration>,
    }

    impl Driver for Inner {
        type Socket = ();

        fn take(&mut self, wait: Option<Duration>, _: &mut Vec<Taken<()>>) -> io::Result<()> {
            self.wait = wait;
            Ok(())
        }

        fn bytes(&mut self, _: Buffer) -> &mut [u8] {
            &mut []
        }

        fn send(&mut self, _: SessionId, _: Chunks) -> Sending {
            Sending::Failed
        }

        fn submit(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn set_reading(&mut self, _: SessionId, _: bool) {}

        fn shutdown_write(&mut self, _: SessionId) {}

        fn close(&mut self, _: SessionId, _: bool) {}

        fn detach(&mut self, _: SessionId, _: ShardId) {}

        fn release(&mut self, _: SessionId) {}

        fn adopt(&mut self, _: u32, _: OwnedFd) {}

        fn attach(&mut self, (): ()) -> Option<SessionId> {
            None
        }

        fn stop_accepting(&mut self) {}

        fn wake(&mut self, _: ShardId) {}

        fn now(&self) -> Now {
            Now { ms: 0, unix_ms: 0 }
        }
    }

    const TURN_BYTES: usize = 10;

    struct Linking {
        driver: Linked<Inner>,
        door: Door,
    }

    /// What a turn took, of whom.
    #[derive(PartialEq, Eq, Debug)]
    enum Took {
        Bytes(SessionId, String),
        Sent(SessionId),
        Ended(SessionId),
    }

    impl Linking {
        fn new() -> Linking {
            Linking {
                driver: Linked::new(Inner::default(), TURN_BYTES),
                door: Door {
                    bell: Bell::default(),
                    waker: Waker::new().expect("a descriptor"),
                },
            }
        }

        fn open(&mut self) -> (HostEnd, SessionId) {
            let (host, end) = self.door.link().expect("a descriptor");
            (host, self.driver.attach_link(end).expect("a slot"))
        }

        /// A turn that would wait for ever; and whether it would have slept.
        fn take(&mut self) -> (Vec<Took>, bool) {
            let mut taken = Vec::new();
            self.driver.take(None, &mut taken).expect("it never fails");
            let took = taken.into_iter().map(|taken| match taken {
                Taken::Received { session, buffer } => {
                    let bytes = self.driver.bytes(buffer);
                    assert_eq!(bytes.len(), buffer.size);
                    Took::Bytes(session, String::from_utf8_lossy(bytes).into_owned())
                }
                Taken::Sent { session } => Took::Sent(session),
                Taken::Ended { session, ending } => {
                    assert_eq!(ending, Ending::EndOfInput);
                    Took::Ended(session)
                }
                taken => panic!("{taken:?}"),
            });
            let took = took.collect();
            (took, self.driver.driver.wait.is_none())
        }
    }

    fn call(host: &HostEnd, text: &str) {
        host.call(|calls| calls.extend_from_slice(text.as_bytes()))
            .expect("there is room");
    }

    fn bytes(session: SessionId, text: &str) -> Took {
        Took::Bytes(session, text.to_owned())
    }

    fn chunks(parts: &[&'static [u8]]) -> Chunks {
        parts.iter().map(|part| Bytes::from_static(part)).collect()
    }

    fn read(host: &HostEnd) -> String {
        let items = std::iter::from_fn(|| host.next());
        let texts = items.map(|item| match item {
            Item::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Item::Socket(_) => panic!("no socket was sent"),
        });
        texts.collect()
    }

    #[test]
    fn a_turn_takes_so_much_of_each_and_none_waits_with_calls() {
        let mut linking = Linking::new();
        assert_eq!(linking.take(), (vec![], true));
        let (one, first) = linking.open();
        let (two, second) = linking.open();
        assert_eq!(linking.take(), (vec![], true));
        call(&one, "0123456789abcde");
        call(&two, "x");
        let (mut took, slept) = linking.take();
        took.sort_by_key(|took| took != &bytes(first, "0123456789"));
        assert_eq!(
            took,
            [bytes(first, "0123456789"), bytes(second, "x")],
            "a share of the one, all of the other"
        );
        assert!(!slept);
        call(&one, "f");
        assert_eq!(linking.take(), (vec![bytes(first, "abcde")], false));
        assert_eq!(linking.take(), (vec![bytes(first, "f")], false));
        assert_eq!(linking.take(), (vec![], true));
    }

    #[test]
    fn who_is_not_read_waits_and_keeps_nobody_awake() {
        let mut linking = Linking::new();
        let (host, session) = linking.open();
        call(&host, "0123456789abc");
        assert_eq!(linking.take().0, [bytes(session, "0123456789")]);
        linking.driver.set_reading(session, false);
        call(&host, "d");
        drop(host);
        assert_eq!(linking.take(), (vec![], true), "its end waits, too");
        linking.driver.set_reading(session, true);
        assert_eq!(linking.take(), (vec![bytes(session, "abc")], false));
        let took = vec![bytes(session, "d"), Took::Ended(session)];
        assert_eq!(linking.take(), (took, false));
        assert_eq!(linking.take(), (vec![], true), "told once");
    }

    #[test]
    fn a_send_waits_for_room_and_is_then_done() {
        let mut linking = Linking::new();
        let (host, session) = linking.open();
        let send = |linking: &mut Linking, chunks| linking.driver.send(session, chunks);
        assert_eq!(send(&mut linking, chunks(&[b"a", b"b"])), Sending::Done);
        assert_eq!(read(&host), "ab");
        let large = Bytes::from(vec![b'x'; LINK_BYTES_MAX + 1]);
        let two = [large.clone(), Bytes::from_static(b"c"), large];
        let sending = send(&mut linking, two.into_iter().collect());
        assert_eq!(sending, Sending::Pending);
        assert_eq!(linking.take(), (vec![], true));
        assert_eq!(read(&host).len(), LINK_BYTES_MAX + 1);
        assert_eq!(linking.take(), (vec![], false), "one byte makes it wait");
        assert_eq!(read(&host), "c");
        let mut sent = Vec::new();
        linking.driver.settle(&mut sent).expect("it never fails");
        assert!(matches!(sent[..], [Taken::Sent { session: done }] if done == session));
        assert_eq!(read(&host).len(), LINK_BYTES_MAX + 1);
        assert_eq!(linking.take(), (vec![], true));
    }

    #[test]
    fn a_host_that_goes_lets_all_sends_be_done() {
        let mut linking = Linking::new();
        let (host, session) = linking.open();
        let large = || Chunks::from_iter([Bytes::from(vec![0; LINK_BYTES_MAX]), Bytes::from("x")]);
        assert_eq!(linking.driver.send(session, large()), Sending::Pending);
        drop(host);
        let (took, slept) = linking.take();
        assert_eq!(took, [Took::Sent(session), Took::Ended(session)]);
        assert!(!slept);
        assert_eq!(linking.driver.send(session, large()), Sending::Done);
    }

    #[test]
    fn last_words_are_read_behind_the_end_and_a_slot_is_used_again() {
        let mut linking = Linking::new();
        let (host, session) = linking.open();
        linking.driver.send(session, chunks(&[b"bye"]));
        linking.driver.shutdown_write(session);
        assert!(!host.is_closed());
        assert_eq!(linking.take(), (vec![Took::Ended(session)], false));
        linking.driver.close(session, false);
        assert_eq!(linking.take(), (vec![], true));
        assert_eq!(host.call(|_| ()), Err(CallError::Closed));
        assert_eq!(read(&host), "bye");
        assert!(host.is_closed());

        let (_host, other) = linking.open();
        assert_eq!((other.slot, other.generation), (session.slot, 1));
        linking.driver.close(session, true);
        assert_eq!(
            linking.driver.send(session, chunks(&[b"x"])),
            Sending::Failed
        );
        assert_eq!(linking.driver.send(other, chunks(&[b"x"])), Sending::Done);
    }

    #[test]
    fn a_flood_over_many_links_is_taken_in_turns() {
        let mut linking = Linking::new();
        linking.driver.turn_bytes_max = TURN_BYTES_MAX;
        let links: Vec<_> = (0..3).map(|_| linking.open()).collect();
        for (host, _) in &links {
            call(host, &"x".repeat(TURN_BYTES_MAX));
        }
        let mut seen = Vec::new();
        for _ in 0..3 {
            let (took, _) = linking.take();
            assert_eq!(took.len(), 1);
            seen.extend(took.into_iter().map(|took| match took {
                Took::Bytes(session, _) => session,
                took => panic!("{took:?}"),
            }));
        }
        seen.sort_unstable();
        let all: Vec<_> = links.iter().map(|(_, session)| *session).collect();
        assert_eq!(seen, all);
    }
}
