//! Tokens and the files of their keys. The input: one byte for what the rest is, a token (`t`), the text of a key file
//! (`k`), or claims, which are signed here (`c`).
//!
//! The oracle of claims: the same read field by field from what serde_json makes of them.

use jsonwebtoken::{EncodingKey, Header, encode};
use pubsub::token::{Claims, Keys, TokenError};
use pubsub::topic::Filter;
use serde_json::Value;
use serde_json::value::RawValue;

use super::input::Input;

const NOW_MS: u64 = 1_500_000_000_000;
const SECRET: &str = "a secret of the tests, long enough for its hash";
const PUBLIC_KEYS: [&str; 2] = [
    include_str!("../keys/rsa.pub.pem"),
    include_str!("../keys/ed25519.pub.pem"),
];

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    match input.byte() {
        b'k' => {
            if let Ok(text) = std::str::from_utf8(input.rest()) {
                check_file(text);
            }
        }
        b'c' => {
            if let Ok(text) = std::str::from_utf8(input.rest()) {
                check_claims(text);
            }
        }
        _ => check_token(input.rest()),
    }
}

fn keys() -> Keys {
    let mut keys = Keys::default();
    keys.add_secret(SECRET.as_bytes()).unwrap();
    for text in PUBLIC_KEYS {
        keys.add_file(text).unwrap();
    }
    keys
}

/// Nobody but us has the secret, so what is believed is one of the committed tokens, and no other bytes.
fn check_token(token: &[u8]) {
    if keys().verify(token, NOW_MS).is_ok() {
        let dots = token.iter().filter(|&&byte| byte == b'.').count();
        assert_eq!(dots, 2, "{}", token.escape_ascii());
        for change in 0..token.len() {
            let mut other = token.to_vec();
            other[change] ^= 1;
            let refused = keys().verify(&other, NOW_MS);
            assert!(refused.is_err(), "{}", other.escape_ascii());
        }
    }
}

fn check_file(text: &str) {
    let mut keys = Keys::default();
    if keys.add_file(text).is_ok() {
        assert!(!keys.is_empty());
        // Whatever they are, they can be used.
        for algorithm in ["HS256", "RS256", "EdDSA"] {
            let token = forged(algorithm);
            assert!(keys.verify(token.as_bytes(), NOW_MS).is_err(), "{text}");
        }
    }
}

/// Nobody's signature.
fn forged(algorithm: &str) -> String {
    let header = match algorithm {
        "HS256" => "eyJhbGciOiJIUzI1NiJ9",
        "RS256" => "eyJhbGciOiJSUzI1NiJ9",
        _ => "eyJhbGciOiJFZERTQSJ9",
    };
    format!("{header}.eyJzdWIiOiJhIn0.{}", "A".repeat(86))
}

fn check_claims(text: &str) {
    let Ok(raw) = serde_json::from_str::<Box<RawValue>>(text) else {
        return;
    };
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = encode(&Header::default(), &raw, &key).unwrap();
    match keys().verify(token.as_bytes(), NOW_MS) {
        Ok(claims) => check_against(&claims, &serde_json::from_str(text).unwrap()),
        Err(TokenError::TooLong) => assert!(token.len() > 4096),
        Err(refused) => assert!(!refused.is_guess(), "it is signed: {refused}: {text}"),
    }
}

fn check_against(claims: &Claims, written: &Value) {
    assert_eq!(*claims.subject, *written["sub"].as_str().unwrap());
    assert!((1..=255).contains(&claims.subject.len()));
    match (claims.expires_unix_ms, &written["exp"]) {
        (None, exp) => assert!(exp.is_null(), "{written}"),
        (Some(at_ms), exp) => {
            assert!(at_ms > NOW_MS, "{written}");
            assert_eq!(at_ms, (exp.as_f64().unwrap() * 1000.0) as u64);
        }
    }
    for (filters, written) in [
        (&claims.subscribe, &written["subscribe"]),
        (&claims.publish, &written["publish"]),
    ] {
        let Some(filters) = filters else {
            assert!(written.is_null());
            continue;
        };
        let written = written.as_array().unwrap();
        assert_eq!(filters.len(), written.len());
        for (filter, written) in filters.iter().zip(written) {
            let text = match filter {
                Filter::Dotted(_) => written.as_str().or_else(|| written["filter"].as_str()),
                Filter::Exact(_) | Filter::Shard(_) => written["channel"].as_str(),
                Filter::Glob(_) => written["pattern"].as_str(),
                Filter::Room(_) => panic!("no token is about rooms"),
            };
            assert_eq!(Some(&filter.written()[..]), text.map(str::as_bytes));
        }
    }
}
