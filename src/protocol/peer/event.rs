//! Events: how the broker writes them, and how a peer reads them.

use super::super::Event;
use crate::address::ClientId;
use crate::message::Kind;

/// An event as a peer reads it: every field is a part of the frame.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Told<'a> {
    Welcome {
        version: u16,
        client: ClientId,
    },
    /// A call took effect.
    Done {
        ticket: u64,
        payload: Data<'a>,
    },
    /// A call did not; or a request failed.
    Failed {
        ticket: u64,
        code: &'a [u8],
        reason: &'a [u8],
    },
    Message {
        topic: &'a [u8],
        context: &'a [u8],
        payload: Data<'a>,
    },
    Gap {
        topic: &'a [u8],
        count: u64,
    },
    /// `client` is whoever sent it; `peer` its name, empty for a client.
    Event {
        client: Option<ClientId>,
        peer: &'a [u8],
        event: &'a [u8],
        payload: Data<'a>,
    },
    Request {
        number: u64,
        timeout_ms: u32,
        client: ClientId,
        peer: &'a [u8],
        event: &'a [u8],
        payload: Data<'a>,
    },
    Connect(Arrived<'a>),
    Admit(Arrived<'a>),
    Disconnect {
        client: ClientId,
        code: u16,
        reason: &'a [u8],
    },
    Subscribed {
        client: ClientId,
        up: bool,
        filter: &'a [u8],
    },
    Published {
        client: ClientId,
        topic: &'a [u8],
        payload: Data<'a>,
    },
    Occupied {
        up: bool,
        filter: &'a [u8],
    },
    Peer {
        up: bool,
        name: &'a [u8],
    },
    TokenUp {
        token: &'a [u8],
        client: ClientId,
    },
    TokenDown {
        token: &'a [u8],
        client: ClientId,
    },
    TokenRejected {
        token: &'a [u8],
    },
    Probe,
    Goodbye {
        code: &'a [u8],
        reason: &'a [u8],
    },
    Log {
        level: u8,
        text: &'a [u8],
    },
}

/// A payload in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Data<'a> {
    pub kind: Kind,
    pub bytes: &'a [u8],
}

/// CONNECT and ADMIT in a frame.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Arrived<'a> {
    pub client: ClientId,
    pub protocol: &'a [u8],
    pub path: &'a [u8],
    pub query: &'a [u8],
    pub address: &'a [u8],
    /// Empty: nobody in particular.
    pub user: &'a [u8],
    /// `u16` count, then a name (the field) and a text (its value) each; [`headers`] reads them.
    pub headers: &'a [u8],
}

/// The frame is none of this protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

/// The header fields of an arrival, in order.
pub fn headers(_raw: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::empty()
}

/// Appends an event as one frame, size included. What peers have no words for adds nothing.
pub fn encode(_event: &Event<'_>, _out: &mut Vec<u8>) {}

/// Appends a line of the log.
pub fn encode_log(_level: u8, _text: &str, _out: &mut Vec<u8>) {}

/// What a frame (without its size) says.
///
/// # Errors
/// [`Malformed`].
pub fn read_event(_frame: &[u8]) -> Result<Told<'_>, Malformed> {
    Err(Malformed("no event is known"))
}
