//! Topics, filters, the tree and interest against their obvious twins, over random names and histories.
//! A failure prints the smallest case and its seed.

use std::cmp::Reverse;
use std::collections::HashMap;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use pubsub::address::{ShardId, ShardSet};
use pubsub::topic::interest::Interest;
use pubsub::topic::tree::{FilterId, TopicTree};
use pubsub::topic::{Filter, Topic};

/// Few words, so that they meet; one too long to lie within a node of the tree.
fn path(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    vec(select(words), 1..5).prop_map(|levels| levels.join("."))
}

fn dotted_filter() -> impl Strategy<Value = Filter> {
    let path = path(&["a", "b", "a*", "*", "*", "a level of more than 16 bytes"]);
    (select(&["", "="][..]), path)
        .prop_map(|(depth, path)| Filter::dotted(Bytes::from(format!("{depth}{path}"))).unwrap())
}

fn name() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => path(&["a", "b", "a*", "c", "a level of more than 16 bytes"]).prop_map(Bytes::from),
        1 => vec(select(&b"aab..*=$\n\xff"[..]), 0..6).prop_map(Bytes::from),
    ]
}

fn filter() -> impl Strategy<Value = Filter> {
    prop_oneof![
        4 => dotted_filter(),
        2 => name().prop_map(|name| Filter::exact(name).unwrap()),
        1 => name().prop_map(|name| Filter::shard(name).unwrap()),
        2 => vec(select(&b"aab..**?[]^-\\="[..]), 0..6).prop_map(|pattern| Filter::glob(Bytes::from(pattern)).unwrap()),
        1 => select(&["*", "a*", "a.*", "*.a", "", "a.b", r"a\.b", "[a]"][..])
            .prop_map(|pattern| Filter::glob(Bytes::from(pattern)).unwrap()),
    ]
}

fn topic() -> impl Strategy<Value = Topic> {
    prop_oneof![
        4 => name().prop_map(|name| Topic::channel(name).unwrap()),
        1 => name().prop_map(|name| Topic::shard(name).unwrap()),
    ]
}

/// The rules of DESIGN decision 9 for dotted filters, word for word.
fn dotted_twin(written: &str, name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else {
        return false;
    };
    let topic: Vec<&str> = name.split('.').collect();
    let reserved = name.starts_with(['=', '$']) || name.contains(char::is_control);
    if reserved || topic.contains(&"") || topic.contains(&"*") {
        return false;
    }
    let (one_depth, path) = written
        .strip_prefix('=')
        .map_or((false, written), |path| (true, path));
    let filter: Vec<&str> = path.split('.').collect();
    let deep_enough = if one_depth {
        topic.len() == filter.len()
    } else {
        topic.len() >= filter.len()
    };
    deep_enough
        && filter
            .iter()
            .zip(&topic)
            .all(|(filter, level)| *filter == "*" || filter == level)
}

/// The order of matches, as a key.
fn order_twin(filter: &Filter) -> impl Ord {
    let written = filter.written().to_vec();
    match filter {
        Filter::Exact(_) => (0, Reverse(0), false, vec![], written),
        Filter::Shard(_) => (1, Reverse(0), false, vec![], written),
        Filter::Room(_) => (2, Reverse(0), false, vec![], written),
        Filter::Dotted(_) => {
            let text = std::str::from_utf8(&written).unwrap();
            let path = text.strip_prefix('=').unwrap_or(text);
            let stars: Vec<bool> = path.split('.').map(|level| level == "*").collect();
            (
                3,
                Reverse(stars.len()),
                !text.starts_with('='),
                stars,
                written,
            )
        }
        Filter::Glob(_) => (4, Reverse(0), false, vec![], written),
    }
}

#[derive(Clone, Debug)]
enum TreeStep {
    Insert(Filter),
    Remove(Index),
    Match(Topic),
}

fn tree_step() -> impl Strategy<Value = TreeStep> {
    prop_oneof![
        4 => filter().prop_map(TreeStep::Insert),
        2 => any::<Index>().prop_map(TreeStep::Remove),
        2 => topic().prop_map(TreeStep::Match),
    ]
}

#[derive(Clone, Copy, Debug)]
enum InterestStep {
    Add(u8),
    Remove(u8),
    /// Tell this peer at most so many edges.
    Tell(Index, usize),
}

fn interest_step() -> impl Strategy<Value = InterestStep> {
    prop_oneof![
        3 => (0..6_u8).prop_map(InterestStep::Add),
        3 => (0..6_u8).prop_map(InterestStep::Remove),
        2 => (any::<Index>(), 1..4_usize).prop_map(|(peer, edges)| InterestStep::Tell(peer, edges)),
    ]
}

/// What a peer makes of the edges that it is told.
#[derive(Default)]
struct Belief(HashMap<u8, bool>);

impl Belief {
    /// Tells one edge, if there is one. `counts` is the truth.
    fn hear(&mut self, interest: &mut Interest<u8>, peer: ShardId, counts: &[usize; 6]) -> bool {
        let Some(edge) = interest.next_edge(peer) else {
            return false;
        };
        assert_eq!(
            edge.up,
            counts[usize::from(edge.key)] > 0,
            "what is told is so now"
        );
        let before = self.0.insert(edge.key, edge.up).unwrap_or(false);
        assert_ne!(before, edge.up, "ups and downs of a key alternate");
        interest.told(peer);
        true
    }

    fn believes(&self, key: u8) -> bool {
        self.0.get(&key).copied().unwrap_or(false)
    }
}

/// All paths of one to `depth` of these words.
fn all_paths(words: &[&str], depth: usize) -> Vec<String> {
    let mut paths: Vec<String> = words.iter().map(|word| word.to_string()).collect();
    let mut start = 0;
    for _ in 1..depth {
        let longer: Vec<String> = paths[start..]
            .iter()
            .flat_map(|path| words.iter().map(move |word| format!("{path}.{word}")))
            .collect();
        start = paths.len();
        paths.extend(longer);
    }
    paths
}

#[test]
fn coverage_of_small_dotted_filters_is_exact() {
    // A third word and a fourth level, so that no filter is right by chance.
    let topics: Vec<Topic> = all_paths(&["a", "b", "c"], 4)
        .into_iter()
        .map(|name| Topic::dotted(Bytes::from(name)).unwrap())
        .collect();
    let filters: Vec<(Filter, Vec<bool>)> = all_paths(&["a", "b", "*"], 3)
        .into_iter()
        .flat_map(|path| [format!("={path}"), path])
        .map(|written| {
            let filter = Filter::dotted(Bytes::from(written)).unwrap();
            let matched = topics.iter().map(|topic| filter.matches(topic)).collect();
            (filter, matched)
        })
        .collect();
    for (a, matched_by_a) in &filters {
        for (b, matched_by_b) in &filters {
            let mut pairs = matched_by_a.iter().zip(matched_by_b);
            assert_eq!(
                a.covers(b),
                pairs.clone().all(|(a, b)| *a || !b),
                "{a:?} covers {b:?}"
            );
            assert_eq!(
                a.overlaps(b),
                pairs.any(|(a, b)| *a && *b),
                "{a:?} overlaps {b:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn dotted_filters_match_as_they_read(filter in dotted_filter(), name in name()) {
        let topic = Topic::channel(name.clone()).unwrap();
        let written = std::str::from_utf8(filter.written()).unwrap();
        prop_assert_eq!(filter.matches(&topic), dotted_twin(written, &name));
        prop_assert_eq!(Topic::dotted(name.clone()).is_ok(), topic.is_dotted());
        prop_assert_eq!(topic.is_dotted(), dotted_twin("*", &name));
    }

    #[test]
    fn any_bytes_are_a_topic_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        let topic = Topic::channel(bytes.clone()).unwrap();
        prop_assert_eq!(Topic::dotted(bytes.clone()).is_ok(), topic.is_dotted());
        // A dotted topic is also a filter, which matches it.
        match Filter::dotted(bytes.clone()) {
            Ok(filter) if topic.is_dotted() => prop_assert!(filter.matches(&topic)),
            Ok(_) => {}
            Err(_) => prop_assert!(!topic.is_dotted()),
        }
        if let Ok(filter) = Filter::glob(bytes) {
            let _ = filter.matches(&topic);
        }
    }

    #[test]
    fn the_order_of_filters_is_total(a in filter(), b in filter()) {
        prop_assert_eq!(a.cmp(&b), order_twin(&a).cmp(&order_twin(&b)));
        prop_assert_eq!(a.cmp(&b).is_eq(), a == b);
    }

    #[test]
    fn the_tree_finds_what_matches_in_order(steps in vec(tree_step(), 0..120), last in topic()) {
        let mut tree: TopicTree<usize> = TopicTree::default();
        let mut twin: Vec<(Filter, FilterId, usize)> = Vec::new();
        for (step, number) in steps.into_iter().chain([TreeStep::Match(last)]).zip(0..) {
            match step {
                TreeStep::Insert(filter) => {
                    let known = twin.iter().find(|entry| entry.0 == filter);
                    prop_assert_eq!(tree.find(&filter), known.map(|entry| entry.1));
                    let id = tree.insert_with(&filter, || number);
                    match known {
                        Some(entry) => prop_assert_eq!((id, *tree.value(id)), (entry.1, entry.2)),
                        None => twin.push((filter, id, number)),
                    }
                }
                TreeStep::Remove(index) => {
                    if !twin.is_empty() {
                        let (filter, id, number) = twin.swap_remove(index.index(twin.len()));
                        prop_assert_eq!(tree.filter(id), &filter);
                        prop_assert_eq!(tree.remove(id), (filter.clone(), number));
                        prop_assert_eq!(tree.find(&filter), None);
                    }
                }
                TreeStep::Match(topic) => {
                    let mut expected: Vec<_> = twin.iter().filter(|entry| entry.0.matches(&topic)).collect();
                    expected.sort_by(|a, b| order_twin(&a.0).cmp(&order_twin(&b.0)));
                    let mut found = Vec::new();
                    tree.match_topic(&topic, &mut found);
                    prop_assert_eq!(found, expected.iter().map(|entry| entry.1).collect::<Vec<_>>());
                    let exact = twin.iter().find(|entry| entry.0 == Filter::Exact(topic.as_bytes().clone()));
                    prop_assert_eq!(tree.find_exact(topic.as_bytes()), exact.map(|entry| entry.1));
                }
            }
            prop_assert_eq!(tree.len(), twin.len());
            prop_assert_eq!(tree.iter().count(), twin.len());
        }
    }

    #[test]
    fn coverage_is_never_promised_in_vain(a in filter(), b in filter(), topics in vec(topic(), 200)) {
        let (covers, overlaps) = (a.covers(&b), a.overlaps(&b));
        prop_assert!(a.covers(&a) && a.overlaps(&a));
        prop_assert_eq!(overlaps, b.overlaps(&a));
        // The names of the filters themselves meet more often than random ones.
        let own = [&a, &b].map(|filter| Topic::channel(filter.written().clone()).unwrap());
        for topic in topics.iter().chain(&own) {
            prop_assert!(!a.matches(topic) || a.speaks_of(topic), "{topic:?}");
            prop_assert!(!covers || a.speaks_of(topic) || !b.speaks_of(topic), "{topic:?}");
            prop_assert!(overlaps || !a.speaks_of(topic) || !b.speaks_of(topic), "{topic:?}");
        }
    }

    #[test]
    fn peers_believe_what_they_were_told(
        peers in prop_oneof![Just(vec![]), Just(vec![0]), Just(vec![1, 2, 5]), Just(vec![0, 63, 64, 127])],
        steps in vec(interest_step(), 0..200),
    ) {
        let peers: Vec<ShardId> = peers.into_iter().map(ShardId).collect();
        let mut interest: Interest<u8> = Interest::new(peers.iter().copied().collect::<ShardSet>());
        let mut counts = [0_usize; 6];
        let mut beliefs: HashMap<ShardId, Belief> = peers.iter().map(|&peer| (peer, Belief::default())).collect();
        for step in steps {
            match step {
                InterestStep::Add(key) => {
                    counts[usize::from(key)] += 1;
                    prop_assert_eq!(interest.add(&key), counts[usize::from(key)] == 1);
                }
                InterestStep::Remove(key) => {
                    if counts[usize::from(key)] > 0 {
                        counts[usize::from(key)] -= 1;
                        prop_assert_eq!(interest.remove(&key), counts[usize::from(key)] == 0);
                    }
                }
                InterestStep::Tell(peer, edges) => {
                    if !peers.is_empty() {
                        let peer = *peer.get(&peers);
                        let belief = beliefs.get_mut(&peer).unwrap();
                        for _ in 0..edges {
                            let differs = (0..6).any(|key| belief.believes(key) != (counts[usize::from(key)] > 0));
                            prop_assert_eq!(belief.hear(&mut interest, peer, &counts), differs);
                        }
                    }
                }
            }
            for key in 0..6 {
                let count = counts[usize::from(key)];
                prop_assert_eq!(interest.count(&key), count);
                let announced = count > 0 && beliefs.values().all(|belief| belief.believes(key));
                prop_assert_eq!(interest.is_announced(&key), announced);
            }
            let mut wanted: Vec<u8> = interest.iter().copied().collect();
            wanted.sort();
            prop_assert_eq!(wanted, (0..6).filter(|&key| counts[usize::from(key)] > 0).collect::<Vec<u8>>());
            let lives = (0..6).filter(|&key| {
                counts[usize::from(key)] > 0 || beliefs.values().any(|belief| belief.believes(key))
            });
            prop_assert_eq!(interest.entry_count(), lives.count());
        }
        for (&peer, belief) in &mut beliefs {
            while belief.hear(&mut interest, peer, &counts) {}
            for key in 0..6 {
                prop_assert_eq!(belief.believes(key), counts[usize::from(key)] > 0);
            }
        }
    }
}
