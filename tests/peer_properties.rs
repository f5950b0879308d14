//! The peer protocol both ways: a call that is written, cut anywhere and read is the command that was meant; an event
//! that is written is read with every field; and whatever else comes is an answer, not a panic.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use pubsub::address::{Address, ClientId, Sender, SessionId, ShardId};
use pubsub::message::{Flags, Message, Payload, Targets};
use pubsub::protocol::peer::event::{Data, Told, headers};
use pubsub::protocol::peer::reader::Reader;
use pubsub::protocol::peer::{
    Admitted, Arrival, Audience, PeerCommand, PeerEvent, PeerPattern, Watch, decode, delivery_size,
    encode, encode_delivery, read_event, ticket_tag,
};
use pubsub::protocol::{Command, Event, Outcome};
use pubsub::secret::Secret;
use pubsub::topic::{Filter, Topic};
use smallvec::smallvec;

#[path = "fuzz_targets/calls.rs"]
mod calls;

use calls::write_command;

const NOW: u64 = 1_518_741_097_123;

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn calls_cut_anywhere_are_the_commands_that_were_meant(commands in vec(command(), 0..5), step in 1..20_usize) {
        let mut bytes = Vec::new();
        commands.iter().for_each(|command| write_command(command, &mut bytes));
        prop_assert_eq!(&read(&[&bytes]), &commands);
        let pieces: Vec<_> = bytes.chunks(step).collect();
        prop_assert_eq!(&read(&pieces), &commands);
        for cut in 0..=bytes.len() {
            let (left, right) = bytes.split_at(cut);
            prop_assert_eq!(&read(&[left, right]), &commands, "cut at {}", cut);
        }
    }

    #[test]
    fn answers_are_read_as_they_were_written(ticket in 1..u64::MAX, outcome in outcome()) {
        let tag = ticket_tag(ticket).unwrap();
        let reply = Event::Reply { tag: &tag, outcome: &outcome };
        let done = PeerEvent::Done { tag: &tag, outcome: &outcome };
        for event in [reply, Event::Peer(&done)] {
            let frame = written(&event);
            let expected = match &outcome {
                Outcome::Data(payload) => Told::Done { ticket, payload: data(payload) },
                Outcome::Failed { code, reason } => {
                    Told::Failed { ticket, code: code.as_bytes(), reason: reason.as_bytes() }
                }
            };
            prop_assert_eq!(read_event(&frame), Ok(expected));
        }
    }

    #[test]
    fn what_others_say_is_read_as_it_was_written(
        number: u64,
        timeout_ms: u64,
        client in client(),
        peer in option::of(name()),
        event in name(),
        payload in payload(),
        is_for_many: bool,
    ) {
        let from = Sender { client, peer: peer.clone() };
        let peer = peer.as_deref().unwrap_or_default();
        let frame = written(&Event::Request { event: &event, data: &payload, number, from: &from, timeout_ms });
        let timeout_ms = u32::try_from(timeout_ms).unwrap_or(u32::MAX);
        let expected =
            Told::Request { number, timeout_ms, client, peer, event: &event, payload: data(&payload) };
        prop_assert_eq!(read_event(&frame), Ok(expected));
        let from = (!is_for_many).then_some(&from);
        let frame = written(&Event::Emitted { event: &event, data: &payload, from });
        let expected = Told::Event {
            client: from.map(|from| from.client),
            peer: if is_for_many { b"" } else { peer },
            event: &event,
            payload: data(&payload),
        };
        prop_assert_eq!(read_event(&frame), Ok(expected));
    }

    #[test]
    fn deliveries_are_read_as_they_were_written(topic in topic(), filter in filter(), payload in payload()) {
        let message = message(topic.clone(), payload.clone(), false);
        let mut out = Vec::new();
        encode_delivery(&message, &topic, &filter, &mut out);
        prop_assert_eq!(out.len(), delivery_size(&message, &topic, &filter));
        let Ok(Told::Message { topic: name, filter: kind, context, payload: found }) = read_event(content(&out)) else {
            panic!("{}", out.escape_ascii())
        };
        prop_assert_eq!(name, topic.as_bytes());
        prop_assert_eq!(kind.filter(Bytes::copy_from_slice(context)), Ok(filter));
        prop_assert_eq!(found, data(&payload));
    }

    #[test]
    fn arrivals_are_read_as_they_were_written(
        client in client(),
        path: Vec<u8>,
        query in vec(any::<u8>(), 0..300),
        fields in vec(("[a-z-]{0,20}", vec(any::<u8>(), 0..50)), 0..20),
        address in "[0-9.:]{0,30}",
        user in option::of("[a-z]{1,20}"),
    ) {
        let arrival = Arrival {
            client,
            protocol: "native",
            path: &path,
            query: &query,
            headers: &fields,
            address: &address,
            user: user.as_deref(),
        };
        for (event, is_question) in [(PeerEvent::Connect(&arrival), false), (PeerEvent::Admit(&arrival), true)] {
            let frame = written(&Event::Peer(&event));
            let arrived = match read_event(&frame) {
                Ok(Told::Connect(arrived)) if !is_question => arrived,
                Ok(Told::Admit(arrived)) if is_question => arrived,
                other => panic!("{other:?}"),
            };
            prop_assert_eq!((arrived.client, arrived.protocol), (client, &b"native"[..]));
            prop_assert_eq!((arrived.path, arrived.query), (&path[..], &query[..]));
            prop_assert_eq!(arrived.address, address.as_bytes());
            prop_assert_eq!(arrived.user, user.as_deref().unwrap_or_default().as_bytes());
            let list = fields.iter().map(|(name, value)| (name.as_bytes(), &value[..]));
            prop_assert!(headers(arrived.headers).eq(list));
        }
    }

    #[test]
    fn no_bytes_do_harm(bytes: Vec<u8>, command in command(), seed: u64, frame_bytes_max in 0..300_usize) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut call = Vec::new();
        write_command(&command, &mut call);
        let near = (0..50).map(|_| mutated(call.clone(), &mut random));
        for bytes in near.chain([bytes]) {
            let _ = decode(&bytes, NOW);
            let _ = decode(content(&bytes), NOW);
            let _ = read_event(&bytes);
            headers(&bytes).for_each(drop);
            let mut reader = Reader::default();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let Ok((taken, frame)) = reader.next(frame_bytes_max, rest) else { break };
                prop_assert!(frame.is_none_or(|frame| (1..=frame_bytes_max).contains(&frame.len())));
                rest = &rest[taken..];
            }
        }
    }
}

/// The commands in these pieces of a connection's bytes.
fn read(pieces: &[&[u8]]) -> Vec<Command> {
    let mut reader = Reader::default();
    let mut commands = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let (taken, frame) = reader.next(1 << 20, rest).expect("a size that a frame has");
            commands.extend(frame.map(|frame| decode(frame, NOW).expect("a call")));
            rest = &rest[taken..];
        }
        reader.release();
    }
    assert!(!reader.is_in_frame());
    commands
}

/// The one frame of an event, without its size.
fn written(event: &Event<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(event, &mut out);
    assert_eq!(
        out[..4],
        u32::try_from(out.len() - 4).unwrap().to_le_bytes()
    );
    content(&out).to_vec()
}

fn content(frame: &[u8]) -> &[u8] {
    frame.get(4..).unwrap_or_default()
}

fn data(payload: &Payload) -> Data<'_> {
    Data {
        kind: payload.kind(),
        bytes: payload.bytes(),
    }
}

/// A byte changed, added, or taken away.
fn mutated(mut bytes: Vec<u8>, random: &mut fastrand::Rng) -> Vec<u8> {
    let at = random.usize(..bytes.len());
    match random.u8(..3) {
        0 => bytes[at] = random.u8(..),
        1 => bytes.insert(at, random.u8(..)),
        _ => bytes.truncate(at),
    }
    bytes
}

fn message(topic: Topic, payload: Payload, not_to_origin: bool) -> Message {
    Message {
        targets: Targets {
            topics: smallvec![topic],
            ..Targets::default()
        },
        event: None,
        payload,
        attachments: Vec::new(),
        origin: None,
        flags: Flags {
            not_to_origin,
            ..Flags::default()
        },
        position: None,
        unix_ms: NOW,
        envelope: None,
    }
}

fn client() -> impl Strategy<Value = ClientId> {
    (0..1_u64 << 48, 0..128_u8, any::<u32>(), any::<u32>()).prop_map(
        |(broker, shard, slot, generation)| ClientId {
            broker,
            shard: ShardId(shard),
            session: SessionId { slot, generation },
        },
    )
}

/// Of an event, a peer, or a token.
fn name() -> impl Strategy<Value = Bytes> {
    "[a-zA-Zé日 .*-]{1,60}".prop_map(Bytes::from)
}

fn room() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 1..40).prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = Bytes> {
    ".{0,40}".prop_map(Bytes::from)
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        "\\[(|1|\"a\"|null, \\{\\})\\]".prop_map(|json| Payload::json(Bytes::from(json))),
        text().prop_map(Payload::text),
        vec(any::<u8>(), 0..100).prop_map(|bytes| Payload::binary(Bytes::from(bytes))),
        prop_oneof![text(), room()].prop_map(Payload::untyped),
    ]
}

fn filter() -> impl Strategy<Value = Filter> {
    prop_oneof![
        "=?[a*]{1,3}(\\.[b*]{1,3}){0,3}"
            .prop_map(|written| Filter::dotted(Bytes::from(written)).unwrap()),
        room().prop_map(|name| Filter::exact(name).unwrap()),
        room().prop_map(|pattern| Filter::glob(pattern).unwrap()),
        room().prop_map(|name| Filter::shard(name).unwrap()),
    ]
}

fn topic() -> impl Strategy<Value = Topic> {
    prop_oneof![
        "[ab]{1,3}(\\.[bé]{1,3}){0,3}".prop_map(|name| Topic::dotted(Bytes::from(name)).unwrap()),
        room().prop_map(|name| Topic::channel(name).unwrap()),
        room().prop_map(|name| Topic::shard(name).unwrap()),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        payload().prop_map(Outcome::Data),
        ("[a-zé]{1,20}", ".{0,40}").prop_map(|(code, reason)| Outcome::Failed {
            code: Cow::Owned(code),
            reason: Cow::Owned(reason),
        }),
    ]
}

fn audience() -> impl Strategy<Value = Audience> {
    prop_oneof![
        (vec(room(), 0..4), vec(room(), 0..4), option::of(client())).prop_map(
            |(rooms, except_rooms, except)| Audience::Clients {
                rooms,
                except_rooms,
                except,
            }
        ),
        Just(Audience::Peers(PeerPattern::All)),
        name().prop_map(|name| Audience::Peers(PeerPattern::Name(name))),
        text().prop_map(|regex| Audience::Peers(PeerPattern::Regex(regex))),
    ]
}

/// Whom it is for, and the event.
fn addressed() -> impl Strategy<Value = (Address, Bytes)> {
    let to = |of: fn(Bytes) -> Address| name().prop_map(move |event| (of(event.clone()), event));
    prop_oneof![
        to(Address::Service),
        to(Address::Master),
        to(Address::AnyPeer),
        (name(), name()).prop_map(|(peer, event)| (Address::Peer(peer), event)),
        (client(), name()).prop_map(|(client, event)| (Address::Client(client), event)),
        (name(), name()).prop_map(|(token, event)| (Address::Token(token), event)),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let ticket = || prop_oneof![Just(0), any::<u64>()].prop_map(ticket_tag);
    let own = |command: PeerCommand| Command::Peer(Box::new(command));
    prop_oneof![
        (filter(), ticket()).prop_map(|(filter, tag)| Command::Subscribe { filter, tag }),
        (filter(), ticket()).prop_map(|(filter, tag)| Command::Unsubscribe { filter, tag }),
        (topic(), payload(), any::<bool>(), ticket()).prop_map(|(topic, payload, echo, tag)| {
            Command::Publish {
                message: Arc::new(message(topic, payload, !echo)),
                tag,
            }
        }),
        (addressed(), payload(), any::<bool>(), ticket()).prop_map(
            |((to, event), data, volatile, tag)| Command::Emit {
                to,
                event,
                data,
                volatile,
                tag,
            }
        ),
        (addressed(), payload(), 1..u64::MAX, option::of(1..u32::MAX)).prop_map(
            |((to, event), data, ticket, timeout_ms)| Command::Request {
                to,
                event,
                data,
                tag: ticket_tag(ticket).unwrap(),
                timeout_ms: timeout_ms.map(u64::from),
            }
        ),
        (any::<u64>(), outcome()).prop_map(|(number, outcome)| Command::Reply { number, outcome }),
        (name(), ticket()).prop_map(|(event, tag)| Command::Handle { event, tag }),
        (name(), ticket()).prop_map(|(event, tag)| Command::Unhandle { event, tag }),
        prop_oneof![
            (name(), option::of("[!-~é]{1,40}")).prop_map(|(name, key)| PeerCommand::Hello {
                version: 1,
                name,
                key: key.map(|key| Secret::text(&key).unwrap()),
            }),
            (audience(), name(), payload(), any::<bool>(), ticket()).prop_map(
                |(to, event, data, volatile, tag)| PeerCommand::EmitMany {
                    to,
                    event,
                    data,
                    volatile,
                    tag,
                }
            ),
            (0..=Watch::ALL.0, ticket()).prop_map(|(mask, tag)| PeerCommand::Watch {
                mask: Watch(mask),
                tag,
            }),
            (client(), option::of(name())).prop_map(|(client, user)| PeerCommand::Admit {
                client,
                verdict: Admitted::Yes { user },
            }),
            (client(), text()).prop_map(|(client, reason)| PeerCommand::Admit {
                client,
                verdict: Admitted::No { reason },
            }),
            (client(), room(), ticket()).prop_map(|(client, room, tag)| PeerCommand::Join {
                client,
                room,
                tag
            }),
            (client(), room(), ticket()).prop_map(|(client, room, tag)| PeerCommand::Leave {
                client,
                room,
                tag
            }),
            (client(), 3000..5000_u16, ".{0,30}", ticket()).prop_map(
                |(client, code, reason, tag)| PeerCommand::Disconnect {
                    client,
                    code,
                    reason: Bytes::from(reason),
                    tag,
                }
            ),
        ]
        .prop_map(own),
        prop_oneof![
            (name(), option::of(name()), ticket())
                .prop_map(|(token, id, tag)| PeerCommand::Accept { token, id, tag }),
            (name(), ticket()).prop_map(|(token, tag)| PeerCommand::Reject { token, tag }),
            (name(), any::<bool>(), ticket()).prop_map(|(name, admitted, tag)| {
                PeerCommand::AdmitPeer {
                    name,
                    admitted,
                    tag,
                }
            }),
            (name(), ticket()).prop_map(|(name, tag)| PeerCommand::CutPeer { name, tag }),
            Just(PeerCommand::Alive),
            Just(PeerCommand::Bye),
        ]
        .prop_map(own),
    ]
}
