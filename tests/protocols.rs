//! Native JSON, ClusterWS and RESP in one broker: what one of them publishes, subscribers of each get, in their own
//! words, on the publisher's shard and on the other one.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

use common::broker::sum_in;
use common::redis::command;
use common::{Broker, Client, Clusterws, Protocol, Redis, Speaker};
use serde_json::{Value, json};

fn start() -> Broker {
    Broker::start(&["--resp", "127.0.0.1:0"])
}

/// One of each protocol on each of two shards.
fn everybody(broker: &Broker) -> Vec<Speaker> {
    let on = |shard| Protocol::ALL.map(|protocol| Speaker::connect_on(broker, shard, protocol));
    [on(0), on(1)].into_iter().flatten().collect()
}

/// What is published, and what it is as JSON, where its publisher says nothing about it (DESIGN 5.3).
const BYTES: [(&[u8], &str); 9] = [
    (b"", r#""""#),
    (b" [1, 2.0] ", " [1, 2.0] "),
    ("plain é \"x\"\n".as_bytes(), r#""plain é \"x\"\n""#),
    (b"{\"a\":", r#""{\"a\":""#),
    (b"NaN", r#""NaN""#),
    (b"\xff\x00\r\n", r#"{"$binary":"/wANCg=="}"#),
    (b"\"\xe9\"", r#"{"$binary":"Iuki"}"#),
    (b"\x00", r#""\u0000""#),
    ("😀\u{7f}".as_bytes(), "\"😀\u{7f}\""),
];

/// JSON that anybody may publish: it stays the bytes that it is.
const JSON: [&str; 7] = [
    r#"{"x":[1.0,"\u00e9\/é 😀"],"big":12345678901234567890,"x":null}"#,
    r#""a string keeps its quotes: \"é\"""#,
    "null",
    "-0.50e-3",
    r#"{ "spaced" : [ ] }"#,
    r#"{"$binary":"AA=="}"#,
    r#""""#,
];

/// As JSON for a client that takes each byte for a character.
fn ascii(json: &str) -> String {
    let mut out = String::new();
    for unit in json.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii() => out.push(char::from(byte)),
            _ => out += &format!("\\u{unit:04x}"),
        }
    }
    out
}

/// The very bytes of a delivery.
fn delivered(to: Protocol, name: &str, bytes: &[u8], json: &str) -> Vec<u8> {
    match to {
        Protocol::Native => format!(
            r#"{{"type":"publish","topic":"{name}","message":{json},"timestamp":NOW,"context":"{name}"}}"#
        )
        .into_bytes(),
        Protocol::Clusterws(path) => {
            let key = if path.contains("v=0") { 'm' } else { '#' };
            let json = match path.contains("binary=1") {
                true => ascii(json),
                false => json.to_owned(),
            };
            format!(r#"{{"{key}":["p","{name}",{json}]}}"#).into_bytes()
        }
        Protocol::Resp(version) => {
            let mut message = command(&[b"message", name.as_bytes(), bytes]);
            if version == 3 {
                message[0] = b'>';
            }
            message
        }
    }
}

#[test]
fn everybody_gets_everything_in_its_own_words() {
    const NAME: &str = "mix.it";
    let broker = start();
    let mut readers = everybody(&broker);
    for reader in &mut readers {
        reader.subscribe(NAME);
    }
    let mut subscriptions = readers.len();
    let mut publishers: Vec<Speaker> = Protocol::ALL
        .into_iter()
        .enumerate()
        .map(|(index, protocol)| Speaker::connect_on(&broker, index % 2, protocol))
        .collect();
    for publisher in &mut publishers {
        if publisher.protocol.relays_for_subscribers_only() {
            publisher.subscribe(NAME);
            subscriptions += 1;
        }
    }
    let json = JSON.map(|json| (json.as_bytes(), json));
    let mut published = 0;
    for publisher in &mut publishers {
        let from = publisher.protocol;
        let says_nothing = matches!(from, Protocol::Resp(_));
        let bytes = if says_nothing { &BYTES[..] } else { &[] };
        for &(bytes, json) in json.iter().chain(bytes) {
            let count = publisher.publish(NAME, bytes);
            assert_eq!(count, says_nothing.then_some(subscriptions as i64));
            published += 1;
            for reader in &mut readers {
                let expected = delivered(reader.protocol, NAME, bytes, json);
                let got = reader.delivery_bytes();
                assert_eq!(
                    got.escape_ascii().to_string(),
                    expected.escape_ascii().to_string(),
                    "{} from {from:?} to {:?}",
                    bytes.escape_ascii(),
                    reader.protocol
                );
            }
        }
    }
    for reader in &mut readers {
        reader.expect_nothing();
    }
    // What tells that all was handed on are messages, too: those do not count here.
    assert!(broker.sum("publishes") >= published);
    broker.stats_at_rest();
}

/// The names of channels in PUBLISH that are no topics: nobody hears them by levels.
#[test]
fn levels_are_those_of_topics_and_of_native_subscribers() {
    let broker = start();
    let mut native = Client::connect(&broker);
    for filter in ["*", "a", "=a.*", "a.b", "=a", "a.*.c"] {
        native.subscribe(filter);
    }
    let mut channel = Redis::connect_speaking(&broker, 3);
    channel.subscribe(b"a");
    let mut pattern = Redis::connect(&broker);
    assert_eq!(pattern.ask("PSUBSCRIBE a.*"), "*3 psubscribe a.* :1");
    let mut room = Clusterws::connect(&broker, "/clusterws");
    room.subscribe("a");
    let mut publishers: Vec<Speaker> = Protocol::ALL
        .into_iter()
        .enumerate()
        .map(|(index, protocol)| Speaker::connect_on(&broker, index % 2, protocol))
        .collect();
    let cases: [(&str, &[&str], bool, bool); 5] = [
        ("a", &["=a", "a", "*"], true, false),
        ("a.b", &["=a.*", "a.b", "a", "*"], false, true),
        ("a.b.c", &["a.*.c", "a.b", "a", "*"], false, true),
        ("b", &["*"], false, false),
        ("ab", &["*"], false, false),
    ];
    for publisher in &mut publishers {
        let protocol = publisher.protocol;
        for (name, contexts, is_channel, is_pattern) in cases {
            // It may have to, to be heard itself.
            let is_heard = protocol.relays_for_subscribers_only();
            if is_heard {
                publisher.subscribe(name);
            }
            let count = publisher.publish(name, b"1");
            if is_heard {
                assert_eq!(publisher.take_kept(), [(name.to_owned(), json!(1))]);
                publisher.unsubscribe(name);
            }
            // The channel has two: ClusterWS is one of them.
            let receivers = contexts.len() + 2 * usize::from(is_channel) + usize::from(is_pattern);
            if let Some(count) = count {
                assert_eq!(count, receivers as i64, "{name} from {protocol:?}");
            }
            for context in contexts {
                let delivery = native.delivery();
                assert_eq!(
                    (&delivery["topic"], &delivery["context"]),
                    (&json!(name), &json!(context)),
                    "{protocol:?}"
                );
            }
            if is_channel {
                assert_eq!(channel.delivery().to_string(), ">3 message a 1");
                assert_eq!(room.next_text(), r##"{"#":["p","a",1]}"##);
            }
            if is_pattern {
                let expected = format!("*4 pmessage a.* {name} 1");
                assert_eq!(pattern.delivery().to_string(), expected);
            }
        }
    }
    native.expect_nothing();
    channel.expect_nothing();
    pattern.expect_nothing();
    room.expect_nothing();
}

#[test]
fn names_that_are_no_topics_are_heard_by_their_name_alone() {
    let broker = start();
    let mut native = Client::connect(&broker);
    native.subscribe("*");
    let mut readers = [Redis::connect(&broker), Redis::connect_speaking(&broker, 3)];
    let mut room = Clusterws::connect(&broker, "/clusterws");
    let mut publisher = Redis::connect(&broker);
    let long = "x".repeat(256);
    let longest = "y".repeat(1024);
    let deep = ["x"; 33].join(".");
    let names: [&[u8]; 16] = [
        b"",
        b".",
        b"a..b",
        b".a",
        b"a.",
        b"*",
        b"a.*",
        b"=a",
        b"$a",
        b"a\nb",
        b"socket.io#/#\x07#",
        b"\xff\xfe",
        b"\x00",
        long.as_bytes(),
        longest.as_bytes(),
        deep.as_bytes(),
    ];
    for name in names {
        for reader in &mut readers {
            reader.subscribe(name);
        }
        // It has names of text, and none that is empty.
        let text = std::str::from_utf8(name)
            .ok()
            .filter(|name| !name.is_empty());
        let written = text.map(|text| Value::from(text).to_string());
        if let Some(written) = &written {
            room.say(&format!(r#"["s","s",{written}]"#));
            room.settle();
        }
        let receivers = readers.len() + usize::from(written.is_some());
        let told = name.escape_ascii();
        assert_eq!(publisher.publish(name, b"1"), receivers as i64, "{told}");
        for (reader, sign) in readers.iter_mut().zip(['*', '>']) {
            let expected = format!("{sign}3 message {told} 1");
            assert_eq!(reader.delivery().to_string(), expected);
            reader.unsubscribe(name);
        }
        if let Some(written) = &written {
            let array = format!(r#"["p",{written},1]"#);
            assert_eq!(room.next_text(), format!(r##"{{"#":{array}}}"##));
            // And back.
            for reader in &mut readers {
                reader.subscribe(name);
            }
            room.say(&array);
            room.settle();
            assert_eq!(room.take_kept().len(), 1);
            for reader in &mut readers {
                let delivery = reader.delivery();
                assert_eq!(delivery.elements()[1].bytes(), name);
                reader.unsubscribe(name);
            }
        }
    }
    native.expect_nothing();
    let mut longer = longest;
    longer.push('y');
    for line in ["PUBLISH", "SUBSCRIBE", "SSUBSCRIBE"] {
        let mut words = vec![line.as_bytes(), longer.as_bytes()];
        words.extend((line == "PUBLISH").then_some(&b"1"[..]));
        publisher.send(&command(&words));
        assert_eq!(
            publisher.reply().to_string(),
            "-ERR the channel is longer than 1024 bytes"
        );
    }
}

#[test]
fn shard_channels_are_nobody_elses() {
    let broker = start();
    let mut others = everybody(&broker);
    for other in &mut others {
        other.subscribe("s");
    }
    let mut pattern = Redis::connect(&broker);
    assert_eq!(pattern.ask("PSUBSCRIBE s*"), "*3 psubscribe s* :1");
    let mut readers = [Redis::connect(&broker), Redis::connect_speaking(&broker, 3)];
    for (reader, sign) in readers.iter_mut().zip(['*', '>']) {
        let expected = format!("{sign}3 ssubscribe s :1");
        assert_eq!(reader.ask("SSUBSCRIBE s"), expected);
    }
    let mut publisher = Redis::connect(&broker);
    assert_eq!(publisher.ask("SPUBLISH s x"), ":2");
    for (reader, sign) in readers.iter_mut().zip(['*', '>']) {
        let expected = format!("{sign}3 smessage s x");
        assert_eq!(reader.delivery().to_string(), expected);
    }
    for other in &mut others {
        other.expect_nothing();
    }
    pattern.expect_nothing();
    // And the other way round.
    assert_eq!(publisher.publish(b"s", b"1"), others.len() as i64 + 1);
    for other in &mut others {
        assert_eq!(other.delivery(), ("s".to_owned(), json!(1)));
    }
    assert_eq!(pattern.delivery().to_string(), "*4 pmessage s* s 1");
    for reader in &mut readers {
        reader.expect_nothing();
    }
}

/// Would a filter of these levels match? What the other protocols have must be equal.
fn matches(protocol: Protocol, name: &str, published: &str) -> bool {
    let below = published.strip_prefix(name);
    match protocol {
        Protocol::Native => below.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
        Protocol::Clusterws(_) | Protocol::Resp(_) => below == Some(""),
    }
}

/// One action after the other, each on a random connection of any protocol and confirmed before the next: then
/// everything that everybody gets is known, and so is every count.
#[test]
fn a_confirmation_is_a_barrier_for_every_other_connection() {
    const NAMES: [&str; 4] = ["a", "a.b", "a.b.c", "b"];
    const STEPS: u64 = 2000;
    let mut random = fastrand::Rng::with_seed(common::seed());
    let broker = start();
    let mut speakers = everybody(&broker);
    let mut subscribed: Vec<Vec<&str>> = vec![Vec::new(); speakers.len()];
    let mut expected: Vec<Vec<(String, Value)>> = vec![Vec::new(); speakers.len()];
    let (mut due, mut counts) = (0, 0);
    for step in 0..STEPS {
        let actor = random.usize(..speakers.len());
        let protocol = speakers[actor].protocol;
        let name = NAMES[random.usize(..NAMES.len())];
        // Under RESP2 a subscriber does nothing else.
        let may_publish = protocol != Protocol::Resp(2) || subscribed[actor].is_empty();
        match random.u8(..5) {
            0 => {
                speakers[actor].subscribe(name);
                if !subscribed[actor].contains(&name) {
                    subscribed[actor].push(name);
                }
            }
            1 | 2 if !may_publish || random.bool() => {
                speakers[actor].unsubscribe(name);
                subscribed[actor].retain(|kept| *kept != name);
            }
            _ if may_publish => {
                let count = speakers[actor].publish(name, step.to_string().as_bytes());
                let is_relayed =
                    !protocol.relays_for_subscribers_only() || subscribed[actor].contains(&name);
                let mut receivers = 0;
                for ((speaker, names), expected) in
                    speakers.iter().zip(&subscribed).zip(&mut expected)
                {
                    let is_match = |of: &&&str| matches(speaker.protocol, of, name);
                    let matching = names.iter().filter(is_match).count();
                    if is_relayed {
                        receivers += matching;
                        let delivery = (name.to_owned(), json!(step));
                        expected.extend(std::iter::repeat_n(delivery, matching));
                    }
                }
                due += receivers;
                if let Some(count) = count {
                    assert_eq!(count, receivers as i64, "step {step}, {protocol:?}");
                    counts += 1;
                }
            }
            _ => {}
        }
    }
    for (speaker, expected) in speakers.iter_mut().zip(&expected) {
        speaker.settle();
        let got = speaker.take_kept();
        for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
            assert_eq!(got, expected, "delivery {at} to {:?}", speaker.protocol);
        }
        assert_eq!(got.len(), expected.len(), "{:?}", speaker.protocol);
    }
    assert!(
        due > 500 && counts > 50,
        "{due} deliveries, {counts} counts"
    );
    broker.stats_at_rest();
}

/// The same while everybody acts at once: what is surely inside of a stay must come, what is surely outside must not.
#[test]
fn stays_of_any_protocol_lose_nothing_and_let_nothing_stray() {
    const STAYS: usize = 20;
    const PUBLISHERS: [Protocol; 3] = [
        Protocol::Native,
        Protocol::Resp(2),
        Protocol::Clusterws("/clusterws?v=0"),
    ];
    const CHURNERS: [Protocol; 6] = [
        Protocol::Resp(2),
        Protocol::Resp(3),
        Protocol::Resp(3),
        Protocol::Resp(2),
        Protocol::Clusterws("/clusterws"),
        Protocol::Native,
    ];
    let seed = common::seed();
    let broker = start();
    let connect = |(index, protocol)| Speaker::connect_on(&broker, index % 2, protocol);
    let mut publishers: Vec<_> = PUBLISHERS.into_iter().enumerate().map(connect).collect();
    let mut churners: Vec<_> = CHURNERS.into_iter().enumerate().map(connect).collect();
    // Raised before a message is sent, and after it was handed on.
    let begun: [AtomicU64; PUBLISHERS.len()] = Default::default();
    let acked: [AtomicU64; PUBLISHERS.len()] = Default::default();
    let done = AtomicBool::new(false);
    let read =
        |counters: &[AtomicU64; PUBLISHERS.len()]| counters.each_ref().map(|c| c.load(SeqCst));
    thread::scope(|scope| {
        for (index, publisher) in publishers.iter_mut().enumerate() {
            let (begun, acked, done) = (&begun[index], &acked[index], &done);
            scope.spawn(move || {
                while !done.load(SeqCst) {
                    let number = begun.fetch_add(1, SeqCst);
                    publisher.publish("stay", format!("[{index},{number}]").as_bytes());
                    acked.fetch_add(1, SeqCst);
                }
            });
        }
        let churning: Vec<_> = churners
            .iter_mut()
            .enumerate()
            .map(|(index, churner)| {
                let mut random = fastrand::Rng::with_seed(seed ^ index as u64);
                let (begun, acked) = (&begun, &acked);
                scope.spawn(move || {
                    for stay in 0..STAYS {
                        let earliest = read(acked);
                        churner.subscribe("stay");
                        let surely_from = read(begun);
                        let mut got: Vec<_> = (0..random.usize(1..20))
                            .map(|_| churner.delivery())
                            .collect();
                        let surely_until = read(acked);
                        churner.unsubscribe("stay");
                        let latest = read(begun);
                        got.extend(churner.take_kept());
                        // Between two stays nothing strays in.
                        churner.expect_nothing();
                        let mut numbers = vec![Vec::new(); PUBLISHERS.len()];
                        for (_, message) in &got {
                            let publisher = message[0].as_u64().expect("a publisher") as usize;
                            numbers[publisher].push(message[1].as_u64().expect("a number"));
                        }
                        for (p, numbers) in numbers.iter().enumerate() {
                            let what = format!(
                                "{:?}, stay {stay}, publisher {p}: {numbers:?}",
                                churner.protocol
                            );
                            assert!(numbers.windows(2).all(|two| two[1] == two[0] + 1), "{what}");
                            for must in surely_from[p]..surely_until[p] {
                                assert!(numbers.contains(&must), "{must} is missing: {what}");
                            }
                            let (first, last) = (numbers.first(), numbers.last());
                            assert!(first.is_none_or(|first| *first >= earliest[p]), "{what}");
                            assert!(last.is_none_or(|last| *last < latest[p]), "{what}");
                        }
                    }
                })
            })
            .collect();
        let results: Vec<_> = churning.into_iter().map(|churner| churner.join()).collect();
        done.store(true, SeqCst);
        for result in results {
            result.expect("a churner that found nothing wrong");
        }
    });
    let stats = broker.stats_at_rest();
    assert_eq!(sum_in(&stats, "announced"), 0);
}

#[test]
fn each_publishers_order_is_kept_for_everybody() {
    const MESSAGES: u64 = 1000;
    /// What a publisher has not been answered at most.
    const WINDOW: u64 = 40;
    const PUBLISHERS: [Protocol; 4] = [
        Protocol::Native,
        Protocol::Clusterws("/clusterws?binary=1"),
        Protocol::Resp(2),
        Protocol::Resp(3),
    ];
    let broker = start();
    let names: Vec<String> = (0..PUBLISHERS.len())
        .map(|p| format!("order.{p}"))
        .collect();
    let mut readers = everybody(&broker);
    for reader in &mut readers {
        match reader.protocol {
            Protocol::Native => reader.subscribe("order"),
            Protocol::Clusterws(_) | Protocol::Resp(_) => {
                names.iter().for_each(|name| reader.subscribe(name));
            }
        }
    }
    thread::scope(|scope| {
        for (index, protocol) in PUBLISHERS.into_iter().enumerate() {
            let mut publisher = Speaker::connect_on(&broker, index % 2, protocol);
            let name = &names[index];
            if protocol.relays_for_subscribers_only() {
                publisher.subscribe(name);
            }
            scope.spawn(move || {
                for number in 0..MESSAGES {
                    publisher.send_publish(name, &number.to_string());
                    if number >= WINDOW {
                        publisher.read_answer();
                    }
                }
                (0..WINDOW).for_each(|_| publisher.read_answer());
            });
        }
        for reader in &mut readers {
            let names = &names;
            scope.spawn(move || {
                let mut next = vec![0; PUBLISHERS.len()];
                for _ in 0..MESSAGES * PUBLISHERS.len() as u64 {
                    let (name, number) = reader.delivery();
                    let publisher = names.iter().position(|known| *known == name);
                    let next = &mut next[publisher.expect("a name of this test")];
                    assert_eq!(number, json!(*next), "{name}, {:?}", reader.protocol);
                    *next += 1;
                }
            });
        }
    });
    for reader in &mut readers {
        reader.expect_nothing();
    }
    let stats = broker.stats_at_rest();
    assert_eq!(
        (sum_in(&stats, "announced"), sum_in(&stats, "closed_slow")),
        (0, 0)
    );
}
