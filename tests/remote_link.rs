//! Links to a broker in another process: they come in, come back, and say honestly what became of each call.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Broker, Client, DEADLINE, wait_for};
use pubsub::address::Address;
use pubsub::link::{Answer, Event, Link, LinkError, Ticket, Timings, Watch};
use pubsub::message::Payload;
use pubsub::secret::Secret;
use pubsub::topic::{Filter, Topic};
use rustix::process::Signal;
use serde_json::json;

/// Fast enough for tests, slow enough for two cores that others use too.
const TIMINGS: Timings = Timings {
    silence: Duration::from_millis(200),
    patience: Duration::from_secs(2),
    pause_min: Duration::from_millis(10),
    pause_max: Duration::from_millis(50),
};

fn connect(url: &str, name: &str) -> Link {
    Link::connect_timed(url, name, None, TIMINGS).expect("a link")
}

fn tcp(broker: &Broker) -> String {
    format!("tcp://{}", broker.peers[0])
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn topic(name: &str) -> Topic {
    Topic::dotted(bytes(name)).expect("a topic")
}

fn json(text: &str) -> Payload {
    Payload::json(bytes(text))
}

fn next(link: &Link) -> Event {
    link.next(Some(DEADLINE)).expect("an event in time")
}

fn wait_up(link: &Link) {
    while !matches!(next(link), Event::Up { .. }) {}
}

fn wait_down(link: &Link) -> String {
    loop {
        if let Event::Down { reason } = next(link) {
            return String::from_utf8_lossy(&reason).into_owned();
        }
    }
}

/// Waits for the answer to a call, past whatever else comes: its payload, or the code of its failure.
fn answer(link: &Link, ticket: Ticket) -> Result<Payload, Bytes> {
    loop {
        match next(link) {
            Event::Done {
                ticket: of,
                payload,
            } if of == ticket => return Ok(payload),
            Event::Failed {
                ticket: of, code, ..
            } if of == ticket => return Err(code),
            _ => {}
        }
    }
}

fn done(link: &Link, ticket: Result<Ticket, LinkError>) -> Payload {
    answer(link, ticket.expect("room")).expect("it takes effect")
}

#[test]
fn it_comes_in_by_tcp_and_by_unix_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = format!("unix:{}", directory.path().join("peers.sock").display());
    let broker = Broker::start(&["--peers", "127.0.0.1:0", "--peers", &path, "--shards", "2"]);
    let calc = connect(&tcp(&broker), "calc");
    let web = connect(&path, "web");
    wait_up(&calc);
    wait_up(&web);
    assert!(calc.client().is_some() && calc.client() != web.client());
    done(&calc, calc.handle("add", Answer::Wanted));
    let to = Address::AnyPeer(bytes("add"));
    let asked = web
        .request(&to, "add", &json("[5,4]"), Duration::ZERO)
        .expect("room");
    let Event::Request {
        request,
        peer,
        payload,
        ..
    } = next(&calc)
    else {
        panic!("a request");
    };
    assert_eq!((&peer[..], payload), (&b"web"[..], json("[5,4]")));
    calc.reply(request, json("9")).expect("room");
    assert_eq!(answer(&web, asked), Ok(json("9")));

    // Clients of the broker are this program's too.
    done(
        &web,
        web.watch(Watch(Watch::CONNECT.0 | Watch::EVENT.0), Answer::Wanted),
    );
    let mut client = Client::connect(&broker);
    client.send_json(&json!({"type": "event", "event": "chat", "data": "hello"}));
    let Event::Connect(arrival) = next(&web) else {
        panic!("a client");
    };
    assert!(matches!(next(&web), Event::Event { event, .. } if event == "chat"));
    let to = Address::Client(arrival.client);
    web.emit(&to, "chat", &json("1"), false, Answer::Unwanted)
        .expect("room");
    assert_eq!(client.next_json()["event"], "chat");
}

#[test]
fn the_last_calls_of_a_link_that_is_dropped_are_made() {
    let broker = Broker::start(&["--peers", "127.0.0.1:0"]);
    let mut client = Client::connect(&broker);
    client.subscribe("last");
    // Not even up yet.
    let link = connect(&tcp(&broker), "short");
    for number in 0..1000 {
        let payload = json(&number.to_string());
        link.publish(&topic("last"), &payload, true, Answer::Unwanted)
            .expect("room");
    }
    drop(link);
    for number in 0..1000 {
        assert_eq!(client.delivery()["message"], number);
    }
    let link = connect(&tcp(&broker), "closed");
    let published = link
        .publish(&topic("last"), &json("1"), true, Answer::Wanted)
        .expect("room");
    link.close().expect("room");
    assert_eq!(
        link.publish(&topic("x"), &json("1"), true, Answer::Wanted),
        Err(LinkError::Stopped)
    );
    assert!(answer(&link, published).is_ok());
    assert!(matches!(next(&link), Event::Closed { code, .. } if code == "closed"));
    wait_for("both are gone", || (broker.sum("peers") == 0).then_some(()));
}

#[test]
fn a_wrong_key_is_final_and_a_taken_name_is_waited_for() {
    let key = Secret::new("a-key-of-peers").expect("a key");
    let broker = Broker::start(&["--peers", "127.0.0.1:0", "--peer-key", key.reveal()]);
    let url = tcp(&broker);
    let wrong = connect(&url, "one");
    let Event::Closed { code, .. } = next(&wrong) else {
        panic!("the end");
    };
    assert_eq!(code, "not_allowed");
    assert_eq!(wrong.handle("add", Answer::Wanted), Err(LinkError::Stopped));
    assert!(wrong.next(Some(Duration::ZERO)).is_none());

    let with_key = || Link::connect_timed(&url, "one", Some(&key), TIMINGS).expect("a link");
    let first = with_key();
    wait_up(&first);
    let second = with_key();
    let why = wait_down(&second);
    assert!(why.contains("duplicate"), "{why}");
    drop(first);
    wait_up(&second);
}

/// A broker that is killed and comes back at the same place.
#[test]
fn what_stands_is_said_again_and_calls_wait_for_the_next_connection() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = format!("unix:{}", directory.path().join("peers.sock").display());
    let start = || Broker::start(&["--peers", &path, "--shards", "2"]);
    let mut broker = start();
    let link = connect(&path, "steady");
    let other = connect(&path, "other");
    wait_up(&link);
    wait_up(&other);
    done(&link, link.maybe_subscribe("room"));
    done(&link, link.maybe_subscribe("left"));
    done(&link, link.maybe_unsubscribe("left"));
    done(&link, link.handle("add", Answer::Wanted));
    done(&link, link.watch(Watch::PEER, Answer::Wanted));
    let id = done(&link, link.accept("user-01", None));
    // This one is on its way when the connection breaks: nobody answers it.
    done(&other, other.handle("never", Answer::Wanted));
    let to = Address::AnyPeer(bytes("never"));
    let lost = link
        .request(&to, "never", &json("1"), Duration::from_secs(60))
        .expect("room");
    let Event::Request { request, .. } = next(&other) else {
        panic!("a request");
    };
    broker.signal(Signal::KILL);
    broker.wait_exit();
    assert_eq!(
        answer(&link, lost).expect_err("nobody can answer it"),
        "timeout"
    );
    wait_down(&link);
    wait_down(&other);
    assert!(link.client().is_none());
    assert_eq!(other.reply(request, json("1")), Err(LinkError::NoRequest));

    // Requests fail in their time, other calls wait.
    let begun = Instant::now();
    let asked = link
        .request(&to, "never", &json("1"), Duration::from_millis(50))
        .expect("room");
    let room = Topic::channel(bytes("room")).expect("a topic");
    let publish = |text| {
        link.publish(&room, &json(text), true, Answer::Wanted)
            .expect("room")
    };
    let waiting = publish("1");
    assert_eq!(
        answer(&link, asked).expect_err("there is nobody"),
        "timeout"
    );
    assert!(begun.elapsed() >= Duration::from_millis(50));

    let broker = start();
    wait_up(&link);
    // Its own subscription holds again, and came before what it published meanwhile.
    let (payload, context) = loop {
        match next(&link) {
            Event::Message {
                payload, context, ..
            } => break (payload, context),
            Event::Done { ticket, .. } => assert_ne!(ticket, waiting, "the message comes first"),
            _ => {}
        }
    };
    assert_eq!((payload, &context[..]), (json("1"), &b"room"[..]));
    assert!(answer(&link, waiting).is_ok());
    let left = Topic::channel(bytes("left")).expect("a topic");
    // All that stands came before this.
    done(&link, link.publish(&left, &json("1"), true, Answer::Wanted));
    let mut client = Client::connect(&broker);
    client.send_json(&json!({"type": "request", "event": "add", "data": 1, "id": 1}));
    let request = loop {
        match next(&link) {
            Event::Request { request, .. } => break request,
            Event::Message { .. } => panic!("it left this room"),
            _ => {}
        }
    };
    link.reply(request, json("2")).expect("room");
    assert_eq!(client.answer()["data"], 2);
    // The same id lets the same client in.
    let id = String::from_utf8(id.bytes().to_vec()).expect("an id");
    let _accepted = Client::connect_to(broker.listen(), &format!("/?id={id}"));
    while !matches!(next(&link), Event::TokenUp { .. }) {}
}

#[test]
fn a_full_queue_says_so_and_nothing_of_it_is_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = format!("unix:{}", directory.path().join("peers.sock").display());
    let link = connect(&path, "eager");
    wait_down(&link);
    let payload = Payload::binary(vec![b'x'; 10_000].into());
    let mut made = 0;
    wait_for("a full queue", || {
        match link.publish(&topic("eager"), &payload, true, Answer::Unwanted) {
            Ok(_) => made += 1,
            // A moment ago the thread behind it had not taken what was there; it is full if that stays.
            Err(error) => assert_eq!(error, LinkError::Full),
        }
        (made >= 8 * 1024 * 1024 / 10_100).then_some(())
    });
    let full = wait_for("a full queue", || {
        let refused = link.handle("x".repeat(255), Answer::Unwanted).err()?;
        let again = link.publish(&topic("eager"), &payload, true, Answer::Unwanted);
        match again {
            Ok(_) => {
                made += 1;
                None
            }
            Err(_) => Some(refused),
        }
    });
    assert_eq!(full, LinkError::Full);
    assert!(made <= 10 * 1024 * 1024 / 10_000, "{made} calls wait");
    let broker = Broker::start(&["--peers", &path]);
    wait_up(&link);
    let published = wait_for("room again", || {
        link.publish(&topic("eager"), &payload, true, Answer::Wanted)
            .ok()
    });
    assert!(answer(&link, published).is_ok());
    assert_eq!(broker.sum("publishes"), made + 1);
}

/// Hands bytes on, both ways, until it is told to swallow them.
struct Proxy {
    address: String,
    swallows: Arc<AtomicBool>,
}

impl Proxy {
    fn before(target: String) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let swallows = Arc::new(AtomicBool::new(false));
        let swallowing = swallows.clone();
        thread::spawn(move || {
            for near in listener.incoming() {
                let near = near.expect("a connection");
                let far = TcpStream::connect(&target).expect("the broker");
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone(), to.try_clone());
                    let (mut from, mut to) = (from.expect("a socket"), to.expect("a socket"));
                    let swallowing = swallowing.clone();
                    thread::spawn(move || {
                        let mut buffer = [0; 4096];
                        while let Ok(size @ 1..) = from.read(&mut buffer) {
                            if !swallowing.load(Ordering::SeqCst) {
                                let _ = to.write_all(&buffer[..size]);
                            }
                        }
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
            }
        });
        Proxy { address, swallows }
    }
}

#[test]
fn a_connection_that_swallows_everything_is_given_up() {
    let broker = Broker::start(&["--peers", "127.0.0.1:0"]);
    let proxy = Proxy::before(broker.peers[0].clone());
    let timings = Timings {
        patience: Duration::from_millis(500),
        ..TIMINGS
    };
    let url = format!("tcp://{}", proxy.address);
    let link = Link::connect_timed(&url, "far", None, timings).expect("a link");
    wait_up(&link);
    done(&link, link.handle("add", Answer::Wanted));
    // An idle connection that is there is kept, over many silences.
    assert!(link.next(Some(5 * timings.silence)).is_none());
    proxy.swallows.store(true, Ordering::SeqCst);
    let room = topic("room");
    let lost = link
        .publish(&room, &json("1"), true, Answer::Wanted)
        .expect("room");
    assert_eq!(
        answer(&link, lost).expect_err("it was swallowed"),
        "timeout"
    );
    let why = wait_down(&link);
    assert!(why.contains("does not answer"), "{why}");
    proxy.swallows.store(false, Ordering::SeqCst);
    wait_up(&link);
    // Behind what stands.
    done(&link, link.publish(&room, &json("2"), true, Answer::Wanted));
    let mut client = Client::connect(&broker);
    client.send_json(&json!({"type": "request", "event": "add", "data": 1, "id": 1}));
    let Event::Request { request, .. } = next(&link) else {
        panic!("a request");
    };
    link.reply(request, json("2")).expect("room");
    assert_eq!(client.answer()["data"], 2);
}

#[test]
fn what_listens_there_and_speaks_no_peer_protocol_is_left_alone() {
    let broker = Broker::start(&[]);
    let link = connect(&format!("tcp://{}", broker.listen()), "lost");
    let why = wait_down(&link);
    assert!(!why.is_empty());
    let nobody = connect("unix:/nowhere/at/all.sock", "lost");
    let why = wait_down(&nobody);
    assert!(why.contains("No such file"), "{why}");
    for url in ["ws://127.0.0.1:1", "tcp://nowhere", "unix:relative"] {
        let refused = Link::connect(url, "lost", None);
        assert!(matches!(refused, Err(LinkError::Invalid(_))), "{url}");
    }
}

#[test]
fn what_was_called_before_the_end_is_on_its_way() {
    let broker = Broker::start(&["--peers", "127.0.0.1:0"]);
    let reader = connect(&tcp(&broker), "reader");
    let filter = Filter::dotted(bytes("news")).expect("a filter");
    done(&reader, reader.subscribe(&filter, Answer::Wanted));
    for round in 0..20 {
        let writer = connect(&tcp(&broker), "writer");
        // Not even connected.
        let said = json(&round.to_string());
        let published = writer.publish(&topic("news"), &said, false, Answer::Unwanted);
        published.expect("room");
        writer.finish();
        let payload = loop {
            if let Event::Message { payload, .. } = next(&reader) {
                break payload;
            }
        };
        assert_eq!(payload, said);
    }
    // Nobody is there: it does not wait for ever.
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("tcp://{}", nobody.local_addr().expect("its address"));
    let writer = connect(&url, "writer");
    let published = writer.publish(&topic("news"), &json("1"), false, Answer::Unwanted);
    published.expect("room");
    writer.finish();
}
