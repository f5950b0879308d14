//! RESP in the shard: answers in order, counts of all shards, what only its sessions do.

use std::sync::Arc;

use serde_json::json;

use super::super::Ending;
use super::super::auth::{Access, AccessRule, Who as Whom};
use super::super::credentials::Credentials;
use super::super::slow::{SlowPolicy, SlowRule, SlowRules};
use super::super::testing::{House, Who, brief, bytes, publish};
use crate::address::RemoteAddress;
use crate::address::proxies::TrustedProxies;
use crate::limits::KIB;
use crate::secret::Secret;
use crate::token::testing;
use crate::topic::Filter;
use crate::ws::proxy;

/// A client of the RESP listener.
fn redis(house: &mut House, shard: usize) -> Who {
    house.accept(shard, 2, false)
}

/// A command as clients write it.
fn command(words: &[&str]) -> Vec<u8> {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text += &format!("${}\r\n{word}\r\n", word.len());
    }
    text.into_bytes()
}

/// Words of one line, sent as a command.
fn say(house: &mut House, who: Who, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    house.bytes(who, &command(&words));
}

/// What a client was told: its lines without lengths, a blank between them.
fn told(house: &mut House, who: Who) -> String {
    let text = String::from_utf8(house.raw(who)).unwrap();
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('$') || *line == "$-1");
    lines.collect::<Vec<_>>().join(" ")
}

/// A command, its turn, and what came.
fn ask(house: &mut House, who: Who, line: &str) -> String {
    say(house, who, line);
    house.settle();
    told(house, who)
}

#[test]
fn a_publication_is_counted_anew_whatever_was_published_before() {
    let mut house = House::new(2);
    let publisher = redis(&mut house, 0);
    // Near and far.
    for shard in 0..2 {
        let (reader, of_shards) = (redis(&mut house, shard), redis(&mut house, shard));
        let count = |house: &mut House, line: &str, expected: &str| {
            assert_eq!(ask(house, publisher, line), expected, "{line} {shard}");
        };
        count(&mut house, "PUBLISH a x", ":0");
        count(&mut house, "PUBLISH a x", ":0");
        ask(&mut house, reader, "SUBSCRIBE a");
        count(&mut house, "PUBLISH a x", ":1");
        count(&mut house, "SPUBLISH a x", ":0");
        ask(&mut house, of_shards, "SSUBSCRIBE a");
        count(&mut house, "SPUBLISH a x", ":1");
        count(&mut house, "PUBLISH ab x", ":0");
        count(&mut house, "PUBLISH a x", ":1");
        ask(&mut house, reader, "PSUBSCRIBE *");
        count(&mut house, "PUBLISH a x", ":2");
        count(&mut house, "PUBLISH ab x", ":1");
        count(&mut house, "SPUBLISH ab x", ":0");
        for (who, line) in [
            (reader, "UNSUBSCRIBE"),
            (reader, "PUNSUBSCRIBE"),
            (of_shards, "SUNSUBSCRIBE"),
        ] {
            ask(&mut house, who, line);
        }
        count(&mut house, "PUBLISH a x", ":0");
        count(&mut house, "SPUBLISH a x", ":0");
    }
    assert_eq!(house.shards[0].stats().publishes, 24);
}

#[test]
fn channels_patterns_and_shard_channels_are_told_apart() {
    let mut house = House::new(2);
    let (reader, publisher) = (redis(&mut house, 0), redis(&mut house, 1));
    assert_eq!(
        ask(&mut house, reader, "SUBSCRIBE a b"),
        "*3 subscribe a :1 *3 subscribe b :2"
    );
    assert_eq!(
        ask(&mut house, reader, "PSUBSCRIBE a*"),
        "*3 psubscribe a* :3"
    );
    assert_eq!(
        ask(&mut house, reader, "SSUBSCRIBE a"),
        "*3 ssubscribe a :1"
    );
    assert_eq!(ask(&mut house, reader, "SUBSCRIBE a"), "*3 subscribe a :3");
    assert_eq!(ask(&mut house, publisher, "PUBLISH a x"), ":2");
    assert_eq!(
        told(&mut house, reader),
        "*3 message a x *4 pmessage a* a x"
    );
    assert_eq!(ask(&mut house, publisher, "SPUBLISH a y"), ":1");
    assert_eq!(told(&mut house, reader), "*3 smessage a y");
    assert_eq!(ask(&mut house, publisher, "PUBLISH ab z"), ":1");
    assert_eq!(told(&mut house, reader), "*4 pmessage a* ab z");
    assert_eq!(
        ask(&mut house, reader, "UNSUBSCRIBE a x"),
        "*3 unsubscribe a :2 *3 unsubscribe x :2"
    );
    assert_eq!(
        ask(&mut house, reader, "UNSUBSCRIBE"),
        "*3 unsubscribe b :1"
    );
    assert_eq!(
        ask(&mut house, reader, "UNSUBSCRIBE"),
        "*3 unsubscribe $-1 :1"
    );
    assert_eq!(
        ask(&mut house, reader, "PUNSUBSCRIBE"),
        "*3 punsubscribe a* :0"
    );
    assert_eq!(
        ask(&mut house, reader, "SUNSUBSCRIBE a"),
        "*3 sunsubscribe a :0"
    );
    assert_eq!(ask(&mut house, publisher, "PUBLISH a x"), ":0");
    assert_eq!(told(&mut house, reader), "");
    assert_eq!(ask(&mut house, reader, "PING"), "+PONG");
}

#[test]
fn receivers_are_counted_on_all_shards_and_in_all_protocols() {
    let mut house = House::new(3);
    let publisher = redis(&mut house, 0);
    for shard in [0, 1, 1, 2] {
        let reader = redis(&mut house, shard);
        ask(&mut house, reader, "SUBSCRIBE news.uk");
    }
    let native = house.connect(1);
    for filter in ["news", "=news.*", "other"] {
        house.subscribe(native, filter);
    }
    assert_eq!(ask(&mut house, publisher, "PUBLISH news.uk hello"), ":6");
    assert_eq!(
        brief(&house.read(native)),
        ["publish =news.*", "publish news"]
    );
    assert_eq!(
        ask(&mut house, publisher, "PUBSUB NUMSUB news.uk news x"),
        "*6 news.uk :4 news :0 x :0"
    );
    assert_eq!(ask(&mut house, publisher, "PUBLISH nobody x"), ":0");
    // It is taken for what it is.
    ask(&mut house, publisher, r#"PUBLISH news.uk {"a":1}"#);
    assert!(house.read(native)[0].contains(r#""message":{"a":1}"#));
    ask(&mut house, publisher, "PUBLISH news.uk {a");
    assert!(house.read(native)[0].contains(r#""message":"{a""#));
}

#[test]
fn answers_keep_the_order_of_the_commands_while_others_count() {
    let mut house = House::new(2);
    let (publisher, far) = (redis(&mut house, 0), redis(&mut house, 1));
    ask(&mut house, far, "SUBSCRIBE far");
    for line in [
        "PUBLISH nobody 1",
        "PUBLISH far 2",
        "PING x",
        "PUBLISH nobody 3",
        "PUBLISH far 4",
        "PUBSUB NUMSUB far",
        "WHAT",
        "ECHO last",
        // What changes the connection waits, with all behind it.
        "SUBSCRIBE far",
        "PING end",
    ] {
        say(&mut house, publisher, line);
    }
    house.turn(0);
    assert_eq!(
        told(&mut house, publisher),
        ":0",
        "the others wait for the other shard"
    );
    house.settle();
    assert_eq!(
        told(&mut house, publisher),
        ":1 x :0 :1 *2 far :1 -ERR unknown command 'WHAT', with args beginning with:  last \
         *3 subscribe far :1 *2 pong end"
    );
    assert_eq!(told(&mut house, far), "*3 message far 2 *3 message far 4");
    assert_eq!(
        house.shards[1].stats().forwarded,
        2,
        "the counts together, and the other answer"
    );
}

#[test]
fn a_refused_subscribe_waits_for_the_confirmations_before_it() {
    let mut house = House::with(2, |settings| {
        settings.server_limits.patterns_max = 1;
        settings.server_limits.subscriptions_max = 3;
    });
    let client = redis(&mut house, 0);
    house.fill(0, 1);
    let long = "x".repeat(256);
    for line in ["PSUBSCRIBE", "PUBSUB CHANNELS"] {
        assert_eq!(
            ask(&mut house, client, &format!("{line} {long}")),
            "-ERR the pattern is longer than 255 bytes"
        );
    }
    let long = "x".repeat(1_025);
    for line in [
        "SUBSCRIBE a b",
        &format!("SUBSCRIBE {long}"),
        // Twice the same are one, and of patterns there are none so far.
        "SUBSCRIBE b a",
        "PSUBSCRIBE a*",
        "PSUBSCRIBE b*",
        "SUBSCRIBE c",
    ] {
        say(&mut house, client, line);
    }
    house.turn(0);
    assert_eq!(told(&mut house, client), "");
    house.unfill(0, 1);
    house.settle();
    assert_eq!(
        told(&mut house, client),
        "*3 subscribe a :1 *3 subscribe b :2 -ERR the channel is longer than 1024 bytes *3 subscribe b :2 \
         *3 subscribe a :2 *3 psubscribe a* :3 -ERR too many subscriptions of one connection \
         -ERR too many subscriptions of one connection"
    );
}

#[test]
fn a_name_that_is_there_takes_no_room_while_others_wait() {
    let mut house = House::with(2, |settings| {
        settings.server_limits.subscriptions_max = 3;
    });
    let client = redis(&mut house, 0);
    ask(&mut house, client, "SUBSCRIBE a");
    house.fill(0, 1);
    say(&mut house, client, "SUBSCRIBE b a c");
    house.turn(0);
    house.unfill(0, 1);
    house.settle();
    assert_eq!(
        told(&mut house, client),
        "*3 subscribe b :2 *3 subscribe a :2 *3 subscribe c :3"
    );
}

#[test]
fn what_is_subscribed_to_behind_the_end_leaves_nothing() {
    let mut house = House::with(2, |settings| {
        settings.server_limits.outbox_bytes_max = 100 * KIB;
        settings.server_limits.outbox_bytes_soft = 100 * KIB;
    });
    let (client, other) = (redis(&mut house, 0), redis(&mut house, 0));
    ask(&mut house, client, "SUBSCRIBE a");
    ask(&mut house, other, "SUBSCRIBE b");
    house.stop_reading(client);
    let publisher = redis(&mut house, 1);
    ask(
        &mut house,
        publisher,
        &format!("PUBLISH a {}", "x".repeat(60 * KIB)),
    );
    assert_eq!(house.shards[0].stats().closed_slow, 0);
    // It is closed by the confirmation that does not fit, and the next name would wait for its interest to be known.
    house.fill(0, 1);
    say(
        &mut house,
        client,
        &["SUBSCRIBE", &" b".repeat(2_000)[..], " c"].concat(),
    );
    house.turn(0);
    assert_eq!(house.shards[0].stats().closed_slow, 1);
    house.unfill(0, 1);
    for who in [client, other, publisher] {
        house.end(who, Ending::Failed);
    }
    house.settle();
    for shard in [0, 1] {
        house.check_empty(shard);
    }
}

#[test]
fn a_publisher_gets_its_own_before_the_count() {
    let mut house = House::new(2);
    let (client, far) = (redis(&mut house, 0), redis(&mut house, 1));
    ask(&mut house, client, "HELLO 3");
    assert_eq!(ask(&mut house, client, "SUBSCRIBE a"), ">3 subscribe a :1");
    ask(&mut house, far, "SUBSCRIBE a");
    assert_eq!(ask(&mut house, client, "PUBLISH a x"), ">3 message a x :2");
    assert_eq!(told(&mut house, far), "*3 message a x");
    // Back to RESP2, with its subscription.
    assert!(ask(&mut house, client, "HELLO 2").starts_with("*14 "));
    assert_eq!(
        ask(&mut house, client, "PUBLISH a x"),
        "-ERR Can't execute 'publish': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
         this context"
    );
    ask(&mut house, far, "UNSUBSCRIBE a");
    assert_eq!(ask(&mut house, far, "PUBLISH a y"), ":1");
    assert_eq!(told(&mut house, client), "*3 message a y");
    assert_eq!(ask(&mut house, client, "RESET"), "+RESET");
    assert_eq!(ask(&mut house, far, "PUBLISH a y"), ":0");
}

#[test]
fn questions_about_all_shards() {
    let mut house = House::new(3);
    let clients: Vec<Who> = (0..3).map(|shard| redis(&mut house, shard)).collect();
    ask(&mut house, clients[0], "SUBSCRIBE a b");
    ask(&mut house, clients[1], "SUBSCRIBE b c");
    ask(&mut house, clients[1], "PSUBSCRIBE x* y*");
    ask(&mut house, clients[2], "PSUBSCRIBE x*");
    ask(&mut house, clients[2], "SSUBSCRIBE s");
    let native = house.connect(0);
    house.subscribe(native, "n");
    let asker = redis(&mut house, 0);
    for (line, expected) in [
        ("PUBSUB CHANNELS", "*3 a b c"),
        ("PUBSUB CHANNELS [ab]", "*2 a b"),
        ("PUBSUB CHANNELS n", "*0"),
        ("PUBSUB NUMPAT", ":2"),
        ("PUBSUB NUMSUB", "*0"),
        ("PUBSUB NUMSUB b zz b", "*6 b :2 zz :0 b :2"),
        ("PUBSUB SHARDCHANNELS", "*1 s"),
        ("PUBSUB SHARDNUMSUB s b", "*4 s :1 b :0"),
    ] {
        assert_eq!(ask(&mut house, asker, line), expected, "{line}");
    }
    ask(&mut house, asker, "CLIENT SETNAME me");
    assert_eq!(ask(&mut house, asker, "CLIENT GETNAME"), "me");
    ask(&mut house, clients[0], "SSUBSCRIBE s");
    let info = ask(&mut house, asker, "INFO stats");
    assert!(
        info.contains("pubsub_channels:3 pubsub_patterns:2 pubsubshard_channels:1 "),
        "what two shards have counts once: {info}"
    );
    let list = ask(&mut house, asker, "CLIENT LIST");
    assert_eq!(list.matches(" addr=").count(), 4, "{list}");
    assert_eq!(
        ask(&mut house, clients[2], "CLIENT ID").split(':').count(),
        2
    );
}

#[test]
fn a_publisher_waits_for_room_and_loses_nothing() {
    let mut house = House::new(2);
    let (publisher, far) = (redis(&mut house, 0), redis(&mut house, 1));
    ask(&mut house, far, "SUBSCRIBE a");
    house.fill(0, 1);
    for line in ["PUBLISH a 1", "PUBLISH b 2", "PUBSUB CHANNELS"] {
        say(&mut house, publisher, line);
    }
    house.turn(0);
    house.turn(1);
    assert_eq!(told(&mut house, publisher), "");
    assert!(house.is_paused(publisher));
    house.unfill(0, 1);
    house.settle();
    assert_eq!(told(&mut house, publisher), ":1 :0 *1 a");
    // The counts have to wait for room, too.
    house.fill(1, 0);
    say(&mut house, publisher, "PUBLISH a 3");
    house.turn(0);
    house.turn(1);
    house.turn(0);
    assert_eq!(told(&mut house, publisher), "");
    house.unfill(1, 0);
    house.settle();
    assert_eq!(told(&mut house, publisher), ":1");
    assert_eq!(told(&mut house, far), "*3 message a 1 *3 message a 3");
}

#[test]
fn who_leaves_while_others_count_leaves_nothing() {
    let mut house = House::new(2);
    let (publisher, far) = (redis(&mut house, 0), redis(&mut house, 1));
    ask(&mut house, far, "SUBSCRIBE a");
    for line in ["PUBLISH a 1", "PUBSUB NUMSUB a", "CLIENT LIST"] {
        say(&mut house, publisher, line);
    }
    house.end(publisher, Ending::Failed);
    house.turn(0);
    house.settle();
    house.end(far, Ending::EndOfInput);
    house.settle();
    for shard in [0, 1] {
        house.check_empty(shard);
    }
}

/// A publisher that is closed by its own message is counted for, and nobody waits for it. What comes must not be
/// taken for the count of another.
#[test]
fn the_count_for_a_publisher_that_has_closed_itself_is_nobody_s() {
    let mut house = House::with(2, |settings| {
        settings.server_limits.outbox_bytes_max = 100 * KIB;
        settings.server_limits.outbox_bytes_soft = 100 * KIB;
    });
    let (slow, publisher) = (redis(&mut house, 0), redis(&mut house, 0));
    let (far, further) = (redis(&mut house, 1), redis(&mut house, 1));
    ask(&mut house, slow, "HELLO 3");
    ask(&mut house, slow, "SUBSCRIBE a");
    ask(&mut house, far, "SUBSCRIBE a b");
    ask(&mut house, further, "SUBSCRIBE b");
    house.stop_reading(slow);
    // Larger than what is gathered: it is given to its subscribers at once.
    let long = format!("PUBLISH a {}", "x".repeat(70 * KIB));
    say(&mut house, slow, &long);
    house.turn(0);
    house.turn(1);
    say(&mut house, slow, &long);
    house.turn(0);
    assert_eq!(house.shards[0].stats().closed_slow, 1);
    say(&mut house, publisher, "PUBLISH b x");
    house.turn(0);
    house.turn(1);
    house.settle();
    assert_eq!(told(&mut house, publisher), ":2");
    assert_eq!(house.shards[0].tallies.entries(), 0);
}

#[test]
fn too_many_answers_that_wait_hold_the_next_command() {
    let mut house = House::with(2, |settings| {
        settings.server_limits.turn_messages_max = 5_000
    });
    let (publisher, far) = (redis(&mut house, 0), redis(&mut house, 1));
    ask(&mut house, far, "SUBSCRIBE a");
    for _ in 0..2_000 {
        say(&mut house, publisher, "PUBLISH a x");
    }
    house.turn(0);
    assert_eq!(house.shards[0].stats().publishes, 1_024);
    assert!(house.is_paused(publisher));
    house.settle();
    assert_eq!(house.shards[0].stats().publishes, 2_000);
    assert_eq!(told(&mut house, publisher), vec![":1"; 2_000].join(" "));
    assert!(!house.is_paused(publisher));
}

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
fn a_pause_of_a_reader_is_not_death() {
    let mut house = House::new(1);
    let client = redis(&mut house, 0);
    ask(&mut house, client, "SUBSCRIBE a");
    house.pass(10 * 60_000);
    house.turn(0);
    let publisher = house.connect(0);
    house.ask(publisher, &publish("a", 1));
    assert!(told(&mut house, client).starts_with("*3 message a "));
}

#[test]
fn broken_bytes_end_one_connection_with_a_word() {
    for (bytes, expected) in [
        (
            &b"*1\r\n$-1\r\n"[..],
            "-ERR Protocol error: invalid bulk length",
        ),
        (b"*x\r\n", "-ERR Protocol error: invalid multibulk length"),
        (
            b"*1\r\n+1\r\n",
            "-ERR Protocol error: expected '$', got '+'",
        ),
        (
            b"*2\r\n$4\r\nECHO\r\n$9223372036854775807\r\n",
            "-ERR Protocol error: invalid bulk length",
        ),
        (b"POST / HTTP/1.1\r\n", ""),
        (b"Host: localhost\r\n", ""),
    ] {
        let mut house = House::new(1);
        let (client, other) = (redis(&mut house, 0), redis(&mut house, 0));
        house.bytes(client, bytes);
        house.bytes(client, &command(&["SUBSCRIBE", "a"]));
        house.settle();
        assert_eq!(told(&mut house, client), expected);
        assert!(house.is_shut(client), "{expected}");
        assert_eq!(ask(&mut house, other, "PUBLISH a x"), ":0");
    }
}

#[test]
fn who_says_no_more_still_reads_what_it_asked_for() {
    let mut house = House::new(2);
    let far = redis(&mut house, 1);
    ask(&mut house, far, "SUBSCRIBE a");
    for (lines, expected) in [
        (&["PING"][..], "+PONG"),
        (&["PUBLISH a 1"], ":1"),
        (
            &["PING x", "PUBLISH a 1", "SUBSCRIBE b", "PING y"],
            "x :1 *3 subscribe b :1 *2 pong y",
        ),
        (&[], ""),
    ] {
        let client = redis(&mut house, 0);
        for line in lines {
            say(&mut house, client, line);
        }
        house.end(client, Ending::EndOfInput);
        house.settle();
        assert_eq!(told(&mut house, client), expected);
        assert_eq!(house.closed(client), Some(false), "{lines:?}");
        told(&mut house, far);
    }
    house.end(far, Ending::EndOfInput);
    house.settle();
    for shard in [0, 1] {
        house.check_empty(shard);
    }
}

#[test]
fn last_words_wait_for_the_answers_before_them() {
    let mut house = House::new(2);
    let (client, far) = (redis(&mut house, 0), redis(&mut house, 1));
    ask(&mut house, far, "SUBSCRIBE a");
    for line in ["PUBLISH a 1", "PUBLISH a 2"] {
        say(&mut house, client, line);
    }
    house.bytes(client, b"*x\r\n");
    say(&mut house, client, "PUBLISH a 3");
    house.turn(0);
    assert_eq!(told(&mut house, client), "");
    house.settle();
    assert_eq!(
        told(&mut house, client),
        ":1 :1 -ERR Protocol error: invalid multibulk length"
    );
    assert!(house.is_shut(client));
    assert_eq!(told(&mut house, far), "*3 message a 1 *3 message a 2");
    // So they do for confirmations.
    let client = redis(&mut house, 0);
    house.fill(0, 1);
    say(&mut house, client, "SUBSCRIBE b");
    house.bytes(client, b"*x\r\n");
    house.turn(0);
    assert_eq!(told(&mut house, client), "");
    house.unfill(0, 1);
    house.settle();
    assert_eq!(
        told(&mut house, client),
        "*3 subscribe b :1 -ERR Protocol error: invalid multibulk length"
    );
    // And nobody waits for ever: not if they leave, either.
    let client = redis(&mut house, 0);
    say(&mut house, client, "PUBLISH a 4");
    house.bytes(client, b"*x\r\n");
    house.turn(0);
    for who in [client, far] {
        house.end(who, Ending::Failed);
    }
    house.settle();
    assert_eq!(told(&mut house, client), "");
}

#[test]
fn who_only_writes_no_more_is_answered() {
    let mut house = House::new(2);
    let far = redis(&mut house, 1);
    ask(&mut house, far, "SUBSCRIBE a");
    for (line, expected) in [
        ("PING", "+PONG"),
        ("PUBLISH a x", ":1"),
        ("SUBSCRIBE b", "*3 subscribe b :1"),
    ] {
        let client = redis(&mut house, 0);
        say(&mut house, client, line);
        house.end(client, Ending::EndOfInput);
        house.settle();
        assert_eq!(told(&mut house, client), expected);
        assert_eq!(house.closed(client), Some(false), "{line}");
    }
    // Whoever waits for nothing goes at once.
    let client = redis(&mut house, 0);
    house.end(client, Ending::EndOfInput);
    house.turn(0);
    assert_eq!(house.closed(client), Some(false));
    house.settle();
    house.check_empty(0);
}

#[test]
fn a_slow_subscriber_is_closed_and_never_skipped() {
    let rule = |policy| SlowRule {
        prefix: bytes("a"),
        policy,
    };
    for policy in [
        SlowPolicy::Close,
        SlowPolicy::DropOldest,
        SlowPolicy::Conflate,
    ] {
        let mut house = House::with(1, |settings| {
            settings.slow = SlowRules::new(vec![rule(policy)]);
            settings.server_limits.outbox_bytes_max = 100 * KIB;
            settings.server_limits.outbox_bytes_soft = 100 * KIB;
        });
        let (reader, publisher) = (redis(&mut house, 0), house.connect(0));
        ask(&mut house, reader, "SUBSCRIBE a");
        house.stop_reading(reader);
        for _ in 0..20 {
            house.ask(publisher, &publish("a", 10 * KIB));
        }
        let stats = house.shards[0].stats();
        assert_eq!((stats.closed_slow, stats.dropped), (1, 0), "{policy:?}");
    }
}

#[test]
fn a_connection_that_is_dealt_says_the_same() {
    let mut house = House::new(2);
    for expected in [0, 1, 0, 1] {
        // As soon as it is there: perhaps it says nothing for a long time, and that is not too late.
        let mut client = house.accept(0, 3, false);
        if let Some((_, to, bytes)) = house.handed_over.pop() {
            assert_eq!((to.index(), bytes.len()), (expected, 0));
            client = house.adopt(1, 3);
        }
        assert_eq!(client.shard, expected);
        house.pass(60_000);
        house.turn(expected);
        assert_eq!(ask(&mut house, client, "PING"), "+PONG");
    }
    let refused = house.accept(0, 2, true);
    house.turn(0);
    assert_eq!(
        told(&mut house, refused),
        "-ERR max number of clients reached"
    );
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

#[test]
fn replies_that_are_not_wanted_are_left_out() {
    let mut house = House::new(2);
    let (client, far) = (redis(&mut house, 0), redis(&mut house, 1));
    ask(&mut house, far, "SUBSCRIBE a");
    assert_eq!(ask(&mut house, client, "CLIENT REPLY SKIP"), "");
    assert_eq!(ask(&mut house, client, "PUBLISH a 1"), "");
    assert_eq!(ask(&mut house, client, "PUBLISH a 2"), ":1");
    assert_eq!(ask(&mut house, client, "CLIENT REPLY OFF"), "");
    assert_eq!(ask(&mut house, client, "PUBLISH a 3"), "");
    assert_eq!(ask(&mut house, client, "CLIENT REPLY ON"), "+OK");
    assert_eq!(
        told(&mut house, far),
        "*3 message a 1 *3 message a 2 *3 message a 3"
    );
    // Subscriptions are confirmed all the same, as by Redis 7.
    assert_eq!(ask(&mut house, client, "CLIENT REPLY SKIP"), "");
    assert_eq!(
        ask(&mut house, client, "SUBSCRIBE b c"),
        "*3 subscribe b :1 *3 subscribe c :2"
    );
    assert_eq!(ask(&mut house, client, "PING"), "*2 pong ");
    assert_eq!(ask(&mut house, client, "RESET"), "+RESET");
    assert_eq!(ask(&mut house, client, "CLIENT REPLY OFF"), "");
    assert_eq!(ask(&mut house, client, "SUBSCRIBE b"), "*3 subscribe b :1");
    assert_eq!(
        ask(&mut house, client, "UNSUBSCRIBE"),
        "*3 unsubscribe b :0"
    );
    assert_eq!(ask(&mut house, client, "PING"), "");
    assert_eq!(ask(&mut house, client, "CLIENT REPLY ON"), "+OK");
    // QUIT stands behind what was asked before.
    say(&mut house, client, "PUBLISH a 4");
    say(&mut house, client, "QUIT");
    say(&mut house, client, "PUBLISH a 5");
    house.settle();
    assert_eq!(told(&mut house, client), ":1 +OK");
    assert!(house.is_shut(client));
    assert_eq!(told(&mut house, far), "*3 message a 4");
}

#[test]
fn subscriptions_and_patterns_end_at_their_limits() {
    let mut house = House::with(1, |settings| {
        settings.server_limits.subscriptions_max = 4;
        settings.server_limits.patterns_max = 2;
    });
    let client = redis(&mut house, 0);
    for (line, expected) in [
        ("PSUBSCRIBE a b", "*3 psubscribe a :1 *3 psubscribe b :2"),
        ("PSUBSCRIBE a c", "-ERR too many patterns of one connection"),
        ("PSUBSCRIBE a", "*3 psubscribe a :2"),
        (
            "SUBSCRIBE a b c",
            "-ERR too many subscriptions of one connection",
        ),
        ("SUBSCRIBE a b", "*3 subscribe a :3 *3 subscribe b :4"),
        ("SUBSCRIBE b a", "*3 subscribe b :4 *3 subscribe a :4"),
    ] {
        assert_eq!(ask(&mut house, client, line), expected, "{line}");
    }
    let long = "x".repeat(1_025);
    assert_eq!(
        ask(&mut house, client, &format!("SUBSCRIBE {long}")),
        "-ERR the channel is longer than 1024 bytes"
    );
}
