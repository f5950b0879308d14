//! The shard: a pure state machine that takes bytes, parcels of other shards and the time, and gives effects.
//!
//! It knows no socket, clock, thread or random number. The event loop (`net::event_loop`) calls it in turns:
//!
//! 1. [`Shard::begin_turn`] with the time;
//! 2. [`Shard::take_parcel`] for what other shards sent;
//! 3. routing: [`Shard::resume`] and the answers to [`Effect::AskSeat`], then [`Shard::accept`], [`Shard::receive`],
//!    [`Shard::ended`], [`Shard::sent`], [`Shard::publish_as_host`] for what the driver took before (2), then
//!    [`Shard::fire_timers`];
//! 4. the lanes ([`Shard::lanes`]) are emptied into the rings, and every session of [`Shard::take_dirty`] is sent
//!    what [`Shard::transmit`] gives; then [`Shard::end_turn`], and the [`Effect`]s are carried out.
//!
//! That (3) comes after (2) is what makes an acknowledgement a barrier (ARCHITECTURE.md, "The turn"). Nothing
//! in here depends on it; nothing outside may change it.
//!
//! The files, in the order in which a publish meets them: `handshake` (with `proxied`), `session`, `input`, `command`,
//! `auth`, `router` (with `parcel`), `fanout` (with `log`), `outbox`, `closing`; beside them `credentials`, `rate`,
//! `request` (with `handlers`), `peer`, `resp` (with `tally`), `timer`, `wants`, `slow`, `metrics`, and `fault`: what is
//! contained when a bug panics.

#![allow(missing_docs, reason = "the comment of a variant speaks of its fields")]

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::address::{ClientId, LINK_SLOTS, RemoteAddress, Sender, SessionId, ShardId, ShardSet};
use crate::error::CloseReason;
use crate::failures::Failures;
use crate::protocol::native::{self, Stamp};
use crate::protocol::{Event, Protocol, clusterws, peer as peer_protocol};
use crate::topic::Topic;
use crate::topic::tree::{FilterId, TopicTree};
use crate::ws::frame::{self, Opcode, ServerHeader};

use fanout::{Subscribers, mark_dirty, mark_urgent};
use fault::Place;
use log::TurnLogs;
use metrics::{ConnectionView, ShardStats};
use outbox::{Chunks, Queued};
use parcel::Lanes;
use peer::{EmitLogs, Feeds, Hosts, Peers, Rooms, TokenChange};
use rate::Rates;
use request::Requests;
use run::OpenRun;
use session::{Due, Session, Sessions, Since, State};
use settings::Settings;
use tally::Tallies;
use timer::Timers;
use wants::Wants;

pub mod auth;
mod closing;
mod command;
mod credentials;
mod fanout;
pub mod fault;
mod handlers;
mod handshake;
mod input;
mod log;
pub mod metrics;
pub mod outbox;
pub mod parcel;
pub mod peer;
mod proxied;
mod rate;
mod request;
mod resp;
mod router;
mod run;
mod session;
pub mod settings;
pub mod slow;
mod subscriptions;
mod tally;
#[cfg(test)]
mod testing;
mod timer;
mod wants;

pub use credentials::{Credentials, Identity};
pub use peer::Arriving;
pub use settings::Acceptance;

/// The time of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Milliseconds of a clock that never goes back; all deadlines are on it.
    pub ms: u64,
    /// Milliseconds since 1970, for timestamps only.
    pub unix_ms: u64,
}

/// What the edge is to do for a shard, in order, after the turn's sends were started.
#[derive(Debug)]
pub enum Effect {
    /// Take no more bytes from this connection until told.
    PauseReading(SessionId),
    /// Take bytes again.
    ResumeReading(SessionId),
    /// Everything is out: shut down writing. Input still arrives, to be discarded.
    ShutdownWrite(SessionId),
    /// The session is over and out of the shard's table: close the connection, by a reset if `reset`.
    Close { session: SessionId, reset: bool },
    /// The session belongs to another shard and is out of this one's table: hand the connection over, with
    /// `bytes` (all that came, unanswered) before whatever the driver still holds.
    HandOver {
        session: SessionId,
        to: ShardId,
        listener: u16,
        address: RemoteAddress,
        bytes: Vec<u8>,
    },
    /// It speaks plain HTTP, which a host takes: the session is out of this shard's table. Let the host of this Link have
    /// the connection, with `bytes` before whatever the driver still holds.
    Release {
        session: SessionId,
        to: (ShardId, SessionId),
        listener: u16,
        address: RemoteAddress,
        bytes: Vec<u8>,
    },
    /// The list of accepted tokens has changed, which is to outlive the broker.
    Tokens(TokenChange),
    /// Ask whether there is room for one more connection of this address, now that it is known; then tell the shard,
    /// by [`Shard::seated`] or [`Shard::refuse_address`], in a later turn's routing. `host`: what a host is to be told
    /// after that.
    AskSeat {
        session: SessionId,
        ip: IpAddr,
        host: Option<Arc<Arriving>>,
    },
}

/// How a connection ended by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The client will send nothing more.
    EndOfInput,
    /// The connection is gone.
    Failed,
}

/// One shard. All methods are called by one thread, in turns.
#[derive(Debug)]
pub struct Shard {
    id: ShardId,
    settings: Arc<Settings>,
    credentials: Arc<Credentials>,
    failures: Failures,
    rates: Rates,
    now: Now,
    stamp: Stamp,
    sessions: Sessions,
    /// Active subscriptions of this shard's sessions.
    subscriptions: TopicTree<Subscribers>,
    /// Sessions of this shard that handle an event.
    handlers: HashMap<bytes::Bytes, handlers::Handlers, foldhash::fast::RandomState>,
    /// Which of the shards that could serve is next.
    next_shard: usize,
    /// What this shard's sessions want of other shards, and who has been told.
    interest: Wants,
    /// What other shards told us that they want.
    remote_filters: TopicTree<ShardSet>,
    remote_services: HashMap<bytes::Bytes, ShardSet, foldhash::fast::RandomState>,
    lanes: Lanes,
    logs: TurnLogs,
    run: OpenRun,
    requests: Requests,
    peers: Peers,
    hosts: Hosts,
    rooms: Rooms,
    feeds: Feeds,
    emit_logs: EmitLogs,
    tallies: Tallies,
    /// RESP sessions so far.
    resp_clients: u64,
    /// Sessions with a deadline.
    timers: Timers<SessionId>,
    /// Sessions whose outbox has something to send.
    dirty: Vec<SessionId>,
    /// Of these, those that can't wait for the turn's end.
    urgent: Vec<SessionId>,
    /// Sessions with something that waits.
    resuming: Vec<SessionId>,
    effects: Vec<Effect>,
    stats: ShardStats,
    outbox_bytes: usize,
    /// Scratch: matches of one topic.
    matches: Vec<FilterId>,
    /// What was last published to over RESP.
    channel: Option<Topic>,
    /// Scratch: one encoded event.
    words: Vec<u8>,
    /// The next shard to deal a connection to.
    next_deal: usize,
    /// The next host to take plain HTTP.
    next_http: usize,
    /// No more input is taken (drain).
    is_quiet: bool,
    /// Others have been told that it is quiet: what still waits for a slow reader is as good as never read (drain).
    is_sealed: bool,
    /// All sessions have been told to leave, or will be: nobody comes in behind them (drain).
    is_leaving: bool,
    /// Bytes of a connection wait for nothing but the next turn: there were more messages than one turn takes, or
    /// the answers to those before them have been read now.
    has_leftovers: bool,
    /// News of interest waits for room in a ring.
    has_news: bool,
}

impl Shard {
    /// A shard with nobody on it.
    pub fn new(id: ShardId, settings: Arc<Settings>, now: Now) -> Shard {
        let mut peers = ShardSet::first(settings.shards);
        peers.remove(id);
        Shard {
            id,
            credentials: Arc::default(),
            failures: Failures::default(),
            rates: Rates::new(&settings),
            now,
            stamp: Stamp::new(now.unix_ms),
            sessions: Sessions::default(),
            subscriptions: TopicTree::default(),
            handlers: HashMap::default(),
            next_shard: 0,
            interest: Wants::new(peers, settings.board.clone()),
            remote_filters: TopicTree::default(),
            remote_services: HashMap::default(),
            lanes: Lanes::new(settings.shards),
            logs: TurnLogs::default(),
            run: OpenRun::default(),
            requests: Requests::default(),
            peers: Peers::of(id, &settings.accepted),
            hosts: Hosts::default(),
            rooms: Rooms::default(),
            feeds: Feeds::default(),
            emit_logs: EmitLogs::new(),
            tallies: Tallies::new(settings.shards),
            resp_clients: 0,
            timers: Timers::default(),
            dirty: Vec::new(),
            urgent: Vec::new(),
            resuming: Vec::new(),
            effects: Vec::new(),
            stats: ShardStats {
                shard: id.index(),
                ..ShardStats::default()
            },
            outbox_bytes: 0,
            matches: Vec::new(),
            channel: None,
            words: Vec::new(),
            next_deal: id.index(),
            next_http: id.index(),
            is_quiet: false,
            is_sealed: false,
            is_leaving: false,
            has_leftovers: false,
            has_news: false,
            settings,
        }
    }

    /// How many shards the broker has.
    pub fn shards(&self) -> usize {
        self.settings.shards
    }

    /// Could another turn move something on right now, without any news?
    pub fn has_work(&self) -> bool {
        self.has_leftovers
            || !self.dirty.is_empty()
            || !self.effects.is_empty()
            || self.has_answers_for_joins()
    }

    /// Which shard this is.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Starts a turn.
    pub fn begin_turn(&mut self, now: Now) {
        debug_assert!(now.ms >= self.now.ms, "the clock went back");
        if now.unix_ms != self.now.unix_ms {
            self.stamp = Stamp::new(now.unix_ms);
        }
        self.now = now;
        debug_assert!(
            !self.run.is_open(),
            "the last turn's run was sealed with it"
        );
        self.logs.next_turn();
        self.take_urgent();
        self.answer_joins();
        self.stats.turns += 1;
    }

    /// The lanes to the other shards, to set their room before the routing and to empty them after it.
    pub fn lanes(&mut self) -> &mut Lanes {
        &mut self.lanes
    }

    /// A connection was accepted. `refused`: there are too many; it gets 503 and nothing else. So does one whose
    /// address matters and could not be learned: there are no descriptors left then.
    pub fn accept(&mut self, id: SessionId, listener: u16, address: RemoteAddress, refused: bool) {
        self.stats.accepted += 1;
        let is_nameless = self.settings.addresses_matter() && !address.is_known();
        self.enter(id, listener, address);
        if refused || is_nameless || self.is_leaving {
            self.stats.refused += 1;
            self.refuse_connection(id);
        } else if self.is_of_resp(id) {
            self.enter_resp(id, false);
        } else if self.is_of_peers(id) {
            self.enter_peer(id, false);
        }
        self.set_timer(id);
    }

    fn enter(&mut self, id: SessionId, listener: u16, address: RemoteAddress) {
        self.sessions
            .insert(Session::new(id, listener, address, self.now.ms));
        self.update_reading(id);
    }

    /// Bytes came from a connection. They are changed in place (unmasked).
    pub fn receive(&mut self, id: SessionId, bytes: &mut [u8]) {
        let Some(session) = self.sessions.find(id) else {
            return self.send_after(id, bytes);
        };
        self.stats.received_bytes += bytes.len() as u64;
        let is_resp = session.resp_listener(&self.settings);
        let is_peer = session.peer.is_some();
        match &mut session.state {
            // A drain lets nobody in any more, and what a driver still had is as good as never read: others have
            // been told that everything taken is handed on.
            State::Handshake { .. } | State::Open if self.is_quiet => {}
            State::Handshake { .. } if is_resp => self.receive_preface(id, bytes),
            State::Handshake { .. } if is_peer => self.receive_hello(id, bytes),
            State::Handshake { .. } => self.receive_head(id, bytes),
            State::Admission { .. } => session
                .stall
                .get_or_insert_default()
                .bytes
                .extend_from_slice(bytes),
            State::Open => {
                session.heard(self.now.ms);
                match &mut session.stall {
                    // Taken before the pause took effect.
                    Some(stall) => stall.bytes.extend_from_slice(bytes),
                    None => self.read_messages(id, bytes),
                }
            }
            State::Closing { .. } | State::Discarding { .. } => {}
        }
        self.set_timer(id);
    }

    /// The connection has ended, or will send no more.
    pub fn ended(&mut self, id: SessionId, ending: Ending) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        match (&session.state, ending) {
            // Its last words may still be read by a client that only stopped to write.
            (State::Closing { .. }, Ending::EndOfInput) => {}
            (State::Discarding { .. }, _) | (State::Closing { .. }, Ending::Failed) => {
                self.finish(id, false)
            }
            (State::Open, Ending::EndOfInput) if session.stall.is_some() => {
                // What it sent before counts; with the last of it the session ends.
                session.is_input_ended = true;
            }
            // As Redis: what it asked is answered, also if it only writes no more (`printf ... | nc`).
            (State::Open, Ending::EndOfInput) if session.resp.is_some() => {
                session.is_input_ended = true;
                let reason = CloseReason::ConnectionLost;
                if let Some(held) = self.end_resp(id, reason, Vec::new()) {
                    self.hold(id, held);
                    self.resume_later(id);
                    self.update_reading(id);
                }
            }
            (State::Handshake { .. } | State::Admission { .. } | State::Open, _) => {
                self.release(id, CloseReason::ConnectionLost);
                self.finish(id, false);
            }
        }
    }

    /// The send in flight is done, all of it.
    pub fn sent(&mut self, id: SessionId) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let before = session.outbox.charged();
        let (bytes, deliveries) = session.outbox.sent();
        session.sending = Since::NEVER;
        self.outbox_bytes -= before - session.outbox.charged();
        self.stats.sent_bytes += bytes as u64;
        self.stats.delivered += deliveries;
        if session.outbox.charged() <= session.limits(&self.settings).outbox_bytes_soft {
            session.soft = Since::NEVER;
        }
        let is_stalled = session.is_open() && session.stall.is_some() && !self.is_sealed;
        let is_peer = session.peer.is_some();
        if session.outbox.has_waiting() {
            mark_dirty(session, &mut self.dirty);
            mark_urgent(session, &self.settings, &mut self.urgent);
        } else {
            self.emptied(id);
        }
        if is_stalled {
            self.resume_later(id);
        }
        if is_peer {
            self.look_at_feed(id);
        }
        self.update_reading(id);
    }

    /// The sessions that may have something to send; each is to be flushed this turn.
    pub fn take_dirty(&mut self) -> Vec<SessionId> {
        self.seal_run();
        std::mem::take(&mut self.dirty)
    }

    /// Sessions whose outbox has filled up in the course of this turn, though nothing of it is in flight. They
    /// are to be flushed now: a reader is slow if its *socket* does not take what it is sent, not because one turn
    /// brought much. Until then no more messages are read.
    pub fn take_urgent(&mut self) -> Vec<SessionId> {
        let urgent = std::mem::take(&mut self.urgent);
        for &id in &urgent {
            if let Some(session) = self.sessions.find(id) {
                session.is_urgent = false;
            }
        }
        urgent
    }

    /// Is there such a session?
    pub fn is_urgent(&self) -> bool {
        !self.urgent.is_empty()
    }

    /// The next send of a session; it is in flight until [`Shard::sent`] or [`Shard::ended`].
    pub fn transmit(&mut self, id: SessionId) -> Option<Chunks> {
        let session = self.sessions.find(id)?;
        if session.outbox.is_in_flight() {
            return None;
        }
        if session.outbox.has_gaps() {
            let before = session.outbox.charged();
            let mut words = bytes::BytesMut::new();
            let mut is_whole = true;
            for (topic, count) in session.outbox.take_gaps() {
                let gap = Event::Gap {
                    topic: &topic,
                    count,
                };
                let (protocol, stamp, text) = (session.protocol, &self.stamp, &mut self.words);
                text.clear();
                let encoded = self
                    .settings
                    .fault
                    .contain(Place::Encode, || encode_event(protocol, &gap, stamp, text));
                match encoded {
                    Some(_) if protocol == Protocol::Peer => words.extend_from_slice(text),
                    Some(opcode) => frame_words(opcode, text, &mut words),
                    None => is_whole = false,
                }
            }
            session.outbox.put_first(words);
            self.outbox_bytes = self.outbox_bytes + session.outbox.charged() - before;
            if !is_whole {
                self.close(id, CloseReason::Internal);
            }
        }
        let session = self.sessions.find(id)?;
        if session.outbox.is_in_flight() {
            return None;
        }
        let chunks = session.outbox.transmit(&mut self.logs)?;
        session.sending = Since::at(self.now.ms);
        self.stats.sends += 1;
        Some(chunks)
    }

    /// Does something wait for a session, with nothing in flight?
    pub fn has_waiting(&mut self, id: SessionId) -> bool {
        self.sessions
            .find(id)
            .is_some_and(|session| session.outbox.has_waiting() && !session.outbox.is_in_flight())
    }

    /// Puts a session back on the list of those that may have something to send: for the next turn.
    pub fn touch(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.find(id) {
            mark_dirty(session, &mut self.dirty);
        }
    }

    /// A session of [`Shard::take_dirty`] was flushed as far as it goes.
    pub fn flushed(&mut self, id: SessionId) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        session.is_dirty = false;
        if session.outbox.has_waiting() {
            let before = session.outbox.charged();
            session.outbox.settle(&mut self.logs);
            self.outbox_bytes = self.outbox_bytes + session.outbox.charged() - before;
        }
        let is_peer = session.peer.is_some();
        if session.outbox.charged() <= session.limits(&self.settings).outbox_bytes_soft {
            // What was skipped counts no more either.
            session.soft = Since::NEVER;
        } else if session.is_open() && !is_peer {
            // A peer may take its time: what can wait for it waits elsewhere (`peer::feed`).

            session.soft.begin(self.now.ms);
        }
        if session.soft != Since::NEVER || session.is_paused {
            self.set_timer(id);
        }
        if is_peer {
            self.look_at_feed(id);
        }
    }

    /// Ends a turn: keeps the total of all outboxes within its bound.
    pub fn end_turn(&mut self) {
        let bytes_max = self.settings.limits.outbox_total_bytes_max / self.settings.shards;
        if self.outbox_bytes > bytes_max {
            self.cut_largest(bytes_max);
        }
    }

    /// What is to be done outside, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The next moment at which [`Shard::fire_timers`] has something to do.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        [self.timers.next_ms(), self.requests.next_ms()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does anything wait: for another turn, or for room in a ring?
    pub fn is_restless(&self) -> bool {
        !self.resuming.is_empty()
            || self.has_news
            || self.requests.has_deferred()
            || self.tallies.has_answers()
            || self.peers.is_restless()
            || self.feeds.is_restless()
            || !self.dirty.is_empty()
            || !self.effects.is_empty()
    }

    /// Has everything that was taken been routed and handed on?
    pub fn is_settled(&self) -> bool {
        !self.is_restless() && self.lanes.are_idle() && self.tallies.is_idle()
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.sessions.len()
    }

    /// Looks after what is due.
    pub fn fire_timers(&mut self) {
        while let Some((at_ms, id)) = self.timers.pop_due(self.now.ms) {
            let Some(session) = self.sessions.find(id) else {
                continue;
            };
            if session.timer_ms != at_ms {
                continue;
            }
            session.timer_ms = u64::MAX;
            let (due_ms, due) = session.deadline(&self.settings);
            if due_ms <= self.now.ms {
                self.come_due(id, due);
            }
            self.set_timer(id);
        }
        self.expire_requests();
        self.flush_peers();
        // What this turn made necessary need not wait for another one.
        self.flush_deferred();
    }

    fn come_due(&mut self, id: SessionId, due: Due) {
        match due {
            Due::Handshake => self.handshake_late(id),
            Due::Ping => {
                let Some(session) = self.sessions.find(id) else {
                    return;
                };
                session.pinged = Since::at(self.now.ms);
                let (opcode, payload) = match session.protocol {
                    Protocol::Clusterws(dialect) => (dialect.ping_opcode(), dialect.ping()),
                    Protocol::Peer => return self.ping_peer(id),
                    Protocol::Native | Protocol::Resp | Protocol::Echo => (Opcode::Ping, &[][..]),
                };
                self.tell_frame(id, opcode, payload, false);
            }
            Due::Dead => {
                let is_stuck = self
                    .sessions
                    .find(id)
                    .is_some_and(|session| session.outbox.is_in_flight());
                self.close(id, CloseReason::PingTimeout);
                if is_stuck {
                    // It has not even read what was sent before: no last words will reach it.
                    self.finish(id, true);
                }
            }
            Due::Message => self.close(id, CloseReason::TooLate),
            Due::Slow => self.close_slow(id),
            Due::Rate => self.rate_due(id),
            Due::Probe => self.probe_late(id),
            Due::Expired => self.close(id, CloseReason::TokenExpired),
            Due::Leave => self.close(id, CloseReason::GoingAway),
            Due::Reset => self.finish(id, true),
            Due::Gone => self.finish(id, false),
        }
    }

    /// Sets the session's next deadline, if it is earlier than the one that is set.
    fn set_timer(&mut self, id: SessionId) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let (at_ms, _) = session.deadline(&self.settings);
        if at_ms < session.timer_ms {
            session.timer_ms = at_ms;
            self.timers.set(at_ms, id);
        }
    }

    /// Stops or starts the reading of a connection, as its state asks.
    fn update_reading(&mut self, id: SessionId) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let limit = session.replies_bytes_max(&self.settings);
        let replies = session.outbox.reply_bytes();
        let has_unread = replies >= limit || session.is_paused && replies > limit / 2;
        let wanted = match session.state {
            State::Open => session.stall.is_some() || has_unread || self.is_quiet,
            State::Handshake { .. } => self.is_quiet,
            State::Admission { .. } => true,
            State::Closing { .. } | State::Discarding { .. } => false,
        };
        if wanted != session.is_paused {
            session.is_paused = wanted;
            if wanted {
                self.effects.push(Effect::PauseReading(id));
                self.set_timer(id);
            } else {
                // While we did not read, its liveness clock stood still.
                if session.is_open() {
                    session.heard(self.now.ms);
                    session.message.restart(self.now.ms);
                }
                self.effects.push(Effect::ResumeReading(id));
                self.set_timer(id);
            }
        }
    }

    /// Tells a session something, if its protocol has words for it. `reply`: it is the answer to something that it
    /// sent.
    fn tell(&mut self, id: SessionId, event: &Event<'_>, reply: bool) {
        const ROOM: usize = frame::SERVER_HEADER_BYTES_MAX;
        let Some(protocol) = self.sessions.find(id).map(|session| session.protocol) else {
            return;
        };
        let mut words = std::mem::take(&mut self.words);
        words.clear();
        words.extend_from_slice(&[0; ROOM]);
        let encoded = self.settings.fault.contain(Place::Encode, || {
            encode_event(protocol, event, &self.stamp, &mut words)
        });
        match encoded {
            Some(_) if words.len() == ROOM => {}
            Some(_) if protocol == Protocol::Peer => {
                self.tell_words(id, [&words[ROOM..], &[]], reply);
            }
            Some(opcode) => {
                let header = ServerHeader::new(opcode, words.len() - ROOM);
                self.tell_words(id, [header.before(&mut words), &[]], reply);
            }
            None => self.close(id, CloseReason::Internal),
        }
        self.words = words;
    }

    fn tell_frame(&mut self, id: SessionId, opcode: Opcode, payload: &[u8], reply: bool) {
        let header = ServerHeader::new(opcode, payload.len());
        self.tell_words(id, [header.as_bytes(), payload], reply);
    }

    fn tell_words(&mut self, id: SessionId, words: [&[u8]; 2], reply: bool) {
        if !self.take_run(id) {
            return self.close_slow(id);
        }
        let Some(session) = self
            .sessions
            .find(id)
            .filter(|session| !session.is_ending())
        else {
            return;
        };
        let before = session.outbox.charged();
        let bytes_max = session.limits(&self.settings).outbox_bytes_max;
        let queued = session.outbox.push_words(words, reply, bytes_max);
        self.outbox_bytes = self.outbox_bytes + session.outbox.charged() - before;
        match queued {
            Queued::Yes { .. } => {
                mark_dirty(session, &mut self.dirty);
                // What comes next has to know.
                if session.peer.is_some() {
                    self.look_at_feed(id);
                }
            }
            Queued::Full => self.close_slow(id),
        }
        if reply {
            self.update_reading(id);
        }
    }

    /// Who a session is to others.
    fn sender(&mut self, id: SessionId) -> Sender {
        let session = self.sessions.find(id);
        let peer = session.and_then(|session| session.peer.as_ref());
        Sender {
            peer: peer.map(|peer| peer.name.clone()),
            client: self.client_id(id),
        }
    }

    fn client_id(&self, session: SessionId) -> ClientId {
        ClientId {
            broker: self.settings.broker,
            shard: self.id,
            session,
        }
    }

    /// Takes no more input from any connection, and accepts none.
    pub fn quiesce(&mut self) {
        self.is_quiet = true;
        let ids: Vec<_> = self.sessions.iter().map(|session| session.id).collect();
        for id in ids {
            self.update_reading(id);
        }
    }

    /// Keeps the promise that everything taken has been handed on, from the moment when it is made: commands that
    /// waited until their own client reads are not carried out any more. The shards of their subscribers may have
    /// none left, and an ack would say that they got it.
    pub fn seal(&mut self) {
        self.is_sealed = true;
    }

    /// Closes every session with 1001, at moments spread over `spread_ms`; whoever is not in yet gets 503. Links stay:
    /// they hear of all these ends, and end with the broker.
    pub fn close_all(&mut self, spread_ms: u64) {
        self.is_leaving = true;
        let sessions = self.sessions.iter();
        let ids: Vec<_> = sessions
            .filter(|session| session.id.slot < LINK_SLOTS)
            .map(|session| session.id)
            .collect();
        let count = ids.len().max(1) as u64;
        for (index, id) in ids.into_iter().enumerate() {
            let Some(session) = self.sessions.find(id) else {
                continue;
            };
            if !session.is_open() {
                if !session.is_ending() {
                    self.stats.handshakes_refused += 1;
                    self.refuse_connection(id);
                }
            } else if spread_ms == 0 {
                self.close(id, CloseReason::GoingAway);
            } else {
                // Even over the time, in no order that means anything: slots are reused at random.
                session.leave = Since::at(self.now.ms + spread_ms * index as u64 / count);
                self.set_timer(id);
            }
        }
    }

    /// The counters, gauges filled in.
    pub fn stats(&self) -> ShardStats {
        let open = self.sessions.iter().filter(|session| session.is_open());
        let (mut sessions, mut subscriptions) = (0, 0);
        for session in open {
            sessions += 1;
            subscriptions += session.subscriptions.len() as u64;
        }
        ShardStats {
            connections: self.sessions.len() as u64,
            sessions,
            subscriptions,
            outbox_bytes: self.outbox_bytes as u64,
            requests_pending: self.requests.pending() as u64,
            peers: self.peers.count() as u64,
            ..self.stats.clone()
        }
    }

    /// What is left here of clients that have gone, if anything: for tests, once nobody is connected to any shard
    /// and all have told each other so.
    pub fn residue(&self) -> Option<String> {
        let left = [
            ("sessions", self.sessions.len()),
            ("filters", self.subscriptions.len()),
            ("handled events", self.handlers.len()),
            // That ids mean something stays so.
            (
                "keys of interest",
                self.interest.entry_count() - self.interest.count(&parcel::Key::Tokens),
            ),
            ("filters of others", self.remote_filters.len()),
            ("services of others", self.remote_services.len()),
            ("requests", self.requests.entries()),
            ("tallies", self.tallies.entries()),
            ("peers", self.peers.entries()),
            ("hosts", self.hosts.entries()),
            ("rooms", self.rooms.entries()),
            ("feeds", self.feeds.entries()),
            ("rates", self.rates.len()),
            ("bytes in outboxes", self.outbox_bytes),
            ("sessions to flush", self.dirty.len()),
            ("sessions to resume", self.resuming.len()),
            ("effects", self.effects.len()),
        ];
        let left: Vec<_> = left
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        (!left.is_empty()).then(|| left.join(", "))
    }

    /// Counts what only the event loop sees.
    pub fn stats_mut(&mut self) -> &mut ShardStats {
        &mut self.stats
    }

    /// At most `count` connections, those with the most bytes waiting first.
    pub fn connection_views(&self, count: usize) -> Vec<ConnectionView> {
        let mut sessions: Vec<_> = self.sessions.iter().collect();
        sessions.sort_by_key(|session| (std::cmp::Reverse(session.outbox.charged()), session.id));
        sessions.truncate(count);
        sessions
            .into_iter()
            .map(|session| ConnectionView {
                id: self.client_id(session.id).to_string(),
                shard: self.id.index(),
                address: session.address.to_string(),
                outbox_bytes: session.outbox.charged() as u64,
                subscriptions: session.subscriptions.len() as u64,
            })
            .collect()
    }
}

/// Appends an event as a protocol says it, if it has words for it; and the kind of frame around it.
fn encode_event(protocol: Protocol, event: &Event<'_>, stamp: &Stamp, out: &mut Vec<u8>) -> Opcode {
    match protocol {
        Protocol::Native => {
            native::encode(event, stamp, out);
            Opcode::Text
        }
        Protocol::Clusterws(dialect) => {
            clusterws::encode(dialect, event, out);
            dialect.opcode()
        }
        // The one has nothing to say, the other's answers are `resp`'s.
        Protocol::Echo | Protocol::Resp => Opcode::Text,
        // Without a header: see `tell`.
        Protocol::Peer => {
            peer_protocol::encode(event, out);
            Opcode::Binary
        }
    }
}

/// A frame around `words`.
fn frame_words(opcode: Opcode, words: &[u8], out: &mut bytes::BytesMut) {
    let mut header = Vec::with_capacity(frame::SERVER_HEADER_BYTES_MAX);
    frame::encode_header(opcode, words.len(), &mut header);
    out.extend_from_slice(&header);
    out.extend_from_slice(words);
}

#[cfg(test)]
mod clusterws_tests;
#[cfg(test)]
mod echo_tests;
#[cfg(test)]
mod tests;
