//! Cases that a seed reaches rarely or never, each with a story of its own.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use pubsub::net::control::Control;

use crate::client::{Client, End};
use crate::oracle::Kind;
use crate::profile::Profile;
use crate::stage::Stage;
use crate::turn::{Step, TurnOrder};
use crate::world::World;

pub fn world(shards: usize, change: impl FnOnce(&mut Profile)) -> World {
    let mut profile = Profile::fair(shards);
    change(&mut profile);
    World::new(1, Rng::with_seed(1), profile, TurnOrder::Right, true)
}

pub fn check(world: &World) {
    let violation = world.stage.oracle.violations.first();
    assert!(violation.is_none(), "{}", violation.unwrap());
}

/// Lets a shard take steps until a certain one is the next.
fn step_to(world: &mut World, shard: usize, step: Step) {
    while world.shards[shard].next_step() != step {
        world.step(shard);
    }
}

/// Connects a client to a shard and lets everything come to rest.
fn connect(world: &mut World, shard: usize) -> usize {
    let index = world.connect_to(shard, false);
    settle(world);
    index
}

pub fn settle(world: &mut World) {
    if let Err(violation) = world.settle("the scenario", 60_000, |_| true) {
        panic!("{violation}");
    }
    check(world);
}

/// Lets a client say something in one piece.
pub fn say(world: &mut World, index: usize, say: impl Fn(&mut Client, &mut Stage, &mut Vec<u8>)) {
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
    let index = world.connect_to(0, false);
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
    assert_eq!(ends, [Some(End::Closed(4008))]);
    let wrong = &world.stage.oracle.violations;
    assert!(wrong.iter().all(|violation| violation.kind != Kind::Ending));
}

/// A ring gets room after a command was stalled and before its shard says that it waits for room: nobody will wake it.
#[test]
fn room_that_comes_during_the_turn_is_seen() {
    let mut world = world(2, |profile| profile.ring_entries = 1);
    let publisher = connect(&mut world, 0);
    let subscriber = connect(&mut world, 1);
    say(&mut world, subscriber, |client, stage, frames| {
        client.subscribe("a", stage, frames);
    });
    settle(&mut world);
    say(&mut world, publisher, |client, stage, frames| {
        for _ in 0..3 {
            client.publish("a", stage, frames);
        }
    });
    world.carry_all();
    world.turn(0);
    step_to(&mut world, 0, Step::Publish);
    world.turn(1);
    world.turn(0);
    let run = &world.shards[0];
    assert!(run.event_loop.is_waiting_for_room());
    assert_eq!(run.wait, Some(Duration::ZERO));
}

#[test]
fn the_answer_for_a_handler_that_has_gone_waits_for_nothing() {
    let mut world = world(2, |_| {});
    let handler = connect(&mut world, 0);
    let asker = connect(&mut world, 1);
    say(&mut world, handler, |client, stage, frames| {
        client.handle("add", stage, frames);
    });
    settle(&mut world);
    say(&mut world, asker, |client, stage, frames| {
        client.request_service("add", stage, frames);
    });
    world.clients[handler].stops_reading(&mut world.stage);
    settle(&mut world);
    world.clients[handler].vanish(&mut world.stage);
    world.turn(0);
    assert!(!world.shards[0].event_loop.is_waiting_for_room());
    settle(&mut world);
    assert_eq!(world.stage.requests[0].replies, 1);
}

#[test]
fn what_was_read_after_quiet_was_promised_is_not_routed() {
    let mut world = world(1, |_| {});
    let index = connect(&mut world, 0);
    let quiet = world.send_words(|reply| Control::Quiesce { reply });
    world.turn(0);
    assert_eq!(quiet.load(Ordering::Relaxed), 1);
    say(&mut world, index, |client, stage, frames| {
        client.publish("a", stage, frames);
    });
    world.carry_all();
    world.shards[0].event_loop.driver_mut().read_late();
    world.turn(0);
    let stats = world.stats().next().unwrap();
    assert!(stats.received_bytes > 0);
    assert_eq!(stats.publishes, 0);
}

#[test]
fn a_host_is_answered_when_the_rings_have_it() {
    let mut world = world(2, |_| {});
    let subscriber = connect(&mut world, 1);
    say(&mut world, subscriber, |client, stage, frames| {
        client.subscribe("a", stage, frames);
    });
    settle(&mut world);
    world.host_publishes("a", 0);
    step_to(&mut world, 0, Step::Publish);
    world.hear_hosts();
    assert_eq!(world.hosted_answered, 0);
    world.turn(0);
    world.hear_hosts();
    assert_eq!(world.hosted_answered, 1);
}

#[test]
fn whoever_comes_while_all_leave_is_refused() {
    let mut world = world(2, |_| {});
    // The dealer keeps the first and hands the second over.
    let first = world.connect_to(0, true);
    settle(&mut world);
    let second = world.connect_to(0, true);
    world.carry_all();
    while world.stats().map(|stats| stats.handed_over).sum::<u64>() == 0 {
        world.turn(0);
    }
    let gone = world.send_words(|reply| Control::Close {
        spread_ms: 0,
        reply,
    });
    world.turn(1);
    let third = world.connect_to(0, false);
    settle(&mut world);
    assert_eq!(gone.load(Ordering::Relaxed), 2);
    let ends = [first, second, third].map(|index| world.clients[index].end);
    let refused = Some(End::Refused(503));
    assert_eq!(ends, [Some(End::Closed(1001)), refused, refused]);
    assert!(world.is_empty());
}

/// Lets a shard take steps until it has handed a connection over, and put it into the ring.
fn hand_over(world: &mut World, shard: usize) {
    while world.shards[shard].event_loop.shard().stats().handed_over == 0 {
        world.carry_all();
        world.turn(shard);
    }
    // Let go by the driver, some turns later.
    for _ in 0..5 {
        world.turn(shard);
    }
}

/// A shard with nobody answers that all are gone, though another has just put a connection into the ring to it: then
/// the loops would end, and the client would never hear a word.
#[test]
fn a_connection_in_a_ring_is_not_gone() {
    let mut world = world(2, |profile| profile.dealer = 1);
    // The dealer begins with itself.
    let first = world.connect_to(1, true);
    settle(&mut world);
    world.clients[first].vanish(&mut world.stage);
    settle(&mut world);
    let second = world.connect_to(1, true);
    hand_over(&mut world, 1);
    let held = world.stage.network.borrow().held();
    assert_eq!(held, Some(world.clients[second].connection));
    let gone = world.send_words(|reply| Control::Close {
        spread_ms: 0,
        reply,
    });
    world.turn(1);
    assert_eq!(gone.load(Ordering::Relaxed), 0, "nobody has heard of it");
    settle(&mut world);
    assert_eq!(gone.load(Ordering::Relaxed), 2);
    assert_eq!(world.clients[second].end, Some(End::Refused(503)));
    assert!(world.is_empty());
}

/// The other way round: the shard that has nobody answers first, and sleeps until the last of the others is gone.
#[test]
fn whoever_waits_for_the_last_to_leave_is_woken() {
    let mut world = world(3, |_| {});
    let last = connect(&mut world, 1);
    let gone = world.send_words(|reply| Control::Close {
        spread_ms: 700,
        reply,
    });
    world.turn(0);
    world.turn(2);
    assert_eq!(gone.load(Ordering::Relaxed), 0);
    settle(&mut world);
    assert_eq!(gone.load(Ordering::Relaxed), 3);
    assert_eq!(world.clients[last].end, Some(End::Closed(1001)));
}

/// Half a request head came before the drain, the rest while the shard was quiet and read nothing.
#[test]
fn half_a_handshake_is_answered_when_all_leave() {
    for drains in [true, false] {
        let mut world = world(1, |_| {});
        let index = world.connect_to(0, false);
        let connection = world.clients[index].connection;
        world.turn(0);
        (world.stage.network.borrow_mut()).carry(connection, true, 20);
        world.turn(0);
        if drains {
            world.send_words(|reply| Control::Quiesce { reply });
            world.turn(0);
            world.carry_all();
        }
        world.send_words(|reply| Control::Close {
            spread_ms: 0,
            reply,
        });
        settle(&mut world);
        assert_eq!(world.clients[index].end, Some(End::Refused(503)));
        assert!(world.is_empty());
    }
}

/// What a client said waits until it reads its answers. It reads them when quiet has been promised: its publish is not
/// acked then, for on another shard the subscribers have gone without it.
#[test]
fn what_waited_for_a_slow_reader_is_not_routed_after_quiet_was_promised() {
    let mut world = world(2, |profile| {
        profile.limits.replies_bytes_max = 700;
        profile.buffer_bytes = 200;
    });
    let subscriber = connect(&mut world, 1);
    say(&mut world, subscriber, |client, stage, frames| {
        client.subscribe("a", stage, frames);
    });
    let publisher = connect(&mut world, 0);
    world.clients[publisher].stops_reading(&mut world.stage);
    world.stage.network.borrow_mut().set_buffer_bytes(200);
    say(&mut world, publisher, |client, stage, frames| {
        for _ in 0..1_000 {
            client.ask_for_pong(stage, frames);
        }
        client.publish("a", stage, frames);
    });
    for _ in 0..20 {
        world.carry_all();
        world.turn(0);
    }
    world.is_draining = true;
    let quiet = world.send_words(|reply| Control::Quiesce { reply });
    for _ in 0..4 {
        world.turn(0);
        world.turn(1);
    }
    assert_eq!(quiet.load(Ordering::Relaxed), 2, "it is not waited for");
    world.is_quiet = true;
    // Now it reads, between the words to the one shard and to the other.
    let gone = |world: &mut World, shard| {
        let close = Control::Close {
            spread_ms: 0,
            reply: Box::new(|()| {}),
        };
        world.tell(shard, close);
    };
    gone(&mut world, 1);
    world.turn(1);
    world.clients[publisher].frozen_until = 0;
    settle(&mut world);
    gone(&mut world, 0);
    settle(&mut world);
    world.reckon(false);
    check(&world);
    let ends = [subscriber, publisher].map(|index| world.clients[index].end);
    assert_eq!(ends, [Some(End::Closed(1001)); 2]);
    let publishes: u64 = world.stats().map(|stats| stats.publishes).sum();
    assert_eq!(publishes, 0);
}
