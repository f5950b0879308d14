//! Topic names and topic filters. (stub: signatures to keep)
use bytes::Bytes;

pub mod interest;
pub mod tree;

/// A name that is published to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Topic {
    name: Bytes,
    dotted: bool,
}

/// Why a name is no topic or filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicError(&'static str);

impl TopicError {
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl Topic {
    /// A topic of native JSON / Socket.IO: 1..=255 bytes UTF-8, <= 32 levels, no empty level, no control chars, no `*` level, no leading `=` or `$`
    pub fn dotted(name: Bytes) -> Result<Topic, TopicError> {
        Ok(Topic { name, dotted: true })
    }
    /// Any bytes up to 1024; `is_dotted` if it also is a valid dotted topic
    pub fn channel(name: Bytes) -> Result<Topic, TopicError> {
        Ok(Topic { name, dotted: true })
    }
    pub fn is_dotted(&self) -> bool {
        self.dotted
    }
    pub fn as_bytes(&self) -> &Bytes {
        &self.name
    }
}

/// What a subscription asks for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Filter {
    Dotted(Dotted),
    Exact(Bytes),
    Glob(Bytes),
}

/// A checked dotted filter.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Dotted {
    written: Bytes,
}

impl Filter {
    pub fn dotted(written: Bytes) -> Result<Filter, TopicError> {
        Ok(Filter::Dotted(Dotted { written }))
    }
    pub fn exact(name: Bytes) -> Result<Filter, TopicError> {
        Ok(Filter::Exact(name))
    }
    pub fn glob(pattern: Bytes) -> Result<Filter, TopicError> {
        Ok(Filter::Glob(pattern))
    }
    /// as the subscriber wrote it: the `context`
    pub fn written(&self) -> &Bytes {
        match self {
            Filter::Dotted(d) => &d.written,
            Filter::Exact(b) | Filter::Glob(b) => b,
        }
    }
    /// naive, the oracle's twin is in tests
    pub fn matches(&self, _topic: &Topic) -> bool {
        false
    }
    /// every topic that `other` matches, self matches too (may err towards false, never towards true)
    pub fn covers(&self, _other: &Filter) -> bool {
        false
    }
    /// some topic might be matched by both (may err towards true, never towards false)
    pub fn overlaps(&self, _other: &Filter) -> bool {
        false
    }
}
