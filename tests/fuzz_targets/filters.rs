//! Topics and filters. The input: two filters, then topics until it ends; each is one byte for its kind, one for
//! its size, and so many bytes.
//!
//! The oracles: the rules of DESIGN decision 9 word for word, and the obvious way to match a glob.

use bytes::Bytes;
use pubsub::topic::{Filter, Topic};

use super::input::Input;

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let (Some(a), Some(b)) = (filter(&mut input), filter(&mut input)) else {
        return;
    };
    check_pair(&a, &b);
    // The names of the filters themselves meet more often than others.
    let mut topics: Vec<Bytes> = [&a, &b].map(|filter| filter.written().clone()).into();
    while !input.is_empty() && topics.len() < 12 {
        topics.push(name(&mut input));
    }
    for topic in topics.into_iter().filter_map(topic) {
        for filter in [&a, &b] {
            assert_eq!(
                filter.matches(&topic),
                twin(filter, topic.as_bytes()),
                "{filter:?} {topic:?}"
            );
        }
        let both = a.matches(&topic) && b.matches(&topic);
        assert!(a.overlaps(&b) || !both, "{a:?} {b:?} {topic:?}");
        for (wide, narrow) in [(&a, &b), (&b, &a)] {
            let is_kept = wide.matches(&topic) || !narrow.matches(&topic);
            assert!(
                is_kept || !wide.covers(narrow),
                "{wide:?} {narrow:?} {topic:?}"
            );
        }
    }
}

fn name(input: &mut Input<'_>) -> Bytes {
    let size = usize::from(input.byte());
    Bytes::copy_from_slice(input.take(size))
}

/// A filter, if the bytes are one of their kind.
pub fn filter(input: &mut Input<'_>) -> Option<Filter> {
    let kind = input.below(3);
    let written = name(input);
    match kind {
        0 => {
            let filter = Filter::dotted(written.clone());
            assert_eq!(filter.is_ok(), is_dotted_filter(&written), "{written:?}");
            filter.ok()
        }
        1 => Filter::exact(written).ok(),
        _ => Filter::glob(written).ok(),
    }
}

/// A topic, if the bytes are one; dotted by both ways of asking, or by none.
fn topic(name: Bytes) -> Option<Topic> {
    let topic = Topic::channel(name.clone());
    let is_dotted = topic.as_ref().is_ok_and(Topic::is_dotted);
    assert_eq!(Topic::dotted(name.clone()).is_ok(), is_dotted);
    assert_eq!(is_dotted, is_dotted_topic(&name), "{name:?}");
    topic.ok()
}

fn check_pair(a: &Filter, b: &Filter) {
    for filter in [a, b] {
        assert!(
            filter.covers(filter) && filter.overlaps(filter),
            "{filter:?}"
        );
        assert_eq!(&filter.detached(), filter);
    }
    assert_eq!(a.overlaps(b), b.overlaps(a), "{a:?} {b:?}");
    assert_eq!(a.cmp(b), b.cmp(a).reverse(), "{a:?} {b:?}");
    assert_eq!(a.cmp(b).is_eq(), a == b, "{a:?} {b:?}");
}

fn twin(filter: &Filter, name: &[u8]) -> bool {
    match filter {
        Filter::Exact(exact) => exact == name,
        // The topics here are neither shard channels nor rooms.
        Filter::Shard(_) | Filter::Room(_) => false,
        Filter::Dotted(_) => is_dotted_topic(name) && dotted_twin(filter.written(), name),
        Filter::Glob(pattern) if name.is_empty() => pattern.is_empty(),
        Filter::Glob(pattern) => glob_twin(pattern, name),
    }
}

/// 1 to 255 bytes of UTF-8 in 1 to 32 levels, none empty, no control characters.
fn is_path(path: &[u8]) -> bool {
    let Ok(path) = std::str::from_utf8(path) else {
        return false;
    };
    (1..=255).contains(&path.len())
        && path.split('.').count() <= 32
        && !path.split('.').any(str::is_empty)
        && !path.contains(char::is_control)
}

fn is_dotted_topic(name: &[u8]) -> bool {
    is_path(name)
        && !name.starts_with(b"=")
        && !name.starts_with(b"$")
        && !name.split(|byte| *byte == b'.').any(|level| level == b"*")
}

fn is_dotted_filter(written: &[u8]) -> bool {
    let path = written.strip_prefix(b"=").unwrap_or(written);
    is_path(path) && !path.starts_with(b"=") && !path.starts_with(b"$")
}

fn dotted_twin(written: &[u8], name: &[u8]) -> bool {
    let one_depth = written.starts_with(b"=");
    let path = written.strip_prefix(b"=").unwrap_or(written);
    let levels = |text: &[u8]| -> Vec<Vec<u8>> {
        text.split(|byte| *byte == b'.')
            .map(<[u8]>::to_vec)
            .collect()
    };
    let (filter, topic) = (levels(path), levels(name));
    let is_deep_enough = if one_depth {
        topic.len() == filter.len()
    } else {
        topic.len() >= filter.len()
    };
    let mut pairs = filter.iter().zip(&topic);
    is_deep_enough && pairs.all(|(filter, level)| filter == b"*" || filter == level)
}

/// All the places in the pattern that each byte of the name could lead to.
fn glob_twin(pattern: &[u8], name: &[u8]) -> bool {
    let close = |places: &mut Vec<bool>| {
        for at in 0..pattern.len() {
            if places[at] && pattern[at] == b'*' {
                places[at + 1] = true;
            }
        }
    };
    let mut places = vec![false; pattern.len() + 1];
    places[0] = true;
    for byte in name {
        close(&mut places);
        let mut next = vec![false; pattern.len() + 1];
        for at in (0..pattern.len()).filter(|at| places[*at]) {
            if pattern[at] == b'*' {
                next[at] = true;
            } else if let Some(size) = element_twin(&pattern[at..], *byte) {
                next[at + size] = true;
            }
        }
        places = next;
    }
    close(&mut places);
    places[pattern.len()]
}

/// The size of the element in front of the pattern, if it takes this byte.
fn element_twin(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [b'[', ..] => {
            let is_negated = pattern.get(1) == Some(&b'^');
            let mut at = 1 + usize::from(is_negated);
            let mut is_member = false;
            while at < pattern.len() && pattern[at] != b']' {
                match pattern[at..] {
                    [b'\\', member, ..] => {
                        is_member |= member == byte;
                        at += 2;
                    }
                    [a, b'-', b, ..] => {
                        is_member |= a.min(b) <= byte && byte <= a.max(b);
                        at += 3;
                    }
                    [member, ..] => {
                        is_member |= member == byte;
                        at += 1;
                    }
                    [] => unreachable!("the loop ends with the pattern"),
                }
            }
            (is_member != is_negated).then_some((at + 1).min(pattern.len()))
        }
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}
