//! The board: does anybody listen? Asked from outside the shards, by whoever publishes much that nobody hears.
//!
//! A fixed table of counters that all shards of a broker share: a filter counts under a hash of what every topic that it
//! matches begins with, and a topic is looked up under everything that it begins with. So "no" is certain, once the
//! subscription is: a shard counts a filter up before the subscribe is acknowledged. "Yes" may be wrong, by two filters
//! in one place or by a filter that says more than its beginning, and then costs a publish that reaches nobody.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::fast::{FoldHasher, RandomState};

use super::{Filter, Topic, levels};

/// The counters. With a thousand filters six of a hundred topics that nobody hears are taken for heard; with as many
/// filters as counters, two of three. They fit the cache that a core has for itself, and cost 64 KiB.
const COUNTERS: usize = 16 * 1024;

/// Which filters there may be, by a count for each place.
pub struct Board {
    counters: Box<[AtomicU32]>,
    /// Filters that are looked up at every level of a topic, as long as there are any: branches (`a.b`),
    branches: AtomicU32,
    /// and those with a level `*`.
    stars: AtomicU32,
    /// These match any topic, for all that the board knows.
    globs: AtomicU32,
    /// Clients choose the names.
    seed: RandomState,
}

/// What a place is hashed from, beside the name.
#[derive(Clone, Copy)]
enum Kind {
    Name = 1,
    Shard,
    Branch,
    /// The levels before the first `*`.
    Stars,
}

/// Where a filter counts.
enum Place<'a> {
    Counter(usize),
    /// A counter, and those of its kind.
    Leveled(usize, &'a AtomicU32),
    Globs,
    /// Nobody publishes to rooms.
    Nowhere,
}

impl Default for Board {
    fn default() -> Board {
        Board {
            counters: (0..COUNTERS).map(|_| AtomicU32::new(0)).collect(),
            branches: AtomicU32::new(0),
            stars: AtomicU32::new(0),
            globs: AtomicU32::new(0),
            seed: RandomState::default(),
        }
    }
}

impl Board {
    /// Somebody listens to this.
    pub fn up(&self, filter: &Filter) {
        self.change(filter, &|counter| {
            // Release: who is told of the subscription, however, finds it here.
            counter.fetch_add(1, Ordering::Release);
        });
    }

    /// One of those who do listens no more. To be called once for each [`Board::up`].
    pub fn down(&self, filter: &Filter) {
        self.change(filter, &|counter| {
            let before = counter.fetch_sub(1, Ordering::Release);
            debug_assert!(before > 0, "a filter comes down as often as it went up");
        });
    }

    /// Might a message to this topic reach anybody? If not, certainly nobody of those whose subscription was
    /// acknowledged before this.
    pub fn may_match(&self, topic: &Topic) -> bool {
        let name = topic.as_bytes();
        if topic.is_shard() {
            return self.has(self.hash(Kind::Shard, name));
        }
        let is_any = |count: &AtomicU32| count.load(Ordering::Acquire) > 0;
        if is_any(&self.globs) || self.has(self.hash(Kind::Name, name)) {
            return true;
        }
        if !topic.is_dotted() {
            return false;
        }
        let walks = [
            // All levels of a branch are the topic's, and of stars at least one is not.
            (Kind::Branch, &self.branches, false),
            (Kind::Stars, &self.stars, true),
        ];
        walks.into_iter().any(|(kind, count, before)| {
            is_any(count) && {
                let mut hasher = self.hasher(kind);
                levels(name).any(|level| {
                    let found = before && self.has(hasher.finish());
                    hasher.write(level);
                    found || !before && self.has(hasher.finish())
                })
            }
        })
    }

    fn change(&self, filter: &Filter, change: &dyn Fn(&AtomicU32)) {
        match self.place(filter) {
            Place::Counter(index) => change(&self.counters[index]),
            Place::Leveled(index, of_kind) => {
                change(&self.counters[index]);
                change(of_kind);
            }
            Place::Globs => change(&self.globs),
            Place::Nowhere => {}
        }
    }

    fn place(&self, filter: &Filter) -> Place<'_> {
        match filter {
            Filter::Exact(name) => Place::Counter(index(self.hash(Kind::Name, name))),
            Filter::Shard(name) => Place::Counter(index(self.hash(Kind::Shard, name))),
            Filter::Glob(_) => Place::Globs,
            Filter::Room(_) => Place::Nowhere,
            Filter::Dotted(dotted) => {
                let has_stars = dotted.literal() != dotted.path();
                let (kind, of_kind) = match (has_stars, dotted.is_one_depth()) {
                    (true, _) => (Kind::Stars, &self.stars),
                    (false, false) => (Kind::Branch, &self.branches),
                    (false, true) => {
                        return Place::Counter(index(self.hash(Kind::Name, dotted.path())));
                    }
                };
                let mut hasher = self.hasher(kind);
                for level in dotted.levels().take_while(|level| level != b"*") {
                    hasher.write(level);
                }
                Place::Leveled(index(hasher.finish()), of_kind)
            }
        }
    }

    fn has(&self, hash: u64) -> bool {
        self.counters[index(hash)].load(Ordering::Acquire) > 0
    }

    fn hash(&self, kind: Kind, name: &[u8]) -> u64 {
        let mut hasher = self.hasher(kind);
        hasher.write(name);
        hasher.finish()
    }

    fn hasher(&self, kind: Kind) -> FoldHasher<'_> {
        let mut hasher = self.seed.build_hasher();
        hasher.write_u8(kind as u8);
        hasher
    }
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counters = self.counters.iter();
        let used = counters.filter(|counter| counter.load(Ordering::Relaxed) > 0);
        f.debug_struct("Board")
            .field("used", &used.count())
            .finish_non_exhaustive()
    }
}

fn index(hash: u64) -> usize {
    hash as usize % COUNTERS
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn dotted(written: &'static str) -> Filter {
        Filter::dotted(Bytes::from(written)).expect("it is a filter")
    }

    fn channel(name: &'static str) -> Topic {
        Topic::channel(Bytes::from(name)).expect("it is a topic")
    }

    /// A board of one filter among 16 384 places: a wrong "yes" to one of the few topics here is a chance of a hundredth,
    /// so some of several boards have none.
    fn answers(filter: &Filter, topic: &Topic) -> bool {
        (0..4).all(|_| {
            let board = Board::default();
            board.up(filter);
            let answer = board.may_match(topic);
            board.down(filter);
            assert!(!board.may_match(topic), "it came down");
            answer
        })
    }

    #[test]
    fn topics_are_found_by_what_they_begin_with() {
        let name = |name: &'static str| Filter::exact(Bytes::from(name)).expect("it is a filter");
        let shard = |name: &'static str| Filter::shard(Bytes::from(name)).expect("it is a filter");
        for (filter, topic, expected) in [
            (name("a.b"), "a.b", true),
            (name("a.b"), "a.b.c", false),
            (name(""), "", true),
            (dotted("a.b"), "a.b", true),
            (dotted("a.b"), "a.b.c.d", true),
            (dotted("a.b"), "a", false),
            (dotted("a.b"), "a.bc", false),
            (dotted("a.b"), "a.b.", false), // no dotted topic
            (dotted("=a.b"), "a.b", true),
            (dotted("=a.b"), "a.b.c", false),
            (dotted("*"), "x", true),
            (dotted("*.b"), "x", true),  // "*" is all that is looked at
            (dotted("a.*"), "a", false), // one level more it has to be
            (dotted("a.*"), "a.x", true),
            (dotted("=a.*.c"), "a.x.y", true), // likewise
            (dotted("=a.*.c"), "b.x.c", false),
            (shard("a"), "a", false),
        ] {
            assert_eq!(
                answers(&filter, &channel(topic)),
                expected,
                "{filter:?} {topic}"
            );
        }
        let topic = Topic::shard(Bytes::from("a")).expect("it is a topic");
        assert!(answers(&shard("a"), &topic) && !answers(&name("a"), &topic));
        let glob = Filter::glob(Bytes::from("x*")).expect("it is a filter");
        assert!(answers(&glob, &channel("a")) && !answers(&glob, &topic));
    }

    #[test]
    fn a_filter_stays_up_for_the_others_who_listen() {
        let board = Board::default();
        board.up(&dotted("a"));
        board.up(&dotted("a"));
        board.down(&dotted("a"));
        assert!(board.may_match(&channel("a.b")));
        board.down(&dotted("a"));
        assert!(!board.may_match(&channel("a.b")));
    }

    #[test]
    fn few_topics_are_taken_for_heard_by_mistake() {
        let board = Board::default();
        let filter = |n: usize| Filter::exact(Bytes::from(format!("room.{n}"))).expect("a filter");
        (0..1000).for_each(|n| board.up(&filter(n)));
        let heard = |n: usize| {
            let topic = Topic::channel(Bytes::from(format!("desk.{n}"))).expect("a topic");
            board.may_match(&topic)
        };
        let mistakes = (0..10_000).filter(|n| heard(*n)).count();
        assert!(mistakes < 1000, "{mistakes} of 10000");
    }
}
