//! The life of a shard in time: liveness, drain, counters.

use super::testing::{House, brief, frame, publish};
use super::*;

#[test]
fn silence_is_asked_about_and_then_the_end() {
    let mut house = House::new(1);
    let (dead, alive) = (house.connect(0), house.connect(0));
    let begun = house.now.ms;
    let mut pings = 0;
    while house.closed(dead).is_none() {
        house.pass_to_deadline(0);
        for text in house.read(alive) {
            assert_eq!(text, "ping");
            pings += 1;
            house.bytes(alive, &frame(Opcode::Pong, b""));
            house.turn(0);
        }
    }
    assert_eq!(house.read(dead), ["ping", "close 4009 ping timeout"]);
    assert!(house.now.ms - begun <= 45_000 && pings >= 1);
    assert!(house.session(alive).is_open());
}

#[test]
fn after_a_long_stop_everybody_is_asked_before_anybody_is_judged() {
    let mut house = House::new(1);
    let clients = [0, 1, 2].map(|_| house.connect(0));
    house.pass(3_600_000);
    house.turn(0);
    for client in clients {
        assert_eq!(house.read(client), ["ping"]);
        house.bytes(client, &frame(Opcode::Pong, b""));
    }
    house.pass(19_999);
    house.turn(0);
    for client in clients {
        assert!(house.session(client).is_open());
    }
}

#[test]
fn a_client_that_we_do_not_read_is_not_called_dead_for_its_silence() {
    let mut house = House::new(2);
    let (publisher, reader) = (house.connect(0), house.connect(1));
    house.subscribe(reader, "a");
    house.fill(0, 1);
    house.send(publisher, &publish("a", 1));
    house.turn(0);
    assert!(house.is_paused(publisher));
    for _ in 0..100 {
        house.pass(10_000);
        house.turn(0);
    }
    assert!(house.session(publisher).is_open());
    house.unfill(0, 1);
    house.settle();
    assert_eq!(brief(&house.read(publisher)), ["ack publish"]);
    // And its time begins anew.
    house.pass(17_000);
    house.turn(0);
    assert_eq!(house.read(publisher), [""; 0]);
}

#[test]
fn a_client_that_reads_none_of_its_answers_does_not_stay_for_ever() {
    let mut house = House::with(1, |settings| settings.limits.replies_bytes_max = 1000);
    let client = house.connect(0);
    house.stop_reading(client);
    for _ in 0..20 {
        house.bytes(client, &frame(Opcode::Ping, &[b'x'; 100]));
        house.turn(0);
    }
    assert!(house.is_paused(client));
    let begun = house.now.ms;
    house.pass(30_000);
    house.turn(0);
    house.gulp(client);
    house.turn(0);
    assert!(house.is_paused(client) && house.session(client).is_open());
    // It took some: from there on again.
    while house.closed(client).is_none() {
        house.pass_to_deadline(0);
    }
    assert!(house.now.ms - begun > 60_000 && house.now.ms - begun <= 75_000);
    assert_eq!(house.closed(client), Some(true));
    house.check_empty(0);
}

#[test]
fn a_message_has_its_time_from_its_first_fragment() {
    let mut house = House::new(1);
    let client = house.connect(0);
    let mut first = frame(Opcode::Text, b"x");
    first[0] = Opcode::Text.bits();
    house.bytes(client, &first);
    house.turn(0);
    for _ in 0..3 {
        house.pass(9_999);
        let mut more = frame(Opcode::Continuation, b"x");
        more[0] = 0;
        house.bytes(client, &more);
        house.turn(0);
        assert_eq!(house.read(client), [""; 0]);
    }
    house.pass(3);
    house.turn(0);
    assert_eq!(house.read(client), ["close 1008 too late"]);
}

#[test]
fn timers_do_not_pile_up() {
    let mut house = House::new(1);
    let clients: Vec<_> = (0..10).map(|_| house.connect(0)).collect();
    for _ in 0..2_000 {
        for client in &clients {
            house.bytes(*client, &frame(Opcode::Pong, b""));
        }
        house.pass(100);
        house.turn(0);
    }
    let mut count = 0;
    while house.shards[0].timers.pop_due(u64::MAX).is_some() {
        count += 1;
    }
    assert!(count <= 3 * clients.len(), "{count}");
}

#[test]
fn a_quiet_shard_hands_on_what_it_took_and_takes_no_more() {
    let mut house = House::with(2, |settings| settings.limits.turn_messages_max = 2);
    let (publisher, reader) = (house.connect(0), house.connect(1));
    let visitor = house.accept(0, 0, false);
    house.subscribe(reader, "a");
    for _ in 0..5 {
        house.send(publisher, &publish("a", 1));
    }
    house.fill(0, 1);
    house.turn(0);
    house.shards[0].quiesce();
    house.turn(0);
    assert!(!house.shards[0].is_settled());
    assert!(house.is_paused(publisher) && house.is_paused(visitor));
    house.unfill(0, 1);
    house.settle();
    assert!(house.shards[0].is_settled());
    assert_eq!(house.read(publisher).len(), 5);
    assert_eq!(house.read(reader).len(), 5);
    assert!(house.is_paused(publisher), "read, but no more is taken");
    house.bytes(visitor, testing::HEAD.as_bytes());
    house.turn(0);
    assert_eq!(house.head(visitor), "");
    house.shards[0].close_all(0);
    house.turn(0);
    assert_eq!(house.read(publisher), ["close 1001 going away"]);
    assert!(house.head(visitor).starts_with("HTTP/1.1 503 "));
}

#[test]
fn all_leave_at_once_or_one_after_the_other() {
    for spread_ms in [0, 1_000] {
        let mut house = House::new(1);
        let clients: Vec<_> = (0..10).map(|_| house.connect(0)).collect();
        house.subscribe(clients[3], "a");
        let visitor = house.accept(0, 0, false);
        house.shards[0].close_all(spread_ms);
        house.turn(0);
        assert!(house.head(visitor).starts_with("HTTP/1.1 503 "));
        // Those that were on their way here come too late.
        let late = house.adopt(0, 0);
        house.turn(0);
        assert!(house.head(late).starts_with("HTTP/1.1 503 "));
        let mut left = Vec::new();
        for _ in 0..=10 {
            let gone = clients.iter().filter(|client| house.is_shut(**client));
            left.push(gone.count());
            house.pass(100);
            house.turn(0);
        }
        if spread_ms == 0 {
            assert_eq!(left, [10; 11]);
        } else {
            assert_eq!(left, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10]);
        }
        for client in clients {
            assert_eq!(house.read(client).last().unwrap(), "close 1001 going away");
            house.end(client, Ending::EndOfInput);
        }
        house.end(visitor, Ending::EndOfInput);
        house.end(late, Ending::EndOfInput);
        house.turn(0);
        house.check_empty(0);
    }
}

#[test]
fn a_drain_sends_first_what_waits() {
    let mut house = House::new(1);
    let (reader, publisher) = (house.connect(0), house.connect(0));
    house.subscribe(reader, "a");
    house.stop_reading(reader);
    for _ in 0..10 {
        house.ask(publisher, &publish("a", 1_000));
    }
    house.shards[0].close_all(0);
    house.turn(0);
    house.read_on(reader);
    house.settle();
    let told = house.read(reader);
    assert_eq!((told.len(), &told[10][..]), (11, "close 1001 going away"));
    assert!(house.is_shut(reader));
}

#[test]
fn counters_and_views_say_what_is() {
    let mut house = House::new(1);
    let (reader, publisher) = (house.connect(0), house.connect(0));
    house.subscribe(reader, "a");
    house.subscribe(reader, "b");
    house.stop_reading(reader);
    house.ask(publisher, &publish("a", 1_000));
    house.ask(publisher, "nonsense");
    let waiting = house.accept(0, 0, false);
    let stats = house.shards[0].stats();
    assert_eq!(
        (stats.connections, stats.sessions, stats.accepted),
        (3, 2, 3)
    );
    assert_eq!(
        (stats.subscriptions, stats.publishes, stats.refusals),
        (2, 1, 1)
    );
    assert_eq!(
        (stats.commands, stats.deliveries_due, stats.delivered),
        (4, 1, 0)
    );
    assert!(stats.outbox_bytes > 1_000 && stats.received_bytes > 1_000);
    let views = house.shards[0].connection_views(2);
    assert_eq!((views.len(), views[0].subscriptions), (2, 2));
    assert_eq!(views[0].outbox_bytes, stats.outbox_bytes);
    assert!(views[0].outbox_bytes > 0 && views[1].outbox_bytes == 0);
    let id = house.shards[0].client_id(reader.id).to_string();
    assert_eq!((&views[0].id, &views[0].address[..]), (&id, "tests:1"));
    house.end(waiting, Ending::EndOfInput);
    house.end(reader, Ending::Failed);
    house.turn(0);
    let stats = house.shards[0].stats();
    assert_eq!(
        (stats.connections, stats.outbox_bytes, stats.announced),
        (1, 0, 1)
    );
    let lost = CloseReason::ALL
        .iter()
        .position(|reason| *reason == CloseReason::ConnectionLost);
    assert_eq!(stats.closed[lost.unwrap()], 2);
}
