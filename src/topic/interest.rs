//! Interest: who else must know that somebody here listens. Only the first coming and the last leaving are
//! news; this counts, and knows for each peer what it has been told.
//!
//! The plain version is a queue of news for each peer. But a peer's queue may stand still, and names that
//! come and go meanwhile would fill it without end. So nothing is queued: the keys themselves stand in one
//! line, in the order in which they last came up or went, each once; and each peer has a place in the line,
//! before which it knows everything. What a peer is told is the difference between what is and what it
//! believes, at the moment of telling: an up that it never heard of and that is over is no news, and several
//! turns of one key are one or none. A key that comes or goes moves to the end of the line, and the peers whose
//! place it was move on to the next. A key that rests is told after those before it, so after finitely many.
//!
//! Invariants, where wanted = (count > 0) and `announced` is the set of the peers that believe in the key:
//! - a key with wanted != believed by some peer stands at that peer's place or behind it;
//! - an entry lives while count > 0 or `announced` is not empty: there are never more entries than keys that
//!   are wanted plus keys that some peer still believes in;
//! - what one peer is told of one key alternates, up first.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::arena::Arena;
use crate::address::{ShardId, ShardSet};

/// News for one peer: the first interest in `key` came up, or the last went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edge<K> {
    /// What of.
    pub key: K,
    /// It came up; else it went.
    pub up: bool,
}

/// Reference counts by key, and what each peer has been told of them.
#[derive(Debug)]
pub struct Interest<K> {
    peers: ShardSet,
    entries: Arena<Entry<K>>,
    /// The entries by key.
    keys: HashTable<u32>,
    /// The end of the line.
    last: Place,
    /// For each shard, the entry before which it knows everything; nowhere if it knows all.
    places: Box<[Place]>,
    /// Clients choose the keys, so the hash has a seed that they do not know. It changes no result: nothing
    /// is listed in the order of the table.
    seed: RandomState,
}

/// What may stay allocated while there is no interest.
const IDLE_ENTRIES_MAX: usize = 1024;

/// An index of `entries`, if any.
type Place = Option<u32>;

#[derive(Debug)]
struct Entry<K> {
    key: K,
    count: usize,
    /// The peers that were told up, and not yet down again.
    announced: ShardSet,
    previous: Place,
    next: Place,
}

impl<K> Entry<K> {
    fn is_needed(&self) -> bool {
        self.count > 0 || !self.announced.is_empty()
    }

    fn is_news(&self, peer: ShardId) -> bool {
        (self.count > 0) != self.announced.contains(peer)
    }
}

impl<K: Hash + Eq + Clone> Interest<K> {
    /// `peers`: all who must be told (without ourselves).
    pub fn new(peers: ShardSet) -> Interest<K> {
        let places = peers.iter().last().map_or(0, |peer| peer.index() + 1);
        Interest {
            peers,
            entries: Arena::default(),
            keys: HashTable::new(),
            last: None,
            places: vec![None; places].into(),
            seed: RandomState::default(),
        }
    }

    /// One more; true if it is the first.
    pub fn add(&mut self, key: &K) -> bool {
        let index = match self.find(key) {
            Some(index) => index,
            None => self.insert(key),
        };
        let entry = &mut self.entries[index];
        entry.count += 1;
        let up = entry.count == 1;
        if up {
            self.move_to_end(index);
        }
        up
    }

    /// One less; true if it was the last. Nothing happens to a key without interest, which is a bug of the
    /// caller's.
    pub fn remove(&mut self, key: &K) -> bool {
        let Some(index) = self
            .find(key)
            .filter(|&index| self.entries[index].count > 0)
        else {
            debug_assert!(false, "interest is removed as often as it was added");
            return false;
        };
        let entry = &mut self.entries[index];
        entry.count -= 1;
        let down = entry.count == 0;
        if down && entry.is_needed() {
            self.move_to_end(index);
        } else if down {
            self.forget(index);
        }
        down
    }

    /// How often it was added and not removed.
    pub fn count(&self, key: &K) -> usize {
        self.find(key).map_or(0, |index| self.entries[index].count)
    }

    /// Somebody is interested, and every peer has been told.
    pub fn is_announced(&self, key: &K) -> bool {
        self.find(key).is_some_and(|index| {
            let entry = &self.entries[index];
            entry.count > 0 && entry.announced.is_superset(self.peers)
        })
    }

    /// Is anybody interested, or does any peer still believe so?
    pub fn is_remembered(&self, key: &K) -> bool {
        self.find(key).is_some()
    }

    /// The next edge that this peer has not been told; does not take it. What has become moot is skipped.
    ///
    /// # Panics
    /// if `peer` is none of the peers; as below
    pub fn next_edge(&mut self, peer: ShardId) -> Option<Edge<K>> {
        assert!(self.peers.contains(peer), "shard {peer} is a peer");
        while let Some(index) = self.places[peer.index()] {
            let entry = &self.entries[index];
            if entry.is_news(peer) {
                return Some(Edge {
                    key: entry.key.clone(),
                    up: entry.count > 0,
                });
            }
            self.places[peer.index()] = entry.next;
        }
        None
    }

    /// The edge that `next_edge` just showed is on its way to this peer. Nothing was added or removed since.
    pub fn told(&mut self, peer: ShardId) {
        assert!(self.peers.contains(peer), "shard {peer} is a peer");
        let Some(index) =
            self.places[peer.index()].filter(|&index| self.entries[index].is_news(peer))
        else {
            debug_assert!(false, "an edge was shown before it is told");
            return;
        };
        let entry = &mut self.entries[index];
        if entry.count > 0 {
            entry.announced.insert(peer);
        } else {
            entry.announced.remove(peer);
        }
        self.places[peer.index()] = entry.next;
        if !entry.is_needed() {
            self.forget(index);
        }
    }

    /// The keys that somebody is interested in, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &K> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.count > 0)
            .map(|(_, entry)| &entry.key)
    }

    /// The keys that are remembered: those that somebody is interested in, and those that only a peer still
    /// believes in.
    pub fn entry_count(&self) -> usize {
        self.entries.len()
    }

    fn find(&self, key: &K) -> Option<u32> {
        self.keys
            .find(self.seed.hash_one(key), |&index| {
                self.entries[index].key == *key
            })
            .copied()
    }

    /// A new entry that nobody wants yet, at the end of the line.
    fn insert(&mut self, key: &K) -> u32 {
        let entry = Entry {
            key: key.clone(),
            count: 0,
            announced: ShardSet::EMPTY,
            previous: None,
            next: None,
        };
        let index = self.entries.insert(entry);
        let (entries, seed) = (&self.entries, &self.seed);
        let hash = |&index: &u32| seed.hash_one(&entries[index].key);
        self.keys.insert_unique(hash(&index), index, hash);
        self.link(index);
        index
    }

    /// Takes an entry out for good.
    fn forget(&mut self, index: u32) {
        self.unlink(index);
        let entry = self.entries.remove(index);
        let found = self
            .keys
            .find_entry(self.seed.hash_one(&entry.key), |&other| other == index);
        found.expect("an entry is found by its key").remove();
        if self.entries.len() == 0 && self.entries.peak() > IDLE_ENTRIES_MAX {
            self.entries = Arena::default();
            self.keys = HashTable::new();
        }
    }

    fn move_to_end(&mut self, index: u32) {
        self.unlink(index);
        self.link(index);
    }

    /// Appends an entry to the line; a peer that knew everything has something before it again.
    fn link(&mut self, index: u32) {
        let last = self.last.replace(index);
        if let Some(last) = last {
            self.entries[last].next = Some(index);
        }
        self.entries[index].previous = last;
        for peer in self.peers.iter() {
            self.places[peer.index()].get_or_insert(index);
        }
    }

    /// Takes an entry out of the line; the peers whose place it was go on to the next.
    fn unlink(&mut self, index: u32) {
        let entry = &mut self.entries[index];
        let (previous, next) = (entry.previous.take(), entry.next.take());
        if let Some(previous) = previous {
            self.entries[previous].next = next;
        }
        match next {
            Some(next) => self.entries[next].previous = previous,
            None => self.last = previous,
        }
        for place in &mut self.places {
            if *place == Some(index) {
                *place = next;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interest(peers: &[u8]) -> Interest<&'static str> {
        Interest::new(peers.iter().map(|&peer| ShardId(peer)).collect())
    }

    /// Tells a peer all there is, as `+key` and `-key`.
    fn tell(interest: &mut Interest<&'static str>, peer: u8) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(edge) = interest.next_edge(ShardId(peer)) {
            assert_eq!(
                interest.next_edge(ShardId(peer)),
                Some(edge.clone()),
                "it was not taken"
            );
            interest.told(ShardId(peer));
            told.push(format!("{}{}", if edge.up { '+' } else { '-' }, edge.key));
        }
        told
    }

    #[test]
    fn only_the_first_and_the_last_are_news() {
        let mut interest = interest(&[1]);
        assert!(interest.add(&"a") && !interest.add(&"a") && interest.add(&"b"));
        assert_eq!(
            (
                interest.count(&"a"),
                interest.count(&"b"),
                interest.count(&"c")
            ),
            (2, 1, 0)
        );
        assert_eq!(tell(&mut interest, 1), ["+a", "+b"]);
        assert!(!interest.remove(&"a"));
        assert_eq!(tell(&mut interest, 1), [""; 0]);
        assert!(interest.remove(&"a"));
        assert_eq!(interest.iter().collect::<Vec<_>>(), [&"b"]);
        assert_eq!(tell(&mut interest, 1), ["-a"]);
    }

    #[test]
    fn each_peer_is_told_by_itself() {
        let mut interest = interest(&[0, 2, 127]);
        interest.add(&"a");
        interest.add(&"b");
        assert_eq!(tell(&mut interest, 2), ["+a", "+b"]);
        assert!(!interest.is_announced(&"a"));
        interest.remove(&"a");
        // Peer 0 never heard of a; peer 2 did.
        assert_eq!(tell(&mut interest, 0), ["+b"]);
        assert_eq!(tell(&mut interest, 2), ["-a"]);
        assert_eq!(interest.entries.len(), 1, "nobody believes in a any more");
        assert_eq!(tell(&mut interest, 127), ["+b"]);
        assert!(interest.is_announced(&"b") && !interest.is_announced(&"a"));
    }

    #[test]
    fn what_is_over_is_no_news() {
        let mut interest = interest(&[0]);
        interest.add(&"a");
        interest.remove(&"a");
        assert_eq!(interest.entries.len(), 0);
        assert_eq!(tell(&mut interest, 0), [""; 0]);
        interest.add(&"a");
        assert_eq!(tell(&mut interest, 0), ["+a"]);
        interest.remove(&"a");
        assert!(!interest.is_announced(&"a"), "nobody is interested");
        interest.add(&"a");
        assert!(interest.is_announced(&"a"), "the down was never told");
        assert_eq!(tell(&mut interest, 0), [""; 0]);
    }

    #[test]
    fn the_line_follows_the_last_edge() {
        let mut interest = interest(&[0]);
        for key in ["a", "b", "c"] {
            interest.add(&key);
        }
        assert_eq!(interest.next_edge(ShardId(0)).unwrap().key, "a");
        interest.remove(&"a");
        interest.add(&"a");
        assert_eq!(tell(&mut interest, 0), ["+b", "+c", "+a"]);
    }

    #[test]
    fn a_peer_that_is_never_told_costs_nothing() {
        let mut interest: Interest<usize> = Interest::new(ShardSet::first(3));
        for key in 0..10_000 {
            interest.add(&key);
            interest.remove(&key);
            interest.add(&0);
            interest.remove(&0);
        }
        assert!(
            interest.entries.len() == 0 && interest.keys.is_empty() && interest.entries.peak() < 10
        );
    }

    #[test]
    fn what_was_large_gives_its_memory_back() {
        let mut interest: Interest<usize> = Interest::new(ShardSet::first(2));
        (0..5_000).for_each(|key| assert!(interest.add(&key)));
        assert_eq!(interest.next_edge(ShardId(1)).unwrap().key, 0);
        (0..5_000).for_each(|key| assert!(interest.remove(&key)));
        assert_eq!((interest.entries.peak(), interest.keys.capacity()), (0, 0));
        assert_eq!(interest.next_edge(ShardId(1)), None);
        interest.add(&7);
        assert_eq!(interest.next_edge(ShardId(1)).unwrap().key, 7);
    }

    #[test]
    fn without_peers_all_is_announced() {
        let mut interest = interest(&[]);
        interest.add(&"a");
        assert!(interest.is_announced(&"a") && !interest.is_announced(&"b"));
        interest.remove(&"a");
        assert!(!interest.is_announced(&"a") && interest.entries.len() == 0);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "as often as it was added")]
    fn one_removal_too_many_is_a_bug() {
        interest(&[0]).remove(&"a");
    }
}
