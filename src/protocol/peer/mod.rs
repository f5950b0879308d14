//! What peers speak: application servers that connect to a listener for peers, and the Links of the process that the
//! broker runs in, whose "connection" is a pair of queues in memory. Both speak the same bytes, so a Link has no
//! private door. The document is `docs/protocols/peer.md`.
//!
//! A peer makes *calls* and is told *events*. Each is one frame: `u32` size of what follows, `u8` [`CallType`] or
//! [`EventType`], then the fields in the order of the document; numbers are little-endian. A field is a number, a
//! *name* (`u16` length, bytes), a *text* (`u32` length, bytes), or the *rest* of the frame. A payload is `u8` kind
//! (0: the broker may find out; 1: JSON; 2: text; 3: binary) and the rest.
//!
//! A call with a ticket other than 0 is answered by one `DONE` with that ticket, in the order in which such calls take
//! effect, requests apart: their answer comes when it comes. Calls of one peer take effect in the order made, on every
//! shard.

use std::fmt;

use bytes::Bytes;

use super::{Outcome, Tag};
use crate::address::ClientId;
use crate::message::Payload;
use crate::secret::Secret;
use crate::topic::{Filter, TopicError};

pub mod call;
mod decode;
pub mod delivery;
mod encode;
pub mod event;
mod fields;
pub mod reader;
#[cfg(test)]
mod transcripts;

pub use call::{decode, write_call};
pub use delivery::{delivery_size, encode_delivery};
pub use event::{encode, read_event};

/// The version that HELLO and WELCOME name.
pub const VERSION: u16 = 1;

/// A client in the frames of peers: the 15 bytes that its id is written from.
pub const CLIENT_BYTES: usize = 15;

/// Of calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum CallType {
    Hello = 0x01,
    Subscribe = 0x02,
    Unsubscribe = 0x03,
    Publish = 0x04,
    Emit = 0x05,
    Request = 0x06,
    Reply = 0x07,
    Fail = 0x08,
    Handle = 0x09,
    Unhandle = 0x0a,
    Watch = 0x0b,
    Admit = 0x0c,
    Join = 0x0d,
    Leave = 0x0e,
    Disconnect = 0x0f,
    Accept = 0x10,
    Reject = 0x11,
    AcceptPeer = 0x12,
    RejectPeer = 0x13,
    CutPeer = 0x14,
    Alive = 0x15,
    Bye = 0x16,
}

impl CallType {
    /// Every one, by number.
    pub const ALL: [CallType; 22] = [
        CallType::Hello,
        CallType::Subscribe,
        CallType::Unsubscribe,
        CallType::Publish,
        CallType::Emit,
        CallType::Request,
        CallType::Reply,
        CallType::Fail,
        CallType::Handle,
        CallType::Unhandle,
        CallType::Watch,
        CallType::Admit,
        CallType::Join,
        CallType::Leave,
        CallType::Disconnect,
        CallType::Accept,
        CallType::Reject,
        CallType::AcceptPeer,
        CallType::RejectPeer,
        CallType::CutPeer,
        CallType::Alive,
        CallType::Bye,
    ];

    /// The one of this number.
    pub fn of(number: u8) -> Option<CallType> {
        let index = number.checked_sub(CallType::Hello as u8)?;
        CallType::ALL.get(usize::from(index)).copied()
    }
}

/// Of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum EventType {
    Welcome = 0x41,
    Done = 0x42,
    Message = 0x43,
    Gap = 0x44,
    Event = 0x45,
    Request = 0x46,
    Connect = 0x47,
    Admit = 0x48,
    Disconnect = 0x49,
    Subscribed = 0x4a,
    Unsubscribed = 0x4b,
    Published = 0x4c,
    Occupied = 0x4d,
    Vacated = 0x4e,
    PeerUp = 0x4f,
    PeerDown = 0x50,
    TokenUp = 0x51,
    TokenDown = 0x52,
    TokenRejected = 0x53,
    Probe = 0x54,
    Goodbye = 0x55,
    Log = 0x56,
}

impl EventType {
    /// Every one, by number.
    pub const ALL: [EventType; 22] = [
        EventType::Welcome,
        EventType::Done,
        EventType::Message,
        EventType::Gap,
        EventType::Event,
        EventType::Request,
        EventType::Connect,
        EventType::Admit,
        EventType::Disconnect,
        EventType::Subscribed,
        EventType::Unsubscribed,
        EventType::Published,
        EventType::Occupied,
        EventType::Vacated,
        EventType::PeerUp,
        EventType::PeerDown,
        EventType::TokenUp,
        EventType::TokenDown,
        EventType::TokenRejected,
        EventType::Probe,
        EventType::Goodbye,
        EventType::Log,
    ];

    /// The one of this number.
    pub fn of(number: u8) -> Option<EventType> {
        let index = number.checked_sub(EventType::Welcome as u8)?;
        EventType::ALL.get(usize::from(index)).copied()
    }
}

/// The kinds of filter that a peer subscribes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FilterKind {
    /// A branch of the dotted topics.
    Dotted = 1,
    /// One name.
    Exact = 2,
    /// The names of a shape.
    Glob = 3,
    /// A shard channel of Redis clients.
    Shard = 4,
    /// A room. Nobody subscribes to one, so no frame has it.
    Room = 5,
}

impl FilterKind {
    /// That of this filter.
    pub fn of(filter: &Filter) -> FilterKind {
        match filter {
            Filter::Dotted(_) => FilterKind::Dotted,
            Filter::Exact(_) => FilterKind::Exact,
            Filter::Glob(_) => FilterKind::Glob,
            Filter::Shard(_) => FilterKind::Shard,
            Filter::Room(_) => FilterKind::Room,
        }
    }

    /// The one of this number.
    pub fn of_number(number: u8) -> Option<FilterKind> {
        Some(match number {
            1 => FilterKind::Dotted,
            2 => FilterKind::Exact,
            3 => FilterKind::Glob,
            4 => FilterKind::Shard,
            _ => return None,
        })
    }

    /// The filter of this kind.
    ///
    /// # Errors
    /// if it is none.
    pub fn filter(self, written: Bytes) -> Result<Filter, TopicError> {
        match self {
            FilterKind::Dotted => Filter::dotted(written),
            FilterKind::Exact => Filter::exact(written),
            FilterKind::Glob => Filter::glob(written),
            FilterKind::Shard => Filter::shard(written),
            FilterKind::Room => Filter::room(written),
        }
    }
}

/// What a peer watches: a bit each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Watch(pub u32);

impl Watch {
    /// Clients that come in: CONNECT. A session whose peer watches this, [`Watch::ADMIT`] or [`Watch::EVENT`] is
    /// *hosted* by it for life.
    pub const CONNECT: Watch = Watch(1);
    /// Clients that want to come in: ADMIT, to be answered; from then on nobody comes in unasked.
    pub const ADMIT: Watch = Watch(1 << 1);
    /// Hosted clients that end: DISCONNECT.
    pub const DISCONNECT: Watch = Watch(1 << 2);
    /// Events and requests of hosted clients that nobody handles.
    pub const EVENT: Watch = Watch(1 << 3);
    /// Subscriptions of hosted clients: SUBSCRIBED, UNSUBSCRIBED.
    pub const SUBSCRIBE: Watch = Watch(1 << 4);
    /// Publications of hosted clients: PUBLISHED.
    pub const PUBLISH: Watch = Watch(1 << 5);
    /// Filters that get their first subscriber in the broker, or lose the last: OCCUPIED, VACATED.
    pub const TOPIC: Watch = Watch(1 << 6);
    /// Other peers: PEER_UP, PEER_DOWN.
    pub const PEER: Watch = Watch(1 << 7);
    /// The broker's log: LOG. Of its own process only.
    pub const LOG: Watch = Watch(1 << 8);
    /// Plain HTTP connections: HTTP. Of its own process only.
    pub const HTTP: Watch = Watch(1 << 9);

    /// All bits that mean something.
    pub const ALL: Watch = Watch((1 << 10) - 1);

    /// What makes who watches any of it a host.
    pub const HOSTS: Watch =
        Watch(Watch::CONNECT.0 | Watch::ADMIT.0 | Watch::EVENT.0 | Watch::DISCONNECT.0);

    /// Are all bits of `other` set?
    pub fn has(self, other: Watch) -> bool {
        self.0 & other.0 == other.0
    }

    /// Is any bit of `other` set?
    pub fn has_any(self, other: Watch) -> bool {
        self.0 & other.0 != 0
    }

    /// Does who watches this host clients?
    pub fn hosts(self) -> bool {
        self.has_any(Watch::HOSTS)
    }
}

impl std::ops::BitOr for Watch {
    type Output = Watch;

    /// Both.
    fn bitor(self, other: Watch) -> Watch {
        Watch(self.0 | other.0)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({:#x})", self.0)
    }
}

/// Many at once, for an event.
#[derive(Clone, PartialEq, Debug)]
pub enum Audience {
    /// Clients: those in any of `rooms`, or all if there is none; without those in any of `except_rooms`, and without
    /// `except`. Each gets the event once.
    Clients {
        rooms: Vec<Bytes>,
        except_rooms: Vec<Bytes>,
        except: Option<ClientId>,
    },
    /// Peers, without the one that says it.
    Peers(PeerPattern),
}

/// Which peers, by their names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerPattern {
    /// Every one.
    All,
    /// The one of this name.
    Name(Bytes),
    /// Those whose names a regular expression matches, anywhere unless it says otherwise (`^calc-`). Linear in time.
    Regex(Bytes),
}

/// The host's word on a client that wants to come in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admitted {
    /// Come in; as this user, or as whom its token says.
    Yes { user: Option<Bytes> },
    /// 401, or what the protocol has for it, with this reason.
    No { reason: Bytes },
}

/// Calls that no other client has. The rest are [`Command`](super::Command)s that others have too; their tag is the
/// ticket, [`ticket_tag`].
#[derive(Clone, PartialEq, Debug)]
pub enum PeerCommand {
    /// The first call: this is my name, and the key that is asked for. Answered by WELCOME or GOODBYE.
    Hello {
        version: u16,
        name: Bytes,
        key: Option<Secret>,
    },
    /// An event for many.
    EmitMany {
        to: Audience,
        event: Bytes,
        data: Payload,
        /// May be dropped for whoever is not ready.
        volatile: bool,
        tag: Option<Tag>,
    },
    /// From the answer on, tell me of this, and of nothing else.
    Watch { mask: Watch, tag: Option<Tag> },
    /// The answer to ADMIT.
    Admit { client: ClientId, verdict: Admitted },
    /// This client is in this room from now on.
    Join {
        client: ClientId,
        room: Bytes,
        tag: Option<Tag>,
    },
    /// It is not any more.
    Leave {
        client: ClientId,
        room: Bytes,
        tag: Option<Tag>,
    },
    /// Close this client's connection, with this WebSocket close code and reason.
    Disconnect {
        client: ClientId,
        code: u16,
        reason: Bytes,
        tag: Option<Tag>,
    },
    /// Let a client in that shows an id (`?id=`): the one given, or one that is made; DONE has it. Its token is mine.
    Accept {
        token: Bytes,
        id: Option<Bytes>,
        tag: Option<Tag>,
    },
    /// Let it in no more, and cut it if it is in.
    Reject { token: Bytes, tag: Option<Tag> },
    /// On which peers may come in, where not all may. Of the broker's own process only.
    AdmitPeer {
        name: Bytes,
        admitted: bool,
        tag: Option<Tag>,
    },
    /// Cut a peer. Of the broker's own process only.
    CutPeer { name: Bytes, tag: Option<Tag> },
    /// The answer to PROBE.
    Alive,
    /// I leave; nothing comes after this.
    Bye,
}

/// What only peers are told.
#[derive(Clone, PartialEq, Debug)]
pub enum PeerEvent<'a> {
    /// You are in. `client` is what others may call you by.
    Welcome { client: ClientId },
    /// A call took effect; DONE with a payload (the id that was made), or an empty one.
    Done { tag: &'a Tag, outcome: &'a Outcome },
    /// A client has come in.
    Connect(&'a Arrival<'a>),
    /// A client wants to come in.
    Admit(&'a Arrival<'a>),
    /// A client that you host has gone. `code` as in a close frame, 1006 if there was none.
    Disconnect {
        client: ClientId,
        code: u16,
        reason: &'a [u8],
    },
    /// A client that you host has subscribed, or unsubscribed.
    Subscribed {
        client: ClientId,
        up: bool,
        filter: &'a [u8],
    },
    /// A client that you host has published.
    Published {
        client: ClientId,
        topic: &'a [u8],
        data: &'a Payload,
    },
    /// A filter has got its first subscriber, or lost its last.
    Occupied { up: bool, filter: &'a [u8] },
    /// Another peer has come in, or gone.
    Peer { up: bool, name: &'a [u8] },
    /// A client that you accepted has come in.
    TokenUp { token: &'a [u8], client: ClientId },
    /// It has gone.
    TokenDown { token: &'a [u8], client: ClientId },
    /// You rejected this token.
    TokenRejected { token: &'a [u8] },
    /// Are you there? Somebody else wants your name. Answer within 2 s.
    Probe,
    /// You are out; nothing comes after this.
    Goodbye { code: &'a str, reason: &'a [u8] },
}

/// A client that has come in, or wants to.
#[derive(Clone, PartialEq, Debug)]
pub struct Arrival<'a> {
    pub client: ClientId,
    /// What it speaks.
    pub protocol: &'a str,
    pub path: &'a [u8],
    /// Undecoded.
    pub query: &'a [u8],
    /// Names and values, in order.
    pub headers: &'a [(String, Vec<u8>)],
    /// Where it comes from.
    pub address: &'a str,
    /// Who it is by its token, if it showed one.
    pub user: Option<&'a str>,
}

/// The tag of a command with this ticket; none for 0.
pub fn ticket_tag(ticket: u64) -> Option<Tag> {
    (ticket != 0).then(|| Bytes::copy_from_slice(&ticket.to_le_bytes()))
}

/// The ticket of a tag, 0 if it is none.
pub fn tag_ticket(tag: Option<&Tag>) -> u64 {
    let bytes = tag.and_then(|tag| <[u8; 8]>::try_from(&tag[..]).ok());
    bytes.map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_by_their_numbers() {
        for number in 0..=u8::MAX {
            let call = CallType::ALL.iter().find(|call| **call as u8 == number);
            assert_eq!(CallType::of(number), call.copied(), "{number}");
            let event = EventType::ALL.iter().find(|event| **event as u8 == number);
            assert_eq!(EventType::of(number), event.copied(), "{number}");
        }
    }

    #[test]
    fn tickets_are_tags() {
        for ticket in [0, 1, u64::MAX] {
            assert_eq!(tag_ticket(ticket_tag(ticket).as_ref()), ticket);
        }
        assert_eq!(tag_ticket(Some(&Bytes::from_static(b"\"1\""))), 0);
    }
}
