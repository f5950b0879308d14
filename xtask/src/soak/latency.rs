//! Promises 9, 10 and 27: how long a message takes beside those that read nothing, beside those that flood, and
//! through a stop of the whole process.

use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use super::Row;
use super::broker::{Broker, Options};
use super::client::{Client, DEADLINE, frame, number_of, publish};

/// Messages a second of a probe.
const RATE: u32 = 200;

/// What a probe saw.
struct Seen {
    p99: Duration,
    worst: Duration,
    /// Came, in order.
    count: usize,
    in_order: bool,
}

impl Seen {
    fn of(&self, count: usize) -> String {
        format!(
            "p99 {:.1} ms, worst {:.1} ms, {} of {count}",
            self.p99.as_secs_f64() * 1e3,
            self.worst.as_secs_f64() * 1e3,
            self.count
        )
    }

    fn is_whole(&self, count: usize) -> bool {
        self.in_order && self.count == count
    }
}

/// Publishes `count` messages at the rate of a probe to a subscriber of its own, and measures each.
fn probe(broker: &Broker, topic: &str, count: usize) -> Seen {
    let mut subscriber = Client::subscribed(&broker.listen, topic).expect("a subscriber");
    let mut publisher = Client::connect(&broker.listen).expect("a publisher");
    let mut writer = publisher.writer();
    let acks = thread::spawn(move || publisher.drain());
    let begun = Instant::now();
    let reading = thread::spawn(move || {
        let mut arrived = Vec::new();
        while arrived.len() < count {
            match subscriber.delivery() {
                Ok(text) => arrived.push((number_of(&text), begun.elapsed())),
                Err(_) => break,
            }
        }
        arrived
    });
    let due = |number: usize| number as u32 * Duration::from_secs(1) / RATE;
    for number in 0..count {
        thread::sleep(due(number).saturating_sub(begun.elapsed()));
        let text = publish(topic, &number.to_string());
        if writer.write_all(&frame(0x81, text.as_bytes())).is_err() {
            break;
        }
    }
    let arrived = reading.join().expect("the probe's reader");
    let _ = writer.shutdown(Shutdown::Both);
    acks.join().expect("the probe's acks");
    let in_order = arrived
        .iter()
        .enumerate()
        .all(|(index, (number, _))| *number == Some(index as u64));
    // From when it was due, so that a publisher that is held up does not hide it.
    let mut times: Vec<Duration> = arrived
        .iter()
        .enumerate()
        .map(|(index, (_, at))| at.saturating_sub(due(index)))
        .collect();
    times.sort_unstable();
    let at = |part: usize| {
        times
            .get(times.len() * part / 1000)
            .copied()
            .unwrap_or(DEADLINE)
    };
    Seen {
        p99: at(990),
        worst: times.last().copied().unwrap_or(DEADLINE),
        count: arrived.len(),
        in_order,
    }
}

/// Beside nobody, beside non-readers, beside two publishers that flood.
pub fn fairness(options: &Options) -> Vec<Row> {
    const COUNT: usize = 2_000;
    let broker = Broker::start(options, &[]);
    let alone = probe(&broker, "probe", COUNT);
    let deaf: Vec<Client> = (0..20)
        .map(|_| Client::subscribed(&broker.listen, "slow.*").expect("a non-reader"))
        .collect();
    let beside_deaf = thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            let mut publisher = Client::connect(&broker.listen).expect("a publisher");
            let body = format!("\"{}\"", "x".repeat(20_000));
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(10) {
                publisher.publish("slow.flood", &body).expect("a publish");
                publisher.text().expect("its ack");
                thread::sleep(Duration::from_millis(5));
            }
        });
        let seen = probe(&broker, "probe", COUNT);
        flooding.join().expect("the flood");
        seen
    });
    drop(deaf);
    let flood: Vec<u8> =
        frame(0x81, publish("flood", "\"xxxxxxxxxxxxxxxx\"").as_bytes()).repeat(500);
    let flooders: Vec<_> = (0..2)
        .map(|_| {
            let mut client = Client::connect(&broker.listen).expect("a flooder");
            let handle = client.writer();
            let mut writer = client.writer();
            let flood = flood.clone();
            let writing = thread::spawn(move || while writer.write_all(&flood).is_ok() {});
            let reading = thread::spawn(move || client.drain());
            (handle, writing, reading)
        })
        .collect();
    let before = broker.sum("publishes");
    let begun = Instant::now();
    let beside_flood = probe(&broker, "probe", COUNT);
    let rate = (broker.sum("publishes") - before) as f64 / begun.elapsed().as_secs_f64();
    for (handle, writing, reading) in flooders {
        let _ = handle.shutdown(Shutdown::Both);
        writing.join().expect("a flooder's writer");
        reading.join().expect("a flooder's reader");
    }
    let allowed = (3 * alone.p99).max(alone.p99 + Duration::from_millis(25));
    vec![
        Row::new(
            9,
            "200 msg/s beside 20 non-readers: p99 <= 3 x (or + 25 ms)",
            format!(
                "{} (alone {:.1})",
                beside_deaf.of(COUNT),
                alone.p99.as_secs_f64() * 1e3
            ),
            beside_deaf.is_whole(COUNT) && beside_deaf.p99 <= allowed,
        ),
        Row::new(
            10,
            format!("200 msg/s beside two floods ({rate:.0}/s): p99 <= 100 ms"),
            beside_flood.of(COUNT),
            beside_flood.is_whole(COUNT) && beside_flood.p99 <= Duration::from_millis(100),
        ),
    ]
}

/// Stopped for 2.5 s in the middle of a stream, with timeouts shorter than that.
pub fn stall(options: &Options) -> Vec<Row> {
    const COUNT: usize = 1_600;
    let broker = Broker::start(
        options,
        &["--ping-interval-ms", "500", "--ping-timeout-ms", "1000"],
    );
    let seen = thread::scope(|scope| {
        let stopping = scope.spawn(|| {
            thread::sleep(Duration::from_secs(2));
            broker.signal("STOP");
            thread::sleep(Duration::from_millis(2_500));
            broker.signal("CONT");
        });
        let seen = probe(&broker, "probe", COUNT);
        stopping.join().expect("the stop");
        seen
    });
    vec![Row::new(
        27,
        "stopped 2.5 s: nobody dropped, in order, worst <= 4.5 s",
        seen.of(COUNT),
        seen.is_whole(COUNT) && seen.worst <= Duration::from_millis(4_500),
    )]
}
