//! Behind a proxy: who is believed, what then counts as a client's address, and how many may come from one. The proxies
//! here are written by hand; `nginx` and `haproxy` are the real ones.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use common::broker::{Finished, command, run_command};
use common::client::parse;
use common::raw::{FIN, TEXT, frame, upgrade_head};
use common::visitor::{Entered, connect_from, connect_path, enter, whoami};
use common::{Broker, Raw, option, wait_for};
use pubsub::broker::Broker as InProcess;
use pubsub::config::{Config, Io, ListenAddr, Listener};
use pubsub::shard::settings::Settings;
use tungstenite::WebSocket;

const WHOAMI: &str = r#"{"type":"whoami"}"#;
const IOS: [&str; 2] = ["auto", "epoll"];

/// A header of version 2 that names a client, with a TLV behind; or none but the proxy itself.
fn proxy_header(client: Option<&str>) -> Vec<u8> {
    let mut rest = Vec::new();
    let (command, family) = match client.map(|client| client.parse().expect("an address")) {
        None => (0x20, 0),
        Some(SocketAddr::V4(client)) => {
            rest.extend(client.ip().octets());
            rest.extend([127, 0, 0, 1]);
            rest.extend(client.port().to_be_bytes());
            (0x21, 0x11)
        }
        Some(SocketAddr::V6(client)) => {
            rest.extend(client.ip().octets());
            rest.extend([0; 16]);
            rest.extend(client.port().to_be_bytes());
            (0x21, 0x21)
        }
    };
    rest.extend([0, 80]);
    // PP2_TYPE_NOOP.
    rest.extend([4, 0, 2, 9, 9]);
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([command, family]);
    bytes.extend((rest.len() as u16).to_be_bytes());
    [bytes, rest].concat()
}

fn over_tcp(broker: &Broker) -> TcpStream {
    connect_from("127.0.0.1", broker.listen())
}

/// The address that `/stats?connections` shows for a client.
fn address<S: Read + Write>(broker: &Broker, client: &mut WebSocket<S>) -> String {
    broker.address_of(&whoami(client))
}

#[test]
fn a_header_names_the_client_however_it_is_cut() {
    for io in IOS {
        let broker = Broker::start(&["--io", io, option::TRUST_PROXY, "127.0.0.1"]);
        for (client, expected) in [
            ("192.0.2.1:77", "192.0.2.1:77"),
            ("[2001:db8::1]:7", "[2001:db8::1]:7"),
            ("[::ffff:192.0.2.1]:7", "192.0.2.1:7"),
        ] {
            let header = proxy_header(Some(client));
            let mut client = enter(over_tcp(&broker), &header, &[]).expect("it may come in");
            assert_eq!(address(&broker, &mut client), expected, "{io}");
        }
        let header = proxy_header(Some("192.0.2.1:77"));
        let head = upgrade_head(broker.listen(), &[]);
        let text = frame(FIN | TEXT, WHOAMI.as_bytes());
        let all = [&header, head.as_bytes(), &text].concat();
        // Byte by byte through the header and a bit of the head, then in one piece.
        for steps in [0, 1, header.len() + 3] {
            let mut raw = Raw::connect(broker.listen());
            for byte in &all[..steps] {
                raw.send(&[*byte]);
            }
            raw.send(&all[steps..]);
            assert!(raw.head().starts_with("HTTP/1.1 101 "));
            let id = parse(&raw.next_text())["session"]
                .as_str()
                .unwrap()
                .to_owned();
            assert_eq!(broker.address_of(&id), "192.0.2.1:77", "{io}");
        }
        // A health check: the connection is the proxy's own.
        let stream = over_tcp(&broker);
        let own = stream.local_addr().unwrap().to_string();
        let mut client = enter(stream, &proxy_header(None), &[]).expect("it may come in");
        assert_eq!(address(&broker, &mut client), own);
    }
}

#[test]
fn nobody_else_is_believed() {
    for io in IOS {
        const OTHERS: [&str; 4] = [
            option::TRUST_PROXY,
            "10.0.0.0/8",
            option::TRUST_PROXY,
            "unix",
        ];
        for trusted in [&[][..], &OTHERS] {
            let broker = Broker::start(&[&["--io", io], trusted].concat());
            let stream = over_tcp(&broker);
            let own = stream.local_addr().unwrap().to_string();
            let headers = [("X-Forwarded-For", "192.0.2.1")];
            let mut client = enter(stream, b"", &headers).expect("its words do not matter");
            assert_eq!(address(&broker, &mut client), own, "{io}");

            let header = proxy_header(Some("192.0.2.1:77"));
            let refused = enter(over_tcp(&broker), &header, &[]);
            assert_eq!(refused.err(), Some((400, None)), "{io}");
            broker.log_line("a PROXY header from an address that --trust-proxy does not name");
            // Not even its beginning is waited for.
            let mut raw = Raw::connect(broker.listen());
            raw.send(&header[..1]);
            assert!(raw.head().starts_with("HTTP/1.1 400 "));
            let page = [
                ("Origin", "https://a.example"),
                ("X-Forwarded-Host", "a.example"),
            ];
            assert_eq!(
                enter(over_tcp(&broker), b"", &page).err(),
                Some((403, None))
            );
        }
    }
}

#[test]
fn a_header_that_is_no_good_one_ends_the_connection() {
    let broker = Broker::start(&[
        option::TRUST_PROXY,
        "127.0.0.0/8",
        option::CONNECT_TIMEOUT_MS,
        "300",
    ]);
    let good = proxy_header(Some("192.0.2.1:77"));
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    for (bytes, part) in [
        (
            b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n".to_vec(),
            "version 1",
        ),
        (changed(12, 0x11), "another version"),
        (changed(12, 0x2F), "unknown command"),
        (changed(13, 0x12), "unknown address family"),
        (changed(14, 0x7F), "too large"),
        (changed(15, 11), "cut short"),
        ([&good[..], &good].concat(), "empty line"),
    ] {
        let mut raw = Raw::connect(broker.listen());
        raw.send(&bytes);
        let answer = String::from_utf8(raw.rest()).expect("text");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{part}: {answer}");
        assert!(answer.contains(part), "{part}: {answer}");
    }
    // One that never comes to its end buys no time.
    let mut raw = Raw::connect(broker.listen());
    raw.send(&good[..20]);
    assert!(raw.head().starts_with("HTTP/1.1 408 "));
    assert_eq!(broker.sum("sessions"), 0);
}

#[test]
fn the_client_is_the_last_of_the_chain_that_is_no_proxy() {
    let broker = Broker::start(&[
        option::TRUST_PROXY,
        "127.0.0.1",
        option::TRUST_PROXY,
        "10.0.0.0/8",
    ]);
    let relayed_client = proxy_header(Some("192.0.2.1:77"));
    let relayed_proxy = proxy_header(Some("10.0.0.9:77"));
    for (preface, lines, expected) in [
        (&b""[..], &["192.0.2.1"][..], "192.0.2.1"),
        (b"", &["203.0.113.5, 192.0.2.1, 10.0.0.1"], "192.0.2.1"),
        (
            b"",
            &["203.0.113.5", "[2001:db8::1]:9", "10.0.0.1"],
            "[2001:db8::1]:9",
        ),
        (b"", &["10.0.0.2, 10.0.0.1"], "10.0.0.2"),
        (b"", &["192.0.2.1, unknown, 10.0.0.1"], "10.0.0.1"),
        (&relayed_proxy, &["203.0.113.5, 192.0.2.1"], "192.0.2.1"),
        // What a client writes itself is not believed because a proxy relays it unread.
        (&relayed_client, &["203.0.113.5"], "192.0.2.1:77"),
    ] {
        let headers: Vec<_> = lines
            .iter()
            .map(|line| ("X-Forwarded-For", *line))
            .collect();
        let mut client = enter(over_tcp(&broker), preface, &headers).expect("it may come in");
        assert_eq!(address(&broker, &mut client), expected, "{lines:?}");
    }
}

#[test]
fn pages_of_the_host_that_the_proxy_tells_may_connect() {
    let broker = Broker::start(&[option::TRUST_PROXY, "127.0.0.1"]);
    let check = |headers: &[(&str, &str)], expected: Option<u16>| {
        let entered = enter(over_tcp(&broker), b"", headers);
        let status = entered.err().map(|(status, _)| status);
        assert_eq!(status, expected, "{headers:?}");
    };
    let page = ("Origin", "https://a.example");
    let (told, https) = (
        ("X-Forwarded-Host", "a.example"),
        ("X-Forwarded-Proto", "https"),
    );
    let host = ("Host", "a.example");
    check(&[page, told], None);
    check(&[page, told, https], None);
    check(&[host, page, told, https], None);
    check(&[page, told, ("X-Forwarded-Proto", "http")], Some(403));
    check(&[("Origin", "https://b.example"), told], Some(403));
    check(&[("Origin", "https://a.example:8443"), told], Some(403));
    check(&[page], Some(403));
    // A name that a proxy does not vouch for may be one that was rebound.
    check(&[host], Some(403));
    check(&[host, page, https], Some(403));

    // Behind a PROXY header, Host is what the page asked for.
    let check = |headers: &[(&str, &str)], expected: Option<u16>| {
        let header = proxy_header(Some("192.0.2.1:77"));
        let entered = enter(over_tcp(&broker), &header, headers);
        let status = entered.err().map(|(status, _)| status);
        assert_eq!(status, expected, "{headers:?}");
    };
    check(&[host, page], None);
    check(&[host], None);
    check(&[host, ("Origin", "https://b.example")], Some(403));
    check(&[page, told], Some(403));
}

#[test]
fn unix_sockets_are_a_proxys_too() {
    for io in IOS {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("broker.sock");
        let listen = format!("unix:{}", path.display());
        let broker = Broker::start(&["--io", io, "--listen", &listen, option::TRUST_PROXY, "unix"]);
        let header = proxy_header(Some("192.0.2.1:77"));
        let mut shards = Vec::new();
        // They are dealt to the shards in turn, with all that they brought.
        for _ in 0..2 {
            let mut client = enter(connect_path(&path), &header, &[]).expect("it may come in");
            let id = whoami(&mut client);
            assert_eq!(broker.address_of(&id), "192.0.2.1:77", "{io}");
            shards.push(broker.shard_of(&id));
            let headers = [
                ("Host", "upstream"),
                ("Origin", "https://a.example"),
                ("X-Forwarded-Host", "a.example"),
                ("X-Forwarded-For", "203.0.113.5, 192.0.2.2"),
            ];
            let mut client = enter(connect_path(&path), b"", &headers).expect("it may come in");
            let id = whoami(&mut client);
            assert_eq!(broker.address_of(&id), "192.0.2.2", "{io}");
            shards.push(broker.shard_of(&id));
        }
        shards.sort_unstable();
        assert_eq!(shards, [0, 0, 1, 1], "{io}");

        let path = folder.path().join("other.sock");
        let listen = format!("unix:{}", path.display());
        let broker = Broker::start(&["--io", io, "--listen", &listen]);
        let refused = enter(connect_path(&path), &header, &[]);
        assert_eq!(refused.err(), Some((400, None)), "{io}");
        let headers = [("X-Forwarded-For", "192.0.2.2")];
        let mut client = enter(connect_path(&path), b"", &headers).expect("it may come in");
        assert_eq!(address(&broker, &mut client), "unix", "{io}");
    }
}

const FULL: (u16, &str) = (429, "5");

/// Lets somebody in who was kept out until others have left.
fn enter_when_free<S: Read + Write>(mut attempt: impl FnMut() -> Entered<S>) -> WebSocket<S> {
    wait_for("a seat", || attempt().ok())
}

fn assert_full<S>(entered: Entered<S>) {
    let (status, retry_after) = entered.err().expect("one too many");
    assert_eq!((status, retry_after.as_deref()), (FULL.0, Some(FULL.1)));
}

#[test]
fn an_address_has_so_many_connections_over_all_shards() {
    const MAX: usize = 8;
    for io in IOS {
        let broker = Broker::start(&["--io", io, option::MAX_PER_IP, "8"]);
        let enter_here = || enter(over_tcp(&broker), b"", &[]);
        let mut clients: Vec<_> = (0..MAX).map(|_| enter_here().expect("room")).collect();
        // The kernel deals them out by their ports: some are on each shard, unless it falls so.
        for _ in 0..100 {
            let shards = clients
                .iter_mut()
                .map(|client| broker.shard_of(&whoami(client)));
            let on_first = shards.filter(|shard| *shard == 0).count();
            if (1..MAX).contains(&on_first) {
                break;
            }
            drop(clients.pop());
            clients.push(enter_when_free(enter_here));
        }
        for _ in 0..20 {
            assert_full(enter_here());
        }
        // Who is refused counts for nothing, and others are not concerned.
        let mut other = enter(connect_from("127.0.0.2", broker.listen()), b"", &[]).expect("room");
        assert!(address(&broker, &mut other).starts_with("127.0.0.2:"));
        assert_eq!(broker.sum("sessions"), MAX as u64 + 1);
        assert!(broker.sum("refused") >= 20);

        // However one leaves, its place is free: by a handshake, without a word, by a reset.
        let mut polite = clients.pop().expect("one");
        polite.close(None).expect("it is open");
        while polite.read().is_ok() {}
        drop(polite);
        clients.push(enter_when_free(enter_here));
        drop(clients.pop());
        clients.push(enter_when_free(enter_here));
        let resetting = clients.pop().expect("one");
        let socket = socket2::SockRef::from(resetting.get_ref());
        socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
        drop(resetting);
        clients.push(enter_when_free(enter_here));
        assert_full(enter_here());

        // One that says nothing has its place as well, and one that is answered gives it back.
        drop(clients.pop());
        let has = |count: usize| (broker.sum("connections") == count as u64).then_some(());
        wait_for("all but those that are here to be gone", || has(MAX));
        let refused = broker.sum("refused");
        let mut silent = Raw::connect(broker.listen());
        wait_for("a connection that says nothing", || has(MAX + 1));
        assert_eq!(broker.sum("refused"), refused);
        assert_full(enter_here());
        silent.send(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        assert!(silent.head().starts_with("HTTP/1.1 200 "));
        silent.rest();
        drop(silent);
        clients.push(enter_when_free(enter_here));
        assert_full(enter_here());
    }
}

#[test]
fn clients_of_a_proxy_are_counted_each_for_itself() {
    for io in IOS {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("broker.sock");
        let listen = format!("unix:{}", path.display());
        let broker = Broker::start(&[
            "--io",
            io,
            "--listen",
            "127.0.0.1:0",
            "--listen",
            &listen,
            option::TRUST_PROXY,
            "127.0.0.1",
            option::TRUST_PROXY,
            "unix",
            option::MAX_PER_IP,
            "2",
        ]);
        let forwarded = |client: &str| {
            let headers = [("X-Forwarded-For", client)];
            enter(over_tcp(&broker), b"", &headers)
        };
        let relayed = |client: &str| enter(connect_path(&path), &proxy_header(Some(client)), &[]);
        let first = forwarded("192.0.2.1").expect("room");
        let second = relayed("192.0.2.1:5").expect("room");
        for _ in 0..4 {
            assert_full(forwarded("192.0.2.1"));
            assert_full(relayed("192.0.2.1:6"));
        }
        // A /64 is one address.
        let others = [
            forwarded("192.0.2.2").expect("room"),
            forwarded("2001:db8::1").expect("room"),
        ];
        let neighbour = relayed("[2001:db8::2]:1").expect("room");
        assert_full(forwarded("2001:db8::3"));
        assert!(forwarded("2001:db8:0:1::1").is_ok());
        // The proxy itself is not limited: whom it stands for is not known.
        let own: Vec<_> = (0..5)
            .map(|_| enter(over_tcp(&broker), b"", &[]).expect("room"))
            .collect();
        drop(first);
        let again = enter_when_free(|| relayed("192.0.2.1:7"));
        assert_full(forwarded("192.0.2.1"));
        drop(second);
        let mut last = enter_when_free(|| forwarded("192.0.2.1"));
        assert_full(relayed("192.0.2.1:8"));
        // What was sent before the place was found is not lost.
        whoami(&mut last);
        drop((others, neighbour, own, again));
        let mut raw = wait_for("a seat", || {
            let mut raw = Raw::connect(broker.listen());
            let head = upgrade_head("127.0.0.1", &[("X-Forwarded-For", "192.0.2.1")]);
            let text = frame(FIN | TEXT, WHOAMI.as_bytes());
            raw.send(&[head.as_bytes(), &text].concat());
            raw.head().starts_with("HTTP/1.1 101 ").then_some(raw)
        });
        assert_eq!(parse(&raw.next_text())["type"], "session");
    }
}

#[test]
fn a_connection_that_is_handed_over_keeps_its_place() {
    for io in [Io::Auto, Io::Epoll] {
        let tcp = ListenAddr::Tcp {
            host: "127.0.0.1".to_owned(),
            port: 0,
        };
        let mut config = Config {
            listeners: vec![Listener::new(tcp)],
            admin: None,
            shards: Some(2),
            io,
            ..Config::default()
        };
        config.limits.per_address_max = 4;
        // As a listener is that only one shard accepts from: every second connection changes its shard.
        let deal = |settings: &mut Settings| settings.listeners[0].dealt = true;
        let broker = InProcess::start_prepared(&config, deal).expect("it starts");
        let address = broker.listening[0].to_string();
        let enter_here = || enter(connect_from("127.0.0.1", &address), b"", &[]);
        for _ in 0..3 {
            let mut clients: Vec<_> = (0..4).map(|_| enter_when_free(enter_here)).collect();
            for _ in 0..4 {
                assert_full(enter_here());
            }
            for client in &mut clients {
                whoami(client);
            }
            // All of them give it back, wherever they are.
        }
        drop(enter_when_free(enter_here));
        broker.stop();
    }
}

#[test]
fn a_client_whose_address_is_not_to_be_had_is_not_served() {
    let broker = Broker::start(&[option::MAX_PER_IP, "5"]);
    let line = broker.log_line("driver: ");
    if !line.contains("driver: io_uring") {
        // epoll needs the descriptor for the connection itself.
        return common::skip("an unknown address", &line);
    }
    let mut before = enter(over_tcp(&broker), b"", &[]).expect("room");
    broker.limit_descriptors(3);
    let mut raw = Raw::connect(broker.listen());
    let answer = String::from_utf8(raw.rest()).expect("text");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nRetry-After: 5\r\n"), "{answer}");
    broker.limit_descriptors(1000);
    // Those that are there are served as before, and so are others from now on.
    whoami(&mut before);
    enter(over_tcp(&broker), b"", &[]).expect("room");
}

#[test]
fn a_ring_that_tells_no_addresses_gives_way() {
    let without = [("PUBSUB_URING_WITHOUT", "install")];
    for option in [
        [option::MAX_PER_IP, "5"],
        [option::TRUST_PROXY, "127.0.0.1"],
    ] {
        let arguments = [&option[..], &["--io", "auto"]].concat();
        let mut broker = Broker::start_with_env(&without, &arguments);
        let line = broker.log_line("driver: ");
        assert!(line.contains("driver: epoll"), "{line}");
        if !line.contains("Linux 6.8") {
            return common::skip("a ring without addresses", &line);
        }
        broker.terminate();
        assert_eq!(broker.wait_exit().code(), Some(0));
        let mut asked_for = command();
        asked_for.envs(without);
        asked_for.args(["--listen", "127.0.0.1:0", "--admin", "off", "--io", "uring"]);
        let Finished { code, stderr, .. } = run_command(asked_for.args(option));
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains("Linux 6.8"), "{stderr}");
    }
    // Unix sockets have none to tell.
    let arguments = [option::TRUST_PROXY, "unix", "--io", "auto"];
    let broker = Broker::start_with_env(&without, &arguments);
    let line = broker.log_line("driver: ");
    assert!(line.contains("driver: io_uring"), "{line}");
}
