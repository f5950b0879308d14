//! What a client of the shard target received: a stream of bytes that has to be a response head and frames, or values of
//! RESP, or events of the peer protocol, and messages that have to make sense to somebody who remembers what was said before.
//!
//! Checked for every message: it is JSON; a delivery lies within a stay (subscribe ack to unsubscribe ack); of one
//! publisher and topic they come in order, none twice, and none is missing unless the topic's policy may skip. In
//! ClusterWS nobody is told when a stay begins; there the order is checked, and that the configuration comes first.

use std::collections::HashMap;

use bytes::Bytes;
use pubsub::address::ClientId;
use pubsub::protocol::clusterws::Dialect;
use pubsub::protocol::json::Members;
use pubsub::topic::{Filter, Topic};
use serde_json::value::RawValue;

use super::peers::Calls;
use super::values::{Heard, Value, Values};

/// Publications that one publisher numbers together: its number, the topic, and whether it gets them itself.
pub type Series = (u64, String, bool);

/// What a client was told that others are to know of.
#[derive(Debug)]
pub enum News {
    /// The publish with this id is acked.
    Published(u64),
    /// A publication came that is this one of a series.
    Came(Series, u64),
    /// A request with this number came.
    Asked(u64),
    /// A client wants to come in.
    Arrived(ClientId),
}

/// A subscription from its ack to that of its end.
#[derive(Default)]
pub struct Stay {
    /// Which stay of this connection it is.
    pub number: u64,
    /// The last number of each series.
    pub last: HashMap<Series, u64>,
}

/// What a client speaks.
#[derive(Default, Debug)]
pub enum Speech {
    #[default]
    Native,
    /// In this dialect; the configuration has come.
    Clusterws(Dialect, bool),
    Resp(Values),
    Peer(Calls),
}

#[derive(Default, PartialEq, Eq, Clone, Copy, Debug)]
enum Phase {
    #[default]
    Head,
    /// An HTTP response that is not an upgrade.
    Body,
    Frames,
    /// After a close frame.
    Closed,
}

/// Everything that one connection received.
#[derive(Default)]
pub struct Received {
    pub speech: Speech,
    bytes: Vec<u8>,
    phase: Phase,
    /// By filter as written in JSON, or by a word of RESP and a name.
    pub stays: HashMap<String, Stay>,
    stays_begun: u64,
    /// ClusterWS: the last number of each series.
    last: HashMap<Series, u64>,
    /// Deliveries, complete ones.
    pub deliveries: u64,
    /// Deliveries that were said to be missing.
    pub gaps: u64,
}

impl Received {
    /// Is it open, as far as the client can see?
    pub fn is_open(&self) -> bool {
        match &self.speech {
            Speech::Resp(_) => true,
            Speech::Peer(calls) => calls.is_welcome && !calls.is_over,
            Speech::Native | Speech::Clusterws(..) => self.phase == Phase::Frames,
        }
    }

    /// Were these the last words of a connection? (RESP has none of its own.)
    pub fn is_finished(&self) -> bool {
        match &self.speech {
            Speech::Resp(_) => self.bytes.is_empty(),
            Speech::Peer(calls) => calls.is_between_frames(),
            Speech::Native | Speech::Clusterws(..) => {
                matches!(self.phase, Phase::Body | Phase::Closed)
            }
        }
    }

    /// Takes what was sent.
    pub fn take(&mut self, chunks: &[Bytes], news: &mut Vec<News>) {
        if let Speech::Peer(_) = self.speech {
            return chunks
                .iter()
                .for_each(|chunk| self.take_events(chunk, news));
        }
        for chunk in chunks {
            self.bytes.extend_from_slice(chunk);
        }
        if let Speech::Resp(_) = self.speech {
            return self.take_values(news);
        }
        if self.phase == Phase::Head
            && let Some(end) = find(&self.bytes, b"\r\n\r\n")
        {
            let is_upgrade = self.bytes.starts_with(b"HTTP/1.1 101 ");
            self.phase = if is_upgrade {
                Phase::Frames
            } else {
                Phase::Body
            };
            self.bytes.drain(..end + 4);
        }
        let mut at = 0;
        while self.phase == Phase::Frames
            && let Some((opcode, start, end)) = frame(&self.bytes, at)
        {
            let payload = self.bytes[start..end].to_vec();
            match opcode {
                1 | 2 if let Speech::Clusterws(dialect, _) = self.speech => {
                    self.read_clusterws(dialect, opcode, &payload, news);
                }
                1 => self.read(&payload, news),
                8 => {
                    assert!(payload.len() != 1 && payload.len() <= 125);
                    self.phase = Phase::Closed;
                }
                9 | 10 => assert!(payload.len() <= 125),
                other => panic!("a frame of opcode {other}"),
            }
            at = end;
        }
        self.bytes.drain(..at);
        let is_over = self.phase == Phase::Closed;
        assert!(
            !is_over || self.bytes.is_empty(),
            "bytes after a close frame"
        );
    }

    fn read(&mut self, text: &[u8], news: &mut Vec<News>) {
        let shown = text.escape_ascii();
        let Ok(_) = serde_json::from_slice::<&RawValue>(text) else {
            panic!("a message is not JSON: {shown}");
        };
        let text = std::str::from_utf8(text).expect("JSON is UTF-8");
        let members: Vec<(&str, &str)> = Members::of(text.as_bytes())
            .map(|member| member.expect("it is JSON"))
            .map(|member| (&text[member.key.range()], &text[member.value.range()]))
            .collect();
        let value = |key: &str| {
            let mut members = members.iter().rev();
            members
                .find(|member| member.0 == key)
                .map(|member| member.1)
        };
        if let Some(("\"context\"", context)) = members.last().copied() {
            self.deliveries += 1;
            self.deliver(context, value("\"topic\""), value("\"message\""), text);
            return;
        }
        let name = || value("\"topic\"").unwrap_or_default();
        let number = || value("\"id\"").and_then(|id| id.parse().ok());
        match (value("\"type\""), value("\"action\"")) {
            (Some("\"ack\""), Some("\"subscribe\"")) => {
                self.begin_stay(name());
            }
            (Some("\"ack\""), Some("\"unsubscribe\"")) => drop(self.stays.remove(name())),
            (Some("\"ack\""), Some("\"publish\"")) => news.extend(number().map(News::Published)),
            (Some("\"request\""), _) => news.extend(number().map(News::Asked)),
            // Where it went to many it counts; nobody sees what it was.
            (Some("\"event\""), _) => self.deliveries += 1,
            (Some("\"gap\""), _) => {
                let count = value("\"count\"").and_then(|count| count.parse::<u64>().ok());
                self.gaps += count.expect("a gap has a count");
            }
            _ => {}
        }
    }

    pub fn begin_stay(&mut self, key: &str) {
        self.stays_begun += 1;
        let number = self.stays_begun;
        self.stays.entry(key.to_owned()).or_insert_with(|| Stay {
            number,
            ..Stay::default()
        });
    }

    fn take_values(&mut self, news: &mut Vec<News>) {
        let mut at = 0;
        while let Speech::Resp(values) = &mut self.speech
            && let Some((value, size)) = Value::parse(&self.bytes[at..])
        {
            at += size;
            match values.hear(&value, !self.stays.is_empty()) {
                Heard::Delivery {
                    stay,
                    topic,
                    message,
                } => {
                    self.deliveries += 1;
                    let message = String::from_utf8_lossy(&message);
                    self.deliver(&stay, Some(&topic), Some(&message), &message);
                }
                Heard::Stay(true, key) => self.begin_stay(&key),
                Heard::Stay(false, key) => drop(self.stays.remove(&key)),
                Heard::Reset => self.stays.clear(),
                Heard::Published(id) => news.push(News::Published(id)),
                Heard::Nothing => {}
            }
        }
        self.bytes.drain(..at);
    }

    fn read_clusterws(
        &mut self,
        dialect: Dialect,
        opcode: u8,
        payload: &[u8],
        news: &mut Vec<News>,
    ) {
        let shown = payload.escape_ascii();
        let ping_opcode = if dialect.is_ping_binary() { 2 } else { 1 };
        if (opcode, payload) == (ping_opcode, dialect.ping()) || payload == b"#3" {
            return;
        }
        assert_eq!(opcode == 2, dialect.binary, "{shown}");
        assert!(payload.is_ascii() || !dialect.binary, "{shown}");
        let text = std::str::from_utf8(payload).expect("JSON is UTF-8");
        let begin = format!("{{\"{}\":", char::from(dialect.key()));
        let array = text
            .strip_prefix(&begin)
            .and_then(|rest| rest.strip_suffix('}'));
        let elements = array.and_then(|array| serde_json::from_str::<Vec<&RawValue>>(array).ok());
        let Some([kind, name, data]) = elements.as_deref() else {
            panic!("no message of three elements: {shown}");
        };
        let is_configured = matches!(self.speech, Speech::Clusterws(_, true));
        match (kind.get(), is_configured) {
            ("\"s\"", false) => self.speech = Speech::Clusterws(dialect, true),
            ("\"p\"", true) => {
                self.deliveries += 1;
                if let Some((series, number)) = stamp(name.get(), data.get()) {
                    let last = self.last.insert(series.clone(), number).unwrap_or(0);
                    assert!(number > last, "{number} after {last}: {shown}");
                    news.push(News::Came(series, number));
                }
            }
            ("\"e\"", true) => self.deliveries += 1,
            (_, _) => panic!("the configuration is not the first: {shown}"),
        }
    }

    pub fn deliver(
        &mut self,
        context: &str,
        topic: Option<&str>,
        message: Option<&str>,
        text: &str,
    ) {
        let is_peer = matches!(self.speech, Speech::Peer(_));
        let Some(stay) = self.stays.get_mut(context) else {
            panic!("a delivery outside of a stay: {text}");
        };
        let Some((series, number)) = message.and_then(|message| stamp(topic?, message)) else {
            return;
        };
        // Peers miss some of any topic rather than be closed.
        let may_skip = is_peer || skips(&series.1) && context.starts_with('"');
        if let Some(last) = stay.last.insert(series, number) {
            assert!(number > last, "{number} after {last}: {text}");
            assert!(
                number == last + 1 || may_skip,
                "{number} after {last}: {text}"
            );
        }
    }
}

/// Topics whose policy skips for slow readers.
pub fn skips(topic: &str) -> bool {
    topic.starts_with("\"c.") || topic.starts_with("\"d.")
}

/// What a subscription asks for, by the key of its stay.
pub fn filter_of(key: &str) -> Filter {
    let name = |name: &str| Bytes::copy_from_slice(name.as_bytes());
    let filter = match key.split_once(' ') {
        Some(("subscribe", channel)) => Filter::exact(name(channel)),
        Some(("psubscribe", glob)) => Filter::glob(name(glob)),
        Some(("ssubscribe", channel)) => Filter::shard(name(channel)),
        _ => {
            let written: String = serde_json::from_str(key).expect("a string");
            Filter::dotted(name(&written))
        }
    };
    filter.expect("a filter")
}

/// The topic of a series.
pub fn topic_of(series: &Series) -> Topic {
    let topic = match series.1.strip_prefix("shard ") {
        Some(name) => Topic::shard(Bytes::copy_from_slice(name.as_bytes())),
        None => {
            let name: String = serde_json::from_str(&series.1).expect("a string");
            Topic::channel(Bytes::from(name))
        }
    };
    topic.expect("a topic")
}

/// A numbered message.
pub fn numbered(series: &Series, number: u64, padding: usize) -> String {
    let (from, _, echo) = series;
    let pad = "x".repeat(padding);
    format!(r#"{{"from":{from},"echo":{echo},"number":{number},"pad":"{pad}"}}"#)
}

/// The text of a numbered publication.
pub fn publication(series: &Series, number: u64, id: u64, padding: usize) -> String {
    let (_, topic, echo) = series;
    let message = numbered(series, number, padding);
    format!(r#"{{"type":"publish","topic":{topic},"message":{message},"echo":{echo},"id":{id}}}"#)
}

/// Which publication of which series this is.
fn stamp(topic: &str, message: &str) -> Option<(Series, u64)> {
    let rest = message.strip_prefix("{\"from\":")?;
    let (from, rest) = rest.split_once(",\"echo\":")?;
    let (echo, rest) = rest.split_once(",\"number\":")?;
    let (number, _) = rest.split_once(',')?;
    let series = (from.parse().ok()?, topic.to_owned(), echo == "true");
    Some((series, number.parse().ok()?))
}

/// The next server frame from `at` on: its opcode and where its payload lies.
fn frame(bytes: &[u8], at: usize) -> Option<(u8, usize, usize)> {
    let (first, second) = (*bytes.get(at)?, *bytes.get(at + 1)?);
    assert_eq!(
        first & 0xF0,
        0x80,
        "a server frame is whole and has no reserved bits"
    );
    assert_eq!(second & 0x80, 0, "a server frame is not masked");
    let (size_bytes, short) = match second {
        126 => (2, 0),
        127 => (8, 0),
        size => (0, usize::from(size)),
    };
    let start = at + 2 + size_bytes;
    let long = bytes.get(at + 2..start)?;
    let size = long
        .iter()
        .fold(short, |size, byte| size << 8 | usize::from(*byte));
    (start + size <= bytes.len()).then_some((first & 0x0F, start, start + size))
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
