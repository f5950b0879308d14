//! Calls: what a host says over a link.
//!
//! A home of unsafe: its names are exported, and it reads what the caller points to.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::time::Duration;

use broker::address::{Address, ClientId};
use broker::link::{Answer, Audience, Link, LinkError, PeerPattern, RequestId, Ticket};
use broker::message::Payload;
use broker::topic::{Filter, Topic};
use bytes::Bytes;

use crate::argument::{Output, bytes, list, optional_text, text};
use crate::event::{pubsub_client, pubsub_text};
use crate::link::{linked, pubsub_link};
use crate::panic::boundary;
use crate::status::Failure;
use crate::status::pubsub_status::{self, PUBSUB_OK};

/// How a call is meant, with `|` between. At most one of the first three.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub enum pubsub_flag {
    /// The data is JSON text. (Without one of these three, the broker finds out what it is.)
    PUBSUB_JSON = 1,
    /// The data is UTF-8.
    PUBSUB_TEXT = 2,
    /// The data is bytes, whatever they look like.
    PUBSUB_BINARY = 3,
    /// It may be dropped for who is not ready to take it.
    PUBSUB_VOLATILE = 4,
    /// A publish comes to this link too, if it subscribes to the topic.
    PUBSUB_ECHO = 8,
    /// The topic is a channel: any bytes, up to 1024 of them.
    PUBSUB_CHANNEL = 16,
}

const KIND_MASK: u32 = 3;
const VOLATILE: u32 = pubsub_flag::PUBSUB_VOLATILE as u32;
const ECHO: u32 = pubsub_flag::PUBSUB_ECHO as u32;
const CHANNEL: u32 = pubsub_flag::PUBSUB_CHANNEL as u32;

/// What a filter is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub enum pubsub_filter {
    /// `a.b` is `a.b` and everything below it, `*` stands for one level, and a leading `=` means exactly this depth.
    PUBSUB_DOTTED = 1,
    /// The topic of this name, any bytes up to 1024.
    PUBSUB_EXACT = 2,
    /// Topics whose names have this shape, as in Redis: `*`, `?`, `[a-z]`, `\x`; up to 255 bytes.
    PUBSUB_GLOB = 3,
    /// The shard channel of this name: a space of its own, of Redis clients (SPUBLISH).
    PUBSUB_SHARD = 4,
}

use pubsub_filter::{PUBSUB_DOTTED, PUBSUB_EXACT, PUBSUB_GLOB, PUBSUB_SHARD};

/// Whom an event or a request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub enum pubsub_to_type {
    /// One that handles the event: a client, a peer, a link of the broker's process.
    PUBSUB_TO_SERVICE = 0,
    /// One that handles it among the links of the broker's process.
    PUBSUB_TO_MASTER = 1,
    /// One that handles it among the peers from elsewhere, but not the sender.
    PUBSUB_TO_ANY_PEER = 2,
    /// The peer of this name.
    PUBSUB_TO_PEER = 3,
    /// This client.
    PUBSUB_TO_CLIENT = 4,
    /// The client that this link has accepted by this token.
    PUBSUB_TO_TOKEN = 5,
}

/// Whom an event or a request is for; made by `pubsub_to_client` and the other functions beside it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct pubsub_to {
    /// A `pubsub_to_type`.
    pub r#type: u32,
    pub client: pubsub_client,
    /// Of a peer, or a token.
    pub name: *const c_char,
    pub name_size: usize,
}

/// Clients in rooms: those in any of `rooms` (in all, if there is none), without those in any of `except_rooms`, and without
/// `except` (all zero: nobody). Each gets an event once.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct pubsub_rooms {
    pub rooms: *const pubsub_text,
    pub room_count: usize,
    pub except_rooms: *const pubsub_text,
    pub except_room_count: usize,
    pub except: pubsub_client,
}

/// Which peers, by their names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub enum pubsub_match {
    /// Every one.
    PUBSUB_ALL = 0,
    /// The one of this name.
    PUBSUB_NAME = 1,
    /// Those whose names a regular expression matches, anywhere unless it says otherwise (`^calc-`).
    PUBSUB_REGEX = 2,
}

/// Makes a call, with a ticket if the caller wants one.
///
/// # Safety
/// `ticket` is NULL or points to room for a number.
unsafe fn call(
    link: *const pubsub_link,
    ticket: *mut u64,
    make: impl FnOnce(&Link, Answer) -> Result<Ticket, Failure>,
) -> pubsub_status {
    boundary(|| {
        let linked = linked(link)?;
        let output = Output::optional(ticket, "ticket")?;
        let answer = match output {
            Some(_) => Answer::Wanted,
            None => Answer::Unwanted,
        };
        let made = make(&linked.link, answer)?;
        if let Some(output) = output {
            // SAFETY: the caller's.
            unsafe { output.write(made.0) };
        }
        Ok(())
    })
}

/// Publishes data under a topic, to everybody whose filter matches: clients of every protocol, other peers and links, but not
/// this link. `PUBSUB_OK` means that the broker will.
///
/// `topic` is 1 to 255 bytes of UTF-8, in levels with dots between; the broker finds out whether the data, up to 1 MiB, is
/// JSON, text or bytes. Both are copied. Any thread; calls of one thread take effect in their order.
///
/// `PUBSUB_EFULL`: too many calls wait already. `PUBSUB_EINVAL`, `PUBSUB_ESTOPPED`.
///
/// # Safety
/// `topic` and `data` point to as many bytes as their sizes say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_publish(
    link: *mut pubsub_link,
    topic: *const c_char,
    topic_size: usize,
    data: *const c_void,
    data_size: usize,
) -> pubsub_status {
    // SAFETY: the caller's, the same.
    unsafe {
        pubsub_publish_with(
            link,
            topic,
            topic_size,
            data,
            data_size,
            0,
            std::ptr::null_mut(),
        )
    }
}

/// The same with flags: what the data is, `PUBSUB_ECHO`, `PUBSUB_CHANNEL`. Answered when every shard with subscribers has it.
///
/// # Safety
/// As for `pubsub_publish`; `ticket` is NULL or points to room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_publish_with(
    link: *mut pubsub_link,
    topic: *const c_char,
    topic_size: usize,
    data: *const c_void,
    data_size: usize,
    flags: u32,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        check_flags(flags, ECHO | CHANNEL)?;
        // SAFETY: the header asks for so many bytes.
        let (name, payload) = unsafe {
            (
                copied(topic.cast(), topic_size, "topic")?,
                payload(data, data_size, flags)?,
            )
        };
        let topic = if flags & CHANNEL == 0 {
            Topic::dotted(name)
        } else {
            Topic::channel(name)
        };
        let topic = topic.map_err(LinkError::from)?;
        Ok(link.publish(&topic, &payload, flags & ECHO != 0, answer)?)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// Subscribes to a dotted filter: from the answer on, messages that match come as `PUBSUB_EV_MESSAGE`.
///
/// `ticket` is where the call's number goes, or NULL: with a number one `PUBSUB_EV_DONE` comes that has it. That may be before
/// the number is written, if another thread drains. Any thread.
///
/// # Safety
/// `filter` points to `filter_size` bytes, `ticket` is NULL or points to room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_subscribe(
    link: *mut pubsub_link,
    filter: *const c_char,
    filter_size: usize,
    ticket: *mut u64,
) -> pubsub_status {
    // SAFETY: the caller's, the same.
    unsafe { pubsub_subscribe_with(link, PUBSUB_DOTTED as u32, filter, filter_size, ticket) }
}

/// The same with a filter of any kind (`pubsub_filter`).
///
/// # Safety
/// As for `pubsub_subscribe`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_subscribe_with(
    link: *mut pubsub_link,
    kind: u32,
    filter: *const c_char,
    filter_size: usize,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        // SAFETY: the header asks for so many bytes.
        let filter = unsafe { filter_of(kind, filter, filter_size)? };
        Ok(link.subscribe(&filter, answer)?)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// Ends a subscription to a dotted filter: after the answer, no message comes because of it. Answered also if there was none.
///
/// # Safety
/// As for `pubsub_subscribe`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_unsubscribe(
    link: *mut pubsub_link,
    filter: *const c_char,
    filter_size: usize,
    ticket: *mut u64,
) -> pubsub_status {
    // SAFETY: the caller's, the same.
    unsafe { pubsub_unsubscribe_with(link, PUBSUB_DOTTED as u32, filter, filter_size, ticket) }
}

/// The same with a filter of any kind (`pubsub_filter`).
///
/// # Safety
/// As for `pubsub_subscribe`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_unsubscribe_with(
    link: *mut pubsub_link,
    kind: u32,
    filter: *const c_char,
    filter_size: usize,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        // SAFETY: the header asks for so many bytes.
        let filter = unsafe { filter_of(kind, filter, filter_size)? };
        Ok(link.unsubscribe(&filter, answer)?)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// Subscribes to a channel, counted: the first call of a channel subscribes to it (as `PUBSUB_EXACT`), later ones count up. One
/// `PUBSUB_EV_DONE` comes for each, when the subscription holds. Any thread.
///
/// # Safety
/// `channel` points to `channel_size` bytes, `ticket` to room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_maybe_subscribe(
    link: *mut pubsub_link,
    channel: *const c_char,
    channel_size: usize,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        wanted(answer)?;
        // SAFETY: the header asks for so many bytes.
        let channel = unsafe { bytes(channel.cast(), channel_size, "channel")? };
        Ok(link.maybe_subscribe(channel)?)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// Counts a channel down; the last unsubscribes. One that was not counted up is left alone. One `PUBSUB_EV_DONE` comes for each.
///
/// # Safety
/// As for `pubsub_maybe_subscribe`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_maybe_unsubscribe(
    link: *mut pubsub_link,
    channel: *const c_char,
    channel_size: usize,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        wanted(answer)?;
        // SAFETY: the header asks for so many bytes.
        let channel = unsafe { bytes(channel.cast(), channel_size, "channel")? };
        Ok(link.maybe_unsubscribe(channel)?)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// An event for one: `pubsub_to_client(event.client)`, `pubsub_to_peer("calc-1")`, `pubsub_to_service()` ... Flags: what the
/// data is, `PUBSUB_VOLATILE`. Answered when it is on its way, or by `PUBSUB_ENOTFOUND`. Any thread.
///
/// `event` is 1 to 255 bytes, the data up to 1 MiB; all is copied.
///
/// # Safety
/// Each pointer is to as many bytes as its size says; `ticket` is NULL or points to room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_emit(
    link: *mut pubsub_link,
    to: pubsub_to,
    event: *const c_char,
    event_size: usize,
    data: *const c_void,
    data_size: usize,
    flags: u32,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        check_flags(flags, VOLATILE)?;
        // SAFETY: the header asks for so many bytes.
        let (event, payload) = unsafe {
            (
                bytes(event.cast(), event_size, "event")?,
                payload(data, data_size, flags)?,
            )
        };
        // SAFETY: the header asks for so many bytes.
        let to = unsafe { address(&to, event)? };
        Ok(link.emit(&to, event, &payload, flags & VOLATILE != 0, answer)?)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// Asks one, as `pubsub_emit` says whom. The answer is the `PUBSUB_EV_DONE` with this ticket: `PUBSUB_OK` and data, or an error:
/// `PUBSUB_ENOTFOUND` (nobody handles it), `PUBSUB_ETIMEOUT`, `PUBSUB_EFAILED` (what the handler says is in `error` and `reason`).
/// `timeout_ms` 0 is the broker's default, a minute, which is also the most. Any thread.
///
/// # Safety
/// As for `pubsub_emit`; `ticket` points to room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_request(
    link: *mut pubsub_link,
    to: pubsub_to,
    event: *const c_char,
    event_size: usize,
    data: *const c_void,
    data_size: usize,
    flags: u32,
    timeout_ms: u32,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        wanted(answer)?;
        check_flags(flags, 0)?;
        // SAFETY: the header asks for so many bytes.
        let (event, payload) = unsafe {
            (
                bytes(event.cast(), event_size, "event")?,
                payload(data, data_size, flags)?,
            )
        };
        // SAFETY: the header asks for so many bytes.
        let to = unsafe { address(&to, event)? };
        let timeout = Duration::from_millis(u64::from(timeout_ms));
        Ok(link.request(&to, event, &payload, timeout)?)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// Answers a request, once. The broker finds out what the data is. `PUBSUB_ENOTFOUND`: it was answered, or its time is over.
/// Any thread.
///
/// # Safety
/// `data` points to `data_size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_reply(
    link: *mut pubsub_link,
    request: u64,
    data: *const c_void,
    data_size: usize,
) -> pubsub_status {
    // SAFETY: the caller's, the same.
    unsafe { pubsub_reply_with(link, request, data, data_size, 0) }
}

/// The same with a flag: what the data is.
///
/// # Safety
/// As for `pubsub_reply`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_reply_with(
    link: *mut pubsub_link,
    request: u64,
    data: *const c_void,
    data_size: usize,
    flags: u32,
) -> pubsub_status {
    boundary(|| {
        let linked = linked(link)?;
        check_flags(flags, 0)?;
        // SAFETY: the header asks for so many bytes.
        let payload = unsafe { payload(data, data_size, flags)? };
        Ok(linked.link.reply(RequestId(request), payload)?)
    })
}

/// Answers a request by an error: a code for programs (1 to 255 bytes), a reason for persons (up to 1024). Any thread.
///
/// # Safety
/// Both texts end with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_reply_error(
    link: *mut pubsub_link,
    request: u64,
    code: *const c_char,
    reason: *const c_char,
) -> pubsub_status {
    boundary(|| {
        let linked = linked(link)?;
        // SAFETY: the header asks for texts that end.
        let (code, reason) = unsafe { (text(code, "code")?, text(reason, "reason")?) };
        Ok(linked.link.reply_error(RequestId(request), code, reason)?)
    })
}

/// From the answer on, requests and events of this name may come to this link, as to others that handle it. Any thread.
///
/// # Safety
/// `event` points to `event_size` bytes, `ticket` is NULL or points to room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_handle(
    link: *mut pubsub_link,
    event: *const c_char,
    event_size: usize,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        // SAFETY: the header asks for so many bytes.
        let event = unsafe { bytes(event.cast(), event_size, "event")? };
        Ok(link.handle(event, answer)?)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// After the answer, none will.
///
/// # Safety
/// As for `pubsub_handle`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_unhandle(
    link: *mut pubsub_link,
    event: *const c_char,
    event_size: usize,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        // SAFETY: the header asks for so many bytes.
        let event = unsafe { bytes(event.cast(), event_size, "event")? };
        Ok(link.unhandle(event, answer)?)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// Answers `PUBSUB_EV_ADMIT`. With `PUBSUB_OK` the client comes in; with any other status it is refused (401), for this reason
/// (up to 1024 bytes; NULL: none is told). Who is not answered for within 10 s is refused. Any thread.
///
/// # Safety
/// `reason` is a text that ends with NUL, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_admit(
    link: *mut pubsub_link,
    client: pubsub_client,
    status: c_int,
    reason: *const c_char,
) -> pubsub_status {
    boundary(|| {
        let linked = linked(link)?;
        let client = client.id()?;
        // SAFETY: the header asks for a text that ends.
        let reason = unsafe { optional_text(reason, "reason")? };
        let made = match status == PUBSUB_OK as c_int {
            true => linked.link.admit(client, None),
            false => linked.link.refuse(client, reason.unwrap_or_default()),
        };
        Ok(made?)
    })
}

/// Lets a client in as this user (up to 1024 bytes), whatever its token says. Any thread.
///
/// # Safety
/// `user` is a text that ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_admit_as(
    link: *mut pubsub_link,
    client: pubsub_client,
    user: *const c_char,
) -> pubsub_status {
    boundary(|| {
        let linked = linked(link)?;
        let client = client.id()?;
        // SAFETY: the header asks for a text that ends.
        let user = unsafe { text(user, "user")? };
        Ok(linked.link.admit(client, Some(user))?)
    })
}

/// This client is in this room (up to 1024 bytes, any) from now on: what is emitted to the room after this call reaches it.
/// Any thread.
///
/// # Safety
/// `room` points to `room_size` bytes, `ticket` is NULL or points to room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_join(
    link: *mut pubsub_link,
    client: pubsub_client,
    room: *const c_char,
    room_size: usize,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        let client = client.id()?;
        // SAFETY: the header asks for so many bytes.
        let room = unsafe { bytes(room.cast(), room_size, "room")? };
        Ok(link.join(client, room, answer)?)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// It is in the room no more.
///
/// # Safety
/// As for `pubsub_join`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_leave(
    link: *mut pubsub_link,
    client: pubsub_client,
    room: *const c_char,
    room_size: usize,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        let client = client.id()?;
        // SAFETY: the header asks for so many bytes.
        let room = unsafe { bytes(room.cast(), room_size, "room")? };
        Ok(link.leave(client, room, answer)?)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// Closes a client's connection, after what was said to it so far: with a WebSocket close code, 1000 or 3000 to 4999, and a
/// reason of up to 123 bytes, or NULL. Any thread.
///
/// # Safety
/// `reason` is a text that ends with NUL, or NULL; `ticket` is NULL or points to room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_disconnect(
    link: *mut pubsub_link,
    client: pubsub_client,
    code: u32,
    reason: *const c_char,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        let client = client.id()?;
        // SAFETY: the header asks for a text that ends.
        let reason = unsafe { optional_text(reason, "reason")? };
        // What does not fit is no code either.
        let code = u16::try_from(code).unwrap_or(0);
        Ok(link.disconnect(client, code, reason.unwrap_or_default(), answer)?)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// An event for the clients in a room. Flags: what the data is, `PUBSUB_VOLATILE`. Any thread.
///
/// # Safety
/// As for `pubsub_emit`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_emit_room(
    link: *mut pubsub_link,
    room: *const c_char,
    room_size: usize,
    event: *const c_char,
    event_size: usize,
    data: *const c_void,
    data_size: usize,
    flags: u32,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        // SAFETY: the header asks for so many bytes.
        let room = unsafe { copied(room.cast(), room_size, "room")? };
        let to = Audience::Clients {
            rooms: vec![room],
            except_rooms: Vec::new(),
            except: None,
        };
        // SAFETY: the header asks for so many bytes.
        let said = unsafe { Said::read(event, event_size, data, data_size, flags)? };
        said.to(link, &to, answer)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// An event for the clients in several rooms, or outside some; each gets it once. Otherwise as `pubsub_emit_room`.
///
/// # Safety
/// As for `pubsub_emit`, and for the texts that `to` points to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_emit_rooms(
    link: *mut pubsub_link,
    to: *const pubsub_rooms,
    event: *const c_char,
    event_size: usize,
    data: *const c_void,
    data_size: usize,
    flags: u32,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        // SAFETY: the header asks for one, and for the texts that it points to.
        let to = unsafe { audience(to)? };
        // SAFETY: the header asks for so many bytes.
        let said = unsafe { Said::read(event, event_size, data, data_size, flags)? };
        said.to(link, &to, answer)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// An event for every client of the broker. Otherwise as `pubsub_emit_room`.
///
/// # Safety
/// As for `pubsub_emit`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_emit_all(
    link: *mut pubsub_link,
    event: *const c_char,
    event_size: usize,
    data: *const c_void,
    data_size: usize,
    flags: u32,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        let to = Audience::Clients {
            rooms: Vec::new(),
            except_rooms: Vec::new(),
            except: None,
        };
        // SAFETY: the header asks for so many bytes.
        let said = unsafe { Said::read(event, event_size, data, data_size, flags)? };
        said.to(link, &to, answer)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// An event for other peers: all, one by its name, or those whose names match (`pubsub_match`); never for this link itself.
/// A pattern that is none is answered by `PUBSUB_EINVAL`. Otherwise as `pubsub_emit_room`.
///
/// # Safety
/// As for `pubsub_emit`; `pattern` points to `pattern_size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_emit_peers(
    link: *mut pubsub_link,
    matching: u32,
    pattern: *const c_char,
    pattern_size: usize,
    event: *const c_char,
    event_size: usize,
    data: *const c_void,
    data_size: usize,
    flags: u32,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        // SAFETY: the header asks for so many bytes.
        let pattern = unsafe { copied(pattern.cast(), pattern_size, "pattern")? };
        let peers = match matching {
            all if all == pubsub_match::PUBSUB_ALL as u32 => PeerPattern::All,
            name if name == pubsub_match::PUBSUB_NAME as u32 => PeerPattern::Name(pattern),
            regex if regex == pubsub_match::PUBSUB_REGEX as u32 => PeerPattern::Regex(pattern),
            _ => return Err(Failure::invalid("there is no such way to match peers")),
        };
        // SAFETY: the header asks for so many bytes.
        let said = unsafe { Said::read(event, event_size, data, data_size, flags)? };
        said.to(link, &Audience::Peers(peers), answer)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// Lets a client in that shows an id (`?id=` in its URL): this one, or a random one if `id` is NULL. The `PUBSUB_EV_DONE` with this
/// ticket has the id as its data. From then on the client may be spoken to as `pubsub_to_token`. Said again, it is answered with
/// the same id. Any thread.
///
/// # Safety
/// `token` points to `token_size` bytes (1 to 255), `id` is a text that ends with NUL, or NULL; `ticket` points to room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_accept(
    link: *mut pubsub_link,
    token: *const c_char,
    token_size: usize,
    id: *const c_char,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        wanted(answer)?;
        // SAFETY: the header asks for so many bytes, and for a text that ends.
        let (token, id) = unsafe {
            (
                bytes(token.cast(), token_size, "token")?,
                optional_text(id, "id")?,
            )
        };
        Ok(link.accept(token, id)?)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// Lets the client of this token in no more, and cuts it if it is in. `PUBSUB_EV_TOKEN_REJECTED` tells that it was done. Any thread.
///
/// # Safety
/// `token` points to `token_size` bytes, `ticket` is NULL or points to room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_reject(
    link: *mut pubsub_link,
    token: *const c_char,
    token_size: usize,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        // SAFETY: the header asks for so many bytes.
        let token = unsafe { bytes(token.cast(), token_size, "token")? };
        Ok(link.reject(token, answer)?)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// Lets a peer of this name in. From the first such call on, only peers that were let in may come. Only for links of the
/// broker's own process. Any thread.
///
/// # Safety
/// `name` is a text that ends with NUL, `ticket` is NULL or points to room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_admit_peer(
    link: *mut pubsub_link,
    name: *const c_char,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        // SAFETY: the header asks for a text that ends.
        let name = unsafe { text(name, "name")? };
        Ok(link.admit_peer(name, answer)?)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// A peer of this name comes in no more; if it is in, it stays. Otherwise as `pubsub_admit_peer`.
///
/// # Safety
/// As for `pubsub_admit_peer`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_reject_peer(
    link: *mut pubsub_link,
    name: *const c_char,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        // SAFETY: the header asks for a text that ends.
        let name = unsafe { text(name, "name")? };
        Ok(link.reject_peer(name, answer)?)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// Cuts the connection of the peer of this name. Otherwise as `pubsub_admit_peer`.
///
/// # Safety
/// As for `pubsub_admit_peer`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_cut_peer(
    link: *mut pubsub_link,
    name: *const c_char,
    ticket: *mut u64,
) -> pubsub_status {
    let make = |link: &Link, answer: Answer| {
        // SAFETY: the header asks for a text that ends.
        let name = unsafe { text(name, "name")? };
        Ok(link.cut_peer(name, answer)?)
    };
    // SAFETY: the header asks for room.
    unsafe { call(link, ticket, make) }
}

/// Writes the id of a client, 20 characters and a NUL: what `whoami` answers in native JSON, for logs and for other programs. Any
/// thread.
///
/// # Safety
/// `text` points to 21 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_client_text(
    client: pubsub_client,
    text: *mut c_char,
) -> pubsub_status {
    boundary(|| {
        let written = client.id()?.to_string();
        if text.is_null() {
            return Err(Failure::invalid("text is NULL"));
        }
        // SAFETY: the header asks for 21 bytes, and an id has 20 characters.
        unsafe {
            std::ptr::copy_nonoverlapping(written.as_ptr().cast(), text, ClientId::WRITTEN_SIZE);
            text.add(ClientId::WRITTEN_SIZE).write(0);
        }
        Ok(())
    })
}

/// Reads such an id. Any thread.
///
/// # Safety
/// `text` is a text that ends with NUL, `client` points to room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_client_parse(
    text: *const c_char,
    client: *mut pubsub_client,
) -> pubsub_status {
    boundary(|| {
        let output = Output::new(client, "client")?;
        // SAFETY: the header asks for a text that ends.
        let text = unsafe { crate::argument::text(text, "text")? };
        let id = text.parse::<ClientId>();
        let id = id.map_err(|_| Failure::invalid("this is no id of a client"))?;
        // SAFETY: the header asks for room.
        unsafe { output.write(pubsub_client::of(id)) };
        Ok(())
    })
}

/// An event for many.
struct Said<'a> {
    event: &'a [u8],
    payload: Payload,
    volatile: bool,
}

impl<'a> Said<'a> {
    /// # Safety
    /// Each pointer is to as many bytes as its size says.
    unsafe fn read(
        event: *const c_char,
        event_size: usize,
        data: *const c_void,
        data_size: usize,
        flags: u32,
    ) -> Result<Said<'a>, Failure> {
        check_flags(flags, VOLATILE)?;
        // SAFETY: the caller's.
        let (event, payload) = unsafe {
            (
                bytes(event.cast(), event_size, "event")?,
                payload(data, data_size, flags)?,
            )
        };
        Ok(Said {
            event,
            payload,
            volatile: flags & VOLATILE != 0,
        })
    }

    fn to(&self, link: &Link, to: &Audience, answer: Answer) -> Result<Ticket, Failure> {
        Ok(link.emit_many(to, self.event, &self.payload, self.volatile, answer)?)
    }
}

/// A call whose answer is all that it is for.
fn wanted(answer: Answer) -> Result<(), Failure> {
    match answer {
        Answer::Wanted => Ok(()),
        Answer::Unwanted => Err(Failure::invalid("ticket is NULL")),
    }
}

/// Only flags that mean something here, beside what the data is.
fn check_flags(flags: u32, allowed: u32) -> Result<(), Failure> {
    if flags & !(KIND_MASK | allowed) != 0 {
        return Err(Failure::invalid("a flag means nothing here"));
    }
    Ok(())
}

/// # Safety
/// As for [`bytes`].
unsafe fn copied(data: *const c_void, size: usize, what: &'static str) -> Result<Bytes, Failure> {
    // SAFETY: the caller's.
    Ok(Bytes::copy_from_slice(unsafe { bytes(data, size, what)? }))
}

/// # Safety
/// As for [`bytes`].
unsafe fn payload(data: *const c_void, size: usize, flags: u32) -> Result<Payload, Failure> {
    // SAFETY: the caller's.
    let data = unsafe { copied(data, size, "data")? };
    Ok(match flags & KIND_MASK {
        0 => Payload::untyped(data),
        1 => Payload::json(data),
        2 => Payload::text(data),
        _ => Payload::binary(data),
    })
}

/// # Safety
/// As for [`bytes`].
unsafe fn filter_of(kind: u32, filter: *const c_char, size: usize) -> Result<Filter, Failure> {
    // SAFETY: the caller's.
    let written = unsafe { copied(filter.cast(), size, "filter")? };
    let filter = match kind {
        dotted if dotted == PUBSUB_DOTTED as u32 => Filter::dotted(written),
        exact if exact == PUBSUB_EXACT as u32 => Filter::exact(written),
        glob if glob == PUBSUB_GLOB as u32 => Filter::glob(written),
        shard if shard == PUBSUB_SHARD as u32 => Filter::shard(written),
        _ => return Err(Failure::invalid("there is no such kind of filter")),
    };
    Ok(filter.map_err(LinkError::from)?)
}

/// # Safety
/// As for [`bytes`], of its name.
unsafe fn address(to: &pubsub_to, event: &[u8]) -> Result<Address, Failure> {
    // SAFETY: the caller's.
    let name = || unsafe { copied(to.name.cast(), to.name_size, "name") };
    let event = || Bytes::copy_from_slice(event);
    use pubsub_to_type::*;
    Ok(match to.r#type {
        to if to == PUBSUB_TO_SERVICE as u32 => Address::Service(event()),
        to if to == PUBSUB_TO_MASTER as u32 => Address::Master(event()),
        to if to == PUBSUB_TO_ANY_PEER as u32 => Address::AnyPeer(event()),
        to if to == PUBSUB_TO_PEER as u32 => Address::Peer(name()?),
        to if to == PUBSUB_TO_TOKEN as u32 => Address::Token(name()?),
        of_client if of_client == PUBSUB_TO_CLIENT as u32 => Address::Client(to.client.id()?),
        _ => return Err(Failure::invalid("there is no such addressee")),
    })
}

/// # Safety
/// `to` is NULL or to an object whose lists are as long as it says, of texts that are.
unsafe fn audience(to: *const pubsub_rooms) -> Result<Audience, Failure> {
    // SAFETY: the caller's.
    let [to] = (unsafe { list(to, 1, "to")? }) else {
        return Err(Failure::invalid("to is NULL"));
    };
    let rooms = |first, count, what| {
        // SAFETY: the caller's.
        let texts = unsafe { list::<pubsub_text>(first, count, what)? };
        let rooms = texts.iter().map(|room| {
            // SAFETY: the caller's.
            unsafe { copied(room.bytes.cast(), room.size, "a room") }
        });
        rooms.collect::<Result<Vec<Bytes>, Failure>>()
    };
    let is_nobody = to.except == pubsub_client::default();
    Ok(Audience::Clients {
        rooms: rooms(to.rooms, to.room_count, "rooms")?,
        except_rooms: rooms(to.except_rooms, to.except_room_count, "except_rooms")?,
        except: (!is_nobody).then(|| to.except.id()).transpose()?,
    })
}
