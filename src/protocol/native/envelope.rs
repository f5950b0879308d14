//! The publisher's object, as every native subscriber gets it: all of its members in their order, except those
//! that are the broker's to write.
//!
//! Almost every object is passed on as it came, in one copy. Only one with a `context`, an untrusted
//! `fromPeerServer` or a key that occurs twice is written anew, member by member, from raw slices.

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::super::json::{Member, Members, Span};
use super::Stamp;
use super::fields::{Fields, Key, name_of};

/// An object without its closing brace: a delivery is these bytes, `,"context":"..."` and `}`.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) bytes: Bytes,
    /// Where the values of these members stand in `bytes`.
    pub(super) topic: Option<Span>,
    pub(super) message: Option<Span>,
    pub(super) id: Option<Span>,
}

impl Envelope {
    /// The envelope of a publish, with a timestamp if the publisher sent none.
    pub(super) fn of(fields: &Fields<'_>, stamp: &Stamp, trust_peer_flag: bool) -> Envelope {
        const TIMESTAMP: &[u8] = br#","timestamp":""#;
        let is_stamped = fields.has(Key::Timestamp);
        let stamp_size = if is_stamped {
            0
        } else {
            TIMESTAMP.len() + Stamp::WRITTEN_SIZE + 1
        };
        let mut out = Vec::with_capacity(1 + fields.body.range().len() + stamp_size);
        out.push(b'{');
        let foreign =
            fields.has(Key::Context) || (fields.has(Key::FromPeerServer) && !trust_peer_flag);
        let mut envelope = if foreign || fields.duplicates {
            rebuild(fields, trust_peer_flag, &mut out)
        } else {
            copy(fields, &mut out)
        };
        if !is_stamped {
            out.extend_from_slice(TIMESTAMP);
            out.extend_from_slice(stamp.as_bytes());
            out.push(b'"');
        }
        envelope.bytes = Bytes::from(out);
        envelope
    }
}

/// The members as they came, whitespace included.
fn copy(fields: &Fields<'_>, out: &mut Vec<u8>) -> Envelope {
    let body = fields.body.range();
    let shift = |key| {
        let value = fields.value(key)?.span.range();
        Some(Span::new(
            value.start - body.start + out.len(),
            value.end - body.start + out.len(),
        ))
    };
    let envelope = Envelope {
        bytes: Bytes::new(),
        topic: shift(Key::Topic),
        message: shift(Key::Message),
        id: shift(Key::Id),
    };
    out.extend_from_slice(fields.body.of(fields.text));
    envelope
}

/// The members one by one: each name once, where it first stood, with the value that it had last.
fn rebuild(fields: &Fields<'_>, trust_peer_flag: bool, out: &mut Vec<u8>) -> Envelope {
    let text = fields.text;
    let members: SmallVec<[Member; 16]> = Members::of(text).map_while(Result::ok).collect();
    let names: SmallVec<[_; 16]> = members.iter().map(|member| name_of(member, text)).collect();
    // Equal names side by side, in the order written. Sorting keeps thousands of keys from costing their square,
    // and needs no hash that a client could learn.
    let mut order: SmallVec<[usize; 16]> = (0..members.len()).collect();
    order.sort_unstable_by(|a, b| names[*a].cmp(&names[*b]).then(a.cmp(b)));
    // For the first member of each name, the last one.
    let mut lasts: SmallVec<[Option<usize>; 16]> = smallvec![None; members.len()];
    for same in order.chunk_by(|a, b| names[*a] == names[*b]) {
        lasts[same[0]] = same.last().copied();
    }

    let mut envelope = Envelope {
        bytes: Bytes::new(),
        topic: None,
        message: None,
        id: None,
    };
    for (first, last) in lasts.iter().enumerate() {
        let Some(last) = *last else { continue };
        let key = Key::named(&names[first]);
        if key == Some(Key::Context) || (key == Some(Key::FromPeerServer) && !trust_peer_flag) {
            continue;
        }
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(members[first].key.of(text));
        out.push(b':');
        let start = out.len();
        out.extend_from_slice(members[last].value.of(text));
        let value = Some(Span::new(start, out.len()));
        match key {
            Some(Key::Topic) => envelope.topic = value,
            Some(Key::Message) => envelope.message = value,
            Some(Key::Id) => envelope.id = value,
            _ => {}
        }
    }
    envelope
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: &str = r#","timestamp":"1970-01-01T00:00:00.000Z""#;

    fn check(text: &str, trust_peer_flag: bool, expected: &str) {
        let fields = Fields::read(text.as_bytes()).unwrap();
        let envelope = Envelope::of(&fields, &Stamp::new(0), trust_peer_flag);
        assert_eq!(
            std::str::from_utf8(&envelope.bytes).unwrap(),
            expected,
            "{text}"
        );
        for (key, span) in [
            (Key::Topic, envelope.topic),
            (Key::Message, envelope.message),
            (Key::Id, envelope.id),
        ] {
            assert_eq!(
                span.map(|span| span.of(&envelope.bytes)),
                fields.raw(key),
                "{text} {key:?}"
            );
        }
    }

    #[test]
    fn an_ordinary_object_stays_as_it_came() {
        for trust in [false, true] {
            check(
                r#"{"topic":"a","message":{"x":[1, 2]},"id":7}"#,
                trust,
                &format!(r#"{{"topic":"a","message":{{"x":[1, 2]}},"id":7{STAMP}"#),
            );
            check(
                " {  \"topic\" : \"a\" ,\n\"timestamp\" : null\t} ",
                trust,
                "{\"topic\" : \"a\" ,\n\"timestamp\" : null",
            );
            check(
                r#"{"topic":"a","t\u0069mestamp":1,"other":"} ,"}"#,
                trust,
                r#"{"topic":"a","t\u0069mestamp":1,"other":"} ,""#,
            );
            check(
                r#"{"message":"topic","topic":"message"}"#,
                trust,
                &format!(r#"{{"message":"topic","topic":"message"{STAMP}"#),
            );
        }
    }

    #[test]
    fn the_broker_writes_context_itself() {
        for (text, expected) in [
            (
                r#"{"context":1,"topic":"a","timestamp":2}"#,
                r#"{"topic":"a","timestamp":2"#,
            ),
            (
                r#"{"topic":"a","context":{"context":1},"timestamp":2}"#,
                r#"{"topic":"a","timestamp":2"#,
            ),
            (
                r#"{"topic":"a","timestamp":2,"\u0063ontext":1}"#,
                r#"{"topic":"a","timestamp":2"#,
            ),
            (
                r#"{"context":1, "topic" : "a" ,"context":2,"timestamp":2 ,"context":3}"#,
                r#"{"topic":"a","timestamp":2"#,
            ),
        ] {
            check(text, false, expected);
            check(text, true, expected);
        }
    }

    #[test]
    fn the_peer_flag_is_for_the_trusted() {
        let text = r#"{"fromPeerServer":true,"topic":"a","timestamp":2}"#;
        check(text, false, r#"{"topic":"a","timestamp":2"#);
        check(
            text,
            true,
            r#"{"fromPeerServer":true,"topic":"a","timestamp":2"#,
        );
        check(
            r#"{"fromPeerServer":true,"topic":"a","context":2}"#,
            true,
            &format!(r#"{{"fromPeerServer":true,"topic":"a"{STAMP}"#),
        );
    }

    #[test]
    fn each_key_is_passed_on_once() {
        for (text, expected) in [
            (
                r#"{"topic":"a","x":1,"topic":"b","timestamp":2}"#,
                r#"{"topic":"b","x":1,"timestamp":2"#,
            ),
            (
                r#"{"timestamp":1,"\u0074opic":"a","topic":"b","timestamp":2,"topic":"c"}"#,
                r#"{"timestamp":2,"\u0074opic":"c""#,
            ),
            (
                r#"{"message":1,"x":1,"message":{"x":2,"x":3},"x":4,"timestamp":2}"#,
                r#"{"message":{"x":2,"x":3},"x":4,"timestamp":2"#,
            ),
            // Half a surrogate pair is a key of its own.
            (
                r#"{"\ud800":1,"\ud801":2,"\uD800":3,"\ufffd":4,"timestamp":2}"#,
                r#"{"\ud800":3,"\ud801":2,"\ufffd":4,"timestamp":2"#,
            ),
        ] {
            check(text, false, expected);
        }
        let many: String = (0..2000)
            .map(|index| format!(r#","k{}":{index}"#, index % 1000))
            .collect();
        let once: String = (1000..2000)
            .map(|index| format!(r#","k{}":{index}"#, index % 1000))
            .collect();
        check(
            &format!(r#"{{"timestamp":2{many}}}"#),
            false,
            &format!(r#"{{"timestamp":2{once}"#),
        );
    }
}
