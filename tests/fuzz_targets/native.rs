//! Native JSON. The input: one byte for `fromPeerServer`, then a text message.
//!
//! The oracle is serde_json: what is accepted here is JSON there, and whatever is written here is, too.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use pubsub::address::{ClientId, Sender, SessionId, ShardId};
use pubsub::limits::JSON_DEPTH_MAX;
use pubsub::message::{Message, Payload};
use pubsub::protocol::json::{self, Members};
use pubsub::protocol::native::{Stamp, decode, delivery_size, encode, encode_delivery};
use pubsub::protocol::{Action, Command, Event, Outcome};
use serde_json::value::RawValue;

use super::input::Input;

const NOW_MS: u64 = 1_518_741_097_123;

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let trust_peer_flag = input.byte() % 2 == 1;
    let text = input.rest();
    check_strings(text);
    let is_ours = json::validate(text).is_ok();
    assert_eq!(is_ours, is_json(text), "{}", text.escape_ascii());
    let is_object = is_ours && text.trim_ascii_start().starts_with(b"{");
    let decoded = decode(text, &Stamp::new(NOW_MS), trust_peer_flag);
    if std::str::from_utf8(text).is_err() {
        // A text message is checked for UTF-8 before it comes here. Other bytes may only not do harm.
        return;
    }
    assert_eq!(Members::of(text).all(|member| member.is_ok()), is_object);
    match decoded {
        Ok(command) => {
            assert!(is_object, "accepted: {}", text.escape_ascii());
            check_command(&command, trust_peer_flag);
        }
        Err(refusal) => check_answer(&Event::Refused(&refusal)),
    }
}

/// Any bytes as the text of a string, and as the inside of one.
fn check_strings(bytes: &[u8]) {
    let mut written = Vec::new();
    json::write_string(bytes, &mut written);
    assert_eq!(json::string_size(bytes), written.len());
    let read: String = serde_json::from_slice(&written).expect("a string");
    assert_eq!(read, String::from_utf8_lossy(bytes));
    let read = json::unescape(&written[1..written.len() - 1]).expect("a string");
    assert_eq!(*read, *String::from_utf8_lossy(bytes).as_bytes());

    let quoted = [b"\"", bytes, b"\""].concat();
    if let (Ok(ours), Ok(theirs)) = (
        json::unescape(bytes),
        serde_json::from_slice::<String>(&quoted),
    ) {
        assert_eq!(*ours, *theirs.as_bytes(), "{}", bytes.escape_ascii());
    }
}

fn check_command(command: &Command, trust_peer_flag: bool) {
    let client = ClientId {
        broker: 1,
        shard: ShardId(1),
        session: SessionId {
            slot: 2,
            generation: 3,
        },
    };
    let check_ack = |action, name: &[u8], tag: &Option<Bytes>| {
        let tag = tag.as_ref();
        check_answer(&Event::Ack { action, name, tag });
    };
    match command {
        Command::Publish { message, tag } => {
            let topic = message.targets.topics[0].as_bytes();
            check_ack(Action::Publish, topic, tag);
            check_delivery(message, trust_peer_flag);
            let count = 7;
            check_answer(&Event::Gap { topic, count });
        }
        Command::Subscribe { filter, tag } => check_ack(Action::Subscribe, filter.written(), tag),
        Command::Unsubscribe { filter, tag } => {
            check_ack(Action::Unsubscribe, filter.written(), tag);
        }
        Command::Emit { event, data, .. } => check_answer(&Event::Emitted {
            event,
            data,
            from: Some(&Sender { client, peer: None }),
        }),
        Command::Request {
            event, data, tag, ..
        } => {
            check_answer(&Event::Request {
                event,
                data,
                number: u64::MAX,
                from: &Sender { client, peer: None },
                timeout_ms: 1,
            });
            let outcome = &Outcome::Data(data.clone());
            check_answer(&Event::Reply { tag, outcome });
        }
        Command::Reply { outcome, .. } => {
            let tag = &Bytes::from_static(b"[1]");
            check_answer(&Event::Reply { tag, outcome });
        }
        Command::Handle { event, tag } => check_ack(Action::Handle, event, tag),
        Command::Unhandle { event, tag } => check_ack(Action::Unhandle, event, tag),
        Command::Peer(command) => unreachable!("no client says {command:?}"),
        Command::Whoami { tag } => {
            let tag = tag.as_ref();
            check_answer(&Event::Session { client, tag });
        }
        Command::Ping { tag } => check_answer(&Event::Pong { tag: tag.as_ref() }),
    }
}

/// A delivery is JSON, of the size that was foretold, and as a command it is the same publish again.
fn check_delivery(message: &Message, trust_peer_flag: bool) {
    let topic = &message.targets.topics[0];
    let context = b"=a.\"*\n\xFF";
    let mut out = Vec::new();
    encode_delivery(message, topic, context, &mut out);
    assert_eq!(delivery_size(message, topic, context), out.len());
    let text = std::str::from_utf8(&out).expect("a delivery is UTF-8");
    assert!(is_json(&out), "{text}");

    let (again, rewritten) = republished(&out, context, trust_peer_flag);
    assert_eq!(again.payload, message.payload, "{text}");
    assert_eq!(again.targets, message.targets, "{text}");
    assert_eq!(again.flags, message.flags, "{text}");
    // White space between members may go, but no more than once.
    let (_, unchanged) = republished(&rewritten, context, trust_peer_flag);
    assert_eq!(unchanged, rewritten, "{text}");

    // For subscribers of other publishers: the same payload without an envelope.
    for payload in [
        message.payload.clone(),
        Payload::untyped(message.payload.bytes().clone()),
        Payload::text(message.payload.bytes().clone()),
        Payload::binary(message.payload.bytes().clone()),
    ] {
        let bare = Message {
            envelope: None,
            payload,
            ..Message::clone(message)
        };
        let mut out = Vec::new();
        encode_delivery(&bare, topic, context, &mut out);
        assert_eq!(delivery_size(&bare, topic, context), out.len());
        assert!(serde_json::from_slice::<&RawValue>(&out).is_ok());
    }
}

/// A delivery taken as a publish, and its delivery.
fn republished(delivery: &[u8], context: &[u8], trust_peer_flag: bool) -> (Arc<Message>, Vec<u8>) {
    match decode(delivery, &Stamp::new(NOW_MS), trust_peer_flag) {
        Ok(Command::Publish { message, .. }) => {
            let mut out = Vec::new();
            encode_delivery(&message, &message.targets.topics[0], context, &mut out);
            (message, out)
        }
        other => panic!("{} became {other:?}", delivery.escape_ascii()),
    }
}

fn check_answer(event: &Event<'_>) {
    let mut out = Vec::new();
    encode(event, &Stamp::new(NOW_MS), &mut out);
    let text: Cow<'_, str> = String::from_utf8_lossy(&out);
    assert!(
        serde_json::from_slice::<&RawValue>(&out).is_ok(),
        "{event:?} became {text}"
    );
}

/// What RFC 8259 and the bound on depth say. (serde_json skips raw values without a look at surrogates or ranges.)
pub fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(text).is_ok() && depth(text) <= JSON_DEPTH_MAX
}

fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string) = (0_usize, 0, false);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
