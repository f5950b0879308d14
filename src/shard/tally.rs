//! Questions that a shard has to put to the others before it can answer a client: how many heard a publication, who
//! subscribes to a channel.
//!
//! The asker keeps a *tally* until every shard that it asked has answered; the client's later commands go on
//! meanwhile, and only its answers wait (`resp`). An answer goes back with the next routing, those to publications of
//! one turn in one parcel, so that a pipeline costs two parcels a turn and not two a publication.
//!
//! A shard always answers, or its process ends: a tally has no deadline. There are at most
//! [`RESP_WAITING_MAX`](crate::limits::RESP_WAITING_MAX) of each session, and they end with it; an answer that comes
//! later finds nobody.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::metrics::ShardStats;
use crate::address::{SessionId, ShardId};
use crate::protocol::resp::request::ClientFilter;

/// What a shard is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Query {
    /// How many RESP sessions subscribe to each of these names. `shard`: as shard channels.
    Counts { names: Arc<[Bytes]>, shard: bool },
    /// To which names RESP sessions subscribe, of those that the glob matches.
    Names { pattern: Option<Bytes>, shard: bool },
    /// Who is connected by RESP, of these: a line each.
    Clients(ClientFilter),
    /// What it has counted.
    Facts,
}

impl Query {
    /// The bytes that it holds.
    pub fn size(&self) -> usize {
        match self {
            Query::Counts { names, .. } => {
                let bytes: usize = names.iter().map(Bytes::len).sum();
                bytes + names.len() * size_of::<Bytes>()
            }
            Query::Names { pattern, .. } => pattern.as_ref().map_or(0, Bytes::len),
            Query::Clients(_) | Query::Facts => 0,
        }
    }
}

/// What it answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// In the order of the names.
    Counts(Vec<u64>),
    /// In no order.
    Names(Vec<Bytes>),
    /// Lines of text.
    Text(Vec<u8>),
    /// Numbers.
    Facts(Box<Facts>),
}

/// What INFO tells of a shard, or of several added up.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Facts {
    /// What it has counted.
    pub stats: ShardStats,
}

impl Facts {
    fn add(&mut self, other: &Facts) {
        let (own, others) = (&mut self.stats, &other.stats);
        own.connections += others.connections;
        own.accepted += others.accepted;
        own.refused += others.refused;
        own.commands += others.commands;
        own.subscriptions += others.subscriptions;
        own.publishes += others.publishes;
        own.deliveries_due += others.deliveries_due;
        own.delivered += others.delivered;
        own.announced += others.announced;
        own.closed_slow += others.closed_slow;
        own.outbox_bytes += others.outbox_bytes;
    }
}

impl Found {
    /// The bytes that it holds.
    pub fn size(&self) -> usize {
        match self {
            Found::Counts(counts) => counts.len() * size_of::<u64>(),
            Found::Names(names) => {
                let bytes: usize = names.iter().map(Bytes::len).sum();
                bytes + names.len() * size_of::<Bytes>()
            }
            Found::Text(text) => text.len(),
            Found::Facts(_) => size_of::<Facts>(),
        }
    }
}

/// What has come together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gathered {
    /// Receivers of a publication.
    Receivers(u64),
    /// Of a [`Query::Counts`]: the names as they were asked for.
    Counts(Arc<[Bytes]>, Vec<u64>),
    /// Of a [`Query::Names`], each once.
    Names(BTreeSet<Bytes>),
    /// Of a [`Query::Clients`].
    Text(Vec<u8>),
    /// Of a [`Query::Facts`], and the sections that were asked for.
    Facts(Box<Facts>, Vec<Bytes>),
}

impl Gathered {
    /// Adds what another shard found.
    pub fn add(&mut self, found: Found) {
        match (self, found) {
            (Gathered::Counts(_, sums), Found::Counts(counts)) => {
                for (sum, count) in sums.iter_mut().zip(counts) {
                    *sum += count;
                }
            }
            (Gathered::Names(all), Found::Names(names)) => all.extend(names),
            (Gathered::Text(all), Found::Text(text)) => all.extend(text),
            (Gathered::Facts(sums, _), Found::Facts(facts)) => sums.add(&facts),
            (gathered, found) => {
                debug_assert!(false, "{found:?} is no answer to {gathered:?}");
            }
        }
    }
}

#[derive(Debug)]
struct Tally {
    session: SessionId,
    /// Shards that have not answered.
    left: usize,
    gathered: Gathered,
}

/// The tallies of a shard's sessions, and the receivers that it has counted for others.
#[derive(Debug)]
pub struct Tallies {
    next_number: u64,
    pending: HashMap<u64, Tally, RandomState>,
    /// By the asking shard: its publication's number, and how many received it here.
    counted: Vec<Vec<(u64, u32)>>,
}

impl Tallies {
    /// In a broker of so many shards.
    pub fn new(shards: usize) -> Tallies {
        Tallies {
            next_number: 0,
            pending: HashMap::default(),
            counted: vec![Vec::new(); shards],
        }
    }

    /// A number for a question that is about to be put. It is never given again, also if no tally begins.
    pub fn reserve(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// A question was put to so many shards, under a number that was reserved for it.
    pub fn begin(&mut self, number: u64, session: SessionId, asked: usize, gathered: Gathered) {
        debug_assert!(asked > 0, "whoever asks nobody knows already");
        let tally = Tally {
            session,
            left: asked,
            gathered,
        };
        self.pending.insert(number, tally);
    }

    /// A shard's part of an answer; the whole if it was the last.
    pub fn add(
        &mut self,
        number: u64,
        add: impl FnOnce(&mut Gathered),
    ) -> Option<(SessionId, Gathered)> {
        let tally = self.pending.get_mut(&number)?;
        add(&mut tally.gathered);
        tally.left -= 1;
        if tally.left > 0 {
            return None;
        }
        let tally = self.pending.remove(&number)?;
        Some((tally.session, tally.gathered))
    }

    /// Nobody waits for this answer any more.
    pub fn forget(&mut self, number: u64) {
        self.pending.remove(&number);
    }

    /// So many received a publication of another shard here.
    pub fn count(&mut self, from: ShardId, number: u64, receivers: u64) {
        let receivers = u32::try_from(receivers).unwrap_or(u32::MAX);
        self.counted[from.index()].push((number, receivers));
    }

    /// What has been counted for a shard and not been sent.
    pub fn counted(&mut self, shard: ShardId) -> &mut Vec<(u64, u32)> {
        &mut self.counted[shard.index()]
    }

    /// Does a count wait to be sent?
    pub fn has_answers(&self) -> bool {
        self.counted.iter().any(|counted| !counted.is_empty())
    }

    /// Does no question wait for an answer?
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Everything that is remembered of any question.
    pub fn entries(&self) -> usize {
        self.pending.len() + self.counted.iter().map(Vec::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId {
        slot: 1,
        generation: 2,
    };

    #[test]
    fn the_last_answer_completes() {
        let mut tallies = Tallies::new(3);
        let number = tallies.reserve();
        tallies.begin(number, SESSION, 2, Gathered::Receivers(3));
        let add = |gathered: &mut Gathered| match gathered {
            Gathered::Receivers(sum) => *sum += 4,
            other => panic!("{other:?}"),
        };
        assert_eq!(tallies.add(number, add), None);
        assert_eq!(
            tallies.add(number, add),
            Some((SESSION, Gathered::Receivers(11)))
        );
        assert_eq!(tallies.add(number, add), None, "it is over");
        assert!(tallies.is_idle());

        let next = tallies.reserve();
        assert_ne!(next, number);
        tallies.begin(next, SESSION, 1, Gathered::Receivers(0));
        tallies.forget(next);
        assert_eq!(tallies.add(next, add), None);
        assert_eq!(tallies.entries(), 0);
    }

    #[test]
    fn answers_add_up() {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        let mut names = Gathered::Names([bytes("a"), bytes("b")].into());
        names.add(Found::Names(vec![bytes("c"), bytes("a")]));
        assert_eq!(
            names,
            Gathered::Names([bytes("a"), bytes("b"), bytes("c")].into())
        );
        let asked: Arc<[Bytes]> = [bytes("a"), bytes("b")].into();
        let mut counts = Gathered::Counts(asked.clone(), vec![1, 0]);
        counts.add(Found::Counts(vec![2, 5]));
        assert_eq!(counts, Gathered::Counts(asked, vec![3, 5]));
        let mut text = Gathered::Text(b"a\n".to_vec());
        text.add(Found::Text(b"b\n".to_vec()));
        assert_eq!(text, Gathered::Text(b"a\nb\n".to_vec()));
    }
}
