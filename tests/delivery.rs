//! The delivery promises over real sockets, at reduced size: order, once, the ack as barrier, nothing acked lost
//! to a drain, and no silent loss for a slow reader.

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;

use common::broker::sum_in;
use common::client::parse;
use common::{Broker, Client, End, clients_by_shard, option, pair_on_two_shards};
use serde_json::{Value, json};

/// `{"p":publisher,"n":number}` of a delivery's message.
fn publisher_and_number(delivery: &Value) -> (usize, u64) {
    let message = &delivery["message"];
    match (message["p"].as_u64(), message["n"].as_u64()) {
        (Some(publisher), Some(number)) => (publisher as usize, number),
        _ => panic!("not a delivery of this test: {delivery}"),
    }
}

#[test]
fn each_message_comes_once_and_in_order() {
    const PUBLISHERS: usize = 4;
    const MESSAGES: u64 = 400;
    /// Acks that a publisher leaves unread at most.
    const WINDOW: u64 = 40;
    let broker = Broker::start(&[]);
    let mut groups = clients_by_shard(&broker, 2, 5);
    let mut publishers: Vec<Client> = groups
        .iter_mut()
        .flat_map(|group| group.drain(..2))
        .collect();
    let mut subscribers: Vec<Client> = groups.into_iter().flatten().collect();
    assert_eq!((publishers.len(), subscribers.len()), (PUBLISHERS, 6));
    // Publisher p publishes to load.p; two of six subscribers want all, the others two of four each.
    let filters: [&[&str]; 6] = [
        &["load"],
        &["load.0", "load.1"],
        &["load.2", "load.3"],
        &["load.*"],
        &["=load.1", "load.3"],
        &["load.0", "=load.2"],
    ];
    let wanted: [&[usize]; 6] = [
        &[0, 1, 2, 3],
        &[0, 1],
        &[2, 3],
        &[0, 1, 2, 3],
        &[1, 3],
        &[0, 2],
    ];
    for (subscriber, filters) in subscribers.iter_mut().zip(filters) {
        for filter in filters {
            subscriber.subscribe(filter);
        }
    }
    thread::scope(|scope| {
        for (index, publisher) in publishers.iter_mut().enumerate() {
            scope.spawn(move || {
                let mut acked = 0;
                for number in 0..MESSAGES {
                    publisher.send_json(&json!({
                        "type": "publish", "topic": format!("load.{index}"), "id": number,
                        "message": {"p": index, "n": number},
                    }));
                    while number + 1 - acked >= WINDOW {
                        let ack = publisher.next_json();
                        assert_eq!((&ack["type"], &ack["id"]), (&json!("ack"), &json!(acked)));
                        acked += 1;
                    }
                }
                while acked < MESSAGES {
                    let ack = publisher.next_json();
                    assert_eq!((&ack["type"], &ack["id"]), (&json!("ack"), &json!(acked)));
                    acked += 1;
                }
            });
        }
        for (subscriber, wanted) in subscribers.iter_mut().zip(wanted) {
            scope.spawn(move || {
                let mut next = [0; PUBLISHERS];
                for _ in 0..wanted.len() as u64 * MESSAGES {
                    let delivery = subscriber.delivery();
                    let (publisher, number) = publisher_and_number(&delivery);
                    assert!(wanted.contains(&publisher), "{delivery}");
                    assert_eq!(
                        number, next[publisher],
                        "publisher {publisher}: lost, twice or early"
                    );
                    assert_eq!(delivery["topic"], format!("load.{publisher}"));
                    next[publisher] += 1;
                }
            });
        }
    });
    for subscriber in &mut subscribers {
        subscriber.expect_nothing();
    }
    let due = wanted.iter().map(|wanted| wanted.len() as u64).sum::<u64>() * MESSAGES;
    let stats = broker.stats_at_rest();
    let sum = |name| sum_in(&stats, name);
    assert_eq!(sum("publishes"), PUBLISHERS as u64 * MESSAGES);
    assert_eq!(
        (sum("deliveries_due"), sum("delivered"), sum("announced")),
        (due, due, 0)
    );
    assert_eq!(
        (sum("dropped"), sum("closed_slow"), sum("cq_overflow")),
        (0, 0, 0)
    );
}

/// Does a dotted filter match? The plain version of DESIGN decision 9.
fn matches(filter: &str, topic: &str) -> bool {
    let (exact, levels) = match filter.strip_prefix('=') {
        Some(levels) => (true, levels),
        None => (false, filter),
    };
    let levels: Vec<&str> = levels.split('.').collect();
    let names: Vec<&str> = topic.split('.').collect();
    (if exact {
        levels.len() == names.len()
    } else {
        levels.len() <= names.len()
    }) && levels
        .iter()
        .zip(&names)
        .all(|(level, name)| *level == "*" || level == name)
}

/// The contexts of one message for one subscriber, most specific first.
fn contexts<'a>(filters: &[&'a str], topic: &str) -> Vec<&'a str> {
    let mut contexts: Vec<&str> = filters
        .iter()
        .copied()
        .filter(|filter| matches(filter, topic))
        .collect();
    contexts.sort_by_key(|filter| {
        let levels = filter.trim_start_matches('=');
        let stars: Vec<bool> = levels.split('.').map(|level| level == "*").collect();
        (
            std::cmp::Reverse(stars.len()),
            !filter.starts_with('='),
            stars,
        )
    });
    contexts
}

/// One action after the other, each on a random connection and acked before the next: then everything that
/// every subscriber gets is known, to the message and its place.
#[test]
fn an_ack_is_a_barrier_for_every_other_connection() {
    const FILTERS: [&str; 8] = ["a", "a.b", "=a.b", "a.*", "*", "=a", "=*", "a.b.c"];
    const TOPICS: [&str; 6] = ["a", "a.b", "a.b.c", "a.c", "b", "a.b.d.e"];
    let mut random = fastrand::Rng::with_seed(common::seed());
    let broker = Broker::start(&[]);
    let mut clients: Vec<Client> = clients_by_shard(&broker, 2, 4)
        .into_iter()
        .flatten()
        .collect();
    let mut subscribed: Vec<Vec<&str>> = vec![Vec::new(); clients.len()];
    let mut expected: Vec<Vec<(u64, String)>> = vec![Vec::new(); clients.len()];
    let mut subscribes = 0;
    for step in 0..1500_u64 {
        let actor = random.usize(..clients.len());
        let filter = FILTERS[random.usize(..FILTERS.len())];
        match random.u8(..4) {
            0 => {
                clients[actor].subscribe(filter);
                subscribes += 1;
                if !subscribed[actor].contains(&filter) {
                    subscribed[actor].push(filter);
                }
            }
            1 => {
                clients[actor].unsubscribe(filter);
                subscribed[actor].retain(|kept| *kept != filter);
            }
            _ => {
                let topic = TOPICS[random.usize(..TOPICS.len())];
                let echo = random.bool();
                clients[actor].command(
                    json!({"type": "publish", "topic": topic, "message": step, "echo": echo}),
                );
                for (subscriber, filters) in subscribed.iter().enumerate() {
                    if subscriber != actor || echo {
                        let contexts = contexts(filters, topic);
                        expected[subscriber]
                            .extend(contexts.iter().map(|context| (step, (*context).to_owned())));
                    }
                }
            }
        }
    }
    let mut due = 0;
    for (index, (client, expected)) in clients.iter_mut().zip(&expected).enumerate() {
        client.settle();
        let got: Vec<(u64, String)> = client
            .take_kept()
            .iter()
            .map(|delivery| {
                let step = delivery["message"].as_u64().expect("a step");
                (
                    step,
                    delivery["context"].as_str().expect("a context").to_owned(),
                )
            })
            .collect();
        for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
            assert_eq!(got, expected, "delivery {at} of client {index}");
        }
        assert_eq!(got.len(), expected.len(), "client {index}");
        due += got.len() as u64;
    }
    assert!(
        due > 500 && subscribes > 100,
        "{due} deliveries prove little"
    );
    let stats = broker.stats_at_rest();
    assert_eq!(sum_in(&stats, "deliveries_due"), due);
    assert_eq!(sum_in(&stats, "delivered"), due);
}

/// The same while everybody acts at once: the stay of a subscription is known from outside only to within the
/// time that its acks take, and what is surely inside must come, what is surely outside must not.
#[test]
fn stays_lose_nothing_and_let_nothing_stray() {
    const PUBLISHERS: usize = 2;
    const CHURNERS: usize = 6;
    const STAYS: usize = 25;
    let seed = common::seed();
    let broker = Broker::start(&[]);
    let mut groups = clients_by_shard(&broker, 2, 1 + CHURNERS / 2);
    let mut publishers: Vec<Client> = groups.iter_mut().map(|group| group.remove(0)).collect();
    let mut churners: Vec<Client> = groups.into_iter().flatten().collect();
    // Raised before a message is sent, and after its ack was read.
    let begun: [AtomicU64; PUBLISHERS] = Default::default();
    let acked: [AtomicU64; PUBLISHERS] = Default::default();
    let done = AtomicBool::new(false);
    let read = |counters: &[AtomicU64; PUBLISHERS]| [0, 1].map(|p: usize| counters[p].load(SeqCst));
    thread::scope(|scope| {
        for (index, publisher) in publishers.iter_mut().enumerate() {
            let (begun, acked, done) = (&begun[index], &acked[index], &done);
            scope.spawn(move || {
                while !done.load(SeqCst) {
                    let number = begun.fetch_add(1, SeqCst);
                    publisher.publish("stay.topic", json!({"p": index, "n": number}));
                    acked.fetch_add(1, SeqCst);
                }
            });
        }
        let churning: Vec<_> = churners
            .iter_mut()
            .enumerate()
            .map(|(index, client)| {
                let mut random = fastrand::Rng::with_seed(seed ^ index as u64);
                let (begun, acked) = (&begun, &acked);
                scope.spawn(move || {
                    let mut total = 0;
                    for stay in 0..STAYS {
                        let filter = random
                            .choice(["stay", "stay.topic", "=stay.*", "*"])
                            .unwrap();
                        let earliest = read(acked);
                        client.subscribe(filter);
                        let surely_from = read(begun);
                        let mut got: Vec<Value> = (0..random.usize(1..20))
                            .map(|_| client.delivery())
                            .collect();
                        let surely_until = read(acked);
                        client.unsubscribe(filter);
                        let latest = read(begun);
                        got.extend(client.take_kept());
                        // Between two stays nothing strays in.
                        client.expect_nothing();
                        total += got.len();
                        let mut numbers = [Vec::new(), Vec::new()];
                        for delivery in &got {
                            assert_eq!(delivery["context"], filter);
                            let (publisher, number) = publisher_and_number(delivery);
                            numbers[publisher].push(number);
                        }
                        for (p, numbers) in numbers.iter().enumerate() {
                            let what =
                                format!("client {index}, stay {stay}, publisher {p}: {numbers:?}");
                            assert!(numbers.windows(2).all(|two| two[1] == two[0] + 1), "{what}");
                            for must in surely_from[p]..surely_until[p] {
                                assert!(numbers.contains(&must), "{must} is missing: {what}");
                            }
                            assert!(
                                numbers.first().is_none_or(|first| *first >= earliest[p]),
                                "{what}"
                            );
                            assert!(
                                numbers.last().is_none_or(|last| *last < latest[p]),
                                "{what}"
                            );
                        }
                    }
                    total
                })
            })
            .collect();
        let totals: Vec<_> = churning.into_iter().map(|churner| churner.join()).collect();
        done.store(true, SeqCst);
        for total in totals {
            assert!(total.expect("a churner that found nothing wrong") >= STAYS);
        }
    });
    let stats = broker.stats_at_rest();
    assert_eq!(sum_in(&stats, "announced"), 0);
    assert_eq!(sum_in(&stats, "subscriptions"), 0);
}

#[test]
fn subscribers_that_vanish_cost_nobody_else_a_message() {
    let broker = Broker::start(&[]);
    let (mut publisher, mut witness) = pair_on_two_shards(&broker);
    witness.subscribe("crowd");
    for number in 0..60 {
        let mut passer = Client::connect(&broker);
        passer.subscribe("crowd");
        publisher.publish("crowd", json!({"p": 0, "n": number}));
        // Some go without a word and with unread input (a reset), some after their message.
        if number % 2 == 0 {
            assert_eq!(publisher_and_number(&passer.delivery()), (0, number));
            passer.close();
        }
        drop(passer);
        assert_eq!(publisher_and_number(&witness.delivery()), (0, number));
    }
    witness.expect_nothing();
    common::wait_for("the passers to be gone", || {
        (broker.sum("connections") == 2).then_some(())
    });
    let stats = broker.stats_at_rest();
    assert_eq!(sum_in(&stats, "subscriptions"), 1);
    assert!(sum_in(&stats, "deliveries_due") >= 120);
}

/// SIGTERM in the middle of a stream: what was acked is read, then everybody gets 1001, and the exit is 0.
#[test]
fn a_drain_loses_nothing_that_was_acked() {
    let mut broker = Broker::start(&[]);
    let mut groups = clients_by_shard(&broker, 2, 4);
    let publishers: Vec<Client> = groups
        .iter_mut()
        .flat_map(|group| group.drain(..2))
        .collect();
    let mut subscribers: Vec<Client> = groups.into_iter().flatten().collect();
    for subscriber in &mut subscribers {
        subscriber.subscribe("drain");
    }
    let (flowing, flows) = mpsc::channel();
    let publishing: Vec<_> = publishers
        .into_iter()
        .enumerate()
        .map(|(index, mut publisher)| {
            let flowing = flowing.clone();
            thread::spawn(move || {
                let (mut sent, mut acked) = (0_u64, 0_u64);
                let end = loop {
                    // Always ten on the way, so that SIGTERM meets some in every state.
                    while sent < acked + 10 {
                        let publish = json!({"type": "publish", "topic": "drain.it", "id": sent,
                            "message": {"p": index, "n": sent}});
                        // A send that fails: the end is read below.
                        let _ = publisher.try_send(publish.to_string());
                        sent += 1;
                    }
                    match publisher.try_next_text() {
                        Ok(text) => {
                            assert_eq!(parse(&text)["id"], acked, "{text}");
                            acked += 1;
                            if acked == 200 {
                                flowing.send(()).expect("the test waits");
                            }
                        }
                        Err(end) => break end,
                    }
                };
                (acked, end)
            })
        })
        .collect();
    let reading: Vec<_> = subscribers
        .into_iter()
        .map(|mut subscriber| {
            thread::spawn(move || {
                let (texts, end) = subscriber.read_to_end();
                assert_eq!(end, End::Code(1001), "a reading subscriber");
                let mut next: HashMap<usize, u64> = HashMap::new();
                for text in texts {
                    let (publisher, number) = publisher_and_number(&parse(&text));
                    let next = next.entry(publisher).or_default();
                    assert_eq!(number, *next, "publisher {publisher}");
                    *next += 1;
                }
                next
            })
        })
        .collect();
    for _ in 0..4 {
        flows
            .recv_timeout(common::DEADLINE)
            .expect("every publisher comes to 200 acks");
    }
    broker.terminate();
    let acked: Vec<u64> = publishing
        .into_iter()
        .map(|publisher| {
            let (acked, end) = publisher.join().expect("a publisher");
            assert_eq!(end, End::Code(1001), "a publisher");
            acked
        })
        .collect();
    for reader in reading {
        let got = reader.join().expect("a subscriber");
        for (publisher, acked) in acked.iter().enumerate() {
            let got = got.get(&publisher).copied().unwrap_or(0);
            assert!(
                got >= *acked,
                "publisher {publisher}: {acked} acked, {got} read"
            );
        }
    }
    assert_eq!(broker.wait_exit().code(), Some(0));
}

/// A message of about this many bytes with its number.
fn large(number: u64, size: usize) -> Value {
    json!({"p": 0, "n": number, "fill": "x".repeat(size)})
}

/// What the kernel can hold for one connection (tcp_wmem, tcp_rmem) is well below this; past it the broker's
/// own queue grows.
const FLOOD_BYTES: usize = 64 << 20;

#[test]
fn a_slow_reader_is_closed_and_others_never_notice() {
    const SIZE: usize = 48 << 10;
    let broker = Broker::start(&[option::LINGER_MS, "1000"]);
    let (mut publisher, mut reader) = pair_on_two_shards(&broker);
    let mut slow = Client::connect_narrow(&broker);
    slow.subscribe("flood");
    reader.subscribe("flood");
    let (counted, count) = mpsc::channel();
    let reading = thread::spawn(move || {
        for number in 0.. {
            let delivery = reader.delivery();
            if delivery["message"] == "end" {
                return (number, reader);
            }
            assert_eq!(publisher_and_number(&delivery), (0, number));
            counted.send(()).expect("the test waits");
        }
        unreachable!("numbers do not end")
    });
    let mut published = 0;
    while broker.sum("closed_slow") == 0 {
        assert!(
            published < FLOOD_BYTES / SIZE,
            "{published} messages and nobody is too slow"
        );
        for _ in 0..10 {
            publisher.publish("flood", large(published as u64, SIZE));
            published += 1;
            // In step with the reader: it is no slow consumer, however this machine schedules.
            count
                .recv_timeout(common::DEADLINE)
                .expect("the reader gets every message at once");
        }
    }
    publisher.publish("flood", json!("end"));
    let (read, _reader) = reading.join().expect("the reader");
    assert_eq!(read, published as u64);
    let (texts, end) = slow.read_to_end();
    assert!(matches!(end, End::Code(4008) | End::Lost), "{end:?}");
    for (number, text) in texts.iter().enumerate() {
        assert_eq!(
            publisher_and_number(&parse(text)),
            (0, number as u64),
            "whole and in order"
        );
    }
    let stats = broker.stats_at_rest();
    assert_eq!(sum_in(&stats, "closed_slow"), 1);
    assert!(sum_in(&stats, "announced") > 0, "{stats}");
    // What it read was delivered; what it did not read was announced or lies in the kernel's buffers.
    assert!(sum_in(&stats, "delivered") >= read + texts.len() as u64);
}

/// Floods two topics until `dropped` in `/stats` says that skipping has begun; then reads all. Gives the
/// deliveries and gaps by topic, and how many were published to each.
fn flood_and_read(policy: &str) -> (HashMap<String, Vec<Value>>, u64) {
    const SIZE: usize = 24 << 10;
    const TOPICS: [&str; 2] = ["feed.a", "feed.b"];
    let broker = Broker::start(&[option::SLOW, &format!("feed={policy}")]);
    let (mut publisher, _other) = pair_on_two_shards(&broker);
    let mut slow = Client::connect_narrow(&broker);
    slow.subscribe("feed");
    let mut published = 0;
    while broker.sum("dropped") < 100 {
        assert!(
            (published as usize) < FLOOD_BYTES / SIZE,
            "{published} messages and none is skipped"
        );
        for _ in 0..10 {
            for topic in TOPICS {
                publisher.publish(topic, large(published, SIZE));
            }
            published += 1;
        }
    }
    let mut told: HashMap<String, Vec<Value>> = HashMap::new();
    let mut left: u64 = published * TOPICS.len() as u64;
    let mut skipped = 0;
    while left > 0 {
        let mut text = slow.delivery();
        let count = match text["type"].as_str() {
            Some("gap") => {
                let count = text["count"].as_u64().expect("a count");
                assert!(count > 0, "{text}");
                skipped += count;
                count
            }
            _ => {
                text["message"]["fill"].take();
                1
            }
        };
        assert!(count <= left, "{count} told where {left} were left");
        left -= count;
        let topic = text["topic"].as_str().expect("a topic").to_owned();
        told.entry(topic).or_default().push(text);
    }
    slow.expect_nothing();
    for topic in TOPICS {
        assert!(told.contains_key(topic), "{topic}");
    }
    let stats = broker.stats_at_rest();
    assert_eq!(sum_in(&stats, "dropped"), skipped);
    assert_eq!(sum_in(&stats, "announced"), skipped);
    assert_eq!(
        sum_in(&stats, "deliveries_due"),
        published * TOPICS.len() as u64
    );
    assert_eq!(sum_in(&stats, "closed_slow"), 0);
    (told, published)
}

/// For each topic what came and what was skipped add up, numbers only rise, and the newest is there.
fn check_skipped(told: &HashMap<String, Vec<Value>>, published: u64) {
    for (topic, told) in told {
        let mut numbers = Vec::new();
        let mut skipped = 0;
        for text in told {
            match text["type"].as_str() {
                Some("gap") => skipped += text["count"].as_u64().expect("a count"),
                _ => numbers.push(publisher_and_number(text).1),
            }
        }
        assert!(skipped > 0, "{topic}");
        assert_eq!(numbers.len() as u64 + skipped, published, "{topic}");
        assert!(
            numbers.windows(2).all(|two| two[0] < two[1]),
            "{topic}: {numbers:?}"
        );
        assert_eq!(
            numbers.last(),
            Some(&(published - 1)),
            "{topic}: the newest is never skipped"
        );
    }
}

#[test]
fn drop_oldest_tells_how_many() {
    let (told, published) = flood_and_read("drop-oldest");
    check_skipped(&told, published);
}

#[test]
fn conflate_keeps_the_newest() {
    let (told, published) = flood_and_read("conflate");
    check_skipped(&told, published);
    // Once skipping has begun only one message of a topic waits, so almost all were skipped behind it.
    for (topic, told) in &told {
        let gaps = told.iter().filter(|text| text["type"] == "gap").count();
        let newest = told.last().expect("something came");
        assert_eq!(
            newest["message"]["n"],
            json!(published - 1),
            "{topic}: the newest comes last"
        );
        assert!(gaps >= 1, "{topic}");
    }
}

/// Publishers say 4 KB each at one moment, again and again: together more than an outbox may hold here, but no more than
/// a socket takes at once.
#[test]
fn a_burst_does_not_make_a_prompt_reader_slow() {
    const PUBLISHERS: u64 = 24;
    const ROUNDS: u64 = 50;
    for shards in ["1", "2"] {
        let bounds = ["--max-outbox", "65536", "--soft-outbox", "32768"];
        let broker = Broker::start(&[&["--shards", shards][..], &bounds].concat());
        let mut reader = Client::connect(&broker);
        reader.subscribe("burst");
        let filling = "x".repeat(4_000);
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| {
                let mut client = Client::connect(&broker);
                let filling = filling.clone();
                let (go, gone) = mpsc::channel::<()>();
                let publishing = thread::spawn(move || {
                    for (number, ()) in gone.into_iter().enumerate() {
                        client.publish(
                            "burst",
                            json!({"p": publisher, "n": number, "fill": filling}),
                        );
                    }
                });
                (go, publishing)
            })
            .collect();
        let mut last = HashMap::new();
        for _ in 0..ROUNDS {
            for (go, _) in &publishers {
                go.send(()).expect("a publisher");
            }
            for _ in 0..PUBLISHERS {
                let (publisher, number) = publisher_and_number(&reader.delivery());
                assert_eq!(last.insert(publisher, number), number.checked_sub(1));
            }
        }
        for (go, publishing) in publishers {
            drop(go);
            publishing.join().expect("a publisher");
        }
        assert_eq!(broker.sum("closed_slow"), 0);
    }
}
