//! What a peer says: how it is written, and which command it is.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::smallvec;

use super::super::super::{Command, Outcome};
use super::super::call::{Bad, Call};
use super::super::{
    Admitted, Audience, PeerCommand, PeerPattern, Watch, decode, ticket_tag, write_call,
};
use super::{CLIENT, NOW, TICKET, bytes, framed, hex, text};
use crate::address::Address;
use crate::error::Code;
use crate::message::{Flags, Message, Payload, Targets};
use crate::secret::Secret;
use crate::topic::{Filter, Topic};

fn own(command: PeerCommand) -> Command {
    Command::Peer(Box::new(command))
}

/// The transcript of a call, and the command that it is.
#[track_caller]
fn check(call: Call<'_>, transcript: &str, expected: Command) {
    let content = bytes(transcript);
    let mut written = Vec::new();
    write_call(&call, &mut written);
    assert_eq!(hex(&written), hex(&framed(&content)), "{call:?}");
    assert_eq!(decode(&content, NOW), Ok(expected));
    // What ends early is no call, or a shorter one.
    for size in 0..content.len() {
        let _ = decode(&content[..size], NOW);
    }
}

#[test]
fn a_peer_says_who_it_is_and_that_it_is_there() {
    check(
        Call::Hello {
            name: b"shop",
            key: b"s3cret",
        },
        "01 0100 0400 'shop' 0600 's3cret'",
        own(PeerCommand::Hello {
            version: 1,
            name: text("shop"),
            key: Some(Secret::text("s3cret").unwrap()),
        }),
    );
    check(
        Call::Hello {
            name: b"shop",
            key: b"",
        },
        "01 0100 0400 'shop' 0000",
        own(PeerCommand::Hello {
            version: 1,
            name: text("shop"),
            key: None,
        }),
    );
    check(Call::Alive, "15", own(PeerCommand::Alive));
    check(Call::Bye, "16", own(PeerCommand::Bye));
}

#[test]
fn subscriptions() {
    for (filter, kind) in [
        (Filter::dotted(text("=a.*")), "01"),
        (Filter::exact(text("=a.*")), "02"),
        (Filter::glob(text("=a.*")), "03"),
        (Filter::shard(text("=a.*")), "04"),
    ] {
        let filter = filter.unwrap();
        check(
            Call::Subscribe {
                ticket: TICKET,
                filter: &filter,
            },
            &format!("02 T {kind} '=a.*'"),
            Command::Subscribe {
                filter: filter.clone(),
                tag: ticket_tag(TICKET),
            },
        );
        check(
            Call::Unsubscribe {
                ticket: 0,
                filter: &filter,
            },
            &format!("03 0000000000000000 {kind} '=a.*'"),
            Command::Unsubscribe {
                filter: filter.clone(),
                tag: None,
            },
        );
    }
}

#[test]
fn publications() {
    let check = |topic: Topic, payload: Payload, echo: bool, transcript: &str| {
        check(
            Call::Publish {
                ticket: TICKET,
                topic: &topic,
                payload: &payload,
                echo,
            },
            transcript,
            Command::Publish {
                message: Arc::new(Message {
                    targets: Targets {
                        topics: smallvec![topic.clone()],
                        ..Targets::default()
                    },
                    event: None,
                    payload: payload.clone(),
                    attachments: Vec::new(),
                    origin: None,
                    flags: Flags {
                        not_to_origin: !echo,
                        ..Flags::default()
                    },
                    position: None,
                    unix_ms: NOW,
                    envelope: None,
                }),
                tag: ticket_tag(TICKET),
            },
        );
    };
    check(
        Topic::dotted(text("a.b")).unwrap(),
        Payload::json(text("[1, 2]")),
        true,
        "04 T 00 01 0300 'a.b' 01 '[1, 2]'",
    );
    check(
        Topic::channel(text("a..b")).unwrap(),
        Payload::text(text("é")),
        false,
        "04 T 01 02 0400 'a..b' 02 c3a9",
    );
    check(
        Topic::shard(text("a")).unwrap(),
        Payload::binary(Bytes::from_static(b"\xff")),
        true,
        "04 T 00 03 0100 'a' 03 ff",
    );
    check(
        Topic::dotted(text("a")).unwrap(),
        Payload::untyped(text("null")),
        true,
        "04 T 00 01 0100 'a' 00 'null'",
    );
}

#[test]
fn events_and_requests() {
    let payload = Payload::json(text("1"));
    for (to, target) in [
        (Address::Service(text("e")), "01"),
        (Address::Master(text("e")), "02"),
        (Address::AnyPeer(text("e")), "03"),
        (Address::Peer(text("shop")), "04 0400 'shop'"),
        (Address::Client(CLIENT), "05 ID"),
        (Address::Token(text("t")), "06 0100 't'"),
    ] {
        check(
            Call::Emit {
                ticket: TICKET,
                to: &to,
                event: b"e",
                payload: &payload,
                volatile: true,
            },
            &format!("05 T 01 {target} 0100 'e' 01 '1'"),
            Command::Emit {
                to: to.clone(),
                event: text("e"),
                data: payload.clone(),
                volatile: true,
                tag: ticket_tag(TICKET),
            },
        );
        check(
            Call::Request {
                ticket: TICKET,
                to: &to,
                event: b"e",
                payload: &payload,
                timeout_ms: 0x0403_0201,
            },
            &format!("06 T 01020304 {target} 0100 'e' 01 '1'"),
            Command::Request {
                to: to.clone(),
                event: text("e"),
                data: payload.clone(),
                tag: ticket_tag(TICKET).unwrap(),
                timeout_ms: Some(0x0403_0201),
            },
        );
    }
    check(
        Call::Request {
            ticket: TICKET,
            to: &Address::Service(text("e")),
            event: b"e",
            payload: &payload,
            timeout_ms: 0,
        },
        "06 T 00000000 01 0100 'e' 01 '1'",
        Command::Request {
            to: Address::Service(text("e")),
            event: text("e"),
            data: payload.clone(),
            tag: ticket_tag(TICKET).unwrap(),
            timeout_ms: None,
        },
    );
}

#[test]
fn events_for_many() {
    let payload = Payload::text(text("hi"));
    let clients = |rooms: &[&'static str], except_rooms: &[&'static str], except| {
        let all = |rooms: &[&'static str]| rooms.iter().copied().map(text).collect();
        Audience::Clients {
            rooms: all(rooms),
            except_rooms: all(except_rooms),
            except,
        }
    };
    for (to, target) in [
        (clients(&[], &[], None), "07 0000 0000 00"),
        (
            clients(&["r", "\0"], &["no"], Some(CLIENT)),
            "07 0200 0100 'r' 0100 00 0100 0200 'no' 01 ID",
        ),
        (Audience::Peers(PeerPattern::All), "08 00 0000"),
        (
            Audience::Peers(PeerPattern::Name(text("shop"))),
            "08 01 0400 'shop'",
        ),
        (
            Audience::Peers(PeerPattern::Regex(text("^calc-"))),
            "08 02 0600 '^calc-'",
        ),
    ] {
        check(
            Call::EmitMany {
                ticket: 0,
                to: &to,
                event: b"e",
                payload: &payload,
                volatile: false,
            },
            &format!("05 0000000000000000 00 {target} 0100 'e' 02 'hi'"),
            own(PeerCommand::EmitMany {
                to: to.clone(),
                event: text("e"),
                data: payload.clone(),
                volatile: false,
                tag: None,
            }),
        );
    }
}

#[test]
fn answers() {
    let outcome = Outcome::Data(Payload::json(text("{}")));
    check(
        Call::Reply {
            number: TICKET,
            outcome: &outcome,
        },
        "07 T 01 '{}'",
        Command::Reply {
            number: TICKET,
            outcome: outcome.clone(),
        },
    );
    let outcome = Outcome::Failed {
        code: Cow::Borrowed("sold_out"),
        reason: Cow::Borrowed("none left"),
    };
    check(
        Call::Reply {
            number: TICKET,
            outcome: &outcome,
        },
        "08 T 0800 'sold_out' 'none left'",
        Command::Reply {
            number: TICKET,
            outcome: outcome.clone(),
        },
    );
}

#[test]
fn handling_and_watching() {
    check(
        Call::Handle {
            ticket: TICKET,
            event: b"e",
        },
        "09 T 'e'",
        Command::Handle {
            event: text("e"),
            tag: ticket_tag(TICKET),
        },
    );
    check(
        Call::Unhandle {
            ticket: TICKET,
            event: b"e",
        },
        "0a T 'e'",
        Command::Unhandle {
            event: text("e"),
            tag: ticket_tag(TICKET),
        },
    );
    check(
        Call::Watch {
            ticket: TICKET,
            mask: Watch(0x3ff),
        },
        "0b T ff030000",
        own(PeerCommand::Watch {
            mask: Watch::ALL,
            tag: ticket_tag(TICKET),
        }),
    );
}

#[test]
fn what_is_done_to_clients() {
    for (verdict, transcript) in [
        (Admitted::Yes { user: None }, "01 0000"),
        (
            Admitted::Yes {
                user: Some(text("ann")),
            },
            "01 0300 'ann'",
        ),
        (
            Admitted::No {
                reason: text("full"),
            },
            "00 0000 'full'",
        ),
    ] {
        check(
            Call::Admit {
                client: CLIENT,
                verdict: &verdict,
            },
            &format!("0c ID {transcript}"),
            own(PeerCommand::Admit {
                client: CLIENT,
                verdict: verdict.clone(),
            }),
        );
    }
    let tag = ticket_tag(TICKET);
    check(
        Call::Join {
            ticket: TICKET,
            client: CLIENT,
            room: b"r",
        },
        "0d T ID 'r'",
        own(PeerCommand::Join {
            client: CLIENT,
            room: text("r"),
            tag: tag.clone(),
        }),
    );
    check(
        Call::Leave {
            ticket: TICKET,
            client: CLIENT,
            room: b"r",
        },
        "0e T ID 'r'",
        own(PeerCommand::Leave {
            client: CLIENT,
            room: text("r"),
            tag: tag.clone(),
        }),
    );
    check(
        Call::Disconnect {
            ticket: TICKET,
            client: CLIENT,
            code: 4001,
            reason: b"bye",
        },
        "0f T ID a10f 'bye'",
        own(PeerCommand::Disconnect {
            client: CLIENT,
            code: 4001,
            reason: text("bye"),
            tag: tag.clone(),
        }),
    );
    for (id, expected) in [("", None), ("ab12", Some(text("ab12")))] {
        check(
            Call::Accept {
                ticket: TICKET,
                token: b"t",
                id: id.as_bytes(),
            },
            &format!("10 T 0100 't' '{id}'"),
            own(PeerCommand::Accept {
                token: text("t"),
                id: expected,
                tag: tag.clone(),
            }),
        );
    }
    check(
        Call::Reject {
            ticket: TICKET,
            token: b"t",
        },
        "11 T 't'",
        own(PeerCommand::Reject {
            token: text("t"),
            tag,
        }),
    );
}

#[test]
fn what_is_done_to_peers() {
    for (admitted, number) in [(true, "12"), (false, "13")] {
        check(
            Call::AdmitPeer {
                ticket: TICKET,
                name: b"shop",
                admitted,
            },
            &format!("{number} T 'shop'"),
            own(PeerCommand::AdmitPeer {
                name: text("shop"),
                admitted,
                tag: ticket_tag(TICKET),
            }),
        );
    }
    check(
        Call::CutPeer {
            ticket: TICKET,
            name: b"shop",
        },
        "14 T 'shop'",
        own(PeerCommand::CutPeer {
            name: text("shop"),
            tag: ticket_tag(TICKET),
        }),
    );
}

#[test]
fn the_longest_of_everything_is_taken() {
    let rooms = "0100 'r' ".repeat(1000);
    for transcript in [
        "02 T 02 61*1024",
        "02 T 03 61*255",
        "05 T 00 01 ff00 61*255 01 '1'",
        &format!("05 T 00 07 e803 {rooms} 0100 0004 61*1024 00 0100 'e' 01 '1'"),
        "05 T 00 08 02 0004 61*1024 0100 'e' 01 '1'",
        "09 T 61*255",
        "0d T ID 61*1024",
        "0f T ID e803 61*123",
        "0f T ID b80b",
        "0f T ID 8713",
        "10 T ff00 61*255 61*255",
    ] {
        let decoded = decode(&bytes(transcript), NOW);
        assert!(decoded.is_ok(), "{transcript}: {decoded:?}");
    }
}

#[test]
fn answers_that_break_a_rule_are_the_safe_ones() {
    for (transcript, expected) in [
        ("07 T 01 '{'", Code::BadJson),
        ("07 T 02 ff", Code::BadType),
        ("07 T 09 'x'", Code::BadType),
        ("08 T 0000 'x'", Code::BadType),
        ("08 T 0100 ff 'x'", Code::BadType),
        ("08 T 0100 'c' ff", Code::BadType),
    ] {
        let decoded = decode(&bytes(transcript), NOW);
        assert!(
            matches!(
                &decoded,
                Ok(Command::Reply { number: TICKET, outcome: Outcome::Failed { code, .. } })
                    if *code == expected.as_str()
            ),
            "{transcript}: {decoded:?}"
        );
    }
    for (transcript, reason) in [
        ("0c ID 02 0000 'no'", "no"),
        ("0c ID 01 0100 ff", ""),
        ("0c ID 00 0000 ff", ""),
        ("0c ID 00 0000 61*1025", ""),
    ] {
        let expected = own(PeerCommand::Admit {
            client: CLIENT,
            verdict: Admitted::No {
                reason: text(reason),
            },
        });
        assert_eq!(
            decode(&bytes(transcript), NOW),
            Ok(expected),
            "{transcript}"
        );
    }
}

/// A line is what becomes of it, and a frame.
const REFUSED: &str = include_str!("refused.txt");

#[test]
fn what_breaks_a_rule_is_refused_and_what_is_no_call_ends_the_connection() {
    for line in REFUSED.lines() {
        let (expected, transcript) = line.split_once(' ').unwrap_or((line, ""));
        match decode(&bytes(transcript), NOW) {
            Err(Bad::Malformed(_)) => assert_eq!(expected, "malformed", "{line}"),
            Err(Bad::Refused(refusal)) => {
                assert_eq!(refusal.code.as_str(), expected, "{line}: {refusal:?}");
                assert_eq!(refusal.tag, ticket_tag(TICKET), "{line}");
            }
            Ok(command) => panic!("{line}: {command:?}"),
        }
    }
    // Without a ticket nobody is told.
    let untold = decode(&bytes("02 0000000000000000 00"), NOW);
    assert!(matches!(untold, Err(Bad::Refused(refusal)) if refusal.tag.is_none()));
}
