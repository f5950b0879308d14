//! Close codes and close frames (RFC 6455, 5.5.1 and 7.4).
//!
//! Invariant: a code that only has a local meaning (1005, 1006, 1015) is never taken from the wire, and what is
//! written here is a frame that every client takes: at most 125 bytes, its text valid UTF-8.

use super::frame::{self, CONTROL_PAYLOAD_BYTES_MAX, Opcode};

/// The longest text of a close frame: the payload of a control frame less the two bytes of the code.
pub const TEXT_BYTES_MAX: usize = CONTROL_PAYLOAD_BYTES_MAX - 2;

/// May this code be on the wire from a client (RFC 6455, 7.4, and the IANA registry up to 1014)?
pub fn is_valid_code(code: u16) -> bool {
    // 1004 is reserved without a meaning; 1005, 1006 and 1015 are for reports to the local application only.
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Appends a whole unmasked close frame. `None`: empty payload, without text (text needs a code in front).
/// The text is cut at [`TEXT_BYTES_MAX`] on a char boundary.
pub fn encode(code: Option<u16>, text: &[u8], out: &mut Vec<u8>) {
    let Some(code) = code else {
        return frame::encode_header(Opcode::Close, 0, out);
    };
    let text = &text[..text.len().min(TEXT_BYTES_MAX)];
    let text = match std::str::from_utf8(text) {
        Ok(text) => text.as_bytes(),
        // The cut fell into a character (or the text was none from there on).
        Err(error) => &text[..error.valid_up_to()],
    };
    frame::encode_header(Opcode::Close, 2 + text.len(), out);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_on_the_wire() {
        let valid = |range: std::ops::RangeInclusive<u16>| range.clone().all(is_valid_code);
        let invalid = |range: std::ops::RangeInclusive<u16>| !range.clone().any(is_valid_code);
        assert!(valid(1000..=1003));
        assert!(valid(1007..=1014));
        assert!(valid(3000..=4999));
        assert!(invalid(0..=999));
        assert!(invalid(1004..=1006));
        assert!(invalid(1015..=2999));
        assert!(invalid(5000..=u16::MAX));
    }

    #[test]
    fn encodes() {
        let check = |code, text: &[u8], expected: &[u8]| {
            let mut out = b"before".to_vec();
            encode(code, text, &mut out);
            assert_eq!(&out[6..], expected);
        };
        check(None, b"", &[0x88, 0]);
        check(None, b"dropped", &[0x88, 0]);
        check(Some(1000), b"", &[0x88, 2, 0x03, 0xE8]);
        check(Some(3000), b"a", &[0x88, 3, 0x0B, 0xB8, b'a']);
        check(Some(1002), b"a\xFFb", &[0x88, 3, 0x03, 0xEA, b'a']);
    }

    #[test]
    fn cuts_long_text_on_a_char_boundary() {
        let check = |text: &str, kept: usize| {
            let mut out = Vec::new();
            encode(Some(1001), text.as_bytes(), &mut out);
            assert_eq!(out.len(), 2 + 2 + kept);
            assert_eq!(usize::from(out[1]), 2 + kept);
            assert_eq!(&out[4..], &text.as_bytes()[..kept]);
        };
        check(&"a".repeat(123), 123);
        check(&"a".repeat(124), 123);
        check(&"é".repeat(70), 122);
        check(&"€".repeat(70), 123);
        check(&format!("a{}", "€".repeat(70)), 121);
        check(&"😀".repeat(70), 120);
    }
}
