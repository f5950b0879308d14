//! RESP, over arbitrary splits. The input: one byte for the limits, one for the number of cuts, two bytes for each cut,
//! then the bytes of a connection.
//!
//! The oracle is the reader itself: bytes in one piece, cut, and one by one give the same. Each command is decoded, and
//! whatever can be said about it is one value of the protocol.

use bytes::Bytes;
use pubsub::error::CloseReason;
use pubsub::message::{Flags, Message, Payload, Targets};
use pubsub::protocol::resp::reader::{LINE_BYTES_MAX, Reader, ReaderLimits, Violation};
use pubsub::protocol::resp::request::Refusal;
use pubsub::protocol::resp::{
    Arguments, Kind, Request, Version, decode, delivery_size, encode_delivery, info, reply,
};
use pubsub::topic::{Filter, Topic};

use super::input::Input;

/// What a reader saw, owned.
#[derive(PartialEq, Eq, Debug)]
enum Seen {
    Command(Vec<Vec<u8>>),
    Violation(Violation),
}

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let (arguments_max, bulk_bytes_max, command_bytes_max) = [
        (100, 1000, 4000),
        (1, 0, 8),
        (10, 16_384, 163_920),
        (1000, 100_000, 200_000),
    ][input.below(4)];
    let limits = ReaderLimits {
        bulk_bytes_max,
        arguments_max,
        command_bytes_max,
        authenticated: arguments_max != 10,
    };
    let cuts: Vec<usize> = (0..input.below(16))
        .map(|_| usize::from(input.byte()) << 8 | usize::from(input.byte()))
        .collect();
    let bytes = input.rest();
    let whole = read(bytes, &[], limits);
    whole.iter().for_each(|seen| check(seen, limits));
    assert_eq!(read(bytes, &cuts, limits), whole, "cut at {cuts:?}");
    let single: Vec<usize> = (0..bytes.len().min(2000)).collect();
    assert_eq!(read(bytes, &single, limits), whole, "byte by byte");
}

/// Reads `bytes` in pieces that end at these positions, up to a violation.
fn read(bytes: &[u8], cuts: &[usize], limits: ReaderLimits) -> Vec<Seen> {
    let mut cuts: Vec<usize> = cuts.iter().map(|&cut| cut.min(bytes.len())).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let mut reader = Reader::default();
    let mut seen = Vec::new();
    for range in cuts.windows(2) {
        let mut rest = &bytes[range[0]..range[1]];
        loop {
            match reader.next(limits, rest) {
                Ok((taken, None)) => {
                    assert_eq!(taken, rest.len(), "what completes nothing is taken whole");
                    break;
                }
                Ok((taken, Some(arguments))) => {
                    let command = arguments.iter().map(<[u8]>::to_vec).collect();
                    seen.push(Seen::Command(command));
                    rest = &rest[taken..];
                }
                Err(violation) => {
                    seen.push(Seen::Violation(violation));
                    return seen;
                }
            }
        }
        assert!(reader.buffered_bytes() <= limits.command_bytes_max + LINE_BYTES_MAX);
    }
    seen
}

fn check(seen: &Seen, limits: ReaderLimits) {
    match seen {
        Seen::Command(words) => {
            assert!((1..=limits.arguments_max).contains(&words.len()));
            assert!(words.iter().all(|word| word.len() <= limits.bulk_bytes_max));
            let arguments: Arguments<'_> = words.iter().map(Vec::as_slice).collect();
            let owned = arguments.to_owned();
            assert!(owned.size() <= limits.command_bytes_max);
            assert!(owned.borrow().iter().eq(arguments.iter()));
            check_command(&arguments);
        }
        Seen::Violation(violation) => {
            assert!(matches!(
                violation.reason,
                CloseReason::ProtocolError | CloseReason::TooBig
            ));
            check_value(|out| violation.write_reply(out));
        }
    }
}

fn check_command(arguments: &Arguments<'_>) {
    let check_error = |error: &[u8]| check_value(|out| reply::write_error(error, out));
    let request = match decode(arguments) {
        Ok(request) => request,
        Err(Refusal::Error(error)) => return check_error(&error),
        Err(Refusal::CrossProtocol) => return,
    };
    if let Err(error) = request.check_subscribed() {
        check_error(&error);
    }
    for version in [Version::Two, Version::Three] {
        match &request {
            Request::Refused { error, .. } => check_error(error),
            Request::Ping(message) => {
                check_value(|out| reply::write_pong(version, true, *message, out));
                check_value(|out| reply::write_pong(version, false, *message, out));
            }
            Request::Subscribe { kind, names } | Request::Unsubscribe { kind, names } => {
                for name in names.iter().copied().map(Some).chain([None]) {
                    check_value(|out| {
                        reply::write_subscription(version, *kind, name.is_some(), name, 1, out);
                    });
                }
            }
            Request::Info(sections) => {
                let mut text = Vec::new();
                info::write_info(&info::ServerFacts::default(), sections, &mut text);
                check_value(|out| reply::write_verbatim(version, &text, out));
            }
            Request::Help { lines, .. } => check_value(|out| reply::write_lines(lines, out)),
            Request::Publish {
                channel, payload, ..
            } => {
                for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
                    check_delivery(version, kind, channel, payload);
                }
            }
            _ => {}
        }
    }
}

fn check_delivery(version: Version, kind: Kind, channel: &[u8], payload: &[u8]) {
    let name = Bytes::copy_from_slice(channel);
    let filter = match kind {
        Kind::Channel => Filter::exact(name.clone()),
        Kind::Shard => Filter::shard(name.clone()),
        Kind::Pattern => Filter::glob(name.clone()),
    };
    let (Ok(topic), Ok(filter)) = (Topic::channel(name), filter) else {
        return;
    };
    let message = Message {
        targets: Targets {
            topics: [topic.clone()].into_iter().collect(),
            ..Targets::default()
        },
        event: None,
        payload: Payload::binary(Bytes::copy_from_slice(payload)),
        attachments: Vec::new(),
        origin: None,
        flags: Flags::default(),
        position: None,
        unix_ms: 0,
        envelope: None,
    };
    check_value(|out| {
        encode_delivery(version, &message, &topic, &filter, out);
        let size = delivery_size(version, &message, &topic, &filter);
        assert_eq!(size, out.len());
    });
}

/// Is what is written one value, and nothing more?
fn check_value(write: impl Fn(&mut Vec<u8>)) {
    let mut out = Vec::new();
    write(&mut out);
    let mut rest = &out[..];
    // Values that are still to come; a list brings more.
    let mut count = 1;
    while count > 0 {
        count -= 1;
        let end = rest
            .windows(2)
            .position(|pair| pair == b"\r\n")
            .expect("a line");
        let (header, after) = rest.split_at(end);
        rest = &after[2..];
        let number = || -> usize {
            let digits = std::str::from_utf8(&header[1..]).expect("digits");
            digits.parse().expect("a number")
        };
        match header[0] {
            b'+' | b'-' | b':' | b'_' => assert!(!header.contains(&b'\n')),
            b'$' if header == b"$-1" => {}
            b'$' | b'=' => {
                assert_eq!(&rest[number()..][..2], b"\r\n");
                rest = &rest[number() + 2..];
            }
            b'*' | b'>' => count += number(),
            b'%' => count += 2 * number(),
            other => panic!("{other} begins no value"),
        }
    }
    assert!(rest.is_empty());
}
