//! The members of a command that have a meaning, found in one pass.

use std::borrow::Cow;

use bytes::Bytes;
use smallvec::SmallVec;

use super::super::json::{JsonError, Kind, Member, Members, Span, unescape, unescape_loosely};
use super::super::{Refusal, Tag};
use super::ID_BYTES_MAX;
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

/// A text that is one valid JSON object: its known members, of duplicates the last.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    pub(super) text: &'a [u8],
    /// From the first key to the end of the last value. Empty for `{}`.
    pub(super) body: Span,
    /// False if no key occurs twice.
    pub(super) duplicates: bool,
    /// What a refusal says was to be done.
    pub(super) action: Option<Cow<'static, str>>,
    known: [Option<Member>; Key::COUNT],
}

impl<'a> Fields<'a> {
    pub(super) fn read(text: &'a [u8]) -> Result<Fields<'a>, JsonError> {
        let mut known = [None; Key::COUNT];
        let mut others = SmallVec::<[&[u8]; OTHERS_MAX]>::new();
        let mut duplicates = false;
        let mut body: Option<(usize, usize)> = None;
        for member in Members::of(text) {
            let member = member?;
            let start = body.map_or(member.key.range().start, |(start, _)| start);
            body = Some((start, member.value.range().end));
            match Key::named(&name_of(&member, text)) {
                Some(key) => duplicates |= known[key as usize].replace(member).is_some(),
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
            action: None,
            known,
        })
    }

    pub(super) fn member(&self, key: Key) -> Option<Member> {
        self.known[key as usize]
    }

    /// The value as written.
    pub(super) fn raw(&self, key: Key) -> Option<&'a [u8]> {
        self.member(key).map(|member| member.value.of(self.text))
    }

    /// The bytes of a string; nothing if there is no such member, it is not a string, or its escapes are not
    /// Unicode.
    pub(super) fn string(&self, key: Key) -> Option<Cow<'a, [u8]>> {
        string_of(&self.member(key)?, self.text)
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

    /// A refusal with all that the client can tell its command by.
    #[cold]
    pub(super) fn refuse(&self, code: Code, reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal {
            action: self.action.clone(),
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

/// The bytes of a member's value, if it is a string of Unicode.
pub(super) fn string_of<'a>(member: &Member, text: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    match member.kind {
        Kind::String { escaped: false } => Some(Cow::Borrowed(member.value.inside().of(text))),
        Kind::String { escaped: true } => unescape(member.value.inside().of(text)).ok(),
        _ => None,
    }
}

/// May this be the name of an event, a service or a peer?
pub(super) fn is_name(name: &[u8]) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && std::str::from_utf8(name).is_ok_and(|name| !name.contains(char::is_control))
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

    #[test]
    fn names_are_bounded_text() {
        for (name, expected) in [
            ("a", true),
            ("", false),
            ("a b", true),
            ("é", true),
            ("a\n", false),
            ("\u{7f}", false),
            ("\u{85}", false),
        ] {
            assert_eq!(is_name(name.as_bytes()), expected, "{name:?}");
        }
        assert!(is_name(&[b'x'; 255]) && !is_name(&[b'x'; 256]) && !is_name(b"\xff"));
    }
}
