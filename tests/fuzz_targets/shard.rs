//! Whole shards, fed with anything. The input: five bytes for the settings, then steps, each a letter (of a byte the
//! lowest five bits count) and its arguments, mostly digits. So inputs can be read and written:
//! `g00 s01 g10 p112` opens two connections, subscribes one, lets the other publish; each space is a turn.
//!
//! `}00 |00 p001` does the same in ClusterWS, `~00 {00` in RESP; publishing is the same step for all of them. `_200` has
//! a peer come, and the next `_200` has it subscribe.
//!
//! What has to be so is in `shards` (each turn, and when all is over) and in `received` (each message), with `values` for
//! RESP; what the clients of other protocols say is in `speakers`.

use bytes::Bytes;
use pubsub::address::proxies::TrustedProxies;
use pubsub::address::{ClientId, ShardId};
use pubsub::limits::{KIB, Limits, SEND_BYTES_MAX};
use pubsub::protocol::clusterws::{Dialect, Generation};
use pubsub::protocol::peer::Watch;
use pubsub::secret::Secret;
use pubsub::shard::Ending;
use pubsub::shard::auth::{Access, AccessRule, Who};
use pubsub::shard::settings::{Admission, ListenerSettings, Settings};
use pubsub::shard::slow::{SlowPolicy, SlowRule, SlowRules};
use pubsub::topic::Filter;

use super::input::Input;
use super::received::Speech;
use super::shards::{World, frame};
use super::speakers::PASSWORD;
use super::values::Values;

const BROKER: u64 = 0x0102_0304_0506;
const CLIENTS: usize = 8;
const STEPS_MAX: usize = 600;

const TOPICS: [&str; 8] = ["a", "a.b", "a.b.c", "x", "d.1", "c.1", "c.2", "secret.x"];
const FILTERS: [&str; 16] = [
    "a", "=a", "a.*", "*", "a.b", "d", "c.1", "c", "secret", "=a.b", "*.b", "a.b.c", "x", "d.1",
    "c.2", "=*.*",
];
const EVENTS: [&str; 4] = ["add", "log", "e", "none"];
/// By `listener`: what a client asks for that knows where it is.
const PATHS: [&str; 3] = ["/", "/", "/ws"];
/// The first of the listeners that speak RESP; the other deals its connections.
const RESP: u16 = 3;
/// The one for peers.
const PEERS: u16 = 5;
/// A peer of the world's own, where nobody comes in unasked: no step is about it.
const HOST: usize = CLIENTS;
/// What ClusterWS clients ask for, and what they are.
const DIALECTS: [(&str, Generation, bool); 5] = [
    ("", Generation::Three, false),
    ("v=1", Generation::One, false),
    ("v=0", Generation::Zero, false),
    ("binary=1", Generation::Three, true),
    ("v=1&binary=1", Generation::One, true),
];

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let (settings, password) = settings(&mut input);
    let (end, settles) = (input.below(4), input.below(4) != 0);
    // The largest publication of the steps is larger than a send, where the limits allow one so large.
    let unit = if settings.limits.message_bytes_max > SEND_BYTES_MAX {
        128
    } else {
        24
    };
    let must_ask = settings.admission == Admission::Host;
    let mut world = World::new(settings, password, CLIENTS + 1);
    if must_ask {
        world.connect_peer(HOST, PEERS);
        world.watch(HOST, Watch::ADMIT.0);
        (0..8).for_each(|_| world.turn_all());
    }
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        step(&mut world, &mut input, unit);
    }
    if settles {
        world.settle();
    }
    match end {
        0 => (0..=HOST).for_each(|client| world.end(client, Ending::Failed)),
        1 => world.close_all(0),
        2 => {
            // Half of them do not read their last words.
            for client in world.clients.iter_mut().flatten().step_by(2) {
                client.is_fast = false;
            }
            world.close_all(1000);
        }
        _ => (0..=HOST).for_each(|client| world.end(client, Ending::EndOfInput)),
    }
    world.turn_all();
    // Who came too late to be closed, or waits with unread bytes behind its end.
    (0..=HOST).for_each(|client| {
        if world.clients[client]
            .as_ref()
            .is_some_and(|client| client.is_fast)
        {
            world.end(client, Ending::Failed);
        }
    });
    world.finish();
}

fn step(world: &mut World, input: &mut Input<'_>, unit: usize) {
    let letter = (input.byte() & 31) + b'a' - 1;
    match letter {
        b'a' => {
            let (client, listener) = (input.below(CLIENTS), input.below(4));
            let is_refused = listener == 3;
            world.connect(client, (listener % 3) as u16, is_refused, Speech::Native);
        }
        b'g' => {
            let (client, listener) = (input.below(CLIENTS), input.below(3));
            world.connect(client, listener as u16, false, Speech::Native);
            say_bytes(world, client, head(PATHS[listener]).as_bytes());
        }
        b'}' => {
            let (client, dialect) = (input.below(CLIENTS), input.below(5));
            let (query, generation, is_binary) = DIALECTS[dialect];
            let speech = Speech::Clusterws(Dialect::new(generation, is_binary), false);
            let listener = dialect % 2;
            if world.clients[client].is_none() {
                world.connect(client, listener as u16, false, speech);
                world.send(client, head(&format!("/cws?{query}")).as_bytes());
            }
        }
        b'|' => {
            let client = input.below(CLIENTS);
            world.say_clusterws(client, input.below(10), input.below(8));
        }
        b'~' => {
            let (client, listener) = (input.below(CLIENTS), input.below(3));
            let speech = Speech::Resp(Values::default());
            world.connect(client, RESP + (listener % 2) as u16, listener == 2, speech);
        }
        b'{' => {
            let client = input.below(CLIENTS);
            world.say_resp(client, input.below(16), input.below(8));
        }
        0x7f => {
            let (client, what, which) = (input.below(CLIENTS), input.below(16), input.below(8));
            if world.is_peer(client) {
                world.say_peer(client, what, which);
            } else {
                world.connect_peer(client, PEERS);
            }
        }
        b'b' => {
            let (shard, topic) = (input.below(3), TOPICS[input.below(8)]);
            let size = input.below(10);
            world.publish_as_host(shard, topic, Bytes::copy_from_slice(input.take(size)));
        }
        b'c' => {
            let client = input.below(CLIENTS);
            if let Some(Speech::Resp(_)) = world.speech(client) {
                world.run_wild(client);
                world.send(client, b"QUIT\r\n");
            } else if world.is_peer(client) {
                world.say_peer(client, 15, 0);
            } else {
                world.send(client, &frame(0x88, &1000_u16.to_be_bytes()));
            }
        }
        b'd' => world.read(input.below(CLIENTS)),
        b'e' => {
            let (client, event) = (input.below(CLIENTS), EVENTS[input.below(4)]);
            say(
                world,
                client,
                &format!(r#"{{"type":"event","event":"{event}","data":[]}}"#),
            );
        }
        b'f' => {
            let client = input.below(CLIENTS);
            let size = usize::from(input.byte());
            let bytes = input.take(size);
            world.run_wild(client);
            world.send(client, bytes);
        }
        b'h' | b'n' => {
            let (client, event) = (input.below(CLIENTS), EVENTS[input.below(4)]);
            let what = if letter == b'h' { "handle" } else { "unhandle" };
            say(
                world,
                client,
                &format!(r#"{{"type":"{what}","event":"{event}"}}"#),
            );
        }
        b'i' => {
            let (client, other) = (input.below(CLIENTS), input.below(CLIENTS));
            let place = world.clients[other]
                .as_ref()
                .and_then(|client| client.place);
            if let Some((shard, session)) = place {
                let shard = ShardId(shard as u8);
                let to = ClientId {
                    broker: BROKER,
                    shard,
                    session,
                };
                let text = r#"{"type":"request","event":"e","id":"i","to":"client:"#;
                say(world, client, &format!(r#"{text}{to}"}}"#));
            }
        }
        b'j' => world.admit(input.below(2) == 0),
        b'k' => world.end(input.below(CLIENTS), Ending::Failed),
        b'l' => {
            let (source, target) = (input.below(3), input.below(3));
            let (entries, bytes) = (input.below(10), 64 << input.below(10));
            world.bound(source, target, entries, bytes);
        }
        b'm' => {
            let scale = input.below(10);
            world.pass(1 << (2 * scale));
        }
        b'o' => world.end(input.below(CLIENTS), Ending::EndOfInput),
        b'p' | b'x' => {
            let (client, topic) = (input.below(CLIENTS), TOPICS[input.below(8)]);
            let size = input.below(10);
            world.publish(client, topic, letter == b'p', unit * size.pow(3));
        }
        b'q' => {
            let (client, event) = (input.below(CLIENTS), EVENTS[input.below(4)]);
            let timeout = 1_u64 << (2 * input.below(10));
            say(
                world,
                client,
                &format!(r#"{{"type":"request","event":"{event}","id":1,"timeout":{timeout}}}"#),
            );
        }
        b'r' => {
            let client = input.below(CLIENTS);
            let asked = world.clients[client]
                .as_mut()
                .and_then(|client| client.asked.pop_front());
            let number = asked.unwrap_or(1);
            let outcome = if input.below(2) == 0 {
                r#""data":{"x":1}"#
            } else {
                r#""error":{"code":"no","reason":"because"}"#
            };
            say(
                world,
                client,
                &format!(r#"{{"type":"reply","id":{number},{outcome}}}"#),
            );
        }
        b's' | b'u' => {
            let (client, filter) = (input.below(CLIENTS), FILTERS[input.below(16)]);
            let what = if letter == b's' {
                "subscribe"
            } else {
                "unsubscribe"
            };
            say(
                world,
                client,
                &format!(r#"{{"type":"{what}","topic":"{filter}"}}"#),
            );
        }
        b't' => {
            let client = input.below(CLIENTS);
            let size = usize::from(input.byte());
            let text = input.take(size);
            // Nobody else may number publications.
            if !text.windows(6).any(|window| window == b"\"from\"") {
                if !world.is_native(client) {
                    world.run_wild(client);
                }
                world.send(client, &frame(0x81, text));
            }
        }
        b'v' => {
            if let Some(client) = &mut world.clients[input.below(CLIENTS)] {
                client.is_fast = !client.is_fast;
            }
        }
        b'w' => {
            let client = input.below(CLIENTS);
            match input.below(4) {
                0 => say(world, client, r#"{"type":"whoami"}"#),
                1 => say(world, client, r#"{"type":"ping","id":[1]}"#),
                2 => say_bytes(world, client, &frame(0x89, b"are you there?")),
                _ => say_bytes(world, client, &frame(0x8A, b"")),
            }
        }
        b'y' => match input.below(4) {
            0 => world.quiesce(),
            spread => {
                world.quiesce();
                world.close_all(spread as u64 * 100);
            }
        },
        b'z' => {
            let shard = input.below(3) % world.shards.len();
            world.turn(shard);
        }
        // A space, among others.
        _ => world.turn_all(),
    }
}

fn head(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// What a native client says. To others it is as good as anything.
fn say(world: &mut World, client: usize, text: &str) {
    if !world.is_native(client) {
        world.run_wild(client);
    }
    world.send(client, &frame(0x81, text.as_bytes()));
}

/// What makes sense where WebSocket is spoken.
fn say_bytes(world: &mut World, client: usize, bytes: &[u8]) {
    if let Some(Speech::Resp(_) | Speech::Peer(_)) = world.speech(client) {
        world.run_wild(client);
    }
    world.send(client, bytes);
}

/// And the password of Redis clients, if they need one.
fn settings(input: &mut Input<'_>) -> (Settings, Option<Secret>) {
    let shards = [2, 1, 3][input.below(3)];
    let sizes = input.below(4);
    let (is_big, has_password) = (sizes % 2 == 1, sizes > 1);
    let flags = input.below(16);
    let (rate, burst) = if flags & 8 == 0 { (0, 0) } else { (20, 2) };
    let small = Limits {
        message_bytes_max: 4 * KIB,
        message_ms_max: 500,
        outbox_bytes_max: 16 * KIB,
        outbox_bytes_soft: 4 * KIB,
        outbox_soft_ms: 1000,
        outbox_total_bytes_max: 40 * KIB,
        replies_bytes_max: KIB,
        handshake_bytes_max: KIB,
        handshake_headers_max: 8,
        subscriptions_max: 6,
        handlers_max: 2,
        requests_max: 3,
        publish_rate_max: rate,
        publish_burst_max: burst,
        subscribe_rate_max: rate,
        subscribe_burst_max: burst,
        bad_texts_max: 2,
        turn_bytes_max: 8 * KIB,
        turn_messages_max: 4,
        ..Limits::default()
    };
    let limits = if is_big {
        Limits {
            outbox_bytes_max: 256 * KIB,
            outbox_total_bytes_max: 1024 * KIB,
            outbox_bytes_soft: 128 * KIB,
            message_bytes_max: 100 * KIB,
            turn_bytes_max: 64 * KIB,
            ..small
        }
    } else {
        small
    };
    let slow = |prefix: &'static str, policy| SlowRule {
        prefix: Bytes::from_static(prefix.as_bytes()),
        policy,
    };
    let rule = |filter: &'static str, who| AccessRule {
        filter: Filter::dotted(Bytes::from_static(filter.as_bytes())).expect("a filter"),
        who,
        subscribe: true,
        publish: true,
    };
    let rules = if flags & 1 == 0 {
        Vec::new()
    } else {
        vec![
            rule("secret", Who::Nobody),
            rule("x", Who::Authenticated),
            rule("*", Who::Anyone),
        ]
    };
    let open = ListenerSettings {
        native: true,
        echo_path: Some("/echo".to_owned()),
        http: true,
        clusterws: Some(Dialect::new(Generation::Three, false)),
        clusterws_path: "/cws".to_owned(),
        client_services: true,
        dealt: flags & 2 != 0,
        ..ListenerSettings::default()
    };
    let resp = |dealt| ListenerSettings {
        resp: true,
        dealt,
        ..ListenerSettings::default()
    };
    let peers = ListenerSettings {
        peers: true,
        client_services: true,
        ..ListenerSettings::default()
    };
    let dealt = ListenerSettings {
        dealt: true,
        ..open.clone()
    };
    let strict = ListenerSettings {
        native_path: Some("/ws".to_owned()),
        trust_peer_flag: true,
        client_services: false,
        ..open.clone()
    };
    let password = has_password.then(|| Secret::new(PASSWORD).expect("a password"));
    let settings = Settings {
        broker: BROKER,
        access: Access::new(rules),
        slow: SlowRules::new(vec![
            slow("d", SlowPolicy::DropOldest),
            slow("c", SlowPolicy::Conflate),
        ]),
        listeners: vec![open, dealt, strict, resp(false), resp(true), peers],
        trusted: TrustedProxies::default(),
        server_limits: Limits {
            subscriptions_max: 1000,
            ..limits.clone()
        },
        admission: if flags & 4 == 0 {
            Admission::Open
        } else {
            Admission::Host
        },
        ..Settings::plain(shards, limits)
    };
    (settings, password)
}
