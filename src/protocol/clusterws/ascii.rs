//! JSON text in ASCII: every other character as `\uXXXX`, which says the same to whoever parses it.
//!
//! In JSON such characters stand only in strings, so that no structure has to be known. What is not UTF-8 becomes
//! U+FFFD, as everywhere.

/// Rewrites what `out` has from `start` on.
pub(super) fn escape_from(start: usize, out: &mut Vec<u8>) {
    if out[start..].is_ascii() {
        return;
    }
    let text = out.split_off(start);
    out.reserve(escaped_size(&text));
    for each in String::from_utf8_lossy(&text).chars() {
        match u8::try_from(each) {
            Ok(byte) if byte.is_ascii() => out.push(byte),
            _ => {
                for unit in each.encode_utf16(&mut [0; 2]) {
                    let digit = |shift: u16| b"0123456789abcdef"[usize::from(*unit >> shift & 15)];
                    out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
                }
            }
        }
    }
}

/// The bytes that [`escape_from`] makes of `text`.
pub(super) fn escaped_size(text: &[u8]) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    let text = String::from_utf8_lossy(text);
    text.len() + growth(text.as_bytes())
}

/// How many bytes the string with these contents grows by; what escapes it needs in UTF-8 has been counted.
pub(super) fn string_growth(contents: &[u8]) -> usize {
    if contents.is_ascii() {
        return 0;
    }
    growth(String::from_utf8_lossy(contents).as_bytes())
}

/// Six bytes for each UTF-16 unit, in place of two to four for the character, which its first byte tells.
fn growth(utf8: &[u8]) -> usize {
    let of_byte = |byte: &u8| match byte {
        0xc0..=0xdf => 6 - 2,
        0xe0..=0xef => 6 - 3,
        0xf0..=0xff => 12 - 4,
        0x00..=0xbf => 0,
    };
    utf8.iter().map(of_byte).sum()
}

#[cfg(test)]
mod tests {
    use super::super::super::json::{string_size, write_string};
    use super::*;

    #[test]
    fn the_rest_of_unicode_is_escaped() {
        let check = |text: &[u8], expected: &str| {
            let mut out = "é".as_bytes().to_vec();
            out.extend_from_slice(text);
            escape_from(2, &mut out);
            assert_eq!(&out[..2], "é".as_bytes(), "what was there before stays");
            assert_eq!(std::str::from_utf8(&out[2..]), Ok(expected));
            assert_eq!(escaped_size(text), expected.len(), "{expected}");
        };
        check(b"", "");
        check(b"{\"a\":[\"\\u00e9\x7f\"]}", "{\"a\":[\"\\u00e9\x7f\"]}");
        check("\"é€\"".as_bytes(), r#""\u00e9\u20ac""#);
        check(
            "\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}".as_bytes(),
            r"\u0080\u07ff\u0800\uffff\ud800\udc00\udbff\udfff",
        );
        check(b"a\xffb\xe2\x82", r"a\ufffdb\ufffd");
    }

    #[test]
    fn strings_grow_as_foretold() {
        for contents in [
            &b""[..],
            b"a\"\n",
            "é\"€😀\u{1}".as_bytes(),
            b"\xff\xc3\xa9\xf0\x9f\x98",
        ] {
            let mut out = Vec::new();
            write_string(contents, &mut out);
            escape_from(0, &mut out);
            assert_eq!(string_size(contents) + string_growth(contents), out.len());
            let read: String = serde_json::from_slice(&out).unwrap();
            assert_eq!(read, String::from_utf8_lossy(contents));
        }
    }
}
