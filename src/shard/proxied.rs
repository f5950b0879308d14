//! Who is behind a proxy, and whether there is room for one more of that address.
//!
//! The peer is whom a connection comes from. If it is trusted, a PROXY header before the first byte names the one that
//! it relays; and if that one is trusted too (or there was no header), the X-Forwarded headers of the request name the
//! client behind it. So each word is believed only as far as the one who said it is: a proxy that passes on the
//! headers of its clients unread is not made their author.
//!
//! None of this is kept while a head is incomplete: it is read anew from the bytes that there are, and a connection that
//! is handed over takes them along under its peer's address. A session carries nothing for it.
//!
//! An address is counted at the edge, for all shards together: of most connections when they are accepted, of those
//! that a proxy relays when their client is known.

use std::net::IpAddr;
use std::sync::Arc;

use crate::address::proxies::TrustedProxies;
use crate::address::{RemoteAddress, SessionId};
use crate::error::CloseReason;
use crate::limits::Limits;
use crate::ws::forwarded::Forwarded;
use crate::ws::http::{self, Reject, Request};
use crate::ws::proxy;

use super::Shard;
use super::peer::Arriving;
use super::session::State;
use super::settings::Settings;

/// The answer to bytes that are refused, and perhaps a line for the log.
pub(super) type Refused = (Reject, Option<String>);

/// A PROXY header that was read, or that there is none.
#[derive(Debug)]
pub(super) struct Preface {
    /// Its bytes, which are not the client's.
    pub size: usize,
    /// Whom it names; `None`: the peer speaks for itself.
    pub client: Option<RemoteAddress>,
}

impl Preface {
    const NONE: Preface = Preface {
        size: 0,
        client: None,
    };

    /// Reads the PROXY header at the front of a connection's first bytes, whatever protocol follows. `None`: more bytes
    /// are needed to tell.
    ///
    /// # Errors
    /// What is no good header, or not this peer's to send.
    pub fn read(
        trusted: &TrustedProxies,
        peer: &RemoteAddress,
        bytes: &[u8],
    ) -> Result<Option<Preface>, Refused> {
        if !trusted.trusts(peer) {
            if bytes.starts_with(&proxy::SIGNATURE) {
                let log = "a PROXY header from an address that --trust-proxy does not name";
                return Err(bad("a PROXY header is not taken from this address", log));
            }
            return Ok(Some(Preface::NONE));
        }
        if bytes.starts_with(b"PROXY ") {
            let reason = "a PROXY header of version 1; version 2 is taken";
            return Err(bad(reason, reason));
        }
        if !proxy::begins(bytes) {
            return Ok(Some(Preface::NONE));
        }
        match proxy::parse(bytes) {
            Ok(None) => Ok(None),
            Ok(Some((size, header))) => Ok(Some(Preface {
                size,
                client: match header {
                    proxy::Header::Local => None,
                    proxy::Header::Tcp(address) => Some(RemoteAddress::at(address)),
                    proxy::Header::Unix => Some(RemoteAddress::unix()),
                },
            })),
            Err(violation) => Err(bad(violation.as_str(), violation.as_str())),
        }
    }
}

fn bad(reason: &'static str, log: &str) -> Refused {
    let reject = Reject {
        status: 400,
        reason,
    };
    (reject, Some(log.to_owned()))
}

/// A whole request head, and what stood before it.
#[derive(Debug)]
pub(super) struct Head<'a> {
    preface: Preface,
    pub request: Request<'a>,
}

impl<'a> Head<'a> {
    /// Reads the head that a connection of this peer begins with. `None`: incomplete.
    ///
    /// # Errors
    /// As [`Preface::read`] and [`http::parse_head`]; the bound on the head holds for both together.
    pub fn parse(
        trusted: &TrustedProxies,
        peer: &RemoteAddress,
        limits: &Limits,
        bytes: &'a [u8],
    ) -> Result<Option<Head<'a>>, Refused> {
        let Some(preface) = Preface::read(trusted, peer, bytes)? else {
            return Ok(None);
        };
        let request = http::parse_head(
            &bytes[preface.size..],
            limits.handshake_bytes_max.saturating_sub(preface.size),
            limits.handshake_headers_max,
        );
        match request {
            Ok(request) => Ok(request.map(|request| Head { preface, request })),
            Err(reject) => Err((reject, None)),
        }
    }

    /// Of what stands before the request.
    pub fn preface_size(&self) -> usize {
        self.preface.size
    }

    /// The bytes of both.
    pub fn size(&self) -> usize {
        self.preface.size + self.request.head_size
    }

    /// Who sent it, if not the peer itself; and what else proxies say of the request.
    pub fn client(
        &self,
        trusted: &TrustedProxies,
        peer: &RemoteAddress,
    ) -> (Option<RemoteAddress>, Forwarded) {
        let relayed = self.preface.client.as_ref();
        let mut forwarded = Forwarded::read(trusted, relayed.unwrap_or(peer), &self.request);
        forwarded.is_relayed = relayed.is_some();
        let client = forwarded.client.map(RemoteAddress::at);
        (client.or_else(|| relayed.cloned()), forwarded)
    }
}

/// The IP address whose connections are counted with one from here. A trusted proxy's are not: it stands for many.
pub(super) fn counted(settings: &Settings, client: &RemoteAddress) -> Option<IpAddr> {
    if settings.limits.per_address_max == 0 {
        return None;
    }
    client.ip().filter(|ip| !settings.trusted.contains(*ip))
}

impl Shard {
    /// The IP address that a connection is to be counted for before [`Shard::accept`], if it is: not where a proxy may
    /// still say whom it relays. One too many is accepted all the same, and then told by [`Shard::refuse_address`].
    pub fn counted(&self, peer: &RemoteAddress) -> Option<IpAddr> {
        counted(&self.settings, peer)
    }

    /// There is room for the session that [`Effect::AskSeat`](super::Effect::AskSeat) asked for; `host` is what came with
    /// that.
    pub fn seated(&mut self, id: SessionId, host: Option<Arc<Arriving>>) {
        let session = self.sessions.find(id);
        if !session.is_some_and(|session| matches!(session.state, State::Admission { .. })) {
            return;
        }
        self.go_on(id, host);
    }

    /// There is no room for one more connection of its address: it gets 429 and nothing else.
    pub fn refuse_address(&mut self, id: SessionId) {
        let session = self.sessions.find(id);
        if session.is_none_or(|session| session.is_ending()) {
            return;
        }
        self.stats.refused += 1;
        if self.is_of_resp(id) {
            let error = b"-ERR too many connections from this address\r\n";
            return self.close_after(id, CloseReason::HandshakeRefused, error);
        }
        if self.is_of_peers(id) {
            let text = b"too many connections from this address";
            return self.refuse_peer(id, "busy", text);
        }
        let mut answer = Vec::new();
        http::response(
            429,
            "text/plain",
            &[("Retry-After", "5")],
            b"too many connections from this address\n",
            &mut answer,
        );
        self.close_after(id, CloseReason::HandshakeRefused, &answer);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Ending;
    use super::super::settings::Admission;
    use super::super::testing::{HEAD, House, Who, brief, frame};
    use super::*;
    use crate::protocol::peer::{Admitted, Watch};
    use crate::ws::frame::Opcode;
    use crate::ws::origin::OriginRules;

    const PROXY: &str = "10.0.0.1:1";
    const STRANGER: &str = "192.0.2.9:1";
    const WHOAMI: &str = r#"{"type":"whoami"}"#;

    fn at(address: &str) -> RemoteAddress {
        RemoteAddress::at(address.parse().expect("an address"))
    }

    fn house(per_address_max: usize) -> House {
        House::with(2, |settings| {
            settings.trusted = TrustedProxies::read(["10.0.0.0/8", "unix"]).expect("networks");
            settings.limits.per_address_max = per_address_max;
        })
    }

    /// A PROXY header that names a client; none for the proxy itself.
    fn header(client: Option<[u8; 4]>) -> Vec<u8> {
        let mut bytes = proxy::SIGNATURE.to_vec();
        match client {
            Some(ip) => {
                bytes.extend([0x21, 0x11, 0, 12]);
                bytes.extend(ip);
                bytes.extend([10, 0, 0, 1, 0, 77, 0, 80]);
            }
            None => bytes.extend([0x20, 0, 0, 0]),
        }
        bytes
    }

    fn with(headers: &str) -> Vec<u8> {
        let headers = format!("HTTP/1.1\r\n{headers}");
        HEAD.replace("HTTP/1.1\r\n", &headers).into_bytes()
    }

    fn say(house: &mut House, peer: RemoteAddress, bytes: &[u8]) -> Who {
        let client = house.accept_from(0, 0, false, peer);
        house.bytes(client, bytes);
        house.settle();
        client
    }

    fn address(house: &House, client: Who) -> String {
        let id = house.shards[0].client_id(client.id).to_string();
        let views = house.shards[0].connection_views(100);
        let mut views = views.into_iter().filter(|view| view.id == id);
        views.next().expect("it is there").address
    }

    #[test]
    fn a_header_in_any_pieces_names_the_client() {
        let text = frame(Opcode::Text, WHOAMI.as_bytes());
        let all = [&header(Some([192, 0, 2, 1])), HEAD.as_bytes(), &text].concat();
        for cut in 0..=all.len() {
            let mut house = house(0);
            let client = house.accept_from(0, 0, false, at(PROXY));
            for piece in [&all[..cut], &all[cut..]] {
                if !piece.is_empty() {
                    house.bytes(client, piece);
                }
                house.turn(0);
            }
            assert!(house.head(client).starts_with("HTTP/1.1 101 "), "{cut}");
            assert_eq!(brief(&house.read(client)), ["session"], "{cut}");
            assert_eq!(address(&house, client), "192.0.2.1:77");
        }
    }

    #[test]
    fn each_word_is_believed_as_far_as_who_said_it() {
        let check = |peer: RemoteAddress, preface: &[u8], headers: &str, expected: &str| {
            let mut house = house(0);
            let bytes = [preface, &with(headers)].concat();
            let client = say(&mut house, peer, &bytes);
            let head = house.head(client);
            assert!(head.starts_with("HTTP/1.1 101 "), "{headers}: {head}");
            assert_eq!(address(&house, client), expected, "{headers}");
        };
        let forwarded = "X-Forwarded-For: 203.0.113.5, 198.51.100.7\r\n";
        check(at(PROXY), b"", "", PROXY);
        check(at(PROXY), b"", forwarded, "198.51.100.7");
        check(at(STRANGER), b"", forwarded, STRANGER);
        check(RemoteAddress::unix(), b"", "", "unix");
        check(RemoteAddress::unix(), b"", forwarded, "198.51.100.7");
        check(at(PROXY), &header(None), "", PROXY);
        check(at(PROXY), &header(None), forwarded, "198.51.100.7");
        // Relayed for another proxy, which wrote the headers.
        let relayed = header(Some([10, 7, 7, 7]));
        check(at(PROXY), &relayed, "", "10.7.7.7:77");
        check(at(PROXY), &relayed, forwarded, "198.51.100.7");
        // Relayed for a client, which may have written them itself.
        let relayed = header(Some([192, 0, 2, 1]));
        check(at(PROXY), &relayed, forwarded, "192.0.2.1:77");
        check(RemoteAddress::unix(), &relayed, "", "192.0.2.1:77");
    }

    #[test]
    fn a_header_that_is_bad_or_not_this_peers_is_refused() {
        let good = header(Some([192, 0, 2, 1]));
        let mut other_version = good.clone();
        other_version[12] = 0x31;
        let twice = [&good[..], &good].concat();
        for (peer, preface, status, part) in [
            (STRANGER, &good[..], 400, "not taken from this address"),
            (STRANGER, &good[..5], 400, "empty line"),
            (STRANGER, b"PROXY TCP4 ", 400, "\n"),
            (PROXY, b"PROXY TCP4 192.0.2.1 ", 400, "version 2 is taken"),
            (PROXY, &other_version, 400, "another version"),
            (PROXY, &twice, 400, "empty line"),
            (PROXY, b"\r\nGET", 400, "empty line"),
        ] {
            let mut house = house(0);
            let bytes = [preface, HEAD.as_bytes()].concat();
            let client = say(&mut house, at(peer), &bytes);
            let head = house.head(client);
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert!(head.contains(part), "{part}: {head}");
            assert_eq!(house.shards[0].stats().handshakes_refused, 1);
        }
        // Without trusted proxies nobody may.
        let mut house = House::new(1);
        let client = say(&mut house, at(PROXY), &good);
        assert!(house.head(client).starts_with("HTTP/1.1 400 "));
    }

    #[test]
    fn a_header_counts_for_the_bound_and_the_time() {
        for (bytes_max, status) in [(28 + HEAD.len(), 101), (28 + HEAD.len() - 1, 431), (1, 431)] {
            let mut house = House::with(1, |settings| {
                settings.trusted = TrustedProxies::read(["10.0.0.0/8"]).expect("a network");
                settings.limits.handshake_bytes_max = bytes_max;
            });
            let bytes = [&header(Some([192, 0, 2, 1])), HEAD.as_bytes()].concat();
            let client = say(&mut house, at(PROXY), &bytes);
            let head = house.head(client);
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        }
        let mut house = house(0);
        let client = say(&mut house, at(PROXY), &header(None)[..9]);
        house.pass(9_999);
        house.bytes(client, &header(None)[9..]);
        house.turn(0);
        assert_eq!(house.head(client), "");
        house.pass(1);
        house.turn(0);
        assert!(house.head(client).starts_with("HTTP/1.1 408 "));
    }

    #[test]
    fn a_connection_that_is_dealt_is_read_anew() {
        let mut house = house(0);
        let head = HEAD.replace("GET / ", "GET /ws ");
        let all = [&header(Some([192, 0, 2, 1])), head.as_bytes()].concat();
        // The first stays.
        for is_handed_over in [false, true] {
            let client = house.accept_from(0, 1, false, RemoteAddress::unix());
            house.bytes(client, &all[..20]);
            house.turn(0);
            house.bytes(client, &all[20..]);
            house.turn(0);
            assert_eq!(house.handed_over.len(), usize::from(is_handed_over));
        }
        let (_, to, bytes) = house.handed_over.remove(0);
        assert_eq!((to.index(), &bytes), (1, &all));
        let client = house.adopt_from(1, 1, RemoteAddress::unix());
        house.bytes(client, &bytes);
        house.turn(1);
        assert!(house.head(client).starts_with("HTTP/1.1 101 "));
        let view = house.shards[1].connection_views(1).remove(0);
        assert_eq!(view.address, "192.0.2.1:77");
    }

    #[test]
    fn pages_of_the_host_that_the_proxy_tells_may_connect() {
        let check = |peer: &str, headers: &str, status: u16| {
            let mut house = House::with(1, |settings| {
                settings.trusted = TrustedProxies::read(["10.0.0.0/8"]).expect("a network");
                settings.listeners[0].origins = OriginRules::default();
            });
            let client = say(&mut house, at(peer), &with(headers));
            let head = house.head(client);
            let expected = format!("HTTP/1.1 {status} ");
            assert!(head.starts_with(&expected), "{peer} {headers}: {head}");
        };
        let page = "Origin: https://a.example\r\n";
        let host = format!("{page}X-Forwarded-Host: a.example\r\n");
        check(PROXY, page, 403);
        check(PROXY, &host, 101);
        check(STRANGER, &host, 403);
        check(PROXY, &format!("{host}X-Forwarded-Proto: https\r\n"), 101);
        check(PROXY, &format!("{host}X-Forwarded-Proto: http\r\n"), 403);
    }

    #[test]
    fn whose_address_matters_and_is_not_known_gets_503() {
        for (per_address_max, networks, status) in
            [(0, &["unix"][..], 101), (1, &[], 503), (0, &["::1"], 503)]
        {
            let mut house = House::with(1, |settings| {
                settings.trusted = TrustedProxies::read(networks.iter().copied()).expect("words");
                settings.limits.per_address_max = per_address_max;
            });
            let client = say(&mut house, RemoteAddress::default(), HEAD.as_bytes());
            let head = house.head(client);
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            let refused = house.shards[0].stats().refused;
            assert_eq!(refused, u64::from(status == 503));
        }
    }

    #[test]
    fn who_is_counted_from_the_start() {
        let house = house(1);
        for (peer, expected) in [
            (at(STRANGER), Some("192.0.2.9")),
            (at("[2001:db8::1]:1"), Some("2001:db8::1")),
            (at(PROXY), None),
            (RemoteAddress::unix(), None),
            (RemoteAddress::default(), None),
        ] {
            let expected = expected.map(|ip| ip.parse().expect("an address"));
            assert_eq!(house.shards[0].counted(&peer), expected, "{peer}");
        }
        assert_eq!(House::new(1).shards[0].counted(&at(STRANGER)), None);
    }

    #[test]
    fn who_is_relayed_waits_for_a_seat() {
        let mut house = house(1);
        house.seats = 1;
        let text = frame(Opcode::Text, WHOAMI.as_bytes());
        let relayed = [&header(Some([192, 0, 2, 1])), HEAD.as_bytes(), &text].concat();
        let forwarded = [&with("X-Forwarded-For: 192.0.2.2\r\n")[..], &text].concat();

        let first = house.accept_from(0, 0, false, at(PROXY));
        house.bytes(first, &relayed);
        house.turn(0);
        assert_eq!(house.head(first), "", "its seat is asked for");
        // Taken before the pause took effect.
        house.bytes(first, &text);
        house.settle();
        assert!(house.head(first).starts_with("HTTP/1.1 101 "));
        assert_eq!(brief(&house.read(first)), ["session", "session"]);
        assert!(!house.is_paused(first));

        let second = say(&mut house, at(PROXY), &forwarded);
        let answer = house.head(second);
        assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
        assert!(answer.contains("\r\nRetry-After: 5\r\n"), "{answer}");
        assert_eq!(house.shards[0].stats().refused, 1);
        assert!(house.is_shut(second));

        let asked: Vec<String> = house
            .seats_asked
            .iter()
            .map(|of| of.1.to_string())
            .collect();
        assert_eq!(asked, ["192.0.2.1", "192.0.2.2"]);

        // Nobody else asks: who was counted already, who is not limited, who only wants a page.
        house.seats_asked.clear();
        let page = b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
        let from_proxies = with("X-Forwarded-For: 10.0.0.9\r\n");
        for (peer, bytes, status) in [
            (STRANGER, &with("X-Forwarded-For: 192.0.2.1\r\n")[..], 101),
            (PROXY, HEAD.as_bytes(), 101),
            (PROXY, &from_proxies, 101),
            (PROXY, page, 200),
        ] {
            let client = say(&mut house, at(peer), bytes);
            let head = house.head(client);
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        }
        assert!(house.seats_asked.is_empty());
    }

    #[test]
    fn the_host_is_asked_about_who_has_a_seat() {
        let mut house = House::with(1, |settings| {
            settings.trusted = TrustedProxies::read(["10.0.0.0/8"]).expect("a network");
            settings.limits.per_address_max = 1;
            settings.admission = Admission::Host;
        });
        house.seats = 1;
        let host = house.host(0, "h", Watch::ADMIT);
        let head = with("X-Forwarded-For: 192.0.2.1\r\n");
        let (first, second) = (
            say(&mut house, at(PROXY), &head),
            say(&mut house, at(PROXY), &head),
        );
        let slot = first.id.slot;
        assert_eq!(house.told(host), [format!("admit 0:{slot} native /")]);
        assert!(house.head(second).starts_with("HTTP/1.1 429 "));
        house.verdict(host, first, Admitted::Yes { user: None });
        assert!(house.head(first).starts_with("HTTP/1.1 101 "));
    }

    #[test]
    fn who_ends_while_it_waits_for_a_seat_is_forgotten() {
        for is_seated in [true, false] {
            let mut house = house(1);
            house.seats = usize::from(is_seated);
            let client = house.accept_from(0, 0, false, at(PROXY));
            house.bytes(client, &with("X-Forwarded-For: 192.0.2.1\r\n"));
            house.turn(0);
            assert_eq!(house.seats_asked.len(), 1);
            house.shards[0].ended(client.id, Ending::Failed);
            house.settle();
            assert_eq!(house.closed(client), Some(false));
            house.check_empty(0);

            // And in a drain it is not let in.
            house.seats = usize::from(is_seated);
            let client = house.accept_from(0, 0, false, at(PROXY));
            house.bytes(client, &with("X-Forwarded-For: 192.0.2.1\r\n"));
            house.turn(0);
            house.shards[0].quiesce();
            house.settle();
            let status = if is_seated { 503 } else { 429 };
            let head = house.head(client);
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        }
    }
}
