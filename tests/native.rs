//! Native JSON over real sockets: every row of its table, byte for byte where clients rely on bytes, on one
//! shard and across two.

mod common;

use common::client::parse;
use common::{Broker, Client, clients_by_shard, option, pair_on_two_shards};
use serde_json::{Value, json};

const ALL_CODES: [&str; 9] = [
    "no_handler",
    "timeout",
    "bad_json",
    "bad_type",
    "bad_topic",
    "too_large",
    "limit",
    "not_allowed",
    "busy",
];

fn with_services() -> Broker {
    Broker::start_with_config(
        "[[listener]]\naddr = \"127.0.0.1:0\"\nclient_services = true\n",
        &[],
    )
}

/// `2018-02-16T00:31:37.123Z`
fn is_timestamp(text: &str) -> bool {
    let pattern = b"0000-00-00T00:00:00.000Z";
    text.len() == pattern.len()
        && text
            .bytes()
            .zip(pattern)
            .all(|(byte, &wanted)| match wanted {
                b'0' => byte.is_ascii_digit(),
                _ => byte == wanted,
            })
}

/// The text with the value of its timestamp, once it is known to be one, written as NOW.
fn with_now(text: &str) -> String {
    let value = parse(text);
    let stamp = value["timestamp"]
        .as_str()
        .unwrap_or_else(|| panic!("no timestamp in {text}"));
    assert!(is_timestamp(stamp), "{text}");
    text.replacen(
        &format!("\"timestamp\":\"{stamp}\""),
        "\"timestamp\":NOW",
        1,
    )
}

#[test]
fn acks_have_exactly_this_shape() {
    let broker = Broker::start(&[]);
    let mut client = Client::connect(&broker);
    let mut check = |command: &str, ack: &str| {
        client.send(command);
        assert_eq!(with_now(&client.next_text()), ack, "{command}");
    };
    check(
        r#"{"type":"subscribe","timestamp":"2018-02-16T00:31:37.123Z","topic":"news.uk"}"#,
        r#"{"type":"ack","action":"subscribe","timestamp":NOW,"topic":"news.uk"}"#,
    );
    check(
        r#"{"topic":"news.uk","type":"unsubscribe"}"#,
        r#"{"type":"ack","action":"unsubscribe","timestamp":NOW,"topic":"news.uk"}"#,
    );
    // There is nothing to remove, which is fine.
    check(
        r#"{"type":"unsubscribe","topic":"never.seen"}"#,
        r#"{"type":"ack","action":"unsubscribe","timestamp":NOW,"topic":"never.seen"}"#,
    );
    check(
        r#"{"type":"publish","topic":"news","message":{"a":1}}"#,
        r#"{"type":"ack","action":"publish","timestamp":NOW,"topic":"news"}"#,
    );
    // Twice is as good as once.
    for _ in 0..2 {
        check(
            r#"{"type":"subscribe","topic":"=a.*"}"#,
            r#"{"type":"ack","action":"subscribe","timestamp":NOW,"topic":"=a.*"}"#,
        );
    }
    check(
        " { \"type\" : \"subscribe\" ,\r\n\t\"topic\" : \"caf\\u00e9 \\\"x\\\" \u{1F600}\" } ",
        "{\"type\":\"ack\",\"action\":\"subscribe\",\"timestamp\":NOW,\"topic\":\"café \\\"x\\\" \u{1F600}\"}",
    );
}

#[test]
fn the_publisher_gets_its_own_message_before_the_ack() {
    let broker = Broker::start(&[]);
    let mut client = Client::connect(&broker);
    client.subscribe("news.uk.london");
    client.subscribe("news");
    client.subscribe("news.uk");
    client.send(
        r#"{"type":"publish","timestamp":"2018-02-16T00:31:37.123Z","topic":"news.uk.london","message":{"a":1}}"#,
    );
    // Most specific first, whatever the order of the subscriptions.
    for context in ["news.uk.london", "news.uk", "news"] {
        assert_eq!(
            client.next_text(),
            format!(
                r#"{{"type":"publish","timestamp":"2018-02-16T00:31:37.123Z","topic":"news.uk.london","message":{{"a":1}},"context":"{context}"}}"#
            )
        );
    }
    assert_eq!(
        with_now(&client.next_text()),
        r#"{"type":"ack","action":"publish","timestamp":NOW,"topic":"news.uk.london"}"#
    );
    client.expect_nothing();
}

#[test]
fn a_delivery_is_the_publishers_object() {
    let broker = Broker::start(&[]);
    let (mut publisher, mut subscriber) = pair_on_two_shards(&broker);
    let mut local = Client::connect(&broker);
    for client in [&mut subscriber, &mut local] {
        client.subscribe("t");
    }
    let mut check = |published: &str, delivered: &str| {
        publisher.send(published);
        assert_eq!(publisher.answer()["type"], "ack", "{published}");
        for client in [&mut subscriber, &mut local] {
            let text = client.delivery_text();
            let text = if delivered.contains("NOW") {
                with_now(&text)
            } else {
                text
            };
            assert_eq!(text, delivered, "{published}");
        }
    };
    // A missing timestamp is put before the context, a present one stays where it is, whatever it is.
    check(
        r#"{"type":"publish","topic":"t","message":[1,"two",null]}"#,
        r#"{"type":"publish","topic":"t","message":[1,"two",null],"timestamp":NOW,"context":"t"}"#,
    );
    check(
        r#"{"message":{"b":2,"a":1},"timestamp":"yesterday","topic":"t","type":"publish"}"#,
        r#"{"message":{"b":2,"a":1},"timestamp":"yesterday","topic":"t","type":"publish","context":"t"}"#,
    );
    // Further fields are the publisher's business; so is a message that is not there.
    check(
        r#"{"type":"publish","topic":"t","extra":{"deep":[{}]},"timestamp":"x"}"#,
        r#"{"type":"publish","topic":"t","extra":{"deep":[{}]},"timestamp":"x","context":"t"}"#,
    );
    // The message is passed on as the bytes that came.
    check(
        r#"{"type":"publish","topic":"t","timestamp":"x","message":{"n":1.0,"u":"\u00e9\/","big":12345678901234567890}}"#,
        r#"{"type":"publish","topic":"t","timestamp":"x","message":{"n":1.0,"u":"\u00e9\/","big":12345678901234567890},"context":"t"}"#,
    );
    check(
        "{\"type\":\"publish\",\"topic\":\"t\",\"timestamp\":\"x\",\"message\":\"\u{1F600} é\"}",
        "{\"type\":\"publish\",\"topic\":\"t\",\"timestamp\":\"x\",\"message\":\"\u{1F600} é\",\"context\":\"t\"}",
    );
}

#[test]
fn nobody_forges_a_context_or_a_peer() {
    let broker = Broker::start(&[]);
    let (mut publisher, mut subscriber) = pair_on_two_shards(&broker);
    subscriber.subscribe("a");
    let mut check = |published: &str| {
        publisher.send(published);
        assert_eq!(publisher.answer()["type"], "ack", "{published}");
        let text = subscriber.delivery_text();
        assert!(text.ends_with(r#","context":"a"}"#), "{text}");
        assert_eq!(text.matches("context").count(), 1, "{text}");
        assert!(
            !text.contains("fromPeerServer") && !text.contains("forged"),
            "{text}"
        );
        let delivery = parse(&text);
        assert_eq!(
            (&delivery["type"], &delivery["topic"], &delivery["message"]),
            (&json!("publish"), &json!("a.b"), &json!(1))
        );
    };
    check(r#"{"type":"publish","topic":"a.b","message":1,"context":"forged"}"#);
    check(r#"{"context":"forged","type":"publish","topic":"a.b","message":1}"#);
    check(r#"{"type":"publish","context":{"forged":[1]},"topic":"a.b","message":1}"#);
    check(r#"{"type":"publish","topic":"a.b","message":1,"fromPeerServer":true}"#);
    check(
        r#"{"fromPeerServer":true,"context":"forged","type":"publish","topic":"a.b","message":1}"#,
    );
    check(r#"{"context":"forged","context":"forged","type":"publish","topic":"a.b","message":1}"#);
}

#[test]
fn a_key_that_comes_twice_counts_once() {
    let broker = Broker::start(&[]);
    let (mut publisher, mut subscriber) = pair_on_two_shards(&broker);
    subscriber.subscribe("*");
    publisher.send(r#"{"type":"publish","topic":"first","topic":"last","message":1,"message":2}"#);
    assert_eq!(publisher.answer()["topic"], "last");
    let delivery = subscriber.delivery();
    assert_eq!(
        (&delivery["topic"], &delivery["message"]),
        (&json!("last"), &json!(2))
    );
    subscriber.expect_nothing();
}

#[test]
fn echo_false_leaves_out_the_sender_alone() {
    let broker = Broker::start(&[]);
    let (mut publisher, mut other) = pair_on_two_shards(&broker);
    let mut local = Client::connect(&broker);
    for client in [&mut publisher, &mut other, &mut local] {
        client.subscribe("room");
        client.subscribe("room.1");
    }
    publisher.command(json!({"type": "publish", "topic": "room.1", "message": 1, "echo": false}));
    publisher.expect_nothing();
    for client in [&mut other, &mut local] {
        assert_eq!(client.delivery()["context"], "room.1");
        assert_eq!(client.delivery()["context"], "room");
    }
    publisher.command(json!({"type": "publish", "topic": "room.1", "message": 2, "echo": true}));
    assert_eq!(publisher.take_kept().len(), 2);
}

#[test]
fn an_id_comes_back_as_it_went() {
    let broker = Broker::start(&[]);
    let mut client = Client::connect(&broker);
    let mut check = |command: &str, kind: &str| {
        for id in [
            r#""x""#,
            "7",
            "-1.5e3",
            r#"{"a":[1,null]}"#,
            "[]",
            "true",
            r#""caf\u00e9""#,
        ] {
            let text = command.replace('}', &format!(",\"id\":{id}}}"));
            client.send(&text);
            let answer = client.answer_text();
            let wanted: Value = serde_json::from_str(id).unwrap();
            let value = parse(&answer);
            assert_eq!(
                (&value["type"], &value["id"]),
                (&json!(kind), &wanted),
                "{text}"
            );
            assert!(
                answer.contains(&format!("\"id\":{id}")),
                "as the bytes that came: {answer}"
            );
        }
    };
    check(r#"{"type":"subscribe","topic":"a"}"#, "ack");
    check(r#"{"type":"publish","topic":"b","message":1}"#, "ack");
    check(r#"{"type":"unsubscribe","topic":"a"}"#, "ack");
    check(r#"{"type":"ping"}"#, "pong");
    check(r#"{"type":"whoami"}"#, "session");
    check(r#"{"type":"request","event":"nobody","data":1}"#, "reply");
    // A refusal names what it refused. (Not bad_type in this loop: that would be more than ten bad texts.)
    for id in [r#""x""#, "7"] {
        client.send(format!(
            r#"{{"type":"subscribe","topic":"a..b","id":{id}}}"#
        ));
        let answer = client.answer();
        assert_eq!(
            (&answer["type"], &answer["code"]),
            (&json!("error"), &json!("bad_topic"))
        );
        assert_eq!(answer["id"].to_string(), id);
    }
}

#[test]
fn whoami_and_ping() {
    let broker = Broker::start(&[]);
    let (mut one, mut two) = pair_on_two_shards(&broker);
    one.send(r#"{"type":"ping"}"#);
    assert_eq!(one.next_text(), r#"{"type":"pong"}"#);
    one.send(r#"{"type":"whoami"}"#);
    let text = one.next_text();
    let id = one.whoami();
    assert_eq!(text, format!(r#"{{"type":"session","session":"{id}"}}"#));
    assert_ne!(id, two.whoami());
    let address: pubsub::address::ClientId = id.parse().expect("a client id");
    assert_eq!(
        address.shard.index(),
        broker.shard_of(&id),
        "the id names the shard"
    );
}

#[test]
fn refusals_are_never_acks() {
    let broker = Broker::start_with_config(
        "[[access]]\nfilter = \"open\"\nwho = \"anyone\"\nsubscribe = true\npublish = true\n",
        &[],
    );
    let check = |text: &str, code: &str, action: Option<&str>, topic: Option<&str>| {
        // A fresh connection for each, so that none is one bad text too many.
        let mut client = Client::connect(&broker);
        client.send(text);
        let answer = client.next_json();
        assert_eq!(answer["type"], "error", "{text}: {answer}");
        assert_eq!(answer["code"], code, "{text}: {answer}");
        assert!(ALL_CODES.contains(&code));
        assert!(
            answer["reason"]
                .as_str()
                .is_some_and(|reason| !reason.is_empty()),
            "{answer}"
        );
        assert_eq!(answer["action"].as_str(), action, "{text}: {answer}");
        assert_eq!(answer["topic"].as_str(), topic, "{text}: {answer}");
        assert_eq!(answer.get("id"), None, "{text}: {answer}");
        // It goes on.
        client.send(r#"{"type":"ping"}"#);
        assert_eq!(client.next_text(), r#"{"type":"pong"}"#, "after {text}");
    };
    for text in [
        "",
        "not json",
        "{",
        "[]",
        "1",
        "null",
        "\"publish\"",
        "{} {}",
        "{\"type\":NaN}",
    ] {
        check(text, "bad_json", None, None);
    }
    check("{}", "bad_type", None, None);
    check(r#"{"type":7}"#, "bad_type", None, None);
    check(r#"{"type":"dance"}"#, "bad_type", Some("dance"), None);
    check(
        r#"{"type":"ack","action":"publish"}"#,
        "bad_type",
        Some("ack"),
        None,
    );
    check(
        r#"{"type":"subscribe","topic":""}"#,
        "bad_topic",
        Some("subscribe"),
        Some(""),
    );
    check(
        r#"{"type":"subscribe","topic":"a..b"}"#,
        "bad_topic",
        Some("subscribe"),
        Some("a..b"),
    );
    check(
        r#"{"type":"publish","topic":"a.*","message":1}"#,
        "bad_topic",
        Some("publish"),
        Some("a.*"),
    );
    check(
        r#"{"type":"publish","topic":"=a","message":1}"#,
        "bad_topic",
        Some("publish"),
        Some("=a"),
    );
    check(
        r#"{"type":"subscribe","topic":"secret"}"#,
        "not_allowed",
        Some("subscribe"),
        Some("secret"),
    );
    check(
        r#"{"type":"subscribe","topic":"*"}"#,
        "not_allowed",
        Some("subscribe"),
        Some("*"),
    );
    check(
        r#"{"type":"publish","topic":"secret","message":1}"#,
        "not_allowed",
        Some("publish"),
        Some("secret"),
    );
    check(
        r#"{"type":"handle","event":"cat"}"#,
        "not_allowed",
        Some("handle"),
        None,
    );
}

/// Which of the two a missing or mistyped field is, the contract leaves to the decoder; it is never an ack.
#[test]
fn fields_of_the_wrong_type_are_refused() {
    let broker = Broker::start(&[]);
    for text in [
        r#"{"type":"subscribe"}"#,
        r#"{"type":"subscribe","topic":7}"#,
        r#"{"type":"subscribe","topic":null}"#,
        r#"{"type":"unsubscribe","topic":["a"]}"#,
        r#"{"type":"publish","message":1}"#,
        r#"{"type":"publish","topic":{},"message":1}"#,
        r#"{"type":"publish","topic":"a","message":1,"echo":"no"}"#,
        r#"{"type":"event","data":1}"#,
        r#"{"type":"event","event":1}"#,
        r#"{"type":"request","event":[],"id":1}"#,
        r#"{"type":"handle"}"#,
    ] {
        let mut client = Client::connect(&broker);
        client.send(text);
        let answer = client.next_json();
        assert_eq!(answer["type"], "error", "{text}: {answer}");
        assert!(
            matches!(answer["code"].as_str(), Some("bad_type" | "bad_topic")),
            "{text}: {answer}"
        );
    }
}

#[test]
fn what_access_rules_allow_is_allowed() {
    let broker = Broker::start_with_config(
        "[[access]]\nfilter = \"news.secret\"\nwho = \"nobody\"\nsubscribe = true\npublish = true\n\
         [[access]]\nfilter = \"news\"\nwho = \"anyone\"\nsubscribe = true\n\
         [[access]]\nfilter = \"chat\"\nwho = \"anyone\"\nsubscribe = true\npublish = true\n\
         [[access]]\nfilter = \"staff\"\nwho = \"authenticated\"\nsubscribe = true\npublish = true\n",
        &[],
    );
    let (mut one, mut two) = pair_on_two_shards(&broker);
    one.subscribe("chat");
    one.subscribe("news.uk");
    two.publish("chat.1", json!("hello"));
    assert_eq!(one.delivery()["message"], "hello");
    let mut refused = |command: Value| {
        assert_eq!(two.refused(command.clone()), "not_allowed", "{command}");
    };
    refused(json!({"type": "subscribe", "topic": "news.secret"}));
    refused(json!({"type": "subscribe", "topic": "news.secret.deep"}));
    // A wide subscription must not see what a narrow rule withholds.
    refused(json!({"type": "subscribe", "topic": "news"}));
    refused(json!({"type": "publish", "topic": "news.uk", "message": 1}));
    refused(json!({"type": "subscribe", "topic": "staff"}));
    refused(json!({"type": "publish", "topic": "staff", "message": 1}));
    refused(json!({"type": "subscribe", "topic": "elsewhere"}));
    one.expect_nothing();
}

#[test]
fn the_eleventh_bad_text_closes() {
    let broker = Broker::start(&[]);
    let mut client = Client::connect(&broker);
    for text in 0..10 {
        client.send("not json");
        let answer = client.next_json();
        assert_eq!(
            (&answer["type"], &answer["code"]),
            (&json!("error"), &json!("bad_json")),
            "{text}"
        );
        // Good ones in between change nothing.
        client.subscribe("a");
    }
    client.send("not json");
    client.expect_close(1007);
}

#[test]
fn binary_closes_with_1003() {
    let broker = Broker::start(&[]);
    let mut client = Client::connect(&broker);
    client.send_binary(br#"{"type":"ping"}"#);
    client.expect_close(1003);
}

#[test]
fn filters_match_as_written() {
    let broker = Broker::start(&[]);
    let mut groups = clients_by_shard(&broker, 2, 2);
    let mut far = groups[1].remove(0);
    let mut near = groups[0].remove(1);
    let mut publisher = groups[0].remove(0);
    // Filters, a topic, and the contexts of the deliveries in their order.
    let mut check = |filters: &[&str], topic: &str, contexts: &[&str]| {
        for client in [&mut near, &mut far] {
            for filter in filters {
                client.subscribe(filter);
            }
        }
        publisher.publish(topic, json!(null));
        for client in [&mut near, &mut far] {
            client.settle();
            let got = client.take_kept();
            assert!(
                got.iter().all(|delivery| delivery["topic"] == topic),
                "{got:?}"
            );
            let got: Vec<&str> = got.iter().filter_map(|it| it["context"].as_str()).collect();
            assert_eq!(got, contexts, "{filters:?} on {topic}");
            for filter in filters {
                client.unsubscribe(filter);
            }
        }
    };
    // A topic and everything below it, never above, never beside.
    check(&["a.b"], "a.b", &["a.b"]);
    check(&["a.b"], "a.b.c.d", &["a.b"]);
    check(&["a.b"], "a", &[]);
    check(&["a.b"], "a.bc", &[]);
    check(&["a.b"], "a.B", &[]);
    check(&["a.b"], "x.a.b", &[]);
    // A star is one level.
    check(&["*"], "anything.at.all", &["*"]);
    check(&["a.*"], "a", &[]);
    check(&["a.*"], "a.b", &["a.*"]);
    check(&["a.*"], "a.b.c", &["a.*"]);
    check(&["a.*.c"], "a.b.c", &["a.*.c"]);
    check(&["a.*.c"], "a.b.d", &[]);
    check(&["*.b"], "a.b", &["*.b"]);
    check(&["a*"], "ab", &[]);
    // An equals sign is this depth.
    check(&["=a"], "a", &["=a"]);
    check(&["=a"], "a.b", &[]);
    check(&["=a.*"], "a.b", &["=a.*"]);
    check(&["=a.*"], "a.b.c", &[]);
    check(&["=*"], "a", &["=*"]);
    check(&["=*"], "a.b", &[]);
    // More levels first, then those with an equals sign, then a literal before a star.
    check(
        &["*", "a", "=a.b", "a.*", "a.b", "=a", "a.b.c", "=a.*"],
        "a.b",
        &["=a.b", "=a.*", "a.b", "a.*", "a", "*"],
    );
    check(&["*", "a", "=*", "=a"], "a", &["=a", "=*", "a", "*"]);
    check(
        &["a", "*.*.*", "a.b", "a.b.c"],
        "a.b.c",
        &["a.b.c", "*.*.*", "a.b", "a"],
    );
    // Levels that look like array indexes or properties are levels.
    check(&["5", "5.x"], "5.x", &["5.x", "5"]);
    check(
        &["constructor", "__proto__", "length", "0"],
        "length",
        &["length"],
    );
}

#[test]
fn subscribing_twice_is_subscribing_once() {
    let broker = Broker::start(&[]);
    let (mut publisher, mut subscriber) = pair_on_two_shards(&broker);
    for _ in 0..3 {
        subscriber.subscribe("a");
    }
    publisher.publish("a", json!(1));
    assert_eq!(subscriber.delivery()["message"], 1);
    subscriber.expect_nothing();
    // What was not subscribed to takes nothing away.
    subscriber.unsubscribe("a.b");
    subscriber.unsubscribe("=a");
    publisher.publish("a", json!(2));
    assert_eq!(subscriber.delivery()["message"], 2);
    subscriber.unsubscribe("a");
    publisher.publish("a", json!(3));
    subscriber.expect_nothing();
    assert_eq!(broker.sum("subscriptions"), 0);
}

#[test]
fn requests_are_answered_by_whoever_handles_them() {
    let broker = with_services();
    let mut groups = clients_by_shard(&broker, 2, 2);
    let mut far = groups[1].remove(0);
    let mut near = groups[0].remove(1);
    let mut handler = groups[0].remove(0);
    handler.handle("add");
    let handler_id = handler.whoami();
    for asker in [&mut near, &mut far] {
        let asker_id = asker.whoami();
        for to in [None, Some(format!("client:{handler_id}"))] {
            let mut request =
                json!({"type": "request", "event": "add", "data": [5, {"x": 4}], "id": "q"});
            if let Some(to) = &to {
                request["to"] = json!(to);
            }
            asker.send_json(&request);
            let asked = handler.next_json();
            let number = asked["id"].as_u64().expect("a number");
            assert_eq!(
                asked,
                json!({"type": "request", "event": "add", "data": [5, {"x": 4}], "id": number,
                    "from": format!("client:{asker_id}")})
            );
            handler.send_json(&json!({"type": "reply", "id": number, "data": 9}));
            assert_eq!(asker.next_text(), r#"{"type":"reply","id":"q","data":9}"#);

            asker.send_json(&request);
            let number = handler.next_json()["id"].clone();
            let error = json!({"code": "own_code", "reason": "no \"way\" é"});
            handler.send_json(&json!({"type": "reply", "id": number, "error": error}));
            assert_eq!(
                asker.next_json(),
                json!({"type": "reply", "id": "q", "error": error})
            );
        }
    }
    // A handler may ask itself.
    handler.send(r#"{"type":"request","event":"add","data":null,"id":1}"#);
    let asked = handler.next_json();
    assert_eq!(
        (&asked["type"], &asked["data"]),
        (&json!("request"), &Value::Null)
    );
    handler.send_json(&json!({"type": "reply", "id": asked["id"], "data": "me"}));
    assert_eq!(
        handler.next_json(),
        json!({"type": "reply", "id": 1, "data": "me"})
    );
}

#[test]
fn answers_in_any_order_find_their_questions() {
    let broker = with_services();
    let (mut asker, mut handler) = pair_on_two_shards(&broker);
    handler.handle("echo");
    for id in 0..20 {
        asker.send_json(&json!({"type": "request", "event": "echo", "data": {"n": id}, "id": id}));
    }
    let mut asked: Vec<Value> = (0..20).map(|_| handler.next_json()).collect();
    let order: Vec<u64> = asked
        .iter()
        .filter_map(|it| it["data"]["n"].as_u64())
        .collect();
    assert_eq!(
        order,
        (0..20).collect::<Vec<_>>(),
        "requests keep their order"
    );
    fastrand::Rng::with_seed(common::seed()).shuffle(&mut asked);
    for request in &asked {
        handler.send_json(&json!({"type": "reply", "id": request["id"], "data": request["data"]}));
    }
    let mut answered: Vec<u64> = (0..20)
        .map(|_| {
            let reply = asker.next_json();
            assert_eq!(
                (&reply["type"], &reply["id"]),
                (&json!("reply"), &reply["data"]["n"])
            );
            reply["id"].as_u64().expect("a number")
        })
        .collect();
    answered.sort_unstable();
    assert_eq!(answered, (0..20).collect::<Vec<_>>());
}

#[test]
fn each_request_goes_to_one_handler() {
    let broker = with_services();
    let mut groups = clients_by_shard(&broker, 2, 2);
    let mut asker = groups[0].remove(0);
    let mut handlers = [
        groups[0].remove(0),
        groups[1].remove(0),
        groups[1].remove(0),
    ];
    for handler in &mut handlers {
        handler.handle("work");
    }
    for id in 0..30 {
        asker.send_json(&json!({"type": "request", "event": "work", "id": id, "data": id}));
    }
    asker.settle();
    let mut taken: Vec<Value> = Vec::new();
    for handler in &mut handlers {
        // The answer to this ping comes behind every request that was routed here.
        handler.send(r#"{"type":"unsubscribe","topic":"barrier"}"#);
        loop {
            let text = handler.next_json();
            if text["type"] == "ack" {
                break;
            }
            assert_eq!(text["type"], "request", "{text}");
            handler.send_json(&json!({"type": "reply", "id": text["id"], "data": text["data"]}));
            taken.push(text["data"].clone());
        }
    }
    taken.sort_by_key(Value::as_u64);
    assert_eq!(taken, (0..30).map(|id| json!(id)).collect::<Vec<_>>());
    let mut answered: Vec<Value> = (0..30).map(|_| asker.next_json()["id"].clone()).collect();
    answered.sort_by_key(Value::as_u64);
    assert_eq!(answered, taken);
}

#[test]
fn a_reply_counts_only_from_the_one_who_was_asked() {
    let broker = with_services();
    let mut groups = clients_by_shard(&broker, 2, 2);
    let (mut asker, mut near) = (groups[0].remove(0), groups[0].remove(0));
    let (mut handler, mut far) = (groups[1].remove(0), groups[1].remove(0));
    handler.handle("secret");
    asker.send(r#"{"type":"request","event":"secret","id":1,"data":null}"#);
    let number = handler.next_json()["id"].clone();
    for forger in [&mut near, &mut far] {
        forger.send_json(&json!({"type": "reply", "id": number, "data": "forged"}));
        forger.send_json(&json!({"type": "reply", "id": 999_999, "data": "forged"}));
        // It may be told that it was not asked; whatever it is told, it comes before this ack.
        forger.send(r#"{"type":"unsubscribe","topic":"barrier"}"#);
        while forger.next_json()["type"] != "ack" {}
    }
    handler.send_json(&json!({"type": "reply", "id": number, "data": "true"}));
    assert_eq!(
        asker.next_json(),
        json!({"type": "reply", "id": 1, "data": "true"})
    );
    // The second answer to one question goes nowhere.
    handler.send_json(&json!({"type": "reply", "id": number, "data": "again"}));
    handler.send(r#"{"type":"unsubscribe","topic":"barrier"}"#);
    while handler.next_json()["type"] != "ack" {}
    asker.expect_nothing();
}

#[test]
fn nobody_there_is_told_at_once() {
    let broker = with_services();
    let (mut asker, mut other) = pair_on_two_shards(&broker);
    let other_id = other.whoami();
    let mut check = |request: Value| {
        let reply = asker.request(request.clone());
        assert_eq!(reply["error"]["code"], "no_handler", "{request}: {reply}");
        assert!(reply["error"]["reason"].is_string(), "{reply}");
        assert_eq!(reply.get("data"), None);
    };
    check(json!({"event": "nobody", "data": 1}));
    check(json!({"event": "nobody", "data": 1, "to": "peer:nobody"}));
    check(json!({"event": "nobody", "data": 1, "to": "client:AAAAAAAAAAAAAAAAAAAA"}));
    drop(other);
    common::wait_for("the other client to be gone", || {
        (broker.sum("connections") == 1).then_some(())
    });
    check(json!({"event": "nobody", "data": 1, "to": format!("client:{other_id}")}));
    // A place that cannot be is a refusal of the request, in either form.
    for to in ["client:", "client:x", "moon:1", ""] {
        asker.send_json(&json!({"type": "request", "event": "e", "id": 5, "data": 1, "to": to}));
        let answer = asker.answer();
        assert!(
            matches!(answer["type"].as_str(), Some("error" | "reply")),
            "{answer}"
        );
        assert!(
            answer["code"].is_string() || answer["error"]["code"].is_string(),
            "{answer}"
        );
        assert_eq!(answer["id"], 5);
    }
}

#[test]
fn a_request_has_a_deadline() {
    let broker = with_services();
    let (mut asker, mut handler) = pair_on_two_shards(&broker);
    handler.handle("slow");
    asker.send(r#"{"type":"request","event":"slow","id":"q","data":1,"timeout":100}"#);
    let number = handler.next_json()["id"].clone();
    let reply = asker.next_json();
    assert_eq!(
        (&reply["type"], &reply["id"]),
        (&json!("reply"), &json!("q"))
    );
    assert_eq!(reply["error"]["code"], "timeout", "{reply}");
    // A late answer goes nowhere.
    handler.send_json(&json!({"type": "reply", "id": number, "data": "late"}));
    handler.settle();
    asker.expect_nothing();
    common::wait_for("no request to be pending", || {
        let pending: u64 = broker.stats()["shards"]
            .as_array()
            .expect("shards")
            .iter()
            .map(|shard| {
                shard["requests_pending"]
                    .as_u64()
                    .expect("requests_pending")
            })
            .sum();
        (pending == 0).then_some(())
    });
}

#[test]
fn the_default_deadline_is_an_option() {
    let broker = Broker::start_with_config(
        "[[listener]]\naddr = \"127.0.0.1:0\"\nclient_services = true\n",
        &[option::REQUEST_TIMEOUT_MS, "150"],
    );
    let (mut asker, mut handler) = pair_on_two_shards(&broker);
    handler.handle("slow");
    // Also the longest that a request may name.
    for request in [
        json!({"event": "slow"}),
        json!({"event": "slow", "timeout": 3_600_000}),
    ] {
        assert_eq!(asker.request(request)["error"]["code"], "timeout");
    }
}

#[test]
fn a_handler_that_vanishes_takes_no_one_along() {
    let broker = with_services();
    let (mut asker, mut handler) = pair_on_two_shards(&broker);
    handler.handle("work");
    asker.send(r#"{"type":"request","event":"work","id":1,"data":1,"timeout":3000}"#);
    assert_eq!(handler.next_json()["type"], "request");
    drop(handler);
    let reply = asker.next_json();
    assert_eq!((&reply["type"], &reply["id"]), (&json!("reply"), &json!(1)));
    assert!(
        matches!(
            reply["error"]["code"].as_str(),
            Some("no_handler" | "timeout")
        ),
        "{reply}"
    );
    assert_eq!(
        asker.request(json!({"event": "work"}))["error"]["code"],
        "no_handler"
    );
    // The next one takes over.
    let mut second = Client::connect(&broker);
    second.handle("work");
    asker.send(r#"{"type":"request","event":"work","id":2,"data":2}"#);
    let number = second.next_json()["id"].clone();
    second.send_json(&json!({"type": "reply", "id": number, "data": 3}));
    assert_eq!(
        asker.next_json(),
        json!({"type": "reply", "id": 2, "data": 3})
    );
}

#[test]
fn an_asker_that_vanishes_leaves_its_handler_alone() {
    let broker = with_services();
    let (mut asker, mut handler) = pair_on_two_shards(&broker);
    handler.handle("work");
    asker.send(r#"{"type":"request","event":"work","id":1,"data":1}"#);
    let number = handler.next_json()["id"].clone();
    drop(asker);
    common::wait_for("the asker to be gone", || {
        (broker.sum("connections") == 1).then_some(())
    });
    handler.send_json(&json!({"type": "reply", "id": number, "data": 1}));
    handler.settle();
    handler.send(r#"{"type":"ping"}"#);
    assert_eq!(handler.answer()["type"], "pong");
}

#[test]
fn unhandle_ends_it() {
    let broker = with_services();
    let (mut asker, mut handler) = pair_on_two_shards(&broker);
    handler.handle("work");
    let ack = handler.command(json!({"type": "unhandle", "event": "work"}));
    assert_eq!(ack["action"], "unhandle");
    assert_eq!(
        asker.request(json!({"event": "work"}))["error"]["code"],
        "no_handler"
    );
    // As with topics: nothing to remove is fine.
    handler.command(json!({"type": "unhandle", "event": "work"}));
    handler.expect_nothing();
}

#[test]
fn events_are_fired_and_forgotten() {
    let broker = with_services();
    let mut groups = clients_by_shard(&broker, 2, 2);
    let (mut near, mut handler) = (groups[0].remove(0), groups[0].remove(0));
    let mut far = groups[1].remove(0);
    handler.handle("log");
    for sender in [&mut near, &mut far] {
        for number in 0..5 {
            sender.send_json(&json!({"type": "event", "event": "log", "data": {"n": number}}));
        }
        for number in 0..5 {
            let event = handler.next_json();
            assert_eq!(
                (&event["type"], &event["event"]),
                (&json!("event"), &json!("log"))
            );
            assert_eq!(event["data"], json!({"n": number}), "{event}");
        }
        // To nobody: no answer at all.
        sender.send(r#"{"type":"event","event":"nobody","data":1}"#);
        sender.expect_nothing();
    }
    handler.expect_nothing();
}

#[test]
fn topics_and_services_do_not_meet() {
    let broker = with_services();
    let (mut one, mut two) = pair_on_two_shards(&broker);
    one.handle("cat");
    two.subscribe("cat");
    two.publish("cat", json!("meow"));
    assert_eq!(two.delivery()["message"], "meow");
    one.expect_nothing();
    two.send(r#"{"type":"event","event":"cat","data":1}"#);
    assert_eq!(one.next_json()["event"], "cat");
    two.expect_nothing();
}
