//! Who is let in, as whom, and who is not heard any more.

use serde_json::{Value, json};

use super::super::auth::{Access, AccessRule, Who as Whom};
use super::super::settings::{Admission, Settings};
use super::super::testing::{HEAD, House, Who, brief, bytes, publish};
use super::*;
use crate::address::RemoteAddress;
use crate::protocol::peer::{Admitted, Watch};
use crate::token::testing::{self, keys};

const NOW: u64 = 1_500_000_000;

/// A house where tokens are asked for.
fn house_with(change: impl FnOnce(&mut Settings)) -> House {
    let mut house = House::with(2, |settings| {
        settings.access = Access::default().for_authenticated();
        change(settings);
    });
    for shard in &mut house.shards {
        shard.set_credentials(Arc::new(Credentials {
            keys: keys(),
            ..Credentials::default()
        }));
    }
    house
}

fn house() -> House {
    house_with(|_| {})
}

fn token(claims: Value) -> String {
    testing::token(&claims)
}

/// A connection with this query and this header line, and the head that it got.
fn knock(house: &mut House, query: &str, line: &str) -> (Who, String) {
    let client = house.accept(0, 0, false);
    let head = say(house, client, query, line);
    (client, head)
}

/// From this address, on this shard, with this token.
fn knock_from(house: &mut House, shard: usize, ip: &str, token: &str) -> String {
    let client = house.accept(shard, 0, false);
    let address = RemoteAddress::default();
    address.learn_ip(std::net::SocketAddr::new(ip.parse().unwrap(), 7));
    house.session(client).address = address;
    say(house, client, &format!("?token={token}"), "")
}

fn say(house: &mut House, client: Who, query: &str, line: &str) -> String {
    let head = HEAD
        .replace("GET / ", &format!("GET /{query} "))
        .replace("Host: h\r\n", &format!("Host: h\r\n{line}"));
    house.bytes(client, head.as_bytes());
    house.turn(client.shard);
    house.head(client)
}

/// Somebody with these claims who is in.
fn enter(house: &mut House, claims: Value) -> Who {
    let (client, head) = knock(house, &format!("?token={}", token(claims)), "");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client
}

fn name(house: &mut House, client: Who) -> Option<String> {
    let identity = house.session(client).identity.as_ref();
    identity.map(|identity| identity.name.to_string())
}

#[test]
fn a_token_comes_in_the_query_or_in_the_header() {
    let (ann, bob) = (token(json!({"sub": "ann"})), token(json!({"sub": "bob"})));
    let mut house = house();
    for (query, line, expected) in [
        (format!("?token={ann}"), String::new(), Some("ann")),
        (
            format!("?a=b&token={ann}&token=x"),
            String::new(),
            Some("ann"),
        ),
        (
            format!("?token={}", ann.replace('.', "%2E")),
            String::new(),
            Some("ann"),
        ),
        (
            String::new(),
            format!("Authorization: Bearer {bob}\r\n"),
            Some("bob"),
        ),
        (
            String::new(),
            format!("AUTHORIZATION:bearer   {bob} \r\n"),
            Some("bob"),
        ),
        // The header is what a program sends on purpose; what another scheme says is for a proxy.
        (
            format!("?token={ann}"),
            format!("Authorization: Bearer {bob}\r\n"),
            Some("bob"),
        ),
        (
            format!("?token={ann}"),
            "Authorization: Basic eDp5\r\n".to_owned(),
            Some("ann"),
        ),
        (String::new(), format!("Authorization: {bob}\r\n"), None),
        ("?token=".to_owned(), String::new(), None),
        (format!("?Token={ann}"), String::new(), None),
        (String::new(), String::new(), None),
    ] {
        let (client, head) = knock(&mut house, &query, &line);
        if expected.is_some() {
            assert!(head.starts_with("HTTP/1.1 101 "), "{query} {line} {head}");
            assert_eq!(name(&mut house, client).as_deref(), expected);
        } else {
            assert!(head.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{head}");
            assert!(head.contains("WWW-Authenticate: Bearer\r\n"), "{head}");
            assert!(head.ends_with("\r\n\r\na token is needed\n"), "{head}");
            assert!(house.is_shut(client));
        }
    }
    let stats = house.shards[0].stats();
    assert_eq!((stats.handshakes_refused, stats.unauthenticated), (4, 0));
}

#[test]
fn what_is_shown_must_be_good_even_where_nothing_need_be_shown() {
    let open = |settings: &mut Settings| {
        let rule = AccessRule {
            filter: Filter::dotted("news".into()).unwrap(),
            who: Whom::Anyone,
            subscribe: true,
            publish: false,
        };
        settings.access = Access::new(vec![rule]).for_authenticated();
    };
    for (mut house, is_open) in [(house(), false), (house_with(open), true)] {
        let (client, head) = knock(&mut house, "", "");
        assert_eq!(head.starts_with("HTTP/1.1 101 "), is_open, "{head}");
        if is_open {
            assert_eq!(name(&mut house, client), None);
            let told = house.ask(client, r#"{"type":"subscribe","topic":"news"}"#);
            assert_eq!(brief(&told), ["ack subscribe"]);
            let told = house.ask(client, &publish("news", 1));
            assert_eq!(brief(&told), ["error publish not_allowed"]);
        }
        let expired = token(json!({"sub": "ann", "exp": NOW}));
        let (message, signature) = expired.rsplit_once('.').unwrap();
        let forged = format!("{message}.{}", "A".repeat(signature.len()));
        for (shown, reason) in [
            (expired.as_str(), "the token has expired"),
            (
                &expired[1..],
                "this is no token signed with HS256, RS256 or EdDSA",
            ),
            (&forged, "the token's signature is wrong"),
        ] {
            let (client, head) = knock(&mut house, &format!("?token={shown}"), "");
            assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
            let challenge = "WWW-Authenticate: Bearer error=\"invalid_token\"\r\n";
            assert!(head.contains(challenge), "{head}");
            assert!(head.ends_with(&format!("\r\n\r\n{reason}\n")), "{head}");
            assert!(house.is_shut(client));
        }
        assert_eq!(house.shards[0].stats().unauthenticated, 3);
    }
    // Where nobody asks for tokens, one is whatever the application makes of it.
    let mut house = House::new(1);
    let (client, head) = knock(&mut house, "?token=x", "Authorization: Bearer y\r\n");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(name(&mut house, client), None);
}

#[test]
fn its_lists_are_what_it_may_do() {
    let mut house = house();
    let claims = json!({"sub": "ann", "subscribe": ["a", "=b"], "publish": ["a.x"]});
    let client = enter(&mut house, claims);
    for (kind, topic, expected) in [
        ("subscribe", "a.b", "ack subscribe"),
        ("subscribe", "a", "ack subscribe"),
        ("subscribe", "b", "error subscribe not_allowed"),
        ("subscribe", "=b", "ack subscribe"),
        ("subscribe", "*", "error subscribe not_allowed"),
        ("publish", "a", "error publish not_allowed"),
        ("publish", "a.x.y", "ack publish"),
    ] {
        let text = format!(r#"{{"type":"{kind}","topic":"{topic}","message":1}}"#);
        let told = brief(&house.ask(client, &text));
        assert_eq!(told.last().unwrap(), expected, "{topic}");
    }
}

#[test]
fn a_session_ends_with_its_token() {
    let mut house = house();
    let short = enter(&mut house, json!({"sub": "ann", "exp": NOW + 5}));
    let stuck = enter(&mut house, json!({"sub": "bob", "exp": NOW + 5}));
    let long = enter(&mut house, json!({"sub": "cyd", "exp": 1e300}));
    for client in [short, stuck, long] {
        house.subscribe(client, "a");
    }
    house.stop_reading(stuck);
    house.pass(4_999);
    house.turn(0);
    house.ask(long, &publish("a", 1));
    assert_eq!(brief(&house.read(short)), ["publish a"]);
    house.pass(1);
    house.turn(0);
    assert_eq!(house.read(short), ["close 4010 token expired"]);
    assert!(house.is_shut(short));
    house.ask(long, &publish("a", 1));
    assert_eq!(house.read(short), [""; 0]);
    // Its last words wait behind what it does not read.
    assert!(house.session(stuck).is_ending());
    house.read_on(stuck);
    house.settle();
    let told = house.read(stuck);
    assert_eq!(brief(&told), ["publish a", "close 4010 token expired"]);
    assert!(house.session(long).is_open());
    let closed = house.shards[0].stats().closed;
    let index = crate::error::CloseReason::ALL
        .iter()
        .position(|reason| *reason == crate::error::CloseReason::TokenExpired);
    assert_eq!(closed[index.unwrap()], 2);
}

#[test]
fn new_keys_are_for_those_who_come() {
    let mut house = house();
    let old = enter(&mut house, json!({"sub": "ann"}));
    let mut changed = Keys::default();
    changed.add_secret(b"another secret").unwrap();
    house.shards[0].set_credentials(Arc::new(Credentials {
        keys: changed,
        ..Credentials::default()
    }));
    let query = format!("?token={}", token(json!({"sub": "bob"})));
    let (_, head) = knock(&mut house, &query, "");
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    house.subscribe(old, "a");
    assert_eq!(name(&mut house, old).as_deref(), Some("ann"));
}

#[test]
fn the_host_is_asked_as_well_and_may_say_who_it_is_if_its_token_does_not() {
    for (query, given, expected) in [
        ("", None, None),
        ("", Some("host's"), Some("host's")),
        ("token", None, Some("ann")),
        ("token", Some("host's"), Some("ann")),
    ] {
        let mut house = house_with(|settings| settings.admission = Admission::Host);
        let host = house.host(0, "h", Watch::ADMIT);
        let query = match query {
            "token" => format!("?token={}", token(json!({"sub": "ann"}))),
            _ => String::new(),
        };
        let (client, head) = knock(&mut house, &query, "");
        assert_eq!((head.as_str(), house.told(host).len()), ("", 1));
        let user = given.map(bytes);
        house.verdict(host, client, Admitted::Yes { user });
        assert!(house.head(client).starts_with("HTTP/1.1 101 "));
        assert_eq!(name(&mut house, client).as_deref(), expected);
    }
    let mut house = house_with(|settings| settings.admission = Admission::Host);
    let host = house.host(0, "h", Watch::ADMIT);
    let (_, head) = knock(&mut house, "?token=x", "");
    assert!(head.starts_with("HTTP/1.1 401 ") && house.told(host).is_empty());
}

#[test]
fn whoever_guesses_is_not_heard_by_any_shard() {
    let mut house = house();
    let good = token(json!({"sub": "ann"}));
    let guesser = "192.0.2.1";
    for guess in 0..10 {
        let head = knock_from(&mut house, guess % 2, guesser, "guess");
        assert!(head.starts_with("HTTP/1.1 401 "), "{guess}: {head}");
    }
    house.settle();
    for shard in [0, 1] {
        for shown in ["guess", &good, ""] {
            let head = knock_from(&mut house, shard, guesser, shown);
            assert!(
                head.starts_with("HTTP/1.1 429 Too Many Requests\r\n"),
                "{head}"
            );
            assert!(head.contains("Retry-After: 300\r\n"), "{head}");
        }
        let head = knock_from(&mut house, shard, "192.0.2.2", &good);
        assert!(head.starts_with("HTTP/1.1 101 "), "its neighbour: {head}");
    }
    house.pass(299_001);
    let head = knock_from(&mut house, 0, guesser, &good);
    assert!(head.contains("Retry-After: 1\r\n"), "{head}");
    house.pass(999);
    for shard in [0, 1] {
        let head = knock_from(&mut house, shard, guesser, &good);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }
    let counted: u64 = house
        .shards
        .iter()
        .map(|one| one.stats().unauthenticated)
        .sum();
    assert_eq!(counted, 10);
}

#[test]
fn tokens_that_ran_out_and_sockets_without_an_address_guess_nothing() {
    let mut house = house();
    let expired = token(json!({"sub": "ann", "exp": NOW}));
    for _ in 0..20 {
        let head = knock_from(&mut house, 0, "192.0.2.1", &expired);
        assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
        let (_, head) = knock(&mut house, "?token=guess", "");
        assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
        let (_, head) = knock(&mut house, "", "");
        assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    }
}

#[test]
fn a_full_ring_costs_no_more_than_the_word() {
    let mut house = house();
    house.fill(0, 1);
    for _ in 0..10 {
        knock_from(&mut house, 0, "192.0.2.1", "guess");
    }
    house.unfill(0, 1);
    house.settle();
    let head = knock_from(&mut house, 0, "192.0.2.1", "guess");
    assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
    let head = knock_from(&mut house, 1, "192.0.2.1", "guess");
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
}
