//! The calls of a remote Link between its host and its connections: which wait, which were sent and wait for an answer,
//! and which stand, to be said again over the next connection.
//!
//! Pure: bytes and time in, bytes out. Invariants: a call that was handed to a connection is never handed to another,
//! unless it *stands* (to subscribe, handle, watch, accept: saying it twice is saying it once). Every ticket is answered
//! once: by the broker, or here when its time is over or its connection gone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hashbrown::HashMap;

use super::super::frames::{SIZE_BYTES, whole};
use super::standing::{Key, Standing, Stands, is, standing, ticket_of, time_of, write_standing};
use crate::error::Code;
use crate::limits::SEND_BYTES_MAX;
use crate::message::Payload;
use crate::protocol::peer::call::{Call, write_call};
use crate::protocol::peer::event::{encode, encode_log};
use crate::protocol::peer::{CallType, PeerEvent, Watch, ticket_tag};
use crate::protocol::{Event, Outcome};

/// Tickets from here on are the carrier's own; the host never hears of them.
const OWN_TICKETS: u64 = 1 << 63;
/// What a call that waits for an answer is charged, beside its bytes until they are sent.
const WAITING_BYTES: usize = 64;
/// The broker's word on a request that it has is waited for so much longer than its time.
const GRACE: Duration = Duration::from_secs(1);
/// Calls whose time is over are taken out of the queue when they are so many bytes, and half of it.
const DEAD_BYTES_MIN: usize = 64 * 1024;

/// The calls of a Link.
#[derive(Debug, Default)]
pub struct Calls {
    /// Whole frames; those before `head` have been handed to a connection.
    queue: Vec<u8>,
    head: usize,
    /// Of these, requests whose time is over.
    dead_bytes: usize,
    waiting: HashMap<u64, Waiting>,
    deadlines: BTreeSet<(Instant, u64)>,
    standing: Standing,
    own_tickets: u64,
    is_ending: bool,
    is_over: bool,
}

/// A call that waits for its answer.
#[derive(Debug)]
struct Waiting {
    what: What,
    size: usize,
    is_sent: bool,
    deadline: Option<Instant>,
}

#[derive(Clone, Debug)]
enum What {
    Request,
    /// It is said again as long as it stands.
    Standing(Key),
    Once,
}

/// What is to be done with an answer of the broker's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// The host is to know.
    Pass,
    /// The host does not know the ticket, or has been answered.
    Swallow,
}

impl Calls {
    /// Where the host's calls are appended; [`Calls::taken`] is to be told.
    pub fn queue(&mut self) -> &mut Vec<u8> {
        if self.head == self.queue.len() {
            self.queue.clear();
            self.head = 0;
        } else if self.head > self.queue.len() / 2 {
            self.queue.drain(..self.head);
            self.head = 0;
        }
        &mut self.queue
    }

    /// The last `size` bytes of the queue are new.
    pub fn taken(&mut self, size: usize, now: Instant) {
        let mut at = self.queue.len() - size;
        while let Some(size) = frame_size(&self.queue[at..]) {
            let frame = &self.queue[at + SIZE_BYTES..at + size];
            self.is_ending |= is(frame, CallType::Bye);
            let ticket = ticket_of(frame);
            if ticket != 0 {
                let time = time_of(frame);
                let what = match (time, standing(frame)) {
                    (Some(_), _) => What::Request,
                    (None, Some((key, _))) => What::Standing(key),
                    (None, None) => What::Once,
                };
                let deadline = time.map(|time| now + time);
                if let Some(deadline) = deadline {
                    self.deadlines.insert((deadline, ticket));
                }
                let waiting = Waiting {
                    what,
                    size,
                    is_sent: false,
                    deadline,
                };
                self.waiting.insert(ticket, waiting);
            }
            at += size;
        }
    }

    /// What all of it is charged, in bytes.
    pub fn charged(&self) -> usize {
        self.queue.len() - self.head + self.waiting.len() * WAITING_BYTES
    }

    /// Has the host said that it leaves?
    pub fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// Has the last call been handed out?
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Hands calls out, to be sent: some 64 KiB of them, or one.
    pub fn hand_out(&mut self, out: &mut Vec<u8>) {
        let before = out.len();
        while !self.is_over
            && out.len() - before < SEND_BYTES_MAX
            && let Some(size) = frame_size(&self.queue[self.head..])
        {
            let at = self.head;
            self.head += size;
            let frame = &self.queue[at + SIZE_BYTES..at + size];
            let ticket = ticket_of(frame);
            match self.waiting.get_mut(&ticket) {
                Some(waiting) => waiting.is_sent = true,
                // Its time is over.
                None if ticket != 0 => {
                    self.dead_bytes = self.dead_bytes.saturating_sub(size);
                    continue;
                }
                None => {}
            }
            self.is_over = is(frame, CallType::Bye);
            if let Some((key, stands)) = standing(frame) {
                match stands {
                    Some(stands) => drop(self.standing.insert(key, (stands, ticket))),
                    None => drop(self.standing.remove(&key)),
                }
            }
            out.extend_from_slice(&self.queue[at..at + size]);
        }
    }

    /// A connection is in: writes what stands to `out`, and answers to the host for what needs no saying any more.
    pub fn say_again(&mut self, out: &mut Vec<u8>, told: &mut Vec<u8>) {
        let mut said = Vec::new();
        for (key, (stands, ticket)) in &mut self.standing {
            if !self.waiting.contains_key(ticket) {
                self.own_tickets += 1;
                *ticket = OWN_TICKETS | self.own_tickets;
            }
            said.push(*ticket);
            write_standing(key, stands, *ticket, out);
        }
        said.sort_unstable();
        // What was sent over an earlier connection, and taken back or said again since.
        let superseded = |ticket: &u64, waiting: &mut Waiting| {
            waiting.is_sent
                && matches!(waiting.what, What::Standing(_))
                && said.binary_search(ticket).is_err()
        };
        let mut tickets: Vec<u64> = self
            .waiting
            .extract_if(superseded)
            .map(|(ticket, _)| ticket)
            .collect();
        tickets.sort_unstable();
        for ticket in tickets {
            tell(ticket, &Outcome::Data(Payload::binary(Bytes::new())), told);
        }
    }

    /// Writes a call that changes nothing and is answered: a question whether the broker is there.
    pub fn ask(&mut self, out: &mut Vec<u8>) {
        self.own_tickets += 1;
        let ticket = OWN_TICKETS | self.own_tickets;
        match self.standing.get(&Key::Watch) {
            Some((stands, _)) => write_standing(&Key::Watch, stands, ticket, out),
            None => {
                let mask = Watch::default();
                write_call(&Call::Watch { ticket, mask }, out);
            }
        }
    }

    /// The connection is gone. Writes answers for what was on its way and will not be said again.
    pub fn lost(&mut self, told: &mut Vec<u8>) {
        let is_lost = |_: &u64, waiting: &mut Waiting| {
            waiting.is_sent && !matches!(waiting.what, What::Standing(_))
        };
        let mut lost: Vec<_> = self.waiting.extract_if(is_lost).collect();
        lost.sort_unstable_by_key(|(ticket, _)| *ticket);
        for (ticket, waiting) in lost {
            if let Some(deadline) = waiting.deadline {
                self.deadlines.remove(&(deadline, ticket));
            }
            let reason = "the connection broke before the answer; it may have taken effect";
            tell(ticket, &Outcome::refused(Code::Timeout, reason), told);
        }
    }

    /// The broker has answered.
    pub fn heard(
        &mut self,
        ticket: u64,
        answer: Result<&[u8], &[u8]>,
        told: &mut Vec<u8>,
    ) -> Heard {
        if ticket >= OWN_TICKETS {
            if let Err(reason) = answer {
                let reason = String::from_utf8_lossy(reason);
                let text = format!("what held before the connection broke was refused: {reason}");
                encode_log(2, &text, told);
                self.standing.retain(|_, (_, of)| *of != ticket);
            }
            return Heard::Swallow;
        }
        let Some(waiting) = self.waiting.remove(&ticket) else {
            return Heard::Swallow;
        };
        if let Some(deadline) = waiting.deadline {
            self.deadlines.remove(&(deadline, ticket));
        }
        if let What::Standing(key) = waiting.what
            && let Some((stands, of)) = self.standing.get_mut(&key)
            && *of == ticket
        {
            match (stands, answer) {
                (Stands::Rejected, _) | (_, Err(_)) => drop(self.standing.remove(&key)),
                (Stands::Accepted(id), Ok(made)) => *id = Bytes::copy_from_slice(made),
                (Stands::As(..), Ok(_)) => {}
            }
        }
        Heard::Pass
    }

    /// When the time of a request is over next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Writes answers for requests whose time is over.
    pub fn expire(&mut self, now: Instant, told: &mut Vec<u8>) {
        while let Some(&(deadline, ticket)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            let Some(waiting) = self.waiting.get_mut(&ticket) else {
                continue;
            };
            if waiting.is_sent && matches!(waiting.what, What::Request) {
                // The broker has it, and the last word unless it takes too long.
                let late = deadline + GRACE;
                self.deadlines.insert((late, ticket));
                waiting.deadline = Some(late);
                waiting.what = What::Once;
                continue;
            }
            if !waiting.is_sent {
                self.dead_bytes += waiting.size;
            }
            self.waiting.remove(&ticket);
            let reason = "no answer in time";
            tell(ticket, &Outcome::refused(Code::Timeout, reason), told);
        }
        if self.dead_bytes >= DEAD_BYTES_MIN
            && self.dead_bytes >= (self.queue.len() - self.head) / 2
        {
            self.bury();
        }
    }

    /// Takes those out of the queue whose time is over.
    fn bury(&mut self) {
        let mut alive = Vec::with_capacity(self.queue.len() - self.head - self.dead_bytes);
        let mut at = self.head;
        while let Some(size) = frame_size(&self.queue[at..]) {
            let ticket = ticket_of(&self.queue[at + SIZE_BYTES..]);
            if ticket == 0 || self.waiting.contains_key(&ticket) {
                alive.extend_from_slice(&self.queue[at..at + size]);
            }
            at += size;
        }
        (self.queue, self.head, self.dead_bytes) = (alive, 0, 0);
    }
}

/// The size of the frame that `bytes` begin with. The host's end writes whole frames, one after the other.
fn frame_size(bytes: &[u8]) -> Option<usize> {
    let size = whole(bytes).expect("a call is a frame")?;
    debug_assert!(size <= bytes.len(), "a call is a whole frame");
    Some(size)
}

/// Writes the answer to a call, as the broker would.
fn tell(ticket: u64, outcome: &Outcome, told: &mut Vec<u8>) {
    let tag = ticket_tag(ticket).expect("a call that waits has a ticket");
    let done = PeerEvent::Done { tag: &tag, outcome };
    encode(&Event::Peer(&done), told);
}

#[cfg(test)]
mod tests;
