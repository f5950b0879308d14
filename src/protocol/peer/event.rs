//! Events: what a peer is told, and how it reads that. `encode` writes it.

use super::fields::{Fields, Misfit};
use super::{EventType, FilterKind};
use crate::address::ClientId;
use crate::message::Kind;

pub use super::encode::{encode, encode_log};

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
pub(super) const OK: u8 = 0;
pub(super) const FAILED: u8 = 1;

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
