//! The reader of one connection: from bytes, cut anywhere, to whole messages (RFC 6455, 5.4 to 5.6).
//!
//! The plain version: append all that comes to a buffer, take complete frames from its front, join fragments,
//! check the text. Departures, and what each buys:
//! - A frame that is complete in the input and is a whole message is unmasked there and lent out as a slice of
//!   the input. That is nearly every frame, and it costs no copy and no memory.
//! - What is incomplete moves, unmasked, straight to its place: data to the one buffer in which the message is
//!   joined, so that the number of fragments costs nothing; a control frame to 125 bytes beside it. The memory
//!   exists from the first incomplete byte to the end of the message, so an idle connection holds a null pointer.
//! - Text is checked as it arrives, up to the last complete character. Hence invalid text fails at the byte that
//!   makes it so, and no byte is looked at twice (but for three at the seam).
//!
//! It knows neither what a message says nor what time it is. Invariants: the result does not depend on how the
//! bytes are cut; `buffered_bytes <= message_bytes_max + 125`; memory follows the bytes that came, never the size
//! that a header declares, because a message that would exceed the limit is refused by the header that says so.

use std::ops::Range;

use super::close;
use super::frame::{self, CLIENT_HEADER_BYTES_MAX, CONTROL_PAYLOAD_BYTES_MAX, Opcode};
use super::mask;
use crate::error::CloseReason;

/// What came.
#[derive(PartialEq, Eq, Debug)]
pub enum Incoming<'a> {
    /// A whole text message, valid UTF-8.
    Text(&'a [u8]),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// To be answered by a pong with the same payload.
    Ping(&'a [u8]),
    /// The answer to a ping, or a sign of life.
    Pong(&'a [u8]),
    /// Code and reason text as received, both checked. What comes after it is not to be read.
    Close(Option<u16>, &'a [u8]),
}

/// Limits of a reader.
#[derive(Clone, Copy, Debug)]
pub struct ReaderLimits {
    /// The largest message, its fragments together.
    pub message_bytes_max: usize,
}

/// Bytes against the RFC: the connection ends with this code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Violation {
    /// ProtocolError 1002, BadPayload 1007, TooBig 1009
    pub reason: CloseReason,
    /// What was wrong, for the log.
    pub detail: &'static str,
}

/// Reads the frames of one client. Idle and between messages it holds no heap memory.
#[derive(Debug, Default)]
pub struct Reader {
    pending: Option<Box<Pending>>,
}

/// What a reader holds while something is incomplete.
#[derive(Debug)]
struct Pending {
    /// The bytes of an incomplete header.
    header: [u8; CLIENT_HEADER_BYTES_MAX],
    header_size: usize,
    /// The frame whose header is complete and whose payload is not.
    frame: Option<Frame>,
    /// The opcode, text or binary, of the data message that has begun.
    message: Option<Opcode>,
    /// The payload of that message so far, unmasked.
    joined: Vec<u8>,
    /// How much of `joined` is known to be valid UTF-8, if it is text. The rest, at most 3 bytes, may become so.
    checked: usize,
    /// The payload of an incomplete control frame. It may come while a message is being joined.
    control: [u8; CONTROL_PAYLOAD_BYTES_MAX],
}

/// A frame whose header is complete. `taken <= payload_size`.
#[derive(Clone, Copy, Debug)]
struct Frame {
    fin: bool,
    opcode: Opcode,
    mask: [u8; 4],
    payload_size: usize,
    taken: usize,
}

/// Where the payload of something complete lies. It is a borrow in two steps, because the borrow checker does not
/// let a loop lend out what it also goes on with.
enum Found {
    Input(Opcode, Range<usize>),
    Control(Opcode, usize),
    Joined(Opcode),
}

impl Reader {
    /// Takes from the front of `input` (unmasking in place) and says how many bytes it took and what they
    /// completed. `(n, None)`: all n = input.len() bytes were taken, more is needed. `(n, Some(..))`: call again
    /// with the rest, be it empty: the memory of a joined message is freed by the call that follows it.
    ///
    /// # Errors
    ///
    /// A [`Violation`] ends the connection; the reader is not to be used again.
    pub fn next<'a>(
        &'a mut self,
        limits: ReaderLimits,
        input: &'a mut [u8],
    ) -> Result<(usize, Option<Incoming<'a>>), Violation> {
        if self
            .pending
            .as_ref()
            .is_some_and(|pending| pending.is_delivered())
        {
            self.pending = None;
        }
        let (taken, found) = self.advance(limits, input)?;
        let pending = self.pending.as_deref();
        let (opcode, payload) = match found {
            None => return Ok((taken, None)),
            Some(Found::Input(opcode, range)) => (opcode, &input[range]),
            Some(Found::Control(opcode, size)) => (
                opcode,
                pending.map_or(&[][..], |pending| &pending.control[..size]),
            ),
            Some(Found::Joined(opcode)) => {
                (opcode, pending.map_or(&[][..], |pending| &pending.joined))
            }
        };
        Ok((taken, Some(incoming(opcode, payload)?)))
    }

    /// Has a data message begun (first byte of its first frame seen) that is not complete?
    pub fn is_in_message(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| {
            // Bit 3 of the first byte is that of the control opcodes.
            pending.message.is_some() || (pending.header_size > 0 && pending.header[0] & 0x08 == 0)
        })
    }

    /// Bytes held for an incomplete frame or message.
    pub fn buffered_bytes(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| {
            let joined = if pending.message.is_some() {
                pending.joined.len()
            } else {
                0
            };
            let control = match pending.frame {
                Some(frame) if frame.opcode.is_control() => frame.taken,
                _ => 0,
            };
            pending.header_size + joined + control
        })
    }

    /// Goes through the input up to the end of the first complete message or control frame.
    fn advance(
        &mut self,
        limits: ReaderLimits,
        input: &mut [u8],
    ) -> Result<(usize, Option<Found>), Violation> {
        let mut position = 0;
        loop {
            let begun = self
                .pending
                .as_mut()
                .and_then(|pending| pending.frame.take());
            let is_begun = begun.is_some();
            let mut frame = match begun {
                Some(frame) => frame,
                None => match self.read_header(limits, &input[position..])? {
                    Some((frame, size)) => {
                        position += size;
                        frame
                    }
                    None => return Ok((input.len(), None)),
                },
            };

            let rest = &mut input[position..];
            let arrived = rest.len().min(frame.payload_size - frame.taken);
            let payload = &mut rest[..arrived];
            mask::unmask(payload, frame.mask, frame.taken);
            frame.taken += arrived;
            position += arrived;
            let is_complete = frame.taken == frame.payload_size;

            let is_message = frame.fin && frame.opcode != Opcode::Continuation;
            if is_message && is_complete && !is_begun {
                if frame.opcode == Opcode::Text && simdutf8::basic::from_utf8(payload).is_err() {
                    return Err(NOT_UTF8);
                }
                return Ok((
                    position,
                    Some(Found::Input(frame.opcode, position - arrived..position)),
                ));
            }

            let pending = self.pending.get_or_insert_default();
            if frame.opcode.is_control() {
                pending.control[frame.taken - arrived..frame.taken].copy_from_slice(payload);
                if is_complete {
                    return Ok((position, Some(Found::Control(frame.opcode, frame.taken))));
                }
            } else {
                pending.join(frame, payload, limits)?;
                if is_complete && frame.fin {
                    return Ok((position, Some(Found::Joined(pending.end_message()?))));
                }
            }
            if !is_complete {
                pending.frame = Some(frame);
                return Ok((position, None));
            }
        }
    }

    /// The header at the front of `bytes`, the kept beginning before it, and how many of `bytes` it took. `None`:
    /// all of them were kept.
    fn read_header(
        &mut self,
        limits: ReaderLimits,
        bytes: &[u8],
    ) -> Result<Option<(Frame, usize)>, Violation> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let kept_size = self
            .pending
            .as_ref()
            .map_or(0, |pending| pending.header_size);
        if kept_size == 0
            && let Some(found) = self.check_header(limits, bytes)?
        {
            return Ok(Some(found));
        }
        let pending = self.pending.get_or_insert_default();
        let size = CLIENT_HEADER_BYTES_MAX.min(kept_size + bytes.len());
        pending.header[kept_size..size].copy_from_slice(&bytes[..size - kept_size]);
        pending.header_size = size;
        if kept_size == 0 {
            return Ok(None);
        }
        let header = pending.header;
        let Some((frame, header_size)) = self.check_header(limits, &header[..size])? else {
            return Ok(None);
        };
        if let Some(pending) = &mut self.pending {
            pending.header_size = 0;
        }
        Ok(Some((frame, header_size - kept_size)))
    }

    /// Decodes a header and decides whether its frame may come now and fits.
    fn check_header(
        &self,
        limits: ReaderLimits,
        bytes: &[u8],
    ) -> Result<Option<(Frame, usize)>, Violation> {
        let Some(header) = frame::decode_header(bytes)? else {
            return Ok(None);
        };
        let (is_in_message, joined_size) = match &self.pending {
            Some(pending) if pending.message.is_some() => (true, pending.joined.len()),
            _ => (false, 0),
        };
        match header.opcode {
            Opcode::Continuation if !is_in_message => {
                return Err(broken("continuation without a message"));
            }
            Opcode::Text | Opcode::Binary if is_in_message => {
                return Err(broken("new message inside a message"));
            }
            Opcode::Close if header.payload_size == 1 => {
                return Err(broken("close frame with half a code"));
            }
            _ => {}
        }
        let payload_bytes_max = if header.opcode.is_control() {
            CONTROL_PAYLOAD_BYTES_MAX
        } else {
            limits.message_bytes_max.saturating_sub(joined_size)
        };
        let Some(payload_size) = usize::try_from(header.payload_size)
            .ok()
            .filter(|&size| size <= payload_bytes_max)
        else {
            let detail = "message above the size limit";
            return Err(Violation {
                reason: CloseReason::TooBig,
                detail,
            });
        };
        let Some(&mask) = bytes[header.mask_offset..].first_chunk() else {
            return Ok(None);
        };
        let frame = Frame {
            fin: header.fin,
            opcode: header.opcode,
            mask,
            payload_size,
            taken: 0,
        };
        Ok(Some((frame, header.mask_offset + mask.len())))
    }
}

impl Pending {
    /// Is nothing incomplete any more?
    fn is_delivered(&self) -> bool {
        self.header_size == 0 && self.frame.is_none() && self.message.is_none()
    }

    /// Appends the bytes that came last of a data frame, `frame.taken` included them already.
    fn join(
        &mut self,
        frame: Frame,
        payload: &[u8],
        limits: ReaderLimits,
    ) -> Result<(), Violation> {
        if self.message.is_none() {
            self.message = Some(frame.opcode);
            self.joined.clear();
            self.checked = 0;
        }

        let size = self.joined.len() + payload.len();
        if size > self.joined.capacity() {
            // Doubled, so that bytes are moved a constant number of times; but never past what the message can
            // still become, so that a full one does not hold twice its limit.
            let size_max = if frame.fin {
                size + (frame.payload_size - frame.taken)
            } else {
                limits.message_bytes_max
            };
            let capacity = (2 * self.joined.capacity()).min(size_max).max(size);
            self.joined.reserve_exact(capacity - self.joined.len());
        }
        self.joined.extend_from_slice(payload);

        if self.message == Some(Opcode::Text) {
            match simdutf8::compat::from_utf8(&self.joined[self.checked..]) {
                Ok(_) => self.checked = self.joined.len(),
                // A character that the end cut off may yet be completed.
                Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
                Err(_) => return Err(NOT_UTF8),
            }
        }
        Ok(())
    }

    /// Ends the message; its payload stays in `joined` until the next call.
    fn end_message(&mut self) -> Result<Opcode, Violation> {
        let opcode = self
            .message
            .take()
            .expect("a data frame is joined to a message that has begun");
        if opcode == Opcode::Text && self.checked < self.joined.len() {
            return Err(NOT_UTF8);
        }
        Ok(opcode)
    }
}

impl Default for Pending {
    fn default() -> Pending {
        Pending {
            header: [0; CLIENT_HEADER_BYTES_MAX],
            header_size: 0,
            frame: None,
            message: None,
            joined: Vec::new(),
            checked: 0,
            control: [0; CONTROL_PAYLOAD_BYTES_MAX],
        }
    }
}

/// Text is checked by now; a close frame is checked here.
fn incoming(opcode: Opcode, payload: &[u8]) -> Result<Incoming<'_>, Violation> {
    Ok(match opcode {
        Opcode::Text => Incoming::Text(payload),
        Opcode::Binary => Incoming::Binary(payload),
        Opcode::Ping => Incoming::Ping(payload),
        Opcode::Pong => Incoming::Pong(payload),
        Opcode::Close => {
            let Some((code, text)) = payload.split_first_chunk() else {
                return Ok(Incoming::Close(None, &[]));
            };
            let code = u16::from_be_bytes(*code);
            if !close::is_valid_code(code) {
                return Err(broken("close code that may not be sent"));
            }
            if std::str::from_utf8(text).is_err() {
                return Err(NOT_UTF8);
            }
            Incoming::Close(Some(code), text)
        }
        Opcode::Continuation => unreachable!("a message has the opcode of its first frame"),
    })
}

const NOT_UTF8: Violation = Violation {
    reason: CloseReason::BadPayload,
    detail: "text that is not UTF-8",
};

fn broken(detail: &'static str) -> Violation {
    Violation {
        reason: CloseReason::ProtocolError,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ReaderLimits = ReaderLimits {
        message_bytes_max: 1000,
    };
    const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

    /// A masked frame with this first byte.
    fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::encode_header(Opcode::Text, payload.len(), &mut bytes);
        bytes[0] = first;
        bytes[1] |= 0x80;
        bytes.extend_from_slice(&KEY);
        bytes.extend(
            payload
                .iter()
                .zip(KEY.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
        bytes
    }

    fn joined(frames: &[(u8, &[u8])]) -> Vec<u8> {
        frames
            .iter()
            .flat_map(|&(first, payload)| client_frame(first, payload))
            .collect()
    }

    #[derive(Clone, PartialEq, Eq, Debug)]
    enum Seen {
        Text(Vec<u8>),
        Binary(Vec<u8>),
        Ping(Vec<u8>),
        Pong(Vec<u8>),
        Close(Option<u16>, Vec<u8>),
        Violation(u16),
    }

    fn text(text: &str) -> Seen {
        Seen::Text(text.into())
    }

    /// What a reader sees of these pieces, up to a close or a violation.
    fn read(limits: ReaderLimits, pieces: &[&[u8]]) -> Vec<Seen> {
        let mut reader = Reader::default();
        let mut seen = Vec::new();
        for piece in pieces {
            let mut piece = piece.to_vec();
            let mut rest = &mut piece[..];
            loop {
                let size = rest.len();
                match reader.next(limits, rest) {
                    Ok((taken, None)) => {
                        assert_eq!(taken, size, "all taken when more is needed");
                        break;
                    }
                    Ok((taken, Some(incoming))) => {
                        seen.push(match incoming {
                            Incoming::Text(payload) => Seen::Text(payload.into()),
                            Incoming::Binary(payload) => Seen::Binary(payload.into()),
                            Incoming::Ping(payload) => Seen::Ping(payload.into()),
                            Incoming::Pong(payload) => Seen::Pong(payload.into()),
                            Incoming::Close(code, text) => Seen::Close(code, text.into()),
                        });
                        if let Some(Seen::Close(..)) = seen.last() {
                            return seen;
                        }
                        rest = &mut rest[taken..];
                    }
                    Err(violation) => {
                        seen.push(Seen::Violation(violation.reason.code().expect("a code")));
                        return seen;
                    }
                }
            }
            assert!(reader.buffered_bytes() <= limits.message_bytes_max + 125);
        }
        seen
    }

    /// Whole, cut at every position, and byte by byte.
    #[track_caller]
    fn check(bytes: &[u8], expected: &[Seen]) {
        assert_eq!(read(LIMITS, &[bytes]), expected, "whole");
        for cut in 0..=bytes.len() {
            let (left, right) = bytes.split_at(cut);
            assert_eq!(read(LIMITS, &[left, right]), expected, "cut at {cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(LIMITS, &single), expected, "byte by byte");
    }

    #[test]
    fn messages() {
        check(&[], &[]);
        check(&client_frame(0x81, b"Hello"), &[text("Hello")]);
        check(&client_frame(0x81, b""), &[text("")]);
        check(
            &client_frame(0x82, b"\xFF\x00"),
            &[Seen::Binary(b"\xFF\x00".into())],
        );
        check(&client_frame(0x89, b"p"), &[Seen::Ping(b"p".into())]);
        check(&client_frame(0x8A, b""), &[Seen::Pong(vec![])]);
        check(&client_frame(0x89, &[7; 125]), &[Seen::Ping(vec![7; 125])]);
        for size in [124, 125, 126, 127, 128, 999, 1000] {
            let payload = "x".repeat(size);
            check(&client_frame(0x81, payload.as_bytes()), &[text(&payload)]);
        }
        let several = [
            (0x81, &b"one"[..]),
            (0x82, b"two"),
            (0x89, b""),
            (0x81, b"three"),
        ];
        let expected = [
            text("one"),
            Seen::Binary(b"two".into()),
            Seen::Ping(vec![]),
            text("three"),
        ];
        check(&joined(&several), &expected);
    }

    #[test]
    fn sizes_around_the_long_header() {
        let limits = ReaderLimits {
            message_bytes_max: 70_000,
        };
        for size in [65_535, 65_536, 70_000] {
            let payload = vec![b'x'; size];
            let bytes = client_frame(0x81, &payload);
            for cut in [1, 2, 3, 9, 10, 13, 14, 15, 1000, 65_536, bytes.len() - 1] {
                let (left, right) = bytes.split_at(cut);
                assert_eq!(read(limits, &[left, right]), [Seen::Text(payload.clone())]);
            }
        }
    }

    #[test]
    fn fragments() {
        check(&joined(&[(0x01, b"Hel"), (0x80, b"lo")]), &[text("Hello")]);
        check(
            &joined(&[(0x01, b""), (0x00, b""), (0x80, b"")]),
            &[text("")],
        );
        check(
            &joined(&[(0x02, b"\xFF"), (0x80, b"")]),
            &[Seen::Binary(b"\xFF".into())],
        );
        check(
            &joined(&[
                (0x01, b"a"),
                (0x89, b"?"),
                (0x00, b"b"),
                (0x8A, b"!"),
                (0x80, b"c"),
            ]),
            &[
                Seen::Ping(b"?".into()),
                Seen::Pong(b"!".into()),
                text("abc"),
            ],
        );
        check(
            &joined(&[
                (0x01, b"a"),
                (0x80, b"b"),
                (0x02, b"c"),
                (0x80, b"d"),
                (0x81, b"e"),
            ]),
            &[text("ab"), Seen::Binary(b"cd".into()), text("e")],
        );
        // Characters split between fragments, with a ping inside.
        check(
            &joined(&[
                (0x01, b"\xE2"),
                (0x00, b"\x82"),
                (0x89, b""),
                (0x80, b"\xAC"),
            ]),
            &[Seen::Ping(vec![]), text("€")],
        );
        check(
            &joined(&[(0x01, b"\xF0\x9F"), (0x00, b""), (0x80, b"\x98\x80")]),
            &[text("😀")],
        );
        check(
            &joined(&[(0x01, b"a"), (0x88, b"\x03\xE8")]),
            &[Seen::Close(Some(1000), vec![])],
        );
    }

    #[test]
    fn closes() {
        check(&client_frame(0x88, b""), &[Seen::Close(None, vec![])]);
        check(
            &client_frame(0x88, b"\x0B\xB8a"),
            &[Seen::Close(Some(3000), b"a".into())],
        );
        let longest = [b"\x03\xE8".to_vec(), vec![b'r'; 123]].concat();
        check(
            &client_frame(0x88, &longest),
            &[Seen::Close(Some(1000), vec![b'r'; 123])],
        );
        let valid = [
            1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014,
        ];
        for code in valid.into_iter().chain([3000, 3999, 4000, 4999]) {
            let bytes = client_frame(0x88, &u16::to_be_bytes(code));
            check(&bytes, &[Seen::Close(Some(code), vec![])]);
        }
    }

    #[test]
    fn violations() {
        let broken = |bytes: &[u8]| check(bytes, &[Seen::Violation(1002)]);
        let bad_text = |bytes: &[u8]| check(bytes, &[Seen::Violation(1007)]);
        let too_big = |bytes: &[u8]| check(bytes, &[Seen::Violation(1009)]);

        for reserved_bits in 1..8 {
            broken(&client_frame(0x81 | reserved_bits << 4, b"x"));
            broken(&client_frame(0x89 | reserved_bits << 4, b""));
        }
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            broken(&client_frame(0x80 | opcode, b""));
            broken(&client_frame(opcode, b"x"));
        }
        // Not masked.
        broken(&[0x81, 0x01, b'x']);
        broken(&[0x88, 0x02, 0x03, 0xE8]);
        for control in [8, 9, 10] {
            broken(&client_frame(0x80 | control, &[b'x'; 126]));
            broken(&client_frame(0x80 | control, &[b'x'; 127]));
            broken(&client_frame(control, b""));
        }
        // Payload sizes that are not in their shortest form, or impossible.
        broken(&[0x81, 0xFE, 0, 1, 0, 0, 0, 0, b'x']);
        broken(&[0x81, 0xFE, 0, 125, 0, 0, 0, 0]);
        broken(&[0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0]);
        broken(&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        // Fragments out of order.
        broken(&client_frame(0x80, b"x"));
        broken(&client_frame(0x00, b"x"));
        broken(&joined(&[(0x01, b"a"), (0x81, b"b")]));
        broken(&joined(&[(0x01, b"a"), (0x02, b"b")]));
        broken(&joined(&[(0x02, b"a"), (0x01, b"b")]));
        broken(&joined(&[(0x01, b"a"), (0x00, b"b"), (0x82, b"c")]));
        check(
            &joined(&[(0x01, b"a"), (0x80, b"b"), (0x80, b"c")]),
            &[text("ab"), Seen::Violation(1002)],
        );
        check(
            &joined(&[(0x81, b"a"), (0x89, b""), (0x80, b"c")]),
            &[text("a"), Seen::Ping(vec![]), Seen::Violation(1002)],
        );
        check(
            &joined(&[(0x01, b"a"), (0x89, b"p"), (0x01, b"c")]),
            &[Seen::Ping(b"p".into()), Seen::Violation(1002)],
        );
        // Close frames.
        broken(&client_frame(0x88, b"\x03"));
        for code in [
            0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
        ] {
            broken(&client_frame(0x88, &u16::to_be_bytes(code)));
        }
        bad_text(&client_frame(0x88, b"\x03\xE8\xFF"));
        bad_text(&client_frame(0x88, b"\x03\xE8\xE2\x82"));
        bad_text(&joined(&[(0x01, b"a"), (0x88, b"\x03\xE8\xC0\x80")]));
        // Text: a lone continuation, overlongs, surrogates, above U+10FFFF, cut off.
        let texts: [&[u8]; 13] = [
            b"\x80",
            b"abc\xFF",
            b"\xC0\x80",
            b"\xC1\xBF",
            b"\xE0\x80\xAF",
            b"\xE0\x9F\xBF",
            b"\xF0\x80\x80\xAF",
            b"\xED\xA0\x80",
            b"\xED\xBF\xBF",
            b"\xF4\x90\x80\x80",
            b"\xF5\x80\x80\x80",
            b"ab\xE2\x82",
            b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xED\xA0\x80edited",
        ];
        for text in texts {
            bad_text(&client_frame(0x81, text));
            bad_text(&joined(&[(0x01, text), (0x80, b"")]));
            for cut in 0..=text.len() {
                let (left, right) = text.split_at(cut);
                bad_text(&joined(&[(0x01, left), (0x00, b""), (0x80, right)]));
            }
        }
        bad_text(&joined(&[(0x01, b"\xE2\x82"), (0x80, b"a")]));
        // Sizes.
        too_big(&client_frame(0x81, &[b'x'; 1001]));
        too_big(&client_frame(0x02, &[b'x'; 1001]));
        too_big(&joined(&[(0x01, &[b'x'; 600]), (0x80, &[b'x'; 401])]));
        too_big(&joined(&[(0x01, &[b'x'; 1000]), (0x00, b"x")]));
        too_big(&[
            0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0,
        ]);
    }

    #[test]
    fn too_big_is_told_by_the_payload_size_alone() {
        let violation = |bytes: &[u8]| {
            Reader::default()
                .next(LIMITS, &mut bytes.to_vec())
                .expect_err("a violation")
                .reason
        };
        assert_eq!(violation(&[0x81, 0xFE, 0x03, 0xE9]), CloseReason::TooBig);
        let declared = [0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
        assert_eq!(violation(&declared), CloseReason::TooBig);
    }

    #[test]
    fn invalid_text_fails_at_the_byte_that_makes_it_so() {
        let check = |text: &[u8], valid: usize| {
            // The frame declares more than comes.
            let mut bytes = client_frame(0x01, &[text, &[b'x'; 50]].concat());
            bytes.truncate(6 + text.len());
            let mut reader = Reader::default();
            for (i, byte) in bytes.into_iter().enumerate() {
                let result = reader.next(LIMITS, &mut [byte]).map(|_| ());
                if i == 6 + valid {
                    assert_eq!(result, Err(NOT_UTF8), "at {i}");
                    return;
                }
                assert_eq!(result, Ok(()), "at {i}");
            }
            panic!("no violation");
        };
        check(b"\x80", 0);
        check(b"ab\xC0", 2);
        check(b"\xE2\x82x", 2);
        check(b"\xED\xA0", 1);
        check(b"\xF4\x90", 1);
        check(b"\xE0\x9F", 1);
        check(b"\xF0\x9F\x98\xC0", 3);
    }

    #[test]
    fn is_in_message_from_the_first_byte_to_the_last() {
        let mut reader = Reader::default();
        let mut feed = |bytes: &[u8]| {
            reader
                .next(LIMITS, &mut bytes.to_vec())
                .expect("no violation");
            (reader.is_in_message(), reader.buffered_bytes())
        };
        assert_eq!(feed(b""), (false, 0));
        // A ping in pieces is not a message.
        assert_eq!(feed(&[0x89]), (false, 1));
        assert_eq!(feed(&[0x82, 1, 2, 3, 4, b'a']), (false, 1));
        assert_eq!(feed(b"b"), (false, 0));
        // A text in fragments is one from the first byte.
        assert_eq!(feed(&[0x01]), (true, 1));
        assert_eq!(feed(&[0x81, 0, 0, 0, 0]), (true, 0));
        assert_eq!(feed(b"x"), (true, 1));
        assert_eq!(feed(&[0x89, 0x82, 0, 0, 0, 0, b'p']), (true, 2));
        assert_eq!(feed(b"p"), (true, 1));
        assert_eq!(feed(&[0x80, 0x82, 0, 0]), (true, 5));
        assert_eq!(feed(&[0, 0, b'y']), (true, 2));
        assert_eq!(feed(b"z"), (false, 0));
        // Whole frames never make it one.
        assert_eq!(feed(&client_frame(0x81, b"whole")), (false, 0));
    }

    #[test]
    fn holds_no_memory_between_messages() {
        assert!(size_of::<Reader>() <= 40);
        let mut reader = Reader::default();
        let bytes = joined(&[(0x81, b"one"), (0x01, b"a"), (0x80, b"b"), (0x89, b"ping")]);
        for cut in 0..=bytes.len() {
            let (left, right) = bytes.split_at(cut);
            for piece in [left, right] {
                let mut piece = piece.to_vec();
                let mut rest = &mut piece[..];
                while let (taken, Some(_)) = reader.next(LIMITS, rest).expect("no violation") {
                    rest = &mut rest[taken..];
                }
            }
            assert!(reader.pending.is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn a_whole_message_is_lent_from_the_input() {
        let mut reader = Reader::default();
        let mut bytes = client_frame(0x81, b"Hello");
        let place = bytes[6..].as_ptr();
        match reader.next(LIMITS, &mut bytes) {
            Ok((11, Some(Incoming::Text(text)))) => assert_eq!(text.as_ptr(), place),
            other => panic!("{other:?}"),
        }
        assert!(reader.pending.is_none());
    }

    #[test]
    fn memory_follows_what_came() {
        let limits = ReaderLimits {
            message_bytes_max: 64 * 1024,
        };
        let capacity = |reader: &Reader| reader.pending.as_ref().map_or(0, |p| p.joined.capacity());
        let mut bytes = client_frame(0x81, &[b'x'; 60_000]);

        let mut reader = Reader::default();
        reader.next(limits, &mut bytes[..18]).expect("no violation");
        assert!(capacity(&reader) <= 64);
        let mut received = 10;
        for piece in bytes[18..].chunks_mut(7) {
            let size = piece.len();
            reader.next(limits, piece).expect("no violation");
            received += size;
            assert!(
                capacity(&reader) <= 60_000.min(2 * received),
                "after {received}"
            );
        }
        assert_eq!(capacity(&reader), 60_000);

        // Fragments that fill the limit do not hold twice of it.
        let mut reader = Reader::default();
        let mut first = client_frame(0x01, &[b'x'; 40_000]);
        let mut second = client_frame(0x00, &[b'x'; 25_536]);
        reader.next(limits, &mut first).expect("no violation");
        reader.next(limits, &mut second).expect("no violation");
        assert_eq!(
            (reader.buffered_bytes(), capacity(&reader)),
            (65_536, 65_536)
        );
    }

    #[test]
    fn the_number_of_fragments_costs_nothing() {
        let mut reader = Reader::default();
        reader
            .next(LIMITS, &mut client_frame(0x01, b"a"))
            .expect("no violation");
        let empty = client_frame(0x00, b"").repeat(1000);
        for _ in 0..1000 {
            reader
                .next(LIMITS, &mut empty.clone())
                .expect("no violation");
        }
        let pending = reader.pending.as_ref().expect("an open message");
        assert_eq!((pending.joined.len(), pending.joined.capacity()), (1, 1));
        let mut last = client_frame(0x80, b"b");
        let incoming = reader.next(LIMITS, &mut last).expect("no violation");
        assert_eq!(incoming, (7, Some(Incoming::Text(b"ab"))));
    }
}
