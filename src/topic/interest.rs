//! Interest. (stub: signatures to keep)
use std::hash::Hash;

use crate::address::{ShardId, ShardSet};

/// News for one peer: the first interest in `key` came up, or the last went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edge<K> {
    pub key: K,
    pub up: bool,
}

/// Reference counts by key, and what each peer has been told of them.
#[derive(Debug)]
pub struct Interest<K> {
    _key: std::marker::PhantomData<K>,
}

impl<K: Hash + Eq + Clone> Interest<K> {
    /// `peers`: all who must be told (without ourselves).
    pub fn new(_peers: ShardSet) -> Interest<K> {
        todo!()
    }
    /// One more; true if it is the first.
    pub fn add(&mut self, _key: &K) -> bool {
        todo!()
    }
    /// One less; true if it was the last. No-op false for an unknown key (with a debug_assert).
    pub fn remove(&mut self, _key: &K) -> bool {
        todo!()
    }
    pub fn count(&self, _key: &K) -> usize {
        todo!()
    }
    /// count > 0 and every peer has been told
    pub fn is_announced(&self, _key: &K) -> bool {
        todo!()
    }
    /// The next edge that this peer has not been told; does not take it. Skips (and forgets) what has become moot.
    pub fn next_edge(&mut self, _peer: ShardId) -> Option<Edge<K>> {
        todo!()
    }
    /// The edge that `next_edge` showed is on its way to this peer.
    pub fn told(&mut self, _peer: ShardId) {
        todo!()
    }
}
