//! A delivery: what a subscriber is told of a message, once for all subscribers of one filter.

use super::super::payload::{raw_size, write_raw};
use super::reply::{bulk_size, header_size, write_bulk, write_header, write_push};
use super::{Kind, Version};
use crate::message::Message;
use crate::topic::{Filter, Topic};

/// The push for every subscriber of one filter: `message`, channel and payload, or `pmessage`, pattern, channel and
/// payload. The payload is the bytes that came, whatever they are; attachments stand in it as in other JSON.
pub fn encode_delivery(
    version: Version,
    message: &Message,
    topic: &Topic,
    filter: &Filter,
    out: &mut Vec<u8>,
) {
    let (kind, pattern) = kind(filter);
    write_push(version, 3 + usize::from(pattern.is_some()), out);
    write_bulk(kind.message_word().as_bytes(), out);
    if let Some(pattern) = pattern {
        write_bulk(pattern, out);
    }
    write_bulk(topic.as_bytes(), out);
    write_header(b'$', raw_size(&message.payload, &message.attachments), out);
    write_raw(&message.payload, &message.attachments, out);
    out.extend_from_slice(b"\r\n");
}

/// The bytes that [`encode_delivery`] appends. Of both versions the same.
pub fn delivery_size(
    _version: Version,
    message: &Message,
    topic: &Topic,
    filter: &Filter,
) -> usize {
    let (kind, pattern) = kind(filter);
    header_size(3)
        + bulk_size(kind.message_word().len())
        + pattern.map_or(0, |pattern| bulk_size(pattern.len()))
        + bulk_size(topic.as_bytes().len())
        + bulk_size(raw_size(&message.payload, &message.attachments))
}

/// As what a filter was subscribed to, and its pattern if it has one.
fn kind(filter: &Filter) -> (Kind, Option<&[u8]>) {
    match filter {
        // Nobody who speaks RESP is in a room.
        Filter::Exact(_) | Filter::Dotted(_) | Filter::Room(_) => (Kind::Channel, None),
        Filter::Shard(_) => (Kind::Shard, None),
        Filter::Glob(pattern) => (Kind::Pattern, Some(pattern)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::{Flags, Payload, Targets};

    #[track_caller]
    fn check(filter: &Filter, topic: &[u8], payload: Payload, expected: [&str; 2]) {
        let topic = Topic::channel(Bytes::copy_from_slice(topic)).unwrap();
        let message = Message {
            targets: Targets {
                topics: [topic.clone()].into_iter().collect(),
                ..Targets::default()
            },
            event: None,
            payload,
            attachments: Vec::new(),
            origin: None,
            flags: Flags::default(),
            position: None,
            unix_ms: 0,
            envelope: Some(Bytes::from_static(b"{\"of\":\"another protocol\"")),
        };
        for (version, expected) in [Version::Two, Version::Three].into_iter().zip(expected) {
            let mut out = b"before".to_vec();
            encode_delivery(version, &message, &topic, filter, &mut out);
            assert_eq!(out[6..].escape_ascii().to_string(), expected);
            assert_eq!(
                delivery_size(version, &message, &topic, filter),
                out.len() - 6
            );
        }
    }

    #[test]
    fn a_delivery_says_how_it_was_subscribed_to() {
        let binary = || Payload::binary(Bytes::from_static(b"\r\n\xff\0"));
        check(
            &Filter::exact(Bytes::from_static(b"\xfe")).unwrap(),
            b"\xfe",
            binary(),
            [
                r"*3\r\n$7\r\nmessage\r\n$1\r\n\xfe\r\n$4\r\n\r\n\xff\x00\r\n",
                r">3\r\n$7\r\nmessage\r\n$1\r\n\xfe\r\n$4\r\n\r\n\xff\x00\r\n",
            ],
        );
        check(
            &Filter::glob(Bytes::from_static(b"socket.io#/#*")).unwrap(),
            b"socket.io#/#room#",
            binary(),
            [
                r"*4\r\n$8\r\npmessage\r\n$13\r\nsocket.io#/#*\r\n$17\r\nsocket.io#/#room#\r\n$4\r\n\r\n\xff\x00\r\n",
                r">4\r\n$8\r\npmessage\r\n$13\r\nsocket.io#/#*\r\n$17\r\nsocket.io#/#room#\r\n$4\r\n\r\n\xff\x00\r\n",
            ],
        );
        check(
            &Filter::dotted(Bytes::from_static(b"a")).unwrap(),
            b"a.b",
            binary(),
            [
                r"*3\r\n$7\r\nmessage\r\n$3\r\na.b\r\n$4\r\n\r\n\xff\x00\r\n",
                r">3\r\n$7\r\nmessage\r\n$3\r\na.b\r\n$4\r\n\r\n\xff\x00\r\n",
            ],
        );
    }

    #[test]
    fn shard_channels_have_their_word_and_attachments_their_places() {
        let topic = Topic::shard(Bytes::from_static(b"s")).unwrap();
        let filter = Filter::shard(Bytes::from_static(b"s")).unwrap();
        let message = Message {
            targets: Targets::default(),
            event: None,
            payload: Payload::json(Bytes::from_static(br#"[{"_placeholder":true,"num":0}]"#)),
            attachments: vec![Bytes::from_static(b"abc")],
            origin: None,
            flags: Flags::default(),
            position: None,
            unix_ms: 0,
            envelope: None,
        };
        let mut out = Vec::new();
        encode_delivery(Version::Two, &message, &topic, &filter, &mut out);
        let payload = r#"[{"$binary":"YWJj"}]"#;
        let expected = format!("*3\r\n$8\r\nsmessage\r\n$1\r\ns\r\n$20\r\n{payload}\r\n");
        assert_eq!(out, expected.as_bytes());
        let size = delivery_size(Version::Two, &message, &topic, &filter);
        assert_eq!(size, expected.len());
    }

    #[test]
    fn payloads_are_the_bytes_that_came() {
        let filter = Filter::exact(Bytes::from_static(b"")).unwrap();
        for payload in [
            Payload::json(Bytes::from_static(b" \"a\"")),
            Payload::text(Bytes::from_static(b" \"a\"")),
            Payload::binary(Bytes::from_static(b" \"a\"")),
        ] {
            let rest = "3\\r\\n$7\\r\\nmessage\\r\\n$0\\r\\n\\r\\n$4\\r\\n \\\"a\\\"\\r\\n";
            let expected = ["*", ">"].map(|kind| format!("{kind}{rest}"));
            check(
                &filter,
                b"",
                payload,
                expected.each_ref().map(|text| &text[..]),
            );
        }
    }
}
