//! Some shards, the rings between them and their clients, turned by hand: the event loop without sockets, clocks
//! and threads.
//!
//! A shard's turn is the order of `net::event_loop`: take, drain, route, flush. What delays a parcel is that the
//! shard it is for does not turn. After each turn the invariants are asserted that hold at any time.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use pubsub::address::{ClientId, RemoteAddress, SessionId, ShardId};
use pubsub::limits::{OUTBOX_ENTRY_BYTES, RING_BYTES_MAX, RING_ENTRIES_MAX, SEND_BYTES_MAX};
use pubsub::message::Payload;
use pubsub::secret::Secret;
use pubsub::shard::auth::Access;
use pubsub::shard::parcel::Parcel;
use pubsub::shard::settings::Settings;
use pubsub::shard::{Credentials, Effect, Ending, Now, Shard};
use pubsub::topic::Topic;

use super::received::{self, News, Received, Series, Speech};
use super::speakers::{Known, Way};
use super::values::Answer;

/// When the clocks start (ms since 1970).
const UNIX_MS: u64 = 1_518_741_097_123;

/// One connection, as its client and its driver see it.
pub struct Client {
    /// Never the same for two connections.
    pub number: u64,
    listener: u16,
    /// Nobody's while it is handed over.
    pub place: Option<(usize, SessionId)>,
    /// Has the shard let the driver read?
    is_reading: bool,
    /// Sent by the client and not taken yet.
    unread: Vec<u8>,
    /// Will it send nothing more?
    has_ended: bool,
    /// How, as long as the shard does not know.
    ending: Option<Ending>,
    is_failed: bool,
    /// Does it take what is sent at once?
    pub is_fast: bool,
    in_flight: Option<Vec<Bytes>>,
    is_shut_down: bool,
    pub received: Received,
    /// The requests that it was asked.
    pub asked: VecDeque<u64>,
    /// What it knows from what it has said.
    pub known: Known,
    /// Sent bytes that are no whole frames: nobody knows what it says from then on.
    pub is_wild: bool,
    /// The last number of each of its series.
    pub series: HashMap<Series, u64>,
    /// By publish id, until its ack: what it is and who has to get it.
    pub unacked: HashMap<u64, (Series, u64, Vec<Due>)>,
}

/// Whom a publication is due: the client's number, the filter, the number of the stay.
type Due = (u64, String, u64);

/// What a shard's next turn is to route.
enum Taken {
    Accepted {
        session: SessionId,
        listener: u16,
        refused: bool,
    },
    Received {
        session: SessionId,
        bytes: Vec<u8>,
    },
    Sent(SessionId),
    Ended(SessionId, Ending),
    Publish(Topic, Payload),
    Quiesce,
    CloseAll(u64),
}

/// What waits between two shards, and how much may.
struct Ring {
    parcels: VecDeque<Parcel>,
    bytes: usize,
    entries_max: usize,
    bytes_max: usize,
}

/// Everything.
pub struct World {
    pub settings: Arc<Settings>,
    pub shards: Vec<Shard>,
    /// By source, then target.
    rings: Vec<Vec<Ring>>,
    inputs: Vec<Vec<Taken>>,
    /// Connections that were handed over, by the client's index.
    arrivals: Vec<Vec<(usize, u16, Vec<u8>)>>,
    /// The next generation of each slot, and whether it is taken.
    slots: Vec<Vec<(u32, bool)>>,
    pub clients: Vec<Option<Client>>,
    /// Clients that want to come in: the peer that was asked, its number, and the client.
    pub asked: VecDeque<(usize, u64, ClientId)>,
    now_ms: u64,
    next_number: u64,
    deliveries: u64,
    /// Acked publications that somebody has to have got in the end.
    dues: Vec<(Due, Series, u64)>,
    is_quiet: bool,
    /// Do Redis clients need one?
    pub has_password: bool,
}

impl World {
    pub fn new(settings: Settings, password: Option<Secret>, clients: usize) -> World {
        let settings = Arc::new(settings);
        let count = settings.shards;
        let now = Now {
            ms: 0,
            unix_ms: UNIX_MS,
        };
        let has_password = password.is_some();
        let credentials = Arc::new(Credentials {
            resp_password: password,
            ..Credentials::default()
        });
        let ring = || Ring {
            parcels: VecDeque::new(),
            bytes: 0,
            entries_max: RING_ENTRIES_MAX,
            bytes_max: RING_BYTES_MAX,
        };
        World {
            shards: (0..count)
                .map(|index| {
                    let mut shard = Shard::new(ShardId(index as u8), settings.clone(), now);
                    shard.set_credentials(credentials.clone());
                    shard
                })
                .collect(),
            rings: (0..count)
                .map(|_| (0..count).map(|_| ring()).collect())
                .collect(),
            inputs: (0..count).map(|_| Vec::new()).collect(),
            arrivals: vec![Vec::new(); count],
            slots: vec![Vec::new(); count],
            clients: (0..clients).map(|_| None).collect(),
            asked: VecDeque::new(),
            now_ms: 0,
            next_number: 0,
            deliveries: 0,
            dues: Vec::new(),
            is_quiet: false,
            has_password,
            settings,
        }
    }

    // What happens to the world: for the next turns.

    /// A new connection that speaks this, unless this client has one.
    pub fn connect(&mut self, index: usize, listener: u16, refused: bool, speech: Speech) {
        if self.clients[index].is_some() || self.is_quiet {
            return;
        }
        let shard = index % self.shards.len();
        let session = self.new_session(shard);
        self.next_number += 1;
        let mut received = Received::default();
        received.speech = speech;
        let known = Known {
            is_authenticated: !self.has_password,
            ..Known::default()
        };
        self.clients[index] = Some(Client {
            number: self.next_number,
            listener,
            place: Some((shard, session)),
            is_reading: true,
            unread: Vec::new(),
            has_ended: false,
            ending: None,
            is_failed: false,
            is_fast: true,
            in_flight: None,
            is_shut_down: false,
            received,
            asked: VecDeque::new(),
            known,
            is_wild: false,
            series: HashMap::new(),
            unacked: HashMap::new(),
        });
        self.inputs[shard].push(Taken::Accepted {
            session,
            listener,
            refused,
        });
        let has_rules = self.settings.access != Access::default();
        if has_rules && !self.is_native(index) && !self.is_peer(index) {
            // What is refused then is not told in all protocols.
            self.run_wild(index);
        }
    }

    /// Does this client speak the native protocol?
    pub fn is_native(&self, index: usize) -> bool {
        let client = self.clients[index].as_ref();
        client.is_some_and(|client| matches!(client.received.speech, Speech::Native))
    }

    /// Is this client a peer?
    pub fn is_peer(&self, index: usize) -> bool {
        matches!(self.speech(index), Some(Speech::Peer(_)))
    }

    /// What a client speaks, if it is there.
    pub fn speech(&self, index: usize) -> Option<&Speech> {
        let client = self.clients[index].as_ref()?;
        Some(&client.received.speech)
    }

    /// From now on nobody knows what a client says.
    pub fn run_wild(&mut self, index: usize) {
        if let Some(client) = &mut self.clients[index] {
            client.is_wild = true;
            if let Speech::Resp(values) = &mut client.received.speech {
                values.is_lenient = true;
            }
        }
    }

    /// The client sends bytes.
    pub fn send(&mut self, index: usize, bytes: &[u8]) {
        if let Some(client) = &mut self.clients[index]
            && !client.has_ended
        {
            client.unread.extend_from_slice(bytes);
        }
    }

    /// The client sends a publication that its subscribers can count.
    pub fn publish(&mut self, index: usize, topic: &str, echo: bool, padding: usize) {
        let Some(client) = self.clients[index]
            .as_ref()
            .filter(|client| !client.is_wild)
        else {
            return;
        };
        let from = client.number;
        // Others leave nobody out, and RESP has a space of names that only it sees.
        let is_shard = !echo && matches!(client.received.speech, Speech::Resp(_));
        let echo = echo || !self.is_native(index) && !self.is_peer(index);
        let way = self.way_of(index, topic, is_shard);
        if let Some(Way::Plain(bytes)) = &way {
            return self.send(index, bytes);
        }
        let topic = if is_shard {
            format!("shard {topic}")
        } else {
            format!("\"{topic}\"")
        };
        let series: Series = (from, topic, echo);
        let topic = received::topic_of(&series);
        // Whoever has its ack now has to get this, if this is acked.
        let mut dues = Vec::new();
        for other in self.clients.iter().flatten() {
            for (filter, stay) in &other.received.stays {
                let filter_of = received::filter_of(filter);
                if filter_of.matches(&topic) && (echo || other.number != from) {
                    dues.push((other.number, filter.clone(), stay.number));
                }
            }
        }
        self.next_number += 1;
        let id = self.next_number;
        let client = self.clients[index].as_mut().expect("seen above");
        let number = client.series.entry(series.clone()).or_default();
        *number += 1;
        let message = received::numbered(&series, *number, padding);
        let is_large = message.len() > self.settings.limits.message_bytes_max;
        let bytes = match (way, &mut client.received.speech) {
            (Some(Way::Numbered(before, after)), Speech::Resp(values)) => {
                values.expected.push_back(Answer::Receivers(id));
                let size = format!("${}\r\n", message.len()).into_bytes();
                [before, size, message.into_bytes(), after].concat()
            }
            (Some(Way::Numbered(..)), Speech::Peer(calls)) => {
                calls.publication(&series, message, id)
            }
            (Some(Way::Numbered(before, after)), _) => {
                frame(0x81, &[before, message.into_bytes(), after].concat())
            }
            (None | Some(Way::Plain(_)), _) => {
                let text = received::publication(&series, *number, id, padding);
                frame(0x81, text.as_bytes())
            }
        };
        client.unacked.insert(id, (series, *number, dues));
        self.send(index, &bytes);
        if is_large && !self.is_native(index) {
            // It will be closed for it, or not hear of it.
            self.run_wild(index);
        }
    }

    /// The client stops to send, or is gone.
    pub fn end(&mut self, index: usize, ending: Ending) {
        if let Some(client) = &mut self.clients[index]
            && !client.is_failed
        {
            client.has_ended = true;
            client.is_failed = ending == Ending::Failed;
            client.ending = Some(ending);
        }
    }

    /// The client takes what is in flight.
    pub fn read(&mut self, index: usize) {
        let Some(client) = &mut self.clients[index] else {
            return;
        };
        if client.is_failed {
            return;
        }
        if let (Some((shard, session)), Some(chunks)) = (client.place, client.in_flight.take()) {
            self.hear(index, &chunks);
            self.inputs[shard].push(Taken::Sent(session));
        }
    }

    pub fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
    }

    pub fn publish_as_host(&mut self, shard: usize, topic: &str, payload: Bytes) {
        let topic = Topic::dotted(Bytes::copy_from_slice(topic.as_bytes())).expect("a topic");
        let shard = shard % self.shards.len();
        self.inputs[shard].push(Taken::Publish(topic, Payload::untyped(payload)));
    }

    pub fn quiesce(&mut self) {
        self.is_quiet = true;
        for inputs in &mut self.inputs {
            inputs.push(Taken::Quiesce);
        }
    }

    pub fn close_all(&mut self, spread_ms: u64) {
        for inputs in &mut self.inputs {
            inputs.push(Taken::CloseAll(spread_ms));
        }
    }

    /// Bounds the ring between two shards from now on.
    pub fn bound(&mut self, source: usize, target: usize, entries_max: usize, bytes_max: usize) {
        let count = self.shards.len();
        let ring = &mut self.rings[source % count][target % count];
        (ring.entries_max, ring.bytes_max) = (entries_max, bytes_max);
        // Real rings get no smaller; what a shard drains may make it say something by the room that it knew.
        self.open_lanes(source % count);
    }

    fn unbound(&mut self) {
        for ring in self.rings.iter_mut().flatten() {
            (ring.entries_max, ring.bytes_max) = (RING_ENTRIES_MAX, RING_BYTES_MAX);
        }
    }

    // The turn.

    /// One turn of every shard.
    pub fn turn_all(&mut self) {
        for shard in 0..self.shards.len() {
            self.turn(shard);
        }
    }

    /// One turn.
    pub fn turn(&mut self, at: usize) {
        self.take(at);
        let unix_ms = UNIX_MS + self.now_ms;
        self.shards[at].begin_turn(Now {
            ms: self.now_ms,
            unix_ms,
        });
        for (index, listener, bytes) in mem::take(&mut self.arrivals[at]) {
            let session = self.new_session(at);
            self.shards[at].adopt(session, listener, RemoteAddress::default());
            if let Some(client) = &mut self.clients[index] {
                client.place = Some((at, session));
                client.is_reading = true;
            }
            self.inputs[at].push(Taken::Received { session, bytes });
        }
        for source in 0..self.shards.len() {
            let ring = &mut self.rings[source][at];
            ring.bytes = 0;
            for parcel in mem::take(&mut ring.parcels) {
                self.shards[at].take_parcel(ShardId(source as u8), parcel);
            }
        }
        self.open_lanes(at);
        self.shards[at].resume();
        for taken in mem::take(&mut self.inputs[at]) {
            self.route(at, taken);
        }
        self.shards[at].fire_timers();
        self.flush(at);
        self.check(at);
    }

    /// What the driver takes from the connections of this shard.
    fn take(&mut self, at: usize) {
        for client in self.clients.iter_mut().flatten() {
            let Some((_, session)) = client.place.filter(|place| place.0 == at) else {
                continue;
            };
            if client.is_reading && !client.is_failed && !client.unread.is_empty() {
                let size = client.unread.len().min(self.settings.limits.turn_bytes_max);
                let bytes = client.unread.drain(..size).collect();
                self.inputs[at].push(Taken::Received { session, bytes });
            }
            let is_seen = client.is_failed || client.is_reading && client.unread.is_empty();
            if is_seen && let Some(ending) = client.ending.take() {
                self.inputs[at].push(Taken::Ended(session, ending));
            }
        }
    }

    fn route(&mut self, at: usize, taken: Taken) {
        let shard = &mut self.shards[at];
        match taken {
            Taken::Accepted {
                session,
                listener,
                refused,
            } => {
                shard.accept(session, listener, RemoteAddress::default(), refused);
            }
            Taken::Received { session, mut bytes } => shard.receive(session, &mut bytes),
            Taken::Sent(session) => shard.sent(session),
            Taken::Ended(session, ending) => shard.ended(session, ending),
            // A full ring refuses it, whole.
            Taken::Publish(topic, payload) => drop(shard.publish_as_host(topic, payload)),
            Taken::Quiesce => shard.quiesce(),
            Taken::CloseAll(spread_ms) => shard.close_all(spread_ms),
        }
    }

    fn open_lanes(&mut self, at: usize) {
        for target in (0..self.shards.len()).filter(|target| *target != at) {
            let ring = &self.rings[at][target];
            let entries_left = ring.entries_max.saturating_sub(ring.parcels.len());
            let bytes_left = ring.bytes_max.saturating_sub(ring.bytes);
            let lane = self.shards[at].lanes().to(ShardId(target as u8));
            lane.set_room(entries_left, bytes_left, ring.parcels.is_empty());
        }
    }

    fn publish_lanes(&mut self, at: usize) {
        for target in (0..self.shards.len()).filter(|target| *target != at) {
            let parcels: Vec<Parcel> = self.shards[at]
                .lanes()
                .to(ShardId(target as u8))
                .drain()
                .collect();
            let ring = &mut self.rings[at][target];
            for parcel in parcels {
                let size = parcel.size();
                let fits =
                    ring.parcels.len() < ring.entries_max && ring.bytes + size <= ring.bytes_max;
                assert!(
                    fits || ring.parcels.is_empty(),
                    "a lane holds no more than its ring has room for"
                );
                ring.bytes += size;
                ring.parcels.push_back(parcel);
            }
        }
        self.open_lanes(at);
    }

    fn flush(&mut self, at: usize) {
        self.publish_lanes(at);
        let mut unfinished = Vec::new();
        loop {
            let dirty = self.shards[at].take_dirty();
            if dirty.is_empty() {
                break;
            }
            for session in dirty {
                if !self.flush_session(at, session) {
                    unfinished.push(session);
                }
            }
            self.shards[at].end_turn();
        }
        for session in unfinished {
            self.shards[at].touch(session);
        }
        self.carry_out(at);
        self.publish_lanes(at);
    }

    fn flush_session(&mut self, at: usize, session: SessionId) -> bool {
        let mut flushed = 0;
        let mut is_finished = true;
        while let Some(chunks) = self.shards[at].transmit(session) {
            let size: usize = chunks.iter().map(Bytes::len).sum();
            assert!(size <= SEND_BYTES_MAX, "a send of {size} bytes");
            flushed += size;
            let index = self.index_of(at, session);
            let client = self.clients[index].as_mut().expect("it has a session");
            assert!(!client.is_shut_down, "bytes after the last");
            if client.is_failed {
                self.shards[at].ended(session, Ending::Failed);
                break;
            }
            if !client.is_fast {
                assert!(client.in_flight.is_none(), "two sends at once");
                client.in_flight = Some(chunks.into_iter().collect());
                break;
            }
            self.hear(index, &chunks);
            self.shards[at].sent(session);
            if flushed >= 4 * SEND_BYTES_MAX {
                is_finished = false;
                break;
            }
        }
        self.shards[at].flushed(session);
        is_finished
    }

    fn carry_out(&mut self, at: usize) {
        for effect in self.shards[at].take_effects() {
            match effect {
                Effect::PauseReading(session) | Effect::ResumeReading(session) => {
                    let is_reading = matches!(effect, Effect::ResumeReading(_));
                    if let Some(index) = self.find(at, session)
                        && let Some(client) = &mut self.clients[index]
                    {
                        client.is_reading = is_reading;
                    }
                }
                Effect::ShutdownWrite(session) => {
                    let index = self.index_of(at, session);
                    let client = self.clients[index].as_mut().expect("it has a session");
                    client.is_shut_down = true;
                    let is_finished = client.received.is_finished();
                    assert!(is_finished, "shut down without last words");
                }
                // The host's, from then on.
                Effect::Close { session, .. } | Effect::Release { session, .. } => {
                    let index = self.index_of(at, session);
                    self.clients[index] = None;
                    self.slots[at][session.slot as usize].1 = false;
                }
                Effect::HandOver {
                    session,
                    to,
                    listener,
                    bytes,
                    ..
                } => {
                    let index = self.index_of(at, session);
                    self.slots[at][session.slot as usize].1 = false;
                    let client = self.clients[index].as_mut().expect("it has a session");
                    assert_eq!(client.listener, listener);
                    client.place = None;
                    if client.has_ended {
                        // A socket says it to whoever reads it next, too.
                        client.ending = Some(if client.is_failed {
                            Ending::Failed
                        } else {
                            Ending::EndOfInput
                        });
                    }
                    self.arrivals[to.index()].push((index, listener, bytes));
                }
                Effect::AskSeat { .. } => unreachable!("no bound per address is set"),
                // Whoever keeps the list keeps it.
                Effect::Tokens(_) => {}
            }
        }
    }

    fn hear(&mut self, index: usize, chunks: &[Bytes]) {
        let client = self.clients[index].as_mut().expect("it has a session");
        let mut news = Vec::new();
        let before = client.received.deliveries;
        client.received.take(chunks, &mut news);
        self.deliveries += client.received.deliveries - before;
        for news in news {
            let news = match news {
                News::Came(series, number) => {
                    // Its own, which says that it is published.
                    let mut unacked = client.unacked.iter();
                    let own = unacked.find(|(_, (of, n, _))| (of, *n) == (&series, number));
                    match own {
                        Some((&id, _)) => News::Published(id),
                        None => continue,
                    }
                }
                news => news,
            };
            match news {
                News::Came(..) => {}
                News::Asked(number) => client.asked.push_back(number),
                News::Arrived(who) => self.asked.push_back((index, client.number, who)),
                News::Published(id) => {
                    if let Some((series, number, subscribers)) = client.unacked.remove(&id) {
                        let dues = subscribers.into_iter();
                        self.dues
                            .extend(dues.map(|due| (due, series.clone(), number)));
                    }
                }
            }
        }
    }

    fn new_session(&mut self, shard: usize) -> SessionId {
        let slots = &mut self.slots[shard];
        let slot = slots.iter().position(|slot| !slot.1).unwrap_or(slots.len());
        if slot == slots.len() {
            slots.push((0, false));
        }
        let (generation, is_taken) = &mut slots[slot];
        *generation += 1;
        *is_taken = true;
        SessionId {
            slot: slot as u32,
            generation: *generation,
        }
    }

    fn find(&self, shard: usize, session: SessionId) -> Option<usize> {
        let place = Some((shard, session));
        let mut clients = self.clients.iter();
        clients.position(|client| client.as_ref().is_some_and(|client| client.place == place))
    }

    fn index_of(&self, shard: usize, session: SessionId) -> usize {
        self.find(shard, session)
            .expect("the shard speaks of connections that there are")
    }

    // What has to be so.

    fn check(&mut self, at: usize) {
        let limits = &self.settings.limits;
        let shard = &mut self.shards[at];
        assert!(shard.lanes().are_idle(), "the lanes are emptied each turn");
        let stats = shard.stats();
        let views = shard.connection_views(usize::MAX);
        assert_eq!(views.len() as u64, stats.connections);
        let sum: u64 = views.iter().map(|view| view.outbox_bytes).sum();
        assert_eq!(sum, stats.outbox_bytes, "the sum of all outboxes");
        let here = self
            .clients
            .iter()
            .flatten()
            .filter(|client| client.place.is_some_and(|(shard, _)| shard == at));
        assert!(stats.connections <= here.count() as u64);
        assert!(stats.delivered + stats.announced <= stats.deliveries_due);
        // An empty outbox takes one message of any size; frames that wait get an entry each at the turn's end,
        // and no delivery is shorter than an entry.
        let message_max = limits.message_bytes_max + 1024;
        let outbox_max = 2 * limits.outbox_bytes_max + message_max + 16 * OUTBOX_ENTRY_BYTES;
        for view in views {
            assert!(
                view.outbox_bytes <= outbox_max as u64,
                "an outbox of {} bytes",
                view.outbox_bytes
            );
            let subscriptions_max = limits
                .subscriptions_max
                .max(self.settings.server_limits.subscriptions_max);
            assert!(view.subscriptions <= subscriptions_max as u64);
        }
    }

    /// Every client reads and every ring has room: what was taken comes to its end, and acked publications
    /// have arrived.
    pub fn settle(&mut self) {
        self.unbound();
        for _ in 0..3000 {
            for index in 0..self.clients.len() {
                self.read(index);
                if let Some(client) = &mut self.clients[index] {
                    client.is_fast = true;
                }
            }
            while !self.asked.is_empty() {
                self.admit(true);
            }
            self.turn_all();
            if self.is_settled() {
                self.check_answers();
                return self.check_dues();
            }
        }
        panic!("something waits for ever");
    }

    fn is_settled(&self) -> bool {
        let is_unread = |client: &Client| client.is_reading && !client.unread.is_empty();
        self.shards.iter().all(Shard::is_settled)
            && self
                .rings
                .iter()
                .flatten()
                .all(|ring| ring.parcels.is_empty())
            && self.inputs.iter().all(Vec::is_empty)
            && self.arrivals.iter().all(Vec::is_empty)
            && self.asked.is_empty()
            && !self.clients.iter().flatten().any(is_unread)
    }

    /// Whoever speaks RESP, or is a peer, was answered all that it asked. Where there are rates it may wait for its own, and no time
    /// passes here.
    fn check_answers(&self) {
        let limits = &self.settings.server_limits;
        if limits.publish_rate_max > 0 || limits.subscribe_rate_max > 0 {
            return;
        }
        for client in self.clients.iter().flatten() {
            let is_there = !client.has_ended && !client.is_shut_down && !self.is_quiet;
            match &client.received.speech {
                Speech::Resp(values) if is_there && !values.is_lenient => {
                    assert!(values.expected.is_empty(), "unanswered: {values:?}");
                }
                Speech::Peer(calls) if is_there && !client.is_wild => {
                    assert!(calls.is_answered(), "unanswered: {calls:?}");
                }
                _ => {}
            }
        }
    }

    fn check_dues(&mut self) {
        for ((who, filter, stay), series, number) in mem::take(&mut self.dues) {
            let mut clients = self.clients.iter().flatten();
            let Some(client) = clients.find(|client| client.number == who) else {
                continue;
            };
            let received = &client.received;
            // Whoever left, or was told that something is missing, may miss it.
            let may_miss = received::skips(&series.1) || matches!(received.speech, Speech::Peer(_));
            let is_told = received.gaps > 0 && may_miss;
            let has_left = client.is_failed || client.is_shut_down;
            if !received.is_open() || has_left || is_told {
                continue;
            }
            let stays = received.stays.get(&filter);
            if let Some(stay) = stays.filter(|still| still.number == stay) {
                let last = stay.last.get(&series).copied().unwrap_or(0);
                assert!(
                    last >= number,
                    "{series:?} {number} was acked and is missing, {last} came"
                );
            }
        }
    }

    /// Turns and time until nobody is left; then all accounts are closed.
    pub fn finish(&mut self) {
        self.unbound();
        // Whoever still asks the host has gone, or will be too late.
        self.asked.clear();
        if self.is_quiet {
            // Nothing is read any more, not even an end: a drain goes on to close.
            self.close_all(0);
        }
        for _ in 0..200 {
            if self.shards.iter().all(|shard| shard.connections() == 0) && self.is_settled() {
                break;
            }
            let deadlines = self.shards.iter().filter_map(Shard::next_deadline_ms);
            self.now_ms = deadlines.min().unwrap_or(0).max(self.now_ms + 1);
            self.turn_all();
            self.asked.clear();
        }
        self.pass(10_000_000);
        self.turn_all();
        self.turn_all();
        assert!(self.clients.iter().all(Option::is_none), "somebody is left");
        assert!(self.is_settled());
        let mut delivered = 0;
        for shard in &self.shards {
            let stats = shard.stats();
            assert_eq!(stats.connections, 0);
            assert_eq!(stats.subscriptions, 0);
            assert_eq!(stats.outbox_bytes, 0);
            assert_eq!(stats.requests_pending, 0);
            assert_eq!(
                stats.deliveries_due,
                stats.delivered + stats.announced,
                "every delivery that was due is made or announced"
            );
            assert_eq!(shard.next_deadline_ms(), None, "a deadline about nobody");
            assert!(!shard.has_work());
            delivered += stats.delivered;
        }
        // More may have: a connection can fail before its last send is known to be done.
        assert!(delivered <= self.deliveries, "what is counted has arrived");
    }
}

/// A client's frame with a mask of zeros.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        size @ 0..126 => frame.push(0x80 | size as u8),
        size @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(size as u16).to_be_bytes());
        }
        size => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(size as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}
