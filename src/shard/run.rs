//! The open run: the latest deliveries of one filter, encoded, that its subscribers have not been given yet.
//!
//! Publications that follow each other mostly go to the same filter, or to the same two, since protocols subscribe to a
//! name in ways of their own; no session is in both then, and they are one run as well. Giving each of them to every
//! subscriber at once would touch all sessions for every message; so they are gathered here, and the run is *sealed*
//! when something else is to be said, when it is long enough, or when the turn ends: then every subscriber's outbox gets
//! one range of the turn's log. The price of a message is its encoding; that of a subscriber is paid
//! once a turn.
//!
//! Nobody can tell: before any other word enters a session's outbox, the session takes what it has not of the run
//! ([`Shard::take_run`]), and a [`Mark`] remembers how far that went. At most one run is open, and a session is in one of
//! its filters at most, so what a session of several filters gets is in the order in which it was published.
//!
//! What a peer can't take of it is not the end of the peer: it is told how many it misses, of each topic. So a run that
//! has peers among its subscribers remembers its topics.
//!
//! Invariants: while a run is open, no subscription begins, no session subscribes to two of its filters, and every
//! topic that equals `topic` matches these and no other; its deliveries are due, and neither delivered nor waiting
//! anywhere else; between turns none is open.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::address::SessionId;
use crate::limits::SEND_BYTES_MAX;
use crate::message::Message;
use crate::protocol::Encoding;
use crate::topic::Topic;
use crate::topic::tree::FilterId;

use super::Shard;
use super::fanout::{mark_dirty, mark_urgent};
use super::log::{LogRange, TurnLogs};
use super::outbox::{self, Queued};
use super::session::Session;
use super::settings::Settings;

/// Ranges of the turn's logs that do not touch, each with its deliveries.
type Pieces = SmallVec<[(LogRange, u32); 2]>;

/// Deliveries that follow each other, to the same filters.
#[derive(Debug, Default)]
pub struct OpenRun {
    /// The filters of the run, and behind them what earlier runs have left to be used again.
    parts: Vec<Part>,
    /// How many of them are of the run; 0 while none is open.
    count: usize,
    /// What was last published to it; none while none is open.
    topic: Option<Topic>,
    /// Of sessions that have taken some of it. A session knows the place of its own, if there is one.
    marks: Vec<(SessionId, Mark)>,
    /// Of all its deliveries, each in its longest encoding.
    bytes: usize,
    /// Is a peer among its subscribers?
    has_peers: bool,
    /// Then, the topics of its deliveries, in order, each with how many follow each other.
    topics: Vec<(Topic, u64)>,
}

/// What of a run is a filter's.
#[derive(Debug)]
struct Part {
    filter: FilterId,
    /// By the filter's groups of subscribers.
    groups: SmallVec<[Pieces; 1]>,
}

/// A group of subscribers in an open run.
#[derive(Clone, Copy, Debug)]
struct Place {
    part: usize,
    group: usize,
}

/// How much of a run a session has taken.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Where the last piece of which it has something ended then.
    end: u32,
    /// The deliveries of that piece then. A log is too short for more.
    deliveries: u16,
    /// The pieces of which it has something.
    pieces: u16,
}

impl OpenRun {
    /// Is a run open to which publications to this topic belong, as is known without looking?
    pub fn is_to(&self, topic: &Topic) -> bool {
        self.topic.as_ref() == Some(topic)
    }

    /// Is a run open?
    pub fn is_open(&self) -> bool {
        self.count > 0
    }

    /// Forgets a filter that nobody is left to take anything of.
    pub fn forget(&mut self, filter: FilterId) {
        if let Some(place) = self.parts().iter().position(|part| part.filter == filter) {
            self.count -= 1;
            self.parts.swap(place, self.count);
            if self.count == 0 {
                self.topic = None;
            }
        }
    }

    fn parts(&self) -> &[Part] {
        &self.parts[..self.count]
    }

    /// Is a run of just these filters open?
    fn is_of(&self, filters: &[FilterId]) -> bool {
        let parts = self.parts();
        parts.len() == filters.len() && parts.iter().all(|part| filters.contains(&part.filter))
    }

    fn open(&mut self, has_peers: bool) {
        self.marks.clear();
        self.bytes = 0;
        self.has_peers = has_peers;
        self.topics.clear();
    }

    /// Remembers one more topic, if somebody may want to know.
    fn note(&mut self, topic: &Topic) {
        match self.topics.last_mut() {
            _ if !self.has_peers => {}
            Some((last, count)) if last == topic => *count += 1,
            _ => self.topics.push((topic.clone(), 1)),
        }
    }

    /// A peer misses the last deliveries of the run, and will be told. False if there is no room even for that.
    fn miss(&self, session: &mut Session, deliveries: u64, bytes_max: usize) -> bool {
        let mut left = deliveries;
        for (topic, count) in self.topics.iter().rev() {
            let missed = left.min(*count);
            if missed == 0 {
                break;
            }
            let skipped = session.outbox.skip(topic.as_bytes(), missed, bytes_max);
            if skipped == Queued::Full {
                return false;
            }
            left -= missed;
        }
        debug_assert_eq!(left, 0, "a run knows the topics of its deliveries");
        true
    }

    /// Adds a filter with so many groups.
    fn add(&mut self, filter: FilterId, groups: usize) {
        if self.parts.len() == self.count {
            self.parts.push(Part {
                filter,
                groups: SmallVec::new(),
            });
        }
        let part = &mut self.parts[self.count];
        self.count += 1;
        part.filter = filter;
        part.groups.truncate(groups);
        part.groups.iter_mut().for_each(SmallVec::clear);
        part.groups.resize_with(groups, Pieces::new);
    }

    fn pieces(&self, place: Place) -> &Pieces {
        &self.parts[place.part].groups[place.group]
    }

    /// How far a session has come, if it has begun.
    fn mark_of(&self, session: &Session) -> Option<Mark> {
        // A place of an earlier run is another session's now, or nobody's.
        self.marks
            .get(session.mark as usize)
            .filter(|(id, _)| *id == session.id)
            .map(|(_, mark)| *mark)
    }

    /// Remembers that a session has come to the end of its group's pieces.
    fn set_mark(&mut self, session: &mut Session, place: Place) {
        let mark = self.end_of(place);
        match self.marks.get_mut(session.mark as usize) {
            Some((id, of)) if *id == session.id => *of = mark,
            _ => {
                session.mark = self.marks.len() as u32;
                self.marks.push((session.id, mark));
            }
        }
    }

    /// A mark at the end of a group's pieces.
    fn end_of(&self, place: Place) -> Mark {
        let pieces = self.pieces(place);
        let (end, deliveries) = pieces
            .last()
            .map_or((0, 0), |(range, deliveries)| (range.end(), *deliveries));
        Mark {
            end,
            deliveries: deliveries as u16,
            pieces: pieces.len() as u16,
        }
    }
}

fn append(pieces: &mut Pieces, frame: LogRange) {
    if let Some((range, deliveries)) = pieces.last_mut()
        && range.extend(frame)
    {
        *deliveries += 1;
    } else {
        pieces.push((frame, 1));
    }
}

/// The bytes of whole pieces by themselves, made once for all who are behind.
type Copies = SmallVec<[Option<Bytes>; 2]>;

/// Puts what a session has not of the pieces into its outbox; how many deliveries did not fit.
fn give(
    session: &mut Session,
    pieces: &Pieces,
    mark: Option<Mark>,
    bytes_max: usize,
    copies: &mut Copies,
    logs: &TurnLogs,
) -> u64 {
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

/// What may wait for a session with deliveries of topics. For a peer it is less than all that may: what is left over is
/// for words that are not to be dropped.
pub(super) fn deliveries_max(session: &Session, settings: &Settings) -> usize {
    let limits = session.limits(settings);
    match session.peer {
        Some(_) => limits.outbox_bytes_soft,
        None => limits.outbox_bytes_max,
    }
}

/// The most that a run gathers: a send, and no more than what makes an outbox urgent.
fn bytes_max(settings: &Settings) -> usize {
    (settings.limits.outbox_bytes_soft / 2).min(SEND_BYTES_MAX)
}

impl Shard {
    /// Has none of these filters a subscriber in common with another? None, if no two have one of the same encoding:
    /// a session has a single one.
    pub(super) fn are_apart(&self, filters: &[FilterId]) -> bool {
        let groups = |&filter: &FilterId| {
            let groups = self.subscriptions.value(filter).groups().iter();
            groups.filter(|group| !group.members.is_empty())
        };
        filters.iter().enumerate().all(|(index, one)| {
            let others = || filters[index + 1..].iter().flat_map(groups);
            groups(one).all(|group| others().all(|other| other.encoding != group.encoding))
        })
    }

    /// Appends a message to the run of the filters that it matches, which are apart.
    pub(super) fn extend_run(&mut self, message: &Message, topic: &Topic, filters: &[FilterId]) {
        if !self.run.is_of(filters) {
            self.seal_run();
            let has_peers = filters.iter().any(|&filter| {
                self.subscriptions.contains(filter)
                    && self.subscriptions.value(filter).has_members(Encoding::Peer)
            });
            self.run.open(has_peers);
            for &filter in filters {
                // Its last subscriber may have been one of those that could not take what came before.
                if self.subscriptions.contains(filter) {
                    let groups = self.subscriptions.value(filter).groups().len();
                    self.run.add(filter, groups);
                }
            }
        }
        self.append_to_run(message, topic);
    }

    /// Appends a message to the open run, to which it belongs.
    pub(super) fn append_to_run(&mut self, message: &Message, topic: &Topic) {
        let left_out = self.left_out(message);
        if let Some(origin) = left_out
            && !self.take_run(origin)
        {
            self.close_slow(origin);
        }
        if !self.run.is_open() {
            // The last subscriber was one of those that could not take what came before.
            return;
        }
        let mut longest = 0;
        for of in &mut self.run.parts[..self.run.count] {
            let (entry, subscribers) = self.subscriptions.entry_mut(of.filter);
            for (group, pieces) in subscribers.groups_mut().iter_mut().zip(&mut of.groups) {
                if group.members.is_empty() {
                    continue;
                }
                let frame = group.encode(message, topic, entry, &mut self.logs);
                append(pieces, frame);
                longest = longest.max(frame.size());
                self.stats.deliveries_due += group.members.len() as u64;
            }
        }
        self.run.bytes += longest;
        self.run.note(topic);
        if self.run.topic.as_ref() != Some(topic) {
            self.run.topic = Some(topic.clone());
        }
        if let Some(origin) = left_out
            && let Some(place) = self.place_in_run(origin)
            && let Some(session) = self.sessions.find(origin)
        {
            // It has taken all before, and this is not for it.
            self.stats.deliveries_due -= 1;
            self.run.set_mark(session, place);
        }
        if self.run.bytes >= bytes_max(&self.settings) {
            self.seal_run();
        }
    }

    /// The group of the open run that a session is in, if it is in one.
    fn place_in_run(&mut self, id: SessionId) -> Option<Place> {
        let session = self.sessions.find(id)?;
        let is_its = |part: &Part| session.subscriptions.contains(part.filter);
        let part = self.run.parts().iter().position(is_its)?;
        let Part { filter, groups } = &self.run.parts[part];
        self.subscriptions
            .value(*filter)
            .group_of(session.encoding)
            .filter(|group| *group < groups.len())
            .map(|group| Place { part, group })
    }

    /// Gives a session what it has not of the open run, before anything else is said to it. False if that was more
    /// than its outbox takes: what did not fit is announced by the close that has to follow.
    pub(super) fn take_run(&mut self, id: SessionId) -> bool {
        // Most words are said while none is open.
        if !self.run.is_open() {
            return true;
        }
        let Some(place) = self.place_in_run(id) else {
            return true;
        };
        let Some(session) = self.sessions.find(id) else {
            return true;
        };
        let before = session.outbox.charged();
        let lost = give(
            session,
            self.run.pieces(place),
            self.run.mark_of(session),
            deliveries_max(session, &self.settings),
            &mut Copies::new(),
            &self.logs,
        );
        self.run.set_mark(session, place);
        let bytes_max = session.limits(&self.settings).outbox_bytes_max;
        let is_told = lost > 0 && session.peer.is_some() && self.run.miss(session, lost, bytes_max);
        self.outbox_bytes = self.outbox_bytes + session.outbox.charged() - before;
        if session.outbox.has_waiting() {
            mark_urgent(session, &self.settings, &mut self.urgent);
            mark_dirty(session, &mut self.dirty);
        }
        self.stats.announced += lost;
        if is_told {
            self.stats.dropped += lost;
        }
        lost == 0 || is_told
    }

    /// Ends the run: every subscriber gets what it has not. Whoever can't take it is closed as too slow.
    pub(super) fn seal_run(&mut self) {
        if !self.run.is_open() {
            return;
        }
        let count = std::mem::take(&mut self.run.count);
        self.run.topic = None;
        let mut too_slow: SmallVec<[SessionId; 4]> = SmallVec::new();
        for part in &self.run.parts[..count] {
            let subscribers = self.subscriptions.value(part.filter);
            for (group, pieces) in subscribers.groups().iter().zip(&part.groups) {
                if pieces.is_empty() {
                    continue;
                }
                let mut copies = Copies::new();
                for &slot in &group.members {
                    let session = self
                        .sessions
                        .at(slot)
                        .expect("a member of a group has a session");
                    let bytes_max = deliveries_max(session, &self.settings);
                    let before = session.outbox.charged();
                    let mark = self.run.mark_of(session);
                    let lost = give(session, pieces, mark, bytes_max, &mut copies, &self.logs);
                    let bytes_max = session.limits(&self.settings).outbox_bytes_max;
                    let is_told = lost > 0
                        && session.peer.is_some()
                        && self.run.miss(session, lost, bytes_max);
                    self.outbox_bytes = self.outbox_bytes + session.outbox.charged() - before;
                    mark_urgent(session, &self.settings, &mut self.urgent);
                    mark_dirty(session, &mut self.dirty);
                    if lost > 0 {
                        // Due and not queued: announced by a gap, or by the close that follows.
                        self.stats.announced += lost;
                    }
                    if is_told {
                        self.stats.dropped += lost;
                    } else if lost > 0 {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Ending;
    use super::super::testing::{HEAD, House, Who, brief, frame, publish};
    use crate::limits::KIB;
    use crate::ws::frame::Opcode;

    fn numbered(topic: &str, number: u32) -> String {
        format!(r#"{{"type":"publish","topic":"{topic}","id":{number},"message":{number}}}"#)
    }

    /// What a client was told: the numbers of deliveries, `ack N` for its own.
    fn numbers(house: &mut House, who: Who) -> Vec<String> {
        let number = |text: &str| {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            let number = value["id"].to_string();
            match value["type"].as_str() {
                Some("ack") => format!("ack {number}"),
                _ => number,
            }
        };
        house.read(who).iter().map(|text| number(text)).collect()
    }

    #[test]
    fn a_publisher_gets_its_own_before_the_ack_and_the_rest_after_it() {
        let mut house = House::new(1);
        let (member, other, reader) = (house.connect(0), house.connect(0), house.connect(0));
        for who in [member, other, reader] {
            house.subscribe(who, "a");
        }
        for number in 0..3 {
            house.send(member, &numbered("a", number));
        }
        house.send(other, &numbered("a", 3));
        house.send(member, &numbered("a", 4));
        house.turn(0);
        assert_eq!(numbers(&mut house, reader), ["0", "1", "2", "3", "4"]);
        assert_eq!(
            numbers(&mut house, member),
            ["0", "ack 0", "1", "ack 1", "2", "ack 2", "3", "4", "ack 4"]
        );
        assert_eq!(
            numbers(&mut house, other),
            ["0", "1", "2", "3", "ack 3", "4"]
        );
    }

    #[test]
    fn filters_take_turns_in_the_order_of_the_publications() {
        let mut house = House::new(1);
        let (reader, publisher) = (house.connect(0), house.connect(0));
        for filter in ["a", "b", "c", "=c"] {
            house.subscribe(reader, filter);
        }
        for (number, topic) in ["a", "a", "b", "a.x", "a.y", "c", "c", "b", "c"]
            .into_iter()
            .enumerate()
        {
            house.send(publisher, &numbered(topic, number as u32));
        }
        house.turn(0);
        assert_eq!(
            numbers(&mut house, reader),
            ["0", "1", "2", "3", "4", "5", "5", "6", "6", "7", "8", "8"]
        );
    }

    /// A client of the RESP listener that says this.
    fn redis(house: &mut House, line: &str) -> Who {
        let who = house.accept(0, 2, false);
        house.bytes(who, format!("{line}\r\n").as_bytes());
        house.settle();
        house.raw(who);
        who
    }

    /// A ClusterWS client that subscribes to a channel.
    fn clusterws(house: &mut House, channel: &str) -> Who {
        let who = house.accept(0, 0, false);
        let head = HEAD.replace("GET / ", "GET /clusterws ");
        house.bytes(who, head.as_bytes());
        house.turn(0);
        house.head(who);
        house.send(who, &format!(r##"{{"#":["s","s","{channel}"]}}"##));
        house.settle();
        house.read(who);
        who
    }

    /// What a Redis client that subscribes to `a` gets of publications of these numbers.
    fn messages_of_a(numbers: std::ops::Range<u32>) -> Vec<u8> {
        let message = |number| format!("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\n{number}\r\n");
        numbers.map(message).collect::<String>().into_bytes()
    }

    /// Takes texts of a client within one turn, and says how many filters the run has before that ends.
    fn run_of(house: &mut House, who: Who, texts: &[String]) -> usize {
        house.begin(who.shard);
        for text in texts {
            let mut bytes = frame(Opcode::Text, text.as_bytes());
            house.shards[who.shard].receive(who.id, &mut bytes);
        }
        let count = house.shards[who.shard].run.parts().len();
        house.finish_turn(who.shard);
        house.settle();
        count
    }

    #[test]
    fn filters_without_a_common_subscriber_are_one_run() {
        let mut house = House::new(1);
        let (reader, publisher) = (house.connect(0), house.connect(0));
        house.subscribe(reader, "a");
        let redis = redis(&mut house, "SUBSCRIBE a");
        let clusterws = clusterws(&mut house, "a");
        let texts = [0, 1, 2].map(|number| numbered("a", number));
        assert_eq!(run_of(&mut house, publisher, &texts), 2);
        assert_eq!(numbers(&mut house, reader), ["0", "1", "2"]);
        assert_eq!(house.raw(redis), messages_of_a(0..3));
        let expected = [0, 1, 2].map(|number| format!(r##"{{"#":["p","a",{number}]}}"##));
        assert_eq!(house.read(clusterws), expected);
        let stats = house.shards[0].stats();
        assert_eq!((stats.deliveries_due, stats.delivered), (9, 9));

        // One that leaves takes its filter out of the run, with what came before.
        house.send(publisher, &numbered("a", 3));
        house.send(reader, r#"{"type":"unsubscribe","topic":"a","id":"u"}"#);
        house.send(publisher, &numbered("a", 4));
        house.turn(0);
        assert_eq!(numbers(&mut house, reader), ["3", "ack \"u\""]);
        assert_eq!(house.raw(redis), messages_of_a(3..5));
        assert_eq!(house.read(clusterws).len(), 2);
        let stats = house.shards[0].stats();
        assert_eq!((stats.deliveries_due, stats.delivered), (14, 14));
    }

    #[test]
    fn a_subscriber_of_two_filters_gets_each_publication_by_both() {
        let mut house = House::new(1);
        let publisher = house.connect(0);
        let reader = redis(&mut house, "SUBSCRIBE a");
        house.bytes(reader, b"PSUBSCRIBE a*\r\n");
        house.settle();
        house.raw(reader);
        let texts = [0, 1].map(|number| numbered("a", number));
        assert_eq!(run_of(&mut house, publisher, &texts), 0, "sealed");
        let text = String::from_utf8(house.raw(reader)).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with(['*', '$']));
        assert_eq!(
            lines.collect::<Vec<_>>().join(" "),
            "message a 0 pmessage a* a 0 message a 1 pmessage a* a 1"
        );
    }

    #[test]
    fn a_publisher_in_a_run_of_two_filters_hears_itself_before_its_ack_or_not_at_all() {
        let mut house = House::new(1);
        let member = house.connect(0);
        house.subscribe(member, "a");
        let redis = redis(&mut house, "SUBSCRIBE a");
        let silent = numbered("a", 1).replace(r#""id""#, r#""echo":false,"id""#);
        let texts = [numbered("a", 0), silent, numbered("a", 2)];
        assert_eq!(run_of(&mut house, member, &texts), 2);
        assert_eq!(
            numbers(&mut house, member),
            ["0", "ack 0", "ack 1", "2", "ack 2"]
        );
        assert_eq!(house.raw(redis), messages_of_a(0..3));
        let stats = house.shards[0].stats();
        assert_eq!((stats.deliveries_due, stats.delivered), (5, 5));
    }

    /// A step of a client: of two of each protocol, whatever it can say.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Subscribe(usize, usize),
        Unsubscribe(usize, usize),
        Publish(usize, usize),
        Silent(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let (who, name) = (0..6_usize, 0..2_usize);
        prop_oneof![
            3 => (who.clone(), 0..4_usize).prop_map(|(who, of)| Step::Subscribe(who, of)),
            1 => (who.clone(), 0..4_usize).prop_map(|(who, of)| Step::Unsubscribe(who, of)),
            6 => (who.clone(), name.clone()).prop_map(|(who, of)| Step::Publish(who, of)),
            1 => (who, name).prop_map(|(who, of)| Step::Silent(who, of)),
        ]
    }

    /// What the client says, in the words of its protocol; publications have a number.
    fn said(step: Step, number: usize) -> (usize, Vec<u8>) {
        const TOPICS: [&str; 2] = ["a", "a.b"];
        const NATIVE: [&str; 4] = ["a", "a.*", "=a.b", "*"];
        const REDIS: [&str; 4] = [
            "SUBSCRIBE a",
            "PSUBSCRIBE a*",
            "SUBSCRIBE a.b",
            "SSUBSCRIBE a",
        ];
        let text = |text: String| frame(Opcode::Text, text.as_bytes());
        let line = |line: String| format!("{line}\r\n").into_bytes();
        let native = |kind: &str, of: usize| {
            text(format!(
                r#"{{"type":"{kind}","topic":"{}","id":{number}}}"#,
                NATIVE[of]
            ))
        };
        let publish = |of: usize, echo| {
            let topic = TOPICS[of];
            text(format!(
                r#"{{"type":"publish","topic":"{topic}","id":{number},"message":{number},"echo":{echo}}}"#
            ))
        };
        let clusterws =
            |kind, of: usize| text(format!(r##"{{"#":["s","{kind}","{}"]}}"##, TOPICS[of % 2]));
        match step {
            Step::Subscribe(who @ 0..2, of) => (who, native("subscribe", of)),
            Step::Unsubscribe(who @ 0..2, of) => (who, native("unsubscribe", of)),
            Step::Publish(who @ 0..2, of) => (who, publish(of, true)),
            Step::Silent(who @ 0..2, of) => (who, publish(of, false)),
            Step::Subscribe(who @ 2..4, of) => (who, line(REDIS[of].to_owned())),
            Step::Unsubscribe(who @ 2..4, of) => (who, line(REDIS[of].replace("SUB", "UNSUB"))),
            Step::Publish(who @ 2..4, of) => {
                (who, line(format!("PUBLISH {} {number}", TOPICS[of])))
            }
            Step::Silent(who @ 2..4, _) => (who, line(format!("SPUBLISH a {number}"))),
            Step::Subscribe(who, of) => (who, clusterws("s", of)),
            Step::Unsubscribe(who, of) => (who, clusterws("u", of)),
            Step::Publish(who, of) | Step::Silent(who, of) => (
                who,
                text(format!(r##"{{"#":["p","{}",{number}]}}"##, TOPICS[of])),
            ),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// The twin has a turn for each step, in which there is nothing to gather.
        #[test]
        fn nobody_can_tell_what_was_gathered(steps in prop::collection::vec(step(), 1..80), turns in 1..40_usize) {
            let told = |turns: usize| {
                let mut house = House::new(1);
                let mut clients = vec![house.connect(0), house.connect(0)];
                // One of each version.
                clients.push(redis(&mut house, "PING"));
                clients.push(redis(&mut house, "HELLO 3"));
                for _ in 0..2 {
                    clients.push(clusterws(&mut house, "a"));
                }
                for (number, &step) in steps.iter().enumerate() {
                    let (who, bytes) = said(step, number);
                    house.bytes(clients[who], &bytes);
                    if number % turns == 0 {
                        house.settle();
                    }
                }
                house.settle();
                let told: Vec<String> = clients
                    .iter()
                    .map(|&client| house.raw(client).escape_ascii().to_string())
                    .collect();
                let stats = house.shards[0].stats();
                (told, stats.deliveries_due, stats.delivered, stats.announced)
            };
            let (gathered, twin) = (told(turns), told(1));
            prop_assert_eq!(gathered.1, gathered.2 + gathered.3);
            prop_assert_eq!(gathered, twin);
        }
    }

    #[test]
    fn whoever_comes_or_goes_in_between_gets_what_was_published_meanwhile() {
        let mut house = House::new(1);
        let (stays, goes, comes) = (house.connect(0), house.connect(0), house.connect(0));
        let (leaves, publisher) = (house.connect(0), house.connect(0));
        for who in [stays, goes, leaves] {
            house.subscribe(who, "a");
        }
        house.send(publisher, &numbered("a", 0));
        house.send(goes, r#"{"type":"unsubscribe","topic":"a","id":"u"}"#);
        house.end(leaves, Ending::Failed);
        house.send(publisher, &numbered("a", 1));
        house.send(comes, r#"{"type":"subscribe","topic":"a","id":"s"}"#);
        house.send(publisher, &numbered("a", 2));
        house.turn(0);
        assert_eq!(numbers(&mut house, stays), ["0", "1", "2"]);
        assert_eq!(numbers(&mut house, goes), ["0", "ack \"u\""]);
        assert_eq!(numbers(&mut house, comes), ["ack \"s\"", "2"]);
        let stats = house.shards[0].stats();
        assert_eq!(stats.deliveries_due, stats.delivered + stats.announced);
        assert_eq!(stats.deliveries_due, 6);
    }

    #[test]
    fn the_last_subscriber_may_leave_an_open_run_and_its_filter_s_number_be_used_again() {
        let mut house = House::new(1);
        let (one, two, publisher) = (house.connect(0), house.connect(0), house.connect(0));
        house.subscribe(one, "a");
        house.send(publisher, &numbered("a", 0));
        house.send(one, r#"{"type":"unsubscribe","topic":"a","id":"u"}"#);
        house.send(two, r#"{"type":"subscribe","topic":"b","id":"s"}"#);
        house.send(publisher, &numbered("a", 1));
        house.send(publisher, &numbered("b", 2));
        house.turn(0);
        assert_eq!(numbers(&mut house, one), ["0", "ack \"u\""]);
        assert_eq!(numbers(&mut house, two), ["ack \"s\"", "2"]);
    }

    #[test]
    fn whoever_subscribes_anew_and_can_t_take_what_came_before_is_closed_and_gets_nothing_more() {
        let mut house = House::with(2, |settings| {
            settings.limits.outbox_bytes_max = 20 * KIB;
            settings.limits.outbox_bytes_soft = 200 * KIB;
        });
        let (reader, publisher) = (house.connect(0), house.connect(0));
        house.subscribe(reader, "a");
        house.stop_reading(reader);
        house.ask(publisher, &publish("a", 10));
        for _ in 0..15 {
            house.send(publisher, &publish("a", 2 * KIB));
        }
        house.send(reader, r#"{"type":"subscribe","topic":"b"}"#);
        house.send(publisher, &publish("b", 10));
        house.turn(0);
        assert_eq!(house.shards[0].stats().closed_slow, 1);
        house.read_on(reader);
        house.settle();
        house.send(publisher, &publish("b", 10));
        house.settle();
        let told = brief(&house.read(reader));
        assert_eq!(told.last().map(String::as_str), Some("close 4008 too slow"));
        assert_eq!(house.shards[0].stats().subscriptions, 0);
        house.end(reader, Ending::EndOfInput);
        house.end(publisher, Ending::Failed);
        house.settle();
        house.check_empty(0);
    }

    #[test]
    fn an_origin_that_wants_no_echo_gets_the_others_only() {
        let mut house = House::new(1);
        let (member, reader) = (house.connect(0), house.connect(0));
        house.subscribe(member, "a");
        house.subscribe(reader, "a");
        let silent = |number: u32| numbered("a", number).replace(r#""id""#, r#""echo":false,"id""#);
        house.send(reader, &numbered("a", 0));
        house.send(member, &silent(1));
        house.send(member, &silent(2));
        house.send(reader, &numbered("a", 3));
        house.send(member, &silent(4));
        house.turn(0);
        assert_eq!(
            numbers(&mut house, member),
            ["0", "ack 1", "ack 2", "3", "ack 4"]
        );
        assert_eq!(
            numbers(&mut house, reader),
            ["0", "ack 0", "1", "2", "3", "ack 3", "4"]
        );
        let stats = house.shards[0].stats();
        assert_eq!((stats.deliveries_due, stats.delivered), (7, 7));
    }

    #[test]
    fn whoever_is_behind_shares_a_copy_and_who_is_too_far_behind_is_closed() {
        let mut house = House::with(1, |settings| {
            settings.limits.outbox_bytes_max = 100 * KIB;
            settings.limits.outbox_bytes_soft = 60 * KIB;
        });
        let clients: Vec<_> = (0..4).map(|_| house.connect(0)).collect();
        let publisher = house.connect(0);
        for &client in &clients {
            house.subscribe(client, "a");
        }
        // Three that are behind; the last reads.
        for &client in &clients[..3] {
            house.stop_reading(client);
        }
        house.ask(publisher, &publish("a", 10));
        for _ in 0..5 {
            for _ in 0..4 {
                house.send(publisher, &publish("a", 2 * KIB));
            }
            house.turn(0);
        }
        let behind = house.session(clients[0]).outbox.charged();
        assert!((40 * KIB..50 * KIB).contains(&behind), "{behind}");
        house.read_on(clients[0]);
        house.settle();
        assert_eq!(brief(&house.read(clients[0])).len(), 21);
        assert_eq!(brief(&house.read(clients[3])).len(), 21);
        for _ in 0..10 {
            for _ in 0..4 {
                house.send(publisher, &publish("a", 2 * KIB));
            }
            house.turn(0);
        }
        let stats = house.shards[0].stats();
        assert_eq!(stats.closed_slow, 2);
        assert_eq!(brief(&house.read(clients[3])).len(), 40);
        for &client in &clients[1..3] {
            house.read_on(client);
            house.settle();
            assert_eq!(
                brief(&house.read(client)).last().map(String::as_str),
                Some("close 4008 too slow")
            );
        }
        let stats = house.shards[0].stats();
        assert_eq!(stats.deliveries_due, stats.delivered + stats.announced);
    }
}
