//! Calls: how a peer writes them, and how the broker reads them.
//!
//! A call that breaks a rule of its kind is refused, and its DONE says so. What has no ticket has nobody to tell: there
//! the connection ends, or the call is taken for the safe answer of its kind.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::smallvec;

use super::super::{Command, Outcome, Refusal, Tag, json};
use super::fields::{Fields, Misfit, Writer, kind_byte, write_frame};
use super::{
    Admitted, Audience, CallType, FilterKind, PeerCommand, PeerPattern, Watch, ticket_tag,
};
use crate::address::{Address, ClientId, is_name};
use crate::error::Code;
use crate::limits::{CHANNEL_BYTES_MAX, EMIT_ROOMS_MAX, PEER_REGEX_BYTES_MAX};
use crate::message::{Flags, Message, Payload, Targets};
use crate::secret::Secret;
use crate::topic::{Filter, Topic};

/// A call, for who makes it. See [`PeerCommand`](super::PeerCommand) and [`Command`] for what they mean.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    Hello {
        name: &'a [u8],
        key: &'a [u8],
    },
    Subscribe {
        ticket: u64,
        filter: &'a Filter,
    },
    Unsubscribe {
        ticket: u64,
        filter: &'a Filter,
    },
    /// `echo`: to me too, if I subscribe.
    Publish {
        ticket: u64,
        topic: &'a Topic,
        payload: &'a Payload,
        echo: bool,
    },
    Emit {
        ticket: u64,
        to: &'a Address,
        event: &'a [u8],
        payload: &'a Payload,
        volatile: bool,
    },
    EmitMany {
        ticket: u64,
        to: &'a Audience,
        event: &'a [u8],
        payload: &'a Payload,
        volatile: bool,
    },
    /// `timeout_ms` 0: the broker's default.
    Request {
        ticket: u64,
        to: &'a Address,
        event: &'a [u8],
        payload: &'a Payload,
        timeout_ms: u32,
    },
    Reply {
        number: u64,
        outcome: &'a Outcome,
    },
    Handle {
        ticket: u64,
        event: &'a [u8],
    },
    Unhandle {
        ticket: u64,
        event: &'a [u8],
    },
    Watch {
        ticket: u64,
        mask: Watch,
    },
    Admit {
        client: ClientId,
        verdict: &'a Admitted,
    },
    Join {
        ticket: u64,
        client: ClientId,
        room: &'a [u8],
    },
    Leave {
        ticket: u64,
        client: ClientId,
        room: &'a [u8],
    },
    Disconnect {
        ticket: u64,
        client: ClientId,
        code: u16,
        reason: &'a [u8],
    },
    /// `id` empty: have one made.
    Accept {
        ticket: u64,
        token: &'a [u8],
        id: &'a [u8],
    },
    Reject {
        ticket: u64,
        token: &'a [u8],
    },
    AdmitPeer {
        ticket: u64,
        name: &'a [u8],
        admitted: bool,
    },
    CutPeer {
        ticket: u64,
        name: &'a [u8],
    },
    Alive,
    Bye,
}

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

/// Appends a call as one frame, size included.
pub fn write_call(call: &Call<'_>, out: &mut Vec<u8>) {
    match *call {
        Call::Hello { name, key } => write_frame(CallType::Hello as u8, out, |frame| {
            frame.u16(super::VERSION).name(name).name(key);
        }),
        Call::Subscribe { ticket, filter } => {
            write_frame(CallType::Subscribe as u8, out, |frame| {
                frame
                    .u64(ticket)
                    .u8(FilterKind::of(filter) as u8)
                    .rest(filter.written());
            })
        }
        Call::Unsubscribe { ticket, filter } => {
            write_frame(CallType::Unsubscribe as u8, out, |frame| {
                frame
                    .u64(ticket)
                    .u8(FilterKind::of(filter) as u8)
                    .rest(filter.written());
            })
        }
        Call::Publish {
            ticket,
            topic,
            payload,
            echo,
        } => write_frame(CallType::Publish as u8, out, |frame| {
            frame.u64(ticket).u8(if echo { 0 } else { NOT_TO_ME });
            frame.u8(topic_byte(topic)).name(topic.as_bytes());
            write_payload(payload, frame);
        }),
        Call::Emit {
            ticket,
            to,
            event,
            payload,
            volatile,
        } => write_frame(CallType::Emit as u8, out, |frame| {
            frame.u64(ticket).u8(if volatile { VOLATILE } else { 0 });
            write_address(to, frame);
            frame.name(event);
            write_payload(payload, frame);
        }),
        Call::EmitMany {
            ticket,
            to,
            event,
            payload,
            volatile,
        } => write_frame(CallType::Emit as u8, out, |frame| {
            frame.u64(ticket).u8(if volatile { VOLATILE } else { 0 });
            write_audience(to, frame);
            frame.name(event);
            write_payload(payload, frame);
        }),
        Call::Request {
            ticket,
            to,
            event,
            payload,
            timeout_ms,
        } => write_frame(CallType::Request as u8, out, |frame| {
            frame.u64(ticket).u32(timeout_ms);
            write_address(to, frame);
            frame.name(event);
            write_payload(payload, frame);
        }),
        Call::Reply {
            number,
            outcome: Outcome::Data(payload),
        } => write_frame(CallType::Reply as u8, out, |frame| {
            frame.u64(number);
            write_payload(payload, frame);
        }),
        Call::Reply {
            number,
            outcome: Outcome::Failed { code, reason },
        } => write_frame(CallType::Fail as u8, out, |frame| {
            frame
                .u64(number)
                .name(code.as_bytes())
                .rest(reason.as_bytes());
        }),
        Call::Handle { ticket, event } => write_frame(CallType::Handle as u8, out, |frame| {
            frame.u64(ticket).rest(event);
        }),
        Call::Unhandle { ticket, event } => write_frame(CallType::Unhandle as u8, out, |frame| {
            frame.u64(ticket).rest(event);
        }),
        Call::Watch { ticket, mask } => write_frame(CallType::Watch as u8, out, |frame| {
            frame.u64(ticket).u32(mask.0);
        }),
        Call::Admit { client, verdict } => write_frame(CallType::Admit as u8, out, |frame| {
            frame.client(client);
            match verdict {
                Admitted::Yes { user } => {
                    frame.u8(ADMITTED).name(user.as_deref().unwrap_or_default());
                }
                Admitted::No { reason } => {
                    frame.u8(0).name(b"").rest(reason);
                }
            }
        }),
        Call::Join {
            ticket,
            client,
            room,
        } => write_frame(CallType::Join as u8, out, |frame| {
            frame.u64(ticket).client(client).rest(room);
        }),
        Call::Leave {
            ticket,
            client,
            room,
        } => write_frame(CallType::Leave as u8, out, |frame| {
            frame.u64(ticket).client(client).rest(room);
        }),
        Call::Disconnect {
            ticket,
            client,
            code,
            reason,
        } => write_frame(CallType::Disconnect as u8, out, |frame| {
            frame.u64(ticket).client(client).u16(code).rest(reason);
        }),
        Call::Accept { ticket, token, id } => write_frame(CallType::Accept as u8, out, |frame| {
            frame.u64(ticket).name(token).rest(id);
        }),
        Call::Reject { ticket, token } => write_frame(CallType::Reject as u8, out, |frame| {
            frame.u64(ticket).rest(token);
        }),
        Call::AdmitPeer {
            ticket,
            name,
            admitted,
        } => {
            let kind = if admitted {
                CallType::AcceptPeer
            } else {
                CallType::RejectPeer
            };
            write_frame(kind as u8, out, |frame| {
                frame.u64(ticket).rest(name);
            });
        }
        Call::CutPeer { ticket, name } => write_frame(CallType::CutPeer as u8, out, |frame| {
            frame.u64(ticket).rest(name);
        }),
        Call::Alive => write_frame(CallType::Alive as u8, out, |_| {}),
        Call::Bye => write_frame(CallType::Bye as u8, out, |_| {}),
    }
}

/// Flag of PUBLISH: leave me out.
const NOT_TO_ME: u8 = 1;
/// Flag of EMIT: may be dropped for whoever is not ready.
const VOLATILE: u8 = 1;
/// Verdict of ADMIT.
const ADMITTED: u8 = 1;

/// The kinds of target of EMIT and REQUEST.
const TO_SERVICE: u8 = 1;
const TO_MASTER: u8 = 2;
const TO_ANY_PEER: u8 = 3;
const TO_PEER: u8 = 4;
const TO_CLIENT: u8 = 5;
const TO_TOKEN: u8 = 6;
/// Of EMIT only.
const TO_ROOMS: u8 = 7;
const TO_PEERS: u8 = 8;

/// The byte of a kind of topic. Whether a name is dotted is a matter of its bytes; this says what is expected of it.
fn topic_byte(topic: &Topic) -> u8 {
    if topic.is_shard() {
        3
    } else if topic.is_dotted() {
        1
    } else {
        2
    }
}

fn write_payload(payload: &Payload, frame: &mut Writer<'_>) {
    // Of untyped bytes the broker finds out what they are, if anybody wants to know.
    frame
        .u8(payload.known_kind().map_or(0, kind_byte))
        .rest(payload.bytes());
}

fn write_address(to: &Address, frame: &mut Writer<'_>) {
    match to {
        // The event says which.
        Address::Service(_) => frame.u8(TO_SERVICE),
        Address::Master(_) => frame.u8(TO_MASTER),
        Address::AnyPeer(_) => frame.u8(TO_ANY_PEER),
        Address::Peer(name) => frame.u8(TO_PEER).name(name),
        Address::Client(client) => frame.u8(TO_CLIENT).client(*client),
        Address::Token(token) => frame.u8(TO_TOKEN).name(token),
        // That would be a publication: no target has this kind, and the call is refused.
        Address::Topic(_) => frame.u8(0),
    };
}

fn write_audience(to: &Audience, frame: &mut Writer<'_>) {
    match to {
        Audience::Clients {
            rooms,
            except_rooms,
            except,
        } => {
            frame.u8(TO_ROOMS);
            for rooms in [rooms, except_rooms] {
                // More than fit the number are more than are taken.
                let count = u16::try_from(rooms.len()).unwrap_or(u16::MAX);
                frame.u16(count);
                for room in &rooms[..usize::from(count)] {
                    frame.name(room);
                }
            }
            match except {
                None => frame.u8(0),
                Some(client) => frame.u8(1).client(*client),
            };
        }
        Audience::Peers(pattern) => {
            frame.u8(TO_PEERS);
            match pattern {
                PeerPattern::All => frame.u8(0).name(b""),
                PeerPattern::Name(name) => frame.u8(1).name(name),
                PeerPattern::Regex(regex) => frame.u8(2).name(regex),
            };
        }
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
        CallType::Publish => publish(frame, unix_ms),
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

/// A publish is one copy of the frame; its topic and payload are slices of that copy.
fn publish(frame: &[u8], unix_ms: u64) -> Result<Command, Bad> {
    let copy = Bytes::copy_from_slice(frame);
    let mut fields = Fields::of(&copy[1..]);
    let ticket = Ticket(fields.u64()?);
    let (flags, topic_kind, name) = (fields.u8()?, fields.u8()?, fields.name()?);
    let (kind, bytes) = (fields.u8()?, fields.rest());
    let name = copy.slice_ref(name);
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
        payload: ticket.payload(kind, copy.slice_ref(bytes))?,
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
