//! What a client is told, deliveries apart, as JSON text. The order of the members is part of the contract
//! (DESIGN 5.3): dwsps clients and people with a network inspector read it as text.

use std::io::Write as _;

use super::super::json::write_string;
use super::super::{Action, Event, Outcome, Refusal, Tag};
use super::Stamp;
use super::payload::write_payload;
use crate::address::ClientId;

/// The JSON text of an event (no WebSocket header).
pub fn encode(event: &Event<'_>, stamp: &Stamp, out: &mut Vec<u8>) {
    match event {
        Event::Ack { action, name, tag } => {
            out.extend_from_slice(br#"{"type":"ack","action":""#);
            out.extend_from_slice(action.as_str().as_bytes());
            out.extend_from_slice(br#"","timestamp":""#);
            out.extend_from_slice(stamp.as_bytes());
            out.extend_from_slice(match action {
                Action::Subscribe | Action::Unsubscribe | Action::Publish => br#"","topic":"#,
                Action::Handle | Action::Unhandle => br#"","event":"#,
            });
            write_string(name, out);
            write_tag(*tag, out);
        }
        Event::Refused(refusal) => write_refusal(refusal, out),
        Event::Reply { tag, outcome } => {
            out.extend_from_slice(br#"{"type":"reply","id":"#);
            out.extend_from_slice(tag);
            match outcome {
                Outcome::Data(data) => {
                    out.extend_from_slice(br#","data":"#);
                    write_payload(data, &[], out);
                }
                Outcome::Failed { code, reason } => {
                    out.extend_from_slice(br#","error":{"code":"#);
                    write_string(code.as_bytes(), out);
                    out.extend_from_slice(br#","reason":"#);
                    write_string(reason.as_bytes(), out);
                    out.push(b'}');
                }
            }
        }
        Event::Request { event, data, number, from } => {
            out.extend_from_slice(br#"{"type":"request","event":"#);
            write_string(event, out);
            out.extend_from_slice(br#","data":"#);
            write_payload(data, &[], out);
            out.extend_from_slice(br#","id":"#);
            write_number(*number, out);
            write_from(*from, out);
        }
        Event::Emitted { event, data, from } => {
            out.extend_from_slice(br#"{"type":"event","event":"#);
            write_string(event, out);
            out.extend_from_slice(br#","data":"#);
            write_payload(data, &[], out);
            write_from(*from, out);
        }
        Event::Session { client, tag } => {
            out.extend_from_slice(br#"{"type":"session","session":""#);
            write_client(*client, out);
            out.push(b'"');
            write_tag(*tag, out);
        }
        Event::Pong { tag } => {
            out.extend_from_slice(br#"{"type":"pong""#);
            write_tag(*tag, out);
        }
        Event::Gap { topic, count } => {
            out.extend_from_slice(br#"{"type":"gap","topic":"#);
            write_string(topic, out);
            out.extend_from_slice(br#","count":"#);
            write_number(*count, out);
        }
    }
    out.push(b'}');
}

fn write_refusal(refusal: &Refusal, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"error","action":"#);
    match &refusal.action {
        Some(action) => write_string(action.as_bytes(), out),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(br#","code":""#);
    out.extend_from_slice(refusal.code.as_str().as_bytes());
    out.extend_from_slice(br#"","reason":"#);
    write_string(refusal.reason.as_bytes(), out);
    if let Some(topic) = &refusal.topic {
        out.extend_from_slice(br#","topic":"#);
        write_string(topic, out);
    }
    write_tag(refusal.tag.as_ref(), out);
}

fn write_tag(tag: Option<&Tag>, out: &mut Vec<u8>) {
    if let Some(tag) = tag {
        out.extend_from_slice(br#","id":"#);
        out.extend_from_slice(tag);
    }
}

fn write_from(from: ClientId, out: &mut Vec<u8>) {
    out.extend_from_slice(br#","from":"client:"#);
    write_client(from, out);
    out.push(b'"');
}

/// Base64url: nothing in it needs escaping.
fn write_client(client: ClientId, out: &mut Vec<u8>) {
    write!(out, "{client}").expect("a Vec takes every write");
}

fn write_number(number: u64, out: &mut Vec<u8>) {
    write!(out, "{number}").expect("a Vec takes every write");
}
