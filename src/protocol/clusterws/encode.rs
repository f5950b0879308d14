//! What a client is told, deliveries apart. The order of members and the spacing are those of the original, which writes
//! with `JSON.stringify`.

use std::io::Write as _;

use super::super::Event;
use super::super::json::write_string;
use super::super::payload::write_payload;
use super::{CLOSE, Dialect, Generation, ascii};

/// The configuration, which the server sends before anything else. From 1.3 on the client counts itself connected when
/// it has read it, and closes if no ping comes for twice `ping_interval_ms`; so this must be the interval that is kept.
/// (The original server of 0.1.0 leaves it out, and its own client breaks.)
pub fn encode_config(dialect: Dialect, ping_interval_ms: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&dialect.open(b's'));
    write!(out, r#""c",{{"ping":{ping_interval_ms}"#).expect("a Vec takes every write");
    match dialect.generation {
        Generation::Zero => {}
        Generation::One | Generation::Three => {
            write!(out, r#","binary":{}"#, dialect.binary).expect("a Vec takes every write");
        }
    }
    out.push(b'}');
    out.extend_from_slice(CLOSE);
}

/// The event that tells of deliveries that were skipped, `{"channel":..,"count":..}`. Applications leave names that
/// begin with `#` alone, and every client ignores an event that nobody listens to.
const GAP: &[u8] = b"#gap";

/// An event as the text of a message (no WebSocket header); nothing, and false, if this protocol has no words for it.
///
/// It has none for acks, refusals and answers: its clients ask for nothing and expect no answer. A gap is told all the
/// same, as an event, since no reader may miss a message without being told.
pub fn encode(dialect: Dialect, event: &Event<'_>, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    match event {
        Event::Emitted {
            event,
            data,
            from: _,
        } => {
            out.extend_from_slice(&dialect.open(b'e'));
            write_string(event, out);
            out.push(b',');
            write_payload(data, &[], out);
        }
        Event::Gap { topic, count } => {
            out.extend_from_slice(&dialect.open(b'e'));
            write_string(GAP, out);
            out.extend_from_slice(br#",{"channel":"#);
            write_string(topic, out);
            write!(out, r#","count":{count}}}"#).expect("a Vec takes every write");
        }
        Event::Ack { .. }
        | Event::Refused(_)
        | Event::Reply { .. }
        | Event::Request { .. }
        | Event::Session { .. }
        | Event::Pong { .. }
        | Event::Peer(_) => return false,
    }
    out.extend_from_slice(CLOSE);
    if dialect.binary {
        ascii::escape_from(start, out);
    }
    true
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use bytes::Bytes;

    use super::super::super::{Action, Outcome, Refusal};
    use super::*;
    use crate::address::{ClientId, Sender, SessionId, ShardId};
    use crate::error::Code;
    use crate::message::Payload;

    const SENDER: Sender = Sender {
        client: CLIENT,
        peer: None,
    };
    const CLIENT: ClientId = ClientId {
        broker: 1,
        shard: ShardId(0),
        session: SessionId {
            slot: 0,
            generation: 1,
        },
    };

    #[test]
    fn the_configuration_is_as_observed() {
        for (generation, use_binary, expected) in [
            (
                Generation::Three,
                false,
                r##"{"#":["s","c",{"ping":20000,"binary":false}]}"##,
            ),
            (
                Generation::Three,
                true,
                r##"{"#":["s","c",{"ping":20000,"binary":true}]}"##,
            ),
            (
                Generation::One,
                false,
                r##"{"#":["s","c",{"ping":20000,"binary":false}]}"##,
            ),
            (Generation::Zero, true, r#"{"m":["s","c",{"ping":20000}]}"#),
        ] {
            let mut out = b"before".to_vec();
            encode_config(Dialect::new(generation, use_binary), 20_000, &mut out);
            assert_eq!(std::str::from_utf8(&out[6..]), Ok(expected));
        }
    }

    #[test]
    fn events_are_written_as_the_original_writes_them() {
        let check = |generation, use_binary, event: &Event<'_>, expected: &str| {
            let mut out = "é".as_bytes().to_vec();
            assert!(encode(
                Dialect::new(generation, use_binary),
                event,
                &mut out
            ));
            assert_eq!(std::str::from_utf8(&out), Ok(&*format!("é{expected}")));
            assert!(serde_json::from_str::<serde_json::Value>(expected).is_ok());
        };
        let json = Payload::json(Bytes::from_static("{\"é\": 1.0}".as_bytes()));
        let emitted = Event::Emitted {
            event: "grüß\"".as_bytes(),
            data: &json,
            from: None,
        };
        let (plain, escaped) = (
            r#"["e","grüß\"",{"é": 1.0}]}"#,
            r#"["e","gr\u00fc\u00df\"",{"\u00e9": 1.0}]}"#,
        );
        for (generation, use_binary, expected) in [
            (Generation::Zero, false, format!(r#"{{"m":{plain}"#)),
            (Generation::Zero, true, format!(r#"{{"m":{plain}"#)),
            (Generation::One, false, format!(r##"{{"#":{plain}"##)),
            (Generation::One, true, format!(r##"{{"#":{escaped}"##)),
            (Generation::Three, false, format!(r##"{{"#":{plain}"##)),
            (Generation::Three, true, format!(r##"{{"#":{escaped}"##)),
        ] {
            check(generation, use_binary, &emitted, &expected);
        }
        let check = |event: &Event<'_>, expected: &str| {
            check(Generation::Three, false, event, expected);
        };
        check(
            &Event::Emitted {
                event: b"e",
                data: &Payload::text(Bytes::from_static(b"hi \"you\"")),
                from: None,
            },
            r##"{"#":["e","e","hi \"you\""]}"##,
        );
        check(
            &Event::Emitted {
                event: b"e",
                data: &Payload::binary(Bytes::from_static(b"abc")),
                from: None,
            },
            r##"{"#":["e","e",{"$binary":"YWJj"}]}"##,
        );
        check(
            &Event::Gap {
                topic: b"room \xff",
                count: 12,
            },
            "{\"#\":[\"e\",\"#gap\",{\"channel\":\"room \u{fffd}\",\"count\":12}]}",
        );
    }

    #[test]
    fn what_has_no_words_is_not_said() {
        let tag = Bytes::from_static(b"1");
        let data = Payload::json(Bytes::from_static(b"1"));
        let refusal = Refusal {
            action: None,
            code: Code::NotAllowed,
            reason: Cow::Borrowed("no"),
            topic: None,
            tag: None,
        };
        for event in [
            Event::Ack {
                action: Action::Subscribe,
                name: b"a",
                tag: None,
            },
            Event::Refused(&refusal),
            Event::Reply {
                tag: &tag,
                outcome: &Outcome::Data(data.clone()),
            },
            Event::Request {
                event: b"e",
                data: &data,
                number: 1,
                from: &SENDER,
                timeout_ms: 1,
            },
            Event::Session {
                client: CLIENT,
                tag: None,
            },
            Event::Pong { tag: Some(&tag) },
        ] {
            let mut out = b"before".to_vec();
            assert!(!encode(
                Dialect::new(Generation::Three, true),
                &event,
                &mut out
            ));
            assert_eq!(out, b"before", "{event:?}");
        }
    }
}
