//! Handlers: which sessions handle an event, and whom an address means.
//!
//! An address is looked at twice. The sender's shard *locates* it: which shard, and what it is to look for there. That shard
//! *finds* the session. In between the handlers may have gone; a request then goes on to another shard, once
//! ([`request`](super::request)).
//!
//! A *service* is handled by anybody, a *master's* event by Links of the broker's own process, any *peer's* by peers from
//! outside, but not by the one that asks. What a client asks of a service goes to its own host, if that handles it; else
//! to anybody who does; else to its host, if that wants what nobody handles. Whoever handles something and is behind is
//! left out while there are others.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::address::{Address, Sender, SessionId, ShardId, ShardSet};
use crate::error::Code;
use crate::protocol::peer::Watch;
use crate::protocol::{Action, Command, Event, Outcome, Protocol, Tag};

use super::Shard;
use super::command::Wait;
use super::parcel::{Key, Receiver};
use super::peer::Clog;

/// What a session that handles an event is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A client.
    Client,
    /// A Link of the broker's own process.
    Link,
    /// A peer from outside.
    Outside,
}

impl Kind {
    /// What of an event is announced for such a session, beside that somebody handles it.
    fn key(self, event: &Bytes) -> Option<Key> {
        match self {
            Kind::Client => None,
            Kind::Link => Some(Key::Master(event.clone())),
            Kind::Outside => Some(Key::AnyPeer(event.clone())),
        }
    }
}

/// The sessions of this shard that handle one event; they take turns.
#[derive(Debug, Default)]
pub struct Handlers {
    sessions: Vec<(SessionId, Kind)>,
    next: usize,
    /// Receivers for which all that fit are behind.
    pub(super) clogged: SmallVec<[Receiver; 1]>,
}

/// Where something goes.
pub(super) enum Way {
    /// To a shard, and whom it is for there.
    To(ShardId, Receiver),
    /// Nowhere, as long as this is so.
    Clogged(Clog),
    /// There is nobody.
    Nobody,
}

impl Handlers {
    /// The next one of those that fit.
    fn pick(&mut self, fits: impl Fn(SessionId, Kind) -> bool) -> Option<SessionId> {
        let count = self.sessions.len();
        let places = (1..=count).map(|step| (self.next + step) % count);
        let place = places.into_iter().find(|&place| {
            let (session, kind) = self.sessions[place];
            fits(session, kind)
        })?;
        self.next = place;
        Some(self.sessions[place].0)
    }

    fn has(&self, fits: impl Fn(SessionId, Kind) -> bool) -> bool {
        self.sessions
            .iter()
            .any(|(session, kind)| fits(*session, *kind))
    }

    /// The sessions that a receiver stands for.
    pub(super) fn fitting(&self, receiver: &Receiver) -> impl Iterator<Item = SessionId> + use<'_> {
        let fits = fitting(receiver, None);
        let sessions = self.sessions.iter().copied();
        sessions.filter_map(move |(session, kind)| fits(session, kind).then_some(session))
    }
}

impl Shard {
    /// Which shards handle an event of this session's, for a receiver of this kind.
    pub(super) fn serving_shards(
        &self,
        id: SessionId,
        receiver: &Receiver,
        event: &Bytes,
    ) -> ShardSet {
        let remote = match receiver {
            Receiver::Master => &self.peers.remote_masters,
            Receiver::AnyPeer => &self.peers.remote_any_peers,
            _ => &self.remote_services,
        };
        let mut shards = remote.get(event).copied().unwrap_or_default();
        let fits = fitting(receiver, Some(id));
        let handlers = self.handlers.get(event);
        if handlers.is_some_and(|handlers| handlers.has(fits)) {
            shards.insert(self.id);
        }
        shards
    }

    /// One of them, in turn.
    pub(super) fn pick_shard(&mut self, shards: ShardSet) -> Option<ShardId> {
        if shards.is_empty() {
            return None;
        }
        self.next_shard = self.next_shard.wrapping_add(1);
        shards.iter().nth(self.next_shard % shards.len())
    }

    /// Where a request goes.
    pub(super) fn locate(&mut self, id: SessionId, to: &Address, event: &Bytes) -> Way {
        let one = match to {
            Address::Service(_) => self.host_for(id, event),
            Address::Master(_) | Address::AnyPeer(_) => None,
            Address::Peer(name) => match self.shard_of_peer(name) {
                Some(shard) => Some((shard, Receiver::Peer(name.clone()))),
                None => return Way::Nobody,
            },
            Address::Client(client) if self.is_of_this_broker(*client) => {
                Some((client.shard, Receiver::Session(client.session)))
            }
            Address::Token(token) => match self.client_of_token(id, token) {
                Some(client) => Some((client.shard, Receiver::Session(client.session))),
                None => return Way::Nobody,
            },
            Address::Client(_) | Address::Topic(_) => return Way::Nobody,
        };
        if let Some((shard, receiver)) = one {
            return match self.clog_of(shard, &receiver) {
                Some(clog) => Way::Clogged(clog),
                None => Way::To(shard, receiver),
            };
        }
        let receiver = match to {
            Address::Master(_) => Receiver::Master,
            Address::AnyPeer(_) => Receiver::AnyPeer,
            _ => Receiver::Service,
        };
        let shards = self.serving_shards(id, &receiver, event);
        let clogged = self.clogged_shards(&receiver, event);
        let ready = shards.iter().filter(|shard| !clogged.contains(*shard));
        match self.pick_shard(ready.collect()) {
            Some(shard) => Way::To(shard, receiver),
            None if shards.is_empty() => Way::Nobody,
            None => Way::Clogged(Clog::Event(receiver, event.clone())),
        }
    }

    /// The host of a client, if what it asks of a service goes there: it handles the event, or nobody does and it wants
    /// what nobody handles.
    fn host_for(&self, id: SessionId, event: &Bytes) -> Option<(ShardId, Receiver)> {
        let host = self.host_of(id)?;
        let takes = self.hosts.handles(host, event)
            || self.hosts.watches(host, Watch::EVENT)
                && self
                    .serving_shards(id, &Receiver::Service, event)
                    .is_empty();
        takes.then_some((host.0, Receiver::Host(host.1)))
    }

    /// The session here that a request or an event is for.
    pub(super) fn find_receiver(
        &mut self,
        receiver: &Receiver,
        event: &Bytes,
        from: &Sender,
        is_able: impl FnOnce(Protocol) -> bool,
    ) -> Result<SessionId, Outcome> {
        let refused = |reason| Outcome::refused(Code::NoHandler, reason);
        match receiver {
            Receiver::Service | Receiver::Master | Receiver::AnyPeer => {
                let is_ours = from.client.shard == self.id;
                let asker = is_ours.then_some(from.client.session);
                let fits = fitting(receiver, asker);
                self.pick_handler(event, fits)
                    .ok_or_else(|| refused("nobody handles this"))
            }
            Receiver::Host(id) => {
                let (handles, watches) = self.takes_of_clients(*id, event);
                if handles {
                    return Ok(*id);
                }
                self.pick_handler(event, |_, _| true)
                    .or(watches.then_some(*id))
                    .ok_or_else(|| refused("nobody handles this"))
            }
            Receiver::Peer(name) => self
                .peer_named(name)
                .ok_or_else(|| refused("this peer is not connected")),
            Receiver::Session(id) => self
                .sessions
                .find(*id)
                .filter(|session| session.is_open() && is_able(session.protocol))
                .map(|session| session.id)
                .ok_or_else(|| refused("this client is not connected")),
        }
    }

    /// One that handles an event, in turn; one that is behind only if all are.
    fn pick_handler(
        &mut self,
        event: &Bytes,
        fits: impl Fn(SessionId, Kind) -> bool,
    ) -> Option<SessionId> {
        let sessions = &self.sessions;
        let is_behind = |id| {
            let peer = sessions.peek(id).and_then(|session| session.peer.as_ref());
            peer.is_some_and(|peer| peer.hosting.is_behind)
        };
        let handlers = self.handlers.get_mut(event)?;
        handlers
            .pick(|session, kind| fits(session, kind) && !is_behind(session))
            .or_else(|| handlers.pick(fits))
    }

    /// Does this peer handle an event; and does it take what its clients say and nobody handles?
    fn takes_of_clients(&mut self, id: SessionId, event: &Bytes) -> (bool, bool) {
        let Some(session) = self.sessions.find(id).filter(|session| session.is_open()) else {
            return (false, false);
        };
        let serving = session.serving.as_ref();
        let handles = serving.is_some_and(|serving| serving.events.contains(event));
        let peer = session.peer.as_ref();
        (
            handles,
            peer.is_some_and(|peer| peer.watch.has(Watch::EVENT)),
        )
    }

    /// From the ack on, this session handles an event.
    pub(super) fn handle(
        &mut self,
        id: SessionId,
        event: Bytes,
        tag: Option<Tag>,
    ) -> Result<(), Wait> {
        let Some(session) = self.sessions.find(id) else {
            return Ok(());
        };
        let kind = match &session.peer {
            None => Kind::Client,
            Some(peer) if peer.is_in_process => Kind::Link,
            Some(_) => Kind::Outside,
        };
        let listener = &self.settings.listeners[usize::from(session.listener)];
        if kind == Kind::Client && !listener.client_services {
            let reason = "clients of this listener may not handle services";
            self.tell_refused(id, Action::Handle, Code::NotAllowed, reason, None, tag);
            return Ok(());
        }
        let handlers_max = session.limits(&self.settings).handlers_max;
        let serving = session.serving.get_or_insert_default();
        if !serving.events.contains(&event) {
            if serving.events.len() >= handlers_max {
                let reason = "this connection handles as many events as it may";
                self.tell_refused(id, Action::Handle, Code::Limit, reason, None, tag);
                return Ok(());
            }
            serving.events.insert(event.clone());
            // Before the ack: a shard that has heard of it sends requests here, and an event that found nobody
            // would be lost though others handle it.
            self.handlers
                .entry(event.clone())
                .or_default()
                .sessions
                .push((id, kind));
            self.interest.add(&Key::Service(event.clone()));
            if let Some(key) = kind.key(&event) {
                self.interest.add(&key);
            }
            self.host_handles(id, &event, true);
            self.look_at_handlers(&event);
            self.wake_for_event(&event);
            self.announce();
        }
        let mut keys = kind
            .key(&event)
            .into_iter()
            .chain([Key::Service(event.clone())]);
        let is_known = keys.all(|key| self.interest.is_announced(&key));
        if !is_known || !self.is_host_event_known(id, &event) {
            return Err(Wait::from(Command::Handle { event, tag }));
        }
        self.tell(
            id,
            &Event::Ack {
                action: Action::Handle,
                name: &event,
                tag: tag.as_ref(),
            },
            true,
        );
        Ok(())
    }

    /// This session handles an event no more; what it was asked it may still answer.
    pub(super) fn unhandle(&mut self, id: SessionId, event: &Bytes) {
        let was_there = self
            .sessions
            .find(id)
            .and_then(|session| session.serving.as_mut())
            .is_some_and(|serving| serving.events.remove(event));
        if was_there {
            self.leave_handlers(id, event);
            self.announce();
        }
    }

    pub(super) fn leave_handlers(&mut self, id: SessionId, event: &Bytes) {
        let Some(handlers) = self.handlers.get_mut(event) else {
            return;
        };
        let is_it = |(session, _): &(SessionId, Kind)| *session == id;
        let Some(place) = handlers.sessions.iter().position(is_it) else {
            return;
        };
        let (_, kind) = handlers.sessions.remove(place);
        self.look_at_handlers(event);
        if self
            .handlers
            .get(event)
            .is_some_and(|handlers| handlers.sessions.is_empty())
        {
            self.handlers.remove(event);
        }
        self.host_handles(id, event, false);
        self.interest.remove(&Key::Service(event.clone()));
        if let Some(key) = kind.key(event) {
            self.interest.remove(&key);
        }
    }
}

/// Which handlers a receiver stands for; `asker`: the session that asks, if it is one of the same shard.
fn fitting(
    receiver: &Receiver,
    asker: Option<SessionId>,
) -> impl Fn(SessionId, Kind) -> bool + use<> {
    let wanted = match receiver {
        Receiver::Master => Some(Kind::Link),
        Receiver::AnyPeer => Some(Kind::Outside),
        Receiver::Service | Receiver::Host(_) | Receiver::Peer(_) | Receiver::Session(_) => None,
    };
    // It asks its fellows, not itself.
    let is_left_out = move |session| wanted == Some(Kind::Outside) && Some(session) == asker;
    move |session, kind| wanted.is_none_or(|wanted| wanted == kind) && !is_left_out(session)
}
