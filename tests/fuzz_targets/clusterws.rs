//! ClusterWS. The input: a digit each for the generation (0 to 2), for binary mode and for the frame (0 or 1), then a
//! message.
//!
//! The oracle is serde_json: what is accepted here is JSON there, and whatever is written here is, too.

use bytes::Bytes;
use pubsub::address::{ClientId, Sender, SessionId, ShardId};
use pubsub::error::Code;
use pubsub::limits::{CHANNEL_BYTES_MAX, NAME_BYTES_MAX};
use pubsub::message::{Message, Payload};
use pubsub::protocol::clusterws::{
    Decoded, Dialect, Generation, decode, delivery_size, encode, encode_delivery,
};
use pubsub::protocol::{Command, Event};
use serde_json::Value;

use super::input::Input;
use super::native::is_json;

const GENERATIONS: [Generation; 3] = [Generation::Zero, Generation::One, Generation::Three];
const NOW_MS: u64 = 1_518_741_097_123;

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let generation = GENERATIONS[input.below(3)];
    let dialect = Dialect::new(generation, input.below(2) == 1);
    let is_binary = input.below(2) == 1;
    let bytes = input.rest();
    let decoded = decode(bytes, is_binary, dialect, NOW_MS);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) if is_binary => bytes.iter().copied().map(char::from).collect(),
        // A text message is checked for UTF-8 before it comes here. Other bytes may only not do harm.
        Err(_) => return,
    };
    let is_object = is_json(text.as_bytes()) && text.trim_start().starts_with('{');
    let is_taken = match &decoded {
        Decoded::Bad { code, .. } => *code != Code::BadJson,
        Decoded::Command(_) | Decoded::Nothing => true,
        Decoded::Pong | Decoded::Ping => false,
    };
    assert_eq!(is_taken, is_object, "{text}");
    if is_object {
        // Behind a space nothing is as the original clients write it, and in a text frame it says the same.
        let spaced = format!(" {text}");
        let again = decode(spaced.as_bytes(), false, dialect, NOW_MS);
        assert_eq!(again, decoded, "{text}");
    }
    match decoded {
        Decoded::Command(command) => {
            check_key(&text, dialect);
            check_command(&command);
        }
        Decoded::Bad { reason, .. } => assert!(!reason.is_empty()),
        Decoded::Pong | Decoded::Ping | Decoded::Nothing => {}
    }
}

/// Where serde_json can hold the text, it finds an array under the key of the dialect.
fn check_key(text: &str, dialect: Dialect) {
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        let key = char::from(dialect.key()).to_string();
        assert!(value[key].is_array(), "{text}");
    }
}

fn check_command(command: &Command) {
    match command {
        Command::Subscribe { filter, tag: None } | Command::Unsubscribe { filter, tag: None } => {
            let name = filter.written();
            assert!((1..=CHANNEL_BYTES_MAX).contains(&name.len()));
            assert!(std::str::from_utf8(name).is_ok());
            for dialect in dialects() {
                check_event(
                    dialect,
                    &Event::Gap {
                        topic: name,
                        count: u64::MAX,
                    },
                );
            }
        }
        Command::Publish { message, tag: None } => {
            assert_eq!(message.unix_ms, NOW_MS);
            for dialect in dialects() {
                check_delivery(dialect, message);
            }
        }
        Command::Emit { event, data, .. } => {
            assert!((1..=NAME_BYTES_MAX).contains(&event.len()));
            let from = ClientId {
                broker: 1,
                shard: ShardId(1),
                session: SessionId {
                    slot: 2,
                    generation: 3,
                },
            };
            for dialect in dialects() {
                check_event(
                    dialect,
                    &Event::Emitted {
                        event,
                        data,
                        from: Some(&Sender {
                            client: from,
                            peer: None,
                        }),
                    },
                );
            }
        }
        other => panic!("{other:?} has no words in this protocol"),
    }
}

fn dialects() -> impl Iterator<Item = Dialect> {
    let modes = |generation| [false, true].map(|binary| Dialect::new(generation, binary));
    GENERATIONS.into_iter().flat_map(modes)
}

/// A delivery is JSON, of the size that was foretold, and as a message from a client it is the same publish again.
fn check_delivery(dialect: Dialect, message: &Message) {
    let topic = &message.targets.topics[0];
    let text = delivered(dialect, message);
    let Decoded::Command(Command::Publish { message: again, .. }) =
        decode(&text, dialect.binary, dialect, NOW_MS)
    else {
        panic!("{} is no publish", text.escape_ascii())
    };
    assert_eq!(again.targets.topics[0], *topic);
    if dialect.binary {
        assert_eq!(delivered(dialect, &again), text);
    } else {
        assert_eq!(again.payload, message.payload);
    }
    // The same bytes from publishers of other protocols.
    for payload in [
        Payload::text(message.payload.bytes().clone()),
        Payload::binary(message.payload.bytes().clone()),
    ] {
        let attachments = vec![Bytes::from_static(b"a"), Bytes::new()];
        let other = Message {
            payload,
            ..Message::clone(message)
        };
        delivered(dialect, &other);
        let placed = Message {
            attachments,
            ..Message::clone(message)
        };
        delivered(dialect, &placed);
    }
}

fn delivered(dialect: Dialect, message: &Message) -> Vec<u8> {
    let topic = &message.targets.topics[0];
    let mut out = Vec::new();
    encode_delivery(dialect, message, topic, &mut out);
    assert_eq!(delivery_size(dialect, message, topic), out.len());
    check_written(dialect, &out);
    out
}

fn check_event(dialect: Dialect, event: &Event<'_>) {
    let mut out = Vec::new();
    assert!(encode(dialect, event, &mut out));
    check_written(dialect, &out);
}

fn check_written(dialect: Dialect, text: &[u8]) {
    assert!(is_json(text), "{}", text.escape_ascii());
    assert!(
        !dialect.binary || text.is_ascii(),
        "{}",
        text.escape_ascii()
    );
}
