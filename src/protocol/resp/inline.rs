//! The words of an inline command, by the quoting rules of Redis (`sdssplitargs`).
//!
//! Words stand between white space. Inside of `"` the escapes `\n`, `\r`, `\t`, `\b`, `\a` and `\xHH` mean a byte, and
//! a backslash before any other byte means that byte; inside of `'` only `\'` does. A quote may begin in the middle of
//! a word, but where it closes the word ends.
//!
//! One departure: to Redis, whose strings end there, a zero byte is the end of all it looks at, and the command hangs.
//! Here it is a byte as any other.

/// A quote is not closed, or a word goes on after one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unbalanced;

/// What is left of a line.
#[derive(Debug)]
pub(super) struct Words<'a> {
    rest: &'a [u8],
}

impl<'a> Words<'a> {
    /// The words of a line, which is given without its end.
    pub(super) fn of(line: &'a [u8]) -> Words<'a> {
        Words { rest: line }
    }

    /// Appends the next word to `out`; false if there is none.
    pub(super) fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, Unbalanced> {
        while let Some(rest) = self.after(is_space) {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return Ok(false);
        }
        while let Some((&byte, rest)) = self.rest.split_first() {
            match byte {
                // Not every white space that may stand before a word ends one: `isspace` has two more.
                b' ' | b'\n' | b'\r' | b'\t' => break,
                b'"' | b'\'' => {
                    self.rest = rest;
                    self.quoted(byte, out)?;
                    break;
                }
                _ => {
                    out.push(byte);
                    self.rest = rest;
                }
            }
        }
        Ok(true)
    }

    /// Appends what comes up to the closing quote, after which the word has to end.
    fn quoted(&mut self, quote: u8, out: &mut Vec<u8>) -> Result<(), Unbalanced> {
        loop {
            let (byte, rest) = match (quote, self.rest) {
                (_, []) => return Err(Unbalanced),
                (b'"', [b'\\', b'x', high, low, rest @ ..])
                    if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
                {
                    (hex(*high) << 4 | hex(*low), rest)
                }
                (b'"', [b'\\', escaped, rest @ ..]) => (unescaped(*escaped), rest),
                (b'\'', [b'\\', b'\'', rest @ ..]) => (b'\'', rest),
                (_, [byte, rest @ ..]) if *byte == quote => {
                    self.rest = rest;
                    let is_end = rest.is_empty() || self.after(is_space).is_some();
                    return if is_end { Ok(()) } else { Err(Unbalanced) };
                }
                (_, [byte, rest @ ..]) => (*byte, rest),
            };
            out.push(byte);
            self.rest = rest;
        }
    }

    /// What comes after the next byte, if that is of this kind.
    fn after(&self, kind: impl Fn(u8) -> bool) -> Option<&'a [u8]> {
        let (&byte, rest) = self.rest.split_first()?;
        kind(byte).then_some(rest)
    }
}

/// C's `isspace`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

fn unescaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        _ => byte,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, Unbalanced> {
        let mut words = Words::of(line);
        let mut found = Vec::new();
        loop {
            let mut word = Vec::new();
            if !words.next(&mut word)? {
                assert!(word.is_empty());
                return Ok(found);
            }
            found.push(word);
        }
    }

    #[test]
    fn words_are_those_that_redis_sees() {
        let check = |line: &[u8], expected: &[&[u8]]| {
            let found = words(line).expect("balanced");
            assert_eq!(found, expected, "{}", line.escape_ascii());
        };
        check(b"", &[]);
        check(b" \t\x0b\x0c\r\n ", &[]);
        check(b"PING", &[b"PING"]);
        check(b"  PING   x  ", &[b"PING", b"x"]);
        check(b"PING\r", &[b"PING"]);
        check(b"a \xff\x00\x80", &[b"a", b"\xff\x00\x80"]);
        // White space that begins a word does not always end one.
        check(b"\x0ba\x0bb\x0cc", &[b"a\x0bb\x0cc"]);
        check(b"\"a b\"", &[b"a b"]);
        check(b"a\"b c\"", &[b"ab c"]);
        check(b"\"\" '' x", &[b"", b"", b"x"]);
        check(b"\"a\"\x0bb", &[b"a", b"b"]);
        check(br#""a\x41\n\r\t\b\a\q\"'""#, &[b"aA\n\r\t\x08\x07q\"'"]);
        check(br#""\xzz\xAf\xg\x0\\""#, &[b"xzz\xafxgx0\\"]);
        check(br#"'a\x41\n\'"'"#, &[br#"a\x41\n'""#]);
        check(br"a\nb\", &[br"a\nb\"]);
    }

    #[test]
    fn quotes_are_closed_and_end_their_word() {
        for line in [
            &b"\"abc"[..],
            b"'abc",
            b"a 'b",
            b"\"a\"b",
            b"'a'b",
            b"a\"b\"c",
            b"\"\"\"\"",
            b"\"a\\\"",
            b"'a\\'",
            b"\"\\",
            b"\"",
            b"'",
            b"\"a\"\x00",
        ] {
            assert_eq!(words(line), Err(Unbalanced), "{}", line.escape_ascii());
        }
    }
}
