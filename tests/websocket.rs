//! RFC 6455 from outside: handshakes and their refusals, frames good and bad, closing, and whose page may connect.

mod common;

use std::io::Write;
use std::thread;
use std::time::Instant;

use common::raw::{
    BINARY, CLOSE, CONTINUATION, FIN, Frame, PING, PONG, TEXT, close_payload, frame, header,
    upgrade_head,
};
use common::{Broker, Client, Raw, admin, option};
use serde_json::json;

const PING_TEXT: &str = r#"{"type":"ping"}"#;
const PONG_TEXT: &str = r#"{"type":"pong"}"#;

#[test]
fn each_violation_ends_with_its_code() {
    let broker = Broker::start(&[]);
    let mut bystander = Client::connect(&broker);
    let mut cases: Vec<(String, Vec<u8>, u16)> = Vec::new();
    let mut case = |what: String, bytes: Vec<u8>, code| cases.push((what, bytes, code));

    case("unmasked text".into(), b"\x81\x02{}".to_vec(), 1002);
    case("unmasked ping".into(), b"\x89\x00".to_vec(), 1002);
    for bits in [0x40, 0x20, 0x10, 0x70] {
        case(
            format!("reserved bits {bits:#x}"),
            frame(FIN | bits | TEXT, b"{}"),
            1002,
        );
        case(
            format!("reserved bits {bits:#x} on a ping"),
            frame(FIN | bits | PING, b""),
            1002,
        );
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        case(format!("opcode {opcode}"), frame(FIN | opcode, b""), 1002);
    }
    for opcode in [CLOSE, PING, PONG] {
        case(
            format!("fragment of opcode {opcode}"),
            frame(opcode, b""),
            1002,
        );
        case(
            format!("long control {opcode}"),
            frame(FIN | opcode, &[b'x'; 126]),
            1002,
        );
    }
    case(
        "continuation of nothing".into(),
        frame(FIN | CONTINUATION, b"x"),
        1002,
    );
    case(
        "first part of nothing".into(),
        frame(CONTINUATION, b"x"),
        1002,
    );
    case(
        "text within text".into(),
        [frame(TEXT, b"{"), frame(FIN | TEXT, b"}")].concat(),
        1002,
    );
    case(
        "binary within text".into(),
        [frame(TEXT, b"{"), frame(BINARY, b"}")].concat(),
        1002,
    );
    case(
        "continuation behind the last".into(),
        [
            frame(FIN | TEXT, PING_TEXT.as_bytes()),
            frame(FIN | CONTINUATION, b"x"),
        ]
        .concat(),
        1002,
    );
    case(
        "close of one byte".into(),
        frame(FIN | CLOSE, b"\x03"),
        1002,
    );
    for code in [
        0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
    ] {
        case(
            format!("close code {code}"),
            frame(FIN | CLOSE, &close_payload(code, b"")),
            1002,
        );
    }
    case(
        "close reason".into(),
        frame(FIN | CLOSE, &close_payload(1000, b"\xff")),
        1007,
    );
    for text in [
        &b"\x80"[..],
        b"\xc3",
        b"\xc3\x28",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"{\"type\":\"ping\",\"id\":\"\xff\"}",
    ] {
        case(format!("text {text:02x?}"), frame(FIN | TEXT, text), 1007);
    }
    case(
        "a code point that ends in the wrong fragment".into(),
        [
            frame(TEXT, b"\xce\xba\xe1"),
            frame(FIN | CONTINUATION, b"x"),
        ]
        .concat(),
        1007,
    );
    case("binary".into(), frame(FIN | BINARY, b"x"), 1003);
    case(
        "binary in fragments".into(),
        [frame(BINARY, b"x"), frame(FIN | CONTINUATION, b"x")].concat(),
        1003,
    );
    // Past the message size, by the header alone.
    case("64 KiB and a byte".into(), header(FIN | TEXT, 65_537), 1009);
    case(
        "2^63 - 1 bytes".into(),
        header(FIN | TEXT, i64::MAX as u64),
        1009,
    );
    case(
        "40 KiB and 40 KiB more".into(),
        [
            frame(TEXT, &[b' '; 40_960]),
            header(FIN | CONTINUATION, 40_960),
        ]
        .concat(),
        1009,
    );

    assert!(cases.len() >= 58, "{}", cases.len());
    for (what, bytes, code) in cases {
        println!("{what}");
        let mut raw = Raw::upgrade(&broker);
        let begun = Instant::now();
        raw.send(&bytes);
        assert_eq!(raw.closed(), Some(code), "{what}");
        // The figure of the promise is 2 s; the rest is for a machine that does other things as well.
        assert!(
            begun.elapsed().as_secs() < 5,
            "{what} took {:?}",
            begun.elapsed()
        );
    }
    // A length whose top bit is set is wrong in two ways.
    let mut raw = Raw::upgrade(&broker);
    raw.send(&header(FIN | TEXT, 1 << 63));
    assert!(matches!(raw.closed(), Some(1002 | 1009)));

    bystander.subscribe("still.here");
    bystander.publish("still.here", json!(1));
    assert_eq!(bystander.take_kept().len(), 1);
}

#[test]
fn nothing_is_answered_after_a_violation() {
    let broker = Broker::start(&[]);
    let mut raw = Raw::upgrade(&broker);
    let ping = frame(FIN | TEXT, PING_TEXT.as_bytes());
    raw.send(&[ping.clone(), frame(FIN | 3, b""), ping.clone(), ping].concat());
    assert_eq!(
        raw.frame().expect("the first is answered").text(),
        PONG_TEXT
    );
    assert_eq!(raw.frame().expect("a close frame").close_code(), Some(1002));
    assert_eq!(raw.frame(), None);
}

#[test]
fn messages_come_in_fragments_with_pings_between() {
    let broker = Broker::start(&[]);
    let mut raw = Raw::upgrade(&broker);
    let text = "{\"type\":\"ping\",\"id\":\"\u{1F600} é\"}";
    let answer = "{\"type\":\"pong\",\"id\":\"\u{1F600} é\"}";
    // One byte each, so code points are cut as well, and empty ones among them.
    raw.send(&frame(TEXT, b""));
    for (index, byte) in text.bytes().enumerate() {
        raw.send(&frame(CONTINUATION, &[byte]));
        if index % 10 == 0 {
            let payload = format!("ping {index}").into_bytes();
            raw.send(&frame(FIN | PING, &payload));
            let pong = Frame {
                first: FIN | PONG,
                payload,
            };
            assert_eq!(
                raw.frame(),
                Some(pong),
                "a ping is answered within a message"
            );
        }
        raw.send(&frame(CONTINUATION, b""));
    }
    raw.send(&frame(FIN | PONG, b"nobody asked"));
    raw.send(&frame(FIN | CONTINUATION, b""));
    assert_eq!(raw.next_text(), answer);
    // Sizes at which the length changes its form.
    for size in [125, 126, 127, 65_535, 65_536] {
        let text = format!("{}{PING_TEXT}", " ".repeat(size - PING_TEXT.len()));
        raw.text(&text);
        assert_eq!(raw.next_text(), PONG_TEXT, "{size} bytes");
    }
    for size in [0, 1, 124, 125] {
        let payload = vec![b'p'; size];
        raw.send(&frame(FIN | PING, &payload));
        let pong = Frame {
            first: FIN | PONG,
            payload,
        };
        assert_eq!(raw.frame(), Some(pong), "{size} bytes");
    }
}

#[test]
fn closing_is_echoed_and_the_broker_hangs_up() {
    let broker = Broker::start(&[]);
    for (payload, code) in [
        (Vec::new(), None),
        (close_payload(1000, b""), Some(1000)),
        (close_payload(1001, b"leaving"), Some(1001)),
        (close_payload(1011, b""), Some(1011)),
        (close_payload(3000, b"a"), Some(3000)),
        (close_payload(4999, &[b'r'; 123]), Some(4999)),
        (close_payload(1000, "é".as_bytes()), Some(1000)),
    ] {
        let mut raw = Raw::upgrade(&broker);
        // What came before the close frame is answered before its echo, what came behind it never.
        let ping = frame(FIN | TEXT, PING_TEXT.as_bytes());
        raw.send(&[ping.clone(), frame(FIN | CLOSE, &payload), ping].concat());
        assert_eq!(raw.frame().expect("an answer").text(), PONG_TEXT);
        assert_eq!(raw.closed(), code, "{payload:?}");
    }
}

/// A head, commands, a ping and a close, as one stream of bytes; and what comes back.
fn transcript(host: &str) -> (Vec<u8>, Vec<String>) {
    let mut bytes = upgrade_head(host, &[]).into_bytes();
    for text in [
        r#"{"type":"subscribe","topic":"é"}"#,
        r#"{"type":"publish","topic":"é.x","timestamp":"t","message":"m"}"#,
    ] {
        bytes.extend(frame(FIN | TEXT, text.as_bytes()));
    }
    bytes.extend(frame(TEXT, br#"{"type":"#));
    bytes.extend(frame(FIN | PING, b"p"));
    bytes.extend(frame(FIN | CONTINUATION, br#""ping"}"#));
    bytes.extend(frame(FIN | CLOSE, &close_payload(1000, b"")));
    let answers = [
        "ack subscribe",
        "delivery m",
        "ack publish",
        "ws pong p",
        "pong",
        "close 1000",
    ];
    (bytes, answers.map(str::to_owned).to_vec())
}

/// The answers to a [`transcript`] in a few words each, read to the end of the connection.
fn answers(raw: &mut Raw) -> Vec<String> {
    let head = raw.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut answers = Vec::new();
    while let Some(frame) = raw.frame() {
        answers.push(match frame.first & 0x0f {
            PONG => format!("ws pong {}", String::from_utf8_lossy(&frame.payload)),
            CLOSE => format!("close {}", frame.close_code().unwrap_or(0)),
            _ => {
                let value = common::client::parse(frame.text());
                match value["type"].as_str() {
                    Some("ack") => format!("ack {}", value["action"].as_str().unwrap_or("?")),
                    Some("publish") => {
                        format!("delivery {}", value["message"].as_str().unwrap_or("?"))
                    }
                    other => other.unwrap_or("?").to_owned(),
                }
            }
        });
    }
    answers
}

/// The pong of a ping may overtake texts that came before it; the order of the rest is fixed.
fn check_answers(got: Vec<String>, expected: &[String], what: &str) {
    let without_pong = |answers: &[String]| -> Vec<String> {
        answers
            .iter()
            .filter(|answer| *answer != "ws pong p")
            .cloned()
            .collect()
    };
    assert_eq!(without_pong(&got), without_pong(expected), "{what}");
    assert_eq!(got.len(), expected.len(), "{what}: {got:?}");
}

#[test]
fn bytes_behind_the_head_are_frames() {
    let broker = Broker::start(&[]);
    let (bytes, expected) = transcript(broker.listen());
    let mut raw = Raw::connect(broker.listen());
    raw.send(&bytes);
    check_answers(answers(&mut raw), &expected, "all in one write");
}

#[test]
fn a_stream_may_be_cut_anywhere() {
    let broker = Broker::start(&[]);
    // Its round trips give the shards time to take the first part before the second is sent.
    let mut pacer = Client::connect(&broker);
    let (bytes, expected) = transcript(broker.listen());
    for cut in 1..bytes.len() {
        let mut raw = Raw::connect(broker.listen());
        raw.send(&bytes[..cut]);
        pacer.settle();
        raw.send(&bytes[cut..]);
        check_answers(answers(&mut raw), &expected, &format!("cut at {cut}"));
    }
    let mut raw = Raw::connect(broker.listen());
    for byte in &bytes {
        raw.send(&[*byte]);
    }
    check_answers(answers(&mut raw), &expected, "byte by byte");
}

#[test]
fn the_handshake_answers_as_the_rfc_says() {
    let broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.listen());
    raw.send(
        upgrade_head(
            broker.listen(),
            &[
                ("Sec-WebSocket-Protocol", "chat, superchat"),
                (
                    "Sec-WebSocket-Extensions",
                    "permessage-deflate; client_max_window_bits",
                ),
            ],
        )
        .as_bytes(),
    );
    let head = raw.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(
        admin::header(&head, "Sec-WebSocket-Accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    assert!(admin::header(&head, "Upgrade").is_some_and(|it| it.eq_ignore_ascii_case("websocket")));
    assert!(
        admin::header(&head, "Connection").is_some_and(|it| it.eq_ignore_ascii_case("upgrade"))
    );
    for absent in [
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions",
        "Content-Length",
    ] {
        assert_eq!(admin::header(&head, absent), None, "{head}");
    }
    // Names and tokens in any case, lists, any path, a query.
    let mut raw = Raw::connect(broker.listen());
    raw.send(
        format!(
            "GET /any/path?x=1 HTTP/1.1\r\nhost: {}\r\nUPGRADE: WebSocket\r\nconnection: keep-alive, Upgrade\r\n\
             sec-websocket-version: 13\r\nSEC-WEBSOCKET-KEY: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            broker.listen()
        )
        .as_bytes(),
    );
    assert!(raw.head().starts_with("HTTP/1.1 101 "));
    raw.text(PING_TEXT);
    assert_eq!(raw.next_text(), PONG_TEXT);
}

/// Sends bytes and reads the response to its end.
fn respond(broker: &Broker, bytes: &[u8]) -> admin::Response {
    let mut raw = Raw::connect(broker.listen());
    raw.send(bytes);
    let answer = raw.rest();
    admin::parse(&answer).unwrap_or_else(|| {
        panic!(
            "{:?} answered by {:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(200)]),
            String::from_utf8_lossy(&answer)
        )
    })
}

#[test]
fn wrong_handshakes_are_refused_with_a_status() {
    let broker = Broker::start(&[]);
    let good = upgrade_head(broker.listen(), &[]);
    let check = |what: &str, head: String, status: u16| {
        println!("{what}");
        assert_ne!(head, good, "{what} changes nothing");
        let response = respond(&broker, head.as_bytes());
        assert_eq!(response.status, status, "{what}: {response:?}");
        response
    };
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let with = |field: &str| good.replace("\r\n\r\n", &format!("\r\n{field}\r\n\r\n"));
    check("POST", good.replace("GET", "POST"), 405);
    check("no key", good.replace(key, ""), 400);
    check(
        "an empty key",
        good.replace("dGhlIHNhbXBsZSBub25jZQ==", ""),
        400,
    );
    check(
        "a short key",
        good.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="),
        400,
    );
    check(
        "a key that is no base64",
        good.replace("dGhlIHNhbXBsZSBub25jZQ==", "!!!!!!!!!!!!!!!!!!!!!!=="),
        400,
    );
    check("two keys", with(key.trim_end()), 400);
    check("two versions", with("Sec-WebSocket-Version: 13"), 400);
    check(
        "two hosts",
        with(&format!("Host: {}", broker.listen())),
        400,
    );
    check(
        "no host",
        good.replace(&format!("Host: {}\r\n", broker.listen()), ""),
        400,
    );
    check("HTTP/1.0", good.replace("HTTP/1.1", "HTTP/1.0"), 400);
    check("a body", with("Content-Length: 5"), 400);
    check("a body in chunks", with("Transfer-Encoding: chunked"), 400);
    check(
        "a folded line",
        good.replace("Upgrade: websocket", "X: a\r\n b\r\nUpgrade: websocket"),
        400,
    );
    check("a zero byte", with("X: a\0b"), 400);
    check(
        "a bare line feed",
        good.replace("Upgrade: websocket\r\n", "Upgrade: websocket\n"),
        400,
    );
    check("no HTTP", "HELO example.com\r\n\r\n".into(), 400);
    check(
        "HTTP/2 in clear",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
        400,
    );
    for version in ["8", "0", "14", "x"] {
        let response = check(
            "another version",
            good.replace("Version: 13", &format!("Version: {version}")),
            426,
        );
        assert_eq!(response.header("Sec-WebSocket-Version"), Some("13"));
    }
    check(
        "65 fields",
        (0..65)
            .map(|n| format!("X-{n}: x"))
            .fold(good.clone(), |head, field| {
                head.replace("\r\n\r\n", &format!("\r\n{field}\r\n\r\n"))
            }),
        431,
    );
    check("8 KiB", with(&format!("X: {}", "x".repeat(8192))), 431);
    // It need not be whole to be too large.
    check(
        "8 KiB without an end",
        format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(9000)),
        431,
    );
    check("an endless path", format!("GET /{}", "x".repeat(9000)), 431);
    // Just within the bounds: 5 fields are there already.
    let many = (0..58)
        .map(|n| format!("X-{n}: x"))
        .fold(good.clone(), |head, field| {
            head.replace("\r\n\r\n", &format!("\r\n{field}\r\n\r\n"))
        });
    let mut raw = Raw::connect(broker.listen());
    raw.send(many.as_bytes());
    assert!(raw.head().starts_with("HTTP/1.1 101 "), "63 fields");
}

#[test]
fn plain_http_gets_a_page_or_404() {
    let broker = Broker::start(&[]);
    let page = admin::get(broker.listen(), "/");
    assert_eq!(page.status, 200, "{page:?}");
    assert!(
        page.header("Content-Type")
            .is_some_and(|it| it.starts_with("text/html")),
        "{page:?}"
    );
    assert!(
        page.body.contains("WebSocket"),
        "the console speaks to this broker"
    );
    assert_eq!(page.header("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(admin::get(broker.listen(), "/nope").status, 404);
    assert_eq!(
        admin::get(broker.listen(), "/healthz").status,
        404,
        "operators have their own port"
    );
    // A form of another page that posts commands as HTTP gets nowhere.
    let form = admin::request(
        broker.listen(),
        "POST",
        "/",
        &[("Content-Type", "text/plain")],
        r#"{"type":"publish","topic":"a","message":1}"#,
    );
    assert_eq!(form.status, 405, "{form:?}");
    assert_eq!(broker.sum("publishes"), 0);
}

#[test]
fn tls_and_noise_end_quickly() {
    let broker = Broker::start(&[]);
    let mut client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    client_hello.extend([0x5a; 500]);
    for bytes in [
        client_hello,
        vec![0; 64],
        vec![0xff; 64],
        b"\r\n\r\n".to_vec(),
    ] {
        let mut raw = Raw::connect(broker.listen());
        raw.send(&bytes);
        // rest() waits for the end of the connection; a refusal in words is welcome, a 101 is not.
        let answer = raw.rest();
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{answer:?}"
        );
    }
}

#[test]
fn a_handshake_has_a_deadline_that_a_drip_does_not_move() {
    let broker = Broker::start(&[option::CONNECT_TIMEOUT_MS, "400"]);
    let ended = |answer: Vec<u8>| {
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 408 "),
            "{answer:?}"
        );
    };
    // Silent, and stuck within a head.
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\nHost: "] {
        let mut raw = Raw::connect(broker.listen());
        raw.send(bytes);
        ended(raw.rest());
    }
    // A byte whenever nothing came for 20 ms.
    let mut raw = Raw::connect(broker.listen());
    let begun = Instant::now();
    raw.send(b"GET / HTTP/1.1\r\nX: ");
    while raw
        .fill_within(std::time::Duration::from_millis(20))
        .is_none()
    {
        assert!(
            begun.elapsed() < common::DEADLINE,
            "a drip keeps the connection"
        );
        if raw.try_send(b"x").is_err() {
            break;
        }
    }
    ended(raw.rest());
    // Nobody else is touched by this deadline.
    let mut client = Client::connect(&broker);
    client.settle();
    let mut late = Raw::connect(broker.listen());
    ended(late.rest());
    client.expect_nothing();
}

/// The status that a handshake with this Origin and Host gets.
fn status(broker: &Broker, host: &str, origin: Option<&str>) -> u16 {
    let fields: Vec<(&str, &str)> = origin.iter().map(|origin| ("Origin", *origin)).collect();
    let mut raw = Raw::connect(broker.listen());
    raw.send(upgrade_head(host, &fields).as_bytes());
    let head = raw.head();
    head.split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("a status")
}

#[test]
fn on_loopback_only_pages_of_this_machine_pass() {
    let broker = Broker::start(&[]);
    let host = broker.listen().to_owned();
    let port = host.rsplit(':').next().expect("a port");
    for origin in [
        "http://localhost:3000".to_owned(),
        "http://localhost".to_owned(),
        "https://127.0.0.1:9".to_owned(),
        "http://[::1]:5173".to_owned(),
        "HTTP://LOCALHOST:3000".to_owned(),
        format!("http://{host}"),
    ] {
        assert_eq!(status(&broker, &host, Some(&origin)), 101, "{origin}");
    }
    assert_eq!(status(&broker, &host, None), 101, "not a browser");
    for origin in [
        "null",
        "",
        "http://evil.example",
        "http://localhost.evil.example",
        "http://evil-localhost",
        "http://127.0.0.1.evil.example",
        "http://127.0.0.1@evil.example",
        "http://localhost@evil.example:80",
        "http://localhost:80@evil.example",
        "http://evil.example/localhost",
        "http://evil.example#localhost",
        "http://127.0.0.11.example",
        "file://",
        "file://localhost",
        "ftp://localhost",
        "chrome-extension://abcdef",
        "localhost",
        "http://xn--lclhost-4va9m.example",
        "http://[::2]:3000",
        "http://169.254.0.1",
    ] {
        assert_eq!(status(&broker, &host, Some(origin)), 403, "{origin:?}");
    }
    broker.log_line("--allow-origin http://evil.example");
    // A name that was bound to 127.0.0.1 by somebody else is not this machine's.
    for (other, allowed) in [
        (format!("localhost:{port}"), true),
        (format!("[::1]:{port}"), true),
        (format!("evil.example:{port}"), false),
        ("127.0.0.1.nip.example".to_owned(), false),
    ] {
        let got = status(&broker, &other, None);
        if allowed {
            assert_eq!(got, 101, "{other}");
        } else {
            assert!(matches!(got, 400 | 403 | 421), "{other}: {got}");
            let page = respond(
                &broker,
                format!("GET / HTTP/1.1\r\nHost: {other}\r\n\r\n").as_bytes(),
            );
            assert!(matches!(page.status, 400 | 403 | 421), "{other}: {page:?}");
        }
    }
}

#[test]
fn an_allow_list_names_origins_exactly() {
    let broker = Broker::start(&[
        "--allow-origin",
        "https://app.example",
        "--allow-origin",
        "http://shop.example:8080",
    ]);
    let host = broker.listen().to_owned();
    for (origin, expected) in [
        ("https://app.example", 101),
        ("https://APP.example", 101),
        ("https://app.example:443", 101),
        ("http://shop.example:8080", 101),
        ("http://app.example", 403),
        ("https://app.example:8443", 403),
        ("https://sub.app.example", 403),
        ("https://evil-app.example", 403),
        ("https://app.example.evil.example", 403),
        ("https://app.example@evil.example", 403),
        ("http://shop.example", 403),
        ("null", 403),
    ] {
        assert_eq!(status(&broker, &host, Some(origin)), expected, "{origin}");
    }
    let open = Broker::start(&["--allow-origin", "*"]);
    for origin in ["https://anything.example", "null"] {
        assert_eq!(status(&open, open.listen(), Some(origin)), 101, "{origin}");
    }
}

/// A client that closes its sending half after a command still reads the answer.
#[test]
fn half_closed_connections_are_answered() {
    let broker = Broker::start(&[]);
    let mut raw = Raw::upgrade(&broker);
    raw.text(PING_TEXT);
    raw.send(&frame(FIN | CLOSE, &close_payload(1000, b"")));
    raw.stream()
        .shutdown(std::net::Shutdown::Write)
        .expect("half a close");
    assert_eq!(raw.frame().expect("an answer").text(), PONG_TEXT);
    assert_eq!(raw.closed(), Some(1000));
}

/// A client that goes on sending behind its close frame must not have the broker's close frame reset away.
#[test]
fn unread_input_does_not_reset_a_close() {
    let broker = Broker::start(&[]);
    for _ in 0..5 {
        let mut raw = Raw::upgrade(&broker);
        let mut writer = raw.stream().try_clone().expect("a second handle");
        raw.send(&frame(FIN | 3, b""));
        let writing = thread::spawn(move || {
            let noise = frame(FIN | TEXT, &[b' '; 1000]);
            // Until the broker has closed for good, or enough.
            (0..200)
                .take_while(|_| writer.write_all(&noise).is_ok())
                .count()
        });
        assert_eq!(raw.closed(), Some(1002));
        writing.join().expect("the writer");
    }
}
