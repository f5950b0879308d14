//! Who a RESP client is: passwords, tokens, and whom a proxy relays.

use std::sync::Arc;

use serde_json::json;

use super::super::super::auth::{Access, AccessRule, Who as Whom};
use super::super::super::credentials::Credentials;
use super::super::super::testing::{House, bytes};
use super::{ask, command, redis, say, told};
use crate::address::RemoteAddress;
use crate::address::proxies::TrustedProxies;
use crate::secret::Secret;
use crate::token::testing;
use crate::topic::Filter;
use crate::ws::proxy;

#[test]
fn a_password_comes_first() {
    let mut house = House::with(1, |settings| {
        settings.access = Access::new(vec![AccessRule {
            filter: Filter::dotted(bytes("a")).unwrap(),
            who: Whom::Authenticated,
            subscribe: true,
            publish: true,
        }]);
    });
    let credentials = Credentials {
        resp_password: Some(Secret::new("s3cret").unwrap()),
        ..Credentials::default()
    };
    house.shards[0].set_credentials(Arc::new(credentials));
    let client = redis(&mut house, 0);
    let denied = "-NOAUTH Authentication required.";
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.";
    for (line, expected) in [
        ("PING", denied),
        ("SUBSCRIBE a", denied),
        ("AUTH wrong", wrong),
        ("AUTH other s3cret", wrong),
        ("AUTH default s3cret", "+OK"),
        ("SUBSCRIBE a", "*3 subscribe a :1"),
        (
            "SUBSCRIBE b",
            "-NOPERM this user has no permissions to access one of the channels used as arguments",
        ),
        ("RESET", "+RESET"),
        ("SUBSCRIBE a", denied),
    ] {
        assert_eq!(ask(&mut house, client, line), expected, "{line}");
    }
    let client = redis(&mut house, 0);
    assert!(ask(&mut house, client, "HELLO 3").starts_with("-NOAUTH HELLO must"));
    assert_eq!(ask(&mut house, client, "HELLO 3 AUTH default no"), wrong);
    assert!(ask(&mut house, client, "HELLO 3 AUTH default s3cret").starts_with("%7 "));

    // Before that little is taken from it, and not for long.
    let client = redis(&mut house, 0);
    house.bytes(client, b"*11\r\n");
    house.settle();
    let refused = told(&mut house, client);
    assert_eq!(
        refused,
        "-ERR Protocol error: unauthenticated multibulk length"
    );
    let client = redis(&mut house, 0);
    say(&mut house, client, "PING");
    house.settle();
    house.pass(10_000);
    house.turn(0);
    assert_eq!(told(&mut house, client), format!("{denied} {denied}"));
    assert!(house.is_shut(client));

    // Whoever takes it back has the same time again, once.
    let client = redis(&mut house, 0);
    assert_eq!(ask(&mut house, client, "AUTH s3cret"), "+OK");
    house.pass(20_000);
    assert_eq!(ask(&mut house, client, "RESET"), "+RESET");
    house.pass(6_000);
    assert_eq!(ask(&mut house, client, "RESET"), "+RESET");
    house.pass(3_999);
    house.turn(0);
    assert!(!house.is_shut(client));
    house.pass(1);
    house.turn(0);
    assert_eq!(told(&mut house, client), denied);
    assert!(house.is_shut(client));

    // Nor does it help to read nothing, so that nothing more is read.
    let client = redis(&mut house, 0);
    house.stop_reading(client);
    for _ in 0..40 {
        say(&mut house, client, "PING");
    }
    house.turn(0);
    assert!(house.is_paused(client));
    house.pass(9_999);
    house.turn(0);
    assert!(house.session(client).is_open());
    house.pass(1);
    house.turn(0);
    assert!(house.session(client).is_ending());
}

#[test]
fn a_token_is_taken_in_the_place_of_a_password_and_ends_the_session() {
    let mut house = House::new(1);
    let credentials = Credentials {
        keys: testing::keys(),
        ..Credentials::default()
    };
    house.shards[0].set_credentials(Arc::new(credentials));
    let token = testing::token(&json!({
        "sub": "shop",
        "exp": house.now.unix_ms / 1000 + 60,
        "subscribe": ["shop"],
        "publish": [{"channel": "shop..log"}],
    }));
    let denied =
        "-NOPERM this user has no permissions to access one of the channels used as arguments";
    let (client, other) = (redis(&mut house, 0), redis(&mut house, 0));
    assert_eq!(
        ask(&mut house, client, "AUTH nonsense"),
        "-WRONGPASS invalid username-password pair or user is disabled."
    );
    assert_eq!(ask(&mut house, client, &format!("AUTH {token}")), "+OK");
    assert!(ask(&mut house, other, &format!("HELLO 3 AUTH me {token}")).starts_with("%7 "));
    for (line, expected) in [
        ("SUBSCRIBE shop.a", "*3 subscribe shop.a :1"),
        ("SSUBSCRIBE shop.b", "*3 ssubscribe shop.b :1"),
        ("SUBSCRIBE shop.a shops", denied),
        ("PSUBSCRIBE shop.*", denied),
        ("PING", "*2 pong "),
    ] {
        assert_eq!(ask(&mut house, client, line), expected, "{line}");
    }
    for (line, expected) in [
        ("PUBLISH shop..log x", ":0"),
        ("SPUBLISH shop..log x", ":0"),
        ("PUBLISH shop.a x", denied),
    ] {
        assert_eq!(ask(&mut house, other, line), expected, "{line}");
    }
    house.pass(60_000);
    house.turn(0);
    for client in [client, other] {
        assert_eq!(told(&mut house, client), "-ERR token expired");
        assert!(house.is_shut(client));
    }
}

#[test]
fn a_trusted_proxy_may_say_whom_it_relays() {
    let house = || {
        let mut house = House::with(1, |settings| {
            settings.trusted = TrustedProxies::read(["10.0.0.0/8"]).unwrap();
            settings.limits.per_address_max = 1;
        });
        house.seats = 1;
        house
    };
    let at = |address: &str| RemoteAddress::at(address.parse().unwrap());
    let mut header = proxy::SIGNATURE.to_vec();
    header.extend([0x21, 0x11, 0, 12, 192, 0, 2, 1, 10, 0, 0, 1, 0, 77, 0, 80]);
    let all = [&header[..], &command(&["CLIENT", "INFO"])].concat();
    for cut in 0..all.len() {
        let mut house = house();
        let client = house.accept_from(0, 2, false, at("10.0.0.1:1"));
        for piece in [&all[..cut], &all[cut..]] {
            if !piece.is_empty() {
                house.bytes(client, piece);
            }
            house.turn(0);
        }
        house.settle();
        let line = told(&mut house, client);
        assert!(line.contains(" addr=192.0.2.1:77 "), "{cut}: {line}");
        // And there is no room for another one of that address.
        let second = house.accept_from(0, 2, false, at("10.0.0.1:2"));
        house.bytes(second, &all);
        house.settle();
        let refused = told(&mut house, second);
        assert_eq!(refused, "-ERR too many connections from this address");
    }
    // It need not; and nobody else may.
    let mut house = house();
    let client = house.accept_from(0, 2, false, at("10.0.0.1:1"));
    assert_eq!(ask(&mut house, client, "PING"), "+PONG");
    let stranger = house.accept_from(0, 2, false, at("192.0.2.9:1"));
    house.bytes(stranger, &all);
    house.settle();
    assert!(told(&mut house, stranger).starts_with('-'));
    assert!(house.is_shut(stranger));
    let client = house.accept_from(0, 2, false, at("10.0.0.1:1"));
    house.bytes(client, b"PROXY TCP4 192.0.2.1 ");
    house.settle();
    let refused = told(&mut house, client);
    assert_eq!(
        refused,
        "-ERR a PROXY header of version 1; version 2 is taken"
    );
}
