//! ClusterWS against serde_json: what was decoded is what was written, however it was spaced, escaped and framed; a
//! delivery is the same JSON in every dialect, and a publish again.

use bytes::Bytes;
use proptest::prelude::*;
use pubsub::address::{ClientId, Sender, SessionId, ShardId};
use pubsub::error::Code;
use pubsub::limits::JSON_DEPTH_MAX;
use pubsub::message::{Flags, Message, Payload, Targets};
use pubsub::protocol::clusterws::{
    Decoded, Dialect, Generation, decode, delivery_size, encode, encode_delivery,
};
use pubsub::protocol::{Command, Event};
use pubsub::topic::Topic;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

const NOW: u64 = 1_518_741_097_123;

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_are_what_serde_json_sees(text in message_text(), dialect in dialect(), is_binary: bool) {
        let expected = naive(&text, dialect);
        prop_assert_eq!(as_naive(decode(text.as_bytes(), is_binary, dialect, NOW)), expected, "{}", text);
    }

    #[test]
    fn what_is_json_is_json_for_both(text in message_text(), dialect in dialect(), seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20 {
            let Ok(text) = String::from_utf8(mutated(text.clone().into_bytes(), &mut random)) else { continue };
            let found = decode(text.as_bytes(), false, dialect, NOW);
            let is_object = is_json(&text) && text.trim_start().starts_with('{');
            let is_taken = !matches!(found, Decoded::Bad { code: Code::BadJson, .. });
            prop_assert_eq!(is_taken, is_object || matches!(found, Decoded::Pong | Decoded::Ping), "{}", text);
            if is_taken {
                // Behind a space nothing is as the original clients write it.
                prop_assert_eq!(decode(format!(" {text}").as_bytes(), false, dialect, NOW), found, "{}", text);
            }
        }
    }

    #[test]
    fn bytes_that_are_no_utf8_are_characters(data in "[ -~\u{80}-\u{ff}]{0,30}", dialect in dialect()) {
        let text = envelope(dialect, &json!(["p", "r\u{ff}", data]));
        // What the JavaScript clients do: the low eight bits of each unit.
        let sent: Vec<u8> = text.chars().map(|each| each as u8).collect();
        let expected = if std::str::from_utf8(&sent).is_ok() { Naive::Bad(Code::BadTopic) } else { naive(&text, dialect) };
        prop_assert_eq!(as_naive(decode(&sent, true, dialect, NOW)), expected, "{}", text);
    }

    #[test]
    fn a_delivery_is_the_same_json_in_every_dialect(
        name in prop_oneof![prop::collection::vec(any::<u8>(), 1..20), ".{1,20}".prop_map(String::into_bytes)],
        (payload, data) in payload(),
        dialect in dialect(),
    ) {
        let topic = Topic::channel(Bytes::from(name)).unwrap();
        let text = delivered(dialect, &message(payload.clone(), Vec::new()), &topic);
        prop_assert!(!dialect.binary || text.is_ascii(), "{}", text);
        let found: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&found, &keyed(dialect, json!(["p", lossy(topic.as_bytes()), data])));

        // As a message from a client, it is that publish.
        let Decoded::Command(Command::Publish { message, tag: None }) = decode(text.as_bytes(), dialect.binary, dialect, NOW) else {
            panic!("{text}")
        };
        prop_assert_eq!(lossy(message.targets.topics[0].as_bytes()), lossy(topic.as_bytes()));
        prop_assert_eq!(serde_json::from_slice::<Value>(message.payload.bytes()).unwrap(), data);
        prop_assert_eq!(delivered(dialect, &message, &message.targets.topics[0]), text);
    }

    #[test]
    fn attachments_stand_at_their_placeholders(
        attachments in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..8), 1..3),
        placed in prop::collection::vec(0..4_usize, 0..4),
        beside in value(),
        dialect in dialect(),
    ) {
        let placeholder = |number: &usize| json!({"_placeholder": true, "num": number});
        let shown = |number: &usize| attachments.get(*number).map_or(placeholder(number), |bytes| binary(bytes));
        let sent: Value = placed.iter().map(placeholder).chain([beside.clone()]).collect();
        let expected: Value = placed.iter().map(shown).chain([beside]).collect();
        let message = message(Payload::json(Bytes::from(sent.to_string())), attachments.iter().cloned().map(Bytes::from).collect());
        let text = delivered(dialect, &message, &Topic::channel(Bytes::from_static(b"a")).unwrap());
        prop_assert!(!dialect.binary || text.is_ascii(), "{}", text);
        prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), keyed(dialect, json!(["p", "a", expected])));
    }

    #[test]
    fn events_are_the_same_json_in_every_dialect(name: Vec<u8>, (payload, data) in payload(), count: u64, dialect in dialect()) {
        let client = ClientId { broker: 1, shard: ShardId(2), session: SessionId { slot: 3, generation: 4 } };
        let from = Sender { client, peer: None };
        let said = |event: &Event<'_>| {
            let mut out = Vec::new();
            assert!(encode(dialect, event, &mut out));
            assert!(!dialect.binary || out.is_ascii());
            serde_json::from_slice::<Value>(&out).unwrap()
        };
        let emitted = said(&Event::Emitted { event: &name, data: &payload, from: Some(&from) });
        prop_assert_eq!(emitted, keyed(dialect, json!(["e", lossy(&name), data])));
        let gap = said(&Event::Gap { topic: &name, count });
        prop_assert_eq!(gap, keyed(dialect, json!(["e", "#gap", {"channel": lossy(&name), "count": count}])));
    }

    #[test]
    fn no_bytes_do_harm(bytes: Vec<u8>, text in message_text(), dialect in dialect(), seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let near: Vec<_> = (0..20).map(|_| mutated(text.clone().into_bytes(), &mut random)).collect();
        for bytes in near.into_iter().chain([bytes]) {
            for is_binary in [false, true] {
                decode(&bytes, is_binary, dialect, NOW);
            }
            // A payload that claims to be JSON and is not would be a bug of another protocol, and no reason to panic.
            let topic = Topic::channel(Bytes::from_static(b"t")).unwrap();
            let message = message(Payload::json(Bytes::from(bytes)), vec![Bytes::from_static(b"a")]);
            let mut out = Vec::new();
            encode_delivery(dialect, &message, &topic, &mut out);
            prop_assert_eq!(delivery_size(dialect, &message, &topic), out.len());
        }
    }
}

fn message(payload: Payload, attachments: Vec<Bytes>) -> Message {
    Message {
        targets: Targets::default(),
        event: None,
        payload,
        attachments,
        origin: None,
        flags: Flags::default(),
        position: None,
        unix_ms: NOW,
        envelope: None,
    }
}

/// The text of a delivery, of the size that was foretold.
fn delivered(dialect: Dialect, message: &Message, topic: &Topic) -> String {
    let mut out = "é".as_bytes().to_vec();
    encode_delivery(dialect, message, topic, &mut out);
    assert_eq!(delivery_size(dialect, message, topic), out.len() - 2);
    String::from_utf8(out.split_off(2)).unwrap()
}

fn key(dialect: Dialect) -> String {
    char::from(dialect.key()).to_string()
}

fn keyed(dialect: Dialect, array: Value) -> Value {
    Value::Object([(key(dialect), array)].into_iter().collect())
}

fn envelope(dialect: Dialect, array: &Value) -> String {
    format!("{{\"{}\":{array}}}", key(dialect))
}

fn lossy(bytes: &[u8]) -> Value {
    Value::from(String::from_utf8_lossy(bytes))
}

fn binary(bytes: &[u8]) -> Value {
    use base64::Engine as _;
    json!({"$binary": base64::engine::general_purpose::STANDARD.encode(bytes)})
}

// The oracles.

/// What RFC 8259 and the bound say: by serde_json, which skips values without a look at surrogates or ranges, and
/// by counting brackets outside of strings.
fn is_json(text: &str) -> bool {
    let (mut depth, mut deepest, mut in_string) = (0_usize, 0, false);
    let mut bytes = text.bytes();
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return false;
    }
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
    deepest <= JSON_DEPTH_MAX
}

/// A message as serde_json sees it.
#[derive(Debug, PartialEq)]
enum Naive {
    Subscribe(String),
    Unsubscribe(String),
    Publish(String, Value),
    Emit(String, Value),
    Nothing,
    Bad(Code),
}

/// The obvious twin of `decode`, for a text that is an object.
fn naive(text: &str, dialect: Dialect) -> Naive {
    let object: serde_json::Map<String, Value> = serde_json::from_str(text).unwrap();
    let Some(Value::Array(elements)) = object.get(&key(dialect)) else {
        return Naive::Bad(Code::BadType);
    };
    let element = |index: usize| elements.get(index).cloned().unwrap_or_default();
    let name = |index: usize, size_max: usize, code| {
        let name = element(index).as_str().map(str::to_owned);
        name.filter(|name| (1..=size_max).contains(&name.len()))
            .ok_or(Naive::Bad(code))
    };
    let channel = |index| name(index, 1024, Code::BadTopic);
    let event = |index| name(index, 255, Code::BadType);
    let found = match (element(0).as_str(), element(1).as_str()) {
        (None, _) => Err(Naive::Bad(Code::BadType)),
        (Some("s"), Some("s")) => channel(2).map(Naive::Subscribe),
        (Some("s"), Some("u")) => channel(2).map(Naive::Unsubscribe),
        (Some("p"), _) => channel(1).map(|channel| Naive::Publish(channel, element(2))),
        (Some("e"), _) => event(1).map(|event| Naive::Emit(event, element(2))),
        (Some(_), _) => Ok(Naive::Nothing),
    };
    found.unwrap_or_else(|bad| bad)
}

/// What `decode` gave, in the same words.
fn as_naive(decoded: Decoded) -> Naive {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let parsed = |payload: &Payload| serde_json::from_slice::<Value>(payload.bytes()).unwrap();
    match decoded {
        Decoded::Command(Command::Subscribe { filter, tag: None }) => {
            Naive::Subscribe(text(filter.written()))
        }
        Decoded::Command(Command::Unsubscribe { filter, tag: None }) => {
            Naive::Unsubscribe(text(filter.written()))
        }
        Decoded::Command(Command::Publish { message, tag: None }) => Naive::Publish(
            text(message.targets.topics[0].as_bytes()),
            parsed(&message.payload),
        ),
        Decoded::Command(Command::Emit { event, data, .. }) => {
            Naive::Emit(text(&event), parsed(&data))
        }
        Decoded::Nothing => Naive::Nothing,
        Decoded::Bad { code, .. } => Naive::Bad(code),
        other => panic!("{other:?} from an object"),
    }
}

// The messages.

fn dialect() -> impl Strategy<Value = Dialect> {
    let generation =
        prop::sample::select(&[Generation::Zero, Generation::One, Generation::Three][..]);
    (generation, any::<bool>()).prop_map(|(generation, binary)| Dialect::new(generation, binary))
}

/// Any value, of moderate size.
fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
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

/// A payload of each kind, and the JSON that it becomes.
fn payload() -> impl Strategy<Value = (Payload, Value)> {
    let json = (value(), any::<u64>()).prop_map(|(value, seed)| {
        let text = ornate(&value.to_string(), seed);
        let bytes = Bytes::copy_from_slice(text.trim().as_bytes());
        (Payload::json(bytes), value)
    });
    let text = ".{0,30}".prop_map(|text| (Payload::text(text.clone().into()), Value::from(text)));
    let bytes = any::<Vec<u8>>().prop_map(|bytes| {
        let shown = binary(&bytes);
        (Payload::binary(bytes.into()), shown)
    });
    prop_oneof![json, text, bytes]
}

/// An array that is a message, or nearly.
fn elements() -> impl Strategy<Value = Value> {
    let word = |words: &'static [&'static str]| prop::sample::select(words).prop_map(Value::from);
    let name = || {
        prop_oneof![
            6 => word(&["s", "u", "c", "room", "é.😀", "a\"b\\", "\u{1}", "*", "=a"]),
            1 => ".{0,9}".prop_map(Value::from),
            1 => (250..260_usize).prop_map(|size| Value::from("x".repeat(size))),
            1 => (510..515_usize).prop_map(|size| Value::from("é".repeat(size))),
            1 => value(),
        ]
    };
    let kind = prop_oneof![8 => word(&["p", "p", "s", "s", "e", "x", ""]), 1 => value()];
    let rest = prop::collection::vec(value(), 0..3);
    let all = (kind, name(), prop_oneof![name(), value()], rest);
    (all, 0..9_usize).prop_map(|((kind, name, data, rest), size)| {
        let mut elements = vec![kind, name, data];
        elements.extend(rest);
        // Mostly three.
        elements.truncate(if size < 3 { size } else { size / 2 + 1 });
        Value::from(elements)
    })
}

/// The text of an object that has such an array under the key of some generation, or several, or others.
fn message_text() -> impl Strategy<Value = String> {
    let key = || prop::sample::select(&["#", "#", "#", "#", "m", "m", "#m", "x"][..]);
    let member = prop_oneof![8 => elements(), 1 => value()];
    let members = prop::collection::vec((key(), member), 1..3);
    (members, prop::option::weighted(0.5, any::<u64>())).prop_map(|(members, seed)| {
        let members: Vec<String> = members
            .iter()
            .map(|(key, value)| format!("\"{key}\":{value}"))
            .collect();
        let text = format!("{{{}}}", members.join(","));
        match seed {
            Some(seed) => ornate(&text, seed),
            None => text,
        }
    })
}

/// The same JSON as no library writes it: whitespace anywhere, any character escaped. `text` is what serde_json writes.
fn ornate(text: &str, seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut out, mut in_string) = (String::new(), false);
    let mut chars = text.chars();
    while let Some(each) = chars.next() {
        let is_structure = !in_string && "{}[]:,".contains(each) || each == '"';
        in_string ^= each == '"';
        // White space may stand on the outer side of every quote, and on both of what is no string.
        let may_pad = |random: &mut fastrand::Rng| is_structure && random.u8(..) < 40;
        let pad = |random: &mut fastrand::Rng| *random.choice(&[' ', '\t', '\n', '\r']).unwrap();
        if (each != '"' || in_string) && may_pad(&mut random) {
            out.push(pad(&mut random));
        }
        if in_string && each == '\\' {
            let escape = chars.next().unwrap();
            let digits = if escape == 'u' { 4 } else { 0 };
            out.extend([each, escape]);
            out.extend(chars.by_ref().take(digits));
        } else if in_string && each != '"' && random.u8(..) < 30 {
            for unit in each.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04X}"));
            }
        } else {
            out.push(each);
        }
        if (each != '"' || !in_string) && may_pad(&mut random) {
            out.push(pad(&mut random));
        }
    }
    out
}

/// A few bytes changed, taken out, put in or doubled, with a taste for what messages are made of.
fn mutated(mut text: Vec<u8>, random: &mut fastrand::Rng) -> Vec<u8> {
    const PIECES: [&[u8]; 24] = [
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
        b"1",
        b" ",
        b"\n",
        b"\x0c",
        b"null",
        b"NaN",
        b"\xff",
        b"\xc3",
        b"]}",
        b"{\"#\":[\"p\",\"",
        b"\"#\"",
        b"\"m\"",
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
