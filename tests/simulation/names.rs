//! Names: what clients publish and subscribe to, and what reaches whom, by the words of the design and nothing else.

/// Topics with levels, that every protocol can publish to.
pub const TOPICS: [&str; 10] = [
    "a", "a.b", "a.b.c", "a.x", "b", "b.c", "d", "d.x", "k", "k.x",
];
/// What native clients subscribe to.
pub const FILTERS: [&str; 20] = [
    "a", "a.b", "a.b.c", "=a", "=a.b", "a.*", "=a.*", "*.b", "=*.b", "*", "=*", "b", "b.c", "d",
    "d.x", "d.*", "k", "=k.x", "*.x", "a.*.c",
];

/// A name that is published to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Topic {
    /// One that filters of every protocol can see.
    Name(&'static str),
}

impl Topic {
    /// Every topic that somebody publishes to.
    pub fn all() -> impl Iterator<Item = Topic> {
        TOPICS.into_iter().map(Topic::Name)
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Topic::Name(name) => name,
        }
    }
}

/// What is subscribed to, and thereby in which protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Filter {
    /// Native: a branch of topics.
    Dotted(&'static str),
}

/// What happens to slow readers of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    Close,
    DropOldest,
    Conflate,
}

impl Filter {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Filter::Dotted(name) => name,
        }
    }

    pub fn matches(self, topic: Topic) -> bool {
        match (self, topic) {
            (Filter::Dotted(filter), Topic::Name(name)) => has_branch(filter, name),
        }
    }

    /// What happens to a slow reader by this filter, of this topic.
    pub fn policy(self, topic: Topic) -> Policy {
        match self {
            Filter::Dotted(_) => policy(topic.name()),
        }
    }

    /// Of one message, does a client get the delivery by this filter before the one by the other?
    pub fn is_before(self, other: Filter) -> bool {
        match (self, other) {
            (Filter::Dotted(first), Filter::Dotted(second)) => is_more_specific(first, second),
        }
    }
}

pub fn policy(topic: &str) -> Policy {
    match topic.split('.').next() {
        Some("d") => Policy::DropOldest,
        Some("k") => Policy::Conflate,
        _ => Policy::Close,
    }
}

/// Does a dotted filter match a topic? By the words of DESIGN decision 9.
fn has_branch(filter: &str, topic: &str) -> bool {
    let (filter, is_one_depth) = match filter.strip_prefix('=') {
        Some(rest) => (rest, true),
        None => (filter, false),
    };
    let filter: Vec<&str> = filter.split('.').collect();
    let topic: Vec<&str> = topic.split('.').collect();
    let depth_fits = if is_one_depth {
        topic.len() == filter.len()
    } else {
        topic.len() >= filter.len()
    };
    depth_fits && (filter.iter().zip(&topic)).all(|(level, name)| *level == "*" || level == name)
}

/// Is a delivery with context `first` made before one with context `second`?
fn is_more_specific(first: &str, second: &str) -> bool {
    let rank = |filter: &str| {
        let is_one_depth = filter.starts_with('=');
        let levels: Vec<bool> = (filter.trim_start_matches('=').split('.'))
            .map(|level| level == "*")
            .collect();
        (std::cmp::Reverse(levels.len()), !is_one_depth, levels)
    };
    rank(first) < rank(second)
}

/// The name that was meant by one that came back.
pub fn known(name: &str, among: &[&'static str]) -> Option<&'static str> {
    among.iter().copied().find(|known| *known == name)
}
