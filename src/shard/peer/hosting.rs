//! Hosts: peers that clients are given to, and that hear of what these do.
//!
//! A peer that watches what clients do is a *host*. Every shard knows all of them, by edges of [`Key::Host`]; each gives
//! every client that comes in to the host that has the fewest of this shard's, for life. What a host watches of its
//! clients is told to it in *words*: here at once, on another shard by parcels that keep their order and are never lost.
//! A command that makes one necessary waits while the host is behind (`feed`); that a client has come or gone is told all
//! the same.
//!
//! A client's shard decides by what it knows of the host; the host's shard looks again, since what a peer watches it is
//! told, and nothing else. A word for a host that has gone finds nobody, and the edge that says so is on its way behind
//! it: then its clients are closed with 1012, since who they are is known to nobody any more.
//!
//! *emit → disconnect*, the order argument: what a host sends to a client and then its DISCONNECT take effect on the
//! client's shard, in the order of one lane, and that lane is the same for events to one client, for events to rooms, and
//! for the word that closes. So what was emitted before enters the client's outbox before the close frame does, and no
//! turn of any third shard is in between. ∎
//!
//! Invariants: `known` has a host as long as it is announced, with the number of this shard's sessions that it hosts; a
//! session's host, if it has one that is known, counts it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::address::{ClientId, SessionId, ShardId};
use crate::error::{CloseReason, Code};
use crate::message::Payload;
use crate::protocol::peer::{Admitted, PeerCommand, PeerEvent, Watch};
use crate::protocol::{Command, Event, Protocol, Tag};
use crate::topic::Filter;
use crate::ws::close;

use super::super::Shard;
use super::super::command::Wait;
use super::super::parcel::Key;
use super::super::subscriptions::Subscriptions;
use super::PeerParcel;
use super::admission::Arriving;
use super::feed::Clog;
use super::rooms::RoomParcel;
use super::tokens::ShownId;

/// What only a client has that a peer hosts, or has put into rooms.
#[derive(Debug, Default)]
pub struct Hosted {
    /// The peer, for life.
    pub host: Option<ClientId>,
    /// Has it been asked whether it may come in, and has not answered?
    pub is_asked: bool,
    /// What is to be told of it when it has come in.
    pub arriving: Option<Arc<Arriving>>,
    /// How its connection ends, for DISCONNECT.
    pub farewell: Option<(u16, Bytes)>,
    /// The id that it has shown, if it has.
    pub shown: Option<Box<ShownId>>,
    /// The rooms that it is in, with its place among the members of each.
    pub rooms: Subscriptions,
}

/// What a peer has for the clients that it hosts.
#[derive(Debug, Default)]
pub struct Hosting {
    /// What other shards are told that it watches; as soon as it hosts once, until it goes.
    pub announced: Option<Watch>,
    /// What they were told before.
    pub former: Option<Watch>,
    /// Its joins that other shards have not confirmed.
    pub joins: usize,
    /// Does what clients send to it wait?
    pub is_behind: bool,
    /// Filters of which it believes what is not so, and what it believes: told when it is not behind any more.
    pub stale: BTreeMap<Filter, bool>,
}

/// All hosts of the broker.
#[derive(Debug, Default)]
pub struct Hosts {
    /// In order, so that clients are given to them alike in each run.
    known: BTreeMap<(ShardId, SessionId), Known>,
    /// Has any host ever watched ADMIT? From then on nobody comes in unasked, whoever is there.
    pub(super) is_closed: bool,
    /// Peers of this shard that watch which filters somebody subscribes to.
    pub(super) topic_watchers: Vec<SessionId>,
}

#[derive(Debug, Default)]
struct Known {
    /// What it watches. While that changes there are two: the new, behind the old.
    masks: SmallVec<[Watch; 2]>,
    /// What it handles.
    events: BTreeSet<Bytes>,
    /// The sessions of this shard that it hosts.
    sessions: usize,
}

impl Known {
    fn watch(&self) -> Watch {
        self.masks.last().copied().unwrap_or_default()
    }
}

impl Hosts {
    /// Is there any?
    pub fn is_any(&self) -> bool {
        !self.known.is_empty()
    }

    /// Everything that is remembered.
    pub fn entries(&self) -> usize {
        self.known.len() + self.topic_watchers.len()
    }

    /// Those that watch any of this.
    pub(super) fn watching(&self, what: Watch) -> impl Iterator<Item = (ShardId, SessionId)> {
        let known = self.known.iter();
        known
            .filter(move |(_, known)| known.watch().has_any(what))
            .map(|(host, _)| *host)
    }

    /// Does this one watch all of this?
    pub fn watches(&self, host: (ShardId, SessionId), what: Watch) -> bool {
        self.known
            .get(&host)
            .is_some_and(|known| known.watch().has(what))
    }

    /// Does this one handle this event?
    pub fn handles(&self, host: (ShardId, SessionId), event: &Bytes) -> bool {
        self.known
            .get(&host)
            .is_some_and(|known| known.events.contains(event))
    }

    /// The host with the fewest sessions of shard `own`, among those that watch any of this. Of several the nearest:
    /// so those of many shards do not all begin with the same.
    fn choose(&self, own: ShardId, shards: usize, what: Watch) -> Option<(ShardId, SessionId)> {
        let distance = |shard: ShardId| (shard.index() + shards - own.index()) % shards;
        self.known
            .iter()
            .filter(|(_, known)| known.watch().has_any(what))
            .min_by_key(|((shard, _), known)| (known.sessions, distance(*shard)))
            .map(|(host, _)| *host)
    }
}

/// What a host is told of one client.
#[derive(Clone, Debug)]
pub enum Word {
    /// It wants to come in.
    Admit(Arc<Arriving>),
    /// It has come in.
    Connect(Arc<Arriving>),
    /// It has gone.
    Disconnect { code: u16, reason: Bytes },
    /// It has subscribed, or unsubscribed.
    Subscribed { up: bool, filter: Filter },
    /// It has published.
    Published { topic: Bytes, data: Payload },
}

impl Word {
    /// What a host watches to be told this.
    fn watch(&self) -> Watch {
        match self {
            Word::Admit(_) => Watch::ADMIT,
            Word::Connect(_) => Watch::CONNECT,
            Word::Disconnect { .. } => Watch::DISCONNECT,
            Word::Subscribed { .. } => Watch::SUBSCRIBE,
            Word::Published { .. } => Watch::PUBLISH,
        }
    }

    fn size(&self) -> usize {
        match self {
            Word::Admit(arriving) | Word::Connect(arriving) => arriving.size(),
            Word::Disconnect { reason, .. } => reason.len(),
            Word::Subscribed { filter, .. } => filter.written().len(),
            Word::Published { topic, data } => topic.len() + data.bytes().len(),
        }
    }
}

/// A word from one shard to another about hosts and their clients.
#[derive(Debug)]
pub enum HostParcel {
    /// For your host: what a client of ours does.
    Word {
        host: SessionId,
        client: SessionId,
        word: Word,
    },
    /// Our host's word on a client of yours that wants to come in; none: it can't be asked.
    Verdict {
        host: SessionId,
        client: SessionId,
        verdict: Option<Admitted>,
    },
    /// Close a client of yours, says a peer of ours.
    Disconnect {
        peer: SessionId,
        client: SessionId,
        code: u16,
        reason: Bytes,
        tag: Option<Tag>,
    },
    /// What your peer asked for was done, or was not.
    Done {
        peer: SessionId,
        tag: Tag,
        result: Result<(), (Code, &'static str)>,
    },
    /// About rooms.
    Room(RoomParcel),
}

impl HostParcel {
    /// What it holds, in bytes.
    pub fn size(&self) -> usize {
        match self {
            HostParcel::Word { word, .. } => word.size(),
            HostParcel::Verdict { verdict, .. } => match verdict {
                Some(Admitted::Yes { user }) => user.as_ref().map_or(0, Bytes::len),
                Some(Admitted::No { reason }) => reason.len(),
                None => 0,
            },
            HostParcel::Disconnect { reason, .. } => reason.len(),
            HostParcel::Done { .. } => 0,
            HostParcel::Room(parcel) => parcel.size(),
        }
    }
}

/// Can a peer host sessions of this protocol, and put them into rooms?
pub(super) fn is_hostable(protocol: Protocol) -> bool {
    match protocol {
        Protocol::Native | Protocol::Clusterws(_) => true,
        Protocol::Resp | Protocol::Peer | Protocol::Echo => false,
    }
}

/// No such client.
pub(super) const NOT_HERE: (Code, &str) = (Code::NoHandler, "this client is not connected");

impl Shard {
    /// From the answer on, this peer is told of this, and of nothing else. Who hosts is announced until it goes: what
    /// it has is its for life, also while it watches nothing.
    pub(super) fn watch(
        &mut self,
        id: SessionId,
        mask: Watch,
        tag: Option<Tag>,
    ) -> Result<(), Wait> {
        let mask = Watch(mask.0 & Watch::ALL.0);
        let is_in_process = self.is_in_process(id);
        let Some(peer) = self.sessions.find(id).and_then(|one| one.peer.as_mut()) else {
            return Ok(());
        };
        if !is_in_process && mask.has_any(Watch(Watch::LOG.0 | Watch::HTTP.0)) {
            let reason = "this is for Links of the broker's own process";
            self.done(id, tag.as_ref(), Err((Code::NotAllowed, reason)));
            return Ok(());
        }
        peer.watch = mask;
        if !mask.has(Watch::TOPIC) {
            peer.hosting.stale.clear();
        }
        let old = peer.hosting.announced;
        let new = (old.is_some() || mask.hosts() || mask.has(Watch::HTTP)).then_some(mask);
        if old != new {
            peer.hosting.former = old;
            peer.hosting.announced = new;
            // The new before the old: a shard that has heard of neither would think that it has gone.
            if let Some(new) = new {
                self.interest.add(&Key::Host(id, new));
                self.take_host_edge(self.id, Key::Host(id, new), true);
            }
            if let Some(old) = old {
                self.interest.remove(&Key::Host(id, old));
                self.take_host_edge(self.id, Key::Host(id, old), false);
            } else {
                self.announce_host_events(id);
            }
            self.announce();
        }
        self.hosts.topic_watchers.retain(|watcher| *watcher != id);
        if mask.has(Watch::TOPIC) {
            self.hosts.topic_watchers.push(id);
        }
        if !self.is_watch_known(id) {
            let command = PeerCommand::Watch { mask, tag };
            return Err(Wait::from(Command::Peer(Box::new(command))));
        }
        self.done(id, tag.as_ref(), Ok(empty()));
        Ok(())
    }

    /// Does every shard know what this peer watches, and believe nothing else?
    fn is_watch_known(&mut self, id: SessionId) -> bool {
        let session = self.sessions.find(id);
        let Some(peer) = session.and_then(|session| session.peer.as_ref()) else {
            return true;
        };
        let Some(watch) = peer.hosting.announced else {
            return true;
        };
        let is_over =
            |former| former == watch || !self.interest.is_remembered(&Key::Host(id, former));
        self.interest.is_announced(&Key::Host(id, watch)) && peer.hosting.former.is_none_or(is_over)
    }

    /// A peer hosts from now on: what it handles is announced as a host's.
    fn announce_host_events(&mut self, id: SessionId) {
        let session = self.sessions.find(id);
        let Some(serving) = session.and_then(|session| session.serving.as_ref()) else {
            return;
        };
        for event in serving.events.clone() {
            self.host_handles(id, &event, true);
        }
    }

    /// A session handles an event from now on, or no more: told of hosts, since what their own clients ask goes to them.
    pub(in super::super) fn host_handles(&mut self, id: SessionId, event: &Bytes, up: bool) {
        let session = self.sessions.find(id);
        let peer = session.and_then(|session| session.peer.as_ref());
        if peer.is_none_or(|peer| peer.hosting.announced.is_none()) {
            return;
        }
        let key = Key::HostEvent(id, event.clone());
        if up {
            self.interest.add(&key);
        } else {
            self.interest.remove(&key);
        }
        self.take_host_edge(self.id, key, up);
    }

    /// Does every shard know that a host handles this, if it is one?
    pub(in super::super) fn is_host_event_known(&mut self, id: SessionId, event: &Bytes) -> bool {
        let key = Key::HostEvent(id, event.clone());
        !self.hosts.handles((self.id, id), event) || self.interest.is_announced(&key)
    }

    /// Takes news of a host, of another shard or of this one.
    pub(in super::super) fn take_host_edge(&mut self, from: ShardId, key: Key, up: bool) {
        match key {
            Key::Host(id, watch) if up => {
                self.hosts.is_closed |= watch.has(Watch::ADMIT);
                let known = self.hosts.known.entry((from, id)).or_default();
                known.masks.push(watch);
            }
            Key::Host(id, watch) => {
                let Some(known) = self.hosts.known.get_mut(&(from, id)) else {
                    return;
                };
                known.masks.retain(|mask| *mask != watch);
                if known.masks.is_empty() {
                    self.hosts.known.remove(&(from, id));
                    self.host_gone((from, id));
                }
            }
            // Where a lane was full, what it handles may be heard of before what it watches.
            Key::HostEvent(id, event) if up => {
                let known = self.hosts.known.entry((from, id)).or_default();
                known.events.insert(event);
            }
            // It may be heard of after it has gone, too.
            Key::HostEvent(id, event) => {
                if let Some(known) = self.hosts.known.get_mut(&(from, id)) {
                    known.events.remove(&event);
                    if known.events.is_empty() && known.masks.is_empty() {
                        self.hosts.known.remove(&(from, id));
                    }
                }
            }
            Key::Filter(_)
            | Key::Service(_)
            | Key::Master(_)
            | Key::AnyPeer(_)
            | Key::Peer(_)
            | Key::Tokens
            | Key::Behind(..)
            | Key::Clogged(..) => {}
        }
    }

    /// Its clients go with a host: nobody knows any more who they are.
    fn host_gone(&mut self, host: (ShardId, SessionId)) {
        let host = self.peer_id(host);
        let is_its = |hosted: &Hosted| hosted.host == Some(host);
        let clients: Vec<_> = self
            .sessions
            .iter()
            .filter(|session| session.hosted.as_deref().is_some_and(is_its))
            .map(|session| (session.id, session.is_open()))
            .collect();
        for (client, is_open) in clients {
            if is_open {
                self.close(client, CloseReason::HostGone);
            } else {
                self.refuse_unasked(client);
            }
        }
    }

    fn peer_id(&self, (shard, session): (ShardId, SessionId)) -> ClientId {
        ClientId {
            broker: self.settings.broker,
            shard,
            session,
        }
    }

    /// Who hosts this session.
    pub(in super::super) fn host_of(&self, id: SessionId) -> Option<(ShardId, SessionId)> {
        let host = self.sessions.peek(id)?.hosted.as_ref()?.host?;
        Some((host.shard, host.session))
    }

    /// Gives a session to the host with the fewest, among those that watch any of this.
    pub(super) fn give_to_host(
        &mut self,
        id: SessionId,
        what: Watch,
    ) -> Option<(ShardId, SessionId)> {
        let host = self.hosts.choose(self.id, self.settings.shards, what)?;
        let host_id = self.peer_id(host);
        let session = self.sessions.find(id)?;
        session.hosted.get_or_insert_default().host = Some(host_id);
        if let Some(known) = self.hosts.known.get_mut(&host) {
            known.sessions += 1;
        }
        Some(host)
    }

    /// Takes a session from its host, which hears no more of it.
    pub(super) fn take_from_host(&mut self, id: SessionId) {
        let Some(host) = self.host_of(id) else {
            return;
        };
        if let Some(known) = self.hosts.known.get_mut(&host) {
            known.sessions -= 1;
        }
        let session = self.sessions.find(id);
        if let Some(hosted) = session.and_then(|session| session.hosted.as_mut()) {
            hosted.host = None;
        }
    }

    /// What a command of a session has to wait for if its host is to be told of it: the host may be behind, or words for
    /// it have no room.
    pub(in super::super) fn host_makes_wait(&mut self, id: SessionId, what: Watch) -> bool {
        let Some((shard, host)) = self.host_of(id) else {
            return false;
        };
        if !self.hosts.watches((shard, host), what) {
            return false;
        }
        if self.is_shut(shard, host) {
            self.wait_for_feed(id, Clog::Peer(shard, host), None);
            return true;
        }
        self.has_words_for(shard)
    }

    /// Tells the host of a session, if it wants to know.
    pub(in super::super) fn tell_host(&mut self, id: SessionId, word: Word) {
        let Some((shard, host)) = self.host_of(id) else {
            return;
        };
        if !self.hosts.watches((shard, host), word.watch()) {
            return;
        }
        if shard == self.id {
            return self.take_host_word(shard, host, id, word);
        }
        let parcel = HostParcel::Word {
            host,
            client: id,
            word,
        };
        let parcel = PeerParcel::Host(parcel);
        if self.has_way(shard, &parcel) {
            self.push_peer(shard, parcel);
        } else {
            self.send_peer(shard, parcel);
        }
    }

    /// A session has published this: its host is told, if it wants to know.
    pub(in super::super) fn tell_host_of_publish(
        &mut self,
        id: SessionId,
        topic: &Bytes,
        data: &Payload,
    ) {
        if self.host_of(id).is_some() {
            let word = Word::Published {
                topic: topic.clone(),
                data: data.clone(),
            };
            self.tell_host(id, word);
        }
    }

    /// A session has subscribed or unsubscribed: its host is told, if it wants to know.
    pub(in super::super) fn tell_host_of_filter(
        &mut self,
        id: SessionId,
        up: bool,
        filter: &Filter,
    ) {
        if self.host_of(id).is_some() {
            let filter = filter.clone();
            self.tell_host(id, Word::Subscribed { up, filter });
        }
    }

    /// A word for a host of this shard, about a client of that one.
    fn take_host_word(&mut self, from: ShardId, host: SessionId, client: SessionId, word: Word) {
        let session = self.sessions.find(host).filter(|session| session.is_open());
        let watch = session
            .and_then(|session| session.peer.as_ref())
            .map_or(Watch::default(), |peer| peer.watch);
        if !watch.has(word.watch()) {
            if let Word::Admit(_) = word {
                self.send_verdict(from, host, client, None);
            }
            return;
        }
        let client = ClientId {
            broker: self.settings.broker,
            shard: from,
            session: client,
        };
        let mut tell = |event: PeerEvent<'_>| self.tell(host, &Event::Peer(&event), false);
        match &word {
            Word::Admit(arriving) => {
                arriving.with(client, |arrival| tell(PeerEvent::Admit(arrival)))
            }
            Word::Connect(arriving) => {
                arriving.with(client, |arrival| tell(PeerEvent::Connect(arrival)));
            }
            Word::Disconnect { code, reason } => tell(PeerEvent::Disconnect {
                client,
                code: *code,
                reason,
            }),
            Word::Subscribed { up, filter } => tell(PeerEvent::Subscribed {
                client,
                up: *up,
                filter: filter.written(),
            }),
            Word::Published { topic, data } => tell(PeerEvent::Published {
                client,
                topic,
                data,
            }),
        }
    }

    /// Closes a client's connection with this code and reason.
    pub(super) fn disconnect_client(
        &mut self,
        id: SessionId,
        client: ClientId,
        code: u16,
        reason: Bytes,
        tag: Option<Tag>,
    ) -> Result<(), Wait> {
        let refused = if !close::is_valid_code(code) {
            Some((Code::BadType, "no such close code"))
        } else if !self.is_of_this_broker(client) {
            Some(NOT_HERE)
        } else {
            None
        };
        if let Some(refused) = refused {
            self.done(id, tag.as_ref(), Err(refused));
            return Ok(());
        }
        if client.shard == self.id {
            let result = self.take_disconnect(client.session, code, reason);
            self.done(id, tag.as_ref(), result.map(|()| empty()));
            return Ok(());
        }
        let parcel = PeerParcel::Host(HostParcel::Disconnect {
            peer: id,
            client: client.session,
            code,
            reason: reason.clone(),
            tag: tag.clone(),
        });
        if !self.has_way(client.shard, &parcel) {
            let command = PeerCommand::Disconnect {
                client,
                code,
                reason,
                tag,
            };
            return Err(Wait::from(Command::Peer(Box::new(command))));
        }
        self.push_peer(client.shard, parcel);
        Ok(())
    }

    fn take_disconnect(
        &mut self,
        client: SessionId,
        code: u16,
        reason: Bytes,
    ) -> Result<(), (Code, &'static str)> {
        let session = self.sessions.find(client);
        if !session.is_some_and(|session| session.is_open() && is_hostable(session.protocol)) {
            return Err(NOT_HERE);
        }
        self.close_with(client, CloseReason::Disconnected, Some(code), &reason);
        Ok(())
    }

    /// Does this id name a shard of this broker?
    pub(in super::super) fn is_of_this_broker(&self, client: ClientId) -> bool {
        client.broker == self.settings.broker && client.shard.index() < self.settings.shards
    }

    /// Takes another shard's word about hosts and their clients.
    pub(super) fn take_host_parcel(&mut self, from: ShardId, parcel: HostParcel) {
        match parcel {
            HostParcel::Word { host, client, word } => {
                self.take_host_word(from, host, client, word);
            }
            HostParcel::Verdict {
                host,
                client,
                verdict,
            } => self.take_verdict((from, host), client, verdict),
            HostParcel::Disconnect {
                peer,
                client,
                code,
                reason,
                tag,
            } => {
                let result = self.take_disconnect(client, code, reason);
                if let Some(tag) = tag {
                    let done = HostParcel::Done { peer, tag, result };
                    self.send_peer(from, PeerParcel::Host(done));
                }
            }
            HostParcel::Done { peer, tag, result } => {
                self.done(peer, Some(&tag), result.map(|()| empty()));
            }
            HostParcel::Room(parcel) => self.take_room_parcel(from, parcel),
        }
    }

    /// Remembers how the connection of a hosted client ends, unless that is known already.
    pub(in super::super) fn note_farewell(
        &mut self,
        id: SessionId,
        code: Option<u16>,
        text: &[u8],
    ) {
        let session = self.sessions.find(id);
        if let Some(hosted) = session.and_then(|session| session.hosted.as_mut())
            && hosted.host.is_some()
            && hosted.farewell.is_none()
        {
            // RFC 6455, 7.1.5: a close frame without a code is 1005.
            let code = code.unwrap_or(1005);
            hosted.farewell = Some((code, Bytes::copy_from_slice(text)));
        }
    }

    /// A session ends: a host, or one that is hosted.
    pub(super) fn release_hosting(&mut self, id: SessionId) {
        self.release_hosted(id);
        self.release_feed(id);
        self.hosts.topic_watchers.retain(|watcher| *watcher != id);
        let session = self.sessions.find(id);
        let peer = session.and_then(|session| session.peer.as_mut());
        let announced = peer.and_then(|peer| peer.hosting.announced.take());
        if let Some(watch) = announced {
            self.interest.remove(&Key::Host(id, watch));
            self.take_host_edge(self.id, Key::Host(id, watch), false);
        }
    }

    fn release_hosted(&mut self, id: SessionId) {
        let Some(hosted) = self.sessions.find(id).and_then(|one| one.hosted.as_mut()) else {
            return;
        };
        // RFC 6455, 7.1.5: without a close frame it is 1006.
        let (code, reason) = hosted.farewell.take().unwrap_or((1006, Bytes::new()));
        let rooms = std::mem::take(&mut hosted.rooms);
        self.leave_rooms(id, &rooms);
        self.tell_host(id, Word::Disconnect { code, reason });
        self.take_from_host(id);
        if let Some(session) = self.sessions.find(id) {
            session.hosted = None;
        }
    }

    /// Is it one that a peer may host, and put into rooms, and is it in?
    pub(super) fn is_client(&self, id: SessionId) -> bool {
        let session = self.sessions.peek(id);
        session.is_some_and(|session| session.is_open() && is_hostable(session.protocol))
    }
}

/// The answer to a call that gives back nothing.
pub(super) fn empty() -> Payload {
    Payload::binary(Bytes::new())
}

#[cfg(test)]
mod tests;
