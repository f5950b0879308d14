//! Peers on the shards of a house: what they say to each other and to clients, and what becomes of their names.

use bytes::Bytes;

use super::super::settings::AcceptPeers;
use super::super::testing::{House, LINKS, PEERS, Who, brief, bytes};
use super::super::{Credentials, Ending};
use crate::address::Address;
use crate::error::CloseReason;
use crate::message::Payload;
use crate::protocol::Outcome;
use crate::protocol::peer::call::Call;
use crate::protocol::peer::{Audience, PeerPattern, Watch};
use crate::secret::Secret;
use crate::topic::{Filter, Topic};

fn json(text: &'static str) -> Payload {
    Payload::json(Bytes::from_static(text.as_bytes()))
}

fn request(house: &mut House, who: Who, ticket: u64, to: &Address, event: &str) -> Vec<String> {
    let (payload, event) = (json("1"), event.as_bytes());
    house.ask_peer(
        who,
        &Call::Request {
            ticket,
            to,
            event,
            payload: &payload,
            timeout_ms: 0,
        },
    )
}

fn handle(house: &mut House, who: Who, event: &str) {
    let event = event.as_bytes();
    let told = house.ask_peer(who, &Call::Handle { ticket: 9, event });
    assert_eq!(told, ["done 9"]);
}

fn watch(house: &mut House, who: Who, mask: Watch) {
    let told = house.ask_peer(who, &Call::Watch { ticket: 8, mask });
    assert_eq!(told, ["done 8"]);
}

/// The answer to the last request that this peer was asked.
fn reply(house: &mut House, who: Who, number: u64, answer: &'static str) {
    let outcome = Outcome::Data(json(answer));
    let outcome = &outcome;
    house.call(who, &Call::Reply { number, outcome });
    house.settle();
}

fn number(told: &[String]) -> u64 {
    let last = told.last().expect("a request");
    let mut words = last.split(' ');
    assert_eq!(words.next(), Some("request"), "{last}");
    words.next().unwrap().parse().unwrap()
}

#[test]
fn peers_publish_and_subscribe_as_clients_do_and_no_rule_is_theirs() {
    let mut house = House::with(2, |settings| {
        // Nobody may do anything.
        settings.access = super::super::auth::Access::new(vec![super::super::auth::AccessRule {
            filter: Filter::dotted(bytes("none")).unwrap(),
            who: super::super::auth::Who::Nobody,
            subscribe: true,
            publish: true,
        }]);
    });
    let (one, two) = (house.connect_peer(0, "one"), house.connect_link(1, "two"));
    let filter = &Filter::dotted(bytes("a")).unwrap();
    let subscribe = Call::Subscribe { ticket: 1, filter };
    for who in [one, two] {
        assert_eq!(house.ask_peer(who, &subscribe), ["done 1"]);
    }
    let (topic, payload) = (Topic::dotted(bytes("a.b")).unwrap(), json("7"));
    let publish = |ticket, echo| Call::Publish {
        ticket,
        topic: &topic,
        payload: &payload,
        echo,
    };
    let told = house.ask_peer(one, &publish(2, true));
    assert_eq!(told, ["message a.b a 7", "done 2"]);
    assert_eq!(house.told(two), ["message a.b a 7"]);
    // Without a ticket there is no answer, and without an echo nothing comes back.
    assert_eq!(house.ask_peer(two, &publish(0, false)), [""; 0]);
    assert_eq!(house.told(one), ["message a.b a 7"]);
    let unsubscribe = Call::Unsubscribe { ticket: 3, filter };
    assert_eq!(house.ask_peer(one, &unsubscribe), ["done 3"]);
    house.ask_peer(two, &publish(0, true));
    assert_eq!(house.told(one), [""; 0]);
    let client = house.connect(0);
    let refused = house.ask(client, r#"{"type":"subscribe","topic":"b"}"#);
    assert_eq!(brief(&refused), ["error subscribe not_allowed"]);
}

#[test]
fn a_request_finds_whom_its_address_means() {
    for shards in [1, 3] {
        let mut house = House::new(shards);
        let at = |shard: usize| shard % shards;
        let client = house.connect(at(2));
        let (calc, other) = (
            house.connect_peer(at(1), "calc-1"),
            house.connect_peer(at(2), "calc-2"),
        );
        let host = house.connect_link(0, "host");
        let (event, name) = (bytes("add"), bytes("calc-2"));
        let service = &Address::Service(event.clone());
        let any_peer = &Address::AnyPeer(event.clone());
        let master = &Address::Master(event.clone());
        for to in [service, any_peer, master] {
            let told = request(&mut house, calc, 1, to, "add");
            assert_eq!(told, ["failed 1 no_handler"], "{to:?}");
        }
        handle(&mut house, calc, "add");
        // Itself is none of its fellows, and no Link is a peer from outside.
        for to in [any_peer, master] {
            let told = request(&mut house, calc, 2, to, "add");
            assert_eq!(told, ["failed 2 no_handler"], "{to:?}");
        }
        handle(&mut house, host, "add");
        assert_eq!(request(&mut house, other, 3, any_peer, "add"), [""; 0]);
        let asked = house.told(calc);
        assert_eq!(asked.len(), 1);
        assert!(asked[0].ends_with(" add 1 from calc-2"), "{asked:?}");
        reply(&mut house, calc, number(&asked), "3");
        assert_eq!(house.told(other), ["done 3 3"]);

        assert_eq!(request(&mut house, calc, 4, master, "add"), [""; 0]);
        let asked = house.told(host);
        assert!(asked[0].ends_with(" add 1 from calc-1"), "{asked:?}");
        reply(&mut house, host, number(&asked), "4");
        assert_eq!(house.told(calc), ["done 4 4"]);

        // By name, whatever it handles; also for a client, who is told by whom it is asked.
        let named = &Address::Peer(name);
        assert_eq!(request(&mut house, calc, 5, named, "what"), [""; 0]);
        let asked = house.told(other);
        assert!(asked[0].ends_with(" what 1 from calc-1"), "{asked:?}");
        reply(&mut house, other, number(&asked), "5");
        assert_eq!(house.told(calc), ["done 5 5"]);
        let text = r#"{"type":"request","to":"peer:calc-2","event":"e","data":2,"id":1}"#;
        assert_eq!(house.ask(client, text), [""; 0]);
        let asked = house.told(other);
        reply(&mut house, other, number(&asked), "6");
        assert_eq!(house.read(client), [r#"{"type":"reply","id":1,"data":6}"#]);
        let nobody = &Address::Peer(bytes("calc-3"));
        let told = request(&mut house, calc, 6, nobody, "what");
        assert_eq!(told, ["failed 6 no_handler"]);

        // A native client that handles an event hears which peer asks.
        house.ask(client, r#"{"type":"handle","event":"native"}"#);
        let to = &Address::Service(bytes("native"));
        assert_eq!(request(&mut house, calc, 7, to, "native"), [""; 0]);
        let asked = house.read(client);
        assert!(asked[0].contains(r#""from":"peer:calc-1""#), "{asked:?}");
    }
}

#[test]
fn an_event_goes_where_a_request_would() {
    let mut house = House::new(2);
    let (one, two) = (house.connect_peer(0, "one"), house.connect_peer(1, "two"));
    let payload = json("1");
    let emit = |ticket, to| Call::Emit {
        ticket,
        to,
        event: b"e",
        payload: &payload,
        volatile: false,
    };
    let named = &Address::Peer(bytes("two"));
    assert_eq!(house.ask_peer(one, &emit(1, named)), ["done 1"]);
    assert_eq!(house.told(two), ["event e 1 from one"]);
    // To itself, too, if it says so.
    let itself = &Address::Peer(bytes("one"));
    let told = house.ask_peer(one, &emit(0, itself));
    assert_eq!(told, ["event e 1 from one"]);
    let nobody = &Address::Service(bytes("e"));
    assert_eq!(
        house.ask_peer(one, &emit(2, nobody)),
        ["failed 2 no_handler"]
    );
}

#[test]
fn a_broadcast_reaches_the_peers_that_a_pattern_fits_and_not_its_sender() {
    let mut house = House::new(3);
    let names = ["calc-1", "calc-2", "calc-20", "web"];
    let peers: Vec<_> = (0..)
        .zip(names)
        .map(|(index, name)| match name {
            "web" => house.connect_link(index % 3, name),
            _ => house.connect_peer(index % 3, name),
        })
        .collect();
    let regex = |text: &str| PeerPattern::Regex(bytes(text));
    for (pattern, fits) in [
        (PeerPattern::All, &["calc-2", "calc-20", "web"][..]),
        (PeerPattern::Name(bytes("calc-2")), &["calc-2"]),
        (PeerPattern::Name(bytes("calc-1")), &[]),
        (regex("calc-2"), &["calc-2", "calc-20"]),
        (regex(r"^calc-\d+$"), &["calc-2", "calc-20"]),
        (regex("^x"), &[]),
    ] {
        let to = &Audience::Peers(pattern);
        let payload = &json("1");
        let broadcast = Call::EmitMany {
            ticket: 1,
            to,
            event: b"e",
            payload,
            volatile: false,
        };
        assert_eq!(house.ask_peer(peers[0], &broadcast), ["done 1"]);
        for (who, name) in peers.iter().zip(names) {
            let expected = fits.contains(&name).then_some("event e 1 from calc-1");
            let expected: Vec<_> = expected.into_iter().collect();
            assert_eq!(house.told(*who), expected, "{to:?} {name}");
        }
    }
    let to = &Audience::Peers(regex("("));
    let payload = &json("1");
    let broadcast = Call::EmitMany {
        ticket: 2,
        to,
        event: b"e",
        payload,
        volatile: false,
    };
    assert_eq!(house.ask_peer(peers[0], &broadcast), ["failed 2 bad_type"]);
}

#[test]
fn a_volatile_event_is_not_kept_for_whoever_does_not_read() {
    let mut house = House::new(2);
    let (one, two) = (house.connect_peer(0, "one"), house.connect_peer(1, "two"));
    house.stop_reading(two);
    let payload = &json("1");
    let to = &Audience::Peers(PeerPattern::All);
    for _ in 0..3 {
        for volatile in [true, false] {
            let broadcast = Call::EmitMany {
                ticket: 0,
                to,
                event: if volatile { b"v" } else { b"e" },
                payload,
                volatile,
            };
            house.ask_peer(one, &broadcast);
        }
    }
    house.read_on(two);
    house.settle();
    let told = house.told(two).join(", ");
    let (kept, lost) = ("event e 1 from one", "event v 1 from one");
    assert_eq!(
        told,
        [lost, kept, kept, kept].join(", "),
        "the first found nothing before it"
    );
    assert_eq!(house.shards[1].stats().volatile_dropped, 2);
}

#[test]
fn whoever_is_not_known_is_not_let_in() {
    let mut house = House::new(2);
    let credentials = Credentials {
        peer_key: Some(Secret::new("sesame").unwrap()),
        ..Credentials::default()
    };
    for shard in &mut house.shards {
        shard.set_credentials(std::sync::Arc::new(credentials.clone()));
    }
    for (key, told) in [
        ("", "goodbye not_allowed the key is not the broker's"),
        ("sesam", "goodbye not_allowed the key is not the broker's"),
        ("sesame", "welcome"),
    ] {
        let who = house.say_hello(1, PEERS, "one", key);
        house.settle();
        assert_eq!(house.told(who), [told]);
        assert_eq!(house.is_shut(who), told != "welcome");
    }
    assert_eq!(house.shards[1].stats().unauthenticated, 2);
    assert_eq!(house.shards[1].stats().peers, 1);
    // A Link is the broker's own.
    house.connect_link(0, "two");
}

#[test]
fn the_first_call_is_hello_and_comes_in_time() {
    let mut house = House::new(1);
    let frame = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
    for (sent, told) in [
        (frame(&[0x15]), "goodbye bad_frame the first call is HELLO"),
        (frame(&[0x99]), "goodbye bad_frame no call has this number"),
        (vec![0xff; 4], "goodbye bad_frame the first call is HELLO"),
        (vec![0; 4], "goodbye bad_frame the first call is HELLO"),
        (
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            "goodbye bad_frame the first call is HELLO",
        ),
        (
            frame(&[1, 2, 0, 1, 0, b'x', 0, 0]),
            "goodbye version this broker speaks version 1",
        ),
    ] {
        let who = house.accept(0, PEERS, false);
        house.bytes(who, &sent);
        house.settle();
        assert_eq!(house.told(who), [told], "{sent:?}");
    }
    let slow = house.accept(0, PEERS, false);
    for _ in 0..3 {
        house.bytes(slow, &[0]);
        house.pass(3_000);
        house.turn(0);
    }
    assert_eq!(house.told(slow), [""; 0]);
    house.pass(1_000);
    house.turn(0);
    assert_eq!(house.told(slow), ["goodbye timeout HELLO took too long"]);
    let one_too_many = house.accept(0, PEERS, true);
    house.turn(0);
    assert_eq!(
        house.told(one_too_many),
        ["goodbye busy too many connections"]
    );
    house.pass_to_deadline(0);
    let who = house.connect_peer(0, "one");
    let twice = Call::Hello {
        name: b"two",
        key: b"",
    };
    let told = house.ask_peer(who, &twice);
    assert_eq!(told, ["goodbye bad_frame HELLO is said once"]);
}

#[test]
fn calls_behind_hello_wait_for_the_welcome_and_it_for_every_shard() {
    let mut house = House::new(3);
    let who = house.accept(1, PEERS, false);
    house.fill(1, 2);
    let hello = Call::Hello {
        name: b"one",
        key: b"",
    };
    house.call(who, &hello);
    house.call(
        who,
        &Call::Handle {
            ticket: 1,
            event: b"e",
        },
    );
    for _ in 0..5 {
        (0..3).for_each(|shard| house.turn(shard));
    }
    assert_eq!(house.told(who), [""; 0], "a shard has not heard of it");
    house.unfill(1, 2);
    house.settle();
    assert_eq!(house.told(who), ["welcome", "done 1"]);
    // Now it can be addressed from there.
    let other = house.connect_peer(2, "two");
    let to = &Address::Peer(bytes("one"));
    request(&mut house, other, 1, to, "e");
    assert_eq!(house.told(who).len(), 1);
}

#[test]
fn a_name_is_its_holder_s_while_it_answers() {
    for shards in [1, 2, 3] {
        let mut house = House::new(shards);
        let at = |shard: usize| shard % shards;
        let first = house.connect_peer(at(1), "one");
        let second = house.say_hello(at(2), PEERS, "one", "");
        let third = house.say_hello(0, LINKS, "one", "");
        house.settle();
        assert_eq!(house.told(first), ["probe"]);
        assert_eq!((house.told(second), house.told(third)), (vec![], vec![]));
        house.ask_peer(first, &Call::Alive);
        for who in [second, third] {
            let told = house.told(who);
            assert_eq!(told.len(), 1);
            assert!(told[0].starts_with("goodbye duplicate "), "{told:?}");
        }
        // It is not asked again, and time takes nothing from it.
        house.pass(2_500);
        (0..shards).for_each(|shard| house.turn(shard));
        house.settle();
        assert_eq!(house.told(first), [""; 0]);
        assert!(house.session(first).is_open());
        // Whatever it says is an answer.
        let fourth = house.say_hello(at(2), PEERS, "one", "");
        house.settle();
        house.told(first);
        handle(&mut house, first, "e");
        assert!(house.told(fourth)[0].starts_with("goodbye duplicate "));
        // When it has gone the name is free.
        house.ask_peer(first, &Call::Bye);
        house.connect_peer(at(2), "one");
    }
}

#[test]
fn a_name_goes_to_the_next_when_its_holder_is_silent() {
    for shards in [1, 2, 3] {
        let mut house = House::new(shards);
        let at = |shard: usize| shard % shards;
        let watcher = house.connect_peer(0, "watcher");
        watch(&mut house, watcher, Watch::PEER);
        let first = house.connect_peer(at(1), "one");
        handle(&mut house, first, "e");
        assert_eq!(house.told(watcher), ["peer up one"]);
        let second = house.say_hello(at(2), PEERS, "one", "");
        house.settle();
        let third = house.say_hello(0, PEERS, "one", "");
        house.settle();
        house.pass(1_999);
        house.turn(at(1));
        house.settle();
        assert_eq!(house.told(second), [""; 0]);
        house.pass(1);
        house.turn(at(1));
        house.settle();
        let told = house.told(first);
        assert_eq!(told[0], "probe");
        assert!(told[1].starts_with("goodbye duplicate "), "{told:?}");
        assert_eq!(house.told(second), ["welcome"]);
        assert!(house.told(third)[0].starts_with("goodbye duplicate "));
        let to = &Address::Peer(bytes("one"));
        request(&mut house, watcher, 1, to, "x");
        assert_eq!(house.told(second).len(), 1, "it is the one of this name");
        // Whether it was seen to go in between is a matter of shards; in the end it is there.
        let news: Vec<_> = house.told(watcher);
        assert!(
            news.is_empty() || news == ["peer down one", "peer up one"],
            "{news:?}"
        );
        house.end(second, Ending::Failed);
        house.settle();
        // It was asked something.
        let mut told = house.told(watcher);
        told.sort();
        assert_eq!(told, ["failed 1 no_handler", "peer down one"]);
    }
}

#[test]
fn a_holder_that_reads_nothing_is_replaced_at_once() {
    let mut house = House::new(2);
    let first = house.connect_peer(1, "one");
    house.stop_reading(first);
    handle_unread(&mut house, first);
    house.pass(2_000);
    let second = house.say_hello(0, PEERS, "one", "");
    house.settle();
    assert_eq!(house.told(second), ["welcome"]);
    assert_eq!(house.closed(first), Some(true));
}

fn handle_unread(house: &mut House, who: Who) {
    house.call(
        who,
        &Call::Handle {
            ticket: 1,
            event: b"e",
        },
    );
    house.settle();
}

#[test]
fn a_claimant_that_leaves_costs_the_holder_nothing() {
    let mut house = House::new(2);
    let first = house.connect_peer(1, "one");
    let second = house.say_hello(0, PEERS, "one", "");
    house.settle();
    house.end(second, Ending::Failed);
    house.settle();
    house.pass(2_000);
    house.turn(1);
    house.settle();
    assert_eq!(house.told(first), ["probe"]);
    assert!(
        house.session(first).is_open(),
        "nobody wants its name any more"
    );
    house.end(first, Ending::Failed);
    house.settle();
    for shard in 0..2 {
        house.check_empty(shard);
        assert_eq!(house.shards[shard].residue(), None);
    }
}

#[test]
fn peers_hear_of_each_other_and_not_of_themselves() {
    let mut house = House::new(2);
    let watcher = house.connect_link(0, "watcher");
    watch(&mut house, watcher, Watch::PEER);
    for shard in [0, 1] {
        let peer = house.connect_peer(shard, "one");
        assert_eq!(house.told(watcher), ["peer up one"]);
        house.ask_peer(peer, &Call::Bye);
        assert_eq!(house.told(watcher), ["peer down one"]);
        house.end(peer, Ending::EndOfInput);
        house.settle();
    }
    watch(&mut house, watcher, Watch::default());
    house.connect_peer(1, "two");
    assert_eq!(house.told(watcher), [""; 0]);
}

#[test]
fn only_listed_peers_come_in_where_there_is_a_list_and_only_links_write_it() {
    let mut house = House::with(2, |settings| settings.accept_peers = AcceptPeers::Listed);
    let host = house.connect_link(1, "host");
    let admit = |admitted| Call::AdmitPeer {
        ticket: 1,
        name: b"one",
        admitted,
    };
    let stranger = house.say_hello(0, PEERS, "one", "");
    house.settle();
    assert_eq!(
        house.told(stranger),
        ["goodbye not_allowed this peer may not come in"]
    );
    assert_eq!(house.ask_peer(host, &admit(true)), ["done 1"]);
    let one = house.connect_peer(0, "one");
    for call in [
        admit(true),
        admit(false),
        Call::CutPeer {
            ticket: 1,
            name: b"host",
        },
    ] {
        assert_eq!(house.ask_peer(one, &call), ["failed 1 not_allowed"]);
    }
    assert_eq!(house.ask_peer(host, &admit(false)), ["done 1"]);
    let cut = Call::CutPeer {
        ticket: 2,
        name: b"one",
    };
    assert_eq!(house.ask_peer(host, &cut), ["done 2"]);
    assert_eq!(house.told(one), ["goodbye cut cut by the broker's host"]);
    assert_eq!(house.ask_peer(host, &cut), ["failed 2 no_handler"]);
    let again = house.say_hello(0, PEERS, "one", "");
    house.settle();
    assert!(house.told(again)[0].starts_with("goodbye not_allowed "));
}

#[test]
fn a_silent_peer_is_asked_and_a_link_is_not() {
    let mut house = House::new(1);
    let (peer, link) = (house.connect_peer(0, "one"), house.connect_link(0, "two"));
    house.pass(25_000);
    house.turn(0);
    assert_eq!(house.told(peer), ["probe"]);
    house.ask_peer(peer, &Call::Alive);
    house.pass(25_000);
    house.turn(0);
    assert_eq!(house.told(peer), ["probe"]);
    house.pass(20_000);
    house.turn(0);
    assert_eq!(house.told(peer), ["goodbye timeout ping timeout"]);
    assert_eq!(house.told(link), [""; 0]);
    assert!(house.session(link).is_open());
}

#[test]
fn bad_calls_are_refused_and_bad_frames_end_the_peer() {
    let frame = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
    let mut house = House::new(1);
    let peer = house.connect_peer(0, "one");
    let told = house.ask_peer(
        peer,
        &Call::Handle {
            ticket: 1,
            event: b"a\nb",
        },
    );
    assert_eq!(told, ["failed 1 bad_type"]);
    let (payload, to) = (json("{"), &Address::Peer(bytes("one")));
    let emit = Call::Emit {
        ticket: 2,
        to,
        event: b"e",
        payload: &payload,
        volatile: false,
    };
    assert_eq!(house.ask_peer(peer, &emit), ["failed 2 bad_json"]);
    house.bytes(peer, &frame(&[0x40]));
    house.settle();
    assert_eq!(
        house.told(peer),
        ["goodbye bad_frame no call has this number"]
    );

    let peer = house.connect_peer(0, "two");
    let size = house.shards[0].settings.server_limits.message_bytes_max as u32 + 65_537;
    house.bytes(peer, &size.to_le_bytes());
    house.settle();
    assert_eq!(house.told(peer), ["goodbye too_large message too big"]);
    let reasons = house.shards[0].stats().closed;
    let count = |reason| {
        reasons[CloseReason::ALL
            .iter()
            .position(|one| *one == reason)
            .unwrap()]
    };
    assert_eq!(count(CloseReason::ProtocolError), 1);
    assert_eq!(count(CloseReason::TooBig), 1);
}

#[test]
fn a_drain_says_goodbye_to_peers() {
    let mut house = House::new(2);
    let peers = [house.connect_peer(0, "one"), house.connect_link(1, "two")];
    for shard in 0..2 {
        house.begin(shard);
        house.shards[shard].close_all(0);
        house.finish_turn(shard);
    }
    house.settle();
    for who in peers {
        assert_eq!(house.told(who), ["goodbye going_away going away"]);
    }
    let late = house.accept(0, PEERS, false);
    house.turn(0);
    assert_eq!(house.told(late), ["goodbye going_away going away"]);
}
