//! Peers that do not drain: what that costs, and whom.

use super::super::super::Ending;
use super::super::super::slow::{SlowPolicy, SlowRule, SlowRules};
use super::super::super::testing::{House, Who, brief, bytes, publish};
use super::super::testing::{PLACES, at, json};
use crate::address::Address;
use crate::limits::{FEED_BYTES_MAX, KIB, MIB};
use crate::protocol::Outcome;
use crate::protocol::peer::Watch;
use crate::protocol::peer::call::Call;
use crate::topic::Filter;

const HOSTS: Watch = Watch(
    Watch::CONNECT.0 | Watch::DISCONNECT.0 | Watch::EVENT.0 | Watch::PUBLISH.0 | Watch::SUBSCRIBE.0,
);

fn event(to: &str, size: usize) -> String {
    let data = "d".repeat(size);
    format!(r#"{{"type":"event","event":"e","data":"{data}"{to}}}"#)
}

fn request(id: u32, timeout_ms: u32) -> String {
    format!(r#"{{"type":"request","event":"e","id":{id},"timeout":{timeout_ms},"data":1}}"#)
}

/// A peer does not read any more, and this client's events have put it behind.
fn put_behind(house: &mut House, peer: Who, client: Who, to: &str) {
    house.stop_reading(peer);
    for _ in 0..FEED_BYTES_MAX / (30 * KIB) + 3 {
        house.send(client, &event(to, 30 * KIB));
        house.settle();
    }
    assert!(is_behind(house, peer));
    assert!(house.is_paused(client));
}

fn is_behind(house: &mut House, peer: Who) -> bool {
    house.session(peer).peer.as_ref().unwrap().hosting.is_behind
}

/// Who waits for peers, on all shards.
fn waiting(house: &House) -> usize {
    house.shards.iter().map(|shard| shard.feeds.waiting()).sum()
}

#[test]
fn a_host_that_never_drains_stops_its_hundred_clients_and_nobody_else() {
    for (shards, home, _) in PLACES {
        let mut house = House::new(shards);
        // Of no host, and subscribed to what the others publish.
        let lucky = house.connect(shards - 1);
        house.subscribe(lucky, "a");
        let host = house.host(home, "h", HOSTS);
        let clients: Vec<_> = (0..100)
            .map(|index| house.connect(index % shards))
            .collect();
        house.settle();
        house.told(host);
        house.stop_reading(host);
        let mut sent = 0;
        for round in 0..30 {
            for &client in &clients {
                if house.is_paused(client) {
                    continue;
                }
                sent += 1;
                match round % 3 {
                    0 => house.send(client, &event("", 4 * KIB)),
                    1 => house.send(client, &publish("a.b", 4 * KIB)),
                    _ => house.send(client, &request(round, 60_000)),
                }
            }
            house.settle();
        }
        assert!(clients.iter().all(|&client| house.is_paused(client)));
        assert_eq!(waiting(&house), 100);
        assert!(
            house
                .shards
                .iter()
                .all(|one| !one.is_restless() && !one.has_work()),
            "nobody is tried again before it drains"
        );
        let charged = house.session(host).outbox.charged();
        // What was on its way is bounded by the rings, and what came in one turn.
        assert!(charged < FEED_BYTES_MAX + shards * MIB, "{charged}");
        let stalled: usize = clients
            .iter()
            .map(|&client| {
                house
                    .session(client)
                    .stall
                    .as_ref()
                    .map_or(0, |stall| stall.bytes.len())
            })
            .sum();
        assert!(stalled < 100 * 64 * KIB);
        // Others go on, with all that they say and hear.
        house.read(lucky);
        let told = house.ask(lucky, &publish("a.c", 10));
        assert_eq!(brief(&told), ["publish a", "ack publish"]);

        // Those that come and go are told of all the same.
        let late: Vec<_> = (0..4).map(|index| house.connect(index % shards)).collect();
        house.end(clients[0], Ending::Failed);
        house.settle();
        assert_eq!(waiting(&house), 99);
        house.end(late[0], Ending::Failed);
        house.settle();
        house.read_on(host);
        house.settle();
        assert_eq!(waiting(&house), 0);
        assert!(clients[1..].iter().all(|&client| !house.is_paused(client)));
        let told = house.told(host);
        let of = |verb: &str| told.iter().filter(|one| one.starts_with(verb)).count();
        assert_eq!((of("connect"), of("disconnect")), (4, 2));
        // All that was said arrives, in the order in which each said it; but for what one had not said that has gone.
        let said = of("event") + of("published") + of("request");
        assert!((sent - 1..=sent).contains(&said), "{said} of {sent}");
        let gone = format!("disconnect {} 1006 ", at(clients[0]));
        assert_eq!(told.iter().filter(|one| **one == gone).count(), 1);
        let it = at(clients[7]);
        let verbs: Vec<_> = told
            .iter()
            .filter(|one| one.split(' ').any(|word| word == it))
            .filter_map(|one| one.split(' ').next())
            .collect();
        for (index, verb) in verbs.iter().enumerate() {
            assert_eq!(*verb, ["event", "published", "request"][index % 3]);
        }
        // The lucky one got every publication, once each.
        let published = told
            .iter()
            .filter(|one| one.starts_with("published"))
            .count();
        let heard = house.read(lucky).len();
        assert!(heard <= published);
        for stats in house.shards.iter().map(|one| one.stats()) {
            assert_eq!(stats.deliveries_due, stats.delivered + stats.announced);
            assert_eq!(stats.closed_slow, 0);
        }
    }
}

#[test]
fn of_many_that_wait_the_first_go_first_and_all_in_the_end() {
    for (shards, home, there) in PLACES {
        let mut house = House::new(shards);
        let host = house.host(home, "h", Watch::EVENT);
        let filler = house.connect(there);
        let clients: Vec<_> = (0..300).map(|_| house.connect(there)).collect();
        put_behind(&mut house, host, filler, "");
        // Later ones first, so that the order is not that of their slots.
        for (number, &client) in clients.iter().rev().enumerate() {
            let numbered = format!(r#"{{"type":"event","event":"e","data":{number}}}"#);
            house.send(client, &numbered);
            house.send(client, &event("", 30 * KIB));
            house.turn(there);
        }
        assert_eq!(waiting(&house), 301);
        let mut gulps = 0;
        let mut least = usize::MAX;
        while waiting(&house) > 0 {
            house.gulp(host);
            house.settle();
            gulps += 1;
            let now = waiting(&house);
            assert!(now <= least, "nobody waits anew who has not gone on");
            least = now.max(1);
            let charged = house.session(host).outbox.charged();
            assert!(charged < 2 * FEED_BYTES_MAX + shards * MIB, "{charged}");
            assert!(gulps < 2_000);
        }
        house.read_on(host);
        house.settle();
        let told = house.told(host);
        let numbers: Vec<usize> = told
            .iter()
            .filter_map(|one| one.split(' ').nth(2)?.parse().ok())
            .collect();
        assert_eq!(numbers.len(), 300);
        assert!(numbers.is_sorted(), "{numbers:?}");
    }
}

#[test]
fn commands_wait_in_order_and_go_on_when_half_has_been_read() {
    for (shards, home, there) in PLACES {
        let mut house = House::new(shards);
        let host = house.host(home, "h", HOSTS);
        let client = house.connect(there);
        put_behind(&mut house, host, client, "");
        for text in [
            r#"{"type":"subscribe","topic":"b","id":1}"#,
            r#"{"type":"publish","topic":"b","message":1,"id":2}"#,
            r#"{"type":"unsubscribe","topic":"b","id":3}"#,
            r#"{"type":"ping","id":4}"#,
        ] {
            house.send(client, text);
        }
        house.settle();
        assert_eq!(house.read(client), [""; 0]);
        // It reads a little: nobody goes on yet.
        house.gulp(host);
        house.settle();
        assert!(is_behind(&mut house, host));
        assert_eq!(house.read(client), [""; 0]);
        let mut gulps = 1;
        while is_behind(&mut house, host) {
            house.gulp(host);
            house.settle();
            gulps += 1;
        }
        assert!((5..20).contains(&gulps), "{gulps}");
        house.read_on(host);
        house.settle();
        assert_eq!(
            brief(&house.read(client)),
            [
                "ack subscribe 1",
                "publish b 2",
                "ack publish 2",
                "ack unsubscribe 3",
                "pong 4",
            ]
        );
        let told = house.told(host);
        let it = at(client);
        assert_eq!(
            told[told.len() - 3..],
            [
                format!("subscribed {it} b"),
                format!("published {it} b 1"),
                format!("unsubscribed {it} b"),
            ]
        );
        assert_eq!(house.shards[home].stats().feeds_paused, 1);
    }
}

#[test]
fn a_request_whose_time_is_over_meanwhile_is_answered_busy() {
    for (shards, home, there) in PLACES {
        let mut house = House::new(shards);
        let host = house.host(home, "h", HOSTS);
        let (filler, client) = (house.connect(there), house.connect(there));
        let patient = house.connect(there);
        put_behind(&mut house, host, filler, "");
        house.send(client, &request(1, 500));
        house.send(client, r#"{"type":"ping","id":2}"#);
        house.send(patient, &request(3, 5_000));
        house.settle();
        assert_eq!(house.read(client), [""; 0]);
        house.pass(499);
        house.turn(there);
        house.settle();
        assert_eq!(house.read(client), [""; 0]);
        house.pass(1);
        house.turn(there);
        house.settle();
        assert_eq!(brief(&house.read(client)), ["reply 1 busy", "pong 2"]);
        assert!(!house.is_paused(client));
        // What is left of its time is all that its handler gets.
        house.pass(1_500);
        house.read_on(host);
        house.settle();
        let told = house.told(host);
        let asked = told
            .iter()
            .find(|one| one.starts_with("request "))
            .expect("asked");
        let number: u64 = asked.split(' ').nth(1).unwrap().parse().unwrap();
        house.pass(2_999);
        house.turn(there);
        assert_eq!(house.read(patient), [""; 0]);
        house.pass(1);
        house.turn(there);
        house.settle();
        assert_eq!(brief(&house.read(patient)), ["reply 3 timeout"]);
        let outcome = &Outcome::Data(json("1"));
        house.call(host, &Call::Reply { number, outcome });
        house.settle();
        assert_eq!(house.read(patient), [""; 0]);
    }
}

#[test]
fn what_a_service_is_asked_goes_to_who_is_not_behind() {
    for (shards, home, there) in PLACES {
        let mut house = House::new(shards);
        let (one, client) = (house.connect_link(home, "one"), house.connect(there));
        let filler = house.connect(there);
        house.handle(one, "e");
        let id = house.client_id(one);
        put_behind(&mut house, one, filler, &format!(r#","to":"client:{id}""#));
        // All who handle it are behind.
        house.send(client, &request(1, 60_000));
        house.settle();
        assert!(house.is_paused(client));
        assert_eq!(waiting(&house), 2);
        // Somebody else comes, beside it or elsewhere.
        for shard in [home, there] {
            let two = house.connect_link(shard, "two");
            house.handle(two, "e");
            house.settle();
            assert!(
                !house.is_paused(client),
                "{shards} {home} {there}: {shard} {:?}",
                house.session(client).stall
            );
            for number in 2..5 {
                house.ask(client, &request(number, 60_000));
            }
            let told = house.told(two);
            assert!(told.len() >= 3, "{told:?}");
            house.end(two, Ending::Failed);
            house.settle();
            house.read(client);
            house.send(client, &request(1, 60_000));
            house.settle();
            assert!(house.is_paused(client), "{shards} {home} {there}");
        }
        // Until nobody is left.
        house.end(one, Ending::Failed);
        house.settle();
        assert_eq!(brief(&house.read(client)), ["reply 1 no_handler"]);
        assert_eq!(waiting(&house), 0);
        for shard in &house.shards {
            assert_eq!(shard.feeds.entries(), 0);
        }
    }
}

#[test]
fn masters_and_peers_are_told_apart_also_when_one_of_them_is_behind() {
    let mut house = House::new(1);
    let (link, outside) = (house.connect_link(0, "l"), house.connect_peer(0, "o"));
    let asker = house.connect_peer(0, "asker");
    let filler = house.connect(0);
    for peer in [link, outside] {
        house.handle(peer, "e");
    }
    let id = house.client_id(link);
    put_behind(&mut house, link, filler, &format!(r#","to":"client:{id}""#));
    let payload = &json("1");
    let ask = |ticket, to| Call::Request {
        ticket,
        to,
        event: b"e",
        payload,
        timeout_ms: 0,
    };
    let (any, service) = (Address::AnyPeer(bytes("e")), Address::Service(bytes("e")));
    house.call(asker, &ask(1, &any));
    house.call(asker, &ask(2, &service));
    house.settle();
    assert_eq!(house.told(outside).len(), 2);
    let (master, named) = (Address::Master(bytes("e")), Address::Peer(bytes("l")));
    house.call(asker, &ask(3, &master));
    house.settle();
    assert!(house.is_paused(asker) && waiting(&house) == 2);
    house.read_on(link);
    house.settle();
    assert!(!house.is_paused(asker));
    house.stop_reading(link);
    put_behind(&mut house, link, filler, &format!(r#","to":"client:{id}""#));
    house.call(asker, &ask(4, &named));
    house.settle();
    assert!(house.is_paused(asker));
}

#[test]
fn whoever_waits_goes_with_the_host_or_is_told_that_nobody_is_there() {
    for (shards, home, there) in PLACES {
        let mut house = House::new(shards);
        let before = house.connect(there);
        let host = house.host(home, "h", HOSTS);
        let client = house.connect(there);
        house.handle(host, "e");
        put_behind(&mut house, host, client, "");
        house.send(before, &request(1, 60_000));
        house.settle();
        assert!(house.is_paused(before));
        house.end(host, Ending::Failed);
        house.settle();
        assert_eq!(brief(&house.read(before)), ["reply 1 no_handler"]);
        let told = house.read(client);
        assert_eq!(told.last().unwrap(), "close 1012 service restart");
        assert_eq!(waiting(&house), 0);
        house.end(client, Ending::EndOfInput);
        house.end(before, Ending::Failed);
        house.settle();
        for shard in 0..shards {
            house.check_empty(shard);
            assert_eq!(house.shards[shard].residue(), None);
        }
    }
}

#[test]
fn a_full_lane_delays_the_news_and_what_became_moot_is_never_told() {
    let mut house = House::new(2);
    let host = house.host(0, "h", HOSTS);
    let (near, far) = (house.connect(0), house.connect(1));
    let same = house.session(near).hosted.as_ref().unwrap().host;
    assert_eq!(same, house.session(far).hosted.as_ref().unwrap().host);
    house.fill(0, 1);
    house.turn(0);
    put_behind(&mut house, host, near, "");
    house.send(far, &event("", 10));
    house.settle();
    assert!(!house.is_paused(far), "it has not heard of it");
    house.read_on(host);
    house.settle();
    house.unfill(0, 1);
    let before = house.shards[0].stats().forwarded;
    house.settle();
    assert_eq!(house.shards[0].stats().forwarded, before);
    assert!(!house.is_paused(near));
}

#[test]
fn topics_that_find_a_peer_full_are_skipped_and_told_whatever_their_policy() {
    for policy in [
        SlowPolicy::Close,
        SlowPolicy::DropOldest,
        SlowPolicy::Conflate,
    ] {
        for shards in [1, 2] {
            let mut house = House::with(shards, |settings| {
                settings.slow = SlowRules::new(vec![SlowRule {
                    prefix: bytes(""),
                    policy,
                }]);
                settings.server_limits.outbox_bytes_soft = 200 * KIB;
                settings.server_limits.outbox_bytes_max = 300 * KIB;
            });
            let peer = house.connect_link(0, "p");
            let (publisher, reader) = (house.connect(shards - 1), house.connect(0));
            let filter = &Filter::dotted(bytes("a")).unwrap();
            house.ask_peer(peer, &Call::Subscribe { ticket: 1, filter });
            house.subscribe(reader, "a");
            house.stop_reading(peer);
            for number in 0..40 {
                house.send(publisher, &publish(&format!("a.{}", number % 4), 10 * KIB));
                house.send(publisher, &publish(&format!("a.{}", number % 4), 10 * KIB));
                house.settle();
            }
            assert!(house.session(peer).is_open(), "{policy:?}");
            assert_eq!(brief(&house.read(reader)).len(), 80);
            // There is room for what is not to be dropped.
            let charged = house.session(peer).outbox.charged();
            assert!(charged <= 201 * KIB, "{charged}");
            let told = house.ask_peer(
                peer,
                &Call::Request {
                    ticket: 2,
                    to: &Address::Service(bytes("none")),
                    event: b"none",
                    payload: &json("1"),
                    timeout_ms: 0,
                },
            );
            assert_eq!(told, [""; 0]);
            house.pass(1_000_000);
            house.turn(0);
            assert!(house.session(peer).is_open(), "it may take its time");
            house.read_on(peer);
            house.settle();
            let told = house.told(peer);
            let messages = told
                .iter()
                .filter(|one| one.starts_with("message "))
                .count();
            let gaps = told.iter().filter_map(|one| one.strip_prefix("gap "));
            let missed: usize = gaps
                .map(|gap| gap.split(' ').nth(1).unwrap().parse::<usize>().unwrap())
                .sum();
            assert_eq!(messages + missed, 80, "{policy:?} {shards}");
            assert!(messages >= 4 && missed > 0, "{messages} {missed}");
            assert!(told.contains(&"failed 2 no_handler".to_owned()));
            let stats = house.shards[0].stats();
            assert_eq!(stats.deliveries_due, stats.delivered + stats.announced);
            assert_eq!((stats.dropped, stats.closed_slow), (missed as u64, 0));
            // And then it misses nothing more.
            house.ask(publisher, &publish("a.b", 10));
            let told = house.told(peer);
            assert_eq!(told.len(), 1);
            assert!(told[0].starts_with("message a.b a "));
        }
    }
}

#[test]
fn a_peer_is_closed_at_the_hard_bound_by_what_may_not_be_dropped() {
    let mut house = House::with(1, |settings| {
        settings.server_limits.outbox_bytes_soft = 20 * KIB;
        settings.server_limits.outbox_bytes_max = 40 * KIB;
    });
    let host = house.host(0, "h", Watch::CONNECT);
    house.stop_reading(host);
    let mut clients = Vec::new();
    while house.session(host).is_open() {
        clients.push(house.connect(0));
        assert!(clients.len() < 2_000);
    }
    house.settle();
    assert_eq!(house.shards[0].stats().closed_slow, 1);
    for client in clients {
        assert_eq!(house.read(client), ["close 1012 service restart"]);
    }
}

#[test]
fn filters_that_get_their_first_subscriber_or_lose_the_last_are_told() {
    for shards in [1, 3] {
        let mut house = House::new(shards);
        let peer = house.connect_link(0, "p");
        house.watch(peer, Watch::TOPIC);
        let clients: Vec<_> = (0..3).map(|index| house.connect(index % shards)).collect();
        let say = |house: &mut House, who: Who, kind: &str| {
            house.ask(who, &format!(r#"{{"type":"{kind}","topic":"a.*"}}"#));
            house.told(peer)
        };
        for (index, kind, expected) in [
            (1, "subscribe", &["occupied a.*"][..]),
            (1, "subscribe", &[]),
            (2, "subscribe", &[]),
            (0, "subscribe", &[]),
            (1, "unsubscribe", &[]),
            (0, "unsubscribe", &[]),
            (2, "unsubscribe", &["vacated a.*"]),
            (0, "unsubscribe", &[]),
            (0, "subscribe", &["occupied a.*"]),
        ] {
            assert_eq!(
                say(&mut house, clients[index], kind),
                expected,
                "{index} {kind}"
            );
        }
        // Rooms are none of its business, and who goes takes its filters along.
        house.join(peer, clients[1], "room", 1);
        house.settle();
        assert_eq!(house.told(peer), ["done 1"]);
        house.end(clients[0], Ending::Failed);
        house.settle();
        assert_eq!(house.told(peer), ["vacated a.*"]);
        house.watch(peer, Watch::default());
        assert_eq!(say(&mut house, clients[1], "subscribe"), [""; 0]);
    }
}

#[test]
fn who_is_behind_is_told_only_what_lasted() {
    for shards in [1, 2] {
        let mut house = House::new(shards);
        let peer = house.connect_link(0, "p");
        house.watch(peer, Watch::TOPIC);
        let (client, filler) = (house.connect(shards - 1), house.connect(0));
        for topic in ["stays", "goes"] {
            house.subscribe(client, topic);
        }
        house.told(peer);
        let id = house.client_id(peer);
        put_behind(&mut house, peer, filler, &format!(r#","to":"client:{id}""#));
        let charged = house.session(peer).outbox.charged();
        let say = |house: &mut House, kind: &str, topic: &str| {
            house.ask(client, &format!(r#"{{"type":"{kind}","topic":"{topic}"}}"#));
        };
        for _ in 0..50 {
            say(&mut house, "unsubscribe", "stays");
            say(&mut house, "subscribe", "stays");
            say(&mut house, "subscribe", "comes and goes");
            say(&mut house, "unsubscribe", "comes and goes");
        }
        say(&mut house, "unsubscribe", "goes");
        say(&mut house, "subscribe", "comes");
        assert_eq!(house.session(peer).outbox.charged(), charged);
        let stale = house
            .session(peer)
            .peer
            .as_ref()
            .unwrap()
            .hosting
            .stale
            .len();
        assert_eq!(stale, 2);
        house.read_on(peer);
        house.settle();
        let told = house.told(peer);
        let told: Vec<_> = told
            .iter()
            .filter(|one| !one.starts_with("event "))
            .collect();
        assert_eq!(told, ["occupied comes", "vacated goes"]);
    }
}
