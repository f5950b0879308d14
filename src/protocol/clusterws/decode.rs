//! A message from a client to a command, or to what else it is.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::smallvec;

use super::super::Command;
use super::super::json::{
    Kind, Members, Span, string_end, unescape, unescape_loosely, validate_grammar,
};
use super::array::Elements;
use super::{CLOSE, Dialect, Generation};
use crate::address::Address;
use crate::error::Code;
use crate::limits::{JSON_DEPTH_MAX, NAME_BYTES_MAX};
use crate::message::{Flags, Message, Payload, Targets};
use crate::topic::{Filter, Topic, TopicError};

/// What a message is.
#[derive(Clone, PartialEq, Debug)]
pub enum Decoded {
    /// Something to do; none is acked, so none has a tag.
    Command(Command),
    /// The answer to [`Dialect::ping`].
    Pong,
    /// A heartbeat of the client's own, `#4` (1.1.3 to 1.2), to be answered by [`super::PONG`].
    Ping,
    /// Of a type that this side does not know. The original ignores it.
    Nothing,
    /// No message of this protocol. The original logs and forgets it; clients have no words for errors.
    Bad {
        /// Which rule.
        code: Code,
        /// A sentence for a person.
        reason: &'static str,
    },
}

/// One message. `is_binary`: it came in a binary frame, else it is valid UTF-8. Both frames are taken in every
/// dialect. `unix_ms`: now, for publications.
///
/// The bytes of a binary frame are UTF-8 if they can be, else one character each: JavaScript clients write the low
/// eight bits of each UTF-16 unit. (What they make of a character past U+00FF may be a quote or a control character, and
/// the message no JSON; nothing can be done about it here.)
///
/// Only the dialect's own key and heartbeats count. A client of another generation would understand nothing that
/// it is sent; taken half for one of ours, it would go on without anybody knowing.
pub fn decode(bytes: &[u8], is_binary: bool, dialect: Dialect, unix_ms: u64) -> Decoded {
    if let Some(heartbeat) = heartbeat(bytes, dialect) {
        return heartbeat;
    }
    if is_binary && simdutf8::basic::from_utf8(bytes).is_err() {
        let text: String = bytes.iter().copied().map(char::from).collect();
        return decode_text(text.as_bytes(), dialect, unix_ms);
    }
    decode_text(bytes, dialect, unix_ms)
}

fn heartbeat(bytes: &[u8], dialect: Dialect) -> Option<Decoded> {
    if bytes == dialect.pong() {
        return Some(Decoded::Pong);
    }
    match dialect.generation {
        Generation::One if bytes == b"#4" => Some(Decoded::Ping),
        Generation::Zero | Generation::One | Generation::Three => None,
    }
}

fn decode_text(text: &[u8], dialect: Dialect, unix_ms: u64) -> Decoded {
    let decoded = match ordinary_publish(text, dialect) {
        Some((channel, data)) => publish(text, channel, Some(data), unix_ms),
        None => any_message(text, dialect, unix_ms),
    };
    decoded.unwrap_or_else(|Bad { code, reason }| Decoded::Bad { code, reason })
}

/// Why a message is none.
struct Bad {
    code: Code,
    reason: &'static str,
}

/// The channel, with its quotes, and the data of a publication that is written as the original clients write it. `None`
/// decides nothing: [`any_message`] knows more.
///
/// The envelope is compared byte by byte, so only channel and data need the scanner, and where the data end is not to be
/// searched for.
fn ordinary_publish(text: &[u8], dialect: Dialect) -> Option<(Span, Span)> {
    let open = dialect.open(b'p');
    let fits_spans = u32::try_from(text.len()).is_ok();
    if !text.starts_with(&open) || !text.ends_with(CLOSE) || !fits_spans {
        return None;
    }
    let channel = Span::new(open.len(), string_end(text, open.len())?);
    let data = channel.range().end + 1..text.len() - CLOSE.len();
    if text.get(channel.range().end) != Some(&b',') {
        return None;
    }
    let value = text.get(data.clone())?;
    let is_bare = value.trim_ascii().len() == value.len();
    (is_bare && is_shallow(value) && validate_grammar(value).is_ok())
        .then(|| (channel, Span::new(data.start, data.end)))
}

/// Is the whole text within [`JSON_DEPTH_MAX`] even if all of these brackets stand in one another? The scanner counts
/// from the data on, and knows nothing of the two around them.
fn is_shallow(data: &[u8]) -> bool {
    // `[` and `{` differ in this bit alone.
    let openings = data.iter().filter(|byte| **byte | 0x20 == b'{');
    openings.count() <= JSON_DEPTH_MAX - 2
}

/// Any message, however it is spaced and escaped. Of keys that occur twice the last counts.
fn any_message(text: &[u8], dialect: Dialect, unix_ms: u64) -> Result<Decoded, Bad> {
    let mut array = None;
    for member in Members::of(text) {
        let member = member.map_err(|error| Bad {
            code: Code::BadJson,
            reason: error.reason,
        })?;
        let key = member.key.inside().of(text);
        let is_ours = if member.key_escaped {
            *unescape_loosely(key) == [dialect.key()]
        } else {
            *key == [dialect.key()]
        };
        if is_ours {
            array = Some(member);
        }
    }
    let array = array.filter(|array| array.kind == Kind::Array).ok_or(Bad {
        code: Code::BadType,
        reason: "a message must be one array under the key of its generation",
    })?;
    let mut elements = Elements::of(text, array.value);
    // What is absent is empty, and so no string.
    let mut element = || elements.next().unwrap_or(Span::EMPTY);
    let (kind, name) = (element(), element());
    let data = elements.next();
    if !is_string(kind, text) {
        return Err(Bad {
            code: Code::BadType,
            reason: "the type must be a string",
        });
    }
    match &*unescape_loosely(kind.inside().of(text)) {
        b"p" => publish(text, name, data, unix_ms),
        b"e" => {
            let event = event(name, text)?;
            Ok(Decoded::Command(Command::Emit {
                to: Address::Service(event.clone()),
                event,
                data: Payload::json(
                    data.map_or(NULL, |data| Bytes::copy_from_slice(data.of(text))),
                ),
                volatile: false,
                tag: None,
            }))
        }
        b"s" => system(text, name, data),
        _ => Ok(Decoded::Nothing),
    }
}

/// What absent data are: `undefined` in an array is written as this.
const NULL: Bytes = Bytes::from_static(b"null");

fn is_string(value: Span, text: &[u8]) -> bool {
    value.of(text).starts_with(b"\"")
}

/// The bytes of a string of Unicode.
fn string(value: Span, text: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !is_string(value, text) {
        return None;
    }
    unescape(value.inside().of(text)).ok()
}

fn channel(value: Span, text: &[u8]) -> Result<Cow<'_, [u8]>, Bad> {
    let channel = string(value, text).filter(|channel| !channel.is_empty());
    channel.ok_or(Bad {
        code: Code::BadTopic,
        reason: "the channel must be a string of Unicode, not empty",
    })
}

fn bad_topic(error: TopicError) -> Bad {
    Bad {
        code: Code::BadTopic,
        reason: error.as_str(),
    }
}

/// A publication is one copy of its channel and data, and slices of that.
fn publish(text: &[u8], name: Span, data: Option<Span>, unix_ms: u64) -> Result<Decoded, Bad> {
    let written = channel(name, text)?;
    let copied = name.range().start..data.unwrap_or(name).range().end;
    let copy = Bytes::copy_from_slice(&text[copied.clone()]);
    let slice = |span: Span| {
        let range = span.range();
        copy.slice(range.start - copied.start..range.end - copied.start)
    };
    let channel = match written {
        Cow::Borrowed(_) => slice(name.inside()),
        Cow::Owned(unescaped) => Bytes::from(unescaped),
    };
    let topic = Topic::channel(channel).map_err(bad_topic)?;
    let message = Message {
        targets: Targets {
            topics: smallvec![topic],
            ..Targets::default()
        },
        event: None,
        payload: Payload::json(data.map_or(NULL, slice)),
        attachments: Vec::new(),
        origin: None,
        flags: Flags::default(),
        position: None,
        unix_ms,
        envelope: None,
    };
    Ok(Decoded::Command(Command::Publish {
        message: Arc::new(message),
        tag: None,
    }))
}

fn event(name: Span, text: &[u8]) -> Result<Bytes, Bad> {
    let name = string(name, text).filter(|name| (1..=NAME_BYTES_MAX).contains(&name.len()));
    let name = name.ok_or(Bad {
        code: Code::BadType,
        reason: "the event must be a string of 1 to 255 bytes",
    })?;
    Ok(Bytes::from(name.into_owned()))
}

fn system(text: &[u8], word: Span, name: Option<Span>) -> Result<Decoded, Bad> {
    let filter = || {
        // In a buffer of its own: a filter outlives the text by far.
        let name = channel(name.unwrap_or(Span::EMPTY), text)?.into_owned();
        Filter::exact(Bytes::from(name)).map_err(bad_topic)
    };
    let command = match string(word, text).as_deref() {
        Some(b"s") => Command::Subscribe {
            filter: filter()?,
            tag: None,
        },
        Some(b"u") => Command::Unsubscribe {
            filter: filter()?,
            tag: None,
        },
        _ => return Ok(Decoded::Nothing),
    };
    Ok(Decoded::Command(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_518_741_097_123;
    const ALL: [Generation; 3] = [Generation::Zero, Generation::One, Generation::Three];

    fn dialect(generation: Generation) -> Dialect {
        Dialect::new(generation, false)
    }

    fn read(text: &str) -> Decoded {
        decode(text.as_bytes(), false, dialect(Generation::Three), NOW)
    }

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn json(text: &str) -> Payload {
        Payload::json(bytes(text))
    }

    fn subscribe(name: &str) -> Decoded {
        let filter = Filter::exact(bytes(name)).unwrap();
        Decoded::Command(Command::Subscribe { filter, tag: None })
    }

    fn unsubscribe(name: &str) -> Decoded {
        let filter = Filter::exact(bytes(name)).unwrap();
        Decoded::Command(Command::Unsubscribe { filter, tag: None })
    }

    fn publish(name: &str, data: &str) -> Decoded {
        let topic = Topic::channel(bytes(name)).unwrap();
        let message = Message {
            targets: Targets {
                topics: smallvec![topic],
                ..Targets::default()
            },
            event: None,
            payload: json(data),
            attachments: Vec::new(),
            origin: None,
            flags: Flags::default(),
            position: None,
            unix_ms: NOW,
            envelope: None,
        };
        Decoded::Command(Command::Publish {
            message: Arc::new(message),
            tag: None,
        })
    }

    fn emit(event: &str, data: &str) -> Decoded {
        let (event, data) = (bytes(event), json(data));
        Decoded::Command(Command::Emit {
            to: Address::Service(event.clone()),
            event,
            data,
            volatile: false,
            tag: None,
        })
    }

    #[test]
    fn what_the_original_clients_send_is_read_in_each_generation() {
        let check = |elements: &str, expected: &Decoded| {
            for generation in ALL {
                let key = char::from(dialect(generation).key());
                let text = format!("{{\"{key}\":{elements}}}");
                for is_binary in [false, true] {
                    let found = decode(text.as_bytes(), is_binary, dialect(generation), NOW);
                    assert_eq!(&found, expected, "{text}");
                }
                let other = if key == '#' { "m" } else { "#" };
                let text = format!("{{\"{other}\":{elements}}}");
                let found = decode(text.as_bytes(), false, dialect(generation), NOW);
                assert!(is_bad(&found, Code::BadType), "{text}: {found:?}");
            }
        };
        check(r#"["s","s","room"]"#, &subscribe("room"));
        check(r#"["s","u","room"]"#, &unsubscribe("room"));
        check(r#"["p","room",{"x":1}]"#, &publish("room", r#"{"x":1}"#));
        check(r#"["p","room",null]"#, &publish("room", "null"));
        check(
            r#"["p","news.uk","é € 😀"]"#,
            &publish("news.uk", "\"é € 😀\""),
        );
        check(r#"["p","a\"b",[1.0]]"#, &publish("a\"b", "[1.0]"));
        check(
            r#"["e","join room",{"id": [1, 2]}]"#,
            &emit("join room", r#"{"id": [1, 2]}"#),
        );
        check(r#"["e","e",null]"#, &emit("e", "null"));
        check(r#"["s","c",{"ping":1}]"#, &Decoded::Nothing);
        check(r#"["s","x","room"]"#, &Decoded::Nothing);
        check(r#"["x","room",1]"#, &Decoded::Nothing);
    }

    #[test]
    fn heartbeats_are_those_of_the_generation() {
        use Generation::{One, Three, Zero};
        for (bytes, expected) in [
            (
                &b"A"[..],
                [(Zero, None), (One, None), (Three, Some(Decoded::Pong))],
            ),
            (
                b"#1",
                [
                    (Zero, Some(Decoded::Pong)),
                    (One, Some(Decoded::Pong)),
                    (Three, None),
                ],
            ),
            (
                b"#4",
                [(Zero, None), (One, Some(Decoded::Ping)), (Three, None)],
            ),
            (b"#0", [(Zero, None), (One, None), (Three, None)]),
            (b"9", [(Zero, None), (One, None), (Three, None)]),
            (b"AA", [(Zero, None), (One, None), (Three, None)]),
            (b"", [(Zero, None), (One, None), (Three, None)]),
        ] {
            for (generation, expected) in expected {
                for (binary, is_binary) in [(false, false), (false, true), (true, true)] {
                    let dialect = Dialect::new(generation, binary);
                    let found = decode(bytes, is_binary, dialect, NOW);
                    match &expected {
                        Some(expected) => assert_eq!(&found, expected, "{bytes:?} {dialect:?}"),
                        None => assert!(is_bad(&found, Code::BadJson), "{bytes:?} {dialect:?}"),
                    }
                }
            }
        }
    }

    #[test]
    fn any_json_that_says_the_same_is_the_same() {
        for (text, expected) in [
            (
                " {\t\"#\" :\r\n[ \"p\" , \"room\" , {\"x\": 1} ] } ",
                publish("room", r#"{"x": 1}"#),
            ),
            (r##"{"#":["p","room", 1]}"##, publish("room", "1")),
            (r##"{"#":["p","room",1 ]}"##, publish("room", "1")),
            (r##"{"#":["p","room"]}"##, publish("room", "null")),
            (r##"{"#":["p","room",1,2,[3]]}"##, publish("room", "1")),
            (r##"{"#":["p","room","]}"]}"##, publish("room", r#""]}""#)),
            (
                r##"{"#":["p","\u0072\ud83d\ude00\/",1]}"##,
                publish("r😀/", "1"),
            ),
            (
                r##"{"\u0023":["\u0070","room","\u00e9\ud800"]}"##,
                publish("room", r#""\u00e9\ud800""#),
            ),
            (r##"{"#":["p","a",1],"#":["p","b",2]}"##, publish("b", "2")),
            (
                r##"{"#":["p","a",1],"\u0023":["s","s","b"]}"##,
                subscribe("b"),
            ),
            (
                r##"{"#":5,"m":["s","u","a"],"x":{"#":["p","a",1]},"#":["s","s","b"],"y":[]}"##,
                subscribe("b"),
            ),
            (r##"{"#":["p","a",1],"x":[2]}"##, publish("a", "1")),
            (r##"{"#":["\u0073","\u0075","\u00e9"]}"##, unsubscribe("é")),
            (r##"{"#":["s","s","a",{}]}"##, subscribe("a")),
            (r##"{"#":["e","e"]}"##, emit("e", "null")),
            (r##"{"#":["e","\u0000é",[],[]]}"##, emit("\0é", "[]")),
            (r##"{"#":["s"]}"##, Decoded::Nothing),
            (r##"{"#":["s",5,"a"]}"##, Decoded::Nothing),
            (r##"{"#":["s","\ud800","a"]}"##, Decoded::Nothing),
            (r##"{"#":["s","c"]}"##, Decoded::Nothing),
            (r##"{"#":["\ud800"]}"##, Decoded::Nothing),
            (r##"{"#":["P","a",1]}"##, Decoded::Nothing),
            (r##"{"#":[""]}"##, Decoded::Nothing),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn binary_frames_are_utf8_or_latin1() {
        let open = br##"{"#":["p","##;
        for (rest, expected) in [
            (&b"\"r\",1]}"[..], publish("r", "1")),
            ("\"ré\",\"€\"]}".as_bytes(), publish("ré", "\"€\"")),
            // As observed: `é` and `€`, each cut to eight bits.
            (b"\"r\",\"\xe9 \xac\"]}", publish("r", "\"é ¬\"")),
            (b"\"r\xff\",\"\xc3\xa9\"]}", publish("rÿ", "\"Ã©\"")),
            (b"\"\\u00e9\xe9\",\"\"]}", publish("éé", "\"\"")),
        ] {
            let text = [open, rest].concat();
            for use_binary in [false, true] {
                let dialect = Dialect::new(Generation::Three, use_binary);
                let found = decode(&text, true, dialect, NOW);
                assert_eq!(found, expected, "{}", text.escape_ascii());
            }
        }
    }

    #[test]
    fn a_publish_is_slices_of_one_copy() {
        for text in [
            r##"{"#":["p","a.b",{"x": [1]}]}"##,
            r##" {"#":["p", "a.b" , {"x": [1]} ]}"##,
        ] {
            let Decoded::Command(Command::Publish { message, .. }) = read(text) else {
                panic!("{text}")
            };
            let (topic, data) = (
                message.targets.topics[0].as_bytes(),
                message.payload.bytes(),
            );
            let between = data.as_ptr() as usize - topic.as_ptr() as usize;
            let written = text.find("{\"x").unwrap() - text.find("a.b").unwrap();
            assert_eq!(between, written, "{text}");
        }
    }

    fn is_bad(decoded: &Decoded, expected: Code) -> bool {
        matches!(decoded, Decoded::Bad { code, reason } if *code == expected && !reason.is_empty())
    }

    #[test]
    fn what_is_malformed_is_bad() {
        let check = |text: &str, code: Code| {
            let found = read(text);
            assert!(is_bad(&found, code), "{text}: {found:?}");
        };
        for text in [
            " ",
            "x",
            "null",
            "[]",
            "5",
            r#""A""#,
            r##"["p","a",1]"##,
            r##"{"#":["p","a",1}"##,
            r##"{"#":["p","a",1]]"##,
            r##"{"#":["p","a",1]}}"##,
            r##"{"#":["p","a",1]}{"#":["p","a",1]}"##,
            r##"{"#":["p","a",]}"##,
            r##"{"#":["p","a",1,]}"##,
            r##"{"#":["p","a" 1]}"##,
            r##"{"#":["p","a",NaN]}"##,
            r##"{"#":["p","a",undefined]}"##,
            r##"{"#":["p","a",01]}"##,
            r##"{"#":["p","a","x]}"##,
            r##"{"#":["p","a]}"##,
            r##"{"#":["p","a\x",1]}"##,
            "{\"#\":[\"p\",\"a\nb\",1]}",
            "{\"#\":[\"p\",\"a\",\"b\nc\"]}",
            "{\"#\":[\"p\",\"a\",1]}\0",
            "\u{feff}{\"#\":[\"p\",\"a\",1]}",
            r##"{"#":["x",NaN]}"##,
            r##"{"#":["p","a",1],}"##,
            r##"{"x":[1}"##,
            r##"{'#':['p','a',1]}"##,
        ] {
            check(text, Code::BadJson);
        }
        for text in [
            "{}",
            r##"{"m":["p","a",1]}"##,
            r###"{"##":["p","a",1]}"###,
            r##"{"#":null}"##,
            r##"{"#":"p"}"##,
            r##"{"#":{"0":"p"}}"##,
            r##"{"#":["p","a",1],"#":0}"##,
            r##"{"#":[]}"##,
            r##"{"#":[null,"a",1]}"##,
            r##"{"#":[["p"],"a",1]}"##,
            r##"{"#":["e"]}"##,
            r##"{"#":["e",null,1]}"##,
            r##"{"#":["e","",1]}"##,
            r##"{"#":["e","\ud800",1]}"##,
            r##"{"action":"emit","event":"e","data":1}"##,
        ] {
            check(text, Code::BadType);
        }
        for text in [
            r##"{"#":["p"]}"##,
            r##"{"#":["p","",1]}"##,
            r##"{"#":["p",null,1]}"##,
            r##"{"#":["p",5,1]}"##,
            r##"{"#":["p",["a"],1]}"##,
            r##"{"#":["p","\ud800",1]}"##,
            r##"{"#":["s","s"]}"##,
            r##"{"#":["s","s",""]}"##,
            r##"{"#":["s","s",null]}"##,
            r##"{"#":["s","u",{}]}"##,
            r##"{"#":["s","s","\udc00"]}"##,
        ] {
            check(text, Code::BadTopic);
        }
        let bytes = br##"{"#":["p","a","##;
        for generation in ALL {
            let found = decode(bytes, true, dialect(generation), NOW);
            assert!(is_bad(&found, Code::BadJson), "{found:?}");
        }
    }

    #[test]
    fn names_and_depths_are_bounded() {
        let text = |kind: &str, name: &str| format!(r##"{{"#":[{kind},"{name}",1]}}"##);
        let (longest, longer) = ("é".repeat(512), "é".repeat(512) + "x");
        for kind in [r#""p""#, r#" "p""#] {
            assert_eq!(read(&text(kind, &longest)), publish(&longest, "1"));
            let found = read(&text(kind, &longer));
            assert!(is_bad(&found, Code::BadTopic), "{found:?}");
        }
        let system =
            |word: &str, name: &str| read(&format!(r##"{{"#":["s","{word}","{name}"]}}"##));
        assert_eq!(system("s", &longest), subscribe(&longest));
        assert_eq!(system("u", &longest), unsubscribe(&longest));
        assert!(is_bad(&system("s", &longer), Code::BadTopic));
        assert!(is_bad(&system("u", &longer), Code::BadTopic));
        let (longest, longer) = ("x".repeat(255), "x".repeat(256));
        assert_eq!(read(&text(r#""e""#, &longest)), emit(&longest, "1"));
        assert!(is_bad(&read(&text(r#""e""#, &longer)), Code::BadType));

        // Two brackets are the envelope's. Beside each other there may be as many as fit.
        let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
        let wide = format!("[{}1]", "{},".repeat(100));
        for space in ["", " "] {
            let text = |data: &str| format!(r##"{{"#":["p","a",{data}{space}]}}"##);
            for data in [&nested(62), &wide] {
                assert_eq!(read(&text(data)), publish("a", data));
            }
            for data in [&nested(63), &nested(64), &nested(65), &nested(30_000)] {
                assert!(is_bad(&read(&text(data)), Code::BadJson), "{data}");
            }
        }
    }
}
