//! What a RESP client says: commands at random, many at once, and for each the one answer that must come.
//!
//! What a command does depends only on those before it on its connection. So the client knows at once which version it
//! will be answered in, how many subscriptions a confirmation will count, and what will be refused.

use std::collections::{BTreeMap, VecDeque};

use crate::client::Client;
use crate::names::{Filter, PATTERNS, PLAIN, SHARDS, TOPICS, Topic};
use crate::oracle::{Publication, Publisher};
use crate::profile::Profile;
use crate::questions::{Asked, Question};
use crate::resp_value::Value;
use crate::stage::Stage;

/// What only a RESP client has.
#[derive(Default)]
pub struct Resp {
    /// It speaks RESP3, by the order of its commands.
    pub says_three: bool,
    /// And by the answers that it has read.
    pub hears_three: bool,
    pub expected: VecDeque<Expected>,
    /// Answers to what it says now are left out, for it asked for that.
    is_silent: bool,
    subscriptions_max: usize,
    patterns_max: usize,
}

/// The answer that a command must get.
#[derive(Debug)]
pub struct Expected {
    pub what: What,
    /// It is left out: whoever reads a later one knows that this command was carried out.
    pub is_silent: bool,
}

#[derive(Debug)]
pub enum What {
    /// This and no other.
    Value(Value),
    /// An error that begins like this.
    Error(&'static str),
    /// The answer to HELLO, from which on it is RESP3, or is not.
    Hello(bool),
    /// A stay begins; so many subscriptions are counted.
    Begun(Filter, usize, usize),
    /// One ends, if there is one.
    Ended(Kind, String, Option<(Filter, usize)>, usize),
    /// All of a kind end, in any order; so many others are counted.
    AllEnded(Kind, BTreeMap<Filter, usize>, usize),
    /// The number of receivers of a publication, and its own stays that got it before.
    Count(u64, Vec<usize>),
    /// To a question.
    Answer(usize),
    /// To RESET: these stays have ended.
    Reset(Vec<(Filter, usize)>),
    /// To QUIT.
    Goodbye,
}

/// The three ways to subscribe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Channel,
    Pattern,
    Shard,
}

/// A name that is too long for a channel, and for a pattern.
const LONG: [u8; 1_025] = [b'x'; 1_025];

impl Kind {
    /// What the words of its commands and answers begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            Kind::Channel => "",
            Kind::Pattern => "p",
            Kind::Shard => "s",
        }
    }

    pub fn filter(self, name: &'static str) -> Filter {
        match self {
            Kind::Channel => Filter::Channel(name),
            Kind::Pattern => Filter::Pattern(name),
            Kind::Shard => Filter::Shard(name),
        }
    }

    fn is_of(self, filter: Filter) -> bool {
        self.filter(filter.name()) == filter
    }

    /// Is a subscription counted in the confirmations of this kind?
    fn counts(self, filter: Filter) -> bool {
        (self == Kind::Shard) == Kind::Shard.is_of(filter)
    }
}

impl Resp {
    pub fn new(profile: &Profile) -> Resp {
        Resp {
            subscriptions_max: profile.server_limits.subscriptions_max,
            patterns_max: profile.server_limits.patterns_max,
            ..Resp::default()
        }
    }
}

impl Client {
    /// What clients say as they come. Only with it is one dealt.
    pub fn greet(&mut self, stage: &mut Stage, out: &mut Vec<u8>) {
        match stage.rng.u8(..5) {
            0 => self.ping(stage, out),
            1 => self.hello(false, stage, out),
            _ => self.hello(true, stage, out),
        }
    }

    pub fn act_by_resp(&mut self, profile: &Profile, stage: &mut Stage, out: &mut Vec<u8>) {
        let mut drawn = stage.rng.u8(..100);
        if !self.may_say_anything() && stage.rng.u8(..8) > 0 {
            // Most of the rest would be refused.
            drawn %= 39;
        }
        match drawn {
            0..=22 => {
                let kind = any_kind(stage);
                let count = few(stage);
                self.subscribe_to_some(kind, count, profile, stage, out);
            }
            23..=38 => self.unsubscribe_from_some(stage, out),
            39..=72 => {
                let topic = any_topic(profile, stage);
                self.publish_by_resp(topic, stage, out);
            }
            73..=80 => self.ask_about_all(stage, out),
            81..=83 => self.ping(stage, out),
            84 => {
                let text = stage.any_pad().to_string();
                self.say(&["ECHO", &text], stage, out);
                self.await_reply(if self.may_say_anything() {
                    What::Value(Value::Bulk(text))
                } else {
                    What::Error("ERR Can't execute 'echo'")
                });
            }
            85..=86 => {
                let is_three = stage.rng.u8(..3) > 0;
                self.hello(is_three, stage, out);
            }
            87 => self.reset(stage, out),
            88..=91 => self.say_what_is_refused(stage, out),
            92..=93 => self.say_without_answers(profile, stage, out),
            _ => {
                // A burst to one topic.
                let topic = any_topic(profile, stage);
                for _ in 0..stage.rng.usize(2..20) {
                    self.publish_by_resp(topic, stage, out);
                }
            }
        }
    }

    // ------------------------------------------------------------------------------------- subscriptions

    /// Some names of the seed's, perhaps one of them twice.
    pub fn subscribe_to_some(
        &mut self,
        kind: Kind,
        count: usize,
        profile: &Profile,
        stage: &mut Stage,
        out: &mut Vec<u8>,
    ) -> Filter {
        let among = match kind {
            Kind::Channel => &profile.channels[..],
            Kind::Pattern => &profile.patterns[..],
            Kind::Shard => &SHARDS[..],
        };
        let mut names: Vec<&'static str> = (0..count)
            .map(|_| among[stage.rng.usize(..among.len())])
            .collect();
        if self.resp.subscriptions_max < 1_000 {
            // Where few are allowed, two of one name count as two before they are looked at.
            names.sort_unstable();
            names.dedup();
        }
        self.subscribe_by_resp(kind, &names, stage, out);
        kind.filter(names[0])
    }

    /// Subscribes to all of these, or to none if that were too many.
    pub fn subscribe_by_resp(
        &mut self,
        kind: Kind,
        names: &[&'static str],
        stage: &mut Stage,
        out: &mut Vec<u8>,
    ) {
        let sent = stage.now();
        let word = format!("{}SUBSCRIBE", kind.prefix().to_uppercase());
        self.say(&[&[&word[..]], names].concat(), stage, out);
        let filters: Vec<Filter> = names.iter().map(|name| kind.filter(name)).collect();
        let is_new = |filter: &&Filter| !self.wanted.contains_key(filter);
        let new = filters.iter().filter(is_new).count();
        let of_patterns = self
            .wanted
            .keys()
            .filter(|filter| Kind::Pattern.is_of(**filter));
        if self.wanted.len() + new > self.resp.subscriptions_max {
            return self.await_reply(What::Error("ERR too many subscriptions"));
        }
        if kind == Kind::Pattern && of_patterns.count() + new > self.resp.patterns_max {
            return self.await_reply(What::Error("ERR too many patterns"));
        }
        for filter in filters {
            let stay = self.begin_stay(filter, sent, stage);
            let count = self.counted(kind);
            self.await_confirmation(What::Begun(filter, stay, count));
        }
    }

    fn unsubscribe_from_some(&mut self, stage: &mut Stage, out: &mut Vec<u8>) {
        let wanted: Vec<Filter> = self.wanted.keys().copied().collect();
        let any = (!wanted.is_empty() && stage.rng.u8(..10) > 0)
            .then(|| wanted[stage.rng.usize(..wanted.len())]);
        let kinds = [Kind::Channel, Kind::Pattern, Kind::Shard];
        let kind = any.and_then(|any| kinds.into_iter().find(|kind| kind.is_of(any)));
        let kind = kind.unwrap_or_else(|| any_kind(stage));
        if stage.rng.u8(..6) == 0 {
            return self.unsubscribe_from_all(kind, stage, out);
        }
        let mut names: Vec<&'static str> = Vec::new();
        for _ in 0..few(stage) {
            let of_kind: Vec<_> = wanted
                .iter()
                .filter(|filter| kind.is_of(**filter))
                .collect();
            names.push(if of_kind.is_empty() || stage.rng.u8(..10) == 0 {
                "a"
            } else {
                of_kind[stage.rng.usize(..of_kind.len())].name()
            });
        }
        let sent = stage.now();
        let word = format!("{}UNSUBSCRIBE", kind.prefix().to_uppercase());
        self.say(&[&[&word[..]], &names[..]].concat(), stage, out);
        for name in names {
            let filter = kind.filter(name);
            let stay = self.end_stay(filter, sent, stage);
            let count = self.counted(kind);
            let ended = stay.map(|stay| (filter, stay));
            self.await_confirmation(What::Ended(kind, name.to_owned(), ended, count));
        }
    }

    fn unsubscribe_from_all(&mut self, kind: Kind, stage: &mut Stage, out: &mut Vec<u8>) {
        let sent = stage.now();
        let word = format!("{}UNSUBSCRIBE", kind.prefix().to_uppercase());
        self.say(&[&word], stage, out);
        let wanted = self.wanted.clone();
        let of_kind: BTreeMap<Filter, usize> = wanted
            .into_iter()
            .filter(|(filter, _)| kind.is_of(*filter))
            .collect();
        for filter in of_kind.keys() {
            self.end_stay(*filter, sent, stage);
        }
        let others = self.counted(kind);
        self.await_confirmation(What::AllEnded(kind, of_kind, others));
    }

    /// The subscriptions that a confirmation of this kind counts, after what was said so far.
    fn counted(&self, kind: Kind) -> usize {
        let counted = self.wanted.keys().filter(|filter| kind.counts(**filter));
        counted.count()
    }

    // -------------------------------------------------------------------------------------- publications

    pub fn publish_by_resp(&mut self, topic: Topic, stage: &mut Stage, out: &mut Vec<u8>) {
        let pad = stage.any_pad();
        self.publish_by_resp_of(topic, pad, stage, out);
    }

    /// Publishes a message with so many bytes that say nothing.
    pub fn publish_by_resp_of(
        &mut self,
        topic: Topic,
        pad: usize,
        stage: &mut Stage,
        out: &mut Vec<u8>,
    ) {
        let (word, is_refused) = match topic {
            Topic::Name(_) => ("PUBLISH", "ERR Can't execute 'publish'"),
            Topic::Shard(_) => ("SPUBLISH", "ERR Can't execute 'spublish'"),
        };
        if !self.may_say_anything() {
            self.say(&[word, topic.name(), "refused"], stage, out);
            return self.await_reply(What::Error(is_refused));
        }
        stage.notice_gone();
        let sent = stage.now();
        let publisher = Publisher::Client(self.index);
        let number = (stage.oracle).publish(Publication::new(publisher, topic, pad, sent));
        let message = stage.oracle.message(number);
        self.say(&[word, topic.name(), &message], stage, out);
        let own = self
            .wanted
            .iter()
            .filter(|(filter, _)| filter.matches(topic));
        let own = own.map(|(_, stay)| *stay).collect();
        self.await_reply(What::Count(number, own));
    }

    // ------------------------------------------------------------------------------------------- the rest

    fn ask_about_all(&mut self, stage: &mut Stage, out: &mut Vec<u8>) {
        if !self.may_say_anything() {
            self.say(&["PUBSUB", "NUMPAT"], stage, out);
            return self.await_reply(What::Error("ERR Can't execute 'pubsub|numpat'"));
        }
        let is_shard = stage.rng.u8(..4) == 0;
        let pattern = (stage.rng.u8(..3) > 0).then(|| PATTERNS[stage.rng.usize(..PATTERNS.len())]);
        let what = match stage.rng.u8(..4) {
            0 => Asked::Patterns,
            1 => Asked::Names { is_shard, pattern },
            _ => {
                let any = |stage: &mut Stage| match is_shard {
                    true => Filter::Shard(SHARDS[stage.rng.usize(..SHARDS.len())]),
                    false => Filter::Channel(TOPICS[stage.rng.usize(..TOPICS.len())]),
                };
                Asked::Counts((0..few(stage)).map(|_| any(stage)).collect())
            }
        };
        let prefix = if is_shard { "SHARD" } else { "" };
        let (word, names) = match &what {
            Asked::Patterns => ("NUMPAT".to_owned(), Vec::new()),
            Asked::Names { pattern, .. } => (
                format!("{prefix}CHANNELS"),
                pattern.iter().copied().collect(),
            ),
            Asked::Counts(filters) => {
                let names = filters.iter().map(|filter| filter.name());
                (format!("{prefix}NUMSUB"), names.collect())
            }
        };
        stage.notice_gone();
        let asked = stage.now();
        self.say(&[&["PUBSUB", &word], &names[..]].concat(), stage, out);
        stage.oracle.questions.push(Question {
            what,
            asked,
            answered: None,
        });
        self.await_reply(What::Answer(stage.oracle.questions.len() - 1));
    }

    pub fn ping(&mut self, stage: &mut Stage, out: &mut Vec<u8>) {
        let text = (stage.rng.bool()).then(|| stage.rng.u8(..).to_string());
        match &text {
            Some(text) => self.say(&["PING", text], stage, out),
            None => self.say(&["ping"], stage, out),
        }
        let pong = match text {
            text if !self.may_say_anything() => Value::Array(vec![
                Value::text("pong"),
                Value::Bulk(text.unwrap_or_default()),
            ]),
            Some(text) => Value::Bulk(text),
            None => Value::Simple("PONG".to_owned()),
        };
        self.await_reply(What::Value(pong));
    }

    fn hello(&mut self, is_three: bool, stage: &mut Stage, out: &mut Vec<u8>) {
        self.say(&["HELLO", if is_three { "3" } else { "2" }], stage, out);
        if self.may_say_anything() {
            self.resp.says_three = is_three;
            self.await_reply(What::Hello(is_three));
        } else {
            self.await_reply(What::Error("ERR Can't execute 'hello'"));
        }
    }

    fn reset(&mut self, stage: &mut Stage, out: &mut Vec<u8>) {
        let sent = stage.now();
        self.say(&["RESET"], stage, out);
        let ended: Vec<(Filter, usize)> = std::mem::take(&mut self.wanted).into_iter().collect();
        for (_, stay) in &ended {
            stage.oracle.stays[*stay].left = Some(sent);
        }
        self.resp.says_three = false;
        self.await_reply(What::Reset(ended));
    }

    pub fn quit(&mut self, stage: &mut Stage, out: &mut Vec<u8>) {
        self.say(&["QUIT"], stage, out);
        self.await_reply(What::Goodbye);
    }

    fn say_what_is_refused(&mut self, stage: &mut Stage, out: &mut Vec<u8>) {
        let long = std::str::from_utf8(&LONG).unwrap();
        let (words, error): (&[&str], &'static str) = match stage.rng.u8(..5) {
            0 => (&["SHOUT", "x"], "ERR unknown command 'SHOUT'"),
            1 => (
                &["subscribe"],
                "ERR wrong number of arguments for 'subscribe'",
            ),
            2 => (
                &["PUBLISH", "a"],
                "ERR wrong number of arguments for 'publish'",
            ),
            // None of them, though the first could be.
            3 => (
                &["SUBSCRIBE", "a", long],
                "ERR the channel is longer than 1024 bytes",
            ),
            _ => (
                &["PSUBSCRIBE", "never*", long],
                "ERR the pattern is longer than 255 bytes",
            ),
        };
        self.say(words, stage, out);
        self.await_reply(What::Error(error));
    }

    /// Some commands that are not answered, for it asks for that. (Subscriptions are confirmed all the same.)
    fn say_without_answers(&mut self, profile: &Profile, stage: &mut Stage, out: &mut Vec<u8>) {
        if !self.may_say_anything() {
            self.say(&["CLIENT", "REPLY", "OFF"], stage, out);
            return self.await_reply(What::Error("ERR Can't execute 'client|reply'"));
        }
        let skips_one = stage.rng.bool();
        let (mode, count) = if skips_one {
            ("SKIP", 1)
        } else {
            ("OFF", few(stage))
        };
        self.say(&["CLIENT", "REPLY", mode], stage, out);
        self.resp.is_silent = true;
        for _ in 0..count {
            match stage.rng.u8(..6) {
                0 => self.ping(stage, out),
                // A subscriber of RESP2 could not ask for answers again.
                1 | 2 if skips_one || self.resp.says_three => {
                    let (kind, names) = (any_kind(stage), few(stage));
                    self.subscribe_to_some(kind, names, profile, stage, out);
                }
                _ => {
                    let topic = any_topic(profile, stage);
                    self.publish_by_resp(topic, stage, out);
                }
            }
        }
        self.resp.is_silent = false;
        if !skips_one {
            self.say(&["CLIENT", "REPLY", "ON"], stage, out);
            self.await_reply(What::Value(Value::Simple("OK".to_owned())));
        }
    }

    /// Does RESP2 not forbid most of what could be said now?
    pub fn may_say_anything(&self) -> bool {
        self.resp.says_three || self.wanted.is_empty()
    }

    fn await_confirmation(&mut self, what: What) {
        let is_silent = false;
        self.resp.expected.push_back(Expected { what, is_silent });
    }

    fn await_reply(&mut self, what: What) {
        let is_silent = self.resp.is_silent;
        self.resp.expected.push_back(Expected { what, is_silent });
    }

    /// Appends a command, now and then as people write it.
    fn say(&mut self, words: &[&str], stage: &mut Stage, out: &mut Vec<u8>) {
        let index = self.index;
        stage.note(|| {
            let line: String = words.join(" ").chars().take(120).collect();
            format!("client {index} says {line}")
        });
        let is_plain = |word: &&str| {
            let mut bytes = word.bytes();
            !word.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')
        };
        if words.iter().all(is_plain) && stage.rng.u8(..8) == 0 {
            out.extend_from_slice(words.join(" ").as_bytes());
            return out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
    }
}

pub fn any_kind(stage: &mut Stage) -> Kind {
    match stage.rng.u8(..10) {
        0..=5 => Kind::Channel,
        6..=8 => Kind::Pattern,
        _ => Kind::Shard,
    }
}

/// How many names a command has: mostly one.
fn few(stage: &mut Stage) -> usize {
    match stage.rng.u8(..6) {
        0..=2 => 1,
        _ => stage.rng.usize(1..5),
    }
}

fn any_topic(profile: &Profile, stage: &mut Stage) -> Topic {
    match stage.rng.u8(..16) {
        0 => Topic::Shard(SHARDS[stage.rng.usize(..SHARDS.len())]),
        1 => Topic::Name(PLAIN[stage.rng.usize(..PLAIN.len())]),
        // Where few are subscribed to, these more often.
        2..=7 => Topic::Name(profile.channels[stage.rng.usize(..profile.channels.len())]),
        _ => Topic::Name(TOPICS[stage.rng.usize(..TOPICS.len())]),
    }
}
