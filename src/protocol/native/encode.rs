//! What a client is told, deliveries apart, as JSON text. The order of the members is part of the contract
//! (DESIGN 5.3): dwsps clients and people with a network inspector read it as text.

use std::io::Write as _;

use super::super::json::write_string;
use super::super::payload::write_payload;
use super::super::{Action, Event, Outcome, Refusal, Tag};
use super::Stamp;
use crate::address::{ClientId, Sender};

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
        Event::Request {
            event,
            data,
            number,
            from,
            timeout_ms: _,
        } => {
            out.extend_from_slice(br#"{"type":"request","event":"#);
            write_string(event, out);
            out.extend_from_slice(br#","data":"#);
            write_payload(data, &[], out);
            out.extend_from_slice(br#","id":"#);
            write_number(*number, out);
            write_from(from, out);
        }
        Event::Emitted { event, data, from } => {
            out.extend_from_slice(br#"{"type":"event","event":"#);
            write_string(event, out);
            out.extend_from_slice(br#","data":"#);
            write_payload(data, &[], out);
            if let Some(from) = from {
                write_from(from, out);
            }
        }
        // Its clients are no peers.
        Event::Peer(_) => return,
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

fn write_from(from: &Sender, out: &mut Vec<u8>) {
    match &from.peer {
        None => {
            out.extend_from_slice(br#","from":"client:"#);
            write_client(from.client, out);
            out.push(b'"');
        }
        Some(name) => {
            out.extend_from_slice(br#","from":"#);
            write_string(&[b"peer:", &name[..]].concat(), out);
        }
    }
}

/// Base64url: nothing in it needs escaping.
fn write_client(client: ClientId, out: &mut Vec<u8>) {
    write!(out, "{client}").expect("a Vec takes every write");
}

fn write_number(number: u64, out: &mut Vec<u8>) {
    write!(out, "{number}").expect("a Vec takes every write");
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use bytes::Bytes;

    use super::*;
    use crate::address::{SessionId, ShardId};
    use crate::error::Code;
    use crate::message::Payload;

    #[test]
    fn events_are_written_in_the_order_of_the_contract() {
        let check = |event: Event<'_>, expected: &str| {
            let mut out = b"before".to_vec();
            encode(&event, &Stamp::new(1_518_741_097_123), &mut out);
            assert_eq!(std::str::from_utf8(&out[6..]), Ok(expected));
            assert!(serde_json::from_slice::<serde_json::Value>(&out[6..]).is_ok());
        };
        let tag = Bytes::from_static(br#"{"n": 1}"#);
        let tag = Some(&tag);
        let client = ClientId {
            broker: 0xffff_ffff_ffff,
            shard: ShardId(0),
            session: SessionId {
                slot: 0,
                generation: 1,
            },
        };
        let refused = |action: Option<&'static str>,
                       topic: Option<&'static str>,
                       tag: Option<&Tag>| Refusal {
            action: action.map(Cow::Borrowed),
            code: Code::BadTopic,
            reason: Cow::Borrowed("not \"good\""),
            topic: topic.map(|topic| Bytes::from_static(topic.as_bytes())),
            tag: tag.cloned(),
        };

        for (action, field) in [
            (Action::Subscribe, "topic"),
            (Action::Unsubscribe, "topic"),
            (Action::Publish, "topic"),
            (Action::Handle, "event"),
            (Action::Unhandle, "event"),
        ] {
            let word = action.as_str();
            let ack = format!(
                r#"{{"type":"ack","action":"{word}","timestamp":"2018-02-16T00:31:37.123Z","{field}":"a.\"é""#
            );
            check(
                Event::Ack {
                    action,
                    name: "a.\"é".as_bytes(),
                    tag: None,
                },
                &format!("{ack}}}"),
            );
            check(
                Event::Ack {
                    action,
                    name: "a.\"é".as_bytes(),
                    tag,
                },
                &format!(r#"{ack},"id":{{"n": 1}}}}"#),
            );
        }
        let error = r#""code":"bad_topic","reason":"not \"good\"""#;
        check(
            Event::Refused(&refused(None, None, None)),
            &format!(r#"{{"type":"error","action":null,{error}}}"#),
        );
        check(
            Event::Refused(&refused(Some("sub\n"), Some("a..b\0"), tag)),
            &format!(
                r#"{{"type":"error","action":"sub\n",{error},"topic":"a..b\u0000","id":{{"n": 1}}}}"#
            ),
        );
        let outcome = |payload| Outcome::Data(payload);
        let reply = |outcome: &Outcome, expected: &str| {
            check(
                Event::Reply {
                    tag: &Bytes::from_static(b"7"),
                    outcome,
                },
                expected,
            )
        };
        reply(
            &outcome(Payload::json(Bytes::from_static(b"[1.0]"))),
            r#"{"type":"reply","id":7,"data":[1.0]}"#,
        );
        reply(
            &outcome(Payload::text(Bytes::from_static(b"\""))),
            r#"{"type":"reply","id":7,"data":"\""}"#,
        );
        reply(
            &outcome(Payload::binary(Bytes::from_static(b"abc"))),
            r#"{"type":"reply","id":7,"data":{"$binary":"YWJj"}}"#,
        );
        reply(
            &Outcome::refused(Code::NoHandler, "nobody"),
            r#"{"type":"reply","id":7,"error":{"code":"no_handler","reason":"nobody"}}"#,
        );
        let failed = Outcome::Failed {
            code: Cow::Borrowed("\""),
            reason: Cow::Borrowed("\u{1}é"),
        };
        reply(
            &failed,
            r#"{"type":"reply","id":7,"error":{"code":"\"","reason":"\u0001é"}}"#,
        );
        check(
            Event::Request {
                event: b"e\"",
                data: &Payload::json(Bytes::from_static(b"null")),
                number: u64::MAX,
                from: &Sender { client, peer: None },
                timeout_ms: 1,
            },
            r#"{"type":"request","event":"e\"","data":null,"id":18446744073709551615,"from":"client:________AAAAAAAAAAAB"}"#,
        );
        check(
            Event::Emitted {
                event: b"e",
                data: &Payload::text(Bytes::from_static(b"hi")),
                from: Some(&Sender { client, peer: None }),
            },
            r#"{"type":"event","event":"e","data":"hi","from":"client:________AAAAAAAAAAAB"}"#,
        );
        check(
            Event::Session { client, tag: None },
            r#"{"type":"session","session":"________AAAAAAAAAAAB"}"#,
        );
        check(
            Event::Session { client, tag },
            r#"{"type":"session","session":"________AAAAAAAAAAAB","id":{"n": 1}}"#,
        );
        check(Event::Pong { tag: None }, r#"{"type":"pong"}"#);
        check(Event::Pong { tag }, r#"{"type":"pong","id":{"n": 1}}"#);
        check(
            Event::Gap {
                topic: b"a\xff",
                count: 12,
            },
            "{\"type\":\"gap\",\"topic\":\"a\u{fffd}\",\"count\":12}",
        );
    }
}
