//! Properties of `pubsub::protocol::resp` over random input, with a plain reader of whole buffers as the other opinion.
//!
//! Whatever bytes come and however they are cut, the reader sees what the plain one sees, and holds no more than the
//! limits. What is written is read back, its size known before, and an error stays one line.

use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use pubsub::error::CloseReason;
use pubsub::message::{Flags, Message, Payload, Targets};
use pubsub::protocol::resp::reader::{LINE_BYTES_MAX, Reader, ReaderLimits, Violation};
use pubsub::protocol::resp::request::{Names, Refusal};
use pubsub::protocol::resp::{
    Arguments, Kind, Request, Version, decode, delivery_size, encode_delivery, info, reply,
};
use pubsub::topic::{Filter, Topic};

const LIMITS: ReaderLimits = ReaderLimits {
    bulk_bytes_max: 60,
    arguments_max: 12,
    command_bytes_max: 200,
    authenticated: true,
};

/// What a reader saw, owned.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Seen {
    Command(Vec<Vec<u8>>),
    Violation(CloseReason, &'static str, Option<u8>),
}

impl From<Violation> for Seen {
    fn from(violation: Violation) -> Seen {
        Seen::Violation(violation.reason, violation.detail, violation.found)
    }
}

/// Reads `bytes` in pieces that end at these positions, up to a violation.
fn read(bytes: &[u8], cuts: &[usize]) -> Vec<Seen> {
    let mut cuts: Vec<usize> = cuts.iter().map(|&cut| cut.min(bytes.len())).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let mut reader = Reader::default();
    let mut seen = Vec::new();
    for range in cuts.windows(2) {
        let mut rest = &bytes[range[0]..range[1]];
        loop {
            match reader.next(LIMITS, rest) {
                Ok((taken, None)) => {
                    assert_eq!(taken, rest.len(), "what completes nothing is taken whole");
                    break;
                }
                Ok((taken, Some(arguments))) => {
                    seen.push(Seen::Command(
                        arguments.iter().map(<[u8]>::to_vec).collect(),
                    ));
                    let owned = arguments.to_owned();
                    assert!(owned.size() <= LIMITS.command_bytes_max);
                    assert!(owned.borrow().iter().eq(arguments.iter()));
                    rest = &rest[taken..];
                }
                Err(violation) => {
                    seen.push(violation.into());
                    return seen;
                }
            }
        }
        assert!(reader.buffered_bytes() <= LIMITS.command_bytes_max + LINE_BYTES_MAX);
        assert!(reader.is_in_command() || reader.buffered_bytes() <= LIMITS.command_bytes_max);
    }
    seen
}

/// The plain reader: all bytes are there, and what is incomplete at their end is nothing.
struct Plain<'a> {
    rest: &'a [u8],
}

/// Why there is no further command.
enum End {
    Incomplete,
    Violation(Seen),
}

fn broken(detail: &'static str) -> End {
    End::Violation(Seen::Violation(CloseReason::ProtocolError, detail, None))
}

fn too_big(detail: &'static str) -> End {
    End::Violation(Seen::Violation(CloseReason::TooBig, detail, None))
}

impl Plain<'_> {
    fn read(bytes: &[u8]) -> Vec<Seen> {
        let mut plain = Plain { rest: bytes };
        let mut seen = Vec::new();
        loop {
            match plain.command() {
                Ok(words) if words.is_empty() => {}
                Ok(words) => seen.push(Seen::Command(words)),
                Err(End::Incomplete) => return seen,
                Err(End::Violation(violation)) => {
                    seen.push(violation);
                    return seen;
                }
            }
        }
    }

    fn command(&mut self) -> Result<Vec<Vec<u8>>, End> {
        let mut words = Vec::new();
        let mut size = 0;
        let mut check = |count: usize, bulk: usize| {
            size += bulk + 8;
            if count > LIMITS.arguments_max {
                return Err(too_big("invalid multibulk length"));
            }
            if bulk > LIMITS.bulk_bytes_max || size > LIMITS.command_bytes_max {
                return Err(too_big("invalid bulk length"));
            }
            Ok(())
        };
        if *self.rest.first().ok_or(End::Incomplete)? != b'*' {
            let line = self.line(b'\n', "too big inline request")?;
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            for word in sdssplitargs(line).ok_or(broken("unbalanced quotes in request"))? {
                words.push(word);
                check(words.len(), words[words.len() - 1].len())?;
            }
            self.take(1)?;
            return Ok(words);
        }
        self.take(1)?;
        let text = self.line(b'\r', "too big mbulk count string")?;
        let count = number(&text)
            .filter(|&count| count <= i64::from(i32::MAX))
            .ok_or(broken("invalid multibulk length"))?;
        if count > LIMITS.arguments_max as i64 {
            return Err(too_big("invalid multibulk length"));
        }
        self.take(2)?;
        for index in 0..count {
            match self.rest.first() {
                None => return Err(End::Incomplete),
                Some(b'$') => self.take(1)?,
                Some(&byte) => {
                    return Err(End::Violation(Seen::Violation(
                        CloseReason::ProtocolError,
                        "expected '$'",
                        Some(byte),
                    )));
                }
            };
            let text = self.line(b'\r', "too big bulk count string")?;
            let size = number(&text)
                .and_then(|size| usize::try_from(size).ok())
                .ok_or(broken("invalid bulk length"))?;
            if size > LIMITS.bulk_bytes_max {
                return Err(too_big("invalid bulk length"));
            }
            check(index as usize, size)?;
            self.take(2)?;
            words.push(self.take(size)?);
            self.take(2)?;
        }
        Ok(words)
    }

    fn take(&mut self, size: usize) -> Result<Vec<u8>, End> {
        if self.rest.len() < size {
            return Err(End::Incomplete);
        }
        let (taken, rest) = self.rest.split_at(size);
        self.rest = rest;
        Ok(taken.to_vec())
    }

    /// What comes before `end`, which is left where it is.
    fn line(&mut self, end: u8, too_long: &'static str) -> Result<Vec<u8>, End> {
        let size = self.rest.iter().position(|&byte| byte == end);
        if size.unwrap_or(self.rest.len()) > LINE_BYTES_MAX {
            return Err(broken(too_long));
        }
        self.take(size.ok_or(End::Incomplete)?)
    }
}

/// A number that is written as it would be printed.
fn number(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Redis' own function, statement by statement.
fn sdssplitargs(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let at = |index: usize| line.get(index).copied();
    let is_space = |byte: u8| byte == b' ' || (9..=13).contains(&byte);
    let mut words = Vec::new();
    let mut p = 0;
    loop {
        while at(p).is_some_and(is_space) {
            p += 1;
        }
        if at(p).is_none() {
            return Some(words);
        }
        let (mut inq, mut insq, mut done) = (false, false, false);
        let mut current = Vec::new();
        while !done {
            if inq {
                let hex = |index: usize| at(index).and_then(|byte| (byte as char).to_digit(16));
                match at(p) {
                    Some(b'\\')
                        if at(p + 1) == Some(b'x')
                            && let (Some(high), Some(low)) = (hex(p + 2), hex(p + 3)) =>
                    {
                        current.push((high * 16 + low) as u8);
                        p += 3;
                    }
                    Some(b'\\') if at(p + 1).is_some() => {
                        p += 1;
                        current.push(match line[p] {
                            b'n' => b'\n',
                            b'r' => b'\r',
                            b't' => b'\t',
                            b'b' => 8,
                            b'a' => 7,
                            byte => byte,
                        });
                    }
                    Some(b'"') => {
                        if at(p + 1).is_some_and(|byte| !is_space(byte)) {
                            return None;
                        }
                        done = true;
                    }
                    None => return None,
                    Some(byte) => current.push(byte),
                }
            } else if insq {
                match at(p) {
                    Some(b'\\') if at(p + 1) == Some(b'\'') => {
                        p += 1;
                        current.push(b'\'');
                    }
                    Some(b'\'') => {
                        if at(p + 1).is_some_and(|byte| !is_space(byte)) {
                            return None;
                        }
                        done = true;
                    }
                    None => return None,
                    Some(byte) => current.push(byte),
                }
            } else {
                match at(p) {
                    Some(b' ' | b'\n' | b'\r' | b'\t') | None => done = true,
                    Some(b'"') => inq = true,
                    Some(b'\'') => insq = true,
                    Some(byte) => current.push(byte),
                }
            }
            if at(p).is_some() {
                p += 1;
            }
        }
        words.push(current);
    }
}

/// A value of a reply or push.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Value {
    Line(char, String),
    Bulk(Vec<u8>),
    List(char, Vec<Value>),
}

/// Reads one value from the front, as a client would.
fn value(rest: &mut &[u8]) -> Value {
    let end = rest
        .windows(2)
        .position(|pair| pair == b"\r\n")
        .expect("a line");
    let (kind, line) = (
        char::from(rest[0]),
        String::from_utf8_lossy(&rest[1..end]).into_owned(),
    );
    *rest = &rest[end + 2..];
    match kind {
        '$' | '=' if line != "-1" => {
            let size: usize = line.parse().expect("a size");
            let bytes = rest[..size].to_vec();
            assert_eq!(&rest[size..size + 2], b"\r\n");
            *rest = &rest[size + 2..];
            Value::Bulk(bytes)
        }
        '*' | '>' | '%' => {
            let count: usize = line.parse().expect("a count");
            let count = if kind == '%' { 2 * count } else { count };
            Value::List(kind, (0..count).map(|_| value(rest)).collect())
        }
        _ => Value::Line(kind, line),
    }
}

fn values(mut bytes: &[u8]) -> Vec<Value> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        values.push(value(&mut bytes));
    }
    values
}

fn bulk(bytes: &[u8]) -> Value {
    Value::Bulk(bytes.to_vec())
}

/// A command as clients write it.
fn written(words: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    reply::write_array(words.len(), &mut out);
    words
        .iter()
        .for_each(|word| reply::write_bulk(word, &mut out));
    out
}

fn word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..20),
        vec(prop::sample::select(&b"\r\n$*0 \\'\"\0\xff"[..]), 0..20),
    ]
}

/// Names and options that are known, and words that are not.
fn request_word() -> impl Strategy<Value = Vec<u8>> {
    let known = "publish SPUBLISH subscribe PSubscribe ssubscribe unsubscribe punsubscribe sunsubscribe ping pubsub \
                 hello auth client info command config cluster echo time select quit reset exists get dbsize multi \
                 exec discard watch unwatch post host: channels shardchannels numsub shardnumsub numpat id getname \
                 setname setinfo lib-name lib-ver list type normal replica no-evict no-touch tracking on off reply \
                 skip help count docs filterby module set resetstat rewrite 0 2 3 15 16 -1 99999999999 default";
    let known: Vec<Vec<u8>> = known.split_whitespace().map(|word| word.into()).collect();
    prop_oneof![4 => prop::sample::select(known), 1 => word()]
}

/// Pieces of a connection's bytes: commands, lines, and what makes neither.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let numbers = [
        "",
        "0",
        "00",
        "01",
        "1",
        "2",
        "3",
        "11",
        "12",
        "13",
        "59",
        "60",
        "61",
        "-0",
        "-1",
        "+1",
        "1x",
        " 1",
        "000000000000000000001",
        "2147483647",
        "2147483648",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "18446744073709551617",
    ];
    let header = (
        prop::sample::select(&["*", "$", "$", "*1\r\n$"][..]),
        prop::sample::select(numbers.to_vec()),
        prop::sample::select(&["\r\n", "\r\n", "\r", "\n", "\rx", "\r\r"][..]),
    );
    let word = prop_oneof![9 => word(), 1 => vec(any::<u8>(), 50..70)];
    let command = vec(word, 1..14).prop_map(|words| written(&words));
    let telling = prop::sample::select(&b"\r\n$*01-+ \\'\"\0\xff"[..]);
    let edit = (
        any::<prop::sample::Index>(),
        any::<bool>(),
        prop::option::of(telling),
    );
    let mangled = (command.clone(), vec(edit, 1..4)).prop_map(|(mut command, edits)| {
        for (index, is_removed, inserted) in edits {
            let at = index.index(command.len() + 1);
            command.splice(
                at..command.len().min(at + usize::from(is_removed)),
                inserted,
            );
        }
        command
    });
    let piece = prop_oneof![
        3 => command,
        2 => mangled,
        2 => "[ a-cx4\\\\'\"\t\r\u{b}]{0,12}\r?\n".prop_map(String::into_bytes),
        1 => "a?\"(\\\\x[0-9aFg]{2}|\\\\.|[a' ]){0,4}\" ?b?\n".prop_map(String::into_bytes),
        2 => header.prop_map(|(kind, number, end)| [kind, number, end].concat().into_bytes()),
        1 => vec(any::<u8>(), 0..5),
    ];
    vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_does_not_depend_on_cuts(bytes in bytes(), cuts in vec(0..300_usize, 0..6)) {
        let expected = Plain::read(&bytes);
        prop_assert_eq!(&read(&bytes, &[]), &expected, "whole: {}", bytes.escape_ascii());
        prop_assert_eq!(&read(&bytes, &cuts), &expected, "cut at {:?}: {}", cuts, bytes.escape_ascii());
        let single: Vec<usize> = (0..bytes.len()).collect();
        prop_assert_eq!(&read(&bytes, &single), &expected, "byte by byte: {}", bytes.escape_ascii());
    }

    #[test]
    fn commands_come_back(commands in vec(vec(vec(any::<u8>(), 0..15), 1..=8), 0..5), cuts in vec(0..300_usize, 0..4)) {
        let bytes: Vec<u8> = commands.iter().flat_map(|words| written(words)).collect();
        let expected: Vec<Seen> = commands.into_iter().map(Seen::Command).collect();
        prop_assert_eq!(read(&bytes, &cuts), expected);
    }

    #[test]
    fn every_command_has_an_answer(words in vec(request_word(), 1..6)) {
        let arguments: Arguments<'_> = words.iter().map(Vec::as_slice).collect();
        let error = match decode(&arguments) {
            Err(Refusal::CrossProtocol) => {
                prop_assert!([&b"post"[..], b"host:"].contains(&&words[0].to_ascii_lowercase()[..]));
                return Ok(());
            }
            Err(Refusal::Error(error)) => error,
            Ok(request) => {
                let (name, _) = request.name().split_once('|').unwrap_or((request.name(), ""));
                prop_assert_eq!(name.as_bytes(), words[0].to_ascii_lowercase());
                match (request.check_subscribed(), request) {
                    (_, Request::Refused { error, .. }) => error,
                    (Err(error), _) => error,
                    (Ok(()), _) => return Ok(()),
                }
            }
        };
        let mut out = Vec::new();
        reply::write_error(&error, &mut out);
        prop_assert!(out.len() < 500);
        let read = values(&out);
        prop_assert!(matches!(&read[..], [Value::Line('-', _)]), "{:?}", read);
    }

    #[test]
    fn deliveries_are_read_back(
        channel in vec(any::<u8>(), 0..300),
        pattern in vec(any::<u8>(), 0..255),
        payload in vec(any::<u8>(), 0..2000),
        kind in prop::sample::select(vec![Kind::Channel, Kind::Pattern, Kind::Shard]),
        version in prop::sample::select(vec![Version::Two, Version::Three]),
    ) {
        let topic = Topic::channel(Bytes::from(channel.clone())).unwrap();
        let mut expected = vec![bulk(kind.message_word().as_bytes())];
        let filter = match kind {
            Kind::Channel => Filter::exact(Bytes::from(channel.clone())).unwrap(),
            Kind::Shard => Filter::shard(Bytes::from(channel.clone())).unwrap(),
            Kind::Pattern => {
                expected.push(bulk(&pattern));
                Filter::glob(Bytes::from(pattern)).unwrap()
            }
        };
        expected.extend([bulk(&channel), bulk(&payload)]);
        let message = message(&topic, payload);
        let mut out = Vec::new();
        encode_delivery(version, &message, &topic, &filter, &mut out);
        prop_assert_eq!(delivery_size(version, &message, &topic, &filter), out.len());
        let push = match version {
            Version::Two => '*',
            Version::Three => '>',
        };
        prop_assert_eq!(values(&out), [Value::List(push, expected)]);
    }

    #[test]
    fn replies_are_read_back(text in vec(any::<u8>(), 0..50), number: i64, names in vec(word(), 0..5)) {
        let mut out = Vec::new();
        reply::write_simple(&text, &mut out);
        reply::write_error(&text, &mut out);
        reply::write_integer(number, &mut out);
        reply::write_verbatim(Version::Three, &text, &mut out);
        reply::write_subscription(Version::Three, Kind::Shard, false, Some(&text), 12, &mut out);
        reply::write_counts(names.iter().map(|name| (&name[..], u64::MAX)), &mut out);
        let line: Vec<u8> = text.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }).collect();
        let line = String::from_utf8_lossy(&line).into_owned();
        let counts = names.iter().flat_map(|name| [bulk(name), Value::Line(':', u64::MAX.to_string())]).collect();
        prop_assert_eq!(values(&out), [
            Value::Line('+', line.clone()),
            Value::Line('-', line),
            Value::Line(':', number.to_string()),
            Value::Bulk([b"txt:", &text[..]].concat()),
            Value::List('>', vec![bulk(b"sunsubscribe"), bulk(&text), Value::Line(':', "12".to_owned())]),
            Value::List('*', counts),
        ]);
    }

    #[test]
    fn sections_of_info_are_parts_of_the_whole(names in vec(prop::sample::select(&["server", "CLIENTS", "Stats", "pubsub", "nope", ""][..]), 1..4)) {
        let text = |names: Names<'_>| {
            let mut out = Vec::new();
            info::write_info(&info::ServerFacts::default(), names, &mut out);
            String::from_utf8(out).unwrap()
        };
        let words: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        let part = text(&words);
        let all = text(&[]);
        for section in part.split("\r\n\r\n").filter(|section| !section.is_empty()) {
            prop_assert!(all.contains(section.trim_end()));
            let title = section.lines().next().unwrap().trim_start_matches("# ").to_ascii_lowercase();
            prop_assert!(names.iter().any(|name| name.to_ascii_lowercase() == title));
        }
    }
}

fn message(topic: &Topic, payload: Vec<u8>) -> Arc<Message> {
    Arc::new(Message {
        targets: Targets {
            topics: [topic.clone()].into_iter().collect(),
            ..Targets::default()
        },
        event: None,
        payload: Payload::untyped(Bytes::from(payload)),
        attachments: Vec::new(),
        origin: None,
        flags: Flags::default(),
        position: None,
        unix_ms: 0,
        envelope: None,
    })
}
