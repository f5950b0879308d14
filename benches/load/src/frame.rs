//! WebSocket frames as a client writes and reads them (RFC 6455, 5.2).
//!
//! One masking key serves all frames. The RFC wants it unpredictable, against proxies that take a payload for a
//! request; a load generator meets none, and so a frame can be masked once and sent a million times with a few bytes
//! changed. The key is not 0, so the server has its unmasking to do.

use std::ops::Range;

/// The key of every frame.
pub const KEY: [u8; 4] = [0x5a, 0x13, 0xe7, 0x9c];

/// The longest header: two bytes, eight of length; servers do not mask.
const HEADER_MAX: usize = 10;

/// What a frame is for (RFC 6455, 5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opcode {
    /// More of the message before.
    Continuation,
    /// UTF-8.
    Text,
    /// Bytes.
    Binary,
    /// The end.
    Close,
    /// To be answered by a pong.
    Ping,
    /// The answer.
    Pong,
}

impl Opcode {
    fn number(self) -> u8 {
        match self {
            Opcode::Continuation => 0,
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
        }
    }

    fn of(number: u8) -> Option<Opcode> {
        Some(match number {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }
}

/// A frame in a buffer.
#[derive(PartialEq, Eq, Debug)]
pub struct Frame {
    /// What it is for.
    pub opcode: Opcode,
    /// Is it the last of its message?
    pub is_final: bool,
    /// Where its payload is; the frame ends with it.
    pub payload: Range<usize>,
}

/// Appends a whole masked frame.
pub fn write(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode.number());
    match payload.len() {
        size @ 0..126 => out.push(0x80 | size as u8),
        size @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(size as u16).to_be_bytes());
        }
        size => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(size as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&KEY);
    out.extend(payload.iter().zip(KEY.iter().cycle()).map(|(b, k)| b ^ k));
}

/// Reads the frame at the beginning of `bytes`; none if it is not all there yet.
///
/// # Errors
/// What a server must not send, or a payload of more than `payload_max`.
pub fn read(bytes: &[u8], payload_max: usize) -> Result<Option<Frame>, String> {
    let &[first, second, ..] = bytes else {
        return Ok(None);
    };
    let Some(opcode) = Opcode::of(first & 0x0f).filter(|_| first & 0x70 == 0) else {
        return Err(format!("no frame begins with 0x{first:02x}"));
    };
    if second & 0x80 != 0 {
        return Err("a server does not mask".to_owned());
    }
    let (size, start) = match second {
        126 => match bytes.get(2..4) {
            Some(size) => (u64::from(u16::from_be_bytes([size[0], size[1]])), 4),
            None => return Ok(None),
        },
        127 => match bytes[2..].first_chunk() {
            Some(&size) => (u64::from_be_bytes(size), HEADER_MAX),
            None => return Ok(None),
        },
        size => (u64::from(size), 2),
    };
    if size > payload_max as u64 {
        return Err(format!("a frame of {size} bytes"));
    }
    let payload = start..start + size as usize;
    Ok((bytes.len() >= payload.end).then_some(Frame {
        opcode,
        is_final: first & 0x80 != 0,
        payload,
    }))
}

/// The close frame's code and reason, for people (RFC 6455, 5.5.1).
pub fn close_reason(payload: &[u8]) -> String {
    match payload {
        &[high, low, ref reason @ ..] => {
            let code = u16::from_be_bytes([high, low]);
            format!("{code} {}", String::from_utf8_lossy(reason))
                .trim_end()
                .to_owned()
        }
        _ => "no code".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frame as a server would write it.
    fn unmasked(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![opcode];
        match payload.len() {
            size @ 0..126 => bytes.push(size as u8),
            size @ 126..=0xffff => {
                bytes.push(126);
                bytes.extend_from_slice(&(size as u16).to_be_bytes());
            }
            size => {
                bytes.push(127);
                bytes.extend_from_slice(&(size as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn frames_are_written_masked() {
        // RFC 6455, 5.7 has this with another key.
        let mut out = b"before".to_vec();
        write(Opcode::Text, b"Hello", &mut out);
        assert_eq!(out[6..12], [0x81, 0x85, 0x5a, 0x13, 0xe7, 0x9c]);
        let unmask = |bytes: &[u8]| -> Vec<u8> {
            bytes
                .iter()
                .enumerate()
                .map(|(i, b)| b ^ KEY[i % 4])
                .collect()
        };
        assert_eq!(unmask(&out[12..]), b"Hello");
        for (size, header) in [(0, 6), (125, 6), (126, 8), (0xffff, 8), (0x1_0000, 14)] {
            let payload: Vec<u8> = (0..size).map(|i| i as u8).collect();
            let mut out = Vec::new();
            write(Opcode::Binary, &payload, &mut out);
            assert_eq!(out.len(), header + size);
            assert_eq!(unmask(&out[header..]), payload);
        }
    }

    #[test]
    fn frames_are_read_when_all_of_them_is_there() {
        for size in [0, 1, 125, 126, 127, 0xffff, 0x1_0000] {
            let payload: Vec<u8> = (0..size).map(|i| (i * 7) as u8).collect();
            let mut bytes = unmasked(0x81, &payload);
            let whole = bytes.len();
            bytes.extend_from_slice(b"\x81\x01x");
            for cut in (0..whole.min(40)).chain([whole - 1]) {
                assert_eq!(read(&bytes[..cut], 1 << 20), Ok(None), "{size} cut {cut}");
            }
            let frame = read(&bytes, 1 << 20).unwrap().unwrap();
            assert_eq!((frame.opcode, frame.is_final), (Opcode::Text, true));
            assert_eq!(bytes[frame.payload.clone()], payload);
            assert_eq!(frame.payload.end, whole);
        }
        let check = |bytes: &[u8], opcode, is_final| {
            let frame = read(bytes, 100).unwrap().unwrap();
            assert_eq!((frame.opcode, frame.is_final), (opcode, is_final));
        };
        check(b"\x00\x00", Opcode::Continuation, false);
        check(b"\x02\x00", Opcode::Binary, false);
        check(b"\x88\x02\x03\xe8", Opcode::Close, true);
        check(b"\x89\x00", Opcode::Ping, true);
        check(b"\x8a\x00", Opcode::Pong, true);
    }

    #[test]
    fn what_no_server_may_send_is_refused() {
        let check = |bytes: &[u8]| assert!(read(bytes, 1000).is_err(), "{bytes:x?}");
        check(b"\x83\x00"); // no such opcode
        check(b"\xc1\x00"); // a reserved bit
        check(b"\x81\x80"); // masked
        check(b"\x82\x7e\x03\xe9"); // 1001 bytes
        check(b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff");
    }

    #[test]
    fn a_close_says_why() {
        assert_eq!(close_reason(b""), "no code");
        assert_eq!(close_reason(b"\x03\xe8"), "1000");
        assert_eq!(close_reason(b"\x0f\xa8too slow"), "4008 too slow");
    }
}
