//! Calls: what a peer says, and how it writes that. `decode` reads it.

use super::super::Outcome;
use super::fields::{Writer, kind_byte, write_frame};
use super::{Admitted, Audience, CallType, FilterKind, PeerPattern, Watch};
use crate::address::{Address, ClientId};
use crate::message::Payload;
use crate::topic::{Filter, Topic};

pub use super::decode::{Bad, decode};

/// A call, for who makes it. See [`PeerCommand`](super::PeerCommand) and [`Command`](super::super::Command) for what they
/// mean.
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
pub(super) const NOT_TO_ME: u8 = 1;
/// Flag of EMIT: may be dropped for whoever is not ready.
pub(super) const VOLATILE: u8 = 1;
/// Verdict of ADMIT.
pub(super) const ADMITTED: u8 = 1;

/// The kinds of target of EMIT and REQUEST.
pub(super) const TO_SERVICE: u8 = 1;
pub(super) const TO_MASTER: u8 = 2;
pub(super) const TO_ANY_PEER: u8 = 3;
pub(super) const TO_PEER: u8 = 4;
pub(super) const TO_CLIENT: u8 = 5;
pub(super) const TO_TOKEN: u8 = 6;
/// Of EMIT only.
pub(super) const TO_ROOMS: u8 = 7;
pub(super) const TO_PEERS: u8 = 8;

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
