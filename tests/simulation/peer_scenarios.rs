//! Cases of peers and their rooms, each with a story of its own.

use pubsub::address::ClientId;

use crate::client::{End, Protocol};
use crate::names::{Filter, Topic};
use crate::scenarios::{check, say, settle, world};
use crate::world::World;

/// Connects a client to a shard and lets everything come to rest.
fn connect(world: &mut World, protocol: Protocol, shard: usize) -> usize {
    let index = world.connect_as(protocol, shard, false);
    settle(world);
    index
}

/// A native client, and its id.
fn connect_client(world: &mut World, shard: usize) -> (usize, ClientId) {
    let index = connect(world, Protocol::Native, shard);
    say(world, index, |client, stage, out| {
        client.ask_who_it_is(stage, out)
    });
    settle(world);
    let sessions = &world.stage.sessions;
    let (id, _) = sessions
        .iter()
        .find(|(_, client)| **client == index)
        .expect("it was told");
    (index, id.parse().expect("an id"))
}

fn is_answered(world: &World, index: usize) -> bool {
    world.clients[index].is_answered()
}

fn read_all(world: &mut World) {
    world.carry_all();
    for client in &mut world.clients {
        client.read(&mut world.stage, usize::MAX);
    }
    check(world);
}

/// How many emissions were heard.
fn heard(world: &World) -> u64 {
    world.stage.emissions.sums().0
}

#[test]
fn join_then_emit_reaches_the_joiner_on_any_pair_of_shards() {
    for home in 0..3 {
        for shard in 0..3 {
            let mut world = world(3, |_| {});
            let peer = connect(&mut world, Protocol::Peer, home);
            let (client, id) = connect_client(&mut world, shard);
            say(&mut world, peer, |peer, stage, out| {
                peer.join(client, id, 0, stage, out);
                peer.emit_to_members(0, stage, out);
            });
            settle(&mut world);
            assert_eq!(heard(&world), 1, "{home} to {shard}");
            say(&mut world, peer, |peer, stage, out| {
                peer.leave_room(client, id, 0, stage, out);
                peer.emit_to_members(0, stage, out);
                peer.join(client, id, 0, stage, out);
                peer.emit_to_members(0, stage, out);
            });
            settle(&mut world);
            world.reckon(false);
            check(&world);
            assert_eq!(heard(&world), 2, "{home} to {shard}");
        }
    }
}

#[test]
fn what_was_emitted_before_a_disconnect_comes_before_the_close_frame() {
    for shard in 0..3 {
        let mut world = world(3, |profile| profile.ring_entries = 1);
        let peer = connect(&mut world, Protocol::Peer, 0);
        let (client, id) = connect_client(&mut world, shard);
        say(&mut world, peer, |peer, stage, out| {
            peer.join(client, id, 0, stage, out);
            for _ in 0..3 {
                peer.emit_to_members(0, stage, out);
                peer.emit_to_client(client, id, stage, out);
            }
            peer.disconnect(client, id, stage, out);
        });
        settle(&mut world);
        assert_eq!(world.clients[client].end, Some(End::Closed(4100)));
        assert_eq!(heard(&world), 6, "shard {shard}");
    }
}

/// A client's shard has no room for the news to a third one: its peer is not told yet that it is in. Otherwise it could
/// have another peer, on that third shard, say something to the room that nobody would hear.
#[test]
fn a_join_is_not_done_before_every_ring_has_its_news() {
    let mut world = world(3, |profile| profile.ring_entries = 1);
    let peer = connect(&mut world, Protocol::Peer, 0);
    let (client, id) = connect_client(&mut world, 1);
    let other = connect(&mut world, Protocol::Peer, 2);
    let publisher = connect(&mut world, Protocol::Peer, 1);
    say(&mut world, other, |other, stage, out| {
        other.subscribe_to(Filter::Channel("a"), stage, out);
    });
    settle(&mut world);
    say(&mut world, publisher, |publisher, stage, out| {
        publisher.publish_as_peer(Topic::Name("a"), stage, out);
    });
    world.carry_all();
    world.turn(1);
    // The ring from the second to the third is full now, and the third sleeps.
    say(&mut world, peer, |peer, stage, out| {
        peer.join(client, id, 0, stage, out)
    });
    for _ in 0..4 {
        world.carry_all();
        world.turn(0);
        world.turn(1);
        read_all(&mut world);
    }
    assert!(
        !is_answered(&world, peer),
        "the third shard has not heard of it"
    );
    settle(&mut world);
    assert!(is_answered(&world, peer));
    say(&mut world, other, |other, stage, out| {
        other.emit_to_room_of((peer, 0), stage, out);
    });
    settle(&mut world);
    world.reckon(false);
    check(&world);
    assert_eq!(heard(&world), 1);
}
