//! RESP in the shard: answers in order, counts of all shards, what only its sessions do.

use super::super::Ending;
use super::super::slow::{SlowPolicy, SlowRule, SlowRules};
use super::super::testing::{House, Who, brief, bytes, publish};
use crate::limits::KIB;

mod endings;
mod identity;

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
