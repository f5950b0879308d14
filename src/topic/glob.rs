//! Glob patterns as Redis has them (PSUBSCRIBE): `*` any bytes, `?` one byte, `[a-z]` one of these, `[^a]`
//! none of these, `\x` the byte x.
//!
//! Everything but `*` takes exactly one byte. So when the bytes after a `*` do not fit, only the last `*` need
//! take one byte more; the stars before it have already found the earliest place where their part fits, and
//! a later place would leave less room. One place to return to, no recursion; that is the plain version, and
//! for the patterns that people write it reads each byte about once.
//!
//! Against `*aaa...ab` and a name of `a` alone it is quadratic: 0.3 ms for one pattern of 255 bytes and one name
//! of 1024, and a client may have a hundred patterns. So it has a budget, linear in both sizes; past it, all
//! places in the pattern where the match could be are followed at once, one bit each, in one pass over the name.
//!
//! Kept from Redis: an empty name is matched by the empty pattern only, not by `*`; a range may be written
//! backwards; a class without its `]` ends with the pattern; `]` right after `[` ends the class. Not kept:
//! ranges of signed bytes, which Redis has on some machines.

use std::ops::RangeInclusive;

/// Does the whole name match?
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.is_empty() {
        return pattern.is_empty();
    }
    match_with_retries(pattern, name, 4 * (pattern.len() + name.len()))
        .unwrap_or_else(|| match_at_once(pattern, name))
}

/// The plain version. Nothing if it would take more steps than these.
fn match_with_retries(pattern: &[u8], name: &[u8], steps_max: usize) -> Option<bool> {
    let (mut pattern, mut name) = (pattern, name);
    let mut retry = None;
    let mut steps = 0..steps_max;
    while let [byte, name_rest @ ..] = name {
        steps.next()?;
        if let [b'*', rest @ ..] = pattern {
            if rest.is_empty() {
                return Some(true);
            }
            pattern = rest;
            retry = Some((pattern, name_rest));
        } else if let Some(rest) = take_byte(pattern, *byte) {
            (pattern, name) = (rest, name_rest);
        } else if let Some((after_star, later)) = retry {
            (pattern, name) = (after_star, later);
            retry = Some((after_star, later.get(1..).unwrap_or_default()));
        } else {
            return Some(false);
        }
    }
    Some(is_stars(pattern))
}

/// The most elements (all but `*`) that [`match_at_once`] follows: one less than it has bits.
const ELEMENTS_MAX: usize = 255;

/// A set of places in a pattern: place i is after i elements.
type Places = [u64; 4];

/// The version for hostile patterns. At several microseconds for its table it would not do for the others.
fn match_at_once(pattern: &[u8], name: &[u8]) -> bool {
    // By byte: the places whose next element takes it. And those that a `*` lets stay whatever comes.
    let mut taken_at = [Places::default(); 256];
    let mut stay = Places::default();
    let mut count = 0;
    let mut pattern = pattern;
    while let [first, rest @ ..] = pattern {
        let (word, bit) = (count / 64, 1 << (count % 64));
        if *first == b'*' {
            stay[word] |= bit;
            pattern = rest;
            continue;
        }
        if count == ELEMENTS_MAX {
            // No checked pattern is as long.
            return false;
        }
        let mut members = [false; 256];
        pattern = match pattern {
            [b'?', rest @ ..] => {
                members = [true; 256];
                rest
            }
            [b'[', class @ ..] => {
                let negated = class.first() == Some(&b'^');
                let mut class = &class[usize::from(negated)..];
                while let (Some(range), rest) = split_range(class) {
                    members[usize::from(*range.start())..=usize::from(*range.end())].fill(true);
                    class = rest;
                }
                if negated {
                    members.iter_mut().for_each(|member| *member = !*member);
                }
                split_range(class).1
            }
            [b'\\', literal, rest @ ..] | [literal, rest @ ..] => {
                // No member, but this one bit: most elements are these.
                taken_at[usize::from(*literal)][word] |= bit;
                rest
            }
            [] => unreachable!("there was a first byte"),
        };
        if members.contains(&true) {
            for (places, _) in taken_at
                .iter_mut()
                .zip(members)
                .filter(|(_, member)| *member)
            {
                places[word] |= bit;
            }
        }
        count += 1;
    }
    let mut places = Places::default();
    places[0] = 1;
    for &byte in name {
        let taken = &taken_at[usize::from(byte)];
        let mut carry = 0;
        for word in 0..places.len() {
            let moving = places[word] & taken[word];
            places[word] = places[word] & stay[word] | moving << 1 | carry;
            carry = moving >> 63;
        }
    }
    places[count / 64] >> (count % 64) & 1 == 1
}

/// Nothing but `*`, or nothing at all.
pub(super) fn is_stars(pattern: &[u8]) -> bool {
    pattern.iter().all(|&byte| byte == b'*')
}

/// What every match begins with, and the pattern of what follows it. With nothing to follow, it is the only
/// match.
pub(super) fn split_literal(pattern: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut literal = Vec::new();
    let mut pattern = pattern;
    loop {
        match pattern {
            [] | [b'*' | b'?' | b'[', ..] => return (literal, pattern),
            [b'\\', byte, rest @ ..] | [byte, rest @ ..] => {
                literal.push(*byte);
                pattern = rest;
            }
        }
    }
}

/// The pattern after its first element, if that is not a `*` and takes this byte.
fn take_byte(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [] => None,
        [b'?', rest @ ..] => Some(rest),
        [b'[', b'^', class @ ..] => {
            let (found, rest) = find_in_class(class, byte);
            (!found).then_some(rest)
        }
        [b'[', class @ ..] => {
            let (found, rest) = find_in_class(class, byte);
            found.then_some(rest)
        }
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => (*literal == byte).then_some(rest),
    }
}

/// Is the byte in the class that ends at `]` or with the pattern? And the pattern after it.
fn find_in_class(class: &[u8], byte: u8) -> (bool, &[u8]) {
    let mut class = class;
    let mut found = false;
    loop {
        let (range, rest) = split_range(class);
        class = rest;
        match range {
            Some(range) => found |= range.contains(&byte),
            None => return (found, class),
        }
    }
}

/// The first member or range of a class, nothing at the class' end; and the pattern after it, or after the end.
fn split_range(class: &[u8]) -> (Option<RangeInclusive<u8>>, &[u8]) {
    match class {
        [] => (None, class),
        [b'\\', member, rest @ ..] => (Some(*member..=*member), rest),
        [b']', rest @ ..] => (None, rest),
        [a, b'-', b, rest @ ..] => (Some(*a.min(b)..=*a.max(b)), rest),
        [member, rest @ ..] => (Some(*member..=*member), rest),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The obvious twin: at a `*`, try every rest of the name.
    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        fn parts(pattern: &[u8], name: &[u8]) -> bool {
            match (pattern, name) {
                ([], _) => name.is_empty(),
                ([b'*', rest @ ..], _) => (0..=name.len()).any(|skip| parts(rest, &name[skip..])),
                (_, []) => false,
                (_, [byte, name @ ..]) => match pattern {
                    [b'?', rest @ ..] => parts(rest, name),
                    [b'[', rest @ ..] => {
                        let (negated, mut at) = match rest {
                            [b'^', ..] => (true, 1),
                            _ => (false, 0),
                        };
                        let mut found = false;
                        while at < rest.len() && rest[at] != b']' {
                            if rest[at] == b'\\' && at + 1 < rest.len() {
                                found |= rest[at + 1] == *byte;
                                at += 2;
                            } else if at + 2 < rest.len() && rest[at + 1] == b'-' {
                                let mut ends = [rest[at], rest[at + 2]];
                                ends.sort();
                                found |= ends[0] <= *byte && *byte <= ends[1];
                                at += 3;
                            } else {
                                found |= rest[at] == *byte;
                                at += 1;
                            }
                        }
                        found != negated && parts(rest.get(at + 1..).unwrap_or_default(), name)
                    }
                    [b'\\', literal, rest @ ..] => literal == byte && parts(rest, name),
                    [literal, rest @ ..] => literal == byte && parts(rest, name),
                    [] => unreachable!("the empty pattern was the first case"),
                },
            }
        }
        match name {
            [] => pattern.is_empty(),
            _ => parts(pattern, name),
        }
    }

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, yes, no) in [
            ("", &[""][..], &["a"][..]),
            ("*", &["a", "a.b", "a\nb"], &[""]),
            ("**", &["a", "ab"], &[""]),
            ("h?llo", &["hello", "hallo", "h*llo"], &["hllo", "heello"]),
            ("h*llo", &["hllo", "heeeello"], &["hllo!", "ello"]),
            ("h[ae]llo", &["hello", "hallo"], &["hillo", "hllo"]),
            ("h[^e]llo", &["hallo", "hbllo"], &["hello", "hllo"]),
            ("h[a-b]llo", &["hallo", "hbllo"], &["hcllo"]),
            ("h[b-a]llo", &["hallo", "hbllo"], &["hcllo"]),
            (
                "news.*",
                &["news.uk", "news.uk.london", "news."],
                &["news", "newsx"],
            ),
            (
                "socket.io#/#*",
                &["socket.io#/#", "socket.io#/#room#"],
                &["socket.io#/"],
            ),
            (r"a\*b", &["a*b"], &["axb", r"a\*b"]),
            (r"a\[b", &["a[b"], &["ab"]),
            (r"a\", &[r"a\"], &["a"]),
            (r"[\]]x", &["]x"], &[r"\]x", "x"]),
            (r"[a\-z]", &["a", "-", "z"], &["b", r"\"]),
            (r"[\", &[r"\"], &["["]),
            ("[", &[], &["[", "a"]),
            ("[^", &["a", "^"], &["", "ab"]),
            ("[]a", &[], &["a", "]a", "]"]),
            ("[^]a", &["xa"], &["a", "x"]),
            ("[ab", &["a", "b"], &["ab", "c"]),
            ("[a-", &["a", "-"], &["b"]),
            ("[a-]", &["a", "]", "_"], &["-", "b"]),
            ("[*]", &["*"], &["a"]),
            ("a*b*c", &["abc", "axbxc", "abcbc"], &["acb", "abcx"]),
            ("*a", &["a", "aa", "baa"], &["ab"]),
            (
                "*ab*ab",
                &["abab", "ababab", "xabxab"],
                &["ab", "aba", "xabxa"],
            ),
            ("a]", &["a]"], &["a"]),
        ] {
            for (names, expected) in [(yes, true), (no, false)] {
                for name in names {
                    assert_eq!(
                        matches(pattern.as_bytes(), name.as_bytes()),
                        expected,
                        "{pattern} {name}"
                    );
                    assert_eq!(
                        naive(pattern.as_bytes(), name.as_bytes()),
                        expected,
                        "twin: {pattern} {name}"
                    );
                }
            }
        }
        assert!(matches(b"[a-\xff]?", b"\xfe\0"));
    }

    #[test]
    fn literals_end_at_the_first_wildcard() {
        for (pattern, literal, rest) in [
            ("", "", ""),
            ("abc", "abc", ""),
            (r"a\*b*", "a*b", "*"),
            (r"a\\?", r"a\", "?"),
            (r"a\", r"a\", ""),
            ("a[b]", "a", "[b]"),
            ("a]b", "a]b", ""),
        ] {
            assert_eq!(
                split_literal(pattern.as_bytes()),
                (literal.into(), rest.as_bytes()),
                "{pattern}"
            );
        }
    }

    #[test]
    fn hostile_patterns_are_linear() {
        let name = [b'a'; 1024];
        for (pattern, expected, plain) in [
            ("a*".repeat(127) + "b", false, true),
            ("*".to_owned() + &"a".repeat(253) + "b", false, false),
            ("*".to_owned() + &"a".repeat(254), true, false),
            ("*".to_owned() + &"[^b]".repeat(63) + "b", false, false),
            ("*[^b]".repeat(51), true, true),
            ("?".repeat(255), false, true),
            ("*".to_owned() + &"?".repeat(254), true, false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), &name), expected, "{pattern}");
            assert_eq!(
                match_at_once(pattern.as_bytes(), &name),
                expected,
                "{pattern}"
            );
            let steps_max = 4 * (pattern.len() + name.len());
            assert_eq!(
                match_with_retries(pattern.as_bytes(), &name, steps_max).is_some(),
                plain,
                "{pattern}"
            );
        }
        assert!(match_at_once(&[b'?'; 255], &[b'x'; 255]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn matches_as_the_naive_twin(
            pattern in proptest::collection::vec(prop::sample::select(&b"aabbc*?[]^-\\"[..]), 0..12),
            name in proptest::collection::vec(prop::sample::select(&b"aaabbbc]^-\\*"[..]), 0..12),
        ) {
            let expected = naive(&pattern, &name);
            prop_assert_eq!(matches(&pattern, &name), expected);
            if !name.is_empty() {
                prop_assert_eq!(match_with_retries(&pattern, &name, usize::MAX), Some(expected));
                prop_assert_eq!(match_at_once(&pattern, &name), expected);
            }
            let (literal, rest) = split_literal(&pattern);
            if rest.is_empty() {
                prop_assert!(matches(&pattern, &literal));
                prop_assert_eq!(matches(&pattern, &name), literal == name);
            } else if matches(&pattern, &name) {
                prop_assert!(name.starts_with(&literal));
            }
        }
    }
}
