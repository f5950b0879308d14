//! Cases that a seed reaches rarely or never, each with a story of its own.

use fastrand::Rng;

use crate::oracle::Kind;
use crate::profile::Profile;
use crate::turn::TurnOrder;
use crate::world::World;

fn world(shards: usize, change: impl FnOnce(&mut Profile)) -> World {
    let mut profile = Profile::fair(shards);
    change(&mut profile);
    World::new(1, Rng::with_seed(1), profile, TurnOrder::Right, true)
}

fn check(world: &World) {
    let violation = world.stage.oracle.violations.first();
    assert!(violation.is_none(), "{}", violation.unwrap());
}

/// Connects a client to a shard and lets everything come to rest.
fn connect(world: &mut World, shard: usize) -> usize {
    let index = world.connect_to(shard, 0);
    settle(world);
    index
}

fn settle(world: &mut World) {
    if let Err(violation) = world.settle("the scenario", 60_000, |_| true) {
        panic!("{violation}");
    }
    check(world);
}

/// Lets a client say something in one piece.
fn say(
    world: &mut World,
    index: usize,
    say: impl Fn(&mut crate::client::Client, &mut crate::stage::Stage, &mut Vec<u8>),
) {
    let mut frames = Vec::new();
    let client = &mut world.clients[index];
    say(client, &mut world.stage, &mut frames);
    client.write(&frames, &mut world.stage);
}

#[test]
fn shards_with_full_rings_empty_each_other() {
    for shards in 2..=4 {
        let mut world = world(shards, |profile| {
            profile.ring_entries = 2;
            profile.ring_bytes = 600;
        });
        let clients: Vec<_> = (0..shards)
            .map(|shard| connect(&mut world, shard))
            .collect();
        for &index in &clients {
            say(&mut world, index, |client, stage, frames| {
                client.subscribe("a", stage, frames);
            });
        }
        settle(&mut world);
        for &index in &clients {
            say(&mut world, index, |client, stage, frames| {
                for _ in 0..100 {
                    client.publish("a", stage, frames);
                }
            });
        }
        world.carry_all();
        // Each fills its rings to all others before any of them takes a thing out.
        for shard in 0..shards {
            for _ in 0..2 {
                world.turn_without_drain(shard);
            }
        }
        let stalls: Vec<_> = world.stats().map(|stats| stats.stalls).collect();
        assert!(stalls.iter().all(|stalls| *stalls > 0), "{stalls:?}");
        settle(&mut world);
        assert!(world.clients.iter().all(|client| client.is_answered()));
        world.reckon(false);
        check(&world);
    }
}

#[test]
fn replies_that_nobody_reads_cost_no_turns() {
    let mut world = world(1, |profile| {
        profile.limits.replies_bytes_max = 700;
        profile.buffer_bytes = 200;
    });
    let index = connect(&mut world, 0);
    world.clients[index].stops_reading(&mut world.stage);
    world.stage.network.borrow_mut().set_buffer_bytes(200);
    say(&mut world, index, |client, stage, frames| {
        for _ in 0..1_000 {
            client.ask_for_pong(stage, frames);
        }
    });
    world.carry_all();
    for _ in 0..20 {
        world.turn(0);
    }
    assert!(
        !world.shards[0].event_loop.shard().has_work(),
        "a shard turns and turns for a client that reads nothing"
    );
    assert!(!world.shards[0].event_loop.is_waiting_for_room());
    world.clients[index].frozen_until = 0;
    settle(&mut world);
    assert!(
        world.clients[index].is_answered(),
        "it goes on where it stopped"
    );
}

#[test]
fn a_client_that_is_too_slow_for_its_101_still_gets_it() {
    let mut world = world(1, |profile| {
        profile.limits.outbox_bytes_max = 3_000;
        profile.buffer_bytes = 10;
    });
    let index = world.connect_to(0, 0);
    say(&mut world, index, |client, stage, frames| {
        client.subscribe("a", stage, frames);
        for _ in 0..20 {
            client.publish_of("a", 1_000, stage, frames);
        }
    });
    world.carry_all();
    world.turn(0);
    assert_eq!(world.stats().next().unwrap().closed_slow, 1);
    settle(&mut world);
    let ends: Vec<_> = world.clients.iter().map(|client| client.end).collect();
    assert_eq!(ends, [Some(crate::client::End::Closed(4008))]);
    let wrong = &world.stage.oracle.violations;
    assert!(wrong.iter().all(|violation| violation.kind != Kind::Ending));
}
