//! The topic tree: filters with a value each, found by filter, by number, and by the topics they match.
//!
//! The plain version is a list, and [`Filter::matches`] asked of each. Here exact names are in one hash table (shard
//! channels in another, rooms in a third), dotted filters in a trie by level, and globs in buckets by what they begin with. The tree
//! does not know what the values are; they must not be told of a topic while it is matched, so a match only lists
//! numbers.
//!
//! Invariant: `filter(id)` is in the index of its kind under `id`, once, and nothing else is.

use std::hash::BuildHasher;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::arena::Arena;
use super::globs::Globs;
use super::trie::Trie;
use super::{Filter, Topic};

/// A filter's number while it is in a tree; dense, reused after removal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FilterId(pub u32);

impl FilterId {
    /// As an index into tables by filter.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Filters with a value each, found by filter, by id, and by topic.
#[derive(Debug)]
pub struct TopicTree<V> {
    entries: Arena<(Filter, V)>,
    dotted: Trie,
    exact: HashTable<FilterId>,
    /// Shard channels, which nothing else matches.
    shard: HashTable<FilterId>,
    /// Rooms, which no topic matches.
    room: HashTable<FilterId>,
    globs: Globs,
    /// For all tables. Clients choose the names, so the hash has a seed that they do not know.
    seed: RandomState,
}

impl<V> Default for TopicTree<V> {
    fn default() -> Self {
        TopicTree {
            entries: Arena::default(),
            dotted: Trie::default(),
            exact: HashTable::new(),
            shard: HashTable::new(),
            room: HashTable::new(),
            globs: Globs::default(),
            seed: RandomState::default(),
        }
    }
}

/// What a tree may keep allocated while it is empty.
const IDLE_ENTRIES_MAX: usize = 1024;

impl<V> TopicTree<V> {
    /// How many filters there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No filter at all.
    pub fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }

    /// The filter's id, if it is here.
    pub fn find(&self, filter: &Filter) -> Option<FilterId> {
        match filter {
            Filter::Dotted(dotted) => self.dotted.find(dotted),
            Filter::Exact(name) => self.find_exact(name),
            Filter::Shard(name) => self.find_name(&self.shard, name),
            Filter::Room(name) => self.find_room(name),
            Filter::Glob(pattern) => self.globs.find(pattern, |id| self.filter(id).written()),
        }
    }

    /// The id of the exact filter of this name, without making a filter of it first.
    pub fn find_exact(&self, name: &[u8]) -> Option<FilterId> {
        self.find_name(&self.exact, name)
    }

    /// The id of the room of this name, without making a filter of it first.
    pub fn find_room(&self, name: &[u8]) -> Option<FilterId> {
        self.find_name(&self.room, name)
    }

    fn find_name(&self, table: &HashTable<FilterId>, name: &[u8]) -> Option<FilterId> {
        if table.is_empty() {
            return None;
        }
        table
            .find(self.seed.hash_one(name), |&id| {
                self.filter(id).written() == name
            })
            .copied()
    }

    /// The filter's id; inserted with `value()` if it was not there. The tree then keeps a clone, so the filter
    /// should have its bytes in memory of its own ([`Filter::detached`]) and not in the message that it came
    /// in. Whoever else keeps it shares them: with 100 000 subscriptions a copy for each is megabytes.
    pub fn insert_with(&mut self, filter: &Filter, value: impl FnOnce() -> V) -> FilterId {
        if let Some(id) = self.find(filter) {
            return id;
        }
        let id = FilterId(self.entries.insert((filter.clone(), value())));
        match filter {
            Filter::Dotted(dotted) => self.dotted.insert(dotted, id),
            Filter::Exact(name) | Filter::Shard(name) | Filter::Room(name) => {
                let (entries, seed) = (&self.entries, &self.seed);
                let hash = |id: &FilterId| seed.hash_one(&entries[id.0].0.written()[..]);
                let table = match filter {
                    Filter::Shard(_) => &mut self.shard,
                    Filter::Room(_) => &mut self.room,
                    _ => &mut self.exact,
                };
                table.insert_unique(seed.hash_one(&name[..]), id, hash);
            }
            Filter::Glob(pattern) => {
                let entries = &self.entries;
                self.globs
                    .insert(pattern, id, |id| entries[id.0].0.written());
            }
        }
        id
    }

    /// Takes a filter out; its id is free for the next.
    ///
    /// # Panics
    /// if there is no such id
    pub fn remove(&mut self, id: FilterId) -> (Filter, V) {
        match &self.entries[id.0].0 {
            Filter::Dotted(dotted) => self.dotted.remove(dotted),
            filter @ (Filter::Exact(name) | Filter::Shard(name) | Filter::Room(name)) => {
                let table = match filter {
                    Filter::Shard(_) => &mut self.shard,
                    Filter::Room(_) => &mut self.room,
                    _ => &mut self.exact,
                };
                let entry = table.find_entry(self.seed.hash_one(&name[..]), |&other| other == id);
                entry.expect("an exact filter is in its table").remove();
            }
            Filter::Glob(pattern) => {
                let entries = &self.entries;
                self.globs.remove(pattern, |id| entries[id.0].0.written());
            }
        }
        let removed = self.entries.remove(id.0);
        if self.is_empty() && self.entries.peak() > IDLE_ENTRIES_MAX {
            *self = TopicTree::default();
        }
        removed
    }

    /// The filter with this id.
    ///
    /// # Panics
    /// if there is no such id; as the two below
    pub fn filter(&self, id: FilterId) -> &Filter {
        &self.entries[id.0].0
    }

    /// The value of the filter with this id.
    pub fn value(&self, id: FilterId) -> &V {
        &self.entries[id.0].1
    }

    /// The value of the filter with this id, to change.
    pub fn value_mut(&mut self, id: FilterId) -> &mut V {
        &mut self.entries[id.0].1
    }

    /// Is there a filter with this id?
    pub fn contains(&self, id: FilterId) -> bool {
        self.entries.contains(id.0)
    }

    /// The filter with this id, and its value to change.
    pub fn entry_mut(&mut self, id: FilterId) -> (&Filter, &mut V) {
        let (filter, value) = &mut self.entries[id.0];
        (filter, value)
    }

    /// Appends the ids of the filters that match, most specific first, as `Filter` is ordered: the exact
    /// name; dotted filters, more levels first, then `=`, then literal before `*`; globs by their bytes.
    ///
    /// Allocates nothing but room in `matches`, as long as the topic reaches no more than 64 nodes.
    pub fn match_topic(&self, topic: &Topic, matches: &mut Vec<FilterId>) {
        if topic.is_shard() {
            matches.extend(self.find_name(&self.shard, topic.as_bytes()));
            return;
        }
        matches.extend(self.find_exact(topic.as_bytes()));
        if topic.is_dotted() {
            self.dotted.match_levels(topic.as_bytes(), matches);
        }
        self.globs
            .match_name(topic.as_bytes(), |id| self.filter(id).written(), matches);
    }

    /// How many exact names there are.
    pub fn exact_len(&self) -> usize {
        self.exact.len()
    }

    /// How many shard channels there are.
    pub fn shard_len(&self) -> usize {
        self.shard.len()
    }

    /// The patterns of the globs, in no order.
    pub fn globs(&self) -> impl Iterator<Item = &Bytes> {
        self.globs.iter().map(|id| self.filter(id).written())
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (FilterId, &Filter, &V)> {
        self.entries
            .iter()
            .map(|(index, (filter, value))| (FilterId(index), filter, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        match text.split_once(':') {
            Some(("exact", name)) => Filter::exact(bytes(name)).unwrap(),
            Some(("glob", pattern)) => Filter::glob(bytes(pattern)).unwrap(),
            _ => Filter::dotted(bytes(text)).unwrap(),
        }
    }

    fn matches(tree: &TopicTree<String>, name: &str) -> Vec<String> {
        let mut ids = vec![FilterId(7)];
        tree.match_topic(
            &Topic::channel(Bytes::copy_from_slice(name.as_bytes())).unwrap(),
            &mut ids,
        );
        assert_eq!(ids.remove(0), FilterId(7), "matches are appended");
        ids.into_iter().map(|id| tree.value(id).clone()).collect()
    }

    #[test]
    fn a_room_is_found_by_its_name_and_by_no_topic() {
        let name = Bytes::from_static(b"a");
        let room = Filter::room(name.clone()).unwrap();
        let mut tree = TopicTree::default();
        for text in ["a", "exact:a", "glob:*"] {
            tree.insert_with(&filter(text), || text.to_owned());
        }
        tree.insert_with(&Filter::shard(name.clone()).unwrap(), || "shard".to_owned());
        let id = tree.insert_with(&room, || "room".to_owned());
        assert_eq!(
            (tree.find(&room), tree.find_room(b"a")),
            (Some(id), Some(id))
        );
        assert_eq!(matches(&tree, "a"), ["exact:a", "a", "glob:*"]);
        let mut ids = Vec::new();
        tree.match_topic(&Topic::shard(name).unwrap(), &mut ids);
        assert_eq!(
            ids.iter()
                .map(|&id| &tree.value(id)[..])
                .collect::<Vec<_>>(),
            ["shard"]
        );
        assert_eq!((tree.exact_len(), tree.shard_len()), (1, 1));
        assert_eq!(tree.remove(id).1, "room");
        assert_eq!((tree.find_room(b"a"), tree.len()), (None, 4));
    }

    #[test]
    fn matches_come_most_specific_first() {
        let written = [
            "*",
            "a",
            "=a",
            "a.*",
            "=a.*",
            "a.b",
            "=a.b",
            "*.b",
            "=*.b",
            "*.*",
            "=*.*",
            "a.b.c",
            "b",
            "exact:a",
            "exact:a.b",
            "exact:",
            "exact:a..b",
            "glob:a*",
            "glob:*",
            "glob:a.?",
            "glob:",
        ];
        let mut tree = TopicTree::default();
        for text in written {
            let id = tree.insert_with(&filter(text), || text.to_owned());
            assert_eq!(
                tree.insert_with(&filter(text), || unreachable!("it is there")),
                id
            );
            assert_eq!(tree.find(&filter(text)), Some(id));
            assert_eq!(tree.filter(id), &filter(text));
        }
        assert_eq!(tree.len(), written.len());
        for (name, expected) in [
            ("", &["exact:", "glob:"][..]),
            ("a", &["exact:a", "=a", "a", "*", "glob:*", "glob:a*"]),
            ("b", &["b", "*", "glob:*"]),
            ("c", &["*", "glob:*"]),
            (
                "a.b",
                &[
                    "exact:a.b",
                    "=a.b",
                    "=a.*",
                    "=*.b",
                    "=*.*",
                    "a.b",
                    "a.*",
                    "*.b",
                    "*.*",
                    "a",
                    "*",
                    "glob:*",
                    "glob:a*",
                    "glob:a.?",
                ],
            ),
            (
                "a.b.c",
                &[
                    "a.b.c", "a.b", "a.*", "*.b", "*.*", "a", "*", "glob:*", "glob:a*",
                ],
            ),
            ("x.y.z", &["*.*", "*", "glob:*"]),
            ("a..b", &["exact:a..b", "glob:*", "glob:a*"]),
            ("=a", &["glob:*"]),
        ] {
            assert_eq!(matches(&tree, name), expected, "{name}");
        }
        for text in written {
            let id = tree.find(&filter(text)).unwrap();
            *tree.value_mut(id) += "!";
            assert_eq!(tree.remove(id), (filter(text), format!("{text}!")));
            assert_eq!(tree.find(&filter(text)), None);
            assert!(!matches(&tree, "a.b").contains(&text.to_owned()));
        }
        assert!(tree.is_empty() && tree.iter().next().is_none());
        assert_eq!(tree.dotted.node_count(), 1, "only the root is left");
    }

    #[test]
    fn a_node_is_kept_as_long_as_it_is_needed() {
        let mut tree = TopicTree::<()>::default();
        let add = |tree: &mut TopicTree<()>, text| tree.insert_with(&filter(text), || ());
        let deep = add(&mut tree, "a.*.c.d");
        let shallow = add(&mut tree, "a.*");
        let one_depth = add(&mut tree, "=a.*");
        assert_eq!(tree.dotted.node_count(), 5);
        tree.remove(deep);
        assert_eq!(tree.dotted.node_count(), 3);
        tree.remove(shallow);
        assert_eq!(tree.dotted.node_count(), 3);
        tree.remove(one_depth);
        assert_eq!(tree.dotted.node_count(), 1);
    }

    #[test]
    fn a_tree_that_was_large_gives_its_memory_back() {
        let mut tree = TopicTree::<()>::default();
        let ids: Vec<FilterId> = (0..5_000)
            .map(|i| tree.insert_with(&filter(&format!("user.{i}.*")), || ()))
            .collect();
        let exact: Vec<FilterId> = (0..5_000)
            .map(|i| tree.insert_with(&filter(&format!("exact:{i}")), || ()))
            .collect();
        assert_eq!(tree.dotted.node_count(), 10_002);
        for id in ids.into_iter().chain(exact).rev() {
            tree.remove(id);
        }
        assert_eq!((tree.entries.peak(), tree.exact.capacity()), (0, 0));
        assert_eq!(tree.insert_with(&filter("a"), || ()), FilterId(0));
    }

    #[test]
    fn branches_that_double_are_walked_once_each() {
        // All 2^9 filters over {x, *} at nine levels, and their one topic: 1 + 2 + 4 + ... nodes are reached.
        let mut tree = TopicTree::default();
        for bits in 0..512_u32 {
            let levels: Vec<&str> = (0..9)
                .map(|level| if bits >> level & 1 == 1 { "*" } else { "x" })
                .collect();
            let text = levels.join(".");
            tree.insert_with(&filter(&text), || text.clone());
        }
        assert_eq!(tree.dotted.node_count(), 1023);
        let found = matches(&tree, &["x"; 32].join("."));
        assert_eq!(found.len(), 512);
        assert!(found.is_sorted_by_key(|text| text.replace('*', "~")));
    }

    #[test]
    fn the_tree_copies_nothing() {
        let name = Bytes::from(vec![b'a'; 1000]);
        let filter = Filter::exact(name.clone()).unwrap();
        let mut tree = TopicTree::default();
        let id = tree.insert_with(&filter, || ());
        assert_eq!(tree.filter(id).written().as_ptr(), name.as_ptr());
        let message = Bytes::from(vec![b'a'; 60_000]);
        drop(Filter::exact(message.slice(..1000)).unwrap().detached());
        assert!(message.is_unique(), "a detached filter pins no message");
    }
}
