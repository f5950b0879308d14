//! Promise 28: how a broker leaves.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use super::Row;
use super::broker::{Broker, Options};
use super::client::{Client, Got, frame, number_of};

/// Under load, spread, and what remains of the port.
pub fn drain(options: &Options) -> Vec<Row> {
    let mut rows = vec![under_load(options), spread(options)];
    for signal in ["TERM", "KILL"] {
        let mut broker = Broker::start(options, &[]);
        let clients: Vec<Client> = (0..100)
            .map(|_| Client::connect(&broker.listen).expect("a client"))
            .collect();
        broker.signal(signal);
        // Killed, there is no code.
        let code = broker.wait_exit(Duration::from_secs(12));
        // A killed process leaves its rings to the kernel, which takes them apart in the background: the listener
        // goes with them, some milliseconds later. A broker that starts again waits for that (up to a second).
        let ended = Instant::now();
        let bound = loop {
            let bound = TcpListener::bind(&broker.listen);
            if bound.is_ok() || ended.elapsed() > Duration::from_millis(500) {
                break bound;
            }
        };
        let waited_ms = ended.elapsed().as_millis();
        rows.push(Row::new(
            28,
            format!("the port is free after SIG{signal}"),
            match &bound {
                Ok(_) => format!("free after {waited_ms} ms, exit {code:?}"),
                Err(error) => error.to_string(),
            },
            bound.is_ok(),
        ));
        drop(clients);
    }
    rows
}

/// Publishers that publish all the time until the end: what was acked has been read by everybody who reads.
fn under_load(options: &Options) -> Row {
    const READERS: usize = 8;
    /// Messages of each publisher in a millisecond.
    const BURST: u64 = 10;
    let mut broker = Broker::start(options, &[]);
    let reading: Vec<_> = (0..READERS)
        .map(|_| {
            let mut reader = Client::subscribed(&broker.listen, "load.*").expect("a reader");
            thread::spawn(move || {
                let mut next: HashMap<String, u64> = HashMap::new();
                let mut in_order = true;
                loop {
                    match reader.next() {
                        Ok(Got::Text(text)) => {
                            let topic = text.split("\"topic\":\"").nth(1).unwrap_or_default();
                            let topic = topic.split('"').next().unwrap_or_default();
                            let next = next.entry(topic.to_owned()).or_default();
                            in_order &= number_of(&text) == Some(*next);
                            *next += 1;
                        }
                        Ok(Got::Close(1001)) => return Some((next, in_order)),
                        Ok(Got::Close(_)) | Err(_) => return None,
                    }
                }
            })
        })
        .collect();
    let flooding: Vec<_> = (0..4)
        .map(|index| {
            let mut client = Client::connect(&broker.listen).expect("a publisher");
            let mut writer = client.writer();
            let writing = thread::spawn(move || {
                for number in 0.. {
                    // As much as readers on the same two cores can read: those who can't are closed, and what
                    // they miss says nothing about the drain.
                    if number % BURST == 0 {
                        thread::sleep(Duration::from_millis(1));
                    }
                    let text = format!(
                        r#"{{"type":"publish","topic":"load.{index}","message":{number}}}"#
                    );
                    if writer.write_all(&frame(0x81, text.as_bytes())).is_err() {
                        break;
                    }
                }
            });
            let acking = thread::spawn(move || {
                let mut acked = 0_u64;
                while client.text().is_ok_and(|text| text.contains(r#""ack""#)) {
                    acked += 1;
                }
                let _ = client.writer().shutdown(Shutdown::Both);
                acked
            });
            (writing, acking)
        })
        .collect();
    thread::sleep(Duration::from_secs(3));
    let begun = Instant::now();
    broker.signal("TERM");
    let code = broker.wait_exit(Duration::from_secs(15));
    let took = begun.elapsed();
    let acked: Vec<u64> = flooding
        .into_iter()
        .map(|(writing, acking)| {
            let acked = acking.join().expect("acks");
            writing.join().expect("a writer");
            acked
        })
        .collect();
    let (mut missing, mut told, mut in_order) = (0, 0, true);
    for reader in reading {
        let Some((next, ordered)) = reader.join().expect("a reader") else {
            continue;
        };
        told += 1;
        in_order &= ordered;
        for (index, &acked) in acked.iter().enumerate() {
            let got = next.get(&format!("load.{index}")).copied().unwrap_or(0);
            missing += acked.saturating_sub(got);
        }
    }
    Row::new(
        28,
        "SIGTERM under load: 0 acked but missing, exit 0 in <= 10 s",
        format!(
            "{missing} of {} x {told}, exit {code:?} in {:.1} s",
            acked.iter().sum::<u64>(),
            took.as_secs_f64()
        ),
        missing == 0
            && told == READERS
            && in_order
            && code == Some(0)
            && took <= Duration::from_secs(10),
    )
}

/// `--drain 4`: evenly over that time.
fn spread(options: &Options) -> Row {
    const CLIENTS: usize = 400;
    let mut broker = Broker::start(options, &["--drain", "4"]);
    let clients: Vec<Client> = (0..CLIENTS)
        .map(|_| Client::connect(&broker.listen).expect("a client"))
        .collect();
    let begun = Instant::now();
    broker.signal("TERM");
    let leaving: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            thread::spawn(move || {
                let told = matches!(client.next(), Ok(Got::Close(1001)));
                (told, begun.elapsed())
            })
        })
        .collect();
    let left: Vec<(bool, Duration)> = leaving
        .into_iter()
        .map(|client| client.join().expect("a client"))
        .collect();
    let code = broker.wait_exit(Duration::from_secs(15));
    let told = left.iter().filter(|(told, _)| *told).count();
    let mut seconds = [0; 5];
    for (_, at) in &left {
        seconds[(at.as_secs() as usize).min(4)] += 1;
    }
    let most = seconds.iter().max().copied().unwrap_or(0);
    Row::new(
        28,
        "--drain 4: spread over the time, 1001 to all, exit 0",
        format!("by second {seconds:?}, {told} told, exit {code:?}"),
        told == CLIENTS && most <= CLIENTS / 3 && code == Some(0),
    )
}
