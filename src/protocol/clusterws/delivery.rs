//! A delivery: what the subscribers of a channel are told of a message, once for all of one dialect.

use super::super::json::{string_size, write_string};
use super::super::payload::{payload_size, write_payload};
use super::{CLOSE, Dialect, OPEN_SIZE, ascii};
use crate::message::{Kind, Message, Payload};
use crate::topic::Topic;

/// The text of a delivery, `{"#":["p",CHANNEL,DATA]}`: of a publication from ClusterWS the very bytes that the publisher
/// sent, in a dialect without binary mode, if it wrote them as its library does.
pub fn encode_delivery(dialect: Dialect, message: &Message, topic: &Topic, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&dialect.open(b'p'));
    write_string(topic.as_bytes(), out);
    out.push(b',');
    write_payload(&message.payload, &message.attachments, out);
    out.extend_from_slice(CLOSE);
    if dialect.binary {
        ascii::escape_from(start, out);
    }
}

/// The bytes that [`encode_delivery`] appends, so that a frame's header can be written first.
pub fn delivery_size(dialect: Dialect, message: &Message, topic: &Topic) -> usize {
    let name = topic.as_bytes();
    let size = OPEN_SIZE
        + string_size(name)
        + 1
        + payload_size(&message.payload, &message.attachments)
        + CLOSE.len();
    if dialect.binary {
        size + ascii::string_growth(name) + growth(&message.payload)
    } else {
        size
    }
}

/// How many bytes a payload grows by when it is written in ASCII. Its attachments are, and so are the placeholders that
/// they replace.
fn growth(payload: &Payload) -> usize {
    let bytes = payload.bytes();
    match payload.kind() {
        Kind::Json => ascii::escaped_size(bytes) - bytes.len(),
        Kind::Text => ascii::string_growth(bytes),
        Kind::Binary => 0,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use smallvec::smallvec;

    use super::super::Generation;
    use super::*;
    use crate::message::{Flags, Targets};

    fn check(
        generation: Generation,
        use_binary: bool,
        channel: &[u8],
        (payload, attachments): (&Payload, &[&'static [u8]]),
        expected: &str,
    ) {
        let topic = Topic::channel(Bytes::copy_from_slice(channel)).unwrap();
        let message = Message {
            targets: Targets {
                topics: smallvec![topic.clone()],
                ..Targets::default()
            },
            event: None,
            payload: payload.clone(),
            attachments: attachments
                .iter()
                .map(|bytes| Bytes::from_static(bytes))
                .collect(),
            origin: None,
            flags: Flags::default(),
            position: None,
            unix_ms: 0,
            envelope: None,
        };
        let dialect = Dialect::new(generation, use_binary);
        let mut out = "é".as_bytes().to_vec();
        encode_delivery(dialect, &message, &topic, &mut out);
        assert_eq!(std::str::from_utf8(&out[2..]), Ok(expected));
        assert_eq!(
            delivery_size(dialect, &message, &topic),
            expected.len(),
            "{expected}"
        );
    }

    fn json(json: &str) -> Payload {
        Payload::json(Bytes::copy_from_slice(json.as_bytes()))
    }

    #[test]
    fn a_delivery_is_what_the_original_relays() {
        let check = |generation, channel: &str, data: &str, expected: &str| {
            check(
                generation,
                false,
                channel.as_bytes(),
                (&json(data), &[]),
                expected,
            );
        };
        check(
            Generation::Three,
            "room",
            r#"{"x":1}"#,
            r##"{"#":["p","room",{"x":1}]}"##,
        );
        check(
            Generation::One,
            "a.b \"",
            "null",
            r##"{"#":["p","a.b \"",null]}"##,
        );
        check(
            Generation::Zero,
            "é",
            "[1.0, \"ü\"]",
            r#"{"m":["p","é",[1.0, "ü"]]}"#,
        );
    }

    #[test]
    fn messages_of_other_protocols_become_json() {
        let check = |use_binary, channel: &[u8], payload: Payload, attachments, expected: &str| {
            let payload = (&payload, attachments);
            let expected = format!(r##"{{"#":["p",{expected}]}}"##);
            check(Generation::Three, use_binary, channel, payload, &expected);
        };
        let text = || Payload::text(Bytes::from_static("say \"é\"\n".as_bytes()));
        check(false, b"a", text(), &[], r#""a","say \"é\"\n""#);
        check(true, b"a", text(), &[], r#""a","say \"\u00e9\"\n""#);
        check(false, b"\"\xfe", json("1"), &[], "\"\\\"\u{fffd}\",1");
        check(true, b"\"\xfe", json("1"), &[], r#""\"\ufffd",1"#);
        for use_binary in [false, true] {
            let binary = Payload::binary(Bytes::from_static(b"\xff\x00"));
            check(use_binary, b"a", binary, &[], r#""a",{"$binary":"/wA="}"#);
        }
        let placed = || json(r#"[{"_placeholder":true,"num":0},"é😀"]"#);
        check(
            false,
            b"a",
            placed(),
            &[b"\xff\x00"],
            r#""a",[{"$binary":"/wA="},"é😀"]"#,
        );
        check(
            true,
            b"a",
            placed(),
            &[b"\xff\x00"],
            r#""a",[{"$binary":"/wA="},"\u00e9\ud83d\ude00"]"#,
        );
    }
}
