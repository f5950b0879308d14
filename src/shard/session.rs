//! A session: what a shard knows of one connection, from accept to its end.
//!
//! Its life goes one way: *handshake* (bytes are collected until a request head is complete) → *admission* (the
//! host is asked, where there is one that wants to be) → *open* (messages in, deliveries out) → *closing* (the
//! last words are on their way) → *discarding* (nothing more to say; input is thrown away so that closing does not
//! reset the connection and with it the last words). It leaves the table when the driver is told to close.
//!
//! While it is open it is either *flowing* or *stalled*: a command that can't take effect yet (an interest edge or
//! a ring without room) waits in `stall` with all bytes behind it, and reading pauses. So the order of a
//! connection's commands is never in doubt, and what a stalled connection holds is what one turn took from it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};

use crate::address::SessionId;
use crate::limits::Limits;
use crate::protocol::{Command, Encoding, Refusal, Tag};
use crate::topic::Filter;
use crate::topic::tree::FilterId;
use crate::ws::fragment::Reader;

use super::outbox::Outbox;

/// Where a session is in its life.
#[derive(Debug)]
pub enum State {
    /// The request head is not complete. `dealt`: its shard has been chosen.
    Handshake { head: Vec<u8>, dealt: bool },
    /// The host is asked; the 101 response waits here, and bytes behind the head in `stall`.
    Admission { response: Vec<u8> },
    /// Messages flow.
    Open,
    /// The last words are in the outbox; reset when they are not out in time.
    Closing { since_ms: u64 },
    /// Everything is out, writing is shut down.
    Discarding { since_ms: u64 },
}

/// What waits in its place.
#[derive(Debug)]
pub enum Held {
    /// A command that can't take effect yet.
    Command(Box<Command>),
    /// The answer to a command that was refused; it must not overtake the acks of those before it.
    Refusal(Box<Refusal>),
}

/// A command that waits, and what came behind it.
#[derive(Debug, Default)]
pub struct Stall {
    /// Subscribes whose interest is being announced, in order.
    pub subscribes: VecDeque<(Filter, Option<Tag>)>,
    /// The command that waits for room in a ring, or for these subscribes.
    pub held: Option<Held>,
    /// Taken from the connection, not yet decoded.
    pub bytes: Vec<u8>,
}

impl Stall {
    /// Does nothing wait?
    pub fn is_empty(&self) -> bool {
        self.subscribes.is_empty() && self.held.is_none() && self.bytes.is_empty()
    }
}

/// What only a session that asks or answers needs.
#[derive(Debug, Default)]
pub struct Serving {
    /// Its own requests that wait for an answer.
    pub own: HashSet<u64>,
    /// The events that it handles.
    pub events: HashSet<Bytes>,
    /// The requests that it was asked and has not answered.
    pub asked: HashSet<u64>,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    /// Its number on this shard.
    pub id: SessionId,
    /// The index of its listener.
    pub listener: u16,
    /// Where it is in its life.
    pub state: State,
    /// What changes the bytes of its deliveries.
    pub encoding: Encoding,
    /// Frames into messages.
    pub reader: Reader,
    /// What waits to be sent.
    pub outbox: Outbox,
    /// Is it in the shard's list of sessions that have something to send?
    pub is_dirty: bool,
    /// Has the driver been told to stop reading?
    pub is_paused: bool,
    /// Is it in the shard's list of sessions to resume?
    pub is_resuming: bool,
    /// A ping went out and nothing has come since.
    pub is_pinged: bool,
    /// Bad texts so far.
    pub bad_texts: u32,
    /// Its filters, with its place among the members of each.
    pub subscriptions: HashMap<FilterId, u32, foldhash::fast::FixedState>,
    /// Its requests and what it handles.
    pub serving: Option<Box<Serving>>,
    /// What waits.
    pub stall: Option<Box<Stall>>,
    /// Who it is, once it has said so and was believed.
    pub identity: Option<Box<str>>,
    /// The remote address, for operators.
    pub address: Arc<str>,
    /// When it was accepted, and from the 101 on when bytes last came (ms).
    pub last_input_ms: u64,
    /// When the message that is being received began.
    pub message_since_ms: Option<u64>,
    /// Since when the outbox is above its soft limit.
    pub soft_since_ms: Option<u64>,
    /// When it is to leave (drain).
    pub leave_ms: Option<u64>,
    /// The deadline that is set; others that fire are stale.
    pub timer_ms: u64,
}

impl Session {
    /// A connection that was just accepted.
    pub fn new(id: SessionId, listener: u16, address: Arc<str>, now_ms: u64) -> Session {
        Session {
            id,
            listener,
            state: State::Handshake {
                head: Vec::new(),
                dealt: false,
            },
            encoding: Encoding::NativeText,
            reader: Reader::default(),
            outbox: Outbox::default(),
            is_dirty: false,
            is_paused: false,
            is_resuming: false,
            is_pinged: false,
            bad_texts: 0,
            subscriptions: HashMap::with_hasher(foldhash::fast::FixedState::default()),
            serving: None,
            stall: None,
            identity: None,
            address,
            last_input_ms: now_ms,
            message_since_ms: None,
            soft_since_ms: None,
            leave_ms: None,
            timer_ms: u64::MAX,
        }
    }

    /// Is the handshake done and no end in sight?
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Is it in its last phase, so that nothing more is taken from it or queued for it?
    pub fn is_ending(&self) -> bool {
        matches!(self.state, State::Closing { .. } | State::Discarding { .. })
    }

    /// The silence after which it is pinged: by a tenth to three tenths shorter than configured, by session. So
    /// ten thousand sessions of one moment are not pinged in one moment, and a dead one is gone, last words
    /// included, within interval and timeout.
    fn ping_after_ms(&self, limits: &Limits) -> u64 {
        let spread = limits.ping_interval_ms / 5;
        let scatter = u64::from(self.id.slot).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        limits.ping_interval_ms - limits.ping_interval_ms / 10 - ((scatter * spread) >> 32)
    }

    /// The next moment at which something must be looked at, and what.
    pub fn deadline(&self, limits: &Limits) -> (u64, Due) {
        let mut next = match &self.state {
            State::Handshake { .. } | State::Admission { .. } => (
                self.last_input_ms + limits.connect_timeout_ms,
                Due::Handshake,
            ),
            State::Closing { since_ms, .. } => (since_ms + limits.linger_ms, Due::Reset),
            State::Discarding { since_ms } => (since_ms + limits.discard_ms, Due::Gone),
            State::Open if self.is_pinged => (
                self.last_input_ms + self.ping_after_ms(limits) + limits.ping_timeout_ms,
                Due::Dead,
            ),
            State::Open => (self.last_input_ms + self.ping_after_ms(limits), Due::Ping),
        };
        if self.is_open() {
            // Nobody is called dead for bytes that we do not read.
            if self.is_paused {
                next.0 = u64::MAX;
            }
            let others = [
                (
                    self.message_since_ms.filter(|_| !self.is_paused),
                    limits.message_ms_max,
                    Due::Message,
                ),
                (self.soft_since_ms, limits.outbox_soft_ms, Due::Slow),
                (self.leave_ms, 0, Due::Leave),
            ];
            for (since, after, due) in others {
                if let Some(since) = since
                    && since + after < next.0
                {
                    next = (since + after, due);
                }
            }
        }
        next
    }
}

/// What a deadline is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// The handshake took too long.
    Handshake,
    /// Silence: ask.
    Ping,
    /// No answer.
    Dead,
    /// A fragmented message took too long.
    Message,
    /// Above the soft limit for too long.
    Slow,
    /// Its turn to leave.
    Leave,
    /// The last words did not go out.
    Reset,
    /// Discarded long enough.
    Gone,
}

/// The sessions of a shard, by the driver's slot.
#[derive(Debug, Default)]
pub struct Sessions {
    slots: Vec<Option<Session>>,
    count: usize,
}

impl Sessions {
    /// Puts a session at its slot.
    ///
    /// # Panics
    /// If the slot is taken: the driver frees a slot only after the shard said so.
    pub fn insert(&mut self, session: Session) {
        let slot = session.id.slot as usize;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        assert!(
            self.slots[slot].is_none(),
            "slot {slot} has a session already"
        );
        self.slots[slot] = Some(session);
        self.count += 1;
    }

    /// The session, if it is still this generation.
    pub fn find(&mut self, id: SessionId) -> Option<&mut Session> {
        self.slots
            .get_mut(id.slot as usize)?
            .as_mut()
            .filter(|session| session.id == id)
    }

    /// Who is in this slot now.
    pub fn at(&mut self, slot: u32) -> Option<&mut Session> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// Takes a session out.
    pub fn remove(&mut self, id: SessionId) -> Option<Session> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.as_ref()?.id != id {
            return None;
        }
        self.count -= 1;
        slot.take()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.slots.iter().flatten()
    }
}
