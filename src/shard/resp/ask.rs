//! Questions about all shards: who subscribes to what, who is connected. Also the answers to others' questions.
//!
//! RESP subscribers are counted and no others: a Socket.IO adapter waits for as many answers as `PUBSUB NUMSUB` says
//! that there are servers.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::address::{SessionId, ShardId, ShardSet};
use crate::protocol::Encoding;
use crate::protocol::resp::request::{ClientFilter, Names};
use crate::protocol::resp::{Space, reply};
use crate::topic::Filter;

use super::super::Shard;
use super::super::fanout::Subscribers;
use super::super::parcel::Parcel;
use super::super::tally::{Facts, Found, Gathered, Query};
use super::execute::Wait;
use super::version_of;

impl Shard {
    /// `PUBSUB NUMSUB`, `PUBSUB SHARDNUMSUB`.
    pub(super) fn ask_counts(
        &mut self,
        id: SessionId,
        space: Space,
        names: &[&[u8]],
    ) -> Result<(), Wait> {
        let names: Arc<[Bytes]> = names
            .iter()
            .map(|name| Bytes::copy_from_slice(name))
            .collect();
        let shard = space == Space::Shards;
        let counts = self.count(&names, shard);
        // Only where somebody listens; of whatever protocol.
        let mut asked = ShardSet::EMPTY;
        for name in names.iter() {
            if let Some(filter) = self.remote_filters.find(&filter(name, shard)) {
                asked = asked.union(*self.remote_filters.value(filter));
            }
        }
        let query = Query::Counts {
            names: names.clone(),
            shard,
        };
        self.ask(id, asked, query, Gathered::Counts(names, counts))
    }

    /// `PUBSUB CHANNELS`, `PUBSUB SHARDCHANNELS`.
    pub(super) fn ask_names(
        &mut self,
        id: SessionId,
        space: Space,
        pattern: Option<&[u8]>,
    ) -> Result<(), Wait> {
        let shard = space == Space::Shards;
        let pattern = match pattern.map(|pattern| Filter::glob(Bytes::copy_from_slice(pattern))) {
            None => None,
            Some(Ok(filter)) => Some(filter.written().clone()),
            Some(Err(error)) => {
                self.refuse_topic(id, error);
                return Ok(());
            }
        };
        let names: BTreeSet<Bytes> = self.names(pattern.as_ref(), shard).into_iter().collect();
        let query = Query::Names { pattern, shard };
        self.ask(id, self.others(), query, Gathered::Names(names))
    }

    /// `CLIENT LIST`.
    pub(super) fn ask_clients(&mut self, id: SessionId, filter: &ClientFilter) -> Result<(), Wait> {
        let text = self.client_lines(filter);
        let query = Query::Clients(filter.clone());
        self.ask(id, self.others(), query, Gathered::Text(text))
    }

    /// `INFO`.
    pub(super) fn ask_facts(&mut self, id: SessionId, sections: Names<'_>) -> Result<(), Wait> {
        let sections = sections.iter().map(|name| Bytes::copy_from_slice(name));
        let gathered = Gathered::Facts(Box::new(self.facts()), sections.collect());
        self.ask(id, self.others(), Query::Facts, gathered)
    }

    fn facts(&self) -> Facts {
        Facts {
            stats: self.stats(),
        }
    }

    fn others(&self) -> ShardSet {
        let mut others = ShardSet::first(self.settings.shards);
        others.remove(self.id);
        others
    }

    /// Asks these shards, if any; what is known already is the answer otherwise.
    fn ask(
        &mut self,
        id: SessionId,
        asked: ShardSet,
        query: Query,
        gathered: Gathered,
    ) -> Result<(), Wait> {
        if asked.is_empty() {
            let mut words = Vec::new();
            self.write_gathered(id, &gathered, &mut words);
            self.answer_resp(id, |_, out| out.extend_from_slice(&words));
            return Ok(());
        }
        let size = query.size() + size_of::<Parcel>();
        if !self.have_room(asked, size) {
            return Err(Wait);
        }
        let number = self.tallies.reserve();
        for shard in asked.iter() {
            self.stats.forwarded += 1;
            let query = query.clone();
            self.lanes.to(shard).push(Parcel::Query { number, query });
        }
        self.wait_for(id, number, asked.len(), gathered);
        Ok(())
    }

    /// Another shard's question.
    pub(in super::super) fn take_query(&mut self, from: ShardId, number: u64, query: &Query) {
        let found = match query {
            Query::Counts { names, shard } => Found::Counts(self.count(names, *shard)),
            Query::Names { pattern, shard } => Found::Names(self.names(pattern.as_ref(), *shard)),
            Query::Clients(filter) => Found::Text(self.client_lines(filter)),
            Query::Facts => Found::Facts(Box::new(self.facts())),
        };
        self.defer(from, Parcel::Found { number, found });
    }

    /// Another shard's answer.
    pub(in super::super) fn take_found(&mut self, number: u64, found: Found) {
        let whole = self.tallies.add(number, |gathered| gathered.add(found));
        if let Some((session, gathered)) = whole {
            self.complete_gathered(session, number, &gathered);
        }
    }

    /// How many received publications of this shard at another one.
    pub(in super::super) fn take_receivers(&mut self, counted: Vec<(u64, u32)>) {
        for (number, receivers) in counted {
            let whole = self.tallies.add(number, |gathered| {
                if let Gathered::Receivers(sum) = gathered {
                    *sum += u64::from(receivers);
                }
            });
            if let Some((session, gathered)) = whole {
                self.complete_gathered(session, number, &gathered);
            }
        }
    }

    fn complete_gathered(&mut self, id: SessionId, number: u64, gathered: &Gathered) {
        let mut words = Vec::new();
        self.write_gathered(id, gathered, &mut words);
        self.complete(id, number, words);
    }

    /// An answer that is complete.
    fn write_gathered(&mut self, id: SessionId, gathered: &Gathered, out: &mut Vec<u8>) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let version = version_of(session);
        let listener = usize::from(session.listener);
        match gathered {
            Gathered::Receivers(count) => reply::write_integer(*count as i64, out),
            Gathered::Counts(names, counts) => {
                let pairs = names.iter().zip(counts);
                reply::write_counts(pairs.map(|(name, count)| (&name[..], *count)), out);
            }
            Gathered::Names(names) => {
                reply::write_array(names.len(), out);
                names.iter().for_each(|name| reply::write_bulk(name, out));
            }
            Gathered::Text(text) => reply::write_verbatim(version, text, out),
            Gathered::Facts(facts, sections) => {
                let text = self.info(listener, facts, sections);
                reply::write_verbatim(version, &text, out);
            }
        }
    }

    /// Sends what was counted for others, as far as there is room.
    pub(in super::super) fn flush_tallies(&mut self) {
        if !self.tallies.has_answers() {
            return;
        }
        for shard in self.others().iter() {
            let counted = self.tallies.counted(shard);
            if counted.is_empty() {
                continue;
            }
            let parcel = Parcel::Receivers(std::mem::take(counted));
            if self.lanes.to(shard).has_room(parcel.size()) {
                self.stats.forwarded += 1;
                self.lanes.to(shard).push(parcel);
            } else if let Parcel::Receivers(kept) = parcel {
                *self.tallies.counted(shard) = kept;
            }
        }
    }

    /// How many RESP sessions of this shard subscribe to each of these names.
    fn count(&self, names: &[Bytes], shard: bool) -> Vec<u64> {
        let count = |name: &Bytes| {
            let filter = self.subscriptions.find(&filter(name, shard));
            filter.map_or(0, |filter| members(self.subscriptions.value(filter)))
        };
        names.iter().map(count).collect()
    }

    /// The names to which RESP sessions of this shard subscribe.
    fn names(&self, pattern: Option<&Bytes>, shard: bool) -> Vec<Bytes> {
        let glob = pattern.map(|pattern| Filter::Glob(pattern.clone()));
        let filters = self.subscriptions.iter();
        let names = filters.filter_map(|(_, filter, subscribers)| match filter {
            Filter::Exact(name) if !shard => Some((name, subscribers)),
            Filter::Shard(name) if shard => Some((name, subscribers)),
            Filter::Exact(_)
            | Filter::Shard(_)
            | Filter::Room(_)
            | Filter::Dotted(_)
            | Filter::Glob(_) => None,
        });
        names
            .filter(|(name, subscribers)| {
                members(subscribers) > 0 && glob.as_ref().is_none_or(|glob| glob.matches_name(name))
            })
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// How many different channels and shard channels somebody subscribes to by their name, on all shards. This one
    /// knows what the others have, and one that two of them have counts once.
    pub(super) fn channels(&self) -> (usize, usize) {
        let (mut channels, mut shard_channels) = (
            self.subscriptions.exact_len(),
            self.subscriptions.shard_len(),
        );
        for (_, filter, _) in self.remote_filters.iter() {
            let count = match filter {
                Filter::Exact(_) => &mut channels,
                Filter::Shard(_) => &mut shard_channels,
                Filter::Room(_) | Filter::Dotted(_) | Filter::Glob(_) => continue,
            };
            *count += usize::from(self.subscriptions.find(filter).is_none());
        }
        (channels, shard_channels)
    }

    /// How many different patterns there are on all shards. RESP sessions have them, and peers.
    pub(super) fn patterns(&self) -> usize {
        let own = self.subscriptions.globs();
        let of_others = self.remote_filters.globs();
        let all: BTreeSet<&Bytes> = own.chain(of_others).collect();
        all.len()
    }

    /// A line for each of these RESP sessions of this shard.
    fn client_lines(&self, filter: &ClientFilter) -> Vec<u8> {
        let mut lines = Vec::new();
        for session in self.sessions.iter() {
            if let Some(resp) = &session.resp
                && resp.is_one_of(filter)
            {
                self.write_client(session, resp, &mut lines);
            }
        }
        lines
    }
}

fn filter(name: &Bytes, shard: bool) -> Filter {
    if shard {
        Filter::Shard(name.clone())
    } else {
        Filter::Exact(name.clone())
    }
}

/// The RESP sessions among the subscribers of a filter.
fn members(subscribers: &Subscribers) -> u64 {
    let groups = subscribers.groups().iter();
    let members = groups.map(|group| match group.encoding {
        Encoding::Resp(_) => group.members.len() as u64,
        Encoding::NativeText | Encoding::Clusterws(_) | Encoding::Peer => 0,
    });
    members.sum()
}
