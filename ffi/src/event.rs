//! Events as C reads them: flat structs that point into a batch.
//!
//! A home of unsafe: what a batch points to is its own, until the next one takes its place.
//!
//! No event is copied or allocated for: the struct has the addresses of the bytes that the broker wrote. Only the header
//! fields of requests, which C can't read from the frame, get a table; it is used again by the next batch.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};
use std::os::fd::IntoRawFd as _;
use std::ptr::null;

use broker::address::{ClientId, SHARDS_MAX, SessionId, ShardId};
use broker::link::{Arrival, Event, HttpConnection, Watch};
use broker::message::{Kind, Payload};

use crate::call::pubsub_flag::{PUBSUB_BINARY, PUBSUB_JSON, PUBSUB_TEXT};
use crate::status::Failure;
use crate::status::pubsub_status::{self, PUBSUB_OK};

/// What a link can be told, a bit each. Those up to `PUBSUB_EV_PEER_DOWN` come to links that ask for them
/// (`pubsub_link_events`); who asks for one of a pair gets both. The others come unasked.
///
/// Which fields of `pubsub_event` are set, beside `type`; all others are 0 or NULL:
///
/// | type            | what has happened                                        | fields |
/// |-----------------|----------------------------------------------------------|--------|
/// | `CONNECT`       | a client has come in, and this link hosts it             | client, arrival |
/// | `ADMIT`         | a client wants to come in: `pubsub_admit` within 10 s    | client, arrival |
/// | `DISCONNECT`    | a client that this link hosts has gone                   | client, code (of the close frame; 1006: none), reason |
/// | `EVENT`         | an event for a handler (not to be answered)              | client or name (the sender), event, data, kind |
/// | `SUBSCRIBE`     | a client that this link hosts has subscribed             | client, topic (the filter) |
/// | `UNSUBSCRIBE`   | it has unsubscribed                                      | client, topic (the filter) |
/// | `PUBLISH`       | a client that this link hosts has published              | client, topic, data, kind |
/// | `OCCUPIED`      | a filter has got its first subscriber in the broker      | topic (the filter) |
/// | `VACATED`       | it has lost its last                                     | topic (the filter) |
/// | `PEER_UP`       | another peer has come in                                 | name |
/// | `PEER_DOWN`     | it has gone                                              | name |
/// | `LOG`           | a line of the broker's log (in this process)             | code (1: error, 2: warning, 3: info), data |
/// | `HTTP`          | a plain HTTP connection that is yours from now on        | fd (to be closed by you, or for `pubsub_link_adopt`), data (read so far), name (where it comes from), listener |
/// | `MESSAGE`       | a message to a topic that this link subscribes to        | topic, context (the subscription), filter, data, kind |
/// | `GAP`           | messages were dropped, since this link was behind        | topic, count |
/// | `REQUEST`       | a request: `pubsub_reply` or `pubsub_reply_error`, once  | request, timeout_ms, client, name (a peer), event, data, kind |
/// | `DONE`          | the answer to a call with this ticket                    | ticket, status; if that is `PUBSUB_OK`: data, kind (of a request, an accept); else error, reason |
/// | `TOKEN_UP`      | a client that this link accepted has come in             | client, name (the token) |
/// | `TOKEN_DOWN`    | it has gone                                              | client, name (the token) |
/// | `TOKEN_REJECTED`| this link has rejected this token                        | name (the token) |
/// | `UP`            | a link to a broker elsewhere is connected                | client (this link's own id) |
/// | `DOWN`          | it has lost its connection, and tries again              | reason |
/// | `CLOSED`        | the broker has let this link go; the last event          | error, reason |
/// | `STOPPED`       | the broker has stopped, or failed; the last event        | |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub enum pubsub_event_type {
    PUBSUB_EV_CONNECT = 0x1,
    PUBSUB_EV_ADMIT = 0x2,
    PUBSUB_EV_DISCONNECT = 0x4,
    PUBSUB_EV_EVENT = 0x8,
    PUBSUB_EV_SUBSCRIBE = 0x10,
    PUBSUB_EV_PUBLISH = 0x20,
    PUBSUB_EV_OCCUPIED = 0x40,
    PUBSUB_EV_PEER_UP = 0x80,
    PUBSUB_EV_LOG = 0x100,
    PUBSUB_EV_HTTP = 0x200,
    PUBSUB_EV_UNSUBSCRIBE = 0x400,
    PUBSUB_EV_VACATED = 0x800,
    PUBSUB_EV_PEER_DOWN = 0x1000,
    PUBSUB_EV_MESSAGE = 0x2000,
    PUBSUB_EV_GAP = 0x4000,
    PUBSUB_EV_REQUEST = 0x8000,
    PUBSUB_EV_DONE = 0x1_0000,
    PUBSUB_EV_TOKEN_UP = 0x2_0000,
    PUBSUB_EV_TOKEN_DOWN = 0x4_0000,
    PUBSUB_EV_TOKEN_REJECTED = 0x8_0000,
    PUBSUB_EV_UP = 0x10_0000,
    PUBSUB_EV_DOWN = 0x20_0000,
    PUBSUB_EV_CLOSED = 0x40_0000,
    PUBSUB_EV_STOPPED = 0x80_0000,
}

use pubsub_event_type::*;

/// A client of the broker. Two are the same if both halves are; all zero is none. Good as a key; never used again for another
/// client as long as the broker runs.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct pubsub_client {
    pub high: u64,
    pub low: u64,
}

/// A name or value of any bytes; not ended by NUL.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct pubsub_text {
    pub bytes: *const c_char,
    pub size: usize,
}

/// A field of a request's header.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct pubsub_header {
    /// As it came, in any case.
    pub name: pubsub_text,
    pub value: pubsub_text,
}

/// How a client has come, or wants to.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct pubsub_arrival {
    /// What it speaks: `native`, `clusterws`.
    pub protocol: pubsub_text,
    pub path: pubsub_text,
    /// Undecoded, without the question mark.
    pub query: pubsub_text,
    /// Where it comes from, as `host:port`.
    pub address: pubsub_text,
    /// Who it is by its token; empty if it showed none.
    pub user: pubsub_text,
    /// Fields of its request's header, in order.
    pub headers: *const pubsub_header,
    pub header_count: usize,
}

/// Something that a link is told. `pubsub_event_type` says what is set.
///
/// What it points to holds until the next `pubsub_link_drain` of the link, or `pubsub_link_free`. Texts and data are not ended
/// by NUL.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct pubsub_event {
    /// A `pubsub_event_type`.
    pub r#type: u32,
    /// A `pubsub_status`.
    pub status: i32,
    /// Which call this answers.
    pub ticket: u64,
    /// For `pubsub_reply`.
    pub request: u64,
    pub client: pubsub_client,
    pub topic: *const c_char,
    pub topic_size: usize,
    pub context: *const c_char,
    pub context_size: usize,
    pub event: *const c_char,
    pub event_size: usize,
    pub data: *const c_char,
    pub data_size: usize,
    /// The name of a peer, or a token.
    pub name: *const c_char,
    pub name_size: usize,
    /// A word for programs.
    pub error: *const c_char,
    pub error_size: usize,
    /// A sentence for persons.
    pub reason: *const c_char,
    pub reason_size: usize,
    pub arrival: *const pubsub_arrival,
    /// Of messages.
    pub count: u64,
    /// What `data` is: `PUBSUB_JSON`, `PUBSUB_TEXT` or `PUBSUB_BINARY`.
    pub kind: u32,
    /// What `context` is: a `pubsub_filter`.
    pub filter: u32,
    pub code: u32,
    /// In milliseconds.
    pub timeout_ms: u32,
    /// A descriptor, else -1.
    pub fd: c_int,
    /// The index of a listener.
    pub listener: u32,
    /// Nothing yet.
    pub reserved: [u32; 4],
}

/// Nothing has happened.
const NOTHING: pubsub_event = pubsub_event {
    r#type: 0,
    status: PUBSUB_OK as i32,
    ticket: 0,
    request: 0,
    client: pubsub_client { high: 0, low: 0 },
    topic: null(),
    topic_size: 0,
    context: null(),
    context_size: 0,
    event: null(),
    event_size: 0,
    data: null(),
    data_size: 0,
    name: null(),
    name_size: 0,
    error: null(),
    error_size: 0,
    reason: null(),
    reason_size: 0,
    arrival: null(),
    count: 0,
    kind: 0,
    filter: 0,
    code: 0,
    timeout_ms: 0,
    fd: -1,
    listener: 0,
    reserved: [0; 4],
};

impl pubsub_client {
    /// No client is all zero: the last byte of one is 1.
    pub fn of(id: ClientId) -> pubsub_client {
        let ClientId {
            broker,
            shard,
            session: SessionId { slot, generation },
        } = id;
        pubsub_client {
            high: broker << 16 | u64::from(shard.0) << 8 | u64::from(slot >> 24),
            low: u64::from(slot) << 40 | u64::from(generation) << 8 | 1,
        }
    }

    /// Who it is.
    ///
    /// # Errors
    /// `PUBSUB_EINVAL`: nobody could be.
    pub fn id(self) -> Result<ClientId, Failure> {
        let pubsub_client { high, low } = self;
        let shard = (high >> 8) as u8;
        if low & 0xff != 1 || usize::from(shard) >= SHARDS_MAX {
            return Err(Failure::invalid("this is no client"));
        }
        Ok(ClientId {
            broker: high >> 16,
            shard: ShardId(shard),
            session: SessionId {
                slot: (high as u32) << 24 | (low >> 40) as u32,
                generation: (low >> 8) as u32,
            },
        })
    }
}

/// What to ask the broker for so that these types come.
///
/// # Errors
/// `PUBSUB_EINVAL`: a bit means nothing.
pub fn watch_of(mask: u32) -> Result<Watch, Failure> {
    let mut watch = 0;
    let mut left = mask;
    for (types, watched) in [
        (PUBSUB_EV_CONNECT as u32, Watch::CONNECT),
        (PUBSUB_EV_ADMIT as u32, Watch::ADMIT),
        (PUBSUB_EV_DISCONNECT as u32, Watch::DISCONNECT),
        // What a client says to its host may want an answer.
        (
            PUBSUB_EV_EVENT as u32 | PUBSUB_EV_REQUEST as u32,
            Watch::EVENT,
        ),
        (
            PUBSUB_EV_SUBSCRIBE as u32 | PUBSUB_EV_UNSUBSCRIBE as u32,
            Watch::SUBSCRIBE,
        ),
        (PUBSUB_EV_PUBLISH as u32, Watch::PUBLISH),
        (
            PUBSUB_EV_OCCUPIED as u32 | PUBSUB_EV_VACATED as u32,
            Watch::TOPIC,
        ),
        (
            PUBSUB_EV_PEER_UP as u32 | PUBSUB_EV_PEER_DOWN as u32,
            Watch::PEER,
        ),
        (PUBSUB_EV_LOG as u32, Watch::LOG),
        (PUBSUB_EV_HTTP as u32, Watch::HTTP),
    ] {
        if mask & types != 0 {
            watch |= watched.0;
        }
        left &= !types;
    }
    if left & !UNASKED != 0 {
        return Err(Failure::invalid("the mask has a bit that means nothing"));
    }
    Ok(Watch(watch))
}

/// Types that come to everybody.
const UNASKED: u32 = PUBSUB_EV_MESSAGE as u32
    | PUBSUB_EV_GAP as u32
    | PUBSUB_EV_DONE as u32
    | PUBSUB_EV_TOKEN_UP as u32
    | PUBSUB_EV_TOKEN_DOWN as u32
    | PUBSUB_EV_TOKEN_REJECTED as u32
    | PUBSUB_EV_UP as u32
    | PUBSUB_EV_DOWN as u32
    | PUBSUB_EV_CLOSED as u32
    | PUBSUB_EV_STOPPED as u32;

/// The events of one drain, which the structs that C has point into.
#[derive(Default)]
pub struct Batch {
    pub events: Vec<Event>,
    arrivals: Table<pubsub_arrival>,
    headers: Table<pubsub_header>,
    /// What was read of connections that were handed over, and where they come from.
    connections: Vec<(Vec<u8>, String)>,
    /// Was the last event of the link in this batch, or before?
    pub has_ended: bool,
}

struct Table<T>(Vec<T>);

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table(Vec::new())
    }
}

// SAFETY: the pointers in it are to bytes of the same batch, which goes where its table goes; they are given to C, never
// followed here.
unsafe impl<T> Send for Table<T> {}

impl Batch {
    /// Forgets the batch before: its pointers hold no more.
    pub fn clear(&mut self) {
        self.events.clear();
        self.arrivals.0.clear();
        self.headers.0.clear();
        self.connections.clear();
    }

    /// Says what its events are, by `write` for each in order.
    pub fn tell(&mut self, mut write: impl FnMut(pubsub_event)) {
        // Both tables must have their size before anybody points into them.
        for event in &self.events {
            if let Event::Connect(arrival) | Event::Admit(arrival) = event {
                self.headers
                    .0
                    .extend(arrival.headers().map(|(name, value)| pubsub_header {
                        name: of(name),
                        value: of(value),
                    }));
            }
        }
        let mut rest = &self.headers.0[..];
        for event in &self.events {
            if let Event::Connect(arrival) | Event::Admit(arrival) = event {
                let own;
                (own, rest) = rest.split_at(arrival.headers().count());
                self.arrivals.0.push(told(arrival, own));
            }
        }
        let mut arrivals = self.arrivals.0.iter();
        for event in &mut self.events {
            let flat = match event {
                Event::Connect(arrival) | Event::Admit(arrival) => pubsub_event {
                    client: pubsub_client::of(arrival.client),
                    arrival: arrivals
                        .next()
                        .map_or(null(), |arrival| &raw const *arrival),
                    ..of_type(match event {
                        Event::Connect(_) => PUBSUB_EV_CONNECT,
                        _ => PUBSUB_EV_ADMIT,
                    })
                },
                Event::Http(_) => {
                    // The descriptor leaves with the struct; something has to be in its place.
                    let Event::Http(connection) = std::mem::replace(event, Event::Stopped) else {
                        unreachable!("it was matched")
                    };
                    let HttpConnection {
                        socket,
                        listener,
                        address,
                        bytes,
                    } = *connection;
                    let (data, data_size) = parts(&bytes);
                    let (name, name_size) = parts(address.as_bytes());
                    // Neither moves with its owner.
                    self.connections.push((bytes, address));
                    pubsub_event {
                        fd: socket.into_raw_fd(),
                        listener: u32::from(listener),
                        name,
                        name_size,
                        data,
                        data_size,
                        ..of_type(PUBSUB_EV_HTTP)
                    }
                }
                event => {
                    self.has_ended |= matches!(event, Event::Closed { .. } | Event::Stopped);
                    flat(event)
                }
            };
            write(flat);
        }
    }
}

fn of_type(r#type: pubsub_event_type) -> pubsub_event {
    pubsub_event {
        r#type: r#type as u32,
        ..NOTHING
    }
}

fn parts(bytes: &[u8]) -> (*const c_char, usize) {
    (bytes.as_ptr().cast(), bytes.len())
}

fn of(bytes: &[u8]) -> pubsub_text {
    let (bytes, size) = parts(bytes);
    pubsub_text { bytes, size }
}

fn told(arrival: &Arrival, headers: &[pubsub_header]) -> pubsub_arrival {
    pubsub_arrival {
        protocol: of(&arrival.protocol),
        path: of(&arrival.path),
        query: of(&arrival.query),
        address: of(&arrival.address),
        user: of(&arrival.user),
        headers: headers.as_ptr(),
        header_count: headers.len(),
    }
}

impl pubsub_event {
    fn topic(mut self, topic: &[u8]) -> pubsub_event {
        (self.topic, self.topic_size) = parts(topic);
        self
    }

    fn event(mut self, event: &[u8]) -> pubsub_event {
        (self.event, self.event_size) = parts(event);
        self
    }

    fn data(mut self, payload: &Payload) -> pubsub_event {
        (self.data, self.data_size) = parts(payload.bytes());
        self.kind = match payload.kind() {
            Kind::Json => PUBSUB_JSON,
            Kind::Text => PUBSUB_TEXT,
            Kind::Binary => PUBSUB_BINARY,
        } as u32;
        self
    }

    fn name(mut self, name: &[u8]) -> pubsub_event {
        if !name.is_empty() {
            (self.name, self.name_size) = parts(name);
        }
        self
    }

    fn error(mut self, error: &[u8]) -> pubsub_event {
        (self.error, self.error_size) = parts(error);
        self
    }

    fn reason(mut self, reason: &[u8]) -> pubsub_event {
        (self.reason, self.reason_size) = parts(reason);
        self
    }

    fn client(mut self, client: ClientId) -> pubsub_event {
        self.client = pubsub_client::of(client);
        self
    }
}

/// Events that are no more than their fields.
fn flat(event: &Event) -> pubsub_event {
    match event {
        Event::Done { ticket, payload } => {
            let done = pubsub_event {
                ticket: ticket.0,
                ..of_type(PUBSUB_EV_DONE)
            };
            // Most calls have nothing to say but that they took effect.
            if payload.bytes().is_empty() {
                done
            } else {
                done.data(payload)
            }
        }
        Event::Failed {
            ticket,
            code,
            reason,
        } => pubsub_event {
            ticket: ticket.0,
            status: pubsub_status::of_code(code) as i32,
            ..of_type(PUBSUB_EV_DONE)
        }
        .error(code)
        .reason(reason),
        Event::Message {
            topic,
            filter,
            context,
            payload,
        } => {
            let mut message = of_type(PUBSUB_EV_MESSAGE).topic(topic).data(payload);
            message.filter = *filter as u32;
            (message.context, message.context_size) = parts(context);
            message
        }
        Event::Gap { topic, count } => pubsub_event {
            count: *count,
            ..of_type(PUBSUB_EV_GAP)
        }
        .topic(topic),
        Event::Event {
            client,
            peer,
            event,
            payload,
        } => {
            let told = of_type(PUBSUB_EV_EVENT)
                .name(peer)
                .event(event)
                .data(payload);
            client.map_or(told, |client| told.client(client))
        }
        Event::Request {
            request,
            timeout_ms,
            client,
            peer,
            event,
            payload,
        } => pubsub_event {
            request: request.0,
            timeout_ms: *timeout_ms,
            ..of_type(PUBSUB_EV_REQUEST)
        }
        .client(*client)
        .name(peer)
        .event(event)
        .data(payload),
        Event::Disconnect {
            client,
            code,
            reason,
        } => pubsub_event {
            code: u32::from(*code),
            ..of_type(PUBSUB_EV_DISCONNECT)
        }
        .client(*client)
        .reason(reason),
        Event::Subscribed { client, up, filter } => of_type(if *up {
            PUBSUB_EV_SUBSCRIBE
        } else {
            PUBSUB_EV_UNSUBSCRIBE
        })
        .client(*client)
        .topic(filter),
        Event::Published {
            client,
            topic,
            payload,
        } => of_type(PUBSUB_EV_PUBLISH)
            .client(*client)
            .topic(topic)
            .data(payload),
        Event::Occupied { up, filter } => of_type(if *up {
            PUBSUB_EV_OCCUPIED
        } else {
            PUBSUB_EV_VACATED
        })
        .topic(filter),
        Event::Peer { up, name } => of_type(if *up {
            PUBSUB_EV_PEER_UP
        } else {
            PUBSUB_EV_PEER_DOWN
        })
        .name(name),
        Event::TokenUp { token, client } => of_type(PUBSUB_EV_TOKEN_UP).client(*client).name(token),
        Event::TokenDown { token, client } => {
            of_type(PUBSUB_EV_TOKEN_DOWN).client(*client).name(token)
        }
        Event::TokenRejected { token } => of_type(PUBSUB_EV_TOKEN_REJECTED).name(token),
        Event::Log { level, text } => {
            let mut log = of_type(PUBSUB_EV_LOG);
            (log.data, log.data_size) = parts(text);
            log.code = u32::from(*level);
            log
        }
        Event::Up { client } => of_type(PUBSUB_EV_UP).client(*client),
        Event::Down { reason } => of_type(PUBSUB_EV_DOWN).reason(reason),
        Event::Closed { code, reason } => of_type(PUBSUB_EV_CLOSED).error(code).reason(reason),
        Event::Stopped => of_type(PUBSUB_EV_STOPPED),
        Event::Connect(_) | Event::Admit(_) | Event::Http(_) => {
            unreachable!("it has more than its fields")
        }
    }
}

#[cfg(test)]
mod tests {
    use broker::link::{FilterKind, RequestId, Ticket};
    use bytes::Bytes;

    use super::*;

    fn id(broker: u64, shard: u8, slot: u32, generation: u32) -> ClientId {
        let session = SessionId { slot, generation };
        ClientId {
            broker,
            shard: ShardId(shard),
            session,
        }
    }

    #[test]
    fn clients_come_back() {
        for id in [
            id(0, 0, 0, 0),
            id((1 << 48) - 1, 127, u32::MAX, u32::MAX),
            id(0x1234_5678_9abc, 5, 0x8000_0001, 77),
        ] {
            let client = pubsub_client::of(id);
            assert_eq!(client.id().unwrap(), id);
            assert_ne!(client, pubsub_client::default());
        }
        assert!(pubsub_client::default().id().is_err());
        let of_no_shard = pubsub_client {
            high: 200 << 8,
            low: 1,
        };
        assert!(of_no_shard.id().is_err());
    }

    #[test]
    fn masks_are_translated() {
        let watch = |mask| watch_of(mask).map(|watch| watch.0).ok();
        assert_eq!(watch(0), Some(0));
        assert_eq!(
            watch(PUBSUB_EV_UNSUBSCRIBE as u32),
            Some(Watch::SUBSCRIBE.0)
        );
        assert_eq!(
            watch(PUBSUB_EV_EVENT as u32 | PUBSUB_EV_MESSAGE as u32),
            Some(Watch::EVENT.0)
        );
        assert_eq!(watch(0xff_ffff), Some(Watch::ALL.0));
        assert_eq!(watch(0x100_0000), None);
        assert_eq!(watch(u32::MAX), None);
    }

    /// The texts of a struct, read as C would.
    fn texts(event: &pubsub_event) -> String {
        let mut written = String::new();
        for (name, (bytes, size)) in [
            ("topic", (event.topic, event.topic_size)),
            ("context", (event.context, event.context_size)),
            ("event", (event.event, event.event_size)),
            ("data", (event.data, event.data_size)),
            ("name", (event.name, event.name_size)),
            ("error", (event.error, event.error_size)),
            ("reason", (event.reason, event.reason_size)),
        ] {
            if !bytes.is_null() {
                // SAFETY: it points into the batch that `tell_all` keeps.
                let text = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), size) };
                written += &format!("{name}={} ", String::from_utf8_lossy(text));
            }
        }
        written.trim_end().to_owned()
    }

    fn told(event: Event) -> (pubsub_event, String) {
        let mut batch = Batch {
            events: vec![event],
            ..Batch::default()
        };
        let mut flat = None;
        batch.tell(|event| flat = Some(event));
        let flat = flat.unwrap();
        (flat, texts(&flat))
    }

    #[test]
    fn events_are_flat() {
        let b = |text: &'static str| Bytes::from_static(text.as_bytes());
        let client = id(7, 1, 2, 3);
        let (event, texts) = told(Event::Request {
            request: RequestId(9),
            timeout_ms: 50,
            client,
            peer: b("calc-1"),
            event: b("add"),
            payload: Payload::json(b("[5,4]")),
        });
        assert_eq!(event.r#type, PUBSUB_EV_REQUEST as u32);
        assert_eq!((event.request, event.timeout_ms, event.kind), (9, 50, 1));
        assert_eq!(event.client.id().unwrap(), client);
        assert_eq!(texts, "event=add data=[5,4] name=calc-1");

        let (event, texts) = told(Event::Message {
            topic: b("news.uk"),
            filter: FilterKind::Dotted,
            context: b("news"),
            payload: Payload::binary(b("x")),
        });
        assert_eq!(
            (event.r#type, event.kind, event.fd),
            (PUBSUB_EV_MESSAGE as u32, 3, -1)
        );
        assert_eq!(texts, "topic=news.uk context=news data=x");

        let (event, texts) = told(Event::Failed {
            ticket: Ticket(4),
            code: b("no_handler"),
            reason: b("nobody"),
        });
        assert_eq!(
            (event.ticket, event.status),
            (4, pubsub_status::PUBSUB_ENOTFOUND as i32)
        );
        assert_eq!(texts, "error=no_handler reason=nobody");

        let (event, texts) = told(Event::Done {
            ticket: Ticket(5),
            payload: Payload::json(Bytes::new()),
        });
        assert_eq!((event.ticket, event.status, event.kind), (5, 0, 0));
        assert_eq!(texts, "");

        let (event, texts) = told(Event::Gap {
            topic: b("a"),
            count: 1 << 40,
        });
        assert_eq!((event.count, &*texts), (1 << 40, "topic=a"));
        let (event, _) = told(Event::Occupied {
            up: false,
            filter: b("a"),
        });
        assert_eq!(event.r#type, PUBSUB_EV_VACATED as u32);
    }

    #[test]
    fn a_handed_over_descriptor_is_the_hosts() {
        let (socket, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let (event, texts) = told(Event::Http(Box::new(HttpConnection {
            socket: socket.into(),
            listener: 3,
            address: "here".to_owned(),
            bytes: b"GET /".to_vec(),
        })));
        assert_eq!(event.listener, 3);
        assert_eq!(
            (event.r#type, &*texts),
            (PUBSUB_EV_HTTP as u32, "data=GET / name=here")
        );
        // SAFETY: it left the batch, so nobody else closes it.
        let socket = unsafe {
            <std::os::unix::net::UnixStream as std::os::fd::FromRawFd>::from_raw_fd(event.fd)
        };
        assert_eq!(socket.peer_addr().is_ok(), other.local_addr().is_ok());
    }

    #[test]
    fn the_last_event_is_known() {
        let mut batch = Batch::default();
        batch.events.push(Event::TokenRejected {
            token: Bytes::new(),
        });
        batch.tell(|_| {});
        assert!(!batch.has_ended);
        batch.clear();
        batch.events.push(Event::Stopped);
        batch.tell(|_| {});
        batch.clear();
        assert!(batch.has_ended);
    }
}
