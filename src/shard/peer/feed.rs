//! The feed of a peer: what clients send to it waits while it is behind.
//!
//! A peer is *behind* from the moment when more than [`FEED_BYTES_MAX`] waits for it until no more than half of that
//! does. Meanwhile a command that would send it something is kept by the session that said it, with everything behind
//! it, and that session is not read. So a peer that does not drain costs those who speak to it, and nobody else; and
//! what waits for it is bounded by what was on its way when it fell behind. Nothing is dropped, and nothing is answered
//! `busy` but a request whose own time is over.
//!
//! What is told to it about its clients (CONNECT, DISCONNECT), and answers to what it asked, is queued all the same:
//! sessions and requests bound it.
//!
//! Other shards hear of it as they hear of subscriptions: [`Key::Behind`] comes up and goes, one edge each, in order, and
//! what became moot while a lane was full is never told. Where all who handle an event are behind, it
//! is [`Key::Clogged`]: its requests go to other shards, or wait if there are none.
//!
//! A session that waits is not tried again each turn: it is listed under what it waits for, and is woken by the edge.
//! There may be very many, and the first few of them may be all that it takes to put the peer behind again; so a turn
//! wakes [`WAKE_MAX`] of them, those that have waited longest, and the next goes on if nothing speaks against it. Who is
//! woken too early keeps its place.
//!
//! Invariants: a session is listed in `waiting` under the `clog` of its stall, at its place, and nowhere else; a
//! receiver is announced as clogged for an event if and only if handlers here fit it and all of them are behind.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::address::{SessionId, ShardId, ShardSet};
use crate::limits::FEED_BYTES_MAX;

use super::super::Shard;
use super::super::parcel::{Key, Receiver};
use super::super::session::Since;

/// What a command waits for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Clog {
    /// This peer is behind.
    Peer(ShardId, SessionId),
    /// All that fit this receiver, of those that handle this event, are.
    Event(Receiver, Bytes),
}

/// Who is behind, and who waits for them.
#[derive(Debug, Default)]
pub struct Feeds {
    /// Peers of other shards that are behind, with their names.
    behind: BTreeMap<(ShardId, SessionId), Bytes>,
    /// Shards on which all who handle an event are.
    clogged: HashMap<(Receiver, Bytes), ShardSet, RandomState>,
    /// By their places.
    waiting: BTreeMap<Clog, BTreeMap<u64, SessionId>>,
    /// What may be over for those who wait for it.
    waking: BTreeSet<Clog>,
    /// Places given so far.
    places: u64,
}

/// Sessions that one turn wakes, of those that wait for one thing.
const WAKE_MAX: usize = 64;

impl Feeds {
    /// Everything that is remembered.
    pub fn entries(&self) -> usize {
        self.behind.len() + self.clogged.len() + self.waiting.len() + self.waking.len()
    }

    /// Is anybody to be woken?
    pub fn is_restless(&self) -> bool {
        !self.waking.is_empty()
    }

    /// The session at this place waits for this no more.
    pub fn leave(&mut self, clog: &Clog, place: u64) {
        if let Some(waiting) = self.waiting.get_mut(clog) {
            waiting.remove(&place);
            if waiting.is_empty() {
                self.waiting.remove(clog);
            }
        }
    }

    /// Is this session listed under this, at this place?
    #[cfg(test)]
    pub fn has(&self, clog: &Clog, place: u64, id: SessionId) -> bool {
        let waiting = self.waiting.get(clog);
        waiting.is_some_and(|waiting| waiting.get(&place) == Some(&id))
    }

    /// How many sessions wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.waiting.values().map(BTreeMap::len).sum()
    }
}

impl Shard {
    /// Is this session a peer that is behind?
    pub(in super::super) fn is_shut(&self, shard: ShardId, id: SessionId) -> bool {
        if shard != self.id {
            return self.feeds.behind.contains_key(&(shard, id));
        }
        let peer = self.sessions.peek(id).and_then(|one| one.peer.as_ref());
        peer.is_some_and(|peer| peer.hosting.is_behind)
    }

    /// The shards on which all are behind that fit a receiver and handle this event.
    pub(in super::super) fn clogged_shards(&self, receiver: &Receiver, event: &Bytes) -> ShardSet {
        let key = (receiver.clone(), event.clone());
        let mut shards = self.feeds.clogged.get(&key).copied().unwrap_or_default();
        let own = self.handlers.get(event);
        if own.is_some_and(|handlers| handlers.clogged.contains(receiver)) {
            shards.insert(self.id);
        }
        shards
    }

    /// What a word for one session has to wait for.
    pub(in super::super) fn clog_of(
        &mut self,
        shard: ShardId,
        receiver: &Receiver,
    ) -> Option<Clog> {
        let id = match receiver {
            Receiver::Session(id) | Receiver::Host(id) => *id,
            Receiver::Peer(name) if shard == self.id => self.peer_named(name)?,
            Receiver::Peer(name) => {
                let mut behind = self.feeds.behind.iter();
                let is_it = |((of, _), named): &(&(ShardId, SessionId), &Bytes)| {
                    *of == shard && *named == name
                };
                behind.find(is_it)?.0.1
            }
            Receiver::Service | Receiver::Master | Receiver::AnyPeer => return None,
        };
        self.is_shut(shard, id).then_some(Clog::Peer(shard, id))
    }

    /// A session's command waits for this; until its own time is over, if it has one.
    pub(in super::super) fn wait_for_feed(
        &mut self,
        id: SessionId,
        clog: Clog,
        until_ms: Option<u64>,
    ) {
        self.leave_clog(id);
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let stall = session.stall.get_or_insert_default();
        stall.clog = Some(clog.clone());
        if stall.place == 0 {
            self.feeds.places += 1;
            stall.place = self.feeds.places;
        }
        let place = stall.place;
        if let Some(until_ms) = until_ms {
            stall.until = Since::at(until_ms);
            stall.busy = Since::at(until_ms);
        }
        self.feeds
            .waiting
            .entry(clog)
            .or_default()
            .insert(place, id);
        self.set_timer(id);
    }

    /// A session's command is to be tried again, or is gone.
    pub(in super::super) fn leave_clog(&mut self, id: SessionId) {
        let session = self.sessions.find(id);
        if let Some(stall) = session.and_then(|session| session.stall.as_mut())
            && let Some(clog) = stall.clog.take()
        {
            stall.until = Since::NEVER;
            self.feeds.leave(&clog, stall.place);
        }
    }

    /// Those who wait for this are to be tried again.
    pub(in super::super) fn wake(&mut self, clog: &Clog) {
        if self.feeds.waiting.contains_key(clog) {
            self.feeds.waking.insert(clog.clone());
            self.has_leftovers = true;
        }
    }

    /// Lets go on who may, and so many as a turn wakes.
    pub(in super::super) fn wake_waiting(&mut self) {
        for clog in std::mem::take(&mut self.feeds.waking) {
            // Others may have been told that everything taken is handed on: then it is as good as never read.
            if self.is_sealed {
                continue;
            }
            for _ in 0..WAKE_MAX {
                let Some(waiting) = self.feeds.waiting.get(&clog) else {
                    break;
                };
                let Some((_, &id)) = waiting.first_key_value() else {
                    break;
                };
                if self.is_so(&clog, id) {
                    break;
                }
                self.leave_clog(id);
                self.resume_later(id);
            }
            let next = self.feeds.waiting.get(&clog);
            let next = next.and_then(|waiting| waiting.values().next().copied());
            if next.is_some_and(|id| !self.is_so(&clog, id)) {
                self.wake(&clog);
            }
        }
    }

    /// Has a session still to wait for this?
    fn is_so(&self, clog: &Clog, id: SessionId) -> bool {
        match clog {
            Clog::Peer(shard, peer) => self.is_shut(*shard, *peer),
            Clog::Event(receiver, event) => {
                let shards = self.serving_shards(id, receiver, event);
                let clogged = self.clogged_shards(receiver, event);
                !shards.is_empty() && clogged.is_superset(shards)
            }
        }
    }

    /// Looks whether a peer has fallen behind, or has caught up.
    pub(in super::super) fn look_at_feed(&mut self, id: SessionId) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let is_open = session.is_open();
        let charged = session.outbox.charged();
        let Some(peer) = &mut session.peer else {
            return;
        };
        let bound = match peer.hosting.is_behind {
            true => FEED_BYTES_MAX / 2,
            false => FEED_BYTES_MAX,
        };
        let is_behind = is_open && charged > bound;
        if is_behind == peer.hosting.is_behind {
            return;
        }
        peer.hosting.is_behind = is_behind;
        let key = Key::Behind(id, peer.name.clone());
        if is_behind {
            self.stats.feeds_paused += 1;
            self.interest.add(&key);
        } else {
            self.interest.remove(&key);
        }
        let serving = session.serving.as_ref();
        let events: Vec<_> =
            serving.map_or_else(Vec::new, |one| one.events.iter().cloned().collect());
        for event in events {
            self.look_at_handlers(&event);
        }
        self.announce();
        if !is_behind {
            self.wake(&Clog::Peer(self.id, id));
            self.tell_stale(id);
        }
    }

    /// Looks whether all who handle an event are behind now, or one is not any more.
    pub(in super::super) fn look_at_handlers(&mut self, event: &Bytes) {
        for receiver in [Receiver::Service, Receiver::Master, Receiver::AnyPeer] {
            let Some(handlers) = self.handlers.get(event) else {
                return;
            };
            let is_behind = |session| self.is_shut(self.id, session);
            let is_clogged = handlers.fitting(&receiver).next().is_some()
                && handlers.fitting(&receiver).all(is_behind);
            let was_clogged = handlers.clogged.contains(&receiver);
            let Some(handlers) = self.handlers.get_mut(event) else {
                return;
            };
            let key = Key::Clogged(receiver.clone(), event.clone());
            if is_clogged && !was_clogged {
                handlers.clogged.push(receiver);
                self.interest.add(&key);
            } else if was_clogged && !is_clogged {
                handlers.clogged.retain(|of| *of != receiver);
                self.interest.remove(&key);
                self.wake(&Clog::Event(receiver, event.clone()));
            }
        }
    }

    /// Somebody else handles an event, or nobody on another shard any more: who waits may not have to.
    pub(in super::super) fn wake_for_event(&mut self, event: &Bytes) {
        for receiver in [Receiver::Service, Receiver::Master, Receiver::AnyPeer] {
            self.wake(&Clog::Event(receiver, event.clone()));
        }
    }

    /// Takes news of another shard's peers.
    pub(in super::super) fn take_feed_edge(&mut self, from: ShardId, key: Key, up: bool) {
        match key {
            Key::Behind(id, name) if up => {
                self.feeds.behind.insert((from, id), name);
            }
            Key::Behind(id, _) => {
                self.feeds.behind.remove(&(from, id));
                self.wake(&Clog::Peer(from, id));
            }
            Key::Clogged(receiver, event) if up => {
                let clogged = self.feeds.clogged.entry((receiver, event));
                clogged.or_default().insert(from);
            }
            Key::Clogged(receiver, event) => {
                let key = (receiver, event);
                if let Some(shards) = self.feeds.clogged.get_mut(&key) {
                    shards.remove(from);
                    if shards.is_empty() {
                        self.feeds.clogged.remove(&key);
                    }
                }
                self.wake(&Clog::Event(key.0, key.1));
            }
            Key::Filter(_)
            | Key::Service(_)
            | Key::Master(_)
            | Key::AnyPeer(_)
            | Key::Peer(_)
            | Key::Tokens
            | Key::Host(..)
            | Key::HostEvent(..) => {}
        }
    }

    /// A peer ends: nobody waits for it.
    pub(super) fn release_feed(&mut self, id: SessionId) {
        let session = self.sessions.find(id);
        if let Some(peer) = session.and_then(|session| session.peer.as_mut())
            && std::mem::take(&mut peer.hosting.is_behind)
        {
            let name = peer.name.clone();
            self.interest.remove(&Key::Behind(id, name));
            self.wake(&Clog::Peer(self.id, id));
        }
    }
}

#[cfg(test)]
mod tests;
