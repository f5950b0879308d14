//! What shards tell each other, and the lanes on which it waits for the rings.
//!
//! A shard is pure: it does not push to a ring, it fills one lane per other shard, and the event loop empties
//! the lanes into the rings at the end of the turn. A lane knows how much room its ring had at the start of
//! the routing; room only grows until the next push, so what a lane took always fits.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::address::{Sender, SessionId, ShardId};
use crate::message::{Message, Payload};
use crate::protocol::Outcome;
use crate::protocol::peer::Watch;
use crate::topic::Filter;
use crate::topic::interest::Edge;

use super::peer::PeerParcel;
use super::tally::{Found, Query};

/// What a shard can be interested in.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Key {
    /// Publications that match.
    Filter(Filter),
    /// Requests and events of this name.
    Service(Bytes),
    /// Those for Links of the broker's own process.
    Master(Bytes),
    /// Those for peers from outside it.
    AnyPeer(Bytes),
    /// The peer of this name.
    Peer(Bytes),
    /// The ids that clients show: a token has been accepted.
    Tokens,
    /// A peer that hosts clients, and what it watches.
    Host(SessionId, Watch),
    /// Of these, one that handles this event.
    HostEvent(SessionId, Bytes),
    /// A peer, and its name, that is behind: what clients send to it waits.
    Behind(SessionId, Bytes),
    /// All that fit this receiver, of those that handle this event, are behind.
    Clogged(Receiver, Bytes),
}

/// For whom a request or an event is, on the shard it was sent to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Receiver {
    /// Any session that handles the event.
    Service,
    /// Any Link of this process that does.
    Master,
    /// Any peer from outside that does, but not the one that says it.
    AnyPeer,
    /// The peer of this name, whatever it handles.
    Peer(Bytes),
    /// This peer, which hosts the one that says it, if it handles the event; or any session that does; or this peer, if it
    /// wants what nobody handles.
    Host(SessionId),
    /// This one.
    Session(SessionId),
}

impl Receiver {
    /// If there is nobody on one shard, may there be somebody on another?
    pub fn has_deputies(&self) -> bool {
        match self {
            Receiver::Service | Receiver::Master | Receiver::AnyPeer | Receiver::Host(_) => true,
            Receiver::Peer(_) | Receiver::Session(_) => false,
        }
    }

    fn size(&self) -> usize {
        match self {
            Receiver::Peer(name) => name.len(),
            Receiver::Service
            | Receiver::Master
            | Receiver::AnyPeer
            | Receiver::Host(_)
            | Receiver::Session(_) => 0,
        }
    }
}

/// A word from one shard to another.
#[derive(Debug)]
pub enum Parcel {
    /// Interest that came up or went.
    Edge(Edge<Key>),
    /// A publication for your subscribers. `tally`: how many, I want to know, under this number.
    Message {
        message: Arc<Message>,
        tally: Option<u64>,
    },
    /// How many received your publications, by their numbers.
    Receivers(Vec<(u64, u32)>),
    /// A question, and the number to answer it under.
    Query { number: u64, query: Query },
    /// The answer to your question.
    Found { number: u64, found: Found },
    /// An event for one of your sessions. `volatile`: lost if it had to wait for its reader.
    Emit {
        receiver: Receiver,
        event: Bytes,
        data: Payload,
        from: Sender,
        volatile: bool,
    },
    /// A request for one of your sessions. `number` is the asker's.
    Ask {
        number: u64,
        receiver: Receiver,
        event: Bytes,
        data: Payload,
        from: Sender,
        timeout_ms: u64,
    },
    /// The answer to your request `number`. `vacant`: there is no handler here (any more).
    Answer {
        number: u64,
        outcome: Outcome,
        vacant: bool,
    },
    /// Somebody at this address could not say who it is. The count is the broker's, so each shard keeps all of it.
    Failure { address: IpAddr },
    /// Of peers, and of clients that they host.
    Peer(Box<PeerParcel>),
}

impl Parcel {
    /// What it charges to the byte bound of a ring.
    pub fn size(&self) -> usize {
        size_of::<Parcel>()
            + match self {
                Parcel::Edge(edge) => key_size(&edge.key),
                Parcel::Message { message, .. } => message.size(),
                Parcel::Receivers(counted) => counted.len() * size_of::<(u64, u32)>(),
                Parcel::Query { query, .. } => query.size(),
                Parcel::Found { found, .. } => found.size(),
                Parcel::Emit {
                    receiver,
                    event,
                    data,
                    from,
                    ..
                }
                | Parcel::Ask {
                    receiver,
                    event,
                    data,
                    from,
                    ..
                } => {
                    let name = from.peer.as_ref().map_or(0, Bytes::len);
                    receiver.size() + event.len() + data.bytes().len() + name
                }
                Parcel::Answer {
                    outcome: Outcome::Data(data),
                    ..
                } => data.bytes().len(),
                Parcel::Answer {
                    outcome: Outcome::Failed { code, reason },
                    ..
                } => code.len() + reason.len(),
                Parcel::Failure { .. } => 0,
                Parcel::Peer(parcel) => parcel.size(),
            }
    }
}

fn key_size(key: &Key) -> usize {
    match key {
        Key::Filter(filter) => filter.written().len(),
        Key::Service(name) | Key::Master(name) | Key::AnyPeer(name) | Key::Peer(name) => name.len(),
        Key::HostEvent(_, name) | Key::Behind(_, name) => name.len(),
        Key::Clogged(receiver, name) => receiver.size() + name.len(),
        Key::Host(..) | Key::Tokens => 0,
    }
}

/// The parcels of this turn for one other shard. It has no room before it is told of any.
#[derive(Default, Debug)]
pub struct Lane {
    parcels: Vec<Parcel>,
    /// Of `parcels`.
    bytes: usize,
    entries_left: usize,
    bytes_left: usize,
    /// Nothing waits in the ring nor here: one parcel of any size may go.
    is_empty: bool,
}

impl Lane {
    /// The ring's room now; true if there is more than there was. What the lane holds already (the end of a session may
    /// announce something before the routing) is taken off.
    pub fn set_room(&mut self, entries_left: usize, bytes_left: usize, is_empty: bool) -> bool {
        let entries_left = entries_left.saturating_sub(self.parcels.len());
        let bytes_left = bytes_left.saturating_sub(self.bytes);
        let is_more = entries_left > self.entries_left || bytes_left > self.bytes_left;
        self.entries_left = entries_left;
        self.bytes_left = bytes_left;
        self.is_empty = is_empty && self.parcels.is_empty();
        is_more
    }

    /// Is there room for a parcel of this size?
    pub fn has_room(&self, size: usize) -> bool {
        self.is_empty || self.entries_left > 0 && self.bytes_left >= size
    }

    /// Takes a parcel. The caller asked `has_room` before.
    pub fn push(&mut self, parcel: Parcel) {
        let size = parcel.size();
        debug_assert!(self.has_room(size), "pushed to a full lane");
        self.bytes += size;
        self.entries_left = self.entries_left.saturating_sub(1);
        self.bytes_left = self.bytes_left.saturating_sub(size);
        self.is_empty = false;
        self.parcels.push(parcel);
    }

    /// The parcels in order; the lane is empty afterwards.
    pub fn drain(&mut self) -> impl Iterator<Item = Parcel> {
        self.bytes = 0;
        self.parcels.drain(..)
    }

    /// Does nothing wait here?
    pub fn is_idle(&self) -> bool {
        self.parcels.is_empty()
    }
}

/// All lanes of a shard, by the other shard's index; its own is there and stays empty.
#[derive(Debug)]
pub struct Lanes {
    lanes: Vec<Lane>,
}

impl Lanes {
    /// One lane for each of `shards`.
    pub fn new(shards: usize) -> Lanes {
        Lanes {
            lanes: (0..shards).map(|_| Lane::default()).collect(),
        }
    }

    /// The lane to a shard.
    pub fn to(&mut self, shard: ShardId) -> &mut Lane {
        &mut self.lanes[shard.index()]
    }

    /// Is every lane empty?
    pub fn are_idle(&self) -> bool {
        self.lanes.iter().all(Lane::is_idle)
    }
}
