//! Clients that mean no good (promises 9 to 11, 17, 25): floods, storms, garbage. Each costs only itself; beside
//! every one of them sits a bystander whose messages come complete and in order.

mod common;

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::raw::{
    BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, frame, header, upgrade_head,
};
use common::{Broker, Client, End, Raw, clients_by_shard, option, wait_for};
use fastrand::Rng;
use serde_json::json;

const MIB: u64 = 1 << 20;

/// A publisher on one shard and a subscriber on the other: whatever else happens, its messages come.
struct Bystander {
    publisher: Client,
    subscriber: Client,
    sent: u64,
    received: u64,
}

impl Bystander {
    fn new(broker: &Broker) -> Bystander {
        let (publisher, mut subscriber) = common::pair_on_two_shards(broker);
        subscriber.subscribe("bystander");
        Bystander {
            publisher,
            subscriber,
            sent: 0,
            received: 0,
        }
    }

    /// One message there and one ack back.
    fn exchange(&mut self) {
        self.publisher.publish("bystander", json!(self.sent));
        self.sent += 1;
        self.read();
    }

    fn read(&mut self) {
        while self.received < self.sent {
            assert_eq!(self.subscriber.delivery()["message"], self.received);
            self.received += 1;
        }
    }

    /// Everything came, once, and nothing else did.
    fn finish(mut self) {
        for _ in 0..10 {
            self.exchange();
        }
        self.subscriber.expect_nothing();
        self.publisher.expect_nothing();
    }
}

/// Runs `flood` beside a bystander that goes on meanwhile.
fn beside(broker: &Broker, flood: impl FnOnce() + Send) {
    let mut bystander = Bystander::new(broker);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let over = &over;
        let flood = scope.spawn(move || {
            // Also if the flood fails.
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(flood));
            over.store(true, Ordering::SeqCst);
            if let Err(panic) = result {
                std::panic::resume_unwind(panic);
            }
        });
        while !over.load(Ordering::SeqCst) {
            bystander.exchange();
        }
        flood.join().expect("the flood");
    });
    bystander.finish();
}

/// Writes from a thread of its own, so that answers can be read meanwhile.
fn write_beside(raw: &Raw, bytes: Vec<u8>) -> thread::JoinHandle<bool> {
    let mut stream = raw.stream().try_clone().expect("a second handle");
    thread::spawn(move || stream.write_all(&bytes).is_ok())
}

#[test]
fn pings_are_answered_each_and_in_order() {
    const COUNT: u32 = 30_000;
    let broker = Broker::start(&[]);
    beside(&broker, || {
        let mut raw = Raw::upgrade(&broker);
        let flood = (0..COUNT)
            .flat_map(|number| frame(FIN | PING, &number.to_be_bytes()))
            .collect();
        let writing = write_beside(&raw, flood);
        for number in 0..COUNT {
            let pong = raw.frame().expect("a pong");
            assert_eq!(pong.first, FIN | PONG);
            assert_eq!(pong.payload, number.to_be_bytes());
        }
        assert!(writing.join().unwrap());
    });
}

#[test]
fn subscribes_and_unsubscribes_are_acked_each_and_in_order() {
    const ROUNDS: usize = 4_000;
    let broker = Broker::start(&[]);
    beside(&broker, || {
        let mut raw = Raw::upgrade(&broker);
        let flood = (0..ROUNDS)
            .flat_map(|number| {
                let topic = number % 7;
                ["subscribe", "unsubscribe"].map(|kind| {
                    let text = format!(r#"{{"type":"{kind}","topic":"t.{topic}","id":{number}}}"#);
                    frame(FIN | TEXT, text.as_bytes())
                })
            })
            .flatten()
            .collect();
        let writing = write_beside(&raw, flood);
        for number in 0..ROUNDS {
            for action in ["subscribe", "unsubscribe"] {
                let ack = common::client::parse(&raw.next_text());
                assert_eq!(
                    (&ack["type"], &ack["action"], &ack["id"]),
                    (&json!("ack"), &json!(action), &json!(number)),
                );
            }
        }
        assert!(writing.join().unwrap());
    });
    wait_for("its subscriptions to be gone", || {
        (broker.sum("subscriptions") == 0).then_some(())
    });
}

/// Pongs and acks that nobody reads: reading stops, memory does not grow, and nothing is lost.
#[test]
fn unread_pongs_and_acks_wait_in_the_kernel() {
    const COUNT: usize = 150_000;
    let ping = |_| frame(FIN | PING, &[b'p'; 120]);
    let ack = |number: usize| {
        let text = format!(r#"{{"type":"unsubscribe","topic":"t","id":{number}}}"#);
        frame(FIN | TEXT, text.as_bytes())
    };
    let floods: [&dyn Fn(usize) -> Vec<u8>; 2] = [&ping, &ack];
    for make in floods {
        let broker = Broker::start(&[]);
        let mut bystander = Bystander::new(&broker);
        bystander.exchange();
        let before = broker.rss_bytes();
        let mut raw = Raw::upgrade_narrow(&broker);
        let writing = write_beside(&raw, (0..COUNT).flat_map(make).collect());
        // Its reading has stopped once a whole round of others changes nothing any more.
        let mut last = 0;
        wait_for("its reading to stop", || {
            for _ in 0..50 {
                bystander.exchange();
            }
            let received = broker.stats()["received_bytes"].as_u64().unwrap();
            // What the bystander itself sends is some 100 bytes a message.
            let has_stopped = received < last + 50 * 200;
            last = received;
            has_stopped.then_some(())
        });
        assert!(!writing.is_finished(), "all was taken, and nobody reads");
        let grown = broker.rss_bytes().saturating_sub(before);
        assert!(
            grown <= 24 * MIB,
            "{grown} bytes for answers that nobody reads"
        );
        let waiting = broker.sum("outbox_bytes");
        assert!(waiting <= MIB, "{waiting} bytes wait");
        // Read after all: every one is there.
        for _ in 0..COUNT {
            assert!(raw.frame().is_some());
        }
        assert!(writing.join().unwrap());
        bystander.finish();
    }
}

#[test]
fn garbage_after_the_handshake_ends_with_a_code() {
    const CONNECTIONS: usize = 150;
    let broker = Broker::start(&[]);
    let mut rng = Rng::with_seed(common::seed());
    beside(&broker, || {
        for _ in 0..CONNECTIONS {
            let mut raw = Raw::upgrade(&broker);
            let garbage: Vec<u8> = (0..rng.usize(2..20_000)).map(|_| rng.u8(..)).collect();
            let _ = raw.try_send(&garbage);
            let _ = raw.stream().shutdown(Shutdown::Write);
            // Either the bytes broke a rule, or they are the beginning of something that never ended.
            let code = loop {
                match raw.frame() {
                    Some(frame) if frame.first == FIN | CLOSE => break frame.close_code(),
                    Some(_) => {}
                    None => break None,
                }
            };
            assert!(
                matches!(code, None | Some(1002 | 1003 | 1005 | 1007 | 1009)),
                "{code:?} for {garbage:?}"
            );
        }
    });
    assert_eq!(broker.stats()["closed"]["internal error"], 0);
}

#[test]
fn fragments_cost_nothing_however_many() {
    const FRAGMENTS: usize = 60_000;
    let broker = Broker::start(&[]);
    let text = format!(
        r#"{{"type":"publish","topic":"t","message":"{}"}}"#,
        "m".repeat(FRAGMENTS)
    );
    let before = broker.rss_bytes();
    beside(&broker, || {
        let mut subscriber = Client::connect(&broker);
        subscriber.subscribe("t");
        let mut raw = Raw::upgrade(&broker);
        // A byte each, an empty one behind every other, and a ping now and then.
        let mut storm = frame(TEXT, b"");
        for (number, byte) in text.bytes().enumerate() {
            storm.extend(frame(CONTINUATION, &[byte]));
            if number.is_multiple_of(2) {
                storm.extend(frame(CONTINUATION, b""));
            }
            if number.is_multiple_of(10_000) {
                storm.extend(frame(FIN | PING, b"still here"));
            }
        }
        storm.extend(frame(FIN | CONTINUATION, b""));
        let pings = text.len().div_ceil(10_000);
        let writing = write_beside(&raw, storm);
        for _ in 0..pings {
            assert_eq!(raw.frame().expect("a pong").payload, b"still here");
        }
        assert!(raw.next_text().contains(r#""type":"ack""#));
        assert!(writing.join().unwrap());
        assert_eq!(
            subscriber.delivery()["message"].as_str().map(str::len),
            Some(FRAGMENTS)
        );
    });
    let grown = broker.rss_bytes().saturating_sub(before);
    assert!(grown <= 8 * MIB, "{grown} bytes");
}

/// A message of nothing, for ever: it never gets larger, and it has a deadline all the same.
#[test]
fn a_storm_of_empty_fragments_has_a_deadline() {
    let broker = Broker::start(&[option::MESSAGE_TIMEOUT_MS, "500"]);
    beside(&broker, || {
        let mut raw = Raw::upgrade(&broker);
        raw.send(&frame(TEXT, b""));
        let mut writer = Raw::over(raw.stream().try_clone().unwrap());
        let storm: Vec<u8> = frame(CONTINUATION, b"").repeat(1_000);
        let writing = thread::spawn(move || while writer.try_send(&storm).is_ok() {});
        let close = raw.frame().expect("a close frame");
        assert_eq!(close.close_code(), Some(1008));
        let _ = raw.stream().shutdown(Shutdown::Both);
        writing.join().unwrap();
    });
}

#[test]
fn a_hundred_thousand_subscriptions_are_one_connection_s_affair() {
    const COUNT: usize = 100_000;
    let broker = Broker::start(&[option::MAX_SUBSCRIPTIONS, "100000"]);
    let mut bystander = Bystander::new(&broker);
    bystander.exchange();
    let before = broker.rss_bytes();
    let mut raw = Raw::upgrade(&broker);
    let subscribe = |number: usize| {
        let text = format!(
            r#"{{"type":"subscribe","topic":"many.{}.{number}"}}"#,
            number % 100
        );
        frame(FIN | TEXT, text.as_bytes())
    };
    let writing = write_beside(&raw, (0..COUNT).flat_map(subscribe).collect());
    for number in 0..COUNT {
        let ack = raw.next_text();
        let topic = format!(r#""topic":"many.{}.{number}""#, number % 100);
        assert!(
            ack.contains(r#""type":"ack""#) && ack.contains(&topic),
            "{ack}"
        );
        if number.is_multiple_of(5_000) {
            bystander.exchange();
        }
    }
    assert!(writing.join().unwrap());
    raw.send(&subscribe(COUNT));
    assert!(raw.next_text().contains(r#""code":"limit""#));
    assert_eq!(broker.sum("subscriptions"), COUNT as u64 + 1);
    let grown = broker.rss_bytes().saturating_sub(before);
    assert!(grown <= 48 * MIB, "{grown} bytes for {COUNT} subscriptions");
    for number in [0, 1, 50_000, COUNT - 1] {
        let topic = format!("many.{}.{number}", number % 100);
        bystander.publisher.publish(&topic, json!(number));
        assert!(raw.next_text().contains(&format!(r#""message":{number},"#)));
    }
    // Freeing them is nobody else's affair either.
    drop(raw);
    wait_for("its subscriptions to be gone", || {
        bystander.exchange();
        (broker.sum("subscriptions") == 1).then_some(())
    });
    bystander.finish();
}

/// Two publishers that never wait, one on each shard, and their acks read by others.
#[test]
fn floods_on_both_shards_leave_the_bystander_its_order() {
    let broker = Broker::start(&[]);
    let flooders = clients_by_shard(&broker, 2, 1);
    let publish = frame(
        FIN | TEXT,
        br#"{"type":"publish","topic":"flood","message":"xxxxxxxxxxxxxxxxxxxxxxxx"}"#,
    );
    let flood: Vec<u8> = publish.repeat(500);
    let writing: Vec<_> = flooders
        .into_iter()
        .flatten()
        .map(|mut client| {
            let mut writer = client.stream().try_clone().unwrap();
            let flood = flood.clone();
            let writing = thread::spawn(move || while writer.write_all(&flood).is_ok() {});
            let stream = client.stream().try_clone().unwrap();
            let reading = thread::spawn(move || {
                let mut acks = 0_u64;
                while client.try_next_text().is_ok() {
                    acks += 1;
                }
                acks
            });
            (writing, reading, stream)
        })
        .collect();
    wait_for("the flood", || {
        (broker.sum("publishes") > 2_000).then_some(())
    });
    let mut bystander = Bystander::new(&broker);
    for _ in 0..100 {
        bystander.exchange();
    }
    for (writing, reading, stream) in writing {
        let _ = stream.shutdown(Shutdown::Both);
        writing.join().unwrap();
        assert!(reading.join().unwrap() > 0);
    }
    bystander.finish();
}

/// Many who read nothing: all outboxes together have a bound, the largest are cut first, and readers stay.
#[test]
fn non_readers_share_one_bound() {
    const NON_READERS: usize = 16;
    const TOTAL: u64 = 4 * MIB;
    let broker = Broker::start(&["--max-outbox-total", "4MiB"]);
    let mut bystander = Bystander::new(&broker);
    let mut deaf: Vec<Client> = (0..NON_READERS)
        .map(|_| {
            let mut client = Client::connect_narrow(&broker);
            client.subscribe("flood");
            client
        })
        .collect();
    let mut publisher = Client::connect(&broker);
    let before = broker.rss_bytes();
    let body = "x".repeat(40_000);
    let mut most = 0;
    wait_for("all of them to be cut", || {
        for _ in 0..5 {
            publisher.publish("flood", json!(body));
            bystander.exchange();
        }
        let stats = broker.stats();
        let waiting = stats["outbox_bytes"].as_u64().unwrap();
        assert!(waiting <= TOTAL, "{waiting} bytes wait");
        most = most.max(broker.rss_bytes());
        (stats["closed_slow"] == NON_READERS).then_some(())
    });
    let grown = most.saturating_sub(before);
    assert!(grown <= 24 * MIB, "{grown} bytes");
    for client in &mut deaf {
        let (_, end) = client.read_to_end();
        assert!(matches!(end, End::Code(4008) | End::Lost), "{end:?}");
    }
    bystander.finish();
    broker.stats_at_rest();
}

/// One hostile input, and where it goes.
enum Input {
    /// Instead of a handshake.
    Bare(Vec<u8>),
    /// After it.
    Upgraded(Vec<u8>),
}

const ATOMS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "null",
    "true",
    "-0",
    "1e999",
    "NaN",
    " ",
    "\"type\"",
    "\"topic\"",
    "\"message\"",
    "\"id\"",
    "\"subscribe\"",
    "\"unsubscribe\"",
    "\"publish\"",
    "\"request\"",
    "\"reply\"",
    "\"handle\"",
    "\"event\"",
    "\"whoami\"",
    "\"*.*\"",
    "\"=a.*\"",
    "\"a..b\"",
    "\"\u{0}\"",
    "\"\u{feff}\"",
    "\"timestamp\"",
    "\"context\"",
    "\"fromPeerServer\"",
    "\"echo\"",
    "\"timeout\"",
    "\"client:________AAAAAAAAAAAB\"",
    "18446744073709551616",
    "\"bystander.x\"",
];

fn hostile(rng: &mut Rng, host: &str) -> Input {
    let noise = |rng: &mut Rng, size: usize| -> Vec<u8> { (0..size).map(|_| rng.u8(..)).collect() };
    let mutate = |rng: &mut Rng, mut bytes: Vec<u8>| -> Vec<u8> {
        for _ in 0..rng.usize(1..6) {
            let at = rng.usize(..bytes.len().max(1));
            match rng.u8(..4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at.min(bytes.len()), rng.u8(..)),
                2 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
                _ => {
                    let again = bytes[at.min(bytes.len())..].to_vec();
                    bytes.extend_from_slice(&again);
                }
            }
        }
        bytes
    };
    let soup = |rng: &mut Rng| -> Vec<u8> {
        let count = rng.usize(..60);
        (0..count)
            .flat_map(|_| rng.choice(ATOMS).unwrap().bytes())
            .collect()
    };
    let command = |rng: &mut Rng| -> Vec<u8> {
        let kind = *rng
            .choice(&[
                "subscribe",
                "unsubscribe",
                "request",
                "reply",
                "handle",
                "whoami",
                "ping",
                "event",
            ])
            .unwrap();
        let topic = rng.choice(ATOMS).unwrap().trim_matches('"');
        format!(
            r#"{{"type":"{kind}","topic":"hostile.{topic}","event":"e","id":{}}}"#,
            rng.u8(..)
        )
        .into_bytes()
    };
    let first = |rng: &mut Rng| {
        *rng.choice(&[
            FIN | TEXT,
            TEXT,
            FIN | CONTINUATION,
            CONTINUATION,
            FIN | PING,
            FIN | PONG,
            FIN | CLOSE,
            FIN | BINARY,
            0xC1,
            0xFF,
            0x8B,
            PING,
        ])
        .unwrap()
    };
    match rng.u8(..12) {
        0 => {
            let size = rng.usize(..400);
            Input::Bare(noise(rng, size))
        }
        1 | 2 => Input::Bare(mutate(rng, upgrade_head(host, &[]).into_bytes())),
        3 => Input::Bare(
            upgrade_head(
                host,
                &[
                    ("Origin", "https://evil.example"),
                    ("X", &"x".repeat(rng.usize(..9_000))),
                ],
            )
            .into_bytes(),
        ),
        4 => {
            let size = rng.usize(..400);
            Input::Upgraded(noise(rng, size))
        }
        5 => {
            let soup = soup(rng);
            Input::Upgraded(frame(FIN | TEXT, &soup))
        }
        6 => {
            let text = command(rng);
            let text = mutate(rng, text);
            Input::Upgraded(frame(FIN | TEXT, &text))
        }
        7 => {
            let text = command(rng);
            let framed = frame(FIN | TEXT, &text);
            Input::Upgraded(mutate(rng, framed))
        }
        8 => {
            let kind = first(rng);
            let size = *rng
                .choice(&[0, 1, 125, 126, 65_535, 65_536, 65_537, 1 << 40, u64::MAX])
                .unwrap();
            let mut bytes = header(kind, size);
            let sent = rng.usize(..300);
            bytes.extend(noise(rng, sent));
            Input::Upgraded(bytes)
        }
        9 => Input::Upgraded(
            (0..rng.usize(1..20))
                .flat_map(|_| {
                    let kind = first(rng);
                    let size = rng.usize(..140);
                    let payload = noise(rng, size);
                    frame(kind, &payload)
                })
                .collect(),
        ),
        10 => {
            let depth = rng.usize(1..5_000);
            Input::Upgraded(frame(
                FIN | TEXT,
                rng.choice(&["[", "{\"a\":", "\"\\"])
                    .unwrap()
                    .repeat(depth)
                    .as_bytes(),
            ))
        }
        _ => Input::Upgraded(
            (0..rng.usize(1..30))
                .flat_map(|_| {
                    let text = command(rng);
                    frame(FIN | TEXT, &text)
                })
                .collect(),
        ),
    }
}

/// `E2E_HOSTILE` sets the number of inputs.
#[test]
fn hostile_inputs_disturb_nobody() {
    let count =
        std::env::var("E2E_HOSTILE").map_or(3_000, |count| count.parse().expect("a number"));
    let seed = common::seed();
    let broker = Broker::start_with_config("client_services = true\n", &[]);
    beside(&broker, || {
        thread::scope(|scope| {
            for part in 0..4_u64 {
                let broker = &broker;
                scope.spawn(move || {
                    let mut rng = Rng::with_seed(seed.wrapping_add(part));
                    // One upgraded connection takes inputs until one ends it.
                    let mut open: Option<Raw> = None;
                    for _ in 0..count / 4 {
                        match hostile(&mut rng, broker.listen()) {
                            Input::Bare(bytes) => {
                                let mut raw = Raw::connect(broker.listen());
                                let _ = raw.try_send(&bytes);
                                if rng.bool() {
                                    let _ = raw.stream().shutdown(Shutdown::Write);
                                }
                            }
                            Input::Upgraded(bytes) => {
                                let raw = open.get_or_insert_with(|| Raw::upgrade(broker));
                                let is_gone = raw.try_send(&bytes).is_err()
                                    || raw.fill_within(Duration::from_micros(200)) == Some(false);
                                if is_gone || rng.u8(..8) == 0 {
                                    open = None;
                                }
                            }
                        }
                    }
                });
            }
        });
    });
    let stats = wait_for("the hostile to be gone", || {
        let stats = broker.stats();
        (stats["connections"] == 0).then_some(stats)
    });
    assert_eq!(stats["closed"]["internal error"], 0, "{stats}");
    assert!(
        stats["accepted"].as_u64().unwrap() > count as u64 / 8,
        "{stats}"
    );
    let stats = broker.stats_at_rest();
    assert_eq!(stats["subscriptions"], 0);
    TcpStream::connect(broker.listen()).expect("still there");
}
