//! Connections that come and go in every manner, and what happens when there is no room for one more (promises 12
//! to 14): those who are here are served as before, and everything is given back.

mod common;

use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use common::raw::{FIN, TEXT};
use common::raw::{connect_narrow, frame, header, upgrade_head};
use common::{Broker, Client, End, Raw, admin, clients_by_shard, option, wait_for};
use serde_json::json;
use socket2::SockRef;

const MIB: u64 = 1 << 20;

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// The closing handshake.
    Close,
    /// The end of its stream, without a close frame.
    Fin,
    /// A reset, with answers unread.
    Reset,
    /// In the middle of the request head.
    HalfHead,
}

const MANNERS: [Manner; 4] = [Manner::Close, Manner::Fin, Manner::Reset, Manner::HalfHead];

fn come_and_go(broker: &Broker, manner: Manner, number: usize) {
    if matches!(manner, Manner::HalfHead) {
        let mut raw = Raw::connect(broker.listen());
        let head = upgrade_head(broker.listen(), &[]);
        raw.send(&head.as_bytes()[..number % head.len()]);
        if number.is_multiple_of(2) {
            reset(raw.stream());
        }
        return;
    }
    let mut client = Client::connect(broker);
    client.subscribe(&format!("churn.{number}"));
    client.subscribe("churn.all.*");
    client.publish("churn.all", json!(number));
    match manner {
        Manner::Close => {
            client.close();
            let (_, end) = client.read_to_end();
            assert!(matches!(end, End::NoCode | End::Lost), "{end:?}");
        }
        Manner::Fin => {
            client.stream().shutdown(Shutdown::Write).unwrap();
            // The broker ends it too.
            let (_, end) = client.read_to_end();
            assert_eq!(end, End::Lost);
        }
        Manner::Reset => {
            client.send(r#"{"type":"whoami"}"#);
            reset(client.stream());
        }
        Manner::HalfHead => unreachable!("handled above"),
    }
}

/// Whoever drops this socket next resets the connection.
fn reset(stream: &TcpStream) {
    SockRef::from(stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

#[test]
fn nothing_leaks_however_clients_leave() {
    const ROUND: usize = 200;
    let broker = Broker::start(&[]);
    let round = |first: usize| {
        for number in first..first + ROUND {
            come_and_go(&broker, MANNERS[number % MANNERS.len()], number);
        }
        wait_for("everybody to be gone", || {
            let stats = broker.stats();
            (stats["connections"] == 0 && stats["subscriptions"] == 0).then_some(())
        });
    };
    // What is allocated once is not leaked.
    round(0);
    let (descriptors, rss) = (broker.descriptors(), broker.rss_bytes());
    for number in 1..5 {
        round(number * ROUND);
    }
    wait_for("descriptors to come back", || {
        (broker.descriptors() <= descriptors + 3).then_some(())
    });
    let grown = broker.rss_bytes().saturating_sub(rss);
    assert!(
        grown <= 6 * MIB,
        "{grown} bytes more after {} cycles",
        4 * ROUND
    );
    let stats = broker.stats_at_rest();
    assert_eq!(stats["accepted"], 5 * ROUND);
    assert_eq!(stats["closed"]["internal error"], 0);
}

#[test]
fn stuck_handshakes_keep_nobody_out() {
    const STUCK: usize = 300;
    let broker = Broker::start(&[option::CONNECT_TIMEOUT_MS, "3000"]);
    let head = upgrade_head(broker.listen(), &[("X-Fill", &"f".repeat(600))]);
    let mut stuck: Vec<Raw> = (0..STUCK)
        .map(|number| {
            let mut raw = Raw::connect(broker.listen());
            // From nothing at all to all but the last byte.
            raw.send(&head.as_bytes()[..(head.len() - 1) * (number % 10) / 9]);
            raw
        })
        .collect();
    wait_for("all of them to be here", || {
        (broker.sum("connections") == STUCK as u64).then_some(())
    });
    for _ in 0..5 {
        let (mut one, mut two) = (Client::connect(&broker), Client::connect(&broker));
        two.subscribe("t");
        one.publish("t", json!(1));
        assert_eq!(two.delivery()["message"], 1);
        // A drip is no progress.
        for raw in &mut stuck {
            let _ = raw.try_send(b"");
        }
    }
    // They were served while all the stuck ones still were stuck.
    let refused = |stats: &serde_json::Value| stats["handshakes_refused"].as_u64().unwrap();
    assert_eq!(refused(&broker.stats()), 0, "this machine is too slow");
    for raw in &mut stuck {
        let answer = raw.rest();
        let response = admin::parse(&answer)
            .unwrap_or_else(|| panic!("no response: {:?}", String::from_utf8_lossy(&answer)));
        assert_eq!(response.status, 408);
    }
    assert_eq!(refused(&broker.stats()), STUCK as u64);
    drop(stuck);
    wait_for("the stuck ones to be gone", || {
        (broker.sum("connections") == 0).then_some(())
    });
}

#[test]
fn huge_heads_are_not_collected() {
    const CLIENTS: usize = 40;
    let broker = Broker::start(&[]);
    let before = broker.rss_bytes();
    let begun = upgrade_head(broker.listen(), &[]);
    let begun = &begun[..begun.len() - 2];
    let head = format!("{begun}X-Fill: {}\r\n\r\n", "f".repeat(MIB as usize));
    let many = format!("{begun}{}\r\n", "X-Fill: f\r\n".repeat(60));
    let mut most = 0;
    for _ in 0..CLIENTS {
        for head in [&head, &many] {
            let mut raw = Raw::connect(broker.listen());
            let mut writer = Raw::over(raw.stream().try_clone().unwrap());
            thread::scope(|scope| {
                scope.spawn(move || {
                    let _ = writer.try_send(head.as_bytes());
                });
                let answer = raw.rest();
                let answer = String::from_utf8_lossy(&answer);
                assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
            });
        }
        most = most.max(broker.rss_bytes());
    }
    let grown = most.saturating_sub(before);
    assert!(grown <= 16 * MIB, "{grown} bytes for heads of 1 MiB");
}

#[test]
fn declared_sizes_cost_nothing() {
    const CLIENTS: usize = 400;
    let broker = Broker::start(&[]);
    // Refused by the header alone.
    for size in [65_537, 1 << 20, 1 << 32, (1 << 63) - 1] {
        let mut raw = Raw::upgrade(&broker);
        raw.send(&header(FIN | TEXT, size));
        assert_eq!(raw.closed(), Some(1009), "{size}");
    }
    let mut raw = Raw::upgrade(&broker);
    raw.send(&header(FIN | TEXT, 1 << 63));
    assert_eq!(raw.closed(), Some(1002), "the highest bit must be 0");
    // Allowed, and never sent: one byte is there, and one byte is kept.
    let hold = |bytes: &[u8]| -> Vec<Raw> {
        (0..CLIENTS)
            .map(|_| {
                let mut raw = Raw::upgrade(&broker);
                raw.send(bytes);
                // Answered, so it has been read.
                let mut answered = Raw::upgrade(&broker);
                answered.text(r#"{"type":"ping"}"#);
                answered.next_text();
                raw
            })
            .collect()
    };
    let idle = hold(b"");
    let before = broker.rss_bytes();
    let mut declared = header(FIN | TEXT, 65_536);
    declared.push(b'x');
    let holders = hold(&declared);
    wait_for("all of them to be here", || {
        (broker.sum("connections") == 2 * CLIENTS as u64).then_some(())
    });
    let grown = broker.rss_bytes().saturating_sub(before);
    // 25 MiB were declared; the allocator takes a few at a time, whatever it is asked for.
    assert!(
        grown <= 8 * MIB,
        "{grown} bytes for {CLIENTS} declared sizes"
    );
    drop((idle, holders));
}

/// Out of descriptors: the listener rests, and nobody who is here notices.
#[test]
fn without_descriptors_old_clients_are_served_as_before() {
    // So many that the last one is behind others on whichever shard the kernel has put it.
    const WAITING: usize = 64;
    // With io_uring connections are no descriptors of the process, and its tables keep room to refuse.
    let broker = Broker::start(&["--io", "epoll"]);
    let mut groups = clients_by_shard(&broker, 2, 4);
    wait_for("those who were over to be gone", || {
        (broker.sum("connections") == 8).then_some(())
    });
    groups[1][0].subscribe("t");
    broker.limit_descriptors(broker.descriptors() + 4);
    // The kernel connects them, four are accepted at most, and all have sent their head.
    let mut waiting: Vec<Raw> = (0..WAITING)
        .map(|_| {
            let mut raw = Raw::connect(broker.listen());
            raw.send(upgrade_head(broker.listen(), &[]).as_bytes());
            raw
        })
        .collect();
    broker.log_line("can't accept");
    let used = broker.cpu_time();
    let [publishers, readers] = &mut groups[..] else {
        unreachable!("two shards")
    };
    for number in 0..100 {
        publishers[0].publish("t", json!(number));
        assert_eq!(readers[0].delivery()["message"], number);
    }
    let busy = broker.cpu_time() - used;
    // Nothing comes for this one; meanwhile nothing is to be done.
    let used = broker.cpu_time();
    let last = waiting.last_mut().unwrap();
    let quiet = Duration::from_secs(2);
    assert_eq!(last.fill_within(quiet), None, "there was room");
    let idle = broker.cpu_time() - used;
    assert!(
        idle < quiet / 5,
        "{idle:?} of CPU in {quiet:?} of nothing ({busy:?} for 100 deliveries)"
    );
    let mut broker = broker;
    let told = broker.log_text().matches("can't accept").count();
    assert!(told <= 4, "{told} lines for one shortage");
    // Some leave, and as many come in.
    for group in &mut groups {
        group.truncate(2);
    }
    let mut served = 0;
    for raw in &mut waiting {
        // Who comes first is the kernel's choice: shards accept for themselves.
        if raw.fill_within(Duration::from_millis(300)) == Some(true) {
            assert!(raw.head().starts_with("HTTP/1.1 101 "));
            served += 1;
        }
        if served >= 4 {
            break;
        }
    }
    assert!(served >= 4, "only {served} came in");
    for client in groups.iter_mut().flatten() {
        client.settle();
    }
    // With descriptors again, all others come in as well.
    drop(waiting);
    broker.limit_descriptors(1000);
    wait_for("a new client", || {
        let stream = TcpStream::connect(broker.listen()).ok()?;
        Client::try_over(stream, broker.listen(), "/").ok()
    })
    .settle();
    broker.stats_at_rest();
}

/// Promise 13: never more connections than descriptors, whatever was configured, and a clear word to the next one.
#[test]
fn descriptors_bound_the_connections() {
    const DESCRIPTORS: u64 = 84;
    const SHARDS: usize = 2;
    let broker = Broker::start_with_descriptors(DESCRIPTORS, &["--shards", "2"]);
    // With io_uring each shard has a table of its own, as long as the descriptors of a process.
    let tables = if broker.log_line("driver: ").contains("io_uring") {
        SHARDS
    } else {
        1
    };
    let allowed = tables * (DESCRIPTORS as usize - 64);
    let mut clients: Vec<Client> = (0..allowed).map(|_| Client::connect(&broker)).collect();
    for _ in 0..50 {
        let mut refused = Raw::connect(broker.listen());
        let _ = refused.try_send(upgrade_head(broker.listen(), &[]).as_bytes());
        let answer = refused.rest();
        let response = admin::parse(&answer)
            .unwrap_or_else(|| panic!("no response: {:?}", String::from_utf8_lossy(&answer)));
        assert_eq!(response.status, 503);
        assert!(response.header("Retry-After").is_some());
    }
    for client in &mut clients {
        client.settle();
    }
    assert_eq!(broker.stats()["refused"], 50);
}

/// Cut in the middle of a message, by a reset: no part of it is published, nothing of it is kept.
#[test]
fn resets_in_the_middle_of_a_message_publish_nothing() {
    const CLIENTS: usize = 200;
    let broker = Broker::start(&[]);
    let (mut one, mut two) = common::pair_on_two_shards(&broker);
    two.subscribe("*");
    let whole = frame(
        FIN | TEXT,
        format!(
            r#"{{"type":"publish","topic":"cut","message":"{}"}}"#,
            "m".repeat(30_000)
        )
        .as_bytes(),
    );
    let before = broker.rss_bytes();
    for number in 0..CLIENTS {
        let mut raw = Raw::upgrade(&broker);
        raw.send(&whole[..1 + number * (whole.len() - 2) / CLIENTS]);
        reset(raw.stream());
    }
    wait_for("everybody to be gone", || {
        (broker.sum("connections") == 2).then_some(())
    });
    let grown = broker.rss_bytes().saturating_sub(before);
    assert!(grown <= 8 * MIB, "{grown} bytes are kept");
    one.publish("whole", json!(1));
    assert_eq!(two.delivery()["topic"], "whole");
    two.expect_nothing();
    assert_eq!(broker.sum("publishes"), 1);
}

/// A reader that takes nothing at all: its connection is reset after the linger, and its memory is back.
#[test]
fn a_closed_connection_that_is_not_read_is_reset() {
    let broker = Broker::start(&[option::LINGER_MS, "300"]);
    let mut publisher = Client::connect(&broker);
    let stream = connect_narrow(broker.listen());
    let mut deaf = Client::over(stream, broker.listen(), "/");
    deaf.subscribe("t");
    let body = json!("x".repeat(60_000));
    wait_for("the deaf one to be too slow", || {
        publisher.publish("t", body.clone());
        (broker.sum("closed_slow") == 1).then_some(())
    });
    wait_for("its connection to go", || {
        (broker.sum("connections") == 1).then_some(())
    });
    let (_, end) = deaf.read_to_end();
    assert!(matches!(end, End::Code(4008) | End::Lost), "{end:?}");
    assert_eq!(broker.sum("outbox_bytes"), 0);
    broker.stats_at_rest();
}
