//! Calls, as the broker reads them.
//!
//! A call that breaks a rule of its kind is refused, and its DONE says so. What has no ticket has nobody to tell: there
//! the connection ends, or the call is taken for the safe answer of its kind.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use smallvec::smallvec;

use super::super::{Command, Outcome, Refusal, Tag, json};
use super::call::{
    ADMITTED, NOT_TO_ME, TO_ANY_PEER, TO_CLIENT, TO_MASTER, TO_PEER, TO_PEERS, TO_ROOMS,
    TO_SERVICE, TO_TOKEN, VOLATILE,
};
use super::fields::{Fields, Misfit};
use super::{
    Admitted, Audience, CallType, FilterKind, PeerCommand, PeerPattern, Watch, ticket_tag,
};
use crate::address::{Address, ClientId, is_name};
use crate::error::Code;
use crate::limits::{CHANNEL_BYTES_MAX, EMIT_ROOMS_MAX, PEER_REGEX_BYTES_MAX};
use crate::message::{Flags, Message, Payload, Targets};
use crate::secret::Secret;
use crate::topic::{Filter, Topic};

/// A call that is none.
#[derive(Clone, PartialEq, Debug)]
pub enum Bad {
    /// It breaks a rule of its kind: a DONE says so.
    Refused(Box<Refusal>),
    /// It is no frame of this protocol: the connection ends, with this sentence.
    Malformed(&'static str),
}

impl From<Misfit> for Bad {
    fn from(Misfit(sentence): Misfit) -> Bad {
        Bad::Malformed(sentence)
    }
}

/// What a frame (without its size) asks for. `unix_ms`: the time of its turn, for messages.
///
/// What outlives the call is copied out of the frame, once.
///
/// # Errors
/// [`Bad`].
pub fn decode(frame: &[u8], unix_ms: u64) -> Result<Command, Bad> {
    let mut fields = Fields::of(frame);
    let kind = CallType::of(fields.u8()?).ok_or(Bad::Malformed("no call has this number"))?;
    match kind {
        CallType::Hello => hello(fields),
        CallType::Subscribe => filtered(fields, |filter, tag| Command::Subscribe { filter, tag }),
        CallType::Unsubscribe => {
            filtered(fields, |filter, tag| Command::Unsubscribe { filter, tag })
        }
        CallType::Publish => publish(fields, unix_ms),
        CallType::Emit => emit(frame),
        CallType::Request => request(frame),
        CallType::Reply => reply(fields),
        CallType::Fail => fail(fields),
        CallType::Handle => named(fields, BAD_EVENT, |event, tag| Command::Handle {
            event,
            tag,
        }),
        CallType::Unhandle => named(fields, BAD_EVENT, |event, tag| Command::Unhandle {
            event,
            tag,
        }),
        CallType::Watch => watch(fields),
        CallType::Admit => admit(fields),
        CallType::Join => member(fields, |client, room, tag| {
            peer(PeerCommand::Join { client, room, tag })
        }),
        CallType::Leave => member(fields, |client, room, tag| {
            peer(PeerCommand::Leave { client, room, tag })
        }),
        CallType::Disconnect => disconnect(fields),
        CallType::Accept => accept(fields),
        CallType::Reject => named(fields, BAD_TOKEN, |token, tag| {
            peer(PeerCommand::Reject { token, tag })
        }),
        CallType::AcceptPeer => named(fields, BAD_PEER, |name, tag| {
            peer(PeerCommand::AdmitPeer {
                name,
                admitted: true,
                tag,
            })
        }),
        CallType::RejectPeer => named(fields, BAD_PEER, |name, tag| {
            peer(PeerCommand::AdmitPeer {
                name,
                admitted: false,
                tag,
            })
        }),
        CallType::CutPeer => named(fields, BAD_PEER, |name, tag| {
            peer(PeerCommand::CutPeer { name, tag })
        }),
        CallType::Alive => bare(fields, PeerCommand::Alive),
        CallType::Bye => bare(fields, PeerCommand::Bye),
    }
}

fn peer(command: PeerCommand) -> Command {
    Command::Peer(Box::new(command))
}

/// A call without fields.
fn bare(fields: Fields<'_>, command: PeerCommand) -> Result<Command, Bad> {
    fields.end()?;
    Ok(peer(command))
}

/// What a call is answered under.
#[derive(Clone, Copy)]
struct Ticket(u64);

impl Ticket {
    fn tag(self) -> Option<Tag> {
        ticket_tag(self.0)
    }

    #[cold]
    fn refuse(self, code: Code, reason: &'static str) -> Bad {
        Bad::Refused(Box::new(Refusal {
            action: None,
            code,
            reason: Cow::Borrowed(reason),
            topic: None,
            tag: self.tag(),
        }))
    }

    /// A copy of a name of an event, a peer or a token.
    fn name(self, name: &[u8], reason: &'static str) -> Result<Bytes, Bad> {
        if is_name(name) {
            Ok(Bytes::copy_from_slice(name))
        } else {
            Err(self.refuse(Code::BadType, reason))
        }
    }

    fn event(self, event: &[u8]) -> Result<(), Bad> {
        if is_name(event) {
            Ok(())
        } else {
            Err(self.refuse(Code::BadType, BAD_EVENT))
        }
    }

    fn client(self, client: Option<ClientId>) -> Result<ClientId, Bad> {
        client.ok_or_else(|| self.refuse(Code::NoHandler, "there is no such client"))
    }

    fn room(self, room: &[u8]) -> Result<(), Bad> {
        const { assert!(CHANNEL_BYTES_MAX == 1024, "the sentence below names it") };
        if (1..=CHANNEL_BYTES_MAX).contains(&room.len()) {
            Ok(())
        } else {
            Err(self.refuse(Code::BadTopic, "a room must be 1 to 1024 bytes"))
        }
    }

    fn payload(self, kind: u8, bytes: Bytes) -> Result<Payload, Bad> {
        payload(kind, bytes).map_err(|(code, reason)| self.refuse(code, reason))
    }
}

const BAD_EVENT: &str = "an event must be 1 to 255 bytes of UTF-8 without control characters";
const BAD_PEER: &str = "a peer's name must be 1 to 255 bytes of UTF-8 without control characters";
const BAD_TOKEN: &str = "a token must be 1 to 255 bytes of UTF-8 without control characters";
const BAD_ID: &str = "an id must be 1 to 255 bytes of UTF-8 without control characters";
const BAD_FLAGS: &str = "no such flag";

/// The payload of this kind.
fn payload(kind: u8, bytes: Bytes) -> Result<Payload, (Code, &'static str)> {
    match kind {
        0 => Ok(Payload::untyped(bytes)),
        1 if json::validate(&bytes).is_ok() => Ok(Payload::json(bytes)),
        1 => Err((
            Code::BadJson,
            "the payload is no valid JSON of at most 64 levels",
        )),
        2 if simdutf8::basic::from_utf8(&bytes).is_ok() => Ok(Payload::text(bytes)),
        2 => Err((Code::BadType, "the payload is no valid UTF-8")),
        3 => Ok(Payload::binary(bytes)),
        _ => Err((Code::BadType, "there is no such kind of payload")),
    }
}

/// A publish is one copy, of what begins with the topic and ends with the payload, cut in two.
fn publish(mut fields: Fields<'_>, unix_ms: u64) -> Result<Command, Bad> {
    let ticket = Ticket(fields.u64()?);
    let (flags, topic_kind, size) = (fields.u8()?, fields.u8()?, fields.u16()?);
    let copied = fields;
    fields.bytes(usize::from(size))?;
    let kind = fields.u8()?;
    let mut bytes = Bytes::copy_from_slice({ copied }.rest());
    let name = bytes.split_to(usize::from(size));
    // The kind.
    bytes.advance(1);
    let topic = match topic_kind {
        1 => Topic::dotted(name),
        2 => Topic::channel(name),
        3 => Topic::shard(name),
        _ => return Err(ticket.refuse(Code::BadType, "there is no such kind of topic")),
    };
    let topic = topic.map_err(|error| ticket.refuse(Code::BadTopic, error.as_str()))?;
    if flags & !NOT_TO_ME != 0 {
        return Err(ticket.refuse(Code::BadType, BAD_FLAGS));
    }
    let message = Message {
        targets: Targets {
            topics: smallvec![topic],
            ..Targets::default()
        },
        event: None,
        payload: ticket.payload(kind, bytes)?,
        attachments: Vec::new(),
        origin: None,
        flags: Flags {
            not_to_origin: flags & NOT_TO_ME != 0,
            ..Flags::default()
        },
        position: None,
        unix_ms,
        envelope: None,
    };
    Ok(Command::Publish {
        message: Arc::new(message),
        tag: ticket.tag(),
    })
}

/// For one, or for many.
enum Target<'a> {
    /// One that handles the event, of this kind.
    Handler(fn(Bytes) -> Address),
    One(Address),
    Clients {
        rooms: Vec<Bytes>,
        except_rooms: Vec<Bytes>,
        except: Option<ClientId>,
    },
    Peers(u8, &'a [u8]),
}

/// The target of EMIT or REQUEST. `copy`: the frame, which names are sliced from.
fn target<'a>(ticket: Ticket, fields: &mut Fields<'a>, copy: &Bytes) -> Result<Target<'a>, Bad> {
    Ok(match fields.u8()? {
        TO_SERVICE => Target::Handler(Address::Service),
        TO_MASTER => Target::Handler(Address::Master),
        TO_ANY_PEER => Target::Handler(Address::AnyPeer),
        TO_PEER => Target::One(Address::Peer(ticket.name(fields.name()?, BAD_PEER)?)),
        TO_CLIENT => Target::One(Address::Client(ticket.client(fields.client()?)?)),
        TO_TOKEN => Target::One(Address::Token(ticket.name(fields.name()?, BAD_TOKEN)?)),
        TO_ROOMS => Target::Clients {
            rooms: rooms(ticket, fields, copy)?,
            except_rooms: rooms(ticket, fields, copy)?,
            except: match fields.u8()? {
                0 => None,
                1 => Some(ticket.client(fields.client()?)?),
                _ => return Err(Bad::Malformed("who is left out is 0 or 1 client")),
            },
        },
        TO_PEERS => Target::Peers(fields.u8()?, fields.name()?),
        _ => return Err(ticket.refuse(Code::BadType, "there is no such kind of target")),
    })
}

/// `u16` count, and names.
fn rooms(ticket: Ticket, fields: &mut Fields<'_>, copy: &Bytes) -> Result<Vec<Bytes>, Bad> {
    const { assert!(EMIT_ROOMS_MAX == 1000, "the sentence below names it") };
    let count = usize::from(fields.u16()?);
    if count > EMIT_ROOMS_MAX {
        return Err(ticket.refuse(Code::TooLarge, "an event may name at most 1000 rooms"));
    }
    let mut rooms = Vec::new();
    for _ in 0..count {
        let room = fields.name()?;
        ticket.room(room)?;
        rooms.push(copy.slice_ref(room));
    }
    Ok(rooms)
}

fn pattern(ticket: Ticket, kind: u8, pattern: &[u8]) -> Result<PeerPattern, Bad> {
    const { assert!(PEER_REGEX_BYTES_MAX == 1024, "the sentence below names it") };
    match kind {
        0 if pattern.is_empty() => Ok(PeerPattern::All),
        1 => Ok(PeerPattern::Name(ticket.name(pattern, BAD_PEER)?)),
        2 if pattern.len() > PEER_REGEX_BYTES_MAX => Err(ticket.refuse(
            Code::TooLarge,
            "a regular expression may have at most 1024 bytes",
        )),
        2 if std::str::from_utf8(pattern).is_ok() => {
            Ok(PeerPattern::Regex(Bytes::copy_from_slice(pattern)))
        }
        _ => Err(ticket.refuse(Code::BadType, "there is no such pattern of peers")),
    }
}

fn emit(frame: &[u8]) -> Result<Command, Bad> {
    let copy = Bytes::copy_from_slice(frame);
    let mut fields = Fields::of(&copy[1..]);
    let ticket = Ticket(fields.u64()?);
    let flags = fields.u8()?;
    let to = target(ticket, &mut fields, &copy)?;
    let (event, kind, bytes) = (fields.name()?, fields.u8()?, fields.rest());
    ticket.event(event)?;
    let event = copy.slice_ref(event);
    if flags & !VOLATILE != 0 {
        return Err(ticket.refuse(Code::BadType, BAD_FLAGS));
    }
    let to = match to {
        Target::Handler(handler) => Ok(handler(event.clone())),
        Target::One(address) => Ok(address),
        Target::Clients {
            rooms,
            except_rooms,
            except,
        } => Err(Audience::Clients {
            rooms,
            except_rooms,
            except,
        }),
        Target::Peers(kind, name) => Err(Audience::Peers(pattern(ticket, kind, name)?)),
    };
    let data = ticket.payload(kind, copy.slice_ref(bytes))?;
    let (volatile, tag) = (flags & VOLATILE != 0, ticket.tag());
    Ok(match to {
        Ok(to) => Command::Emit {
            to,
            event,
            data,
            volatile,
            tag,
        },
        Err(to) => peer(PeerCommand::EmitMany {
            to,
            event,
            data,
            volatile,
            tag,
        }),
    })
}

fn request(frame: &[u8]) -> Result<Command, Bad> {
    let copy = Bytes::copy_from_slice(frame);
    let mut fields = Fields::of(&copy[1..]);
    let ticket = Ticket(fields.u64()?);
    let tag = ticket
        .tag()
        .ok_or(Bad::Malformed("a request needs a ticket"))?;
    let timeout_ms = fields.u32()?;
    let to = target(ticket, &mut fields, &copy)?;
    let (event, kind, bytes) = (fields.name()?, fields.u8()?, fields.rest());
    ticket.event(event)?;
    let event = copy.slice_ref(event);
    let to = match to {
        Target::Handler(handler) => handler(event.clone()),
        Target::One(address) => address,
        Target::Clients { .. } | Target::Peers(..) => {
            return Err(ticket.refuse(Code::BadType, "a request is for one, not for many"));
        }
    };
    Ok(Command::Request {
        to,
        event,
        data: ticket.payload(kind, copy.slice_ref(bytes))?,
        tag,
        timeout_ms: (timeout_ms != 0).then_some(u64::from(timeout_ms)),
    })
}

/// A reply that breaks a rule fails the request, so that whoever asked need not wait for its deadline.
fn reply(mut fields: Fields<'_>) -> Result<Command, Bad> {
    let (number, kind) = (fields.u64()?, fields.u8()?);
    let outcome = match payload(kind, Bytes::copy_from_slice(fields.rest())) {
        Ok(payload) => Outcome::Data(payload),
        Err((code, reason)) => Outcome::refused(code, reason),
    };
    Ok(Command::Reply { number, outcome })
}

fn fail(mut fields: Fields<'_>) -> Result<Command, Bad> {
    let (number, code, reason) = (fields.u64()?, fields.name()?, fields.rest());
    let text = |bytes: &[u8]| Some(Cow::Owned(std::str::from_utf8(bytes).ok()?.to_owned()));
    let code = text(code).filter(|_| is_name(code));
    let outcome = match (code, text(reason)) {
        (Some(code), Some(reason)) => Outcome::Failed { code, reason },
        _ => Outcome::refused(Code::BadType, "the handler's refusal is no valid text"),
    };
    Ok(Command::Reply { number, outcome })
}

/// HELLO has no ticket: whoever breaks its rules is not let in.
fn hello(mut fields: Fields<'_>) -> Result<Command, Bad> {
    let (version, name, key) = (fields.u16()?, fields.name()?, fields.name()?);
    fields.end()?;
    if !is_name(name) {
        return Err(Bad::Malformed(BAD_PEER));
    }
    let key = match std::str::from_utf8(key) {
        Ok("") => None,
        Ok(key) => Some(Secret::text(key).map_err(|_| Bad::Malformed(BAD_KEY))?),
        Err(_) => return Err(Bad::Malformed(BAD_KEY)),
    };
    Ok(peer(PeerCommand::Hello {
        version,
        name: Bytes::copy_from_slice(name),
        key,
    }))
}

const BAD_KEY: &str = "a key must be UTF-8 without control characters";

/// ADMIT has no ticket: what is not clearly a yes is a no.
fn admit(mut fields: Fields<'_>) -> Result<Command, Bad> {
    let (client, verdict) = (fields.client()?, fields.u8()?);
    let (user, reason) = (fields.name()?, fields.rest());
    let client = client.ok_or(Bad::Malformed("there is no such client"))?;
    let verdict = match (verdict, user) {
        (ADMITTED, b"") => Admitted::Yes { user: None },
        (ADMITTED, user) if is_name(user) => Admitted::Yes {
            user: Some(Bytes::copy_from_slice(user)),
        },
        _ => Admitted::No {
            // For a person; what could be no such thing is left out.
            reason: if reason.len() <= CHANNEL_BYTES_MAX && std::str::from_utf8(reason).is_ok() {
                Bytes::copy_from_slice(reason)
            } else {
                Bytes::new()
            },
        },
    };
    Ok(peer(PeerCommand::Admit { client, verdict }))
}

/// SUBSCRIBE and UNSUBSCRIBE.
fn filtered(
    mut fields: Fields<'_>,
    command: impl FnOnce(Filter, Option<Tag>) -> Command,
) -> Result<Command, Bad> {
    let ticket = Ticket(fields.u64()?);
    let (kind, written) = (fields.u8()?, Bytes::copy_from_slice(fields.rest()));
    let kind = FilterKind::of_number(kind)
        .ok_or_else(|| ticket.refuse(Code::BadType, "there is no such kind of filter"))?;
    let filter = kind
        .filter(written)
        .map_err(|error| ticket.refuse(Code::BadTopic, error.as_str()))?;
    Ok(command(filter, ticket.tag()))
}

/// Calls whose one field is a name; `reason`: why it is none.
fn named(
    mut fields: Fields<'_>,
    reason: &'static str,
    command: impl FnOnce(Bytes, Option<Tag>) -> Command,
) -> Result<Command, Bad> {
    let ticket = Ticket(fields.u64()?);
    let name = ticket.name(fields.rest(), reason)?;
    Ok(command(name, ticket.tag()))
}

fn watch(mut fields: Fields<'_>) -> Result<Command, Bad> {
    let ticket = Ticket(fields.u64()?);
    let mask = Watch(fields.u32()?);
    fields.end()?;
    if !Watch::ALL.has(mask) {
        return Err(ticket.refuse(Code::BadType, "there is no such thing to watch"));
    }
    let tag = ticket.tag();
    Ok(peer(PeerCommand::Watch { mask, tag }))
}

/// JOIN and LEAVE.
fn member(
    mut fields: Fields<'_>,
    command: impl FnOnce(ClientId, Bytes, Option<Tag>) -> Command,
) -> Result<Command, Bad> {
    let ticket = Ticket(fields.u64()?);
    let (client, room) = (fields.client()?, fields.rest());
    let client = ticket.client(client)?;
    ticket.room(room)?;
    Ok(command(client, Bytes::copy_from_slice(room), ticket.tag()))
}

fn disconnect(mut fields: Fields<'_>) -> Result<Command, Bad> {
    let ticket = Ticket(fields.u64()?);
    let (client, code, reason) = (fields.client()?, fields.u16()?, fields.rest());
    let client = ticket.client(client)?;
    if !matches!(code, 1000 | 3000..=4999) {
        return Err(ticket.refuse(Code::BadType, "a close code must be 1000, or 3000 to 4999"));
    }
    if reason.len() > CLOSE_REASON_BYTES_MAX || std::str::from_utf8(reason).is_err() {
        let sentence = "a close reason must be at most 123 bytes of UTF-8";
        return Err(ticket.refuse(Code::BadType, sentence));
    }
    Ok(peer(PeerCommand::Disconnect {
        client,
        code,
        reason: Bytes::copy_from_slice(reason),
        tag: ticket.tag(),
    }))
}

/// What fits a close frame beside its code (RFC 6455, 5.5).
const CLOSE_REASON_BYTES_MAX: usize = 123;

fn accept(mut fields: Fields<'_>) -> Result<Command, Bad> {
    let ticket = Ticket(fields.u64()?);
    let (token, id) = (fields.name()?, fields.rest());
    Ok(peer(PeerCommand::Accept {
        token: ticket.name(token, BAD_TOKEN)?,
        id: match id {
            b"" => None,
            id => Some(ticket.name(id, BAD_ID)?),
        },
        tag: ticket.tag(),
    }))
}
