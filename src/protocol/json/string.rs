//! JSON strings (RFC 8259, section 7): written, measured and read.
//!
//! The plain version looks at each byte. Most strings have nothing to escape, so the departure is
//! [`plain_prefix`], which looks at eight at a time, and at 32 once a string is long; everything else goes from one
//! special byte to the next. What is written is mostly plain ASCII, which one look tells to be valid UTF-8 as well.

use std::borrow::Cow;

use super::JsonError;

/// How many bytes from the start on can stand in a JSON string as they are: up to the first quote, backslash or
/// control character.
#[inline]
pub(super) fn plain_prefix(bytes: &[u8]) -> usize {
    prefix(bytes, special_bytes)
}

/// Is this what stands between the quotes of its JSON string, and UTF-8 without a closer look?
fn is_plain_ascii(bytes: &[u8]) -> bool {
    prefix(bytes, |word| special_bytes(word) | word & HIGH_BITS) == bytes.len()
}

/// How many bytes come before the first that is meant. `meant`: the high bit of each byte of a word that is, exact up
/// to and including the lowest.
#[inline(always)]
fn prefix(bytes: &[u8], meant: impl Fn(u64) -> u64) -> usize {
    // Keys and topics end in the first words; only what goes on is worth a wider look.
    const WORDS_BEFORE_WIDE: usize = 2;
    let meant = |word: &[u8; 8]| meant(u64::from_le_bytes(*word));
    let index = |found: u64| found.trailing_zeros() as usize / 8;
    let mut rest = bytes;
    let mut words = 0;
    while let Some((word, more)) = rest.split_first_chunk() {
        let found = meant(word);
        if found != 0 {
            return bytes.len() - rest.len() + index(found);
        }
        rest = more;
        words += 1;
        if words == WORDS_BEFORE_WIDE {
            // No early end inside of a chunk, so that the compiler takes vectors.
            while let Some((chunk, more)) = rest.split_first_chunk::<32>()
                && let (words, _) = chunk.as_chunks()
                && words.iter().fold(0, |any, word| any | meant(word)) == 0
            {
                rest = more;
            }
        }
    }
    if rest.is_empty() {
        return bytes.len();
    }
    // The end, with bytes before it that were looked at and found plain.
    if let Some(word) = bytes.last_chunk() {
        return bytes.len() - word.len() + index(meant(word));
    }
    let mut word = [b'x'; 8];
    for (to, from) in word.iter_mut().zip(rest) {
        *to = *from;
    }
    index(meant(&word)).min(bytes.len())
}

const HIGH_BITS: u64 = u64::from_le_bytes([0x80; 8]);

/// The high bit of each byte that is `"`, `\` or below 0x20. Exact up to and including the lowest such byte: a
/// subtraction borrows only from the bytes above a hit.
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let below = |word: u64, bound: u8| word.wrapping_sub(ONES * u64::from(bound)) & !word;
    let equals = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, 0x20) | equals(b'"') | equals(b'\\')) & HIGH_BITS
}

/// Appends `text` (UTF-8; invalid parts become U+FFFD) as a JSON string with quotes.
#[inline]
pub fn write_string(text: &[u8], out: &mut Vec<u8>) {
    if is_plain_ascii(text) {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
    } else {
        write_any_string(text, out);
    }
}

fn write_any_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    if simdutf8::basic::from_utf8(text).is_ok() {
        write_escaped(text, out);
    } else {
        for chunk in text.utf8_chunks() {
            write_escaped(chunk.valid().as_bytes(), out);
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    out.push(b'"');
}

/// The bytes that [`write_string`] appends.
pub fn string_size(text: &[u8]) -> usize {
    if is_plain_ascii(text) {
        return text.len() + 2;
    }
    let contents = if simdutf8::basic::from_utf8(text).is_ok() {
        escaped_size(text)
    } else {
        let replaced = |invalid: &[u8]| {
            if invalid.is_empty() {
                0
            } else {
                "\u{fffd}".len()
            }
        };
        text.utf8_chunks()
            .map(|chunk| escaped_size(chunk.valid().as_bytes()) + replaced(chunk.invalid()))
            .sum()
    };
    contents + 2
}

fn write_escaped(mut text: &[u8], out: &mut Vec<u8>) {
    loop {
        let (plain, rest) = text.split_at(plain_prefix(text));
        out.extend_from_slice(plain);
        let Some((&special, rest)) = rest.split_first() else {
            return;
        };
        match short_escape(special) {
            Some(letter) => out.extend_from_slice(&[b'\\', letter]),
            None => {
                let digit = |value: u8| b"0123456789abcdef"[usize::from(value & 15)];
                out.extend_from_slice(&[
                    b'\\',
                    b'u',
                    b'0',
                    b'0',
                    digit(special >> 4),
                    digit(special),
                ]);
            }
        }
        text = rest;
    }
}

fn escaped_size(mut text: &[u8]) -> usize {
    let mut size = text.len();
    loop {
        let Some((&special, rest)) = text[plain_prefix(text)..].split_first() else {
            return size;
        };
        size += if short_escape(special).is_some() {
            1
        } else {
            5
        };
        text = rest;
    }
}

/// The letter behind the backslash, where there is a short form.
fn short_escape(byte: u8) -> Option<u8> {
    match byte {
        b'"' | b'\\' => Some(byte),
        0x08 => Some(b'b'),
        b'\t' => Some(b't'),
        b'\n' => Some(b'n'),
        0x0c => Some(b'f'),
        b'\r' => Some(b'r'),
        _ => None,
    }
}

/// The bytes of the string with these contents (what stands between its quotes).
///
/// # Errors
/// A surrogate escape without its other half, which no UTF-8 can say; a bad escape, if the contents were never
/// validated.
pub fn unescape(contents: &[u8]) -> Result<Cow<'_, [u8]>, JsonError> {
    read(contents, |at, _, _| {
        Err(JsonError {
            at,
            reason: "half a surrogate pair",
        })
    })
}

/// [`unescape`] for comparing keys: half a surrogate pair becomes the three bytes that UTF-8 would have for it,
/// so that equal keys are equal and others are not. What is no string is given back as it is.
pub(crate) fn unescape_loosely(contents: &[u8]) -> Cow<'_, [u8]> {
    let loosely = read(contents, |_, half, out| {
        out.extend_from_slice(&[
            0xe0 | (half >> 12) as u8,
            0x80 | (half >> 6 & 0x3f) as u8,
            0x80 | (half & 0x3f) as u8,
        ]);
        Ok(())
    });
    loosely.unwrap_or(Cow::Borrowed(contents))
}

fn read(
    contents: &[u8],
    mut on_half: impl FnMut(usize, u32, &mut Vec<u8>) -> Result<(), JsonError>,
) -> Result<Cow<'_, [u8]>, JsonError> {
    let Some(mut backslash) = memchr::memchr(b'\\', contents) else {
        return Ok(Cow::Borrowed(contents));
    };
    let mut out = Vec::with_capacity(contents.len());
    let mut at = 0;
    loop {
        out.extend_from_slice(&contents[at..backslash]);
        at = backslash + 2;
        match contents.get(backslash + 1) {
            Some(byte @ (b'"' | b'\\' | b'/')) => out.push(*byte),
            Some(b'b') => out.push(0x08),
            Some(b'f') => out.push(0x0c),
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(b'u') => {
                let unit = unit(contents, backslash).ok_or(JsonError {
                    at: backslash,
                    reason: "a bad escape",
                })?;
                at = backslash + 6;
                let low = unit_at_escape(contents, at).filter(|low| (0xdc00..0xe000).contains(low));
                let scalar = match (unit, low) {
                    (0xd800..0xdc00, Some(low)) => {
                        at += 6;
                        char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00))
                    }
                    _ => char::from_u32(unit),
                };
                match scalar {
                    Some(scalar) => {
                        out.extend_from_slice(scalar.encode_utf8(&mut [0; 4]).as_bytes())
                    }
                    None => on_half(backslash, unit, &mut out)?,
                }
            }
            _ => {
                return Err(JsonError {
                    at: backslash,
                    reason: "a bad escape",
                });
            }
        }
        match memchr::memchr(b'\\', &contents[at..]) {
            Some(distance) => backslash = at + distance,
            None => {
                out.extend_from_slice(&contents[at..]);
                return Ok(Cow::Owned(out));
            }
        }
    }
}

/// The UTF-16 unit of the `\uXXXX` at `at`, if there is one.
fn unit_at_escape(contents: &[u8], at: usize) -> Option<u32> {
    if contents.get(at..)?.starts_with(b"\\u") {
        unit(contents, at)
    } else {
        None
    }
}

fn unit(contents: &[u8], at: usize) -> Option<u32> {
    let digits = contents.get(at + 2..at + 6)?;
    digits.iter().try_fold(0, |unit, digit| {
        Some(unit << 4 | char::from(*digit).to_digit(16)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_prefix_agrees_with_its_naive_twin() {
        let naive = |bytes: &[u8]| {
            bytes
                .iter()
                .position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\')
                .unwrap_or(bytes.len())
        };
        for length in (0..40).chain([47, 48, 49, 55, 56, 80, 81]) {
            for at in 0..length {
                for byte in 0..=255 {
                    for around in [b'x', 0x80, 0xff, b'!', b'#', b'[', b']', b' '] {
                        let mut bytes = vec![around; length];
                        bytes[at] = byte;
                        assert_eq!(
                            plain_prefix(&bytes),
                            naive(&bytes),
                            "{byte} at {at} of {length}"
                        );
                        assert_eq!(
                            is_plain_ascii(&bytes),
                            bytes.is_ascii() && naive(&bytes) == length,
                            "{byte} at {at} of {length}"
                        );
                    }
                }
            }
        }
        for pair in 0..=u16::MAX {
            let [first, second] = pair.to_le_bytes();
            let bytes = [b'a', first, second, b'b', second, first, b'c', b'd', first];
            assert_eq!(plain_prefix(&bytes), naive(&bytes), "{first} {second}");
        }
    }

    #[test]
    fn strings_are_written_as_serde_json_writes_them() {
        let check = |text: &str| {
            let mut out = b"before".to_vec();
            write_string(text.as_bytes(), &mut out);
            assert_eq!(
                std::str::from_utf8(&out[6..]).unwrap(),
                serde_json::to_string(text).unwrap()
            );
            assert_eq!(string_size(text.as_bytes()), out.len() - 6, "{text:?}");
        };
        for text in [
            "",
            "a",
            "\"",
            "\\",
            "é😀\u{2028}\u{7f}",
            "a long text with a \"quote\" and a \\ in it, and more of it behind",
        ] {
            check(text);
        }
        (0..0x100)
            .filter_map(char::from_u32)
            .for_each(|each| check(&format!("{each}12345678{each}{each}")));
    }

    #[test]
    fn what_is_not_utf8_is_replaced() {
        for (text, written) in [
            (&b"\xff"[..], "\"\u{fffd}\""),
            (b"a\xc3", "\"a\u{fffd}\""),
            (b"\xff\n\xfe\"b", "\"\u{fffd}\\n\u{fffd}\\\"b\""),
            (b"\xf0\x9f\x98x", "\"\u{fffd}x\""),
            (b"\xed\xa0\x80", "\"\u{fffd}\u{fffd}\u{fffd}\""),
        ] {
            let mut out = Vec::new();
            write_string(text, &mut out);
            assert_eq!(std::str::from_utf8(&out), Ok(written));
            assert_eq!(string_size(text), out.len());
        }
    }

    #[test]
    fn escapes_are_read() {
        for (contents, bytes) in [
            ("", ""),
            ("plain é", "plain é"),
            (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r"\u0041\u00e9\u20AC\uffff", "Aé€\u{ffff}"),
            (r"x\ud83d\ude00y", "x😀y"),
            (r"\udbff\udfff", "\u{10ffff}"),
            (r"\\u0041", "\\u0041"),
        ] {
            assert_eq!(
                unescape(contents.as_bytes()).as_deref(),
                Ok(bytes.as_bytes()),
                "{contents}"
            );
            assert_eq!(
                unescape_loosely(contents.as_bytes()),
                bytes.as_bytes(),
                "{contents}"
            );
        }
        assert!(matches!(unescape(b"as it is"), Ok(Cow::Borrowed(_))));
        for (contents, loosely) in [
            (r"\ud800", &b"\xed\xa0\x80"[..]),
            (r"a\uDFFFb", b"a\xed\xbf\xbfb"),
            (r"\ud800\u0041", b"\xed\xa0\x80A"),
            (r"\ud83d\\ude00", b"\xed\xa0\xbd\\ude00"),
            (r"\ude00\ud83d", b"\xed\xb8\x80\xed\xa0\xbd"),
            (r"\ud83d\ud83d\ude00", b"\xed\xa0\xbd\xf0\x9f\x98\x80"),
        ] {
            assert!(unescape(contents.as_bytes()).is_err(), "{contents}");
            assert_eq!(
                &*unescape_loosely(contents.as_bytes()),
                loosely,
                "{contents}"
            );
        }
        // Never validated: an error, not a panic.
        for contents in [
            &b"\\"[..],
            b"\\u",
            b"\\u12",
            b"\\u12g4",
            b"\\x",
            b"\\ud800\\u",
            b"\\ud800\\u12",
            b"a\\",
        ] {
            assert!(unescape(contents).is_err());
            assert_eq!(&*unescape_loosely(contents), contents);
        }
    }
}
