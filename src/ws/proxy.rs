//! The PROXY protocol, version 2: the header by which a layer 4 proxy says who is behind it (HAProxy,
//! `doc/proxy-protocol.txt`, section 2.2).
//!
//! ```text
//! signature 12 | version and command 1 | family and transport 1 | size of the rest 2 | addresses | TLVs
//! ```
//!
//! It stands before the first byte of the connection. Whether a peer may send one is decided elsewhere. TLVs are
//! passed over. Invariants: a header is refused as soon as its bytes cannot become a good one, and the result never
//! depends on how the bytes were cut.

use std::net::{Ipv6Addr, SocketAddr};

/// How every header begins: what no HTTP request, TLS record or RESP command begins with.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The largest header that is taken: what fits the first segment of any TCP connection, which senders keep to.
pub const HEADER_BYTES_MAX: usize = 536;
/// Signature, version and command, family and transport, size.
const FIXED_BYTES: usize = 16;

/// What a header says of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Header {
    /// It is the proxy's own, as of a health check; or of a kind that has no address.
    Local,
    /// It is relayed for a client at this address.
    Tcp(SocketAddr),
    /// It is relayed for a client that came over a Unix socket.
    Unix,
}

/// Why bytes are no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// They begin with something else.
    Signature,
    /// It is of another version.
    Version,
    /// It is neither of a relayed connection nor of the proxy's own.
    Command,
    /// It is of a connection that no stream of TCP or of a Unix socket is.
    Family,
    /// It is larger than [`HEADER_BYTES_MAX`].
    TooLarge,
    /// Its addresses do not fit its size.
    Addresses,
}

impl Violation {
    /// What is wrong, for the answer and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Violation::Signature => "no PROXY header",
            Violation::Version => "a PROXY header of another version than 2",
            Violation::Command => "a PROXY header with an unknown command",
            Violation::Family => "a PROXY header of an unknown address family",
            Violation::TooLarge => "a PROXY header that is too large",
            Violation::Addresses => "a PROXY header whose addresses are cut short",
        }
    }
}

/// Could these bytes be the beginning of a header, or have one in front? Not if there are none.
pub fn begins(bytes: &[u8]) -> bool {
    let size = bytes.len().min(SIGNATURE.len());
    size > 0 && bytes[..size] == SIGNATURE[..size]
}

/// Reads the header at the front of `bytes`, and its size. `None`: incomplete.
///
/// # Errors
///
/// A [`Violation`], which more bytes would not mend.
pub fn parse(bytes: &[u8]) -> Result<Option<(usize, Header)>, Violation> {
    if !bytes.is_empty() && !begins(bytes) {
        return Err(Violation::Signature);
    }
    let rest = bytes.get(SIGNATURE.len()..).unwrap_or_default();
    let Some(&version_and_command) = rest.first() else {
        return Ok(None);
    };
    if version_and_command >> 4 != 2 {
        return Err(Violation::Version);
    }
    let is_local = match version_and_command & 0x0F {
        0 => true,
        1 => false,
        _ => return Err(Violation::Command),
    };
    let Some(&family) = rest.get(1) else {
        return Ok(None);
    };
    let family = if is_local {
        // Whatever it says, the addresses are to be passed over.
        Family::None
    } else {
        Family::read(family)?
    };
    let Some(&size) = rest.get(2..).and_then(|rest| rest.first_chunk()) else {
        return Ok(None);
    };
    let size = FIXED_BYTES + usize::from(u16::from_be_bytes(size));
    if size > HEADER_BYTES_MAX {
        return Err(Violation::TooLarge);
    }
    if size < FIXED_BYTES + family.bytes() {
        return Err(Violation::Addresses);
    }
    let Some(addresses) = bytes.get(FIXED_BYTES..size) else {
        return Ok(None);
    };
    let header = family.header(addresses).ok_or(Violation::Addresses)?;
    Ok(Some((size, header)))
}

/// The kinds of addresses that a header may have.
#[derive(Clone, Copy)]
enum Family {
    None,
    V4,
    V6,
    Unix,
}

impl Family {
    /// Family in the upper four bits, transport in the lower: only streams can be behind a stream.
    fn read(byte: u8) -> Result<Family, Violation> {
        match byte {
            0x00 => Ok(Family::None),
            0x11 => Ok(Family::V4),
            0x21 => Ok(Family::V6),
            0x31 => Ok(Family::Unix),
            _ => Err(Violation::Family),
        }
    }

    /// The size of its two addresses, and of the two ports.
    fn bytes(self) -> usize {
        match self {
            Family::None => 0,
            Family::V4 => 2 * (4 + 2),
            Family::V6 => 2 * (16 + 2),
            Family::Unix => 2 * 108,
        }
    }

    /// What the addresses say: source before destination, addresses before ports. None if they are cut short.
    fn header(self, addresses: &[u8]) -> Option<Header> {
        match self {
            Family::None => Some(Header::Local),
            Family::V4 => {
                let ip = *addresses.first_chunk::<4>()?;
                Some(Header::Tcp((ip, port(addresses, 8)?).into()))
            }
            Family::V6 => {
                let ip = Ipv6Addr::from(*addresses.first_chunk::<16>()?).to_canonical();
                Some(Header::Tcp((ip, port(addresses, 32)?).into()))
            }
            Family::Unix => Some(Header::Unix),
        }
    }
}

fn port(addresses: &[u8], at: usize) -> Option<u16> {
    let bytes = addresses.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of these bytes behind the signature, its size filled in.
    fn header(version_and_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([version_and_command, family]);
        bytes.extend((rest.len() as u16).to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x1F, 0x90, 0, 80];

    fn v6(source: &str) -> Vec<u8> {
        let source: Ipv6Addr = source.parse().expect("an address");
        let mut rest = source.octets().to_vec();
        rest.extend([9; 16]);
        rest.extend([0x01, 0xBB, 0, 80]);
        rest
    }

    #[test]
    fn headers_in_any_pieces() {
        let tlvs = [&V4[..], &[4, 0, 3, 1, 2, 3]].concat();
        let unix = [b'u'; 216];
        let largest = [&V4[..], &[0; HEADER_BYTES_MAX - 16 - 12]].concat();
        for (bytes, expected) in [
            (header(0x21, 0x11, &V4), "192.0.2.7:8080"),
            (header(0x21, 0x11, &tlvs), "192.0.2.7:8080"),
            (header(0x21, 0x11, &largest), "192.0.2.7:8080"),
            (header(0x21, 0x21, &v6("2001:db8::1")), "[2001:db8::1]:443"),
            (header(0x21, 0x21, &v6("::ffff:192.0.2.7")), "192.0.2.7:443"),
            (header(0x21, 0x31, &unix), "unix"),
            (header(0x21, 0x00, &[]), "local"),
            (header(0x21, 0x00, b"whatever"), "local"),
            (header(0x20, 0x00, &[]), "local"),
            // The rest of a local one is passed over, whatever it is.
            (header(0x20, 0x11, &V4), "local"),
            (header(0x20, 0x99, b"x"), "local"),
        ] {
            let followed = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            for size in 0..followed.len() {
                let found = parse(&followed[..size]).expect("good");
                if size < bytes.len() {
                    assert_eq!(found, None, "{expected} at {size}");
                    continue;
                }
                let (size, header) = found.expect("complete");
                assert_eq!(size, bytes.len(), "{expected}");
                let header = match header {
                    Header::Local => "local".to_owned(),
                    Header::Unix => "unix".to_owned(),
                    Header::Tcp(address) => address.to_string(),
                };
                assert_eq!(header, expected);
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused_at_once() {
        // The size at which it is known.
        let check = |bytes: &[u8], needed: usize, violation: Violation| {
            for size in 0..=bytes.len() {
                let expected = if size < needed {
                    Ok(None)
                } else {
                    Err(violation)
                };
                assert_eq!(parse(&bytes[..size]), expected, "{violation:?} at {size}");
            }
        };
        check(b"GET / HTTP/1.1", 1, Violation::Signature);
        check(b"\r\n\r\n\0\r\nQUIT\r", 12, Violation::Signature);
        check(b"PROXY TCP4 1.2.3.4", 1, Violation::Signature);
        check(&header(0x11, 0x11, &V4), 13, Violation::Version);
        check(&header(0x31, 0x11, &V4), 13, Violation::Version);
        check(&header(0x22, 0x11, &V4), 13, Violation::Command);
        check(&header(0x2F, 0x11, &V4), 13, Violation::Command);
        for family in [0x10, 0x01, 0x12, 0x22, 0x32, 0x41, 0xFF] {
            check(&header(0x21, family, &V4), 14, Violation::Family);
        }
        let too_large = [0; HEADER_BYTES_MAX - 15];
        check(&header(0x21, 0x11, &too_large), 16, Violation::TooLarge);
        check(&header(0x20, 0x00, &too_large), 16, Violation::TooLarge);
        check(&header(0x21, 0x11, &V4[..11]), 16, Violation::Addresses);
        check(&header(0x21, 0x11, &[]), 16, Violation::Addresses);
        let short = &v6("::1")[..35];
        check(&header(0x21, 0x21, short), 16, Violation::Addresses);
        check(&header(0x21, 0x31, &[0; 215]), 16, Violation::Addresses);
    }

    #[test]
    fn what_may_begin_one() {
        for size in 1..=SIGNATURE.len() {
            assert!(begins(&SIGNATURE[..size]), "{size}");
        }
        assert!(
            begins(&header(0xFF, 0xFF, &[])),
            "the version is read later"
        );
        for other in [&b""[..], b"GET", b"\n", b"\r\r", b"\r\n\r\n\0\r\nQUIT\r"] {
            assert!(!begins(other), "{}", other.escape_ascii());
        }
    }
}
