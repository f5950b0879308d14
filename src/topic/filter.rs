//! Filters: what a subscription asks for, and what an access rule speaks of (DESIGN decision 9).
//!
//! Three kinds, which say different things about the same names. *Dotted* filters see dotted topics only, a
//! branch of them or one depth. *Exact* filters see one name, *globs* those of a shape; neither knows what a
//! dot is, so that a Redis client is never surprised by a hierarchy. A fourth, *shard*, is one name in the space of
//! shard channels, which the others do not see. A fifth, *room*, is no filter of topics at all: a set of clients that
//! application servers fill, which no topic reaches and no client can name. A filter does not know who has it.
//!
//! Invariant: [`Filter::covers`] is never true, and [`Filter::overlaps`] never false, where a name could show the
//! contrary. Access rights lean on both, and may only ever refuse too much. Rights are to names: for them, and so for
//! these two and [`Filter::speaks_of`], a shard channel is the channel of its name.

use std::borrow::Cow;

use bytes::Bytes;

use super::dotted::Dotted;
use super::{Topic, TopicError, check_channel, glob, is_dotted};
use crate::limits::TOPIC_BYTES_MAX;

/// What a subscription asks for. Filters are ordered: most specific first, as deliveries are, exact names
/// before dotted filters before globs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Filter {
    /// One name.
    Exact(Bytes),
    /// One shard channel.
    Shard(Bytes),
    /// One room.
    Room(Bytes),
    /// A branch of the dotted topics, or one depth of it.
    Dotted(Dotted),
    /// The names of a shape, as Redis' PSUBSCRIBE.
    Glob(Bytes),
}

impl Filter {
    /// A dotted filter: `a.b` is `a.b` and everything below it, `*` stands for one level, and a leading `=`
    /// (not counted in the length) means exactly this depth. See [`Dotted`].
    ///
    /// # Errors
    /// if the levels break the rules of [`Topic::dotted`], a `*` aside, or after a second `=`.
    pub fn dotted(written: Bytes) -> Result<Filter, TopicError> {
        Dotted::new(written).map(Filter::Dotted)
    }

    /// The topic of this name, any bytes, 0 to 1024 of them.
    ///
    /// # Errors
    /// if it is longer.
    pub fn exact(name: Bytes) -> Result<Filter, TopicError> {
        check_channel(&name)?;
        Ok(Filter::Exact(name))
    }

    /// The shard channel of this name, any bytes, 0 to 1024 of them.
    ///
    /// # Errors
    /// if it is longer.
    pub fn shard(name: Bytes) -> Result<Filter, TopicError> {
        check_channel(&name)?;
        Ok(Filter::Shard(name))
    }

    /// The room of this name, any bytes, 0 to 1024 of them.
    ///
    /// # Errors
    /// if it is longer.
    pub fn room(name: Bytes) -> Result<Filter, TopicError> {
        check_channel(&name)?;
        Ok(Filter::Room(name))
    }

    /// The topics that a glob matches: `*`, `?`, `[a-z]`, `[^a]`, `\x`, as in Redis.
    ///
    /// # Errors
    /// if it is longer than 255 bytes.
    pub fn glob(pattern: Bytes) -> Result<Filter, TopicError> {
        const { assert!(TOPIC_BYTES_MAX == 255, "the sentence below names it") };
        if pattern.len() > TOPIC_BYTES_MAX {
            return Err(TopicError("the pattern is longer than 255 bytes"));
        }
        Ok(Filter::Glob(pattern))
    }

    /// As the subscriber wrote it: the `context` of a delivery.
    pub fn written(&self) -> &Bytes {
        match self {
            Filter::Dotted(dotted) => dotted.written(),
            Filter::Exact(bytes)
            | Filter::Shard(bytes)
            | Filter::Room(bytes)
            | Filter::Glob(bytes) => bytes,
        }
    }

    /// The same filter in memory of its own. What lives long takes this copy; a filter as it was read is a
    /// slice of the message that it came in, and would keep all of it.
    pub fn detached(&self) -> Filter {
        let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        match self {
            Filter::Dotted(dotted) => Filter::Dotted(dotted.detached()),
            Filter::Exact(name) => Filter::Exact(copy(name)),
            Filter::Shard(name) => Filter::Shard(copy(name)),
            Filter::Room(name) => Filter::Room(copy(name)),
            Filter::Glob(pattern) => Filter::Glob(copy(pattern)),
        }
    }

    /// Does a message to this topic reach a subscription to this filter?
    pub fn matches(&self, topic: &Topic) -> bool {
        let is_shard = matches!(self, Filter::Shard(_));
        is_shard == topic.is_shard() && self.matches_name(topic.as_bytes())
    }

    /// Is a right to this filter's names a right to this topic? As [`Filter::matches`], with shard channels and other
    /// topics of one name taken for the same.
    pub fn speaks_of(&self, topic: &Topic) -> bool {
        self.matches_name(topic.as_bytes())
    }

    /// Does it match this name, whichever space the name is in?
    pub fn matches_name(&self, name: &[u8]) -> bool {
        match self {
            Filter::Dotted(dotted) => is_dotted(name) && dotted.matches(name),
            Filter::Exact(own) | Filter::Shard(own) => own == name,
            Filter::Room(_) => false,
            Filter::Glob(pattern) => glob::matches(pattern, name),
        }
    }

    /// Does this filter match every topic that `other` matches? May say no where the answer is yes (of two
    /// different globs it does), never yes where it is no.
    pub fn covers(&self, other: &Filter) -> bool {
        match (self.meaning(), other.meaning()) {
            (Meaning::Room(a), Meaning::Room(b)) => a == b,
            (Meaning::Room(_), _) | (_, Meaning::Room(_)) => false,
            (Meaning::One(a), Meaning::One(b)) => a == b,
            (Meaning::One(_), Meaning::Branch(_) | Meaning::Shape(_)) => false,
            (Meaning::Branch(dotted), Meaning::One(name)) => {
                is_dotted(&name) && dotted.matches(&name)
            }
            (Meaning::Branch(a), Meaning::Branch(b)) => a.covers(b),
            // Globs see names that are no dotted topics.
            (Meaning::Branch(_), Meaning::Shape(_)) => false,
            (Meaning::Shape(pattern), Meaning::One(name)) => glob::matches(pattern, &name),
            // `*` is all names but the empty one, which none of the two on the right matches: a glob that
            // matches it is the empty one, and that is `One`.
            (Meaning::Shape(pattern), Meaning::Branch(_)) => glob::is_stars(pattern),
            (Meaning::Shape(a), Meaning::Shape(b)) => a == b || glob::is_stars(a),
        }
    }

    /// Might some topic be matched by both? May say yes where the answer is no, never no where it is yes.
    pub fn overlaps(&self, other: &Filter) -> bool {
        match (self.meaning(), other.meaning()) {
            (Meaning::Room(a), Meaning::Room(b)) => a == b,
            (Meaning::Room(_), _) | (_, Meaning::Room(_)) => false,
            (Meaning::One(a), Meaning::One(b)) => a == b,
            (Meaning::One(name), Meaning::Branch(dotted))
            | (Meaning::Branch(dotted), Meaning::One(name)) => {
                is_dotted(&name) && dotted.matches(&name)
            }
            (Meaning::One(name), Meaning::Shape(pattern))
            | (Meaning::Shape(pattern), Meaning::One(name)) => glob::matches(pattern, &name),
            (Meaning::Branch(a), Meaning::Branch(b)) => a.overlaps(b),
            (Meaning::Branch(dotted), Meaning::Shape(pattern))
            | (Meaning::Shape(pattern), Meaning::Branch(dotted)) => {
                agree(dotted.literal(), &glob::split_literal(pattern).0)
            }
            (Meaning::Shape(a), Meaning::Shape(b)) => {
                agree(&glob::split_literal(a).0, &glob::split_literal(b).0)
            }
        }
    }

    /// The same set of topics, whatever kind of filter says it.
    fn meaning(&self) -> Meaning<'_> {
        match self {
            Filter::Exact(name) | Filter::Shard(name) => Meaning::One(Cow::Borrowed(name)),
            Filter::Room(name) => Meaning::Room(name),
            Filter::Dotted(dotted)
                if dotted.is_one_depth() && dotted.literal() == dotted.path() =>
            {
                Meaning::One(Cow::Borrowed(dotted.path()))
            }
            Filter::Dotted(dotted) => Meaning::Branch(dotted),
            Filter::Glob(pattern) => match glob::split_literal(pattern) {
                (name, []) => Meaning::One(Cow::Owned(name)),
                _ => Meaning::Shape(pattern),
            },
        }
    }
}

/// The topics of a filter: one name (an exact filter, `=a.b`, a glob without wildcards), a branch, a shape; a room is
/// no topic.
enum Meaning<'f> {
    Room(&'f [u8]),
    One(Cow<'f, [u8]>),
    Branch(&'f Dotted),
    Shape(&'f [u8]),
}

/// Can one name begin with both?
fn agree(a: &[u8], b: &[u8]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `dotted`, or with a prefix: `exact:name`, `glob:pattern`.
    fn filter(text: &str) -> Filter {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        match text.split_once(':') {
            Some(("exact", name)) => Filter::exact(bytes(name)).unwrap(),
            Some(("shard", name)) => Filter::shard(bytes(name)).unwrap(),
            Some(("room", name)) => Filter::room(bytes(name)).unwrap(),
            Some(("glob", pattern)) => Filter::glob(bytes(pattern)).unwrap(),
            _ => Filter::dotted(bytes(text)).unwrap(),
        }
    }

    /// Asks about `subject` and each word.
    fn check(subject: &str, yes: &str, no: &str, ask: impl Fn(&Filter, &str) -> bool) {
        for (words, expected) in [(yes, true), (no, false)] {
            for word in words.split(' ') {
                assert_eq!(
                    ask(&filter(subject), word),
                    expected,
                    "{subject} and {word}"
                );
            }
        }
    }

    #[test]
    fn filters_are_checked() {
        let deep = ["*"; 32].join(".");
        let long = format!("={}", "x".repeat(255));
        for written in [
            "a", "=a", "*", "=*", "a.*", "=a.*.b", "a*", "a.=b", "a.$b", "a.==", &deep, &long,
        ] {
            let filter = filter(written);
            assert_eq!(filter.written(), written);
            assert_eq!(filter.detached(), filter);
        }
        for (written, reason) in [
            ("", "the topic is empty"),
            ("=", "the topic is empty"),
            ("==a", "only one leading `=` is allowed"),
            ("$a", "a leading `$` is reserved"),
            ("=$a", "a leading `$` is reserved"),
            ("a..b", "the topic has an empty level"),
            ("a.*.", "the topic has an empty level"),
            ("a.\n", "the topic has a control character"),
            (&format!("{deep}.*"), "the topic has more than 32 levels"),
            (&format!("{long}x"), "the topic is longer than 255 bytes"),
        ] {
            let error = Filter::dotted(Bytes::copy_from_slice(written.as_bytes())).unwrap_err();
            assert_eq!(error.as_str(), reason, "{written}");
        }
        let error = Filter::dotted(Bytes::from_static(b"\xff")).unwrap_err();
        assert_eq!(error.as_str(), "the topic is not UTF-8");
        assert!(Filter::exact(vec![0xff; 1024].into()).is_ok());
        assert!(Filter::exact(vec![0; 1025].into()).is_err());
        assert!(Filter::glob(vec![0xff; 255].into()).is_ok());
        assert!(Filter::glob(vec![0; 256].into()).is_err());
    }

    #[test]
    fn filters_match() {
        for (written, yes, no) in [
            ("a.b", "a.b a.b.c a.b.c.d", "a a.bc b.a.b x a.b. a.b..c"),
            ("=a.b", "a.b", "a a.b.c =a.b"),
            ("a.*", "a.b a.b.c", "a b.a"),
            ("=a.*", "a.b a.*b", "a a.b.c"),
            ("*", "a a.b *a", "* =a $a a\n a..b"),
            ("=*", "a *a", "a.b *"),
            ("*.b", "a.b a.b.c", "b a.c.b"),
            ("=*.*.c", "a.b.c", "b.c a.b.d a.b.c.d"),
            ("a*", "a* a*.b", "ab"),
            ("exact:a.b", "a.b", "a.b.c a"),
            ("exact:a.*", "a.*", "a.b"),
            ("exact:", "", "a"),
            ("glob:a.*", "a.b a.b.c a. a.\n", "a"),
            ("glob:*", "a = $a..", ""),
        ] {
            check(written, yes, no, |filter, name| {
                filter.matches(&Topic::channel(Bytes::copy_from_slice(name.as_bytes())).unwrap())
            });
        }
    }

    #[test]
    fn shard_channels_are_a_space_of_their_own_and_no_way_around_rights() {
        let name = || Bytes::from_static(b"a.b");
        let (shard, topic) = (
            Topic::shard(name()).unwrap(),
            Topic::channel(name()).unwrap(),
        );
        for written in ["a.b", "a", "*", "exact:a.b", "glob:a*"] {
            let filter = filter(written);
            assert!(
                filter.matches(&topic) && !filter.matches(&shard),
                "{written}"
            );
            assert!(
                filter.speaks_of(&topic) && filter.speaks_of(&shard),
                "{written}"
            );
        }
        let own = filter("shard:a.b");
        assert!(own.matches(&shard) && !own.matches(&topic));
        assert!(filter("a").covers(&own) && filter("a.*").overlaps(&own));
        assert!(!filter("b").covers(&own) && !filter("b").overlaps(&own));
        assert_eq!(own.detached(), own);
        assert!(Filter::shard(vec![0; 1025].into()).is_err());
    }

    #[test]
    fn a_room_is_no_topic_and_nobody_s_right() {
        let room = filter("room:a.b");
        for topic in [Topic::channel, Topic::shard] {
            let topic = topic(Bytes::from_static(b"a.b")).unwrap();
            assert!(!room.matches(&topic) && !room.speaks_of(&topic));
        }
        for written in [
            "a.b",
            "a",
            "*",
            "exact:a.b",
            "shard:a.b",
            "glob:*",
            "room:a",
        ] {
            let other = filter(written);
            assert!(!other.covers(&room) && !room.covers(&other), "{written}");
            assert!(
                !other.overlaps(&room) && !room.overlaps(&other),
                "{written}"
            );
        }
        assert!(room.covers(&room) && room.overlaps(&room));
        assert_eq!(
            (room.detached(), room.written()),
            (room.clone(), &Bytes::from_static(b"a.b"))
        );
        assert!(
            Filter::room(vec![0; 1024].into()).is_ok()
                && Filter::room(vec![0; 1025].into()).is_err()
        );
    }

    #[test]
    fn specific_filters_come_first() {
        let order = "exact:a.b.c =a.b.c =a.b.* =a.*.c =a.*.* =*.b.c =*.*.* a.b.c a.b.* a.*.c *.b.c *.*.* \
                     a.b a.* *.b *.* a * glob:* glob:a* glob:a.*";
        let ordered: Vec<Filter> = order.split(' ').map(filter).collect();
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                assert_eq!(a.cmp(b), i.cmp(&j), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn filters_cover() {
        for (covering, covered, not) in [
            (
                "a",
                r"a =a a.b a.* =a.* =a.*.c exact:a exact:a.b glob:a glob:a\.b",
                "* =* b ab *.a exact:b exact:ab exact:a. exact:a.* glob:a* glob:a.* glob:*",
            ),
            ("a.*", "a.* a.b =a.* a.*.c exact:a.b", "a =a *.b exact:a"),
            ("=a.*", "=a.* =a.b exact:a.b", "a.* a.b =a =a.b.c =*.b"),
            ("=a.b", "=a.b exact:a.b glob:a.b", "a.b =a.*"),
            (
                "*",
                "* =* a.b *.* exact:a.b",
                "glob:* exact: exact:$a exact:=a exact:a..b",
            ),
            ("*.b", "*.b a.b =a.b.c", "* a a.*"),
            (
                "exact:a.b",
                "exact:a.b =a.b glob:a.b",
                "a.b exact:a glob:a.* =a.*",
            ),
            ("exact:*", r"glob:\* exact:*", "* glob:*"),
            (
                "glob:*",
                "glob:* glob:** * =a a.b exact:x glob:a* glob:[a]",
                "exact: glob:",
            ),
            (
                "glob:a*",
                "glob:a* exact:ab =ab glob:ab",
                "a exact:b glob:*",
            ),
            ("glob:", "glob: exact:", "glob:* *"),
        ] {
            check(covering, covered, not, |a, b| a.covers(&filter(b)));
        }
    }

    #[test]
    fn filters_overlap() {
        for (a, yes, no) in [
            (
                "a",
                "a =a a.b * =* *.b =*.b exact:a exact:a.b glob:a* glob:* glob:?",
                "b =b b.* exact:b exact:a. glob:b* glob:b",
            ),
            ("=a", "a * =* glob:?", "a.b *.* =a.b exact:a.b glob:a?"),
            (
                "a.*",
                "*.b a a.b.c =a.b glob:a.x* glob:a*",
                "=a =* b.* exact:a glob:b* glob:ab*",
            ),
            ("=a.*", "*.b a =*.b glob:a.[x]", "a.b.c *.*.c =a"),
            ("exact:xy", "exact:xy glob:x* xy", "exact:x glob:y* y"),
            (
                "glob:ab*",
                "glob:a* glob:abc? glob:*z",
                "glob:b* glob:b exact:a",
            ),
            (r"glob:a\*", r"exact:a* glob:a\* glob:a?", "exact:ab"),
        ] {
            check(a, yes, no, |a, b| a.overlaps(&filter(b)));
            check(a, yes, no, |a, b| filter(b).overlaps(a));
        }
    }
}
