//! Fan-out: one publication to every local subscriber that it matches.
//!
//! Subscribers of a filter stand in groups by encoding. A delivery is encoded once per group, WebSocket header
//! included, into the group's log of this turn; every member's outbox refers to these bytes. Only a member
//! that is behind (a send in flight) gets a frame of its own, and all who are behind share that one too.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::address::SessionId;
use crate::message::Message;
use crate::protocol::{Encoding, native};
use crate::topic::Topic;
use crate::topic::tree::FilterId;
use crate::ws::frame::{self, Opcode};

use super::Shard;
use super::log::{OpenLog, TurnLogs};
use super::outbox::{Delivery, Queued};
use super::session::Session;
use super::slow::SlowPolicy;

/// The sessions that subscribe to one filter.
#[derive(Debug, Default)]
pub struct Subscribers {
    groups: SmallVec<[Group; 1]>,
}

/// Those of them with one encoding.
#[derive(Debug)]
struct Group {
    encoding: Encoding,
    /// Slots, dense; a session remembers its place. Most filters have one or two, in the room of a vector's head.
    members: SmallVec<[u32; 4]>,
    log: OpenLog,
}

impl Subscribers {
    /// Adds a session; its place.
    pub fn add(&mut self, encoding: Encoding, slot: u32) -> u32 {
        let index = match self
            .groups
            .iter()
            .position(|group| group.encoding == encoding)
        {
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
        let mut matches = std::mem::take(&mut self.matches);
        let mut too_slow: SmallVec<[SessionId; 4]> = SmallVec::new();
        for topic in &message.targets.topics {
            matches.clear();
            self.subscriptions.match_topic(topic, &mut matches);
            if matches.is_empty() {
                continue;
            }
            let policy = self.settings.slow.policy(topic);
            for &filter in &matches {
                self.fan_out_filter(message, topic, filter, policy, &mut too_slow);
            }
        }
        self.matches = matches;
        for session in too_slow {
            self.close_slow(session);
        }
    }

    fn fan_out_filter(
        &mut self,
        message: &Message,
        topic: &Topic,
        filter: FilterId,
        policy: SlowPolicy,
        too_slow: &mut SmallVec<[SessionId; 4]>,
    ) {
        let origin = message
            .origin
            .filter(|origin| message.flags.not_to_origin && origin.shard == self.id)
            .map(|origin| origin.session);
        let limits = &self.settings.limits;
        let (entry, subscribers) = self.subscriptions.entry_mut(filter);
        for group in &mut subscribers.groups {
            if group.members.is_empty() {
                continue;
            }
            let range = encode(
                group.encoding,
                message,
                topic,
                entry.written(),
                &mut group.log,
                &mut self.logs,
            );
            let size = range.size();
            let mut own: Option<Bytes> = None;
            let logs = &self.logs;
            let mut frame = || own.get_or_insert_with(|| logs.copy(range)).clone();
            let mut delivery = Delivery {
                range,
                frame: &mut frame,
                size,
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
                let before = session.outbox.charged();
                let queued = match policy {
                    SlowPolicy::Close => session
                        .outbox
                        .push_delivery(&mut delivery, limits.outbox_bytes_max),
                    SlowPolicy::DropOldest => session
                        .outbox
                        .push_droppable(&mut delivery, limits.outbox_bytes_soft),
                    SlowPolicy::Conflate => session
                        .outbox
                        .push_conflated(&mut delivery, limits.outbox_bytes_max),
                };
                self.outbox_bytes = self.outbox_bytes + session.outbox.charged() - before;
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
    }
}

/// Puts a session on the list of those that have something to send.
pub(super) fn mark_dirty(session: &mut Session, dirty: &mut Vec<SessionId>) {
    if !session.is_dirty {
        session.is_dirty = true;
        dirty.push(session.id);
    }
}

fn encode(
    encoding: Encoding,
    message: &Message,
    topic: &Topic,
    context: &[u8],
    log: &mut OpenLog,
    logs: &mut TurnLogs,
) -> super::log::LogRange {
    match encoding {
        Encoding::NativeText => {
            let size = native::delivery_size(message, topic, context);
            logs.append(log, frame::SERVER_HEADER_BYTES_MAX + size, |out| {
                frame::encode_header(Opcode::Text, size, out);
                let start = out.len();
                native::encode_delivery(message, topic, context, out);
                debug_assert_eq!(out.len() - start, size, "the header told another size");
            })
        }
    }
}
