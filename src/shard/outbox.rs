//! The outbox of one session: everything that waits to be sent to it, every byte charged.
//!
//! What it holds, in order:
//! - `tail`: the response to the handshake, or the rest of a frame of which a part is already on its way; it can't be
//!   dropped any more;
//! - `parts`: whole frames. A part of the *turn's log* is a range of bytes that all subscribers of a group share;
//!   ranges that touch are one part, so the common subscriber has one part a turn. Such parts live for one turn
//!   only: at its end they are sent, or become slices of the frozen log;
//! - `gaps`: what was skipped, to be told before the next part.
//!
//! What waits behind a send in flight, or may be dropped by policy, is held frame by frame, so a slow reader
//! pins no more than what it is charged for.
//!
//! Invariants: `charged = tail + parts + gaps + in flight`; an empty outbox takes one whole message of any size;
//! at most one send is in flight; no part refers to a log after the turn's end.

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use slab::Slab;
use smallvec::SmallVec;

use crate::limits::{OUTBOX_ENTRY_BYTES, SEND_BYTES_MAX};
use crate::topic::tree::FilterId;

use super::log::{LogRange, TurnLogs};

use parts::{Droppable, Part, Parts};

mod parts;

/// The frames of one send.
pub type Chunks = SmallVec<[Bytes; 1]>;

/// Encoded deliveries that follow each other, for the sessions that queue them.
pub struct Run<'a> {
    /// Their frames in this turn's log.
    pub range: LogRange,
    /// How many they are.
    pub deliveries: u32,
    /// The same bytes by themselves, made when the first slow reader wants them.
    pub frames: &'a mut dyn FnMut() -> Bytes,
}

/// One encoded delivery of a topic whose slow readers miss some, for the session that queues it.
pub struct Delivery<'a> {
    /// The frame by itself, made when the first session wants it.
    pub frame: &'a mut dyn FnMut() -> Bytes,
    /// Frame size in bytes.
    pub size: usize,
    /// The filter that matched.
    pub filter: FilterId,
    /// The topic it was published to.
    pub topic: &'a Bytes,
}

/// The newest delivery of one topic and filter.
#[derive(Debug)]
struct Conflated {
    bytes: Bytes,
    filter: FilterId,
    topic: Bytes,
}

/// What only a reader of skippable topics needs.
#[derive(Debug, Default)]
struct SlowState {
    /// Skipped deliveries by topic that have not been told.
    gaps: HashMap<Bytes, u64>,
    /// The charge of waiting deliveries that drop-oldest may drop.
    droppable: usize,
    values: Slab<Conflated>,
    /// The key of the waiting delivery of a topic and filter.
    newest: HashMap<(FilterId, Bytes), usize>,
}

/// What must go next: it was put before everything else, or is the rest of something that has begun.
#[derive(Debug)]
struct Tail {
    bytes: Bytes,
    /// Deliveries that are done only when this is.
    deliveries: u32,
    /// Is it of answers?
    replies: bool,
}

/// What is on its way: one send, so 32 bits are enough for its sums.
#[derive(Clone, Copy, Debug, Default)]
struct InFlight {
    bytes: u32,
    charged: u32,
    deliveries: u32,
    reply_bytes: u32,
}

/// The outbox. Small while nothing waits, since most sessions wait for something most of the time.
#[derive(Debug, Default)]
pub struct Outbox {
    parts: Parts,
    tail: Option<Box<Tail>>,
    slow: Option<Box<SlowState>>,
    in_flight: Option<InFlight>,
    /// Charge of everything, in flight included.
    charged: usize,
    /// Of these, unread answers.
    reply_bytes: usize,
    /// Deliveries in `parts`. Each is charged more than a byte, and nobody has as many.
    deliveries: u32,
}

/// Did it fit?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Queued {
    /// It waits, or something older was skipped for it: that many deliveries.
    Yes { skipped: u64 },
    /// The bound is reached and nothing may be skipped.
    Full,
}

impl Outbox {
    /// Everything that waits or is in flight, in charged bytes.
    pub fn charged(&self) -> usize {
        self.charged
    }

    /// Unread answers, in bytes.
    pub fn reply_bytes(&self) -> usize {
        self.reply_bytes
    }

    /// Deliveries that are neither done nor given up.
    pub fn deliveries(&self) -> u64 {
        let tail = self.tail.as_ref().map_or(0, |tail| tail.deliveries);
        let in_flight = self.in_flight.map_or(0, |flight| flight.deliveries);
        u64::from(self.deliveries) + u64::from(tail) + u64::from(in_flight)
    }

    /// Does nothing wait, and is nothing in flight?
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_none() && !self.has_waiting()
    }

    /// Is a send under way?
    pub fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Does anything wait behind what is in flight?
    pub fn has_waiting(&self) -> bool {
        self.tail.is_some() || !self.parts.is_empty() || self.has_gaps()
    }

    fn fits(&self, size: usize, bytes_max: usize) -> bool {
        self.charged == 0 || self.charged + size <= bytes_max
    }

    /// Queues deliveries of topics whose slow readers are closed: all of them, or none.
    pub fn push_run(&mut self, run: &mut Run<'_>, bytes_max: usize) -> Queued {
        let size = run.range.size();
        if self.is_in_flight() {
            let charge = size + OUTBOX_ENTRY_BYTES;
            if !self.fits(charge, bytes_max) {
                return Queued::Full;
            }
            self.charged += charge;
            self.parts.push_back(Part::Frames {
                bytes: (run.frames)(),
                deliveries: run.deliveries,
            });
        } else {
            if !self.fits(size, bytes_max) {
                return Queued::Full;
            }
            self.charged += size;
            if let Some(Part::Log { range, deliveries }) = self.parts.back_mut()
                && range.extend(run.range)
            {
                *deliveries += run.deliveries;
            } else {
                self.parts.push_back(Part::Log {
                    range: run.range,
                    deliveries: run.deliveries,
                });
            }
        }
        self.deliveries += run.deliveries;
        Queued::Yes { skipped: 0 }
    }

    /// Queues a delivery of a drop-oldest topic: the oldest such deliveries make room below the soft bound. Where
    /// they can't, because too much else waits, the new one is skipped itself; only a gap that goes beyond the
    /// hard bound can't be told any more.
    pub fn push_droppable(
        &mut self,
        delivery: &mut Delivery<'_>,
        bytes_soft: usize,
        bytes_max: usize,
    ) -> Queued {
        let charge = delivery.size + OUTBOX_ENTRY_BYTES;
        let mut skipped = 0;
        if !self.fits(charge, bytes_soft) {
            if self.charged - self.droppable() + charge > bytes_soft {
                if !self.fits_gap(delivery.topic, bytes_max) {
                    return Queued::Full;
                }
                self.add_gap(delivery.topic, 1);
                return Queued::Yes { skipped: 1 };
            }
            // A quarter more than needed goes at once, so that a reader at its bound costs one pass over
            // its queue per quarter of it, not one per message.
            skipped = self.skip_oldest((bytes_soft - bytes_soft / 4).saturating_sub(charge));
            if !self.fits(charge, bytes_soft) {
                // What is to be told of the old ones takes the room.
                self.add_gap(delivery.topic, 1);
                return Queued::Yes {
                    skipped: skipped + 1,
                };
            }
        }
        self.charged += charge;
        self.slow.get_or_insert_default().droppable += charge;
        self.deliveries += 1;
        self.parts.push_back(Part::Droppable(Box::new(Droppable {
            bytes: (delivery.frame)(),
            topic: delivery.topic.clone(),
        })));
        Queued::Yes { skipped }
    }

    /// Queues a delivery of a conflated topic. While a send is in flight the reader is behind, and the
    /// delivery of the same topic and filter that still waits is replaced by this one, in its place.
    pub fn push_conflated(&mut self, delivery: &mut Delivery<'_>, bytes_max: usize) -> Queued {
        let charge = delivery.size + OUTBOX_ENTRY_BYTES;
        if self.is_in_flight()
            && let Some(slow) = &mut self.slow
            && let Some(&key) = slow.newest.get(&(delivery.filter, delivery.topic.clone()))
        {
            let value = &mut slow.values[key];
            let growth = delivery.size.saturating_sub(value.bytes.len());
            if growth > 0 && self.charged + growth > bytes_max {
                return Queued::Full;
            }
            self.charged = self.charged - value.bytes.len() + delivery.size;
            value.bytes = (delivery.frame)();
            self.add_gap(delivery.topic, 1);
            return Queued::Yes { skipped: 1 };
        }
        if !self.fits(charge, bytes_max) {
            return Queued::Full;
        }
        let slow = self.slow.get_or_insert_default();
        // By itself: the value is replaced, its topic stays, and must not keep the first message alive.
        let topic = Bytes::copy_from_slice(delivery.topic);
        let key = slow.values.insert(Conflated {
            bytes: (delivery.frame)(),
            filter: delivery.filter,
            topic: topic.clone(),
        });
        slow.newest.insert((delivery.filter, topic), key);
        self.parts.push_back(Part::Conflated { key });
        self.charged += charge;
        self.deliveries += 1;
        Queued::Yes { skipped: 0 }
    }

    /// Deliveries of a topic that did not fit are skipped, and will be told. Full if even that does not fit.
    pub fn skip(&mut self, topic: &Bytes, count: u64, bytes_max: usize) -> Queued {
        if !self.fits_gap(topic, bytes_max) {
            return Queued::Full;
        }
        self.add_gap(topic, count);
        Queued::Yes { skipped: count }
    }

    /// Forgets which delivery of a filter could be replaced: its subscription has ended, and its number may
    /// soon stand for another filter. What waits stays.
    pub fn forget_filter(&mut self, filter: FilterId) {
        if let Some(slow) = &mut self.slow {
            slow.newest.retain(|(of, _), _| *of != filter);
        }
    }

    /// Queues words for this session alone: the header of a frame, and its payload. `replies`: answers to what it
    /// sent itself.
    pub fn push_words(&mut self, words: [&[u8]; 2], replies: bool, bytes_max: usize) -> Queued {
        if !self.fits(words[0].len() + words[1].len(), bytes_max) {
            return Queued::Full;
        }
        self.append_words(words, replies);
        Queued::Yes { skipped: 0 }
    }

    fn append_words(&mut self, words: [&[u8]; 2], replies: bool) {
        let size = words[0].len() + words[1].len();
        self.charged += size;
        if replies {
            self.reply_bytes += size;
        }
        match self.parts.back_mut() {
            Some(Part::Words {
                bytes,
                replies: same,
            }) if *same == replies && bytes.len() < SEND_BYTES_MAX => {
                bytes.reserve(size);
                bytes.extend_from_slice(words[0]);
                bytes.extend_from_slice(words[1]);
            }
            _ => {
                let mut bytes = BytesMut::with_capacity(size);
                bytes.extend_from_slice(words[0]);
                bytes.extend_from_slice(words[1]);
                self.parts.push_back(Part::Words { bytes, replies });
            }
        }
    }

    /// Skips the oldest droppable deliveries until at most `target` bytes are charged.
    fn skip_oldest(&mut self, target: usize) -> u64 {
        let mut skipped = 0;
        let mut gaps: SmallVec<[Bytes; 8]> = SmallVec::new();
        let charged = &mut self.charged;
        let droppable = &mut self.slow.get_or_insert_default().droppable;
        self.parts.retain(|part| match part {
            Part::Droppable(part) if *charged > target => {
                let charge = part.bytes.len() + OUTBOX_ENTRY_BYTES;
                *charged -= charge;
                *droppable -= charge;
                skipped += 1;
                gaps.push(part.topic.clone());
                false
            }
            _ => true,
        });
        self.deliveries -= skipped;
        for topic in gaps {
            self.add_gap(&topic, 1);
        }
        u64::from(skipped)
    }

    fn droppable(&self) -> usize {
        self.slow.as_ref().map_or(0, |slow| slow.droppable)
    }

    fn add_gap(&mut self, topic: &Bytes, count: u64) {
        let slow = self.slow.get_or_insert_default();
        match slow.gaps.get_mut(topic) {
            Some(gap) => *gap += count,
            None => {
                // By itself: a topic as it came is a slice of its message, and would keep all of it.
                slow.gaps.insert(Bytes::copy_from_slice(topic), count);
                self.charged += topic.len() + OUTBOX_ENTRY_BYTES;
            }
        }
    }

    /// Is a gap of this topic known already, or is there room for it?
    fn fits_gap(&self, topic: &Bytes, bytes_max: usize) -> bool {
        let is_known = self
            .slow
            .as_ref()
            .is_some_and(|slow| slow.gaps.contains_key(topic));
        is_known || self.charged + topic.len() + OUTBOX_ENTRY_BYTES <= bytes_max
    }

    /// Are there skipped deliveries to tell about?
    pub fn has_gaps(&self) -> bool {
        self.slow.as_ref().is_some_and(|slow| !slow.gaps.is_empty())
    }

    /// Takes the gaps in the order of their topics, to be written by [`Outbox::put_first`].
    pub fn take_gaps(&mut self) -> Vec<(Bytes, u64)> {
        let Some(slow) = &mut self.slow else {
            return Vec::new();
        };
        let mut gaps: Vec<_> = slow.gaps.drain().collect();
        gaps.sort_unstable();
        for (topic, _) in &gaps {
            self.charged -= topic.len() + OUTBOX_ENTRY_BYTES;
        }
        gaps
    }

    /// Puts words before everything that waits (but the rest of a frame that has begun).
    pub fn put_first(&mut self, words: BytesMut) {
        self.charged += words.len();
        self.parts.push_front(Part::Words {
            bytes: words,
            replies: false,
        });
    }

    /// Puts the words that everything else has to follow into an empty outbox: they are not given up with the rest.
    pub fn put_head(&mut self, words: &[u8]) {
        debug_assert!(self.is_empty(), "nothing is said before the head");
        self.charged += words.len();
        self.tail = Some(Box::new(Tail {
            bytes: Bytes::copy_from_slice(words),
            deliveries: 0,
            replies: false,
        }));
    }

    /// Puts the last words of a session behind everything that waits, whatever the bounds say.
    pub fn push_last(&mut self, words: &[u8]) {
        self.append_words([words, &[]], false);
    }

    /// Gives up every whole frame that waits; says how many deliveries were among them.
    pub fn drop_waiting(&mut self) -> u64 {
        let in_flight = self.in_flight.unwrap_or_default();
        let tail = self.tail.as_ref();
        let tail_replies = tail.filter(|tail| tail.replies);
        self.parts.clear();
        self.slow = None;
        self.charged = in_flight.charged as usize + tail.map_or(0, |tail| tail.bytes.len());
        self.reply_bytes =
            in_flight.reply_bytes as usize + tail_replies.map_or(0, |tail| tail.bytes.len());
        u64::from(std::mem::take(&mut self.deliveries))
    }

    /// The next send, at most [`SEND_BYTES_MAX`] bytes of it, in flight from now on; `None` if nothing waits
    /// or a send is in flight already. Gaps have been taken before.
    pub fn transmit(&mut self, logs: &mut TurnLogs) -> Option<Chunks> {
        if self.is_in_flight() || self.tail.is_none() && self.parts.is_empty() {
            return None;
        }
        let mut chunks = Chunks::new();
        let mut flight = InFlight::default();
        if let Some(tail) = &mut self.tail {
            let bytes = tail.bytes.split_to(tail.bytes.len().min(SEND_BYTES_MAX));
            let size = bytes.len() as u32;
            flight.bytes = size;
            flight.charged = size;
            if tail.replies {
                flight.reply_bytes = size;
            }
            chunks.push(bytes);
            if tail.bytes.is_empty() {
                flight.deliveries = tail.deliveries;
                self.tail = None;
            }
        }
        while (flight.bytes as usize) < SEND_BYTES_MAX
            && self.tail.is_none()
            && let Some(part) = self.parts.pop_front()
        {
            let (mut bytes, deliveries, extra, replies) = self.open(part, logs);
            let room = SEND_BYTES_MAX - flight.bytes as usize;
            if bytes.len() > room {
                // What has begun must be finished: the rest goes first next time.
                self.tail = Some(Box::new(Tail {
                    bytes: bytes.split_off(room),
                    deliveries,
                    replies,
                }));
            } else {
                flight.deliveries += deliveries;
            }
            flight.bytes += bytes.len() as u32;
            flight.charged += (bytes.len() + extra) as u32;
            self.deliveries -= deliveries;
            if replies {
                flight.reply_bytes += bytes.len() as u32;
            }
            chunks.push(bytes);
        }
        self.in_flight = Some(flight);
        Some(chunks)
    }

    /// A part as bytes, deliveries, charge beyond the bytes, and whether they are replies.
    fn open(&mut self, part: Part, logs: &mut TurnLogs) -> (Bytes, u32, usize, bool) {
        match part {
            Part::Log { range, deliveries } => (logs.slice(range), deliveries, 0, false),
            Part::Frames { bytes, deliveries } => (bytes, deliveries, OUTBOX_ENTRY_BYTES, false),
            Part::Droppable(part) => {
                let charge = part.bytes.len() + OUTBOX_ENTRY_BYTES;
                self.slow.get_or_insert_default().droppable -= charge;
                (part.bytes, 1, OUTBOX_ENTRY_BYTES, false)
            }
            Part::Conflated { key } => {
                let slow = self
                    .slow
                    .as_mut()
                    .expect("a conflated part keeps its value in the slow state");
                let value = slow.values.remove(key);
                let of = (value.filter, value.topic);
                if slow.newest.get(&of) == Some(&key) {
                    slow.newest.remove(&of);
                }
                (value.bytes, 1, OUTBOX_ENTRY_BYTES, false)
            }
            Part::Words { bytes, replies } => (bytes.freeze(), 0, 0, replies),
        }
    }

    /// The turn ends: what still refers to its log becomes slices of it.
    pub fn settle(&mut self, logs: &mut TurnLogs) {
        for part in self.parts.iter_mut() {
            if let Part::Log { range, deliveries } = part {
                let (range, deliveries) = (*range, *deliveries);
                self.charged += OUTBOX_ENTRY_BYTES;
                *part = Part::Frames {
                    bytes: logs.slice(range),
                    deliveries,
                };
            }
        }
    }

    /// The send in flight is done: how many bytes and deliveries that were.
    pub fn sent(&mut self) -> (usize, u64) {
        let Some(flight) = self.in_flight.take() else {
            return (0, 0);
        };
        self.charged -= flight.charged as usize;
        self.reply_bytes -= flight.reply_bytes as usize;
        if self.parts.is_empty() {
            self.parts.shrink();
            self.slow = self.slow.take().filter(|slow| !slow.gaps.is_empty());
        }
        (flight.bytes as usize, u64::from(flight.deliveries))
    }
}

#[cfg(test)]
mod tests;
