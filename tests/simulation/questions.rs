//! What RESP clients ask about all shards, and what they may be told.
//!
//! A shard answers for its own sessions at some moment between the question and the answer. So whoever was subscribed
//! for all that time is counted, and whoever was not at any moment of it is not.

use std::collections::BTreeSet;

use crate::client::ClientIndex;
use crate::names::{Filter, fits_glob};
use crate::oracle::{Moment, Stay};

/// A question.
#[derive(Debug)]
pub struct Question {
    pub what: Asked,
    pub asked: Moment,
    /// When the answer was read, and what it was.
    pub answered: Option<(Moment, Said)>,
}

#[derive(Debug)]
pub enum Asked {
    /// How many subscribe to each of these? A filter of nobody is possible.
    Counts(Vec<Filter>),
    /// Which channels are subscribed to, or shard channels, of those that a glob matches?
    Names {
        is_shard: bool,
        pattern: Option<&'static str>,
    },
    /// How many patterns are there?
    Patterns,
}

#[derive(Debug)]
pub enum Said {
    Numbers(Vec<u64>),
    Names(BTreeSet<String>),
}

impl Question {
    /// What is wrong with the answer, if it is. `is_whole`: has nothing ended the stays of a client but what it said
    /// itself? Of subscribers only Redis clients are counted; patterns may also be a peer's.
    pub fn check(
        &self,
        stays: &[Stay],
        is_whole: impl Fn(ClientIndex) -> bool,
        peers: &BTreeSet<ClientIndex>,
    ) -> Option<String> {
        let (answered, said) = self.answered.as_ref()?;
        let is_possible = |stay: &&Stay| {
            stay.sent < *answered && stay.left_acked.is_none_or(|left| left > self.asked)
        };
        let is_certain = |stay: &&Stay| {
            stay.acked.is_some_and(|acked| acked < self.asked)
                && stay.left.is_none_or(|left| left > *answered)
                && is_whole(stay.client)
        };
        let is_about_all = matches!(self.what, Asked::Patterns);
        let is_counted = |stay: &&Stay| is_about_all || !peers.contains(&stay.client);
        let counted = || stays.iter().filter(is_counted);
        let possible: Vec<&Stay> = counted().filter(is_possible).collect();
        let certain: Vec<&Stay> = counted().filter(is_certain).collect();
        let is_right = match (&self.what, said) {
            (Asked::Counts(filters), Said::Numbers(numbers)) => {
                filters.len() == numbers.len()
                    && (filters.iter().zip(numbers)).all(|(filter, number)| {
                        let of = |stays: &[&Stay]| {
                            let stays = stays.iter().filter(|stay| stay.filter == *filter);
                            let clients: BTreeSet<_> = stays.map(|stay| stay.client).collect();
                            clients.len() as u64
                        };
                        (of(&certain)..=of(&possible)).contains(number)
                    })
            }
            (Asked::Names { is_shard, pattern }, Said::Names(names)) => {
                let of = |stays: &[&Stay]| -> BTreeSet<String> {
                    let names = stays.iter().filter_map(|stay| match stay.filter {
                        Filter::Channel(name) if !is_shard => Some(name),
                        Filter::Shard(name) if *is_shard => Some(name),
                        _ => None,
                    });
                    let fits = |name: &&str| {
                        pattern.is_none_or(|glob| fits_glob(glob.as_bytes(), name.as_bytes()))
                    };
                    names.filter(fits).map(str::to_owned).collect()
                };
                of(&certain).is_subset(names) && names.is_subset(&of(&possible))
            }
            (Asked::Patterns, Said::Numbers(numbers)) => {
                let of = |stays: &[&Stay]| {
                    let stays = stays.iter().map(|stay| stay.filter);
                    let patterns = stays.filter(|filter| matches!(filter, Filter::Pattern(_)));
                    patterns.collect::<BTreeSet<_>>().len() as u64
                };
                matches!(numbers[..], [number] if (of(&certain)..=of(&possible)).contains(&number))
            }
            (_, _) => false,
        };
        (!is_right).then(|| {
            let filters = |stays: &[&Stay]| -> Vec<_> {
                (stays.iter())
                    .map(|stay| (stay.client, stay.filter))
                    .collect()
            };
            format!(
                "{self:?}; certain are {:?}, possible {:?}",
                filters(&certain),
                filters(&possible)
            )
        })
    }
}
