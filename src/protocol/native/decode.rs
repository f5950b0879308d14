//! A text message to a command, or to the reason why there is none.

use std::borrow::Cow;

use bytes::Bytes;
use smallvec::smallvec;

use super::super::json::{JsonError, Kind, Members};
use super::super::{Command, Outcome, Refusal};
use super::envelope::Envelope;
use super::fields::{Fields, Key, cut, is_name, name_of, own, string_of};
use super::{ID_BYTES_MAX, Stamp};
use crate::address::{Address, ClientId, SHARDS_MAX};
use crate::error::Code;
use crate::limits::NAME_BYTES_MAX;
use crate::message::{Flags, Message, Payload, Targets};
use crate::topic::{Filter, Topic};

/// One text message (valid UTF-8) to a command. `trust_peer_flag`: keep `fromPeerServer`, else strip it.
///
/// A publish is one copy of the text; its topic, payload and envelope are slices of that copy.
///
/// # Errors
/// A refusal with the rule that was broken. It carries the command's `id` and topic as far as there were any.
pub fn decode(text: &[u8], stamp: &Stamp, trust_peer_flag: bool) -> Result<Command, Refusal> {
    let mut fields = Fields::read(text).map_err(not_json)?;
    let kind = fields.string(Key::Type);
    let action = match kind.as_deref() {
        Some(b"subscribe") => "subscribe",
        Some(b"unsubscribe") => "unsubscribe",
        Some(b"publish") => "publish",
        Some(b"event") => "event",
        Some(b"request") => "request",
        Some(b"reply") => "reply",
        Some(b"handle") => "handle",
        Some(b"unhandle") => "unhandle",
        Some(b"whoami") => "whoami",
        Some(b"ping") => "ping",
        Some(other) => {
            fields.action = Some(Cow::Owned(String::from_utf8_lossy(cut(other, NAME_BYTES_MAX)).into_owned()));
            ""
        }
        None => "",
    };
    if !action.is_empty() {
        fields.action = Some(Cow::Borrowed(action));
    }
    if fields.raw(Key::Id).is_some_and(|id| id.len() > ID_BYTES_MAX) {
        return Err(fields.refuse(Code::TooLarge, "`id` must be at most 1024 bytes"));
    }
    match action {
        "subscribe" => Ok(Command::Subscribe { filter: filter(&fields)?, tag: fields.tag() }),
        "unsubscribe" => Ok(Command::Unsubscribe { filter: filter(&fields)?, tag: fields.tag() }),
        "publish" => publish(&fields, stamp, trust_peer_flag),
        "event" => Ok(Command::Emit { event: fields.event()?, data: data(&fields) }),
        "request" => request(&fields),
        "reply" => reply(&fields),
        "handle" => Ok(Command::Handle { event: fields.event()?, tag: fields.tag() }),
        "unhandle" => Ok(Command::Unhandle { event: fields.event()?, tag: fields.tag() }),
        "whoami" => Ok(Command::Whoami { tag: fields.tag() }),
        "ping" => Ok(Command::Ping { tag: fields.tag() }),
        _ if fields.action.is_some() => Err(fields.refuse(Code::BadType, "there is no such `type`")),
        _ => Err(fields.refuse(Code::BadType, "`type` must be a string")),
    }
}

#[cold]
fn not_json(error: JsonError) -> Refusal {
    let reason = Cow::Owned(format!("a text message must be one JSON object: {error}"));
    Refusal { action: None, code: Code::BadJson, reason, topic: None, tag: None }
}

const TOPIC_MISSING: &str = "`topic` must be a string of Unicode";

fn filter(fields: &Fields<'_>) -> Result<Filter, Refusal> {
    let written = fields.string(Key::Topic).ok_or_else(|| fields.refuse(Code::BadTopic, TOPIC_MISSING))?;
    // In a buffer of its own: a filter outlives the text by far.
    Filter::dotted(own(written)).map_err(|error| fields.refuse(Code::BadTopic, error.as_str()))
}

fn publish(fields: &Fields<'_>, stamp: &Stamp, trust_peer_flag: bool) -> Result<Command, Refusal> {
    let name = fields.string(Key::Topic).ok_or_else(|| fields.refuse(Code::BadTopic, TOPIC_MISSING))?;
    let not_to_origin = match fields.member(Key::Echo).map(|echo| echo.kind) {
        None | Some(Kind::True) => false,
        Some(Kind::False) => true,
        Some(_) => return Err(fields.refuse(Code::BadType, "`echo` must be true or false")),
    };
    let envelope = Envelope::of(fields, stamp, trust_peer_flag);
    let slice = |span: super::super::json::Span| envelope.bytes.slice(span.range());
    let name = match (name, envelope.topic) {
        (Cow::Borrowed(_), Some(topic)) => slice(topic.inside()),
        (name, _) => own(name),
    };
    let topic = Topic::dotted(name).map_err(|error| fields.refuse(Code::BadTopic, error.as_str()))?;
    let message = Message {
        targets: Targets { topics: smallvec![topic], ..Targets::default() },
        event: None,
        payload: Payload::Json(envelope.message.map_or(NULL, slice)),
        attachments: Vec::new(),
        origin: None,
        flags: Flags { not_to_origin, ..Flags::default() },
        position: None,
        unix_ms: stamp.unix_ms,
        envelope: Some(envelope.bytes.clone()),
    };
    Ok(Command::Publish { message, tag: envelope.id.map(slice) })
}

fn request(fields: &Fields<'_>) -> Result<Command, Refusal> {
    let event = fields.event()?;
    let tag = fields.tag().ok_or_else(|| fields.refuse(Code::BadType, "a request needs an `id`"))?;
    let to = match fields.member(Key::To) {
        None => Address::Service(event.clone()),
        Some(_) => address(fields)?,
    };
    let timeout_ms = match fields.member(Key::Timeout) {
        None => None,
        Some(timeout) => {
            let ms = if timeout.kind == Kind::Number { milliseconds(timeout.value.of(fields.text)) } else { None };
            Some(ms.ok_or_else(|| fields.refuse(Code::BadType, "`timeout` must be a number of milliseconds, not negative"))?)
        }
    };
    Ok(Command::Request { to, event, data: data(fields), tag, timeout_ms })
}

/// `peer:NAME` or `client:S`.
fn address(fields: &Fields<'_>) -> Result<Address, Refusal> {
    let to = fields.string(Key::To).unwrap_or_default();
    if let Some(name) = to.strip_prefix(b"peer:").filter(|name| is_name(name)) {
        return Ok(Address::Peer(Bytes::copy_from_slice(name)));
    }
    if let Some(client) = to.strip_prefix(b"client:") {
        let client = std::str::from_utf8(client).ok().and_then(|client| client.parse::<ClientId>().ok());
        // A number that no shard has would be a stray index further in.
        return match client.filter(|client| client.shard.index() < SHARDS_MAX) {
            Some(client) => Ok(Address::Client(client)),
            None => Err(fields.refuse(Code::NoHandler, "there is no such client")),
        };
    }
    Err(fields.refuse(Code::BadType, "`to` must be `peer:` and a name, or `client:` and a session"))
}

fn reply(fields: &Fields<'_>) -> Result<Command, Refusal> {
    let number = fields.raw(Key::Id).and_then(request_number);
    let number = number.ok_or_else(|| fields.refuse(Code::BadType, "the `id` of a reply must be the number that came with the request"))?;
    let outcome = match fields.raw(Key::Error) {
        None => Outcome::Data(data(fields)),
        Some(error) => failure(error).ok_or_else(|| fields.refuse(Code::BadType, "`error` must be an object with the strings `code` and `reason`"))?,
    };
    Ok(Command::Reply { number, outcome })
}

/// `{"code":"..","reason":".."}`
fn failure(error: &[u8]) -> Option<Outcome> {
    let (mut code, mut reason) = (None, None);
    for member in Members::of(error) {
        let member = member.ok()?;
        match &*name_of(&member, error) {
            b"code" => code = Some(member),
            b"reason" => reason = Some(member),
            _ => {}
        }
    }
    let text = |member| Some(Cow::Owned(String::from_utf8(string_of(&member?, error)?.into_owned()).ok()?));
    Some(Outcome::Failed { code: text(code)?, reason: text(reason)? })
}

const NULL: Bytes = Bytes::from_static(b"null");

fn data(fields: &Fields<'_>) -> Payload {
    Payload::Json(fields.raw(Key::Data).map_or(NULL, Bytes::copy_from_slice))
}

/// The whole milliseconds of a JSON number that is not negative; what does not fit 32 bits (49 days) is as good
/// as 32 bits of them.
fn milliseconds(number: &[u8]) -> Option<u64> {
    let ms: f64 = std::str::from_utf8(number).ok()?.parse().ok()?;
    // The cast truncates, and saturates.
    (ms >= 0.0).then_some(u64::from(ms as u32))
}

/// The digits of an integer below 2^53, which every client can hold in a JSON number.
fn request_number(raw: &[u8]) -> Option<u64> {
    if !raw.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(raw).ok()?.parse().ok().filter(|number| *number < 1 << 53)
}
