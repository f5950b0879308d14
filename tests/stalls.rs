//! Time and its accidents (promises 26 to 28): a broker that was stopped, peers that are dead, drains that take
//! their time.

mod common;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::raw::{FIN, PING, PONG, frame, upgrade_head};
use common::{Broker, Client, End, Raw, clients_by_shard, option, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Stopped for much longer than every timeout: nobody is dropped for it, all is delivered in order.
#[test]
fn a_stop_of_the_broker_drops_nobody() {
    const BEFORE: u64 = 50;
    const DURING: u64 = 50;
    const AFTER: u64 = 200;
    let stop = Duration::from_millis(2500);
    let broker = Broker::start(&[
        option::PING_INTERVAL_MS,
        "500",
        option::PING_TIMEOUT_MS,
        "700",
        option::CONNECT_TIMEOUT_MS,
        "2000",
        option::MESSAGE_TIMEOUT_MS,
        "2000",
    ]);
    let mut groups = clients_by_shard(&broker, 2, 6);
    let mut publishers: Vec<Client> = groups.iter_mut().map(|group| group.remove(0)).collect();
    let (ready, readies) = mpsc::channel();
    let reading: Vec<_> = groups
        .into_iter()
        .flatten()
        .map(|mut client| {
            let ready = ready.clone();
            thread::spawn(move || {
                client.subscribe("t.*");
                ready.send(()).unwrap();
                // Answers pings as it reads.
                let mut next = [0; 2];
                while next != [BEFORE + DURING + AFTER; 2] {
                    let delivery = client.delivery();
                    let publisher = usize::from(delivery["topic"] == "t.1");
                    assert_eq!(delivery["message"], next[publisher], "{delivery}");
                    next[publisher] += 1;
                }
                client
            })
        })
        .collect();
    for _ in &reading {
        readies.recv_timeout(common::DEADLINE).unwrap();
    }
    // Half a handshake and half a message wait through it.
    let head = upgrade_head(broker.listen(), &[]);
    let mut late = Raw::connect(broker.listen());
    late.send(&head.as_bytes()[..40]);
    let mut slow = Raw::upgrade(&broker);
    let whole = frame(0x81, br#"{"type":"whoami"}"#);
    slow.send(&whole[..12]);
    let publish = |publishers: &mut [Client], numbers: std::ops::Range<u64>| {
        for number in numbers {
            for (index, publisher) in publishers.iter_mut().enumerate() {
                let publish =
                    json!({"type": "publish", "topic": format!("t.{index}"), "message": number});
                publisher.send_json(&publish);
            }
        }
    };
    publish(&mut publishers, 0..BEFORE);
    broker.signal(Signal::STOP);
    publish(&mut publishers, BEFORE..BEFORE + DURING);
    // While it is stopped nobody hears anything: that is how long this waits.
    let mut silent = Raw::connect(broker.listen());
    assert_eq!(silent.fill_within(stop), None, "a stopped broker speaks");
    broker.signal(Signal::CONT);
    late.send(&head.as_bytes()[40..]);
    slow.send(&whole[12..]);
    assert!(late.head().starts_with("HTTP/1.1 101 "));
    assert!(slow.next_text().contains("session"));
    publish(&mut publishers, BEFORE + DURING..BEFORE + DURING + AFTER);
    for publisher in &mut publishers {
        for _ in 0..BEFORE + DURING + AFTER {
            assert_eq!(publisher.answer()["type"], "ack");
        }
    }
    let mut readers: Vec<Client> = reading
        .into_iter()
        .map(|reader| reader.join().expect("a reader"))
        .collect();
    for client in readers.iter_mut().chain(&mut publishers) {
        client.expect_nothing();
    }
    let stats = broker.stats_at_rest();
    for reason in ["ping timeout", "too late", "too slow", "handshake refused"] {
        assert_eq!(stats["closed"][reason], 0, "{reason}");
    }
    broker.log_line("did not run");
}

/// Peers that take nothing and say nothing, some of them with a send under way: gone, all of them, and only they.
#[test]
fn the_dead_are_buried_and_the_living_stay() {
    const DEAD: usize = 20;
    let broker = Broker::start(&[
        option::PING_INTERVAL_MS,
        "300",
        option::PING_TIMEOUT_MS,
        "900",
        option::LINGER_MS,
        "300",
    ]);
    let mut dead: Vec<Raw> = (0..DEAD)
        .map(|number| {
            let mut raw = Raw::upgrade_narrow(&broker);
            if number.is_multiple_of(2) {
                raw.text(r#"{"type":"subscribe","topic":"t"}"#);
                assert!(raw.next_text().contains("ack"));
            }
            raw
        })
        .collect();
    // An idle one that answers is kept.
    let mut idle = Raw::upgrade(&broker);
    let (gone, going) = mpsc::channel::<()>();
    let answering = thread::spawn(move || {
        let mut pings = 0;
        while going.try_recv().is_err() {
            let got = idle.frame().expect("the idle one stays");
            assert_eq!(got.first, FIN | PING);
            pings += 1;
            idle.send(&frame(FIN | PONG, &got.payload));
        }
        pings
    });
    let mut publisher = Client::connect(&broker);
    let body = "x".repeat(30_000);
    wait_for("a send that is stuck", || {
        publisher.publish("t", json!(body));
        (broker.sum("outbox_bytes") > 0).then_some(())
    });
    wait_for("the dead to be gone", || {
        publisher.settle();
        (broker.sum("connections") == 2).then_some(())
    });
    gone.send(()).unwrap();
    assert!(answering.join().expect("the idle one") > 1);
    let stats = broker.stats_at_rest();
    assert_eq!(stats["closed"]["ping timeout"], DEAD);
    assert_eq!(stats["closed_slow"], 0);
    // Those who had room for it were told.
    let told = dead
        .iter_mut()
        .map(|raw| {
            let rest = raw.rest();
            rest.windows(2).any(|code| code == 4009_u16.to_be_bytes())
        })
        .filter(|told| *told)
        .count();
    assert!(told >= DEAD / 2, "{told} of {DEAD} were told");
}

/// `--drain S`: one leaves after the other, each with 1001, and whoever is still there is served.
#[test]
fn a_spread_drain_serves_those_who_are_still_there() {
    const CLIENTS: usize = 12;
    let mut broker = Broker::start(&["--drain", "2"]);
    let (left, leaving) = mpsc::channel();
    let (ready, readies) = mpsc::channel();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = Client::connect(&broker);
            let (left, ready) = (left.clone(), ready.clone());
            thread::spawn(move || {
                client.subscribe("t");
                ready.send(()).unwrap();
                let mut rounds = 0;
                let end = loop {
                    // A round trip for as long as it is here. Its own message comes before its ack.
                    let publish =
                        json!({"type": "publish", "topic": "t", "message": 0, "id": rounds});
                    if let Err(end) = client.try_send(publish.to_string()) {
                        break end;
                    }
                    let answered = loop {
                        match client.try_next_text() {
                            Ok(text) if text.contains(r#""type":"ack""#) => break Ok(text),
                            Ok(_) => {}
                            Err(end) => break Err(end),
                        }
                    };
                    match answered {
                        Ok(_) => rounds += 1,
                        Err(end) => break end,
                    }
                };
                left.send(Instant::now()).unwrap();
                (end, rounds)
            })
        })
        .collect();
    for _ in 0..CLIENTS {
        readies.recv_timeout(common::DEADLINE).unwrap();
    }
    let begun = Instant::now();
    broker.terminate();
    let moments: Vec<Instant> = (0..CLIENTS)
        .map(|_| leaving.recv_timeout(common::DEADLINE).unwrap())
        .collect();
    assert_eq!(broker.wait_exit().code(), Some(0));
    let took = begun.elapsed();
    for client in clients {
        let (end, rounds) = client.join().expect("a client");
        assert_eq!(end, End::Code(1001));
        assert!(rounds > 0);
    }
    let spread = *moments.iter().max().unwrap() - *moments.iter().min().unwrap();
    assert!(
        spread >= Duration::from_millis(1000),
        "all left within {spread:?}"
    );
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// Publishers that do not even wait for their acks: whatever was acked until the end has been read.
#[test]
fn a_drain_under_a_flood_keeps_what_it_acked() {
    let mut broker = Broker::start(&[]);
    let mut groups = clients_by_shard(&broker, 2, 3);
    let flooders: Vec<Client> = groups
        .iter_mut()
        .flat_map(|group| group.drain(..2))
        .collect();
    let readers: Vec<Client> = groups.into_iter().flatten().collect();
    let (flowing, flows) = mpsc::channel();
    let reading: Vec<_> = readers
        .into_iter()
        .map(|mut reader| {
            reader.subscribe("flood.*");
            thread::spawn(move || {
                let (texts, end) = reader.read_to_end();
                assert_eq!(end, End::Code(1001), "a reading subscriber");
                let mut next = [0_u64; 4];
                for text in &texts {
                    let delivery: Value = serde_json::from_str(text).unwrap();
                    let publisher = delivery["message"][0].as_u64().unwrap() as usize;
                    assert_eq!(delivery["message"][1], next[publisher], "{text}");
                    next[publisher] += 1;
                }
                next
            })
        })
        .collect();
    let flooding: Vec<_> = flooders
        .into_iter()
        .enumerate()
        .map(|(index, client)| {
            let flowing = flowing.clone();
            let mut writer = Raw::over(client.stream().try_clone().unwrap());
            let writing = thread::spawn(move || {
                let mut number = 0_u64;
                loop {
                    let text = format!(
                        r#"{{"type":"publish","topic":"flood.{index}","message":[{index},{number}]}}"#
                    );
                    if writer.try_send(&frame(0x81, text.as_bytes())).is_err() {
                        break;
                    }
                    number += 1;
                }
            });
            let mut client = client;
            let acking = thread::spawn(move || {
                let mut acked = 0_u64;
                while let Ok(text) = client.try_next_text() {
                    assert!(text.contains(r#""type":"ack""#), "{text}");
                    acked += 1;
                    if acked == 300 {
                        flowing.send(()).unwrap();
                    }
                }
                // Its writer may still wait for room that will never come.
                let _ = client.stream().shutdown(std::net::Shutdown::Both);
                acked
            });
            (writing, acking)
        })
        .collect();
    for _ in 0..4 {
        flows.recv_timeout(common::DEADLINE).unwrap();
    }
    let begun = Instant::now();
    broker.terminate();
    assert_eq!(broker.wait_exit().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10));
    let acked: Vec<u64> = flooding
        .into_iter()
        .map(|(writing, acking)| {
            let acked = acking.join().expect("a publisher's reader");
            writing.join().expect("a publisher's writer");
            acked
        })
        .collect();
    for reader in reading {
        let got = reader.join().expect("a subscriber");
        for (publisher, &acked) in acked.iter().enumerate() {
            let got = got[publisher];
            assert!(
                got >= acked,
                "publisher {publisher}: {acked} acked, {got} read"
            );
        }
    }
}
