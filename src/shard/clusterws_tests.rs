//! ClusterWS in the shard: what only its sessions do.

use crate::limits::KIB;
use crate::ws::frame::Opcode;

use super::Ending;
use super::auth::{Access, AccessRule, Who as Whom};
use super::slow::{SlowPolicy, SlowRule, SlowRules};
use super::testing::{HEAD, House, Who, bytes, frame, publish};
use crate::topic::Filter;

/// A client at this path that has read its configuration.
fn client(house: &mut House, shard: usize, path: &str) -> (Who, Vec<String>) {
    let who = house.accept(shard, 0, false);
    let head = HEAD.replace("GET / ", &format!("GET {path} "));
    house.bytes(who, head.as_bytes());
    house.turn(shard);
    assert!(house.head(who).starts_with("HTTP/1.1 101 "));
    let config = house.read(who);
    (who, config)
}

fn connect(house: &mut House, shard: usize) -> Who {
    client(house, shard, "/clusterws").0
}

#[test]
fn the_configuration_comes_first_in_the_dialect_of_the_listener_or_the_query() {
    let mut house = House::new(1);
    for (path, config) in [
        (
            "/clusterws",
            r##"{"#":["s","c",{"ping":20000,"binary":false}]}"##,
        ),
        (
            "/clusterws?v=1",
            r##"{"#":["s","c",{"ping":20000,"binary":false}]}"##,
        ),
        ("/clusterws?v=0", r#"{"m":["s","c",{"ping":20000}]}"#),
        (
            "/clusterws?x&binary=1",
            r##"binary {"#":["s","c",{"ping":20000,"binary":true}]}"##,
        ),
    ] {
        assert_eq!(client(&mut house, 0, path).1, [config], "{path}");
    }
}

#[test]
fn nothing_comes_before_the_configuration() {
    let mut house = House::with(1, |settings| {
        settings.limits.outbox_bytes_soft = KIB;
        settings.slow = SlowRules::new(vec![SlowRule {
            prefix: bytes("a"),
            policy: SlowPolicy::DropOldest,
        }]);
    });
    let one = house.accept(0, 0, false);
    let long = format!(r##"{{"#":["p","a","{}"]}}"##, "x".repeat(KIB));
    let mut first = HEAD.replace("GET / ", "GET /clusterws ").into_bytes();
    for text in [r##"{"#":["s","s","a"]}"##, &long] {
        first.extend(frame(Opcode::Text, text.as_bytes()));
    }
    house.bytes(one, &first);
    house.turn(0);
    assert!(house.head(one).starts_with("HTTP/1.1 101 "));
    let told = house.read(one);
    let config = r##"{"#":["s","c",{"ping":20000,"binary":false}]}"##;
    let gap = r##"{"#":["e","#gap",{"channel":"a","count":1}]}"##;
    assert_eq!(
        told,
        [config, gap],
        "what would be too much for the first send is skipped"
    );
}

#[test]
fn only_subscribers_are_relayed_and_they_get_their_own() {
    let mut house = House::new(2);
    let (one, two) = (connect(&mut house, 0), connect(&mut house, 1));
    let text = r##"{"#":["p","room",{"x":1}]}"##;
    assert!(house.ask(one, text).is_empty());
    house.send(two, r##"{"#":["s","s","room"]}"##);
    house.settle();
    assert!(house.ask(one, text).is_empty());
    assert_eq!(house.read(two), [""; 0], "it is not subscribed");
    assert_eq!(house.shards[0].stats().publishes, 0);
    house.send(one, r##"{"#":["s","s","room"]}"##);
    assert_eq!(house.ask(one, text), [text]);
    assert_eq!(house.read(two), [text]);
    house.send(one, r##"{"#":["s","u","room"]}"##);
    assert!(house.ask(one, text).is_empty());

    // The oldest server relayed everything.
    let (old, _) = client(&mut house, 0, "/clusterws?v=0");
    assert!(house.ask(old, r#"{"m":["p","room",[1]]}"#).is_empty());
    assert_eq!(house.read(two), [r##"{"#":["p","room",[1]]}"##]);
}

#[test]
fn other_protocols_reach_a_channel_by_its_name() {
    let mut house = House::new(2);
    let (one, native) = (connect(&mut house, 0), house.connect(1));
    let (binary, _) = client(&mut house, 0, "/clusterws?binary=1");
    for who in [one, binary] {
        house.send(who, r##"{"#":["s","s","a.b"]}"##);
    }
    house.settle();
    house.subscribe(native, "a");
    house.ask(native, r#"{"type":"publish","topic":"a.b","message":"é"}"#);
    assert_eq!(house.read(one), [r##"{"#":["p","a.b","é"]}"##]);
    assert_eq!(
        house.read(binary),
        [r##"binary {"#":["p","a.b","\u00e9"]}"##]
    );
    // A channel has no levels of its own.
    house.ask(native, &publish("a", 1));
    house.ask(native, &publish("a.b.c", 1));
    assert_eq!(house.read(one), [""; 0]);
    house.read(native);
    house.send(one, r##"{"#":["p","a.b",null]}"##);
    house.settle();
    let told = house.read(native);
    assert!(
        told[0].contains(r#""topic":"a.b","message":null"#),
        "{told:?}"
    );
    assert!(told[0].ends_with(r#""context":"a"}"#), "{told:?}");
}

#[test]
fn events_go_to_a_service_and_come_back() {
    let mut house = House::new(2);
    let (one, service) = (connect(&mut house, 0), house.connect(1));
    house.ask(service, r#"{"type":"handle","event":"hi"}"#);
    house.send(one, r##"{"#":["e","hi",[1,"é"]]}"##);
    house.settle();
    let told = house.read(service);
    let event: serde_json::Value = serde_json::from_str(&told[0]).unwrap();
    assert_eq!(
        (&event["event"], &event["data"][1]),
        (&"hi".into(), &"é".into())
    );
    let from = event["from"].as_str().unwrap();
    house.ask(
        service,
        &format!(r#"{{"type":"event","event":"yo","data":2,"to":"{from}"}}"#),
    );
    assert_eq!(house.read(one), [r##"{"#":["e","yo",2]}"##]);
    // It answers no requests.
    let told = house.ask(
        service,
        &format!(r#"{{"type":"request","event":"yo","id":1,"to":"{from}"}}"#),
    );
    assert!(told[0].contains("no_handler"), "{told:?}");
    // Nobody handles this, and nobody is told.
    assert!(house.ask(one, r##"{"#":["e","nobody",1]}"##).is_empty());
    assert_eq!(house.shards[0].stats().requests_failed, 1);
}

#[test]
fn pings_come_at_their_times_whatever_is_said() {
    let mut house = House::new(1);
    let one = connect(&mut house, 0);
    let (old, _) = client(&mut house, 0, "/clusterws?v=1");
    let start_ms = house.now.ms;
    for count in 1..=6 {
        let mut pinged = (0, 0);
        while pinged != (1, 1) {
            house.pass_to_deadline(0);
            assert!(house.now.ms <= start_ms + count * 20_000, "{count}");
            pinged.0 += house
                .read(one)
                .iter()
                .filter(|told| *told == "binary 9")
                .count();
            pinged.1 += house.read(old).iter().filter(|told| *told == "#0").count();
            house.bytes(one, &frame(Opcode::Binary, b"A"));
            house.bytes(old, &frame(Opcode::Text, b"#1"));
            house.turn(0);
        }
    }
    assert!(house.session(one).is_open() && house.session(old).is_open());
    // Whoever says nothing any more is given up.
    let last_ms = house.now.ms;
    while house.closed(one).is_none() || house.closed(old).is_none() {
        house.pass_to_deadline(0);
    }
    let silence_ms = house.now.ms - last_ms;
    assert!((45_000..48_000).contains(&silence_ms), "{silence_ms}");
    house.check_empty(0);
}

#[test]
fn nonsense_is_ignored_up_to_a_bound() {
    let mut house = House::with(1, |settings| settings.limits.bad_texts_max = 3);
    let (one, other) = (connect(&mut house, 0), connect(&mut house, 0));
    for text in [r##"{"#":["x","y",1]}"##, r##"{"#":["s","x","y"]}"##] {
        assert!(house.ask(one, text).is_empty(), "{text}");
    }
    let (old, _) = client(&mut house, 0, "/clusterws?v=1");
    assert_eq!(house.ask(old, "#4"), ["#3"], "its own heartbeat");
    for text in ["{", "9", "nonsense"] {
        assert!(house.ask(one, text).is_empty(), "{text}");
    }
    assert_eq!(house.ask(one, "[]"), ["close 1007 bad payload"]);
    assert!(house.session(other).is_open());
}

#[test]
fn rights_are_asked_and_refusals_are_silent() {
    let mut house = House::with(1, |settings| {
        settings.access = Access::new(vec![AccessRule {
            filter: Filter::dotted(bytes("open")).unwrap(),
            who: Whom::Anyone,
            subscribe: true,
            publish: false,
        }]);
    });
    let one = connect(&mut house, 0);
    for text in [
        r##"{"#":["s","s","secret"]}"##,
        r##"{"#":["s","s","open"]}"##,
        r##"{"#":["p","open",1]}"##,
    ] {
        assert!(house.ask(one, text).is_empty(), "{text}");
    }
    assert_eq!(house.shards[0].stats().subscriptions, 1);
    assert_eq!(house.shards[0].stats().refusals, 2);
}

#[test]
fn what_was_skipped_is_told_by_an_event() {
    let mut house = House::with(1, |settings| {
        settings.slow = SlowRules::new(vec![SlowRule {
            prefix: bytes("a"),
            policy: SlowPolicy::Conflate,
        }]);
    });
    let (one, publisher) = (connect(&mut house, 0), house.connect(0));
    house.send(one, r##"{"#":["s","s","a"]}"##);
    house.settle();
    house.stop_reading(one);
    for _ in 0..4 {
        house.ask(publisher, &publish("a", KIB));
    }
    house.read_on(one);
    house.settle();
    let told = house.read(one);
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[1], r##"{"#":["e","#gap",{"channel":"a","count":2}]}"##);
    house.end(one, Ending::Failed);
    house.end(publisher, Ending::Failed);
    house.settle();
    house.check_empty(0);
}
