//! Fan-out: one publication to every local subscriber that it matches.
//!
//! Subscribers of a filter stand in groups by encoding. A delivery is encoded once per group, WebSocket header
//! included, into the group's log of this turn; every member's outbox refers to these bytes, by ranges of many
//! deliveries if these follow each other (`run`). Only a member that is behind (a send in flight) gets frames of its
//! own, and all who are behind share those too.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::address::SessionId;
use crate::message::Message;
use crate::protocol::{Encoding, clusterws, native, peer, resp};
use crate::topic::tree::FilterId;
use crate::topic::{Filter, Topic};
use crate::ws::frame::{self, Opcode};

use super::Shard;
use super::log::{LogRange, OpenLog, TurnLogs};
use super::outbox::{Delivery, Queued, Run};
use super::run::deliveries_max;
use super::session::Session;
use super::settings::Settings;
use super::slow::SlowPolicy;

/// The sessions that subscribe to one filter.
#[derive(Debug, Default)]
pub struct Subscribers {
    groups: SmallVec<[Group; 1]>,
}

/// Those of them with one encoding.
#[derive(Debug)]
pub struct Group {
    /// What their deliveries are encoded as.
    pub encoding: Encoding,
    /// Slots, dense; a session remembers its place. Most filters have one or two, in the room of a vector's head.
    pub members: SmallVec<[u32; 4]>,
    /// Where their frames of this turn are.
    log: OpenLog,
}

impl Group {
    /// Encodes a delivery into the group's log.
    pub(super) fn encode(
        &mut self,
        message: &Message,
        topic: &Topic,
        filter: &Filter,
        logs: &mut TurnLogs,
    ) -> LogRange {
        let context = filter.written();
        let (opcode, size) = match self.encoding {
            Encoding::NativeText => (
                Some(Opcode::Text),
                native::delivery_size(message, topic, context),
            ),
            Encoding::Clusterws(dialect) => (
                Some(dialect.opcode()),
                clusterws::delivery_size(dialect, message, topic),
            ),
            Encoding::Resp(version) => (None, resp::delivery_size(version, message, topic, filter)),
            Encoding::Peer => (None, peer::delivery_size(message, topic, filter)),
        };
        let size_max = frame::SERVER_HEADER_BYTES_MAX + size;
        logs.append(&mut self.log, size_max, |out| {
            if let Some(opcode) = opcode {
                frame::encode_header(opcode, size, out);
            }
            let start = out.len();
            match self.encoding {
                Encoding::NativeText => native::encode_delivery(message, topic, context, out),
                Encoding::Clusterws(dialect) => {
                    clusterws::encode_delivery(dialect, message, topic, out);
                }
                Encoding::Resp(version) => {
                    resp::encode_delivery(version, message, topic, filter, out);
                }
                Encoding::Peer => peer::encode_delivery(message, topic, filter, out),
            }
            debug_assert_eq!(out.len() - start, size, "another size was told");
        })
    }
}

impl Subscribers {
    /// By encoding. A group keeps its index.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// By encoding, to be encoded for.
    pub fn groups_mut(&mut self) -> &mut [Group] {
        &mut self.groups
    }

    /// Has anybody this encoding?
    pub fn has_members(&self, encoding: Encoding) -> bool {
        let group = self.group_of(encoding);
        group.is_some_and(|group| !self.groups[group].members.is_empty())
    }

    /// The index of the group with this encoding.
    pub fn group_of(&self, encoding: Encoding) -> Option<usize> {
        self.groups
            .iter()
            .position(|group| group.encoding == encoding)
    }

    /// Adds a session; its place.
    pub fn add(&mut self, encoding: Encoding, slot: u32) -> u32 {
        let index = match self.group_of(encoding) {
            Some(index) => index,
            None => {
                self.groups.push(Group {
                    encoding,
                    members: SmallVec::new(),
                    log: OpenLog::default(),
                });
                self.groups.len() - 1
            }
        };
        let members = &mut self.groups[index].members;
        members.push(slot);
        members.len() as u32 - 1
    }

    /// Takes the session at a place out; the slot that has this place now, if any.
    pub fn remove(&mut self, encoding: Encoding, place: u32) -> Option<u32> {
        let group = self
            .groups
            .iter_mut()
            .find(|group| group.encoding == encoding)
            .expect("a subscription has a group of its encoding");
        group.members.swap_remove(place as usize);
        group.members.get(place as usize).copied()
    }

    /// Does nobody subscribe?
    pub fn is_empty(&self) -> bool {
        self.groups.iter().all(|group| group.members.is_empty())
    }
}

impl Shard {
    /// Delivers to the subscribers of this shard. Whoever can't take it is closed as too slow.
    pub(super) fn fan_out(&mut self, message: &Message) {
        if message.targets.topics.is_empty() {
            return self.fan_out_event(message);
        }
        if let [topic] = message.targets.topics.as_slice()
            && self.run.is_to(topic)
        {
            return self.append_to_run(message, topic);
        }
        let mut matches = std::mem::take(&mut self.matches);
        for topic in &message.targets.topics {
            matches.clear();
            self.subscriptions.match_topic(topic, &mut matches);
            match (matches.as_slice(), self.settings.slow.policy(topic)) {
                ([], _) => {}
                (filters, SlowPolicy::Close) if self.are_apart(filters) => {
                    self.extend_run(message, topic, filters);
                }
                (filters, SlowPolicy::Close) => {
                    for filter in filters.chunks(1) {
                        self.extend_run(message, topic, filter);
                    }
                    self.seal_run();
                }
                (filters, policy) => {
                    self.seal_run();
                    for &filter in filters {
                        // A close in between may have been the last subscriber's.
                        if self.subscriptions.contains(filter) {
                            self.fan_out_lossy(message, topic, filter, policy);
                        }
                    }
                }
            }
        }
        self.matches = matches;
    }

    /// The session of this shard that a message is not for, though it subscribes.
    pub(super) fn left_out(&self, message: &Message) -> Option<SessionId> {
        message
            .origin
            .filter(|origin| message.flags.not_to_origin && origin.shard == self.id)
            .map(|origin| origin.session)
    }

    /// To the subscribers of a filter, for a topic whose slow readers miss some.
    fn fan_out_lossy(
        &mut self,
        message: &Message,
        topic: &Topic,
        filter: FilterId,
        policy: SlowPolicy,
    ) {
        let origin = self.left_out(message);
        let mut too_slow: SmallVec<[SessionId; 4]> = SmallVec::new();
        let (entry, subscribers) = self.subscriptions.entry_mut(filter);
        for group in &mut subscribers.groups {
            if group.members.is_empty() {
                continue;
            }
            let range = group.encode(message, topic, entry, &mut self.logs);
            let has_gaps = group.encoding.has_gaps();
            let is_of_peers = group.encoding == Encoding::Peer;
            let mut own: Option<Bytes> = None;
            let logs = &self.logs;
            let mut frame = || own.get_or_insert_with(|| logs.copy(range)).clone();
            let mut delivery = Delivery {
                frame: &mut frame,
                size: range.size(),
                filter,
                topic: topic.as_bytes(),
            };
            for &slot in &group.members {
                let session = self
                    .sessions
                    .at(slot)
                    .expect("a member of a group has a session");
                if origin == Some(session.id) {
                    continue;
                }
                self.stats.deliveries_due += 1;
                let limits = session.limits(&self.settings);
                let before = session.outbox.charged();
                let queued = match policy {
                    // It could not be told what it missed.
                    _ if !has_gaps => {
                        let mut run = Run {
                            range,
                            deliveries: 1,
                            frames: delivery.frame,
                        };
                        session.outbox.push_run(&mut run, limits.outbox_bytes_max)
                    }
                    SlowPolicy::Conflate => session
                        .outbox
                        .push_conflated(&mut delivery, deliveries_max(session, &self.settings)),
                    SlowPolicy::DropOldest | SlowPolicy::Close => session.outbox.push_droppable(
                        &mut delivery,
                        limits.outbox_bytes_soft,
                        limits.outbox_bytes_max,
                    ),
                };
                let queued = match queued {
                    // It is not closed for what it may miss.
                    Queued::Full if is_of_peers => {
                        session
                            .outbox
                            .skip(topic.as_bytes(), 1, limits.outbox_bytes_max)
                    }
                    queued => queued,
                };
                let after = session.outbox.charged();
                self.outbox_bytes = self.outbox_bytes + after - before;
                mark_urgent(session, &self.settings, &mut self.urgent);
                match queued {
                    Queued::Yes { skipped } => {
                        self.stats.announced += skipped;
                        self.stats.dropped += skipped;
                        mark_dirty(session, &mut self.dirty);
                    }
                    Queued::Full => {
                        // Due and not queued: announced by the close that follows.
                        self.stats.announced += 1;
                        too_slow.push(session.id);
                    }
                }
            }
        }
        for session in too_slow {
            self.close_slow(session);
        }
    }
}

/// Puts a session on the list of those that can't wait for the turn's end, if it belongs there: half of what may wait
/// does, and nothing is in flight, so it is high time to see what the socket takes of it.
pub(super) fn mark_urgent(session: &mut Session, settings: &Settings, urgent: &mut Vec<SessionId>) {
    if !session.is_urgent
        && !session.outbox.is_in_flight()
        && session.outbox.charged() > session.limits(settings).outbox_bytes_soft / 2
    {
        session.is_urgent = true;
        urgent.push(session.id);
    }
}

/// Puts a session on the list of those that have something to send.
pub(super) fn mark_dirty(session: &mut Session, dirty: &mut Vec<SessionId>) {
    if !session.is_dirty {
        session.is_dirty = true;
        dirty.push(session.id);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::slow::{SlowRule, SlowRules};
    use super::super::testing::{House, brief, publish};
    use super::*;

    #[test]
    fn places_follow_their_members() {
        let mut group = Subscribers::default();
        let add = |group: &mut Subscribers, slot| group.add(Encoding::NativeText, slot);
        assert!(group.is_empty());
        assert_eq!([7, 8, 9].map(|slot| add(&mut group, slot)), [0, 1, 2]);
        assert_eq!(
            group.remove(Encoding::NativeText, 0),
            Some(9),
            "the last takes the place"
        );
        assert_eq!(group.remove(Encoding::NativeText, 1), None);
        assert_eq!(add(&mut group, 7), 1);
        assert_eq!(group.remove(Encoding::NativeText, 0), Some(7));
        assert_eq!(group.remove(Encoding::NativeText, 0), None);
        assert!(group.is_empty());
    }

    #[test]
    fn most_specific_first_with_its_context() {
        let mut house = House::new(2);
        let (reader, publisher) = (house.connect(0), house.connect(1));
        for filter in ["*", "a", "=a.b", "a.*", "a.b", "b", "=a"] {
            house.subscribe(reader, filter);
        }
        house.ask(publisher, &publish("a.b", 1));
        assert_eq!(
            brief(&house.read(reader)),
            [
                "publish =a.b",
                "publish a.b",
                "publish a.*",
                "publish a",
                "publish *"
            ]
        );
    }

    #[test]
    fn a_turn_s_deliveries_are_encoded_once_and_sent_at_once() {
        let mut house = House::new(1);
        let (one, two, publisher) = (house.connect(0), house.connect(0), house.connect(0));
        house.subscribe(one, "a");
        house.subscribe(two, "a");
        let before = house.shards[0].stats();
        for _ in 0..50 {
            house.send(publisher, &publish("a", 10));
        }
        house.turn(0);
        let after = house.shards[0].stats();
        assert_eq!(after.sends - before.sends, 3);
        assert_eq!(after.delivered, 100);
        assert_eq!(house.read(one), house.read(two));
    }

    #[test]
    fn slow_readers_of_each_policy_are_told_what_they_miss() {
        let rule = |prefix: &'static str, policy| SlowRule {
            prefix: Bytes::from_static(prefix.as_bytes()),
            policy,
        };
        let mut house = House::with(1, |settings| {
            settings.slow = SlowRules::new(vec![
                rule("drop", SlowPolicy::DropOldest),
                rule("newest", SlowPolicy::Conflate),
            ]);
        });
        let (reader, publisher) = (house.connect(0), house.connect(0));
        house.subscribe(reader, "drop");
        house.subscribe(reader, "newest");
        house.stop_reading(reader);
        house.ask(publisher, &publish("drop", 10));
        for number in 0..20 {
            house.ask(publisher, &publish("drop.x", 20_000));
            let text =
                format!(r#"{{"type":"publish","topic":"newest","id":{number},"message":1}}"#);
            house.ask(publisher, &text);
        }
        let stats = house.shards[0].stats();
        assert_eq!(stats.dropped, stats.announced);
        house.read_on(reader);
        house.settle();
        let told = brief(&house.read(reader));
        let dropped = stats.dropped - 19;
        assert_eq!(
            told[..4],
            [
                "publish drop".to_owned(),
                format!("gap {dropped}"),
                "gap 19".to_owned(),
                "publish newest 19".to_owned(),
            ]
        );
        assert_eq!(told.len() as u64, 4 + 20 - dropped);
        let stats = house.shards[0].stats();
        assert_eq!(stats.deliveries_due, stats.delivered + stats.announced);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Subscribe(usize, usize),
        Unsubscribe(usize, usize),
        Publish(usize, usize, usize),
        Stop(usize),
        Gulp(usize),
        ReadOn(usize),
        Leave(usize),
        Fill(usize),
        Unfill(usize),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..6_usize, 0..4_usize).prop_map(|(who, of)| Step::Subscribe(who, of)),
            2 => (0..6_usize, 0..4_usize).prop_map(|(who, of)| Step::Unsubscribe(who, of)),
            12 => (0..6_usize, 0..4_usize, 0..3_usize).prop_map(|(who, of, size)| Step::Publish(who, of, size)),
            2 => (0..6_usize).prop_map(Step::Stop),
            2 => (0..6_usize).prop_map(Step::Gulp),
            2 => (0..6_usize).prop_map(Step::ReadOn),
            1 => (0..6_usize).prop_map(Step::Leave),
            1 => (0..2_usize).prop_map(Step::Fill),
            2 => (0..2_usize).prop_map(Step::Unfill),
            1 => (0..6_000_u64).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        /// After each turn the house checks every sum; in the end everybody goes and nothing is left.
        #[test]
        fn whatever_happens_the_sums_hold(steps in proptest::collection::vec(step(), 1..80)) {
            let mut house = House::with(2, |settings| {
                settings.limits.outbox_bytes_max = 100_000;
                settings.limits.outbox_bytes_soft = 40_000;
                settings.limits.outbox_total_bytes_max = 400_000;
                settings.limits.replies_bytes_max = 500;
                settings.limits.turn_messages_max = 2;
                settings.limits.ping_interval_ms = 20_000;
                settings.slow = SlowRules::new(vec![
                    SlowRule { prefix: Bytes::from_static(b"b"), policy: SlowPolicy::DropOldest },
                    SlowRule { prefix: Bytes::from_static(b"c"), policy: SlowPolicy::Conflate },
                ]);
            });
            let topics = ["a", "b", "c", "a.b"];
            let mut clients: Vec<_> = (0..6).map(|index| house.connect(index % 2)).collect();
            for step in steps {
                match step {
                    Step::Subscribe(who, of) => {
                        let text = format!(r#"{{"type":"subscribe","topic":"{}"}}"#, topics[of]);
                        house.send(clients[who], &text);
                    }
                    Step::Unsubscribe(who, of) => {
                        let text = format!(r#"{{"type":"unsubscribe","topic":"{}"}}"#, topics[of]);
                        house.send(clients[who], &text);
                    }
                    Step::Publish(who, of, size) => {
                        let text = publish(topics[of], [10, 3_000, 60_000][size]);
                        house.send(clients[who], &text);
                    }
                    Step::Stop(who) => house.stop_reading(clients[who]),
                    Step::Gulp(who) => house.gulp(clients[who]),
                    Step::ReadOn(who) => house.read_on(clients[who]),
                    Step::Leave(who) => {
                        house.end(clients[who], super::super::Ending::Failed);
                        clients[who] = house.connect(who % 2);
                    }
                    Step::Fill(from) => house.fill(from, 1 - from),
                    Step::Unfill(from) => house.unfill(from, 1 - from),
                    Step::Pass(ms) => house.pass(ms),
                }
                house.turn(0);
                house.turn(1);
            }
            house.unfill(0, 1);
            house.unfill(1, 0);
            for client in &clients {
                house.read_on(*client);
            }
            house.settle();
            for shard in [0, 1] {
                prop_assert!(house.shards[shard].is_settled(), "readers that read leave nothing to wait for");
            }
            for client in clients {
                house.end(client, super::super::Ending::Failed);
            }
            house.settle();
            house.pass(10_000);
            for shard in [0, 1] {
                house.turn(shard);
                house.check_empty(shard);
                prop_assert!(house.shards[shard].remote_filters.is_empty());
            }
        }
    }
}
