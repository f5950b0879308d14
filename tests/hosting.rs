//! Application servers that host clients: they let them in, hear of them, and speak to rooms of them.

mod common;

use std::io::Read;
use std::net::TcpStream;
use std::thread;

use bytes::Bytes;
use common::{Broker, Client, Peer, wait_for};
use pubsub::address::ClientId;
use pubsub::message::Payload;
use pubsub::protocol::peer::call::Call;
use pubsub::protocol::peer::event::{Told, headers, read_event};
use pubsub::protocol::peer::{Admitted, Audience, Watch};
use serde_json::json;

const OPEN: [&str; 2] = ["--peers", "127.0.0.1:0"];

fn start(arguments: &[&str]) -> Broker {
    Broker::start(&[&OPEN, arguments].concat())
}

fn watch(peer: &mut Peer, mask: Watch) {
    peer.done(|ticket| Call::Watch { ticket, mask });
}

fn emit(peer: &mut Peer, rooms: &[&'static str], event: &str) {
    let rooms = rooms.iter().map(|room| Bytes::from_static(room.as_bytes()));
    let to = &Audience::Clients {
        rooms: rooms.collect(),
        except_rooms: Vec::new(),
        except: None,
    };
    let payload = &Payload::json(Bytes::from_static(b"1"));
    peer.call(&Call::EmitMany {
        ticket: 0,
        to,
        event: event.as_bytes(),
        payload,
        volatile: false,
    });
}

/// The next client that wants to come in: who it is, and a word of its own that it sent along.
fn asked(peer: &mut Peer) -> (ClientId, String) {
    let frame = peer.frame();
    let Told::Admit(arrived) = read_event(&frame).expect("an event") else {
        panic!("another event: {:?}", read_event(&frame));
    };
    assert_eq!(arrived.protocol, b"native");
    let address = String::from_utf8(arrived.address.to_vec()).unwrap();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    assert!(headers(arrived.headers).any(|(name, _)| name.eq_ignore_ascii_case(b"upgrade")));
    let query = String::from_utf8(arrived.query.to_vec()).unwrap();
    (arrived.client, query)
}

fn admit(peer: &mut Peer, client: ClientId, verdict: &Admitted) {
    peer.call(&Call::Admit { client, verdict });
}

/// A client that knocks in a thread of its own: it, or the status that it is refused with.
fn knock(broker: &Broker, query: &str) -> thread::JoinHandle<Result<Client, String>> {
    let (address, path) = (broker.listen().to_owned(), format!("/?{query}"));
    thread::spawn(move || {
        let stream = TcpStream::connect(&address).expect("the broker listens");
        Client::try_over(stream, &address, &path)
    })
}

#[test]
fn with_admission_host_nobody_comes_in_unasked() {
    for shards in ["1", "3"] {
        let broker = start(&["--admission", "host", "--shards", shards]);
        let refused = knock(&broker, "").join().unwrap().err().unwrap();
        assert!(refused.contains("503"), "{refused}");
        let mut host = Peer::connect(&broker, "host");
        watch(&mut host, Watch::ADMIT);
        let (yes, no) = (knock(&broker, "who=yes"), knock(&broker, "who=no"));
        for _ in 0..2 {
            let (client, query) = asked(&mut host);
            let verdict = match query.as_str() {
                "who=yes" => Admitted::Yes { user: None },
                _ => Admitted::No {
                    reason: Bytes::from_static(b"not you"),
                },
            };
            admit(&mut host, client, &verdict);
        }
        let refused = no.join().unwrap().err().unwrap();
        assert!(refused.contains("401"), "{refused}");
        let mut client = yes.join().unwrap().expect("it is let in");
        client.publish("a", json!(1));
        // The host is gone, and its clients with it; and nobody comes in any more.
        drop(host);
        client.expect_close(1012);
        let refused = knock(&broker, "").join().unwrap().err().unwrap();
        assert!(refused.contains("503"), "{refused}");
        assert_eq!(broker.sum("handshakes_refused"), 3);
        // A page is none.
        let mut page = TcpStream::connect(broker.listen()).unwrap();
        std::io::Write::write_all(&mut page, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        page.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[test]
fn a_room_of_clients_on_all_shards_hears_what_is_said_right_behind_their_joins() {
    let broker = start(&["--shards", "3"]);
    let mut host = Peer::connect(&broker, "host");
    let mut clients: Vec<_> = (0..30).map(|_| Client::connect(&broker)).collect();
    let ids: Vec<ClientId> = clients
        .iter_mut()
        .map(|one| one.whoami().parse().unwrap())
        .collect();
    for (index, &client) in ids.iter().enumerate() {
        let room: &[u8] = if index % 2 == 0 { b"even" } else { b"odd" };
        let ticket = 0;
        host.call(&Call::Join {
            ticket,
            client,
            room,
        });
    }
    emit(&mut host, &["even"], "one");
    emit(&mut host, &["even", "odd"], "two");
    emit(&mut host, &[], "three");
    for &client in &ids {
        host.call(&Call::Disconnect {
            ticket: 0,
            client,
            code: 4321,
            reason: b"enough",
        });
    }
    for (index, mut client) in clients.into_iter().enumerate() {
        let expected: &[&str] = if index % 2 == 0 {
            &["one", "two", "three"]
        } else {
            &["two", "three"]
        };
        for event in expected {
            assert_eq!(client.next_json()["event"], *event);
        }
        client.expect_close(4321);
    }
    wait_for("all deliveries", || {
        (broker.sum("delivered") == 15 + 30 + 30).then_some(())
    });
}

#[test]
fn a_host_that_does_not_read_stops_its_clients_and_hears_all_of_them_in_the_end() {
    let broker = start(&["--shards", "2"]);
    let mut host = Peer::connect(&broker, "host");
    let mut before = Client::connect(&broker);
    watch(&mut host, Watch::EVENT);
    let clients: Vec<_> = (0..4).map(|_| Client::connect(&broker)).collect();
    // Far more than sockets and feed take.
    const EVENTS: usize = 400;
    let senders: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            thread::spawn(move || {
                let data = "d".repeat(32 * 1024);
                for number in 0..EVENTS {
                    let event = json!({"type": "event", "event": "e", "data": [number, data]});
                    client.send_json(&event);
                }
                client
            })
        })
        .collect();
    wait_for("the host to be behind", || {
        (broker.sum("feeds_paused") > 0).then_some(())
    });
    // Others do not notice.
    before.subscribe("a");
    before.publish("a", json!(1));
    assert_eq!(before.delivery()["message"], 1);
    let mut heard = std::collections::HashMap::new();
    for _ in 0..4 * EVENTS {
        let frame = host.frame();
        let Told::Event {
            client: Some(client),
            payload,
            ..
        } = read_event(&frame).expect("an event")
        else {
            panic!("another event");
        };
        let (number, _): (usize, String) = serde_json::from_slice(payload.bytes).unwrap();
        let next = heard.entry(client).or_insert(0);
        assert_eq!(number, *next, "in order");
        *next += 1;
    }
    for sender in senders {
        let mut client = sender.join().expect("it could send all");
        client.settle();
    }
    assert_eq!(broker.sum("closed_slow"), 0);
}
