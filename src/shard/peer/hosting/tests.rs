//! What hosts hear of their clients, and what becomes of these when a host goes.

use super::super::super::Ending;
use super::super::super::testing::{HEAD, House, Who, brief, frame};
use super::super::testing::{PLACES, at, audience, clusterws, json};
use crate::address::{Address, ClientId};
use crate::error::CloseReason;
use crate::protocol::Outcome;
use crate::protocol::peer::Watch;
use crate::protocol::peer::call::Call;
use crate::ws::frame::Opcode;

const EVERYTHING: Watch = Watch(
    Watch::CONNECT.0 | Watch::DISCONNECT.0 | Watch::EVENT.0 | Watch::SUBSCRIBE.0 | Watch::PUBLISH.0,
);

/// A house, a host that watches this, and a client of its.
fn house((shards, home, there): (usize, usize, usize), mask: Watch) -> (House, Who, Who) {
    let mut house = House::new(shards);
    let host = house.host(home, "h", mask);
    let client = house.connect(there);
    house.settle();
    (house, host, client)
}

fn closed(house: &House, reason: CloseReason) -> u64 {
    let index = CloseReason::ALL.iter().position(|other| *other == reason);
    let counts = house
        .shards
        .iter()
        .map(|one| one.stats().closed[index.unwrap()]);
    counts.sum()
}

#[test]
fn a_host_hears_all_that_its_client_does_in_order() {
    for place in PLACES {
        let (mut house, host, client) = house(place, EVERYTHING);
        for text in [
            r#"{"type":"subscribe","topic":"a"}"#,
            r#"{"type":"subscribe","topic":"a"}"#,
            r#"{"type":"publish","topic":"a.b","message":1}"#,
            r#"{"type":"unsubscribe","topic":"a"}"#,
            r#"{"type":"unsubscribe","topic":"a"}"#,
            r#"{"type":"event","event":"e","data":1}"#,
            r#"{"type":"publish","topic":"","message":1}"#,
        ] {
            house.send(client, text);
        }
        house.bytes(client, &frame(Opcode::Close, b"\x0b\xb8bye"));
        house.settle();
        let it = at(client);
        assert_eq!(
            house.told(host),
            [
                format!("connect {it} native /"),
                format!("subscribed {it} a"),
                format!("published {it} a.b 1"),
                format!("unsubscribed {it} a"),
                format!("event e 1 from {it}"),
                format!("disconnect {it} 3000 bye"),
            ],
            "{place:?}"
        );
        house.end(client, Ending::EndOfInput);
        house.end(host, Ending::Failed);
        house.settle();
        for shard in 0..place.0 {
            house.check_empty(shard);
            assert_eq!(house.shards[shard].residue(), None);
        }
    }
}

#[test]
fn it_hears_of_what_it_watches_and_of_nothing_else() {
    for place in PLACES {
        for (mask, expected) in [
            (Watch::CONNECT, "connect"),
            (Watch::DISCONNECT, "disconnect"),
            (Watch::EVENT, "event"),
            (Watch(Watch::EVENT.0 | Watch::PUBLISH.0), "published event"),
            // Whoever watches no more than these hosts nobody.
            (Watch(Watch::SUBSCRIBE.0 | Watch::PUBLISH.0), ""),
            (Watch::default(), ""),
        ] {
            let (mut house, host, client) = house(place, mask);
            house.send(client, r#"{"type":"subscribe","topic":"a"}"#);
            house.send(client, r#"{"type":"publish","topic":"a","message":1}"#);
            house.send(client, r#"{"type":"event","event":"e","data":1}"#);
            house.settle();
            house.end(client, Ending::Failed);
            house.settle();
            let told = house.told(host);
            let verbs = told.iter().filter_map(|one| one.split(' ').next());
            assert_eq!(verbs.collect::<Vec<_>>().join(" "), expected, "{place:?}");
        }
    }
}

#[test]
fn what_it_watches_may_change_and_its_clients_stay_its() {
    for place in PLACES {
        let (mut house, host, client) = house(place, Watch::EVENT);
        for (mask, expected) in [
            (EVERYTHING, "published"),
            (Watch::default(), ""),
            (Watch::CONNECT, ""),
            (Watch::PUBLISH, "published"),
            (Watch::PUBLISH, "published"),
        ] {
            house.watch(host, mask);
            let told = house.ask(client, r#"{"type":"publish","topic":"a","message":1}"#);
            assert_eq!(brief(&told), ["ack publish"]);
            let told = house.told(host);
            let verbs = told.iter().filter_map(|one| one.split(' ').next());
            assert_eq!(
                verbs.collect::<Vec<_>>().join(" "),
                expected,
                "{place:?} {mask:?}"
            );
        }
        // New ones are not given to whom hosts nobody.
        let stranger = house.connect(place.2);
        house.end(host, Ending::Failed);
        house.settle();
        assert_eq!(house.read(client), ["close 1012 service restart"]);
        assert!(house.session(stranger).is_open());
    }
}

#[test]
fn a_watch_is_done_when_every_shard_knows_and_believes_nothing_else() {
    let mut house = House::new(3);
    let host = house.host(0, "h", EVERYTHING);
    let client = house.connect(2);
    house.settle();
    house.told(host);
    house.fill(0, 2);
    let watch = |ticket, mask| Call::Watch { ticket, mask };
    house.call(host, &watch(1, Watch::EVENT));
    house.call(host, &watch(2, EVERYTHING));
    house.call(host, &watch(3, Watch::PUBLISH));
    house.settle();
    assert_eq!(house.told(host), [""; 0]);
    house.ask(client, r#"{"type":"publish","topic":"a","message":1}"#);
    assert_eq!(house.told(host), [""; 0], "its own shard knows already");
    house.unfill(0, 2);
    house.settle();
    assert_eq!(house.told(host), ["done 1", "done 2", "done 3"]);
    house.ask(client, r#"{"type":"publish","topic":"a","message":1}"#);
    assert_eq!(house.told(host).len(), 1);
    assert!(house.session(client).is_open());
}

#[test]
fn how_its_clients_end() {
    for place in PLACES {
        let (mut house, host, _) = house(place, Watch::DISCONNECT);
        let connect = |house: &mut House| house.connect(place.2);
        let clients: Vec<_> = (0..5).map(|_| connect(&mut house)).collect();
        house.end(clients[0], Ending::Failed);
        house.bytes(clients[1], &frame(Opcode::Close, b""));
        house.bytes(clients[2], &frame(Opcode::Binary, b"x"));
        house.disconnect(host, clients[3], 4123, "you know why", 1);
        house.settle();
        house.pass(60_000);
        house.settle();
        house.turn(place.2);
        house.pass(60_000);
        house.turn(place.2);
        house.settle();
        let mut told = house.told(host);
        told.retain(|one| one != "probe");
        let expected = [
            (1, "1005 "),
            (0, "1006 "),
            (2, "1003 unsupported data"),
            (3, "4123 you know why"),
        ];
        for (index, how) in expected {
            let line = format!("disconnect {} {how}", at(clients[index]));
            assert!(told.contains(&line), "{line}: {told:?}");
        }
        assert!(told.contains(&"done 1".to_owned()));
        let silent = format!("disconnect {} 4009 ping timeout", at(clients[4]));
        assert!(told.contains(&silent), "{told:?}");
        assert_eq!(house.read(clients[3]), ["close 4123 you know why"]);
        assert_eq!(closed(&house, CloseReason::Disconnected), 1);
    }
}

#[test]
fn what_is_emitted_before_a_disconnect_is_read_before_the_close() {
    for place in PLACES {
        let (mut house, host, client) = house(place, Watch::CONNECT);
        let payload = json("1");
        house.join(host, client, "r", 0);
        house.emit(host, &audience(&["r"]), "to the room", 0);
        let to = &Address::Client(house.client_id(client));
        house.call(
            host,
            &Call::Emit {
                ticket: 0,
                to,
                event: b"to it",
                payload: &payload,
                volatile: false,
            },
        );
        house.emit(host, &audience(&[]), "to all", 0);
        house.disconnect(host, client, 4000, "", 0);
        house.emit(host, &audience(&[]), "too late", 0);
        house.settle();
        let told = house.read(client);
        assert_eq!(told.len(), 4, "{told:?}");
        for (text, event) in told
            .iter()
            .zip(["to the room", "to it", "to all", "close 4000 "])
        {
            assert!(text.contains(event), "{place:?} {told:?}");
        }
    }
}

#[test]
fn disconnects_that_are_refused() {
    for place in PLACES {
        let (mut house, host, client) = house(place, Watch::CONNECT);
        let gone = house.connect(place.2);
        house.end(gone, Ending::Failed);
        let peer = house.connect_link(place.2, "p");
        let redis = house.accept(place.2, 2, false);
        house.settle();
        house.told(host);
        for (who, code, expected) in [
            (client, 0, "failed 1 bad_type"),
            (client, 1005, "failed 1 bad_type"),
            (client, 1015, "failed 1 bad_type"),
            (client, 5000, "failed 1 bad_type"),
            (gone, 4000, "failed 1 no_handler"),
            (peer, 4000, "failed 1 no_handler"),
            (redis, 4000, "failed 1 no_handler"),
        ] {
            house.disconnect(host, who, code, "", 1);
            house.settle();
            assert_eq!(house.told(host), [expected], "{code}");
        }
        let client_of_another = ClientId {
            broker: 8,
            ..house.client_id(client)
        };
        let told = house.ask_peer(
            host,
            &Call::Disconnect {
                ticket: 1,
                client: client_of_another,
                code: 4000,
                reason: b"",
            },
        );
        assert_eq!(told, ["failed 1 no_handler"]);
        assert!(house.session(client).is_open() && house.session(peer).is_open());
    }
}

#[test]
fn only_browsers_clients_are_hosted_and_each_shard_gives_to_whom_has_the_fewest() {
    for shards in [1, 3] {
        let mut house = House::new(shards);
        let before = house.connect(0);
        let hosts: Vec<_> = (0..3)
            .map(|index| house.host(index % shards, &format!("h{index}"), Watch::CONNECT))
            .collect();
        let idle = house.host(0, "idle", Watch::PEER);
        for shard in 0..shards {
            let mut clients: Vec<_> = (0..10).map(|_| house.connect(shard)).collect();
            clients.push(clusterws(&mut house, shard));
            clients.push(house.connect(shard));
            let redis = house.accept(shard, 2, false);
            house.bytes(redis, b"PING\r\n");
            house.settle();
            let counts: Vec<_> = hosts
                .iter()
                .map(|&host| {
                    let told = house.told(host);
                    assert!(
                        told.iter().all(|one| one.starts_with("connect ")),
                        "{told:?}"
                    );
                    told.len()
                })
                .collect();
            assert_eq!(counts, [4, 4, 4], "{shards} {shard}");
            // Those that go make room for those that come.
            for &client in &clients[..6] {
                house.end(client, Ending::Failed);
            }
            house.settle();
            let counts = |house: &mut House| {
                hosts
                    .iter()
                    .map(|&host| house.told(host).len())
                    .sum::<usize>()
            };
            assert_eq!(counts(&mut house), 0, "nobody watches DISCONNECT");
        }
        assert!(house.told(idle).iter().all(|one| one.starts_with("peer ")));
        assert!(house.session(before).hosted.is_none());
    }
}

#[test]
fn its_clients_go_with_a_host_and_others_stay() {
    for (ending, place) in PLACES.into_iter().enumerate() {
        let mut house = House::new(place.0);
        let before = house.connect(place.2);
        let host = house.host(place.1, "h", EVERYTHING);
        let clients: Vec<_> = (0..3).map(|_| house.connect(place.2)).collect();
        // It is asked, and will not answer.
        house.send(
            clients[0],
            r#"{"type":"request","id":1,"event":"e","data":1}"#,
        );
        house.settle();
        match ending % 3 {
            0 => house.end(host, Ending::Failed),
            1 => house.call(host, &Call::Bye),
            _ => house.bytes(host, &[0xff; 4]),
        }
        house.settle();
        for &client in &clients {
            let told = brief(&house.read(client));
            assert_eq!(
                told.last().unwrap(),
                "close 1012 service restart",
                "{place:?}"
            );
        }
        assert!(house.session(before).is_open());
        assert_eq!(closed(&house, CloseReason::HostGone), 3);
        assert!(CloseReason::HostGone.reconnect());
        let after = house.connect(place.2);
        assert!(house.session(after).hosted.is_none());
        house.end(after, Ending::Failed);
        house.end(before, Ending::Failed);
        for client in clients {
            house.end(client, Ending::EndOfInput);
        }
        house.settle();
        if house.closed(host).is_none() {
            house.end(host, Ending::EndOfInput);
            house.settle();
        }
        for shard in 0..place.0 {
            house.check_empty(shard);
        }
    }
}

#[test]
fn what_a_client_asks_of_a_service_goes_to_its_host_first_and_last() {
    for shards in [1, 2, 3] {
        let mut house = House::new(shards);
        let shard = |index: usize| index % shards;
        let host = house.host(shard(1), "h", Watch::EVENT);
        let client = house.connect(0);
        let service = house.connect_link(shard(2), "s");
        let near = house.connect_link(shard(1), "n");
        let ask = |house: &mut House| {
            let text = r#"{"type":"request","id":1,"event":"e","data":1}"#;
            house.ask(client, text);
            let emit = r#"{"type":"event","event":"e","data":1}"#;
            house.ask(client, emit);
            [host, service, near].map(|peer| {
                let told = house.told(peer);
                let from = format!("from {}", at(client));
                assert!(told.iter().all(|one| one.ends_with(&from)), "{told:?}");
                told.len()
            })
        };
        let unhandle = |house: &mut House, peer, ticket| {
            house.ask_peer(
                peer,
                &Call::Unhandle {
                    ticket,
                    event: b"e",
                },
            );
        };
        assert_eq!(
            ask(&mut house),
            [2, 0, 0],
            "nobody handles it, and it wants that"
        );
        house.handle(service, "e");
        assert_eq!(ask(&mut house), [0, 2, 0]);
        // Also if it handles other things, and somebody beside it handles this.
        house.handle(host, "other");
        assert_eq!(ask(&mut house), [0, 2, 0]);
        house.handle(near, "e");
        let [none, one, other] = ask(&mut house);
        assert_eq!((none, one + other), (0, 2));
        house.handle(host, "e");
        assert_eq!(ask(&mut house), [2, 0, 0]);
        assert_eq!(ask(&mut house), [2, 0, 0]);
        // Also if it handled it before it hosted anybody.
        unhandle(&mut house, host, 1);
        let [none, one, other] = ask(&mut house);
        assert_eq!((none, one + other), (0, 2));
        unhandle(&mut house, near, 1);
        unhandle(&mut house, service, 1);
        assert_eq!(ask(&mut house), [2, 0, 0]);
        house.watch(host, Watch::CONNECT);
        assert_eq!(ask(&mut house), [0, 0, 0]);
        // What others say to a service is none of its business.
        let text = r#"{"type":"request","id":1,"event":"e","data":1}"#;
        let told = house.ask(client, text);
        assert_eq!(brief(&told), ["reply 1 no_handler"]);
    }
}

#[test]
fn what_a_peer_handled_before_it_hosted_is_known_when_its_watch_is_done() {
    let mut house = House::new(3);
    let host = house.connect_link(1, "h");
    let service = house.connect_link(2, "s");
    house.handle(host, "e");
    house.handle(service, "e");
    house.watch(host, Watch::CONNECT);
    let client = house.connect(0);
    house.settle();
    house.told(host);
    for _ in 0..4 {
        house.ask(client, r#"{"type":"event","event":"e","data":1}"#);
    }
    assert_eq!((house.told(host).len(), house.told(service).len()), (4, 0));
}

#[test]
fn a_request_to_a_host_is_answered_and_names_the_client() {
    for place in PLACES {
        let (mut house, host, client) = house(place, Watch::EVENT);
        house.ask(client, r#"{"type":"request","id":1,"event":"e","data":1}"#);
        let told = house.told(host);
        let words: Vec<_> = told[0].split(' ').collect();
        assert_eq!(words[0], "request");
        assert_eq!(words[2..], ["e", "1", "from", &at(client)]);
        let outcome = &Outcome::Data(json("2"));
        let number = words[1].parse().unwrap();
        house.call(host, &Call::Reply { number, outcome });
        house.settle();
        assert_eq!(brief(&house.read(client)), ["reply 1"]);
    }
}

#[test]
fn words_keep_their_order_while_a_lane_is_full() {
    let mut house = House::new(2);
    let host = house.host(0, "h", EVERYTHING);
    house.fill(1, 0);
    house.turn(1);
    let clients: Vec<_> = (0..5).map(|_| house.connect(1)).collect();
    for &client in &clients {
        house.send(client, r#"{"type":"event","event":"e","data":1}"#);
        house.send(client, r#"{"type":"publish","topic":"a","message":1}"#);
    }
    house.end(clients[0], Ending::Failed);
    house.settle();
    for &client in &clients[1..] {
        assert!(house.is_paused(client), "it waits behind its own CONNECT");
    }
    assert_eq!(house.told(host), [""; 0]);
    house.unfill(1, 0);
    house.settle();
    let told = house.told(host);
    for (index, &client) in clients.iter().enumerate() {
        let it = at(client);
        let of_it = told.iter().filter(|one| one.contains(&format!(" {it}")));
        let verbs: Vec<_> = of_it.filter_map(|one| one.split(' ').next()).collect();
        let expected = match index {
            0 => &["connect", "disconnect"][..],
            _ => &["connect", "event", "published"],
        };
        assert_eq!(verbs, expected, "{told:?}");
    }
}

#[test]
fn a_clusterws_client_is_hosted_too_and_its_path_is_told() {
    let mut house = House::new(2);
    let host = house.host(0, "h", EVERYTHING);
    let client = house.accept(1, 0, false);
    let head = HEAD
        .replace("GET / ", "GET /clusterws?v=3 ")
        .replace("Host: h", "Host: h\r\nX-Own: 1");
    house.bytes(client, head.as_bytes());
    house.settle();
    house.head(client);
    house.send(client, r##"{"#":["e","say",1]}"##);
    house.send(client, r##"{"#":["s","s","a"]}"##);
    house.settle();
    let it = at(client);
    assert_eq!(
        house.told(host),
        [
            format!("connect {it} clusterws /clusterws?v=3"),
            format!("event say 1 from {it}"),
            format!("subscribed {it} a"),
        ]
    );
}
