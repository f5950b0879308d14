//! Who may speak to the admin listener: keys, loopback names, and the count of wrong keys. Knows no sockets and
//! no clock; it is given names, bytes and moments.
//!
//! Two doors are kept shut. A stranger on the network must not publish: beyond loopback a key is needed
//! (promise 22), compared in constant time and not to be guessed (promise 24). And a web page must not act
//! through the operator's browser: on loopback, `Host` must be a loopback name (a page whose own name was rebound
//! to 127.0.0.1 shows its own name there), and no foreign `Origin` publishes.

use std::collections::HashMap;
use std::fmt;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::address::network;

/// The secret that a publisher shows as `Authorization: Bearer KEY`. Never printed.
#[derive(Clone)]
pub struct Key(Box<[u8]>);

impl Key {
    /// A key as configured. An empty one fits nothing.
    pub fn new(key: impl Into<Vec<u8>>) -> Key {
        Key(key.into().into_boxed_slice())
    }

    /// Is this the key? The time it takes tells the key's length and nothing else.
    pub fn is(&self, given: &[u8]) -> bool {
        if self.0.is_empty() || self.0.len() != given.len() {
            return false;
        }
        let bytes = self.0.iter().zip(given);
        // The barrier keeps the compiler from leaving the loop at the first difference.
        bytes.fold(0, |different, (mine, theirs)| {
            black_box(different | (mine ^ theirs))
        }) == 0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Is this `Host` (RFC 9110, 7.2: a name or address, and perhaps a port) this machine's own?
pub fn is_loopback_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                return address.parse::<Ipv6Addr>().is_ok_and(is_loopback_v6) && is_port(port);
            }
            None => return false,
        },
        None => match host.find(':') {
            Some(colon) => host.split_at(colon),
            None => (host, ""),
        },
    };
    let loopback = name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback());
    loopback && is_port(port)
}

/// Is this `Origin` (RFC 6454, 7) a page of this machine?
pub fn is_loopback_origin(origin: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .find_map(|scheme| origin.strip_prefix(scheme))
        .is_some_and(is_loopback_host)
}

fn is_loopback_v6(address: Ipv6Addr) -> bool {
    address.is_loopback()
        || address
            .to_ipv4_mapped()
            .is_some_and(|address| address.is_loopback())
}

/// Nothing, or a colon and a number, or none (RFC 3986, 3.2.3).
fn is_port(text: &str) -> bool {
    text.is_empty()
        || text.strip_prefix(':').is_some_and(|digits| {
            digits.is_empty() || !digits.starts_with('+') && digits.parse::<u16>().is_ok()
        })
}

/// Wrong keys within [`FAILURES_WINDOW`] after which an address is not heard for [`BLOCK_TIME`].
pub const FAILURES_MAX: u32 = 10;
/// How long a wrong key counts.
pub const FAILURES_WINDOW: Duration = Duration::from_secs(60);
/// How long an address that guesses is answered 429.
pub const BLOCK_TIME: Duration = Duration::from_secs(5 * 60);
/// Addresses that are remembered; past it the one that failed longest ago is forgotten.
pub const ADDRESSES_MAX: usize = 1_024;

/// The wrong keys of the last minutes, by address.
#[derive(Default, Debug)]
pub struct Failures {
    addresses: HashMap<IpAddr, Record>,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    count: u32,
    /// The first failure of the window, or the moment of the block.
    since: Instant,
}

impl Record {
    fn end(self) -> Instant {
        let blocked = self.count >= FAILURES_MAX;
        self.since + if blocked { BLOCK_TIME } else { FAILURES_WINDOW }
    }
}

impl Failures {
    /// How long this address is still refused, if it is.
    pub fn blocked(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let record = self.addresses.get(&network(address))?;
        let rest = record.end().saturating_duration_since(now);
        (record.count >= FAILURES_MAX && !rest.is_zero()).then_some(rest)
    }

    /// Counts a wrong key.
    pub fn add(&mut self, address: IpAddr, now: Instant) {
        let address = network(address);
        if self.addresses.len() >= ADDRESSES_MAX && !self.addresses.contains_key(&address) {
            self.addresses.retain(|_, record| record.end() > now);
            let oldest = self.addresses.iter().min_by_key(|(_, record)| record.since);
            if let Some((&oldest, _)) = oldest.filter(|_| self.addresses.len() >= ADDRESSES_MAX) {
                self.addresses.remove(&oldest);
            }
        }
        let fresh = Record {
            count: 0,
            since: now,
        };
        let record = self.addresses.entry(address).or_insert(fresh);
        if record.end() <= now {
            *record = fresh;
        }
        record.count += 1;
        if record.count == FAILURES_MAX {
            record.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_is_the_key() {
        for (key, given, expected) in [
            ("secret", "secret", true),
            ("secret", "secreT", false),
            ("secret", "secre", false),
            ("secret", "secrets", false),
            ("secret", "secretsecret", false),
            ("secret", "", false),
            ("", "", false),
            ("", "x", false),
        ] {
            assert_eq!(
                Key::new(key).is(given.as_bytes()),
                expected,
                "{key} {given}"
            );
        }
        assert_eq!(format!("{:?}", Key::new("secret")), "Key(..)");
    }

    #[test]
    fn hosts() {
        for (host, expected) in [
            ("localhost", true),
            ("LocalHost:8001", true),
            ("127.0.0.1", true),
            ("127.0.0.1:8001", true),
            ("127.8.9.1:1", true),
            ("[::1]", true),
            ("[::1]:8001", true),
            ("[::ffff:127.0.0.1]:80", true),
            ("localhost:", true),
            ("", false),
            (":8001", false),
            ("::1", false),
            ("[::1", false),
            ("[::1]x", false),
            ("[::2]:8001", false),
            ("localhost:99999", false),
            ("localhost:+80", false),
            ("localhost:80:80", false),
            ("localhost.evil.example", false),
            ("evil-localhost", false),
            ("127.0.0.1.evil.example", false),
            ("127.1", false),
            ("user@localhost", false),
            ("localhost:80@evil.example", false),
            ("10.0.0.1:8001", false),
            ("evil.example:8001", false),
        ] {
            assert_eq!(is_loopback_host(host), expected, "{host}");
        }
    }

    #[test]
    fn origins() {
        for (origin, expected) in [
            ("http://localhost:3000", true),
            ("https://127.0.0.1", true),
            ("http://[::1]:8000", true),
            ("null", false),
            ("", false),
            ("localhost", false),
            ("file://localhost", false),
            ("http://evil.example", false),
            ("http://localhost.evil.example", false),
            ("http://localhost/path", false),
            ("http://localhost@evil.example", false),
            ("http://localhost http://evil.example", false),
        ] {
            assert_eq!(is_loopback_origin(origin), expected, "{origin}");
        }
    }

    #[test]
    fn ten_wrong_keys_within_a_minute_block_for_five() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let guesser: IpAddr = "192.0.2.1".parse().unwrap();
        let mut failures = Failures::default();
        for second in 0..9 {
            failures.add(guesser, at(second));
        }
        assert_eq!(failures.blocked(guesser, at(9)), None);
        failures.add(guesser, at(10));
        assert_eq!(failures.blocked(guesser, at(10)), Some(BLOCK_TIME));
        assert_eq!(
            failures.blocked(guesser, at(309)),
            Some(Duration::from_secs(1))
        );
        assert_eq!(failures.blocked(guesser, at(310)), None);
        assert_eq!(
            failures.blocked("192.0.2.2".parse().unwrap(), at(10)),
            None,
            "its neighbour"
        );
        failures.add(guesser, at(311));
        assert_eq!(
            failures.blocked(guesser, at(311)),
            None,
            "the count is anew"
        );
    }

    #[test]
    fn slow_failures_do_not_add_up() {
        let start = Instant::now();
        let mut failures = Failures::default();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for minute in 0..30 {
            let now = start + Duration::from_secs(60 * minute);
            failures.add(address, now);
            assert_eq!(failures.blocked(address, now), None);
        }
    }

    #[test]
    fn a_whole_v6_network_is_one_and_the_table_is_bounded() {
        let now = Instant::now();
        let mut failures = Failures::default();
        for host in 0..FAILURES_MAX {
            failures.add(format!("2001:db8::{host:x}").parse().unwrap(), now);
        }
        assert!(
            failures
                .blocked("2001:db8::ffff".parse().unwrap(), now)
                .is_some()
        );
        for index in 0..2 * ADDRESSES_MAX as u32 {
            failures.add(IpAddr::V4(Ipv4Addr::from_bits(index)), now);
        }
        assert_eq!(failures.addresses.len(), ADDRESSES_MAX);
    }
}
