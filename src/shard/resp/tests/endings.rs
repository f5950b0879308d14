//! How a RESP session ends, and what it is told before that.

use super::super::super::Ending;
use super::super::super::testing::{House, publish};
use super::{ask, command, redis, say, told};

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
