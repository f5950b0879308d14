//! A delivery: what a subscriber is told of a message, once for all subscribers of one filter.

use super::super::json::{string_size, write_string};
use super::super::payload::{payload_size, write_payload};
use super::Stamp;
use crate::message::Message;
use crate::topic::Topic;

const TYPE_AND_TOPIC: &[u8] = br#"{"type":"publish","topic":"#;
const MESSAGE: &[u8] = br#","message":"#;
const TIMESTAMP: &[u8] = br#","timestamp":""#;
const CONTEXT: &[u8] = br#","context":"#;

/// The JSON text of a delivery, for every subscriber of one filter: the publisher's object, or one made for a
/// message of another protocol, and `context`, the filter as written.
pub fn encode_delivery(message: &Message, topic: &Topic, context: &[u8], out: &mut Vec<u8>) {
    match &message.envelope {
        Some(envelope) => out.extend_from_slice(envelope),
        None => {
            out.extend_from_slice(TYPE_AND_TOPIC);
            write_string(topic.as_bytes(), out);
            out.extend_from_slice(MESSAGE);
            write_payload(&message.payload, &message.attachments, out);
            out.extend_from_slice(TIMESTAMP);
            out.extend_from_slice(Stamp::new(message.unix_ms).as_bytes());
            out.push(b'"');
        }
    }
    out.extend_from_slice(CONTEXT);
    write_string(context, out);
    out.push(b'}');
}

/// The bytes that [`encode_delivery`] appends, so that a frame's header can be written first.
pub fn delivery_size(message: &Message, topic: &Topic, context: &[u8]) -> usize {
    let object = match &message.envelope {
        Some(envelope) => envelope.len(),
        None => {
            TYPE_AND_TOPIC.len()
                + string_size(topic.as_bytes())
                + MESSAGE.len()
                + payload_size(&message.payload, &message.attachments)
                + TIMESTAMP.len()
                + Stamp::WRITTEN_SIZE
                + 1
        }
    };
    object + CONTEXT.len() + string_size(context) + 1
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use smallvec::smallvec;

    use super::super::super::Command;
    use super::super::decode;
    use super::*;
    use crate::message::{Flags, Payload, Targets};

    fn check(message: &Message, topic: &Topic, context: &[u8], expected: &str) {
        let mut out = b"before".to_vec();
        encode_delivery(message, topic, context, &mut out);
        assert_eq!(std::str::from_utf8(&out[6..]), Ok(expected));
        assert_eq!(
            delivery_size(message, topic, context),
            expected.len(),
            "{expected}"
        );
    }

    #[test]
    fn a_delivery_is_the_publishers_object_and_the_context() {
        let check = |text: &str, context: &str, expected: &str| {
            let decoded = decode(text.as_bytes(), &Stamp::new(1_518_741_097_123), false);
            let Ok(Command::Publish { message, .. }) = decoded else {
                panic!("{text}")
            };
            check(
                &message,
                &message.targets.topics[0],
                context.as_bytes(),
                expected,
            );
        };
        // As observed with the original server.
        check(
            r#"{"type":"publish","timestamp":"2018-02-16T00:31:37.123Z","topic":"news.uk.london","message":{"a":1}}"#,
            "news.uk",
            r#"{"type":"publish","timestamp":"2018-02-16T00:31:37.123Z","topic":"news.uk.london","message":{"a":1},"context":"news.uk"}"#,
        );
        check(
            "{ \"type\":\"publish\", \"topic\":\"a\" , \"message\":1.0\n}\n",
            "=a",
            r#"{"type":"publish", "topic":"a" , "message":1.0,"timestamp":"2018-02-16T00:31:37.123Z","context":"=a"}"#,
        );
        check(
            r#"{"context":"forged","type":"publish","topic":"a","fromPeerServer":true,"message":1,"extra":[]}"#,
            "a\"",
            r#"{"type":"publish","topic":"a","message":1,"extra":[],"timestamp":"2018-02-16T00:31:37.123Z","context":"a\""}"#,
        );
    }

    #[test]
    fn messages_of_other_protocols_get_an_object() {
        let check =
            |topic: &'static [u8], payload: Payload, attachments: Vec<Bytes>, expected: &str| {
                let topic = Topic::channel(Bytes::from_static(topic)).unwrap();
                let message = Message {
                    targets: Targets {
                        topics: smallvec![topic.clone()],
                        ..Targets::default()
                    },
                    event: None,
                    payload,
                    attachments,
                    origin: None,
                    flags: Flags::default(),
                    position: None,
                    unix_ms: 1_518_741_097_123,
                    envelope: None,
                };
                let rest = r#","timestamp":"2018-02-16T00:31:37.123Z","context":"c\u0001�"}"#;
                check(
                    &message,
                    &topic,
                    b"c\x01\xff",
                    &format!(r#"{{"type":"publish",{expected}{rest}"#),
                );
            };
        check(
            b"a.b",
            Payload::json(Bytes::from_static(b"[1, 2]")),
            vec![],
            r#""topic":"a.b","message":[1, 2]"#,
        );
        check(
            b"\"\xfe",
            Payload::text(Bytes::from_static(b"say \"hi\"\n")),
            vec![],
            r#""topic":"\"�","message":"say \"hi\"\n""#,
        );
        check(
            b"a",
            Payload::binary(Bytes::from_static(b"\xff\x00")),
            vec![],
            r#""topic":"a","message":{"$binary":"/wA="}"#,
        );
        check(
            b"a",
            Payload::json(Bytes::from_static(br#"[{"_placeholder":true,"num":0},7]"#)),
            vec![Bytes::from_static(b"\xff\x00")],
            r#""topic":"a","message":[{"$binary":"/wA="},7]"#,
        );
    }
}
