//! Dotted filters: a branch of the dotted topics, or one depth of it.
//!
//! Invariant: a [`Dotted`] has been checked. It has 1 to 32 levels, none empty, in at most 255 bytes of UTF-8.

use std::cmp::Ordering;

use bytes::Bytes;

use super::{Stars, TopicError, check_levels, levels};

/// A checked dotted filter: levels, of which `*` stands for any one, and whether topics below are meant too.
///
/// `a.b` matches `a.b` and `a.b.c`; `a.*` matches `a.b` and `a.b.c`, not `a`; `=a.*` matches `a.b` only; `*`
/// matches every dotted topic.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Dotted {
    written: Bytes,
}

impl Dotted {
    /// Checks the levels; see [`super::Filter::dotted`].
    pub(super) fn new(written: Bytes) -> Result<Dotted, TopicError> {
        let dotted = Dotted { written };
        check_levels(dotted.path(), Stars::Allowed)?;
        Ok(dotted)
    }

    /// As the subscriber wrote it.
    pub fn written(&self) -> &Bytes {
        &self.written
    }

    /// Written with a leading `=`: matches topics of exactly as many levels. Else deeper ones too.
    pub fn is_one_depth(&self) -> bool {
        self.written.first() == Some(&b'=')
    }

    /// The levels from the left; `*` stands for any.
    pub fn levels(&self) -> impl Iterator<Item = &[u8]> {
        levels(self.path())
    }

    /// The same filter in memory of its own.
    pub(super) fn detached(&self) -> Dotted {
        Dotted {
            written: Bytes::copy_from_slice(&self.written),
        }
    }

    /// The levels as written, without the `=`.
    pub(super) fn path(&self) -> &[u8] {
        self.written.strip_prefix(b"=").unwrap_or(&self.written)
    }

    /// What every topic that matches begins with: the path, up to the first level `*`.
    pub(super) fn literal(&self) -> &[u8] {
        let mut size = 0;
        for level in self.levels() {
            if level == b"*" {
                return &self.path()[..size];
            }
            size += level.len() + 1;
        }
        self.path()
    }

    /// Is the topic below us, or here? `name` must be a dotted topic's.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        let mut topic = levels(name);
        let begins = self.levels().all(|level| {
            topic
                .next()
                .is_some_and(|found| level == b"*" || level == found)
        });
        begins && (!self.is_one_depth() || topic.next().is_none())
    }

    /// As [`super::Filter::covers`], between dotted filters: but for the limits of depth and length, exactly so.
    pub(super) fn covers(&self, other: &Dotted) -> bool {
        // All topics of `other` have its levels at least, so ours must be a beginning of these.
        let mut theirs = other.levels();
        let begins = self.levels().all(|ours| {
            theirs
                .next()
                .is_some_and(|theirs| ours == b"*" || ours == theirs)
        });
        begins && (!self.is_one_depth() || other.is_one_depth() && theirs.next().is_none())
    }

    /// As [`super::Filter::overlaps`].
    pub(super) fn overlaps(&self, other: &Dotted) -> bool {
        let (mut a, mut b) = (self.levels(), other.levels());
        loop {
            match (a.next(), b.next()) {
                (None, None) => return true,
                // The deeper filter's topics must be deep enough for it and still be the other's.
                (None, Some(_)) => return !self.is_one_depth(),
                (Some(_), None) => return !other.is_one_depth(),
                (Some(a), Some(b)) if a == b || a == b"*" || b == b"*" => {}
                (Some(_), Some(_)) => return false,
            }
        }
    }
}

/// More levels first, then `=`, then literal before `*` from the left; the rest, which never match one topic
/// together, by bytes.
impl Ord for Dotted {
    fn cmp(&self, other: &Dotted) -> Ordering {
        let stars = |dotted: &Dotted| -> u32 {
            // At most 32 levels; the leftmost is the highest bit.
            dotted
                .levels()
                .fold(0, |bits, level| bits << 1 | u32::from(level == b"*"))
        };
        (other.levels().count().cmp(&self.levels().count()))
            .then_with(|| other.is_one_depth().cmp(&self.is_one_depth()))
            .then_with(|| stars(self).cmp(&stars(other)))
            .then_with(|| self.written.cmp(&other.written))
    }
}

impl PartialOrd for Dotted {
    fn partial_cmp(&self, other: &Dotted) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
