//! `pubsub bench` against the broker: every scenario ends well, and its report says that all was right.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use common::{Broker, Finished, broker};

/// A debug build on a busy machine may take its time.
const TIME: Duration = Duration::from_secs(60);

fn bench(arguments: &str) -> Finished {
    let mut command = broker::command();
    command.arg("bench").args(arguments.split_whitespace());
    broker::run_command_within(&mut command, TIME)
}

/// A run that must be right; gives its report.
fn right(broker: &Broker, arguments: &str) -> Value {
    let listen = broker.listen();
    let report = right_at(broker, &format!("{arguments} --url ws://{listen}/"));
    assert_eq!(
        report["published"], report["measured"]["acks"],
        "{report:#}"
    );
    report
}

/// The same where the arguments say who speaks what, and where.
fn right_at(broker: &Broker, arguments: &str) -> Value {
    let pid = broker.pid();
    let finished = bench(&format!("{arguments} --pid {pid} --json -"));
    assert_eq!(finished.code, Some(0), "{arguments}: {finished:?}");
    let report: Value = serde_json::from_str(&finished.stdout).expect("the report is JSON");
    for fault in ["lost", "doubled", "inverted", "stray", "acks_missing"] {
        assert_eq!(report[fault], 0, "{arguments}: {report:#}");
    }
    assert_eq!(report["right"], true);
    assert_eq!(report["due"], report["delivered"], "{report:#}");
    assert!(
        finished
            .stderr
            .contains(report["scenario"].as_str().unwrap())
    );
    report
}

#[test]
fn fan_out_is_right() {
    let broker = Broker::start(&[]);
    let report = right(&broker, "fan-out -p 3 -s 40 -w 8 --messages 1000");
    assert_eq!(report["delivered"], 40_000);
    assert_eq!(report["connections"], 43);
    assert_eq!(broker.sum("deliveries_due"), 40_000, "the broker agrees");
    assert!(report["broker"]["cpu_us_per_delivery"].as_f64().unwrap() > 0.0);
    let report = right(
        &broker,
        "fan-out -p 3 -s 40 --threads 2 --messages 300 --size 20000",
    );
    assert_eq!(report["delivered"], 12_000);
    assert_eq!(report["delivery_bytes"], 20_118);
}

#[test]
fn rooms_are_right() {
    let broker = Broker::start(&[]);
    let report = right(&broker, "rooms --rooms 12 --members 5 -w 2 --messages 3000");
    assert_eq!(
        (&report["topics"], &report["connections"]),
        (&12.into(), &60.into())
    );
    assert_eq!(report["delivered"], 15_000);
    right(
        &broker,
        "rooms --rooms 7 --members 3 --messages 1000 --threads 2",
    );
}

#[test]
fn topics_with_one_subscriber_each_are_right() {
    let broker = Broker::start(&[]);
    let report = right(&broker, "unique --topics 150 -p 3 -w 32 --messages 3000");
    assert_eq!(report["delivered"], 3000);
    assert_eq!(report["subscribers"], 150);
    right(
        &broker,
        "unique --topics 20 -p 3 --messages 1000 --threads 2",
    );
}

#[test]
fn idle_connections_are_weighed_and_all_get_the_last_message() {
    let broker = Broker::start(&[]);
    let report = right(&broker, "idle --connections 1200 --publish --hold 0");
    assert_eq!(report["delivered"], 1200);
    let memory = &report["memory"];
    let bytes = |name: &str| memory[name].as_u64().unwrap();
    assert!(bytes("before_bytes") > 0 && bytes("connected_bytes") >= bytes("before_bytes"));
    assert!(memory["bytes_per_connection"].as_f64().unwrap() < 1e6);
    let report = right(&broker, "idle --connections 10 --hold 0");
    assert_eq!(report["delivered"], 0);
}

#[test]
fn latency_is_measured_at_the_rate_asked_for() {
    let broker = Broker::start(&[]);
    let report = right(&broker, "latency --rate 2000 -s 10 -p 2 --messages 100");
    let latency = &report["latency_us"];
    assert_eq!(latency["count"], 1000);
    let at = |name: &str| latency[name].as_f64().unwrap();
    assert!(0.0 < at("p50") && at("p50") <= at("p99") && at("p99") <= at("max"));
    // 100 publications, 5 ms apart: the last one is not due before 495 ms are over.
    assert!(report["measured"]["seconds"].as_f64().unwrap() >= 0.495);
    assert_eq!(report["lateness_us"]["count"], 100);
}

#[test]
fn runs_by_time_are_right_too() {
    let broker = Broker::start(&[]);
    let (listen, pid) = (broker.listen(), broker.pid());
    let finished = bench(&format!(
        "fan-out -s 10 --duration 0.3 --warm-up 0.1 --url ws://{listen}/ --pid {pid}"
    ));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    for row in [
        "deliveries",
        "us per delivery",
        "0 lost, 0 double, 0 inverted",
    ] {
        assert!(finished.stdout.contains(row), "{}", finished.stdout);
    }
    assert_eq!(finished.stderr, "", "no progress bar without a terminal");
}

#[test]
fn several_addresses_share_the_connections() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let path = path.to_str().unwrap();
    let broker = Broker::start(&[
        "--listen",
        "127.0.0.1:0",
        "--listen",
        &format!("unix:{path}"),
    ]);
    right(
        &broker,
        &format!("fan-out -s 6 --messages 100 --url unix:{path}"),
    );
}

#[test]
fn clusterws_is_right_and_its_publishers_hear_themselves() {
    let broker = Broker::start(&[]);
    let listen = broker.listen();
    let at = format!("--protocol clusterws --url ws://{listen}/clusterws");
    let report = right_at(
        &broker,
        &format!("fan-out -p 3 -s 40 -w 8 --messages 600 {at}"),
    );
    assert_eq!(report["delivered"], 24_000);
    assert_eq!(report["connections"], 40, "the publishers are among them");
    assert_eq!(broker.sum("deliveries_due"), 24_000, "the broker agrees");
    for arguments in [
        "rooms --rooms 7 --members 3 --messages 1000 --threads 2",
        "latency --rate 2000 -s 10 -p 2 --messages 50",
        "idle --connections 20 --publish --hold 0",
    ] {
        right_at(&broker, &format!("{arguments} {at}"));
    }
}

#[test]
fn resp_is_right() {
    let broker = Broker::start(&["--resp", "127.0.0.1:0"]);
    let at = format!("--protocol redis --url redis://{}", broker.resp());
    for arguments in [
        "fan-out -p 3 -s 40 -w 8 --messages 600",
        "rooms --rooms 7 --members 3 --messages 1000 --threads 2",
        "unique --topics 50 -p 3 -w 32 --messages 1000",
    ] {
        let report = right_at(&broker, &format!("{arguments} {at}"));
        assert_eq!(report["published"], report["measured"]["acks"]);
    }
}

#[test]
fn an_audience_of_three_protocols_hears_the_same() {
    let broker = Broker::start(&["--resp", "127.0.0.1:0"]);
    let (listen, resp) = (broker.listen(), broker.resp());
    let audience = format!(
        "--audience native=ws://{listen}/ --audience redis=redis://{resp} \
         --audience clusterws=ws://{listen}/clusterws"
    );
    for publishers in [
        format!("--protocol native --url ws://{listen}/"),
        format!("--protocol redis --url redis://{resp}"),
    ] {
        for arguments in [
            "fan-out -p 3 -s 31 -w 8 --messages 600",
            "fan-out -s 12 --messages 100 --size 20000 --threads 2",
            "unique --topics 50 -p 3 -w 32 --messages 1000",
        ] {
            let report = right_at(&broker, &format!("{arguments} {publishers} {audience}"));
            assert_eq!(report["published"], report["measured"]["acks"]);
            let heard = ["native", "redis", "clusterws"];
            assert_eq!(report["audience"], Value::from(&heard[..]));
        }
    }
}

#[test]
fn what_goes_wrong_is_said() {
    let check = |arguments: &str, code, reason: &str| {
        let finished = bench(arguments);
        assert_eq!(finished.code, Some(code), "{arguments}: {finished:?}");
        let text = finished.stdout + &finished.stderr;
        assert!(text.contains(reason), "{arguments}: {text}");
    };
    check("fan-out --subscribers 0", 2, "publishers and subscribers");
    check("fan-out --url http://localhost/", 2, "http://localhost/");
    check("walk", 2, "walk");
    // Bound, so that nobody else gets the port, but not listening.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&loopback.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    check(&format!("fan-out --url ws://{address}/"), 1, "refused");
    let broker = Broker::start(&["--max-message", "1KiB"]);
    let listen = broker.listen();
    let too_large = format!("fan-out -s 2 --size 2000 --messages 5 --url ws://{listen}/");
    check(&too_large, 1, "1009");
}
