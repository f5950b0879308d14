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
    /// Routes a publication. False if a ring has no room: then nobody got it.
    #[must_use]
    pub(super) fn route(&mut self, message: &Arc<Message>) -> bool {
        self.route_asking(message, None).is_some()
    }

    /// The same; the other shards are to count its receivers for this tally, if there is one. Says how many there are
    /// here, and how many shards will answer.
    pub(super) fn route_asking(
        &mut self,
        message: &Arc<Message>,
        tally: Option<u64>,
    ) -> Option<(u64, usize)> {
        let interested = self.interested(message);
        if !interested.is_empty() {
            let size = message.size() + size_of::<Parcel>();
            if !self.have_room(interested, size) {
                return None;
            }
            for shard in interested.iter() {
                self.stats.forwarded += 1;
                self.lanes.to(shard).push(Parcel::Message {
                    message: message.clone(),
                    tally,
                });
            }
        }
        Some((self.fan_out_counting(message), interested.len()))
    }

    /// Does anybody subscribe, here or on another shard, to what this topic matches?
    pub(super) fn has_interest(&mut self, topic: &Topic) -> bool {
        if self.run.is_to(topic) {
            return true;
        }
        self.matches.clear();
        self.subscriptions.match_topic(topic, &mut self.matches);
        if self.matches.is_empty() && !self.remote_filters.is_empty() {
            self.remote_filters.match_topic(topic, &mut self.matches);
        }
        !self.matches.is_empty()
    }

    /// Have the lanes to all of these shards room for a parcel of this size?
    pub(super) fn have_room(&mut self, shards: ShardSet, size: usize) -> bool {
        shards
            .iter()
            .all(|shard| self.lanes.to(shard).has_room(size))
    }

    /// Delivers to the subscribers of this shard; how many deliveries that are.
    fn fan_out_counting(&mut self, message: &Message) -> u64 {
        let before = self.stats.deliveries_due;
        self.fan_out(message);
        self.stats.deliveries_due - before
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
    /// [`Code::Busy`] if the ring to an interested shard is full, or if a drain has begun, whose subscribers may have
    /// left on other shards; nothing was published then.
    pub fn publish_as_host(&mut self, topic: Topic, payload: Payload) -> Result<(), Code> {
        if self.is_quiet {
            return Err(Code::Busy);
        }
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
        if !self.route(&Arc::new(message)) {
            return Err(Code::Busy);
        }
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
            key @ (Key::Host(..) | Key::HostEvent(..)) => self.take_host_edge(from, key, edge.up),
            key @ (Key::Behind(..) | Key::Clogged(..)) => self.take_feed_edge(from, key, edge.up),
            Key::Service(event) => self.take_service_edge(from, event, edge.up),
            key @ (Key::Master(_) | Key::AnyPeer(_) | Key::Peer(_) | Key::Tokens) => {
                self.take_peer_edge(from, key, edge.up);
            }
        }
    }

    fn take_filter_edge(&mut self, from: ShardId, filter: &Filter, up: bool) {
        if up {
            let is_first = self.remote_filters.find(filter).is_none();
            let id = self.remote_filters.insert_with(filter, ShardSet::default);
            self.remote_filters.value_mut(id).insert(from);
            if is_first {
                self.tell_remote_occupied(filter, true);
            }
        } else if let Some(id) = self.remote_filters.find(filter) {
            let shards = self.remote_filters.value_mut(id);
            shards.remove(from);
            if shards.is_empty() {
                self.remote_filters.remove(id);
                self.tell_remote_occupied(filter, false);
            }
        }
    }

    fn take_service_edge(&mut self, from: ShardId, event: Bytes, up: bool) {
        self.wake_for_event(&event);
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
            Parcel::Message { message, tally } => {
                let receivers = self.fan_out_counting(&message);
                if let Some(number) = tally {
                    self.tallies.count(from, number, receivers);
                }
            }
            Parcel::Receivers(counted) => self.take_receivers(counted),
            Parcel::Query { number, query } => self.take_query(from, number, &query),
            Parcel::Found { number, found } => self.take_found(number, found),
            Parcel::Emit {
                receiver,
                event,
                data,
                from,
                volatile,
            } => self.take_emit(receiver, &event, &data, from, volatile),
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
            Parcel::Failure { address } => {
                self.failures.add(address, self.now.ms);
            }
            Parcel::Peer(parcel) => self.take_peer_parcel(from, *parcel),
        }
    }

    /// Takes a session out of the members of a filter, and the filter out of the tree with its last one.
    pub(super) fn leave_group(&mut self, filter: FilterId, encoding: Encoding, place: u32) {
        let is_room = matches!(self.subscriptions.filter(filter), Filter::Room(_));
        let subscribers = self.subscriptions.value_mut(filter);
        if let Some(moved) = subscribers.remove(encoding, place) {
            let session = self
                .sessions
                .at(moved)
                .expect("a member of a group has a session");
            match &mut session.hosted {
                Some(hosted) if is_room => hosted.rooms.insert(filter, place),
                _ => session.subscriptions.insert(filter, place),
            }
        }
        if self.subscriptions.value(filter).is_empty() {
            self.run.forget(filter);
            self.subscriptions.remove(filter);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::testing::{House, brief, publish};
    use super::*;

    /// The edges on the lanes of a shard, as `1+a`: peer, up or down, key.
    fn edges(house: &mut House, shard: usize) -> Vec<String> {
        let mut edges = Vec::new();
        for to in (0..house.shards.len()).filter(|to| *to != shard) {
            let lane = house.shards[shard].lanes().to(ShardId(to as u8));
            for parcel in lane.drain() {
                let Parcel::Edge(Edge { key, up }) = parcel else {
                    continue;
                };
                let name = match &key {
                    Key::Filter(filter) => filter.written(),
                    Key::Service(event) => event,
                    _ => continue,
                };
                let name = std::str::from_utf8(name).unwrap();
                edges.push(format!("{to}{}{name}", if up { '+' } else { '-' }));
            }
        }
        edges
    }

    /// The edges that a text makes.
    fn made(house: &mut House, who: super::super::testing::Who, text: &str) -> Vec<String> {
        house.begin(who.shard);
        let mut bytes =
            super::super::testing::frame(crate::ws::frame::Opcode::Text, text.as_bytes());
        house.shards[who.shard].receive(who.id, &mut bytes);
        let edges = edges(house, who.shard);
        house.finish_turn(who.shard);
        edges
    }

    #[test]
    fn only_the_first_coming_and_the_last_leaving_are_told() {
        let mut house = House::new(3);
        let (one, two) = (house.connect(0), house.connect(0));
        let text = |kind: &str| format!(r#"{{"type":"{kind}","topic":"a","event":"a"}}"#);
        for (up, down) in [("subscribe", "unsubscribe"), ("handle", "unhandle")] {
            for (who, kind, expected) in [
                (one, up, &["1+a", "2+a"][..]),
                (one, up, &[]),
                (two, up, &[]),
                (one, down, &[]),
                (one, down, &[]),
                (two, down, &["1-a", "2-a"]),
                (two, down, &[]),
                (two, up, &["1+a", "2+a"]),
                (two, down, &["1-a", "2-a"]),
            ] {
                assert_eq!(made(&mut house, who, &text(kind)), expected, "{kind}");
            }
        }
    }

    #[test]
    fn a_peer_with_a_full_lane_is_told_what_is_and_not_what_was() {
        let mut house = House::new(3);
        let (one, two) = (house.connect(0), house.connect(0));
        house.fill(0, 2);
        for who in [one, two] {
            house.send(who, r#"{"type":"subscribe","topic":"a"}"#);
            house.send(who, r#"{"type":"subscribe","topic":"b"}"#);
            house.turn(0);
        }
        house.turn(1);
        assert_eq!(house.shards[1].remote_filters.len(), 2);
        // Gone before the other peer ever heard of it.
        house.end(one, super::super::Ending::Failed);
        house.end(two, super::super::Ending::Failed);
        house.turn(0);
        let three = house.connect(0);
        house.send(three, r#"{"type":"subscribe","topic":"b"}"#);
        house.turn(0);
        house.unfill(0, 2);
        house.begin(0);
        assert_eq!(edges(&mut house, 0), ["2+b"]);
        house.finish_turn(0);
        house.settle();
        assert_eq!(house.shards[1].remote_filters.len(), 1);
    }

    #[test]
    fn a_host_s_publish_is_whole_or_busy() {
        let mut house = House::new(2);
        let (near, far) = (house.connect(0), house.connect(1));
        house.subscribe(near, "a");
        house.subscribe(far, "a");
        let publish_as_host = |house: &mut House| {
            house.begin(0);
            let topic = Topic::dotted(Bytes::from_static(b"a.b")).unwrap();
            let payload = Payload::json(Bytes::from_static(b"1"));
            let result = house.shards[0].publish_as_host(topic, payload);
            house.finish_turn(0);
            house.settle();
            result
        };
        house.fill(0, 1);
        assert_eq!(publish_as_host(&mut house), Err(Code::Busy));
        assert!(house.read(near).is_empty() && house.read(far).is_empty());
        house.unfill(0, 1);
        assert_eq!(publish_as_host(&mut house), Ok(()));
        for client in [near, far] {
            assert_eq!(brief(&house.read(client)), ["publish a"]);
        }
        assert_eq!(house.shards[0].stats().publishes, 1);
    }

    #[test]
    fn a_message_goes_once_to_each_interested_shard_and_to_no_other() {
        let mut house = House::new(4);
        let publisher = house.connect(0);
        let far = [1, 1, 2].map(|shard| house.connect(shard));
        for client in far {
            house.subscribe(client, "a");
            house.subscribe(client, "a.*");
        }
        let before = house.shards[0].stats().forwarded;
        house.ask(publisher, &publish("a.b", 1));
        assert_eq!(house.shards[0].stats().forwarded - before, 2);
        for client in far {
            assert_eq!(brief(&house.read(client)), ["publish a.*", "publish a"]);
        }
        assert_eq!(house.shards[3].stats().deliveries_due, 0);
    }
}
