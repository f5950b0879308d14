//! Links, with a scripted other end in the place of a broker.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::address::{SessionId, ShardId};
use crate::message::Payload;
use crate::net::links::{FarEnd, Item, pair};
use crate::protocol::peer::call::decode;
use crate::protocol::peer::event::encode;
use crate::protocol::peer::{PeerCommand, PeerEvent, tag_ticket, ticket_tag};
use crate::protocol::{self, Command, Outcome};
use crate::topic::board::Board;
use crate::topic::{Filter, Topic};

/// A Link, and the end behind it.
struct Scene {
    link: Link,
    far: FarEnd,
    calls: VecDeque<Command>,
}

fn client(slot: u32) -> ClientId {
    ClientId {
        broker: 1,
        shard: ShardId(2),
        session: SessionId {
            slot,
            generation: 4,
        },
    }
}

impl Scene {
    fn new() -> Scene {
        Scene::on(None)
    }

    fn on(board: Option<&Arc<Board>>) -> Scene {
        let (host, far) = pair().expect("descriptors");
        Scene {
            link: Link::over(
                host,
                None,
                Near {
                    hearing: board.cloned().map(Hearing::new),
                    adoptions: None,
                },
            ),
            far,
            calls: VecDeque::new(),
        }
    }

    /// The next call that was made.
    fn call(&mut self) -> Option<Command> {
        let mut taken = Vec::new();
        while self.far.take(&mut taken) > 0 {}
        let mut at = 0;
        while let Some(size) = frames::whole(&taken[at..]).expect("frames") {
            let frame = &taken[at + frames::SIZE_BYTES..at + size];
            self.calls.push_back(decode(frame, 0).expect("a call"));
            at += size;
        }
        assert_eq!(at, taken.len(), "whole frames");
        self.calls.pop_front()
    }

    fn give(&mut self, event: &protocol::Event<'_>) {
        let mut frame = Vec::new();
        encode(event, &mut frame);
        self.give_bytes(frame);
    }

    fn give_bytes(&mut self, bytes: Vec<u8>) {
        let given = self.far.give(Item::Bytes(bytes.into()));
        given.expect("room");
    }

    fn done(&mut self, ticket: Ticket, outcome: &Outcome) {
        let tag = &ticket_tag(ticket.0).expect("a ticket");
        self.give(&protocol::Event::Peer(&PeerEvent::Done { tag, outcome }));
    }

    fn drain(&self) -> Vec<Event> {
        let mut events = Vec::new();
        self.link.drain(&mut events, usize::MAX);
        events
    }

    fn is_readable(&self) -> bool {
        let fd = self.link.fd();
        let now = Timespec::default();
        let found = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&now));
        found.expect("a poll") > 0
    }
}

fn empty() -> Outcome {
    Outcome::Data(Payload::binary(Bytes::new()))
}

fn refused() -> Outcome {
    Outcome::refused(crate::error::Code::Limit, "one too many")
}

fn topic(name: &'static str) -> Topic {
    Topic::dotted(Bytes::from_static(name.as_bytes())).expect("a topic")
}

fn filter(name: &'static str) -> Filter {
    Filter::dotted(Bytes::from_static(name.as_bytes())).expect("a filter")
}

fn json(text: &'static str) -> Payload {
    Payload::json(Bytes::from_static(text.as_bytes()))
}

#[test]
fn calls_come_in_the_order_made_with_rising_tickets() {
    let mut scene = Scene::new();
    let first = scene
        .link
        .subscribe(&filter("a"), Answer::Wanted)
        .expect("room");
    let second = scene
        .link
        .publish(&topic("a.b"), &json("1"), true, Answer::Unwanted);
    let third = scene.link.join(client(1), "room", Answer::Wanted);
    assert_eq!(second, Ok(Ticket::NONE));
    assert!(first < third.expect("room"));
    let Some(Command::Subscribe { tag, .. }) = scene.call() else {
        panic!("a subscribe first");
    };
    assert_eq!(tag_ticket(tag.as_ref()), first.0);
    assert!(matches!(
        scene.call(),
        Some(Command::Publish { tag: None, .. })
    ));
    let Some(Command::Peer(join)) = scene.call() else {
        panic!("a join last");
    };
    assert!(matches!(*join, PeerCommand::Join { .. }), "{join:?}");
    assert_eq!(scene.call(), None);
}

#[test]
fn calls_that_mean_nothing_are_not_made() {
    let mut scene = Scene::new();
    let link = &scene.link;
    let long = "x".repeat(256);
    let large = Payload::binary(vec![0; crate::limits::SERVER_MESSAGE_BYTES_MAX + 1].into());
    let to = crate::address::Address::Client(client(1));
    let room = Bytes::from(vec![b'x'; 1025]);
    let crowd = Audience::Clients {
        rooms: vec![Bytes::from(vec![b'x'; 1024]); 60],
        except_rooms: Vec::new(),
        except: None,
    };
    let audience = Audience::Clients {
        rooms: vec![room.clone()],
        except_rooms: Vec::new(),
        except: None,
    };
    for refused in [
        link.handle(&long, Answer::Wanted),
        link.handle("", Answer::Wanted),
        link.watch(Watch(1 << 31), Answer::Wanted),
        link.publish(&topic("a"), &large, true, Answer::Wanted),
        link.emit(&to, "", &json("1"), false, Answer::Wanted),
        link.emit(
            &crate::address::Address::Topic(topic("a")),
            "e",
            &json("1"),
            false,
            Answer::Wanted,
        ),
        link.emit_many(&audience, "e", &json("1"), false, Answer::Wanted),
        link.emit_many(&crowd, "e", &json("1"), false, Answer::Wanted),
        link.join(client(1), &room, Answer::Wanted),
        link.disconnect(client(1), 1006, "", Answer::Wanted),
        link.disconnect(client(1), 3000, &"x".repeat(124), Answer::Wanted),
        link.cut_peer("a\nb", Answer::Wanted),
        link.maybe_subscribe(&room),
    ] {
        assert!(matches!(refused, Err(LinkError::Invalid(_))), "{refused:?}");
    }
    assert_eq!(scene.call(), None);
}

#[test]
fn events_come_in_batches_and_the_descriptor_is_readable_while_there_are_any() {
    let mut scene = Scene::new();
    assert!(!scene.is_readable());
    assert!(scene.drain().is_empty());
    let mut stream = Vec::new();
    for number in 1..=5 {
        let gap = protocol::Event::Gap {
            topic: b"news",
            count: number,
        };
        encode(&gap, &mut stream);
    }
    // Cut in the middle of the third.
    let second = stream.split_off(stream.len() / 2);
    scene.give_bytes(stream);
    scene.give_bytes(second);
    let mut events = Vec::new();
    let mut counts = Vec::new();
    for expected in [2, 2, 1] {
        assert!(scene.is_readable());
        assert_eq!(scene.link.drain(&mut events, 2), expected);
        for event in events.drain(..) {
            let Event::Gap { topic, count } = event else {
                panic!("a gap, not {event:?}");
            };
            assert_eq!(topic, "news");
            counts.push(count);
        }
    }
    assert_eq!(counts, [1, 2, 3, 4, 5]);
    assert!(!scene.is_readable());
    assert!(!scene.link.wait(Some(Duration::ZERO)));
    assert!(scene.link.next(Some(Duration::ZERO)).is_none());
}

#[test]
fn a_request_is_answered_once() {
    let mut scene = Scene::new();
    let from = crate::address::Sender {
        client: client(9),
        peer: Some(Bytes::from_static(b"calc-1")),
    };
    scene.give(&protocol::Event::Request {
        event: b"add",
        data: &json("[5,4]"),
        number: 77,
        from: &from,
        timeout_ms: 5000,
    });
    let Some(Event::Request {
        request,
        timeout_ms: 5000,
        client: asker,
        peer,
        event,
        payload,
    }) = scene.drain().pop()
    else {
        panic!("a request");
    };
    assert_eq!(
        (asker, &peer[..], &event[..]),
        (client(9), &b"calc-1"[..], &b"add"[..])
    );
    assert_eq!(payload, json("[5,4]"));
    assert_eq!(scene.link.reply(request, json("9")), Ok(()));
    assert_eq!(
        scene.link.reply(request, json("9")),
        Err(LinkError::NoRequest)
    );
    let late = scene.link.reply_error(request, "busy", "too late");
    assert_eq!(late, Err(LinkError::NoRequest));
    let answer = Command::Reply {
        number: 77,
        outcome: Outcome::Data(json("9")),
    };
    assert_eq!(scene.call(), Some(answer));
    assert_eq!(scene.call(), None);
}

#[test]
fn counted_channels_are_subscribed_by_the_first_and_unsubscribed_by_the_last() {
    let mut scene = Scene::new();
    let nothing = scene.link.maybe_unsubscribe("room").expect("room");
    assert_eq!(scene.call(), None);
    assert!(scene.is_readable());
    let done = scene.drain();
    assert!(matches!(done[..], [Event::Done { ticket, .. }] if ticket == nothing));

    let first = scene.link.maybe_subscribe("room").expect("room");
    let second = scene.link.maybe_subscribe("room").expect("room");
    for _ in 0..2 {
        assert!(matches!(scene.call(), Some(Command::Subscribe { .. })));
    }
    assert!(
        scene.drain().is_empty(),
        "not before the broker has answered"
    );
    scene.done(first, &empty());
    scene.done(second, &empty());
    assert_eq!(scene.drain().len(), 2);
    scene.link.maybe_unsubscribe("room").expect("room");
    assert_eq!(scene.call(), None);
    scene.link.maybe_unsubscribe("room").expect("room");
    assert!(matches!(scene.call(), Some(Command::Unsubscribe { .. })));

    let third = scene.link.maybe_subscribe("other").expect("room");
    assert!(matches!(scene.call(), Some(Command::Subscribe { .. })));
    scene.done(third, &refused());
    scene.drain();
    scene.link.maybe_unsubscribe("other").expect("room");
    assert_eq!(scene.call(), None, "it was not in");
}

#[test]
fn what_nobody_hears_is_not_sent_but_what_this_link_will_hear_is() {
    let board = Arc::new(Board::default());
    let mut scene = Scene::on(Some(&board));
    let publish = |scene: &Scene, answer| {
        let published = scene
            .link
            .publish(&topic("news.uk"), &json("1"), true, answer);
        published.expect("room")
    };
    publish(&scene, Answer::Unwanted);
    let ticket = publish(&scene, Answer::Wanted);
    assert_eq!(scene.call(), None);
    let done = scene.drain();
    assert!(matches!(done[..], [Event::Done { ticket: of, .. }] if of == ticket));

    // The broker has not answered, and the board says nothing.
    scene
        .link
        .subscribe(&filter("news"), Answer::Unwanted)
        .expect("room");
    let Some(Command::Subscribe { tag, .. }) = scene.call() else {
        panic!("a subscribe");
    };
    publish(&scene, Answer::Unwanted);
    assert!(matches!(scene.call(), Some(Command::Publish { .. })));
    // The shard would have counted it up before this.
    scene.done(Ticket(tag_ticket(tag.as_ref())), &empty());
    assert!(scene.drain().is_empty(), "no answer was wanted");
    publish(&scene, Answer::Unwanted);
    assert_eq!(scene.call(), None);
}

#[test]
fn a_probe_is_answered_without_the_host() {
    let mut scene = Scene::new();
    scene.give(&protocol::Event::Peer(&PeerEvent::Probe));
    assert!(scene.drain().is_empty());
    let Some(Command::Peer(alive)) = scene.call() else {
        panic!("a word");
    };
    assert_eq!(*alive, PeerCommand::Alive);
}

#[test]
fn the_last_event_is_the_last_and_every_call_says_so() {
    let check = |mut scene: Scene, end: fn(&mut Scene), is_last: fn(&Event) -> bool| {
        let gap = protocol::Event::Gap {
            topic: b"news",
            count: 1,
        };
        scene.give(&gap);
        end(&mut scene);
        let Scene { link, far, .. } = scene;
        drop(far);
        let stopped = link.publish(&topic("a"), &json("1"), true, Answer::Wanted);
        assert_eq!(stopped, Err(LinkError::Stopped));
        assert_eq!(link.reply(RequestId(1), json("1")), Err(LinkError::Stopped));
        assert_eq!(link.maybe_unsubscribe("x"), Err(LinkError::Stopped));
        assert!(link.wait(None));
        let mut events = Vec::new();
        link.drain(&mut events, usize::MAX);
        assert!(matches!(events[0], Event::Gap { .. }), "{events:?}");
        assert!(is_last(&events[1]) && events.len() == 2, "{events:?}");
        assert!(link.next(Some(Duration::ZERO)).is_none());
        let fd = link.fd();
        let now = Timespec::default();
        let found = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&now));
        assert_eq!(found, Ok(0), "an event loop would spin");
    };
    check(
        Scene::new(),
        |_| {},
        |event| matches!(event, Event::Stopped),
    );
    let nobody = Arc::new(Board::default());
    check(
        Scene::on(Some(&nobody)),
        |_| {},
        |event| matches!(event, Event::Stopped),
    );
    let goodbye = |scene: &mut Scene| {
        let goodbye = PeerEvent::Goodbye {
            code: "not_allowed",
            reason: b"cut",
        };
        scene.give(&protocol::Event::Peer(&goodbye));
    };
    check(
        Scene::new(),
        goodbye,
        |event| matches!(event, Event::Closed { code, .. } if code == "not_allowed"),
    );
    let close = |scene: &mut Scene| scene.link.close().expect("room");
    check(
        Scene::new(),
        close,
        |event| matches!(event, Event::Closed { code, .. } if code == "closed"),
    );
    let nonsense = |scene: &mut Scene| scene.give_bytes(b"\x01\0\0\0\0".to_vec());
    check(
        Scene::new(),
        nonsense,
        |event| matches!(event, Event::Closed { code, .. } if code == "bad_frame"),
    );
}

#[test]
fn a_connection_comes_with_what_was_read_of_it() {
    let mut scene = Scene::new();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("sockets");
    let connection = HttpConnection {
        socket: theirs.into(),
        listener: 1,
        address: "here".to_owned(),
        bytes: b"GET / HTTP/1.1".to_vec(),
    };
    let given = scene.far.give(Item::Socket(Box::new(connection)));
    given.expect("room");
    let Some(Event::Http(connection)) = scene.drain().pop() else {
        panic!("a connection");
    };
    assert_eq!(connection.bytes, b"GET / HTTP/1.1");
    let socket = connection.socket;
    let mut theirs = std::os::unix::net::UnixStream::from(socket);
    std::io::Write::write_all(&mut theirs, b"200").expect("it is open");
    let mut answer = [0; 3];
    std::io::Read::read_exact(&mut &ours, &mut answer).expect("an answer");
    assert_eq!(&answer, b"200");
}

#[test]
fn after_the_last_event_no_call_is_made_though_the_other_end_is_there() {
    let mut scene = Scene::new();
    let goodbye = PeerEvent::Goodbye {
        code: "not_allowed",
        reason: b"cut",
    };
    scene.give(&protocol::Event::Peer(&goodbye));
    assert!(matches!(scene.drain()[..], [Event::Closed { .. }]));
    let handled = scene.link.handle("add", Answer::Wanted);
    assert_eq!(handled, Err(LinkError::Stopped));
    assert_eq!(scene.call(), None);
}

#[test]
fn a_full_queue_does_nothing_and_says_so() {
    let mut scene = Scene::new();
    let payload = Payload::binary(vec![7; 100_000].into());
    let mut made = 0;
    let mut fill = |call: &dyn Fn() -> Result<Ticket, LinkError>| {
        loop {
            match call() {
                Ok(_) => made += 1,
                Err(error) => break assert_eq!(error, LinkError::Full),
            }
        }
    };
    let link = &scene.link;
    fill(&|| link.publish(&topic("a"), &payload, true, Answer::Unwanted));
    fill(&|| link.handle("x", Answer::Unwanted));
    assert_eq!(scene.link.maybe_subscribe("x"), Err(LinkError::Full));
    assert!(made >= 10, "{made}");
    let mut found = 0;
    while scene.call().is_some() {
        found += 1;
    }
    assert_eq!(found, made);
    scene.link.maybe_unsubscribe("x").expect("room");
    assert_eq!(scene.call(), None, "nothing was counted");
}

#[test]
fn whoever_drops_a_link_says_so_behind_its_calls() {
    let scene = Scene::new();
    scene.link.handle("add", Answer::Unwanted).expect("room");
    let Scene { link, mut far, .. } = scene;
    drop(link);
    let mut taken = Vec::new();
    far.take(&mut taken);
    let mut kinds = Vec::new();
    while let Some(size) = frames::whole(&taken).expect("frames") {
        kinds.push(decode(&taken[frames::SIZE_BYTES..size], 0).expect("a call"));
        taken.drain(..size);
    }
    assert!(matches!(kinds[0], Command::Handle { .. }), "{kinds:?}");
    assert_eq!(kinds[1..], [Command::Peer(Box::new(PeerCommand::Bye))]);
    assert!(far.is_closed());
}

#[test]
fn in_a_child_every_call_says_so_and_nothing_that_the_parent_uses_is_touched() {
    let mut scene = Scene::new();
    scene.give(&protocol::Event::Gap {
        topic: b"news",
        count: 1,
    });
    scene.link.process = Process::another();
    // Whoever had a lock when the process was forked will never give it back.
    let inner = scene.link.inner.clone();
    let locks = (
        lock(&inner.intake),
        lock(&inner.requests),
        lock(&inner.channels),
    );
    let link = &scene.link;
    let forked = Err(LinkError::Forked);
    assert_eq!(
        link.publish(&topic("a"), &json("1"), true, Answer::Wanted),
        forked
    );
    assert_eq!(link.subscribe(&filter("a"), Answer::Wanted), forked);
    assert_eq!(link.maybe_subscribe("a"), forked);
    assert_eq!(link.maybe_unsubscribe("a"), forked);
    assert_eq!(link.watch(Watch::LOG, Answer::Wanted), forked);
    assert_eq!(link.reply(RequestId(1), json("1")), Err(LinkError::Forked));
    assert_eq!(link.close(), Err(LinkError::Forked));
    assert_eq!(link.client(), None);
    assert_eq!(link.drain(&mut Vec::new(), 1), 0);
    let Scene { link, mut far, .. } = scene;
    drop(link);
    drop(locks);
    drop(inner);
    assert!(!far.is_closed());
    assert_eq!(far.take(&mut Vec::new()), 0);
}

#[test]
fn after_the_last_event_nobody_waits() {
    let scene = Scene::new();
    let link = scene.link;
    drop(scene.far);
    assert!(matches!(link.next(None), Some(Event::Stopped)));
    // For ever, if there were anything to wait for.
    assert!(link.next(None).is_none() && link.wait(None));
    assert_eq!(link.drain(&mut Vec::new(), 1), 0);
}
