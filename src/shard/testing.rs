//! A house for the unit tests: shards driven by hand. Bytes in, frames out, the clock a number, and lanes that are
//! carried over as the event loop would, unless a test holds them up.
//!
//! After every turn it asserts what must hold whatever happened: every byte and delivery is accounted for, and
//! nothing waits that nobody will look at again.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::address::{ClientId, RemoteAddress, SessionId, ShardId};
use crate::limits::{FEED_BYTES_MAX, Limits, MIB, RING_BYTES_MAX, RING_ENTRIES_MAX};
use crate::protocol::clusterws::{Dialect, Generation};
use crate::topic::Filter;
use crate::ws::frame::Opcode;
use crate::ws::origin::OriginRules;

use super::parcel::{Key, Parcel};
use super::peer::TokenChange;
use super::session::{Since, State};
use super::settings::{ListenerSettings, Settings};
use super::{Arriving, Effect, Ending, Now, Shard};

pub const HEAD: &str = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The listeners of peers from outside, and of Links.
pub const PEERS: u16 = 4;
pub const LINKS: u16 = 5;

/// A client: its shard and its session there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Who {
    pub shard: usize,
    pub id: SessionId,
}

/// The far end of a connection.
#[derive(Default, Debug)]
struct Wire {
    /// What came out, and has not been looked at.
    received: Vec<u8>,
    /// What is in flight to a client that does not read.
    flight: Option<Vec<u8>>,
    reads: bool,
    is_paused: bool,
    is_shut: bool,
    /// Closed, by a reset?
    closed: Option<bool>,
}

#[derive(Debug)]
enum Input {
    Bytes(SessionId, Vec<u8>),
    Sent(SessionId),
    Ended(SessionId, Ending),
    Seating(SessionId, bool, Option<Arc<Arriving>>),
}

pub struct House {
    pub shards: Vec<Shard>,
    pub now: Now,
    /// Handed over: session, to, bytes.
    pub handed_over: Vec<(Who, ShardId, Vec<u8>)>,
    /// Connections that were let go to the host of a Link, with all that came.
    pub released: Vec<(Who, (ShardId, SessionId), Vec<u8>)>,
    /// Sessions that asked for a seat, and for which address.
    pub seats_asked: Vec<(Who, IpAddr)>,
    /// What the edge would keep.
    pub token_changes: Vec<TokenChange>,
    /// Seats that are left, for whatever address.
    pub seats: usize,
    wires: HashMap<Who, Wire>,
    inputs: Vec<Vec<Input>>,
    /// What is in the ring `[to]`, with its sender.
    rings: Vec<VecDeque<(ShardId, Parcel)>>,
    /// Lanes that have no room: from, to.
    full: Vec<(usize, usize)>,
    free: Vec<Vec<u32>>,
    slots: Vec<u32>,
    generation: u32,
}

/// What shards are told here, unless a test says otherwise.
pub fn settings(shards: usize) -> Settings {
    let listener = ListenerSettings {
        native: true,
        http: true,
        client_services: true,
        clusterws: Some(Dialect::new(Generation::Three, false)),
        clusterws_path: "/clusterws".to_owned(),
        origins: OriginRules::new(&["*".to_owned()], false).unwrap(),
        ..ListenerSettings::default()
    };
    let resp = ListenerSettings {
        resp: true,
        ..ListenerSettings::default()
    };
    let resp_dealt = ListenerSettings {
        dealt: true,
        ..resp.clone()
    };
    let dealt = ListenerSettings {
        native_path: Some("/ws".to_owned()),
        client_services: false,
        dealt: true,
        ..listener.clone()
    };
    let peers = ListenerSettings {
        peers: true,
        ..ListenerSettings::default()
    };
    let links = ListenerSettings {
        in_process: true,
        ..peers.clone()
    };
    let limits = Limits {
        outbox_total_bytes_max: 1024 * MIB,
        ..Limits::default()
    };
    Settings {
        broker: 7,
        server_limits: limits.for_servers(&Limits::of_servers()),
        listeners: vec![listener, dealt, resp, resp_dealt, peers, links],
        ..Settings::plain(shards, limits)
    }
}

impl House {
    pub fn new(shards: usize) -> House {
        House::with(shards, |_| {})
    }

    pub fn with(shards: usize, change: impl FnOnce(&mut Settings)) -> House {
        let mut settings = settings(shards);
        change(&mut settings);
        let settings = Arc::new(settings);
        let now = Now {
            ms: 1_000_000,
            unix_ms: 1_500_000_000_000,
        };
        House {
            shards: (0..shards)
                .map(|index| Shard::new(ShardId(index as u8), settings.clone(), now))
                .collect(),
            now,
            handed_over: Vec::new(),
            released: Vec::new(),
            seats_asked: Vec::new(),
            token_changes: Vec::new(),
            seats: usize::MAX,
            wires: HashMap::new(),
            inputs: (0..shards).map(|_| Vec::new()).collect(),
            rings: (0..shards).map(|_| VecDeque::new()).collect(),
            full: Vec::new(),
            free: vec![Vec::new(); shards],
            slots: vec![0; shards],
            generation: 0,
        }
    }

    /// Accepts a connection that has said nothing yet.
    pub fn accept(&mut self, shard: usize, listener: u16, refused: bool) -> Who {
        self.accept_from(shard, listener, refused, RemoteAddress::known("tests:1"))
    }

    /// The same from this address.
    pub fn accept_from(
        &mut self,
        shard: usize,
        listener: u16,
        refused: bool,
        address: RemoteAddress,
    ) -> Who {
        let who = self.name(shard);
        self.begin(shard);
        self.shards[shard].accept(who.id, listener, address, refused);
        self.finish_turn(shard);
        who
    }

    /// Takes a connection that another shard handed over.
    pub fn adopt(&mut self, shard: usize, listener: u16) -> Who {
        self.adopt_from(shard, listener, RemoteAddress::known("tests:1"))
    }

    /// The same of this address.
    pub fn adopt_from(&mut self, shard: usize, listener: u16, address: RemoteAddress) -> Who {
        let who = self.name(shard);
        self.begin(shard);
        self.shards[shard].adopt(who.id, listener, address);
        self.finish_turn(shard);
        who
    }

    fn name(&mut self, shard: usize) -> Who {
        let slot = self.free[shard].pop().unwrap_or_else(|| {
            self.slots[shard] += 1;
            self.slots[shard] - 1
        });
        self.generation += 1;
        let generation = self.generation;
        let who = Who {
            shard,
            id: SessionId { slot, generation },
        };
        let wire = Wire {
            reads: true,
            ..Wire::default()
        };
        self.wires.insert(who, wire);
        who
    }

    /// A client that is through its handshake.
    pub fn connect(&mut self, shard: usize) -> Who {
        let who = self.accept(shard, 0, false);
        self.bytes(who, HEAD.as_bytes());
        self.turn(shard);
        assert!(self.head(who).starts_with("HTTP/1.1 101 "));
        who
    }

    /// Bytes of a client, for its shard's next turn; those of one turn come in one piece.
    pub fn bytes(&mut self, who: Who, bytes: &[u8]) {
        let inputs = &mut self.inputs[who.shard];
        match inputs.last_mut() {
            Some(Input::Bytes(id, before)) if *id == who.id => before.extend_from_slice(bytes),
            _ => inputs.push(Input::Bytes(who.id, bytes.to_vec())),
        }
    }

    /// A text message, for the next turn.
    pub fn send(&mut self, who: Who, text: &str) {
        self.bytes(who, &frame(Opcode::Text, text.as_bytes()));
    }

    /// A text message, its turn, and what the client was told since.
    pub fn ask(&mut self, who: Who, text: &str) -> Vec<String> {
        self.send(who, text);
        self.settle();
        self.read(who)
    }

    pub fn subscribe(&mut self, who: Who, topic: &str) {
        let told = self.ask(who, &format!(r#"{{"type":"subscribe","topic":"{topic}"}}"#));
        let ack = told.last().expect("an ack");
        assert!(ack.contains(r#""action":"subscribe""#), "{ack}");
    }

    pub fn end(&mut self, who: Who, ending: Ending) {
        self.inputs[who.shard].push(Input::Ended(who.id, ending));
    }

    /// What others call a client.
    pub fn client_id(&self, who: Who) -> ClientId {
        self.shards[who.shard].client_id(who.id)
    }

    /// The client reads no more: the next send stays in flight.
    pub fn stop_reading(&mut self, who: Who) {
        self.wire(who).reads = false;
    }

    /// It reads what is in flight, and from now on.
    pub fn read_on(&mut self, who: Who) {
        self.wire(who).reads = true;
        self.gulp(who);
    }

    /// It reads what is in flight, and no more.
    pub fn gulp(&mut self, who: Who) {
        let wire = self.wire(who);
        if let Some(flight) = wire.flight.take() {
            wire.received.extend(flight);
            self.inputs[who.shard].push(Input::Sent(who.id));
        }
    }

    fn wire(&mut self, who: Who) -> &mut Wire {
        self.wires.get_mut(&who).unwrap()
    }

    /// The bytes up to the first empty line, and the body if it is no upgrade.
    pub fn head(&mut self, who: Who) -> String {
        let received = &mut self.wire(who).received;
        let end = received
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .map_or(0, |at| at + 4);
        let end = if received.starts_with(b"HTTP/1.1 101") {
            end
        } else {
            received.len()
        };
        String::from_utf8(received.drain(..end).collect()).unwrap()
    }

    /// The messages that came: texts as they are, others as `binary x`, `close 1001 going away`, `ping`, `pong x`.
    pub fn read(&mut self, who: Who) -> Vec<String> {
        let received = std::mem::take(&mut self.wire(who).received);
        let (told, rest) = messages(&received);
        self.wire(who).received = received[received.len() - rest..].to_vec();
        told
    }

    /// They have not been looked at yet.
    pub fn unread(&mut self, who: Who, bytes: &[u8]) {
        self.wire(who).received = bytes.to_vec();
    }

    /// The bytes that came.
    pub fn raw(&mut self, who: Who) -> Vec<u8> {
        std::mem::take(&mut self.wire(who).received)
    }

    pub fn is_paused(&self, who: Who) -> bool {
        self.wires[&who].is_paused
    }

    pub fn is_shut(&self, who: Who) -> bool {
        self.wires[&who].is_shut
    }

    /// `Some(reset)` when the connection is closed.
    pub fn closed(&self, who: Who) -> Option<bool> {
        self.wires[&who].closed
    }

    pub fn in_flight(&self, who: Who) -> usize {
        self.wires[&who].flight.as_ref().map_or(0, Vec::len)
    }

    pub fn session(&mut self, who: Who) -> &mut super::session::Session {
        let found = self.shards[who.shard].sessions.find(who.id);
        found.expect("the session is there")
    }

    /// Is there a session that is open?
    pub fn session_is_open(&mut self, who: Who) -> bool {
        let found = self.shards[who.shard].sessions.find(who.id);
        found.is_some_and(|session| session.is_open())
    }

    /// The ring from one shard to another has no room from now on.
    pub fn fill(&mut self, from: usize, to: usize) {
        self.full.push((from, to));
    }

    pub fn unfill(&mut self, from: usize, to: usize) {
        self.full.retain(|lane| *lane != (from, to));
    }

    pub fn pass(&mut self, ms: u64) {
        self.now.ms += ms;
        self.now.unix_ms += ms;
    }

    /// The clock goes to a shard's next deadline, and the shard takes its turn.
    pub fn pass_to_deadline(&mut self, shard: usize) {
        let at = self.shards[shard].next_deadline_ms().expect("a deadline");
        self.pass(at.saturating_sub(self.now.ms));
        self.turn(shard);
    }

    /// Is a request on its way to this shard?
    pub fn rings_hold_ask(&self, to: usize) -> bool {
        let mut parcels = self.rings[to].iter();
        parcels.any(|(_, parcel)| matches!(parcel, Parcel::Ask { .. }))
    }

    /// One turn of a shard whose rings are slow: it hears nothing from the others.
    pub fn turn_without_news(&mut self, shard: usize) {
        let later = std::mem::take(&mut self.rings[shard]);
        self.turn(shard);
        self.rings[shard].extend(later);
    }

    /// One turn of a shard.
    pub fn turn(&mut self, shard: usize) {
        self.begin(shard);
        for input in std::mem::take(&mut self.inputs[shard]) {
            let shard = &mut self.shards[shard];
            match input {
                Input::Bytes(id, mut bytes) => shard.receive(id, &mut bytes),
                Input::Sent(id) => shard.sent(id),
                Input::Ended(id, ending) => shard.ended(id, ending),
                Input::Seating(id, true, host) => shard.seated(id, host),
                Input::Seating(id, false, _) => shard.refuse_address(id),
            }
        }
        self.finish_turn(shard);
    }

    /// Steps 1 and 2, and what comes before the input in step 3.
    pub fn begin(&mut self, shard: usize) {
        let now = self.now;
        let parcels = std::mem::take(&mut self.rings[shard]);
        let this = &mut self.shards[shard];
        this.begin_turn(now);
        for (from, parcel) in parcels {
            this.take_parcel(from, parcel);
        }
        self.open_lanes(shard);
        self.shards[shard].resume();
    }

    fn open_lanes(&mut self, shard: usize) {
        for to in (0..self.shards.len()).filter(|to| *to != shard) {
            let (entries, bytes) = match self.full.contains(&(shard, to)) {
                true => (0, 0),
                false => (RING_ENTRIES_MAX, RING_BYTES_MAX),
            };
            let lane = self.shards[shard].lanes().to(ShardId(to as u8));
            lane.set_room(entries, bytes, entries > 0);
        }
    }

    /// The timers, and step 4.
    pub fn finish_turn(&mut self, shard: usize) {
        self.shards[shard].fire_timers();
        self.carry(shard);
        loop {
            let dirty = self.shards[shard].take_dirty();
            if dirty.is_empty() {
                break;
            }
            for id in dirty {
                self.flush(Who { shard, id });
            }
            self.shards[shard].end_turn();
        }
        for effect in self.shards[shard].take_effects() {
            self.obey(shard, effect);
        }
        self.carry(shard);
        self.check(shard);
    }

    fn carry(&mut self, shard: usize) {
        for to in (0..self.shards.len()).filter(|to| *to != shard) {
            let lane = self.shards[shard].lanes().to(ShardId(to as u8));
            let parcels: Vec<_> = lane.drain().collect();
            let from = ShardId(shard as u8);
            self.rings[to].extend(parcels.into_iter().map(|parcel| (from, parcel)));
        }
        self.open_lanes(shard);
    }

    fn flush(&mut self, who: Who) {
        let shard = &mut self.shards[who.shard];
        while let Some(chunks) = shard.transmit(who.id) {
            let bytes = chunks.concat();
            let wire = self.wires.get_mut(&who).unwrap();
            assert!(!wire.is_shut, "words after the last words");
            assert!(wire.flight.is_none(), "two sends in flight");
            if !wire.reads {
                wire.flight = Some(bytes);
                break;
            }
            wire.received.extend(bytes);
            shard.sent(who.id);
        }
        shard.flushed(who.id);
    }

    fn obey(&mut self, shard: usize, effect: Effect) {
        let who = |id| Who { shard, id };
        match effect {
            Effect::PauseReading(id) => self.wire(who(id)).is_paused = true,
            Effect::ResumeReading(id) => self.wire(who(id)).is_paused = false,
            Effect::ShutdownWrite(id) => self.wire(who(id)).is_shut = true,
            Effect::Close { session, reset } => {
                let wire = self.wire(who(session));
                assert_eq!(wire.closed, None, "closed once");
                wire.closed = Some(reset);
                self.free[shard].push(session.slot);
            }
            Effect::HandOver {
                session, to, bytes, ..
            } => {
                self.free[shard].push(session.slot);
                self.handed_over.push((who(session), to, bytes));
            }
            Effect::Release {
                session, to, bytes, ..
            } => {
                self.free[shard].push(session.slot);
                self.released.push((who(session), to, bytes));
            }
            Effect::AskSeat { session, ip, host } => {
                let who = who(session);
                self.seats_asked.push((who, ip));
                let is_seated = self.seats > 0;
                self.seats -= usize::from(is_seated);
                self.inputs[shard].push(Input::Seating(session, is_seated, host));
            }
            Effect::Tokens(change) => self.token_changes.push(change),
        }
    }

    /// Turns until nobody has anything to do but to wait for a client, a full ring, or the clock.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let is_busy = |house: &House, shard: usize| {
                !house.inputs[shard].is_empty()
                    || !house.rings[shard].is_empty()
                    || house.shards[shard].has_work()
            };
            let mut quiet = true;
            for shard in 0..self.shards.len() {
                // Whoever waits for room tries again each turn.
                if is_busy(self, shard) || self.shards[shard].is_restless() {
                    quiet &= !is_busy(self, shard);
                    self.turn(shard);
                    quiet &= !is_busy(self, shard);
                }
            }
            quiet &= self.rings.iter().all(VecDeque::is_empty);
            if quiet {
                return;
            }
        }
        panic!("the shards never come to rest: something spins");
    }

    /// What holds after every turn.
    fn check(&mut self, index: usize) {
        let shard = &mut self.shards[index];
        let stats = shard.stats();
        let charged: usize = shard.sessions.iter().map(|one| one.outbox.charged()).sum();
        assert_eq!(shard.outbox_bytes, charged, "every byte is charged");
        let waiting: u64 = shard
            .sessions
            .iter()
            .map(|one| one.outbox.deliveries())
            .sum();
        assert_eq!(
            stats.deliveries_due,
            stats.delivered + stats.announced + waiting,
            "every delivery is accounted for"
        );
        let mut interest: HashMap<Key, usize> = HashMap::new();
        let (mut subscriptions, mut clogged) = (0, 0);
        for session in shard.sessions.iter() {
            let is_stalled =
                session.stall.is_some() && !matches!(session.state, State::Admission { .. });
            assert!(
                !is_stalled
                    || session.is_resuming && shard.resuming.contains(&session.id)
                    || session
                        .stall
                        .as_ref()
                        .is_some_and(|stall| stall.until != Since::NEVER || stall.clog.is_some())
                    || session.outbox.reply_bytes() >= session.replies_bytes_max(&shard.settings),
                "a stalled session is tried again: {session:?}"
            );
            assert!(
                session.outbox.is_in_flight()
                    || !session.outbox.has_waiting()
                    || session.is_dirty && shard.dirty.contains(&session.id),
                "what waits is sent: {session:?}"
            );
            assert_eq!(
                self.wires[&Who {
                    shard: index,
                    id: session.id
                }]
                    .is_paused,
                session.is_paused
            );
            let (due_ms, due) = session.deadline(&shard.settings);
            assert!(
                session.timer_ms <= due_ms,
                "a deadline has a timer: {due:?} {session:?}"
            );
            subscriptions += session.subscriptions.len();
            let held = session.stall.iter().flat_map(|stall| &stall.subscribes);
            let active = session.subscriptions.iter().map(|(filter, _)| filter);
            let active = active.map(|id| shard.subscriptions.filter(id).clone());
            for filter in held.map(|(filter, _)| filter.clone()).chain(active) {
                *interest.entry(Key::Filter(filter)).or_default() += 1;
            }
            let events = session.serving.iter().flat_map(|serving| &serving.events);
            for event in events {
                *interest.entry(Key::Service(event.clone())).or_default() += 1;
                let kind = match &session.peer {
                    Some(peer) if peer.is_in_process => Some(Key::Master(event.clone())),
                    Some(_) => Some(Key::AnyPeer(event.clone())),
                    None => None,
                };
                if let Some(key) = kind {
                    *interest.entry(key).or_default() += 1;
                }
            }
            if session.is_ending() {
                assert!(session.subscriptions.is_empty() && session.serving.is_none());
                assert!(session.hosted.is_none());
            }
            let rooms = session.hosted.iter().flat_map(|hosted| hosted.rooms.iter());
            for (room, _) in rooms {
                let room = shard.subscriptions.filter(room).clone();
                assert!(matches!(room, Filter::Room(_)));
                *interest.entry(Key::Filter(room)).or_default() += 1;
                subscriptions += 1;
            }
            if let Some(peer) = &session.peer {
                let key = |watch| Key::Host(session.id, watch);
                interest.extend(peer.hosting.announced.map(|watch| (key(watch), 1)));
                if peer.hosting.announced.is_some() {
                    let events = session.serving.iter().flat_map(|serving| &serving.events);
                    let key = |event: &Bytes| Key::HostEvent(session.id, event.clone());
                    interest.extend(events.map(|event| (key(event), 1)));
                }
                if peer.hosting.is_behind {
                    interest.insert(Key::Behind(session.id, peer.name.clone()), 1);
                }
                let charged = session.outbox.charged();
                assert!(
                    charged <= FEED_BYTES_MAX || peer.hosting.is_behind || session.is_ending(),
                    "{charged} bytes wait, and clients go on"
                );
            }
            if let Some(stall) = &session.stall
                && let Some(clog) = &stall.clog
            {
                let is_listed = shard.feeds.has(clog, stall.place, session.id);
                assert!(is_listed, "it will be woken");
                clogged += 1;
            }
        }
        assert_eq!(shard.feeds.waiting(), clogged);
        for (event, handlers) in &shard.handlers {
            let keys = handlers.clogged.iter();
            interest.extend(keys.map(|of| (Key::Clogged(of.clone(), event.clone()), 1)));
        }
        for name in shard.peers.names() {
            interest.insert(Key::Peer(name.clone()), 1);
        }
        let tokens = shard.interest.count(&Key::Tokens);
        if tokens > 0 {
            interest.insert(Key::Tokens, tokens);
        }
        for (key, count) in &interest {
            assert_eq!(shard.interest.count(key), *count, "{key:?}");
        }
        assert_eq!(shard.interest.iter().count(), interest.len());
        if subscriptions == 0 {
            assert!(shard.subscriptions.is_empty());
        }
        shard.requests.check(&shard.sessions);
    }

    /// Everything that sessions leave behind has gone with them.
    pub fn check_empty(&mut self, index: usize) {
        self.check(index);
        let shard = &self.shards[index];
        assert_eq!(shard.connections(), 0);
        assert_eq!(shard.outbox_bytes, 0);
        assert!(shard.subscriptions.is_empty() && shard.handlers.is_empty());
        assert_eq!(shard.interest.iter().count(), 0);
        assert_eq!(shard.stats().requests_pending, 0);
    }
}

/// One frame of a client, masked with zeros.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode.bits()];
    match payload.len() {
        size @ 0..126 => frame.push(0x80 | size as u8),
        size @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((size as u16).to_be_bytes());
        }
        size => {
            frame.push(0x80 | 127);
            frame.extend((size as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// The whole messages at the front of what a server sent, and how many bytes are left.
fn messages(mut bytes: &[u8]) -> (Vec<String>, usize) {
    let mut told = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        let (size, rest) = match (second, rest) {
            (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
            (127, rest) if rest.len() >= 8 => {
                let (size, rest) = rest.split_at(8);
                (u64::from_be_bytes(size.try_into().unwrap()) as usize, rest)
            }
            (size @ 0..126, rest) => (usize::from(*size), rest),
            _ => break,
        };
        if rest.len() < size {
            break;
        }
        let (payload, rest) = rest.split_at(size);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        told.push(match Opcode::from_bits(first & 0x0f).unwrap() {
            Opcode::Text => text(payload),
            Opcode::Binary => format!("binary {}", text(payload)),
            Opcode::Ping => "ping".to_owned(),
            Opcode::Pong => format!("pong {}", text(payload)),
            Opcode::Close => match payload {
                [a, b, reason @ ..] => {
                    format!("close {} {}", u16::from_be_bytes([*a, *b]), text(reason))
                }
                _ => "close".to_owned(),
            },
            other => panic!("a server sends no {other:?}"),
        });
        bytes = rest;
    }
    (told, bytes.len())
}

/// A publish of a message of this many bytes.
pub fn publish(topic: &str, size: usize) -> String {
    let message = "m".repeat(size);
    format!(r#"{{"type":"publish","topic":"{topic}","message":"{message}"}}"#)
}

/// What the messages are, in short: the type, and where there is one the action, code, context or tag.
pub fn brief(told: &[String]) -> Vec<String> {
    told.iter()
        .map(
            |text| match serde_json::from_str::<serde_json::Value>(text) {
                Err(_) => text.clone(),
                Ok(value) => {
                    let words = ["type", "action", "code", "context", "count", "id"]
                        .iter()
                        .filter_map(|key| match &value[key] {
                            serde_json::Value::Null => None,
                            serde_json::Value::String(text) => Some(text.clone()),
                            other => Some(other.to_string()),
                        });
                    let code = value["error"]["code"].as_str().map(str::to_owned);
                    words.chain(code).collect::<Vec<_>>().join(" ")
                }
            },
        )
        .collect()
}

/// A name, as bytes of its own.
pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
