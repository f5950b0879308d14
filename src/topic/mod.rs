//! Topics: the names that are published to. A [`Filter`] is what a subscription asks for, [`tree`] finds the
//! filters that match a topic, [`interest`] counts them for others.
//!
//! A name is any bytes; the rooms and channels of several protocols are no more than that. Some names are
//! also *dotted*: levels of text between dots, of which a [`Dotted`] filter can take a whole branch. Nothing
//! here knows sessions, messages or protocols.
//!
//! Redis' shard channels are a space of names of their own, beside all of this.
//!
//! Invariant: but for shard channels, [`Topic::is_dotted`] is a function of the bytes. How a name came in, and which
//! protocol published it, changes nothing about who is reached.

use std::fmt;

use bytes::Bytes;

use crate::limits::{CHANNEL_BYTES_MAX, TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};

mod arena;
pub mod board;
mod dotted;
mod filter;
mod glob;
mod globs;
pub mod interest;
pub mod tree;
mod trie;

pub use dotted::Dotted;
pub use filter::Filter;

/// A name that is published to (DESIGN decision 9).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Topic {
    name: Bytes,
    space: Space,
}

/// Whom a name can reach.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Space {
    /// Filters of every kind but shard channels: the name has levels.
    Dotted,
    /// The same without dotted filters.
    Plain,
    /// The shard channel of this name and nothing else.
    Shard,
}

impl Topic {
    /// A topic of the protocols with dotted names: 1 to 255 bytes of UTF-8, at most 32 levels between dots.
    ///
    /// # Errors
    /// if it is longer or deeper, has an empty level or a control character, or would be a filter (a level
    /// `*`, a leading `=`) or is reserved (a leading `$`).
    pub fn dotted(name: Bytes) -> Result<Topic, TopicError> {
        check_levels(&name, Stars::Refused)?;
        Ok(Topic {
            name,
            space: Space::Dotted,
        })
    }

    /// A channel, room or event of the other protocols: any bytes, 0 to 1024 of them.
    ///
    /// # Errors
    /// if it is longer.
    pub fn channel(name: Bytes) -> Result<Topic, TopicError> {
        check_channel(&name)?;
        let space = if is_dotted(&name) {
            Space::Dotted
        } else {
            Space::Plain
        };
        Ok(Topic { name, space })
    }

    /// A shard channel (Redis' SPUBLISH), any bytes, 0 to 1024 of them. It shares no subscriber with the topic of the
    /// same name.
    ///
    /// # Errors
    /// if it is longer.
    pub fn shard(name: Bytes) -> Result<Topic, TopicError> {
        check_channel(&name)?;
        Ok(Topic {
            name,
            space: Space::Shard,
        })
    }

    /// Do dotted filters see it? True if [`Topic::dotted`] would take the same bytes, and it is no shard channel.
    pub fn is_dotted(&self) -> bool {
        self.space == Space::Dotted
    }

    /// Is it a shard channel?
    pub fn is_shard(&self) -> bool {
        self.space == Space::Shard
    }

    /// The name.
    pub fn as_bytes(&self) -> &Bytes {
        &self.name
    }
}

/// Why a name is no topic or filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicError(&'static str);

impl TopicError {
    /// A short sentence for the client.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for TopicError {}

/// May a level be `*`?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stars {
    Allowed,
    Refused,
}

/// The rules that dotted topics and dotted filters (after their `=`) share.
///
/// The plain version is [`check_rules`], rule by rule. Every publish pays for it, so the names of nearly all topics,
/// which are [ordinary](is_ordinary), are not looked at a second time.
fn check_levels(path: &[u8], stars: Stars) -> Result<(), TopicError> {
    if is_ordinary(path) {
        return Ok(());
    }
    check_rules(path, stars)
}

/// Is this a name that keeps every rule, written in ASCII, short, and without a `*` anywhere? Eight bytes at a time.
fn is_ordinary(path: &[u8]) -> bool {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH_BITS: u64 = ONES << 7;
    /// As many levels as there may be fit, and one more does not.
    const SIZE_MAX: usize = 2 * TOPIC_LEVELS_MAX;
    // Of a word of ASCII no sum below carries from one byte into the next; of others the result is not used.
    let equals = |word: u64, byte: u8| HIGH_BITS.wrapping_sub(word ^ (ONES * u64::from(byte)));
    let is_first_fit = matches!(path, [first, ..] if !matches!(first, b'$' | b'='));
    if !is_first_fit || path.len() > SIZE_MAX || path.last() == Some(&b'.') {
        return false;
    }
    let mut wrong = 0;
    // The high bit of the lowest byte: was the byte before it a dot? None may be before the first level.
    let mut dot_before = 0x80;
    let mut look = |word: u64| {
        let dots = equals(word, b'.') & HIGH_BITS;
        let visible = word.wrapping_add(ONES * 0x60) & !word.wrapping_add(ONES);
        wrong |= word | !visible | equals(word, b'*') | (dots & (dots << 8 | dot_before));
        dot_before = dots >> 56;
    };
    let (words, rest) = path.as_chunks();
    words
        .iter()
        .for_each(|word| look(u64::from_le_bytes(*word)));
    if !rest.is_empty() {
        let mut word = [b'x'; 8];
        for (to, from) in word.iter_mut().zip(rest) {
            *to = *from;
        }
        look(u64::from_le_bytes(word));
    }
    wrong & HIGH_BITS == 0
}

fn check_rules(path: &[u8], stars: Stars) -> Result<(), TopicError> {
    const {
        assert!(
            TOPIC_BYTES_MAX == 255 && TOPIC_LEVELS_MAX == 32,
            "the sentences below name them"
        )
    };
    let refuse = |reason| Err(TopicError(reason));
    match path {
        [] => return refuse("the topic is empty"),
        [b'$', ..] => return refuse("a leading `$` is reserved"),
        [b'=', ..] if stars == Stars::Refused => {
            return refuse("a leading `=` is only for filters");
        }
        [b'=', ..] => return refuse("only one leading `=` is allowed"),
        _ => {}
    }
    if path.len() > TOPIC_BYTES_MAX {
        return refuse("the topic is longer than 255 bytes");
    }
    if simdutf8::basic::from_utf8(path).is_err() {
        return refuse("the topic is not UTF-8");
    }
    if has_control(path) {
        return refuse("the topic has a control character");
    }
    let mut count = 0;
    for level in levels(path) {
        match level {
            b"" => return refuse("the topic has an empty level"),
            b"*" if stars == Stars::Refused => return refuse("a level `*` is only for filters"),
            _ => count += 1,
        }
    }
    if count > TOPIC_LEVELS_MAX {
        return refuse("the topic has more than 32 levels");
    }
    Ok(())
}

/// `char::is_control` for bytes that are valid UTF-8: U+0000 to U+001F, U+007F, and U+0080 to U+009F, which
/// are the pairs from C2 80 to C2 9F. It does not decode.
fn has_control(text: &[u8]) -> bool {
    text.iter().any(|byte| byte.is_ascii_control())
        || text
            .windows(2)
            .any(|pair| pair[0] == 0xc2 && pair[1] <= 0x9f)
}

fn check_channel(name: &[u8]) -> Result<(), TopicError> {
    const { assert!(CHANNEL_BYTES_MAX == 1024, "the sentence below names it") };
    if name.len() > CHANNEL_BYTES_MAX {
        return Err(TopicError("the channel is longer than 1024 bytes"));
    }
    Ok(())
}

/// Would [`Topic::dotted`] take this name?
fn is_dotted(name: &[u8]) -> bool {
    check_levels(name, Stars::Refused).is_ok()
}

/// The levels of a dotted topic, or of a filter without its `=`.
fn levels(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_topic(name: &[u8], expected: Result<(), &str>) {
        let dotted = Topic::dotted(Bytes::copy_from_slice(name));
        assert_eq!(
            dotted.as_ref().map(|_| ()).map_err(|error| error.as_str()),
            expected,
            "{name:?}"
        );
        if name.len() <= CHANNEL_BYTES_MAX {
            let channel = Topic::channel(Bytes::copy_from_slice(name)).unwrap();
            assert_eq!(channel.is_dotted(), expected.is_ok(), "{name:?}");
            assert_eq!(channel.as_bytes(), name);
            if let Ok(dotted) = dotted {
                assert_eq!(dotted, channel);
            }
        }
    }

    #[test]
    fn topics_are_levels_of_text() {
        let deep = ["x"; TOPIC_LEVELS_MAX].join(".");
        let too_deep = ["x"; TOPIC_LEVELS_MAX + 1].join(".");
        for name in [
            "a",
            "a.b",
            "a*",
            "*a.**",
            "a.=b",
            "a.$b",
            "a b",
            "ü.日本",
            "-",
            &deep,
            &"x".repeat(255),
        ] {
            check_topic(name.as_bytes(), Ok(()));
        }
        for (name, reason) in [
            ("", "the topic is empty"),
            (".", "the topic has an empty level"),
            (".a", "the topic has an empty level"),
            ("a.", "the topic has an empty level"),
            ("a..b", "the topic has an empty level"),
            ("*", "a level `*` is only for filters"),
            ("a.*.b", "a level `*` is only for filters"),
            ("=a", "a leading `=` is only for filters"),
            ("=", "a leading `=` is only for filters"),
            ("$SYS.a", "a leading `$` is reserved"),
            ("a\nb", "the topic has a control character"),
            ("a\0", "the topic has a control character"),
            ("a\u{7f}", "the topic has a control character"),
            ("a\u{80}b", "the topic has a control character"),
            ("a.\u{9f}", "the topic has a control character"),
            (&too_deep, "the topic has more than 32 levels"),
            (&"x".repeat(256), "the topic is longer than 255 bytes"),
        ] {
            check_topic(name.as_bytes(), Err(reason));
        }
        check_topic(b"\xff", Err("the topic is not UTF-8"));
        check_topic(b"a.\xc2", Err("the topic is not UTF-8"));
    }

    #[test]
    fn ordinary_names_keep_the_rules() {
        // Every byte at every place of names of several shapes and sizes, some of the limits among them.
        let dots = |every: usize, size: usize| -> Vec<u8> {
            (1..=size)
                .map(|at| if at % every == 0 { b'.' } else { b'a' })
                .collect()
        };
        for every in [2, 3, 8, 9, 100] {
            for size in (0..20).chain(60..70) {
                let name = dots(every, size);
                for at in 0..size {
                    for byte in 0..=255 {
                        let mut name = name.clone();
                        name[at] = byte;
                        let keeps = check_rules(&name, Stars::Refused).is_ok();
                        if is_ordinary(&name) {
                            assert!(keeps, "{name:?}");
                        } else if keeps {
                            assert!(
                                size > 64 || !name.is_ascii() || name.contains(&b'*'),
                                "{name:?}"
                            );
                        }
                    }
                }
            }
        }
        assert!(!is_ordinary(b""));
    }

    #[test]
    fn control_characters_are_those_of_char() {
        for char in
            (0..=0x2ff)
                .filter_map(char::from_u32)
                .chain(['\u{2028}', '\u{fffd}', '\u{1f600}'])
        {
            let text = format!("x{char}y{char}");
            assert_eq!(has_control(text.as_bytes()), char.is_control(), "{char:?}");
        }
    }

    #[test]
    fn channels_are_bytes() {
        for (name, dotted) in [
            (&b""[..], false),
            (b"\0\xff", false),
            (b"socket.io#/#room#", true),
            (b"socket.io..", false),
            (&[b'x'; 1024], false),
        ] {
            let topic = Topic::channel(Bytes::copy_from_slice(name)).unwrap();
            assert_eq!((topic.is_dotted(), &topic.as_bytes()[..]), (dotted, name));
        }
        let shard = Topic::shard(Bytes::from_static(b"a.b")).unwrap();
        assert!(shard.is_shard() && !shard.is_dotted());
        assert_ne!(shard, Topic::channel(Bytes::from_static(b"a.b")).unwrap());
        assert!(Topic::shard(Bytes::from(vec![b'x'; 1025])).is_err());
        let refused = Topic::channel(Bytes::from(vec![b'x'; 1025])).unwrap_err();
        assert_eq!(refused.to_string(), "the channel is longer than 1024 bytes");
    }
}
