//! What proxies say before a request and in it. The input: one byte for who the peer is, then the bytes of a
//! connection.

use std::net::{IpAddr, SocketAddr};

use pubsub::address::RemoteAddress;
use pubsub::address::proxies::TrustedProxies;
use pubsub::ws::forwarded::Forwarded;
use pubsub::ws::http::{Request, parse_head};
use pubsub::ws::proxy::{self, HEADER_BYTES_MAX, Header, SIGNATURE};

use super::input::Input;

const FIXED_BYTES: usize = 16;
/// Entries of X-Forwarded-For that are looked at.
const HOPS_MAX: usize = 32;

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let (peer, is_trusted) = [
        (at("10.0.0.1:1"), true),
        (RemoteAddress::unix(), true),
        (at("192.0.2.1:1"), false),
        (RemoteAddress::default(), false),
    ][input.below(4)]
    .clone();
    let trusted = TrustedProxies::read(["10.0.0.0/8", "fd00::/8", "unix"]).expect("networks");
    assert_eq!(trusted.trusts(&peer), is_trusted);
    let bytes = input.rest();
    let size = check_header(bytes);
    if let Ok(Some(request)) = parse_head(&bytes[size..], 8192, 64) {
        let forwarded = Forwarded::read(&trusted, &peer, &request);
        check_forwarded(&forwarded, is_trusted, &trusted, &request);
    }
}

fn at(address: &str) -> RemoteAddress {
    RemoteAddress::at(address.parse().expect("an address"))
}

/// The same header or refusal comes of any cut, at once when it is known; gives the header's size.
fn check_header(bytes: &[u8]) -> usize {
    let whole = proxy::parse(bytes);
    let step = bytes.len() / 64 + 1;
    for cut in (0..bytes.len()).step_by(step) {
        match proxy::parse(&bytes[..cut]) {
            Ok(None) => {}
            part => assert_eq!(part, whole, "cut at {cut}"),
        }
    }
    assert_eq!(
        proxy::begins(bytes),
        !bytes.is_empty() && SIGNATURE.iter().zip(bytes).all(|(one, other)| one == other)
    );
    let (size, header) = match whole {
        Ok(Some(found)) => found,
        Ok(None) => {
            assert!(bytes.len() < HEADER_BYTES_MAX);
            return 0;
        }
        Err(violation) => {
            assert!(!violation.as_str().is_empty());
            return 0;
        }
    };
    assert!(bytes.starts_with(&SIGNATURE) && size <= HEADER_BYTES_MAX.min(bytes.len()));
    let declared = u16::from_be_bytes([bytes[14], bytes[15]]);
    assert_eq!(size, FIXED_BYTES + usize::from(declared));
    let expected = match (bytes[12], bytes[13]) {
        (0x20, _) | (0x21, 0x00) => "local",
        (0x21, 0x11) => "v4",
        (0x21, 0x21) => "v6",
        (0x21, 0x31) => "unix",
        other => panic!("{other:?} is no header"),
    };
    match header {
        Header::Local => assert_eq!(expected, "local"),
        Header::Unix => assert_eq!(expected, "unix"),
        Header::Tcp(SocketAddr::V4(address)) if expected == "v4" => {
            assert_eq!(address.ip().octets(), bytes[16..20]);
            assert_eq!(address.port().to_be_bytes(), bytes[24..26]);
        }
        Header::Tcp(address) => {
            assert_eq!(expected, "v6");
            let ip = match address.ip() {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            assert_eq!(ip.octets(), bytes[16..32]);
            assert_eq!(address.port().to_be_bytes(), bytes[48..50]);
        }
    }
    size
}

/// Strangers are not believed; and of trusted peers, what a walk says that takes no care to be quick.
fn check_forwarded(
    forwarded: &Forwarded,
    is_trusted: bool,
    trusted: &TrustedProxies,
    request: &Request<'_>,
) {
    if !is_trusted {
        assert_eq!(*forwarded, Forwarded::default());
        return;
    }
    if let Some((host, _)) = &forwarded.host {
        assert!(!host.is_empty() && host.is_ascii() && !host.contains([' ', '/', '@', ',']));
        assert_eq!(*host, host.to_ascii_lowercase());
    }
    let entries: Vec<Option<SocketAddr>> = request
        .elements("x-forwarded-for")
        .map(|entry| address(std::str::from_utf8(entry).ok()?))
        .collect();
    let believed: Vec<SocketAddr> = entries.iter().rev().map_while(|entry| *entry).collect();
    let believed = &believed[..believed.len().min(HOPS_MAX)];
    let is_client = |entry: &&SocketAddr| !trusted.contains(entry.ip());
    let expected = believed.iter().find(is_client).or(believed.last());
    assert_eq!(forwarded.client.as_ref(), expected, "{entries:?}");
}

fn address(text: &str) -> Option<SocketAddr> {
    let port = |text: &str| text.parse::<SocketAddr>().ok();
    let plain = || Some(SocketAddr::new(text.parse().ok()?, 0));
    let bracketed = || port(&format!("{text}:0")).filter(|_| text.starts_with('['));
    let found = port(text).or_else(plain).or_else(bracketed)?;
    Some(SocketAddr::new(found.ip().to_canonical(), found.port()))
}
