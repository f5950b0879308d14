//! The scanner: is this text JSON, and where do the members of its object stand?
//!
//! The plain version is a recursive descent, one function per rule of the grammar. The one departure: open
//! arrays and objects are bits of a word instead of frames of the stack, which bounds the depth by the width of
//! the word and costs a shift per bracket.

use std::ops::Range;

use super::JsonError;
use super::string::plain_prefix;
use crate::limits::JSON_DEPTH_MAX;

const _: () = assert!(
    JSON_DEPTH_MAX <= u64::BITS as usize,
    "one bit per open array or object"
);

/// One whole JSON text of depth <= [`JSON_DEPTH_MAX`] (RFC 8259), UTF-8 included. The outermost array or object
/// is depth 1.
///
/// # Errors
/// The first byte that no JSON text has there.
pub fn validate(text: &[u8]) -> Result<(), JsonError> {
    if simdutf8::basic::from_utf8(text).is_err() {
        // The fast check does not say where; the error is rare enough to look again.
        let at = std::str::from_utf8(text)
            .err()
            .map_or(0, |error| error.valid_up_to());
        return Err(JsonError {
            at,
            reason: "a text that is not UTF-8",
        });
    }
    validate_grammar(text)
}

/// [`validate`] for a text that is known to be UTF-8 (the WebSocket layer checks it).
///
/// # Errors
/// The first byte that no JSON text has there.
pub fn validate_grammar(text: &[u8]) -> Result<(), JsonError> {
    let mut scanner = Scanner::new(text, 0);
    scanner.whitespace();
    let whole = scanner.value(0).and_then(|_| scanner.end());
    whole.map_err(|stop| scanner.error(stop))
}

/// A piece of a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Nothing, at the beginning.
    pub(crate) const EMPTY: Span = Span { start: 0, end: 0 };

    /// The bytes from `start` to before `end`.
    ///
    /// # Panics
    /// If a bound does not fit 32 bits.
    pub fn new(start: usize, end: usize) -> Span {
        let narrow =
            |bound: usize| u32::try_from(bound).expect("a span lies in a text below 4 GiB");
        Span {
            start: narrow(start),
            end: narrow(end),
        }
    }

    /// As indexes of the text.
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The piece itself; `text` is the text that was scanned.
    pub fn of(self, text: &[u8]) -> &[u8] {
        &text[self.range()]
    }

    /// The contents of a string, without its quotes.
    pub fn inside(self) -> Span {
        Span {
            start: self.start + 1,
            end: self.end - 1,
        }
    }
}

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `null`
    Null,
    /// `false`
    False,
    /// `true`
    True,
    /// A number.
    Number,
    /// A string; `escaped` if there is a backslash in it.
    String {
        /// Must [`super::unescape`] be called for its bytes?
        escaped: bool,
    },
    /// An array.
    Array,
    /// An object.
    Object,
}

/// A member of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// The key with its quotes.
    pub key: Span,
    /// Is there a backslash in the key?
    pub key_escaped: bool,
    /// The value as written.
    pub value: Span,
    /// What the value is.
    pub kind: Kind,
}

/// The members of a text that is one object, in the order written, duplicates included.
///
/// The text is valid JSON (UTF-8 apart, which is the caller's to know) if and only if the iterator ends
/// without an error; it stops at the first.
#[derive(Debug)]
pub struct Members<'a> {
    scanner: Scanner<'a>,
    next: Next,
}

#[derive(PartialEq, Eq, Debug)]
enum Next {
    Open,
    CommaOrClose,
    Nothing,
}

impl<'a> Members<'a> {
    /// The members of the object that is all of `text`.
    pub fn of(text: &'a [u8]) -> Members<'a> {
        Members {
            scanner: Scanner::new(text, 0),
            next: Next::Open,
        }
    }

    #[inline]
    fn advance(&mut self) -> Result<Option<Member>, Stop> {
        let scanner = &mut self.scanner;
        scanner.whitespace();
        match (&self.next, scanner.peek()) {
            (Next::Open, Some(b'{')) => {
                // Spans are 32 bits wide, so that a member is small.
                if u32::try_from(scanner.text.len()).is_err() {
                    return Err(scanner.stop("a text of more than 4 GiB"));
                }
                scanner.at += 1;
                scanner.whitespace();
                if scanner.peek() == Some(b'}') {
                    scanner.at += 1;
                    return scanner.end().map(|()| None);
                }
            }
            (Next::Open, _) => return Err(scanner.stop("no object")),
            (Next::CommaOrClose, Some(b',')) => {
                scanner.at += 1;
                scanner.whitespace();
            }
            (Next::CommaOrClose, Some(b'}')) => {
                scanner.at += 1;
                return scanner.end().map(|()| None);
            }
            (Next::CommaOrClose, _) => {
                return Err(scanner.stop("neither `,` nor `}` after a member"));
            }
            (Next::Nothing, _) => return Ok(None),
        }
        let key_start = scanner.at;
        let key_escaped = scanner.key()?;
        let key_end = scanner.at;
        scanner.colon()?;
        let value_start = scanner.at;
        let kind = scanner.value(1)?;
        self.next = Next::CommaOrClose;
        Ok(Some(Member {
            key: Span {
                start: key_start as u32,
                end: key_end as u32,
            },
            key_escaped,
            value: Span {
                start: value_start as u32,
                end: scanner.at as u32,
            },
            kind,
        }))
    }
}

impl Iterator for Members<'_> {
    type Item = Result<Member, JsonError>;

    #[inline]
    fn next(&mut self) -> Option<Result<Member, JsonError>> {
        if self.next == Next::Nothing {
            return None;
        }
        let member = self.advance();
        if !matches!(member, Ok(Some(_))) {
            self.next = Next::Nothing;
        }
        member.map_err(|stop| self.scanner.error(stop)).transpose()
    }
}

/// The index behind the closing quote of the string whose opening quote is at `at`, if it is a string.
pub(crate) fn string_end(text: &[u8], at: usize) -> Option<usize> {
    let mut scanner = Scanner::new(text, at);
    scanner.key().ok().map(|_| scanner.at)
}

/// A text and how far it was read. `at <= text.len()`.
#[derive(Debug)]
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    /// What is wrong at `at`, once something is.
    wrong: &'static str,
}

/// The text is not JSON; the scanner knows why. Kept apart so that the result of each step fits a register.
#[derive(Debug)]
struct Stop;

impl<'a> Scanner<'a> {
    fn new(text: &'a [u8], at: usize) -> Scanner<'a> {
        Scanner {
            text,
            at,
            wrong: "",
        }
    }

    /// One value, which starts here, inside of `outside` open arrays and objects.
    #[inline]
    fn value(&mut self, outside: usize) -> Result<Kind, Stop> {
        match self.peek() {
            Some(b'"') => self.string().map(|escaped| Kind::String { escaped }),
            Some(b'{') => self.nest(outside).map(|()| Kind::Object),
            Some(b'[') => self.nest(outside).map(|()| Kind::Array),
            _ => self.scalar(),
        }
    }

    /// One array or object, whose bracket is here, inside of `outside` others.
    #[inline(never)]
    fn nest(&mut self, outside: usize) -> Result<(), Stop> {
        // The open arrays (0) and objects (1); the innermost is the lowest bit.
        let mut open: u64 = 0;
        let mut depth = 0;
        loop {
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    if outside + depth == JSON_DEPTH_MAX {
                        return Err(self.stop("more than 64 levels"));
                    }
                    let object = bracket == b'{';
                    open = open << 1 | u64::from(object);
                    depth += 1;
                    self.at += 1;
                    self.whitespace();
                    let empty = self.peek() == Some(if object { b'}' } else { b']' });
                    if !empty {
                        if object {
                            self.key()?;
                            self.colon()?;
                        }
                        continue;
                    }
                }
                _ => {
                    self.scalar()?;
                    self.whitespace();
                }
            }
            // Behind a value, or before the closing bracket of an empty one.
            loop {
                match (self.peek(), open & 1 == 1) {
                    (Some(b'}'), true) | (Some(b']'), false) => {
                        self.at += 1;
                        open >>= 1;
                        depth -= 1;
                        if depth == 0 {
                            return Ok(());
                        }
                        self.whitespace();
                    }
                    (Some(b','), object) => {
                        self.at += 1;
                        self.whitespace();
                        if object {
                            self.key()?;
                            self.colon()?;
                        }
                        break;
                    }
                    (_, true) => return Err(self.stop("neither `,` nor `}` after a member")),
                    (_, false) => return Err(self.stop("neither `,` nor `]` after an element")),
                }
            }
        }
    }

    /// A value that holds no other.
    #[inline(never)]
    fn scalar(&mut self) -> Result<Kind, Stop> {
        match self.peek() {
            Some(b'"') => self.string().map(|escaped| Kind::String { escaped }),
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| Kind::Number),
            Some(b't') => self.word(b"true").map(|()| Kind::True),
            Some(b'f') => self.word(b"false").map(|()| Kind::False),
            Some(b'n') => self.word(b"null").map(|()| Kind::Null),
            Some(_) => Err(self.stop("no value")),
            None => Err(self.stop("an end where a value belongs")),
        }
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), Stop> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.stop("no value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// RFC 8259, section 6: `-`? int frac? exp?
    fn number(&mut self) -> Result<(), Stop> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if let Some(b'0'..=b'9') = self.peek() {
                return Err(self.stop("a number with a leading zero"));
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), Stop> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start {
            Err(self.stop("a number without a digit"))
        } else {
            Ok(())
        }
    }

    fn key(&mut self) -> Result<bool, Stop> {
        if self.peek() != Some(b'"') {
            return Err(self.stop("no key"));
        }
        self.string()
    }

    fn colon(&mut self) -> Result<(), Stop> {
        self.whitespace();
        if self.peek() != Some(b':') {
            return Err(self.stop("no `:` after a key"));
        }
        self.at += 1;
        self.whitespace();
        Ok(())
    }

    /// A string, whose opening quote is here; true if there is a backslash in it.
    fn string(&mut self) -> Result<bool, Stop> {
        let inside = &self.text[self.at + 1..];
        let plain = plain_prefix(inside);
        self.at += 1 + plain;
        if inside.get(plain) == Some(&b'"') {
            self.at += 1;
            return Ok(false);
        }
        self.rest_of_string()
    }

    /// The rest of a string from its first byte on that is not plain and not the closing quote.
    #[inline(never)]
    fn rest_of_string(&mut self) -> Result<bool, Stop> {
        let mut escaped = false;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.stop("a control character in a string")),
                None => return Err(self.stop("an end inside of a string")),
            }
            self.at += plain_prefix(&self.text[self.at..]);
        }
    }

    fn escape(&mut self) -> Result<(), Stop> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                let digits = self.text.get(self.at + 1..self.at + 5);
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return Err(self.stop("`\\u` without four hexadecimal digits"));
                }
                self.at += 5;
                Ok(())
            }
            _ => Err(self.stop("an unknown escape")),
        }
    }

    #[inline]
    fn whitespace(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Nothing but whitespace may follow.
    fn end(&mut self) -> Result<(), Stop> {
        self.whitespace();
        if self.at == self.text.len() {
            Ok(())
        } else {
            Err(self.stop("something after the end"))
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[cold]
    fn stop(&mut self, wrong: &'static str) -> Stop {
        self.wrong = wrong;
        Stop
    }

    fn error(&self, _: Stop) -> JsonError {
        JsonError {
            at: self.at,
            reason: self.wrong,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One JSON text a line.
    const SOUND: &str = r##"
null
0
-0
-0.0e+10
1E5
10.25e-3
1e999
""
"a"
[]
[ ]
{}
{ }
[[],{},[{}]]
{"a":1}
{"a":1,"a":2}
{"":{"":[]}}
"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"
"\ud800"
"\uDEAD\u0000"
{"a" : [ 1 , { "b" : "]}" } ] , "c" : null }
"##;

    /// No JSON text on any line.
    const GARBLED: &str = r##"
nul
nulll
True
NaN
-NaN
Infinity
-Infinity
undefined
+1
-
--1
01
-01
00
1.
.5
1.e5
1e
1e+
0x10
1_000
1 2
1,
'a'
"
"a
"a\"
"\
"\x41"
"\u12"
"\u12g4"
"\u+123"
"\U0041"
"\a"
[
]
[1
[1,
[1,]
[,1]
[,]
[1 2]
[1}
{
}
{"a"
{"a":
{"a":1
{"a":1,
{"a":1,}
{,}
{,"a":1}
{"a" 1}
{"a":}
{a:1}
{1:1}
{null:1}
{"a":1]
{"a":1}}
{"a":1 "b":2}
{"a"::1}
[] []
{}x
/**/1
1//
"##;

    #[test]
    fn texts_that_are_json() {
        for text in SOUND.trim().lines().chain([
            " true ",
            "false\n",
            "[1, 2,\t3\r\n]",
            "\"\u{7f}\u{2028}é😀\"",
        ]) {
            assert_eq!(validate(text.as_bytes()), Ok(()), "{text}");
            assert_eq!(validate_grammar(text.as_bytes()), Ok(()), "{text}");
        }
    }

    #[test]
    fn texts_that_are_not() {
        let check = |text: &[u8]| assert!(validate(text).is_err(), "{}", text.escape_ascii());
        for text in GARBLED.trim().lines().chain([
            "",
            " ",
            "\"a\nb\"",
            "\"a\tb\"",
            "\"\0\"",
            "\"\u{1f}\"",
            "\u{feff}1",
            "\u{a0}1",
            "[1]\u{c}",
            "\u{b}1",
        ]) {
            check(text.as_bytes());
        }
        for text in [
            &b"\"\xff\""[..],
            b"\"\xc3\"",
            b"\"\xed\xa0\x80\"",
            b"\"\xc0\xaf\"",
            b"\xff",
            b"1\0",
        ] {
            check(text);
        }
        assert_eq!(validate(b"[\"\xff\"]").unwrap_err().at, 2);
        assert_eq!(
            validate(b"[1,]").unwrap_err().to_string(),
            "no value at byte 3"
        );
    }

    #[test]
    fn the_depth_is_bounded_and_costs_no_stack() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
            let width = open.matches(['[', '{']).count();
            let nest = |depth: usize| {
                let turns = depth / width;
                format!("{}1{}", open.repeat(turns), close.repeat(turns))
            };
            assert_eq!(validate(nest(64).as_bytes()), Ok(()), "{open}");
            assert!(validate(nest(64 + width).as_bytes()).is_err(), "{open}");
            assert!(validate(nest(1 << 20).as_bytes()).is_err(), "{open}");
        }
        assert_eq!(
            validate(format!("{}{}", "[".repeat(64), "]".repeat(64)).as_bytes()),
            Ok(())
        );
        assert!(validate(format!("{}{}", "[".repeat(65), "]".repeat(65)).as_bytes()).is_err());
        let members = |depth: usize| {
            Members::of(format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth)).as_bytes())
                .all(|member| member.is_ok())
        };
        assert!(members(63) && !members(64));
        // Siblings do not add up, and the kinds of outer brackets are remembered through 64 levels.
        assert_eq!(
            validate(format!("[{}1]", "[[]],".repeat(1000)).as_bytes()),
            Ok(())
        );
        assert!(
            validate(format!("{{\"a\":{}1{}]", "[".repeat(63), "]".repeat(63)).as_bytes()).is_err()
        );
    }

    #[test]
    fn members_stand_where_they_were_written() {
        let text = br#" { "a" : 1 , "b\u0062":"x\n", "c":{"d":[1, 2]} ,"a":null,"":true } "#;
        let found: Vec<_> = Members::of(text)
            .map(|member| {
                let member = member.unwrap();
                let words = |span: Span| std::str::from_utf8(span.of(text)).unwrap();
                (
                    words(member.key.inside()),
                    member.key_escaped,
                    words(member.value),
                    member.kind,
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("a", false, "1", Kind::Number),
                ("b\\u0062", true, r#""x\n""#, Kind::String { escaped: true }),
                ("c", false, r#"{"d":[1, 2]}"#, Kind::Object),
                ("a", false, "null", Kind::Null),
                ("", false, "true", Kind::True),
            ]
        );
        assert_eq!(Members::of(b" {} ").count(), 0);
        for text in [
            "",
            "[]",
            "1",
            "{} {}",
            "{\"a\":1}]",
            "{\"a\":1,}",
            "{\"a\":[}",
            "{\"a\":1",
            "{\"a\":1 x",
        ] {
            let mut members = Members::of(text.as_bytes());
            assert!(members.by_ref().any(|member| member.is_err()), "{text}");
            assert!(members.next().is_none(), "{text}: nothing after an error");
        }
    }
}
