//! Topics: who subscribes, and what a round has brought.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A topic.
#[derive(Default)]
pub struct Topic {
    /// Descriptors of its subscribers.
    pub subscribers: Vec<usize>,
    /// Frames of this round, one behind the other (`joined`).
    pub log: Vec<u8>,
}

/// All of them, with dense ids.
#[derive(Default)]
pub struct Topics {
    ids: HashMap<Box<[u8]>, usize, BuildHasherDefault<NameHasher>>,
    list: Vec<Topic>,
}

impl Topics {
    /// The id of a topic that somebody has subscribed to.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        self.ids.get(name).copied()
    }

    /// The id of a topic.
    pub fn enter(&mut self, name: &[u8]) -> usize {
        if let Some(id) = self.find(name) {
            return id;
        }
        let id = self.list.len();
        self.list.push(Topic::default());
        self.ids.insert(name.into(), id);
        id
    }

    /// By id.
    #[inline]
    pub fn at(&mut self, id: usize) -> &mut Topic {
        &mut self.list[id]
    }
}

/// Eight bytes a step, no key: nobody here chooses names to collide.
#[derive(Default)]
struct NameHasher(u64);

impl NameHasher {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for NameHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (chunks, rest) = bytes.as_chunks::<8>();
        for chunk in chunks {
            self.mix(u64::from_ne_bytes(*chunk));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_ne_bytes(last));
    }

    fn write_usize(&mut self, _: usize) {
        // The length, which the last word shows well enough.
    }

    #[inline]
    fn finish(&self) -> u64 {
        // The table takes the place from the low bits, and the product is best in the high ones.
        self.0 ^ self.0 >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_ids() {
        let mut topics = Topics::default();
        assert_eq!(topics.find(b"a"), None);
        for n in 0..1000 {
            assert_eq!(topics.enter(format!("bench.{n:06x}").as_bytes()), n);
        }
        assert_eq!(topics.find(b"bench.00000a"), Some(10));
        assert_eq!(topics.enter(b"bench.00000a"), 10);
        assert_eq!(topics.find(b"bench.00000"), None);
    }
}
