//! Frame headers (RFC 6455, 5.2): those that a client sends, read, and those that this server sends, written.
//!
//! A header is judged by itself; whether a frame may come now, and whether it fits, is for
//! [`fragment`](super::fragment), which knows the message. No extension is negotiated, so reserved bits have no
//! meaning. Invariant: what is wrong with a header is the same violation however its bytes were cut; a header
//! that is broken at its first byte is refused at its first byte.

use super::fragment::Violation;
use crate::error::CloseReason;

/// Opcodes (RFC 6455, 11.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opcode {
    /// The next fragment of a message.
    Continuation,
    /// The first or only fragment of a text message.
    Text,
    /// The first or only fragment of a binary message.
    Binary,
    /// The end of what one side has to say.
    Close,
    /// Asks for a pong with the same payload.
    Ping,
    /// Answers a ping, or is a sign of life by itself.
    Pong,
}

impl Opcode {
    /// The low four bits of a frame's first byte. `None`: reserved.
    pub fn from_bits(bits: u8) -> Option<Opcode> {
        match bits {
            0x0 => Some(Opcode::Continuation),
            0x1 => Some(Opcode::Text),
            0x2 => Some(Opcode::Binary),
            0x8 => Some(Opcode::Close),
            0x9 => Some(Opcode::Ping),
            0xA => Some(Opcode::Pong),
            _ => None,
        }
    }

    /// The low four bits of a frame's first byte.
    pub fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0x0,
            Opcode::Text => 0x1,
            Opcode::Binary => 0x2,
            Opcode::Close => 0x8,
            Opcode::Ping => 0x9,
            Opcode::Pong => 0xA,
        }
    }

    /// Control frames are short, whole, and may come between the fragments of a message (RFC 6455, 5.5).
    pub fn is_control(self) -> bool {
        match self {
            Opcode::Close | Opcode::Ping | Opcode::Pong => true,
            Opcode::Continuation | Opcode::Text | Opcode::Binary => false,
        }
    }
}

/// The longest payload of a control frame (RFC 6455, 5.5).
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;
/// The longest header of an unmasked frame.
pub const SERVER_HEADER_BYTES_MAX: usize = 10;
/// The longest header of a masked frame.
pub const CLIENT_HEADER_BYTES_MAX: usize = SERVER_HEADER_BYTES_MAX + 4;

/// The header of an unmasked, final frame, by itself.
#[derive(Clone, Copy, Debug)]
pub struct ServerHeader {
    /// At the end of these, so that a payload can follow.
    bytes: [u8; SERVER_HEADER_BYTES_MAX],
    start: u8,
}

impl ServerHeader {
    /// The header before a payload of this size.
    #[inline]
    pub fn new(opcode: Opcode, payload_size: usize) -> ServerHeader {
        let first = 0x80 | opcode.bits();
        match payload_size {
            0..=125 => ServerHeader {
                bytes: [0, 0, 0, 0, 0, 0, 0, 0, first, payload_size as u8],
                start: 8,
            },
            126..=0xFFFF => {
                let [a, b] = (payload_size as u16).to_be_bytes();
                ServerHeader {
                    bytes: [0, 0, 0, 0, 0, 0, first, 126, a, b],
                    start: 6,
                }
            }
            _ => {
                let [a, b, c, d, e, f, g, h] = (payload_size as u64).to_be_bytes();
                ServerHeader {
                    bytes: [first, 127, a, b, c, d, e, f, g, h],
                    start: 0,
                }
            }
        }
    }

    /// As it goes out.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }

    /// Writes the header before a payload that has [`SERVER_HEADER_BYTES_MAX`] bytes to spare before it; the frame.
    ///
    /// # Panics
    /// if there is no such room
    #[inline]
    pub fn before(self, spared: &mut [u8]) -> &[u8] {
        let (room, _) = spared
            .split_first_chunk_mut()
            .expect("a payload with room for its header");
        *room = self.bytes;
        &spared[usize::from(self.start)..]
    }
}

/// Appends the header of an unmasked, final frame.
#[inline]
pub fn encode_header(opcode: Opcode, payload_size: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(ServerHeader::new(opcode, payload_size).as_bytes());
}

/// The size of what [`encode_header`] appends.
pub fn header_size(payload_size: usize) -> usize {
    match payload_size {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => SERVER_HEADER_BYTES_MAX,
    }
}

/// The header of a client's frame up to its payload size. The four bytes of the mask follow it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientHeader {
    /// Is this the last fragment of its message?
    pub fin: bool,
    /// What the frame carries.
    pub opcode: Opcode,
    /// As declared; below 2^63.
    pub payload_size: u64,
    /// Where in the bytes the mask begins: 2, 4, or 10.
    pub mask_offset: usize,
}

/// Reads the header at the front of `bytes`. `None`: the payload size is not complete yet.
///
/// The mask is left to the caller, so that a frame that is too large is refused before its mask comes.
///
/// # Errors
///
/// Reserved bits or opcode, a control frame that is fragmented or longer than 125 bytes, no mask (5.1), and a
/// payload size that is not in its shortest form or above 2^63 - 1 (5.2). Each is checked as soon as it is there.
pub fn decode_header(bytes: &[u8]) -> Result<Option<ClientHeader>, Violation> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err(broken("reserved bits without an extension"));
    }
    let opcode = Opcode::from_bits(first & 0x0F).ok_or(broken("reserved opcode"))?;
    let fin = first & 0x80 != 0;
    if opcode.is_control() && !fin {
        return Err(broken("fragmented control frame"));
    }

    let Some(&second) = bytes.get(1) else {
        return Ok(None);
    };
    if second & 0x80 == 0 {
        return Err(broken("client frame without mask"));
    }
    let short = second & 0x7F;
    if opcode.is_control() && usize::from(short) > CONTROL_PAYLOAD_BYTES_MAX {
        return Err(broken("control frame above 125 bytes"));
    }
    let (payload_size, mask_offset) = match short {
        126 => {
            let Some(&size) = bytes[2..].first_chunk() else {
                return Ok(None);
            };
            (u64::from(u16::from_be_bytes(size)), 4)
        }
        127 => {
            let Some(&size) = bytes[2..].first_chunk() else {
                return Ok(None);
            };
            (u64::from_be_bytes(size), 10)
        }
        _ => (u64::from(short), 2),
    };
    if payload_size > i64::MAX as u64 {
        return Err(broken("payload size above 2^63 - 1"));
    }
    let is_shortest = match short {
        126 => payload_size > 125,
        127 => payload_size > 0xFFFF,
        _ => true,
    };
    if !is_shortest {
        return Err(broken("payload size not in its shortest form"));
    }
    Ok(Some(ClientHeader {
        fin,
        opcode,
        payload_size,
        mask_offset,
    }))
}

fn broken(detail: &'static str) -> Violation {
    Violation {
        reason: CloseReason::ProtocolError,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPCODES: [Opcode; 6] = [
        Opcode::Continuation,
        Opcode::Text,
        Opcode::Binary,
        Opcode::Close,
        Opcode::Ping,
        Opcode::Pong,
    ];

    #[test]
    fn opcodes_are_their_bits() {
        for opcode in OPCODES {
            assert_eq!(Opcode::from_bits(opcode.bits()), Some(opcode));
            assert_eq!(opcode.is_control(), opcode.bits() >= 8);
        }
        assert_eq!(
            (0..=255)
                .filter(|&bits| Opcode::from_bits(bits).is_some())
                .count(),
            6
        );
    }

    #[test]
    fn encodes_the_shortest_header() {
        let check = |opcode, size, expected: &[u8]| {
            let mut out = Vec::new();
            encode_header(opcode, size, &mut out);
            assert_eq!(out, expected);
            assert_eq!(header_size(size), expected.len());
            let header = ServerHeader::new(opcode, size);
            assert_eq!(header.as_bytes(), expected);
            let mut spared = vec![b'?'; SERVER_HEADER_BYTES_MAX];
            spared.extend_from_slice(b"payload");
            assert_eq!(header.before(&mut spared), [expected, b"payload"].concat());
        };
        check(Opcode::Text, 0, &[0x81, 0]);
        check(Opcode::Binary, 125, &[0x82, 125]);
        check(Opcode::Text, 126, &[0x81, 126, 0, 126]);
        check(Opcode::Text, 0xFFFF, &[0x81, 126, 0xFF, 0xFF]);
        check(Opcode::Text, 0x1_0000, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        check(Opcode::Close, 2, &[0x88, 2]);
        check(Opcode::Ping, 0, &[0x89, 0]);
        check(Opcode::Pong, 1, &[0x8A, 1]);
    }

    #[test]
    fn reads_what_it_writes() {
        for opcode in OPCODES {
            for size in [0, 1, 125, 126, 127, 0xFFFF, 0x1_0000, 0xFFFF_FFFF] {
                if opcode.is_control() && size > 125 {
                    continue;
                }
                let mut bytes = Vec::new();
                encode_header(opcode, size, &mut bytes);
                bytes[1] |= 0x80;
                let header = ClientHeader {
                    fin: true,
                    opcode,
                    payload_size: size as u64,
                    mask_offset: bytes.len(),
                };
                assert_eq!(decode_header(&bytes), Ok(Some(header)));
                for cut in 0..bytes.len() {
                    assert_eq!(decode_header(&bytes[..cut]), Ok(None), "cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn refuses_at_the_first_byte_that_tells() {
        // (bytes, how many of them are needed to tell)
        let check = |bytes: &[u8], needed: usize| {
            for size in 0..=bytes.len() {
                let result = decode_header(&bytes[..size]);
                if size < needed {
                    assert_eq!(result, Ok(None), "{bytes:x?} at {size}");
                } else {
                    let violation = result.expect_err("a violation");
                    assert_eq!(violation.reason, CloseReason::ProtocolError);
                }
            }
        };
        for reserved in [0x40, 0x20, 0x10, 0x70] {
            check(&[0x81 | reserved, 0x80], 1);
            check(&[0x89 | reserved, 0x80], 1);
        }
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            check(&[0x80 | opcode, 0x80], 1);
            check(&[opcode, 0x80], 1);
        }
        for control in [8, 9, 10] {
            check(&[control, 0x80], 1);
            check(&[0x80 | control, 0xFE, 0, 126], 2);
            check(&[0x80 | control, 0xFF, 0, 0, 0, 0, 0, 0, 0, 126], 2);
            check(&[0x80 | control, 0x00], 2);
        }
        check(&[0x81, 0x05], 2);
        check(&[0x82, 126, 1, 0], 2);
        check(&[0x81, 0xFE, 0, 125], 4);
        check(&[0x81, 0xFE, 0, 0], 4);
        check(&[0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF], 10);
        check(&[0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0, 1], 10);
        check(&[0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0], 10);
        check(
            &[0x81, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
            10,
        );
    }

    #[test]
    fn takes_the_largest_size_that_the_rfc_knows() {
        let bytes = [0x02, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
        let header = ClientHeader {
            fin: false,
            opcode: Opcode::Binary,
            payload_size: i64::MAX as u64,
            mask_offset: 10,
        };
        assert_eq!(decode_header(&bytes), Ok(Some(header)));
    }
}
