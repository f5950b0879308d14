//! Crash containment (promise 29): a bug met while serving one connection ends that connection; a bug in a shard's
//! own state ends the process, at once and with words.

mod common;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::raw::upgrade_head;
use common::{Broker, Client, End, Raw, admin, clients_by_shard};
use serde_json::{Value, json};

/// Clients on each of two shards.
const CLIENTS: usize = 10;
/// What is published before the fault, and again after it.
const MESSAGES: u64 = 10;

/// A broker that will fail, and clients on both shards that all subscribe.
struct Scene {
    broker: Broker,
    clients: Vec<Client>,
    published: u64,
}

impl Scene {
    /// Connects everybody. Where they live is not asked: that would be counted too.
    fn set(place: &str, passage: u64) -> Scene {
        let fault = format!("panic:{place}:{passage}");
        let broker = Broker::start_with_env(&[("PUBSUB_FAULT", &fault)], &[]);
        let clients = (0..2 * CLIENTS)
            .map(|_| {
                let mut client = Client::connect(&broker);
                client.subscribe("news");
                client
            })
            .collect();
        Scene {
            broker,
            clients,
            published: 0,
        }
    }

    /// Everybody in turn publishes, each an ack and a number more.
    fn publish(&mut self) {
        for _ in 0..MESSAGES {
            self.published += 1;
            let publisher = self.published as usize % (self.clients.len() - 1);
            self.clients[publisher].publish("news", json!(self.published));
        }
    }

    /// Everybody but the last has had every message, in order.
    fn check_others(&mut self) {
        let expected: Vec<Value> = (1..=self.published).map(|number| json!(number)).collect();
        let others = self.clients.len() - 1;
        for client in &mut self.clients[..others] {
            client.settle();
            let got: Vec<Value> = client
                .take_kept()
                .into_iter()
                .map(|mut delivery| delivery["message"].take())
                .collect();
            assert_eq!(got, expected);
        }
    }

    /// Subscribes and publishes so far, each of which passes each place but the handshake once.
    const PASSAGES: u64 = 2 * CLIENTS as u64 + MESSAGES;
}

fn only_one_connection_ends(place: &str) {
    let mut scene = Scene::set(place, Scene::PASSAGES + 1);
    scene.publish();
    let mut victim = scene.clients.pop().expect("a victim");
    victim.send(r#"{"type":"ping"}"#);
    let (texts, end) = victim.read_to_end();
    assert_eq!(end, End::Code(1011), "{place}");
    assert_eq!(
        texts.len() as u64,
        MESSAGES,
        "what was queued before still comes: {texts:?}"
    );
    scene.clients.push(victim);
    scene.publish();
    scene.check_others();
    check_counted(&mut scene.broker, place, Scene::PASSAGES + 1);
    // Its place can be taken.
    Client::connect(&scene.broker).settle();
}

/// One connection was counted, and one event of the log tells why.
fn check_counted(broker: &mut Broker, place: &str, passage: u64) {
    assert_eq!(broker.stats()["closed"]["internal error"], 1, "{place}");
    let metrics = admin::get(broker.admin(), "/metrics").body;
    let counted: u64 = metrics
        .lines()
        .filter(|line| line.starts_with("pubsub_closed_total") && line.contains("internal error"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(counted, 1, "{metrics}");
    let told = format!("the planted fault panic:{place}:{passage}");
    broker.log_line(&told);
    let log = broker.log_text();
    assert_eq!(log.matches(&told).count(), 1, "{log}");
    assert!(!log.contains("stack backtrace"), "{log}");
    assert!(!log.contains("RUST_BACKTRACE"), "{log}");
}

#[test]
fn a_fault_in_a_frame_ends_one_connection() {
    only_one_connection_ends("frame");
}

#[test]
fn a_fault_in_a_text_ends_one_connection() {
    only_one_connection_ends("decode");
}

#[test]
fn a_fault_in_an_answer_ends_one_connection() {
    only_one_connection_ends("encode");
}

#[test]
fn a_fault_in_a_handshake_ends_one_connection() {
    let passage = 2 * CLIENTS as u64 + 1;
    let mut scene = Scene::set("handshake", passage);
    scene.publish();
    // No WebSocket yet, so no close code: an HTTP status.
    let mut victim = Raw::connect(scene.broker.listen());
    victim.send(upgrade_head(scene.broker.listen(), &[]).as_bytes());
    let answer = victim.rest();
    let response = admin::parse(&answer)
        .unwrap_or_else(|| panic!("no response: {:?}", String::from_utf8_lossy(&answer)));
    assert_eq!(response.status, 500, "{response:?}");
    scene.publish();
    let spare = Client::connect(&scene.broker);
    scene.clients.push(spare);
    scene.check_others();
    check_counted(&mut scene.broker, "handshake", passage);
}

/// A gap is encoded as its reader is sent to, not as it is told something.
#[test]
fn a_fault_in_a_gap_ends_one_connection() {
    const SIZE: usize = 60_000;
    // Two subscribes and a first ack; the next word that is encoded for the reader is its gap. The publisher's
    // acks are words too: it asks for one only at the end.
    let broker = Broker::start_with_env(
        &[("PUBSUB_FAULT", "panic:encode:3")],
        &[
            common::option::SLOW,
            "*=drop-oldest",
            "--max-outbox",
            "200000",
        ],
    );
    let mut reader = Client::connect_narrow(&broker);
    reader.subscribe("flood");
    let mut other = Client::connect(&broker);
    other.subscribe("quiet");
    let body = format!("\"{}\"", "x".repeat(SIZE));
    // The operators' way to publish tells no client anything.
    common::wait_for("a gap", || {
        admin::post(broker.admin(), "/publish/flood", &body);
        (broker.sum("dropped") > 0).then_some(())
    });
    let (texts, end) = reader.read_to_end();
    assert!(matches!(end, End::Code(1011)), "{end:?}, {}", texts.len());
    assert!(
        texts
            .iter()
            .all(|text| !text.starts_with(r#"{"type":"gap"#)),
        "no part of it went out"
    );
    admin::post(broker.admin(), "/publish/quiet", "1");
    assert_eq!(other.delivery()["message"], 1);
    assert_eq!(broker.stats()["closed"]["internal error"], 1);
    broker.stats_at_rest();
}

#[test]
fn a_fault_in_a_shard_ends_the_process() {
    let mut scene = Scene::set("shard", Scene::PASSAGES + 1);
    scene.publish();
    let victim = scene.clients.last_mut().expect("a victim");
    let begun = Instant::now();
    victim.send(r#"{"type":"ping"}"#);
    let status = scene.broker.wait_exit();
    let took = begun.elapsed();
    assert_eq!(status.code(), Some(70), "{status}");
    assert!(took < Duration::from_secs(1), "gone only after {took:?}");
    let log = scene.broker.log_text();
    let told = format!(
        "has ended: a panic: the planted fault panic:shard:{}",
        Scene::PASSAGES + 1
    );
    let line = log
        .lines()
        .find(|line| line.contains(&told))
        .unwrap_or_else(|| panic!("nobody says {told:?}:\n{log}"));
    assert!(
        line.starts_with("pubsub: shard 0 ") || line.starts_with("pubsub: shard 1 "),
        "{line}"
    );
    // Nobody is left half-alive, on the other shard or in front of the door.
    for client in &mut scene.clients {
        let (_, end) = client.read_to_end();
        assert_eq!(end, End::Lost);
    }
    TcpStream::connect(scene.broker.listen()).expect_err("the port is closed");
}

#[test]
fn a_fault_in_a_draining_shard_ends_the_process_as_well() {
    let mut broker =
        Broker::start_with_env(&[("PUBSUB_FAULT", "panic:shard:5")], &["--drain", "100"]);
    // Four questions; nobody is told to leave for 50 s but the first on each shard.
    let mut groups = clients_by_shard_uncounted(&broker);
    broker.terminate();
    broker.log_line("draining");
    let begun = Instant::now();
    let mut asked = 0;
    for client in &mut groups {
        for _ in 0..8 {
            asked += u32::from(client.try_send(r#"{"type":"ping"}"#).is_ok());
        }
    }
    assert!(asked >= 5, "{asked}");
    let status = broker.wait_exit();
    assert_eq!(status.code(), Some(70), "{status}");
    assert!(begun.elapsed() < Duration::from_secs(1));
}

/// Eight clients, wherever they live.
fn clients_by_shard_uncounted(broker: &Broker) -> Vec<Client> {
    (0..8).map(|_| Client::connect(broker)).collect()
}

/// Where faults are not asked for, nothing is counted or told.
#[test]
fn no_fault_is_the_default() {
    let mut broker = Broker::start(&[]);
    for client in clients_by_shard(&broker, 2, 2).iter_mut().flatten() {
        client.settle();
    }
    assert_eq!(broker.stats()["closed"]["internal error"], 0);
    assert!(!broker.log_text().contains("fault"));
}

#[test]
fn a_wrong_fault_is_bad_usage() {
    let mut command = common::broker::command();
    command.env("PUBSUB_FAULT", "panic:everywhere:1").args([
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "off",
    ]);
    let finished = common::broker::run_command(&mut command);
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(
        finished
            .stderr
            .contains("PUBSUB_FAULT=panic:everywhere:1: wants panic:PLACE:N"),
        "{finished:?}"
    );
}
