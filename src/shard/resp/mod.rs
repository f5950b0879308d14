//! Sessions that speak RESP: what only they have, and the order of their answers.
//!
//! A RESP client pairs answers with commands by their order, and sends the next command without waiting for an answer.
//! Most commands are answered at once. A publication that other shards hear, and a question about all shards, are
//! answered when these have said their part ([`tally`](super::tally)); later commands go on meanwhile, and their
//! answers wait behind that one, in `waiting`. Three things do not go on:
//! - commands that change what the connection is (subscribe, unsubscribe, HELLO, AUTH, RESET, QUIT) wait until nothing
//!   waits, so that a confirmation stands in its place and nothing else has to know of `waiting`;
//! - while subscribes wait for their interest to be known, everything behind them waits, as in other protocols;
//! - past [`RESP_WAITING_MAX`] answers, or too many bytes of them, the next command waits: everything has a bound.
//!
//! Deliveries do not wait for answers: under RESP3 they may come between any two, and under RESP2 a connection with
//! subscriptions gets no answer that could wait.
//!
//! Invariant: the front of `waiting` is an answer that is not complete, or `waiting` is empty.

use std::collections::VecDeque;

use crate::address::SessionId;
use crate::error::CloseReason;
use crate::limits::RESP_WAITING_MAX;
use crate::protocol::Encoding;
use crate::protocol::resp::reader::Reader;
use crate::protocol::resp::request::ReplyMode;
use crate::protocol::resp::{Kind, Version, reply};
use crate::topic::Filter;

use super::Shard;
use super::fault::Place;
use super::session::Session;

mod ask;
mod client;
mod enter;
mod execute;
#[cfg(test)]
mod tests;

/// What only a session that speaks RESP has.
#[derive(Debug)]
pub struct RespSession {
    /// Bytes into commands.
    pub reader: Reader,
    /// The number that its client is told.
    pub client: u64,
    /// When it was accepted, in ms.
    pub since_ms: u64,
    /// Has it said who it is, or need it not?
    pub is_authenticated: bool,
    /// Since when it has not, in ms: since it was accepted, or took it back.
    pub unknown_since_ms: u64,
    /// Its subscriptions of each kind.
    pub counts: Counts,
    /// As the client calls itself (`CLIENT SETNAME`).
    name: Box<[u8]>,
    /// As it calls its library (`CLIENT SETINFO`).
    library: Box<[u8]>,
    library_version: Box<[u8]>,
    /// Its last command.
    command: &'static str,
    replies: ReplyMode,
    waiting: VecDeque<Waiting>,
    /// The bytes of the answers in there that are complete.
    waiting_bytes: usize,
}

/// Subscriptions by kind.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Of channels.
    pub channels: usize,
    /// Of patterns.
    pub patterns: usize,
    /// Of shard channels.
    pub shards: usize,
}

impl Counts {
    fn of(&mut self, filter: &Filter) -> &mut usize {
        match kind_of(filter) {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shards,
        }
    }

    /// One more.
    pub fn add(&mut self, filter: &Filter) {
        *self.of(filter) += 1;
    }

    /// One less.
    pub fn remove(&mut self, filter: &Filter) {
        *self.of(filter) -= 1;
    }

    /// As a confirmation of this kind says it: shard channels are counted by themselves.
    fn told(self, kind: Kind) -> usize {
        match kind {
            Kind::Channel | Kind::Pattern => self.channels + self.patterns,
            Kind::Shard => self.shards,
        }
    }

    /// Any at all?
    fn is_any(self) -> bool {
        self.channels + self.patterns + self.shards > 0
    }
}

/// An answer in its place.
#[derive(Debug)]
enum Waiting {
    /// Other shards have to say their part first.
    Tally(u64),
    /// Complete, and perhaps several.
    Words(Vec<u8>),
}

/// The kind of subscription that a RESP session has with this filter.
fn kind_of(filter: &Filter) -> Kind {
    match filter {
        // It is in no room.
        Filter::Exact(_) | Filter::Dotted(_) | Filter::Room(_) => Kind::Channel,
        Filter::Glob(_) => Kind::Pattern,
        Filter::Shard(_) => Kind::Shard,
    }
}

impl RespSession {
    fn new(client: u64, since_ms: u64, is_authenticated: bool) -> RespSession {
        RespSession {
            reader: Reader::default(),
            client,
            since_ms,
            is_authenticated,
            unknown_since_ms: since_ms,
            counts: Counts::default(),
            name: Box::default(),
            library: Box::default(),
            library_version: Box::default(),
            command: "NULL",
            replies: ReplyMode::On,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// Do so many answers wait that the next command has to?
    fn has_many_waiting(&self, bytes_max: usize) -> bool {
        self.waiting.len() >= RESP_WAITING_MAX || self.waiting_bytes >= bytes_max
    }
}

/// The version that a session speaks; RESP2 if it speaks something else.
fn version_of(session: &Session) -> Version {
    match session.encoding {
        Encoding::Resp(version) => version,
        Encoding::NativeText | Encoding::Clusterws(_) | Encoding::Peer => Version::Two,
    }
}

impl Shard {
    /// Answers a command, in its place, if its client wants to be answered.
    fn answer_resp(&mut self, id: SessionId, write: impl FnOnce(Version, &mut Vec<u8>)) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let Some(resp) = &mut session.resp else {
            return;
        };
        match resp.replies {
            ReplyMode::On => self.write_resp(id, write),
            ReplyMode::Off => {}
            ReplyMode::Skip => resp.replies = ReplyMode::On,
        }
    }

    /// Says something in the place of an answer.
    fn write_resp(&mut self, id: SessionId, write: impl FnOnce(Version, &mut Vec<u8>)) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let version = version_of(session);
        let mut words = std::mem::take(&mut self.words);
        words.clear();
        let written = self
            .settings
            .fault
            .contain(Place::Encode, || write(version, &mut words));
        match written {
            Some(()) => self.say(id, &words),
            None => self.close(id, CloseReason::Internal),
        }
        self.words = words;
    }

    /// Puts an answer behind those that wait, or says it.
    fn say(&mut self, id: SessionId, words: &[u8]) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let Some(resp) = &mut session.resp else {
            return;
        };
        match resp.waiting.back_mut() {
            None => return self.tell_words(id, [words, &[]], true),
            Some(Waiting::Words(last)) => last.extend_from_slice(words),
            Some(Waiting::Tally(_)) => resp.waiting.push_back(Waiting::Words(words.to_vec())),
        }
        resp.waiting_bytes += words.len();
    }

    /// An error as the answer.
    fn refuse_resp(&mut self, id: SessionId, text: &[u8]) {
        self.stats.refusals += 1;
        self.answer_resp(id, |_, out| reply::write_error(text, out));
    }

    /// Tells a session that a subscription has begun or ended.
    pub(super) fn confirm_resp(&mut self, id: SessionId, up: bool, filter: &Filter) {
        self.confirm_name(id, up, kind_of(filter), Some(filter.written()));
    }

    fn confirm_name(&mut self, id: SessionId, up: bool, kind: Kind, name: Option<&[u8]>) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let Some(resp) = &mut session.resp else {
            return;
        };
        // Told to whoever wants no answers, too: without it nobody knows what comes when.
        if resp.replies == ReplyMode::Skip {
            resp.replies = ReplyMode::On;
        }
        let count = resp.counts.told(kind);
        self.write_resp(id, |version, out| {
            reply::write_subscription(version, kind, up, name, count, out);
        });
    }

    /// The answer to this place's question is known.
    fn complete(&mut self, id: SessionId, number: u64, words: Vec<u8>) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let Some(resp) = &mut session.resp else {
            return;
        };
        let is_it = |waiting: &Waiting| matches!(waiting, Waiting::Tally(of) if *of == number);
        let Some(place) = resp.waiting.iter().position(is_it) else {
            return;
        };
        resp.waiting_bytes += words.len();
        resp.waiting[place] = Waiting::Words(words);
        let mut ready = Vec::new();
        while let Some(Waiting::Words(words)) = resp.waiting.front_mut() {
            ready.append(words);
            resp.waiting.pop_front();
        }
        resp.waiting_bytes -= ready.len();
        if resp.waiting.is_empty() {
            resp.waiting.shrink_to(64);
        }
        if !ready.is_empty() {
            self.tell_words(id, [&ready, &[]], true);
        }
    }

    /// Does an answer of this session wait?
    fn has_waiting_answers(&mut self, id: SessionId) -> bool {
        let session = self.sessions.find(id);
        let resp = session.and_then(|session| session.resp.as_ref());
        resp.is_some_and(|resp| !resp.waiting.is_empty())
    }

    /// Do so many of its answers wait that its next command has to?
    fn has_many_waiting_answers(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.find(id) else {
            return false;
        };
        let bytes_max = session.replies_bytes_max(&self.settings);
        let resp = session.resp.as_ref();
        resp.is_some_and(|resp| resp.has_many_waiting(bytes_max))
    }

    /// A session ends: nobody waits for its answers.
    pub(super) fn release_resp(&mut self, id: SessionId) {
        let Some(resp) = self
            .sessions
            .find(id)
            .and_then(|session| session.resp.as_mut())
        else {
            return;
        };
        resp.waiting_bytes = 0;
        for waiting in std::mem::take(&mut resp.waiting) {
            if let Waiting::Tally(number) = waiting {
                self.tallies.forget(number);
            }
        }
    }

    /// The last words to a session that ends for this reason. Redis has none for most.
    pub(super) fn resp_words(reason: CloseReason, detail: &[u8]) -> Vec<u8> {
        let mut words = Vec::new();
        match reason {
            CloseReason::ClientClosed
            | CloseReason::ConnectionLost
            | CloseReason::GoingAway
            | CloseReason::HandshakeRefused
            | CloseReason::TooSlow
            | CloseReason::PingTimeout
            // No peer hosts it.
            | CloseReason::HostGone
            | CloseReason::Disconnected => {}
            CloseReason::ProtocolError
            | CloseReason::Unsupported
            | CloseReason::BadPayload
            | CloseReason::TooLate
            | CloseReason::TooBig
            | CloseReason::TokenExpired
            | CloseReason::Terminated
            | CloseReason::Internal => {
                let text = [b"ERR ", detail].concat();
                reply::write_error(&text, &mut words);
            }
        }
        words
    }
}
