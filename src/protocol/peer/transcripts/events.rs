//! What a peer is told: how it is written, and what a peer reads of it.

use std::borrow::Cow;

use bytes::Bytes;
use smallvec::smallvec;

use super::super::super::{Action, Event, Outcome, Refusal};
use super::super::event::{Arrived, Data, Malformed, Told, encode_log, headers};
use super::super::{
    Arrival, FilterKind, PeerEvent, delivery_size, encode, encode_delivery, read_event, ticket_tag,
};
use super::{CLIENT, NOW, TICKET, bytes, framed, hex, text};
use crate::address::Sender;
use crate::error::Code;
use crate::message::{Flags, Kind, Message, Payload, Targets};
use crate::topic::{Filter, Topic};

/// The transcript of an event, and what a peer reads of it.
#[track_caller]
fn told(event: &Event<'_>, transcript: &str, expected: Told<'_>) {
    let mut written = b"before".to_vec();
    encode(event, &mut written);
    check_told(&written[6..], transcript, expected);
}

#[track_caller]
fn check_told(written: &[u8], transcript: &str, expected: Told<'_>) {
    let content = bytes(transcript);
    assert_eq!(hex(written), hex(&framed(&content)), "{expected:?}");
    assert_eq!(read_event(&content), Ok(expected));
    for size in 0..content.len() {
        let _ = read_event(&content[..size]);
    }
}

fn data(kind: Kind, text: &str) -> Data<'_> {
    Data {
        kind,
        bytes: text.as_bytes(),
    }
}

#[test]
fn calls_are_done() {
    let tag = ticket_tag(TICKET).unwrap();
    let nothing = Told::Done {
        ticket: TICKET,
        payload: data(Kind::Text, ""),
    };
    for action in [
        Action::Subscribe,
        Action::Unsubscribe,
        Action::Publish,
        Action::Handle,
        Action::Unhandle,
    ] {
        let ack = Event::Ack {
            action,
            name: b"a",
            tag: Some(&tag),
        };
        told(&ack, "42 T 00 02", nothing);
    }
    let refusal = Refusal {
        action: Some(Cow::Borrowed("x")),
        code: Code::BadTopic,
        reason: Cow::Borrowed("no"),
        topic: Some(text("a")),
        tag: Some(tag.clone()),
    };
    told(
        &Event::Refused(&refusal),
        "42 T 01 0900 'bad_topic' 'no'",
        Told::Failed {
            ticket: TICKET,
            code: b"bad_topic",
            reason: b"no",
        },
    );
    let answer = Outcome::Data(Payload::untyped(text("{}")));
    let expected = Told::Done {
        ticket: TICKET,
        payload: data(Kind::Json, "{}"),
    };
    let transcript = "42 T 00 01 '{}'";
    let reply = Event::Reply {
        tag: &tag,
        outcome: &answer,
    };
    told(&reply, transcript, expected);
    let done = PeerEvent::Done {
        tag: &tag,
        outcome: &answer,
    };
    told(&Event::Peer(&done), transcript, expected);
    // A handler's code may be longer than a name, and is cut between characters.
    let long = Outcome::Failed {
        code: Cow::Owned("é".repeat(40_000)),
        reason: Cow::Borrowed("r"),
    };
    let mut written = Vec::new();
    let reply = Event::Reply {
        tag: &tag,
        outcome: &long,
    };
    encode(&reply, &mut written);
    let Ok(Told::Failed { code, reason, .. }) = read_event(&written[4..]) else {
        panic!("a failure")
    };
    assert_eq!(std::str::from_utf8(code), Ok(&*"é".repeat(32_767)));
    assert_eq!(reason, b"r");
}

#[test]
fn what_nobody_waits_for_is_not_said() {
    let foreign = text("\"1\"");
    let refusal = |tag| Refusal {
        action: None,
        code: Code::BadType,
        reason: Cow::Borrowed("no"),
        topic: None,
        tag,
    };
    let mut written = Vec::new();
    for tag in [None, Some(&foreign)] {
        let ack = Event::Ack {
            action: Action::Publish,
            name: b"a",
            tag,
        };
        encode(&ack, &mut written);
        encode(&Event::Refused(&refusal(tag.cloned())), &mut written);
        encode(&Event::Pong { tag }, &mut written);
        let session = Event::Session {
            client: CLIENT,
            tag,
        };
        encode(&session, &mut written);
    }
    assert_eq!(written, b"");
}

#[test]
fn what_others_say() {
    let sender = |peer: Option<&'static str>| Sender {
        client: CLIENT,
        peer: peer.map(text),
    };
    let payload = Payload::binary(text("b"));
    for (from, transcript, client, peer) in [
        (None, "00", None, &b""[..]),
        (Some(sender(None)), "01 ID 0000", Some(CLIENT), b""),
        (
            Some(sender(Some("shop"))),
            "01 ID 0400 'shop'",
            Some(CLIENT),
            b"shop",
        ),
    ] {
        told(
            &Event::Emitted {
                event: b"e",
                data: &payload,
                from: from.as_ref(),
            },
            &format!("45 {transcript} 0100 'e' 03 'b'"),
            Told::Event {
                client,
                peer,
                event: b"e",
                payload: data(Kind::Binary, "b"),
            },
        );
    }
    for (timeout_ms, transcript, expected) in
        [(1000, "e8030000", 1000), (u64::MAX, "ffffffff", u32::MAX)]
    {
        told(
            &Event::Request {
                event: b"e",
                data: &payload,
                number: TICKET,
                from: &sender(Some("shop")),
                timeout_ms,
            },
            &format!("46 T {transcript} ID 0400 'shop' 0100 'e' 03 'b'"),
            Told::Request {
                number: TICKET,
                timeout_ms: expected,
                client: CLIENT,
                peer: b"shop",
                event: b"e",
                payload: data(Kind::Binary, "b"),
            },
        );
    }
}

#[test]
fn deliveries() {
    let check =
        |topic: Topic, filter: Filter, message: (Payload, &[&'static [u8]]), transcript: &str| {
            let (payload, attachments) = message;
            let message = Message {
                targets: Targets {
                    topics: smallvec![topic.clone()],
                    ..Targets::default()
                },
                event: None,
                payload,
                attachments: attachments
                    .iter()
                    .map(|bytes| Bytes::from_static(bytes))
                    .collect(),
                origin: None,
                flags: Flags::default(),
                position: None,
                unix_ms: NOW,
                envelope: None,
            };
            let mut written = b"before".to_vec();
            encode_delivery(&message, &topic, &filter, &mut written);
            assert_eq!(hex(&written[6..]), hex(&framed(&bytes(transcript))));
            assert_eq!(delivery_size(&message, &topic, &filter), written.len() - 6);
            let Ok(Told::Message {
                topic: name,
                filter: kind,
                context,
                ..
            }) = read_event(&written[10..])
            else {
                panic!("{transcript}")
            };
            assert_eq!(
                (name, context),
                (&topic.as_bytes()[..], &filter.written()[..])
            );
            assert_eq!(kind, FilterKind::of(&filter));
        };
    let topic = || Topic::channel(text("a.b")).unwrap();
    check(
        topic(),
        Filter::dotted(text("=a.*")).unwrap(),
        (Payload::json(text("[1, 2]")), &[]),
        "43 0300 'a.b' 01 0400 '=a.*' 01 '[1, 2]'",
    );
    check(
        topic(),
        Filter::exact(text("a.b")).unwrap(),
        (Payload::untyped(text("x")), &[]),
        "43 0300 'a.b' 02 0300 'a.b' 02 'x'",
    );
    check(
        topic(),
        Filter::glob(text("*")).unwrap(),
        (Payload::untyped(Bytes::from_static(b"\xff")), &[]),
        "43 0300 'a.b' 03 0100 '*' 03 ff",
    );
    check(
        Topic::shard(text("")).unwrap(),
        Filter::shard(text("")).unwrap(),
        (Payload::binary(text("")), &[]),
        "43 0000 04 0000 03",
    );
    check(
        topic(),
        Filter::dotted(text("a")).unwrap(),
        (
            Payload::json(text(r#"[{"_placeholder":true,"num":0},7]"#)),
            &[b"\xff\x00"],
        ),
        r#"43 0300 'a.b' 01 0100 'a' 01 '[{"$binary":"/wA="},7]'"#,
    );
    told(
        &Event::Gap {
            topic: b"a.b",
            count: TICKET,
        },
        "44 T 'a.b'",
        Told::Gap {
            topic: b"a.b",
            count: TICKET,
        },
    );
}

#[test]
fn arrivals() {
    let fields = [
        ("host".to_owned(), b"example.org".to_vec()),
        ("x".to_owned(), Vec::new()),
    ];
    let arrival = |user| Arrival {
        client: CLIENT,
        protocol: "native",
        path: b"/",
        query: b"a=%20",
        headers: &fields,
        address: "192.0.2.1:7",
        user,
    };
    let listed = "0200 0400 'host' 0b000000 'example.org' 0100 'x' 00000000";
    let raw = bytes(listed);
    let arrived = |user| Arrived {
        client: CLIENT,
        protocol: b"native",
        path: b"/",
        query: b"a=%20",
        address: b"192.0.2.1:7",
        user,
        headers: &raw,
    };
    let transcript = |number: &str, user: &str| {
        format!(
            "{number} ID 0600 'native' 01000000 '/' 05000000 'a=%20' 0b00 '192.0.2.1:7' {user} {listed}"
        )
    };
    told(
        &Event::Peer(&PeerEvent::Connect(&arrival(Some("ann")))),
        &transcript("47", "0300 'ann'"),
        Told::Connect(arrived(b"ann")),
    );
    told(
        &Event::Peer(&PeerEvent::Admit(&arrival(None))),
        &transcript("48", "0000"),
        Told::Admit(arrived(b"")),
    );
    let read: Vec<_> = headers(&raw).collect();
    assert_eq!(read, [(&b"host"[..], &b"example.org"[..]), (b"x", b"")]);
    // A list that is none ends where it breaks.
    assert_eq!(headers(&raw[..raw.len() - 1]).count(), 1);
    assert_eq!(headers(b"").count() + headers(b"\xff\xff").count(), 0);
    let broken = bytes(&transcript("47", "0000"));
    for broken in [&broken[..broken.len() - 1], &[&broken[..], b"x"].concat()] {
        assert!(matches!(read_event(broken), Err(Malformed(_))));
    }
}

#[test]
fn news() {
    let check = |event: PeerEvent<'_>, transcript: &str, expected: Told<'_>| {
        told(&Event::Peer(&event), transcript, expected);
    };
    check(
        PeerEvent::Welcome { client: CLIENT },
        "41 0100 ID",
        Told::Welcome {
            version: 1,
            client: CLIENT,
        },
    );
    check(
        PeerEvent::Disconnect {
            client: CLIENT,
            code: 1006,
            reason: b"lost",
        },
        "49 ID ee03 'lost'",
        Told::Disconnect {
            client: CLIENT,
            code: 1006,
            reason: b"lost",
        },
    );
    for (up, number) in [(true, "4a"), (false, "4b")] {
        check(
            PeerEvent::Subscribed {
                client: CLIENT,
                up,
                filter: b"a.*",
            },
            &format!("{number} ID 'a.*'"),
            Told::Subscribed {
                client: CLIENT,
                up,
                filter: b"a.*",
            },
        );
    }
    let payload = Payload::json(text("1"));
    check(
        PeerEvent::Published {
            client: CLIENT,
            topic: b"a",
            data: &payload,
        },
        "4c ID 0100 'a' 01 '1'",
        Told::Published {
            client: CLIENT,
            topic: b"a",
            payload: data(Kind::Json, "1"),
        },
    );
    for (up, number) in [(true, "4d"), (false, "4e")] {
        check(
            PeerEvent::Occupied { up, filter: b"a" },
            &format!("{number} 'a'"),
            Told::Occupied { up, filter: b"a" },
        );
    }
    for (up, number) in [(true, "4f"), (false, "50")] {
        check(
            PeerEvent::Peer { up, name: b"shop" },
            &format!("{number} 'shop'"),
            Told::Peer { up, name: b"shop" },
        );
    }
    check(
        PeerEvent::TokenUp {
            token: b"t",
            client: CLIENT,
        },
        "51 ID 't'",
        Told::TokenUp {
            token: b"t",
            client: CLIENT,
        },
    );
    check(
        PeerEvent::TokenDown {
            token: b"t",
            client: CLIENT,
        },
        "52 ID 't'",
        Told::TokenDown {
            token: b"t",
            client: CLIENT,
        },
    );
    check(
        PeerEvent::TokenRejected { token: b"t" },
        "53 't'",
        Told::TokenRejected { token: b"t" },
    );
    check(PeerEvent::Probe, "54", Told::Probe);
    check(
        PeerEvent::Goodbye {
            code: "duplicate",
            reason: b"taken",
        },
        "55 0900 'duplicate' 'taken'",
        Told::Goodbye {
            code: b"duplicate",
            reason: b"taken",
        },
    );
    let mut written = Vec::new();
    encode_log(3, "started", &mut written);
    check_told(
        &written,
        "56 03 'started'",
        Told::Log {
            level: 3,
            text: b"started",
        },
    );
}

#[test]
fn what_is_no_event_is_said() {
    for transcript in [
        "",
        "01",
        "40",
        "57",
        "58",
        "54 00",
        "42 T 02",
        "42 T 00 00",
        "43 0100 'a' 05 0100 'a' 01 '1'",
        "45 02 0100 'e' 01 '1'",
        "41 0100 0102030405068008090a0b0c0d0e0f",
    ] {
        let content = bytes(transcript);
        let read = read_event(&content);
        assert!(matches!(read, Err(Malformed(_))), "{transcript}: {read:?}");
    }
}
