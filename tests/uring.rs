//! Which driver runs, why, and that it makes no difference: each step down of io_uring, and no io_uring at all, as
//! under a container's seccomp filter (promise 32).

mod common;

use std::os::unix::net::UnixStream;
use std::path::Path;

use common::broker::{command, run_command, sum_in};
use common::client::parse;
use common::seccomp::{self, ENTER, REGISTER, SETUP};
use common::{Broker, Client, DEADLINE, End, option, pair_on_two_shards};
use serde_json::json;
use tungstenite::{Message, WebSocket};

/// The one log line that says which driver runs.
fn driver_line(broker: &mut Broker) -> String {
    let line = broker.log_line("driver: ");
    let text = broker.log_text();
    let about = |line: &&str| line.contains("driver") || line.contains("io_uring");
    let lines: Vec<&str> = text.lines().filter(about).collect();
    assert_eq!(lines.len(), 1, "one line for the driver: {lines:?}");
    line
}

/// Says aloud if this machine has no ring to test.
fn has_ring() -> bool {
    let line = driver_line(&mut Broker::start(&["--io", "auto"]));
    let has_ring = line.contains("driver: io_uring");
    if !has_ring {
        common::skip("uring", &line);
    }
    has_ring
}

/// A client over the broker's path; its connections are dealt to all shards in turn.
fn over_path(path: &Path) -> WebSocket<UnixStream> {
    let stream = UnixStream::connect(path).expect("the broker listens on its path");
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let (socket, _) = tungstenite::client("ws://localhost/", stream).expect("a handshake");
    socket
}

fn say(socket: &mut WebSocket<UnixStream>, text: &str) {
    socket.send(Message::text(text)).expect("it can be sent");
}

fn hear(socket: &mut WebSocket<UnixStream>) -> serde_json::Value {
    parse(socket.read().expect("a text").to_text().expect("a text"))
}

/// Everything that a driver does, in small: both shards, connections handed over, many subscribers, large messages
/// that are sent in parts, a client that resets.
fn check_delivery(broker: &Broker, path: &Path) {
    let (mut one, mut other) = pair_on_two_shards(broker);
    other.subscribe("news");
    other.subscribe("back");
    let mut dealt: Vec<_> = (0..4).map(|_| over_path(path)).collect();
    for socket in &mut dealt {
        say(socket, r#"{"type":"subscribe","topic":"news","id":1}"#);
        assert_eq!(hear(socket)["type"], "ack");
    }
    let fills = [0, 10, 3_000, 60_000];
    for number in 0..40_usize {
        let fill = "x".repeat(fills[number % fills.len()]);
        one.publish("news", json!({"n": number, "fill": fill}));
    }
    for number in 0..40 {
        assert_eq!(other.delivery()["message"]["n"], number);
        for socket in &mut dealt {
            assert_eq!(hear(socket)["message"]["n"], number);
        }
    }
    for socket in &mut dealt {
        say(socket, r#"{"type":"publish","topic":"back","message":5}"#);
        assert_eq!(hear(socket)["action"], "publish");
        assert_eq!(other.delivery()["message"], 5);
    }
    let stats = broker.stats_at_rest();
    assert!(sum_in(&stats, "handed_over") >= 2, "{stats}");
    assert_eq!(sum_in(&stats, "cq_overflow"), 0);
    drop(one);
    other.expect_nothing();
}

/// A reader that stops is closed; the others stay; the drain says 1001 to all.
fn check_slow_reader_and_drain(mut broker: Broker) {
    let (mut one, mut other) = pair_on_two_shards(&broker);
    let mut slow = Client::connect_narrow(&broker);
    slow.subscribe("flood");
    other.subscribe("flood");
    let fill = "x".repeat(48 << 10);
    let mut published = 0;
    while broker.sum("closed_slow") == 0 {
        assert!(published < 2_000, "nobody is too slow");
        for _ in 0..10 {
            one.publish("flood", json!({"n": published, "fill": fill}));
            assert_eq!(other.delivery()["message"]["n"], published);
            published += 1;
        }
    }
    let (_, end) = slow.read_to_end();
    assert!(matches!(end, End::Code(4008) | End::Lost), "{end:?}");
    one.publish("flood", json!("last"));
    broker.terminate();
    assert_eq!(other.delivery()["message"], "last", "nothing acked is lost");
    other.expect_close(1001);
    one.expect_close(1001);
    assert_eq!(broker.wait_exit().code(), Some(0));
}

const LISTEN: [&str; 2] = ["--listen", "127.0.0.1:0"];

#[test]
fn every_step_down_delivers() {
    if !has_ring() {
        return;
    }
    for (without, says) in [
        ("", "deferred completions, no index array, ring messages"),
        ("deferred", "cooperative completions"),
        ("cooperative", "eager completions"),
        ("no_sqarray", "without no index array"),
        ("messages", "without ring messages"),
        ("install", "without descriptor installs"),
        ("socket_options", "without socket options"),
        ("min_timeout", "without gathering waits"),
        (
            "cooperative,no_sqarray,messages,install,socket_options,min_timeout",
            "eager completions, without no index array, without ring messages",
        ),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("broker.sock");
        let listen = format!("unix:{}", path.display());
        let mut broker = Broker::start_with_env(
            &[("PUBSUB_URING_WITHOUT", without)],
            &[&LISTEN[..], &["--listen", &listen, "--io", "uring"]].concat(),
        );
        let line = driver_line(&mut broker);
        // A kernel that is older than this list has less from the start.
        if line.contains(says) || without.is_empty() {
            println!("{line}");
        } else {
            panic!("{without}: {line}");
        }
        check_delivery(&broker, &path);
        broker.terminate();
        assert_eq!(broker.wait_exit().code(), Some(0), "{without}");
    }
}

#[test]
fn a_feature_that_does_not_exist_is_a_mistake() {
    let mut command = command();
    command.env("PUBSUB_URING_WITHOUT", "defered");
    command.args(LISTEN).args(["--admin", "off"]);
    let finished = run_command(&mut command);
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("defered"), "{finished:?}");
}

#[test]
fn gathering_waits_deliver() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("broker.sock");
    let listen = format!("unix:{}", path.display());
    let coalesce = ["--coalesce-us", "50", "--listen", &listen];
    let broker = Broker::start(&[&LISTEN[..], &coalesce].concat());
    check_delivery(&broker, &path);
}

#[test]
fn without_io_uring_epoll_keeps_the_same_promises() {
    for (calls, error, why) in [
        (&[SETUP, ENTER, REGISTER][..], libc::EPERM, "seccomp"),
        (&[SETUP], libc::ENOSYS, "the kernel has no io_uring"),
        (&[SETUP], libc::ENOMEM, "RLIMIT_MEMLOCK"),
        (&[ENTER], libc::EPERM, "not used"),
        (&[REGISTER], libc::EPERM, "probe"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("broker.sock");
        let listen = format!("unix:{}", path.display());
        let mut refusing = command();
        seccomp::refuse(&mut refusing, calls, error);
        let arguments = [
            "--listen",
            &listen,
            "--io",
            "auto",
            option::LINGER_MS,
            "1000",
        ];
        let mut broker = Broker::start_by(refusing, &[&LISTEN[..], &arguments].concat());
        let line = driver_line(&mut broker);
        assert!(
            line.contains("driver: epoll (") && line.contains(why),
            "{line}"
        );
        check_delivery(&broker, &path);
        if error == libc::EPERM && calls.len() == 3 {
            check_slow_reader_and_drain(broker);
        }
    }
}

#[test]
fn io_uring_that_is_asked_for_must_be_there() {
    let mut refusing = command();
    seccomp::refuse(&mut refusing, &[SETUP, ENTER, REGISTER], libc::EPERM);
    refusing
        .args(LISTEN)
        .args(["--admin", "off", "--io", "uring"]);
    let finished = run_command(&mut refusing);
    assert_eq!(finished.code, Some(2), "{finished:?}");
    let lines: Vec<&str> = finished.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "one sentence: {lines:?}");
    assert!(
        lines[0].contains("io_uring") && lines[0].contains("seccomp"),
        "{lines:?}"
    );
}

#[test]
fn epoll_that_is_asked_for_runs() {
    let mut broker = Broker::start(&["--io", "epoll"]);
    let line = driver_line(&mut broker);
    assert!(line.contains("driver: epoll (it was asked for)"), "{line}");
}
