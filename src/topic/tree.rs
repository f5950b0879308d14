//! The topic tree. (stub: signatures to keep)
use super::{Filter, Topic};

/// A filter's number while it is in a tree; dense, reused after removal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FilterId(pub u32);

/// Filters with a value each, found by filter, by id, and by topic.
#[derive(Debug)]
pub struct TopicTree<V> {
    entries: slab::Slab<(Filter, V)>,
}

impl<V> Default for TopicTree<V> {
    fn default() -> Self {
        TopicTree {
            entries: slab::Slab::new(),
        }
    }
}

impl<V> TopicTree<V> {
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    pub fn find(&self, filter: &Filter) -> Option<FilterId> {
        self.entries
            .iter()
            .find(|(_, e)| e.0 == *filter)
            .map(|(i, _)| FilterId(i as u32))
    }
    /// The filter's id; inserted with `value()` if it was not there.
    pub fn insert_with(&mut self, filter: &Filter, value: impl FnOnce() -> V) -> FilterId {
        match self.find(filter) {
            Some(id) => id,
            None => FilterId(self.entries.insert((filter.clone(), value())) as u32),
        }
    }
    /// # Panics
    /// if there's no such id
    pub fn remove(&mut self, id: FilterId) -> (Filter, V) {
        self.entries.remove(id.0 as usize)
    }
    pub fn filter(&self, id: FilterId) -> &Filter {
        &self.entries[id.0 as usize].0
    }
    pub fn value(&self, id: FilterId) -> &V {
        &self.entries[id.0 as usize].1
    }
    pub fn value_mut(&mut self, id: FilterId) -> &mut V {
        &mut self.entries[id.0 as usize].1
    }
    /// Appends the ids of the filters that match, most specific first.
    pub fn match_topic(&self, topic: &Topic, matches: &mut Vec<FilterId>) {
        matches.extend(
            self.entries
                .iter()
                .filter(|(_, e)| e.0.matches(topic))
                .map(|(i, _)| FilterId(i as u32)),
        );
    }
    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (FilterId, &Filter, &V)> {
        self.entries
            .iter()
            .map(|(i, e)| (FilterId(i as u32), &e.0, &e.1))
    }
}
impl<V> TopicTree<V> {
    /// (stub)
    pub fn entry_mut(&mut self, id: FilterId) -> (&Filter, &mut V) {
        let e = &mut self.entries[id.0 as usize];
        (&e.0, &mut e.1)
    }
}
