//! Links of a broker in this process: what a host that embeds it calls, and hears. On one shard and on two, on both
//! drivers.

mod common;

use std::collections::HashSet;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Client, DEADLINE};
use pubsub::address::{Address, ClientId};
use pubsub::broker::Broker;
use pubsub::config::{Config, Io, ListenAddr, Listener};
use pubsub::link::{Answer, Audience, Event, Link, LinkError, PeerPattern, Ticket, Watch};
use pubsub::message::{Kind, Payload};
use pubsub::net::control::Control;
use pubsub::net::listener::Bound;
use pubsub::topic::{Filter, Topic};
use serde_json::json;

struct House {
    broker: Broker,
    address: String,
}

impl House {
    fn start(shards: usize, io: Io) -> House {
        let tcp = ListenAddr::Tcp {
            host: "127.0.0.1".to_owned(),
            port: 0,
        };
        let config = Config {
            listeners: vec![Listener::new(tcp)],
            shards: Some(shards),
            io,
            ..Config::embedded()
        };
        let broker = Broker::start(&config).expect("a broker starts");
        let Bound::Tcp(address) = broker.listening[0] else {
            panic!("it was TCP");
        };
        let address = address.to_string();
        House { broker, address }
    }

    fn link(&self, name: &str) -> Link {
        Link::open(&self.broker, name).expect("a link opens")
    }

    /// As many Links as make sure that there is one on each shard.
    fn links(&self, names: [&str; 2]) -> [Link; 2] {
        names.map(|name| self.link(name))
    }

    fn client(&self) -> Client {
        Client::connect_to(&self.address, "/")
    }
}

/// On the driver that is found here and on epoll, with one shard and two.
fn in_each_house(test: impl Fn(&House)) {
    for io in [Io::Auto, Io::Epoll] {
        for shards in [1, 2] {
            let house = House::start(shards, io);
            test(&house);
            house.broker.stop();
        }
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn topic(name: &str) -> Topic {
    Topic::dotted(bytes(name)).expect("a topic")
}

fn dotted(filter: &str) -> Filter {
    Filter::dotted(bytes(filter)).expect("a filter")
}

fn json(text: &str) -> Payload {
    Payload::json(bytes(text))
}

fn next(link: &Link) -> Event {
    link.next(Some(DEADLINE)).expect("an event in time")
}

/// Waits for the answer to a call, past whatever else comes.
fn done(link: &Link, ticket: Result<Ticket, LinkError>) -> Payload {
    let ticket = ticket.expect("a call");
    loop {
        match next(link) {
            Event::Done {
                ticket: of,
                payload,
            } if of == ticket => return payload,
            Event::Failed {
                ticket: of,
                code,
                reason,
            } if of == ticket => panic!("{code:?}: {reason:?}"),
            _ => {}
        }
    }
}

/// Waits until a call has failed; with which code.
fn failed(link: &Link, ticket: Result<Ticket, LinkError>) -> Bytes {
    let ticket = ticket.expect("a call");
    loop {
        match next(link) {
            Event::Failed {
                ticket: of, code, ..
            } if of == ticket => return code,
            Event::Done { ticket: of, .. } if of == ticket => panic!("it was done"),
            _ => {}
        }
    }
}

fn answer() -> Answer {
    Answer::Wanted
}

#[test]
fn links_and_clients_read_what_the_others_publish() {
    in_each_house(|house| {
        let [one, two] = house.links(["one", "two"]);
        let mut client = house.client();
        client.subscribe("news");
        done(&one, one.subscribe(&dotted("news"), answer()));
        let glob = Filter::glob(bytes("n*s.uk")).expect("a glob");
        done(&two, two.subscribe(&glob, answer()));

        done(
            &one,
            one.publish(&topic("news.uk"), &json(r#"{"x":1}"#), false, answer()),
        );
        let delivery = client.delivery();
        assert_eq!(
            (&delivery["topic"], &delivery["message"]),
            (&json!("news.uk"), &json!({"x": 1}))
        );
        let Event::Message {
            topic: of,
            context,
            payload,
            ..
        } = next(&two)
        else {
            panic!("a message");
        };
        assert_eq!((&of[..], &context[..]), (&b"news.uk"[..], &b"n*s.uk"[..]));
        assert_eq!(
            (payload.kind(), &payload.bytes()[..]),
            (Kind::Json, &br#"{"x":1}"#[..])
        );

        client.command(
            json!({"type": "publish", "topic": "news.uk", "message": "hello", "echo": false}),
        );
        for link in [&one, &two] {
            let Event::Message { payload, .. } = next(link) else {
                panic!("a message");
            };
            assert_eq!(payload, json(r#""hello""#));
        }
        done(&two, two.unsubscribe(&glob, answer()));
        done(
            &one,
            one.publish(&topic("news.uk"), &json("2"), true, answer()),
        );
        assert_eq!(client.delivery()["message"], 2);
        assert!(two.next(Some(Duration::ZERO)).is_none());
    });
}

#[test]
fn what_a_link_publishes_behind_its_own_subscribe_comes_back() {
    in_each_house(|house| {
        let links = house.links(["one", "two"]);
        for link in &links {
            for round in 0..50 {
                let name = format!("own.{round}");
                link.subscribe(&dotted(&name), Answer::Unwanted)
                    .expect("room");
                link.publish(&topic(&name), &json("1"), true, Answer::Unwanted)
                    .expect("room");
                let Event::Message { topic, .. } = next(link) else {
                    panic!("its own message");
                };
                assert_eq!(topic, name);
            }
        }
    });
}

#[test]
fn requests_find_who_handles_them() {
    in_each_house(|house| {
        let [calc, asker] = house.links(["calc", "asker"]);
        done(&calc, calc.handle("add", answer()));
        let mut client = house.client();
        let service = Address::Service(bytes("add"));
        let asked = [
            asker.request(&service, "add", &json("[5,4]"), Duration::from_secs(5)),
            asker.request(
                &Address::Peer(bytes("calc")),
                "add",
                &json("[5,4]"),
                Duration::ZERO,
            ),
            asker.request(
                &Address::Master(bytes("add")),
                "add",
                &json("[5,4]"),
                Duration::ZERO,
            ),
        ];
        client.send_json(&json!({"type": "request", "event": "add", "data": [5, 4], "id": 1}));
        for _ in 0..asked.len() + 1 {
            let Event::Request {
                request,
                event,
                payload,
                ..
            } = next(&calc)
            else {
                panic!("a request");
            };
            assert_eq!((&event[..], &payload), (&b"add"[..], &json("[5,4]")));
            calc.reply(request, json("9")).expect("room");
            assert_eq!(calc.reply(request, json("9")), Err(LinkError::NoRequest));
        }
        for ticket in asked {
            assert_eq!(done(&asker, ticket), json("9"));
        }
        assert_eq!(client.next_json()["data"], 9);

        // Failures of three kinds.
        let nobody = asker.request(
            &Address::Service(bytes("x")),
            "x",
            &json("1"),
            Duration::ZERO,
        );
        assert_eq!(failed(&asker, nobody), "no_handler");
        let late = asker.request(&service, "add", &json("1"), Duration::from_millis(10));
        assert_eq!(failed(&asker, late), "timeout");
        next(&calc);
        let refused = asker.request(&service, "add", &json("1"), Duration::from_secs(5));
        let Event::Request { request, .. } = next(&calc) else {
            panic!("a request");
        };
        calc.reply_error(request, "bad_numbers", "one is missing")
            .expect("room");
        assert_eq!(failed(&asker, refused), "bad_numbers");
    });
}

/// Everything that a chat host does: it hosts clients, hears of them, puts them into rooms and speaks to these.
#[test]
fn a_host_hears_of_its_clients_and_speaks_to_their_rooms() {
    in_each_house(|house| {
        let host = house.link("chat");
        let all =
            Watch(Watch::CONNECT.0 | Watch::DISCONNECT.0 | Watch::EVENT.0 | Watch::SUBSCRIBE.0);
        done(&host, host.watch(all, answer()));
        let mut clients = Vec::new();
        for number in 0..4 {
            let client = Client::connect_to(&house.address, &format!("/?n={number}"));
            let Event::Connect(arrival) = next(&host) else {
                panic!("a client");
            };
            assert_eq!(arrival.query, format!("n={number}"));
            assert_eq!(arrival.header(b"upgrade"), Some(&b"websocket"[..]));
            let room = if number < 3 { "room:1" } else { "room:2" };
            done(&host, host.join(arrival.client, room, answer()));
            clients.push((client, arrival.client));
        }
        // An event to nobody who handles it goes to the host.
        let (sender, sender_id) = &mut clients[0];
        sender.send_json(&json!({"type": "event", "event": "chat", "data": "hello"}));
        let Event::Event {
            client,
            event,
            payload,
            ..
        } = next(&host)
        else {
            panic!("an event");
        };
        assert_eq!((client, &event[..]), (Some(*sender_id), &b"chat"[..]));
        let to = Audience::Clients {
            rooms: vec![bytes("room:1")],
            except_rooms: Vec::new(),
            except: client,
        };
        done(
            &host,
            host.emit_many(&to, "chat", &payload, false, answer()),
        );
        let everybody = Audience::Clients {
            rooms: Vec::new(),
            except_rooms: Vec::new(),
            except: None,
        };
        done(
            &host,
            host.emit_many(&everybody, "all", &json("1"), false, answer()),
        );
        for (number, (client, _)) in clients.iter_mut().enumerate() {
            if number == 1 || number == 2 {
                let event = client.next_json();
                assert_eq!(
                    (&event["event"], &event["data"]),
                    (&json!("chat"), &json!("hello"))
                );
            }
            assert_eq!(client.next_json()["event"], "all");
        }
        // The host asks, and is asked.
        let (client, id) = &mut clients[3];
        let asked = host.request(&Address::Client(*id), "age?", &json("null"), Duration::ZERO);
        let request = client.next_json();
        assert_eq!(
            (&request["type"], &request["event"]),
            (&json!("request"), &json!("age?"))
        );
        client.send_json(&json!({"type": "reply", "id": request["id"], "data": 36}));
        assert_eq!(done(&host, asked), json("36"));
        client.send_json(&json!({"type": "request", "event": "where?", "id": 1}));
        let Event::Request {
            request,
            client: asker,
            ..
        } = next(&host)
        else {
            panic!("a request");
        };
        assert_eq!(asker, *id);
        host.reply(request, json(r#""here""#)).expect("room");
        assert_eq!(client.next_json()["data"], "here");

        client.subscribe("news");
        let Event::Subscribed {
            client: who,
            up: true,
            filter,
        } = next(&host)
        else {
            panic!("a subscription");
        };
        assert_eq!((who, &filter[..]), (*id, &b"news"[..]));
        // Emit, then disconnect: the event comes first.
        host.emit(
            &Address::Client(*id),
            "bye",
            &json("1"),
            false,
            Answer::Unwanted,
        )
        .expect("room");
        host.disconnect(*id, 4321, "enough", Answer::Unwanted)
            .expect("room");
        assert_eq!(client.next_json()["event"], "bye");
        client.expect_close(4321);
        loop {
            match next(&host) {
                Event::Disconnect { client: who, .. } => break assert_eq!(who, *id),
                Event::Subscribed { up: false, .. } => {}
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn nobody_comes_in_unasked_once_a_host_wants_to_be_asked() {
    in_each_house(|house| {
        let host = house.link("door");
        done(
            &host,
            host.watch(Watch(Watch::ADMIT.0 | Watch::CONNECT.0), answer()),
        );
        let address = house.address.clone();
        let knock = |path: &'static str| {
            let address = address.clone();
            std::thread::spawn(move || {
                let stream = std::net::TcpStream::connect(&address).expect("a connection");
                Client::try_over(stream, &address, path).map(drop)
            })
        };
        for (path, is_in) in [("/?good", true), ("/?bad", false)] {
            let knocking = knock(path);
            let Event::Admit(arrival) = next(&host) else {
                panic!("somebody at the door");
            };
            if is_in {
                host.admit(arrival.client, Some("ada")).expect("room");
                let Event::Connect(inside) = next(&host) else {
                    panic!("it came in");
                };
                assert_eq!(inside.client, arrival.client);
            } else {
                host.refuse(arrival.client, "not today").expect("room");
            }
            let came_in = knocking.join().expect("no panic");
            assert_eq!(came_in.is_ok(), is_in, "{path}: {came_in:?}");
        }
        // With the host the door is shut.
        drop(host);
        assert!(knock("/?good").join().expect("no panic").is_err());
    });
}

#[test]
fn names_are_taken_once_and_peers_hear_of_each_other() {
    in_each_house(|house| {
        let [one, two] = house.links(["one", "two"]);
        done(&one, one.watch(Watch::PEER, answer()));
        let three = house.link("three");
        let Event::Peer { up: true, name } = next(&one) else {
            panic!("a peer");
        };
        assert_eq!(name, "three");
        // Who drains shows that it is there.
        let draining = std::thread::spawn(move || {
            let mut events = Vec::new();
            while !events
                .iter()
                .any(|event| matches!(event, Event::Event { .. }))
            {
                two.wait(Some(DEADLINE));
                two.drain(&mut events, 100);
            }
            two
        });
        let taken = Link::open(&house.broker, "two");
        assert!(matches!(taken, Err(LinkError::Refused { .. })), "{taken:?}");
        let to = Audience::Peers(PeerPattern::Regex(bytes("^t")));
        done(
            &three,
            three.emit_many(&to, "end", &json("1"), false, answer()),
        );
        let two = draining.join().expect("no panic");
        assert!(
            three.next(Some(Duration::ZERO)).is_none(),
            "never to who says it"
        );
        drop(two);
        loop {
            match next(&one) {
                Event::Peer { up: false, name } => break assert_eq!(name, "two"),
                Event::Event { .. } => panic!("its name does not begin with t"),
                _ => {}
            }
        }
        house.link("two");
    });
}

#[test]
fn tokens_are_accepted_and_rejected() {
    in_each_house(|house| {
        let host = house.link("auth");
        let id = done(&host, host.accept("user-01", Some("id-01")));
        assert_eq!(id.bytes(), "id-01");
        let mut client = Client::connect_to(&house.address, "/?id=id-01");
        let Event::TokenUp { token, .. } = next(&host) else {
            panic!("it came in");
        };
        assert_eq!(token, "user-01");
        let to = Address::Token(bytes("user-01"));
        let asked = host.request(&to, "foo", &json("null"), Duration::from_secs(5));
        let request = client.next_json();
        client.send_json(&json!({"type": "reply", "id": request["id"], "data": "bar"}));
        assert_eq!(done(&host, asked), json(r#""bar""#));
        host.reject("user-01", Answer::Unwanted).expect("room");
        assert_eq!(client.next_json()["event"], "termination");
        let mut rejected = false;
        while !rejected {
            rejected = matches!(next(&host), Event::TokenRejected { .. });
        }
    });
}

#[test]
fn who_watches_the_log_of_a_broker_reads_its_lines_and_of_no_other() {
    in_each_house(|house| {
        let other = House::start(1, Io::Epoll);
        let [one, two] = [house, &other].map(|house| {
            let link = house.link("log");
            done(&link, link.watch(Watch::LOG, answer()));
            link
        });
        // A page of another site: refused, and logged.
        let stream = std::net::TcpStream::connect(&house.address).expect("a connection");
        let head = format!(
            "GET / HTTP/1.1\r\nHost: {}\r\nOrigin: https://evil.example\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            house.address
        );
        (&stream).write_all(head.as_bytes()).expect("a request");
        let Event::Log { level, text } = next(&one) else {
            panic!("a line");
        };
        let text = String::from_utf8(text.to_vec()).expect("a text");
        assert!(
            (1..=3).contains(&level) && text.contains("evil.example"),
            "{level} {text}"
        );
        assert!(two.next(Some(Duration::ZERO)).is_none());
        other.broker.stop();
    });
}

#[test]
fn calls_of_many_threads_are_all_made() {
    in_each_house(|house| {
        let link = house.link("many");
        done(&link, link.subscribe(&dotted("n"), answer()));
        let (threads, each) = (4, 500);
        let answered = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let link = &link;
                scope.spawn(move || {
                    for number in 0..each {
                        let payload = json(&format!("[{thread},{number}]"));
                        let publish = || link.publish(&topic("n"), &payload, true, answer());
                        while publish() == Err(LinkError::Full) {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut last = vec![None; threads];
            let mut tickets = HashSet::new();
            let mut messages = 0;
            while messages < threads * each || answered.load(Ordering::Relaxed) < threads * each {
                match next(&link) {
                    Event::Message { payload, .. } => {
                        let said: [usize; 2] =
                            serde_json::from_slice(payload.bytes()).expect("as it was sent");
                        let [thread, number] = said;
                        assert!(last[thread] < Some(number), "in the order of its thread");
                        last[thread] = Some(number);
                        messages += 1;
                    }
                    Event::Done { ticket, .. } => {
                        assert!(tickets.insert(ticket));
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
    });
}

#[test]
fn links_live_longer_than_their_broker_and_say_so() {
    for io in [Io::Auto, Io::Epoll] {
        let house = House::start(2, io);
        let links = house.links(["one", "two"]);
        house.broker.stop();
        for link in &links {
            let published = link.publish(&topic("a"), &json("1"), true, answer());
            assert_eq!(published, Err(LinkError::Stopped));
            assert_eq!(link.maybe_subscribe("a"), Err(LinkError::Stopped));
            assert!(matches!(next(link), Event::Stopped | Event::Closed { .. }));
            assert!(link.next(Some(Duration::ZERO)).is_none());
        }
    }
}

#[test]
fn a_shard_that_fails_ends_every_link() {
    for io in [Io::Auto, Io::Epoll] {
        let house = House::start(2, io);
        let links = house.links(["one", "two"]);
        let fault: Box<dyn FnOnce(_) + Send> = Box::new(|_| panic!("a fault that a test plants"));
        let word = Control::Stats { reply: fault };
        house.broker.shards()[1]
            .insist(word, DEADLINE)
            .expect("it takes words");
        for link in &links {
            assert!(matches!(next(link), Event::Stopped));
            let joined = link.join(client_of(link), "room", answer());
            assert_eq!(joined, Err(LinkError::Stopped));
        }
        assert_eq!(
            house.broker.failures().recv().expect("its reason").shard.0,
            1
        );
        let started = Instant::now();
        house.broker.stop();
        assert!(started.elapsed() < DEADLINE);
    }
}

fn client_of(_link: &Link) -> ClientId {
    "AAAAAAAAAAAAAAAAAAAA".parse().expect("an id")
}
