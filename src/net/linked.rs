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
