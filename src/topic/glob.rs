//! Glob patterns as Redis has them (PSUBSCRIBE): `*` any bytes, `?` one byte, `[a-z]` one of these, `[^a]`
//! none of these, `\x` the byte x.
//!
//! Everything but `*` takes exactly one byte. So when the bytes after a `*` do not fit, only the last `*` need
//! take one byte more; the stars before it have already found the earliest place where their part fits, and
//! a later place would leave less room. One place to return to, no recursion: a pattern of p bytes against a
//! name of n costs at most p times n steps, whoever wrote it.
//!
//! Kept from Redis: an empty name is matched by the empty pattern only, not by `*`; a range may be written
//! backwards; a class without its `]` ends with the pattern; `]` right after `[` ends the class. Not kept:
//! ranges of signed bytes, which Redis has on some machines.

/// Does the whole name match?
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.is_empty() {
        return pattern.is_empty();
    }
    let (mut pattern, mut name) = (pattern, name);
    let mut retry = None;
    while let [byte, name_rest @ ..] = name {
        if let [b'*', rest @ ..] = pattern {
            if rest.is_empty() {
                return true;
            }
            pattern = rest;
            retry = Some((pattern, name_rest));
        } else if let Some(rest) = take_byte(pattern, *byte) {
            (pattern, name) = (rest, name_rest);
        } else if let Some((after_star, later)) = retry {
            (pattern, name) = (after_star, later);
            retry = Some((after_star, later.get(1..).unwrap_or_default()));
        } else {
            return false;
        }
    }
    is_stars(pattern)
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
        let (range, rest) = match class {
            [] => return (found, class),
            [b'\\', member, rest @ ..] => (*member..=*member, rest),
            [b']', rest @ ..] => return (found, rest),
            [a, b'-', b, rest @ ..] => (*a.min(b)..=*a.max(b), rest),
            [member, rest @ ..] => (*member..=*member, rest),
        };
        found |= range.contains(&byte);
        class = rest;
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
    fn hostile_patterns_come_to_an_end() {
        // A matcher that tries every split would outlive us here.
        let name = [b'a'; 1024];
        for pattern in [
            "a*".repeat(127) + "b",
            "*".to_owned() + &"a".repeat(253) + "b",
            "*[^b]".repeat(51),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), &name),
                pattern.ends_with(']'),
                "{pattern}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn matches_as_the_naive_twin(
            pattern in proptest::collection::vec(prop::sample::select(&b"aabbc*?[]^-\\"[..]), 0..12),
            name in proptest::collection::vec(prop::sample::select(&b"aaabbbc]^-\\*"[..]), 0..12),
        ) {
            prop_assert_eq!(matches(&pattern, &name), naive(&pattern, &name));
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
