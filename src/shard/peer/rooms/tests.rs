//! Who is in a room, and who hears what is said there.

use super::super::super::Ending;
use super::super::super::testing::{House, Who, brief};
use super::super::testing::{PLACES, at, audience, clusterws, without};
use crate::address::ClientId;
use crate::limits::{JOINS_MAX, KIB, ROOMS_MAX};
use crate::protocol::peer::Watch;
use crate::protocol::peer::call::Call;

/// A house, a Link, and a client, which the Link does not host.
fn house((shards, home, there): (usize, usize, usize)) -> (House, Who, Who) {
    let mut house = House::new(shards);
    let client = house.connect(there);
    let peer = house.connect_link(home, "p");
    (house, peer, client)
}

fn joined(house: &mut House, peer: Who, client: Who, room: &str) {
    house.join(peer, client, room, 1);
    house.settle();
    assert_eq!(house.told(peer), ["done 1"]);
}

#[test]
fn what_is_emitted_behind_a_join_reaches_the_joiner_and_behind_a_leave_it_does_not() {
    for place in PLACES {
        let (mut house, peer, client) = house(place);
        let to = audience(&["r"]);
        house.emit(peer, &to, "zero", 0);
        house.join(peer, client, "r", 1);
        house.emit(peer, &to, "one", 2);
        house.leave(peer, client, "r", 3);
        house.emit(peer, &to, "two", 4);
        house.join(peer, client, "r", 5);
        house.leave(peer, client, "r", 0);
        house.join(peer, client, "r", 0);
        house.emit(peer, &to, "three", 0);
        house.settle();
        assert_eq!(house.events(client), ["one", "three"], "{place:?}");
        let mut told = house.told(peer);
        told.sort();
        assert_eq!(told, ["done 1", "done 2", "done 3", "done 4", "done 5"]);
        house.end(client, Ending::Failed);
        house.settle();
        house.end(peer, Ending::Failed);
        house.settle();
        for shard in 0..place.0 {
            house.check_empty(shard);
            assert_eq!(house.shards[shard].residue(), None);
        }
    }
}

#[test]
fn a_join_is_done_when_every_shard_knows_and_holds_at_home_before_that() {
    for held in [0, 2] {
        let (mut house, peer, client) = house((3, 0, 1));
        let other = house.connect_link(2, "other");
        let to = audience(&["r"]);
        house.fill(1, held);
        house.turn(1);
        house.join(peer, client, "r", 1);
        house.emit(peer, &to, "a", 0);
        house.settle();
        assert_eq!(house.events(client), ["a"]);
        assert_eq!(house.told(peer), [""; 0], "not every shard has heard of it");
        // Home holds it for as long as that takes, whatever else happens to the room there.
        house.emit(peer, &to, "b", 0);
        house.settle();
        assert_eq!(house.events(client), ["b"]);
        house.unfill(1, held);
        house.settle();
        assert_eq!(house.told(peer), ["done 1"]);
        assert_eq!(house.shards[0].rooms.entries(), 0);
        for peer in [peer, other] {
            house.emit(peer, &to, "c", 0);
            house.settle();
        }
        assert_eq!(house.events(client), ["c", "c"]);
    }
}

#[test]
fn who_emits_because_somebody_saw_done_reaches_the_joiner() {
    // The answer is in a turn behind the edges': no shard can have the one without the other.
    let (mut house, peer, client) = house((3, 0, 1));
    let other = house.connect_link(2, "other");
    house.join(peer, client, "r", 1);
    house.turn(0);
    house.turn(1);
    house.turn(0);
    assert_eq!(house.told(peer), [""; 0], "the edge has just been sent");
    house.turn(1);
    house.turn(0);
    assert_eq!(house.told(peer), ["done 1"]);
    house.emit(other, &audience(&["r"]), "a", 0);
    house.turn(2);
    house.turn(1);
    assert_eq!(house.events(client), ["a"]);
}

#[test]
fn a_room_that_one_client_leaves_while_another_joins_it() {
    let (mut house, peer, one) = house((3, 0, 1));
    let two = house.connect(1);
    joined(&mut house, peer, one, "r");
    // The edge goes down and up again while home counts on the second.
    house.leave(peer, one, "r", 0);
    house.join(peer, two, "r", 2);
    house.emit(peer, &audience(&["r"]), "a", 0);
    house.turn(0);
    house.turn(1);
    house.emit(peer, &audience(&["r"]), "b", 0);
    house.settle();
    assert_eq!(house.events(two), ["a", "b"]);
    assert_eq!(house.events(one), [""; 0]);
    // And the joiner may go before its shard has answered.
    house.join(peer, one, "r2", 3);
    house.turn(0);
    house.end(one, Ending::Failed);
    house.settle();
    assert_eq!(house.told(peer), ["done 2", "done 3"]);
    assert_eq!(house.shards[0].rooms.entries(), 0);
}

#[test]
fn each_gets_it_once_in_its_own_words_and_exceptions_get_nothing() {
    for shards in [1, 3] {
        let mut house = House::new(shards);
        let shard = |index: usize| index % shards;
        let clients: Vec<_> = (0..6).map(|index| house.connect(shard(index))).collect();
        let other = clusterws(&mut house, shard(1));
        let redis = house.accept(0, 2, false);
        house.bytes(redis, b"SUBSCRIBE a\r\n");
        let peer = house.connect_link(shard(2), "p");
        house.raw(redis);
        for (index, &client) in clients.iter().enumerate() {
            for (room, members) in [("a", 0..3), ("b", 2..5)] {
                if members.contains(&index) {
                    joined(&mut house, peer, client, room);
                    joined(&mut house, peer, client, room);
                }
            }
        }
        joined(&mut house, peer, other, "a");
        let someone = house.client_id(clients[3]);
        let stranger = ClientId {
            broker: 8,
            ..someone
        };
        let all = || audience(&[]);
        for (to, expected, does_other) in [
            (audience(&["a"]), vec![0, 1, 2], true),
            (audience(&["a", "b", "c", "a"]), vec![0, 1, 2, 3, 4], true),
            (audience(&["c"]), vec![], false),
            (all(), vec![0, 1, 2, 3, 4, 5], true),
            (without(all(), &["a"], None), vec![3, 4, 5], false),
            (without(all(), &["a", "b"], None), vec![5], false),
            (
                without(all(), &[], Some(someone)),
                vec![0, 1, 2, 4, 5],
                true,
            ),
            (
                without(all(), &[], Some(stranger)),
                vec![0, 1, 2, 3, 4, 5],
                true,
            ),
            (
                without(audience(&["b"]), &["a"], Some(someone)),
                vec![4],
                false,
            ),
        ] {
            let before: u64 = house
                .shards
                .iter()
                .map(|one| one.stats().deliveries_due)
                .sum();
            house.emit(peer, &to, "e", 5);
            house.settle();
            assert_eq!(house.told(peer), ["done 5"]);
            let got = |house: &mut House, who: Who| house.events(who).len();
            let found: Vec<_> = (0..6)
                .flat_map(|index| vec![index; got(&mut house, clients[index])])
                .collect();
            assert_eq!(found, expected, "{to:?}");
            let words = house.read(other);
            let words_expected = does_other.then_some(r##"{"#":["e","e",1]}"##);
            assert_eq!(words, Vec::from_iter(words_expected), "{to:?}");
            let after: u64 = house
                .shards
                .iter()
                .map(|one| one.stats().deliveries_due)
                .sum();
            assert_eq!(
                after - before,
                (expected.len() + usize::from(does_other)) as u64
            );
            assert_eq!(house.raw(redis), b"");
        }
    }
}

#[test]
fn a_room_is_no_topic_and_no_subscription() {
    let (mut house, peer, client) = house((1, 0, 0));
    joined(&mut house, peer, client, "a");
    house.ask(client, r#"{"type":"publish","topic":"a","message":1}"#);
    house.ask(client, r#"{"type":"unsubscribe","topic":"a"}"#);
    assert_eq!(house.read(client), [""; 0]);
    assert_eq!(house.shards[0].stats().subscriptions, 0);
    house.subscribe(client, "a");
    house.leave(peer, client, "a", 2);
    house.settle();
    house.emit(peer, &audience(&["a"]), "e", 0);
    house.settle();
    assert_eq!(house.events(client), [""; 0], "but it is subscribed still");
    let told = house.ask(client, r#"{"type":"publish","topic":"a","message":1}"#);
    assert_eq!(brief(&told), ["publish a", "ack publish"]);
}

#[test]
fn places_of_members_follow_when_others_leave() {
    let (mut house, peer, first) = house((1, 0, 0));
    let clients: Vec<_> = (0..4).map(|_| house.connect(0)).collect();
    for &client in [&first].into_iter().chain(&clients) {
        joined(&mut house, peer, client, "r");
        house.subscribe(client, "t");
    }
    house.leave(peer, first, "r", 0);
    house.end(clients[1], Ending::Failed);
    house.settle();
    house.emit(peer, &audience(&["r"]), "e", 0);
    house.settle();
    for index in [0, 2, 3] {
        assert_eq!(house.events(clients[index]), ["e"]);
    }
    for &client in [&first].into_iter().chain(&clients) {
        house.end(client, Ending::Failed);
    }
    house.end(peer, Ending::Failed);
    house.settle();
    house.check_empty(0);
}

#[test]
fn joins_that_are_refused() {
    for place in PLACES {
        let (mut house, peer, client) = house(place);
        let gone = house.connect(place.2);
        house.end(gone, Ending::Failed);
        let redis = house.accept(place.2, 2, false);
        let unready = house.accept(place.2, 0, false);
        let stranger = house.connect_link(place.2, "q");
        house.settle();
        for (ticket, who) in [gone, redis, unready, stranger].into_iter().enumerate() {
            let ticket = ticket as u64 + 1;
            house.join(peer, who, "r", ticket);
            house.settle();
            assert_eq!(house.told(peer), [format!("failed {ticket} no_handler")]);
        }
        let of_another = ClientId {
            broker: 8,
            ..house.client_id(client)
        };
        let join = |client, ticket| Call::Join {
            ticket,
            client,
            room: b"r",
        };
        let told = house.ask_peer(peer, &join(of_another, 1));
        assert_eq!(told, ["failed 1 no_handler"]);
        for room in 0..ROOMS_MAX {
            house.join(peer, client, &room.to_string(), 0);
        }
        house.join(peer, client, "0", 1);
        house.join(peer, client, "one more", 2);
        house.settle();
        let mut told = house.told(peer);
        told.sort();
        assert_eq!(told, ["done 1", "failed 2 limit"], "{place:?}");
        house.leave(peer, client, "7", 3);
        house.leave(peer, client, "never there", 4);
        house.leave(peer, gone, "7", 5);
        house.join(peer, client, "one more", 6);
        house.settle();
        assert_eq!(
            house.told(peer),
            ["done 3", "done 4", "done 5", "done 6"],
            "{place:?}"
        );
        assert_eq!(
            house.session(client).hosted.as_ref().unwrap().rooms.len(),
            ROOMS_MAX
        );
        let told = house.ask_peer(
            peer,
            &Call::Join {
                ticket: 1,
                client: house.client_id(client),
                room: &[b'x'; 1025],
            },
        );
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("failed 1 "), "{told:?}");
    }
}

#[test]
fn joins_that_are_not_confirmed_are_bounded_and_the_next_one_waits() {
    let (mut house, peer, client) = house((3, 0, 1));
    house.fill(1, 2);
    house.turn(1);
    for room in 0..JOINS_MAX + 3 {
        house.join(
            peer,
            client,
            &(room % ROOMS_MAX).to_string(),
            room as u64 + 1,
        );
    }
    house.settle();
    assert!(house.is_paused(peer));
    let joins = house.session(peer).peer.as_ref().unwrap().hosting.joins;
    assert_eq!((joins, house.told(peer).len()), (JOINS_MAX, 0));
    house.unfill(1, 2);
    house.settle();
    assert_eq!(house.told(peer).len(), JOINS_MAX + 3);
    assert!(!house.is_paused(peer));
    // A peer that goes meanwhile leaves nothing behind.
    house.fill(1, 2);
    house.turn(1);
    house.join(peer, client, "last", 1);
    house.settle();
    house.end(peer, Ending::Failed);
    house.settle();
    house.unfill(1, 2);
    house.settle();
    assert_eq!(house.shards[0].rooms.entries(), 0);
    assert_eq!(house.shards[1].rooms.entries(), 0);
    assert!(house.session(client).is_open(), "the room is its own");
}

#[test]
fn an_emit_waits_whole_for_the_one_lane_that_is_full() {
    let (mut house, peer, far) = house((3, 0, 2));
    let near = house.connect(0);
    for client in [far, near] {
        joined(&mut house, peer, client, "r");
    }
    for to in [audience(&["r"]), audience(&[])] {
        house.fill(0, 2);
        house.emit(peer, &to, "a", 1);
        house.emit(peer, &audience(&["nobody's"]), "b", 2);
        house.settle();
        assert!(house.events(near).is_empty() && house.told(peer).is_empty());
        house.unfill(0, 2);
        house.settle();
        assert_eq!(
            (house.events(near), house.events(far)),
            (vec!["a".to_owned()], vec!["a".to_owned()])
        );
        assert_eq!(house.told(peer), ["done 1", "done 2"]);
    }
}

#[test]
fn a_slow_reader_is_closed_for_what_was_due_and_only_misses_what_is_volatile() {
    for place in [(1, 0, 0), (2, 0, 1)] {
        let mut house = House::with(place.0, |settings| {
            settings.limits.outbox_bytes_max = 4 * KIB;
        });
        let (slow, fine) = (house.connect(place.2), house.connect(place.2));
        let peer = house.connect_link(place.1, "p");
        for client in [slow, fine] {
            joined(&mut house, peer, client, "r");
        }
        house.stop_reading(slow);
        house.emit(peer, &audience(&["r"]), "first", 0);
        house.settle();
        for _ in 0..20 {
            house.emit_so(peer, &audience(&["r"]), "volatile", 0, true);
        }
        house.settle();
        assert_eq!(house.events(fine).len(), 21);
        assert!(house.session(slow).is_open());
        let stats = house.shards[place.2].stats();
        assert_eq!(stats.deliveries_due, 22, "nothing was due to who is behind");
        assert_eq!(stats.volatile_dropped, 20);
        house.read_on(slow);
        house.settle();
        assert_eq!(house.events(slow), ["first"]);
        // It is back.
        house.emit_so(peer, &audience(&["r"]), "volatile", 0, true);
        house.settle();
        assert_eq!(house.events(slow), ["volatile"]);
        house.read(fine);

        house.stop_reading(slow);
        for _ in 0..200 {
            house.emit(peer, &audience(&[]), "due", 0);
            house.settle();
        }
        assert_eq!(house.events(fine).len(), 200);
        house.read_on(slow);
        house.settle();
        let told = house.events(slow);
        assert_eq!(told.last().unwrap(), "close 4008 too slow", "{}", at(slow));
        let stats = house.shards[place.2].stats();
        assert_eq!(stats.closed_slow, 1);
        assert_eq!(stats.deliveries_due, stats.delivered + stats.announced);
    }
}

#[test]
fn an_event_comes_behind_what_was_published_before_and_before_what_comes_after() {
    let (mut house, peer, client) = house((1, 0, 0));
    let publisher = house.connect(0);
    house.subscribe(client, "a");
    joined(&mut house, peer, client, "r");
    let publish = r#"{"type":"publish","topic":"a","message":1,"event":"published"}"#;
    house.send(publisher, publish);
    house.emit(peer, &audience(&["r"]), "emitted", 0);
    house.send(publisher, publish);
    house.turn(0);
    let told = house.read(client);
    let emitted = told
        .iter()
        .position(|text| text.contains(r#""event":"emitted""#));
    assert_eq!((told.len(), emitted), (3, Some(1)), "{told:?}");
}

#[test]
fn only_whoever_is_asked_to_leaves_when_a_host_goes() {
    let mut house = House::new(2);
    let before = house.connect(1);
    let host = house.host(0, "h", Watch::CONNECT);
    let other = house.connect_link(1, "other");
    let hosted = house.connect(1);
    for client in [before, hosted] {
        joined(&mut house, other, client, "r");
    }
    house.end(host, Ending::Failed);
    house.settle();
    assert_eq!(house.read(hosted), ["close 1012 service restart"]);
    house.emit(other, &audience(&["r"]), "e", 0);
    house.settle();
    assert_eq!(house.events(before), ["e"], "rooms are their clients'");
}
