//! The elements of an array that is known to be JSON.
//!
//! Knows the grammar only as far as it must to skip a value: strings are stepped over, brackets are counted. The text
//! has passed the scanner before; where it had not, elements would be wrong, and still slices of it.

use super::super::json::{Span, string_end};

/// The elements of an array, in their order, each as written. Looks no further than the caller asks.
pub(super) struct Elements<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Elements<'a> {
    /// The elements of the array that stands at `array` in `text`.
    pub(super) fn of(text: &'a [u8], array: Span) -> Elements<'a> {
        let array = array.range();
        Elements {
            text: &text[..array.end],
            at: array.start,
        }
    }
}

impl Iterator for Elements<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        // At the opening bracket, at a comma, or at the closing bracket.
        let start = past_whitespace(self.text, self.at + 1);
        let end = value_end(self.text, start)?;
        self.at = past_whitespace(self.text, end);
        (end > start).then(|| Span::new(start, end))
    }
}

/// Where the value that starts at `start` ends; `start` itself if there is none.
fn value_end(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    let mut depth = 0_usize;
    loop {
        match text.get(at)? {
            b'"' => at = string_end(text, at)?,
            b'[' | b'{' => {
                depth += 1;
                at += 1;
            }
            b']' | b'}' if depth > 0 => {
                depth -= 1;
                at += 1;
            }
            b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return Some(at),
            // A letter or a digit, or between the brackets of the value.
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

fn past_whitespace(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + rest
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(text: &str) -> Vec<&str> {
        let array = Span::new(0, text.len());
        Elements::of(text.as_bytes(), array)
            .map(|element| &text[element.range()])
            .collect()
    }

    #[test]
    fn elements_are_cut_where_serde_json_cuts_them() {
        let check = |text: &str| {
            let expected: Vec<&serde_json::value::RawValue> = serde_json::from_str(text).unwrap();
            let expected: Vec<&str> = expected.iter().map(|value| value.get()).collect();
            assert_eq!(elements(text), expected, "{text}");
        };
        for text in [
            "[]",
            "[ \n]",
            "[1]",
            "[ -1.5e3\t]",
            r#"["p","room",{"x":1}]"#,
            r#"[ "a\"]," , [ ] , { } ,null,true ,[[1,{"]":"}"}],2],"\\"]"#,
            r#"[[[[],[]],{"a":{"b":[{}]}}],",",0]"#,
            r#"["é😀",["é"]]"#,
        ] {
            check(text);
        }
    }

    #[test]
    fn an_array_may_stand_anywhere() {
        let text = br#"{"x":[1],"y":[2,[3]],"z":4}"#;
        let array = Span::new(13, 20);
        assert_eq!(array.of(text), b"[2,[3]]");
        let found: Vec<&[u8]> = Elements::of(text, array)
            .map(|span| span.of(text))
            .collect();
        assert_eq!(found, [&b"2"[..], b"[3]"]);
    }

    #[test]
    fn what_is_no_json_ends() {
        for text in [
            "", "[", "[1", "[[", "[\"", "[,,", "[1 2", "[}", "[{]", "]]", "[1,",
        ] {
            assert!(elements(text).len() <= text.len(), "{text}");
        }
    }
}
