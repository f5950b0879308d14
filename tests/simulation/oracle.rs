//! The oracle: what every client must, may and must not receive, the naive way.
//!
//! It knows nothing of shards. All it has is the order of the world's events: when a client handed a command to the
//! network (*sent*), and when it read the answer (*acked*). From these it decides for each publication and each
//! *stay* (one filter of one client, from the subscribe to the unsubscribe):
//!
//! - **must**, if it was sent after the subscribe's ack was read, by anyone anywhere, and its own ack was read before the
//!   unsubscribe was sent. On the subscriber's own connection the order of its commands decides instead;
//! - **must not**, if its ack was read before the subscribe was sent, if it was sent after the unsubscribe's ack was
//!   read, if it was refused, or if it is the sender's own with `"echo":false`;
//! - **may** in between.
//!
//! A publication that was answered with the number of its receivers was due as often as it came, plus as often as it may
//! have been lost with a connection, or skipped.
//!
//! What must come and did not is a violation, unless it was told: by a `gap` of its topic, or by the end of the
//! connection. And even then the deliveries that came are all that were due up to some moment.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use crate::client::ClientIndex;
use crate::names::{Filter, PLAIN, Policy, SHARDS, TOPICS, Topic, known, policy};
use crate::questions::Question;

/// A moment in the order of the world's events.
pub type Moment = u64;

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub kind: Kind,
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.text)
    }
}

/// Which promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A message that had to come did not: the ack was no barrier, or a message was lost in silence.
    Missing,
    /// A message came outside its stay, or was never due.
    Stray,
    /// A message came twice.
    Twice,
    /// Messages of one publisher and topic, or contexts of one message, in a wrong order.
    Order,
    /// Not what was published.
    Content,
    /// An answer is missing, doubled, wrong, or out of order.
    Answer,
    /// A number of receivers, or of subscribers, that can't be.
    Count,
    /// A connection ended in a way that nothing explains.
    Ending,
    /// Something waits that will never come, or a loop spins.
    Liveness,
    /// Something of a client that has gone is left, or the sums do not agree.
    Residue,
    /// The code under test panicked.
    Panic,
}

/// Who published.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Publisher {
    Client(ClientIndex),
    /// The control plane of a shard.
    Host(usize),
}

#[derive(Debug)]
pub struct Publication {
    pub publisher: Publisher,
    pub topic: Topic,
    pub echo: bool,
    pub pad: usize,
    pub sent: Moment,
    pub acked: Option<Moment>,
    /// The number of receivers, as its publisher was told.
    pub counted: Option<u64>,
    pub is_refused: bool,
}

impl Publication {
    /// One for everybody, its publisher included.
    pub fn new(publisher: Publisher, topic: Topic, pad: usize, sent: Moment) -> Publication {
        Publication {
            publisher,
            topic,
            echo: true,
            pad,
            sent,
            acked: None,
            counted: None,
            is_refused: false,
        }
    }
}

#[derive(Debug)]
pub struct Stay {
    pub client: ClientIndex,
    pub filter: Filter,
    pub sent: Moment,
    pub acked: Option<Moment>,
    /// When the unsubscribe, or the client's close frame, was sent.
    pub left: Option<Moment>,
    /// When the ack of the unsubscribe was read.
    pub left_acked: Option<Moment>,
    received: BTreeSet<u64>,
}

impl Stay {
    /// Has this publication come?
    pub fn has_got(&self, number: u64) -> bool {
        self.received.contains(&number)
    }
}

/// How a client's connection stands at the moment of the reckoning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It is there, and reads.
    Open,
    /// It ended orderly, and nothing that was due before is missing.
    Ended,
    /// It ended before its time; the end has announced whatever is missing.
    CutOff,
}

/// What one client was delivered, as far as more than one stay is concerned.
#[derive(Debug, Default)]
struct Seen {
    /// By publication: the context that came last.
    contexts: HashMap<u64, Filter>,
    /// By publisher, topic and context: the last publication.
    last: HashMap<(Publisher, Topic, Filter), u64>,
    gaps: BTreeMap<&'static str, u64>,
}

/// The oracle.
#[derive(Debug, Default)]
pub struct Oracle {
    pub publications: Vec<Publication>,
    pub stays: Vec<Stay>,
    /// Clients that miss some of any topic, and are told, rather than be closed.
    pub lossy: BTreeSet<ClientIndex>,
    seen: HashMap<ClientIndex, Seen>,
    /// By publication, at the reckoning: how often it was due, at least and at most.
    due: Vec<(u64, u64)>,
    pub questions: Vec<Question>,
    pub violations: Vec<Violation>,
    pub deliveries: u64,
    pub gaps: u64,
    /// Pairs of a publication and a stay that had to come.
    pub musts: u64,
    /// Numbers of receivers that could be one and no other.
    pub exact_counts: u64,
    /// Answers to questions.
    pub answers: u64,
}

impl Oracle {
    pub fn violate(&mut self, kind: Kind, text: String) {
        self.violations.push(Violation { kind, text });
    }

    pub fn publish(&mut self, publication: Publication) -> u64 {
        self.publications.push(publication);
        self.publications.len() as u64 - 1
    }

    /// The text of a message.
    pub fn message(&self, number: u64) -> String {
        let pad = "x".repeat(self.publications[number as usize].pad);
        format!(r#"{{"n":{number},"pad":"{pad}"}}"#)
    }

    /// Has anybody got this publication?
    pub fn has_come(&self, number: u64) -> bool {
        self.stays.iter().any(|stay| stay.has_got(number))
    }

    pub fn stay(&mut self, client: ClientIndex, filter: Filter, sent: Moment) -> usize {
        self.stays.push(Stay {
            client,
            filter,
            sent,
            acked: None,
            left: None,
            left_acked: None,
            received: BTreeSet::new(),
        });
        self.stays.len() - 1
    }

    /// The broker has closed the connection of a client: nothing is due to it any more.
    pub fn has_gone(&mut self, client: ClientIndex, at: Moment) {
        for stay in self.stays.iter_mut().filter(|stay| stay.client == client) {
            stay.left.get_or_insert(at);
            stay.left_acked.get_or_insert(at);
        }
    }

    /// From some moment on, the broker ended the stays of a client that had not left by itself.
    pub fn all_leave(&mut self, client: ClientIndex, at: Moment) {
        for stay in self.stays.iter_mut().filter(|stay| stay.client == client) {
            stay.left = Some(stay.left.map_or(at, |left| left.min(at)));
        }
    }

    /// A client read a gap.
    pub fn gap(&mut self, client: ClientIndex, topic: &str, count: u64) {
        let name = known(topic, &TOPICS)
            .or_else(|| known(topic, &PLAIN))
            .or_else(|| known(topic, &SHARDS));
        let Some(topic) = name else {
            return self.violate(Kind::Content, format!("a gap of {topic:?}"));
        };
        let is_lossy = self.lossy.contains(&client);
        if policy(topic) == Policy::Close && !is_lossy || count == 0 {
            self.violate(Kind::Content, format!("a gap of {count} of {topic}"));
        }
        self.gaps += count;
        *(self.seen.entry(client).or_default().gaps)
            .entry(topic)
            .or_default() += count;
    }

    /// A client read a delivery; `stay` is the one that it has acks of for this context.
    pub fn deliver(
        &mut self,
        client: ClientIndex,
        number: u64,
        topic: &str,
        context: Filter,
        pad: usize,
        stay: Option<usize>,
    ) {
        self.deliveries += 1;
        let what = format!("client {client}: message {number} of {topic} as {context:?}");
        let Some(publication) = self.publications.get(number as usize) else {
            return self.violate(Kind::Content, format!("{what} was never sent"));
        };
        let (publisher, topic_sent) = (publication.publisher, publication.topic);
        if topic_sent.name() != topic || publication.pad != pad || !context.matches(topic_sent) {
            return self.violate(
                Kind::Content,
                format!("{what} ({pad} bytes) is not {publication:?}"),
            );
        }
        let is_own = publisher == Publisher::Client(client);
        let was_refused = publication.is_refused;
        let (echo, acked) = (publication.echo, publication.acked);
        let Some(stay) = stay else {
            return self.violate(Kind::Stray, format!("{what} came outside every stay"));
        };
        let since = &mut self.stays[stay];
        let is_before = acked.is_some_and(|acked| acked < since.sent)
            || is_own && publication.sent < since.sent;
        if is_own && !echo || is_before || was_refused {
            let text = format!("{what} ({publication:?}) was not due in {since:?}");
            return self.violate(Kind::Stray, text);
        }
        if !since.received.insert(number) {
            return self.violate(Kind::Twice, format!("{what} came twice"));
        }
        let policy = policy_to(context, topic_sent, self.lossy.contains(&client));
        let seen = self.seen.entry(client).or_default();
        if let Some(before) = seen.contexts.insert(number, context)
            && policy != Policy::Conflate
            && !before.is_before(context)
        {
            let text = format!("{what} came behind context {before:?}");
            return self.violate(Kind::Order, text);
        }
        let last = seen.last.insert((publisher, topic_sent, context), number);
        if let Some(last) = last
            && last >= number
        {
            self.violate(
                Kind::Order,
                format!("{what} came behind {last} of {publisher:?}"),
            );
        }
    }

    /// Reckons up what every client must have received by now; each as it stands.
    pub fn reckon(&mut self, standings: &[Standing]) {
        self.musts = 0;
        self.due = vec![(0, 0); self.publications.len()];
        for (client, standing) in standings.iter().enumerate() {
            self.reckon_client(client, *standing);
        }
        let mut found = Vec::new();
        for (number, publication) in self.publications.iter_mut().enumerate() {
            let (least, most) = self.due[number];
            // Each is looked at once: while most who may have got it are still there.
            let Some(counted) = publication.counted.take() else {
                continue;
            };
            if !(least..=most).contains(&counted) {
                let text = format!("{counted} got message {number}, due {least} to {most} times");
                found.push(format!("{text}: {publication:?}"));
            }
            self.exact_counts += u64::from(least == most);
        }
        let is_whole = |client: ClientIndex| standings[client] != Standing::CutOff;
        for question in &mut self.questions {
            found.extend(question.check(&self.stays, is_whole, &self.lossy));
            self.answers += u64::from(question.answered.take().is_some());
        }
        for text in found {
            self.violate(Kind::Count, text);
        }
    }

    /// How many deliveries were due in all, at least and at most.
    pub fn due_in_all(&self) -> (u64, u64) {
        let (least, most): (Vec<u64>, Vec<u64>) = self.due.iter().copied().unzip();
        (least.iter().sum(), most.iter().sum())
    }

    fn reckon_client(&mut self, client: ClientIndex, standing: Standing) {
        let mut skipped: BTreeMap<&'static str, (u64, u64)> = BTreeMap::new();
        let is_lossy = self.lossy.contains(&client);
        let mut found = Vec::new();
        let mut musts = 0;
        for stay in self.stays.iter().filter(|stay| stay.client == client) {
            // By publisher and topic: the last that came.
            let mut came: HashMap<(Publisher, Topic), u64> = HashMap::new();
            for &number in &stay.received {
                let publication = &self.publications[number as usize];
                came.insert((publication.publisher, publication.topic), number);
            }
            for (number, publication) in self.publications.iter().enumerate() {
                let (least, most) = &mut self.due[number];
                let number = number as u64;
                if stay.received.contains(&number) {
                    *least += 1;
                    *most += 1;
                    continue;
                }
                if !stay.filter.matches(publication.topic) {
                    continue;
                }
                let verdict = verdict(publication, stay);
                let policy = policy_to(stay.filter, publication.topic, is_lossy);
                let may_skip = policy != Policy::Close;
                if verdict != Verdict::MustNot && (may_skip || standing != Standing::Open) {
                    *most += 1;
                    let was_due = verdict == Verdict::Must && standing != Standing::CutOff;
                    *least += u64::from(was_due);
                }
                if may_skip {
                    let (must, may) = skipped.entry(publication.topic.name()).or_default();
                    *must += u64::from(verdict == Verdict::Must);
                    *may += u64::from(verdict != Verdict::MustNot);
                    continue;
                }
                let of = (publication.publisher, publication.topic);
                let is_hole = came.get(&of).is_some_and(|last| *last > number);
                let is_missing = match verdict {
                    Verdict::Must => standing != Standing::CutOff || is_hole,
                    Verdict::MayIfNoneLater => is_hole,
                    Verdict::May | Verdict::MustNot => false,
                };
                if is_missing {
                    let text = format!("message {number} {publication:?} did not come in {stay:?}");
                    found.push(text);
                }
                musts += u64::from(verdict == Verdict::Must);
            }
            musts += stay.received.len() as u64;
        }
        self.musts += musts;
        let gaps = (self.seen.get(&client)).map_or_else(BTreeMap::new, |seen| seen.gaps.clone());
        for (topic, gap) in &gaps {
            let (_, may) = skipped.get(topic).copied().unwrap_or_default();
            if *gap > may {
                found.push(format!(
                    "client {client} was told of {gap} skipped messages of {topic}, there are {may} at most"
                ));
            }
        }
        for (topic, (must, _)) in skipped {
            let gap = gaps.get(topic).copied().unwrap_or(0);
            if standing != Standing::CutOff && must > gap {
                found.push(format!(
                    "client {client} misses {must} messages of {topic} and was told of {gap}"
                ));
            }
        }
        for text in found {
            self.violate(Kind::Missing, text);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Must,
    /// Or must, if a later one of its publisher and topic came: they stay in order, so this one was lost.
    MayIfNoneLater,
    May,
    MustNot,
}

/// What happens to a slow reader, who may be one that misses some of any topic.
fn policy_to(filter: Filter, topic: Topic, is_lossy: bool) -> Policy {
    match policy(topic.name()) {
        Policy::Close if is_lossy => Policy::DropOldest,
        policy if is_lossy => policy,
        _ => filter.policy(topic),
    }
}

fn verdict(publication: &Publication, stay: &Stay) -> Verdict {
    let is_own = publication.publisher == Publisher::Client(stay.client);
    if publication.is_refused
        || is_own && !publication.echo
        || !stay.filter.matches(publication.topic)
        || (publication.acked).is_some_and(|acked| acked < stay.sent)
        || (stay.left_acked).is_some_and(|left| left < publication.sent)
    {
        return Verdict::MustNot;
    }
    let is_behind_subscribe = stay.acked.is_some_and(|acked| acked < publication.sent)
        || is_own && stay.acked.is_some() && stay.sent < publication.sent;
    if !is_behind_subscribe {
        return Verdict::May;
    }
    let Some(acked) = publication.acked else {
        return Verdict::MayIfNoneLater;
    };
    let is_before_leaving = stay
        .left
        .is_none_or(|left| acked < left || is_own && publication.sent < left);
    if is_before_leaving {
        Verdict::Must
    } else {
        Verdict::MayIfNoneLater
    }
}
