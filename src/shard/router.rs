//! The router: who has interest, and what other shards say.
//!
//! A publication goes to every shard that announced a matching filter, or to none yet: if one ring has no room
//! the publisher waits, with the message whole. So a message is never half published, and a full ring costs
//! only those who publish into it. A shard never waits for room while it takes parcels, so two shards with full rings
//! still empty each other's.

use std::sync::Arc;

use bytes::Bytes;

use crate::address::{ShardId, ShardSet};
use crate::error::Code;
use crate::message::{Flags, Message, Payload, Targets};
use crate::protocol::Encoding;
use crate::topic::interest::Edge;
use crate::topic::tree::FilterId;
use crate::topic::{Filter, Topic};

use super::Shard;
use super::parcel::{Key, Parcel};

impl Shard {
    /// Routes a publication, or gives it back if a ring has no room.
    pub(super) fn route(&mut self, message: Message) -> Result<(), Box<Message>> {
        let interested = self.interested(&message);
        if interested.is_empty() {
            self.fan_out(&message);
            return Ok(());
        }
        let size = message.size() + size_of::<Parcel>();
        if !interested
            .iter()
            .all(|shard| self.lanes.to(shard).has_room(size))
        {
            return Err(Box::new(message));
        }
        let message = Arc::new(message);
        for shard in interested.iter() {
            self.stats.forwarded += 1;
            self.lanes.to(shard).push(Parcel::Message(message.clone()));
        }
        self.fan_out(&message);
        Ok(())
    }

    /// The other shards that announced a filter that matches.
    fn interested(&mut self, message: &Message) -> ShardSet {
        if self.remote_filters.is_empty() {
            return ShardSet::EMPTY;
        }
        let mut interested = ShardSet::EMPTY;
        for topic in &message.targets.topics {
            self.matches.clear();
            self.remote_filters.match_topic(topic, &mut self.matches);
            for &filter in &self.matches {
                interested = interested.union(*self.remote_filters.value(filter));
            }
        }
        interested
    }

    /// Publishes for the host or an operator: no session, no rights, no ack.
    ///
    /// # Errors
    /// [`Code::Busy`] if the ring to an interested shard is full; nothing was published then.
    pub fn publish_as_host(&mut self, topic: Topic, payload: Payload) -> Result<(), Code> {
        let message = Message {
            targets: Targets {
                topics: smallvec::smallvec![topic],
                ..Targets::default()
            },
            event: None,
            payload,
            attachments: Vec::new(),
            origin: None,
            flags: Flags::default(),
            position: None,
            unix_ms: self.now.unix_ms,
            envelope: None,
        };
        self.route(message).map_err(|_| Code::Busy)?;
        self.stats.publishes += 1;
        Ok(())
    }

    /// Puts the news of this shard's interest on the lanes, as far as there is room.
    pub(super) fn announce(&mut self) {
        let mut peers = ShardSet::first(self.settings.shards);
        peers.remove(self.id);
        self.has_news = false;
        for peer in peers.iter() {
            while let Some(edge) = self.interest.next_edge(peer) {
                let parcel = Parcel::Edge(edge);
                if !self.lanes.to(peer).has_room(parcel.size()) {
                    self.has_news = true;
                    break;
                }
                self.lanes.to(peer).push(parcel);
                self.interest.told(peer);
            }
        }
    }

    fn take_edge(&mut self, from: ShardId, edge: Edge<Key>) {
        match edge.key {
            Key::Filter(filter) => self.take_filter_edge(from, &filter, edge.up),
            Key::Service(event) => self.take_service_edge(from, event, edge.up),
        }
    }

    fn take_filter_edge(&mut self, from: ShardId, filter: &Filter, up: bool) {
        if up {
            let id = self.remote_filters.insert_with(filter, ShardSet::default);
            self.remote_filters.value_mut(id).insert(from);
        } else if let Some(id) = self.remote_filters.find(filter) {
            let shards = self.remote_filters.value_mut(id);
            shards.remove(from);
            if shards.is_empty() {
                self.remote_filters.remove(id);
            }
        }
    }

    fn take_service_edge(&mut self, from: ShardId, event: Bytes, up: bool) {
        if up {
            self.remote_services.entry(event).or_default().insert(from);
        } else if let Some(shards) = self.remote_services.get_mut(&event) {
            shards.remove(from);
            if shards.is_empty() {
                self.remote_services.remove(&event);
            }
        }
    }

    /// Takes what another shard sent. Nothing is routed by this: what it makes necessary waits for the routing.
    pub fn take_parcel(&mut self, from: ShardId, parcel: Parcel) {
        match parcel {
            Parcel::Edge(edge) => self.take_edge(from, edge),
            Parcel::Message(message) => self.fan_out(&message),
            Parcel::Emit {
                receiver,
                event,
                data,
                from,
            } => self.take_emit(receiver, &event, &data, from),
            Parcel::Ask {
                number,
                receiver,
                event,
                data,
                from: asker,
                timeout_ms,
            } => {
                self.take_ask(from, number, receiver, &event, &data, asker, timeout_ms);
            }
            Parcel::Answer {
                number,
                outcome,
                vacant,
            } => self.take_answer(from, number, outcome, vacant),
        }
    }

    /// Takes a session out of the members of a filter, and the filter out of the tree with its last one.
    pub(super) fn leave_group(&mut self, filter: FilterId, encoding: Encoding, place: u32) {
        let subscribers = self.subscriptions.value_mut(filter);
        if let Some(moved) = subscribers.remove(encoding, place) {
            let session = self
                .sessions
                .at(moved)
                .expect("a member of a group has a session");
            session.subscriptions.insert(filter, place);
        }
        if self.subscriptions.value(filter).is_empty() {
            self.subscriptions.remove(filter);
        }
    }
}
