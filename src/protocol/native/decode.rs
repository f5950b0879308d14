//! A text message to a command, or to the reason why there is none.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::smallvec;

use super::super::json::{JsonError, Kind, Member, Members, Span};
use super::super::{Command, Outcome, Refusal};
use super::envelope::Envelope;
use super::fields::{Fields, Key, name_of, own, string_of};
use super::{ID_BYTES_MAX, Stamp};
use crate::address::{Address, ClientId, SHARDS_MAX, is_name};
use crate::error::Code;
use crate::message::{Flags, Message, Payload, Targets};
use crate::topic::{Filter, Topic};

/// One text message (valid UTF-8) to a command. `trust_peer_flag`: keep `fromPeerServer`, else strip it.
///
/// A publish is one copy of the text; its topic, payload and envelope are slices of that copy.
///
/// # Errors
/// A refusal with the rule that was broken. It carries the command's `id` and topic as far as there were any.
pub fn decode(text: &[u8], stamp: &Stamp, trust_peer_flag: bool) -> Result<Command, Refusal> {
    let fields = Fields::read(text).map_err(not_json)?;
    let action = fields.string(Key::Type);
    if fields
        .raw(Key::Id)
        .is_some_and(|id| id.len() > ID_BYTES_MAX)
    {
        return Err(fields.refuse(Code::TooLarge, "`id` must be at most 1024 bytes"));
    }
    match action.as_deref() {
        Some(b"publish") => publish(&fields, stamp, trust_peer_flag),
        Some(b"subscribe") => Ok(Command::Subscribe {
            filter: filter(&fields)?,
            tag: fields.tag(),
        }),
        Some(b"unsubscribe") => Ok(Command::Unsubscribe {
            filter: filter(&fields)?,
            tag: fields.tag(),
        }),
        Some(b"event") => emit(&fields),
        Some(b"request") => request(&fields),
        Some(b"reply") => reply(&fields),
        Some(b"handle") => Ok(Command::Handle {
            event: fields.event()?,
            tag: fields.tag(),
        }),
        Some(b"unhandle") => Ok(Command::Unhandle {
            event: fields.event()?,
            tag: fields.tag(),
        }),
        Some(b"whoami") => Ok(Command::Whoami { tag: fields.tag() }),
        Some(b"ping") => Ok(Command::Ping { tag: fields.tag() }),
        Some(_) => Err(fields.refuse(Code::BadType, "there is no such `type`")),
        None => Err(fields.refuse(Code::BadType, "`type` must be a string")),
    }
}

#[cold]
fn not_json(error: JsonError) -> Refusal {
    let reason = Cow::Owned(format!("a text message must be one JSON object: {error}"));
    Refusal {
        action: None,
        code: Code::BadJson,
        reason,
        topic: None,
        tag: None,
    }
}

const TOPIC_MISSING: &str = "`topic` must be a string of Unicode";

fn filter(fields: &Fields<'_>) -> Result<Filter, Refusal> {
    let written = fields
        .string(Key::Topic)
        .ok_or_else(|| fields.refuse(Code::BadTopic, TOPIC_MISSING))?;
    // In a buffer of its own: a filter outlives the text by far.
    Filter::dotted(own(written)).map_err(|error| fields.refuse(Code::BadTopic, error.as_str()))
}

fn publish(fields: &Fields<'_>, stamp: &Stamp, trust_peer_flag: bool) -> Result<Command, Refusal> {
    let name = fields
        .string(Key::Topic)
        .ok_or_else(|| fields.refuse(Code::BadTopic, TOPIC_MISSING))?;
    let not_to_origin = match fields.value(Key::Echo).map(|echo| echo.kind) {
        None | Some(Kind::True) => false,
        Some(Kind::False) => true,
        Some(_) => return Err(fields.refuse(Code::BadType, "`echo` must be true or false")),
    };
    let envelope = Envelope::of(fields, stamp, trust_peer_flag);
    let slice = |span: Span| envelope.bytes.slice(span.range());
    let name = match (name, envelope.topic) {
        (Cow::Borrowed(_), Some(topic)) => slice(topic.inside()),
        (name, _) => own(name),
    };
    let topic =
        Topic::dotted(name).map_err(|error| fields.refuse(Code::BadTopic, error.as_str()))?;
    let payload = Payload::json(envelope.message.map_or(NULL, slice));
    let tag = envelope.id.map(slice);
    let message = Message {
        targets: Targets {
            topics: smallvec![topic],
            ..Targets::default()
        },
        event: None,
        payload,
        attachments: Vec::new(),
        origin: None,
        flags: Flags {
            not_to_origin,
            ..Flags::default()
        },
        position: None,
        unix_ms: stamp.unix_ms,
        envelope: Some(envelope.bytes),
    };
    Ok(Command::Publish {
        message: Arc::new(message),
        tag,
    })
}

fn emit(fields: &Fields<'_>) -> Result<Command, Refusal> {
    let event = fields.event()?;
    Ok(Command::Emit {
        to: receiver(fields, &event)?,
        event,
        data: data(fields),
        volatile: false,
        tag: None,
    })
}

fn request(fields: &Fields<'_>) -> Result<Command, Refusal> {
    let event = fields.event()?;
    let tag = fields
        .tag()
        .ok_or_else(|| fields.refuse(Code::BadType, "a request needs an `id`"))?;
    let to = receiver(fields, &event)?;
    let timeout_ms = match fields.value(Key::Timeout) {
        None => None,
        Some(timeout) => {
            let ms = if timeout.kind == Kind::Number {
                milliseconds(timeout.span.of(fields.text))
            } else {
                None
            };
            Some(ms.ok_or_else(|| {
                fields.refuse(
                    Code::BadType,
                    "`timeout` must be a number of milliseconds, not negative",
                )
            })?)
        }
    };
    Ok(Command::Request {
        to,
        event,
        data: data(fields),
        tag,
        timeout_ms,
    })
}

/// Whom it is for: the service of the event's name, unless it says otherwise.
fn receiver(fields: &Fields<'_>, event: &Bytes) -> Result<Address, Refusal> {
    match fields.value(Key::To) {
        None => Ok(Address::Service(event.clone())),
        Some(_) => address(fields),
    }
}

/// `peer:NAME` or `client:S`.
fn address(fields: &Fields<'_>) -> Result<Address, Refusal> {
    let to = fields.string(Key::To).unwrap_or_default();
    if let Some(name) = to.strip_prefix(b"peer:").filter(|name| is_name(name)) {
        return Ok(Address::Peer(Bytes::copy_from_slice(name)));
    }
    if let Some(client) = to.strip_prefix(b"client:") {
        let client = std::str::from_utf8(client)
            .ok()
            .and_then(|client| client.parse::<ClientId>().ok());
        // A number that no shard has would be a stray index further in.
        return match client.filter(|client| client.shard.index() < SHARDS_MAX) {
            Some(client) => Ok(Address::Client(client)),
            None => Err(fields.refuse(Code::NoHandler, "there is no such client")),
        };
    }
    Err(fields.refuse(
        Code::BadType,
        "`to` must be `peer:` and a name, or `client:` and a session",
    ))
}

fn reply(fields: &Fields<'_>) -> Result<Command, Refusal> {
    let number = fields.raw(Key::Id).and_then(request_number);
    let number = number.ok_or_else(|| {
        fields.refuse(
            Code::BadType,
            "the `id` of a reply must be the number that came with the request",
        )
    })?;
    let outcome = match fields.raw(Key::Error) {
        None => Outcome::Data(data(fields)),
        Some(error) => failure(error).ok_or_else(|| {
            fields.refuse(
                Code::BadType,
                "`error` must be an object with the strings `code` and `reason`",
            )
        })?,
    };
    Ok(Command::Reply { number, outcome })
}

/// `{"code":"..","reason":".."}`
fn failure(error: &[u8]) -> Option<Outcome> {
    let (mut code, mut reason) = (None, None);
    for member in Members::of(error) {
        let member = member.ok()?;
        match &*name_of(&member, error) {
            b"code" => code = Some(member),
            b"reason" => reason = Some(member),
            _ => {}
        }
    }
    let text = |member: Option<Member>| {
        let member = member?;
        let text = string_of(member.value, member.kind, error)?;
        Some(Cow::Owned(String::from_utf8(text.into_owned()).ok()?))
    };
    Some(Outcome::Failed {
        code: text(code)?,
        reason: text(reason)?,
    })
}

const NULL: Bytes = Bytes::from_static(b"null");

fn data(fields: &Fields<'_>) -> Payload {
    Payload::json(fields.raw(Key::Data).map_or(NULL, Bytes::copy_from_slice))
}

/// The whole milliseconds of a JSON number that is not negative; what does not fit 32 bits (49 days) is as good
/// as 32 bits of them.
fn milliseconds(number: &[u8]) -> Option<u64> {
    let ms: f64 = std::str::from_utf8(number).ok()?.parse().ok()?;
    // The cast truncates, and saturates.
    (ms >= 0.0).then_some(u64::from(ms as u32))
}

/// The digits of an integer below 2^53, which every client can hold in a JSON number.
fn request_number(raw: &[u8]) -> Option<u64> {
    if !raw.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(raw)
        .ok()?
        .parse()
        .ok()
        .filter(|number| *number < 1 << 53)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{SessionId, ShardId};
    use crate::topic::TopicError;

    const NOW: u64 = 1_518_741_097_123;

    fn read(text: &str) -> Result<Command, Refusal> {
        decode(text.as_bytes(), &Stamp::new(NOW), false)
    }

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn json(text: &str) -> Payload {
        Payload::json(bytes(text))
    }

    fn topics(name: &str) -> Filter {
        Filter::dotted(bytes(name)).unwrap()
    }

    #[test]
    fn commands_are_read() {
        let check = |text: &str, expected: Command| assert_eq!(read(text), Ok(expected), "{text}");
        check(
            r#"{"type":"subscribe","topic":"a.b"}"#,
            Command::Subscribe {
                filter: topics("a.b"),
                tag: None,
            },
        );
        check(
            " {\"timestamp\":\"2018\",\n\"topic\": \"=a.*\", \"id\": [1, 2] ,\t\"type\":\"subscribe\"} ",
            Command::Subscribe {
                filter: topics("=a.*"),
                tag: Some(bytes("[1, 2]")),
            },
        );
        check(
            r#"{"type":"subscribe","topic":"a","since":{"epoch":1},"epoch":"x","offset":-1}"#,
            Command::Subscribe {
                filter: topics("a"),
                tag: None,
            },
        );
        check(
            r#"{"\u0074ype":"\u0073ubscribe","\u0074opic":"\u0061\u002eb\u00e9"}"#,
            Command::Subscribe {
                filter: topics("a.bé"),
                tag: None,
            },
        );
        check(
            r#"{"type":"x","topic":5,"topic":"a","type":"unsubscribe","id":1,"id":null}"#,
            Command::Unsubscribe {
                filter: topics("a"),
                tag: Some(bytes("null")),
            },
        );
        check(
            r#"{"type":"event","event":"e","data":{"a": 1}}"#,
            Command::Emit {
                to: Address::Service(bytes("e")),
                event: bytes("e"),
                data: json(r#"{"a": 1}"#),
                volatile: false,
                tag: None,
            },
        );
        check(
            r#"{"type":"event","event":"\u00e9 ","to":"peer:shop"}"#,
            Command::Emit {
                to: Address::Peer(bytes("shop")),
                event: bytes("é "),
                data: json("null"),
                volatile: false,
                tag: None,
            },
        );
        check(
            r#"{"type":"handle","event":"e"}"#,
            Command::Handle {
                event: bytes("e"),
                tag: None,
            },
        );
        check(
            r#"{"type":"unhandle","event":"e","id":"\u0031"}"#,
            Command::Unhandle {
                event: bytes("e"),
                tag: Some(bytes(r#""\u0031""#)),
            },
        );
        check(r#"{"type":"whoami"}"#, Command::Whoami { tag: None });
        check(
            r#"{"type":"ping","id":0,"topic":5,"event":5}"#,
            Command::Ping {
                tag: Some(bytes("0")),
            },
        );
    }

    #[test]
    fn requests_are_read() {
        let client = ClientId {
            broker: 1,
            shard: ShardId(2),
            session: SessionId {
                slot: 3,
                generation: 4,
            },
        };
        let check = |more: &str, to: Address, timeout_ms: Option<u64>| {
            let text = format!(r#"{{"type":"request","event":"e","id":7{more}}}"#);
            let expected = Command::Request {
                to,
                event: bytes("e"),
                data: json("null"),
                tag: bytes("7"),
                timeout_ms,
            };
            assert_eq!(read(&text), Ok(expected), "{text}");
        };
        let service = || Address::Service(bytes("e"));
        check("", service(), None);
        check(
            r#","to":"peer:shop 1""#,
            Address::Peer(bytes("shop 1")),
            None,
        );
        check(
            r#","to":"\u0070eer:a\"b""#,
            Address::Peer(bytes("a\"b")),
            None,
        );
        check(
            &format!(r#","to":"client:{client}""#),
            Address::Client(client),
            None,
        );
        for (timeout, ms) in [
            ("0", 0),
            ("1500", 1500),
            ("1500.99", 1500),
            ("0.9", 0),
            ("-0", 0),
            ("1.5e3", 1500),
            ("4294967295", 4_294_967_295),
            ("4294967296", 4_294_967_295),
            ("1e999", 4_294_967_295),
        ] {
            check(&format!(r#","timeout":{timeout}"#), service(), Some(ms));
        }
        let data = r#"{"type":"request","event":"e","id":{},"data":[ 1.0 ]}"#;
        assert!(
            matches!(read(data), Ok(Command::Request { data, tag, .. }) if data == json("[ 1.0 ]") && tag == "{}")
        );
    }

    #[test]
    fn replies_are_read() {
        let check = |more: &str, number: u64, outcome: Outcome| {
            let text = format!(r#"{{"type":"reply",{more}}}"#);
            assert_eq!(
                read(&text),
                Ok(Command::Reply { number, outcome }),
                "{text}"
            );
        };
        let failed = |code: &str, reason: &str| Outcome::Failed {
            code: Cow::Owned(code.into()),
            reason: Cow::Owned(reason.into()),
        };
        check(r#""id":0"#, 0, Outcome::Data(json("null")));
        check(
            r#""id":9007199254740991,"data":{"x":"y"}"#,
            (1 << 53) - 1,
            Outcome::Data(json(r#"{"x":"y"}"#)),
        );
        check(
            r#""id":3,"data":1,"error":{"code":"c","reason":"r"}"#,
            3,
            failed("c", "r"),
        );
        check(
            r#""id":3,"error":{"x":[],"reason":1,"reason":"\n\"é","\u0063ode":"\ud83d\ude00"}"#,
            3,
            failed("😀", "\n\"é"),
        );
        check(
            r#""id":3,"error":{"code":"","reason":""}"#,
            3,
            failed("", ""),
        );
    }

    #[test]
    fn a_publish_is_slices_of_one_copy() {
        let text = r#"{"type":"publish","topic":"a.b","message":{"x": [1]},"id":"i","echo":false}"#;
        let Ok(Command::Publish { message, tag }) = read(text) else {
            panic!("{text}")
        };
        let envelope = message.envelope.clone().unwrap();
        assert_eq!(
            envelope,
            [
                &text[..text.len() - 1],
                r#","timestamp":"2018-02-16T00:31:37.123Z""#
            ]
            .concat()
        );
        assert_eq!(
            message.targets.topics.as_slice(),
            [Topic::dotted(bytes("a.b")).unwrap()]
        );
        assert_eq!(message.payload, json(r#"{"x": [1]}"#));
        assert_eq!(
            (message.unix_ms, message.origin, message.event.clone()),
            (NOW, None, None)
        );
        assert_eq!(
            message.flags,
            Flags {
                not_to_origin: true,
                ..Flags::default()
            }
        );
        assert!(
            message.attachments.is_empty()
                && message.targets.rooms.is_empty()
                && message.position.is_none()
        );
        let tag = tag.unwrap();
        assert_eq!(tag, r#""i""#);
        for slice in [
            message.targets.topics[0].as_bytes(),
            message.payload.bytes(),
            &tag,
        ] {
            assert!(
                envelope.as_ptr_range().contains(&slice.as_ptr()),
                "{slice:?} is a copy of its own"
            );
        }

        let check = |text: &str, topic: &str, payload: &str, envelope: &str| {
            let Ok(Command::Publish { message, tag: None }) = read(text) else {
                panic!("{text}")
            };
            assert_eq!(message.targets.topics[0].as_bytes(), topic);
            assert_eq!(message.payload, json(payload));
            assert_eq!(message.envelope.as_deref(), Some(envelope.as_bytes()));
            assert!(!message.flags.not_to_origin);
        };
        // What dwsps's client sends for undefined.
        check(
            r#"{"type":"publish","timestamp":"t","topic":"a"}"#,
            "a",
            "null",
            r#"{"type":"publish","timestamp":"t","topic":"a""#,
        );
        check(
            r#"{"type":"publish","topic":"\u0061é","message":1,"timestamp":0,"echo":true}"#,
            "aé",
            "1",
            r#"{"type":"publish","topic":"\u0061é","message":1,"timestamp":0,"echo":true"#,
        );
        check(
            r#"{"type":"x","context":"c","message":1,"topic":"a","type":"publish","topic":"b" , "fromPeerServer":true,"message" : [2],"timestamp":0}"#,
            "b",
            "[2]",
            r#"{"type":"publish","message":[2],"topic":"b","timestamp":0"#,
        );
        let peer = r#"{"type":"publish","topic":"a","fromPeerServer":true,"timestamp":0}"#;
        let Ok(Command::Publish { message, .. }) = decode(peer.as_bytes(), &Stamp::new(NOW), true)
        else {
            panic!("{peer}")
        };
        assert_eq!(
            message.envelope.as_deref().unwrap(),
            &peer.as_bytes()[..peer.len() - 1]
        );
    }

    /// None of these may ever become a command, for then it would be acked. A line is the code and the text.
    const REFUSED: &str = include_str!("refused.txt");

    #[test]
    fn malformed_texts_are_refused() {
        let check = |text: &str, code: &str| {
            let refusal = read(text).expect_err(text);
            assert_eq!(refusal.code.as_str(), code, "{text}: {refusal:?}");
            assert!(!refusal.reason.is_empty());
            if refusal.code == Code::BadJson {
                assert_eq!(
                    (refusal.action, refusal.topic, refusal.tag),
                    (None, None, None)
                );
            }
        };
        for line in REFUSED.lines() {
            let (code, text) = line.split_once(' ').unwrap();
            check(text, code);
        }
        let message = |message: &str| {
            let text = r#"{"type":"publish","topic":"a","message":"#;
            [text, message, "}"].concat()
        };
        let nested = |depth: usize| message(&["[".repeat(depth), "]".repeat(depth)].concat());
        assert!(read(&nested(63)).is_ok());
        for text in [
            &nested(64),
            &nested(30_000),
            &message("{\"a\":").repeat(1_000),
            "",
            " ",
            "\u{feff}{\"type\":\"ping\"}",
            "{\"type\":\"ping\"}\0",
            "{\"type\":\"pi\nng\"}",
        ] {
            check(text, "bad_json");
        }
        let long = "é".repeat(128);
        check(
            &format!(r#"{{"type":"event","event":"{long}"}}"#),
            "bad_type",
        );
        let session = SessionId {
            slot: 3,
            generation: 4,
        };
        let nowhere = ClientId {
            broker: 1,
            shard: ShardId(128),
            session,
        };
        let text = format!(r#"{{"type":"request","event":"e","id":1,"to":"client:{nowhere}"}}"#);
        check(&text, "no_handler");
    }

    /// Which names are topics is `topic`'s to say; a refusal repeats its sentence.
    #[test]
    fn topics_and_filters_are_judged_by_their_own_rules() {
        let long = "x".repeat(256);
        for name in [
            "a",
            "",
            ".",
            "a..b",
            "a.",
            ".a",
            "*",
            "a.*",
            "=a",
            "=",
            "==a",
            "$a",
            "a$",
            "a b",
            "a\u{1}",
            "\u{7f}",
            "é",
            &long,
            &"a.".repeat(40),
        ] {
            let written = serde_json::to_string(name).unwrap();
            let check = |action: &str, rule: Result<(), &'static str>| {
                let text = format!(r#"{{"type":"{action}","topic":{written},"id":5}}"#);
                let found = read(&text).map(|_| ());
                let expected = rule.map_err(|reason| Refusal {
                    action: Some(Cow::Owned(action.into())),
                    code: Code::BadTopic,
                    reason: Cow::Borrowed(reason),
                    topic: Some(bytes(name)),
                    tag: Some(bytes("5")),
                });
                assert_eq!(found, expected, "{text}");
            };
            let topic = Topic::dotted(bytes(name)).map(|_| ());
            let filter = Filter::dotted(bytes(name)).map(|_| ());
            check("publish", topic.map_err(TopicError::as_str));
            check("subscribe", filter.map_err(TopicError::as_str));
            check("unsubscribe", filter.map_err(TopicError::as_str));
        }
    }

    #[test]
    fn a_refusal_says_which_command_it_was() {
        let check = |text: &str, action: Option<&str>, topic: Option<&str>, tag: Option<&str>| {
            let refusal = read(text).expect_err(text);
            assert_eq!(refusal.action.as_deref(), action, "{text}");
            assert_eq!(refusal.topic, topic.map(bytes), "{text}");
            assert_eq!(refusal.tag, tag.map(bytes), "{text}");
        };
        check(r#"{"id":1}"#, None, None, Some("1"));
        check(
            r#"{"type":5,"topic":"a","id":{"x": 1}}"#,
            None,
            Some("a"),
            Some(r#"{"x": 1}"#),
        );
        check(
            r#"{"type":"no","topic":"\u0061","id":null}"#,
            Some("no"),
            Some("a"),
            Some("null"),
        );
        check(
            r#"{"type":"publish","topic":5,"id":1,"id":2}"#,
            Some("publish"),
            None,
            Some("2"),
        );
        check(
            r#"{"type":"publish","topic":"a","echo":5}"#,
            Some("publish"),
            Some("a"),
            None,
        );
        check(
            r#"{"type":"request","event":"e","id":1,"to":"client:x"}"#,
            Some("request"),
            None,
            Some("1"),
        );
        let (long, cut) = ("é".repeat(600), "é".repeat(512));
        check(
            &format!(r#"{{"type":"ping!","topic":"x{long}"}}"#),
            Some("ping!"),
            Some(&format!("x{}", &cut[..1022])),
            None,
        );
        check(
            &format!(r#"{{"type":"x{long}"}}"#),
            Some(&format!("x{}", &cut[..254])),
            None,
            None,
        );
        check(
            &format!(r#"{{"type":"xx{long}"}}"#),
            Some(&format!("xx{}", &cut[..252])),
            None,
            None,
        );
    }

    #[test]
    fn an_id_is_small() {
        let text = |kind: &str, size: usize| {
            format!(r#"{{"type":"{kind}","id":"{}"}}"#, "x".repeat(size - 2))
        };
        assert!(
            matches!(read(&text("ping", ID_BYTES_MAX)), Ok(Command::Ping { tag: Some(tag) }) if tag.len() == ID_BYTES_MAX)
        );
        for kind in ["ping", "reply", "publish", "no"] {
            let refusal = read(&text(kind, ID_BYTES_MAX + 1)).unwrap_err();
            assert_eq!(
                (refusal.code, refusal.action.as_deref(), refusal.tag),
                (Code::TooLarge, Some(kind), None)
            );
        }
    }
}
