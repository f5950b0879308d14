//! Events: what a [`Link`](super::Link) is told, each with bytes of its own.
//!
//! The fields are slices of the chunks that the broker wrote, shared by reference count: no byte is copied, unless an
//! event begins in one chunk and ends in the next. Whoever keeps a field for long copies it, since it keeps its chunk.

#![allow(missing_docs, reason = "the comment of a variant speaks of its fields")]

use bytes::Bytes;

use super::{FilterKind, Ticket};
use crate::address::ClientId;
use crate::message::{Kind, Payload};
use crate::protocol::peer::event::{self, Arrived, Data, Told};

pub use crate::net::links::HttpConnection;

/// A request that this Link is to answer, once. Never used again in the life of the Link, not after a reconnect either.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RequestId(pub u64);

/// What a Link is told.
#[derive(Debug)]
pub enum Event {
    /// A call took effect, on every shard. `payload`: the answer to a request, the id that an accept made; else empty.
    Done { ticket: Ticket, payload: Payload },
    /// A call did not, or a request failed. The code is one of [`Code`](crate::error::Code), or the handler's own.
    Failed {
        ticket: Ticket,
        code: Bytes,
        reason: Bytes,
    },
    /// A message to a topic that this Link subscribes to; `filter` and `context` say by which subscription, as it was
    /// written.
    Message {
        topic: Bytes,
        filter: FilterKind,
        context: Bytes,
        payload: Payload,
    },
    /// `count` messages of this topic were dropped, because this Link was behind.
    Gap { topic: Bytes, count: u64 },
    /// An event, to be answered by nobody. `peer` is the sender's name, empty for a client.
    Event {
        client: Option<ClientId>,
        peer: Bytes,
        event: Bytes,
        payload: Payload,
    },
    /// A request, to be answered by [`Link::reply`](super::Link::reply) or
    /// [`Link::reply_error`](super::Link::reply_error) within `timeout_ms`.
    Request {
        request: RequestId,
        timeout_ms: u32,
        client: ClientId,
        peer: Bytes,
        event: Bytes,
        payload: Payload,
    },
    /// A client has come in, and this Link hosts it.
    Connect(Box<Arrival>),
    /// A client wants to come in: [`Link::admit`](super::Link::admit) or [`Link::refuse`](super::Link::refuse) within
    /// 10 s.
    Admit(Box<Arrival>),
    /// A client that this Link hosts has gone. The code as in a close frame; 1006 if there was none.
    Disconnect {
        client: ClientId,
        code: u16,
        reason: Bytes,
    },
    /// A client that this Link hosts has subscribed (`up`), or unsubscribed.
    Subscribed {
        client: ClientId,
        up: bool,
        filter: Bytes,
    },
    /// A client that this Link hosts has published.
    Published {
        client: ClientId,
        topic: Bytes,
        payload: Payload,
    },
    /// A filter has got its first subscriber in the broker (`up`), or lost its last.
    Occupied { up: bool, filter: Bytes },
    /// Another peer has come in (`up`), or gone.
    Peer { up: bool, name: Bytes },
    /// A client that this Link accepted has come in.
    TokenUp { token: Bytes, client: ClientId },
    /// It has gone.
    TokenDown { token: Bytes, client: ClientId },
    /// This Link has rejected this token.
    TokenRejected { token: Bytes },
    /// A line of the broker's log; `level` from 1 (error) to 5 (trace).
    Log { level: u8, text: Bytes },
    /// A plain HTTP connection that is now the host's, with what was read of it so far. [`Link::adopt`](super::Link::adopt)
    /// gives it back.
    Http(Box<HttpConnection>),
    /// A remote Link is connected; `client` is its id until it breaks. What it watches, subscribes to and handles is said
    /// again, before all calls that wait: the `Done` of any of these, or of a later one, says that it holds.
    Up { client: ClientId },
    /// A remote Link has lost its connection, or could not connect, and tries again. Calls wait meanwhile.
    Down { reason: Bytes },
    /// The broker lets this Link go (`GOODBYE`). The last event.
    Closed { code: Bytes, reason: Bytes },
    /// The broker has stopped, or one of its shards failed. The last event.
    Stopped,
}

/// A client that has come in, or wants to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arrival {
    pub client: ClientId,
    /// What it speaks: `native`, `clusterws`, ...
    pub protocol: Bytes,
    pub path: Bytes,
    /// Undecoded, without the question mark.
    pub query: Bytes,
    pub address: Bytes,
    /// Who it is by its token; empty if it showed none.
    pub user: Bytes,
    headers: Bytes,
}

impl Arrival {
    /// The header fields of the request, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        event::headers(&self.headers)
    }

    /// The value of the first header field of this name (in lower case).
    pub fn header(&self, name: &[u8]) -> Option<&[u8]> {
        let mut headers = self.headers();
        headers
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// What a frame comes to.
#[derive(Debug)]
pub(super) enum Heard {
    Event(Event),
    /// A request, whose number is the broker's.
    Request(u64, Event),
    Welcome(ClientId),
    Probe,
}

/// What a frame says, with slices of it. `told` must have been read of `frame`.
pub(super) fn owned(frame: &Bytes, told: &Told<'_>) -> Heard {
    let bytes = |part: &[u8]| {
        if part.is_empty() {
            Bytes::new()
        } else {
            frame.slice_ref(part)
        }
    };
    let payload = |data: Data<'_>| {
        let bytes = bytes(data.bytes);
        match data.kind {
            Kind::Json => Payload::json(bytes),
            Kind::Text => Payload::text(bytes),
            Kind::Binary => Payload::binary(bytes),
        }
    };
    let arrival = |arrived: Arrived<'_>| {
        Box::new(Arrival {
            client: arrived.client,
            protocol: bytes(arrived.protocol),
            path: bytes(arrived.path),
            query: bytes(arrived.query),
            address: bytes(arrived.address),
            user: bytes(arrived.user),
            headers: bytes(arrived.headers),
        })
    };
    Heard::Event(match *told {
        Told::Welcome { client, .. } => return Heard::Welcome(client),
        Told::Probe => return Heard::Probe,
        Told::Request {
            number,
            timeout_ms,
            client,
            peer,
            event,
            payload: data,
        } => {
            let request = Event::Request {
                request: RequestId(0),
                timeout_ms,
                client,
                peer: bytes(peer),
                event: bytes(event),
                payload: payload(data),
            };
            return Heard::Request(number, request);
        }
        Told::Done {
            ticket,
            payload: data,
        } => Event::Done {
            ticket: Ticket(ticket),
            payload: payload(data),
        },
        Told::Failed {
            ticket,
            code,
            reason,
        } => Event::Failed {
            ticket: Ticket(ticket),
            code: bytes(code),
            reason: bytes(reason),
        },
        Told::Message {
            topic,
            filter,
            context,
            payload: data,
        } => Event::Message {
            topic: bytes(topic),
            filter,
            context: bytes(context),
            payload: payload(data),
        },
        Told::Gap { topic, count } => Event::Gap {
            topic: bytes(topic),
            count,
        },
        Told::Event {
            client,
            peer,
            event,
            payload: data,
        } => Event::Event {
            client,
            peer: bytes(peer),
            event: bytes(event),
            payload: payload(data),
        },
        Told::Connect(arrived) => Event::Connect(arrival(arrived)),
        Told::Admit(arrived) => Event::Admit(arrival(arrived)),
        Told::Disconnect {
            client,
            code,
            reason,
        } => Event::Disconnect {
            client,
            code,
            reason: bytes(reason),
        },
        Told::Subscribed { client, up, filter } => Event::Subscribed {
            client,
            up,
            filter: bytes(filter),
        },
        Told::Published {
            client,
            topic,
            payload: data,
        } => Event::Published {
            client,
            topic: bytes(topic),
            payload: payload(data),
        },
        Told::Occupied { up, filter } => Event::Occupied {
            up,
            filter: bytes(filter),
        },
        Told::Peer { up, name } => Event::Peer {
            up,
            name: bytes(name),
        },
        Told::TokenUp { token, client } => Event::TokenUp {
            token: bytes(token),
            client,
        },
        Told::TokenDown { token, client } => Event::TokenDown {
            token: bytes(token),
            client,
        },
        Told::TokenRejected { token } => Event::TokenRejected {
            token: bytes(token),
        },
        Told::Goodbye { code, reason } => Event::Closed {
            code: bytes(code),
            reason: bytes(reason),
        },
        Told::Log { level, text } => Event::Log {
            level,
            text: bytes(text),
        },
    })
}
