//! The peer protocol, over arbitrary splits. The input: one byte for the longest frame, one for the number of cuts, two
//! bytes for each cut, then the bytes of a connection.
//!
//! Bytes in one piece, cut, and one by one give the same frames. A frame that is a call, written again from the command
//! that it was taken for, is that command; what a publish would deliver is the same message for whoever reads it. Each
//! frame is also read as if the broker had sent it.

use bytes::Bytes;
use pubsub::address::Sender;
use pubsub::message::{Kind, Payload};
use pubsub::protocol::peer::call::Bad;
use pubsub::protocol::peer::event::{Told, headers};
use pubsub::protocol::peer::reader::Reader;
use pubsub::protocol::peer::{
    decode, delivery_size, encode, encode_delivery, read_event, tag_ticket,
};
use pubsub::protocol::{Action, Command, Event};
use pubsub::topic::Filter;

use super::calls::write_command;
use super::input::Input;

const NOW: u64 = 1_518_741_097_123;

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let frame_bytes_max = [1000, 1, 20_000, 100][input.below(4)];
    let cuts: Vec<usize> = (0..input.below(16))
        .map(|_| usize::from(input.byte()) << 8 | usize::from(input.byte()))
        .collect();
    let bytes = input.rest();
    let (frames, is_error) = read(bytes, &[], frame_bytes_max);
    for frame in &frames {
        check_call(frame);
        check_event(frame);
    }
    let whole = (frames, is_error);
    assert_eq!(
        read(bytes, &cuts, frame_bytes_max),
        whole,
        "cut at {cuts:?}"
    );
    let single: Vec<usize> = (0..bytes.len().min(2000)).collect();
    assert_eq!(read(bytes, &single, frame_bytes_max), whole, "byte by byte");
}

/// The frames of `bytes` in pieces that end at these positions; did an error end it?
fn read(bytes: &[u8], cuts: &[usize], frame_bytes_max: usize) -> (Vec<Vec<u8>>, bool) {
    let mut cuts: Vec<usize> = cuts.iter().map(|&cut| cut.min(bytes.len())).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let mut reader = Reader::default();
    let mut frames = Vec::new();
    for range in cuts.windows(2) {
        let mut rest = &bytes[range[0]..range[1]];
        while !rest.is_empty() {
            let Ok((taken, frame)) = reader.next(frame_bytes_max, rest) else {
                return (frames, true);
            };
            assert!(frame.is_some() || taken == rest.len());
            assert!(frame.is_none_or(|frame| (1..=frame_bytes_max).contains(&frame.len())));
            frames.extend(frame.map(<[u8]>::to_vec));
            rest = &rest[taken..];
            assert!(reader.buffered_bytes() <= frame_bytes_max + 4);
        }
        reader.release();
    }
    (frames, false)
}

fn check_call(frame: &[u8]) {
    let command = match decode(frame, NOW) {
        Ok(command) => command,
        Err(Bad::Malformed(sentence)) => return assert!(!sentence.is_empty()),
        Err(Bad::Refused(refusal)) => {
            let told = told(&Event::Refused(&refusal));
            assert_eq!(told.is_empty(), tag_ticket(refusal.tag.as_ref()) == 0);
            return;
        }
    };
    let mut again = Vec::new();
    write_command(&command, &mut again);
    assert_eq!(decode(&again[4..], NOW).as_ref(), Ok(&command));
    if let Command::Publish { message, tag } = &command {
        let topic = &message.targets.topics[0];
        let filter = Filter::exact(topic.as_bytes().clone()).expect("every topic is a channel");
        let mut out = Vec::new();
        encode_delivery(message, topic, &filter, &mut out);
        assert_eq!(out.len(), delivery_size(message, topic, &filter));
        let Ok(Told::Message {
            topic: name,
            payload,
            ..
        }) = read_event(&out[4..])
        else {
            panic!("a delivery")
        };
        assert_eq!(name, topic.as_bytes());
        assert_eq!(payload.kind, message.payload.kind());
        assert_eq!(payload.bytes, message.payload.bytes());
        let ack = Event::Ack {
            action: Action::Publish,
            name,
            tag: tag.as_ref(),
        };
        assert_eq!(told(&ack).is_empty(), tag.is_none());
    }
}

/// The frame of an event, which is one.
fn told(event: &Event<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(event, &mut out);
    if !out.is_empty() {
        assert_eq!(out[..4], (out.len() as u32 - 4).to_le_bytes());
        assert!(read_event(&out[4..]).is_ok());
    }
    out
}

fn check_event(frame: &[u8]) {
    match read_event(frame) {
        Ok(Told::Connect(arrived) | Told::Admit(arrived)) => {
            let count = u16::from_le_bytes([arrived.headers[0], arrived.headers[1]]);
            assert_eq!(headers(arrived.headers).count(), usize::from(count));
        }
        Ok(Told::Request {
            number,
            timeout_ms,
            client,
            peer,
            event,
            payload,
        }) => {
            let from = Sender {
                client,
                peer: (!peer.is_empty()).then(|| Bytes::copy_from_slice(peer)),
            };
            let bytes = Bytes::copy_from_slice(payload.bytes);
            // Said again it is the same, whatever the payload claims to be.
            let data = match payload.kind {
                Kind::Json => Payload::json(bytes),
                Kind::Text => Payload::text(bytes),
                Kind::Binary => Payload::binary(bytes),
            };
            let again = told(&Event::Request {
                event,
                data: &data,
                number,
                from: &from,
                timeout_ms: u64::from(timeout_ms),
            });
            assert_eq!(again[4..], *frame);
        }
        Ok(_) | Err(_) => {}
    }
    // What is no list ends where it breaks.
    assert!(headers(frame).count() <= frame.len());
}
