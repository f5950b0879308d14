//! Events, as the broker writes them.

use super::super::{Event, Outcome};
use super::event::{FAILED, OK};
use super::fields::{Writer, kind_byte, write_frame};
use super::{Arrival, EventType, PeerEvent, VERSION, tag_ticket};
use crate::address::Sender;
use crate::message::{Kind, Payload};

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
