//! The program itself: its command line, its ready line, its listeners, its operators' port, and how it ends.

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::Receiver;
use std::thread;

use common::broker::{command, config_file, lines, wait_exit};
use common::client::parse;
use common::{
    Broker, Client, DEADLINE, Raw, admin, option, pair_on_two_shards, raw, run, wait_for,
};
use rustix::process::Signal;
use serde_json::{Value, json};

#[test]
fn one_line_says_that_it_is_ready() {
    let mut broker = Broker::start(&["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]);
    assert_eq!(broker.listens.len(), 2, "{}", broker.ready_line);
    let admin = broker.admin().to_owned();
    assert_eq!(
        broker.ready_line,
        format!(
            "pubsub ready listen={} listen={} admin={admin}",
            broker.listens[0], broker.listens[1]
        )
    );
    for address in broker.listens.clone() {
        assert!(!address.ends_with(":0"), "a real port: {address}");
        Client::connect_to(&address, "/").settle();
    }
    // Two listeners, one broker.
    let mut one = Client::connect_to(&broker.listens[0], "/");
    let mut two = Client::connect_to(&broker.listens[1], "/");
    two.subscribe("a");
    one.publish("a", json!(1));
    assert_eq!(two.delivery()["message"], 1);
    broker.terminate();
    assert_eq!(broker.wait_exit().code(), Some(0));
    assert_eq!(
        broker.more_stdout(),
        Vec::<String>::new(),
        "logs are on standard error only"
    );
}

#[test]
fn without_an_admin_listener_there_is_none() {
    let broker = Broker::start(&["--admin", "off"]);
    assert_eq!(broker.admin, None, "{}", broker.ready_line);
    Client::connect(&broker).settle();
}

#[test]
fn serve_is_what_it_does_anyway() {
    let mut child = command()
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "off",
            "--shards",
            "1",
        ])
        .spawn()
        .expect("the binary starts");
    let stdout = lines(child.stdout.take().expect("stdout is piped"));
    let ready = stdout.recv_timeout(DEADLINE);
    let _ = child.kill();
    let _ = child.wait();
    assert!(
        ready
            .expect("a ready line")
            .starts_with("pubsub ready listen=127.0.0.1:")
    );
}

/// Fails to start with exit code 2 and a sentence that has all of these words.
fn refuses(arguments: &[&str], words: &[&str]) {
    let finished = run(arguments);
    assert_eq!(finished.code, Some(2), "{arguments:?}: {finished:?}");
    assert_eq!(finished.stdout, "", "{arguments:?}");
    for word in words {
        assert!(
            finished.stderr.contains(word),
            "{arguments:?}: no {word:?} in {}",
            finished.stderr
        );
    }
}

#[test]
fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("its address").to_string();
    refuses(&["--listen", &address, "--admin", "off"], &[&address]);
    refuses(
        &["--listen", "127.0.0.1:0", "--admin", &address],
        &[&address],
    );
    // Not even another broker may share, though its listeners could.
    let broker = Broker::start(&[]);
    refuses(
        &["--listen", broker.listen(), "--admin", "off"],
        &[broker.listen()],
    );
    let mut client = Client::connect(&broker);
    client.settle();
}

#[test]
fn unix_sockets_are_listeners() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("broker.sock");
    let listen = format!("unix:{}", path.display());
    // Somebody was here and died: the path is there and nobody listens.
    drop(UnixListener::bind(&path).expect("a socket"));
    assert!(path.exists());
    let mut broker = Broker::start(&["--listen", "127.0.0.1:0", "--listen", &listen]);
    assert_eq!(broker.listens[1], listen);
    let mut tcp = Client::connect(&broker);
    tcp.subscribe("a");
    let stream = UnixStream::connect(&path).expect("the broker listens on its path");
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let (mut socket, _) = tungstenite::client("ws://localhost/", stream).expect("a handshake");
    let publish = r#"{"type":"publish","topic":"a","message":"over a path"}"#;
    socket
        .send(tungstenite::Message::text(publish))
        .expect("a message can be sent");
    let ack = socket.read().expect("an ack");
    assert_eq!(parse(ack.to_text().expect("text"))["action"], "publish");
    assert_eq!(tcp.delivery()["message"], "over a path");
    // It lives, so nobody takes its path, and it goes on listening there.
    refuses(
        &["--listen", &listen, "--admin", "off"],
        &[&path.display().to_string()],
    );
    drop(UnixStream::connect(&path).expect("still there"));
    broker.terminate();
    assert_eq!(broker.wait_exit().code(), Some(0));

    // What is no socket is nobody's to remove.
    fs::write(&path, "precious")
        .or_else(|_| {
            fs::remove_file(&path)?;
            fs::write(&path, "precious")
        })
        .expect("a file in its place");
    refuses(
        &["--listen", &listen, "--admin", "off"],
        &[&path.display().to_string()],
    );
    assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
}

#[test]
fn ipv6_is_a_listener() {
    if let Err(error) = TcpListener::bind("[::1]:0") {
        println!("skipped: this machine has no IPv6 ({error})");
        return;
    }
    let broker = Broker::start(&["--listen", "[::1]:0"]);
    assert!(
        broker.listen().starts_with("[::1]:"),
        "{}",
        broker.ready_line
    );
    let mut client = Client::connect(&broker);
    client.subscribe("a");
    client.publish("a", json!(1));
    assert_eq!(client.delivery()["message"], 1);
}

#[test]
fn bad_usage_is_exit_2() {
    refuses(&["--no-such-flag"], &["--no-such-flag"]);
    refuses(&["dance"], &["dance"]);
    refuses(&["--listen", "nowhere"], &["nowhere"]);
    refuses(&["--listen", "127.0.0.1:99999"], &["99999"]);
    refuses(&["--shards", "0"], &["shards"]);
    refuses(&["--shards", "many"], &["many"]);
    refuses(&["--io", "magic"], &["magic"]);
    refuses(&["--slow", "prices=sometimes"], &["sometimes"]);
    refuses(&["--log", "loud"], &["loud"]);
    refuses(&["--config", "/no/such/file.toml"], &["/no/such/file.toml"]);
    refuses(
        &["--allow-origin", "example.com/path"],
        &["example.com/path"],
    );
}

#[test]
fn beyond_loopback_somebody_must_have_said_so() {
    refuses(
        &["--listen", "0.0.0.0:0", "--admin", "off"],
        &["0.0.0.0", "--insecure-open"],
    );
    refuses(
        &[
            "--listen",
            "127.0.0.1:0",
            "--listen",
            "0.0.0.0:0",
            "--admin",
            "off",
        ],
        &["--insecure-open"],
    );
    let broker = Broker::start(&["--listen", "0.0.0.0:0", "--insecure-open"]);
    let port = broker.listen().rsplit(':').next().expect("a port");
    Client::connect_to(&format!("127.0.0.1:{port}"), "/").settle();
}

#[test]
fn configuration_files_are_checked_with_line_and_nearest_key() {
    let check = |text: &str, words: &[&str]| {
        let file = config_file(text);
        let path = file.path().to_str().expect("a path of text");
        refuses(&["check-config", "--config", path], words);
        refuses(&["--config", path], words);
    };
    check(
        "shards = 2\nmax_mesage = 5\n",
        &["max_mesage", "max_message", "2"],
    );
    check("shards = \"two\"\n", &["shards", "1"]);
    check("shards = \n", &["1"]);
    check(
        "[[access]]\nfilter = \"a..b\"\nwho = \"anyone\"\n",
        &["a..b"],
    );
    check(
        "[[access]]\nfilter = \"a\"\nwho = \"everyone\"\n",
        &["everyone"],
    );
    check(
        "[[listener]]\naddr = \"127.0.0.1:0\"\nclient_servces = true\n",
        &["client_servces", "client_services", "3"],
    );

    let good = config_file("shards = 3\nmax_message = 1000\n");
    let finished = run(&[
        "check-config",
        "--config",
        good.path().to_str().expect("text"),
    ]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
}

#[test]
fn the_default_configuration_is_a_configuration() {
    let defaults = run(&["default-config"]);
    assert_eq!(defaults.code, Some(0), "{defaults:?}");
    assert!(
        defaults.stdout.contains("max_message"),
        "{}",
        defaults.stdout
    );
    let file = config_file(&defaults.stdout);
    let checked = run(&[
        "check-config",
        "--config",
        file.path().to_str().expect("text"),
    ]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let broker = Broker::start_with_config(&defaults.stdout, &["--listen", "127.0.0.1:0"]);
    Client::connect(&broker).settle();
}

#[test]
fn flags_beat_the_environment_and_that_beats_the_file() {
    /// The largest message that this broker takes, of these.
    fn largest(broker: &Broker) -> usize {
        let takes = |size: usize| {
            let mut client = Client::connect(broker);
            client.send(format!(r#"{{"type":"ping"}}{}"#, " ".repeat(size - 15)));
            client.try_next_text().is_ok()
        };
        [1000, 2000, 3000, 65_536]
            .into_iter()
            .rev()
            .find(|size| takes(*size))
            .expect("some size")
    }
    assert_eq!(largest(&Broker::start(&[])), 65_536);
    assert_eq!(
        largest(&Broker::start_with_config("max_message = 1000\n", &[])),
        1000
    );
    let env = [("PUBSUB_MAX_MESSAGE", "2000")];
    assert_eq!(largest(&Broker::start_with_env(&env, &[])), 2000);
    assert_eq!(
        largest(&Broker::start_with_env(
            &env,
            &[option::MAX_MESSAGE, "3000"]
        )),
        3000
    );
    let file = config_file("max_message = 1000\n");
    let path = file.path().to_str().expect("text");
    assert_eq!(
        largest(&Broker::start_with_env(&env, &["--config", path])),
        2000
    );
    refuses(&["--max-message", "none"], &["max-message"]);
}

#[test]
fn version_and_help() {
    let version = run(&["--version"]);
    assert_eq!(
        (version.code, version.stdout.as_str()),
        (Some(0), "pubsub 0.1.0\n")
    );
    let help = run(&["--help"]);
    assert_eq!(help.code, Some(0));
    for word in [
        "--listen",
        "--shards",
        "--slow",
        "check-config",
        "default-config",
        "pub",
        "sub",
    ] {
        assert!(help.stdout.contains(word), "no {word} in {}", help.stdout);
    }
}

/// The next line that a command prints.
fn next(lines: &Receiver<String>, what: &str) -> String {
    lines
        .recv_timeout(DEADLINE)
        .unwrap_or_else(|error| panic!("no {what}: {error}"))
}

#[test]
fn pub_and_sub_are_clients() {
    let broker = Broker::start(&[]);
    let url = format!("ws://{}/", broker.listen());
    let mut sub = command()
        .args(["sub", "news", "=exact", "--url", &url])
        .spawn()
        .expect("the binary starts");
    let stdout = lines(sub.stdout.take().expect("stdout is piped"));
    let stderr = lines(sub.stderr.take().expect("stderr is piped"));
    assert_eq!(next(&stderr, "subscription"), "subscribed news");
    assert_eq!(next(&stderr, "subscription"), "subscribed =exact");
    // JSON if it parses, else a string.
    for (topic, message, line) in [
        ("news.uk", r#"{"a": [1, 2]}"#, "news.uk\t{\"a\":[1,2]}"),
        ("news", "hello there", "news\t\"hello there\""),
        ("news", "7", "news\t7"),
        ("exact", "\"quoted\"", "exact\t\"quoted\""),
        ("exact", "line\nbreak", "exact\t\"line\\nbreak\""),
    ] {
        let finished = run(&["pub", topic, message, "--url", &url]);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let printed = next(&stdout, "delivery");
        let (name, value) = printed.split_once('\t').expect("a tab");
        let (wanted_name, wanted) = line.split_once('\t').expect("a tab");
        assert_eq!(name, wanted_name, "{printed}");
        let value: Value = serde_json::from_str(value).expect("JSON behind the tab");
        assert_eq!(
            value,
            serde_json::from_str::<Value>(wanted).expect("JSON"),
            "{printed}"
        );
    }
    let refused = run(&["pub", "a..b", "1", "--url", &url]);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(refused.stderr.contains("topic"), "{refused:?}");
    let nobody = run(&["pub", "a", "1", "--url", "ws://127.0.0.1:1/"]);
    assert_ne!(nobody.code, Some(0), "{nobody:?}");
    assert!(nobody.stderr.contains("127.0.0.1:1"), "{nobody:?}");
    // When the broker goes, so does the command.
    broker.terminate();
    assert!(
        wait_exit(&mut sub, DEADLINE).is_some(),
        "sub outlives its broker"
    );
}

#[test]
fn operators_see_the_broker() {
    let broker = Broker::start(&["--shards", "2"]);
    let (mut one, mut two) = pair_on_two_shards(&broker);
    two.subscribe("a");
    one.publish("a", json!(1));
    two.settle();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(admin::get(broker.admin(), path).status, 200, "{path}");
    }
    let stats = broker.stats_at_rest();
    for name in [
        "connections",
        "subscriptions",
        "publishes",
        "deliveries_due",
        "delivered",
        "announced",
        "dropped",
        "closed_slow",
        "outbox_bytes",
        "cq_overflow",
    ] {
        let sum = stats[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no {name} in {stats}"));
        let shards = stats["shards"].as_array().expect("shards");
        assert_eq!(shards.len(), 2);
        let added: u64 = shards
            .iter()
            .map(|shard| shard[name].as_u64().expect(name))
            .sum();
        assert_eq!(sum, added, "{name}");
    }
    assert_eq!(
        (&stats["publishes"], &stats["delivered"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(stats["subscriptions"], 1);
    let listed = broker.stats_of_connections();
    let listed = listed["connections"].as_array().expect("a list");
    for client in [&mut one, &mut two] {
        let id = client.whoami();
        let view = listed
            .iter()
            .find(|view| view["id"] == json!(id))
            .expect("every connection");
        let address = client
            .stream()
            .local_addr()
            .expect("an address")
            .to_string();
        assert_eq!(view["address"], json!(address), "{view}");
        assert!(
            view["outbox_bytes"].is_u64() && view["shard"].is_u64(),
            "{view}"
        );
    }
    let metrics = admin::get(broker.admin(), "/metrics");
    assert_eq!(metrics.status, 200);
    for line in ["pubsub_connections", "pubsub_publishes_total", "# EOF"] {
        assert!(metrics.body.contains(line), "no {line} in {}", metrics.body);
    }
    for line in metrics.body.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.starts_with("pubsub_"), "{line}");
    }
    assert_eq!(admin::get(broker.admin(), "/nope").status, 404);
    // A page whose name was bound to this machine reads nothing.
    let mut rebound = Raw::connect(broker.admin());
    rebound.send(b"GET /stats HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    let response = admin::parse(&rebound.rest()).expect("a response");
    assert!(matches!(response.status, 400 | 403 | 421), "{response:?}");
}

#[test]
fn a_post_reaches_subscribers_on_every_shard() {
    let broker = Broker::start(&[]);
    let (mut one, mut two) = pair_on_two_shards(&broker);
    one.subscribe("news");
    two.subscribe("news.uk");
    let mut check = |path: &str, body: &str, topic: &str, message: Value| {
        let response = admin::post(broker.admin(), path, body);
        assert_eq!(response.status, 200, "{path}: {response:?}");
        for (client, context) in [(&mut one, "news"), (&mut two, "news.uk")] {
            let text = client.delivery_text();
            let delivery = parse(&text);
            assert_eq!(
                (
                    &delivery["type"],
                    &delivery["topic"],
                    &delivery["message"],
                    &delivery["context"]
                ),
                (&json!("publish"), &json!(topic), &message, &json!(context))
            );
            assert!(delivery["timestamp"].is_string(), "{text}");
            assert!(
                text.ends_with(&format!(r#","context":"{context}"}}"#)),
                "{text}"
            );
        }
    };
    check("/publish/news.uk", r#"{"a":1}"#, "news.uk", json!({"a": 1}));
    check("/publish/news.uk", "7", "news.uk", json!(7));
    check("/publish/news.uk", "no JSON", "news.uk", json!("no JSON"));
    check(
        "/publish/news.uk.caf%C3%A9%20x",
        "\"x\"",
        "news.uk.café x",
        json!("x"),
    );
    for (path, body, status) in [
        ("/publish/a..b", "1", 400),
        ("/publish/*", "1", 400),
        ("/publish/", "1", 400),
        ("/publish/%zz", "1", 400),
        ("/publish/a", &*"x".repeat(70_000), 413),
    ] {
        let response = admin::post(broker.admin(), path, body);
        assert_eq!(response.status, status, "{path}: {response:?}");
    }
    assert_eq!(admin::get(broker.admin(), "/publish/a").status, 405);
    // A web page of elsewhere cannot use the operator's browser for it.
    let response = admin::request(
        broker.admin(),
        "POST",
        "/publish/news.uk",
        &[("Origin", "http://evil.example")],
        "1",
    );
    assert_eq!(response.status, 403, "{response:?}");
    one.expect_nothing();
    two.expect_nothing();
}

#[test]
fn beyond_loopback_a_post_needs_the_key() {
    let post = |broker: &Broker, headers: &[(&str, &str)]| {
        let port = broker.admin().rsplit(':').next().expect("a port");
        admin::request(
            &format!("127.0.0.1:{port}"),
            "POST",
            "/publish/a",
            headers,
            "1",
        )
        .status
    };
    let none = Broker::start(&["--admin", "0.0.0.0:0"]);
    assert_eq!(post(&none, &[]), 403);
    let mut broker = Broker::start(&["--admin", "0.0.0.0:0", option::ADMIN_KEY, "correct-horse"]);
    let mut client = Client::connect(&broker);
    client.subscribe("a");
    assert_eq!(post(&broker, &[]), 401);
    assert_eq!(
        post(&broker, &[("Authorization", "Bearer correct-hors")]),
        401
    );
    assert_eq!(
        post(&broker, &[("Authorization", "Basic correct-horse")]),
        401
    );
    client.expect_nothing();
    assert_eq!(
        post(&broker, &[("Authorization", "Bearer correct-horse")]),
        200
    );
    assert_eq!(client.delivery()["message"], 1);
    broker.terminate();
    broker.wait_exit();
    assert!(
        !broker.log_text().contains("correct-horse"),
        "a secret in the log"
    );
}

#[test]
fn logs_can_be_json() {
    let mut broker = Broker::start(&["--log-format", "json"]);
    let mut foreign = Raw::connect(broker.listen());
    let head = raw::upgrade_head(broker.listen(), &[("Origin", "http://evil.example")]);
    foreign.send(head.as_bytes());
    foreign.rest();
    broker.log_line("--allow-origin http://evil.example");
    broker.terminate();
    assert_eq!(broker.wait_exit().code(), Some(0));
    for line in broker.log_text().lines() {
        let value = parse(line);
        assert!(value["level"].is_string(), "{line}");
    }
    let mut quiet = Broker::start(&["--log", "off"]);
    quiet.terminate();
    assert_eq!(quiet.wait_exit().code(), Some(0));
    assert_eq!(quiet.log_text(), "");
}

#[test]
fn sigterm_drains() {
    let mut broker = Broker::start(&["--drain-delay", "2000"]);
    let address = broker.listen().to_owned();
    let (mut one, mut two) = pair_on_two_shards(&broker);
    two.subscribe("a");
    broker.terminate();
    wait_for("/readyz to fail", || {
        (admin::get(broker.admin(), "/readyz").status == 503).then_some(())
    });
    // It is not ready for more, but whoever comes before the load balancer has noticed is served.
    let mut late = Client::connect(&broker);
    late.subscribe("a");
    one.publish("a", json!("last"));
    assert_eq!(late.delivery()["message"], "last");
    assert_eq!(two.delivery()["message"], "last");
    for client in [&mut one, &mut two, &mut late] {
        client.expect_close(1001);
    }
    assert_eq!(broker.wait_exit().code(), Some(0));
    assert_eq!(broker.more_stdout(), Vec::<String>::new());
    // The port is free at once.
    let next = Broker::start(&["--listen", &address]);
    Client::connect(&next).settle();
    next.signal(Signal::KILL);
    let mut next = next;
    next.wait_exit();
    Client::connect(&Broker::start(&["--listen", &address])).settle();
}

#[test]
fn sigint_drains_as_well() {
    let mut broker = Broker::start(&[]);
    let mut client = Client::connect(&broker);
    client.settle();
    broker.signal(Signal::INT);
    client.expect_close(1001);
    assert_eq!(broker.wait_exit().code(), Some(0));
}

#[test]
fn an_idle_broker_drains_at_once() {
    let mut broker = Broker::start(&[]);
    broker.terminate();
    assert_eq!(broker.wait_exit().code(), Some(0));
}

#[test]
fn a_second_sigterm_does_not_wait() {
    let mut broker = Broker::start(&["--drain-delay", "600000"]);
    let mut client = Client::connect(&broker);
    client.settle();
    broker.terminate();
    wait_for("/readyz to fail", || {
        (admin::get(broker.admin(), "/readyz").status == 503).then_some(())
    });
    client.settle();
    assert!(!broker.has_exited());
    broker.terminate();
    broker.wait_exit();
}

#[test]
fn a_client_that_does_not_close_does_not_hold_a_drain() {
    let mut broker = Broker::start(&[]);
    // One says nothing after the close frame, one is within its handshake.
    let _mute = Raw::upgrade(&broker);
    let mut stuck = Raw::connect(broker.listen());
    stuck.send(b"GET / HTTP/1.1\r\n");
    broker.terminate();
    assert_eq!(broker.wait_exit().code(), Some(0));
}

#[test]
fn one_shard_and_many_speak_alike() {
    for shards in ["1", "3", "8"] {
        let broker = Broker::start(&["--shards", shards]);
        let stats = broker.stats();
        assert_eq!(
            stats["shards"].as_array().map(Vec::len),
            shards.parse().ok()
        );
        let mut clients: Vec<Client> = (0..12).map(|_| Client::connect(&broker)).collect();
        for client in &mut clients {
            client.subscribe("all");
        }
        for (number, client) in clients.iter_mut().enumerate() {
            client.publish("all", json!(number));
        }
        for client in &mut clients {
            let mut got: Vec<Value> = (0..12)
                .map(|_| client.delivery()["message"].clone())
                .collect();
            // One publisher each: no order is promised between them.
            got.sort_by_key(Value::as_u64);
            assert_eq!(got, (0..12).map(|number| json!(number)).collect::<Vec<_>>());
            client.expect_nothing();
        }
    }
}

/// The driver that every kernel has keeps the same promises; here that it runs at all.
#[test]
fn epoll_can_be_asked_for() {
    let broker = Broker::start(&["--io", "epoll"]);
    let (mut one, mut two) = pair_on_two_shards(&broker);
    two.subscribe("a");
    let publishing = thread::spawn(move || {
        for number in 0..200 {
            one.publish("a", json!(number));
        }
    });
    for number in 0..200 {
        assert_eq!(two.delivery()["message"], number);
    }
    publishing.join().expect("the publisher");
}
