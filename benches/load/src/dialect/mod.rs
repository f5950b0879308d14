//! What is said on the wire, and how the answers are read: one file for each protocol.
//!
//! So that brokers can be compared, all of them carry the same text in a delivery, byte for byte as long: the object
//! that a subscriber of native JSON gets. A native publisher leaves out `timestamp` and `context`, since the broker
//! adds them; the others send what they want delivered. Only where one publication goes to subscribers of several
//! protocols, it is the message alone that all of them carry, each in its own envelope ([`Payload`]).
//!
//! All topics of a run have the same length and all texts have the same size. So a publication is a template with
//! some bytes changed, and a delivery has its stamp at a place known beforehand: nothing here parses what can be
//! looked up.

mod clusterws;
mod native;
mod nats;
mod redis;

use clap::ValueEnum;

use crate::frame::{self, KEY, Opcode};
use crate::stamp::Stamp;

/// What the broker speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Protocol {
    /// Native JSON over WebSocket
    Native,
    /// Any server that relays the WebSocket text frames of a topic as they came
    Plain,
    /// RESP: Redis, Valkey, or a broker that speaks it
    Redis,
    /// ClusterWS in text mode; the first subscribers are the publishers, since only subscribers are relayed
    Clusterws,
    /// NATS, over TCP or its WebSocket port
    Nats,
}

impl Protocol {
    /// Does it answer each publication?
    pub fn has_acks(self) -> bool {
        match self {
            Protocol::Native | Protocol::Redis => true,
            Protocol::Plain | Protocol::Clusterws | Protocol::Nats => false,
        }
    }

    /// Must a publisher be subscribed to what it publishes to? Then it hears itself, and is one of the subscribers.
    pub fn relays_only_subscribers(self) -> bool {
        match self {
            Protocol::Clusterws => true,
            Protocol::Native | Protocol::Plain | Protocol::Redis | Protocol::Nats => false,
        }
    }

    /// Has a message an envelope of the protocol's own, so that subscribers of another can be sent it too? The others
    /// pass on what they got.
    pub fn has_envelope(self) -> bool {
        match self {
            Protocol::Native | Protocol::Redis | Protocol::Clusterws => true,
            Protocol::Plain | Protocol::Nats => false,
        }
    }

    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Native => "native",
            Protocol::Plain => "plain",
            Protocol::Redis => "redis",
            Protocol::Clusterws => "clusterws",
            Protocol::Nats => "nats",
        }
    }
}

/// How its bytes travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carriage {
    /// A message is a WebSocket text message.
    Text,
    /// A stream of bytes, in WebSocket binary messages that need not fit its units.
    BinaryStream,
    /// A stream of bytes.
    Stream,
}

/// What a publication carries beside the protocol's envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload {
    /// The object that a subscriber of native JSON gets.
    Object,
    /// The message alone, a JSON string, which each subscriber gets in the envelope of its protocol.
    Message,
}

/// What came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Incoming {
    /// A publication of ours, at a subscriber.
    Delivery(Stamp),
    /// A publication was taken.
    Ack,
    /// The subscription stands: what is published from now on comes.
    Ready,
    /// Deliveries that the broker left out, and says so.
    Gap(u64),
    /// To be answered by [`Dialect::pong`].
    Ping,
    /// A refusal, for people.
    Refused(String),
    /// A delivery without a readable stamp.
    Garbled,
    /// Nothing that matters here.
    Other,
}

/// How to speak to one broker.
#[derive(Clone, Debug)]
pub struct Dialect {
    /// What it speaks.
    pub protocol: Protocol,
    /// How it travels.
    pub carriage: Carriage,
    topic_prefix: String,
    /// A publication as it goes out, of topic 0 and without a stamp.
    template: Vec<u8>,
    /// Where the digits of topics are in it.
    digits_at: Vec<usize>,
    stamp_at: usize,
    /// Where the payload of its frame begins, which is where the masking key begins.
    payload_at: usize,
    /// How every delivery begins, where messages are texts.
    opening: &'static [u8],
    /// A delivery: the text, or the whole unit of a stream.
    delivery: Vec<u8>,
    delivered_stamp_at: usize,
}

/// Digits of a topic's number.
const DIGITS: usize = 6;
/// Topics that can be told apart.
pub const TOPICS_MAX: usize = 16usize.pow(DIGITS as u32);

impl Dialect {
    /// For topics `PREFIX.000000` and so on, and messages of `message_bytes`, the stamp included.
    pub fn new(
        protocol: Protocol,
        carriage: Carriage,
        payload: Payload,
        topic_prefix: &str,
        message_bytes: usize,
    ) -> Dialect {
        assert!(message_bytes >= Stamp::SIZE);
        let topic = topic_name(topic_prefix, 0);
        let filler = "x".repeat(message_bytes);
        let message = format!("\"{filler}\"");
        let object = native::delivery(&topic, &filler);
        let payload = match payload {
            Payload::Object => &object,
            Payload::Message => &message,
        };
        let (publication, delivery) = match protocol {
            Protocol::Native => (native::publication(&topic, &filler), object),
            Protocol::Plain => (payload.clone(), payload.clone()),
            Protocol::Redis => (
                redis::publication(&topic, payload),
                redis::delivery(&topic, payload),
            ),
            Protocol::Clusterws => {
                let both = clusterws::publication(&topic, payload);
                (both.clone(), both)
            }
            Protocol::Nats => (
                nats::publication(&topic, payload),
                nats::delivery(&topic, payload),
            ),
        };
        // A message in quotes: a topic is not, or is none of `x` alone.
        let message_at = |text: &str| text.find(&message).expect("every text has a message") + 1;
        let mut template = Vec::new();
        match carriage {
            Carriage::Text => frame::write(Opcode::Text, publication.as_bytes(), &mut template),
            Carriage::BinaryStream => {
                frame::write(Opcode::Binary, publication.as_bytes(), &mut template);
            }
            Carriage::Stream => template.extend_from_slice(publication.as_bytes()),
        }
        let payload_at = template.len() - publication.len();
        let digits = topic.len() - DIGITS;
        Dialect {
            protocol,
            carriage,
            topic_prefix: topic_prefix.to_owned(),
            digits_at: publication
                .match_indices(&topic)
                .map(|(at, _)| payload_at + at + digits)
                .collect(),
            stamp_at: payload_at + message_at(&publication),
            payload_at,
            template,
            opening: match protocol {
                Protocol::Clusterws => clusterws::PUBLICATION,
                Protocol::Native | Protocol::Plain | Protocol::Redis | Protocol::Nats => {
                    native::PUBLICATION
                }
            },
            delivered_stamp_at: message_at(&delivery),
            delivery: delivery.into_bytes(),
        }
    }

    /// The size of a publication on the wire.
    pub fn publication_size(&self) -> usize {
        self.template.len()
    }

    /// The size of a delivery: the text of a message, or the unit of a stream.
    pub fn delivery_size(&self) -> usize {
        self.delivery.len()
    }

    /// Appends a publication.
    #[inline]
    pub fn publish(&self, topic: usize, stamp: Stamp, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.template);
        let frame = &mut out[start..];
        let words = stamp.words();
        let mask = self.mask_at(self.stamp_at);
        let (chunks, _) = frame[self.stamp_at..].as_chunks_mut::<8>();
        for (chunk, word) in chunks.iter_mut().zip(words) {
            *chunk = (word.to_be() ^ mask).to_ne_bytes();
        }
        if topic > 0 {
            let digits = digits(topic);
            for &at in &self.digits_at {
                let mask = self.mask_at(at).to_ne_bytes();
                for i in 0..DIGITS {
                    frame[at + i] = digits[i] ^ mask[i];
                }
            }
        }
    }

    /// The masking key as it applies from this place of the template on.
    fn mask_at(&self, at: usize) -> u64 {
        let key = match self.carriage {
            Carriage::Stream => [0; 4],
            Carriage::Text | Carriage::BinaryStream => KEY,
        };
        let phase = at - self.payload_at;
        u64::from_ne_bytes(std::array::from_fn(|i| key[(phase + i) % 4]))
    }

    /// Does the server speak first, and its client wait for that?
    pub fn is_greeted(&self) -> bool {
        self.protocol == Protocol::Clusterws
    }

    /// Is this the message that the server speaks first?
    ///
    /// # Errors
    /// It is something else, or says what is not done here.
    pub fn hear_greeting(&self, text: &[u8]) -> Result<(), String> {
        clusterws::check_configuration(text)
    }

    /// Appends what a new connection says: its greeting, and its subscription if it has one. A subscriber hears
    /// [`Incoming::Ready`] after it.
    pub fn open(&self, topic: Option<usize>, publishes: bool, out: &mut Vec<u8>) {
        let topic = topic.map(|topic| topic_name(&self.topic_prefix, topic));
        let mut said = Vec::new();
        match self.protocol {
            Protocol::Native | Protocol::Plain => {
                if let Some(topic) = &topic {
                    said = native::subscription(topic);
                }
            }
            Protocol::Redis => redis::open(topic.as_deref(), publishes, &mut said),
            Protocol::Clusterws => {
                if let Some(topic) = &topic {
                    said = clusterws::subscription(topic);
                }
            }
            Protocol::Nats => nats::open(topic.as_deref(), &mut said),
        }
        if !said.is_empty() {
            self.say(&said, out);
        }
        if matches!(self.protocol, Protocol::Plain | Protocol::Clusterws) && topic.is_some() {
            // There are no answers, but frames are served in order: the pong is the barrier.
            frame::write(Opcode::Ping, b"ready", out);
        }
    }

    /// Appends the answer to [`Incoming::Ping`].
    pub fn pong(&self, out: &mut Vec<u8>) {
        match self.protocol {
            Protocol::Nats => self.say(nats::PONG, out),
            // Binary, although all else is text.
            Protocol::Clusterws => frame::write(Opcode::Binary, clusterws::PONG, out),
            Protocol::Native | Protocol::Plain | Protocol::Redis => {}
        }
    }

    /// Appends a message, or bytes of the stream.
    fn say(&self, bytes: &[u8], out: &mut Vec<u8>) {
        match self.carriage {
            Carriage::Text => frame::write(Opcode::Text, bytes, out),
            Carriage::BinaryStream => frame::write(Opcode::Binary, bytes, out),
            Carriage::Stream => out.extend_from_slice(bytes),
        }
    }

    /// Reads a message ([`Carriage::Text`]).
    #[inline]
    pub fn read_text(&self, text: &[u8]) -> Incoming {
        if text.starts_with(self.opening) {
            return self.stamped(text);
        }
        match self.protocol {
            Protocol::Native => native::read(text),
            Protocol::Clusterws => clusterws::read(text),
            Protocol::Plain | Protocol::Redis | Protocol::Nats => Incoming::Other,
        }
    }

    /// Reads the unit at the beginning of a stream, and its size; none if it is not all there yet.
    ///
    /// # Errors
    /// What came is not of the protocol.
    #[inline]
    pub fn read_unit(&self, stream: &[u8]) -> Result<Option<(usize, Incoming)>, String> {
        let size = self.delivery.len();
        match self.protocol {
            Protocol::Redis => {
                if redis::is_delivery(stream) {
                    let unit = stream.get(..size);
                    return Ok(unit.map(|unit| (size, self.stamped(unit))));
                }
                redis::read(stream)
            }
            Protocol::Nats => {
                if stream.starts_with(nats::DELIVERY) {
                    let unit = stream.get(..size);
                    return Ok(unit.map(|unit| (size, self.stamped(unit))));
                }
                nats::read(stream)
            }
            Protocol::Native | Protocol::Plain | Protocol::Clusterws => {
                Err("messages are no stream".to_owned())
            }
        }
    }

    fn stamped(&self, delivery: &[u8]) -> Incoming {
        // The end shows that the unit was as long as it should be. Native JSON may gain members at its end.
        let is_whole = self.protocol == Protocol::Native
            || delivery.len() == self.delivery.len() && delivery.last() == self.delivery.last();
        let text = delivery.get(self.delivered_stamp_at..).unwrap_or_default();
        match Stamp::read(text) {
            Some(stamp) if is_whole => Incoming::Delivery(stamp),
            _ => Incoming::Garbled,
        }
    }
}

fn topic_name(prefix: &str, topic: usize) -> String {
    format!("{prefix}.{topic:0DIGITS$x}")
}

fn digits(topic: usize) -> [u8; DIGITS] {
    std::array::from_fn(|i| b"0123456789abcdef"[topic >> (4 * (DIGITS - 1 - i)) & 15])
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        lane: 7,
        sequence: 0x89ab_cdef,
        due_ns: 0x0011_2233_4455_6677,
    };

    fn written(dialect: &Dialect, topic: usize) -> String {
        let mut out = b"before".to_vec();
        dialect.publish(topic, STAMP, &mut out);
        assert_eq!(out.len(), 6 + dialect.publication_size());
        let mut payload = out.split_off(6 + dialect.payload_at);
        if dialect.carriage != Carriage::Stream {
            for (i, byte) in payload.iter_mut().enumerate() {
                *byte ^= KEY[i % 4];
            }
        }
        String::from_utf8(payload).unwrap()
    }

    const CHARACTERS: &str = "@@@@@@@GHIJKLMNO@@AABBCCDDEEFFGG";

    #[test]
    fn publications_are_written() {
        // Prefixes of every length: the key meets the stamp in each phase.
        for prefix in ["b", "bb", "bbb", "bbbb"] {
            let topic = format!("{prefix}.00beef");
            let message = format!("{CHARACTERS}xx");
            let published =
                format!(r#"{{"type":"publish","topic":"{topic}","message":"{message}"}}"#);
            let delivered = format!(
                r#"{},"timestamp":"2018-02-16T00:31:37.123Z","context":"{topic}"}}"#,
                published.strip_suffix('}').unwrap()
            );
            let (name_size, size) = (topic.len(), delivered.len());
            let check_payload = |payload, protocol, carriage, expected: &str| {
                let dialect = Dialect::new(protocol, carriage, payload, prefix, 34);
                assert_eq!(written(&dialect, 0xbeef), expected);
                let zero = format!("{prefix}.000000");
                assert_eq!(written(&dialect, 0), expected.replace(&topic, &zero));
            };
            let check = |protocol, carriage, expected: &str| {
                check_payload(Payload::Object, protocol, carriage, expected);
            };
            check(Protocol::Native, Carriage::Text, &published);
            check(Protocol::Plain, Carriage::Text, &delivered);
            let resp = format!(
                "*3\r\n$7\r\nPUBLISH\r\n${name_size}\r\n{topic}\r\n${size}\r\n{delivered}\r\n"
            );
            check(Protocol::Redis, Carriage::Stream, &resp);
            let clusterws = format!(r##"{{"#":["p","{topic}",{delivered}]}}"##);
            check(Protocol::Clusterws, Carriage::Text, &clusterws);
            let nats = format!("PUB {topic} {size}\r\n{delivered}\r\n");
            check(Protocol::Nats, Carriage::Stream, &nats);
            check(Protocol::Nats, Carriage::BinaryStream, &nats);
            let check = |protocol, carriage, expected: &str| {
                check_payload(Payload::Message, protocol, carriage, expected);
            };
            check(Protocol::Native, Carriage::Text, &published);
            let resp = format!(
                "*3\r\n$7\r\nPUBLISH\r\n${name_size}\r\n{topic}\r\n$36\r\n\"{message}\"\r\n"
            );
            check(Protocol::Redis, Carriage::Stream, &resp);
            let clusterws = format!(r##"{{"#":["p","{topic}","{message}"]}}"##);
            check(Protocol::Clusterws, Carriage::Text, &clusterws);
        }
    }

    #[test]
    fn a_topic_is_not_taken_for_the_message() {
        let prefix = "x".repeat(200);
        for payload in [Payload::Object, Payload::Message] {
            let dialect = Dialect::new(Protocol::Redis, Carriage::Stream, payload, &prefix, 32);
            let mut topic = String::from_utf8(dialect.template.clone()).unwrap();
            topic.truncate(dialect.stamp_at);
            assert!(topic.ends_with('"'), "{topic}");
            assert!(written(&dialect, 1).contains(&format!("\"{CHARACTERS}\"")));
        }
    }

    #[test]
    fn what_is_delivered_is_read() {
        for (protocol, carriage, payload) in [
            (Protocol::Native, Carriage::Text, Payload::Object),
            (Protocol::Plain, Carriage::Text, Payload::Object),
            (Protocol::Redis, Carriage::Stream, Payload::Object),
            (Protocol::Redis, Carriage::Stream, Payload::Message),
            (Protocol::Clusterws, Carriage::Text, Payload::Object),
            (Protocol::Clusterws, Carriage::Text, Payload::Message),
            (Protocol::Nats, Carriage::Stream, Payload::Object),
            (Protocol::Nats, Carriage::BinaryStream, Payload::Object),
        ] {
            for size in [32, 33, 100, 70_000] {
                let dialect = Dialect::new(protocol, carriage, payload, "bench", size);
                let mut delivery = dialect.delivery.clone();
                let stamp: Vec<u8> = CHARACTERS.bytes().collect();
                delivery[dialect.delivered_stamp_at..][..32].copy_from_slice(&stamp);
                let read = |delivery: &[u8]| match carriage {
                    Carriage::Text => dialect.read_text(delivery),
                    _ => dialect.read_unit(delivery).unwrap().unwrap().1,
                };
                assert_eq!(read(&delivery), Incoming::Delivery(STAMP));
                delivery[dialect.delivered_stamp_at] = b'x';
                assert_eq!(read(&delivery), Incoming::Garbled);
                if protocol == Protocol::Clusterws {
                    delivery[dialect.delivered_stamp_at] = b'@';
                    assert_eq!(read(&delivery), Incoming::Delivery(STAMP));
                    delivery.insert(delivery.len() - 2, b' ');
                    assert_eq!(read(&delivery), Incoming::Garbled, "it is as it was sent");
                }
                if carriage != Carriage::Text {
                    for cut in [1, 5, 20, delivery.len() - 1] {
                        assert_eq!(dialect.read_unit(&delivery[..cut]), Ok(None), "{cut}");
                    }
                }
            }
        }
    }

    #[test]
    fn texts_of_all_protocols_are_equally_long() {
        let dialect =
            |protocol, carriage| Dialect::new(protocol, carriage, Payload::Object, "bench", 50);
        let text = dialect(Protocol::Native, Carriage::Text).delivery;
        let text = String::from_utf8(text).unwrap();
        for protocol in [
            Protocol::Plain,
            Protocol::Redis,
            Protocol::Clusterws,
            Protocol::Nats,
        ] {
            let carriage = match protocol {
                Protocol::Plain | Protocol::Clusterws => Carriage::Text,
                _ => Carriage::Stream,
            };
            let dialect = dialect(protocol, carriage);
            let delivery = String::from_utf8(dialect.delivery).unwrap();
            assert!(delivery.contains(&text), "{delivery}");
        }
    }

    #[test]
    fn subscribers_open_with_their_topic() {
        let open = |protocol, carriage, topic, publishes, out: &mut Vec<u8>| {
            let dialect = Dialect::new(protocol, carriage, Payload::Object, "b", 32);
            dialect.open(topic, publishes, out);
        };
        let check = |protocol, carriage, topic, publishes, expected: &str| {
            let mut out = Vec::new();
            open(protocol, carriage, topic, publishes, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        let (redis, stream) = (Protocol::Redis, Carriage::Stream);
        check(redis, stream, None, true, "");
        let subscribe = "*2\r\n$9\r\nSUBSCRIBE\r\n$8\r\nb.00000a\r\n";
        check(redis, stream, Some(10), false, subscribe);
        let hello = "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n";
        check(
            redis,
            stream,
            Some(10),
            true,
            &format!("{hello}{subscribe}"),
        );
        let mut out = Vec::new();
        open(Protocol::Native, Carriage::Text, Some(1), true, &mut out);
        let mut expected = Vec::new();
        let text = br#"{"type":"subscribe","topic":"b.000001"}"#;
        frame::write(Opcode::Text, text, &mut expected);
        assert_eq!(out, expected);
        out.clear();
        open(Protocol::Plain, Carriage::Text, Some(1), true, &mut out);
        frame::write(Opcode::Ping, b"ready", &mut expected);
        assert_eq!(out, expected);
        out.clear();
        open(Protocol::Native, Carriage::Text, None, true, &mut out);
        assert_eq!(out, b"");
        open(Protocol::Clusterws, Carriage::Text, Some(1), true, &mut out);
        expected.clear();
        let text = br##"{"#":["s","s","b.000001"]}"##;
        frame::write(Opcode::Text, text, &mut expected);
        frame::write(Opcode::Ping, b"ready", &mut expected);
        assert_eq!(out, expected);
    }
}
