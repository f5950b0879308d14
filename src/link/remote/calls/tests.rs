//! What a remote Link says again, and what it does not.

use super::*;
use crate::address::{Address, ClientId, SessionId, ShardId};
use crate::link::frames::Frames;
use crate::protocol::peer::call::decode;
use crate::protocol::peer::event::{Told, read_event};
use crate::protocol::peer::{Admitted, Audience, PeerPattern};
use crate::topic::{Filter, Topic};

const CLIENT: ClientId = ClientId {
    broker: 1,
    shard: ShardId(0),
    session: SessionId {
        slot: 1,
        generation: 1,
    },
};

fn bodies(frames: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = Frames::default();
    reader.push(Bytes::copy_from_slice(frames));
    std::iter::from_fn(|| reader.next(|_, frame| frame.to_vec()).expect("frames")).collect()
}

/// Tickets, and whether they were done.
type Answers = Vec<(u64, bool)>;

/// Type and ticket of each frame.
fn said(frames: &[u8]) -> Vec<(CallType, u64)> {
    let call = |frame: Vec<u8>| {
        let kind = CallType::of(frame[0]).expect("a call");
        (kind, ticket_of(&frame))
    };
    bodies(frames).into_iter().map(call).collect()
}

/// The tickets that are answered, and whether they were done.
fn told(frames: &[u8]) -> Answers {
    let answer = |frame: Vec<u8>| match read_event(&frame).expect("an event") {
        Told::Done { ticket, .. } => (ticket, true),
        Told::Failed { ticket, code, .. } => {
            assert_eq!(code, b"timeout");
            (ticket, false)
        }
        other => panic!("an answer, not {other:?}"),
    };
    bodies(frames).into_iter().map(answer).collect()
}

fn make(calls: &mut Calls, made: &[Call<'_>], now: Instant) {
    let queue = calls.queue();
    let before = queue.len();
    for call in made {
        write_call(call, queue);
    }
    let size = queue.len() - before;
    calls.taken(size, now);
}

fn hand_out(calls: &mut Calls) -> Vec<(CallType, u64)> {
    let mut out = Vec::new();
    calls.hand_out(&mut out);
    said(&out)
}

fn lose(calls: &mut Calls) -> Answers {
    let mut out = Vec::new();
    calls.lost(&mut out);
    told(&out)
}

/// What a new connection is told first, and the host.
fn say_again(calls: &mut Calls) -> (Vec<(CallType, u64)>, Answers) {
    let (mut out, mut answers) = (Vec::new(), Vec::new());
    calls.say_again(&mut out, &mut answers);
    (said(&out), told(&answers))
}

fn done(calls: &mut Calls, ticket: u64) -> Heard {
    calls.heard(ticket, Ok(b""), &mut Vec::new())
}

fn filter(name: &str) -> Filter {
    Filter::exact(Bytes::copy_from_slice(name.as_bytes())).expect("a filter")
}

fn request<'a>(ticket: u64, to: &'a Address, payload: &'a Payload, time: u32) -> Call<'a> {
    Call::Request {
        ticket,
        to,
        event: b"add",
        payload,
        timeout_ms: time,
    }
}

#[test]
fn the_places_of_what_is_read_here_are_those_that_calls_are_written_to() {
    let ticket = 0x0102_0304_0506_0708;
    let payload = &Payload::json(Bytes::from_static(b"1"));
    let filter = &filter("a");
    let topic = &Topic::channel(Bytes::from_static(b"a")).expect("a topic");
    let to = &Address::Client(CLIENT);
    let many = &Audience::Peers(PeerPattern::All);
    let (event, token, name, volatile) = (&b"add"[..], &b"user-1"[..], &b"n"[..], false);
    let client = CLIENT;
    let data = &Outcome::Data(payload.clone());
    let failed = &Outcome::refused(Code::Busy, "x");
    let verdict = &Admitted::Yes { user: None };
    let with = [
        Call::Subscribe { ticket, filter },
        Call::Unsubscribe { ticket, filter },
        Call::Publish {
            ticket,
            topic,
            payload,
            echo: true,
        },
        Call::Emit {
            ticket,
            to,
            event,
            payload,
            volatile,
        },
        Call::EmitMany {
            ticket,
            to: many,
            event,
            payload,
            volatile,
        },
        request(ticket, to, payload, 1234),
        Call::Handle { ticket, event },
        Call::Unhandle { ticket, event },
        Call::Watch {
            ticket,
            mask: Watch::CONNECT,
        },
        Call::Join {
            ticket,
            client,
            room: b"r",
        },
        Call::Leave {
            ticket,
            client,
            room: b"r",
        },
        Call::Disconnect {
            ticket,
            client,
            code: 1000,
            reason: b"",
        },
        Call::Accept {
            ticket,
            token,
            id: b"id-1",
        },
        Call::Reject { ticket, token },
        Call::AdmitPeer {
            ticket,
            name,
            admitted: true,
        },
        Call::AdmitPeer {
            ticket,
            name,
            admitted: false,
        },
        Call::CutPeer { ticket, name },
    ];
    let without = [
        Call::Hello { name, key: b"k" },
        Call::Reply {
            number: 9,
            outcome: data,
        },
        Call::Reply {
            number: 9,
            outcome: failed,
        },
        Call::Admit { client, verdict },
        Call::Alive,
        Call::Bye,
    ];
    let mut standings = 0;
    for call in with.iter().chain(&without) {
        let mut written = Vec::new();
        write_call(call, &mut written);
        let frame = &written[SIZE_BYTES..];
        let has_ticket = with
            .iter()
            .any(|with| format!("{with:?}") == format!("{call:?}"));
        assert_eq!(
            ticket_of(frame),
            if has_ticket { ticket } else { 0 },
            "{call:?}"
        );
        let is_request = matches!(call, Call::Request { .. });
        let time = is_request.then_some(Duration::from_millis(1234));
        assert_eq!(time_of(frame), time, "{call:?}");
        if let Some((key, stands)) = standing(frame) {
            standings += 1;
            let Some(stands) = stands else { continue };
            let mut again = Vec::new();
            write_standing(&key, &stands, ticket, &mut again);
            assert_eq!(again, written, "{call:?}");
            assert!(decode(&again[SIZE_BYTES..], 0).is_ok(), "{call:?}");
        }
    }
    assert_eq!(
        standings, 7,
        "two of filters, events and tokens each, and one that watches"
    );
}

#[test]
fn what_stands_is_said_again_and_nothing_else_is() {
    let now = Instant::now();
    let mut calls = Calls::default();
    let (a, b) = (&filter("a"), &filter("b"));
    let payload = &Payload::json(Bytes::from_static(b"1"));
    let topic = &Topic::channel(Bytes::from_static(b"a")).expect("a topic");
    let made = [
        Call::Subscribe {
            ticket: 1,
            filter: a,
        },
        Call::Subscribe {
            ticket: 2,
            filter: b,
        },
        Call::Unsubscribe {
            ticket: 3,
            filter: b,
        },
        Call::Watch {
            ticket: 4,
            mask: Watch::PEER,
        },
        Call::Handle {
            ticket: 0,
            event: b"add",
        },
        Call::Publish {
            ticket: 5,
            topic,
            payload,
            echo: true,
        },
        Call::Accept {
            ticket: 6,
            token: b"t",
            id: b"",
        },
    ];
    make(&mut calls, &made, now);
    assert_eq!(hand_out(&mut calls).len(), made.len());
    assert_eq!(done(&mut calls, 1), Heard::Pass);
    assert_eq!(calls.heard(6, Ok(b"made-up"), &mut Vec::new()), Heard::Pass);
    // It waits, and comes behind what stands.
    make(
        &mut calls,
        &[Call::Handle {
            ticket: 7,
            event: b"sub",
        }],
        now,
    );

    assert_eq!(lose(&mut calls), [(5, false)]);
    let mut out = Vec::new();
    let mut answers = Vec::new();
    calls.say_again(&mut out, &mut answers);
    let again = said(&out);
    let kinds: Vec<CallType> = again.iter().map(|(kind, _)| *kind).collect();
    use CallType::{Accept, Handle, Subscribe};
    assert_eq!(kinds, [CallType::Watch, Handle, Subscribe, Accept]);
    assert_eq!(again[0].1, 4, "it has not been answered");
    assert!(again[1..].iter().all(|(_, ticket)| *ticket >= OWN_TICKETS));
    let accept = bodies(&out).pop().expect("an accept");
    assert!(accept.ends_with(b"made-up"), "the id is known to clients");
    // There is nothing left of `b`, which is what its last call asked for.
    assert_eq!(told(&answers), [(2, true), (3, true)]);
    for (_, ticket) in &again[1..] {
        assert_eq!(done(&mut calls, *ticket), Heard::Swallow);
    }
    assert_eq!(done(&mut calls, 4), Heard::Pass);
    assert_eq!(hand_out(&mut calls), [(Handle, 7)]);
    assert_eq!(done(&mut calls, 7), Heard::Pass);
    assert_eq!(calls.charged(), 0);
}

#[test]
fn a_ticket_is_answered_once_however_often_the_connection_breaks() {
    let now = Instant::now();
    let mut calls = Calls::default();
    make(
        &mut calls,
        &[Call::Subscribe {
            ticket: 1,
            filter: &filter("a"),
        }],
        now,
    );
    hand_out(&mut calls);
    for _ in 0..3 {
        assert_eq!(lose(&mut calls), []);
        assert_eq!(
            say_again(&mut calls),
            (vec![(CallType::Subscribe, 1)], vec![])
        );
    }
    assert_eq!(done(&mut calls, 1), Heard::Pass);
    assert_eq!(done(&mut calls, 1), Heard::Swallow);
    lose(&mut calls);
    let (again, answers) = say_again(&mut calls);
    assert!(again[0].1 >= OWN_TICKETS && again.len() == 1 && answers.is_empty());
    // The new broker does not let us: it is not said a third time, and the host reads of it.
    let mut told = Vec::new();
    assert_eq!(
        calls.heard(again[0].1, Err(b"no"), &mut told),
        Heard::Swallow
    );
    assert!(matches!(
        read_event(&told[SIZE_BYTES..]),
        Ok(Told::Log { .. })
    ));
    lose(&mut calls);
    assert_eq!(say_again(&mut calls), (vec![], vec![]));
}

#[test]
fn what_was_refused_does_not_stand() {
    let now = Instant::now();
    let mut calls = Calls::default();
    let made = [
        Call::Subscribe {
            ticket: 1,
            filter: &filter("a"),
        },
        Call::Reject {
            ticket: 2,
            token: b"t",
        },
        Call::Reject {
            ticket: 3,
            token: b"u",
        },
    ];
    make(&mut calls, &made, now);
    hand_out(&mut calls);
    assert_eq!(calls.heard(1, Err(b"limit"), &mut Vec::new()), Heard::Pass);
    assert_eq!(done(&mut calls, 2), Heard::Pass);
    lose(&mut calls);
    // The broker remembers tokens; what it was not told yet is said again.
    assert_eq!(say_again(&mut calls).0, [(CallType::Reject, 3)]);
}

#[test]
fn a_request_that_waits_for_a_connection_fails_in_time_and_is_never_sent() {
    let now = Instant::now();
    let ms = |ms| now + Duration::from_millis(ms);
    let mut calls = Calls::default();
    let to = &Address::Service(Bytes::from_static(b"add"));
    let payload = &Payload::json(Bytes::from_static(b"1"));
    make(
        &mut calls,
        &[request(1, to, payload, 50), request(2, to, payload, 70)],
        now,
    );
    assert_eq!(calls.next_deadline(), Some(ms(50)));
    let mut out = Vec::new();
    calls.expire(ms(49), &mut out);
    assert!(out.is_empty());
    calls.expire(ms(50), &mut out);
    assert_eq!(told(&out), [(1, false)]);
    assert_eq!(hand_out(&mut calls), [(CallType::Request, 2)]);
    // Of one that was sent the broker has the last word, for a second.
    let mut out = Vec::new();
    calls.expire(ms(70), &mut out);
    assert!(out.is_empty());
    assert_eq!(calls.next_deadline(), Some(ms(1070)));
    calls.expire(ms(1070), &mut out);
    assert_eq!(told(&out), [(2, false)]);
    assert_eq!(done(&mut calls, 2), Heard::Swallow);
    assert_eq!((calls.next_deadline(), calls.charged()), (None, 0));
}

#[test]
fn requests_whose_time_is_over_give_their_room_back() {
    let now = Instant::now();
    let mut calls = Calls::default();
    let to = &Address::Service(Bytes::from_static(b"add"));
    let payload = &Payload::binary(vec![7; 1000].into());
    let topic = &Topic::channel(Bytes::from_static(b"a")).expect("a topic");
    for ticket in 1..=200 {
        let publish = Call::Publish {
            ticket: 0,
            topic,
            payload,
            echo: true,
        };
        make(&mut calls, &[request(ticket, to, payload, 10)], now);
        if ticket % 10 == 0 {
            make(&mut calls, &[publish], now);
        }
    }
    let before = calls.charged();
    let mut out = Vec::new();
    calls.expire(now + Duration::from_millis(10), &mut out);
    assert_eq!(told(&out).len(), 200);
    assert!(
        calls.charged() < before / 8,
        "{} of {before}",
        calls.charged()
    );
    assert_eq!(hand_out(&mut calls), [(CallType::Publish, 0); 20]);
}

#[test]
fn nothing_is_handed_out_behind_the_last_call() {
    let now = Instant::now();
    let mut calls = Calls::default();
    make(
        &mut calls,
        &[
            Call::Handle {
                ticket: 0,
                event: b"a",
            },
            Call::Bye,
        ],
        now,
    );
    assert!(calls.is_ending() && !calls.is_over());
    make(
        &mut calls,
        &[Call::Handle {
            ticket: 0,
            event: b"b",
        }],
        now,
    );
    let handed_out = hand_out(&mut calls);
    assert_eq!(handed_out, [(CallType::Handle, 0), (CallType::Bye, 0)]);
    assert!(calls.is_over() && hand_out(&mut calls).is_empty());
}

#[test]
fn calls_are_handed_out_in_order_in_portions() {
    let now = Instant::now();
    let mut calls = Calls::default();
    let payload = &Payload::binary(vec![7; 1000].into());
    let topic = &Topic::channel(Bytes::from_static(b"a")).expect("a topic");
    let mut heard = Vec::new();
    for round in 0..20 {
        for number in 1..=30 {
            let ticket = round * 30 + number;
            make(
                &mut calls,
                &[Call::Publish {
                    ticket,
                    topic,
                    payload,
                    echo: true,
                }],
                now,
            );
        }
        let portion = hand_out(&mut calls);
        assert!(portion.len() * 1000 <= SEND_BYTES_MAX + 1000 && !portion.is_empty());
        heard.extend(portion.into_iter().map(|(_, ticket)| ticket));
    }
    let mut portion = hand_out(&mut calls);
    while !portion.is_empty() {
        heard.extend(portion.into_iter().map(|(_, ticket)| ticket));
        portion = hand_out(&mut calls);
    }
    assert_eq!(heard, (1..=600).collect::<Vec<u64>>());
    assert_eq!(lose(&mut calls).len(), 600);
    assert_eq!(calls.charged(), 0);
}
