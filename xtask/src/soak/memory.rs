//! Promises 7, 8, 11, 14 and 17: what clients cost, in bytes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::broker::{Broker, Options};
use super::client::{Client, DEADLINE, frame, head};
use super::{MIB, Row, mib};

/// 10 000 idle subscribed connections.
pub fn idle(options: &Options) -> Vec<Row> {
    const COUNT: u64 = 10_000;
    let broker = Broker::start(options, &[]);
    let before = broker.rss();
    let clients: Vec<Client> = (0..COUNT)
        .map(|number| {
            let topic = format!("user.{number}");
            Client::subscribed(&broker.listen, &topic)
                .expect("an idle client (ulimit -n must allow 10 100 here)")
        })
        .collect();
    let rss = broker.rss();
    let each = rss.saturating_sub(before) / COUNT;
    drop(clients);
    vec![
        Row::new(
            7,
            "10 000 idle connections, a topic each: RSS <= 40 MiB",
            format!("{} ({} before)", mib(rss), mib(before)),
            rss <= 40 * MIB,
        ),
        Row::new(
            7,
            "an idle subscribed connection <= 4 KiB",
            format!("{each} bytes"),
            each <= 4096,
        ),
    ]
}

/// Clients that read nothing, offered far more than they may hold.
pub fn non_readers(options: &Options) -> Vec<Row> {
    let mut rows = Vec::new();
    for (count, offered, allowed, promise) in
        [(4, 420 * MIB, 48 * MIB, 7), (100, 780 * MIB, 192 * MIB, 8)]
    {
        for policy in ["close", "drop-oldest"] {
            let (grown, announced) = offer(options, count, offered, policy);
            rows.push(Row::new(
                promise,
                format!(
                    "{count} non-readers ({policy}) offered {}: RSS + <= {}",
                    mib(offered),
                    mib(allowed)
                ),
                format!("+ {}, {announced} announced", mib(grown)),
                // Without any the kernel's buffers took it all, and nothing was shown.
                grown <= allowed && announced > 0,
            ));
        }
    }
    rows
}

/// Offers so many bytes in all to non-readers; what the resident memory grew by at most, and how many deliveries
/// were announced instead of made.
fn offer(options: &Options, count: usize, offered: u64, policy: &str) -> (u64, u64) {
    const SIZE: u64 = 60_000;
    let broker = Broker::start(options, &["--slow", &format!("*={policy}")]);
    let mut publisher = Client::connect(&broker.listen).expect("a publisher");
    let connect = || Client::subscribed(&broker.listen, "flood").expect("a non-reader");
    let mut deaf: Vec<Client> = (0..count).map(|_| connect()).collect();
    let body = format!("\"{}\"", "x".repeat(SIZE as usize));
    let before = broker.reset_peak();
    let messages = offered / SIZE / count as u64;
    for number in 0..messages {
        publisher.publish("flood", &body).expect("a publish");
        publisher.text().expect("its ack");
        // Whoever was closed comes back, so that all are offered all.
        if number % 5 == 4 && policy == "close" {
            let closed = count - (broker.sum("subscriptions") as usize).min(count);
            for _ in 0..closed {
                deaf.remove(0);
                deaf.push(connect());
            }
        }
    }
    (
        broker.peak().saturating_sub(before),
        broker.sum("announced"),
    )
}

/// 600 000 pongs and acks that nobody reads.
pub fn replies(options: &Options) -> Vec<Row> {
    const COUNT: usize = 600_000;
    let floods = [
        ("pongs", frame(0x89, &[b'p'; 120])),
        (
            "acks",
            frame(0x81, br#"{"type":"unsubscribe","topic":"t"}"#),
        ),
    ];
    floods
        .into_iter()
        .map(|(what, asked)| {
            let broker = Broker::start(options, &[]);
            let client = Client::connect(&broker.listen).expect("a client");
            let before = broker.reset_peak();
            let mut writer = client.writer();
            writer
                .set_write_timeout(Some(Duration::from_secs(3)))
                .expect("a timeout");
            let some = asked.repeat(1000);
            let mut sent = 0;
            let stopped = (0..COUNT / 1000).any(|_| {
                let failed = writer.write_all(&some).is_err();
                sent += usize::from(!failed) * 1000;
                failed
            });
            let grown = broker.peak().saturating_sub(before);
            let waits = broker.sum("outbox_bytes");
            Row::new(
                11,
                format!("600 000 unread {what}: RSS + <= 24 MiB, reading stops"),
                format!("+ {}, stopped at {sent}, {waits} bytes wait", mib(grown)),
                stopped && grown <= 24 * MIB && waits <= MIB,
            )
        })
        .collect()
}

/// 100 000 subscriptions on one connection, and what it takes to free them.
pub fn subscriptions(options: &Options) -> Vec<Row> {
    const COUNT: usize = 100_000;
    let broker = Broker::start(options, &["--max-subscriptions", "100000"]);
    let mut client = Client::connect(&broker.listen).expect("a client");
    let before = broker.rss();
    let mut writer = client.writer();
    let writing = thread::spawn(move || {
        for number in 0..COUNT {
            let text = format!(
                r#"{{"type":"subscribe","topic":"many.{}.{number}"}}"#,
                number % 100
            );
            writer
                .write_all(&frame(0x81, text.as_bytes()))
                .expect("a subscribe");
        }
    });
    let acked = (0..COUNT).filter(|_| client.text().is_ok_and(|text| text.contains(r#""ack""#)));
    let acked = acked.count();
    writing.join().expect("the writer");
    let grown = broker.rss().saturating_sub(before);
    // The sums are asked of every shard, and each answers between two turns: so this waits for the longest turn.
    drop(client);
    let begun = Instant::now();
    let mut worst = Duration::ZERO;
    let mut left = COUNT as u64;
    while left > 0 && begun.elapsed() < DEADLINE {
        let asked = Instant::now();
        left = broker.sum("subscriptions");
        worst = worst.max(asked.elapsed());
    }
    vec![
        Row::new(
            17,
            "100 000 subscriptions of a connection: RSS + <= 48 MiB",
            format!("+ {} for {acked}", mib(grown)),
            acked == COUNT && grown <= 48 * MIB,
        ),
        Row::new(
            17,
            "freeing them stalls nobody > 500 ms",
            format!("worst {:.1} ms", worst.as_secs_f64() * 1e3),
            left == 0 && worst <= Duration::from_millis(500),
        ),
    ]
}

/// Heads of 1 MiB, two hundred at a time.
pub fn heads(options: &Options) -> Vec<Row> {
    const COUNT: usize = 200;
    let broker = Broker::start(options, &[]);
    let before = broker.reset_peak();
    let head = head(
        &broker.listen,
        &format!("X-Fill: {}\r\n", "f".repeat(MIB as usize)),
    );
    let mut streams: Vec<TcpStream> = (0..COUNT)
        .map(|_| TcpStream::connect(&broker.listen).expect("a connection"))
        .collect();
    // A piece of each in turn, so that all of them are in the middle of it.
    for piece in head.as_bytes().chunks(4096).take(4) {
        for stream in &mut streams {
            let _ = stream.write_all(piece);
        }
    }
    let refused = thread::scope(|scope| {
        let refusing: Vec<_> = streams
            .into_iter()
            .map(|mut stream| {
                let head = &head;
                scope.spawn(move || {
                    let _ = stream.set_read_timeout(Some(DEADLINE));
                    let _ = stream.write_all(&head.as_bytes()[4 * 4096..]);
                    let mut answer = Vec::new();
                    let _ = stream.read_to_end(&mut answer);
                    answer.starts_with(b"HTTP/1.1 431")
                })
            })
            .collect();
        let answers = refusing
            .into_iter()
            .map(|thread| thread.join().unwrap_or(false));
        answers.filter(|refused| *refused).count()
    });
    let grown = broker.peak().saturating_sub(before);
    vec![Row::new(
        14,
        format!("{COUNT} heads of 1 MiB: RSS + <= 64 MiB, 431"),
        format!("+ {}, {refused} answered 431", mib(grown)),
        grown <= 64 * MIB && refused == COUNT,
    )]
}
