//! Names: what clients publish and subscribe to, and what reaches whom, by the words of the design and nothing else.

/// Topics with levels, that every protocol can publish to.
pub const TOPICS: [&str; 10] = [
    "a", "a.b", "a.b.c", "a.x", "b", "b.c", "d", "d.x", "k", "k.x",
];
/// Names without levels, that dotted filters do not see and native clients can't publish to.
pub const PLAIN: [&str; 2] = ["a..b", "*"];
/// Names of RESP's shard channels.
pub const SHARDS: [&str; 3] = ["a", "d", "s"];
/// What RESP clients subscribe to by PSUBSCRIBE.
pub const PATTERNS: [&str; 10] = [
    "*", "a*", "?", "[ad]", "[^ab]", "*.x", "a.[bx]*", "k*", "a.?", "[a-d].*",
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
    /// RESP's shard channels, which have a space of their own.
    Shard(&'static str),
}

impl Topic {
    /// Every topic that somebody publishes to.
    pub fn all() -> impl Iterator<Item = Topic> {
        let names = TOPICS.into_iter().chain(PLAIN).map(Topic::Name);
        names.chain(SHARDS.into_iter().map(Topic::Shard))
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Topic::Name(name) | Topic::Shard(name) => name,
        }
    }

    /// Can native clients publish to it?
    pub fn is_dotted(self) -> bool {
        match self {
            Topic::Name(name) => !PLAIN.contains(&name),
            Topic::Shard(_) => false,
        }
    }
}

/// What is subscribed to, and thereby in which protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Filter {
    /// Native: a branch of topics.
    Dotted(&'static str),
    /// ClusterWS: a channel.
    Room(&'static str),
    /// RESP: a channel, by SUBSCRIBE.
    Channel(&'static str),
    /// RESP: all channels that a glob matches, by PSUBSCRIBE.
    Pattern(&'static str),
    /// RESP: a shard channel, by SSUBSCRIBE.
    Shard(&'static str),
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
            Filter::Dotted(name)
            | Filter::Room(name)
            | Filter::Channel(name)
            | Filter::Pattern(name)
            | Filter::Shard(name) => name,
        }
    }

    pub fn matches(self, topic: Topic) -> bool {
        match (self, topic) {
            (Filter::Dotted(filter), _) => topic.is_dotted() && has_branch(filter, topic.name()),
            (Filter::Room(channel) | Filter::Channel(channel), Topic::Name(name)) => {
                channel == name
            }
            (Filter::Pattern(pattern), Topic::Name(name)) => {
                fits_glob(pattern.as_bytes(), name.as_bytes())
            }
            (Filter::Shard(channel), Topic::Shard(name)) => channel == name,
            (Filter::Room(_) | Filter::Channel(_) | Filter::Pattern(_), Topic::Shard(_))
            | (Filter::Shard(_), Topic::Name(_)) => false,
        }
    }

    /// What happens to a slow reader by this filter, of this topic.
    pub fn policy(self, topic: Topic) -> Policy {
        match self {
            Filter::Dotted(_) | Filter::Room(_) => policy(topic.name()),
            // RESP has no words for a gap.
            Filter::Channel(_) | Filter::Pattern(_) | Filter::Shard(_) => Policy::Close,
        }
    }

    /// Of one message, may a client get the delivery by this filter before the one by the other?
    pub fn is_before(self, other: Filter) -> bool {
        match (self, other) {
            (Filter::Dotted(first), Filter::Dotted(second)) => is_more_specific(first, second),
            // The channel first; patterns in any order.
            (_, Filter::Pattern(_)) => true,
            (Filter::Channel(_), Filter::Dotted(_)) => true,
            _ => false,
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

/// Does a glob of Redis match a name?
pub fn fits_glob(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], name) => name.is_empty(),
        ([b'*', rest @ ..], name) => (0..=name.len()).any(|size| fits_glob(rest, &name[size..])),
        (_, []) => false,
        ([b'?', rest @ ..], [_, others @ ..]) => fits_glob(rest, others),
        ([b'[', rest @ ..], [byte, others @ ..]) => {
            let end = rest.iter().position(|byte| *byte == b']');
            let (class, rest) = rest.split_at(end.expect("every class here has an end"));
            is_of_class(class, *byte) && fits_glob(&rest[1..], others)
        }
        ([literal, rest @ ..], [byte, others @ ..]) => literal == byte && fits_glob(rest, others),
    }
}

fn is_of_class(class: &[u8], byte: u8) -> bool {
    match class {
        [b'^', rest @ ..] => !is_of_class(rest, byte),
        [first, b'-', last, rest @ ..] => {
            (*first..=*last).contains(&byte) || is_of_class(rest, byte)
        }
        [one, rest @ ..] => *one == byte || is_of_class(rest, byte),
        [] => false,
    }
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
