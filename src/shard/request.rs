//! Requests and events: from a session to one that handles them, and the answers back.
//!
//! The asker's shard keeps a *pending* entry until the answer or the deadline; the handler's shard keeps an *asked*
//! entry that says where the answer goes. Both are bounded per session and die with their session, and both
//! know the deadline, so an answer that never comes leaves nothing behind.
//!
//! A parcel may make an answer necessary (nobody handles this here). Such an answer is *deferred* to the routing
//! of a turn and waits there for room; there are never more of them than requests pending elsewhere.
//!
//! Whom an address means is a matter of [`handlers`](super::handlers).

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::address::{Address, Sender, SessionId, ShardId};
use crate::error::Code;
use crate::message::Payload;
use crate::protocol::{Command, Event, Outcome, Protocol, Tag};

use super::Shard;
use super::command::Wait;
use super::handlers::Way;
use super::parcel::{Parcel, Receiver};
use super::session::Since;

#[derive(Debug)]
struct Pending {
    session: SessionId,
    tag: Tag,
    /// To ask another shard once if the first has no handler any more. What a session has us keep so is bounded by
    /// [`Limits::outbox_bytes_soft`]; a request beyond it has one try.
    ///
    /// [`Limits::outbox_bytes_soft`]: crate::limits::Limits::outbox_bytes_soft
    copy: Option<Copy>,
    deadline_ms: u64,
}

/// A request that may be sent once more.
#[derive(Debug)]
struct Copy {
    receiver: Receiver,
    event: Bytes,
    data: Payload,
}

impl Copy {
    fn size(&self) -> usize {
        self.event.len() + self.data.bytes().len()
    }
}

#[derive(Debug)]
struct Asked {
    /// Who answers.
    handler: SessionId,
    /// Whose request it is, and its number there.
    shard: ShardId,
    number: u64,
    deadline_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Entry {
    Pending(u64),
    Asked(u64),
}

/// The requests that a shard's sessions wait for, and those that they were asked.
#[derive(Debug, Default)]
pub struct Requests {
    next_number: u64,
    pending: HashMap<u64, Pending, RandomState>,
    asked: HashMap<u64, Asked, RandomState>,
    deadlines: BTreeSet<(u64, Entry)>,
    deferred: VecDeque<(ShardId, Parcel)>,
}

impl Requests {
    /// How many wait for an answer.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Everything that is remembered of any request.
    pub fn entries(&self) -> usize {
        self.pending.len() + self.asked.len() + self.deadlines.len() + self.deferred.len()
    }

    /// Does an answer wait to be routed?
    pub fn has_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// The earliest deadline.
    pub fn next_ms(&self) -> Option<u64> {
        self.deadlines.first().map(|(at_ms, _)| *at_ms)
    }

    fn take_pending(&mut self, number: u64) -> Option<Pending> {
        let pending = self.pending.remove(&number)?;
        self.deadlines
            .remove(&(pending.deadline_ms, Entry::Pending(number)));
        Some(pending)
    }

    fn take_asked(&mut self, number: u64) -> Option<Asked> {
        let asked = self.asked.remove(&number)?;
        self.deadlines
            .remove(&(asked.deadline_ms, Entry::Asked(number)));
        Some(asked)
    }

    fn next_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}

impl Shard {
    /// Has the lane to a shard room for this, and does nothing wait that it would overtake?
    fn has_room_for(&mut self, shard: ShardId, parcel: &Parcel) -> bool {
        !self.has_words_for(shard) && self.lanes.to(shard).has_room(parcel.size())
    }

    /// An event for one session that handles it, or for the one that is named. `volatile`: lost if it had to wait.
    pub(super) fn emit(
        &mut self,
        id: SessionId,
        to: Address,
        event: Bytes,
        data: Payload,
        volatile: bool,
        tag: Option<Tag>,
    ) -> Result<(), Wait> {
        let (shard, receiver) = match self.locate(id, &to, &event) {
            Way::To(shard, receiver) => (shard, receiver),
            Way::Clogged(_) if volatile => {
                self.stats.volatile_dropped += 1;
                return self.emitted(id, tag);
            }
            Way::Clogged(clog) => {
                self.wait_for_feed(id, clog, None);
                return Err(Wait::from(Command::Emit {
                    to,
                    event,
                    data,
                    volatile,
                    tag,
                }));
            }
            Way::Nobody => {
                match tag {
                    Some(tag) => {
                        let outcome = Outcome::refused(Code::NoHandler, "nobody handles this");
                        self.answer(id, &tag, &outcome);
                    }
                    None => self.stats.requests_failed += 1,
                }
                return Ok(());
            }
        };
        let from = self.sender(id);
        if shard == self.id {
            self.take_emit(receiver, &event, &data, from, volatile);
        } else {
            let parcel = Parcel::Emit {
                receiver,
                event: event.clone(),
                data: data.clone(),
                from,
                volatile,
            };
            if self.has_room_for(shard, &parcel) {
                self.stats.forwarded += 1;
                self.lanes.to(shard).push(parcel);
            } else if volatile {
                self.stats.volatile_dropped += 1;
            } else {
                return Err(Wait::from(Command::Emit {
                    to,
                    event,
                    data,
                    volatile,
                    tag,
                }));
            }
        }
        self.emitted(id, tag)
    }

    /// An event is on its way: its sender is told, if it asked for that.
    fn emitted(&mut self, id: SessionId, tag: Option<Tag>) -> Result<(), Wait> {
        if let Some(tag) = tag {
            self.answer(id, &tag, &Outcome::Data(Payload::text(Bytes::new())));
        }
        Ok(())
    }

    /// Until when a session's request has waited for whom it is for, if it has.
    fn take_busy(&mut self, id: SessionId) -> Option<u64> {
        let session = self.sessions.find(id)?;
        let stall = session.stall.as_mut()?;
        std::mem::replace(&mut stall.busy, Since::NEVER).ms()
    }

    /// An event for a session of this shard.
    pub(super) fn take_emit(
        &mut self,
        receiver: Receiver,
        event: &Bytes,
        data: &Payload,
        from: Sender,
        volatile: bool,
    ) {
        match self.find_receiver(&receiver, event, &from, Protocol::has_events) {
            Ok(session) if volatile && self.is_behind(session) => {
                self.stats.volatile_dropped += 1;
            }
            Ok(session) => {
                let from = Some(&from);
                self.tell(session, &Event::Emitted { event, data, from }, false);
            }
            Err(_) => self.stats.requests_failed += 1,
        }
    }

    /// Would what is said to this session now have to wait for its reader?
    pub(super) fn is_behind(&mut self, id: SessionId) -> bool {
        let session = self.sessions.find(id);
        session.is_some_and(|session| session.outbox.is_in_flight())
    }

    /// A session's request.
    pub(super) fn request(
        &mut self,
        id: SessionId,
        to: Address,
        event: Bytes,
        data: Payload,
        tag: Tag,
        timeout_ms: Option<u64>,
    ) -> Result<(), Wait> {
        let Some(session) = self.sessions.find(id) else {
            return Ok(());
        };
        let limits = session.limits(&self.settings);
        let (requests_max, limit_ms) = (limits.requests_max, limits.request_timeout_ms);
        let copied_bytes_max = limits.outbox_bytes_soft;
        let serving = session.serving.get_or_insert_default();
        if serving.own.len() >= requests_max {
            let outcome = Outcome::refused(
                Code::Busy,
                "this connection waits for as many answers as it may",
            );
            self.answer(id, &tag, &outcome);
            return Ok(());
        }
        let waited_until_ms = self.take_busy(id);
        let timeout_ms = match waited_until_ms {
            Some(until_ms) => until_ms.saturating_sub(self.now.ms),
            None => timeout_ms.unwrap_or(limit_ms).min(limit_ms),
        };
        let (shard, receiver) = match self.locate(id, &to, &event) {
            Way::To(shard, receiver) => (shard, receiver),
            Way::Clogged(_) if waited_until_ms.is_some_and(|until_ms| until_ms <= self.now.ms) => {
                let outcome = Outcome::refused(Code::Busy, "the handler is behind");
                self.answer(id, &tag, &outcome);
                return Ok(());
            }
            Way::Clogged(clog) => {
                self.wait_for_feed(id, clog, Some(self.now.ms + timeout_ms));
                return Err(Wait::from(Command::Request {
                    to,
                    event,
                    data,
                    tag,
                    timeout_ms: Some(timeout_ms),
                }));
            }
            Way::Nobody => {
                let outcome = Outcome::refused(Code::NoHandler, "nobody handles this");
                self.answer(id, &tag, &outcome);
                return Ok(());
            }
        };
        let from = self.sender(id);
        let number = self.requests.next_number();
        if shard != self.id {
            let parcel = Parcel::Ask {
                number,
                receiver: receiver.clone(),
                event: event.clone(),
                data: data.clone(),
                from: from.clone(),
                timeout_ms,
            };
            if !self.has_room_for(shard, &parcel) {
                return Err(Wait::from(Command::Request {
                    to,
                    event,
                    data,
                    tag,
                    timeout_ms: Some(timeout_ms),
                }));
            }
            self.stats.forwarded += 1;
            self.lanes.to(shard).push(parcel);
        }
        let deadline_ms = self.now.ms + timeout_ms;
        let mut copy = None;
        if let Some(session) = self.sessions.find(id) {
            let serving = session.serving.get_or_insert_default();
            serving.own.insert(number);
            let size = event.len() + data.bytes().len();
            // One that is asked by its number or name has no deputy.
            if shard != self.id
                && receiver.has_deputies()
                && serving.copied_bytes + size <= copied_bytes_max
            {
                serving.copied_bytes += size;
                copy = Some(Copy {
                    receiver: receiver.clone(),
                    event: event.clone(),
                    data: data.clone(),
                });
            }
        }
        self.requests
            .deadlines
            .insert((deadline_ms, Entry::Pending(number)));
        let pending = Pending {
            session: id,
            tag,
            copy,
            deadline_ms,
        };
        self.requests.pending.insert(number, pending);
        if shard == self.id {
            self.take_ask(shard, number, receiver, &event, &data, from, timeout_ms);
        }
        Ok(())
    }

    /// A request for a session of this shard.
    #[expect(clippy::too_many_arguments, reason = "the fields of one parcel")]
    pub(super) fn take_ask(
        &mut self,
        shard: ShardId,
        number: u64,
        receiver: Receiver,
        event: &Bytes,
        data: &Payload,
        from: Sender,
        timeout_ms: u64,
    ) {
        let found = self.find_receiver(&receiver, event, &from, Protocol::has_requests);
        let handler = match found {
            Ok(handler) => handler,
            Err(outcome) => return self.send_answer(shard, number, outcome, true),
        };
        let Some(session) = self.sessions.find(handler) else {
            return;
        };
        let limits = session.limits(&self.settings);
        let serving = session.serving.get_or_insert_default();
        if serving.asked.len() >= limits.requests_max
            || session.outbox.charged() > limits.outbox_bytes_soft
        {
            let outcome = Outcome::refused(Code::Busy, "the handler is behind with its answers");
            return self.send_answer(shard, number, outcome, false);
        }
        let asked = self.requests.next_number();
        serving.asked.insert(asked);
        let deadline_ms = self.now.ms + timeout_ms;
        self.requests
            .deadlines
            .insert((deadline_ms, Entry::Asked(asked)));
        self.requests.asked.insert(
            asked,
            Asked {
                handler,
                shard,
                number,
                deadline_ms,
            },
        );
        self.tell(
            handler,
            &Event::Request {
                event,
                data,
                number: asked,
                from: &from,
                timeout_ms,
            },
            false,
        );
    }

    /// Sends an answer to the shard whose request it is: here at once, elsewhere with the next routing.
    fn send_answer(&mut self, shard: ShardId, number: u64, outcome: Outcome, vacant: bool) {
        if shard == self.id {
            self.take_answer(shard, number, outcome, vacant);
        } else {
            let answer = Parcel::Answer {
                number,
                outcome,
                vacant,
            };
            self.defer(shard, answer);
        }
    }

    /// Sends an answer to another shard with the next routing.
    pub(super) fn defer(&mut self, shard: ShardId, answer: Parcel) {
        self.requests.deferred.push_back((shard, answer));
    }

    /// Puts deferred parcels on the lanes that have room.
    pub(super) fn flush_deferred(&mut self) {
        for _ in 0..self.requests.deferred.len() {
            let Some((shard, parcel)) = self.requests.deferred.pop_front() else {
                break;
            };
            if self.lanes.to(shard).has_room(parcel.size()) {
                self.stats.forwarded += 1;
                self.lanes.to(shard).push(parcel);
            } else {
                self.requests.deferred.push_back((shard, parcel));
            }
        }
        self.flush_tallies();
    }

    /// A session's answer to what it was asked. One that comes too late, or answers nothing, is ignored.
    pub(super) fn reply(
        &mut self,
        id: SessionId,
        number: u64,
        outcome: Outcome,
    ) -> Result<(), Wait> {
        let Some(asked) = self
            .requests
            .asked
            .get(&number)
            .filter(|asked| asked.handler == id)
        else {
            return Ok(());
        };
        let (shard, theirs) = (asked.shard, asked.number);
        let parcel = Parcel::Answer {
            number: theirs,
            outcome,
            vacant: false,
        };
        if shard != self.id && !self.lanes.to(shard).has_room(parcel.size()) {
            let Parcel::Answer { outcome, .. } = parcel else {
                unreachable!("made above")
            };
            return Err(Wait::from(Command::Reply { number, outcome }));
        }
        self.requests.take_asked(number);
        if let Some(session) = self.sessions.find(id)
            && let Some(serving) = &mut session.serving
        {
            serving.asked.remove(&number);
        }
        if shard == self.id {
            let Parcel::Answer { outcome, .. } = parcel else {
                unreachable!("made above")
            };
            self.take_answer(shard, theirs, outcome, false);
        } else {
            self.stats.forwarded += 1;
            self.lanes.to(shard).push(parcel);
        }
        Ok(())
    }

    /// The answer to a request of a session of this shard.
    pub(super) fn take_answer(
        &mut self,
        from: ShardId,
        number: u64,
        outcome: Outcome,
        vacant: bool,
    ) {
        if vacant && self.retry(from, number) {
            return;
        }
        self.take_copy(number);
        let Some(pending) = self.requests.take_pending(number) else {
            return;
        };
        if let Some(session) = self.sessions.find(pending.session)
            && let Some(serving) = &mut session.serving
        {
            serving.own.remove(&number);
        }
        self.answer(pending.session, &pending.tag, &outcome);
    }

    /// The handlers of the shard that was asked have gone: asks another one, once.
    fn retry(&mut self, vacant: ShardId, number: u64) -> bool {
        let Some(Copy {
            receiver,
            event,
            data,
        }) = self.take_copy(number)
        else {
            return false;
        };
        let receiver = match receiver {
            Receiver::Host(_) => Receiver::Service,
            receiver => receiver,
        };
        let Some(pending) = self.requests.pending.get(&number) else {
            return false;
        };
        let (session, deadline_ms) = (pending.session, pending.deadline_ms);
        let mut shards = self.serving_shards(session, &receiver, &event);
        shards.remove(vacant);
        let Some(shard) = self.pick_shard(shards) else {
            return false;
        };
        let timeout_ms = deadline_ms.saturating_sub(self.now.ms);
        let from = self.sender(session);
        if shard == self.id {
            self.take_ask(shard, number, receiver, &event, &data, from, timeout_ms);
        } else {
            let parcel = Parcel::Ask {
                number,
                receiver,
                event,
                data,
                from,
                timeout_ms,
            };
            self.defer(shard, parcel);
        }
        true
    }

    /// What is kept of a request to send it once more; afterwards it is not.
    fn take_copy(&mut self, number: u64) -> Option<Copy> {
        let pending = self.requests.pending.get_mut(&number)?;
        let copy = pending.copy.take()?;
        if let Some(session) = self.sessions.find(pending.session)
            && let Some(serving) = &mut session.serving
        {
            serving.copied_bytes -= copy.size();
        }
        Some(copy)
    }

    fn answer(&mut self, id: SessionId, tag: &Tag, outcome: &Outcome) {
        if let Outcome::Failed { .. } = outcome {
            self.stats.requests_failed += 1;
        }
        self.tell(id, &Event::Reply { tag, outcome }, true);
    }

    /// A session ends: what it asked is forgotten, what it was asked is answered.
    pub(super) fn release_requests(&mut self, id: SessionId) {
        let Some(serving) = self
            .sessions
            .find(id)
            .and_then(|session| session.serving.take())
        else {
            return;
        };
        for event in serving.events {
            self.leave_handlers(id, &event);
        }
        for number in serving.own {
            self.requests.take_pending(number);
        }
        for number in serving.asked {
            if let Some(asked) = self.requests.take_asked(number) {
                // It may have begun: no other handler is asked in its place.
                let outcome = Outcome::refused(Code::NoHandler, "the handler has gone");
                self.send_answer(asked.shard, asked.number, outcome, false);
            }
        }
    }

    /// Ends what has passed its deadline.
    pub(super) fn expire_requests(&mut self) {
        while let Some(&(at_ms, entry)) = self.requests.deadlines.first()
            && at_ms <= self.now.ms
        {
            match entry {
                Entry::Pending(number) => {
                    let outcome = Outcome::refused(Code::Timeout, "no answer in time");
                    self.take_answer(self.id, number, outcome, false);
                }
                Entry::Asked(number) => {
                    if let Some(asked) = self.requests.take_asked(number)
                        && let Some(session) = self.sessions.find(asked.handler)
                        && let Some(serving) = &mut session.serving
                    {
                        serving.asked.remove(&number);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
impl Requests {
    /// Every entry has its deadline and its session, and nothing else is left.
    pub(super) fn check(&self, sessions: &super::session::Sessions) {
        assert_eq!(self.deadlines.len(), self.pending.len() + self.asked.len());
        for session in sessions.iter() {
            let Some(serving) = &session.serving else {
                continue;
            };
            let copies = serving.own.iter().filter_map(|number| {
                let copy = self.pending[number].copy.as_ref();
                copy.map(Copy::size)
            });
            assert_eq!(serving.copied_bytes, copies.sum::<usize>());
            assert!(
                serving
                    .asked
                    .iter()
                    .all(|number| self.asked[number].handler == session.id)
            );
        }
        let serving = || {
            sessions
                .iter()
                .filter_map(|session| session.serving.as_ref())
        };
        let own: usize = serving().map(|one| one.own.len()).sum();
        let asked: usize = serving().map(|one| one.asked.len()).sum();
        assert_eq!((self.pending.len(), self.asked.len()), (own, asked));
    }
}

#[cfg(test)]
mod tests;
