//! Every frame, byte by byte: what `docs/protocols/peer.md` says, and what somebody in another language will write.
//!
//! A transcript is a frame without its size: bytes in hexadecimal, text between quotes, `61*255` for a byte that many
//! times, `T` for the ticket and `ID` for the client of all examples.

use bytes::Bytes;

use super::{CallType, EventType, decode, read_event};
use crate::address::{ClientId, SessionId, ShardId};

mod calls;
mod events;

const NOW: u64 = 1_518_741_097_123;

/// `T`
const TICKET: u64 = 0x0102_0304_0506_0708;

/// `ID`
const CLIENT: ClientId = ClientId {
    broker: 0x0102_0304_0506,
    shard: ShardId(7),
    session: SessionId {
        slot: 0x0809_0a0b,
        generation: 0x0c0d_0e0f,
    },
};

/// The frame of a transcript.
fn bytes(transcript: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, part) in transcript.split('\'').enumerate() {
        if index % 2 == 1 {
            bytes.extend_from_slice(part.as_bytes());
            continue;
        }
        for word in part.split_whitespace() {
            let (digits, count) = match word.split_once('*') {
                Some((digits, count)) => (digits, count.parse().unwrap()),
                None => (word, 1),
            };
            let digits = match digits {
                "T" => "0807060504030201",
                "ID" => "0102030405060708090a0b0c0d0e0f",
                digits => digits,
            };
            assert_eq!(digits.len() % 2, 0, "{transcript}");
            for _ in 0..count {
                let bytes_of_word = (0..digits.len()).step_by(2);
                bytes.extend(
                    bytes_of_word.map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()),
                );
            }
        }
    }
    bytes
}

/// With its size.
fn framed(content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(content.len()).unwrap();
    [&size.to_le_bytes()[..], content].concat()
}

/// For people.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// The page for those who write a client.
const PAGE: &str = include_str!("../../../../docs/protocols/peer.md");

#[test]
fn the_transcript_of_the_page_is_one() {
    let (_, transcript) = PAGE.split_once("## A transcript").unwrap();
    let lines = transcript.split("```").nth(1).unwrap().trim().lines();
    let mut said = 0;
    for line in lines {
        let (direction, frame) = line.split_once(' ').unwrap();
        let frame = bytes(frame);
        let (size, content) = frame.split_first_chunk().unwrap();
        assert_eq!(u32::from_le_bytes(*size) as usize, content.len(), "{line}");
        match direction {
            ">" => assert!(decode(content, NOW).is_ok(), "{line}"),
            "<" => assert!(read_event(content).is_ok(), "{line}"),
            _ => panic!("{line}"),
        }
        said += 1;
    }
    assert!(said > 10);
}

#[test]
fn the_page_lists_every_frame() {
    let upper = |name: String| {
        let mut words = String::new();
        for char in name.chars() {
            if char.is_uppercase() && !words.is_empty() {
                words.push('_');
            }
            words.extend(char.to_uppercase());
        }
        words
    };
    let calls = CallType::ALL
        .iter()
        .map(|call| (*call as u8, format!("{call:?}")));
    let events = EventType::ALL
        .iter()
        .map(|event| (*event as u8, format!("{event:?}")));
    for (number, name) in calls.chain(events) {
        let row = format!("| {number:02x} | {} |", upper(name));
        assert!(PAGE.contains(&row), "{row}");
    }
}
