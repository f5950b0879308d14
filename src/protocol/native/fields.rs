//! The members of a command that have a meaning, found in one pass.

use std::borrow::Cow;

use bytes::Bytes;
use smallvec::SmallVec;

use super::super::json::{JsonError, Kind, Member, Members, Span, unescape, unescape_loosely};
use super::super::{Refusal, Tag};
use super::ID_BYTES_MAX;
use crate::address::is_name;
use crate::error::Code;
use crate::limits::{CHANNEL_BYTES_MAX, NAME_BYTES_MAX};

/// A key that some command knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    Type,
    Topic,
    Message,
    Timestamp,
    Context,
    FromPeerServer,
    Echo,
    Id,
    Event,
    Data,
    To,
    Timeout,
    Error,
}

impl Key {
    const COUNT: usize = Key::Error as usize + 1;

    fn bit(self) -> u16 {
        const { assert!(Key::COUNT <= u16::BITS as usize, "one bit per key") };
        1 << self as u16
    }

    /// The key with this name, unescaped.
    pub(super) fn named(name: &[u8]) -> Option<Key> {
        Some(match name {
            b"type" => Key::Type,
            b"topic" => Key::Topic,
            b"message" => Key::Message,
            b"timestamp" => Key::Timestamp,
            b"context" => Key::Context,
            b"fromPeerServer" => Key::FromPeerServer,
            b"echo" => Key::Echo,
            b"id" => Key::Id,
            b"event" => Key::Event,
            b"data" => Key::Data,
            b"to" => Key::To,
            b"timeout" => Key::Timeout,
            b"error" => Key::Error,
            _ => return None,
        })
    }
}

/// The name that a member's key says, escapes read.
pub(super) fn name_of<'a>(member: &Member, text: &'a [u8]) -> Cow<'a, [u8]> {
    let name = member.key.inside().of(text);
    if member.key_escaped {
        unescape_loosely(name)
    } else {
        Cow::Borrowed(name)
    }
}

/// How many unknown keys are compared with one another; with more, or with escapes in one of them, duplicates are
/// taken for possible and left to [`super::envelope`], which sorts.
const OTHERS_MAX: usize = 8;

/// The value of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Value {
    /// As written.
    pub(super) span: Span,
    /// What it is.
    pub(super) kind: Kind,
}

/// Every `type` that a client may send.
const ACTIONS: [&str; 10] = [
    "publish",
    "subscribe",
    "unsubscribe",
    "event",
    "request",
    "reply",
    "handle",
    "unhandle",
    "whoami",
    "ping",
];

/// A text that is one valid JSON object: its known members, of duplicates the last.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    pub(super) text: &'a [u8],
    /// From the first key to the end of the last value. Empty for `{}`.
    pub(super) body: Span,
    /// False if no key occurs twice.
    pub(super) duplicates: bool,
    /// One bit per key, by its number: is there such a member? The two below mean nothing without it, and cost less
    /// to make than options would.
    present: u16,
    spans: [Span; Key::COUNT],
    kinds: [Kind; Key::COUNT],
}

impl<'a> Fields<'a> {
    pub(super) fn read(text: &'a [u8]) -> Result<Fields<'a>, JsonError> {
        let mut present = 0;
        let mut spans = [Span::EMPTY; Key::COUNT];
        let mut kinds = [Kind::Null; Key::COUNT];
        let mut others = SmallVec::<[&[u8]; OTHERS_MAX]>::new();
        let mut duplicates = false;
        let mut body: Option<(usize, usize)> = None;
        for member in Members::of(text) {
            let member = member?;
            let start = body.map_or(member.key.range().start, |(start, _)| start);
            body = Some((start, member.value.range().end));
            match Key::named(&name_of(&member, text)) {
                Some(key) => {
                    duplicates |= present & key.bit() != 0;
                    present |= key.bit();
                    spans[key as usize] = member.value;
                    kinds[key as usize] = member.kind;
                }
                None if duplicates => {}
                None => {
                    let name = member.key.inside().of(text);
                    duplicates =
                        member.key_escaped || others.len() == OTHERS_MAX || others.contains(&name);
                    others.push(name);
                }
            }
        }
        let (start, end) = body.unwrap_or_default();
        Ok(Fields {
            text,
            body: Span::new(start, end),
            duplicates,
            present,
            spans,
            kinds,
        })
    }

    pub(super) fn has(&self, key: Key) -> bool {
        self.present & key.bit() != 0
    }

    pub(super) fn value(&self, key: Key) -> Option<Value> {
        self.has(key).then(|| Value {
            span: self.spans[key as usize],
            kind: self.kinds[key as usize],
        })
    }

    /// The value as written.
    pub(super) fn raw(&self, key: Key) -> Option<&'a [u8]> {
        self.value(key).map(|value| value.span.of(self.text))
    }

    /// The bytes of a string; nothing if there is no such member, it is not a string, or its escapes are not
    /// Unicode.
    pub(super) fn string(&self, key: Key) -> Option<Cow<'a, [u8]>> {
        let value = self.value(key)?;
        string_of(value.span, value.kind, self.text)
    }

    /// The name of an event: a string of 1 to [`NAME_BYTES_MAX`] bytes without control characters.
    pub(super) fn event(&self) -> Result<Bytes, Refusal> {
        match self.string(Key::Event) {
            Some(event) if is_name(&event) => Ok(own(event)),
            _ => Err(self.refuse(
                Code::BadType,
                "`event` must be a string of 1 to 255 bytes without control characters",
            )),
        }
    }

    /// The `id`, in a buffer of its own: it may be kept long after the text.
    pub(super) fn tag(&self) -> Option<Tag> {
        self.raw(Key::Id).map(Bytes::copy_from_slice)
    }

    /// What a refusal says was to be done.
    fn action(&self) -> Option<Cow<'static, str>> {
        let action = self.string(Key::Type)?;
        let known = ACTIONS.iter().find(|known| known.as_bytes() == &*action);
        Some(match known {
            Some(known) => Cow::Borrowed(*known),
            None => Cow::Owned(String::from_utf8_lossy(cut(&action, NAME_BYTES_MAX)).into_owned()),
        })
    }

    /// A refusal with all that the client can tell its command by.
    #[cold]
    pub(super) fn refuse(&self, code: Code, reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal {
            action: self.action(),
            code,
            reason: reason.into(),
            topic: self
                .string(Key::Topic)
                .map(|topic| Bytes::copy_from_slice(cut(&topic, CHANNEL_BYTES_MAX))),
            tag: self
                .raw(Key::Id)
                .filter(|id| id.len() <= ID_BYTES_MAX)
                .map(Bytes::copy_from_slice),
        }
    }
}

/// The bytes of a value, if it is a string of Unicode.
#[inline]
pub(super) fn string_of(value: Span, kind: Kind, text: &[u8]) -> Option<Cow<'_, [u8]>> {
    match kind {
        Kind::String { escaped: false } => Some(Cow::Borrowed(value.inside().of(text))),
        Kind::String { escaped: true } => unescape(value.inside().of(text)).ok(),
        _ => None,
    }
}

/// In a buffer of its own size, without a second copy.
pub(super) fn own(bytes: Cow<'_, [u8]>) -> Bytes {
    match bytes {
        Cow::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    }
}

/// The first `size_max` bytes at most, cut between characters.
pub(super) fn cut(text: &[u8], size_max: usize) -> &[u8] {
    if text.len() <= size_max {
        return text;
    }
    let mut size = size_max;
    while size > 0 && text[size] & 0xc0 == 0x80 {
        size -= 1;
    }
    &text[..size]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_members_are_found_and_the_last_counts() {
        let text =
            br#"{"type":1,"\u0074opic":"a\u002eb","x":[{"type":2}],"type":"t","id":{"a":[1]}}"#;
        let fields = Fields::read(text).unwrap();
        assert_eq!(fields.raw(Key::Type), Some(&br#""t""#[..]));
        assert_eq!(fields.string(Key::Topic).as_deref(), Some(&b"a.b"[..]));
        assert_eq!(fields.tag().as_deref(), Some(&br#"{"a":[1]}"#[..]));
        assert_eq!(fields.raw(Key::Message), None);
        assert_eq!(fields.string(Key::Id), None);
        assert_eq!(fields.body.of(text), &text[1..text.len() - 1]);
        assert!(fields.duplicates);
        assert!(Fields::read(b" {} ").unwrap().body.of(b" {} ").is_empty());
    }

    #[test]
    fn duplicates_are_never_overlooked() {
        for (text, expected) in [
            (r#"{"type":1,"a":1,"b":2}"#, false),
            (r#"{"a":1,"b":2,"a":3}"#, true),
            (r#"{"id":1,"i\u0064":2}"#, true),
            (r#"{"a":1,"\u0061":2}"#, true),
            // Too many to compare: possible.
            (
                r#"{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8}"#,
                false,
            ),
            (
                r#"{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9}"#,
                true,
            ),
        ] {
            assert_eq!(
                Fields::read(text.as_bytes()).unwrap().duplicates,
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn cuts_fall_between_characters() {
        for (text, size_max, expected) in [
            ("abc", 3, "abc"),
            ("abc", 2, "ab"),
            ("aé", 2, "a"),
            ("é", 1, ""),
            ("😀x", 4, "😀"),
            ("x😀", 4, "x"),
            ("", 0, ""),
        ] {
            assert_eq!(
                cut(text.as_bytes(), size_max),
                expected.as_bytes(),
                "{text}"
            );
        }
        assert_eq!(cut(&[0x80; 9], 4), b"");
    }
}
