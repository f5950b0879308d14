//! X-Forwarded-For, -Host and -Proto: what proxies in front say of a request, as far as they are believed.
//!
//! Each proxy puts the address that it was spoken to from at the end of X-Forwarded-For. So the list is true from its
//! end up to the first address that is no trusted proxy's: that is the client. What stands before it the client may have
//! written itself, and nobody looks at it. Host and scheme are taken from the proxy that speaks to us, if it is trusted;
//! where several are listed, the last is its own word.
//!
//! It knows no connection. Invariants: without a trusted peer nothing is believed; no entry that a stranger wrote
//! decides anything.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::address::RemoteAddress;
use crate::address::proxies::TrustedProxies;

use super::http::Request;
use super::origin::{Authority, parse_authority};

/// Hops that are gone back at most: more proxies than anybody stands behind.
const HOPS_MAX: usize = 32;

/// What is believed of a request's origin. Nothing, by default.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Forwarded {
    /// Who sent it, if a proxy said so. The port is 0 if it was not said.
    pub client: Option<SocketAddr>,
    /// The host that it was sent to.
    pub host: Option<Authority>,
    /// The scheme that it was sent by.
    pub scheme: Option<Scheme>,
    /// A proxy relays it, as the PROXY header before it says. That is not of the request, and not read here.
    pub is_relayed: bool,
}

/// How a client speaks to the first proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// In clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// The port that need not be named.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

impl Forwarded {
    /// What is believed of a request that this peer sent.
    pub fn read(
        trusted: &TrustedProxies,
        peer: &RemoteAddress,
        request: &Request<'_>,
    ) -> Forwarded {
        if !trusted.trusts(peer) {
            return Forwarded::default();
        }
        let host = request.elements("x-forwarded-host").last();
        let scheme = request.elements("x-forwarded-proto").last();
        Forwarded {
            client: client(trusted, request),
            host: host.and_then(parse_authority),
            scheme: scheme.and_then(read_scheme),
            is_relayed: false,
        }
    }
}

/// The first address from the end that is no trusted proxy's; or the last that could be read, if something that is no
/// address stands before it.
fn client(trusted: &TrustedProxies, request: &Request<'_>) -> Option<SocketAddr> {
    let mut client = None;
    let lines: Vec<&[u8]> = request.values("x-forwarded-for").collect();
    let entries = lines
        .iter()
        .rev()
        .flat_map(|line| line.rsplit(|&byte| byte == b','))
        .map(|entry| entry.trim_ascii())
        .filter(|entry| !entry.is_empty());
    for entry in entries.take(HOPS_MAX) {
        let Some(address) = read_address(entry) else {
            break;
        };
        client = Some(address);
        if !trusted.contains(address.ip()) {
            break;
        }
    }
    client
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn read_address(entry: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']');
    let address = if let Ok(ip) = text.parse::<IpAddr>() {
        SocketAddr::new(ip, 0)
    } else if let Some(ip) = in_brackets() {
        SocketAddr::new(ip.parse::<Ipv6Addr>().ok()?.into(), 0)
    } else {
        text.parse().ok()?
    };
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

fn read_scheme(word: &[u8]) -> Option<Scheme> {
    match &word.to_ascii_lowercase()[..] {
        b"http" | b"ws" => Some(Scheme::Http),
        b"https" | b"wss" => Some(Scheme::Https),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::http::parse_head;

    const PROXIES: [&str; 3] = ["10.0.0.0/8", "fd00::/8", "unix"];

    fn read(peer: &RemoteAddress, lines: &[&str]) -> Forwarded {
        let head = format!("GET / HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n"));
        let request = parse_head(head.as_bytes(), 8192, 64);
        let request = request.expect("good").expect("complete");
        let trusted = TrustedProxies::read(PROXIES).expect("networks");
        Forwarded::read(&trusted, peer, &request)
    }

    fn proxy() -> RemoteAddress {
        RemoteAddress::at("10.0.0.1:1".parse().expect("an address"))
    }

    #[test]
    fn the_client_is_the_last_that_is_no_proxy() {
        let check = |lines: &[&str], expected: &str| {
            let lines: Vec<String> = lines
                .iter()
                .map(|line| format!("X-Forwarded-For: {line}"))
                .collect();
            let lines: Vec<&str> = ["A: b"]
                .into_iter()
                .chain(lines.iter().map(|line| &line[..]))
                .collect();
            let client = read(&proxy(), &lines).client;
            let written = client.map_or_else(String::new, |client| client.to_string());
            assert_eq!(written, expected, "{lines:?}");
        };
        check(&[], "");
        check(&[""], "");
        check(&["192.0.2.1"], "192.0.2.1:0");
        check(&["192.0.2.1:443"], "192.0.2.1:443");
        check(&["2001:db8::1"], "[2001:db8::1]:0");
        check(&["[2001:db8::1]"], "[2001:db8::1]:0");
        check(&["[2001:db8::1]:9"], "[2001:db8::1]:9");
        check(&["::ffff:192.0.2.1"], "192.0.2.1:0");
        check(&["[::ffff:192.0.2.1]:7"], "192.0.2.1:7");
        // Whatever stands before it, the client may have written itself.
        check(&["198.51.100.9, 192.0.2.1"], "192.0.2.1:0");
        check(&["10.9.9.9, 192.0.2.1"], "192.0.2.1:0");
        check(&["rubbish, 192.0.2.1"], "192.0.2.1:0");
        check(&["192.0.2.1, 10.0.0.2"], "192.0.2.1:0");
        check(&["198.51.100.9,192.0.2.1,10.0.0.2,fd00::1"], "192.0.2.1:0");
        // Several lines are one list; empty elements are none.
        check(&["198.51.100.9", "192.0.2.1", "10.0.0.2"], "192.0.2.1:0");
        check(&["192.0.2.1, ,", " , 10.0.0.2,"], "192.0.2.1:0");
        // All of them proxies: the first of them began it.
        check(&["10.0.0.3, 10.0.0.2"], "10.0.0.3:0");
        // What is no address ends the walk.
        check(&["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2:0");
        for word in [
            "unknown",
            "_hidden",
            "192.0.2",
            "192.0.2.1:",
            "192.0.2.1:99999",
            "192.0.2.1:+1",
            "[192.0.2.1]",
            "[2001:db8::1",
            "2001:db8::1]:80",
            "\"192.0.2.1\"",
            "for=192.0.2.1",
            "192.0.2.1 10.0.0.2",
            "\u{661}92.0.2.1",
            "host.example",
        ] {
            check(&[word], "");
            check(&[&format!("192.0.2.1, {word}")], "");
        }
        // However many there are.
        let proxies = "10.0.0.2, ".repeat(HOPS_MAX);
        check(&[&format!("192.0.2.1, {proxies}")], "10.0.0.2:0");
        let proxies = "10.0.0.2, ".repeat(HOPS_MAX - 1);
        check(&[&format!("192.0.2.1, {proxies}")], "192.0.2.1:0");
    }

    #[test]
    fn host_and_scheme_are_the_last_word() {
        let check = |line: &str, host: Option<(&str, Option<u16>)>, scheme: Option<Scheme>| {
            let found = read(&proxy(), &[line]);
            let host = host.map(|(host, port)| (host.to_owned(), port));
            assert_eq!((found.host, found.scheme), (host, scheme), "{line}");
        };
        check(
            "X-Forwarded-Host: a.example",
            Some(("a.example", None)),
            None,
        );
        check(
            "x-forwarded-host: spoofed.example, A.example:81",
            Some(("a.example", Some(81))),
            None,
        );
        check(
            "X-Forwarded-Host: b.example\r\nX-Forwarded-Host: [0:0::1]:8",
            Some(("[::1]", Some(8))),
            None,
        );
        check("X-Forwarded-Host: u@a.example", None, None);
        check("X-Forwarded-Host: a.example, a b", None, None);
        check("X-Forwarded-Host:", None, None);
        for (word, scheme) in [
            ("https", Some(Scheme::Https)),
            ("HTTPS", Some(Scheme::Https)),
            ("wss", Some(Scheme::Https)),
            ("http", Some(Scheme::Http)),
            ("ws", Some(Scheme::Http)),
            ("https, http", Some(Scheme::Http)),
            ("http, gopher", None),
            ("", None),
        ] {
            check(&format!("X-Forwarded-Proto: {word}"), None, scheme);
        }
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let lines = [
            "X-Forwarded-For: 192.0.2.1",
            "X-Forwarded-Host: a.example",
            "X-Forwarded-Proto: https",
        ];
        for (peer, is_believed) in [
            (proxy(), true),
            (RemoteAddress::unix(), true),
            (RemoteAddress::at("192.0.2.9:1".parse().unwrap()), false),
            (RemoteAddress::known("10.0.0.1:1"), false),
            (RemoteAddress::default(), false),
        ] {
            let found = read(&peer, &lines);
            assert_eq!(found != Forwarded::default(), is_believed, "{peer}");
        }
    }
}
