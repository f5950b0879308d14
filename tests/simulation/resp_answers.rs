//! What a RESP client hears: answers in the order of its commands, and deliveries between any two of them.

use std::collections::BTreeSet;

use crate::client::{Client, End, Phase};
use crate::names::{Filter, known};
use crate::names::{PATTERNS, PLAIN, SHARDS, TOPICS};
use crate::oracle::{Kind as Promise, Moment};
use crate::questions::{Asked, Said};
use crate::resp::{Expected, Kind, What};
use crate::resp_value::Value;
use crate::stage::{Cue, Stage};

impl Client {
    pub fn digest_values(&mut self, stage: &mut Stage) {
        let mut inbox = std::mem::take(&mut self.inbox);
        let mut offset = 0;
        while self.phase != Phase::Ended
            && let Some((value, size)) = Value::parse(&inbox[offset..])
        {
            offset += size;
            self.hear_value(&value, stage);
        }
        inbox.drain(..offset);
        self.inbox = inbox;
    }

    fn hear_value(&mut self, value: &Value, stage: &mut Stage) {
        let moment = stage.now();
        let index = self.index;
        stage.note(|| {
            let text: String = format!("{value:?}").chars().take(150).collect();
            format!("client {index} hears {text}")
        });
        if self.got_close.is_some() {
            let text = format!("client {index}: {value:?} behind the answer to QUIT");
            return stage.oracle.violate(Promise::Ending, text);
        }
        if let (Phase::Connecting, Value::Error(text)) = (self.phase, value) {
            let status = match text.get(..6) {
                Some("ERR ma") => Some(503),
                Some("NOAUTH") => Some(408),
                _ => None,
            };
            if let Some(status) = status {
                stage.network.borrow_mut().client_closes(self.connection);
                return self.over(End::Refused(status), stage);
            }
        }
        self.phase = Phase::Open;
        self.was_let_in = true;
        match value.texts().as_deref() {
            Some(["message", name, text]) => self.hear_message(value, name, text, stage),
            Some(["pmessage", pattern, name, text]) => {
                let filter = known(pattern, &PATTERNS).map(Filter::Pattern);
                self.hear_delivery(value, filter, name, text, stage);
            }
            Some(["smessage", name, text]) => {
                let filter = known(name, &SHARDS).map(Filter::Shard);
                self.hear_delivery(value, filter, name, text, stage);
            }
            _ => self.hear_answer_in_order(value, moment, stage),
        }
    }

    fn hear_message(&mut self, value: &Value, name: &str, text: &str, stage: &mut Stage) {
        let channel = known(name, &TOPICS).or_else(|| known(name, &PLAIN));
        self.hear_delivery(value, channel.map(Filter::Channel), name, text, stage);
    }

    fn hear_delivery(
        &mut self,
        value: &Value,
        filter: Option<Filter>,
        name: &str,
        text: &str,
        stage: &mut Stage,
    ) {
        let is_push = matches!(value, Value::Push(_));
        let message: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        let (Some(filter), Some(number), true) = (
            filter,
            message["n"].as_u64(),
            is_push == self.resp.hears_three,
        ) else {
            let text = format!("client {}: a delivery {value:?}", self.index);
            return stage.oracle.violate(Promise::Content, text);
        };
        let pad = message["pad"].as_str().map_or(0, str::len);
        let stay = self.stays.get(&filter).copied();
        (stage.oracle).deliver(self.index, number, name, filter, pad, stay);
    }

    /// An answer belongs to the first command that has none; those that are left out are behind it then.
    fn hear_answer_in_order(&mut self, value: &Value, moment: Moment, stage: &mut Stage) {
        while let Some(passed) = self.resp.expected.pop_front_if(|first| first.is_silent) {
            match passed.what {
                What::Count(number, own) => self.hear_count(number, &own, None, moment, stage),
                what => stage.note(|| format!("unanswered: {what:?}")),
            }
        }
        let Some(mut expected) = self.resp.expected.pop_front() else {
            if self.is_mute && matches!(value, Value::Error(_)) {
                // Why it is closed.
                return;
            }
            let text = format!("client {}: nothing asked for {value:?}", self.index);
            return stage.oracle.violate(Promise::Answer, text);
        };
        match self.accept(&mut expected.what, value, moment, stage) {
            Verdict::Right => {}
            Verdict::More => self.resp.expected.push_front(expected),
            Verdict::Wrong if self.is_mute && matches!(value, Value::Error(_)) => {}
            Verdict::Wrong => {
                let text = format!("client {}: {value:?} for {expected:?}", self.index);
                stage.oracle.violate(Promise::Answer, text);
            }
        }
    }

    /// Is this the answer, and what does it mean?
    fn accept(
        &mut self,
        what: &mut What,
        value: &Value,
        moment: Moment,
        stage: &mut Stage,
    ) -> Verdict {
        let is_right = match what {
            What::Value(expected) => value == expected,
            What::Error(begin) => matches!(value, Value::Error(text) if text.starts_with(*begin)),
            What::Hello(is_three) => {
                self.resp.hears_three = *is_three;
                is_hello(value, *is_three)
            }
            What::Begun(filter, stay, count) => {
                let kind = kind_of(*filter);
                let is_right =
                    *value == self.confirmation(kind, "subscribe", Some(filter.name()), *count);
                stage.oracle.stays[*stay].acked.get_or_insert(moment);
                self.stays.insert(*filter, *stay);
                stage.cues.push(Cue::Subscribed(*filter));
                is_right
            }
            What::Ended(kind, name, ended, count) => {
                let is_right =
                    *value == self.confirmation(*kind, "unsubscribe", Some(name), *count);
                if let Some((filter, stay)) = ended {
                    self.leave(*filter, *stay, moment, stage);
                }
                is_right
            }
            What::AllEnded(kind, left, others) if left.is_empty() => {
                *value == self.confirmation(*kind, "unsubscribe", None, *others)
            }
            What::AllEnded(kind, left, others) => {
                let count = *others + left.len() - 1;
                let is_it = |filter: &&Filter| {
                    *value == self.confirmation(*kind, "unsubscribe", Some(filter.name()), count)
                };
                let Some(filter) = left.keys().find(is_it).copied() else {
                    return Verdict::Wrong;
                };
                if let Some(stay) = left.remove(&filter) {
                    self.leave(filter, stay, moment, stage);
                }
                if !left.is_empty() {
                    return Verdict::More;
                }
                true
            }
            What::Count(number, own) => match value {
                Value::Integer(count) => {
                    self.hear_count(*number, own, Some(*count as u64), moment, stage);
                    true
                }
                _ => false,
            },
            What::Answer(question) => {
                let question = &mut stage.oracle.questions[*question];
                let said = said(&question.what, value);
                question.answered = said.map(|said| (moment, said));
                question.answered.is_some()
            }
            What::Reset(ended) => {
                for (filter, stay) in std::mem::take(ended) {
                    self.leave(filter, stay, moment, stage);
                }
                self.resp.hears_three = false;
                *value == Value::Simple("RESET".to_owned())
            }
            What::Goodbye => {
                self.got_close = self.closed;
                stage.network.borrow_mut().client_finishes(self.connection);
                *value == Value::Simple("OK".to_owned())
            }
        };
        if is_right {
            Verdict::Right
        } else {
            Verdict::Wrong
        }
    }

    /// Every shard has counted the receivers of a publication of this client, also if nobody says how many.
    fn hear_count(
        &mut self,
        number: u64,
        own: &[usize],
        count: Option<u64>,
        moment: Moment,
        stage: &mut Stage,
    ) {
        let publication = &mut stage.oracle.publications[number as usize];
        publication.acked = Some(moment);
        publication.counted = count;
        for stay in own {
            let stay = &stage.oracle.stays[*stay];
            if !stay.has_got(number) {
                let text = format!(
                    "client {}: the count of {number} came before the message in {stay:?}",
                    self.index
                );
                return stage.oracle.violate(Promise::Order, text);
            }
        }
    }

    fn leave(&mut self, filter: Filter, stay: usize, moment: Moment, stage: &mut Stage) {
        stage.oracle.stays[stay].left_acked = Some(moment);
        self.stays.remove(&filter);
        stage.cues.push(Cue::Unsubscribed(filter));
    }

    fn confirmation(&self, kind: Kind, word: &str, name: Option<&str>, count: usize) -> Value {
        let null = if self.resp.hears_three {
            Value::Null
        } else {
            Value::NullBulk
        };
        let values = vec![
            Value::Bulk(format!("{}{word}", kind.prefix())),
            name.map_or(null, Value::text),
            Value::Integer(count as i64),
        ];
        Value::push(self.resp.hears_three, values)
    }

    /// Its publications of which it wants to know how many got them, and does not.
    pub fn uncounted(&self) -> Vec<u64> {
        let expected = self.resp.expected.iter();
        let numbers = expected.filter_map(|expected| match expected.what {
            What::Count(number, _) if !expected.is_silent => Some(number),
            _ => None,
        });
        numbers.collect()
    }

    pub fn has_answers_of_resp(&self) -> bool {
        let mut expected = self.resp.expected.iter();
        expected.all(|expected: &Expected| expected.is_silent)
    }
}

enum Verdict {
    Right,
    /// And there is more to it.
    More,
    Wrong,
}

fn kind_of(filter: Filter) -> Kind {
    match filter {
        Filter::Pattern(_) => Kind::Pattern,
        Filter::Shard(_) => Kind::Shard,
        Filter::Channel(_) | Filter::Dotted(_) | Filter::Room(_) => Kind::Channel,
    }
}

fn is_hello(value: &Value, is_three: bool) -> bool {
    let fields = match value {
        Value::Map(fields) if is_three => fields,
        Value::Array(fields) if !is_three => fields,
        _ => return false,
    };
    let proto = Value::Integer(if is_three { 3 } else { 2 });
    fields.len() == 14
        && fields
            .chunks(2)
            .any(|pair| pair == [Value::text("proto"), proto.clone()])
}

/// The answer to a question, if this is one. It says the names that were asked for again.
fn said(what: &Asked, value: &Value) -> Option<Said> {
    let number = |value: &Value| match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    match (what, value) {
        (Asked::Patterns, value) => Some(Said::Numbers(vec![number(value)?])),
        (Asked::Counts(filters), Value::Array(values)) => {
            let names = values.iter().step_by(2);
            let wanted = filters.iter().map(|filter| Value::text(filter.name()));
            if !names.cloned().eq(wanted) {
                return None;
            }
            let numbers: Option<_> = values.iter().skip(1).step_by(2).map(number).collect();
            Some(Said::Numbers(numbers?))
        }
        (Asked::Names { .. }, Value::Array(values)) => {
            let texts = value.texts()?;
            let names: BTreeSet<String> = texts.into_iter().map(str::to_owned).collect();
            (names.len() == values.len()).then_some(Said::Names(names))
        }
        (_, _) => None,
    }
}
