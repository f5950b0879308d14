//! Frames into messages, over arbitrary splits. The input: one byte for the message limit, one for the number of
//! cuts, two bytes for each cut, then the bytes of a connection after its 101.
//!
//! The oracle is the reader itself: bytes in one piece, cut, and one by one give the same.

use pubsub::ws::close;
use pubsub::ws::fragment::{Incoming, Reader, ReaderLimits, Violation};
use pubsub::ws::frame::CONTROL_PAYLOAD_BYTES_MAX;

use super::input::Input;

/// What a reader saw, owned.
#[derive(PartialEq, Eq, Debug)]
enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, Vec<u8>),
    Violation(Violation),
}

impl From<Incoming<'_>> for Seen {
    fn from(incoming: Incoming<'_>) -> Seen {
        match incoming {
            Incoming::Text(payload) => Seen::Text(payload.into()),
            Incoming::Binary(payload) => Seen::Binary(payload.into()),
            Incoming::Ping(payload) => Seen::Ping(payload.into()),
            Incoming::Pong(payload) => Seen::Pong(payload.into()),
            Incoming::Close(code, text) => Seen::Close(code, text.into()),
        }
    }
}

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let message_bytes_max = [4096, 0, 1, 125, 126, 1000, 65_536][input.below(7)];
    let limits = ReaderLimits { message_bytes_max };
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

fn check(seen: &Seen, limits: ReaderLimits) {
    match seen {
        Seen::Text(payload) => {
            assert!(payload.len() <= limits.message_bytes_max);
            assert!(std::str::from_utf8(payload).is_ok());
        }
        Seen::Binary(payload) => assert!(payload.len() <= limits.message_bytes_max),
        Seen::Ping(payload) | Seen::Pong(payload) => {
            assert!(payload.len() <= CONTROL_PAYLOAD_BYTES_MAX);
        }
        Seen::Close(code, text) => {
            assert!(code.is_none_or(close::is_valid_code));
            assert!(text.len() <= close::TEXT_BYTES_MAX && std::str::from_utf8(text).is_ok());
        }
        Seen::Violation(violation) => {
            let code = violation.reason.code();
            assert!(matches!(code, Some(1002 | 1007 | 1009)), "{violation:?}");
        }
    }
}

/// Reads `bytes` in pieces that end at these positions, up to a close or a violation.
fn read(bytes: &[u8], cuts: &[usize], limits: ReaderLimits) -> Vec<Seen> {
    let mut cuts: Vec<usize> = cuts.iter().map(|&cut| cut.min(bytes.len())).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let mut reader = Reader::default();
    let mut seen = Vec::new();
    for range in cuts.windows(2) {
        let mut piece = bytes[range[0]..range[1]].to_vec();
        let mut rest = &mut piece[..];
        loop {
            let size = rest.len();
            match reader.next(limits, rest) {
                Ok((taken, None)) => {
                    assert_eq!(taken, size, "what completes nothing is taken whole");
                    break;
                }
                Ok((taken, Some(incoming))) => {
                    seen.push(Seen::from(incoming));
                    rest = &mut rest[taken..];
                    if let Some(Seen::Close(..)) = seen.last() {
                        return seen;
                    }
                }
                Err(violation) => {
                    seen.push(Seen::Violation(violation));
                    return seen;
                }
            }
        }
        assert!(reader.buffered_bytes() <= limits.message_bytes_max + CONTROL_PAYLOAD_BYTES_MAX);
    }
    seen
}
