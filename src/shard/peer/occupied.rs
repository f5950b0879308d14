//! Occupied filters: peers that watch which filters somebody subscribes to.
//!
//! A shard knows of all: of its own by counting, of the others' by their edges. So a filter is *occupied*, as a shard sees
//! it, while somebody here or on another shard wants it; the first coming and the last leaving are told to the peers of
//! this shard that watch it. Rooms are none of their business.
//!
//! Clients that come and go must not cost a peer its connection. While it is behind it is told nothing of this; what it
//! believes that is not so is remembered, and the difference is told when it has caught up. There are no more of them
//! than filters that are occupied, and those that were when it fell behind.

use crate::address::SessionId;
use crate::protocol::Event;
use crate::protocol::peer::PeerEvent;
use crate::topic::Filter;

use super::super::Shard;
use super::super::parcel::Key;

impl Shard {
    /// Somebody here wants what this filter matches.
    pub(in super::super) fn want(&mut self, filter: &Filter) {
        let is_first = self.interest.add(&Key::Filter(filter.clone()));
        if is_first && self.remote_filters.find(filter).is_none() {
            self.tell_occupied(filter, true);
        }
    }

    /// Somebody here does not any more.
    pub(in super::super) fn unwant(&mut self, filter: &Filter) {
        let was_last = self.interest.remove(&Key::Filter(filter.clone()));
        if was_last && self.remote_filters.find(filter).is_none() {
            self.tell_occupied(filter, false);
        }
    }

    /// Another shard is the first that wants it, or was the last.
    pub(in super::super) fn tell_remote_occupied(&mut self, filter: &Filter, up: bool) {
        if !self.hosts.topic_watchers.is_empty()
            && self.interest.count(&Key::Filter(filter.clone())) == 0
        {
            self.tell_occupied(filter, up);
        }
    }

    fn tell_occupied(&mut self, filter: &Filter, up: bool) {
        if self.hosts.topic_watchers.is_empty() || matches!(filter, Filter::Room(_)) {
            return;
        }
        for id in self.hosts.topic_watchers.clone() {
            let Some(peer) = self.sessions.find(id).and_then(|one| one.peer.as_mut()) else {
                continue;
            };
            if peer.hosting.is_behind {
                let stale = &mut peer.hosting.stale;
                match stale.get(filter) {
                    Some(believed) if *believed == up => {
                        stale.remove(filter);
                    }
                    Some(_) => {}
                    None => {
                        stale.insert(filter.detached(), !up);
                    }
                }
            } else {
                self.tell_of_filter(id, filter, up);
            }
        }
    }

    /// A peer has caught up: it is told of what changed meanwhile, as far as it lasted.
    pub(super) fn tell_stale(&mut self, id: SessionId) {
        while let Some(peer) = self.sessions.find(id).and_then(|one| one.peer.as_mut())
            && !peer.hosting.is_behind
            && let Some((filter, believed)) = peer.hosting.stale.pop_first()
        {
            self.tell_of_filter(id, &filter, !believed);
        }
    }

    fn tell_of_filter(&mut self, id: SessionId, filter: &Filter, up: bool) {
        let occupied = PeerEvent::Occupied {
            up,
            filter: filter.written(),
        };
        self.tell(id, &Event::Peer(&occupied), false);
    }
}
