//! The step between bytes and meaning: each protocol decodes what a client sent into [`Command`]s and encodes
//! what a client is told from [`Event`]s. Pure; knows no session and no socket.
//!
//! Words of other protocols (channel, room, subject) are translated here and go no further in.

#![allow(missing_docs, reason = "the comment of a variant speaks of its fields")]

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::address::{Address, ClientId, Sender};
use crate::error::Code;
use crate::message::{Message, Payload};
use crate::topic::Filter;

pub mod clusterws;
pub mod json;
pub mod native;
mod payload;
pub mod peer;
pub mod resp;

/// The `id` of a command: valid JSON text, given back as it came.
pub type Tag = Bytes;

/// What a client asks for.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// From the ack on, deliver what matches.
    Subscribe { filter: Filter, tag: Option<Tag> },
    /// After the ack, no more.
    Unsubscribe { filter: Filter, tag: Option<Tag> },
    /// Deliver to everybody with a matching subscription, then ack. `message.origin` is left for the shard to set.
    Publish {
        message: Arc<Message>,
        tag: Option<Tag>,
    },
    /// Tell `to`, or one session that handles `event`; no answer. `volatile`: may be dropped for whoever is not ready.
    /// A tag is acked when the event is on its way.
    Emit {
        to: Address,
        event: Bytes,
        data: Payload,
        volatile: bool,
        tag: Option<Tag>,
    },
    /// Ask `to` and give its answer back under `tag`.
    Request {
        to: Address,
        event: Bytes,
        data: Payload,
        tag: Tag,
        timeout_ms: Option<u64>,
    },
    /// The answer to request `number`, which this session was asked.
    Reply { number: u64, outcome: Outcome },
    /// From the ack on, requests and events of this name may come here.
    Handle { event: Bytes, tag: Option<Tag> },
    /// After the ack, none will.
    Unhandle { event: Bytes, tag: Option<Tag> },
    /// Which session am I?
    Whoami { tag: Option<Tag> },
    /// Are you there?
    Ping { tag: Option<Tag> },
    /// What only peers ask for.
    Peer(Box<peer::PeerCommand>),
}

/// What a request came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The handler's answer.
    Data(Payload),
    /// The broker's or the handler's refusal. A handler's code is its own; JSON string contents, unescaped.
    Failed {
        code: Cow<'static, str>,
        reason: Cow<'static, str>,
    },
}

impl Outcome {
    /// A refusal by the broker itself.
    pub fn refused(code: Code, reason: &'static str) -> Outcome {
        Outcome::Failed {
            code: Cow::Borrowed(code.as_str()),
            reason: Cow::Borrowed(reason),
        }
    }
}

/// A command that was not done, as the client is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The `type` that the client sent, unescaped, if there was one (at most 255 bytes of it).
    pub action: Option<Cow<'static, str>>,
    /// Which rule.
    pub code: Code,
    /// A sentence for a person.
    pub reason: Cow<'static, str>,
    /// The topic of the command, unescaped, if it had one (at most 1 024 bytes of it).
    pub topic: Option<Bytes>,
    /// The `id` of the command, if it had one.
    pub tag: Option<Tag>,
}

/// What an acknowledgement acknowledges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Subscribe,
    Unsubscribe,
    Publish,
    Handle,
    Unhandle,
}

impl Action {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Subscribe => "subscribe",
            Action::Unsubscribe => "unsubscribe",
            Action::Publish => "publish",
            Action::Handle => "handle",
            Action::Unhandle => "unhandle",
        }
    }
}

/// What a client is told, deliveries apart (those are encoded once for many, see [`native::encode_delivery`]).
/// A protocol leaves out what it has no words for.
#[derive(Clone, PartialEq, Debug)]
pub enum Event<'a> {
    /// A command took effect. `name` is the topic, the filter as written, or the event.
    Ack {
        action: Action,
        name: &'a [u8],
        tag: Option<&'a Tag>,
    },
    /// A command did not.
    Refused(&'a Refusal),
    /// The answer to this client's request.
    Reply { tag: &'a Tag, outcome: &'a Outcome },
    /// A request that this client is to answer with `number`.
    Request {
        event: &'a [u8],
        data: &'a Payload,
        number: u64,
        from: &'a Sender,
        timeout_ms: u64,
    },
    /// An event for this client; from nobody that it could answer, if it is for many.
    Emitted {
        event: &'a [u8],
        data: &'a Payload,
        from: Option<&'a Sender>,
    },
    /// The answer to whoami.
    Session {
        client: ClientId,
        tag: Option<&'a Tag>,
    },
    /// The answer to ping.
    Pong { tag: Option<&'a Tag> },
    /// `count` deliveries of `topic` were skipped for this reader.
    Gap { topic: &'a [u8], count: u64 },
    /// What only peers are told.
    Peer(&'a peer::PeerEvent<'a>),
}

/// The protocol of a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    /// JSON objects in WebSocket text messages.
    Native,
    /// Arrays in JSON objects, in WebSocket messages of either kind.
    Clusterws(clusterws::Dialect),
    /// What Redis speaks, without WebSocket.
    Resp,
    /// What application servers and Links speak, without WebSocket.
    Peer,
    /// Every message comes back as it went, text as text and binary as binary: what suites for RFC 6455 speak
    /// to. There are no commands.
    Echo,
}

impl Protocol {
    /// Can its clients be told of events?
    pub fn has_events(self) -> bool {
        match self {
            Protocol::Native | Protocol::Clusterws(_) | Protocol::Peer => true,
            Protocol::Resp | Protocol::Echo => false,
        }
    }

    /// Can its clients answer requests?
    pub fn has_requests(self) -> bool {
        match self {
            Protocol::Native | Protocol::Peer => true,
            Protocol::Clusterws(_) | Protocol::Resp | Protocol::Echo => false,
        }
    }

    /// What its deliveries are encoded as, at first.
    pub fn encoding(self) -> Encoding {
        match self {
            // Nothing is delivered to an echo.
            Protocol::Native | Protocol::Echo => Encoding::NativeText,
            Protocol::Clusterws(dialect) => Encoding::Clusterws(dialect.of_deliveries()),
            Protocol::Resp => Encoding::Resp(resp::Version::Two),
            Protocol::Peer => Encoding::Peer,
        }
    }
}

/// Everything that changes the bytes of a delivery: sessions of one encoding and one filter share them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Encoding {
    /// Native JSON in a WebSocket text frame.
    NativeText,
    /// ClusterWS in a WebSocket frame; the dialect is one of [`clusterws::Dialect::of_deliveries`].
    Clusterws(clusterws::Dialect),
    /// RESP, which has no frames around it.
    Resp(resp::Version),
    /// A frame of the peer protocol.
    Peer,
}

impl Encoding {
    /// Can a reader be told that it missed deliveries? Whoever can't is closed instead (promise 5).
    pub fn has_gaps(self) -> bool {
        match self {
            Encoding::NativeText | Encoding::Clusterws(_) | Encoding::Peer => true,
            Encoding::Resp(_) => false,
        }
    }
}
