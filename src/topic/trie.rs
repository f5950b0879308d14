//! The dotted filters of a tree, by level: one node for each beginning of a filter's path.
//!
//! A node does not have a map of children. All edges are in one table under (parent, level), so that a node
//! costs what its name costs and a million leaves are no million empty maps; a look-up takes a borrowed level
//! and allocates nothing. The edge `*` is a field of its node, since a match follows it every time.
//!
//! A match goes down level by level with the list of the nodes reached. From each it follows at most two
//! edges, so 32 levels could make 2^32 paths; but paths are nodes, two paths never meet in one node, and a
//! node is there only because it is the beginning of some filter. So a match visits at most as many nodes as
//! the stored filters have levels, and only those whose beginning matches.
//!
//! Invariant: every node but the root ends a filter or has a child, and is found from its parent.

use std::hash::{BuildHasher, Hasher as _};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smallvec::{SmallVec, smallvec};

use super::arena::Arena;
use super::tree::FilterId;
use super::{Dotted, levels};
use crate::limits::TOPIC_LEVELS_MAX;

/// Dotted filters by level.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Arena<Node>,
    /// The nodes whose level is not `*`, by parent and level.
    edges: HashTable<NodeId>,
    /// Clients choose the names, so the hash has a seed that they do not know. It changes no result: nothing
    /// is ever listed in the order of the table.
    seed: RandomState,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct NodeId(u32);

const ROOT: NodeId = NodeId(0);

/// No such node: an arena never gives this number.
const NO_NODE: NodeId = NodeId(u32::MAX);
const NO_FILTER: FilterId = FilterId(u32::MAX);

#[derive(Debug)]
struct Node {
    parent: NodeId,
    /// The child for the level `*`.
    star: NodeId,
    /// How many children are in `edges`.
    edge_count: u32,
    /// The filter that ends here and takes deeper topics too.
    branch: FilterId,
    /// The filter that ends here and takes this depth only.
    one_depth: FilterId,
    /// This level; empty for `*` and for the root, which no edge leads to.
    level: SmallVec<[u8; 16]>,
}

impl Node {
    fn new(parent: NodeId, level: &[u8]) -> Node {
        Node {
            parent,
            star: NO_NODE,
            edge_count: 0,
            branch: NO_FILTER,
            one_depth: NO_FILTER,
            level: SmallVec::from_slice(level),
        }
    }

    fn end(&self, filter: &Dotted) -> FilterId {
        if filter.is_one_depth() {
            self.one_depth
        } else {
            self.branch
        }
    }

    fn end_mut(&mut self, filter: &Dotted) -> &mut FilterId {
        if filter.is_one_depth() {
            &mut self.one_depth
        } else {
            &mut self.branch
        }
    }

    fn is_needed(&self) -> bool {
        self.edge_count > 0
            || self.star != NO_NODE
            || self.branch != NO_FILTER
            || self.one_depth != NO_FILTER
    }
}

impl Default for Trie {
    fn default() -> Trie {
        let mut nodes = Arena::default();
        let root = nodes.insert(Node::new(NO_NODE, b""));
        debug_assert_eq!(root, ROOT.0);
        Trie {
            nodes,
            edges: HashTable::new(),
            seed: RandomState::default(),
        }
    }
}

impl Trie {
    /// The id that was inserted for this filter.
    pub(super) fn find(&self, filter: &Dotted) -> Option<FilterId> {
        let id = self.node(self.walk(filter)?).end(filter);
        (id != NO_FILTER).then_some(id)
    }

    /// The filter must not be there yet.
    pub(super) fn insert(&mut self, filter: &Dotted, id: FilterId) {
        let mut node = ROOT;
        for level in filter.levels() {
            node = match self.child(node, level) {
                Some(child) => child,
                None => self.add_child(node, level),
            };
        }
        let end = self.node_mut(node).end_mut(filter);
        assert_eq!(*end, NO_FILTER, "a filter is inserted once");
        *end = id;
    }

    /// The filter must be there.
    pub(super) fn remove(&mut self, filter: &Dotted) {
        let mut node = self
            .walk(filter)
            .expect("a filter that is removed has been inserted");
        *self.node_mut(node).end_mut(filter) = NO_FILTER;
        while node != ROOT && !self.node(node).is_needed() {
            node = self.remove_child(node);
        }
    }

    /// Appends the filters that match a dotted topic: more levels first, then one depth before branch, then
    /// literal before `*` from the left.
    pub(super) fn match_levels(&self, topic: &[u8], matches: &mut Vec<FilterId>) {
        // As long as no `*` is met there is one node per depth at most, and its branch is all there is to remember.
        let mut branches: SmallVec<[FilterId; TOPIC_LEVELS_MAX]> = SmallVec::new();
        let mut id = ROOT;
        let mut node = self.node(ROOT);
        let mut rest = topic;
        let one_depth = loop {
            if node.star != NO_NODE {
                return self.match_paths(topic, matches);
            }
            if node.edge_count == 0 {
                break NO_FILTER;
            }
            let size = rest.iter().position(|&byte| byte == b'.');
            let level = &rest[..size.unwrap_or(rest.len())];
            let Some(child) = self.literal_child(id, level) else {
                break NO_FILTER;
            };
            id = child;
            node = self.node(child);
            if node.branch != NO_FILTER {
                branches.push(node.branch);
            }
            match size {
                Some(size) => rest = &rest[size + 1..],
                None => break node.one_depth,
            }
        };
        if one_depth != NO_FILTER {
            matches.push(one_depth);
        }
        matches.extend(branches.iter().rev());
    }

    /// [`Trie::match_levels`] by whichever ways there are.
    fn match_paths(&self, topic: &[u8], matches: &mut Vec<FilterId>) {
        // The nodes reached, depth by depth, and where each depth ends. The child of a literal is put before
        // the child of a `*`, so within a depth they are in the order in which the filters are to come.
        let mut reached: SmallVec<[NodeId; 64]> = smallvec![ROOT];
        let mut ends: SmallVec<[usize; TOPIC_LEVELS_MAX + 1]> = SmallVec::new();
        let mut start = 0;
        let mut deepest_is_topic = true;
        for level in levels(topic) {
            let end = reached.len();
            for index in start..end {
                let id = reached[index];
                let node = self.node(id);
                if node.edge_count > 0
                    && let Some(child) = self.literal_child(id, level)
                {
                    reached.push(child);
                }
                if node.star != NO_NODE {
                    reached.push(node.star);
                }
            }
            if reached.len() == end {
                deepest_is_topic = false;
                break;
            }
            ends.push(end);
            start = end;
        }
        let mut append = |nodes: &[NodeId], filter: fn(&Node) -> FilterId| {
            matches.extend(
                nodes
                    .iter()
                    .map(|&id| filter(self.node(id)))
                    .filter(|&id| id != NO_FILTER),
            );
        };
        if deepest_is_topic {
            append(&reached[start..], |node| node.one_depth);
        }
        let mut end = reached.len();
        while let Some(start) = ends.pop() {
            append(&reached[start..end], |node| node.branch);
            end = start;
        }
    }

    fn walk(&self, filter: &Dotted) -> Option<NodeId> {
        filter
            .levels()
            .try_fold(ROOT, |node, level| self.child(node, level))
    }

    fn child(&self, parent: NodeId, level: &[u8]) -> Option<NodeId> {
        match level {
            b"*" => Some(self.node(parent).star).filter(|&star| star != NO_NODE),
            _ => self.literal_child(parent, level),
        }
    }

    fn literal_child(&self, parent: NodeId, level: &[u8]) -> Option<NodeId> {
        let is_child = |&id: &NodeId| {
            let node = self.node(id);
            node.parent == parent && *node.level == *level
        };
        self.edges
            .find(hash(&self.seed, parent, level), is_child)
            .copied()
    }

    fn add_child(&mut self, parent: NodeId, level: &[u8]) -> NodeId {
        let star = level == b"*";
        let index = self
            .nodes
            .insert(Node::new(parent, if star { b"" } else { level }));
        let id = NodeId(index);
        if star {
            self.node_mut(parent).star = id;
        } else {
            self.node_mut(parent).edge_count += 1;
            let (nodes, seed) = (&self.nodes, &self.seed);
            let rehash = |&id: &NodeId| {
                let node = &nodes[id.0];
                hash(seed, node.parent, &node.level)
            };
            self.edges.insert_unique(rehash(&id), id, rehash);
        }
        id
    }

    /// Answers the parent.
    fn remove_child(&mut self, id: NodeId) -> NodeId {
        let node = self.nodes.remove(id.0);
        let parent = node.parent;
        if node.level.is_empty() {
            self.node_mut(parent).star = NO_NODE;
        } else {
            self.node_mut(parent).edge_count -= 1;
            let hash = hash(&self.seed, parent, &node.level);
            let edge = self.edges.find_entry(hash, |&edge| edge == id);
            edge.expect("a node is found from its parent").remove();
        }
        parent
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0]
    }

    #[cfg(test)]
    pub(super) fn node_count(&self) -> usize {
        self.nodes.len()
    }
}

/// Of an edge. There is one string in it, at its beginning, so its length need not be hashed to tell edges apart.
fn hash(seed: &RandomState, parent: NodeId, level: &[u8]) -> u64 {
    let mut hasher = seed.build_hasher();
    hasher.write(level);
    hasher.write_u32(parent.0);
    hasher.finish()
}
