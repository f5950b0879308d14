//! The open run: the latest deliveries of one filter, encoded, that its subscribers have not been given yet.
//!
//! Publications that follow each other mostly go to the same filter. Giving each of them to every subscriber at once
//! would touch all sessions for every message; so they are gathered here, and the run is *sealed* when something else
//! is to be said, when it is long enough, or when the turn ends: then every subscriber's outbox gets one range of the
//! turn's log. The price of a message is its encoding; that of a subscriber is paid once a turn.
//!
//! Nobody can tell: before any other word enters a session's outbox, the session takes what it has not of the run
//! ([`Shard::take_run`]), and remembers by a [`Mark`] how far that went. At most one run is open, so what a session
//! of several filters gets is in the order in which it was published.
//!
//! Invariants: while a run is open, no subscription begins, and every topic that equals `topic` matches its filter
//! and no other; its deliveries are due, and neither delivered nor waiting anywhere else; between turns none is open.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::address::SessionId;
use crate::limits::SEND_BYTES_MAX;
use crate::message::Message;
use crate::topic::Topic;
use crate::topic::tree::FilterId;

use super::Shard;
use super::fanout::{encode, mark_dirty, mark_urgent};
use super::log::{LogRange, TurnLogs};
use super::outbox::{self, Queued};
use super::session::Session;
use super::settings::Settings;

/// Ranges of the turn's logs that do not touch, each with its deliveries.
type Pieces = SmallVec<[(LogRange, u32); 2]>;

/// Deliveries of one filter that follow each other.
#[derive(Debug, Default)]
pub struct OpenRun {
    /// None while no run is open.
    filter: Option<FilterId>,
    /// What was last published to it.
    topic: Option<Topic>,
    /// Rises with each run, so that the marks of earlier ones are known as such.
    number: u64,
    /// By the filter's groups of subscribers.
    groups: SmallVec<[Pieces; 1]>,
    /// Of all its deliveries, each in its longest encoding.
    bytes: usize,
}

/// How much of a run a session has taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    run: u64,
    /// Where the last piece of which it has something ended then.
    end: u32,
    /// The deliveries of that piece then. A log is too short for more.
    deliveries: u16,
    /// The pieces of which it has something.
    pieces: u16,
}

impl OpenRun {
    /// The filter that publications to this topic match, if it is known without looking.
    pub fn filter_of(&self, topic: &Topic) -> Option<FilterId> {
        self.filter
            .filter(|_| self.topic.as_ref().is_some_and(|of| of == topic))
    }

    /// Is a run open?
    pub fn is_open(&self) -> bool {
        self.filter.is_some()
    }

    /// Forgets a run that nobody is left to take.
    pub fn forget(&mut self, filter: FilterId) {
        if self.filter == Some(filter) {
            self.filter = None;
            self.topic = None;
        }
    }

    fn open(&mut self, filter: FilterId, groups: usize) {
        self.filter = Some(filter);
        self.number += 1;
        self.bytes = 0;
        self.groups.truncate(groups);
        self.groups.iter_mut().for_each(SmallVec::clear);
        self.groups.resize_with(groups, Pieces::new);
    }

    fn append(&mut self, group: usize, frame: LogRange) {
        let pieces = &mut self.groups[group];
        if let Some((range, deliveries)) = pieces.last_mut()
            && range.extend(frame)
        {
            *deliveries += 1;
        } else {
            pieces.push((frame, 1));
        }
    }

    /// A mark at the end of a group's pieces.
    fn end_of(&self, group: usize) -> Mark {
        let pieces = &self.groups[group];
        let (end, deliveries) = pieces
            .last()
            .map_or((0, 0), |(range, deliveries)| (range.end(), *deliveries));
        Mark {
            run: self.number,
            end,
            deliveries: deliveries as u16,
            pieces: pieces.len() as u16,
        }
    }
}

/// The bytes of whole pieces by themselves, made once for all who are behind.
type Copies = SmallVec<[Option<Bytes>; 2]>;

/// Puts what a session has not of the pieces into its outbox; how many deliveries did not fit.
fn give(
    session: &mut Session,
    pieces: &Pieces,
    number: u64,
    bytes_max: usize,
    copies: &mut Copies,
    logs: &TurnLogs,
) -> u64 {
    let mark = Some(session.mark).filter(|mark| mark.run == number);
    let first = mark.map_or(0, |mark| (mark.pieces as usize).saturating_sub(1));
    let mut lost = 0;
    for (index, &(range, deliveries)) in pieces.iter().enumerate().skip(first) {
        let begun = mark.filter(|mark| mark.pieces as usize == index + 1);
        let (rest, count) = match begun {
            Some(mark) => (
                range.after(mark.end),
                deliveries - u32::from(mark.deliveries),
            ),
            None => (range, deliveries),
        };
        if count == 0 {
            continue;
        }
        let mut frames = || match begun {
            Some(_) => logs.copy(rest),
            None => {
                if copies.len() <= index {
                    copies.resize(index + 1, None);
                }
                copies[index]
                    .get_or_insert_with(|| logs.copy(range))
                    .clone()
            }
        };
        let mut run = outbox::Run {
            range: rest,
            deliveries: count,
            frames: &mut frames,
        };
        if lost > 0 || session.outbox.push_run(&mut run, bytes_max) == Queued::Full {
            lost += u64::from(count);
        }
    }
    lost
}

/// The most that a run gathers: a send, and no more than what makes an outbox urgent.
fn bytes_max(settings: &Settings) -> usize {
    (settings.limits.outbox_bytes_soft / 2).min(SEND_BYTES_MAX)
}

impl Shard {
    /// Appends a message to the run of the only filter that it matches.
    pub(super) fn extend_run(&mut self, message: &Message, topic: &Topic, filter: FilterId) {
        if self.run.filter != Some(filter) {
            self.seal_run();
        }
        let left_out = message
            .origin
            .filter(|origin| message.flags.not_to_origin && origin.shard == self.id)
            .map(|origin| origin.session)
            .filter(|&origin| self.is_subscribed(origin, filter));
        if let Some(origin) = left_out
            && !self.take_run(origin)
        {
            self.close_slow(origin);
        }
        if !self.subscriptions.contains(filter) {
            // The last subscriber was one of those that could not take what came before.
            return;
        }
        let (entry, subscribers) = self.subscriptions.entry_mut(filter);
        let groups = subscribers.groups_mut();
        if self.run.filter.is_none() {
            self.run.open(filter, groups.len());
        }
        let mut longest = 0;
        for (index, group) in groups.iter_mut().enumerate() {
            if group.members.is_empty() {
                continue;
            }
            let frame = encode(
                group.encoding,
                message,
                topic,
                entry.written(),
                &mut group.log,
                &mut self.logs,
            );
            self.run.append(index, frame);
            longest = longest.max(frame.size());
            self.stats.deliveries_due += group.members.len() as u64;
        }
        self.run.bytes += longest;
        if self.run.topic.as_ref() != Some(topic) {
            self.run.topic = Some(topic.clone());
        }
        if let Some(origin) = left_out
            && self.is_subscribed(origin, filter)
        {
            // It has taken all before, and this is not for it.
            self.stats.deliveries_due -= 1;
            self.set_mark(origin);
        }
        if self.run.bytes >= bytes_max(&self.settings) {
            self.seal_run();
        }
    }

    fn is_subscribed(&mut self, id: SessionId, filter: FilterId) -> bool {
        self.sessions
            .find(id)
            .is_some_and(|session| session.subscriptions.contains(filter))
    }

    /// The group of the open run's filter that a session is in, if it is in one.
    fn group_in_run(&mut self, id: SessionId) -> Option<usize> {
        let filter = self.run.filter?;
        let session = self.sessions.find(id)?;
        if session.subscriptions.is_empty() || !session.subscriptions.contains(filter) {
            return None;
        }
        self.subscriptions
            .value(filter)
            .group_of(session.encoding)
            .filter(|group| *group < self.run.groups.len())
    }

    fn set_mark(&mut self, id: SessionId) {
        if let Some(group) = self.group_in_run(id)
            && let Some(session) = self.sessions.find(id)
        {
            session.mark = self.run.end_of(group);
        }
    }

    /// Gives a session what it has not of the open run, before anything else is said to it. False if that was more
    /// than its outbox takes: what did not fit is announced by the close that has to follow.
    pub(super) fn take_run(&mut self, id: SessionId) -> bool {
        let Some(group) = self.group_in_run(id) else {
            return true;
        };
        let Some(session) = self.sessions.find(id) else {
            return true;
        };
        let bytes_max = session.limits(&self.settings).outbox_bytes_max;
        let before = session.outbox.charged();
        let lost = give(
            session,
            &self.run.groups[group],
            self.run.number,
            bytes_max,
            &mut Copies::new(),
            &self.logs,
        );
        session.mark = self.run.end_of(group);
        self.outbox_bytes = self.outbox_bytes + session.outbox.charged() - before;
        if session.outbox.has_waiting() {
            mark_urgent(session, &self.settings, &mut self.urgent);
            mark_dirty(session, &mut self.dirty);
        }
        self.stats.announced += lost;
        lost == 0
    }

    /// Ends the run: every subscriber gets what it has not. Whoever can't take it is closed as too slow.
    pub(super) fn seal_run(&mut self) {
        let Some(filter) = self.run.filter.take() else {
            return;
        };
        self.run.topic = None;
        let mut too_slow: SmallVec<[SessionId; 4]> = SmallVec::new();
        let subscribers = self.subscriptions.value(filter);
        for (group, pieces) in subscribers.groups().iter().zip(&self.run.groups) {
            if pieces.is_empty() {
                continue;
            }
            let mut copies = Copies::new();
            for &slot in &group.members {
                let session = self
                    .sessions
                    .at(slot)
                    .expect("a member of a group has a session");
                let bytes_max = session.limits(&self.settings).outbox_bytes_max;
                let before = session.outbox.charged();
                let number = self.run.number;
                let lost = give(session, pieces, number, bytes_max, &mut copies, &self.logs);
                self.outbox_bytes = self.outbox_bytes + session.outbox.charged() - before;
                mark_urgent(session, &self.settings, &mut self.urgent);
                mark_dirty(session, &mut self.dirty);
                if lost > 0 {
                    // Due and not queued: announced by the close that follows.
                    self.stats.announced += lost;
                    too_slow.push(session.id);
                }
            }
        }
        for session in too_slow {
            self.close_slow(session);
        }
    }
}
