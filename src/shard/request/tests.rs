//! Requests, their answers, and every way to go without one.

use crate::shard::Ending;
use crate::shard::testing::{House, Who, brief};

fn handle(house: &mut House, who: Who, event: &str) {
    let told = house.ask(who, &format!(r#"{{"type":"handle","event":"{event}"}}"#));
    assert_eq!(brief(&told), ["ack handle"]);
}

fn request(event: &str, id: u32) -> String {
    format!(r#"{{"type":"request","event":"{event}","id":{id},"data":{id}}}"#)
}

/// The numbers under which a handler was asked since it was last looked at.
fn asked(house: &mut House, who: Who) -> Vec<u64> {
    let told = house.read(who);
    let numbers = told.iter().map(|text| {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(value["type"], "request", "{text}");
        value["id"].as_u64().unwrap()
    });
    numbers.collect()
}

fn answer(house: &mut House, who: Who, number: u64) {
    let reply = format!(r#"{{"type":"reply","id":{number},"data":"yes"}}"#);
    assert_eq!(house.ask(who, &reply), [""; 0]);
}

fn forgotten(house: &mut House) {
    for shard in &house.shards {
        let requests = &shard.requests;
        assert!(requests.pending.is_empty() && requests.asked.is_empty());
        assert!(requests.deadlines.is_empty() && requests.deferred.is_empty());
    }
}

#[test]
fn handlers_of_all_shards_take_turns() {
    let mut house = House::new(2);
    let asker = house.connect(0);
    let handlers = [0, 0, 1, 1].map(|shard| house.connect(shard));
    for handler in handlers {
        handle(&mut house, handler, "e");
    }
    for id in 0..8 {
        assert_eq!(house.ask(asker, &request("e", id)), [""; 0]);
    }
    for handler in handlers {
        let numbers = asked(&mut house, handler);
        assert_eq!(numbers.len(), 2);
        for number in numbers {
            answer(&mut house, handler, number);
        }
    }
    let told = house.read(asker);
    assert_eq!(told.len(), 8);
    assert!(told.iter().all(|text| text.contains(r#""data":"yes""#)));
    forgotten(&mut house);
}

#[test]
fn nobody_handles_it() {
    let mut house = House::new(2);
    let (asker, other) = (house.connect(0), house.connect(1));
    assert_eq!(
        brief(&house.ask(asker, &request("e", 1))),
        ["reply 1 no_handler"]
    );
    for to in ["peer:x", "client:AAAAAAAAAAAAAAAAAAAA"] {
        let text = request("e", 2).replace("\"id\"", &format!(r#""to":"{to}","id""#));
        assert_eq!(brief(&house.ask(asker, &text)), ["reply 2 no_handler"]);
    }
    // A client that has gone, on the other shard.
    let to = house.shards[1].client_id(other.id);
    let text = request("e", 3).replace("\"id\"", &format!(r#""to":"client:{to}","id""#));
    house.end(other, Ending::Failed);
    house.settle();
    assert_eq!(brief(&house.ask(asker, &text)), ["reply 3 no_handler"]);
    house.ask(asker, r#"{"type":"event","event":"e"}"#);
    assert_eq!(house.shards[0].stats().requests_failed, 5);
    forgotten(&mut house);
}

#[test]
fn a_shard_without_handlers_any_more_costs_one_retry() {
    // The other shard's only handler leaves while the request is on its way.
    let race = |house: &mut House, text: &str| {
        let (asker, leaver) = (house.connect(0), house.connect(1));
        handle(house, leaver, "e");
        let deputy = house.connect(2);
        handle(house, deputy, "e");
        // Until the first shard is the one that is picked.
        loop {
            house.send(asker, text);
            house.turn(0);
            let is_leaver = !house.shards[0].requests.pending.is_empty() && house.rings_hold_ask(1);
            if is_leaver {
                break;
            }
            house.settle();
            for number in asked(house, deputy) {
                answer(house, deputy, number);
            }
            house.read(asker);
        }
        house.send(leaver, r#"{"type":"unhandle","event":"e"}"#);
        (asker, leaver, deputy)
    };
    let mut house = House::new(3);
    let (asker, leaver, deputy) = race(&mut house, &request("e", 1));
    house.end(leaver, Ending::Failed);
    house.turn(1);
    // The parcel was drained before the session ended: it was asked, and is answered for.
    house.settle();
    let told = brief(&house.read(asker));
    assert_eq!(
        told,
        ["reply 1 no_handler"],
        "it may have begun: nobody else is asked"
    );
    assert_eq!(asked(&mut house, deputy), [0; 0]);
    forgotten(&mut house);

    // Vacant: the edge that says so has not come back yet.
    let mut house = House::new(3);
    let (asker, leaver, deputy) = {
        let (asker, leaver, deputy) = (house.connect(0), house.connect(1), house.connect(2));
        handle(&mut house, leaver, "e");
        handle(&mut house, deputy, "e");
        (asker, leaver, deputy)
    };
    house.end(leaver, Ending::Failed);
    house.turn(1);
    // Shard 0 has not heard of it and asks each of the two, in turn.
    house.send(asker, &request("e", 1));
    house.send(asker, &request("e", 2));
    house.turn_without_news(0);
    house.settle();
    let numbers = asked(&mut house, deputy);
    assert_eq!(numbers.len(), 2, "one of them by the retry");
    for number in numbers {
        answer(&mut house, deputy, number);
    }
    assert_eq!(house.read(asker).len(), 2);
    forgotten(&mut house);
}

#[test]
fn an_answer_that_never_comes_is_a_timeout_and_a_late_one_is_ignored() {
    let mut house = House::with(2, |settings| settings.limits.ping_interval_ms = 1_000_000);
    let (asker, handler) = (house.connect(0), house.connect(1));
    handle(&mut house, handler, "e");
    let hasty = request("e", 1).replace("\"id\"", r#""timeout":500,"id""#);
    let greedy = request("e", 2).replace("\"id\"", r#""timeout":99999999,"id""#);
    for text in [&hasty, &greedy] {
        house.ask(asker, text);
    }
    let numbers = asked(&mut house, handler);
    house.pass(499);
    house.settle();
    house.turn(0);
    assert_eq!(house.read(asker), [""; 0]);
    house.pass(1);
    house.turn(0);
    house.turn(1);
    assert_eq!(brief(&house.read(asker)), ["reply 1 timeout"]);
    answer(&mut house, handler, numbers[0]);
    assert_eq!(house.read(asker), [""; 0]);
    house.pass(59_499);
    house.turn(0);
    house.turn(1);
    assert_eq!(house.read(asker), [""; 0]);
    house.pass(1);
    house.turn(0);
    house.turn(1);
    assert_eq!(brief(&house.read(asker)), ["reply 2 timeout"]);
    forgotten(&mut house);
}

#[test]
fn only_the_one_that_was_asked_can_answer() {
    let mut house = House::new(1);
    let (asker, handler, thief) = (house.connect(0), house.connect(0), house.connect(0));
    handle(&mut house, handler, "e");
    house.ask(asker, &request("e", 1));
    let number = asked(&mut house, handler)[0];
    for other in [thief, asker] {
        answer(&mut house, other, number);
        answer(&mut house, other, number + 1);
    }
    assert_eq!(house.read(asker), [""; 0]);
    for _ in 0..2 {
        answer(&mut house, handler, number);
    }
    assert_eq!(brief(&house.read(asker)), ["reply 1"]);
    forgotten(&mut house);
}

#[test]
fn both_sides_are_bounded_by_busy() {
    let mut house = House::with(2, |settings| settings.limits.requests_max = 3);
    let (handler, one, two) = (house.connect(1), house.connect(0), house.connect(0));
    handle(&mut house, handler, "e");
    for id in 0..2 {
        assert_eq!(house.ask(one, &request("e", id)), [""; 0]);
        assert_eq!(house.ask(two, &request("e", id)).len(), id as usize);
    }
    // The second of the second was the fourth for the handler.
    assert_eq!(house.shards[0].stats().requests_failed, 1);
    house.ask(one, &request("e", 2));
    assert_eq!(brief(&house.ask(two, &request("e", 3))), ["reply 3 busy"]);
    for number in asked(&mut house, handler) {
        answer(&mut house, handler, number);
    }
    for client in [one, two] {
        house.read(client);
    }
    // The asker's own bound, wherever it asks.
    let to = house.shards[0].client_id(two.id);
    for id in 0..4 {
        let text = request("e", id).replace("\"id\"", &format!(r#""to":"client:{to}","id""#));
        let told = brief(&house.ask(one, &text));
        assert_eq!(told, if id < 3 { vec![] } else { vec!["reply 3 busy"] });
    }
}

#[test]
fn what_is_kept_for_a_second_try_is_bounded() {
    let mut house = House::new(2);
    let (asker, handler) = (house.connect(0), house.connect(1));
    handle(&mut house, handler, "e");
    let data = "d".repeat(60_000);
    for id in 0..20 {
        let text = format!(r#"{{"type":"request","event":"e","id":{id},"data":"{data}"}}"#);
        house.ask(asker, &text);
        house.read(handler);
    }
    let serving = house.session(asker).serving.as_ref().unwrap();
    assert_eq!((serving.own.len(), serving.copied_bytes), (20, 4 * 60_003));
    // By number there is no second try, and on the same shard none is needed.
    let (near, far) = (house.connect(0), house.connect(1));
    let to = house.shards[1].client_id(far.id);
    let text = request("e", 1).replace("\"id\"", &format!(r#""to":"client:{to}","id""#));
    house.ask(near, &text);
    let serving = house.session(near).serving.as_ref().unwrap();
    assert_eq!((serving.own.len(), serving.copied_bytes), (1, 0));
}

#[test]
fn everything_is_forgotten_with_the_sessions() {
    for who_first in [0, 1] {
        let mut house = House::new(2);
        let (asker, handler) = (house.connect(0), house.connect(1));
        let near = house.connect(0);
        handle(&mut house, handler, "far");
        handle(&mut house, near, "near");
        for id in 0..5 {
            house.ask(asker, &request("far", id));
            house.ask(asker, &request("near", 10 + id));
        }
        let pair = [asker, handler];
        house.end(pair[who_first], Ending::Failed);
        house.settle();
        if who_first == 1 {
            let told = brief(&house.read(asker));
            let expected: Vec<_> = (0..5).map(|id| format!("reply {id} no_handler")).collect();
            assert_eq!(told, expected, "in the order in which it was asked");
        } else {
            assert_eq!(house.shards[0].requests.pending(), 0);
        }
        house.end(pair[1 - who_first], Ending::Failed);
        house.end(near, Ending::Failed);
        house.settle();
        for shard in [0, 1] {
            house.check_empty(shard);
            assert!(house.shards[shard].remote_services.is_empty());
        }
        forgotten(&mut house);
    }
}

#[test]
fn an_answer_waits_for_room_and_all_behind_it() {
    let mut house = House::new(2);
    let (asker, handler) = (house.connect(0), house.connect(1));
    handle(&mut house, handler, "e");
    house.ask(asker, &request("e", 1));
    let number = asked(&mut house, handler)[0];
    house.fill(1, 0);
    house.send(
        handler,
        &format!(r#"{{"type":"reply","id":{number},"data":1}}"#),
    );
    house.send(handler, r#"{"type":"ping"}"#);
    house.turn(1);
    house.turn(0);
    assert!(house.is_paused(handler) && house.read(handler).is_empty());
    house.unfill(1, 0);
    house.settle();
    assert_eq!(brief(&house.read(asker)), ["reply 1"]);
    assert_eq!(brief(&house.read(handler)), ["pong"]);
    forgotten(&mut house);

    // An answer of the shard's own waits as well.
    let to = house.shards[1].client_id(handler.id);
    house.end(handler, Ending::Failed);
    house.settle();
    house.fill(1, 0);
    let text = request("e", 2).replace("\"id\"", &format!(r#""to":"client:{to}","id""#));
    assert_eq!(house.ask(asker, &text), [""; 0]);
    assert!(house.shards[1].is_restless() && !house.shards[1].is_settled());
    house.unfill(1, 0);
    house.settle();
    assert_eq!(brief(&house.read(asker)), ["reply 2 no_handler"]);
    assert!(house.shards[1].is_settled());
    forgotten(&mut house);
}

#[test]
fn handlers_end_at_the_limit_and_only_where_they_may_be() {
    let mut house = House::with(2, |settings| settings.limits.handlers_max = 2);
    let client = house.connect(0);
    for event in ["a", "b", "a"] {
        handle(&mut house, client, event);
    }
    let third = r#"{"type":"handle","event":"c"}"#;
    assert_eq!(brief(&house.ask(client, third)), ["error handle limit"]);
    house.ask(client, r#"{"type":"unhandle","event":"a"}"#);
    handle(&mut house, client, "c");
    assert_eq!(house.shards[1].remote_services.len(), 2);
    let mut house = House::with(1, |settings| {
        settings.listeners[0].client_services = false;
    });
    let client = house.connect(0);
    assert_eq!(
        brief(&house.ask(client, third)),
        ["error handle not_allowed"]
    );
}

#[test]
fn a_handle_is_acked_when_every_shard_knows() {
    let mut house = House::new(2);
    let (handler, asker) = (house.connect(0), house.connect(1));
    house.fill(0, 1);
    house.send(handler, r#"{"type":"handle","event":"e"}"#);
    house.turn(0);
    assert_eq!(house.read(handler), [""; 0]);
    house.unfill(0, 1);
    house.settle();
    assert_eq!(brief(&house.read(handler)), ["ack handle"]);
    assert_eq!(house.ask(asker, &request("e", 1)), [""; 0]);
    assert_eq!(asked(&mut house, handler).len(), 1);
}
