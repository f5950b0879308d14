//! A client's WebSocket frame (RFC 6455, 5.2), turned into a server's frame where it stands.

/// What came.
#[derive(PartialEq, Eq, Debug)]
pub enum Frame {
    /// Not all of it yet.
    Partial,
    /// Nothing a relay of whole messages can take: unmasked, fragmented, or longer than a receive buffer.
    Wrong,
    /// A frame, now unmasked, with the header of a server.
    Whole {
        /// RFC 6455, 5.2.
        opcode: u8,
        /// Where the server's frame begins.
        start: usize,
        /// Where its payload begins.
        payload: usize,
        /// Where both end, and the next frame begins.
        end: usize,
    },
}

/// A text message.
pub const TEXT: u8 = 1;
/// The end.
pub const CLOSE: u8 = 8;
/// To be answered.
pub const PING: u8 = 9;
/// The answer.
pub const PONG: u8 = 10;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const KEY_SIZE: usize = 4;

/// Looks at the frame at the beginning of `bytes`. A server's header is shorter than a client's by the masking key,
/// so the new one is written to the bytes before the payload, and nothing has to move.
#[inline]
pub fn convert(bytes: &mut [u8], size_max: usize) -> Frame {
    let &mut [first, second, ..] = bytes else {
        return Frame::Partial;
    };
    if second & MASKED == 0 || first & FINAL == 0 {
        return Frame::Wrong;
    }
    let (size, key_at) = match second & !MASKED {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (usize::from(u16::from_be_bytes([a, b])), 4),
            _ => return Frame::Partial,
        },
        127 => match bytes.get(2..10).and_then(|size| size.try_into().ok()) {
            Some(size) => (u64::from_be_bytes(size).min(1 << 40) as usize, 10),
            None => return Frame::Partial,
        },
        size => (usize::from(size), 2),
    };
    let payload = key_at + KEY_SIZE;
    let end = payload + size;
    if end > size_max {
        return Frame::Wrong;
    }
    if bytes.len() < end {
        return Frame::Partial;
    }
    let key = [
        bytes[key_at],
        bytes[key_at + 1],
        bytes[key_at + 2],
        bytes[key_at + 3],
    ];
    unmask(&mut bytes[payload..end], key);
    let header = Header::new(first, size);
    let start = payload - header.bytes().len();
    bytes[start..payload].copy_from_slice(header.bytes());
    Frame::Whole {
        opcode: first & 0x0f,
        start,
        payload,
        end,
    }
}

/// A server's frame.
pub fn encode(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let header = Header::new(FINAL | opcode, payload.len());
    [header.bytes(), payload].concat()
}

struct Header([u8; 10], usize);

impl Header {
    #[inline]
    fn new(first: u8, size: usize) -> Header {
        let mut bytes = [0; 10];
        bytes[0] = first;
        let length = match size {
            0..126 => {
                bytes[1] = size as u8;
                2
            }
            126..=0xffff => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&(size as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..].copy_from_slice(&(size as u64).to_be_bytes());
                10
            }
        };
        Header(bytes, length)
    }

    fn bytes(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

/// Eight bytes at a time; the compiler makes vectors of it.
#[inline]
fn unmask(payload: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (i, byte) in rest.iter_mut().enumerate() {
        *byte ^= key[i % 4];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x5a, 0x13, 0xe7, 0x9c];

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = encode(first & 0x0f, payload);
        let header = bytes.len() - payload.len();
        bytes[0] = first;
        bytes[1] |= MASKED;
        for (i, byte) in bytes[header..].iter_mut().enumerate() {
            *byte ^= KEY[i % 4];
        }
        bytes.splice(header..header, KEY);
        bytes
    }

    #[test]
    fn frames_become_what_a_server_would_send() {
        for size in [0, 1, 7, 8, 9, 125, 126, 127, 0xffff, 0x1_0000] {
            let payload: Vec<u8> = (0..size).map(|i| (i * 7) as u8).collect();
            let mut bytes = masked(0x81, &payload);
            let whole = bytes.len();
            bytes.extend_from_slice(&masked(0x89, b"next"));
            for cut in (0..whole.min(20)).chain([whole - 1]) {
                let found = convert(&mut bytes.clone()[..cut], 1 << 20);
                assert_eq!(found, Frame::Partial, "{size} cut at {cut}");
            }
            let Frame::Whole {
                opcode,
                start,
                payload: at,
                end,
            } = convert(&mut bytes, 1 << 20)
            else {
                panic!("{size}")
            };
            assert_eq!((opcode, end), (TEXT, whole));
            assert_eq!(bytes[at..end], payload);
            assert_eq!(bytes[start..end], encode(TEXT, &payload));
            let next = convert(&mut bytes[end..], 1 << 20);
            assert!(matches!(next, Frame::Whole { opcode: PING, .. }));
        }
    }

    #[test]
    fn what_no_client_may_send_is_wrong() {
        let check = |mut bytes: Vec<u8>| assert_eq!(convert(&mut bytes, 1000), Frame::Wrong);
        check(encode(TEXT, b"not masked"));
        check(masked(0x01, b"a fragment"));
        check(masked(0x81, &[0; 1000]));
        check([&[0x81, 0xff], &[0xff; 12][..]].concat());
    }
}
