//! The globs of a topic tree, by what every match of theirs begins with.
//!
//! The plain version is a list, and every glob asked of every topic. Ten thousand clients with a pattern of their own
//! (`user:17:*`) would make each publication cost ten thousand of these. So globs stand in buckets by their literal
//! prefix, and a topic looks only into the buckets of its own beginnings: one look-up for each *length* that a prefix
//! has, of which there are few. Globs that begin with a wildcard are all in the bucket of the empty prefix, and are
//! asked one by one as in the plain version.
//!
//! It knows globs by number; whoever has the patterns says what they are.
//!
//! Invariants: a bucket is not empty, and in the order of its patterns; `lengths` counts the buckets by the length of
//! their prefix.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use super::glob;
use super::tree::FilterId;

/// Globs by literal prefix.
#[derive(Debug, Default)]
pub(super) struct Globs {
    buckets: HashTable<Bucket>,
    lengths: BTreeMap<usize, usize>,
    /// Clients choose the patterns, so the hash has a seed that they do not know.
    seed: RandomState,
}

#[derive(Debug)]
struct Bucket {
    prefix: Box<[u8]>,
    globs: SmallVec<[FilterId; 2]>,
}

impl Globs {
    /// The glob with this pattern.
    pub(super) fn find<'p>(
        &self,
        pattern: &[u8],
        pattern_of: impl Fn(FilterId) -> &'p [u8],
    ) -> Option<FilterId> {
        let (prefix, _) = glob::split_literal(pattern);
        let bucket = self.bucket(&prefix)?;
        let place = bucket.place(pattern, pattern_of).ok()?;
        Some(bucket.globs[place])
    }

    /// Adds a glob whose pattern is not here.
    pub(super) fn insert<'p>(
        &mut self,
        pattern: &[u8],
        id: FilterId,
        pattern_of: impl Fn(FilterId) -> &'p [u8],
    ) {
        let (prefix, _) = glob::split_literal(pattern);
        let (seed, hash) = (&self.seed, self.seed.hash_one(&prefix[..]));
        let bucket = self
            .buckets
            .entry(
                hash,
                |bucket| *bucket.prefix == prefix[..],
                |bucket| seed.hash_one(&bucket.prefix[..]),
            )
            .or_insert_with(|| {
                *self.lengths.entry(prefix.len()).or_default() += 1;
                Bucket {
                    prefix: prefix.as_slice().into(),
                    globs: SmallVec::new(),
                }
            })
            .into_mut();
        let place = bucket
            .place(pattern, pattern_of)
            .expect_err("a glob is inserted once");
        bucket.globs.insert(place, id);
    }

    /// Takes out a glob that is here.
    pub(super) fn remove<'p>(&mut self, pattern: &[u8], pattern_of: impl Fn(FilterId) -> &'p [u8]) {
        let (prefix, _) = glob::split_literal(pattern);
        let hash = self.seed.hash_one(&prefix[..]);
        let mut bucket = self
            .buckets
            .find_entry(hash, |bucket| *bucket.prefix == prefix[..])
            .expect("a glob has a bucket");
        let globs = bucket.get_mut();
        let place = globs
            .place(pattern, pattern_of)
            .expect("a glob is in its bucket");
        globs.globs.remove(place);
        if globs.globs.is_empty() {
            bucket.remove();
            let count = self.lengths.get_mut(&prefix.len());
            let count = count.expect("a bucket is counted");
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
    }

    /// Appends the globs that match this name, in the order of their patterns.
    pub(super) fn match_name<'p>(
        &self,
        name: &[u8],
        pattern_of: impl Fn(FilterId) -> &'p [u8],
        matches: &mut Vec<FilterId>,
    ) {
        let start = matches.len();
        for &length in self.lengths.range(..=name.len()).map(|(length, _)| length) {
            if let Some(bucket) = self.bucket(&name[..length]) {
                let globs = bucket.globs.iter().copied();
                matches.extend(globs.filter(|&id| glob::matches(pattern_of(id), name)));
            }
        }
        if matches.len() > start + 1 {
            matches[start..].sort_unstable_by(|a, b| pattern_of(*a).cmp(pattern_of(*b)));
        }
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = FilterId> {
        self.buckets
            .iter()
            .flat_map(|bucket| bucket.globs.iter().copied())
    }

    fn bucket(&self, prefix: &[u8]) -> Option<&Bucket> {
        self.buckets.find(self.seed.hash_one(prefix), |bucket| {
            *bucket.prefix == *prefix
        })
    }
}

impl Bucket {
    /// Where the glob with this pattern is, or where it would be.
    fn place<'p>(
        &self,
        pattern: &[u8],
        pattern_of: impl Fn(FilterId) -> &'p [u8],
    ) -> Result<usize, usize> {
        self.globs
            .binary_search_by(|&id| pattern_of(id).cmp(pattern))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_looks_only_at_globs_that_begin_as_it_does() {
        let patterns: Vec<String> = (0..1000).map(|user| format!("user:{user}:*")).collect();
        let pattern_of = |id: FilterId| patterns[id.index()].as_bytes();
        let mut globs = Globs::default();
        for (index, pattern) in patterns.iter().enumerate() {
            globs.insert(pattern.as_bytes(), FilterId(index as u32), pattern_of);
        }
        assert_eq!(globs.lengths.len(), 3);
        let asked = std::cell::Cell::new(0);
        let counted = |id: FilterId| {
            asked.set(asked.get() + 1);
            pattern_of(id)
        };
        let mut matches = Vec::new();
        globs.match_name(b"user:17:name", counted, &mut matches);
        assert_eq!((matches, asked.get()), (vec![FilterId(17)], 1));
        for pattern in &patterns {
            globs.remove(pattern.as_bytes(), pattern_of);
        }
        assert!(globs.lengths.is_empty() && globs.iter().next().is_none());
    }
}
