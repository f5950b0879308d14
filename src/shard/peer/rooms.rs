//! Rooms: sets of clients that peers fill.
//!
//! A room is a [`Filter::Room`]: a name space of its own, which no topic reaches and no client can name. Its members are
//! kept as the subscribers of a filter are, and other shards hear of it by the same edges; but they do not count as
//! subscriptions, and what is said to a room comes by `emit`.
//!
//! A client is a member from the moment when its shard takes the word. Two things follow from the way of that word:
//!
//! *join → emit*, the order argument. A peer on shard H says that a client on shard C joins a room, and then emits to the
//! room, without waiting for an answer. H's lane to C keeps the order, so C makes the client a member before it takes
//! the message; what remains to show is that H sends the message to C. H would not know of C's interest before the edge
//! is back; so it counts C as interested as long as it has not heard from C what became of the join (*provisional*
//! interest). C answers when its edge is in the ring to every shard, so it is in the ring to H before the answer; H
//! applies it before it stops to count C. If another client of the room leaves C meanwhile, C's edge may go down and up
//! again; the count does not depend on it. And on H itself, where C = H, nothing is to be shown. ∎
//!
//! *DONE → emit by anybody.* C answers in a turn after the one in which the last edge was put into a ring, so the edges
//! are visible before the answer is, on every lane. Whoever emits because somebody saw DONE does so on a shard that
//! drains the edge before it routes, as after the ack of a subscribe (ARCHITECTURE.md, "The turn"). ∎
//!
//! Invariants: a room's shard is in `provisional` as often as a join for it was sent there and not answered; what is in
//! `joining` has been taken, and is answered exactly once.

use std::collections::VecDeque;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::address::{ClientId, SessionId, ShardId, ShardSet};
use crate::error::Code;
use crate::limits::{JOINS_MAX, ROOMS_MAX};
use crate::protocol::peer::PeerCommand;
use crate::protocol::{Command, Tag};
use crate::topic::Filter;

use super::super::Shard;
use super::super::command::Wait;
use super::super::parcel::Key;
use super::super::subscriptions::Subscriptions;
use super::PeerParcel;
use super::hosting::{HostParcel, NOT_HERE, empty};

/// What a shard knows of rooms beside their members.
#[derive(Debug, Default)]
pub struct Rooms {
    /// How many joins each shard has not answered, by room.
    provisional: HashMap<Bytes, SmallVec<[(ShardId, u32); 1]>, RandomState>,
    /// Joins that took effect here, and whose edge is not with every shard yet.
    joining: VecDeque<Joining>,
}

#[derive(Debug)]
struct Joining {
    home: ShardId,
    peer: SessionId,
    room: Bytes,
    tag: Option<Tag>,
}

impl Rooms {
    /// Everything that is remembered.
    pub fn entries(&self) -> usize {
        self.provisional.len() + self.joining.len()
    }

    /// The shards that were told of members of this room, and have not answered.
    pub fn provisional(&self, room: &[u8]) -> ShardSet {
        let shards = self.provisional.get(room).into_iter().flatten();
        shards.map(|(shard, _)| *shard).collect()
    }

    fn expect(&mut self, room: &Bytes, shard: ShardId) {
        let shards = self.provisional.entry(room.clone()).or_default();
        match shards.iter_mut().find(|(of, _)| *of == shard) {
            Some((_, count)) => *count += 1,
            None => shards.push((shard, 1)),
        }
    }

    fn confirm(&mut self, room: &Bytes, shard: ShardId) {
        let Some(shards) = self.provisional.get_mut(room) else {
            debug_assert!(false, "a join is answered as often as it was sent");
            return;
        };
        for (of, count) in shards.iter_mut() {
            *count -= u32::from(*of == shard);
        }
        shards.retain(|(_, count)| *count > 0);
        if shards.is_empty() {
            self.provisional.remove(room);
        }
    }
}

/// A word from one shard to another about rooms.
#[derive(Debug)]
pub enum RoomParcel {
    /// This client of yours is in this room from now on.
    Join {
        peer: SessionId,
        client: SessionId,
        room: Bytes,
        tag: Option<Tag>,
    },
    /// It is not any more.
    Leave {
        peer: SessionId,
        client: SessionId,
        room: Bytes,
        tag: Option<Tag>,
    },
    /// The answer to a join.
    Joined {
        peer: SessionId,
        room: Bytes,
        tag: Option<Tag>,
        result: Result<(), (Code, &'static str)>,
    },
}

impl RoomParcel {
    pub(super) fn size(&self) -> usize {
        match self {
            RoomParcel::Join { room, .. }
            | RoomParcel::Leave { room, .. }
            | RoomParcel::Joined { room, .. } => room.len(),
        }
    }
}

impl Shard {
    /// From the answer on, this client is in this room.
    pub(super) fn join_room(
        &mut self,
        id: SessionId,
        client: ClientId,
        room: Bytes,
        tag: Option<Tag>,
    ) -> Result<(), Wait> {
        let room = match self.room(id, client, &room, tag.as_ref()) {
            Some(room) => room,
            None => return Ok(()),
        };
        if client.shard == self.id {
            self.take_join(self.id, id, client.session, room, tag);
            return Ok(());
        }
        let parcel = PeerParcel::Host(HostParcel::Room(RoomParcel::Join {
            peer: id,
            client: client.session,
            room: room.clone(),
            tag: tag.clone(),
        }));
        let has_way = self.has_way(client.shard, &parcel);
        let peer = self.sessions.find(id).and_then(|one| one.peer.as_mut());
        match peer {
            Some(peer) if has_way && peer.hosting.joins < JOINS_MAX => peer.hosting.joins += 1,
            _ => {
                let command = PeerCommand::Join { client, room, tag };
                return Err(Wait::from(Command::Peer(Box::new(command))));
            }
        }
        self.rooms.expect(&room, client.shard);
        self.push_peer(client.shard, parcel);
        Ok(())
    }

    /// It is not any more.
    pub(super) fn leave_room(
        &mut self,
        id: SessionId,
        client: ClientId,
        room: Bytes,
        tag: Option<Tag>,
    ) -> Result<(), Wait> {
        let room = match self.room(id, client, &room, tag.as_ref()) {
            Some(room) => room,
            None => return Ok(()),
        };
        if client.shard == self.id {
            self.take_leave(client.session, room);
            self.announce();
            self.done(id, tag.as_ref(), Ok(empty()));
            return Ok(());
        }
        let parcel = PeerParcel::Host(HostParcel::Room(RoomParcel::Leave {
            peer: id,
            client: client.session,
            room: room.clone(),
            tag: tag.clone(),
        }));
        if !self.has_way(client.shard, &parcel) {
            let command = PeerCommand::Leave { client, room, tag };
            return Err(Wait::from(Command::Peer(Box::new(command))));
        }
        self.push_peer(client.shard, parcel);
        Ok(())
    }

    /// A room's name, in memory of its own, if it is one and the client may be here.
    fn room(
        &mut self,
        id: SessionId,
        client: ClientId,
        room: &Bytes,
        tag: Option<&Tag>,
    ) -> Option<Bytes> {
        let refused = match Filter::room(room.clone()) {
            Err(error) => (Code::BadTopic, error.as_str()),
            Ok(_) if !self.is_of_this_broker(client) => NOT_HERE,
            Ok(_) => return Some(Bytes::copy_from_slice(room)),
        };
        self.done(id, tag, Err(refused));
        None
    }

    /// Takes another shard's word about rooms.
    pub(super) fn take_room_parcel(&mut self, from: ShardId, parcel: RoomParcel) {
        match parcel {
            RoomParcel::Join {
                peer,
                client,
                room,
                tag,
            } => self.take_join(from, peer, client, room, tag),
            RoomParcel::Leave {
                peer,
                client,
                room,
                tag,
            } => {
                self.take_leave(client, room);
                if let Some(tag) = tag {
                    let result = Ok(());
                    let done = HostParcel::Done { peer, tag, result };
                    self.send_peer(from, PeerParcel::Host(done));
                }
            }
            RoomParcel::Joined {
                peer,
                room,
                tag,
                result,
            } => {
                self.rooms.confirm(&room, from);
                let session = self.sessions.find(peer);
                if let Some(of) = session.and_then(|session| session.peer.as_mut()) {
                    of.hosting.joins -= 1;
                }
                self.done(peer, tag.as_ref(), result.map(|()| empty()));
            }
        }
    }

    fn take_join(
        &mut self,
        home: ShardId,
        peer: SessionId,
        client: SessionId,
        room: Bytes,
        tag: Option<Tag>,
    ) {
        let filter = Filter::Room(room.clone());
        let joining = Joining {
            home,
            peer,
            room,
            tag,
        };
        match self.enter_room(client, &filter) {
            Err(refused) => self.joined(joining, Err(refused)),
            Ok(()) if home == self.id => {
                self.announce();
                // The rings are made visible before anything is sent to the peer.
                if self.interest.is_announced(&Key::Filter(filter)) {
                    self.joined(joining, Ok(()));
                } else {
                    self.rooms.joining.push_back(joining);
                }
            }
            Ok(()) => self.rooms.joining.push_back(joining),
        }
    }

    /// Says what became of a join.
    fn joined(&mut self, joining: Joining, result: Result<(), (Code, &'static str)>) {
        let Joining {
            home,
            peer,
            room,
            tag,
        } = joining;
        if home == self.id {
            return self.done(peer, tag.as_ref(), result.map(|()| empty()));
        }
        let joined = RoomParcel::Joined {
            peer,
            room,
            tag,
            result,
        };
        self.send_peer(home, PeerParcel::Host(HostParcel::Room(joined)));
    }

    /// Answers the joins whose edges are with every shard since an earlier turn: called as the first thing in one.
    pub(in super::super) fn answer_joins(&mut self) {
        for _ in 0..self.rooms.joining.len() {
            let Some(joining) = self.rooms.joining.pop_front() else {
                break;
            };
            if self.is_settled_room(&joining.room) {
                self.joined(joining, Ok(()));
            } else {
                self.rooms.joining.push_back(joining);
            }
        }
    }

    /// Is there a join that the next turn can answer?
    pub(in super::super) fn has_answers_for_joins(&self) -> bool {
        let mut joining = self.rooms.joining.iter();
        joining.any(|joining| self.is_settled_room(&joining.room))
    }

    /// Does every shard know that somebody is in this room, or is nobody any more?
    fn is_settled_room(&self, room: &Bytes) -> bool {
        let key = Key::Filter(Filter::Room(room.clone()));
        self.interest.count(&key) == 0 || self.interest.is_announced(&key)
    }

    /// Makes a client a member, unless it is one.
    fn enter_room(&mut self, id: SessionId, room: &Filter) -> Result<(), (Code, &'static str)> {
        if !self.is_client(id) {
            return Err(NOT_HERE);
        }
        let number = self.subscriptions.find(room);
        let Some(session) = self.sessions.find(id) else {
            return Err(NOT_HERE);
        };
        let encoding = session.encoding;
        let rooms = &session.hosted.get_or_insert_default().rooms;
        if number.is_some_and(|number| rooms.contains(number)) {
            return Ok(());
        }
        if rooms.len() >= ROOMS_MAX {
            return Err((Code::Limit, "this client is in as many rooms as it may be"));
        }
        let number = self.subscriptions.insert_with(room, Default::default);
        let place = self.subscriptions.value_mut(number).add(encoding, id.slot);
        if let Some(session) = self.sessions.find(id) {
            let hosted = session.hosted.get_or_insert_default();
            hosted.rooms.insert(number, place);
        }
        self.interest.add(&Key::Filter(room.clone()));
        // Told with the routing.
        self.has_news = true;
        Ok(())
    }

    fn take_leave(&mut self, id: SessionId, room: Bytes) {
        let room = Filter::Room(room);
        let Some(number) = self.subscriptions.find(&room) else {
            return;
        };
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let encoding = session.encoding;
        let hosted = session.hosted.as_mut();
        let Some(place) = hosted.and_then(|hosted| hosted.rooms.remove(number)) else {
            return;
        };
        self.leave_group(number, encoding, place);
        self.interest.remove(&Key::Filter(room));
        self.has_news = true;
    }

    /// A session ends, and is in these rooms no more.
    pub(super) fn leave_rooms(&mut self, id: SessionId, rooms: &Subscriptions) {
        let Some(encoding) = self.sessions.find(id).map(|session| session.encoding) else {
            return;
        };
        for (number, place) in rooms.iter() {
            let key = Key::Filter(self.subscriptions.filter(number).clone());
            self.leave_group(number, encoding, place);
            self.interest.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;
