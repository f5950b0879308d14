//! Who is asked about, by whom, and what becomes of those about whom nobody says anything.

use bytes::Bytes;

use super::super::super::Ending;
use super::super::super::settings::Admission;
use super::super::super::testing::{HEAD, House, Who, brief, frame};
use super::super::testing::{PLACES, at, audience};
use crate::protocol::peer::{Admitted, Watch};
use crate::ws::frame::Opcode;

const ADMIT_AND_MORE: Watch = Watch(
    Watch::ADMIT.0 | Watch::CONNECT.0 | Watch::DISCONNECT.0 | Watch::PUBLISH.0 | Watch::EVENT.0,
);

fn yes() -> Admitted {
    Admitted::Yes { user: None }
}

fn no(reason: &'static str) -> Admitted {
    Admitted::No {
        reason: Bytes::from_static(reason.as_bytes()),
    }
}

/// A client that knocks, with a word behind its head.
fn knock(house: &mut House, shard: usize) -> Who {
    let client = house.accept(shard, 0, false);
    let text = frame(
        Opcode::Text,
        br#"{"type":"publish","topic":"a","message":1}"#,
    );
    house.bytes(client, &[HEAD.as_bytes(), &text].concat());
    house.settle();
    client
}

/// The status line that it got, if any.
fn status(house: &mut House, client: Who) -> String {
    let head = house.head(client);
    head.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_host_decides_wherever_it_is() {
    for (shards, home, there) in PLACES {
        let mut house = House::new(shards);
        let host = house.host(home, "h", ADMIT_AND_MORE);
        let client = knock(&mut house, there);
        let it = at(client);
        assert_eq!(house.told(host), [format!("admit {it} native /")]);
        assert_eq!(status(&mut house, client), "");
        // What it says at once behind its yes finds the client in.
        let user = Some(Bytes::from_static(b"me"));
        house.verdict(host, client, Admitted::Yes { user });
        house.emit(host, &audience(&[]), "e", 0);
        house.settle();
        assert!(status(&mut house, client).starts_with("HTTP/1.1 101 "));
        assert_eq!(brief(&house.read(client)), ["ack publish", "event"]);
        let identity = house.session(client).identity.as_ref();
        assert_eq!(identity.map(|of| &*of.name), Some("me"));
        assert_eq!(
            house.told(host),
            [
                format!("connect {it} native / me"),
                format!("published {it} a 1")
            ],
            "it is told when the client has come in"
        );
        let refused = knock(&mut house, there);
        house.told(host);
        house.verdict(host, refused, no("not you"));
        let answer = house.head(refused);
        assert!(answer.starts_with("HTTP/1.1 401 ") && answer.ends_with("\r\n\r\nnot you\n"));
        assert_eq!(house.told(host), [""; 0], "it knows");
        assert_eq!(house.shards[there].stats().handshakes_refused, 1);
        house.end(refused, Ending::EndOfInput);
        house.end(client, Ending::Failed);
        house.settle();
        assert_eq!(house.told(host), [format!("disconnect {it} 1006 ")]);
        house.end(host, Ending::Failed);
        house.settle();
        for shard in 0..shards {
            house.check_empty(shard);
        }
    }
}

#[test]
fn once_anybody_has_been_asked_nobody_comes_in_unasked() {
    for (shards, home, there) in PLACES {
        let mut house = House::new(shards);
        let before = house.connect(there);
        let host = house.host(home, "h", Watch::CONNECT);
        let unasked = house.connect(there);
        house.watch(host, Watch::ADMIT);
        let waiting = knock(&mut house, there);
        house.watch(host, Watch::CONNECT);
        assert_eq!(status(&mut house, waiting), "");
        let other = house.host((home + 1) % shards, "other", Watch::CONNECT);
        // There are hosts, and none that admits.
        let client = knock(&mut house, there);
        assert!(status(&mut house, client).starts_with("HTTP/1.1 503 "));
        house.end(host, Ending::Failed);
        house.end(other, Ending::Failed);
        house.settle();
        assert!(status(&mut house, waiting).starts_with("HTTP/1.1 503 "));
        // And now there is none at all.
        for shard in 0..shards {
            let client = knock(&mut house, shard);
            let answer = house.head(client);
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            assert!(answer.contains("Retry-After: 5\r\n"));
        }
        assert!(house.session(before).is_open());
        assert_eq!(house.read(unasked), ["close 1012 service restart"]);
        // Who comes by other doors has other keys.
        let redis = house.accept(there, 2, false);
        house.bytes(redis, b"PING\r\n");
        house.settle();
        assert_eq!(house.raw(redis), b"+PONG\r\n");
    }
}

#[test]
fn where_the_settings_say_so_nobody_ever_came_in_unasked() {
    for shards in [1, 3] {
        let mut house = House::with(shards, |settings| settings.admission = Admission::Host);
        for shard in 0..shards {
            let client = knock(&mut house, shard);
            assert!(status(&mut house, client).starts_with("HTTP/1.1 503 "));
        }
        let host = house.host(0, "h", Watch::ADMIT);
        let client = knock(&mut house, shards - 1);
        house.verdict(host, client, yes());
        assert!(status(&mut house, client).starts_with("HTTP/1.1 101 "));
        let told = house.told(host);
        assert_eq!(told.len(), 1, "it does not watch CONNECT: {told:?}");
    }
}

#[test]
fn only_the_first_word_of_the_one_that_was_asked_counts() {
    for (shards, home, there) in PLACES {
        let mut house = House::new(shards);
        let host = house.host(home, "h", Watch::ADMIT);
        let client = knock(&mut house, there);
        let other = house.host(there, "other", Watch::ADMIT);
        house.verdict(other, client, yes());
        assert_eq!(status(&mut house, client), "");
        house.verdict(host, client, yes());
        assert!(status(&mut house, client).starts_with("HTTP/1.1 101 "));
        house.verdict(host, client, no(""));
        assert!(house.session(client).is_open());
        // Those that are no clients, and those that are not asked about.
        house.verdict(host, other, no(""));
        house.verdict(host, host, no(""));
        assert!(house.session(other).is_open() && house.session(host).is_open());
        let unready = house.accept(there, 0, false);
        house.verdict(host, unready, yes());
        house.verdict(host, unready, no(""));
        assert_eq!(status(&mut house, unready), "");
    }
}

#[test]
fn a_user_that_no_rule_could_name_is_refused() {
    let mut house = House::new(1);
    let host = house.host(0, "h", Watch::ADMIT);
    let client = knock(&mut house, 0);
    let client_id = house.client_id(client);
    let user = Some(Bytes::from_static(b"\xff"));
    house.begin(0);
    let admitted = house.shards[0].host_admits(host.id, client_id, Admitted::Yes { user });
    assert!(admitted.is_ok());
    house.finish_turn(0);
    assert!(status(&mut house, client).starts_with("HTTP/1.1 401 "));
}

#[test]
fn whoever_is_not_answered_is_refused_in_time_and_the_host_hears_that_it_has_gone() {
    for (shards, home, there) in PLACES {
        let mut house = House::new(shards);
        let host = house.host(home, "h", ADMIT_AND_MORE);
        let late = knock(&mut house, there);
        let gone = knock(&mut house, there);
        house.end(gone, Ending::Failed);
        house.settle();
        house.pass(10_000);
        house.turn(there);
        house.settle();
        assert!(status(&mut house, late).starts_with("HTTP/1.1 408 "));
        let [one, two] = [late, gone].map(at);
        assert_eq!(
            house.told(host),
            [
                format!("admit {one} native /"),
                format!("admit {two} native /"),
                format!("disconnect {two} 1006 "),
                format!("disconnect {one} 1006 "),
            ]
        );
        house.verdict(host, late, yes());
        house.verdict(host, gone, yes());
        assert_eq!(house.told(host), [""; 0]);
        assert_eq!(house.shards[there].stats().publishes, 0);
    }
}

#[test]
fn a_host_that_goes_while_it_is_asked_leaves_nobody_waiting() {
    for (shards, home, there) in PLACES {
        let mut house = House::new(shards);
        let host = house.host(home, "h", Watch::ADMIT);
        let asked = knock(&mut house, there);
        house.end(host, Ending::Failed);
        // Its shard has not heard of that yet.
        let client = house.accept(there, 0, false);
        house.bytes(client, HEAD.as_bytes());
        house.turn(there);
        house.settle();
        for client in [asked, client] {
            assert!(status(&mut house, client).starts_with("HTTP/1.1 503 "));
        }
        assert_eq!(house.shards[there].stats().handshakes_refused, 2);
    }
}

#[test]
fn a_full_lane_delays_question_and_answer_and_loses_none() {
    let mut house = House::new(2);
    let host = house.host(0, "h", ADMIT_AND_MORE);
    house.fill(1, 0);
    house.turn(1);
    let client = knock(&mut house, 1);
    let gone = knock(&mut house, 1);
    house.end(gone, Ending::Failed);
    house.settle();
    assert_eq!(house.told(host), [""; 0]);
    house.unfill(1, 0);
    house.settle();
    assert_eq!(house.told(host).len(), 3);
    house.fill(0, 1);
    house.turn(0);
    house.verdict(host, client, yes());
    assert!(house.is_paused(host) && status(&mut house, client).is_empty());
    house.unfill(0, 1);
    house.settle();
    assert!(status(&mut house, client).starts_with("HTTP/1.1 101 "));
}

#[test]
fn a_host_that_takes_no_answers_for_questions_any_more_is_not_asked() {
    let mut house = House::new(2);
    let host = house.host(0, "h", Watch::ADMIT);
    // The question is on its way when it stops to watch.
    let client = house.accept(1, 0, false);
    house.bytes(client, HEAD.as_bytes());
    house.turn(1);
    house.call(
        host,
        &crate::protocol::peer::call::Call::Watch {
            ticket: 1,
            mask: Watch::EVENT,
        },
    );
    house.turn_without_news(0);
    house.settle();
    assert_eq!(house.told(host), ["done 1"]);
    assert!(status(&mut house, client).starts_with("HTTP/1.1 503 "));
    assert!(house.session(host).is_open());
}
