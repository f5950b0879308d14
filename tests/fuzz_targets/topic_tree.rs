//! The topic tree against a list that is searched from end to end. The input: steps of one byte and what they need.

use bytes::Bytes;
use pubsub::topic::tree::{FilterId, TopicTree};
use pubsub::topic::{Filter, Topic};

use super::filters;
use super::input::Input;

/// Few words, so that they meet; one too long to lie within a node of the tree, one that ends like a filter.
const LEVELS: [&str; 6] = ["a", "b", "*", "a*", "a level of more than 16 bytes", "c"];

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let mut tree: TopicTree<usize> = TopicTree::default();
    let mut twin: Vec<(Filter, FilterId, usize)> = Vec::new();
    for number in 0..400 {
        if input.is_empty() {
            break;
        }
        match input.below(8) {
            0..3 => {
                if let Some(filter) = dotted(&mut input) {
                    insert(&mut tree, &mut twin, &filter, number);
                }
            }
            3 => {
                if let Some(filter) = filters::filter(&mut input) {
                    insert(&mut tree, &mut twin, &filter, number);
                }
            }
            4 | 5 if !twin.is_empty() => {
                let index = usize::from(input.byte()) % twin.len();
                let (filter, id, number) = twin.swap_remove(index);
                assert_eq!(tree.filter(id), &filter);
                assert_eq!(tree.remove(id), (filter.clone(), number));
                assert_eq!(tree.find(&filter), None);
            }
            6 => {
                let size = usize::from(input.byte());
                find(&tree, &twin, Bytes::copy_from_slice(input.take(size)));
            }
            _ => find(&tree, &twin, path(&mut input)),
        }
        assert_eq!(tree.len(), twin.len());
        assert_eq!(tree.is_empty(), twin.is_empty());
    }
    assert_eq!(tree.iter().count(), twin.len());
    for (filter, id, number) in twin {
        assert_eq!(tree.find(&filter), Some(id));
        assert_eq!(tree.remove(id), (filter, number));
    }
    assert!(tree.is_empty());
}

fn path(input: &mut Input<'_>) -> Bytes {
    let depth = 1 + input.below(4);
    let levels: Vec<&str> = (0..depth).map(|_| LEVELS[input.below(6)]).collect();
    Bytes::from(levels.join("."))
}

fn dotted(input: &mut Input<'_>) -> Option<Filter> {
    let is_one_depth = input.byte() % 2 == 1;
    let path = path(input);
    let prefix: &[u8] = if is_one_depth { b"=" } else { b"" };
    Filter::dotted(Bytes::from([prefix, &path].concat())).ok()
}

fn insert(
    tree: &mut TopicTree<usize>,
    twin: &mut Vec<(Filter, FilterId, usize)>,
    filter: &Filter,
    number: usize,
) {
    let known = twin.iter().find(|entry| entry.0 == *filter);
    assert_eq!(tree.find(filter), known.map(|entry| entry.1));
    let id = tree.insert_with(filter, || number);
    match known {
        Some((_, known, value)) => assert_eq!((id, *tree.value(id)), (*known, *value)),
        None => twin.push((filter.clone(), id, number)),
    }
}

fn find(tree: &TopicTree<usize>, twin: &[(Filter, FilterId, usize)], name: Bytes) {
    let Ok(topic) = Topic::channel(name) else {
        return;
    };
    let mut expected: Vec<_> = twin
        .iter()
        .filter(|entry| entry.0.matches(&topic))
        .collect();
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    let expected: Vec<FilterId> = expected.iter().map(|entry| entry.1).collect();
    let mut found = Vec::new();
    tree.match_topic(&topic, &mut found);
    assert_eq!(found, expected, "{topic:?}");
    let exact = Filter::Exact(topic.as_bytes().clone());
    let exact = twin.iter().find(|entry| entry.0 == exact);
    assert_eq!(
        tree.find_exact(topic.as_bytes()),
        exact.map(|entry| entry.1)
    );
}
