//! Application servers: they come in by name and key, ask each other and clients, and accept clients by tokens.

mod common;

use std::fs;
use std::path::Path;

use bytes::Bytes;
use common::broker::run;
use common::{Broker, Client, End, Peer, wait_for};
use pubsub::address::Address;
use pubsub::message::Payload;
use pubsub::protocol::peer::call::Call;
use pubsub::protocol::peer::{Audience, PeerPattern, Watch};
use pubsub::topic::{Filter, Topic};
use rustix::process::Signal;
use serde_json::json;

const OPEN: [&str; 2] = ["--peers", "127.0.0.1:0"];

fn start(arguments: &[&str]) -> Broker {
    Broker::start(&[&OPEN, arguments].concat())
}

fn json(text: &str) -> Payload {
    Payload::json(Bytes::copy_from_slice(text.as_bytes()))
}

fn name(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn request(peer: &mut Peer, to: &Address, event: &str, payload: &str) -> u64 {
    let (ticket, payload) = (peer.ticket(), json(payload));
    peer.call(&Call::Request {
        ticket,
        to,
        event: event.as_bytes(),
        payload: &payload,
        timeout_ms: 0,
    });
    ticket
}

#[test]
fn peers_come_in_by_tcp_and_by_unix_socket_and_speak_to_each_other_and_to_clients() {
    for shards in ["1", "3"] {
        let directory = tempfile::tempdir().unwrap();
        let path = format!("unix:{}", directory.path().join("peers.sock").display());
        let broker = start(&["--peers", &path, "--shards", shards]);
        assert_eq!(broker.peers.len(), 2, "{}", broker.ready_line);
        assert_eq!(broker.peers[1], path);
        let mut calc = Peer::connect(&broker, "calc-1");
        let mut web = Peer::connect_to(&path, "web");
        calc.handle("add");
        assert_eq!(broker.sum("peers"), 2);

        // A request between peers, one from a client, and one to a client.
        let ticket = request(&mut web, &Address::AnyPeer(name("add")), "add", "[5,4]");
        let number = calc.asked("add [5,4] from web");
        calc.reply(number, "9");
        assert_eq!(web.told(), format!("done {ticket} 9"));
        let mut client = Client::connect(&broker);
        let session = client.whoami();
        client.send_json(&json!({"type": "request", "event": "add", "data": 1, "id": 1}));
        let number = calc.asked(&format!("add 1 from {session}"));
        calc.reply(number, "10");
        let answer = client.answer();
        assert_eq!((&answer["id"], &answer["data"]), (&json!(1), &json!(10)));
        let to = Address::Client(session.parse().unwrap());
        let ticket = request(&mut web, &to, "foo", "{}");
        let asked = client.answer();
        assert_eq!(asked["type"], "request");
        assert_eq!(asked["from"], "peer:web");
        let answer = json!({"type": "reply", "id": asked["id"], "data": "bar"});
        client.send_json(&answer);
        assert_eq!(web.told(), format!("done {ticket} \"bar\""));

        // Topics are everybody's.
        client.subscribe("news");
        let filter: &'static Filter = Box::leak(Box::new(Filter::dotted(name("news")).unwrap()));
        calc.done(|ticket| Call::Subscribe { ticket, filter });
        let (topic, payload) = (Topic::dotted(name("news.uk")).unwrap(), json("7"));
        let ticket = web.ticket();
        web.call(&Call::Publish {
            ticket,
            topic: &topic,
            payload: &payload,
            echo: true,
        });
        assert_eq!(web.told(), format!("done {ticket}"));
        assert_eq!(calc.told(), "message news.uk 7");
        assert_eq!(client.delivery()["message"], 7);
        client.publish("news", json!("hello"));
        assert_eq!(calc.told(), "message news \"hello\"");

        // Whoever leaves is gone, and says so or not.
        web.call(&Call::Bye);
        assert_eq!(web.read_to_end(), [""; 0]);
        drop(calc);
        wait_for("the peers to be gone", || {
            (broker.sum("peers") == 0).then_some(())
        });
    }
}

#[test]
fn a_broadcast_and_an_event_reach_those_that_they_are_for() {
    let broker = start(&[]);
    let mut peers: Vec<_> = ["calc-1", "calc-2", "web"]
        .iter()
        .map(|name| Peer::connect(&broker, name))
        .collect();
    let payload = &json("1");
    for (pattern, fits) in [
        (PeerPattern::All, &[1, 2][..]),
        (PeerPattern::Regex(name(r"^calc-\d$")), &[1]),
        (PeerPattern::Name(name("web")), &[2]),
    ] {
        let to = &Audience::Peers(pattern);
        let ticket = peers[0].ticket();
        peers[0].call(&Call::EmitMany {
            ticket,
            to,
            event: b"e",
            payload,
            volatile: false,
        });
        assert_eq!(peers[0].told(), format!("done {ticket}"));
        for index in fits {
            assert_eq!(peers[*index].told(), "event e 1 from calc-1");
        }
    }
}

#[test]
fn a_key_is_asked_for_and_guessing_ends() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    fs::write(&file, "sesame\n").unwrap();
    let mut broker = start(&["--peer-key-file", file.to_str().unwrap(), "--shards", "1"]);
    let address = broker.peers[0].clone();
    let say = |key: &str| {
        let mut peer = Peer::open(&address);
        peer.hello("one", key);
        (peer.told(), peer)
    };
    assert_eq!(say("sesame").0, "welcome");
    fs::write(&file, "simsim\n").unwrap();
    broker.signal(Signal::HUP);
    wait_for("the new key to be believed", || {
        (say("simsim").0 == "welcome").then_some(())
    });
    let before = broker.sum("unauthenticated");
    let refused = "goodbye not_allowed the key is not the broker's";
    for _ in before..10 {
        let (told, mut peer) = say("sesame");
        assert_eq!(told, refused);
        assert_eq!(peer.read_to_end(), [""; 0]);
    }
    // Now it is not heard at all, whatever it shows.
    for key in ["sesame", "simsim", ""] {
        let (told, _) = say(key);
        assert_eq!(told, "goodbye busy too many wrong keys from this address");
    }
    broker.terminate();
    let log = broker.log_text();
    assert!(!log.contains("sesame") && !log.contains("simsim"), "{log}");
}

#[test]
fn beyond_loopback_there_must_be_a_key() {
    let arguments = ["--listen", "127.0.0.1:0", "--admin", "off", "--peers"];
    for peers in ["0.0.0.0:0", "[::]:0", ":0"] {
        let finished = run(&[&arguments[..], &[peers]].concat());
        assert_eq!(finished.code, Some(2), "{peers}: {finished:?}");
        for word in ["protected mode", "--peer-key-file", "--insecure-open"] {
            assert!(finished.stderr.contains(word), "{word}: {finished:?}");
        }
    }
    for said in [&["--peer-key", "s3cret"][..], &["--insecure-open"]] {
        let broker = Broker::start(&[&["--peers", "0.0.0.0:0"], said].concat());
        let port = broker.peers[0].rsplit(':').next().expect("a port");
        let mut peer = Peer::open(&format!("127.0.0.1:{port}"));
        peer.hello("one", "s3cret");
        assert_eq!(peer.told(), "welcome");
    }
}

#[test]
fn what_is_no_peer_is_told_so_and_cut() {
    let broker = start(&["--connect-timeout-ms", "300"]);
    let address = &broker.peers[0];
    let frame = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
    let no_hello = "goodbye bad_frame the first call is HELLO";
    for (bytes, told) in [
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), no_hello),
        (vec![0xff; 64], no_hello),
        (frame(&[0x15]), no_hello),
        (
            frame(&[0x99, 1, 2, 3]),
            "goodbye bad_frame no call has this number",
        ),
        // It has not said who it is in time.
        (Vec::new(), "goodbye timeout HELLO took too long"),
        (vec![5, 0], "goodbye timeout HELLO took too long"),
    ] {
        let mut peer = Peer::open(address);
        peer.send(&bytes);
        assert_eq!(peer.read_to_end(), [told], "{bytes:?}");
    }
    for (bytes, told) in [
        (frame(&[0x99]), "goodbye bad_frame no call has this number"),
        (frame(&[0x02, 1, 2]), "goodbye bad_frame "),
        (
            vec![0xff, 0xff, 0xff, 0x7f],
            "goodbye too_large message too big",
        ),
    ] {
        let mut peer = Peer::connect_to(address, "one");
        peer.send(&bytes);
        let last = peer.read_to_end();
        assert!(last.len() == 1 && last[0].starts_with(told), "{last:?}");
    }
    // Nobody else has noticed.
    let mut bystander = Client::connect(&broker);
    bystander.settle();
}

#[test]
fn a_name_is_its_holder_s_while_it_answers_and_the_next_one_s_when_it_does_not() {
    let broker = start(&["--shards", "3"]);
    let mut first = Peer::connect(&broker, "one");
    let mut watcher = Peer::connect(&broker, "watcher");
    let mask = Watch::PEER;
    watcher.done(|ticket| Call::Watch { ticket, mask });
    let mut second = Peer::open(&broker.peers[0]);
    second.hello("one", "");
    assert_eq!(first.told(), "probe");
    first.call(&Call::Alive);
    let told = second.read_to_end();
    assert!(
        told.len() == 1 && told[0].starts_with("goodbye duplicate "),
        "{told:?}"
    );
    // Now it says nothing, as one that hangs.
    let mut third = Peer::open(&broker.peers[0]);
    third.hello("one", "");
    assert_eq!(first.told(), "probe");
    assert_eq!(third.told(), "welcome");
    let told = first.read_to_end();
    assert!(
        told.len() == 1 && told[0].starts_with("goodbye duplicate "),
        "{told:?}"
    );
    let ticket = request(&mut watcher, &Address::Peer(name("one")), "who", "1");
    let number = third.asked("who 1 from watcher");
    third.reply(number, "3");
    let done = format!("done {ticket} 3");
    while watcher.told() != done {}
    drop(third);
    assert_eq!(watcher.told(), "peer down one");
}

#[test]
fn a_drain_says_goodbye() {
    let mut broker = start(&[]);
    let mut peer = Peer::connect(&broker, "one");
    broker.terminate();
    assert_eq!(peer.read_to_end(), ["goodbye going_away going away"]);
    assert_eq!(broker.wait_exit().code(), Some(0));
}

/// A client that shows an id.
fn show(broker: &Broker, id: &str) -> Client {
    Client::connect_to(broker.listen(), &format!("/?id={id}"))
}

const TERMINATION: &str =
    r#"{"type":"event","event":"termination","data":{"data":"forced disconnection"}}"#;

/// It is told that it has to go, and is closed.
fn expect_termination(client: &mut Client) {
    let (told, end) = client.read_to_end();
    assert_eq!((told, end), (vec![TERMINATION.to_owned()], End::Code(4001)));
}

fn accept(peer: &mut Peer, token: &str, id: &str) -> String {
    let ticket = peer.ticket();
    let (token, id) = (token.as_bytes(), id.as_bytes());
    peer.call(&Call::Accept { ticket, token, id });
    let told = peer.told();
    let id = told.strip_prefix(&format!("done {ticket} "));
    id.unwrap_or_else(|| panic!("{told}")).to_owned()
}

#[test]
fn clients_come_in_by_the_ids_that_a_peer_has_accepted() {
    let broker = start(&["--shards", "3"]);
    let mut peer = Peer::connect(&broker, "one");
    let id = accept(&mut peer, "user-01", "");
    assert!(id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(accept(&mut peer, "user-01", ""), id);
    assert_eq!(accept(&mut peer, "user-02", "user-02"), "user-02");
    let mut stranger = show(&broker, "user-01");
    expect_termination(&mut stranger);

    let mut client = show(&broker, &id);
    assert_eq!(peer.told(), "token up user-01");
    let to = Address::Token(name("user-01"));
    let ticket = request(&mut peer, &to, "foo", "{}");
    let asked = client.answer();
    client.send_json(&json!({"type": "reply", "id": asked["id"], "data": "bar"}));
    assert_eq!(peer.told(), format!("done {ticket} \"bar\""));
    // The newer one stays.
    let mut newer = show(&broker, &id);
    expect_termination(&mut client);
    assert_eq!(peer.told(), "token down user-01");
    assert_eq!(peer.told(), "token up user-01");
    let ticket = peer.ticket();
    let token = b"user-01";
    peer.call(&Call::Reject { ticket, token });
    assert_eq!(peer.told(), "token down user-01");
    assert_eq!(peer.told(), "token rejected user-01");
    assert_eq!(peer.told(), format!("done {ticket}"));
    expect_termination(&mut newer);
    expect_termination(&mut show(&broker, &id));
    // Another peer's tokens are its own.
    let mut other = Peer::connect(&broker, "two");
    let mut client = show(&broker, "user-02");
    assert_eq!(peer.told(), "token up user-02");
    let ticket = request(&mut other, &Address::Token(name("user-02")), "foo", "{}");
    assert_eq!(other.told(), format!("failed {ticket} no_handler"));
    client.close();
    assert_eq!(peer.told(), "token down user-02");
}

#[test]
fn without_a_listener_for_peers_an_id_means_nothing() {
    let broker = Broker::start(&[]);
    show(&broker, "anything").settle();
}

fn with_list(path: &Path) -> Broker {
    start(&["--accept-list", path.to_str().unwrap()])
}

#[test]
fn accepted_tokens_outlive_the_broker() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("accepted.json");
    let mut broker = with_list(&path);
    let mut peer = Peer::connect(&broker, "one");
    let id = accept(&mut peer, "user-01", "");
    accept(&mut peer, "user-02", "user-02");
    accept(&mut peer, "user-03", "user-03");
    peer.call(&Call::Reject {
        ticket: 9,
        token: b"user-02",
    });
    assert_eq!(peer.told(), "token rejected user-02");
    broker.terminate();
    assert_eq!(broker.wait_exit().code(), Some(0));
    assert_eq!(
        fs::read_dir(directory.path()).unwrap().count(),
        1,
        "no other file is left"
    );

    let broker = with_list(&path);
    let mut client = show(&broker, &id);
    client.settle();
    let mut peer = Peer::connect(&broker, "one");
    assert_eq!(peer.told(), "token up user-01", "it was there before");
    expect_termination(&mut show(&broker, "user-02"));
    let _stays = show(&broker, "user-03");
    assert_eq!(peer.told(), "token up user-03");
    // Written soon, without the end of the broker.
    accept(&mut peer, "user-04", "user-04");
    wait_for("the file to have it", || {
        let text = fs::read_to_string(&path).ok()?;
        text.contains("user-04").then_some(())
    });
    broker.signal(Signal::KILL);
    drop(broker);
    let broker = with_list(&path);
    show(&broker, "user-04").settle();
}

#[test]
fn a_list_that_is_none_is_no_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("accepted.json");
    for text in ["{", "[1]", "", r#"{"version":2,"accepted":[]}"#] {
        fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap();
        let arguments = ["--listen", "127.0.0.1:0", "--admin", "off"];
        let finished = run(&[&arguments[..], &OPEN, &["--accept-list", path]].concat());
        assert_eq!(finished.code, Some(2), "{text:?}: {finished:?}");
        assert!(finished.stderr.contains("accept-list"), "{finished:?}");
        assert!(finished.stderr.contains(path), "{finished:?}");
    }
}
