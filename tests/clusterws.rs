//! ClusterWS over real sockets: its generations, what it relays and to whom, its heartbeats, what it makes of nonsense,
//! and its bounds.

mod common;

use std::thread;

use common::broker::sum_in;
use common::client::parse;
use common::malformed::MALFORMED;
use common::raw::{BINARY, CLOSE, FIN, Frame, PING, TEXT, connect_narrow, frame, header};
use common::raw::{upgrade_head, upgrade_head_at};
use common::{Broker, Client, Clusterws, DEADLINE, End, Raw, admin, clusterws, option};
use serde_json::json;

const PATHS: [&str; 4] = [
    "/clusterws",
    "/clusterws?binary=1",
    "/clusterws?v=1",
    "/clusterws?v=0",
];

fn connect(broker: &Broker) -> Clusterws {
    Clusterws::connect(broker, PATHS[0])
}

/// Two that live on different shards.
fn pair(broker: &Broker) -> (Clusterws, Clusterws) {
    let mut found = [None, None];
    for _ in 0..64 {
        let client = connect(broker);
        let shard = broker.shard_at(&client.address());
        if found[shard].is_none() {
            found[shard] = Some(client);
        }
        if let [Some(_), Some(_)] = &found {
            break;
        }
    }
    let found = found.map(|client| client.expect("a client on each shard"));
    found.into()
}

fn config(ping_ms: u64, binary: bool) -> String {
    format!(r##"{{"#":["s","c",{{"ping":{ping_ms},"binary":{binary}}}]}}"##)
}

#[test]
fn the_configuration_comes_first_as_path_listener_and_option_say() {
    let (text, binary) = (config(20_000, false), config(20_000, true));
    let oldest = r#"{"m":["s","c",{"ping":20000}]}"#.to_owned();
    let check = |broker: &Broker, listen: usize, path: &str, expected: &str| {
        let address = &broker.listens[listen];
        let raw = Raw::connect(address).upgraded_at(address, path);
        let mut client = Clusterws::over(raw);
        assert_eq!(client.config, expected, "{path}");
        client.subscribe("room");
        client.publish("room", "1");
        assert_eq!(client.take_kept().len(), 1, "{path}");
    };
    let broker = Broker::start(&[]);
    for (path, expected) in [
        ("/clusterws", &text),
        ("/clusterws?v=3", &text),
        ("/clusterws?binary=1", &binary),
        ("/clusterws?v=1", &text),
        ("/clusterws?v=2&binary=1", &binary),
        ("/clusterws?v=0", &oldest),
        ("/clusterws?binary=1&v=0", &oldest),
        ("/clusterws?v=7&token=x&binary=yes", &text),
    ] {
        check(&broker, 0, path, expected);
    }
    let broker = Broker::start(&["--clusterws-binary"]);
    check(&broker, 0, "/clusterws", &binary);
    check(&broker, 0, "/clusterws?v=1", &binary);
    check(&broker, 0, "/clusterws?v=0", &oldest);
    check(&broker, 0, "/clusterws?binary=0", &text);

    // Old clients connect to `/`, since their servers had no other path.
    let broker = Broker::start_with_config(
        r#"
        [[listener]]
        addr = "127.0.0.1:0"
        paths = { native = "/live", clusterws = "/" }
        clusterws_generation = 0

        [[listener]]
        addr = "127.0.0.1:0"
        clusterws_generation = 1
        clusterws_binary = true

        [[listener]]
        addr = "127.0.0.1:0"
        protocols = ["native"]
        "#,
        &[],
    );
    check(&broker, 0, "/", &oldest);
    check(&broker, 0, "/?v=3", &text);
    Client::connect_to(&broker.listens[0], "/live").settle();
    check(&broker, 1, "/clusterws", &binary);
    check(&broker, 1, "/clusterws?binary=0", &text);
    Client::connect_to(&broker.listens[1], "/").settle();
    // What is not spoken there has no path.
    Client::connect_to(&broker.listens[2], "/clusterws").settle();
}

#[test]
fn heads_are_judged_as_on_any_path() {
    let broker = Broker::start(&[]);
    let host = broker.listen();
    let status = |head: String| {
        let mut raw = Raw::connect(host);
        raw.send(head.as_bytes());
        let head = raw.head();
        head.split(' ').nth(1).expect("a status").to_owned()
    };
    let upgrade = |origin: &str| upgrade_head_at("/clusterws", host, &[("Origin", origin)]);
    assert_eq!(status(upgrade("https://evil.example")), "403");
    assert_eq!(status(upgrade("null")), "403");
    assert_eq!(status(upgrade("http://localhost:3000")), "101");
    broker.log_line("--allow-origin https://evil.example");
    assert_eq!(admin::get(host, "/clusterws").status, 426);
    assert_eq!(admin::get(host, "/clusterws?v=1").status, 426);
    assert_eq!(admin::get(host, "/clusterws/x").status, 404);
}

#[test]
fn only_subscribers_are_relayed_and_they_get_their_own() {
    let broker = Broker::start(&[]);
    let (mut one, mut two) = pair(&broker);
    let message = r##"{"#":["p","room",{"x":[1.0,"é"]}]}"##;
    let data = r#"{"x":[1.0,"é"]}"#;
    two.subscribe("room");
    one.publish("room", data);
    two.expect_nothing();
    one.subscribe("room");
    one.publish("room", data);
    assert_eq!(one.take_kept(), [message]);
    assert_eq!(two.next_text(), message);
    // Subscribing twice is subscribing once.
    one.subscribe("room");
    one.publish("room", data);
    assert_eq!(one.take_kept(), [message]);
    assert_eq!(two.next_text(), message);
    one.unsubscribe("room");
    one.publish("room", data);
    two.expect_nothing();
    // What is left out is null, what is too much is left out.
    two.say(r#"["p","room"]"#);
    assert_eq!(two.next_text(), r##"{"#":["p","room",null]}"##);
    two.say(r#"["p","room",1,2,3]"#);
    assert_eq!(two.next_text(), r##"{"#":["p","room",1]}"##);
    // The oldest server relayed everything.
    let mut old = Clusterws::connect(&broker, "/clusterws?v=0");
    old.publish("room", data);
    assert_eq!(two.next_text(), message);
    old.expect_nothing();
    one.expect_nothing();
    two.expect_nothing();
}

#[test]
fn both_kinds_of_frames_are_taken_at_any_time() {
    let broker = Broker::start(&[]);
    let mut text = connect(&broker);
    let mut binary = Clusterws::connect(&broker, "/clusterws?binary=1");
    for client in [&mut text, &mut binary] {
        client.subscribe("room");
    }
    let utf8 = "{\"#\":[\"p\",\"room\",\"\u{e9}\u{1F600}\"]}".as_bytes();
    // As JavaScript clients write it: each character is a byte.
    let latin1 = b"{\"#\":[\"p\",\"room\",\"\xe9 \xac\"]}";
    for (sender, bytes, expected, ascii) in [
        (
            0,
            frame(FIN | TEXT, utf8),
            "é\u{1F600}",
            r"\u00e9\ud83d\ude00",
        ),
        (
            0,
            frame(FIN | BINARY, utf8),
            "é\u{1F600}",
            r"\u00e9\ud83d\ude00",
        ),
        (0, frame(FIN | BINARY, latin1), "é ¬", r"\u00e9 \u00ac"),
        (
            1,
            frame(FIN | TEXT, utf8),
            "é\u{1F600}",
            r"\u00e9\ud83d\ude00",
        ),
        (1, frame(FIN | BINARY, latin1), "é ¬", r"\u00e9 \u00ac"),
    ] {
        let sender = if sender == 0 { &mut text } else { &mut binary };
        sender.raw().send(&bytes);
        let message = |data: &str| format!(r##"{{"#":["p","room","{data}"]}}"##);
        assert_eq!(text.next_text(), message(expected));
        assert_eq!(binary.next_text(), message(ascii));
    }
    // In text it must be UTF-8, which is a rule of WebSocket.
    text.raw().send(&frame(FIN | TEXT, latin1));
    text.expect_close(1007);
}

#[test]
fn events_go_to_a_service_and_come_back() {
    let broker = Broker::start_with_config(
        "[[listener]]\naddr = \"127.0.0.1:0\"\nclient_services = true\n",
        &[],
    );
    let mut service = Client::connect(&broker);
    service.handle("hi");
    for path in PATHS {
        let mut client = Clusterws::connect(&broker, path);
        client.say(r#"["e","hi",[1.0,"é"]]"#);
        let event = service.next_text();
        assert!(
            event.starts_with(r#"{"type":"event","event":"hi","data":[1.0,"é"],"#),
            "{event}"
        );
        let from = parse(&event)["from"].clone();
        service.send_json(&json!({"type": "event", "event": "yo", "data": {"é": 2}, "to": from}));
        let key = if path.contains("v=0") { "m" } else { "#" };
        let data = if path.contains("binary=1") {
            r#"{"\u00e9":2}"#
        } else {
            r#"{"é":2}"#
        };
        assert_eq!(
            client.next_text(),
            format!(r#"{{"{key}":["e","yo",{data}]}}"#)
        );
        // It answers no requests, and whoever asks is told.
        let reply = service.request(json!({"event": "yo", "data": 1, "to": from}));
        assert_eq!(reply["error"]["code"], "no_handler");
        // Nobody handles this, and nobody is told.
        client.say(r#"["e","nobody",1]"#);
        client.expect_nothing();
    }
    assert_eq!(broker.sum("requests_failed"), 2 * PATHS.len() as u64);
    service.expect_nothing();
}

#[test]
fn rights_are_asked_and_refusals_are_silent() {
    let broker = Broker::start_with_config(
        "[[access]]\nfilter = \"open\"\nwho = \"anyone\"\nsubscribe = true\npublish = false\n",
        &[],
    );
    let mut client = connect(&broker);
    client.say(r#"["s","s","secret"]"#);
    client.say(r#"["s","s","open.room"]"#);
    client.say(r#"["p","open.room",1]"#);
    // Nothing of its own could tell that it was read: a frame that WebSocket answers does.
    client.raw().send(&frame(FIN | PING, b"read?"));
    let pong = client.raw().frame().expect("a pong");
    assert_eq!(pong.payload, b"read?");
    assert_eq!(broker.sum("refusals"), 2);
    admin::post(broker.admin(), "/publish/secret", "1");
    admin::post(broker.admin(), "/publish/open.room", "2");
    assert_eq!(client.next_text(), r##"{"#":["p","open.room",2]}"##);
}

/// The next frame that is no answer to a ping, and how many pings came before it; each is answered by `answer`.
fn pings_until(raw: &mut Raw, most: usize, answer: impl Fn(&Frame) -> Vec<u8>) -> (usize, Frame) {
    let mut pings = 0;
    loop {
        let got = raw.frame().expect("a frame");
        if clusterws::pong(&got).is_none() || pings == most {
            return (pings, got);
        }
        raw.send(&answer(&got));
        pings += 1;
    }
}

#[test]
fn pings_come_in_time_and_the_silent_are_gone() {
    let broker = Broker::start(&[
        option::CLUSTERWS_PING_INTERVAL_MS,
        "100",
        option::PING_INTERVAL_MS,
        "100",
        option::PING_TIMEOUT_MS,
        "2000",
    ]);
    let cases = [
        ("/clusterws", FIN | BINARY, "9"),
        ("/clusterws?binary=1", FIN | BINARY, "9"),
        ("/clusterws?v=1", FIN | TEXT, "#0"),
        ("/clusterws?v=1&binary=1", FIN | BINARY, "#0"),
        ("/clusterws?v=0", FIN | TEXT, "#0"),
    ];
    thread::scope(|scope| {
        for (path, first, ping) in cases {
            let broker = &broker;
            let key = if path.contains("v=0") { "m" } else { "#" };
            let open = move || {
                let mut raw = Raw::upgrade_at(broker, path);
                let config = raw.frame().expect("a configuration");
                let told = String::from_utf8(config.payload).expect("UTF-8");
                assert!(told.contains(r#""ping":100"#), "{told}");
                raw
            };
            // Whatever it says meanwhile, the pings come: a client counts them and leaves without.
            for says in ["its pong", "anything", "nothing"] {
                scope.spawn(move || {
                    let mut raw = open();
                    let most = if says == "nothing" { usize::MAX } else { 25 };
                    let (pings, last) = pings_until(&mut raw, most, |got| {
                        assert_eq!((got.first, &got.payload[..]), (first, ping.as_bytes()));
                        match says {
                            "its pong" => clusterws::pong(got).expect("a ping"),
                            "anything" => {
                                frame(FIN | TEXT, format!(r#"{{"{key}":["e","x",1]}}"#).as_bytes())
                            }
                            _ => Vec::new(),
                        }
                    });
                    if says != "nothing" {
                        assert_eq!(pings, most, "{path}: {last:?} to one who says {says}");
                        return;
                    }
                    // 2.1 s of them, with 90 to 100 ms between two; on a busy machine fewer.
                    assert!((8..=24).contains(&pings), "{pings} pings, {path}");
                    assert_eq!(last.close_code(), Some(4009), "{path}");
                });
            }
        }
    });
    assert_eq!(broker.stats()["closed"]["ping timeout"], cases.len());
}

#[test]
fn heartbeats_of_a_client_s_own_are_answered() {
    let broker = Broker::start(&[]);
    let mut client = Clusterws::connect(&broker, "/clusterws?v=1");
    client.send("#4");
    assert_eq!(client.next_text(), "#3");
    // A pong that nobody asked for is no nonsense.
    for _ in 0..20 {
        client.send("#1");
    }
    client.settle();
}

/// Sends each of these as a text; nothing comes back, nothing happens, and the connection stays.
fn ignored(broker: &Broker, texts: &[&str]) {
    for texts in texts.chunks(10) {
        let mut client = connect(broker);
        client.subscribe("t");
        for text in texts {
            client.send(text);
            client.settle();
            assert_eq!(client.take_kept(), [""; 0], "{text}");
        }
    }
}

#[test]
fn nonsense_is_ignored_up_to_a_bound() {
    let broker = Broker::start(&[]);
    let mut witness = Client::connect(&broker);
    witness.subscribe("t");
    let published = MALFORMED.map(|form| format!(r##"{{"#":["p","t",{form}]}}"##));
    let published: Vec<&str> = published.iter().map(String::as_str).collect();
    ignored(&broker, &MALFORMED);
    ignored(&broker, &published);
    let nested = |depth: usize| {
        let data = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        format!(r##"{{"#":["p","t",{data}]}}"##)
    };
    let deepest = "[".repeat(60_000);
    ignored(
        &broker,
        &[
            // Of another generation, or none.
            r#"{"m":["p","t",1]}"#,
            r#"["p","t",1]"#,
            r#"{"action":"publish","channel":"t","data":1}"#,
            "#1",
            "#4",
            "A",
            "9",
            // No array, or a wrong one.
            "{}",
            r##"{"#":"p"}"##,
            r##"{"#":{"0":"p","1":"t","2":1}}"##,
            r##"{"#":[]}"##,
            r##"{"#":[1,"t",1]}"##,
            r##"{"#":[["p"],"t",1]}"##,
            r##"{"#":["p","t",1],"#":null}"##,
            // Events need a name.
            r##"{"#":["e"]}"##,
            r##"{"#":["e",null,1]}"##,
            r##"{"#":["e","",1]}"##,
            // 64 levels, the envelope's two among them.
            &nested(63),
            &nested(64),
            &nested(10_000),
            &deepest,
        ],
    );
    // Not nonsense, but nothing either; so it may come as often as it likes.
    let mut client = connect(&broker);
    client.subscribe("t");
    for text in [
        r##"{"#":["x","t",1]}"##,
        r##"{"#":["s","x","t"]}"##,
        r##"{"#":["s","c",{"ping":1}]}"##,
        r##"{"#":["s","s"]}"##,
        r##"{"#":["s","s",""]}"##,
        r##"{"#":["s","s",null]}"##,
        r##"{"#":["s","u",5]}"##,
        r##"{"#":["p"]}"##,
        r##"{"#":["p","",1]}"##,
        r##"{"#":["p",["t"],1]}"##,
        r##"{"#":["p","\ud800",1]}"##,
    ] {
        for _ in 0..3 {
            client.send(text);
        }
        client.settle();
    }
    client.expect_nothing();
    client.send(&nested(62));
    assert_eq!(client.next_text(), nested(62));
    assert!(witness.delivery_text().contains(&"[".repeat(62)));
    witness.expect_nothing();

    // Ten times a text is forgiven.
    for (path, text) in [
        (PATHS[0], "{"),
        (PATHS[1], "{}"),
        (PATHS[2], "#9"),
        (PATHS[3], r##"{"#":["p","t",1]}"##),
    ] {
        let mut client = Clusterws::connect(&broker, path);
        for _ in 0..10 {
            client.send(text);
        }
        client.settle();
        client.send(text);
        client.expect_close(1007);
    }
    let closed = &broker.stats()["closed"];
    assert_eq!(closed["bad payload"], PATHS.len());
    assert_eq!(closed["internal error"], 0);
}

#[test]
fn channels_have_a_length() {
    let broker = Broker::start(&[]);
    let (mut one, mut two) = pair(&broker);
    let longest = "é".repeat(512);
    for client in [&mut one, &mut two] {
        client.subscribe(&longest);
        client.subscribe(&format!("{longest}x"));
        client.subscribe("");
    }
    // The longest, and the one that both have of their own.
    assert_eq!(broker.sum("subscriptions"), 4);
    one.publish(&longest, "1");
    let expected = format!(r##"{{"#":["p","{longest}",1]}}"##);
    assert_eq!(one.take_kept(), [&expected[..]]);
    assert_eq!(two.next_text(), expected);
    one.publish(&format!("{longest}x"), "1");
    one.publish("", "1");
    one.expect_nothing();
    two.expect_nothing();
    // A name is a name, whatever is in it.
    for name in [
        "__proto__",
        "toString",
        "#",
        "*",
        "a..b",
        r"\u0000\n",
        r#"\"q\""#,
        "own",
    ] {
        one.subscribe(name);
        one.publish(name, "1");
        assert_eq!(one.take_kept().len(), 1, "{name}");
    }
}

#[test]
fn a_message_has_a_size() {
    let broker = Broker::start(&[]);
    for path in PATHS {
        let mut client = Clusterws::connect(&broker, path);
        client.subscribe("t");
        let empty = r##"{"#":["p","t",""]}"##.len();
        let fill = "m".repeat(65_536 - empty);
        client.say(&format!(r#"["p","t","{fill}"]"#));
        assert_eq!(client.next_text().len(), 65_536, "{path}");
        // One more is refused by its header.
        client.raw().send(&header(FIN | TEXT, 65_537));
        client.expect_close(1009);
    }
}

#[test]
fn subscriptions_end_at_the_limit_in_silence() {
    let broker = Broker::start(&[option::MAX_SUBSCRIPTIONS, "3"]);
    let mut client = connect(&broker);
    let mut publisher = Client::connect(&broker);
    for name in ["a", "b", "c", "d", "a"] {
        client.say(&format!(r#"["s","s","{name}"]"#));
    }
    client.say(r#"["p","a",0]"#);
    assert_eq!(client.next_text(), r##"{"#":["p","a",0]}"##);
    assert_eq!(broker.sum("subscriptions"), 3);
    for name in ["d", "c", "b", "a"] {
        publisher.publish(name, json!(1));
    }
    for name in ["c", "b", "a"] {
        assert_eq!(client.next_text(), format!(r##"{{"#":["p","{name}",1]}}"##));
    }
    // One that ends makes room.
    client.say(r#"["s","u","b"]"#);
    client.say(r#"["s","s","d"]"#);
    client.say(r#"["p","d",2]"#);
    assert_eq!(client.next_text(), r##"{"#":["p","d",2]}"##);
}

/// One that reads slowly, with its configuration read and one subscription.
fn slow_reader(broker: &Broker, channel: &str) -> Clusterws {
    let raw = Raw::over(connect_narrow(broker.listen()));
    let mut client = Clusterws::over(raw.upgraded_at(broker.listen(), "/clusterws"));
    client.say(&format!(r#"["s","s","{channel}"]"#));
    client.say(&format!(r#"["p","{channel}",0]"#));
    client.next_text();
    client
}

#[test]
fn a_slow_reader_is_closed_and_others_get_everything() {
    let broker = Broker::start(&[option::LINGER_MS, "1000"]);
    let mut publisher = Client::connect(&broker);
    let mut reader = connect(&broker);
    reader.subscribe("flood");
    let mut slow = slow_reader(&broker, "flood");
    reader.next_text();
    let fill = "x".repeat(48 << 10);
    let mut published = 0;
    while broker.sum("closed_slow") == 0 {
        assert!(
            published < 1_400,
            "{published} messages and nobody is too slow"
        );
        publisher.publish("flood", json!([published, fill]));
        let expected = format!(r##"{{"#":["p","flood",[{published},"##);
        assert!(reader.next_text().starts_with(&expected));
        published += 1;
    }
    reader.expect_nothing();
    let mut read = 0;
    // It is told, or its connection is reset after the linger.
    while let Some(got) = slow.raw().frame() {
        if got.first == FIN | CLOSE {
            assert_eq!(got.close_code(), Some(4008));
            break;
        }
        let expected = format!(r##"{{"#":["p","flood",[{read},"##);
        assert!(got.text().starts_with(&expected), "whole and in order");
        read += 1;
    }
    assert!(read < published);
    let stats = broker.stats_at_rest();
    assert_eq!(sum_in(&stats, "closed_slow"), 1);
    assert!(sum_in(&stats, "announced") > 0);
}

#[test]
fn what_was_skipped_is_told_by_an_event() {
    for policy in ["conflate", "drop-oldest"] {
        let broker = Broker::start(&[option::SLOW, &format!("a={policy}")]);
        let mut publisher = Client::connect(&broker);
        let mut slow = slow_reader(&broker, "a.feed");
        let fill = "x".repeat(24 << 10);
        let mut published = 0_u64;
        while broker.sum("dropped") < 50 {
            assert!(
                published < 2_800,
                "{published} messages and none is skipped"
            );
            publisher.publish("a.feed", json!([published, fill]));
            published += 1;
        }
        let (mut next, mut skipped) = (0, 0);
        while next < published {
            let text = slow.next_text();
            let message = parse(&text);
            let array = &message["#"];
            if array[0] == "e" {
                let count = array[2]["count"].as_u64().expect("a count");
                let expected =
                    format!(r##"{{"#":["e","#gap",{{"channel":"a.feed","count":{count}}}]}}"##);
                assert_eq!(text, expected);
                skipped += count;
                next += count;
            } else {
                assert_eq!(array[1], "a.feed");
                assert_eq!(array[2][0], next, "{policy}: not told of what is missing");
                next += 1;
            }
        }
        assert_eq!(next, published, "the newest is never skipped");
        let stats = broker.stats_at_rest();
        assert_eq!(sum_in(&stats, "dropped"), skipped);
        assert_eq!(sum_in(&stats, "closed_slow"), 0, "{policy}");
    }
}

#[test]
fn a_drain_tells_everybody_to_come_back() {
    let mut broker = Broker::start(&[]);
    let mut clients = PATHS.map(|path| Clusterws::connect(&broker, path));
    for client in &mut clients {
        client.subscribe("t");
    }
    let mut publisher = Client::connect(&broker);
    publisher.publish("t", json!("last"));
    broker.terminate();
    for client in &mut clients {
        let (texts, code) = client.read_to_close();
        assert_eq!((texts.len(), code), (1, Some(1001)), "{texts:?}");
        assert!(texts[0].ends_with(r#"["p","t","last"]}"#), "{texts:?}");
    }
    let (_, end) = publisher.read_to_end();
    assert_eq!(end, End::Code(1001));
    assert_eq!(broker.wait_exit().code(), Some(0), "within {DEADLINE:?}");
}

/// Their client leaves by a close frame, whose code comes back; who vanishes leaves nothing.
#[test]
fn clients_leave_as_they_like() {
    let broker = Broker::start(&[]);
    for path in PATHS {
        let mut client = Clusterws::connect(&broker, path);
        client.subscribe("t");
        let payload = common::raw::close_payload(1000, b"bye");
        client.raw().send(&frame(FIN | CLOSE, &payload));
        client.expect_close(1000);
        let mut client = Clusterws::connect(&broker, path);
        client.subscribe("t");
        drop(client);
    }
    common::wait_for("everybody to be gone", || {
        let stats = broker.stats();
        (stats["connections"] == 0 && stats["subscriptions"] == 0).then_some(())
    });
}

#[test]
fn a_fault_ends_one_connection() {
    const CLIENTS: u64 = 6;
    for place in ["frame", "decode"] {
        // Of each client two subscriptions, and a message to itself.
        let fault = format!("panic:{place}:{}", 3 * CLIENTS + 1);
        let broker = Broker::start_with_env(&[("PUBSUB_FAULT", &fault)], &[]);
        let mut clients: Vec<Clusterws> = (0..CLIENTS)
            .map(|number| {
                let mut client = Clusterws::connect(&broker, PATHS[number as usize % 4]);
                client.subscribe("t");
                client
            })
            .collect();
        let mut victim = clients.pop().expect("a victim");
        victim.say(r#"["p","t",1]"#);
        victim.expect_close(1011);
        for client in &mut clients {
            client.expect_nothing();
        }
        clients[0].publish("t", "2");
        for client in &mut clients {
            assert!(client.next_text().ends_with(r#"["p","t",2]}"#));
        }
        assert_eq!(broker.stats()["closed"]["internal error"], 1, "{place}");
        broker.stats_at_rest();
    }
}

/// A browser of no ClusterWS client at all: what it says is nonsense here, and the other way round.
#[test]
fn protocols_do_not_mix_on_a_connection() {
    let broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.listen());
    raw.send(upgrade_head(broker.listen(), &[]).as_bytes());
    assert!(raw.head().starts_with("HTTP/1.1 101 "));
    raw.text(r##"{"#":["s","s","t"]}"##);
    let answer = parse(&raw.next_text());
    assert_eq!(answer["code"], "bad_type", "{answer}");
    let mut client = connect(&broker);
    client.send(r#"{"type":"subscribe","topic":"t"}"#);
    client.expect_nothing();
}
