//! Cases with clients of several protocols, each with a story of its own.

use std::sync::atomic::Ordering;

use pubsub::net::control::Control;

use crate::client::{End, Protocol};
use crate::clusterws::DIALECTS;
use crate::names::{Filter, Topic};
use crate::resp::Kind;
use crate::scenarios::{check, say, settle, world};
use crate::world::World;

/// Connects a client to a shard and lets everything come to rest.
fn connect(world: &mut World, protocol: Protocol, shard: usize) -> usize {
    let index = world.connect_as(protocol, shard, false);
    settle(world);
    index
}

fn subscribe(world: &mut World, index: usize, name: &'static str) {
    say(world, index, |client, stage, out| match client.protocol {
        Protocol::Native => client.subscribe(name, stage, out),
        Protocol::Clusterws(_) => client.subscribe_to_room(name, true, stage, out),
        Protocol::Resp => client.subscribe_by_resp(Kind::Channel, &[name], stage, out),
        Protocol::Peer => client.subscribe_to(Filter::Channel(name), stage, out),
    });
    settle(world);
}

/// Of four shards: a publisher of RESP on the first, and a subscriber of each protocol on one of the others.
fn publisher_and_subscribers(name: &'static str) -> (World, usize) {
    let mut world = world(4, |_| {});
    let publisher = connect(&mut world, Protocol::Resp, 0);
    let protocols = [
        Protocol::Native,
        Protocol::Clusterws(DIALECTS[0]),
        Protocol::Resp,
    ];
    for (protocol, shard) in protocols.into_iter().zip(1..) {
        let subscriber = connect(&mut world, protocol, shard);
        subscribe(&mut world, subscriber, name);
    }
    (world, publisher)
}

fn is_answered(world: &World, index: usize) -> bool {
    world.clients[index].is_answered()
}

/// Everything that a shard has said arrives and is read.
fn read_all(world: &mut World) {
    world.carry_all();
    for client in &mut world.clients {
        client.read(&mut world.stage, usize::MAX);
    }
    check(world);
}

#[test]
fn a_count_waits_for_the_last_shard_and_what_comes_later_for_the_count() {
    let (mut world, publisher) = publisher_and_subscribers("a");
    say(&mut world, publisher, |client, stage, out| {
        client.publish_by_resp_of(Topic::Name("a"), 0, stage, out);
        client.ping(stage, out);
        client.publish_by_resp_of(Topic::Name("b"), 0, stage, out);
        // It could not be told apart from what comes before the count.
        client.subscribe_by_resp(Kind::Channel, &["a"], stage, out);
        client.ping(stage, out);
    });
    world.carry_all();
    world.turn(0);
    let expected = world.clients[publisher].resp.expected.len();
    for shard in 1..4 {
        world.turn(shard);
        world.turn(0);
        read_all(&mut world);
        let left = world.clients[publisher].resp.expected.len();
        assert_eq!(left == expected, shard < 3, "{shard}: {left} of {expected}");
    }
    settle(&mut world);
    assert!(is_answered(&world, publisher));
    assert_eq!(world.stage.oracle.publications[1].counted, Some(3));
    world.reckon(false);
    check(&world);
    assert!(world.stage.oracle.exact_counts >= 2);
}

#[test]
fn a_drain_counts_to_the_end() {
    let (mut world, publisher) = publisher_and_subscribers("a");
    say(&mut world, publisher, |client, stage, out| {
        client.publish_by_resp_of(Topic::Name("a"), 0, stage, out);
    });
    world.carry_all();
    world.turn(0);
    world.is_draining = true;
    let quiet = world.send_words(|reply| Control::Quiesce { reply });
    for shard in [0, 1, 2, 0] {
        world.turn(shard);
    }
    read_all(&mut world);
    assert!(!is_answered(&world, publisher));
    // Two have nothing left; the last has not heard of it, and the first waits for its count.
    assert_eq!(quiet.load(Ordering::Relaxed), 2);
    settle(&mut world);
    assert_eq!(quiet.load(Ordering::Relaxed), 4);
    world.is_quiet = true;
    assert!(is_answered(&world, publisher));
    world.send_words(|reply| Control::Close {
        spread_ms: 0,
        reply,
    });
    settle(&mut world);
    assert_eq!(world.clients[publisher].end, Some(End::Finished));
    world.reckon(true);
    check(&world);
}

fn clients_of_every_dialect(world: &mut World) -> [usize; DIALECTS.len()] {
    DIALECTS.map(|dialect| connect(world, Protocol::Clusterws(dialect), 1))
}

/// They count the pings, so these come whatever else is said.
#[test]
fn pings_come_to_whoever_talks_all_the_time() {
    let mut world = world(2, |_| {});
    let clients = clients_of_every_dialect(&mut world);
    // In small steps: for a long one, the shards would take it that they had not run.
    for _ in 0..210 {
        world.stage.network.borrow_mut().now_ms += 500;
        for index in clients {
            subscribe(&mut world, index, "a");
        }
    }
    for index in clients {
        let pings = world.clients[index].clusterws.pings;
        assert!((5..=6).contains(&pings), "{pings}");
    }
}

#[test]
fn pings_of_every_dialect_come_at_their_times() {
    let mut world = world(2, |_| {});
    let clients = clients_of_every_dialect(&mut world);
    let have_pings = move |world: &World| {
        let mut clients = clients.iter().map(|index| &world.clients[*index]);
        clients.all(|client| client.clusterws.pings >= 3)
    };
    let settled = world.settle("pings", 70_000, have_pings);
    assert_eq!(settled, Ok(()));
    check(&world);
}
