//! The bounds, each at its edge: the last that is allowed, the first that is not, and what it costs to try.

mod common;

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use common::malformed::MALFORMED;
use common::raw::{FIN, PING, PONG, TEXT, frame, upgrade_head};
use common::{Broker, Client, End, Raw, admin, clients_by_shard, option, wait_for};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

#[test]
fn subscriptions_end_at_the_limit() {
    let broker = Broker::start(&[option::MAX_SUBSCRIPTIONS, "3"]);
    let mut client = Client::connect(&broker);
    for topic in ["a", "b", "c"] {
        client.subscribe(topic);
    }
    let refused = |client: &mut Client| {
        assert_eq!(
            client.refused(json!({"type": "subscribe", "topic": "d"})),
            "limit"
        );
    };
    refused(&mut client);
    // What is there already is not one more.
    client.subscribe("a");
    refused(&mut client);
    client.unsubscribe("b");
    client.subscribe("d");
    client.publish("d", json!(1));
    assert_eq!(client.take_kept().len(), 1);
    // Another connection has its own.
    let mut other = Client::connect(&broker);
    for topic in ["a", "b", "d"] {
        other.subscribe(topic);
    }
    assert_eq!(broker.sum("subscriptions"), 6);
    drop(client);
    drop(other);
    wait_for("subscriptions to go with their connections", || {
        (broker.sum("subscriptions") == 0).then_some(())
    });
}

#[test]
fn a_thousand_subscriptions_are_the_default() {
    let broker = Broker::start(&[]);
    let mut client = Client::connect(&broker);
    // In rounds, so that the acks do not wait unread.
    for round in 0..10 {
        for number in 0..100 {
            client.send(format!(
                r#"{{"type":"subscribe","topic":"t.{}"}}"#,
                round * 100 + number
            ));
        }
        for _ in 0..100 {
            assert_eq!(client.next_json()["type"], "ack");
        }
    }
    assert_eq!(
        client.refused(json!({"type": "subscribe", "topic": "one.more"})),
        "limit"
    );
    client.publish("t.999", json!(1));
    assert_eq!(client.take_kept().len(), 1);
}

/// Publishing faster than allowed costs the publisher time and nobody a message.
#[test]
fn who_is_too_fast_is_slowed_down_and_loses_nothing() {
    const COUNT: u64 = 60;
    let broker = Broker::start(&[
        option::MAX_PUBLISH_RATE,
        "100",
        option::MAX_PUBLISH_BURST,
        "10",
        option::MAX_SUBSCRIBE_RATE,
        "1",
    ]);
    let mut reader = Client::connect(&broker);
    reader.subscribe("a");
    let (mut fast, mut calm) = (Client::connect(&broker), Client::connect(&broker));
    let started = Instant::now();
    for number in 0..COUNT {
        fast.send_json(&json!({"type": "publish", "topic": "a", "message": number, "id": number}));
    }
    calm.publish("b", json!(0));
    for number in 0..COUNT {
        assert_eq!(fast.answer()["id"], number);
        assert_eq!(reader.delivery()["message"], number);
    }
    // Fifty of them had to wait for theirs, less what clocks of milliseconds give away; longer is the machine's doing.
    assert!(started.elapsed() >= Duration::from_millis(480));
    let started = Instant::now();
    for topic in ["a", "b"] {
        calm.subscribe(topic);
    }
    assert!(started.elapsed() >= Duration::from_millis(900));
    let stats = broker.stats();
    assert!(stats["throttled"].as_u64() >= Some(2), "{stats}");
    assert_eq!(stats["stalls"], 0);
}

#[test]
fn handlers_and_pending_requests_end_at_their_limits() {
    let broker = Broker::start_with_config(
        "client_services = true\n",
        &[option::MAX_HANDLERS, "2", option::MAX_REQUESTS, "3"],
    );
    let (mut asker, mut handler) = common::pair_on_two_shards(&broker);
    handler.handle("one");
    handler.handle("two");
    assert_eq!(
        handler.refused(json!({"type": "handle", "event": "three"})),
        "limit"
    );
    handler.handle("two");
    for id in 0..4 {
        asker.send_json(&json!({"type": "request", "event": "one", "id": id, "data": id}));
    }
    let reply = asker.next_json();
    assert_eq!(
        (&reply["id"], &reply["error"]["code"]),
        (&json!(3), &json!("busy")),
        "{reply}"
    );
    for _ in 0..3 {
        let asked = handler.next_json();
        handler.send_json(&json!({"type": "reply", "id": asked["id"], "data": null}));
        assert_eq!(asker.next_json()["type"], "reply");
    }
    asker.send_json(&json!({"type": "request", "event": "one", "id": 9, "data": 9}));
    assert_eq!(handler.next_json()["data"], 9);
}

/// A publish of exactly this many bytes.
fn publish_of(size: usize) -> String {
    let empty = r#"{"type":"publish","topic":"t","timestamp":"x","message":""}"#;
    empty.replace(
        r#"message":""#,
        &format!(r#"message":"{}"#, "m".repeat(size - empty.len())),
    )
}

#[test]
fn a_message_is_64_kib_by_default_and_an_option() {
    for (broker, max) in [
        (Broker::start(&[]), 65_536),
        (Broker::start(&[option::MAX_MESSAGE, "1000"]), 1_000),
        (Broker::start(&[option::MAX_MESSAGE, "300000"]), 300_000),
    ] {
        let mut client = Client::connect(&broker);
        client.subscribe("t");
        let text = publish_of(max);
        assert_eq!(text.len(), max);
        client.send(text);
        let delivery = client.delivery_text();
        assert!(delivery.len() > max && delivery.contains(&"m".repeat(max - 100)));
        assert_eq!(client.answer()["type"], "ack");
        client.send(publish_of(max + 1));
        client.expect_close(1009);
    }
}

#[test]
fn topics_have_a_form() {
    let broker = Broker::start(&[]);
    let mut client = Client::connect(&broker);
    let longest = "x".repeat(255);
    let deepest = vec!["x"; 32].join(".");
    let wide = "é".repeat(127);
    for topic in [
        "a",
        "a.b",
        "A-1_/:@ #+?",
        "é.\u{1F600}",
        "0",
        "a*",
        "**",
        "a.=b",
        "a.$b",
        "x$",
        &longest,
        &deepest,
        &wide,
    ] {
        client.subscribe(topic);
        client.publish(topic, json!(topic));
        let kept = client.take_kept();
        assert_eq!(kept.len(), 1, "{topic}");
        assert_eq!(
            (&kept[0]["topic"], &kept[0]["context"]),
            (&json!(topic), &json!(topic))
        );
        client.unsubscribe(topic);
    }
    let too_long = "x".repeat(256);
    let too_deep = vec!["x"; 33].join(".");
    let too_long_in_bytes = "é".repeat(128);
    for topic in [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a\u{0}b",
        "a\nb",
        "\u{7f}",
        "\u{85}",
        "\u{1b}[0m",
        &too_long,
        &too_deep,
        &too_long_in_bytes,
    ] {
        for kind in ["subscribe", "publish"] {
            let mut client = Client::connect(&broker);
            let command = json!({"type": kind, "topic": topic, "message": 1});
            assert_eq!(client.refused(command), "bad_topic", "{kind} {topic:?}");
        }
    }
    // Filters are no topics.
    for filter in ["*", "a.*", "*.a", "=a", "=*", "$a", "=$a"] {
        let mut client = Client::connect(&broker);
        let command = json!({"type": "publish", "topic": filter, "message": 1});
        assert_eq!(client.refused(command), "bad_topic", "{filter}");
    }
    for filter in ["*", "a.*", "*.*.*", "=a", "=*", "=a.*.b"] {
        client.subscribe(filter);
    }
    for filter in ["=", "=.", "=a..b", "a.*.", &format!("={too_long}")] {
        let mut client = Client::connect(&broker);
        assert_eq!(
            client.refused(json!({"type": "subscribe", "topic": filter})),
            "bad_topic",
            "{filter}"
        );
    }
    // The equals sign is not counted.
    client.subscribe(&format!("={longest}"));
}

#[test]
fn json_is_64_deep() {
    let broker = Broker::start(&[]);
    let mut client = Client::connect(&broker);
    client.subscribe("t");
    // The command itself is one level.
    let nested = |open: &str, close: &str, depth: usize| {
        let message = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        format!(r#"{{"type":"publish","topic":"t","message":{message}}}"#)
    };
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        client.send(nested(open, close, 63));
        assert_eq!(client.answer()["type"], "ack");
        let delivery = client.delivery_text();
        assert!(delivery.contains(&open.repeat(63)), "{delivery}");
        client.send(nested(open, close, 64));
        let answer = client.answer();
        assert_eq!(
            (&answer["type"], &answer["code"]),
            (&json!("error"), &json!("bad_json"))
        );
        // No recursion on the depth of the input: the largest message is no stack overflow.
        client.send(open.repeat(60_000 / open.len()));
        assert_eq!(client.answer()["code"], "bad_json");
    }
    client.expect_nothing();
}

#[test]
fn malformed_json_is_never_acked() {
    let broker = Broker::start(&[]);
    let (mut one, mut two) = common::pair_on_two_shards(&broker);
    two.subscribe("*");
    for form in MALFORMED {
        // As the message of a publish, and as all there is.
        let publish = format!(r#"{{"type":"publish","topic":"t","message":{form}}}"#);
        let mut client = Client::connect(&broker);
        for text in [publish.as_str(), form] {
            client.send(text);
            let answer = client.next_json();
            assert_eq!(answer["type"], "error", "{text:?}: {answer}");
            assert_eq!(answer["code"], "bad_json", "{text:?}: {answer}");
        }
    }
    one.publish("t", json!("good"));
    assert_eq!(two.delivery()["message"], "good");
    two.expect_nothing();
    assert_eq!(broker.sum("publishes"), 1);
}

/// Sends all it can; true when everything is sent, false when nothing was taken for a second.
fn send_until_stalled(stream: &mut TcpStream, bytes: &[u8], sent: &mut usize) -> bool {
    stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    while *sent < bytes.len() {
        match stream.write(&bytes[*sent..]) {
            Ok(count) => *sent += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return false;
            }
            Err(error) => panic!("the connection ended while its answers were unread: {error}"),
        }
    }
    true
}

#[test]
fn answers_that_nobody_reads_stop_the_reading() {
    // 24 MB of questions and as much of answers: the buffers of the kernel hold a fraction of either.
    const COUNT: usize = 100_000;
    let fill = "f".repeat(200);
    let broker = Broker::start(&[]);
    let mut bystander = Client::connect(&broker);
    let mut raw = Raw::upgrade_narrow(&broker);
    let before = broker.rss_bytes();
    let bytes: Vec<u8> = (0..COUNT)
        .flat_map(|n| {
            frame(
                FIN | TEXT,
                format!(r#"{{"type":"ping","id":"{n} {fill}"}}"#).as_bytes(),
            )
        })
        .collect();
    let mut writer = raw.stream().try_clone().expect("a second handle");
    let mut sent = 0;
    assert!(
        !send_until_stalled(&mut writer, &bytes, &mut sent),
        "all {COUNT} pings were taken though nobody read an answer"
    );
    let grown = broker.rss_bytes().saturating_sub(before);
    assert!(
        grown < 24 * MIB,
        "{grown} bytes for answers that nobody reads"
    );
    let waiting = broker.sum("outbox_bytes");
    assert!(waiting <= MIB, "{waiting} bytes wait");
    // Others go on.
    bystander.settle();
    // Now they are read, and every answer is there in its place.
    let writing = thread::spawn(move || {
        writer.set_write_timeout(Some(common::DEADLINE)).unwrap();
        writer
            .write_all(&bytes[sent..])
            .expect("reading goes on once answers are read");
    });
    for n in 0..COUNT {
        let frame = raw.frame().expect("an answer");
        assert_eq!(
            frame.text(),
            format!(r#"{{"type":"pong","id":"{n} {fill}"}}"#)
        );
    }
    writing.join().expect("the writer");
}

#[test]
fn readers_that_do_not_read_cost_little() {
    const READERS: usize = 8;
    const SIZE: usize = 60_000;
    let broker = Broker::start(&[]);
    let mut publisher = Client::connect(&broker);
    let mut slow: Vec<Client> = (0..READERS)
        .map(|_| Client::connect_narrow(&broker))
        .collect();
    for reader in &mut slow {
        reader.subscribe("flood");
    }
    let before = broker.rss_bytes();
    let mut most = 0;
    let body = "x".repeat(SIZE);
    let mut published = 0;
    // Some 100 MB offered to each at most; all are closed long before.
    while broker.sum("closed_slow") < READERS as u64 {
        assert!(
            published < 1_600,
            "{published} messages, {} closed",
            broker.sum("closed_slow")
        );
        for _ in 0..10 {
            publisher.publish("flood", json!(body));
            published += 1;
        }
        most = most.max(broker.rss_bytes());
    }
    let grown = most.saturating_sub(before);
    assert!(
        grown < 48 * MIB,
        "{grown} bytes for {READERS} readers that do not read"
    );
    for reader in &mut slow {
        let (_, end) = reader.read_to_end();
        assert!(matches!(end, End::Code(4008) | End::Lost), "{end:?}");
    }
    broker.stats_at_rest();
}

#[test]
fn past_the_connection_limit_there_is_503() {
    let broker = Broker::start(&[option::MAX_CONNECTIONS, "4"]);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(&broker)).collect();
    for _ in 0..3 {
        let mut refused = Raw::connect(broker.listen());
        // Refused before or after the head was read: a client that sent it must see the answer all the same.
        let _ = refused.try_send(upgrade_head(broker.listen(), &[]).as_bytes());
        let answer = refused.rest();
        let response = admin::parse(&answer)
            .unwrap_or_else(|| panic!("no response: {:?}", String::from_utf8_lossy(&answer)));
        assert_eq!(response.status, 503, "{response:?}");
        let after = response.header("Retry-After").expect("Retry-After");
        assert!(after.parse::<u32>().is_ok(), "{after}");
    }
    for client in &mut clients {
        client.settle();
    }
    clients.pop();
    wait_for("a place", || {
        let stream = TcpStream::connect(broker.listen()).ok()?;
        Client::try_over(stream, broker.listen(), "/").ok()
    })
    .settle();
    let refused: u64 = broker.stats()["shards"]
        .as_array()
        .expect("shards")
        .iter()
        .map(|shard| shard["refused"].as_u64().expect("refused"))
        .sum();
    assert!(refused >= 3, "{refused}");
}

#[test]
fn the_silent_are_gone_and_those_who_answer_stay() {
    let broker = Broker::start(&[
        option::PING_INTERVAL_MS,
        "100",
        option::PING_TIMEOUT_MS,
        "1500",
    ]);
    let mut silent = Raw::upgrade(&broker);
    let begun = Instant::now();
    // Meets 30 pings, each answered in its own manner: any byte is a sign of life, not the pong alone.
    let answering = |answer: fn(&[u8]) -> Vec<u8>| {
        let mut raw = Raw::upgrade(&broker);
        thread::spawn(move || {
            let mut pings = 0;
            while pings < 30 {
                let got = raw.frame().expect("the answering client stays");
                if got.first == FIN | PING {
                    raw.send(&answer(&got.payload));
                    pings += 1;
                } else {
                    assert_eq!(got.text(), r#"{"type":"pong"}"#);
                }
            }
            raw
        })
    };
    let kept = [
        answering(|payload| frame(FIN | PONG, payload)),
        answering(|_| frame(FIN | TEXT, br#"{"type":"ping"}"#)),
    ];
    let mut got = silent.frame().expect("a ping");
    assert_eq!(got.first, FIN | PING);
    while got.first == FIN | PING {
        got = silent.frame().expect("a close frame before the end");
    }
    assert_eq!(got.close_code(), Some(4009));
    assert!(silent.rest().is_empty());
    assert!(
        begun.elapsed() >= Duration::from_millis(1500),
        "too early: {:?}",
        begun.elapsed()
    );
    let mut kept = kept.map(|answering| answering.join().expect("an answering client"));
    for raw in &mut kept {
        raw.text(r#"{"type":"whoami"}"#);
        // Answers to its pings may come first.
        while !raw.next_text().contains("session") {}
    }
    wait_for("the silent one to be uncounted", || {
        (broker.sum("connections") == 2).then_some(())
    });
}

#[test]
fn a_message_has_a_deadline_that_pings_do_not_move() {
    let broker = Broker::start(&[option::MESSAGE_TIMEOUT_MS, "400"]);
    let mut bystander = Client::connect(&broker);
    let mut raw = Raw::upgrade(&broker);
    raw.send(&frame(TEXT, br#"{"type":"#));
    let begun = Instant::now();
    let mut pings = 0;
    let code = loop {
        // A ping and its pong are a round trip; the message never ends.
        let _ = raw.try_send(&frame(FIN | PING, b""));
        let frame = raw.frame().expect("a pong or a close frame");
        if frame.first != FIN | PONG {
            break frame.close_code();
        }
        pings += 1;
        assert!(
            begun.elapsed() < common::DEADLINE,
            "a message without an end is kept for ever"
        );
    };
    assert_eq!(code, Some(1008));
    assert!(pings > 0 && begun.elapsed() >= Duration::from_millis(390));
    // The same for a frame that stops in the middle.
    let mut raw = Raw::upgrade(&broker);
    let whole = frame(FIN | TEXT, br#"{"type":"ping"}"#);
    raw.send(&whole[..whole.len() - 1]);
    assert_eq!(raw.closed(), Some(1008));
    bystander.settle();
}

/// Whoever floods takes turns with the others.
#[test]
fn a_flood_delays_nobody_for_long() {
    let broker = Broker::start(&[]);
    let mut groups = clients_by_shard(&broker, 2, 2);
    let mut flooders = [groups[0].remove(0), groups[1].remove(0)];
    let mut quiet = [groups[0].remove(0), groups[1].remove(0)];
    quiet[1].subscribe("quiet");
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        for flooder in &mut flooders {
            scope.spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    for _ in 0..200 {
                        flooder.send(
                            r#"{"type":"publish","topic":"flood","message":"xxxxxxxxxxxxxxxx"}"#,
                        );
                    }
                    for _ in 0..200 {
                        assert_eq!(flooder.next_json()["type"], "ack");
                    }
                }
            });
        }
        let publishing: Vec<Value> = (0..100)
            .map(|number| {
                quiet[0].publish("quiet", json!(number));
                quiet[1].delivery()["message"].clone()
            })
            .collect();
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(
            publishing,
            (0..100).map(|number| json!(number)).collect::<Vec<_>>()
        );
    });
}
