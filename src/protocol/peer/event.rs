//! Events: how the broker writes them, and how a peer reads them.

use super::super::{Event, Outcome};
use super::fields::{Fields, Misfit, Writer, kind_byte, write_frame};
use super::{Arrival, EventType, FilterKind, PeerEvent, VERSION, tag_ticket};
use crate::address::{ClientId, Sender};
use crate::message::{Kind, Payload};

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
    /// `filter` and `context`: which subscription, as it was written.
    Message {
        topic: &'a [u8],
        filter: FilterKind,
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

impl From<Misfit> for Malformed {
    fn from(Misfit(sentence): Misfit) -> Malformed {
        Malformed(sentence)
    }
}

/// The header fields of an arrival, in order.
pub fn headers(raw: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut fields = Fields::of(raw);
    let count = fields.u16().unwrap_or_default();
    (0..count).map_while(move |_| Some((fields.name().ok()?, fields.text().ok()?)))
}

/// The status of DONE.
const OK: u8 = 0;
const FAILED: u8 = 1;

/// Appends an event as one frame, size included. What peers have no words for adds nothing.
pub fn encode(event: &Event<'_>, out: &mut Vec<u8>) {
    match event {
        Event::Ack { tag, .. } => write_done(tag_ticket(*tag), Done::Nothing, out),
        Event::Refused(refusal) => {
            let (code, reason) = (refusal.code.as_str(), &refusal.reason);
            write_done(
                tag_ticket(refusal.tag.as_ref()),
                Done::Failed(code, reason),
                out,
            );
        }
        Event::Reply { tag, outcome } => write_done(tag_ticket(Some(tag)), Done::of(outcome), out),
        Event::Request {
            event,
            data,
            number,
            from,
            timeout_ms,
        } => write_frame(EventType::Request as u8, out, |frame| {
            frame.u64(*number);
            frame.u32(u32::try_from(*timeout_ms).unwrap_or(u32::MAX));
            write_sender(from, frame);
            frame.name(event);
            write_payload(data, frame);
        }),
        Event::Emitted { event, data, from } => {
            write_frame(EventType::Event as u8, out, |frame| {
                match from {
                    None => {
                        frame.u8(0);
                    }
                    Some(from) => write_sender(from, frame.u8(1)),
                }
                frame.name(event);
                write_payload(data, frame);
            });
        }
        Event::Gap { topic, count } => write_frame(EventType::Gap as u8, out, |frame| {
            frame.u64(*count).rest(topic);
        }),
        Event::Peer(event) => encode_own(event, out),
        // A peer asks neither.
        Event::Session { .. } | Event::Pong { .. } => {}
    }
}

/// What only peers are told.
fn encode_own(event: &PeerEvent<'_>, out: &mut Vec<u8>) {
    match *event {
        PeerEvent::Welcome { client } => write_frame(EventType::Welcome as u8, out, |frame| {
            frame.u16(VERSION).client(client);
        }),
        PeerEvent::Done { tag, outcome } => {
            write_done(tag_ticket(Some(tag)), Done::of(outcome), out);
        }
        PeerEvent::Connect(arrival) => write_arrival(EventType::Connect, arrival, out),
        PeerEvent::Admit(arrival) => write_arrival(EventType::Admit, arrival, out),
        PeerEvent::Disconnect {
            client,
            code,
            reason,
        } => write_frame(EventType::Disconnect as u8, out, |frame| {
            frame.client(client).u16(code).rest(reason);
        }),
        PeerEvent::Subscribed { client, up, filter } => {
            let kind = either(up, EventType::Subscribed, EventType::Unsubscribed);
            write_frame(kind, out, |frame| {
                frame.client(client).rest(filter);
            });
        }
        PeerEvent::Published {
            client,
            topic,
            data,
        } => write_frame(EventType::Published as u8, out, |frame| {
            frame.client(client).name(topic);
            write_payload(data, frame);
        }),
        PeerEvent::Occupied { up, filter } => {
            let kind = either(up, EventType::Occupied, EventType::Vacated);
            write_frame(kind, out, |frame| {
                frame.rest(filter);
            });
        }
        PeerEvent::Peer { up, name } => {
            let kind = either(up, EventType::PeerUp, EventType::PeerDown);
            write_frame(kind, out, |frame| {
                frame.rest(name);
            });
        }
        PeerEvent::TokenUp { token, client } => {
            write_frame(EventType::TokenUp as u8, out, |frame| {
                frame.client(client).rest(token);
            });
        }
        PeerEvent::TokenDown { token, client } => {
            write_frame(EventType::TokenDown as u8, out, |frame| {
                frame.client(client).rest(token);
            });
        }
        PeerEvent::TokenRejected { token } => {
            write_frame(EventType::TokenRejected as u8, out, |frame| {
                frame.rest(token);
            });
        }
        PeerEvent::Probe => write_frame(EventType::Probe as u8, out, |_| {}),
        PeerEvent::Goodbye { code, reason } => {
            write_frame(EventType::Goodbye as u8, out, |frame| {
                frame.name(code.as_bytes()).rest(reason);
            });
        }
    }
}

/// Appends a line of the log.
pub fn encode_log(level: u8, text: &str, out: &mut Vec<u8>) {
    write_frame(EventType::Log as u8, out, |frame| {
        frame.u8(level).rest(text.as_bytes());
    });
}

fn either(up: bool, risen: EventType, fallen: EventType) -> u8 {
    if up { risen as u8 } else { fallen as u8 }
}

/// What DONE says of a call.
enum Done<'a> {
    Nothing,
    Data(&'a Payload),
    /// Code and reason.
    Failed(&'a str, &'a str),
}

impl Done<'_> {
    fn of(outcome: &Outcome) -> Done<'_> {
        match outcome {
            Outcome::Data(payload) => Done::Data(payload),
            Outcome::Failed { code, reason } => Done::Failed(code, reason),
        }
    }
}

/// A call without a ticket wants to know nothing.
fn write_done(ticket: u64, done: Done<'_>, out: &mut Vec<u8>) {
    if ticket == 0 {
        return;
    }
    write_frame(EventType::Done as u8, out, |frame| {
        frame.u64(ticket);
        match done {
            Done::Nothing => {
                frame.u8(OK).u8(kind_byte(Kind::Text));
            }
            Done::Data(payload) => write_payload(payload, frame.u8(OK)),
            Done::Failed(code, reason) => {
                // The code is another handler's own, of any length: as much as a name holds, cut between characters.
                let code = &code[..code.floor_char_boundary(usize::from(u16::MAX))];
                frame
                    .u8(FAILED)
                    .name(code.as_bytes())
                    .rest(reason.as_bytes());
            }
        }
    });
}

fn write_payload(payload: &Payload, frame: &mut Writer<'_>) {
    frame.u8(kind_byte(payload.kind())).rest(payload.bytes());
}

fn write_sender(from: &Sender, frame: &mut Writer<'_>) {
    frame
        .client(from.client)
        .name(from.peer.as_deref().unwrap_or_default());
}

fn write_arrival(kind: EventType, arrival: &Arrival<'_>, out: &mut Vec<u8>) {
    write_frame(kind as u8, out, |frame| {
        frame
            .client(arrival.client)
            .name(arrival.protocol.as_bytes());
        frame.text(arrival.path).text(arrival.query);
        frame.name(arrival.address.as_bytes());
        frame.name(arrival.user.unwrap_or_default().as_bytes());
        let count = u16::try_from(arrival.headers.len()).unwrap_or(u16::MAX);
        frame.u16(count);
        for (name, value) in &arrival.headers[..usize::from(count)] {
            frame.name(name.as_bytes()).text(value);
        }
    });
}

/// What a frame (without its size) says.
///
/// # Errors
/// [`Malformed`].
pub fn read_event(frame: &[u8]) -> Result<Told<'_>, Malformed> {
    let mut fields = Fields::of(frame);
    let kind = EventType::of(fields.u8()?).ok_or(Malformed("no event has this number"))?;
    let told = match kind {
        EventType::Welcome => Told::Welcome {
            version: fields.u16()?,
            client: client(&mut fields)?,
        },
        EventType::Done => {
            let ticket = fields.u64()?;
            match fields.u8()? {
                OK => Told::Done {
                    ticket,
                    payload: payload(&mut fields)?,
                },
                FAILED => Told::Failed {
                    ticket,
                    code: fields.name()?,
                    reason: fields.rest(),
                },
                _ => return Err(Malformed("no call ends with this status")),
            }
        }
        EventType::Message => Told::Message {
            topic: fields.name()?,
            filter: FilterKind::of_number(fields.u8()?)
                .ok_or(Malformed("no filter is of this kind"))?,
            context: fields.name()?,
            payload: payload(&mut fields)?,
        },
        EventType::Gap => Told::Gap {
            count: fields.u64()?,
            topic: fields.rest(),
        },
        EventType::Event => {
            let (client, peer) = match fields.u8()? {
                0 => (None, &b""[..]),
                1 => (Some(client(&mut fields)?), fields.name()?),
                _ => return Err(Malformed("a sender is 0 or 1 client")),
            };
            Told::Event {
                client,
                peer,
                event: fields.name()?,
                payload: payload(&mut fields)?,
            }
        }
        EventType::Request => Told::Request {
            number: fields.u64()?,
            timeout_ms: fields.u32()?,
            client: client(&mut fields)?,
            peer: fields.name()?,
            event: fields.name()?,
            payload: payload(&mut fields)?,
        },
        EventType::Connect => Told::Connect(arrived(&mut fields)?),
        EventType::Admit => Told::Admit(arrived(&mut fields)?),
        EventType::Disconnect => Told::Disconnect {
            client: client(&mut fields)?,
            code: fields.u16()?,
            reason: fields.rest(),
        },
        EventType::Subscribed | EventType::Unsubscribed => Told::Subscribed {
            client: client(&mut fields)?,
            up: kind == EventType::Subscribed,
            filter: fields.rest(),
        },
        EventType::Published => Told::Published {
            client: client(&mut fields)?,
            topic: fields.name()?,
            payload: payload(&mut fields)?,
        },
        EventType::Occupied | EventType::Vacated => Told::Occupied {
            up: kind == EventType::Occupied,
            filter: fields.rest(),
        },
        EventType::PeerUp | EventType::PeerDown => Told::Peer {
            up: kind == EventType::PeerUp,
            name: fields.rest(),
        },
        EventType::TokenUp => Told::TokenUp {
            client: client(&mut fields)?,
            token: fields.rest(),
        },
        EventType::TokenDown => Told::TokenDown {
            client: client(&mut fields)?,
            token: fields.rest(),
        },
        EventType::TokenRejected => Told::TokenRejected {
            token: fields.rest(),
        },
        EventType::Probe => Told::Probe,
        EventType::Goodbye => Told::Goodbye {
            code: fields.name()?,
            reason: fields.rest(),
        },
        EventType::Log => Told::Log {
            level: fields.u8()?,
            text: fields.rest(),
        },
        EventType::Http => return Err(Malformed("a connection is not handed over in bytes")),
    };
    fields.end()?;
    Ok(told)
}

fn client(fields: &mut Fields<'_>) -> Result<ClientId, Malformed> {
    fields.client()?.ok_or(Malformed("no client has this id"))
}

fn payload<'a>(fields: &mut Fields<'a>) -> Result<Data<'a>, Malformed> {
    let kind = match fields.u8()? {
        1 => Kind::Json,
        2 => Kind::Text,
        3 => Kind::Binary,
        _ => return Err(Malformed("no payload is of this kind")),
    };
    Ok(Data {
        kind,
        bytes: fields.rest(),
    })
}

fn arrived<'a>(fields: &mut Fields<'a>) -> Result<Arrived<'a>, Malformed> {
    let arrived = Arrived {
        client: client(fields)?,
        protocol: fields.name()?,
        path: fields.text()?,
        query: fields.text()?,
        address: fields.name()?,
        user: fields.name()?,
        headers: fields.rest(),
    };
    let mut list = Fields::of(arrived.headers);
    for _ in 0..list.u16()? {
        list.name()?;
        list.text()?;
    }
    list.end()?;
    Ok(arrived)
}
