//! Native JSON against serde_json: what one takes the other takes, what was decoded is what was written, and a
//! delivery is the publisher's object.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use proptest::prelude::*;
use pubsub::address::{Address, ClientId, Sender, SessionId, ShardId};
use pubsub::error::Code;
use pubsub::limits::JSON_DEPTH_MAX;
use pubsub::message::{Flags, Kind, Message, Payload, Targets};
use pubsub::protocol::json::{self, Members};
use pubsub::protocol::native::{
    ID_BYTES_MAX, Stamp, decode, delivery_size, encode, encode_delivery,
};
use pubsub::protocol::{Command, Event, Outcome, Refusal};
use pubsub::topic::{Filter, Topic};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

const NOW: u64 = 1_518_741_097_123;
const NOW_WRITTEN: &str = "2018-02-16T00:31:37.123Z";

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_json_is_json_for_both(value in value(), seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let text = Ornate::write(seed, |ornate, text| ornate.value(&value, text));
        prop_assert_eq!(json::validate(text.as_bytes()), Ok(()));
        prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        for _ in 0..20 {
            let text = mutated(text.clone().into_bytes(), &mut random);
            prop_assert_eq!(json::validate(&text).is_ok(), is_json(&text), "{}", text.escape_ascii());
            if std::str::from_utf8(&text).is_ok() {
                let members: Result<Vec<_>, _> = Members::of(&text).collect();
                let is_object = is_json(&text) && text.trim_ascii_start().starts_with(b"{");
                prop_assert_eq!(members.is_ok(), is_object, "{}", text.escape_ascii());
            }
        }
    }

    #[test]
    fn brackets_nest_up_to_the_bound(brackets in prop::collection::vec(any::<bool>(), 55..75), wrong in prop::option::weighted(0.2, 0..55_usize)) {
        let mut text: String = brackets.iter().map(|object| if *object { "{\"k\":" } else { "[0,[],{}," }).collect();
        text.push('1');
        text.extend(brackets.iter().enumerate().rev().map(|(index, object)| if *object != (Some(index) == wrong) { '}' } else { ']' }));
        prop_assert_eq!(json::validate(text.as_bytes()).is_ok(), is_json(text.as_bytes()), "{}", text);
    }

    #[test]
    fn strings_come_back(text in ".{0,60}", seed: u64, bytes: Vec<u8>) {
        let ornate = Ornate::write(seed, |ornate, out| ornate.string(&text, out));
        prop_assert_eq!(&*json::unescape(&ornate.as_bytes()[1..ornate.len() - 1]).unwrap(), text.as_bytes());

        let mut written = Vec::new();
        json::write_string(&bytes, &mut written);
        prop_assert_eq!(json::string_size(&bytes), written.len());
        prop_assert_eq!(serde_json::from_slice::<String>(&written).unwrap(), String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn commands_are_what_serde_json_sees(text in command()) {
        let object = serde_json::from_str(&text).unwrap();
        let id = written_id(&text);
        let found = decode(text.as_bytes(), &Stamp::new(NOW), false);
        if id.is_some_and(|id| id.len() > ID_BYTES_MAX) {
            let Err(Refusal { code: Code::TooLarge, tag: None, .. }) = found else { panic!("{text}: {found:?}") };
            return Ok(());
        }
        if let Err(refusal) = &found {
            let said = |key: &str| object_string(&object, key);
            prop_assert_eq!(refusal.tag.as_deref(), id.map(str::as_bytes), "{}", text);
            prop_assert_eq!(refusal.action.as_deref(), said("type"), "{}", text);
            prop_assert_eq!(refusal.topic.as_deref(), said("topic").map(str::as_bytes), "{}", text);
            let answer = answer(&Event::Refused(refusal));
            prop_assert_eq!(answer.get("id"), object.get("id"));
            prop_assert_eq!(answer["code"].as_str(), Some(refusal.code.as_str()));
        }
        prop_assert_eq!(found.map(as_naive).map_err(|refusal| refusal.code), naive(&object), "{}", text);
    }

    #[test]
    fn a_delivery_is_the_publishers_object(text in publish(), trust_peer_flag: bool, context in ".{0,20}") {
        let decoded = decode(text.as_bytes(), &Stamp::new(NOW), trust_peer_flag);
        let Ok(Command::Publish { message, .. }) = decoded else { panic!("{text}: {decoded:?}") };
        let found: Ordered = serde_json::from_slice(&delivered(&message, &message.targets.topics[0], context.as_bytes())).unwrap();

        let mut expected = serde_json::from_str::<Ordered>(&text).unwrap().once();
        expected.retain(|(key, _)| key != "context" && (key != "fromPeerServer" || trust_peer_flag));
        if expected.iter().all(|(key, _)| key != "timestamp") {
            expected.push(("timestamp".to_owned(), Value::from(NOW_WRITTEN)));
        }
        expected.push(("context".to_owned(), Value::from(context)));
        prop_assert_eq!(found.0, expected, "{}", text);
    }

    #[test]
    fn messages_of_any_protocol_are_delivered(
        topic in prop::collection::vec(any::<u8>(), 1..20),
        context: Vec<u8>,
        body in prop_oneof![prop::collection::vec(any::<u8>(), 0..50), ".{0,50}".prop_map(String::into_bytes), value().prop_map(|value| value.to_string().into_bytes())],
        attachments in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..8), 0..3),
        placed in prop::collection::vec(0..4_usize, 0..4),
        unix_ms in 0..253_402_300_800_000_u64,
    ) {
        let mut message = message(Payload::untyped(Bytes::from(body)), unix_ms);
        let bytes = message.payload.bytes();
        let mut expected = match message.payload.kind() {
            Kind::Json => serde_json::from_slice(bytes).unwrap(),
            Kind::Text => lossy(bytes),
            Kind::Binary => binary(bytes),
        };
        if !attachments.is_empty() && message.payload.kind() == Kind::Json {
            let placeholder = |number: &usize| serde_json::json!({"_placeholder": true, "num": number});
            let sent: Vec<Value> = placed.iter().map(placeholder).chain([expected.clone()]).collect();
            let shown = |number: &usize| attachments.get(*number).map_or(placeholder(number), |bytes| binary(bytes));
            expected = placed.iter().map(shown).chain([expected]).collect();
            message.payload = Payload::json(Bytes::from(serde_json::to_vec(&sent).unwrap()));
            message.attachments = attachments.into_iter().map(Bytes::from).collect();
        }
        let topic = Topic::channel(Bytes::from(topic)).unwrap();
        let found: Ordered = serde_json::from_slice(&delivered(&message, &topic, &context)).unwrap();
        let member = |key: &str, value: Value| (key.to_owned(), value);
        prop_assert_eq!(found.0, [
            member("type", Value::from("publish")),
            member("topic", lossy(topic.as_bytes())),
            member("message", expected),
            member("timestamp", lossy(Stamp::new(unix_ms).as_bytes())),
            member("context", lossy(&context)),
        ]);
    }

    #[test]
    fn answers_are_json_whatever_is_in_them(name: Vec<u8>, data: Vec<u8>, number: u64, slot: u32, code in ".{0,9}", reason in ".{0,9}") {
        let client = ClientId { broker: 1, shard: ShardId(2), session: SessionId { slot, generation: 3 } };
        let (from, said) = (format!("client:{client}"), lossy(&name));
        let sender = Sender { client, peer: None };
        let data = Payload::untyped(Bytes::from(data));
        let tag = Bytes::from_static(b"[null]");
        let reply = answer(&Event::Reply { tag: &tag, outcome: &Outcome::Data(data.clone()) });
        let request = answer(&Event::Request { event: &name, data: &data, number, from: &sender, timeout_ms: 1 });
        prop_assert_eq!(request, serde_json::json!({"type": "request", "event": said, "data": reply["data"], "id": number, "from": from}));
        let emitted = answer(&Event::Emitted { event: &name, data: &data, from: Some(&sender) });
        prop_assert_eq!(emitted, serde_json::json!({"type": "event", "event": said, "data": reply["data"], "from": from}));
        let failed = Outcome::Failed { code: code.clone().into(), reason: reason.clone().into() };
        let failed = answer(&Event::Reply { tag: &tag, outcome: &failed });
        prop_assert_eq!(failed, serde_json::json!({"type": "reply", "id": [null], "error": {"code": code, "reason": reason}}));
        let gap = answer(&Event::Gap { topic: &name, count: number });
        prop_assert_eq!(gap, serde_json::json!({"type": "gap", "topic": said, "count": number}));
    }

    #[test]
    fn no_bytes_do_harm(bytes: Vec<u8>, text in command(), seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let near: Vec<_> = (0..20).map(|_| mutated(text.clone().into_bytes(), &mut random)).collect();
        for bytes in near.into_iter().chain([bytes]) {
            if let Ok(Command::Publish { message, .. }) = decode(&bytes, &Stamp::new(seed), random.bool()) {
                delivered(&message, &message.targets.topics[0], &bytes);
            }
            let _ = json::unescape(&bytes);
            let ends: Vec<_> = Members::of(&bytes).filter_map(Result::ok).map(|member| member.value.range().end).collect();
            prop_assert!(ends.is_sorted() && ends.last().is_none_or(|end| *end <= bytes.len()));
            // A payload that claims to be JSON and is not would be a bug of another protocol, and no reason to panic.
            let mut message = message(Payload::json(Bytes::from(bytes)), seed);
            message.attachments.push(Bytes::from_static(b"a"));
            delivered(&message, &Topic::channel(Bytes::from_static(b"t")).unwrap(), b"c");
        }
    }
}

fn message(payload: Payload, unix_ms: u64) -> Message {
    Message {
        targets: Targets::default(),
        event: None,
        payload,
        attachments: Vec::new(),
        origin: None,
        flags: Flags::default(),
        position: None,
        unix_ms,
        envelope: None,
    }
}

/// The text of a delivery, of the size that was foretold.
fn delivered(message: &Message, topic: &Topic, context: &[u8]) -> Vec<u8> {
    let mut out = b"before".to_vec();
    encode_delivery(message, topic, context, &mut out);
    assert_eq!(delivery_size(message, topic, context), out.len() - 6);
    out.split_off(6)
}

fn answer(event: &Event<'_>) -> Value {
    let mut out = Vec::new();
    encode(event, &Stamp::new(NOW), &mut out);
    serde_json::from_slice(&out).unwrap()
}

fn lossy(bytes: &[u8]) -> Value {
    Value::from(String::from_utf8_lossy(bytes))
}

fn binary(bytes: &[u8]) -> Value {
    use base64::Engine as _;
    serde_json::json!({"$binary": base64::engine::general_purpose::STANDARD.encode(bytes)})
}

// The oracles.

/// What RFC 8259 and the bound say: by serde_json, which skips values without a look at surrogates or ranges, and
/// by counting brackets outside of strings.
fn is_json(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    serde_json::from_str::<IgnoredAny>(text).is_ok() && depth(text) <= JSON_DEPTH_MAX
}

fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string) = (0_usize, 0, false);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth -= 1,
            _ => {}
        }
    }
    deepest
}

/// An object with the order and the duplicates of its members.
#[derive(Debug)]
struct Ordered(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ordered, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Ordered;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Ordered(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl Ordered {
    /// Each key where it first stood, with its last value.
    fn once(&self) -> Vec<(String, Value)> {
        let last: HashMap<&str, &Value> = self
            .0
            .iter()
            .map(|(key, value)| (key.as_str(), value))
            .collect();
        let mut once: Vec<(String, Value)> = Vec::new();
        for (key, _) in &self.0 {
            if once.iter().all(|(earlier, _)| earlier != key) {
                once.push((key.clone(), last[key.as_str()].clone()));
            }
        }
        once
    }
}

/// The last `id` of an object as it was written.
fn written_id(text: &str) -> Option<&str> {
    let members: Vec<_> = Members::of(text.as_bytes()).map(Result::unwrap).collect();
    let keys: Ordered = serde_json::from_str(text).unwrap();
    let last = keys.0.iter().rposition(|(key, _)| key == "id")?;
    Some(&text[members[last].value.range()])
}

type Object = serde_json::Map<String, Value>;

fn object_string<'a>(object: &'a Object, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

/// A command as serde_json sees it. Payloads and ids are values here.
#[derive(Debug, PartialEq)]
enum Naive {
    Subscribe(String, Option<Value>),
    Unsubscribe(String, Option<Value>),
    Publish {
        topic: String,
        message: Value,
        echo: bool,
        id: Option<Value>,
    },
    Emit {
        to: String,
        event: String,
        data: Value,
    },
    Request {
        to: String,
        event: String,
        data: Value,
        id: Value,
        timeout: Option<u64>,
    },
    Reply(u64, Result<Value, (String, String)>),
    Handle(String, Option<Value>),
    Unhandle(String, Option<Value>),
    Whoami(Option<Value>),
    Ping(Option<Value>),
}

/// The obvious twin of `decode`, for a whole object.
fn naive(object: &Object) -> Result<Naive, Code> {
    let id = || object.get("id").cloned();
    let is_name = |name: &str| (1..=255).contains(&name.len()) && !name.contains(char::is_control);
    let topic = || {
        object_string(object, "topic")
            .map(str::to_owned)
            .ok_or(Code::BadTopic)
    };
    let filter = || {
        topic().and_then(|topic| {
            Filter::dotted(Bytes::from(topic.clone()))
                .map(|_| topic)
                .map_err(|_| Code::BadTopic)
        })
    };
    let event = || {
        object_string(object, "event")
            .filter(|event| is_name(event))
            .map(str::to_owned)
            .ok_or(Code::BadType)
    };
    let data = || object.get("data").cloned().unwrap_or_default();
    let to = |event: &str| {
        let to: Result<String, Code> = Ok(match object.get("to") {
            None => format!("service:{event}"),
            Some(to) => {
                let to = to.as_str().ok_or(Code::BadType)?;
                match to.split_once(':') {
                    Some(("peer", peer)) if is_name(peer) => {}
                    Some(("client", client)) => {
                        client.parse::<ClientId>().map_err(|_| Code::NoHandler)?;
                    }
                    _ => return Err(Code::BadType),
                }
                to.to_owned()
            }
        });
        to
    };
    Ok(match object_string(object, "type").ok_or(Code::BadType)? {
        "subscribe" => Naive::Subscribe(filter()?, id()),
        "unsubscribe" => Naive::Unsubscribe(filter()?, id()),
        "publish" => {
            let topic = topic()?;
            let echo = object
                .get("echo")
                .map_or(Some(true), Value::as_bool)
                .ok_or(Code::BadType)?;
            Topic::dotted(Bytes::from(topic.clone())).map_err(|_| Code::BadTopic)?;
            Naive::Publish {
                topic,
                message: object.get("message").cloned().unwrap_or_default(),
                echo,
                id: id(),
            }
        }
        "event" => {
            let event = event()?;
            Naive::Emit {
                to: to(&event)?,
                event,
                data: data(),
            }
        }
        "request" => {
            let event = event()?;
            let id = id().ok_or(Code::BadType)?;
            let to = to(&event)?;
            let timeout = match object.get("timeout") {
                None => None,
                Some(timeout) => {
                    let ms = timeout
                        .as_f64()
                        .filter(|ms| *ms >= 0.0)
                        .ok_or(Code::BadType)?;
                    Some(ms.trunc().min(f64::from(u32::MAX)) as u64)
                }
            };
            Naive::Request {
                to,
                event,
                data: data(),
                id,
                timeout,
            }
        }
        "reply" => {
            let number = object
                .get("id")
                .and_then(Value::as_u64)
                .filter(|number| *number < 1 << 53)
                .ok_or(Code::BadType)?;
            let outcome = match object.get("error") {
                None => Ok(data()),
                Some(error) => {
                    let word = |key: &str| {
                        error
                            .get(key)
                            .and_then(Value::as_str)
                            .map(str::to_owned)
                            .ok_or(Code::BadType)
                    };
                    Err((word("code")?, word("reason")?))
                }
            };
            Naive::Reply(number, outcome)
        }
        "handle" => Naive::Handle(event()?, id()),
        "unhandle" => Naive::Unhandle(event()?, id()),
        "whoami" => Naive::Whoami(id()),
        "ping" => Naive::Ping(id()),
        _ => return Err(Code::BadType),
    })
}

/// What `decode` gave, in the same words.
fn as_naive(command: Command) -> Naive {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let parsed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let id = |tag: Option<Bytes>| tag.map(|tag| parsed(&tag));
    let data = |payload: Payload| {
        assert_eq!(payload.kind(), Kind::Json, "native clients send JSON");
        parsed(payload.bytes())
    };
    let address = |to: Address| match to {
        Address::Service(service) => format!("service:{}", text(&service)),
        Address::Peer(peer) => format!("peer:{}", text(&peer)),
        Address::Client(client) => format!("client:{client}"),
        to @ (Address::Topic(_) | Address::Master(_) | Address::AnyPeer(_) | Address::Token(_)) => {
            panic!("a request to {to:?}")
        }
    };
    match command {
        Command::Subscribe { filter, tag } => Naive::Subscribe(text(filter.written()), id(tag)),
        Command::Unsubscribe { filter, tag } => Naive::Unsubscribe(text(filter.written()), id(tag)),
        Command::Publish { message, tag } => Naive::Publish {
            topic: text(message.targets.topics[0].as_bytes()),
            echo: !message.flags.not_to_origin,
            message: data(message.payload.clone()),
            id: id(tag),
        },
        Command::Emit {
            to,
            event,
            data: payload,
            ..
        } => Naive::Emit {
            to: address(to),
            event: text(&event),
            data: data(payload),
        },
        Command::Request {
            to,
            event,
            data: payload,
            tag,
            timeout_ms,
        } => Naive::Request {
            to: address(to),
            event: text(&event),
            data: data(payload),
            id: parsed(&tag),
            timeout: timeout_ms,
        },
        Command::Reply {
            number,
            outcome: Outcome::Data(payload),
        } => Naive::Reply(number, Ok(data(payload))),
        Command::Reply {
            number,
            outcome: Outcome::Failed { code, reason },
        } => Naive::Reply(number, Err((code.into(), reason.into()))),
        Command::Handle { event, tag } => Naive::Handle(text(&event), id(tag)),
        Command::Unhandle { event, tag } => Naive::Unhandle(text(&event), id(tag)),
        Command::Whoami { tag } => Naive::Whoami(id(tag)),
        Command::Ping { tag } => Naive::Ping(id(tag)),
        Command::Peer(command) => panic!("no client says {command:?}"),
    }
}

// The texts.

/// Any value, of moderate size.
fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // Exact in few digits: serde_json rounds others its own way.
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
        ".{0,20}".prop_map(Value::from),
        "[\"\\\\\u{0}-\u{1f}a{}\\[\\]:,]{0,40}".prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((".{0,6}", inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A member that a command knows, mostly of the right type.
fn known_member() -> impl Strategy<Value = (&'static str, Value)> {
    let word = |words: &'static [&'static str]| prop::sample::select(words).prop_map(Value::from);
    let number = || prop_oneof![0..100_u64, any::<u64>()].prop_map(Value::from);
    let code = || {
        prop_oneof![
            Just(serde_json::json!({"code": "c\n", "reason": "é"})),
            Just(serde_json::json!({"code": "c"}))
        ]
    };
    prop_oneof![
        4 => (Just("topic"), word(&["a", "a.b", "news.uk.london", "é.😀", "a..b", "", "*", "=a"])),
        3 => (Just("event"), word(&["e", "join room", "é", "", "\u{1}", "\u{9f}"])),
        2 => (Just("to"), word(&["peer:shop", "peer:", "peer:a:b", "client:AQIDBAUGBwAAAAgAAAAJ", "client:nobody", "client:", "topic:a", "peer"])),
        1 => (Just("timeout"), number()),
        1 => (Just("timeout"), any::<i32>().prop_map(|ms| Value::from(f64::from(ms) / 8.0))),
        2 => (Just("id"), number()),
        1 => (Just("id"), value()),
        2 => (Just("echo"), any::<bool>().prop_map(Value::from)),
        2 => (Just("error"), code()),
        2 => (prop::sample::select(&["message", "data", "timestamp", "context", "fromPeerServer"][..]), value()),
        1 => (prop::sample::select(&["type", "topic", "event", "to", "timeout", "id", "echo", "error"][..]), value()),
    ]
}

fn other_member() -> impl Strategy<Value = (String, Value)> {
    (prop_oneof![Just("x".to_owned()), ".{0,4}"], value())
}

/// The text of an object that has these members, and some more, in any order.
fn object(
    members: impl Strategy<Value = Vec<(&'static str, Value)>>,
) -> impl Strategy<Value = String> {
    (
        members,
        prop::collection::vec(other_member(), 0..4),
        any::<u64>(),
    )
        .prop_map(|(known, others, seed)| {
            let mut members: Vec<_> = known.iter().map(|(key, value)| (*key, value)).collect();
            members.extend(others.iter().map(|(key, value)| (key.as_str(), value)));
            fastrand::Rng::with_seed(seed).shuffle(&mut members);
            Ornate::write(seed, |ornate, text| ornate.members(members, text))
        })
}

/// A text that is a command, or nearly.
fn command() -> impl Strategy<Value = String> {
    let action = prop::sample::select(
        &[
            "subscribe",
            "unsubscribe",
            "publish",
            "event",
            "request",
            "request",
            "reply",
            "handle",
            "unhandle",
            "whoami",
            "ping",
            "ack",
        ][..],
    );
    let members =
        (action, prop::collection::vec(known_member(), 0..9)).prop_map(|(action, mut members)| {
            members.push(("type", Value::from(action)));
            // So that most are commands. A second one of a key that is there already makes a duplicate.
            let id = if action == "reply" {
                Value::from(7)
            } else {
                Value::Null
            };
            members.extend([
                ("topic", Value::from("a.b")),
                ("event", Value::from("e")),
                ("id", id),
            ]);
            members
        });
    object(members)
}

/// A text that is a publish.
fn publish() -> impl Strategy<Value = String> {
    let optional = prop::sample::select(
        &[
            "message",
            "data",
            "timestamp",
            "context",
            "fromPeerServer",
            "error",
        ][..],
    );
    let members = prop::collection::vec((optional, value()), 0..5).prop_map(|mut members| {
        members.extend([
            ("type", Value::from("publish")),
            ("topic", Value::from("a.b")),
        ]);
        members
    });
    object(members)
}

/// Writes values as no library does: whitespace anywhere, any character escaped, halves of pairs included.
struct Ornate(fastrand::Rng);

impl Ornate {
    fn write(seed: u64, write: impl FnOnce(&mut Ornate, &mut String)) -> String {
        let mut text = String::new();
        write(&mut Ornate(fastrand::Rng::with_seed(seed)), &mut text);
        text
    }

    fn value(&mut self, value: &Value, out: &mut String) {
        self.space(out);
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_string()),
            Value::String(text) => self.string(text, out),
            Value::Array(elements) => {
                out.push('[');
                self.space(out);
                for (index, element) in elements.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    self.value(element, out);
                }
                out.push(']');
            }
            Value::Object(members) => self.members(
                members.iter().map(|(key, value)| (key.as_str(), value)),
                out,
            ),
        }
        self.space(out);
    }

    fn members<'a>(
        &mut self,
        members: impl IntoIterator<Item = (&'a str, &'a Value)>,
        out: &mut String,
    ) {
        out.push('{');
        self.space(out);
        for (index, (key, value)) in members.into_iter().enumerate() {
            if index > 0 {
                out.push(',');
                self.space(out);
            }
            self.string(key, out);
            self.space(out);
            out.push(':');
            self.value(value, out);
        }
        out.push('}');
    }

    fn string(&mut self, text: &str, out: &mut String) {
        out.push('"');
        for each in text.chars() {
            if each < ' ' || each == '"' || each == '\\' || self.0.u8(..) < 30 {
                for unit in each.encode_utf16(&mut [0; 2]) {
                    let digits = if self.0.bool() {
                        format!("\\u{unit:04x}")
                    } else {
                        format!("\\u{unit:04X}")
                    };
                    out.push_str(&digits);
                }
            } else {
                out.push(each);
            }
        }
        out.push('"');
    }

    fn space(&mut self, out: &mut String) {
        while self.0.u8(..) < 40 {
            out.push(*self.0.choice(&[' ', '\t', '\n', '\r']).unwrap());
        }
    }
}

/// A few bytes changed, taken out, put in or doubled, with a taste for what JSON is made of.
fn mutated(mut text: Vec<u8>, random: &mut fastrand::Rng) -> Vec<u8> {
    const PIECES: [&[u8]; 30] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\\",
        b"\\u",
        b"\\ud800",
        b"0",
        b"-",
        b".",
        b"e",
        b"+",
        b"1",
        b" ",
        b"\n",
        b"\x0c",
        b"\0",
        b"t",
        b"null",
        b"true",
        b"NaN",
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        b"/",
        b"'",
        b"\xef\xbb\xbf",
    ];
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..=text.len());
        let end = (at + random.usize(..4)).min(text.len());
        let piece: Vec<u8> = match random.u8(..4) {
            0 => Vec::new(),
            1 => vec![random.u8(..)],
            2 => text[at..end].repeat(2),
            _ => random.choice(PIECES).unwrap().to_vec(),
        };
        let replaced = if random.bool() { at } else { end };
        text.splice(at..replaced, piece);
    }
    text
}
