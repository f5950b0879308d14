//! The bounds of RESP, each at its edge, and its ends: sizes, passwords, slow readers, full houses, drains, faults.

mod common;

use std::io::{ErrorKind, Write};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::broker::{run, sum_in};
use common::redis::{command, command_of};
use common::{Broker, Client, Redis, admin, option, wait_for};
use serde_json::json;

const MIB: u64 = 1 << 20;
const NOAUTH: &str = "-NOAUTH Authentication required.";
const WRONGPASS: &str = "-WRONGPASS invalid username-password pair or user is disabled.";

fn start(arguments: &[&str]) -> Broker {
    Broker::start(&[&["--resp", "127.0.0.1:0"], arguments].concat())
}

fn with_password(arguments: &[&str]) -> Broker {
    start(&[&["--resp-password", "s3cret"], arguments].concat())
}

#[test]
fn a_bulk_is_1_mib_by_default_and_an_option() {
    for (broker, max) in [
        (start(&[]), 1 << 20),
        (start(&["--server-max-message", "100000"]), 100_000),
    ] {
        let mut reader = Redis::connect(&broker);
        reader.subscribe(b"t");
        let mut native = Client::connect(&broker);
        native.subscribe("t");
        let mut publisher = Redis::connect(&broker);
        let largest = vec![b'm'; max];
        let publish = command(&[b"PUBLISH", b"t", &largest]);
        let sending = publisher.send_beside(publish);
        assert_eq!(publisher.reply().integer(), 2);
        assert!(sending.join().unwrap());
        let delivery = reader.delivery();
        assert!(delivery.elements()[2].bytes() == largest);
        let delivery = native.delivery();
        assert_eq!(delivery["message"].as_str().map(str::len), Some(max));
        // One more is refused by the header that says so.
        let header = format!("*3\r\n$7\r\nPUBLISH\r\n$1\r\nt\r\n${}\r\n", max + 1);
        publisher.send(header.as_bytes());
        publisher.expect_end("-ERR Protocol error: invalid bulk length\r\n");
        reader.expect_nothing();
        assert_eq!(broker.stats()["closed"]["message too big"], 1);
    }
}

#[test]
fn declared_sizes_cost_nothing() {
    const CLIENTS: usize = 300;
    let broker = start(&[]);
    let mut witness = Redis::connect(&broker);
    let mut hold = |bytes: &[u8]| -> Vec<Redis> {
        let clients = (0..CLIENTS).map(|_| {
            let mut client = Redis::connect(&broker);
            client.send(bytes);
            client
        });
        let clients = clients.collect();
        assert_eq!(witness.ask("PING"), "+PONG");
        clients
    };
    let idle = hold(b"PING\r\n");
    let before = broker.rss_bytes();
    let received = broker.sum("received_bytes");
    // One byte of 1 MiB is there; of a million arguments the first two.
    let large = b"*2\r\n$4\r\nECHO\r\n$1048576\r\nx";
    let many = b"*1048576\r\n$4\r\nPING\r\n$1\r\nx\r\n";
    let holders = (hold(large), hold(many));
    wait_for("all of it to be read", || {
        let came = broker.sum("received_bytes") - received;
        (came as usize >= CLIENTS * (large.len() + many.len())).then_some(())
    });
    let grown = broker.rss_bytes().saturating_sub(before);
    // 300 MiB were declared; the allocator takes a few at a time, whatever it is asked for.
    assert!(
        grown <= 8 * MIB,
        "{grown} bytes for {CLIENTS} declared sizes"
    );
    drop((idle, holders));
    assert_eq!(witness.ask("PING"), "+PONG");
}

#[test]
fn a_command_has_a_deadline_as_well() {
    let broker = start(&[option::MESSAGE_TIMEOUT_MS, "300"]);
    let mut slow = Redis::connect(&broker);
    slow.send(b"*2\r\n$4\r\nECHO\r\n$3\r\nab");
    slow.expect_end("-ERR too late\r\n");
    // What is complete has none.
    let mut other = Redis::connect(&broker);
    assert_eq!(other.ask("PING"), "+PONG");
}

/// Sends all it can; true when everything is sent, false when nothing was taken for a second.
fn send_until_stalled(client: &Redis, bytes: &[u8], sent: &mut usize) -> bool {
    let socket = client.socket();
    socket
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    while *sent < bytes.len() {
        match (&mut &*socket).write(&bytes[*sent..]) {
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
fn replies_that_nobody_reads_stop_the_reading() {
    const COUNT: usize = 100_000;
    let fill = "f".repeat(200);
    let broker = start(&[]);
    let mut bystander = Redis::connect(&broker);
    let mut client = Redis::connect_narrow(&broker);
    let before = broker.rss_bytes();
    let echo = |number| command(&[b"ECHO", format!("{number} {fill}").as_bytes()]);
    let bytes: Vec<u8> = (0..COUNT).flat_map(echo).collect();
    let mut sent = 0;
    assert!(
        !send_until_stalled(&client, &bytes, &mut sent),
        "all {COUNT} commands were taken though nobody read a reply"
    );
    let grown = broker.rss_bytes().saturating_sub(before);
    assert!(
        grown < 24 * MIB,
        "{grown} bytes for replies that nobody reads"
    );
    let waiting = broker.sum("outbox_bytes");
    assert!(waiting <= MIB, "{waiting} bytes wait");
    assert_eq!(bystander.ask("PING"), "+PONG");
    // Now they are read, and every one is there in its place.
    client
        .socket()
        .set_write_timeout(Some(common::DEADLINE))
        .unwrap();
    let sending = client.send_beside(bytes[sent..].to_vec());
    for number in 0..COUNT {
        assert_eq!(client.reply().text(), format!("{number} {fill}"));
    }
    assert!(sending.join().unwrap());
}

#[test]
fn a_password_comes_first() {
    let broker = with_password(&[]);
    let mut client = Redis::connect(&broker);
    for (line, expected) in [
        ("PING", NOAUTH),
        ("SUBSCRIBE a", NOAUTH),
        ("PUBLISH a x", NOAUTH),
        ("CLIENT LIST", NOAUTH),
        ("HELLO 4", "-NOPROTO unsupported protocol version"),
        ("AUTH wrong", WRONGPASS),
        ("AUTH s3cre", WRONGPASS),
        ("AUTH s3crett", WRONGPASS),
        ("AUTH other s3cret", WRONGPASS),
        ("HELLO 3 AUTH default wrong", WRONGPASS),
        ("PING", NOAUTH),
        ("AUTH s3cret", "+OK"),
        ("PING", "+PONG"),
        ("SUBSCRIBE a", "*3 subscribe a :1"),
        ("RESET", "+RESET"),
        ("PING", NOAUTH),
        ("AUTH default s3cret", "+OK"),
        ("PING", "+PONG"),
    ] {
        assert_eq!(client.ask(line), expected, "{line}");
    }
    let mut client = Redis::connect(&broker);
    let refused = client.ask("HELLO 3");
    assert!(
        refused.starts_with("-NOAUTH HELLO must be called"),
        "{refused}"
    );
    let hello = client.ask("HELLO 3 AUTH default s3cret SETNAME me");
    assert!(hello.starts_with("%7 server redis "), "{hello}");
    assert_eq!(client.ask("CLIENT GETNAME"), "me");
    // Everything at once, as clients say it.
    let mut client = Redis::connect(&broker);
    client.send(
        &["AUTH s3cret", "PUBLISH a x", "QUIT"]
            .map(command_of)
            .concat(),
    );
    client.expect_end("+OK\r\n:0\r\n+OK\r\n");
    // It is in no log and no list of options.
    let mut broker = broker;
    assert!(!broker.log_text().contains("s3cret"));
}

#[test]
fn before_it_little_is_taken() {
    let broker = with_password(&[]);
    let check = |bytes: &[u8], words: &str| {
        let mut client = Redis::connect(&broker);
        client.send(bytes);
        client.expect_end(words);
    };
    check(
        b"*11\r\n",
        "-ERR Protocol error: unauthenticated multibulk length\r\n",
    );
    check(
        b"*2\r\n$4\r\nAUTH\r\n$16385\r\n",
        "-ERR Protocol error: unauthenticated bulk length\r\n",
    );
    check(
        b"*2\r\n$4\r\nAUTH\r\n$9223372036854775807\r\n",
        "-ERR Protocol error: unauthenticated bulk length\r\n",
    );
    // The largest of each are read, and refused for what they are.
    let mut client = Redis::connect(&broker);
    client.send(&command(&[&b"x"[..]; 10]));
    let refused = client.reply().to_string();
    assert!(refused.starts_with("-ERR unknown command 'x'"), "{refused}");
    client.send(&command(&[b"AUTH", &[b'x'; 16_384]]));
    assert_eq!(client.reply().to_string(), WRONGPASS);
    // Afterwards there is room.
    assert_eq!(client.ask("AUTH s3cret"), "+OK");
    let long = vec![b'x'; 100_000];
    client.send(&command(&[b"ECHO", &long]));
    assert!(client.reply().bytes() == long);
}

#[test]
fn it_must_come_in_time() {
    let broker = with_password(&[option::CONNECT_TIMEOUT_MS, "400"]);
    let begun = Instant::now();
    let mut member = Redis::connect(&broker);
    assert_eq!(member.ask("AUTH s3cret"), "+OK");
    let mut silent = Redis::connect(&broker);
    silent.expect_end(&format!("{NOAUTH}\r\n"));
    assert!(begun.elapsed() >= Duration::from_millis(390));
    // To talk is no excuse, nor is to take back what was said.
    for line in ["PING", "SUBSCRIBE a", "RESET"] {
        let begun = Instant::now();
        let mut client = Redis::connect(&broker);
        let mut replies = 0;
        while client.try_send(&command_of(line)).is_ok() && client.try_value().is_some() {
            replies += 1;
            assert!(begun.elapsed() < common::DEADLINE, "{line} for ever");
        }
        assert!(replies > 1, "{line}");
        assert!(begun.elapsed() >= Duration::from_millis(390), "{line}");
    }
    // Whoever said it stays, and may say it anew.
    assert_eq!(member.ask("PING"), "+PONG");
    assert_eq!(member.ask("RESET"), "+RESET");
    assert_eq!(member.ask("PING"), NOAUTH);
    assert_eq!(member.ask("AUTH s3cret"), "+OK");
    // And has no more time for it than others.
    assert_eq!(member.ask("RESET"), "+RESET");
    member.expect_end(&format!("{NOAUTH}\r\n"));
}

/// Commands without end from somebody who reads no answer: little is kept for him, and not for long.
#[test]
fn who_reads_nothing_before_it_is_gone_in_time() {
    let broker = with_password(&[option::CONNECT_TIMEOUT_MS, "600", option::LINGER_MS, "200"]);
    let mut flooder = Redis::connect_narrow(&broker);
    let flood = command_of("PING").repeat(1_000);
    let flooding = thread::spawn(move || while flooder.try_send(&flood).is_ok() {});
    wait_for("replies to wait", || {
        (broker.sum("outbox_bytes") > 0).then_some(())
    });
    let mut most = 0;
    wait_for("the flooder to be gone", || {
        let stats = broker.stats();
        most = most.max(sum_in(&stats, "outbox_bytes"));
        (sum_in(&stats, "connections") == 0).then_some(())
    });
    flooding.join().unwrap();
    assert!(most <= 4 << 10, "{most} bytes of replies waited");
}

#[test]
fn beyond_loopback_there_must_be_a_password() {
    let arguments = ["--listen", "127.0.0.1:0", "--admin", "off", "--resp"];
    for resp in ["0.0.0.0:0", "[::]:0", ":0"] {
        let finished = run(&[&arguments[..], &[resp]].concat());
        assert_eq!(finished.code, Some(2), "{resp}: {finished:?}");
        for word in ["protected mode", "--resp-password-file", "--insecure-open"] {
            assert!(finished.stderr.contains(word), "{word}: {finished:?}");
        }
    }
    for said in [&["--resp-password", "s3cret"][..], &["--insecure-open"]] {
        let broker = Broker::start(&[&["--resp", "0.0.0.0:0"], said].concat());
        let port = broker.resp().rsplit(':').next().expect("a port");
        let mut client = Redis::connect_to(&format!("127.0.0.1:{port}"));
        if said.len() == 2 {
            assert_eq!(client.ask("PING"), NOAUTH);
            assert_eq!(client.ask("AUTH s3cret"), "+OK");
        }
        assert_eq!(client.ask("PING"), "+PONG");
    }
}

#[test]
fn past_the_connection_limit_there_is_an_error() {
    let broker = start(&[option::MAX_CONNECTIONS, "4"]);
    let mut native = [Client::connect(&broker), Client::connect(&broker)];
    let mut clients = vec![Redis::connect(&broker), Redis::connect(&broker)];
    for client in &mut clients {
        assert_eq!(client.ask("PING"), "+PONG");
    }
    for bytes in [
        &b""[..],
        b"PING\r\n",
        &command_of("SUBSCRIBE a").repeat(100),
    ] {
        let mut refused = Redis::connect(&broker);
        let _ = refused.try_send(bytes);
        refused.expect_end("-ERR max number of clients reached\r\n");
    }
    assert_eq!(broker.stats()["refused"], 3);
    for client in &mut native {
        client.settle();
    }
    clients.pop();
    wait_for("a place", || {
        let mut client = Redis::connect(&broker);
        client.try_send(b"PING\r\n").ok()?;
        (client.try_value()?.to_string() == "+PONG").then_some(())
    });
    assert_eq!(clients[0].ask("PING"), "+PONG");
}

/// What the kernel can hold for one connection (tcp_wmem, tcp_rmem) is well below this.
const FLOOD_BYTES: usize = 64 << 20;

#[test]
fn a_slow_subscriber_is_closed_and_others_get_everything() {
    const SIZE: usize = 48 << 10;
    // Its topic's policy would skip: a client that can't be told what it missed is closed all the same.
    for policy in ["close", "drop-oldest"] {
        let slow = format!("flood={policy}");
        let broker = start(&[
            option::SERVER_MAX_OUTBOX,
            "1MiB",
            option::LINGER_MS,
            "500",
            option::SLOW,
            &slow,
        ]);
        let mut publisher = Redis::connect(&broker);
        let mut readers: Vec<Redis> = (0..6)
            .map(|number| Redis::connect_speaking(&broker, 2 + number % 2))
            .collect();
        let mut native = Client::connect(&broker);
        native.subscribe("flood");
        let mut slow = Redis::connect_narrow(&broker);
        slow.subscribe(b"flood");
        for reader in &mut readers {
            reader.subscribe(b"flood");
        }
        let fill = "x".repeat(SIZE);
        let mut published = 0;
        while broker.sum("closed_slow") == 0 {
            assert!(
                published < FLOOD_BYTES / SIZE,
                "{published} messages and nobody is too slow"
            );
            let message = format!("{published} {fill}");
            publisher.publish(b"flood", message.as_bytes());
            // In step with the readers: they are not slow, however this machine schedules.
            for reader in &mut readers {
                let delivery = reader.delivery();
                assert!(delivery.elements()[2].text() == message, "{published}");
            }
            assert!(native.delivery()["message"] == message.as_str());
            published += 1;
        }
        assert_eq!(
            publisher.publish(b"flood", b"end"),
            readers.len() as i64 + 1
        );
        for reader in &mut readers {
            assert_eq!(reader.delivery().elements()[2].text(), "end");
            reader.expect_nothing();
        }
        assert_eq!(native.delivery()["message"], json!("end"));
        let mut read = 0;
        while let Some(delivery) = slow.try_value() {
            let text = delivery.elements()[2].text();
            assert!(text.starts_with(&format!("{read} ")), "whole and in order");
            read += 1;
        }
        assert!(read < published, "{policy}");
        let stats = broker.stats_at_rest();
        let sum = |name| sum_in(&stats, name);
        assert_eq!((sum("closed_slow"), sum("dropped")), (1, 0), "{policy}");
        assert!(sum("announced") > 0, "{stats}");
        let read_by_all = ((readers.len() + 1) * (published + 1) + read) as u64;
        assert!(sum("delivered") >= read_by_all, "{stats}");
    }
}

/// SIGTERM in the middle of a stream: whatever was taken is answered, whatever was answered is read.
#[test]
fn a_drain_answers_what_it_took() {
    let mut broker = start(&[]);
    let mut readers: Vec<Redis> = (0..6).map(|_| Redis::connect(&broker)).collect();
    for reader in &mut readers {
        reader.subscribe(b"drain");
    }
    let count = readers.len() as i64;
    let (flowing, flows) = mpsc::channel();
    let publishing: Vec<_> = (0..4)
        .map(|index| {
            let mut publisher = Redis::connect(&broker);
            let flowing = flowing.clone();
            thread::spawn(move || {
                let (mut sent, mut answered) = (0_u64, 0_u64);
                loop {
                    // Always ten on the way, so that SIGTERM meets some in every state.
                    while sent < answered + 10 {
                        let message = format!("{index} {sent}");
                        // A send that fails: the end is read below.
                        let _ = publisher.try_send(&command(&[
                            b"PUBLISH",
                            b"drain",
                            message.as_bytes(),
                        ]));
                        sent += 1;
                    }
                    let Some(reply) = publisher.try_value() else {
                        break;
                    };
                    assert_eq!(reply.integer(), count, "nobody has left");
                    answered += 1;
                    if answered == 200 {
                        flowing.send(()).expect("the test waits");
                    }
                }
                assert_eq!(publisher.read_to_end(), (String::new(), true));
                answered
            })
        })
        .collect();
    let reading: Vec<_> = readers
        .into_iter()
        .map(|mut reader| {
            thread::spawn(move || {
                let mut next = [0; 4];
                while let Some(delivery) = reader.try_value() {
                    let text = delivery.elements()[2].text();
                    let (publisher, number) = text.split_once(' ').expect("two numbers");
                    let next = &mut next[publisher.parse::<usize>().expect("a publisher")];
                    assert_eq!(number, next.to_string(), "{text}");
                    *next += 1;
                }
                assert_eq!(reader.read_to_end(), (String::new(), true));
                next
            })
        })
        .collect();
    for _ in &publishing {
        flows
            .recv_timeout(common::DEADLINE)
            .expect("every publisher comes to 200 answers");
    }
    broker.terminate();
    let answered: Vec<u64> = publishing
        .into_iter()
        .map(|publisher| publisher.join().expect("a publisher"))
        .collect();
    for reader in reading {
        let read = reader.join().expect("a reader");
        assert_eq!(&read[..], answered, "read, and answered");
    }
    assert_eq!(broker.wait_exit().code(), Some(0));
}

/// Subscribers on both shards, one of which will meet the fault.
fn only_one_connection_ends(place: &str) {
    const CLIENTS: u64 = 10;
    // HELLO and SUBSCRIBE pass each place once.
    let passage = 2 * CLIENTS + 1;
    let fault = format!("panic:{place}:{passage}");
    let mut broker =
        Broker::start_with_env(&[("PUBSUB_FAULT", &fault)], &["--resp", "127.0.0.1:0"]);
    let mut clients: Vec<Redis> = (0..CLIENTS)
        .map(|_| {
            let mut client = Redis::connect_speaking(&broker, 3);
            client.subscribe(b"news");
            client
        })
        .collect();
    let mut victim = clients.pop().expect("a victim");
    victim.say("PING");
    victim.expect_end("-ERR internal error\r\n");
    let others = clients.len();
    for number in 0..20 {
        let message = number.to_string();
        let count = clients[number % others].publish(b"news", message.as_bytes());
        assert_eq!(count, others as i64, "{place}");
        let expected = format!(">3 message news {message}");
        for client in &mut clients {
            assert_eq!(client.delivery().to_string(), expected, "{place}");
        }
    }
    assert_eq!(broker.stats()["closed"]["internal error"], 1, "{place}");
    let metrics = admin::get(broker.admin(), "/metrics").body;
    assert!(
        metrics.contains(r#"reason="internal error"} 1"#),
        "{metrics}"
    );
    let told = format!("the planted fault {fault}");
    broker.log_line(&told);
    assert_eq!(broker.log_text().matches(&told).count(), 1, "{place}");
    // Its place can be taken.
    assert_eq!(Redis::connect(&broker).ask("PING"), "+PONG");
    broker.stats_at_rest();
}

#[test]
fn a_fault_in_the_bytes_ends_one_connection() {
    only_one_connection_ends("frame");
}

#[test]
fn a_fault_in_a_command_ends_one_connection() {
    only_one_connection_ends("decode");
}

#[test]
fn a_fault_in_a_reply_ends_one_connection() {
    only_one_connection_ends("encode");
}
