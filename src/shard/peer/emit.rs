//! Emitting: one event to many clients, each once.
//!
//! It is a [`Message`] without topics: for the members of `targets.rooms`, or for every client where there is none,
//! without those of `targets.except`. It goes to the shards that have members, or of which that is not certain yet
//! (`rooms`), or to all; and on each of them it is encoded once for all who speak alike, into the turn's log.
//!
//! Its deliveries are counted as those of a publication are, and a reader that can't take one is closed as too slow. A
//! *volatile* one is no promise: whoever is behind is left out, and nothing is due to it.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::address::{SessionId, ShardSet};
use crate::limits::SEND_BYTES_MAX;
use crate::message::{Flags, Message, Origin, Payload, Targets};
use crate::protocol::peer::{Audience, PeerCommand};
use crate::protocol::{Command, Event, Protocol, Tag};
use crate::ws::frame;

use super::super::command::Wait;
use super::super::fanout::{mark_dirty, mark_urgent};
use super::super::fault::Place;
use super::super::log::{LogRange, OpenLog};
use super::super::outbox::{Queued, Run};
use super::super::parcel::Parcel;
use super::super::session::Session;
use super::super::{Shard, encode_event};
use super::hosting::{empty, is_hostable};

/// The logs that events for many are encoded into, for each protocol.
pub type EmitLogs = SmallVec<[(Protocol, OpenLog); 2]>;

/// An event as a protocol says it, if it does: in the turn's log, and by itself when somebody wanted it so.
type Encoded = (Protocol, Option<LogRange>, Option<Bytes>);

impl Shard {
    /// An event for many clients. (For peers: the caller.)
    pub(super) fn emit_many(
        &mut self,
        id: SessionId,
        to: Audience,
        event: Bytes,
        data: Payload,
        volatile: bool,
        tag: Option<Tag>,
    ) -> Result<(), Wait> {
        let Audience::Clients {
            rooms,
            except_rooms,
            except,
        } = to
        else {
            return Ok(());
        };
        let except = except.filter(|client| self.is_of_this_broker(*client));
        let message = Message {
            targets: Targets {
                rooms,
                except: except_rooms,
                ..Targets::default()
            },
            event: Some(event),
            payload: data,
            attachments: Vec::new(),
            origin: except.map(|client| Origin {
                shard: client.shard,
                session: client.session,
            }),
            flags: Flags {
                not_to_origin: except.is_some(),
                volatile,
                ..Flags::default()
            },
            position: None,
            unix_ms: self.now.unix_ms,
            envelope: None,
        };
        let shards = self.shards_of_rooms(&message);
        if !self.have_room(shards, message.size() + size_of::<Parcel>()) {
            let command = PeerCommand::EmitMany {
                to: Audience::Clients {
                    rooms: message.targets.rooms,
                    except_rooms: message.targets.except,
                    except,
                },
                event: message.event.unwrap_or_default(),
                data: message.payload,
                volatile,
                tag,
            };
            return Err(Wait::from(Command::Peer(Box::new(command))));
        }
        let message = Arc::new(message);
        for shard in shards.iter() {
            self.stats.forwarded += 1;
            self.lanes.to(shard).push(Parcel::Message {
                message: message.clone(),
                tally: None,
            });
        }
        self.fan_out_event(&message);
        self.done(id, tag.as_ref(), Ok(empty()));
        Ok(())
    }

    /// The other shards that may have somebody of these rooms.
    fn shards_of_rooms(&self, message: &Message) -> ShardSet {
        let mut shards = ShardSet::EMPTY;
        if message.targets.rooms.is_empty() {
            shards = ShardSet::first(self.settings.shards);
        }
        for room in &message.targets.rooms {
            if let Some(number) = self.remote_filters.find_room(room) {
                shards = shards.union(*self.remote_filters.value(number));
            }
            shards = shards.union(self.rooms.provisional(room));
        }
        shards.remove(self.id);
        shards
    }

    /// The slots of the clients here that an event is for, each once.
    fn slots_of_event(&self, message: &Message) -> Vec<u32> {
        let members = |rooms: &[Bytes]| {
            let mut slots = Vec::new();
            for number in rooms
                .iter()
                .filter_map(|room| self.subscriptions.find_room(room))
            {
                for group in self.subscriptions.value(number).groups() {
                    slots.extend_from_slice(&group.members);
                }
            }
            if rooms.len() > 1 {
                slots.sort_unstable();
                slots.dedup();
            }
            slots
        };
        let mut slots = if message.targets.rooms.is_empty() {
            let is_client = |session: &&Session| session.is_open() && is_hostable(session.protocol);
            let clients = self.sessions.iter().filter(is_client);
            clients.map(|session| session.id.slot).collect()
        } else {
            members(&message.targets.rooms)
        };
        if !message.targets.except.is_empty() {
            let mut except = members(&message.targets.except);
            except.sort_unstable();
            slots.retain(|slot| except.binary_search(slot).is_err());
        }
        slots
    }

    /// Delivers an event to clients of this shard. Whoever can't take it is closed as too slow.
    pub(in super::super) fn fan_out_event(&mut self, message: &Message) {
        let slots = self.slots_of_event(message);
        if slots.is_empty() {
            return;
        }
        // What was published before comes before.
        self.seal_run();
        let left_out = self.left_out(message);
        let is_volatile = message.flags.volatile;
        let mut too_slow: SmallVec<[SessionId; 4]> = SmallVec::new();
        let mut frames: SmallVec<[Encoded; 2]> = SmallVec::new();
        for slot in slots {
            let Some(session) = self.sessions.at(slot) else {
                continue;
            };
            // It may have been closed since: what was sealed did not fit.
            let is_behind =
                session.outbox.is_in_flight() || session.outbox.charged() >= SEND_BYTES_MAX;
            if !session.is_open() || left_out == Some(session.id) {
                continue;
            }
            if is_volatile && is_behind {
                self.stats.volatile_dropped += 1;
                continue;
            }
            let protocol = session.protocol;
            let index = match frames.iter().position(|(of, ..)| *of == protocol) {
                Some(index) => index,
                None => {
                    let range = self.encode_for_many(protocol, message);
                    frames.push((protocol, range, None));
                    frames.len() - 1
                }
            };
            let (_, range, own) = &mut frames[index];
            let (Some(range), Some(session)) = (*range, self.sessions.at(slot)) else {
                continue;
            };
            let logs = &self.logs;
            let mut run = Run {
                range,
                deliveries: 1,
                frames: &mut || own.get_or_insert_with(|| logs.copy(range)).clone(),
            };
            let bytes_max = session.limits(&self.settings).outbox_bytes_max;
            let before = session.outbox.charged();
            let queued = session.outbox.push_run(&mut run, bytes_max);
            self.outbox_bytes = self.outbox_bytes + session.outbox.charged() - before;
            match queued {
                Queued::Yes { .. } => {
                    self.stats.deliveries_due += 1;
                    mark_urgent(session, &self.settings, &mut self.urgent);
                    mark_dirty(session, &mut self.dirty);
                }
                Queued::Full if is_volatile => self.stats.volatile_dropped += 1,
                Queued::Full => {
                    // Due and not queued: announced by the close that follows.
                    self.stats.deliveries_due += 1;
                    self.stats.announced += 1;
                    too_slow.push(session.id);
                }
            }
        }
        for session in too_slow {
            self.close_slow(session);
        }
    }

    /// An event as a protocol says it, in the turn's log; none if it has no words for it.
    fn encode_for_many(&mut self, protocol: Protocol, message: &Message) -> Option<LogRange> {
        let event = Event::Emitted {
            event: message.event.as_deref().unwrap_or_default(),
            data: &message.payload,
            from: None,
        };
        let (words, stamp) = (&mut self.words, &self.stamp);
        words.clear();
        let opcode = self.settings.fault.contain(Place::Encode, || {
            encode_event(protocol, &event, stamp, words)
        })?;
        if self.words.is_empty() {
            return None;
        }
        let index = match self.emit_logs.iter().position(|(of, _)| *of == protocol) {
            Some(index) => index,
            None => {
                self.emit_logs.push((protocol, OpenLog::default()));
                self.emit_logs.len() - 1
            }
        };
        let size_max = frame::SERVER_HEADER_BYTES_MAX + self.words.len();
        let (_, log) = &mut self.emit_logs[index];
        Some(self.logs.append(log, size_max, |out| {
            frame::encode_header(opcode, self.words.len(), out);
            out.extend_from_slice(&self.words);
        }))
    }
}
