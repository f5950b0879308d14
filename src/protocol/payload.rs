//! A payload of any kind as JSON text (DESIGN 5.3, "Payloads between protocols"), and the size of that text.
//!
//! JSON goes as it is, text becomes a string, binary becomes `{"$binary":"<base64>"}`. JSON that came with
//! attachments has each of its placeholders, `{"_placeholder":true,"num":K}`, replaced by attachment K.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::json::{string_end, string_size, unescape_loosely, write_string};
use crate::message::{Kind, Payload};

/// Appends a payload.
pub(super) fn write_payload(payload: &Payload, attachments: &[Bytes], out: &mut Vec<u8>) {
    let bytes = payload.bytes();
    match payload.kind() {
        Kind::Json if attachments.is_empty() => out.extend_from_slice(bytes),
        Kind::Json => pieces(bytes, attachments, |piece| match piece {
            Piece::Json(json) => out.extend_from_slice(json),
            Piece::Attachment(bytes) => write_binary(bytes, out),
        }),
        Kind::Text => write_string(bytes, out),
        Kind::Binary => write_binary(bytes, out),
    }
}

/// The bytes that [`write_payload`] appends.
pub(super) fn payload_size(payload: &Payload, attachments: &[Bytes]) -> usize {
    let bytes = payload.bytes();
    match payload.kind() {
        Kind::Json if attachments.is_empty() => bytes.len(),
        Kind::Json => {
            let mut size = 0;
            pieces(bytes, attachments, |piece| {
                size += match piece {
                    Piece::Json(json) => json.len(),
                    Piece::Attachment(bytes) => binary_size(bytes),
                }
            });
            size
        }
        Kind::Text => string_size(bytes),
        Kind::Binary => binary_size(bytes),
    }
}

/// Appends the bytes of a payload as they came, whatever they are. Only attachments are written as JSON, in their places.
pub(super) fn write_raw(payload: &Payload, attachments: &[Bytes], out: &mut Vec<u8>) {
    if attachments.is_empty() {
        out.extend_from_slice(payload.bytes());
    } else {
        write_payload(payload, attachments, out);
    }
}

/// The bytes that [`write_raw`] appends.
pub(super) fn raw_size(payload: &Payload, attachments: &[Bytes]) -> usize {
    if attachments.is_empty() {
        payload.bytes().len()
    } else {
        payload_size(payload, attachments)
    }
}

const BINARY_OPEN: &[u8] = br#"{"$binary":""#;
const BINARY_CLOSE: &[u8] = br#""}"#;

fn write_binary(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(BINARY_OPEN);
    let start = out.len();
    out.resize(start + base64_size(bytes), 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]);
    assert_eq!(
        written,
        Ok(out.len() - start),
        "padded base64 is four bytes for each three begun"
    );
    out.extend_from_slice(BINARY_CLOSE);
}

fn binary_size(bytes: &[u8]) -> usize {
    BINARY_OPEN.len() + base64_size(bytes) + BINARY_CLOSE.len()
}

fn base64_size(bytes: &[u8]) -> usize {
    bytes.len().div_ceil(3) * 4
}

enum Piece<'a> {
    Json(&'a [u8]),
    Attachment(&'a [u8]),
}

/// A JSON text in pieces: what is passed on as it is, and the attachments between. A placeholder whose number
/// no attachment has stays what it is.
///
/// A brace inside of a string needs no care: the next quote is escaped or closes the string, and what follows a
/// string is never one of the two keys.
fn pieces<'a>(json: &'a [u8], attachments: &'a [Bytes], mut visit: impl FnMut(Piece<'a>)) {
    let (mut done, mut at) = (0, 0);
    while let Some(distance) = memchr::memchr(b'{', &json[at..]) {
        at += distance;
        if let Some((end, number)) = placeholder(json, at)
            && let Some(attachment) = attachments.get(number)
        {
            visit(Piece::Json(&json[done..at]));
            visit(Piece::Attachment(attachment));
            (done, at) = (end, end);
        } else {
            at += 1;
        }
    }
    visit(Piece::Json(&json[done..]));
}

/// The end and the number of the placeholder whose brace is at `at`, if the object there is one: exactly the
/// members `_placeholder` (true) and `num` (digits), in any order. Reads no further than the first thing that
/// does not fit, so that looking at every brace stays linear.
fn placeholder(json: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut marked = false;
    let mut number = None;
    let mut at = past_whitespace(json, at + 1);
    for closing in [b',', b'}'] {
        let key_end = string_end(json, at)?;
        let key = unescape_loosely(&json[at + 1..key_end - 1]);
        at = past_whitespace(json, key_end);
        at = past_whitespace(json, past(json, at, b':')?);
        match &*key {
            b"_placeholder" if !marked && json[at..].starts_with(b"true") => {
                marked = true;
                at += 4;
            }
            b"num" if number.is_none() => {
                let digits = json[at..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit())
                    .count();
                number = Some(
                    std::str::from_utf8(&json[at..at + digits])
                        .ok()?
                        .parse()
                        .ok()?,
                );
                at += digits;
            }
            _ => return None,
        }
        at = past_whitespace(json, at);
        at = past(json, at, closing)?;
        if closing == b',' {
            at = past_whitespace(json, at);
        }
    }
    Some((at, number?))
}

fn past(json: &[u8], at: usize, byte: u8) -> Option<usize> {
    (json.get(at) == Some(&byte)).then_some(at + 1)
}

fn past_whitespace(json: &[u8], at: usize) -> usize {
    at + json[at..]
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(payload: Payload, attachments: &[&[u8]], expected: &str) {
        let attachments: Vec<Bytes> = attachments
            .iter()
            .map(|bytes| Bytes::copy_from_slice(bytes))
            .collect();
        let mut out = b"before".to_vec();
        write_payload(&payload, &attachments, &mut out);
        assert_eq!(std::str::from_utf8(&out[6..]).unwrap(), expected);
        assert_eq!(
            payload_size(&payload, &attachments),
            expected.len(),
            "{expected}"
        );
    }

    #[test]
    fn every_kind_becomes_json() {
        check(
            Payload::json(Bytes::from_static(b" {\"a\": 1.0}")),
            &[],
            " {\"a\": 1.0}",
        );
        check(
            Payload::text(Bytes::from_static("a\"é\n".as_bytes())),
            &[],
            "\"a\\\"é\\n\"",
        );
        check(
            Payload::binary(Bytes::from_static(b"")),
            &[],
            r#"{"$binary":""}"#,
        );
        check(
            Payload::binary(Bytes::from_static(b"\xff")),
            &[],
            r#"{"$binary":"/w=="}"#,
        );
        check(
            Payload::binary(Bytes::from_static(b"\xfb\xff\xbf\x00")),
            &[],
            r#"{"$binary":"+/+/AA=="}"#,
        );
        check(
            Payload::binary(Bytes::from_static(b"abc")),
            &[],
            r#"{"$binary":"YWJj"}"#,
        );
    }

    #[test]
    fn placeholders_become_their_attachments() {
        let check = |json: &'static str, expected: &str| {
            check(
                Payload::json(Bytes::from_static(json.as_bytes())),
                &[b"a", b"bc"],
                expected,
            )
        };
        let (a, b) = (r#"{"$binary":"YQ=="}"#, r#"{"$binary":"YmM="}"#);
        check(r#"{"_placeholder":true,"num":0}"#, a);
        check(
            r#" { "num" : 1 , "_placeholder" : true } "#,
            &format!(" {b} "),
        );
        check(r#"{"\u005fplaceholder":true,"nu\u006d":1}"#, b);
        check(
            r#"[{"x":{"_placeholder":true,"num":1}},"{",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]"#,
            &format!(r#"[{{"x":{b}}},"{{",{a},{a}]"#),
        );
        for same in [
            r#"{"_placeholder":true,"num":2}"#,
            r#"{"_placeholder":true,"num":99999999999999999999999}"#,
            r#"{"_placeholder":true,"num":-1}"#,
            r#"{"_placeholder":true,"num":0.0}"#,
            r#"{"_placeholder":true,"num":"0"}"#,
            r#"{"_placeholder":false,"num":0}"#,
            r#"{"_placeholder":true}"#,
            r#"{"num":0}"#,
            r#"{"num":0,"num":0}"#,
            r#"{"_placeholder":true,"_placeholder":true}"#,
            r#"{"_placeholder":true,"num":0,"more":1}"#,
            r#"{"more":1,"_placeholder":true,"num":0}"#,
            r#""{\"_placeholder\":true,\"num\":0}""#,
            r#"{"{\"_placeholder\":true,\"num\":0}":"}"}"#,
            r#"["{","_placeholder",true,"num",0,"}"]"#,
            r#"{"{ ":"_placeholder","true,":{"num":0}}"#,
            "{}",
            "[{},{}]",
        ] {
            check(same, same);
        }
    }

    #[test]
    fn what_is_no_json_does_no_harm() {
        for json in [
            "{",
            "\"",
            "{\"",
            "{\"num",
            "{\"num\"",
            "{\"num\":",
            "{\"num\":1",
            "{\"num\":1,",
            "{\"_placeholder\":true,\"num\":0",
            "{{{{\"\\",
        ] {
            check(
                Payload::json(Bytes::copy_from_slice(json.as_bytes())),
                &[b"a"],
                json,
            );
        }
    }
}
