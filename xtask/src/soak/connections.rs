//! Promises 12, 14 and 26: connections that come and go, that are stuck, that are dead.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::broker::{Broker, Options};
use super::client::{Client, DEADLINE, Got, head};
use super::{MIB, Row, mib};

/// 10 000 connect, subscribe, close cycles in four manners.
pub fn churn(options: &Options) -> Vec<Row> {
    const CYCLES: usize = 10_000;
    let broker = Broker::start(options, &[]);
    // What is allocated once is not leaked.
    cycles(&broker, 0, CYCLES / 10);
    let (rss, descriptors) = (broker.rss(), broker.descriptors());
    cycles(&broker, CYCLES, 2 * CYCLES);
    // The operators' connection is one of the descriptors that are about to go.
    let begun = Instant::now();
    while broker.descriptors() > descriptors && begun.elapsed() < DEADLINE {
        thread::sleep(Duration::from_millis(10));
    }
    let grown = broker.rss().saturating_sub(rss);
    let left = broker.descriptors().saturating_sub(descriptors);
    vec![
        Row::new(
            12,
            "10 000 cycles in four manners: RSS back within 6 MiB",
            format!("+ {} (from {})", mib(grown), mib(rss)),
            grown <= 6 * MIB,
        ),
        Row::new(
            12,
            "10 000 cycles in four manners: descriptors within 3",
            format!("+ {left}"),
            left <= 3,
        ),
    ]
}

fn cycles(broker: &Broker, first: usize, last: usize) {
    for number in first..last {
        if number % 4 == 3 {
            // Killed in the middle of the head.
            let mut stream = TcpStream::connect(&broker.listen).expect("a connection");
            let head = head(&broker.listen, "");
            let _ = stream.write_all(&head.as_bytes()[..number % head.len()]);
            continue;
        }
        let topic = format!("churn.{number}");
        let mut client = Client::subscribed(&broker.listen, &topic).expect("a client");
        match number % 4 {
            0 => {
                let mut writer = client.writer();
                let _ = writer.write_all(&[0x88, 0x80, 0, 0, 0, 0]);
                client.drain();
            }
            1 => {
                let _ = client.writer().shutdown(Shutdown::Write);
                client.drain();
            }
            _ => {
                // Closing with an answer unread makes the kernel send a reset.
                client.send(r#"{"type":"whoami"}"#).expect("a question");
                let _ = client.writer().peek(&mut [0]);
            }
        }
    }
    assert!(
        broker.wait_for("connections", 0, DEADLINE),
        "everybody has left"
    );
}

/// 300 handshakes that go nowhere, and a new client.
pub fn stuck(options: &Options) -> Vec<Row> {
    const STUCK: usize = 300;
    let broker = Broker::start(options, &[]);
    let head = head(&broker.listen, "");
    let stuck: Vec<TcpStream> = (0..STUCK)
        .map(|number| {
            let mut stream = TcpStream::connect(&broker.listen).expect("a connection");
            let part = (head.len() - 1) * (number % 10) / 9;
            let _ = stream.write_all(&head.as_bytes()[..part]);
            stream
        })
        .collect();
    let begun = Instant::now();
    let mut worst = Duration::ZERO;
    for _ in 0..100 {
        let asked = Instant::now();
        Client::connect(&broker.listen).expect("a new client");
        worst = worst.max(asked.elapsed());
    }
    let all_here = begun.elapsed() < Duration::from_secs(9);
    // Absolute: the drip does not move it.
    let gone = broker.wait_for("connections", 0, Duration::from_secs(14));
    let took = begun.elapsed();
    drop(stuck);
    vec![
        Row::new(
            14,
            "300 stuck handshakes: a new client waits <= 500 ms",
            format!("worst of 100: {:.1} ms", worst.as_secs_f64() * 1e3),
            all_here && worst <= Duration::from_millis(500),
        ),
        Row::new(
            14,
            "a handshake <= 10 s (and 2 s to discard its input)",
            format!("all gone after {:.1} s", took.as_secs_f64()),
            gone && took <= Duration::from_millis(12_500),
        ),
    ]
}

/// Peers that say nothing, and idle ones that answer, with the default timings.
pub fn dead(options: &Options) -> Vec<Row> {
    const EACH: usize = 100;
    let broker = Broker::start(options, &[]);
    let dead: Vec<Client> = (0..EACH)
        .map(|_| Client::subscribed(&broker.listen, "t").expect("a client"))
        .collect();
    let begun = Instant::now();
    let idle: Vec<_> = (0..EACH)
        .map(|_| {
            let mut client = Client::subscribed(&broker.listen, "end").expect("a client");
            // It answers pings as it waits, until it is told that this is over.
            thread::spawn(move || {
                let mut text = client.next();
                while matches!(&text, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
                {
                    text = client.next();
                }
                matches!(text, Ok(Got::Text(_)))
            })
        })
        .collect();
    let gone = broker.wait_for("connections", EACH as u64, Duration::from_secs(60));
    let took = begun.elapsed();
    thread::sleep(Duration::from_secs(60).saturating_sub(begun.elapsed()));
    let mut publisher = Client::connect(&broker.listen).expect("a publisher");
    publisher.publish("end", "1").expect("a publish");
    let kept = idle
        .into_iter()
        .map(|client| client.join().unwrap_or(false));
    let kept = kept.filter(|kept| *kept).count();
    drop(dead);
    vec![
        Row::new(
            26,
            "dead peers are gone <= 45 s after their last byte",
            format!("{EACH} after {:.1} s", took.as_secs_f64()),
            gone && took <= Duration::from_secs(45),
        ),
        Row::new(
            26,
            "idle ones that answer are kept",
            format!("{kept} of {EACH} after 60 s"),
            kept == EACH,
        ),
    ]
}
